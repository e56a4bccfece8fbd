/*
 * What may start, and when to look again. Flushes come first, then edits, which let go of memory and disk, then
 * compactions.
 */
#include "storage/storage_internal.h"

#include <stdio.h>

/* The timer is always armed, if only for much later: moving it needs no memory, so a lack of memory can't lose a retry.
 */
static void arm(struct storage *storage, uint64_t deadline_us) {
    enum status status = env_timer_arm(&storage->timer, deadline_us);
    (void)status;
}

void storage__wake_at(struct storage *storage, uint64_t deadline_us) {
    if (storage->started && !storage->closing &&
        (!env_timer_is_armed(&storage->timer) || storage->timer.deadline_us > deadline_us)) {
        arm(storage, deadline_us);
    }
}

void storage__schedule(struct storage *storage) {
    if (!storage->started || storage->closing) {
        return;
    }
    storage__start_reaper(storage);
    if (!storage->broken && !storage->quiet) {
        storage__switch_if_wanted(storage);
        storage__start_flush(storage);
        storage__start_edit(storage);
        storage__compact_range_advance(storage);
        storage__start_compactions(storage);
    }
    storage__upkeep_advance(storage);
    storage__start_scrub(storage);
    atomic_store_explicit(&storage->limiter.relaxed, storage__is_level0_growing(storage), memory_order_relaxed);
    storage__note_stall(storage);
}

static void wake(struct env_timer *timer) {
    struct storage *storage = CONTAINER_OF(timer, struct storage, timer);
    uint64_t now_us = env_now_us(storage->loop);
    const uint64_t retries[] = {storage->flush.retry_at_us, storage->edit.retry_at_us, storage->compact_retry_us,
                                storage->scrub.next_us, storage->reap.next_us};
    arm(storage, now_us + STORAGE_IDLE_US);
    for (size_t i = 0; i < sizeof retries / sizeof retries[0]; i++) {
        if (retries[i] > now_us) {
            storage__wake_at(storage, retries[i]); /* another one that still waits */
        }
    }
    storage__schedule(storage);
}

void storage_start(struct storage *storage) {
    CHECK(!storage->started && !storage->closing);
    env_timer_init(&storage->timer, storage->loop, wake);
    arm(storage, env_now_us(storage->loop) + STORAGE_IDLE_US);
    storage->started = true;
    storage->pick_wanted = true;
    storage__schedule(storage);
}

void storage__fail(struct storage *storage, const struct error *err) {
    if (storage->broken || storage->closing) {
        return;
    }
    storage->broken = true;
    atomic_store_explicit(&storage->stop, true, memory_order_relaxed);
    (void)snprintf(storage->problem, sizeof storage->problem, "%s", err->message);
    storage__compact_range_fail(storage);
    if (storage->options.failed != NULL) {
        storage->options.failed(storage->options.context, err);
    }
    storage__schedule(storage); /* upkeep may have waited for what won't come */
}

void storage_fail(struct storage *storage, const struct error *err) { storage__fail(storage, err); }

static bool is_full(const struct storage *storage) {
    return storage->no_space[SPACE_FLUSH] || storage->no_space[SPACE_COMPACTION] || storage->no_space[SPACE_MANIFEST];
}

void storage__set_space(struct storage *storage, unsigned who, const struct error *err) {
    bool was_full = is_full(storage);
    storage->no_space[who] = err != NULL;
    bool full = is_full(storage);
    if (full != was_full && !storage->closing && storage->options.space_state != NULL) {
        storage->options.space_state(storage->options.context, full ? err : NULL);
    }
}
