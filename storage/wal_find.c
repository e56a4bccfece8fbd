/*
 * Recovery, first part: which segment files there are, and which of them make up the log.
 *
 * Each segment's start group names the segment before it and where that one's groups end. So the newest segment with a
 * good start group leads back to all the others, and says to the byte how far each of them counts: what a crash left
 * behind that point is not looked at. Files behind the newest are prepared segments (or the torn start of one). Files
 * that the chain doesn't name were given up by an earlier recovery or a deletion.
 *
 * The chain may end early, where old segments were deleted, if all that is missing lies at or below the frontier.
 */
#include "storage/wal_internal.h"

#include <stdio.h>

enum { FOUND_MIN = 16 };

void wal__fault(struct wal__recovery *recovery, size_t position, uint64_t number, uint64_t offset, const char *what) {
    struct wal_fault *fault = &recovery->out->fault;
    if (fault->present) {
        return; /* the first one says it */
    }
    fault->present = true;
    recovery->hole = position;
    (void)snprintf(fault->where, sizeof fault->where, "%016llx.log at %llu: %s", (unsigned long long)number,
                   (unsigned long long)offset, what);
}

/* ---- Listing ---------------------------------------------------------------------------------------------------- */

static enum status collect(void *context, const char *name) {
    struct wal__names *names = context;
    uint64_t number;
    if (!wal__segment_parse_name(name, names->suffix, &number) || number == 0) {
        return STATUS_OK;
    }
    if (names->count == names->capacity) {
        size_t capacity = names->capacity == 0 ? FOUND_MIN : names->capacity * 2;
        uint64_t *numbers = mem_resize(names->alloc, names->numbers, capacity * sizeof *numbers);
        if (numbers == NULL) {
            return STATUS_NO_MEMORY;
        }
        names->numbers = numbers;
        names->capacity = capacity;
    }
    names->numbers[names->count++] = number;
    return STATUS_OK;
}

enum status wal__list_numbers(struct wal *wal, struct wal__names *names, const char *suffix, struct error *err) {
    *names = (struct wal__names){.alloc = wal->alloc, .suffix = suffix};
    enum status status = env_list_dir(wal->env, wal->dir, collect, names, err);
    if (status == STATUS_NO_MEMORY) {
        (void)error_set(err, status, "no memory to list the log's segments");
    }
    return status;
}

static enum status remove_temporary(struct wal *wal, struct error *err) {
    struct wal__names names;
    enum status status = wal__list_numbers(wal, &names, ".tmp", err);
    for (size_t i = 0; status == STATUS_OK && i < names.count; i++) {
        char path[LIMIT_PATH_BYTES];
        wal__segment_path(path, wal->dir, names.numbers[i], ".tmp");
        status = env_unlink(wal->env, path, err);
    }
    mem_free(wal->alloc, names.numbers);
    return status;
}

/* ---- Looking at one file ---------------------------------------------------------------------------------------- */

static enum status check_owner(struct wal__recovery *recovery, const struct wal__segment_header *header,
                               const struct wal__segment *segment) {
    const struct wal_options *options = &recovery->wal->options;
    const char *path = env_file_path(segment->file);
    if (memcmp(header->cluster_id, options->cluster_id, WAL_CLUSTER_ID_BYTES) != 0) {
        return error_set(recovery->err, STATUS_INVALID, "%s belongs to another cluster", path);
    }
    if (header->node_id != options->node_id) {
        return error_set(recovery->err, STATUS_INVALID, "%s belongs to node %llu, this is node %llu", path,
                         (unsigned long long)header->node_id, (unsigned long long)options->node_id);
    }
    return STATUS_OK;
}

/* All segments of a log say the same. Two that don't were never parts of one. */
static enum status check_incarnation(struct wal__recovery *recovery, const struct wal__segment_header *header,
                                     const struct wal__segment *segment) {
    struct wal *wal = recovery->wal;
    if (wal->incarnation != 0 && header->incarnation != wal->incarnation) {
        return error_set(recovery->err, STATUS_INVALID,
                         "%s belongs to incarnation %016llx of this node's log, and others to %016llx",
                         env_file_path(segment->file), (unsigned long long)header->incarnation,
                         (unsigned long long)wal->incarnation);
    }
    wal->incarnation = header->incarnation;
    return STATUS_OK;
}

uint64_t wal__draw_incarnation(struct env *env) {
    uint64_t incarnation = env_random(env);
    return incarnation != 0 ? incarnation : 1;
}

/* The carried group was written together with the start group: the segment counts only with both. */
static enum status inspect_carried(struct wal__recovery *recovery, struct wal__found *found) {
    struct wal__group_view view;
    enum wal__verdict verdict;
    wal__scanner_set_file(&recovery->scanner, found->segment, WAL_SCAN_BYTES);
    enum status status = wal__scan_group(&recovery->scanner, WAL_FIRST_RECORDS_OFFSET, found->segment->generation,
                                         &verdict, &view, recovery->err);
    bool good = status == STATUS_OK && verdict == WAL__GROUP_GOOD && (view.header.flags & WAL__GROUP_CARRY) != 0 &&
                view.header.record_count > 0 && view.header.previous_checksum == found->start.checksum;
    if (status == STATUS_OK && !good) {
        found->start_verdict = WAL__GROUP_BAD_BODY;
    }
    return status;
}

/* Header block and start group. A file without a good header keeps header_good false; what it means is judged later. */
static enum status inspect(struct wal__recovery *recovery, struct wal__found *found) {
    struct wal__segment *segment = found->segment;
    struct slice head;
    wal__scanner_set_file(&recovery->scanner, segment, WAL_FIRST_RECORDS_OFFSET);
    enum status status = wal__scanner_view(&recovery->scanner, 0, WAL_SEGMENT_HEADER_BYTES, &head, recovery->err);
    if (status != STATUS_OK || head.len < WAL_SEGMENT_HEADER_BYTES) {
        return status;
    }
    struct wal__segment_header header;
    status = wal__segment_header_decode(head.data, &header);
    if (status == STATUS_UNSUPPORTED) {
        return error_set(recovery->err, status, "%s is of a newer format", env_file_path(segment->file));
    }
    if (status != STATUS_OK || header.number != segment->number) {
        return STATUS_OK;
    }
    status = check_owner(recovery, &header, segment);
    if (status == STATUS_OK) {
        status = check_incarnation(recovery, &header, segment);
    }
    if (status != STATUS_OK) {
        return status;
    }
    found->header_good = true;
    segment->generation = header.generation;
    segment->recycled = header.recycled;
    struct wal__group_view view;
    status = wal__scan_group(&recovery->scanner, WAL_SEGMENT_HEADER_BYTES, header.generation, &found->start_verdict,
                             &view, recovery->err);
    if (status != STATUS_OK || found->start_verdict == WAL__GROUP_BAD_HEADER) {
        return status;
    }
    if ((view.header.flags & WAL__GROUP_FIRST) == 0 || view.header.total_bytes > WAL_START_GROUP_BYTES ||
        view.header.previous_segment >= segment->number) {
        found->start_verdict = WAL__GROUP_BAD_HEADER; /* sound, yet not what belongs here */
        return STATUS_OK;
    }
    found->start = view.header;
    if (found->start_verdict == WAL__GROUP_GOOD && (view.header.flags & WAL__GROUP_CARRY) != 0) {
        status = inspect_carried(recovery, found);
    }
    return status;
}

static enum status open_found(struct wal__recovery *recovery, struct wal__found *found, uint64_t number) {
    CHECK(found != NULL);
    struct wal *wal = recovery->wal;
    char path[LIMIT_PATH_BYTES];
    struct wal__segment *segment = wal__segment_new(wal);
    if (segment == NULL) {
        return error_set(recovery->err, STATUS_NO_MEMORY, "no memory to open a log segment");
    }
    *found = (struct wal__found){.segment = segment, .start_verdict = WAL__GROUP_BAD_HEADER};
    segment->number = number;
    wal__segment_path(path, wal->dir, number, "");
    enum status status =
        env_open(wal->env, path, ENV_OPEN_READ | ENV_OPEN_WRITE | ENV_OPEN_DIRECT, &segment->file, recovery->err);
    if (status == STATUS_OK) {
        status = env_size(segment->file, &segment->bytes, recovery->err);
    }
    return status == STATUS_OK ? inspect(recovery, found) : status;
}

/* ---- The chain -------------------------------------------------------------------------------------------------- */

static size_t find_number(const struct wal__recovery *recovery, uint64_t number) {
    for (size_t i = recovery->found_count; i-- > 0;) {
        if (recovery->found[i].segment->number == number) {
            return i;
        }
    }
    return recovery->found_count;
}

/* From the newest start group backwards. */
void wal__find_chain(struct wal__recovery *recovery, size_t limit) {
    size_t at = limit;
    while (at > 0 && recovery->found[at - 1].start_verdict != WAL__GROUP_GOOD) {
        at--;
    }
    if (at == 0) {
        recovery->newest = recovery->found_count;
        return;
    }
    at--;
    recovery->newest = at;
    for (;;) {
        struct wal__found *found = &recovery->found[at];
        const struct wal__group_header *start = &found->start;
        found->on_chain = true;
        recovery->oldest = at;
        if (start->previous_segment == 0 || (start->flags & WAL__GROUP_RESET) != 0) {
            return; /* the log begins here */
        }
        size_t previous = find_number(recovery, start->previous_segment);
        if (previous == recovery->found_count) {
            if (start->synced_index > recovery->frontier->index) {
                wal__fault(recovery, at, start->previous_segment, 0, "the segment is missing");
                recovery->out->fault.first_index = recovery->frontier->index + 1;
                recovery->out->fault.last_index = start->synced_index;
            }
            return; /* else deleted, as it may be */
        }
        if (recovery->found[previous].start_verdict != WAL__GROUP_GOOD) {
            wal__fault(recovery, previous, start->previous_segment, WAL_SEGMENT_HEADER_BYTES,
                       "the segment's head is damaged");
            recovery->out->fault.last_index = start->synced_index;
            return;
        }
        recovery->found[previous].end = start->previous_end;
        at = previous;
    }
}

enum status wal__find_segments(struct wal__recovery *recovery) {
    struct wal *wal = recovery->wal;
    struct wal__names names = {.numbers = NULL};
    enum status status = remove_temporary(wal, recovery->err);
    if (status == STATUS_OK) {
        status = wal__find_faulty(recovery);
    }
    if (status == STATUS_OK) {
        status = wal__list_numbers(wal, &names, "", recovery->err);
    }
    if (status == STATUS_OK && names.count > 0) {
        recovery->found = mem_alloc_zero(wal->alloc, names.count * sizeof *recovery->found);
        if (recovery->found == NULL) {
            status = error_set(recovery->err, STATUS_NO_MEMORY, "no memory to open the log's segments");
        }
    }
    wal->next_number = 1;
    for (size_t i = 0; status == STATUS_OK && i < names.count; i++) {
        /* Counted first: a half-opened one is given up by the caller too. */
        recovery->found_count++;
        status = open_found(recovery, &recovery->found[i], names.numbers[i]);
        wal->next_number = names.numbers[i] + 1;
    }
    mem_free(wal->alloc, names.numbers);
    if (status == STATUS_OK) {
        wal__find_chain(recovery, recovery->found_count);
    }
    return status;
}
