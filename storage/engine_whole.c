/*
 * The whole store while it is open: checkpoints, verification.
 *
 * A checkpoint is a directory like the engine's own: `tables`, linked by the store (checkpoint.c), and `log`, one
 * segment that says where the tables end (wal_create). It is put together at dir.tmp; the rename to dir is the commit
 * point. Everything written before was flushed first, so nothing of our log has to go along.
 *
 * Long jobs of the store run on a worker of its own; the caller sleeps until they are done.
 */
#include "storage/engine_internal.h"
#include "storage/store_files.h"

#include <stdio.h>

/* ---- Waiting for a job of the store ------------------------------------------------------------------------------ */

static void job_done(struct storage_upkeep *upkeep) {
    env_waiter_wake(&((struct engine__job *)upkeep->context)->waiter);
}

void engine__job_init(struct engine__job *job, struct engine *engine, struct storage_upkeep *upkeep) {
    env_waiter_init(&job->waiter, engine->env);
    job->engine = engine;
    upkeep->done = job_done;
    upkeep->context = job;
}

enum status engine__job_wait(struct engine__job *job, const struct storage_upkeep *upkeep, struct error *err) {
    env_waiter_wait(&job->waiter);
    if (upkeep->status != STATUS_OK && err != NULL) {
        *err = upkeep->error;
    }
    return upkeep->status;
}

/* Takes the lock if the store takes jobs. */
static enum status lock_to_submit(struct engine *engine, struct error *err) {
    env_mutex_lock(&engine->lock);
    if (!engine->failed) {
        return STATUS_OK;
    }
    enum status status = engine__failure(engine, err);
    env_mutex_unlock(&engine->lock);
    return status;
}

/* ---- Checkpoint -------------------------------------------------------------------------------------------------- */

static enum status seen_enough(void *context, const char *name) {
    (void)context;
    (void)name;
    return STATUS_CANCELLED;
}

/* Nothing is at dir, and tmp is an empty directory. */
static enum status prepare(struct env *env, const char *dir, const char *tmp, struct error *err) {
    enum status status = env_list_dir(env, dir, seen_enough, NULL, err);
    if (status == STATUS_OK || status == STATUS_CANCELLED) {
        return error_set(err, STATUS_EXISTS, "%s: there is something already", dir);
    }
    if (status != STATUS_NOT_FOUND) {
        return status;
    }
    status = engine__destroy(env, tmp, err);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        return status;
    }
    error_clear(err);
    return env_mkdir(env, tmp, err);
}

static enum status link_tables(struct engine *engine, struct storage_checkpoint *tables, struct error *err) {
    struct engine__job job;
    engine__job_init(&job, engine, &tables->upkeep);
    enum status status = lock_to_submit(engine, err);
    if (status != STATUS_OK) {
        return status;
    }
    storage_checkpoint(engine->storage, tables);
    env_mutex_unlock(&engine->lock);
    return engine__job_wait(&job, &tables->upkeep, err);
}

static enum status publish(struct env *env, const char *dir, const char *tmp, struct error *err) {
    enum status status = env_sync_dir(env, tmp, err);
    if (status == STATUS_OK) {
        status = env_rename(env, tmp, dir, err);
    }
    return status == STATUS_OK ? env_sync_parent(env, dir, err) : status;
}

/* Without slashes at its end: another name is made of it. */
static void copy_dir(char out[ENGINE_DIR_BYTES], const char *dir) {
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') {
        len--;
    }
    memcpy(out, dir, len);
    out[len] = '\0';
}

enum status engine_checkpoint(struct engine *engine, const char *dir, struct engine_checkpoint *ret_checkpoint,
                              struct error *err) {
    struct env *env = engine->env;
    char place[ENGINE_DIR_BYTES];
    char tmp[ENGINE_DIR_BYTES + sizeof ".tmp"];
    char log[LIMIT_PATH_BYTES];
    struct error ignored;
    enum status status = engine__check_dir(dir, err);
    if (status != STATUS_OK) {
        return status;
    }
    copy_dir(place, dir);
    struct storage_checkpoint *tables = mem_alloc_zero(engine->alloc, sizeof *tables);
    if (tables == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for a checkpoint at %s", dir);
    }
    (void)snprintf(tmp, sizeof tmp, "%s.tmp", place);
    (void)snprintf(log, sizeof log, "%s/log", tmp);
    (void)snprintf(tables->dir, sizeof tables->dir, "%s/tables", tmp);
    status = engine_flush(engine, err); /* a full disk is told at once, not waited out */
    if (status == STATUS_OK) {
        status = prepare(env, place, tmp, err);
    }
    if (status != STATUS_OK) {
        goto out;
    }
    status = link_tables(engine, tables, err);
    if (status == STATUS_OK) {
        status = engine__make_log(env, log, &tables->frontier, tables->frontier.term, err);
    }
    if (status == STATUS_OK) {
        status = publish(env, place, tmp, err);
    }
    if (status != STATUS_OK) {
        (void)!engine__destroy(env, tmp, &ignored); /* else the next attempt does it */
    } else if (ret_checkpoint != NULL) {
        *ret_checkpoint = (struct engine_checkpoint){.revision = tables->frontier.index,
                                                     .files = tables->files,
                                                     .bytes = tables->bytes,
                                                     .copied_bytes = tables->copied_bytes};
    }
out:
    mem_free(engine->alloc, tables);
    return status;
}

/* ---- Verification ------------------------------------------------------------------------------------------------ */

static void on_found(void *context, const struct storage_verify_finding *finding) {
    const struct engine_verify_options *options = context;
    const struct engine_finding told = {.file = finding->file,
                                        .count = finding->count,
                                        .offset = finding->offset,
                                        .message = finding->message};
    options->found(options->context, &told);
}

enum status engine_verify(struct engine *engine, const struct engine_verify_options *options,
                          struct engine_verify_report *ret_report, struct error *err) {
    struct engine_verify_options ours = {.found = NULL};
    struct engine__job job;
    if (options != NULL) {
        ours = *options;
    }
    struct storage_verification *verification = mem_alloc_zero(engine->alloc, sizeof *verification);
    if (verification == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to verify %s", engine->dir);
    }
    verification->found = ours.found != NULL ? on_found : NULL;
    verification->found_context = &ours;
    engine__job_init(&job, engine, &verification->upkeep);
    enum status status = lock_to_submit(engine, err);
    if (status == STATUS_OK) {
        storage_verify(engine->storage, verification);
        env_mutex_unlock(&engine->lock);
        status = engine__job_wait(&job, &verification->upkeep, err);
        if (ret_report != NULL && (status == STATUS_OK || status == STATUS_CORRUPT)) {
            engine__fill_report(ret_report, &verification->report);
        }
    }
    mem_free(engine->alloc, verification);
    return status;
}
