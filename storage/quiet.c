/*
 * When hardly anybody writes: then level 0 is merged before it is full, as each of its tables costs every scan and
 * every seek a source more. Under load it isn't, as that would only write the base level more often.
 *
 * Time is looked at in windows of a second, and only while level 0 has so many tables that it would be worth it; so an
 * idle store sets no timer. A window in which so little was applied that the next table is a minute away is a quiet
 * one.
 *
 * What such merging writes is held to a low rate on average: after each there is a rest in proportion. So whoever
 * writes slowly, or flushes small memtables often, doesn't have the base level rewritten over and over.
 *
 * All of it belongs to the owner.
 */
#include "storage/storage_internal.h"

enum {
    WINDOW_US = 1000 * 1000,
    WINDOWS_OF_A_MEMTABLE = 64, /* as many windows, or more, would fill one */
    BYTES_PER_SECOND = 4 << 20  /* what is written on average */
};

void storage__note_quiet_merge(struct storage *storage, uint64_t written_bytes) {
    uint64_t rest_us = written_bytes * 1000 / (BYTES_PER_SECOND / 1000);
    storage->quiet_merge.next_us = env_now_us(storage->loop) + rest_us;
    storage->quiet_merge.is_quiet = false;
}

/* Closes the window whose time is over. One that nobody looked at for long says nothing about now. */
static void look(struct storage *storage, uint64_t now_us) {
    struct quiet_merge *merge = &storage->quiet_merge;
    uint64_t age_us = now_us - merge->window_us;
    if (age_us < WINDOW_US && merge->window_us > 0) {
        return;
    }
    uint64_t applied = storage->applied_bytes - merge->window_bytes;
    bool is_recent = merge->window_us > 0 && age_us < (uint64_t)2 * WINDOW_US;
    merge->is_quiet =
        is_recent && storage->full_count == 0 && applied <= storage->options.memtable_bytes / WINDOWS_OF_A_MEMTABLE;
    merge->window_us = now_us;
    merge->window_bytes = storage->applied_bytes;
}

bool storage__is_quiet(struct storage *storage) {
    struct quiet_merge *merge = &storage->quiet_merge;
    uint64_t now_us = env_now_us(storage->loop);
    if (storage->version->counts[0] < storage->options.l0_files_quiet) {
        merge->is_quiet = false;
        merge->window_us = 0;
        return false;
    }
    if (now_us < merge->next_us) {
        storage__wake_at(storage, merge->next_us);
        return false;
    }
    look(storage, now_us);
    storage__wake_at(storage, merge->window_us + WINDOW_US);
    return merge->is_quiet && storage->jobs_running == 0 && list_is_empty(&storage->written);
}
