/*
 * The scrub: finds rot in any place of any table, value file or change file, at its rate, and harms nobody.
 *
 * Would break these: a kind of block that it passes over; a table that it never comes to, or for ever comes back to; a
 * finding per pass where one place is meant; a rate that isn't kept; a table whose space it keeps; an open store that
 * can't be closed while it reads.
 */
#include "tests/unit/upkeep_fixture.h"

enum { RATE = 64 * 1024 };

struct damages {
    unsigned count;
    struct storage_damage last;
};

static struct damages *damages_of;

static void on_damaged(void *context, const struct storage_damage *damage) {
    (void)context;
    damages_of->count++;
    damages_of->last = *damage;
}

static struct storage_stats stats_of(struct fixture *fixture) {
    struct storage_stats stats;
    storage_get_stats(fixture->host.storage, &stats);
    return stats;
}

/* Settled, closed, and open again with a scrub. */
static struct fixture *set_up_scrubbed_with(uint64_t seed, uint64_t value_threshold_bytes, struct damages *damages) {
    struct fixture *fixture = set_up_kind(seed, value_threshold_bytes, true);
    *damages = (struct damages){0};
    damages_of = damages;
    apply_some(fixture, 150);
    host_flush(&fixture->host);
    settle(fixture);
    host_close(&fixture->host);
    fixture->host.options.scrub_bytes_per_second = RATE;
    fixture->host.options.damaged = on_damaged;
    return fixture;
}

static struct fixture *set_up_scrubbed(uint64_t seed, struct damages *damages) {
    return set_up_scrubbed_with(seed, 0, damages);
}

static uint64_t table_bytes(struct fixture *fixture) {
    struct storage_stats stats = stats_of(fixture);
    uint64_t bytes = 0;
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        bytes += stats.bytes[level];
    }
    return bytes + stats.value_file_bytes + stats.change_file_bytes;
}

static void run_passes(struct fixture *fixture, uint64_t count) {
    uint64_t passes = stats_of(fixture).scrub_passes;
    for (unsigned i = 0; stats_of(fixture).scrub_passes < passes + count; i++) {
        assert_true(i < 10000);
        host_run_ms(&fixture->host, 100);
    }
}

static void check_rate(uint64_t value_threshold_bytes) {
    struct damages damages;
    struct fixture *fixture = set_up_scrubbed_with(1, value_threshold_bytes, &damages);
    host_open(&fixture->host);
    run_passes(fixture, 1);
    uint64_t before_us = sim_now_us(fixture->host.sim);
    uint64_t before_bytes = stats_of(fixture).scrub_bytes;
    run_passes(fixture, 3);
    uint64_t bytes = stats_of(fixture).scrub_bytes - before_bytes;
    uint64_t us = sim_now_us(fixture->host.sim) - before_us;
    assert_true(bytes >= 2 * table_bytes(fixture));
    double rate = (double)bytes / ((double)us / 1e6);
    assert_true(rate < 1.1 * RATE && rate > 0.5 * RATE);
    assert_int_equal(stats_of(fixture).scrub_findings, 0);
    assert_int_equal(damages.count, 0);
    tear_down(fixture);
}

static void test_scrub_reads_all_tables_at_its_rate(void **state) {
    (void)state;
    check_rate(0);
}

static void test_scrub_reads_all_value_files_at_its_rate(void **state) {
    (void)state;
    check_rate(64);
}

/* Without a scrub: a read meets it, and the owner hears of the file, once, for as long as the store has it. */
static void test_damage_that_a_read_meets_is_named_once(void **state) {
    (void)state;
    struct damages damages;
    struct storage_damage news;
    struct fixture *fixture = set_up_scrubbed_with(4, 0, &damages);
    struct name_search search = {.part = ".sst"};
    char path[LIMIT_PATH_BYTES];
    assert_int_equal(env_list_dir(fixture->host.env, "/data", find_part, &search, NULL), STATUS_OK);
    path_with(fixture, "/data", ".sst", path);
    uint64_t number = strtoull(search.found, NULL, 16);
    fixture->host.options.scrub_bytes_per_second = 0;
    for (uint64_t part = 0; part < 16; part++) { /* whatever is read, a block of it is damaged */
        flip(fixture, path, size_of(fixture, path) * part / 20 + 100);
    }
    host_open(&fixture->host);
    struct storage *storage = fixture->host.storage;
    assert_false(storage_next_damage(storage, &news));
    for (unsigned round = 0; round < 2; round++) {
        struct storage_view *view = storage_view_acquire(storage);
        unsigned corrupt = 0;
        for (unsigned key = 0; key < MODEL_KEYS; key++) {
            struct error error = {0};
            corrupt +=
                model_check_key(&fixture->model, view, key, storage_applied_index(storage), &error) == STATUS_CORRUPT;
        }
        storage_view_release(view);
        assert_true(corrupt > 0);
        assert_int_equal(storage_next_damage(storage, &news), round == 0);
    }
    assert_int_equal(news.file, number);
    assert_true(storage_has_file(storage, number));
    assert_false(storage_has_file(storage, UINT64_MAX));
    assert_int_equal(damages.count, 0);
    tear_down(fixture);
}

static void flip_all_over(uint64_t value_threshold_bytes, const char *kind) {
    struct damages damages;
    struct fixture *fixture = set_up_scrubbed_with(2, value_threshold_bytes, &damages);
    struct name_search search = {.part = kind};
    char path[LIMIT_PATH_BYTES];
    assert_int_equal(env_list_dir(fixture->host.env, "/data", find_part, &search, NULL), STATUS_OK);
    path_with(fixture, "/data", kind, path);
    uint64_t number = strtoull(search.found, NULL, 16);
    uint64_t size_bytes = size_of(fixture, path);
    fixture->host.options.scrub_bytes_per_second = 1024 * 1024;
    for (uint64_t offset = 0; offset < size_bytes; offset += size_bytes - offset < 300 ? 3 : 41) {
        damages = (struct damages){0};
        flip(fixture, path, offset);
        host_open(&fixture->host);
        run_passes(fixture, 2);
        struct storage_stats stats = stats_of(fixture);
        if (damages.count < 1) {
            fail_msg("byte %u of %u", (unsigned)offset, (unsigned)size_bytes);
        }
        assert_true(stats.damage_count >= 1 && stats.damage_count == damages.count);
        assert_true(stats.damages[0].count >= 2);
        assert_int_equal(stats.damages[0].file, number);
        assert_true(stats.damages[0].offset <= offset);
        assert_true(stats.scrub_findings >= 2 && stats.damaged_blocks >= 2);
        host_close(&fixture->host);
        flip(fixture, path, offset);
    }
    tear_down(fixture);
}

static void test_scrub_finds_a_flipped_byte_anywhere_once_and_counts_passes(void **state) {
    (void)state;
    flip_all_over(0, ".sst");
}

static void test_scrub_finds_a_flipped_byte_anywhere_in_a_value_file(void **state) {
    (void)state;
    flip_all_over(64, ".val");
}

static void test_scrub_finds_a_flipped_byte_anywhere_in_a_change_file(void **state) {
    (void)state;
    flip_all_over(0, ".chg");
}

static void test_scrub_notes_a_table_that_is_missing_or_unreadable(void **state) {
    (void)state;
    struct damages damages;
    struct fixture *fixture = set_up_scrubbed(3, &damages);
    char path[LIMIT_PATH_BYTES];
    host_open(&fixture->host);
    path_with(fixture, "/data", ".sst", path);
    assert_int_equal(env_rename(fixture->host.env, path, "/away", NULL), STATUS_OK);
    run_passes(fixture, 2);
    assert_int_equal(damages.count, 1);
    assert_int_equal(stats_of(fixture).damage_count, 1);
    assert_int_equal(env_rename(fixture->host.env, "/away", path, NULL), STATUS_OK);
    sim_disk_options(fixture->host.node)->read_error_ppm = 1000 * 1000;
    run_passes(fixture, 1);
    assert_true(damages.count > 1);
    sim_disk_options(fixture->host.node)->read_error_ppm = 0;
    tear_down(fixture);
}

/* Damage of tables that are gone isn't shown any more, and their space comes back. */
static void test_scrub_lets_go_of_tables_that_compactions_replaced(void **state) {
    (void)state;
    struct damages damages;
    char path[LIMIT_PATH_BYTES];
    struct fixture *fixture = set_up_scrubbed_with(4, 64, &damages);
    path_with(fixture, "/data", ".sst", path);
    flip(fixture, path, 100);
    host_open(&fixture->host);
    run_passes(fixture, 1);
    struct storage_stats stats = stats_of(fixture);
    assert_int_equal(damages.count, 1);
    assert_int_equal(stats.damage_count, 1);
    flip(fixture, path, 100); /* so that a compaction can read it */
    for (unsigned round = 0; round < 30; round++) {
        apply_some(fixture, 60);
        host_run_ms(&fixture->host, 50);
    }
    settle(fixture);
    host_run_ms(&fixture->host, 20 * 1000);
    assert_false(storage_has_file(fixture->host.storage, damages.last.file));
    stats = stats_of(fixture);
    assert_int_equal(stats.held_bytes, 0);
    assert_int_equal(stats.damage_count, 0);
    assert_int_equal(damages.count, 1);
    model_check_all(&fixture->model, &fixture->host, fixture->model.count);
    tear_down(fixture);
}

static void test_scrub_without_memory_tries_again_and_finds_nothing(void **state) {
    (void)state;
    struct damages damages;
    struct fixture *fixture = set_up_scrubbed_with(5, 64, &damages);
    host_open(&fixture->host);
    run_passes(fixture, 1);
    for (uint64_t n = 1; n < 30; n++) {
        sim_node_fail_allocation(fixture->host.node, n);
        host_run_ms(&fixture->host, 300);
    }
    sim_node_fail_allocation(fixture->host.node, 0);
    run_passes(fixture, 1);
    assert_int_equal(stats_of(fixture).scrub_findings, 0);
    tear_down(fixture);
}

static void test_scrub_ends_with_the_store(void **state) {
    (void)state;
    struct damages damages;
    for (uint64_t steps = 0; steps < 60; steps++) {
        struct fixture *fixture = set_up_scrubbed_with(6, 64, &damages);
        host_open(&fixture->host);
        for (uint64_t i = 0; i < steps; i++) {
            (void)sim_step(fixture->host.sim);
        }
        host_close(&fixture->host);
        tear_down(fixture);
    }
}

static void test_scrub_is_off_unless_asked_for(void **state) {
    (void)state;
    struct fixture *fixture = set_up(7);
    struct storage_options options;
    storage_options_init(&options);
    assert_int_equal(options.scrub_bytes_per_second, 0);
    apply_some(fixture, 60);
    settle(fixture);
    assert_int_equal(stats_of(fixture).scrub_bytes, 0);
    tear_down(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage_that_a_read_meets_is_named_once),
        cmocka_unit_test(test_scrub_reads_all_tables_at_its_rate),
        cmocka_unit_test(test_scrub_finds_a_flipped_byte_anywhere_once_and_counts_passes),
        cmocka_unit_test(test_scrub_reads_all_value_files_at_its_rate),
        cmocka_unit_test(test_scrub_finds_a_flipped_byte_anywhere_in_a_value_file),
        cmocka_unit_test(test_scrub_finds_a_flipped_byte_anywhere_in_a_change_file),
        cmocka_unit_test(test_scrub_notes_a_table_that_is_missing_or_unreadable),
        cmocka_unit_test(test_scrub_lets_go_of_tables_that_compactions_replaced),
        cmocka_unit_test(test_scrub_without_memory_tries_again_and_finds_nothing),
        cmocka_unit_test(test_scrub_ends_with_the_store),
        cmocka_unit_test(test_scrub_is_off_unless_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
