/*
 * Long jobs over the whole store, one at a time: what they share.
 *
 *   asked for --(first)--> step --RUN--> worker --> step ... --END--> done
 *                           | ^
 *                           \-/ WAIT: every time the store has got on; OTHERS: behind those that wait
 *
 * Owner loop, but for `run`.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"
#include "storage/store_files.h"

static struct storage_upkeep *first(struct storage *storage) {
    return list_is_empty(&storage->upkeeps) ? NULL : LIST_ENTRY(storage->upkeeps.next, struct storage_upkeep, link);
}

static void deliver(struct env_task *task) {
    struct storage *storage = CONTAINER_OF(task, struct storage, upkeeps_task);
    for (struct list *link; !storage->closing && (link = list_pop_front(&storage->upkeeps_done)) != NULL;) {
        struct storage_upkeep *upkeep = LIST_ENTRY(link, struct storage_upkeep, link);
        bool can_apply = upkeep->kind->release != NULL && upkeep->kind->release(storage, upkeep);
        if (storage->closing) {
            return;
        }
        upkeep->done(upkeep);
        if (can_apply && !storage->closing && storage_can_apply(storage) && storage->options.can_apply != NULL) {
            storage->options.can_apply(storage->options.context);
        }
    }
}

void storage__upkeep_init(struct storage *storage) {
    list_init(&storage->upkeeps);
    list_init(&storage->upkeeps_done);
    env_task_init(&storage->upkeeps_task, deliver);
}

/* Every kind but the waiting ones ends here, too. */
static void end(struct storage *storage, struct storage_upkeep *upkeep) {
    upkeep->kind->drop(storage, upkeep);
    upkeep->is_ended = true;
    list_remove(&upkeep->link);
    list_push_back(&storage->upkeeps_done, &upkeep->link);
    env_defer(storage->loop, ENV_STAGE_PROCESS, &storage->upkeeps_task);
}

void storage__upkeep_ask(struct storage *storage, struct storage_upkeep *upkeep, const struct upkeep_kind *kind,
                         const char *dir) {
    CHECK(storage->started && !storage->closing && upkeep->done != NULL);
    upkeep->kind = kind;
    upkeep->storage = storage;
    upkeep->is_running = false;
    upkeep->is_ended = false;
    upkeep->stage = 0;
    upkeep->status = STATUS_OK;
    error_clear(&upkeep->error);
    atomic_init(&upkeep->done_bytes, 0);
    atomic_init(&upkeep->total_bytes, 0);
    atomic_init(&upkeep->is_cancelled, false);
    list_push_back(&storage->upkeeps, &upkeep->link);
    if (dir != NULL && (dir[0] == '\0' || strlen(dir) + sizeof ".tmp" + FILE_NAME_BYTES_MAX > LIMIT_PATH_BYTES)) {
        upkeep->status = error_set(&upkeep->error, STATUS_INVALID, "the directory's name is empty or too long");
        end(storage, upkeep);
        return;
    }
    storage__schedule(storage);
}

void storage_upkeep_cancel(struct storage_upkeep *upkeep) {
    struct storage *storage = upkeep->storage;
    atomic_store_explicit(&upkeep->is_cancelled, true, memory_order_relaxed);
    if (storage->closing) {
        return;
    }
    if (upkeep != first(storage) && !upkeep->is_ended) {
        upkeep->status = error_set(&upkeep->error, STATUS_CANCELLED, "stopped while it waited for other jobs");
        end(storage, upkeep);
    }
    storage__schedule(storage);
}

static void run(struct env_work *work) {
    struct storage_upkeep *upkeep = CONTAINER_OF(work, struct storage_upkeep, work);
    upkeep->kind->run(upkeep->storage, upkeep);
}

static void done(struct env_work *work) {
    struct storage_upkeep *upkeep = CONTAINER_OF(work, struct storage_upkeep, work);
    struct storage *storage = upkeep->storage;
    upkeep->is_running = false;
    storage__schedule(storage);
    storage__close_step(storage);
}

void storage__upkeep_advance(struct storage *storage) {
    for (struct storage_upkeep *upkeep; (upkeep = first(storage)) != NULL && !upkeep->is_running;) {
        enum upkeep_next next = upkeep->kind->step(storage, upkeep);
        if (next == UPKEEP_WAIT) {
            return;
        }
        if (next == UPKEEP_END) {
            end(storage, upkeep);
            continue;
        }
        if (next == UPKEEP_OTHERS) {
            list_remove(&upkeep->link);
            list_push_back(&storage->upkeeps, &upkeep->link);
            continue;
        }
        upkeep->is_running = true;
        upkeep->work = (struct env_work){.run = run, .done = done, .loop = storage->loop};
        env_work_submit(storage->env, ENV_WORK_LONG, &upkeep->work);
    }
}

bool storage__upkeep_close(struct storage *storage) {
    struct storage_upkeep *upkeep = first(storage);
    if (upkeep != NULL && upkeep->is_running) {
        atomic_store_explicit(&upkeep->is_cancelled, true, memory_order_relaxed);
        return false;
    }
    while ((upkeep = first(storage)) != NULL) {
        upkeep->kind->drop(storage, upkeep);
        list_remove(&upkeep->link);
    }
    env_task_cancel(&storage->upkeeps_task);
    return true;
}
