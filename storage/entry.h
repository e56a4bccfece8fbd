/*
 * One version of one key, and the order that everything in the engine keeps: key ascending, revision descending,
 * ordinal descending. So a seek to (key, revision, ENTRY_ORDINAL_MAX) lands on the newest version at or below the
 * revision.
 *
 * Keys are arbitrary bytes in memcmp order; the order is a compare function over the three parts, never over their
 * encoding, so no key needs escaping.
 */
#ifndef HOLDFAST_STORAGE_ENTRY_H
#define HOLDFAST_STORAGE_ENTRY_H

#include "node/base/slice.h"
#include "storage/batch.h"

#define ENTRY_ORDINAL_MAX UINT32_MAX
/* No entry of the log has this index: a separator with it sorts before every version of its key. */
#define ENTRY_REVISION_NONE UINT64_MAX

struct entry_key {
    struct slice user;
    uint64_t revision;
    uint32_t ordinal;
};

enum { ENTRY_PLACE_BYTES = 24 /* the value of a BATCH_PUT_APART */ };

struct entry {
    struct entry_key key;
    struct slice value; /* empty for a delete */
    enum batch_kind kind;
};

/* Order of two versions of one key: the newer sorts first. */
static inline int entry_compare_age(uint64_t revision_a, uint32_t ordinal_a, uint64_t revision_b, uint32_t ordinal_b) {
    if (revision_a != revision_b) {
        return revision_a > revision_b ? -1 : 1;
    }
    return ordinal_a > ordinal_b ? -1 : ordinal_a < ordinal_b;
}

static inline int entry_key_compare(const struct entry_key *a, const struct entry_key *b) {
    int order = slice_compare(a->user, b->user);
    return order != 0 ? order : entry_compare_age(a->revision, a->ordinal, b->revision, b->ordinal);
}

/* Where to seek for the newest version of a key at or below a revision. */
static inline struct entry_key entry_key_at(struct slice user, uint64_t revision) {
    return (struct entry_key){.user = user, .revision = revision, .ordinal = ENTRY_ORDINAL_MAX};
}

#endif
