/*
 * holdfast-replay: judges traces of the simulator.
 *
 *   holdfast-replay FILE...      each: one line that says it is valid, or where and how it isn't
 *
 * Exit code 0: all are valid; 1: a rule is violated; 2: bad input.
 */
#include "tests/sim/replay/replay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_VALID = 0, EXIT_VIOLATION = 1, EXIT_BAD_INPUT = 2 };

static int judge_file(FILE *file, const char *path, struct judge *judge, struct line *line) {
    char *text = NULL;
    size_t capacity = 0;
    uint64_t number = 0;
    int code = EXIT_VALID;
    for (ssize_t len; code == EXIT_VALID && (len = getline(&text, &capacity, file)) >= 0;) {
        const char *complaint = NULL;
        number++;
        if (!line_read(text, (size_t)len, line, &complaint)) {
            fprintf(stderr, "%s: line %" PRIu64 ": %s\n", path, number, complaint);
            code = EXIT_BAD_INPUT;
        } else if (number == 1 && line->event != EVENT_TRACE) {
            fprintf(stderr, "%s: not a trace: its first line isn't one's\n", path);
            code = EXIT_BAD_INPUT;
        } else if (!judge_line(judge, line)) {
            printf("%s: line %" PRIu64 ": node %" PRIu64 ": rule %s: %s\n", path, number, judge->at_node, judge->rule,
                   judge->text);
            code = EXIT_VIOLATION;
        }
    }
    if (ferror(file) || (code == EXIT_VALID && number < 2)) {
        fprintf(stderr, "%s: %s\n", path, ferror(file) ? strerror(errno) : "a trace without a transition");
        code = EXIT_BAD_INPUT;
    }
    free(text);
    return code;
}

static int judge_path(const char *path, struct line *line) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return EXIT_BAD_INPUT;
    }
    struct judge *judge = malloc(sizeof *judge);
    if (judge == NULL) {
        abort();
    }
    judge_init(judge);
    int code = judge_file(file, path, judge, line);
    if (code == EXIT_VALID) {
        printf("%s: valid: %" PRIu64 " transitions, %" PRIu64 " messages received, %" PRIu64 " elections, %" PRIu64
               " entries committed, %" PRIu64 " restarts, %" PRIu64 " rounds of reads\n",
               path, judge->lines, judge->receives, judge->elections, judge->commit, judge->restarts, judge->reads);
    }
    judge_deinit(judge);
    free(judge);
    (void)fclose(file);
    return code;
}

int main(int argc, char **argv) {
    if (argc < 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: holdfast-replay FILE...\n");
        return EXIT_BAD_INPUT;
    }
    struct line *line = calloc(1, sizeof *line);
    if (line == NULL) {
        abort();
    }
    int worst = EXIT_VALID;
    for (int i = 1; i < argc; i++) {
        int code = judge_path(argv[i], line);
        worst = code > worst ? code : worst;
    }
    line_deinit(line);
    free(line);
    return worst;
}
