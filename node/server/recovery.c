/*
 * manifest -> frontier -> log -> replay up to the recorded commit -> raft with the rest as its tail (DESIGN rule 12).
 */
#include "node/server/recovery.h"

#include "node/base/check.h"
#include "node/server/consensus_internal.h"
#include "node/server/membership.h"
#include "node/server/snapshot_files.h"
#include "node/server/store_faulty.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    PATH_BYTES = LIMIT_PATH_BYTES + 16,
    PREPARED_SEGMENTS = 1,
    SPARE_SEGMENTS = 2,
    MARK_DELAY_US = 50 * 1000,
    ADOPT_PART = 8 /* of a memtable */
};

static enum status open_storage(struct recovery *recovery, struct error *err) {
    const struct config *config = recovery->config;
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/db", config->data_dir);
    struct storage_options options;
    storage_options_init(&options);
    options.env = recovery->env;
    options.loop = recovery->loop;
    options.dir = path;
    memcpy(options.cluster_id, config->cluster_id, sizeof options.cluster_id);
    options.node_id = config->id;
    options.memtable_bytes = config->memtable_bytes;
    options.cache_bytes = config->cache_bytes;
    options.open_files_max = config->open_files_max;
    options.value_threshold_bytes = config->value_threshold_bytes;
    options.value_adopt_bytes = config->memtable_bytes / ADOPT_PART;
    options.compaction_bytes_per_second_max = config->compaction_rate;
    options.scrub_bytes_per_second = config->scrub_rate;
    options.history_revisions = config->history_revisions;
    options.change_files = config->change_files;
    options.digests = true;
    options.context = recovery->consensus;
    options.fill_frontier = consensus__fill_frontier;
    options.flushed = consensus__flushed;
    options.can_apply = consensus__can_apply;
    options.failed = consensus__storage_failed;
    options.space_state = consensus__space_state;
    options.damaged = consensus__damaged;
    return storage_open(&options, &recovery->storage, err);
}

/* A store that can't be opened is set aside; the log, where term and vote stand, fills an empty one, or its leader. */
static enum status open_store(struct recovery *recovery, struct error *err) {
    const struct config *config = recovery->config;
    enum status status = open_storage(recovery, err);
    if (status != STATUS_CORRUPT || !config->heal) {
        return status;
    }
    recovery->store_fault = *err;
    error_clear(err);
    status = store_faulty_set_aside(recovery->env, config->data_dir, err);
    return status == STATUS_OK ? open_storage(recovery, err) : status;
}

/* A group is at most a small part of a segment, so that little is left unused at its end. */
static uint32_t group_bytes_max(const struct config *config) {
    uint64_t part = config->segment_bytes / 8 / ENV_BLOCK_BYTES * ENV_BLOCK_BYTES;
    return part < LIMIT_GROUP_BYTES ? (uint32_t)part : LIMIT_GROUP_BYTES;
}

static enum status open_wal(struct recovery *recovery, struct wal_recovered *ret_recovered, struct error *err) {
    const struct config *config = recovery->config;
    const struct storage_frontier *frontier = storage_frontier(recovery->storage);
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/wal", config->data_dir);
    struct wal_options options = {
        .env = recovery->env,
        .loop = recovery->loop,
        .dir = path,
        .node_id = config->id,
        .segment_bytes = config->segment_bytes,
        .entry_payload_bytes_max = config->entry_bytes_max,
        .group_bytes_max = group_bytes_max(config),
        .prepared_segments = PREPARED_SEGMENTS,
        .spare_segments = SPARE_SEGMENTS,
        .cache_bytes_max = config->wal_cache_bytes,
        .heals = true,
        .must_exist = store_faulty_exists(recovery->env, config->data_dir),
        .share_payload_bytes = (uint32_t)config->value_threshold_bytes, /* at most LIMIT_VALUE_BYTES */
        .mark_delay_us = MARK_DELAY_US,
        .context = recovery->consensus,
        .synced = consensus__wal_synced,
        .failed = consensus__wal_failed,
        .prepare_state = consensus__wal_prepare_state,
    };
    memcpy(options.cluster_id, config->cluster_id, sizeof options.cluster_id);
    struct membership bootstrap;
    uint8_t bootstrap_bytes[MEMBERSHIP_BYTES_MAX];
    membership_bootstrap(config, &bootstrap);
    options.first_membership = slice_of(bootstrap_bytes, membership_encode(&bootstrap, bootstrap_bytes));
    struct wal_frontier start = {.index = frontier->index, .term = frontier->term};
    enum status status = wal_open(&options, &start, &recovery->wal, ret_recovered, err);
    if (status != STATUS_OK) {
        return status;
    }
    recovery->fault = ret_recovered->fault;
    if (ret_recovered->fault.final) {
        return error_set(err, STATUS_CORRUPT,
                         "the log is damaged at %s, and term and vote are lost with it: empty the data directory, and "
                         "start the node again; if the other members are up, it gets everything from them",
                         ret_recovered->fault.where);
    }
    if (ret_recovered->last_index > frontier->index && ret_recovered->first_index > frontier->index + 1) {
        return error_set(err, STATUS_CORRUPT, "the log starts at entry %" PRIu64 " but the engine ends at %" PRIu64,
                         ret_recovered->first_index, frontier->index);
    }
    return STATUS_OK;
}

/* The newest of those that are known to be committed; CONFIG entries behind it are still in the log. Of a log that lost
 * its end, or a store that is lost, it may be of an entry that isn't here any more: then it is of what is committed,
 * and the entries that come again bring it (and those before it) once more. */
static enum status find_membership(const struct recovery *recovery, const struct wal_recovered *recovered,
                                   uint64_t commit, struct membership *ret_membership, struct error *err) {
    const struct storage_frontier *frontier = storage_frontier(recovery->storage);
    struct membership newest;
    struct membership flushed = {.index = 0};
    enum status status = membership_decode(recovered->membership, &newest, err);
    if (status == STATUS_OK && frontier->membership_len > 0) {
        status = membership_decode(slice_of(frontier->membership, frontier->membership_len), &flushed, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    *ret_membership = frontier->membership_len > 0 && flushed.index >= newest.index ? flushed : newest;
    ret_membership->index = ret_membership->index < commit ? ret_membership->index : commit;
    return STATUS_OK;
}

struct replay {
    struct recovery *recovery;
    uint64_t config_index; /* the membership that raft has already */
    uint64_t skip_index;   /* loaded into raft from behind here */
    uint64_t apply_after;  /* applied from behind here */
    uint64_t apply_us;     /* when the first was */
    uint64_t commit;
};

static enum status replay_record(void *context, const struct wal_record *record, struct error *err) {
    struct replay *replay = context;
    struct recovery *recovery = replay->recovery;
    if (record->index > replay->skip_index) {
        struct raft_entry entry = {.index = record->index,
                                   .term = record->term,
                                   .size_bytes = (uint32_t)record->bytes.len,
                                   .kind = record->kind};
        struct raft_config config;
        enum status status = STATUS_OK;
        if (record->kind == RAFT_ENTRY_CONFIG && record->index > replay->config_index) {
            status = raft_config_decode(record->payload, &config, err);
            entry.config = &config;
        }
        if (status != STATUS_OK) {
            error_prefix(err, "entry %" PRIu64, record->index);
            return status;
        }
        status = raft_load_entry(recovery->raft, &entry);
        if (status != STATUS_OK) {
            return error_set(err, status, "entry %" PRIu64 " of term %" PRIu64 " doesn't follow the one before it",
                             record->index, record->term);
        }
    }
    if (record->index > replay->apply_after && record->index <= replay->commit) {
        struct slice batch = record->kind == RAFT_ENTRY_DATA ? record->payload : SLICE_EMPTY;
        if (record->kind < RAFT_ENTRY_NOOP || record->kind > RAFT_ENTRY_DIGEST) {
            return error_set(err, STATUS_UNSUPPORTED,
                             "entry %" PRIu64 " is of kind %u, which this version does not know", record->index,
                             record->kind);
        }
        replay->apply_us = recovery->replayed == 0 ? env_clock_us(recovery->env) : replay->apply_us;
        enum status status = member__applying(recovery->consensus, record, err);
        if (status == STATUS_OK) {
            status = storage_apply(recovery->storage, record->index, record->term, batch, err);
        }
        if (status != STATUS_OK) {
            error_prefix(err, "entry %" PRIu64, record->index);
            return status;
        }
        recovery->replayed++;
        recovery->replayed_bytes += batch.len;
    }
    atomic_fetch_add_explicit(&recovery->done, 1, memory_order_relaxed);
    return STATUS_OK;
}

static enum status make_raft(struct recovery *recovery, const struct wal_recovered *recovered, struct raft_saved *saved,
                             struct error *err) {
    const struct config *config = recovery->config;
    struct raft_options options;
    raft_options_init(&options);
    options.alloc = recovery->env->alloc;
    options.id = config->id;
    options.random_seed = env_random(recovery->env);
    options.election_timeout_us = (uint64_t)config->election_timeout_ms * 1000;
    options.heartbeat_interval_us = (uint64_t)config->heartbeat_ms * 1000;
    *saved = (struct raft_saved){.term = recovered->term,
                                 .vote = recovered->vote,
                                 .commit = recovered->commit,
                                 .incarnation = recovered->incarnation,
                                 .life = recovered->life,
                                 .heal_index = recovered->heal_index,
                                 .heal_term = recovered->heal_term};
    const struct storage_frontier *frontier = storage_frontier(recovery->storage);
    if (recovered->first_index > recovered->last_index) {
        saved->log_start_index = recovered->last_index;
        saved->log_start_term = frontier->term;
    } else {
        saved->log_start_index = recovered->first_index - 1;
        saved->log_start_term = recovered->start_term;
    }
    if (saved->commit < saved->log_start_index) {
        saved->commit = saved->log_start_index;
    }
    struct membership membership;
    enum status status = find_membership(recovery, recovered, saved->commit, &membership, err);
    if (status != STATUS_OK) {
        return status;
    }
    member__begin(recovery->consensus, &membership);
    saved->config = membership.config;
    saved->config_index = membership.index;
    status = raft_new(&options, saved, &recovery->raft);
    return status == STATUS_OK ? status
                               : error_set(err, status, "raft refuses the saved state: %s", status_name(status));
}

static enum status first_record_term(void *context, const struct wal_record *record, struct error *err) {
    (void)err;
    *(uint64_t *)context = record->term;
    return STATUS_OK;
}

/* If nothing tells the term before the first record, that record itself becomes the log's start. */
static enum status settle_start(struct recovery *recovery, struct wal_recovered *recovered, struct error *err) {
    bool empty = recovered->first_index > recovered->last_index;
    if (empty || recovered->first_index <= 1 || recovered->start_term != 0) {
        return STATUS_OK;
    }
    uint64_t term = 0;
    enum status status =
        wal_replay(recovery->wal, recovered->first_index, recovered->first_index, first_record_term, &term, err);
    recovered->start_term = term;
    recovered->first_index++;
    return status;
}

static enum status replay_log(struct recovery *recovery, const struct wal_recovered *recovered, struct error *err) {
    struct raft_saved saved;
    enum status status = make_raft(recovery, recovered, &saved, err);
    if (status != STATUS_OK || recovered->first_index > recovered->last_index) {
        return status;
    }
    struct replay replay = {.recovery = recovery,
                            .config_index = saved.config_index,
                            .skip_index = saved.log_start_index,
                            .apply_after = storage_applied_index(recovery->storage),
                            .commit = recovered->commit};
    recovery->tail = recovered->last_index - saved.commit;
    atomic_store_explicit(&recovery->total, recovered->last_index - recovered->first_index + 1, memory_order_relaxed);
    uint64_t begin_us = env_clock_us(recovery->env);
    atomic_store_explicit(&recovery->replay_began_us, begin_us, memory_order_relaxed);
    status = wal_replay(recovery->wal, recovered->first_index, recovered->last_index, replay_record, &replay, err);
    recovery->replay_us = recovery->replayed > 0 ? env_clock_us(recovery->env) - replay.apply_us : 0;
    return status;
}

uint64_t recovery_left_us(const struct recovery *recovery) {
    uint64_t begin_us = atomic_load_explicit(&recovery->replay_began_us, memory_order_relaxed);
    uint64_t done = atomic_load_explicit(&recovery->done, memory_order_relaxed);
    uint64_t total = atomic_load_explicit(&recovery->total, memory_order_relaxed);
    return begin_us == 0 ? UINT64_MAX : replay_left_us(done, total, env_clock_us(recovery->env) - begin_us);
}

enum status recovery_run(struct recovery *recovery, struct error *err) {
    struct wal_recovered recovered = {0};
    enum status status = data_dir_open(recovery->env, recovery->config, &recovery->dir, err);
    if (status != STATUS_OK) {
        return status;
    }
    snapshot_remove_leftovers(recovery->env, recovery->config->data_dir);
    status = open_store(recovery, err);
    if (status == STATUS_OK) {
        status = open_wal(recovery, &recovered, err);
    }
    if (status == STATUS_OK) {
        status = data_dir_renew(recovery->env, recovery->config, &recovery->dir, err);
    }
    if (status == STATUS_OK) {
        recovery->torn_bytes = recovered.torn_bytes;
        status = settle_start(recovery, &recovered, err);
    }
    if (status == STATUS_OK) {
        status = replay_log(recovery, &recovered, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "recovery of %s", recovery->config->data_dir);
    }
    return status;
}

/* ---- Giving up -------------------------------------------------------------------------------------------------- */

struct abandon {
    struct recovery *recovery;
    uint32_t pending;
    struct env_task task;
    void (*done)(void *context);
    void *context;
};

static void on_abandoned(struct env_task *task) {
    struct abandon *abandon = CONTAINER_OF(task, struct abandon, task);
    struct recovery *recovery = abandon->recovery;
    void (*done)(void *context) = abandon->done;
    void *context = abandon->context;
    mem_free(recovery->env->alloc, abandon);
    raft_free(recovery->raft);
    recovery->raft = NULL;
    done(context);
}

static void on_part_closed(void *context) {
    struct abandon *abandon = context;
    CHECK(abandon->pending > 0);
    if (--abandon->pending == 0) {
        env_defer(abandon->recovery->loop, ENV_STAGE_PROCESS, &abandon->task);
    }
}

void recovery_abandon(struct recovery *recovery, void (*done)(void *context), void *context) {
    struct abandon *abandon = mem_alloc_zero(recovery->env->alloc, sizeof *abandon);
    CHECK(abandon != NULL);
    *abandon = (struct abandon){.recovery = recovery, .pending = 1, .done = done, .context = context};
    env_task_init(&abandon->task, on_abandoned);
    if (recovery->wal != NULL) {
        abandon->pending++;
        wal_close(recovery->wal, on_part_closed, abandon);
        recovery->wal = NULL;
    }
    if (recovery->storage != NULL) {
        abandon->pending++;
        storage_close(recovery->storage, on_part_closed, abandon);
        recovery->storage = NULL;
    }
    on_part_closed(abandon);
}
