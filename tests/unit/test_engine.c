/*
 * The engine by itself, on real files: what is written is read, by every way there is to write and to read, before and
 * after closing, flushing, and killing (a process of its own that ends itself in mid-work).
 *
 * What would break these: a write that is acknowledged before it is in a tail file; replay that stops early, twice
 * applies, or takes what an earlier life left; a batch torn in two; a snapshot that moves; a failed log that goes on; a
 * flush that waits for a log that nobody writes.
 */
#include "node/env/os/env_os.h"
#include "storage/engine.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    char dir[64];
    struct engine_options options;
    struct engine *engine;
    struct error err;
};

static void world_init(struct world *world) {
    memset(world, 0, sizeof *world);
    (void)snprintf(world->dir, sizeof world->dir, "build/test-engine-XXXXXX");
    assert_non_null(mkdtemp(world->dir));
    engine_options_init(&world->options);
    world->options.dir = world->dir;
}

static void open_it(struct world *world) {
    enum status status = engine_open(&world->options, &world->engine, &world->err);
    if (status != STATUS_OK) {
        fail_msg("open: %s: %s", status_name(status), world->err.message);
    }
}

static void close_it(struct world *world) {
    engine_close(world->engine);
    world->engine = NULL;
}

static void world_deinit(struct world *world) {
    close_it(world);
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", world->dir);
    assert_int_equal(system(command), 0);
}

/* Has another process open the store, work, and be killed when the work is done. Nothing may be open here. */
static void work_and_die(struct world *world, void (*work)(struct world *world, unsigned life), unsigned life) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        open_it(world);
        work(world, life);
        (void)kill(getpid(), SIGKILL);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL); /* else a check failed in there */
}

static struct slice key_of(char *memory, unsigned number) {
    return slice_of(memory, (size_t)snprintf(memory, 32, "key%08u", number));
}

static void put(struct world *world, unsigned number, const char *value, bool sync) {
    char key[32];
    const struct engine_write_options options = {.sync = sync};
    assert_int_equal(engine_put(world->engine, &options, key_of(key, number), slice_of_string(value), &world->err),
                     STATUS_OK);
}

/* value NULL: there is none. */
static void check_at(struct world *world, const struct engine_snapshot *snapshot, unsigned number, const char *value) {
    char key[32];
    struct engine_value found;
    const struct engine_read_options options = {.snapshot = snapshot};
    enum status status = engine_get(world->engine, &options, key_of(key, number), &found, &world->err);
    if (value == NULL) {
        assert_int_equal(status, STATUS_NOT_FOUND);
        return;
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(slice_equal(found.bytes, slice_of_string(value)));
    engine_value_release(&found);
}

static void check_value(struct world *world, unsigned number, const char *value) {
    check_at(world, NULL, number, value);
}

static unsigned count_keys(struct world *world) {
    struct engine_iterator *iterator;
    unsigned count = 0;
    assert_int_equal(engine_iterator_new(world->engine, NULL, &iterator, &world->err), STATUS_OK);
    enum status status = engine_iterator_first(iterator, &world->err);
    for (; status == STATUS_OK; status = engine_iterator_next(iterator, &world->err)) {
        count++;
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    engine_iterator_free(iterator);
    return count;
}

/* ---- Surviving -------------------------------------------------------------------------------------------------- */

static const char hundred[] =
    "value of a hundred or so bytes, so that the writes of one life do not all fit a tail file";

static void put_3000(struct world *world, unsigned life) {
    for (unsigned i = 0; i < 3000; i++) {
        put(world, life * 3000 + i, i % 2 == 0 ? hundred : "odd", i % 1000 == 0 && life % 2 == 1);
    }
}

static void test_engine_reopened_has_everything(void **state) {
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct world world;
        world_init(&world);
        world.options.flush_on_close = way == 1;
        if (way == 2) {
            work_and_die(&world, put_3000, 0);
        } else {
            open_it(&world);
            put_3000(&world, 0);
            close_it(&world);
        }
        open_it(&world);
        assert_int_equal(count_keys(&world), 3000);
        check_value(&world, 2999, "odd");
        check_value(&world, 2998, hundred);
        check_value(&world, 3000, NULL);
        world_deinit(&world);
    }
}

static void check_and_put_3000(struct world *world, unsigned life) {
    assert_int_equal(count_keys(world), 3000 * life);
    for (unsigned i = 0; i < 3000 * life; i++) {
        check_value(world, i, i % 2 == 0 ? hundred : "odd");
    }
    put_3000(world, life);
}

/* Several lives that each end by a kill: terms keep what an earlier life left in the tail files apart. */
static void test_engine_killed_again_and_again_has_every_write(void **state) {
    (void)state;
    struct world world;
    world_init(&world);
    for (unsigned life = 0; life < 8; life++) {
        work_and_die(&world, check_and_put_3000, life);
    }
    open_it(&world);
    assert_int_equal(count_keys(&world), 24000);
    world_deinit(&world);
}

static void put_much(struct world *world, unsigned life) {
    char value[2001];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    assert_int_equal(count_keys(world), 4000 * life);
    for (unsigned i = 0; i < 4000; i++) {
        put(world, life * 4000 + i, value, false);
    }
}

/* As above, with more than both tail files hold, so that the log is written in between, and memtables switch. */
static void test_engine_killed_while_much_is_under_way_has_every_write(void **state) {
    (void)state;
    struct world world;
    struct engine_stats stats;
    world_init(&world);
    world.options.memtable_bytes = 1 << 20;
    for (unsigned life = 0; life < 3; life++) {
        work_and_die(&world, put_much, life);
    }
    open_it(&world);
    assert_int_equal(count_keys(&world), 12000);
    engine_get_stats(world.engine, &stats);
    assert_int_equal(stats.revision, 12000);
    world_deinit(&world);
}

/* What a larger tail file of the last life holds is found by one with smaller groups. */
static void test_engine_reopened_with_smaller_groups_has_everything(void **state) {
    (void)state;
    struct world world;
    world_init(&world);
    work_and_die(&world, put_3000, 0);
    world.options.log_group_bytes = 32 * 1024;
    open_it(&world);
    assert_int_equal(count_keys(&world), 3000);
    put_3000(&world, 1);
    close_it(&world);
    world.options.log_group_bytes = 256 * 1024;
    open_it(&world);
    assert_int_equal(count_keys(&world), 6000);
    world_deinit(&world);
}

static void put_huge(struct world *world, unsigned life) {
    (void)life;
    char key[32];
    uint8_t *value = malloc(LIMIT_VALUE_BYTES + 1);
    assert_non_null(value);
    memset(value, 'h', LIMIT_VALUE_BYTES + 1);
    put(world, 1, "small", false);
    assert_int_equal(engine_put(world->engine, NULL, key_of(key, 2), slice_of(value, LIMIT_VALUE_BYTES), &world->err),
                     STATUS_OK);
    put(world, 3, "small", false);
    assert_int_equal(engine_put(world->engine, NULL, key_of(key, 4), slice_of(value, LIMIT_VALUE_BYTES + 1),
                                &world->err),
                     STATUS_INVALID);
    free(value);
}

/* A value beyond the tail file has no place to survive in but the log: it is synced. */
static void test_engine_huge_value_survives_a_kill(void **state) {
    (void)state;
    struct world world;
    char key[32];
    struct engine_value found;
    world_init(&world);
    work_and_die(&world, put_huge, 0);
    open_it(&world);
    assert_int_equal(engine_get(world.engine, NULL, key_of(key, 2), &found, &world.err), STATUS_OK);
    assert_int_equal(found.bytes.len, LIMIT_VALUE_BYTES);
    for (size_t i = 0; i < found.bytes.len; i += 4097) {
        assert_int_equal(found.bytes.data[i], 'h');
    }
    engine_value_release(&found);
    check_value(&world, 1, "small");
    check_value(&world, 3, "small");
    world_deinit(&world);
}

/* ---- Batches and ranges ----------------------------------------------------------------------------------------- */

struct walked {
    char text[256];
};

static enum status walk_put(void *context, struct slice key, struct slice value) {
    struct walked *walked = context;
    size_t len = strlen(walked->text);
    (void)snprintf(walked->text + len, sizeof walked->text - len, "+%.*s=%.*s ", (int)key.len, (const char *)key.data,
                   (int)value.len, (const char *)value.data);
    return STATUS_OK;
}

static enum status walk_delete(void *context, struct slice key) {
    struct walked *walked = context;
    size_t len = strlen(walked->text);
    (void)snprintf(walked->text + len, sizeof walked->text - len, "-%.*s ", (int)key.len, (const char *)key.data);
    return slice_equal(key, slice_of_string("stop")) ? STATUS_NOT_FOUND : STATUS_OK;
}

static enum status walk_range(void *context, struct slice start, struct slice end) {
    struct walked *walked = context;
    size_t len = strlen(walked->text);
    (void)snprintf(walked->text + len, sizeof walked->text - len, "-%.*s..%.*s ", (int)start.len,
                   (const char *)start.data, (int)end.len, (const char *)end.data);
    return STATUS_OK;
}

static void test_engine_batch_walked_shows_what_went_in(void **state) {
    (void)state;
    struct engine_batch *batch = engine_batch_new(NULL);
    struct walked walked = {""};
    const struct engine_batch_walker walker = {&walked, walk_put, walk_delete, walk_range};
    assert_int_equal(engine_batch_put(batch, slice_of_string("a"), slice_of_string("1")), STATUS_OK);
    assert_int_equal(engine_batch_delete(batch, slice_of_string("b")), STATUS_OK);
    assert_int_equal(engine_batch_delete_range(batch, slice_of_string("c"), slice_of_string("d")), STATUS_OK);
    assert_int_equal(engine_batch_delete_range(batch, slice_of_string("d"), slice_of_string("c")), STATUS_INVALID);
    assert_int_equal(engine_batch_count(batch), 3);
    assert_int_equal(engine_batch_walk(batch, &walker), STATUS_OK);
    assert_string_equal(walked.text, "+a=1 -b -c..d ");
    assert_int_equal(engine_batch_delete(batch, slice_of_string("stop")), STATUS_OK);
    assert_int_equal(engine_batch_walk(batch, &walker), STATUS_NOT_FOUND);
    engine_batch_clear(batch);
    assert_int_equal(engine_batch_count(batch), 0);
    assert_int_equal(engine_batch_walk(batch, &walker), STATUS_OK);
    engine_batch_free(batch);
}

static void write_batch(struct world *world, unsigned life) {
    (void)life;
    char key[32];
    struct engine_batch *batch = engine_batch_new(NULL);
    for (unsigned i = 0; i < 500; i++) {
        assert_int_equal(engine_batch_put(batch, key_of(key, i), slice_of_string("b")), STATUS_OK);
    }
    assert_int_equal(engine_batch_delete(batch, key_of(key, 100)), STATUS_OK);
    assert_int_equal(engine_write(world->engine, NULL, batch, &world->err), STATUS_OK);
    engine_batch_free(batch);
}

static void test_engine_batch_is_there_whole(void **state) {
    (void)state;
    struct world world;
    world_init(&world);
    work_and_die(&world, write_batch, 0);
    open_it(&world);
    assert_int_equal(count_keys(&world), 499);
    check_value(&world, 100, NULL);
    struct engine_stats stats;
    engine_get_stats(world.engine, &stats);
    assert_int_equal(stats.revision, 1);
    world_deinit(&world);
}

/* ---- Snapshots and iterators ------------------------------------------------------------------------------------ */

/* Revision 0 is a revision, too: before the first write. */
static void test_engine_snapshot_of_nothing_stays_empty(void **state) {
    (void)state;
    struct world world;
    struct engine_iterator *iterator;
    world_init(&world);
    open_it(&world);
    struct engine_snapshot *snapshot = engine_snapshot_new(world.engine);
    const struct engine_iterator_options walk = {.snapshot = snapshot};
    assert_int_equal(engine_snapshot_revision(snapshot), 0);
    put(&world, 1, "new", false);
    for (int round = 0; round < 2; round++) { /* in the memtable, in a table */
        check_at(&world, snapshot, 1, NULL);
        check_value(&world, 1, "new");
        assert_int_equal(engine_iterator_new(world.engine, &walk, &iterator, &world.err), STATUS_OK);
        assert_int_equal(engine_iterator_first(iterator, &world.err), STATUS_NOT_FOUND);
        assert_int_equal(engine_iterator_last(iterator, &world.err), STATUS_NOT_FOUND);
        engine_iterator_free(iterator);
        assert_int_equal(engine_flush(world.engine, &world.err), STATUS_OK);
    }
    engine_snapshot_release(world.engine, snapshot);
    world_deinit(&world);
}

static void test_engine_snapshot_stays_as_it_was(void **state) {
    (void)state;
    struct world world;
    char key[32];
    world_init(&world);
    open_it(&world);
    put(&world, 1, "old", false);
    put(&world, 2, "old", false);
    struct engine_snapshot *snapshot = engine_snapshot_new(world.engine);
    put(&world, 1, "new", false);
    assert_int_equal(engine_delete(world.engine, NULL, key_of(key, 2), &world.err), STATUS_OK);
    for (int round = 0; round < 6; round++) { /* enough tables for a compaction */
        check_at(&world, snapshot, 1, "old");
        check_at(&world, snapshot, 2, "old");
        check_value(&world, 1, "new");
        check_value(&world, 2, NULL);
        put(&world, 3, "more", false);
        assert_int_equal(engine_flush(world.engine, &world.err), STATUS_OK);
    }
    engine_snapshot_release(world.engine, snapshot);
    world_deinit(&world);
}

static void test_engine_iterator_shows_bounds_in_order(void **state) {
    (void)state;
    struct world world;
    char lower[32];
    char upper[32];
    char key[32];
    world_init(&world);
    open_it(&world);
    for (unsigned i = 0; i < 300; i++) {
        put(&world, i * 7 % 300, "v", false);
        if (i == 150) {
            assert_int_equal(engine_flush(world.engine, &world.err), STATUS_OK);
        }
    }
    const struct engine_iterator_options options = {.lower = key_of(lower, 100), .upper = key_of(upper, 200)};
    struct engine_iterator *iterator;
    assert_int_equal(engine_iterator_new(world.engine, &options, &iterator, &world.err), STATUS_OK);
    put(&world, 150, "later", false);
    unsigned number = 100;
    enum status status = engine_iterator_seek(iterator, slice_of_string("a"), &world.err);
    for (; status == STATUS_OK; status = engine_iterator_next(iterator, &world.err)) {
        assert_true(slice_equal(engine_iterator_key(iterator), key_of(key, number)));
        struct slice value;
        assert_int_equal(engine_iterator_value(iterator, &value, &world.err), STATUS_OK);
        assert_true(slice_equal(value, slice_of_string("v")));
        number++;
    }
    assert_int_equal(number, 200);
    assert_int_equal(engine_iterator_seek(iterator, key_of(key, 170), &world.err), STATUS_OK);
    assert_true(slice_equal(engine_iterator_key(iterator), key_of(key, 170)));
    engine_iterator_free(iterator);
    world_deinit(&world);
}

/* Hazard 34: a step back after a step forth, over memtable and tables, with deletes and a range delete in between. */
static void test_h34_engine_iterator_turns_anywhere(void **state) {
    (void)state;
    struct world world;
    char key[32];
    char end[32];
    world_init(&world);
    open_it(&world);
    for (unsigned i = 0; i < 200; i++) {
        put(&world, i, "v", false);
        if (i % 60 == 0) {
            assert_int_equal(engine_flush(world.engine, &world.err), STATUS_OK);
        }
    }
    assert_int_equal(engine_delete(world.engine, NULL, key_of(key, 77), &world.err), STATUS_OK);
    assert_int_equal(engine_delete_range(world.engine, NULL, key_of(key, 100), key_of(end, 150), &world.err),
                     STATUS_OK);
    put(&world, 120, "again", false);
    struct engine_iterator *iterator;
    assert_int_equal(engine_iterator_new(world.engine, NULL, &iterator, &world.err), STATUS_OK);
    unsigned live[200];
    unsigned count = 0;
    for (unsigned i = 0; i < 200; i++) {
        if (i != 77 && (i < 100 || i >= 150 || i == 120)) {
            live[count++] = i;
        }
    }
    assert_int_equal(engine_iterator_last(iterator, &world.err), STATUS_OK);
    for (unsigned at = count; at-- > 0;) {
        assert_true(slice_equal(engine_iterator_key(iterator), key_of(key, live[at])));
        if (at + 1 < count) {
            assert_int_equal(engine_iterator_next(iterator, &world.err), STATUS_OK);
            assert_true(slice_equal(engine_iterator_key(iterator), key_of(key, live[at + 1])));
            assert_int_equal(engine_iterator_prev(iterator, &world.err), STATUS_OK);
        }
        assert_int_equal(engine_iterator_prev(iterator, &world.err), at > 0 ? STATUS_OK : STATUS_NOT_FOUND);
    }
    assert_int_equal(engine_iterator_seek_for_prev(iterator, key_of(key, 140), &world.err), STATUS_OK);
    assert_true(slice_equal(engine_iterator_key(iterator), key_of(key, 120)));
    assert_int_equal(engine_iterator_seek(iterator, key_of(key, 121), &world.err), STATUS_OK);
    assert_true(slice_equal(engine_iterator_key(iterator), key_of(key, 150)));
    engine_iterator_free(iterator);
    world_deinit(&world);
}

static void test_engine_multi_get_answers_for_each(void **state) {
    (void)state;
    struct world world;
    char memory[4][32];
    world_init(&world);
    open_it(&world);
    put(&world, 1, "one", false);
    assert_int_equal(engine_flush(world.engine, &world.err), STATUS_OK);
    put(&world, 2, "two", false);
    struct slice keys[4] = {key_of(memory[0], 2), key_of(memory[1], 9), key_of(memory[2], 1), key_of(memory[3], 2)};
    struct engine_value values[4];
    enum status statuses[4];
    assert_int_equal(engine_multi_get(world.engine, NULL, 4, keys, values, statuses, &world.err), STATUS_OK);
    assert_int_equal(statuses[1], STATUS_NOT_FOUND);
    put(&world, 2, "changed", false); /* what was found stays */
    for (int i = 0; i < 4; i++) {
        if (i != 1) {
            assert_int_equal(statuses[i], STATUS_OK);
            assert_true(slice_equal(values[i].bytes, slice_of_string(i == 2 ? "one" : "two")));
            engine_value_release(&values[i]);
            engine_value_release(&values[i]); /* does no harm */
        }
    }
    keys[1] = slice_of("", 0);
    assert_int_equal(engine_multi_get(world.engine, NULL, 4, keys, values, statuses, &world.err), STATUS_INVALID);
    assert_int_equal(engine_multi_get(world.engine, NULL, 0, NULL, NULL, NULL, &world.err), STATUS_OK);
    world_deinit(&world);
}

/* ---- Upkeep ----------------------------------------------------------------------------------------------------- */

static uint64_t property(struct world *world, const char *name) {
    struct buf text;
    buf_init(&text, alloc_system(), 0);
    assert_int_equal(engine_property(world->engine, name, &text), STATUS_OK);
    assert_int_equal(buf_append(&text, "", 1), STATUS_OK);
    uint64_t number = strtoull((const char *)text.data, NULL, 10);
    buf_deinit(&text);
    return number;
}

/* Hazard 33: what was deleted stays deleted, and its space comes back. */
static void test_h33_engine_compacted_range_holds_only_what_is_live(void **state) {
    (void)state;
    struct world world;
    char key[32];
    char end[32];
    world_init(&world);
    open_it(&world);
    const struct slice all = slice_of("", 0);
    for (unsigned i = 0; i < 5000; i++) {
        put(&world, i, hundred, false);
    }
    assert_int_equal(engine_compact_range(world.engine, all, all, &world.err), STATUS_OK);
    uint64_t full = engine_approximate_bytes(world.engine, all, all);
    uint64_t part = engine_approximate_bytes(world.engine, key_of(key, 0), key_of(end, 2500));
    assert_true(full > 50000 && part > full / 4 && part < full * 3 / 4);
    assert_int_equal(engine_delete_range(world.engine, NULL, key_of(key, 10), key_of(end, 4990), &world.err),
                     STATUS_OK);
    put(&world, 2000, "back", false);
    assert_int_equal(engine_compact_range(world.engine, all, all, &world.err), STATUS_OK);
    assert_true(engine_approximate_bytes(world.engine, all, all) < full / 10);
    assert_int_equal(count_keys(&world), 21);
    check_value(&world, 2001, NULL);
    check_value(&world, 2000, "back");
    close_it(&world);
    open_it(&world);
    assert_int_equal(count_keys(&world), 21);
    world_deinit(&world);
}

static void test_engine_properties_say_what_statistics_say(void **state) {
    (void)state;
    struct world world;
    struct engine_stats stats;
    struct buf text;
    world_init(&world);
    open_it(&world);
    for (unsigned i = 0; i < 100; i++) {
        put(&world, i, "v", i == 99);
    }
    assert_int_equal(engine_flush(world.engine, &world.err), STATUS_OK);
    engine_get_stats(world.engine, &stats);
    assert_int_equal(stats.revision, 100);
    assert_int_equal(stats.durable, 100);
    assert_int_equal(stats.flushed, 100);
    assert_int_equal(stats.flushes, 1);
    assert_int_equal(property(&world, "revision"), 100);
    uint64_t syncs = 0;
    for (size_t i = 0; i < ENGINE_SYNC_BUCKETS; i++) {
        syncs += stats.log_sync_us_buckets[i];
    }
    assert_int_equal(syncs, stats.log_groups);
    assert_int_equal(stats.log_groups_idle + stats.log_groups_behind + stats.log_groups_full + stats.log_groups_start +
                         stats.log_groups_state + stats.log_groups_mark,
                     stats.log_groups);
    assert_true(stats.log_group_records_max >= 1 && stats.log_group_records_max <= 100);
    assert_true(stats.log_sync_us_p50 <= stats.log_sync_us_p99 && stats.log_sync_us_p99 <= stats.log_sync_us_max);
    assert_true(stats.log_padding_bytes < stats.log_written_bytes);
    assert_int_equal(property(&world, "log_padding_bytes"), stats.log_padding_bytes);
    assert_int_equal(property(&world, "log_sync_us_buckets.0"), stats.log_sync_us_buckets[0]);
    assert_int_equal(property(&world, "level_files.0") + property(&world, "level_files.6"), stats.table_files);
    buf_init(&text, alloc_system(), 0);
    assert_int_equal(engine_property(world.engine, "nonsense", &text), STATUS_NOT_FOUND);
    assert_int_equal(text.len, 0);
    assert_int_equal(engine_property(world.engine, "all", &text), STATUS_OK);
    assert_int_equal(buf_append(&text, "", 1), STATUS_OK);
    assert_non_null(strstr((const char *)text.data, "\nflushes 1\n"));
    assert_non_null(strstr((const char *)text.data, "\nproblem "));
    buf_deinit(&text);
    world_deinit(&world);
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

static void test_engine_opened_twice_is_busy(void **state) {
    (void)state;
    struct world world;
    struct engine *second;
    world_init(&world);
    open_it(&world);
    assert_int_equal(engine_open(&world.options, &second, &world.err), STATUS_BUSY);
    put(&world, 1, "still here", true);
    check_value(&world, 1, "still here");
    world_deinit(&world);
}

static void test_engine_open_options_are_kept(void **state) {
    (void)state;
    struct world world;
    world_init(&world);
    world.options.create_if_missing = false;
    assert_int_equal(engine_open(&world.options, &world.engine, &world.err), STATUS_NOT_FOUND);
    world.options.create_if_missing = true;
    open_it(&world);
    close_it(&world);
    world.options.error_if_exists = true;
    assert_int_equal(engine_open(&world.options, &world.engine, &world.err), STATUS_EXISTS);
    world.options.error_if_exists = false;
    world.options.memtable_bytes = 0;
    assert_int_equal(engine_open(&world.options, &world.engine, &world.err), STATUS_INVALID);
    world.options.memtable_bytes = 1 << 20;
    open_it(&world);
    world_deinit(&world);
}

/* ---- Failing ---------------------------------------------------------------------------------------------------- */

/* Hazard 27: after a failed write of the log nothing more is taken, reads go on, and what was acknowledged is there
 * when it is opened again. */
static void test_h27_engine_failed_log_refuses_writes(void **state) {
    (void)state;
    struct world world;
    struct fault_set faults;
    struct env *env;
    char key[32];
    world_init(&world);
    fault_init(&faults);
    const struct env_os_options os = {.faults = &faults, .workers_short = 2, .workers_long = 2};
    assert_int_equal(env_os_new(&os, &env, &world.err), STATUS_OK);
    world.options.env = env;
    open_it(&world);
    put(&world, 1, "safe", true);
    put(&world, 2, "kept", false);
    assert_int_equal(fault_arm(&faults, "wal.write=error(EIO),count=1", NULL), STATUS_OK);
    const struct engine_write_options sync = {.sync = true};
    assert_int_equal(engine_put(world.engine, &sync, key_of(key, 3), slice_of_string("lost"), &world.err),
                     STATUS_FAILED);
    assert_int_equal(engine_put(world.engine, NULL, key_of(key, 4), slice_of_string("lost"), &world.err),
                     STATUS_FAILED);
    assert_int_equal(engine_flush(world.engine, &world.err), STATUS_FAILED);
    check_value(&world, 1, "safe");
    check_value(&world, 2, "kept");
    close_it(&world);
    open_it(&world);
    check_value(&world, 1, "safe");
    check_value(&world, 2, "kept");
    check_value(&world, 4, NULL);
    world_deinit(&world);
    env_os_free(env);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_reopened_has_everything),
        cmocka_unit_test(test_engine_killed_again_and_again_has_every_write),
        cmocka_unit_test(test_engine_killed_while_much_is_under_way_has_every_write),
        cmocka_unit_test(test_engine_reopened_with_smaller_groups_has_everything),
        cmocka_unit_test(test_engine_huge_value_survives_a_kill),
        cmocka_unit_test(test_engine_batch_walked_shows_what_went_in),
        cmocka_unit_test(test_engine_batch_is_there_whole),
        cmocka_unit_test(test_engine_snapshot_of_nothing_stays_empty),
        cmocka_unit_test(test_engine_snapshot_stays_as_it_was),
        cmocka_unit_test(test_engine_iterator_shows_bounds_in_order),
        cmocka_unit_test(test_h34_engine_iterator_turns_anywhere),
        cmocka_unit_test(test_engine_multi_get_answers_for_each),
        cmocka_unit_test(test_h33_engine_compacted_range_holds_only_what_is_live),
        cmocka_unit_test(test_engine_properties_say_what_statistics_say),
        cmocka_unit_test(test_engine_opened_twice_is_busy),
        cmocka_unit_test(test_engine_open_options_are_kept),
        cmocka_unit_test(test_h27_engine_failed_log_refuses_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
