/*
 * A cursor over a run of tables: disjoint key ranges, growing. It holds one partition and one data block.
 *
 *   TABLE (its top) -> PART (index positioned) -> BLOCK (data positioned) -> LANDED
 *     ^----- past the last partition ----^----- past the last block ---'
 *
 * Each step is taken with a landing: on the first or last entry of what it enters, or by the target. Where it finds
 * nothing, it moves one over in its direction, and from then on lands on the near edge. A step that is short of a block
 * leaves the state as it is and says STATUS_PENDING; the repeated call goes on with that step.
 *
 * Reading ahead: who walked on into the third block in a row goes on to the fourth. From there on, and from the first
 * block on if the fetch says so, data is read in windows that double in size into memory of the cursor's own. Blocks
 * that lie in the window are checked one by one when they are entered, and used where they are; only if the fetch fills
 * the cache are they copied there. One that fails its checks is fetched by itself, which reads it again before it is
 * called damaged.
 */
#include "node/base/check.h"
#include "storage/sst_internal.h"

enum {
    WINDOW_BYTES_MIN = 32 * 1024,
    WALKED_BLOCKS_MIN = 2,
    WALKED_BLOCKS_KEPT = 256 /* a longer walk goes past the cache: to copy blocks into it costs as much as to walk */
};

enum operation { OPERATION_NONE, OPERATION_SEEK, OPERATION_SEEK_BEFORE, OPERATION_EDGE, OPERATION_STEP };
enum landing { LAND_FIRST, LAND_LAST, LAND_SEEK, LAND_BEFORE };
enum step { STEP_TABLE, STEP_PART, STEP_BLOCK, STEP_LANDED };

/* Bytes of a table as they stand in the file, blocks cut off at either end. */
struct window {
    const struct sst *sst; /* NULL: empty */
    uint64_t offset;
    size_t len;
    uint8_t *data;
    size_t room;
    size_t next_len; /* of the next one */
};

struct sst_cursor {
    struct cursor base;
    struct fetch *fetch;
    struct sst *const *tables;
    size_t count;
    bool placed;              /* data is at an entry: next and prev are legal */
    bool backward;            /* direction of the operation */
    enum operation under_way; /* said STATUS_PENDING */
    enum landing landing;
    enum step step;
    size_t at;                      /* table; count: none */
    uint32_t part;                  /* of that table */
    const struct sst_top *top;      /* of that table, from STEP_PART on */
    struct sst_handle handle;       /* of the data block */
    uint32_t walked;                /* blocks entered one behind the other since the last seek */
    struct cache_block *part_block; /* held; NULL: none, or the table keeps it */
    const struct sst *part_sst;     /* where part_block is from, if there is one */
    uint64_t part_offset;
    struct cache_block *block; /* NULL: data lies in the window or in unpacked */
    struct window window;
    struct buf unpacked; /* a block of the window that was compressed */
    struct entry_key target;
    struct block_cursor index;
    struct block_cursor data;
    uint8_t target_user[LIMIT_KEY_BYTES];
};

static struct sst *table(const struct sst_cursor *cursor) { return cursor->tables[cursor->at]; }

/* ---- Windows ----------------------------------------------------------------------------------------------------- */

static bool in_window(const struct window *window, const struct sst *sst, const struct sst_handle *handle) {
    uint64_t end = handle->offset + handle->size + SST_TRAILER_BYTES;
    return window->sst == sst && handle->offset >= window->offset && end <= window->offset + window->len;
}

static struct slice window_slice(const struct window *window, const struct sst_handle *handle) {
    return slice_of(window->data + (handle->offset - window->offset), (size_t)handle->size + SST_TRAILER_BYTES);
}

static bool wants_window(const struct sst_cursor *cursor) {
    size_t max = cursor->fetch->options.readahead_bytes_max;
    return (size_t)cursor->handle.size + SST_TRAILER_BYTES <= max &&
           (cursor->fetch->options.readahead_at_once || cursor->walked >= WALKED_BLOCKS_MIN);
}

/* Chooses what the window is to cover: from (backward: up to) the block. False: there is no memory for it. */
static bool place_window(struct sst_cursor *cursor) {
    struct window *window = &cursor->window;
    struct alloc *alloc = cursor->base.alloc;
    size_t max = cursor->fetch->options.readahead_bytes_max;
    size_t block_len = (size_t)cursor->handle.size + SST_TRAILER_BYTES;
    if (window->next_len == 0) {
        window->next_len = cursor->fetch->options.readahead_at_once || max < WINDOW_BYTES_MIN ? max : WINDOW_BYTES_MIN;
    }
    size_t len = window->next_len > block_len ? window->next_len : block_len;
    uint64_t start = cursor->handle.offset;
    uint64_t end = start + block_len;
    if (cursor->backward) {
        start = end - SST_HEADER_BYTES > len ? end - len : SST_HEADER_BYTES;
    } else {
        end = cursor->top->blocks_end - start > len ? start + len : cursor->top->blocks_end;
    }
    window->sst = NULL;
    if (window->room < end - start) {
        mem_free(alloc, window->data);
        window->room = 0;
        window->data = mem_alloc(alloc, end - start);
        if (window->data == NULL) {
            return false;
        }
        window->room = end - start;
    }
    window->offset = start;
    window->len = end - start;
    window->next_len = window->next_len > max / 2 ? max : window->next_len * 2;
    return true;
}

/* Brings a window that covers the block. STATUS_NOT_FOUND: there is no memory for one. */
static enum status fill_window(struct sst_cursor *cursor, bool resumed, struct error *err) {
    struct window *window = &cursor->window;
    if (!resumed && !place_window(cursor)) {
        return STATUS_NOT_FOUND;
    }
    enum status status = fetch__window(cursor->fetch, table(cursor), window->offset, window->len, window->data, err);
    if (status == STATUS_OK) {
        window->sst = table(cursor);
    }
    return status;
}

/* A block of the window as one of the cache's, held. Any failure: fetch it by itself, which says what is wrong. */
static enum status copy_from_window(struct sst_cursor *cursor, const struct sst_stored *stored, uint64_t offset,
                                    enum sst_block_kind kind, struct cache_block **ret_block) {
    struct sst *sst = table(cursor);
    struct cache *cache = sst->context->cache;
    struct cache_key key = {.id = sst->meta.id, .offset = offset};
    struct cache_block *block = cache_block_new(cache, stored->size);
    if (block == NULL) {
        return STATUS_NO_MEMORY;
    }
    enum status status = sst_block_unpack(cursor->base.alloc, stored, block->data);
    if (status != STATUS_OK) {
        cache_release(cache, block);
        return status;
    }
    *ret_block = cache_insert(cache, &key, sst__cache_kind(kind), block, cursor->fetch->options.fill_cache);
    return STATUS_OK;
}

/* The data block out of the window. */
static enum status use_window(struct sst_cursor *cursor, struct slice *ret_body) {
    struct sst_stored stored;
    const struct sst_handle *handle = &cursor->handle;
    enum status status = sst_block_check(window_slice(&cursor->window, handle), SST_BLOCK_DATA, table(cursor)->meta.id,
                                         handle->offset, &stored);
    if (status != STATUS_OK) {
        return status;
    }
    if (cursor->fetch->options.fill_cache && cursor->walked < WALKED_BLOCKS_KEPT) {
        status = copy_from_window(cursor, &stored, handle->offset, SST_BLOCK_DATA, &cursor->block);
        if (status == STATUS_OK) {
            *ret_body = slice_of(cursor->block->data, cursor->block->len);
        }
        return status;
    }
    if (stored.compression == COMPRESSION_NONE) {
        *ret_body = stored.body;
        return STATUS_OK;
    }
    buf_clear(&cursor->unpacked);
    status = buf_reserve(&cursor->unpacked, stored.size);
    if (status == STATUS_OK) {
        status = sst_block_unpack(cursor->base.alloc, &stored, cursor->unpacked.data);
    }
    if (status == STATUS_OK) {
        cursor->unpacked.len = stored.size;
        *ret_body = buf_slice(&cursor->unpacked);
    }
    return status;
}

/* ---- Loading ----------------------------------------------------------------------------------------------------- */

static void release_block(struct sst_cursor *cursor) {
    if (cursor->block != NULL) {
        cache_release(cursor->fetch->context->cache, cursor->block);
        cursor->block = NULL;
    }
}

static enum status damaged_part(struct sst_cursor *cursor, struct error *err) {
    return sst__damaged(table(cursor), STATUS_CORRUPT, "the partition", cursor->top->parts[cursor->part].handle.offset,
                        err);
}

/* A partition that the table doesn't keep. */
static enum status load_part(struct sst_cursor *cursor, struct error *err) {
    struct sst *sst = table(cursor);
    const struct sst_handle *handle = &cursor->top->parts[cursor->part].handle;
    struct cache_block *block = NULL;
    struct sst_stored stored;
    if (cursor->part_block != NULL && cursor->part_sst == sst && cursor->part_offset == handle->offset) {
        return STATUS_OK;
    }
    enum status status = STATUS_NOT_FOUND;
    if (in_window(&cursor->window, sst, handle) &&
        sst_block_check(window_slice(&cursor->window, handle), SST_BLOCK_PARTITION, sst->meta.id, handle->offset,
                        &stored) == STATUS_OK) {
        status = copy_from_window(cursor, &stored, handle->offset, SST_BLOCK_PARTITION, &block);
    }
    if (status != STATUS_OK) {
        status = fetch__block(cursor->fetch, sst, handle, SST_BLOCK_PARTITION, &block, err);
    }
    if (status == STATUS_OK) {
        cache_release(sst->context->cache, cursor->part_block);
        cursor->part_block = block;
        cursor->part_sst = sst;
        cursor->part_offset = handle->offset;
    }
    return status;
}

/* The partition's index. A kept one stays as long as the table, so it isn't held. */
static enum status load_index(struct sst_cursor *cursor, struct slice *ret_index, struct error *err) {
    const struct sst_kept *kept = &cursor->top->kept[cursor->part];
    struct sst_partition partition;
    if (sst__kept(cursor->top, cursor->part) != NULL) {
        *ret_index = sst__kept_index(kept);
        return STATUS_OK;
    }
    enum status status = load_part(cursor, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct cache_block *block = cursor->part_block;
    if (sst_partition_open(slice_of(block->data, block->len), &partition) != STATUS_OK) {
        return damaged_part(cursor, err);
    }
    sst__keep(table(cursor), cursor->top, cursor->part, block, &partition);
    *ret_index = partition.index;
    return STATUS_OK;
}

static enum status load_block(struct sst_cursor *cursor, struct slice *ret_body, struct error *err) {
    struct sst *sst = table(cursor);
    struct window *window = &cursor->window;
    struct cache_key key = {.id = sst->meta.id, .offset = cursor->handle.offset};
    bool resumed = cursor->under_way != OPERATION_NONE && window->sst == NULL && window->len > 0;
    release_block(cursor);
    if (!resumed && !in_window(window, sst, &cursor->handle)) {
        cursor->block = cache_lookup(sst->context->cache, &key, CACHE_DATA);
        if (cursor->block != NULL) {
            *ret_body = slice_of(cursor->block->data, cursor->block->len);
            return STATUS_OK;
        }
    }
    if (resumed || (!in_window(window, sst, &cursor->handle) && wants_window(cursor))) {
        enum status status = fill_window(cursor, resumed, err);
        if (status != STATUS_PENDING && status != STATUS_OK) {
            window->len = 0;
        }
        if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
            return status;
        }
    }
    if (in_window(window, sst, &cursor->handle) && use_window(cursor, ret_body) == STATUS_OK) {
        return STATUS_OK;
    }
    enum status status = fetch__missing(cursor->fetch, sst, &cursor->handle, SST_BLOCK_DATA, &cursor->block, err);
    if (status == STATUS_OK) {
        CHECK(cursor->block != NULL);
        *ret_body = slice_of(cursor->block->data, cursor->block->len);
    }
    return status;
}

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

static void move_table(struct sst_cursor *cursor) {
    if (cursor->backward) {
        cursor->at = cursor->at == 0 ? cursor->count : cursor->at - 1;
    } else {
        cursor->at++;
    }
    cursor->landing = cursor->backward ? LAND_LAST : LAND_FIRST;
    cursor->step = STEP_TABLE;
}

static void move_part(struct sst_cursor *cursor) {
    bool edge = cursor->backward ? cursor->part == 0 : cursor->part + 1 == cursor->top->part_count;
    if (edge) {
        move_table(cursor);
        return;
    }
    cursor->part = cursor->backward ? cursor->part - 1 : cursor->part + 1;
    cursor->landing = cursor->backward ? LAND_LAST : LAND_FIRST;
    cursor->step = STEP_PART;
}

static enum status move_block(struct sst_cursor *cursor, struct error *err) {
    enum status status = cursor->backward ? block_cursor_prev(&cursor->index) : block_cursor_next(&cursor->index);
    cursor->walked++;
    if (status == STATUS_NOT_FOUND) {
        move_part(cursor);
        return STATUS_OK;
    }
    if (status != STATUS_OK) {
        return damaged_part(cursor, err);
    }
    cursor->landing = cursor->backward ? LAND_LAST : LAND_FIRST;
    cursor->step = STEP_BLOCK;
    return STATUS_OK;
}

static enum status enter_table(struct sst_cursor *cursor, struct error *err) {
    if (cursor->at == cursor->count) {
        return STATUS_NOT_FOUND;
    }
    enum status status = fetch__top(cursor->fetch, table(cursor), &cursor->top, err);
    if (status != STATUS_OK) {
        return status;
    }
    uint32_t count = cursor->top->part_count;
    uint32_t part = 0;
    if (cursor->landing == LAND_SEEK || cursor->landing == LAND_BEFORE) {
        part = sst__find_part(cursor->top, &cursor->target);
    }
    /* All separators are in front of the target: what is in front of it ends with the last partition. */
    if (count > 0 && (cursor->landing == LAND_LAST || (cursor->landing == LAND_BEFORE && part == count))) {
        part = count - 1;
    }
    if (part >= count) {
        move_table(cursor);
        return STATUS_OK;
    }
    cursor->part = part;
    cursor->step = STEP_PART;
    return STATUS_OK;
}

/* The index entry of the first block that isn't wholly in front of the target, or the edge. */
static enum status position_index(struct sst_cursor *cursor, struct slice body) {
    struct block_cursor *index = &cursor->index;
    enum status status = block_cursor_open(index, body);
    if (status != STATUS_OK) {
        return status;
    }
    switch (cursor->landing) {
    case LAND_FIRST: return block_cursor_first(index);
    case LAND_LAST: return block_cursor_last(index);
    case LAND_SEEK:
    case LAND_BEFORE:
        status = block_cursor_seek(index, &cursor->target);
        return status == STATUS_NOT_FOUND && cursor->landing == LAND_BEFORE ? block_cursor_last(index) : status;
    }
    CHECK(false);
    return STATUS_FAILED;
}

static enum status enter_part(struct sst_cursor *cursor, struct error *err) {
    struct slice index = SLICE_EMPTY;
    enum status status = load_index(cursor, &index, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = position_index(cursor, index);
    if (status == STATUS_NOT_FOUND) {
        move_part(cursor);
        return STATUS_OK;
    }
    if (status != STATUS_OK) {
        return damaged_part(cursor, err);
    }
    cursor->step = STEP_BLOCK;
    return STATUS_OK;
}

static enum status position_data(struct sst_cursor *cursor, struct slice body) {
    struct block_cursor *data = &cursor->data;
    enum status status = block_cursor_open(data, body);
    if (status != STATUS_OK) {
        return status;
    }
    switch (cursor->landing) {
    case LAND_FIRST: return block_cursor_first(data);
    case LAND_LAST: return block_cursor_last(data);
    case LAND_SEEK: return block_cursor_seek(data, &cursor->target);
    case LAND_BEFORE: return block_cursor_seek_before(data, &cursor->target);
    }
    CHECK(false);
    return STATUS_FAILED;
}

static enum status enter_block(struct sst_cursor *cursor, struct error *err) {
    struct slice body = SLICE_EMPTY;
    uint64_t start = sst__part_start(cursor->top, cursor->part);
    uint64_t end = cursor->top->parts[cursor->part].handle.offset;
    if (sst_handle_decode(cursor->index.entry.value, start, end, &cursor->handle) != STATUS_OK) {
        return damaged_part(cursor, err);
    }
    enum status status = load_block(cursor, &body, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = position_data(cursor, body);
    if (status == STATUS_NOT_FOUND) {
        return move_block(cursor, err);
    }
    if (status != STATUS_OK) {
        return sst__damaged(table(cursor), status, "the block", cursor->handle.offset, err);
    }
    cursor->step = STEP_LANDED;
    return STATUS_OK;
}

/* Takes steps until it has landed, or can't go on. */
static enum status go_on(struct sst_cursor *cursor, enum operation operation, struct error *err) {
    static enum status (*const enter[])(struct sst_cursor *, struct error *) = {enter_table, enter_part, enter_block};
    enum status status = STATUS_OK;
    while (status == STATUS_OK && cursor->step != STEP_LANDED) {
        status = enter[cursor->step](cursor, err);
        cursor->under_way = OPERATION_NONE;
    }
    if (status == STATUS_PENDING) {
        cursor->under_way = operation;
        return status;
    }
    cursor->placed = status == STATUS_OK;
    if (status == STATUS_OK) {
        cursor->base.entry = cursor->data.entry;
    } else {
        release_block(cursor);
    }
    return status;
}

/* ---- Operations -------------------------------------------------------------------------------------------------- */

/* Gives up what was under way, if anything, for an operation that needs no position. */
static void begin(struct sst_cursor *cursor, bool backward, enum landing landing) {
    if (cursor->under_way != OPERATION_NONE) {
        CHECK(!fetch_is_busy(cursor->fetch));
        fetch__forget_window(cursor->fetch, cursor->window.data);
        cursor->under_way = OPERATION_NONE;
        if (cursor->window.sst == NULL) {
            cursor->window.len = 0;
        }
    }
    cursor->placed = false;
    cursor->backward = backward;
    cursor->landing = landing;
    cursor->step = STEP_TABLE;
    cursor->walked = 0;
    cursor->window.next_len = 0;
}

/* The first table that doesn't end in front of the key. One whose largest key is excluded ends in front of that: the
 * next one may begin with it. */
static size_t find_table(const struct sst_cursor *cursor, struct slice key) {
    size_t low = 0;
    size_t high = cursor->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct sst_meta *meta = &cursor->tables[middle]->meta;
        int order = slice_compare(meta->largest, key);
        if (order < 0 || (order == 0 && meta->largest_excluded)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool is_resumed(const struct sst_cursor *cursor, enum operation operation, const struct entry_key *target) {
    return cursor->under_way == operation && entry_key_compare(&cursor->target, target) == 0;
}

/* The target may be the cursor's own key, and lie in a block that is let go. */
static void copy_target(struct sst_cursor *cursor, const struct entry_key *target) {
    CHECK(target->user.len <= LIMIT_KEY_BYTES);
    memmove(cursor->target_user, target->user.data, target->user.len);
    cursor->target = *target;
    cursor->target.user = slice_of(cursor->target_user, target->user.len);
}

/* Ahead in the block where the cursor stands: what is behind its entry there is in front of all other blocks' entries.
 * False: elsewhere. */
static bool seek_in_block(struct sst_cursor *cursor) {
    if (!cursor->placed || entry_key_compare(&cursor->base.entry.key, &cursor->target) >= 0 ||
        entry_key_compare(&cursor->target, &cursor->index.entry.key) > 0 ||
        block_cursor_seek(&cursor->data, &cursor->target) != STATUS_OK) {
        return false;
    }
    cursor->base.entry = cursor->data.entry;
    if (cursor->backward) {
        cursor->backward = false;
        cursor->walked = 0;
        cursor->window.next_len = 0;
    }
    return true;
}

static enum status sst_cursor_seek(struct cursor *base, const struct entry_key *target, struct error *err) {
    struct sst_cursor *cursor = (struct sst_cursor *)base;
    if (!is_resumed(cursor, OPERATION_SEEK, target)) {
        copy_target(cursor, target);
        if (seek_in_block(cursor)) {
            return STATUS_OK;
        }
        begin(cursor, false, LAND_SEEK);
        cursor->at = find_table(cursor, cursor->target.user);
    }
    return go_on(cursor, OPERATION_SEEK, err);
}

static enum status sst_cursor_seek_before(struct cursor *base, const struct entry_key *target, struct error *err) {
    struct sst_cursor *cursor = (struct sst_cursor *)base;
    if (!is_resumed(cursor, OPERATION_SEEK_BEFORE, target)) {
        copy_target(cursor, target);
        begin(cursor, true, LAND_BEFORE);
        cursor->at = find_table(cursor, cursor->target.user);
        if (cursor->at == cursor->count && cursor->count > 0) {
            cursor->at--;
        }
    }
    return go_on(cursor, OPERATION_SEEK_BEFORE, err);
}

static enum status sst_cursor_first(struct cursor *base, struct error *err) {
    struct sst_cursor *cursor = (struct sst_cursor *)base;
    if (cursor->under_way != OPERATION_EDGE || cursor->backward) {
        begin(cursor, false, LAND_FIRST);
        cursor->at = 0;
    }
    return go_on(cursor, OPERATION_EDGE, err);
}

static enum status sst_cursor_last(struct cursor *base, struct error *err) {
    struct sst_cursor *cursor = (struct sst_cursor *)base;
    if (cursor->under_way != OPERATION_EDGE || !cursor->backward) {
        begin(cursor, true, LAND_LAST);
        cursor->at = cursor->count == 0 ? 0 : cursor->count - 1;
    }
    return go_on(cursor, OPERATION_EDGE, err);
}

/* Out of the block, or on with that. */
static enum status leave_block(struct sst_cursor *cursor, bool backward, enum status status, struct error *err) {
    if (cursor->under_way == OPERATION_NONE) {
        cursor->placed = false;
        if (status != STATUS_NOT_FOUND) {
            return sst__damaged(table(cursor), status, "the block", cursor->handle.offset, err);
        }
        if (cursor->backward != backward) {
            cursor->backward = backward;
            cursor->walked = 0;
            cursor->window.next_len = 0;
        }
        status = move_block(cursor, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    CHECK(cursor->backward == backward);
    return go_on(cursor, OPERATION_STEP, err);
}

static enum status sst_cursor_next(struct cursor *base, struct error *err) {
    struct sst_cursor *cursor = (struct sst_cursor *)base;
    enum status status = STATUS_PENDING;
    if (__builtin_expect(cursor->placed, 1)) {
        status = block_cursor_next(&cursor->data);
        if (__builtin_expect(status == STATUS_OK, 1)) {
            base->entry = cursor->data.entry;
            return STATUS_OK;
        }
    } else {
        CHECK(cursor->under_way == OPERATION_STEP);
    }
    return leave_block(cursor, false, status, err);
}

static enum status sst_cursor_prev(struct cursor *base, struct error *err) {
    struct sst_cursor *cursor = (struct sst_cursor *)base;
    enum status status = STATUS_PENDING;
    if (__builtin_expect(cursor->placed, 1)) {
        status = block_cursor_prev(&cursor->data);
        if (__builtin_expect(status == STATUS_OK, 1)) {
            base->entry = cursor->data.entry;
            return STATUS_OK;
        }
    } else {
        CHECK(cursor->under_way == OPERATION_STEP);
    }
    return leave_block(cursor, true, status, err);
}

static enum status sst_cursor_may_hold(struct cursor *base, const struct entry_key *target, uint64_t hash,
                                       struct error *err) {
    const struct sst_cursor *cursor = (const struct sst_cursor *)base;
    size_t at = find_table(cursor, target->user);
    return at == cursor->count ? STATUS_NOT_FOUND
                               : sst__ask_filter(cursor->tables[at], cursor->fetch, target, hash, err);
}

static void sst_cursor_free(struct cursor *base) {
    struct sst_cursor *cursor = (struct sst_cursor *)base;
    CHECK(cursor->under_way == OPERATION_NONE || !fetch_is_busy(cursor->fetch));
    if (cursor->window.data != NULL) {
        fetch__forget_window(cursor->fetch, cursor->window.data);
    }
    release_block(cursor);
    cache_release(cursor->fetch->context->cache, cursor->part_block);
    buf_deinit(&cursor->unpacked);
    mem_free(base->alloc, cursor->window.data);
    mem_free(base->alloc, cursor);
}

static const struct cursor_ops sst_cursor_ops = {.seek = sst_cursor_seek,
                                                 .seek_before = sst_cursor_seek_before,
                                                 .first = sst_cursor_first,
                                                 .last = sst_cursor_last,
                                                 .next = sst_cursor_next,
                                                 .prev = sst_cursor_prev,
                                                 .may_hold = sst_cursor_may_hold,
                                                 .free = sst_cursor_free};

struct cursor *sst_cursor_new(struct alloc *alloc, struct fetch *fetch, struct sst *const *tables, size_t count) {
    struct sst_cursor *cursor = mem_alloc_zero(alloc, sizeof *cursor);
    CHECK(fetch->options.readahead_bytes_max <= FETCH_READAHEAD_BYTES_MAX);
    if (cursor == NULL) {
        return NULL;
    }
    cursor->base = (struct cursor){.ops = &sst_cursor_ops, .alloc = alloc};
    cursor->fetch = fetch;
    cursor->tables = tables;
    cursor->count = count;
    cursor->step = STEP_LANDED;
    buf_init(&cursor->unpacked, alloc, 0);
    return &cursor->base;
}
