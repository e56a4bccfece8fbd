/*
 * Sleeping on a word of memory: the kernel's futex, private to the process. Everything else about locks is in env.c.
 *
 * A wake may reach a word whose memory has been freed, or is used for something else: whoever sleeps on a word must
 * look again when he wakes up, and wakes never read it.
 */
#include "node/env/os/os_internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About two microseconds: as long as a sleep and a wake cost. */
enum { SPIN_MAX = 100 };

uint32_t os_word__spin_max(unsigned cpu_count) { return cpu_count > 1 ? SPIN_MAX : 0; }

void os_word__wait(struct env *env, const _Atomic uint32_t *word, uint32_t expected, bool may_block) {
    (void)env;
    if (may_block) {
        os_loop__check_may_block("env_waiter_wait");
    }
    long result = syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
    CHECK(result == 0 || errno == EAGAIN || errno == EINTR);
}

void os_word__wake(struct env *env, const _Atomic uint32_t *word) {
    (void)env;
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
