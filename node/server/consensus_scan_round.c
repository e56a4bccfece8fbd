/*
 * The leader's side of the scan digest: rounds begun, members asked, the answers judged. What a scan is stands in
 * consensus_scan.c.
 *
 *   due or asked for --> DIGEST entry proposed --applied here--> open --all that are there have answered--> judged
 *
 *   all alike                    good
 *   a quorum alike, some not     those are suspected: log, status, and they are told, and told to fill their stores
 *                                again, if they are configured to (rebuild_on_mismatch). A leader among them hands the
 *                                lead over first, to a member of the quorum; the next leader names it then
 *   not alike, no quorum alike   nobody is suspected: log, status
 *   alike, not all answered      incomplete: nothing is said of those that are missing
 *
 * A round belongs to its entry, not to a leader: who becomes leader and has applied one asks for the newest again, and
 * judges it anew. So a round survives its leader, and one that was judged is judged alike.
 *
 * After an alarm the suspected ones are asked now and then: one that has no such scan any more has another store, and a
 * new round follows soon. Rounds of itself begin every scan_digest_interval after the last entry that this node
 * applied, or after its start. Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum { ASK_US = 500 * 1000, PROPOSAL_US = 10 * 1000 * 1000 };

#define SECOND_US     UINT64_C(1000000)
#define ROUND_US_MAX  (SECOND_US * 62 * 60) /* longer than any scan (SCAN_US_MAX) */
#define AWAY_US       (10 * SECOND_US)      /* of silence: a member isn't waited for any more */
#define LOOK_AGAIN_US (5 * SECOND_US)       /* at suspected ones */
#define NEXT_ROUND_US (20 * SECOND_US)      /* the least between two that nobody asked for, or the interval */

enum { RETRY_PART = 8 }; /* of the interval: when the next one follows one that some didn't answer */

const char *consensus_scan_verdict_name(enum consensus_scan_verdict verdict) {
    static const char *const names[] = {"none", "open", "alike", "differs", "split", "incomplete"};
    CHECK((unsigned)verdict < sizeof names / sizeof names[0]);
    return names[verdict];
}

static uint64_t interval_us(const struct consensus *consensus) {
    return SECOND_US * consensus->options.config->scan_digest_interval_s;
}

/* ---- The members ------------------------------------------------------------------------------------------------ */

static struct consensus_scan_member *find(struct consensus_scan_round *round, uint64_t id) {
    for (uint32_t i = 0; i < round->member_count; i++) {
        if (round->members[i].id == id) {
            return &round->members[i];
        }
    }
    return NULL;
}

static bool is_final(const struct consensus_scan_member *member) {
    return member->state == CONSENSUS_SCAN_DONE || member->state == CONSENSUS_SCAN_MISSING;
}

/* Who is a member now: what others said is dropped, who came is asked. */
static void follow_membership(struct consensus *consensus) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    struct consensus_scan_round *round = &consensus->scan.round;
    struct consensus_scan_member members[LIMIT_MEMBERS];
    for (uint32_t i = 0; i < membership->member_count; i++) {
        const struct consensus_scan_member *known = find(round, membership->members[i].id);
        members[i] = known != NULL ? *known : (struct consensus_scan_member){.id = membership->members[i].id};
    }
    round->member_count = membership->member_count;
    memcpy(round->members, members, round->member_count * sizeof members[0]);
    struct consensus_scan_member *own = find(round, consensus->options.config->id);
    if (own != NULL) {
        bool is_suspected = own->is_suspected;
        scan__own_report(consensus, round->index, own);
        own->is_suspected = is_suspected;
    }
}

/* Who hasn't been heard for a while isn't waited for; its scan, if it has one, is for a later round to compare. */
static void give_up_on_those_away(struct consensus *consensus) {
    struct consensus_scan *scan = &consensus->scan;
    uint64_t now_us = consensus__raft_now_us(consensus);
    if (consensus__now_us(consensus) - scan->opened_us < AWAY_US) {
        return;
    }
    for (uint32_t i = 0; i < scan->round.member_count; i++) {
        struct consensus_scan_member *member = &scan->round.members[i];
        struct raft_peer_info info;
        if (!is_final(member) && raft_peer(consensus->raft, member->id, &info) == STATUS_OK &&
            (info.last_heard_us == 0 || now_us - info.last_heard_us >= AWAY_US)) {
            member->state = CONSENSUS_SCAN_MISSING;
            (void)snprintf(member->reason, sizeof member->reason, "it is away");
        }
    }
}

static bool all_are_final(const struct consensus_scan_round *round) {
    for (uint32_t i = 0; i < round->member_count; i++) {
        if (!is_final(&round->members[i])) {
            return false;
        }
    }
    return true;
}

/* ---- The verdict ------------------------------------------------------------------------------------------------ */

/* Once for each new finding; the status keeps it until a later round finds no difference. */
static void raise_alarm(struct consensus *consensus, const struct digest_votes *votes, const char *suspects,
                        const char *advice) {
    struct consensus_scan *scan = &consensus->scan;
    char list[DIGEST_LIST_BYTES];
    bool is_same = scan->problem[0] != '\0' && strcmp(scan->suspects, suspects) == 0;
    scan->mismatches++;
    if (is_same) {
        return;
    }
    (void)snprintf(scan->suspects, sizeof scan->suspects, "%s", suspects);
    digest_votes_list(consensus, votes, list, sizeof list);
    log_event(consensus->options.logger, LOG_ERROR, "scan.mismatch",
              "index=%" PRIu64 " suspected=%s digests=%s rebuild=\"%s\"", scan->round.index,
              suspects[0] != '\0' ? suspects : "none", list, advice);
}

static void alarm_minority(struct consensus *consensus, const struct digest_votes *votes,
                           const struct digest *majority) {
    struct consensus_scan *scan = &consensus->scan;
    char suspects[DIGEST_NAMES_BYTES];
    struct digest odd = *majority;
    digest_votes_suspects(consensus, votes, majority, suspects, sizeof suspects, &odd);
    raise_alarm(consensus, votes, suspects, "holdfastctl member rebuild NAME, for each of the suspected nodes");
    (void)snprintf(scan->problem, sizeof scan->problem,
                   "at revision %" PRIu64 " %.64s holds other data than the majority: 'member rebuild' it",
                   scan->round.index, suspects);
    digest_votes_order_rebuilds(consensus, votes, majority);
    for (uint32_t i = 0; i < scan->round.member_count; i++) {
        struct consensus_scan_member *member = &scan->round.members[i];
        member->is_suspected = member->state == CONSENSUS_SCAN_DONE && !digest_equal(&member->digest, majority);
    }
}

static void alarm_split(struct consensus *consensus, const struct digest_votes *votes) {
    struct consensus_scan *scan = &consensus->scan;
    raise_alarm(consensus, votes, "", "no majority agrees: find out which node is right first");
    (void)snprintf(scan->problem, sizeof scan->problem,
                   "at revision %" PRIu64
                   " the nodes hold different data, and no majority agrees: the log of this node has their digests",
                   scan->round.index);
}

static void agree(struct consensus *consensus, const struct digest *digest) {
    struct consensus_scan *scan = &consensus->scan;
    scan->agreed_index = scan->round.index;
    scan->agreed = *digest;
    if (scan->round.verdict == CONSENSUS_SCAN_ALIKE && scan->problem[0] != '\0') {
        scan->problem[0] = '\0';
    }
    char digits[DIGEST_HEX_BYTES];
    log_event(consensus->options.logger, LOG_INFO, "scan.agrees", "index=%" PRIu64 " verdict=%s digest=%s",
              scan->round.index, consensus_scan_verdict_name(scan->round.verdict), digest_hex(digest, digits));
}

static struct digest_votes collect_votes(const struct consensus_scan_round *round) {
    struct digest_votes votes = {.count = 0};
    for (uint32_t i = 0; i < round->member_count; i++) {
        if (round->members[i].state == CONSENSUS_SCAN_DONE) {
            (void)digest_votes_add(&votes, round->members[i].id, &round->members[i].digest);
        }
    }
    return votes;
}

/* A leader among the suspected ones gives the lead to one of the majority. */
static void hand_over_if_suspected(struct consensus *consensus) {
    struct consensus_scan_round *round = &consensus->scan.round;
    const struct consensus_scan_member *own = find(round, consensus->options.config->id);
    if (own == NULL || !own->is_suspected) {
        return;
    }
    const struct digest_votes votes = collect_votes(round);
    const struct digest *majority = digest_votes_majority(consensus, &votes);
    if (majority != NULL) {
        digest_votes_hand_over(consensus, &votes, majority, "scan.hand_over");
    }
}

static void judge(struct consensus *consensus) {
    struct consensus_scan *scan = &consensus->scan;
    struct consensus_scan_round *round = &scan->round;
    const struct digest_votes votes = collect_votes(round);
    const struct digest *majority = digest_votes_majority(consensus, &votes);
    bool are_alike = digest_votes_are_alike(&votes);
    round->elapsed_us = consensus__now_us(consensus) - scan->round_begun_us;
    if (!are_alike && majority == NULL) {
        round->verdict = CONSENSUS_SCAN_SPLIT;
        alarm_split(consensus, &votes);
    } else if (!are_alike) {
        round->verdict = CONSENSUS_SCAN_DIFFERS;
        alarm_minority(consensus, &votes, majority);
        hand_over_if_suspected(consensus);
    } else {
        round->verdict = votes.count == round->member_count ? CONSENSUS_SCAN_ALIKE : CONSENSUS_SCAN_INCOMPLETE;
        if (majority != NULL) {
            agree(consensus, majority);
        }
        if (round->verdict == CONSENSUS_SCAN_INCOMPLETE) {
            scan->due_us = consensus__now_us(consensus) + interval_us(consensus) / RETRY_PART;
        }
    }
}

void scan_round__reported(struct consensus *consensus, uint64_t from, uint64_t index,
                          const struct consensus_scan_member *report) {
    struct consensus_scan *scan = &consensus->scan;
    struct consensus_scan_member *member = find(&scan->round, from);
    if (scan->round_term != raft_term(consensus->raft) || scan->round.index != index || member == NULL) {
        return;
    }
    if (scan->round.verdict == CONSENSUS_SCAN_OPEN) {
        *member = *report;
    } else if (member->is_suspected && report->state == CONSENSUS_SCAN_MISSING) {
        scan->is_wanted = true; /* its store is another one now */
    }
}

/* ---- Rounds ----------------------------------------------------------------------------------------------------- */

static void ask_members(struct consensus *consensus) {
    struct consensus_scan *scan = &consensus->scan;
    struct consensus_scan_round *round = &scan->round;
    bool is_open = round->verdict == CONSENSUS_SCAN_OPEN;
    uint64_t now_us = consensus__now_us(consensus);
    if (now_us - scan->asked_us < (is_open ? ASK_US : LOOK_AGAIN_US)) {
        return;
    }
    scan->asked_us = now_us;
    for (uint32_t i = 0; i < round->member_count; i++) {
        const struct consensus_scan_member *member = &round->members[i];
        bool is_asked = is_open ? !is_final(member) : member->is_suspected;
        if (is_asked && member->id != consensus->options.config->id) {
            scan__ask(consensus, member->id, round->index, member->is_suspected);
        }
    }
    if (!is_open) {
        hand_over_if_suspected(consensus); /* it may not have come to anything before */
    }
}

static void open_round(struct consensus *consensus) {
    struct consensus_scan *scan = &consensus->scan;
    scan->round = (struct consensus_scan_round){.index = scan->index, .verdict = CONSENSUS_SCAN_OPEN};
    scan->round_term = raft_term(consensus->raft);
    scan->round_begun_us = scan->begun_us;
    scan->opened_us = consensus__now_us(consensus);
    scan->asked_us = 0;
    follow_membership(consensus);
}

static void on_proposed(struct consensus_proposal *proposal) {
    struct consensus_scan *scan = CONTAINER_OF(proposal, struct consensus_scan, proposal);
    scan->is_proposed = false; /* applied: scan_round__begun knows; else: it is wanted still, and comes again */
}

/* The last room of a log is not for this. */
static bool has_room(const struct consensus *consensus) {
    return consensus->space_problem.code == STATUS_OK && consensus->fence.reason == RAFT_FENCE_NONE;
}

static void propose(struct consensus *consensus) {
    struct consensus_scan *scan = &consensus->scan;
    uint64_t now_us = consensus__now_us(consensus);
    scan->is_proposed = true;
    scan->proposed_us = now_us;
    scan->proposal = (struct consensus_proposal){.loop = consensus->options.loop,
                                                 .deadline_us = env_clock_us(consensus->options.env) + PROPOSAL_US,
                                                 .done = on_proposed};
    propose__digest(consensus, &scan->proposal);
}

void scan_round__begun(struct consensus *consensus) {
    struct consensus_scan *scan = &consensus->scan;
    scan->is_wanted = false;
    scan->due_us = consensus__now_us(consensus) + interval_us(consensus);
    if (consensus->role == RAFT_LEADER) {
        open_round(consensus);
    }
}

/* Not the leader: what it said as one is void. */
static void rest(struct consensus_scan *scan) {
    scan->is_wanted = false;
    scan->round.verdict = CONSENSUS_SCAN_NONE;
    scan->round.index = 0;
    scan->problem[0] = '\0';
}

void scan_round__tick(struct consensus *consensus) {
    struct consensus_scan *scan = &consensus->scan;
    uint64_t now_us = consensus__now_us(consensus);
    if (consensus->role != RAFT_LEADER) {
        rest(scan);
        return;
    }
    scan->is_suspected = false; /* ... as long as that was another leader's word */
    if (scan->index != 0 && (scan->index != scan->round.index || scan->round_term != raft_term(consensus->raft))) {
        open_round(consensus);
    }
    if (scan->round.verdict == CONSENSUS_SCAN_OPEN) {
        follow_membership(consensus);
        give_up_on_those_away(consensus);
        if (all_are_final(&scan->round) || now_us - scan->round_begun_us >= ROUND_US_MAX) {
            judge(consensus);
        }
    }
    if (scan->round.index != 0) {
        ask_members(consensus);
    }
    bool is_due = interval_us(consensus) > 0 && now_us >= scan->due_us;
    scan->is_wanted = scan->is_wanted || (is_due && raft_membership(consensus->raft)->member_count > 1);
    uint64_t pause_us =
        interval_us(consensus) > 0 && interval_us(consensus) < NEXT_ROUND_US ? interval_us(consensus) : NEXT_ROUND_US;
    bool may_propose = !scan->is_proposed && scan->round.verdict != CONSENSUS_SCAN_OPEN &&
                       (scan->proposed_us == 0 || now_us - scan->proposed_us >= pause_us);
    if (scan->is_wanted && may_propose && has_room(consensus) && consensus->role == RAFT_LEADER &&
        !consensus__is_dead(consensus)) {
        propose(consensus);
    }
}

/* ---- Asked for from other threads ------------------------------------------------------------------------------- */

static enum status look(struct consensus *consensus, struct consensus_compare_query *query) {
    struct consensus_scan *scan = &consensus->scan;
    if (consensus__is_dead(consensus) || consensus->refusing) {
        return STATUS_UNAVAILABLE;
    }
    if (consensus->role != RAFT_LEADER) {
        return consensus->leader == RAFT_NO_NODE ? STATUS_UNAVAILABLE : STATUS_NOT_LEADER;
    }
    bool has_open = scan->round.verdict == CONSENSUS_SCAN_OPEN && scan->round.index != 0;
    bool may_begin = has_room(consensus);
    if (query->begin && !has_open && !scan->is_proposed && !may_begin) {
        return STATUS_NO_SPACE;
    }
    if (query->begin && !has_open && !scan->is_proposed) {
        scan->is_wanted = true;
        scan->proposed_us = 0; /* somebody asks: no pause */
        query->above_index = raft_last_index(consensus->raft);
        scan_round__tick(consensus);
    } else if (query->begin) {
        query->above_index = has_open ? scan->round.index - 1 : scan->round.index;
    }
    query->is_open = has_open || scan->is_proposed || (scan->is_wanted && may_begin);
    query->round = scan->round;
    if (has_open) {
        query->round.elapsed_us = consensus__now_us(consensus) - scan->round_begun_us;
    }
    for (uint32_t i = 0; i < query->round.member_count; i++) {
        (void)snprintf(query->names[i], sizeof query->names[i], "%s",
                       member__name(consensus, query->round.members[i].id));
    }
    return STATUS_OK;
}

static void run_done(struct env_message *message) {
    struct consensus_compare_query *query = CONTAINER_OF(message, struct consensus_compare_query, message);
    query->done(query);
}

static void run_query(struct env_message *message) {
    struct consensus_compare_query *query = CONTAINER_OF(message, struct consensus_compare_query, message);
    query->status = look(query->consensus, query);
    query->message.run = run_done;
    env_post(query->loop, &query->message);
}

void consensus_compare(struct consensus *consensus, struct consensus_compare_query *query) {
    query->consensus = consensus;
    query->is_open = false;
    query->above_index = 0;
    query->round = (struct consensus_scan_round){.index = 0};
    query->message.run = run_query;
    env_post(consensus->options.loop, &query->message);
}
