/*
 * Several cursors as one: a binary heap of those that have an entry, smallest first. An error of any source ends the
 * whole: skipping it would turn old versions into new ones.
 */
#include "node/base/check.h"
#include "storage/cursor.h"

struct merging_cursor {
    struct cursor base;
    struct cursor **heap; /* the first `live` have an entry; heap order by entry key */
    size_t live;
    size_t count;
};

static bool smaller(const struct cursor *a, const struct cursor *b) {
    return entry_key_compare(&a->entry.key, &b->entry.key) < 0;
}

static void sift_down(struct merging_cursor *merging, size_t at) {
    struct cursor **heap = merging->heap;
    struct cursor *moving = heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= merging->live) {
            break;
        }
        if (child + 1 < merging->live && smaller(heap[child + 1], heap[child])) {
            child++;
        }
        if (!smaller(heap[child], moving)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static enum status settle(struct merging_cursor *merging) {
    if (merging->live == 0) {
        return STATUS_NOT_FOUND;
    }
    merging->base.entry = merging->heap[0]->entry;
    return STATUS_OK;
}

static enum status merging_seek(struct cursor *base, const struct entry_key *target, struct error *err) {
    struct merging_cursor *merging = (struct merging_cursor *)base;
    merging->live = 0;
    for (size_t i = 0; i < merging->count; i++) {
        struct cursor *source = merging->heap[i];
        enum status status = cursor_seek(source, target, err);
        if (status == STATUS_OK) {
            merging->heap[i] = merging->heap[merging->live];
            merging->heap[merging->live++] = source;
        } else if (status != STATUS_NOT_FOUND) {
            merging->live = 0;
            return status;
        }
    }
    for (size_t i = merging->live / 2; i-- > 0;) {
        sift_down(merging, i);
    }
    return settle(merging);
}

static enum status merging_next(struct cursor *base, struct error *err) {
    struct merging_cursor *merging = (struct merging_cursor *)base;
    CHECK(merging->live > 0);
    struct cursor *source = merging->heap[0];
    enum status status = cursor_next(source, err);
    if (status == STATUS_NOT_FOUND) {
        merging->live--;
        merging->heap[0] = merging->heap[merging->live];
        merging->heap[merging->live] = source;
    } else if (status != STATUS_OK) {
        merging->live = 0;
        return status;
    }
    if (merging->live > 0) {
        sift_down(merging, 0);
    }
    return settle(merging);
}

static void free_all(struct cursor **sources, size_t count) {
    for (size_t i = 0; i < count; i++) {
        cursor_free(sources[i]);
    }
}

static void merging_free(struct cursor *base) {
    struct merging_cursor *merging = (struct merging_cursor *)base;
    free_all(merging->heap, merging->count);
    mem_free(base->alloc, merging);
}

static const struct cursor_ops merging_ops = {.seek = merging_seek, .next = merging_next, .free = merging_free};

struct cursor *merging_cursor_new(struct alloc *alloc, struct cursor **sources, size_t count) {
    struct merging_cursor *merging = mem_alloc_zero(alloc, sizeof *merging + count * sizeof(struct cursor *));
    if (merging == NULL) {
        free_all(sources, count);
        return NULL;
    }
    merging->base = (struct cursor){.ops = &merging_ops, .alloc = alloc};
    merging->heap = (struct cursor **)(merging + 1);
    merging->count = count;
    if (count > 0) {
        memcpy(merging->heap, sources, count * sizeof(struct cursor *));
    }
    return &merging->base;
}
