/*
 * The write-ahead log, which is the Raft log: one record, written and synced once, serves consensus, recovery and
 * replication. FORMAT-wal.md says every byte.
 *
 *   record   length, kind, index, term, checksum | payload: the same bytes on every node
 *   group    header | records | padding to 4 KiB: one write, one sync. The header is local: term, vote, commit, ...
 *   segment  header block | start group | group | group | ...: a file, made ahead of need by a worker: filled with
 *            zeroes, or an old one that the log no longer needs, used again
 *
 * Flow. wal_append puts records into the forming group, in memory that later is exactly what the disk gets and what
 * followers are sent: payloads are copied once. At the end of the turn (ENV_STAGE_FLUSH), if no group is in flight and
 * records or a new term or vote wait, the group is sealed with the newest state and written with one RWF_DSYNC write:
 * O_DIRECT, but through the page cache if it is mostly large records that the log may lend (wal_share). Then `synced`
 * runs, and what gathered meanwhile forms the next group. One group is in flight at a time.
 *
 * Failure. A failed group write is final (DESIGN rule 7): `failed` runs once, the log refuses all further work with
 * STATUS_FAILED, and the process is to step down and exit.
 *
 * Groups stay in memory (the tail cache) at least until wal_set_applied passes them; beyond that up to cache_bytes_max.
 * Older records are read back with wal_read.
 *
 * Legal order: wal_open (a worker), wal_replay as often as needed (a worker), wal_start (the loop), then the rest on
 * the loop, then wal_close. Owner: the consensus loop.
 *
 * Invariants: synced <= last; commit < any index that is cut; group sequences only grow; a segment's generation is
 * never used again; a synced block is never overwritten while its segment is part of the log, or has another name
 * (wal_share); a group's records have contiguous indexes; a record with index <= last cuts the log there
 * (logical truncation).
 */
#ifndef HOLDFAST_STORAGE_WAL_H
#define HOLDFAST_STORAGE_WAL_H

#include "node/base/slice.h"
#include "node/base/status.h"
#include "node/env/env.h"
#include "storage/log_share.h"

struct wal;

enum { WAL_CLUSTER_ID_BYTES = 16 };

/* ---- Records ---------------------------------------------------------------------------------------------------- */

enum { WAL_RECORD_HEADER_BYTES = 32 };

struct wal_record {
    uint64_t index;
    uint64_t term;
    uint8_t kind;
    struct slice payload; /* borrowed */
    struct slice bytes;   /* header and payload, as on disk and wire; borrowed */
};

/* Takes one record off the front of a cursor after checking length, checksum and limits. STATUS_CORRUPT otherwise; the
 * cursor moves only on success. This is the only decoder of records, for disk and wire alike. */
MUST_USE enum status wal_record_decode(struct slice *cursor, struct wal_record *ret_record, struct error *err);
/* Writes a header for a payload that stands right behind it (WAL_RECORD_HEADER_BYTES + payload_len bytes at out). */
void wal_record_seal(uint8_t *out, uint8_t kind, uint64_t index, uint64_t term, size_t payload_len);

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

/* Who writes the groups. */
enum wal_mode {
    WAL_MODE_LOOP,    /* the log itself, at the end of the loop's turn */
    WAL_MODE_BLOCKING /* the owner, on any thread: see "Blocking mode" below */
};

/* What a completed group made durable. */
struct wal_synced {
    uint64_t group_sequence;
    uint64_t term;
    uint64_t vote;
    uint64_t last_index; /* newest record of the group, 0 if it had none */
    uint64_t last_term;
};

struct wal_options {
    struct env *env;
    struct env_loop *loop;
    const char *dir; /* made if it isn't there */
    uint8_t cluster_id[WAL_CLUSTER_ID_BYTES];
    uint64_t node_id; /* both are in every segment header; a segment of another is refused */
    enum wal_mode mode;
    uint64_t segment_bytes;           /* multiple of 4096; at least four of the largest entries (blocking mode: one) */
    uint32_t entry_payload_bytes_max; /* LIMIT_ENTRY_PAYLOAD_BYTES, smaller in simulations */
    uint32_t group_bytes_max;         /* LIMIT_GROUP_BYTES */
    uint32_t prepared_segments;       /* kept ready ahead of need; at least 1 */
    uint32_t spare_segments;  /* that are no longer needed, kept at most to be used again; 0: all go. In blocking mode
                                 those that small groups were written to: others gain nothing by it */
    uint64_t cache_bytes_max; /* of the tail cache, beyond what is not applied */
    uint32_t share_payload_bytes;  /* records with payloads from here on can be lent (wal_share); 0: none */
    struct slice first_membership; /* what a log that knows no membership begins with; borrowed for wal_open */
    bool must_exist;               /* a directory without a log isn't a new one: STATUS_CORRUPT */
    bool heals;             /* what is lost to damage is fetched from elsewhere: go on with the rest (wal_heal.c) */
    uint32_t mark_delay_us; /* idle time after which an empty mark group is written (DESIGN rule 13); 0: never */

    /* Callbacks, on the loop, never from inside a wal_* call. */
    void *context;
    void (*synced)(void *context, const struct wal_synced *synced);
    void (*failed)(void *context, const struct error *err);
    /* A segment couldn't be prepared (disk full, say); wal_append answers STATUS_NO_SPACE (STATUS_NO_MEMORY: it was for
     * want of that) once prepared space ends. Runs again with err NULL when space is back. May be NULL. */
    void (*prepare_state)(void *context, const struct error *err);
    /* WAL_MODE_BLOCKING only, instead of `synced`: wal_write_take would now find something that it didn't find when it
     * was called last: a segment was prepared, or a mark is due. Also from inside wal_* calls. */
    void (*writable)(void *context);
};

/* What the manifest knows; zero for a new store. */
struct wal_frontier {
    uint64_t index;
    uint64_t term;
};

/* A stretch of the log that fails its checks although later groups are good: corruption, never cut silently. */
struct wal_fault {
    bool present;
    bool final;           /* the log refuses to be written */
    uint64_t first_index; /* 0 if unknown, or nothing that counts is lost */
    uint64_t last_index;
    char where[LIMIT_NAME_BYTES * 2]; /* segment and offset, for the message */
};

struct wal_recovered {
    uint64_t term;
    uint64_t vote;
    uint64_t commit;      /* highest that a group header recorded; at least frontier.index, at most last_index */
    uint64_t first_index; /* oldest record in the log; last_index + 1 if it holds none */
    uint64_t start_term;  /* term of first_index - 1 if known (from the frontier or a record), else 0 */
    uint64_t last_index;  /* newest record, at least frontier.index */
    uint64_t life;        /* a number that is higher than in any earlier life of this log */
    uint64_t bytes_read;
    uint64_t torn_bytes; /* cut off the end of the last group: never acknowledged; 0 also where it can't be told */
    struct wal_fault fault;
    /* The log once ended at heal_index, in heal_term (or before: it is an upper bound), and lost that end now or in an
     * earlier life, without wal_healed since. 0: it didn't. It may hold that much again. */
    uint64_t heal_index;
    uint64_t heal_term;
    struct slice membership; /* newest that a first group repeated; empty for a new store. Owned by the wal */
};

/*
 * Reads and checks the whole log, syncs the retained tail, starts a new segment (DESIGN rule 12), so that on return all
 * that was recovered is durable. The tail behind the commit index is in memory again, as far as LIMIT_UNCOMMITTED_BYTES
 * and the cache's budget go. Blocks: workers and start-up only.
 *
 * A log that lacks the frontier's entry (it ends before, or has it in another term) is void: it starts after the
 * frontier, term and vote are kept. Segments missing below the frontier are no fault. A frontier of a term that the log
 * has never heard of is one: term and vote are synced here before the engine may hold an entry of that term.
 *
 * STATUS_OK: *ret_wal is owned by the caller. If ret_recovered->fault tells of corruption, no segment was changed,
 *     what is before the damage can be replayed, and the log refuses all else (wal_start, too) with STATUS_FAILED; this
 *     is fault.final. With options->heals it goes on with what is before the damage or, if all that is damaged is at or
 *     below the frontier, with what is behind it; heal_index tells what must be fetched, and what was cut off is kept
 *     aside. Final is then only what lost term and vote. These are the newest, also if they stand behind the damage.
 * STATUS_INVALID: a segment belongs to another cluster or node, or an option is wrong.
 * STATUS_UNSUPPORTED: another format version.
 * STATUS_CORRUPT: there is no log at all although the frontier isn't zero (or must_exist), so term and vote are lost.
 * STATUS_IO, STATUS_NO_SPACE, STATUS_NO_MEMORY: err names the file; opening may be tried again.
 */
MUST_USE enum status wal_open(const struct wal_options *options, const struct wal_frontier *frontier,
                              struct wal **ret_wal, struct wal_recovered *ret_recovered, struct error *err);

/* Makes a log that holds no records, for a store that has none (it was copied, or repaired): it starts after `base` and
 * knows `term`, which is at least base->term. Of the options only env, dir and the two ids count. Durable on return;
 * cut short by a crash, call it again. Blocks. */
MUST_USE enum status wal_create(const struct wal_options *options, const struct wal_frontier *base, uint64_t term,
                                struct error *err);
/* Removes the files of a log that nobody has open, and the directory, if nothing else is in it. STATUS_NOT_FOUND: there
 * is none. Blocks. */
MUST_USE enum status wal_destroy(struct env *env, const char *dir, struct error *err);

/* Calls back for each record first..last (truncated ones left out) in order. Blocks. Stops when `each` fails. */
MUST_USE enum status wal_replay(struct wal *wal, uint64_t first_index, uint64_t last_index,
                                enum status (*each)(void *context, const struct wal_record *record, struct error *err),
                                void *context, struct error *err);

/* On the loop, before anything else there: preparation of segments begins. STATUS_FAILED if recovery found a fault. */
MUST_USE enum status wal_start(struct wal *wal, struct error *err);

/* Gives everything up: no callbacks from now on, reads without an answer never get one, records that no write was begun
 * for are lost. Reads that were answered must have been released. A group in flight and worker jobs finish first, then
 * closed runs (on the loop, later) and the wal is gone. Also right after wal_open. */
void wal_close(struct wal *wal, void (*closed)(void *context), void *context);

/* ---- Appending (on the loop) ------------------------------------------------------------------------------------ */

/* Makes sure that the next appends of `record_count` records with `record_bytes` in all (headers included), made in
 * this turn, succeed: STATUS_NO_SPACE, STATUS_NO_MEMORY, STATUS_FAILED otherwise. Consensus asks before it lets raft
 * take the entries. With more than group_bytes_max in all, at most one of the records may be larger than that. */
MUST_USE enum status wal_reserve(struct wal *wal, size_t record_bytes, uint32_t record_count);

/* A record made here: reserves payload_len bytes behind a header and returns where the payload goes; wal_append_end
 * seals it. Nothing else may be called in between. index <= last cuts the log there; index > last + 1 is a CHECK.
 * STATUS_NO_SPACE, STATUS_TOO_LARGE, STATUS_NO_MEMORY, STATUS_FAILED: nothing changed. */
MUST_USE enum status wal_append_begin(struct wal *wal, uint64_t index, uint64_t term, uint8_t kind, size_t payload_len,
                                      uint8_t **ret_payload);
void wal_append_end(struct wal *wal);
/* A record from another node, already decoded: copied as it is. */
MUST_USE enum status wal_append(struct wal *wal, const struct wal_record *record);

/* Term and vote for all groups from now on; a change is written even without records. Term never decreases. */
void wal_set_state(struct wal *wal, uint64_t term, uint64_t vote);
/* The membership to begin with, opaque bytes up to LIMIT_MEMBERSHIP_BYTES: copied; repeated in each segment's first
 * group.
 */
MUST_USE enum status wal_set_membership(struct wal *wal, struct slice membership);
/* Carried by the next group, never a reason to write one. At most last_index. */
void wal_set_commit(struct wal *wal, uint64_t commit_index);

/* True while nothing waits and nothing is in flight: the moment to form the next group from what clients sent. */
bool wal_is_idle(const struct wal *wal);

uint64_t wal_first_index(const struct wal *wal);
uint64_t wal_last_index(const struct wal *wal);
uint64_t wal_synced_index(const struct wal *wal);
/* By groups since it was opened, padding included: as wal_stats has it. */
uint64_t wal_written_bytes(const struct wal *wal);

/* ---- Blocking mode ----------------------------------------------------------------------------------------------
 * The log of an owner without turns: all calls are made under a lock of his, the guard of the log's loop
 * (env_loop_set_guard); "on the loop" then means "under the lock". Groups form as above; he decides when and on which
 * thread one is written:
 *
 *   lock; wal_write_take; unlock; wal_write_run (blocks); lock; wal_write_end; unlock
 *
 * One write is under way at a time, meanwhile others append to the next group. Every group is durable when its write
 * ends, whether anybody asked for that or not: recovery takes a good group behind a bad one for proof of damage, and a
 * prefix is what a power loss is to leave.
 *
 * Lent memory. Groups can form in memory that the owner lends, pieces of it, mapped files say, whose contents
 * outlive the process: so a record is safe from the end of the process as soon as it is appended. Which records were
 * left in such a piece, wal_lent_records finds. */

enum { WAL_LENT_COUNT = 8 };

/* After wal_start. Each piece is aligned to 4096 bytes and as long as wal_group_bytes_max says; it must stay until
 * wal_close's closed ran. */
void wal_lend(struct wal *wal, uint8_t *const pieces[WAL_LENT_COUNT]);
size_t wal_group_bytes_max(const struct wal *wal);
/* Of a piece as an earlier life left it: the records that continue the log: of this term, with contiguous indexes from
 * next_index on; empty if there are none. Others, torn ones and whatever else is in there are passed over: terms must
 * differ from life to life, or records of an earlier one could pass. */
struct slice wal_lent_records(struct slice piece, uint64_t term, uint64_t next_index);

/* wal_append_begin says STATUS_BUSY while it would have to rely on a segment that isn't there yet (`writable` tells
 * when it is): what was taken can be written, even if the disk turns out to be full. wal_append_begin and wal_append
 * say STATUS_BUSY while all lent pieces are full and not yet written. */

/* Instead of wal_append_end: nothing was appended. */
void wal_append_cancel(struct wal *wal);
/* True if the newest group that is not being written has records. */
bool wal_has_records(const struct wal *wal);
/* True if a group is full that nobody writes yet, or a segment is to begin. */
bool wal_has_full_group(const struct wal *wal);
/* STATUS_OK: there is something to write: wal_write_run, then wal_write_end. STATUS_NOT_FOUND: nothing, or a write is
 * under way; STATUS_PENDING: no segment is ready, `writable` will tell; STATUS_FAILED. */
MUST_USE enum status wal_write_take(struct wal *wal);
/* Without the lock, on the thread that took it. */
void wal_write_run(struct wal *wal);
/* STATUS_OK: what it carried is durable, wal_synced_index has moved. Else final: STATUS_FAILED from now on. */
MUST_USE enum status wal_write_end(struct wal *wal, struct error *err);

/* ---- Reading (on the loop) -------------------------------------------------------------------------------------- */

/* Cached records first_index .. (at most count_max, at most bytes_max unless the first alone is larger), as up to
 * part_count_max slices of whole contiguous records. Returns how many records the parts hold; 0 if first_index isn't
 * cached. The slices live until the next wal_* call or the end of the turn. */
uint32_t wal_cached(struct wal *wal, uint64_t first_index, uint32_t count_max, size_t bytes_max, struct slice *parts,
                    size_t part_count_max, size_t *ret_part_count);

/* One cached record; STATUS_NOT_FOUND if it isn't (any more) in memory. Lives as wal_cached's. */
MUST_USE enum status wal_cached_record(struct wal *wal, uint64_t index, struct wal_record *ret_record);

/* Reads records back, from cache or disk. Fill in the first part, keep the struct until done ran (on the loop, never
 * from inside wal_read), then wal_read_release. */
struct wal_read {
    uint64_t first_index;
    uint32_t count_max;
    size_t bytes_max; /* exceeded only by a single larger record */
    void (*done)(struct wal_read *read);
    /* Results: STATUS_OK with count >= 1 records, every one checked; STATUS_NOT_FOUND below first_index or above last;
     * STATUS_CORRUPT, STATUS_IO. */
    enum status status;
    struct error error;
    uint32_t count;
    struct slice records; /* whole records, contiguous */
    /* The wal's: */
    struct wal *wal;
    struct list link;
    void *memory;
};

void wal_read(struct wal *wal, struct wal_read *read);
void wal_read_release(struct wal_read *read);

/* ---- Keeping and deleting (on the loop) ------------------------------------------------------------------------- */

/* Records up to here are applied, hence committed: the cache may drop them beyond its budget. */
void wal_set_applied(struct wal *wal, uint64_t applied_index);
/* Segments whose last index <= min(flushed_index, pin_index) may go, oldest first, by a worker; at least the last one
 * stays (DESIGN rule 11). The caller read committed before flushed. The newest call counts, also if it is for less: a
 * store that went back needs more again. */
void wal_set_floor(struct wal *wal, uint64_t flushed_index, uint64_t pin_index);
/* The disk is full: spare segments go now instead of being used again. */
void wal_give_space(struct wal *wal);
/* The store took in another content, durably, that ends at `base`: an entry that the log lacks, of a term that it knows
 * and not older than its last record's. The log starts after it from now on, its records are void; the next group
 * written says so. Until that one is durable a crash leaves it to the next opening to find out. No record waits or is
 * being written. */
void wal_reset(struct wal *wal, const struct wal_frontier *base);

/* The log holds again what it lost (heal_index): nothing needs to be remembered, and the damaged segments go. After
 * wal_start. */
void wal_healed(struct wal *wal);

/* What made a group be written as it was. Every group counts once. */
enum wal_trigger {
    WAL_TRIGGER_IDLE,   /* records; no write was under way when they came */
    WAL_TRIGGER_BEHIND, /* records that gathered while another group was written */
    WAL_TRIGGER_FULL,   /* records, and more that didn't fit wait behind them */
    WAL_TRIGGER_START,  /* a segment begins */
    WAL_TRIGGER_STATE,  /* term or vote alone */
    WAL_TRIGGER_MARK,   /* idle time */
    WAL_TRIGGER_COUNT
};

enum { WAL_SYNC_BUCKETS = 26 };

struct wal_stats {
    uint64_t groups; /* completed: each is one write and one sync; the sum of triggers */
    uint64_t triggers[WAL_TRIGGER_COUNT];
    uint64_t records;
    uint64_t group_records_max;
    uint64_t record_bytes;
    uint64_t padding_bytes; /* of written_bytes, what holds nothing */
    uint64_t written_bytes;
    uint64_t sync_us_total; /* from a write's begin to its end */
    uint64_t sync_us_max;
    /* How many took how long, for histogram_quantile (node/base/histogram.h). */
    uint64_t sync_us_buckets[WAL_SYNC_BUCKETS];
    uint64_t last_progress_us;  /* env time of the last completion; for the watchdog */
    uint64_t inflight_since_us; /* 0: none in flight */
    uint64_t segments;          /* files now, prepared and spare ones included */
    uint64_t segments_spare;    /* now: kept to be used again */
    uint64_t segments_faulty;   /* now: kept aside, not in `segments` */
    uint64_t segments_filled;   /* made as new files while the log was open, */
    uint64_t segments_recycled; /* and out of old ones */
    uint64_t segments_deleted;  /* gone from the log; spare ones too */
    uint64_t cache_bytes;
    uint64_t cache_misses; /* wal_read that went to disk */
};

void wal_get_stats(const struct wal *wal, struct wal_stats *ret_stats);

/* ---- Large records in place (wal_share.c) -------------------------------------------------------------------------
 */

/* What the log lends to a store of the same owner, after wal_start and until wal_close. On the loop, all of it. */
void wal_share(struct wal *wal, struct log_share *ret_share);

/* A segment's file that somebody kept, under whatever name, checked by itself. */
struct wal_check {
    struct env *env;
    struct env_file *file; /* open for reading */
    uint64_t size_bytes;   /* as lent; it may be longer */
    uint64_t checksum;     /* as lent */
    uint8_t cluster_id[WAL_CLUSTER_ID_BYTES];
    bool (*pace)(void *context, uint64_t bytes); /* after so many bytes; false: stop. May be NULL */
    void *context;
};

/* Every checksum in it, and how its groups are bound. Blocks; any thread. STATUS_CORRUPT: *ret_offset is where (err
 * isn't set); STATUS_CANCELLED, STATUS_UNSUPPORTED, STATUS_IO, STATUS_NO_MEMORY. ret_records: how many it holds. */
MUST_USE enum status wal_check_segment(const struct wal_check *check, uint64_t *ret_records, uint64_t *ret_offset,
                                       struct error *err);

/* ---- What keeps each segment (on the loop) ---------------------------------------------------------------------- */

enum wal_segment_state {
    WAL_SEGMENT_ACTIVE,   /* groups go there */
    WAL_SEGMENT_KEPT,     /* an older one */
    WAL_SEGMENT_PREPARED, /* not begun yet */
    WAL_SEGMENT_FAULTY,   /* damaged, or behind damage: kept aside until the log is healed */
    WAL_SEGMENT_SPARE,    /* no longer part of the log, kept to be used again under another number */
    WAL_SEGMENT_DOOMED    /* with the worker that deletes it, or to be tried again */
};

/* Why a begun segment isn't deleted; all that hold. */
enum wal_segment_pin {
    WAL_PIN_ACTIVE = 1,
    WAL_PIN_NEWEST_DURABLE = 2, /* term, vote and membership are durable in it, and not yet in a later one */
    WAL_PIN_FLOOR = 4,          /* it held a record above the floor: whoever sets the floor knows for whom */
    WAL_PIN_READER = 8,         /* a read from disk is on it */
    WAL_PIN_ORDER = 16          /* an older one is kept, and the oldest goes first */
};

struct wal_segment_info {
    uint64_t number;     /* its name is this in hex */
    uint64_t file_bytes; /* of its file, zeroes included */
    uint64_t used_bytes; /* headers and groups */
    /* The oldest record of the log in it; 0: none that still counts. */
    uint64_t first_index;
    /* The newest record that it ever held, also one that was superseded: the floor must reach it. 0: none. */
    uint64_t last_index;
    uint64_t age_us;          /* since it was begun; 0 if prepared */
    bool begun_before_opened; /* then age_us is since the log was opened, and it is older than that */
    enum wal_segment_state state;
    uint32_t pins; /* enum wal_segment_pin */
    uint32_t readers;
    bool is_lent; /* in this life, to the store, as a value file: its bytes stay when the log lets go of it */
};

/* The index that wal_set_floor last gave: the smaller of the two. */
uint64_t wal_floor_index(const struct wal *wal);
/* Each segment file, deleted ones first, then by number. The callback makes no wal_* calls. Blocks nothing, allocates
 * nothing; the time it takes grows with the log's length. */
void wal_explain(const struct wal *wal, void (*each)(void *context, const struct wal_segment_info *info),
                 void *context);

#endif
