/*
 * The mailbox between threads: several senders, one loop. Under TSan this is the stress test of one of the three
 * structures that cross threads. Breaks if a message is lost, doubled or overtakes another of its sender, if a wake-up
 * is lost (the loop sleeps on), or if the bound lets more through than it says.
 */
#include "node/env/env_loop_internal.h"
#include "node/env/os/env_os.h"
#include "tests/unit/support/support.h"

#include <pthread.h>
#include <sched.h>

enum { SENDERS = 4, MESSAGES = 20000, SLOTS = 64, BOUND = 50 };

struct sender {
    pthread_t thread;
    int number;
    uint32_t busy_count;
    uint32_t seen; /* the loop's: messages run so far */
    struct slot {
        struct env_message message;
        struct sender *sender;
        uint32_t sequence;
        _Atomic bool is_free;
    } slots[SLOTS];
};

static struct sender senders[SENDERS];
static struct env *env;
static struct env_loop *loop;
static uint32_t counted_peak; /* the loop's */
static uint32_t total;

static void run_slot(struct env_message *message) {
    struct slot *slot = CONTAINER_OF(message, struct slot, message);
    struct sender *sender = slot->sender;
    if (slot->sequence != sender->seen) {
        check_failed(__FILE__, __LINE__, "messages of one sender run in order");
    }
    sender->seen++;
    uint32_t counted = atomic_load(&loop->mailbox.counted);
    counted_peak = counted > counted_peak ? counted : counted_peak;
    atomic_store_explicit(&slot->is_free, true, memory_order_release);
    if (++total == SENDERS * MESSAGES) {
        env_loop_stop(loop);
    }
}

static void *send_all(void *argument) {
    struct sender *sender = argument;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        struct slot *slot = &sender->slots[i % SLOTS];
        while (!atomic_load_explicit(&slot->is_free, memory_order_acquire)) {
            (void)sched_yield();
        }
        atomic_store_explicit(&slot->is_free, false, memory_order_relaxed);
        slot->message.run = run_slot;
        slot->sequence = i;
        if (sender->number % 2 == 0) {
            env_post(loop, &slot->message);
            continue;
        }
        while (env_post_bounded(loop, &slot->message) == STATUS_BUSY) {
            sender->busy_count++;
            (void)sched_yield();
        }
    }
    return NULL;
}

static void test_mailbox_with_many_senders_loses_nothing_and_keeps_order(void **state) {
    (void)state;
    const struct env_os_options options = {.workers_short = 1, .workers_long = 1};
    struct error err;
    assert_int_equal(env_os_new(&options, &env, &err), STATUS_OK);
    assert_int_equal(env_loop_new(env, "mailbox", BOUND, &loop, &err), STATUS_OK);
    for (int i = 0; i < SENDERS; i++) {
        senders[i].number = i;
        for (int k = 0; k < SLOTS; k++) {
            senders[i].slots[k].sender = &senders[i];
            atomic_init(&senders[i].slots[k].is_free, true);
        }
    }
    assert_int_equal(env_loop_spawn(loop, &err), STATUS_OK);
    for (int i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
    }
    for (int i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_join(senders[i].thread, NULL), 0);
    }
    env_loop_join(loop);
    for (int i = 0; i < SENDERS; i++) {
        assert_int_equal(senders[i].seen, MESSAGES);
    }
    assert_int_equal(atomic_load(&loop->mailbox.counted), 0);
    assert_in_range(counted_peak, 0, BOUND + SENDERS); /* a refused sender counts for an instant */
    env_loop_free(loop);
    env_os_free(env);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mailbox_with_many_senders_loses_nothing_and_keeps_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
