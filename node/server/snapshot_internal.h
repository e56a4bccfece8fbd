/*
 * What the files of snapshot transfers share:
 *
 *   snapshot.c          life, frames in, status, what pins the log
 *   snapshot_send.c     one peer's transfer, from the request to raft's SNAPSHOT_SENT
 *   snapshot_pace.c     how fast all that is sent may leave, so that the load doesn't suffer
 *   snapshot_receive.c  what arrives here, into files
 *   snapshot_install.c  from whole files to a store, a log and a raft that start behind them
 *   snapshot_files.c    files and directories (workers)
 */
#ifndef HOLDFAST_SERVER_SNAPSHOT_INTERNAL_H
#define HOLDFAST_SERVER_SNAPSHOT_INTERNAL_H

#include "node/base/arena.h"
#include "node/server/consensus_internal.h"
#include "node/server/snapshot.h"
#include "node/server/snapshot_files.h"
#include "node/server/snapshot_pace.h"
#include "proto/connection.h"
#include "proto/wire.pb-c.h"

enum {
    SNAPSHOT_WINDOW_CHUNKS = 8 * SNAPSHOT_BLOCK_CHUNKS, /* on their way, or waiting to be written */
    SNAPSHOT_TICK_US = 20 * 1000,
    SNAPSHOT_ANSWER_US = 50 * 1000,           /* a receiver says at least so often what has arrived */
    SNAPSHOT_OFFER_US = 400 * 1000,           /* without news for so long: offered (again) */
    SNAPSHOT_SEND_PATIENCE_US = 20 * 1000000, /* without progress for so long: given up, its checkpoint goes */
    SNAPSHOT_WORDS_US = 2 * 60 * 1000000, /* for so long a peer's word counts as progress: others may be first there */
    /* With progress, but this slow from its begin to its end, it goes as well: who takes a byte now and then, or says
     * that he is about to be done, keeps it no longer than that. */
    SNAPSHOT_SEND_GRACE_US = 2 * 60 * 1000000,
    SNAPSHOT_VERIFY_RATES = 4,     /* what has arrived is checked at so many times the configured rate: nobody waits */
    SNAPSHOT_RATE_MIN = 256 * KIB, /* per second; or this part of the configured rate, if that is less: it is slower */
    SNAPSHOT_RATE_MIN_PART = 256,  /* than what is left for one of several peers when all give way */
    SNAPSHOT_RECEIVE_PATIENCE_US = 60 * 1000000,
    SNAPSHOT_READY_PATIENCE_US = 5 * 1000000, /* for the log to come to rest before the switch */
    SNAPSHOT_PAUSE_US_MIN = 500 * 1000,       /* after a failure; doubles */
    SNAPSHOT_PAUSE_US_MAX = 8 * 1000000,
    SNAPSHOT_FOLLOW_US = 10 * 1000000 /* the log behind a snapshot stays for a peer that catches up */
};

enum snapshot_want {
    SNAPSHOT_WANT_BYTES = 1,
    SNAPSHOT_WANT_TIME = 2, /* it is being taken in */
    SNAPSHOT_WANT_NOTHING = 3,
    SNAPSHOT_WANT_END = 4 /* failed */
};

/* A place in the sequence of files. */
struct snapshot_place {
    uint32_t file;
    uint64_t offset;
};

/* What a worker does. */
enum snapshot_job {
    SNAPSHOT_JOB_LIST, /* of a sender: the checkpoint's files, */
    SNAPSHOT_JOB_READ, /* the next block, */
    SNAPSHOT_JOB_REMOVE,
    SNAPSHOT_JOB_CLEAR, /* of a receiver: an empty directory, */
    SNAPSHOT_JOB_WRITE, /* the oldest block, */
    SNAPSHOT_JOB_SYNC,  /* all names, */
    SNAPSHOT_JOB_CLEAN  /* and nothing again */
};

/* ---- Sending (snapshot_send.c) ---------------------------------------------------------------------------------- */

enum snapshot_send_state {
    SNAPSHOT_SEND_IDLE,
    SNAPSHOT_SEND_WAITING,    /* for a connection */
    SNAPSHOT_SEND_CHECKPOINT, /* the store makes it */
    SNAPSHOT_SEND_LISTING,
    SNAPSHOT_SEND_OFFERED, /* where the peer wants to go on isn't known */
    SNAPSHOT_SEND_STREAMING,
    SNAPSHOT_SEND_ENDING, /* its files are being removed */
    SNAPSHOT_SEND_PAUSING /* failed; raft hears of it after the pause */
};

struct snapshot_send {
    struct snapshots *snapshots;
    uint64_t peer; /* 0: the slot is free */
    enum snapshot_send_state state;
    bool is_requested; /* again, while the last one is ending */
    uint64_t id;
    uint64_t term;        /* of our leadership */
    uint64_t floor_index; /* pins the log; from the checkpoint's request on */
    char dir[LIMIT_PATH_BYTES];
    struct storage_checkpoint checkpoint;
    bool is_checkpointing; /* the store has it */

    struct snapshot_file *files;
    uint32_t file_count;
    uint64_t total_bytes;
    struct snapshot_place next;                           /* to be sent */
    struct snapshot_place furthest;                       /* that `next` ever was */
    struct snapshot_place flight[SNAPSHOT_WINDOW_CHUNKS]; /* ring: sent, and not known to have arrived */
    uint32_t flight_head;
    uint32_t flight_count;
    uint32_t window;        /* of them the peer can take */
    uint64_t arrived_bytes; /* at most, ever: progress */
    uint64_t taken_bytes;   /* by the peer, of its install; at most, ever: progress */
    uint64_t begun_us;
    uint64_t progress_us;
    uint64_t grown_us; /* arrived_bytes or taken_bytes grew */
    uint64_t news_us;  /* heard of it, or offered it */
    uint64_t resumes;
    uint64_t log_begin_bytes; /* what the log had written at begun_us */
    uint64_t needed;          /* bytes per second, or the log outgrows its budget before the end */
    uint64_t slowed_before;   /* snapshot_pace's count at begun_us */
    uint64_t retry_us;        /* the connection was full: not before then; 0: it wasn't */

    /* One job at a time. */
    struct env_work work;
    bool is_working;
    enum snapshot_job job;
    enum status job_status;
    struct error job_error;
    struct snapshot_place job_place; /* a block of one file */
    size_t job_len;
    uint64_t job_checksums[SNAPSHOT_BLOCK_CHUNKS];
    uint8_t *block;       /* SNAPSHOT_BLOCK_BYTES */
    uint32_t chunks_left; /* its last ones: read, not sent yet */

    bool ended_ok;
    char problem[ERROR_MESSAGE_BYTES_MAX];
    uint64_t pause_us;
    uint64_t pause_until_us;
    /* After a good end: the peer catches up from the log. */
    uint64_t follow_index;
    uint64_t follow_until_us; /* 0: it doesn't */
    struct env_timer timer;
};

/* ---- Receiving (snapshot_receive.c, snapshot_install.c) --------------------------------------------------------- */

enum snapshot_receive_state {
    SNAPSHOT_RECEIVE_IDLE,
    SNAPSHOT_RECEIVE_BYTES,
    SNAPSHOT_RECEIVE_SYNCING,    /* all is written */
    SNAPSHOT_RECEIVE_INSTALLING, /* the store has it */
    SNAPSHOT_RECEIVE_ENDING      /* the files are being removed */
};

/* Chunks of one file, one behind the other, that are written at once. */
struct snapshot_block {
    struct snapshot_file file;
    uint64_t offset;
    size_t len;
    uint32_t chunks;
    uint8_t *data; /* SNAPSHOT_BLOCK_BYTES, or what is left of the file */
};

struct snapshot_receive {
    struct snapshots *snapshots;
    enum snapshot_receive_state state;
    uint64_t from;
    uint64_t id; /* 0: none */
    uint64_t term;
    uint64_t index;
    uint64_t log_term;
    uint32_t file_count;
    uint64_t total_bytes;
    struct snapshot_place next; /* to arrive */
    struct snapshot_file file;  /* at next, if next.offset > 0 */
    uint64_t arrived_bytes;
    bool asked_again;                                    /* what arrives before `next` does is of no use */
    struct snapshot_block queue[SNAPSHOT_WINDOW_CHUNKS]; /* ring; the first is with the worker while one works */
    uint32_t queue_head;
    uint32_t queue_count;
    uint32_t queue_chunks; /* in all of them: at most SNAPSHOT_WINDOW_CHUNKS */
    uint64_t answered_us;
    char dir[LIMIT_PATH_BYTES];
    uint64_t begun_us;
    uint64_t heard_us;

    struct env_work work;
    bool is_working;
    bool must_clear; /* the directory, before anything is written to it */
    enum snapshot_job job;
    enum status job_status;
    struct error job_error;
    struct env_timer timer;

    /* The newest that came to its end, for whoever asks again. */
    uint64_t ended_id;
    enum snapshot_want ended_as;
    char ended_message[ERROR_MESSAGE_BYTES_MAX];

    struct storage_ingest ingest;
    bool is_ingesting; /* the store has it */
    bool is_asked;     /* the store stands still and waits for our answer */
    bool holds_log;
    uint64_t asked_us;
    struct membership membership; /* of the snapshot */
    struct env_timer ready_timer;
};

struct snapshots {
    struct consensus *consensus;
    struct arena arena;
    struct snapshot_pace pace;
    struct snapshot_send sends[LIMIT_MEMBERS];
    struct snapshot_receive receive;
    uint64_t sent;
    uint64_t installed;
    uint64_t failed;
    bool stopping;
    struct env_task stop_task;
    void (*stopped)(void *context);
    void *stopped_context;
};

static inline uint64_t snapshot__now_us(const struct snapshots *snapshots) {
    return consensus__now_us(snapshots->consensus);
}
static inline struct alloc *snapshot__alloc(const struct snapshots *snapshots) {
    return snapshots->consensus->options.env->alloc;
}
const char *snapshot__name_of(const struct snapshots *snapshots, uint64_t node_id);
/* A timer that can't be armed leaves a transfer without a future: the node ends. */
void snapshot__arm(struct snapshots *snapshots, struct env_timer *timer, uint64_t at_us);
/* A job ended: perhaps the last that a stop waits for. */
void snapshot__job_ended(struct snapshots *snapshots);

void snapshot_send__init(struct snapshots *snapshots, struct snapshot_send *send);
void snapshot_send__request(struct snapshot_send *send, uint64_t peer);
void snapshot_send__wanted(struct snapshot_send *send, const Wire__SnapshotWant *want);
void snapshot_send__deinit(struct snapshot_send *send);
const char *snapshot_send__state_name(enum snapshot_send_state state);

void snapshot_receive__init(struct snapshots *snapshots);
void snapshot_receive__offer(struct snapshots *snapshots, uint64_t node_id, const Wire__SnapshotOffer *offer);
void snapshot_receive__chunk(struct snapshots *snapshots, uint64_t node_id, const Wire__SnapshotChunk *chunk,
                             struct slice raw);
/* What is under way ends; the files go. message: why it failed, or NULL. */
void snapshot_receive__end(struct snapshot_receive *receive, enum snapshot_want how, const char *message);
void snapshot_receive__deinit(struct snapshot_receive *receive);
const char *snapshot_receive__state_name(enum snapshot_receive_state state);

void snapshot_install__init(struct snapshot_receive *receive);
/* True if a snapshot that ends there brings this node forward. */
bool snapshot_install__wants(const struct consensus *consensus, uint64_t index, uint64_t term);
/* The files are whole and durable. snapshot_receive__end follows. */
void snapshot_install__begin(struct snapshot_receive *receive);

#endif
