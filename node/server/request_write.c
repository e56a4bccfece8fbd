/*
 * Writes: a put, a delete, a range delete, or a batch of them becomes one proposal, whose bytes the request holds until
 * it is answered.
 *
 * Everything about a write is checked here, before the consensus actor sees it: what it is handed fits an entry.
 */
#include "node/server/clients_internal.h"

#include <stdio.h>

static void on_done(struct consensus_proposal *proposal) {
    struct request *request = CONTAINER_OF(proposal, struct request, proposal);
    if (proposal->status != STATUS_OK) {
        request__fail_by_status(request, proposal->status, proposal->unknown);
        return;
    }
    Wire__WriteReply reply = WIRE__WRITE_REPLY__INIT;
    reply.has_revision = 1;
    reply.revision = proposal->revision;
    request__reply(request, FRAME_WRITE_REPLY, &reply.base, NULL, 0);
}

static void propose(struct request *request, const struct batch_operation *operations, uint32_t count,
                    uint32_t timeout_ms) {
    struct clients *clients = request->clients;
    request->proposal = (struct consensus_proposal){
        .loop = clients->options.loop,
        .operations = operations,
        .operation_count = count,
        .deadline_us = request__deadline_us(clients, timeout_ms),
        .done = on_done,
    };
    consensus_propose(clients->options.consensus, &request->proposal);
}

/* One operation; key and value are borrowed. */
static void write_one(struct client_connection *connection, const struct connection_frame *frame, enum batch_kind kind,
                      struct slice key, struct slice value, uint32_t timeout_ms) {
    const char *problem = request__key_problem(key.len);
    if (problem != NULL) {
        client_connection__send_error(connection, frame->request_id, key.len == 0 ? STATUS_INVALID : STATUS_TOO_LARGE,
                                      false, problem);
        return;
    }
    struct request *request = request__take(connection, frame);
    uint8_t *bytes = request != NULL ? request__memory(request, key.len + value.len) : NULL;
    if (bytes == NULL) {
        return;
    }
    memcpy(bytes, key.data, key.len);
    if (value.len > 0) {
        memcpy(bytes + key.len, value.data, value.len);
    }
    request->operation = (struct batch_operation){.kind = kind,
                                                  .key = slice_of(bytes, key.len),
                                                  .value = slice_of(bytes + key.len, value.len)};
    propose(request, &request->operation, 1, timeout_ms);
}

static const ProtobufCMessage *unpack(struct client_connection *connection,
                                      const ProtobufCMessageDescriptor *descriptor,
                                      const struct connection_frame *frame) {
    arena_reset(&connection->clients->arena);
    return wire_unpack(&connection->clients->arena, descriptor, frame->message);
}

void request_write__put(struct client_connection *connection, const struct connection_frame *frame) {
    const Wire__PutRequest *put =
        (const Wire__PutRequest *)(const void *)unpack(connection, &wire__put_request__descriptor, frame);
    if (put == NULL) {
        request__malformed(connection, frame, "put");
        return;
    }
    if (frame->raw.len > LIMIT_VALUE_BYTES) {
        char message[96];
        (void)snprintf(message, sizeof message, "the value has %zu bytes; the limit is %d", frame->raw.len,
                       LIMIT_VALUE_BYTES);
        client_connection__send_error(connection, frame->request_id, STATUS_TOO_LARGE, false, message);
        return;
    }
    write_one(connection, frame, BATCH_PUT, slice_of(put->key.data, put->key.len), frame->raw, put->timeout_ms);
}

void request_write__delete(struct client_connection *connection, const struct connection_frame *frame) {
    const Wire__DeleteRequest *delete =
        (const Wire__DeleteRequest *)(const void *)unpack(connection, &wire__delete_request__descriptor, frame);
    if (delete == NULL || frame->raw.len > 0) {
        request__malformed(connection, frame, "delete");
        return;
    }
    write_one(connection, frame, BATCH_DELETE, slice_of(delete->key.data, delete->key.len), SLICE_EMPTY,
              delete->timeout_ms);
}

/* ---- Range deletes --------------------------------------------------------------------------------------------- */

/* STATUS_OK, or what is wrong with the bounds of a range; upper empty: no end. */
static enum status check_bounds(struct slice lower, struct slice upper, const char **ret_problem) {
    static_assert(LIMIT_KEY_BYTES == 4096, "the message says so");
    if (lower.len > LIMIT_KEY_BYTES || upper.len > LIMIT_KEY_BYTES) {
        *ret_problem = "a bound of the range is too long; it has at most 4096 bytes";
        return STATUS_TOO_LARGE;
    }
    if (upper.len > 0 && slice_compare(lower, upper) >= 0) {
        *ret_problem = "the range is empty: its end must be above its first key";
        return STATUS_INVALID;
    }
    return STATUS_OK;
}

/* Copies the bounds to `bytes` and writes one or two operations. Where there is no end, the entry has the last key that
 * there can be for one: a range leaves that standing, so it goes by itself. */
static uint32_t fill_range(struct batch_operation *operations, uint8_t *bytes, struct slice lower, struct slice upper) {
    uint32_t count = 0;
    memcpy(bytes, lower.data, lower.len);
    lower.data = bytes;
    bytes += lower.len;
    if (upper.len > 0) {
        memcpy(bytes, upper.data, upper.len);
        operations[count++] =
            (struct batch_operation){.kind = BATCH_DELETE_RANGE, .key = lower, .value = slice_of(bytes, upper.len)};
        return count;
    }
    memset(bytes, UINT8_MAX, LIMIT_KEY_BYTES);
    struct slice last = slice_of(bytes, LIMIT_KEY_BYTES);
    if (slice_compare(lower, last) < 0) {
        operations[count++] = (struct batch_operation){.kind = BATCH_DELETE_RANGE, .key = lower, .value = last};
    }
    operations[count++] = (struct batch_operation){.kind = BATCH_DELETE, .key = last};
    return count;
}

void request_write__delete_range(struct client_connection *connection, const struct connection_frame *frame) {
    const Wire__DeleteRangeRequest *range =
        (const Wire__DeleteRangeRequest *)(const void *)unpack(connection, &wire__delete_range_request__descriptor,
                                                               frame);
    if (range == NULL || frame->raw.len > 0) {
        request__malformed(connection, frame, "delete-range");
        return;
    }
    struct slice lower = range->lower.len > 0 ? slice_of(range->lower.data, range->lower.len) : slice_of("", 1);
    struct slice upper = slice_of(range->upper.data, range->upper.len);
    const char *problem = NULL;
    enum status status = check_bounds(lower, upper, &problem);
    if (status != STATUS_OK) {
        client_connection__send_error(connection, frame->request_id, status, false, problem);
        return;
    }
    struct request *request = request__take(connection, frame);
    size_t upper_len = upper.len > 0 ? upper.len : LIMIT_KEY_BYTES;
    size_t operations_bytes = 2 * sizeof(struct batch_operation);
    uint8_t *memory = request != NULL ? request__memory(request, operations_bytes + lower.len + upper_len) : NULL;
    if (memory == NULL) {
        return;
    }
    struct batch_operation *operations = (struct batch_operation *)(void *)memory;
    uint32_t count = fill_range(operations, memory + operations_bytes, lower, upper);
    propose(request, operations, count, range->timeout_ms);
}

/* ---- Batches --------------------------------------------------------------------------------------------------- */

/* The end of operation i's range against its first key, both of checked lengths. */
static enum status check_batch_range(const Wire__BatchRequest *batch, size_t i, const uint8_t *bytes, char *problem,
                                     size_t problem_size) {
    const char *wrong = "the range has no end";
    enum status status = batch->value_lens[i] == 0
                             ? STATUS_INVALID
                             : check_bounds(slice_of(bytes, batch->key_lens[i]),
                                            slice_of(bytes + batch->key_lens[i], batch->value_lens[i]), &wrong);
    if (status != STATUS_OK) {
        (void)snprintf(problem, problem_size, "operation %zu: %s", i + 1, wrong);
    }
    return status;
}

/* What each operation is, once the lengths are known to add up. */
static enum status check_batch_ranges(const Wire__BatchRequest *batch, struct slice raw, char *problem,
                                      size_t problem_size) {
    enum status status = STATUS_OK;
    const uint8_t *bytes = raw.data;
    for (size_t i = 0; i < batch->n_kinds && status == STATUS_OK; i++) {
        if (batch->kinds[i] == BATCH_DELETE_RANGE) {
            status = check_batch_range(batch, i, bytes, problem, problem_size);
        }
        bytes += (size_t)batch->key_lens[i] + batch->value_lens[i];
    }
    return status;
}

/* STATUS_OK, or what is wrong with the batch; `problem` then has the words. */
static enum status check_batch(const Wire__BatchRequest *batch, struct slice raw, char *problem, size_t problem_size) {
    size_t count = batch->n_kinds;
    if (count == 0 || batch->n_key_lens != count || batch->n_value_lens != count) {
        (void)snprintf(problem, problem_size, "the batch has %zu kinds, %zu key lengths and %zu value lengths", count,
                       batch->n_key_lens, batch->n_value_lens);
        return STATUS_INVALID;
    }
    if (count > LIMIT_BATCH_OPERATIONS) {
        (void)snprintf(problem, problem_size, "the batch has %zu operations; the limit is %d", count,
                       LIMIT_BATCH_OPERATIONS);
        return STATUS_TOO_LARGE;
    }
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t key_len = batch->key_lens[i];
        uint32_t value_len = batch->value_lens[i];
        const char *wrong = request__key_problem(key_len);
        if (wrong != NULL) {
            (void)snprintf(problem, problem_size, "operation %zu: %s", i + 1, wrong);
            return key_len == 0 ? STATUS_INVALID : STATUS_TOO_LARGE;
        }
        uint32_t kind = batch->kinds[i];
        if ((kind != BATCH_PUT && kind != BATCH_DELETE && kind != BATCH_DELETE_RANGE) ||
            (kind == BATCH_DELETE && value_len > 0)) {
            (void)snprintf(problem, problem_size,
                           "operation %zu is neither a put nor a range delete nor a delete without a value", i + 1);
            return STATUS_INVALID;
        }
        if (value_len > LIMIT_VALUE_BYTES) {
            (void)snprintf(problem, problem_size, "operation %zu: the value has %u bytes; the limit is %d", i + 1,
                           value_len, LIMIT_VALUE_BYTES);
            return STATUS_TOO_LARGE;
        }
        total += (uint64_t)key_len + value_len;
    }
    if (total != raw.len) {
        (void)snprintf(problem, problem_size, "the lengths of the batch add up to another number than its %zu bytes",
                       raw.len);
        return STATUS_INVALID;
    }
    return check_batch_ranges(batch, raw, problem, problem_size);
}

static void fill_operations(struct batch_operation *operations, const Wire__BatchRequest *batch, const uint8_t *bytes) {
    for (size_t i = 0; i < batch->n_kinds; i++) {
        uint32_t key_len = batch->key_lens[i];
        uint32_t value_len = batch->value_lens[i];
        operations[i] = (struct batch_operation){
            .kind = (enum batch_kind)batch->kinds[i],
            .key = slice_of(bytes, key_len),
            .value = slice_of(bytes + key_len, value_len),
        };
        bytes += (size_t)key_len + value_len;
    }
}

void request_write__batch(struct client_connection *connection, const struct connection_frame *frame) {
    const Wire__BatchRequest *batch =
        (const Wire__BatchRequest *)(const void *)unpack(connection, &wire__batch_request__descriptor, frame);
    if (batch == NULL) {
        request__malformed(connection, frame, "batch");
        return;
    }
    char problem[ERROR_MESSAGE_BYTES_MAX];
    enum status status = check_batch(batch, frame->raw, problem, sizeof problem);
    if (status != STATUS_OK) {
        client_connection__send_error(connection, frame->request_id, status, false, problem);
        return;
    }
    uint32_t count = (uint32_t)batch->n_kinds;
    size_t operations_bytes = count * sizeof(struct batch_operation);
    struct request *request = request__take(connection, frame);
    uint8_t *memory = request != NULL ? request__memory(request, operations_bytes + frame->raw.len) : NULL;
    if (memory == NULL) {
        return;
    }
    struct batch_operation *operations = (struct batch_operation *)(void *)memory;
    memcpy(memory + operations_bytes, frame->raw.data, frame->raw.len);
    fill_operations(operations, batch, memory + operations_bytes);
    size_t size = batch_size(operations, count);
    uint32_t size_max = connection->clients->options.config->entry_bytes_max;
    if (size > size_max) {
        request__fail(request, STATUS_TOO_LARGE, false, "the batch takes %zu bytes in the log; the limit is %u", size,
                      size_max);
        return;
    }
    propose(request, operations, count, batch->timeout_ms);
}
