/*
 * A cursor over a sorted array of entries that obeys cursor.h to the letter and checks that its caller does: for tests
 * of whatever is built on cursors.
 *
 * It says STATUS_PENDING at random moments, and then insists on the same call with the same arguments. Its entry's key
 * lies in memory that is overwritten by every call, as that of a block would. It can fail at one entry.
 */
#ifndef HOLDFAST_TESTS_ARRAY_CURSOR_H
#define HOLDFAST_TESTS_ARRAY_CURSOR_H

#include "node/base/check.h"
#include "storage/cursor.h"

#include <stdlib.h>
#include <string.h>

enum array_call { ARRAY_NONE, ARRAY_SEEK, ARRAY_SEEK_BEFORE, ARRAY_FIRST, ARRAY_LAST, ARRAY_NEXT, ARRAY_PREV };

struct array_cursor {
    struct cursor base;
    const struct entry *entries; /* sorted */
    size_t count;
    size_t at;
    bool valid; /* at an entry */
    unsigned pending_percent;
    uint64_t random_state;
    bool pending_allowed; /* false: the call that was pending is now answered */
    enum array_call pending;
    struct entry_key pending_target;
    uint8_t pending_key[64];
    size_t bad_at; /* reaching this entry is STATUS_CORRUPT; SIZE_MAX: none */
    uint64_t *calls;
    uint8_t key[64];
};

static inline uint64_t array_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* True: say STATUS_PENDING. */
static inline bool array_waits(struct array_cursor *cursor, enum array_call call, const struct entry_key *target) {
    memset(cursor->key, 0xee, sizeof cursor->key);
    cursor->base.entry = (struct entry){0};
    if (cursor->calls != NULL) {
        ++*cursor->calls;
    }
    if (cursor->pending != ARRAY_NONE) {
        CHECK(cursor->pending == call);
        CHECK(target == NULL || entry_key_compare(target, &cursor->pending_target) == 0);
    }
    if (array_random(&cursor->random_state) % 100 >= cursor->pending_percent) {
        cursor->pending = ARRAY_NONE;
        return false;
    }
    cursor->pending = call;
    if (target != NULL) {
        CHECK(target->user.len <= sizeof cursor->pending_key);
        memmove(cursor->pending_key, target->user.data, target->user.len);
        cursor->pending_target = *target;
        cursor->pending_target.user.data = cursor->pending_key;
    }
    return true;
}

static inline enum status array_arrive(struct array_cursor *cursor, size_t at) {
    cursor->valid = at < cursor->count;
    if (!cursor->valid) {
        return STATUS_NOT_FOUND;
    }
    if (at == cursor->bad_at) {
        cursor->valid = false;
        return STATUS_CORRUPT;
    }
    cursor->at = at;
    cursor->base.entry = cursor->entries[at];
    memcpy(cursor->key, cursor->entries[at].key.user.data, cursor->entries[at].key.user.len);
    cursor->base.entry.key.user.data = cursor->key;
    return STATUS_OK;
}

/* The first entry at or behind the target. */
static inline size_t array_find(const struct array_cursor *cursor, const struct entry_key *target) {
    size_t at = 0;
    while (at < cursor->count && entry_key_compare(&cursor->entries[at].key, target) < 0) {
        at++;
    }
    return at;
}

static inline enum status array_seek(struct cursor *base, const struct entry_key *target, struct error *err) {
    (void)err;
    struct array_cursor *cursor = (struct array_cursor *)base;
    size_t at = array_find(cursor, target); /* the target may be the cursor's own key */
    return array_waits(cursor, ARRAY_SEEK, target) ? STATUS_PENDING : array_arrive(cursor, at);
}

static inline enum status array_seek_before(struct cursor *base, const struct entry_key *target, struct error *err) {
    (void)err;
    struct array_cursor *cursor = (struct array_cursor *)base;
    size_t at = array_find(cursor, target);
    return array_waits(cursor, ARRAY_SEEK_BEFORE, target) ? STATUS_PENDING
                                                          : array_arrive(cursor, at == 0 ? SIZE_MAX : at - 1);
}

static inline enum status array_first(struct cursor *base, struct error *err) {
    (void)err;
    struct array_cursor *cursor = (struct array_cursor *)base;
    return array_waits(cursor, ARRAY_FIRST, NULL) ? STATUS_PENDING : array_arrive(cursor, 0);
}

static inline enum status array_last(struct cursor *base, struct error *err) {
    (void)err;
    struct array_cursor *cursor = (struct array_cursor *)base;
    return array_waits(cursor, ARRAY_LAST, NULL)
               ? STATUS_PENDING
               : array_arrive(cursor, cursor->count == 0 ? SIZE_MAX : cursor->count - 1);
}

static inline enum status array_next(struct cursor *base, struct error *err) {
    (void)err;
    struct array_cursor *cursor = (struct array_cursor *)base;
    CHECK(cursor->valid);
    return array_waits(cursor, ARRAY_NEXT, NULL) ? STATUS_PENDING : array_arrive(cursor, cursor->at + 1);
}

static inline enum status array_prev(struct cursor *base, struct error *err) {
    (void)err;
    struct array_cursor *cursor = (struct array_cursor *)base;
    CHECK(cursor->valid);
    return array_waits(cursor, ARRAY_PREV, NULL) ? STATUS_PENDING
                                                 : array_arrive(cursor, cursor->at == 0 ? SIZE_MAX : cursor->at - 1);
}

/* Denies what isn't there, mostly; as a filter of which a block is missing says STATUS_PENDING now and then. */
static inline enum status array_may_hold(struct cursor *base, const struct entry_key *target, uint64_t hash,
                                         struct error *err) {
    (void)hash;
    (void)err;
    struct array_cursor *cursor = (struct array_cursor *)base;
    size_t at = array_find(cursor, target);
    if (array_random(&cursor->random_state) % 100 < cursor->pending_percent) {
        return STATUS_PENDING;
    }
    bool holds = at < cursor->count && slice_equal(cursor->entries[at].key.user, target->user);
    return holds || array_random(&cursor->random_state) % 8 == 0 ? STATUS_OK : STATUS_NOT_FOUND;
}

static inline void array_free(struct cursor *base) { free(base); }

/* Borrows the entries. */
static inline struct array_cursor *array_cursor_new(const struct entry *entries, size_t count, unsigned pending_percent,
                                                    uint64_t seed) {
    static const struct cursor_ops ops = {.seek = array_seek,
                                          .seek_before = array_seek_before,
                                          .first = array_first,
                                          .last = array_last,
                                          .next = array_next,
                                          .prev = array_prev,
                                          .may_hold = array_may_hold,
                                          .free = array_free};
    struct array_cursor *cursor = calloc(1, sizeof *cursor);
    CHECK(cursor != NULL);
    cursor->base.ops = &ops;
    cursor->entries = entries;
    cursor->count = count;
    cursor->pending_percent = pending_percent;
    cursor->random_state = seed;
    cursor->bad_at = SIZE_MAX;
    return cursor;
}

#endif
