/*
 * Compactions asked for by hand: first what is in the memtable is flushed, then the range sinks level by level into the
 * deepest one that holds any of it, and what was there before is rewritten in place. Steps are ordinary compactions of
 * a few tables each, started when nothing more urgent is to be done.
 *
 *   asked for --flushed--> level 0 --nothing of it left there--> level 1 ... level 6 --> done
 *
 * Tables of the range that compactions leave alone for damage are tried once more; if that meets it again, and no step
 * is under way, the whole ends with what it met. So it does when the disk, which isn't full, takes nothing that is
 * written, three times in a row.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

enum { STATE_FLUSHING, STATE_LEVEL_0 /* and so on */ };

static void deliver(struct env_task *task) {
    struct storage *storage = CONTAINER_OF(task, struct storage, compacts_task);
    for (struct list *link; !storage->closing && (link = list_pop_front(&storage->compacts_done)) != NULL;) {
        struct storage_compact *compact = LIST_ENTRY(link, struct storage_compact, link);
        compact->done(compact, compact->status);
    }
}

void storage__compact_range_init(struct storage *storage) {
    list_init(&storage->compacts);
    list_init(&storage->compacts_done);
    env_task_init(&storage->compacts_task, deliver);
}

static struct storage_compact *first(struct storage *storage) {
    return list_is_empty(&storage->compacts) ? NULL : LIST_ENTRY(storage->compacts.next, struct storage_compact, link);
}

static void end(struct storage *storage, struct storage_compact *compact, enum status status) {
    compact->status = status;
    error_clear(&compact->error);
    if (status != STATUS_OK) {
        (void)error_set(&compact->error, status, "%s",
                        status == STATUS_FAILED ? "the store has failed" : storage->problem);
    }
    compact->left_bytes = 0;
    list_remove(&compact->link);
    list_push_back(&storage->compacts_done, &compact->link);
    env_defer(storage->loop, ENV_STAGE_PROCESS, &storage->compacts_task);
}

void storage_compact_range(struct storage *storage, struct storage_compact *compact) {
    CHECK(storage->started && !storage->closing && compact->done != NULL);
    compact->done_bytes = 0;
    compact->left_bytes = 0;
    compact->state = STATE_FLUSHING;
    compact->flush_index = storage->inserted_index;
    list_push_back(&storage->compacts, &compact->link);
    if (storage->broken) {
        end(storage, compact, STATUS_FAILED);
    } else {
        storage_flush(storage);
    }
}

void storage__compact_range_fail(struct storage *storage) {
    for (struct storage_compact *compact; (compact = first(storage)) != NULL;) {
        end(storage, compact, STATUS_FAILED);
    }
}

void storage__compact_range_unwritable(struct storage *storage) {
    struct storage_compact *compact = first(storage);
    if (compact != NULL && compact->state >= STATE_LEVEL_0) {
        end(storage, compact, STATUS_IO);
        storage__compact_range_advance(storage);
    }
}

void storage__compact_range_advance(struct storage *storage) {
    struct storage_compact *compact = first(storage);
    if (compact != NULL && compact->state == STATE_FLUSHING && storage->frontier.index >= compact->flush_index) {
        compact->state = STATE_LEVEL_0;
        compact->number_end = atomic_load_explicit(&storage->next_file, memory_order_relaxed);
        storage__retry_blocked(storage, compact->lower, compact->upper);
        storage->pick_wanted = true;
    }
}

static uint64_t bytes_left(const struct version *version, const struct storage_compact *compact) {
    uint64_t bytes = 0;
    for (unsigned level = compact->state - STATE_LEVEL_0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level]; i++) {
            const struct sst *sst = version->tables[level][i];
            bool counts = sst->meta.number < compact->number_end && sst_overlaps(sst, compact->lower, compact->upper);
            bytes += counts ? sst->meta.size_bytes : 0;
        }
    }
    return bytes;
}

/* What keeps it from ever going on; STATUS_OK: nothing does. */
static enum status why_stuck(const struct storage *storage, const struct compaction_pick *pick,
                             const struct storage_compact *compact) {
    for (size_t i = 0; i < pick->under_way_count; i++) {
        if (pick->under_way[i]->reason == COMPACTION_MANUAL) {
            return STATUS_OK;
        }
    }
    return storage__why_blocked(storage, compact->lower, compact->upper, compact->number_end);
}

enum status storage__compact_range_pick(struct storage *storage, const struct compaction_pick *pick,
                                        struct compaction_plan *ret_plan) {
    for (struct storage_compact *compact; (compact = first(storage)) != NULL && compact->state >= STATE_LEVEL_0;) {
        unsigned level = compact->state - STATE_LEVEL_0;
        if (level == MANIFEST_LEVELS) {
            end(storage, compact, STATUS_OK);
            storage__compact_range_advance(storage);
            continue;
        }
        struct compaction_pick asked = *pick;
        asked.asked_revision = compact->flush_index;
        enum status status =
            compaction_pick_range(&asked, level, compact->lower, compact->upper, compact->number_end, ret_plan);
        compact->left_bytes = bytes_left(pick->version, compact);
        if (status == STATUS_OK) {
            compact->done_bytes += ret_plan->input_bytes;
        }
        if (status == STATUS_NOT_FOUND) {
            compact->state++;
            continue;
        }
        enum status stuck = status == STATUS_BUSY ? why_stuck(storage, pick, compact) : STATUS_OK;
        if (stuck == STATUS_OK) {
            return status == STATUS_BUSY ? STATUS_NOT_FOUND : status;
        }
        end(storage, compact, stuck);
        storage__compact_range_advance(storage);
    }
    return STATUS_NOT_FOUND;
}
