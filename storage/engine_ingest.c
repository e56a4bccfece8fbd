/*
 * Ingest: a checkpoint becomes the content of an engine that is open.
 *
 *   writers held -> the log is written out -> it learns the checkpoint's term, durably -> the store takes the
 *   checkpoint in (ingest.c): one switch of the manifest -> the log starts after it (wal_reset.c), durably -> writers
 * go
 *
 * Why in this order. A frontier of a term that the log has never heard of is damage to the next opening: so the term
 * comes first. Records of an older term in a tail file don't count once the log knows a newer one: so nothing may be in
 * there alone, and nothing new may come, before that is durable. After the switch the log's records are of no use; an
 * opening that finds them behind such a frontier resets the log itself.
 */
#include "storage/engine_internal.h"
#include "storage/manifest.h"

#include <stdio.h>

struct ingest {
    struct engine__job job;
    struct storage_ingest tables;
};

/* The term of a checkpoint's frontier. Whoever takes it in verifies it; here it is only read. */
static enum status read_term(struct env *env, const char *dir, uint64_t *ret_term, struct error *err) {
    struct manifest manifest = {.env = env, .dir = dir};
    struct manifest_state state;
    manifest_state_init(&state, env->alloc);
    enum status status = manifest_inspect(&manifest, &state, err);
    if (status == STATUS_OK) {
        *ret_term = state.frontier.term;
    }
    manifest_state_deinit(&state);
    return status;
}

/* Under the lock: everything that was written is in the log, and the log knows this term. */
static enum status prepare_log(struct engine *engine, uint64_t term, struct error *err) {
    enum status status = engine__log_drain(engine, err);
    if (status == STATUS_OK && term > engine->term) {
        engine->term = term;
        wal_set_state(engine->wal, term, 0);
        status = engine__log_drain(engine, err);
    }
    return status;
}

/* On the loop, under the lock: nobody sees the new content with the old log. */
static void tables_done(struct storage_upkeep *upkeep) {
    struct engine__job *job = upkeep->context;
    struct ingest *ingest = CONTAINER_OF(job, struct ingest, job);
    struct engine *engine = job->engine;
    const struct wal_frontier base = {.index = ingest->tables.frontier.index, .term = ingest->tables.frontier.term};
    if (upkeep->status == STATUS_OK && base.term > engine->term) {
        struct error err; /* another checkpoint than a moment ago */
        (void)error_set(&err, STATUS_FAILED, "%s: was replaced while it was taken in", ingest->tables.dir);
        engine__fail(engine, &err);
        upkeep->status = STATUS_FAILED;
        upkeep->error = err;
    } else if (upkeep->status == STATUS_OK) {
        wal_reset(engine->wal, &base);
    }
    env_waiter_wake(&job->waiter);
}

/* Under the lock but while it waits. */
static enum status take_in(struct engine *engine, struct ingest *ingest, struct error *err) {
    engine__job_init(&ingest->job, engine, &ingest->tables.upkeep);
    ingest->tables.upkeep.done = tables_done;
    storage_ingest(engine->storage, &ingest->tables);
    env_mutex_unlock(&engine->lock);
    enum status status = engine__job_wait(&ingest->job, &ingest->tables.upkeep, err);
    env_mutex_lock(&engine->lock);
    if (status == STATUS_OK) {
        status = engine__log_drain(engine, err); /* the reset */
    }
    if (status == STATUS_OK) {
        wal_set_floor(engine->wal, ingest->tables.frontier.index, UINT64_MAX);
        engine__wake(&engine->flush_waiters, ingest->tables.frontier.index, STATUS_OK);
    }
    return status;
}

enum status engine_ingest(struct engine *engine, const char *dir, struct error *err) {
    uint64_t term = 0;
    enum status status = engine__check_dir(dir, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct ingest *ingest = mem_alloc_zero(engine->alloc, sizeof *ingest);
    if (ingest == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to take in %s", dir);
    }
    (void)snprintf(ingest->tables.dir, sizeof ingest->tables.dir, "%s/tables", dir);
    status = read_term(engine->env, ingest->tables.dir, &term, err);
    if (status != STATUS_OK) {
        mem_free(engine->alloc, ingest);
        return status;
    }
    env_mutex_lock(&engine->lock);
    if (engine->failed) {
        status = engine__failure(engine, err);
    } else if (engine->ingesting) {
        status = error_set(err, STATUS_BUSY, "%s takes in another checkpoint", engine->dir);
    } else {
        engine->ingesting = true;
        status = prepare_log(engine, term, err);
        if (status == STATUS_OK) {
            status = take_in(engine, ingest, err);
        }
        engine->ingesting = false;
        engine__wake(&engine->room_waiters, UINT64_MAX, STATUS_OK);
    }
    env_mutex_unlock(&engine->lock);
    mem_free(engine->alloc, ingest);
    return status;
}
