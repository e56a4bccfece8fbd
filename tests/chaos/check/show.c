/* What remains of a violation, for people and for programs. The contract is in witness.h. */
#include "tests/chaos/check/witness.h"

#include "node/base/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { PARTS_SHOWN_MAX = 8, VALUE_ENDS_BYTES = 20 };

static const char *const kind_names[CHECK_KIND_COUNT] = {
    [CHECK_GET] = "get", [CHECK_PUT] = "put", [CHECK_CAS] = "cas", [CHECK_APPEND] = "append", [CHECK_ADD] = "add"};

/* ---- Text -------------------------------------------------------------------------------------------------------- */

static enum status put_bytes(struct buf *out, const uint8_t *bytes, size_t len) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < len && status == STATUS_OK; i++) {
        bool is_plain = bytes[i] >= 0x20 && bytes[i] < 0x7f && bytes[i] != '"' && bytes[i] != '\\';
        status = buf_append_format(out, is_plain ? "%c" : "\\x%02x", bytes[i]);
    }
    return status;
}

/* In quotes; of a long one both ends. */
static enum status put_value(const struct values *values, uint32_t value, struct buf *out) {
    uint8_t bytes[VALUES_SHOWN_BYTES_MAX];
    if (value == VALUES_NONE) {
        return buf_append_format(out, "nothing");
    }
    if (value == CHECK_ANY) {
        return buf_append_format(out, "?");
    }
    bool is_long = values_len(values, value) > sizeof bytes;
    size_t len = values_copy(values, value, bytes, is_long ? VALUE_ENDS_BYTES : sizeof bytes);
    enum status status = buf_append_format(out, "\"");
    if (status == STATUS_OK) {
        status = put_bytes(out, bytes, len);
    }
    if (status == STATUS_OK && is_long) {
        len = values_copy_end(values, value, bytes, VALUE_ENDS_BYTES);
        status = buf_append_format(out, "\"...\"");
        status = status == STATUS_OK ? put_bytes(out, bytes, len) : status;
    }
    return status == STATUS_OK ? buf_append_format(out, "\"") : status;
}

static enum status put_named(const struct values *values, const char *text, uint32_t value, struct buf *out) {
    enum status status = buf_append_format(out, "%s", text);
    return status == STATUS_OK ? put_value(values, value, out) : status;
}

static enum status put_part(const struct check_history *history, const struct check_part *part, struct buf *out) {
    const struct values *values = &history->values;
    bool is_delete = part->kind == CHECK_PUT && part->value == VALUES_NONE;
    enum status status = buf_append_format(out, "%s ", is_delete ? "delete" : kind_names[part->kind]);
    if (status == STATUS_OK) {
        status = put_value(values, history->key_names[part->key], out);
    }
    if (status == STATUS_OK && part->kind == CHECK_CAS) {
        status = put_named(values, " from ", part->expected, out);
    }
    if (status == STATUS_OK &&
        (part->kind == CHECK_CAS || part->kind == CHECK_APPEND || (part->kind == CHECK_PUT && !is_delete))) {
        status = put_named(values, part->kind == CHECK_CAS ? " to " : " ", part->value, out);
    }
    if (status == STATUS_OK && part->kind == CHECK_ADD) {
        status = buf_append_format(out, " %" PRId64, part->delta);
    }
    if (status != STATUS_OK || part->kind == CHECK_PUT) {
        return status;
    }
    if (part->kind == CHECK_CAS && part->result != CHECK_ANY) {
        return buf_append_format(out, part->result == 1 ? ": done" : ": another value was there");
    }
    return put_named(values, " -> ", part->result, out);
}

/* client 3: put "k" "1", delete "k~" */
static enum status put_operation(const struct check_history *history, uint32_t number, struct buf *out) {
    const struct check_operation *operation = &history->operations[number];
    enum status status = buf_append_format(out, "client %" PRIu64 ":", operation->client);
    for (uint32_t i = 0; i < operation->part_count && status == STATUS_OK; i++) {
        if (i == PARTS_SHOWN_MAX) {
            return buf_append_format(out, ", and %" PRIu32 " more", operation->part_count - i);
        }
        status = buf_append_format(out, "%s ", i > 0 ? "," : "");
        if (status == STATUS_OK) {
            status = put_part(history, &history->parts[operation->part + i], out);
        }
    }
    return status;
}

static enum status put_item(const struct check_history *history, const struct search_item *item, struct buf *out) {
    const struct check_operation *operation = &history->operations[item->operation];
    enum status status = buf_append_format(out, "    ");
    if (status == STATUS_OK) {
        status = put_operation(history, item->operation, out);
    }
    if (status == STATUS_OK && operation->outcome != CHECK_OK) {
        return buf_append_format(out, " (%s %" PRIu64 " on, outcome unknown)\n", history->unit, operation->begin_at);
    }
    if (status == STATUS_OK) {
        status = buf_append_format(out, " (%s %" PRIu64 " to %" PRIu64 "%s)\n", history->unit, operation->begin_at,
                                   operation->end_at, item->end == CHECK_NEVER ? ", or later" : "");
    }
    return status;
}

static enum status put_list(const struct check_history *history, const char *title, const uint32_t *operations,
                            uint32_t count, struct buf *out) {
    enum status status = buf_append_format(out, "  %s\n", title);
    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        status = buf_append_format(out, "    ");
        if (status == STATUS_OK) {
            status = put_operation(history, operations[i], out);
        }
        if (status == STATUS_OK) {
            status = buf_append_format(out, "\n");
        }
    }
    return status;
}

/* True if some item, up to the one given, is the first to touch the key with its part. */
static bool is_first_of_key(const struct check_history *history, const struct check_result *result, uint32_t at,
                            uint32_t part) {
    uint32_t key = history->parts[history->operations[result->items[at].operation].part + part].key;
    for (uint32_t i = 0; i <= at; i++) {
        const struct check_operation *operation = &history->operations[result->items[i].operation];
        uint32_t end = i == at ? part : operation->part_count;
        for (uint32_t j = 0; j < end; j++) {
            if (history->parts[operation->part + j].key == key) {
                return false;
            }
        }
    }
    return true;
}

/* Calls `each` for every key that the items touch, in that order. */
static enum status for_keys(const struct check_history *history, const struct check_result *result,
                            enum status (*each)(const struct check_history *history, const struct check_result *result,
                                                uint32_t key, void *context),
                            void *context) {
    enum status status = STATUS_OK;
    uint32_t shown = 0;
    for (uint32_t i = 0; i < result->item_count && status == STATUS_OK; i++) {
        const struct check_operation *operation = &history->operations[result->items[i].operation];
        for (uint32_t j = 0; j < operation->part_count && shown < SEARCH_SHOWN_MAX && status == STATUS_OK; j++) {
            if (is_first_of_key(history, result, i, j)) {
                shown++;
                status = each(history, result, history->parts[operation->part + j].key, context);
            }
        }
    }
    return status;
}

static enum status put_key_state(const struct check_history *history, const struct check_result *result, uint32_t key,
                                 void *context) {
    struct buf *out = context;
    enum status status = put_named(&history->values, "    ", history->key_names[key], out);
    if (status == STATUS_OK) {
        status = put_named(&history->values, ": ", result->search.state[result->slots[key]], out);
    }
    return status == STATUS_OK ? buf_append_format(out, "\n") : status;
}

enum status check_witness_print(const struct check_history *history, const struct check_result *result,
                                struct buf *out) {
    const struct search_result *search = &result->search;
    CHECK(result->verdict == CHECK_VIOLATION);
    enum status status =
        buf_append_format(out, "  no order explains these%s:\n",
                          result->is_small ? "" : " (fewer may do; the steps to find out were used up)");
    for (uint32_t i = 0; i < result->item_count && status == STATUS_OK; i++) {
        status = put_item(history, &result->items[i], out);
    }
    if (status == STATUS_OK) {
        status = put_list(history, "the order that goes furthest:", search->placed, search->placed_shown, out);
    }
    if (status == STATUS_OK) {
        status = buf_append_format(out, "  then there is\n");
    }
    if (status == STATUS_OK) {
        status = for_keys(history, result, put_key_state, out);
    }
    if (status == STATUS_OK) {
        status = put_list(history, "and none of these can be next:", search->stuck, search->stuck_shown, out);
    }
    return status;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

/* Bytes that aren't text come as \xNN. */
static json_t *json_value(const struct values *values, uint32_t value) {
    if (value == VALUES_NONE || value == CHECK_ANY) {
        return json_null();
    }
    size_t len = (size_t)values_len(values, value);
    uint8_t *bytes = malloc(len + 1);
    json_t *json = NULL;
    if (bytes == NULL) {
        return NULL;
    }
    (void)values_copy(values, value, bytes, len);
    json = json_stringn((const char *)bytes, len);
    if (json == NULL) {
        struct buf text;
        buf_init(&text, alloc_system(), 0);
        if (put_bytes(&text, bytes, len) == STATUS_OK) {
            json = json_stringn((const char *)text.data, text.len);
        }
        buf_deinit(&text);
    }
    free(bytes);
    return json;
}

static json_t *json_part(const struct check_history *history, const struct check_part *part) {
    const struct values *values = &history->values;
    json_t *object = json_object();
    int failed = json_object_set_new(object, "op", json_string(kind_names[part->kind]));
    failed |= json_object_set_new(object, "key", json_value(values, history->key_names[part->key]));
    if (part->kind == CHECK_PUT || part->kind == CHECK_CAS || part->kind == CHECK_APPEND) {
        failed |= json_object_set_new(object, "value", json_value(values, part->value));
    }
    if (part->kind == CHECK_CAS) {
        failed |= json_object_set_new(object, "expected", json_value(values, part->expected));
    }
    if (part->kind == CHECK_ADD) {
        failed |= json_object_set_new(object, "delta", json_integer(part->delta));
    }
    if (part->kind == CHECK_CAS && part->result != CHECK_ANY) {
        failed |= json_object_set_new(object, "swapped", json_boolean(part->result == 1));
    } else if (part->kind != CHECK_PUT && part->result != CHECK_ANY) {
        failed |= json_object_set_new(object, "result", json_value(values, part->result));
    }
    if (failed != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *json_operation(const struct check_history *history, uint32_t number) {
    const struct check_operation *operation = &history->operations[number];
    json_t *object = json_object();
    json_t *parts = json_array();
    int failed = 0;
    for (uint32_t i = 0; i < operation->part_count; i++) {
        failed |= json_array_append_new(parts, json_part(history, &history->parts[operation->part + i]));
    }
    failed |= json_object_set_new(object, "client", json_integer((json_int_t)operation->client));
    failed |= json_object_set_new(object, "begin", json_integer((json_int_t)operation->begin_at));
    failed |=
        json_object_set_new(object, "end",
                            operation->outcome == CHECK_OK ? json_integer((json_int_t)operation->end_at) : json_null());
    failed |= json_object_set_new(object, "parts", parts);
    if (failed != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *json_list(const struct check_history *history, const uint32_t *operations, uint32_t count) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < count; i++) {
        if (json_array_append_new(list, json_operation(history, operations[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static enum status add_key_state(const struct check_history *history, const struct check_result *result, uint32_t key,
                                 void *context) {
    json_t *object = json_object();
    int failed = json_object_set_new(object, "key", json_value(&history->values, history->key_names[key]));
    failed |=
        json_object_set_new(object, "value", json_value(&history->values, result->search.state[result->slots[key]]));
    failed |= json_array_append_new(context, object);
    return failed == 0 ? STATUS_OK : STATUS_NO_MEMORY;
}

json_t *check_witness_json(const struct check_history *history, const struct check_result *result) {
    const struct search_result *search = &result->search;
    json_t *object = json_object();
    json_t *items = json_array();
    json_t *state = json_array();
    int failed = 0;
    CHECK(result->verdict == CHECK_VIOLATION);
    for (uint32_t i = 0; i < result->item_count; i++) {
        json_t *operation = json_operation(history, result->items[i].operation);
        failed |= json_object_set_new(operation, "end_counts", json_boolean(result->items[i].end != CHECK_NEVER));
        failed |= json_array_append_new(items, operation);
    }
    failed |= for_keys(history, result, add_key_state, state) != STATUS_OK;
    failed |= json_object_set_new(object, "unit", json_string(history->unit));
    failed |= json_object_set_new(object, "minimal", json_boolean(result->is_small));
    failed |= json_object_set_new(object, "operations", items);
    failed |= json_object_set_new(object, "placed", json_list(history, search->placed, search->placed_shown));
    failed |= json_object_set_new(object, "state", state);
    failed |= json_object_set_new(object, "stuck", json_list(history, search->stuck, search->stuck_shown));
    if (failed != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}
