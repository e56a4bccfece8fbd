/* The log of one register, and the map of strings. Their formats are in reader.h. */
#include "tests/chaos/check/reader_internal.h"

#include <inttypes.h>

/* ---- Words ------------------------------------------------------------------------------------------------------- */

static struct slice skip(struct slice text, size_t len) { return slice_of(text.data + len, text.len - len); }

static bool is_word(struct slice text, const char *word) { return slice_equal(text, slice_of_string(word)); }

/* Takes what stands in front of the next `end`, which goes, too; all that is left if there is none. */
static struct slice take_until(struct slice *text, char end) {
    size_t len = 0;
    while (len < text->len && text->data[len] != (uint8_t)end) {
        len++;
    }
    struct slice taken = slice_of(text->data, len);
    *text = skip(*text, len < text->len ? len + 1 : len);
    return taken;
}

static bool parse_client(struct slice text, uint64_t *ret) {
    uint64_t number = 0;
    if (text.len == 0 || text.len > 18) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        number = number * 10 + (text.data[i] - (uint64_t)'0');
    }
    *ret = number;
    return true;
}

/* ---- The log of one register ------------------------------------------------------------------------------------- */

static enum status register_value(struct reader *reader, struct slice text, uint32_t *ret_value) {
    uint64_t number;
    if (is_word(text, "nil")) {
        *ret_value = VALUES_NONE;
        return STATUS_OK;
    }
    if (!parse_client(text, &number)) {
        return reader__bad(reader, "'%.*s' is neither a number nor nil", (int)(text.len < 40 ? text.len : 40),
                           (const char *)text.data);
    }
    return reader__value(reader, text, ret_value);
}

/* What is asked for, or what came of it: a read's value, a write's, a compare-and-set's two. */
static enum status register_part(struct reader *reader, enum check_kind kind, struct slice text, bool is_end) {
    struct check_part *part = &reader->parts[0];
    *part = (struct check_part){.kind = kind, .result = CHECK_ANY};
    enum status status = reader__key(reader, slice_of_string("register"), &part->key);
    if (status != STATUS_OK) {
        return status;
    }
    if (kind == CHECK_GET) {
        return is_end ? register_value(reader, text, &part->result) : STATUS_OK;
    }
    if (kind == CHECK_PUT) {
        return register_value(reader, text, &part->value);
    }
    if (text.len < 2 || text.data[0] != '[' || text.data[text.len - 1] != ']') {
        return reader__bad(reader, "a compare-and-set without [OLD NEW]");
    }
    struct slice pair = slice_of(text.data + 1, text.len - 2);
    part->result = is_end ? 1 : CHECK_ANY;
    status = register_value(reader, take_until(&pair, ' '), &part->expected);
    return status == STATUS_OK ? register_value(reader, pair, &part->value) : status;
}

enum status reader__log_line(struct reader *reader, struct slice line) {
    struct slice dash = slice_of_string(" - ");
    uint64_t client;
    while (line.len > 0 && !slice_starts_with(line, dash)) {
        line = skip(line, 1);
    }
    line = skip(line, line.len < dash.len ? line.len : dash.len);
    struct slice process = take_until(&line, '\t');
    struct slice type = take_until(&line, '\t');
    struct slice name = take_until(&line, '\t');
    bool is_known = is_word(name, ":read") || is_word(name, ":write") || is_word(name, ":cas");
    enum check_kind kind = is_word(name, ":read") ? CHECK_GET : is_word(name, ":write") ? CHECK_PUT : CHECK_CAS;
    if (!parse_client(process, &client) || !is_known) {
        return reader__bad(reader, "no event of a register");
    }
    if (is_word(type, ":invoke")) {
        enum status status = register_part(reader, kind, line, false);
        return status == STATUS_OK ? reader__begin(reader, client, reader->line, (uint32_t)kind, 1) : status;
    }
    struct reader_pending pending;
    bool is_ok = is_word(type, ":ok");
    if (!is_ok && !is_word(type, ":fail") && !is_word(type, ":info")) {
        return reader__bad(reader, "an event is :invoke, :ok, :fail or :info");
    }
    enum status status = reader__take(reader, client, &pending);
    if (status == STATUS_OK && pending.shape != (uint32_t)kind) {
        status = reader__bad(reader, "client %" PRIu64 " ends another operation than it began", client);
    }
    if (status == STATUS_OK && is_ok) {
        status = register_part(reader, kind, line, true);
    }
    enum check_outcome outcome = is_ok ? CHECK_OK : is_word(type, ":fail") ? CHECK_FAILED : CHECK_UNKNOWN;
    return status == STATUS_OK ? reader__end(reader, pending.operation, reader->line, outcome, is_ok, 1) : status;
}

/* ---- The map of strings ------------------------------------------------------------------------------------------ */

enum field { FIELD_PROCESS, FIELD_TYPE, FIELD_F, FIELD_KEY, FIELD_VALUE, FIELD_COUNT };

static const char *const field_names[FIELD_COUNT] = {":process", ":type", ":f", ":key", ":value"};

/* Takes a quoted string, whose escapes it undoes in place; or a word. False: neither is there. */
static bool take_token(struct slice *text, struct slice *ret, bool *ret_quoted) {
    size_t at = 0;
    *ret_quoted = text->len > 0 && text->data[0] == '"';
    if (!*ret_quoted) {
        while (at < text->len && strchr(" ,}", text->data[at]) == NULL) {
            at++;
        }
        *ret = slice_of(text->data, at);
        *text = skip(*text, at);
        return at > 0;
    }
    uint8_t *out = (uint8_t *)(uintptr_t)text->data; /* the line is the reader's own */
    size_t len = 0;
    for (at = 1; at < text->len && text->data[at] != '"'; at++) {
        uint8_t byte = text->data[at];
        if (byte == '\\') {
            if (++at == text->len) {
                return false;
            }
            byte = text->data[at] == 'n' ? '\n' : text->data[at] == 't' ? '\t' : text->data[at];
        }
        out[len++] = byte;
    }
    if (at == text->len) {
        return false;
    }
    *ret = slice_of(out, len);
    *text = skip(*text, at + 1);
    return true;
}

static void skip_between(struct slice *text) {
    while (text->len > 0 && (text->data[0] == ' ' || text->data[0] == ',')) {
        *text = skip(*text, 1);
    }
}

/* All fields of the line, each once; text without a quote where `quoted` is false. */
static bool take_fields(struct slice text, struct slice *fields, bool *quoted) {
    bool is_there[FIELD_COUNT] = {false};
    text = skip(text, 1); /* "{" */
    for (int count = 0; count < FIELD_COUNT; count++) {
        struct slice name;
        bool name_quoted;
        int field = 0;
        skip_between(&text);
        if (!take_token(&text, &name, &name_quoted) || name_quoted) {
            return false;
        }
        while (field < FIELD_COUNT && !is_word(name, field_names[field])) {
            field++;
        }
        skip_between(&text);
        if (field == FIELD_COUNT || is_there[field] || !take_token(&text, &fields[field], &quoted[field])) {
            return false;
        }
        is_there[field] = true;
    }
    return is_word(text, "}");
}

static enum status map_value(struct reader *reader, struct slice text, uint32_t *ret_value) {
    *ret_value = VALUES_NONE;
    return text.len == 0 ? STATUS_OK : reader__value(reader, text, ret_value);
}

enum status reader__map_line(struct reader *reader, struct slice line) {
    struct slice fields[FIELD_COUNT];
    bool quoted[FIELD_COUNT];
    uint64_t client;
    struct check_part *part = &reader->parts[0];
    if (!take_fields(line, fields, quoted) || !parse_client(fields[FIELD_PROCESS], &client) || !quoted[FIELD_KEY]) {
        return reader__bad(reader, "no event of a map");
    }
    struct slice name = fields[FIELD_F];
    bool is_get = is_word(name, ":get");
    bool is_ok = is_word(fields[FIELD_TYPE], ":ok");
    bool has_value = quoted[FIELD_VALUE];
    if ((!is_get && !is_word(name, ":put") && !is_word(name, ":append")) ||
        (!is_ok && !is_word(fields[FIELD_TYPE], ":invoke")) || (!has_value && (!is_get || is_ok))) {
        return reader__bad(reader, "no event of a map");
    }
    *part = (struct check_part){.kind = is_get                  ? CHECK_GET
                                        : is_word(name, ":put") ? CHECK_PUT
                                                                : CHECK_APPEND,
                                .result = CHECK_ANY};
    enum status status = reader__key(reader, fields[FIELD_KEY], &part->key);
    if (status == STATUS_OK && has_value) {
        status = map_value(reader, fields[FIELD_VALUE], is_get ? &part->result : &part->value);
    }
    if (status == STATUS_OK && part->kind == CHECK_APPEND && part->value == VALUES_NONE) {
        part->kind = CHECK_GET; /* behind whatever is there, nothing: as if it were a get without a result */
    }
    uint32_t shape = (uint32_t)part->kind << 28 | part->key;
    if (status == STATUS_OK && !is_ok) {
        return reader__begin(reader, client, reader->line, shape, 1);
    }
    struct reader_pending pending;
    status = status == STATUS_OK ? reader__take(reader, client, &pending) : status;
    if (status == STATUS_OK && pending.shape != shape) {
        status = reader__bad(reader, "client %" PRIu64 " ends another operation than it began", client);
    }
    return status == STATUS_OK ? reader__end(reader, pending.operation, reader->line, CHECK_OK, true, 1) : status;
}
