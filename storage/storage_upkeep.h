/*
 * Long jobs over a whole store: checkpoints, verifying, digests of all data, taking in another store's content. Owner
 * loop, but for storage_verify_dir.
 *
 * They run on a worker, one at a time, in the order in which they were asked for. The caller fills in what is his and
 * leaves the struct alone until `done` ran: once, on the loop, never inside a call. A store that is closed cancels them
 * and calls nobody; the structs are then the store's until `closed`. They take one of the env's long workers: let it
 * have one more for them. Part of storage.h.
 */
#ifndef HOLDFAST_STORAGE_UPKEEP_H
#define HOLDFAST_STORAGE_UPKEEP_H

#include "node/base/buf.h"
#include "node/base/list.h"
#include "node/base/status.h"
#include "node/env/env.h"
#include "storage/digest.h"
#include "storage/frontier.h"

#include <stdatomic.h>

struct generation;
struct read_set;
struct storage;
struct storage_iterator;
struct storage_view;
struct upkeep_kind;

struct storage_upkeep {
    void (*done)(struct storage_upkeep *upkeep);
    void *context; /* the caller's */
    /* Any thread: how far it is. */
    _Atomic uint64_t done_bytes;
    _Atomic uint64_t total_bytes;
    /* Results, valid in done: */
    enum status status;
    struct error error;
    /* The store's: */
    struct list link;
    const struct upkeep_kind *kind;
    struct storage *storage;
    struct env_work work;
    bool is_running;
    bool is_ended; /* done will run */
    atomic_bool is_cancelled;
    unsigned stage;
};

/* Before done ran: it ends soon, with STATUS_CANCELLED, or as if it hadn't been asked to. One that waits for others
 * ends at once. */
void storage_upkeep_cancel(struct storage_upkeep *upkeep);

/* A store of its own beside this one, for a backup or to be sent: same cluster, same node. Its files are further names
 * of ours (copies only where the file system has no links between the two places), so it costs no space until
 * compactions replace them here. Nothing waits for it.
 *
 * A crash leaves nothing at `dir`, or all of it; what it may leave at `dir`.tmp goes with the next attempt. Durable
 * when done says STATUS_OK. STATUS_EXISTS: there is something at `dir`; STATUS_NOT_FOUND: its parent isn't there;
 * STATUS_INVALID: the path is too long; STATUS_FAILED: the store has failed before it was flushed. */
struct storage_checkpoint {
    struct storage_upkeep upkeep;
    char dir[LIMIT_PATH_BYTES];
    bool flush; /* all that was applied by now is in it: flushed first. Else: what the manifest has */
    /* Results: */
    struct storage_frontier frontier; /* its own */
    uint64_t files;
    uint64_t bytes;
    uint64_t copied_bytes; /* of files that couldn't be linked */
    /* The store's: */
    struct version *version;
    uint64_t flush_index;
    uint64_t next_file;
};

void storage_checkpoint(struct storage *storage, struct storage_checkpoint *checkpoint);

/* What verifying found in one file. */
struct storage_verify_finding {
    const char *file;    /* its name in the directory; "" for the store as a whole */
    uint64_t count;      /* places; the rest is about the first */
    uint64_t offset;     /* 0 where it is of no use */
    const char *message; /* with the path */
};

struct storage_verify_report {
    uint64_t tables;
    uint64_t bytes; /* read */
    uint64_t partitions;
    uint64_t data_blocks;
    uint64_t entries;
    uint64_t tombstones;
    uint64_t changes; /* in change files */
    uint64_t findings;
    uint64_t unnamed_files; /* ours, but the manifest doesn't name them: the next opening removes them */
    uint64_t other_files;   /* not ours */
    struct storage_frontier frontier;
};

/* Reads all tables of the store as it is now and checks every checksum and invariant: of each table (sst.h), between
 * tables, and of tables and frontier. STATUS_CORRUPT: something was found, the error is the first of it. Reads that
 * fail count as findings. Slows down reads of others no more than a compaction does. */
struct storage_verification {
    struct storage_upkeep upkeep;
    /* For each file with findings, on the worker. May be NULL. */
    void (*found)(void *context, const struct storage_verify_finding *finding);
    void *found_context;
    struct storage_verify_report report; /* result; its counts of files in the directory are 0 */
    struct version *version;             /* the store's */
};

void storage_verify(struct storage *storage, struct storage_verification *verification);

/* One number for all that can be seen at a revision (digest_scan.c), to be compared with other nodes'. Everything is
 * read once, past the cache, at a rate. It holds a view from the call until its end, and so the space of what
 * compactions replace meanwhile: bound it by a storage_upkeep_cancel in time. Other long jobs come in between its
 * parts. STATUS_INVALID: the revision isn't applied yet; STATUS_COMPACTED: it is below the horizon; STATUS_NO_MEMORY;
 * STATUS_CORRUPT, STATUS_IO: something can't be read. */
struct storage_digest_scan {
    struct storage_upkeep upkeep;
    uint64_t revision;
    uint64_t bytes_per_second; /* of keys and values; 0: as fast as it goes */
    /* Results: */
    struct digest digest;
    uint64_t keys;
    uint64_t bytes; /* keys and values */
    /* The store's: */
    struct storage_view *view;
    struct storage_iterator *iterator;
    struct error refusal; /* why there is none */
    bool is_begun;
    bool is_through;
};

void storage_scan_digest(struct storage *storage, struct storage_digest_scan *scan);

struct storage_verify_options {
    void *context;
    void (*found)(void *context, const struct storage_verify_finding *finding); /* may be NULL */
    /* Now and then; false: stop, with STATUS_CANCELLED. May be NULL. */
    bool (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
};

/* The same for a store that nobody has open (STATUS_BUSY), CURRENT and the manifest included; blocks: for tools.
 * Changes nothing. STATUS_NOT_FOUND: there is no store. options may be NULL. */
MUST_USE enum status storage_verify_dir(struct env *env, const char *dir, const struct storage_verify_options *options,
                                        struct storage_verify_report *ret_report, struct error *err);

/* Replaces the whole content by that of a checkpoint of the same cluster, any node's: verified first, then linked under
 * new names, then made the store by one switch of the manifest; a crash leaves the old content or the new one. From the
 * call until done storage_can_apply says no. Afterwards applied, durable and flushed index are the checkpoint's
 * frontier; views that were taken before show what they showed. `flushed` isn't called. The checkpoint stays as it is.
 *
 * A store that isn't what it should be may go back (`may_go_back`): the frontier may lie behind what was applied, if
 * the owner has all entries behind it and applies them again: what is shown, and storage_applied_index, stay as they
 * are until the new content has come so far, so no reader sees anything go back. storage_can_apply says no only from
 * the standstill on.
 *
 * An owner whose log has to agree has two more callbacks. `ready`, if there is one, runs on the loop when all is there
 * and the store stands still for the switch: nothing happens until storage_ingest_answer, then or later; a no ends the
 * ingest with STATUS_CANCELLED. `switched` runs in the turn in which the loop hears of the durable switch, before any
 * thread can see the new content.
 *
 * STATUS_NOT_FOUND: there is none; STATUS_INVALID: another cluster's, or its frontier lies behind what was applied
 * here; STATUS_BUSY: a store has it open, or a pin here is below its horizon; STATUS_CORRUPT, STATUS_IO,
 * STATUS_NO_SPACE, STATUS_NO_MEMORY. Nothing has changed then, unless `failed` ran:
 * the outcome of the switch is unknown, and the next opening will tell. */
struct storage_ingest {
    struct storage_upkeep upkeep;
    char dir[LIMIT_PATH_BYTES];
    bool may_go_back;
    uint64_t bytes_per_second;                       /* verified at most so fast; 0: no limit */
    void (*ready)(struct storage_upkeep *upkeep);    /* may be NULL: go on */
    void (*switched)(struct storage_upkeep *upkeep); /* may be NULL */
    struct storage_frontier frontier;                /* result; valid in ready and switched, too */
    /* The store's: */
    bool holds_apply;  /* it is in ingest_count */
    bool holds_jobs;   /* the store stands still for it */
    uint64_t paced_us; /* what was verified may have taken until then */
    bool was_asked;
    bool is_in_ready; /* the answer is looked at when it returns */
    bool is_asking;   /* ready ran, no answer yet */
    bool may_switch;
    struct version *version;
    struct generation *generation;
    struct read_set *read_set;
    struct storage_view *view;
    struct buf snapshot;
    uint64_t manifest_number;
    bool is_named; /* the manifest may name its tables */
};

void storage_ingest(struct storage *storage, struct storage_ingest *ingest);
/* On the loop, after `ready` and before `done` ran: once; also from inside `ready`. */
void storage_ingest_answer(struct storage_ingest *ingest, bool go);

#endif
