/*
 * The memtable: order, visibility, range deletes, all-or-nothing batches, accounting.
 *
 * Would break these: a comparison that a node's window decides wrongly (short keys, NUL, high bytes, a node that thinks
 * its keys share more than they do), a split that loses or repeats a record, neighbours that aren't linked both ways,
 * revisions or ordinals in the wrong direction, a filter that denies a key, a batch that is half in after a failed
 * allocation, memory that a failed batch keeps, range deletes that explode.
 */
#include "storage/memtable.h"

#include "node/base/random.h"
#include "storage/cursor.h"
#include "storage/filter.h"
#include "tests/unit/support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct slice put_batch(uint8_t *out, struct slice key, struct slice value) {
    struct batch_operation operation = {BATCH_PUT, key, value};
    batch_encode(out, &operation, 1);
    return slice_of(out, batch_size(&operation, 1));
}

static bool get(const struct memtable *memtable, struct slice key, uint64_t revision, struct entry *ret_entry) {
    return memtable_get(memtable, key, filter_hash(key), revision, ret_entry);
}

static void put(struct memtable *memtable, uint64_t revision, struct slice key, const char *value) {
    uint8_t bytes[256];
    assert_int_equal(memtable_apply(memtable, revision, put_batch(bytes, key, slice_of_string(value))), STATUS_OK);
}

static void test_memtable_get_finds_the_newest_at_or_below_the_revision(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    struct slice key = slice_of_string("key");
    struct entry entry;
    put(memtable, 10, key, "ten");
    put(memtable, 20, key, "twenty");
    assert_false(get(memtable, key, 9, &entry));
    assert_true(get(memtable, key, 10, &entry));
    assert_true(slice_equal(entry.value, slice_of_string("ten")));
    assert_true(get(memtable, key, 19, &entry));
    assert_int_equal(entry.key.revision, 10);
    assert_true(get(memtable, key, UINT64_MAX - 1, &entry));
    assert_int_equal(entry.key.revision, 20);
    assert_false(get(memtable, slice_of_string("ke"), 30, &entry));
    assert_false(get(memtable, slice_of_string("keys"), 30, &entry));
    memtable_free(memtable);
}

static void test_memtable_last_operation_of_a_batch_is_found(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    struct entry entry;
    uint8_t bytes[128];
    struct batch_operation operations[] = {
        {BATCH_PUT, slice_of_string("k"), slice_of_string("1")},
        {BATCH_PUT, slice_of_string("k"), slice_of_string("2")},
        {BATCH_DELETE, slice_of_string("k"), SLICE_EMPTY},
        {BATCH_PUT, slice_of_string("k"), SLICE_EMPTY},
    };
    batch_encode(bytes, operations, 4);
    assert_int_equal(memtable_apply(memtable, 1, slice_of(bytes, batch_size(operations, 4))), STATUS_OK);
    assert_true(get(memtable, slice_of_string("k"), 1, &entry));
    assert_int_equal(entry.key.ordinal, 3);
    assert_int_equal(entry.kind, BATCH_PUT);
    assert_int_equal(memtable_entries(memtable), 4);
    batch_encode(bytes, operations, 3);
    assert_int_equal(memtable_apply(memtable, 2, slice_of(bytes, batch_size(operations, 3))), STATUS_OK);
    assert_true(get(memtable, slice_of_string("k"), 2, &entry));
    assert_int_equal(entry.kind, BATCH_DELETE);
    memtable_free(memtable);
}

enum { RANDOM_KEYS = 3000 };

static int compare_entries(const void *a, const void *b) {
    return entry_key_compare(&((const struct entry *)a)->key, &((const struct entry *)b)->key);
}

static void test_memtable_iterates_in_order_for_any_bytes(void **state) {
    (void)state;
    static uint8_t keys[RANDOM_KEYS][12];
    static struct entry want[RANDOM_KEYS];
    static const uint8_t alphabet[] = {0, 1, 0x7f, 0x80, 0xff};
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    struct random random;
    random_seed(&random, 1);
    for (unsigned i = 0; i < RANDOM_KEYS; i++) {
        size_t len = 1 + random_below(&random, sizeof keys[i]);
        for (size_t byte = 0; byte < len; byte++) {
            keys[i][byte] = alphabet[random_below(&random, sizeof alphabet)];
        }
        struct slice key = slice_of(keys[i], len);
        put(memtable, i + 1, key, "v");
        want[i] = (struct entry){.key = {.user = key, .revision = i + 1}};
    }
    qsort(want, RANDOM_KEYS, sizeof want[0], compare_entries);
    struct memtable_place place;
    struct memtable_place sought;
    bool found = memtable_first(memtable, &place);
    for (unsigned i = 0; i < RANDOM_KEYS; i++, found = memtable_next(&place)) {
        assert_true(found);
        struct entry entry = memtable_entry(&place);
        assert_int_equal(entry_key_compare(&entry.key, &want[i].key), 0);
        struct entry_key target = {.user = want[i].key.user, .revision = want[i].key.revision, .ordinal = 0};
        assert_true(memtable_seek(memtable, &target, &sought));
        assert_ptr_equal(memtable_entry(&sought).key.user.data, entry.key.user.data);
        assert_int_equal(memtable_seek_before(memtable, &target, &sought), i > 0);
        if (i > 0) {
            entry = memtable_entry(&sought);
            assert_int_equal(entry_key_compare(&entry.key, &want[i - 1].key), 0);
        }
    }
    assert_false(found);
    found = memtable_last(memtable, &place);
    for (unsigned i = RANDOM_KEYS; i > 0; i--, found = memtable_prev(&place)) {
        assert_true(found);
        struct entry entry = memtable_entry(&place);
        assert_int_equal(entry_key_compare(&entry.key, &want[i - 1].key), 0);
    }
    assert_false(found);
    memtable_free(memtable);
}

static void test_memtable_empty_has_no_places(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 0);
    struct memtable_place place;
    struct entry entry;
    struct entry_key target = entry_key_at(slice_of_string("k"), 1);
    assert_false(memtable_first(memtable, &place));
    assert_false(memtable_last(memtable, &place));
    assert_false(memtable_seek(memtable, &target, &place));
    assert_false(memtable_seek_before(memtable, &target, &place));
    assert_false(get(memtable, slice_of_string("k"), 1, &entry));
    assert_int_equal(memtable_tombstones(memtable).count, 0);
    assert_int_equal(memtable_covering(memtable, slice_of_string("k"), 1).revision, 0);
    memtable_free(memtable);
}

/* ---- Against a sorted array -------------------------------------------------------------------------------------- */

enum { MODEL_ENTRIES = 4000, MODEL_RANGES = 60 };

struct model {
    struct entry entries[MODEL_ENTRIES]; /* sorted; keys and values lie in `bytes` */
    uint8_t bytes[MODEL_ENTRIES][32];
    unsigned count;
    struct tombstone ranges[MODEL_RANGES];
    uint8_t range_bytes[MODEL_RANGES][2][32];
    unsigned range_count;
};

static struct model model;

/* Entries in front of the target. */
static unsigned model_rank(const struct entry_key *target) {
    unsigned from = 0;
    unsigned to = model.count;
    while (from < to) {
        unsigned middle = (from + to) / 2;
        if (entry_key_compare(&model.entries[middle].key, target) < 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

static void model_add(const struct batch_operation *operation, uint64_t revision, uint32_t ordinal) {
    if (operation->kind == BATCH_DELETE_RANGE) {
        uint8_t(*bytes)[32] = model.range_bytes[model.range_count];
        memcpy(bytes[0], operation->key.data, operation->key.len);
        memcpy(bytes[1], operation->value.data, operation->value.len);
        model.ranges[model.range_count++] = (struct tombstone){.start = slice_of(bytes[0], operation->key.len),
                                                               .end = slice_of(bytes[1], operation->value.len),
                                                               .revision = revision,
                                                               .ordinal = ordinal};
        return;
    }
    uint8_t *bytes = model.bytes[model.count];
    memcpy(bytes, operation->key.data, operation->key.len);
    struct entry entry = {.key = {slice_of(bytes, operation->key.len), revision, ordinal}, .kind = operation->kind};
    unsigned rank = model_rank(&entry.key);
    memmove(&model.entries[rank + 1], &model.entries[rank], (model.count - rank) * sizeof entry);
    model.entries[rank] = entry;
    model.count++;
}

/* How keys come: the tree has a way of its own for those that ascend or descend. */
enum pattern { ANY, ASCENDING, DESCENDING, FEW_KEYS, DEEP, PATTERN_COUNT };

static struct slice pattern_key(enum pattern pattern, struct random *random, uint64_t at, uint8_t out[32]) {
    switch (pattern) {
    case ASCENDING: return slice_of(out, (size_t)snprintf((char *)out, 32, "%016u", (unsigned)at));
    case DESCENDING: return slice_of(out, (size_t)snprintf((char *)out, 32, "%016u", 1000000 - (unsigned)at));
    case FEW_KEYS: return slice_of(out, (size_t)snprintf((char *)out, 32, "same%u", (unsigned)random_below(random, 3)));
    case DEEP: /* a long common start, of which parts differ */
        memset(out, 'x', 28);
        out[random_below(random, 28)] = (uint8_t)('x' + random_below(random, 3) - 1);
        return slice_of(out, 1 + random_below(random, 28));
    default: return slice_of(out, (size_t)snprintf((char *)out, 32, "%016u", (unsigned)random_below(random, 100000)));
    }
}

static void assert_at(bool found, const struct memtable_place *place, int64_t rank) {
    assert_int_equal(found, rank >= 0 && rank < model.count);
    if (found) {
        struct entry entry = memtable_entry(place);
        assert_int_equal(entry_key_compare(&entry.key, &model.entries[rank].key), 0);
        assert_int_equal(entry.kind, model.entries[rank].kind);
        assert_int_equal(entry.value.len, entry.kind == BATCH_PUT ? 3 : 0);
    }
}

/* A seek, then some steps to and fro. */
static void check_walk(const struct memtable *memtable, struct random *random, const struct entry_key *target) {
    struct memtable_place place;
    int64_t rank = (int64_t)model_rank(target);
    bool before = random_below(random, 2) == 0;
    bool found = before ? memtable_seek_before(memtable, target, &place) : memtable_seek(memtable, target, &place);
    rank -= before;
    assert_at(found, &place, rank);
    for (int i = 0; i < 40 && found; i++) {
        bool forward = random_below(random, 5) < (before ? 1u : 4u);
        found = forward ? memtable_next(&place) : memtable_prev(&place);
        rank += forward ? 1 : -1;
        assert_at(found, &place, rank);
    }
}

static void check_lookups(const struct memtable *memtable, const struct entry_key *target) {
    struct entry entry;
    struct entry_key newest = entry_key_at(target->user, target->revision);
    unsigned rank = model_rank(&newest);
    bool want = rank < model.count && slice_equal(model.entries[rank].key.user, target->user);
    assert_int_equal(get(memtable, target->user, target->revision, &entry), want);
    if (want) {
        assert_int_equal(entry_key_compare(&entry.key, &model.entries[rank].key), 0);
    }
    struct tombstone_mark mark = TOMBSTONE_MARK_NONE;
    for (unsigned i = 0; i < model.range_count; i++) {
        const struct tombstone *one = &model.ranges[i];
        if (one->revision <= target->revision && slice_compare(one->start, target->user) <= 0 &&
            slice_compare(target->user, one->end) < 0) {
            mark = tombstone_mark_newer(mark, (struct tombstone_mark){one->revision, one->ordinal});
        }
    }
    struct tombstone_mark got = memtable_covering(memtable, target->user, target->revision);
    assert_int_equal(got.revision, mark.revision);
    assert_int_equal(got.ordinal, mark.ordinal);
}

/* One batch of up to eight operations, into both. */
static void model_apply(struct memtable *memtable, struct random *random, enum pattern pattern, uint64_t revision) {
    struct batch_operation operations[8];
    uint8_t keys[8][2][32];
    uint8_t bytes[1024];
    uint32_t count = 1 + (uint32_t)random_below(random, 8);
    for (uint32_t i = 0; i < count; i++) {
        struct slice key = pattern_key(pattern, random, revision * 8 + i, keys[i][0]);
        struct slice end = pattern_key(pattern, random, revision * 9 + i, keys[i][1]);
        unsigned draw = (unsigned)random_below(random, 100);
        operations[i] = draw < 70 ? (struct batch_operation){BATCH_PUT, key, slice_of_string("yes")}
                                  : (struct batch_operation){BATCH_DELETE, key, SLICE_EMPTY};
        if (draw > 95 && model.range_count < MODEL_RANGES && slice_compare(key, end) < 0) {
            operations[i] = (struct batch_operation){BATCH_DELETE_RANGE, key, end};
        }
        model_add(&operations[i], revision, i);
    }
    batch_encode(bytes, operations, count);
    assert_int_equal(memtable_apply(memtable, revision, slice_of(bytes, batch_size(operations, count))), STATUS_OK);
}

static void test_memtable_answers_as_a_sorted_array(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 7);
    for (unsigned round = 0; round < 2 * PATTERN_COUNT; round++) {
        struct memtable *memtable = memtable_new(alloc_system(), 64 * 1024);
        enum pattern pattern = (enum pattern)(round % PATTERN_COUNT);
        model.count = 0;
        model.range_count = 0;
        for (uint64_t revision = 1; model.count + 8 <= MODEL_ENTRIES; revision++) {
            /* From time to time the keys come otherwise. */
            model_apply(memtable, &random, revision % 16 < 12 ? pattern : ANY, revision);
            uint8_t key[32];
            struct entry_key target = {.user = pattern_key(pattern, &random, random_below(&random, revision * 8), key),
                                       .revision = 1 + random_below(&random, revision + 1),
                                       .ordinal = (uint32_t)random_below(&random, 8)};
            check_walk(memtable, &random, &target);
            check_lookups(memtable, &target);
        }
        assert_int_equal(memtable_entries(memtable), model.count);
        assert_int_equal(memtable_range_deletes(memtable), model.range_count);
        memtable_free(memtable);
    }
}

static void test_memtable_place_outlives_inserts(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 64 * 1024);
    char key[16];
    uint64_t revision = 1;
    for (unsigned i = 0; i < 100; i++) {
        (void)snprintf(key, sizeof key, "%04u", i * 100);
        put(memtable, revision++, slice_of_string(key), "old");
    }
    uint64_t seen_at = revision - 1;
    struct memtable_place places[100];
    for (unsigned i = 0; i < 100; i++) {
        (void)snprintf(key, sizeof key, "%04u", i * 100);
        struct entry_key target = entry_key_at(slice_of_string(key), seen_at);
        assert_true(memtable_seek(memtable, &target, &places[i]));
    }
    for (unsigned i = 0; i < 10000; i++) {
        (void)snprintf(key, sizeof key, "%04u", i * 7919 % 10000);
        put(memtable, revision++, slice_of_string(key), "new");
    }
    /* From each place, in both directions, all the old ones are met, whole and in order. */
    for (unsigned i = 0; i < 100; i++) {
        for (int forward = 0; forward < 2; forward++) {
            struct memtable_place place = places[i];
            unsigned met = 0;
            bool found = true;
            struct entry last = {.value = SLICE_EMPTY};
            for (bool first = true; found; first = false) {
                struct entry entry = memtable_entry(&place);
                met += entry.key.revision <= seen_at;
                int order = first ? 0 : entry_key_compare(&last.key, &entry.key);
                assert_true(first || (forward ? order < 0 : order > 0));
                last = entry;
                found = forward ? memtable_next(&place) : memtable_prev(&place);
            }
            assert_int_equal(met, forward ? 100 - i : i + 1);
        }
    }
    memtable_free(memtable);
}

static void test_h34_memtable_cursor_turns_anywhere(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 64 * 1024);
    char keys[60][8];
    for (unsigned i = 0; i < 60; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "%02u", i);
        put(memtable, i + 1, slice_of_string(keys[i]), "v");
    }
    struct cursor *cursor = memtable_cursor_new(alloc_system(), memtable);
    assert_int_equal(cursor_last(cursor, NULL), STATUS_OK);
    assert_true(slice_equal(cursor->entry.key.user, slice_of_string("59")));
    assert_int_equal(cursor_next(cursor, NULL), STATUS_NOT_FOUND);
    assert_int_equal(cursor_first(cursor, NULL), STATUS_OK);
    assert_int_equal(cursor_prev(cursor, NULL), STATUS_NOT_FOUND);
    for (unsigned i = 1; i < 59; i++) {
        struct entry_key target = entry_key_at(slice_of_string(keys[i]), 100);
        assert_int_equal(cursor_seek(cursor, &target, NULL), STATUS_OK);
        assert_true(slice_equal(cursor->entry.key.user, slice_of_string(keys[i])));
        assert_int_equal(cursor_prev(cursor, NULL), STATUS_OK);
        assert_int_equal(cursor_next(cursor, NULL), STATUS_OK);
        assert_int_equal(cursor_next(cursor, NULL), STATUS_OK);
        assert_true(slice_equal(cursor->entry.key.user, slice_of_string(keys[i + 1])));
        assert_int_equal(cursor_seek_before(cursor, &target, NULL), STATUS_OK);
        assert_int_equal(cursor->entry.key.revision, i);
        assert_int_equal(cursor_next(cursor, NULL), STATUS_OK);
        assert_int_equal(cursor->entry.key.revision, i + 1);
    }
    cursor_free(cursor);
    memtable_free(memtable);
}

static void test_memtable_range_deletes_that_all_overlap_make_it_full(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 64 * 1024 * 1024);
    uint64_t revision = 0;
    while (memtable_bytes(memtable) < 64 * 1024 * 1024 && revision < 5000) {
        char start[8];
        char end[8];
        uint8_t bytes[64];
        revision++;
        (void)snprintf(start, sizeof start, "%05u", (unsigned)revision);
        (void)snprintf(end, sizeof end, "%05u", 99999 - (unsigned)revision);
        struct batch_operation operation = {BATCH_DELETE_RANGE, slice_of_string(start), slice_of_string(end)};
        batch_encode(bytes, &operation, 1);
        assert_int_equal(memtable_apply(memtable, revision, slice_of(bytes, batch_size(&operation, 1))), STATUS_OK);
    }
    assert_int_equal(memtable_bytes(memtable), SIZE_MAX);
    assert_in_range(revision, 200, 4000);
    uint64_t marks;
    struct memtable_tombstones sets = memtable_tombstones(memtable);
    assert_int_equal(tombstones_merge_marks(alloc_system(), sets.sets, sets.count, 0, false, &marks), STATUS_OK);
    assert_in_range(marks, 1, 1 << 24);
    assert_int_equal(memtable_covering(memtable, slice_of_string("50000"), 100).revision, 100);
    memtable_free(memtable);
}

static void test_memtable_range_deletes_apart_cost_little(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 64 * 1024 * 1024);
    for (unsigned i = 0; i < 5000; i++) {
        char start[8];
        char end[8];
        uint8_t bytes[64];
        (void)snprintf(start, sizeof start, "%05u", i * 7919 % 50000);
        (void)snprintf(end, sizeof end, "%05ux", i * 7919 % 50000);
        struct batch_operation operation = {BATCH_DELETE_RANGE, slice_of_string(start), slice_of_string(end)};
        batch_encode(bytes, &operation, 1);
        assert_int_equal(memtable_apply(memtable, i + 1, slice_of(bytes, batch_size(&operation, 1))), STATUS_OK);
    }
    assert_in_range(memtable_tombstones(memtable).count, 1, 32);
    assert_in_range(memtable_bytes(memtable), 5000 * 64, 5000 * 2000);
    memtable_free(memtable);
}

static void test_memtable_failed_allocation_leaves_no_part_of_a_batch(void **state) {
    (void)state;
    static uint8_t value[3000];
    static uint8_t bytes[8 * (sizeof value + 32)];
    struct test_alloc alloc;
    struct batch_operation operations[9];
    char keys[8][4];
    test_alloc_init(&alloc);
    for (unsigned i = 0; i < 8; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "k%u", i);
        operations[i] = (struct batch_operation){BATCH_PUT, slice_of_string(keys[i]), slice_of(value, sizeof value)};
    }
    operations[8] = (struct batch_operation){BATCH_DELETE_RANGE, slice_of_string("a"), slice_of_string("z")};
    batch_encode(bytes, operations, 9);
    struct slice batch = slice_of(bytes, batch_size(operations, 9));
    struct memtable *memtable = memtable_new(&alloc.base, 4096);
    assert_non_null(memtable);
    put(memtable, 1, slice_of_string("k3"), "before");
    size_t used = memtable_bytes(memtable);
    uint64_t blocks = alloc.live_blocks;
    uint64_t n = 0;
    enum status status;
    do {
        struct entry entry;
        n++;
        test_alloc_fail(&alloc, n, false);
        status = memtable_apply(memtable, 2, batch);
        test_alloc_fail(&alloc, 0, false);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_int_equal(memtable_bytes(memtable), used);
            assert_int_equal(alloc.live_blocks, blocks);
            assert_int_equal(memtable_entries(memtable), 1);
            assert_false(get(memtable, slice_of_string("k0"), 2, &entry));
            assert_true(get(memtable, slice_of_string("k3"), 2, &entry));
            assert_int_equal(entry.key.revision, 1);
            assert_int_equal(memtable_covering(memtable, slice_of_string("k3"), 2).revision, 0);
            assert_int_equal(memtable_range_deletes(memtable), 0);
        }
    } while (status != STATUS_OK);
    assert_in_range(n, 5, 30);
    assert_int_equal(memtable_entries(memtable), 9);
    assert_int_equal(memtable_covering(memtable, slice_of_string("k3"), 2).ordinal, 8);
    memtable_free(memtable);
    assert_int_equal(alloc.live_blocks, 0);
}

/* All memory is taken before anything is linked: from the allocation on that lets a large batch in, none is needed. */
static void test_memtable_large_batch_needs_no_memory_once_it_is_let_in(void **state) {
    (void)state;
    enum { OPERATIONS = 5000 };
    static struct batch_operation operations[OPERATIONS];
    static char keys[OPERATIONS][12];
    static uint8_t bytes[OPERATIONS * 16];
    for (int order = 0; order < 3; order++) {
        struct test_alloc alloc;
        test_alloc_init(&alloc);
        for (unsigned i = 0; i < OPERATIONS; i++) {
            unsigned number = order == 0 ? i : order == 1 ? OPERATIONS - i : i * 7919 % OPERATIONS;
            (void)snprintf(keys[i], sizeof keys[i], "k%05u", number);
            operations[i] = (struct batch_operation){BATCH_DELETE, slice_of_string(keys[i]), SLICE_EMPTY};
        }
        batch_encode(bytes, operations, OPERATIONS);
        struct slice batch = slice_of(bytes, batch_size(operations, OPERATIONS));
        struct memtable *memtable = memtable_new(&alloc.base, 1024 * 1024);
        assert_non_null(memtable);
        for (uint64_t revision = 1; revision <= 3; revision++) {
            enum status status = STATUS_NO_MEMORY;
            for (uint64_t n = 1; status != STATUS_OK; n++) {
                assert_in_range(n, 1, 1000);
                test_alloc_fail(&alloc, n, true);
                status = memtable_apply(memtable, revision, batch);
                test_alloc_fail(&alloc, 0, false);
                assert_int_equal(memtable_entries(memtable), (revision - (status != STATUS_OK)) * OPERATIONS);
            }
        }
        memtable_free(memtable);
        assert_int_equal(alloc.live_blocks, 0);
    }
}

static void test_memtable_malformed_batch_changes_nothing(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    uint8_t bytes[128];
    struct entry entry;
    struct batch_operation operations[] = {
        {BATCH_PUT, slice_of_string("a"), slice_of_string("1")},
        {BATCH_PUT, slice_of_string("b"), slice_of_string("1")},
    };
    batch_encode(bytes, operations, 2);
    size_t len = batch_size(operations, 2);
    size_t used = memtable_bytes(memtable);
    assert_int_equal(memtable_apply(memtable, 1, slice_of(bytes, len - 1)), STATUS_CORRUPT);
    assert_int_equal(memtable_bytes(memtable), used);
    assert_false(get(memtable, slice_of_string("a"), 1, &entry));
    assert_int_equal(memtable_apply(memtable, 1, slice_of(bytes, len)), STATUS_OK);
    assert_true(get(memtable, slice_of_string("a"), 1, &entry));
    memtable_free(memtable);
}

static void test_memtable_bytes_follow_what_is_stored(void **state) {
    (void)state;
    static uint8_t value[100000];
    static uint8_t bytes[sizeof value + 64];
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    size_t before = memtable_bytes(memtable);
    struct slice batch = put_batch(bytes, slice_of_string("k"), slice_of(value, sizeof value));
    assert_int_equal(memtable_apply(memtable, 1, batch), STATUS_OK);
    assert_in_range(memtable_bytes(memtable) - before, sizeof value, sizeof value + 200);
    memtable_free(memtable);
}

/* What it held is gone, the filter and range deletes included, and filling it as before takes no memory but for those.
 */
static void test_memtable_reset_is_empty_and_fills_again(void **state) {
    (void)state;
    struct test_alloc alloc;
    test_alloc_init(&alloc);
    struct memtable *memtable = memtable_new(&alloc.base, 1024 * 1024);
    uint64_t attempts[3];
    for (int life = 0; life < 3; life++) {
        struct entry entry;
        attempts[life] = alloc.attempts;
        for (unsigned i = 0; i < 8000; i++) {
            char key[8];
            (void)snprintf(key, sizeof key, "%05u", i * 7919 % 8000);
            put(memtable, i + 1, slice_of_string(key), "a value of some length");
        }
        attempts[life] = alloc.attempts - attempts[life];
        assert_true(get(memtable, slice_of_string("00077"), 9000, &entry));
        struct batch_operation operation = {BATCH_DELETE_RANGE, slice_of_string("0"), slice_of_string("1")};
        uint8_t bytes[64];
        batch_encode(bytes, &operation, 1);
        assert_int_equal(memtable_apply(memtable, 9000, slice_of(bytes, batch_size(&operation, 1))), STATUS_OK);
        assert_true(memtable_reset(memtable));
        struct memtable_place place;
        assert_false(memtable_first(memtable, &place));
        assert_false(get(memtable, slice_of_string("00077"), 9000, &entry));
        assert_int_equal(memtable_entries(memtable), 0);
        assert_int_equal(memtable_covering(memtable, slice_of_string("00077"), 9000).revision, 0);
    }
    assert_true(attempts[0] > 0);
    assert_int_equal(attempts[1], 0);
    assert_int_equal(attempts[2], 0);
    memtable_free(memtable);
    assert_int_equal(alloc.live_blocks, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memtable_get_finds_the_newest_at_or_below_the_revision),
        cmocka_unit_test(test_memtable_last_operation_of_a_batch_is_found),
        cmocka_unit_test(test_memtable_iterates_in_order_for_any_bytes),
        cmocka_unit_test(test_memtable_empty_has_no_places),
        cmocka_unit_test(test_memtable_answers_as_a_sorted_array),
        cmocka_unit_test(test_memtable_place_outlives_inserts),
        cmocka_unit_test(test_h34_memtable_cursor_turns_anywhere),
        cmocka_unit_test(test_memtable_range_deletes_that_all_overlap_make_it_full),
        cmocka_unit_test(test_memtable_range_deletes_apart_cost_little),
        cmocka_unit_test(test_memtable_failed_allocation_leaves_no_part_of_a_batch),
        cmocka_unit_test(test_memtable_large_batch_needs_no_memory_once_it_is_let_in),
        cmocka_unit_test(test_memtable_malformed_batch_changes_nothing),
        cmocka_unit_test(test_memtable_bytes_follow_what_is_stored),
        cmocka_unit_test(test_memtable_reset_is_empty_and_fills_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
