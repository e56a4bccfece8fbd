/*
 * The client's profile, an INI file. inih splits the lines; this file decides what may stand in them, and refuses what
 * inih would take wrongly: overlong lines (it would split them), duplicate and unknown keys, continuation lines.
 *
 * Read before a handle exists, so with an env of its own. Blocks.
 */
#include "proto/client/client_internal.h"

#include "node/base/buf.h"
#include "node/base/check.h"
#include "node/env/os/env_os.h"

#include <ini.h>
#include <stdio.h>
#include <stdlib.h>

enum { PROFILE_BYTES_MAX = 64 * 1024, LINE_BYTES_MAX = 198, LIST_BYTES_MAX = 16 * 1024, THUMBPRINTS_BYTES_MAX = 256 };

struct holdfast_profile {
    struct alloc *alloc;
    char endpoints[LIST_BYTES_MAX]; /* as options take it, names included */
    char plain[LIST_BYTES_MAX];     /* the key `endpoints` as written */
    char ca_file[LIMIT_PATH_BYTES];
    char cert_file[LIMIT_PATH_BYTES];
    char key_file[LIMIT_PATH_BYTES];
    char server_thumbprints[THUMBPRINTS_BYTES_MAX];
    uint32_t timeout_ms;
};

struct profile_parser {
    struct holdfast_profile *profile;
    const char *path;
    size_t folder_len; /* of path, slash included */
    struct slice rest;
    int line;
    struct error *err;
    enum status status;
    char seen[32][LIMIT_NAME_BYTES + 8];
    uint32_t seen_count;
};

static void fail(struct profile_parser *parser, const char *what, const char *name) {
    if (parser->status == STATUS_OK) {
        parser->status =
            error_set(parser->err, STATUS_INVALID, "%.100s:%d: %s \"%.60s\"", parser->path, parser->line, what, name);
    }
}

/* inih's reader: one line. A line that doesn't fit would be split in two: refused instead. */
static char *read_line(char *out, int size, void *context) {
    struct profile_parser *parser = context;
    if (parser->rest.len == 0 || parser->status != STATUS_OK) {
        return NULL;
    }
    parser->line++;
    const uint8_t *newline = memchr(parser->rest.data, '\n', parser->rest.len);
    size_t len = newline != NULL ? (size_t)(newline - parser->rest.data) + 1 : parser->rest.len;
    if (len > LINE_BYTES_MAX || len + 1 > (size_t)size || memchr(parser->rest.data, '\0', len) != NULL) {
        fail(parser, "a line may have 197 bytes and no zero byte; this one begins", "...");
        return NULL;
    }
    memcpy(out, parser->rest.data, len);
    out[len] = '\0';
    parser->rest.data += len;
    parser->rest.len -= len;
    return out;
}

static bool copy_text(char *out, size_t size, const char *value) {
    return (size_t)snprintf(out, size, "%s", value) < size && value[0] != '\0';
}

/* Relative paths are relative to the file. */
static bool copy_path(const struct profile_parser *parser, char *out, const char *value) {
    size_t folder_len = value[0] == '/' ? 0 : parser->folder_len;
    return value[0] != '\0' &&
           (size_t)snprintf(out, LIMIT_PATH_BYTES, "%.*s%s", (int)folder_len, parser->path, value) < LIMIT_PATH_BYTES;
}

static bool add_node(struct profile_parser *parser, const char *name, const char *address) {
    char *list = parser->profile->endpoints;
    size_t len = strlen(list);
    return name[0] != '\0' && (size_t)snprintf(list + len, LIST_BYTES_MAX - len, "%s%s=%s", len > 0 ? "," : "", name,
                                               address) < LIST_BYTES_MAX - len;
}

static bool copy_number(uint32_t *out, const char *value) {
    char *end = NULL;
    unsigned long number = strtoul(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || number < 1 || number > CLIENT_TIMEOUT_MS_MAX) {
        return false;
    }
    *out = (uint32_t)number;
    return true;
}

static bool take_value(struct profile_parser *parser, const char *name, const char *value, bool *ret_known) {
    struct holdfast_profile *profile = parser->profile;
    *ret_known = true;
    if (strcmp(name, "endpoints") == 0) {
        return copy_text(profile->plain, sizeof profile->plain, value);
    }
    if (strcmp(name, "ca") == 0) {
        return copy_path(parser, profile->ca_file, value);
    }
    if (strcmp(name, "cert") == 0) {
        return copy_path(parser, profile->cert_file, value);
    }
    if (strcmp(name, "key") == 0) {
        return copy_path(parser, profile->key_file, value);
    }
    if (strcmp(name, "server_thumbprints") == 0) {
        return copy_text(profile->server_thumbprints, sizeof profile->server_thumbprints, value);
    }
    if (strcmp(name, "timeout_ms") == 0) {
        return copy_number(&profile->timeout_ms, value);
    }
    if (strncmp(name, "node.", 5) == 0) {
        return add_node(parser, name + 5, value);
    }
    *ret_known = false;
    return false;
}

static int take_line(void *context, const char *section, const char *name, const char *value) {
    struct profile_parser *parser = context;
    bool known = false;
    if (parser->status != STATUS_OK) {
        return 0;
    }
    if (strcmp(section, "client") != 0) {
        fail(parser, "only [client] may stand here, not", section);
        return 0;
    }
    for (uint32_t i = 0; i < parser->seen_count; i++) {
        if (strncmp(parser->seen[i], name, sizeof parser->seen[i] - 1) == 0) {
            fail(parser, "duplicate key", name);
            return 0;
        }
    }
    if (parser->seen_count == sizeof parser->seen / sizeof parser->seen[0] || strlen(name) >= sizeof parser->seen[0]) {
        fail(parser, "too many keys, or too long a key:", name);
        return 0;
    }
    (void)snprintf(parser->seen[parser->seen_count++], sizeof parser->seen[0], "%s", name);
    bool taken = take_value(parser, name, value, &known);
    if (!known) {
        fail(parser, "unknown key (known: endpoints, node.NAME, ca, cert, key, server_thumbprints, timeout_ms):", name);
    } else if (!taken) {
        fail(parser, "wrong value of", name);
    }
    return taken;
}

/* Endpoints that no node.NAME names stand behind the named ones. */
static enum status merge_endpoints(struct holdfast_profile *profile, const char *path, struct error *err) {
    struct client_options *named = mem_alloc(profile->alloc, 2 * sizeof *named);
    if (named == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "out of memory");
    }
    struct client_options *plain = named + 1;
    client_options_init(named);
    client_options_init(plain);
    enum status status = STATUS_OK;
    if (profile->endpoints[0] != '\0') {
        status = client_options_add_endpoints(named, profile->endpoints, err);
    }
    if (status == STATUS_OK && profile->plain[0] != '\0') {
        status = client_options_add_endpoints(plain, profile->plain, err);
    }
    for (uint32_t i = 0; status == STATUS_OK && i < plain->endpoint_count; i++) {
        bool found = false;
        for (uint32_t k = 0; k < named->endpoint_count; k++) {
            found = found || strcmp(plain->endpoints[i].address, named->endpoints[k].address) == 0;
        }
        size_t len = strlen(profile->endpoints);
        if (!found) {
            (void)snprintf(profile->endpoints + len, LIST_BYTES_MAX - len, "%s%s", len > 0 ? "," : "",
                           plain->endpoints[i].address);
        }
    }
    mem_free(profile->alloc, named);
    if (status != STATUS_OK) {
        error_prefix(err, "%.100s", path);
    }
    return status;
}

static enum status parse(struct holdfast_profile *profile, const char *path, struct slice text, struct error *err) {
    struct profile_parser parser = {.profile = profile, .path = path, .rest = text, .err = err};
    const char *slash = strrchr(path, '/');
    parser.folder_len = slash != NULL ? (size_t)(slash - path) + 1 : 0;
    int bad_line = ini_parse_stream(read_line, &parser, take_line, &parser);
    if (parser.status == STATUS_OK && bad_line != 0) {
        parser.line = bad_line;
        fail(&parser, "not a line of an INI file:", "expected [client] or name = value");
    }
    return parser.status == STATUS_OK ? merge_endpoints(profile, path, err) : parser.status;
}

static enum status read_whole(struct env *env, const char *path, struct buf *out, struct error *err) {
    struct env_file *file = NULL;
    enum status status = env_open(env, path, ENV_OPEN_READ, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = buf_reserve(out, PROFILE_BYTES_MAX);
    if (status != STATUS_OK) {
        (void)error_set(err, status, "out of memory");
        goto out;
    }
    status = env_pread(file, out->data, PROFILE_BYTES_MAX, 0, &out->len, err);
    if (status == STATUS_OK && out->len == PROFILE_BYTES_MAX) {
        status = error_set(err, STATUS_INVALID, "%.100s: longer than a profile can be", path);
    }
out:
    env_close(file);
    return status;
}

enum holdfast_outcome holdfast_profile_load(const char *path, struct holdfast_profile **ret_profile,
                                            struct holdfast_result *result) {
    struct error err;
    struct env *env = NULL;
    struct buf text;
    const struct env_os_options os = {.use_ring = false, .workers_short = 1, .workers_long = 1};
    error_clear(&err);
    if (env_os_new(&os, &env, &err) != STATUS_OK) {
        return client_result_error(result, &err);
    }
    struct alloc *alloc = alloc_system();
    buf_init(&text, alloc, 0);
    struct holdfast_profile *profile = mem_alloc_zero(alloc, sizeof *profile);
    enum status status = STATUS_OK;
    if (profile == NULL) {
        status = STATUS_NO_MEMORY;
        (void)error_set(&err, status, "out of memory");
    } else {
        profile->alloc = alloc;
        status = read_whole(env, path, &text, &err);
        if (status == STATUS_OK) {
            status = parse(profile, path, buf_slice(&text), &err);
        }
    }
    buf_deinit(&text);
    env_os_free(env);
    if (status != STATUS_OK) {
        holdfast_profile_free(profile);
        return client_result_error(result, &err);
    }
    *ret_profile = profile;
    if (result != NULL) {
        memset(result, 0, sizeof *result);
    }
    return HOLDFAST_OK;
}

void holdfast_profile_free(struct holdfast_profile *profile) {
    if (profile != NULL) {
        mem_free(profile->alloc, profile);
    }
}

static const char *text_or_null(const char *text) { return text[0] != '\0' ? text : NULL; }

void holdfast_profile_options(const struct holdfast_profile *profile, struct holdfast_options *options) {
    holdfast_options_init(options);
    options->endpoints = text_or_null(profile->endpoints);
    options->ca_file = text_or_null(profile->ca_file);
    options->cert_file = text_or_null(profile->cert_file);
    options->key_file = text_or_null(profile->key_file);
    options->server_thumbprints = text_or_null(profile->server_thumbprints);
    if (profile->timeout_ms != 0) {
        options->timeout_ms = profile->timeout_ms;
    }
}

enum holdfast_outcome holdfast_open_profile(const char *path, struct holdfast **ret_handle,
                                            struct holdfast_result *result) {
    struct holdfast_profile *profile = NULL;
    struct holdfast_options options;
    enum holdfast_outcome outcome = holdfast_profile_load(path, &profile, result);
    if (outcome == HOLDFAST_OK) {
        CHECK(profile != NULL);
        holdfast_profile_options(profile, &options);
        outcome = holdfast_open(&options, ret_handle, result);
    }
    holdfast_profile_free(profile);
    return outcome;
}
