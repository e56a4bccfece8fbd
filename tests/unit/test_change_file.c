/*
 * Change files as bytes: blocks of changes, whole files taken apart by hand, walking over several, what the manifest
 * may say of them; and a memtable in the order of its batches, which is what they are made from.
 *
 * Would break these: a revision, ordinal or key that comes back as another, a length that is trusted, a byte that no
 * checksum covers, a walk that begins too late or passes a change by, files that overlap in a manifest, a record that
 * is stepped over where a large one has a chunk of its own, a change of the format.
 */
#include "storage/change_file.h"

#include "node/base/bytes.h"
#include "storage/manifest_edit.h"
#include "storage/memtable.h"
#include "tests/unit/golden.h"
#include "tests/unit/sst_fixture.h"

enum { FILES = 3, COUNT = 20000, CHANGE_KEY_BYTES = 40 };

static struct {
    struct change changes[COUNT];
    uint8_t keys[COUNT][CHANGE_KEY_BYTES];
    uint8_t ends[COUNT][CHANGE_KEY_BYTES];
} input;

/* Entries of one to several operations, revisions with and without gaps, keys that share nothing to nearly all. */
static void make_input(void) {
    struct random random;
    uint64_t revision = 100;
    uint32_t ordinal = 0;
    random_seed(&random, 11);
    for (unsigned i = 0; i < COUNT; i++) {
        size_t shared = random_below(&random, 30);
        size_t len = shared + 1 + random_below(&random, CHANGE_KEY_BYTES - shared - 1);
        for (size_t b = 0; b < len; b++) {
            input.keys[i][b] = b < shared && i > 0 ? input.keys[i - 1][b] : (uint8_t)random_below(&random, 256);
        }
        input.changes[i] = (struct change){.revision = revision,
                                           .ordinal = ordinal,
                                           .kind = (enum batch_kind)(1 + random_below(&random, 3)),
                                           .key = slice_of(input.keys[i], len)};
        if (input.changes[i].kind == BATCH_DELETE_RANGE) {
            memcpy(input.ends[i], input.keys[i], len);
            input.ends[i][len] = (uint8_t)random_below(&random, 256);
            input.changes[i].end = slice_of(input.ends[i], len + 1);
        }
        ordinal++;
        if (random_chance(&random, 2, 3)) {
            ordinal = 0;
            revision += random_chance(&random, 1, 10) ? 1 + random_below(&random, 1000) : 1;
        }
    }
}

static void assert_change(const struct change *got, const struct change *want) {
    assert_int_equal(got->revision, want->revision);
    assert_int_equal(got->ordinal, want->ordinal);
    assert_int_equal(got->kind, want->kind);
    assert_true(slice_equal(got->key, want->key));
    assert_true(slice_equal(got->end, want->end));
}

static void assert_same_meta(const struct change_meta *got, const struct change_meta *want) {
    assert_int_equal(got->number, want->number);
    assert_int_equal(got->id, want->id);
    assert_int_equal(got->size_bytes, want->size_bytes);
    assert_int_equal(got->checksum, want->checksum);
    assert_int_equal(got->changes, want->changes);
    assert_int_equal(got->revision_first, want->revision_first);
    assert_int_equal(got->revision_last, want->revision_last);
    assert_int_equal(got->index.offset, want->index.offset);
    assert_int_equal(got->index.size, want->index.size);
}

/* ---- Blocks ------------------------------------------------------------------------------------------------------ */

static void test_change_block_gives_back_what_was_added(void **state) {
    (void)state;
    struct change_block_builder builder;
    struct change_block block;
    change_block_builder_init(&builder, alloc_system());
    for (size_t from = 0; from < COUNT; from += 1000) {
        change_block_builder_reset(&builder);
        for (size_t i = from; i < from + 1000; i++) {
            assert_int_equal(change_block_builder_add(&builder, &input.changes[i]), STATUS_OK);
        }
        assert_int_equal(change_block_open(&block, buf_slice(&builder.body)), STATUS_OK);
        assert_int_equal(block.change.revision, input.changes[from].revision);
        assert_int_equal(block.change.ordinal, input.changes[from].ordinal);
        for (size_t i = from; i < from + 1000; i++) {
            assert_int_equal(change_block_next(&block), STATUS_OK);
            assert_change(&block.change, &input.changes[i]);
        }
        assert_int_equal(change_block_next(&block), STATUS_NOT_FOUND);
    }
    change_block_builder_deinit(&builder);
}

static enum status walk(struct slice body, unsigned *ret_count) {
    struct change_block block;
    enum status status = change_block_open(&block, body);
    for (*ret_count = 0; status == STATUS_OK && (status = change_block_next(&block)) == STATUS_OK;) {
        ++*ret_count;
    }
    return status;
}

/* A block cut anywhere, each in memory of its own, so that the address sanitizer sees a byte too many. */
static void test_h35_change_block_cut_anywhere_stays_inside(void **state) {
    (void)state;
    struct change_block_builder builder;
    change_block_builder_init(&builder, alloc_system());
    for (size_t i = 0; i < 40; i++) {
        assert_int_equal(change_block_builder_add(&builder, &input.changes[i]), STATUS_OK);
    }
    unsigned whole = 0;
    for (size_t len = 0; len < builder.body.len; len++) {
        unsigned count;
        uint8_t *copy = malloc(len + 1);
        assert_non_null(copy);
        memcpy(copy, builder.body.data, len);
        enum status status = walk(slice_of(copy, len), &count);
        assert_true(count < 40 && (status == STATUS_CORRUPT || status == STATUS_NOT_FOUND));
        whole += status == STATUS_NOT_FOUND;
        free(copy);
    }
    assert_true(whole > 0 && whole < 40);
    change_block_builder_deinit(&builder);
}

static void test_h35_change_block_impossible_bytes_are_corrupt(void **state) {
    (void)state;
    static const struct {
        uint8_t bytes[16];
        size_t len;
    } bad[] = {
        {{0, 0, 1, 1, 'k'}, 5},                          /* revision 0 */
        {{5, 0, 0, 1, 'k'}, 5},                          /* no such kind */
        {{5, 0, 1 | 1 << 2, 1, 'k'}, 5},                 /* the first moves on */
        {{5, 0, 1 | 3 << 2, 1, 'k'}, 5},                 /* no such step */
        {{5, 0, 1 | 1 << 4, 1, 'k'}, 5},                 /* shares with nothing */
        {{5, 0, 1, 0}, 4},                               /* no key */
        {{5, 0, 1, 2, 'k'}, 5},                          /* ends early */
        {{5, 0, 1, 1, 'k', 1 | 2 << 2, 1, 1, 'k'}, 9},   /* a far step of one */
        {{5, 0, 3, 1, 'k', 1, 0}, 7},                    /* a range that is empty */
        {{5, 0, 3, 1, 'k', 2, 1, 'x'}, 8},               /* an end that shares more than there is */
        {{5, 0, 1, 1, 'k', 1 | 15 << 4, 0xff, 0x7f}, 8}, /* shares far too much */
        {{5, 0x80, 0x80, 4, 1, 1, 'k'}, 7},              /* an ordinal beyond a batch */
        {{5, 0}, 2},                                     /* nothing in it */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        unsigned count;
        assert_int_equal(walk(slice_of(bad[i].bytes, bad[i].len), &count), STATUS_CORRUPT);
    }
}

/* ---- Files ------------------------------------------------------------------------------------------------------- */

static void make_path(struct world *world, uint64_t number, char path[LIMIT_PATH_BYTES]) {
    file_path_changes(path, world->context.dir, number);
}

static struct change_meta build(struct world *world, uint64_t number, size_t from, size_t count,
                                enum compression compression) {
    char path[LIMIT_PATH_BYTES];
    struct change_builder *builder;
    struct change_meta meta;
    make_path(world, number, path);
    struct change_builder_options options = {.env = world->env,
                                             .path = path,
                                             .number = number,
                                             .id = 0x1122334455667788 + number,
                                             .compression = compression,
                                             .zstd_level = 3};
    memcpy(options.cluster_id, cluster_id, sizeof cluster_id);
    assert_int_equal(change_builder_new(&options, &builder, NULL), STATUS_OK);
    for (size_t i = from; i < from + count; i++) {
        assert_int_equal(change_builder_add(builder, &input.changes[i], NULL), STATUS_OK);
    }
    assert_int_equal(change_builder_finish(builder, &meta, NULL), STATUS_OK);
    change_builder_free(builder);
    assert_int_equal(meta.changes, count);
    assert_int_equal(meta.revision_first, input.changes[from].revision);
    assert_int_equal(meta.revision_last, input.changes[from + count - 1].revision);
    assert_true(change_meta_is_possible(&meta));
    return meta;
}

/* The first change at or behind `at` that begins an entry. */
static size_t entry_from(size_t at) {
    while (at < COUNT && input.changes[at].ordinal != 0) {
        at++;
    }
    return at;
}

/* Every byte of it, by hand. */
static void check_file(struct slice file, size_t count, const struct change_meta *meta) {
    struct sst_header header;
    struct sst_footer footer;
    struct sst_properties properties;
    struct sst_stored stored;
    static struct change_block block;
    const uint8_t *footer_bytes = file.data + file.len - SST_FOOTER_BYTES;
    assert_int_equal(sst_header_decode(file.data, &header), STATUS_OK);
    assert_true(header.kind == SST_FILE_CHANGES && header.number == meta->number && header.id == meta->id);
    assert_int_equal(sst_footer_decode(footer_bytes, meta->id, file.len, &footer), STATUS_OK);
    assert_true(footer.top.offset == meta->index.offset && footer.top.size == meta->index.size);
    struct slice index = slice_of(file.data + footer.top.offset, footer.top.size);
    uint64_t checksum = sst_file_checksum_add(0, sst_header_checksum(file.data));
    uint64_t at = SST_HEADER_BYTES;
    size_t seen = 0;
    for (size_t i = 0; i < change_index_count(index); i++) {
        struct change_index_entry entry;
        assert_int_equal(change_index_decode(index, i, footer.top.offset, &entry), STATUS_OK);
        assert_int_equal(entry.handle.offset, at);
        size_t len = entry.handle.size + (size_t)SST_TRAILER_BYTES;
        assert_int_equal(sst_block_check(slice_of(file.data + at, len), SST_BLOCK_CHANGES, meta->id, at, &stored),
                         STATUS_OK);
        uint8_t *body = malloc(stored.size);
        assert_int_equal(sst_block_unpack(alloc_system(), &stored, body), STATUS_OK);
        assert_int_equal(change_block_open(&block, slice_of(body, stored.size)), STATUS_OK);
        assert_int_equal(entry.revision, input.changes[seen].revision);
        assert_int_equal(entry.ordinal, input.changes[seen].ordinal);
        while (change_block_next(&block) == STATUS_OK) {
            assert_change(&block.change, &input.changes[seen++]);
        }
        free(body);
        checksum = sst_file_checksum_add(checksum, stored.checksum);
        at += len;
    }
    assert_int_equal(seen, count);
    const struct sst_handle tail[] = {footer.top, footer.properties};
    static const enum sst_block_kind kinds[] = {SST_BLOCK_TOP, SST_BLOCK_PROPERTIES};
    for (size_t i = 0; i < 2; i++) {
        size_t len = tail[i].size + (size_t)SST_TRAILER_BYTES;
        assert_int_equal(tail[i].offset, at);
        assert_int_equal(sst_block_check(slice_of(file.data + at, len), kinds[i], meta->id, at, &stored), STATUS_OK);
        checksum = sst_file_checksum_add(checksum, stored.checksum);
        at += len;
    }
    assert_int_equal(sst_properties_decode(stored.body, &properties), STATUS_OK);
    assert_int_equal(properties.entries + properties.tombstones, count);
    checksum = sst_file_checksum_add(checksum, sst_footer_checksum(footer_bytes));
    assert_int_equal(checksum, meta->checksum);
    assert_int_equal(at + SST_FOOTER_BYTES, file.len);
    assert_int_equal(meta->size_bytes, file.len);
}

static void test_change_builder_writes_what_it_says(void **state) {
    (void)state;
    for (unsigned kind = 0; kind < COMPRESSION_COUNT; kind++) {
        struct world *world = world_new(1, 0, 4);
        struct change_meta meta = build(world, 9, 0, COUNT, (enum compression)kind);
        char path[LIMIT_PATH_BYTES];
        make_path(world, 9, path);
        struct slice file = read_file(world->env, path);
        assert_true(change_index_count(slice_of(file.data, meta.index.size)) >= 3 * FILES);
        check_file(file, COUNT, &meta);
        free((void *)(uintptr_t)file.data);
        world_free(world);
    }
}

static void test_change_builder_golden_file_is_unchanged(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct change_meta meta = build(world, 9, 0, 60, COMPRESSION_NONE);
    char path[LIMIT_PATH_BYTES];
    make_path(world, 9, path);
    struct slice file = read_file(world->env, path);
    check_file(file, 60, &meta);
    golden_assert("changes.chg", file);
    free((void *)(uintptr_t)file.data);
    world_free(world);
}

static void test_change_builder_failed_or_dropped_leaves_no_file(void **state) {
    (void)state;
    for (unsigned dropped = 0; dropped < 2; dropped++) {
        struct world *world = world_new(1, 0, 4);
        char path[LIMIT_PATH_BYTES];
        struct change_builder *builder;
        struct change_meta meta;
        struct env_file *file;
        make_path(world, 9, path);
        struct change_builder_options options = {.env = world->env, .path = path, .number = 9, .id = 1};
        assert_int_equal(change_builder_new(&options, &builder, NULL), STATUS_OK);
        assert_int_equal(change_builder_add(builder, &input.changes[0], NULL), STATUS_OK);
        if (!dropped) {
            struct fault_set *faults = sim_node_faults(world->node);
            assert_int_equal(fault_arm(faults, "flush.sync=error(EIO),count=1", NULL), STATUS_OK);
            assert_int_equal(change_builder_finish(builder, &meta, NULL), STATUS_IO);
        }
        change_builder_free(builder);
        assert_int_equal(env_open(world->env, path, ENV_OPEN_READ, &file, NULL), STATUS_NOT_FOUND);
        world_free(world);
    }
}

static void test_change_meta_that_no_file_can_have_is_told(void **state) {
    (void)state;
    struct change_meta good = {.number = 3,
                               .id = 4,
                               .size_bytes = 1000,
                               .changes = 5,
                               .revision_first = 6,
                               .revision_last = 7,
                               .index = {.offset = 500, .size = 24}};
    assert_true(change_meta_is_possible(&good));
    struct change_meta bad[9];
    for (size_t i = 0; i < 9; i++) {
        bad[i] = good;
    }
    bad[0].number = 0;
    bad[1].id = 0;
    bad[2].changes = 0;
    bad[3].revision_first = 8;
    bad[4].revision_first = 0;
    bad[5].revision_last = UINT64_MAX;
    bad[6].index.offset = SST_HEADER_BYTES;
    bad[7].index.offset = 1000;
    bad[8].index.size = UINT32_MAX;
    for (size_t i = 0; i < 9; i++) {
        assert_false(change_meta_is_possible(&bad[i]));
    }
}

/* ---- Walking ----------------------------------------------------------------------------------------------------- */

struct files {
    struct sst *files[FILES];
    size_t begin[FILES + 1];
};

static void make_files(struct world *world, struct files *files) {
    for (size_t i = 0; i <= FILES; i++) {
        files->begin[i] = i == FILES ? COUNT : entry_from(i * COUNT / FILES);
    }
    for (size_t i = 0; i < FILES; i++) {
        struct change_meta meta = build(world, 10 + i, files->begin[i], files->begin[i + 1] - files->begin[i],
                                        (enum compression)(i % COMPRESSION_COUNT));
        assert_int_equal(change_file_new(&world->context, &meta, &files->files[i]), STATUS_OK);
        struct change_meta again = change_file_meta(files->files[i]);
        assert_same_meta(&again, &meta);
    }
}

static void free_files(struct files *files) {
    for (size_t i = 0; i < FILES; i++) {
        sst_free(files->files[i]);
    }
}

static void test_change_walk_finds_every_change_from_any_revision(void **state) {
    (void)state;
    struct world *world = world_new(1, 1 << 20, 4);
    struct files files;
    static struct change_walk walk;
    struct fetch fetch;
    struct fetch_options options = {.fill_cache = true};
    make_files(world, &files);
    fetch_init(&fetch, &world->context, &options);
    for (size_t turn = 0; turn < COUNT / 97 + FILES; turn++) {
        size_t from = turn < FILES ? files.begin[turn + 1] - 1 : (turn - FILES) * 97; /* each file's last one, too */
        for (unsigned offset = 0; offset < 2; offset++) { /* its revision, and the one behind it */
            uint64_t revision = input.changes[from].revision + offset;
            size_t first = 0;
            while (first < COUNT && input.changes[first].revision < revision) {
                first++;
            }
            change_walk_init(&walk, &fetch, files.files, FILES, revision);
            for (size_t i = first; i < COUNT && i < first + 900; i++) {
                assert_int_equal(change_walk_next(&walk, NULL), STATUS_OK);
                assert_change(&walk.reader.change, &input.changes[i]);
            }
            if (first + 900 >= COUNT) {
                assert_int_equal(change_walk_next(&walk, NULL), STATUS_NOT_FOUND);
            }
            change_walk_deinit(&walk);
        }
    }
    assert_int_equal(world->damaged, 0);
    fetch_deinit(&fetch);
    for (size_t i = 0; i < FILES; i++) {
        struct sst_verify_report report;
        assert_int_equal(sst_verify(files.files[i], NULL, &report, NULL), STATUS_OK);
        assert_int_equal(report.entries, files.begin[i + 1] - files.begin[i]);
        assert_int_equal(report.bytes, files.files[i]->meta.size_bytes);
    }
    free_files(&files);
    world_free(world);
}

/* It begins in the middle of an entry: an operation is missing. */
static void test_change_file_that_cuts_an_entry_is_found(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct sst_verify_report report;
    struct sst *file;
    struct error err;
    size_t from = 0;
    while (input.changes[from].ordinal == 0) {
        from++;
    }
    struct change_meta meta = build(world, 9, from, 100, COMPRESSION_NONE);
    assert_int_equal(change_file_new(&world->context, &meta, &file), STATUS_OK);
    assert_int_equal(sst_verify(file, NULL, &report, &err), STATUS_CORRUPT);
    assert_true(report.findings > 0);
    sst_free(file);
    world_free(world);
}

/* Memory that is missing is no damage. */
static void test_change_verify_without_memory_finds_nothing(void **state) {
    (void)state;
    for (unsigned kind = 0; kind < COMPRESSION_COUNT; kind++) {
        struct world *world = world_new(1, 0, 4);
        struct change_meta meta = build(world, 9, 0, entry_from(3000), (enum compression)kind);
        struct sst_verify_report report;
        struct sst *file;
        enum status status = STATUS_NO_MEMORY;
        uint64_t n = 0;
        assert_int_equal(change_file_new(&world->context, &meta, &file), STATUS_OK);
        while (status == STATUS_NO_MEMORY) {
            sim_node_fail_allocation(world->node, ++n);
            status = sst_verify(file, NULL, &report, NULL);
            sim_node_fail_allocation(world->node, 0);
            assert_int_equal(report.findings, 0);
        }
        assert_int_equal(status, STATUS_OK);
        assert_true(n > 4); /* itself, blocks, index, body at least */
        assert_int_equal(world->damaged, 0);
        sst_free(file);
        world_free(world);
    }
}

/* What the manifest says is not what the file is: found by the walk or by verifying. */
static void test_change_file_other_than_its_meta_is_found(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct change_meta good = build(world, 9, 0, COUNT, COMPRESSION_LZ4);
    struct change_meta bad[5] = {good, good, good, good, good};
    bad[0].changes--;
    bad[1].revision_last++;
    bad[2].checksum++;
    bad[3].index.offset -= 24;
    bad[4].id++;
    for (size_t i = 0; i < 5; i++) {
        struct sst *file;
        struct sst_verify_report report;
        struct error err;
        assert_int_equal(change_file_new(&world->context, &bad[i], &file), STATUS_OK);
        assert_int_equal(sst_verify(file, NULL, &report, &err), STATUS_CORRUPT);
        assert_true(report.findings > 0);
        sst_free(file);
    }
    world_free(world);
}

/* ---- Manifests --------------------------------------------------------------------------------------------------- */

static struct change_meta meta_of(uint64_t number, uint64_t first, uint64_t last) {
    return (struct change_meta){.number = number,
                                .id = number + 100,
                                .size_bytes = 1000,
                                .checksum = 7,
                                .changes = 5,
                                .revision_first = first,
                                .revision_last = last,
                                .index = {.offset = 500, .size = 24}};
}

static enum status apply(struct manifest_state *state, const struct change_meta *meta, uint64_t after) {
    struct buf edit;
    buf_init(&edit, alloc_system(), 0);
    assert_int_equal(manifest_put_next_file(&edit, 1000), STATUS_OK);
    if (after > 0) {
        assert_int_equal(manifest_put_changes_after(&edit, after), STATUS_OK);
    }
    if (meta != NULL) {
        assert_int_equal(manifest_put_add_changes(&edit, meta), STATUS_OK);
    }
    enum status status = manifest_state_apply(state, buf_slice(&edit));
    buf_deinit(&edit);
    return status;
}

static void test_manifest_change_files_ascend_and_go_from_the_front(void **state) {
    (void)state;
    struct manifest_state parsed;
    manifest_state_init(&parsed, alloc_system());
    for (uint64_t n = 0; n < 40; n++) { /* 10..14, 20..24, ... */
        struct change_meta meta = meta_of(n + 1, 10 + n * 10, 14 + n * 10);
        assert_int_equal(apply(&parsed, &meta, 0), STATUS_OK);
    }
    assert_int_equal(parsed.changes_count, 40);
    assert_non_null(manifest_state_find_changes(&parsed, 40));
    assert_int_equal(apply(&parsed, NULL, 33), STATUS_OK); /* two go; of the third a part is left */
    assert_int_equal(parsed.changes_count, 38);
    assert_null(manifest_state_find_changes(&parsed, 2));
    assert_int_equal(parsed.changes[0].number, 3);
    struct buf bytes;
    struct manifest_state again;
    buf_init(&bytes, alloc_system(), 0);
    manifest_state_init(&again, alloc_system());
    assert_int_equal(manifest_state_encode(&parsed, &bytes), STATUS_OK);
    assert_int_equal(manifest_state_apply(&again, buf_slice(&bytes)), STATUS_OK);
    assert_int_equal(again.changes_count, 38);
    assert_int_equal(again.changes_after, 33);
    for (size_t i = 0; i < again.changes_count; i++) {
        assert_same_meta(&again.changes[i], &parsed.changes[i]);
    }
    manifest_state_deinit(&again);
    buf_deinit(&bytes);
    manifest_state_deinit(&parsed);
}

static void test_manifest_change_files_that_overlap_are_refused(void **state) {
    (void)state;
    const struct change_meta bad[] = {meta_of(2, 14, 20), meta_of(2, 5, 9), meta_of(2, 12, 13), meta_of(2, 20, 19),
                                      meta_of(1000, 20, 24)};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct manifest_state parsed;
        struct change_meta first = meta_of(1, 10, 14);
        manifest_state_init(&parsed, alloc_system());
        assert_int_equal(apply(&parsed, &first, 0), STATUS_OK);
        assert_int_equal(apply(&parsed, &bad[i], 0), STATUS_CORRUPT);
        manifest_state_deinit(&parsed);
    }
    struct manifest_state parsed;
    struct change_meta below = meta_of(1, 10, 14);
    manifest_state_init(&parsed, alloc_system());
    assert_int_equal(apply(&parsed, NULL, 14), STATUS_OK);
    assert_int_equal(apply(&parsed, &below, 0), STATUS_CORRUPT); /* all of it is gone already */
    manifest_state_deinit(&parsed);
    manifest_state_init(&parsed, alloc_system());
    assert_int_equal(apply(&parsed, NULL, 14), STATUS_OK);
    assert_int_equal(apply(&parsed, NULL, 13), STATUS_CORRUPT); /* they don't come back */
    manifest_state_deinit(&parsed);
}

/* ---- Memtables --------------------------------------------------------------------------------------------------- */

enum { BATCHES = 400, VALUE_MAX = 6000 };

struct sizes {
    uint64_t revision;
    size_t value_len;
};

/* Batches with values of all sizes, so that many have chunks of their own; some fail in the middle. */
static void fill(struct memtable *memtable, struct random *random, struct sizes *sizes) {
    static uint8_t value[VALUE_MAX];
    static uint8_t batch[3 * VALUE_MAX + 200];
    uint64_t revision = 0;
    for (unsigned i = 0; i < BATCHES; i++) {
        revision += 1 + random_below(random, 3);
        size_t len = random_chance(random, 1, 3) ? random_below(random, VALUE_MAX) : random_below(random, 30);
        const struct batch_operation operations[] = {
            {.kind = BATCH_PUT, .key = slice_of_string("large"), .value = slice_of(value, len)},
            {.kind = BATCH_DELETE_RANGE, .key = slice_of_string("a"), .value = slice_of_string("b")},
            {.kind = BATCH_DELETE, .key = slice_of_string("small")}};
        batch_encode(batch, operations, 3);
        struct slice bytes = slice_of(batch, batch_size(operations, 3));
        if (random_chance(random, 1, 2)) { /* another one, whose records are made and taken back */
            static uint8_t other[sizeof batch];
            struct batch_operation larger[] = {operations[0], operations[1], operations[2]};
            larger[0].value.len = VALUE_MAX;
            batch_encode(other, larger, 3);
            assert_int_equal(memtable_apply(memtable, revision, slice_of(other, batch_size(larger, 3) - 1)),
                             STATUS_CORRUPT);
        }
        assert_int_equal(memtable_apply(memtable, revision, bytes), STATUS_OK);
        sizes[i] = (struct sizes){revision, len};
    }
}

static void check_memtable(const struct memtable *memtable, const struct sizes *sizes, uint64_t from) {
    struct memtable_changes changes;
    struct change change;
    memtable_changes_seek(memtable, from, &changes);
    for (unsigned i = 0; i < BATCHES; i++) {
        for (uint32_t ordinal = 0; ordinal < 3 && sizes[i].revision >= from; ordinal++) {
            static const char *const keys[] = {"large", "a", "small"};
            static const enum batch_kind kinds[] = {BATCH_PUT, BATCH_DELETE_RANGE, BATCH_DELETE};
            assert_true(memtable_changes_next(&changes, &change));
            assert_int_equal(change.revision, sizes[i].revision);
            assert_int_equal(change.ordinal, ordinal);
            assert_int_equal(change.kind, kinds[ordinal]);
            assert_true(slice_equal(change.key, slice_of_string(keys[ordinal])));
            assert_true(slice_equal(change.end, slice_of_string(ordinal == 1 ? "b" : "")));
        }
    }
    assert_false(memtable_changes_next(&changes, &change));
    assert_false(memtable_changes_next(&changes, &change));
}

static void test_memtable_changes_are_its_batches_in_order(void **state) {
    (void)state;
    struct random random;
    static struct sizes sizes[BATCHES];
    random_seed(&random, 4);
    for (size_t bytes = 1; bytes <= 1 << 20; bytes *= 32) { /* chunks of several sizes */
        struct memtable *memtable = memtable_new(alloc_system(), bytes);
        struct memtable_changes changes;
        struct change change;
        assert_non_null(memtable);
        for (unsigned round = 0; round < 2; round++) {
            memtable_changes_seek(memtable, 0, &changes);
            assert_false(memtable_changes_next(&changes, &change));
            fill(memtable, &random, sizes);
            for (uint64_t from = 0; from <= sizes[BATCHES - 1].revision + 1; from += 1 + from / 20) {
                check_memtable(memtable, sizes, from);
            }
            assert_true(memtable_reset(memtable));
        }
        memtable_free(memtable);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_change_block_gives_back_what_was_added),
        cmocka_unit_test(test_h35_change_block_cut_anywhere_stays_inside),
        cmocka_unit_test(test_h35_change_block_impossible_bytes_are_corrupt),
        cmocka_unit_test(test_change_builder_writes_what_it_says),
        cmocka_unit_test(test_change_builder_golden_file_is_unchanged),
        cmocka_unit_test(test_change_builder_failed_or_dropped_leaves_no_file),
        cmocka_unit_test(test_change_meta_that_no_file_can_have_is_told),
        cmocka_unit_test(test_change_walk_finds_every_change_from_any_revision),
        cmocka_unit_test(test_change_file_that_cuts_an_entry_is_found),
        cmocka_unit_test(test_change_verify_without_memory_finds_nothing),
        cmocka_unit_test(test_change_file_other_than_its_meta_is_found),
        cmocka_unit_test(test_manifest_change_files_ascend_and_go_from_the_front),
        cmocka_unit_test(test_manifest_change_files_that_overlap_are_refused),
        cmocka_unit_test(test_memtable_changes_are_its_batches_in_order),
    };
    make_input();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
