/*
 * A cursor that reads ahead.
 *
 * Who walked on into the third block in a row goes on to the fourth. From there on, and from the first
 * block on if the fetch says so, data is read in windows that double in size into memory of the cursor's own. Blocks
 * that lie in the window are checked one by one when they are entered, and used where they are; only if the fetch fills
 * the cache are they copied there. One that fails its checks is fetched by itself, which reads it again before it is
 * called damaged.
 */
#include "storage/sst_cursor_internal.h"

enum {
    WINDOW_BYTES_MIN = 32 * 1024,
    WALKED_BLOCKS_MIN = 2,
    WALKED_BLOCKS_KEPT = 256 /* a longer walk goes past the cache: to copy blocks into it costs as much as to walk */
};

bool sst_window__is_wanted(const struct sst_cursor *cursor) {
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

enum status sst_window__fill(struct sst_cursor *cursor, bool resumed, struct error *err) {
    struct window *window = &cursor->window;
    if (!resumed && !place_window(cursor)) {
        return STATUS_NOT_FOUND;
    }
    enum status status =
        fetch__window(cursor->fetch, sst_cursor__table(cursor), window->offset, window->len, window->data, err);
    if (status == STATUS_OK) {
        window->sst = sst_cursor__table(cursor);
    }
    return status;
}

enum status sst_window__copy(struct sst_cursor *cursor, const struct sst_stored *stored, uint64_t offset,
                             enum sst_block_kind kind, struct cache_block **ret_block) {
    struct sst *sst = sst_cursor__table(cursor);
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

enum status sst_window__use(struct sst_cursor *cursor, struct slice *ret_body) {
    struct sst_stored stored;
    const struct sst_handle *handle = &cursor->handle;
    enum status status = sst_block_check(sst_window__slice(&cursor->window, handle), SST_BLOCK_DATA,
                                         sst_cursor__table(cursor)->meta.id, handle->offset, &stored);
    if (status != STATUS_OK) {
        return status;
    }
    if (cursor->fetch->options.fill_cache && cursor->walked < WALKED_BLOCKS_KEPT) {
        status = sst_window__copy(cursor, &stored, handle->offset, SST_BLOCK_DATA, &cursor->block);
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
