/* What the store says of itself; and the damage that reads and compactions met, which any thread reports. */
#include "storage/storage_internal.h"

#include <assert.h>
#include <stdio.h>

static_assert((int)COMPACTION_REASON_COUNT <= (int)STORAGE_COMPACTION_REASONS,
              "statistics have no room for every reason");

/* ---- Damage: any thread -------------------------------------------------------------------------------------- */

/* Each file is named once, as long as so many are remembered. */
static void note_news(struct damage_list *damage, uint64_t number) {
    for (uint32_t i = 0; i < damage->told_count; i++) {
        if (damage->told[i] == number) {
            return;
        }
    }
    if (damage->told_count == STORAGE_DAMAGES_MAX) {
        damage->told_count--;
        damage->news_count -= damage->news_count > damage->told_count;
        memmove(damage->told, damage->told + 1, damage->told_count * sizeof damage->told[0]);
    }
    damage->told[damage->told_count++] = number;
    damage->news_count++;
}

void storage__damaged(void *context, const struct sst *sst, const struct error *err) {
    struct storage *storage = context;
    struct damage_list *damage = &storage->damage;
    uint64_t number = sst->meta.number;
    env_mutex_lock(&damage->lock);
    damage->count++;
    bool known = false;
    for (uint32_t i = 0; i < damage->table_count; i++) {
        known = known || damage->tables[i] == number;
    }
    if (!known && damage->table_count == STORAGE_DAMAGES_MAX) {
        damage->table_count--;
        memmove(damage->tables, damage->tables + 1, damage->table_count * sizeof damage->tables[0]);
    }
    if (!known) {
        damage->tables[damage->table_count++] = number;
    }
    note_news(damage, number);
    damage->message_table = number;
    (void)snprintf(damage->message, sizeof damage->message, "%s", err->message);
    env_mutex_unlock(&damage->lock);
}

bool storage__take_damage(struct storage *storage, uint64_t number) {
    struct damage_list *damage = &storage->damage;
    bool found = false;
    env_mutex_lock(&damage->lock);
    for (uint32_t i = 0; i < damage->table_count && !found; i++) {
        if (damage->tables[i] == number) {
            damage->tables[i] = damage->tables[--damage->table_count];
            found = true;
        }
    }
    env_mutex_unlock(&damage->lock);
    return found;
}

static void fill_damage(struct storage *storage, struct storage_stats *stats) {
    struct damage_list *damage = &storage->damage;
    env_mutex_lock(&damage->lock);
    stats->damaged_blocks = damage->count;
    if (stats->problem[0] == '\0' && storage__is_live(storage->version, damage->message_table)) {
        memcpy(stats->problem, damage->message, sizeof stats->problem);
    }
    env_mutex_unlock(&damage->lock);
    for (uint32_t i = 0; i < storage->blocked_count; i++) {
        stats->damaged_tables += storage->blocked[i].is_waiting;
    }
}

/* ---- Damage: the owner ------------------------------------------------------------------------------------------ */

bool storage_has_file(const struct storage *storage, uint64_t number) {
    return storage__is_live(storage->version, number);
}

bool storage_next_damage(struct storage *storage, struct storage_damage *ret_damage) {
    struct damage_list *damage = &storage->damage;
    bool found = false;
    env_mutex_lock(&damage->lock);
    while (damage->news_count > 0 && !found) {
        uint64_t number = damage->told[damage->told_count - damage->news_count--];
        bool was_told = false; /* by the scrub */
        for (uint32_t i = 0; i < storage->scrub.damage_count; i++) {
            was_told = was_told || storage->scrub.damages[i].file == number;
        }
        if (!was_told && storage__is_live(storage->version, number)) {
            *ret_damage = (struct storage_damage){.file = number, .since_us = env_clock_us(storage->env)};
            found = true;
        }
    }
    env_mutex_unlock(&damage->lock);
    return found;
}

/* ---- Statistics ---------------------------------------------------------------------------------------------- */

const char *storage_stall_name(enum storage_stall reason) {
    static const char *const names[STORAGE_STALL_COUNT] = {
        [STORAGE_STALL_MEMTABLES] = "memtables",
        [STORAGE_STALL_LEVEL0] = "level0",
        [STORAGE_STALL_DEBT] = "debt",
        [STORAGE_STALL_SPACE] = "space",
    };
    return names[reason];
}

const char *storage_compaction_reason_name(unsigned reason) {
    return reason < COMPACTION_REASON_COUNT ? compaction_reason_name((enum compaction_reason)reason) : NULL;
}

static void fill_tree(const struct storage *storage, struct storage_stats *stats) {
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        stats->files[level] = storage->version->counts[level];
        stats->bytes[level] = storage->version->bytes[level];
    }
    for (size_t i = 0; i < storage->version->value_file_count; i++) {
        stats->value_file_bytes += storage->version->value_files[i]->meta.size_bytes;
        stats->value_bytes += storage->version->value_uses[i].bytes;
        if (storage->version->value_files[i]->is_log) {
            stats->value_log_files++;
            stats->value_log_bytes += storage->version->value_files[i]->meta.size_bytes;
        }
    }
    stats->value_files = storage->version->value_file_count;
    stats->change_files = storage->version->change_file_count;
    stats->change_file_bytes = version_change_bytes(storage->version);
    stats->changes_oldest = storage__changes_oldest(storage->version);
    stats->debt_bytes = storage->debt_bytes;
    stats->dead_bytes = storage->dead_bytes;
    stats->flushed_index = storage->frontier.index;
    stats->horizon = storage_horizon(storage);
}

static void fill_held(const struct storage *storage, struct storage_stats *stats) {
    uint64_t now_us = env_clock_us(storage->env);
    stats->views = view_count_held(&storage->views);
    stats->held_bytes = storage->obsolete_bytes;
    if (!list_is_empty(&storage->old_sets)) {
        const struct read_set *oldest = LIST_ENTRY(storage->old_sets.next, struct read_set, link);
        stats->view_oldest_us = now_us - oldest->replaced_us;
    }
    uint64_t since_us = now_us;
    LIST_FOREACH (link, &storage->pins) {
        const struct storage_pin *pin = LIST_ENTRY(link, struct storage_pin, link);
        since_us = pin->since_us < since_us ? pin->since_us : since_us;
        stats->pins++;
    }
    stats->pin_oldest_us = now_us - since_us;
    if (stats->pins > 0) {
        const struct storage_pin *lowest = LIST_ENTRY(storage->pins.next, struct storage_pin, link);
        stats->pin_held_revisions = storage_applied_index(storage) - lowest->revision;
        memcpy(stats->pin_lowest, lowest->name, sizeof stats->pin_lowest);
    }
}

static void fill_work(const struct storage *storage, struct storage_stats *stats) {
    stats->flushes = storage->flushes;
    stats->flush_bytes = storage->flush_bytes;
    stats->adopted_bytes = storage->adopted_bytes;
    stats->change_bytes = storage->change_bytes;
    for (unsigned reason = 0; reason < STORAGE_COMPACTION_REASONS; reason++) {
        stats->compactions[reason] = storage->compactions[reason];
        stats->compaction_count += storage->compactions[reason];
    }
    stats->compactions_running = storage->jobs_running;
    stats->compaction_failures = storage->compaction_failures;
    stats->compaction_read_bytes = storage->compaction_read_bytes;
    stats->compaction_written_bytes = storage->compaction_written_bytes;
    stats->moved_value_bytes = storage->moved_value_bytes;
    stats->written_bytes = storage->flush_bytes + storage->change_bytes + storage->compaction_written_bytes +
                           storage->manifest_bytes_written;
    stats->applied_bytes = storage->applied_bytes;
}

void storage_get_unflushed(const struct storage *storage, struct storage_unflushed *ret_unflushed) {
    const struct memtable *active = storage->active->memtable;
    bool is_empty = memtable_entries(active) == 0 && memtable_range_deletes(active) == 0;
    struct storage_unflushed unflushed = {
        .entries = storage->inserted_index - storage->frontier.index,
        .bytes = storage->active->batch_bytes,
        .active_entries = storage->inserted_index - storage->switched_index,
        .active_bytes = storage->active->batch_bytes,
        .active_memory_bytes = is_empty ? 0 : memtable_bytes(active),
        .waiting = storage->full_count,
    };
    LIST_FOREACH (link, &storage->full) {
        unflushed.bytes += LIST_ENTRY(link, struct generation, link)->batch_bytes;
    }
    *ret_unflushed = unflushed;
}

void storage_get_stats(struct storage *storage, struct storage_stats *ret_stats) {
    struct storage_stats stats = {
        .memtable_bytes = memtable_bytes(storage->active->memtable),
        .immutable_memtables = storage->full_count,
    };
    cache_get_stats(storage->cache, &stats.cache);
    open_files_get_stats(storage->open_files, &stats.open_files);
    fill_tree(storage, &stats);
    fill_work(storage, &stats);
    fill_held(storage, &stats);
    memcpy(stats.stalls, storage->stalls.stats, sizeof stats.stalls);
    memcpy(stats.problem, storage->problem, sizeof stats.problem);
    fill_damage(storage, &stats);
    storage__fill_scrub_stats(storage, &stats);
    *ret_stats = stats;
}
