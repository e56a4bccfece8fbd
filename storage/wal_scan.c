/*
 * Blocking readers, for recovery and replay: a window over one segment file, group by group, and a walk over the
 * records that the index says count. Nothing read is trusted: a length is used only after the checksum that covers it
 * was checked, and never allocates more than the file holds.
 */
#include "storage/wal_internal.h"

void wal__scanner_init(struct wal__scanner *scanner, struct alloc *alloc) {
    *scanner = (struct wal__scanner){.alloc = alloc};
}

void wal__scanner_deinit(struct wal__scanner *scanner) {
    mem_free(scanner->alloc, scanner->memory);
    scanner->memory = NULL;
}

void wal__scanner_set_file(struct wal__scanner *scanner, const struct wal__segment *segment, size_t read_bytes) {
    CHECK(read_bytes > 0 && read_bytes % WAL_BLOCK_BYTES == 0);
    scanner->file = segment->file;
    scanner->file_bytes = segment->bytes;
    scanner->read_bytes = read_bytes;
    scanner->window_len = 0;
}

static enum status grow(struct wal__scanner *scanner, size_t capacity, struct error *err) {
    if (capacity <= scanner->capacity) {
        return STATUS_OK;
    }
    uint8_t *memory = mem_alloc_aligned(scanner->alloc, WAL_BLOCK_BYTES, capacity);
    if (memory == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to read the log");
    }
    mem_free(scanner->alloc, scanner->memory);
    scanner->memory = memory;
    scanner->capacity = capacity;
    scanner->window_len = 0;
    return STATUS_OK;
}

enum status wal__scanner_view(struct wal__scanner *scanner, uint64_t offset, size_t len, struct slice *ret_bytes,
                              struct error *err) {
    CHECK(offset % WAL_BLOCK_BYTES == 0 && len > 0);
    uint64_t window_end = scanner->window_offset + scanner->window_len;
    if (offset < scanner->window_offset || offset + len > window_end) {
        size_t wanted = len > scanner->read_bytes ? (size_t)wal__padded(len) : scanner->read_bytes;
        uint64_t left = offset < scanner->file_bytes ? wal__padded(scanner->file_bytes - offset) : WAL_BLOCK_BYTES;
        wanted = wanted < left ? wanted : (size_t)left;
        enum status status = grow(scanner, wanted, err);
        if (status != STATUS_OK) {
            return status;
        }
        size_t got = 0;
        scanner->window_len = 0;
        status = env_pread(scanner->file, scanner->memory, wanted, offset, &got, err);
        if (status != STATUS_OK) {
            return status;
        }
        scanner->window_offset = offset;
        scanner->window_len = got;
        scanner->bytes_read += got;
        window_end = offset + got;
    }
    uint64_t left = window_end - offset;
    *ret_bytes = slice_of(scanner->memory + (offset - scanner->window_offset), left < len ? (size_t)left : len);
    return STATUS_OK;
}

enum status wal__scan_group(struct wal__scanner *scanner, uint64_t offset, uint64_t generation,
                            enum wal__verdict *ret_verdict, struct wal__group_view *ret_view, struct error *err) {
    struct slice bytes;
    enum status status = wal__scanner_view(scanner, offset, WAL_BLOCK_BYTES, &bytes, err);
    if (status != STATUS_OK) {
        return status;
    }
    *ret_verdict = WAL__GROUP_BAD_HEADER;
    if (bytes.len < WAL_BLOCK_BYTES) {
        return STATUS_OK; /* the end of the file */
    }
    struct wal__group_view view = {.bytes = NULL};
    status = wal__group_header_decode(bytes.data, &view.header);
    if (status == STATUS_UNSUPPORTED) {
        return error_set(err, status, "%s: the log group at %llu is of a newer format", env_file_path(scanner->file),
                         (unsigned long long)offset);
    }
    if (status != STATUS_OK || view.header.generation != generation) {
        return STATUS_OK;
    }
    *ret_verdict = WAL__GROUP_BAD_BODY;
    *ret_view = view;
    if (offset >= scanner->file_bytes || view.header.total_bytes > scanner->file_bytes - offset) {
        return STATUS_OK; /* longer than the file: nothing is allocated for it */
    }
    status = wal__scanner_view(scanner, offset, view.header.total_bytes, &bytes, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (bytes.len < view.header.total_bytes || wal__group_check_body(&view.header, bytes.data) != STATUS_OK) {
        return STATUS_OK;
    }
    *ret_verdict = WAL__GROUP_GOOD;
    ret_view->bytes = bytes.data;
    size_t skipped = WAL_GROUP_HEADER_BYTES;
    if (wal__heal_bytes(&view.header) > 0) {
        ret_view->heal_index = get_u64(bytes.data + skipped);
        ret_view->heal_term = get_u64(bytes.data + skipped + 8);
        skipped += WAL_HEAL_BYTES;
    }
    ret_view->membership = slice_of(bytes.data + skipped, view.header.membership_bytes);
    skipped += ret_view->membership.len;
    ret_view->records = slice_of(bytes.data + skipped, bytes.len - skipped);
    return STATUS_OK;
}

/* ---- The walk --------------------------------------------------------------------------------------------------- */

static enum status walk_failed(const struct wal__segment *segment, uint64_t offset, uint64_t index, struct error *err) {
    return error_set(err, STATUS_CORRUPT, "%s: no good group with entry %llu at %llu", env_file_path(segment->file),
                     (unsigned long long)index, (unsigned long long)offset);
}

/* The groups from one index entry on, up to last_index, which the entry covers. */
static enum status walk_entry(struct wal__scanner *scanner, const struct wal__index_entry *entry, uint64_t first_index,
                              uint64_t last_index, wal__visit visit, void *context, struct error *err) {
    uint64_t next = first_index;
    uint64_t offset = entry->offset;
    while (next <= last_index) {
        enum wal__verdict verdict;
        struct wal__group_view view;
        enum status status = wal__scan_group(scanner, offset, entry->segment->generation, &verdict, &view, err);
        if (status != STATUS_OK) {
            return status;
        }
        if (verdict != WAL__GROUP_GOOD || view.header.first_index > next) {
            return walk_failed(entry->segment, offset, next, err);
        }
        uint64_t group_last = wal__group_last_index(&view.header);
        if (view.header.record_count > 0 && group_last >= next) {
            uint64_t live_last = group_last < last_index ? group_last : last_index;
            status = visit(context, &view, next, live_last, err);
            if (status != STATUS_OK) {
                return status;
            }
            next = live_last + 1;
        }
        offset += wal__padded(view.header.total_bytes);
    }
    return STATUS_OK;
}

enum status wal__walk(struct wal *wal, struct wal__scanner *scanner, uint64_t first_index, uint64_t last_index,
                      wal__visit visit, void *context, struct error *err) {
    CHECK(first_index >= wal->first_index && last_index <= wal->sealed_index);
    uint64_t next = first_index;
    size_t position = wal__index_find(&wal->index, next);
    while (next <= last_index) {
        CHECK(position < wal->index.count);
        const struct wal__index_entry *entry = wal__index_at(&wal->index, position);
        position++;
        uint64_t covered = last_index;
        if (position < wal->index.count && wal__index_at(&wal->index, position)->first_index - 1 < covered) {
            covered = wal__index_at(&wal->index, position)->first_index - 1;
        }
        /* An entry is a small part of a window: it is read once, not once an entry. */
        if (next == first_index || scanner->file != entry->segment->file) {
            wal__scanner_set_file(scanner, entry->segment, WAL_SCAN_BYTES);
        }
        enum status status = walk_entry(scanner, entry, next, covered, visit, context, err);
        if (status != STATUS_OK) {
            return status;
        }
        next = covered + 1;
    }
    return STATUS_OK;
}

/* ---- Replay ----------------------------------------------------------------------------------------------------- */

struct replay {
    enum status (*each)(void *context, const struct wal_record *record, struct error *err);
    void *context;
};

static enum status replay_group(void *context, const struct wal__group_view *view, uint64_t live_first,
                                uint64_t live_last, struct error *err) {
    const struct replay *replay = context;
    const uint8_t *at = view->records.data;
    enum status status = STATUS_OK;
    for (uint64_t index = view->header.first_index; status == STATUS_OK && index <= live_last; index++) {
        struct wal_record record = wal__record_at(at);
        at += record.bytes.len;
        if (index >= live_first) {
            status = replay->each(replay->context, &record, err);
        }
    }
    return status;
}

enum status wal_replay(struct wal *wal, uint64_t first_index, uint64_t last_index,
                       enum status (*each)(void *context, const struct wal_record *record, struct error *err),
                       void *context, struct error *err) {
    CHECK(!wal->started);
    if (first_index > last_index) {
        return STATUS_OK;
    }
    if (first_index < wal->first_index || last_index > wal->last_index) {
        return error_set(err, STATUS_NOT_FOUND, "log entries %llu to %llu asked for, %llu to %llu are there",
                         (unsigned long long)first_index, (unsigned long long)last_index,
                         (unsigned long long)wal->first_index, (unsigned long long)wal->last_index);
    }
    struct replay replay = {.each = each, .context = context};
    struct wal__scanner scanner;
    wal__scanner_init(&scanner, wal->alloc);
    enum status status = wal__walk(wal, &scanner, first_index, last_index, replay_group, &replay, err);
    wal__scanner_deinit(&scanner);
    return status;
}
