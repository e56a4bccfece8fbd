/*
 * Opening: what a log says after crashes, and the line between a torn tail and corruption.
 *
 * What would break these: damage in the middle that is cut off silently; a torn tail that keeps a node from starting;
 * bytes of an earlier life, or behind a recorded end, that pass for the log; a segment that is deleted or damaged by
 * recovery although it is needed; term, vote or membership that go with old segments; memory allocated for a length
 * that a file claims.
 */
#include "node/base/checksum.h"
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Ten groups of one record and some thousand bytes each in segment 1, marks off. */
static struct harness *ten_groups(void) {
    struct harness *harness = harness_new(3);
    harness_up(harness);
    wal_set_state(harness->wal, 4, 2);
    fake_settle(harness->fake);
    for (uint64_t index = 1; index <= 10; index++) {
        assert_int_equal(harness_append_len(harness, index, 4, 3000), STATUS_OK);
        fake_settle(harness->fake);
    }
    return harness;
}

/* Start group and state group come before them. */
static uint64_t offset_of_group(uint64_t n) { return WAL_FIRST_RECORDS_OFFSET + n * WAL_BLOCK_BYTES; }

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

static void reopen(struct harness *harness) {
    if (harness->wal != NULL) {
        harness_close(harness);
    }
    assert_int_equal(harness_open(harness), STATUS_OK);
}

/* ---- Simple cases ----------------------------------------------------------------------------------------------- */

static void test_wal_open_new_store_is_empty(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_int_equal(harness->recovered.last_index, 0);
    assert_int_equal(harness->recovered.first_index, 1);
    assert_int_equal(harness->recovered.term, 0);
    assert_int_equal(harness->recovered.membership.len, 0);
    assert_false(harness->recovered.fault.present);
    harness_close(harness); /* also right after opening */
    harness_free(harness);
}

static void test_wal_open_again_finds_everything(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    uint64_t last = 0;
    for (uint64_t term = 1; term <= 6; term++) {
        harness_up(harness);
        assert_int_equal(harness->recovered.last_index, last);
        assert_int_equal(harness->recovered.term, term - 1);
        wal_set_state(harness->wal, term, term * 10);
        harness_append_ok(harness, last + 1, last + 20, term);
        fake_settle(harness->fake);
        wal_set_commit(harness->wal, last + 7);
        harness_append_ok(harness, last + 21, last + 22, term);
        fake_settle(harness->fake);
        harness_close(harness);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_int_equal(harness->recovered.commit, last + 7);
        assert_int_equal(harness->recovered.vote, term * 10);
        last += 22;
        harness_replay(harness);
        assert_int_equal(harness->replayed, last);
        assert_int_equal(harness->terms[last], term);
        harness_close(harness);
    }
    harness_free(harness);
}

static void test_wal_open_puts_uncommitted_tail_in_memory(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness_up(harness);
    harness_append_ok(harness, 1, 10, 1);
    fake_settle(harness->fake);
    wal_set_commit(harness->wal, 6);
    harness_append_ok(harness, 11, 15, 1);
    fake_settle(harness->fake);
    harness_append_ok(harness, 12, 13, 2); /* cuts */
    fake_settle(harness->fake);
    harness_crash(harness);
    harness_up(harness);
    assert_int_equal(harness->recovered.commit, 6);
    for (uint64_t index = 7; index <= 13; index++) {
        struct wal_record record;
        assert_int_equal(wal_cached_record(harness->wal, index, &record), STATUS_OK);
        assert_int_equal(record.term, index < 12 ? 1 : 2);
        assert_true(harness_is_right(&record, index, record.term, harness_payload_len(index, record.term)));
    }
    harness_write(harness, 14, 16, 2);
    harness_write(harness, 9, 9, 3); /* cuts what recovery loaded */
    harness_crash(harness);
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, 9);
    harness_free(harness);
}

static void test_wal_open_refuses_anothers_log(void **state) {
    (void)state;
    struct harness *harness = ten_groups();
    harness_close(harness);
    harness->options.node_id = 8;
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options.node_id = 7;
    harness->options.cluster_id[0] ^= 1;
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options.cluster_id[0] ^= 1;
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_free(harness);
}

static void test_wal_open_refuses_newer_format(void **state) {
    (void)state;
    struct harness *harness = ten_groups();
    harness_close(harness);
    struct fake_inode *inode = harness_inode(harness, 1);
    uint8_t saved[WAL_SEGMENT_HEADER_BYTES];
    memcpy(saved, inode->seen, sizeof saved);
    inode->seen[8] = 2;
    assert_int_equal(harness_open(harness), STATUS_OK); /* a flipped bit there is damage, ... */
    assert_true(harness->recovered.fault.present);
    harness_close(harness);
    memcpy(inode->seen, saved, sizeof saved);
    uint64_t seed = 0x686f6c6466736567;
    inode->seen[8] = 2; /* ... a sound header that says so is another format */
    put_u64(inode->seen + sizeof saved - 8, checksum64(inode->seen, sizeof saved - 8, seed));
    assert_int_equal(harness_open(harness), STATUS_UNSUPPORTED);
    memcpy(inode->seen, saved, sizeof saved);
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_free(harness);
}

static void test_wal_open_checks_options(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    struct wal_options sound = harness->options;
    harness->options.segment_bytes = 4 * HARNESS_ENTRY_MAX; /* four entries, but not their headers */
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options = sound;
    harness->options.segment_bytes += 512;
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options = sound;
    harness->options.prepared_segments = 0;
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options = sound;
    harness->options.group_bytes_max = (uint32_t)sound.segment_bytes;
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options = sound;
    harness->options.segment_bytes = 72 * MIB; /* the default is enough for the largest entries */
    harness->options.entry_payload_bytes_max = LIMIT_ENTRY_PAYLOAD_BYTES;
    harness->options.group_bytes_max = LIMIT_GROUP_BYTES;
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_free(harness);
}

/* ---- Torn or corrupt -------------------------------------------------------------------------------------------- */

/* h30: every subset of the sectors of the last group. It is there or it is cut; never a fault, never a loss before it.
 */
static void check_torn(size_t payload_len, uint32_t subset_count, uint64_t seed) {
    struct harness *harness = ten_groups();
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
            struct harness *harness = ten_groups();
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
        harness_flip(harness_inode(harness, 1), offset_of_group(2) + 5, 3);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_int_equal(harness->recovered.fault.present, with_mark);
        assert_int_equal(harness->recovered.last_index, 2);
        harness_free(harness);
    }
}

/* Damage at the end of a segment that another one follows is never a torn tail. */
static void test_h30_damage_at_the_end_of_an_old_segment_is_corruption(void **state) {
    (void)state;
    for (int damage = 0; damage < 4; damage++) {
        struct harness *harness = ten_groups();
        reopen(harness); /* segment 2, without records */
        harness_close(harness);
        struct fake_inode *old = harness_inode(harness, 1);
        if (damage == 0) {
            harness_flip(old, offset_of_group(10) + 200, 1);
        } else if (damage == 1) { /* the last group is gone */
            memset(old->seen + offset_of_group(10), 0, WAL_BLOCK_BYTES);
        } else if (damage == 2) { /* the last group is the one before, again */
            memcpy(old->seen + offset_of_group(10), old->seen + offset_of_group(9), WAL_BLOCK_BYTES);
        } else {
            old->size -= WAL_BLOCK_BYTES;
        }
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_true(harness->recovered.fault.present);
        assert_int_equal(harness->recovered.fault.first_index, 10);
        harness_free(harness);
    }
}

static void test_wal_damaged_segment_header_is_corruption(void **state) {
    (void)state;
    struct harness *harness = ten_groups();
    harness_close(harness);
    harness_flip(harness_inode(harness, 1), 40, 0);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(harness->recovered.fault.present);
    harness_free(harness);
    harness = ten_groups();
    reopen(harness);
    harness_close(harness);
    harness_flip(harness_inode(harness, 1), 40, 0); /* of an older one */
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(harness->recovered.fault.present);
    harness_free(harness);
}

/* ---- Other lives ------------------------------------------------------------------------------------------------ */

/* h37: what an earlier life of the same blocks left behind the end doesn't pass for the log. */
static void test_h37_stale_groups_behind_the_end_are_ignored(void **state) {
    (void)state;
    struct harness *harness = ten_groups();
    reopen(harness);
    harness_start(harness);
    fake_settle(harness->fake);
    harness_append_ok(harness, 11, 11, 4);
    fake_settle(harness->fake);
    harness_close(harness);
    struct fake_inode *old = harness_inode(harness, 1);
    struct fake_inode *now = harness_inode(harness, 2);
    memcpy(now->seen + WAL_FIRST_RECORDS_OFFSET + WAL_BLOCK_BYTES, old->seen + offset_of_group(1), 8 * WAL_BLOCK_BYTES);
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
        struct harness *harness = ten_groups();
        harness_close(harness);
        struct fake_inode *inode = harness_inode(harness, 1);
        uint8_t *from = inode->seen + offset_of_group(5);
        if (kind == 0) { /* all later ones moved up */
            memmove(from, from + WAL_BLOCK_BYTES, 5 * WAL_BLOCK_BYTES);
            memset(inode->seen + offset_of_group(10), 0, WAL_BLOCK_BYTES);
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
    uint8_t *group = harness_inode(harness, 1)->seen + offset_of_group(n);
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
    struct harness *harness = ten_groups();
    harness_close(harness);
    reseal(harness, 5, change_vote);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.fault.first_index, 6);
    harness_free(harness);
    void (*const changes[])(struct wal__group_header * header) = {change_sequence, change_term};
    for (size_t i = 0; i < 2; i++) { /* the last group: not torn, and not what can have been written there */
        harness = ten_groups();
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
    struct harness *harness = ten_groups();
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

/* ---- Files that a crash left ------------------------------------------------------------------------------------ */

/* h42: whatever is left of a segment that was being made, the log opens. */
static void test_h42_half_made_segments_are_removed(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct harness *harness = ten_groups();
        harness_close(harness);
        struct fake_inode *inode = harness_inode(harness, 2); /* the prepared one */
        if (kind == 0) {
            inode->size = 0;
        } else if (kind == 1) {
            inode->size = 1000;
        } else if (kind == 2) {
            memset(inode->seen, 0, 4096);
        } else {
            harness_flip(inode, 100, 1);
        }
        struct fake_inode *temporary = fake_inode_new(harness->fake);
        fake_grow(temporary, 12345);
        fake_put(&harness->fake->seen, "/wal/0000000000000003.log.tmp", temporary);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_false(harness->recovered.fault.present);
        assert_int_equal(harness->recovered.last_index, 10);
        assert_null(fake_file_at(harness->fake, "/wal/0000000000000003.log.tmp"));
        assert_null(fake_file_at(harness->fake, harness_segment(2)));
        assert_non_null(fake_file_at(harness->fake, harness_segment(3))); /* a number is never used twice */
        harness_start(harness);
        fake_settle(harness->fake);
        harness_write(harness, 11, 12, 4);
        harness_free(harness);
    }
}

static void test_h42_first_opening_interrupted_anywhere_opens(void **state) {
    (void)state;
    for (uint64_t calls = 1; calls < 20; calls++) {
        for (uint64_t seed = 1; seed <= 6; seed++) {
            struct harness *harness = harness_new(seed);
            harness->fake->dead_after = calls;
            if (harness_open(harness) == STATUS_OK) {
                harness_close(harness);
            }
            fake_lose_power(harness->fake);
            fake_reboot(harness->fake);
            harness->wal = NULL;
            harness_up(harness);
            assert_int_equal(harness->recovered.last_index, 0);
            harness_write(harness, 1, 2, 1);
            harness_free(harness);
        }
    }
}

/* h28: a segment is never written to before its name is durable. */
static void test_h28_directory_is_synced_before_a_segment_is_used(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct harness *harness = harness_new(seed);
        harness_up(harness);
        harness_write(harness, 1, 120, 1); /* three segments */
        harness_crash(harness);            /* unsynced names are lost at random */
        harness_up(harness);
        assert_int_equal(harness->recovered.last_index, 120);
        harness_free(harness);
    }
}

static void test_wal_prepared_segment_is_used_again(void **state) {
    (void)state;
    struct harness *harness = ten_groups();
    harness_close(harness);
    assert_int_equal(harness->fake->seen.count, 2);
    uint64_t syncs = harness->fake->counts.renames;
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_int_equal(harness->fake->counts.renames, syncs); /* none was made */
    assert_int_equal(harness->wal->active->number, 2);
    harness_free(harness);
}

/* A torn start group: its segment isn't written to again. */
static void test_wal_segment_with_torn_start_is_replaced(void **state) {
    (void)state;
    struct harness *harness = ten_groups();
    reopen(harness);
    assert_int_equal(harness->wal->active->number, 2);
    harness_close(harness);
    memset(harness_inode(harness, 2)->seen + WAL_SEGMENT_HEADER_BYTES, 0, FAKE_SECTOR);
    harness_inode(harness, 2)->seen[WAL_SEGMENT_HEADER_BYTES + 2 * FAKE_SECTOR] = 1; /* a later sector made it */
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_false(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.last_index, 10);
    assert_int_equal(harness->recovered.torn_bytes, WAL_BLOCK_BYTES);
    assert_int_equal(harness->wal->active->number, 3);
    assert_null(fake_file_at(harness->fake, harness_segment(2)));
    harness_free(harness);
}

/* Restarts without traffic don't pile up prepared space. */
static void test_wal_restarts_give_space_back(void **state) {
    (void)state;
    struct harness *harness = ten_groups();
    for (int i = 0; i < 20; i++) {
        harness_close(harness);
        harness_up(harness);
    }
    assert_true(fake_used_bytes(harness->fake) < 4 * harness->options.segment_bytes);
    harness_free(harness);
}

/* ---- Deleting --------------------------------------------------------------------------------------------------- */

/* h41: everything but the last segment is deleted, and nothing is forgotten. */
static void test_h41_deleted_log_keeps_term_vote_and_membership(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness_up(harness);
    wal_set_state(harness->wal, 6, 3);
    assert_int_equal(wal_set_membership(harness->wal, slice_of_string("n1 n2 n3")), STATUS_OK);
    harness_write(harness, 1, 120, 6);
    wal_set_commit(harness->wal, 120);
    wal_set_applied(harness->wal, 120);
    wal_set_floor(harness->wal, 120, UINT64_MAX);
    fake_settle(harness->fake);
    struct wal_stats stats;
    wal_get_stats(harness->wal, &stats);
    assert_int_equal(stats.segments_deleted, 2);
    assert_int_equal(stats.segments, 2); /* the active and a prepared one */
    uint64_t first = wal_first_index(harness->wal);
    assert_true(first > 90);
    harness_crash(harness);
    harness->frontier = (struct wal_frontier){.index = 120, .term = 6};
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_false(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.term, 6);
    assert_int_equal(harness->recovered.vote, 3);
    assert_true(slice_equal(harness->recovered.membership, slice_of_string("n1 n2 n3")));
    assert_int_equal(harness->recovered.first_index, first);
    assert_int_equal(harness->recovered.start_term, 6);
    assert_int_equal(harness->recovered.last_index, 120);
    harness_start(harness);
    fake_settle(harness->fake);
    harness_write(harness, 121, 122, 6);
    harness_free(harness);
}

/* h40, this side of it: the floor is the smaller of both, and a segment stays if any record in it is above. */
static void test_h40_deletion_respects_flushed_and_pin(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness_up(harness);
    harness_write(harness, 1, 120, 1);
    wal_set_commit(harness->wal, 120);
    uint64_t last_of_first = harness->wal->index.entries[harness->wal->index.start].segment->max_index;
    wal_set_floor(harness->wal, 120, last_of_first - 1);
    fake_settle(harness->fake);
    assert_int_equal(harness->wal->stats.segments_deleted, 0);
    wal_set_floor(harness->wal, last_of_first - 1, 120);
    fake_settle(harness->fake);
    assert_int_equal(harness->wal->stats.segments_deleted, 0);
    wal_set_floor(harness->wal, last_of_first, 120);
    fake_settle(harness->fake);
    assert_int_equal(harness->wal->stats.segments_deleted, 1);
    assert_int_equal(wal_first_index(harness->wal), last_of_first + 1);
    harness_crash(harness);
    harness->frontier = (struct wal_frontier){.index = last_of_first, .term = 1};
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_replay(harness);
    assert_int_equal(harness->replayed, 120 - last_of_first);
    harness_free(harness);
}

/* The previous segment stays until the next one holds something durable. */
static void test_h41_deletion_waits_for_a_durable_start_group(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness_up(harness);
    wal_set_state(harness->wal, 2, 2);
    fake_settle(harness->fake);
    uint64_t index = 0;
    while (wal__room(harness->wal, harness->wal->active) >= 8192) {
        index++;
        assert_int_equal(harness_append_len(harness, index, 2, 4000), STATUS_OK);
        fake_settle(harness->fake);
    }
    wal_set_commit(harness->wal, index);
    assert_int_equal(harness_append_len(harness, index + 1, 2, 4000), STATUS_OK);
    fake_turn(harness->fake); /* the start group of segment 2 is in flight */
    assert_int_equal(harness->wal->active->number, 2);
    wal_set_floor(harness->wal, index, index);
    fake_turn(harness->fake);
    while (fake_run_work(harness->fake)) {
    }
    assert_int_equal(harness->fake->counts.unlinks, 0);
    harness_crash(harness); /* it never gets there */
    harness->frontier = (struct wal_frontier){.index = index, .term = 2};
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_int_equal(harness->recovered.term, 2);
    harness_free(harness);
}

/* ---- The frontier ----------------------------------------------------------------------------------------------- */

static void test_wal_frontier_beyond_the_log_resets_it(void **state) {
    (void)state;
    for (int twice = 0; twice < 2; twice++) {
        struct harness *harness = ten_groups();
        harness_close(harness);
        harness->frontier = (struct wal_frontier){.index = 50, .term = 3};
        for (int i = 0; i <= twice; i++) {
            reopen(harness);
            assert_int_equal(harness->recovered.last_index, 50);
            assert_int_equal(harness->recovered.first_index, 51);
            assert_int_equal(harness->recovered.start_term, 3);
            assert_int_equal(harness->recovered.commit, 50);
            assert_int_equal(harness->recovered.term, 4);
            assert_int_equal(harness->recovered.vote, 2);
        }
        harness_start(harness);
        fake_settle(harness->fake);
        harness_write(harness, 51, 53, 4);
        harness_crash(harness);
        harness_up(harness);
        assert_int_equal(harness->recovered.last_index, 53);
        assert_int_equal(harness->recovered.first_index, 51);
        harness_free(harness);
    }
}

static void test_wal_frontier_with_another_term_resets_the_log(void **state) {
    (void)state;
    struct harness *harness = ten_groups();
    harness->frontier = (struct wal_frontier){.index = 5, .term = 4};
    reopen(harness);
    assert_int_equal(harness->recovered.last_index, 10);
    harness->frontier = (struct wal_frontier){.index = 5, .term = 3};
    reopen(harness);
    assert_int_equal(harness->recovered.last_index, 5);
    assert_int_equal(harness->recovered.first_index, 6);
    harness_free(harness);
}

static void test_wal_missing_segments_below_the_frontier_are_fine(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness_up(harness);
    harness_write(harness, 1, 170, 1); /* four segments */
    assert_true(harness->wal->active->number >= 3);
    uint64_t last_of_second = 0; /* what is in segments 1 and 2 */
    LIST_FOREACH (node, &harness->wal->segments) {
        const struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        last_of_second = segment->number == 2 ? segment->max_index : last_of_second;
    }
    harness_close(harness);
    fake_take(&harness->fake->seen, harness_segment(2)); /* a deletion of 1 and 2 of which only one became durable */
    harness->frontier = (struct wal_frontier){.index = last_of_second - 1, .term = 1};
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(harness->recovered.fault.present); /* one entry that is needed is missing */
    assert_int_equal(harness->recovered.fault.first_index, last_of_second);
    assert_int_equal(harness->recovered.fault.last_index, last_of_second);
    harness_close(harness);
    harness->frontier = (struct wal_frontier){.index = last_of_second, .term = 1};
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_false(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.last_index, 170);
    assert_int_equal(harness->recovered.first_index, last_of_second + 1);
    assert_null(fake_file_at(harness->fake, harness_segment(1))); /* of no use any more */
    harness_replay(harness);
    harness_close(harness);
    harness_free(harness);
}

/* h41: the manifest holds an entry of a term that the log has never heard of: its end is gone, votes included. */
static void test_h41_log_older_than_manifest_is_refused(void **state) {
    (void)state;
    struct harness *harness = ten_groups();
    harness_close(harness);
    harness->frontier = (struct wal_frontier){.index = 12, .term = 5};
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(harness->recovered.fault.present);
    harness_free(harness);
}

/* h41: without any log, term and vote are unknown: a node that has data doesn't start as if it were new. */
static void test_h41_lost_log_with_data_is_refused(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness->frontier = (struct wal_frontier){.index = 5, .term = 1};
    assert_int_equal(harness_open(harness), STATUS_CORRUPT);
    harness_free(harness);
}

/* ---- Failures while opening ------------------------------------------------------------------------------------- */

static void test_wal_open_without_memory_leaves_no_trace(void **state) {
    (void)state;
    uint64_t failures = 0;
    for (uint64_t n = 1; n < 200; n++) {
        struct harness *harness = ten_groups();
        harness_close(harness);
        test_alloc_fail(&harness->fake->memory, n, false);
        enum status status = harness_open(harness);
        test_alloc_fail(&harness->fake->memory, 0, false);
        if (status == STATUS_OK) {
            harness_free(harness);
            break;
        }
        failures++;
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_int_equal(harness->fake->memory.live_blocks, 0);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_int_equal(harness->recovered.last_index, 10);
        harness_free(harness);
    }
    assert_in_range(failures, 10, 150);
}

static void test_wal_open_io_error_anywhere_is_told_and_harmless(void **state) {
    (void)state;
    uint64_t failures = 0;
    for (uint64_t n = 1; n < 100; n++) {
        struct harness *harness = ten_groups();
        harness_crash(harness);
        harness->fake->dead_after = n;
        enum status status = harness_open(harness);
        harness->fake->dead_after = 0;
        if (status == STATUS_OK) {
            harness_free(harness);
            break;
        }
        failures++;
        assert_int_equal(status, STATUS_IO);
        assert_int_equal(harness->fake->memory.live_blocks, 0);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_int_equal(harness->recovered.last_index, 10);
        harness_free(harness);
    }
    assert_in_range(failures, 10, 90);
}

static void *small_blocks_only(struct alloc *alloc, void *ptr, size_t size, size_t align) {
    (void)alloc;
    CHECK(size <= 8 * MIB);
    return alloc_system()->resize(alloc_system(), ptr, size, align);
}

/* h35: a sound header in a damaged place, a file shorter than it claims: no read or allocation beyond the file. */
static void test_h35_lengths_in_files_are_not_trusted(void **state) {
    (void)state;
    struct harness *harness = ten_groups();
    harness_close(harness);
    struct fake_inode *inode = harness_inode(harness, 1);
    struct wal__group_header header;
    assert_int_equal(wal__group_header_decode(inode->seen + offset_of_group(10), &header), STATUS_OK);
    header.total_bytes = 0xf0000000;
    header.record_count = 1000;
    uint32_t offsets[1000] = {0};
    uint8_t scratch[WAL_BLOCK_BYTES] = {0};
    memcpy(scratch, inode->seen + offset_of_group(10), sizeof scratch);
    wal__group_seal(scratch, &header, offsets);
    memcpy(inode->seen + offset_of_group(10), scratch, sizeof scratch);
    struct alloc guard = {.resize = small_blocks_only};
    harness->fake->env.alloc = &guard;
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_false(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.last_index, 9);
    harness_close(harness);
    harness->fake->env.alloc = &harness->fake->memory.base;
    harness_free(harness);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_open_new_store_is_empty),
        cmocka_unit_test(test_wal_open_again_finds_everything),
        cmocka_unit_test(test_wal_open_puts_uncommitted_tail_in_memory),
        cmocka_unit_test(test_wal_open_refuses_anothers_log),
        cmocka_unit_test(test_wal_open_refuses_newer_format),
        cmocka_unit_test(test_wal_open_checks_options),
        cmocka_unit_test(test_h30_torn_last_group_is_cut),
        cmocka_unit_test(test_h30_damage_in_the_middle_is_corruption),
        cmocka_unit_test(test_h30_damage_before_a_mark_is_corruption),
        cmocka_unit_test(test_h30_damage_at_the_end_of_an_old_segment_is_corruption),
        cmocka_unit_test(test_wal_damaged_segment_header_is_corruption),
        cmocka_unit_test(test_h37_stale_groups_behind_the_end_are_ignored),
        cmocka_unit_test(test_h37_lost_or_doubled_group_is_corruption),
        cmocka_unit_test(test_h37_replaced_group_is_corruption),
        cmocka_unit_test(test_wal_late_write_behind_the_recorded_end_is_ignored),
        cmocka_unit_test(test_h42_half_made_segments_are_removed),
        cmocka_unit_test(test_h42_first_opening_interrupted_anywhere_opens),
        cmocka_unit_test(test_h28_directory_is_synced_before_a_segment_is_used),
        cmocka_unit_test(test_wal_prepared_segment_is_used_again),
        cmocka_unit_test(test_wal_segment_with_torn_start_is_replaced),
        cmocka_unit_test(test_wal_restarts_give_space_back),
        cmocka_unit_test(test_h41_deleted_log_keeps_term_vote_and_membership),
        cmocka_unit_test(test_h40_deletion_respects_flushed_and_pin),
        cmocka_unit_test(test_h41_deletion_waits_for_a_durable_start_group),
        cmocka_unit_test(test_wal_frontier_beyond_the_log_resets_it),
        cmocka_unit_test(test_wal_frontier_with_another_term_resets_the_log),
        cmocka_unit_test(test_wal_missing_segments_below_the_frontier_are_fine),
        cmocka_unit_test(test_h41_lost_log_with_data_is_refused),
        cmocka_unit_test(test_h41_log_older_than_manifest_is_refused),
        cmocka_unit_test(test_wal_open_without_memory_leaves_no_trace),
        cmocka_unit_test(test_wal_open_io_error_anywhere_is_told_and_harmless),
        cmocka_unit_test(test_h35_lengths_in_files_are_not_trusted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
