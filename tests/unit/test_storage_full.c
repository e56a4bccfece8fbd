/*
 * A disk that is full at any block of a flush, its table's or the manifest's: waited out, and nothing has failed.
 *
 * Would break this: an append to the manifest that finds no space only when a part of it is written.
 */
#include "tests/unit/storage_host.h"

#include <stdlib.h>

enum { BLOCKS_MAX = 16, VALUE_BYTES = 30000 /* stays in the table */ };

static void test_h31_storage_disk_full_at_any_block_is_waited_out(void **state) {
    (void)state;
    unsigned found_full = 0;
    for (uint64_t blocks = 0; blocks < BLOCKS_MAX; blocks++) {
        struct host *host = calloc(1, sizeof *host);
        static char value[VALUE_BYTES + 1];
        assert_non_null(host);
        memset(value, 'v', VALUE_BYTES);
        host_new(host, blocks + 1);
        host->options.compression[0] = COMPRESSION_NONE;
        host_open(host);
        (void)host_put(host, "a", value);
        struct sim_disk_options *disk = sim_disk_options(host->node);
        uint64_t capacity_bytes = disk->capacity_bytes;
        uint64_t free_bytes = 0;
        uint64_t total_bytes = 0;
        assert_int_equal(env_disk_space(host->env, "/", &free_bytes, &total_bytes, NULL), STATUS_OK);
        disk->capacity_bytes = total_bytes - free_bytes + blocks * ENV_BLOCK_BYTES;
        storage_flush(host->storage);
        host_run_ms(host, 3500);
        assert_int_equal(host->failed_count, 0);
        found_full += host->full_count;
        disk->capacity_bytes = capacity_bytes;
        host_run_ms(host, 3500);
        assert_int_equal(host->flushed.index, 1);
        assert_int_equal(host->full_count, host->free_count);
        host_assert(host, "a", value);
        host_reopen(host);
        host_assert(host, "a", value);
        host_close(host);
        host_free(host);
        free(host);
    }
    assert_true(found_full > 3 && found_full < BLOCKS_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h31_storage_disk_full_at_any_block_is_waited_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
