/*
 * compact, verify, checkpoint: long jobs of nodes. A node is asked to begin, then looked at until it has ended; several
 * nodes do it one after the other, so that the cluster isn't slow as a whole. (`verify --cluster` is in cmd_compare.c.)
 */
#include "node/ctl/ctl.h"

#include <inttypes.h>
#include <jansson.h>
#include <unistd.h>

enum { LOOK_FIRST_MS = 20, LOOK_MS = 500, LOOK_FAILURES_MAX = 20 };

struct job {
    uint32_t endpoint;
    bool has_state;
    struct holdfast_upkeep state;
    struct holdfast_result result; /* of asking */
};

static const char *name_of(const struct ctl *ctl, const struct job *job) {
    return job->has_state && job->state.node_name[0] != '\0' ? job->state.node_name
                                                             : holdfast_endpoint_name(ctl->handle, job->endpoint);
}

/* On a terminal, one line that is written over. */
static void show_progress(const struct ctl *ctl, const struct job *job, bool is_last) {
    FILE *err = ctl->io->err;
    if (!isatty(fileno(err))) {
        return;
    }
    if (is_last) {
        (void)fprintf(err, "\r\033[K");
    } else {
        (void)fprintf(err, "\r\033[K%s: %s, %" PRIu64 " of about %" PRIu64 " MiB", name_of(ctl, job), job->state.kind,
                      job->state.done_bytes >> 20, job->state.total_bytes >> 20);
    }
    (void)fflush(err);
}

/* Begins it on one node. */
static void begin_on(struct ctl *ctl, const struct holdfast_upkeep_request *request, struct job *job) {
    job->has_state = holdfast_upkeep(ctl->handle, job->endpoint, request, 0, &job->state, &job->result) == HOLDFAST_OK;
}

/* Waits for the end of what was begun. A node that can't be asked for a while is asked again. */
static void wait_for(struct ctl *ctl, struct job *job) {
    static const struct holdfast_upkeep_request look = {.action = HOLDFAST_UPKEEP_LOOK};
    uint64_t number = job->state.job;
    uint32_t pause_ms = LOOK_FIRST_MS;
    uint32_t failures = 0;
    while (job->has_state && job->state.running && failures < LOOK_FAILURES_MAX) {
        struct holdfast_upkeep state;
        show_progress(ctl, job, false);
        ctl_sleep_ms(pause_ms);
        pause_ms = pause_ms * 2 < LOOK_MS ? pause_ms * 2 : LOOK_MS;
        if (holdfast_upkeep(ctl->handle, job->endpoint, &look, 0, &state, &job->result) != HOLDFAST_OK) {
            failures++;
            continue;
        }
        failures = 0;
        if (state.job != number) {
            /* It restarted, or somebody began another one: how ours ended is not known any more. */
            job->result.outcome = HOLDFAST_UNKNOWN;
            job->result.code = HOLDFAST_CODE_UNKNOWN;
            (void)snprintf(job->result.message, sizeof job->result.message,
                           "%s has restarted, or does another job by now: how this one ended is not known",
                           name_of(ctl, job));
            break;
        }
        job->state = state;
    }
    if (job->has_state) {
        show_progress(ctl, job, true);
    }
}

/* ---- Output ----------------------------------------------------------------------------------------------------- */

static json_t *text_json(const char *text) {
    json_t *string = json_string(text);
    return string != NULL ? string : json_string("?");
}

static bool is_done(const struct job *job) {
    return job->has_state && !job->state.running && job->result.outcome == HOLDFAST_OK &&
           job->state.code == HOLDFAST_CODE_OK;
}

static const char *problem_of(const struct job *job) {
    return !job->has_state || job->result.outcome != HOLDFAST_OK ? job->result.message : job->state.message;
}

static const char *code_of(const struct job *job) {
    return holdfast_code_name(!job->has_state || job->result.outcome != HOLDFAST_OK ? job->result.code
                                                                                    : job->state.code);
}

static json_t *job_json(const struct ctl *ctl, const struct job *job) {
    const struct holdfast_upkeep *state = &job->state;
    json_t *object =
        json_pack("{s:o, s:b, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", text_json(name_of(ctl, job)),
                  "done", (int)is_done(job), "code", code_of(job), "problem", text_json(problem_of(job)), "elapsed_ms",
                  (json_int_t)state->elapsed_ms, "done_bytes", (json_int_t)state->done_bytes, "total_bytes",
                  (json_int_t)state->total_bytes, "files", (json_int_t)state->files, "bytes", (json_int_t)state->bytes,
                  "copied_bytes", (json_int_t)state->copied_bytes, "findings", (json_int_t)state->findings, "index",
                  (json_int_t)state->index);
    return object;
}

static void print_json(struct ctl *ctl, const struct job *jobs, uint32_t count) {
    json_t *nodes = json_array();
    for (uint32_t i = 0; i < count; i++) {
        (void)json_array_append_new(nodes, job_json(ctl, &jobs[i]));
    }
    json_t *root = json_pack("{s:o}", "nodes", nodes);
    (void)json_dumpf(root, ctl->io->out, JSON_COMPACT);
    (void)fputc('\n', ctl->io->out);
    json_decref(root);
}

static void print_text(struct ctl *ctl, const struct holdfast_upkeep_request *request, const struct job *job) {
    const struct holdfast_upkeep *state = &job->state;
    FILE *out = ctl->io->out;
    if (!is_done(job)) {
        return; /* on the other stream */
    }
    (void)fprintf(out, "%s: ", name_of(ctl, job));
    if (request->action == HOLDFAST_UPKEEP_COMPACT) {
        (void)fprintf(out, "compacted, %" PRIu64 " bytes", state->done_bytes);
    } else if (request->action == HOLDFAST_UPKEEP_VERIFY) {
        (void)fprintf(out, "%" PRIu64 " tables, %" PRIu64 " bytes, no damage, up to entry %" PRIu64, state->files,
                      state->bytes, state->index);
    } else {
        (void)fprintf(out, "%" PRIu64 " files, %" PRIu64 " bytes (%" PRIu64 " of them copied), up to entry %" PRIu64,
                      state->files, state->bytes, state->copied_bytes, state->index);
    }
    (void)fprintf(out, ", %" PRIu64 ".%" PRIu64 " s\n", state->elapsed_ms / 1000, state->elapsed_ms % 1000 / 100);
}

static enum ctl_exit fail_job(struct ctl *ctl, const struct job *job) {
    if (!job->has_state || job->result.outcome != HOLDFAST_OK) {
        return ctl_fail_result(ctl, &job->result);
    }
    return ctl_fail(ctl, CTL_FAILED, "%s: %s", name_of(ctl, job), job->state.message);
}

/* ---- One after the other ---------------------------------------------------------------------------------------- */

static bool is_asked(const struct ctl *ctl, uint32_t endpoint) {
    const char *node = ctl->options.node;
    return node == NULL || strcmp(node, holdfast_endpoint_name(ctl->handle, endpoint)) == 0 ||
           strcmp(node, holdfast_endpoint_address(ctl->handle, endpoint)) == 0;
}

/* On each node that is asked; goes on after one that failed, and tells of the first. */
static enum ctl_exit run_all(struct ctl *ctl, const struct holdfast_upkeep_request *request) {
    struct job *jobs = mem_alloc_zero(ctl->alloc, holdfast_endpoint_count(ctl->handle) * sizeof *jobs);
    if (jobs == NULL) {
        return ctl_fail(ctl, CTL_FAILED, "out of memory");
    }
    uint32_t count = 0;
    const struct job *failed = NULL;
    for (uint32_t i = 0; i < holdfast_endpoint_count(ctl->handle); i++) {
        if (!is_asked(ctl, i)) {
            continue;
        }
        struct job *job = &jobs[count++];
        job->endpoint = i;
        begin_on(ctl, request, job);
        wait_for(ctl, job);
        if (!ctl->options.json) {
            print_text(ctl, request, job);
        }
        failed = failed == NULL && !is_done(job) ? job : failed;
    }
    if (ctl->options.json) {
        print_json(ctl, jobs, count);
        ctl->data_on_out = true;
    }
    enum ctl_exit code = ctl_finish_output(ctl);
    if (code == CTL_DONE && failed != NULL) {
        code = fail_job(ctl, failed);
    }
    mem_free(ctl->alloc, jobs);
    return code;
}

/* ---- The commands ----------------------------------------------------------------------------------------------- */

enum ctl_exit ctl_cmd_compact(struct ctl *ctl, int argc, char **argv) {
    struct holdfast_upkeep_request request = {.action = HOLDFAST_UPKEEP_COMPACT};
    struct slice lower = argc > 0 ? slice_of_string(argv[0]) : SLICE_EMPTY;
    struct slice upper = argc > 1 ? slice_of_string(argv[1]) : SLICE_EMPTY;
    const char *prefix = ctl->options.prefix;
    if (prefix != NULL && argc > 0) {
        return ctl_usage(ctl, "--prefix and LOWER exclude each other");
    }
    if (upper.len > 0 && slice_compare(lower, upper) >= 0) {
        return ctl_usage(ctl, "the range is empty: UPPER must be above LOWER");
    }
    struct buf end;
    buf_init(&end, ctl->alloc, 0);
    enum ctl_exit code = CTL_DONE;
    request.range = (struct holdfast_range){lower.data, lower.len, upper.data, upper.len};
    if (prefix != NULL && buf_reserve(&end, strlen(prefix)) != STATUS_OK) {
        code = ctl_fail(ctl, CTL_FAILED, "out of memory");
    } else if (prefix != NULL) {
        request.range = holdfast_prefix_range(prefix, strlen(prefix), end.data);
    }
    if (code == CTL_DONE) {
        code = ctl_connect(ctl);
    }
    if (code == CTL_DONE) {
        code = run_all(ctl, &request);
    }
    buf_deinit(&end);
    return code;
}

enum ctl_exit ctl_cmd_verify(struct ctl *ctl, int argc, char **argv) {
    (void)argc, (void)argv;
    static const struct holdfast_upkeep_request request = {.action = HOLDFAST_UPKEEP_VERIFY};
    if (ctl->options.cluster && ctl->options.node != NULL) {
        return ctl_usage(ctl, "--cluster is about all nodes: --node doesn't go with it");
    }
    enum ctl_exit code = ctl_connect(ctl);
    if (code == CTL_DONE && ctl->options.cluster) {
        return ctl_compare_nodes(ctl);
    }
    return code == CTL_DONE ? run_all(ctl, &request) : code;
}

enum ctl_exit ctl_cmd_checkpoint(struct ctl *ctl, int argc, char **argv) {
    (void)argc;
    const struct holdfast_upkeep_request request = {.action = HOLDFAST_UPKEEP_CHECKPOINT, .dir = argv[0]};
    if (ctl->options.node == NULL) {
        return ctl_usage(ctl, "which node? Say --node NAME");
    }
    if (argv[0][0] != '/') {
        return ctl_usage(ctl, "DIR must be an absolute path on the node's machine, not \"%s\"", argv[0]);
    }
    enum ctl_exit code = ctl_connect(ctl);
    return code == CTL_DONE ? run_all(ctl, &request) : code;
}
