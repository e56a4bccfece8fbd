/*
 * What the core remembers of the log: for each entry its size, for each run of equal terms where it starts. Payloads
 * are the caller's. An entry costs four bytes and a little.
 *
 * Sizes are kept as running totals, so that the bytes of any range, and what fits an append, need no walk:
 *
 *     chunk   CHUNK_ENTRIES consecutive indexes, aligned, found by index alone
 *       block   BLOCK_ENTRIES of them: one 64-bit total before the block, then 32-bit totals within it
 *
 * Indexes: everything up to start_index is gone (trimmed; its term is kept), start_index + 1 .. last_index is here.
 *
 * Legal order: init, then anything, then deinit. Growth is two steps: raft__log_reserve may fail and changes nothing
 * that shows, raft__log_append after it can't fail. Owner: the raft that embeds it.
 *
 * Invariants: start_index <= last_index; terms of runs and their first indexes both increase strictly.
 */
#ifndef HOLDFAST_RAFT_LOG_H
#define HOLDFAST_RAFT_LOG_H

#include "node/base/alloc.h"
#include "node/base/limits.h"
#include "node/base/status.h"

#include <stddef.h>
#include <stdint.h>

enum {
    RAFT__LOG_CHUNK_ENTRIES = 4096,
    RAFT__LOG_BLOCK_ENTRIES = 128,
    /* Largest size of one entry: a payload and its record header. */
    RAFT__ENTRY_BYTES_MAX = LIMIT_ENTRY_PAYLOAD_BYTES + KIB
};

static_assert((unsigned long long)RAFT__LOG_BLOCK_ENTRIES * RAFT__ENTRY_BYTES_MAX <= UINT32_MAX,
              "the total within a block must fit 32 bits");

struct raft__log_chunk;

struct raft__log_run {
    uint64_t first_index;
    uint64_t term;
};

struct raft__log {
    struct alloc *alloc;
    uint64_t start_index;
    uint64_t start_term; /* 0 if unknown */
    uint64_t last_index;
    uint64_t start_bytes; /* running total at start_index and last_index */
    uint64_t last_bytes;

    /* Chunk number n holds indexes n * CHUNK_ENTRIES ...; it is in slot n & (slot_count - 1). Chunks first_chunk ..
     * end_chunk - 1 are allocated. */
    struct raft__log_chunk **slots;
    uint64_t slot_count; /* a power of two, or 0 */
    uint64_t first_chunk;
    uint64_t end_chunk;
    struct raft__log_chunk *spare; /* one trimmed chunk, for the next growth */

    struct raft__log_run *runs; /* oldest first */
    size_t run_count;
    size_t run_capacity;
};

void raft__log_init(struct raft__log *log, struct alloc *alloc, uint64_t start_index, uint64_t start_term);
void raft__log_deinit(struct raft__log *log);

/* Makes room for entries up to last_index, which start at most run_count_more new runs. STATUS_NO_MEMORY. */
MUST_USE enum status raft__log_reserve(struct raft__log *log, uint64_t last_index, size_t run_count_more);
/* Entry last_index + 1; room was reserved, term isn't below the last one. */
void raft__log_append(struct raft__log *log, uint64_t term, uint32_t size_bytes);
/* Forgets the entries above last_index. */
void raft__log_truncate(struct raft__log *log, uint64_t last_index);
/* Forgets the entries up to index, in start_index .. last_index. */
void raft__log_trim(struct raft__log *log, uint64_t index);

/* Forgets all entries: the log starts behind (index, term). */
void raft__log_reset(struct raft__log *log, uint64_t index, uint64_t term);

/* 0 outside start_index .. last_index, and at an unknown start. */
uint64_t raft__log_term_at(const struct raft__log *log, uint64_t index);
uint64_t raft__log_last_term(const struct raft__log *log);
/* Bytes of the entries after_index + 1 .. index; both in start_index .. last_index. */
uint64_t raft__log_bytes(const struct raft__log *log, uint64_t after_index, uint64_t index);
/* The newest index such that the entries after_index + 1 .. index fit bytes_max, but at least one entry. */
uint64_t raft__log_fit(const struct raft__log *log, uint64_t after_index, uint64_t bytes_max);
/* The newest index in start_index .. index whose term is at most `term`; 0 if there is none. */
uint64_t raft__log_newest_with_term(const struct raft__log *log, uint64_t index, uint64_t term);

#endif
