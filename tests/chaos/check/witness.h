/*
 * Why a history isn't linearizable, in few operations.
 *
 * A violation is made smaller by asking for less: an end that is forgotten lets the operation take effect later or
 * never; a read that is forgotten asks for nothing. If no order does even what is left, none does the whole. What isn't
 * left is irrelevant: without it there is no order either.
 */
#ifndef HOLDFAST_CHAOS_CHECK_WITNESS_H
#define HOLDFAST_CHAOS_CHECK_WITNESS_H

#include "tests/chaos/check/check.h"

#include <jansson.h>

/* The problem's items, and `search`, are of a group that is a violation. Fills the witness part of ret; search.state of
 * `ret` is owned by it then. Takes search->state. STATUS_NO_MEMORY, STATUS_TOO_LARGE: nothing is filled in. */
MUST_USE enum status witness_shrink(const struct search_problem *problem, struct search_result *search,
                                    uint64_t steps_max, struct check_result *ret);

/* As lines of text, each begun by two spaces, appended. STATUS_NO_MEMORY. */
MUST_USE enum status check_witness_print(const struct check_history *history, const struct check_result *result,
                                         struct buf *out);
/* As an object: keys, operations, placed, stuck. NULL: no memory. */
json_t *check_witness_json(const struct check_history *history, const struct check_result *result);

#endif
