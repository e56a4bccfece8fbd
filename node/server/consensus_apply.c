/*
 * Committed entries into the engine, in order, each exactly once.
 *
 * Records come from the log's memory; those that aren't there any more (after a restart, say) are read back, and apply
 * waits for that read without holding up the thread. A record that can't be read or understood ends the node: it never
 * becomes an outcome.
 *
 * A store that went back (rebuild.h) gets entries again that were applied before: nobody waits for those.
 */
#include "node/server/consensus_internal.h"

#include <inttypes.h>

enum {
    APPLY_READ_BYTES = 1024 * 1024,
    APPLY_READ_COUNT = 4096,
    APPLY_TURN_BYTES = 1024 * 1024 /* or one entry: the next ones wait for what else the loop has to do */
};

void apply__set_durable(struct consensus *consensus) {
    uint64_t synced_index = raft_synced_index(consensus->raft);
    storage_set_durable(consensus->storage,
                        synced_index < consensus->commit_index ? synced_index : consensus->commit_index);
}

static enum status apply_record(struct consensus *consensus, const struct wal_record *record, struct error *err) {
    struct slice batch = SLICE_EMPTY;
    switch (record->kind) {
    case RAFT_ENTRY_NOOP:
    case RAFT_ENTRY_CONFIG:
    case RAFT_ENTRY_DIGEST: break;
    case RAFT_ENTRY_DATA: batch = record->payload; break;
    default:
        return error_set(err, STATUS_UNSUPPORTED, "entry %" PRIu64 " is of kind %u, which this version does not know",
                         record->index, record->kind);
    }
    bool is_again = record->index <= storage_applied_index(consensus->storage);
    enum status status = member__applying(consensus, record, err);
    if (status == STATUS_OK) {
        status = storage_apply(consensus->storage, record->index, record->term, batch, err);
    }
    if (status == STATUS_OK) {
        consensus->applied_progress_us = consensus__now_us(consensus);
    }
    if (status == STATUS_OK && !is_again) {
        propose__applied(consensus, record->index, record->term);
        member__applied(consensus, record);
        scan__applied(consensus, record);
    }
    return status;
}

static void fail_apply(struct consensus *consensus, struct error *error, uint64_t index) {
    error_prefix(error, "entry %" PRIu64 " can't be applied", index);
    consensus->apply_suspended = true;
    consensus__fail(consensus, error);
}

/* True if the hook holds apply back. */
static bool hook_delays(struct consensus *consensus, uint64_t index) {
    struct env *env = consensus->options.env;
    if (index == consensus->apply_delayed_index) {
        return false;
    }
    struct fault_action action = fault_hit(env->faults, FAULT_APPLY);
    uint64_t delay_us = CONSENSUS_HOUSEKEEPING_US;
    struct error error;
    switch (action.kind) {
    case FAULT_KIND_OFF: return false;
    case FAULT_KIND_EXIT: env_exit(env, action.argument);
    case FAULT_KIND_ERROR:
    case FAULT_KIND_SHORT:
        (void)error_set(&error, STATUS_IO, "fault hook apply");
        fail_apply(consensus, &error, index);
        return true;
    case FAULT_KIND_DELAY:
        delay_us = (uint64_t)action.argument * 1000;
        consensus->apply_delayed_index = index;
        break;
    case FAULT_KIND_HANG: break; /* asked again after each housekeeping interval, until disarmed */
    }
    if (env_timer_arm(&consensus->apply_timer, consensus__now_us(consensus) + delay_us) != STATUS_OK) {
        (void)error_set(&error, STATUS_NO_MEMORY, "the apply timer can't be armed");
        fail_apply(consensus, &error, index);
    }
    return true;
}

static void applied_some(struct consensus *consensus) {
    uint64_t applied_index = storage_applied_index(consensus->storage);
    wal_set_applied(consensus->wal, applied_index);
    apply__set_durable(consensus);
    digest__applied(consensus);
    read__applied(consensus);
}

static void on_read(struct wal_read *read) {
    struct consensus *consensus = CONTAINER_OF(read, struct consensus, apply_read);
    consensus->apply_reading = false;
    consensus->apply_suspended = false;
    if (consensus__is_dead(consensus)) {
        wal_read_release(read);
        return;
    }
    struct error error = read->error;
    enum status status = read->status;
    uint64_t index = read->first_index;
    if (index != storage_inserted_index(consensus->storage) + 1) {
        consensus__schedule(consensus); /* a snapshot was installed meanwhile */
        wal_read_release(read);
        return;
    }
    struct slice cursor = read->records;
    uint64_t begin_us = budget__begin_us(consensus);
    while (status == STATUS_OK && cursor.len > 0 && index <= consensus->commit_index &&
           storage_can_apply(consensus->storage)) {
        struct wal_record record;
        status = wal_record_decode(&cursor, &record, &error);
        if (status == STATUS_OK) {
            CHECK(record.index == index);
            status = apply_record(consensus, &record, &error);
            index++;
        }
    }
    if (status != STATUS_OK) {
        fail_apply(consensus, &error, index);
    } else {
        budget__note_applied(consensus, index - read->first_index, read->records.len - cursor.len, begin_us);
        applied_some(consensus);
        consensus__schedule(consensus);
    }
    wal_read_release(read);
}

static void read_back(struct consensus *consensus, uint64_t index) {
    uint64_t wanted = consensus->commit_index - index + 1;
    consensus->apply_reading = true;
    consensus->apply_suspended = true;
    consensus->apply_read =
        (struct wal_read){.first_index = index,
                          .count_max = wanted < APPLY_READ_COUNT ? (uint32_t)wanted : APPLY_READ_COUNT,
                          .bytes_max = APPLY_READ_BYTES,
                          .done = on_read};
    wal_read(consensus->wal, &consensus->apply_read);
}

void apply__installed(struct consensus *consensus) {
    scan__forget(consensus);
    consensus->applied_progress_us = consensus__now_us(consensus);
    applied_some(consensus);
    consensus__schedule(consensus);
}

void apply__on_timer(struct env_timer *timer) {
    struct consensus *consensus = CONTAINER_OF(timer, struct consensus, apply_timer);
    consensus->apply_suspended = false;
    consensus__schedule(consensus);
}

void apply__advance(struct consensus *consensus) {
    uint64_t index = storage_inserted_index(consensus->storage) + 1;
    uint64_t begin_us = budget__begin_us(consensus);
    uint32_t count = 0;
    size_t bytes = 0;
    while (!consensus->apply_suspended && index <= consensus->commit_index) {
        struct wal_record record;
        struct error error = {0};
        if (!storage_can_apply(consensus->storage)) {
            consensus->apply_suspended = true; /* until consensus__can_apply */
            break;
        }
        bool turn_is_full = count == CONSENSUS_APPLY_MAX || bytes >= APPLY_TURN_BYTES;
        if (turn_is_full || hook_delays(consensus, index)) {
            consensus->apply_suspended = true;
            if (turn_is_full && env_timer_arm(&consensus->apply_timer, consensus__now_us(consensus)) != STATUS_OK) {
                (void)error_set(&error, STATUS_NO_MEMORY, "the apply timer can't be armed");
                fail_apply(consensus, &error, index);
            }
            break;
        }
        enum status status = wal_cached_record(consensus->wal, index, &record);
        if (status == STATUS_NOT_FOUND) {
            read_back(consensus, index);
            break;
        }
        status = status == STATUS_OK ? apply_record(consensus, &record, &error)
                                     : error_set(&error, status, "the log has no record");
        if (status != STATUS_OK) {
            fail_apply(consensus, &error, index);
            break;
        }
        index++;
        count++;
        bytes += record.bytes.len;
    }
    if (count > 0) {
        budget__note_applied(consensus, count, bytes, begin_us);
        applied_some(consensus);
    }
}
