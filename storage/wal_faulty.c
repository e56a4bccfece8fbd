/*
 * Segments that were damaged, or stood behind damage: kept under another name until the log is whole again, so that
 * nothing that may be the only copy of something is thrown away, and an operator can look.
 *
 *   0123456789abcdef.log --damage found--> 0123456789abcdef.log.faulty --wal_healed--> removed by the delete job
 *
 * They are no part of the log. At most WAL_FAULTY_MAX of them are kept: beyond that the oldest go when a log is opened.
 *
 * Owner: recovery's worker, then the loop.
 */
#include "storage/wal_internal.h"

static enum status look_at(struct wal *wal, uint64_t number, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    struct env_file *file = NULL;
    struct wal__segment *segment = wal__segment_new(wal);
    if (segment == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to list damaged log segments");
    }
    segment->number = number;
    segment->faulty = true;
    list_push_back(&wal->faulty, &segment->link);
    wal__segment_path(path, wal->dir, number, WAL_FAULTY_SUFFIX);
    enum status status = env_open(wal->env, path, ENV_OPEN_READ, &file, err);
    if (status == STATUS_OK) {
        status = env_size(file, &segment->bytes, err);
        env_close(file);
    }
    return status;
}

enum status wal__find_faulty(struct wal__recovery *recovery) {
    struct wal *wal = recovery->wal;
    struct wal__names names;
    enum status status = wal__list_numbers(wal, &names, WAL_FAULTY_SUFFIX, recovery->err);
    size_t surplus = names.count > WAL_FAULTY_MAX ? names.count - WAL_FAULTY_MAX : 0;
    for (size_t i = 0; status == STATUS_OK && i < names.count; i++) {
        if (i >= surplus) {
            status = look_at(wal, names.numbers[i], recovery->err);
            continue;
        }
        char path[LIMIT_PATH_BYTES];
        wal__segment_path(path, wal->dir, names.numbers[i], WAL_FAULTY_SUFFIX);
        status = env_unlink(wal->env, path, recovery->err);
    }
    mem_free(wal->alloc, names.numbers);
    return status;
}

enum status wal__set_faulty(struct wal__recovery *recovery, struct wal__found *found) {
    struct wal *wal = recovery->wal;
    struct wal__segment *segment = found->segment;
    char path[LIMIT_PATH_BYTES];
    char aside[LIMIT_PATH_BYTES];
    wal__segment_path(path, wal->dir, segment->number, "");
    wal__segment_path(aside, wal->dir, segment->number, WAL_FAULTY_SUFFIX);
    enum status status = env_rename(wal->env, path, aside, recovery->err);
    if (status == STATUS_OK) {
        wal__segment_close(segment);
        segment->faulty = true;
        list_push_back(&wal->faulty, &segment->link);
        found->segment = NULL;
    }
    return status;
}

void wal_healed(struct wal *wal) {
    CHECK(wal->started);
    wal->heal_index = 0;
    wal->heal_term = 0;
    if (!list_is_empty(&wal->faulty) && !wal->closing && !wal->failed) {
        list_splice_back(&wal->doomed, &wal->faulty);
        wal->giving_space = true;
        wal__delete_more(wal);
    }
}
