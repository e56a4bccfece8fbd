/*
 * Fetching without blocking, on a loop of the simulator: pages that are absent, rounds, errors, hangs.
 *
 * Would break these: an operation that isn't resumed where it was, or never; a block that is let go before the
 * operation came back for it (with a cache that keeps nothing it would never end); reads that wait for each other; a
 * read that hangs and holds up those that don't need it; an error that is lost, sticks, or is told to the wrong one;
 * `ready` from inside fetch_start; memory of a read that is freed before it ended.
 */
#include "tests/unit/sst_fixture.h"

#include "storage/sst_format.h"

enum { STEPS_MAX = 4 * 1000 * 1000, GETS_MAX = 40 };

/* An operation on a loop: `read` is repeated until it says something else than STATUS_PENDING. */
struct operation {
    struct fetch fetch;
    struct env_message start;
    struct env_loop *loop;
    struct world *world;
    enum status (*read)(struct operation *operation, struct error *err);
    bool inside; /* fetch_start */
    bool done;
    enum status status;
    struct error error;
    int rounds;
    /* Of gets: */
    struct entry_key keys[GETS_MAX];
    enum status statuses[GETS_MAX];
    struct entry entries[GETS_MAX];
    struct sst_hold holds[GETS_MAX];
    size_t key_count;
    /* Of walks: */
    struct cursor *cursor;
    struct random random;
    uint8_t key[KEY_BYTES + 1];
    struct entry_key target;
    size_t at;
    size_t want;
    int steps_left;
    int what; /* is being asked, -1: nothing */
};

static void operation_run(struct operation *operation) {
    assert_true(env_on_loop(operation->loop));
    enum status status = operation->read(operation, &operation->error);
    if (status == STATUS_PENDING) {
        operation->inside = true;
        fetch_start(&operation->fetch);
        operation->inside = false;
        assert_true(fetch_is_busy(&operation->fetch));
        return;
    }
    operation->status = status;
    operation->done = true;
}

static void operation_start(struct env_message *message) {
    operation_run(CONTAINER_OF(message, struct operation, start));
}

static void operation_ready(struct fetch *fetch) {
    struct operation *operation = CONTAINER_OF(fetch, struct operation, fetch);
    assert_false(operation->inside);
    assert_false(fetch_is_busy(fetch));
    operation->rounds++;
    operation_run(operation);
}

static struct operation *operation_new(struct world *world, struct env_loop *loop, const struct fetch_options *base,
                                       enum status (*read)(struct operation *operation, struct error *err)) {
    struct operation *operation = calloc(1, sizeof *operation);
    struct fetch_options options = *base;
    options.loop = loop;
    options.ready = operation_ready;
    operation->world = world;
    operation->loop = loop;
    operation->read = read;
    fetch_init(&operation->fetch, &world->context, &options);
    operation->start.run = operation_start;
    return operation;
}

static void operation_free(struct operation *operation) {
    for (size_t i = 0; i < GETS_MAX; i++) {
        sst_hold_release(&operation->holds[i]);
    }
    cursor_free(operation->cursor);
    fetch_deinit(&operation->fetch);
    free(operation);
}

static bool is_done(void *context) { return ((struct operation *)context)->done; }

static void start(struct operation *operation) {
    operation->done = false;
    operation->rounds = 0;
    env_post(operation->loop, &operation->start);
}

static void finish(struct operation *operation) {
    assert_int_equal(sim_run_until(operation->world->sim, UINT64_MAX, is_done, operation, STEPS_MAX),
                     SIM_END_PREDICATE);
}

static struct env_loop *loop_new(struct world *world) {
    struct env_loop *loop;
    assert_int_equal(env_loop_new(world->env, "reads", 16, &loop, NULL), STATUS_OK);
    env_loop_run(loop);
    return loop;
}

static void loop_end(struct world *world, struct env_loop *loop) {
    env_loop_stop(loop);
    (void)sim_run_until(world->sim, sim_now_us(world->sim) + 1000, NULL, NULL, STEPS_MAX);
    env_loop_free(loop);
}

/* Every key by itself, all asked for in each round. */
static enum status read_gets(struct operation *operation, struct error *err) {
    enum status all = STATUS_OK;
    for (size_t i = 0; i < operation->key_count; i++) {
        struct tombstone_mark mark;
        const struct entry_key *key = &operation->keys[i];
        if (operation->statuses[i] == STATUS_PENDING) {
            operation->statuses[i] =
                sst_get(operation->world->tables[0], &operation->fetch, key->user, filter_hash(key->user),
                        key->revision, &operation->holds[i], &operation->entries[i], &mark, err);
        }
        all = operation->statuses[i] == STATUS_PENDING ? STATUS_PENDING : all;
    }
    return all;
}

static void ask_for(struct operation *operation, size_t key_count, struct random *random) {
    fetch_reset(&operation->fetch);
    operation->key_count = key_count;
    for (size_t i = 0; i < key_count; i++) {
        const struct list_of_entries *list = &operation->world->list;
        operation->keys[i] = list->entries[random_below(random, list->count)].key;
        operation->statuses[i] = STATUS_PENDING;
    }
}

static void assert_gets(const struct operation *operation) {
    const struct list_of_entries *list = &operation->world->list;
    for (size_t i = 0; i < operation->key_count; i++) {
        struct entry_key target = entry_key_at(operation->keys[i].user, operation->keys[i].revision);
        assert_int_equal(operation->statuses[i], STATUS_OK);
        assert_entry(&operation->entries[i], &list->entries[list_find(list, &target)]);
    }
}

static void test_fetch_gets_come_back_even_if_nothing_is_cached(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct world *world = world_new(seed, seed % 2 == 0 ? 0 : 1 << 20, 1);
        struct random random;
        random_seed(&random, seed);
        world->builder.compression = seed % 3 == 0 ? COMPRESSION_LZ4 : COMPRESSION_NONE;
        sim_disk_options(world->node)->nowait_pending_ppm = seed < 3 ? 1000000 : 300000;
        make_entries(&world->list, 1500, seed);
        add_tables(world, 1);
        struct env_loop *loop = loop_new(world);
        const struct fetch_options options = {.fill_cache = true};
        struct operation *operation = operation_new(world, loop, &options, read_gets);
        for (int i = 0; i < 60; i++) {
            ask_for(operation, 1 + random_below(&random, GETS_MAX), &random);
            start(operation);
            finish(operation);
            assert_gets(operation);
            /* Top, partitions, data blocks: each round asks for all that it can. One more where the page cache lost a
             * partition meanwhile. */
            assert_in_range(operation->rounds, 0, i == 0 || seed >= 3 ? 3 : 2);
        }
        operation_free(operation);
        loop_end(world, loop);
        world_free(world);
    }
}

/* A random walk over the tables, checked against the list. */
static enum status ask_cursor(struct operation *operation, struct error *err) {
    struct cursor *cursor = operation->cursor;
    switch (operation->what) {
    case 0: return cursor_seek(cursor, &operation->target, err);
    case 1: return cursor_seek_before(cursor, &operation->target, err);
    case 2: return cursor_first(cursor, err);
    case 3: return cursor_last(cursor, err);
    case 4: return cursor_next(cursor, err);
    default: return cursor_prev(cursor, err);
    }
}

static void choose_move(struct operation *operation) {
    const struct list_of_entries *list = &operation->world->list;
    size_t nowhere = list->count;
    struct random *random = &operation->random;
    if (operation->at < nowhere && random_chance(random, 97, 100)) {
        bool turns = random_chance(random, 1, 40);
        bool back = (operation->what % 2 == 1) != turns;
        operation->what = back ? 5 : 4;
        operation->want = !back ? operation->at + 1 : operation->at == 0 ? nowhere : operation->at - 1;
        return;
    }
    operation->what = (int)random_below(random, 4);
    operation->target = random_target(list, random, operation->key);
    size_t found = list_find(list, &operation->target);
    size_t places[] = {found, found == 0 ? nowhere : found - 1, 0, nowhere - 1};
    operation->want = places[operation->what];
}

static enum status read_walk(struct operation *operation, struct error *err) {
    const struct list_of_entries *list = &operation->world->list;
    while (operation->steps_left > 0) {
        if (operation->want == SIZE_MAX) {
            choose_move(operation);
        }
        enum status status = ask_cursor(operation, err);
        if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
            return status;
        }
        assert_int_equal(status, operation->want < list->count ? STATUS_OK : STATUS_NOT_FOUND);
        if (status == STATUS_OK) {
            assert_entry(&operation->cursor->entry, &list->entries[operation->want]);
        }
        operation->at = operation->want;
        operation->want = SIZE_MAX;
        operation->steps_left--;
    }
    return STATUS_OK;
}

static struct operation *walk_new(struct world *world, struct env_loop *loop, const struct fetch_options *options,
                                  uint64_t seed, int steps) {
    struct operation *operation = operation_new(world, loop, options, read_walk);
    random_seed(&operation->random, seed);
    operation->at = world->list.count;
    operation->want = SIZE_MAX;
    operation->steps_left = steps;
    operation->cursor = sst_cursor_new(world->env->alloc, &operation->fetch, world->tables, world->table_count);
    return operation;
}

static const struct fetch_options walk_options[] = {
    {.fill_cache = true},
    {.fill_cache = true, .readahead_bytes_max = 8192},
    {.readahead_bytes_max = 3000},
    {.readahead_at_once = true, .readahead_bytes_max = 64 << 10},
};

static void test_h34_fetch_cursor_resumes_where_it_was(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct world *world = world_new(seed, seed % 3 == 0 ? 0 : 64 << 10, 1);
        world->builder.compression = seed % 2 == 0 ? COMPRESSION_LZ4 : COMPRESSION_NONE;
        sim_disk_options(world->node)->nowait_pending_ppm = seed < 4 ? 1000000 : 400000;
        make_entries(&world->list, 1500, seed);
        add_tables(world, 4);
        struct env_loop *loop = loop_new(world);
        struct operation *operation = walk_new(world, loop, &walk_options[seed % 4], seed, 6000);
        start(operation);
        finish(operation);
        assert_int_equal(operation->status, STATUS_OK);
        assert_true(operation->rounds > 10);
        operation_free(operation);
        loop_end(world, loop);
        world_free(world);
    }
}

static void test_h13_fetch_hung_read_holds_up_nobody_else(void **state) {
    (void)state;
    struct world *world = world_new(1, 1 << 20, 4);
    struct random random;
    random_seed(&random, 1);
    make_entries(&world->list, 1500, 1);
    add_tables(world, 1);
    assert_int_equal(sst_load(world->tables[0], NULL), STATUS_OK);
    struct env_loop *loop = loop_new(world);
    struct operation *hung = operation_new(world, loop, &walk_options[0], read_gets);
    struct operation *others = operation_new(world, loop, &walk_options[0], read_gets);
    ask_for(hung, 1, &random);
    assert_int_equal(fault_arm(sim_node_faults(world->node), "sst.read=hang,count=1", NULL), STATUS_OK);
    start(hung);
    (void)sim_run_until(world->sim, sim_now_us(world->sim) + 100000, NULL, NULL, STEPS_MAX);
    assert_false(hung->done);
    assert_true(fetch_is_busy(&hung->fetch));
    for (int i = 0; i < 20; i++) {
        ask_for(others, 30, &random);
        start(others);
        finish(others);
        assert_gets(others);
    }
    assert_false(hung->done);
    fault_disarm(sim_node_faults(world->node), FAULT_SST_READ);
    finish(hung);
    assert_gets(hung);
    operation_free(hung);
    operation_free(others);
    loop_end(world, loop);
    world_free(world);
}

/* Gets from the first table, opened anew, while its reads meet this fault after so many that work. */
static void get_under(struct operation *operation, struct random *random, const char *fault, int after) {
    struct world *world = operation->world;
    char rule[64];
    (void)snprintf(rule, sizeof rule, "sst.read=%s,after=%d", fault, after);
    fetch_reset(&operation->fetch);
    sst_free(world->tables[0]);
    world->table_count = 0;
    add_tables(world, 1);
    ask_for(operation, 20, random);
    assert_int_equal(fault_arm(sim_node_faults(world->node), rule, NULL), STATUS_OK);
    start(operation);
    finish(operation);
    fault_disarm(sim_node_faults(world->node), FAULT_SST_READ);
}

static void test_fetch_error_is_told_once_to_who_asked(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct random random;
    random_seed(&random, 1);
    make_entries(&world->list, 1500, 1);
    add_tables(world, 1);
    struct env_loop *loop = loop_new(world);
    struct operation *operation = operation_new(world, loop, &walk_options[0], read_gets);
    for (int after = 0; after < 12; after++) {
        get_under(operation, &random, "error(EIO)", after);
        int failed = 0;
        for (size_t i = 0; i < operation->key_count; i++) {
            if (operation->statuses[i] != STATUS_OK) {
                assert_int_equal(operation->statuses[i], STATUS_IO);
                operation->statuses[i] = STATUS_PENDING;
                failed++;
            }
        }
        assert_true(failed >= 1);
        assert_true(world->damaged >= 1); /* what can't be read is lost to the owner, too */
        world->damaged = 0;
        assert_int_equal(operation->error.code, STATUS_IO);
        assert_non_null(strstr(operation->error.message, "offset"));
        start(operation);
        finish(operation);
        assert_gets(operation);
    }
    operation_free(operation);
    loop_end(world, loop);
    world_free(world);
}

/* Once in a while a disk can't give what it has, and the next moment it can. */
static void test_fetch_read_error_that_passes_is_nobodys_news(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct random random;
    random_seed(&random, 1);
    make_entries(&world->list, 1500, 1);
    add_tables(world, 1);
    struct env_loop *loop = loop_new(world);
    struct operation *operation = operation_new(world, loop, &walk_options[0], read_gets);
    for (int after = 0; after < 12; after++) {
        get_under(operation, &random, "error(EIO),count=1", after);
        assert_gets(operation);
        assert_int_equal(world->damaged, 0);
    }
    operation_free(operation);
    loop_end(world, loop);
    world_free(world);
}

static void test_fetch_damaged_block_is_read_twice_then_told(void **state) {
    (void)state;
    for (uint32_t ppm = 0; ppm <= 1000000; ppm += 500000) {
        struct world *world = world_new(1, 0, 4);
        struct random random;
        random_seed(&random, 1);
        sim_disk_options(world->node)->nowait_pending_ppm = ppm;
        make_entries(&world->list, 1500, 1);
        add_tables(world, 1);
        assert_int_equal(sst_load(world->tables[0], NULL), STATUS_OK);
        damage(world, world->tables[0], SST_HEADER_BYTES + 200);
        struct env_loop *loop = loop_new(world);
        struct operation *operation = operation_new(world, loop, &walk_options[0], read_gets);
        ask_for(operation, 1, &random);
        operation->keys[0] = world->list.entries[0].key;
        start(operation);
        finish(operation);
        assert_int_equal(operation->statuses[0], STATUS_CORRUPT);
        assert_int_equal(world->damaged, 1);
        assert_string_equal(operation->error.message, world->last_damage.message);
        operation->keys[0] = world->list.entries[world->list.count - 1].key;
        operation->statuses[0] = STATUS_PENDING;
        start(operation);
        finish(operation);
        assert_gets(operation);
        operation_free(operation);
        loop_end(world, loop);
        world_free(world);
    }
}

static void test_fetch_without_memory_says_so_and_leaks_nothing(void **state) {
    (void)state;
    for (uint64_t n = 1; n < 60; n++) {
        struct world *world = world_new(n, 0, 1);
        sim_disk_options(world->node)->nowait_pending_ppm = 500000;
        make_entries(&world->list, 300, n);
        add_tables(world, 2);
        struct env_loop *loop = loop_new(world);
        struct operation *operation = walk_new(world, loop, &walk_options[n % 4], n, 300);
        assert_non_null(operation->cursor);
        sim_node_fail_allocation(world->node, n);
        start(operation);
        finish(operation);
        sim_node_fail_allocation(world->node, 0);
        assert_true(operation->status == STATUS_OK || operation->status == STATUS_NO_MEMORY);
        operation->at = world->list.count; /* nowhere after an error */
        operation->want = SIZE_MAX;
        operation->steps_left = 100;
        start(operation);
        finish(operation);
        assert_int_equal(operation->status, STATUS_OK);
        operation_free(operation);
        loop_end(world, loop);
        world_free(world);
    }
}

static void test_fetch_abandoned_operation_leaves_nothing(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    sim_disk_options(world->node)->nowait_pending_ppm = 1000000;
    make_entries(&world->list, 600, 1);
    add_tables(world, 2);
    assert_int_equal(sst_load(world->tables[0], NULL), STATUS_OK);
    struct env_loop *loop = loop_new(world);
    for (size_t v = 0; v < 4; v++) {
        struct operation *operation = walk_new(world, loop, &walk_options[v], v, 100);
        /* Said PENDING, never started; another operation of the cursor takes over. */
        assert_int_equal(cursor_first(operation->cursor, NULL), STATUS_PENDING);
        assert_int_equal(cursor_last(operation->cursor, NULL), STATUS_PENDING);
        assert_int_equal(cursor_seek(operation->cursor, &world->list.entries[9].key, NULL), STATUS_PENDING);
        operation_free(operation);
    }
    loop_end(world, loop);
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fetch_gets_come_back_even_if_nothing_is_cached),
        cmocka_unit_test(test_h34_fetch_cursor_resumes_where_it_was),
        cmocka_unit_test(test_h13_fetch_hung_read_holds_up_nobody_else),
        cmocka_unit_test(test_fetch_error_is_told_once_to_who_asked),
        cmocka_unit_test(test_fetch_read_error_that_passes_is_nobodys_news),
        cmocka_unit_test(test_fetch_damaged_block_is_read_twice_then_told),
        cmocka_unit_test(test_fetch_without_memory_says_so_and_leaks_nothing),
        cmocka_unit_test(test_fetch_abandoned_operation_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
