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
static void segment_large(struct engine_options *options) { options->log_segment_bytes = 16 * MIB; }

static void all_tiny(struct engine_options *options) {
    memtable_tiny(options);
    block_tiny(options);
    sst_tiny(options);
    group_tiny(options);
    immutable_one(options);
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
    {"all tiny", false, all_tiny},
    {"real", true, usual},
    {"real, as shipped", true, as_shipped},
    {"real, all tiny", true, all_tiny},
    {"real, many workers", true, many_workers},
    {"real, no flush on close", true, no_flush_on_close},
};

const unsigned variant_count = sizeof variants / sizeof variants[0];
