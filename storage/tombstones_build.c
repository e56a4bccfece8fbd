/*
 * The two makers of sets of range deletes: from a list, by sorting the ends of all ranges and sweeping over them; and
 * from sets, by walking them side by side.
 */
#include "node/base/check.h"
#include "storage/tombstones_internal.h"

static bool mark_is_newer(struct tombstone_mark a, struct tombstone_mark b) {
    return entry_compare_age(a.revision, a.ordinal, b.revision, b.ordinal) < 0;
}

/* How many of the marks, newest first, are newer than this one. */
static size_t marks_newer(const struct tombstone_mark *marks, size_t count, struct tombstone_mark mark) {
    size_t from = 0;
    size_t to = count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (mark_is_newer(marks[middle], mark)) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

/* ---- From a list --------------------------------------------------------------------------------------------- */

/* Where a range begins or ends. */
struct edge {
    struct slice key;
    struct tombstone_mark mark;
    bool is_end;
};

static void sift_down(struct edge *edges, size_t count, size_t at) {
    struct edge edge = edges[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) {
            break;
        }
        if (child + 1 < count && slice_compare(edges[child].key, edges[child + 1].key) < 0) {
            child++;
        }
        if (slice_compare(edge.key, edges[child].key) >= 0) {
            break;
        }
        edges[at] = edges[child];
        at = child;
    }
    edges[at] = edge;
}

/* Heapsort by key (Williams, 1964): in place, and never quadratic, as the keys are anybody's. */
static void sort_edges(struct edge *edges, size_t count) {
    for (size_t at = count / 2; at > 0; at--) {
        sift_down(edges, count, at - 1);
    }
    for (size_t left = count; left > 1; left--) {
        struct edge largest = edges[0];
        edges[0] = edges[left - 1];
        edges[left - 1] = largest;
        sift_down(edges, left - 1, 0);
    }
}

/* One edge of the sweep: the marks that cover what is behind it. */
static size_t pass_edge(struct tombstone_mark *active, size_t count, const struct edge *edge) {
    size_t at = marks_newer(active, count, edge->mark);
    if (edge->is_end) {
        CHECK(at < count);
        memmove(&active[at], &active[at + 1], (count - at - 1) * sizeof *active);
        return count - 1;
    }
    memmove(&active[at + 1], &active[at], (count - at) * sizeof *active);
    active[at] = edge->mark;
    return count + 1;
}

/* All pieces from left to right. `active` has room for as many marks as cover one place. */
static void sweep(struct tombstones_writer *writer, const struct edge *edges, size_t count,
                  struct tombstone_mark *active) {
    size_t active_count = 0;
    for (size_t i = 0; i < count;) {
        struct slice key = edges[i].key;
        /* In any order: what ends here began in front of it. */
        for (; i < count && slice_equal(edges[i].key, key); i++) {
            active_count = pass_edge(active, active_count, &edges[i]);
        }
        if (active_count > 0) {
            CHECK(i < count);
            tombstones__write(writer, key, edges[i].key, active, active_count);
        }
    }
    CHECK(active_count == 0);
}

static enum status build_one(struct alloc *alloc, const struct tombstone *one, struct tombstones **ret_set) {
    struct tombstones_writer writer;
    struct tombstone_mark mark = {one->revision, one->ordinal};
    enum status status = tombstones__writer_init(&writer, alloc, 1, 0, false);
    if (status != STATUS_OK) {
        return status;
    }
    tombstones__write(&writer, one->start, one->end, &mark, 1);
    status = tombstones__writer_allocate(&writer);
    if (status == STATUS_OK) {
        tombstones__write(&writer, one->start, one->end, &mark, 1);
        *ret_set = tombstones__writer_finish(&writer);
    }
    tombstones__writer_deinit(&writer);
    return status;
}

enum status tombstones_build(struct alloc *alloc, const struct tombstone *list, size_t count,
                             struct tombstones **ret_set) {
    for (size_t i = 0; i < count; i++) {
        CHECK(slice_compare(list[i].start, list[i].end) < 0 && list[i].revision > 0);
    }
    if (count == 1) {
        return build_one(alloc, list, ret_set);
    }
    struct tombstones_writer writer;
    struct tombstone_mark *active = NULL;
    struct edge *edges = NULL;
    enum status status = tombstones__writer_init(&writer, alloc, count, 0, false);
    if (status != STATUS_OK) {
        return status;
    }
    if (count > 0) {
        active = mem_alloc(alloc, count * sizeof *active);
        edges = mem_alloc(alloc, 2 * count * sizeof *edges);
        if (active == NULL || edges == NULL) {
            status = STATUS_NO_MEMORY;
            goto out;
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct tombstone_mark mark = {list[i].revision, list[i].ordinal};
        edges[2 * i] = (struct edge){list[i].start, mark, false};
        edges[2 * i + 1] = (struct edge){list[i].end, mark, true};
    }
    sort_edges(edges, 2 * count);
    sweep(&writer, edges, 2 * count, active);
    status = tombstones__writer_allocate(&writer);
    if (status == STATUS_OK) {
        sweep(&writer, edges, 2 * count, active);
        *ret_set = tombstones__writer_finish(&writer);
    }
out:
    mem_free(alloc, edges);
    mem_free(alloc, active);
    tombstones__writer_deinit(&writer);
    return status;
}

/* ---- From sets ------------------------------------------------------------------------------------------------- */

/* Where the walk is in one set: what is left of its current fragment. */
struct lane {
    const struct tombstones *set;
    size_t at;
    size_t count;
    struct tombstone_fragment fragment;
};

struct merge {
    struct tombstones_writer writer;
    struct alloc *alloc;
    struct lane *lanes;
    size_t lane_count;
    struct tombstone_mark *active; /* all marks of one piece */
};

static void lane_enter(struct lane *lane, size_t at) {
    lane->at = at;
    if (at < lane->count) {
        lane->fragment = tombstones_fragment(lane->set, at);
    }
}

/* Adds marks to others, all newest first. */
static size_t add_marks(struct tombstone_mark *marks, size_t count, const struct tombstone_mark *more,
                        size_t more_count) {
    size_t total = count + more_count;
    for (size_t to = total; more_count > 0; to--) {
        if (count > 0 && mark_is_newer(more[more_count - 1], marks[count - 1])) {
            marks[to - 1] = marks[--count];
        } else {
            marks[to - 1] = more[--more_count];
        }
    }
    return total;
}

/* The next piece: from the first key that any set covers to the next place where a fragment begins or ends. False if
 * there is none. */
static bool next_piece(const struct merge *merge, struct slice *ret_start, struct slice *ret_end) {
    bool found = false;
    for (size_t i = 0; i < merge->lane_count; i++) {
        const struct lane *lane = &merge->lanes[i];
        if (lane->at < lane->count && (!found || slice_compare(lane->fragment.start, *ret_start) < 0)) {
            *ret_start = lane->fragment.start;
            found = true;
        }
    }
    bool bounded = false;
    for (size_t i = 0; i < merge->lane_count; i++) {
        const struct lane *lane = &merge->lanes[i];
        if (lane->at < lane->count) {
            bool begun = slice_equal(lane->fragment.start, *ret_start);
            struct slice bound = begun ? lane->fragment.end : lane->fragment.start;
            if (!bounded || slice_compare(bound, *ret_end) < 0) {
                *ret_end = bound;
                bounded = true;
            }
        }
    }
    return found;
}

static void walk(struct merge *merge) {
    struct slice start = SLICE_EMPTY;
    struct slice end = SLICE_EMPTY;
    for (size_t i = 0; i < merge->lane_count; i++) {
        lane_enter(&merge->lanes[i], 0);
    }
    while (next_piece(merge, &start, &end)) {
        size_t active_count = 0;
        for (size_t i = 0; i < merge->lane_count; i++) {
            struct lane *lane = &merge->lanes[i];
            if (lane->at == lane->count || !slice_equal(lane->fragment.start, start)) {
                continue;
            }
            active_count = add_marks(merge->active, active_count, lane->fragment.marks, lane->fragment.mark_count);
            if (slice_equal(lane->fragment.end, end)) {
                lane_enter(lane, lane->at + 1);
            } else {
                lane->fragment.start = end;
            }
        }
        tombstones__write(&merge->writer, start, end, merge->active, active_count);
    }
}

static void merge_deinit(struct merge *merge) {
    mem_free(merge->alloc, merge->lanes);
    mem_free(merge->alloc, merge->active);
    tombstones__writer_deinit(&merge->writer);
}

static enum status merge_init(struct merge *merge, struct alloc *alloc, const struct tombstones *const *sets,
                              size_t count, uint64_t horizon, bool drop_settled) {
    *merge = (struct merge){.alloc = alloc, .lane_count = count};
    size_t marks_max = 1;
    for (size_t i = 0; i < count; i++) {
        marks_max += tombstones__marks_max(sets[i]);
    }
    enum status status = tombstones__writer_init(&merge->writer, alloc, marks_max, horizon, drop_settled);
    if (status != STATUS_OK) {
        return status;
    }
    merge->active = mem_alloc(alloc, marks_max * sizeof *merge->active);
    merge->lanes = mem_alloc(alloc, (count + 1) * sizeof *merge->lanes);
    if (merge->active == NULL || merge->lanes == NULL) {
        merge_deinit(merge);
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        merge->lanes[i] = (struct lane){.set = sets[i], .count = tombstones_count(sets[i])};
    }
    return STATUS_OK;
}

enum status tombstones_merge(struct alloc *alloc, const struct tombstones *const *sets, size_t count, uint64_t horizon,
                             bool drop_settled, struct tombstones **ret_set) {
    struct merge merge;
    enum status status = merge_init(&merge, alloc, sets, count, horizon, drop_settled);
    if (status != STATUS_OK) {
        return status;
    }
    walk(&merge);
    status = tombstones__writer_allocate(&merge.writer);
    if (status == STATUS_OK) {
        walk(&merge);
        *ret_set = tombstones__writer_finish(&merge.writer);
    }
    merge_deinit(&merge);
    return status;
}

enum status tombstones_merge_marks(struct alloc *alloc, const struct tombstones *const *sets, size_t count,
                                   uint64_t horizon, bool drop_settled, uint64_t *ret_marks) {
    struct merge merge;
    enum status status = merge_init(&merge, alloc, sets, count, horizon, drop_settled);
    if (status == STATUS_OK) {
        walk(&merge);
        *ret_marks = tombstones__writer_marks(&merge.writer);
        merge_deinit(&merge);
    }
    return status;
}
