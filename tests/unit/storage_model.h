/*
 * What a store should hold, kept in the most naive way: the list of all entries. Looking a key up walks back through
 * it.
 *
 * It is the log, too: entries stay when a store crashes, and are replayed behind the frontier that it comes back with.
 */
#ifndef HOLDFAST_TESTS_STORAGE_MODEL_H
#define HOLDFAST_TESTS_STORAGE_MODEL_H

#include "node/base/random.h"
#include "tests/unit/storage_host.h"

enum { MODEL_ENTRIES_MAX = 6000, MODEL_OPERATIONS_MAX = 4, MODEL_KEYS = 40, MODEL_VALUE_BYTES_MAX = 400 };

struct model_entry {
    uint8_t count;
    struct {
        uint8_t key; /* of a range delete: the first that goes */
        uint8_t end; /* ... and the first that stays */
        uint8_t kind;
        uint16_t value_len;
    } operations[MODEL_OPERATIONS_MAX];
};

struct model {
    uint64_t count; /* entries 1..count exist */
    uint64_t horizon;
    struct model_entry entries[MODEL_ENTRIES_MAX + 1];
};

/* Keys of several lengths that share prefixes, NUL included. */
static inline struct slice model_key(unsigned key, uint8_t out[32]) {
    size_t len = 2 + key % 5;
    out[0] = (uint8_t)('a' + key / 8);
    memset(out + 1, key % 3 == 0 ? 0 : 'k', len);
    out[len] = (uint8_t)key;
    return slice_of(out, len + 1);
}

static inline int model_compare_keys(unsigned a, unsigned b) {
    uint8_t bytes[2][32];
    return slice_compare(model_key(a, bytes[0]), model_key(b, bytes[1]));
}

static inline struct slice model_value(uint64_t index, unsigned ordinal, size_t len,
                                       uint8_t out[MODEL_VALUE_BYTES_MAX]) {
    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)(index * 31 + ordinal * 7 + i);
    }
    return slice_of(out, len);
}

/* A random entry at the end of the log; sometimes one without data. Returns its index. */
static inline uint64_t model_grow(struct model *model, struct random *random) {
    assert_true(model->count < MODEL_ENTRIES_MAX);
    struct model_entry *entry = &model->entries[++model->count];
    entry->count = (uint8_t)random_below(random, MODEL_OPERATIONS_MAX + 1);
    for (unsigned i = 0; i < entry->count; i++) {
        entry->operations[i].key = (uint8_t)random_below(random, MODEL_KEYS);
        entry->operations[i].kind = random_chance(random, 1, 3) ? BATCH_DELETE : BATCH_PUT;
        entry->operations[i].value_len = (uint16_t)random_below(random, MODEL_VALUE_BYTES_MAX);
        unsigned end = (unsigned)random_below(random, MODEL_KEYS);
        if (random_chance(random, 1, 12) && model_compare_keys(entry->operations[i].key, end) < 0) {
            entry->operations[i].kind = BATCH_DELETE_RANGE;
            entry->operations[i].end = (uint8_t)end;
        }
    }
    return model->count;
}

/* The batch of an entry; borrowed until the next call. */
static inline struct slice model_batch(const struct model *model, uint64_t index) {
    static uint8_t keys[MODEL_OPERATIONS_MAX][32];
    static uint8_t ends[MODEL_OPERATIONS_MAX][32];
    static uint8_t values[MODEL_OPERATIONS_MAX][MODEL_VALUE_BYTES_MAX];
    static uint8_t batch[MODEL_OPERATIONS_MAX * (MODEL_VALUE_BYTES_MAX + 64)];
    const struct model_entry *entry = &model->entries[index];
    struct batch_operation operations[MODEL_OPERATIONS_MAX];
    for (unsigned i = 0; i < entry->count; i++) {
        operations[i].kind = (enum batch_kind)entry->operations[i].kind;
        operations[i].key = model_key(entry->operations[i].key, keys[i]);
        operations[i].value = SLICE_EMPTY;
        if (operations[i].kind == BATCH_PUT) {
            operations[i].value = model_value(index, i, entry->operations[i].value_len, values[i]);
        } else if (operations[i].kind == BATCH_DELETE_RANGE) {
            operations[i].value = model_key(entry->operations[i].end, ends[i]);
        }
    }
    if (entry->count == 0) {
        return SLICE_EMPTY;
    }
    batch_encode(batch, operations, entry->count);
    return slice_of(batch, batch_size(operations, entry->count));
}

/* The newest put of the key at or below the revision; false if there is none or it was deleted. */
static inline bool model_find(const struct model *model, unsigned key, uint64_t revision, uint64_t *ret_index,
                              unsigned *ret_ordinal) {
    for (uint64_t index = revision; index > 0; index--) {
        const struct model_entry *entry = &model->entries[index];
        for (unsigned i = entry->count; i-- > 0;) {
            bool in_range = entry->operations[i].kind == BATCH_DELETE_RANGE &&
                            model_compare_keys(entry->operations[i].key, key) <= 0 &&
                            model_compare_keys(key, entry->operations[i].end) < 0;
            if (in_range || (entry->operations[i].kind != BATCH_DELETE_RANGE && entry->operations[i].key == key)) {
                *ret_index = index;
                *ret_ordinal = i;
                return entry->operations[i].kind == BATCH_PUT;
            }
        }
    }
    return false;
}

/* One lookup. A status other than found or not found is returned and judged by the caller. */
static inline enum status model_check_key(const struct model *model, struct storage_view *view, unsigned key,
                                          uint64_t revision, struct error *err) {
    uint8_t key_bytes[32];
    uint8_t value_bytes[MODEL_VALUE_BYTES_MAX];
    uint64_t index = 0;
    unsigned ordinal = 0;
    uint64_t got_revision = 0;
    struct slice fast;
    struct storage_value value;
    bool exists = model_find(model, key, revision, &index, &ordinal);
    struct slice name = model_key(key, key_bytes);
    enum status status = storage_get(view, NULL, name, revision, &value, err);
    if (status == STATUS_OK || status == STATUS_NOT_FOUND) {
        assert_int_equal(status == STATUS_OK, exists);
    }
    if (status == STATUS_OK) {
        struct slice want =
            model_value(index, ordinal, model->entries[index].operations[ordinal].value_len, value_bytes);
        assert_true(slice_equal(want, value.bytes));
        assert_int_equal(value.revision, index);
        storage_value_release(&value);
    }
    enum storage_lookup lookup = storage_get_memory(view, name, revision, &fast, &got_revision);
    if (lookup == STORAGE_FOUND) {
        assert_true(exists && got_revision == index);
    } else if (lookup == STORAGE_ABSENT) {
        assert_false(exists);
    }
    return status;
}

/* All keys in [lower, upper) by iterator, against the model. Either may be MODEL_KEYS: no bound. */
static inline enum status model_check_scan(const struct model *model, struct storage_view *view, unsigned lower,
                                           unsigned upper, uint64_t revision, struct error *err) {
    uint8_t bounds[2][32];
    if (revision == 0) {
        return STATUS_NOT_FOUND; /* an iterator takes that for the newest */
    }
    struct slice from = lower == MODEL_KEYS ? SLICE_EMPTY : model_key(lower, bounds[0]);
    struct slice to = upper == MODEL_KEYS ? SLICE_EMPTY : model_key(upper, bounds[1]);
    unsigned wanted = 0;
    for (unsigned key = 0; key < MODEL_KEYS; key++) {
        uint64_t index;
        unsigned ordinal;
        bool inside = (lower == MODEL_KEYS || model_compare_keys(key, lower) >= 0) &&
                      (upper == MODEL_KEYS || model_compare_keys(key, upper) < 0);
        wanted += inside && model_find(model, key, revision, &index, &ordinal);
    }
    struct storage_iterator_options options = {.revision = revision, .lower = from, .upper = to};
    struct storage_iterator *iterator;
    bool backward = revision % 2 == 1; /* one direction or the other */
    enum status status = storage_iterator_new(view, NULL, &options, &iterator, err);
    if (status != STATUS_OK) {
        return status;
    }
    unsigned seen = 0;
    uint8_t last[32];
    size_t last_len = 0;
    status = backward ? storage_iterator_last(iterator, err) : storage_iterator_first(iterator, err);
    while (status == STATUS_OK) {
        struct slice name = storage_iterator_key(iterator);
        struct slice got;
        uint8_t value_bytes[MODEL_VALUE_BYTES_MAX];
        uint64_t index = 0;
        unsigned ordinal = 0;
        unsigned key = name.data[name.len - 1];
        assert_true(key < MODEL_KEYS && model_find(model, key, revision, &index, &ordinal));
        struct slice want =
            model_value(index, ordinal, model->entries[index].operations[ordinal].value_len, value_bytes);
        assert_int_equal(storage_iterator_value(iterator, &got, err), STATUS_OK);
        assert_true(slice_equal(got, want));
        assert_int_equal(storage_iterator_revision(iterator), index);
        int order = last_len == 0 ? 0 : slice_compare(slice_of(last, last_len), name);
        assert_true(last_len == 0 || (backward ? order > 0 : order < 0));
        memcpy(last, name.data, name.len);
        last_len = name.len;
        seen++;
        status = backward ? storage_iterator_prev(iterator, err) : storage_iterator_next(iterator, err);
    }
    if (status == STATUS_NOT_FOUND) {
        assert_int_equal(seen, wanted);
    }
    storage_iterator_free(iterator);
    return status;
}

/* Everything at one revision. */
static inline void model_check_all(const struct model *model, struct host *host, uint64_t revision) {
    struct error err;
    struct storage_view *view = storage_view_acquire(host->storage);
    error_clear(&err);
    for (unsigned key = 0; key < MODEL_KEYS; key++) {
        enum status status = model_check_key(model, view, key, revision, &err);
        if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
            fail_msg("key %u at %u: %s", key, (unsigned)revision, err.message);
        }
    }
    assert_int_equal(model_check_scan(model, view, MODEL_KEYS, MODEL_KEYS, revision, &err), STATUS_NOT_FOUND);
    storage_view_release(view);
}

/* True if the operation has to do with keys in the bounds; either may be MODEL_KEYS: none. */
static inline bool model_meets(const struct model_entry *entry, unsigned at, unsigned lower, unsigned upper) {
    bool is_range = entry->operations[at].kind == BATCH_DELETE_RANGE;
    if (upper != MODEL_KEYS && model_compare_keys(entry->operations[at].key, upper) >= 0) {
        return false;
    }
    return lower == MODEL_KEYS || (is_range ? model_compare_keys(entry->operations[at].end, lower) > 0
                                            : model_compare_keys(entry->operations[at].key, lower) >= 0);
}

/* One change against operation `at` of an entry. */
static inline void model_assert_change(const struct model *model, uint64_t index, unsigned at,
                                       const struct change *change) {
    const struct model_entry *entry = &model->entries[index];
    uint8_t bytes[32];
    assert_int_equal(change->revision, index);
    assert_int_equal(change->ordinal, at);
    assert_int_equal(change->kind, entry->operations[at].kind);
    assert_true(slice_equal(change->key, model_key(entry->operations[at].key, bytes)));
    if (change->kind == BATCH_DELETE_RANGE) {
        assert_true(slice_equal(change->end, model_key(entry->operations[at].end, bytes)));
    } else {
        assert_int_equal(change->end.len, 0);
    }
}

/* All changes of the entries from..until within the bounds. `next`: storage_changes_next, or one that waits. Says
 * STATUS_NOT_FOUND if they are the log's. */
static inline enum status
model_check_changes(const struct model *model, struct storage_changes *changes,
                    enum status (*next)(void *context, struct storage_changes *changes, struct change *ret_change),
                    void *context, uint64_t from, uint64_t until, unsigned lower, unsigned upper) {
    struct change change;
    for (uint64_t index = from; index <= until; index++) {
        for (unsigned at = 0; at < model->entries[index].count; at++) {
            if (model_meets(&model->entries[index], at, lower, upper)) {
                enum status status = next(context, changes, &change);
                if (status != STATUS_OK) {
                    assert_int_not_equal(status, STATUS_NOT_FOUND);
                    return status;
                }
                model_assert_change(model, index, at, &change);
                assert_int_equal(storage_changes_done(changes), index - 1);
            }
        }
    }
    enum status status = next(context, changes, &change);
    if (status == STATUS_NOT_FOUND) {
        assert_int_equal(storage_changes_done(changes), until);
    }
    return status;
}

static inline enum status model_next_blocking(void *context, struct storage_changes *changes,
                                              struct change *ret_change) {
    return storage_changes_next(changes, ret_change, context);
}

/* All that there are, from the oldest on. */
static inline void model_check_all_changes(const struct model *model, struct host *host) {
    struct error err;
    struct storage_changes *changes;
    struct storage_view *view = storage_view_acquire(host->storage);
    uint64_t revision = storage_view_revision(view);
    uint64_t oldest = storage_view_changes_oldest(view);
    struct storage_changes_options options = {.from = oldest};
    error_clear(&err);
    if (oldest <= revision + 1) {
        assert_int_equal(storage_changes_new(view, NULL, &options, &changes, &err), STATUS_OK);
        enum status status =
            model_check_changes(model, changes, model_next_blocking, &err, oldest, revision, MODEL_KEYS, MODEL_KEYS);
        if (status != STATUS_NOT_FOUND) {
            fail_msg("changes: %s", err.message);
        }
        storage_changes_free(changes);
    }
    for (uint64_t from = 1; from < oldest && from <= revision; from++) {
        options.from = from;
        assert_int_equal(storage_changes_new(view, NULL, &options, &changes, &err), STATUS_COMPACTED);
    }
    storage_view_release(view);
}

/* Applies log entries up to the end. */
static inline void model_replay(const struct model *model, struct host *host) {
    for (uint64_t index = storage_applied_index(host->storage) + 1; index <= model->count; index++) {
        struct error err;
        assert_int_equal(storage_apply(host->storage, index, 1, model_batch(model, index), &err), STATUS_OK);
    }
    storage_set_durable(host->storage, model->count);
}

#endif
