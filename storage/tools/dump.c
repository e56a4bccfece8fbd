/* holdfast-dump change|sst|manifest|value|wal FILE, verify DIR: arguments, output, exit codes (0 sound, 1 damaged, 2
 * usage or unreadable). */
#include "storage/tools/dump.h"

#include "node/env/os/env_os.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Output ------------------------------------------------------------------------------------------------------ */

static void put_text(const char *name, const json_t *value, const char *between, const char *end) {
    if (json_is_string(value)) {
        (void)printf("%s%s%s%s", name, between, json_string_value(value), end);
    } else {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        (void)printf("%s%s%s%s", name, between, text != NULL ? text : "?", end);
        free(text);
    }
}

void dump_put(const struct dump *dump, json_t *object, bool short_form) {
    const char *name;
    json_t *value;
    if (dump->json) {
        (void)json_dumpf(object, stdout, JSON_COMPACT);
        (void)putchar('\n');
    } else {
        json_object_foreach(object, name, value) {
            put_text(name, value, short_form ? "=" : ": ", short_form ? " " : "\n");
        }
        if (short_form) {
            (void)putchar('\n');
        }
    }
    json_decref(object);
}

json_t *dump_bytes(struct slice bytes) {
    char *text = malloc(bytes.len * 4 + 1);
    size_t len = 0;
    if (text == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < bytes.len; i++) {
        uint8_t byte = bytes.data[i];
        if (byte >= 0x20 && byte < 0x7f && byte != '\\') {
            text[len++] = (char)byte;
        } else {
            len += (size_t)snprintf(text + len, 5, "\\x%02x", byte);
        }
    }
    json_t *string = json_stringn(text, len);
    free(text);
    return string;
}

json_t *dump_hex(struct slice bytes) {
    char text[2 * 64 + 1] = "";
    for (size_t i = 0; i < bytes.len && i < 64; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", bytes.data[i]);
    }
    return json_string(text);
}

enum status dump_read(struct env_file *file, void *data, size_t len, uint64_t offset, struct error *err) {
    size_t got = 0;
    enum status status = env_pread(file, data, len, offset, &got, err);
    if (status == STATUS_OK && got != len) {
        return error_set(err, STATUS_CORRUPT, "%s: ends at offset %llu, inside what starts at %llu",
                         env_file_path(file), (unsigned long long)offset + got, (unsigned long long)offset);
    }
    return status;
}

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

struct kind {
    const char *name;
    enum status (*run)(const struct dump *dump, struct error *err);
};

static const struct kind kinds[] = {{"change", dump_change}, {"manifest", dump_manifest}, {"sst", dump_sst},
                                    {"value", dump_value},   {"verify", dump_verify},     {"wal", dump_wal}};

struct arguments {
    struct dump dump;
    const struct kind *kind;
};

static const struct argp_option options[] = {{"output", 'o', "text|json", 0,
                                              "How to print: text (default), or one JSON object a line", 0},
                                             {"keys", 'k', NULL, 0, "Print every entry, file or record, too", 0},
                                             {"verify", 'v', NULL, 0,
                                              "Check all that can be checked: every checksum, order and count", 0},
                                             {0}};

static error_t parse(int key, char *argument, struct argp_state *state) {
    struct arguments *arguments = state->input;
    switch (key) {
    case 'o':
        arguments->dump.json = strcmp(argument, "json") == 0;
        if (!arguments->dump.json && strcmp(argument, "text") != 0) {
            argp_error(state, "--output is text or json, not '%s'", argument);
        }
        return 0;
    case 'k': arguments->dump.keys = true; return 0;
    case 'v': arguments->dump.verify = true; return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0) {
            for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
                arguments->kind = strcmp(argument, kinds[i].name) == 0 ? &kinds[i] : arguments->kind;
            }
            if (arguments->kind == NULL) {
                argp_error(state, "there is no kind of file '%s': change, sst, manifest, value or wal, or verify",
                           argument);
            }
        } else if (state->arg_num == 1) {
            arguments->dump.path = argument;
        } else {
            argp_error(state, "one file at a time");
        }
        return 0;
    case ARGP_KEY_END:
        if (arguments->dump.path == NULL) {
            argp_error(state, "which kind of file, and which file?");
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "change|sst|manifest|value|wal FILE\nverify DIR",
    .doc = "Prints what is in a file of a Holdfast store; it changes nothing, and may run beside a node. Or verifies a "
           "whole store that nobody has open: every checksum, and what must hold between its files."
           "\vExit status: 0 if the file or store is sound, 1 if it is damaged, 2 for wrong usage or if it can't be "
           "read."};

int main(int argc, char **argv) {
    struct arguments arguments = {.kind = NULL};
    struct error err;
    const struct env_os_options env_options = {.workers_short = 1, .workers_long = 1};
    argp_err_exit_status = DUMP_USAGE;
    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments) != 0) {
        return DUMP_USAGE;
    }
    enum status status = env_os_new(&env_options, &arguments.dump.env, &err);
    if (status == STATUS_OK) {
        status = arguments.kind->run(&arguments.dump, &err);
        env_os_free(arguments.dump.env);
    }
    if (status != STATUS_OK) {
        (void)fprintf(stderr, "holdfast-dump: %s\n", err.message);
    }
    if (fflush(stdout) != 0) {
        (void)fprintf(stderr, "holdfast-dump: can't write the output\n");
        return DUMP_USAGE;
    }
    if (status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED) {
        return DUMP_DAMAGED;
    }
    return status == STATUS_OK ? DUMP_OK : DUMP_USAGE;
}
