/*
 * How sets of range deletes are written: the makers (tombstones_build.c) produce disjoint growing pieces twice, first
 * to be counted, then to be written into memory of the right size. The writer drops the marks that nobody needs and
 * joins pieces that touch and have the same ones.
 *
 * Legal order: tombstones__writer_init, tombstones__write for every piece, tombstones__writer_allocate, the same pieces
 * again, tombstones__writer_finish; tombstones__writer_deinit at the end of it, however it went.
 */
#ifndef HOLDFAST_STORAGE_TOMBSTONES_INTERNAL_H
#define HOLDFAST_STORAGE_TOMBSTONES_INTERNAL_H

#include "storage/tombstones.h"

struct tombstones_writer {
    struct alloc *alloc;
    uint64_t horizon;
    bool drop_settled;
    struct tombstones *set; /* NULL: counting */
    size_t count;           /* of fragments, marks, bytes of keys: so far */
    size_t marks;
    size_t key_bytes;
    struct tombstone_mark *mark_list; /* where they go */
    uint8_t *keys;
    struct slice written_end; /* of the last fragment that was written or counted */
    struct slice start;       /* the fragment that may still grow; none if held_count is 0 */
    struct slice end;
    struct tombstone_mark *held; /* its marks */
    size_t held_count;
    struct tombstone_mark *kept; /* room for those of the next */
    struct tombstone_mark *scratch;
};

/* For pieces of at most marks_max marks. STATUS_NO_MEMORY. */
MUST_USE enum status tombstones__writer_init(struct tombstones_writer *writer, struct alloc *alloc, size_t marks_max,
                                             uint64_t horizon, bool drop_settled);
void tombstones__writer_deinit(struct tombstones_writer *writer);
/* A piece behind those before it, and the marks that cover it, newest first. The keys must stay until finish. */
void tombstones__write(struct tombstones_writer *writer, struct slice start, struct slice end,
                       const struct tombstone_mark *marks, size_t count);
/* All pieces were counted: from now on they are written. STATUS_NO_MEMORY. */
MUST_USE enum status tombstones__writer_allocate(struct tombstones_writer *writer);
/* All pieces were counted: how many marks are kept. */
uint64_t tombstones__writer_marks(struct tombstones_writer *writer);
/* All pieces were written: the set, the caller's. */
struct tombstones *tombstones__writer_finish(struct tombstones_writer *writer);

/* Of the fragment that has most. */
size_t tombstones__marks_max(const struct tombstones *set);

#endif
