/*
 * Blocking mode: groups are written by the owner's hand, under his lock but for the write itself (wal.h).
 *
 *   idle --take--> writing --run (no lock)--> written --end--> idle
 *                                                  \-(error)-> failed, for good
 *
 * While a group is being written its struct, its records and writing_header belong to the thread that took it; all else
 * stays under the lock. Its header and checksums are made in wal_write_run, so that the lock isn't held for them; the
 * next header needs that checksum, and there is none before wal_write_end.
 *
 * Lent memory. A group in a lent piece lies there as the disk gets it: room for the header, then records. Nothing marks
 * where they end: a piece is read as long as records are sound, of the right term and contiguous. Within a term no
 * index is given twice, so what an earlier group left behind the end has smaller indexes and doesn't continue.
 */
#include "storage/wal_internal.h"

enum { WRITE_AHEAD_BYTES = 512 * 1024 };

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

void wal_lend(struct wal *wal, uint8_t *const pieces[WAL_LENT_COUNT]) {
    CHECK(wal->options.mode == WAL_MODE_BLOCKING && wal->started && !wal->pool.has_pieces);
    for (unsigned i = 0; i < WAL_LENT_COUNT; i++) {
        CHECK((uintptr_t)pieces[i] % WAL_BLOCK_BYTES == 0);
        wal->pool.pieces[i] = (struct wal__buffer){.data = pieces[i],
                                                   .capacity = wal->group_bytes_max,
                                                   .references = 0,
                                                   .size_class = WAL_BUFFER_LENT};
        list_init(&wal->pool.pieces[i].link);
    }
    wal->pool.has_pieces = true;
}

size_t wal_group_bytes_max(const struct wal *wal) { return wal->group_bytes_max; }

struct slice wal_lent_records(struct slice piece, uint64_t term, uint64_t next_index) {
    CHECK(piece.len >= WAL_GROUP_HEADER_BYTES);
    struct slice cursor = slice_of(piece.data + WAL_GROUP_HEADER_BYTES, piece.len - WAL_GROUP_HEADER_BYTES);
    struct slice found = slice_of(cursor.data, 0);
    uint64_t previous_index = 0;
    struct wal_record record;
    while (wal_record_decode(&cursor, &record, NULL) == STATUS_OK) {
        if (record.term != term || (previous_index != 0 && record.index != previous_index + 1)) {
            break;
        }
        previous_index = record.index;
        if (record.index < next_index) {
            found.data = cursor.data; /* the log has it */
        } else if (found.len > 0 || record.index == next_index) {
            found.len += record.bytes.len;
        } else {
            break;
        }
    }
    return found;
}

bool wal_has_records(const struct wal *wal) { return wal->pending_count > 0; }

bool wal_has_full_group(const struct wal *wal) {
    return !wal->writing && (wal->pending_count > 1 || wal__turn_is_due(wal));
}

enum status wal_write_take(struct wal *wal) {
    CHECK(wal->options.mode == WAL_MODE_BLOCKING && wal->started && wal->appending == NULL);
    if (wal->failed || wal->closing) {
        return STATUS_FAILED;
    }
    if (wal->writing) {
        return STATUS_NOT_FOUND;
    }
    wal__write_next(wal);
    wal->starved = !wal->writing && (wal->pending_count > 0 || wal->state_dirty || wal->reset_due);
    if (wal->starved) {
        return STATUS_PENDING;
    }
    return wal->writing ? STATUS_OK : STATUS_NOT_FOUND;
}

/* Where nothing was ever written, a small group takes zeroes for its successors along: the first write to a block costs
 * the file system a journal entry, which every one of them would pay else. The next one overwrites them. */
static void write_ahead(struct wal *wal) {
    struct env_io *io = &wal->write_io;
    struct wal__segment *segment = wal->active;
    const struct wal__group *group = wal->writing_group;
    uint64_t end = io->offset + io->len;
    if (end <= segment->filled_end) {
        return;
    }
    if (group != NULL && io->len <= WAL_SMALL_GROUP_BYTES) {
        uint64_t more = min_u64(WRITE_AHEAD_BYTES, group->buffer->capacity) - io->len;
        more = min_u64(more, segment->bytes - end);
        memset((uint8_t *)io->data + io->len, 0, more);
        io->len += more;
        end += more;
    }
    segment->filled_end = end;
}

void wal_write_run(struct wal *wal) {
    struct env_io *io = &wal->write_io;
    wal__finish_seal(wal);
    write_ahead(wal);
    io->status = env_fault_point(wal->env, FAULT_WAL_WRITE, &io->error);
    if (io->status == STATUS_OK) {
        io->status = env_pwrite_dsync(io->file, io->data, io->len, io->offset, &io->error);
    }
}

enum status wal_write_end(struct wal *wal, struct error *err) {
    CHECK(wal->writing);
    wal__write_ended(wal);
    return wal->failed ? error_set(err, STATUS_FAILED, "%s", wal->failure.message) : STATUS_OK;
}
