/* The options of a store: defaults, and the range of each. */
#include "storage/filter.h"
#include "storage/storage_internal.h"

#include <stddef.h>

/* As limits.h has them, but wide: products of these don't overflow. */
#define WIDE_KIB ((uint64_t)1024)
#define WIDE_MIB (1024 * WIDE_KIB)
#define GIB      (1024 * WIDE_MIB)
#define TIB      (1024 * GIB)

void storage_options_init(struct storage_options *options) {
    *options = (struct storage_options){
        .memtable_bytes = 64 * WIDE_MIB,
        .immutable_memtables_max = 2,
        .cache_bytes = 64 * WIDE_MIB,
        .open_files_max = 512,
        .block_bytes = 4096,
        .partition_bytes = 128 * 1024,
        .sst_bytes = 64 * WIDE_MIB,
        .zstd_level = 3,
        .value_threshold_bytes = 32 * WIDE_KIB,
        .value_file_bytes = 256 * WIDE_MIB,
        .value_live_percent_min = 50,
        .value_adopt_bytes = WIDE_MIB,
        .change_compression = COMPRESSION_LZ4,
        .level_base_bytes = 256 * WIDE_MIB,
        .level_ratio = 10,
        .l0_files_compact = 6,
        .l0_files_quiet = 2,
        .l0_files_slow = 12,
        .l0_files_stop = 24,
        .tombstone_percent = 50,
        .history_percent = 50,
        .manifest_bytes_max = 4 * WIDE_MIB,
        .compaction_workers = 2,
    };
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        options->bloom_bits[level] = 10;
        options->compression[level] = COMPRESSION_LZ4;
    }
}

struct range {
    const char *name;
    uint64_t value;
    uint64_t min;
    uint64_t max;
};

static enum status check_levels(const struct storage_options *options, struct error *err) {
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        if (options->bloom_bits[level] > FILTER_BITS_PER_KEY_MAX) {
            return error_set(err, STATUS_INVALID, "storage option bloom_bits of level %u is %u, not 0 to %d", level,
                             options->bloom_bits[level], FILTER_BITS_PER_KEY_MAX);
        }
        if ((unsigned)options->compression[level] >= COMPRESSION_COUNT) {
            return error_set(err, STATUS_INVALID, "storage option compression of level %u is unknown", level);
        }
    }
    if ((unsigned)options->change_compression >= COMPRESSION_COUNT) {
        return error_set(err, STATUS_INVALID, "storage option change_compression is unknown");
    }
    return STATUS_OK;
}

enum status storage__check_options(const struct storage_options *options, struct error *err) {
    const struct range ranges[] = {
        {"memtable_bytes", options->memtable_bytes, WIDE_KIB, 4 * GIB},
        {"immutable_memtables_max", options->immutable_memtables_max, 1, 64},
        {"cache_bytes", options->cache_bytes, 0, TIB},
        {"open_files_max", options->open_files_max, 1, WIDE_MIB},
        {"block_bytes", options->block_bytes, 64, WIDE_MIB},
        {"partition_bytes", options->partition_bytes, WIDE_KIB, 16 * WIDE_MIB},
        {"sst_bytes", options->sst_bytes, WIDE_KIB, 4 * GIB},
        {"zstd_level", (uint64_t)options->zstd_level, COMPRESSION_ZSTD_LEVEL_MIN, COMPRESSION_ZSTD_LEVEL_MAX},
        {"value_threshold_bytes", options->value_threshold_bytes,
         options->value_threshold_bytes == 0 ? 0 : VALUE_THRESHOLD_BYTES_MIN, LIMIT_VALUE_BYTES},
        {"value_file_bytes", options->value_file_bytes, 4 * WIDE_KIB, 64 * GIB},
        {"value_live_percent_min", options->value_live_percent_min, 0, 90},
        {"value_adopt_bytes", options->value_adopt_bytes, 0, 4 * GIB},
        {"level_base_bytes", options->level_base_bytes, WIDE_KIB, TIB},
        {"level_ratio", options->level_ratio, 2, 100},
        {"l0_files_compact", options->l0_files_compact, 1, 1000},
        {"l0_files_quiet", options->l0_files_quiet, 1, 1000},
        {"l0_files_slow", options->l0_files_slow, (uint64_t)options->l0_files_compact + 1, 1001},
        {"l0_files_stop", options->l0_files_stop, (uint64_t)options->l0_files_slow + 1, 2000},
        {"tombstone_percent", options->tombstone_percent, 1, 101},
        {"history_percent", options->history_percent, 1, 101},
        {"manifest_bytes_max", options->manifest_bytes_max, 4 * WIDE_KIB, GIB},
        {"compaction_workers", options->compaction_workers, 1, STORAGE_COMPACTION_WORKERS_MAX},
        {"compaction_bytes_per_second_max", options->compaction_bytes_per_second_max, 0, TIB},
        {"scrub_bytes_per_second", options->scrub_bytes_per_second, 0, GIB},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        const struct range *range = &ranges[i];
        if (range->value < range->min || range->value > range->max) {
            return error_set(err, STATUS_INVALID, "storage option %s is %llu, not %llu to %llu", range->name,
                             (unsigned long long)range->value, (unsigned long long)range->min,
                             (unsigned long long)range->max);
        }
    }
    if (options->history_none && options->history_revisions > 0) {
        return error_set(err, STATUS_INVALID, "storage option history_none contradicts history_revisions");
    }
    if (strlen(options->dir) + FILE_NAME_BYTES_MAX + 1 > LIMIT_PATH_BYTES) {
        return error_set(err, STATUS_INVALID, "the storage directory's name is too long");
    }
    return check_levels(options, err);
}
