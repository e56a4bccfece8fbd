/* holdfast-check: arguments, output, exit codes. What it means is in check.h. */
#include "tests/chaos/check/check.h"
#include "tests/chaos/check/reader.h"
#include "tests/chaos/check/witness.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_LINEARIZABLE = 0, EXIT_VIOLATION = 1, EXIT_BAD_INPUT = 2, EXIT_UNDECIDED = 3 };

struct arguments {
    const char *path;
    bool json;
    bool progress;
    struct check_budget budget;
};

static const struct argp_option options[] = {{"json", 'j', NULL, 0, "Print one JSON object", 0},
                                             {"progress", 'p', NULL, 0, "Say on standard error how far it is", 0},
                                             {"steps", 's', "N", 0, "Give a group of keys up after N steps (100000000)",
                                              0},
                                             {"memory", 'm', "MIB", 0,
                                              "Remember states of a search in this many MiB at most (512)", 0},
                                             {0}};

static bool parse_number(const char *text, uint64_t max, uint64_t *ret) {
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || number == 0 || number > max) {
        return false;
    }
    *ret = number;
    return true;
}

static error_t parse(int key, char *argument, struct argp_state *state) {
    struct arguments *arguments = state->input;
    uint64_t number = 0;
    switch (key) {
    case 'j': arguments->json = true; return 0;
    case 'p': arguments->progress = true; return 0;
    case 's':
        if (!parse_number(argument, UINT64_MAX / 2, &arguments->budget.steps_max)) {
            argp_error(state, "--steps is a number above 0, not '%s'", argument);
        }
        return 0;
    case 'm':
        if (!parse_number(argument, 1 << 20, &number)) {
            argp_error(state, "--memory is a number of MiB above 0, not '%s'", argument);
        }
        arguments->budget.memory_bytes = number << 20;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0) {
            argp_error(state, "one history at a time");
        }
        arguments->path = argument;
        return 0;
    case ARGP_KEY_END:
        if (arguments->path == NULL) {
            argp_error(state, "which history? (- is standard input)");
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "HISTORY",
    .doc = "Says whether a history of operations on a map of registers is linearizable. It may be JSON lines of "
           "holdfast-history, a log of one register, or a map of strings (tests/chaos/check/README.md)."
           "\vExit status: 0 if it is linearizable; 1 if it isn't, with the few operations that show it; 2 for wrong "
           "usage or bad input; 3 if the steps didn't suffice to tell."};

static void say_progress(void *context, uint32_t round, uint32_t searched, uint32_t groups) {
    (void)context;
    (void)fprintf(stderr, "\rround %" PRIu32 ": %" PRIu32 " of %" PRIu32 " groups of keys ", round, searched, groups);
    if (searched == groups) {
        (void)fputc('\n', stderr);
    }
}

static const char *const verdict_names[] = {
    [CHECK_LINEARIZABLE] = "linearizable", [CHECK_VIOLATION] = "not-linearizable", [CHECK_UNDECIDED] = "undecided"};

static enum status print_text(const struct arguments *arguments, const struct check_history *history,
                              const struct check_result *result) {
    struct buf text;
    buf_init(&text, history->alloc, 0);
    enum status status = STATUS_OK;
    if (result->verdict == CHECK_VIOLATION) {
        status = check_witness_print(history, result, &text);
    }
    if (status == STATUS_OK) {
        printf("%s: %s: %" PRIu32 " operations, %" PRIu32 " keys in %" PRIu32 " groups, %" PRIu64 " steps",
               arguments->path, verdict_names[result->verdict], history->operation_count, history->key_count,
               result->groups, result->steps);
        if (result->verdict == CHECK_UNDECIDED) {
            printf("; %" PRIu32 " groups need more (--steps)", result->undecided);
        }
        printf("\n%.*s", (int)text.len, text.len > 0 ? (const char *)text.data : "");
    }
    buf_deinit(&text);
    return status;
}

static enum status print_json(const struct arguments *arguments, const struct check_history *history,
                              const struct check_result *result) {
    json_t *object = json_object();
    int failed = json_object_set_new(object, "history", json_string(arguments->path));
    failed |= json_object_set_new(object, "verdict", json_string(verdict_names[result->verdict]));
    failed |= json_object_set_new(object, "operations", json_integer(history->operation_count));
    failed |= json_object_set_new(object, "keys", json_integer(history->key_count));
    failed |= json_object_set_new(object, "groups", json_integer(result->groups));
    failed |= json_object_set_new(object, "undecided", json_integer(result->undecided));
    failed |= json_object_set_new(object, "rounds", json_integer(result->rounds));
    failed |= json_object_set_new(object, "steps", json_integer((json_int_t)result->steps));
    if (result->verdict == CHECK_VIOLATION) {
        failed |= json_object_set_new(object, "witness", check_witness_json(history, result));
    }
    if (failed == 0) {
        failed = json_dumpf(object, stdout, JSON_COMPACT);
        (void)putchar('\n');
    }
    json_decref(object);
    return failed == 0 ? STATUS_OK : STATUS_NO_MEMORY;
}

static int check(const struct arguments *arguments) {
    static const int codes[] = {[CHECK_LINEARIZABLE] = EXIT_LINEARIZABLE,
                                [CHECK_VIOLATION] = EXIT_VIOLATION,
                                [CHECK_UNDECIDED] = EXIT_UNDECIDED};
    struct check_history history;
    struct check_result result = {.alloc = alloc_system()};
    struct error err = {.message = "no memory"};
    enum status status = check_history_init(&history, alloc_system());
    int code = EXIT_BAD_INPUT;
    if (status == STATUS_OK) {
        status = check_read(&history, arguments->path, &err);
    }
    if (status == STATUS_OK) {
        error_clear(&err);
        status = check_run(&history, &arguments->budget, &result);
    }
    if (status == STATUS_OK) {
        code = codes[result.verdict];
        status = (arguments->json ? print_json : print_text)(arguments, &history, &result);
    } else if (status == STATUS_NO_MEMORY || status == STATUS_TOO_LARGE) {
        code = err.message[0] == '\0' ? EXIT_UNDECIDED : code;
    }
    if (status != STATUS_OK) {
        (void)fprintf(stderr, "holdfast-check: %s\n", err.message[0] != '\0' ? err.message : "no memory");
    }
    check_result_deinit(&result);
    check_history_deinit(&history);
    return code;
}

int main(int argc, char **argv) {
    struct arguments arguments = {.path = NULL};
    check_budget_init(&arguments.budget);
    argp_err_exit_status = EXIT_BAD_INPUT;
    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments) != 0) {
        return EXIT_BAD_INPUT;
    }
    arguments.budget.progress = arguments.progress ? say_progress : NULL;
    int code = check(&arguments);
    if (fflush(stdout) != 0) {
        (void)fprintf(stderr, "holdfast-check: can't write the output\n");
        return EXIT_BAD_INPUT;
    }
    return code;
}
