/* A cursor over a memtable: never pending, never failing. */
#include "storage/cursor.h"
#include "storage/memtable.h"

struct memtable_cursor {
    struct cursor base;
    const struct memtable *memtable;
    struct memtable_place place;
};

static enum status settle(struct memtable_cursor *cursor, bool found) {
    if (!found) {
        return STATUS_NOT_FOUND;
    }
    cursor->base.entry = memtable_entry(&cursor->place);
    return STATUS_OK;
}

static enum status memtable_cursor_seek(struct cursor *base, const struct entry_key *target, struct error *err) {
    (void)err;
    struct memtable_cursor *cursor = (struct memtable_cursor *)base;
    return settle(cursor, memtable_seek(cursor->memtable, target, &cursor->place));
}

static enum status memtable_cursor_seek_before(struct cursor *base, const struct entry_key *target, struct error *err) {
    (void)err;
    struct memtable_cursor *cursor = (struct memtable_cursor *)base;
    return settle(cursor, memtable_seek_before(cursor->memtable, target, &cursor->place));
}

static enum status memtable_cursor_first(struct cursor *base, struct error *err) {
    (void)err;
    struct memtable_cursor *cursor = (struct memtable_cursor *)base;
    return settle(cursor, memtable_first(cursor->memtable, &cursor->place));
}

static enum status memtable_cursor_last(struct cursor *base, struct error *err) {
    (void)err;
    struct memtable_cursor *cursor = (struct memtable_cursor *)base;
    return settle(cursor, memtable_last(cursor->memtable, &cursor->place));
}

static enum status memtable_cursor_next(struct cursor *base, struct error *err) {
    (void)err;
    struct memtable_cursor *cursor = (struct memtable_cursor *)base;
    return settle(cursor, memtable_next(&cursor->place));
}

static enum status memtable_cursor_prev(struct cursor *base, struct error *err) {
    (void)err;
    struct memtable_cursor *cursor = (struct memtable_cursor *)base;
    return settle(cursor, memtable_prev(&cursor->place));
}

static enum status memtable_cursor_may_hold(struct cursor *base, const struct entry_key *target, uint64_t hash,
                                            struct error *err) {
    (void)err;
    (void)target;
    struct memtable_cursor *cursor = (struct memtable_cursor *)base;
    return memtable_may_hold(cursor->memtable, hash) ? STATUS_OK : STATUS_NOT_FOUND;
}

static void memtable_cursor_free(struct cursor *base) { mem_free(base->alloc, base); }

static const struct cursor_ops memtable_cursor_ops = {
    .seek = memtable_cursor_seek,
    .seek_before = memtable_cursor_seek_before,
    .first = memtable_cursor_first,
    .last = memtable_cursor_last,
    .next = memtable_cursor_next,
    .prev = memtable_cursor_prev,
    .may_hold = memtable_cursor_may_hold,
    .free = memtable_cursor_free,
};

struct cursor *memtable_cursor_new(struct alloc *alloc, const struct memtable *memtable) {
    struct memtable_cursor *cursor = mem_alloc_zero(alloc, sizeof *cursor);
    if (cursor == NULL) {
        return NULL;
    }
    cursor->base = (struct cursor){.ops = &memtable_cursor_ops, .alloc = alloc};
    cursor->memtable = memtable;
    return &cursor->base;
}
