/* Verifying a store while it goes on: a version is pinned, a worker reads all of it. */
#include "storage/storage_internal.h"
#include "storage/verify.h"

enum { STAGE_WAITING, STAGE_READ };

static struct storage_verification *verification_of(struct storage_upkeep *upkeep) {
    return CONTAINER_OF(upkeep, struct storage_verification, upkeep);
}

static void found(void *context, const struct storage_verify_finding *finding) {
    struct storage_verification *verification = context;
    if (verification->found != NULL) {
        verification->found(verification->found_context, finding);
    }
}

static bool progress(void *context, uint64_t done_bytes, uint64_t total_bytes) {
    struct storage_verification *verification = context;
    (void)total_bytes;
    atomic_store_explicit(&verification->upkeep.done_bytes, done_bytes, memory_order_relaxed);
    return !storage__upkeep_is_cancelled(&verification->upkeep);
}

static void run(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_verification *verification = verification_of(upkeep);
    struct verify_run verify = {.options = {.context = verification, .found = found, .progress = progress},
                                .report = &verification->report,
                                .err = &upkeep->error};
    (void)storage;
    upkeep->status = verify__result(&verify, verify__version(&verify, verification->version));
}

static enum upkeep_next step(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_verification *verification = verification_of(upkeep);
    uint64_t bytes = 0;
    if (upkeep->stage == STAGE_READ) {
        return UPKEEP_END;
    }
    if (storage__upkeep_is_cancelled(upkeep)) {
        upkeep->status = error_set(&upkeep->error, STATUS_CANCELLED, "verifying was stopped");
        return UPKEEP_END;
    }
    verification->version = storage->version;
    verification->version->refs++;
    verification->report.frontier = storage->frontier;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        bytes += storage->version->bytes[level];
    }
    for (size_t i = 0; i < storage->version->value_file_count; i++) {
        bytes += storage->version->value_files[i]->meta.size_bytes;
    }
    bytes += version_change_bytes(storage->version);
    atomic_store_explicit(&upkeep->total_bytes, bytes, memory_order_relaxed);
    upkeep->stage = STAGE_READ;
    return UPKEEP_RUN;
}

static void drop(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_verification *verification = verification_of(upkeep);
    if (verification->version != NULL) {
        storage__unref_version(storage, verification->version);
        verification->version = NULL;
        storage__start_reaper(storage);
    }
}

void storage_verify(struct storage *storage, struct storage_verification *verification) {
    static const struct upkeep_kind kind = {.step = step, .run = run, .drop = drop};
    verification->version = NULL;
    verification->report = (struct storage_verify_report){.tables = 0};
    storage__upkeep_ask(storage, &verification->upkeep, &kind, NULL);
}
