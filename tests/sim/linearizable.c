/* Histories of the simulator's clients, for the linearizability checker. The contract is in linearizable.h. */
#include "tests/sim/linearizable.h"

#include "tests/chaos/check/check.h"
#include "tests/chaos/check/witness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    STEPS_MAX = 1000 * 1000, /* of a group of keys */
    SHRINK_STEPS = 1000 * 1000,
    MEMORY_BYTES = 64 * MIB,
    CLIENT_FINAL = 1000 /* who reads the final state */
};

struct linearizable {
    struct check_history history;
    uint32_t operations[CLIENTS_ALL_MAX]; /* under way */
    uint8_t *is_final;                    /* by key: the final state has it */
    struct buf report;
};

struct linearizable *linearizable__new(void) {
    struct linearizable *judge = calloc(1, sizeof *judge);
    CHECK(judge != NULL);
    CHECK(check_history_init(&judge->history, alloc_system()) == STATUS_OK);
    buf_init(&judge->report, alloc_system(), 0);
    return judge;
}

void linearizable__free(struct linearizable *judge) {
    check_history_deinit(&judge->history);
    buf_deinit(&judge->report);
    free(judge);
}

const char *linearizable__report(const struct linearizable *judge) {
    return judge->report.len > 0 ? (const char *)judge->report.data : "";
}

static uint32_t key_number(struct linearizable *judge, struct slice key) {
    uint32_t number = 0;
    CHECK(check_history_key(&judge->history, key, &number) == STATUS_OK);
    return number;
}

/* What tells a value from all others of its key is in front of its first space. */
static uint32_t value_number(struct linearizable *judge, struct slice value) {
    uint32_t number = VALUES_NONE;
    const uint8_t *space = value.len > 0 ? memchr(value.data, ' ', value.len) : NULL;
    struct slice front = slice_of(value.data, space != NULL ? (size_t)(space - value.data) : value.len);
    CHECK(values_intern(&judge->history.values, front, &number) == STATUS_OK);
    return number;
}

/* ---- Begins ------------------------------------------------------------------------------------------------------ */

static uint32_t batch_parts(struct linearizable *judge, const struct client_request *request,
                            struct check_part *parts) {
    const struct client_batch *batch = &request->batch;
    const uint8_t *at = request->value.data;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct slice key = slice_of(at, batch->key_lens[i]);
        struct slice value = slice_of(at + key.len, batch->value_lens[i]);
        bool is_put = batch->kinds[i] == HOLDFAST_PUT;
        parts[i] = (struct check_part){.kind = CHECK_PUT,
                                       .key = key_number(judge, key),
                                       .value = is_put ? value_number(judge, value) : VALUES_NONE,
                                       .result = CHECK_ANY};
        at += key.len + value.len;
    }
    return batch->count;
}

/* The keys of the writer that lie in the range. */
static uint32_t range_parts(struct linearizable *judge, const struct sim_client *client, struct check_part *parts) {
    for (uint32_t i = 0; i < client->number_count; i++) {
        char name[16];
        int len = snprintf(name, sizeof name, "key%04" PRIu32, client->key + i);
        parts[i] = (struct check_part){.kind = CHECK_PUT,
                                       .key = key_number(judge, slice_of(name, (size_t)len)),
                                       .result = CHECK_ANY};
    }
    return client->number_count;
}

void linearizable__begin(struct sim_client *client) {
    struct linearizable *judge = client->cluster->judge;
    const struct client_request *request = &client->request;
    struct check_part parts[KEYS_MAX] = {{.kind = CHECK_GET, .result = CHECK_ANY}};
    uint32_t count = 1;
    switch (request->operation) {
    case CLIENT_GET: parts[0].key = key_number(judge, request->key); break;
    case CLIENT_PUT:
        parts[0].kind = CHECK_PUT;
        parts[0].key = key_number(judge, request->key);
        parts[0].value = value_number(judge, request->value);
        break;
    case CLIENT_DELETE:
        parts[0].kind = CHECK_PUT;
        parts[0].key = key_number(judge, request->key);
        break;
    case CLIENT_BATCH: count = batch_parts(judge, request, parts); break;
    case CLIENT_DELETE_RANGE: count = range_parts(judge, client, parts); break;
    case CLIENT_SCAN: count = 0; break; /* its page says what it saw */
    default: CHECK(false);
    }
    CHECK(check_history_begin(&judge->history, client->number, sim_now_us(client->cluster->sim), parts, count,
                              &judge->operations[client->number]) == STATUS_OK);
}

/* ---- Ends -------------------------------------------------------------------------------------------------------- */

/* Each writer's key up to where the page ends: what is there, or that nothing is. */
static uint32_t page_parts(struct cluster *cluster, const struct holdfast_page *page, struct check_part *parts) {
    struct linearizable *judge = cluster->judge;
    uint32_t count = 0;
    size_t pair = 0;
    for (uint32_t key = 0; key < cluster->client_count * KEYS_PER_CLIENT; key++) {
        char text[16];
        struct slice name = slice_of(text, (size_t)snprintf(text, sizeof text, "key%04" PRIu32, key));
        bool is_shown =
            pair < page->pair_count && slice_equal(name, slice_of(page->pairs[pair].key, page->pairs[pair].key_len));
        if (!is_shown && pair == page->pair_count && page->more) {
            break;
        }
        parts[count] = (struct check_part){.kind = CHECK_GET, .key = key_number(judge, name), .result = VALUES_NONE};
        if (is_shown) {
            parts[count].result = value_number(judge, slice_of(page->pairs[pair].value, page->pairs[pair].value_len));
            pair++;
        }
        count++;
    }
    return count;
}

static enum check_outcome outcome_of(const struct client_answer *answer, bool is_get) {
    switch (answer->result.outcome) {
    case HOLDFAST_OK: return CHECK_OK;
    case HOLDFAST_FAILED: return is_get && answer->result.code == HOLDFAST_CODE_NOT_FOUND ? CHECK_OK : CHECK_FAILED;
    case HOLDFAST_UNKNOWN: return CHECK_UNKNOWN;
    }
    CHECK(false);
}

void linearizable__end(struct sim_client *client, const struct client_answer *answer) {
    struct cluster *cluster = client->cluster;
    struct linearizable *judge = cluster->judge;
    bool is_get = client->request.operation == CLIENT_GET;
    enum check_outcome outcome = outcome_of(answer, is_get);
    struct check_part parts[KEYS_MAX] = {{.kind = CHECK_GET, .result = VALUES_NONE}};
    const struct check_part *results = NULL;
    uint32_t count = 0;
    if (outcome == CHECK_OK && is_get) {
        parts[0].key = key_number(judge, client->request.key);
        if (answer->result.outcome == HOLDFAST_OK) {
            parts[0].result = value_number(judge, slice_of(answer->value.data, answer->value.len));
        }
        results = parts;
        count = 1;
    } else if (outcome == CHECK_OK && client->request.operation == CLIENT_SCAN) {
        count = page_parts(cluster, answer->page, parts);
        results = parts;
    }
    CHECK(check_history_end(&judge->history, judge->operations[client->number], sim_now_us(cluster->sim), outcome,
                            results, count) == STATUS_OK);
}

/* ---- The end ----------------------------------------------------------------------------------------------------- */

static void add_final(struct cluster *cluster, uint32_t key, uint32_t value) {
    struct check_history *history = &cluster->judge->history;
    struct check_part part = {.kind = CHECK_GET, .key = key, .result = value};
    uint64_t now_us = sim_now_us(cluster->sim);
    uint32_t operation = 0;
    CHECK(check_history_begin(history, CLIENT_FINAL, now_us, &part, 1, &operation) == STATUS_OK);
    CHECK(check_history_end(history, operation, now_us, CHECK_OK, NULL, 0) == STATUS_OK);
}

void linearizable__final_pair(struct cluster *cluster, struct slice key, struct slice value) {
    struct linearizable *judge = cluster->judge;
    uint32_t count = judge->history.key_count;
    uint32_t number = key_number(judge, key);
    if (judge->is_final == NULL) {
        judge->is_final = calloc(count + 1, 1);
        CHECK(judge->is_final != NULL);
    }
    if (number < count) { /* or it is nobody's, which the workload says */
        judge->is_final[number] = 1;
        add_final(cluster, number, value_number(judge, value));
    }
}

void linearizable__judge(struct cluster *cluster) {
    struct linearizable *judge = cluster->judge;
    struct check_history *history = &judge->history;
    struct check_result result = {.alloc = alloc_system()};
    struct check_budget budget;
    for (uint32_t key = 0; key < history->key_count; key++) {
        if (judge->is_final == NULL || judge->is_final[key] == 0) {
            add_final(cluster, key, VALUES_NONE);
        }
    }
    free(judge->is_final);
    judge->is_final = NULL;
    check_budget_init(&budget);
    budget.steps_max = STEPS_MAX;
    budget.shrink_steps = SHRINK_STEPS;
    budget.memory_bytes = MEMORY_BYTES;
    CHECK(check_run(history, &budget, &result) == STATUS_OK);
    cluster->stats.judged += history->operation_count;
    cluster->stats.undecided += result.undecided;
    if (result.verdict == CHECK_VIOLATION) {
        CHECK(check_witness_print(history, &result, &judge->report) == STATUS_OK);
        CHECK(buf_append(&judge->report, "", 1) == STATUS_OK);
        cluster__fail(cluster, "the history of the clients isn't linearizable");
    }
    check_result_deinit(&result);
}
