/*
 * libholdfast: the client of a Holdfast cluster.
 *
 * Order of calls: holdfast_options_init (or a profile), holdfast_open, any number of calls from any number of threads,
 * holdfast_close. A handle keeps its own thread, which owns the connections; it finds the leader, follows it when it
 * moves and goes elsewhere when a node fails or says nothing.
 *
 * Outcomes. Every call ends in exactly one of three ways: done (HOLDFAST_OK), surely not done (HOLDFAST_FAILED), or,
 * for writes only, unknown (HOLDFAST_UNKNOWN: the reply got lost; it may or may not have happened). The library sends a
 * request again by itself only when it surely was not executed, or when it is a read; a write of unknown outcome is
 * sent again only if the caller asked for that (retry_unknown).
 *
 * Deadlines. Every call has one; it travels with the request. A call never ends later than its deadline, give or take
 * scheduling.
 *
 * Blocking calls wait for a free place when too much is in flight; asynchronous ones are refused with
 * HOLDFAST_CODE_BUSY. Callbacks run on the handle's thread, exactly once per accepted call, never from inside the call
 * that asked for them. They must not block; they may make asynchronous calls. A blocking call from a callback is
 * refused with HOLDFAST_CODE_INVALID.
 *
 * Limits: keys 1 to 4,096 bytes, values 0 to 16 MiB, a batch at most 65,536 operations and 16 MiB. Bytes are raw: any
 * value.
 */
#ifndef HOLDFAST_H
#define HOLDFAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct holdfast;
struct holdfast_profile;

/* ---- Results -------------------------------------------------------------------------------------------------- */

enum holdfast_outcome {
    HOLDFAST_OK = 0,     /* done */
    HOLDFAST_FAILED = 1, /* surely not done; code says why */
    HOLDFAST_UNKNOWN = 2 /* a write that may or may not have happened; code says what went wrong */
};

/* Why. The numbers are stable. */
enum holdfast_code {
    HOLDFAST_CODE_OK = 0,
    HOLDFAST_CODE_NOT_FOUND = 1,   /* no such key */
    HOLDFAST_CODE_INVALID = 2,     /* an argument is wrong */
    HOLDFAST_CODE_TOO_LARGE = 3,   /* key, value or batch beyond its limit */
    HOLDFAST_CODE_BUSY = 4,        /* too much in flight */
    HOLDFAST_CODE_TIMEOUT = 5,     /* the deadline passed */
    HOLDFAST_CODE_NOT_LEADER = 6,  /* a write to a node that was named (options.node) and isn't the leader */
    HOLDFAST_CODE_UNAVAILABLE = 7, /* the cluster has no leader, or the node isn't ready */
    HOLDFAST_CODE_DENIED = 8,      /* the certificate, or what it permits */
    HOLDFAST_CODE_UNSUPPORTED = 9,
    HOLDFAST_CODE_NO_SPACE = 10,
    HOLDFAST_CODE_CORRUPT = 11, /* bytes that fail their checks, on disk or on the wire */
    HOLDFAST_CODE_INTERNAL = 12,
    HOLDFAST_CODE_COMPACTED = 13,   /* the revision is older than the history kept */
    HOLDFAST_CODE_UNKNOWN = 14,     /* the node itself can't tell the outcome */
    HOLDFAST_CODE_CONDITION = 15,   /* what must hold for it doesn't: a change of membership that is refused */
    HOLDFAST_CODE_UNREACHABLE = 64, /* no node could be reached */
    HOLDFAST_CODE_CLOSED = 65,      /* the connection or the handle was closed */
    HOLDFAST_CODE_NO_MEMORY = 66,
    HOLDFAST_CODE_IO = 67 /* a file could not be read */
};

enum { HOLDFAST_MESSAGE_BYTES = 256 };

struct holdfast_result {
    enum holdfast_outcome outcome;
    enum holdfast_code code;
    uint64_t revision;                    /* of the write, or of the state that was read; 0 if none */
    char message[HOLDFAST_MESSAGE_BYTES]; /* one line; empty when outcome is HOLDFAST_OK */
};

/* "ok", "not_found", ...; "internal" for numbers that aren't codes. Never NULL. */
const char *holdfast_code_name(enum holdfast_code code);
/* "ok", "failed", "unknown". */
const char *holdfast_outcome_name(enum holdfast_outcome outcome);
/* "0.1.0". */
const char *holdfast_version(void);

/* ---- Opening -------------------------------------------------------------------------------------------------- */

struct holdfast_options {
    const char *endpoints; /* "host:port,..." or "name=host:port,..."; 1 to 32 */
    const char *ca_file;   /* PEM: who may sign the nodes' certificates */
    const char *cert_file; /* PEM; NULL: none (the nodes will refuse) */
    const char *key_file;
    const char
        *server_thumbprints;      /* "hex,..." SHA-256 of acceptable node certificates; NULL: any that the CA signed */
    const char *node;             /* talk to this node only: a name of endpoints, or "host:port"; NULL: to the leader */
    uint32_t timeout_ms;          /* deadline of calls that name none; 1 to 3,600,000 */
    uint32_t connections;         /* to each node in use, 1 to 256 */
    uint32_t in_flight_max;       /* requests, 1 to 65,536 */
    uint64_t in_flight_bytes_max; /* keys and values of requests in flight; one request may exceed it alone */
    uint32_t silence_ms; /* a node that sends nothing for so long while requests wait is given up, 50 to 60,000; after a
                            tenth of it the others are asked who leads */
};

/* Defaults: 5,000 ms, 1 connection, 4,096 requests, 64 MiB, 1,000 ms; everything else NULL. */
void holdfast_options_init(struct holdfast_options *options);

/* Reads the files, starts the thread; connects with the first call. Copies what options points to. Blocks for file
 * reads only. HOLDFAST_OK, or HOLDFAST_FAILED with *ret_handle untouched. result may be NULL. */
enum holdfast_outcome holdfast_open(const struct holdfast_options *options, struct holdfast **ret_handle,
                                    struct holdfast_result *result);
/* Ends what is under way with HOLDFAST_CODE_CLOSED (callbacks run), ends the thread, frees the handle. Not from a
 * callback, and not while other threads are in a call. NULL is accepted. */
void holdfast_close(struct holdfast *handle);

/* A profile is an INI file:
 *
 *   [client]
 *   endpoints = 127.0.0.1:4401, 127.0.0.1:4402     optional where nodes are named
 *   node.n1 = 127.0.0.1:4401                       names
 *   ca = ca.pem                                    relative to the file
 *   cert = client.pem
 *   key = client.key
 *   server_thumbprints = ...                       optional
 *   timeout_ms = 5000                              optional
 *
 * Unknown, duplicate and overlong lines are refused with file and line. */
enum holdfast_outcome holdfast_profile_load(const char *path, struct holdfast_profile **ret_profile,
                                            struct holdfast_result *result);
void holdfast_profile_free(struct holdfast_profile *profile);
/* Fills options, defaults included; its strings are borrowed from the profile. */
void holdfast_profile_options(const struct holdfast_profile *profile, struct holdfast_options *options);
/* Load, open, free. */
enum holdfast_outcome holdfast_open_profile(const char *path, struct holdfast **ret_handle,
                                            struct holdfast_result *result);

/* Endpoints as configured (nodes learnt from others are not counted). Names and addresses live as long as the handle; a
 * node without a name is named by its address. */
uint32_t holdfast_endpoint_count(const struct holdfast *handle);
const char *holdfast_endpoint_name(const struct holdfast *handle, uint32_t endpoint);
const char *holdfast_endpoint_address(const struct holdfast *handle, uint32_t endpoint);

/* ---- Data ----------------------------------------------------------------------------------------------------- */

struct holdfast_write_options {
    uint32_t timeout_ms; /* 0: the handle's */
    /* Send again even if an earlier attempt may have happened. A put that is sent twice can overwrite what another
     * client wrote in between: only for keys that nobody else writes. */
    bool retry_unknown;
};

struct holdfast_read_options {
    uint32_t timeout_ms; /* 0: the handle's */
    bool local;          /* what the asked node has applied, without asking the leader: may be old */
    uint64_t revision;   /* read as of this revision; 0: the newest */
    uint64_t at_least;   /* wait until this revision is applied; 0: no */
};

struct holdfast_value {
    const void *data; /* never NULL, also when len is 0 */
    size_t len;
    uint64_t mod_revision; /* the write that made it */
};

struct holdfast_pair {
    const void *key;
    size_t key_len;
    const void *value; /* NULL with keys_only */
    size_t value_len;
    uint64_t mod_revision;
};

struct holdfast_page {
    const struct holdfast_pair *pairs; /* keys ascending as memcmp orders them */
    size_t pair_count;                 /* 0 with count_only */
    uint64_t count;                    /* entries of this page */
    uint64_t revision;                 /* ask for the next page at this revision */
    bool more;                         /* there are further entries: ask again with lower = next_lower */
    const void *next_lower;            /* last key and a zero byte; NULL unless more */
    size_t next_lower_len;
};

struct holdfast_scan {
    const void *lower; /* first key, inclusive; len 0: the first key there is */
    size_t lower_len;
    const void *upper; /* end, exclusive; len 0: no end */
    size_t upper_len;
    uint32_t limit; /* entries of this page; 0: as many as the node sends at once */
    bool keys_only;
    bool count_only;
};

/* Keys from lower (inclusive) to upper (exclusive), as memcmp orders them. */
struct holdfast_range {
    const void *lower; /* len 0: the first key there is */
    size_t lower_len;
    const void *upper; /* len 0: no end; else above lower */
    size_t upper_len;
};

enum holdfast_operation_kind { HOLDFAST_PUT = 1, HOLDFAST_DELETE = 2, HOLDFAST_DELETE_RANGE = 3 };

struct holdfast_operation {
    enum holdfast_operation_kind kind;
    const void *key;
    size_t key_len;
    const void *value; /* put: the value; delete-range: the end, a key above `key`, the first that goes */
    size_t value_len;
};

struct holdfast_member {
    uint64_t id;
    char name[64];
    char client_address[256];
    char peer_address[256];
    char role[16];         /* "voter", "learner", "leaving" (a voter that is gone once a change is complete) */
    uint8_t priority;      /* who leads by preference: more is better */
    uint64_t match;        /* newest entry that it holds, as the leader knows it; 0 elsewhere */
    uint64_t heard_ms_ago; /* leader only; UINT64_MAX: never, or not known */
    /* Leader only: "probe" (where its log ends isn't known), "replicate", "snapshot", "wiped" (it lost its data, and
     * isn't counted until the leader has taken it back). */
    char state[16];
    uint64_t incarnation; /* of the log that counts as its; 0: none is recorded yet */
    bool returns;         /* a learner that lost its data as a voter, and is one again once it has caught up */
    bool has_thumbprint;
    uint8_t thumbprint[32]; /* SHA-256 of its certificate */
};

enum { HOLDFAST_MEMBERS_MAX = 16, HOLDFAST_SYNC_BUCKETS = 26, HOLDFAST_THUMBPRINT_BYTES = 32 };

/* A snapshot on its way between two nodes. */
struct holdfast_snapshot {
    char peer[64];
    bool incoming;
    char state[16]; /* "waiting", "checkpoint", "listing", "offered", "streaming", "ending", "failed"; "receiving",
                       "syncing", "installing", "ending" */
    uint64_t index; /* its last entry; 0: not known yet */
    uint64_t done_bytes, total_bytes;
    /* Of one that is sent: what may leave the node now, of all of them together (0: no limit), and why: "full" (as
     * configured), "load" (less, for those who write), "log" (it can't be kept for longer); else "". */
    uint64_t bytes_per_second;
    char pace[16];
};

struct holdfast_node_status {
    uint8_t cluster_id[16];
    uint64_t node_id;
    char node_name[64];
    char version[32];
    char role[16]; /* "follower", "precandidate", "candidate", "leader" */
    uint64_t term, leader_id;
    uint64_t first, last, synced, commit, applied, flushed;
    uint64_t uptime_ms;
    uint64_t log_segments, log_groups, log_records, log_sync_us_total, log_sync_us_max;
    uint64_t memtable_bytes, sst_files, sst_bytes;
    uint64_t client_connections;
    char problem[256]; /* empty when healthy */
    uint32_t member_count;
    struct holdfast_member members[HOLDFAST_MEMBERS_MAX];
    /* Of log_groups, each one write and one sync: those begun when none was being written, gathered while one was, full
     * with more waiting; and those that begin a segment, save term or vote, mark idle time. */
    uint64_t log_groups_idle, log_groups_behind, log_groups_full, log_groups_start, log_groups_state, log_groups_mark;
    uint64_t log_group_records_max;
    uint64_t log_written_bytes, log_padding_bytes; /* padding is part of written */
    /* How many syncs took how long: bucket 0 below 1 us, bucket i from 2^(i-1) to below 2^i us, the last one all above.
     * p50 and p99: the upper end of their bucket, or the longest sync if that is less. */
    uint64_t log_sync_us_buckets[HOLDFAST_SYNC_BUCKETS];
    uint64_t log_sync_us_p50, log_sync_us_p99;
    uint64_t horizon;                   /* oldest revision that can be read */
    uint64_t scrub_passes, scrub_bytes; /* over all tables since the node started; read by them */
    uint64_t damaged_places;            /* in live tables, as far as the scrub knows */
    /* How often writers were made to wait for flushes and compactions, and for how long in all and at most. */
    uint64_t write_stalls, write_stall_us_total, write_stall_us_max;
    uint64_t heal_index;          /* how far the log must reach again after it was damaged; 0: it is whole */
    uint64_t log_segments_faulty; /* damaged, kept aside until the log is whole; not in log_segments */
    /* To nodes that the log can't bring up to date; since the node started. failed: of those that it sends. */
    uint64_t snapshots_sent, snapshots_installed, snapshots_failed;
    uint32_t snapshot_count; /* under way */
    struct holdfast_snapshot snapshots[HOLDFAST_MEMBERS_MAX];
    /* How often it stood aside because its log or applying stalled, or the log was full; how often its loop got no turn
     * for longer than an election timeout. */
    uint64_t fences, loop_stand_stills;
    /* Of members: the entry that brought it (0: the cluster's first start), whether that is known to be committed,
     * whether a change of voters is under way; to whom the lead is on its way (0: nobody). */
    uint64_t config_index;
    bool config_committed, config_joint;
    uint64_t transfer_target;
    /* The newest entry up to which all that was applied on this node was found equal to the others', and its digest
     * there (0: nothing was compared yet); comparisons that found a difference since the node started. */
    uint64_t digest_index;
    uint8_t digest[16];
    uint64_t digest_mismatches;
    /* The newest revision at which the data of a majority were found equal (holdfast_compare), as this node knows from
     * its time as the leader, their digest, and how often a difference was found; and how far this node's newest scan
     * is: "none", "scanning", "done", "missing". */
    uint64_t scan_index;
    uint8_t scan_digest[16];
    uint64_t scan_mismatches;
    char scan_state[16];
    /* Of its store, which is damaged or differs: "wanted", "asking", "catching up" ("": none is on), and why; how often
     * that ended well since the node started, and how often not. */
    char rebuild_state[16], rebuild_reason[128];
    uint64_t rebuilds, rebuilds_failed;
    uint64_t replay_ms; /* what a start of this node would take to replay now, as far as it knows */
};

/* What keeps the segment files of a node's log. */
enum { HOLDFAST_LOG_PINS_MAX = 32 };

struct holdfast_log_pin {
    char owner[96];
    bool has_index;
    uint64_t index; /* up to here the owner needs nothing */
    uint64_t segments, file_bytes;
    uint64_t age_ms; /* of the oldest segment that it keeps */
};

struct holdfast_log_segment {
    uint64_t number; /* the file's name is this in hex */
    /* "active", "kept", "prepared", "spare" (to be used again), "doomed" (being deleted), "faulty" (damaged, kept
     * aside)
     */
    char state[16];
    uint64_t file_bytes, used_bytes;
    uint64_t first;     /* oldest entry that counts; 0: none */
    uint64_t last;      /* newest entry that it ever held; 0: none */
    uint64_t age_ms;    /* since it was begun */
    bool begun_earlier; /* before the node started; then age_ms is since that, and it is older */
    uint32_t pins;      /* bit i: kept for holdfast_log.pins[i] */
};

struct holdfast_log {
    uint64_t node_id;
    char node_name[64];
    uint64_t first, last;
    uint64_t floor; /* segments may go up to here */
    uint64_t segment_total, file_bytes;
    uint32_t pin_count;
    struct holdfast_log_pin pins[HOLDFAST_LOG_PINS_MAX];
    size_t segment_count; /* oldest first; may be less than segment_total */
    const struct holdfast_log_segment *segments;
};

/* Long jobs over one node's store; one at a time. */
enum holdfast_upkeep_action {
    HOLDFAST_UPKEEP_LOOK = 0,       /* only how far the newest one is */
    HOLDFAST_UPKEEP_COMPACT = 1,    /* rewrite a range, so that what was deleted or overwritten gives its space back */
    HOLDFAST_UPKEEP_VERIFY = 2,     /* read all tables and check every checksum and invariant */
    HOLDFAST_UPKEEP_CHECKPOINT = 3, /* a store of its own beside it, by links: for a backup */
    HOLDFAST_UPKEEP_CANCEL = 4      /* the one that runs, unless it is a compaction */
};

struct holdfast_upkeep_request {
    enum holdfast_upkeep_action action;
    struct holdfast_range range; /* compact */
    const char *dir; /* checkpoint: an absolute path on the node's machine; its parent is there, it isn't. Else NULL */
};

/* How far the newest job is, or how it ended. */
struct holdfast_upkeep {
    uint64_t node_id;
    char node_name[64];
    uint64_t job;  /* 1, 2, ... since the node started; 0: there was none */
    char kind[16]; /* "compact", "verify", "checkpoint", "none" */
    bool running;
    uint64_t done_bytes, total_bytes; /* total as estimated now; 0: not known yet */
    uint64_t elapsed_ms;
    /* Of one that has ended: */
    enum holdfast_code code; /* HOLDFAST_CODE_CORRUPT: verify found damage */
    char message[256];       /* why it failed, in one line */
    uint64_t files, bytes;   /* verify: tables that were read; checkpoint: what is in it */
    uint64_t copied_bytes;   /* checkpoint: of bytes, what couldn't be linked */
    uint64_t findings;       /* verify */
    uint64_t index;          /* verify, checkpoint: newest entry in it */
};

/* All data of all members compared, at the revision of a committed entry that asks each member for a digest of what it
 * holds there. */
enum holdfast_compared_state {
    HOLDFAST_COMPARED_ASKED = 0,
    HOLDFAST_COMPARED_SCANNING = 1,
    HOLDFAST_COMPARED_DONE = 2,
    HOLDFAST_COMPARED_MISSING = 3 /* it restarted, got a snapshot, ...: the reason says */
};

enum holdfast_verdict {
    HOLDFAST_VERDICT_NONE = 0, /* no comparison yet under this leader */
    HOLDFAST_VERDICT_OPEN = 1,
    HOLDFAST_VERDICT_ALIKE = 2,     /* all members hold the same */
    HOLDFAST_VERDICT_DIFFERS = 3,   /* a majority does; the suspected ones don't */
    HOLDFAST_VERDICT_SPLIT = 4,     /* different data, and no majority agrees */
    HOLDFAST_VERDICT_INCOMPLETE = 5 /* those that answered hold the same, but not all did */
};

struct holdfast_compared {
    uint64_t id;
    char name[64];
    enum holdfast_compared_state state;
    bool suspected;
    uint64_t done_bytes, total_bytes; /* of keys and values; total as estimated */
    uint64_t keys;                    /* done: that are there */
    bool has_digest;                  /* done */
    uint8_t digest[16];
    char reason[256]; /* missing */
};

struct holdfast_comparison {
    uint64_t index; /* the revision; 0: none */
    enum holdfast_verdict verdict;
    bool open;            /* one is on its way; perhaps `index` is an older one's still */
    uint64_t above_index; /* begun: the one that was asked for has an index above this */
    uint64_t elapsed_ms;
    uint32_t member_count;
    struct holdfast_compared members[HOLDFAST_MEMBERS_MAX];
};

/* Who is in the cluster, as the node that answers knows it. */
struct holdfast_members {
    uint64_t leader_id; /* 0: none is known */
    uint64_t term, commit;
    uint64_t index;           /* of the entry that brought this membership; 0: the cluster's first start */
    bool committed;           /* as far as that node knows */
    bool joint;               /* a change of voters is under way */
    uint64_t transfer_target; /* to whom the lead is on its way; 0: nobody */
    uint32_t member_count;
    struct holdfast_member members[HOLDFAST_MEMBERS_MAX];
};

enum holdfast_member_action {
    HOLDFAST_MEMBER_ADD = 1, /* a learner: gets the log, counts nowhere. An id that never was anybody's */
    HOLDFAST_MEMBER_PROMOTE, /* a learner that has caught up becomes a voter */
    HOLDFAST_MEMBER_DEMOTE,  /* a voter becomes a learner */
    HOLDFAST_MEMBER_REMOVE,
    HOLDFAST_MEMBER_PRIORITY /* who leads by preference */
};

enum { HOLDFAST_MEMBER_CHANGES_MAX = 9 };

/* One part of a change of the membership. What its action doesn't name is ignored. */
struct holdfast_member_change {
    enum holdfast_member_action action;
    uint64_t id;                /* 1 to 2^63 */
    uint8_t priority;           /* add, priority */
    const char *name;           /* add: 1 to 63 letters, digits, '-', '_' or '.' */
    const char *peer_address;   /* add: "host:port" where the other members reach it */
    const char *client_address; /* add: "host:port" where clients do */
    const uint8_t *thumbprint;  /* add: HOLDFAST_THUMBPRINT_BYTES of its certificate */
    bool unreachable;           /* add: also if the leader can't reach it there; else that is refused */
};

/* Blocking calls. options may be NULL (defaults), result may be NULL. Returns result->outcome. Arguments are borrowed
 * for the call. */
enum holdfast_outcome holdfast_put(struct holdfast *handle, const void *key, size_t key_len, const void *value,
                                   size_t value_len, const struct holdfast_write_options *options,
                                   struct holdfast_result *result);
/* Deleting a key that isn't there is HOLDFAST_OK too. */
enum holdfast_outcome holdfast_delete(struct holdfast *handle, const void *key, size_t key_len,
                                      const struct holdfast_write_options *options, struct holdfast_result *result);
/* All keys of the range at once, as one revision; what is written later stays, and older revisions still show them. How
 * many went isn't said: nobody looks at them one by one. Counting the range at the revision before the result's tells.
 * An empty range (upper not above lower) is HOLDFAST_CODE_INVALID. */
enum holdfast_outcome holdfast_delete_range(struct holdfast *handle, const struct holdfast_range *range,
                                            const struct holdfast_write_options *options,
                                            struct holdfast_result *result);
/* The range of the keys that begin with prefix; its end is written to end (prefix_len bytes). Borrows prefix and end.
 * prefix_len 0: all keys. */
struct holdfast_range holdfast_prefix_range(const void *prefix, size_t prefix_len, void *end);
/* All operations or none, in order, as one revision. */
enum holdfast_outcome holdfast_batch(struct holdfast *handle, const struct holdfast_operation *operations, size_t count,
                                     const struct holdfast_write_options *options, struct holdfast_result *result);
/* No such key: HOLDFAST_FAILED with HOLDFAST_CODE_NOT_FOUND. *ret_value is filled on HOLDFAST_OK only, owned by the
 * caller: holdfast_value_free. */
enum holdfast_outcome holdfast_get(struct holdfast *handle, const void *key, size_t key_len,
                                   const struct holdfast_read_options *options, struct holdfast_value *ret_value,
                                   struct holdfast_result *result);
void holdfast_value_free(struct holdfast *handle, struct holdfast_value *value);
/* One page. *ret_page on HOLDFAST_OK only, owned by the caller: holdfast_page_free. */
enum holdfast_outcome holdfast_scan_page(struct holdfast *handle, const struct holdfast_scan *scan,
                                         const struct holdfast_read_options *options, struct holdfast_page **ret_page,
                                         struct holdfast_result *result);
void holdfast_page_free(struct holdfast *handle, struct holdfast_page *page);
/* Asks this endpoint and no other; a node that can't be connected to is reported at once. timeout_ms 0: the handle's.
 */
enum holdfast_outcome holdfast_status(struct holdfast *handle, uint32_t endpoint, uint32_t timeout_ms,
                                      struct holdfast_node_status *ret_status, struct holdfast_result *result);

/* Asks this endpoint and no other, as holdfast_status. *ret_log on HOLDFAST_OK only, owned by the caller:
 * holdfast_log_free. */
enum holdfast_outcome holdfast_explain_log(struct holdfast *handle, uint32_t endpoint, uint32_t timeout_ms,
                                           struct holdfast_log **ret_log, struct holdfast_result *result);
void holdfast_log_free(struct holdfast *handle, struct holdfast_log *log);

/* Begins a job on this endpoint, or looks. Answered soon: look again until it isn't running any more. Admins only.
 * HOLDFAST_CODE_BUSY: one is under way already; UNSUPPORTED: a compaction can't be cancelled. With HOLDFAST_UNKNOWN the
 * job may have begun: look. */
enum holdfast_outcome holdfast_upkeep(struct holdfast *handle, uint32_t endpoint,
                                      const struct holdfast_upkeep_request *request, uint32_t timeout_ms,
                                      struct holdfast_upkeep *ret_upkeep, struct holdfast_result *result);

/* All data of all members compared. begin: asks for a comparison, or joins the one that is on its way; else: how far
 * the newest is. It goes to the leader, which answers soon: look again until it isn't open any more. One whose index
 * isn't above the above_index of the beginning is an older one: the lead moved before the entry was committed; begin
 * again. Admins only. */
enum holdfast_outcome holdfast_compare(struct holdfast *handle, bool begin, uint32_t timeout_ms,
                                       struct holdfast_comparison *ret_comparison, struct holdfast_result *result);

/* Membership and leadership; admins only. They go to the leader, and follow it as writes do.
 *
 * Who is a member. options->local: of any node, as it knows it; of options, only that and timeout_ms count. */
enum holdfast_outcome holdfast_list_members(struct holdfast *handle, const struct holdfast_read_options *options,
                                            struct holdfast_members *ret_members, struct holdfast_result *result);
/* 1 to HOLDFAST_MEMBER_CHANGES_MAX changes, all of them at once or none. HOLDFAST_OK: committed, and result->revision
 * is the entry that completed it. HOLDFAST_CODE_CONDITION: refused, and the message says why; HOLDFAST_UNKNOWN: list
 * the members to see what became of it. timeout_ms 0: the handle's. */
enum holdfast_outcome holdfast_change_members(struct holdfast *handle, const struct holdfast_member_change *changes,
                                              size_t count, uint32_t timeout_ms, struct holdfast_result *result);
/* Hands the lead to this member, or (0) to the one that is fit best. HOLDFAST_OK: another node leads, *ret_leader_id
 * (may be NULL). HOLDFAST_CODE_CONDITION: refused, with the reason. */
enum holdfast_outcome holdfast_transfer_leader(struct holdfast *handle, uint64_t target_id, uint32_t timeout_ms,
                                               uint64_t *ret_leader_id, struct holdfast_result *result);
/* This member fills its store again, from the leader: one that the cluster's digests name, say. HOLDFAST_OK: it is
 * being told to; its status says how far it is (rebuild_state, rebuilds). HOLDFAST_CODE_CONDITION: refused, with the
 * reason. */
enum holdfast_outcome holdfast_rebuild_member(struct holdfast *handle, uint64_t id, uint32_t timeout_ms,
                                              struct holdfast_result *result);
/* SHA-256 of the first certificate of a PEM file: what members and identities are known by. Blocks for the file. */
enum holdfast_outcome holdfast_certificate_thumbprint(const char *path,
                                                      uint8_t ret_thumbprint[HOLDFAST_THUMBPRINT_BYTES],
                                                      struct holdfast_result *result);

/* Asynchronous calls. HOLDFAST_CODE_OK: accepted, the callback will run. Anything else (BUSY, INVALID, TOO_LARGE,
 * NO_MEMORY): it will not. Keys and values are copied; what callbacks get is borrowed for the callback. value, page and
 * status are NULL unless the outcome is HOLDFAST_OK. */
typedef void (*holdfast_write_callback)(void *context, const struct holdfast_result *result);
typedef void (*holdfast_get_callback)(void *context, const struct holdfast_result *result,
                                      const struct holdfast_value *value);
typedef void (*holdfast_scan_callback)(void *context, const struct holdfast_result *result,
                                       const struct holdfast_page *page);
typedef void (*holdfast_status_callback)(void *context, const struct holdfast_result *result,
                                         const struct holdfast_node_status *status);
typedef void (*holdfast_members_callback)(void *context, const struct holdfast_result *result,
                                          const struct holdfast_members *members);
/* leader_id: of a transfer that is done, else 0. */
typedef void (*holdfast_transfer_callback)(void *context, const struct holdfast_result *result, uint64_t leader_id);

enum holdfast_code holdfast_put_async(struct holdfast *handle, const void *key, size_t key_len, const void *value,
                                      size_t value_len, const struct holdfast_write_options *options,
                                      holdfast_write_callback callback, void *context);
enum holdfast_code holdfast_delete_async(struct holdfast *handle, const void *key, size_t key_len,
                                         const struct holdfast_write_options *options, holdfast_write_callback callback,
                                         void *context);
enum holdfast_code holdfast_delete_range_async(struct holdfast *handle, const struct holdfast_range *range,
                                               const struct holdfast_write_options *options,
                                               holdfast_write_callback callback, void *context);
enum holdfast_code holdfast_batch_async(struct holdfast *handle, const struct holdfast_operation *operations,
                                        size_t count, const struct holdfast_write_options *options,
                                        holdfast_write_callback callback, void *context);
enum holdfast_code holdfast_get_async(struct holdfast *handle, const void *key, size_t key_len,
                                      const struct holdfast_read_options *options, holdfast_get_callback callback,
                                      void *context);
enum holdfast_code holdfast_scan_page_async(struct holdfast *handle, const struct holdfast_scan *scan,
                                            const struct holdfast_read_options *options,
                                            holdfast_scan_callback callback, void *context);
enum holdfast_code holdfast_status_async(struct holdfast *handle, uint32_t endpoint, uint32_t timeout_ms,
                                         holdfast_status_callback callback, void *context);
enum holdfast_code holdfast_list_members_async(struct holdfast *handle, const struct holdfast_read_options *options,
                                               holdfast_members_callback callback, void *context);
enum holdfast_code holdfast_change_members_async(struct holdfast *handle, const struct holdfast_member_change *changes,
                                                 size_t count, uint32_t timeout_ms, holdfast_write_callback callback,
                                                 void *context);
enum holdfast_code holdfast_transfer_leader_async(struct holdfast *handle, uint64_t target_id, uint32_t timeout_ms,
                                                  holdfast_transfer_callback callback, void *context);
enum holdfast_code holdfast_rebuild_member_async(struct holdfast *handle, uint64_t id, uint32_t timeout_ms,
                                                 holdfast_write_callback callback, void *context);

#ifdef __cplusplus
}
#endif

#endif
