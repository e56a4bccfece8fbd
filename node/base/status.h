/*
 * Results of operations, and the one message that explains a failure.
 *
 * Every function that can fail returns an `enum status`. Those that touch I/O or outside input also take a
 * `struct error *` last (it may be NULL): the callee fills it, callers may add context in front. errno, libuv and
 * OpenSSL errors are converted once, in node/env and proto/tls. Outputs named ret_* are untouched on failure.
 */
#ifndef HOLDFAST_BASE_STATUS_H
#define HOLDFAST_BASE_STATUS_H

enum status {
    STATUS_OK = 0,
    STATUS_NOT_FOUND,   /* no such key, file or object */
    STATUS_EXISTS,      /* it is there already */
    STATUS_CORRUPT,     /* bytes from disk or wire that fail their checks */
    STATUS_IO,          /* a system call failed; error.sys has the errno */
    STATUS_NO_SPACE,    /* disk or quota full */
    STATUS_NO_MEMORY,   /* an allocation or a memory budget failed */
    STATUS_INVALID,     /* a caller's argument or a configuration value is wrong */
    STATUS_TOO_LARGE,   /* beyond a limit of node/base/limits.h */
    STATUS_BUSY,        /* a bounded queue is full: try again later */
    STATUS_TIMEOUT,     /* the deadline passed */
    STATUS_CLOSED,      /* the other side or the object is gone */
    STATUS_CANCELLED,   /* given up by its owner */
    STATUS_NOT_LEADER,  /* ask another node */
    STATUS_UNAVAILABLE, /* no leader, no quorum, or not ready yet */
    STATUS_DENIED,      /* identity or role does not permit it */
    STATUS_UNSUPPORTED, /* unknown version, kind or feature */
    STATUS_CONDITION,   /* a condition of the request does not hold */
    STATUS_UNKNOWN,     /* the outcome is not known: it may or may not have happened */
    STATUS_COMPACTED,   /* the revision is below the horizon */
    STATUS_FAILED,      /* stopped for good: the object refuses all further work */
    STATUS_PENDING,     /* not an outcome yet: what it needs was asked for; call again when that is there */
    STATUS_COUNT
};

#define MUST_USE                                  __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))

enum { ERROR_MESSAGE_BYTES_MAX = 256 };

struct error {
    enum status code;
    int sys; /* errno, or 0 */
    char message[ERROR_MESSAGE_BYTES_MAX];
};

/* A short stable name: "ok", "not_found", ... Never NULL. */
const char *status_name(enum status status);

/* Sets code and message; err may be NULL. Returns code, so that `return error_set(...)` reads well. */
enum status error_set(struct error *err, enum status code, const char *format, ...) PRINTF_LIKE(3, 4);

/* As error_set, with ": <strerror>" appended; ENOSPC and EDQUOT give STATUS_NO_SPACE, ENOMEM STATUS_NO_MEMORY,
 * ENOENT STATUS_NOT_FOUND, EEXIST STATUS_EXISTS, all else STATUS_IO. `sys` is a positive errno. */
enum status error_set_sys(struct error *err, int sys, const char *format, ...) PRINTF_LIKE(3, 4);

/* Puts context in front of an existing message ("<context>: <message>"); cuts at the end if too long. */
void error_prefix(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Forgets what an earlier call left. err may be NULL. */
void error_clear(struct error *err);

#endif
