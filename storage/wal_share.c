/*
 * The log's segments as files that hold large values (log_share.h).
 *
 * Each segment keeps a list of its large records, by index: made when a group is sealed, shortened when the log is cut,
 * freed with the segment. Only of groups that this life of the log wrote: what an earlier one left is replayed, and
 * copied by the flush that follows. A list that finds no memory just stays short; those values are copied, too.
 *
 * A turn. Where the owner wants a segment to end (turn), groups with records behind that place wait for nothing: as
 * soon as a segment is prepared, the next of them opens it. Without such a group the start group goes out alone. A
 * group that stands across the place stays in the old segment, which then holds records of a later time, too: they are
 * the log's alone.
 *
 * What is lent is never written to again: it isn't the active segment, recovery cuts only the newest one behind its
 * groups, and the log deletes its own name as always. What is lent and not given back keeps its file from being used
 * for another segment.
 */
#include "node/base/checksum.h"
#include "storage/wal_internal.h"

enum { RECORDS_MIN = 64 };

/* ---- Lists ------------------------------------------------------------------------------------------------------ */

static bool reserve(struct wal *wal, struct wal__segment *segment) {
    if (segment->large_count < segment->large_capacity) {
        return true;
    }
    uint32_t capacity = segment->large_capacity == 0 ? RECORDS_MIN : 2 * segment->large_capacity;
    struct log_record *records = mem_resize(wal->alloc, segment->large, capacity * sizeof *records);
    if (records == NULL) {
        return false;
    }
    segment->large = records;
    segment->large_capacity = capacity;
    return true;
}

void wal__share_note(struct wal *wal, struct wal__segment *segment, const struct wal__group *group, uint64_t offset) {
    for (uint32_t i = 0; group->large_bytes > 0 && i < group->count; i++) {
        const struct wal_record record = wal__record_at(group->buffer->data + group->offsets[i]);
        if (wal__is_large(wal, record.payload.len) && reserve(wal, segment)) {
            CHECK(segment->large_count == 0 || segment->large[segment->large_count - 1].index < record.index);
            segment->large[segment->large_count++] = (struct log_record){.index = record.index,
                                                                         .offset = offset + group->offsets[i],
                                                                         .bytes = (uint32_t)record.bytes.len};
            segment->large_bytes += record.bytes.len;
        }
    }
}

void wal__share_cut(struct wal *wal, uint64_t index) {
    for (struct list *link = wal->segments.prev; link != &wal->segments; link = link->prev) {
        struct wal__segment *segment = LIST_ENTRY(link, struct wal__segment, link);
        while (segment->large_count > 0 && segment->large[segment->large_count - 1].index >= index) {
            segment->large_bytes -= segment->large[--segment->large_count].bytes;
        }
        if (segment->large_count > 0) {
            return;
        }
    }
}

void wal__share_forget(struct wal *wal, struct wal__segment *segment) {
    mem_free(wal->alloc, segment->large);
    segment->large = NULL;
    segment->large_count = 0;
    segment->large_capacity = 0;
}

/* ---- The turn --------------------------------------------------------------------------------------------------- */

bool wal__turn_is_due(const struct wal *wal) {
    if (!wal->turn_wanted || wal->prepared_count == 0 || wal->prepare.failing) {
        return false; /* on a full disk the active segment's room is needed */
    }
    return list_is_empty(&wal->pending) ||
           LIST_ENTRY(wal->pending.next, struct wal__group, link)->first_index > wal->turn_index;
}

void wal__turned(struct wal *wal, struct wal__segment *previous) {
    previous->last_checksum = wal->chain;
    wal->lends = previous->large_bytes >= previous->end / 2;
    if (wal->sealed_index >= wal->turn_index) {
        wal->turn_wanted = false;
    }
}

static void turn(void *log) {
    struct wal *wal = log;
    if (wal->failed || wal->closing || wal->last_index == 0) {
        return;
    }
    wal->turn_wanted = true;
    wal->turn_index = wal->last_index;
    wal->lends = true;
    wal__prepare_more(wal);
    wal__wake_writer(wal);
}

static bool is_turned(void *log, uint64_t index) {
    const struct wal *wal = log;
    size_t at = wal__index_find(&wal->index, index);
    return index <= wal->synced_index &&
           (at == wal->index.count || wal__index_at(&wal->index, at)->segment != wal->active);
}

/* ---- Lending ---------------------------------------------------------------------------------------------------- */

/* How many of its records are in first..last, and where they begin. */
static size_t records_between(const struct wal__segment *segment, uint64_t first_index, uint64_t last_index,
                              size_t *ret_start) {
    size_t start = 0;
    size_t end = segment->large_count;
    while (start < end && segment->large[start].index < first_index) {
        start++;
    }
    while (end > start && segment->large[end - 1].index > last_index) {
        end--;
    }
    *ret_start = start;
    return end - start;
}

static bool can_be_lent(const struct wal *wal, const struct wal__segment *segment, uint64_t first_index,
                        uint64_t last_index) {
    size_t start;
    return segment != wal->active && segment->written_end == segment->end && segment->last_checksum != 0 &&
           records_between(segment, first_index, last_index, &start) > 0;
}

static enum status lend(struct wal *wal, struct wal__segment *segment, uint64_t first_index, uint64_t last_index,
                        struct log_segment *ret_segment) {
    size_t start;
    size_t count = records_between(segment, first_index, last_index, &start);
    struct log_record *records = mem_alloc(wal->alloc, count * sizeof *records);
    if (records == NULL) {
        return STATUS_NO_MEMORY;
    }
    memcpy(records, segment->large + start, count * sizeof *records);
    *ret_segment = (struct log_segment){.number = segment->number,
                                        .size_bytes = segment->end,
                                        .checksum = segment->last_checksum,
                                        .records = records,
                                        .record_count = count};
    wal__segment_path(ret_segment->path, wal->dir, segment->number, "");
    segment->lent++;
    return STATUS_OK;
}

static enum status take(void *log, uint64_t first_index, uint64_t last_index, struct log_segments *ret_segments) {
    struct wal *wal = log;
    struct log_segments segments = {.alloc = wal->alloc};
    size_t count = 0;
    enum status status = STATUS_OK;
    LIST_FOREACH (node, &wal->segments) {
        count += can_be_lent(wal, LIST_ENTRY(node, struct wal__segment, link), first_index, last_index);
    }
    if (count > 0 && (segments.list = mem_alloc_zero(wal->alloc, count * sizeof *segments.list)) == NULL) {
        return STATUS_NO_MEMORY;
    }
    LIST_FOREACH (node, &wal->segments) {
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        if (status == STATUS_OK && can_be_lent(wal, segment, first_index, last_index)) {
            CHECK(segments.list != NULL && segments.count < count);
            status = lend(wal, segment, first_index, last_index, &segments.list[segments.count]);
            segments.count += status == STATUS_OK;
        }
    }
    if (status != STATUS_OK) {
        log_segments_free(&segments);
        return status;
    }
    *ret_segments = segments;
    return STATUS_OK;
}

static void give_back(void *log, uint64_t number) {
    struct wal *wal = log;
    LIST_FOREACH (node, &wal->segments) {
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        if (segment->number == number) {
            CHECK(segment->lent > 0);
            segment->lent--;
        }
    }
}

void wal_share(struct wal *wal, struct log_share *ret_share) {
    CHECK(wal->started);
    *ret_share =
        (struct log_share){.log = wal, .turn = turn, .is_turned = is_turned, .take = take, .give_back = give_back};
}

/* ---- Checking a file -------------------------------------------------------------------------------------------- */

struct checker {
    struct wal__scanner scanner;
    const struct wal_check *check;
    uint64_t generation;
    uint64_t sequence; /* of the last group */
    uint64_t chain;
};

/* STATUS_CORRUPT: the header isn't sound, or not this cluster's. */
static enum status check_header(struct checker *checker, struct error *err) {
    struct slice block;
    struct wal__segment_header header;
    enum status status = wal__scanner_view(&checker->scanner, 0, WAL_SEGMENT_HEADER_BYTES, &block, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (block.len < WAL_SEGMENT_HEADER_BYTES || wal__segment_header_decode(block.data, &header) != STATUS_OK ||
        memcmp(header.cluster_id, checker->check->cluster_id, WAL_CLUSTER_ID_BYTES) != 0) {
        return STATUS_CORRUPT;
    }
    checker->generation = header.generation;
    return STATUS_OK;
}

static bool follows(const struct checker *checker, uint64_t offset, const struct wal__group_header *header) {
    bool is_first = offset == WAL_SEGMENT_HEADER_BYTES;
    return is_first == ((header->flags & WAL__GROUP_FIRST) != 0) &&
           (is_first || (header->sequence == checker->sequence + 1 && header->previous_checksum == checker->chain));
}

/* STATUS_CORRUPT: at *offset. */
static enum status check_groups(struct checker *checker, uint64_t *offset, uint64_t *ret_records, struct error *err) {
    const struct wal_check *check = checker->check;
    while (*offset < check->size_bytes) {
        enum wal__verdict verdict;
        struct wal__group_view view;
        enum status status = wal__scan_group(&checker->scanner, *offset, checker->generation, &verdict, &view, err);
        if (status != STATUS_OK) {
            return status;
        }
        if (verdict != WAL__GROUP_GOOD || !follows(checker, *offset, &view.header) ||
            wal__padded(view.header.total_bytes) > check->size_bytes - *offset) {
            return STATUS_CORRUPT;
        }
        checker->sequence = view.header.sequence;
        checker->chain = view.header.checksum;
        *ret_records += view.header.record_count;
        *offset += wal__padded(view.header.total_bytes);
        if (check->pace != NULL && !check->pace(check->context, wal__padded(view.header.total_bytes))) {
            return error_set(err, STATUS_CANCELLED, "checking was stopped");
        }
    }
    return checker->chain == check->checksum ? STATUS_OK : STATUS_CORRUPT;
}

enum status wal_check_segment(const struct wal_check *check, uint64_t *ret_records, uint64_t *ret_offset,
                              struct error *err) {
    struct checker checker = {.check = check};
    struct wal__segment segment = {.file = check->file};
    uint64_t offset = 0;
    uint64_t records = 0;
    enum status status = env_size(check->file, &segment.bytes, err);
    if (status != STATUS_OK) {
        return status;
    }
    wal__scanner_init(&checker.scanner, check->env->alloc);
    wal__scanner_set_file(&checker.scanner, &segment, WAL_SCAN_BYTES);
    bool is_long_enough = check->size_bytes % WAL_BLOCK_BYTES == 0 && check->size_bytes <= segment.bytes &&
                          check->size_bytes >= WAL_FIRST_RECORDS_OFFSET;
    status = is_long_enough ? check_header(&checker, err) : STATUS_CORRUPT;
    if (status == STATUS_OK) {
        offset = WAL_SEGMENT_HEADER_BYTES;
        status = check_groups(&checker, &offset, &records, err);
    }
    wal__scanner_deinit(&checker.scanner);
    *ret_records = records;
    *ret_offset = offset;
    return status;
}
