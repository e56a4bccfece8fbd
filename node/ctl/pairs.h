/*
 * Keys and values as JSON lines: the form of import and export.
 *
 * Written in one canonical form, so that equal states give equal bytes:
 *   {"key":"...","value":"..."}\n          no blanks, key first
 *   a key or value that isn't valid UTF-8 is named key_b64 or value_b64 and written as base64 (RFC 4648, with padding);
 *   in strings \" \\ \b \f \n \r \t are escaped so, all other bytes below 0x20 as \u00xx with small hex digits, and
 * nothing else. Read: any JSON object on one line with exactly one of key and key_b64, and one of value and value_b64.
 */
#ifndef HOLDFAST_CTL_PAIRS_H
#define HOLDFAST_CTL_PAIRS_H

#include "node/base/buf.h"
#include "node/base/status.h"

#include <jansson.h>

/* Shortest forms only, no surrogates, at most U+10FFFF. */
bool text_is_utf8(struct slice bytes);

/* `"name":"text"`, or `"name_b64":"base64"`; no comma, no braces. */
MUST_USE enum status pair_append_field(struct buf *out, const char *name, struct slice bytes);
/* A JSON string with its quotes; bytes must be valid UTF-8. */
MUST_USE enum status pair_append_string(struct buf *out, struct slice text);
/* One whole line. */
MUST_USE enum status pair_append_line(struct buf *out, struct slice key, struct slice value);
/* For people: printable text as it is, backslash, control bytes and what isn't UTF-8 as \xnn. */
MUST_USE enum status pair_append_visible(struct buf *out, struct slice bytes);

MUST_USE enum status base64_append(struct buf *out, struct slice bytes);
/* STATUS_INVALID: not base64 with padding. */
MUST_USE enum status base64_decode(struct buf *out, struct slice text);

/* One parsed line; key and value are borrowed from it until pair_release. */
struct pair {
    struct slice key;
    struct slice value;
    json_t *object;
    struct buf decoded_key;
    struct buf decoded_value;
};

void pair_init(struct pair *pair, struct alloc *alloc);
/* STATUS_INVALID or STATUS_TOO_LARGE: err says what is wrong with the line. Releases what the pair held. */
MUST_USE enum status pair_parse(struct pair *pair, struct slice line, struct error *err);
void pair_release(struct pair *pair);

#endif
