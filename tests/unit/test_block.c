/*
 * Bodies of blocks: what the builder wrote is what the cursor finds, forward, backward, by search and by hash.
 *
 * Would break these: a prefix taken from the wrong key (most of all after a step back, or a turn, or a search, which
 * makes no keys on its way), a search that stops one entry early or late at a restart, a bucket that names the wrong
 * interval, versions of one key that run over intervals, an entry of unusual lengths or with a version of unusual size
 * decoded by the short way, anything trusted that damaged bytes can say.
 */
#include "node/base/random.h"
#include "storage/block.h"
#include "storage/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ENTRIES_MAX = 400, KEY_BYTES_MAX = 400 };

struct list_of_entries {
    struct entry entries[ENTRIES_MAX];
    uint8_t keys[ENTRIES_MAX][KEY_BYTES_MAX];
    size_t count;
};

static struct list_of_entries list;
static struct block_cursor cursor;

static int compare_entries(const void *a, const void *b) {
    return entry_key_compare(&((const struct entry *)a)->key, &((const struct entry *)b)->key);
}

/* Clustered keys, now and then very long ones that share much; versions up to 60 for one key; ordinals and revisions of
 * all sizes; deletes; values of 0 to 300 bytes. */
static void make_entries(size_t count, uint64_t seed) {
    static uint8_t filler[512];
    struct random random;
    random_seed(&random, seed);
    for (size_t i = 0; i < sizeof filler; i++) {
        filler[i] = (uint8_t)i;
    }
    bool some_long = random_chance(&random, 1, 2);
    list.count = 0;
    uint64_t revision = 1;
    while (list.count < count) {
        uint8_t key[KEY_BYTES_MAX];
        size_t len = 1 + random_below(&random, some_long && random_chance(&random, 1, 2) ? KEY_BYTES_MAX : 24);
        for (size_t i = 0; i < len; i++) {
            key[i] = (uint8_t)(random_chance(&random, 1, len > 24 ? 100 : 4) ? random_below(&random, 256) : 'k');
        }
        uint64_t versions = random_chance(&random, 1, 5) ? 1 + random_below(&random, 60) : 1;
        for (uint64_t v = 0; v < versions && list.count < count; v++) {
            struct entry *entry = &list.entries[list.count];
            memcpy(list.keys[list.count], key, len);
            bool is_delete = random_chance(&random, 1, 6);
            uint32_t ordinal = random_chance(&random, 1, 2) ? 0 : (uint32_t)random_below(&random, 70000);
            revision += random_chance(&random, 1, 30) ? UINT64_C(1) << random_below(&random, 58) : 1;
            *entry = (struct entry){.key = {slice_of(list.keys[list.count], len), revision, ordinal},
                                    .kind = is_delete ? BATCH_DELETE : BATCH_PUT};
            size_t value_len = random_chance(&random, 1, 5) ? random_below(&random, 300) : random_below(&random, 20);
            entry->value = is_delete ? SLICE_EMPTY : slice_of(filler, value_len);
            list.count++;
        }
    }
    qsort(list.entries, list.count, sizeof list.entries[0], compare_entries);
}

static struct slice build(struct block_builder *builder, uint32_t interval, bool hash_index) {
    struct slice body;
    block_builder_init(builder, alloc_system(), interval, hash_index);
    for (size_t i = 0; i < list.count; i++) {
        assert_int_equal(block_builder_add(builder, &list.entries[i]), STATUS_OK);
    }
    size_t size = block_builder_size(builder);
    assert_int_equal(block_builder_finish(builder, &body), STATUS_OK);
    assert_int_equal(body.len, size);
    return body;
}

/* The cursor says `status` and, if that is OK, stands at number `at` of the list. */
static void assert_at(enum status status, int64_t at) {
    if (at < 0 || at >= (int64_t)list.count) {
        assert_int_equal(status, STATUS_NOT_FOUND);
        return;
    }
    const struct entry *want = &list.entries[at];
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(entry_key_compare(&cursor.entry.key, &want->key), 0);
    assert_int_equal(cursor.entry.kind, want->kind);
    assert_true(slice_equal(cursor.entry.value, want->value));
}

/* Place of the first entry at or behind the target. */
static int64_t place(const struct entry_key *target) {
    int64_t at = 0;
    while (at < (int64_t)list.count && entry_key_compare(&list.entries[at].key, target) < 0) {
        at++;
    }
    return at;
}

/* A target at, just in front of or just behind an entry, or about none. */
static struct entry_key any_target(struct random *random, uint8_t memory[KEY_BYTES_MAX + 1]) {
    struct entry_key target = list.entries[random_below(random, list.count)].key;
    memcpy(memory, target.user.data, target.user.len);
    target.user.data = memory;
    switch (random_below(random, 8)) {
    case 0: target.revision++; break;
    case 1: target.revision -= target.revision > 0; break;
    case 2: target.ordinal++; break;
    case 3: target.revision = ENTRY_REVISION_NONE; break;
    case 4: memory[target.user.len++] = 0; break;
    case 5: target.user.len -= target.user.len > 1; break;
    case 6: memory[random_below(random, target.user.len)] ^= (uint8_t)(1u << random_below(random, 8)); break;
    default: break;
    }
    return target;
}

static void walk_at_random(struct random *random, int steps) {
    int64_t at = -1;
    enum status status = STATUS_NOT_FOUND;
    for (int step = 0; step < steps; step++) {
        uint8_t memory[KEY_BYTES_MAX + 1];
        uint64_t choice = random_below(random, 16);
        if (status == STATUS_OK && choice < 12) {
            /* Runs in one direction, then turns. */
            bool forward = random_chance(random, 1, 2);
            for (uint64_t run = 1 + random_below(random, 20); run > 0 && status == STATUS_OK; run--) {
                at += forward ? 1 : -1;
                status = forward ? block_cursor_next(&cursor) : block_cursor_prev(&cursor);
                assert_at(status, at);
            }
            continue;
        }
        struct entry_key target = any_target(random, memory);
        switch (choice % 4) {
        case 0:
            at = 0;
            status = block_cursor_first(&cursor);
            break;
        case 1:
            at = (int64_t)list.count - 1;
            status = block_cursor_last(&cursor);
            break;
        case 2:
            at = place(&target);
            status = block_cursor_seek(&cursor, &target);
            break;
        default:
            at = place(&target) - 1;
            status = block_cursor_seek_before(&cursor, &target);
            break;
        }
        assert_at(status, at);
    }
}

static void check_finds(struct random *random) {
    for (size_t round = 0; round < 2 * list.count; round++) {
        uint8_t memory[KEY_BYTES_MAX + 1];
        struct entry_key target = any_target(random, memory);
        target.ordinal = ENTRY_ORDINAL_MAX;
        int64_t want = place(&target);
        bool is_there = want < (int64_t)list.count && slice_equal(list.entries[want].key.user, target.user);
        enum status status = block_cursor_find(&cursor, target.user, filter_hash(target.user), target.revision);
        assert_at(status, is_there ? want : -1);
        if (is_there && random_chance(random, 1, 4)) { /* and from there in both directions */
            assert_at(block_cursor_next(&cursor), want + 1);
            assert_at(block_cursor_find(&cursor, target.user, filter_hash(target.user), target.revision), want);
            assert_at(block_cursor_prev(&cursor), want - 1);
        }
    }
}

static void test_h34_block_walks_turns_and_seeks_agree_with_a_list(void **state) {
    (void)state;
    static const uint32_t intervals[] = {1, 2, 7, BLOCK_INTERVAL};
    struct random random;
    random_seed(&random, 1);
    for (uint64_t round = 0; round < 40; round++) {
        struct block_builder builder;
        make_entries(1 + random_below(&random, ENTRIES_MAX), 100 + round);
        struct slice body = build(&builder, intervals[round % 4], round % 3 != 0);
        uint8_t *exact = malloc(body.len); /* so that a read behind the end is seen */
        memcpy(exact, body.data, body.len);
        assert_int_equal(block_cursor_open(&cursor, slice_of(exact, body.len)), STATUS_OK);
        assert_int_equal(cursor.entry_count, list.count);
        walk_at_random(&random, 300);
        check_finds(&random);
        free(exact);
        block_builder_deinit(&builder);
    }
}

static void test_block_walks_whole_in_both_directions(void **state) {
    (void)state;
    struct block_builder builder;
    make_entries(ENTRIES_MAX, 7);
    struct slice body = build(&builder, BLOCK_INTERVAL, true);
    assert_int_equal(block_cursor_open(&cursor, body), STATUS_OK);
    enum status status = block_cursor_first(&cursor);
    for (int64_t i = 0; i <= ENTRIES_MAX; i++, status = i <= ENTRIES_MAX ? block_cursor_next(&cursor) : status) {
        assert_at(status, i);
    }
    status = block_cursor_last(&cursor);
    for (int64_t i = ENTRIES_MAX - 1; i >= -1; i--, status = i >= -1 ? block_cursor_prev(&cursor) : status) {
        assert_at(status, i);
    }
    block_builder_deinit(&builder);
}

/* A seek to the key that the cursor itself holds: its memory is target and result. */
static void test_block_seeks_to_its_own_key(void **state) {
    (void)state;
    struct block_builder builder;
    make_entries(200, 9);
    struct slice body = build(&builder, BLOCK_INTERVAL, true);
    assert_int_equal(block_cursor_open(&cursor, body), STATUS_OK);
    enum status status = block_cursor_first(&cursor);
    for (int64_t i = 0; i < 200; i++, status = block_cursor_next(&cursor)) {
        assert_at(status, i);
        struct entry_key own = cursor.entry.key;
        assert_at(block_cursor_seek_before(&cursor, &own), i - 1);
        if (i > 0) {
            assert_at(block_cursor_next(&cursor), i);
        }
        own = list.entries[i].key;
        assert_at(block_cursor_seek(&cursor, &own), i);
        own = cursor.entry.key;
        assert_at(block_cursor_seek(&cursor, &own), i);
    }
    block_builder_deinit(&builder);
}

/* Most keys that aren't there must end at their bucket; a search would touch the block in vain. */
static void test_block_hash_index_answers_most_misses_at_once(void **state) {
    (void)state;
    struct block_builder builder;
    list.count = 40;
    for (size_t i = 0; i < list.count; i++) {
        (void)snprintf((char *)list.keys[i], 16, "key/%04u", (unsigned)i % 10000);
        list.entries[i] = (struct entry){.key = {slice_of(list.keys[i], 8), 5, 0}, .kind = BATCH_PUT};
    }
    struct slice body = build(&builder, BLOCK_INTERVAL, true);
    /* All entries gone: only what the bucket decides is still right. */
    uint8_t *blank = malloc(body.len);
    memcpy(blank, body.data, body.len);
    assert_int_equal(block_cursor_open(&cursor, slice_of(blank, body.len)), STATUS_OK);
    memset(blank, 0xff, cursor.entries_len);
    int at_once = 0;
    for (int i = 0; i < 1000; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "miss%04d", i);
        struct slice user = slice_of_string(key);
        at_once += block_cursor_find(&cursor, user, filter_hash(user), 9) == STATUS_NOT_FOUND;
    }
    assert_in_range(at_once, 330, 650); /* of 53 buckets about e^(-40 / 53) are empty */
    free(blank);
    block_builder_deinit(&builder);
}

static void test_block_of_very_many_restarts_has_no_hash_index(void **state) {
    (void)state;
    struct block_builder builder;
    make_entries(ENTRIES_MAX, 11);
    struct slice body = build(&builder, 1, true);
    struct random random;
    random_seed(&random, 12);
    assert_int_equal(block_cursor_open(&cursor, body), STATUS_OK);
    assert_int_equal(cursor.bucket_count, 0);
    check_finds(&random);
    block_builder_deinit(&builder);
}

static void test_block_separators_and_extreme_versions_read_back(void **state) {
    (void)state;
    struct block_builder builder;
    static uint8_t longest[LIMIT_KEY_BYTES];
    static uint8_t value[100000];
    memset(longest, 'z', sizeof longest);
    const struct entry entries[] = {
        {.key = {slice_of("a", 1), ENTRY_REVISION_NONE, ENTRY_ORDINAL_MAX}, .kind = BATCH_PUT},
        {.key = {slice_of("a", 1), ENTRY_REVISION_NONE, 7}, .kind = BATCH_PUT},
        {.key = {slice_of("a", 1), ENTRY_REVISION_NONE, 0}, .kind = BATCH_PUT},
        {.key = {slice_of("a", 1), ENTRY_REVISION_NONE - 1, ENTRY_ORDINAL_MAX}, .kind = BATCH_DELETE},
        {.key = {slice_of("a", 1), 256, 128}, .value = slice_of(value, 127), .kind = BATCH_PUT},
        {.key = {slice_of("a", 1), 255, 127}, .value = slice_of(value, 128), .kind = BATCH_PUT},
        {.key = {slice_of("a", 1), 0, 0}, .value = slice_of(value, sizeof value), .kind = BATCH_PUT},
        {.key = {slice_of(longest, LIMIT_KEY_BYTES - 1), 1, 0}, .kind = BATCH_PUT},
        {.key = {slice_of(longest, LIMIT_KEY_BYTES), 1, 0}, .kind = BATCH_PUT},
    };
    list.count = sizeof entries / sizeof entries[0];
    memcpy(list.entries, entries, sizeof entries);
    struct slice body = build(&builder, BLOCK_INTERVAL, true);
    assert_int_equal(block_cursor_open(&cursor, body), STATUS_OK);
    assert_at(block_cursor_last(&cursor), (int64_t)list.count - 1);
    for (int64_t i = (int64_t)list.count - 2; i >= 0; i--) {
        assert_at(block_cursor_prev(&cursor), i);
    }
    for (int64_t i = 1; i < (int64_t)list.count; i++) {
        assert_at(block_cursor_next(&cursor), i);
        assert_at(block_cursor_seek(&cursor, &list.entries[i].key), i);
    }
    block_builder_deinit(&builder);
}

/* The first key behind the longest one is longer than any key; who goes on from there seeks to it. */
static void test_block_seeks_to_the_longest_and_the_empty_target(void **state) {
    (void)state;
    struct block_builder builder;
    static uint8_t longest[BLOCK_TARGET_BYTES_MAX];
    memset(longest, 'k', LIMIT_KEY_BYTES);
    list.count = 2;
    list.entries[0] = (struct entry){.key = {slice_of(longest, LIMIT_KEY_BYTES), 5, 0}, .kind = BATCH_PUT};
    list.entries[1] = (struct entry){.key = {slice_of("l", 1), 5, 0}, .kind = BATCH_PUT};
    struct slice body = build(&builder, BLOCK_INTERVAL, true);
    struct entry_key behind = {slice_of(longest, sizeof longest), ENTRY_REVISION_NONE, ENTRY_ORDINAL_MAX};
    assert_int_equal(block_cursor_open(&cursor, body), STATUS_OK);
    assert_at(block_cursor_seek(&cursor, &behind), 1);
    assert_at(block_cursor_seek_before(&cursor, &behind), 0);
    assert_at(block_cursor_find(&cursor, behind.user, filter_hash(behind.user), 9), -1);
    struct entry_key front = {SLICE_EMPTY, ENTRY_REVISION_NONE, ENTRY_ORDINAL_MAX}; /* and the shortest target */
    assert_at(block_cursor_seek(&cursor, &front), 0);
    assert_at(block_cursor_seek_before(&cursor, &front), -1);
    block_builder_deinit(&builder);
}

/* Compactions feed the builder from disks: what comes out of order must not become a block in which nothing is found.
 */
static void test_block_builder_refuses_entries_out_of_order(void **state) {
    (void)state;
    const struct entry b = {.key = {slice_of_string("b"), 5, 5}, .kind = BATCH_PUT};
    const struct entry behind[] = {
        {.key = {slice_of_string("a"), 1, 0}, .kind = BATCH_PUT},
        {.key = {slice_of_string("b"), 6, 0}, .kind = BATCH_PUT},
        {.key = {slice_of_string("b"), 5, 6}, .kind = BATCH_PUT},
        {.key = {slice_of_string("b"), 5, 5}, .kind = BATCH_PUT},
        {.key = {slice_of_string("a~"), 5, 5}, .kind = BATCH_PUT},
    };
    for (size_t i = 0; i < 2 * sizeof behind / sizeof behind[0]; i++) {
        struct block_builder builder;
        block_builder_init(&builder, alloc_system(), BLOCK_INTERVAL, true);
        assert_int_equal(block_builder_add(&builder, &b), STATUS_OK);
        if (i % 2 == 1) {
            block_builder_reset(&builder); /* the order holds from block to block */
        }
        assert_int_equal(block_builder_add(&builder, &behind[i / 2]), STATUS_CORRUPT);
        block_builder_deinit(&builder);
    }
}

/* ---- Damage --------------------------------------------------------------------------------------------------- */

static void use_damaged(struct random *random, struct slice body) {
    if (block_cursor_open(&cursor, body) != STATUS_OK) {
        return;
    }
    enum status status = STATUS_NOT_FOUND;
    for (int i = 0; i < 60; i++) {
        const struct entry_key *target = &list.entries[random_below(random, list.count)].key;
        uint64_t choice = random_below(random, 10);
        if (status == STATUS_OK && choice < 7) {
            status = choice < 3 ? block_cursor_next(&cursor) : block_cursor_prev(&cursor);
        } else if (choice == 7) {
            status = block_cursor_last(&cursor);
        } else if (choice == 8) {
            status = block_cursor_find(&cursor, target->user, filter_hash(target->user), target->revision);
        } else {
            status = block_cursor_seek_before(&cursor, target);
        }
        if (status == STATUS_OK) {
            struct slice key = cursor.entry.key.user;
            struct slice value = cursor.entry.value;
            assert_true(key.len >= 1 && key.len <= LIMIT_KEY_BYTES);
            assert_true(value.data >= body.data && value.data + value.len <= body.data + cursor.entries_len);
            volatile uint8_t touched = key.data[key.len - 1];
            (void)touched;
        } else {
            assert_true(status == STATUS_NOT_FOUND || status == STATUS_CORRUPT);
        }
    }
}

static void test_h35_block_of_random_damage_never_leaves_its_bounds(void **state) {
    (void)state;
    struct block_builder builder;
    struct random random;
    random_seed(&random, 4);
    make_entries(60, 5);
    struct slice body = build(&builder, BLOCK_INTERVAL, true);
    for (int round = 0; round < 20000; round++) {
        size_t len = random_chance(&random, 1, 10) ? random_below(&random, body.len + 1) : body.len;
        uint8_t *damaged = malloc(len > 0 ? len : 1);
        memcpy(damaged, body.data + body.len - len, len);
        for (int i = 0; i < 3 && len > 0; i++) {
            size_t near_end = len - 1 - random_below(&random, len < 80 ? len : 80);
            damaged[random_chance(&random, 1, 2) ? near_end : random_below(&random, len)] =
                (uint8_t)random_below(&random, 256);
        }
        use_damaged(&random, slice_of(damaged, len));
        free(damaged);
    }
    block_builder_deinit(&builder);
}

/* The lengths of the last entry reach into restarts, buckets and tail, or behind the body. */
static void test_h35_block_entry_that_ends_behind_the_entries_is_corrupt(void **state) {
    (void)state;
    struct block_builder builder;
    list.count = 1;
    list.entries[0] =
        (struct entry){.key = {slice_of("key", 3), 7, 0}, .value = slice_of("value", 5), .kind = BATCH_PUT};
    struct slice body = build(&builder, BLOCK_INTERVAL, true);
    const struct entry_key *target = &list.entries[0].key;
    uint64_t hash = filter_hash(target->user);
    for (int at = 2; at <= 3; at++) { /* length of the rest of the key, of the value */
        for (int len = at == 2 ? 4 : 6; len <= 0x7f; len++) {
            uint8_t *damaged = malloc(body.len);
            memcpy(damaged, body.data, body.len);
            damaged[at] = (uint8_t)len;
            assert_int_equal(block_cursor_open(&cursor, slice_of(damaged, body.len)), STATUS_OK);
            assert_int_equal(block_cursor_first(&cursor), STATUS_CORRUPT);
            assert_int_equal(block_cursor_last(&cursor), STATUS_CORRUPT);
            assert_int_equal(block_cursor_seek(&cursor, target), STATUS_CORRUPT);
            assert_int_equal(block_cursor_find(&cursor, target->user, hash, 9), STATUS_CORRUPT);
            free(damaged);
        }
    }
    block_builder_deinit(&builder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h34_block_walks_turns_and_seeks_agree_with_a_list),
        cmocka_unit_test(test_block_walks_whole_in_both_directions),
        cmocka_unit_test(test_block_seeks_to_its_own_key),
        cmocka_unit_test(test_block_hash_index_answers_most_misses_at_once),
        cmocka_unit_test(test_block_of_very_many_restarts_has_no_hash_index),
        cmocka_unit_test(test_block_separators_and_extreme_versions_read_back),
        cmocka_unit_test(test_block_seeks_to_the_longest_and_the_empty_target),
        cmocka_unit_test(test_block_builder_refuses_entries_out_of_order),
        cmocka_unit_test(test_h35_block_of_random_damage_never_leaves_its_bounds),
        cmocka_unit_test(test_h35_block_entry_that_ends_behind_the_entries_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
