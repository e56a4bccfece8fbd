/*
 * About how many bytes tables have for a range of keys, from what the manifest says of them.
 *
 * Tables within the range count whole. Of one that a bound cuts, the share is interpolated: behind the prefix that its
 * smallest and largest key have in common, eight bytes are read as a number, and the bound's place between the two is
 * taken for the place in the file.
 */
#include "storage/storage_internal.h"
#include "storage/value_file.h"

enum { SHARE_ONE = 1 << 16 };

/* Eight bytes of a key from there on, as a number. */
static uint64_t number_at(struct slice key, size_t from) {
    uint64_t number = 0;
    for (size_t i = from; i < from + sizeof number; i++) {
        number = number << 8 | (i < key.len ? key.data[i] : 0u);
    }
    return number;
}

/* Which share of the table lies in front of the key: 0 to SHARE_ONE. */
static uint64_t share_before(const struct sst_meta *meta, struct slice key) {
    if (slice_compare(key, meta->smallest) <= 0) {
        return 0;
    }
    if (slice_compare(key, meta->largest) > 0) {
        return SHARE_ONE;
    }
    size_t common = 0;
    while (common < meta->smallest.len && common < meta->largest.len &&
           meta->smallest.data[common] == meta->largest.data[common]) {
        common++;
    }
    uint64_t first = number_at(meta->smallest, common);
    uint64_t last = number_at(meta->largest, common);
    uint64_t at = number_at(key, common);
    return first >= last ? SHARE_ONE / 2
                         : (uint64_t)((double)(at - first) / (double)(last - first) * (double)SHARE_ONE);
}

static uint64_t bytes_within(const struct sst *table, struct slice lower, struct slice upper) {
    uint64_t from = share_before(&table->meta, lower);
    uint64_t to = upper.len == 0 ? SHARE_ONE : share_before(&table->meta, upper);
    uint64_t bytes = table->meta.size_bytes;
    for (size_t i = 0; i < table->meta.value_ref_count; i++) {
        bytes += table->meta.value_refs[i].bytes;
    }
    return to <= from ? 0 : bytes / SHARE_ONE * (to - from) + bytes % SHARE_ONE * (to - from) / SHARE_ONE;
}

uint64_t storage_approximate_bytes(const struct storage_view *view, struct slice lower, struct slice upper) {
    const struct version *version = view->read_set->version;
    uint64_t bytes = 0;
    for (size_t i = 0; i < version->counts[0]; i++) {
        bytes += bytes_within(version->tables[0][i], lower, upper);
    }
    for (unsigned level = 1; level < MANIFEST_LEVELS; level++) {
        size_t first;
        size_t count;
        version_range(version, level, lower, upper, &first, &count);
        for (size_t i = first; i < first + count; i++) {
            bytes += bytes_within(version->tables[level][i], lower, upper);
        }
    }
    return bytes;
}
