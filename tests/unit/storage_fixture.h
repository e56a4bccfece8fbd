/* One store for each test of a file, and what the tests ask of it most. Options are set before host_open. */
#ifndef HOLDFAST_TESTS_STORAGE_FIXTURE_H
#define HOLDFAST_TESTS_STORAGE_FIXTURE_H

#include "tests/unit/storage_model.h"

static struct host host;

static inline int setup_host(void **state) {
    (void)state;
    host_new(&host, 1);
    return 0;
}

static inline int teardown_host(void **state) {
    (void)state;
    host_free(&host);
    return 0;
}

static inline struct storage_stats stats(void) {
    struct storage_stats now;
    storage_get_stats(host.storage, &now);
    return now;
}

static inline enum status count_table(void *context, const char *name) {
    *(unsigned *)context += strstr(name, ".sst") != NULL;
    return STATUS_OK;
}

static inline unsigned tables_on_disk(void) {
    unsigned count = 0;
    assert_int_equal(env_list_dir(host.env, "/data", count_table, &count, NULL), STATUS_OK);
    return count;
}

#endif
