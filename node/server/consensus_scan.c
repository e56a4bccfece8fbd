/*
 * The scan digest: all data of all members compared, at the revision of a committed entry (DESIGN section 5).
 *
 * A DIGEST entry changes nothing. Whoever applies it takes a view of its store as it is then and makes a digest of all
 * that can be seen in it (storage/digest_scan.c), on a worker, at scan_digest_bytes_per_second. So all members look at
 * the same revision, whatever they apply meanwhile. It finds what the chain over applied effects can't: what changed
 * after it was applied, in memory, in a compaction, on a disk that lies.
 *
 *   none --entry applied--> RUNNING --> DONE, or MISSING: unreadable, too long, superseded, off
 *    ^------------------------+-- a snapshot is installed --+
 *
 * The newest scan's result is kept until the next entry or until a snapshot takes the place of the store; it isn't kept
 * over a restart, and entries that a restart replays ask for nothing. The leader asks for it (FRAME_SCAN_ASK) as often
 * as it likes; the answer is what there is. So a lost message or a new leader costs nothing. What the leader makes of
 * it is in consensus_scan_round.c.
 *
 * A scan holds back the space of what compactions replace meanwhile: it ends after SCAN_US_MAX in any case.
 *
 * Messages count only within a term and from its leader, or to it. Owner: the consensus loop. Memory: what is in struct
 * consensus_scan.
 */
#include "node/base/arena.h"
#include "node/server/consensus_internal.h"
#include "proto/connection.h"
#include "proto/frame.h"
#include "proto/wire.pb-c.h"

#include <inttypes.h>
#include <stdio.h>

enum { SCAN_MINUTES_MAX = 60, ARENA_CHUNK_BYTES = 1024, ARENA_BUDGET_BYTES = 16 * 1024 };

#define SCAN_US_MAX (UINT64_C(1000000) * 60 * SCAN_MINUTES_MAX)

const char *consensus_scan_state_name(enum consensus_scan_state state) {
    static const char *const names[] = {"none", "scanning", "done", "missing"};
    CHECK((unsigned)state < sizeof names / sizeof names[0]);
    return names[state];
}

void scan__init(struct consensus *consensus) {
    uint64_t interval_us = UINT64_C(1000000) * consensus->options.config->scan_digest_interval_s;
    consensus->scan.due_us = consensus__now_us(consensus) + interval_us;
}

/* ---- The scan --------------------------------------------------------------------------------------------------- */

static void miss(struct consensus_scan *scan, const char *reason) {
    scan->state = CONSENSUS_SCAN_MISSING;
    scan->reason = reason;
}

static void take_result(struct consensus *consensus, const struct storage_digest_scan *job) {
    struct consensus_scan *scan = &consensus->scan;
    uint64_t ms = (consensus__now_us(consensus) - scan->begun_us) / 1000;
    if (job->upkeep.status == STATUS_OK) {
        char digits[DIGEST_HEX_BYTES];
        scan->state = CONSENSUS_SCAN_DONE;
        scan->keys = job->keys;
        scan->bytes = job->bytes;
        scan->digest = job->digest;
        log_event(consensus->options.logger, LOG_INFO, "scan.ended",
                  "index=%" PRIu64 " keys=%" PRIu64 " bytes=%" PRIu64 " ms=%" PRIu64 " digest=%s", scan->index,
                  scan->keys, scan->bytes, ms, digest_hex(&scan->digest, digits));
        return;
    }
    if (scan->state == CONSENSUS_SCAN_RUNNING) { /* else it was stopped, and why is known */
        (void)snprintf(scan->error, sizeof scan->error, "%s", job->upkeep.error.message);
        miss(scan, scan->error);
    }
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    log_event(consensus->options.logger, LOG_WARN, "scan.failed", "index=%" PRIu64 " ms=%" PRIu64 " reason=%s",
              scan->index, ms, log_quote(quoted, sizeof quoted, scan->reason));
}

static void on_done(struct storage_upkeep *upkeep) {
    struct consensus *consensus = upkeep->context;
    struct consensus_scan *scan = &consensus->scan;
    const struct storage_digest_scan *job = CONTAINER_OF(upkeep, struct storage_digest_scan, upkeep);
    uint32_t at = job == &scan->jobs[0] ? 0 : 1;
    CHECK(scan->is_used[at]);
    scan->is_used[at] = false;
    if (at == scan->newest && scan->index == job->revision) {
        take_result(consensus, job);
    }
}

static void stop(struct consensus_scan *scan) {
    if (scan->is_used[scan->newest]) {
        storage_upkeep_cancel(&scan->jobs[scan->newest].upkeep);
    }
}

static void begin(struct consensus *consensus, uint64_t index) {
    struct consensus_scan *scan = &consensus->scan;
    uint32_t at = scan->is_used[0] ? 1 : 0;
    if (consensus->options.config->scan_digest_rate == 0) {
        miss(scan, "scan_digest_bytes_per_second is 0 on this node");
        return;
    }
    if (scan->is_used[at]) {
        miss(scan, "two earlier scans haven't stopped yet");
        return;
    }
    struct storage_digest_scan *job = &scan->jobs[at];
    memset(job, 0, sizeof *job);
    job->upkeep.done = on_done;
    job->upkeep.context = consensus;
    job->revision = index;
    job->bytes_per_second = consensus->options.config->scan_digest_rate;
    scan->is_used[at] = true;
    scan->newest = at;
    scan->state = CONSENSUS_SCAN_RUNNING;
    storage_scan_digest(consensus->storage, job);
    log_event(consensus->options.logger, LOG_INFO, "scan.begun", "index=%" PRIu64, index);
}

void scan__applied(struct consensus *consensus, const struct wal_record *record) {
    struct consensus_scan *scan = &consensus->scan;
    if (record->kind != RAFT_ENTRY_DIGEST) {
        return;
    }
    stop(scan);
    scan->index = record->index;
    scan->begun_us = consensus__now_us(consensus);
    scan->is_suspected = false;
    begin(consensus, record->index);
    scan_round__begun(consensus);
}

void scan__forget(struct consensus *consensus) {
    struct consensus_scan *scan = &consensus->scan;
    stop(scan);
    scan->index = 0;
    scan->is_suspected = false;
}

static void end_late(struct consensus *consensus) {
    struct consensus_scan *scan = &consensus->scan;
    if (scan->index != 0 && scan->state == CONSENSUS_SCAN_RUNNING &&
        consensus__now_us(consensus) - scan->begun_us >= SCAN_US_MAX) {
        (void)snprintf(scan->error, sizeof scan->error,
                       "it took longer than %d minutes: raise scan_digest_bytes_per_second", SCAN_MINUTES_MAX);
        miss(scan, scan->error);
        stop(scan);
    }
}

void scan__tick(struct consensus *consensus) {
    end_late(consensus);
    scan_round__tick(consensus);
}

void scan__own_report(const struct consensus *consensus, uint64_t index, struct consensus_scan_member *ret_report) {
    const struct consensus_scan *scan = &consensus->scan;
    struct consensus_scan_member report = {.id = consensus->options.config->id, .state = CONSENSUS_SCAN_MISSING};
    const char *reason = "";
    if (scan->index != index) {
        bool is_behind = storage_applied_index(consensus->storage) < index;
        report.state = is_behind ? CONSENSUS_SCAN_ASKED : CONSENSUS_SCAN_MISSING;
        reason = is_behind ? "" : "it restarted, got a snapshot or began another scan since";
    } else {
        report.state = scan->state;
        reason = scan->state == CONSENSUS_SCAN_MISSING ? scan->reason : "";
    }
    (void)snprintf(report.reason, sizeof report.reason, "%s", reason);
    if (report.state == CONSENSUS_SCAN_RUNNING) {
        const struct storage_upkeep *job = &scan->jobs[scan->newest].upkeep;
        report.done_bytes = atomic_load_explicit(&job->done_bytes, memory_order_relaxed);
        report.total_bytes = atomic_load_explicit(&job->total_bytes, memory_order_relaxed);
    } else if (report.state == CONSENSUS_SCAN_DONE) {
        report.done_bytes = report.total_bytes = scan->bytes;
        report.keys = scan->keys;
        report.digest = scan->digest;
    }
    *ret_report = report;
}

/* ---- Messages --------------------------------------------------------------------------------------------------- */

#define SET(message, field, value) ((message).has_##field = 1, (message).field = (value))

void scan__ask(struct consensus *consensus, uint64_t to, uint64_t index, bool is_suspected) {
    Wire__ScanAsk ask = WIRE__SCAN_ASK__INIT;
    SET(ask, term, raft_term(consensus->raft));
    SET(ask, index, index);
    SET(ask, suspected, is_suspected);
    (void)peers_send_store_frame(consensus->peers, to, false, FRAME_SCAN_ASK, &ask.base, SLICE_EMPTY);
}

static void answer(struct consensus *consensus, uint64_t to, uint64_t index) {
    struct consensus_scan_member own;
    uint8_t digest[DIGEST_BYTES];
    Wire__ScanReport report = WIRE__SCAN_REPORT__INIT;
    scan__own_report(consensus, index, &own);
    SET(report, term, raft_term(consensus->raft));
    SET(report, index, index);
    SET(report, state, (uint32_t)own.state);
    SET(report, done_bytes, own.done_bytes);
    SET(report, total_bytes, own.total_bytes);
    SET(report, keys, own.keys);
    report.reason = own.reason;
    if (own.state == CONSENSUS_SCAN_DONE) {
        digest_encode(&own.digest, digest);
        SET(report, digest, ((ProtobufCBinaryData){.data = digest, .len = sizeof digest}));
    }
    (void)peers_send_store_frame(consensus->peers, to, false, FRAME_SCAN_REPORT, &report.base, SLICE_EMPTY);
}

static void asked(struct consensus *consensus, uint64_t from, const Wire__ScanAsk *ask) {
    struct consensus_scan *scan = &consensus->scan;
    if (ask->term != raft_term(consensus->raft) || from != raft_leader(consensus->raft) || ask->index == 0) {
        return;
    }
    if (ask->suspected && !scan->is_suspected && scan->index == ask->index && scan->state == CONSENSUS_SCAN_DONE) {
        scan->is_suspected = true;
        log_event(consensus->options.logger, LOG_WARN, "scan.suspected",
                  "index=%" PRIu64 " leader=%s reason=\"this node's data differ from the majority's\"", scan->index,
                  member__name(consensus, from));
    }
    answer(consensus, from, ask->index);
}

static void reported(struct consensus *consensus, uint64_t from, const Wire__ScanReport *report) {
    struct consensus_scan_member member = {.id = from,
                                           .state = (enum consensus_scan_state)report->state,
                                           .done_bytes = report->done_bytes,
                                           .total_bytes = report->total_bytes,
                                           .keys = report->keys};
    if (report->term != raft_term(consensus->raft) || consensus->role != RAFT_LEADER ||
        report->state > CONSENSUS_SCAN_MISSING) {
        return;
    }
    if (member.state == CONSENSUS_SCAN_DONE) {
        if (report->digest.len != DIGEST_BYTES) {
            return;
        }
        member.digest = digest_decode(report->digest.data);
    }
    (void)snprintf(member.reason, sizeof member.reason, "%s", report->reason != NULL ? report->reason : "");
    for (char *at = member.reason; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            *at = '?';
        }
    }
    scan_round__reported(consensus, from, report->index, &member);
}

void scan__received(struct consensus *consensus, uint64_t from, uint8_t type, struct slice message) {
    struct arena arena;
    if (consensus__is_dead(consensus)) {
        return;
    }
    arena_init(&arena, consensus->options.env->alloc, ARENA_CHUNK_BYTES, ARENA_BUDGET_BYTES);
    if (type == FRAME_SCAN_ASK) {
        const ProtobufCMessage *ask = wire_unpack(&arena, &wire__scan_ask__descriptor, message);
        if (ask != NULL) {
            asked(consensus, from, (const Wire__ScanAsk *)(const void *)ask);
        }
    } else {
        const ProtobufCMessage *report = wire_unpack(&arena, &wire__scan_report__descriptor, message);
        if (report != NULL) {
            reported(consensus, from, (const Wire__ScanReport *)(const void *)report);
        }
    }
    arena_deinit(&arena);
}

/* ---- Status ----------------------------------------------------------------------------------------------------- */

void scan__fill_status(const struct consensus *consensus, struct consensus_status *status) {
    const struct consensus_scan *scan = &consensus->scan;
    status->scan_index = scan->agreed_index;
    digest_encode(&scan->agreed, status->scan_digest);
    status->scan_mismatches = scan->mismatches;
    status->scan_state = scan->index == 0 ? CONSENSUS_SCAN_ASKED : scan->state;
}

bool scan__problem(const struct consensus *consensus, char *ret_text, size_t size) {
    const struct consensus_scan *scan = &consensus->scan;
    if (scan->problem[0] != '\0') {
        (void)snprintf(ret_text, size, "%s", scan->problem);
    } else if (scan->is_suspected) {
        (void)snprintf(ret_text, size,
                       "at revision %" PRIu64 " the data of this node differ from the majority's: 'member rebuild' it",
                       scan->index);
    }
    return scan->problem[0] != '\0' || scan->is_suspected;
}
