/* A cursor over several cursors, which it owns: merging.h does the work. */
#include "node/base/check.h"
#include "storage/merging.h"

struct merging_cursor {
    struct cursor base;
    struct merging merging;
    struct merging_source sources[];
};

static struct merging *merging_of(struct cursor *base) { return &((struct merging_cursor *)base)->merging; }

static enum status show(struct cursor *base, enum status status) {
    if (status == STATUS_OK) {
        base->entry = *merging_entry(merging_of(base));
    }
    return status;
}

static enum status seek(struct cursor *base, const struct entry_key *target, struct error *err) {
    return show(base, merging_seek(merging_of(base), target, err));
}

static enum status seek_before(struct cursor *base, const struct entry_key *target, struct error *err) {
    return show(base, merging_seek_before(merging_of(base), target, err));
}

static enum status first(struct cursor *base, struct error *err) {
    return show(base, merging_first(merging_of(base), err));
}

static enum status last(struct cursor *base, struct error *err) {
    return show(base, merging_last(merging_of(base), err));
}

/* A turn that is pending has the new direction already. */
static enum status move(struct cursor *base, bool forward, struct error *err) {
    struct merging *merging = merging_of(base);
    CHECK(merging->live > 0);
    bool steps = merging->forward == forward && !merging->turning;
    return show(base, steps ? merging_step(merging, err) : merging_turn(merging, err));
}

static enum status next(struct cursor *base, struct error *err) { return move(base, true, err); }

static enum status prev(struct cursor *base, struct error *err) { return move(base, false, err); }

static void free_cursor(struct cursor *base) {
    struct merging *merging = merging_of(base);
    for (size_t i = 0; i < merging->count; i++) {
        cursor_free(merging->heap[i].cursor);
    }
    mem_free(base->alloc, base);
}

static const struct cursor_ops merging_ops = {
    .seek = seek,
    .seek_before = seek_before,
    .first = first,
    .last = last,
    .next = next,
    .prev = prev,
    .free = free_cursor,
};

struct cursor *merging_cursor_new(struct alloc *alloc, struct cursor **sources, size_t count) {
    struct merging_cursor *merging = mem_alloc(alloc, sizeof *merging + count * sizeof merging->sources[0]);
    if (merging == NULL) {
        for (size_t i = 0; i < count; i++) {
            cursor_free(sources[i]);
        }
        return NULL;
    }
    merging->base = (struct cursor){.ops = &merging_ops, .alloc = alloc};
    for (size_t i = 0; i < count; i++) {
        merging->sources[i].cursor = sources[i];
    }
    merging_init(&merging->merging, merging->sources, count);
    return &merging->base;
}
