/*
 * The scan digest: one number for all that a reader sees at one revision, whatever tables, levels and memtables it is
 * spread over. Nodes that hold the same at the same revision have the same number; unlike the chain (digest.h) it finds
 * what changed after it was applied: in memory before a flush, in a compaction, on a disk that lies.
 *
 *   digest = 0; for each key that is there at the revision, in order:
 *            digest = next(digest, revision of its version, key length,
 *                          fold(hash(key) ^ A, hash(value) ^ 1 * B ^ C))            next, fold, hash, A, B, C: digest.h
 *
 * A worker walks over a view; the view pins what it needs, files that compactions replace meanwhile included, until the
 * scan ends. It keeps to a rate, so that readers and writers go on.
 */
#include "storage/filter.h"
#include "storage/storage_internal.h"

#include <inttypes.h>

enum { STAGE_ASKED, STAGE_READ, NAP_US = 20 * 1000, PACE_BYTES = 256 * 1024 };

static struct storage_digest_scan *scan_of(struct storage_upkeep *upkeep) {
    return CONTAINER_OF(upkeep, struct storage_digest_scan, upkeep);
}

/* ---- Worker ----------------------------------------------------------------------------------------------------- */

/* Sleeps until so many bytes are due. */
static void pace(struct storage *storage, const struct storage_digest_scan *scan, uint64_t begun_us) {
    if (scan->bytes_per_second == 0) {
        return;
    }
    uint64_t due_us = begun_us + (uint64_t)((unsigned __int128)scan->bytes * 1000 * 1000 / scan->bytes_per_second);
    for (uint64_t now_us = env_clock_us(storage->env); now_us < due_us && !storage__upkeep_is_cancelled(&scan->upkeep);
         now_us = env_clock_us(storage->env)) {
        env_sleep_us(storage->env, due_us - now_us < NAP_US ? due_us - now_us : NAP_US);
    }
}

static enum status add(struct storage_digest_scan *scan, struct storage_iterator *iterator, struct error *err) {
    struct slice key = storage_iterator_key(iterator);
    struct slice value;
    enum status status = storage_iterator_value(iterator, &value, err);
    if (status == STATUS_OK) {
        uint64_t effect = digest_effect(0, BATCH_PUT, 0, filter_hash(key), value.data, value.len);
        scan->digest = digest_next(&scan->digest, storage_iterator_revision(iterator), key.len, effect);
        scan->keys++;
        scan->bytes += key.len + value.len;
    }
    return status;
}

static enum status walk(struct storage *storage, struct storage_digest_scan *scan, struct storage_iterator *iterator,
                        struct error *err) {
    uint64_t begun_us = env_clock_us(storage->env);
    uint64_t paced_bytes = 0;
    enum status status = storage_iterator_first(iterator, err);
    while (status == STATUS_OK) {
        status = add(scan, iterator, err);
        if (status == STATUS_OK && scan->bytes - paced_bytes >= PACE_BYTES) {
            paced_bytes = scan->bytes;
            atomic_store_explicit(&scan->upkeep.done_bytes, scan->bytes, memory_order_relaxed);
            pace(storage, scan, begun_us);
        }
        if (status == STATUS_OK && storage__upkeep_is_cancelled(&scan->upkeep)) {
            status = error_set(err, STATUS_CANCELLED, "the scan was stopped");
        }
        if (status == STATUS_OK) {
            status = storage_iterator_next(iterator, err);
        }
    }
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static void run(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_digest_scan *scan = scan_of(upkeep);
    const struct storage_iterator_options options = {.revision = scan->revision,
                                                     .at_zero = scan->revision == 0,
                                                     .passing = true};
    struct storage_iterator *iterator = NULL;
    upkeep->status = storage_iterator_new(scan->view, NULL, &options, &iterator, &upkeep->error);
    if (upkeep->status == STATUS_OK) {
        upkeep->status = walk(storage, scan, iterator, &upkeep->error);
        storage_iterator_free(iterator);
    }
    if (upkeep->status != STATUS_OK && upkeep->error.code == STATUS_OK) {
        (void)error_set(&upkeep->error, upkeep->status, "%s", status_name(upkeep->status));
    }
}

/* ---- Owner ------------------------------------------------------------------------------------------------------ */

static void begin(struct storage *storage, struct storage_digest_scan *scan) {
    uint64_t bytes = memtable_bytes(storage->active->memtable);
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        bytes += storage->version->bytes[level];
    }
    for (size_t i = 0; i < storage->version->value_file_count; i++) {
        bytes += storage->version->value_files[i]->meta.size_bytes;
    }
    atomic_store_explicit(&scan->upkeep.total_bytes, bytes, memory_order_relaxed);
    scan->view = storage_view_acquire(storage);
    scan->upkeep.stage = STAGE_READ;
}

static enum upkeep_next step(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_digest_scan *scan = scan_of(upkeep);
    uint64_t applied_index = storage_applied_index(storage);
    if (upkeep->stage == STAGE_READ) {
        return UPKEEP_END;
    }
    if (storage__upkeep_is_cancelled(upkeep)) {
        upkeep->status = error_set(&upkeep->error, STATUS_CANCELLED, "the scan was stopped");
        return UPKEEP_END;
    }
    if (scan->revision > applied_index) {
        upkeep->status =
            error_set(&upkeep->error, STATUS_INVALID, "revision %" PRIu64 " isn't applied here yet, only %" PRIu64,
                      scan->revision, applied_index);
        return UPKEEP_END;
    }
    begin(storage, scan);
    return UPKEEP_RUN;
}

static void drop(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_digest_scan *scan = scan_of(upkeep);
    (void)storage;
    if (scan->view != NULL) {
        storage_view_release(scan->view);
        scan->view = NULL;
    }
}

void storage_scan_digest(struct storage *storage, struct storage_digest_scan *scan) {
    static const struct upkeep_kind kind = {.step = step, .run = run, .drop = drop};
    scan->digest = (struct digest){0};
    scan->keys = 0;
    scan->bytes = 0;
    scan->view = NULL;
    storage__upkeep_ask(storage, &scan->upkeep, &kind, NULL);
}
