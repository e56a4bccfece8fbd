/*
 * A member fills its store again, to the end: see members.h. The leader passes the order on, the member's own status
 * tells how it goes. An order that got lost with its leader is given again.
 */
#include "node/ctl/members.h"

#include <inttypes.h>
#include <unistd.h>

enum {
    LOOK_MS = 200,
    US_PER_S = 1000 * 1000,
    AGAIN_US = 10 * 1000 * 1000, /* nothing has begun for so long: told again */
    REPORT_US = 5 * 1000 * 1000  /* between two lines, where there is no terminal */
};

struct watch {
    struct ctl *ctl;
    const struct holdfast_member *member;
    uint64_t end_us;
    uint64_t ordered_us;
    uint64_t told_us;
    struct holdfast_node_status first; /* before the order */
    struct holdfast_node_status now;
};

/* The member's own status, whichever endpoint leads there. */
static bool look(struct ctl *ctl, uint64_t id, struct holdfast_node_status *ret_status) {
    for (uint32_t i = 0; i < holdfast_endpoint_count(ctl->handle); i++) {
        struct holdfast_result result;
        if (holdfast_status(ctl->handle, i, 0, ret_status, &result) == HOLDFAST_OK && ret_status->node_id == id) {
            return true;
        }
    }
    return false;
}

static void tell(struct watch *watch) {
    FILE *err = watch->ctl->io->err;
    bool is_terminal = isatty(fileno(err)) != 0;
    uint64_t now_us = ctl_clock_us();
    if (watch->now.rebuild_state[0] == '\0' || (!is_terminal && now_us - watch->told_us < REPORT_US)) {
        return;
    }
    watch->told_us = now_us;
    (void)fprintf(err, "%s%s: %s", is_terminal ? "\r\033[K" : "", watch->member->name, watch->now.rebuild_state);
    for (uint32_t i = 0; i < watch->now.snapshot_count; i++) {
        const struct holdfast_snapshot *snapshot = &watch->now.snapshots[i];
        if (snapshot->incoming) {
            (void)fprintf(err, ", %" PRIu64 " of %" PRIu64 " MiB", snapshot->done_bytes >> 20,
                          snapshot->total_bytes >> 20);
        }
    }
    (void)fprintf(err, "%s", is_terminal ? "" : "\n");
    (void)fflush(err);
}

static void stop_telling(const struct watch *watch) {
    if (isatty(fileno(watch->ctl->io->err))) {
        (void)fprintf(watch->ctl->io->err, "\r\033[K");
    }
}

static enum ctl_exit order(struct watch *watch) {
    struct holdfast_result result;
    watch->ordered_us = ctl_clock_us();
    return holdfast_rebuild_member(watch->ctl->handle, watch->member->id, 0, &result) == HOLDFAST_OK
               ? CTL_DONE
               : ctl_fail_result(watch->ctl, &result);
}

/* True: it has ended, one way or the other. */
static bool has_ended(struct watch *watch, enum ctl_exit *ret_code) {
    const char *name = watch->member->name;
    bool is_seen = look(watch->ctl, watch->member->id, &watch->now);
    if (is_seen && watch->now.uptime_ms < watch->first.uptime_ms) {
        *ret_code =
            ctl_fail(watch->ctl, CTL_UNKNOWN, "%s has restarted meanwhile: `holdfastctl status` shows how it is", name);
        return true;
    }
    if (is_seen && watch->now.rebuilds > watch->first.rebuilds) {
        *ret_code = CTL_DONE;
        return true;
    }
    if (is_seen && watch->now.rebuilds_failed > watch->first.rebuilds_failed) {
        *ret_code = ctl_fail(watch->ctl, CTL_FAILED, "%s couldn't fill its store again, and tries once more later: %s",
                             name, watch->now.problem);
        return true;
    }
    if (ctl_clock_us() >= watch->end_us) {
        *ret_code = ctl_fail(watch->ctl, CTL_UNKNOWN,
                             "%s was told to fill its store again, and isn't done yet (%s): "
                             "`holdfastctl status` shows how far it is",
                             name, is_seen ? watch->now.rebuild_state : "it doesn't answer");
        return true;
    }
    if (is_seen) {
        tell(watch);
    }
    if (is_seen && watch->now.rebuild_state[0] == '\0' && ctl_clock_us() - watch->ordered_us >= AGAIN_US) {
        *ret_code = order(watch);
        return *ret_code != CTL_DONE;
    }
    return false;
}

enum ctl_exit members_rebuild(struct ctl *ctl, const struct holdfast_member *member, uint32_t wait_s,
                              struct holdfast_node_status *ret_status) {
    uint64_t now_us = ctl_clock_us();
    struct watch watch = {.ctl = ctl, .member = member, .end_us = now_us + (uint64_t)wait_s * US_PER_S};
    if (!look(ctl, member->id, &watch.first)) {
        return ctl_fail(ctl, CTL_UNREACHABLE, "%s doesn't answer at any endpoint that is known here", member->name);
    }
    enum ctl_exit code = order(&watch);
    while (code == CTL_DONE && !has_ended(&watch, &code)) {
        ctl_sleep_ms(LOOK_MS);
    }
    stop_telling(&watch);
    *ret_status = watch.now;
    return code;
}
