/*
 * Which versions a merge keeps. Pure, so that it can be tested alone.
 *
 * Of each key: everything above the horizon, and the newest at or below it; that one not if it is a delete, as nothing
 * older can be left of the key: level 1 is the last one, and a merge takes all of level 0 and all that it overlaps. Of
 * several operations of one entry on one key only the last is visible to any read.
 */
#ifndef HOLDFAST_STORAGE_MERGE_H
#define HOLDFAST_STORAGE_MERGE_H

#include "storage/entry.h"

#include <stdbool.h>

struct merge_filter {
    uint64_t horizon;
    bool settled;      /* the newest version at or below the horizon has passed: what follows of this key is hidden */
    uint64_t revision; /* of the last entry */
    size_t key_len;    /* of the last entry; 0: none yet */
    uint8_t key[LIMIT_KEY_BYTES];
};

void merge_filter_init(struct merge_filter *filter, uint64_t horizon);
/* Entries must come in order. ret_new_key: the entry begins another user key. */
bool merge_filter_keeps(struct merge_filter *filter, const struct entry *entry, bool *ret_new_key);

#endif
