/*
 * Blocking calls: the request lives on the caller's stack, goes to the loop as a message, and the caller sleeps on an
 * event until the core is done with it, at its deadline at the latest. They wait for a place in the core, so threads
 * bound how many there are.
 */
#include "proto/client/handle_internal.h"

#include "node/base/check.h"

/* ---- Events --------------------------------------------------------------------------------------------------- */

static struct env_event *event_take(struct holdfast *handle) {
    for (size_t i = 0; i < HANDLE_SPARE_EVENTS; i++) {
        if (atomic_load_explicit(&handle->spare_events[i], memory_order_relaxed) != NULL) {
            struct env_event *event = atomic_exchange(&handle->spare_events[i], NULL);
            if (event != NULL) {
                return event;
            }
        }
    }
    struct env_event *event = NULL;
    return env_event_new(handle->env, &event) == STATUS_OK ? event : NULL;
}

static void event_give(struct holdfast *handle, struct env_event *event) {
    for (size_t i = 0; i < HANDLE_SPARE_EVENTS; i++) {
        struct env_event *expected = NULL;
        if (atomic_compare_exchange_strong(&handle->spare_events[i], &expected, event)) {
            return;
        }
    }
    env_event_free(event);
}

/* ---- There and back ------------------------------------------------------------------------------------------- */

/* On the loop. The call is the waiter's again once the event is set. */
static void call_done(struct client_request *request, struct client_answer *answer) {
    struct handle_call *call = CONTAINER_OF(request, struct handle_call, request);
    struct env_event *event = call->event;
    *call->result = answer->result;
    if (answer->result.outcome == HOLDFAST_OK) {
        if (call->value != NULL) {
            struct alloc *alloc = call->handle->env->alloc;
            uint8_t *copy = mem_alloc(alloc, answer->value.len > 0 ? answer->value.len : 1);
            if (copy == NULL) {
                client_result_set(call->result, HOLDFAST_FAILED, HOLDFAST_CODE_NO_MEMORY,
                                  "out of memory for the value");
            } else {
                memcpy(copy, answer->value.data, answer->value.len);
                *call->value = answer->value;
                call->value->data = copy;
            }
        }
        if (call->page != NULL) {
            *call->page = answer->page;
            answer->page = NULL;
        }
        if (call->status != NULL) {
            *call->status = *answer->status;
        }
        if (call->upkeep != NULL) {
            *call->upkeep = *answer->upkeep;
        }
        if (call->members != NULL) {
            *call->members = *answer->members;
        }
        if (call->comparison != NULL) {
            *call->comparison = *answer->comparison;
        }
        if (call->leader_id != NULL) {
            *call->leader_id = answer->members->leader_id;
        }
        if (call->log != NULL) {
            *call->log = answer->log;
            answer->log = NULL;
        }
    }
    env_event_set(event);
}

static void call_init(struct handle_call *call, struct holdfast *handle, enum client_operation operation,
                      struct holdfast_result *result) {
    handle__call_init(call, handle, operation, call_done);
    call->request.waits = true;
    call->result = result;
    memset(result, 0, sizeof *result);
}

static enum holdfast_outcome refuse(struct holdfast_result *result, enum holdfast_code code) {
    const char *why = "an argument is wrong: keys have 1 to 4096 bytes";
    if (code == HOLDFAST_CODE_TOO_LARGE) {
        why = "too large: keys have at most 4096 bytes, values 16 MiB, batches 65536 operations and 16 MiB in all";
    } else if (code == HOLDFAST_CODE_NO_MEMORY) {
        why = "out of memory";
    }
    client_result_set(result, HOLDFAST_FAILED, code, "%s", why);
    return result->outcome;
}

static enum holdfast_outcome call_run(struct handle_call *call, uint32_t timeout_ms) {
    struct holdfast *handle = call->handle;
    enum holdfast_code code = client_request_check(&call->request);
    if (code != HOLDFAST_CODE_OK) {
        return refuse(call->result, code);
    }
    if (env_on_loop(handle->loop)) {
        client_result_set(call->result, HOLDFAST_FAILED, HOLDFAST_CODE_INVALID, "a blocking call from a callback");
        return call->result->outcome;
    }
    call->event = event_take(handle);
    if (call->event == NULL) {
        return refuse(call->result, HOLDFAST_CODE_NO_MEMORY);
    }
    struct env_event *event = call->event;
    call->request.deadline_us = handle__deadline_us(handle, timeout_ms);
    env_post(handle->loop, &call->message);
    enum status status = env_event_wait(event, UINT64_MAX);
    CHECK(status == STATUS_OK);
    event_give(handle, event);
    return call->result->outcome;
}

/* The same to one node. */
static enum holdfast_outcome call_run_at(struct handle_call *call, uint32_t endpoint, uint32_t timeout_ms) {
    if (endpoint >= call->handle->options.endpoint_count) {
        return refuse(call->result, HOLDFAST_CODE_INVALID);
    }
    call->request.target = (int32_t)endpoint;
    return call_run(call, timeout_ms);
}

/* ---- The calls ------------------------------------------------------------------------------------------------ */

enum holdfast_outcome holdfast_put(struct holdfast *handle, const void *key, size_t key_len, const void *value,
                                   size_t value_len, const struct holdfast_write_options *options,
                                   struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_PUT, result != NULL ? result : &own);
    handle__fill_write(&call.request, slice_of(key, key_len), slice_of(value, value_len), options);
    return call_run(&call, handle__write_timeout(options));
}

enum holdfast_outcome holdfast_delete(struct holdfast *handle, const void *key, size_t key_len,
                                      const struct holdfast_write_options *options, struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_DELETE, result != NULL ? result : &own);
    handle__fill_write(&call.request, slice_of(key, key_len), SLICE_EMPTY, options);
    return call_run(&call, handle__write_timeout(options));
}

enum holdfast_outcome holdfast_delete_range(struct holdfast *handle, const struct holdfast_range *range,
                                            const struct holdfast_write_options *options,
                                            struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_DELETE_RANGE, result != NULL ? result : &own);
    handle__fill_delete_range(&call.request, slice_of(range->lower, range->lower_len),
                              slice_of(range->upper, range->upper_len), options);
    return call_run(&call, handle__write_timeout(options));
}

enum holdfast_outcome holdfast_batch(struct holdfast *handle, const struct holdfast_operation *operations, size_t count,
                                     const struct holdfast_write_options *options, struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_BATCH, result != NULL ? result : &own);
    enum holdfast_code code = handle__fill_batch(&call, operations, count, options);
    if (code != HOLDFAST_CODE_OK) {
        return refuse(call.result, code);
    }
    enum holdfast_outcome outcome = call_run(&call, handle__write_timeout(options));
    mem_free(handle->env->alloc, call.batch_block);
    return outcome;
}

enum holdfast_outcome holdfast_get(struct holdfast *handle, const void *key, size_t key_len,
                                   const struct holdfast_read_options *options, struct holdfast_value *ret_value,
                                   struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_GET, result != NULL ? result : &own);
    handle__fill_get(&call.request, slice_of(key, key_len), options);
    call.value = ret_value;
    return call_run(&call, handle__read_timeout(options));
}

enum holdfast_outcome holdfast_scan_page(struct holdfast *handle, const struct holdfast_scan *scan,
                                         const struct holdfast_read_options *options, struct holdfast_page **ret_page,
                                         struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_SCAN, result != NULL ? result : &own);
    handle__fill_scan(&call.request, scan, options);
    call.page = ret_page;
    return call_run(&call, handle__read_timeout(options));
}

enum holdfast_outcome holdfast_status(struct holdfast *handle, uint32_t endpoint, uint32_t timeout_ms,
                                      struct holdfast_node_status *ret_status, struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_STATUS, result != NULL ? result : &own);
    call.status = ret_status;
    return call_run_at(&call, endpoint, timeout_ms);
}

enum holdfast_outcome holdfast_explain_log(struct holdfast *handle, uint32_t endpoint, uint32_t timeout_ms,
                                           struct holdfast_log **ret_log, struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_EXPLAIN_LOG, result != NULL ? result : &own);
    call.log = ret_log;
    return call_run_at(&call, endpoint, timeout_ms);
}

enum holdfast_outcome holdfast_upkeep(struct holdfast *handle, uint32_t endpoint,
                                      const struct holdfast_upkeep_request *request, uint32_t timeout_ms,
                                      struct holdfast_upkeep *ret_upkeep, struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_UPKEEP, result != NULL ? result : &own);
    call.request.upkeep_action = request->action;
    call.request.key = slice_of(request->range.lower, request->range.lower_len);
    call.request.upper = slice_of(request->range.upper, request->range.upper_len);
    call.request.dir = request->dir;
    call.upkeep = ret_upkeep;
    return call_run_at(&call, endpoint, timeout_ms);
}

enum holdfast_outcome holdfast_compare(struct holdfast *handle, bool begin, uint32_t timeout_ms,
                                       struct holdfast_comparison *ret_comparison, struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_COMPARE, result != NULL ? result : &own);
    call.request.compare_begins = begin;
    call.comparison = ret_comparison;
    return call_run(&call, timeout_ms);
}

/* In words of its own: no key is wrong here. */
static enum holdfast_outcome refuse_changes(struct holdfast_result *result, enum holdfast_code code) {
    client_result_set(
        result, HOLDFAST_FAILED, code,
        "a change of members needs 1 to %d parts, each with an id from 1 to 2^63; who is added, a name, two "
        "addresses and a thumbprint",
        HOLDFAST_MEMBER_CHANGES_MAX);
    return result->outcome;
}

enum holdfast_outcome holdfast_list_members(struct holdfast *handle, const struct holdfast_read_options *options,
                                            struct holdfast_members *ret_members, struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_LIST_MEMBERS, result != NULL ? result : &own);
    call.request.read.local = options != NULL && options->local;
    call.members = ret_members;
    return call_run(&call, handle__read_timeout(options));
}

enum holdfast_outcome holdfast_change_members(struct holdfast *handle, const struct holdfast_member_change *changes,
                                              size_t count, uint32_t timeout_ms, struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_CHANGE_MEMBERS, result != NULL ? result : &own);
    enum holdfast_code code = client_changes_check(changes, count);
    if (code != HOLDFAST_CODE_OK) {
        return refuse_changes(call.result, code);
    }
    call.request.changes = changes;
    call.request.change_count = count;
    return call_run(&call, timeout_ms);
}

enum holdfast_outcome holdfast_transfer_leader(struct holdfast *handle, uint64_t target_id, uint32_t timeout_ms,
                                               uint64_t *ret_leader_id, struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_TRANSFER_LEADER, result != NULL ? result : &own);
    call.request.transfer_target = target_id;
    call.leader_id = ret_leader_id;
    return call_run(&call, timeout_ms);
}

enum holdfast_outcome holdfast_rebuild_member(struct holdfast *handle, uint64_t id, uint32_t timeout_ms,
                                              struct holdfast_result *result) {
    struct handle_call call;
    struct holdfast_result own;
    call_init(&call, handle, CLIENT_REBUILD_MEMBER, result != NULL ? result : &own);
    call.request.transfer_target = id;
    return call_run(&call, timeout_ms);
}

void holdfast_log_free(struct holdfast *handle, struct holdfast_log *log) {
    if (log != NULL) {
        mem_free(handle->env->alloc, log);
    }
}

void holdfast_value_free(struct holdfast *handle, struct holdfast_value *value) {
    if (value != NULL) {
        /* The caller's view is const; the block is ours. */
        mem_free(handle->env->alloc, (void *)value->data);
        *value = (struct holdfast_value){0};
    }
}

void holdfast_page_free(struct holdfast *handle, struct holdfast_page *page) {
    if (page != NULL) {
        mem_free(handle->env->alloc, page);
    }
}
