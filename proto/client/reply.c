/*
 * Replies: what a frame means for the request that it answers. Bytes from the wire are checked here and trusted
 * nowhere.
 *
 * An error's outcome decides, not its code: "not leader" for a write that may have happened is an unknown outcome
 * (hazard 51), and an error that names no outcome is unknown for a write.
 */
#include "proto/client/core_internal.h"

#include "node/base/check.h"

#include <stdio.h>

static const void *unpack(struct client_core *core, const ProtobufCMessageDescriptor *descriptor,
                          struct slice message) {
    return wire_unpack(&core->arena, descriptor, message);
}

/* ---- Errors --------------------------------------------------------------------------------------------------- */

/* Surely not executed, but others, or the same node later, may do it. */
static void send_again(struct client_request *request, const Wire__Error *error, enum holdfast_code code,
                       const char *reason) {
    struct client_endpoint *from = request->sent_on->endpoint;
    bool followed = false;
    if (code == HOLDFAST_CODE_NOT_LEADER || code == HOLDFAST_CODE_UNAVAILABLE || code == HOLDFAST_CODE_UNKNOWN) {
        followed = endpoint__follow_hint(from, error->leader_id, error->leader_address);
        if (!followed) {
            endpoint__pass_over(from);
        }
    }
    core__unlink_sent(request);
    core__retry(request, followed && request->attempts == 0, code, reason);
}

static bool is_temporary(const struct client_request *request, enum holdfast_code code) {
    if (request->target >= 0) {
        return false;
    }
    switch (code) {
    case HOLDFAST_CODE_NOT_LEADER: return request->core->options.pin < 0;
    case HOLDFAST_CODE_UNAVAILABLE:
    case HOLDFAST_CODE_BUSY: return true;
    case HOLDFAST_CODE_UNKNOWN: return core__may_repeat(request);
    default: return false;
    }
}

static enum status receive_error(struct client_request *request, const struct connection_frame *frame,
                                 struct error *err) {
    const Wire__Error *error = unpack(request->core, &wire__error__descriptor, frame->message);
    if (error == NULL || error->code == WIRE_OK) {
        return error_set(err, STATUS_CORRUPT, "an error reply that can't be read");
    }
    enum holdfast_code code = client_code_of_wire(error->code);
    char text[CLIENT_ERROR_BYTES];
    client_text_copy(text, sizeof text, error->message != NULL ? error->message : holdfast_code_name(code));
    char reason[HOLDFAST_MESSAGE_BYTES];
    (void)snprintf(reason, sizeof reason, "%.50s: %.190s", request->sent_on->endpoint->name, text);
    bool failed = error->has_outcome && error->outcome == WIRE__OUTCOME__OUTCOME_FAILED;
    if (client_request_is_write(request) && !failed) {
        if (request->retry_unknown) {
            request->maybe_done = true;
            send_again(request, error, code, reason);
        } else {
            core__fail(request, HOLDFAST_UNKNOWN, code, reason);
        }
        return STATUS_OK;
    }
    if (is_temporary(request, code)) {
        send_again(request, error, code, reason);
        return STATUS_OK;
    }
    if (code == HOLDFAST_CODE_NOT_LEADER && error->leader_address != NULL) {
        char address[LIMIT_ADDRESS_BYTES];
        client_text_copy(address, sizeof address, error->leader_address);
        (void)snprintf(reason, sizeof reason, "%.60s is not the leader: ask %.80s", request->sent_on->endpoint->name,
                       address);
    }
    core__fail(request, HOLDFAST_FAILED, code, reason);
    return STATUS_OK;
}

/* ---- Answers -------------------------------------------------------------------------------------------------- */

static enum status receive_write(struct client_request *request, const struct connection_frame *frame,
                                 struct client_answer *answer, struct error *err) {
    const Wire__WriteReply *reply = unpack(request->core, &wire__write_reply__descriptor, frame->message);
    if (reply == NULL || !reply->has_revision) {
        return error_set(err, STATUS_CORRUPT, "a reply to a write that can't be read");
    }
    answer->result.revision = reply->revision;
    return STATUS_OK;
}

static enum status receive_get(struct client_request *request, const struct connection_frame *frame,
                               struct client_answer *answer, struct error *err) {
    const Wire__GetReply *reply = unpack(request->core, &wire__get_reply__descriptor, frame->message);
    if (reply == NULL || frame->raw.len > LIMIT_VALUE_BYTES) {
        return error_set(err, STATUS_CORRUPT, "a reply to a get that can't be read");
    }
    answer->result.revision = reply->revision;
    if (!reply->found) {
        client_result_set(&answer->result, HOLDFAST_FAILED, HOLDFAST_CODE_NOT_FOUND, "no such key");
        return STATUS_OK;
    }
    answer->value.data = frame->raw.len > 0 ? (const void *)frame->raw.data : "";
    answer->value.len = frame->raw.len;
    answer->value.mod_revision = reply->mod_revision;
    return STATUS_OK;
}

/* Lengths add up to the raw bytes, keys are within bounds and ascend. */
static bool scan_reply_is_sound(const struct client_request *request, const Wire__ScanReply *reply, struct slice raw) {
    size_t count = reply->n_key_lens;
    bool has_values = !request->keys_only && !request->count_only;
    if (count > LIMIT_SCAN_ENTRIES || (has_values && reply->n_value_lens != count) ||
        (request->count_only && count > 1) || (!request->count_only && reply->count != count) ||
        (reply->n_mod_revisions != 0 && reply->n_mod_revisions != count)) {
        return false;
    }
    struct slice previous = SLICE_EMPTY;
    for (size_t i = 0; i < count; i++) {
        uint64_t key_len = reply->key_lens[i];
        uint64_t value_len = has_values ? reply->value_lens[i] : 0;
        if (key_len == 0 || key_len > LIMIT_KEY_BYTES || key_len + value_len > raw.len) {
            return false;
        }
        struct slice key = slice_of(raw.data, (size_t)key_len);
        if (slice_compare(key, request->key) < 0 ||
            (request->upper.len > 0 && slice_compare(key, request->upper) >= 0) ||
            (i > 0 && slice_compare(key, previous) <= 0)) {
            return false;
        }
        previous = key;
        raw.data += key_len + value_len;
        raw.len -= (size_t)(key_len + value_len);
    }
    return raw.len == 0;
}

/* One block: the page, its pairs, the bytes, the place of the next page. */
static struct holdfast_page *page_build(const struct client_request *request, const Wire__ScanReply *reply,
                                        struct slice raw) {
    size_t count = reply->n_key_lens;
    size_t head = sizeof(struct holdfast_page) + count * sizeof(struct holdfast_pair);
    uint8_t *block = mem_alloc(request->core->env->alloc, head + raw.len + LIMIT_KEY_BYTES + 1);
    if (block == NULL) {
        return NULL;
    }
    struct holdfast_page *page = (struct holdfast_page *)(void *)block;
    struct holdfast_pair *pairs = (struct holdfast_pair *)(void *)(block + sizeof *page);
    uint8_t *bytes = block + head;
    if (raw.len > 0) {
        memcpy(bytes, raw.data, raw.len);
    }
    uint8_t *at = bytes;
    for (size_t i = 0; i < count; i++) {
        bool has_value = !request->keys_only && !request->count_only;
        struct holdfast_pair *pair = &pairs[i];
        *pair = (struct holdfast_pair){.key = at, .key_len = reply->key_lens[i]};
        at += pair->key_len;
        if (has_value) {
            pair->value = at;
            pair->value_len = reply->value_lens[i];
            at += pair->value_len;
        }
        pair->mod_revision = reply->n_mod_revisions > 0 ? reply->mod_revisions[i] : 0;
    }
    *page = (struct holdfast_page){
        .pairs = pairs,
        .pair_count = request->count_only ? 0 : count,
        .count = reply->count,
        .revision = reply->revision,
        .more = reply->more,
    };
    if (reply->more && count > 0) {
        uint8_t *next = bytes + raw.len;
        memcpy(next, pairs[count - 1].key, pairs[count - 1].key_len);
        next[pairs[count - 1].key_len] = 0;
        page->next_lower = next;
        page->next_lower_len = pairs[count - 1].key_len + 1;
    }
    return page;
}

static enum status receive_scan(struct client_request *request, const struct connection_frame *frame,
                                struct client_answer *answer, struct error *err) {
    const Wire__ScanReply *reply = unpack(request->core, &wire__scan_reply__descriptor, frame->message);
    if (reply == NULL || !scan_reply_is_sound(request, reply, frame->raw) ||
        (reply->more && reply->n_key_lens == 0 && !request->count_only)) {
        return error_set(err, STATUS_CORRUPT, "a reply to a scan that can't be read");
    }
    answer->result.revision = reply->revision;
    answer->page = page_build(request, reply, frame->raw);
    if (answer->page == NULL) {
        client_result_set(&answer->result, HOLDFAST_FAILED, HOLDFAST_CODE_NO_MEMORY, "out of memory for the page");
    }
    return STATUS_OK;
}

/* ---- The switch ----------------------------------------------------------------------------------------------- */

static const uint8_t REPLY_TYPES[] = {
    [CLIENT_PUT] = FRAME_WRITE_REPLY,
    [CLIENT_DELETE] = FRAME_WRITE_REPLY,
    [CLIENT_DELETE_RANGE] = FRAME_WRITE_REPLY,
    [CLIENT_BATCH] = FRAME_WRITE_REPLY,
    [CLIENT_CHANGE_MEMBERS] = FRAME_MEMBER_REPLY,
    [CLIENT_TRANSFER_LEADER] = FRAME_MEMBER_REPLY,
    [CLIENT_REBUILD_MEMBER] = FRAME_MEMBER_REPLY,
    [CLIENT_UPKEEP] = FRAME_UPKEEP_REPLY,
    [CLIENT_GET] = FRAME_GET_REPLY,
    [CLIENT_SCAN] = FRAME_SCAN_REPLY,
    [CLIENT_STATUS] = FRAME_STATUS_REPLY,
    [CLIENT_EXPLAIN_LOG] = FRAME_EXPLAIN_LOG_REPLY,
    [CLIENT_LIST_MEMBERS] = FRAME_MEMBER_REPLY,
    [CLIENT_COMPARE] = FRAME_COMPARE_REPLY,
};

static enum status receive_answer(struct client_request *request, const struct connection_frame *frame,
                                  struct client_answer *answer, struct error *err) {
    if (frame->type != REPLY_TYPES[request->operation]) {
        return error_set(err, STATUS_CORRUPT, "a reply of type %u to another kind of request", frame->type);
    }
    switch (request->operation) {
    case CLIENT_PUT:
    case CLIENT_DELETE:
    case CLIENT_DELETE_RANGE:
    case CLIENT_BATCH: return receive_write(request, frame, answer, err);
    case CLIENT_CHANGE_MEMBERS:
    case CLIENT_TRANSFER_LEADER:
    case CLIENT_REBUILD_MEMBER:
    case CLIENT_LIST_MEMBERS: return reply__members(request, frame, answer, err);
    case CLIENT_UPKEEP: return reply__upkeep(request, frame, answer, err);
    case CLIENT_GET: return receive_get(request, frame, answer, err);
    case CLIENT_SCAN: return receive_scan(request, frame, answer, err);
    case CLIENT_STATUS: return reply__status(request, frame, answer, err);
    case CLIENT_EXPLAIN_LOG: return reply__log(request, frame, answer, err);
    case CLIENT_COMPARE: return reply__compare(request, frame, answer, err);
    }
    CHECK(false);
}

enum status reply__receive(struct client_request *request, const struct connection_frame *frame, struct error *err) {
    struct client_core *core = request->core;
    CHECK(request->state == CLIENT_SENT);
    enum status status;
    if (frame->type == FRAME_ERROR) {
        status = receive_error(request, frame, err);
        arena_reset(&core->arena);
        return status;
    }
    struct client_answer answer;
    memset(&answer, 0, sizeof answer);
    status = receive_answer(request, frame, &answer, err);
    if (status == STATUS_OK) {
        core__complete(request, &answer);
        mem_free(core->env->alloc, answer.page);
        mem_free(core->env->alloc, answer.log);
    }
    arena_reset(&core->arena);
    return status;
}
