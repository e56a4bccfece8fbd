/* Several lookups at once, so that their blocks are read side by side. */
#include "node/base/check.h"
#include "storage/storage_read_internal.h"

enum status storage_multi_get(struct storage_view *view, struct storage_io *io, uint64_t revision, size_t count,
                              const struct slice *keys, struct storage_value *values, enum status *statuses,
                              struct error *err) {
    CHECK(revision <= view->revision);
    struct fetch blocking;
    struct fetch *fetch = io != NULL ? &io->fetch : &blocking;
    if (io == NULL) {
        storage__fetch_init(fetch, view);
    }
    struct error error;
    bool failed = false;
    bool pending = false;
    enum status readable = storage__check_horizon(view, revision, err);
    for (size_t i = 0; i < count; i++) {
        if (statuses[i] != STATUS_PENDING) {
            continue;
        }
        statuses[i] = readable == STATUS_OK
                          ? storage__get(view, fetch, keys[i], revision, &values[i], failed ? &error : err)
                          : readable;
        pending |= statuses[i] == STATUS_PENDING;
        failed |= statuses[i] != STATUS_OK && statuses[i] != STATUS_NOT_FOUND && statuses[i] != STATUS_PENDING;
    }
    if (!pending) {
        fetch_reset(fetch);
    }
    return pending ? STATUS_PENDING : STATUS_OK;
}
