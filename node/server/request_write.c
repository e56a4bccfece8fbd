/*
 * Writes: a put, a delete, or a batch of both becomes one proposal, whose bytes the request holds until it is answered.
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

/* ---- Batches --------------------------------------------------------------------------------------------------- */

/* STATUS_OK, or what is wrong with the batch; `problem` then has the words. */
static enum status check_batch(const Wire__BatchRequest *batch, size_t raw_len, char *problem, size_t problem_size) {
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
        bool put = batch->kinds[i] == BATCH_PUT;
        if ((!put && batch->kinds[i] != BATCH_DELETE) || (!put && value_len > 0)) {
            (void)snprintf(problem, problem_size, "operation %zu is neither a put nor a delete without a value", i + 1);
            return STATUS_INVALID;
        }
        if (value_len > LIMIT_VALUE_BYTES) {
            (void)snprintf(problem, problem_size, "operation %zu: the value has %u bytes; the limit is %d", i + 1,
                           value_len, LIMIT_VALUE_BYTES);
            return STATUS_TOO_LARGE;
        }
        total += (uint64_t)key_len + value_len;
    }
    if (total != raw_len) {
        (void)snprintf(problem, problem_size, "the lengths of the batch add up to another number than its %zu bytes",
                       raw_len);
        return STATUS_INVALID;
    }
    return STATUS_OK;
}

static void fill_operations(struct batch_operation *operations, const Wire__BatchRequest *batch, const uint8_t *bytes) {
    for (size_t i = 0; i < batch->n_kinds; i++) {
        uint32_t key_len = batch->key_lens[i];
        uint32_t value_len = batch->value_lens[i];
        operations[i] = (struct batch_operation){
            .kind = batch->kinds[i] == BATCH_PUT ? BATCH_PUT : BATCH_DELETE,
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
    enum status status = check_batch(batch, frame->raw.len, problem, sizeof problem);
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
