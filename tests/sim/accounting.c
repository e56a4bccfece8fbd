/*
 * One log (DESIGN section 3): what each node does to its files, as its env sees it.
 *
 *   each group costs exactly one asynchronous write with DSYNC, to a log segment, and no other sync;
 *   no other file is written, but by segments being made or deleted, by flushes, compactions and what they leave
 * over, and by snapshots on their way.
 *
 * Counted in every seed, from the end of a node's recovery to its crash, failure or stop. The owner of the numbers is
 * the simulator's trace; a completed group is what the log itself counts.
 */
#include "tests/sim/cluster.h"

#include "storage/storage_internal.h"

#include <inttypes.h>

static bool has_suffix(const char *text, const char *suffix) {
    size_t len = strlen(text);
    size_t suffix_len = strlen(suffix);
    return len >= suffix_len && strcmp(text + len - suffix_len, suffix) == 0;
}

static bool is_under(const char *path, const char *dir) { return strncmp(path, dir, strlen(dir)) == 0; }

/* A checkpoint that is linked, or a received one that is taken in. */
static bool upkeep_runs(const struct storage *storage) {
    return !list_is_empty(&storage->upkeeps) &&
           LIST_ENTRY(storage->upkeeps.next, struct storage_upkeep, link)->is_running;
}

static bool engine_works(const struct storage *storage) {
    return storage->flush.running || storage->edit.running || storage->jobs_running > 0 || storage->reap.running ||
           upkeep_runs(storage);
}

/* A call that changes a file or a directory, while the node serves. */
static bool is_accounted_for(const struct consensus *consensus, const struct sim_trace *trace) {
    if (is_under(trace->text, "/data/db.faulty")) {
        return consensus->rebuild.is_tidying;
    }
    if (is_under(trace->text, "/data/db")) {
        return engine_works(consensus->storage);
    }
    if (is_under(trace->text, "/data/snapshot-")) {
        return upkeep_runs(consensus->storage) || snapshots_work(consensus->snapshots);
    }
    switch (trace->kind) {
    case SIM_TRACE_IO_WRITE_DSYNC: return is_under(trace->text, "/data/wal/") && has_suffix(trace->text, ".log");
    case SIM_TRACE_WRITE:
    case SIM_TRACE_SYNC: return is_under(trace->text, "/data/wal/") && has_suffix(trace->text, ".log.tmp");
    case SIM_TRACE_RENAME: /* prepared, or set aside to be used again */
    case SIM_TRACE_UNLINK: return is_under(trace->text, "/data/wal/");
    case SIM_TRACE_SYNC_DIR:
        if (strcmp(trace->text, "/data") == 0) { /* where a snapshot's directory has its name */
            return upkeep_runs(consensus->storage) || snapshots_work(consensus->snapshots) ||
                   consensus->rebuild.is_tidying;
        }
        return is_under(trace->text, "/data/wal");
    default: return false;
    }
}

static bool changes_something(enum sim_trace_kind kind) {
    switch (kind) {
    case SIM_TRACE_WRITE:
    case SIM_TRACE_WRITE_DSYNC:
    case SIM_TRACE_MAP:
    case SIM_TRACE_SYNC:
    case SIM_TRACE_TRUNCATE:
    case SIM_TRACE_RENAME:
    case SIM_TRACE_HARD_LINK:
    case SIM_TRACE_UNLINK:
    case SIM_TRACE_MKDIR:
    case SIM_TRACE_SYNC_DIR:
    case SIM_TRACE_IO_WRITE:
    case SIM_TRACE_IO_WRITE_DSYNC:
    case SIM_TRACE_IO_SYNC: return true;
    default: return false;
    }
}

void accounting__note(void *context, const struct sim_trace *trace) {
    struct cluster *cluster = context;
    if (!changes_something(trace->kind)) {
        return;
    }
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct replica *replica = &cluster->replicas[i];
        if (strcmp(replica->config.name, trace->node) != 0) {
            continue;
        }
        const struct consensus *consensus = replica__consensus(replica);
        if (trace->kind == SIM_TRACE_RENAME && strstr(trace->text, "/CURRENT") != NULL) {
            plan__manifest_switched(replica);
        }
        replica->group_writes += trace->kind == SIM_TRACE_IO_WRITE_DSYNC;
        if (consensus != NULL && !consensus__is_dead(consensus) && !is_accounted_for(consensus, trace)) {
            cluster__fail(cluster, "%s: unexpected %s of %s", trace->node, sim_trace_name(trace->kind), trace->text);
        }
    }
}

void accounting__final(struct cluster *cluster, const struct replica *replica) {
    struct wal_stats wal;
    wal_get_stats(replica__consensus(replica)->wal, &wal);
    uint64_t in_flight = wal.inflight_since_us != 0 ? 1 : 0;
    if (replica->group_writes < wal.groups || replica->group_writes > wal.groups + in_flight) {
        cluster__fail(cluster, "%s wrote %" PRIu64 " groups with %" PRIu64 " writes", replica->config.name, wal.groups,
                      replica->group_writes);
    }
    cluster->stats.groups += wal.groups;
}
