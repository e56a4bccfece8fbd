/* Entry metadata: running totals in aligned chunks, terms in runs. See log.h. */
#include "raft/log.h"

#include "node/base/check.h"

#include <stdbool.h>
#include <string.h>

enum { BLOCKS_PER_CHUNK = RAFT__LOG_CHUNK_ENTRIES / RAFT__LOG_BLOCK_ENTRIES, FIRST_SLOTS = 8, FIRST_RUNS = 8 };

static_assert(RAFT__LOG_CHUNK_ENTRIES % RAFT__LOG_BLOCK_ENTRIES == 0, "blocks fill a chunk");

struct raft__log_chunk {
    uint64_t block_bytes[BLOCKS_PER_CHUNK];        /* running total before the block's first entry here */
    uint32_t entry_bytes[RAFT__LOG_CHUNK_ENTRIES]; /* what the block adds up to with this entry */
};

void raft__log_init(struct raft__log *log, struct alloc *alloc, uint64_t start_index, uint64_t start_term) {
    memset(log, 0, sizeof *log);
    log->alloc = alloc;
    log->start_index = start_index;
    log->start_term = start_term;
    log->last_index = start_index;
    log->first_chunk = (start_index + 1) / RAFT__LOG_CHUNK_ENTRIES;
    log->end_chunk = log->first_chunk;
}

static struct raft__log_chunk **slot_of(const struct raft__log *log, uint64_t chunk) {
    return &log->slots[chunk & (log->slot_count - 1)];
}

void raft__log_deinit(struct raft__log *log) {
    for (uint64_t chunk = log->first_chunk; chunk < log->end_chunk; chunk++) {
        mem_free(log->alloc, *slot_of(log, chunk));
    }
    mem_free(log->alloc, log->spare);
    mem_free(log->alloc, log->slots);
    mem_free(log->alloc, log->runs);
    memset(log, 0, sizeof *log);
}

/* ---- Growth --------------------------------------------------------------------------------------------------- */

static enum status reserve_slots(struct raft__log *log, uint64_t chunk_count) {
    if (chunk_count <= log->slot_count) {
        return STATUS_OK;
    }
    uint64_t count = log->slot_count == 0 ? FIRST_SLOTS : log->slot_count;
    while (count < chunk_count) {
        count *= 2;
    }
    struct raft__log_chunk **slots = mem_alloc_zero(log->alloc, count * sizeof(void *));
    if (slots == NULL) {
        return STATUS_NO_MEMORY;
    }
    for (uint64_t chunk = log->first_chunk; chunk < log->end_chunk; chunk++) {
        slots[chunk & (count - 1)] = *slot_of(log, chunk);
    }
    mem_free(log->alloc, log->slots);
    log->slots = slots;
    log->slot_count = count;
    return STATUS_OK;
}

static enum status reserve_chunks(struct raft__log *log, uint64_t last_index) {
    uint64_t end_chunk = last_index / RAFT__LOG_CHUNK_ENTRIES + 1;
    if (end_chunk <= log->end_chunk) {
        return STATUS_OK;
    }
    enum status status = reserve_slots(log, end_chunk - log->first_chunk);
    while (status == STATUS_OK && log->end_chunk < end_chunk) {
        struct raft__log_chunk *chunk = log->spare;
        log->spare = NULL;
        if (chunk == NULL) {
            chunk = mem_alloc(log->alloc, sizeof *chunk);
        }
        if (chunk == NULL) {
            return STATUS_NO_MEMORY;
        }
        *slot_of(log, log->end_chunk) = chunk;
        log->end_chunk++;
    }
    return status;
}

static enum status reserve_runs(struct raft__log *log, size_t run_count_more) {
    size_t count = log->run_count + run_count_more;
    if (count <= log->run_capacity) {
        return STATUS_OK;
    }
    size_t capacity = log->run_capacity == 0 ? FIRST_RUNS : log->run_capacity;
    while (capacity < count) {
        capacity *= 2;
    }
    struct raft__log_run *runs = mem_resize(log->alloc, log->runs, capacity * sizeof *runs);
    if (runs == NULL) {
        return STATUS_NO_MEMORY;
    }
    log->runs = runs;
    log->run_capacity = capacity;
    return STATUS_OK;
}

enum status raft__log_reserve(struct raft__log *log, uint64_t last_index, size_t run_count_more) {
    enum status status = reserve_runs(log, run_count_more);
    return status != STATUS_OK ? status : reserve_chunks(log, last_index);
}

void raft__log_append(struct raft__log *log, uint64_t term, uint32_t size_bytes) {
    uint64_t last_term = raft__log_last_term(log);
    CHECK(term >= last_term && term > 0);
    CHECK(size_bytes <= RAFT__ENTRY_BYTES_MAX);
    uint64_t index = log->last_index + 1;
    uint64_t chunk_number = index / RAFT__LOG_CHUNK_ENTRIES;
    CHECK(chunk_number < log->end_chunk);
    if (log->run_count == 0 || term != last_term) {
        CHECK(log->run_count < log->run_capacity);
        log->runs[log->run_count++] = (struct raft__log_run){.first_index = index, .term = term};
    }
    struct raft__log_chunk *chunk = *slot_of(log, chunk_number);
    size_t at = index % RAFT__LOG_CHUNK_ENTRIES;
    size_t block = at / RAFT__LOG_BLOCK_ENTRIES;
    if (at % RAFT__LOG_BLOCK_ENTRIES == 0 || index == log->start_index + 1) {
        chunk->block_bytes[block] = log->last_bytes;
    }
    log->last_bytes += size_bytes;
    log->last_index = index;
    chunk->entry_bytes[at] = (uint32_t)(log->last_bytes - chunk->block_bytes[block]);
}

/* ---- Shrinking ------------------------------------------------------------------------------------------------ */

/* The running total up to an index. */
static uint64_t total_at(const struct raft__log *log, uint64_t index) {
    if (index == log->last_index) {
        return log->last_bytes;
    }
    if (index == log->start_index) {
        return log->start_bytes;
    }
    CHECK(index > log->start_index && index < log->last_index);
    const struct raft__log_chunk *chunk = *slot_of(log, index / RAFT__LOG_CHUNK_ENTRIES);
    size_t at = index % RAFT__LOG_CHUNK_ENTRIES;
    return chunk->block_bytes[at / RAFT__LOG_BLOCK_ENTRIES] + chunk->entry_bytes[at];
}

void raft__log_truncate(struct raft__log *log, uint64_t last_index) {
    CHECK(last_index >= log->start_index && last_index <= log->last_index);
    log->last_bytes = total_at(log, last_index);
    log->last_index = last_index;
    while (log->run_count > 0 && log->runs[log->run_count - 1].first_index > last_index) {
        log->run_count--;
    }
}

void raft__log_trim(struct raft__log *log, uint64_t index) {
    CHECK(index >= log->start_index && index <= log->last_index);
    uint64_t term = raft__log_term_at(log, index);
    log->start_bytes = total_at(log, index);
    log->start_index = index;
    log->start_term = term;

    size_t gone = 0;
    while (gone < log->run_count &&
           (gone + 1 < log->run_count ? log->runs[gone + 1].first_index <= index + 1 : log->last_index == index)) {
        gone++;
    }
    log->run_count -= gone;
    if (gone > 0) {
        memmove(log->runs, log->runs + gone, log->run_count * sizeof *log->runs);
    }
    if (log->run_count > 0 && log->runs[0].first_index <= index) {
        log->runs[0].first_index = index + 1;
    }

    uint64_t first_chunk = (index + 1) / RAFT__LOG_CHUNK_ENTRIES;
    for (; log->first_chunk < first_chunk && log->first_chunk < log->end_chunk; log->first_chunk++) {
        mem_free(log->alloc, log->spare);
        log->spare = *slot_of(log, log->first_chunk);
    }
    log->first_chunk = first_chunk;
    log->end_chunk = log->end_chunk < first_chunk ? first_chunk : log->end_chunk;
}

void raft__log_reset(struct raft__log *log, uint64_t index, uint64_t term) {
    for (; log->first_chunk < log->end_chunk; log->first_chunk++) {
        mem_free(log->alloc, log->spare);
        log->spare = *slot_of(log, log->first_chunk);
    }
    log->first_chunk = (index + 1) / RAFT__LOG_CHUNK_ENTRIES;
    log->end_chunk = log->first_chunk;
    log->run_count = 0;
    log->start_index = index;
    log->start_term = term;
    log->start_bytes = log->last_bytes;
    log->last_index = index;
}

/* ---- Questions ------------------------------------------------------------------------------------------------ */

/* The newest run that starts at or before index; run_count if none does. */
static size_t run_of(const struct raft__log *log, uint64_t index) {
    size_t low = 0;
    size_t high = log->run_count;
    if (high > 0 && log->runs[high - 1].first_index <= index) {
        return high - 1; /* nearly every question is about the newest term */
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (log->runs[middle].first_index <= index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? log->run_count : low - 1;
}

uint64_t raft__log_term_at(const struct raft__log *log, uint64_t index) {
    if (index == log->start_index) {
        return log->start_term;
    }
    if (index < log->start_index || index > log->last_index) {
        return 0;
    }
    size_t run = run_of(log, index);
    CHECK(run < log->run_count);
    return log->runs[run].term;
}

uint64_t raft__log_last_term(const struct raft__log *log) {
    return log->run_count > 0 ? log->runs[log->run_count - 1].term : log->start_term;
}

uint64_t raft__log_bytes(const struct raft__log *log, uint64_t after_index, uint64_t index) {
    CHECK(after_index <= index);
    return total_at(log, index) - total_at(log, after_index);
}

uint64_t raft__log_fit(const struct raft__log *log, uint64_t after_index, uint64_t bytes_max) {
    CHECK(after_index >= log->start_index && after_index < log->last_index);
    uint64_t before = total_at(log, after_index);
    if (log->last_bytes - before <= bytes_max) {
        return log->last_index;
    }
    uint64_t fits = after_index + 1; /* at least one, whatever its size */
    uint64_t beyond = log->last_index;
    while (beyond - fits > 1) {
        uint64_t middle = fits + (beyond - fits) / 2;
        if (total_at(log, middle) - before <= bytes_max) {
            fits = middle;
        } else {
            beyond = middle;
        }
    }
    return fits;
}

uint64_t raft__log_newest_with_term(const struct raft__log *log, uint64_t index, uint64_t term) {
    index = index > log->last_index ? log->last_index : index;
    if (index < log->start_index) {
        return 0;
    }
    size_t run = index == log->start_index ? log->run_count : run_of(log, index);
    while (run < log->run_count) {
        if (log->runs[run].term <= term) {
            return index;
        }
        index = log->runs[run].first_index - 1;
        run = run == 0 ? log->run_count : run - 1;
    }
    return log->start_term <= term ? log->start_index : 0;
}
