/*
 * Who writes groups of the log, and who waits for them. See engine_internal.h.
 *
 *   forming --full, or a flush wants it--> a worker writes it ──┐
 *           --somebody wants its sync----> he writes it himself ┴> durable: those that waited for it go on;
 *                                                                  the first of the others leads the next one
 *
 * A waiter is woken outside the lock where that is possible: it would only meet it.
 */
#include "storage/engine_internal.h"

/* ---- Waiting ---------------------------------------------------------------------------------------------------- */

enum status engine__wait(struct engine *engine, struct list *waiters, uint64_t index) {
    struct engine__waiter waiter = {.index = index, .status = STATUS_OK};
    env_waiter_init(&waiter.waiter, engine->env);
    list_push_back(waiters, &waiter.link);
    env_mutex_unlock(&engine->lock);
    env_waiter_wait(&waiter.waiter);
    env_mutex_lock(&engine->lock);
    return waiter.status;
}

/* A waiter may be gone as soon as it is woken. */
static void wake_all(struct list *woken) {
    struct list *node;
    while ((node = list_pop_front(woken)) != NULL) {
        env_waiter_wake(&LIST_ENTRY(node, struct engine__waiter, link)->waiter);
    }
}

static void collect(struct list *waiters, uint64_t index, enum status status, struct list *woken) {
    LIST_FOREACH (node, waiters) {
        struct engine__waiter *waiter = LIST_ENTRY(node, struct engine__waiter, link);
        if (waiter->index > index || waiter->lead) {
            continue; /* who leads is awake, or about to be */
        }
        waiter->status = status;
        list_remove(node);
        list_push_back(woken, node);
    }
}

void engine__wake(struct list *waiters, uint64_t index, enum status status) {
    struct list woken;
    list_init(&woken);
    collect(waiters, index, status, &woken);
    wake_all(&woken);
}

/* ---- Failure ---------------------------------------------------------------------------------------------------- */

void engine__fail(struct engine *engine, const struct error *err) {
    if (!engine->failed) {
        engine->failed = true;
        engine->failure = *err;
    }
    engine__wake(&engine->sync_waiters, UINT64_MAX, STATUS_FAILED);
    engine__wake(&engine->room_waiters, UINT64_MAX, STATUS_FAILED);
    engine__wake(&engine->flush_waiters, UINT64_MAX, STATUS_FAILED);
    if (engine->storage != NULL) {
        storage_fail(engine->storage, err); /* flushes and what waits for them, too */
    }
}

enum status engine__failure(const struct engine *engine, struct error *err) {
    CHECK(engine->failed);
    return error_set(err, STATUS_FAILED, "writes are refused: %s", engine->failure.message);
}

/* ---- Writing a group -------------------------------------------------------------------------------------------- */

/* The newest write that may be seen: what follows `durable` up to the first one that must be durable first. If that is
 * one whose writer has given up, nobody knows which: then only what is durable. */
static uint64_t visible_index(const struct engine *engine, uint64_t durable, uint64_t own_index) {
    if (engine->sync_index <= durable) {
        return wal_last_index(engine->wal);
    }
    uint64_t first_hidden = own_index > durable ? own_index : UINT64_MAX;
    LIST_FOREACH (node, &engine->sync_waiters) {
        const struct engine__waiter *waiter = LIST_ENTRY(node, struct engine__waiter, link);
        if (waiter->hides && waiter->index > durable && waiter->index < first_hidden) {
            first_hidden = waiter->index;
        }
    }
    return first_hidden != UINT64_MAX ? first_hidden - 1 : durable;
}

/* A memtable of small synced writes is small when its log is long. */
static void bound_log(struct engine *engine) {
    uint64_t written = wal_written_bytes(engine->wal);
    if (written - engine->log_bytes_before >= engine->log_bytes_max) {
        engine->log_bytes_before = written;
        storage_flush(engine->storage);
    }
}

/* Writes what was taken: without the lock in between. Those that it made durable are on `woken`. own_index: the write
 * that the caller hides until it is durable, or UINT64_MAX. */
static void write_taken(struct engine *engine, uint64_t own_index, struct list *woken) {
    struct error err;
    env_mutex_unlock(&engine->lock);
    wal_write_run(engine->wal);
    env_mutex_lock(&engine->lock);
    if (wal_write_end(engine->wal, &err) != STATUS_OK) {
        engine__fail(engine, &err);
        return;
    }
    uint64_t durable = wal_synced_index(engine->wal);
    storage_set_durable(engine->storage, durable);
    uint64_t visible = visible_index(engine, durable, own_index);
    if (visible > storage_applied_index(engine->storage) &&
        storage_publish(engine->storage, visible, engine->term, &err) != STATUS_OK) {
        engine__fail(engine, &err); /* what is acknowledged must be seen */
        return;
    }
    bound_log(engine);
    collect(&engine->sync_waiters, durable, STATUS_OK, woken);
    collect(&engine->room_waiters, UINT64_MAX, STATUS_OK, woken); /* a tail file is free */
}

/* What no writer will do. */
static bool worker_is_wanted(const struct engine *engine) {
    return wal_has_full_group(engine->wal) ||
           (wal_has_records(engine->wal) && engine->log_wanted > wal_synced_index(engine->wal));
}

static void log_run(struct env_work *work) {
    struct engine *engine = CONTAINER_OF(work, struct engine, log_work);
    struct list woken;
    list_init(&woken);
    env_mutex_lock(&engine->lock);
    engine->log_again = false;
    while (!engine->failed && wal_write_take(engine->wal) == STATUS_OK) {
        write_taken(engine, UINT64_MAX, &woken);
        if (!list_is_empty(&woken)) {
            env_mutex_unlock(&engine->lock);
            wake_all(&woken);
            env_mutex_lock(&engine->lock);
        }
        if (!worker_is_wanted(engine) && list_is_empty(&engine->sync_waiters)) {
            break;
        }
    }
    env_mutex_unlock(&engine->lock);
}

static void submit(struct engine *engine) {
    engine->log_busy = true;
    env_work_submit(engine->env, ENV_WORK_SHORT, &engine->log_work);
}

static void log_done(struct env_work *work) {
    struct engine *engine = CONTAINER_OF(work, struct engine, log_work);
    engine->log_busy = false;
    if (engine->closing) {
        engine__wake(&engine->room_waiters, UINT64_MAX, STATUS_OK);
    }
    if (!engine->closing && !engine->failed && (engine->log_again || worker_is_wanted(engine))) {
        submit(engine);
    }
}

void engine__log_kick(struct engine *engine) {
    if (engine->failed || engine->closing) {
        return;
    }
    if (engine->log_busy) {
        engine->log_again = true;
    } else {
        submit(engine);
    }
}

void engine__log_init(struct engine *engine) {
    list_init(&engine->sync_waiters);
    list_init(&engine->room_waiters);
    list_init(&engine->flush_waiters);
    engine->log_work = (struct env_work){.run = log_run, .done = log_done, .loop = engine->loop};
}

enum status engine__log_drain(struct engine *engine, struct error *err) {
    struct list woken;
    list_init(&woken);
    while (!engine->failed && !wal_is_idle(engine->wal)) {
        if (wal_write_take(engine->wal) == STATUS_OK) {
            write_taken(engine, UINT64_MAX, &woken);
            wake_all(&woken);
        } else if (engine->log_full) {
            return error_set(err, STATUS_NO_SPACE, "the disk of %s is full: the log can't be written", engine->dir);
        } else {
            (void)!engine__wait(engine, &engine->room_waiters, 0); /* for a worker's write, or a failure */
        }
    }
    return engine->failed ? engine__failure(engine, err) : STATUS_OK;
}

/* ---- Syncing ---------------------------------------------------------------------------------------------------- */

/* The first of those that wait leads the next group, or else a worker writes what is left. The leader stays on the list
 * until he runs: his write is still hidden. Returns whom to wake, or NULL. */
static struct engine__waiter *hand_over(struct engine *engine) {
    if (list_is_empty(&engine->sync_waiters)) {
        if (worker_is_wanted(engine)) {
            engine__log_kick(engine);
        }
        return NULL;
    }
    LIST_FOREACH (node, &engine->sync_waiters) {
        if (LIST_ENTRY(node, struct engine__waiter, link)->lead) {
            return NULL; /* there is one already, not yet running */
        }
    }
    struct engine__waiter *first = LIST_ENTRY(engine->sync_waiters.next, struct engine__waiter, link);
    first->lead = true;
    return first;
}

/* Sleeps until the index is durable (*ret_lead false), or until it is this thread's turn to write. */
static enum status wait_for_sync(struct engine *engine, uint64_t index, bool hides, bool *ret_lead) {
    struct engine__waiter waiter = {.index = index, .hides = hides, .status = STATUS_OK};
    env_waiter_init(&waiter.waiter, engine->env);
    list_push_back(&engine->sync_waiters, &waiter.link);
    env_mutex_unlock(&engine->lock);
    env_waiter_wait(&waiter.waiter);
    *ret_lead = waiter.lead;
    if (waiter.lead) {
        env_mutex_lock(&engine->lock);
        list_remove(&waiter.link);
    }
    return waiter.status;
}

enum status engine__log_sync(struct engine *engine, uint64_t index, bool hides, struct error *err) {
    struct list woken;
    list_init(&woken);
    while (wal_synced_index(engine->wal) < index) {
        if (engine->failed) {
            enum status status = engine__failure(engine, err);
            env_mutex_unlock(&engine->lock);
            wake_all(&woken);
            return status;
        }
        if (wal_write_take(engine->wal) == STATUS_OK) {
            write_taken(engine, hides ? index : UINT64_MAX, &woken);
            continue;
        }
        if (!list_is_empty(&woken)) {
            env_mutex_unlock(&engine->lock);
            wake_all(&woken);
            env_mutex_lock(&engine->lock);
            continue;
        }
        bool lead = false;
        enum status status = wait_for_sync(engine, index, hides, &lead);
        if (!lead) {
            return status == STATUS_OK ? STATUS_OK : error_set(err, status, "the log could not be written");
        }
    }
    struct engine__waiter *next = hand_over(engine);
    env_mutex_unlock(&engine->lock);
    if (next != NULL) {
        env_waiter_wake(&next->waiter); /* first: the disk is idle */
    }
    wake_all(&woken);
    return STATUS_OK;
}
