/*
 * Completions from the client library's thread to the command's: a lock-free stack, taken whole, and an eventfd to
 * sleep on, together with input if there is any.
 */
#ifndef HOLDFAST_CTL_QUEUE_H
#define HOLDFAST_CTL_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct ctl_node {
    struct ctl_node *next;
};

struct ctl_queue {
    int event;
    _Atomic(struct ctl_node *) head;
};

/* False: no descriptor is left. */
bool ctl_queue_init(struct ctl_queue *queue);
/* When nobody can push any more: after the handle was closed. */
void ctl_queue_deinit(struct ctl_queue *queue);
/* Any thread. */
void ctl_queue_push(struct ctl_queue *queue, struct ctl_node *node);
/* Everything pushed so far, oldest first; NULL: nothing. */
struct ctl_node *ctl_queue_take(struct ctl_queue *queue);
/* Sleeps until something was pushed, or `input` (-1: none) is readable or at its end, or timeout_ms passed. True: input
 * is ready. */
bool ctl_queue_wait(struct ctl_queue *queue, int input, int timeout_ms);

#endif
