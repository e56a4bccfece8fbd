/*
 * What the files of the production environment share. Nothing above node/env/os includes this.
 *
 * One os_env per process or client; one os_loop per actor thread. Lock order: none is held while another is taken.
 */
#ifndef HOLDFAST_ENV_OS_INTERNAL_H
#define HOLDFAST_ENV_OS_INTERNAL_H

#include "node/base/check.h"
#include "node/env/env_loop_internal.h"
#include "node/env/os/env_os.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <uv.h>

/* ---- Workers (workers.c) -------------------------------------------------------------------------------------- */

enum {
    WORKERS_CLASS_SYNC = ENV_WORK_CLASS_COUNT, /* syncs, and writes with one */
    WORKERS_CLASS_IO,                          /* other asynchronous files where there is no ring */
    WORKERS_CLASS_COUNT,
    WORKERS_SYNC_THREADS = 4, /* a process has few files that it syncs by loops: mostly the log */
    WORKERS_IO_THREADS = 4
};

struct os_workers_class {
    struct os_workers *workers;
    struct list queue; /* env_work.link */
    sem_t wake;        /* one for each idle thread that was taken off idle_count */
    pthread_t *threads;
    unsigned thread_count;
    unsigned thread_count_max;
    unsigned idle_count; /* asleep, and nobody has woken them */
};

struct os_workers {
    struct alloc *alloc;
    pthread_mutex_t lock; /* guards all below, and os_loop.work_count */
    pthread_cond_t settled;
    bool stopping;
    struct os_workers_class classes[WORKERS_CLASS_COUNT];
};

MUST_USE enum status os_workers__init(struct os_workers *workers, struct alloc *alloc, unsigned short_count,
                                      unsigned long_count, struct error *err);
/* No job may be left. Joins all threads. */
void os_workers__deinit(struct os_workers *workers);
void os_workers__submit(struct os_workers *workers, unsigned work_class, struct env_work *work);

/* ---- The environment (env_os.c) ------------------------------------------------------------------------------- */

enum { RANDOM_POOL_BYTES = 1024, RING_REASON_BYTES = 128 };

enum os_ring_state { OS_RING_UNTRIED, OS_RING_USED, OS_RING_REFUSED };

struct os_env {
    struct env base;
    struct env_ops ops;
    struct env_transport tcp;
    bool use_ring;
    struct os_workers workers;
    pthread_mutex_t lock; /* guards the rest */
    uint8_t random_pool[RANDOM_POOL_BYTES];
    size_t random_left; /* unused bytes at the front of the pool */
    enum os_ring_state ring_state;
    char ring_reason[RING_REASON_BYTES];
    struct list ports; /* of all loops' listeners: a second one on the same address shares the first one's socket */
};

static inline struct os_env *os_env_of(struct env *env) { return (struct os_env *)(void *)env; }

/* The first answer stays. */
void os_env__set_ring_state(struct os_env *env, enum os_ring_state state, const char *reason);

/* ---- Loops (loop.c) ------------------------------------------------------------------------------------------- */

struct os_ring;

enum { LOOP_NAME_BYTES = 16, LOOP_DROP_BYTES = 16 * 1024 };

struct os_loop {
    struct env_loop base;
    char name[LOOP_NAME_BYTES];
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle;   /* active: the next poll doesn't wait */
    uv_timer_t timer; /* bounds the next poll */
    uv_async_t async; /* wakes the poll from other threads */
    uint64_t timer_deadline_us;
    bool turn_open; /* now_us belongs to this turn */
    _Atomic bool stop;
    bool is_spawned;
    pthread_t thread;
    struct list later; /* env_task: run at the start of the next turn's work */
    struct list streams;
    struct list listeners;
    struct list signals;
    struct os_ring *ring;   /* NULL: reads and plain writes by threads, too */
    uint32_t io_count;      /* asynchronous file operations under way */
    uint32_t resolve_count; /* name resolutions under way */
    uint32_t work_count;    /* jobs whose worker still may touch this loop; os_workers.lock */
    struct env_os_loop_stats stats;
    uint8_t drop[LOOP_DROP_BYTES]; /* where unwanted input goes; never read */
};

static inline struct os_loop *os_loop_of(struct env_loop *loop) { return (struct os_loop *)(void *)loop; }
static inline struct os_env *os_loop__env(struct os_loop *loop) { return os_env_of(loop->base.env); }

enum status os_loop__new(struct env *env, const char *name, uint32_t mailbox_count_max, struct env_loop **ret_loop,
                         struct error *err);
void os_loop__run(struct env_loop *loop);
enum status os_loop__spawn(struct env_loop *loop, struct error *err);
void os_loop__stop(struct env_loop *loop);
void os_loop__join(struct env_loop *loop);
void os_loop__free(struct env_loop *loop);
bool os_loop__is_current(struct env_loop *loop);
void os_loop__wake(struct env_loop *loop);
/* First thing in every libuv callback: the turn gets its time. */
void os_loop__enter(struct os_loop *loop);
/* Runs the task in the next turn, before its messages; env_task_cancel works. */
void os_loop__later(struct os_loop *loop, struct env_task *task);
/* Aborts if this thread runs a loop; what names the call. */
void os_loop__check_may_block(const char *what);
/* True if this thread runs a loop. */
bool os_loop__is_running_here(void);

/* ---- Asynchronous files (thread_io.c, ring.c) ----------------------------------------------------------------- */

/* NULL with a reason if the kernel or its guards refuse. */
struct os_ring *os_ring__new(struct os_loop *loop, char *reason, size_t reason_size);
/* Nothing is under way. Its handles are closed by further turns of libuv's loop; then os_ring__free. */
void os_ring__close(struct os_ring *ring);
void os_ring__free(struct os_ring *ring);
/* A read, or a write without a sync. */
void os_ring__submit(struct os_ring *ring, struct env_io *io);
/* Once per turn: runs what has completed. */
void os_ring__reap(struct os_ring *ring);
/* Once per turn: hands all new operations to the kernel. False if the kernel had no room: again soon. */
bool os_ring__flush(struct os_ring *ring);

void os_thread_io__submit(struct os_loop *loop, struct env_io *io);
void os_io__submit(struct env_loop *loop, struct env_io *io);
void os_io__finish(struct env_io *io, int sys);

/* ---- Blocking files (files.c) --------------------------------------------------------------------------------- */

struct os_file {
    struct env_file base;
    int fd;
    bool is_direct;              /* O_DIRECT took hold */
    bool wants_direct;           /* so everything must be aligned */
    bool is_stream;              /* ENV_OPEN_STREAM */
    _Atomic bool refuses_nowait; /* env_pread_nowait needn't ask any more */
};

static inline struct os_file *os_file_of(struct env_file *file) { return (struct os_file *)(void *)file; }

enum { OS_CHUNK_BYTES = 1 << 30 }; /* of one system call */

/* Aborts if the file is O_DIRECT and these aren't multiples of ENV_BLOCK_BYTES. */
void os_file__check_aligned(const struct os_file *file, const void *data, size_t len, uint64_t offset);
/* What a read that ended at `end_offset` after `got` bytes of a call says: OS_READ_MORE to go on. sys is set for an
 * error. */
enum os_read_answer { OS_READ_MORE, OS_READ_END, OS_READ_ERROR };
enum os_read_answer os_file__after_short_read(const struct os_file *file, size_t got, uint64_t end_offset,
                                              int *ret_sys);
void os_files__fill_ops(struct env_ops *ops);

/* ---- Files through the page cache (page_cache.c) --------------------------------------------------------------- */

enum status os_page_cache__pread_nowait(struct env_file *file, void *data, size_t len, uint64_t offset,
                                        struct error *err);
enum status os_page_cache__map(struct env_file *file, size_t len, void **ret_data, struct error *err);
void os_page_cache__unmap(struct env_file *file, void *data, size_t len);

/* ---- Sleeping on a word, huge pages (word.c) ------------------------------------------------------------------- */

void os_word__wait(struct env *env, const _Atomic uint32_t *word, uint32_t expected, bool may_block);
void os_word__wake(struct env *env, const _Atomic uint32_t *word);
/* How often a thread looks at a word before it sleeps. */
uint32_t os_word__spin_max(unsigned cpu_count);

/* ---- Events (event.c) ----------------------------------------------------------------------------------------- */

enum status os_event__new(struct env *env, struct env_event **ret_event);
void os_event__free(struct env_event *event);
void os_event__set(struct env_event *event);
enum status os_event__wait(struct env_event *event, uint64_t timeout_us);

/* ---- Signals (signals.c) -------------------------------------------------------------------------------------- */

/* Closes all handlers of the loop; further turns of libuv's loop free them. */
void os_signals__close(struct os_loop *loop);

#endif
