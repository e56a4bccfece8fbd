/* The owner's side of the engine: applying, switching memtables, deciding what to start, statistics. */
#include "node/base/check.h"
#include "storage/storage_internal.h"

#include <stdio.h>

void storage_options_init(struct storage_options *options) {
    *options = (struct storage_options){
        .memtable_bytes = (uint64_t)64 << 20,
        .immutable_memtables_max = 2,
        .block_bytes = 4096,
        .sst_bytes = (uint64_t)64 << 20,
        .l0_files_merge = 4,
        .manifest_bytes_max = (uint64_t)4 << 20,
    };
}

/* ---- Generations and read sets ------------------------------------------------------------------------------- */

struct generation *storage__generation_new(struct storage *storage) {
    struct alloc *alloc = storage->env->alloc;
    struct generation *generation = mem_alloc_zero(alloc, sizeof *generation);
    if (generation == NULL) {
        return NULL;
    }
    generation->memtable = memtable_new(alloc, (size_t)storage->options.memtable_bytes);
    if (generation->memtable == NULL) {
        mem_free(alloc, generation);
        return NULL;
    }
    list_init(&generation->link);
    generation->refs = 1;
    return generation;
}

struct read_set *storage__read_set_new(struct storage *storage) {
    size_t generations_max = (size_t)storage->options.immutable_memtables_max + 1;
    return mem_alloc_zero(storage->env->alloc, sizeof(struct read_set) + generations_max * sizeof(struct generation *));
}

static void add_generation(struct read_set *read_set, struct generation *generation) {
    generation->refs++;
    read_set->generations[read_set->generation_count++] = generation;
}

void storage__set_current(struct storage *storage, struct read_set *read_set, struct version *version) {
    struct read_set *old = storage->read_set;
    add_generation(read_set, storage->active);
    for (struct list *link = storage->full.prev; link != &storage->full; link = link->prev) {
        add_generation(read_set, LIST_ENTRY(link, struct generation, link));
    }
    CHECK(read_set->generation_count <= (size_t)storage->options.immutable_memtables_max + 1);
    read_set->version = version;
    version->refs++;
    atomic_init(&read_set->refs, 1);
    storage->read_set = read_set;
    if (old != NULL) {
        read_set_unref(&storage->views, old);
    }
}

/* ---- Switching ----------------------------------------------------------------------------------------------- */

static bool is_full(const struct storage *storage) {
    return memtable_bytes(storage->active->memtable) >= storage->options.memtable_bytes;
}

static bool can_switch(const struct storage *storage) {
    return storage->full_count < storage->options.immutable_memtables_max;
}

/* What the active memtable's contents make of the frontier: the last applied entry, and what the owner of the log says.
 */
static void capture_frontier(struct storage *storage, struct storage_frontier *frontier) {
    uint64_t index = atomic_load_explicit(&storage->applied_index, memory_order_relaxed);
    frontier->index = index;
    frontier->term = storage->applied_term;
    frontier->horizon = storage->horizon;
    if (storage->options.fill_frontier != NULL) {
        storage->options.fill_frontier(storage->options.context, frontier);
    }
    CHECK(frontier->index == index && frontier->term == storage->applied_term);
    CHECK(frontier->membership_len <= LIMIT_MEMBERSHIP_BYTES);
    if (frontier->horizon < storage->horizon) {
        frontier->horizon = storage->horizon;
    }
}

/* The active memtable becomes immutable, an empty one takes its place. Nothing is published: the old read set shows the
 * same. STATUS_NO_MEMORY: nothing changed. */
static enum status switch_memtable(struct storage *storage) {
    CHECK(storage->started && can_switch(storage));
    struct generation *next = storage__generation_new(storage);
    struct read_set *read_set = storage__read_set_new(storage);
    if (next == NULL || read_set == NULL) {
        if (next != NULL) {
            memtable_free(next->memtable);
        }
        mem_free(storage->env->alloc, next);
        mem_free(storage->env->alloc, read_set);
        return STATUS_NO_MEMORY;
    }
    struct generation *old = storage->active;
    capture_frontier(storage, &old->frontier);
    old->state = GENERATION_FULL;
    list_push_back(&storage->full, &old->link);
    storage->full_count++;
    storage->switched_index = old->frontier.index;
    storage->active = next;
    storage__set_current(storage, read_set, storage->version);
    return STATUS_OK;
}

/* A storage_flush that is still owed. */
static void switch_if_wanted(struct storage *storage) {
    if (!storage->flush_wanted || !can_switch(storage)) {
        return;
    }
    bool is_new = storage_applied_index(storage) > storage->switched_index;
    if (!is_new || switch_memtable(storage) == STATUS_OK) {
        storage->flush_wanted = false;
    } else {
        storage__wake_at(storage, env_now_us(storage->loop) + STORAGE_RETRY_US);
    }
}

void storage_flush(struct storage *storage) {
    CHECK(storage->started && !storage->closing);
    storage->flush_wanted = true;
    storage__schedule(storage);
}

/* ---- Applying ------------------------------------------------------------------------------------------------ */

bool storage_can_apply(const struct storage *storage) {
    return !storage->started || !is_full(storage) || can_switch(storage);
}

static enum status apply_failed(enum status status, uint64_t index, struct error *err) {
    const char *what = status == STATUS_NO_MEMORY     ? "no memory"
                       : status == STATUS_UNSUPPORTED ? "the batch is of an unknown version"
                                                      : "the batch is malformed";
    return error_set(err, status, "applying entry %llu: %s", (unsigned long long)index, what);
}

enum status storage_apply(struct storage *storage, uint64_t index, uint64_t term, struct slice batch,
                          struct error *err) {
    uint64_t applied = atomic_load_explicit(&storage->applied_index, memory_order_relaxed);
    CHECK(!storage->closing && index == applied + 1 && term >= storage->applied_term);
    bool switched = false;
    if (storage->started && is_full(storage)) {
        CHECK(can_switch(storage));
        if (switch_memtable(storage) != STATUS_OK) {
            return apply_failed(STATUS_NO_MEMORY, index, err);
        }
        switched = true;
    }
    enum status status = STATUS_NO_MEMORY;
    struct storage_view *view = view_reserve(&storage->views);
    if (view != NULL) {
        status = memtable_apply(storage->active->memtable, index, batch);
    }
    if (status == STATUS_OK) {
        storage->applied_term = term;
        view_publish(&storage->views, view, index, storage->read_set);
        atomic_store_explicit(&storage->applied_index, index, memory_order_release);
    } else {
        view_unreserve(&storage->views, view);
        (void)apply_failed(status, index, err);
    }
    if (switched) {
        storage__schedule(storage);
    }
    return status;
}

void storage_set_durable(struct storage *storage, uint64_t index) {
    if (index > storage->durable_index) {
        storage->durable_index = index;
        storage__schedule(storage);
    }
}

void storage_set_horizon(struct storage *storage, uint64_t revision) {
    uint64_t applied = storage_applied_index(storage);
    revision = revision < applied ? revision : applied;
    if (revision > storage->horizon) {
        storage->horizon = revision;
    }
}

/* ---- Scheduling ---------------------------------------------------------------------------------------------- */

/* The timer is always armed, if only for much later: moving it needs no memory, so a lack of memory can't lose a retry.
 */
static void arm(struct storage *storage, uint64_t deadline_us) {
    enum status status = env_timer_arm(&storage->timer, deadline_us);
    (void)status;
}

void storage__wake_at(struct storage *storage, uint64_t deadline_us) {
    if (!env_timer_is_armed(&storage->timer) || storage->timer.deadline_us > deadline_us) {
        arm(storage, deadline_us);
    }
}

void storage__schedule(struct storage *storage) {
    if (!storage->started || storage->closing) {
        return;
    }
    storage__start_reaper(storage);
    if (storage->broken) {
        return;
    }
    switch_if_wanted(storage);
    storage__start_flush(storage);
    storage__start_edit(storage);
    storage__start_merge(storage);
}

static void wake(struct env_timer *timer) {
    struct storage *storage = CONTAINER_OF(timer, struct storage, timer);
    const uint64_t retries[] = {storage->flush.retry_at_us, storage->edit.retry_at_us, storage->merge.retry_at_us};
    uint64_t now_us = env_now_us(storage->loop);
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
    storage__schedule(storage);
}

void storage__fail(struct storage *storage, const struct error *err) {
    if (storage->broken || storage->closing) {
        return;
    }
    storage->broken = true;
    (void)snprintf(storage->problem, sizeof storage->problem, "%s", err->message);
    if (storage->options.failed != NULL) {
        storage->options.failed(storage->options.context, err);
    }
}

void storage__set_space(struct storage *storage, unsigned who, const struct error *err) {
    bool was_full = storage->no_space[SPACE_FLUSH] || storage->no_space[SPACE_MERGE];
    storage->no_space[who] = err != NULL;
    bool full = storage->no_space[SPACE_FLUSH] || storage->no_space[SPACE_MERGE];
    if (full != was_full && !storage->closing && storage->options.space_state != NULL) {
        storage->options.space_state(storage->options.context, full ? err : NULL);
    }
}

/* ---- What the owner may ask ---------------------------------------------------------------------------------- */

const struct storage_frontier *storage_frontier(const struct storage *storage) { return &storage->frontier; }

uint64_t storage_applied_index(const struct storage *storage) {
    return atomic_load_explicit(&storage->applied_index, memory_order_acquire);
}

uint64_t storage_applied_term(const struct storage *storage) { return storage->applied_term; }

void storage_get_stats(const struct storage *storage, struct storage_stats *ret_stats) {
    struct storage_stats stats = {
        .memtable_bytes = memtable_bytes(storage->active->memtable),
        .immutable_memtables = storage->full_count,
        .flushes = storage->flushes,
        .merges = storage->merges,
        .merge_failures = storage->merge_failures,
        .flushed_index = storage->frontier.index,
        .written_bytes = storage->table_bytes_written + storage->manifest_bytes_written,
        .views = view_count_held(&storage->views),
    };
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        stats.files[level] = storage->version->counts[level];
        for (size_t i = 0; i < storage->version->counts[level]; i++) {
            stats.bytes[level] += storage->version->tables[level][i]->meta.size_bytes;
        }
    }
    memcpy(stats.problem, storage->problem, sizeof stats.problem);
    *ret_stats = stats;
}
