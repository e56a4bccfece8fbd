/*
 * The restart budget: a node flushes early when what it would replay after a restart takes too long (replay_speed.h has
 * the arithmetic). Nothing of this is needed for safety. Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"

#include <inttypes.h>

void consensus_note_replay(struct consensus *consensus, uint64_t entries, uint64_t bytes, uint64_t us) {
    replay_speed_replayed(&consensus->replay_speed, entries, bytes, us);
}

/* A recovery's measurement is better than any of this, and for good. */
uint64_t budget__begin_us(const struct consensus *consensus) {
    bool is_needed =
        !consensus->replay_speed.is_measured && storage_applied_index(consensus->storage) < consensus->commit_index;
    return is_needed ? env_clock_us(consensus->options.env) : 0;
}

void budget__note_applied(struct consensus *consensus, uint64_t entries, uint64_t bytes, uint64_t begin_us) {
    if (begin_us != 0) {
        replay_speed_applied(&consensus->replay_speed, entries, bytes, env_clock_us(consensus->options.env) - begin_us);
    }
}

uint64_t budget__replay_us(const struct consensus *consensus) {
    struct storage_unflushed unflushed;
    storage_get_unflushed(consensus->storage, &unflushed);
    return replay_speed_estimate_us(&consensus->replay_speed, unflushed.entries, unflushed.bytes);
}

void budget__tick(struct consensus *consensus) {
    const struct config *config = consensus->options.config;
    uint64_t budget_us = (uint64_t)config->restart_budget_s * 1000 * 1000;
    struct storage_unflushed unflushed;
    storage_get_unflushed(consensus->storage, &unflushed);
    if (!replay_wants_flush(&consensus->replay_speed, &unflushed, budget_us, config->memtable_bytes)) {
        return;
    }
    log_event(consensus->options.logger, LOG_INFO, "storage.flush_early",
              "entries=%" PRIu64 " bytes=%" PRIu64 " replay_ms=%" PRIu64 " budget_ms=%" PRIu64,
              unflushed.active_entries, unflushed.active_bytes,
              replay_speed_estimate_us(&consensus->replay_speed, unflushed.active_entries, unflushed.active_bytes) /
                  1000,
              budget_us / 1000);
    storage_flush(consensus->storage);
}
