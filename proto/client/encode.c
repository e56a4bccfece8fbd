/* A request as a frame: the small message from the request's fields, keys of batches and values as raw bytes, uncopied.
 */
#include "proto/client/core_internal.h"

#include "node/base/check.h"

static ProtobufCBinaryData binary(struct slice bytes) {
    /* protobuf-c only reads what it packs. */
    return (ProtobufCBinaryData){.len = bytes.len, .data = (uint8_t *)bytes.data};
}

static void fill_read_options(Wire__ReadOptions *out, const struct holdfast_read_options *options,
                              uint32_t timeout_ms) {
    wire__read_options__init(out);
    out->has_timeout_ms = 1;
    out->timeout_ms = timeout_ms;
    out->has_revision = options->revision != 0;
    out->revision = options->revision;
    out->has_at_least = options->at_least != 0;
    out->at_least = options->at_least;
    out->has_local = options->local;
    out->local = options->local;
}

static enum status encode_write(struct connection *connection, const struct client_request *request,
                                uint64_t request_id, uint32_t timeout_ms) {
    if (request->operation == CLIENT_DELETE) {
        Wire__DeleteRequest message = WIRE__DELETE_REQUEST__INIT;
        message.has_key = 1;
        message.key = binary(request->key);
        message.has_timeout_ms = 1;
        message.timeout_ms = timeout_ms;
        return connection_send(connection, FRAME_DELETE, request_id, &message.base, NULL, 0);
    }
    if (request->operation == CLIENT_DELETE_RANGE) {
        Wire__DeleteRangeRequest message = WIRE__DELETE_RANGE_REQUEST__INIT;
        message.has_lower = request->key.len > 0;
        message.lower = binary(request->key);
        message.has_upper = request->upper.len > 0;
        message.upper = binary(request->upper);
        message.has_timeout_ms = 1;
        message.timeout_ms = timeout_ms;
        return connection_send(connection, FRAME_DELETE_RANGE, request_id, &message.base, NULL, 0);
    }
    if (request->operation == CLIENT_PUT) {
        Wire__PutRequest message = WIRE__PUT_REQUEST__INIT;
        message.has_key = 1;
        message.key = binary(request->key);
        message.has_timeout_ms = 1;
        message.timeout_ms = timeout_ms;
        return connection_send(connection, FRAME_PUT, request_id, &message.base, &request->value, 1);
    }
    Wire__BatchRequest message = WIRE__BATCH_REQUEST__INIT;
    message.n_kinds = request->batch.count;
    message.kinds = request->batch.kinds;
    message.n_key_lens = request->batch.count;
    message.key_lens = request->batch.key_lens;
    message.n_value_lens = request->batch.count;
    message.value_lens = request->batch.value_lens;
    message.has_timeout_ms = 1;
    message.timeout_ms = timeout_ms;
    return connection_send(connection, FRAME_BATCH, request_id, &message.base, &request->value, 1);
}

static enum status encode_read(struct connection *connection, const struct client_request *request, uint64_t request_id,
                               uint32_t timeout_ms) {
    Wire__ReadOptions options;
    fill_read_options(&options, &request->read, timeout_ms);
    if (request->operation == CLIENT_GET) {
        Wire__GetRequest message = WIRE__GET_REQUEST__INIT;
        message.has_key = 1;
        message.key = binary(request->key);
        message.options = &options;
        return connection_send(connection, FRAME_GET, request_id, &message.base, NULL, 0);
    }
    Wire__ScanRequest message = WIRE__SCAN_REQUEST__INIT;
    message.has_lower = request->key.len > 0;
    message.lower = binary(request->key);
    message.has_upper = request->upper.len > 0;
    message.upper = binary(request->upper);
    message.has_limit = request->scan_limit > 0;
    message.limit = request->scan_limit;
    message.has_keys_only = request->keys_only;
    message.keys_only = request->keys_only;
    message.has_count_only = request->count_only;
    message.count_only = request->count_only;
    message.options = &options;
    return connection_send(connection, FRAME_SCAN, request_id, &message.base, NULL, 0);
}

static enum status encode_upkeep(struct connection *connection, const struct client_request *request,
                                 uint64_t request_id) {
    Wire__UpkeepRequest message = WIRE__UPKEEP_REQUEST__INIT;
    message.has_action = 1;
    message.action = (uint32_t)request->upkeep_action;
    message.has_lower = request->key.len > 0;
    message.lower = binary(request->key);
    message.has_upper = request->upper.len > 0;
    message.upper = binary(request->upper);
    message.dir = (char *)request->dir; /* protobuf-c only reads it */
    return connection_send(connection, FRAME_UPKEEP, request_id, &message.base, NULL, 0);
}

enum status encode__request(struct client_link *link, const struct client_request *request, uint64_t request_id,
                            uint32_t timeout_ms) {
    switch (request->operation) {
    case CLIENT_PUT:
    case CLIENT_DELETE:
    case CLIENT_DELETE_RANGE:
    case CLIENT_BATCH: return encode_write(link->connection, request, request_id, timeout_ms);
    case CLIENT_CHANGE_MEMBERS:
    case CLIENT_TRANSFER_LEADER:
    case CLIENT_REBUILD_MEMBER:
    case CLIENT_LIST_MEMBERS: return encode__members(link, request, request_id, timeout_ms);
    case CLIENT_COMPARE: return encode__compare(link, request, request_id);
    case CLIENT_UPKEEP: return encode_upkeep(link->connection, request, request_id);
    case CLIENT_GET:
    case CLIENT_SCAN: return encode_read(link->connection, request, request_id, timeout_ms);
    case CLIENT_STATUS: {
        Wire__StatusRequest message = WIRE__STATUS_REQUEST__INIT;
        return connection_send(link->connection, FRAME_STATUS, request_id, &message.base, NULL, 0);
    }
    case CLIENT_EXPLAIN_LOG: {
        Wire__ExplainLogRequest message = WIRE__EXPLAIN_LOG_REQUEST__INIT;
        return connection_send(link->connection, FRAME_EXPLAIN_LOG, request_id, &message.base, NULL, 0);
    }
    }
    CHECK(false);
}
