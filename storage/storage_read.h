/*
 * Reading a store: views, lookups, iterators, and the changes in the order of the log.
 *
 *   storage_view_acquire -> storage_get, storage_multi_get, storage_iterator_*, storage_changes_* -> release
 *
 * A view shows memtables plus a version at any revision from its horizon up to the one that was applied when it was
 * taken; nothing that happens later changes what it shows. Any thread may read, several at once on one view; an
 * operation (an io, an iterator, a walk over changes) belongs to one thread at a time. Part of storage.h.
 */
#ifndef HOLDFAST_STORAGE_READ_H
#define HOLDFAST_STORAGE_READ_H

#include "node/base/slice.h"
#include "node/base/status.h"
#include "node/env/env.h"
#include "storage/change.h"
#include "storage/fetch.h"
#include "storage/sst.h"

struct storage;
struct storage_view;
struct storage_iterator;

/* ---- Reading (any thread) ------------------------------------------------------------------------------------ */

/* The newest state; never NULL, never blocks. Owned: release it on any thread, soon; it pins memory and files. */
struct storage_view *storage_view_acquire(struct storage *storage);
void storage_view_release(struct storage_view *view);
/* Once more, for one that is held: released as often. */
void storage_view_hold(struct storage_view *view);
/* Revision applied when it was taken: the newest that it can show. Asking a view for a newer one is an error of the
 * caller's (CHECK). */
uint64_t storage_view_revision(const struct storage_view *view);
/* The oldest revision that it can show: reads below it are STATUS_COMPACTED. Fixed for the view's life. */
uint64_t storage_view_horizon(const struct storage_view *view);

/* What makes a read asynchronous. One operation at a time (a get, a multi-get, an iterator) uses it, on its loop:
 *
 *   storage_io_init -> read -> STATUS_PENDING -> storage_io_start -> ready -> the same read again -> ... -> deinit
 *
 * STATUS_PENDING means that blocks are missing, all that the read knows of at this point. Nothing has been asked for
 * yet: storage_io_start does, all at once, and `ready` runs on the loop, never inside a call, when they are there (or
 * failed: the read says so). An iterator that passes over very many deleted keys also says it, to give others their
 * turn. Until then the operation must be left alone: its view, keys and iterator stay. The read is then repeated with
 * the same arguments.
 *
 * Reads without one (io NULL) block: on threads that own no connections only. */
struct storage_io {
    struct fetch fetch;
    void (*ready)(struct storage_io *io);
    struct env_message pause; /* of a walk that took long without missing anything */
    bool is_paused;
};

/* Allocates nothing. */
void storage_io_init(struct storage_io *io, struct storage *storage, struct env_loop *loop,
                     void (*ready)(struct storage_io *io));
void storage_io_start(struct storage_io *io);
/* True between storage_io_start and ready. */
bool storage_io_is_busy(const struct storage_io *io);
/* Not busy. An iterator that used it is freed first. Afterwards it may be initialised again. */
void storage_io_deinit(struct storage_io *io);

/* A value that was found. */
struct storage_value {
    struct slice bytes;   /* borrowed until the release, which comes before the view's */
    uint64_t revision;    /* of the write that made it */
    struct sst_hold hold; /* the engine's: the block where the bytes lie; none if they lie in a memtable */
};

/* Legal on what a read filled in with STATUS_OK, once; any thread. */
void storage_value_release(struct storage_value *value);

enum storage_lookup {
    STORAGE_FOUND,
    STORAGE_ABSENT,
    STORAGE_NEEDS_DISK /* can't be told from memtables, or is below the horizon: storage_get knows */
};

/* The newest version of key at or below revision, from memtables only: never blocks. The value is borrowed from the
 * view. */
enum storage_lookup storage_get_memory(struct storage_view *view, struct slice key, uint64_t revision,
                                       struct slice *ret_value, uint64_t *ret_revision);
/* The same, from tables, too. On STATUS_OK the value is to be released. STATUS_NOT_FOUND if absent or deleted;
 * STATUS_COMPACTED: below the horizon; STATUS_PENDING (only with io); STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY. */
MUST_USE enum status storage_get(struct storage_view *view, struct storage_io *io, struct slice key, uint64_t revision,
                                 struct storage_value *ret_value, struct error *err);
/* Several gets at one revision; with io the blocks of all keys are asked for together. statuses: STATUS_PENDING for
 * each at first, then of each key what storage_get would say; values[i] is filled in (and to be released) where
 * statuses[i] is STATUS_OK. Returns STATUS_PENDING while any is pending, else STATUS_OK. err: of the first that failed
 * in this call. */
MUST_USE enum status storage_multi_get(struct storage_view *view, struct storage_io *io, uint64_t revision,
                                       size_t count, const struct slice *keys, struct storage_value *values,
                                       enum status *statuses, struct error *err);

/* About the bytes that tables have for keys in [lower, upper) (upper.len 0: no end), as stored. Memory only. */
uint64_t storage_approximate_bytes(const struct storage_view *view, struct slice lower, struct slice upper);

/* ---- Iterators: over one view at one revision, both directions ------------------------------------------------ */

enum { STORAGE_READAHEAD_BYTES = 256 * 1024 };

struct storage_iterator_options {
    uint64_t revision;  /* 0: the view's, unless */
    bool at_zero;       /* revision 0 itself is meant, before the first entry: there is nothing */
    struct slice lower; /* no key before it */
    struct slice upper; /* no key at or behind it; len 0: no end. Both are borrowed while the iterator lives */
    bool keys_only;     /* storage_iterator_value is not asked */
    bool passing;       /* blocks that it reads aren't kept in the cache */
    uint32_t readahead_bytes_max; /* of one read, when blocks of a table are walked through one after the other: it
                                     grows up to this. 0: STORAGE_READAHEAD_BYTES; less than a block: none */
};

/* Live keys within the bounds, each once, with the newest version at or below the revision. At no key yet. Borrows view
 * and io (NULL: it blocks). options NULL: all zero. STATUS_COMPACTED, STATUS_NO_MEMORY. */
MUST_USE enum status storage_iterator_new(struct storage_view *view, struct storage_io *io,
                                          const struct storage_iterator_options *options,
                                          struct storage_iterator **ret_iterator, struct error *err);
/* NULL is accepted. Its io must not be busy. */
void storage_iterator_free(struct storage_iterator *iterator);

/* Each moves and says STATUS_OK: at a key; STATUS_NOT_FOUND: there is none that way; STATUS_PENDING (only with io): the
 * same call again when io is ready, nothing else before; STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY.
 * next and prev are legal after STATUS_OK, whatever the direction before; the others always (but for STATUS_PENDING).
 */
MUST_USE enum status storage_iterator_first(struct storage_iterator *iterator, struct error *err);
MUST_USE enum status storage_iterator_last(struct storage_iterator *iterator, struct error *err);
/* The first at or behind this key. */
MUST_USE enum status storage_iterator_seek(struct storage_iterator *iterator, struct slice key, struct error *err);
/* The last at or in front of this key. */
MUST_USE enum status storage_iterator_seek_for_prev(struct storage_iterator *iterator, struct slice key,
                                                    struct error *err);
MUST_USE enum status storage_iterator_next(struct storage_iterator *iterator, struct error *err);
MUST_USE enum status storage_iterator_prev(struct storage_iterator *iterator, struct error *err);

/* True if the last call said STATUS_OK. The others are legal only then; what they return is borrowed until the next
 * move. */
bool storage_iterator_is_valid(const struct storage_iterator *iterator);
struct slice storage_iterator_key(const struct storage_iterator *iterator);
uint64_t storage_iterator_revision(const struct storage_iterator *iterator);
/* Illegal with keys_only. STATUS_PENDING (only with io), STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY: of a value that
 * is stored apart from the tables. */
MUST_USE enum status storage_iterator_value(struct storage_iterator *iterator, struct slice *ret_value,
                                            struct error *err);

/* ---- Changes: what was done to which key, in the order of the log ----------------------------------------------
 *
 * Of all entries from some revision on, and whole entries: with the option change_files as far back as the horizon,
 * without it what isn't flushed yet. Each operation of an entry is one change (change.h), those that have no effect
 * included. An ingest brings the checkpoint's along; a repair keeps none. There are no values in them: read the key at
 * the revision. */

struct storage_changes;

struct storage_changes_options {
    uint64_t from;  /* the first revision of interest, at least 1 */
    uint64_t until; /* the last; 0: the view's */
    struct slice
        lower; /* only changes that have to do with keys in [lower, upper): a range delete that reaches into it */
    struct slice upper; /* is one. len 0: no end. Both are borrowed */
};

/* The oldest revision that changes can be read from in this view. Any thread. */
uint64_t storage_view_changes_oldest(const struct storage_view *view);
/* In front of the first change. Borrows view and io (NULL: it blocks). `from` may be one above the view's revision:
 * there are none. STATUS_COMPACTED: `from` is older than storage_view_changes_oldest: some are gone;
 * STATUS_NO_MEMORY. */
MUST_USE enum status storage_changes_new(struct storage_view *view, struct storage_io *io,
                                         const struct storage_changes_options *options,
                                         struct storage_changes **ret_changes, struct error *err);
/* NULL is accepted. Its io must not be busy. */
void storage_changes_free(struct storage_changes *changes);
/* The next one, by (revision, ordinal); its keys are borrowed until the next call. STATUS_NOT_FOUND: that were all;
 * STATUS_PENDING (only with io): the same call again when io is ready; STATUS_CORRUPT, STATUS_UNSUPPORTED, STATUS_IO,
 * STATUS_NO_MEMORY: none was skipped, another call tries again. */
MUST_USE enum status storage_changes_next(struct storage_changes *changes, struct change *ret_change,
                                          struct error *err);
/* Every entry up to here is done with: where to go on later is the revision behind it. */
uint64_t storage_changes_done(const struct storage_changes *changes);

#endif
