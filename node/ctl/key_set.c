/* See key_set.h. Removal shifts later entries of the run back, so that no tombstones gather. */
#include "node/ctl/key_set.h"

#include "node/base/check.h"
#include "node/base/checksum.h"

enum { CAPACITY_MIN = 1024 };

void key_set_init(struct key_set *set, struct alloc *alloc) { *set = (struct key_set){.alloc = alloc}; }

void key_set_deinit(struct key_set *set) {
    mem_free(set->alloc, set->slots);
    set->slots = NULL;
    set->capacity = 0;
    set->count = 0;
}

uint64_t key_set_hash(struct slice key) { return checksum64(key.data, key.len, 0); }

/* The slot that holds the hash, or the empty one where it would go. */
static size_t find(const struct key_set *set, uint64_t hash) {
    size_t at = (size_t)hash & (set->capacity - 1);
    while (set->slots[at].owner != 0 && set->slots[at].hash != hash) {
        at = (at + 1) & (set->capacity - 1);
    }
    return at;
}

uint32_t key_set_owner(const struct key_set *set, uint64_t hash) {
    return set->capacity > 0 ? set->slots[find(set, hash)].owner : 0;
}

static enum status grow(struct key_set *set) {
    struct key_set larger = {.alloc = set->alloc, .capacity = set->capacity > 0 ? 2 * set->capacity : CAPACITY_MIN};
    larger.slots = mem_alloc_zero(set->alloc, larger.capacity * sizeof *larger.slots);
    if (larger.slots == NULL) {
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; i < set->capacity; i++) {
        if (set->slots[i].owner != 0) {
            larger.slots[find(&larger, set->slots[i].hash)] = set->slots[i];
        }
    }
    larger.count = set->count;
    mem_free(set->alloc, set->slots);
    *set = larger;
    return STATUS_OK;
}

enum status key_set_add(struct key_set *set, uint64_t hash, uint32_t owner) {
    CHECK(owner != 0);
    if (2 * (set->count + 1) > set->capacity) {
        enum status status = grow(set);
        if (status != STATUS_OK) {
            return status;
        }
    }
    size_t at = find(set, hash);
    CHECK(set->slots[at].owner == 0);
    set->slots[at] = (struct key_set_slot){hash, owner};
    set->count++;
    return STATUS_OK;
}

void key_set_remove(struct key_set *set, uint64_t hash) {
    CHECK(set->capacity > 0);
    size_t mask = set->capacity - 1;
    size_t hole = find(set, hash);
    CHECK(set->slots[hole].owner != 0);
    for (size_t at = (hole + 1) & mask; set->slots[at].owner != 0; at = (at + 1) & mask) {
        size_t home = (size_t)set->slots[at].hash & mask;
        /* It may move back only if that doesn't put it in front of its home. */
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            set->slots[hole] = set->slots[at];
            hole = at;
        }
    }
    set->slots[hole].owner = 0;
    set->count--;
}
