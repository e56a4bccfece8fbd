/*
 * History by time: what was the newest state at any moment of the last history_ms can still be read.
 *
 * The store's horizon is a revision. So a timer notes now and then which revision was the newest, and raises the
 * horizon to the newest note that is old enough. There are so few notes that the history is up to a part in NOTES
 * longer than asked for; none of them outlives the engine, so the time in which it is closed doesn't count, and the
 * horizon rests for history_ms after each opening. With history_revisions besides, the longer of the two histories
 * counts.
 *
 * Under the engine's lock, all of it: the guard of the loop.
 */
#include "storage/engine_internal.h"

enum { NOTES = ENGINE_HISTORY_NOTES - 2, STEP_US_MIN = 10 * 1000 };

static uint64_t history_us(const struct engine *engine) { return engine->options.history_ms * 1000; }

static struct engine__note *note_at(struct engine__history *history, unsigned place) {
    return &history->notes[(history->first + place) % ENGINE_HISTORY_NOTES];
}

/* Reads at the time of the oldest note are for the last time possible: drops those before the newest that is old. */
static void forget(struct engine__history *history, uint64_t old_us) {
    while (history->count >= 2 && note_at(history, 1)->at_us <= old_us) {
        history->first = (history->first + 1) % ENGINE_HISTORY_NOTES;
        history->count--;
    }
}

static void raise_horizon(struct engine *engine, uint64_t revision) {
    uint64_t newest = storage_applied_index(engine->storage);
    uint64_t kept = engine->options.history_revisions;
    uint64_t by_revisions = newest > kept ? newest - kept : 0;
    storage_set_horizon(engine->storage, kept > 0 && by_revisions < revision ? by_revisions : revision);
}

static void take_note(struct engine *engine) {
    struct engine__history *history = &engine->history;
    uint64_t now_us = env_now_us(engine->loop);
    if (now_us >= history_us(engine)) {
        uint64_t old_us = now_us - history_us(engine);
        forget(history, old_us);
        if (history->count > 0 && note_at(history, 0)->at_us <= old_us) {
            raise_horizon(engine, note_at(history, 0)->revision);
        }
    }
    if (history->count < ENGINE_HISTORY_NOTES) { /* always, unless timers come early */
        *note_at(history, history->count) =
            (struct engine__note){.at_us = now_us, .revision = storage_applied_index(engine->storage)};
        history->count++;
    }
}

static enum status arm(struct engine *engine) {
    uint64_t step_us = history_us(engine) / NOTES + 1;
    return env_timer_arm(&engine->history.timer,
                         env_now_us(engine->loop) + (step_us > STEP_US_MIN ? step_us : STEP_US_MIN));
}

static void on_timer(struct env_timer *timer) {
    struct engine *engine = CONTAINER_OF(timer, struct engine, history.timer);
    CHECK(arm(engine) == STATUS_OK); /* its own room among the timers has just become free */
    take_note(engine);
}

void engine__history_init(struct engine *engine) { env_timer_init(&engine->history.timer, engine->loop, on_timer); }

enum status engine__history_start(struct engine *engine, struct error *err) {
    if (engine->options.history_ms == 0) {
        return STATUS_OK;
    }
    take_note(engine);
    return arm(engine) == STATUS_OK ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory to open %s", engine->dir);
}

void engine__history_stop(struct engine *engine) { env_timer_cancel(&engine->history.timer); }
