/*
 * Asynchronous calls: a place is taken on the caller's thread (or BUSY), the bytes are copied, and the request goes to
 * the loop as a message; from a callback it goes to the core directly.
 */
#include "proto/client/handle_internal.h"

static void call_free(struct handle_call *call) {
    struct alloc *alloc = call->handle->env->alloc;
    mem_free(alloc, call->batch_block);
    mem_free(alloc, call);
}

/* ---- Callbacks ------------------------------------------------------------------------------------------------ */

static struct handle_call *call_of(struct client_request *request) {
    return CONTAINER_OF(request, struct handle_call, request);
}

static bool is_ok(const struct client_answer *answer) { return answer->result.outcome == HOLDFAST_OK; }

static void write_done(struct client_request *request, struct client_answer *answer) {
    struct handle_call *call = call_of(request);
    call->callback.write(call->context, &answer->result);
    call_free(call);
}

static void get_done(struct client_request *request, struct client_answer *answer) {
    struct handle_call *call = call_of(request);
    call->callback.get(call->context, &answer->result, is_ok(answer) ? &answer->value : NULL);
    call_free(call);
}

static void scan_done(struct client_request *request, struct client_answer *answer) {
    struct handle_call *call = call_of(request);
    call->callback.scan(call->context, &answer->result, is_ok(answer) ? answer->page : NULL);
    call_free(call);
}

static void status_done(struct client_request *request, struct client_answer *answer) {
    struct handle_call *call = call_of(request);
    call->callback.status(call->context, &answer->result, is_ok(answer) ? answer->status : NULL);
    call_free(call);
}

static void members_done(struct client_request *request, struct client_answer *answer) {
    struct handle_call *call = call_of(request);
    call->callback.members(call->context, &answer->result, is_ok(answer) ? answer->members : NULL);
    call_free(call);
}

static void transfer_done(struct client_request *request, struct client_answer *answer) {
    struct handle_call *call = call_of(request);
    call->callback.transfer(call->context, &answer->result, is_ok(answer) ? answer->members->leader_id : 0);
    call_free(call);
}

/* ---- There ---------------------------------------------------------------------------------------------------- */

/* Room for so many bytes behind the call; NULL when memory is out. */
static struct handle_call *call_new(struct holdfast *handle, enum client_operation operation, size_t bytes,
                                    void (*done)(struct client_request *request, struct client_answer *answer)) {
    struct handle_call *call = mem_alloc(handle->env->alloc, sizeof *call + bytes);
    if (call != NULL) {
        handle__call_init(call, handle, operation, done);
    }
    return call;
}

static struct slice copy_bytes(uint8_t **at, struct slice bytes) {
    struct slice copy = slice_of(*at, bytes.len);
    if (bytes.len > 0) {
        memcpy(*at, bytes.data, bytes.len);
        *at += bytes.len;
    }
    return copy;
}

/* Takes the call: it is freed on refusal. */
static enum holdfast_code call_start(struct handle_call *call, uint32_t timeout_ms, union handle_callback callback,
                                     void *context) {
    struct holdfast *handle = call->handle;
    uint64_t bytes = client_request_bytes(&call->request);
    enum holdfast_code code = HOLDFAST_CODE_OK;
    call->callback = callback;
    call->context = context;
    if (!client_core_reserve(handle->core, bytes)) {
        code = HOLDFAST_CODE_BUSY;
        goto refuse;
    }
    call->request.reserved = true;
    call->request.deadline_us = handle__deadline_us(handle, timeout_ms);
    if (!env_on_loop(handle->loop)) {
        env_post(handle->loop, &call->message);
        return HOLDFAST_CODE_OK;
    }
    code = client_core_submit(handle->core, &call->request);
    if (code == HOLDFAST_CODE_OK) {
        return code;
    }
refuse:
    call_free(call);
    return code;
}

/* A request of which nothing but key, value and upper bound is borrowed: checked, copied, started. */
static enum holdfast_code start(struct holdfast *handle, const struct client_request *asked, uint32_t timeout_ms,
                                union handle_callback callback, void *context) {
    enum holdfast_code code = client_request_check(asked);
    if (code != HOLDFAST_CODE_OK) {
        return code;
    }
    struct handle_call *call = call_new(handle, asked->operation, client_request_bytes(asked), asked->done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    struct client_request *request = &call->request;
    uint8_t *at = (uint8_t *)(call + 1);
    *request = *asked;
    list_init(&request->link);
    request->key = copy_bytes(&at, asked->key);
    request->value = copy_bytes(&at, asked->value);
    request->upper = copy_bytes(&at, asked->upper);
    return call_start(call, timeout_ms, callback, context);
}

/* ---- The calls ------------------------------------------------------------------------------------------------ */

enum holdfast_code holdfast_put_async(struct holdfast *handle, const void *key, size_t key_len, const void *value,
                                      size_t value_len, const struct holdfast_write_options *options,
                                      holdfast_write_callback callback, void *context) {
    struct client_request asked;
    client_request_init(&asked, CLIENT_PUT, write_done);
    handle__fill_write(&asked, slice_of(key, key_len), slice_of(value, value_len), options);
    return start(handle, &asked, handle__write_timeout(options), (union handle_callback){.write = callback}, context);
}

enum holdfast_code holdfast_delete_async(struct holdfast *handle, const void *key, size_t key_len,
                                         const struct holdfast_write_options *options, holdfast_write_callback callback,
                                         void *context) {
    struct client_request asked;
    client_request_init(&asked, CLIENT_DELETE, write_done);
    handle__fill_write(&asked, slice_of(key, key_len), SLICE_EMPTY, options);
    return start(handle, &asked, handle__write_timeout(options), (union handle_callback){.write = callback}, context);
}

enum holdfast_code holdfast_delete_range_async(struct holdfast *handle, const struct holdfast_range *range,
                                               const struct holdfast_write_options *options,
                                               holdfast_write_callback callback, void *context) {
    struct client_request asked;
    client_request_init(&asked, CLIENT_DELETE_RANGE, write_done);
    handle__fill_delete_range(&asked, slice_of(range->lower, range->lower_len),
                              slice_of(range->upper, range->upper_len), options);
    return start(handle, &asked, handle__write_timeout(options), (union handle_callback){.write = callback}, context);
}

enum holdfast_code holdfast_batch_async(struct holdfast *handle, const struct holdfast_operation *operations,
                                        size_t count, const struct holdfast_write_options *options,
                                        holdfast_write_callback callback, void *context) {
    struct handle_call *call = call_new(handle, CLIENT_BATCH, 0, write_done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    enum holdfast_code code = handle__fill_batch(call, operations, count, options);
    if (code == HOLDFAST_CODE_OK) {
        code = client_request_check(&call->request);
    }
    if (code != HOLDFAST_CODE_OK) {
        call_free(call);
        return code;
    }
    return call_start(call, handle__write_timeout(options), (union handle_callback){.write = callback}, context);
}

enum holdfast_code holdfast_get_async(struct holdfast *handle, const void *key, size_t key_len,
                                      const struct holdfast_read_options *options, holdfast_get_callback callback,
                                      void *context) {
    struct client_request asked;
    client_request_init(&asked, CLIENT_GET, get_done);
    handle__fill_get(&asked, slice_of(key, key_len), options);
    return start(handle, &asked, handle__read_timeout(options), (union handle_callback){.get = callback}, context);
}

enum holdfast_code holdfast_scan_page_async(struct holdfast *handle, const struct holdfast_scan *scan,
                                            const struct holdfast_read_options *options,
                                            holdfast_scan_callback callback, void *context) {
    struct client_request asked;
    client_request_init(&asked, CLIENT_SCAN, scan_done);
    handle__fill_scan(&asked, scan, options);
    return start(handle, &asked, handle__read_timeout(options), (union handle_callback){.scan = callback}, context);
}

enum holdfast_code holdfast_status_async(struct holdfast *handle, uint32_t endpoint, uint32_t timeout_ms,
                                         holdfast_status_callback callback, void *context) {
    struct client_request asked;
    if (endpoint >= handle->options.endpoint_count) {
        return HOLDFAST_CODE_INVALID;
    }
    client_request_init(&asked, CLIENT_STATUS, status_done);
    asked.target = (int32_t)endpoint;
    return start(handle, &asked, timeout_ms, (union handle_callback){.status = callback}, context);
}

enum holdfast_code holdfast_list_members_async(struct holdfast *handle, const struct holdfast_read_options *options,
                                               holdfast_members_callback callback, void *context) {
    struct client_request asked;
    client_request_init(&asked, CLIENT_LIST_MEMBERS, members_done);
    asked.read.local = options != NULL && options->local;
    return start(handle, &asked, handle__read_timeout(options), (union handle_callback){.members = callback}, context);
}

enum holdfast_code holdfast_change_members_async(struct holdfast *handle, const struct holdfast_member_change *changes,
                                                 size_t count, uint32_t timeout_ms, holdfast_write_callback callback,
                                                 void *context) {
    enum holdfast_code code = client_changes_check(changes, count);
    if (code != HOLDFAST_CODE_OK) {
        return code;
    }
    size_t bytes = handle__changes_bytes(changes, count);
    struct handle_call *call = call_new(handle, CLIENT_CHANGE_MEMBERS, bytes, write_done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    call->request.changes = handle__copy_changes(call + 1, changes, count);
    call->request.change_count = count;
    return call_start(call, timeout_ms, (union handle_callback){.write = callback}, context);
}

enum holdfast_code holdfast_transfer_leader_async(struct holdfast *handle, uint64_t target_id, uint32_t timeout_ms,
                                                  holdfast_transfer_callback callback, void *context) {
    struct client_request asked;
    client_request_init(&asked, CLIENT_TRANSFER_LEADER, transfer_done);
    asked.transfer_target = target_id;
    return start(handle, &asked, timeout_ms, (union handle_callback){.transfer = callback}, context);
}

enum holdfast_code holdfast_rebuild_member_async(struct holdfast *handle, uint64_t id, uint32_t timeout_ms,
                                                 holdfast_write_callback callback, void *context) {
    struct client_request asked;
    client_request_init(&asked, CLIENT_REBUILD_MEMBER, write_done);
    asked.transfer_target = id;
    return start(handle, &asked, timeout_ms, (union handle_callback){.write = callback}, context);
}
