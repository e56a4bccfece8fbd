/* See variants.h. One option at a time, then several. */
#include "tests/torture/variants.h"

#include "node/base/limits.h"

static void usual(struct engine_options *options) { (void)options; }
static void as_shipped(struct engine_options *options) {
    struct engine_options defaults;
    engine_options_init(&defaults);
    options->memtable_bytes = defaults.memtable_bytes;
    options->block_bytes = defaults.block_bytes;
    options->sst_bytes = defaults.sst_bytes;
}

static void memtable_tiny(struct engine_options *options) { options->memtable_bytes = 2 * KIB; }
static void memtable_small(struct engine_options *options) { options->memtable_bytes = 9 * KIB; }
static void memtable_large(struct engine_options *options) { options->memtable_bytes = 8 * MIB; }
static void immutable_one(struct engine_options *options) { options->immutable_memtables_max = 1; }
static void immutable_many(struct engine_options *options) { options->immutable_memtables_max = 8; }
static void block_tiny(struct engine_options *options) { options->block_bytes = 64; }
static void block_odd(struct engine_options *options) { options->block_bytes = 777; }
static void block_large(struct engine_options *options) { options->block_bytes = 64 * KIB; }
static void sst_tiny(struct engine_options *options) { options->sst_bytes = 1 * KIB; }
static void sst_large(struct engine_options *options) { options->sst_bytes = 4 * MIB; }
static void one_worker(struct engine_options *options) { options->workers = 1; }
static void many_workers(struct engine_options *options) { options->workers = 6; }
static void always_sync(struct engine_options *options) { options->sync_every_write = true; }
static void no_flush_on_close(struct engine_options *options) { options->flush_on_close = false; }
static void group_tiny(struct engine_options *options) { options->log_group_bytes = 16 * KIB; }
static void group_large(struct engine_options *options) { options->log_group_bytes = 256 * KIB; }
/* Each write takes a block of the log: flushed for its sake at the end of a segment, which is used again. */
static void log_memtable_small(struct engine_options *options) {
    options->memtable_bytes = 8 * MIB;
    options->log_memtable_bytes = 64 * KIB;
    options->sync_every_write = true;
}
static void segment_large(struct engine_options *options) { options->log_segment_bytes = 16 * MIB; }

static void cache_none(struct engine_options *options) { options->cache_bytes = 0; }
static void cache_tiny(struct engine_options *options) { options->cache_bytes = 8 * KIB; }
static void cache_large(struct engine_options *options) { options->cache_bytes = 512 * MIB; }
static void one_open_file(struct engine_options *options) { options->open_files_max = 1; }
static void no_bloom(struct engine_options *options) { options->bloom_bits = 0; }
static void bloom_thin(struct engine_options *options) { options->bloom_bits = 1; }
static void bloom_thick(struct engine_options *options) { options->bloom_bits = 32; }
static void uncompressed(struct engine_options *options) { options->compression = ENGINE_COMPRESSION_NONE; }
static void zstd(struct engine_options *options) { options->compression = ENGINE_COMPRESSION_ZSTD; }
static void zstd_hard(struct engine_options *options) {
    options->compression = ENGINE_COMPRESSION_ZSTD;
    options->zstd_level = 12;
}
static void levels_low(struct engine_options *options) {
    options->level_base_bytes = 4 * KIB;
    options->sst_bytes = 2 * KIB;
}
static void levels_high(struct engine_options *options) { options->level_base_bytes = (uint64_t)1 << 32; }
static void history_some(struct engine_options *options) { options->history_revisions = 50; }
static void history_all(struct engine_options *options) { options->history_revisions = 1000 * 1000; }
static void history_time(struct engine_options *options) { options->history_ms = 20; }
static void slow_compaction(struct engine_options *options) { options->compaction_bytes_per_second_max = 256 * KIB; }

static void values_apart(struct engine_options *options) { options->value_threshold_bytes = 64; }
/* Most of them stay where the log has them. */
static void values_adopted(struct engine_options *options) {
    values_apart(options);
    group_tiny(options);
    options->memtable_bytes = 128 * KIB;
}

static void all_values_apart(struct engine_options *options) { options->value_threshold_bytes = 32; }
static void half_of_values_apart(struct engine_options *options) { options->value_threshold_bytes = 250; }
static void no_values_apart(struct engine_options *options) { options->value_threshold_bytes = 0; }
static void values_apart_and_back(struct engine_options *options) {
    half_of_values_apart(options);
    levels_low(options);
    history_some(options);
}

static void all_tiny(struct engine_options *options) {
    memtable_tiny(options);
    block_tiny(options);
    sst_tiny(options);
    group_tiny(options);
    immutable_one(options);
    levels_low(options);
    cache_none(options);
    one_open_file(options);
}

static void many_levels(struct engine_options *options) {
    levels_low(options);
    memtable_small(options);
    cache_tiny(options);
    zstd(options);
    history_some(options);
}

const struct variant variants[] = {
    {"usual", false, usual},
    {"as shipped", false, as_shipped},
    {"memtable tiny", false, memtable_tiny},
    {"memtable small", false, memtable_small},
    {"memtable large", false, memtable_large},
    {"one immutable", false, immutable_one},
    {"many immutables", false, immutable_many},
    {"block tiny", false, block_tiny},
    {"block odd", false, block_odd},
    {"block large", false, block_large},
    {"table tiny", false, sst_tiny},
    {"table large", false, sst_large},
    {"one worker", false, one_worker},
    {"many workers", false, many_workers},
    {"every write synced", false, always_sync},
    {"no flush on close", false, no_flush_on_close},
    {"group tiny", false, group_tiny},
    {"group large", false, group_large},
    {"segment large", false, segment_large},
    {"little log for a memtable", false, log_memtable_small},
    {"no cache", false, cache_none},
    {"cache tiny", false, cache_tiny},
    {"cache large", false, cache_large},
    {"one open file", false, one_open_file},
    {"no bloom filters", false, no_bloom},
    {"thin bloom filters", false, bloom_thin},
    {"thick bloom filters", false, bloom_thick},
    {"uncompressed", false, uncompressed},
    {"zstd", false, zstd},
    {"zstd, hard", false, zstd_hard},
    {"levels low", false, levels_low},
    {"levels high", false, levels_high},
    {"some history", false, history_some},
    {"all history", false, history_all},
    {"history by time", false, history_time},
    {"slow compaction", false, slow_compaction},
    {"values apart", false, values_apart},
    {"values adopted", false, values_adopted},
    {"all values apart", false, all_values_apart},
    {"half of the values apart", false, half_of_values_apart},
    {"no values apart", false, no_values_apart},
    {"values apart, levels low, history", false, values_apart_and_back},
    {"all tiny", false, all_tiny},
    {"many levels", false, many_levels},
    {"real", true, usual},
    {"real, as shipped", true, as_shipped},
    {"real, all tiny", true, all_tiny},
    {"real, little log for a memtable", true, log_memtable_small},
    {"real, many levels", true, many_levels},
    {"real, half of the values apart", true, half_of_values_apart},
    {"real, values adopted", true, values_adopted},
    {"real, many workers", true, many_workers},
    {"real, no flush on close", true, no_flush_on_close},
};

const unsigned variant_count = sizeof variants / sizeof variants[0];
