/*
 * The end of things: read sets that no view holds, the memtables, versions and tables that hang on them, and the store
 * itself.
 *
 *   last view released (any thread) -> read set on the publisher's stack -> message to the owner loop
 *   owner: counts down generations, versions, tables -> a worker frees memory, closes and unlinks files
 *
 * A table's file is unlinked only if a durable edit removed it (`obsolete`). Whatever else is left lying is named by no
 * manifest, or may be named by one whose write had an unknown outcome: the next start decides.
 *
 * Files go one at a time, with a rest after each that took long: where the file system discards blocks, a disk writes
 * nothing else meanwhile, and a compaction leaves many files at once. So the log's writes come in between, instead of
 * all of them waiting (hazard 47). The more waits, the shorter are the rests, so that what waits has a bound. Memory is
 * never kept waiting, nor is anything on a full disk, or when closing.
 *
 * Closing: callbacks stop at once; compactions under way give up, other jobs end; what they made is let go of; the
 * published view is retracted; the reaper empties; a last job closes manifest and lock; memory goes.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

/* ---- Any thread ---------------------------------------------------------------------------------------------- */

void storage__read_set_dead(struct view_publisher *publisher) {
    struct storage *storage = publisher->storage;
    if (!atomic_exchange_explicit(&storage->collect_posted, true, memory_order_acq_rel)) {
        env_post(storage->loop, &storage->collect);
    }
}

/* ---- Counting down (owner) ----------------------------------------------------------------------------------- */

static void note_dead(struct storage *storage, const struct sst *sst) {
    if (sst->obsolete) {
        CHECK(storage->obsolete_bytes >= sst->meta.size_bytes);
        storage->obsolete_bytes -= sst->meta.size_bytes;
        storage->dead_bytes += sst->meta.size_bytes;
    }
}

void storage__unref_table(struct storage *storage, struct sst *sst) {
    CHECK(sst->refs > 0);
    if (--sst->refs == 0) {
        note_dead(storage, sst);
        sst->next_dead = storage->dead_tables;
        storage->dead_tables = sst;
    }
}

void storage__unref_version(struct storage *storage, struct version *version) {
    struct sst *before = storage->dead_tables;
    version_unref(version, &storage->dead_tables);
    for (const struct sst *sst = storage->dead_tables; sst != before; sst = sst->next_dead) {
        note_dead(storage, sst);
    }
}

void storage__unref_generation(struct storage *storage, struct generation *generation) {
    CHECK(generation->refs > 0);
    if (--generation->refs > 0) {
        return;
    }
    generation->next_dead = storage->dead_generations;
    storage->dead_generations = generation;
}

static void take_apart(struct storage *storage, struct read_set *read_set) {
    for (size_t i = 0; i < read_set->generation_count; i++) {
        storage__unref_generation(storage, read_set->generations[i]);
    }
    storage__unref_version(storage, read_set->version);
    list_remove(&read_set->link);
    mem_free(storage->env->alloc, read_set);
}

void storage__collect(struct env_message *message) {
    struct storage *storage = CONTAINER_OF(message, struct storage, collect);
    /* First the flag, then the stack: a read set that dies in between posts again. */
    atomic_store_explicit(&storage->collect_posted, false, memory_order_seq_cst);
    struct read_set *read_set = view_collect_dead(&storage->views);
    while (read_set != NULL) {
        struct read_set *next = read_set->next_dead;
        take_apart(storage, read_set);
        read_set = next;
    }
    storage__start_reaper(storage);
    storage__close_step(storage);
}

/* ---- Reaper -------------------------------------------------------------------------------------------------- */

enum {
    REST_SHARE = 4,          /* times what the unlink took, */
    REST_US_MAX = 50 * 1000, /* but no longer, */
    REST_US_MIN = 1000,      /* of less there is no trace in the log's writes; */
    REST_TABLES_MAX = 8      /* and none at all if so many tables, by their size, wait */
};

static void bury_tables(struct storage *storage, struct sst *sst) {
    while (sst != NULL) {
        struct sst *next = sst->next_dead;
        bool obsolete = sst->obsolete;
        uint64_t id = sst->meta.id;
        char path[LIMIT_PATH_BYTES];
        sst_path(sst, path);
        sst_free(sst);
        if (obsolete) {
            struct error ignored;
            cache_forget(storage->cache, id);
            enum status status = env_unlink(storage->env, path, &ignored);
            (void)status; /* then it goes at the next start */
        }
        sst = next;
    }
}

/* One of them serves again. */
static void keep_memtable(struct reap_job *job, struct generation *generation) {
    if (job->keeps && job->spare == NULL && memtable_reset(generation->memtable)) {
        job->spare = generation->memtable;
        generation->memtable = NULL;
    }
}

static void run(struct env_work *work) {
    struct reap_job *job = CONTAINER_OF(work, struct reap_job, work);
    struct storage *storage = job->storage;
    uint64_t from_us = env_clock_us(storage->env);
    bury_tables(storage, job->tables);
    job->unlink_us = env_clock_us(storage->env) - from_us;
    for (struct generation *generation = job->generations; generation != NULL;) {
        struct generation *next = generation->next_dead;
        keep_memtable(job, generation);
        storage__generation_free(storage, generation);
        generation = next;
    }
    if (job->last) {
        manifest_close(&storage->manifest);
        env_close(storage->lock);
        storage->lock = NULL;
    }
}

static uint64_t rest_us(const struct storage *storage, uint64_t unlink_us) {
    uint64_t bound_bytes = REST_TABLES_MAX * storage->options.sst_bytes;
    uint64_t us = unlink_us < REST_US_MAX / REST_SHARE ? unlink_us * REST_SHARE : REST_US_MAX;
    us = storage->dead_bytes < bound_bytes ? us * (bound_bytes - storage->dead_bytes) / bound_bytes : 0;
    return us >= REST_US_MIN ? us : 0;
}

static void done(struct env_work *work) {
    struct reap_job *job = CONTAINER_OF(work, struct reap_job, work);
    struct storage *storage = job->storage;
    job->running = false;
    job->next_us = env_now_us(storage->loop) + rest_us(storage, job->unlink_us);
    if (job->spare != NULL) {
        CHECK(storage->spare == NULL);
        storage->spare = job->spare;
        job->spare = NULL;
    }
    if (!job->last) {
        storage__start_reaper(storage);
        storage__close_step(storage);
        return;
    }
    void (*closed)(void *) = storage->closed;
    void *context = storage->closed_context;
    CHECK(!atomic_load(&storage->collect_posted));
    storage__free(storage);
    closed(context);
}

static bool may_rest(const struct storage *storage) {
    bool full = false;
    for (unsigned who = 0; who < SPACE_COUNT; who++) {
        full = full || storage->no_space[who];
    }
    return storage->started && !storage->closing && !full;
}

/* Takes off the list all that only costs memory, and one file that is to go, if its time has come. */
static struct sst *take_tables(struct storage *storage) {
    bool rests = may_rest(storage);
    bool unlinks = !rests || env_now_us(storage->loop) >= storage->reap.next_us;
    struct sst *taken = NULL;
    struct sst **place = &storage->dead_tables;
    while (*place != NULL) {
        struct sst *sst = *place;
        if (sst->obsolete && !unlinks) {
            place = &sst->next_dead;
            continue;
        }
        unlinks = unlinks && !(sst->obsolete && rests);
        if (sst->obsolete) {
            CHECK(storage->dead_bytes >= sst->meta.size_bytes);
            storage->dead_bytes -= sst->meta.size_bytes;
        }
        *place = sst->next_dead;
        sst->next_dead = taken;
        taken = sst;
    }
    return taken;
}

static void submit(struct storage *storage, bool last, struct sst *tables) {
    struct reap_job *job = &storage->reap;
    job->storage = storage;
    job->running = true;
    job->last = last;
    job->keeps = !last && storage->spare == NULL;
    job->tables = tables;
    job->generations = storage->dead_generations;
    storage->dead_generations = NULL;
    job->work = (struct env_work){.run = run, .done = done, .loop = storage->loop};
    env_work_submit(storage->env, ENV_WORK_SHORT, &job->work);
}

void storage__start_reaper(struct storage *storage) {
    if (storage->reap.running) {
        return;
    }
    struct sst *tables = take_tables(storage);
    if (tables != NULL || storage->dead_generations != NULL) {
        submit(storage, false, tables);
    } else if (storage->dead_tables != NULL) {
        storage__wake_at(storage, storage->reap.next_us);
    }
}

/* ---- Closing ------------------------------------------------------------------------------------------------- */

void storage_close(struct storage *storage, void (*closed)(void *context), void *context) {
    CHECK(!storage->closing && closed != NULL);
    CHECK(list_is_empty(&storage->pins));
    storage->closing = true;
    storage->log.log = NULL; /* it may be gone before us */
    atomic_store_explicit(&storage->stop, true, memory_order_relaxed);
    storage->closed = closed;
    storage->closed_context = context;
    if (storage->started) {
        env_timer_cancel(&storage->timer);
    }
    storage__close_step(storage);
}

/* Nothing runs any more: lets go of all that the store itself holds. */
static void let_go(struct storage *storage) {
    view_retract(&storage->views);
    read_set_unref(&storage->views, storage->read_set);
    storage->read_set = NULL;
    storage__unref_version(storage, storage->version);
    storage->version = NULL;
    storage__unref_generation(storage, storage->active);
    storage->active = NULL;
    for (struct list *link; (link = list_pop_front(&storage->full)) != NULL;) {
        struct generation *generation = LIST_ENTRY(link, struct generation, link);
        if (generation->sst != NULL) {
            storage__unref_table(storage, generation->sst);
        }
        if (generation->changes != NULL) {
            storage__unref_table(storage, generation->changes);
        }
        values_output__release(&generation->values);
        storage__unref_generation(storage, generation);
    }
}

void storage__close_step(struct storage *storage) {
    if (!storage->closing || !storage__upkeep_close(storage) || storage->flush.running || storage->edit.running ||
        storage->jobs_running > 0 || storage->scrub.running) {
        return;
    }
    storage__scrub_let_go(storage);
    for (struct list *link; (link = list_pop_front(&storage->written)) != NULL;) {
        storage__compaction_end(storage, LIST_ENTRY(link, struct compaction_job, link));
    }
    storage__unblock(storage, true);
    env_task_cancel(&storage->compacts_task);
    if (storage->active != NULL) {
        let_go(storage);
    }
    if (atomic_load_explicit(&storage->collect_posted, memory_order_acquire) || storage->reap.running) {
        return;
    }
    CHECK(view_count_held(&storage->views) == 0);
    submit(storage, true, take_tables(storage));
}

void storage__free(struct storage *storage) {
    memtable_free(storage->spare);
    struct alloc *alloc = storage->env->alloc;
    view_publisher_deinit(&storage->views);
    open_files_free(storage->open_files);
    cache_free(storage->cache);
    mem_free(alloc, storage->jobs);
    mem_free(alloc, storage->digests);
    mem_free(alloc, storage);
}
