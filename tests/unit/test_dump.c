/*
 * holdfast-dump run on files that the engine's own functions made.
 *
 * Would break these: a file of the present format that the tool can't read, damage that isn't told by the exit code,
 * output that is no JSON.
 */
#include "node/env/os/env_os.h"
#include "storage/change_file.h"
#include "storage/file_names.h"
#include "storage/manifest.h"
#include "storage/sst_builder.h"
#include "storage/value_file.h"
#include "storage/wal_internal.h"
#include "tests/unit/support/support.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct env *env;
static char *dir;

static int setup(void **state) {
    (void)state;
    const struct env_os_options options = {.workers_short = 1, .workers_long = 1};
    dir = test_dir_new();
    return env_os_new(&options, &env, NULL) == STATUS_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    env_os_free(env);
    test_dir_remove(dir);
    return 0;
}

/* Runs the tool beside this test; returns its exit code and the objects that it printed. */
static int run_dump(const char *arguments, json_t **ret_objects) {
    char self[1024];
    char command[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(len > 0);
    self[len] = '\0';
    *strrchr(self, '/') = '\0';
    *strrchr(self, '/') = '\0';
    (void)snprintf(command, sizeof command,
                   "tool=%s/bin/holdfast-dump; [ -x $tool ] || tool=%s/../bin/holdfast-dump; "
                   "exec $tool --output json %s 2>/dev/null",
                   self, self, arguments);
    FILE *pipe = popen(command, "r"); /* NOLINT(cert-env33-c): a test's own command */
    assert_non_null(pipe);
    static char line[1 << 16];
    *ret_objects = json_array();
    while (fgets(line, sizeof line, pipe) != NULL) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        assert_int_equal(json_array_append_new(*ret_objects, object), 0);
    }
    int code = pclose(pipe);
    assert_true(WIFEXITED(code));
    return WEXITSTATUS(code);
}

static json_int_t number(const json_t *objects, size_t at, const char *name) {
    return json_integer_value(json_object_get(json_array_get(objects, at), name));
}

static void flip(const char *path, uint64_t offset) {
    struct env_file *file;
    uint8_t byte;
    size_t got;
    assert_int_equal(env_open(env, path, ENV_OPEN_READ | ENV_OPEN_WRITE, &file, NULL), STATUS_OK);
    assert_int_equal(env_pread(file, &byte, 1, offset, &got, NULL), STATUS_OK);
    byte ^= 0x40;
    assert_int_equal(env_pwrite(file, &byte, 1, offset, NULL), STATUS_OK);
    env_close(file);
}

static void test_dump_change_shows_changes_and_finds_damage(void **state) {
    (void)state;
    char path[LIMIT_PATH_BYTES];
    char arguments[LIMIT_PATH_BYTES + 64];
    struct change_builder *changes;
    struct change_meta meta;
    json_t *objects;
    file_path_changes(path, dir, 5);
    struct change_builder_options options = {.env = env, .path = path, .number = 5, .id = 10, .zstd_level = 1};
    const struct change list[] = {{.revision = 7, .kind = BATCH_PUT, .key = slice_of_string("a")},
                                  {.revision = 7,
                                   .ordinal = 1,
                                   .kind = BATCH_DELETE_RANGE,
                                   .key = slice_of_string("b"),
                                   .end = slice_of_string("c")},
                                  {.revision = 9, .kind = BATCH_DELETE, .key = slice_of_string("a")}};
    assert_int_equal(change_builder_new(&options, &changes, NULL), STATUS_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(change_builder_add(changes, &list[i], NULL), STATUS_OK);
    }
    assert_int_equal(change_builder_finish(changes, &meta, NULL), STATUS_OK);
    change_builder_free(changes);
    (void)snprintf(arguments, sizeof arguments, "--keys --verify change %s", path);
    assert_int_equal(run_dump(arguments, &objects), 0);
    assert_int_equal(json_array_size(objects), 5);
    assert_int_equal(number(objects, 0, "changes"), 3);
    assert_int_equal(number(objects, 0, "range_deletes"), 1);
    assert_int_equal(number(objects, 2, "ordinal"), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(objects, 2), "end")), "c");
    assert_int_equal(number(objects, 3, "revision"), 9);
    assert_int_equal(number(objects, 4, "findings"), 0);
    json_decref(objects);
    flip(path, meta.index.offset);
    assert_int_equal(run_dump(arguments, &objects), 1);
    json_decref(objects);
}

/* A value file, and a table that refers to it. */
static void test_dump_value_shows_values_and_finds_damage(void **state) {
    (void)state;
    char path[LIMIT_PATH_BYTES];
    char arguments[LIMIT_PATH_BYTES + 64];
    struct value_builder *values;
    struct value_meta values_meta;
    struct value_place places[2];
    struct sst_builder *table;
    struct sst_meta meta;
    json_t *objects;
    file_path_values(path, dir, 6);
    struct value_builder_options options = {.env = env, .path = path, .number = 6, .id = 11, .zstd_level = 1};
    struct entry entries[] = {
        {.key = {slice_of_string("a"), 7, 0}, .value = slice_of_string("large"), .kind = BATCH_PUT},
        {.key = {slice_of_string("b"), 8, 1}, .value = slice_of_string("huge"), .kind = BATCH_PUT}};
    assert_int_equal(value_builder_new(&options, &values, NULL), STATUS_OK);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(value_builder_add(values, &entries[i], &places[i], NULL), STATUS_OK);
    }
    assert_int_equal(value_builder_finish(values, &values_meta, NULL), STATUS_OK);
    value_builder_free(values);
    (void)snprintf(arguments, sizeof arguments, "--keys --verify value %s", path);
    assert_int_equal(run_dump(arguments, &objects), 0);
    assert_int_equal(json_array_size(objects), 4);
    assert_int_equal(number(objects, 0, "values"), 2);
    assert_int_equal(number(objects, 0, "stored_bytes"), (json_int_t)values_meta.bytes);
    assert_int_equal(number(objects, 2, "revision"), 8);
    assert_int_equal(number(objects, 2, "offset"), (json_int_t)places[1].handle.offset);
    assert_int_equal(number(objects, 3, "findings"), 0);
    json_decref(objects);
    flip(path, places[1].handle.offset);
    assert_int_equal(run_dump(arguments, &objects), 1);
    json_decref(objects);
    file_path_sst(path, dir, 7);
    struct sst_builder_options table_options = {.env = env,
                                                .path = path,
                                                .number = 7,
                                                .id = 12,
                                                .block_bytes = 4096,
                                                .partition_bytes = 65536,
                                                .zstd_level = 1};
    assert_int_equal(sst_builder_new(&table_options, &table, NULL), STATUS_OK);
    for (size_t i = 0; i < 2; i++) {
        uint8_t bytes[VALUE_PLACE_BYTES];
        value_place_encode(bytes, &places[i]);
        entries[i].kind = BATCH_PUT_APART;
        entries[i].value = slice_of(bytes, sizeof bytes);
        assert_int_equal(sst_builder_add(table, &entries[i], NULL), STATUS_OK);
    }
    assert_int_equal(sst_builder_finish(table, &meta, NULL), STATUS_OK);
    sst_builder_free(table);
    (void)snprintf(arguments, sizeof arguments, "--keys --verify sst %s", path);
    assert_int_equal(run_dump(arguments, &objects), 0);
    assert_int_equal(json_array_size(objects), 5);
    assert_int_equal(number(objects, 1, "refers_to"), 11);
    assert_int_equal(number(objects, 1, "values"), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(objects, 2), "kind")), "put_apart");
    json_decref(objects);
}

static void test_dump_sst_shows_entries_and_finds_damage(void **state) {
    (void)state;
    char path[LIMIT_PATH_BYTES];
    char arguments[LIMIT_PATH_BYTES + 64];
    struct sst_builder *builder;
    struct sst_meta meta;
    json_t *objects;
    file_path_sst(path, dir, 5);
    struct sst_builder_options options = {.env = env,
                                          .path = path,
                                          .number = 5,
                                          .id = 9,
                                          .block_bytes = 4096,
                                          .partition_bytes = 65536,
                                          .bloom_bits = 10,
                                          .zstd_level = 1};
    assert_int_equal(sst_builder_new(&options, &builder, NULL), STATUS_OK);
    struct entry entries[] = {{.key = {slice_of_string("a\n"), 7, 0}, .value = slice_of_string("v"), .kind = BATCH_PUT},
                              {.key = {slice_of_string("b"), 8, 1}, .kind = BATCH_DELETE}};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(sst_builder_add(builder, &entries[i], NULL), STATUS_OK);
    }
    assert_int_equal(sst_builder_finish(builder, &meta, NULL), STATUS_OK);
    sst_builder_free(builder);
    (void)snprintf(arguments, sizeof arguments, "--keys --verify sst %s", path);
    assert_int_equal(run_dump(arguments, &objects), 0);
    assert_int_equal(json_array_size(objects), 4);
    assert_int_equal(number(objects, 0, "entries"), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(objects, 1), "key")), "a\\x0a");
    assert_int_equal(number(objects, 2, "revision"), 8);
    assert_int_equal(number(objects, 3, "findings"), 0);
    json_decref(objects);
    flip(path, 70);
    assert_int_equal(run_dump(arguments, &objects), 1);
    json_decref(objects);
}

static void test_dump_manifest_shows_its_state_and_finds_damage(void **state) {
    (void)state;
    char path[LIMIT_PATH_BYTES];
    char arguments[LIMIT_PATH_BYTES + 64];
    struct manifest_identity identity = {.node_id = 3};
    struct buf edit;
    struct env_file *file;
    json_t *objects;
    static uint8_t bytes[64 * 1024];
    buf_init(&edit, alloc_system(), 0);
    struct storage_frontier frontier = {.index = 77, .term = 2};
    assert_int_equal(manifest_put_next_file(&edit, 12), STATUS_OK);
    assert_int_equal(manifest_put_frontier(&edit, &frontier), STATUS_OK);
    manifest_header_encode(bytes, &identity, 4);
    size_t len = MANIFEST_BLOCK_BYTES + manifest_edit_bytes(edit.len);
    manifest_edit_seal(bytes + MANIFEST_BLOCK_BYTES, buf_slice(&edit), 4, 1, MANIFEST_BLOCK_BYTES);
    manifest_mark_seal(bytes + len, 4, 1, len);
    len += MANIFEST_BLOCK_BYTES;
    file_path_manifest(path, dir, 4);
    assert_int_equal(env_open(env, path, ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, NULL), STATUS_OK);
    assert_int_equal(env_pwrite(file, bytes, len, 0, NULL), STATUS_OK);
    env_close(file);
    buf_deinit(&edit);
    (void)snprintf(arguments, sizeof arguments, "manifest %s", path);
    assert_int_equal(run_dump(arguments, &objects), 0);
    assert_int_equal(number(objects, 0, "index"), 77);
    assert_int_equal(number(objects, 0, "next_file"), 12);
    assert_int_equal(number(objects, 0, "node"), 3);
    json_decref(objects);
    flip(path, MANIFEST_BLOCK_BYTES + 40);
    assert_int_equal(run_dump(arguments, &objects), 1);
    json_decref(objects);
}

static void test_dump_verify_counts_and_names_what_is_damaged(void **state) {
    (void)state;
    char store[LIMIT_PATH_BYTES];
    char current[LIMIT_PATH_BYTES];
    char arguments[LIMIT_PATH_BYTES + 64];
    struct buf edit;
    json_t *objects;
    buf_init(&edit, alloc_system(), 0);
    struct storage_frontier frontier = {.index = 77, .term = 2};
    file_path(store, dir, "store");
    assert_int_equal(env_mkdir(env, store, NULL), STATUS_OK);
    (void)snprintf(arguments, sizeof arguments, "verify %s", store);
    assert_int_equal(run_dump(arguments, &objects), 2); /* there is none yet */
    json_decref(objects);
    struct manifest manifest = {.env = env, .dir = store, .identity = {.node_id = 3}};
    assert_int_equal(manifest_put_next_file(&edit, 12), STATUS_OK);
    assert_int_equal(manifest_put_frontier(&edit, &frontier), STATUS_OK);
    assert_int_equal(manifest_switch(&manifest, 11, buf_slice(&edit), NULL), STATUS_OK);
    manifest_close(&manifest);
    buf_deinit(&edit);
    assert_int_equal(run_dump(arguments, &objects), 0);
    assert_int_equal(number(objects, 0, "index"), 77);
    assert_int_equal(number(objects, 0, "findings"), 0);
    json_decref(objects);
    assert_true(snprintf(current, sizeof current, "%s/CURRENT", store) < (int)sizeof current);
    flip(current, 20);
    assert_int_equal(run_dump(arguments, &objects), 1);
    assert_int_equal(json_array_size(objects), 2);
    assert_int_equal(number(objects, 0, "places"), 1);
    assert_int_equal(number(objects, 1, "findings"), 1);
    json_decref(objects);
    assert_int_equal(storage_destroy(env, store, NULL), STATUS_OK);
}

static void test_dump_wal_shows_a_new_segment(void **state) {
    (void)state;
    char path[LIMIT_PATH_BYTES];
    char arguments[LIMIT_PATH_BYTES + 64];
    struct wal__segment_header header = {.node_id = 3,
                                         .number = 6,
                                         .generation = 1,
                                         .bytes = 1024 * 1024,
                                         .incarnation = UINT64_C(0xf000000000000001),
                                         .filled_bytes = 1024 * 1024};
    struct env_file *file;
    json_t *objects;
    assert_int_equal(wal__segment_create(env, dir, &header, &file, NULL), STATUS_OK);
    env_close(file);
    wal__segment_path(path, dir, 6, "");
    (void)snprintf(arguments, sizeof arguments, "--keys wal %s", path);
    assert_int_equal(run_dump(arguments, &objects), 0);
    assert_int_equal(number(objects, 0, "number"), 6);
    const char *incarnation = json_string_value(json_object_get(json_array_get(objects, 0), "incarnation"));
    assert_string_equal(incarnation, "f000000000000001"); /* as holdfastctl has it */
    assert_int_equal(number(objects, 1, "groups"), 0);
    assert_false(json_is_true(json_object_get(json_array_get(objects, 0), "recycled")));
    json_decref(objects);
    /* The same file as another segment. */
    assert_int_equal(wal__segment_set_aside(env, dir, 6, NULL), STATUS_OK);
    header.number = 7;
    header.generation = 2;
    header.recycled = true;
    assert_int_equal(wal__segment_reuse(env, dir, 6, &header, &file, NULL), STATUS_OK);
    env_close(file);
    wal__segment_path(path, dir, 7, "");
    (void)snprintf(arguments, sizeof arguments, "--keys wal %s", path);
    assert_int_equal(run_dump(arguments, &objects), 0);
    assert_int_equal(number(objects, 0, "number"), 7);
    assert_true(json_is_true(json_object_get(json_array_get(objects, 0), "recycled")));
    json_decref(objects);
}

static void test_dump_wrong_usage_is_two(void **state) {
    (void)state;
    static const char *const wrong[] = {"", "sst", "tree x", "--output yaml sst x",
                                        "sst /nowhere/0000000000000001.sst"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        json_t *objects;
        assert_int_equal(run_dump(wrong[i], &objects), 2);
        assert_int_equal(json_array_size(objects), 0);
        json_decref(objects);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dump_sst_shows_entries_and_finds_damage),
        cmocka_unit_test(test_dump_change_shows_changes_and_finds_damage),
        cmocka_unit_test(test_dump_value_shows_values_and_finds_damage),
        cmocka_unit_test(test_dump_manifest_shows_its_state_and_finds_damage),
        cmocka_unit_test(test_dump_verify_counts_and_names_what_is_damaged),
        cmocka_unit_test(test_dump_wal_shows_a_new_segment),
        cmocka_unit_test(test_dump_wrong_usage_is_two),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
