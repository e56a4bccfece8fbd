/*
 * Runs the scripts of tests/scenario: small dramas of a few raft nodes, one test per file. tests/scenario/README.md has
 * the language. A line that starts with "> " is what the command above it must print; a command without such lines
 * isn't checked (but those that only print must be). HOLDFAST_SCENARIO_REWRITE=1 writes what was printed into the
 * scripts instead: then read the difference before you believe it.
 *
 * Breaks if raft changes what it sends, keeps or commits in any of these situations.
 */
#include "node/base/check.h"
#include "tests/unit/support/raft_drama.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SCENARIOS_MAX = 200, WORDS_MAX = 16, LINE_BYTES = 512, SETTLE_ROUNDS_MAX = 1000, INJECTED_MAX = 64 };

static const char *const scenario_dir = "tests/scenario";

#define U(number) ((unsigned long long)(number))

/* ---- Words ------------------------------------------------------------------------------------------------------ */

static uint64_t number(struct drama *drama, const char *text) {
    char *end = NULL;
    DRAMA_REQUIRE(drama, text != NULL && *text != '\0');
    uint64_t value = strtoull(text, &end, 10);
    DRAMA_REQUIRE(drama, *end == '\0' || strcmp(end, "ms") == 0);
    return *end == 'm' ? value * 1000 : value;
}

static struct raft_node *node_of(struct drama *drama, const char *text) {
    DRAMA_REQUIRE(drama, text != NULL && text[0] == 'n');
    uint64_t id = number(drama, text + 1);
    DRAMA_REQUIRE(drama, id >= 1 && id <= drama->node_count);
    return &drama->nodes[id - 1];
}

static struct raft_node *live_node(struct drama *drama, const char *text) {
    drama_start_all(drama);
    struct raft_node *node = node_of(drama, text);
    DRAMA_REQUIRE(drama, node->raft != NULL);
    return node;
}

/* The value of "name=value" among the words; NULL if it isn't there. */
static const char *option(char **words, const char *name) {
    size_t len = strlen(name);
    for (; *words != NULL; words++) {
        if (strncmp(*words, name, len) == 0 && (*words)[len] == '=') {
            return *words + len + 1;
        }
    }
    return NULL;
}

static uint64_t option_number(struct drama *drama, char **words, const char *name, uint64_t otherwise) {
    const char *text = option(words, name);
    return text == NULL ? otherwise : number(drama, text[0] == 'n' ? text + 1 : text);
}

/* "n1->n2", with * for every node. */
static bool link_matches(struct drama *drama, const char *text, uint64_t from, uint64_t to) {
    DRAMA_REQUIRE(drama, text != NULL);
    const char *arrow = strstr(text, "->");
    DRAMA_REQUIRE(drama, arrow != NULL && (text[0] == '*' || text[0] == 'n') && (arrow[2] == '*' || arrow[2] == 'n'));
    bool from_fits = text[0] == '*' || strtoull(text + 1, NULL, 10) == from;
    bool to_fits = arrow[2] == '*' || strtoull(arrow + 3, NULL, 10) == to;
    return from_fits && to_fits;
}

static void each_queue(struct drama *drama, const char *link,
                       void (*each)(struct drama *, struct drama_queue *, char **), char **words) {
    drama_start_all(drama);
    for (uint32_t from = 0; from < drama->node_count; from++) {
        for (uint32_t to = 0; to < drama->node_count; to++) {
            if (from != to && link_matches(drama, link, from + 1, to + 1)) {
                each(drama, &drama->queues[from][to], words);
            }
        }
    }
}

/* ---- Commands --------------------------------------------------------------------------------------------------- */

static void do_nodes(struct drama *drama, char **words) {
    DRAMA_REQUIRE(drama, drama->node_count == 0);
    drama->node_count = (uint32_t)number(drama, words[1]);
    DRAMA_REQUIRE(drama, drama->node_count >= 1 && drama->node_count <= DRAMA_NODES_MAX);
    uint64_t learner = option_number(drama, words, "learner", 0);
    uint32_t member_count = (uint32_t)option_number(drama, words, "members", drama->node_count);
    DRAMA_REQUIRE(drama, member_count <= drama->node_count);
    drama->config.member_count = member_count;
    for (uint32_t i = 0; i < member_count; i++) {
        drama->config.members[i] =
            (struct raft_member){.id = i + 1, .role = learner == i + 1 ? RAFT_LEARNER : RAFT_VOTER};
    }
    struct raft_options *options = &drama->options;
    raft_options_init(options);
    options->alloc = alloc_system();
    options->append_bytes_max = (uint32_t)option_number(drama, words, "append_bytes", options->append_bytes_max);
    options->inflight_appends_max = (uint32_t)option_number(drama, words, "inflight", options->inflight_appends_max);
    options->inflight_bytes_max = option_number(drama, words, "inflight_bytes", options->inflight_bytes_max);
    options->uncommitted_bytes_max = option_number(drama, words, "uncommitted", options->uncommitted_bytes_max);
    for (uint32_t i = 0; i < drama->node_count; i++) {
        static const struct raft_config nobody;
        raft_node_init(&drama->nodes[i], i + 1, i < member_count ? &drama->config : &nobody, options);
    }
}

/* Entry values follow from index and term, so that equal entries are equal everywhere. */
static uint64_t value_of(uint64_t index, uint64_t term) { return index * 1000 + term; }

static void do_log(struct drama *drama, char **words) {
    struct raft_node *node = node_of(drama, words[1]);
    DRAMA_REQUIRE(drama, !drama->started);
    for (words += 2; *words != NULL; words++) {
        char *times = strchr(*words, 'x');
        uint64_t count = times == NULL ? 1 : number(drama, times + 1);
        if (times != NULL) {
            *times = '\0';
        }
        uint64_t term = number(drama, *words);
        for (uint64_t i = 0; i < count; i++) {
            raft_node_preload(node, term, value_of(node->disk_log.count + 1, term), 100);
        }
    }
}

static void do_state(struct drama *drama, char **words) {
    struct raft_node *node = node_of(drama, words[1]);
    DRAMA_REQUIRE(drama, !drama->started);
    node->disk_term = option_number(drama, words, "term", node->disk_term);
    node->disk_vote = option_number(drama, words, "vote", node->disk_vote);
    node->disk_commit = option_number(drama, words, "commit", node->disk_commit);
    node->trimmed_index = option_number(drama, words, "trimmed", node->trimmed_index);
}

static void do_tick(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    bool at_deadline = words[2] == NULL || strcmp(words[2], "now") != 0;
    if (at_deadline && node->update.deadline_us > drama->now_us) {
        DRAMA_REQUIRE(drama, node->update.deadline_us != UINT64_MAX);
        drama->now_us = node->update.deadline_us;
    }
    enum status status = raft_node_tick(node, drama->now_us);
    drama_say_changes(drama, node, status);
}

static void do_wait(struct drama *drama, char **words) {
    drama_start_all(drama);
    drama->now_us += number(drama, words[1]);
}

static void do_propose(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    uint32_t count = (uint32_t)(words[2] == NULL ? 1 : number(drama, words[2]));
    uint32_t size_bytes = (uint32_t)option_number(drama, words, "size", 100);
    enum status status = raft_node_propose(node, drama->now_us, drama->next_value, count, size_bytes);
    drama->next_value += count;
    drama_say_changes(drama, node, status);
}

static void do_sync(struct drama *drama, char **words) { drama_sync(drama, live_node(drama, words[1])); }

static void do_seal(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    size_t records_max = words[2] == NULL ? SIZE_MAX : (size_t)number(drama, words[2]);
    DRAMA_REQUIRE(drama, raft_node_seal(node, records_max));
}

static void do_complete(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    DRAMA_REQUIRE(drama, raft_node_complete(node, drama->now_us));
    drama_say_changes(drama, node, STATUS_OK);
}

static void deliver_queue(struct drama *drama, struct drama_queue *queue, char **words) {
    uint64_t count = words[2] == NULL ? queue->count : number(drama, words[2]);
    DRAMA_REQUIRE(drama, count <= queue->count);
    for (; count > 0; count--) {
        drama_deliver(drama, drama_pop(queue));
    }
}

static void do_deliver(struct drama *drama, char **words) { each_queue(drama, words[1], deliver_queue, words); }

static void drop_queue(struct drama *drama, struct drama_queue *queue, char **words) {
    uint64_t count = words[2] == NULL ? queue->count : number(drama, words[2]);
    DRAMA_REQUIRE(drama, count <= queue->count);
    for (; count > 0; count--) {
        raft_packet_free(drama_pop(queue));
    }
}

static void do_drop(struct drama *drama, char **words) { each_queue(drama, words[1], drop_queue, words); }

static void double_queue(struct drama *drama, struct drama_queue *queue, char **words) {
    (void)words;
    DRAMA_REQUIRE(drama, queue->count > 0 && queue->count < DRAMA_QUEUE_MAX);
    queue->packets[queue->count] = raft_packet_copy(queue->packets[0]);
    queue->count++;
}

static void do_double(struct drama *drama, char **words) { each_queue(drama, words[1], double_queue, words); }

static void postpone_queue(struct drama *drama, struct drama_queue *queue, char **words) {
    (void)words;
    DRAMA_REQUIRE(drama, queue->count > 0);
    struct raft_packet *packet = drama_pop(queue);
    queue->packets[queue->count++] = packet;
}

static void do_postpone(struct drama *drama, char **words) { each_queue(drama, words[1], postpone_queue, words); }

static void show_queue(struct drama *drama, struct drama_queue *queue, char **words) {
    (void)words;
    for (uint32_t i = 0; i < queue->count; i++) {
        drama_say_message(drama, queue->packets[i]);
    }
}

static void do_queue(struct drama *drama, char **words) { each_queue(drama, words[1], show_queue, words); }

static bool takes_part(struct drama *drama, char **words, uint32_t position) {
    bool found = words[0] == NULL;
    for (; *words != NULL; words++) {
        found = found || node_of(drama, *words) == &drama->nodes[position];
    }
    return found;
}

/* Syncs the named nodes (all if none is named) and delivers between them until nothing moves. */
static void do_settle(struct drama *drama, char **words) {
    drama_start_all(drama);
    bool muted = drama->muted;
    drama->muted = true;
    bool moved = true;
    for (uint32_t round = 0; moved; round++) {
        DRAMA_REQUIRE(drama, round < SETTLE_ROUNDS_MAX);
        moved = false;
        for (uint32_t i = 0; i < drama->node_count; i++) {
            struct raft_node *node = &drama->nodes[i];
            if (!takes_part(drama, words + 1, i)) {
                continue;
            }
            moved |= node->forming.count > 0 || node->state_waits || node->inflight.present;
            drama_sync(drama, node);
            for (uint32_t j = 0; j < drama->node_count; j++) {
                struct drama_queue *queue = &drama->queues[j][i];
                if (takes_part(drama, words + 1, j) && queue->count > 0) {
                    moved = true;
                    drama_deliver(drama, drama_pop(queue));
                }
            }
        }
    }
    drama->muted = muted;
}

/* beat n1 COUNT [n1 n2 ...]: so many times, n1 ticks at its deadline, and everything between the named nodes happens.
 */
static void do_beat(struct drama *drama, char **words) {
    DRAMA_REQUIRE(drama, words[1] != NULL && words[2] != NULL);
    char *everybody[] = {words[0], NULL};
    char *tick[] = {words[0], words[1], NULL};
    bool muted = drama->muted;
    drama->muted = true;
    for (uint64_t count = number(drama, words[2]); count > 0; count--) {
        do_tick(drama, tick);
        do_settle(drama, words[3] == NULL ? everybody : words + 2);
    }
    drama->muted = muted;
}

/* The node campaigns, and everything between the named nodes happens. */
static void do_elect(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    bool muted = drama->muted;
    drama->muted = true;
    do_tick(drama, words);
    drama->muted = muted;
    char *everybody[] = {words[0], NULL};
    do_settle(drama, words[2] == NULL ? everybody : words);
    DRAMA_REQUIRE(drama, raft_role(node->raft) == RAFT_LEADER);
}

static void do_crash(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    raft_node_crash(node, words[2] != NULL && strcmp(words[2], "written") == 0);
}

static void do_restart(struct drama *drama, char **words) {
    struct raft_node *node = node_of(drama, words[1]);
    DRAMA_REQUIRE(drama, node->raft == NULL);
    drama_start_node(drama, node);
}

static void do_damage(struct drama *drama, char **words) {
    struct raft_node *node = node_of(drama, words[1]);
    DRAMA_REQUIRE(drama, node->raft == NULL && drama->started);
    raft_node_damage(node, number(drama, words[2]));
}

static void do_wipe(struct drama *drama, char **words) {
    struct raft_node *node = node_of(drama, words[1]);
    DRAMA_REQUIRE(drama, node->raft == NULL && drama->started);
    raft_node_wipe(node);
}

static void do_read(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    bool forward = words[2] != NULL && strcmp(words[2], "forward") == 0;
    enum status status = raft_node_read(node, drama->now_us, forward);
    drama_say_changes(drama, node, status);
}

/* change n1 add=n4[@n2] promote=n4 demote=n1 remove=n2 priority=n3:5: all parts together. */
static void do_change(struct drama *drama, char **words) {
    static const char *const names[] = {NULL, "add=n", "promote=n", "demote=n", "remove=n", "priority=n"};
    struct raft_node *node = live_node(drama, words[1]);
    struct raft_change changes[WORDS_MAX];
    char addresses[WORDS_MAX][16];
    uint32_t count = 0;
    for (words += 2; *words != NULL; words++) {
        struct raft_change *change = &changes[count];
        memset(change, 0, sizeof *change);
        for (unsigned type = RAFT_CHANGE_ADD_LEARNER; type <= RAFT_CHANGE_PRIORITY; type++) {
            size_t len = strlen(names[type]);
            if (strncmp(*words, names[type], len) == 0) {
                change->type = (enum raft_change_type)type;
                char *end = NULL;
                change->id = strtoull(*words + len, &end, 10);
                change->priority = (uint8_t)(*end == ':' ? strtoull(end + 1, NULL, 10) : 0);
                uint64_t host = *end == '@' ? strtoull(end + 2, NULL, 10) : change->id;
                snprintf(addresses[count], sizeof addresses[count], "host%u:1", (unsigned)(host % 100));
                change->address = addresses[count];
            }
        }
        DRAMA_REQUIRE(drama, change->type != 0);
        count++;
    }
    DRAMA_REQUIRE(drama, count > 0);
    enum status status = raft_node_change(node, drama->now_us, changes, count);
    drama_say_changes(drama, node, status);
}

static void do_transfer(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    uint64_t target = words[2] == NULL ? RAFT_NO_NODE : number(drama, words[2] + 1);
    enum status status = raft_node_transfer(node, drama->now_us, target);
    drama_say_changes(drama, node, status);
}

static void do_fence(struct drama *drama, char **words) {
    static const char *const names[RAFT_FENCE_COUNT] = {"none", "log", "apply", "write"};
    struct raft_node *node = live_node(drama, words[1]);
    unsigned fence = 0;
    while (fence < RAFT_FENCE_COUNT && (words[2] == NULL || strcmp(names[fence], words[2]) != 0)) {
        fence++;
    }
    DRAMA_REQUIRE(drama, fence < RAFT_FENCE_COUNT);
    enum status status = raft_node_fence(node, drama->now_us, (enum raft_fence)fence);
    drama_say_changes(drama, node, status);
}

/* install n3 n1 [INDEX]: n3 gets a snapshot of n1, and installs it. */
static void do_install(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    const struct raft_node *source = live_node(drama, words[2]);
    uint64_t index = words[3] == NULL ? raft_commit_index(source->raft) : number(drama, words[3]);
    struct raft_snapshot snapshot;
    raft_snapshot_take(source, index, &snapshot);
    enum status status = raft_node_install(node, drama->now_us, &snapshot);
    raft_snapshot_free(&snapshot);
    drama_say_changes(drama, node, status);
}

/* sent n1 n3 INDEX|failed */
static void do_sent(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    DRAMA_REQUIRE(drama, words[2] != NULL && words[3] != NULL);
    bool ok = strcmp(words[3], "failed") != 0;
    uint64_t index = ok ? number(drama, words[3]) : 0;
    enum status status = raft_node_snapshot_sent(node, drama->now_us, node_of(drama, words[2])->id, index, ok);
    drama_say_changes(drama, node, status);
}

static void do_info(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    struct raft_info info;
    raft_get_info(node->raft, &info);
    drama_say(drama, "%s uses ", drama_node_name(node->id));
    drama_say_config(drama, raft_membership(node->raft));
    drama_say(drama, " of=%llu%s fence=%s transfer=%s waiting=%llu prefers_after=%llums\n", U(info.config_index),
              info.config_is_committed ? "" : " uncommitted", raft_fence_name(info.fence),
              drama_node_name(info.transfer_target), U(info.reads_waiting_round), U(info.prefer_after_us / 1000));
}

static void do_trim(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    enum status status = raft_node_trim(node, drama->now_us, number(drama, words[2]));
    drama_say_changes(drama, node, status);
}

static void do_unreachable(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    enum status status = raft_node_unreachable(node, drama->now_us, node_of(drama, words[2])->id);
    drama_say_changes(drama, node, status);
}

static void do_gone(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    enum status status = raft_node_gone(node, drama->now_us, node_of(drama, words[2])->id);
    drama_say_changes(drama, node, status);
}

/* needs n3 INDEX: its store is damaged, and a snapshot up to there or further takes its place; 0: it isn't any more. */
static void do_needs(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    enum status status = raft_node_need(node, drama->now_us, number(drama, words[2]));
    drama_say_changes(drama, node, status);
}

static void do_show(struct drama *drama, char **words) {
    drama_start_all(drama);
    if (words[1] == NULL) {
        for (uint32_t i = 0; i < drama->node_count; i++) {
            drama_say_state(drama, &drama->nodes[i]);
        }
    }
    for (words++; *words != NULL; words++) {
        drama_say_state(drama, node_of(drama, *words));
    }
}

static void do_peer(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    struct raft_peer_info info;
    DRAMA_REQUIRE(drama, raft_peer(node->raft, node_of(drama, words[2])->id, &info) == STATUS_OK);
    drama_say(drama, "%s at %s: %s match=%llu next=%llu inflight=%u%s\n", drama_node_name(info.id),
              drama_node_name(node->id), raft_peer_state_name(info.state), U(info.match_index), U(info.next_index),
              info.inflight_appends, info.elder_since_us != 0 ? " elder" : "");
}

static void do_floor(struct drama *drama, char **words) {
    struct raft_node *node = live_node(drama, words[1]);
    drama_say(drama, "%s floor=%llu\n", drama_node_name(node->id), U(raft_floor_index(node->raft)));
}

/* inject FROM->TO TYPE field=number ... entries=TERM,TERM,...: a message that no node of ours sent. */
static void do_inject(struct drama *drama, char **words) {
    drama_start_all(drama);
    struct raft_packet packet;
    struct raft_entry entries[INJECTED_MAX];
    uint64_t values[INJECTED_MAX];
    memset(&packet, 0, sizeof packet);
    memset(entries, 0, sizeof entries);
    struct raft_message *message = &packet.message;
    DRAMA_REQUIRE(drama, words[1] != NULL && words[2] != NULL && strstr(words[1], "->") != NULL);
    struct raft_node *to = live_node(drama, strstr(words[1], "->") + 2);
    message->from = strtoull(words[1] + 1, NULL, 10);
    message->to = to->id;
    for (unsigned type = 1; type < RAFT_MESSAGE_TYPE_COUNT; type++) {
        if (strcmp(raft_message_type_name((enum raft_message_type)type), words[2]) == 0) {
            message->type = (enum raft_message_type)type;
        }
    }
    DRAMA_REQUIRE(drama, message->type != 0);
    message->reject = option_number(drama, words, "reject", 0) != 0;
    message->term = option_number(drama, words, "term", 0);
    message->index = option_number(drama, words, "index", 0);
    message->log_term = option_number(drama, words, "log_term", 0);
    message->commit = option_number(drama, words, "commit", 0);
    message->hint_index = option_number(drama, words, "hint_index", 0);
    message->hint_term = option_number(drama, words, "hint_term", 0);
    message->round = option_number(drama, words, "round", 0);
    message->floor = option_number(drama, words, "floor", 0);
    message->life = option_number(drama, words, "life", 0);
    message->lost_log = option_number(drama, words, "lost_log", 0) != 0;
    const char *terms = option(words, "entries");
    while (terms != NULL && *terms != '\0') {
        char *end = NULL;
        uint32_t at = message->entry_count++;
        DRAMA_REQUIRE(drama, at < INJECTED_MAX);
        entries[at] = (struct raft_entry){.index = message->index + 1 + at, .size_bytes = 100, .kind = RAFT_ENTRY_DATA};
        entries[at].term = strtoull(terms, &end, 10);
        values[at] = value_of(entries[at].index, entries[at].term);
        terms = *end == ',' ? end + 1 : end;
    }
    packet.entries = entries;
    packet.values = values;
    message->entries = entries;
    enum status status = raft_node_receive(to, drama->now_us, &packet);
    drama_say_changes(drama, to, status);
}

static const struct {
    const char *name;
    void (*run)(struct drama *drama, char **words);
    bool must_be_checked;
} commands[] = {
    {"nodes", do_nodes, false},       {"log", do_log, false},         {"state", do_state, false},
    {"tick", do_tick, false},         {"wait", do_wait, false},       {"propose", do_propose, false},
    {"sync", do_sync, false},         {"seal", do_seal, false},       {"complete", do_complete, false},
    {"deliver", do_deliver, false},   {"drop", do_drop, false},       {"double", do_double, false},
    {"postpone", do_postpone, false}, {"queue", do_queue, true},      {"settle", do_settle, false},
    {"elect", do_elect, false},       {"crash", do_crash, false},     {"restart", do_restart, false},
    {"read", do_read, false},         {"trim", do_trim, false},       {"unreachable", do_unreachable, false},
    {"show", do_show, true},          {"peer", do_peer, true},        {"floor", do_floor, true},
    {"inject", do_inject, false},     {"change", do_change, false},   {"transfer", do_transfer, false},
    {"fence", do_fence, false},       {"install", do_install, false}, {"sent", do_sent, false},
    {"info", do_info, true},          {"beat", do_beat, false},       {"damage", do_damage, false},
    {"wipe", do_wipe, false},         {"info", do_info, true},        {"beat", do_beat, false},
    {"gone", do_gone, false},         {"needs", do_needs, false},
};

/* ---- Scripts ---------------------------------------------------------------------------------------------------- */

/* Runs one command line. True if its output has to be checked. */
static bool run_command(struct drama *drama, const char *line) {
    char copy[LINE_BYTES];
    char *words[WORDS_MAX + 1] = {NULL};
    DRAMA_REQUIRE(drama, strlen(line) < sizeof copy);
    strcpy(copy, line);
    copy[strcspn(copy, "#")] = '\0';
    size_t count = 0;
    for (char *word = strtok(copy, " \t"); word != NULL; word = strtok(NULL, " \t")) {
        DRAMA_REQUIRE(drama, count < WORDS_MAX);
        words[count++] = word;
    }
    if (count == 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, words[0]) == 0) {
            commands[i].run(drama, words);
            return commands[i].must_be_checked;
        }
    }
    fail_msg("%s:%u: unknown command %s", drama->name, drama->line_number, words[0]);
    return false;
}

struct script {
    char **lines;
    size_t count;
};

static struct script script_read(const char *path) {
    struct script script = {NULL, 0};
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fail_msg("%s can't be opened: run this from the repository's root", path);
    }
    char *line = NULL;
    size_t capacity = 0;
    ssize_t len = 0;
    while ((len = getline(&line, &capacity, file)) >= 0) {
        if (len > 0 && line[len - 1] == '\n') {
            line[len - 1] = '\0';
        }
        script.lines = realloc(script.lines, (script.count + 1) * sizeof *script.lines);
        CHECK(script.lines != NULL);
        script.lines[script.count++] = strdup(line);
    }
    free(line);
    fclose(file);
    return script;
}

static void script_free(struct script *script) {
    for (size_t i = 0; i < script->count; i++) {
        free(script->lines[i]);
    }
    free(script->lines);
}

static bool is_expectation(const char *line) { return line[0] == '>'; }

/* Runs the command at line `at`; returns how many lines it and its expectations take. */
static size_t run_line(struct drama *drama, const struct script *script, size_t at, FILE *rewritten) {
    size_t end = at + 1;
    char *wanted = NULL;
    size_t wanted_len = 0;
    FILE *out = open_memstream(&wanted, &wanted_len);
    CHECK(out != NULL);
    for (; end < script->count && is_expectation(script->lines[end]); end++) {
        fprintf(out, "%s\n", script->lines[end]);
    }
    fclose(out);

    drama_begin_line(drama, (unsigned)at + 1);
    bool must_be_checked = run_command(drama, script->lines[at]);
    char *printed = drama_quoted_output(drama);
    bool is_checked = end > at + 1;
    if (rewritten != NULL) {
        fprintf(rewritten, "%s\n%s", script->lines[at], is_checked || must_be_checked ? printed : "");
    } else if (must_be_checked && !is_checked) {
        fail_msg("%s:%u: nothing is expected of this line:\n%s", drama->name, drama->line_number, printed);
    } else if (is_checked && strcmp(wanted, printed) != 0) {
        /* By ourselves: cmocka cuts long messages, and what comes next would stand on the same line. */
        (void)fprintf(stderr, "expected\n%sgot\n%s", wanted, printed);
        fail_msg("%s:%u: %s", drama->name, drama->line_number, script->lines[at]);
    }
    free(printed);
    free(wanted);
    return end - at;
}

static void run_scenario(void **state) {
    const char *name = *state;
    char path[LINE_BYTES];
    snprintf(path, sizeof path, "%s/%s.scn", scenario_dir, name);
    struct script script = script_read(path);
    struct drama *drama = drama_new(path);
    const char *rewrite = getenv("HOLDFAST_SCENARIO_REWRITE");
    char *text = NULL;
    size_t text_len = 0;
    FILE *rewritten = rewrite != NULL && rewrite[0] == '1' ? open_memstream(&text, &text_len) : NULL;
    bool checks = false;
    for (size_t at = 0; at < script.count;) {
        size_t taken = run_line(drama, &script, at, rewritten);
        checks = checks || taken > 1;
        at += taken;
    }
    if (rewritten != NULL) {
        fclose(rewritten);
        FILE *file = fopen(path, "w");
        CHECK(file != NULL && fwrite(text, 1, text_len, file) == text_len && fclose(file) == 0);
        free(text);
    } else if (!checks) {
        fail_msg("%s expects nothing", path);
    }
    drama_free(drama);
    script_free(&script);
}

static int by_name(const void *left, const void *right) { return strcmp(*(char *const *)left, *(char *const *)right); }

/* All that have "filter" in their name (all if NULL). */
static size_t find_scenarios(char **names, const char *filter) {
    size_t count = 0;
    DIR *dir = opendir(scenario_dir);
    for (struct dirent *entry = NULL; dir != NULL && (entry = readdir(dir)) != NULL;) {
        size_t len = strlen(entry->d_name);
        bool fits = len > 4 && strcmp(entry->d_name + len - 4, ".scn") == 0;
        if (fits && (filter == NULL || strstr(entry->d_name, filter) != NULL)) {
            CHECK(count < SCENARIOS_MAX);
            names[count++] = strndup(entry->d_name, len - 4);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    qsort(names, count, sizeof *names, by_name);
    return count;
}

int main(int argc, char **argv) {
    static char *names[SCENARIOS_MAX];
    static struct CMUnitTest tests[SCENARIOS_MAX];
    static char titles[SCENARIOS_MAX][LINE_BYTES];
    size_t count = find_scenarios(names, argc > 1 ? argv[1] : NULL);
    if (count == 0) {
        fprintf(stderr, "no scenario found in %s: run this from the repository's root\n", scenario_dir);
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        snprintf(titles[i], sizeof titles[i], "test_%s", names[i]);
        tests[i] = (struct CMUnitTest){.name = titles[i], .test_func = run_scenario, .initial_state = names[i]};
    }
    int failed = _cmocka_run_group_tests("scenarios", tests, count, NULL, NULL);
    for (size_t i = 0; i < count; i++) {
        free(names[i]);
    }
    return failed;
}
