/*
 * A change of members to its end: see members.h.
 *
 * A reply can get lost when the leader changes, and with membership that is nothing unusual: a leader may remove
 * itself. So an unknown outcome is looked for in the list of members before it is told.
 */
#include "node/ctl/members.h"

#include <inttypes.h>
#include <unistd.h>

enum {
    LOOK_MS = 200,
    CONFIRM_US = 10 * 1000 * 1000, /* how long an outcome that got lost is looked for, without --timeout */
    REPORT_US = 5 * 1000 * 1000,   /* between two lines about a learner, where there is no terminal */
    NEAR_ENTRIES = 1000,           /* a learner that lags by no more */
    NEAR_REFUSALS_MAX = 25,        /* and still isn't taken has another reason than its lag */
    US_PER_S = 1000 * 1000
};

/* ---- Lost outcomes ---------------------------------------------------------------------------------------------- */

static bool is_visible(const struct holdfast_members *members, const struct holdfast_member_change *change) {
    const struct holdfast_member *member = members_by_id(members, change->id);
    if (member == NULL) {
        return change->action == HOLDFAST_MEMBER_REMOVE;
    }
    switch (change->action) {
    case HOLDFAST_MEMBER_ADD: return strcmp(member->name, change->name) == 0;
    case HOLDFAST_MEMBER_PROMOTE: return strcmp(member->role, "voter") == 0;
    case HOLDFAST_MEMBER_DEMOTE: return strcmp(member->role, "learner") == 0;
    case HOLDFAST_MEMBER_PRIORITY: return member->priority == change->priority;
    case HOLDFAST_MEMBER_REMOVE: break;
    }
    return false;
}

static bool is_complete(const struct holdfast_members *members, const struct holdfast_member_change *changes,
                        size_t count) {
    bool complete = members->committed && !members->joint;
    for (size_t i = 0; i < count && complete; i++) {
        complete = is_visible(members, &changes[i]);
    }
    return complete;
}

/* True: the list of the leader shows it. */
static bool confirm(struct ctl *ctl, const struct holdfast_member_change *changes, size_t count, uint64_t *ret_index) {
    uint64_t end_us = ctl_clock_us() + members_search_us(ctl, CONFIRM_US);
    do {
        struct holdfast_members members;
        if (holdfast_list_members(ctl->handle, NULL, &members, NULL) == HOLDFAST_OK &&
            is_complete(&members, changes, count)) {
            *ret_index = members.index;
            return true;
        }
        ctl_sleep_ms(LOOK_MS);
    } while (ctl_clock_us() < end_us);
    return false;
}

/* As members_change, without a word. */
static bool run(struct ctl *ctl, const struct holdfast_member_change *changes, size_t count, uint64_t *ret_index,
                struct holdfast_result *result) {
    (void)holdfast_change_members(ctl->handle, changes, count, 0, result);
    if (result->outcome == HOLDFAST_OK) {
        *ret_index = result->revision;
    }
    return result->outcome == HOLDFAST_OK ||
           (result->outcome == HOLDFAST_UNKNOWN && confirm(ctl, changes, count, ret_index));
}

static enum ctl_exit fail(struct ctl *ctl, const struct holdfast_result *result) {
    if (result->outcome == HOLDFAST_UNKNOWN) {
        return ctl_fail(ctl, CTL_UNKNOWN, "%s: `holdfastctl member list` shows what became of it", result->message);
    }
    return ctl_fail_result(ctl, result);
}

enum ctl_exit members_change(struct ctl *ctl, const struct holdfast_member_change *changes, size_t count,
                             uint64_t *ret_index) {
    struct holdfast_result result;
    return run(ctl, changes, count, ret_index, &result) ? CTL_DONE : fail(ctl, &result);
}

/* ---- Learners that catch up ------------------------------------------------------------------------------------- */

struct learner {
    struct ctl *ctl;
    uint64_t id;
    bool is_terminal;
    uint64_t told_us; /* 0: never */
    uint32_t near_refusals;
    bool has_members;
    struct holdfast_members members; /* of the last look, if that got an answer */
    struct holdfast_result asked;    /* else */
};

/* "n4 is at entry 12 of 40" */
static void describe(const struct learner *learner, const struct holdfast_member *member, char *out, size_t size) {
    if (member->heard_ms_ago == UINT64_MAX) {
        (void)snprintf(out, size, "%s is not heard yet", member->name);
    } else {
        (void)snprintf(out, size, "%s is at entry %" PRIu64 " of %" PRIu64 " (%s)", member->name, member->match,
                       learner->members.commit, member->state);
    }
}

static void tell(struct learner *learner, const struct holdfast_member *member) {
    char text[256];
    FILE *err = learner->ctl->io->err;
    uint64_t now_us = ctl_clock_us();
    describe(learner, member, text, sizeof text);
    if (learner->is_terminal) {
        (void)fprintf(err, "\r\033[K%s", text);
    } else if (learner->told_us == 0 || now_us - learner->told_us >= REPORT_US) {
        (void)fprintf(err, "%s\n", text);
        learner->told_us = now_us;
    }
    (void)fflush(err);
}

static void stop_telling(const struct learner *learner) {
    if (learner->is_terminal) {
        (void)fprintf(learner->ctl->io->err, "\r\033[K");
    }
}

static bool may_be_ready(const struct holdfast_member *member) {
    return member->heard_ms_ago != UINT64_MAX && strcmp(member->state, "replicate") == 0;
}

/* A refusal that may pass: it lags, or the cluster is at something else. */
static bool is_worth_waiting(const struct learner *learner, const struct holdfast_result *result) {
    switch (result->code) {
    case HOLDFAST_CODE_CONDITION: return learner->near_refusals <= NEAR_REFUSALS_MAX;
    case HOLDFAST_CODE_BUSY:
    case HOLDFAST_CODE_UNAVAILABLE:
    case HOLDFAST_CODE_TIMEOUT: return result->outcome == HOLDFAST_FAILED;
    default: return false;
    }
}

enum promotion { PROMOTION_DONE, PROMOTION_WAITS, PROMOTION_FAILED };

/* PROMOTION_FAILED: *ret_code was said. */
static enum promotion try_promotion(struct learner *learner, const struct holdfast_member_change *changes, size_t count,
                                    uint64_t *ret_index, enum ctl_exit *ret_code) {
    struct ctl *ctl = learner->ctl;
    struct holdfast_result result;
    learner->has_members = holdfast_list_members(ctl->handle, NULL, &learner->members, &result) == HOLDFAST_OK;
    if (!learner->has_members) {
        learner->asked = result;
        return PROMOTION_WAITS;
    }
    const struct holdfast_member *member = members_by_id(&learner->members, learner->id);
    if (member == NULL) {
        stop_telling(learner);
        *ret_code = ctl_fail(ctl, CTL_FAILED,
                             "the learner with the id %" PRIu64 " is no member any more: it was removed", learner->id);
        return PROMOTION_FAILED;
    }
    if (is_complete(&learner->members, changes, count)) {
        *ret_index = learner->members.index;
        return PROMOTION_DONE;
    }
    if (!may_be_ready(member)) {
        return PROMOTION_WAITS;
    }
    if (run(ctl, changes, count, ret_index, &result)) {
        return PROMOTION_DONE;
    }
    learner->near_refusals += members_lag(&learner->members, member) <= NEAR_ENTRIES;
    if (is_worth_waiting(learner, &result)) {
        return PROMOTION_WAITS;
    }
    stop_telling(learner);
    *ret_code = fail(ctl, &result);
    return PROMOTION_FAILED;
}

static enum ctl_exit give_up(const struct learner *learner, uint32_t wait_s) {
    char text[256];
    if (!learner->has_members) {
        return ctl_fail_result(learner->ctl, &learner->asked);
    }
    const struct holdfast_member *member = members_by_id(&learner->members, learner->id);
    describe(learner, member, text, sizeof text);
    return ctl_fail(
        learner->ctl, CTL_UNREACHABLE,
        "%s, and stays a learner: it did not catch up within %u s; when it runs, `holdfastctl member promote "
        "%s --wait SECONDS` goes on",
        text, wait_s, member->name);
}

enum ctl_exit members_promote(struct ctl *ctl, const struct holdfast_member_change *changes, size_t count,
                              uint32_t wait_s, uint64_t *ret_index) {
    struct learner learner = {.ctl = ctl, .id = changes[0].id, .is_terminal = isatty(fileno(ctl->io->err)) != 0};
    uint64_t end_us = ctl_clock_us() + (uint64_t)wait_s * US_PER_S;
    enum ctl_exit code = CTL_DONE;
    if (wait_s == 0) {
        return members_change(ctl, changes, count, ret_index);
    }
    enum promotion state = try_promotion(&learner, changes, count, ret_index, &code);
    while (state == PROMOTION_WAITS && ctl_clock_us() < end_us) {
        if (learner.has_members) {
            tell(&learner, members_by_id(&learner.members, learner.id));
        }
        ctl_sleep_ms(LOOK_MS);
        state = try_promotion(&learner, changes, count, ret_index, &code);
    }
    stop_telling(&learner);
    return state == PROMOTION_WAITS ? give_up(&learner, wait_s) : code;
}
