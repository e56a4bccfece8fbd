/*
 * Membership: what raft says of it carried out, and changes of it asked for by operators.
 *
 *   effective   raft_membership(): the newest in the log; whom we connect to
 *   applied     of the newest CONFIG entry that is applied: in the manifest's frontier and each segment's first group
 *
 * Connections are kept to both, so that a leader that left gets the answers which commit its leaving. Who is in neither
 * and, by the applied one, has an id that was retired, was removed: it is told, and refused from then on, also by those
 * who start later.
 *
 * A change asked for:
 *
 *   asked --(new members answer)--> asked again;  --(they don't, the lead is lost)--> surely not done
 *   asked --(raft appends CONFIG)--> LOGGED --(applied, plain)--------------------------> OK
 *     |                                 |--(applied, joint)--> LEAVING --(applied, plain)--> OK
 *     |--> refused: surely not done     |--(another entry applied at its index)----------> NOT_LEADER, surely not done
 *   asked --(raft hands the lead over)--> TRANSFER --(another leads)--> OK;  --(came to nothing)--> TIMEOUT
 *
 * Losing the lead doesn't end a change: what is applied at its index decides. Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum change_phase { CHANGE_ASKED, CHANGE_LOGGED, CHANGE_LEAVING, CHANGE_TRANSFER };

/* ---- Who is who -------------------------------------------------------------------------------------------------- */

static const struct raft_member *find_member(const struct raft_config *config, uint64_t id) {
    for (uint32_t i = 0; i < config->member_count; i++) {
        if (config->members[i].id == id) {
            return &config->members[i];
        }
    }
    return NULL;
}

const char *member__name(const struct consensus *consensus, uint64_t id) {
    const struct config_member *known = config_member_by_id(consensus->options.config, id);
    if (known != NULL) {
        return known->name;
    }
    const struct raft_member *member = find_member(raft_membership(consensus->raft), id);
    member = member != NULL ? member : find_member(&consensus->members.applied.config, id);
    return member != NULL && member->name[0] != '\0' ? member->name : "none";
}

const struct directory *consensus_directory(const struct consensus *consensus) { return &consensus->members.directory; }

static void collect(const struct consensus *consensus, const struct raft_config *membership,
                    struct directory_entries *entries) {
    for (uint32_t i = 0; i < membership->member_count; i++) {
        uint64_t position = 0;
        while (position < entries->count && entries->entries[position].id != membership->members[i].id) {
            position++;
        }
        if (position == entries->count) {
            directory_merge(consensus->options.config, &membership->members[i], &entries->entries[entries->count++]);
        }
    }
}

enum status member__connect(struct consensus *consensus) {
    struct directory_entries entries = {.count = 0};
    collect(consensus, raft_membership(consensus->raft), &entries);
    collect(consensus, &consensus->members.applied.config, &entries);
    if (told__config(consensus) != NULL) {
        collect(consensus, told__config(consensus), &entries);
    }
    directory_set(&consensus->members.directory, &entries);
    return peers_set(consensus->peers, &entries, consensus->members.applied.config.retired_id);
}

/* ---- The applied membership -------------------------------------------------------------------------------------- */

void member__begin(struct consensus *consensus, const struct membership *membership) {
    consensus->members.applied = *membership;
    consensus->members.before = *membership;
}

enum status member__save(struct consensus *consensus) {
    uint8_t bytes[MEMBERSHIP_BYTES_MAX];
    size_t len = membership_encode(&consensus->members.applied, bytes);
    return wal_set_membership(consensus->wal, slice_of(bytes, len));
}

void member__fill_frontier(const struct consensus *consensus, struct storage_frontier *frontier) {
    const struct consensus_members *members = &consensus->members;
    /* The engine may end a memtable within the call that applies a configuration, right before it. */
    const struct membership *membership =
        members->applied.index <= frontier->index ? &members->applied : &members->before;
    CHECK(membership->index <= frontier->index);
    uint8_t bytes[MEMBERSHIP_BYTES_MAX];
    frontier->membership_len = (uint32_t)membership_encode(membership, bytes);
    memcpy(frontier->membership, bytes, frontier->membership_len);
}

enum status member__applying(struct consensus *consensus, const struct wal_record *record, struct error *err) {
    struct consensus_members *members = &consensus->members;
    if (record->kind != RAFT_ENTRY_CONFIG || record->index <= members->applied.index) {
        return STATUS_OK;
    }
    struct raft_config config;
    enum status status = raft_config_decode(record->payload, &config, err);
    if (status == STATUS_OK) {
        members->before = members->applied;
        members->applied = (struct membership){.index = record->index, .config = config};
    }
    return status;
}

static const char *role_text(const struct raft_member *member) {
    static const char *const names[] = {[RAFT_VOTER] = "voter", [RAFT_LEARNER] = "learner", [RAFT_LEAVING] = "leaving"};
    return names[member->role];
}

/* Whose log is another now, and who lost his. */
static void log_incarnations(const struct consensus *consensus) {
    const struct raft_config *applied = &consensus->members.applied.config;
    for (uint32_t i = 0; i < applied->member_count; i++) {
        const struct raft_member *member = &applied->members[i];
        const struct raft_member *before = find_member(&consensus->members.before.config, member->id);
        const char *name = member__name(consensus, member->id);
        if (member->returns && (before == NULL || !before->returns)) {
            log_event(consensus->options.logger, LOG_WARN, "member.wiped",
                      "peer=%s incarnation=%016" PRIx64 " reason=\"its log is gone, and another has its id: it is a "
                      "learner until it has caught up\"",
                      name, member->incarnation);
        } else if (before != NULL && before->returns && !member->returns) {
            log_event(consensus->options.logger, LOG_INFO, "member.returned", "peer=%s role=%s", name,
                      role_text(member));
        }
        if (before != NULL && before->incarnation != member->incarnation) {
            log_event(consensus->options.logger, LOG_INFO, "member.incarnation",
                      "peer=%s incarnation=%016" PRIx64 " before=%016" PRIx64, name, member->incarnation,
                      before->incarnation);
        }
    }
}

static void log_membership(const struct consensus *consensus) {
    const struct membership *applied = &consensus->members.applied;
    char text[LIMIT_MEMBERS * (LIMIT_NAME_BYTES + 32)];
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < applied->config.member_count; i++) {
        const struct raft_member *member = &applied->config.members[i];
        int len = snprintf(text + used, sizeof text - used, "%s%s/%" PRIu64 "/%s", i == 0 ? "" : ",",
                           member__name(consensus, member->id), member->id, role_text(member));
        CHECK(len > 0 && (size_t)len < sizeof text - used);
        used += (size_t)len;
    }
    log_event(consensus->options.logger, LOG_INFO, "raft.membership", "index=%" PRIu64 " joint=%s members=%s",
              applied->index, applied->config.joint ? "true" : "false", text);
    log_incarnations(consensus);
    bool was_member = find_member(&consensus->members.before.config, consensus->options.config->id) != NULL;
    bool is_member = find_member(&applied->config, consensus->options.config->id) != NULL;
    if (was_member && !is_member) {
        log_event(consensus->options.logger, LOG_WARN, "node.removed",
                  "index=%" PRIu64 " reason=\"this node was removed from the cluster; it can be stopped\"",
                  applied->index);
    }
}

static void take_over(struct consensus *consensus) {
    log_membership(consensus);
    consensus->members.removed_by = RAFT_NO_NODE; /* who can't be one of us any more doesn't get as far as this */
    enum status status = member__save(consensus);
    if (status == STATUS_OK) {
        status = member__connect(consensus);
    }
    if (status != STATUS_OK) {
        struct error error;
        (void)error_set(&error, status, "a new membership can't be kept: %s", status_name(status));
        consensus__fail(consensus, &error);
    }
}

void member__was_removed(void *context, uint64_t by_node_id) {
    struct consensus *consensus = context;
    if (consensus->members.removed_by == RAFT_NO_NODE) {
        log_event(consensus->options.logger, LOG_WARN, "node.removed",
                  "peer=%s reason=\"a member says that this node was removed from the cluster; it can be stopped\"",
                  member__name(consensus, by_node_id));
    }
    consensus->members.removed_by = by_node_id;
}

static bool is_stranger(const struct consensus *consensus) {
    return find_member(raft_membership(consensus->raft), consensus->options.config->id) == NULL;
}

/* The others say that it is one: its own log doesn't know yet. */
static bool is_told_a_member(const struct consensus *consensus) {
    const struct raft_config *told = told__config(consensus);
    return told != NULL && find_member(told, consensus->options.config->id) != NULL;
}

bool member__is_out(const struct consensus *consensus) {
    return consensus->members.removed_by != RAFT_NO_NODE ||
           (is_stranger(consensus) && consensus->role != RAFT_LEADER); /* a leader leaves when that is committed */
}

bool member__problem(const struct consensus *consensus, char *ret_text, size_t size) {
    const struct raft_config *applied = &consensus->members.applied.config;
    if (is_stranger(consensus) && applied->member_count > 0) {
        (void)snprintf(ret_text, size,
                       "this node is not a member of the cluster (membership of entry %" PRIu64
                       "): stop it, or give it a new id and an empty data directory and add that",
                       consensus->members.applied.index);
    } else if (consensus->members.removed_by != RAFT_NO_NODE) {
        (void)snprintf(ret_text, size,
                       "%s says that this node was removed from the cluster: stop it, or give it a new id and an "
                       "empty data directory and add that",
                       member__name(consensus, consensus->members.removed_by));
    } else if (is_stranger(consensus) && !is_told_a_member(consensus)) {
        (void)snprintf(ret_text, size, "this node waits to be added: run `holdfastctl member add` on the cluster");
    } else {
        return false;
    }
    return true;
}

/* ---- Raft's updates ---------------------------------------------------------------------------------------------- */

size_t member__room(const struct consensus *consensus) {
    bool may_leave = raft_role(consensus->raft) == RAFT_LEADER && raft_membership(consensus->raft)->joint;
    bool may_begin = raft_last_index(consensus->raft) == 0;
    return WAL_RECORD_HEADER_BYTES + (may_leave || may_begin ? (size_t)RAFT_CONFIG_BYTES_MAX : 0);
}

enum status member__write(struct consensus *consensus, const struct raft_update *update) {
    uint8_t bytes[RAFT_CONFIG_BYTES_MAX];
    size_t len = raft_config_encode(update->append.config, bytes);
    uint8_t *payload;
    enum status status = wal_append_begin(consensus->wal, update->append.first_index, update->append.term,
                                          RAFT_ENTRY_CONFIG, len, &payload);
    if (status == STATUS_OK) {
        memcpy(payload, bytes, len);
        wal_append_end(consensus->wal);
        consensus->members.written_index = update->append.first_index;
    }
    return status;
}

/* what NULL: change->err says it. */
static void finish(struct consensus *consensus, struct consensus_change *change, enum status status, bool unknown,
                   const char *what) {
    CHECK(consensus->members.change_count > 0);
    consensus->members.change_count--;
    reach__cancel(change);
    change->status = status;
    change->unknown = unknown;
    if (status != STATUS_OK && what != NULL) {
        (void)error_set(&change->err, status, "%s", what);
    }
    list_remove(&change->link);
    list_push_back(&consensus->members.changes_done, &change->link);
    env_defer(consensus->options.loop, ENV_STAGE_PROCESS, &consensus->deliver_task);
}

/* Transfers that are on, at the end of a step. */
static void look_at_transfers(struct consensus *consensus, const struct raft_update *update) {
    bool moved = consensus->leader != RAFT_NO_NODE && consensus->leader != consensus->options.config->id;
    LIST_FOREACH (node, &consensus->members.changes) {
        struct consensus_change *change = LIST_ENTRY(node, struct consensus_change, link);
        if (change->phase != CHANGE_TRANSFER) {
            continue;
        }
        if (moved) {
            change->leader = consensus->leader;
            finish(consensus, change, STATUS_OK, false, NULL);
        } else if (update->transfer_failed || (consensus->role == RAFT_LEADER && consensus->term > change->term)) {
            finish(consensus, change, STATUS_TIMEOUT, false, "the node did not take over; the lead stays where it was");
        }
    }
}

/* Who tries a new member and doesn't lead any more isn't going to propose it. */
static void stop_trying(struct consensus *consensus) {
    LIST_FOREACH (node, &consensus->members.changes) {
        struct consensus_change *change = LIST_ENTRY(node, struct consensus_change, link);
        if (change->probe != NULL && (consensus->role != RAFT_LEADER || consensus->term != change->term)) {
            finish(consensus, change, STATUS_NOT_LEADER, false, "this node leads no more");
        }
    }
}

enum status member__updated(struct consensus *consensus, const struct raft_update *update) {
    consensus->members.refusal = update->refusal;
    look_at_transfers(consensus, update);
    stop_trying(consensus);
    if (update->transfer_failed) {
        consensus__schedule(consensus); /* proposals waited */
    }
    return update->membership_changed ? member__connect(consensus) : STATUS_OK;
}

/* ---- Changes ----------------------------------------------------------------------------------------------------- */

static void look_at_change(struct consensus *consensus, struct consensus_change *change,
                           const struct wal_record *record) {
    bool settles = record->kind == RAFT_ENTRY_CONFIG && !consensus->members.applied.config.joint;
    if (change->phase == CHANGE_LOGGED && change->index == record->index) {
        if (change->term != record->term) {
            change->index = 0;
            finish(consensus, change, STATUS_NOT_LEADER, false, "another leader's entry took the place of the change");
            return;
        }
        change->phase = CHANGE_LEAVING;
    }
    if (change->phase == CHANGE_LEAVING && settles) {
        change->index = record->index;
        finish(consensus, change, STATUS_OK, false, NULL);
    }
}

void member__applied(struct consensus *consensus, const struct wal_record *record) {
    LIST_FOREACH (node, &consensus->members.changes) {
        look_at_change(consensus, LIST_ENTRY(node, struct consensus_change, link), record);
    }
    if (record->kind == RAFT_ENTRY_CONFIG && record->index == consensus->members.applied.index) {
        take_over(consensus);
    }
}

void member__installed(struct consensus *consensus, const struct membership *membership, uint64_t index) {
    struct consensus_members *members = &consensus->members;
    LIST_FOREACH (node, &members->changes) {
        struct consensus_change *change = LIST_ENTRY(node, struct consensus_change, link);
        if (change->phase == CHANGE_LEAVING && !membership->config.joint && membership->index > change->index) {
            change->index = membership->index;
            finish(consensus, change, STATUS_OK, false, NULL);
        } else if (change->phase == CHANGE_LOGGED && change->index <= index) {
            finish(consensus, change, STATUS_UNKNOWN, true,
                   "a snapshot took the place of the log with the change; look at the members");
        }
    }
    if (membership->index > members->applied.index || members->applied.config.member_count == 0) {
        members->before = members->applied;
        members->applied = *membership;
        take_over(consensus);
    }
}

void member__went_back(struct consensus *consensus, const struct membership *membership) {
    consensus->members.before = *membership;
    consensus->members.applied = *membership;
}

static enum status begin_rebuild(struct consensus *consensus, struct consensus_change *change, const char **ret_what) {
    if (consensus->role != RAFT_LEADER) {
        *ret_what =
            consensus->leader == RAFT_NO_NODE ? "no leader is known to this node" : "this node is not the leader";
        return consensus->leader == RAFT_NO_NODE ? STATUS_UNAVAILABLE : STATUS_NOT_LEADER;
    }
    *ret_what = rebuild__refusal(consensus, change->target);
    if (*ret_what != NULL) {
        return STATUS_CONDITION;
    }
    if (change->target == consensus->options.config->id) {
        rebuild__want(consensus, REBUILD_OPERATOR);
    } else {
        rebuild__order(consensus, change->target, REBUILD_OPERATOR);
    }
    finish(consensus, change, STATUS_OK, false, NULL);
    return STATUS_OK;
}

/* STATUS_OK: it is on. Else *ret_what says why not; NULL: change->err does. */
static enum status begin(struct consensus *consensus, struct consensus_change *change, const char **ret_what) {
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .u.target = change->target};
    enum status status = STATUS_OK;
    if (consensus__is_dead(consensus) || consensus->refusing) {
        *ret_what = "this node is stopping";
        return STATUS_UNAVAILABLE;
    }
    if (consensus->members.change_count > CONSENSUS_CHANGES_MAX) {
        *ret_what = "too many changes wait on this node; try again";
        return STATUS_BUSY;
    }
    if (change->is_rebuild) {
        return begin_rebuild(consensus, change, ret_what);
    }
    if (!change->is_transfer && reach__is_needed(consensus, change)) {
        return reach__begin(consensus, change);
    }
    if (!change->is_transfer) {
        event = (struct raft_event){
            .type = RAFT_EVENT_CHANGE,
            .u.change = {.changes = change->changes, .change_count = change->change_count},
        };
        status = wal_reserve(consensus->wal, WAL_RECORD_HEADER_BYTES + (size_t)RAFT_CONFIG_BYTES_MAX, 1);
        *ret_what = "the log has no room for the change; free some space on this node";
    }
    if (status == STATUS_OK) {
        status = consensus__step(consensus, &event);
        *ret_what = "this node is not the leader";
    }
    if (status == STATUS_OK) {
        change->term = consensus->term;
        change->index = change->is_transfer ? 0 : consensus->members.written_index;
        change->phase = change->is_transfer ? CHANGE_TRANSFER : CHANGE_LOGGED;
    } else if (status == STATUS_CONDITION) {
        change->refusal = consensus->members.refusal;
        *ret_what = raft_refusal_text(change->refusal);
    } else if (status == STATUS_NOT_LEADER && consensus->leader == RAFT_NO_NODE) {
        *ret_what = "no leader is known to this node";
        status = STATUS_UNAVAILABLE;
    }
    return status;
}

void consensus_change(struct consensus *consensus, struct consensus_change *change) {
    CHECK(change->is_transfer || change->is_rebuild
              ? change->change_count == 0
              : change->change_count > 0 && change->change_count <= LIMIT_MEMBERS);
    change->phase = CHANGE_ASKED;
    change->refusal = RAFT_REFUSAL_NONE;
    change->index = 0;
    change->tried = 0;
    change->probe = NULL;
    change->leader = RAFT_NO_NODE;
    error_clear(&change->err);
    list_push_back(&consensus->members.changes, &change->link);
    consensus->members.change_count++;
    const char *what = NULL;
    enum status status = begin(consensus, change, &what);
    if (status != STATUS_OK) {
        finish(consensus, change, status, false, what);
    } else {
        consensus__watch_deadlines(consensus);
    }
}

void member__go_on(struct consensus *consensus, struct consensus_change *change) {
    const char *what = NULL;
    enum status status = begin(consensus, change, &what);
    if (status != STATUS_OK) {
        finish(consensus, change, status, false, what);
    }
}

void member__refused(struct consensus *consensus, struct consensus_change *change) {
    finish(consensus, change, STATUS_CONDITION, false, NULL);
}

void member__expire(struct consensus *consensus, uint64_t now_us) {
    LIST_FOREACH (node, &consensus->members.changes) {
        struct consensus_change *change = LIST_ENTRY(node, struct consensus_change, link);
        if (change->deadline_us <= now_us && change->probe != NULL) {
            finish(consensus, change, STATUS_TIMEOUT, false, "the new member did not answer in time");
        } else if (change->deadline_us <= now_us) {
            finish(consensus, change, STATUS_TIMEOUT, true,
                   "the change was not confirmed in its time; it may or may not happen");
        }
    }
}

void member__end_all(struct consensus *consensus) {
    LIST_FOREACH (node, &consensus->members.changes) {
        struct consensus_change *change = LIST_ENTRY(node, struct consensus_change, link);
        if (change->probe != NULL) {
            finish(consensus, change, STATUS_UNAVAILABLE, false, "this node is stopping");
        } else {
            finish(consensus, change, STATUS_UNAVAILABLE, true,
                   "this node stopped before the change was confirmed; it may or may not happen");
        }
    }
}

void member__deliver(struct consensus *consensus) {
    for (struct list *node; (node = list_pop_front(&consensus->members.changes_done)) != NULL;) {
        struct consensus_change *change = LIST_ENTRY(node, struct consensus_change, link);
        change->done(change);
    }
}
