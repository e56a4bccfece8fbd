/*
 * Damage: the line between a torn tail and corruption, and bytes of other lives.
 *
 * What would break these: damage in the middle that is cut off silently; a torn tail that keeps a node from starting;
 * groups of an earlier life, out of order, or behind a recorded end that pass for the log; memory allocated for a
 * length that a file claims.
 */
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct disk_copy {
    uint8_t *bytes;
    uint64_t size;
};

static struct disk_copy copy_of(const struct fake_inode *inode) {
    struct disk_copy copy = {.bytes = malloc(inode->size), .size = inode->size};
    assert_non_null(copy.bytes);
    memcpy(copy.bytes, inode->seen, inode->size);
    return copy;
}

static bool is_unchanged(const struct fake_inode *inode, struct disk_copy copy) {
    bool same = inode->size == copy.size && memcmp(inode->seen, copy.bytes, copy.size) == 0;
    free(copy.bytes);
    return same;
}

/* ---- Torn or corrupt -------------------------------------------------------------------------------------------- */

/* h30: every subset of the sectors of the last group. It is there or it is cut; never a fault, never a loss before it.
 */
static void check_torn(size_t payload_len, uint32_t subset_count, uint64_t seed) {
    struct harness *harness = harness_ten_groups();
    struct random random;
    random_seed(&random, seed);
    assert_int_equal(harness_append_len(harness, 11, 4, payload_len), STATUS_OK);
    fake_turn(harness->fake);
    struct env_io *io = harness->fake->last_write;
    size_t len = io->len;
    uint64_t offset = io->offset;
    uint8_t *group = malloc(len);
    assert_non_null(group);
    memcpy(group, io->data, len);
    assert_true(fake_end_io(harness->fake, EIO)); /* it gets nowhere */
    fake_settle(harness->fake);
    harness_close(harness);
    size_t used = WAL_GROUP_HEADER_BYTES + WAL_RECORD_HEADER_BYTES + payload_len;
    uint32_t sectors = (uint32_t)(len / FAKE_SECTOR);
    uint64_t all = (1ull << (used + FAKE_SECTOR - 1) / FAKE_SECTOR) - 1;
    bool exhaustive = subset_count == 1ull << sectors;
    /* Each case starts on the same image. */
    struct fake_names names = harness->fake->seen;
    struct fake_inode *inode = harness_inode(harness, 1);
    struct disk_copy image = copy_of(inode);
    for (uint32_t i = 0; i < subset_count; i++) {
        uint64_t subset = exhaustive ? i : random_next(&random);
        for (uint32_t sector = 0; sector < sectors; sector++) {
            if ((subset >> sector & 1) != 0) {
                memcpy(inode->seen + offset + sector * FAKE_SECTOR, group + sector * FAKE_SECTOR, FAKE_SECTOR);
            }
        }
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_false(harness->recovered.fault.present);
        bool whole = (subset & all) == all;
        assert_int_equal(harness->recovered.last_index, whole ? 11 : 10);
        if (i % 16 == 0) {
            harness_replay(harness);
        }
        harness_close(harness);
        harness->fake->seen = names;
        memcpy(inode->seen, image.bytes, image.size);
        inode->size = image.size;
        for (size_t k = 1; k < names.count; k++) { /* the prepared segment was used: as new */
            if (names.list[k].inode != inode) {
                memset(names.list[k].inode->seen + 4096, 0, names.list[k].inode->size - 4096);
            }
        }
    }
    free(image.bytes);
    free(group);
    harness_free(harness);
}

static void test_h30_torn_last_group_is_cut(void **state) {
    (void)state;
    check_torn(3500, 256, 1);  /* one block: every subset of 8 sectors */
    check_torn(9000, 400, 2);  /* three blocks: some of 24 */
    check_torn(16000, 300, 3); /* a large one */
}

/* h30: any damage to a group that has good ones behind it is corruption, told with its place, and nothing is changed.
 */
static void test_h30_damage_in_the_middle_is_corruption(void **state) {
    (void)state;
    for (uint64_t n = 0; n < 10; n++) {
        for (uint64_t at = 0; at < 3160; at += n == 4 ? 13 : 397) {
            struct harness *harness = harness_ten_groups();
            harness_close(harness);
            uint64_t group = WAL_SEGMENT_HEADER_BYTES + n * WAL_BLOCK_BYTES; /* 0: start group, 1: state, 2: record 1 */
            if (n < 2 && at >= WAL_GROUP_HEADER_BYTES) {
                harness_free(harness);
                break;
            }
            struct fake_inode *inode = harness_inode(harness, 1);
            harness_flip(inode, group + at, (unsigned)(at % 8));
            struct disk_copy copy = copy_of(inode);
            size_t files = harness->fake->seen.count;
            assert_int_equal(harness_open(harness), STATUS_OK);
            struct wal_fault *fault = &harness->recovered.fault;
            assert_true(fault->present);
            assert_non_null(strstr(fault->where, "0000000000000001.log at "));
            assert_int_equal(fault->first_index, n < 2 ? 1 : n - 1);
            assert_int_equal(fault->last_index, 10);
            assert_int_equal(harness->recovered.term, 4); /* from behind the damage */
            assert_int_equal(harness->recovered.vote, 2);
            harness_replay(harness);
            assert_int_equal(harness->replayed, n < 2 ? 0 : n - 2);
            harness->fake->on_loop = true;
            assert_int_equal(wal_start(harness->wal, NULL), STATUS_FAILED);
            harness->fake->on_loop = false;
            harness_close(harness);
            assert_int_equal(harness->fake->seen.count, files);
            assert_true(is_unchanged(inode, copy));
            harness_free(harness);
        }
    }
}

/* The last group without a mark: the documented residual. With a mark: corruption. */
static void test_h30_damage_before_a_mark_is_corruption(void **state) {
    (void)state;
    for (int with_mark = 0; with_mark < 2; with_mark++) {
        struct harness *harness = harness_new(3);
        harness->options.mark_delay_us = with_mark != 0 ? 50000 : 0;
        harness_up(harness);
        harness_write(harness, 1, 3, 1);
        harness->fake->now_us += 100000;
        fake_settle(harness->fake);
        harness_close(harness);
        harness_flip(harness_inode(harness, 1), harness_group_offset(2) + 5, 3);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_int_equal(harness->recovered.fault.present, with_mark);
        assert_int_equal(harness->recovered.last_index, 2);
        harness_free(harness);
    }
}

static void damage_group(struct fake_inode *inode, uint64_t group, int how) {
    uint64_t offset = harness_group_offset(group);
    if (how == 0) {
        harness_flip(inode, offset + 200, 1);
    } else if (how == 1) { /* it is gone */
        memset(inode->seen + offset, 0, WAL_BLOCK_BYTES);
    } else if (how == 2) { /* it is the one before, again */
        memcpy(inode->seen + offset, inode->seen + harness_group_offset(group - 1), WAL_BLOCK_BYTES);
    } else {
        inode->size = offset;
    }
}

/* Damage at the end of a segment that another one follows is never a torn tail. Its very last group stands in the next
 * segment, too, and isn't asked for. */
static void test_h30_damage_at_the_end_of_an_old_segment_is_corruption(void **state) {
    (void)state;
    for (int how = 0; how < 4; how++) {
        for (uint64_t group = 9; group <= 10; group++) {
            struct harness *harness = harness_ten_groups();
            harness_reopen(harness); /* segment 2, with group 10 once more */
            harness_close(harness);
            damage_group(harness_inode(harness, 1), group, how);
            assert_int_equal(harness_open(harness), STATUS_OK);
            assert_int_equal(harness->recovered.fault.present, group == 9);
            if (group == 9) {
                assert_int_equal(harness->recovered.fault.first_index, 9);
            } else {
                assert_int_equal(harness->recovered.last_index, 10);
                harness_replay(harness);
            }
            harness_free(harness);
        }
    }
}

static void test_wal_damaged_segment_header_is_corruption(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_close(harness);
    harness_flip(harness_inode(harness, 1), 40, 0);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(harness->recovered.fault.present);
    harness_free(harness);
    harness = harness_ten_groups();
    harness_reopen(harness);
    harness_close(harness);
    harness_flip(harness_inode(harness, 1), 40, 0); /* of an older one */
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(harness->recovered.fault.present);
    harness_free(harness);
}

/* A start group of which only the header reached the disk still says what was there before it. */
static void test_h30_torn_start_group_tells_of_lost_groups(void **state) {
    (void)state;
    for (int lost = 0; lost < 2; lost++) {
        struct harness *harness = harness_ten_groups();
        uint8_t membership[1500];
        memset(membership, 9, sizeof membership);
        assert_int_equal(wal_set_membership(harness->wal, slice_of(membership, sizeof membership)), STATUS_OK);
        while (harness->wal->active->number == 1) {
            assert_int_equal(harness_append_len(harness, wal_last_index(harness->wal) + 1, 4, 3000), STATUS_OK);
            fake_turn(harness->fake);
            if (harness->wal->active->number == 2) {
                break; /* its start group is in flight */
            }
            fake_settle(harness->fake);
        }
        uint64_t last = wal_synced_index(harness->wal);
        struct env_io *io = harness->fake->last_write;
        memcpy(harness_inode(harness, 2)->seen + io->offset, io->data, FAKE_SECTOR);
        assert_true(fake_end_io(harness->fake, EIO));
        fake_settle(harness->fake);
        harness_close(harness);
        if (lost != 0) { /* rot took the last group of segment 1 */
            uint64_t offset = harness_inode(harness, 1)->size - 8 * (uint64_t)WAL_BLOCK_BYTES;
            while (memcmp(harness_inode(harness, 1)->seen + offset, "HFWALGRP", 8) != 0) {
                offset -= WAL_BLOCK_BYTES;
            }
            memset(harness_inode(harness, 1)->seen + offset, 0, WAL_BLOCK_BYTES);
        }
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_int_equal(harness->recovered.fault.present, lost);
        assert_int_equal(harness->recovered.last_index, last - (uint64_t)lost);
        harness_free(harness);
    }
}

static void *small_blocks_only(struct alloc *alloc, void *ptr, size_t size, size_t align) {
    (void)alloc;
    CHECK(size <= 8 * MIB);
    return alloc_system()->resize(alloc_system(), ptr, size, align);
}

/* h35: a sound header in a damaged place, a file shorter than it claims: no read or allocation beyond the file. */
static void test_h35_lengths_in_files_are_not_trusted(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_close(harness);
    struct fake_inode *inode = harness_inode(harness, 1);
    struct wal__group_header header;
    assert_int_equal(wal__group_header_decode(inode->seen + harness_group_offset(10), &header), STATUS_OK);
    header.total_bytes = 0xf0000000;
    header.record_count = 1000;
    uint32_t offsets[1000] = {0};
    uint8_t scratch[WAL_BLOCK_BYTES] = {0};
    memcpy(scratch, inode->seen + harness_group_offset(10), sizeof scratch);
    wal__group_seal(scratch, &header, offsets);
    memcpy(inode->seen + harness_group_offset(10), scratch, sizeof scratch);
    struct alloc guard = {.resize = small_blocks_only};
    harness->fake->env.alloc = &guard;
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_false(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.last_index, 9);
    harness_close(harness);
    harness->fake->env.alloc = &harness->fake->memory.base;
    harness_free(harness);
}

/* ---- Other lives ------------------------------------------------------------------------------------------------ */

/* h37: what an earlier life of the same blocks left behind the end doesn't pass for the log. */
static void test_h37_stale_groups_behind_the_end_are_ignored(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_reopen(harness);
    harness_start(harness);
    fake_settle(harness->fake);
    harness_append_ok(harness, 11, 11, 4);
    fake_settle(harness->fake);
    harness_close(harness);
    struct fake_inode *old = harness_inode(harness, 1);
    struct fake_inode *now = harness_inode(harness, 2);
    memcpy(now->seen + WAL_FIRST_RECORDS_OFFSET + 2 * WAL_BLOCK_BYTES, old->seen + harness_group_offset(1),
           8 * WAL_BLOCK_BYTES);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_false(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.last_index, 11);
    assert_true(harness->recovered.torn_bytes > 0);
    harness_replay(harness);
    harness_free(harness);
}

/* h37: a group that is missing or doubled in the middle breaks the chain, although every group is sound. */
static void test_h37_lost_or_doubled_group_is_corruption(void **state) {
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct harness *harness = harness_ten_groups();
        harness_close(harness);
        struct fake_inode *inode = harness_inode(harness, 1);
        uint8_t *from = inode->seen + harness_group_offset(5);
        if (kind == 0) { /* all later ones moved up */
            memmove(from, from + WAL_BLOCK_BYTES, 5 * WAL_BLOCK_BYTES);
            memset(inode->seen + harness_group_offset(10), 0, WAL_BLOCK_BYTES);
        } else if (kind == 1) {
            memcpy(from + WAL_BLOCK_BYTES, from, WAL_BLOCK_BYTES);
        } else {
            memset(from, 0, WAL_BLOCK_BYTES);
        }
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_true(harness->recovered.fault.present);
        assert_int_equal(harness->recovered.fault.first_index, kind == 1 ? 6 : 5);
        harness_free(harness);
    }
}

/* Seals a group of segment 1 anew after a change: every checksum of its own is right. */
static void reseal(struct harness *harness, uint64_t n, void (*change)(struct wal__group_header *header)) {
    uint8_t *group = harness_inode(harness, 1)->seen + harness_group_offset(n);
    struct wal__group_header header;
    uint32_t offset = WAL_GROUP_HEADER_BYTES;
    assert_int_equal(wal__group_header_decode(group, &header), STATUS_OK);
    assert_int_equal(header.record_count, 1);
    change(&header);
    wal__group_seal(group, &header, &offset);
}

static void change_vote(struct wal__group_header *header) { header->vote++; }
static void change_sequence(struct wal__group_header *header) { header->sequence++; }
static void change_term(struct wal__group_header *header) { header->term--; }

/* h37: a group that is sound in itself but isn't the one that the next was written behind. */
static void test_h37_replaced_group_is_corruption(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_close(harness);
    reseal(harness, 5, change_vote);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.fault.first_index, 6);
    harness_free(harness);
    void (*const changes[])(struct wal__group_header * header) = {change_sequence, change_term};
    for (size_t i = 0; i < 2; i++) { /* the last group: not torn, and not what can have been written there */
        harness = harness_ten_groups();
        harness_close(harness);
        reseal(harness, 10, changes[i]);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_true(harness->recovered.fault.present);
        assert_int_equal(harness->recovered.last_index, 9);
        harness_free(harness);
    }
}

/* A write that lands after recovery has cut it off (a killed process's, still in the kernel) stays cut off. */
static void test_wal_late_write_behind_the_recorded_end_is_ignored(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_append_ok(harness, 11, 11, 4);
    fake_turn(harness->fake);
    struct env_io *io = harness->fake->last_write;
    uint8_t group[WAL_BLOCK_BYTES];
    assert_int_equal(io->len, sizeof group);
    memcpy(group, io->data, sizeof group);
    uint64_t offset = io->offset;
    assert_true(fake_end_io(harness->fake, EIO));
    fake_settle(harness->fake);
    harness_close(harness);
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, 10);
    wal_set_state(harness->wal, 9, 1);
    harness_append_ok(harness, 11, 12, 9);
    fake_settle(harness->fake);
    harness_close(harness);
    struct fake_inode *old = harness_inode(harness, 1);
    fake_grow(old, offset + sizeof group);
    memcpy(old->seen + offset, group, sizeof group);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_false(harness->recovered.fault.present);
    harness_replay(harness);
    assert_int_equal(harness->recovered.last_index, 12);
    assert_int_equal(harness->terms[11], 9);
    harness_free(harness);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h30_torn_last_group_is_cut),
        cmocka_unit_test(test_h30_damage_in_the_middle_is_corruption),
        cmocka_unit_test(test_h30_damage_before_a_mark_is_corruption),
        cmocka_unit_test(test_h30_damage_at_the_end_of_an_old_segment_is_corruption),
        cmocka_unit_test(test_wal_damaged_segment_header_is_corruption),
        cmocka_unit_test(test_h30_torn_start_group_tells_of_lost_groups),
        cmocka_unit_test(test_h35_lengths_in_files_are_not_trusted),
        cmocka_unit_test(test_h37_stale_groups_behind_the_end_are_ignored),
        cmocka_unit_test(test_h37_lost_or_doubled_group_is_corruption),
        cmocka_unit_test(test_h37_replaced_group_is_corruption),
        cmocka_unit_test(test_wal_late_write_behind_the_recorded_end_is_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
