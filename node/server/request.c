/*
 * The request object: from a pool, with its bytes either inside or in one block of their own, counted against the front
 * end's bound; and the two ways in which it ends, a reply or an error.
 */
#include "node/server/clients_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct request *request__take(struct client_connection *connection, const struct connection_frame *frame) {
    struct clients *clients = connection->clients;
    struct list *node = NULL;
    if (clients->request_count < CLIENTS_REQUESTS_MAX) {
        node = list_pop_front(&clients->free_requests);
    } else {
        client_connection__send_error(connection, frame->request_id, STATUS_BUSY, false,
                                      "this node has as many requests in flight as it may; try again");
        return NULL;
    }
    struct request *request = NULL;
    if (node != NULL) {
        request = LIST_ENTRY(node, struct request, link);
        clients->free_count--;
    } else {
        request = mem_alloc(clients->alloc, sizeof *request);
    }
    if (request == NULL) {
        client_connection__send_error(connection, frame->request_id, STATUS_BUSY, false, "this node is out of memory");
        return NULL;
    }
    list_push_back(&connection->requests, &request->link);
    list_init(&request->held_link);
    request->clients = clients;
    request->connection = connection;
    request->id = frame->request_id;
    request->type = frame->type;
    request->answer = NULL;
    request->job = NULL;
    request->memory = NULL;
    request->memory_bytes = 0;
    connection->request_count++;
    clients->request_count++;
    return request;
}

void *request__memory(struct request *request, size_t size) {
    struct clients *clients = request->clients;
    uint64_t bytes_max = clients->options.config->proposal_bytes_max;
    CHECK(request->memory == NULL && request->memory_bytes == 0);
    if (size > bytes_max - clients->memory_bytes) {
        request__fail(request, STATUS_BUSY, false,
                      "requests in flight on this node hold %" PRIu64 " of %" PRIu64
                      " bytes (proposal_bytes_max); try again",
                      clients->memory_bytes, bytes_max);
        return NULL;
    }
    void *memory = request->inline_memory;
    if (size > sizeof request->inline_memory) {
        memory = request->memory = mem_alloc(clients->alloc, size);
    }
    if (memory == NULL) {
        request__fail(request, STATUS_BUSY, false, "this node is out of memory; try again");
        return NULL;
    }
    request->memory_bytes = size;
    clients->memory_bytes += size;
    return memory;
}

void request__release(struct request *request) {
    struct clients *clients = request->clients;
    struct client_connection *connection = request->connection;
    CHECK(request->job == NULL && clients->request_count > 0 && clients->memory_bytes >= request->memory_bytes);
    list_remove(&request->link);
    list_remove(&request->held_link);
    clients->memory_bytes -= request->memory_bytes;
    mem_free(clients->alloc, request->memory);
    clients->request_count--;
    if (clients->free_count < CLIENTS_REQUESTS_KEPT) {
        list_push_front(&clients->free_requests, &request->link); /* the warmest first */
        clients->free_count++;
    } else {
        mem_free(clients->alloc, request);
    }
    if (connection != NULL) {
        connection->request_count--;
        connection->active_us = env_now_us(clients->options.loop);
        client_connection__update(connection);
    }
    clients__check_stopped(clients);
}

void request__reply(struct request *request, uint8_t type, const ProtobufCMessage *message, const struct slice *raw,
                    size_t raw_count) {
    if (request->connection != NULL) {
        client_connection__send(request->connection, type, request->id, message, raw, raw_count);
    }
    request__release(request);
}

void request__fail(struct request *request, enum status status, bool unknown, const char *format, ...) {
    if (request->connection != NULL) {
        char message[ERROR_MESSAGE_BYTES_MAX];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(message, sizeof message, format, args);
        va_end(args);
        client_connection__send_error(request->connection, request->id, status, unknown, message);
    }
    request__release(request);
}

void request__fail_by_status(struct request *request, enum status status, bool unknown) {
    const struct clients_options *options = &request->clients->options;
    if (unknown) {
        request__fail(request, status, true,
                      status == STATUS_TIMEOUT
                          ? "the write was not confirmed in its time; it may or may not happen"
                          : "this node stopped before the write was confirmed; it may or may not happen");
        return;
    }
    struct directory_entry leader;
    switch (status) {
    case STATUS_NOT_LEADER:
        if (directory_look_up(consensus_directory(options->consensus), options->config,
                              consensus_leader(options->consensus), &leader) &&
            leader.id != options->config->id) {
            request__fail(request, status, false, "this node is not the leader; ask %s at %s", leader.name,
                          leader.client_address);
        } else {
            request__fail(request, status, false, "this node is not the leader any more; ask again for who is");
        }
        return;
    case STATUS_UNAVAILABLE:
        request__fail(request, status, false, "no leader is known to this node; a majority may be down or unreachable");
        return;
    case STATUS_BUSY: request__fail(request, status, false, "too many requests wait on this node; try again"); return;
    case STATUS_TIMEOUT:
        request__fail(request, status, false,
                      "not done within the request's time; no majority answered, or it is slow");
        return;
    case STATUS_NO_SPACE:
        request__fail(request, status, false, "the disk of this node is full; free some space there");
        return;
    case STATUS_TOO_LARGE:
        request__fail(request, status, false, "the write is larger than %u bytes", options->config->entry_bytes_max);
        return;
    default: request__fail(request, status, false, "this node could not do it: %s", status_name(status)); return;
    }
}

uint64_t request__deadline_us(const struct clients *clients, uint32_t timeout_ms) {
    uint64_t ms = timeout_ms == 0                       ? REQUEST_TIMEOUT_MS_DEFAULT
                  : timeout_ms > REQUEST_TIMEOUT_MS_MAX ? REQUEST_TIMEOUT_MS_MAX
                                                        : timeout_ms;
    return env_now_us(clients->options.loop) + ms * 1000;
}

void request__malformed(struct client_connection *connection, const struct connection_frame *frame, const char *what) {
    char message[ERROR_MESSAGE_BYTES_MAX];
    (void)snprintf(message, sizeof message, "the %s request is malformed", what);
    client_connection__send_error(connection, frame->request_id, STATUS_INVALID, false, message);
}

const void *request__unpack(struct client_connection *connection, const struct connection_frame *frame,
                            const ProtobufCMessageDescriptor *descriptor, const char *what) {
    struct clients *clients = connection->clients;
    arena_reset(&clients->arena);
    const ProtobufCMessage *message =
        frame->raw.len > 0 ? NULL : wire_unpack(&clients->arena, descriptor, frame->message);
    if (message == NULL) {
        request__malformed(connection, frame, what);
    }
    return message;
}

void *request__take_question(struct client_connection *connection, const struct connection_frame *frame, size_t size,
                             struct request **ret_request) {
    struct request *request = request__take(connection, frame);
    if (request == NULL) {
        return NULL;
    }
    void *question = mem_alloc_zero(request->clients->alloc, size);
    if (question == NULL) {
        request__fail(request, STATUS_BUSY, false, "this node is out of memory; try again");
        return NULL;
    }
    *ret_request = request;
    return question;
}

const char *request__key_problem(size_t key_len) {
    static_assert(LIMIT_KEY_BYTES == 4096, "the message says so");
    if (key_len == 0) {
        return "the key is empty; a key has 1 to 4096 bytes";
    }
    return key_len > LIMIT_KEY_BYTES ? "the key is too long; a key has 1 to 4096 bytes" : NULL;
}
