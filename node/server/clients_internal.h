/*
 * What the files of the client front end share:
 *
 *   clients.c            life: listening, accepting, sweeping, stopping
 *   client_connection.c  one connection: greeting or refusal, frames to requests, back-pressure, its end
 *   request.c            the request object: memory, replies, errors
 *   request_write.c      put, delete, range delete, batch
 *   request_read.c       what reads have in common; get
 *   request_scan.c       pages of a range
 *   request_status.c     what this node says of itself
 *   request_explain.c    what keeps each segment of its log
 *   request_upkeep.c     long jobs over its store, for admins
 *   request_compare.c    all data of all members compared, for admins
 *   request_member.c     who is a member, changes of that, transfers of the lead, for admins
 *
 * A request belongs to its connection's list from its frame to its reply. While the consensus actor or a read of a
 * block holds it, it stays in memory even if its connection goes; then `connection` is NULL and its answer goes
 * nowhere.
 *
 * Owner: the loop of the front end. It never waits: a read that needs blocks from a disk asks for them and goes on when
 * they are there (storage_io), so that a block that can't be read delays nobody but who asked for it.
 */
#ifndef HOLDFAST_SERVER_CLIENTS_INTERNAL_H
#define HOLDFAST_SERVER_CLIENTS_INTERNAL_H

#include "node/base/arena.h"
#include "node/base/buf.h"
#include "node/base/check.h"
#include "node/server/clients.h"
#include "node/server/identity.h"
#include "proto/connection.h"
#include "proto/wire.pb-c.h"

enum {
    CLIENTS_REQUESTS_MAX = 64 * 1024, /* in flight in one front end */
    CLIENTS_REQUESTS_KEPT = 2 * 1024, /* free ones that wait for reuse */
    CLIENTS_REFUSED_MAX = 64,         /* connections beyond the limit that are being told so */
    CLIENTS_JOBS_KEPT = 64,           /* free ones that wait for reuse */
    CLIENTS_SWEEP_US = 500 * 1000,
    CLIENTS_STALL_US = 30 * 1000 * 1000, /* a full connection of whose output no more than this left in that time */
    CLIENTS_STALL_BYTES = 256 * 1024,    /* is closed */
    CLIENTS_ARENA_CHUNK_BYTES = 16 * 1024,
    REQUEST_INLINE_BYTES = 512, /* key and value that need no memory of their own */
    REQUEST_TIMEOUT_MS_DEFAULT = 5 * 1000,
    REQUEST_TIMEOUT_MS_MAX = 60 * 1000
};

/* Reads that take memory while they wait are bounded, by kind; one too many is parked, with nothing but its keys. */
enum read_class {
    READ_GET,  /* waits for blocks; those that need none always pass */
    READ_SCAN, /* gathers a page */
    READ_CLASS_COUNT
};

enum client_state {
    CLIENT_OPENING, /* no greeting yet */
    CLIENT_SERVING,
    CLIENT_ENDING /* a refusal or the end of service was said; no more frames */
};

struct client_connection {
    struct connection_handler handler;
    struct clients *clients;
    struct connection *connection;
    struct list link; /* clients.connections */
    struct identity identity;
    enum client_state state;
    bool paused;
    struct list requests; /* all in flight */
    uint32_t request_count;
    struct list held; /* reads that are ready, but for room in the output */
    struct {
        uint32_t count;           /* under way */
        struct list parked;       /* requests that wait to be among them */
        struct list waiting_link; /* clients.reads.waiting, while only room among all is missing */
    } reads[READ_CLASS_COUNT];
    bool updating;
    uint64_t active_us;       /* last frame, or last reply */
    uint64_t full_since_us;   /* or since enough of its output has left; 0: there is room */
    uint64_t full_left_bytes; /* connection_left_bytes at the first look behind that; UINT64_MAX: nobody looked yet */
};

struct clients {
    struct clients_options options;
    struct alloc *alloc;
    struct env_listener *listener;
    struct list connections;
    uint32_t open_count;     /* on the list */
    _Atomic uint32_t count;  /* the same, for other threads */
    _Atomic uint32_t *total; /* of all front ends of the node, or `count` */
    struct arena arena;      /* the message of one frame */
    struct list free_requests;
    uint32_t free_count;
    uint32_t request_count; /* in flight */
    uint64_t memory_bytes;  /* keys and values of requests in flight */
    struct {
        uint32_t count;      /* under way */
        struct list waiting; /* connections with parked requests */
    } reads[READ_CLASS_COUNT];
    struct list free_jobs;
    uint32_t free_job_count;
    struct env_timer sweep_timer;
    struct env_timer grace_timer;
    struct env_task stop_task;
    bool stopping;
    void (*stopped)(void *context);
    void *stopped_context;
};

struct read_job;

struct request {
    struct list link;      /* the connection's requests, or free_requests */
    struct list held_link; /* the connection's held or parked reads */
    struct clients *clients;
    struct client_connection *connection;    /* NULL: gone */
    uint64_t id;                             /* the asker's */
    uint8_t type;                            /* enum frame_type */
    void (*answer)(struct request *request); /* of a read whose barrier is passed */
    union {
        struct consensus_proposal proposal;
        struct consensus_read read;
    };
    union {
        struct batch_operation operation;
        struct {
            uint64_t revision;  /* 0: the newest */
            struct slice lower; /* get: the key */
            struct slice upper;
            uint32_t limit;
            bool keys_only;
            bool count_only;
        } range;
    };
    struct read_job *job; /* waits for blocks or its next turn; owned */
    void *memory;         /* NULL: inline_memory serves */
    size_t memory_bytes;
    _Alignas(16) uint8_t inline_memory[REQUEST_INLINE_BYTES];
};

/* ---- Messages -------------------------------------------------------------------------------------------------- */

/* An optional field of a message that is being filled in. */
#define SET(message, field, value) ((message)->has_##field = 1, (message)->field = (value))

/* Messages want texts that could be written to; packing only reads them. */
static inline char *borrow_text(const char *text) { return (char *)text; }

/* ---- clients.c ------------------------------------------------------------------------------------------------- */

void clients__connection_opened(struct client_connection *connection);
/* Off the list; the caller frees it. */
void clients__connection_gone(struct client_connection *connection);
/* After a request or a connection went while stopping. */
void clients__check_stopped(struct clients *clients);
/* There is room among the reads again. */
void clients__read_ended(struct clients *clients, enum read_class read_class);

/* ---- client_connection.c --------------------------------------------------------------------------------------- */

/* For env_listen. */
struct env_stream_handler *client_connection__accepted(void *context, struct env_stream *stream);
/* What became possible: held reads, reading on; or necessary: pausing, ending. After each change of its counts. */
void client_connection__update(struct client_connection *connection);
/* Stalled, idle? */
void client_connection__sweep(struct client_connection *connection, uint64_t now_us);
/* Sends; a connection that can't take a reply any more is closed. */
void client_connection__send(struct client_connection *connection, uint8_t type, uint64_t request_id,
                             const ProtobufCMessage *message, const struct slice *raw, size_t raw_count);
/* An Error for a request that has no object (yet). */
void client_connection__send_error(struct client_connection *connection, uint64_t request_id, enum status status,
                                   bool unknown, const char *message);
/* True if a read may be answered now. */
bool client_connection__has_room(const struct client_connection *connection);

/* ---- request.c ------------------------------------------------------------------------------------------------- */

/* A request for this frame, in flight from now on; NULL: an error was sent. */
struct request *request__take(struct client_connection *connection, const struct connection_frame *frame);
/* Memory for keys and values, kept until the request is released. NULL: an error was sent and the request is gone. */
void *request__memory(struct request *request, size_t size);
/* Both send (if the connection is still there) and release. */
void request__reply(struct request *request, uint8_t type, const ProtobufCMessage *message, const struct slice *raw,
                    size_t raw_count);
void request__fail(struct request *request, enum status status, bool unknown, const char *format, ...)
    PRINTF_LIKE(4, 5);
/* request__fail in the words that belong to the status of a write or read that the consensus actor refused. */
void request__fail_by_status(struct request *request, enum status status, bool unknown);
/* Frees it; its connection, if any, is updated. */
void request__release(struct request *request);
/* Env clock; timeout_ms 0: the default. */
uint64_t request__deadline_us(const struct clients *clients, uint32_t timeout_ms);
/* The message of a request that has no raw bytes, of the descriptor's type; memory of the arena. NULL: an error was
 * sent. what: for its words. */
const void *request__unpack(struct client_connection *connection, const struct connection_frame *frame,
                            const ProtobufCMessageDescriptor *descriptor, const char *what);
/* request__take with zeroed memory for a question to the consensus actor, which the asker frees (clients->alloc). It
 * isn't counted: a node that is full of writes still answers. NULL: an error was sent. */
void *request__take_question(struct client_connection *connection, const struct connection_frame *frame, size_t size,
                             struct request **ret_request);
/* Of a frame whose message can't be unpacked. */
void request__malformed(struct client_connection *connection, const struct connection_frame *frame, const char *what);
/* Checks a key; NULL if fine, else what is wrong with it. */
const char *request__key_problem(size_t key_len);

/* ---- request_*.c: handlers of frames --------------------------------------------------------------------------- */

void request_write__put(struct client_connection *connection, const struct connection_frame *frame);
void request_write__delete(struct client_connection *connection, const struct connection_frame *frame);
void request_write__delete_range(struct client_connection *connection, const struct connection_frame *frame);
void request_write__batch(struct client_connection *connection, const struct connection_frame *frame);
void request_read__get(struct client_connection *connection, const struct connection_frame *frame);
void request_scan__scan(struct client_connection *connection, const struct connection_frame *frame);
void request_status__status(struct client_connection *connection, const struct connection_frame *frame);
void request_member__member(struct client_connection *connection, const struct connection_frame *frame);
void request_upkeep__upkeep(struct client_connection *connection, const struct connection_frame *frame);
void request_compare__compare(struct client_connection *connection, const struct connection_frame *frame);
void request_explain__log(struct client_connection *connection, const struct connection_frame *frame);

/* Of status; texts are borrowed from it. */
void request_status__fill_member(Wire__MemberStatus *out, const struct consensus_status *status,
                                 const struct consensus_member_status *member);

/* ---- Reads ----------------------------------------------------------------------------------------------------- */

/*
 * What a read needs beyond its request: a view, what it waits with, and where the result gathers.
 *
 *   new --> step --> answered, free
 *            ^  \--> wait, yield --ready--> resume
 *            \------------------------------/
 *
 * When it could go on and its connection is gone or has no room for a reply, it is dropped; in the latter case the
 * request is held and begins anew when there is room, so that a slow reader keeps neither views nor blocks nor pages.
 */
struct read_job {
    struct list link; /* clients.free_jobs */
    struct clients *clients;
    struct request *request;
    void (*step)(struct read_job *job); /* goes on: answers, waits or yields */
    enum read_class read_class;
    bool counted; /* among the reads under way */
    struct storage_io io;
    struct env_message turn; /* yield */
    struct storage_view *view;
    uint64_t revision; /* to read at */
    struct error error;
    struct storage_value value; /* get */
    /* Scans. */
    struct storage_iterator *iterator;
    bool started;             /* the iterator was moved */
    bool added;               /* the pair where it stands is part of the result */
    struct buf bytes;         /* keys and values */
    struct buf key_lens;      /* uint32_t each */
    struct buf value_lens;    /* uint32_t each */
    struct buf mod_revisions; /* uint64_t each */
    uint64_t count;
    size_t message_bytes; /* that these lengths and revisions take in the reply */
    bool more;
};

/* Asks the consensus actor; then request->answer runs, when the connection has room. */
void request_read__barrier(struct request *request, const Wire__ReadOptions *options);
/* True if one more may be under way. */
bool request_read__has_room(const struct client_connection *connection, enum read_class read_class);
/* A job with a view that shows request->range.revision. NULL: an error was sent, or the request is parked: a scan
 * counts from its beginning. */
struct read_job *request_read__job_new(struct request *request, enum read_class read_class,
                                       void (*step)(struct read_job *job));
/* Not under way any more: before it is answered. */
void request_read__job_uncount(struct read_job *job);
/* Not while it waits. The request may be gone already. */
void request_read__job_free(struct read_job *job);
/* After STATUS_PENDING: step runs when the blocks are there. A get counts from here until then; if it may not, the job
 * is gone and the request parked. */
void request_read__job_wait(struct read_job *job);
/* step runs again in the next turn. Scans. */
void request_read__job_yield(struct read_job *job);
/* Those that wait for reuse. */
void request_read__free_jobs(struct clients *clients);

#endif
