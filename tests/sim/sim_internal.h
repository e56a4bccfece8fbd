/*
 * What the simulator's files share: the world, its events and fibers, nodes, loops. disk.h and network_internal.h hold
 * the disk and the network.
 *
 * Who frees what. World, nodes, fibers, disks, connections: the simulator's own memory (sim__alloc). Loops, streams,
 * listeners, files, events of env: the node's allocator, as in production; a crash frees them all, so before that every
 * pointer from the world into a node's memory is cut (sim__loops_drop, sim__files_drop, sim__network_drop).
 */
#ifndef HOLDFAST_SIM_INTERNAL_H
#define HOLDFAST_SIM_INTERNAL_H

#include "node/base/check.h"
#include "node/base/random.h"
#include "node/env/env_loop_internal.h"
#include "tests/sim/disk.h"
#include "tests/sim/sim.h"

#include <setjmp.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#endif

#if !defined(SIM_ASAN) && !defined(__SANITIZE_THREAD__)
#define SIM_JUMPS 1 /* between fibers; see fiber.c */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#undef SIM_JUMPS
#endif
#endif
#endif

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum { PPM = 1000 * 1000 };

/* ---- World (world.c) -------------------------------------------------------------------------------------------- */

/* Something that happens at a time. Embedded; must be cancelled before its memory goes. Ties: order of scheduling. */
struct sim_event {
    void (*run)(struct sim_event *event);
    uint64_t time_us;
    uint64_t sequence;
    uint32_t slot; /* in the heap; 0: not scheduled */
};

/* Where a fiber, or the host, goes on. */
struct sim_context {
    ucontext_t first; /* at its beginning; with a sanitizer always */
    jmp_buf jump;
    bool entered;
};

struct sim_fiber;
struct sim_network;
struct sim_stack;

struct sim {
    struct sim_options options;
    uint64_t now_us;
    uint64_t hash;
    struct random schedule; /* who runs next, for how long */
    struct random host;     /* sim_random */
    uint64_t seed;
    struct sim_stats stats;

    struct sim_event **events; /* heap, slot 0 unused */
    uint32_t event_count;
    uint32_t event_capacity;
    uint64_t event_sequence;

    struct sim_fiber **ready;
    uint32_t ready_count;
    uint32_t ready_capacity;
    struct sim_fiber *current; /* NULL: the host runs */
    uint64_t fiber_sequence;
    struct sim_context host_context;
    const void *host_stack; /* as the address sanitizer wants them */
    size_t host_stack_bytes;
    struct sim_stack *free_stacks;

    struct sim_node *nodes[SIM_NODES_MAX];
    uint32_t node_count;
    struct sim_node *exiting; /* its fiber called env_exit: crash it once the fiber is off */
    int exit_code;
    struct sim_network *network;
    struct list calls; /* of sim_call_at */
};

/* Never NULL; zeroed. */
void *sim__alloc(size_t size);
void sim__free(void *ptr);
/* Moves an event that is scheduled already. A time in the past counts as now. */
void sim__event_schedule(struct sim *sim, struct sim_event *event, uint64_t time_us);
void sim__event_cancel(struct sim *sim, struct sim_event *event);
/* Into the hash and to the trace callback. node NULL: the world. */
void sim__note(struct sim *sim, const struct sim_node *node, enum sim_trace_kind kind, uint64_t a, uint64_t b,
               const char *text);
/* Host only: steps until done or the deadline. */
void sim__host_wait(struct sim *sim, uint64_t deadline_us, bool (*done)(void *context), void *context);

/* 1..max, or now and then up to slow_max: delays. */
uint64_t sim__draw_us(struct random *random, uint64_t max_us, uint32_t slow_ppm, uint64_t slow_max_us);

/* ---- Fibers (fiber.c) ------------------------------------------------------------------------------------------- */

enum fiber_state {
    FIBER_WAITING, /* for sim__fiber_wake or its event */
    FIBER_READY,
    FIBER_PARKED, /* would be ready, but its node is paused */
    FIBER_RUNNING,
    FIBER_ENDED
};

struct sim_fiber {
    struct sim_node *node;
    struct list link; /* node->fibers */
    uint64_t id;
    enum fiber_state state;
    bool is_loop;
    bool waits_for_disk;
    const void *sleeps_on; /* a word of memory; NULL: none */
    void (*run)(void *argument);
    void *argument;
    uint64_t busy_until_us; /* the CPU time that its last slice took */
    struct sim_event wake_event;
    uint32_t ready_slot;
    struct sim_context context;
    struct sim_stack *stack;
    void *fake_stack; /* the address sanitizer's */
};

/* Starts after start_us. Freed when run returns. */
struct sim_fiber *sim__fiber_new(struct sim_node *node, void (*run)(void *argument), void *argument, bool is_loop,
                                 uint64_t start_us);
/* Frees it wherever it is stopped; not while it runs. */
void sim__fiber_drop(struct sim_fiber *fiber);
/* Makes a waiting fiber ready, as soon as it isn't busy. */
void sim__fiber_wake(struct sim_fiber *fiber);
/* On a fiber: stops it until it is woken. */
void sim__fiber_wait(struct sim *sim);
/* On a fiber: as sim__fiber_wait, but at most until this virtual time. */
void sim__fiber_wait_until(struct sim *sim, uint64_t time_us);
/* On a fiber: stops it at least until this virtual time, whoever wakes it. */
void sim__fiber_sleep_until(struct sim *sim, uint64_t time_us);
/* Host: runs a ready fiber until it stops. */
void sim__fiber_resume(struct sim *sim, struct sim_fiber *fiber);
/* Parks ready fibers of a paused node; unparks. */
void sim__fibers_park(struct sim_node *node);
void sim__fibers_unpark(struct sim_node *node);
void sim__stacks_free(struct sim *sim);

/* ---- Memory of a node (memory.c) -------------------------------------------------------------------------------- */

struct sim_memory {
    struct alloc alloc;
    struct list blocks;
    struct random random;
    struct sim_stats *stats;
    struct sim_memory_stats counts;
    uint32_t fail_ppm;
    uint64_t fail_countdown; /* 1: the next; 0: off */
};

void sim__memory_init(struct sim_memory *memory, uint64_t seed, struct sim_stats *stats);
/* Frees every block. */
void sim__memory_drop(struct sim_memory *memory);

/* ---- Nodes (node.c) --------------------------------------------------------------------------------------------- */

enum node_state { NODE_NEW, NODE_UP, NODE_DOWN, NODE_OFF };

struct sim_env {
    struct env env;
    struct sim_node *node;
};

struct sim_transport {
    struct env_transport transport;
    struct sim_node *node;
};

/* What a new worker fiber is told. */
struct sim_worker {
    struct sim_node *node;
    enum env_work_class work_class;
};

struct sim_node {
    struct sim *sim;
    uint32_t index;
    char name[LIMIT_NAME_BYTES];
    struct sim_node_options options;
    enum node_state state;
    bool paused;
    uint64_t incarnation;
    struct random random; /* env_random */

    /* Clocks */
    uint64_t clock_base_us; /* the node's clock at world time clock_since_us */
    uint64_t clock_since_us;
    int32_t drift_ppm;
    uint64_t clock_last_us; /* newest value given out */
    int64_t wall_offset_ms;

    /* The incarnation's */
    struct sim_env *env;
    struct sim_transport *transport;
    struct fault_set faults;
    struct sim_memory memory;
    uint64_t fail_countdown; /* of calls on the disk; 1: the next; 0: off */
    int fail_sys;
    bool fail_all;
    struct list fibers;
    struct list loops;
    struct list files;
    struct list mappings;
    struct list ios; /* started, not ended */
    struct list work_queue[ENV_WORK_CLASS_COUNT];
    unsigned work_running[ENV_WORK_CLASS_COUNT];
    struct sim_worker workers[ENV_WORK_CLASS_COUNT];

    /* What survives */
    struct sim_disk *disk;
    bool disk_hung;
    struct random disk_random;
    struct env_peer identity; /* what it shows; the address is unused */
    uint16_t next_port;
};

static inline struct sim_node *sim__node_of(const struct env *env) {
    return ((const struct sim_env *)(const void *)env)->node;
}

/* The node's monotonic clock now; never goes back, moves a little with each reading. */
uint64_t sim__node_clock_us(struct sim_node *node);
/* The first world time at which the node's clock shows clock_us. */
uint64_t sim__node_world_time_us(const struct sim_node *node, uint64_t clock_us);
/* World: crashes a node now; not from one of its fibers. */
void sim__node_crash(struct sim_node *node, enum sim_crash crash, int exit_code);
/* On a fiber of the node, within a turn: maybe lets others run first, as the kernel would. */
void sim__preempt(struct sim_node *node);
extern const struct env_ops sim__env_ops;

/* ---- Loops (loop.c) --------------------------------------------------------------------------------------------- */

/* Something of a loop (stream, listener) that has news for its owner: runs once in the next turn. */
struct sim_notice {
    struct list link;
    void (*run)(struct sim_notice *notice);
};

struct sim_loop {
    struct env_loop loop;
    struct sim_node *node;
    struct list link;        /* node->loops */
    struct sim_fiber *fiber; /* while it runs */
    struct sim_fiber *joiner;
    struct sim_event timer_event;
    struct list notices;
    struct list delivering;  /* notices of this turn */
    struct list submissions; /* env_io: start at the end of this turn */
    struct list completions; /* sim_io: end in the next turn */
    uint32_t object_count;   /* streams and listeners */
    bool stop;
};

static inline struct sim_loop *sim__loop_of(struct env_loop *loop) { return (struct sim_loop *)(void *)loop; }

/* Queues the notice, wakes the loop. */
void sim__notify(struct sim_loop *loop, struct sim_notice *notice);
void sim__loop_wake(struct sim_loop *loop);
void sim__loops_drop(struct sim_node *node);

enum status sim__loop_new(struct env *env, const char *name, uint32_t mailbox_count_max, struct env_loop **ret_loop,
                          struct error *err);
void sim__loop_run(struct env_loop *loop);
enum status sim__loop_spawn(struct env_loop *loop, struct error *err);
void sim__loop_stop(struct env_loop *loop);
void sim__loop_join(struct env_loop *loop);
void sim__loop_free(struct env_loop *loop);
bool sim__on_loop(struct env_loop *loop);
void sim__loop_wake_op(struct env_loop *loop);

/* ---- Workers, sleeps, events (work.c) --------------------------------------------------------------------------- */

void sim__work_submit(struct env *env, enum env_work_class work_class, struct env_work *work);
/* Blocking calls begin here: the running fiber isn't a loop's. */
void sim__check_may_block(const struct sim_node *node);
void sim__sleep_us(struct env *env, uint64_t us);
enum status sim__event_new(struct env *env, struct env_event **ret_event);
void sim__event_free(struct env_event *event);
void sim__event_set(struct env_event *event);
enum status sim__event_wait(struct env_event *event, uint64_t timeout_us);
void sim__word_wait(struct env *env, const _Atomic uint32_t *word, uint32_t expected, bool may_block);
void sim__word_wake(struct env *env, const _Atomic uint32_t *word);

/* ---- Files (file.c, io.c) --------------------------------------------------------------------------------------- */

struct sim_file {
    struct env_file file;
    struct sim_node *node;
    struct list link; /* node->files */
    struct sim_inode *inode;
    unsigned flags;
    bool is_lock;
    uint32_t ios; /* in flight */
};

static inline struct sim_file *sim__file_of(struct env_file *file) { return (struct sim_file *)(void *)file; }

/* The caller, who may block, waits for the disk. */
void sim__disk_take_time(struct sim_node *node, uint32_t usual_us_max);
/* How long a call takes on this disk. */
uint64_t sim__disk_delay_us(struct sim_node *node, uint32_t usual_us_max);
/* Draws an error: EIO or 0. */
int sim__disk_error(struct sim_node *node, uint32_t ppm, bool takes_space);
/* Writes what gets through before an injected error or the end of the disk: *ret_len bytes. Returns an errno or 0. */
int sim__disk_write_faulty(struct sim_file *file, const void *data, size_t len, uint64_t offset, bool durable,
                           size_t *ret_len);
/* Changes before `sequence` become durable, or an injected error. Returns an errno or 0. */
int sim__disk_sync_faulty(struct sim_file *file, uint64_t sequence);
/* Asserts what O_DIRECT asks for. */
void sim__check_direct(const struct sim_file *file, const void *data, size_t len, uint64_t offset);
/* Releases handles and locks of a node that crashes. */
void sim__files_drop(struct sim_node *node);
/* What becomes of writes in flight when the node crashes, then forgets them. */
void sim__ios_drop(struct sim_node *node, enum sim_crash crash);
/* Fibers and ios that hang go on. */
void sim__files_unhang(struct sim_node *node);
void sim__ios_unhang(struct sim_node *node);

void sim__io_submit(struct env_loop *loop, struct env_io *io);
/* Starts everything on the loop's list of submissions. */
void sim__ios_start(struct sim_loop *loop);
/* Ends what completed. */
void sim__ios_complete(struct sim_loop *loop);

enum status sim__open(struct env *env, const char *path, unsigned flags, struct env_file **ret_file, struct error *err);
void sim__close(struct env_file *file);
enum status sim__pread(struct env_file *file, void *data, size_t len, uint64_t offset, size_t *ret_len,
                       struct error *err);
enum status sim__pwrite(struct env_file *file, const void *data, size_t len, uint64_t offset, struct error *err);
enum status sim__pwrite_dsync(struct env_file *file, const void *data, size_t len, uint64_t offset, struct error *err);
enum status sim__sync(struct env_file *file, struct error *err);
enum status sim__size(struct env_file *file, uint64_t *ret_size_bytes, struct error *err);
enum status sim__truncate(struct env_file *file, uint64_t size_bytes, struct error *err);
enum status sim__rename(struct env *env, const char *from, const char *to, struct error *err);
enum status sim__link(struct env *env, const char *from, const char *to, struct error *err);
enum status sim__unlink(struct env *env, const char *path, struct error *err);
enum status sim__mkdir(struct env *env, const char *path, struct error *err);
enum status sim__sync_dir(struct env *env, const char *path, struct error *err);
enum status sim__list_dir(struct env *env, const char *path, enum status (*each)(void *context, const char *name),
                          void *context, struct error *err);
enum status sim__lock_file(struct env *env, const char *path, struct env_file **ret_file, struct error *err);
enum status sim__disk_space(struct env *env, const char *path, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes,
                            struct error *err);

/* ---- Files through the page cache (page_cache.c) ---------------------------------------------------------------- */

enum status sim__pread_nowait(struct env_file *file, void *data, size_t len, uint64_t offset, struct error *err);
enum status sim__map(struct env_file *file, size_t len, void **ret_data, struct error *err);
void sim__unmap(struct env_file *file, void *data, size_t len);
/* What the node stored through mappings of this inode (NULL: of all) reaches the live image, unsynced. */
void sim__mappings_store(struct sim_node *node, const struct sim_inode *inode);
/* The live image changed otherwise: its mapping shows it. */
void sim__mappings_load(struct sim_node *node, const struct sim_inode *inode);
/* Maybe stores all, as the kernel does whenever it likes. */
void sim__mappings_write_back(struct sim_node *node);
/* The node crashes: its stores stay in the cache, its mappings go. */
void sim__mappings_drop(struct sim_node *node);

/* ---- Network (network.c, stream.c) ------------------------------------------------------------------------------ */

extern const struct env_transport_ops sim__transport_ops;
struct sim_network *sim__network_new(struct sim *sim);
void sim__network_free(struct sim_network *network);
/* Cuts all ends at this node loose: peers will see a reset or a silence. */
void sim__network_drop(struct sim_node *node, enum sim_crash crash);
/* The node is back: it answers what it doesn't know with a reset. */
void sim__network_node_started(struct sim_node *node);

#endif
