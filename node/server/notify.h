/*
 * What systemd hears from the daemon: ready, a line of status, more time while recovery moves, the watchdog while the
 * node makes progress, stopping. Without a NOTIFY_SOCKET in the environment, nothing.
 *
 * Owner: the consensus loop.
 */
#ifndef HOLDFAST_SERVER_NOTIFY_H
#define HOLDFAST_SERVER_NOTIFY_H

#include "node/env/env.h"

enum { NOTIFY_TEXT_BYTES = 160 };

struct notify_options {
    struct env_loop *loop;
    void *context;
    /* Env clock of the node's last progress; 0: not serving. */
    uint64_t (*progress_us)(void *context);
    /* The status line, asked for once a second while serving. */
    void (*describe)(void *context, char *ret_text, size_t size);
};

struct notify {
    struct notify_options options;
    struct env_timer timer;
    bool enabled;
    uint64_t interval_us;
    uint64_t watchdog_us; /* 0: systemd doesn't watch */
    uint64_t recovered;   /* of the last extension */
    bool stalled;         /* said so */
    char text[NOTIFY_TEXT_BYTES];
};

/* On the thread that will run the loop, or on it. */
void notify_init(struct notify *notify, const struct notify_options *options);
void notify_deinit(struct notify *notify);
/* Recovery got this far: asks for more time if that is further than last time. left_us UINT64_MAX: can't be told. */
void notify_recovering(struct notify *notify, uint64_t done, uint64_t total, uint64_t left_us);
/* READY; the watchdog is fed from now on. STATUS_NO_MEMORY. */
MUST_USE enum status notify_serving(struct notify *notify);
void notify_stopping(struct notify *notify, const char *why);

#endif
