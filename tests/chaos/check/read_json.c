/*
 * Our own histories, one JSON object a line: README.md says how they look.
 *
 * An event is a begin ("invoke") or an end ("ok", "fail", "info"). An end that is ok is read like a begin, with results
 * this time, and must be about what was begun.
 */
#include "tests/chaos/check/reader_internal.h"

#include <inttypes.h>
#include <jansson.h>

enum { NUMBER_TEXT_BYTES = 24 };

struct event {
    struct reader *reader;
    const json_t *object;
    bool is_end;         /* with results */
    uint32_t part_count; /* in reader->parts */
};

static struct slice json_slice(const json_t *string) {
    return slice_of(json_string_value(string), json_string_length(string));
}

/* A string, a whole number (as its decimal text), or null where there is nothing. */
static enum status take_value(struct reader *reader, const json_t *json, uint32_t *ret_value) {
    if (json_is_string(json)) {
        return reader__value(reader, json_slice(json), ret_value);
    }
    if (json_is_integer(json)) {
        char text[NUMBER_TEXT_BYTES];
        int len = snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(json));
        return reader__value(reader, slice_of(text, (size_t)len), ret_value);
    }
    if (json_is_null(json)) {
        *ret_value = VALUES_NONE;
        return STATUS_OK;
    }
    return reader__bad(reader, "a value is a string, a whole number or null");
}

static enum status take_key(struct reader *reader, const json_t *object, uint32_t *ret_key) {
    const json_t *key = json_object_get(object, "key");
    return json_is_string(key) ? reader__key(reader, json_slice(key), ret_key) : reader__bad(reader, "without a key");
}

static enum status add_part(struct event *event, struct check_part part) {
    if (event->part_count == CHECK_PARTS_MAX) {
        return reader__bad(event->reader, "more than %d parts", CHECK_PARTS_MAX);
    }
    event->reader->parts[event->part_count++] = part;
    return STATUS_OK;
}

/* ---- What holdfast-history writes: numbers ------------------------------------------------------------------------
 */

/* 0: nothing is there. */
static enum status take_number(struct event *event, const char *name, uint32_t *ret_value) {
    const json_t *json = json_object_get(event->object, name);
    if (!json_is_integer(json) || json_integer_value(json) < 0) {
        return reader__bad(event->reader, "\"%s\" is no number", name);
    }
    if (json_integer_value(json) == 0) {
        *ret_value = VALUES_NONE;
        return STATUS_OK;
    }
    return take_value(event->reader, json, ret_value);
}

/* The key's twin has a tilde behind its name. */
static enum status take_twin(struct event *event, uint32_t *ret_key) {
    const json_t *key = json_object_get(event->object, "key");
    struct buf name;
    buf_init(&name, event->reader->history->alloc, 0);
    enum status status = buf_append(&name, json_string_value(key), json_string_length(key));
    if (status == STATUS_OK) {
        status = buf_append(&name, "~", 1);
    }
    status = status == STATUS_OK ? reader__key(event->reader, buf_slice(&name), ret_key)
                                 : error_set(event->reader->err, status, "no memory for the history");
    buf_deinit(&name);
    return status;
}

/* put of a number: the twin gets it, too, if it is even, and is deleted if it is odd. get and scan: see history.c. */
static enum status take_numbers(struct event *event, const char *name) {
    struct check_part own = {.kind = strcmp(name, "put") == 0 ? CHECK_PUT : CHECK_GET, .result = CHECK_ANY};
    struct check_part twin = own;
    bool is_put = own.kind == CHECK_PUT;
    bool has_twin = is_put || strcmp(name, "scan") == 0;
    uint32_t number = VALUES_NONE;
    enum status status = take_key(event->reader, event->object, &own.key);
    if (!is_put && strcmp(name, "get") != 0 && strcmp(name, "scan") != 0) {
        status = reader__bad(event->reader, "\"number\" belongs to put, get and scan");
    }
    if (status == STATUS_OK && has_twin) {
        status = take_twin(event, &twin.key);
    }
    if (status == STATUS_OK && (is_put || event->is_end)) {
        status = take_number(event, "number", &number);
    }
    if (is_put) {
        bool is_even = json_integer_value(json_object_get(event->object, "number")) % 2 == 0;
        own.value = number;
        twin.value = is_even ? number : VALUES_NONE;
    } else if (event->is_end) {
        own.result = number;
        twin.result = VALUES_NONE;
        status = status == STATUS_OK && has_twin ? take_number(event, "twin", &twin.result) : status;
    }
    status = status == STATUS_OK ? add_part(event, own) : status;
    return status == STATUS_OK && has_twin ? add_part(event, twin) : status;
}

/* ---- Everything else ----------------------------------------------------------------------------------------------
 */

static enum status take_field(struct event *event, const json_t *object, const char *name, uint32_t *ret_value) {
    const json_t *json = json_object_get(object, name);
    return json == NULL ? reader__bad(event->reader, "without \"%s\"", name)
                        : take_value(event->reader, json, ret_value);
}

/* A result that may be left out. */
static enum status take_result(struct event *event, const json_t *object, uint32_t *ret_value) {
    const json_t *json = event->is_end ? json_object_get(object, "result") : NULL;
    return json == NULL ? STATUS_OK : take_value(event->reader, json, ret_value);
}

static enum status take_cas(struct event *event, const json_t *object, struct check_part *part) {
    const json_t *swapped = json_object_get(object, "swapped");
    enum status status = take_field(event, object, "expected", &part->expected);
    if (status == STATUS_OK) {
        status = take_field(event, object, "value", &part->value);
    }
    if (status == STATUS_OK && event->is_end) {
        if (!json_is_boolean(swapped)) {
            return reader__bad(event->reader, "\"swapped\" is true or false");
        }
        part->result = json_is_true(swapped) ? 1 : 0;
    }
    return status;
}

/* One operation on one key. */
static enum status take_part(struct event *event, const json_t *object) {
    const json_t *op = json_object_get(object, "op");
    const char *name = json_is_string(op) ? json_string_value(op) : "";
    struct check_part part = {.result = CHECK_ANY};
    enum status status = take_key(event->reader, object, &part.key);
    if (status != STATUS_OK) {
        return status;
    }
    if (strcmp(name, "get") == 0) {
        part.kind = CHECK_GET;
        status = event->is_end ? take_field(event, object, "value", &part.result) : STATUS_OK;
    } else if (strcmp(name, "put") == 0) {
        part.kind = CHECK_PUT;
        status = take_field(event, object, "value", &part.value);
    } else if (strcmp(name, "delete") == 0) {
        part.kind = CHECK_PUT;
    } else if (strcmp(name, "cas") == 0) {
        part.kind = CHECK_CAS;
        status = take_cas(event, object, &part);
    } else if (strcmp(name, "append") == 0) {
        const json_t *value = json_object_get(object, "value");
        part.kind = CHECK_APPEND;
        status = json_is_string(value) ? take_value(event->reader, value, &part.value)
                                       : reader__bad(event->reader, "what is appended is a string");
        status = status == STATUS_OK ? take_result(event, object, &part.result) : status;
    } else if (strcmp(name, "add") == 0) {
        const json_t *delta = json_object_get(object, "delta");
        part.kind = CHECK_ADD;
        part.delta = json_integer_value(delta);
        status = json_is_integer(delta) ? take_result(event, object, &part.result)
                                        : reader__bad(event->reader, "\"delta\" is a whole number");
    } else {
        status = reader__bad(event->reader, "no operation is called '%.40s'", name);
    }
    return status == STATUS_OK ? add_part(event, part) : status;
}

/* Several at once, in an array. */
static enum status take_parts(struct event *event) {
    const json_t *list = json_object_get(event->object, "parts");
    if (!json_is_array(list) || json_array_size(list) == 0) {
        return reader__bad(event->reader, "a batch without \"parts\"");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        enum status status = take_part(event, json_array_get(list, i));
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

/* What is asked for, or what came of it, as parts. */
static enum status take_operation(struct event *event, const char *name) {
    if (json_object_get(event->object, "number") != NULL) {
        return take_numbers(event, name);
    }
    return strcmp(name, "batch") == 0 ? take_parts(event) : take_part(event, event->object);
}

/* The same operations on the same keys, whatever came of them. */
static bool is_of(const struct reader *reader, uint32_t number, uint32_t part_count) {
    const struct check_operation *operation = &reader->history->operations[number];
    if (operation->part_count != part_count) {
        return false;
    }
    for (uint32_t i = 0; i < part_count; i++) {
        const struct check_part *begun = &reader->history->parts[operation->part + i];
        const struct check_part *ended = &reader->parts[i];
        if (begun->kind != ended->kind || begun->key != ended->key || begun->value != ended->value ||
            begun->expected != ended->expected || begun->delta != ended->delta) {
            return false;
        }
    }
    return true;
}

static enum status take_end(struct event *event, uint64_t client, uint64_t at, const char *name, const char *what) {
    struct reader *reader = event->reader;
    struct reader_pending pending;
    bool is_ok = strcmp(what, "ok") == 0;
    if (!is_ok && strcmp(what, "fail") != 0 && strcmp(what, "info") != 0) {
        return reader__bad(reader, "an event is invoke, ok, fail or info");
    }
    enum status status = reader__take(reader, client, &pending);
    event->is_end = true;
    if (status == STATUS_OK && is_ok) {
        status = take_operation(event, name);
    }
    if (status == STATUS_OK && is_ok && !is_of(reader, pending.operation, event->part_count)) {
        status = reader__bad(reader, "client %" PRIu64 " ends another operation than it began", client);
    }
    enum check_outcome outcome = is_ok ? CHECK_OK : strcmp(what, "fail") == 0 ? CHECK_FAILED : CHECK_UNKNOWN;
    return status == STATUS_OK ? reader__end(reader, pending.operation, at, outcome, is_ok, event->part_count) : status;
}

static enum status take_event(struct event *event) {
    struct reader *reader = event->reader;
    const json_t *us = json_object_get(event->object, "us");
    const json_t *client = json_object_get(event->object, "client");
    const json_t *op = json_object_get(event->object, "op");
    const json_t *what = json_object_get(event->object, "event");
    if (!json_is_integer(us) || json_integer_value(us) < 0 || !json_is_integer(client) ||
        json_integer_value(client) < 0 || !json_is_string(op) || !json_is_string(what)) {
        return reader__bad(reader, "an event has us, client, op and event");
    }
    uint64_t at = (uint64_t)json_integer_value(us);
    uint64_t client_id = (uint64_t)json_integer_value(client);
    if (at < reader->at) {
        return reader__bad(reader, "the clock goes backwards");
    }
    reader->at = at;
    if (strcmp(json_string_value(what), "invoke") != 0) {
        return take_end(event, client_id, at, json_string_value(op), json_string_value(what));
    }
    enum status status = take_operation(event, json_string_value(op));
    return status == STATUS_OK ? reader__begin(reader, client_id, at, 0, event->part_count) : status;
}

enum status reader__json_line(struct reader *reader, struct slice line) {
    json_error_t problem;
    json_t *object = json_loadb((const char *)line.data, line.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
    if (object == NULL) {
        return reader__bad(reader, "%s", problem.text);
    }
    struct event event = {.reader = reader, .object = object};
    enum status status = json_is_object(object) ? take_event(&event) : reader__bad(reader, "a line is one object");
    json_decref(object);
    return status;
}
