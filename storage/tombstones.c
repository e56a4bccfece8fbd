/* Sets of range deletes: their memory, lookups, and the writer of fragments that tombstones_build.c feeds. */
#include "storage/tombstones_internal.h"

#include "node/base/check.h"

struct tombstones {
    struct alloc *alloc;
    size_t count;
    size_t marks;
    size_t marks_max; /* of one fragment */
    size_t bytes;
    uint64_t newest;
    struct tombstone_fragment fragments[]; /* behind them: the marks, then the keys */
};

void tombstones_free(struct tombstones *set) {
    if (set != NULL) {
        mem_free(set->alloc, set);
    }
}

size_t tombstones_count(const struct tombstones *set) { return set == NULL ? 0 : set->count; }

size_t tombstones_marks(const struct tombstones *set) { return set == NULL ? 0 : set->marks; }

size_t tombstones__marks_max(const struct tombstones *set) { return set == NULL ? 0 : set->marks_max; }

size_t tombstones_bytes(const struct tombstones *set) { return set == NULL ? 0 : set->bytes; }

uint64_t tombstones_newest(const struct tombstones *set) { return set == NULL ? 0 : set->newest; }

struct tombstone_fragment tombstones_fragment(const struct tombstones *set, size_t at) {
    CHECK(at < tombstones_count(set));
    return set->fragments[at];
}

size_t tombstones_first_reaching(const struct tombstones *set, struct slice key) {
    size_t from = 0;
    size_t to = tombstones_count(set);
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (slice_compare(set->fragments[middle].end, key) <= 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

struct tombstone_mark tombstone_fragment_mark(const struct tombstone_fragment *fragment, uint64_t revision) {
    size_t from = 0;
    size_t to = fragment->mark_count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (fragment->marks[middle].revision > revision) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from < fragment->mark_count ? fragment->marks[from] : TOMBSTONE_MARK_NONE;
}

struct tombstone_mark tombstones_find(const struct tombstones *set, struct slice key, uint64_t revision,
                                      struct slice *ret_start, struct slice *ret_end) {
    struct tombstone_fragment none = {.start = SLICE_EMPTY, .end = SLICE_EMPTY, .marks = NULL, .mark_count = 0};
    size_t at = tombstones_first_reaching(set, key);
    bool holds = at < tombstones_count(set) && slice_compare(set->fragments[at].start, key) <= 0;
    const struct tombstone_fragment *fragment = holds ? &set->fragments[at] : &none;
    if (ret_start != NULL) {
        *ret_start = fragment->start;
    }
    if (ret_end != NULL) {
        *ret_end = fragment->end;
    }
    return tombstone_fragment_mark(fragment, revision);
}

/* ---- Writing fragments ------------------------------------------------------------------------------------------- */

/* A key behind those before it in the set's memory. */
static struct slice copy_key(struct tombstones_writer *writer, struct slice key) {
    uint8_t *copy = writer->keys + writer->key_bytes - key.len;
    memcpy(copy, key.data, key.len);
    return slice_of(copy, key.len);
}

/* Writes the fragment that was held back, or only counts it. */
static void close_fragment(struct tombstones_writer *writer) {
    if (writer->held_count == 0) {
        return;
    }
    struct tombstones *set = writer->set;
    bool touches = writer->count > 0 && slice_equal(writer->written_end, writer->start);
    struct tombstone_fragment fragment = {.mark_count = writer->held_count};
    if (!touches) {
        writer->key_bytes += writer->start.len;
        fragment.start = set == NULL ? writer->start : copy_key(writer, writer->start);
    } else {
        fragment.start = writer->written_end;
    }
    writer->key_bytes += writer->end.len;
    fragment.end = set == NULL ? writer->end : copy_key(writer, writer->end);
    if (set != NULL) {
        struct tombstone_mark *marks = writer->mark_list + writer->marks;
        memcpy(marks, writer->held, writer->held_count * sizeof *marks);
        fragment.marks = marks;
        set->fragments[writer->count] = fragment;
        set->marks_max = writer->held_count > set->marks_max ? writer->held_count : set->marks_max;
        set->newest = marks[0].revision > set->newest ? marks[0].revision : set->newest;
    }
    writer->written_end = fragment.end;
    writer->count++;
    writer->marks += writer->held_count;
    writer->held_count = 0;
}

/* Those of the marks, newest first, that must be kept. */
static size_t keep_marks(const struct tombstones_writer *writer, const struct tombstone_mark *marks, size_t count,
                         struct tombstone_mark *ret_kept) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && marks[i].revision == marks[i - 1].revision) {
            continue; /* the last operation of an entry stands for all */
        }
        if (marks[i].revision > writer->horizon) {
            ret_kept[kept++] = marks[i];
        } else {
            if (!writer->drop_settled) {
                ret_kept[kept++] = marks[i];
            }
            break;
        }
    }
    return kept;
}

void tombstones__write(struct tombstones_writer *writer, struct slice start, struct slice end,
                       const struct tombstone_mark *marks, size_t count) {
    size_t kept = keep_marks(writer, marks, count, writer->kept);
    if (kept == 0) {
        return;
    }
    bool continues = kept == writer->held_count && slice_equal(writer->end, start);
    for (size_t i = 0; continues && i < kept; i++) {
        continues =
            writer->kept[i].revision == writer->held[i].revision && writer->kept[i].ordinal == writer->held[i].ordinal;
    }
    if (continues) {
        writer->end = end;
        return;
    }
    close_fragment(writer);
    struct tombstone_mark *swap = writer->held;
    writer->held = writer->kept;
    writer->kept = swap;
    writer->held_count = kept;
    writer->start = start;
    writer->end = end;
}

enum status tombstones__writer_init(struct tombstones_writer *writer, struct alloc *alloc, size_t marks_max,
                                    uint64_t horizon, bool drop_settled) {
    *writer = (struct tombstones_writer){.alloc = alloc, .horizon = horizon, .drop_settled = drop_settled};
    marks_max = marks_max == 0 ? 1 : marks_max;
    writer->scratch = mem_alloc(alloc, 2 * marks_max * sizeof *writer->scratch);
    if (writer->scratch == NULL) {
        return STATUS_NO_MEMORY;
    }
    writer->held = writer->scratch;
    writer->kept = writer->scratch + marks_max;
    return STATUS_OK;
}

void tombstones__writer_deinit(struct tombstones_writer *writer) {
    mem_free(writer->alloc, writer->scratch);
    tombstones_free(writer->set);
}

enum status tombstones__writer_allocate(struct tombstones_writer *writer) {
    CHECK(writer->set == NULL);
    close_fragment(writer);
    size_t marks_at = sizeof(struct tombstones) + writer->count * sizeof(struct tombstone_fragment);
    size_t keys_at = marks_at + writer->marks * sizeof(struct tombstone_mark);
    size_t bytes = keys_at + writer->key_bytes;
    struct tombstones *set = mem_alloc(writer->alloc, bytes);
    if (set == NULL) {
        return STATUS_NO_MEMORY;
    }
    *set = (struct tombstones){.alloc = writer->alloc, .count = writer->count, .marks = writer->marks, .bytes = bytes};
    writer->mark_list = (struct tombstone_mark *)(void *)((uint8_t *)set + marks_at);
    writer->keys = (uint8_t *)set + keys_at;
    writer->set = set;
    writer->count = 0;
    writer->marks = 0;
    writer->key_bytes = 0;
    return STATUS_OK;
}

uint64_t tombstones__writer_marks(struct tombstones_writer *writer) {
    close_fragment(writer);
    return writer->marks;
}

struct tombstones *tombstones__writer_finish(struct tombstones_writer *writer) {
    struct tombstones *set = writer->set;
    close_fragment(writer);
    CHECK(writer->count == set->count && writer->marks == set->marks);
    CHECK(writer->keys + writer->key_bytes == (uint8_t *)set + set->bytes);
    writer->set = NULL;
    return set;
}
