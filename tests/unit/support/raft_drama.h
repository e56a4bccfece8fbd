/*
 * A drama: a few raft nodes, a queue of packets from each to each, and a clock, all moved by hand. What happens is
 * printed as lines of text: messages as they are sent, then what the step changed. Scripts (test_scenario.c) are
 * written against these lines.
 *
 * Failures are cmocka failures that name the script's line. One thread.
 */
#ifndef HOLDFAST_TESTS_RAFT_DRAMA_H
#define HOLDFAST_TESTS_RAFT_DRAMA_H

#include "tests/unit/support/raft_node.h"

#include <stdio.h>

enum { DRAMA_NODES_MAX = 7, DRAMA_QUEUE_MAX = 256 };

struct drama_queue {
    struct raft_packet *packets[DRAMA_QUEUE_MAX];
    uint32_t count;
};

/* What was last said about a node, so that only changes are. */
struct drama_told {
    enum raft_role role;
    uint64_t term;
    uint64_t vote;
    uint64_t leader;
    uint64_t commit;
    uint64_t last;
    uint64_t ready_round;
};

struct drama {
    const char *name;
    unsigned line_number;
    uint32_t node_count;
    bool started;
    bool muted; /* nothing is printed */
    uint64_t now_us;
    uint64_t next_value;
    struct raft_config config;
    struct raft_options options;
    struct raft_node nodes[DRAMA_NODES_MAX];
    uint64_t starts[DRAMA_NODES_MAX]; /* each start of a node has a seed of its own */
    struct drama_told told[DRAMA_NODES_MAX];
    struct drama_queue queues[DRAMA_NODES_MAX][DRAMA_NODES_MAX]; /* from, to */
    FILE *out;
    char *output; /* what was printed since drama_begin_line */
    size_t output_len;
};

#define DRAMA_REQUIRE(drama, condition) drama_require(drama, condition, #condition)
void drama_require(const struct drama *drama, bool condition, const char *text);

/* An empty stage. */
struct drama *drama_new(const char *name);
void drama_free(struct drama *drama);
/* Forgets the output so far; the next lines come from this line of the script. */
void drama_begin_line(struct drama *drama, unsigned line_number);
/* The output since then, each line behind "> "; "> nothing" if there is none. The caller frees it. */
char *drama_quoted_output(struct drama *drama);

void drama_say(struct drama *drama, const char *format, ...) PRINTF_LIKE(2, 3);
/* "n3", "-" for nobody; in a few turns' static buffers. */
const char *drama_node_name(uint64_t id);
void drama_say_message(struct drama *drama, const struct raft_packet *packet);
/* "voters=n1,n2 outgoing=n1 learners=n3", and priorities that aren't 0. */
void drama_say_config(struct drama *drama, const struct raft_config *config);
void drama_say_state(struct drama *drama, const struct raft_node *node);
/* What the node's last step changed, beside messages, which were said as they were sent. */
void drama_say_changes(struct drama *drama, struct raft_node *node, enum status status);

void drama_start_node(struct drama *drama, struct raft_node *node);
/* At the first command that needs it. */
void drama_start_all(struct drama *drama);
struct raft_packet *drama_pop(struct drama_queue *queue);
/* Takes the packet; nodes that are down drop it. */
void drama_deliver(struct drama *drama, struct raft_packet *packet);
/* Seals and completes groups until nothing waits. */
void drama_sync(struct drama *drama, struct raft_node *node);

#endif
