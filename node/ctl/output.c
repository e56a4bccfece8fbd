/* What the operator sees when a command ends: errors in one line with what to do next, exit codes, small replies. */
#include "node/ctl/ctl.h"
#include "node/ctl/pairs.h"

#include "node/base/alloc.h"

#include <errno.h>
#include <stdarg.h>
#include <time.h>

enum { MESSAGE_BYTES = 1024 };

uint64_t ctl_clock_us(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

enum ctl_exit ctl_exit_of(const struct holdfast_result *result) {
    if (result->outcome == HOLDFAST_OK) {
        return CTL_DONE;
    }
    if (result->outcome == HOLDFAST_UNKNOWN) {
        return CTL_UNKNOWN;
    }
    switch (result->code) {
    case HOLDFAST_CODE_NOT_FOUND:
    case HOLDFAST_CODE_CONDITION: return CTL_NOT_FOUND;
    case HOLDFAST_CODE_TIMEOUT:
    case HOLDFAST_CODE_BUSY:
    case HOLDFAST_CODE_UNAVAILABLE:
    case HOLDFAST_CODE_UNREACHABLE:
    case HOLDFAST_CODE_CLOSED: return CTL_UNREACHABLE;
    case HOLDFAST_CODE_DENIED: return CTL_DENIED;
    default: return CTL_FAILED;
    }
}

/* What to do next, where the message can't know it. */
static const char *advice(const struct holdfast_result *result) {
    if (result->outcome == HOLDFAST_UNKNOWN) {
        return "read it back before trying again";
    }
    switch (result->code) {
    case HOLDFAST_CODE_UNREACHABLE: return "check that the nodes run and that the endpoints are right";
    case HOLDFAST_CODE_TIMEOUT:
    case HOLDFAST_CODE_BUSY: return "try again, or give it more time with --timeout";
    case HOLDFAST_CODE_UNAVAILABLE: return "`holdfastctl status` shows whether a majority of the nodes runs";
    case HOLDFAST_CODE_NOT_LEADER: return "leave --node away to write";
    case HOLDFAST_CODE_COMPACTED: return "leave --rev away, or name a newer revision";
    case HOLDFAST_CODE_NO_SPACE: return "free disk space on the nodes";
    default: return NULL;
    }
}

static void say(struct ctl *ctl, const char *message) {
    const char *name = ctl->command != NULL ? ctl->command->name : NULL;
    (void)fprintf(ctl->io->err, "holdfastctl: %s%s%s\n", name != NULL ? name : "", name != NULL ? ": " : "", message);
}

/* {"error":{"code":"...","outcome":"...","message":"..."}} */
static void say_json(struct ctl *ctl, const char *code, const char *outcome, const char *message) {
    struct buf line;
    if (!ctl->options.json || ctl->data_on_out) {
        return;
    }
    buf_init(&line, ctl->alloc, 0);
    struct slice text = slice_of_string(message);
    enum status status =
        buf_append_format(&line, "{\"error\":{\"code\":\"%s\",\"outcome\":\"%s\",\"message\":", code, outcome);
    if (status == STATUS_OK) {
        status = text_is_utf8(text) ? pair_append_string(&line, text) : buf_append(&line, "\"\"", 2);
    }
    if (status == STATUS_OK) {
        status = buf_append(&line, "}}\n", 3);
    }
    if (status == STATUS_OK) {
        (void)fwrite(line.data, 1, line.len, ctl->io->out);
        (void)fflush(ctl->io->out);
    }
    buf_deinit(&line);
}

enum ctl_exit ctl_usage(struct ctl *ctl, const char *format, ...) {
    char message[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    say(ctl, message);
    if (ctl->command != NULL) {
        (void)fprintf(ctl->io->err, "usage: holdfastctl [OPTIONS] %s %s\n", ctl->command->name,
                      ctl->command->arguments);
        (void)fprintf(ctl->io->err, "`holdfastctl %s --help` says more\n", ctl->command->name);
    } else {
        (void)fprintf(ctl->io->err,
                      "usage: holdfastctl [OPTIONS] COMMAND [ARGUMENTS]\n`holdfastctl help` lists the commands\n");
    }
    say_json(ctl, "usage", "failed", message);
    return CTL_USAGE;
}

enum ctl_exit ctl_fail(struct ctl *ctl, enum ctl_exit code, const char *format, ...) {
    static const char *const NAMES[] = {"ok", "failed", "usage", "not_found", "unreachable", "denied", "unknown"};
    char message[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    say(ctl, message);
    say_json(ctl, NAMES[code], code == CTL_UNKNOWN ? "unknown" : "failed", message);
    return code;
}

enum ctl_exit ctl_fail_result(struct ctl *ctl, const struct holdfast_result *result) {
    char message[MESSAGE_BYTES];
    const char *next = advice(result);
    (void)snprintf(message, sizeof message, "%s%s%s", result->message, next != NULL ? ": " : "",
                   next != NULL ? next : "");
    say(ctl, message);
    say_json(ctl, holdfast_code_name(result->code), holdfast_outcome_name(result->outcome), message);
    return ctl_exit_of(result);
}

enum ctl_exit ctl_finish_output(struct ctl *ctl) {
    if (fflush(ctl->io->out) == 0 && !ferror(ctl->io->out)) {
        return CTL_DONE;
    }
    return ctl_fail(ctl, CTL_FAILED, "the output can't be written: %s", strerror(errno));
}

enum ctl_exit ctl_print_revision(struct ctl *ctl, uint64_t revision) {
    const char *format = ctl->options.json ? "{\"revision\":%llu}\n" : "revision %llu\n";
    (void)fprintf(ctl->io->out, format, (unsigned long long)revision);
    return ctl_finish_output(ctl);
}
