/*
 * Values that are read from records of the log (value_log.c): whose they are is checked, whatever a place says.
 *
 * Would break these: a record that is believed without its checksum, or that is another one's; a value taken from
 * another operation of the same batch; a place that reaches out of the file; a length trusted before it is checked.
 */
#include "storage/value_file.h"
#include "storage/wal.h"
#include "tests/unit/sst_fixture.h"

enum { OPERATIONS = 4, RECORDS = 3, VALUE_BYTES = 3000, START_BYTES = 8192 };

static const char *const keys[OPERATIONS] = {"before", "large", "large", "behind"};

struct input {
    struct value_meta meta;
    struct log_record records[RECORDS];
    struct sst *file;
};

static struct slice value_of(uint64_t index, unsigned ordinal) {
    static uint8_t value[VALUE_BYTES];
    size_t len = ordinal == 1 ? sizeof value : 5;
    memset(value, (int)('a' + index * OPERATIONS + ordinal), len);
    return slice_of(value, len);
}

/* "before", a large value, the same key deleted, "behind": in each record. */
static size_t put_record(uint8_t *out, uint64_t index) {
    struct batch_builder builder;
    batch_builder_init(&builder, alloc_system());
    for (unsigned i = 0; i < OPERATIONS; i++) {
        struct slice key = slice_of_string(keys[i]);
        assert_int_equal(i == 2 ? batch_builder_delete(&builder, key)
                                : batch_builder_put(&builder, key, value_of(index, i)),
                         STATUS_OK);
    }
    struct slice batch = batch_builder_batch(&builder);
    size_t len = batch.len;
    memcpy(out + WAL_RECORD_HEADER_BYTES, batch.data, len);
    wal_record_seal(out, 3, index, 1, len);
    batch_builder_deinit(&builder);
    return WAL_RECORD_HEADER_BYTES + len;
}

static void make(struct world *world, struct input *input) {
    static uint8_t bytes[START_BYTES + RECORDS * 2 * VALUE_BYTES];
    size_t len = START_BYTES;
    memset(bytes, 0, sizeof bytes);
    for (unsigned i = 0; i < RECORDS; i++) {
        size_t record = put_record(bytes + len, 10 + i);
        input->records[i] = (struct log_record){.index = 10 + i, .offset = len, .bytes = (uint32_t)record};
        len += record;
    }
    char path[LIMIT_PATH_BYTES];
    struct env_file *file;
    file_path_values(path, world->context.dir, 9);
    assert_int_equal(env_open(world->env, path, ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, NULL), STATUS_OK);
    assert_int_equal(env_pwrite(file, bytes, len, 0, NULL), STATUS_OK);
    env_close(file);
    input->meta = (struct value_meta){
        .is_log = true, .number = 9, .id = 77, .size_bytes = len, .checksum = 1, .values = RECORDS, .bytes = len};
    assert_int_equal(value_file_new(&world->context, &input->meta, &input->file), STATUS_OK);
}

static struct value_place place_of(const struct input *input, unsigned record) {
    return (struct value_place){.file = input->meta.id,
                                .handle = value_log_handle(input->records[record].offset, input->records[record].bytes),
                                .value_len = VALUE_BYTES};
}

static struct entry_key key_of(const char *user, uint64_t revision, uint32_t ordinal) {
    return (struct entry_key){.user = slice_of_string(user), .revision = revision, .ordinal = ordinal};
}

static enum status get(struct world *world, const struct input *input, struct value_place place, struct entry_key key,
                       struct slice want) {
    struct fetch fetch;
    struct sst_hold hold = {0};
    struct slice value;
    struct fetch_options options = {.fill_cache = true};
    fetch_init(&fetch, &world->context, &options);
    enum status status = value_fetch(input->file, &fetch, &place, &key, &hold, &value, NULL);
    if (status == STATUS_OK) {
        assert_true(slice_equal(value, want));
    }
    sst_hold_release(&hold);
    fetch_deinit(&fetch);
    return status;
}

static void finish(struct world *world, struct input *input) {
    sst_free(input->file);
    world_free(world);
}

static void test_value_log_finds_the_operation_of_the_entry_and_no_other(void **state) {
    (void)state;
    struct world *world = world_new(1, 1 << 20, 4);
    struct input input;
    make(world, &input);
    struct value_meta again = value_file_meta(input.file);
    assert_true(again.is_log && again.bytes == input.meta.bytes);
    for (unsigned i = 0; i < RECORDS; i++) {
        struct value_place place = place_of(&input, i);
        uint64_t index = 10 + i;
        assert_int_equal(get(world, &input, place, key_of("large", index, 1), value_of(index, 1)), STATUS_OK);
        assert_int_equal(value_place_bytes(&place), input.records[i].bytes);
        assert_int_equal(world->damaged, 0);
        const struct entry_key wrong[] = {key_of("large", index, 0),          key_of("large", index, 2),
                                          key_of("large", index, OPERATIONS), key_of("large", index, UINT32_MAX),
                                          key_of("large", index + 1, 1),      key_of("larger", index, 1),
                                          key_of("behind", index, 3)};
        for (size_t w = 0; w < sizeof wrong / sizeof wrong[0]; w++) {
            assert_int_equal(get(world, &input, place, wrong[w], SLICE_EMPTY), STATUS_CORRUPT);
        }
        place.value_len--;
        assert_int_equal(get(world, &input, place, key_of("large", index, 1), SLICE_EMPTY), STATUS_CORRUPT);
        assert_true(world->damaged > 0);
        world->damaged = 0;
    }
    finish(world, &input);
}

static void test_value_log_bad_places_are_corrupt(void **state) {
    (void)state;
    struct world *world = world_new(1, 1 << 20, 4);
    struct input input;
    make(world, &input);
    const struct entry_key key = key_of("large", 11, 1);
    const struct value_place good = place_of(&input, 1);
    const int64_t offsets[] = {-1, 1, 7, -32, 32, -4096};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        struct value_place place = good;
        place.handle.offset += (uint64_t)offsets[i];
        assert_int_equal(get(world, &input, place, key, SLICE_EMPTY), STATUS_CORRUPT);
    }
    const uint32_t sizes[] = {1, 15, 16, 17, good.handle.size - 1, good.handle.size + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct value_place place = good;
        place.handle.size = sizes[i];
        assert_int_equal(get(world, &input, place, key, SLICE_EMPTY), STATUS_CORRUPT);
    }
    struct value_place place = place_of(&input, RECORDS - 1);
    place.handle.offset = UINT64_MAX - 4;
    assert_int_equal(get(world, &input, place, key, SLICE_EMPTY), STATUS_CORRUPT);
    place = place_of(&input, RECORDS - 1); /* to the last byte of the file */
    assert_int_equal(get(world, &input, place, key_of("large", 12, 1), value_of(12, 1)), STATUS_OK);
    finish(world, &input);
}

static void test_value_log_flipped_bytes_are_found_and_never_a_value(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct input input;
    make(world, &input);
    char path[LIMIT_PATH_BYTES];
    struct env_file *file;
    file_path_values(path, world->context.dir, 9);
    assert_int_equal(env_open(world->env, path, ENV_OPEN_READ | ENV_OPEN_WRITE, &file, NULL), STATUS_OK);
    const struct log_record *record = &input.records[1];
    for (uint64_t at = record->offset; at < record->offset + record->bytes; at += at < record->offset + 64 ? 1 : 31) {
        uint8_t byte;
        size_t got;
        assert_int_equal(env_pread(file, &byte, 1, at, &got, NULL), STATUS_OK);
        byte ^= 1;
        assert_int_equal(env_pwrite(file, &byte, 1, at, NULL), STATUS_OK);
        assert_int_equal(get(world, &input, place_of(&input, 1), key_of("large", 11, 1), SLICE_EMPTY), STATUS_CORRUPT);
        assert_int_equal(get(world, &input, place_of(&input, 0), key_of("large", 10, 1), value_of(10, 1)), STATUS_OK);
        byte ^= 1;
        assert_int_equal(env_pwrite(file, &byte, 1, at, NULL), STATUS_OK);
    }
    assert_int_equal(get(world, &input, place_of(&input, 1), key_of("large", 11, 1), value_of(11, 1)), STATUS_OK);
    env_close(file);
    finish(world, &input);
}

/* Who asks for a small value must not read a large batch for it. */
static void test_value_log_is_worth_it_for_most_of_a_record_only(void **state) {
    (void)state;
    assert_true(value_log_is_worth(1000, WAL_RECORD_HEADER_BYTES + 1010));
    assert_true(value_log_is_worth(1000, WAL_RECORD_HEADER_BYTES + 2000));
    assert_false(value_log_is_worth(1000, WAL_RECORD_HEADER_BYTES + 2002));
    assert_false(value_log_is_worth(1000, UINT32_MAX));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value_log_finds_the_operation_of_the_entry_and_no_other),
        cmocka_unit_test(test_value_log_bad_places_are_corrupt),
        cmocka_unit_test(test_value_log_flipped_bytes_are_found_and_never_a_value),
        cmocka_unit_test(test_value_log_is_worth_it_for_most_of_a_record_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
