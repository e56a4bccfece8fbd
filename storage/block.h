/*
 * The body of an SST block: sorted entries with shared key prefixes, and the places where a key stands in full.
 *
 *   body    = entry... , restart offset u32... , restart count u32
 *   entry   = shared varint, suffix length varint, value length varint, kind u8, revision varint, ordinal varint,
 * suffix, value
 *
 * `shared` bytes of the user key come from the entry in front; at every 16th entry (a restart) it is 0, so that a
 * search can halve its way to a restart and walk from there. The index block of an SST has the same form: key =
 * separator, value = handle.
 *
 * The builder's entries must grow; its owner checks that. The cursor trusts nothing but the length of the body.
 */
#ifndef HOLDFAST_STORAGE_BLOCK_H
#define HOLDFAST_STORAGE_BLOCK_H

#include "node/base/buf.h"
#include "storage/entry.h"

enum { BLOCK_RESTART_INTERVAL = 16 };

struct block_builder {
    struct buf body;
    struct buf restarts; /* u32 little-endian each */
    uint32_t entry_count;
    uint8_t last_key[LIMIT_KEY_BYTES];
    size_t last_key_len;
};

void block_builder_init(struct block_builder *builder, struct alloc *alloc);
void block_builder_deinit(struct block_builder *builder);
/* STATUS_NO_MEMORY: nothing changed. */
MUST_USE enum status block_builder_add(struct block_builder *builder, const struct entry *entry);
/* Bytes of the finished body. */
size_t block_builder_size(const struct block_builder *builder);
/* Completes the body; borrowed until the reset. At least one entry must be in it. */
MUST_USE enum status block_builder_finish(struct block_builder *builder, struct slice *ret_body);
/* Empty again; keeps the memory. */
void block_builder_reset(struct block_builder *builder);

/* Must stay where it is between calls: the entry's key may stand in its own memory. */
struct block_cursor {
    struct slice entries;
    const uint8_t *restarts;
    uint32_t restart_count;
    size_t next; /* offset of the entry behind the current one */
    struct entry entry;
    uint8_t key[LIMIT_KEY_BYTES];
};

/* Borrows the body. STATUS_CORRUPT if its restarts are impossible. No entry is current yet. */
MUST_USE enum status block_cursor_open(struct block_cursor *cursor, struct slice body);
/* STATUS_OK: `entry` is the first at or behind the target; the key borrowed until the next call, the value from the
 * body. STATUS_NOT_FOUND: all are in front of it. STATUS_CORRUPT. */
MUST_USE enum status block_cursor_seek(struct block_cursor *cursor, const struct entry_key *target);
MUST_USE enum status block_cursor_first(struct block_cursor *cursor);
MUST_USE enum status block_cursor_next(struct block_cursor *cursor);

#endif
