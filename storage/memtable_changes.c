/*
 * A memtable in the order of the log. Its records are made in that order and never move, so walking over their memory
 * is all there is to it: nothing is stored for it but which record is the last.
 *
 * A record is whole before `last` names it or a later one (release), and doesn't change afterwards.
 */
#include "node/base/check.h"
#include "storage/memtable_internal.h"

static const struct memtable_record *at(const struct heap_walk *walk) {
    return (const struct memtable_record *)(const void *)walk->at;
}

static void step(struct memtable_changes *changes) {
    const struct memtable_record *record = at(&changes->walk);
    if (record == changes->last) {
        changes->last = NULL;
    } else {
        heap_walk_next(&changes->walk, &changes->memtable->records, record_size(record->key_len, record->value_len));
    }
}

void memtable_changes_seek(const struct memtable *memtable, uint64_t revision, struct memtable_changes *ret_changes) {
    struct memtable_changes changes = {.memtable = memtable,
                                       .last = atomic_load_explicit(&memtable->last, memory_order_acquire)};
    if (changes.last != NULL && changes.last->revision < revision) {
        changes.last = NULL;
    }
    if (changes.last != NULL) {
        heap_walk_first(&memtable->records, &changes.walk);
        struct heap_walk ahead = changes.walk;
        while (heap_walk_chunk(&ahead, changes.last) && at(&ahead)->revision < revision) {
            changes.walk = ahead;
        }
        while (at(&changes.walk)->revision < revision) {
            CHECK(changes.last != NULL);
            step(&changes);
        }
    }
    *ret_changes = changes;
}

bool memtable_changes_next(struct memtable_changes *changes, struct change *ret_change) {
    if (changes->last == NULL) {
        return false;
    }
    const struct memtable_record *record = at(&changes->walk);
    *ret_change = (struct change){.revision = record->revision,
                                  .ordinal = record->ordinal,
                                  .kind = (enum batch_kind)record->kind,
                                  .key = record_key(record)};
    if (record->kind == BATCH_DELETE_RANGE) {
        ret_change->end = slice_of(record->bytes + record->key_len, record->value_len);
    }
    step(changes);
    return true;
}
