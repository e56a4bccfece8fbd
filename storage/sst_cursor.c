/*
 * A cursor over a run of tables: disjoint key ranges, growing. One index cursor, one data block in memory.
 *
 *   table -> index entry -> data block -> entry      and back up a step whenever one of them is used up
 */
#include "node/base/check.h"
#include "storage/sst_internal.h"

struct sst_cursor {
    struct cursor base;
    struct sst *const *tables;
    size_t count;
    size_t at; /* table that index and data belong to */
    struct block_cursor index;
    struct block_cursor data;
    struct buf block;
    uint64_t block_offset;
};

/* Reads the block of the index's current entry. */
static enum status load_block(struct sst_cursor *cursor, struct error *err) {
    struct entry index_entry = cursor->index.entry;
    return sst__read_data(cursor->tables[cursor->at], &index_entry, &cursor->block, &cursor->data,
                          &cursor->block_offset, err);
}

/* Positions on the first entry of table `at`, or says NOT_FOUND behind the last table. */
static enum status enter_table(struct sst_cursor *cursor, size_t at, struct error *err) {
    cursor->at = at;
    if (at == cursor->count) {
        return STATUS_NOT_FOUND;
    }
    enum status status = block_cursor_open(&cursor->index, cursor->tables[at]->index_body);
    if (status == STATUS_OK) {
        status = block_cursor_first(&cursor->index);
    }
    if (status != STATUS_OK) {
        return sst__damaged_index(cursor->tables[at], err);
    }
    status = load_block(cursor, err);
    if (status != STATUS_OK) {
        return status;
    }
    return block_cursor_first(&cursor->data) == STATUS_OK
               ? STATUS_OK
               : sst__damaged_block(cursor->tables[at], cursor->block_offset, err);
}

/* To the first entry of the next block, in this table or the next. */
static enum status next_block(struct sst_cursor *cursor, struct error *err) {
    enum status status = block_cursor_next(&cursor->index);
    if (status == STATUS_NOT_FOUND) {
        return enter_table(cursor, cursor->at + 1, err);
    }
    if (status != STATUS_OK) {
        return sst__damaged_index(cursor->tables[cursor->at], err);
    }
    status = load_block(cursor, err);
    if (status != STATUS_OK) {
        return status;
    }
    return block_cursor_first(&cursor->data) == STATUS_OK
               ? STATUS_OK
               : sst__damaged_block(cursor->tables[cursor->at], cursor->block_offset, err);
}

static enum status settle(struct sst_cursor *cursor, enum status status) {
    if (status == STATUS_OK) {
        cursor->base.entry = cursor->data.entry;
    }
    return status;
}

/* The first table that doesn't end in front of the key. */
static size_t find_table(const struct sst_cursor *cursor, struct slice key) {
    size_t low = 0;
    size_t high = cursor->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (slice_compare(cursor->tables[middle]->meta.largest, key) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static enum status seek_in_table(struct sst_cursor *cursor, const struct entry_key *target, struct error *err) {
    const struct sst *sst = cursor->tables[cursor->at];
    enum status status = block_cursor_open(&cursor->index, sst->index_body);
    if (status == STATUS_OK) {
        status = block_cursor_seek(&cursor->index, target);
    }
    if (status == STATUS_NOT_FOUND) {
        return enter_table(cursor, cursor->at + 1, err);
    }
    if (status != STATUS_OK) {
        return sst__damaged_index(sst, err);
    }
    status = load_block(cursor, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = block_cursor_seek(&cursor->data, target);
    if (status == STATUS_NOT_FOUND) {
        return next_block(cursor, err);
    }
    return status == STATUS_OK ? STATUS_OK : sst__damaged_block(sst, cursor->block_offset, err);
}

static enum status sst_cursor_seek(struct cursor *base, const struct entry_key *target, struct error *err) {
    struct sst_cursor *cursor = (struct sst_cursor *)base;
    cursor->at = find_table(cursor, target->user);
    if (cursor->at == cursor->count) {
        return STATUS_NOT_FOUND;
    }
    return settle(cursor, seek_in_table(cursor, target, err));
}

static enum status sst_cursor_next(struct cursor *base, struct error *err) {
    struct sst_cursor *cursor = (struct sst_cursor *)base;
    CHECK(cursor->at < cursor->count);
    enum status status = block_cursor_next(&cursor->data);
    if (status == STATUS_NOT_FOUND) {
        status = next_block(cursor, err);
    } else if (status != STATUS_OK) {
        status = sst__damaged_block(cursor->tables[cursor->at], cursor->block_offset, err);
    }
    return settle(cursor, status);
}

static void sst_cursor_free(struct cursor *base) {
    struct sst_cursor *cursor = (struct sst_cursor *)base;
    buf_deinit(&cursor->block);
    mem_free(base->alloc, cursor);
}

static const struct cursor_ops sst_cursor_ops = {.seek = sst_cursor_seek,
                                                 .next = sst_cursor_next,
                                                 .free = sst_cursor_free};

struct cursor *sst_cursor_new(struct alloc *alloc, struct sst *const *tables, size_t count) {
    struct sst_cursor *cursor = mem_alloc_zero(alloc, sizeof *cursor);
    if (cursor == NULL) {
        return NULL;
    }
    cursor->base = (struct cursor){.ops = &sst_cursor_ops, .alloc = alloc};
    cursor->tables = tables;
    cursor->count = count;
    buf_init(&cursor->block, alloc, 0);
    return &cursor->base;
}
