/*
 * The inside of an iterator:
 *
 *   iterator.c         making one over a view, and the calls of storage.h
 *   iterator_walk.c    which entries of the merged sources show, in both directions
 *   iterator_ranges.c  which keys range deletes cover
 *
 * Sources are ranked from the newest (0) to the oldest: memtables, level 0 tables, levels. For every key, all versions
 * and range deletes of one source are newer than those of the next.
 *
 *   NOWHERE --first, seek--> FORWARD <--next-- --prev--> BACKWARD <--last, seek_for_prev-- NOWHERE
 *
 * FORWARD: the merged sources stand at the entry that shows. BACKWARD: they stand in front of all versions of the key
 * that shows (versions come oldest first, so the newest one is known only when the next key is seen), or at their end;
 * what shows is a copy.
 *
 * A seek to a key that is there needs one source, the newest one that has a version of it: newer ones have nothing in
 * front of the key's end, older ones only older versions. So the sources are asked by rank, with their filters first,
 * and the others follow when the walk goes on (merging_join). A table that is denied by its filter costs no data block.
 *
 * A call is a row of moves of the sources with a decision after each. All that a decision needs is in here, so a call
 * that says STATUS_PENDING goes on with the move that was pending when it is repeated.
 */
#ifndef HOLDFAST_STORAGE_ITERATOR_INTERNAL_H
#define HOLDFAST_STORAGE_ITERATOR_INTERNAL_H

#include "node/base/buf.h"
#include "storage/fetch.h"
#include "storage/merging.h"
#include "storage/sst.h"
#include "storage/tombstones.h"

enum {
    /* Entries that don't show are passed one by one; after so many of one key or one deleted range, by a seek: about
     * what a seek costs. */
    ITERATOR_STEPS_MAX = 8,
    /* With an io: moves in one call. Deleted keys may go on for millions, and the thread has others to serve. */
    ITERATOR_TURN_MOVES_MAX = 4096
};

/* A source, and where it has its range deletes: either or neither. */
struct iterator_source {
    struct cursor *cursor;                /* also in the merging's heap */
    const struct tombstones *const *sets; /* a memtable's */
    size_t set_count;
    struct sst *const *tables; /* a run with disjoint growing ranges */
    size_t table_count;
};

/* Keys from start to end that all have the same newest range delete, visible at the iterator's revision. */
struct iterator_cover {
    bool known;
    struct slice start; /* len 0: from the first key */
    struct slice end;   /* excluded; len 0: to the last key */
    struct tombstone_mark mark;
    uint32_t rank;                /* of the source that the mark is from */
    const struct tombstones *set; /* of the mark */
    size_t fragment;
};

enum iterator_state { ITERATOR_NOWHERE, ITERATOR_FORWARD, ITERATOR_BACKWARD };

enum iterator_call {
    ITERATOR_FIRST,
    ITERATOR_LAST,
    ITERATOR_SEEK,
    ITERATOR_SEEK_FOR_PREV,
    ITERATOR_NEXT,
    ITERATOR_PREV
};

enum iterator_move {
    ITERATOR_MOVE_NONE, /* decide about the entry where the sources stand */
    ITERATOR_MOVE_STEP,
    ITERATOR_MOVE_JUMP, /* the top source alone, to the target */
    ITERATOR_MOVE_FIND, /* the newest source that has a version of the target's key; else as SEEK */
    ITERATOR_MOVE_SEEK, /* all, to the target */
    ITERATOR_MOVE_SEEK_BEFORE,
    ITERATOR_MOVE_FIRST,
    ITERATOR_MOVE_LAST,
    ITERATOR_MOVE_NEWEST /* all, to the newest version that shows of the key that a backward walk is at */
};

/* What a walk needs; owns nothing but `value`. */
struct iterator_walk {
    struct merging merging;
    const struct iterator_source *sources; /* by rank */
    size_t source_count;
    bool has_ranges; /* some source may have range deletes */
    bool keys_only;
    uint64_t revision;
    struct slice lower; /* len 0: none */
    struct slice upper;
    struct fetch *fetch;

    enum iterator_state state;
    bool pending;            /* the last call is to be repeated */
    enum iterator_call call; /* ... this one */
    bool ended;              /* BACKWARD: the sources have nothing in front of what shows */
    enum iterator_move move; /* the next one, or the pending one */
    struct entry_key target; /* of JUMP, FIND, SEEK, SEEK_BEFORE */
    uint64_t find_hash;      /* FIND: of the target's key */
    size_t find_rank;        /* ... the source that is asked */
    bool find_seeks;         /* ... which may have the key, and is moved there */
    struct iterator_cover cover;

    /* The key that the walk is at, a copy in key_bytes; len 0: none. */
    struct slice key;
    bool passed;            /* FORWARD: what is left of its versions doesn't show */
    bool found;             /* BACKWARD: the versions seen so far end with one that shows unless a newer one follows */
    uint32_t steps;         /* made over its versions */
    uint32_t covered_steps; /* made over covered entries since one wasn't */
    struct entry shown;     /* key and value borrowed: FORWARD from the sources, BACKWARD from key_bytes and value */
    struct buf value;

    uint64_t moves;       /* made so far: what tests of effort count */
    uint64_t moves_max;   /* in one call, before it says STATUS_PENDING though no block is missing; 0: any number */
    uint64_t pause_moves; /* at so many it does */
    uint8_t *key_bytes;   /* LIMIT_KEY_BYTES */
};

struct version;

/* Owns the cursors. Behind it in memory: the heap, then the sources. */
struct storage_iterator {
    struct alloc *alloc;
    struct fetch blocking; /* where the caller gave no io */
    const struct version *version;
    struct sst_hold apart;    /* of the value, if it is stored apart and was asked for since the last move */
    struct slice apart_value; /* in it */
    struct iterator_walk walk;
    uint8_t key_bytes[LIMIT_KEY_BYTES];
    struct merging_source heap[];
};

/* ---- iterator_walk.c ----------------------------------------------------------------------------------------- */

/* A call of storage.h; the key is that of the seeks. What shows is walk->shown. */
MUST_USE enum status iterator_walk__call(struct iterator_walk *walk, enum iterator_call call, struct slice key,
                                         struct error *err);

/* ---- iterator_ranges.c --------------------------------------------------------------------------------------- */

/* Makes walk->cover hold this key. STATUS_OK, or as sst_tombstones. */
MUST_USE enum status iterator_ranges__find(struct iterator_walk *walk, struct slice key, struct error *err);
/* Where all that a source older than the cover's can have around its key is covered: up to the end of the fragments
 * that touch, or down to their start. Empty: as far as keys go. */
struct slice iterator_ranges__reach(const struct iterator_walk *walk);

#endif
