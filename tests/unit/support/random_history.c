/* Histories of a real object. The contract is in random_history.h. */
#include "tests/unit/support/random_history.h"

#include "node/base/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t text_value(struct random_history *made, const char *text) {
    uint32_t value = VALUES_NONE;
    CHECK(values_intern(&made->history->values, slice_of_string(text), &value) == STATUS_OK);
    return value;
}

uint32_t random_history_value(struct random_history *made, uint32_t key) {
    return made->is_there[key] ? text_value(made, made->state[key]) : VALUES_NONE;
}

void random_history_init(struct random_history *made, struct check_history *history,
                         const struct random_history_options *options) {
    memset(made, 0, sizeof *made);
    made->options = *options;
    made->history = history;
    CHECK(options->clients <= RANDOM_CLIENTS_MAX && options->keys <= RANDOM_KEYS_MAX && options->kinds != 0);
    random_seed(&made->random, options->seed);
    for (uint32_t i = 0; i < options->keys; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "k%" PRIu32, i);
        CHECK(check_history_key(history, slice_of_string(name), &made->keys[i]) == STATUS_OK);
    }
}

static uint32_t new_value(struct random_history *made) {
    char text[32];
    uint64_t number = made->options.values > 0 ? random_below(&made->random, made->options.values) : ++made->serial;
    (void)snprintf(text, sizeof text, "%" PRIu64, number);
    return text_value(made, text);
}

static struct check_part draw_part(struct random_history *made, uint32_t key) {
    struct check_part part = {.key = made->keys[key], .result = CHECK_ANY};
    do {
        part.kind = (enum check_kind)random_below(&made->random, CHECK_KIND_COUNT);
    } while ((made->options.kinds >> part.kind & 1) == 0);
    switch (part.kind) {
    case CHECK_PUT: part.value = random_chance(&made->random, 1, 6) ? VALUES_NONE : new_value(made); break;
    case CHECK_CAS:
        part.expected = made->options.values > 0 ? new_value(made) : random_history_value(made, key);
        part.value = new_value(made);
        break;
    case CHECK_APPEND: part.value = new_value(made); break;
    case CHECK_ADD: part.delta = (int64_t)random_below(&made->random, 5) - 2; break;
    default: break;
    }
    return part;
}

static void begin(struct random_history *made, uint32_t number) {
    struct random_client *client = &made->clients[number];
    bool is_batch = random_below(&made->random, 100) < made->options.batch_percent;
    uint32_t key = (uint32_t)random_below(&made->random, made->options.keys);
    *client = (struct random_client){.is_busy = true, .outcome = CHECK_OK, .has_effect = true};
    client->part_count = is_batch ? 1 + (uint32_t)random_below(&made->random, RANDOM_PARTS_MAX) : 1;
    for (uint32_t i = 0; i < client->part_count; i++) {
        client->parts[i] = draw_part(made, (key + i) % made->options.keys);
    }
    uint64_t draw = random_below(&made->random, 100);
    if (draw < made->options.unknown_percent) {
        client->outcome = CHECK_UNKNOWN;
        client->has_effect = random_chance(&made->random, 1, 2);
    } else if (draw < made->options.unknown_percent + made->options.failed_percent) {
        client->outcome = CHECK_FAILED;
        client->has_effect = false;
    }
    CHECK(check_history_begin(made->history, made->client_base + number, ++made->clock, client->parts,
                              client->part_count, &client->operation) == STATUS_OK);
    made->begun++;
}

static uint32_t place_of(const struct random_history *made, uint32_t name) {
    uint32_t key = 0;
    while (made->keys[key] != name) {
        key++;
    }
    return key;
}

/* The part on the object itself: what its result is, and whether it can be done. */
static bool act(struct random_history *made, struct check_part *part, uint32_t key) {
    char more[32] = {0};
    char *text = made->state[key];
    switch (part->kind) {
    case CHECK_GET: part->result = random_history_value(made, key); return true;
    case CHECK_CAS:
        part->result = random_history_value(made, key) == part->expected;
        if (part->result == 0) {
            return true;
        }
        break;
    case CHECK_ADD: {
        char *end = text;
        long long number = made->is_there[key] ? strtoll(text, &end, 10) : 0;
        if (made->is_there[key] && (*end != '\0' || end == text || strlen(text) > 12)) {
            return false;
        }
        (void)snprintf(text, RANDOM_TEXT_BYTES, "%lld", number + (long long)part->delta);
        made->is_there[key] = true;
        part->result = random_history_value(made, key);
        return true;
    }
    case CHECK_APPEND:
        (void)values_copy(&made->history->values, part->value, (uint8_t *)more, sizeof more - 1);
        text[made->is_there[key] ? strlen(text) : 0] = '\0';
        if (strlen(text) + strlen(more) + 1 > RANDOM_TEXT_BYTES) {
            return false;
        }
        strcat(text, more); /* it fits */
        made->is_there[key] = true;
        part->result = random_history_value(made, key);
        return true;
    default: break;
    }
    made->is_there[key] = part->value != VALUES_NONE;
    text[values_copy(&made->history->values, part->value, (uint8_t *)text, RANDOM_TEXT_BYTES - 1)] = '\0';
    return true;
}

/* The moment at which it takes effect. One that can't be done has none, as a whole, and fails. */
static void take_effect(struct random_history *made, struct random_client *client) {
    char texts[RANDOM_PARTS_MAX][RANDOM_TEXT_BYTES];
    bool was_there[RANDOM_PARTS_MAX] = {false};
    client->is_done = true;
    for (uint32_t i = 0; client->has_effect && i < client->part_count; i++) {
        uint32_t key = place_of(made, client->parts[i].key);
        memcpy(texts[i], made->state[key], sizeof texts[i]);
        was_there[i] = made->is_there[key];
        if (act(made, &client->parts[i], key)) {
            continue;
        }
        while (i > 0) {
            key = place_of(made, client->parts[--i].key);
            memcpy(made->state[key], texts[i], sizeof texts[i]);
            made->is_there[key] = was_there[i];
        }
        client->outcome = client->outcome == CHECK_OK ? CHECK_FAILED : client->outcome;
        return;
    }
}

static void make_wrong(struct random_history *made, struct check_part *part) {
    if (part->kind == CHECK_GET) {
        part->result = random_chance(&made->random, 1, 4) ? VALUES_NONE : new_value(made);
    } else if (part->kind == CHECK_CAS) {
        part->result = 1 - part->result;
    } else if (part->kind == CHECK_APPEND || part->kind == CHECK_ADD) {
        part->result = new_value(made);
    }
}

static void end(struct random_history *made, uint32_t number) {
    struct random_client *client = &made->clients[number];
    bool is_ok = client->outcome == CHECK_OK;
    client->is_busy = false;
    for (uint32_t i = 0; i < client->part_count && is_ok; i++) {
        if (random_below(&made->random, 100) < made->options.wrong_percent) {
            make_wrong(made, &client->parts[i]);
        } else if (client->parts[i].kind != CHECK_GET && client->parts[i].kind != CHECK_CAS &&
                   random_chance(&made->random, 1, 2)) {
            client->parts[i].result = CHECK_ANY; /* not every store tells */
        }
    }
    if (client->outcome == CHECK_UNKNOWN && random_chance(&made->random, 1, 2)) {
        made->client_base += RANDOM_CLIENTS_MAX; /* it never ends */
        return;
    }
    CHECK(check_history_end(made->history, client->operation, ++made->clock, client->outcome,
                            is_ok ? client->parts : NULL, client->part_count) == STATUS_OK);
}

static void step(struct random_history *made, bool may_begin) {
    uint32_t number = (uint32_t)random_below(&made->random, made->options.clients);
    struct random_client *client = &made->clients[number];
    if (!client->is_busy) {
        if (may_begin) {
            begin(made, number);
        }
    } else if (!client->is_done) {
        take_effect(made, client);
    } else {
        end(made, number);
    }
}

void random_history_run(struct random_history *made, uint32_t operations) {
    while (made->begun < operations) {
        step(made, true);
    }
}

void random_history_quiesce(struct random_history *made) {
    for (bool busy = true; busy;) {
        busy = false;
        step(made, false);
        for (uint32_t i = 0; i < made->options.clients; i++) {
            busy = busy || made->clients[i].is_busy;
        }
    }
}
