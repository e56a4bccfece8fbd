/*
 * A program of somebody else's that uses the storage engine: only what is installed, found by pkg-config. Compiled by
 * test_engine_installed as C and as C++, so it is both.
 *
 *   engine_user DIR     0: everything was as storage/engine.h says
 */
#include <storage/engine.h>

#include <stdio.h>
#include <string.h>

enum { WRITES = 1000 };

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            (void)fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, err.message);                             \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

static enum status count_put(void *context, struct slice key, struct slice value) {
    (void)key;
    (void)value;
    ++*(int *)context;
    return STATUS_OK;
}

static enum status count_remove(void *context, struct slice key) { return count_put(context, key, key); }

static int write_some(struct engine *engine, struct error err) {
    struct engine_batch *batch = engine_batch_new(NULL);
    struct engine_batch_walker walker;
    int operations = 0;
    EXPECT(batch != NULL);
    for (int i = 0; i < WRITES; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "%06d", i);
        engine_batch_clear(batch);
        EXPECT(engine_batch_put(batch, slice_of_string(key), slice_of_string("value")) == STATUS_OK);
        EXPECT(engine_batch_delete(batch, slice_of_string("nothing")) == STATUS_OK);
        EXPECT(engine_write(engine, NULL, batch, &err) == STATUS_OK);
    }
    walker.context = &operations;
    walker.put = count_put;
    walker.remove = count_remove;
    walker.remove_range = count_put;
    EXPECT(engine_batch_walk(batch, &walker) == STATUS_OK && operations == 2);
    engine_batch_free(batch);
    EXPECT(engine_delete_range(engine, NULL, slice_of_string("000100"), slice_of_string("000200"), &err) == STATUS_OK);
    return 0;
}

static int count_backwards(struct engine *engine, uint64_t revision, int wanted, struct error err) {
    struct engine_iterator_options options;
    struct engine_iterator *iterator;
    int count = 0;
    memset(&options, 0, sizeof options);
    options.revision = revision;
    EXPECT(engine_iterator_new(engine, &options, &iterator, &err) == STATUS_OK);
    enum status status = engine_iterator_last(iterator, &err);
    for (; status == STATUS_OK; status = engine_iterator_prev(iterator, &err)) {
        count++;
    }
    EXPECT(status == STATUS_NOT_FOUND && count == wanted);
    engine_iterator_free(iterator);
    return 0;
}

static int say_all(struct engine *engine, struct error err) {
    struct buf text;
    buf_init(&text, alloc_system(), 64 * KIB);
    EXPECT(engine_property(engine, "all", &text) == STATUS_OK && text.len > 0);
    EXPECT(engine_property(engine, "frobs", &text) == STATUS_NOT_FOUND);
    buf_deinit(&text);
    return 0;
}

int main(int argc, char **argv) {
    struct engine_options options;
    struct engine *engine;
    struct engine_value value;
    struct error err;
    error_clear(&err);
    EXPECT(argc == 2);
    engine_options_init(&options);
    options.dir = argv[1];
    options.history_revisions = 10;
    EXPECT(engine_open(&options, &engine, &err) == STATUS_OK);
    if (write_some(engine, err) != 0 || count_backwards(engine, WRITES, WRITES, err) != 0 ||
        count_backwards(engine, 0, WRITES - 100, err) != 0 || say_all(engine, err) != 0) {
        return 1;
    }
    engine_close(engine);
    options.create_if_missing = false;
    EXPECT(engine_open(&options, &engine, &err) == STATUS_OK);
    EXPECT(engine_get(engine, NULL, slice_of_string("000099"), &value, &err) == STATUS_OK);
    EXPECT(slice_equal(value.bytes, slice_of_string("value")) && value.revision == 100);
    engine_value_release(&value);
    EXPECT(engine_get(engine, NULL, slice_of_string("000100"), &value, &err) == STATUS_NOT_FOUND);
    engine_close(engine);
    EXPECT(engine_destroy(&options, &err) == STATUS_OK);
    EXPECT(engine_open(&options, &engine, &err) == STATUS_NOT_FOUND && strstr(err.message, argv[1]) != NULL);
    return 0;
}
