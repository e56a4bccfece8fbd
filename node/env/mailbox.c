/*
 * A loop's mailbox: messages from any thread, run by the loop.
 *
 * Senders push on a lock-free stack; the loop takes the whole stack with one exchange and turns it round, so that
 * messages of one sender run in the order of sending, and no thread ever waits for another. Only the push that finds
 * the stack empty wakes the loop: every later one is covered by the same wake-up.
 *
 * A message is the sender's until it was pushed, and the loop's from then on: after the push the sender touches neither
 * it nor anything that its run may free.
 */
#include "node/base/check.h"
#include "node/env/env_loop_internal.h"

static void push(struct env_loop *loop, struct env_message *message) {
    struct env_message *head = atomic_load_explicit(&loop->mailbox.head, memory_order_relaxed);
    do {
        message->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&loop->mailbox.head, &head, message, memory_order_release,
                                                    memory_order_relaxed));
    if (head == NULL) {
        loop->env->ops->loop_wake(loop);
    }
}

void env_post(struct env_loop *loop, struct env_message *message) {
    CHECK(message->run != NULL);
    message->counted = false;
    push(loop, message);
}

enum status env_post_bounded(struct env_loop *loop, struct env_message *message) {
    CHECK(message->run != NULL);
    struct env_mailbox *mailbox = &loop->mailbox;
    if (atomic_fetch_add_explicit(&mailbox->counted, 1, memory_order_relaxed) >= mailbox->count_max) {
        (void)atomic_fetch_sub_explicit(&mailbox->counted, 1, memory_order_relaxed);
        return STATUS_BUSY;
    }
    message->counted = true;
    push(loop, message);
    return STATUS_OK;
}

bool env__loop_has_messages(struct env_loop *loop) {
    return atomic_load_explicit(&loop->mailbox.head, memory_order_relaxed) != NULL;
}

/* Takes all that wait, oldest first. */
static struct env_message *take_all(struct env_mailbox *mailbox) {
    struct env_message *newest = atomic_exchange_explicit(&mailbox->head, NULL, memory_order_acquire);
    struct env_message *oldest = NULL;
    while (newest != NULL) {
        struct env_message *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

uint32_t env__loop_run_messages(struct env_loop *loop) {
    uint32_t count = 0;
    struct env_message *message = take_all(&loop->mailbox);
    while (message != NULL) {
        struct env_message *next = message->next;
        if (message->counted) {
            uint32_t before = atomic_fetch_sub_explicit(&loop->mailbox.counted, 1, memory_order_relaxed);
            CHECK(before > 0);
        }
        message->run(message); /* it may be freed by now */
        message = next;
        count++;
    }
    return count;
}
