/*
 * The scan digest: one number for all that a reader sees at one revision, whatever tables, levels and memtables it is
 * spread over. Nodes that hold the same at the same revision have the same number; unlike the chain (digest.h) it finds
 * what changed after it was applied: in memory before a flush, in a compaction, on a disk that lies.
 *
 *   digest = 0; for each key that is there at the revision, in order:
 *            digest = next(digest, revision of its version, key length, XXH3-64(key), XXH3-64(value))
 *
 * next() is the chain's (digest.h).
 *
 * The view and the iterator are taken when the scan is asked for, so neither what is applied later nor a horizon that
 * moves on makes a difference; the view pins what it needs, files that compactions replace meanwhile included, until
 * the scan ends. A worker walks over it in slices, at a rate, so that readers and writers go on; between two slices
 * other long jobs of the store come first, so a scan of hours delays no snapshot.
 *
 *   asked --(first)--> slice --> others' jobs, if there are any --> slice ... --(end, cancelled, unreadable)--> done
 */
#include "storage/filter.h"
#include "storage/storage_internal.h"

#include <inttypes.h>

enum { STAGE_READ, STAGE_LET_OTHERS };
enum { NAP_US = 20 * 1000, PACE_BYTES_MAX = 256 * 1024, PARTS_A_SECOND = 16, SLICE_US = 500 * 1000 };

static struct storage_digest_scan *scan_of(struct storage_upkeep *upkeep) {
    return CONTAINER_OF(upkeep, struct storage_digest_scan, upkeep);
}

/* ---- Worker ----------------------------------------------------------------------------------------------------- */

/* Sleeps until what this slice has read is due. */
static void pace(struct storage *storage, const struct storage_digest_scan *scan, uint64_t begun_us,
                 uint64_t slice_bytes) {
    if (scan->bytes_per_second == 0) {
        return;
    }
    uint64_t due_us = begun_us + (uint64_t)((unsigned __int128)slice_bytes * 1000 * 1000 / scan->bytes_per_second);
    for (uint64_t now_us = env_clock_us(storage->env); now_us < due_us && !storage__upkeep_is_cancelled(&scan->upkeep);
         now_us = env_clock_us(storage->env)) {
        env_sleep_us(storage->env, due_us - now_us < NAP_US ? due_us - now_us : NAP_US);
    }
}

static enum status add(struct storage_digest_scan *scan, struct error *err) {
    struct storage_iterator *iterator = scan->iterator;
    struct slice key = storage_iterator_key(iterator);
    struct slice value;
    enum status status = storage_iterator_value(iterator, &value, err);
    if (status == STATUS_OK) {
        const struct digest_effects effects = {.keys = filter_hash(key),
                                               .values = {0, checksum64(value.data, value.len, 0)}};
        scan->digest = digest_next(&scan->digest, storage_iterator_revision(iterator), key.len, &effects);
        scan->keys++;
        scan->bytes += key.len + value.len;
    }
    return status;
}

/* From where the last slice ended. STATUS_NOT_FOUND: that were all. */
static enum status walk(struct storage *storage, struct storage_digest_scan *scan, struct error *err) {
    uint64_t begun_us = env_clock_us(storage->env);
    uint64_t first_bytes = scan->bytes;
    uint64_t paced_bytes = scan->bytes;
    uint64_t part_bytes = scan->bytes_per_second / PARTS_A_SECOND;
    part_bytes = scan->bytes_per_second == 0 || part_bytes > PACE_BYTES_MAX ? PACE_BYTES_MAX : part_bytes;
    enum status status = scan->is_begun ? STATUS_OK : storage_iterator_first(scan->iterator, err);
    bool is_full = false;
    scan->is_begun = scan->is_begun || status == STATUS_OK;
    while (status == STATUS_OK && !is_full) {
        status = add(scan, err);
        if (status == STATUS_OK && scan->bytes - paced_bytes >= part_bytes) {
            paced_bytes = scan->bytes;
            atomic_store_explicit(&scan->upkeep.done_bytes, scan->bytes, memory_order_relaxed);
            pace(storage, scan, begun_us, scan->bytes - first_bytes);
            is_full = env_clock_us(storage->env) - begun_us >= SLICE_US;
        }
        if (status == STATUS_OK && storage__upkeep_is_cancelled(&scan->upkeep)) {
            status = error_set(err, STATUS_CANCELLED, "the scan was stopped");
        }
        if (status == STATUS_OK) {
            status = storage_iterator_next(scan->iterator, err);
        }
    }
    return status;
}

static void run(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_digest_scan *scan = scan_of(upkeep);
    if (scan->iterator == NULL) {
        upkeep->status = scan->refusal.code;
        upkeep->error = scan->refusal;
        return;
    }
    enum status status = walk(storage, scan, &upkeep->error);
    scan->is_through = status == STATUS_NOT_FOUND;
    upkeep->status = scan->is_through ? STATUS_OK : status;
    atomic_store_explicit(&upkeep->done_bytes, scan->bytes, memory_order_relaxed);
    if (upkeep->status == STATUS_OK) {
        error_clear(&upkeep->error);
    } else if (upkeep->error.code == STATUS_OK) {
        (void)error_set(&upkeep->error, upkeep->status, "%s", status_name(upkeep->status));
    }
}

/* ---- Owner ------------------------------------------------------------------------------------------------------ */

/* About what will be read. */
static uint64_t estimate(const struct storage *storage) {
    uint64_t bytes = memtable_bytes(storage->active->memtable);
    bytes = bytes == SIZE_MAX ? storage->options.memtable_bytes : bytes;
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        bytes += storage->version->bytes[level];
    }
    for (size_t i = 0; i < storage->version->value_file_count; i++) {
        bytes += storage->version->value_files[i]->meta.size_bytes;
    }
    return bytes;
}

static enum upkeep_next step(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_digest_scan *scan = scan_of(upkeep);
    (void)storage;
    if (upkeep->status != STATUS_OK || scan->is_through) {
        return UPKEEP_END;
    }
    if (storage__upkeep_is_cancelled(upkeep)) {
        upkeep->status = error_set(&upkeep->error, STATUS_CANCELLED, "the scan was stopped");
        return UPKEEP_END;
    }
    upkeep->stage = upkeep->stage == STAGE_READ ? STAGE_LET_OTHERS : STAGE_READ;
    return upkeep->stage == STAGE_LET_OTHERS ? UPKEEP_RUN : UPKEEP_OTHERS;
}

static void drop(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_digest_scan *scan = scan_of(upkeep);
    (void)storage;
    storage_iterator_free(scan->iterator);
    scan->iterator = NULL;
    if (scan->view != NULL) {
        storage_view_release(scan->view);
        scan->view = NULL;
    }
}

static enum status take_view(struct storage *storage, struct storage_digest_scan *scan, struct error *err) {
    const struct storage_iterator_options options = {.revision = scan->revision,
                                                     .at_zero = scan->revision == 0,
                                                     .passing = true};
    scan->view = storage_view_acquire(storage);
    uint64_t applied_index = storage_view_revision(scan->view);
    if (scan->revision > applied_index) {
        return error_set(err, STATUS_INVALID, "revision %" PRIu64 " isn't applied here yet, only %" PRIu64,
                         scan->revision, applied_index);
    }
    return storage_iterator_new(scan->view, NULL, &options, &scan->iterator, err);
}

void storage_scan_digest(struct storage *storage, struct storage_digest_scan *scan) {
    static const struct upkeep_kind kind = {.step = step, .run = run, .drop = drop};
    struct storage_upkeep *upkeep = &scan->upkeep;
    CHECK(storage->started && !storage->closing);
    scan->digest = (struct digest){0};
    scan->keys = 0;
    scan->bytes = 0;
    scan->iterator = NULL;
    scan->is_begun = false;
    scan->is_through = false;
    error_clear(&scan->refusal);
    enum status status = take_view(storage, scan, &scan->refusal);
    CHECK((status == STATUS_OK) == (scan->iterator != NULL));
    storage__upkeep_ask(storage, upkeep, &kind, NULL); /* may run the first step */
    atomic_store_explicit(&upkeep->total_bytes, estimate(storage), memory_order_relaxed);
}
