/* From the public arguments to the core's request, and the request's way to the core. */
#include "proto/client/handle_internal.h"

#include "node/base/check.h"

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

void handle__call_init(struct handle_call *call, struct holdfast *handle, enum client_operation operation,
                       void (*done)(struct client_request *request, struct client_answer *answer)) {
    memset(call, 0, sizeof *call);
    client_request_init(&call->request, operation, done);
    call->message.run = call_arrived;
    call->handle = handle;
}

uint64_t handle__deadline_us(const struct holdfast *handle, uint32_t timeout_ms) {
    uint32_t ms = timeout_ms == 0 ? handle->options.timeout_ms : timeout_ms;
    ms = ms < CLIENT_TIMEOUT_MS_MAX ? ms : CLIENT_TIMEOUT_MS_MAX;
    return env_clock_us(handle->env) + (uint64_t)ms * 1000;
}

void handle__fill_write(struct client_request *request, struct slice key, struct slice value,
                        const struct holdfast_write_options *options) {
    request->key = key;
    request->value = value;
    request->retry_unknown = options != NULL && options->retry_unknown;
}

void handle__fill_delete_range(struct client_request *request, struct slice lower, struct slice upper,
                               const struct holdfast_write_options *options) {
    handle__fill_write(request, lower, SLICE_EMPTY, options);
    request->upper = upper;
}

/* Behind all keys with the prefix comes the prefix without its last 0xff bytes, the last byte one up; nothing does if
 * it has only such bytes. */
struct holdfast_range holdfast_prefix_range(const void *prefix, size_t prefix_len, void *end) {
    const uint8_t *bytes = prefix;
    size_t end_len = prefix_len;
    while (end_len > 0 && bytes[end_len - 1] == UINT8_MAX) {
        end_len--;
    }
    if (end_len > 0) {
        memcpy(end, bytes, end_len);
        ((uint8_t *)end)[end_len - 1]++;
    }
    return (struct holdfast_range){prefix, prefix_len, end, end_len};
}

void handle__fill_get(struct client_request *request, struct slice key, const struct holdfast_read_options *options) {
    request->key = key;
    if (options != NULL) {
        request->read = *options;
    }
}

void handle__fill_scan(struct client_request *request, const struct holdfast_scan *scan,
                       const struct holdfast_read_options *options) {
    handle__fill_get(request, slice_of(scan->lower, scan->lower_len), options);
    request->upper = slice_of(scan->upper, scan->upper_len);
    request->scan_limit = scan->limit;
    request->keys_only = scan->keys_only;
    request->count_only = scan->count_only;
}

/* What follows an operation's key: a put's value, a range delete's end. */
static size_t operation_value_len(const struct holdfast_operation *operation) {
    return operation->kind == HOLDFAST_DELETE ? 0 : operation->value_len;
}

/* Bytes of all operations; false: beyond any limit. */
static bool batch_bytes(const struct holdfast_operation *operations, size_t count, size_t *ret_bytes) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        if (operations[i].key_len > LIMIT_KEY_BYTES || operations[i].value_len > LIMIT_VALUE_BYTES) {
            return false;
        }
        bytes += operations[i].key_len + operation_value_len(&operations[i]);
        if (bytes > LIMIT_ENTRY_PAYLOAD_BYTES) {
            return false;
        }
    }
    *ret_bytes = bytes;
    return true;
}

enum holdfast_code handle__fill_batch(struct handle_call *call, const struct holdfast_operation *operations,
                                      size_t count, const struct holdfast_write_options *options) {
    size_t bytes = 0;
    if (count == 0) {
        return HOLDFAST_CODE_INVALID;
    }
    if (count > LIMIT_BATCH_OPERATIONS || !batch_bytes(operations, count, &bytes)) {
        return HOLDFAST_CODE_TOO_LARGE;
    }
    uint32_t *lens = mem_alloc(call->handle->env->alloc, 3 * count * sizeof(uint32_t) + bytes);
    if (lens == NULL) {
        return HOLDFAST_CODE_NO_MEMORY;
    }
    struct client_batch *batch = &call->request.batch;
    *batch = (struct client_batch){lens, lens + count, lens + 2 * count, (uint32_t)count};
    uint8_t *start = (uint8_t *)(lens + 3 * count);
    uint8_t *at = start;
    for (size_t i = 0; i < count; i++) {
        const struct holdfast_operation *operation = &operations[i];
        size_t value_len = operation_value_len(operation);
        batch->kinds[i] = (uint32_t)operation->kind;
        batch->key_lens[i] = (uint32_t)operation->key_len;
        batch->value_lens[i] = (uint32_t)value_len;
        if (operation->key_len > 0) {
            memcpy(at, operation->key, operation->key_len);
            at += operation->key_len;
        }
        if (value_len > 0) {
            memcpy(at, operation->value, value_len);
            at += value_len;
        }
    }
    CHECK((size_t)(at - start) == bytes);
    call->batch_block = lens;
    handle__fill_write(&call->request, SLICE_EMPTY, slice_of(start, bytes), options);
    return HOLDFAST_CODE_OK;
}

/* ---- Changes of the membership ---------------------------------------------------------------------------------- */

size_t handle__changes_bytes(const struct holdfast_member_change *changes, size_t count) {
    size_t bytes = count * sizeof *changes;
    for (size_t i = 0; i < count; i++) {
        if (changes[i].action == HOLDFAST_MEMBER_ADD) {
            bytes += strlen(changes[i].name) + strlen(changes[i].peer_address) + strlen(changes[i].client_address) + 3 +
                     HOLDFAST_THUMBPRINT_BYTES;
        }
    }
    return bytes;
}

/* Copies bytes to *at, moves it behind them; returns the copy. */
static const void *put_bytes(uint8_t **at, const void *bytes, size_t len) {
    uint8_t *copy = memcpy(*at, bytes, len);
    *at += len;
    return copy;
}

const struct holdfast_member_change *handle__copy_changes(void *memory, const struct holdfast_member_change *changes,
                                                          size_t count) {
    struct holdfast_member_change *copies = memory;
    uint8_t *at = (uint8_t *)(copies + count);
    for (size_t i = 0; i < count; i++) {
        const struct holdfast_member_change *from = &changes[i];
        copies[i] = (struct holdfast_member_change){.action = from->action, .id = from->id, .priority = from->priority};
        if (from->action == HOLDFAST_MEMBER_ADD) {
            copies[i].name = put_bytes(&at, from->name, strlen(from->name) + 1);
            copies[i].peer_address = put_bytes(&at, from->peer_address, strlen(from->peer_address) + 1);
            copies[i].client_address = put_bytes(&at, from->client_address, strlen(from->client_address) + 1);
            copies[i].unreachable = from->unreachable;
            copies[i].thumbprint = put_bytes(&at, from->thumbprint, HOLDFAST_THUMBPRINT_BYTES);
        }
    }
    return copies;
}
