/*
 * What the files of the log share. Read FORMAT-wal.md first for the bytes, wal.h for the flow.
 *
 *   wal_record.c   one record: seal, decode
 *   wal_group.c    one group: header, what its checksums bind
 *   wal_segment.c  one file: header block, names, making it anew or out of an old one
 *   wal_jobs.c     worker jobs: preparing segments ahead, deleting old ones or setting them aside, closing all
 *   wal_buffer.c   memory of groups: size classes, pools
 *   wal_cache.c    the tail of the log in memory: cached, in flight and forming groups in one ring
 *   wal_index.c    where on disk an index is: a sparse ordered vector
 *   wal_append.c   records into forming groups; cutting the log
 *   wal_write.c    sealing, the one write in flight, completion, marks, failure
 *   wal_blocking.c blocking mode: the same by the owner's hand; lent memory
 *   wal_scan.c     blocking readers: groups of a file, records of the log
 *   wal_find.c     recovery, first part: which segment files there are and how they chain
 *   wal_recover.c  recovery, second part: what the log says, torn or corrupt
 *   wal_settle.c   recovery, last part: made durable, the new segment, the tail in memory
 *   wal_carry.c    ... and the log's last group written once more
 *   wal_heal.c     recovery of a damaged log: what is kept of it, and what is remembered of the rest
 *   wal_faulty.c   segments that were damaged: set aside, and removed when they are no longer needed
 *   wal_read.c     asynchronous read-back
 *   wal_share.c    large records, lent to the store where they stand
 *   wal_explain.c  statistics; what keeps each segment
 *   wal_reset.c    the log goes on behind another entry
 *   wal_create.c   logs without records, for stores that have none; removing a log
 *   wal.c          opening, starting, closing, getters
 *
 * Owner: the consensus loop; worker jobs touch only their own struct.
 */
#ifndef HOLDFAST_STORAGE_WAL_INTERNAL_H
#define HOLDFAST_STORAGE_WAL_INTERNAL_H

#include "node/base/bytes.h"
#include "node/base/check.h"
#include "node/base/list.h"
#include "storage/wal.h"

enum {
    WAL_BLOCK_BYTES = ENV_BLOCK_BYTES,
    WAL_FORMAT_VERSION = 1,
    WAL_RECORD_VERSION = 1,
    WAL_GROUP_HEADER_BYTES = 128,
    WAL_SEGMENT_HEADER_BYTES = WAL_BLOCK_BYTES,
    /* A segment's first group is alone in its block: header and membership. */
    WAL_START_GROUP_BYTES = WAL_BLOCK_BYTES,
    WAL_HEAL_BYTES = 16, /* in a start group: the end that the log once had */
    WAL_FAULTY_MAX = 64, /* damaged segments that are kept aside */
    WAL_FIRST_RECORDS_OFFSET = WAL_SEGMENT_HEADER_BYTES + WAL_START_GROUP_BYTES,
    WAL_SCAN_BYTES = 1024 * 1024, /* one blocking read or write of recovery and preparation */
    WAL_INDEX_STRIDE = 64 * 1024, /* of a segment per entry of the sparse index, about */
    WAL_READS_MAX = 8,            /* reads from disk at a time; more wait their turn */
    WAL_NAME_BYTES = 32,          /* "0123456789abcdef.log.faulty" */
    WAL_BUFFER_CLASSES = 8,       /* 8 KiB << class */
    WAL_BUFFER_LENT = WAL_BUFFER_CLASSES + 1,
    WAL_BUFFER_BYTES_MIN = 8 * 1024,
    WAL_PREPARE_RETRY_US = 1000 * 1000,
    WAL_SMALL_GROUP_BYTES = 32 * 1024 /* blocking mode: these need space that was written before, larger ones don't */
};

static_assert(WAL_GROUP_HEADER_BYTES + WAL_HEAL_BYTES + LIMIT_MEMBERSHIP_BYTES <= WAL_START_GROUP_BYTES,
              "one block holds it");

static inline uint64_t wal__padded(uint64_t len) {
    return (len + WAL_BLOCK_BYTES - 1) / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES;
}

/* ---- Records (wal_record.c) ------------------------------------------------------------------------------------- */

/* A record that was checked before: no checks. */
struct wal_record wal__record_at(const uint8_t *bytes);

/* ---- Groups (wal_group.c) --------------------------------------------------------------------------------------- */

enum wal__group_flags {
    WAL__GROUP_MARK = 1,       /* written after idle time, so that damage to the group before it is found */
    WAL__GROUP_MEMBERSHIP = 2, /* a membership follows the header */
    WAL__GROUP_FIRST = 4,      /* of its segment: names the segment before and where that one ends */
    WAL__GROUP_RESET = 8,      /* all earlier records are void: the log starts after (synced_index, synced_term) */
    WAL__GROUP_CARRY = 16,     /* FIRST: the group behind it repeats the log's last one; also on that group */
    WAL__GROUP_HEAL = 32,      /* FIRST: the log once ended later; where follows the header, before the membership */
    WAL__GROUP_FLAGS_KNOWN = 63
};

struct wal__group_header {
    uint16_t flags;
    uint32_t total_bytes; /* header, membership, records; without padding */
    uint32_t record_count;
    uint32_t membership_bytes;
    uint64_t generation; /* of the segment */
    uint64_t sequence;
    uint64_t synced_index; /* the log's end before this group's records: all of it durable */
    uint64_t synced_term;  /* term of that entry; 0 if unknown */
    uint64_t commit_index;
    uint64_t term;
    uint64_t vote;
    uint64_t first_index;       /* 0 if there are no records */
    uint64_t previous_checksum; /* the checksum of the header of the group before this one; 0 for the very first */
    uint64_t previous_segment;  /* FIRST only: number, 0 if there was none */
    uint64_t previous_end;      /* FIRST only: offset where its groups end */
    uint64_t body_checksum;
    uint64_t checksum; /* result of sealing and decoding */
};

/* Between the header and the membership. */
static inline size_t wal__heal_bytes(const struct wal__group_header *header) {
    return (header->flags & WAL__GROUP_HEAL) != 0 ? WAL_HEAL_BYTES : 0;
}

/* Writes header->... to the front of `group`, whose membership and records stand in place. Fills in body_checksum and
 * checksum. offsets: where the records begin, record_count of them. */
void wal__group_seal(uint8_t *group, struct wal__group_header *header, const uint32_t *offsets);
/* Looks at WAL_GROUP_HEADER_BYTES only. STATUS_CORRUPT if it is no header; STATUS_UNSUPPORTED if it is one of another
 * version. */
MUST_USE enum status wal__group_header_decode(const uint8_t *bytes, struct wal__group_header *ret_header);
/* Membership and records behind a decoded header (total_bytes at group): every checksum, contiguous indexes, terms in
 * order. */
MUST_USE enum status wal__group_check_body(const struct wal__group_header *header, const uint8_t *group);
/* The newest index it holds; first_index - 1 if it has no records. */
static inline uint64_t wal__group_last_index(const struct wal__group_header *header) {
    return header->first_index + header->record_count - 1;
}

/* ---- Segments (wal_segment.c) ----------------------------------------------------------------------------------- */

struct wal__segment {
    struct list link; /* wal->segments (oldest first), wal->prepared, wal->spare_segments, wal->doomed, or nowhere */
    struct env_file *file;
    struct env_file
        *cached;         /* the same file through the page cache, for groups of large records; NULL: there is none */
    uint64_t number;     /* its name; grows */
    uint64_t generation; /* a nonce, so that no bytes of another life pass for this one's */
    uint64_t bytes;
    uint64_t end;         /* where the next group goes; all before it is sealed */
    uint64_t written_end; /* all before it is durable */
    uint64_t max_index;   /* newest record ever written to it, superseded or not; 0 if none */
    uint64_t filled_end;  /* blocking mode: all before it was written before, if only with zeroes */
    uint64_t small_bytes; /* that groups of at most WAL_SMALL_GROUP_BYTES took, while it was written */
    uint64_t begun_us;    /* env clock of its start group; 0: prepared, or begun in an earlier life */
    uint32_t readers;     /* reads under way: not to be deleted */
    bool own;             /* all its groups are of this life of the log, and nobody else's */
    uint32_t lent; /* so often it was lent and not given back (wal_share.c): its file may have a name elsewhere */
    bool recycled; /* made out of an old one: blocks of earlier lives stand behind its groups */
    bool aside;    /* its name has the suffix ".tmp": no part of the log any more */
    bool faulty;   /* ... ".faulty": likewise, because of damage in it or before it */
    bool keep;     /* with the delete job: to be set aside, not removed, */
    bool gone;     /* and: that is done */
    /* For wal_share.c: */
    struct log_record *large; /* its large records, by index; only of groups that this life wrote */
    uint32_t large_count;
    uint32_t large_capacity;
    uint64_t large_bytes;   /* of them all */
    uint64_t last_checksum; /* of its last group's header, once a segment follows; else 0 */
};

struct wal__segment_header {
    uint8_t cluster_id[WAL_CLUSTER_ID_BYTES];
    uint64_t node_id;
    uint64_t number;
    uint64_t generation;
    uint64_t bytes;
    uint64_t incarnation; /* of the log, not 0: the same in all its segments */
    bool recycled;
    uint64_t filled_bytes; /* not on disk: how far it is written when it is made, at least; space for all is reserved */
};

/* block: WAL_SEGMENT_HEADER_BYTES, all of it written. */
void wal__segment_header_seal(uint8_t *block, const struct wal__segment_header *header);
/* STATUS_CORRUPT; STATUS_UNSUPPORTED if it is sound but of another version. */
MUST_USE enum status wal__segment_header_decode(const uint8_t *block, struct wal__segment_header *ret_header);

#define WAL_FAULTY_SUFFIX ".faulty"

/* "dir/0123456789abcdef.log" plus suffix, into path[LIMIT_PATH_BYTES]. */
void wal__segment_path(char *path, const char *dir, uint64_t number, const char *suffix);
/* True if the name is a segment's with this suffix ("" or ".tmp"). */
bool wal__segment_parse_name(const char *name, const char *suffix, uint64_t *ret_number);

/* Blocks: temporary file, zero-filled, header, sync, rename, sync of the directory, opened for direct I/O. On failure
 * nothing is left but maybe a temporary file. */
MUST_USE enum status wal__segment_create(struct env *env, const char *dir, const struct wal__segment_header *header,
                                         struct env_file **ret_file, struct error *err);
/* Blocks: opens a segment that was just made through the page cache, too, if the log has large records to lend: they
 * are read again, as values, soon and by others. If that can't be, its groups are written past it as all others are. */
void wal__segment_open_cached(const struct wal *wal, struct wal__segment *segment);
/* Blocks: both handles; nothing is written. */
void wal__segment_close(struct wal__segment *segment);
/* Blocks: the file of a segment that the log no longer needs gets a name that the next opening removes. Before the
 * directory is synced the old name may come back after a crash, so its bytes must still be as they were. */
MUST_USE enum status wal__segment_set_aside(struct env *env, const char *dir, uint64_t number, struct error *err);
/* Blocks: such a file becomes the segment that `header` says: header and empty start block written and synced, renamed,
 * the directory synced, opened by its new name. A failure leaves neither name, unless it can't be removed. */
MUST_USE enum status wal__segment_reuse(struct env *env, const char *dir, uint64_t old_number,
                                        const struct wal__segment_header *header, struct env_file **ret_file,
                                        struct error *err);

/* ---- Memory (wal_buffer.c) -------------------------------------------------------------------------------------- */

struct wal__buffer {
    struct list link; /* in its class's free list */
    uint8_t *data;    /* WAL_BLOCK_BYTES aligned */
    size_t capacity;  /* a multiple of WAL_BLOCK_BYTES */
    uint32_t references;
    uint32_t size_class; /* WAL_BUFFER_CLASSES: none, freed after use; WAL_BUFFER_LENT: the owner's memory */
};

struct wal__pool {
    struct alloc *alloc;
    struct list free[WAL_BUFFER_CLASSES];
    uint32_t free_count[WAL_BUFFER_CLASSES];
    struct list groups; /* free wal__groups, their offset arrays kept */
    uint32_t group_count;
    uint64_t lent; /* buffers out */
    /* Blocking mode: a buffer without references is free. */
    struct wal__buffer pieces[WAL_LENT_COUNT];
    bool has_pieces;
};

/* Records in memory, laid out as the disk gets them. */
struct wal__group {
    struct list link; /* wal->pending, wal->spares, the pool, or nowhere */
    struct wal__buffer *buffer;
    uint32_t *offsets; /* of each record in the buffer */
    uint32_t offset_capacity;
    uint32_t count;      /* records in the buffer */
    size_t large_bytes;  /* of records that can be lent, at most: some may have been cut off */
    uint32_t live_count; /* the first so many count; the others were cut off after sealing */
    size_t len;          /* header and records */
    uint64_t first_index;
    bool sealed;
    bool cached;  /* in the ring */
    bool writing; /* in flight */
};

void wal__pool_init(struct wal__pool *pool, struct alloc *alloc);
void wal__pool_deinit(struct wal__pool *pool);
/* One reference, at least `capacity` bytes. NULL: no memory. */
struct wal__buffer *wal__buffer_take(struct wal__pool *pool, size_t capacity);
void wal__buffer_unref(struct wal__pool *pool, struct wal__buffer *buffer);
/* Empty, with room for `len` bytes (header included) and `record_count` records. NULL: no memory. */
struct wal__group *wal__group_take(struct wal__pool *pool, size_t len, uint32_t record_count);
/* The same, in a lent piece; NULL also if none is free. */
struct wal__group *wal__group_take_lent(struct wal__pool *pool);
/* More room in a group that isn't sealed. STATUS_NO_MEMORY: as it was. */
MUST_USE enum status wal__group_grow(struct wal__pool *pool, struct wal__group *group, size_t len,
                                     uint32_t record_count);
/* Drops the buffer's reference; the struct goes back to the pool. */
void wal__group_release(struct wal__pool *pool, struct wal__group *group);

/* ---- The tail in memory (wal_cache.c) --------------------------------------------------------------------------- */

/* Groups with live records, contiguous, oldest first, up to the log's last index: cached, in flight, forming. */
struct wal__cache {
    struct wal__group **slots; /* ring */
    uint32_t capacity;         /* power of two, or 0 */
    uint32_t head;
    uint32_t count;
    uint32_t applied_count; /* so many at the front are written and applied: they may go */
    uint64_t bytes;         /* buffers of all */
    uint64_t applied_bytes; /* buffers of those */
};

MUST_USE enum status wal__cache_reserve(struct wal *wal, uint32_t more);
/* Room was reserved. */
void wal__cache_push(struct wal *wal, struct wal__group *group);
/* NULL if the index isn't in memory. */
struct wal__group *wal__cache_find(struct wal *wal, uint64_t index, uint32_t *ret_slot);
/* The newest group, NULL if there is none. */
struct wal__group *wal__cache_last(struct wal *wal);
/* Records from `index` on are void. Groups without live records leave; unsealed ones among them go to wal->spares. */
void wal__cache_cut(struct wal *wal, uint64_t index);
/* The newest group, still without records, leaves the cache and wal->pending. */
void wal__cache_drop_empty(struct wal *wal, struct wal__group *group);
/* Lets go of what is applied and beyond the budget. */
void wal__cache_trim(struct wal *wal);
/* For recovery: drops the oldest group whatever it is. */
void wal__cache_pop(struct wal *wal);
void wal__cache_deinit(struct wal *wal);
/* A group's buffer was replaced by a larger one. */
void wal__cache_grown(struct wal *wal, size_t before, size_t after);
/* Term of a cached entry; 0 if it isn't in memory. */
uint64_t wal__cache_term(struct wal *wal, uint64_t index);

/* ---- Where on disk (wal_index.c) -------------------------------------------------------------------------------- */

struct wal__index_entry {
    uint64_t first_index;
    struct wal__segment *segment;
    uint64_t offset; /* of a group that begins with first_index */
    bool after_cut;  /* superseded groups may stand right before it */
};

/* Entry i covers first_index(i) .. first_index(i + 1) - 1, found by walking the groups of its segment from its offset
 * on. */
struct wal__index {
    struct wal__index_entry *entries;
    size_t start;
    size_t count; /* from start on */
    size_t capacity;
    bool was_cut; /* the next entry stands behind superseded groups */
};

MUST_USE enum status wal__index_reserve(struct wal__index *index, struct alloc *alloc, size_t more);
/* A group with records was sealed or found: adds an entry if it needs one. Room was reserved. */
void wal__index_add(struct wal__index *index, uint64_t first_index, struct wal__segment *segment, uint64_t offset);
/* Entries from `first_index` on are void. */
void wal__index_cut(struct wal__index *index, uint64_t first_index);
void wal__index_drop_segment(struct wal__index *index, const struct wal__segment *segment);
/* Position (0 .. count - 1) of the entry that covers it; count if none does. */
size_t wal__index_find(const struct wal__index *index, uint64_t log_index);
static inline const struct wal__index_entry *wal__index_at(const struct wal__index *index, size_t position) {
    CHECK(position < index->count);
    return &index->entries[index->start + position];
}

/* ---- Blocking readers (wal_scan.c) ------------------------------------------------------------------------------ */

/* A window over a segment's file. */
struct wal__scanner {
    struct alloc *alloc;
    struct env_file *file;
    uint64_t file_bytes;
    size_t read_bytes; /* per read, at least */
    uint8_t *memory;
    size_t capacity;
    uint64_t window_offset;
    size_t window_len;
    uint64_t bytes_read;
};

/* One good group. */
struct wal__group_view {
    struct wal__group_header header;
    const uint8_t *bytes; /* total_bytes; valid until the scanner's next call */
    uint64_t heal_index;  /* 0: it says nothing of that */
    uint64_t heal_term;
    struct slice membership;
    struct slice records;
};

enum wal__verdict {
    WAL__GROUP_GOOD,
    WAL__GROUP_BAD_BODY,  /* the header is good, header filled in */
    WAL__GROUP_BAD_HEADER /* or another life's */
};

void wal__scanner_init(struct wal__scanner *scanner, struct alloc *alloc);
void wal__scanner_deinit(struct wal__scanner *scanner);
/* read_bytes: a multiple of WAL_BLOCK_BYTES; WAL_SCAN_BYTES to read on and on, less to look at a little. */
void wal__scanner_set_file(struct wal__scanner *scanner, const struct wal__segment *segment, size_t read_bytes);
/* Up to len bytes at offset (a multiple of WAL_BLOCK_BYTES), fewer only at the end of the file. */
MUST_USE enum status wal__scanner_view(struct wal__scanner *scanner, uint64_t offset, size_t len,
                                       struct slice *ret_bytes, struct error *err);
/* The group at offset, judged. STATUS_OK with a verdict, or the failure to read; STATUS_UNSUPPORTED. */
MUST_USE enum status wal__scan_group(struct wal__scanner *scanner, uint64_t offset, uint64_t generation,
                                     enum wal__verdict *ret_verdict, struct wal__group_view *ret_view,
                                     struct error *err);

/* Visits, in log order, the groups that hold first_index..last_index; live_first..live_last is what counts in each. */
typedef enum status (*wal__visit)(void *context, const struct wal__group_view *view, uint64_t live_first,
                                  uint64_t live_last, struct error *err);
MUST_USE enum status wal__walk(struct wal *wal, struct wal__scanner *scanner, uint64_t first_index, uint64_t last_index,
                               wal__visit visit, void *context, struct error *err);

/* ---- Recovery (wal_find.c, wal_recover.c, wal_settle.c) --------------------------------------------------------- */

/* A segment file as found. */
struct wal__found {
    struct wal__segment *segment; /* ours until it is handed to the wal */
    bool header_good;
    enum wal__verdict start_verdict;
    struct wal__group_header start; /* unless WAL__GROUP_BAD_HEADER */
    bool on_chain;
    bool empty;     /* of a damaged log: there is nothing in it */
    bool reusable;  /* prepared, and nothing was written to it */
    uint64_t end;   /* as the segment after it says; 0 if none does */
    uint64_t chain; /* checksum of its last group, once it is read */
};

/* The last group with records that was read: where it stands, and where the log ends without it. */
struct wal__last_group {
    struct wal__segment *segment; /* NULL: there is none */
    uint64_t offset;
    uint64_t base_segment; /* number; 0: none */
    uint64_t base_end;
    uint64_t base_chain;
};

struct wal__recovery {
    struct wal *wal;
    const struct wal_frontier *frontier;
    struct wal_recovered *out;
    struct error *err;
    struct wal__scanner scanner;
    struct wal__found *found; /* by number */
    size_t found_count;
    size_t newest; /* on the chain; found_count if the chain is empty */
    size_t oldest;
    /* While the log is read: */
    uint64_t chain;                       /* checksum of the last group that counts */
    uint64_t sequence;                    /* its sequence */
    uint64_t sequence_seen;               /* highest in any good header, counted or not */
    struct wal__group_header last_header; /* has the newest term and vote */
    uint64_t commit_index;
    uint64_t base_index; /* the log starts after this entry */
    uint64_t base_term;
    uint64_t frontier_term; /* of the log's entry at frontier->index; 0 if unknown */
    bool stopped;           /* at damage: nothing behind it counts */
    size_t hole;            /* once there is a fault: the position of its segment, or of the first one behind it */
    bool heals;             /* what was found behind the hole is to be set aside */
    struct wal__last_group last_group;
};

/* Lists, opens and looks at the heads of all segment files, finds the chain. May set out->fault. */
MUST_USE enum status wal__find_segments(struct wal__recovery *recovery);
void wal__fault(struct wal__recovery *recovery, size_t position, uint64_t number, uint64_t offset, const char *what);
/* Marks the chain that ends with the newest segment below `limit`. May set out->fault. */
void wal__find_chain(struct wal__recovery *recovery, size_t limit);
/* Reads one segment of the chain up to where it ends or is damaged. */
MUST_USE enum status wal__read_segment(struct wal__recovery *recovery, struct wal__found *found,
                                       enum wal__verdict *ret_verdict, struct wal__group_view *ret_view);
/* Reads the chain from `oldest` on, and judges what is damaged. */
MUST_USE enum status wal__read_log(struct wal__recovery *recovery);
/* Numbers of the files of a suffix, ascending. */
struct wal__names {
    struct alloc *alloc;
    uint64_t *numbers; /* the caller's to free, whatever the result */
    size_t count;
    size_t capacity;
    const char *suffix;
};
MUST_USE enum status wal__list_numbers(struct wal *wal, struct wal__names *names, const char *suffix,
                                       struct error *err);
/* True if the log lacks the frontier's entry, or what follows it: then nothing in it counts. */
bool wal__lacks_frontier(const struct wal__recovery *recovery);
/* The log has a good header of this one. */
void wal__saw(struct wal__recovery *recovery, const struct wal__group_header *header);
/* Finds the way to go on with a log that is damaged: what of it is kept (wal_heal.c). STATUS_NOT_FOUND: there is none,
 * as term or vote are lost. */
MUST_USE enum status wal__heal(struct wal__recovery *recovery);
/* Takes a segment out of the log and keeps its file under another name, which isn't durable yet (wal_faulty.c). */
MUST_USE enum status wal__set_faulty(struct wal__recovery *recovery, struct wal__found *found);
/* Finds those of earlier openings. */
MUST_USE enum status wal__find_faulty(struct wal__recovery *recovery);
void wal__free_found(struct wal *wal, struct wal__found *found);
/* The newest segment of the chain that holds records: the next one is written behind it. NULL if there is none. */
const struct wal__found *wal__last_with_records(const struct wal__recovery *recovery);
/* After a fault: the chain can be read, nothing else is touched. */
void wal__keep_files(struct wal__recovery *recovery);
/* Makes the log durable and begins the next segment; reset: the log starts after wal->sealed_index, earlier records are
 * void. */
MUST_USE enum status wal__settle(struct wal__recovery *recovery, bool reset);
/* Writes the start group of a fresh segment and behind it the log's last group once more, durably (wal_carry.c).
 * STATUS_NOT_FOUND: there is nothing to carry, or no room for it; nothing was written. */
MUST_USE enum status wal__carry(struct wal__recovery *recovery, struct wal__segment *segment);
MUST_USE enum status wal__recover(struct wal *wal, const struct wal_frontier *frontier, struct wal_recovered *out,
                                  struct error *err);

/* ---- The log ---------------------------------------------------------------------------------------------------- */

/* A read from disk under way. */
struct wal__fetch {
    struct wal *wal;
    struct wal_read *read; /* NULL: free */
    struct wal__segment *segment;
    struct wal__buffer *buffer;
    uint64_t offset;      /* where the buffer's bytes come from */
    uint64_t end;         /* of what may be read */
    uint64_t limit_index; /* newest index that this stretch holds for sure */
    bool stale;           /* the log was cut below limit_index meanwhile: look again */
    bool busy;
    struct env_io io;
};

struct wal__prepare_job {
    struct env_work work;
    struct wal *wal;
    bool busy;
    bool failing;      /* the last try failed; tried again by the timer */
    bool told_failing; /* what prepare_state was told last */
    struct wal__segment *segment;
    struct wal__segment_header header;
    uint64_t old_number; /* of the spare segment that it is made of; 0: a new file */
    enum status status;
    struct error error;
};

struct wal__delete_job {
    struct env_work work;
    struct wal *wal;
    bool busy;
    struct list segments;
    enum status status; /* not STATUS_OK: the directory is not to be relied on */
};

struct wal {
    struct env *env;
    struct alloc *alloc;
    struct env_loop *loop;
    struct wal_options options; /* dir points to ours */
    char dir[LIMIT_PATH_BYTES];
    uint32_t group_bytes_max; /* header and records */
    uint64_t reserve_bytes;   /* at a segment's end, for groups without records */

    uint64_t opened_us;
    bool started;
    bool failed; /* final */
    bool told_failed;
    bool closing;
    struct error failure;

    uint64_t incarnation; /* drawn with the first segment; from a good header of any */

    /* The log as appended, as sealed, as durable. */
    uint64_t first_index;
    uint64_t last_index;
    uint64_t last_term;
    uint64_t sealed_index; /* last_index without what waits */
    uint64_t sealed_term;  /* 0: unknown */
    uint64_t synced_index;
    uint64_t commit_index;
    uint64_t applied_index;
    uint64_t term;
    uint64_t vote;
    bool state_dirty;    /* term and vote wait for a group, */
    bool reset_due;      /* or that the log starts after sealed_index */
    uint64_t heal_index; /* the log once ended there, in heal_term, and lost it; 0: it didn't */
    uint64_t heal_term;
    uint8_t membership[LIMIT_MEMBERSHIP_BYTES];
    uint32_t membership_len;
    uint8_t recovered_membership[LIMIT_MEMBERSHIP_BYTES];

    /* Forming (wal_append.c). */
    struct wal__pool pool;
    struct list pending; /* groups with records, not sealed, oldest first; each is in the cache too */
    uint32_t pending_count;
    struct list spares; /* empty groups that wal_reserve made ready */
    size_t group_bytes_hint;
    struct wal__group *appending; /* between begin and end */
    struct wal_record append_record;
    struct wal__cache cache;
    struct wal__index index;

    /* Writing (wal_write.c). */
    uint64_t sequence; /* of the last sealed group */
    uint64_t chain;    /* its checksum */
    bool writing;
    struct wal__group *writing_group; /* NULL: a group without records */
    struct wal__group_header writing_header;
    enum wal_trigger writing_trigger;
    uint64_t writing_since_us;
    bool gathered;  /* what is pending came while the last write was under way */
    uint8_t *block; /* for groups without records */
    struct env_io write_io;
    struct env_task flush_task;
    struct env_task tell_task;
    struct env_timer mark_timer;
    bool needs_mark;
    bool mark_due;
    bool starved;       /* blocking mode: a group waits for a segment, */
    bool wants_segment; /* or a record does */

    /* Files (wal_segment.c, wal_jobs.c). */
    struct list segments; /* oldest first; the last one is active */
    struct wal__segment *active;
    struct wal__segment *durable_segment; /* holds the last completed group */
    struct list prepared;
    uint32_t prepared_count;
    struct list spare_segments; /* set aside, and durably so */
    uint32_t spare_segment_count;
    bool giving_space;  /* what was spare waits for the delete job */
    bool never_recycle; /* a job failed at the directory: what it has for durable may not be so */
    struct list doomed;
    struct list faulty; /* damaged segments that are kept aside */
    uint64_t next_number;
    uint64_t floor_index;
    struct wal__prepare_job prepare;
    struct env_timer prepare_timer;
    struct wal__delete_job delete_job;
    /* Lending (wal_share.c). */
    bool turn_wanted; /* records behind this are to go to another segment: */
    uint64_t turn_index;
    bool lends; /* mostly large records lately: the next segment is worth preparing early, and not worth filling */

    /* Reading (wal_read.c). */
    struct wal__fetch fetches[WAL_READS_MAX];
    struct list reads_waiting; /* for a fetch */
    struct list reads_ready;   /* for the loop's next chance to call done */
    struct env_task reads_task;

    void (*closed)(void *context);
    void *closed_context;
    struct wal_stats stats;
};

/* wal_append.c */
void wal__release_spares(struct wal *wal);
/* STATUS_NO_SPACE only while preparation fails and what is prepared can't take so many bytes of records more. */
MUST_USE enum status wal__check_space(struct wal *wal, uint64_t record_bytes);

/* wal_write.c */
void wal__write_init(struct wal *wal);
/* The log begins to be written: the start group that recovery left gets its mark. */
void wal__write_started(struct wal *wal);
void wal__wake_writer(struct wal *wal);
void wal__fail(struct wal *wal, const struct error *err);
/* Chooses what is written next and begins it, if there is anything. */
void wal__write_next(struct wal *wal);
/* Header, checksums and padding of the group that is being written. */
void wal__finish_seal(struct wal *wal);
/* The write ended as wal->write_io says. */
void wal__write_ended(struct wal *wal);
/* Bytes for groups with records left in a segment. */
uint64_t wal__room(const struct wal *wal, const struct wal__segment *segment);
/* Fills in the start group of `segment`, which follows `previous` (NULL: none), into wal->block. */
void wal__seal_start(struct wal *wal, struct wal__segment *segment, const struct wal__segment *previous, uint16_t flags,
                     struct wal__group_header *header);

/* wal_jobs.c */
void wal__jobs_init(struct wal *wal);
/* Random bits, not 0. */
uint64_t wal__draw_incarnation(struct env *env);
struct wal__segment *wal__segment_new(struct wal *wal);
/* Gives it the next number and a generation; returns the header to make its file with. */
struct wal__segment_header wal__next_segment(struct wal *wal, struct wal__segment *segment, uint64_t bytes);
/* Starts what is needed and possible. */
void wal__prepare_more(struct wal *wal);
void wal__delete_more(struct wal *wal);
/* True when nothing of the wal is with the kernel or a worker. */
bool wal__is_quiet(const struct wal *wal);
/* While closing: hands the files to a worker once all is quiet. */
void wal__close_if_quiet(struct wal *wal);

/* wal_read.c */
void wal__reads_init(struct wal *wal);
/* The log was cut at index: reads under way that reach it look again. */
void wal__reads_cut(struct wal *wal, uint64_t index);
/* Forgets all reads that have not been answered. */
void wal__reads_abandon(struct wal *wal);

/* wal_share.c */
static inline bool wal__is_large(const struct wal *wal, size_t payload_len) {
    return wal->options.share_payload_bytes > 0 && payload_len >= wal->options.share_payload_bytes;
}
/* The group was sealed into the segment at this offset. */
void wal__share_note(struct wal *wal, struct wal__segment *segment, const struct wal__group *group, uint64_t offset);
/* The segment leaves the log. */
void wal__share_forget(struct wal *wal, struct wal__segment *segment);
/* The log was cut at index. */
void wal__share_cut(struct wal *wal, uint64_t index);
/* True if a segment is to begin now although the active one has room. */
bool wal__turn_is_due(const struct wal *wal);
/* The next segment is begun; nothing more comes to this one. */
void wal__turned(struct wal *wal, struct wal__segment *previous);

/* wal_explain.c */
/* A group was written. */
void wal__count_write(struct wal *wal);

/* wal.c */
/* Makes it if it isn't there. The directory itself must survive a crash, whoever made it. */
MUST_USE enum status wal__make_dir(struct env *env, const char *dir, struct error *err);
/* News for `failed` or `prepare_state`: told later in this turn. */
void wal__tell(struct wal *wal);
void wal__free(struct wal *wal);

#endif
