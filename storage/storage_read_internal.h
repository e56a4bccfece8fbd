/* What lookups and iterators share. Any thread. */
#ifndef HOLDFAST_STORAGE_STORAGE_READ_INTERNAL_H
#define HOLDFAST_STORAGE_STORAGE_READ_INTERNAL_H

#include "storage/storage_internal.h"

/* STATUS_COMPACTED if the view can't show this revision any more. */
MUST_USE enum status storage__check_horizon(const struct storage_view *view, uint64_t revision, struct error *err);
/* A blocking fetch for reads on this view. */
void storage__fetch_init(struct fetch *fetch, const struct storage_view *view);
/* As storage_get, at a revision that was checked; leaves the fetch as it is. */
MUST_USE enum status storage__get(struct storage_view *view, struct fetch *fetch, struct slice key, uint64_t revision,
                                  struct storage_value *ret_value, struct error *err);
/* The value that a BATCH_PUT_APART entry leads to, as value_fetch; entry->value may be what hold holds now. */
MUST_USE enum status storage__follow(const struct version *version, struct fetch *fetch, const struct entry *entry,
                                     struct sst_hold *hold, struct slice *ret_value, struct error *err);

#endif
