/* Parsing of armed faults, and the decision at a hook. */
#include "node/base/fault.h"

#include "node/base/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PPM = 1000000, SPECIFICATION_BYTES_MAX = 4096 };

static const struct fault_info fault_table[FAULT_HOOK_COUNT] = {
#define FAULT_INFO(hook_name, suffix, hook_text) [FAULT_##suffix] = {.name = (hook_name), .text = (hook_text)},
    FAULT_TABLE(FAULT_INFO)
#undef FAULT_INFO
};

static const struct {
    const char *name;
    int sys;
} errno_names[] = {
    {"EAGAIN", EAGAIN}, {"ECONNRESET", ECONNRESET}, {"EDQUOT", EDQUOT}, {"EINTR", EINTR}, {"EIO", EIO},
    {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM},         {"ENOSPC", ENOSPC}, {"EROFS", EROFS}, {"ETIMEDOUT", ETIMEDOUT},
};

static const struct {
    const char *name;
    enum fault_kind kind;
    bool takes_argument;
} kind_names[] = {
    {"delay", FAULT_KIND_DELAY, true}, {"error", FAULT_KIND_ERROR, true},  {"exit", FAULT_KIND_EXIT, true},
    {"hang", FAULT_KIND_HANG, false},  {"short", FAULT_KIND_SHORT, false},
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

void fault_init(struct fault_set *set) { memset(set, 0, sizeof *set); }

struct fault_info fault_describe(enum fault_hook hook) {
    CHECK(hook < FAULT_HOOK_COUNT);
    return fault_table[hook];
}

enum fault_hook fault_find(const char *name) {
    for (int hook = 0; hook < (int)FAULT_HOOK_COUNT; hook++) {
        if (strcmp(name, fault_table[hook].name) == 0) {
            return (enum fault_hook)hook;
        }
    }
    return FAULT_HOOK_COUNT;
}

struct parsed_rule {
    enum fault_hook hook;
    enum fault_kind kind;
    int argument;
    uint64_t probability_ppm;
    uint64_t after;
    uint64_t count_max;
    uint64_t seed;
};

static bool parse_number(const char *text, uint64_t max, uint64_t *ret) {
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value > max) {
        return false;
    }
    *ret = value;
    return true;
}

/* "kind" or "kind(argument)"; cuts text. */
static enum status parse_kind(char *text, struct parsed_rule *rule, struct error *err) {
    char *argument = strchr(text, '(');
    if (argument != NULL) {
        size_t len = strlen(argument);
        if (argument[len - 1] != ')') {
            return error_set(err, STATUS_INVALID, "fault '%s': missing ')'", text);
        }
        argument[len - 1] = '\0';
        *argument++ = '\0';
    }
    for (size_t i = 0; i < COUNT_OF(kind_names); i++) {
        if (strcmp(text, kind_names[i].name) != 0) {
            continue;
        }
        rule->kind = kind_names[i].kind;
        if (kind_names[i].takes_argument != (argument != NULL)) {
            return error_set(err, STATUS_INVALID, "fault kind '%s' %s an argument in parentheses", text,
                             argument == NULL ? "needs" : "takes no");
        }
        if (rule->kind == FAULT_KIND_ERROR) {
            CHECK(argument != NULL);
            for (size_t k = 0; k < COUNT_OF(errno_names); k++) {
                if (strcmp(argument, errno_names[k].name) == 0) {
                    rule->argument = errno_names[k].sys;
                    return STATUS_OK;
                }
            }
            return error_set(err, STATUS_INVALID, "fault error '%s' is not known; try EIO or ENOSPC", argument);
        }
        uint64_t number = 0;
        if (argument != NULL && !parse_number(argument, INT32_MAX, &number)) {
            return error_set(err, STATUS_INVALID, "fault '%s(%s)': not a number", text, argument);
        }
        rule->argument = (int)number;
        return STATUS_OK;
    }
    return error_set(err, STATUS_INVALID, "fault kind '%s' is not one of delay, error, exit, hang, short", text);
}

static enum status parse_option(char *text, struct parsed_rule *rule, struct error *err) {
    char *value = strchr(text, '=');
    if (value == NULL) {
        return error_set(err, STATUS_INVALID, "fault option '%s' is not name=value", text);
    }
    *value++ = '\0';
    bool good;
    if (strcmp(text, "probability") == 0) {
        char *end = NULL;
        double probability = strtod(value, &end);
        good = end != value && *end == '\0' && probability >= 0 && probability <= 1;
        rule->probability_ppm = good ? (uint64_t)(probability * PPM) : 0;
    } else if (strcmp(text, "count") == 0) {
        good = parse_number(value, UINT64_MAX, &rule->count_max);
    } else if (strcmp(text, "after") == 0) {
        good = parse_number(value, UINT64_MAX, &rule->after);
    } else if (strcmp(text, "seed") == 0) {
        good = parse_number(value, UINT64_MAX, &rule->seed);
    } else {
        return error_set(err, STATUS_INVALID, "fault option '%s' is not one of probability, count, after, seed", text);
    }
    return good ? STATUS_OK : error_set(err, STATUS_INVALID, "fault option %s: bad value '%s'", text, value);
}

static enum status parse_rule(char *text, struct parsed_rule *rule, struct error *err) {
    char *kind = strchr(text, '=');
    if (kind == NULL) {
        return error_set(err, STATUS_INVALID, "fault '%s' is not hook=kind", text);
    }
    *kind++ = '\0';
    *rule = (struct parsed_rule){.hook = fault_find(text), .probability_ppm = PPM, .seed = 1};
    if (rule->hook == FAULT_HOOK_COUNT) {
        return error_set(err, STATUS_INVALID, "there is no fault hook '%s'", text);
    }
    char *rest = kind;
    char *word = strsep(&rest, ",");
    enum status status = parse_kind(word, rule, err);
    while (status == STATUS_OK && (word = strsep(&rest, ",")) != NULL) {
        status = parse_option(word, rule, err);
    }
    return status;
}

static void arm_rule(struct fault_set *set, const struct parsed_rule *parsed) {
    struct fault_rule *rule = &set->rules[parsed->hook];
    fault_disarm(set, parsed->hook);
    rule->argument = parsed->argument;
    rule->probability_ppm = parsed->probability_ppm;
    rule->after = parsed->after;
    rule->count_max = parsed->count_max;
    atomic_store(&rule->random_state, parsed->seed * 0x9e3779b97f4a7c15u + 1);
    atomic_store(&rule->hits, 0);
    atomic_store(&rule->actions, 0);
    atomic_store_explicit(&rule->kind, (int)parsed->kind, memory_order_release);
}

enum status fault_arm(struct fault_set *set, const char *specification, struct error *err) {
    char copy[SPECIFICATION_BYTES_MAX];
    if (strlen(specification) >= sizeof copy) {
        return error_set(err, STATUS_INVALID, "fault specification is longer than %d bytes", SPECIFICATION_BYTES_MAX);
    }
    struct parsed_rule parsed[FAULT_HOOK_COUNT] = {0};
    size_t count = 0;
    (void)strcpy(copy, specification);
    char *rest = copy;
    for (char *word; (word = strsep(&rest, ";")) != NULL;) {
        if (*word == '\0') {
            continue;
        }
        if (count == COUNT_OF(parsed)) {
            return error_set(err, STATUS_INVALID, "more than %d faults", (int)FAULT_HOOK_COUNT);
        }
        enum status status = parse_rule(word, &parsed[count], err);
        if (status != STATUS_OK) {
            return status;
        }
        count++;
    }
    for (size_t i = 0; i < count; i++) {
        arm_rule(set, &parsed[i]);
    }
    return STATUS_OK;
}

void fault_disarm(struct fault_set *set, enum fault_hook hook) {
    CHECK(hook < FAULT_HOOK_COUNT);
    atomic_store_explicit(&set->rules[hook].kind, FAULT_KIND_OFF, memory_order_release);
}

bool fault_is_armed(struct fault_set *set, enum fault_hook hook) {
    CHECK(hook < FAULT_HOOK_COUNT);
    return atomic_load_explicit(&set->rules[hook].kind, memory_order_acquire) != FAULT_KIND_OFF;
}

static bool draw(struct fault_rule *rule) {
    if (rule->probability_ppm >= PPM) {
        return true;
    }
    uint64_t state = atomic_fetch_add(&rule->random_state, 0x9e3779b97f4a7c15u);
    state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
    state = (state ^ (state >> 27)) * 0x94d049bb133111ebu;
    return (state ^ (state >> 31)) % PPM < rule->probability_ppm;
}

struct fault_action fault_hit(struct fault_set *set, enum fault_hook hook) {
    struct fault_action none = {.kind = FAULT_KIND_OFF};
    if (set == NULL || hook == FAULT_NONE) {
        return none;
    }
    CHECK(hook < FAULT_HOOK_COUNT);
    struct fault_rule *rule = &set->rules[hook];
    enum fault_kind kind = (enum fault_kind)atomic_load_explicit(&rule->kind, memory_order_acquire);
    if (kind == FAULT_KIND_OFF || atomic_fetch_add(&rule->hits, 1) < rule->after || !draw(rule)) {
        return none;
    }
    if (rule->count_max != 0 && atomic_fetch_add(&rule->actions, 1) >= rule->count_max) {
        return none;
    }
    return (struct fault_action){.kind = kind, .argument = rule->argument};
}
