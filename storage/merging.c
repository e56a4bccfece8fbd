/* The heap, and asking all sources at once. The contract is in merging.h. */
#include "storage/merging.h"

#include "node/base/check.h"

enum question { ASK_SEEK, ASK_SEEK_BEFORE, ASK_FIRST, ASK_LAST };

void merging_init(struct merging *merging, struct merging_source *sources, size_t count) {
    *merging = (struct merging){.heap = sources, .count = count, .forward = true};
    for (size_t i = 0; i < count; i++) {
        sources[i].rank = (uint32_t)i;
        sources[i].waiting = false;
    }
}

/* ---- The heap ------------------------------------------------------------------------------------------------ */

/* True if a comes before b in the present direction. */
static inline bool leads(const struct merging *merging, const struct merging_source *a,
                         const struct merging_source *b) {
    int order = entry_key_compare(&a->cursor->entry.key, &b->cursor->entry.key);
    return merging->forward ? order < 0 : order > 0;
}

static void sift_down(struct merging *merging, size_t at) {
    struct merging_source *heap = merging->heap;
    struct merging_source moving = heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= merging->live) {
            break;
        }
        if (child + 1 < merging->live && leads(merging, &heap[child + 1], &heap[child])) {
            child++;
        }
        if (!leads(merging, &heap[child], &moving)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static enum status build(struct merging *merging) {
    merging->second = 0;
    if (merging->live == 0) {
        return STATUS_NOT_FOUND;
    }
    for (size_t i = merging->live / 2; i-- > 0;) {
        sift_down(merging, i);
    }
    return STATUS_OK;
}

/* The top has another entry. As long as it stays in front of the second, which then stays the second, one comparison
 * tells. */
static void restore(struct merging *merging) {
    struct merging_source *heap = merging->heap;
    if (merging->live < 2) {
        return;
    }
    if (merging->second == 0) {
        merging->second = merging->live > 2 && leads(merging, &heap[2], &heap[1]) ? 2 : 1;
    }
    size_t second = merging->second;
    if (leads(merging, &heap[second], &heap[0])) {
        struct merging_source moving = heap[0];
        heap[0] = heap[second];
        heap[second] = moving;
        merging->second = 0;
        sift_down(merging, second);
    }
}

enum status merging__settle(struct merging *merging, enum status status) {
    struct merging_source *heap = merging->heap;
    switch (status) {
    case STATUS_OK: restore(merging); return STATUS_OK;
    case STATUS_PENDING: return STATUS_PENDING;
    case STATUS_NOT_FOUND: break;
    default: merging->live = 0; return status;
    }
    struct merging_source ended = heap[0];
    merging->live--;
    heap[0] = heap[merging->live];
    heap[merging->live] = ended;
    merging->second = 0;
    if (merging->live == 0) {
        return STATUS_NOT_FOUND;
    }
    sift_down(merging, 0);
    return STATUS_OK;
}

/* ---- Asking all ---------------------------------------------------------------------------------------------- */

static enum status ask_one(struct cursor *cursor, enum question question, const struct entry_key *target,
                           struct error *err) {
    switch (question) {
    case ASK_SEEK: return cursor_seek(cursor, target, err);
    case ASK_SEEK_BEFORE: return cursor_seek_before(cursor, target, err);
    case ASK_FIRST: return cursor_first(cursor, err);
    case ASK_LAST: return cursor_last(cursor, err);
    }
    CHECK(false);
    return STATUS_INVALID;
}

/* Those that have an entry gather at the front, behind the `live` that are there already. While any is pending an error
 * waits: the source that made it is asked again together with them, so that none is left with half an answer. */
static enum status ask_waiting(struct merging *merging, enum question question, const struct entry_key *target,
                               struct error *err) {
    struct merging_source *heap = merging->heap;
    enum status failure = STATUS_OK;
    bool pending = false;
    for (size_t i = merging->live; i < merging->count; i++) {
        if (!heap[i].waiting) {
            continue;
        }
        enum status status = ask_one(heap[i].cursor, question, target, err);
        if (status == STATUS_PENDING) {
            pending = true;
        } else if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
            failure = status;
        } else {
            heap[i].waiting = false;
        }
        if (status == STATUS_OK) {
            struct merging_source found = heap[i];
            heap[i] = heap[merging->live];
            heap[merging->live++] = found;
        }
    }
    return pending ? STATUS_PENDING : failure;
}

static enum status ask_all(struct merging *merging, enum question question, const struct entry_key *target,
                           struct error *err) {
    CHECK(!merging->turning);
    if (!merging->asking) {
        for (size_t i = 0; i < merging->count; i++) {
            merging->heap[i].waiting = true;
        }
        merging->live = 0;
        merging->alone = false;
        merging->forward = question == ASK_SEEK || question == ASK_FIRST;
    }
    enum status status = ask_waiting(merging, question, target, err);
    merging->asking = status == STATUS_PENDING;
    if (status == STATUS_OK) {
        return build(merging);
    }
    if (status != STATUS_PENDING) {
        merging->live = 0;
    }
    return status;
}

enum status merging_seek(struct merging *merging, const struct entry_key *target, struct error *err) {
    return ask_all(merging, ASK_SEEK, target, err);
}

enum status merging_seek_before(struct merging *merging, const struct entry_key *target, struct error *err) {
    return ask_all(merging, ASK_SEEK_BEFORE, target, err);
}

enum status merging_first(struct merging *merging, struct error *err) { return ask_all(merging, ASK_FIRST, NULL, err); }

enum status merging_last(struct merging *merging, struct error *err) { return ask_all(merging, ASK_LAST, NULL, err); }

/* ---- One first, the others later ------------------------------------------------------------------------------ */

enum status merging_seek_one(struct merging *merging, uint32_t rank, const struct entry_key *target,
                             struct error *err) {
    struct merging_source *heap = merging->heap;
    size_t at = 0;
    CHECK(!merging->asking && rank < merging->count);
    while (heap[at].rank != rank) {
        at++;
    }
    struct merging_source chosen = heap[at];
    heap[at] = heap[0];
    heap[0] = chosen;
    merging->live = 0;
    merging->second = 0;
    merging->forward = true;
    enum status status = cursor_seek(chosen.cursor, target, err);
    merging->alone = status == STATUS_OK;
    merging->live = status == STATUS_OK ? 1 : 0;
    return status;
}

enum status merging_join(struct merging *merging, const struct entry_key *target, struct error *err) {
    CHECK(merging->alone);
    if (!merging->asking) {
        for (size_t i = 1; i < merging->count; i++) {
            merging->heap[i].waiting = true;
        }
    }
    enum status status = ask_waiting(merging, ASK_SEEK, target, err);
    merging->asking = status == STATUS_PENDING;
    if (status == STATUS_PENDING) {
        return status;
    }
    merging->alone = false;
    if (status != STATUS_OK) {
        merging->live = 0;
        return status;
    }
    return build(merging);
}

/* ---- Moving one ---------------------------------------------------------------------------------------------- */

enum status merging_jump(struct merging *merging, const struct entry_key *target, struct error *err) {
    CHECK(merging->live > 0 && !merging->asking && !merging->alone);
    struct cursor *top = merging->heap[0].cursor;
    enum status status = merging->forward ? cursor_seek(top, target, err) : cursor_seek_before(top, target, err);
    return merging__settle(merging, status);
}

/* The top stays where it is until all others stand on the other side of its entry: so that entry remains the target,
 * however often this is called. */
enum status merging_turn(struct merging *merging, struct error *err) {
    CHECK(merging->turning || (merging->live > 0 && !merging->asking && !merging->alone));
    if (!merging->turning) {
        for (size_t i = 1; i < merging->count; i++) {
            merging->heap[i].waiting = true;
        }
        merging->live = 1;
        merging->forward = !merging->forward;
        merging->turning = true;
    }
    struct cursor *top = merging->heap[0].cursor;
    enum status status = ask_waiting(merging, merging->forward ? ASK_SEEK : ASK_SEEK_BEFORE, &top->entry.key, err);
    if (status == STATUS_OK) {
        status = merging->forward ? cursor_next(top, err) : cursor_prev(top, err);
    }
    merging->turning = merging->asking = status == STATUS_PENDING;
    if (status == STATUS_PENDING) {
        return status;
    }
    if (status == STATUS_NOT_FOUND) {
        struct merging_source ended = merging->heap[0];
        merging->heap[0] = merging->heap[--merging->live];
        merging->heap[merging->live] = ended;
    } else if (status != STATUS_OK) {
        merging->live = 0;
        return status;
    }
    return build(merging);
}
