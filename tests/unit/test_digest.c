/*
 * The digest chain, by itself and in a store. Breaks when: the chain isn't the one that is documented, so that nodes of
 * two builds differ; something that was applied differently leaves it as it was; it isn't the same after a restart, a
 * crash or an ingest as on a node that had none of them; it isn't that of the frontier it stands in.
 */
#include "storage/memtable.h"
#include "tests/unit/upkeep_fixture.h"

enum { FURTHER = 60 };

/* ---- By itself -------------------------------------------------------------------------------------------------- */

static uint64_t effects_of(uint8_t kind, uint32_t ordinal, const char *key, const char *value) {
    return digest_effect(0, kind, ordinal, checksum64(key, strlen(key), 0), (const uint8_t *)value, strlen(value));
}

static void test_digest_chain_is_the_documented_one(void **state) {
    (void)state;
    struct digest digest = {0};
    uint64_t effects = effects_of(BATCH_PUT, 0, "key", "value");
    digest = digest_next(&digest, 1, 1, effects);
    digest = digest_next(&digest, 2, 3, 0);
    uint8_t bytes[DIGEST_BYTES];
    digest_encode(&digest, bytes);
    char text[2 * DIGEST_BYTES + 1];
    for (size_t i = 0; i < sizeof bytes; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    assert_string_equal(text, "e5893a32ed98c5c2727a7f40295c1478");
    struct digest again = digest_decode(bytes);
    assert_true(digest_equal(&again, &digest));
}

static void assert_other(const struct digest *want, const struct digest *before, uint64_t index, uint64_t term,
                         uint64_t effects) {
    struct digest other = digest_next(before, index, term, effects);
    assert_true(other.low != want->low);
    assert_true(other.high != want->high);
}

static void test_digest_every_part_of_what_was_done_counts(void **state) {
    (void)state;
    struct digest before = {.low = 5, .high = 6};
    struct digest other = {.low = 5, .high = 7};
    uint64_t effects = effects_of(BATCH_PUT, 1, "key", "value");
    struct digest want = digest_next(&before, 7, 2, effects);
    assert_other(&want, &other, 7, 2, effects);
    other = (struct digest){.low = 4, .high = 6};
    assert_other(&want, &other, 7, 2, effects);
    assert_other(&want, &before, 8, 2, effects);
    assert_other(&want, &before, 7, 3, effects);
    assert_other(&want, &before, 7, 2, 0);
    assert_other(&want, &before, 7, 2, effects_of(BATCH_DELETE, 1, "key", "value"));
    assert_other(&want, &before, 7, 2, effects_of(BATCH_PUT, 2, "key", "value"));
    assert_other(&want, &before, 7, 2, effects_of(BATCH_PUT, 1, "keyv", "alue"));
    assert_other(&want, &before, 7, 2, effects_of(BATCH_PUT, 1, "keY", "value"));
    assert_other(&want, &before, 7, 2, effects_of(BATCH_PUT, 1, "key", "valuE"));
    assert_other(&want, &before, 7, 2, effects_of(BATCH_PUT, 1, "key", "valu"));
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
        digest_history_add(history, index, 1, index * 3);
        want = digest_next(&want, index, 1, index * 3);
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
        uint64_t effects;
        assert_int_equal(memtable_apply_digested(memtable, index, model_batch(&fixture->model, index), &effects),
                         STATUS_OK);
        digests[index] = digest_next(&digests[index - 1], index, 1, effects);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest_chain_is_the_documented_one),
        cmocka_unit_test(test_digest_every_part_of_what_was_done_counts),
        cmocka_unit_test(test_digest_history_knows_the_newest_only),
        cmocka_unit_test(test_digest_goes_through_flushes_restarts_and_crashes),
        cmocka_unit_test(test_digest_comes_with_a_checkpoint),
        cmocka_unit_test(test_digest_off_leaves_the_frontier_to_the_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
