/*
 * holdfast-dump: what is in one file of a store, or whether all of it is sound, for people and programs. Between its
 * parts.
 *
 * Output is a sequence of objects; as text a line "name: value" for each member, as JSON one object a line.
 */
#ifndef HOLDFAST_STORAGE_TOOLS_DUMP_H
#define HOLDFAST_STORAGE_TOOLS_DUMP_H

#include "node/env/env.h"

#include <jansson.h>
#include <stdio.h>

enum dump_exit { DUMP_OK = 0, DUMP_DAMAGED = 1, DUMP_USAGE = 2 };

struct dump {
    struct env *env;
    const char *path;
    bool json;
    bool keys;   /* entries, files or records, too */
    bool verify; /* all that can be checked */
};

/* Each: STATUS_OK, or why it can't be read or isn't sound (err says it). */
MUST_USE enum status dump_change(const struct dump *dump, struct error *err);
MUST_USE enum status dump_sst(const struct dump *dump, struct error *err);
MUST_USE enum status dump_manifest(const struct dump *dump, struct error *err);
MUST_USE enum status dump_value(const struct dump *dump, struct error *err);
MUST_USE enum status dump_verify(const struct dump *dump, struct error *err); /* path: a directory */
MUST_USE enum status dump_wal(const struct dump *dump, struct error *err);

/* Prints the object and takes it. Short objects go on one line as text, too. */
void dump_put(const struct dump *dump, json_t *object, bool short_form);
/* Bytes as text: what isn't printable, and '\', as \xNN. */
json_t *dump_bytes(struct slice bytes);
/* Bytes as hexadecimal digits. */
json_t *dump_hex(struct slice bytes);
/* Reads len bytes at offset, all of them. */
MUST_USE enum status dump_read(struct env_file *file, void *data, size_t len, uint64_t offset, struct error *err);

static inline json_t *dump_number(uint64_t number) {
    /* jansson's integers are signed; what doesn't fit is text. */
    char text[24];
    if (number <= (uint64_t)INT64_MAX) {
        return json_integer((json_int_t)number);
    }
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    return json_string(text);
}

#endif
