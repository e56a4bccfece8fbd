/*
 * How far back reads may go. The horizon is derived: the highest revision that was asked for (storage_set_horizon) or
 * that the history option allows, but never above a pin. As a pin can't be set below it, it never decreases, unless the
 * whole store goes back (storage_ingest): it stays below what the store has.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

uint64_t storage_horizon(const struct storage *storage) {
    uint64_t shown = storage_applied_index(storage);
    uint64_t applied = storage->inserted_index < shown ? storage->inserted_index : shown;
    uint64_t kept = storage->options.history_revisions;
    uint64_t horizon = storage->horizon_wanted;
    if (storage->options.history_none) {
        horizon = applied;
    } else if (kept != 0 && applied > kept && applied - kept > horizon) {
        horizon = applied - kept;
    }
    horizon = horizon < applied ? horizon : applied;
    if (!list_is_empty(&storage->pins)) {
        uint64_t lowest = LIST_ENTRY(storage->pins.next, struct storage_pin, link)->revision;
        horizon = lowest < horizon ? lowest : horizon;
    }
    return horizon;
}

/* A horizon that moves makes work for compactions, but not at every step. */
static void look_for_work(struct storage *storage) {
    if (storage->started && !storage->closing && !storage->pick_wanted) {
        storage->pick_wanted = true;
        storage__wake_at(storage, storage->picked_us + STORAGE_PICK_INTERVAL_US);
    }
}

void storage_set_horizon(struct storage *storage, uint64_t revision) {
    uint64_t applied = storage_applied_index(storage);
    revision = revision < applied ? revision : applied;
    if (revision > storage->horizon_wanted) {
        storage->horizon_wanted = revision;
        look_for_work(storage);
    }
}

enum status storage_pin_add(struct storage *storage, struct storage_pin *pin) {
    CHECK(!storage->closing && pin->revision <= storage_applied_index(storage));
    if (pin->revision < storage_horizon(storage)) {
        return STATUS_COMPACTED;
    }
    pin->since_us = env_now_us(storage->loop);
    pin->name[sizeof pin->name - 1] = '\0';
    struct list *before = storage->pins.prev; /* pins mostly come in growing order */
    while (before != &storage->pins && LIST_ENTRY(before, struct storage_pin, link)->revision > pin->revision) {
        before = before->prev;
    }
    list_push_front(before, &pin->link); /* right behind it */
    return STATUS_OK;
}

void storage_pin_remove(struct storage *storage, struct storage_pin *pin) {
    CHECK(!list_is_empty(&storage->pins));
    list_remove(&pin->link);
    look_for_work(storage);
}
