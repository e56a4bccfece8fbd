/*
 * Scans: one page of [lower, upper), bounded in entries and bytes. The asker comes back for the next one, at the
 * revision that the reply names.
 *
 * It gathers on the loop, a bounded piece in each turn, and waits where blocks are missing.
 */
#include "node/server/clients_internal.h"

#include "node/base/bytes.h"

enum {
    TURN_ENTRIES_MAX = 256, /* gathered in one turn */
    TURN_BYTES_MAX = 64 * KIB,
    READAHEAD_BYTES = 128 * KIB,
    BOUND_BYTES_MAX = LIMIT_KEY_BYTES + 1,              /* the place behind the largest key is a bound, too */
    MESSAGE_BYTES_MAX = LIMIT_FRAME_MESSAGE_BYTES - 256 /* lengths and revisions in the reply; the rest is small */
};

static_assert(LIMIT_KEY_BYTES + LIMIT_VALUE_BYTES <= LIMIT_FRAME_RAW_BYTES && LIMIT_SCAN_BYTES <= LIMIT_FRAME_RAW_BYTES,
              "a page fits a frame, be it one of a single largest pair");

/* ---- Gathering ------------------------------------------------------------------------------------------------- */

/* Adds the iterator's pair. STATUS_OK, also where the page has no place for it (job->more); STATUS_PENDING: the value
 * has to be read; else as usual. */
static enum status add(struct read_job *job) {
    const struct request *request = job->request;
    struct slice key = storage_iterator_key(job->iterator);
    struct slice value = SLICE_EMPTY;
    uint64_t mod_revision = storage_iterator_revision(job->iterator);
    job->more = job->count == request->range.limit;
    if (job->more) {
        return STATUS_OK;
    }
    if (request->range.count_only) { /* only the last key is needed, to go on from */
        buf_clear(&job->bytes);
        job->count++;
        return buf_append(&job->bytes, key.data, key.len);
    }
    if (!request->range.keys_only) {
        enum status status = storage_iterator_value(job->iterator, &value, &job->error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    size_t message_bytes =
        job->message_bytes + varint_size(key.len) + varint_size(value.len) + varint_size(mod_revision);
    job->more = job->count > 0 &&
                (job->bytes.len + key.len + value.len > LIMIT_SCAN_BYTES || message_bytes > MESSAGE_BYTES_MAX);
    if (job->more) {
        return STATUS_OK;
    }
    uint32_t key_len = (uint32_t)key.len;
    uint32_t value_len = (uint32_t)value.len;
    if (buf_append(&job->bytes, key.data, key.len) != STATUS_OK ||
        buf_append(&job->bytes, value.data, value.len) != STATUS_OK ||
        buf_append(&job->key_lens, &key_len, sizeof key_len) != STATUS_OK ||
        buf_append(&job->value_lens, &value_len, sizeof value_len) != STATUS_OK ||
        buf_append(&job->mod_revisions, &mod_revision, sizeof mod_revision) != STATUS_OK) {
        return error_set(&job->error, STATUS_NO_MEMORY, "out of memory");
    }
    job->message_bytes = message_bytes;
    job->count++;
    return STATUS_OK;
}

static enum status open_iterator(struct read_job *job) {
    const struct request *request = job->request;
    const struct storage_iterator_options options = {
        .revision = job->revision,
        .lower = request->range.lower,
        .upper = request->range.upper,
        .keys_only = request->range.keys_only || request->range.count_only,
        .readahead_bytes_max = READAHEAD_BYTES,
    };
    return storage_iterator_new(job->view, &job->io, &options, &job->iterator, &job->error);
}

/* Goes to the next pair, unless the last one is still to be added. */
static enum status move(struct read_job *job) {
    if (job->started && !job->added) {
        return STATUS_OK;
    }
    enum status status = job->started ? storage_iterator_next(job->iterator, &job->error)
                                      : storage_iterator_first(job->iterator, &job->error);
    job->started |= status != STATUS_PENDING;
    job->added &= status != STATUS_OK;
    return status;
}

/* STATUS_NOT_FOUND: the page is complete; STATUS_OK: enough for this turn; STATUS_PENDING; or why it fails. */
static enum status gather(struct read_job *job) {
    enum status status = job->iterator == NULL ? open_iterator(job) : STATUS_OK;
    size_t bytes_before = job->bytes.len;
    for (uint32_t entries = 0; status == STATUS_OK && entries < TURN_ENTRIES_MAX; entries++) {
        status = move(job);
        if (status == STATUS_OK) {
            status = add(job);
            job->added = status == STATUS_OK;
        }
        if (status == STATUS_OK && job->more) {
            return STATUS_NOT_FOUND;
        }
        if (job->bytes.len >= bytes_before + TURN_BYTES_MAX) {
            break;
        }
    }
    return status;
}

/* ---- Answering ------------------------------------------------------------------------------------------------- */

static void reply(struct request *request, struct read_job *job) {
    uint32_t last_key_len = (uint32_t)job->bytes.len; /* count_only */
    Wire__ScanReply message = WIRE__SCAN_REPLY__INIT;
    message.has_revision = 1;
    message.revision = job->revision;
    message.has_more = 1;
    message.more = job->more;
    message.has_count = 1;
    message.count = job->count;
    struct slice raw = buf_slice(&job->bytes);
    if (!request->range.count_only) {
        message.n_key_lens = message.n_mod_revisions = (size_t)job->count;
        message.key_lens = (uint32_t *)(void *)job->key_lens.data;
        message.mod_revisions = (uint64_t *)(void *)job->mod_revisions.data;
        if (!request->range.keys_only) {
            message.n_value_lens = (size_t)job->count;
            message.value_lens = (uint32_t *)(void *)job->value_lens.data;
        }
    } else if (job->more && job->count > 0) {
        message.n_key_lens = 1;
        message.key_lens = &last_key_len;
    } else {
        raw = SLICE_EMPTY;
    }
    request__reply(request, FRAME_SCAN_REPLY, &message.base, &raw, 1);
}

static void step_scan(struct read_job *job) {
    struct request *request = job->request;
    enum status status = gather(job);
    switch (status) {
    case STATUS_PENDING: request_read__job_wait(job); return;
    case STATUS_OK: request_read__job_yield(job); return;
    default: break;
    }
    request_read__job_uncount(job);
    if (status == STATUS_NOT_FOUND) {
        reply(request, job);
    } else {
        request__fail(request, status, false, "the scan failed on this node: %s",
                      job->error.message[0] != '\0' ? job->error.message : status_name(status));
    }
    request_read__job_free(job);
}

static void answer_scan(struct request *request) {
    struct read_job *job = request_read__job_new(request, READ_SCAN, step_scan);
    if (job != NULL) {
        step_scan(job);
    }
}

void request_scan__scan(struct client_connection *connection, const struct connection_frame *frame) {
    arena_reset(&connection->clients->arena);
    const Wire__ScanRequest *scan =
        (const Wire__ScanRequest *)(const void *)wire_unpack(&connection->clients->arena,
                                                             &wire__scan_request__descriptor, frame->message);
    if (scan == NULL || frame->raw.len > 0) {
        request__malformed(connection, frame, "scan");
        return;
    }
    if (scan->lower.len > BOUND_BYTES_MAX || scan->upper.len > BOUND_BYTES_MAX) {
        client_connection__send_error(connection, frame->request_id, STATUS_TOO_LARGE, false,
                                      "a bound of the scan is too long; it has at most 4097 bytes");
        return;
    }
    struct request *request = request__take(connection, frame);
    uint8_t *bytes = request != NULL ? request__memory(request, scan->lower.len + scan->upper.len) : NULL;
    if (bytes == NULL) {
        return;
    }
    if (scan->lower.len > 0) {
        memcpy(bytes, scan->lower.data, scan->lower.len);
    }
    if (scan->upper.len > 0) {
        memcpy(bytes + scan->lower.len, scan->upper.data, scan->upper.len);
    }
    request->range.lower = slice_of(bytes, scan->lower.len);
    request->range.upper = slice_of(bytes + scan->lower.len, scan->upper.len);
    request->range.limit = scan->limit == 0 || scan->limit > LIMIT_SCAN_ENTRIES ? LIMIT_SCAN_ENTRIES : scan->limit;
    request->range.keys_only = scan->keys_only;
    request->range.count_only = scan->count_only;
    request->answer = answer_scan;
    request_read__barrier(request, scan->options);
}
