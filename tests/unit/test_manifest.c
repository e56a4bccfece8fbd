/*
 * The manifest: edits as bytes, the state they add up to, and what a crash or rot makes of the file.
 *
 * Would break these: a torn tail taken for corruption or rot for a torn tail, a flipped bit that changes the state
 * unnoticed, a stale or misplaced record that passes, an unknown field that is dropped, a frontier that goes back, a
 * change of the format.
 */
#include "node/base/bytes.h"
#include "node/base/checksum.h"
#include "storage/manifest.h"

#include "node/base/random.h"
#include "tests/unit/golden.h"
#include "tests/unit/support/support.h"

#include <string.h>

enum { FILE_BYTES_MAX = 64 * 1024, NUMBER = 9 };

static const struct manifest_identity identity = {.cluster_id = "cluster-of-tests", .node_id = 3};

struct sample {
    uint8_t bytes[FILE_BYTES_MAX];
    size_t len;
    size_t edit_at[8];
    size_t mark_at[8];
    unsigned edits;
};

static void sample_begin(struct sample *sample) {
    memset(sample, 0, sizeof *sample);
    manifest_header_encode(sample->bytes, &identity, NUMBER);
    sample->len = MANIFEST_BLOCK_BYTES;
}

static void sample_add(struct sample *sample, struct slice payload) {
    size_t len = manifest_edit_bytes(payload.len);
    unsigned n = sample->edits++;
    assert_true(sample->len + len + MANIFEST_BLOCK_BYTES <= FILE_BYTES_MAX);
    sample->edit_at[n] = sample->len;
    sample->mark_at[n] = sample->len + len;
    manifest_edit_seal(sample->bytes + sample->len, payload, NUMBER, n + 1, sample->len);
    manifest_mark_seal(sample->bytes + sample->mark_at[n], NUMBER, n + 1, sample->mark_at[n]);
    sample->len = sample->mark_at[n] + MANIFEST_BLOCK_BYTES;
}

/* Every number another one. */
static struct sst_meta meta_of(uint64_t number) {
    return (struct sst_meta){.number = number,
                             .id = number * 1000,
                             .size_bytes = 5000 + number,
                             .checksum = ~number,
                             .entries = 100 + number,
                             .deletes = 30 + number,
                             .tombstones = 20 + number,
                             .superseded = 10 + number,
                             .superseded_until = number,
                             .key_bytes = 700 + number,
                             .value_bytes = 8000 + number,
                             .revision_first = number,
                             .revision_last = number + 1,
                             .smallest = slice_of("a\0", 2),
                             .largest = slice_of_string("zebra"),
                             .largest_excluded = number % 2 == 1};
}

static void put_add(struct buf *out, unsigned level, uint64_t number) {
    struct sst_meta meta = meta_of(number);
    assert_int_equal(manifest_put_next_file(out, number + 1), STATUS_OK);
    assert_int_equal(manifest_put_add_file(out, level, &meta), STATUS_OK);
}

static void put_frontier(struct buf *out, uint64_t index) {
    struct storage_frontier frontier = {.index = index,
                                        .term = 2,
                                        .cluster_time_ms = index * 5,
                                        .horizon = index / 2,
                                        .feature_level = 1,
                                        .session_epoch = 77,
                                        .membership_len = 4};
    memset(frontier.digest, 0xd1, sizeof frontier.digest);
    memcpy(frontier.membership, "abcd", 4);
    assert_int_equal(manifest_put_frontier(out, &frontier), STATUS_OK);
}

/* Snapshot; two flushes; a compaction. */
static void sample_make(struct sample *sample) {
    struct buf edit;
    buf_init(&edit, alloc_system(), 0);
    sample_begin(sample);
    assert_int_equal(manifest_put_next_file(&edit, 1), STATUS_OK);
    sample_add(sample, buf_slice(&edit));
    for (uint64_t number = 1; number <= 2; number++) {
        buf_clear(&edit);
        put_frontier(&edit, number * 10);
        put_add(&edit, 0, number);
        sample_add(sample, buf_slice(&edit));
    }
    buf_clear(&edit);
    assert_int_equal(manifest_put_horizon(&edit, 8), STATUS_OK);
    assert_int_equal(manifest_put_remove_file(&edit, 0, 1), STATUS_OK);
    assert_int_equal(manifest_put_remove_file(&edit, 0, 2), STATUS_OK);
    put_add(&edit, 6, 3);
    sample_add(sample, buf_slice(&edit));
    buf_deinit(&edit);
}

static enum status parse(struct slice file, struct manifest_state *state, struct manifest_end *end, struct error *err) {
    error_clear(err);
    manifest_state_init(state, alloc_system());
    return manifest_parse(file, &identity, NUMBER, state, end, err);
}

/* The state as bytes, for comparison. */
static struct buf state_bytes(const struct manifest_state *state) {
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    assert_int_equal(manifest_state_encode(state, &bytes), STATUS_OK);
    return bytes;
}

static struct buf parsed_bytes(struct slice file) {
    struct manifest_state state;
    struct manifest_end end;
    struct error err;
    enum status status = parse(file, &state, &end, &err);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    struct buf bytes = state_bytes(&state);
    manifest_state_deinit(&state);
    return bytes;
}

/* ---- State ---------------------------------------------------------------------------------------------------- */

static void test_manifest_edits_add_up(void **state) {
    (void)state;
    static struct sample sample;
    struct manifest_state parsed;
    struct manifest_end end;
    struct error err;
    sample_make(&sample);
    assert_int_equal(parse(slice_of(sample.bytes, sample.len), &parsed, &end, &err), STATUS_OK);
    assert_int_equal(end.size_bytes, sample.len);
    assert_int_equal(end.sequence, 4);
    assert_true(end.marked);
    assert_int_equal(parsed.frontier.index, 20);
    assert_int_equal(parsed.frontier.term, 2);
    assert_int_equal(parsed.frontier.cluster_time_ms, 100);
    assert_int_equal(parsed.frontier.horizon, 10);
    assert_int_equal(parsed.frontier.session_epoch, 77);
    assert_int_equal(parsed.frontier.membership_len, 4);
    assert_memory_equal(parsed.frontier.membership, "abcd", 4);
    assert_int_equal(parsed.horizon, 8);
    assert_int_equal(parsed.next_file, 4);
    assert_int_equal(parsed.file_count, 1);
    assert_int_equal(parsed.files[0].level, 6);
    const struct sst_meta *meta = &parsed.files[0].meta;
    assert_int_equal(meta->number, 3);
    assert_int_equal(meta->id, 3000);
    assert_int_equal(meta->size_bytes, 5003);
    assert_int_equal(meta->checksum, ~(uint64_t)3);
    assert_int_equal(meta->entries, 103);
    assert_int_equal(meta->deletes, 33);
    assert_int_equal(meta->tombstones, 23);
    assert_int_equal(meta->superseded, 13);
    assert_int_equal(meta->superseded_until, 3);
    assert_int_equal(meta->key_bytes, 703);
    assert_int_equal(meta->value_bytes, 8003);
    assert_int_equal(meta->revision_first, 3);
    assert_int_equal(meta->revision_last, 4);
    assert_true(slice_equal(meta->smallest, slice_of("a\0", 2)));
    assert_true(slice_equal(meta->largest, slice_of_string("zebra")));
    assert_true(meta->largest_excluded);
    manifest_state_deinit(&parsed);
}

static void test_manifest_snapshot_of_a_state_gives_it_back(void **state) {
    (void)state;
    static struct sample sample;
    sample_make(&sample);
    struct buf first = parsed_bytes(slice_of(sample.bytes, sample.len));
    sample_begin(&sample);
    sample_add(&sample, buf_slice(&first));
    struct buf second = parsed_bytes(slice_of(sample.bytes, sample.len));
    assert_true(slice_equal(buf_slice(&first), buf_slice(&second)));
    buf_deinit(&first);
    buf_deinit(&second);
}

static void check_edit(const struct buf *edit, enum status want) {
    struct manifest_state state;
    manifest_state_init(&state, alloc_system());
    assert_int_equal(manifest_state_apply(&state, buf_slice(edit)), want);
    manifest_state_deinit(&state);
}

static void test_manifest_impossible_edits_are_refused(void **state) {
    (void)state;
    struct buf edit;
    buf_init(&edit, alloc_system(), 0);
    put_add(&edit, 0, 5);
    check_edit(&edit, STATUS_OK);
    put_add(&edit, 1, 5); /* twice */
    check_edit(&edit, STATUS_CORRUPT);
    buf_clear(&edit);
    assert_int_equal(manifest_put_remove_file(&edit, 0, 5), STATUS_OK);
    check_edit(&edit, STATUS_CORRUPT);
    buf_clear(&edit);
    put_add(&edit, 0, 5);
    assert_int_equal(manifest_put_remove_file(&edit, 1, 5), STATUS_OK); /* the other level's */
    check_edit(&edit, STATUS_CORRUPT);
    buf_clear(&edit);
    put_add(&edit, 0, 5);
    assert_int_equal(manifest_put_next_file(&edit, 5), STATUS_OK); /* goes back */
    check_edit(&edit, STATUS_CORRUPT);
    buf_clear(&edit);
    put_frontier(&edit, 10);
    put_frontier(&edit, 9); /* hazard 26: goes back */
    check_edit(&edit, STATUS_CORRUPT);
    buf_clear(&edit);
    struct sst_meta meta = meta_of(5); /* a number that could be given out again */
    assert_int_equal(manifest_put_add_file(&edit, 0, &meta), STATUS_OK);
    check_edit(&edit, STATUS_CORRUPT);
    buf_deinit(&edit);
}

static void check_meta(const struct sst_meta *meta, enum status want) {
    struct buf edit;
    buf_init(&edit, alloc_system(), 0);
    assert_int_equal(manifest_put_next_file(&edit, meta->number + 1), STATUS_OK);
    assert_int_equal(manifest_put_add_file(&edit, 0, meta), STATUS_OK);
    check_edit(&edit, want);
    buf_deinit(&edit);
}

/* What no table can be; compactions count on these. */
static void test_h35_manifest_impossible_tables_are_refused(void **state) {
    (void)state;
    struct sst_meta good = meta_of(5);
    struct sst_meta bad[] = {good, good, good, good, good, good, good, good};
    bad[0].deletes = good.entries + 1;
    bad[1].superseded = good.entries + 1;
    bad[2].revision_first = good.revision_last + 1;
    bad[3].entries = bad[3].deletes = bad[3].superseded = bad[3].tombstones = 0;
    bad[4].largest = slice_of("a", 1); /* in front of the smallest */
    bad[5].largest = good.smallest;    /* and excluded */
    bad[6].tombstones = UINT64_MAX - good.entries + 1;
    bad[7].revision_first = 0;
    bad[7].revision_last = UINT64_MAX;
    check_meta(&good, STATUS_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        check_meta(&bad[i], STATUS_CORRUPT);
    }
    bad[5].largest_excluded = false;
    check_meta(&bad[5], STATUS_OK);
    struct buf edit;
    buf_init(&edit, alloc_system(), 0);
    assert_int_equal(manifest_put_next_file(&edit, 6), STATUS_OK);
    size_t at = edit.len;
    assert_int_equal(manifest_put_add_file(&edit, MANIFEST_LEVELS - 1, &good), STATUS_OK);
    check_edit(&edit, STATUS_OK);
    edit.data[at + 1] = MANIFEST_LEVELS;
    check_edit(&edit, STATUS_CORRUPT);
    edit.data[at + 1] = 0;
    edit.data[at + 2] |= 0x80; /* a flag of a newer version's */
    check_edit(&edit, STATUS_UNSUPPORTED);
    buf_deinit(&edit);
}

/* A segment of the log is read in another way than other value files: that must not get lost. */
static void test_manifest_segments_of_the_log_stay_what_they_are(void **state) {
    (void)state;
    struct buf edit;
    struct manifest_state parsed;
    struct manifest_state again;
    const struct value_meta meta = {
        .is_log = true, .number = 5, .id = 77, .size_bytes = 9000, .checksum = 3, .values = 2, .bytes = 9000};
    buf_init(&edit, alloc_system(), 0);
    manifest_state_init(&parsed, alloc_system());
    manifest_state_init(&again, alloc_system());
    assert_int_equal(manifest_put_add_values(&edit, &meta), STATUS_OK);
    assert_int_equal(edit.len, 1 + 6 * 8);
    assert_int_equal(edit.data[0], 11);
    assert_int_equal(manifest_put_next_file(&edit, 6), STATUS_OK);
    assert_int_equal(manifest_state_apply(&parsed, buf_slice(&edit)), STATUS_OK);
    buf_clear(&edit);
    assert_int_equal(manifest_state_encode(&parsed, &edit), STATUS_OK);
    assert_int_equal(manifest_state_apply(&again, buf_slice(&edit)), STATUS_OK);
    assert_int_equal(again.values_count, 1);
    assert_true(again.values[0].is_log && again.values[0].number == 5 && again.values[0].bytes == 9000);
    manifest_state_deinit(&parsed);
    manifest_state_deinit(&again);
    buf_deinit(&edit);
}

static void test_manifest_unknown_field_is_unsupported(void **state) {
    (void)state;
    for (unsigned tag = 0; tag < 256; tag++) {
        struct manifest_state parsed;
        uint8_t edit[] = {(uint8_t)tag};
        manifest_state_init(&parsed, alloc_system());
        bool known = (tag >= MANIFEST_FRONTIER && tag <= MANIFEST_ADD_CHANGES) ||
                     (tag >= MANIFEST_REMOVE_VALUES && tag <= MANIFEST_ADD_LOG_VALUES);
        assert_int_equal(manifest_state_apply(&parsed, slice_of(edit, 1)), known ? STATUS_CORRUPT : STATUS_UNSUPPORTED);
        manifest_state_deinit(&parsed);
    }
}

static void test_h35_manifest_edit_cut_anywhere_is_refused(void **state) {
    (void)state;
    struct buf edit;
    buf_init(&edit, alloc_system(), 0);
    put_frontier(&edit, 10);
    put_add(&edit, 0, 5);
    unsigned whole = 0;
    for (size_t cut = 1; cut < edit.len; cut++) {
        struct manifest_state parsed;
        uint8_t *exact = malloc(cut);
        memcpy(exact, edit.data, cut);
        manifest_state_init(&parsed, alloc_system());
        enum status status = manifest_state_apply(&parsed, slice_of(exact, cut));
        /* Between two fields a shorter edit is a whole one: the checksum around it tells. */
        assert_true(status == STATUS_CORRUPT || status == STATUS_OK);
        whole += status == STATUS_OK;
        manifest_state_deinit(&parsed);
        free(exact);
    }
    assert_int_equal(whole, 2); /* behind the frontier, behind the next file number */
    buf_deinit(&edit);
}

static void test_manifest_state_survives_failed_allocations(void **state) {
    (void)state;
    struct test_alloc alloc;
    struct buf edit;
    test_alloc_init(&alloc);
    buf_init(&edit, alloc_system(), 0);
    for (uint64_t number = 1; number < 40; number++) {
        put_add(&edit, 0, number);
    }
    enum status status;
    uint64_t n = 0;
    do {
        struct manifest_state parsed;
        manifest_state_init(&parsed, &alloc.base);
        test_alloc_fail(&alloc, ++n, false);
        status = manifest_state_apply(&parsed, buf_slice(&edit));
        test_alloc_fail(&alloc, 0, false);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        manifest_state_deinit(&parsed);
        assert_int_equal(alloc.live_blocks, 0);
    } while (status != STATUS_OK);
    assert_true(n > 30);
    buf_deinit(&edit);
}

/* ---- Damage --------------------------------------------------------------------------------------------------- */

static void test_h35_any_flipped_bit_of_a_manifest_is_found_or_harmless(void **state) {
    (void)state;
    static struct sample sample;
    sample_make(&sample);
    struct buf want = parsed_bytes(slice_of(sample.bytes, sample.len));
    unsigned refused = 0;
    for (size_t bit = 0; bit < sample.len * 8; bit++) {
        struct manifest_state parsed;
        struct manifest_end end;
        struct error err;
        if (bit % 8 > 1 && bit / 8 % MANIFEST_BLOCK_BYTES > 400) {
            continue; /* padding: two bits of each byte will do */
        }
        sample.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        enum status status = parse(slice_of(sample.bytes, sample.len), &parsed, &end, &err);
        if (status == STATUS_OK) {
            struct buf got = state_bytes(&parsed);
            assert_true(slice_equal(buf_slice(&got), buf_slice(&want)));
            buf_deinit(&got);
        } else {
            assert_int_equal(status, STATUS_CORRUPT); /* also in the version: it isn't taken for another one */
            assert_true(strlen(err.message) > 0);
            refused++;
        }
        manifest_state_deinit(&parsed);
        sample.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(refused > 3000);
    buf_deinit(&want);
}

static void test_h30_torn_last_edit_is_cut(void **state) {
    (void)state;
    static struct sample sample;
    struct manifest_state parsed;
    struct manifest_end end;
    struct error err;
    sample_make(&sample);
    struct buf whole = parsed_bytes(slice_of(sample.bytes, sample.len));
    struct buf without = parsed_bytes(slice_of(sample.bytes, sample.edit_at[3]));
    for (size_t len = sample.edit_at[3]; len <= sample.len; len++) {
        /* Cut there, or the rest of the file never written. */
        for (int zeroes = 0; zeroes < 2; zeroes++) {
            static uint8_t torn[FILE_BYTES_MAX];
            memset(torn, 0, sizeof torn);
            memcpy(torn, sample.bytes, len);
            assert_int_equal(parse(slice_of(torn, zeroes ? sample.len : len), &parsed, &end, &err), STATUS_OK);
            struct buf got = state_bytes(&parsed);
            bool complete = slice_equal(buf_slice(&got), buf_slice(&whole));
            assert_true(complete || slice_equal(buf_slice(&got), buf_slice(&without)));
            assert_int_equal(end.sequence, complete ? 4 : 3);
            assert_int_equal(end.size_bytes, complete ? sample.len : sample.edit_at[3]);
            assert_true(complete || len < sample.mark_at[3]);
            buf_deinit(&got);
            manifest_state_deinit(&parsed);
        }
    }
    buf_deinit(&whole);
    buf_deinit(&without);
}

static void test_h30_damaged_edit_with_anything_valid_behind_it_is_corrupt(void **state) {
    (void)state;
    static struct sample sample;
    for (unsigned damaged = 0; damaged < 4; damaged++) {
        struct manifest_state parsed;
        struct manifest_end end;
        struct error err;
        char where[32];
        sample_make(&sample);
        /* Only one valid record is left behind the damage: a mark, and not always the edit's own. */
        memset(sample.bytes + sample.edit_at[damaged], 0xee, sample.mark_at[3] - sample.edit_at[damaged]);
        assert_int_equal(parse(slice_of(sample.bytes, sample.len), &parsed, &end, &err), STATUS_CORRUPT);
        (void)snprintf(where, sizeof where, "offset %u", (unsigned)sample.edit_at[damaged]);
        assert_non_null(strstr(err.message, where));
        manifest_state_deinit(&parsed);
    }
}

/* Space that was prepared lies behind the last record as zeroes. It must read as the end, and hide no damage. */
static void test_h30_prepared_space_is_the_end(void **state) {
    (void)state;
    static struct sample sample;
    struct manifest_state parsed;
    struct manifest_end end;
    struct error err;
    sample_make(&sample);
    for (size_t len = sample.len; len <= FILE_BYTES_MAX; len += MANIFEST_BLOCK_BYTES) {
        assert_int_equal(parse(slice_of(sample.bytes, len), &parsed, &end, &err), STATUS_OK);
        assert_int_equal(end.size_bytes, sample.len);
        assert_int_equal(end.sequence, 4);
        assert_true(end.marked);
        manifest_state_deinit(&parsed);
    }
    for (unsigned damaged = 0; damaged < 4; damaged++) { /* zeroes in the middle are none */
        sample_make(&sample);
        memset(sample.bytes + sample.edit_at[damaged], 0, sample.mark_at[damaged] - sample.edit_at[damaged]);
        assert_int_equal(parse(slice_of(sample.bytes, FILE_BYTES_MAX), &parsed, &end, &err), STATUS_CORRUPT);
        manifest_state_deinit(&parsed);
    }
    sample_make(&sample); /* nor is a gap in front of a later edit */
    manifest_mark_seal(sample.bytes + FILE_BYTES_MAX - MANIFEST_BLOCK_BYTES, NUMBER, 6,
                       FILE_BYTES_MAX - MANIFEST_BLOCK_BYTES);
    assert_int_equal(parse(slice_of(sample.bytes, FILE_BYTES_MAX), &parsed, &end, &err), STATUS_CORRUPT);
    manifest_state_deinit(&parsed);
}

static void test_manifest_whole_edit_without_mark_counts(void **state) {
    (void)state;
    static struct sample sample;
    struct manifest_state parsed;
    struct manifest_end end;
    struct error err;
    sample_make(&sample);
    assert_int_equal(parse(slice_of(sample.bytes, sample.mark_at[3]), &parsed, &end, &err), STATUS_OK);
    assert_int_equal(end.sequence, 4);
    assert_false(end.marked);
    assert_int_equal(end.size_bytes, sample.len);
    manifest_state_deinit(&parsed);
}

static void test_manifest_damaged_first_edit_is_corrupt(void **state) {
    (void)state;
    static struct sample sample;
    struct manifest_state parsed;
    struct manifest_end end;
    struct error err;
    sample_make(&sample);
    assert_int_equal(parse(slice_of(sample.bytes, sample.edit_at[0]), &parsed, &end, &err), STATUS_CORRUPT);
    manifest_state_deinit(&parsed);
    assert_int_equal(parse(SLICE_EMPTY, &parsed, &end, &err), STATUS_CORRUPT);
    manifest_state_deinit(&parsed);
}

static void test_manifest_record_of_another_place_or_file_does_not_pass(void **state) {
    (void)state;
    static struct sample sample;
    struct manifest_state parsed;
    struct manifest_end end;
    struct error err;
    sample_make(&sample);
    /* The edit of the second flush moved to where the merge's was, with the right sequence but for another offset. */
    struct buf payload;
    buf_init(&payload, alloc_system(), 0);
    put_frontier(&payload, 30);
    manifest_edit_seal(sample.bytes + sample.edit_at[3], buf_slice(&payload), NUMBER, 4, sample.edit_at[2]);
    assert_int_equal(parse(slice_of(sample.bytes, sample.mark_at[3]), &parsed, &end, &err), STATUS_OK);
    assert_int_equal(end.sequence, 3);
    manifest_state_deinit(&parsed);
    manifest_edit_seal(sample.bytes + sample.edit_at[3], buf_slice(&payload), NUMBER + 1, 4, sample.edit_at[3]);
    assert_int_equal(parse(slice_of(sample.bytes, sample.mark_at[3]), &parsed, &end, &err), STATUS_OK);
    assert_int_equal(end.sequence, 3);
    manifest_state_deinit(&parsed);
    buf_deinit(&payload);
}

static void test_manifest_of_another_version_cluster_or_node_is_refused(void **state) {
    (void)state;
    static struct sample sample;
    struct manifest_state parsed;
    struct manifest_end end;
    struct error err;
    struct manifest_identity other = identity;
    sample_make(&sample);
    struct slice file = slice_of(sample.bytes, sample.len);
    manifest_state_init(&parsed, alloc_system());
    other.node_id = 4;
    assert_int_equal(manifest_parse(file, &other, NUMBER, &parsed, &end, &err), STATUS_INVALID);
    other = identity;
    other.cluster_id[0] ^= 1;
    assert_int_equal(manifest_parse(file, &other, NUMBER, &parsed, &end, &err), STATUS_INVALID);
    assert_int_equal(manifest_parse(file, &identity, NUMBER + 1, &parsed, &end, &err), STATUS_CORRUPT);
    sample.bytes[8] = MANIFEST_VERSION + 1;
    put_u64(sample.bytes + 56, checksum64(sample.bytes, 56, 0));
    assert_int_equal(manifest_parse(file, &identity, NUMBER, &parsed, &end, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "version 2"));
    manifest_state_deinit(&parsed);
}

static void test_manifest_current_reads_back_and_any_flipped_bit_is_found(void **state) {
    (void)state;
    uint8_t bytes[CURRENT_BYTES];
    uint64_t number = 0;
    struct error err;
    manifest_current_encode(bytes, &identity, 42);
    assert_int_equal(manifest_current_decode(slice_of(bytes, sizeof bytes), &identity, &number, &err), STATUS_OK);
    assert_int_equal(number, 42);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        enum status status = manifest_current_decode(slice_of(bytes, sizeof bytes), &identity, &number, &err);
        assert_int_equal(status, STATUS_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    bytes[8]++; /* another version, though, is told */
    put_u64(bytes + 56, checksum64(bytes, 56, 0));
    assert_int_equal(manifest_current_decode(slice_of(bytes, sizeof bytes), &identity, &number, &err),
                     STATUS_UNSUPPORTED);
    bytes[8]--;
    put_u64(bytes + 56, checksum64(bytes, 56, 0));
    for (size_t len = 0; len < sizeof bytes; len++) {
        assert_int_equal(manifest_current_decode(slice_of(bytes, len), &identity, &number, &err), STATUS_CORRUPT);
    }
}

static void test_manifest_format_is_golden(void **state) {
    (void)state;
    static struct sample sample;
    uint8_t bytes[CURRENT_BYTES];
    sample_make(&sample);
    golden_assert("manifest.bin", slice_of(sample.bytes, sample.len));
    manifest_current_encode(bytes, &identity, 42);
    golden_assert("current.bin", slice_of(bytes, sizeof bytes));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest_edits_add_up),
        cmocka_unit_test(test_manifest_snapshot_of_a_state_gives_it_back),
        cmocka_unit_test(test_manifest_impossible_edits_are_refused),
        cmocka_unit_test(test_h35_manifest_impossible_tables_are_refused),
        cmocka_unit_test(test_manifest_segments_of_the_log_stay_what_they_are),
        cmocka_unit_test(test_manifest_unknown_field_is_unsupported),
        cmocka_unit_test(test_h35_manifest_edit_cut_anywhere_is_refused),
        cmocka_unit_test(test_manifest_state_survives_failed_allocations),
        cmocka_unit_test(test_h35_any_flipped_bit_of_a_manifest_is_found_or_harmless),
        cmocka_unit_test(test_h30_torn_last_edit_is_cut),
        cmocka_unit_test(test_h30_damaged_edit_with_anything_valid_behind_it_is_corrupt),
        cmocka_unit_test(test_h30_prepared_space_is_the_end),
        cmocka_unit_test(test_manifest_whole_edit_without_mark_counts),
        cmocka_unit_test(test_manifest_damaged_first_edit_is_corrupt),
        cmocka_unit_test(test_manifest_record_of_another_place_or_file_does_not_pass),
        cmocka_unit_test(test_manifest_of_another_version_cluster_or_node_is_refused),
        cmocka_unit_test(test_manifest_current_reads_back_and_any_flipped_bit_is_found),
        cmocka_unit_test(test_manifest_format_is_golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
