/* A played cluster (fake_server.h) over TCP on loopback, on a thread of its own: for tests of what blocks. */
#ifndef HOLDFAST_TESTS_FAKE_THREAD_H
#define HOLDFAST_TESTS_FAKE_THREAD_H

#include "tests/unit/support/fake_server.h"

struct fake_thread {
    struct env *env;
    struct env_loop *loop;
    struct fake_cluster cluster;
    char endpoints[512]; /* "n1=127.0.0.1:port,..." */
    struct env_message message;
    struct env_event *event;
    void (*function)(struct fake_node *node);
    struct fake_node *node;
};

void fake_thread_start(struct fake_thread *thread, uint32_t nodes);
/* Runs the function on the loop; returns when it has run. */
void fake_thread_call(struct fake_thread *thread, void (*function)(struct fake_node *node), uint32_t node);
/* Ends the thread; the store can be looked at until fake_thread_free. */
void fake_thread_stop(struct fake_thread *thread);
void fake_thread_free(struct fake_thread *thread);

#endif
