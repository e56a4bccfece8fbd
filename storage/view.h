/*
 * Views: how a thread gets hold of the newest state without a lock, and how the owner learns that nobody holds an old
 * one.
 *
 *   publisher.word = slot of the published view (20 bits) | times it was taken since (44 bits)
 *
 *   view      one applied revision: the newest that its holder may see. Counted, made by the owner with every applied
 * entry read set  memtables and a version; shared by all views between two switches. Counted by its views
 *
 * Taking a view is one fetch-add on the word: it names the view and counts the taker in one step, so the view can't be
 * recycled in between. This is split reference counting (as in Anthony Williams, "C++ Concurrency in Action", 7.2.4):
 * takers count in the word, releasers in the view. When the owner publishes another view it exchanges the word and
 * moves what takers had counted there into the view's own count, which it had held above zero by OWNER_COUNT until
 * then:
 *
 *   count = OWNER_COUNT - releases        while published
 *   count = takers - releases             afterwards; whoever brings it to zero, owner or reader, recycles the view
 *
 * Ordering. The owner fills a view and its read set, and links the memtable's nodes of that revision, before the
 * exchange (release); a taker's fetch-add (acquire) sees all of it. A release of a view is acq_rel on the count, so the
 * one who recycles it has every reader's accesses behind him. A view published with a switched memtable names the new
 * read set in the same word: no taker can see a new revision with an old set of memtables or the other way round.
 *
 * The slot table only grows and its entries are written before their slot is first published. 44 bits: ten million
 * takes a second for twenty days without a single applied entry.
 *
 * Recycled views go to a lock-free stack that the owner empties as a whole (no ABA); the last view of a read set sends
 * it to a second such stack and calls `dead`, for the owner to take apart on its loop. Owner: one thread. Takers and
 * releasers: any.
 */
#ifndef HOLDFAST_STORAGE_VIEW_H
#define HOLDFAST_STORAGE_VIEW_H

#include "node/base/alloc.h"
#include "node/base/list.h"

#include <stdatomic.h>
#include <stdint.h>

struct generation;
struct version;
struct storage;

enum {
    VIEW_SLABS_MAX = 1024,
    VIEW_SLAB_VIEWS = 1024,
    VIEW_COUNT_BITS = 44 /* the slot has the other 20 */
};

/* Immutable once published, but for what is the owner's. */
struct read_set {
    _Atomic uint64_t refs; /* views, and the owner while it is the current one */
    struct read_set *next_dead;
    struct version *version;
    struct list link;     /* the owner's: of those that were replaced */
    uint64_t replaced_us; /* the owner's: when it was; env clock */
    size_t generation_count;
    struct generation *generations[]; /* memtables, newest first; the first is the active one */
};

struct storage_view {
    _Atomic int64_t count;
    uint64_t revision;
    struct read_set *read_set; /* NULL: not in use */
    struct view_publisher *publisher;
    struct storage_view *next_free;
    uint32_t slot;
};

struct view_publisher {
    _Alignas(64) _Atomic uint64_t word;
    _Alignas(64) _Atomic(struct storage_view *) returned; /* recycled by anybody */
    _Atomic(struct read_set *) dead_sets;
    struct storage *storage;
    /* Any thread: a read set was put on dead_sets. */
    void (*dead)(struct view_publisher *publisher);
    /* The owner's: */
    struct alloc *alloc;
    struct storage_view *free;
    struct storage_view *published;
    uint32_t slab_count;
    struct storage_view *slabs[VIEW_SLABS_MAX];
};

/* Nothing is published yet: no view may be taken. */
void view_publisher_init(struct view_publisher *publisher, struct alloc *alloc, struct storage *storage,
                         void (*dead)(struct view_publisher *publisher));
/* All views must be back (CHECK). */
void view_publisher_deinit(struct view_publisher *publisher);

/* Owner: an unused view, or NULL: out of memory, or a million are held. */
struct storage_view *view_reserve(struct view_publisher *publisher);
/* Owner: gives an unused one back. NULL is accepted. */
void view_unreserve(struct view_publisher *publisher, struct storage_view *view);
/* Owner: makes it the one that is taken from now on. Takes the view; references the read set. The previous one is let
 * go. */
void view_publish(struct view_publisher *publisher, struct storage_view *view, uint64_t revision,
                  struct read_set *read_set);
/* Owner: nothing is published any more; view_take is illegal from here on. */
void view_retract(struct view_publisher *publisher);
/* Owner: the read sets that nobody holds, chained by next_dead. */
struct read_set *view_collect_dead(struct view_publisher *publisher);
/* Owner: how many views are held now. */
uint64_t view_count_held(const struct view_publisher *publisher);

/* Any thread. */
struct storage_view *view_take(struct view_publisher *publisher);
void view_release(struct storage_view *view);
/* Whoever holds it holds it once more: it is released as often. */
void view_hold(struct storage_view *view);

/* Any thread that holds a reference: drops one. */
void read_set_unref(struct view_publisher *publisher, struct read_set *read_set);

#endif
