/* Puts a logfmt line together on the stack and hands it to the sink. */
#include "node/base/log.h"

#include "node/base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static const char *const level_names[] = {"debug", "info", "warn", "error"};

const char *log_level_name(enum log_level level) {
    CHECK(level <= LOG_ERROR);
    return level_names[level];
}

enum status log_level_parse(const char *name, enum log_level *ret_level) {
    for (int level = LOG_DEBUG; level <= (int)LOG_ERROR; level++) {
        if (strcmp(name, level_names[level]) == 0) {
            *ret_level = (enum log_level)level;
            return STATUS_OK;
        }
    }
    return STATUS_INVALID;
}

const char *log_quote(char *out, size_t size, const char *text) {
    CHECK(size >= 3);
    size_t at = 0;
    out[at++] = '"';
    for (; *text != '\0' && at + 3 < size; text++) {
        if (*text == '"' || *text == '\\') {
            out[at++] = '\\';
        }
        out[at++] = *text;
    }
    out[at++] = '"';
    out[at] = '\0';
    return out;
}

static size_t put_head(char *line, size_t size, int64_t wall_ms, enum log_level level, const char *event) {
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    (void)gmtime_r(&seconds, &utc);
    int used = snprintf(line, size, "ts=%04d-%02d-%02dT%02d:%02d:%02d.%03dZ level=%s event=%s", utc.tm_year + 1900,
                        utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, (int)(wall_ms % 1000),
                        level_names[level], event);
    CHECK(used > 0);
    return (size_t)used < size ? (size_t)used : size - 1;
}

void log_event(struct logger *logger, enum log_level level, const char *event, const char *format, ...) {
    if (logger == NULL || level < logger->level_min) {
        return;
    }
    char line[LOG_LINE_BYTES_MAX];
    size_t used = put_head(line, sizeof line, logger->wall_ms(logger), level, event);
    if (format[0] != '\0' && used + 2 < sizeof line) {
        line[used++] = ' ';
        va_list args;
        va_start(args, format);
        int more = vsnprintf(line + used, sizeof line - used, format, args);
        va_end(args);
        CHECK(more >= 0);
        used += (size_t)more < sizeof line - used ? (size_t)more : sizeof line - used - 1;
    }
    for (size_t i = 0; i < used; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = '?';
        }
    }
    logger->write(logger, level, slice_of(line, used));
}
