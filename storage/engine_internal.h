/*
 * What the files of the engine share. engine.h is the contract; this is how it binds log and store.
 *
 *   engine_open.c      options, opening, replay, closing
 *   engine_tail.c      the mapped files that unsynced writes live in
 *   engine_write.c     the path of a write: append, apply, answer
 *   engine_log.c       who writes groups of the log, and who waits for them
 *   engine_batch.c     batches
 *   engine_snapshot.c  snapshots
 *   engine_history.c   how far back reads may go, by time
 *   engine_read.c      lookups and iterators
 *   engine.c           flushing, compacting, statistics, what the store calls back
 *   engine_whole.c     the whole store while it is open: checkpoint, verify
 *   engine_ingest.c    and: another content
 *   engine_closed.c    and while it is closed: verify, destroy;
 *   engine_repair.c    repair
 *   os/engine_os.c     engine_open and the calls for closed stores: an environment of their own
 *
 *   writer ──lock──> record into the forming group (a tail file) ──> memtable, view ──unlock──> done        without
 * sync │ full, or a flush waits for it                 └──> group written, synced ──> done     sync └──> a worker
 * writes it to the segment, writers go on in the next tail file
 *
 * One lock guards log, store and everything in struct engine but what says otherwise; it is also the guard of the
 * loop, so the callbacks of both run under it. It is never held across I/O. Reads don't take it.
 *
 * Groups of the log. One is written at a time, by whoever took it:
 *   - a writer that wants its sync and finds no write under way becomes the leader: it writes the group with all that
 *     gathered in it, and hands over to the first one whose record came too late for it;
 *   - else a worker: full groups, and those that a flush waits for.
 *
 * What is seen. Writes go into the memtable in order, at once, but are published later: those without sync right away,
 * unless one that wants its sync comes before them and isn't durable yet; that one, and what follows up to the next of
 * its kind, when its group is.
 *
 * Terms. The log's term is one higher in each life of the engine, so that records which an earlier life left in a tail
 * file can't be taken for this one's.
 */
#ifndef HOLDFAST_STORAGE_ENGINE_INTERNAL_H
#define HOLDFAST_STORAGE_ENGINE_INTERNAL_H

#include "node/base/check.h"
#include "node/base/list.h"
#include "node/env/env.h"
#include "storage/batch.h"
#include "storage/engine.h"
#include "storage/storage.h"
#include "storage/wal.h"

enum {
    ENGINE_RECORD_DATA = 3,
    ENGINE_DIR_BYTES = LIMIT_PATH_BYTES - 64 /* names of ours go behind it */
};

/* A thread that sleeps until something it needs is there. On its stack; whoever wakes it takes it off the list first.
 */
struct engine__waiter {
    struct list link;
    struct env_waiter waiter;
    uint64_t index; /* what must be durable, or flushed */
    bool hides;     /* the write `index` must not be seen before it is durable */
    bool lead;      /* woken to write the next group itself */
    enum status status;
};

struct engine_snapshot {
    struct storage_pin pin;
};

/* What opening for a repair found of the log. */
struct engine__salvage {
    bool is_strict; /* damage fails the opening, as ever */
    bool was_damaged;
    bool was_replaced;   /* nothing of it could be kept */
    uint64_t lost_first; /* writes that it had and the store hasn't; 0: none are known */
    uint64_t lost_last;
    uint64_t revision; /* of the store as it is now */
    char where[LIMIT_NAME_BYTES * 2];
};

/* Which revision was the newest at some time. */
struct engine__note {
    uint64_t at_us;
    uint64_t revision;
};

enum { ENGINE_HISTORY_NOTES = 34 };

struct engine__history {
    struct env_timer timer;
    struct engine__note notes[ENGINE_HISTORY_NOTES]; /* a ring, the oldest first */
    unsigned first;
    unsigned count;
};

struct engine {
    struct env_mutex lock;
    struct env *env;
    struct alloc *alloc;
    struct env_loop *loop;
    struct wal *wal;
    struct storage *storage;
    struct engine_options options;     /* dir points to ours */
    void (*free_env)(struct env *env); /* NULL: borrowed */
    struct engine__salvage *salvage;   /* NULL: damage to the log fails the opening. Borrowed */
    char dir[ENGINE_DIR_BYTES];
    struct env_event *closed; /* log or store has closed */

    /* The tail files. */
    struct env_file *tail_files[WAL_LENT_COUNT];
    uint8_t *tails[WAL_LENT_COUNT];
    size_t tail_bytes;                        /* that groups use: no more than each file has */
    size_t tail_mapped_bytes[WAL_LENT_COUNT]; /* more, where an earlier life had larger groups */

    uint64_t term;
    uint64_t sync_index; /* newest write that must not be seen before it is durable */
    bool is_open;        /* replay is over: segments of the log may go */
    bool ingesting;      /* writers wait, for room_waiters to be woken */
    bool failed;
    bool log_full;    /* the disk is: the next segment of the log couldn't be made, */
    bool tables_full; /* or a table couldn't be written */
    bool closing;
    struct error failure;

    /* Who waits, and for what (engine_log.c). */
    struct list sync_waiters;  /* in order of index */
    struct list room_waiters;  /* for a tail file or a memtable */
    struct list flush_waiters; /* in order of index */
    uint64_t log_wanted;       /* a flush waits for this to be durable */
    uint64_t log_bytes_max;    /* of the log for one memtable */
    uint64_t log_bytes_before; /* that the log had written when the memtable was last switched, or asked to be */
    struct env_work log_work;
    bool log_busy;  /* log_work is with a worker or on its way back */
    bool log_again; /* something came while it was */

    uint64_t snapshot_count;
    struct engine__history history;
    uint64_t stalls;
    uint64_t stall_us_total;
    uint64_t stall_us_max;
    uint64_t stall_us_log; /* of the total: the store would have taken the write */
};

/* engine_open.c */
/* engine_open with an env given; free_env, unless NULL, is called with it when the engine is gone. Not after a failure.
 */
MUST_USE enum status engine__open(const struct engine_options *options, void (*free_env)(struct env *env),
                                  struct engine **ret_engine, struct error *err);
/* The same, but a log that is damaged goes on with what is good of it, and *salvage, which stays until the engine is
 * closed, says what is lost. STATUS_CORRUPT: nothing of it can be kept. */
MUST_USE enum status engine__open_salvaging(const struct engine_options *options, struct engine__salvage *salvage,
                                            struct engine **ret_engine, struct error *err);

/* A directory that names of ours fit behind. */
MUST_USE enum status engine__check_dir(const char *dir, struct error *err);
/* A name of ours in such a directory, or in a part of it. */
void engine__path_of(char path[LIMIT_PATH_BYTES], const char *dir, const char *name);
/* What the engine's options say about the store; callbacks, loop and dir are left alone. */
void engine__fill_storage(struct storage_options *options, const struct engine_options *from);
/* A log without records behind this frontier, in a directory of its own. */
MUST_USE enum status engine__make_log(struct env *env, const char *dir, const struct storage_frontier *frontier,
                                      uint64_t term, struct error *err);

/* engine_closed.c: as engine.h has them, with an env given. */
MUST_USE enum status engine__verify_closed(const struct engine_options *options,
                                           const struct engine_verify_options *verify_options,
                                           struct engine_verify_report *ret_report, struct error *err);
MUST_USE enum status engine__repair(const struct engine_options *options,
                                    void (*lost)(void *context, const struct engine_loss *loss), void *context,
                                    struct engine_repair_report *ret_report, struct error *err);
MUST_USE enum status engine__destroy(struct env *env, const char *dir, struct error *err);
/* engine_whole.c */
/* A job of the store that the caller sleeps for, without the lock. */
struct engine__job {
    struct env_waiter waiter;
    struct engine *engine;
};
/* Before it is submitted. */
void engine__job_init(struct engine__job *job, struct engine *engine, struct storage_upkeep *upkeep);
/* Of what was submitted. */
MUST_USE enum status engine__job_wait(struct engine__job *job, const struct storage_upkeep *upkeep, struct error *err);
/* From the store's. */
void engine__fill_report(struct engine_verify_report *report, const struct storage_verify_report *from);

/* engine_tail.c. Blocking; no lock is needed: nobody else is there. */
/* Opens, or makes, and maps the files. */
MUST_USE enum status engine__tails_open(struct engine *engine, size_t bytes, struct error *err);
void engine__tails_close(struct engine *engine);

/* engine_log.c. All under the lock, unless they say otherwise. */
void engine__log_init(struct engine *engine);
/* Has a worker write what is to be written, if anything is. */
void engine__log_kick(struct engine *engine);
/* Writes until nothing is left to write. The lock is not held all the time. */
MUST_USE enum status engine__log_drain(struct engine *engine, struct error *err);
/* Waits until the index is durable; writes groups itself if nobody does. Returns without the lock. hides: the write
 * `index` must not be seen before. */
MUST_USE enum status engine__log_sync(struct engine *engine, uint64_t index, bool hides, struct error *err);
/* Sleeps, without the lock in between, until the list is woken. */
MUST_USE enum status engine__wait(struct engine *engine, struct list *waiters, uint64_t index);
/* Takes those that want nothing beyond index off the list and wakes them with this status. */
void engine__wake(struct list *waiters, uint64_t index, enum status status);
/* No more writes: everybody who waits is told. */
void engine__fail(struct engine *engine, const struct error *err);
MUST_USE enum status engine__failure(const struct engine *engine, struct error *err);

/* engine_history.c. On the loop or under the lock. */
void engine__history_init(struct engine *engine);
/* The store is open. */
MUST_USE enum status engine__history_start(struct engine *engine, struct error *err);
/* Also fine if it was not started, or not even initialised. */
void engine__history_stop(struct engine *engine);

/* engine_batch.c */
/* What the log gets; borrowed until the batch changes. */
struct slice engine__batch_bytes(struct engine_batch *batch);

/* engine.c */
/* The callbacks that go into the options. */
void engine__set_callbacks(struct engine *engine, struct wal_options *log, struct storage_options *storage);

#endif
