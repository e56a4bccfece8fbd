/*
 * The body of an SST block: sorted entries with shared key prefixes, the places where a key stands in full, and a small
 * hash table for lookups of one key.
 *
 *   body = entry... | restart offset u32... | bucket u8... | tail 12
 *
 * FORMAT.md says every byte. An entry takes a prefix of its key from the entry in front of it; a restart, one entry of
 * every 16 at least, has its key in full, so that a search can halve its way to a restart and go on from there. A
 * bucket says in which restart interval the newest version of the keys with this hash stands: most lookups then look at
 * one interval, and most of keys that aren't there at no entry at all.
 *
 * The form serves for data blocks (with buckets), for index blocks (key = separator, value = handle; every entry a
 * restart, no buckets) and for blocks of range deletes (key = start, value = end). In the latter two all entries are
 * puts.
 *
 * Builder: init, then any number of (add..., finish, reset), deinit. Cursor: open, then one of seek, seek_before,
 * first, last, find; after STATUS_OK also next and prev, in any order. STATUS_NOT_FOUND means that it ran off that end;
 * then only those of the first list are legal, as after STATUS_CORRUPT.
 *
 * The cursor trusts nothing but the length of the body: whatever the bytes are, it stays inside and each call ends. It
 * doesn't look for entries out of order: they are found late or not at all. Both belong to one thread.
 */
#ifndef HOLDFAST_STORAGE_BLOCK_H
#define HOLDFAST_STORAGE_BLOCK_H

#include "node/base/buf.h"
#include "storage/entry.h"

enum {
    BLOCK_INTERVAL = 16,    /* entries from one restart to the next, at most */
    BLOCK_SLACK_BYTES = 16, /* behind the last entry at least so much of the body follows: reads may overshoot */
    BLOCK_BODY_BYTES_MAX = 32 * 1024 * 1024 /* the largest entry fits with room to spare */
};

static_assert(BLOCK_BODY_BYTES_MAX > LIMIT_VALUE_BYTES + LIMIT_KEY_BYTES + (int)MIB, "the largest entry must fit");

/* ---- Builder ------------------------------------------------------------------------------------------------- */

struct block_builder {
    struct buf body;
    struct buf restarts;    /* u32 little-endian each */
    struct buf hashes;      /* uint64_t each: filter_hash of every user key of the block */
    struct buf hash_places; /* uint8_t each: the restart interval where that key begins */
    uint32_t entry_count;
    uint32_t until_restart; /* entries to add before the next restart */
    uint32_t interval;
    bool hash_index;
    bool repeats;          /* the entry added last has the user key of the one in front of it, also before the reset */
    struct entry_key last; /* of the entry added last, also before the reset; user key in last_key */
    uint8_t last_key[LIMIT_KEY_BYTES];
};

/* interval: entries per restart, 1 to BLOCK_INTERVAL. Allocates nothing. */
void block_builder_init(struct block_builder *builder, struct alloc *alloc, uint32_t interval, bool hash_index);
void block_builder_deinit(struct block_builder *builder);
/* Copies. Entries must grow, also from one block to the next: STATUS_CORRUPT if this one doesn't (they come from
 * disks). STATUS_NO_MEMORY. After either the builder can only be deinitialised. */
MUST_USE enum status block_builder_add(struct block_builder *builder, const struct entry *entry);
/* About the bytes of the finished body. */
size_t block_builder_size(const struct block_builder *builder);
/* Completes the body; borrowed until the reset. At least one entry must be in it (CHECK). STATUS_NO_MEMORY. */
MUST_USE enum status block_builder_finish(struct block_builder *builder, struct slice *ret_body);
/* Empty again; keeps the memory and the last key. */
void block_builder_reset(struct block_builder *builder);

/* ---- Cursor -------------------------------------------------------------------------------------------------- */

enum { BLOCK_TARGET_BYTES_MAX = LIMIT_KEY_BYTES + 1 };

/* An entry of the interval that a backward walk is in. */
struct block_item {
    uint64_t revision;
    uint32_t ordinal;
    uint32_t offset;    /* of the entry in the body */
    uint32_t suffix_at; /* where the rest of its key stands; the value follows */
    uint32_t value_len;
    uint16_t shared;
    uint16_t suffix_len;
    uint8_t kind;
};

/* Must stay where it is between calls: the entry's key may stand in its own memory. Needs no initialisation but
 * open, and no end. */
struct block_cursor {
    struct entry entry; /* after STATUS_OK: the key borrowed until the next call, the value from the body */
    const uint8_t *body;
    uint32_t entries_len; /* bytes of all entries */
    uint32_t at;          /* offset of the current entry */
    uint32_t next;        /* ... and of the one behind it */
    uint32_t restart_count;
    uint32_t entry_count; /* as the tail says */
    uint32_t bucket_count;
    int32_t item; /* the current entry among items; -1: they aren't of its interval */
    struct block_item items[BLOCK_INTERVAL];
    uint8_t key[LIMIT_KEY_BYTES + BLOCK_SLACK_BYTES];
};

/* Borrows the body. STATUS_CORRUPT if its tail or its restarts are impossible. No entry is current yet. */
MUST_USE enum status block_cursor_open(struct block_cursor *cursor, struct slice body);
/* The first at or behind the target; STATUS_NOT_FOUND: all are in front of it. The target's key may be the cursor's
 * own; it has at most BLOCK_TARGET_BYTES_MAX bytes (CHECK), one more than keys in blocks: the first key behind one. */
MUST_USE enum status block_cursor_seek(struct block_cursor *cursor, const struct entry_key *target);
/* The last in front of the target, never at it; STATUS_NOT_FOUND: there is none. */
MUST_USE enum status block_cursor_seek_before(struct block_cursor *cursor, const struct entry_key *target);
MUST_USE enum status block_cursor_first(struct block_cursor *cursor);
MUST_USE enum status block_cursor_last(struct block_cursor *cursor);
MUST_USE enum status block_cursor_next(struct block_cursor *cursor);
MUST_USE enum status block_cursor_prev(struct block_cursor *cursor);

/* Lookup: the newest version of the user key at or below the revision, if it is in this block. user_hash is
 * filter_hash(user). Where it is not: STATUS_NOT_FOUND, and the cursor is nowhere.
 *
 * There is no need to go on in the next block: an index block sends (user, revision) to the one block where that
 * version stands if there is one, even if the versions of the key fill several. */
MUST_USE enum status block_cursor_find(struct block_cursor *cursor, struct slice user, uint64_t user_hash,
                                       uint64_t revision);

#endif
