/*
 * Assertions that stay on in release builds.
 *
 * CHECK is for a programmer's error only: a broken invariant, a call out of order. Bytes from disk or wire and
 * failures of the machine are never a CHECK: they are a status (see status.h).
 */
#ifndef HOLDFAST_BASE_CHECK_H
#define HOLDFAST_BASE_CHECK_H

/* Prints file, line and condition to stderr and aborts. */
_Noreturn void check_failed(const char *file, int line, const char *condition);

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (__builtin_expect(!(condition), 0)) {                                                                       \
            check_failed(__FILE__, __LINE__, #condition);                                                              \
        }                                                                                                              \
    } while (0)

/* The struct that embeds `member` at `pointer`. */
#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
