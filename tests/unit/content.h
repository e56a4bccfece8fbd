/*
 * One number for all that a store shows now: keys, values and revisions. Blocks: between the steps of a simulator.
 */
#ifndef HOLDFAST_TESTS_CONTENT_H
#define HOLDFAST_TESTS_CONTENT_H

#include "node/base/checksum.h"
#include "storage/storage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static inline uint64_t content_of(struct storage *storage) {
    struct storage_view *view = storage_view_acquire(storage);
    struct storage_iterator *iterator = NULL;
    struct error error = {0};
    uint64_t sum = storage_view_revision(view);
    assert_int_equal(storage_iterator_new(view, NULL, NULL, &iterator, &error), STATUS_OK);
    enum status status = storage_iterator_first(iterator, &error);
    for (; status == STATUS_OK; status = storage_iterator_next(iterator, &error)) {
        struct slice key = storage_iterator_key(iterator);
        struct slice value;
        assert_int_equal(storage_iterator_value(iterator, &value, &error), STATUS_OK);
        sum = checksum64(key.data, key.len, sum);
        sum = checksum64(value.data, value.len, sum ^ storage_iterator_revision(iterator));
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    storage_iterator_free(iterator);
    storage_view_release(view);
    return sum;
}

#endif
