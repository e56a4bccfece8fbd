/*
 * A store in a simulated world, driven from the test: open, put, flush, compact, crash, open again. The test is the
 * host of tests/sim/sim.h: what it calls itself takes no virtual time, jobs run while it waits.
 *
 * Each applied entry is its own term-1 log record; whatever the frontier has beyond the index is made from the index,
 * so that a test can tell whether all parts of it came from the same moment.
 */
#ifndef HOLDFAST_TESTS_STORAGE_HOST_H
#define HOLDFAST_TESTS_STORAGE_HOST_H

#include "node/base/check.h"
#include "storage/batch.h"
#include "storage/storage.h"
#include "tests/sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { HOST_STEPS_MAX = 5 * 1000 * 1000 };

struct host {
    struct sim *sim;
    struct sim_node *node;
    struct env *env;
    struct env_loop *loop;
    struct storage *storage;
    struct storage_options options;
    /* What the callbacks said: */
    unsigned flushed_count;
    struct storage_frontier flushed;
    unsigned can_apply_count;
    unsigned failed_count;
    struct error failed;
    unsigned full_count; /* space_state with an error */
    unsigned free_count; /* ... without */
    bool closed;
};

static inline void host_fill_frontier(void *context, struct storage_frontier *frontier) {
    (void)context;
    frontier->cluster_time_ms = frontier->index * 10;
    frontier->session_epoch = frontier->index + 7;
    frontier->feature_level = 3;
    memset(frontier->digest, (int)(frontier->index & 0xff), sizeof frontier->digest);
    frontier->membership_len = 5;
    memcpy(frontier->membership, "nodes", 5);
}

static inline void host_assert_frontier(const struct storage_frontier *frontier) {
    struct storage_frontier want = {.index = frontier->index, .horizon = frontier->horizon};
    if (frontier->index == 0) {
        assert_int_equal(frontier->term, 0);
        return;
    }
    want.term = 1;
    host_fill_frontier(NULL, &want);
    assert_int_equal(frontier->term, want.term);
    assert_int_equal(frontier->cluster_time_ms, want.cluster_time_ms);
    assert_int_equal(frontier->session_epoch, want.session_epoch);
    assert_int_equal(frontier->feature_level, want.feature_level);
    assert_memory_equal(frontier->digest, want.digest, sizeof want.digest);
    assert_int_equal(frontier->membership_len, want.membership_len);
    assert_memory_equal(frontier->membership, want.membership, want.membership_len);
}

static inline void host_on_flushed(void *context, const struct storage_frontier *frontier) {
    struct host *host = context;
    assert_true(frontier->index >= host->flushed.index);
    host->flushed_count++;
    host->flushed = *frontier;
}

static inline void host_on_can_apply(void *context) { ((struct host *)context)->can_apply_count++; }

static inline void host_on_failed(void *context, const struct error *err) {
    struct host *host = context;
    host->failed_count++;
    host->failed = *err;
}

static inline void host_on_space(void *context, const struct error *err) {
    struct host *host = context;
    host->full_count += err != NULL;
    host->free_count += err == NULL;
}

static inline void host_on_closed(void *context) { ((struct host *)context)->closed = true; }

/* The node's memory went with it. */
static inline void host_crashed(void *context, enum sim_crash crash, int exit_code) {
    (void)crash;
    (void)exit_code;
    struct host *host = context;
    host->env = NULL;
    host->loop = NULL;
    host->storage = NULL;
}

static inline void host_boot(struct host *host) {
    sim_node_start(host->node);
    host->env = sim_node_env(host->node);
    assert_int_equal(env_loop_new(host->env, "consensus", 1000, &host->loop, NULL), STATUS_OK);
    env_loop_run(host->loop);
}

static inline void host_new(struct host *host, uint64_t seed) {
    struct sim_options options;
    struct sim_node_options node_options;
    memset(host, 0, sizeof *host);
    sim_options_init(&options);
    host->sim = sim_new(seed, &options);
    sim_node_options_init(&node_options, "n1");
    node_options.crashed = host_crashed;
    node_options.context = host;
    node_options.workers_long = 3;
    host->node = sim_node_new(host->sim, &node_options);
    storage_options_init(&host->options);
    host->options.dir = "/data";
    memset(host->options.cluster_id, 0xc1, sizeof host->options.cluster_id);
    host->options.node_id = 1;
    host->options.memtable_bytes = 16 * 1024;
    host->options.immutable_memtables_max = 2;
    host->options.block_bytes = 512;
    host->options.sst_bytes = 8 * 1024;
    host->options.partition_bytes = 2 * 1024;
    host->options.l0_files_compact = 3;
    host->options.level_base_bytes = 32 * 1024;
    host->options.level_ratio = 4;
    host->options.cache_bytes = 64 * 1024;
    host->options.open_files_max = 8;
    host->options.manifest_bytes_max = 64 * 1024;
    host->options.context = host;
    host->options.fill_frontier = host_fill_frontier;
    host->options.flushed = host_on_flushed;
    host->options.can_apply = host_on_can_apply;
    host->options.failed = host_on_failed;
    host->options.space_state = host_on_space;
    host_boot(host);
}

/* Level 0 is left alone, whatever is flushed. */
static inline void host_compact_nothing(struct host *host) {
    host->options.l0_files_compact = 1000;
    host->options.l0_files_quiet = 1000;
    host->options.l0_files_slow = 1001;
    host->options.l0_files_stop = 2000;
    host->options.level_base_bytes = (uint64_t)1 << 30;
}

static inline void host_free(struct host *host) { sim_free(host->sim); }

static inline enum status host_try_open(struct host *host, struct error *err) {
    host->options.env = host->env;
    host->options.loop = host->loop;
    host->flushed_count = 0;
    host->failed_count = 0;
    memset(&host->flushed, 0, sizeof host->flushed);
    error_clear(err);
    return storage_open(&host->options, &host->storage, err);
}

static inline void host_open(struct host *host) {
    struct error err;
    enum status status = host_try_open(host, &err);
    if (status != STATUS_OK) {
        print_error("open: %s\n", err.message);
    }
    assert_int_equal(status, STATUS_OK);
    storage_start(host->storage);
}

/* Runs the world until it holds, at most a virtual minute. */
static inline bool host_wait(struct host *host, bool (*done)(void *context)) {
    uint64_t deadline_us = sim_now_us(host->sim) + 60u * 1000 * 1000;
    return sim_run_until(host->sim, deadline_us, done, host, HOST_STEPS_MAX) == SIM_END_PREDICATE;
}

static inline void host_run_ms(struct host *host, uint64_t ms) {
    (void)sim_run_until(host->sim, sim_now_us(host->sim) + ms * 1000, NULL, NULL, HOST_STEPS_MAX);
}

static inline bool host_is_closed(void *context) { return ((struct host *)context)->closed; }

static inline void host_close(struct host *host) {
    host->closed = false;
    storage_close(host->storage, host_on_closed, host);
    assert_true(host_wait(host, host_is_closed));
    host->storage = NULL;
}

static inline void host_reopen(struct host *host) {
    host_close(host);
    host_open(host);
}

static inline void host_crash(struct host *host, enum sim_crash crash) {
    sim_node_crash(host->node, crash);
    host_boot(host);
}

static inline bool host_can_apply(void *context) { return storage_can_apply(((struct host *)context)->storage); }

static inline bool host_all_flushed(void *context) {
    struct host *host = context;
    struct storage_stats stats;
    storage_get_stats(host->storage, &stats);
    return stats.flushed_index == storage_applied_index(host->storage);
}

/* Jobs done, nothing to compact for size. */
static inline bool host_is_settled(void *context) {
    struct host *host = context;
    struct storage_stats stats;
    storage_get_stats(host->storage, &stats);
    return stats.immutable_memtables == 0 && stats.files[0] < host->options.l0_files_compact &&
           stats.compactions_running == 0;
}

/* Tables below level 0. */
static inline uint64_t host_deep_files(struct host *host) {
    struct storage_stats stats;
    uint64_t files = 0;
    storage_get_stats(host->storage, &stats);
    for (unsigned level = 1; level < STORAGE_LEVELS; level++) {
        files += stats.files[level];
    }
    return files;
}

/* Applies the next entry, waiting for room; returns its revision. Everything applied counts as durable. */
static inline uint64_t host_apply(struct host *host, const struct batch_operation *operations, uint32_t count) {
    static uint8_t bytes[LIMIT_ENTRY_PAYLOAD_BYTES];
    size_t len = count == 0 ? 0 : batch_size(operations, count);
    assert_true(len <= sizeof bytes);
    if (count > 0) {
        batch_encode(bytes, operations, count);
    }
    assert_true(host_wait(host, host_can_apply));
    uint64_t index = storage_applied_index(host->storage) + 1;
    assert_int_equal(storage_apply(host->storage, index, 1, slice_of(bytes, len), NULL), STATUS_OK);
    storage_set_durable(host->storage, index);
    return index;
}

static inline uint64_t host_put(struct host *host, const char *key, const char *value) {
    struct batch_operation operation = {BATCH_PUT, slice_of_string(key), slice_of_string(value)};
    return host_apply(host, &operation, 1);
}

static inline uint64_t host_delete(struct host *host, const char *key) {
    struct batch_operation operation = {.kind = BATCH_DELETE, .key = slice_of_string(key)};
    return host_apply(host, &operation, 1);
}

static inline uint64_t host_delete_range(struct host *host, const char *start, const char *end) {
    struct batch_operation operation = {.kind = BATCH_DELETE_RANGE,
                                        .key = slice_of_string(start),
                                        .value = slice_of_string(end)};
    return host_apply(host, &operation, 1);
}

static inline void host_flush(struct host *host) {
    storage_flush(host->storage);
    assert_true(host_wait(host, host_all_flushed));
}

/* What the key has at a revision; STATUS_NOT_FOUND, or another status. value may be NULL. */
static inline enum status host_get_at(struct host *host, struct slice key, uint64_t revision, struct buf *value,
                                      struct error *err) {
    struct storage_view *view = storage_view_acquire(host->storage);
    struct storage_value got;
    struct slice fast;
    uint64_t fast_revision;
    enum storage_lookup lookup = storage_get_memory(view, key, revision, &fast, &fast_revision);
    enum status status = storage_get(view, NULL, key, revision, &got, err);
    if (lookup == STORAGE_FOUND) {
        assert_int_equal(status, STATUS_OK);
        assert_true(slice_equal(fast, got.bytes));
        assert_int_equal(fast_revision, got.revision);
    } else if (lookup == STORAGE_ABSENT) {
        assert_int_equal(status, STATUS_NOT_FOUND);
    }
    if (status == STATUS_OK) {
        assert_true(got.revision <= revision);
        if (value != NULL) {
            buf_clear(value);
            assert_int_equal(buf_append(value, got.bytes.data, got.bytes.len), STATUS_OK);
        }
        storage_value_release(&got);
    }
    storage_view_release(view);
    return status;
}

/* value NULL: absent. */
static inline void host_assert_at(struct host *host, const char *key, uint64_t revision, const char *value) {
    struct buf got;
    struct error err;
    buf_init(&got, alloc_system(), 0);
    error_clear(&err);
    enum status status = host_get_at(host, slice_of_string(key), revision, &got, &err);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        print_error("get %s: %s\n", key, err.message);
    }
    assert_int_equal(status, value == NULL ? STATUS_NOT_FOUND : STATUS_OK);
    if (value != NULL) {
        assert_true(slice_equal(buf_slice(&got), slice_of_string(value)));
    }
    buf_deinit(&got);
}

static inline void host_assert(struct host *host, const char *key, const char *value) {
    host_assert_at(host, key, storage_applied_index(host->storage), value);
}

/* "key=value key=value" of a scan. */
static inline void host_assert_scan(struct host *host, uint64_t revision, const char *lower, const char *upper,
                                    const char *want) {
    struct storage_view *view = storage_view_acquire(host->storage);
    struct storage_iterator *iterator;
    struct buf text;
    enum status status;
    buf_init(&text, alloc_system(), 0);
    struct storage_iterator_options options = {.revision = revision,
                                               .lower = slice_of_string(lower),
                                               .upper = slice_of_string(upper)};
    assert_int_equal(storage_iterator_new(view, NULL, &options, &iterator, NULL), STATUS_OK);
    for (status = storage_iterator_first(iterator, NULL); status == STATUS_OK;
         status = storage_iterator_next(iterator, NULL)) {
        struct slice key = storage_iterator_key(iterator);
        struct slice value;
        assert_int_equal(storage_iterator_value(iterator, &value, NULL), STATUS_OK);
        assert_true(storage_iterator_revision(iterator) <= revision);
        assert_int_equal(buf_append_format(&text, "%s%.*s=%.*s", text.len == 0 ? "" : " ", (int)key.len,
                                           (const char *)key.data, (int)value.len, (const char *)value.data),
                         STATUS_OK);
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    assert_int_equal(buf_append(&text, "", 1), STATUS_OK);
    assert_string_equal((const char *)text.data, want);
    storage_iterator_free(iterator);
    storage_view_release(view);
    buf_deinit(&text);
}

/* Every allocation of the node has been given back, but for what the loop holds. */
static inline uint64_t host_live_blocks(struct host *host) {
    struct sim_memory_stats stats;
    sim_node_get_memory(host->node, &stats);
    return stats.blocks;
}

#endif
