/* See queue.h. */
#include "node/ctl/queue.h"

#include "node/base/check.h"

#include <poll.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

bool ctl_queue_init(struct ctl_queue *queue) {
    atomic_init(&queue->head, NULL);
    queue->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return queue->event >= 0;
}

void ctl_queue_deinit(struct ctl_queue *queue) {
    if (queue->event >= 0) {
        (void)close(queue->event);
        queue->event = -1;
    }
}

void ctl_queue_push(struct ctl_queue *queue, struct ctl_node *node) {
    struct ctl_node *head = atomic_load(&queue->head);
    do {
        node->next = head;
    } while (!atomic_compare_exchange_weak(&queue->head, &head, node));
    if (head == NULL) {
        const uint64_t one = 1;
        ssize_t wrote = write(queue->event, &one, sizeof one);
        CHECK(wrote == (ssize_t)sizeof one);
    }
}

struct ctl_node *ctl_queue_take(struct ctl_queue *queue) {
    uint64_t ignored;
    ssize_t got = read(queue->event, &ignored, sizeof ignored);
    (void)got; /* nothing there is fine */
    struct ctl_node *node = atomic_exchange(&queue->head, NULL);
    struct ctl_node *oldest_first = NULL;
    while (node != NULL) {
        struct ctl_node *next = node->next;
        node->next = oldest_first;
        oldest_first = node;
        node = next;
    }
    return oldest_first;
}

bool ctl_queue_wait(struct ctl_queue *queue, int input, int timeout_ms) {
    struct pollfd waits[2] = {{.fd = queue->event, .events = POLLIN}, {.fd = input, .events = POLLIN}};
    return poll(waits, input >= 0 ? 2 : 1, timeout_ms) > 0 && input >= 0 && waits[1].revents != 0;
}
