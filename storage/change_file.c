/* Change files as readers see them: objects like tables, their index, and a walk over several. Any thread. */
#include "storage/change_file.h"

#include "node/base/bytes.h"
#include "node/base/check.h"
#include "storage/sst_internal.h"

enum { BLOCKS_AHEAD = 3 /* asked for together with one that must be waited for */ };

struct change_file {
    struct sst sst; /* first: sst_free frees the whole */
    struct sst_handle index;
};

/* ---- What the manifest says ---------------------------------------------------------------------------------- */

bool change_meta_is_possible(const struct change_meta *meta) {
    uint64_t tail_bytes = (uint64_t)meta->index.size + SST_TRAILER_BYTES + SST_FOOTER_BYTES; /* at least */
    return meta->number > 0 && meta->id > 0 && meta->changes > 0 && meta->revision_first > 0 &&
           meta->revision_first <= meta->revision_last && meta->revision_last < ENTRY_REVISION_NONE &&
           meta->index.size > 0 && meta->index.size <= SST_BLOCK_BYTES_MAX && meta->index.offset > SST_HEADER_BYTES &&
           meta->size_bytes > tail_bytes && meta->index.offset < meta->size_bytes - tail_bytes;
}

enum status change_file_new(const struct sst_context *context, const struct change_meta *meta, struct sst **ret_file) {
    struct change_file *file = mem_alloc_zero(context->env->alloc, sizeof *file);
    if (file == NULL) {
        return STATUS_NO_MEMORY;
    }
    file->index = meta->index;
    file->sst.context = context;
    file->sst.is_changes = true;
    file->sst.meta = (struct sst_meta){.number = meta->number,
                                       .id = meta->id,
                                       .size_bytes = meta->size_bytes,
                                       .checksum = meta->checksum,
                                       .entries = meta->changes,
                                       .revision_first = meta->revision_first,
                                       .revision_last = meta->revision_last};
    atomic_init(&file->sst.top, NULL);
    open_file_init(&file->sst.file, context->files);
    *ret_file = &file->sst;
    return STATUS_OK;
}

struct change_meta change_file_meta(const struct sst *file) {
    CHECK(file->is_changes);
    return (struct change_meta){.number = file->meta.number,
                                .id = file->meta.id,
                                .size_bytes = file->meta.size_bytes,
                                .checksum = file->meta.checksum,
                                .changes = file->meta.entries,
                                .revision_first = file->meta.revision_first,
                                .revision_last = file->meta.revision_last,
                                .index = ((const struct change_file *)file)->index};
}

/* ---- Index --------------------------------------------------------------------------------------------------- */

void change_index_encode(uint8_t out[CHANGE_INDEX_ENTRY_BYTES], const struct change_index_entry *entry) {
    put_u64(out, entry->revision);
    put_u64(out + 8, entry->handle.offset);
    put_u32(out + 16, entry->ordinal);
    put_u32(out + 20, entry->handle.size);
}

enum status change_index_decode(struct slice index, size_t at, uint64_t end, struct change_index_entry *ret_entry) {
    const uint8_t *in = index.data + at * CHANGE_INDEX_ENTRY_BYTES;
    struct change_index_entry entry = {.revision = get_u64(in),
                                       .ordinal = get_u32(in + 16),
                                       .handle = {.offset = get_u64(in + 8), .size = get_u32(in + 20)}};
    if (entry.handle.size == 0 || entry.handle.size > SST_BLOCK_BYTES_MAX || entry.handle.offset < SST_HEADER_BYTES ||
        entry.handle.offset > end || (uint64_t)entry.handle.size + SST_TRAILER_BYTES > end - entry.handle.offset) {
        return STATUS_CORRUPT;
    }
    *ret_entry = entry;
    return STATUS_OK;
}

size_t change_index_find(struct slice index, uint64_t revision) {
    size_t low = 0;
    size_t high = change_index_count(index);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (get_u64(index.data + middle * CHANGE_INDEX_ENTRY_BYTES) < revision) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? 0 : low - 1;
}

/* ---- Walking ------------------------------------------------------------------------------------------------- */

static void let_go(struct cache *cache, struct cache_block **block) {
    if (*block != NULL) {
        cache_release(cache, *block);
        *block = NULL;
    }
}

static struct sst *file_of(const struct change_walk *walk) { return walk->files[walk->file]; }

static void leave_file(struct change_walk *walk) {
    struct cache *cache = file_of(walk)->context->cache;
    let_go(cache, &walk->changes);
    let_go(cache, &walk->index);
}

void change_walk_init(struct change_walk *walk, struct fetch *fetch, struct sst *const *files, size_t count,
                      uint64_t from) {
    walk->fetch = fetch;
    walk->files = files;
    walk->file_count = count;
    walk->from = from;
    walk->block = 0;
    walk->index = NULL;
    walk->changes = NULL;
    walk->last_revision = 0;
    walk->last_ordinal = 0;
    for (walk->file = 0; walk->file < count && files[walk->file]->meta.revision_last < from;) {
        walk->file++;
    }
}

void change_walk_deinit(struct change_walk *walk) {
    if (walk->file < walk->file_count) {
        leave_file(walk);
    }
}

static struct slice block_slice(const struct cache_block *block) { return slice_of(block->data, block->len); }

static enum status load_index(struct change_walk *walk, struct error *err) {
    struct sst *file = file_of(walk);
    struct sst_handle handle = change_file_meta(file).index;
    enum status status = fetch__block(walk->fetch, file, &handle, SST_BLOCK_TOP, &walk->index, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (change_index_count(block_slice(walk->index)) == 0) {
        let_go(file->context->cache, &walk->index);
        return sst__damaged(file, STATUS_CORRUPT, "the index", handle.offset, err);
    }
    walk->block = change_index_find(block_slice(walk->index), walk->from);
    return STATUS_OK;
}

static enum status index_entry(const struct change_walk *walk, size_t at, struct change_index_entry *ret_entry) {
    return change_index_decode(block_slice(walk->index), at, change_file_meta(file_of(walk)).index.offset, ret_entry);
}

/* They come side by side with the one that is waited for; what becomes of them is seen when they are needed. */
static void ask_ahead(struct change_walk *walk) {
    size_t count = change_index_count(block_slice(walk->index));
    size_t end = walk->block + 1 + BLOCKS_AHEAD < count ? walk->block + 1 + BLOCKS_AHEAD : count;
    for (size_t at = walk->block + 1; at < end; at++) {
        struct change_index_entry entry;
        struct cache_block *block = NULL;
        struct error ignored;
        if (index_entry(walk, at, &entry) == STATUS_OK &&
            fetch__block(walk->fetch, file_of(walk), &entry.handle, SST_BLOCK_CHANGES, &block, &ignored) == STATUS_OK) {
            let_go(file_of(walk)->context->cache, &block);
        }
    }
}

static enum status load_block(struct change_walk *walk, struct error *err) {
    struct sst *file = file_of(walk);
    struct change_index_entry entry;
    if (index_entry(walk, walk->block, &entry) != STATUS_OK) {
        return sst__damaged(file, STATUS_CORRUPT, "the index", change_file_meta(file).index.offset, err);
    }
    enum status status = fetch__block(walk->fetch, file, &entry.handle, SST_BLOCK_CHANGES, &walk->changes, err);
    if (status == STATUS_PENDING) {
        ask_ahead(walk);
    }
    if (status != STATUS_OK) {
        return status;
    }
    struct change_block *reader = &walk->reader;
    if (change_block_open(reader, block_slice(walk->changes)) != STATUS_OK ||
        change_compare(reader->change.revision, reader->change.ordinal, entry.revision, entry.ordinal) != 0) {
        let_go(file->context->cache, &walk->changes);
        return sst__damaged(file, STATUS_CORRUPT, "the block", entry.handle.offset, err);
    }
    return STATUS_OK;
}

/* The next one of the block; it must lie where changes of this file lie, behind all that were seen. */
static enum status next_in_block(struct change_walk *walk, struct error *err) {
    struct sst *file = file_of(walk);
    const struct change *change = &walk->reader.change;
    enum status status = change_block_next(&walk->reader);
    if (status == STATUS_NOT_FOUND) {
        return status;
    }
    if (status == STATUS_OK &&
        change_compare(change->revision, change->ordinal, walk->last_revision, walk->last_ordinal) > 0 &&
        change->revision >= file->meta.revision_first && change->revision <= file->meta.revision_last) {
        walk->last_revision = change->revision;
        walk->last_ordinal = change->ordinal;
        return STATUS_OK;
    }
    struct change_index_entry entry = {.revision = 0};
    enum status found = index_entry(walk, walk->block, &entry);
    let_go(file->context->cache, &walk->changes); /* the next call begins this block anew, to no other end */
    return sst__damaged(file, STATUS_CORRUPT, "the block", found == STATUS_OK ? entry.handle.offset : 0, err);
}

/* All blocks of a file were walked through. */
static enum status end_file(struct change_walk *walk, struct error *err) {
    struct sst *file = file_of(walk);
    if (walk->last_revision != file->meta.revision_last) {
        walk->block--; /* here again */
        return sst__damaged(file, STATUS_CORRUPT, "the index", change_file_meta(file).index.offset, err);
    }
    leave_file(walk);
    walk->file++;
    return STATUS_OK;
}

enum status change_walk_next(struct change_walk *walk, struct error *err) {
    while (walk->file < walk->file_count) {
        enum status status = STATUS_OK;
        if (walk->index == NULL) {
            status = load_index(walk, err);
        }
        if (status == STATUS_OK && walk->changes == NULL) {
            status = load_block(walk, err);
        }
        if (status != STATUS_OK) {
            return status;
        }
        status = next_in_block(walk, err);
        if (status == STATUS_OK && walk->reader.change.revision >= walk->from) {
            return STATUS_OK;
        }
        if (status == STATUS_NOT_FOUND) {
            let_go(file_of(walk)->context->cache, &walk->changes);
            if (++walk->block == change_index_count(block_slice(walk->index))) {
                status = end_file(walk, err);
                if (status != STATUS_OK) {
                    return status;
                }
            }
        } else if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_NOT_FOUND;
}
