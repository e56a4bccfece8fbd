/* Names of statuses, and how an error's message is put together. */
#include "node/base/status.h"

#include "node/base/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const status_names[STATUS_COUNT] = {
    [STATUS_OK] = "ok",
    [STATUS_NOT_FOUND] = "not_found",
    [STATUS_EXISTS] = "exists",
    [STATUS_CORRUPT] = "corrupt",
    [STATUS_IO] = "io",
    [STATUS_NO_SPACE] = "no_space",
    [STATUS_NO_MEMORY] = "no_memory",
    [STATUS_INVALID] = "invalid",
    [STATUS_TOO_LARGE] = "too_large",
    [STATUS_BUSY] = "busy",
    [STATUS_TIMEOUT] = "timeout",
    [STATUS_CLOSED] = "closed",
    [STATUS_CANCELLED] = "cancelled",
    [STATUS_NOT_LEADER] = "not_leader",
    [STATUS_UNAVAILABLE] = "unavailable",
    [STATUS_DENIED] = "denied",
    [STATUS_UNSUPPORTED] = "unsupported",
    [STATUS_CONDITION] = "condition",
    [STATUS_UNKNOWN] = "unknown",
    [STATUS_COMPACTED] = "compacted",
    [STATUS_FAILED] = "failed",
    [STATUS_PENDING] = "pending",
};

const char *status_name(enum status status) {
    CHECK(status < STATUS_COUNT);
    CHECK(status_names[status] != NULL);
    return status_names[status];
}

enum status error_set(struct error *err, enum status code, const char *format, ...) {
    CHECK(code != STATUS_OK);
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        err->code = code;
        err->sys = 0;
        (void)vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return code;
}

static enum status status_of_errno(int sys) {
    switch (sys) {
    case ENOSPC:
    case EDQUOT: return STATUS_NO_SPACE;
    case ENOMEM: return STATUS_NO_MEMORY;
    case ENOENT: return STATUS_NOT_FOUND;
    case EEXIST: return STATUS_EXISTS;
    default: return STATUS_IO;
    }
}

enum status error_set_sys(struct error *err, int sys, const char *format, ...) {
    CHECK(sys > 0);
    enum status code = status_of_errno(sys);
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        err->code = code;
        err->sys = sys;
        (void)vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        size_t used = strlen(err->message);
        char reason[96];
        (void)snprintf(err->message + used, sizeof err->message - used, ": %s", strerror_r(sys, reason, sizeof reason));
    }
    return code;
}

void error_prefix(struct error *err, const char *format, ...) {
    if (err == NULL) {
        return;
    }
    char old[ERROR_MESSAGE_BYTES_MAX];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    size_t used = strlen(err->message);
    (void)snprintf(err->message + used, sizeof err->message - used, ": %s", old);
}

void error_clear(struct error *err) {
    if (err != NULL) {
        memset(err, 0, sizeof *err);
    }
}
