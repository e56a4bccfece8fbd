/*
 * A judge of traces (../TRACE.md). It knows the rules from the paper (Ongaro and Ousterhout 2014, Figures 2 and 3) and
 * the thesis (3.10, 4, 6.4, 9.6), holds a model of each node and of the network, and follows the trace line by line.
 * It shares no code with raft/: what both get wrong, two authors got wrong.
 *
 *   main.c         files, verdicts
 *   reader.c       a line of JSON into struct line; nothing in it is trusted
 *   judge.c        the order in which one line is judged
 *   election.c     terms, votes, roles
 *   replication.c  what the log becomes, matches, commit
 *   sending.c      what a node may say
 *   reads.c        linearizable reads
 *   membership.c   configurations, quorums, changes
 *   disk.c         the log in memory and on disk; what a restart may find
 *   network.c      what was sent
 *
 * One thread. Memory comes from the system and ends with the process: a run of the simulator is small.
 */
#ifndef HOLDFAST_REPLAY_H
#define HOLDFAST_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NODES_MAX = 64,   /* ids 1 to this - 1 */
    MEMBERS_MAX = 32, /* of one set of a configuration */
    MESSAGES_MAX = 512,
    ENTRIES_MAX = 1 << 20, /* of one line */
    INDEX_MAX = 1 << 22    /* the model keeps terms by index */
};

/* ---- A line ----------------------------------------------------------------------------------------------------- */

enum event {
    EVENT_TRACE,
    EVENT_START,
    EVENT_CRASH,
    EVENT_TICK,
    EVENT_RECEIVE,
    EVENT_PROPOSE,
    EVENT_SYNCED,
    EVENT_READ,
    EVENT_UNREACHABLE,
    EVENT_TRIMMED,
    EVENT_CHANGE,
    EVENT_TRANSFER,
    EVENT_SNAPSHOT_SENT,
    EVENT_INSTALLED,
    EVENT_FENCE,
    EVENT_GONE,
    EVENT_STORE_DAMAGED,
    EVENT_COUNT
};

enum type {
    TYPE_PREVOTE,
    TYPE_PREVOTE_REPLY,
    TYPE_VOTE,
    TYPE_VOTE_REPLY,
    TYPE_APPEND,
    TYPE_APPEND_REPLY,
    TYPE_HEARTBEAT,
    TYPE_HEARTBEAT_REPLY,
    TYPE_TIMEOUT_NOW,
    TYPE_READ_INDEX,
    TYPE_READ_INDEX_REPLY,
    TYPE_COUNT
};

enum role { ROLE_FOLLOWER, ROLE_PRECANDIDATE, ROLE_CANDIDATE, ROLE_LEADER, ROLE_COUNT };

enum kind { KIND_UNKNOWN, KIND_NOOP, KIND_CONFIG };

struct entry {
    uint64_t term; /* 0: unknown */
    uint8_t kind;
};

struct entries {
    uint64_t first_index;
    struct entry *list;
    size_t count;
    size_t capacity;
};

struct set {
    uint64_t ids[MEMBERS_MAX];
    size_t count;
};

/* Joint if outgoing isn't empty. */
struct config {
    uint64_t index;
    struct set voters;
    struct set outgoing;
    struct set learners;
};

struct configs {
    struct config *list;
    size_t count;
    size_t capacity;
};

struct message {
    enum type type;
    bool reject, lost_log;
    uint64_t life;
    uint64_t from, to, term, index, log_term, count, commit, hint, hint_term, round, floor;
};

struct line {
    uint64_t time_us;
    uint64_t node;
    enum event event;
    bool ok; /* the step took what it was given */
    bool malformed;
    /* Of the event. */
    struct message message;         /* RECEIVE */
    struct entries message_entries; /* ... of an append */
    struct configs message_configs;
    struct {
        uint64_t term, vote, last, last_term;
    } group;              /* SYNCED */
    uint64_t index;       /* TRIMMED, INSTALLED */
    uint64_t index_term;  /* INSTALLED */
    uint64_t start_index; /* START */
    uint64_t start_term;
    uint64_t heal_index, heal_term; /* START: where the log once ended, of which damage left less */
    struct entries log;             /* START */
    struct config installed;
    /* What it did. */
    bool has_cut;
    uint64_t cut;
    struct entries append;
    uint64_t asked;
    bool has_ready;
    uint64_t ready_round, ready_index;
    bool reads_failed;
    struct message sends[MESSAGES_MAX];
    size_t send_count;
    /* The state after it. */
    enum role role;
    uint64_t term, vote, leader, commit, last, last_term, synced, config_index;
    bool has_configuration;
    struct config configuration;
};

/* False: bad input, complaint says what. The line's memory is used again. */
bool line_read(const char *text, size_t len, struct line *line, const char **ret_complaint);
void line_deinit(struct line *line);

/* Room for one more. */
void *grown(void *list, size_t count, size_t *capacity, size_t size);
/* What is left of a list of `count` things without its first `gone`. */
size_t shed(void *list, size_t count, size_t gone, size_t size);
void entries_add(struct entries *entries, uint64_t index, struct entry entry);

/* ---- The model -------------------------------------------------------------------------------------------------- */

struct log {
    struct entry *entries; /* by index; [0] isn't used */
    uint64_t capacity;
    uint64_t start; /* what is gone, or behind a snapshot */
    uint64_t last;
};

/* A record on its way to the disk, or all that went by a snapshot. */
struct write {
    uint64_t index;
    struct entry entry;
    uint64_t in_term; /* the node's, when it was appended */
};

struct vote {
    uint64_t term, vote;
};

struct peer {
    uint64_t match;
    uint64_t life; /* newest that was heard in this term */
    uint64_t round;
    bool vote, prevote;
    uint64_t heard_round; /* newest that a heartbeat from it carried */
    /* READ_INDEX received from it and not answered. */
    bool read_waits;
    uint64_t read_round, read_run;
    uint64_t read_need;    /* what the answer must show at least */
    uint64_t read_started; /* the newest round that had started when it came */
};

struct ask {
    uint64_t round;
    uint64_t need; /* committed anywhere when it was asked */
};

struct node {
    uint64_t id;
    bool known, up;
    enum role role;
    uint64_t term, vote, leader, commit;
    uint64_t matched; /* how far the log equals this term's leader's */
    struct log log;
    struct configs configs; /* by index; the last is effective */
    struct peer peers[NODES_MAX];
    uint64_t noop; /* a leader's first entry */
    /* The newest candidacy: what its questions say of the log. */
    uint64_t candidacy_term, candidacy_last, candidacy_last_term;
    /* Disk. */
    struct log disk;      /* at least this is durable */
    uint64_t disk_floor;  /* durable otherwise: an installed snapshot, flushed entries */
    struct write *writes; /* what came after `disk`, in order */
    size_t write_count, write_capacity;
    struct vote *votes; /* [0] is durable; the last is the present one */
    size_t vote_count, vote_capacity;
    uint64_t commit_max; /* over its lives */
    uint64_t heal_index; /* until the durable log ends there again: what it acknowledged is more than it has */
    uint64_t heal_term;
    /* Reads. */
    uint64_t round_started;
    struct ask *asks;
    size_t ask_count, ask_capacity;
};

struct sent {
    struct message message;
    struct entry *entries; /* of an append */
};

struct channel {
    struct sent *list;
    size_t count, capacity;
};

struct judge {
    struct node nodes[NODES_MAX];
    struct channel *channels[NODES_MAX]; /* by sender, then by receiver */
    /* By index, what was committed first; by term, its leader. */
    struct entry *committed;
    uint64_t *committed_in;
    uint64_t committed_capacity, committed_in_capacity;
    uint64_t commit;
    uint64_t *leaders;
    uint64_t leaders_capacity;
    struct configs configs; /* every configuration that was made, with the term of its entry */
    uint64_t *config_terms;
    size_t config_terms_capacity;
    uint64_t time_us;
    /* For the verdict's line. */
    uint64_t lines, elections, receives, restarts, reads;
    /* The violation, if rule isn't NULL. */
    const char *rule;
    uint64_t at_node;
    char text[256];
};

/* What a node was before the line, and what it now is by the line. */
struct step {
    struct judge *judge;
    struct node *node;
    const struct line *line;
    enum role role;
    uint64_t term, vote, commit, leader;
    struct config config; /* effective before */
    bool has_message;     /* received, in the term that the node now is in */
    bool found_install;   /* START: of a snapshot that raft never heard of */
};

void judge_init(struct judge *judge);
void judge_deinit(struct judge *judge);
/* False: judge->rule, at_node and text say what is wrong. */
bool judge_line(struct judge *judge, const struct line *line);

/* Always false; the first complaint stays. */
bool broken(struct step *step, const char *rule, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- Rules ------------------------------------------------------------------------------------------------------ */

/* disk.c */
/* 0: not there, or unknown. */
uint64_t log_term(const struct log *log, uint64_t index);
void log_put(struct log *log, uint64_t index, struct entry entry);
void log_copy(struct log *to, const struct log *from);
void disk_append(struct node *node, uint64_t index, struct entry entry);
void disk_vote(struct node *node, uint64_t term, uint64_t vote);
void disk_synced(struct node *node, const struct line *line);
void disk_installed(struct node *node, uint64_t index, uint64_t term);
/* The newest index that is durable as it stands in the log. */
uint64_t disk_match(const struct node *node);
/* Term and vote as they are now are durable. */
bool disk_has_vote(const struct node *node);
bool disk_check_start(struct step *step);

/* election.c */
bool election_check_term(struct step *step);
bool election_check_role(struct step *step);
void election_hear(struct step *step);
/* Section 5.4.1: (index, term) is at least as new as the log's end, or as that was before it was damaged. */
bool log_is_new_enough(const struct node *node, uint64_t last, uint64_t last_term);

/* replication.c */
bool replication_check_log(struct step *step);
bool replication_hear_life(struct step *step);
void replication_hear(struct step *step);
bool replication_check_commit(struct step *step);

/* membership.c */
bool set_has(const struct set *set, uint64_t id);
bool set_equal(const struct set *a, const struct set *b);
bool config_is_joint(const struct config *config);
/* More than half of the voters, and of the outgoing ones, say yes. */
bool config_quorum(const struct config *config, bool (*says)(const void *context, uint64_t id), const void *context);
const struct config *node_config(const struct node *node);
bool node_may_campaign(const struct node *node);
bool membership_append(struct step *step, uint64_t index, uint64_t term);
void membership_cut(struct node *node, uint64_t last);
/* The configuration that this entry brought, or NULL. */
const struct config *membership_made(const struct judge *judge, uint64_t index, uint64_t term);
void membership_reset(struct node *node, const struct config *config);
bool membership_check_start(struct step *step);
bool membership_check_state(struct step *step);

/* reads.c */
bool reads_check(struct step *step);
void reads_hear(struct step *step);

/* sending.c */
bool sending_check(struct step *step);

/* network.c */
bool network_check_received(struct step *step);
void network_send(struct step *step, const struct message *message);

extern const char *const type_names[TYPE_COUNT];

#endif
