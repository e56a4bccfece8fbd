/*
 * verify --cluster: all data of all members compared. The leader is asked to begin, or to let us join what is on its
 * way, then looked at until it has a verdict.
 *
 * The lead may move meanwhile: the next leader goes on with the same comparison, unless the entry that asks for it got
 * lost; then another one is begun.
 *
 *   alike: exit code 0; differs, split: 1; incomplete, as some member has no answer: 4
 */
#include "node/ctl/ctl.h"

#include <inttypes.h>
#include <jansson.h>
#include <unistd.h>

enum {
    LOOK_FIRST_MS = 20,
    LOOK_MS = 500,
    LOOK_FAILURES_MAX = 20,
    BEGINNINGS_MAX = 5,
    LINE_BYTES = 512,
    HEX_BYTES = 2 * 16 + 1
};

static const char *state_name(enum holdfast_compared_state state) {
    static const char *const names[] = {"asked", "scanning", "done", "missing"};
    return names[state];
}

static const char *verdict_name(enum holdfast_verdict verdict) {
    static const char *const names[] = {"none", "open", "alike", "differs", "split", "incomplete"};
    return names[verdict];
}

static const char *hex_of(const struct holdfast_compared *member, char text[HEX_BYTES]) {
    for (size_t i = 0; i < sizeof member->digest; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", member->digest[i]);
    }
    return text;
}

/* ---- Waiting ---------------------------------------------------------------------------------------------------- */

/* On a terminal, one line that is written over. NULL: it is removed. */
static void show_progress(const struct ctl *ctl, const struct holdfast_comparison *comparison) {
    FILE *err = ctl->io->err;
    char line[LINE_BYTES] = "waiting for the entry";
    if (!isatty(fileno(err))) {
        return;
    }
    size_t used = 0;
    for (uint32_t i = 0; comparison != NULL && comparison->verdict == HOLDFAST_VERDICT_OPEN &&
                         i < comparison->member_count && used < sizeof line - 1;
         i++) {
        const struct holdfast_compared *member = &comparison->members[i];
        uint64_t permille = member->total_bytes > 0 ? member->done_bytes * 1000 / member->total_bytes : 0;
        int len =
            member->state == HOLDFAST_COMPARED_SCANNING
                ? snprintf(line + used, sizeof line - used, "%s%s %" PRIu64 " MiB (%" PRIu64 " %%)", i > 0 ? ", " : "",
                           member->name, member->done_bytes >> 20, permille < 990 ? permille / 10 : 99)
                : snprintf(line + used, sizeof line - used, "%s%s %s", i > 0 ? ", " : "", member->name,
                           state_name(member->state));
        used += len > 0 ? (size_t)len : 0;
    }
    (void)fprintf(err, comparison != NULL ? "\r\033[K%s" : "\r\033[K", line);
    (void)fflush(err);
}

/* Until the one that was begun isn't open any more. HOLDFAST_OK: the newest is in comparison; the caller sees whether
 * that is the one. A leader that can't be asked for a while is asked again. */
static enum holdfast_outcome wait_for_end(struct ctl *ctl, struct holdfast_comparison *comparison,
                                          struct holdfast_result *result) {
    uint32_t pause_ms = LOOK_FIRST_MS;
    uint32_t failures = 0;
    enum holdfast_outcome outcome = HOLDFAST_OK;
    while (comparison->open && failures < LOOK_FAILURES_MAX) {
        show_progress(ctl, comparison);
        ctl_sleep_ms(pause_ms);
        pause_ms = pause_ms * 2 < LOOK_MS ? pause_ms * 2 : LOOK_MS;
        outcome = holdfast_compare(ctl->handle, false, 0, comparison, result);
        failures = outcome == HOLDFAST_OK ? 0 : failures + 1;
    }
    show_progress(ctl, NULL);
    return outcome;
}

/* ---- Output ----------------------------------------------------------------------------------------------------- */

static json_t *text_json(const char *text) {
    json_t *string = json_string(text);
    return string != NULL ? string : json_string("?");
}

static json_t *member_json(const struct holdfast_compared *member) {
    char digest[HEX_BYTES];
    return json_pack("{s:o, s:I, s:s, s:b, s:I, s:I, s:o, s:o}", "name", text_json(member->name), "id",
                     (json_int_t)member->id, "state", state_name(member->state), "suspected", (int)member->suspected,
                     "bytes", (json_int_t)member->done_bytes, "keys", (json_int_t)member->keys, "digest",
                     member->has_digest ? json_string(hex_of(member, digest)) : json_null(), "problem",
                     text_json(member->reason));
}

static void print_json(struct ctl *ctl, const struct holdfast_comparison *comparison) {
    json_t *nodes = json_array();
    for (uint32_t i = 0; i < comparison->member_count; i++) {
        (void)json_array_append_new(nodes, member_json(&comparison->members[i]));
    }
    json_t *root =
        json_pack("{s:I, s:s, s:I, s:o}", "revision", (json_int_t)comparison->index, "verdict",
                  verdict_name(comparison->verdict), "elapsed_ms", (json_int_t)comparison->elapsed_ms, "nodes", nodes);
    (void)json_dumpf(root, ctl->io->out, JSON_COMPACT);
    (void)fputc('\n', ctl->io->out);
    json_decref(root);
    ctl->data_on_out = true;
}

static void print_text(struct ctl *ctl, const struct holdfast_comparison *comparison) {
    FILE *out = ctl->io->out;
    for (uint32_t i = 0; i < comparison->member_count; i++) {
        const struct holdfast_compared *member = &comparison->members[i];
        char digest[HEX_BYTES];
        if (member->has_digest) {
            (void)fprintf(out, "%s: %" PRIu64 " keys, %" PRIu64 " bytes, digest %s\n", member->name, member->keys,
                          member->done_bytes, hex_of(member, digest));
        } else {
            (void)fprintf(out, "%s: no digest%s%s\n", member->name, member->reason[0] != '\0' ? ": " : "",
                          member->reason);
        }
    }
    if (comparison->verdict == HOLDFAST_VERDICT_ALIKE) {
        (void)fprintf(out, "all %" PRIu32 " nodes hold the same at revision %" PRIu64 "\n", comparison->member_count,
                      comparison->index);
    }
}

/* "n2, n3": those of whom it holds. */
static const char *list(const struct holdfast_comparison *comparison, bool suspected, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < comparison->member_count && used < size - 1; i++) {
        const struct holdfast_compared *member = &comparison->members[i];
        if (suspected ? member->suspected : member->state != HOLDFAST_COMPARED_DONE) {
            int len = snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", member->name);
            used += len > 0 ? (size_t)len : 0;
        }
    }
    return text;
}

static enum ctl_exit tell(struct ctl *ctl, const struct holdfast_comparison *comparison) {
    char names[LINE_BYTES];
    switch (comparison->verdict) {
    case HOLDFAST_VERDICT_ALIKE: return CTL_DONE;
    case HOLDFAST_VERDICT_DIFFERS:
        return ctl_fail(ctl, CTL_FAILED,
                        "at revision %" PRIu64 " %s holds other data than the majority: 'member rebuild' it",
                        comparison->index, list(comparison, true, names, sizeof names));
    case HOLDFAST_VERDICT_SPLIT:
        return ctl_fail(ctl, CTL_FAILED,
                        "at revision %" PRIu64 " the nodes hold different data, and no majority agrees",
                        comparison->index);
    default:
        return ctl_fail(ctl, CTL_UNREACHABLE,
                        "at revision %" PRIu64 " those that answered hold the same, but %s did not answer: see that "
                        "all nodes are up, and run it again",
                        comparison->index, list(comparison, false, names, sizeof names));
    }
}

enum ctl_exit ctl_compare_nodes(struct ctl *ctl) {
    struct holdfast_comparison comparison = {.index = 0};
    struct holdfast_result result;
    bool is_it = false;
    for (uint32_t i = 0; i < BEGINNINGS_MAX && !is_it; i++) {
        enum holdfast_outcome outcome = holdfast_compare(ctl->handle, true, 0, &comparison, &result);
        uint64_t above_index = comparison.above_index;
        if (outcome == HOLDFAST_OK) {
            outcome = wait_for_end(ctl, &comparison, &result);
        }
        if (outcome != HOLDFAST_OK) {
            return ctl_fail_result(ctl, &result);
        }
        is_it = comparison.index > above_index && comparison.verdict > HOLDFAST_VERDICT_OPEN;
    }
    if (!is_it) {
        return ctl_fail(ctl, CTL_UNREACHABLE, "the lead moved each time before the comparison was begun: try again");
    }
    if (ctl->options.json) {
        print_json(ctl, &comparison);
    } else {
        print_text(ctl, &comparison);
    }
    enum ctl_exit code = tell(ctl, &comparison);
    enum ctl_exit output = ctl_finish_output(ctl);
    return code == CTL_DONE ? output : code;
}
