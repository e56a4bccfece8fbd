/* Snapshots: revisions that the horizon doesn't pass, as long as they are pinned. */
#include "storage/engine_internal.h"

#include <stdio.h>

struct engine_snapshot *engine_snapshot_new(struct engine *engine) {
    struct engine_snapshot *snapshot = mem_alloc_zero(engine->alloc, sizeof *snapshot);
    if (snapshot == NULL) {
        return NULL;
    }
    (void)snprintf(snapshot->pin.name, sizeof snapshot->pin.name, "snapshot");
    env_mutex_lock(&engine->lock);
    while (engine->ingesting && engine__wait(engine, &engine->room_waiters, 0) == STATUS_OK) {
    } /* else it could be of a content that is about to go */
    snapshot->pin.revision = storage_applied_index(engine->storage);
    CHECK(storage_pin_add(engine->storage, &snapshot->pin) == STATUS_OK); /* the newest can be read */
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
    storage_pin_remove(engine->storage, &snapshot->pin);
    engine->snapshot_count--;
    env_mutex_unlock(&engine->lock);
    mem_free(engine->alloc, snapshot);
}

uint64_t engine_snapshot_revision(const struct engine_snapshot *snapshot) { return snapshot->pin.revision; }
