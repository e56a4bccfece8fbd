/* Memtables: applying entries, publishing them, switching to the next memtable. The owner's side. */
#include "node/base/check.h"
#include "storage/storage_internal.h"

/* ---- Generations and read sets ------------------------------------------------------------------------------- */

struct generation *storage__generation_new(struct storage *storage) {
    struct alloc *alloc = storage->env->alloc;
    struct generation *generation = mem_alloc_zero(alloc, sizeof *generation);
    if (generation == NULL) {
        return NULL;
    }
    generation->memtable = storage->spare;
    storage->spare = NULL;
    if (generation->memtable == NULL) {
        generation->memtable = memtable_new(alloc, (size_t)storage->options.memtable_bytes);
    }
    if (generation->memtable == NULL) {
        mem_free(alloc, generation);
        return NULL;
    }
    list_init(&generation->link);
    generation->refs = 1;
    return generation;
}

void storage__generation_free(struct storage *storage, struct generation *generation) {
    if (generation != NULL) {
        memtable_free(generation->memtable);
        mem_free(storage->env->alloc, generation);
    }
}

struct read_set *storage__read_set_new(struct storage *storage) {
    size_t generations_max = (size_t)storage->options.immutable_memtables_max + 1;
    struct read_set *read_set =
        mem_alloc_zero(storage->env->alloc, sizeof *read_set + generations_max * sizeof(struct generation *));
    if (read_set != NULL) {
        list_init(&read_set->link);
    }
    return read_set;
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
        old->replaced_us = env_clock_us(storage->env);
        list_push_back(&storage->old_sets, &old->link);
        read_set_unref(&storage->views, old);
    }
}

/* ---- Switching ----------------------------------------------------------------------------------------------- */

bool storage__is_full(const struct storage *storage) {
    return memtable_bytes(storage->active->memtable) >= storage->options.memtable_bytes;
}

/* Damage in a table may keep level 0 from being emptied: then it grows, rather than that writes stop (hazard 50). */
bool storage__can_switch(const struct storage *storage) {
    return storage->full_count < storage->options.immutable_memtables_max &&
           (storage->version->counts[0] < storage->options.l0_files_stop || storage->blocked_count > 0);
}

/* What the active memtable's contents make of the frontier: the last inserted entry, and what the owner of the log
 * says. */
static void capture_frontier(struct storage *storage, struct storage_frontier *frontier) {
    frontier->index = storage->inserted_index;
    frontier->term = storage->inserted_term;
    frontier->horizon = storage_horizon(storage);
    if (storage->options.fill_frontier != NULL) {
        storage->options.fill_frontier(storage->options.context, frontier);
    }
    CHECK(frontier->index == storage->inserted_index && frontier->term == storage->inserted_term);
    CHECK(frontier->membership_len <= LIMIT_MEMBERSHIP_BYTES);
    uint64_t horizon = storage_horizon(storage);
    frontier->horizon = frontier->horizon > horizon ? frontier->horizon : horizon;
    if (storage->digests != NULL) {
        CHECK(storage->digests->newest == frontier->index);
        digest_encode(digest_history_newest(storage->digests), frontier->digest);
    }
}

/* The active memtable becomes immutable, an empty one takes its place. Nothing is published: the old read set shows the
 * same. STATUS_NO_MEMORY: nothing changed. */
static enum status switch_memtable(struct storage *storage) {
    CHECK(storage->started && storage->full_count < storage->options.immutable_memtables_max);
    struct generation *next = storage__generation_new(storage);
    struct read_set *read_set = storage__read_set_new(storage);
    if (next == NULL || read_set == NULL) {
        storage__generation_free(storage, next);
        mem_free(storage->env->alloc, read_set);
        return STATUS_NO_MEMORY;
    }
    struct generation *old = storage->active;
    capture_frontier(storage, &old->frontier);
    old->horizon = storage_horizon(storage);
    old->state = GENERATION_FULL;
    list_push_back(&storage->full, &old->link);
    storage->full_count++;
    storage->switched_index = old->frontier.index;
    next->first_index = old->frontier.index + 1;
    storage__adopt_turn(storage, old);
    storage->active = next;
    storage__set_current(storage, read_set, storage->version);
    return STATUS_OK;
}

void storage__switch_if_wanted(struct storage *storage) {
    if (!storage->flush_wanted || storage->full_count == storage->options.immutable_memtables_max) {
        return;
    }
    bool is_new = storage->inserted_index > storage->switched_index;
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
    return storage->ingest_count == 0 &&
           (!storage->started || !storage__is_full(storage) || storage__can_switch(storage));
}

static enum status apply_failed(enum status status, uint64_t index, struct error *err) {
    const char *what = status == STATUS_NO_MEMORY     ? "no memory"
                       : status == STATUS_UNSUPPORTED ? "the batch is of an unknown version"
                                                      : "the batch is malformed";
    return error_set(err, status, "applying entry %llu: %s", (unsigned long long)index, what);
}

enum status storage_insert(struct storage *storage, uint64_t index, uint64_t term, struct slice batch,
                           struct error *err) {
    CHECK(!storage->closing && index == storage->inserted_index + 1 && term >= storage->inserted_term);
    CHECK(storage->ingest_count == 0);
    if (storage->started && storage__is_full(storage)) {
        CHECK(storage__can_switch(storage));
        if (switch_memtable(storage) != STATUS_OK) {
            return apply_failed(STATUS_NO_MEMORY, index, err);
        }
        storage__schedule(storage);
    }
    struct memtable *memtable = storage->active->memtable;
    struct digest_effects effects;
    enum status status = storage->digests != NULL ? memtable_apply_digested(memtable, index, batch, &effects)
                                                  : memtable_apply(memtable, index, batch);
    if (status != STATUS_OK) {
        return apply_failed(status, index, err);
    }
    if (storage->digests != NULL) {
        digest_history_add(storage->digests, index, term, &effects);
    }
    storage->inserted_index = index;
    storage->inserted_term = term;
    storage->applied_bytes += batch.len;
    storage__adopt_note(storage, storage->active, batch);
    if (storage->started && storage__is_full(storage) && !storage__can_switch(storage)) {
        storage__note_stall(storage);
    }
    return STATUS_OK;
}

/* Shows what was inserted, up to this entry, through a view that was reserved. */
static void show(struct storage *storage, struct storage_view *view, uint64_t index, uint64_t term) {
    storage->applied_term = term;
    view_publish(&storage->views, view, index, storage->read_set);
    atomic_store_explicit(&storage->applied_index, index, memory_order_release);
}

enum status storage_publish(struct storage *storage, uint64_t index, uint64_t term, struct error *err) {
    CHECK(!storage->closing && index <= storage->inserted_index && term <= storage->inserted_term);
    if (storage_applied_index(storage) >= index) {
        return STATUS_OK;
    }
    struct storage_view *view = view_reserve(&storage->views);
    if (view == NULL) {
        return apply_failed(STATUS_NO_MEMORY, index, err);
    }
    show(storage, view, index, term);
    return STATUS_OK;
}

enum status storage_apply(struct storage *storage, uint64_t index, uint64_t term, struct slice batch,
                          struct error *err) {
    struct storage_view *view = view_reserve(&storage->views);
    if (view == NULL) {
        return apply_failed(STATUS_NO_MEMORY, index, err);
    }
    enum status status = storage_insert(storage, index, term, batch, err);
    /* While it catches up, what is shown stays: it is newer. */
    if (status == STATUS_OK && index >= storage_applied_index(storage)) {
        show(storage, view, index, term);
    } else {
        view_unreserve(&storage->views, view);
    }
    return status;
}

void storage_set_durable(struct storage *storage, uint64_t index) {
    if (index > storage->durable_index) {
        storage->durable_index = index;
        if (index >= storage->durable_wanted) {
            storage__schedule(storage);
        }
    }
}

/* ---- What the owner may ask ---------------------------------------------------------------------------------- */

const struct storage_frontier *storage_frontier(const struct storage *storage) { return &storage->frontier; }

uint64_t storage_inserted_index(const struct storage *storage) { return storage->inserted_index; }

uint64_t storage_applied_index(const struct storage *storage) {
    return atomic_load_explicit(&storage->applied_index, memory_order_acquire);
}

uint64_t storage_applied_term(const struct storage *storage) { return storage->applied_term; }

bool storage_digest(const struct storage *storage, uint64_t index, struct digest *ret_digest) {
    return storage->digests != NULL && digest_history_find(storage->digests, index, ret_digest);
}

void storage__begin_digests(struct storage *storage) {
    if (storage->digests != NULL) {
        struct digest digest = digest_decode(storage->frontier.digest);
        digest_history_begin(storage->digests, storage->frontier.index, &digest);
    }
}
