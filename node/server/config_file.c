/*
 * From the lines of the file to keys and values.
 *
 * inih parses. Its way of seeing things is too generous for a server: it splits lines that are longer than its buffer,
 * takes an indented line for more of the value above, cuts long section names, drops what follows a `]`. So the lines
 * pass through next_line first, which hands them on one by one and refuses each that inih would take for something else
 * than it looks like. It also knows the line's number, and sees section heads, of which inih says nothing until the
 * first key.
 *
 *   next_line: raw line --> section begun, or refused --> inih --> take_key: key looked up, parsed into its field
 *
 * Start-up only; blocks.
 */
#include "node/server/config_internal.h"

#include "node/base/buf.h"
#include "node/base/check.h"

#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>

struct loader {
    struct config *config;
    struct config_places *places;
    const char *folder; /* of the file; "" for the current one */
    struct slice rest;  /* lines not read yet */
    uint32_t line;
    enum status status; /* the first error ends it all */
    struct error *err;
};

/* ---- Places ---------------------------------------------------------------------------------------------------- */

uint32_t config__line_of(const struct config_places *places, const void *target, size_t offset) {
    for (uint32_t i = 0; i < places->count; i++) {
        const struct config_place *place = &places->place[i];
        if (place->target != target) {
            continue;
        }
        for (uint32_t k = 0; k < place->section->key_count; k++) {
            if (place->section->keys[k].offset == offset && place->key_lines[k] != 0) {
                return place->key_lines[k];
            }
        }
        if (place->section->named) {
            return place->line;
        }
    }
    return 0;
}

enum status config__error(const struct config_places *places, uint32_t line, struct error *err, const char *format,
                          ...) {
    char message[ERROR_MESSAGE_BYTES_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (line == 0) {
        return error_set(err, STATUS_INVALID, "%s: %s", places->file, message);
    }
    return error_set(err, STATUS_INVALID, "%s:%u: %s", places->file, line, message);
}

#define REFUSE(loader, ...)                                                                                            \
    ((loader)->status = config__error((loader)->places, (loader)->line, (loader)->err, __VA_ARGS__))

/* ---- Sections -------------------------------------------------------------------------------------------------- */

static struct config_place *current_place(struct loader *loader) {
    return loader->places->count == 0 ? NULL : &loader->places->place[loader->places->count - 1];
}

/* The section that ends has all that it needs. */
static void end_section(struct loader *loader) {
    const struct config_place *place = current_place(loader);
    if (place == NULL || loader->status != STATUS_OK) {
        return;
    }
    for (uint32_t i = 0; i < place->section->key_count; i++) {
        if (place->section->keys[i].required && place->key_lines[i] == 0) {
            loader->status = config__error(loader->places, place->line, loader->err, "section [%s] lacks the key %s",
                                           place->section->name, place->section->keys[i].name);
            return;
        }
    }
}

/* The name of a member or identity is the first field of its struct. */
static_assert(offsetof(struct config_member, name) == 0 && offsetof(struct config_identity, name) == 0,
              "a named section's name is found through its target");

static bool is_duplicate(const struct loader *loader, const struct config_section *section, const char *name) {
    for (uint32_t i = 0; i < loader->places->count; i++) {
        const struct config_place *place = &loader->places->place[i];
        if (place->section == section && (!section->named || strcmp(place->target, name) == 0)) {
            return true;
        }
    }
    return false;
}

/* Room for what [member NAME] or [identity NAME] describes; NULL after an error. */
static void *new_target(struct loader *loader, const struct config_section *section, const char *name) {
    struct config *config = loader->config;
    static const struct config_key name_key = {.max = LIMIT_NAME_BYTES};
    char checked[LIMIT_NAME_BYTES];
    struct error reason;
    if (config__parse_name(&name_key, loader->folder, name, checked, &reason) != STATUS_OK) {
        REFUSE(loader, "[%s %s]: the second word %s", section->name, name, reason.message);
        return NULL;
    }
    if (strcmp(section->name, "member") == 0) {
        if (config->member_count == LIMIT_MEMBERS) {
            REFUSE(loader, "more than %d members", LIMIT_MEMBERS);
            return NULL;
        }
        struct config_member *member = &config->members[config->member_count++];
        memcpy(member->name, checked, sizeof checked);
        return member;
    }
    if (config->identities == NULL) {
        config->identities = mem_alloc_zero(config->alloc, CONFIG_IDENTITIES_MAX * sizeof *config->identities);
    }
    if (config->identities == NULL || config->identity_count == CONFIG_IDENTITIES_MAX) {
        REFUSE(loader, config->identities == NULL ? "out of memory" : "more than %d identities", CONFIG_IDENTITIES_MAX);
        return NULL;
    }
    struct config_identity *identity = &config->identities[config->identity_count++];
    memcpy(identity->name, checked, sizeof checked);
    return identity;
}

/* head: what stands between the brackets. */
static void begin_section(struct loader *loader, char *head) {
    end_section(loader);
    if (loader->status != STATUS_OK) {
        return;
    }
    char *name = strchr(head, ' ');
    if (name != NULL) {
        *name++ = '\0';
    }
    uint32_t count;
    const struct config_section *sections = config__sections(&count);
    const struct config_section *section = NULL;
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(sections[i].name, head) == 0) {
            section = &sections[i];
        }
    }
    if (section == NULL) {
        REFUSE(loader,
               "unknown section [%s]; there are node, log, tls, raft, storage, limits, member NAME, identity NAME",
               head);
        return;
    }
    if (section->named != (name != NULL)) {
        REFUSE(loader, section->named ? "[%s] needs a name: [%s NAME]" : "[%s] takes no name, write [%s]", head, head);
        return;
    }
    if (is_duplicate(loader, section, name)) {
        REFUSE(loader, "section [%s%s%s] occurs twice", head, name != NULL ? " " : "", name != NULL ? name : "");
        return;
    }
    void *target = section->named ? new_target(loader, section, name) : loader->config;
    if (target != NULL) {
        CHECK(loader->places->count < CONFIG_SECTIONS_MAX);
        loader->places->place[loader->places->count++] =
            (struct config_place){.section = section, .target = target, .line = loader->line};
    }
}

/* ---- Lines ----------------------------------------------------------------------------------------------------- */

/* How many bytes at the front are from this set; lines don't end with a zero byte. */
static size_t span(const char *text, size_t len, const char *set) {
    size_t count = 0;
    while (count < len && text[count] != '\0' && strchr(set, text[count]) != NULL) {
        count++;
    }
    return count;
}

/* A line that opens with '['. */
static void see_section_line(struct loader *loader, const char *line, size_t len) {
    const char *end = memchr(line, ']', len);
    size_t head_len = end != NULL ? (size_t)(end - line) - 1 : 0;
    size_t after = end != NULL ? head_len + 2 : len;
    after += span(line + after, len - after, " \t");
    char head[LIMIT_NAME_BYTES];
    if (head_len == 0 || (after < len && line[after] != ';' && line[after] != '#')) {
        REFUSE(loader, "this is not a section: expected [name] and nothing behind it");
    } else if (head_len >= 50) { /* where inih cuts */
        REFUSE(loader, "the section's name is too long");
    } else {
        memcpy(head, line + 1, head_len);
        head[head_len] = '\0';
        begin_section(loader, head);
    }
}

/* Refuses what inih would read as something else. */
static void see_line(struct loader *loader, const char *line, size_t len, size_t len_max) {
    if (loader->line == 1 && len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3;
        len -= 3;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)line[i];
        if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
            REFUSE(loader, "the line holds a control character (byte %zu)", i + 1);
            return;
        }
    }
    size_t blanks = span(line, len, " \t");
    bool comment = blanks < len && (line[blanks] == ';' || line[blanks] == '#');
    if (len > len_max) {
        REFUSE(loader, "the line is longer than %zu bytes", len_max);
    } else if (blanks == len || comment) {
        return;
    } else if (blanks > 0) {
        REFUSE(loader, "the line begins with a blank: values can't go on over several lines");
    } else if (line[0] == '[') {
        see_section_line(loader, line, len);
    } else {
        size_t name_len = span(line, len, "abcdefghijklmnopqrstuvwxyz_0123456789");
        size_t equals = name_len + span(line + name_len, len - name_len, " \t");
        if (name_len == 0 || equals == len || line[equals] != '=') {
            REFUSE(loader, "expected `key = value`, a [section] or a comment");
        }
    }
}

/* ini_reader: the next line, in the manner of fgets. */
static char *next_line(char *out, int size, void *stream) {
    struct loader *loader = stream;
    if (loader->rest.len == 0 || loader->status != STATUS_OK) {
        return NULL;
    }
    CHECK(size > 3);
    const uint8_t *end = memchr(loader->rest.data, '\n', loader->rest.len);
    size_t len = end != NULL ? (size_t)(end - loader->rest.data) : loader->rest.len;
    size_t taken = end != NULL ? len + 1 : len;
    const char *line = (const char *)loader->rest.data;
    loader->line++;
    if (len > 0 && line[len - 1] == '\r') {
        len--;
    }
    see_line(loader, line, len, (size_t)size - 3);
    if (loader->status != STATUS_OK) {
        return NULL;
    }
    memcpy(out, line, len);
    memcpy(out + len, "\n", 2);
    loader->rest = slice_of(loader->rest.data + taken, loader->rest.len - taken);
    return out;
}

/* ---- Keys ------------------------------------------------------------------------------------------------------ */

/* ini_handler. Its return value isn't needed: the first error is in the loader, and next_line ends the file. */
static int take_key(void *context, const char *section_text, const char *name, const char *text) {
    (void)section_text; /* cut to its own size by inih; next_line knows better */
    struct loader *loader = context;
    struct config_place *place = current_place(loader);
    if (loader->status != STATUS_OK) {
        return 1;
    }
    if (place == NULL) {
        REFUSE(loader, "%s stands before the first [section]", name);
        return 1;
    }
    const struct config_section *section = place->section;
    uint32_t at = 0;
    while (at < section->key_count && strcmp(section->keys[at].name, name) != 0) {
        at++;
    }
    if (at == section->key_count) {
        REFUSE(loader, "unknown key %s in section [%s]", name, section->name);
        return 1;
    }
    if (place->key_lines[at] != 0) {
        REFUSE(loader, "%s is given twice, first in line %u", name, place->key_lines[at]);
        return 1;
    }
    const struct config_key *key = &section->keys[at];
    place->key_lines[at] = loader->line;
    struct error reason;
    if (key->parse(key, loader->folder, text, (uint8_t *)place->target + key->offset, &reason) != STATUS_OK) {
        REFUSE(loader, "%s = %.60s %s", name, text, reason.message);
    }
    return 1;
}

/* ---- The file -------------------------------------------------------------------------------------------------- */

static enum status read_file(const char *path, struct buf *text, struct error *err) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return error_set_sys(err, errno, "can't open the configuration %s", path);
    }
    enum status status = STATUS_OK;
    size_t got = 1;
    while (status == STATUS_OK && got > 0) {
        uint8_t chunk[4096];
        got = fread(chunk, 1, sizeof chunk, file);
        status = buf_append(text, chunk, got);
    }
    if (status == STATUS_OK && ferror(file)) {
        status = error_set_sys(err, errno, "can't read the configuration %s", path);
    } else if (status == STATUS_TOO_LARGE) {
        (void)error_set(err, status, "the configuration %s is larger than %d bytes", path, CONFIG_FILE_BYTES_MAX);
    } else if (status != STATUS_OK) {
        (void)error_set(err, status, "configuration: out of memory");
    }
    (void)fclose(file);
    return status;
}

/* Everything before the last '/', "" if there is none; "/" stays. */
static enum status folder_of(const char *path, char *ret_folder, size_t size, struct error *err) {
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (len >= size) {
        return error_set(err, STATUS_INVALID, "the path of the configuration is longer than %zu bytes", size - 1);
    }
    memcpy(ret_folder, path, len);
    ret_folder[len] = '\0';
    return STATUS_OK;
}

enum status config_load(struct config *config, const char *path, struct error *err) {
    struct buf text;
    buf_init(&text, config->alloc, CONFIG_FILE_BYTES_MAX);
    struct config_places *places = mem_alloc_zero(config->alloc, sizeof *places);
    char folder[LIMIT_PATH_BYTES];
    enum status status = STATUS_OK;
    config->io_threads_auto = true; /* what a file that doesn't say means */
    if (places == NULL) {
        status = error_set(err, STATUS_NO_MEMORY, "configuration: out of memory");
        goto out;
    }
    size_t path_len = strlen(path);
    bool long_path = path_len >= sizeof places->file;
    (void)snprintf(places->file, sizeof places->file, "%s%s", long_path ? "..." : "",
                   long_path ? path + path_len - (sizeof places->file - 4) : path);
    status = folder_of(path, folder, sizeof folder, err);
    if (status == STATUS_OK) {
        status = read_file(path, &text, err);
    }
    if (status != STATUS_OK) {
        goto out;
    }
    struct loader loader = {.config = config,
                            .places = places,
                            .folder = folder,
                            .rest = buf_slice(&text),
                            .status = STATUS_OK,
                            .err = err};
    int parsed = ini_parse_stream(next_line, &loader, take_key, &loader);
    end_section(&loader);
    status = loader.status;
    if (status == STATUS_OK && parsed != 0) {
        status = config__error(places, parsed > 0 ? (uint32_t)parsed : 0, err,
                               "the INI reader can't make sense of this line");
    }
    if (status == STATUS_OK) {
        status = config__check(config, places, err);
    }
out:
    buf_deinit(&text);
    mem_free(config->alloc, places);
    return status;
}
