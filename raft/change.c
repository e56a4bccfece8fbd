/*
 * Changes of membership: what is asked for becomes a configuration, or a reason why not.
 *
 *     plain C  --- voters change --->  joint C, C'  --- committed: by itself --->  plain C'
 *     plain C  --- only learners, priorities --->  plain C'
 *
 * Joint consensus (thesis, section 4.3) for every change of voters, be it of one. Guards, each with its reason: one
 * change at a time; not before an entry of this term is committed (hazard 8: else the newest committed configuration
 * isn't known, and two disjoint quorums are possible); those who are reachable now must be a quorum of the old and of
 * the new set; a node begins as a learner, which costs no quorum if it never comes up or has a wrong address, and votes
 * only when it has caught up.
 *
 * Ids are not used again: what a removed node, or a late message of it, still says is nobody's. All that is remembered
 * for that is the largest id that was removed, so whoever has a configuration knows who isn't coming back.
 */
#include "raft/raft_internal.h"

#include <string.h>

const char *raft_refusal_text(enum raft_refusal refusal) {
    static const char *const texts[RAFT_REFUSAL_COUNT] = {
        [RAFT_REFUSAL_NONE] = "not refused",
        [RAFT_REFUSAL_CHANGE_IN_PROGRESS] = "another change of the membership is in progress",
        [RAFT_REFUSAL_TRANSFER_IN_PROGRESS] = "leadership is being transferred",
        [RAFT_REFUSAL_NOTHING_COMMITTED] = "the leader is new and has not committed anything yet",
        [RAFT_REFUSAL_WOULD_LOSE_QUORUM] = "the voters that are reachable now would not be a quorum",
        [RAFT_REFUSAL_NO_VOTERS] = "no voter would be left",
        [RAFT_REFUSAL_DUPLICATE_ID] = "a member has this id",
        [RAFT_REFUSAL_DUPLICATE_ADDRESS] = "a member has this address",
        [RAFT_REFUSAL_DUPLICATE_NAME] = "a member has this name",
        [RAFT_REFUSAL_DUPLICATE_CERTIFICATE] = "a member has this certificate",
        [RAFT_REFUSAL_RETIRED_ID] = "the id is not above the ids of all members that were removed",
        [RAFT_REFUSAL_UNKNOWN_NODE] = "no member has this id",
        [RAFT_REFUSAL_LEARNER_LAGS] = "the learner has not caught up with the log",
        [RAFT_REFUSAL_NOT_A_LEARNER] = "the member is not a learner",
        [RAFT_REFUSAL_NOT_A_VOTER] = "the member is not a voter",
        [RAFT_REFUSAL_TOO_MANY_MEMBERS] = "the cluster has as many members as it can have",
        [RAFT_REFUSAL_UNREACHABLE] = "the node is not reachable",
        [RAFT_REFUSAL_IS_LEADER] = "the node leads already",
        [RAFT_REFUSAL_NO_CHANGE] = "nothing would change",
    };
    return (unsigned)refusal < RAFT_REFUSAL_COUNT ? texts[refusal] : "unknown";
}

/* ---- One part of a change --------------------------------------------------------------------------------------- */

static void copy_text(char *out, size_t size, const char *text) {
    if (text != NULL) {
        size_t size_needed = strlen(text) + 1;
        CHECK(size_needed <= size);
        memcpy(out, text, size_needed);
    }
}

static enum raft_refusal find_clash(const struct raft_config *config, const struct raft_member *member) {
    enum raft_refusal clash = RAFT_REFUSAL_NONE;
    for (uint32_t i = 0; i < config->member_count && clash == RAFT_REFUSAL_NONE; i++) {
        clash = raft__member_clash(&config->members[i], member);
    }
    return clash;
}

/* `old` is the effective configuration: who leaves in the same change is still a member of the joint one, and an id
 * that came back at once would keep votes and answers of what it was (DESIGN rule 14). */
static enum raft_refusal add_learner(const struct raft_config *old, const struct raft_change *change,
                                     struct raft_config *config) {
    CHECK(change->id != RAFT_NO_NODE);
    struct raft_member member = {.id = change->id, .role = RAFT_LEARNER, .priority = change->priority};
    copy_text(member.name, sizeof member.name, change->name);
    copy_text(member.address, sizeof member.address, change->address);
    copy_text(member.client_address, sizeof member.client_address, change->client_address);
    if (change->thumbprint != NULL) {
        memcpy(member.thumbprint, change->thumbprint, sizeof member.thumbprint);
    }
    enum raft_refusal clash = find_clash(old, &member);
    clash = clash == RAFT_REFUSAL_NONE ? find_clash(config, &member) : clash;
    if (clash != RAFT_REFUSAL_NONE) {
        return clash;
    }
    if (change->id <= config->retired_id) {
        return RAFT_REFUSAL_RETIRED_ID;
    }
    if (config->member_count == LIMIT_MEMBERS) {
        return RAFT_REFUSAL_TOO_MANY_MEMBERS;
    }
    config->members[config->member_count++] = member;
    return RAFT_REFUSAL_NONE;
}

static void remove_member(struct raft_config *config, uint32_t position) {
    config->retired_id = raft__max(config->retired_id, config->members[position].id);
    config->member_count--;
    memmove(&config->members[position], &config->members[position + 1],
            (config->member_count - position) * sizeof config->members[0]);
    memset(&config->members[config->member_count], 0, sizeof config->members[0]);
}

static enum raft_refusal promote(const struct raft *raft, struct raft_member *member) {
    if (member->role != RAFT_LEARNER) {
        return RAFT_REFUSAL_NOT_A_LEARNER;
    }
    uint32_t position = raft__config_find(&raft->config, member->id);
    bool keeps_up = position != RAFT__NOWHERE && raft__peer_keeps_up(raft, &raft->peers[position]);
    if (member->id != raft->id && !keeps_up) {
        return RAFT_REFUSAL_LEARNER_LAGS;
    }
    member->role = RAFT_VOTER;
    member->returns = false;
    return RAFT_REFUSAL_NONE;
}

static enum raft_refusal apply_change(const struct raft *raft, const struct raft_change *change,
                                      struct raft_config *config) {
    if (change->type == RAFT_CHANGE_ADD_LEARNER) {
        return add_learner(&raft->config, change, config);
    }
    uint32_t position = raft__config_find(config, change->id);
    if (position == RAFT__NOWHERE) {
        return RAFT_REFUSAL_UNKNOWN_NODE;
    }
    struct raft_member *member = &config->members[position];
    switch (change->type) {
    case RAFT_CHANGE_PROMOTE: return promote(raft, member);
    case RAFT_CHANGE_DEMOTE:
        if (member->role != RAFT_VOTER && !member->returns) {
            return RAFT_REFUSAL_NOT_A_VOTER;
        }
        member->role = RAFT_LEARNER;
        member->returns = false;
        return RAFT_REFUSAL_NONE;
    case RAFT_CHANGE_REMOVE: remove_member(config, position); return RAFT_REFUSAL_NONE;
    case RAFT_CHANGE_PRIORITY:
        if (member->priority == change->priority) {
            return RAFT_REFUSAL_NO_CHANGE;
        }
        member->priority = change->priority;
        return RAFT_REFUSAL_NONE;
    case RAFT_CHANGE_ADD_LEARNER: break;
    }
    CHECK(false && "a change of unknown type");
    return RAFT_REFUSAL_NO_CHANGE;
}

/* ---- The whole change ------------------------------------------------------------------------------------------- */

/* Makes `config`, the target, joint with the voters of `old`. False: they don't fit together. */
static bool join(const struct raft_config *old, struct raft_config *config) {
    config->joint = true;
    for (uint32_t i = 0; i < old->member_count; i++) {
        if (old->members[i].role != RAFT_VOTER) {
            continue;
        }
        uint32_t position = raft__config_find(config, old->members[i].id);
        if (position == RAFT__NOWHERE) {
            if (config->member_count == LIMIT_MEMBERS) {
                return false;
            }
            position = config->member_count++;
            config->members[position] = old->members[i];
            config->members[position].role = RAFT_LEAVING;
        }
        config->members[position].in_outgoing = true;
    }
    return true;
}

void raft__change_leave(const struct raft_config *joint, struct raft_config *ret_config) {
    *ret_config = (struct raft_config){.joint = false, .retired_id = joint->retired_id};
    for (uint32_t i = 0; i < joint->member_count; i++) {
        if (joint->members[i].role != RAFT_LEAVING) {
            struct raft_member *member = &ret_config->members[ret_config->member_count++];
            *member = joint->members[i];
            member->in_outgoing = false;
        }
    }
}

static bool voters_change(const struct raft_config *old, const struct raft_config *config) {
    uint32_t kept = 0;
    uint32_t old_count = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < old->member_count; i++) {
        uint32_t position = raft__config_find(config, old->members[i].id);
        bool votes = old->members[i].role == RAFT_VOTER;
        old_count += votes;
        kept += votes && position != RAFT__NOWHERE && config->members[position].role == RAFT_VOTER;
    }
    for (uint32_t i = 0; i < config->member_count; i++) {
        count += config->members[i].role == RAFT_VOTER;
    }
    return kept != old_count || kept != count;
}

/* True if the members that are heard are a quorum of a configuration. */
static bool is_reachable(const struct raft *raft, const struct raft_config *config) {
    uint64_t heard[LIMIT_MEMBERS] = {0};
    for (uint32_t i = 0; i < config->member_count; i++) {
        uint64_t id = config->members[i].id;
        uint32_t position = raft__config_find(&raft->config, id);
        bool is_heard = position != RAFT__NOWHERE && raft__peer_is_heard(raft, &raft->peers[position]);
        heard[i] = id == raft->id ? raft__we_count(raft) : is_heard;
    }
    return raft__config_quorum(config, heard) > 0;
}

enum raft_refusal raft__change_plan(const struct raft *raft, const struct raft_change *changes, uint32_t change_count,
                                    struct raft_config *ret_config) {
    if (raft->transfer.target != RAFT_NO_NODE) {
        return RAFT_REFUSAL_TRANSFER_IN_PROGRESS;
    }
    if (raft->commit_index < raft->term_first_index) {
        return RAFT_REFUSAL_NOTHING_COMMITTED;
    }
    if (raft->config.joint || raft->config_index > raft->commit_index) {
        return RAFT_REFUSAL_CHANGE_IN_PROGRESS;
    }
    struct raft_config config = raft->config;
    for (uint32_t i = 0; i < change_count; i++) {
        enum raft_refusal refusal = apply_change(raft, &changes[i], &config);
        if (refusal != RAFT_REFUSAL_NONE) {
            return refusal;
        }
    }
    uint32_t voter_count = 0;
    for (uint32_t i = 0; i < config.member_count; i++) {
        voter_count += config.members[i].role == RAFT_VOTER;
    }
    if (voter_count == 0) {
        return RAFT_REFUSAL_NO_VOTERS;
    }
    if (voters_change(&raft->config, &config)) {
        if (!join(&raft->config, &config)) {
            return RAFT_REFUSAL_TOO_MANY_MEMBERS;
        }
        if (!is_reachable(raft, &config)) {
            return RAFT_REFUSAL_WOULD_LOSE_QUORUM;
        }
    }
    CHECK(raft__config_check(&config) == STATUS_OK);
    *ret_config = config;
    return RAFT_REFUSAL_NONE;
}

enum raft_refusal raft_check_change(const struct raft *raft, const struct raft_change *changes, uint32_t change_count) {
    struct raft_config config;
    CHECK(change_count > 0 && raft->role == RAFT_LEADER);
    return raft__change_plan(raft, changes, change_count, &config);
}

enum status raft__change(struct raft *raft, const struct raft_change *changes, uint32_t change_count) {
    CHECK(change_count > 0);
    if (raft->role != RAFT_LEADER) {
        return STATUS_NOT_LEADER;
    }
    struct raft_config config;
    raft->update.refusal = raft__change_plan(raft, changes, change_count, &config);
    if (raft->update.refusal != RAFT_REFUSAL_NONE) {
        return STATUS_CONDITION;
    }
    raft__append_config(raft, &config);
    return STATUS_OK;
}
