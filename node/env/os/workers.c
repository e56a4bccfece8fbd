/*
 * Worker threads, which may block: a queue and threads per class. Threads start when a job finds none idle, up to the
 * class's number; long jobs run at batch priority, syncs in short slices.
 *
 * The first short worker starts with the pool, so that there always is one: a class whose first thread can't be started
 * lends its job to that queue.
 *
 * An idle thread sleeps on its class's semaphore, outside the lock, and who submits takes it off the idle ones before
 * it wakes it: one system call here and one there for each job. (A condition variable made it four or five: its waiter
 * comes back with the lock, which is still held then, and gives that back as one that others wait for.)
 *
 * A worker posts the job's end to the loop and only then takes it off os_loop.work_count: env_loop_free waits for zero,
 * or the wake-up of a worker could meet a loop that is gone.
 */
#include "node/env/os/os_internal.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LONG_NICE = 5, SLICE_NS = 100 * 1000 };

static const char *const class_names[WORKERS_CLASS_COUNT] = {[ENV_WORK_SHORT] = "hf-short",
                                                             [ENV_WORK_LONG] = "hf-long",
                                                             [WORKERS_CLASS_SYNC] = "hf-sync",
                                                             [WORKERS_CLASS_IO] = "hf-file"};

static void lock(struct os_workers *workers) { CHECK(pthread_mutex_lock(&workers->lock) == 0); }
static void unlock(struct os_workers *workers) { CHECK(pthread_mutex_unlock(&workers->lock) == 0); }

/* Applies to the calling thread only. Refused somewhere? Then it runs at normal priority. */
static void lower_priority(void) {
    struct sched_param param = {.sched_priority = 0};
    (void)sched_setscheduler(0, SCHED_BATCH, &param);
    (void)setpriority(PRIO_PROCESS, 0, LONG_NICE);
}

/* Linux's struct sched_attr as it first was, which every kernel takes. */
struct sched_attributes {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns;
    uint64_t deadline_ns;
    uint64_t period_ns;
};

/* Applies to the calling thread only: it asks for the shortest slices, for it computes next to nothing and much waits
 * for it. So it gets its turn soon when it wakes, and no more of the processor than others (Linux 6.12; earlier ones
 * take no notice). */
static void shorten_slice(void) {
    struct sched_attributes attributes = {.size = sizeof attributes,
                                          .policy = SCHED_OTHER,
                                          .runtime_ns = SLICE_NS,
                                          .nice = getpriority(PRIO_PROCESS, 0)};
    (void)syscall(SYS_sched_setattr, 0, &attributes, 0u);
}

static void finish_on_loop(struct env_message *message) {
    struct env_work *work = CONTAINER_OF(message, struct env_work, message);
    work->done(work);
}

static void run_job(struct os_workers *workers, struct env_work *work) {
    struct os_loop *loop = os_loop_of(work->loop); /* the work may be gone once it is posted */
    work->run(work);
    work->message.run = finish_on_loop;
    env_post(&loop->base, &work->message);
    lock(workers);
    CHECK(loop->work_count > 0);
    if (--loop->work_count == 0) {
        CHECK(pthread_cond_broadcast(&workers->settled) == 0);
    }
    unlock(workers);
}

/* Not under the lock. Whoever wakes this thread has taken it off the idle ones. */
static void sleep_until_woken(struct os_workers_class *class) {
    while (sem_wait(&class->wake) != 0) {
        CHECK(errno == EINTR);
    }
}

static void *worker_main(void *argument) {
    struct os_workers_class *class = argument;
    struct os_workers *workers = class->workers;
    long number = class - workers->classes;
    (void)pthread_setname_np(pthread_self(), class_names[number]);
    if (number == WORKERS_CLASS_SYNC) {
        shorten_slice();
    }
    if (number == ENV_WORK_LONG) {
        lower_priority();
    }
    lock(workers);
    for (;;) {
        struct list *node = list_pop_front(&class->queue);
        if (node != NULL) {
            unlock(workers);
            run_job(workers, LIST_ENTRY(node, struct env_work, link));
            lock(workers);
        } else if (workers->stopping) {
            break;
        } else {
            class->idle_count++;
            unlock(workers);
            sleep_until_woken(class);
            lock(workers);
        }
    }
    unlock(workers);
    return NULL;
}

/* Under the lock. Returns an errno. */
static int start_thread(struct os_workers_class *class) {
    CHECK(class->thread_count < class->thread_count_max);
    int result = pthread_create(&class->threads[class->thread_count], NULL, worker_main, class);
    if (result == 0) {
        class->thread_count++;
    }
    return result;
}

void os_workers__submit(struct os_workers *workers, unsigned work_class, struct env_work *work) {
    CHECK(work_class < WORKERS_CLASS_COUNT);
    struct os_workers_class *class = &workers->classes[work_class];
    lock(workers);
    CHECK(!workers->stopping);
    os_loop_of(work->loop)->work_count++;
    if (class->idle_count == 0 && class->thread_count < class->thread_count_max) {
        (void)start_thread(class); /* else an existing one gets to it */
    }
    if (class->thread_count == 0) {
        class = &workers->classes[ENV_WORK_SHORT];
    }
    list_push_back(&class->queue, &work->link);
    bool must_wake = class->idle_count > 0;
    class->idle_count -= must_wake;
    unlock(workers);
    if (must_wake) {
        CHECK(sem_post(&class->wake) == 0);
    }
}

enum status os_workers__init(struct os_workers *workers, struct alloc *alloc, unsigned short_count, unsigned long_count,
                             struct error *err) {
    CHECK(short_count > 0 && long_count > 0);
    memset(workers, 0, sizeof *workers);
    workers->alloc = alloc;
    CHECK(pthread_mutex_init(&workers->lock, NULL) == 0);
    CHECK(pthread_cond_init(&workers->settled, NULL) == 0);
    const unsigned counts[WORKERS_CLASS_COUNT] = {[ENV_WORK_SHORT] = short_count,
                                                  [ENV_WORK_LONG] = long_count,
                                                  [WORKERS_CLASS_SYNC] = WORKERS_SYNC_THREADS,
                                                  [WORKERS_CLASS_IO] = WORKERS_IO_THREADS};
    for (unsigned i = 0; i < WORKERS_CLASS_COUNT; i++) {
        struct os_workers_class *class = &workers->classes[i];
        class->workers = workers;
        class->thread_count_max = counts[i];
        list_init(&class->queue);
        CHECK(sem_init(&class->wake, 0, 0) == 0);
    }
    enum status status = STATUS_OK;
    for (unsigned i = 0; i < WORKERS_CLASS_COUNT && status == STATUS_OK; i++) {
        workers->classes[i].threads = mem_alloc_zero(alloc, counts[i] * sizeof(pthread_t));
        if (workers->classes[i].threads == NULL) {
            status = error_set(err, STATUS_NO_MEMORY, "worker threads: out of memory");
        }
    }
    if (status == STATUS_OK) {
        lock(workers);
        int result = start_thread(&workers->classes[ENV_WORK_SHORT]);
        unlock(workers);
        status = result == 0 ? STATUS_OK : error_set_sys(err, result, "start a worker thread");
    }
    if (status != STATUS_OK) {
        os_workers__deinit(workers);
    }
    return status;
}

void os_workers__deinit(struct os_workers *workers) {
    lock(workers);
    workers->stopping = true;
    for (unsigned i = 0; i < WORKERS_CLASS_COUNT; i++) {
        struct os_workers_class *class = &workers->classes[i];
        CHECK(list_is_empty(&class->queue));
        for (; class->idle_count > 0; class->idle_count--) {
            CHECK(sem_post(&class->wake) == 0);
        }
    }
    unlock(workers);
    for (unsigned i = 0; i < WORKERS_CLASS_COUNT; i++) {
        struct os_workers_class *class = &workers->classes[i];
        for (unsigned k = 0; k < class->thread_count; k++) {
            CHECK(pthread_join(class->threads[k], NULL) == 0);
        }
        mem_free(workers->alloc, class->threads);
        CHECK(sem_destroy(&class->wake) == 0);
    }
    CHECK(pthread_cond_destroy(&workers->settled) == 0);
    CHECK(pthread_mutex_destroy(&workers->lock) == 0);
}
