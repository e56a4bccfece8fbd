/*
 * New members are tried before they are proposed: who isn't there, is another node, or doesn't know us, would be a
 * learner that never gets anything, and mostly is a mistyped address.
 *
 * One part of a change at a time: its probe ends in a refusal, or the change goes on where it was, with raft's guards
 * asked again; so what would be refused anyway costs no connection, and what came meanwhile counts. A part that is
 * `unreachable_too` isn't tried. Nothing waits for it but the change itself: it ends when the change does, by deadline,
 * by the node's end, or because the lead is lost.
 *
 *   change->tried   parts in front that need no probe any more
 *   change->probe   of the part behind them; NULL: none is under way
 *
 * Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"

enum { REACH_TIMEOUT_US = 1000 * 1000 };

/* "host:port can't be reached: why: what to do". */
static void explain(struct error *err, const char *address, const char *reason) {
    struct error text = {0};
    (void)error_set(&text, STATUS_CONDITION,
                    "%.64s can't be reached: %.90s: start the node with join = on first, or say --unreachable to add "
                    "it nevertheless",
                    address, reason);
    *err = text;
}

bool reach__is_needed(const struct consensus *consensus, struct consensus_change *change) {
    while (change->tried < change->change_count &&
           (change->changes[change->tried].type != RAFT_CHANGE_ADD_LEARNER || change->unreachable_too[change->tried])) {
        change->tried++;
    }
    return change->tried < change->change_count && raft_role(consensus->raft) == RAFT_LEADER &&
           raft_check_change(consensus->raft, change->changes, change->change_count) == RAFT_REFUSAL_NONE;
}

static void on_probed(void *context, const struct error *err) {
    struct consensus_change *change = context;
    struct consensus *consensus = change->reaching;
    const char *address = change->changes[change->tried].address;
    change->probe = NULL;
    if (err->code == STATUS_OK) {
        change->tried++;
        member__go_on(consensus, change);
        return;
    }
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    log_event(consensus->options.logger, LOG_WARN, "member.unreachable", "id=%llu addr=%s reason=%s",
              (unsigned long long)change->changes[change->tried].id, address,
              log_quote(quoted, sizeof quoted, err->message));
    change->refusal = RAFT_REFUSAL_UNREACHABLE;
    explain(&change->err, address, err->message);
    member__refused(consensus, change);
}

enum status reach__begin(struct consensus *consensus, struct consensus_change *change) {
    CHECK(change->probe == NULL && change->tried < change->change_count);
    const struct raft_change *part = &change->changes[change->tried];
    const struct peers_probe_target target = {.address = part->address,
                                              .node_id = part->id,
                                              .thumbprint = part->thumbprint};
    uint64_t now_us = env_clock_us(consensus->options.env);
    uint64_t left_us = change->deadline_us > now_us ? change->deadline_us - now_us : 0;
    uint64_t timeout_us = left_us / 2 < REACH_TIMEOUT_US ? left_us / 2 : REACH_TIMEOUT_US;
    struct error error = {0};
    change->reaching = consensus;
    change->term = consensus->term;
    enum status status = peers_probe(consensus->peers, &target, timeout_us, on_probed, change, &change->probe, &error);
    if (status == STATUS_OK || status == STATUS_BUSY || status == STATUS_NO_MEMORY || status == STATUS_UNAVAILABLE) {
        change->err = error;
        return status;
    }
    change->refusal = RAFT_REFUSAL_UNREACHABLE; /* no connection can even be begun: an address that makes no sense */
    explain(&change->err, part->address, error.message);
    return STATUS_CONDITION;
}

void reach__cancel(struct consensus_change *change) {
    if (change->probe != NULL) {
        peers_probe_cancel(change->probe);
        change->probe = NULL;
    }
}
