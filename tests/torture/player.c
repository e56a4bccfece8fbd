/* See player.h: lives, writes, and what doesn't read. */
#include "tests/torture/player_internal.h"

#include "node/base/check.h"
#include "node/base/checksum.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ADOPT_TRIES_MAX = 3 };

static char how_to_repeat[512];

void torture_say_how(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(how_to_repeat, sizeof how_to_repeat, format, arguments);
    va_end(arguments);
}

void torture_fail(const struct torture *torture, const struct player *player, const char *format, ...) {
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    (void)fprintf(stderr, "FAILED %s\n  %s\n", how_to_repeat, message);
    if (player != NULL) {
        char text[96];
        uint32_t at = player->position < player->script.count ? player->position : player->script.count - 1;
        (void)fprintf(stderr, "  actor %u, operation %u: %s; writes begun %u, acknowledged %u, durable %u\n",
                      player->script.actor, at, operation_text(&player->script.operations[at], text), player->begun,
                      player->acknowledged, player->durable);
    }
    if (torture != NULL && torture->explain != NULL) {
        torture->explain(torture);
    }
    (void)fflush(stderr);
    _exit(1);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

void torture_remove_tree(const char *dir) { (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

/* ---- Life ------------------------------------------------------------------------------------------------------- */

void player_init(struct torture *torture, unsigned actor, uint64_t seed, const struct script_profile *profile,
                 uint32_t operations) {
    struct player *player = &torture->players[actor];
    memset(player, 0, sizeof *player);
    player->torture = torture;
    struct operation *list = calloc(operations, sizeof *list);
    CHECK(list != NULL);
    script_make(&player->script, actor, seed, profile, list, operations);
    player->digests = calloc((size_t)(player->script.writes + 1) * TORTURE_EFFECTS_MAX, sizeof *player->digests);
    CHECK(player->digests != NULL);
    torture->player_count = actor + 1 > torture->player_count ? actor + 1 : torture->player_count;
}

void player_deinit(struct player *player) {
    free(player->script.operations);
    free(player->digests);
    player->script.operations = NULL;
    player->digests = NULL;
}

void player_forget(struct player *player) { memset(player->slots, 0, sizeof player->slots); }

void player_let_go(struct player *player) {
    for (unsigned i = 0; i < TORTURE_SLOTS; i++) {
        player__check_snapshot(player, i);
        engine_snapshot_release(player->torture->engine, player->slots[i].snapshot);
        player->slots[i].snapshot = NULL;
    }
}

uint64_t player__digest(struct player *player, uint32_t id) {
    if (id == 0) {
        return 0;
    }
    if (player->digests[id] == 0) {
        uint8_t *bytes = malloc(TORTURE_VALUE_BYTES_MAX);
        CHECK(bytes != NULL);
        player->digests[id] = player__digest_of(script_value(&player->script, id, bytes));
        free(bytes);
    }
    return player->digests[id];
}

uint64_t player__digest_of(struct slice value) {
    uint64_t digest = checksum64(value.data == NULL ? (const uint8_t *)"" : value.data, value.len, 1);
    return digest == 0 ? 1 : digest;
}

bool player_failed(struct player *player, enum status status, const struct error *err, const char *what) {
    if (status == STATUS_OK) {
        return false;
    }
    if ((player->torture->may_fail >> (unsigned)status & 1) == 0) {
        torture_fail(player->torture, player, "%s: %s: %s", what, status_name(status), err->message);
    }
    player->torture->failures++;
    return true;
}

/* ---- What a restart has left ------------------------------------------------------------------------------------ */

struct found {
    uint64_t digests[TORTURE_KEYS];
};

/* False if it couldn't be read. */
static bool read_everything(struct player *player, struct found *found) {
    struct error err;
    struct engine_iterator *iterator = NULL;
    struct bounds bounds;
    memset(found, 0, sizeof *found);
    player__bounds(player, 0, TORTURE_KEYS, &bounds);
    const struct engine_iterator_options options = {.lower = bounds.lower, .upper = bounds.upper};
    enum status status = engine_iterator_new(player->torture->engine, &options, &iterator, &err);
    if (status == STATUS_OK) {
        status = engine_iterator_first(iterator, &err);
    }
    for (; status == STATUS_OK; status = engine_iterator_next(iterator, &err)) {
        unsigned place = script_place(player->script.actor, engine_iterator_key(iterator));
        if (place == TORTURE_KEYS || found->digests[place] != 0) {
            torture_fail(player->torture, player,
                         "after a restart there is a key that was never written, or one twice");
        }
        struct slice value;
        status = engine_iterator_value(iterator, &value, &err);
        if (status != STATUS_OK) {
            break;
        }
        found->digests[place] = player__digest_of(value);
    }
    engine_iterator_free(iterator);
    return status == STATUS_NOT_FOUND || !player_failed(player, status, &err, "reading after a restart");
}

static bool matches(struct player *player, const struct model *model, const struct found *found) {
    for (unsigned place = 0; place < TORTURE_KEYS; place++) {
        if (player__digest(player, model->ids[place]) != found->digests[place]) {
            return false;
        }
    }
    return true;
}

/* For the message: which values are there, and from which write. */
static void describe(struct player *player, const struct found *found) {
    for (unsigned place = 0; place < TORTURE_KEYS; place++) {
        uint32_t id = 0;
        for (uint32_t i = TORTURE_EFFECTS_MAX;
             found->digests[place] != 0 && id == 0 && i < (player->begun + 1) * TORTURE_EFFECTS_MAX; i++) {
            id = player__digest(player, i) == found->digests[place] ? i : 0;
        }
        struct model least;
        struct model most;
        model_after(&least, &player->script, player->durable);
        model_after(&most, &player->script, player->acknowledged);
        if (id != least.ids[place] || id != most.ids[place]) {
            (void)fprintf(stderr, "  key %u: found value of write %u.%u%s; durable %u, acknowledged %u\n", place,
                          id / TORTURE_EFFECTS_MAX, id % TORTURE_EFFECTS_MAX,
                          found->digests[place] != 0 && id == 0 ? " (of none!)" : "",
                          least.ids[place] / TORTURE_EFFECTS_MAX, most.ids[place] / TORTURE_EFFECTS_MAX);
        }
    }
}

/* Where the script goes on after so many writes. */
static uint32_t position_behind(const struct player *player, uint32_t writes) {
    uint32_t position = 0;
    for (uint32_t done = 0; done < writes; position++) {
        done += player->script.operations[position].write != 0;
    }
    return position;
}

void player_adopt(struct player *player, uint32_t least) {
    struct found found;
    struct model model;
    for (unsigned i = 0; !read_everything(player, &found); i++) {
        if (i == ADOPT_TRIES_MAX) {
            return;
        }
    }
    model_after(&model, &player->script, least);
    uint32_t position = position_behind(player, least);
    uint32_t writes = least;
    player->torture->checks += TORTURE_KEYS;
    while (!matches(player, &model, &found)) {
        while (position < player->script.count && player->script.operations[position].write == 0) {
            position++;
        }
        if (writes == player->begun || position == player->script.count) {
            describe(player, &found);
            torture_fail(player->torture, player,
                         "what is there isn't what writes 1 to n left, for any n from %u to %u", least, player->begun);
        }
        model_apply(&model, &player->script.operations[position++]);
        writes++;
    }
    player->now = model;
    player->position = position_behind(player, writes);
    player->begun = writes;
    player->acknowledged = writes;
    player->durable = writes; /* the opening has made it so */
    player->refused = false;
    player->doubt = false;
    player->adopted = true;
}

/* ---- Writes ----------------------------------------------------------------------------------------------------- */

static enum status write_effect(struct player *player, const struct effect *effect, bool sync, struct error *err) {
    const struct engine_write_options options = {.sync = sync};
    struct engine *engine = player->torture->engine;
    uint8_t keys[2][TORTURE_KEY_BYTES_MAX];
    struct slice from = script_key(player->script.actor, effect->from, keys[0]);
    if (effect->kind == EFFECT_DELETE) {
        return engine_delete(engine, &options, from, err);
    }
    if (effect->kind == EFFECT_DELETE_RANGE) {
        return engine_delete_range(engine, &options, from, player__end_key(player, effect->to, keys[1]), err);
    }
    uint8_t *bytes = malloc(TORTURE_VALUE_BYTES_MAX);
    CHECK(bytes != NULL);
    enum status status = engine_put(engine, &options, from, script_value(&player->script, effect->id, bytes), err);
    free(bytes);
    return status;
}

static enum status batch_effect(struct player *player, struct engine_batch *batch, const struct effect *effect) {
    uint8_t keys[2][TORTURE_KEY_BYTES_MAX];
    struct slice from = script_key(player->script.actor, effect->from, keys[0]);
    if (effect->kind == EFFECT_DELETE) {
        return engine_batch_delete(batch, from);
    }
    if (effect->kind == EFFECT_DELETE_RANGE) {
        return engine_batch_delete_range(batch, from, player__end_key(player, effect->to, keys[1]));
    }
    uint8_t *bytes = malloc(TORTURE_VALUE_BYTES_MAX);
    CHECK(bytes != NULL);
    enum status status = engine_batch_put(batch, from, script_value(&player->script, effect->id, bytes));
    free(bytes);
    return status;
}

static enum status write_batch(struct player *player, const struct operation *operation, struct error *err) {
    const struct engine_write_options options = {.sync = operation->sync};
    struct effect effects[TORTURE_EFFECTS_MAX];
    unsigned count = operation_effects(operation, effects);
    struct engine_batch *batch = engine_batch_new(NULL);
    CHECK(batch != NULL);
    for (unsigned i = 0; i < count; i++) {
        CHECK(batch_effect(player, batch, &effects[i]) == STATUS_OK);
    }
    enum status status = engine_write(player->torture->engine, &options, batch, err);
    engine_batch_free(batch);
    return status;
}

struct marks {
    uint32_t acknowledged[TORTURE_ACTORS_MAX];
};

static void take_marks(const struct player *player, struct marks *marks) {
    for (unsigned i = 0; i < player->torture->player_count; i++) {
        marks->acknowledged[i] = player->torture->players[i].acknowledged;
    }
}

/* All that was acknowledged when the sync began is durable. */
static void raise_durable(struct player *player, const struct marks *marks) {
    for (unsigned i = 0; i < player->torture->player_count; i++) {
        struct player *other = &player->torture->players[i];
        if (marks->acknowledged[i] > other->durable) {
            other->durable_before = other->durable;
            other->durable = marks->acknowledged[i];
        }
    }
}

/* If it isn't there, it may yet come: its outcome is unknown, and may be that it happens a little later. */
void player__resolve_doubt(struct player *player) {
    struct model with = player->now;
    struct found found;
    if (!player->doubt || !read_everything(player, &found)) {
        return;
    }
    model_apply(&with, &player->script.operations[player->doubtful]);
    if (matches(player, &with, &found)) {
        player->doubt = false;
        player->now = with;
    } else if (!matches(player, &player->now, &found)) {
        describe(player, &found);
        torture_fail(player->torture, player, "a write that failed has left something else than all or nothing");
    }
}

/* What failed: surely not done, or in doubt; then it shows whether it was. */
static void settle_failure(struct player *player, struct operation *operation, enum status status) {
    if (player->refused) {
        operation->dead = true;
        if (status != STATUS_FAILED) {
            torture_fail(player->torture, player, "a write after STATUS_FAILED gives %s", status_name(status));
        }
        return;
    }
    if (status == STATUS_NO_MEMORY || status == STATUS_NO_SPACE) {
        operation->dead = true;
        player->acknowledged = operation->write; /* as nothing */
        return;
    }
    player->refused = true;
    player->doubt = true;
    player->doubtful = player->position;
    player__resolve_doubt(player);
}

static void perform_write(struct player *player, struct operation *operation) {
    struct error err;
    struct marks marks;
    enum status status;
    error_clear(&err);
    take_marks(player, &marks);
    if (!player->refused) {
        player->begun = operation->write;
    }
    if (operation->kind == OPERATION_BATCH) {
        status = write_batch(player, operation, &err);
    } else {
        struct effect effects[TORTURE_EFFECTS_MAX];
        (void)operation_effects(operation, effects);
        status = write_effect(player, &effects[0], operation->sync, &err);
    }
    if (player_failed(player, status, &err, "a write")) {
        settle_failure(player, operation, status);
        return;
    }
    if (player->refused) {
        torture_fail(player->torture, player, "a write succeeded after one that failed for good");
    }
    model_apply(&player->now, operation);
    player->acknowledged = operation->write;
    if (operation->sync) {
        marks.acknowledged[player->script.actor] = operation->write;
        raise_durable(player, &marks);
    }
}

/* ---- Upkeep ----------------------------------------------------------------------------------------------------- */

static void perform_sync(struct player *player, bool flush) {
    struct error err;
    struct marks marks;
    error_clear(&err);
    take_marks(player, &marks);
    enum status status =
        flush ? engine_flush(player->torture->engine, &err) : engine_sync(player->torture->engine, &err);
    if (!player_failed(player, status, &err, flush ? "a flush" : "a sync")) {
        raise_durable(player, &marks);
    } else if (status == STATUS_FAILED || status == STATUS_IO) {
        player->refused = player->refused || status == STATUS_FAILED;
    }
}

static void perform_compact(struct player *player, const struct operation *operation) {
    struct error err;
    struct bounds bounds;
    error_clear(&err);
    player__bounds(player, operation->from, operation->to, &bounds);
    enum status status = engine_compact_range(player->torture->engine, bounds.lower, bounds.upper, &err);
    (void)player_failed(player, status, &err, "a compaction");
}

static void perform_snapshot(struct player *player, const struct operation *operation) {
    unsigned slot = operation->slot % TORTURE_SLOTS;
    player__check_snapshot(player, slot);
    engine_snapshot_release(player->torture->engine, player->slots[slot].snapshot);
    player->slots[slot].snapshot = NULL;
    player__resolve_doubt(player);
    if (operation->kind == OPERATION_RELEASE || player->doubt) {
        return;
    }
    player->slots[slot].snapshot = engine_snapshot_new(player->torture->engine);
    player->slots[slot].model = player->now;
    if (player->slots[slot].snapshot == NULL) {
        struct error err;
        (void)player_failed(player, error_set(&err, STATUS_NO_MEMORY, "no snapshot"), &err, "a snapshot");
    }
}

bool player_step(struct player *player) {
    if (!player->adopted || player->position >= player->script.count) {
        return false;
    }
    struct operation *operation = &player->script.operations[player->position];
    switch (operation->dead ? OPERATION_KINDS : operation->kind) {
    case OPERATION_KINDS: break;
    case OPERATION_SYNC: perform_sync(player, false); break;
    case OPERATION_FLUSH: perform_sync(player, true); break;
    case OPERATION_COMPACT: perform_compact(player, operation); break;
    case OPERATION_SNAPSHOT:
    case OPERATION_RELEASE: perform_snapshot(player, operation); break;
    default:
        if (operation->write != 0) {
            perform_write(player, operation);
        } else {
            player__read(player, operation);
        }
    }
    player->position++;
    if (player->torture->stepped != NULL) {
        player->torture->stepped(player->torture, player);
    }
    return true;
}
