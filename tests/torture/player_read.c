/* Reads of a player: gets, scans both ways, and walks of an iterator that turns at random; each against the model. */
#include "tests/torture/player_internal.h"

#include "node/base/check.h"
#include "node/base/checksum.h"

#include <stdlib.h>
#include <string.h>

enum { READAHEAD_BYTES = 64 * KIB };

/* ---- Where and against what ------------------------------------------------------------------------------------- */

struct slice player__end_key(const struct player *player, unsigned place, uint8_t out[TORTURE_KEY_BYTES_MAX]) {
    if (place < TORTURE_KEYS) {
        return script_key(player->script.actor, place, out);
    }
    out[0] = (uint8_t)('A' + player->script.actor + 1);
    return slice_of(out, 1);
}

void player__bounds(const struct player *player, unsigned from, unsigned to, struct bounds *bounds) {
    bounds->lower = script_key(player->script.actor, from, bounds->bytes[0]);
    bounds->upper = player__end_key(player, to, bounds->bytes[1]);
}

/* The newest state; a snapshot's; or that of a revision, which a snapshot that is held keeps readable. */
struct source {
    const struct model *model;
    const struct engine_snapshot *snapshot; /* or NULL */
    uint64_t revision;                      /* or 0 */
    const char *text;                       /* for messages */
};

static struct source newest(const struct player *player) { return (struct source){&player->now, NULL, 0, ""}; }

static struct source source_of(const struct player *player, const struct operation *operation) {
    const struct engine_snapshot *snapshot =
        operation->slot < TORTURE_SLOTS ? player->slots[operation->slot].snapshot : NULL;
    if (snapshot == NULL) {
        return newest(player);
    }
    const struct model *model = &player->slots[operation->slot].model;
    uint64_t revision = engine_snapshot_revision(snapshot); /* 0: before the first write, only a snapshot shows it */
    return revision > 0 && (operation->salt >> 50) % 2 == 1
               ? (struct source){model, NULL, revision, " at the revision of a snapshot"}
               : (struct source){model, snapshot, 0, " at a snapshot"};
}

static void note_answer(struct player *player, unsigned place, uint64_t digest) {
    uint64_t words[3] = {player->answers, place, digest};
    player->answers = checksum64(words, sizeof words, 2);
    player->torture->checks++;
}

/* ---- Gets ------------------------------------------------------------------------------------------------------- */

static void compare_value(struct player *player, const struct source *source, unsigned place, enum status status,
                          struct slice value) {
    uint32_t id = source->model->ids[place];
    uint64_t digest = status == STATUS_OK ? player__digest_of(value) : 0;
    if (digest != player__digest(player, id)) {
        torture_fail(player->torture, player, "a get%s of key %u gives %s of %zu bytes; write %u.%u is right",
                     source->text, place, status_name(status), value.len, id / TORTURE_EFFECTS_MAX,
                     id % TORTURE_EFFECTS_MAX);
    }
    note_answer(player, place, digest);
}

static void get_one(struct player *player, const struct source *source, unsigned place) {
    const struct engine_read_options options = {.snapshot = source->snapshot, .revision = source->revision};
    struct engine_value value = {.revision = 0};
    struct error err;
    uint8_t bytes[TORTURE_KEY_BYTES_MAX];
    error_clear(&err);
    enum status status =
        engine_get(player->torture->engine, &options, script_key(player->script.actor, place, bytes), &value, &err);
    if (status == STATUS_NOT_FOUND || !player_failed(player, status, &err, "a get")) {
        compare_value(player, source, place, status, value.bytes);
    }
    if (status == STATUS_OK) {
        engine_value_release(&value);
    }
}

/* ---- Iterators -------------------------------------------------------------------------------------------------- */

struct walk {
    struct player *player;
    struct source source;
    struct engine_iterator *iterator;
    struct bounds bounds;
    unsigned from;
    unsigned to;
    unsigned place; /* where it must stand; TORTURE_KEYS: nowhere */
    bool keys_only;
    bool failed;
};

static bool walk_begin(struct walk *walk, struct player *player, const struct operation *operation) {
    struct error err;
    walk->player = player;
    walk->source = source_of(player, operation);
    walk->from = operation->from;
    walk->to = operation->to;
    walk->place = TORTURE_KEYS;
    walk->keys_only = (operation->salt >> 40) % 8 == 1;
    walk->failed = false;
    player__bounds(player, walk->from, walk->to, &walk->bounds);
    const struct engine_iterator_options options = {.snapshot = walk->source.snapshot,
                                                    .revision = walk->source.revision,
                                                    .lower = walk->bounds.lower,
                                                    .upper = walk->bounds.upper,
                                                    .keys_only = walk->keys_only,
                                                    .passing = (operation->salt >> 43) % 4 == 1,
                                                    .readahead_bytes_max =
                                                        (operation->salt >> 45) % 4 == 1 ? READAHEAD_BYTES : 0};
    error_clear(&err);
    return !player_failed(player, engine_iterator_new(player->torture->engine, &options, &walk->iterator, &err), &err,
                          "an iterator");
}

/* A move has ended: is it where the model says? */
static void walk_compare(struct walk *walk, unsigned want, enum status status, const struct error *err,
                         const char *what) {
    struct player *player = walk->player;
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        walk->failed = player_failed(player, status, err, what);
        return;
    }
    unsigned place = TORTURE_KEYS;
    uint64_t digest = 0;
    if (status == STATUS_OK) {
        place = script_place(player->script.actor, engine_iterator_key(walk->iterator));
        struct slice value;
        struct error value_err;
        if (!walk->keys_only &&
            player_failed(player, engine_iterator_value(walk->iterator, &value, &value_err), &value_err, "a value")) {
            walk->failed = true;
            return;
        }
        digest = walk->keys_only ? 0 : player__digest_of(value);
    }
    if (place != want) {
        torture_fail(player->torture, player, "%s of an iterator over [%u, %u)%s from %u leads to %u; %u is right",
                     what, walk->from, walk->to, walk->source.text, walk->place, place, want);
    }
    if (want != TORTURE_KEYS && !walk->keys_only && digest != player__digest(player, walk->source.model->ids[want])) {
        torture_fail(player->torture, player, "%s of an iterator over [%u, %u)%s shows a wrong value at key %u", what,
                     walk->from, walk->to, walk->source.text, want);
    }
    walk->place = want;
    note_answer(player, place, digest);
}

static void walk_first(struct walk *walk) {
    struct error err;
    unsigned want = model_next(walk->source.model, (int)walk->from, 1, walk->from, walk->to);
    walk_compare(walk, want, engine_iterator_first(walk->iterator, &err), &err, "first");
}

static void walk_next(struct walk *walk) {
    struct error err;
    unsigned want = model_next(walk->source.model, (int)walk->place + 1, 1, walk->from, walk->to);
    walk_compare(walk, want, engine_iterator_next(walk->iterator, &err), &err, "next");
}

static void walk_seek(struct walk *walk, unsigned place) {
    struct error err;
    uint8_t bytes[TORTURE_KEY_BYTES_MAX];
    int from = place < walk->from ? (int)walk->from : (int)place;
    unsigned want = model_next(walk->source.model, from, 1, walk->from, walk->to);
    struct slice key = script_key(walk->player->script.actor, place, bytes);
    walk_compare(walk, want, engine_iterator_seek(walk->iterator, key, &err), &err, "seek");
}

static void scan_forward(struct player *player, const struct operation *operation) {
    struct walk walk;
    if (walk_begin(&walk, player, operation)) {
        walk_first(&walk);
        while (!walk.failed && walk.place != TORTURE_KEYS) {
            walk_next(&walk);
        }
        engine_iterator_free(walk.iterator);
    }
}

static void walk_last(struct walk *walk) {
    struct error err;
    unsigned want = model_next(walk->source.model, (int)walk->to - 1, -1, walk->from, walk->to);
    walk_compare(walk, want, engine_iterator_last(walk->iterator, &err), &err, "last");
}

static void walk_prev(struct walk *walk) {
    struct error err;
    unsigned want = model_next(walk->source.model, (int)walk->place - 1, -1, walk->from, walk->to);
    walk_compare(walk, want, engine_iterator_prev(walk->iterator, &err), &err, "prev");
}

static void walk_seek_for_prev(struct walk *walk, unsigned place) {
    struct error err;
    uint8_t bytes[TORTURE_KEY_BYTES_MAX];
    int from = place >= walk->to ? (int)walk->to - 1 : (int)place;
    unsigned want = model_next(walk->source.model, from, -1, walk->from, walk->to);
    struct slice key = script_key(walk->player->script.actor, place, bytes);
    walk_compare(walk, want, engine_iterator_seek_for_prev(walk->iterator, key, &err), &err, "seek for prev");
}

static void scan_backward(struct player *player, const struct operation *operation) {
    struct walk walk;
    if (walk_begin(&walk, player, operation)) {
        walk_last(&walk);
        while (!walk.failed && walk.place != TORTURE_KEYS) {
            walk_prev(&walk);
        }
        engine_iterator_free(walk.iterator);
    }
}

enum { WALK_MOVES = 24 };

static void walk_about(struct player *player, const struct operation *operation) {
    struct walk walk;
    struct random random;
    random_seed(&random, operation->salt);
    if (!walk_begin(&walk, player, operation)) {
        return;
    }
    for (unsigned i = 0; i < WALK_MOVES && !walk.failed; i++) {
        bool stands = walk.place != TORTURE_KEYS;
        unsigned place = (unsigned)random_below(&random, TORTURE_KEYS);
        switch (random_below(&random, stands ? 12 : 4)) {
        case 0: walk_first(&walk); break;
        case 1: walk_seek(&walk, place); break;
        case 2: walk_last(&walk); break;
        case 3: walk_seek_for_prev(&walk, place); break;
        case 4:
        case 5:
        case 6:
        case 7: walk_prev(&walk); break;
        default: walk_next(&walk); break;
        }
    }
    engine_iterator_free(walk.iterator);
}

enum { KEYS_AT_ONCE_MAX = 16 };

/* ---- Several keys at once --------------------------------------------------------------------------------------- */

/* The keys have memory of their own: other players, fibers of this thread, go on while one waits for the disk. */
static void multi_get(struct player *player, const struct operation *operation) {
    struct source source = source_of(player, operation);
    const struct engine_read_options options = {.snapshot = source.snapshot, .revision = source.revision};
    struct random random;
    uint8_t *bytes = malloc((size_t)KEYS_AT_ONCE_MAX * TORTURE_KEY_BYTES_MAX);
    struct slice keys[KEYS_AT_ONCE_MAX];
    unsigned places[KEYS_AT_ONCE_MAX];
    struct engine_value values[KEYS_AT_ONCE_MAX];
    enum status statuses[KEYS_AT_ONCE_MAX];
    struct error err;
    CHECK(bytes != NULL);
    random_seed(&random, operation->salt);
    size_t count = 1 + (size_t)random_below(&random, KEYS_AT_ONCE_MAX);
    for (size_t i = 0; i < count; i++) {
        places[i] = (unsigned)random_below(&random, TORTURE_KEYS);
        keys[i] = script_key(player->script.actor, places[i], bytes + i * TORTURE_KEY_BYTES_MAX);
    }
    error_clear(&err);
    memset(values, 0, sizeof values);
    enum status status = engine_multi_get(player->torture->engine, &options, count, keys, values, statuses, &err);
    free(bytes);
    if (player_failed(player, status, &err, "a multi-get") && status == STATUS_NO_MEMORY) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (statuses[i] == STATUS_OK || statuses[i] == STATUS_NOT_FOUND) {
            compare_value(player, &source, places[i], statuses[i], values[i].bytes);
        } else if (status == STATUS_OK) {
            torture_fail(player->torture, player, "a multi-get says ok, and %s of a key", status_name(statuses[i]));
        }
        if (statuses[i] == STATUS_OK) {
            engine_value_release(&values[i]);
        }
    }
}

/* ---- Among damage ----------------------------------------------------------------------------------------------- */

static bool is_damage(struct player *player, enum status status, const struct error *err, const char *file) {
    if (status == STATUS_OK || status == STATUS_NOT_FOUND) {
        return false;
    }
    bool is_told = status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED; /* a version that isn't known */
    if (!is_told || strstr(err->message, file) == NULL) {
        torture_fail(player->torture, player, "a bit of %s was flipped, and a read says %s: %s", file,
                     status_name(status), err->message);
    }
    return true;
}

static unsigned count_damaged_gets(struct player *player, const char *file) {
    const struct source source = newest(player);
    unsigned damaged = 0;
    for (unsigned place = 0; place < TORTURE_KEYS; place++) {
        uint8_t bytes[TORTURE_KEY_BYTES_MAX];
        struct engine_value value;
        struct error err;
        memset(&value, 0, sizeof value);
        error_clear(&err);
        enum status status =
            engine_get(player->torture->engine, NULL, script_key(player->script.actor, place, bytes), &value, &err);
        if (is_damage(player, status, &err, file)) {
            damaged++;
            continue;
        }
        compare_value(player, &source, place, status, value.bytes);
        if (status == STATUS_OK) {
            engine_value_release(&value);
        }
    }
    return damaged;
}

/* One step of a scan from behind `after` (-1: the start); false at its end or at damage. */
static bool scan_step(struct walk *walk, enum status status, const struct error *err, const char *file, int step) {
    struct player *player = walk->player;
    struct slice value;
    struct error value_err;
    error_clear(&value_err);
    if (is_damage(player, status, err, file)) {
        return false;
    }
    if (status == STATUS_OK &&
        is_damage(player, engine_iterator_value(walk->iterator, &value, &value_err), &value_err, file)) {
        return false;
    }
    int from = walk->place == TORTURE_KEYS ? (step > 0 ? 0 : TORTURE_KEYS - 1) : (int)walk->place + step;
    walk_compare(walk, model_next(walk->source.model, from, step, 0, TORTURE_KEYS), status, err, "a scan among damage");
    return status == STATUS_OK;
}

unsigned player_count_damaged(struct player *player, const char *file) {
    struct operation everything = {.kind = OPERATION_SCAN, .from = 0, .to = TORTURE_KEYS, .slot = TORTURE_SLOTS};
    struct walk walk;
    struct error err;
    unsigned damaged = count_damaged_gets(player, file);
    error_clear(&err);
    if (walk_begin(&walk, player, &everything)) {
        bool goes_on = scan_step(&walk, engine_iterator_first(walk.iterator, &err), &err, file, 1);
        while (goes_on) {
            goes_on = scan_step(&walk, engine_iterator_next(walk.iterator, &err), &err, file, 1);
        }
        engine_iterator_free(walk.iterator);
    }
    if (walk_begin(&walk, player, &everything)) {
        bool goes_on = scan_step(&walk, engine_iterator_last(walk.iterator, &err), &err, file, -1);
        while (goes_on) {
            goes_on = scan_step(&walk, engine_iterator_prev(walk.iterator, &err), &err, file, -1);
        }
        engine_iterator_free(walk.iterator);
    }
    return damaged;
}

/* ---- The calls -------------------------------------------------------------------------------------------------- */

void player__read(struct player *player, const struct operation *operation) {
    struct source source = source_of(player, operation);
    player__resolve_doubt(player);
    if (player->doubt && source.model == &player->now) {
        return;
    }
    switch (operation->kind) {
    case OPERATION_GET: get_one(player, &source, operation->from); break;
    case OPERATION_MULTI_GET: multi_get(player, operation); break;
    case OPERATION_WALK: walk_about(player, operation); break;
    case OPERATION_SCAN:
        if (operation->salt % 2 == 0) {
            scan_backward(player, operation);
            break;
        }
        scan_forward(player, operation);
        break;
    default: CHECK(false);
    }
}

void player__check_snapshot(struct player *player, unsigned slot) {
    struct operation everything = {.kind = OPERATION_SCAN, .from = 0, .to = TORTURE_KEYS, .slot = slot};
    struct source source = source_of(player, &everything);
    if (source.snapshot == NULL) {
        return;
    }
    for (unsigned place = 0; place < TORTURE_KEYS; place++) {
        get_one(player, &source, place);
    }
    scan_forward(player, &everything);
}

void player_check_all(struct player *player) {
    struct operation everything = {.kind = OPERATION_SCAN, .from = 0, .to = TORTURE_KEYS, .slot = TORTURE_SLOTS};
    struct source source = source_of(player, &everything);
    player__resolve_doubt(player);
    player->doubt = false; /* all is quiet: what hasn't come won't */
    for (unsigned place = 0; place < TORTURE_KEYS; place++) {
        get_one(player, &source, place);
    }
    scan_forward(player, &everything);
    scan_backward(player, &everything);
}
