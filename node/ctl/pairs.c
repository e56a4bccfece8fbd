/* JSON lines, written by hand in the canonical form and read with jansson. The form is in pairs.h. */
#include "node/ctl/pairs.h"

#include "node/base/limits.h"

#include <stdio.h>

/* ---- Writing -------------------------------------------------------------------------------------------------- */

/* The letter behind the backslash; 'u': \u00xx; 0: as it is. */
static char escape_of(uint8_t byte) {
    switch (byte) {
    case '"': return '"';
    case '\\': return '\\';
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return byte < 0x20 ? 'u' : '\0';
    }
}

enum status pair_append_string(struct buf *out, struct slice text) {
    static const char HEX[] = "0123456789abcdef";
    enum status status = buf_append(out, "\"", 1);
    size_t plain = 0; /* bytes at the front that need no escape */
    while (status == STATUS_OK && text.len > 0) {
        char escape = '\0';
        while (plain < text.len && (escape = escape_of(text.data[plain])) == '\0') {
            plain++;
        }
        status = buf_append(out, text.data, plain);
        if (status == STATUS_OK && plain < text.len) {
            uint8_t byte = text.data[plain++];
            const char escaped[6] = {'\\', escape, '0', '0', HEX[byte >> 4], HEX[byte & 15]};
            status = buf_append(out, escaped, escape == 'u' ? 6 : 2);
        }
        text.data += plain;
        text.len -= plain;
        plain = 0;
    }
    return status == STATUS_OK ? buf_append(out, "\"", 1) : status;
}

enum status pair_append_field(struct buf *out, const char *name, struct slice bytes) {
    bool is_text = text_is_utf8(bytes);
    enum status status = buf_append_format(out, "\"%s%s\":", name, is_text ? "" : "_b64");
    if (status != STATUS_OK) {
        return status;
    }
    if (is_text) {
        return pair_append_string(out, bytes);
    }
    status = buf_append(out, "\"", 1);
    if (status == STATUS_OK) {
        status = base64_append(out, bytes);
    }
    return status == STATUS_OK ? buf_append(out, "\"", 1) : status;
}

enum status pair_append_line(struct buf *out, struct slice key, struct slice value) {
    enum status status = buf_append(out, "{", 1);
    if (status == STATUS_OK) {
        status = pair_append_field(out, "key", key);
    }
    if (status == STATUS_OK) {
        status = buf_append(out, ",", 1);
    }
    if (status == STATUS_OK) {
        status = pair_append_field(out, "value", value);
    }
    return status == STATUS_OK ? buf_append(out, "}\n", 2) : status;
}

/* ---- Reading -------------------------------------------------------------------------------------------------- */

void pair_init(struct pair *pair, struct alloc *alloc) {
    *pair = (struct pair){0};
    buf_init(&pair->decoded_key, alloc, 0);
    buf_init(&pair->decoded_value, alloc, 0);
}

void pair_release(struct pair *pair) {
    json_decref(pair->object);
    pair->object = NULL;
    buf_deinit(&pair->decoded_key);
    buf_deinit(&pair->decoded_value);
    pair->key = SLICE_EMPTY;
    pair->value = SLICE_EMPTY;
}

static enum status take_field(const json_t *object, const char *name, const char *name_base64, struct buf *decoded,
                              struct slice *ret_bytes, struct error *err) {
    const json_t *text = json_object_get(object, name);
    const json_t *base64 = json_object_get(object, name_base64);
    if ((text == NULL) == (base64 == NULL)) {
        return error_set(err, STATUS_INVALID, "exactly one of \"%s\" and \"%s\" must be there", name, name_base64);
    }
    const json_t *field = text != NULL ? text : base64;
    if (!json_is_string(field)) {
        return error_set(err, STATUS_INVALID, "\"%s\" is not a string", text != NULL ? name : name_base64);
    }
    struct slice bytes = slice_of(json_string_value(field), json_string_length(field));
    if (text == NULL) {
        enum status status = base64_decode(decoded, bytes);
        if (status != STATUS_OK) {
            return error_set(err, status, status == STATUS_INVALID ? "\"%s\" is not base64" : "\"%s\": out of memory",
                             name_base64);
        }
        bytes = buf_slice(decoded);
    }
    *ret_bytes = bytes;
    return STATUS_OK;
}

static enum status check_limits(const struct pair *pair, struct error *err) {
    if (pair->key.len == 0) {
        return error_set(err, STATUS_INVALID, "the key is empty");
    }
    if (pair->key.len > LIMIT_KEY_BYTES) {
        return error_set(err, STATUS_TOO_LARGE, "the key has %zu bytes; at most %u are allowed", pair->key.len,
                         (unsigned)LIMIT_KEY_BYTES);
    }
    if (pair->value.len > LIMIT_VALUE_BYTES) {
        return error_set(err, STATUS_TOO_LARGE, "the value has %zu bytes; at most %u are allowed", pair->value.len,
                         (unsigned)LIMIT_VALUE_BYTES);
    }
    return STATUS_OK;
}

enum status pair_parse(struct pair *pair, struct slice line, struct error *err) {
    pair_release(pair);
    json_error_t reason;
    pair->object = json_loadb((const char *)line.data, line.len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &reason);
    if (pair->object == NULL) {
        return error_set(err, STATUS_INVALID, "not JSON: %.120s (column %d)", reason.text, reason.column);
    }
    if (!json_is_object(pair->object)) {
        return error_set(err, STATUS_INVALID, "not an object like {\"key\":\"...\",\"value\":\"...\"}");
    }
    struct slice key = SLICE_EMPTY;
    struct slice value = SLICE_EMPTY;
    enum status status = take_field(pair->object, "key", "key_b64", &pair->decoded_key, &key, err);
    if (status == STATUS_OK) {
        status = take_field(pair->object, "value", "value_b64", &pair->decoded_value, &value, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (json_object_size(pair->object) != 2) {
        return error_set(err, STATUS_INVALID, "fields besides key and value");
    }
    pair->key = key;
    pair->value = value;
    return check_limits(pair, err);
}
