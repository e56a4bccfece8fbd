/* Files, lines, and who has what under way. The contract is in reader.h. */
#include "tests/chaos/check/reader_internal.h"

#include "node/base/check.h"
#include "tests/chaos/check/grow.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

enum status reader__bad(struct reader *reader, const char *format, ...) {
    char text[ERROR_MESSAGE_BYTES_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return error_set(reader->err, STATUS_CORRUPT, "%s:%" PRIu64 ": %s", reader->path, reader->line, text);
}

/* What a call of the history said, with words to it. */
static enum status explained(struct reader *reader, enum status status) {
    if (status == STATUS_OK) {
        return STATUS_OK;
    }
    return error_set(reader->err, status, "%s:%" PRIu64 ": %s", reader->path, reader->line,
                     status == STATUS_TOO_LARGE ? "the history is too large" : "no memory for the history");
}

enum status reader__key(struct reader *reader, struct slice name, uint32_t *ret_key) {
    return explained(reader, check_history_key(reader->history, name, ret_key));
}

enum status reader__value(struct reader *reader, struct slice bytes, uint32_t *ret_value) {
    return explained(reader, values_intern(&reader->history->values, bytes, ret_value));
}

enum status reader__begin(struct reader *reader, uint64_t client, uint64_t at, uint32_t shape, uint32_t part_count) {
    uint32_t operation = 0;
    for (uint32_t i = 0; i < reader->pending_count; i++) {
        if (reader->pending[i].client == client) {
            return reader__bad(reader, "client %" PRIu64 " begins, but has something under way", client);
        }
    }
    enum status status =
        explained(reader, grow_items(reader->history->alloc, &reader->pending, &reader->pending_capacity,
                                     sizeof *reader->pending, (uint64_t)reader->pending_count + 1, READER_PENDING_MAX));
    if (status == STATUS_OK) {
        status =
            explained(reader, check_history_begin(reader->history, client, at, reader->parts, part_count, &operation));
    }
    if (status == STATUS_OK) {
        reader->pending[reader->pending_count++] =
            (struct reader_pending){.client = client, .operation = operation, .shape = shape};
    }
    return status;
}

enum status reader__take(struct reader *reader, uint64_t client, struct reader_pending *ret) {
    for (uint32_t i = 0; i < reader->pending_count; i++) {
        if (reader->pending[i].client == client) {
            *ret = reader->pending[i];
            reader->pending[i] = reader->pending[--reader->pending_count];
            return STATUS_OK;
        }
    }
    return reader__bad(reader, "client %" PRIu64 " ends what it didn't begin", client);
}

enum status reader__end(struct reader *reader, uint32_t operation, uint64_t at, enum check_outcome outcome,
                        bool has_parts, uint32_t part_count) {
    return explained(reader, check_history_end(reader->history, operation, at, outcome,
                                               has_parts ? reader->parts : NULL, part_count));
}

/* ---- Lines ------------------------------------------------------------------------------------------------------- */

/* The next line, without its end. STATUS_NOT_FOUND: there is none. *text is getline's. */
static enum status next_line(struct reader *reader, FILE *file, char **text, size_t *capacity, struct slice *ret) {
    errno = 0;
    ssize_t len = getline(text, capacity, file);
    reader->line++;
    if (len < 0) {
        if (ferror(file) != 0) {
            return error_set_sys(reader->err, errno != 0 ? errno : EIO, "%s", reader->path);
        }
        return errno == ENOMEM ? error_set(reader->err, STATUS_NO_MEMORY, "%s: no memory", reader->path)
                               : STATUS_NOT_FOUND;
    }
    if (len > READER_LINE_BYTES_MAX) {
        return reader__bad(reader, "a line of %zd bytes is too long", len);
    }
    while (len > 0 && ((*text)[len - 1] == '\n' || (*text)[len - 1] == '\r')) {
        len--;
    }
    *ret = slice_of(*text, (size_t)len);
    return STATUS_OK;
}

static reader__line *format_of(struct slice line) {
    if (slice_starts_with(line, slice_of_string("{:"))) {
        return reader__map_line;
    }
    if (slice_starts_with(line, slice_of_string("{"))) {
        return reader__json_line;
    }
    return slice_starts_with(line, slice_of_string("INFO ")) ? reader__log_line : NULL;
}

static enum status read_lines(struct reader *reader, FILE *file) {
    char *text = NULL;
    size_t capacity = 0;
    struct slice line;
    reader__line *read = NULL;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && (status = next_line(reader, file, &text, &capacity, &line)) == STATUS_OK) {
        if (line.len == 0) {
            continue;
        }
        if (read == NULL) {
            read = format_of(line);
            reader->history->unit = read == reader__json_line ? "us" : "line";
        }
        status = read == NULL ? reader__bad(reader, "this is no history: neither JSON lines, nor a log, nor a map")
                              : read(reader, line);
    }
    free(text);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

enum status check_read_stream(struct check_history *history, FILE *file, const char *name, struct error *err) {
    struct reader *reader = mem_alloc_zero(history->alloc, sizeof *reader);
    if (reader == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for a history");
    }
    reader->history = history;
    reader->path = name;
    reader->err = err;
    enum status status = read_lines(reader, file);
    mem_free(history->alloc, reader->pending);
    mem_free(history->alloc, reader);
    return status;
}

enum status check_read(struct check_history *history, const char *path, struct error *err) {
    if (strcmp(path, "-") == 0) {
        return check_read_stream(history, stdin, path, err);
    }
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return error_set_sys(err, errno, "can't open %s", path);
    }
    enum status status = check_read_stream(history, file, path, err);
    (void)fclose(file);
    return status;
}
