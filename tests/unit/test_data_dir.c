/*
 * Whose a data directory is.
 *
 * Breaks if a node uses the directory of another one, or of another cluster, or what isn't a node's at all; if a
 * directory that lost something passes for a new one; if damage to IDENTITY, at any bit, keeps a node from starting, or
 * is healed where that is off; if damage is taken for a later version, or a later version for damage.
 */
#include "node/server/data_dir.h"

#include "node/base/bytes.h"
#include "node/base/checksum.h"
#include "node/env/os/env_os.h"
#include "tests/unit/support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { LEN = 40, SEED = 0x44494648, PATH_BYTES = LIMIT_PATH_BYTES + 16 };

static struct test_alloc memory;
static struct env *env;
static char *parent;
static struct config config;
static struct error err;

static int setup(void **state) {
    (void)state;
    test_alloc_init(&memory);
    parent = test_dir_new();
    const struct env_os_options options = {.alloc = &memory.base, .workers_short = 1, .workers_long = 1};
    config = (struct config){.id = 3, .cluster_id = {1, 2, 3}, .heal = true};
    (void)snprintf(config.data_dir, sizeof config.data_dir, "%s/data", parent);
    return env_os_new(&options, &env, &err) == STATUS_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    env_os_free(env);
    test_dir_remove(parent);
    return memory.live_blocks == 0 ? 0 : -1;
}

static void path_of(const char *name, char path[PATH_BYTES]) {
    (void)snprintf(path, PATH_BYTES, "%s/%s", config.data_dir, name);
}

static void write_identity(const uint8_t *bytes, size_t len) {
    char path[PATH_BYTES];
    path_of("IDENTITY", path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static size_t read_identity(uint8_t *bytes, size_t room) {
    char path[PATH_BYTES];
    path_of("IDENTITY", path);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t len = fread(bytes, 1, room, file);
    assert_int_equal(fclose(file), 0);
    return len;
}

static void make_dir(const char *name) {
    char path[PATH_BYTES];
    path_of(name, path);
    assert_int_equal(mkdir(path, 0700), 0);
}

/* Opened as a node does it, log and store being its own. */
static enum status open_and_renew(bool *ret_was_damaged) {
    struct data_dir dir;
    error_clear(&err);
    enum status status = data_dir_open(env, &config, &dir, &err);
    if (status == STATUS_OK) {
        *ret_was_damaged = dir.fault.code != STATUS_OK;
        assert_true(!*ret_was_damaged || strlen(dir.fault.message) > 0);
        status = data_dir_renew(env, &config, &dir, &err);
        data_dir_close(&dir);
    }
    return status;
}

static void test_data_dir_belongs_to_one_node_of_one_cluster(void **state) {
    (void)state;
    bool damaged = true;
    struct data_dir dir;
    struct data_dir other;
    assert_int_equal(data_dir_open(env, &config, &dir, &err), STATUS_OK);
    assert_true(dir.created && dir.fault.code == STATUS_OK);
    assert_int_equal(data_dir_open(env, &config, &other, &err), STATUS_BUSY);
    data_dir_close(&dir);
    assert_int_equal(open_and_renew(&damaged), STATUS_OK);
    assert_false(damaged);
    config.id = 4;
    assert_int_equal(open_and_renew(&damaged), STATUS_INVALID);
    assert_non_null(strstr(err.message, "belongs to node 3"));
    config.id = 3;
    config.cluster_id[0]++;
    assert_int_equal(open_and_renew(&damaged), STATUS_INVALID);
}

static void test_data_dir_with_any_flipped_bit_of_identity_is_renewed(void **state) {
    (void)state;
    uint8_t good[LEN + 1];
    uint8_t bytes[LEN + 1];
    bool damaged = false;
    assert_int_equal(open_and_renew(&damaged), STATUS_OK);
    make_dir("wal");
    make_dir("db");
    assert_int_equal(read_identity(good, sizeof good), LEN);
    for (size_t bit = 0; bit < LEN * 8; bit++) {
        memcpy(bytes, good, LEN);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        write_identity(bytes, LEN);
        config.heal = false;
        assert_int_equal(open_and_renew(&damaged), STATUS_CORRUPT);
        config.heal = true;
        assert_int_equal(open_and_renew(&damaged), STATUS_OK);
        assert_true(damaged);
        assert_int_equal(read_identity(bytes, sizeof bytes), LEN);
        assert_memory_equal(bytes, good, LEN);
    }
    for (size_t len = 0; len < LEN; len++) {
        write_identity(good, len);
        assert_int_equal(open_and_renew(&damaged), STATUS_OK);
        assert_true(damaged);
    }
    assert_int_equal(open_and_renew(&damaged), STATUS_OK);
    assert_false(damaged);
}

static void test_data_dir_of_a_later_version_is_refused(void **state) {
    (void)state;
    uint8_t bytes[LEN + 8];
    bool damaged = false;
    assert_int_equal(open_and_renew(&damaged), STATUS_OK);
    assert_int_equal(read_identity(bytes, sizeof bytes), LEN);
    put_u32(bytes + 4, 2);
    put_u64(bytes + 32, 5); /* something that it has more */
    put_u64(bytes + 40, checksum64(bytes, 40, SEED));
    write_identity(bytes, sizeof bytes);
    assert_int_equal(open_and_renew(&damaged), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "format version 2"));
}

static void test_data_dir_without_identity_is_new_only_if_it_is_empty(void **state) {
    (void)state;
    char path[PATH_BYTES];
    bool damaged = false;
    assert_int_equal(open_and_renew(&damaged), STATUS_OK);
    path_of("IDENTITY", path);
    assert_int_equal(unlink(path), 0);
    make_dir("db");
    assert_int_equal(open_and_renew(&damaged), STATUS_INVALID); /* anybody's */
    make_dir("wal");
    config.heal = false;
    assert_int_equal(open_and_renew(&damaged), STATUS_CORRUPT);
    config.heal = true;
    assert_int_equal(open_and_renew(&damaged), STATUS_OK);
    assert_true(damaged);
    assert_int_equal(open_and_renew(&damaged), STATUS_OK);
    assert_false(damaged);
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_data_dir_belongs_to_one_node_of_one_cluster),
        TEST(test_data_dir_with_any_flipped_bit_of_identity_is_renewed),
        TEST(test_data_dir_of_a_later_version_is_refused),
        TEST(test_data_dir_without_identity_is_new_only_if_it_is_empty),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
