/*
 * What was overwritten stays readable at its revision, as far back as the history options say, and no further.
 *
 * Would break these: a read at a revision that shows another one's state, through gets, several gets or iterators, from
 * memtables or tables; a horizon that a read gets behind, or that moves before its time, or never; a history by time
 * that forgets too early after an opening, or doesn't give space back while nobody writes; the shorter of two histories
 * counting; a read ahead of what is there that is taken for the newest; a store without history that keeps what the
 * last write of all has deleted.
 */
#include "tests/unit/engine_machine.h"

#include "node/base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum {
    STEPS_MAX = 5 * 1000 * 1000,
    KEYS = 7,
    WRITES = 60,
    HISTORY_MS = 10 * 1000,
    BEAT_MS = 1000 /* between two writes, where time counts */
};

struct run {
    struct sim *sim;
    struct sim_node *node;
    struct engine_options options;
    struct engine *engine;
    uint64_t kept; /* revisions behind the newest that must be readable */
    bool done;
};

static void run_new(struct run *run, uint64_t seed) {
    memset(run, 0, sizeof *run);
    run->sim = machine_new(seed, 3, &run->node);
    engine_options_init(&run->options);
    run->options.dir = "/store";
    run->options.env = sim_node_env(run->node);
}

static void play(struct run *run, void (*program)(void *run)) {
    machine_play(run->sim, run->node, program, run, &run->done, STEPS_MAX);
}

static void open_it(struct run *run) { CHECK(engine_open(&run->options, &run->engine, NULL) == STATUS_OK); }

static void wait_ms(struct run *run, unsigned ms) { env_sleep_us(run->options.env, (uint64_t)ms * 1000); }

/* ---- Writes and what they leave ---------------------------------------------------------------------------------- */

/* Write n (1, 2, ...) is revision n: it puts n as key n % KEYS, or, each fifth, deletes all keys from n % KEYS on. */
static bool deletes(uint64_t number) { return number % 5 == 0; }

static struct slice key_of(char *memory, uint64_t place) {
    return slice_of(memory, (size_t)snprintf(memory, 16, "k%llu", (unsigned long long)place));
}

static void write_number(struct run *run, uint64_t number) {
    char key[16];
    char value[16];
    struct slice start = key_of(key, number % KEYS);
    (void)snprintf(value, sizeof value, "%llu", (unsigned long long)number);
    CHECK((deletes(number) ? engine_delete_range(run->engine, NULL, start, slice_of_string("l"), NULL)
                           : engine_put(run->engine, NULL, start, slice_of_string(value), NULL)) == STATUS_OK);
}

/* The write whose value key `place` has after write `revision`; 0: none. */
static uint64_t holder(uint64_t revision, uint64_t place) {
    for (uint64_t number = revision; number > 0; number--) {
        if (deletes(number) ? place >= number % KEYS : place == number % KEYS) {
            return deletes(number) ? 0 : number;
        }
    }
    return 0;
}

static void check_value(uint64_t wanted, enum status status, const struct engine_value *value) {
    char text[16];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)wanted);
    CHECK(status == (wanted == 0 ? STATUS_NOT_FOUND : STATUS_OK));
    CHECK(wanted == 0 || (value->revision == wanted && slice_equal(value->bytes, slice_of_string(text))));
}

/* By every way to read. */
static void check_revision(struct run *run, uint64_t revision) {
    const struct engine_read_options options = {.revision = revision};
    const struct engine_iterator_options all = {.revision = revision};
    char memory[KEYS][16];
    struct slice keys[KEYS];
    struct engine_value values[KEYS] = {{.revision = 0}};
    enum status statuses[KEYS];
    struct engine_iterator *iterator;
    for (uint64_t place = 0; place < KEYS; place++) {
        struct engine_value value = {.revision = 0};
        keys[place] = key_of(memory[place], place);
        enum status status = engine_get(run->engine, &options, keys[place], &value, NULL);
        check_value(holder(revision, place), status, &value);
        engine_value_release(&value);
    }
    CHECK(engine_multi_get(run->engine, &options, KEYS, keys, values, statuses, NULL) == STATUS_OK);
    CHECK(engine_iterator_new(run->engine, &all, &iterator, NULL) == STATUS_OK);
    enum status status = engine_iterator_last(iterator, NULL);
    for (uint64_t place = KEYS; place-- > 0;) {
        check_value(holder(revision, place), statuses[place], &values[place]);
        engine_value_release(&values[place]);
        if (holder(revision, place) != 0) {
            CHECK(status == STATUS_OK && slice_equal(engine_iterator_key(iterator), keys[place]));
            CHECK(engine_iterator_revision(iterator) == holder(revision, place));
            status = engine_iterator_prev(iterator, NULL);
        }
    }
    CHECK(status == STATUS_NOT_FOUND);
    engine_iterator_free(iterator);
}

static enum status ask(struct run *run, uint64_t revision) {
    const struct engine_read_options options = {.revision = revision};
    const struct engine_iterator_options all = {.revision = revision};
    struct slice key = slice_of_string("none");
    struct engine_value value;
    struct engine_iterator *iterator;
    enum status status;
    struct error err;
    enum status got = engine_get(run->engine, &options, key, &value, &err);
    enum status asked = engine_multi_get(run->engine, &options, 1, &key, &value, &status, NULL);
    enum status walked = engine_iterator_new(run->engine, &all, &iterator, NULL);
    if (walked == STATUS_OK) {
        engine_iterator_free(iterator);
        CHECK(got == STATUS_NOT_FOUND && asked == STATUS_OK);
        return STATUS_OK;
    }
    CHECK(got == walked && asked == walked && err.message[0] != '\0');
    return walked;
}

static uint64_t horizon(struct run *run) {
    struct engine_stats stats;
    engine_get_stats(run->engine, &stats);
    return stats.horizon;
}

static uint64_t newest(struct run *run) {
    struct engine_stats stats;
    engine_get_stats(run->engine, &stats);
    return stats.revision;
}

/* All that is kept is right, what is beyond is refused. */
static void check_history(struct run *run) {
    uint64_t last = newest(run);
    uint64_t oldest = horizon(run);
    CHECK(oldest + run->kept <= last || oldest == 0);
    for (uint64_t revision = oldest > 0 ? oldest : 1; revision <= last; revision++) {
        check_revision(run, revision);
    }
    if (oldest > 1 && ask(run, oldest - 1) == STATUS_OK) { /* nothing of it has been forgotten yet */
        check_revision(run, oldest - 1);
    }
    CHECK(ask(run, last + 1) == STATUS_INVALID);
    CHECK(ask(run, UINT64_MAX) == STATUS_INVALID);
}

/* ---- By revisions ------------------------------------------------------------------------------------------------ */

static void write_and_look_back(void *context) {
    struct run *run = context;
    open_it(run);
    for (uint64_t number = 1; number <= WRITES; number++) {
        write_number(run, number);
        if (number % 17 == 0) {
            CHECK(engine_flush(run->engine, NULL) == STATUS_OK);
        }
        check_history(run);
    }
    CHECK(horizon(run) == WRITES - run->kept);
    CHECK(engine_compact_range(run->engine, SLICE_EMPTY, SLICE_EMPTY, NULL) == STATUS_OK);
    check_history(run);
    CHECK(ask(run, WRITES - run->kept - 1) == STATUS_COMPACTED);
    engine_close(run->engine);
    open_it(run);
    CHECK(horizon(run) == WRITES - run->kept);
    CHECK(ask(run, WRITES - run->kept - 1) == STATUS_COMPACTED);
    check_history(run);
    engine_close(run->engine);
    run->done = true;
}

static void test_engine_revisions_of_the_history_are_readable(void **state) {
    (void)state;
    struct run run;
    run_new(&run, 1);
    run.kept = 20;
    run.options.history_revisions = run.kept;
    play(&run, write_and_look_back);
    sim_free(run.sim);
}

static void mix_snapshot_and_revision(void *context) {
    struct run *run = context;
    struct engine_value value;
    struct error err;
    open_it(run);
    write_number(run, 1);
    struct engine_snapshot *snapshot = engine_snapshot_new(run->engine);
    const struct engine_read_options both = {.snapshot = snapshot, .revision = 1};
    CHECK(snapshot != NULL);
    CHECK(engine_get(run->engine, &both, slice_of_string("k1"), &value, &err) == STATUS_INVALID);
    for (uint64_t number = 2; number <= WRITES; number++) {
        write_number(run, number);
    }
    CHECK(engine_compact_range(run->engine, SLICE_EMPTY, SLICE_EMPTY, NULL) == STATUS_OK);
    check_history(run); /* the snapshot keeps all of it */
    CHECK(horizon(run) == 1);
    engine_snapshot_release(run->engine, snapshot);
    CHECK(engine_compact_range(run->engine, SLICE_EMPTY, SLICE_EMPTY, NULL) == STATUS_OK);
    CHECK(ask(run, 1) == STATUS_COMPACTED);
    engine_close(run->engine);
    run->done = true;
}

static void test_engine_snapshot_keeps_its_revision_readable(void **state) {
    (void)state;
    struct run run;
    run_new(&run, 2);
    play(&run, mix_snapshot_and_revision);
    sim_free(run.sim);
}

/* ---- By time ----------------------------------------------------------------------------------------------------- */

static void write_in_time(void *context) {
    struct run *run = context;
    open_it(run);
    for (uint64_t number = 1; number <= WRITES; number++) {
        write_number(run, number);
        check_history(run);
        wait_ms(run, BEAT_MS);
    }
    uint64_t oldest = horizon(run); /* a beat later than at the last look */
    CHECK(oldest + HISTORY_MS / BEAT_MS <= WRITES + 1);
    CHECK(oldest + HISTORY_MS / BEAT_MS + HISTORY_MS / BEAT_MS / 16 + 2 >= WRITES);
    engine_close(run->engine);

    open_it(run); /* nobody knows how old all this is */
    wait_ms(run, HISTORY_MS * 9 / 10);
    CHECK(horizon(run) == oldest);
    check_history(run);
    wait_ms(run, HISTORY_MS / 5);
    CHECK(horizon(run) == WRITES); /* although nobody writes */
    check_revision(run, WRITES);
    engine_close(run->engine);
    run->done = true;
}

static void test_engine_history_by_time_is_kept_and_then_forgotten(void **state) {
    (void)state;
    struct run run;
    run_new(&run, 3);
    run.options.history_ms = HISTORY_MS;
    run.kept = 0;
    play(&run, write_in_time);
    sim_free(run.sim);
}

static void wait_with_both(void *context) {
    struct run *run = context;
    open_it(run);
    for (uint64_t number = 1; number <= WRITES; number++) {
        write_number(run, number);
    }
    CHECK(horizon(run) == 0);
    wait_ms(run, HISTORY_MS / 2);
    CHECK(horizon(run) == 0); /* by revisions it would have moved */
    wait_ms(run, HISTORY_MS);
    CHECK(horizon(run) == WRITES - run->kept); /* by time it would be the newest */
    check_history(run);
    engine_close(run->engine);
    run->done = true;
}

static void test_engine_longer_history_counts(void **state) {
    (void)state;
    struct run run;
    run_new(&run, 4);
    run.options.history_ms = HISTORY_MS;
    run.options.history_revisions = run.kept = 5;
    play(&run, wait_with_both);
    sim_free(run.sim);
}

/* ---- None -------------------------------------------------------------------------------------------------------- */

static uint64_t bytes_of_files(struct run *run) {
    struct engine_stats stats;
    engine_get_stats(run->engine, &stats);
    return stats.table_bytes + stats.value_file_bytes;
}

static void put_much(struct run *run) {
    static const uint8_t value[2000];
    for (uint64_t i = 0; i < 200; i++) {
        char key[16];
        CHECK(engine_put(run->engine, NULL, key_of(key, i), slice_of(value, i % 2 == 0 ? 100 : sizeof value), NULL) ==
              STATUS_OK);
    }
    CHECK(engine_flush(run->engine, NULL) == STATUS_OK && bytes_of_files(run) > 0);
}

/* The last write of all, and nothing comes behind it that could move a horizon. */
static void delete_everything_last(void *context) {
    struct run *run = context;
    open_it(run);
    put_much(run);
    CHECK(engine_delete_range(run->engine, NULL, slice_of_string("k"), slice_of_string("l"), NULL) == STATUS_OK);
    CHECK(engine_compact_range(run->engine, SLICE_EMPTY, SLICE_EMPTY, NULL) == STATUS_OK);
    CHECK(bytes_of_files(run) == 0);

    put_much(run);
    struct engine_snapshot *snapshot = engine_snapshot_new(run->engine);
    CHECK(snapshot != NULL);
    CHECK(engine_delete_range(run->engine, NULL, slice_of_string("k"), slice_of_string("l"), NULL) == STATUS_OK);
    CHECK(engine_compact_range(run->engine, SLICE_EMPTY, SLICE_EMPTY, NULL) == STATUS_OK);
    CHECK(bytes_of_files(run) > 0);
    engine_snapshot_release(run->engine, snapshot);
    wait_ms(run, 10 * 1000);
    CHECK(bytes_of_files(run) == 0);
    engine_close(run->engine);
    run->done = true;
}

static void test_engine_without_history_gives_the_space_of_deletes_back(void **state) {
    (void)state;
    struct run run;
    run_new(&run, 5);
    run.options.value_threshold_bytes = 1000;
    play(&run, delete_everything_last);
    sim_free(run.sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_revisions_of_the_history_are_readable),
        cmocka_unit_test(test_engine_snapshot_keeps_its_revision_readable),
        cmocka_unit_test(test_engine_history_by_time_is_kept_and_then_forgotten),
        cmocka_unit_test(test_engine_longer_history_counts),
        cmocka_unit_test(test_engine_without_history_gives_the_space_of_deletes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
