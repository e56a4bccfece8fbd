/*
 * Which keys are on their way, and with which batch: so that two lines with the same key are applied in their order.
 *
 * Only 64-bit hashes are kept: two keys with one hash wait for each other, which is harmless. Open addressing, linear
 * probing.
 */
#ifndef HOLDFAST_CTL_KEY_SET_H
#define HOLDFAST_CTL_KEY_SET_H

#include "node/base/alloc.h"
#include "node/base/slice.h"
#include "node/base/status.h"

struct key_set_slot {
    uint64_t hash;
    uint32_t owner; /* 0: empty */
};

struct key_set {
    struct alloc *alloc;
    struct key_set_slot *slots;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
};

void key_set_init(struct key_set *set, struct alloc *alloc);
void key_set_deinit(struct key_set *set);
uint64_t key_set_hash(struct slice key);
/* 0: nobody. */
uint32_t key_set_owner(const struct key_set *set, uint64_t hash);
/* The hash must not be there; owner > 0. STATUS_NO_MEMORY: unchanged. */
MUST_USE enum status key_set_add(struct key_set *set, uint64_t hash, uint32_t owner);
/* The hash must be there. */
void key_set_remove(struct key_set *set, uint64_t hash);

#endif
