/*
 * Asynchronous calls: a place is taken on the caller's thread (or BUSY), the bytes are copied, and the request goes to
 * the loop as a message; from a callback it goes to the core directly.
 */
#include "proto/client/handle_internal.h"

#include "node/base/check.h"

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

static void call_arrived(struct env_message *message) {
    struct handle_call *call = CONTAINER_OF(message, struct handle_call, message);
    enum holdfast_code code = client_core_submit(call->handle->core, &call->request);
    if (code != HOLDFAST_CODE_OK) {
        struct client_answer answer;
        memset(&answer, 0, sizeof answer);
        client_result_set(&answer.result, HOLDFAST_FAILED, code, "not sent: %s", holdfast_code_name(code));
        call->request.done(&call->request, &answer);
    }
}

/* Room for two byte strings behind the call; NULL when memory is out. */
static struct handle_call *call_new(struct holdfast *handle, enum client_operation operation, size_t bytes,
                                    void (*done)(struct client_request *request, struct client_answer *answer)) {
    struct handle_call *call = mem_alloc(handle->env->alloc, sizeof *call + bytes);
    if (call != NULL) {
        memset(call, 0, sizeof *call);
        client_request_init(&call->request, operation, done);
        call->message.run = call_arrived;
        call->handle = handle;
    }
    return call;
}

/* Copies two byte strings behind the call. */
static void call_copy(struct handle_call *call, struct slice *first, struct slice *second) {
    uint8_t *at = (uint8_t *)(call + 1);
    if (first->len > 0) {
        memcpy(at, first->data, first->len);
    }
    *first = slice_of(at, first->len);
    if (second->len > 0) {
        memcpy(at + first->len, second->data, second->len);
    }
    *second = slice_of(at + first->len, second->len);
}

/* Takes the call: it is freed on refusal. */
static enum holdfast_code call_start(struct handle_call *call, uint32_t timeout_ms) {
    struct holdfast *handle = call->handle;
    uint64_t bytes = client_request_bytes(&call->request);
    enum holdfast_code code = HOLDFAST_CODE_OK;
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

/* ---- The calls ------------------------------------------------------------------------------------------------ */

static enum holdfast_code start_write(struct holdfast *handle, enum client_operation operation, struct slice key,
                                      struct slice value, const struct holdfast_write_options *options,
                                      holdfast_write_callback callback, void *context) {
    struct client_request check = {.operation = operation, .key = key, .value = value};
    enum holdfast_code code = client_request_check(&check);
    if (code != HOLDFAST_CODE_OK) {
        return code;
    }
    struct handle_call *call = call_new(handle, operation, key.len + value.len, write_done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    call_copy(call, &key, &value);
    handle__fill_write(&call->request, key, value, options);
    call->callback.write = callback;
    call->context = context;
    return call_start(call, options != NULL ? options->timeout_ms : 0);
}

enum holdfast_code holdfast_put_async(struct holdfast *handle, const void *key, size_t key_len, const void *value,
                                      size_t value_len, const struct holdfast_write_options *options,
                                      holdfast_write_callback callback, void *context) {
    return start_write(handle, CLIENT_PUT, slice_of(key, key_len), slice_of(value, value_len), options, callback,
                       context);
}

enum holdfast_code holdfast_delete_async(struct holdfast *handle, const void *key, size_t key_len,
                                         const struct holdfast_write_options *options, holdfast_write_callback callback,
                                         void *context) {
    return start_write(handle, CLIENT_DELETE, slice_of(key, key_len), SLICE_EMPTY, options, callback, context);
}

enum holdfast_code holdfast_delete_range_async(struct holdfast *handle, const struct holdfast_range *range,
                                               const struct holdfast_write_options *options,
                                               holdfast_write_callback callback, void *context) {
    struct client_request check = {.operation = CLIENT_DELETE_RANGE,
                                   .key = slice_of(range->lower, range->lower_len),
                                   .upper = slice_of(range->upper, range->upper_len)};
    enum holdfast_code code = client_request_check(&check);
    if (code != HOLDFAST_CODE_OK) {
        return code;
    }
    struct handle_call *call = call_new(handle, CLIENT_DELETE_RANGE, check.key.len + check.upper.len, write_done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    handle__fill_delete_range(&call->request, check.key, check.upper, options);
    call_copy(call, &call->request.key, &call->request.upper);
    call->callback.write = callback;
    call->context = context;
    return call_start(call, options != NULL ? options->timeout_ms : 0);
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
    call->callback.write = callback;
    call->context = context;
    return call_start(call, options != NULL ? options->timeout_ms : 0);
}

enum holdfast_code holdfast_get_async(struct holdfast *handle, const void *key, size_t key_len,
                                      const struct holdfast_read_options *options, holdfast_get_callback callback,
                                      void *context) {
    struct slice bytes = slice_of(key, key_len);
    struct slice none = SLICE_EMPTY;
    struct client_request check = {.operation = CLIENT_GET, .key = bytes};
    enum holdfast_code code = client_request_check(&check);
    if (code != HOLDFAST_CODE_OK) {
        return code;
    }
    struct handle_call *call = call_new(handle, CLIENT_GET, key_len, get_done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    call_copy(call, &bytes, &none);
    handle__fill_get(&call->request, bytes, options);
    call->callback.get = callback;
    call->context = context;
    return call_start(call, options != NULL ? options->timeout_ms : 0);
}

enum holdfast_code holdfast_scan_page_async(struct holdfast *handle, const struct holdfast_scan *scan,
                                            const struct holdfast_read_options *options,
                                            holdfast_scan_callback callback, void *context) {
    struct client_request check = {.operation = CLIENT_SCAN,
                                   .key = slice_of(scan->lower, scan->lower_len),
                                   .upper = slice_of(scan->upper, scan->upper_len)};
    enum holdfast_code code = client_request_check(&check);
    if (code != HOLDFAST_CODE_OK) {
        return code;
    }
    struct handle_call *call = call_new(handle, CLIENT_SCAN, scan->lower_len + scan->upper_len, scan_done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    handle__fill_scan(&call->request, scan, options);
    call_copy(call, &call->request.key, &call->request.upper);
    call->callback.scan = callback;
    call->context = context;
    return call_start(call, options != NULL ? options->timeout_ms : 0);
}

enum holdfast_code holdfast_status_async(struct holdfast *handle, uint32_t endpoint, uint32_t timeout_ms,
                                         holdfast_status_callback callback, void *context) {
    if (endpoint >= handle->options.endpoint_count) {
        return HOLDFAST_CODE_INVALID;
    }
    struct handle_call *call = call_new(handle, CLIENT_STATUS, 0, status_done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    call->request.target = (int32_t)endpoint;
    call->callback.status = callback;
    call->context = context;
    return call_start(call, timeout_ms);
}

enum holdfast_code holdfast_list_members_async(struct holdfast *handle, const struct holdfast_read_options *options,
                                               holdfast_members_callback callback, void *context) {
    struct handle_call *call = call_new(handle, CLIENT_LIST_MEMBERS, 0, members_done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    call->request.read.local = options != NULL && options->local;
    call->callback.members = callback;
    call->context = context;
    return call_start(call, options != NULL ? options->timeout_ms : 0);
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
    call->callback.write = callback;
    call->context = context;
    return call_start(call, timeout_ms);
}

enum holdfast_code holdfast_transfer_leader_async(struct holdfast *handle, uint64_t target_id, uint32_t timeout_ms,
                                                  holdfast_transfer_callback callback, void *context) {
    struct handle_call *call = call_new(handle, CLIENT_TRANSFER_LEADER, 0, transfer_done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    call->request.transfer_target = target_id;
    call->callback.transfer = callback;
    call->context = context;
    return call_start(call, timeout_ms);
}

enum holdfast_code holdfast_rebuild_member_async(struct holdfast *handle, uint64_t id, uint32_t timeout_ms,
                                                 holdfast_write_callback callback, void *context) {
    struct handle_call *call = call_new(handle, CLIENT_REBUILD_MEMBER, 0, write_done);
    if (call == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    call->request.transfer_target = id;
    call->callback.write = callback;
    call->context = context;
    return call_start(call, timeout_ms);
}
