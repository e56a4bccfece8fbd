/*
 * The watchdog is fed only while the node does what it is for: a log that hangs in a write, or an apply queue that
 * stands still, lets it starve, and systemd restarts the node. An idle node counts as making progress
 * (consensus_progress_us).
 */
#include "node/server/notify.h"

#include "node/base/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

enum {
    SECOND_US = 1000 * 1000,
    STATUS_INTERVAL_US = SECOND_US,
    RECOVERY_EXTENSION_US = 120 * 1000 * 1000,
    FEEDS_PER_WATCHDOG = 4
};

static void say_status(struct notify *notify, const char *text) {
    if (strcmp(notify->text, text) != 0) {
        (void)snprintf(notify->text, sizeof notify->text, "%s", text);
        (void)sd_notifyf(0, "STATUS=%s", text);
    }
}

static void on_timer(struct env_timer *timer) {
    struct notify *notify = CONTAINER_OF(timer, struct notify, timer);
    void *context = notify->options.context;
    uint64_t now_us = env_clock_us(env_loop_env(notify->options.loop));
    uint64_t progress_us = notify->options.progress_us(context);
    bool stalled = notify->watchdog_us != 0 && (progress_us == 0 || now_us - progress_us > notify->watchdog_us / 2) &&
                   now_us > progress_us;
    char text[NOTIFY_TEXT_BYTES];
    if (stalled) {
        (void)snprintf(text, sizeof text, "no progress: the log or the applying of entries stands still");
    } else {
        notify->options.describe(context, text, sizeof text);
        if (notify->watchdog_us != 0) {
            (void)sd_notify(0, "WATCHDOG=1");
        }
    }
    say_status(notify, text);
    CHECK(env_timer_arm(timer, env_now_us(notify->options.loop) + notify->interval_us) == STATUS_OK); /* it just ran */
}

void notify_init(struct notify *notify, const struct notify_options *options) {
    *notify = (struct notify){.options = *options, .interval_us = STATUS_INTERVAL_US};
    env_timer_init(&notify->timer, options->loop, on_timer);
    notify->enabled = getenv("NOTIFY_SOCKET") != NULL;
    if (sd_watchdog_enabled(0, &notify->watchdog_us) <= 0) {
        notify->watchdog_us = 0;
    } else if (notify->watchdog_us / FEEDS_PER_WATCHDOG < notify->interval_us) {
        notify->interval_us = notify->watchdog_us / FEEDS_PER_WATCHDOG;
    }
}

void notify_deinit(struct notify *notify) { env_timer_cancel(&notify->timer); }

void notify_recovering(struct notify *notify, uint64_t done, uint64_t total, uint64_t left_us) {
    if (!notify->enabled) {
        return;
    }
    char text[NOTIFY_TEXT_BYTES];
    int used = snprintf(text, sizeof text, "recovering: %" PRIu64 " of %" PRIu64 " log entries applied", done, total);
    if (left_us != UINT64_MAX) {
        (void)snprintf(text + used, sizeof text - (size_t)used, ", about %" PRIu64 " s left",
                       (left_us + SECOND_US - 1) / SECOND_US);
    }
    say_status(notify, text);
    if (done > notify->recovered) {
        notify->recovered = done;
        (void)sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%d", RECOVERY_EXTENSION_US);
    }
}

enum status notify_serving(struct notify *notify) {
    if (!notify->enabled) {
        return STATUS_OK;
    }
    (void)sd_notify(0, "READY=1");
    return env_timer_arm(&notify->timer, env_now_us(notify->options.loop)); /* the first feed at once */
}

void notify_stopping(struct notify *notify, const char *why) {
    env_timer_cancel(&notify->timer);
    if (notify->enabled) {
        (void)sd_notifyf(0, "STOPPING=1\nSTATUS=%s", why);
    }
}
