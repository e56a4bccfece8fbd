/*
 * A store with a model of what it holds, and its checkpoints: what the tests of upkeep share (checkpoint, verify,
 * scrub, ingest, repair).
 */
#ifndef HOLDFAST_TESTS_UPKEEP_FIXTURE_H
#define HOLDFAST_TESTS_UPKEEP_FIXTURE_H

#include "storage/file_names.h"
#include "tests/unit/storage_model.h"

#include <stdlib.h>

enum { ENTRIES = 150 };

struct fixture {
    struct host host;
    struct model model;
    struct random random;
    struct storage_checkpoint checkpoint;
    unsigned done_count;
};

static inline void on_done(struct storage_upkeep *upkeep) { ((struct fixture *)upkeep->context)->done_count++; }

static inline bool is_done(void *context) {
    const struct fixture *fixture = CONTAINER_OF((struct host *)context, struct fixture, host);
    return fixture->done_count > 0;
}

static inline void ask(struct fixture *fixture, const char *dir, bool flush) {
    fixture->done_count = 0;
    fixture->checkpoint = (struct storage_checkpoint){.upkeep = {.done = on_done, .context = fixture}, .flush = flush};
    (void)snprintf(fixture->checkpoint.dir, sizeof fixture->checkpoint.dir, "%s", dir);
    storage_checkpoint(fixture->host.storage, &fixture->checkpoint);
    assert_int_equal(fixture->done_count, 0); /* never inside the call */
}

static inline enum status make(struct fixture *fixture, const char *dir, bool flush) {
    ask(fixture, dir, flush);
    assert_true(host_wait(&fixture->host, is_done));
    assert_int_equal(fixture->done_count, 1);
    return fixture->checkpoint.upkeep.status;
}

static inline void apply_some(struct fixture *fixture, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        assert_true(host_wait(&fixture->host, host_can_apply));
        uint64_t index = model_grow(&fixture->model, &fixture->random);
        assert_int_equal(storage_apply(fixture->host.storage, index, 1, model_batch(&fixture->model, index), NULL),
                         STATUS_OK);
        storage_set_durable(fixture->host.storage, index);
    }
}

/* Nothing goes on in the background any more. */
static inline void settle(struct fixture *fixture) {
    host_flush(&fixture->host);
    assert_true(host_wait(&fixture->host, host_is_settled));
    host_run_ms(&fixture->host, 5000);
}

static inline struct fixture *set_up_kind(uint64_t seed, uint64_t value_threshold_bytes, bool change_files) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    random_seed(&fixture->random, seed);
    host_new(&fixture->host, seed);
    fixture->host.options.memtable_bytes = 4 * 1024;
    fixture->host.options.sst_bytes = 4 * 1024;
    fixture->host.options.context = &fixture->host;
    fixture->host.options.value_threshold_bytes = value_threshold_bytes;
    fixture->host.options.change_files = change_files;
    host_open(&fixture->host);
    return fixture;
}

static inline struct fixture *set_up_with(uint64_t seed, uint64_t value_threshold_bytes) {
    return set_up_kind(seed, value_threshold_bytes, false);
}

/* All values in tables. */
static inline struct fixture *set_up(uint64_t seed) { return set_up_with(seed, 0); }

static inline void tear_down(struct fixture *fixture) {
    if (fixture->host.storage != NULL) {
        host_close(&fixture->host);
    }
    host_free(&fixture->host);
    free(fixture);
}

/* Opens the checkpoint as a store of its own, compares all of it, writes to it, closes it. */
static inline void check(struct fixture *fixture, const char *dir, uint64_t index) {
    struct host *copy = calloc(1, sizeof *copy);
    assert_non_null(copy);
    *copy = fixture->host;
    copy->options.dir = dir;
    copy->options.context = copy;
    host_open(copy);
    assert_int_equal(storage_frontier(copy->storage)->index, index);
    host_assert_frontier(storage_frontier(copy->storage));
    model_check_all(&fixture->model, copy, index);
    (void)host_put(copy, "only here", "1");
    host_flush(copy);
    host_assert(copy, "only here", "1");
    host_close(copy);
    free(copy);
}

struct names {
    unsigned count;
    unsigned strangers;
};

static inline enum status count_name(void *context, const char *name) {
    struct names *names = context;
    uint64_t number;
    names->count++;
    names->strangers += file_name_parse(name, &number) == FILE_OTHER;
    return STATUS_OK;
}

static inline struct names names_of(struct fixture *fixture, const char *dir) {
    struct names names = {0};
    assert_int_equal(env_list_dir(fixture->host.env, dir, count_name, &names, NULL), STATUS_OK);
    return names;
}

static inline bool exists(struct fixture *fixture, const char *dir) {
    struct names names = {0};
    return env_list_dir(fixture->host.env, dir, count_name, &names, NULL) == STATUS_OK;
}

/* Flips bits of one byte; the same call again puts them back. */
static inline void flip(struct fixture *fixture, const char *path, uint64_t offset) {
    struct env_file *file;
    uint8_t byte;
    size_t got;
    assert_int_equal(env_open(fixture->host.env, path, ENV_OPEN_READ | ENV_OPEN_WRITE, &file, NULL), STATUS_OK);
    assert_int_equal(env_pread(file, &byte, 1, offset, &got, NULL), STATUS_OK);
    assert_int_equal(got, 1);
    byte ^= 0x24;
    assert_int_equal(env_pwrite(file, &byte, 1, offset, NULL), STATUS_OK);
    env_close(file);
}

static inline uint64_t size_of(struct fixture *fixture, const char *path) {
    struct env_file *file;
    uint64_t size_bytes;
    assert_int_equal(env_open(fixture->host.env, path, ENV_OPEN_READ, &file, NULL), STATUS_OK);
    assert_int_equal(env_size(file, &size_bytes, NULL), STATUS_OK);
    env_close(file);
    return size_bytes;
}

struct name_search {
    const char *part;
    bool first; /* of those there are; else the last */
    char found[FILE_NAME_BYTES_MAX];
};

static inline enum status find_part(void *context, const char *name) {
    struct name_search *search = context;
    bool is_better = search->found[0] == '\0' || (strcmp(name, search->found) < 0) == search->first;
    if (is_better && strstr(name, search->part) != NULL && strlen(name) < sizeof search->found) {
        (void)snprintf(search->found, sizeof search->found, "%s", name);
    }
    return STATUS_OK;
}

/* The file of the directory with the greatest name that has this in it. */
static inline void path_with(struct fixture *fixture, const char *dir, const char *part, char *out) {
    struct name_search search = {.part = part};
    assert_int_equal(env_list_dir(fixture->host.env, dir, find_part, &search, NULL), STATUS_OK);
    assert_true(search.found[0] != '\0');
    file_path(out, dir, search.found);
}

#endif
