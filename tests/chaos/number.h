/* Numbers on the command lines of load generators, which are made of libholdfast and the C library alone. */
#ifndef HOLDFAST_TESTS_CHAOS_NUMBER_H
#define HOLDFAST_TESTS_CHAOS_NUMBER_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* Decimal, at most max; nothing before or behind it. */
static inline bool parse_number(const char *text, uint64_t max, uint64_t *ret) {
    char *end = NULL;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || number > max) {
        return false;
    }
    *ret = number;
    return true;
}

#endif
