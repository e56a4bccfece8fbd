/* leader: who leads, and the lead for another node. */
#include "node/ctl/members.h"

#include <inttypes.h>

enum { LOOK_MS = 100, CONFIRM_US = 5 * 1000 * 1000 };

/* NULL: nobody is known to lead. */
static const struct holdfast_member *leader_of(const struct holdfast_members *members) {
    return members->leader_id != 0 ? members_by_id(members, members->leader_id) : NULL;
}

static enum ctl_exit print_leader(struct ctl *ctl, const struct holdfast_members *members) {
    const struct holdfast_member *leader = leader_of(members);
    if (leader == NULL) {
        return ctl_fail(ctl, CTL_UNREACHABLE,
                        "no leader is known: a majority of the voters must run and reach each other");
    }
    if (ctl->options.json) {
        json_t *root = json_pack("{s:{s:I, s:o, s:o}, s:I}", "leader", "id", (json_int_t)leader->id, "name",
                                 members_text_json(leader->name), "client_address",
                                 members_text_json(leader->client_address), "term", (json_int_t)members->term);
        (void)json_dumpf(root, ctl->io->out, JSON_COMPACT);
        (void)fputc('\n', ctl->io->out);
        json_decref(root);
    } else {
        (void)fprintf(ctl->io->out, "%s (id %" PRIu64 ") at %s leads in term %" PRIu64 "\n", leader->name, leader->id,
                      leader->client_address, members->term);
    }
    return ctl_finish_output(ctl);
}

static enum ctl_exit show(struct ctl *ctl) {
    struct holdfast_members members;
    enum ctl_exit code = members_fetch(ctl, &members);
    return code == CTL_DONE ? print_leader(ctl, &members) : code;
}

/* Who leads now, from whoever does; waits for one that isn't `old_id`, if wait is set, for a moment. */
static bool look(struct ctl *ctl, uint64_t old_id, bool wait, struct holdfast_members *ret_members) {
    uint64_t end_us = ctl_clock_us() + members_search_us(ctl, CONFIRM_US);
    for (;;) {
        if (holdfast_list_members(ctl->handle, NULL, ret_members, NULL) == HOLDFAST_OK &&
            (!wait || ret_members->leader_id != old_id)) {
            return true;
        }
        if (ctl_clock_us() >= end_us) {
            return false;
        }
        ctl_sleep_ms(LOOK_MS);
    }
}

/* The reply may get lost with the lead: then the next leader tells how it ended. */
static enum ctl_exit transfer(struct ctl *ctl, const char *node) {
    struct holdfast_members members;
    struct holdfast_result result;
    const struct holdfast_member *target = NULL;
    enum ctl_exit code = members_fetch(ctl, &members);
    if (code == CTL_DONE && node != NULL) {
        code = members_find(ctl, &members, node, &target);
    }
    if (code != CTL_DONE) {
        return code;
    }
    uint64_t target_id = target != NULL ? target->id : 0;
    char name[sizeof target->name];
    (void)snprintf(name, sizeof name, "%s", target != NULL ? target->name : "");
    uint64_t old_id = members.leader_id;
    (void)holdfast_transfer_leader(ctl->handle, target_id, 0, NULL, &result);
    if (result.outcome == HOLDFAST_FAILED) {
        return ctl_fail_result(ctl, &result);
    }
    if (!look(ctl, old_id, true, &members)) {
        return ctl_fail(ctl, CTL_UNKNOWN, "%s: `holdfastctl leader show` tells who leads",
                        result.outcome == HOLDFAST_OK ? "the lead was handed over, but nobody says who has it now"
                                                      : result.message);
    }
    const struct holdfast_member *leader = leader_of(&members);
    if (target_id != 0 && members.leader_id != target_id) {
        return ctl_fail(ctl, CTL_FAILED, "%s leads now, not %s: try again",
                        leader != NULL ? leader->name : "another node", name);
    }
    return print_leader(ctl, &members);
}

enum ctl_exit ctl_cmd_leader(struct ctl *ctl, int argc, char **argv) {
    bool shows = strcmp(argv[0], "show") == 0;
    if (!shows && strcmp(argv[0], "transfer") != 0) {
        return ctl_usage(ctl, "\"%s\" is nothing that can be done with the lead", argv[0]);
    }
    if (shows && argc > 1) {
        return ctl_usage(ctl, "too many arguments");
    }
    enum ctl_exit code = ctl_connect(ctl);
    if (code != CTL_DONE) {
        return code;
    }
    return shows ? show(ctl) : transfer(ctl, argc > 1 ? argv[1] : NULL);
}
