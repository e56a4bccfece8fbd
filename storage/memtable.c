/* The memtable as a whole: batches in, memory, the filter. */
#include "storage/memtable.h"

#include "node/base/check.h"
#include "storage/digest.h"
#include "storage/memtable_internal.h"

enum {
    CHUNK_BYTES_MIN = 4096,
    CHUNKS = 16,                          /* of a small memtable */
    HUGE_MEMTABLE = 4 * ALLOC_HUGE_BYTES, /* from this size on huge pages don't waste much */
    RECORD_ALIGN = 8,
    FILTER_SHARE = 128, /* bytes of memtable for each byte of filter: 8 bits for an entry of 128 bytes */
    FILTER_BYTES_MAX = 64 * 1024 * 1024
};

static bool filter_init(struct memtable *memtable, size_t bytes_expected) {
    size_t bytes = bytes_expected / FILTER_SHARE;
    bytes = bytes > FILTER_BYTES_MAX ? FILTER_BYTES_MAX : bytes;
    memtable->filter_lines = (uint32_t)(bytes / FILTER_LINE_BYTES) + 1;
    bytes = (size_t)memtable->filter_lines * FILTER_LINE_BYTES;
    memtable->filter = mem_alloc_aligned(memtable->alloc, FILTER_LINE_BYTES, bytes);
    if (memtable->filter == NULL) {
        return false;
    }
    memset((void *)memtable->filter, 0, bytes);
    return true;
}

static _Atomic uint64_t *filter_place(const struct memtable *memtable, uint64_t hash) {
    return &memtable->filter[(size_t)filter_line(hash, memtable->filter_lines) * 8];
}

/* Only the writer changes words, so no bit is lost between load and store. */
static void filter_add(struct memtable *memtable, uint64_t hash) {
    _Atomic uint64_t *line = filter_place(memtable, hash);
    uint32_t bits = filter_bits_begin(hash);
    for (unsigned i = 0; i < MEMTABLE_FILTER_PROBES; i++, bits = filter_bits_next(bits)) {
        uint32_t bit = filter_bit(bits);
        uint64_t word = atomic_load_explicit(&line[bit / 64], memory_order_relaxed);
        atomic_store_explicit(&line[bit / 64], word | (uint64_t)1 << bit % 64, memory_order_relaxed);
    }
}

struct memtable *memtable_new(struct alloc *alloc, size_t bytes_expected) {
    struct memtable *memtable = mem_alloc_aligned(alloc, NODE_ALIGN, sizeof *memtable);
    if (memtable == NULL) {
        return NULL;
    }
    memset((void *)memtable, 0, sizeof *memtable);
    memtable->alloc = alloc;
    atomic_init(&memtable->range_deletes, NULL);
    atomic_init(&memtable->last, NULL);
    size_t chunk_bytes = bytes_expected / CHUNKS;
    if (bytes_expected >= HUGE_MEMTABLE) {
        chunk_bytes = ALLOC_HUGE_BYTES;
    } else if (chunk_bytes < CHUNK_BYTES_MIN) {
        chunk_bytes = CHUNK_BYTES_MIN;
    }
    heap_init(&memtable->records, alloc, chunk_bytes, RECORD_ALIGN);
    heap_init(&memtable->nodes, alloc, chunk_bytes, NODE_ALIGN);
    if (!filter_init(memtable, bytes_expected) || !memtable__tree_init(memtable)) {
        memtable_free(memtable);
        return NULL;
    }
    return memtable;
}

void memtable_free(struct memtable *memtable) {
    if (memtable == NULL) {
        return;
    }
    memtable__ranges_deinit(memtable);
    heap_deinit(&memtable->records);
    heap_deinit(&memtable->nodes);
    mem_free(memtable->alloc, (void *)memtable->filter);
    mem_free(memtable->alloc, memtable);
}

bool memtable_reset(struct memtable *memtable) {
    memtable__ranges_deinit(memtable);
    heap_clear(&memtable->records);
    heap_clear(&memtable->nodes);
    memset((void *)memtable->filter, 0, (size_t)memtable->filter_lines * FILTER_LINE_BYTES);
    atomic_store_explicit(&memtable->last, NULL, memory_order_relaxed);
    memtable->revision = 0;
    memtable->entries = 0;
    memtable->branches = 0;
    memtable->hint = (struct memtable_hint){.leaf = NULL};
    memtable->range_delete_count = 0;
    memtable->range_delete_bytes = 0;
    memtable->full = false;
    return memtable__tree_init(memtable);
}

/* ---- Batches ------------------------------------------------------------------------------------------------------
 */

/* effects NULL, here and below: nobody wants them. */
static struct memtable_record *make_record(struct memtable *memtable, const struct batch_operation *operation,
                                           uint32_t ordinal, struct digest_effects *effects) {
    struct memtable_record *record =
        heap_take(&memtable->records, record_size(operation->key.len, operation->value.len));
    if (record == NULL) {
        return NULL;
    }
    record->pending = NULL;
    record->ordinal = ordinal;
    record->value_len = (uint32_t)operation->value.len;
    record->key_len = (uint16_t)operation->key.len;
    record->kind = (uint8_t)operation->kind;
    memcpy(record->bytes, operation->key.data, operation->key.len);
    if (effects != NULL) {
        digest_add_value(effects, digest_copy(record->bytes + record->key_len, operation->value.data,
                                              operation->value.len, (uint64_t)ordinal << 8 | record->kind));
    } else if (operation->value.len > 0) {
        memcpy(record->bytes + operation->key.len, operation->value.data, operation->value.len);
    }
    return record;
}

/* What a batch becomes before any of it is visible. */
struct pending {
    struct memtable_record *first;
    struct memtable_record *first_range;
    struct memtable_record *last; /* of both */
    uint32_t records;
    uint32_t range_deletes;
    struct memtable_range_deletes *ranges; /* NULL: none */
};

static enum status make_records(struct memtable *memtable, struct slice batch, struct pending *pending,
                                struct digest_effects *effects) {
    struct batch_reader reader;
    struct batch_operation operation;
    enum status status = batch_open(batch, &reader);
    if (status != STATUS_OK) {
        return status;
    }
    struct memtable_record **link = &pending->first;
    struct memtable_record **range_link = &pending->first_range;
    for (uint32_t ordinal = 0; (status = batch_next(&reader, &operation)) == STATUS_OK; ordinal++) {
        struct memtable_record *record = make_record(memtable, &operation, ordinal, effects);
        if (record == NULL) {
            return STATUS_NO_MEMORY;
        }
        pending->last = record;
        if (__builtin_expect(operation.kind == BATCH_DELETE_RANGE, 0)) {
            *range_link = record;
            range_link = &record->pending;
            pending->range_deletes++;
        } else {
            *link = record;
            link = &record->pending;
            pending->records++;
        }
    }
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

/* Of a batch that is known to be well formed. */
static enum status make_ranges(struct memtable *memtable, uint64_t revision, struct slice batch,
                               struct pending *pending) {
    struct tombstone *list = mem_alloc(memtable->alloc, pending->range_deletes * sizeof *list);
    if (list == NULL) {
        return STATUS_NO_MEMORY;
    }
    struct batch_reader reader;
    struct batch_operation operation;
    size_t count = 0;
    enum status status = batch_open(batch, &reader);
    CHECK(status == STATUS_OK);
    for (uint32_t ordinal = 0; batch_next(&reader, &operation) == STATUS_OK; ordinal++) {
        if (operation.kind == BATCH_DELETE_RANGE) {
            list[count++] = (struct tombstone){.start = operation.key,
                                               .end = operation.value,
                                               .revision = revision,
                                               .ordinal = ordinal};
        }
    }
    CHECK(count == pending->range_deletes);
    status = memtable__ranges_prepare(memtable, list, count, &pending->ranges);
    mem_free(memtable->alloc, list);
    return status;
}

static inline enum status apply(struct memtable *memtable, uint64_t revision, struct slice batch,
                                struct digest_effects *effects) {
    CHECK(revision > memtable->revision && revision < ENTRY_REVISION_NONE);
    struct pending pending = {.first = NULL};
    struct heap_mark mark = heap_mark(&memtable->records);
    enum status status = make_records(memtable, batch, &pending, effects);
    if (status == STATUS_OK && pending.range_deletes > 0) {
        status = make_ranges(memtable, revision, batch, &pending);
    }
    if (status == STATUS_OK && !memtable__tree_reserve(memtable, pending.records)) {
        memtable__ranges_drop(memtable, pending.ranges);
        status = STATUS_NO_MEMORY;
    }
    if (status != STATUS_OK) {
        heap_rewind(&memtable->records, &mark);
        return status;
    }
    for (struct memtable_record *record = pending.first; record != NULL;) {
        struct memtable_record *next = record->pending;
        record->revision = revision;
        uint64_t hash = filter_hash(record_key(record));
        __builtin_prefetch((const void *)filter_place(memtable, hash), 1); /* it comes while the tree is searched */
        memtable__tree_insert(memtable, record);
        filter_add(memtable, hash);
        if (effects != NULL) {
            digest_add_key(effects, hash);
        }
        record = next;
    }
    for (struct memtable_record *record = pending.first_range; record != NULL;) {
        struct memtable_record *next = record->pending;
        record->revision = revision;
        if (effects != NULL) {
            digest_add_key(effects, filter_hash(record_key(record)));
        }
        record = next;
    }
    if (pending.ranges != NULL) {
        memtable__ranges_publish(memtable, pending.ranges);
    }
    if (pending.last != NULL) {
        atomic_store_explicit(&memtable->last, pending.last, memory_order_release);
    }
    memtable->entries += pending.records;
    memtable->revision = revision;
    return STATUS_OK;
}

enum status memtable_apply(struct memtable *memtable, uint64_t revision, struct slice batch) {
    return apply(memtable, revision, batch, NULL);
}

enum status memtable_apply_digested(struct memtable *memtable, uint64_t revision, struct slice batch,
                                    struct digest_effects *ret_effects) {
    *ret_effects = (struct digest_effects){.keys = 0};
    return apply(memtable, revision, batch, ret_effects);
}

size_t memtable_bytes(const struct memtable *memtable) {
    return memtable->full ? SIZE_MAX : memtable->records.bytes + memtable->nodes.bytes + memtable->range_delete_bytes;
}

uint64_t memtable_entries(const struct memtable *memtable) { return memtable->entries; }

uint64_t memtable_range_deletes(const struct memtable *memtable) { return memtable->range_delete_count; }
