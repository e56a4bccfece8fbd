/*
 * A simulated world: nodes with disks, a network between them, and time, all on one OS thread and all decided by a
 * seed.
 *
 * Production code runs in here unchanged: each node has an `struct env` (node/env/env.h) whose loops, workers and
 * threads are fibers. The world picks by seed which ready fiber runs next; when none is ready, virtual time jumps to
 * the next event. The same seed, options and calls give the same run, bit for bit; sim_hash proves it.
 *
 *   sim_new -> sim_node_new ... -> sim_node_start ... -> sim_run_until / sim_step, with faults in between -> sim_free
 *
 *   node:   NEW --start--> UP --crash(PROCESS), env_exit--> DOWN --start--> UP
 *                            \--crash(POWER)--------------> OFF  --start--> UP
 *
 * A node's program (sim_node_options.main) runs on a fiber of its own whenever the node starts, as main() would: it may
 * call blocking functions, makes loops and starts them. When a node crashes, its fibers never run again and all memory
 * of its allocator is gone; whoever keeps pointers to what the program built must drop them (sim_node_options.crashed).
 *
 * The host. Code that runs outside all fibers (tests, predicates, calls made by sim_call_at) is "the host". It may call
 * env functions of a node, too: blocking file functions then take no time, and waits (env_sleep_us, env_event_wait,
 * env_loop_join) run the world meanwhile. env_exit is not for the host.
 *
 * The simulator's own memory comes from the system and is never failed. Owning thread: the one that called sim_new.
 */
#ifndef HOLDFAST_SIM_H
#define HOLDFAST_SIM_H

#include "node/env/env.h"

struct sim;
struct sim_node;

enum { SIM_NODES_MAX = 64 };

/* ---- World ------------------------------------------------------------------------------------------------------ */

/* What happened, for tracing; every one of them also enters the hash. Meaning of a and b behind the name. */
#define SIM_TRACE_TABLE(X)                                                                                             \
    X(START, "start") /* incarnation */                                                                                \
    X(CRASH, "crash") /* enum sim_crash, exit code */                                                                  \
    X(PAUSE, "pause")                                                                                                  \
    X(RESUME, "resume")                                                                                                \
    X(TURN, "turn")       /* fiber, node clock in us */                                                                \
    X(SLICE, "slice")     /* fiber; a worker or thread runs until it blocks */                                         \
    X(PREEMPT, "preempt") /* fiber, us */                                                                              \
    X(WORK, "work")       /* enum env_work_class, fiber */                                                             \
    X(OPEN, "open")       /* of all file calls: errno, bytes or 0; text: path */                                       \
    X(READ, "read")                                                                                                    \
    X(WRITE, "write")                                                                                                  \
    X(WRITE_DSYNC, "dsync")                                                                                            \
    X(SYNC, "sync")                                                                                                    \
    X(TRUNCATE, "truncate")                                                                                            \
    X(RENAME, "rename")      /* text: the new path */                                                                  \
    X(HARD_LINK, "hardlink") /* text: the new path */                                                                  \
    X(UNLINK, "unlink")                                                                                                \
    X(MKDIR, "mkdir")                                                                                                  \
    X(SYNC_DIR, "syncdir")                                                                                             \
    X(LOCK, "lock")                                                                                                    \
    X(MAP, "map")                                                                                                      \
    X(UNMAP, "unmap")                                                                                                  \
    X(IO_READ, "io.read") /* of all four: offset, len; text: path */                                                   \
    X(IO_WRITE, "io.write")                                                                                            \
    X(IO_WRITE_DSYNC, "io.dsync")                                                                                      \
    X(IO_SYNC, "io.sync")                                                                                              \
    X(IO_END, "io.end")         /* errno, bytes so far */                                                              \
    X(DISK_ERROR, "disk.error") /* errno */                                                                            \
    X(DISK_HANG, "disk.hang")   /* 1: hung, 0: released */                                                             \
    X(SECTORS, "sectors")       /* at a power loss: sectors lost, sectors torn or garbled */                           \
    X(NAMES, "names")           /* at a power loss: directory operations kept, lost */                                 \
    X(CORRUPT, "corrupt")       /* offset, len */                                                                      \
    X(LISTEN, "listen")                                                                                                \
    X(CONNECT, "connect") /* connection */                                                                             \
    X(ACCEPT, "accept")   /* connection */                                                                             \
    X(REFUSE, "refuse")   /* connection, errno */                                                                      \
    X(SEGMENT, "segment") /* connection, bytes */                                                                      \
    X(HELD, "held")       /* connection, bytes */                                                                      \
    X(FIN, "fin")         /* connection */                                                                             \
    X(RESET, "reset")     /* connection, errno */                                                                      \
    X(CLOSED, "closed")   /* connection, status */                                                                     \
    X(LINK, "link")       /* other node, 1: up, 0: down */                                                             \
    X(CALL, "call")

enum sim_trace_kind {
#define SIM_TRACE_ENUM(suffix, name) SIM_TRACE_##suffix,
    SIM_TRACE_TABLE(SIM_TRACE_ENUM)
#undef SIM_TRACE_ENUM
        SIM_TRACE_COUNT
};

struct sim_trace {
    uint64_t time_us; /* virtual, since sim_new */
    enum sim_trace_kind kind;
    const char *node; /* "" for the world itself */
    uint64_t a, b;
    const char *text; /* never NULL */
};

const char *sim_trace_name(enum sim_trace_kind kind);

struct sim_network_options {
    uint32_t delay_us_min; /* of one segment */
    uint32_t delay_us_max;
    uint32_t slow_ppm; /* chance that a segment takes up to slow_us_max instead */
    uint32_t slow_us_max;
    uint32_t reset_ppm;           /* chance per segment that its connection is reset */
    uint32_t refuse_ppm;          /* chance that a connect is refused although somebody listens */
    uint32_t segment_bytes_max;   /* at most in one segment; at least 16 */
    uint32_t pipe_bytes_max;      /* sent and not yet read, per connection and direction */
    uint32_t bytes_per_ms;        /* bandwidth, per connection and direction */
    uint64_t connect_timeout_us;  /* of a connect that nobody answers */
    uint64_t silence_timeout_us;  /* unanswered bytes reset their connection after this, or up to twice this */
    uint32_t heal_backoff_us_max; /* held bytes leave up to this late after a partition has healed */
};

struct sim_options {
    uint32_t
        turn_us_max; /* CPU time of a turn of a loop, or of what a worker does between two blocking calls: 1..this */
    uint32_t preempt_ppm;    /* chance that an env call inside a turn stops the loop's thread for a while */
    uint32_t preempt_us_max; /* ... at most this long */
    size_t stack_bytes;      /* of a fiber */
    struct sim_network_options network;
    /* Called for everything that enters the hash; must not call into the simulator. May be NULL. */
    void (*trace)(void *context, const struct sim_trace *trace);
    void *trace_context;
};

/* A healthy local network and no preemption. */
void sim_options_init(struct sim_options *options);
/* Copies the options. Never NULL. */
struct sim *sim_new(uint64_t seed, const struct sim_options *options);
/* Crashes all nodes (calling `crashed`) and frees everything. Not from a fiber. NULL is accepted. */
void sim_free(struct sim *sim);

/* Virtual microseconds since sim_new. */
uint64_t sim_now_us(const struct sim *sim);
/* 64 bits for the host's own decisions, from a stream of their own. */
uint64_t sim_random(struct sim *sim);
/* A chain over all that happened so far. */
uint64_t sim_hash(const struct sim *sim);

/* One choice: runs one ready fiber, or the events of the next instant. False if there is nothing left that could
 * happen. Not from a fiber. */
bool sim_step(struct sim *sim);

enum sim_end {
    SIM_END_PREDICATE, /* became true */
    SIM_END_DEADLINE,  /* virtual time is deadline_us now */
    SIM_END_STEPS,     /* step_count_max steps were made: probably something spins */
    SIM_END_IDLE       /* nothing can happen any more */
};

/* Steps until done(context) holds (tested before every step; NULL: never), virtual time would pass deadline_us
 * (UINT64_MAX: no bound; else time ends up exactly there), or the bound of steps. Not from a fiber. */
enum sim_end sim_run_until(struct sim *sim, uint64_t deadline_us, bool (*done)(void *context), void *context,
                           uint64_t step_count_max);

/* The host's call at a virtual time (not before now), once: faults on schedule. It may do all that the host may. */
void sim_call_at(struct sim *sim, uint64_t time_us, void (*run)(void *context), void *context);

struct sim_stats {
    uint64_t steps;
    uint64_t turns;
    uint64_t process_crashes;
    uint64_t power_losses;
    uint64_t sectors_kept; /* of those unsynced at a power loss */
    uint64_t sectors_lost;
    uint64_t sectors_torn;
    uint64_t sectors_garbled;
    uint64_t names_kept; /* unsynced directory operations at a power loss */
    uint64_t names_lost;
    uint64_t io_errors;
    uint64_t failed_allocations;
    uint64_t file_bytes_read;
    uint64_t file_bytes_written;
    uint64_t file_syncs;
    uint64_t connections;
    uint64_t connects_failed;
    uint64_t resets;
    uint64_t partitions; /* links taken down */
    uint64_t network_bytes;
    uint64_t segments;
    uint64_t preemptions;
};

void sim_get_stats(const struct sim *sim, struct sim_stats *ret_stats);

/* ---- Nodes ------------------------------------------------------------------------------------------------------ */

struct sim_disk_options {
    uint32_t sector_bytes; /* what a power loss keeps or loses as one: 512 or 4096 */
    uint64_t capacity_bytes;
    bool torn;               /* an unsynced sector may be half old, half new */
    bool garbled;            /* an unsynced sector may hold noise */
    bool scatter;            /* sectors of one write are decided one by one; else a write is kept or lost as a whole */
    uint32_t read_error_ppm; /* chance of EIO, per call */
    uint32_t write_error_ppm;
    uint32_t sync_error_ppm;
    uint32_t nowait_pending_ppm; /* chance that env_pread_nowait finds the bytes absent */
    uint32_t read_us_max;        /* usual latency: up to this */
    uint32_t write_us_max;
    uint32_t sync_us_max; /* added to a write that syncs, too */
    uint32_t slow_ppm;    /* chance that a call takes up to slow_us_max instead */
    uint32_t slow_us_max;
};

/* A healthy disk that loses, tears and garbles what isn't synced. */
void sim_disk_options_init(struct sim_disk_options *options);

enum sim_crash {
    SIM_CRASH_PROCESS, /* the page cache survives; peers learn of it soon */
    SIM_CRASH_POWER    /* the disk decides what is left of unsynced writes; peers hear nothing */
};

struct sim_node_options {
    const char *name; /* unique; the host part of its addresses. Copied */
    /* The program: on a fiber, at each start. NULL: none, the host drives the node. */
    void (*main)(void *context, struct env *env);
    /* On the host, right after the node's memory is gone. exit_code: of env_exit, else -1. May be NULL. */
    void (*crashed)(void *context, enum sim_crash crash, int exit_code);
    void *context;
    unsigned cpu_count;
    unsigned workers_short; /* jobs at once; 0: 2 */
    unsigned workers_long;  /* 0: 1 */
    struct sim_disk_options disk;
};

void sim_node_options_init(struct sim_node_options *options, const char *name);
/* Makes a node with an empty disk that holds only "/"; it isn't started. Lives as long as the world. */
struct sim_node *sim_node_new(struct sim *sim, const struct sim_node_options *options);
/* Boots a node that isn't up: a fresh env and allocator on the same disk. */
void sim_node_start(struct sim_node *node);
/* Ends a node that is up, at once; must not come from one of its fibers (they use env_exit). */
void sim_node_crash(struct sim_node *node, enum sim_crash crash);
bool sim_node_is_up(const struct sim_node *node);
const char *sim_node_name(const struct sim_node *node);
/* The present incarnation's env; NULL while the node isn't up. */
struct env *sim_node_env(struct sim_node *node);
/* The simulated network as this node sees it; NULL while it isn't up. Same life as the env. */
struct env_transport *sim_node_transport(struct sim_node *node);
/* The same, for a program that only has its env. */
struct env_transport *sim_transport(struct env *env);
/* Hooks of the present incarnation (env->faults), all off after a start. */
struct fault_set *sim_node_faults(struct sim_node *node);
/* Another thread of the node, besides loops and workers: a client that blocks. */
void sim_node_thread(struct sim_node *node, void (*run)(void *context), void *context);

/* Stops all threads of a node (not its kernel: bytes still arrive, disk writes still end) until resume: SIGSTOP. */
void sim_node_pause(struct sim_node *node);
void sim_node_resume(struct sim_node *node);
/* The node's monotonic clock runs this much too fast (parts per million; negative: slow). From now on. */
void sim_node_set_clock_drift(struct sim_node *node, int32_t drift_ppm);
/* The node's wall clock is off by this much. */
void sim_node_set_wall_offset(struct sim_node *node, int64_t offset_ms);
/* What the node shows to those it talks with, on connections made from now on. subject is copied. Default: VALID, a
 * thumbprint made of the name, the name. */
void sim_node_set_identity(struct sim_node *node, enum env_certificate_state state,
                           const uint8_t thumbprint[ENV_THUMBPRINT_BYTES], const char *subject);
/* The thumbprint that a node shows at first: for configurations. */
void sim_default_thumbprint(const char *node_name, uint8_t ret_thumbprint[ENV_THUMBPRINT_BYTES]);

/* Allocations of the node fail with this chance, from now on. */
void sim_node_fail_allocations(struct sim_node *node, uint32_t ppm);
/* The n-th allocation from now on fails (1: the next), once. 0: none. */
void sim_node_fail_allocation(struct sim_node *node, uint64_t n);
struct sim_memory_stats {
    uint64_t used_bytes;
    uint64_t peak_bytes;
    uint64_t blocks;      /* live */
    uint64_t allocations; /* since the start */
};
/* Of the present incarnation. */
void sim_node_get_memory(const struct sim_node *node, struct sim_memory_stats *ret_stats);

/* ---- Disks ------------------------------------------------------------------------------------------------------ */

/* May be changed at any time; sector_bytes must not. */
struct sim_disk_options *sim_disk_options(struct sim_node *node);
/* From now on reads, writes and syncs don't end (whole calls; names still work) until released. */
void sim_disk_hang(struct sim_node *node, bool hung);
/* Flips bits within [offset, offset + len), in the cache and below: latent corruption. STATUS_NOT_FOUND, STATUS_INVALID
 * (beyond the end). */
MUST_USE enum status sim_disk_corrupt(struct sim_node *node, const char *path, uint64_t offset, uint64_t len);
/* A new, empty disk. The node must not be up. */
void sim_disk_wipe(struct sim_node *node);
/* Bytes written and not synced, directory operations not synced. */
void sim_disk_get_pending(const struct sim_node *node, uint64_t *ret_bytes, uint64_t *ret_names);

/* ---- Network ---------------------------------------------------------------------------------------------------- */

/* May be changed at any time. */
struct sim_network_options *sim_network_options(struct sim *sim);
/* Whether bytes pass from one node to another; one way. Down: they are held, and after a long time their connection is
 * reset. */
void sim_link_set(struct sim_node *from, struct sim_node *to, bool up);
/* Both ways. */
void sim_partition(struct sim_node *a, struct sim_node *b);
void sim_heal(struct sim_node *a, struct sim_node *b);
/* All links of all nodes up. */
void sim_heal_all(struct sim *sim);
/* Resets all connections between two nodes. */
void sim_reset_connections(struct sim_node *a, struct sim_node *b);

#endif
