/*
 * The world behind one vtable: time, timers, randomness, files, streams, workers, threads.
 *
 * Storage, proto and node code touch the outside only through this header. Production (node/env/os) is libuv plus
 * io_uring; the simulator (tests/sim) is virtual time, a disk that loses unsynced bytes and a network that misbehaves.
 * Both run the same code above.
 *
 * Actors. Every thread that runs node code is an `env_loop` with a mailbox. All callbacks of a loop run on its thread,
 * one at a time, never inside the call that asked for them (no re-entrance). Workers run blocking jobs.
 *
 * Turns. A loop works in turns: (1) wait; (2) deliver stream input, timers, file completions, mailbox messages;
 * (3) run deferred tasks of stage PROCESS, then of stage FLUSH, until both are empty; (4) hand file submissions to the
 * kernel in one go. So whoever defers sees everything that was ready before he acts: that is what forms groups.
 *
 * Blocking. Functions under "Blocking files" may block. They may be called only from a worker job, or from a thread
 * that is not running a loop (start-up, tools). The production env asserts it.
 *
 * Memory. Everything is allocated from env->alloc. Objects that callers embed (env_timer, env_task, env_message,
 * env_work, env_io) must stay where they are until their callback ran or they were cancelled.
 */
#ifndef HOLDFAST_ENV_H
#define HOLDFAST_ENV_H

#include "node/base/alloc.h"
#include "node/base/fault.h"
#include "node/base/limits.h"
#include "node/base/list.h"
#include "node/base/slice.h"
#include "node/base/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct env;
struct env_loop;
struct env_file;
struct env_stream;
struct env_listener;
struct env_event;
struct env_mutex;

/* The base of every implementation; a node has one. Immutable after start-up, so any thread may read it. */
struct env {
    const struct env_ops *ops;
    struct alloc *alloc;      /* thread-safe */
    struct fault_set *faults; /* may be NULL */
    uint32_t spin_max;        /* looks at a lock before its thread sleeps; 0 where waiting awake can't help */
};

/* ---- Time and randomness (any thread) ------------------------------------------------------------------------- */

/* Monotonic microseconds, read now. */
uint64_t env_clock_us(struct env *env);
/* Milliseconds since 1970, UTC; for logs and certificates only, never for decisions of the protocol. */
int64_t env_wall_ms(struct env *env);
/* 64 unpredictable bits (in the simulator: from the seed). */
uint64_t env_random(struct env *env);
/* Usable processors, at least 1. */
unsigned env_cpu_count(struct env *env);
/* Ends the process at once with this exit code (in the simulator: crashes the node). Does not return. */
_Noreturn void env_exit(struct env *env, int code);

/* ---- Loops ---------------------------------------------------------------------------------------------------- */

/* mailbox_count_max: messages waiting at most (env_post_bounded). name is copied, for thread names. */
MUST_USE enum status env_loop_new(struct env *env, const char *name, uint32_t mailbox_count_max,
                                  struct env_loop **ret_loop, struct error *err);
/* Runs turns on the calling thread until env_loop_stop. In the simulator returns at once: the simulator runs it. */
void env_loop_run(struct env_loop *loop);
/* Starts a thread that does env_loop_run. */
MUST_USE enum status env_loop_spawn(struct env_loop *loop, struct error *err);
/* Any thread: the loop leaves env_loop_run after this turn. */
void env_loop_stop(struct env_loop *loop);
/* Waits until the spawned thread, if any, has ended. Not from the loop itself. */
void env_loop_join(struct env_loop *loop);
/* After stop (and join), on a thread that runs no loop. Timers, listeners and streams must be gone (streams that finish
 * or close are waited for), and so must everybody who posts to it; messages, jobs and file operations under way end
 * first, their callbacks included. NULL is accepted. */
void env_loop_free(struct env_loop *loop);
/* Before the loop runs. From then on its timers, tasks, messages and ends of work run with the guard held, and whoever
 * holds the guard counts as the owner thread for timers, tasks and env_now_us, not for streams and asynchronous files:
 * what lives on the loop belongs to the holder of a lock instead of one thread. The guard outlives the loop. Callbacks
 * must be short: writers wait for them. */
void env_loop_set_guard(struct env_loop *loop, struct env_mutex *guard);
struct env *env_loop_env(struct env_loop *loop);
/* Monotonic microseconds as of the start of this turn. Owner thread. */
uint64_t env_now_us(struct env_loop *loop);
/* True on the thread that runs this loop. */
bool env_on_loop(struct env_loop *loop);

/* ---- Messages: from any thread to a loop ---------------------------------------------------------------------- */

struct env_message {
    struct env_message *next; /* the mailbox's while queued */
    void (*run)(struct env_message *message);
    bool counted; /* the mailbox's */
};

/* Queues message->run on the loop; order is kept per sender. Never fails: for replies, whose number the request
 * already bounded. */
void env_post(struct env_loop *loop, struct env_message *message);
/* As env_post, for requests: STATUS_BUSY when mailbox_count_max such messages are waiting. */
MUST_USE enum status env_post_bounded(struct env_loop *loop, struct env_message *message);

/* ---- Deferred tasks: owner thread ----------------------------------------------------------------------------- */

enum env_stage {
    ENV_STAGE_PROCESS, /* act on everything that this turn's input brought */
    ENV_STAGE_FLUSH,   /* hand out what processing produced: one write per connection and turn */
    ENV_STAGE_COUNT
};

struct env_task {
    struct list link;
    void (*run)(struct env_task *task);
    bool queued;
};

void env_task_init(struct env_task *task, void (*run)(struct env_task *task));
/* Queued once however often asked, in the stage asked for first. A task may defer itself: it runs again in the same
 * turn. */
void env_defer(struct env_loop *loop, enum env_stage stage, struct env_task *task);
void env_task_cancel(struct env_task *task);

/* ---- Timers: owner thread ------------------------------------------------------------------------------------- */

struct env_timer {
    struct env_loop *loop;
    void (*run)(struct env_timer *timer);
    uint64_t deadline_us;
    uint64_t sequence;  /* ties run in order of arming */
    uint32_t heap_slot; /* 0: not armed */
};

void env_timer_init(struct env_timer *timer, struct env_loop *loop, void (*run)(struct env_timer *timer));
/* One shot, at or after the deadline (env_now_us time; one in the past counts as now). Arming again moves it and can't
 * fail; else STATUS_NO_MEMORY only. */
MUST_USE enum status env_timer_arm(struct env_timer *timer, uint64_t deadline_us);
void env_timer_cancel(struct env_timer *timer);
bool env_timer_is_armed(const struct env_timer *timer);

/* ---- Workers -------------------------------------------------------------------------------------------------- */

enum env_work_class {
    ENV_WORK_SHORT, /* segment preparation, log lines, block reads: milliseconds */
    ENV_WORK_LONG,  /* flush, compaction, recovery: batch priority */
    ENV_WORK_CLASS_COUNT
};

struct env_work {
    void (*run)(struct env_work *work);  /* on a worker; may block */
    void (*done)(struct env_work *work); /* then on `loop`; may free the work */
    struct env_loop *loop;
    struct env_message message; /* the env's */
    struct list link;           /* the env's */
};

/* Never fails; the caller bounds how many he has under way. Jobs of one class start in order of submission, several
 * run at once. */
void env_work_submit(struct env *env, enum env_work_class work_class, struct env_work *work);
/* Sleeps; workers only. */
void env_sleep_us(struct env *env, uint64_t us);

/* ---- Waiting from outside threads (the client library's blocking calls) ------------------------------------------ */

MUST_USE enum status env_event_new(struct env *env, struct env_event **ret_event);
void env_event_free(struct env_event *event);
/* Any thread; wakes the waiter; stays set until a wait consumed it. */
void env_event_set(struct env_event *event);
/* Blocks until set; STATUS_TIMEOUT after timeout_us (UINT64_MAX: for ever). */
MUST_USE enum status env_event_wait(struct env_event *event, uint64_t timeout_us);

/* ---- Locks: for what several threads share and atomics don't cover ----------------------------------------------- */

/* Embedded; not recursive; not fair. Held for a few instructions: never across I/O, an allocation or a callback, since
 * a thread that owns connections may be waiting. 0: free, 1: held, 2: held and somebody sleeps (U. Drepper, "Futexes
 * are tricky"). Any thread, loops included. */
struct env_mutex {
    struct env *env;
    _Atomic uint32_t state;
};

static inline void env_mutex_init(struct env_mutex *mutex, struct env *env) {
    mutex->env = env;
    atomic_init(&mutex->state, 0);
}

void env__mutex_lock_slow(struct env_mutex *mutex);
void env__mutex_unlock_slow(struct env *env, const _Atomic uint32_t *state, uint32_t before);

static inline void env_mutex_lock(struct env_mutex *mutex) {
    uint32_t expected = 0;
    if (__builtin_expect(!atomic_compare_exchange_strong_explicit(&mutex->state, &expected, 1, memory_order_acquire,
                                                                  memory_order_relaxed),
                         0)) {
        env__mutex_lock_slow(mutex);
    }
}

/* The mutex may be gone as soon as another thread could lock it: nothing of it is read afterwards. */
static inline void env_mutex_unlock(struct env_mutex *mutex) {
    struct env *env = mutex->env;
    uint32_t before = atomic_exchange_explicit(&mutex->state, 0, memory_order_release);
    if (__builtin_expect(before != 1, 0)) {
        env__mutex_unlock_slow(env, &mutex->state, before);
    }
}

/* One thread's sleep until another one wakes it: embedded in what queues for something, one per waiting thread.
 *
 *   init -> wait and wake, once each, in any order -> wait returned: may be waited for again
 *
 * What the waker wrote before env_waiter_wake is seen after env_waiter_wait. The waiter may be gone as soon as it was
 * woken. */
struct env_waiter {
    struct env *env;
    _Atomic uint32_t state; /* 0: not woken, 1: sleeps, 2: woken */
};

static inline void env_waiter_init(struct env_waiter *waiter, struct env *env) {
    waiter->env = env;
    atomic_init(&waiter->state, 0);
}

/* Blocks, after a short look whether the wake is there: never on a thread that runs a loop. */
void env_waiter_wait(struct env_waiter *waiter);
/* Any thread, loops included. */
void env_waiter_wake(struct env_waiter *waiter);

/* ---- Large memory (any thread) ----------------------------------------------------------------------------------- */

enum { ENV_HUGE_BYTES = 2 * 1024 * 1024 };

/* Memory of env->alloc for what is walked at random (memtables): from ENV_HUGE_BYTES on it starts at a multiple of
 * ENV_HUGE_BYTES and the kernel is asked to back it with huge pages; less is plain memory. NULL: no memory. */
void *env_huge_alloc(struct env *env, size_t size_bytes);
/* NULL is accepted. */
void env_huge_free(struct env *env, void *data);

/* ---- Blocking files (workers and start-up only) --------------------------------------------------------------- */

enum env_open_flags {
    ENV_OPEN_READ = 1,
    ENV_OPEN_WRITE = 2,
    ENV_OPEN_CREATE = 4,    /* make it if it isn't there; mode 0640 */
    ENV_OPEN_EXCLUSIVE = 8, /* with CREATE: STATUS_EXISTS if it is */
    ENV_OPEN_TRUNCATE = 16,
    ENV_OPEN_DIRECT = 32, /* O_DIRECT; buffers, offsets and lengths are multiples of ENV_BLOCK_BYTES. Falls back to
                             buffered where the file system refuses it */
    ENV_OPEN_STREAM = 64  /* written once, from front to back: env_pwrite has the disk begin with it and waits for what
                             is a few MiB older, so that no sync, of this file or another, meets a large backlog.
                             Nothing is durable by that */
};

enum { ENV_BLOCK_BYTES = 4096 };

MUST_USE enum status env_open(struct env *env, const char *path, unsigned flags, struct env_file **ret_file,
                              struct error *err);
/* Releases the handle whatever happens; no sync. NULL is accepted. */
void env_close(struct env_file *file);
/* The path it was opened by; borrowed. */
const char *env_file_path(const struct env_file *file);
/* Reads up to len bytes; fewer only at the end of the file. Retries interrupted and partial reads. */
MUST_USE enum status env_pread(struct env_file *file, void *data, size_t len, uint64_t offset, size_t *ret_len,
                               struct error *err);
/* As env_pread, but only what needs no waiting: any thread, loops included. STATUS_OK: exactly len bytes, from memory.
 * STATUS_PENDING: some of them aren't there (or lie beyond the end, or the file is direct, or kernel or file system
 * can't say); ask with env_pread or env_io_submit. What was at data is then lost. */
MUST_USE enum status env_pread_nowait(struct env_file *file, void *data, size_t len, uint64_t offset,
                                      struct error *err);
/* Writes all of it, continuing short writes; not durable before a sync. */
MUST_USE enum status env_pwrite(struct env_file *file, const void *data, size_t len, uint64_t offset,
                                struct error *err);
/* As env_pwrite, and these bytes are durable on return, with what is needed to find them: one call. After a failure
 * their fate is unknown: final. */
MUST_USE enum status env_pwrite_dsync(struct env_file *file, const void *data, size_t len, uint64_t offset,
                                      struct error *err);
/* Data and what is needed to find it (fdatasync). After a failure the file's fate is unknown: never call it again. */
MUST_USE enum status env_sync(struct env_file *file, struct error *err);
MUST_USE enum status env_size(struct env_file *file, uint64_t *ret_size_bytes, struct error *err);
MUST_USE enum status env_truncate(struct env_file *file, uint64_t size_bytes, struct error *err);
/* Makes the file at least this long and reserves its space: writing below never meets a full disk. What was not written
 * reads as zeroes. STATUS_NO_SPACE; STATUS_UNSUPPORTED: not here (nothing changed): write zeroes instead. */
MUST_USE enum status env_allocate(struct env_file *file, uint64_t size_bytes, struct error *err);
/* Maps the first len bytes, shared, readable and writable, and loads them. A store is in the page cache at once: it
 * survives the end of the process, but no power loss before env_sync of the file or the kernel's own writing back, page
 * by page in any order. Page-aligned, so that it may be the source of direct writes to another file.
 * The file is open for both, not direct, at least len bytes long (STATUS_INVALID), and every byte was written: a store
 * into a hole on a full disk, or beyond a later truncation, ends the process. STATUS_NO_MEMORY, STATUS_IO. */
MUST_USE enum status env_map(struct env_file *file, size_t len, void **ret_data, struct error *err);
/* Before the file is closed. Nothing is synced. data NULL is accepted. */
void env_unmap(struct env_file *file, void *data, size_t len);
/* Names; none is durable before env_sync_dir of the directory that holds it. */
MUST_USE enum status env_rename(struct env *env, const char *from, const char *to, struct error *err);
MUST_USE enum status env_link(struct env *env, const char *from, const char *to, struct error *err);
/* The name of a file, or an empty directory. */
MUST_USE enum status env_unlink(struct env *env, const char *path, struct error *err);
/* STATUS_EXISTS if it is there already. */
MUST_USE enum status env_mkdir(struct env *env, const char *path, struct error *err);
MUST_USE enum status env_sync_dir(struct env *env, const char *path, struct error *err);
/* Syncs the directory that holds this path: "a/b" -> "a", "b" -> ".", "/b" -> "/"; slashes at the end don't count.
 * STATUS_INVALID: LIMIT_PATH_BYTES or longer. */
MUST_USE enum status env_sync_parent(struct env *env, const char *path, struct error *err);
/* Calls back once per name (not "." and ".."), in memcmp order; stops early when the callback returns not OK. */
MUST_USE enum status env_list_dir(struct env *env, const char *path,
                                  enum status (*each)(void *context, const char *name), void *context,
                                  struct error *err);
/* An exclusive lock that dies with the process; waits up to 1 s for a dying holder, then STATUS_BUSY. Held until the
 * file is closed. Creates the file. */
MUST_USE enum status env_lock_file(struct env *env, const char *path, struct env_file **ret_file, struct error *err);
/* Bytes that we may still write below path, and the size of the whole. */
MUST_USE enum status env_disk_space(struct env *env, const char *path, uint64_t *ret_free_bytes,
                                    uint64_t *ret_total_bytes, struct error *err);
/* For blocking code at a fault hook: sleeps, hangs, exits, or returns the armed error. STATUS_OK nearly always. A hook
 * of kind short is reported as STATUS_IO. */
MUST_USE enum status env_fault_point(struct env *env, enum fault_hook hook, struct error *err);

/* ---- Asynchronous files: owner thread ------------------------------------------------------------------------- */

enum env_io_kind {
    ENV_IO_WRITE,       /* all of it; short writes are continued before done runs */
    ENV_IO_WRITE_DSYNC, /* the same, durable when done runs: one write, one sync */
    ENV_IO_READ,        /* fewer bytes only at the end of the file */
    ENV_IO_SYNC         /* fdatasync */
};

struct env_io {
    enum env_io_kind kind;
    struct env_file *file;
    void *data; /* stays the kernel's until done runs */
    size_t len;
    uint64_t offset;
    enum fault_hook hook; /* FAULT_NONE, or consulted at submission: the env carries the action out */
    void (*done)(struct env_io *io);
    /* Results, valid in done: */
    enum status status;
    size_t done_len;
    struct error error;
    /* The env's: */
    struct env_loop *loop;
    struct list link;
    size_t progress; /* bytes done so far */
    size_t limit;    /* bytes to transfer: len, or less where a fault hook cuts it short */
    bool cut;        /* limit is such a cut: the end is STATUS_IO */
    struct env_timer timer;
    struct env_work work; /* where a thread does it */
};

/* Starts at the end of this turn. len > 0 but for a sync. Completions may come in any order. It can't be cancelled:
 * memory and file must stay until done runs, which is never inside env_io_submit. A failed write or sync is final: its
 * outcome is unknown. */
void env_io_submit(struct env_loop *loop, struct env_io *io);

/* ---- Streams: owner thread ------------------------------------------------------------------------------------ */

enum { ENV_THUMBPRINT_BYTES = 32 };

enum env_certificate_state {
    ENV_CERTIFICATE_NONE,      /* the peer showed none */
    ENV_CERTIFICATE_VALID,     /* signed by our CA and within its dates */
    ENV_CERTIFICATE_UNTRUSTED, /* not signed by our CA */
    ENV_CERTIFICATE_EXPIRED,
    ENV_CERTIFICATE_NOT_YET_VALID
};

/* Who is at the other end. Known from `opened` on. */
struct env_peer {
    char address[LIMIT_ADDRESS_BYTES]; /* "127.0.0.1:41234" */
    enum env_certificate_state certificate;
    uint8_t thumbprint[ENV_THUMBPRINT_BYTES]; /* SHA-256 of the certificate; zero when NONE */
    char subject[LIMIT_NAME_BYTES];           /* common name, for messages only */
};

/* What the owner of a stream supplies. None of them is called from inside an env_stream_* call. */
struct env_stream_handler {
    /* Connected and, with TLS, shaken hands: bytes can flow. */
    void (*opened)(struct env_stream_handler *handler);
    /* Where to put input: at least one byte of room, or len 0 to stop reading until env_stream_resume. */
    void (*room)(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len);
    /* len bytes were put at the start of the last room. */
    void (*received)(struct env_stream_handler *handler, size_t len);
    /* The output queue fell below the low watermark after having been above the high one. */
    void (*drained)(struct env_stream_handler *handler);
    /* Last call, exactly once, also after env_stream_close; err->code is STATUS_OK for an orderly end by the peer or by
     * us. The stream is gone afterwards. */
    void (*closed)(struct env_stream_handler *handler, const struct error *err);
};

enum {
    ENV_STREAM_HIGH_BYTES = 1024 * 1024, /* at or above: the owner should stop producing */
    ENV_STREAM_LOW_BYTES = 256 * 1024
};

/* A way to reach others: plain TCP (node/env/os), TLS over it (proto/tls), the simulated network. */
struct env_transport {
    const struct env_transport_ops *ops;
};

struct env_transport_ops {
    /* Loops of one env may listen on one address: they share its connections. address is "host:port". accepted runs on
     * the loop for each connection; it returns the handler for the new stream, or NULL to refuse it. context is handed
     * back. The listener's actual address is in env_listener_address (port 0 picks). */
    enum status (*listen)(struct env_transport *transport, struct env_loop *loop, const char *address,
                          struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream),
                          void *context, struct env_listener **ret_listener, struct error *err);
    /* Starts connecting; the outcome comes as opened or closed. */
    enum status (*connect)(struct env_transport *transport, struct env_loop *loop, const char *address,
                           struct env_stream_handler *handler, struct env_stream **ret_stream, struct error *err);
};

struct env_stream_ops {
    enum status (*write)(struct env_stream *stream, const struct slice *parts, size_t part_count);
    size_t (*queued_bytes)(const struct env_stream *stream);
    void (*resume)(struct env_stream *stream);
    const struct env_peer *(*peer)(const struct env_stream *stream);
    void (*finish)(struct env_stream *stream);
    void (*close)(struct env_stream *stream);
};

/* The base that implementations embed first. */
struct env_stream {
    const struct env_stream_ops *ops;
};

struct env_listener_ops {
    const char *(*address)(const struct env_listener *listener);
    void (*close)(struct env_listener *listener);
};

struct env_listener {
    const struct env_listener_ops *ops;
};

MUST_USE enum status env_listen(struct env_transport *transport, struct env_loop *loop, const char *address,
                                struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream),
                                void *context, struct env_listener **ret_listener, struct error *err);
MUST_USE enum status env_connect(struct env_transport *transport, struct env_loop *loop, const char *address,
                                 struct env_stream_handler *handler, struct env_stream **ret_stream, struct error *err);
/* Copies the parts into the stream's output; they leave in this turn's FLUSH stage, coalesced. Bounded by the owner,
 * who watches env_stream_queued_bytes. STATUS_CLOSED, STATUS_NO_MEMORY: nothing was taken. */
MUST_USE enum status env_stream_write(struct env_stream *stream, const struct slice *parts, size_t part_count);
/* Bytes accepted and not yet with the kernel. */
size_t env_stream_queued_bytes(const struct env_stream *stream);
/* Reads again after room gave none. */
void env_stream_resume(struct env_stream *stream);
/* Borrowed; lives as long as the stream. */
const struct env_peer *env_stream_peer(const struct env_stream *stream);
/* Orderly end: sends what is queued, close_notify, SHUT_WR, then reads and drops input for a bounded time (2 s, 1 MiB),
 * then closed runs. No more received calls. */
void env_stream_finish(struct env_stream *stream);
/* At once; closed runs later in the same or the next turn. */
void env_stream_close(struct env_stream *stream);
/* "127.0.0.1:4401"; borrowed. */
const char *env_listener_address(const struct env_listener *listener);
/* No accepted calls from now on; frees it. NULL is accepted. */
void env_listener_close(struct env_listener *listener);

/* ---- What an implementation fills in -------------------------------------------------------------------------- */

struct env_ops {
    uint64_t (*clock_us)(struct env *env);
    int64_t (*wall_ms)(struct env *env);
    uint64_t (*random)(struct env *env);
    unsigned (*cpu_count)(struct env *env);
    void (*exit)(struct env *env, int code);

    enum status (*loop_new)(struct env *env, const char *name, uint32_t mailbox_count_max, struct env_loop **ret,
                            struct error *err);
    void (*loop_run)(struct env_loop *loop);
    enum status (*loop_spawn)(struct env_loop *loop, struct error *err);
    void (*loop_stop)(struct env_loop *loop);
    void (*loop_join)(struct env_loop *loop);
    void (*loop_free)(struct env_loop *loop);
    bool (*on_loop)(struct env_loop *loop);
    void (*loop_wake)(struct env_loop *loop); /* any thread: a message was queued, take a turn soon */

    void (*work_submit)(struct env *env, enum env_work_class work_class, struct env_work *work);
    void (*sleep_us)(struct env *env, uint64_t us);
    enum status (*event_new)(struct env *env, struct env_event **ret);
    void (*event_free)(struct env_event *event);
    void (*event_set)(struct env_event *event);
    enum status (*event_wait)(struct env_event *event, uint64_t timeout_us);
    /* Sleeps while *word is `expected`; may return early for no reason. may_block: the caller asserts that he isn't a
     * loop's thread. */
    void (*word_wait)(struct env *env, const _Atomic uint32_t *word, uint32_t expected, bool may_block);
    /* Wakes one sleeper, if there is one. The word's memory may be somebody else's by now: only its address counts. */
    void (*word_wake)(struct env *env, const _Atomic uint32_t *word);
    /* Asks for huge pages; may be NULL. */
    void (*advise_huge)(struct env *env, void *data, size_t size_bytes);

    enum status (*open)(struct env *env, const char *path, unsigned flags, struct env_file **ret, struct error *err);
    void (*close)(struct env_file *file);
    enum status (*pread)(struct env_file *file, void *data, size_t len, uint64_t offset, size_t *ret_len,
                         struct error *err);
    enum status (*pread_nowait)(struct env_file *file, void *data, size_t len, uint64_t offset, struct error *err);
    enum status (*pwrite)(struct env_file *file, const void *data, size_t len, uint64_t offset, struct error *err);
    enum status (*pwrite_dsync)(struct env_file *file, const void *data, size_t len, uint64_t offset,
                                struct error *err);
    enum status (*sync)(struct env_file *file, struct error *err);
    enum status (*size)(struct env_file *file, uint64_t *ret_size_bytes, struct error *err);
    enum status (*truncate)(struct env_file *file, uint64_t size_bytes, struct error *err);
    /* NULL: unsupported. */
    enum status (*allocate)(struct env_file *file, uint64_t size_bytes, struct error *err);
    enum status (*map)(struct env_file *file, size_t len, void **ret_data, struct error *err);
    void (*unmap)(struct env_file *file, void *data, size_t len);
    enum status (*rename)(struct env *env, const char *from, const char *to, struct error *err);
    enum status (*link)(struct env *env, const char *from, const char *to, struct error *err);
    enum status (*unlink)(struct env *env, const char *path, struct error *err);
    enum status (*mkdir)(struct env *env, const char *path, struct error *err);
    enum status (*sync_dir)(struct env *env, const char *path, struct error *err);
    enum status (*list_dir)(struct env *env, const char *path, enum status (*each)(void *context, const char *name),
                            void *context, struct error *err);
    enum status (*lock_file)(struct env *env, const char *path, struct env_file **ret, struct error *err);
    enum status (*disk_space)(struct env *env, const char *path, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes,
                              struct error *err);
    /* Starts io: its hook was consulted already. Transfers limit - progress bytes from progress on, then
     * env__io_finish (env_loop_internal.h), never from inside. */
    void (*io_submit)(struct env_loop *loop, struct env_io *io);
};

/* What env_file implementations embed first. */
struct env_file {
    struct env *env;
    char *path;
};

#endif
