/* What a compaction keeps, and where it cuts. */
#include "storage/compaction_filter.h"

#include "node/base/check.h"

void compaction_filter_init(struct compaction_filter *filter, const struct version *version,
                            const struct compaction_plan *plan, uint64_t horizon, const struct tombstones *covering) {
    memset(filter, 0, offsetof(struct compaction_filter, key));
    filter->horizon = horizon;
    filter->version = version;
    filter->deeper = plan->output_level == 0 ? 0 : plan->output_level + 1;
    filter->covering = covering;
}

/* Keys only grow, so the places only move on. */
static bool is_deeper(struct compaction_filter *filter, struct slice key) {
    if (filter->deeper == 0) {
        return true;
    }
    for (unsigned level = filter->deeper; level < MANIFEST_LEVELS; level++) {
        size_t *at = &filter->places[level];
        struct sst *const *tables = filter->version->tables[level];
        while (*at < filter->version->counts[level] && version_ends_before(tables[*at], key)) {
            (*at)++;
        }
        if (*at < filter->version->counts[level] && slice_compare(tables[*at]->meta.smallest, key) <= 0) {
            return true;
        }
    }
    return false;
}

static struct tombstone_mark find_mark(struct compaction_filter *filter, struct slice key) {
    size_t count = tombstones_count(filter->covering);
    while (filter->fragment_at < count) {
        struct tombstone_fragment fragment = tombstones_fragment(filter->covering, filter->fragment_at);
        if (slice_compare(key, fragment.end) < 0) {
            bool inside = slice_compare(fragment.start, key) <= 0;
            return inside ? tombstone_fragment_mark(&fragment, filter->horizon) : TOMBSTONE_MARK_NONE;
        }
        filter->fragment_at++;
    }
    return TOMBSTONE_MARK_NONE;
}

bool compaction_filter_keeps(struct compaction_filter *filter, const struct entry *entry, bool *ret_new_key) {
    bool new_key = !slice_equal(entry->key.user, slice_of(filter->key, filter->key_len));
    bool same_revision = !new_key && entry->key.revision == filter->revision;
    if (new_key) {
        memcpy(filter->key, entry->key.user.data, entry->key.user.len);
        filter->key_len = entry->key.user.len;
        filter->settled = false;
        filter->mark = find_mark(filter, entry->key.user);
    }
    filter->revision = entry->key.revision;
    *ret_new_key = new_key;
    if (filter->settled || same_revision) {
        return false;
    }
    if (entry->key.revision > filter->horizon) {
        return true;
    }
    filter->settled = true;
    if (tombstone_mark_covers(filter->mark, entry->key.revision, entry->key.ordinal)) {
        return false;
    }
    return entry->kind != BATCH_DELETE || is_deeper(filter, entry->key.user);
}

void compaction_cut_init(struct compaction_cut *cut, const struct version *version, const struct compaction_plan *plan,
                         const struct storage_options *options) {
    *cut = (struct compaction_cut){.sst_bytes = options->sst_bytes,
                                   .overlap_max = compaction_overlap_max(options),
                                   .never = plan->output_level == 0};
    unsigned below = plan->output_level + 1;
    if (below < MANIFEST_LEVELS && !cut->never) {
        size_t first;
        version_overlap(version, below, plan->smallest, plan->largest, plan->largest_excluded, &first,
                        &cut->below_count);
        cut->below = version->tables[below] + first;
    }
}

bool compaction_cut_before(struct compaction_cut *cut, struct slice key, uint64_t size_bytes) {
    bool passed = false;
    while (cut->below_at < cut->below_count && version_ends_before(cut->below[cut->below_at], key)) {
        cut->overlap_bytes += cut->below[cut->below_at]->meta.size_bytes;
        cut->below_at++;
        passed = true;
    }
    if (size_bytes == 0) {
        cut->overlap_bytes = 0; /* the next output begins here */
        return false;
    }
    bool ends = size_bytes >= cut->sst_bytes || cut->overlap_bytes > cut->overlap_max ||
                (passed && size_bytes >= cut->sst_bytes / 2);
    if (cut->never || !ends) {
        return false;
    }
    cut->overlap_bytes = 0;
    return true;
}

bool compaction_cut_gap(struct compaction_cut *cut, struct slice key, struct slice *ret_at) {
    while (!cut->never && cut->below_at < cut->below_count &&
           (key.len == 0 || version_ends_before(cut->below[cut->below_at], key))) {
        const struct sst_meta *meta = &cut->below[cut->below_at]->meta;
        if (cut->overlap_bytes > cut->overlap_max) {
            cut->overlap_bytes = 0;
            *ret_at = meta->smallest;
            return true;
        }
        cut->overlap_bytes += meta->size_bytes;
        cut->below_at++;
    }
    return false;
}
