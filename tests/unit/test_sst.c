/*
 * Reading tables on the simulated disk: lookups, cursors in both directions, range deletes, damage, no memory.
 *
 * Would break these: a search that goes to the wrong partition or block, versions of a key that straddle blocks and are
 * missed, a cursor that skips or repeats an entry where blocks, partitions or tables meet or where it turns round, a
 * block that is let go while its entry is in use, damage that hurts reads that don't need it, isn't reported, or is
 * believed at first sight, an allocation whose failure isn't survived.
 */
#include "tests/unit/sst_fixture.h"

#include "node/base/bytes.h"
#include "node/env/env_loop_internal.h"
#include "storage/sst_format.h"

static const struct fetch_options blocking = {.fill_cache = true};

struct variant {
    enum compression compression;
    uint32_t bloom_bits;
    uint64_t cache_bytes;
    struct fetch_options fetch;
};

static const struct variant variants[] = {
    {COMPRESSION_NONE, 10, 4 << 20, {.fill_cache = true}},
    {COMPRESSION_LZ4, 0, 0, {.fill_cache = true}},
    {COMPRESSION_ZSTD, 10, 64 << 10, {.fill_cache = true, .readahead_bytes_max = 8192}},
    {COMPRESSION_NONE, 10, 4 << 20, {.readahead_bytes_max = 3000}},
    {COMPRESSION_LZ4, 10, 0, {.readahead_at_once = true, .readahead_bytes_max = 64 << 10}},
    {COMPRESSION_NONE, 5, 4 << 20, {.readahead_at_once = true, .readahead_bytes_max = 1 << 20}},
};

static struct world *world_of(const struct variant *variant, size_t entries, size_t tables, uint64_t seed) {
    struct world *world = world_new(seed, variant->cache_bytes, 2);
    world->builder.compression = variant->compression;
    world->builder.bloom_bits = variant->bloom_bits;
    make_entries(&world->list, entries, seed);
    add_tables(world, tables);
    return world;
}

/* ---- Lookups ----------------------------------------------------------------------------------------------------- */

static void test_sst_get_finds_what_the_list_has(void **state) {
    (void)state;
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
        struct world *world = world_of(&variants[v], 2000, 1, 10 + v);
        const struct list_of_entries *list = &world->list;
        struct fetch fetch;
        struct sst_hold hold = {.block = NULL};
        struct random random;
        random_seed(&random, v);
        fetch_init(&fetch, &world->context, &variants[v].fetch);
        for (int i = 0; i < 4000; i++) {
            uint8_t key[KEY_BYTES + 1];
            struct entry entry;
            struct tombstone_mark mark;
            struct entry_key target = random_target(list, &random, key);
            target.ordinal = ENTRY_ORDINAL_MAX;
            size_t at = list_find(list, &target);
            bool there = at < list->count && slice_equal(list->entries[at].key.user, target.user);
            enum status status = sst_get(world->tables[0], &fetch, target.user, filter_hash(target.user),
                                         target.revision, &hold, &entry, &mark, NULL);
            assert_int_equal(status, there ? STATUS_OK : STATUS_NOT_FOUND);
            assert_int_equal(mark.revision, 0);
            if (there) {
                assert_entry(&entry, &list->entries[at]);
                assert_non_null(hold.block);
            } else {
                assert_null(hold.block);
            }
        }
        sst_hold_release(&hold);
        fetch_deinit(&fetch);
        world_free(world);
    }
}

static void test_sst_meta_answers_without_reading(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct entry entry = {.key = {slice_of_string("d"), 7, 0}, .kind = BATCH_PUT};
    struct tombstone tombstone = {slice_of_string("m"), slice_of_string("p"), 9, 0};
    struct sst *sst = add_table(world, &entry, 1, &tombstone, 1);
    assert_false(sst_may_hold(sst, slice_of_string("c"), 100));
    assert_true(sst_may_hold(sst, slice_of_string("d"), 7));
    assert_false(sst_may_hold(sst, slice_of_string("d"), 6));
    assert_true(sst_may_hold(sst, slice_of_string("o"), 100));
    assert_false(sst_may_hold(sst, slice_of_string("p"), 100)); /* the end isn't deleted */
    assert_true(sst_overlaps(sst, slice_of_string("a"), slice_of_string("e")));
    assert_false(sst_overlaps(sst, slice_of_string("a"), slice_of_string("d")));
    assert_false(sst_overlaps(sst, slice_of_string("p"), SLICE_EMPTY));
    assert_true(sst_overlaps(sst, slice_of_string("oz"), SLICE_EMPTY));
    world_free(world);
}

static void test_sst_range_deletes_come_back_as_they_were(void **state) {
    (void)state;
    struct world *world = world_new(1, 1 << 20, 4);
    struct entry entry = {.key = {slice_of_string("d"), 7, 0}, .kind = BATCH_PUT};
    struct tombstone list[] = {{slice_of_string("aa"), slice_of_string("ab"), 9, 2},
                               {slice_of_string("aa"), slice_of_string("ab"), 5, 0},
                               {slice_of_string("ab"), slice_of_string("f"), 5, 0},
                               {slice_of_string("x"), slice_of_string("z"), 3, 1}};
    struct sst *both = add_table(world, &entry, 1, list, 4);
    struct sst *only = add_table(world, NULL, 0, list, 4);
    struct sst *none = add_table(world, &entry, 1, NULL, 0);
    struct fetch fetch;
    const struct tombstones *set = NULL;
    struct sst_hold hold = {.block = NULL};
    struct tombstone_mark mark;
    struct entry got;
    fetch_init(&fetch, &world->context, &blocking);
    assert_int_equal(sst_tombstones(both, &fetch, &set, NULL), STATUS_OK);
    assert_int_equal(tombstones_count(set), 3);
    assert_int_equal(tombstones_marks(set), 4);
    for (size_t i = 0; i < 2; i++) {
        struct tombstone_fragment fragment = tombstones_fragment(set, i == 0 ? 0 : 2);
        const struct tombstone *want = &list[i == 0 ? 0 : 3];
        assert_true(slice_equal(fragment.start, want->start) && slice_equal(fragment.end, want->end));
        assert_int_equal(fragment.marks[0].revision, want->revision);
        assert_int_equal(fragment.marks[0].ordinal, want->ordinal);
    }
    assert_int_equal(sst_tombstones(none, &fetch, &set, NULL), STATUS_OK);
    assert_null(set);
    struct slice d = slice_of_string("d");
    assert_int_equal(sst_get(both, &fetch, d, filter_hash(d), 8, &hold, &got, &mark, NULL), STATUS_OK);
    assert_int_equal(mark.revision, 5);
    assert_int_equal(sst_get(only, &fetch, d, filter_hash(d), 4, &hold, &got, &mark, NULL), STATUS_NOT_FOUND);
    assert_int_equal(mark.revision, 0);
    assert_int_equal(sst_get(only, &fetch, d, filter_hash(d), 5, &hold, &got, &mark, NULL), STATUS_NOT_FOUND);
    assert_int_equal(mark.revision, 5);
    sst_hold_release(&hold);
    fetch_deinit(&fetch);
    world_free(world);
}

/* ---- Cursors ----------------------------------------------------------------------------------------------------- */

static void assert_at(const struct world *world, const struct cursor *cursor, enum status status, size_t at) {
    if (at >= world->list.count) {
        assert_int_equal(status, STATUS_NOT_FOUND);
    } else {
        assert_int_equal(status, STATUS_OK);
        assert_entry(&cursor->entry, &world->list.entries[at]);
    }
}

static void test_h34_sst_cursor_walks_as_the_list_in_both_directions(void **state) {
    (void)state;
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
        struct world *world = world_of(&variants[v], 1500, 4, 20 + v);
        struct fetch fetch;
        struct random random;
        random_seed(&random, v);
        fetch_init(&fetch, &world->context, &variants[v].fetch);
        struct cursor *cursor = sst_cursor_new(world->env->alloc, &fetch, world->tables, world->table_count);
        size_t nowhere = world->list.count;
        size_t at = nowhere; /* nowhere and its like: SIZE_MAX wraps to it */
        for (int i = 0; i < 15000; i++) {
            uint8_t key[KEY_BYTES + 1];
            uint64_t dice = random_below(&random, 100);
            if (at < nowhere && dice < 96) {
                uint64_t steps = random_below(&random, dice < 4 ? 300 : 3);
                bool back = random_chance(&random, 1, 2);
                for (; steps > 0 && at < nowhere; steps--, i++) {
                    enum status status = back ? cursor_prev(cursor, NULL) : cursor_next(cursor, NULL);
                    at = back ? (at == 0 ? nowhere : at - 1) : at + 1;
                    assert_at(world, cursor, status, at);
                }
                continue;
            }
            struct entry_key target = random_target(&world->list, &random, key);
            if (dice % 4 == 0) {
                at = list_find(&world->list, &target);
                assert_at(world, cursor, cursor_seek(cursor, &target, NULL), at);
            } else if (dice % 4 == 1) {
                at = list_find(&world->list, &target);
                at = at == 0 ? nowhere : at - 1;
                assert_at(world, cursor, cursor_seek_before(cursor, &target, NULL), at);
            } else {
                at = dice % 4 == 2 ? 0 : nowhere - 1;
                assert_at(world, cursor, at == 0 ? cursor_first(cursor, NULL) : cursor_last(cursor, NULL), at);
            }
        }
        cursor_free(cursor);
        fetch_deinit(&fetch);
        world_free(world);
    }
}

static void test_sst_cursor_passes_tables_without_entries(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct entry a = {.key = {slice_of_string("a"), 7, 0}, .kind = BATCH_PUT};
    struct entry z = {.key = {slice_of_string("z"), 8, 0}, .kind = BATCH_PUT};
    struct tombstone tombstone = {slice_of_string("c"), slice_of_string("d"), 9, 0};
    struct fetch fetch;
    (void)add_table(world, &a, 1, NULL, 0);
    (void)add_table(world, NULL, 0, &tombstone, 1);
    (void)add_table(world, &z, 1, NULL, 0);
    fetch_init(&fetch, &world->context, &blocking);
    struct cursor *cursor = sst_cursor_new(world->env->alloc, &fetch, world->tables, 3);
    assert_int_equal(cursor_first(cursor, NULL), STATUS_OK);
    assert_int_equal(cursor_next(cursor, NULL), STATUS_OK);
    assert_entry(&cursor->entry, &z);
    /* The target is the cursor's own key, in the block that is about to be let go. */
    assert_int_equal(cursor_seek_before(cursor, &cursor->entry.key, NULL), STATUS_OK);
    assert_entry(&cursor->entry, &a);
    assert_int_equal(cursor_prev(cursor, NULL), STATUS_NOT_FOUND);
    cursor_free(cursor);
    cursor = sst_cursor_new(world->env->alloc, &fetch, NULL, 0);
    assert_int_equal(cursor_first(cursor, NULL), STATUS_NOT_FOUND);
    assert_int_equal(cursor_last(cursor, NULL), STATUS_NOT_FOUND);
    assert_int_equal(cursor_seek_before(cursor, &z.key, NULL), STATUS_NOT_FOUND);
    cursor_free(cursor);
    fetch_deinit(&fetch);
    world_free(world);
}

/* A range delete may end where the next table begins. */
static void test_sst_cursor_finds_a_key_that_the_table_in_front_excludes(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct entry a = {.key = {slice_of_string("a"), 7, 0}, .kind = BATCH_PUT};
    struct entry m = {.key = {slice_of_string("m"), 8, 0}, .kind = BATCH_PUT};
    struct tombstone tombstone = {slice_of_string("c"), slice_of_string("m"), 9, 0};
    struct entry_key behind = {.user = m.key.user};
    struct fetch fetch;
    (void)add_table(world, &a, 1, &tombstone, 1);
    (void)add_table(world, &m, 1, NULL, 0);
    fetch_init(&fetch, &world->context, &blocking);
    struct cursor *cursor = sst_cursor_new(world->env->alloc, &fetch, world->tables, 2);
    assert_int_equal(cursor_seek_before(cursor, &behind, NULL), STATUS_OK);
    assert_entry(&cursor->entry, &m);
    assert_int_equal(cursor_seek(cursor, &m.key, NULL), STATUS_OK);
    assert_entry(&cursor->entry, &m);
    cursor_free(cursor);
    fetch_deinit(&fetch);
    world_free(world);
}

static void test_sst_readahead_reads_windows_and_leaves_the_cache_alone(void **state) {
    (void)state;
    const struct fetch_options options = {.readahead_at_once = true, .readahead_bytes_max = 1 << 20};
    struct world *world = world_of(&variants[0], 3000, 1, 5);
    struct fetch fetch;
    struct sim_stats before, after;
    struct cache_stats stats;
    sst_free(world->tables[0]);
    world->table_count = 0;
    (void)add_table(world, world->list.entries, world->list.count, NULL, 0);
    assert_int_equal(sst_load(world->tables[0], NULL), STATUS_OK);
    fetch_init(&fetch, &world->context, &options);
    struct cursor *cursor = sst_cursor_new(world->env->alloc, &fetch, world->tables, 1);
    sim_get_stats(world->sim, &before);
    size_t count = 0;
    for (enum status status = cursor_first(cursor, NULL); status == STATUS_OK; status = cursor_next(cursor, NULL)) {
        count++;
    }
    sim_get_stats(world->sim, &after);
    assert_int_equal(count, world->list.count);
    /* One window for all data, one block for the first partition: nothing is read twice but that partition. */
    assert_in_range(after.file_bytes_read - before.file_bytes_read, world->tables[0]->meta.size_bytes / 2,
                    world->tables[0]->meta.size_bytes * 5 / 4);
    cursor_free(cursor);
    cache_get_stats(world->context.cache, &stats);
    assert_int_equal(stats.blocks, 0);
    fetch_deinit(&fetch);
    world_free(world);
}

/* ---- Damage ------------------------------------------------------------------------------------------------------ */

static void test_h50_sst_damaged_block_hurts_only_who_needs_it(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct world *world = world_of(&variants[seed % 3], 600, 1, 40 + seed);
        struct sst *sst = world->tables[0];
        struct fetch fetch;
        struct error err;
        struct random random;
        struct sst_hold hold = {.block = NULL};
        int failed = 0, fine = 0;
        random_seed(&random, seed);
        assert_int_equal(sst_load(sst, NULL), STATUS_OK);
        damage(world, sst, SST_HEADER_BYTES + random_below(&random, sst->meta.size_bytes / 2));
        fetch_init(&fetch, &world->context, &blocking);
        for (size_t i = 0; i < world->list.count; i++) {
            const struct entry *want = &world->list.entries[i];
            struct entry entry;
            struct tombstone_mark mark;
            enum status status = sst_get(sst, &fetch, want->key.user, filter_hash(want->key.user), want->key.revision,
                                         &hold, &entry, &mark, &err);
            if (status == STATUS_OK) {
                assert_entry(&entry, want);
                fine++;
            } else {
                assert_int_equal(status, STATUS_CORRUPT);
                assert_non_null(strstr(err.message, ".sst"));
                assert_non_null(strstr(err.message, "at offset"));
                assert_string_equal(err.message, world->last_damage.message);
                failed++;
            }
        }
        assert_true(failed > 0 && fine > failed);
        assert_int_equal(world->damaged, failed);
        sst_hold_release(&hold);
        fetch_deinit(&fetch);
        world_free(world);
    }
}

static void test_sst_damaged_cursor_goes_on_elsewhere(void **state) {
    (void)state;
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
        struct world *world = world_of(&variants[v], 1000, 2, 60 + v);
        struct fetch fetch;
        struct error err;
        damage(world, world->tables[0], SST_HEADER_BYTES + 1300);
        fetch_init(&fetch, &world->context, &variants[v].fetch);
        struct cursor *cursor = sst_cursor_new(world->env->alloc, &fetch, world->tables, world->table_count);
        enum status status = cursor_first(cursor, &err);
        size_t at = 0;
        for (; status == STATUS_OK; status = cursor_next(cursor, &err)) {
            assert_entry(&cursor->entry, &world->list.entries[at++]);
        }
        assert_int_equal(status, STATUS_CORRUPT);
        assert_true(world->damaged == 1 && at < world->list.count);
        at = world->list.count;
        for (status = cursor_last(cursor, &err); status == STATUS_OK; status = cursor_prev(cursor, &err)) {
            assert_entry(&cursor->entry, &world->list.entries[--at]);
        }
        assert_int_equal(status, STATUS_CORRUPT);
        cursor_free(cursor);
        fetch_deinit(&fetch);
        world_free(world);
    }
}

/* Header, footer, properties, top index, range deletes: each byte of them in turn. */
static void test_sst_damaged_top_is_refused_and_read_anew(void **state) {
    (void)state;
    struct tombstone tombstone = {slice_of_string("c"), slice_of_string("d"), 9, 0};
    struct world *world = world_new(3, 1 << 20, 4);
    make_entries(&world->list, 50, 3);
    struct sst *sst = add_table(world, world->list.entries, world->list.count, &tombstone, 1);
    struct sst_meta meta = sst->meta;
    uint64_t size = meta.size_bytes;
    for (uint64_t back = 1; back <= 400 + SST_HEADER_BYTES && back < size; back += 3) {
        uint64_t offset = back <= SST_HEADER_BYTES ? back - 1 : size - (back - SST_HEADER_BYTES);
        struct sst *fresh;
        struct error err;
        uint8_t saved, flipped;
        size_t got;
        struct env_file *file;
        char path[LIMIT_PATH_BYTES];
        file_path_sst(path, "/", meta.number);
        assert_int_equal(env_open(world->env, path, ENV_OPEN_READ | ENV_OPEN_WRITE, &file, NULL), STATUS_OK);
        assert_int_equal(env_pread(file, &saved, 1, offset, &got, NULL), STATUS_OK);
        flipped = saved ^ 0x10;
        assert_int_equal(env_pwrite(file, &flipped, 1, offset, NULL), STATUS_OK);
        assert_int_equal(sst_new(&world->context, &meta, &fresh), STATUS_OK);
        enum status status = sst_load(fresh, &err);
        assert_true(status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED);
        assert_non_null(strstr(err.message, ".sst"));
        assert_int_equal(env_pwrite(file, &saved, 1, offset, NULL), STATUS_OK);
        assert_int_equal(sst_load(fresh, &err), STATUS_OK); /* nothing stays behind */
        sst_free(fresh);
        env_close(file);
    }
    struct sst_meta other = meta;
    other.entries++;
    struct sst *wrong;
    assert_int_equal(sst_new(&world->context, &other, &wrong), STATUS_OK);
    assert_int_equal(sst_load(wrong, NULL), STATUS_CORRUPT);
    sst_free(wrong);
    world_free(world);
}

/* An env whose reads of a page cache flip a bit, while the disk has it right. */
static struct env_ops flipping_ops;
static const struct env_ops *real_ops;
static int flips_left;

static enum status flipping_pread(struct env_file *file, void *data, size_t len, uint64_t offset, size_t *ret_len,
                                  struct error *err) {
    enum status status = real_ops->pread(file, data, len, offset, ret_len, err);
    if (flips_left > 0 && status == STATUS_OK && len > 100) {
        flips_left--;
        for (size_t i = 0; i < len; i += 50) {
            ((uint8_t *)data)[i] ^= 4;
        }
    }
    return status;
}

static void test_sst_flipped_bit_on_the_way_is_read_again(void **state) {
    (void)state;
    struct world *world = world_of(&variants[0], 300, 1, 9);
    struct fetch fetch;
    struct sst_hold hold = {.block = NULL};
    struct entry entry;
    struct tombstone_mark mark;
    assert_int_equal(sst_load(world->tables[0], NULL), STATUS_OK);
    real_ops = world->env->ops;
    flipping_ops = *real_ops;
    flipping_ops.pread = flipping_pread;
    world->env->ops = &flipping_ops;
    fetch_init(&fetch, &world->context, &blocking);
    const struct entry *want = &world->list.entries[100];
    for (flips_left = 1; flips_left <= 3; flips_left++) {
        int flips = flips_left;
        cache_forget(world->context.cache, world->tables[0]->meta.id);
        enum status status = sst_get(world->tables[0], &fetch, want->key.user, filter_hash(want->key.user),
                                     want->key.revision, &hold, &entry, &mark, NULL);
        assert_int_equal(status, flips == 1 ? STATUS_OK : STATUS_CORRUPT);
        assert_int_equal(world->damaged, flips == 1 ? 0 : (uint64_t)flips - 1);
        flips_left = flips;
    }
    world->env->ops = real_ops;
    sst_hold_release(&hold);
    fetch_deinit(&fetch);
    world_free(world);
}

/* ---- No memory --------------------------------------------------------------------------------------------------- */

static void test_sst_each_allocation_failed_in_turn_leaves_no_trace(void **state) {
    (void)state;
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
        struct tombstone tombstone = {slice_of_string("c"), slice_of_string("d"), 9000, 0};
        struct world *world = world_new(v, variants[v].cache_bytes, 4);
        world->builder.compression = variants[v].compression;
        make_entries(&world->list, 300, v);
        (void)add_table(world, world->list.entries, world->list.count, &tombstone, 1);
        struct sst_meta meta = world->tables[0]->meta;
        bool survived = false;
        for (uint64_t n = 1; !survived; n++) {
            struct fetch fetch;
            struct sst *sst = NULL;
            struct cursor *cursor = NULL;
            enum status status = STATUS_NO_MEMORY;
            size_t at = 0;
            struct sim_memory_stats before, after;
            sim_node_get_memory(world->node, &before);
            fetch_init(&fetch, &world->context, &variants[v].fetch);
            cache_forget(world->context.cache, meta.id);
            sim_node_fail_allocation(world->node, n);
            if (sst_new(&world->context, &meta, &sst) == STATUS_OK) {
                cursor = sst_cursor_new(world->env->alloc, &fetch, &sst, 1);
            }
            if (cursor != NULL) {
                status = cursor_first(cursor, NULL);
                for (; status == STATUS_OK; status = cursor_next(cursor, NULL)) {
                    assert_entry(&cursor->entry, &world->list.entries[at++]);
                }
            }
            sim_node_fail_allocation(world->node, 0);
            assert_true(status == STATUS_NO_MEMORY || (status == STATUS_NOT_FOUND && at == world->list.count));
            sim_node_get_memory(world->node, &after);
            survived = n > after.allocations - before.allocations + 1; /* the failed one isn't counted */
            assert_true(!survived || status == STATUS_NOT_FOUND);
            cursor_free(cursor);
            fetch_deinit(&fetch);
            sst_free(sst);
        }
        world_free(world);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sst_get_finds_what_the_list_has),
        cmocka_unit_test(test_sst_meta_answers_without_reading),
        cmocka_unit_test(test_sst_range_deletes_come_back_as_they_were),
        cmocka_unit_test(test_h34_sst_cursor_walks_as_the_list_in_both_directions),
        cmocka_unit_test(test_sst_cursor_passes_tables_without_entries),
        cmocka_unit_test(test_sst_cursor_finds_a_key_that_the_table_in_front_excludes),
        cmocka_unit_test(test_sst_readahead_reads_windows_and_leaves_the_cache_alone),
        cmocka_unit_test(test_h50_sst_damaged_block_hurts_only_who_needs_it),
        cmocka_unit_test(test_sst_damaged_cursor_goes_on_elsewhere),
        cmocka_unit_test(test_sst_damaged_top_is_refused_and_read_anew),
        cmocka_unit_test(test_sst_flipped_bit_on_the_way_is_read_again),
        cmocka_unit_test(test_sst_each_allocation_failed_in_turn_leaves_no_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
