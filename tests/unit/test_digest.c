/*
 * The digest chain, by itself and in a store. Breaks when: the chain isn't the one that is documented, so that nodes of
 * two builds differ; something that was applied differently leaves it as it was; it isn't the same after a restart, a
 * crash or an ingest as on a node that had none of them; it isn't that of the frontier it stands in. And the scan
 * digest: it depends on where the data lies instead of what it is, misses a difference, can't be stopped, or
 * holds other jobs up.
 */
#include "node/base/checksum.h"
#include "storage/memtable.h"
#include "storage/storage_internal.h"
#include "tests/unit/upkeep_fixture.h"

enum { FURTHER = 60 };

/* ---- By itself -------------------------------------------------------------------------------------------------- */

static struct digest_effects effects_of(uint8_t kind, uint32_t ordinal, const char *key, const char *value) {
    uint8_t copy[256];
    struct digest_effects effects = {.keys = 0};
    assert_true(strlen(value) <= sizeof copy);
    digest_add_value(&effects, digest_copy(copy, (const uint8_t *)value, strlen(value), (uint64_t)ordinal << 8 | kind));
    digest_add_key(&effects, checksum64(key, strlen(key), 0));
    assert_memory_equal(copy, value, strlen(value));
    return effects;
}

static void test_digest_chain_is_the_documented_one(void **state) {
    (void)state;
    struct digest digest = {0};
    const struct digest_effects nothing = {.keys = 0};
    struct digest_effects effects = effects_of(BATCH_PUT, 0, "key", "value");
    digest = digest_next(&digest, 1, 1, &effects);
    digest = digest_next(&digest, 2, 3, &nothing);
    effects = effects_of(BATCH_PUT, 0, "key", "a value of more than two blocks of words");
    digest = digest_next(&digest, 3, 3, &effects);
    uint8_t bytes[DIGEST_BYTES];
    digest_encode(&digest, bytes);
    char text[2 * DIGEST_BYTES + 1];
    for (size_t i = 0; i < sizeof bytes; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    assert_string_equal(text, "7b2b5ab19780a1c0fa5f77500960fd3e");
    struct digest again = digest_decode(bytes);
    assert_true(digest_equal(&again, &digest));
}

static void assert_other(const struct digest *want, const struct digest *before, uint64_t index, uint64_t term,
                         struct digest_effects effects) {
    struct digest other = digest_next(before, index, term, &effects);
    assert_true(other.low != want->low);
    assert_true(other.high != want->high);
}

static void test_digest_every_part_of_what_was_done_counts(void **state) {
    (void)state;
    struct digest before = {.low = 5, .high = 6};
    struct digest other = {.low = 5, .high = 7};
    struct digest_effects effects = effects_of(BATCH_PUT, 1, "key", "value");
    struct digest want = digest_next(&before, 7, 2, &effects);
    assert_other(&want, &other, 7, 2, effects);
    other = (struct digest){.low = 4, .high = 6};
    assert_other(&want, &other, 7, 2, effects);
    assert_other(&want, &before, 8, 2, effects);
    assert_other(&want, &before, 7, 3, effects);
    assert_other(&want, &before, 7, 2, (struct digest_effects){.keys = 0});
    assert_other(&want, &before, 7, 2, effects_of(BATCH_DELETE, 1, "key", "value"));
    assert_other(&want, &before, 7, 2, effects_of(BATCH_PUT, 2, "key", "value"));
    assert_other(&want, &before, 7, 2, effects_of(BATCH_PUT, 1, "keyv", "alue"));
    assert_other(&want, &before, 7, 2, effects_of(BATCH_PUT, 1, "keY", "value"));
    assert_other(&want, &before, 7, 2, effects_of(BATCH_PUT, 1, "key", "valuE"));
    assert_other(&want, &before, 7, 2, effects_of(BATCH_PUT, 1, "key", "valu"));
}

/* Every length's way of copying; each bit of the value, and none behind it. */
static void test_digest_each_bit_of_a_value_counts(void **state) {
    (void)state;
    uint8_t value[200];
    uint8_t copy[200];
    for (size_t i = 0; i < sizeof value; i++) {
        value[i] = (uint8_t)(i * 7 + 1);
    }
    for (size_t len = 0; len < sizeof value; len++) {
        memset(copy, 0xee, sizeof copy);
        digest_lanes want = digest_copy(copy, value, len, 3);
        assert_memory_equal(copy, value, len);
        assert_int_equal(copy[len], 0xee);
        value[len] ^= 1;
        digest_lanes same = digest_copy(copy, value, len, 3);
        value[len] ^= 1;
        assert_memory_equal(&same, &want, sizeof want);
        digest_lanes other_head = digest_copy(copy, value, len, 4);
        assert_memory_not_equal(&other_head, &want, sizeof want);
        for (size_t bit = 0; bit < 8 * len; bit++) {
            value[bit / 8] ^= (uint8_t)(1 << bit % 8);
            digest_lanes other = digest_copy(copy, value, len, 3);
            value[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_memory_not_equal(&other, &want, sizeof want);
        }
    }
}

/* Two values, or two keys, in each other's place; one twice instead of two. */
static void test_digest_order_of_operations_counts(void **state) {
    (void)state;
    static const char *const keys[] = {"a", "b", "a"};
    static const char *const values[] = {"first value", "another one", "first value"};
    struct digest digests[4];
    for (unsigned way = 0; way < 4; way++) {
        struct digest_effects effects = {.keys = 0};
        const struct digest before = {.low = 1};
        for (uint32_t i = 0; i < 2; i++) {
            uint8_t copy[32];
            const char *value = values[way == 1 ? i + 1 : way == 3 ? 0 : i];
            const char *key = keys[way == 2 ? i + 1 : i];
            digest_add_value(&effects, digest_copy(copy, (const uint8_t *)value, strlen(value), (uint64_t)i << 8));
            digest_add_key(&effects, checksum64(key, strlen(key), 0));
        }
        digests[way] = digest_next(&before, 2, 1, &effects);
        for (unsigned other = 0; other < way; other++) {
            assert_false(digest_equal(&digests[way], &digests[other]));
        }
    }
}

static void test_digest_history_knows_the_newest_only(void **state) {
    (void)state;
    struct digest_history *history = calloc(1, sizeof *history);
    assert_non_null(history);
    struct digest first = {.low = 1, .high = 2};
    struct digest found;
    digest_history_begin(history, 100, &first);
    assert_true(digest_history_find(history, 100, &found));
    assert_true(digest_equal(&found, &first));
    assert_false(digest_history_find(history, 99, &found));
    assert_false(digest_history_find(history, 101, &found));
    struct digest want = first;
    for (uint64_t index = 101; index < 100 + 3 * DIGESTS_KEPT; index++) {
        const struct digest_effects effects = {.keys = index * 3};
        digest_history_add(history, index, 1, &effects);
        want = digest_next(&want, index, 1, &effects);
        assert_true(digest_equal(digest_history_newest(history), &want));
        uint64_t oldest = index < 100 + DIGESTS_KEPT ? 100 : index - DIGESTS_KEPT + 1;
        assert_true(digest_history_find(history, oldest, &found));
        assert_false(digest_history_find(history, oldest - 1, &found));
        assert_false(digest_history_find(history, index + 1, &found));
    }
    free(history);
}

/* ---- In a store ------------------------------------------------------------------------------------------------- */

static struct fixture *set_up_digests(uint64_t seed) {
    struct fixture *fixture = set_up(seed);
    fixture->host.options.digests = true;
    host_reopen(&fixture->host);
    return fixture;
}

static struct digest digest_at(struct fixture *fixture, uint64_t index) {
    struct digest digest;
    assert_true(storage_digest(fixture->host.storage, index, &digest));
    return digest;
}

static void assert_same(struct digest left, struct digest right) { assert_true(digest_equal(&left, &right)); }

/* What a store that is fed without any interruption has at each index of the model's entries. */
static struct digest *undisturbed(struct fixture *fixture, uint64_t count) {
    struct digest *digests = calloc(count + 1, sizeof *digests);
    struct memtable *memtable = memtable_new(alloc_system(), 1024 * 1024);
    assert_non_null(digests);
    assert_non_null(memtable);
    for (uint64_t index = 1; index <= count; index++) {
        struct digest_effects effects;
        assert_int_equal(memtable_apply_digested(memtable, index, model_batch(&fixture->model, index), &effects),
                         STATUS_OK);
        digests[index] = digest_next(&digests[index - 1], index, 1, &effects);
    }
    memtable_free(memtable);
    return digests;
}

static void apply_again(struct fixture *fixture, uint64_t last) {
    for (uint64_t index = storage_applied_index(fixture->host.storage) + 1; index <= last; index++) {
        assert_true(host_wait(&fixture->host, host_can_apply));
        assert_int_equal(storage_apply(fixture->host.storage, index, 1, model_batch(&fixture->model, index), NULL),
                         STATUS_OK);
        storage_set_durable(fixture->host.storage, index);
    }
}

static void test_digest_goes_through_flushes_restarts_and_crashes(void **state) {
    (void)state;
    struct fixture *fixture = set_up_digests(3);
    struct digest digest;
    assert_false(storage_digest(fixture->host.storage, 1, &digest));
    apply_some(fixture, 200);
    struct digest *want = undisturbed(fixture, 200);
    for (uint64_t index = 0; index <= 200; index++) {
        assert_same(digest_at(fixture, index), want[index]);
    }
    host_reopen(&fixture->host);
    for (unsigned life = 0; life < 4; life++) {
        const struct storage_frontier *frontier = storage_frontier(fixture->host.storage);
        assert_true(frontier->index > 0 && frontier->index <= 200);
        assert_same(digest_decode(frontier->digest), want[frontier->index]);
        assert_same(digest_at(fixture, frontier->index), want[frontier->index]);
        assert_false(storage_digest(fixture->host.storage, frontier->index - 1, &digest));
        apply_again(fixture, 200);
        assert_same(digest_at(fixture, 200), want[200]);
        if (life == 2) {
            host_flush(&fixture->host);
        }
        host_crash(&fixture->host, SIM_CRASH_POWER);
        host_open(&fixture->host);
    }
    assert_int_equal(storage_frontier(fixture->host.storage)->index, 200);
    free(want);
    tear_down(fixture);
}

static void test_digest_comes_with_a_checkpoint(void **state) {
    (void)state;
    struct fixture *source = set_up_digests(5);
    apply_some(source, ENTRIES);
    assert_int_equal(make(source, "/copy", true), STATUS_OK);
    struct fixture *target = calloc(1, sizeof *target);
    assert_non_null(target);
    target->host = source->host;
    target->host.options.dir = "/target";
    target->host.options.node_id = 2;
    target->host.options.context = &target->host;
    host_open(&target->host);
    (void)host_put(&target->host, "other", "history"); /* it has another chain */
    struct storage_ingest ingest = {.upkeep = {.done = on_done, .context = target}};
    (void)snprintf(ingest.dir, sizeof ingest.dir, "/copy");
    storage_ingest(target->host.storage, &ingest);
    assert_true(host_wait(&target->host, is_done));
    assert_int_equal(ingest.upkeep.status, STATUS_OK);
    struct digest digest;
    assert_same(digest_at(target, ENTRIES), digest_at(source, ENTRIES));
    assert_false(storage_digest(target->host.storage, ENTRIES - 1, &digest));
    target->model = source->model;
    target->random = source->random;
    apply_some(source, FURTHER);
    apply_some(target, FURTHER);
    assert_same(digest_at(target, ENTRIES + FURTHER), digest_at(source, ENTRIES + FURTHER));
    host_close(&target->host);
    free(target);
    tear_down(source);
}

static void test_digest_off_leaves_the_frontier_to_the_owner(void **state) {
    (void)state;
    struct fixture *fixture = set_up(7);
    struct digest digest;
    apply_some(fixture, 20);
    assert_false(storage_digest(fixture->host.storage, 20, &digest));
    host_flush(&fixture->host);
    host_assert_frontier(storage_frontier(fixture->host.storage));
    tear_down(fixture);
}

/* ---- Scans ------------------------------------------------------------------------------------------------------ */

static enum status scan(struct fixture *fixture, uint64_t revision, struct digest *ret_digest) {
    struct storage_digest_scan job = {.upkeep = {.done = on_done, .context = fixture}, .revision = revision};
    fixture->done_count = 0;
    storage_scan_digest(fixture->host.storage, &job);
    assert_true(host_wait(&fixture->host, is_done));
    *ret_digest = job.digest;
    if (job.upkeep.status != STATUS_OK) {
        assert_int_equal(job.upkeep.error.code, job.upkeep.status);
        assert_true(job.upkeep.error.message[0] != '\0');
    }
    return job.upkeep.status;
}

static struct digest scan_of(struct fixture *fixture, uint64_t revision) {
    struct digest digest;
    assert_int_equal(scan(fixture, revision, &digest), STATUS_OK);
    return digest;
}

static void test_digest_scan_is_the_same_wherever_the_data_lies(void **state) {
    (void)state;
    struct fixture *tables = set_up_with(11, 64);
    struct fixture *memory = set_up_with(11, 0);
    memory->host.options.memtable_bytes = 1024 * 1024;
    host_reopen(&memory->host);
    apply_some(tables, ENTRIES);
    apply_some(memory, ENTRIES);
    struct digest nothing = scan_of(tables, 0);
    assert_same(nothing, scan_of(memory, 0));
    struct digest middle = scan_of(memory, ENTRIES / 2);
    struct digest end = scan_of(memory, ENTRIES);
    assert_false(digest_equal(&middle, &end) || digest_equal(&nothing, &end));
    assert_same(scan_of(tables, ENTRIES / 2), middle);
    assert_same(scan_of(tables, ENTRIES), end);
    settle(tables);
    assert_same(scan_of(tables, ENTRIES / 2), middle);
    assert_same(scan_of(tables, ENTRIES), end);
    host_reopen(&tables->host);
    assert_same(scan_of(tables, ENTRIES), end);
    assert_int_equal(memory->host.flushed_count, 0);
    tear_down(tables);
    tear_down(memory);
}

static void test_digest_scan_finds_one_value_one_key_one_revision(void **state) {
    (void)state;
    struct digest digests[5];
    for (unsigned kind = 0; kind < 5; kind++) {
        struct fixture *fixture = set_up(13);
        if (kind == 1) {
            (void)host_put(&fixture->host, "early", "1");
        }
        (void)host_put(&fixture->host, "a", "1");
        (void)host_put(&fixture->host, kind == 2 ? "B" : "b", kind == 3 ? "3" : "2");
        if (kind == 1) {
            (void)host_delete(&fixture->host, "early");
        }
        if (kind == 4) {
            (void)host_put(&fixture->host, "c", "");
        }
        digests[kind] = scan_of(fixture, storage_applied_index(fixture->host.storage));
        for (unsigned other = 0; other < kind; other++) {
            assert_false(digest_equal(&digests[kind], &digests[other]));
        }
        tear_down(fixture);
    }
}

static void test_digest_scan_says_what_it_cannot_read(void **state) {
    (void)state;
    struct fixture *fixture = set_up(17);
    struct digest digest;
    apply_some(fixture, ENTRIES);
    assert_int_equal(scan(fixture, ENTRIES + 1, &digest), STATUS_INVALID);
    storage_set_horizon(fixture->host.storage, ENTRIES / 2);
    apply_some(fixture, 1);
    settle(fixture);
    apply_some(fixture, 1);
    assert_int_equal(scan(fixture, 1, &digest), STATUS_COMPACTED);
    /* Damage in a table is no digest. */
    settle(fixture);
    host_reopen(&fixture->host); /* nothing is cached */
    char path[LIMIT_PATH_BYTES];
    path_with(fixture, "/data", ".sst", path);
    flip(fixture, path, 80);
    assert_int_equal(scan(fixture, ENTRIES + 2, &digest), STATUS_CORRUPT);
    flip(fixture, path, 80);
    tear_down(fixture);
}

static void test_digest_scan_keeps_to_its_rate_and_stops_when_told(void **state) {
    (void)state;
    struct fixture *fixture = set_up(19);
    enum { VALUES = 40, VALUE_BYTES = 50000, SECOND_US = 1000 * 1000 };
    static char value[VALUE_BYTES];
    memset(value, 'v', sizeof value - 1);
    for (unsigned i = 0; i < VALUES; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "key%u", i);
        (void)host_put(&fixture->host, key, value);
    }
    struct storage_digest_scan job = {.upkeep = {.done = on_done, .context = fixture},
                                      .revision = VALUES,
                                      .bytes_per_second = (uint64_t)VALUES * VALUE_BYTES / 4};
    uint64_t begun_us = sim_now_us(fixture->host.sim);
    fixture->done_count = 0;
    storage_scan_digest(fixture->host.storage, &job);
    assert_true(host_wait(&fixture->host, is_done));
    assert_int_equal(job.upkeep.status, STATUS_OK);
    assert_int_equal(job.keys, VALUES);
    assert_in_range(sim_now_us(fixture->host.sim) - begun_us, 3 * SECOND_US, 5 * SECOND_US);
    fixture->done_count = 0;
    begun_us = sim_now_us(fixture->host.sim);
    storage_scan_digest(fixture->host.storage, &job);
    host_run_ms(&fixture->host, 1000);
    storage_upkeep_cancel(&job.upkeep);
    assert_true(host_wait(&fixture->host, is_done));
    assert_int_equal(job.upkeep.status, STATUS_CANCELLED);
    assert_true(sim_now_us(fixture->host.sim) - begun_us < 2 * SECOND_US);
    tear_down(fixture);
}

static void count_other(struct storage_upkeep *upkeep) { ++*(unsigned *)upkeep->context; }

/* A checkpoint for a follower can't wait for a scan of hours, nor a scan that nobody wants any more for a checkpoint.
 */
static void test_digest_scan_lets_other_jobs_pass(void **state) {
    (void)state;
    struct fixture *fixture = set_up(23);
    unsigned others = 0;
    apply_some(fixture, ENTRIES);
    settle(fixture);
    struct storage_digest_scan slow = {.upkeep = {.done = on_done, .context = fixture},
                                       .revision = ENTRIES,
                                       .bytes_per_second = 200};
    struct storage_digest_scan waiting = slow;
    fixture->done_count = 0;
    storage_scan_digest(fixture->host.storage, &slow);
    host_run_ms(&fixture->host, 100);
    fixture->checkpoint = (struct storage_checkpoint){.upkeep = {.done = count_other, .context = &others}};
    (void)snprintf(fixture->checkpoint.dir, sizeof fixture->checkpoint.dir, "/copy");
    storage_checkpoint(fixture->host.storage, &fixture->checkpoint);
    host_run_ms(&fixture->host, 3000);
    assert_int_equal(others, 1);
    assert_int_equal(fixture->checkpoint.upkeep.status, STATUS_OK);
    assert_int_equal(fixture->done_count, 0);
    assert_true(atomic_load(&slow.upkeep.done_bytes) > 0);
    /* Two at a time share the rate's worker; one that waits ends as soon as it is told to. */
    waiting.upkeep = (struct storage_upkeep){.done = count_other, .context = &others};
    storage_scan_digest(fixture->host.storage, &waiting);
    storage_upkeep_cancel(&waiting.upkeep);
    host_run_ms(&fixture->host, 2000);
    assert_int_equal(others, 2);
    assert_int_equal(waiting.upkeep.status, STATUS_CANCELLED);
    assert_null(waiting.view);
    storage_upkeep_cancel(&slow.upkeep);
    assert_true(host_wait(&fixture->host, is_done));
    assert_int_equal(slow.upkeep.status, STATUS_CANCELLED);
    assert_int_equal(view_count_held(&fixture->host.storage->views), 0);
    tear_down(fixture);
}

/* What is applied, flushed, merged and forgotten while it goes on makes no difference to it. */
static void test_digest_scan_sees_its_revision_whatever_comes_later(void **state) {
    (void)state;
    struct fixture *fixture = set_up(29);
    apply_some(fixture, ENTRIES);
    struct digest want = scan_of(fixture, ENTRIES);
    struct storage_digest_scan slow = {.upkeep = {.done = on_done, .context = fixture},
                                       .revision = ENTRIES,
                                       .bytes_per_second = 2000};
    fixture->done_count = 0;
    storage_scan_digest(fixture->host.storage, &slow);
    apply_some(fixture, ENTRIES);
    storage_set_horizon(fixture->host.storage, 2 * ENTRIES);
    apply_some(fixture, 1);
    storage_flush(fixture->host.storage);
    assert_true(host_wait(&fixture->host, is_done));
    assert_int_equal(slow.upkeep.status, STATUS_OK);
    assert_same(slow.digest, want);
    tear_down(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest_chain_is_the_documented_one),
        cmocka_unit_test(test_digest_every_part_of_what_was_done_counts),
        cmocka_unit_test(test_digest_each_bit_of_a_value_counts),
        cmocka_unit_test(test_digest_order_of_operations_counts),
        cmocka_unit_test(test_digest_history_knows_the_newest_only),
        cmocka_unit_test(test_digest_goes_through_flushes_restarts_and_crashes),
        cmocka_unit_test(test_digest_comes_with_a_checkpoint),
        cmocka_unit_test(test_digest_scan_is_the_same_wherever_the_data_lies),
        cmocka_unit_test(test_digest_scan_finds_one_value_one_key_one_revision),
        cmocka_unit_test(test_digest_scan_says_what_it_cannot_read),
        cmocka_unit_test(test_digest_scan_keeps_to_its_rate_and_stops_when_told),
        cmocka_unit_test(test_digest_scan_lets_other_jobs_pass),
        cmocka_unit_test(test_digest_scan_sees_its_revision_whatever_comes_later),
        cmocka_unit_test(test_digest_off_leaves_the_frontier_to_the_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
