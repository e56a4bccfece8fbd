/*
 * Walking over changes: the change files of a view's version, then its memtables, oldest first.
 *
 *   FILES --(all read)--> memtable --(all read)--> the next newer one --> ... --> END
 *
 * A version and the memtables of its read set have each entry once, so there is nothing to merge, and nothing to leave
 * out but what lies beyond the view or was not asked for. Any thread, one at a time; it may not block with an io.
 */
#include "node/base/check.h"
#include "storage/change_file.h"
#include "storage/storage_internal.h"
#include "storage/storage_read_internal.h"

enum { TURN_MOVES_MAX = 4096 /* with an io: changes passed over in one call; the thread has others to serve */ };

struct storage_changes {
    struct alloc *alloc;
    struct fetch blocking; /* where the caller gave no io */
    struct fetch *fetch;
    const struct read_set *read_set;
    uint64_t from;
    uint64_t until;
    uint64_t done; /* every entry up to here */
    struct slice lower;
    struct slice upper;
    bool in_memtable; /* `memory` is of a memtable */
    size_t older;     /* memtables that come after it: the first so many of the read set */
    struct memtable_changes memory;
    struct change_walk files;
};

uint64_t storage_view_changes_oldest(const struct storage_view *view) {
    return storage__changes_oldest(view->read_set->version);
}

enum status storage_changes_new(struct storage_view *view, struct storage_io *io,
                                const struct storage_changes_options *options, struct storage_changes **ret_changes,
                                struct error *err) {
    const struct read_set *read_set = view->read_set;
    struct alloc *alloc = view->publisher->alloc;
    uint64_t oldest = storage_view_changes_oldest(view);
    uint64_t until = options->until != 0 ? options->until : view->revision;
    CHECK(until <= view->revision && options->from >= 1 && options->from <= view->revision + 1);
    if (options->from < oldest) {
        return error_set(err, STATUS_COMPACTED, "changes of revision %llu are gone: they begin with %llu",
                         (unsigned long long)options->from, (unsigned long long)oldest);
    }
    struct storage_changes *changes = mem_alloc(alloc, sizeof *changes);
    if (changes == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to walk over changes");
    }
    changes->alloc = alloc;
    changes->fetch = io != NULL ? &io->fetch : &changes->blocking;
    if (io == NULL) {
        storage__fetch_init(&changes->blocking, view);
    }
    changes->read_set = read_set;
    changes->from = options->from;
    changes->until = until;
    changes->done = options->from - 1;
    changes->lower = options->lower;
    changes->upper = options->upper;
    changes->in_memtable = false;
    changes->older = read_set->generation_count;
    change_walk_init(&changes->files, changes->fetch, read_set->version->change_files,
                     read_set->version->change_file_count, options->from);
    *ret_changes = changes;
    return STATUS_OK;
}

void storage_changes_free(struct storage_changes *changes) {
    if (changes != NULL) {
        change_walk_deinit(&changes->files);
        fetch_reset(changes->fetch);
        mem_free(changes->alloc, changes);
    }
}

/* The next change of the memtables. */
static enum status next_in_memory(struct storage_changes *changes, struct change *ret_change) {
    for (;;) {
        if (changes->in_memtable && memtable_changes_next(&changes->memory, ret_change)) {
            return STATUS_OK;
        }
        if (changes->older == 0) {
            changes->in_memtable = false;
            return STATUS_NOT_FOUND;
        }
        changes->older--;
        memtable_changes_seek(changes->read_set->generations[changes->older]->memtable, changes->from,
                              &changes->memory);
        changes->in_memtable = true;
    }
}

static enum status next_of_all(struct storage_changes *changes, struct change *ret_change, struct error *err) {
    enum status status = STATUS_NOT_FOUND;
    if (changes->files.file < changes->files.file_count) {
        status = change_walk_next(&changes->files, err);
        if (status == STATUS_OK) {
            *ret_change = changes->files.reader.change;
        } else if (status == STATUS_NOT_FOUND) {
            fetch_reset(changes->fetch);
        }
    }
    return status == STATUS_NOT_FOUND ? next_in_memory(changes, ret_change) : status;
}

enum status storage_changes_next(struct storage_changes *changes, struct change *ret_change, struct error *err) {
    bool may_pause = changes->fetch->options.loop != NULL;
    for (unsigned moves = 0; changes->done < changes->until; moves++) {
        struct change change;
        if (may_pause && moves == TURN_MOVES_MAX) {
            return STATUS_PENDING;
        }
        enum status status = next_of_all(changes, &change, err);
        if (status == STATUS_NOT_FOUND) {
            break;
        }
        if (status != STATUS_OK) {
            return status;
        }
        if (change.revision > changes->until) {
            break;
        }
        changes->done = change.revision - 1;
        if (change_meets(&change, changes->lower, changes->upper)) {
            *ret_change = change;
            return STATUS_OK;
        }
    }
    changes->done = changes->until > changes->done ? changes->until : changes->done;
    return STATUS_NOT_FOUND;
}

uint64_t storage_changes_done(const struct storage_changes *changes) { return changes->done; }
