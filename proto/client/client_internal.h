/*
 * The session core of the client: requests in, answers out, over an env. It knows no threads, no TLS and no production
 * env, so that the simulator runs the same code: `client_core_new` takes an env, a loop and a transport. holdfast.c
 * puts a thread, the production env and TLS around it.
 *
 * Order of calls: client_core_new, client_core_submit any number of times, client_core_close, (closed runs),
 * client_core_free.
 *
 * A request's way:
 *
 *   submitted --(no place)--> WAITING --> READY --sent--> SENT --reply--> done
 *                                           ^               |
 *                                           +--- DELAYED <--+  surely not executed, or a read, or retry_unknown:
 * back-off
 *
 * Its one timer ends it at its deadline wherever it is. A request that waits for a tenth of silence_ms makes the core
 * ask the other nodes who leads; when one of them names another leader, what may be repeated moves there. Which node
 * gets it: the named one (pin or target), else `current`, the best guess at the leader: from greetings, from NOT_LEADER
 * replies, else the next endpoint that isn't backing off.
 *
 * Owner: the loop's thread, except client_core_reserve and client_core_release (any thread).
 */
#ifndef HOLDFAST_CLIENT_INTERNAL_H
#define HOLDFAST_CLIENT_INTERNAL_H

#include "node/base/arena.h"
#include "node/env/env.h"
#include "proto/client/holdfast.h"
#include "proto/connection.h"
#include "proto/wire.pb-c.h"

enum {
    CLIENT_ENDPOINTS_MAX = 32,    /* configured and learnt */
    CLIENT_CONNECTIONS_MAX = 256, /* to one endpoint */
    CLIENT_IN_FLIGHT_MAX = 65536,
    CLIENT_TIMEOUT_MS_MAX = 3600 * 1000,
    CLIENT_REASON_BYTES = 160
};

/* ---- Requests ------------------------------------------------------------------------------------------------- */

enum client_operation {
    CLIENT_PUT,
    CLIENT_DELETE,
    CLIENT_DELETE_RANGE,
    CLIENT_BATCH,
    CLIENT_CHANGE_MEMBERS,
    CLIENT_TRANSFER_LEADER,
    CLIENT_REBUILD_MEMBER,
    CLIENT_UPKEEP, /* up to here they change something */
    CLIENT_GET,
    CLIENT_SCAN,
    CLIENT_STATUS,
    CLIENT_EXPLAIN_LOG,
    CLIENT_LIST_MEMBERS,
    CLIENT_COMPARE /* beginning one that is on its way is joining it */
};

/* Operations of a batch in the wire's form. Bytes stand in client_request.value, one after the other. */
struct client_batch {
    uint32_t *kinds;
    uint32_t *key_lens;
    uint32_t *value_lens;
    uint32_t count;
};

/* What done gets; borrowed for the call, but page and log may be taken (set them to NULL). */
struct client_answer {
    struct holdfast_result result;
    struct holdfast_value value;
    struct holdfast_page *page;
    struct holdfast_node_status *status;
    struct holdfast_log *log;
    struct holdfast_upkeep *upkeep;
    struct holdfast_members *members; /* also of a transfer: leader_id */
    struct holdfast_comparison *comparison;
};

enum client_state { CLIENT_IDLE, CLIENT_WAITING, CLIENT_READY, CLIENT_DELAYED, CLIENT_SENT };

struct client_core;
struct client_link;

/* The submitter fills the first part in (client_request_init, then fields), keeps all of it in place, and owns it again
 * when done runs. */
struct client_request {
    enum client_operation operation;
    struct slice key;   /* put, delete, get; lower bound of a scan, a range delete or a compaction */
    struct slice upper; /* scan, range delete, compaction */
    struct slice value; /* put; batch: all keys and values */
    enum holdfast_upkeep_action upkeep_action;
    const char *dir; /* checkpoint; borrowed */
    bool compare_begins;
    const struct holdfast_member_change *changes; /* of members; borrowed */
    size_t change_count;
    uint64_t transfer_target; /* 0: to the best; a rebuild: who */
    struct client_batch batch;
    struct holdfast_read_options read;
    uint32_t scan_limit;
    bool keys_only;
    bool count_only;
    bool retry_unknown;
    bool waits;     /* without a place: wait for one, instead of BUSY (blocking calls, whose number threads bound) */
    bool reserved;  /* client_core_reserve was done for it */
    int32_t target; /* endpoint that it must go to; -1: the core chooses */
    uint64_t deadline_us; /* env_clock_us time; 0: timeout of the options from now */
    void (*done)(struct client_request *request, struct client_answer *answer);

    /* The core's: */
    struct client_core *core;
    struct list link;
    struct env_timer timer;
    uint64_t retry_at_us;
    struct client_link *sent_on;
    uint64_t sent_us;
    enum client_state state;
    uint32_t slot;
    uint32_t attempts;            /* failed ones */
    bool maybe_done;              /* an earlier attempt of this write may have happened */
    enum holdfast_code last_code; /* of the last failed attempt */
    char reason[CLIENT_REASON_BYTES];
};

/* Sets everything to nothing, target to -1. */
void client_request_init(struct client_request *request, enum client_operation operation,
                         void (*done)(struct client_request *request, struct client_answer *answer));
/* Checks lengths and counts: HOLDFAST_CODE_OK, INVALID or TOO_LARGE. */
enum holdfast_code client_request_check(const struct client_request *request);
/* 1 to HOLDFAST_MEMBER_CHANGES_MAX sound changes: HOLDFAST_CODE_OK, INVALID or TOO_LARGE. */
enum holdfast_code client_changes_check(const struct holdfast_member_change *changes, size_t count);
/* Keys and values, for the bounds. */
uint64_t client_request_bytes(const struct client_request *request);
static inline bool client_request_is_write(const struct client_request *request) {
    return request->operation <= CLIENT_UPKEEP;
}

/* ---- The core ------------------------------------------------------------------------------------------------- */

struct client_endpoint_config {
    char name[LIMIT_NAME_BYTES];
    char address[LIMIT_ADDRESS_BYTES];
};

struct client_options {
    struct client_endpoint_config endpoints[CLIENT_ENDPOINTS_MAX];
    uint32_t endpoint_count;
    int32_t pin; /* the only endpoint to talk to; -1: none */
    uint32_t timeout_ms;
    uint32_t connections;
    uint32_t in_flight_max;
    uint64_t in_flight_bytes_max;
    uint32_t silence_ms;
};

/* No endpoints; the defaults of holdfast_options_init. */
void client_options_init(struct client_options *options);
/* "name=host:port" or "host:port", several with commas. err names the part that is wrong. */
MUST_USE enum status client_options_add_endpoints(struct client_options *options, const char *list, struct error *err);
/* By name or address, added if it's an address that isn't there. */
MUST_USE enum status client_options_set_pin(struct client_options *options, const char *node, struct error *err);
/* All numbers within their ranges, at least one endpoint. */
MUST_USE enum status client_options_check(const struct client_options *options, struct error *err);

/* Copies options (valid ones: CHECK); borrows env, loop and transport. */
MUST_USE enum status client_core_new(struct env *env, struct env_loop *loop, struct env_transport *transport,
                                     const struct client_options *options, struct client_core **ret_core);
/* Takes charge of a checked request. HOLDFAST_CODE_OK: done will run, later; BUSY (no place and not `waits`), CLOSED,
 * NO_MEMORY: it won't. */
enum holdfast_code client_core_submit(struct client_core *core, struct client_request *request);
/* Takes a place ahead of client_core_submit, from any thread; false: none is free. */
bool client_core_reserve(struct client_core *core, uint64_t bytes);
void client_core_release(struct client_core *core, uint64_t bytes);
/* All requests end with CLOSED, all connections are closed, then closed runs (later). Once. */
void client_core_close(struct client_core *core, void (*closed)(void *context), void *context);
/* After closed ran, or before the first submit. NULL is accepted. */
void client_core_free(struct client_core *core);

/* ---- Codes ---------------------------------------------------------------------------------------------------- */

/* Refusals over a certificate are DENIED; numbers that we don't know are INTERNAL. */
enum holdfast_code client_code_of_wire(uint32_t code);
enum holdfast_code client_code_of_status(enum status status);
void client_result_set(struct holdfast_result *result, enum holdfast_outcome outcome, enum holdfast_code code,
                       const char *format, ...) PRINTF_LIKE(4, 5);
/* FAILED with the code and message of err; returns the outcome. result may be NULL. */
enum holdfast_outcome client_result_error(struct holdfast_result *result, const struct error *err);
/* As strlcpy, for texts from others: control bytes become '?'. */
void client_text_copy(char *out, size_t size, const char *text);

/* ---- The handle, for tests ------------------------------------------------------------------------------------ */

/* holdfast_open without TLS. */
enum holdfast_outcome client_open_plain(const struct holdfast_options *options, struct holdfast **ret_handle,
                                        struct holdfast_result *result);

#endif
