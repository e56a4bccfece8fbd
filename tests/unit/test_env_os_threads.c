/*
 * The production environment on several threads at once: two loops that talk over TCP and send each other messages,
 * with jobs of both classes, file operations by threads, and an outside thread that waits on an event. For TSan. Breaks
 * if something that belongs to one loop is touched by another thread, if a loop is freed while a worker still wakes
 * it, if two threads are inside one mutex, or if a wake is lost.
 */
#include "node/env/os/env_os.h"
#include "tests/unit/support/support.h"

#include <pthread.h>
#include <string.h>

enum { ROUNDS = 300, JOBS = 200, LOOPS = 20 };

static struct env *env;
static struct env_event *event;
static struct error err;

/* ---- Ping-pong over TCP between two loops --------------------------------------------------------------------------
 */

struct end {
    struct env_stream_handler handler;
    struct env_loop *loop;
    struct env_stream *stream;
    uint8_t room[16];
    int rounds;
    bool is_client;
    struct env_message message;
    struct env_listener *listener;
};

static struct end client, server;

static void say(struct end *end) {
    struct slice part = slice_of("ping", 4);
    enum status status = env_stream_write(end->stream, &part, 1);
    CHECK(status == STATUS_OK);
}

static void on_opened(struct env_stream_handler *handler) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    if (end->is_client) {
        say(end);
    }
}

static void on_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    *ret_data = end->room;
    *ret_len = 4;
}

static void on_received(struct env_stream_handler *handler, size_t len) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    CHECK(len == 4);
    if (end->is_client && ++end->rounds == ROUNDS) {
        env_stream_finish(end->stream);
    } else {
        say(end);
    }
}

static void on_drained(struct env_stream_handler *handler) { (void)handler; }

/* The client tells the server's loop, which closes its listener and wakes the outside thread. */
static void on_server_told(struct env_message *message) {
    (void)message;
    env_listener_close(server.listener);
    env_event_set(event);
}

static void on_closed(struct env_stream_handler *handler, const struct error *error) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    CHECK(error->code == STATUS_OK);
    if (end->is_client) {
        end->message.run = on_server_told;
        env_post(server.loop, &end->message);
    }
}

static struct env_stream_handler *on_accepted(void *context, struct env_stream *stream) {
    (void)context;
    server.stream = stream;
    return &server.handler;
}

static void on_connect(struct env_message *message) {
    (void)message;
    enum status status = env_connect(env_os_tcp(env), client.loop, env_listener_address(server.listener),
                                     &client.handler, &client.stream, NULL);
    CHECK(status == STATUS_OK);
}

static void end_init(struct end *end, const char *name) {
    memset(end, 0, sizeof *end);
    end->handler = (struct env_stream_handler){
        .opened = on_opened, .room = on_room, .received = on_received, .drained = on_drained, .closed = on_closed};
    assert_int_equal(env_loop_new(env, name, 8, &end->loop, &err), STATUS_OK);
}

static void end_deinit(struct end *end) {
    env_loop_stop(end->loop);
    env_loop_join(end->loop);
    env_loop_free(end->loop);
}

static void test_two_loops_talk_over_tcp(void **state) {
    (void)state;
    end_init(&client, "client");
    end_init(&server, "server");
    client.is_client = true;
    assert_int_equal(env_listen(env_os_tcp(env), server.loop, "127.0.0.1:0", on_accepted, NULL, &server.listener, &err),
                     STATUS_OK);
    assert_int_equal(env_loop_spawn(server.loop, &err), STATUS_OK);
    assert_int_equal(env_loop_spawn(client.loop, &err), STATUS_OK);
    client.message.run = on_connect;
    env_post(client.loop, &client.message);
    assert_int_equal(env_event_wait(event, 30u * 1000 * 1000), STATUS_OK);
    end_deinit(&client);
    end_deinit(&server);
    assert_int_equal(client.rounds, ROUNDS);
}

/* ---- Jobs and loops that come and go -------------------------------------------------------------------------------
 */

struct job {
    struct env_work work;
    struct env_loop *loop;
    int value; /* written by the worker, read by the loop: the mailbox orders them */
    int *left;
};

static void run_job(struct env_work *work) { CONTAINER_OF(work, struct job, work)->value = 42; }

static void finish_job(struct env_work *work) {
    struct job *job = CONTAINER_OF(work, struct job, work);
    CHECK(job->value == 42);
    if (--*job->left == 0) {
        env_loop_stop(job->loop);
    }
}

static void test_loop_is_freed_as_soon_as_its_last_job_ended(void **state) {
    (void)state;
    static struct job jobs[JOBS];
    for (int round = 0; round < LOOPS; round++) {
        struct env_loop *loop;
        int left = JOBS;
        assert_int_equal(env_loop_new(env, "jobs", 8, &loop, &err), STATUS_OK);
        for (int i = 0; i < JOBS; i++) {
            jobs[i] =
                (struct job){.work = {.run = run_job, .done = finish_job, .loop = loop}, .loop = loop, .left = &left};
            env_work_submit(env, i % 2 == 0 ? ENV_WORK_SHORT : ENV_WORK_LONG, &jobs[i].work);
        }
        env_loop_run(loop);
        env_loop_free(loop);
        assert_int_equal(left, 0);
    }
}

/* ---- Files by threads ----------------------------------------------------------------------------------------------
 */

struct operation {
    struct env_io io;
    bool done;
};

static void on_done(struct env_io *io) { CONTAINER_OF(io, struct operation, io)->done = true; }

static void test_file_operations_by_threads(void **state) {
    (void)state;
    static uint8_t data[32][512];
    struct operation operations[32] = {0};
    struct env_loop *loop;
    struct env_file *file;
    char *dir = test_dir_new();
    assert_int_equal(env_loop_new(env, "files", 8, &loop, &err), STATUS_OK);
    assert_int_equal(env_open(env, test_path(dir, "a"), ENV_OPEN_READ | ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, &err),
                     STATUS_OK);
    for (int i = 0; i < 32; i++) {
        memset(data[i], i, sizeof data[i]);
        operations[i].io = (struct env_io){.kind = ENV_IO_WRITE,
                                           .file = file,
                                           .data = data[i],
                                           .len = sizeof data[i],
                                           .offset = (uint64_t)i * sizeof data[i],
                                           .hook = FAULT_NONE,
                                           .done = on_done};
        env_io_submit(loop, &operations[i].io);
    }
    for (int i = 0; i < 32; i++) {
        assert_true(test_loop_until_set(loop, &operations[i].done, 10000));
        assert_int_equal(operations[i].io.status, STATUS_OK);
    }
    env_close(file);
    env_loop_free(loop);
    test_dir_remove(dir);
}

static int setup(void **state) {
    (void)state;
    const struct env_os_options options = {.workers_short = 2, .workers_long = 2};
    return env_os_new(&options, &env, &err) == STATUS_OK && env_event_new(env, &event) == STATUS_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    env_event_free(event);
    env_os_free(env);
    return 0;
}

/* ---- Locks --------------------------------------------------------------------------------------------------------
 */

enum { LOCKERS = 4, LOCKS_EACH = 20000, HAND_OVERS = 3000 };

static struct env_mutex mutex;
static uint64_t guarded; /* plain: the mutex orders it */

static void *lock_always(void *context) {
    unsigned *sleepy = context;
    for (unsigned i = 0; i < LOCKS_EACH; i++) {
        env_mutex_lock(&mutex);
        guarded++;
        if (i % 1000 == *sleepy) {
            env_sleep_us(env, 100); /* so that the others have to sleep, too */
        }
        env_mutex_unlock(&mutex);
    }
    return NULL;
}

static void test_mutex_lets_one_thread_in(void **state) {
    (void)state;
    pthread_t threads[LOCKERS];
    unsigned sleepy[LOCKERS];
    env_mutex_init(&mutex, env);
    guarded = 0;
    for (unsigned i = 0; i < LOCKERS; i++) {
        sleepy[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, lock_always, &sleepy[i]), 0);
    }
    for (unsigned i = 0; i < LOCKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(guarded, LOCKERS * LOCKS_EACH);
    assert_int_equal(atomic_load(&mutex.state), 0);
}

/* A queue of writers as an engine has it: the first leads, wakes all that wait and who comes next. Waiters live on
 * their threads' stacks, and are gone once woken. */
struct queued {
    struct env_waiter waiter;
    struct list link;
    uint64_t number; /* given by the leader */
};

static struct list queue;
static bool is_led;
static uint64_t numbers;

static void lead(struct queued *self) {
    for (;;) {
        struct list taken;
        list_init(&taken);
        env_mutex_lock(&mutex);
        list_splice_back(&taken, &queue);
        is_led = !list_is_empty(&taken);
        env_mutex_unlock(&mutex);
        if (list_is_empty(&taken)) {
            return;
        }
        struct list *link;
        while ((link = list_pop_front(&taken)) != NULL) {
            struct queued *other = LIST_ENTRY(link, struct queued, link);
            other->number = ++numbers;
            if (other != self) {
                env_waiter_wake(&other->waiter);
            }
        }
    }
}

static void *queue_always(void *context) {
    (void)context;
    uint64_t last = 0;
    for (unsigned i = 0; i < HAND_OVERS; i++) {
        struct queued self;
        env_waiter_init(&self.waiter, env);
        env_mutex_lock(&mutex);
        list_push_back(&queue, &self.link);
        bool leads = !is_led;
        is_led = true;
        env_mutex_unlock(&mutex);
        if (leads) {
            lead(&self);
        } else {
            env_waiter_wait(&self.waiter);
        }
        CHECK(self.number > last);
        last = self.number;
    }
    return NULL;
}

static void test_waiters_are_woken_once_each_with_what_was_written_for_them(void **state) {
    (void)state;
    pthread_t threads[LOCKERS];
    env_mutex_init(&mutex, env);
    list_init(&queue);
    numbers = 0;
    is_led = false;
    for (unsigned i = 0; i < LOCKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, queue_always, NULL), 0);
    }
    for (unsigned i = 0; i < LOCKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(numbers, LOCKERS * HAND_OVERS);
}

static void test_waiter_woken_first_does_not_sleep(void **state) {
    (void)state;
    struct env_waiter waiter;
    env_waiter_init(&waiter, env);
    for (int i = 0; i < 3; i++) {
        env_waiter_wake(&waiter);
        env_waiter_wait(&waiter);
    }
    assert_int_equal(atomic_load(&waiter.state), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_two_loops_talk_over_tcp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loop_is_freed_as_soon_as_its_last_job_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_operations_by_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mutex_lets_one_thread_in, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiters_are_woken_once_each_with_what_was_written_for_them, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_waiter_woken_first_does_not_sleep, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
