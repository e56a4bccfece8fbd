/* Split reference counting of views. The argument is in view.h. */
#include "storage/view.h"

#include "node/base/check.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

#define OWNER_COUNT ((int64_t)1 << 50)
#define COUNT_MASK  (((uint64_t)1 << VIEW_COUNT_BITS) - 1)

static_assert(VIEW_SLABS_MAX * VIEW_SLAB_VIEWS == 1 << (64 - VIEW_COUNT_BITS), "a slot must fill its bits");

/* ---- Stacks: pushed by anybody, emptied as a whole by the owner ---------------------------------------------- */

static void push_returned(struct view_publisher *publisher, struct storage_view *view) {
    struct storage_view *head = atomic_load_explicit(&publisher->returned, memory_order_relaxed);
    do {
        view->next_free = head;
    } while (!atomic_compare_exchange_weak_explicit(&publisher->returned, &head, view, memory_order_release,
                                                    memory_order_relaxed));
}

static void push_dead(struct view_publisher *publisher, struct read_set *read_set) {
    struct read_set *head = atomic_load_explicit(&publisher->dead_sets, memory_order_relaxed);
    do {
        read_set->next_dead = head;
    } while (!atomic_compare_exchange_weak_explicit(&publisher->dead_sets, &head, read_set, memory_order_release,
                                                    memory_order_relaxed));
}

void read_set_unref(struct view_publisher *publisher, struct read_set *read_set) {
    uint64_t before = atomic_fetch_sub_explicit(&read_set->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before == 1) {
        push_dead(publisher, read_set);
        publisher->dead(publisher);
    }
}

/* Nobody holds it: the last one of owner and readers is here. */
static void recycle(struct storage_view *view) {
    struct view_publisher *publisher = view->publisher;
    struct read_set *read_set = view->read_set;
    view->read_set = NULL;
    push_returned(publisher, view);
    read_set_unref(publisher, read_set);
}

/* ---- Owner --------------------------------------------------------------------------------------------------- */

void view_publisher_init(struct view_publisher *publisher, struct alloc *alloc, struct storage *storage,
                         void (*dead)(struct view_publisher *publisher)) {
    atomic_init(&publisher->word, 0);
    atomic_init(&publisher->returned, NULL);
    atomic_init(&publisher->dead_sets, NULL);
    publisher->alloc = alloc;
    publisher->storage = storage;
    publisher->dead = dead;
    publisher->free = NULL;
    publisher->published = NULL;
    publisher->slab_count = 0;
}

void view_publisher_deinit(struct view_publisher *publisher) {
    CHECK(publisher->published == NULL && view_count_held(publisher) == 0);
    for (uint32_t i = 0; i < publisher->slab_count; i++) {
        mem_free(publisher->alloc, publisher->slabs[i]);
    }
    publisher->slab_count = 0;
    publisher->free = NULL;
}

static bool add_slab(struct view_publisher *publisher) {
    if (publisher->slab_count == VIEW_SLABS_MAX) {
        return false;
    }
    struct storage_view *slab = mem_alloc_zero(publisher->alloc, VIEW_SLAB_VIEWS * sizeof *slab);
    if (slab == NULL) {
        return false;
    }
    for (uint32_t i = VIEW_SLAB_VIEWS; i-- > 0;) {
        atomic_init(&slab[i].count, 0);
        slab[i].publisher = publisher;
        slab[i].slot = publisher->slab_count * VIEW_SLAB_VIEWS + i;
        slab[i].next_free = publisher->free;
        publisher->free = &slab[i];
    }
    publisher->slabs[publisher->slab_count++] = slab;
    return true;
}

struct storage_view *view_reserve(struct view_publisher *publisher) {
    if (publisher->free == NULL) {
        publisher->free = atomic_exchange_explicit(&publisher->returned, NULL, memory_order_acquire);
    }
    if (publisher->free == NULL && !add_slab(publisher)) {
        return NULL;
    }
    struct storage_view *view = publisher->free;
    publisher->free = view->next_free;
    CHECK(view->read_set == NULL);
    return view;
}

void view_unreserve(struct view_publisher *publisher, struct storage_view *view) {
    if (view != NULL) {
        view->next_free = publisher->free;
        publisher->free = view;
    }
}

/* The view is not in the word any more, and this many had taken it. */
static void let_go(struct storage_view *view, uint64_t taken) {
    int64_t change = (int64_t)taken - OWNER_COUNT;
    int64_t after = atomic_fetch_add_explicit(&view->count, change, memory_order_acq_rel) + change;
    CHECK(after >= 0);
    if (after == 0) {
        recycle(view);
    }
}

void view_publish(struct view_publisher *publisher, struct storage_view *view, uint64_t revision,
                  struct read_set *read_set) {
    view->revision = revision;
    view->read_set = read_set;
    atomic_fetch_add_explicit(&read_set->refs, 1, memory_order_relaxed);
    atomic_store_explicit(&view->count, OWNER_COUNT, memory_order_relaxed);
    uint64_t word = (uint64_t)view->slot << VIEW_COUNT_BITS;
    uint64_t old = atomic_exchange_explicit(&publisher->word, word, memory_order_acq_rel);
    struct storage_view *previous = publisher->published;
    publisher->published = view;
    if (previous != NULL) {
        CHECK(old >> VIEW_COUNT_BITS == previous->slot);
        let_go(previous, old & COUNT_MASK);
    }
}

void view_retract(struct view_publisher *publisher) {
    CHECK(publisher->published != NULL);
    struct storage_view *view = publisher->published;
    uint64_t old = atomic_exchange_explicit(&publisher->word, 0, memory_order_acq_rel);
    publisher->published = NULL;
    let_go(view, old & COUNT_MASK);
}

struct read_set *view_collect_dead(struct view_publisher *publisher) {
    return atomic_exchange_explicit(&publisher->dead_sets, NULL, memory_order_acquire);
}

uint64_t view_count_held(const struct view_publisher *publisher) {
    int64_t held = 0;
    for (uint32_t slab = 0; slab < publisher->slab_count; slab++) {
        for (uint32_t i = 0; i < VIEW_SLAB_VIEWS; i++) {
            held += atomic_load_explicit(&publisher->slabs[slab][i].count, memory_order_relaxed);
        }
    }
    if (publisher->published != NULL) {
        uint64_t word = atomic_load_explicit(&publisher->word, memory_order_relaxed);
        held += (int64_t)(word & COUNT_MASK) - OWNER_COUNT;
    }
    return held > 0 ? (uint64_t)held : 0;
}

/* ---- Any thread ---------------------------------------------------------------------------------------------- */

struct storage_view *view_take(struct view_publisher *publisher) {
    uint64_t word = atomic_fetch_add_explicit(&publisher->word, 1, memory_order_acquire);
    uint32_t slot = (uint32_t)(word >> VIEW_COUNT_BITS);
    return &publisher->slabs[slot / VIEW_SLAB_VIEWS][slot % VIEW_SLAB_VIEWS];
}

/* The holder's own count keeps it above zero, so there is nothing to order. */
void view_hold(struct storage_view *view) { (void)atomic_fetch_add_explicit(&view->count, 1, memory_order_relaxed); }

void view_release(struct storage_view *view) {
    int64_t after = atomic_fetch_sub_explicit(&view->count, 1, memory_order_acq_rel) - 1;
    CHECK(after >= 0);
    if (after == 0) {
        recycle(view);
    }
}
