/*
 * Scans: one page of [lower, upper), bounded in entries and bytes. The asker comes back for the next one, at the
 * revision that the reply names.
 *
 * What memory alone can answer begins on the loop, for as many entries as fit a turn; a worker does the rest.
 */
#include "node/server/clients_internal.h"

#include "node/base/bytes.h"

enum {
    LOOP_ENTRIES_MAX = 256, /* that the loop itself gathers in a turn */
    LOOP_BYTES_MAX = 64 * KIB,
    BOUND_BYTES_MAX = LIMIT_KEY_BYTES + 1,              /* the place behind the largest key is a bound, too */
    MESSAGE_BYTES_MAX = LIMIT_FRAME_MESSAGE_BYTES - 256 /* lengths and revisions in the reply; the rest is small */
};

static_assert(LIMIT_KEY_BYTES + LIMIT_VALUE_BYTES <= LIMIT_FRAME_RAW_BYTES && LIMIT_SCAN_BYTES <= LIMIT_FRAME_RAW_BYTES,
              "a page fits a frame, be it one of a single largest pair");

/* ---- Gathering: on the loop or on a worker --------------------------------------------------------------------- */

/* Adds the iterator's pair; false if the page has no place for it. */
static bool add(struct read_job *job) {
    const struct request *request = job->request;
    struct slice key = storage_iterator_key(job->iterator);
    struct slice value = request->range.keys_only ? SLICE_EMPTY : storage_iterator_value(job->iterator);
    uint64_t mod_revision = storage_iterator_revision(job->iterator);
    if (job->count == request->range.limit) {
        return false;
    }
    if (request->range.count_only) { /* only the last key is needed, to go on from */
        buf_clear(&job->bytes);
        job->status = buf_append(&job->bytes, key.data, key.len);
        job->count++;
        return true;
    }
    size_t message_bytes =
        job->message_bytes + varint_size(key.len) + varint_size(value.len) + varint_size(mod_revision);
    if (job->count > 0 &&
        (job->bytes.len + key.len + value.len > LIMIT_SCAN_BYTES || message_bytes > MESSAGE_BYTES_MAX)) {
        return false;
    }
    uint32_t key_len = (uint32_t)key.len;
    uint32_t value_len = (uint32_t)value.len;
    if (buf_append(&job->bytes, key.data, key.len) != STATUS_OK ||
        buf_append(&job->bytes, value.data, value.len) != STATUS_OK ||
        buf_append(&job->key_lens, &key_len, sizeof key_len) != STATUS_OK ||
        buf_append(&job->value_lens, &value_len, sizeof value_len) != STATUS_OK ||
        buf_append(&job->mod_revisions, &mod_revision, sizeof mod_revision) != STATUS_OK) {
        job->status = error_set(&job->error, STATUS_NO_MEMORY, "out of memory");
        return true;
    }
    job->message_bytes = message_bytes;
    job->count++;
    return true;
}

/* Goes on until the page is complete or an error ends it (true), or until as much as said was gathered (false). */
static bool gather(struct read_job *job, uint64_t entries_max, uint64_t bytes_max) {
    if (job->iterator == NULL) {
        const struct request *request = job->request;
        job->status = storage_iterator_new(job->view, job->revision, request->range.lower, request->range.upper,
                                           &job->iterator, &job->error);
    }
    uint64_t entries = 0;
    while (job->status == STATUS_OK) {
        if (entries++ == entries_max || job->bytes.len >= bytes_max) {
            return false;
        }
        enum status status = storage_iterator_next(job->iterator, &job->error);
        if (status == STATUS_NOT_FOUND) {
            return true;
        }
        if (status != STATUS_OK) {
            job->status = status;
        } else if (!add(job)) {
            job->more = true;
            return true;
        }
    }
    return true;
}

/* ---- Answering ------------------------------------------------------------------------------------------------- */

static void reply(struct request *request, struct read_job *job) {
    if (job->status != STATUS_OK) {
        request__fail(request, job->status, false, "the scan failed on this node: %s",
                      job->error.message[0] != '\0' ? job->error.message : status_name(job->status));
        return;
    }
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

static void run_scan(struct env_work *work) {
    struct read_job *job = CONTAINER_OF(work, struct read_job, work);
    bool complete = gather(job, UINT64_MAX, UINT64_MAX);
    CHECK(complete);
}

static void on_scan_done(struct env_work *work) {
    struct read_job *job = CONTAINER_OF(work, struct read_job, work);
    struct request *request = job->request;
    request_read__job_done(job);
    reply(request, job);
    request_read__job_free(job);
}

static void answer_scan(struct request *request) {
    uint64_t revision;
    struct storage_view *view = request_read__view(request, &revision);
    struct read_job *job = view != NULL ? request_read__job_new(request, view, revision) : NULL;
    if (job == NULL) {
        return;
    }
    struct slice lower = request->range.lower;
    struct slice upper = request->range.upper;
    bool empty = upper.len > 0 && slice_compare(lower, upper) >= 0;
    if (empty || (storage_view_in_memory(view, lower, upper) && gather(job, LOOP_ENTRIES_MAX, LOOP_BYTES_MAX))) {
        reply(request, job);
        request_read__job_free(job);
    } else {
        request_read__job_submit(job, run_scan, on_scan_done);
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
