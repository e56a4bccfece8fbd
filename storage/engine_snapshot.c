/* Snapshots: revisions that the horizon doesn't pass. */
#include "storage/engine_internal.h"

struct engine_snapshot *engine_snapshot_new(struct engine *engine) {
    struct engine_snapshot *snapshot = mem_alloc(engine->alloc, sizeof *snapshot);
    if (snapshot == NULL) {
        return NULL;
    }
    env_mutex_lock(&engine->lock);
    snapshot->revision = storage_applied_index(engine->storage);
    list_push_back(&engine->snapshots, &snapshot->link);
    engine->snapshot_count++;
    env_mutex_unlock(&engine->lock);
    return snapshot;
}

void engine_snapshot_release(struct engine *engine, struct engine_snapshot *snapshot) {
    if (snapshot == NULL) {
        return;
    }
    env_mutex_lock(&engine->lock);
    CHECK(engine->snapshot_count > 0);
    list_remove(&snapshot->link);
    engine->snapshot_count--;
    env_mutex_unlock(&engine->lock);
    mem_free(engine->alloc, snapshot);
}

uint64_t engine_snapshot_revision(const struct engine_snapshot *snapshot) { return snapshot->revision; }
