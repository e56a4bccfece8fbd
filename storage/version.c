/* Sets of tables: making new ones from old, and looking keys up. */
#include "storage/version.h"

#include "node/base/check.h"

static void push(struct version *version, unsigned level, struct sst *sst) {
    version->tables[level][version->counts[level]++] = sst;
    sst->refs++;
}

/* Level 0: what is added is newer than all that is there. */
static void fill_newest_first(struct version *version, const struct version *base,
                              const struct version_change *change) {
    for (size_t i = 0; i < change->added_count[0]; i++) {
        push(version, 0, change->added[0][i]);
    }
    for (size_t i = 0; base != NULL && i < base->counts[0]; i++) {
        if (!change->remove_merging || !base->tables[0][i]->merging) {
            push(version, 0, base->tables[0][i]);
        }
    }
}

/* Level 1: two sorted runs become one. */
static void fill_sorted(struct version *version, const struct version *base, const struct version_change *change) {
    size_t old_count = base == NULL ? 0 : base->counts[1];
    size_t added = 0;
    for (size_t i = 0; i < old_count; i++) {
        struct sst *old = base->tables[1][i];
        if (change->remove_merging && old->merging) {
            continue;
        }
        while (added < change->added_count[1] &&
               slice_compare(change->added[1][added]->meta.smallest, old->meta.smallest) < 0) {
            push(version, 1, change->added[1][added++]);
        }
        push(version, 1, old);
    }
    while (added < change->added_count[1]) {
        push(version, 1, change->added[1][added++]);
    }
}

struct version *version_new(struct alloc *alloc, const struct version *base, const struct version_change *change) {
    size_t counts[MANIFEST_LEVELS];
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        counts[level] = change->added_count[level] + (base == NULL ? 0 : base->counts[level]);
    }
    size_t bytes = sizeof(struct version) + (counts[0] + counts[1]) * sizeof(struct sst *);
    struct version *version = mem_alloc_zero(alloc, bytes);
    if (version == NULL) {
        return NULL;
    }
    version->alloc = alloc;
    version->refs = 1;
    version->horizon = base == NULL ? 0 : base->horizon;
    if (change->horizon > version->horizon) {
        version->horizon = change->horizon;
    }
    version->tables[0] = (struct sst **)(version + 1);
    version->tables[1] = version->tables[0] + counts[0];
    fill_newest_first(version, base, change);
    fill_sorted(version, base, change);
    return version;
}

void version_unref(struct version *version, struct sst **dead) {
    if (version == NULL) {
        return;
    }
    CHECK(version->refs > 0);
    if (--version->refs > 0) {
        return;
    }
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level]; i++) {
            struct sst *sst = version->tables[level][i];
            CHECK(sst->refs > 0);
            if (--sst->refs == 0) {
                sst->next_dead = *dead;
                *dead = sst;
            }
        }
    }
    mem_free(version->alloc, version);
}

bool version_is_sound(const struct version *version) {
    for (size_t i = 1; i < version->counts[0]; i++) {
        if (version->tables[0][i]->meta.revision_last >= version->tables[0][i - 1]->meta.revision_first) {
            return false;
        }
    }
    for (size_t i = 1; i < version->counts[1]; i++) {
        if (slice_compare(version->tables[1][i - 1]->meta.largest, version->tables[1][i]->meta.smallest) >= 0) {
            return false;
        }
    }
    return true;
}

/* The first level 1 table that doesn't end in front of the key. */
static size_t first_reaching(const struct version *version, struct slice key) {
    size_t low = 0;
    size_t high = version->counts[1];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (slice_compare(version->tables[1][middle]->meta.largest, key) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct sst *version_find(const struct version *version, struct slice key) {
    size_t at = first_reaching(version, key);
    if (at == version->counts[1] || slice_compare(version->tables[1][at]->meta.smallest, key) > 0) {
        return NULL;
    }
    return version->tables[1][at];
}

void version_overlap(const struct version *version, struct slice lower, struct slice upper, size_t *ret_first,
                     size_t *ret_count) {
    size_t first = first_reaching(version, lower);
    size_t end = first;
    while (end < version->counts[1] && slice_compare(version->tables[1][end]->meta.smallest, upper) <= 0) {
        end++;
    }
    *ret_first = first;
    *ret_count = end - first;
}

void version_range(const struct version *version, struct slice lower, struct slice upper, size_t *ret_first,
                   size_t *ret_count) {
    size_t first = first_reaching(version, lower);
    size_t low = first;
    size_t high = version->counts[1];
    while (low < high && upper.len > 0) {
        size_t middle = low + (high - low) / 2;
        if (slice_compare(version->tables[1][middle]->meta.smallest, upper) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *ret_first = first;
    *ret_count = high - first;
}

bool version_may_hold(const struct version *version, struct slice key, uint64_t revision) {
    for (size_t i = 0; i < version->counts[0]; i++) {
        if (sst_may_hold(version->tables[0][i], key, revision)) {
            return true;
        }
    }
    struct sst *sst = version_find(version, key);
    return sst != NULL && sst_may_hold(sst, key, revision);
}

bool version_overlaps(const struct version *version, struct slice lower, struct slice upper) {
    for (size_t i = 0; i < version->counts[0]; i++) {
        if (sst_overlaps(version->tables[0][i], lower, upper)) {
            return true;
        }
    }
    size_t first;
    size_t count;
    version_range(version, lower, upper, &first, &count);
    return count > 0;
}

enum status version_get(const struct version *version, struct slice key, uint64_t revision, struct buf *scratch,
                        struct entry *ret_entry, struct error *err) {
    for (size_t i = 0; i < version->counts[0]; i++) {
        if (sst_may_hold(version->tables[0][i], key, revision)) {
            enum status status = sst_get(version->tables[0][i], key, revision, scratch, ret_entry, err);
            if (status != STATUS_NOT_FOUND) {
                return status;
            }
        }
    }
    struct sst *sst = version_find(version, key);
    if (sst == NULL || !sst_may_hold(sst, key, revision)) {
        return STATUS_NOT_FOUND;
    }
    return sst_get(sst, key, revision, scratch, ret_entry, err);
}
