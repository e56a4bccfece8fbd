/*
 * What a compaction keeps, and where it ends one output and begins the next. Pure.
 *
 * Of each key it keeps every version above the horizon and the newest at or below it; that one not if it is a delete
 * and no deeper level can hold the key, as there is nothing left for it to hide. Versions that a range delete at or
 * below the horizon covers go, with all that is older. Of several operations of one entry on one key only the last is
 * visible to any read.
 *
 * Entries must come in order, once each.
 */
#ifndef HOLDFAST_STORAGE_COMPACTION_FILTER_H
#define HOLDFAST_STORAGE_COMPACTION_FILTER_H

#include "storage/compaction_pick.h"

struct compaction_filter {
    uint64_t horizon;
    const struct version *version;     /* of the inputs; borrowed */
    unsigned deeper;                   /* first level that may hold older versions; 0: any source may */
    size_t places[MANIFEST_LEVELS];    /* of the tables that don't end in front of the last delete */
    const struct tombstones *covering; /* of the inputs; borrowed, may be NULL */
    size_t fragment_at;                /* the first that doesn't end in front of the key */
    struct tombstone_mark mark;        /* the newest at or below the horizon that covers the key */
    bool settled;      /* the newest version at or below the horizon has passed: what follows of this key is hidden */
    uint64_t revision; /* of the last entry */
    size_t key_len;    /* of the last entry; 0: none yet */
    uint8_t key[LIMIT_KEY_BYTES];
};

void compaction_filter_init(struct compaction_filter *filter, const struct version *version,
                            const struct compaction_plan *plan, uint64_t horizon, const struct tombstones *covering);
/* ret_new_key: the entry begins another user key. */
bool compaction_filter_keeps(struct compaction_filter *filter, const struct entry *entry, bool *ret_new_key);

struct compaction_cut {
    uint64_t sst_bytes;
    uint64_t overlap_max;
    struct sst *const *below; /* tables of the level below the outputs */
    size_t below_count;
    size_t below_at;        /* the first that doesn't end in front of the last key */
    uint64_t overlap_bytes; /* of those that the output under way has passed */
    bool never;             /* one output only */
};

void compaction_cut_init(struct compaction_cut *cut, const struct version *version, const struct compaction_plan *plan,
                         const struct storage_options *options);
/* True if the output under way, of so many bytes, should end in front of this key, a new one: at its target size, when
 * it overlaps too much of the level below, or, from half its size on, where a table of that level ends. Asked for each
 * new key; size_bytes 0: there is no output under way, the answer is false. */
bool compaction_cut_before(struct compaction_cut *cut, struct slice key, uint64_t size_bytes);
/* The same for range deletes, which may lie over much of the level below without a key in between: true if the output
 * under way should end at *ret_at, behind the last key and in front of this one (empty: of the end). Asked until it
 * says no, before compaction_cut_before; borrowed from the version. */
bool compaction_cut_gap(struct compaction_cut *cut, struct slice key, struct slice *ret_at);

#endif
