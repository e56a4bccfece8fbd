/* Ours, as anybody would use it: its public header, nothing else. */
#include "storage/engine.h"
#include "tests/bench/storage/kvbench.h"

#include <stdio.h>
#include <stdlib.h>

static struct error why;
static bool found(enum status status) {
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        fprintf(stderr, "holdfast: %s\n", why.message);
        exit(1);
    }
    return status == STATUS_OK;
}

static void *open_engine(const char *dir, const struct kv_options *from) {
    struct engine_options options;
    struct engine *engine = NULL;
    engine_options_init(&options);
    options.dir = dir;
    options.memtable_bytes = from->write_buffer_bytes;
    options.cache_bytes = from->cache_bytes;
    options.bloom_bits = (uint8_t)from->bloom_bits;
    options.compression = from->compressed ? ENGINE_COMPRESSION_LZ4 : ENGINE_COMPRESSION_NONE;
    found(engine_open(&options, &engine, &why));
    return engine;
}
static void close_engine(void *db) { engine_close(db); }
static void put(void *db, const void *key, size_t key_len, const void *value, size_t value_len, bool sync) {
    const struct engine_write_options options = {.sync = sync};
    found(engine_put(db, &options, slice_of(key, key_len), slice_of(value, value_len), &why));
}
static void remove_key(void *db, const void *key, size_t len) { found(engine_delete(db, NULL, slice_of(key, len), &why)); }
static void remove_range(void *db, const void *start, size_t start_len, const void *end, size_t end_len) {
    found(engine_delete_range(db, NULL, slice_of(start, start_len), slice_of(end, end_len), &why));
}
static bool get(void *db, const void *key, size_t len, struct kv_value *ret_value) {
    struct engine_value *value = malloc(sizeof *value);
    if (!found(engine_get(db, NULL, slice_of(key, len), value, &why))) {
        free(value);
        return false;
    }
    *ret_value = (struct kv_value){.data = value->bytes.data, .len = value->bytes.len, .owner = value};
    return true;
}
static void release(struct kv_value *value) {
    engine_value_release(value->owner);
    free(value->owner);
}
static void flush(void *db) { found(engine_flush(db, &why)); }
static void *iterator_new(void *db) {
    struct engine_iterator *iterator = NULL;
    found(engine_iterator_new(db, NULL, &iterator, &why));
    return iterator;
}
static void iterator_free(void *iterator) { engine_iterator_free(iterator); }
static bool seek(void *it, const void *key, size_t len) { return found(engine_iterator_seek(it, slice_of(key, len), &why)); }
static bool first(void *iterator) { return found(engine_iterator_first(iterator, &why)); }
static bool last(void *iterator) { return found(engine_iterator_last(iterator, &why)); }
static bool prev(void *iterator) { return found(engine_iterator_prev(iterator, &why)); }
static bool next(void *iterator) { return found(engine_iterator_next(iterator, &why)); }
static const void *out(struct slice slice, size_t *ret_len) { return *ret_len = slice.len, slice.data; }
static const void *key_of(void *iterator, size_t *ret_len) { return out(engine_iterator_key(iterator), ret_len); }
static const void *value_of(void *iterator, size_t *ret_len) {
    struct slice value = slice_of(NULL, 0);
    found(engine_iterator_value(iterator, &value, &why));
    return out(value, ret_len);
}

const struct kv_engine kv_holdfast = {
    .name = "holdfast", .open = open_engine, .close = close_engine, .put = put, .remove = remove_key, .remove_range = remove_range, .get = get, .release = release, .flush = flush,
    .iterator_new = iterator_new, .iterator_free = iterator_free, .seek = seek, .first = first, .last = last, .next = next, .prev = prev, .key = key_of, .value = value_of};
