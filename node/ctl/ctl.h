/*
 * holdfastctl: the operator's command line. ctl_run takes the arguments and three files, so that tests run it
 * in-process; main.c gives it the process's own.
 *
 * Flow: arguments (arguments.c, against the table of commands.c) -> profile and options (connect.c) -> one command
 * (cmd_*.c) -> text or JSON (output.c). One thread, but for callbacks of the client library, which only push to a
 * ctl_queue.
 */
#ifndef HOLDFAST_CTL_H
#define HOLDFAST_CTL_H

#include "node/base/buf.h"
#include "node/base/slice.h"
#include "proto/client/holdfast.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum ctl_exit {
    CTL_DONE = 0,
    CTL_FAILED = 1,
    CTL_USAGE = 2,
    CTL_NOT_FOUND = 3,   /* or a condition is false */
    CTL_UNREACHABLE = 4, /* or timed out */
    CTL_DENIED = 5,
    CTL_UNKNOWN = 6 /* the outcome */
};

/* Where bytes come from and go to, and how a handle is opened (tests open one without TLS). */
struct ctl_io {
    int in; /* file descriptor */
    FILE *out;
    FILE *err;
    enum holdfast_outcome (*open)(const struct holdfast_options *options, struct holdfast **ret_handle,
                                  struct holdfast_result *result);
};

struct ctl_options {
    const char *profile;
    const char *endpoints;
    const char *ca;
    const char *cert;
    const char *key;
    const char *node;
    uint32_t timeout_ms; /* 0: the profile's */
    bool local;
    bool json;
    bool help;
    const char *prefix;
    uint64_t limit; /* 0: none */
    uint64_t revision;
    bool keys_only;
    bool count;
    bool range;
    bool base64;
    bool skip_bad;
    bool cluster;
    uint32_t in_flight;
    uint32_t give_up_s;
    /* Of a new member: */
    uint64_t id; /* 0: not given */
    const char *peer;
    const char *client;
    const char *thumbprint;
    const char *member_cert;
    uint32_t priority;
    bool unreachable;
    bool promote;
    uint32_t wait_s; /* 0: not given */
};

struct ctl_command;

struct ctl {
    const struct ctl_io *io;
    struct alloc *alloc;
    const struct ctl_command *command;
    struct ctl_options options;
    uint32_t given;                   /* bits of the options that were */
    struct holdfast_profile *profile; /* NULL: none */
    struct holdfast *handle;          /* opened by ctl_connect */
    bool data_on_out;                 /* stdout carries data: no error object there */
};

struct ctl_command {
    const char *name;
    const char *arguments; /* "KEY VALUE|-" */
    const char *summary;
    const char *help; /* further lines; options that apply are listed by the table of arguments.c */
    uint32_t options; /* bits of arguments.c that this command takes beside the global ones */
    int arguments_min;
    int arguments_max;
    enum ctl_exit (*run)(struct ctl *ctl, int argc, char **argv);
};

/* The whole program; argv[0] is the program's name. */
enum ctl_exit ctl_run(int argc, char **argv, const struct ctl_io *io);

/* commands.c */
extern const struct ctl_command CTL_COMMANDS[];
extern const size_t CTL_COMMAND_COUNT;
const struct ctl_command *ctl_find_command(const char *name);
enum ctl_exit ctl_cmd_put(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_get(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_del(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_scan(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_import(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_export(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_status(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_wal(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_member(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_leader(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_compact(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_verify(struct ctl *ctl, int argc, char **argv);
/* verify --cluster, connected. */
enum ctl_exit ctl_compare_nodes(struct ctl *ctl);
enum ctl_exit ctl_cmd_checkpoint(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_version(struct ctl *ctl, int argc, char **argv);
enum ctl_exit ctl_cmd_help(struct ctl *ctl, int argc, char **argv);

/* arguments.c: options of commands, bit by bit. */
enum ctl_option_bit {
    CTL_OPTION_PREFIX = 1 << 0,
    CTL_OPTION_LIMIT = 1 << 1,
    CTL_OPTION_REVISION = 1 << 2,
    CTL_OPTION_KEYS_ONLY = 1 << 3,
    CTL_OPTION_COUNT = 1 << 4,
    CTL_OPTION_BASE64 = 1 << 5,
    CTL_OPTION_SKIP_BAD = 1 << 6,
    CTL_OPTION_IN_FLIGHT = 1 << 7,
    CTL_OPTION_GIVE_UP = 1 << 8,
    CTL_OPTION_RANGE = 1 << 9,
    CTL_OPTION_NEW_MEMBER = 1 << 10,
    CTL_OPTION_PROMOTE = 1 << 11,
    CTL_OPTION_WAIT = 1 << 12,
    CTL_OPTION_CLUSTER = 1 << 13,
    CTL_OPTION_GLOBAL = 1 << 30
};
/* Fills ctl->options and ctl->command, moves operands to the end of argv: the command's start at *ret_first. False: a
 * usage error, said already. */
bool ctl_parse_arguments(struct ctl *ctl, int argc, char **argv, int *ret_first);
/* NULL command: the program's. */
void ctl_print_help(FILE *out, const struct ctl_command *command);

/* connect.c: opens ctl->handle from the profile and the options; CTL_DONE or the exit code, with the error said. */
enum ctl_exit ctl_connect(struct ctl *ctl);
void ctl_disconnect(struct ctl *ctl);
struct holdfast_read_options ctl_read_options(const struct ctl *ctl);

/* output.c: `holdfastctl: put: <what>: <what to do>` on err; with JSON {"error":...} on out too, unless data goes
 * there. */
enum ctl_exit ctl_usage(struct ctl *ctl, const char *format, ...) PRINTF_LIKE(2, 3);
enum ctl_exit ctl_fail(struct ctl *ctl, enum ctl_exit code, const char *format, ...) PRINTF_LIKE(3, 4);
enum ctl_exit ctl_fail_result(struct ctl *ctl, const struct holdfast_result *result);
enum ctl_exit ctl_exit_of(const struct holdfast_result *result);
/* Flushes out; a full disk or a closed pipe is a failure. */
enum ctl_exit ctl_finish_output(struct ctl *ctl);
/* {"revision":N} or "revision N". */
enum ctl_exit ctl_print_revision(struct ctl *ctl, uint64_t revision);
uint64_t ctl_clock_us(void);
void ctl_sleep_ms(uint32_t ms);

#endif
