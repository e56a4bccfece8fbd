/*
 * Clients: the production session core on a simulated machine that never fails, one operation outstanding each.
 *
 * A key belongs to one writer, which puts 1, 2, 3, ...; everybody reads every key. So a read must show at least what
 * was acknowledged, or seen by an ended read, before it began; nothing that was not yet begun when it ended; and
 * nothing that surely failed. For these histories that is linearizability, bar the order among overlapping reads of
 * unknown writes.
 */
#include "tests/sim/cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAILBOX_MESSAGES = 1024, TIMEOUT_MS = 1500, PAUSE_US = 8000, LARGE_VALUE_BYTES = 4000 };

static void next_operation(struct sim_client *client);

static struct key_truth *truth_of(struct cluster *cluster, uint32_t key) { return &cluster->keys[key]; }

static bool has_failed(const struct key_truth *truth, uint64_t number) {
    return number < NUMBERS_MAX && (truth->failed[number / 8] >> (number % 8) & 1) != 0;
}

/* "number " at the front of a value. */
static uint64_t number_of(struct slice value) {
    char text[24] = {0};
    memcpy(text, value.data, value.len < sizeof text - 1 ? value.len : sizeof text - 1);
    return strtoull(text, NULL, 10);
}

static void check_number(struct cluster *cluster, const char *who, uint32_t key, uint64_t number, uint64_t floor) {
    const struct key_truth *truth = truth_of(cluster, key);
    if (number < floor) {
        cluster__fail(cluster,
                      "%s shows %" PRIu64 " for key %" PRIu32 ", but %" PRIu64 " was acknowledged or seen before", who,
                      number, key, floor);
    } else if (number > truth->begun) {
        cluster__fail(cluster, "%s shows %" PRIu64 " for key %" PRIu32 ", which was never put", who, number, key);
    } else if (has_failed(truth, number)) {
        cluster__fail(cluster, "%s shows %" PRIu64 " for key %" PRIu32 ", whose put surely failed", who, number, key);
    }
}

/* ---- Ends of operations ------------------------------------------------------------------------------------------ */

static void end_put(struct sim_client *client, const struct holdfast_result *result) {
    struct cluster *cluster = client->cluster;
    struct key_truth *truth = truth_of(cluster, client->key);
    switch (result->outcome) {
    case HOLDFAST_OK:
        cluster->stats.puts_ok++;
        if (client->value > truth->floor) {
            truth->floor = client->value;
        }
        if (has_failed(truth, client->value)) {
            cluster__fail(cluster, "key %" PRIu32 ": %" PRIu64 " acknowledged after it failed", client->key,
                          client->value);
        }
        return;
    case HOLDFAST_FAILED:
        cluster->stats.puts_failed++;
        if (client->value < NUMBERS_MAX) {
            truth->failed[client->value / 8] |= (uint8_t)(1u << (client->value % 8));
        }
        return;
    case HOLDFAST_UNKNOWN: cluster->stats.puts_unknown++; return;
    }
}

static void end_get(struct sim_client *client, const struct client_answer *answer) {
    struct cluster *cluster = client->cluster;
    uint64_t number = 0;
    if (answer->result.outcome == HOLDFAST_OK) {
        number = number_of(slice_of(answer->value.data, answer->value.len));
    } else if (answer->result.code != HOLDFAST_CODE_NOT_FOUND) {
        return;
    }
    cluster->stats.reads++;
    check_number(cluster, "a read", client->key, number, client->floor);
    struct key_truth *truth = truth_of(cluster, client->key);
    if (number > truth->floor) {
        truth->floor = number;
    }
}

static void on_done(struct client_request *request, struct client_answer *answer) {
    struct sim_client *client = CONTAINER_OF(request, struct sim_client, request);
    struct cluster *cluster = client->cluster;
    client->busy = false;
    if (client->reading) {
        end_get(client, answer);
    } else {
        end_put(client, &answer->result);
    }
    uint64_t pause_us = random_below(&cluster->random, PAUSE_US);
    CHECK(env_timer_arm(&client->timer, env_now_us(cluster->client_loop) + pause_us) == STATUS_OK);
}

/* ---- Begins -------------------------------------------------------------------------------------------------------
 */

static void fill_put(struct sim_client *client) {
    struct cluster *cluster = client->cluster;
    client->key = client->number * KEYS_PER_CLIENT + (uint32_t)random_below(&cluster->random, KEYS_PER_CLIENT);
    struct key_truth *truth = truth_of(cluster, client->key);
    client->value = ++truth->written;
    truth->begun = client->value;
    size_t len = 24 + random_below(&cluster->random, random_chance(&cluster->random, 1, 10) ? LARGE_VALUE_BYTES : 200);
    memset(client->value_bytes, '.', len);
    int used = snprintf((char *)client->value_bytes, sizeof client->value_bytes, "%" PRIu64 " ", client->value);
    client->value_bytes[used] = '.';
    client->request.value = slice_of(client->value_bytes, len);
}

static void next_operation(struct sim_client *client) {
    struct cluster *cluster = client->cluster;
    if (!cluster->workload_on) {
        return;
    }
    client->reading = random_chance(&cluster->random, 1, 3);
    client_request_init(&client->request, client->reading ? CLIENT_GET : CLIENT_PUT, on_done);
    if (client->reading) {
        client->key = (uint32_t)random_below(&cluster->random, cluster->client_count * KEYS_PER_CLIENT);
        client->floor = truth_of(cluster, client->key)->floor;
    } else {
        fill_put(client);
    }
    int len = snprintf((char *)client->key_bytes, sizeof client->key_bytes, "key%04" PRIu32, client->key);
    client->request.key = slice_of(client->key_bytes, (size_t)len);
    enum holdfast_code code = client_core_submit(client->core, &client->request);
    CHECK(code == HOLDFAST_CODE_OK);
    client->busy = true;
}

static void on_timer(struct env_timer *timer) { next_operation(CONTAINER_OF(timer, struct sim_client, timer)); }

static void clients_main(void *context, struct env *env) {
    struct cluster *cluster = context;
    struct error error;
    struct client_options options;
    client_options_init(&options);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        CHECK(client_options_add_endpoints(&options, cluster->replicas[i].config.client_listen, &error) == STATUS_OK);
    }
    options.timeout_ms = TIMEOUT_MS;
    CHECK(env_loop_new(env, "clients", MAILBOX_MESSAGES, &cluster->client_loop, &error) == STATUS_OK);
    for (uint32_t i = 0; i < cluster->client_count; i++) {
        struct sim_client *client = &cluster->clients[i];
        CHECK(client_core_new(env, cluster->client_loop, sim_transport(env), &options, &client->core) == STATUS_OK);
        env_timer_init(&client->timer, cluster->client_loop, on_timer);
        CHECK(env_timer_arm(&client->timer, env_now_us(cluster->client_loop) + i * 1000) == STATUS_OK);
    }
    env_loop_run(cluster->client_loop);
}

void workload__start(struct cluster *cluster) {
    cluster->workload_on = true;
    cluster->client_count = 2 + (uint32_t)random_below(&cluster->random, CLIENTS_MAX - 1);
    for (uint32_t i = 0; i < cluster->client_count; i++) {
        cluster->clients[i].cluster = cluster;
        cluster->clients[i].number = i;
    }
    struct sim_node_options options;
    sim_node_options_init(&options, "clients");
    options.main = clients_main;
    options.context = cluster;
    cluster->client_node = sim_node_new(cluster->sim, &options);
    sim_node_start(cluster->client_node);
}

bool workload__is_idle(const struct cluster *cluster) {
    for (uint32_t i = 0; i < cluster->client_count; i++) {
        if (cluster->clients[i].busy) {
            return false;
        }
    }
    return true;
}

/* ---- The end ------------------------------------------------------------------------------------------------------
 */

void workload__check_pair(struct cluster *cluster, const struct replica *replica, struct slice key, struct slice value,
                          uint64_t *seen_keys) {
    char text[16] = {0};
    memcpy(text, key.data, key.len < sizeof text - 1 ? key.len : sizeof text - 1);
    uint32_t number = 0;
    if (sscanf(text, "key%" SCNu32, &number) != 1 || number >= cluster->client_count * KEYS_PER_CLIENT) {
        cluster__fail(cluster, "%s holds a key that nobody put: %s", replica->config.name, text);
        return;
    }
    *seen_keys |= (uint64_t)1 << number;
    check_number(cluster, replica->config.name, number, number_of(value), truth_of(cluster, number)->floor);
}

void workload__check_missing(struct cluster *cluster, const struct replica *replica, uint64_t seen_keys) {
    for (uint32_t key = 0; key < cluster->client_count * KEYS_PER_CLIENT; key++) {
        if ((seen_keys >> key & 1) == 0) {
            check_number(cluster, replica->config.name, key, 0, truth_of(cluster, key)->floor);
        }
    }
}
