/*
 * Opening a table: header, footer, properties against what the manifest says, range deletes, top index.
 *
 * What is needed for good, the top, is made once and published by one atomic pointer. It is small: about 100 bytes for
 * a partition of 128 KiB. The eight bytes of each separator that usually decide
 * stand side by side. Partitions that are asked for again and again are kept by the top, as far as the cache allows.
 */
#include "node/base/buf.h"
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "storage/sst_internal.h"
#include "storage/value_file.h"

#include <inttypes.h>

/* ---- Searching --------------------------------------------------------------------------------------------------- */

/* Eight bytes of the key from here on, as a number that sorts like them. */
static uint64_t head_at(struct slice key, size_t at) {
    uint8_t bytes[sizeof(uint64_t)] = {0};
    uint64_t head;
    if (key.len >= at + sizeof bytes) {
        memcpy(&head, key.data + at, sizeof head);
    } else {
        if (key.len > at) {
            memcpy(bytes, key.data + at, key.len - at);
        }
        memcpy(&head, bytes, sizeof head);
    }
    return __builtin_bswap64(head);
}

struct entry_key sst__part_key(const struct sst_top *top, uint32_t part) {
    const struct sst_part *here = &top->parts[part];
    return (struct entry_key){.user = slice_of(top->keys + here->key_at, here->key_len),
                              .revision = here->revision,
                              .ordinal = here->ordinal};
}

uint32_t sst__find_part(const struct sst_top *top, const struct entry_key *target) {
    uint32_t low = 0;
    uint32_t high = top->part_count;
    if (top->shared_len > 0) {
        size_t len = target->user.len < top->shared_len ? target->user.len : top->shared_len;
        int order = memcmp(target->user.data, top->keys, len);
        if (order != 0 || len < top->shared_len) {
            return order > 0 ? high : 0;
        }
    }
    uint64_t head = head_at(target->user, top->shared_len);
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        bool before = top->heads[middle] < head;
        if (__builtin_expect(top->heads[middle] == head, 0)) {
            struct entry_key key = sst__part_key(top, middle);
            before = entry_key_compare(&key, target) < 0;
        }
        low = before ? middle + 1 : low;
        high = before ? high : middle;
    }
    return low;
}

/* ---- Checks ------------------------------------------------------------------------------------------------------ */

static enum status check_header(struct sst *sst, struct error *err) {
    uint8_t bytes[SST_HEADER_BYTES];
    struct sst_header header;
    enum status status = sst__read(sst, bytes, sizeof bytes, 0, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = sst_header_decode(bytes, &header);
    if (status == STATUS_CORRUPT) {
        enum status again = sst__read_again(sst, bytes, sizeof bytes, 0, err);
        if (again != STATUS_OK) {
            return again;
        }
        status = sst_header_decode(bytes, &header);
    }
    if (status != STATUS_OK) {
        return sst__damaged(sst, status, "the header", 0, err);
    }
    if (header.kind != SST_FILE_TABLE || header.id != sst->meta.id ||
        memcmp(header.cluster_id, sst->context->cluster_id, SST_CLUSTER_ID_BYTES) != 0) {
        return sst__damaged(sst, STATUS_CORRUPT, "the header (another table's or cluster's)", 0, err);
    }
    return STATUS_OK;
}

static enum status read_footer(struct sst *sst, struct sst_footer *ret_footer, struct error *err) {
    uint8_t bytes[SST_FOOTER_BYTES];
    uint64_t size_bytes;
    enum status status = env_size(sst->file.file, &size_bytes, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (size_bytes != sst->meta.size_bytes || size_bytes < SST_HEADER_BYTES + SST_FOOTER_BYTES) {
        (void)sst__damaged(sst, STATUS_CORRUPT, "the end", size_bytes, err);
        return error_set(err, STATUS_CORRUPT, "%s: has %" PRIu64 " bytes, the manifest says %" PRIu64,
                         env_file_path(sst->file.file), size_bytes, sst->meta.size_bytes);
    }
    uint64_t footer_at = size_bytes - SST_FOOTER_BYTES;
    status = sst__read(sst, bytes, sizeof bytes, footer_at, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = sst_footer_decode(bytes, sst->meta.id, size_bytes, ret_footer);
    if (status == STATUS_CORRUPT) {
        enum status again = sst__read_again(sst, bytes, sizeof bytes, footer_at, err);
        if (again != STATUS_OK) {
            return again;
        }
        status = sst_footer_decode(bytes, sst->meta.id, size_bytes, ret_footer);
    }
    return status == STATUS_OK ? status : sst__damaged(sst, status, "the footer", footer_at, err);
}

static bool properties_agree(const struct sst_properties *properties, const struct sst_meta *meta) {
    return properties->entries == meta->entries && properties->deletes == meta->deletes &&
           properties->tombstones == meta->tombstones && properties->superseded == meta->superseded &&
           properties->superseded_until == meta->superseded_until && properties->key_bytes == meta->key_bytes &&
           properties->value_bytes == meta->value_bytes && properties->revision_first == meta->revision_first &&
           properties->revision_last == meta->revision_last &&
           (properties->largest_excluded != 0) == meta->largest_excluded &&
           slice_equal(properties->smallest, meta->smallest) && slice_equal(properties->largest, meta->largest) &&
           value_refs_equal(properties->value_ref_bytes, meta->value_refs, meta->value_ref_count);
}

static enum status read_properties(struct sst *sst, const struct sst_footer *footer,
                                   struct sst_properties *ret_properties, struct error *err) {
    struct cache_block *block = NULL;
    struct sst_properties properties = {.entries = 0};
    enum status status = sst__read_block(sst, &footer->properties, SST_BLOCK_PROPERTIES, &block, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = sst_properties_decode(slice_of(block->data, block->len), &properties);
    if (status == STATUS_OK &&
        (!properties_agree(&properties, &sst->meta) || (properties.entries > 0) != (footer->top.size > 0) ||
         (properties.tombstones > 0) != (footer->tombstones.size > 0))) {
        status = STATUS_CORRUPT;
    }
    if (status == STATUS_OK) {
        properties.smallest = SLICE_EMPTY;
        properties.largest = SLICE_EMPTY;
        properties.value_ref_bytes = SLICE_EMPTY;
        *ret_properties = properties;
    } else {
        status = sst__damaged(sst, status, "the properties block", footer->properties.offset, err);
    }
    cache_release(sst->context->cache, block);
    return status;
}

/* ---- Range deletes ----------------------------------------------------------------------------------------------- */

/* The block's range deletes as a list; their starts, which the cursor doesn't keep, go to `starts`, their offsets in it
 * to start.len for now. STATUS_CORRUPT unless they are fragments in order: anything else could be made to explode. */
static enum status list_tombstones(struct block_cursor *cursor, struct buf *starts, struct buf *list) {
    struct slice end = SLICE_EMPTY;
    size_t start_at = 0;
    enum status status = block_cursor_first(cursor);
    for (; status == STATUS_OK; status = block_cursor_next(cursor)) {
        const struct entry *entry = &cursor->entry;
        bool first = list->len == 0;
        struct slice start = first ? SLICE_EMPTY : slice_of(starts->data + start_at, starts->len - start_at);
        bool same = !first && slice_equal(start, entry->key.user) && slice_equal(end, entry->value);
        if (slice_compare(entry->key.user, entry->value) >= 0 || entry->value.len > LIMIT_KEY_BYTES ||
            entry->key.revision == 0 || (!first && !same && slice_compare(entry->key.user, end) < 0)) {
            return STATUS_CORRUPT;
        }
        if (!same) {
            start_at = starts->len;
            end = entry->value;
            if (buf_append(starts, entry->key.user.data, entry->key.user.len) != STATUS_OK) {
                return STATUS_NO_MEMORY;
            }
        }
        struct tombstone tombstone = {.start = slice_of(NULL, start_at),
                                      .end = slice_of(entry->value.data, entry->value.len),
                                      .revision = entry->key.revision,
                                      .ordinal = entry->key.ordinal};
        if (buf_append(list, &tombstone, sizeof tombstone) != STATUS_OK) {
            return STATUS_NO_MEMORY;
        }
    }
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static enum status build_tombstones(struct sst *sst, struct slice body, struct tombstones **ret_set) {
    struct alloc *alloc = sst->context->env->alloc;
    struct block_cursor cursor;
    struct buf starts;
    struct buf list;
    buf_init(&starts, alloc, 0);
    buf_init(&list, alloc, 0);
    enum status status = block_cursor_open(&cursor, body);
    if (status == STATUS_OK) {
        status = list_tombstones(&cursor, &starts, &list);
    }
    size_t count = list.len / sizeof(struct tombstone);
    if (status == STATUS_OK && count != sst->meta.tombstones) {
        status = STATUS_CORRUPT;
    }
    if (status == STATUS_OK) {
        struct tombstone *tombstones = (struct tombstone *)(void *)list.data;
        size_t end_at = starts.len;
        for (size_t i = count; i > 0; i--) {
            size_t at = tombstones[i - 1].start.len;
            bool fragment_begins = i == 1 || tombstones[i - 2].start.len != at;
            tombstones[i - 1].start = slice_of(starts.data + at, end_at - at);
            end_at = fragment_begins ? at : end_at;
        }
        status = tombstones_build(alloc, tombstones, count, ret_set);
    }
    buf_deinit(&starts);
    buf_deinit(&list);
    return status;
}

static enum status read_tombstones(struct sst *sst, const struct sst_handle *handle, struct tombstones **ret_set,
                                   struct error *err) {
    struct cache_block *block;
    if (handle->size == 0) {
        return STATUS_OK;
    }
    enum status status = sst__read_block(sst, handle, SST_BLOCK_TOMBSTONES, &block, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = build_tombstones(sst, slice_of(block->data, block->len), ret_set);
    if (status == STATUS_NO_MEMORY) {
        (void)sst__no_memory(sst, block->len, err);
    } else if (status != STATUS_OK) {
        (void)sst__damaged(sst, status, "the block of range deletes", handle->offset, err);
    }
    cache_release(sst->context->cache, block);
    return status;
}

/* ---- Top index --------------------------------------------------------------------------------------------------- */

/* Entries into top's parts and their keys into `keys`. */
static enum status list_parts(struct sst_top *top, struct slice body, struct buf *keys) {
    struct block_cursor cursor;
    struct entry_key last = {.user = SLICE_EMPTY};
    uint64_t start = SST_HEADER_BYTES;
    uint32_t count = 0;
    enum status status = block_cursor_open(&cursor, body);
    if (status == STATUS_OK) {
        status = block_cursor_first(&cursor);
    }
    for (; status == STATUS_OK; status = block_cursor_next(&cursor), count++) {
        const struct entry_key *key = &cursor.entry.key;
        struct sst_part *part = &top->parts[count];
        if (count == top->part_count || (count > 0 && entry_key_compare(&last, key) >= 0) ||
            sst_handle_decode(cursor.entry.value, start, top->blocks_end, &part->handle) != STATUS_OK) {
            return STATUS_CORRUPT;
        }
        part->revision = key->revision;
        part->ordinal = key->ordinal;
        part->key_at = (uint32_t)keys->len;
        part->key_len = (uint32_t)key->user.len;
        start = part->handle.offset + part->handle.size + SST_TRAILER_BYTES;
        if (buf_append(keys, key->user.data, key->user.len) != STATUS_OK) {
            return STATUS_NO_MEMORY;
        }
        last = *key;
        last.user = slice_of(keys->data + part->key_at, part->key_len);
    }
    if (status != STATUS_NOT_FOUND) {
        return status;
    }
    return count == top->part_count && start == top->blocks_end ? STATUS_OK : STATUS_CORRUPT;
}

/* Sorted keys share what the first and the last of them share. */
static void find_heads(struct sst_top *top) {
    struct slice first = sst__part_key(top, 0).user;
    struct slice last = sst__part_key(top, top->part_count - 1).user;
    uint32_t shared = 0;
    while (shared < first.len && shared < last.len && first.data[shared] == last.data[shared]) {
        shared++;
    }
    top->shared_len = shared;
    for (uint32_t i = 0; i < top->part_count; i++) {
        top->heads[i] = head_at(sst__part_key(top, i).user, shared);
    }
}

static enum status make_top(struct sst *sst, const struct sst_properties *properties, uint64_t blocks_end,
                            struct slice body, struct sst_top **ret_top) {
    struct alloc *alloc = sst->context->env->alloc;
    struct buf keys;
    /* Properties have a checksum, but a count from a file is no size of an allocation yet: each partition has an entry
     * of more than its handle in the body. */
    if (properties->partitions > body.len / SST_HANDLE_BYTES || (body.len == 0) != (properties->partitions == 0)) {
        return STATUS_CORRUPT;
    }
    size_t size = sizeof(struct sst_top) +
                  properties->partitions * (sizeof(struct sst_part) + sizeof(struct sst_kept) + sizeof(uint64_t));
    struct sst_top *top = mem_alloc_zero(alloc, size);
    if (top == NULL) {
        return STATUS_NO_MEMORY;
    }
    buf_init(&keys, alloc, 0);
    top->properties = *properties;
    top->blocks_end = blocks_end;
    top->part_count = (uint32_t)properties->partitions;
    top->kept = (struct sst_kept *)(void *)(top->parts + top->part_count);
    top->heads = (uint64_t *)(void *)(top->kept + top->part_count);
    enum status status = STATUS_OK;
    if (top->part_count > 0) {
        status = list_parts(top, body, &keys);
    } else if (blocks_end != SST_HEADER_BYTES) {
        status = STATUS_CORRUPT;
    }
    if (status != STATUS_OK) {
        buf_deinit(&keys);
        mem_free(alloc, top);
        return status;
    }
    top->keys = keys.data; /* taken over */
    top->charge_bytes = size + keys.capacity;
    if (top->part_count > 0) {
        find_heads(top);
    }
    *ret_top = top;
    return STATUS_OK;
}

void sst__discard_top(struct alloc *alloc, struct sst_top *top) {
    if (top != NULL) {
        tombstones_free(top->tombstones);
        mem_free(alloc, top->keys);
        mem_free(alloc, top);
    }
}

enum status sst__read_top(struct sst *sst, struct sst_top **ret_top, struct error *err) {
    struct alloc *alloc = sst->context->env->alloc;
    struct sst_footer footer = {.properties = {0}};
    struct sst_properties properties = {.entries = 0};
    struct cache_block *block = NULL;
    struct sst_top *top = NULL;
    enum status status = check_header(sst, err);
    if (status == STATUS_OK) {
        status = read_footer(sst, &footer, err);
    }
    if (status == STATUS_OK) {
        status = read_properties(sst, &footer, &properties, err);
    }
    if (status == STATUS_OK && footer.top.size > 0) {
        status = sst__read_block(sst, &footer.top, SST_BLOCK_TOP, &block, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    const struct sst_handle *behind = footer.tombstones.size > 0 ? &footer.tombstones : &footer.top;
    struct slice body = block != NULL ? slice_of(block->data, block->len) : SLICE_EMPTY;
    status = make_top(sst, &properties, behind->offset, body, &top);
    cache_release(sst->context->cache, block);
    if (status == STATUS_NO_MEMORY) {
        return sst__no_memory(sst, body.len, err);
    }
    if (status != STATUS_OK) {
        return sst__damaged(sst, status, "the top index", footer.top.offset, err);
    }
    CHECK(top != NULL);
    status = read_tombstones(sst, &footer.tombstones, &top->tombstones, err);
    if (status != STATUS_OK) {
        sst__discard_top(alloc, top);
        return status;
    }
    top->charge_bytes += top->tombstones != NULL ? tombstones_bytes(top->tombstones) : 0;
    *ret_top = top;
    return STATUS_OK;
}

/* ---- Once -------------------------------------------------------------------------------------------------------- */

enum status sst__load_top(struct sst *sst, struct error *err) {
    struct sst_top *top = NULL;
    struct sst_top *expected = NULL;
    if (sst__top(sst) != NULL) {
        return STATUS_OK;
    }
    enum status status = sst__pin(sst, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = sst__read_top(sst, &top, err);
    open_file_unpin(&sst->file);
    if (status != STATUS_OK) {
        return status;
    }
    CHECK(top != NULL);
    if (atomic_compare_exchange_strong_explicit(&sst->top, &expected, top, memory_order_acq_rel,
                                                memory_order_acquire)) {
        cache_charge(sst->context->cache, (int64_t)top->charge_bytes);
    } else { /* somebody else was quicker */
        sst__discard_top(sst->context->env->alloc, top);
    }
    return STATUS_OK;
}

void sst__free_top(struct sst *sst) {
    struct sst_top *top = atomic_load_explicit(&sst->top, memory_order_acquire);
    if (top != NULL) {
        for (uint32_t part = 0; part < top->part_count; part++) {
            struct cache_block *block = sst__kept(top, part);
            if (block != NULL) {
                cache_unkeep(sst->context->cache, block);
            }
        }
        cache_charge(sst->context->cache, -(int64_t)top->charge_bytes);
        sst__discard_top(sst->context->env->alloc, top);
    }
}

/* ---- Partitions that are kept ------------------------------------------------------------------------------------ */

void sst__keep(struct sst *sst, const struct sst_top *top, uint32_t part, struct cache_block *block,
               const struct sst_partition *partition) {
    struct sst_kept *kept = &top->kept[part];
    if (atomic_load_explicit(&kept->is_claimed, memory_order_relaxed) ||
        atomic_exchange_explicit(&kept->is_claimed, true, memory_order_acquire)) {
        return;
    }
    if (!cache_keep(sst->context->cache, block)) {
        atomic_store_explicit(&kept->is_claimed, false, memory_order_release);
        return;
    }
    kept->filter = partition->filter.data;
    kept->filter_len = (uint32_t)partition->filter.len;
    kept->index = partition->index.data;
    kept->index_len = (uint32_t)partition->index.len;
    kept->probes = (uint16_t)partition->probes;
    atomic_store_explicit(&kept->block, block, memory_order_release);
}
