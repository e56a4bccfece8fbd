/*
 * The log's last group, written once more when the log is opened.
 *
 * That group is the only one that may not be durable: each is written when the one before it is. A sync of its file
 * isn't enough to make it so. If that sync fails, the kernel forgets what it couldn't write; the process ends, and the
 * next one reads the group from the page cache, syncs with success, and builds on bytes that no disk has (hazard 27).
 * So the old copy is not built upon: the new segment's start group says that the log goes up to the place in front of it,
 * and a copy stands right behind the start group. Both go out in one write with one sync, and the segment counts only if
 * both are whole: a crash before that leaves the old log as it was.
 *
 *   old segment  ... | group | last |            end of the log as the start group names it: in front of `last`
 *   new segment  start (CARRY) | last (CARRY) | ...
 *
 * An opening that carried the group and ended before anything else was appended has proved nothing about its own copy
 * either; the next one takes the group from there, and leaves that segment out as well.
 */
#include "storage/wal_internal.h"

static void copy_group(const struct wal *wal, const struct wal__segment *segment, const struct wal__group_view *view,
                       uint32_t *offsets, uint8_t *to, struct wal__group_header *ret_header) {
    size_t skipped = WAL_GROUP_HEADER_BYTES;
    memcpy(to + skipped, view->records.data, view->records.len);
    for (uint32_t i = 0; i < view->header.record_count; i++) {
        offsets[i] = (uint32_t)skipped;
        skipped += wal__record_at(to + skipped).bytes.len;
    }
    CHECK(skipped == WAL_GROUP_HEADER_BYTES + view->records.len);
    *ret_header = (struct wal__group_header){
        .flags = WAL__GROUP_CARRY,
        .total_bytes = (uint32_t)skipped,
        .record_count = view->header.record_count,
        .generation = segment->generation,
        .sequence = wal->sequence + 1,
        .synced_index = view->header.synced_index,
        .synced_term = view->header.synced_term,
        .commit_index = wal->commit_index,
        .term = wal->term,
        .vote = wal->vote,
        .first_index = view->header.first_index,
        .previous_checksum = wal->chain,
    };
    wal__group_seal(to, ret_header, offsets);
}

/* The start group as if the last group hadn't been read, in front of its copy. */
static void seal_both(struct wal__recovery *recovery, struct wal__segment *segment, const struct wal__group_view *view,
                      uint32_t *offsets, uint8_t *bytes) {
    struct wal *wal = recovery->wal;
    const struct wal__last_group *last = &recovery->last_group;
    struct wal__segment base = {.number = last->base_segment, .end = last->base_end};
    struct wal__group_header header;
    wal->sealed_index = view->header.synced_index;
    wal->sealed_term = view->header.synced_term;
    wal->chain = last->base_chain;
    wal__seal_start(wal, segment, base.number != 0 ? &base : NULL, WAL__GROUP_CARRY, &header);
    memcpy(bytes, wal->block, WAL_START_GROUP_BYTES);
    wal->sequence = header.sequence;
    wal->chain = header.checksum;
    copy_group(wal, segment, view, offsets, bytes + WAL_START_GROUP_BYTES, &header);
    wal->sequence = header.sequence;
    wal->chain = header.checksum;
    wal->sealed_index = wal->last_index;
    wal->sealed_term = wal->last_term;
}

static enum status no_memory(struct wal__recovery *recovery) {
    return error_set(recovery->err, STATUS_NO_MEMORY, "no memory to carry the last group into a new log segment");
}

static enum status write_both(struct wal__recovery *recovery, struct wal__segment *segment,
                              const struct wal__group_view *view) {
    struct wal *wal = recovery->wal;
    size_t len = WAL_START_GROUP_BYTES + (size_t)wal__padded(WAL_GROUP_HEADER_BYTES + view->records.len);
    uint8_t *bytes = mem_alloc_aligned(wal->alloc, WAL_BLOCK_BYTES, len);
    uint32_t *offsets = mem_alloc(wal->alloc, view->header.record_count * sizeof *offsets);
    enum status status = STATUS_NO_MEMORY;
    if (bytes == NULL || offsets == NULL || wal__index_reserve(&wal->index, wal->alloc, 1) != STATUS_OK) {
        status = no_memory(recovery);
        goto out;
    }
    memset(bytes, 0, len);
    seal_both(recovery, segment, view, offsets, bytes);
    status = env_pwrite(segment->file, bytes, len, segment->end, recovery->err);
    if (status == STATUS_OK) {
        status = env_sync(segment->file, recovery->err);
    }
    if (status != STATUS_OK) {
        goto out;
    }
    wal__index_cut(&wal->index, view->header.first_index);
    wal__index_add(&wal->index, view->header.first_index, segment, segment->end + WAL_START_GROUP_BYTES);
    segment->end += len;
    segment->written_end = segment->end;
    segment->max_index = wal->last_index;
    wal->active = segment;
    wal->durable_segment = segment;
out:
    mem_free(wal->alloc, bytes);
    mem_free(wal->alloc, offsets);
    return status;
}

enum status wal__carry(struct wal__recovery *recovery, struct wal__segment *segment) {
    struct wal *wal = recovery->wal;
    const struct wal__last_group *last = &recovery->last_group;
    if (last->segment == NULL) {
        return STATUS_NOT_FOUND;
    }
    enum wal__verdict verdict;
    struct wal__group_view view;
    wal__scanner_set_file(&recovery->scanner, last->segment, WAL_SCAN_BYTES);
    enum status status = wal__scan_group(&recovery->scanner, last->offset, last->segment->generation, &verdict, &view,
                                         recovery->err);
    if (status != STATUS_OK) {
        return status;
    }
    if (verdict != WAL__GROUP_GOOD) {
        return error_set(recovery->err, STATUS_IO, "%s: the group at %llu was whole a moment ago",
                         env_file_path(last->segment->file), (unsigned long long)last->offset);
    }
    uint64_t needed = WAL_START_GROUP_BYTES + wal__padded(WAL_GROUP_HEADER_BYTES + view.records.len);
    if (segment->end + needed + wal->reserve_bytes > segment->bytes) {
        return STATUS_NOT_FOUND; /* a small segment on a full disk */
    }
    return write_both(recovery, segment, &view);
}
