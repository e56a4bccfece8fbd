/* See fake_thread.h. */
#include "tests/unit/support/fake_thread.h"

#include "node/base/check.h"
#include "node/env/os/env_os.h"

static void must(enum status status) { CHECK(status == STATUS_OK); }

void fake_thread_start(struct fake_thread *thread, uint32_t nodes) {
    struct error err;
    const struct env_os_options options = {.use_ring = false, .workers_short = 1, .workers_long = 1};
    memset(thread, 0, sizeof *thread);
    must(env_os_new(&options, &thread->env, &err));
    must(env_loop_new(thread->env, "fake", 1024, &thread->loop, &err));
    must(env_event_new(thread->env, &thread->event));
    fake_cluster_init(&thread->cluster, thread->env, thread->loop, env_os_tcp(thread->env), nodes);
    fake_cluster_start(&thread->cluster, "127.0.0.1:0");
    fake_endpoints(&thread->cluster, thread->endpoints, sizeof thread->endpoints);
    must(env_loop_spawn(thread->loop, &err));
}

static void run_function(struct env_message *message) {
    struct fake_thread *thread = CONTAINER_OF(message, struct fake_thread, message);
    thread->function(thread->node);
    env_event_set(thread->event);
}

void fake_thread_call(struct fake_thread *thread, void (*function)(struct fake_node *node), uint32_t node) {
    thread->function = function;
    thread->node = &thread->cluster.nodes[node];
    thread->message.run = run_function;
    env_post(thread->loop, &thread->message);
    must(env_event_wait(thread->event, UINT64_MAX));
}

static void stop_cluster(struct fake_node *node) { fake_cluster_stop(node->cluster); }

static void nothing(struct fake_node *node) { (void)node; }

void fake_thread_stop(struct fake_thread *thread) {
    fake_thread_call(thread, stop_cluster, 0);
    bool gone = false;
    while (!gone) {
        fake_thread_call(thread, nothing, 0);
        gone = true;
        for (uint32_t i = 0; i < thread->cluster.count; i++) {
            gone = gone && atomic_load(&thread->cluster.nodes[i].open) == 0;
        }
    }
    env_loop_stop(thread->loop);
    env_loop_join(thread->loop);
}

void fake_thread_free(struct fake_thread *thread) {
    fake_cluster_deinit(&thread->cluster);
    env_event_free(thread->event);
    env_loop_free(thread->loop);
    env_os_free(thread->env);
}
