/*
 * import: JSON lines from a file or standard input into the cluster. Reads when input is ready and there is room, sends
 * what it has when no input is ready, and waits for whatever comes first. The engine is import.c.
 */
#include "node/ctl/import.h"
#include "node/ctl/lines.h"
#include "node/ctl/pairs.h"
#include "node/ctl/progress.h"

#include "node/base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAIT_MS = 100 };

struct import_run {
    struct ctl *ctl;
    struct import import;
    struct lines lines;
    struct pair pair;
    struct progress progress;
    bool has_pair; /* parsed, waiting for room */
    bool at_end;
    uint64_t skipped;
};

/* ---- Lines ---------------------------------------------------------------------------------------------------- */

static bool is_blank(struct slice line) {
    for (size_t i = 0; i < line.len; i++) {
        if (line.data[i] != ' ' && line.data[i] != '\t' && line.data[i] != '\r') {
            return false;
        }
    }
    return true;
}

/* A bad line: reported; CTL_DONE if it may be skipped. */
static enum ctl_exit bad_line(struct import_run *run, const char *what) {
    struct ctl *ctl = run->ctl;
    progress_clear(&run->progress);
    unsigned long long number = run->lines.number;
    if (ctl->options.skip_bad) {
        run->skipped++;
        (void)fprintf(ctl->io->err, "holdfastctl: import: line %llu skipped: %s\n", number, what);
        return CTL_DONE;
    }
    return ctl_fail(ctl, CTL_FAILED,
                    "line %llu: %s: nothing from this line on was imported; correct it, or use --skip-bad", number,
                    what);
}

static enum ctl_exit take_line(struct import_run *run, struct slice line) {
    struct error err;
    if (is_blank(line)) {
        return CTL_DONE;
    }
    enum status status = pair_parse(&run->pair, line, &err);
    if (status == STATUS_NO_MEMORY) {
        return ctl_fail(run->ctl, CTL_FAILED, "line %llu: out of memory", (unsigned long long)run->lines.number);
    }
    if (status != STATUS_OK) {
        return bad_line(run, err.message);
    }
    run->has_pair = true;
    return CTL_DONE;
}

/* ---- The loop ------------------------------------------------------------------------------------------------- */

static void wait_and_collect(struct import_run *run, int input, int timeout_ms, bool *ret_input_ready) {
    bool ready = ctl_queue_wait(&run->import.queue, input, timeout_ms);
    if (ret_input_ready != NULL) {
        *ret_input_ready = ready;
    }
    uint64_t now_us = ctl_clock_us();
    import_collect(&run->import, now_us);
    progress_show(&run->progress, now_us, run->import.count, run->import.bytes, run->lines.taken_bytes);
}

/* No whole line is there: send what is building if the input has to be waited for, then read. */
static enum ctl_exit read_more(struct import_run *run) {
    struct error err;
    bool ready = false;
    wait_and_collect(run, run->lines.input, 0, &ready);
    while (!ready && !run->import.failed) {
        enum status status = import_flush(&run->import);
        CHECK(status == STATUS_OK || status == STATUS_BUSY || run->import.failed);
        wait_and_collect(run, run->lines.input, WAIT_MS, &ready);
    }
    if (ready && lines_read(&run->lines, &err) != STATUS_OK) {
        return ctl_fail(run->ctl, CTL_FAILED, "%s", err.message);
    }
    return CTL_DONE;
}

/* One step: place a pair, take a line, or get more input. */
static enum ctl_exit step(struct import_run *run) {
    struct slice line;
    if (run->has_pair) {
        enum status status = import_add(&run->import, run->pair.key, run->pair.value, run->lines.number);
        if (status == STATUS_BUSY) {
            wait_and_collect(run, -1, WAIT_MS, NULL);
        } else if (status == STATUS_OK) {
            run->has_pair = false;
        } else if (status == STATUS_NO_MEMORY) {
            return ctl_fail(run->ctl, CTL_FAILED, "out of memory");
        }
        return CTL_DONE;
    }
    switch (lines_next(&run->lines, &line)) {
    case LINES_LINE: return take_line(run, line);
    case LINES_NEEDS_INPUT: return read_more(run);
    case LINES_TOO_LONG:
        return ctl_fail(run->ctl, CTL_FAILED, "line %llu: longer than any pair can be: is this a file of JSON lines?",
                        (unsigned long long)run->lines.number);
    case LINES_END: run->at_end = true; return CTL_DONE;
    }
    CHECK(false);
}

static enum ctl_exit finish(struct import_run *run) {
    while (!import_is_idle(&run->import) && !run->import.failed) {
        enum status status = import_flush(&run->import);
        CHECK(status == STATUS_OK || status == STATUS_BUSY || run->import.failed);
        wait_and_collect(run, -1, WAIT_MS, NULL);
    }
    return CTL_DONE;
}

static enum ctl_exit report_failure(struct import_run *run) {
    const struct holdfast_result *failure = &run->import.failure;
    progress_clear(&run->progress);
    return ctl_fail(
        run->ctl, ctl_exit_of(failure),
        "lines %llu to %llu: %s: %llu pairs were acknowledged; run the import again, repeating pairs does no harm",
        (unsigned long long)run->import.failed_first_line, (unsigned long long)run->import.failed_last_line,
        failure->message, (unsigned long long)run->import.count);
}

static enum ctl_exit run_import(struct import_run *run) {
    enum ctl_exit code = CTL_DONE;
    uint32_t steps = 0;
    while (code == CTL_DONE && !run->at_end && !run->import.failed) {
        code = step(run);
        if (++steps % 256 == 0) {
            wait_and_collect(run, -1, 0, NULL);
        }
    }
    if (!run->import.failed) {
        /* Lines before a bad one are good: they are brought home. */
        (void)finish(run);
    }
    return run->import.failed && code == CTL_DONE ? report_failure(run) : code;
}

/* ---- The command ---------------------------------------------------------------------------------------------- */

static enum ctl_exit summarise(struct import_run *run) {
    struct ctl *ctl = run->ctl;
    double seconds = (double)(ctl_clock_us() - run->progress.started_us) / 1e6;
    unsigned long long count = run->import.count;
    unsigned long long bytes = run->import.bytes;
    unsigned long long skipped = run->skipped;
    progress_clear(&run->progress);
    if (ctl->options.json) {
        (void)fprintf(ctl->io->out, "{\"imported\":%llu,\"bytes\":%llu,\"skipped\":%llu,\"seconds\":%.3f}\n", count,
                      bytes, skipped, seconds);
    } else {
        (void)fprintf(ctl->io->out, "imported %llu pairs, %llu bytes, in %.1f s (%.0f/s)", count, bytes, seconds,
                      seconds > 0 ? (double)count / seconds : 0.0);
        (void)fprintf(ctl->io->out, skipped > 0 ? ", %llu bad lines skipped\n" : "\n", skipped);
    }
    return ctl_finish_output(ctl);
}

static enum ctl_exit open_input(struct ctl *ctl, const char *path, int *ret_input) {
    *ret_input = ctl->io->in;
    if (path == NULL || strcmp(path, "-") == 0) {
        return CTL_DONE;
    }
    *ret_input = open(path, O_RDONLY | O_CLOEXEC);
    return *ret_input >= 0 ? CTL_DONE : ctl_fail(ctl, CTL_FAILED, "%s can't be read: %s", path, strerror(errno));
}

enum ctl_exit ctl_cmd_import(struct ctl *ctl, int argc, char **argv) {
    int input = -1;
    struct stat info;
    struct import_run run = {.ctl = ctl};
    enum ctl_exit code = open_input(ctl, argc > 0 ? argv[0] : NULL, &input);
    if (code == CTL_DONE) {
        code = ctl_connect(ctl);
    }
    if (code != CTL_DONE) {
        goto out;
    }
    bool is_file = fstat(input, &info) == 0 && S_ISREG(info.st_mode);
    lines_init(&run.lines, ctl->alloc, input);
    pair_init(&run.pair, ctl->alloc);
    progress_init(&run.progress, ctl->io->err, isatty(fileno(ctl->io->err)) == 1, is_file ? (uint64_t)info.st_size : 0,
                  ctl_clock_us());
    if (import_init(&run.import, ctl->handle, ctl->alloc, ctl->options.in_flight, ctl->options.give_up_s)) {
        code = run_import(&run);
        if (code == CTL_DONE) {
            code = summarise(&run);
        }
    } else {
        code = ctl_fail(ctl, CTL_FAILED, "out of descriptors");
    }
    ctl_disconnect(ctl); /* ends the callbacks, before what they push to */
    import_deinit(&run.import);
    lines_deinit(&run.lines);
    pair_release(&run.pair);
out:
    if (input >= 0 && input != ctl->io->in) {
        (void)close(input);
    }
    return code;
}
