/* Ours, as anybody would use it: its public header, nothing else. Kept under 60 lines: */
/* clang-format off */
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
static const void *out(struct slice slice, size_t *ret_len) { return *ret_len = slice.len, slice.data; }
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
static void flush(void *db) { found(engine_flush(db, &why)); }
static void put(void *db, const void *key, size_t len, const void *value, size_t value_len, bool sync) {
    found(engine_put(db, &(struct engine_write_options){.sync = sync}, slice_of(key, len), slice_of(value, value_len), &why));
}
static void remove_range(void *db, const void *start, size_t start_len, const void *end, size_t end_len) {
    found(engine_delete_range(db, NULL, slice_of(start, start_len), slice_of(end, end_len), &why));
}
static_assert(sizeof(struct engine_value) <= sizeof ((struct kv_value *)0)->owner, "it is kept in there");
static bool get(void *db, const void *key, size_t len, struct kv_value *ret_value) {
    struct engine_value *value = (struct engine_value *)ret_value->owner;
    return found(engine_get(db, NULL, slice_of(key, len), value, &why)) && (ret_value->data = out(value->bytes, &ret_value->len)) != NULL;
}
static void release(struct kv_value *value) { engine_value_release((struct engine_value *)value->owner); }
static void *iterator_new(void *db) {
    struct engine_iterator *iterator = NULL;
    return found(engine_iterator_new(db, NULL, &iterator, &why)) ? iterator : NULL;
}
static void iterator_free(void *it) { engine_iterator_free(it); }
static bool seek(void *it, const void *key, size_t len) { return found(engine_iterator_seek(it, slice_of(key, len), &why)); }
static bool first(void *it) { return found(engine_iterator_first(it, &why)); }
static bool last(void *it) { return found(engine_iterator_last(it, &why)); }
static bool next(void *it) { return found(engine_iterator_next(it, &why)); }
static bool prev(void *it) { return found(engine_iterator_prev(it, &why)); }
static const void *key_of(void *it, size_t *ret_len) { return out(engine_iterator_key(it), ret_len); }
static const void *value_of(void *it, size_t *ret_len) {
    struct slice value = slice_of(NULL, 0);
    return found(engine_iterator_value(it, &value, &why)) ? out(value, ret_len) : NULL;
}
const struct kv_engine kv_holdfast = {"holdfast", open_engine, close_engine, put, remove_range, get, release, flush, iterator_new, iterator_free, seek, first, last, next, prev, key_of, value_of};
