/*
 * The path of a write: a record is encoded straight into the group of the log that is forming and applied to the store
 * from there; then it becomes visible and is acknowledged, or waits first for its group to be durable.
 */
#include "storage/engine_internal.h"

/* What one write puts into the log: a batch as it is, or one operation. */
struct write {
    const struct batch_operation *operation; /* or NULL */
    struct slice batch;
    size_t bytes;
};

/* ---- Room ------------------------------------------------------------------------------------------------------- */

static void note_pause(struct engine *engine, uint64_t waited_us) {
    if (__builtin_expect(waited_us > 0, 0)) {
        engine->stalls++;
        engine->stall_us_total += waited_us;
        engine->stall_us_max = waited_us > engine->stall_us_max ? waited_us : engine->stall_us_max;
    }
}

/* Until a tail file or a memtable is free. */
static enum status wait_for_room(struct engine *engine, struct error *err) {
    uint64_t since_us = env_clock_us(engine->env);
    bool for_log = storage_can_apply(engine->storage) && !engine->ingesting;
    enum status status = engine__wait(engine, &engine->room_waiters, 0);
    uint64_t waited_us = env_clock_us(engine->env) - since_us;
    note_pause(engine, waited_us);
    engine->stall_us_log += for_log ? waited_us : 0;
    return status == STATUS_OK ? STATUS_OK : engine__failure(engine, err);
}

/* On a full disk what log and memtables still have room for is left to deletes, which are what makes room. */
static enum status refuse_for_space(const struct engine *engine, const struct write *write, struct error *err) {
    bool is_delete = write->operation != NULL && write->operation->kind != BATCH_PUT;
    if (is_delete && (!engine->tables_full || storage_can_apply(engine->storage))) {
        return STATUS_OK;
    }
    return error_set(err, STATUS_NO_SPACE, "the disk of %s is full", engine->dir);
}

/* Where the payload goes: in the group that is forming. */
static enum status begin(struct engine *engine, const struct write *write, uint8_t **ret_payload, struct error *err) {
    size_t bytes = write->bytes;
    for (;;) {
        if (__builtin_expect(engine->failed, 0)) {
            return engine__failure(engine, err);
        }
        if (__builtin_expect(engine->log_full || engine->tables_full, 0)) {
            enum status refused = refuse_for_space(engine, write, err);
            if (refused != STATUS_OK) {
                return refused;
            }
        }
        enum status status = STATUS_BUSY;
        if (storage_can_apply(engine->storage) && !engine->ingesting) {
            uint64_t index = wal_last_index(engine->wal) + 1;
            status = wal_append_begin(engine->wal, index, engine->term, ENGINE_RECORD_DATA, bytes, ret_payload);
        }
        if (__builtin_expect(status == STATUS_OK, 1)) {
            return STATUS_OK;
        }
        if (status != STATUS_BUSY) {
            return error_set(err, status, "no room in the log for a write of %zu bytes: %s", bytes,
                             status == STATUS_NO_SPACE ? "the disk is full" : status_name(status));
        }
        engine__log_kick(engine);
        status = wait_for_room(engine, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

/* shown: visible on return; else it is the caller's to have it published. */
static enum status append(struct engine *engine, const struct write *write, bool shown, uint64_t *ret_index,
                          struct error *err) {
    uint8_t *payload = NULL;
    enum status status = begin(engine, write, &payload, err);
    if (status != STATUS_OK) {
        return status;
    }
    CHECK(payload != NULL);
    if (write->operation != NULL) {
        batch_encode(payload, write->operation, 1);
    } else {
        memcpy(payload, write->batch.data, write->batch.len);
    }
    uint64_t index = wal_last_index(engine->wal) + 1;
    struct slice batch = slice_of(payload, write->bytes);
    shown = shown && engine->sync_index <= wal_synced_index(engine->wal);
    status = shown ? storage_apply(engine->storage, index, engine->term, batch, err)
                   : storage_insert(engine->storage, index, engine->term, batch, err);
    if (status != STATUS_OK) {
        wal_append_cancel(engine->wal);
        return status;
    }
    wal_append_end(engine->wal);
    wal_set_applied(engine->wal, index);
    *ret_index = index;
    return STATUS_OK;
}

/* A group larger than a tail file lies in plain memory: not safe before it is written. */
static bool must_sync(const struct engine *engine, size_t bytes) {
    return bytes + WAL_RECORD_HEADER_BYTES + ENV_BLOCK_BYTES > engine->tail_bytes;
}

static void pause_writer(struct engine *engine, uint64_t pause_us) {
    if (__builtin_expect(pause_us > 0, 0)) {
        env_sleep_us(engine->env, pause_us);
    }
}

static enum status perform(struct engine *engine, const struct engine_write_options *options, const struct write *write,
                           struct error *err) {
    bool sync =
        (options != NULL && options->sync) || engine->options.sync_every_write || must_sync(engine, write->bytes);
    uint64_t index = 0;
    env_mutex_lock(&engine->lock);
    enum status status = append(engine, write, !sync, &index, err);
    if (status != STATUS_OK) {
        env_mutex_unlock(&engine->lock);
        return status;
    }
    uint64_t pause_us = storage_pace_us(engine->storage, write->bytes);
    note_pause(engine, pause_us);
    if (sync) {
        engine->sync_index = index;
    }
    if (engine->sync_index > wal_synced_index(engine->wal)) {
        status = engine__log_sync(engine, engine->sync_index, true, err); /* unlocks */
    } else {
        if (__builtin_expect(wal_has_full_group(engine->wal) || engine->log_wanted > wal_synced_index(engine->wal),
                             0)) {
            engine__log_kick(engine);
        }
        env_mutex_unlock(&engine->lock);
    }
    pause_writer(engine, pause_us);
    return status;
}

static enum status perform_one(struct engine *engine, const struct engine_write_options *options,
                               const struct batch_operation *operation, struct error *err) {
    const struct write write = {.operation = operation, .bytes = batch_size(operation, 1)};
    return perform(engine, options, &write, err);
}

/* ---- The calls -------------------------------------------------------------------------------------------------- */

static bool is_key(struct slice key) { return key.len > 0 && key.len <= LIMIT_KEY_BYTES; }

enum status engine_put(struct engine *engine, const struct engine_write_options *options, struct slice key,
                       struct slice value, struct error *err) {
    if (!is_key(key) || value.len > LIMIT_VALUE_BYTES) {
        return error_set(err, STATUS_INVALID, "a key of %zu bytes and a value of %zu: 1 to %d and 0 to %d are possible",
                         key.len, value.len, LIMIT_KEY_BYTES, LIMIT_VALUE_BYTES);
    }
    return perform_one(engine, options, &(struct batch_operation){.kind = BATCH_PUT, .key = key, .value = value}, err);
}

enum status engine_delete(struct engine *engine, const struct engine_write_options *options, struct slice key,
                          struct error *err) {
    if (!is_key(key)) {
        return error_set(err, STATUS_INVALID, "a key of %zu bytes: 1 to %d are possible", key.len, LIMIT_KEY_BYTES);
    }
    return perform_one(engine, options, &(struct batch_operation){.kind = BATCH_DELETE, .key = key}, err);
}

enum status engine_delete_range(struct engine *engine, const struct engine_write_options *options, struct slice start,
                                struct slice end, struct error *err) {
    if (!is_key(start) || !is_key(end) || slice_compare(start, end) >= 0) {
        return error_set(err, STATUS_INVALID,
                         "a range of keys of %zu and %zu bytes: 1 to %d are possible, the first before the second",
                         start.len, end.len, LIMIT_KEY_BYTES);
    }
    return perform_one(engine, options,
                       &(struct batch_operation){.kind = BATCH_DELETE_RANGE, .key = start, .value = end}, err);
}

enum status engine_write(struct engine *engine, const struct engine_write_options *options, struct engine_batch *batch,
                         struct error *err) {
    if (engine_batch_count(batch) == 0) {
        return options != NULL && options->sync ? engine_sync(engine, err) : STATUS_OK;
    }
    struct slice bytes = engine__batch_bytes(batch);
    const struct write write = {.batch = bytes, .bytes = bytes.len};
    return perform(engine, options, &write, err);
}

enum status engine_sync(struct engine *engine, struct error *err) {
    env_mutex_lock(&engine->lock);
    return engine__log_sync(engine, wal_last_index(engine->wal), false, err); /* unlocks */
}
