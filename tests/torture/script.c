/* See script.h. */
#include "tests/torture/script.h"

#include "node/base/check.h"

#include <stdio.h>
#include <string.h>

enum { LARGE_BYTES_MIN = 24 * KIB }; /* about half of the large ones lie apart from tables */

/* ---- Keys ------------------------------------------------------------------------------------------------------- */

/* Families of neighbours: short ones, long common prefixes, zero and 0xff bytes, one key the prefix of the next. */
struct slice script_key(unsigned actor, unsigned place, uint8_t out[TORTURE_KEY_BYTES_MAX]) {
    CHECK(place < TORTURE_KEYS);
    unsigned family = place / 8;
    unsigned member = place % 8;
    size_t len = 0;
    out[len++] = (uint8_t)('A' + actor);
    out[len++] = (uint8_t)(family * 9);
    switch (family % 4) {
    case 0: /* "x", "xx", "xxx", ... */
        memset(out + len, 'x', member);
        len += member;
        break;
    case 1: /* a long prefix in common */
        memset(out + len, 'p', 40);
        len += 40;
        out[len++] = (uint8_t)(member * 31);
        break;
    case 2: /* zeroes and ones */
        out[len++] = member < 4 ? 0x00 : 0xff;
        memset(out + len, 0xff, member % 4);
        len += member % 4;
        out[len++] = (uint8_t)member;
        if (member % 4 != 0) { /* keeps the order: longer runs of 0xff come later */
            out[len - 1] = 0xff;
        }
        break;
    default: /* long ones */
        out[len++] = (uint8_t)(member * 17);
        memset(out + len, (int)('a' + member), 100 + member * 50);
        len += 100 + member * 50;
        break;
    }
    CHECK(len <= TORTURE_KEY_BYTES_MAX);
    return slice_of(out, len);
}

unsigned script_place(unsigned actor, struct slice key) {
    uint8_t bytes[TORTURE_KEY_BYTES_MAX];
    unsigned low = 0;
    unsigned high = TORTURE_KEYS;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        int order = slice_compare(script_key(actor, middle, bytes), key);
        if (order == 0) {
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return TORTURE_KEYS;
}

/* ---- Values ----------------------------------------------------------------------------------------------------- */

static size_t value_len(const struct script *script, struct random *random) {
    const struct script_profile *profile = &script->profile;
    if (random_below(random, 100) < profile->large_percent) {
        return LARGE_BYTES_MIN + (size_t)random_below(random, TORTURE_VALUE_BYTES_MAX + 1 - LARGE_BYTES_MIN);
    }
    return random_chance(random, 1, 20) ? 0 : (size_t)random_below(random, profile->value_bytes + 1);
}

/* Half noise, half something that compresses. */
struct slice script_value(const struct script *script, uint32_t id, uint8_t out[TORTURE_VALUE_BYTES_MAX]) {
    CHECK(id != 0);
    struct random random;
    random_seed(&random, script->seed * 1000003 + id * TORTURE_ACTORS_MAX + script->actor);
    size_t len = value_len(script, &random);
    uint64_t word = random_next(&random);
    for (size_t at = 0; at < len; at += sizeof word) {
        if (at % 64 == 0 && at / 64 % 2 == 0) {
            word = random_next(&random);
        } else {
            word = at % 128 < 64 ? random_next(&random) : word;
        }
        memcpy(out + at, &word, len - at < sizeof word ? len - at : sizeof word);
    }
    return slice_of(out, len);
}

/* ---- Operations ------------------------------------------------------------------------------------------------- */

static enum operation_kind draw_kind(struct random *random, const struct script_profile *profile) {
    unsigned sum = 0;
    for (unsigned kind = 0; kind < OPERATION_KINDS; kind++) {
        sum += profile->weights[kind];
    }
    uint64_t drawn = random_below(random, sum);
    unsigned kind = 0;
    while (drawn >= profile->weights[kind]) {
        drawn -= profile->weights[kind++];
    }
    return (enum operation_kind)kind;
}

void script_make(struct script *script, unsigned actor, uint64_t seed, const struct script_profile *profile,
                 struct operation *operations, uint32_t count) {
    struct random random;
    CHECK(actor < TORTURE_ACTORS_MAX);
    random_seed(&random, seed * TORTURE_ACTORS_MAX + actor);
    *script =
        (struct script){.actor = actor, .seed = seed, .profile = *profile, .count = count, .operations = operations};
    for (uint32_t i = 0; i < count; i++) {
        struct operation *operation = &operations[i];
        operation->kind = draw_kind(&random, profile);
        operation->sync = operation->kind < OPERATION_WRITES && random_below(&random, 100) < profile->sync_percent;
        operation->from = (unsigned)random_below(&random, TORTURE_KEYS);
        operation->to = operation->from + 1 + (unsigned)random_below(&random, random_chance(&random, 1, 4) ? 40 : 6);
        operation->to = operation->to < TORTURE_KEYS ? operation->to : TORTURE_KEYS;
        operation->slot = (unsigned)random_below(&random, TORTURE_SLOTS + 2);
        operation->slot = operation->slot < TORTURE_SLOTS ? operation->slot : TORTURE_SLOTS;
        operation->salt = random_next(&random);
        operation->write = operation->kind < OPERATION_WRITES ? ++script->writes : 0;
    }
}

const char *operation_text(const struct operation *operation, char text[96]) {
    static const char *const names[OPERATION_KINDS] = {"put",       "delete",  "delete-range", "batch",   "sync",
                                                       "flush",     "compact", "snapshot",     "release", "get",
                                                       "multi-get", "scan",    "walk"};
    (void)snprintf(text, 96, "%s [%u, %u) slot %u%s%s%.0u", names[operation->kind], operation->from, operation->to,
                   operation->slot, operation->sync ? " sync" : "", operation->write != 0 ? " write " : "",
                   operation->write);
    return text;
}

/* ---- Effects ---------------------------------------------------------------------------------------------------- */

static struct effect draw_effect(struct random *random, uint32_t id) {
    struct effect effect = {.id = id, .from = (unsigned)random_below(random, TORTURE_KEYS)};
    uint64_t drawn = random_below(random, 8);
    effect.kind = drawn < 5 ? EFFECT_PUT : drawn < 7 ? EFFECT_DELETE : EFFECT_DELETE_RANGE;
    effect.to = effect.from + 1 + (unsigned)random_below(random, 8);
    effect.to = effect.to < TORTURE_KEYS ? effect.to : TORTURE_KEYS;
    return effect;
}

unsigned operation_effects(const struct operation *operation, struct effect effects[TORTURE_EFFECTS_MAX]) {
    uint32_t id = operation->write * TORTURE_EFFECTS_MAX;
    struct random random;
    switch (operation->kind) {
    case OPERATION_PUT: effects[0] = (struct effect){EFFECT_PUT, operation->from, operation->to, id}; return 1;
    case OPERATION_DELETE: effects[0] = (struct effect){EFFECT_DELETE, operation->from, operation->to, id}; return 1;
    case OPERATION_DELETE_RANGE:
        effects[0] = (struct effect){EFFECT_DELETE_RANGE, operation->from, operation->to, id};
        return 1;
    case OPERATION_BATCH: {
        random_seed(&random, operation->salt);
        unsigned count = 1 + (unsigned)random_below(&random, TORTURE_EFFECTS_MAX);
        for (unsigned i = 0; i < count; i++) {
            effects[i] = draw_effect(&random, id + i);
        }
        return count;
    }
    default: CHECK(false);
    }
}

/* ---- Models ----------------------------------------------------------------------------------------------------- */

void model_apply(struct model *model, const struct operation *operation) {
    struct effect effects[TORTURE_EFFECTS_MAX];
    unsigned count = operation->dead ? 0 : operation_effects(operation, effects);
    for (unsigned i = 0; i < count; i++) {
        const struct effect *effect = &effects[i];
        unsigned to = effect->kind == EFFECT_DELETE_RANGE ? effect->to : effect->from + 1;
        for (unsigned place = effect->from; place < to; place++) {
            model->ids[place] = effect->kind == EFFECT_PUT ? effect->id : 0;
        }
    }
}

void model_after(struct model *model, const struct script *script, uint32_t writes) {
    memset(model, 0, sizeof *model);
    for (uint32_t i = 0, done = 0; done < writes; i++) {
        CHECK(i < script->count);
        if (script->operations[i].write != 0) {
            model_apply(model, &script->operations[i]);
            done++;
        }
    }
}

bool model_equal(const struct model *a, const struct model *b) { return memcmp(a, b, sizeof *a) == 0; }

unsigned model_next(const struct model *model, int place, int step, unsigned from, unsigned to) {
    for (; place >= (int)from && place < (int)to && place >= 0; place += step) {
        if (model->ids[place] != 0) {
            return (unsigned)place;
        }
    }
    return TORTURE_KEYS;
}
