/* Decisions. The states are in iterator_internal.h. */
#include "node/base/check.h"
#include "storage/filter.h"
#include "storage/iterator_internal.h"

/* Behind all versions of a key, and in front of them. */
static struct entry_key behind(struct slice key) {
    return (struct entry_key){.user = key, .revision = 0, .ordinal = 0};
}

static struct entry_key in_front(struct slice key) { return entry_key_at(key, ENTRY_REVISION_NONE); }

/* As slice_equal; keys next to each other mostly differ in their last bytes. */
static inline bool same_key(struct slice a, struct slice b) {
    if (a.len != b.len) {
        return false;
    }
    if (a.len >= sizeof(uint64_t)) {
        uint64_t end_a;
        uint64_t end_b;
        memcpy(&end_a, a.data + a.len - sizeof end_a, sizeof end_a);
        memcpy(&end_b, b.data + b.len - sizeof end_b, sizeof end_b);
        if (end_a != end_b) {
            return false;
        }
    }
    return a.len == 0 || memcmp(a.data, b.data, a.len) == 0;
}

static inline void keep_key(struct iterator_walk *walk, struct slice key) {
    memcpy(walk->key_bytes, key.data, key.len);
    walk->key = slice_of(walk->key_bytes, key.len);
    walk->steps = 0;
}

/* ---- Moves --------------------------------------------------------------------------------------------------- */

/* Blocks of filters are missing, or the oldest source has nothing at or behind the key: all ask for theirs at once. */
static enum status seek_all(struct iterator_walk *walk, struct error *err) {
    walk->move = ITERATOR_MOVE_SEEK;
    walk->target = in_front(walk->target.user);
    return merging_seek(&walk->merging, &walk->target, err);
}

/* One source, if its filter doesn't deny. The oldest one isn't asked for that: if it doesn't have the key either, its
 * entry behind it will be needed. */
static enum status find_in(struct iterator_walk *walk, struct cursor *cursor, bool is_oldest, struct error *err) {
    enum status status = STATUS_OK;
    if (!walk->find_seeks && !is_oldest) {
        status = cursor_may_hold(cursor, &walk->target, walk->find_hash, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = merging_seek_one(&walk->merging, (uint32_t)walk->find_rank, &walk->target, err);
    walk->find_seeks = status == STATUS_PENDING;
    return status;
}

/* From the newest source on: the first that has a version of the key at or below the revision is the top, alone. */
static enum status find(struct iterator_walk *walk, struct error *err) {
    while (walk->find_rank < walk->source_count) {
        bool is_oldest = walk->find_rank + 1 == walk->source_count;
        struct cursor *cursor = walk->sources[walk->find_rank].cursor;
        enum status status = find_in(walk, cursor, is_oldest, err);
        if (status == STATUS_OK && same_key(cursor->entry.key.user, walk->target.user)) {
            return STATUS_OK;
        }
        if (status == STATUS_PENDING && !walk->find_seeks) {
            return seek_all(walk, err);
        }
        if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
            return status;
        }
        walk->find_rank++;
    }
    if (!walk->merging.alone) {
        return seek_all(walk, err);
    }
    struct entry_key target = in_front(walk->target.user);
    return merging_join(&walk->merging, &target, err); /* the oldest source stands behind the key already */
}

/* The top moves on: now the others are needed, too. */
static enum status join(struct iterator_walk *walk, struct error *err) {
    struct entry_key target = behind(walk->key);
    return merging_join(&walk->merging, &target, err);
}

static enum status make_move(struct iterator_walk *walk, struct error *err) {
    struct merging *merging = &walk->merging;
    walk->moves++;
    if (merging->alone && (walk->move == ITERATOR_MOVE_STEP || walk->move == ITERATOR_MOVE_JUMP)) {
        enum status status = join(walk, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    switch (walk->move) {
    case ITERATOR_MOVE_STEP: return merging_step(merging, err);
    case ITERATOR_MOVE_JUMP: return merging_jump(merging, &walk->target, err);
    case ITERATOR_MOVE_FIND: return find(walk, err);
    case ITERATOR_MOVE_NEWEST:
    case ITERATOR_MOVE_SEEK: return merging_seek(merging, &walk->target, err);
    case ITERATOR_MOVE_SEEK_BEFORE: return merging_seek_before(merging, &walk->target, err);
    case ITERATOR_MOVE_FIRST: return merging_first(merging, err);
    case ITERATOR_MOVE_LAST: return merging_last(merging, err);
    case ITERATOR_MOVE_NONE: break;
    }
    walk->moves--;
    return STATUS_OK;
}

static void jump_to(struct iterator_walk *walk, struct entry_key target) {
    walk->move = ITERATOR_MOVE_JUMP;
    walk->target = target;
    walk->steps = 0;
}

/* ---- Range deletes ------------------------------------------------------------------------------------------- */

static inline bool in_cover(const struct iterator_walk *walk, struct slice key) {
    const struct iterator_cover *cover = &walk->cover;
    if (!cover->known) {
        return false;
    }
    if (walk->merging.forward) {
        return cover->end.len == 0 || slice_compare(key, cover->end) < 0;
    }
    return cover->start.len == 0 || slice_compare(key, cover->start) >= 0;
}

/* Is this entry deleted by a range delete that shows? */
static enum status check_cover(struct iterator_walk *walk, const struct entry *entry, bool *ret_covered,
                               struct error *err) {
    if (!in_cover(walk, entry->key.user)) {
        enum status status = iterator_ranges__find(walk, entry->key.user, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    *ret_covered = tombstone_mark_covers(walk->cover.mark, entry->key.revision, entry->key.ordinal);
    if (!*ret_covered) {
        walk->covered_steps = 0;
    }
    return STATUS_OK;
}

/* Over a covered entry: by a step; after many of them by a seek, where the source can have nothing else in the range
 * because it is older than the one with the range delete. */
static void pass_covered(struct iterator_walk *walk) {
    const struct iterator_cover *cover = &walk->cover;
    walk->move = ITERATOR_MOVE_STEP;
    if (merging_rank(&walk->merging) <= cover->rank || walk->covered_steps++ < ITERATOR_STEPS_MAX) {
        return;
    }
    walk->covered_steps = 0;
    jump_to(walk, in_front(iterator_ranges__reach(walk))); /* a range has both ends */
}

/* ---- Forward ------------------------------------------------------------------------------------------------- */

/* Of the entry where the sources stand. STATUS_OK: it shows if walk->move is NONE, else that is the move to make.
 * STATUS_NOT_FOUND: beyond the bound. */
static inline enum status decide_forward(struct iterator_walk *walk, struct error *err) {
    const struct entry *entry = merging_entry(&walk->merging);
    struct slice user = entry->key.user;
    walk->move = ITERATOR_MOVE_NONE;
    if (!same_key(user, walk->key)) {
        if (walk->upper.len > 0 && slice_compare(user, walk->upper) >= 0) {
            return STATUS_NOT_FOUND;
        }
        keep_key(walk, user);
        walk->passed = false;
    }
    if (walk->passed || entry->key.revision > walk->revision) {
        walk->move = ITERATOR_MOVE_STEP;
        if (walk->steps++ >= ITERATOR_STEPS_MAX) {
            jump_to(walk, walk->passed ? behind(walk->key) : entry_key_at(walk->key, walk->revision));
        }
        return STATUS_OK;
    }
    bool covered = false;
    if (walk->has_ranges) {
        enum status status = check_cover(walk, entry, &covered, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    walk->passed = true;
    if (covered) {
        pass_covered(walk);
    } else if (entry->kind == BATCH_DELETE) {
        walk->move = ITERATOR_MOVE_STEP;
    } else {
        walk->shown = *entry;
    }
    return STATUS_OK;
}

static enum status walk_forward(struct iterator_walk *walk, struct error *err) {
    for (;;) {
        enum status status = make_move(walk, err);
        if (status == STATUS_OK) {
            status = decide_forward(walk, err);
        }
        if (status != STATUS_OK || walk->move == ITERATOR_MOVE_NONE) {
            return status;
        }
        if (walk->moves == walk->pause_moves) {
            return STATUS_PENDING;
        }
    }
}

/* ---- Backward ------------------------------------------------------------------------------------------------ */

/* A version that shows unless a newer one does: copied, since the sources move on before that is known. */
static enum status keep_version(struct iterator_walk *walk, const struct entry *entry, struct error *err) {
    walk->found = entry->kind != BATCH_DELETE;
    if (!walk->found) {
        return STATUS_OK;
    }
    walk->shown = *entry;
    walk->shown.key.user = walk->key;
    if (walk->keys_only) {
        walk->shown.value = SLICE_EMPTY;
        return STATUS_OK;
    }
    buf_clear(&walk->value);
    enum status status = buf_append(&walk->value, entry->value.data, entry->value.len);
    if (status != STATUS_OK) {
        return error_set(err, status, "no memory for a value of %zu bytes", entry->value.len);
    }
    walk->shown.value = buf_slice(&walk->value);
    return STATUS_OK;
}

/* After a row of old versions the sources were sent to the newest one. Tables whose order is damaged may say something
 * else: then what was found stays. */
static enum status take_newest(struct iterator_walk *walk, struct error *err) {
    const struct entry *entry = merging_entry(&walk->merging);
    enum status status = STATUS_OK;
    if (same_key(entry->key.user, walk->key) && entry->key.revision <= walk->revision) {
        bool covered = false;
        walk->cover.known = false; /* it was found walking backward */
        if (walk->has_ranges) {
            status = check_cover(walk, entry, &covered, err);
        }
        if (status == STATUS_OK && covered) {
            walk->found = false;
        } else if (status == STATUS_OK) {
            status = keep_version(walk, entry, err);
        }
    }
    if (status == STATUS_OK) {
        walk->cover.known = false;
        walk->move = ITERATOR_MOVE_SEEK_BEFORE;
        walk->target = in_front(walk->key);
    }
    return status;
}

/* As decide_forward; walk->key is the key whose versions are being passed. */
static inline enum status decide_backward(struct iterator_walk *walk, struct error *err) {
    const struct entry *entry = merging_entry(&walk->merging);
    struct slice user = entry->key.user;
    walk->move = ITERATOR_MOVE_NONE;
    if (!same_key(user, walk->key)) {
        if (walk->found) {
            return STATUS_OK;
        }
        if (walk->lower.len > 0 && slice_compare(user, walk->lower) < 0) {
            return STATUS_NOT_FOUND;
        }
        keep_key(walk, user);
    }
    if (entry->key.revision > walk->revision) {
        walk->move = ITERATOR_MOVE_STEP;
        if (walk->steps++ >= ITERATOR_STEPS_MAX) {
            jump_to(walk, in_front(walk->key));
        }
        return STATUS_OK;
    }
    bool covered = false;
    enum status status = STATUS_OK;
    if (walk->has_ranges) {
        status = check_cover(walk, entry, &covered, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (covered) { /* and so is every older version */
        walk->found = false;
        pass_covered(walk);
        return STATUS_OK;
    }
    walk->move = ITERATOR_MOVE_STEP;
    if (walk->steps++ >= ITERATOR_STEPS_MAX) {
        walk->move = ITERATOR_MOVE_NEWEST;
        walk->target = entry_key_at(walk->key, walk->revision);
        walk->steps = 0;
        return STATUS_OK;
    }
    return keep_version(walk, entry, err);
}

static enum status walk_backward(struct iterator_walk *walk, struct error *err) {
    for (;;) {
        bool newest = walk->move == ITERATOR_MOVE_NEWEST;
        enum status status = make_move(walk, err);
        if (status == STATUS_OK) {
            status = newest ? take_newest(walk, err) : decide_backward(walk, err);
        }
        if (status == STATUS_NOT_FOUND) {
            walk->ended = true;
            return walk->found ? STATUS_OK : STATUS_NOT_FOUND;
        }
        if (status != STATUS_OK || walk->move == ITERATOR_MOVE_NONE) {
            return status;
        }
        if (walk->moves == walk->pause_moves) {
            return STATUS_PENDING;
        }
    }
}

/* ---- Calls --------------------------------------------------------------------------------------------------- */

static void begin(struct iterator_walk *walk, enum iterator_move move, struct entry_key target) {
    walk->move = move;
    walk->target = target;
    walk->cover.known = false;
    walk->passed = false;
    walk->found = false;
    walk->ended = false;
}

/* To the first entry at or behind a key. */
static void begin_forward(struct iterator_walk *walk, struct slice key) {
    struct slice from = slice_compare(key, walk->lower) < 0 ? walk->lower : key;
    begin(walk, from.len == 0 ? ITERATOR_MOVE_FIRST : ITERATOR_MOVE_SEEK, in_front(from));
    walk->key = SLICE_EMPTY;
    bool is_inside = walk->upper.len == 0 || slice_compare(from, walk->upper) < 0;
    if (from.len > 0 && walk->source_count > 1 && is_inside) {
        walk->move = ITERATOR_MOVE_FIND;
        walk->target = entry_key_at(from, walk->revision);
        walk->find_hash = filter_hash(from);
        walk->find_rank = 0;
        walk->find_seeks = false;
    }
}

/* To the last entry in front of a target, or of the bound. */
static void begin_backward(struct iterator_walk *walk, struct entry_key target) {
    bool bounded = walk->upper.len > 0 && slice_compare(target.user, walk->upper) >= 0;
    begin(walk, ITERATOR_MOVE_SEEK_BEFORE, bounded ? in_front(walk->upper) : target);
    walk->key = SLICE_EMPTY;
}

static void begin_last(struct iterator_walk *walk) {
    begin(walk, walk->upper.len == 0 ? ITERATOR_MOVE_LAST : ITERATOR_MOVE_SEEK_BEFORE, in_front(walk->upper));
    walk->key = SLICE_EMPTY;
}

/* From a key that was shown walking backward: its copy is the target, and it is dealt with. */
static void turn_forward(struct iterator_walk *walk) {
    begin(walk, ITERATOR_MOVE_SEEK, behind(walk->key));
    walk->passed = true;
}

/* The sources stand in front of what shows already, unless they ended there. */
static void go_on_backward(struct iterator_walk *walk) {
    walk->move = ITERATOR_MOVE_NONE;
    walk->found = false;
}

static void begin_call(struct iterator_walk *walk, enum iterator_call call, struct slice key) {
    CHECK(walk->state != ITERATOR_NOWHERE || call < ITERATOR_NEXT);
    switch (call) {
    case ITERATOR_FIRST: begin_forward(walk, SLICE_EMPTY); break;
    case ITERATOR_SEEK: begin_forward(walk, key); break;
    case ITERATOR_LAST: begin_last(walk); break;
    case ITERATOR_SEEK_FOR_PREV: begin_backward(walk, behind(key)); break;
    case ITERATOR_NEXT:
        if (walk->state == ITERATOR_FORWARD) {
            walk->move = ITERATOR_MOVE_STEP;
        } else {
            turn_forward(walk);
        }
        break;
    case ITERATOR_PREV:
        if (walk->state == ITERATOR_BACKWARD) {
            go_on_backward(walk);
        } else {
            begin(walk, ITERATOR_MOVE_SEEK_BEFORE, in_front(walk->key));
        }
        break;
    }
}

enum status iterator_walk__call(struct iterator_walk *walk, enum iterator_call call, struct slice key,
                                struct error *err) {
    bool forward = call == ITERATOR_FIRST || call == ITERATOR_SEEK || call == ITERATOR_NEXT;
    if (!walk->pending) {
        begin_call(walk, call, key);
    }
    CHECK(!walk->pending || walk->call == call);
    walk->pause_moves = walk->moves_max == 0 ? UINT64_MAX : walk->moves + walk->moves_max;
    enum status status = STATUS_NOT_FOUND;
    if (forward) {
        status = walk_forward(walk, err);
    } else if (!walk->ended) {
        status = walk_backward(walk, err);
    }
    walk->pending = status == STATUS_PENDING;
    walk->call = call;
    walk->state = status != STATUS_OK ? ITERATOR_NOWHERE : forward ? ITERATOR_FORWARD : ITERATOR_BACKWARD;
    return status;
}
