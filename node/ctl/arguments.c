/*
 * Arguments: getopt_long over one table of all options; each command says which of them it takes. Options may stand
 * before or behind the command; `--` ends them, `-` is an argument.
 */
#include "node/ctl/ctl.h"

#include "node/base/check.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>

enum option_kind { OPTION_TEXT, OPTION_FLAG, OPTION_U32, OPTION_U64, OPTION_OUTPUT };

struct option_info {
    const char *name;
    const char *argument;
    const char *help;
    enum option_kind kind;
    size_t offset; /* in struct ctl_options */
    uint32_t bit;
    uint64_t low, high; /* of numbers */
};

#define AT(field) offsetof(struct ctl_options, field)

static const struct option_info OPTIONS[] = {
    {"profile", "FILE", "client profile (else HOLDFAST_PROFILE, else build/cluster/client.ini here or above)",
     OPTION_TEXT, AT(profile), CTL_OPTION_GLOBAL, 0, 0},
    {"endpoints", "H:P,...", "nodes, in place of the profile's", OPTION_TEXT, AT(endpoints), CTL_OPTION_GLOBAL, 0, 0},
    {"ca", "FILE", "who signs the nodes' certificates (PEM)", OPTION_TEXT, AT(ca), CTL_OPTION_GLOBAL, 0, 0},
    {"cert", "FILE", "our certificate (PEM)", OPTION_TEXT, AT(cert), CTL_OPTION_GLOBAL, 0, 0},
    {"key", "FILE", "its key (PEM)", OPTION_TEXT, AT(key), CTL_OPTION_GLOBAL, 0, 0},
    {"node", "NAME|H:P", "talk to this node only", OPTION_TEXT, AT(node), CTL_OPTION_GLOBAL, 0, 0},
    {"local", NULL, "read what that node has applied, without asking the leader", OPTION_FLAG, AT(local),
     CTL_OPTION_GLOBAL, 0, 0},
    {"timeout", "MS", "deadline of a request (5000)", OPTION_U32, AT(timeout_ms), CTL_OPTION_GLOBAL, 1, 3600000},
    {"output", "text|json", "form of what is printed (text)", OPTION_OUTPUT, AT(json), CTL_OPTION_GLOBAL, 0, 0},
    {"help", NULL, "say how to use it", OPTION_FLAG, AT(help), CTL_OPTION_GLOBAL, 0, 0},
    {"prefix", "P", "keys that begin with P", OPTION_TEXT, AT(prefix), CTL_OPTION_PREFIX, 0, 0},
    {"range", NULL, "keys from FROM up to, not including, TO", OPTION_FLAG, AT(range), CTL_OPTION_RANGE, 0, 0},
    {"limit", "N", "at most N pairs", OPTION_U64, AT(limit), CTL_OPTION_LIMIT, 1, UINT64_MAX},
    {"rev", "N", "as of revision N", OPTION_U64, AT(revision), CTL_OPTION_REVISION, 1, UINT64_MAX},
    {"keys-only", NULL, "without values", OPTION_FLAG, AT(keys_only), CTL_OPTION_KEYS_ONLY, 0, 0},
    {"count", NULL, "only how many", OPTION_FLAG, AT(count), CTL_OPTION_COUNT, 0, 0},
    {"base64", NULL, "keys (and VALUE, if it is an argument) are base64", OPTION_FLAG, AT(base64), CTL_OPTION_BASE64, 0,
     0},
    {"skip-bad", NULL, "report bad lines and go on", OPTION_FLAG, AT(skip_bad), CTL_OPTION_SKIP_BAD, 0, 0},
    {"cluster", NULL, "compare what the nodes hold with each other", OPTION_FLAG, AT(cluster), CTL_OPTION_CLUSTER, 0,
     0},
    {"inflight", "N", "requests of up to 64 KiB under way at a time (64)", OPTION_U32, AT(in_flight),
     CTL_OPTION_IN_FLIGHT, 1, 1024},
    {"give-up", "SECONDS", "end when nothing was acknowledged for so long (60)", OPTION_U32, AT(give_up_s),
     CTL_OPTION_GIVE_UP, 1, 3600},
    {"id", "N", "new member: its id, which was never anybody's", OPTION_U64, AT(id), CTL_OPTION_NEW_MEMBER, 1,
     UINT64_C(1) << 63},
    {"peer", "H:P", "new member: where the others reach it", OPTION_TEXT, AT(peer), CTL_OPTION_NEW_MEMBER, 0, 0},
    {"client", "H:P", "new member: where clients reach it", OPTION_TEXT, AT(client), CTL_OPTION_NEW_MEMBER, 0, 0},
    {"thumbprint", "HEX", "new member: SHA-256 of its certificate", OPTION_TEXT, AT(thumbprint), CTL_OPTION_NEW_MEMBER,
     0, 0},
    {"member-cert", "FILE", "new member: its certificate (PEM), to compute that", OPTION_TEXT, AT(member_cert),
     CTL_OPTION_NEW_MEMBER, 0, 0},
    {"priority", "N", "new member: who leads by preference, more is better (0)", OPTION_U32, AT(priority),
     CTL_OPTION_NEW_MEMBER, 0, UINT8_MAX},
    {"unreachable", NULL, "new member: add it although it doesn't run yet", OPTION_FLAG, AT(unreachable),
     CTL_OPTION_NEW_MEMBER, 0, 0},
    {"promote", NULL, "wait until it keeps up, then give it a vote", OPTION_FLAG, AT(promote), CTL_OPTION_PROMOTE, 0,
     0},
    {"wait", "SECONDS", "for a learner to keep up (600 where it is waited for)", OPTION_U32, AT(wait_s),
     CTL_OPTION_WAIT, 1, 86400},
};

enum { OPTION_COUNT = sizeof OPTIONS / sizeof OPTIONS[0], OPTION_VALUE_BASE = 1000, HELP_LETTER = 'h' };

/* ---- Help ----------------------------------------------------------------------------------------------------- */

static void print_options(FILE *out, uint32_t bits) {
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option_info *info = &OPTIONS[i];
        if ((info->bit & bits) == 0) {
            continue;
        }
        char left[64];
        (void)snprintf(left, sizeof left, "--%s%s%s", info->name, info->argument != NULL ? " " : "",
                       info->argument != NULL ? info->argument : "");
        (void)fprintf(out, "  %-22s %s\n", left, info->help);
    }
}

void ctl_print_help(FILE *out, const struct ctl_command *command) {
    if (command == NULL) {
        (void)fprintf(out, "usage: holdfastctl [OPTIONS] COMMAND [ARGUMENTS]\n\nCommands:\n");
        for (size_t i = 0; i < CTL_COMMAND_COUNT; i++) {
            (void)fprintf(out, "  %-10s %s\n", CTL_COMMANDS[i].name, CTL_COMMANDS[i].summary);
        }
        (void)fprintf(out, "\nOptions:\n");
        print_options(out, CTL_OPTION_GLOBAL);
        (void)fprintf(out, "\nExit codes: 0 done, 1 failed for sure, 2 usage, 3 not found or condition false,\n"
                           "4 unreachable or timed out, 5 denied, 6 outcome unknown.\n"
                           "`holdfastctl COMMAND --help` says more about a command.\n");
        return;
    }
    (void)fprintf(out, "usage: holdfastctl [OPTIONS] %s%s%s\n\n%s.\n%s", command->name,
                  command->arguments[0] != '\0' ? " " : "", command->arguments, command->summary, command->help);
    if (command->options != 0) {
        (void)fprintf(out, "\nOptions of %s:\n", command->name);
        print_options(out, command->options);
    }
    (void)fprintf(out, "\nGlobal options:\n");
    print_options(out, CTL_OPTION_GLOBAL);
}

/* ---- Parsing -------------------------------------------------------------------------------------------------- */

static bool parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *ret_number) {
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number < low || number > high) {
        return false;
    }
    *ret_number = number;
    return true;
}

static bool store(struct ctl *ctl, const struct option_info *info, char *text) {
    char *at = (char *)&ctl->options + info->offset;
    uint64_t number = 0;
    switch (info->kind) {
    case OPTION_TEXT: memcpy(at, &text, sizeof text); return true;
    case OPTION_FLAG: *(bool *)(void *)at = true; return true;
    case OPTION_OUTPUT:
        ctl->options.json = strcmp(text, "json") == 0;
        if (!ctl->options.json && strcmp(text, "text") != 0) {
            (void)ctl_usage(ctl, "--output is \"%s\"; it must be text or json", text);
            return false;
        }
        return true;
    case OPTION_U32:
    case OPTION_U64:
        if (!parse_number(text, info->low, info->high, &number)) {
            (void)ctl_usage(ctl, "--%s is \"%s\"; it must be a number from %llu to %llu", info->name, text,
                            (unsigned long long)info->low, (unsigned long long)info->high);
            return false;
        }
        if (info->kind == OPTION_U64) {
            memcpy(at, &number, sizeof number);
        } else {
            uint32_t small = (uint32_t)number;
            memcpy(at, &small, sizeof small);
        }
        return true;
    }
    CHECK(false);
}

/* The command is the first operand; known before options are judged, so that errors show its usage. */
static bool take_command(struct ctl *ctl, int argc, char **argv, int *ret_first) {
    int first = optind;
    if (first >= argc) {
        if (ctl->options.help) {
            *ret_first = first;
            return true;
        }
        (void)ctl_usage(ctl, "no command");
        return false;
    }
    ctl->command = ctl_find_command(argv[first]);
    if (ctl->command == NULL) {
        (void)ctl_usage(ctl, "unknown command \"%s\"", argv[first]);
        return false;
    }
    *ret_first = first + 1;
    return true;
}

static bool judge_options(struct ctl *ctl, uint32_t given) {
    uint32_t wrong = given & ~(ctl->command->options | (uint32_t)CTL_OPTION_GLOBAL);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if ((OPTIONS[i].bit & wrong) != 0) {
            (void)ctl_usage(ctl, "--%s is no option of this command", OPTIONS[i].name);
            return false;
        }
    }
    return true;
}

static void fill_long_options(struct option *out) {
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        out[i] = (struct option){OPTIONS[i].name, OPTIONS[i].argument != NULL ? required_argument : no_argument, NULL,
                                 OPTION_VALUE_BASE + (int)i};
    }
    out[OPTION_COUNT] = (struct option){0};
}

bool ctl_parse_arguments(struct ctl *ctl, int argc, char **argv, int *ret_first) {
    struct option long_options[OPTION_COUNT + 1];
    uint32_t given = 0;
    const char *bad = NULL;
    bool missing = false;
    fill_long_options(long_options);
    optind = 0;
    opterr = 0;
    for (;;) {
        int value = getopt_long(argc, argv, ":h", long_options, NULL);
        if (value == -1) {
            break;
        }
        if (value == HELP_LETTER) {
            ctl->options.help = true;
        } else if (value >= OPTION_VALUE_BASE) {
            const struct option_info *info = &OPTIONS[value - OPTION_VALUE_BASE];
            given |= info->bit;
            if (!store(ctl, info, optarg)) {
                return false;
            }
        } else if (bad == NULL) {
            bad = argv[optind - 1];
            missing = value == ':';
        }
    }
    if (!take_command(ctl, argc, argv, ret_first)) {
        return false;
    }
    if (bad != NULL) {
        (void)ctl_usage(ctl, missing ? "%s needs an argument" : "unknown option %s", bad);
        return false;
    }
    if (ctl->command == NULL || ctl->options.help) {
        return true;
    }
    int count = argc - *ret_first;
    ctl->given = given;
    if (!judge_options(ctl, given)) {
        return false;
    }
    if (count < ctl->command->arguments_min || count > ctl->command->arguments_max) {
        (void)ctl_usage(ctl, count < ctl->command->arguments_min ? "an argument is missing" : "too many arguments");
        return false;
    }
    return true;
}
