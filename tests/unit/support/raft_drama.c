/* See raft_drama.h. */
#include "tests/unit/support/raft_drama.h"

#include "node/base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SHOWN_ENTRIES_MAX = 1024 };

/* ---- Stage ------------------------------------------------------------------------------------------------------ */

void drama_require(const struct drama *drama, bool condition, const char *text) {
    if (!condition) {
        fail_msg("%s:%u: the script is wrong: %s", drama->name, drama->line_number, text);
    }
}

struct drama *drama_new(const char *name) {
    struct drama *drama = calloc(1, sizeof *drama);
    CHECK(drama != NULL);
    drama->name = name;
    drama->next_value = 1000000;
    drama->now_us = 1000;
    drama->out = open_memstream(&drama->output, &drama->output_len);
    CHECK(drama->out != NULL);
    return drama;
}

void drama_free(struct drama *drama) {
    for (uint32_t i = 0; i < drama->node_count; i++) {
        for (uint32_t j = 0; j < drama->node_count; j++) {
            while (drama->queues[i][j].count > 0) {
                raft_packet_free(drama_pop(&drama->queues[i][j]));
            }
        }
        raft_node_deinit(&drama->nodes[i]);
    }
    fclose(drama->out);
    free(drama->output);
    free(drama);
}

void drama_begin_line(struct drama *drama, unsigned line_number) {
    drama->line_number = line_number;
    rewind(drama->out);
    CHECK(fflush(drama->out) == 0);
}

char *drama_quoted_output(struct drama *drama) {
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    CHECK(out != NULL && fflush(drama->out) == 0);
    bool line_starts = true;
    for (size_t i = 0; i < drama->output_len; i++) {
        if (line_starts) {
            fputs("> ", out);
        }
        fputc(drama->output[i], out);
        line_starts = drama->output[i] == '\n';
    }
    if (drama->output_len == 0) {
        fputs("> nothing\n", out);
    }
    fclose(out);
    return text;
}

/* ---- Printing --------------------------------------------------------------------------------------------------- */

void drama_say(struct drama *drama, const char *format, ...) {
    if (drama->muted) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    vfprintf(drama->out, format, arguments);
    va_end(arguments);
}

const char *drama_node_name(uint64_t id) {
    static char names[4][8];
    static unsigned next;
    char *name = names[next++ % 4];
    if (id == RAFT_NO_NODE) {
        return "-";
    }
    snprintf(name, sizeof names[0], "n%u", (unsigned)(id % 1000));
    return name;
}

/* Terms of consecutive entries as runs: "1x3,2". */
static void say_terms(struct drama *drama, const uint64_t *terms, size_t count) {
    for (size_t i = 0; i < count;) {
        size_t run = 1;
        while (i + run < count && terms[i + run] == terms[i]) {
            run++;
        }
        drama_say(drama, "%s%llu", i > 0 ? "," : "", (unsigned long long)terms[i]);
        if (run > 1) {
            drama_say(drama, "x%zu", run);
        }
        i += run;
    }
    if (count == 0) {
        drama_say(drama, "none");
    }
}

#define U(number) ((unsigned long long)(number))

void drama_say_message(struct drama *drama, const struct raft_packet *packet) {
    const struct raft_message *message = &packet->message;
    drama_say(drama, "%s -> %s %s term=%llu", drama_node_name(message->from), drama_node_name(message->to),
              raft_message_type_name(message->type), U(message->term));
    switch (message->type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE: drama_say(drama, " last=%llu/%llu", U(message->index), U(message->log_term)); break;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY: drama_say(drama, message->reject ? " refused" : " granted"); break;
    case RAFT_APPEND: {
        uint64_t terms[SHOWN_ENTRIES_MAX];
        DRAMA_REQUIRE(drama, message->entry_count <= SHOWN_ENTRIES_MAX);
        for (uint32_t i = 0; i < message->entry_count; i++) {
            terms[i] = packet->entries[i].term;
        }
        drama_say(drama, " previous=%llu/%llu entries=", U(message->index), U(message->log_term));
        say_terms(drama, terms, message->entry_count);
        drama_say(drama, " commit=%llu", U(message->commit));
        break;
    }
    case RAFT_APPEND_REPLY:
        if (message->reject) {
            drama_say(drama, " refused=%llu hint=%llu/%llu", U(message->index), U(message->hint_index),
                      U(message->hint_term));
        } else {
            drama_say(drama, " match=%llu", U(message->index));
        }
        break;
    case RAFT_HEARTBEAT:
        drama_say(drama, " commit=%llu round=%llu floor=%llu", U(message->commit), U(message->round),
                  U(message->floor));
        break;
    case RAFT_HEARTBEAT_REPLY: drama_say(drama, " match=%llu round=%llu", U(message->index), U(message->round)); break;
    case RAFT_READ_INDEX: drama_say(drama, " round=%llu", U(message->round)); break;
    case RAFT_READ_INDEX_REPLY: drama_say(drama, " round=%llu index=%llu", U(message->round), U(message->index)); break;
    case RAFT_TIMEOUT_NOW:
    case RAFT_MESSAGE_TYPE_COUNT: break;
    }
    if (message->needs_snapshot > 0) {
        drama_say(drama, " needs-snapshot=%llu", U(message->needs_snapshot));
    }
    drama_say(drama, "%s\n", message->lost_log ? " lost-log" : "");
}

static bool in_set(const struct raft_member *member, unsigned set) {
    return set == 0   ? member->role == RAFT_VOTER
           : set == 1 ? member->in_outgoing
           : set == 2 ? member->role == RAFT_LEARNER
                      : member->priority > 0;
}

void drama_say_config(struct drama *drama, const struct raft_config *config) {
    static const char *const sets[] = {"voters", "outgoing", "learners", "priorities"};
    for (unsigned set = 0; set < 4; set++) {
        const char *before = set == 0 ? "" : " ";
        uint32_t count = 0;
        for (uint32_t i = 0; i < config->member_count; i++) {
            const struct raft_member *member = &config->members[i];
            if (in_set(member, set)) {
                drama_say(drama, "%s%s%s", count == 0 ? before : ",", count == 0 ? sets[set] : "",
                          count == 0 ? "=" : "");
                drama_say(drama, "%s", drama_node_name(member->id));
                count++;
            }
            if (set == 3 && member->priority > 0) {
                drama_say(drama, ":%u", member->priority);
            }
        }
    }
    drama_say(drama, "%s", config->member_count == 0 ? "nobody" : "");
}

void drama_say_state(struct drama *drama, const struct raft_node *node) {
    if (node->raft == NULL) {
        drama_say(drama, "%s down\n", drama_node_name(node->id));
        return;
    }
    const struct raft *raft = node->raft;
    drama_say(drama, "%s %s term=%llu vote=%s leader=%s log=", drama_node_name(node->id),
              raft_role_name(raft_role(raft)), U(raft_term(raft)), drama_node_name(raft_vote(raft)),
              drama_node_name(raft_leader(raft)));
    uint64_t terms[SHOWN_ENTRIES_MAX];
    uint64_t first = raft_first_index(raft);
    size_t count = (size_t)(raft_last_index(raft) + 1 - first);
    DRAMA_REQUIRE(drama, count <= SHOWN_ENTRIES_MAX);
    for (size_t i = 0; i < count; i++) {
        terms[i] = raft_term_at(raft, first + i);
    }
    if (first > 1) {
        drama_say(drama, "%llu..:", U(first));
    }
    say_terms(drama, terms, count);
    drama_say(drama, " synced=%llu commit=%llu", U(raft_synced_index(raft)), U(raft_commit_index(raft)));
    struct raft_info info;
    raft_get_info(raft, &info);
    if (info.heal_index > 0) {
        drama_say(drama, " heals=%llu/%llu", U(info.heal_index), U(info.heal_term));
    }
    if (info.needs_snapshot > 0) {
        drama_say(drama, " needs-snapshot=%llu", U(info.needs_snapshot));
    }
    drama_say(drama, "\n");
}

void drama_say_changes(struct drama *drama, struct raft_node *node, enum status status) {
    struct drama_told *told = &drama->told[node->id - 1];
    const struct raft *raft = node->raft;
    const struct raft_update *update = &node->update;
    char name[8];
    snprintf(name, sizeof name, "%s", drama_node_name(node->id)); /* the printing of configurations takes many */
    if (status != STATUS_OK) {
        drama_say(drama, "%s answers %s\n", name, status_name(status));
    }
    if (told->role != raft_role(raft) || told->term != raft_term(raft) || told->vote != raft_vote(raft) ||
        told->leader != raft_leader(raft)) {
        drama_say(drama, "%s %s term=%llu vote=%s leader=%s\n", name, raft_role_name(raft_role(raft)),
                  U(raft_term(raft)), drama_node_name(raft_vote(raft)), drama_node_name(raft_leader(raft)));
    }
    if (update->refusal != RAFT_REFUSAL_NONE) {
        drama_say(drama, "%s refuses: %s\n", name, raft_refusal_text(update->refusal));
    }
    if (update->append.count > 0) {
        if (update->append.first_index <= told->last) {
            drama_say(drama, "%s cuts %llu..%llu\n", name, U(update->append.first_index), U(told->last));
        }
        drama_say(drama, "%s appends %llu..%llu\n", name, U(update->append.first_index), U(raft_last_index(raft)));
    }
    if (update->membership_changed) {
        drama_say(drama, "%s uses ", name);
        drama_say_config(drama, raft_membership(raft));
        drama_say(drama, "\n");
    }
    if (update->transfer_failed) {
        drama_say(drama, "%s gives up its transfer\n", name);
    }
    for (uint32_t i = 0; i < update->snapshot_peer_count; i++) {
        drama_say(drama, "%s has to send %s a snapshot\n", name, drama_node_name(update->snapshot_peers[i]));
    }
    if (update->commit_index > told->commit) {
        drama_say(drama, "%s commits %llu\n", name, U(update->commit_index));
    }
    if (update->read_round > 0) {
        drama_say(drama, "%s reads in round %llu\n", name, U(update->read_round));
    }
    if (update->ready_round > told->ready_round) {
        drama_say(drama, "%s answers reads up to round %llu at index %llu\n", name, U(update->ready_round),
                  U(update->ready_index));
    }
    if (update->reads_failed) {
        drama_say(drama, "%s fails its reads\n", name);
    }
    *told = (struct drama_told){.role = raft_role(raft),
                                .term = raft_term(raft),
                                .vote = raft_vote(raft),
                                .leader = raft_leader(raft),
                                .commit = update->commit_index,
                                .last = raft_last_index(raft),
                                .ready_round = update->ready_round};
}

/* ---- Nodes and queues ------------------------------------------------------------------------------------------- */

static void on_send(void *context, struct raft_packet *packet) {
    struct drama *drama = context;
    struct drama_queue *queue = &drama->queues[packet->message.from - 1][packet->message.to - 1];
    DRAMA_REQUIRE(drama, queue->count < DRAMA_QUEUE_MAX);
    queue->packets[queue->count++] = packet;
    drama_say_message(drama, packet);
}

void drama_start_node(struct drama *drama, struct raft_node *node) {
    node->send = on_send;
    node->context = drama;
    raft_node_start(node, drama->now_us, node->id + 1000 * drama->starts[node->id - 1]++);
    drama->told[node->id - 1] = (struct drama_told){.term = raft_term(node->raft),
                                                    .vote = raft_vote(node->raft),
                                                    .commit = raft_commit_index(node->raft),
                                                    .last = raft_last_index(node->raft)};
}

void drama_start_all(struct drama *drama) {
    DRAMA_REQUIRE(drama, drama->node_count > 0);
    if (!drama->started) {
        drama->started = true;
        for (uint32_t i = 0; i < drama->node_count; i++) {
            drama_start_node(drama, &drama->nodes[i]);
        }
    }
}

struct raft_packet *drama_pop(struct drama_queue *queue) {
    struct raft_packet *packet = queue->packets[0];
    queue->count--;
    memmove(queue->packets, queue->packets + 1, queue->count * sizeof(struct raft_packet *));
    return packet;
}

void drama_deliver(struct drama *drama, struct raft_packet *packet) {
    struct raft_node *to = &drama->nodes[packet->message.to - 1];
    if (to->raft != NULL) {
        enum status status = raft_node_receive(to, drama->now_us, packet);
        drama_say_changes(drama, to, status);
    }
    raft_packet_free(packet);
}

void drama_sync(struct drama *drama, struct raft_node *node) {
    while (node->raft != NULL && (raft_node_seal(node, SIZE_MAX) || node->inflight.present)) {
        (void)raft_node_complete(node, drama->now_us);
        drama_say_changes(drama, node, STATUS_OK);
    }
}
