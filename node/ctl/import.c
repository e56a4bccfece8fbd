/* See import.h. */
#include "node/ctl/import.h"

#include "node/base/check.h"
#include "node/base/limits.h"

enum { ATTEMPT_MS_MAX = 15 * 1000 };

struct import_operation {
    size_t key_at; /* in bytes */
    size_t key_len;
    size_t value_len; /* the value follows the key */
};

struct import_batch {
    struct ctl_node node;
    struct list link;
    struct import *import;
    uint32_t serial;
    bool sent; /* a callback will come */
    struct buf bytes;
    struct import_operation operations[IMPORT_BATCH_OPERATIONS];
    uint64_t hashes[IMPORT_BATCH_OPERATIONS]; /* those that this batch put into the key set */
    uint32_t count;
    uint32_t hash_count;
    uint64_t first_line, last_line;
    struct holdfast_result result;
};

/* ---- Making and ending ---------------------------------------------------------------------------------------- */

bool import_init(struct import *import, struct holdfast *handle, struct alloc *alloc, uint32_t in_flight_max,
                 uint32_t give_up_s) {
    *import = (struct import){.handle = handle,
                              .alloc = alloc,
                              .in_flight_max = in_flight_max,
                              .give_up_s = give_up_s,
                              .queue = {.event = -1}};
    list_init(&import->under_way);
    key_set_init(&import->keys, alloc);
    import->progress_us = ctl_clock_us();
    return ctl_queue_init(&import->queue);
}

static void batch_free(struct import *import, struct import_batch *batch) {
    for (uint32_t i = 0; i < batch->hash_count; i++) {
        key_set_remove(&import->keys, batch->hashes[i]);
    }
    buf_deinit(&batch->bytes);
    mem_free(import->alloc, batch);
}

void import_deinit(struct import *import) {
    if (import->building != NULL) {
        batch_free(import, import->building);
    }
    struct list *node;
    while ((node = list_pop_front(&import->under_way)) != NULL) {
        batch_free(import, LIST_ENTRY(node, struct import_batch, link));
    }
    key_set_deinit(&import->keys);
    ctl_queue_deinit(&import->queue);
}

bool import_is_idle(const struct import *import) { return import->building == NULL && import->under_way_count == 0; }

/* ---- Sending -------------------------------------------------------------------------------------------------- */

static void batch_done(void *context, const struct holdfast_result *result) {
    struct import_batch *batch = context;
    batch->result = *result;
    ctl_queue_push(&batch->import->queue, &batch->node);
}

/* STATUS_BUSY: the library has no room; STATUS_FAILED: import->failed is set. */
static enum status batch_send(struct import *import, struct import_batch *batch) {
    struct holdfast_operation operations[IMPORT_BATCH_OPERATIONS];
    uint32_t timeout_ms = import->give_up_s * 1000;
    const struct holdfast_write_options options = {.timeout_ms =
                                                       timeout_ms < ATTEMPT_MS_MAX ? timeout_ms : ATTEMPT_MS_MAX,
                                                   .retry_unknown = true};
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct import_operation *operation = &batch->operations[i];
        const uint8_t *key = batch->bytes.data + operation->key_at;
        operations[i] = (struct holdfast_operation){HOLDFAST_PUT, key, operation->key_len, key + operation->key_len,
                                                    operation->value_len};
    }
    enum holdfast_code code =
        holdfast_batch_async(import->handle, operations, batch->count, &options, batch_done, batch);
    if (code == HOLDFAST_CODE_OK) {
        batch->sent = true;
        return STATUS_OK;
    }
    if (code == HOLDFAST_CODE_BUSY) {
        return STATUS_BUSY;
    }
    import->failed = true;
    import->failed_first_line = batch->first_line;
    import->failed_last_line = batch->last_line;
    import->failure = (struct holdfast_result){.outcome = HOLDFAST_FAILED, .code = code};
    (void)snprintf(import->failure.message, sizeof import->failure.message, "not sent: %s", holdfast_code_name(code));
    return STATUS_FAILED;
}

enum status import_flush(struct import *import) {
    struct import_batch *batch = import->building;
    if (batch == NULL) {
        return STATUS_OK;
    }
    if (import->under_way_count >= import->in_flight_max ||
        (import->under_way_count > 0 && import->under_way_bytes + batch->bytes.len > IMPORT_BYTES_MAX)) {
        return STATUS_BUSY;
    }
    enum status status = batch_send(import, batch);
    if (status == STATUS_OK) {
        if (import->under_way_count == 0) {
            import->progress_us = ctl_clock_us(); /* until now there was nothing to acknowledge */
        }
        import->building = NULL;
        list_push_back(&import->under_way, &batch->link);
        import->under_way_count++;
        import->under_way_bytes += batch->bytes.len;
    }
    return status;
}

static enum status batch_start(struct import *import) {
    struct import_batch *batch = mem_alloc(import->alloc, sizeof *batch);
    if (batch == NULL) {
        return STATUS_NO_MEMORY;
    }
    batch->import = import;
    batch->serial = ++import->last_serial;
    if (batch->serial == 0) {
        batch->serial = ++import->last_serial;
    }
    batch->sent = false;
    batch->count = 0;
    batch->hash_count = 0;
    list_init(&batch->link);
    buf_init(&batch->bytes, import->alloc, 0);
    import->building = batch;
    return STATUS_OK;
}

enum status import_add(struct import *import, struct slice key, struct slice value, uint64_t line) {
    struct import_batch *batch = import->building;
    enum status status = STATUS_OK;
    if (batch != NULL &&
        (batch->count == IMPORT_BATCH_OPERATIONS || batch->bytes.len + key.len + value.len > IMPORT_BATCH_BYTES)) {
        status = import_flush(import);
        if (status != STATUS_OK) {
            return status;
        }
    }
    uint64_t hash = key_set_hash(key);
    uint32_t owner = key_set_owner(&import->keys, hash);
    if (owner != 0 && (import->building == NULL || owner != import->building->serial)) {
        return STATUS_BUSY; /* the earlier line with this key is on its way */
    }
    if (import->building == NULL) {
        status = batch_start(import);
        if (status != STATUS_OK) {
            return status;
        }
    }
    batch = import->building;
    size_t key_at = batch->bytes.len;
    if (buf_reserve(&batch->bytes, key.len + value.len) != STATUS_OK ||
        (owner == 0 && key_set_add(&import->keys, hash, batch->serial) != STATUS_OK)) {
        return STATUS_NO_MEMORY;
    }
    if (owner == 0) {
        batch->hashes[batch->hash_count++] = hash;
    }
    memcpy(batch->bytes.data + key_at, key.data, key.len);
    if (value.len > 0) {
        memcpy(batch->bytes.data + key_at + key.len, value.data, value.len);
    }
    batch->bytes.len += key.len + value.len;
    batch->operations[batch->count++] = (struct import_operation){key_at, key.len, value.len};
    if (batch->count == 1) {
        batch->first_line = line;
    }
    batch->last_line = line;
    return STATUS_OK;
}

/* ---- Completions ---------------------------------------------------------------------------------------------- */

/* What may be different in a moment, with a put that may be repeated. */
static bool is_temporary(const struct holdfast_result *result) {
    switch (result->code) {
    case HOLDFAST_CODE_BUSY:
    case HOLDFAST_CODE_TIMEOUT:
    case HOLDFAST_CODE_NOT_LEADER:
    case HOLDFAST_CODE_UNAVAILABLE:
    case HOLDFAST_CODE_UNKNOWN:
    case HOLDFAST_CODE_UNREACHABLE:
    case HOLDFAST_CODE_CLOSED: return true;
    default: return false;
    }
}

static void batch_completed(struct import *import, struct import_batch *batch, uint64_t now_us) {
    batch->sent = false;
    if (batch->result.outcome == HOLDFAST_OK) {
        import->count += batch->count;
        import->bytes += batch->bytes.len;
        import->progress_us = now_us;
        import->under_way_count--;
        import->under_way_bytes -= batch->bytes.len;
        list_remove(&batch->link);
        batch_free(import, batch);
        return;
    }
    bool in_time = now_us - import->progress_us < (uint64_t)import->give_up_s * 1000000;
    if ((!is_temporary(&batch->result) || !in_time) && !import->failed) {
        import->failed = true;
        import->failure = batch->result;
        import->failed_first_line = batch->first_line;
        import->failed_last_line = batch->last_line;
    }
}

void import_collect(struct import *import, uint64_t now_us) {
    struct ctl_node *node = ctl_queue_take(&import->queue);
    while (node != NULL) {
        struct import_batch *batch = CONTAINER_OF(node, struct import_batch, node);
        node = node->next;
        batch_completed(import, batch, now_us);
    }
    /* Those that came back, oldest first. */
    LIST_FOREACH (link, &import->under_way) {
        struct import_batch *batch = LIST_ENTRY(link, struct import_batch, link);
        if (import->failed) {
            return;
        }
        if (!batch->sent && batch_send(import, batch) == STATUS_BUSY) {
            return;
        }
    }
}
