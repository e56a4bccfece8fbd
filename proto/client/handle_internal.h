/* The handle: what holdfast.c (opening, closing) and the calls share. Immutable between open and close, bar the spare
 * events. */
#ifndef HOLDFAST_CLIENT_HANDLE_INTERNAL_H
#define HOLDFAST_CLIENT_HANDLE_INTERNAL_H

#include "proto/client/client_internal.h"

enum { HANDLE_SPARE_EVENTS = 64 };

struct tls_context;

struct holdfast {
    struct env *env;
    struct env_loop *loop;
    struct tls_context *tls; /* NULL: plain */
    struct client_core *core;
    struct client_options options;
    struct env_message close_message;
    /* Events that blocking calls reuse: taken and given by exchanging whole pointers. */
    _Atomic(struct env_event *) spare_events[HANDLE_SPARE_EVENTS];
};

union handle_callback {
    holdfast_write_callback write;
    holdfast_get_callback get;
    holdfast_scan_callback scan;
    holdfast_status_callback status;
    holdfast_members_callback members;
    holdfast_transfer_callback transfer;
};

/* One call on its way: on the caller's stack (blocking) or in one block with its bytes (asynchronous). */
struct handle_call {
    struct env_message message;
    struct client_request request;
    struct holdfast *handle;
    void *batch_block; /* freed with the call */
    /* Asynchronous: */
    union handle_callback callback;
    void *context;
    /* Blocking: who waits, and for what; the others are NULL. */
    struct env_event *event;
    struct holdfast_result *result;
    struct holdfast_value *value;
    struct holdfast_page **page;
    struct holdfast_node_status *status;
    struct holdfast_log **log;
    struct holdfast_upkeep *upkeep;
    struct holdfast_members *members;
    struct holdfast_comparison *comparison;
    uint64_t *leader_id;
};

/* request.c: a call with nothing to ask for yet; its message hands the request to the core, and done gets the answer,
 * also of one that the core doesn't take. */
void handle__call_init(struct handle_call *call, struct holdfast *handle, enum client_operation operation,
                       void (*done)(struct client_request *request, struct client_answer *answer));
/* Arguments to request; keys and values borrowed. */
void handle__fill_write(struct client_request *request, struct slice key, struct slice value,
                        const struct holdfast_write_options *options);
void handle__fill_delete_range(struct client_request *request, struct slice lower, struct slice upper,
                               const struct holdfast_write_options *options);
void handle__fill_get(struct client_request *request, struct slice key, const struct holdfast_read_options *options);
void handle__fill_scan(struct client_request *request, const struct holdfast_scan *scan,
                       const struct holdfast_read_options *options);
/* Copies the operations into call->batch_block. */
enum holdfast_code handle__fill_batch(struct handle_call *call, const struct holdfast_operation *operations,
                                      size_t count, const struct holdfast_write_options *options);
/* Bytes that a copy of these changes takes (sound ones), and the copy itself, in memory of so many bytes that is
 * aligned for the structs. Returns the first of them. */
size_t handle__changes_bytes(const struct holdfast_member_change *changes, size_t count);
const struct holdfast_member_change *handle__copy_changes(void *memory, const struct holdfast_member_change *changes,
                                                          size_t count);
/* From now. timeout_ms 0: the handle's. */
uint64_t handle__deadline_us(const struct holdfast *handle, uint32_t timeout_ms);
/* Milliseconds; 0: the handle's. options may be NULL. */
static inline uint32_t handle__write_timeout(const struct holdfast_write_options *options) {
    return options != NULL ? options->timeout_ms : 0;
}
static inline uint32_t handle__read_timeout(const struct holdfast_read_options *options) {
    return options != NULL ? options->timeout_ms : 0;
}

#endif
