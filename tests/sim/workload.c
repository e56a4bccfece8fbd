/*
 * Clients: the production session core on a simulated machine that never fails, one operation outstanding each.
 *
 * A key belongs to one writer, whose writes are numbered 1, 2, 3, ...; most are puts of their number, some deletes,
 * some range deletes over several keys of the writer, some batches over all of them. Everybody reads every key, alone
 * or by scans of all. What a read shows must be
 *
 *   not older than what was acknowledged, or seen by an ended read, before it began;
 *   begun by its writer, and not surely failed;
 *   the state at the revision that the reply names: all that was acknowledged up to there, nothing from behind it;
 *   at a revision not below one that was acknowledged or seen before it began, whatever the key: the log is one clock.
 *
 * Some operations are on shared keys, which every client writes. In the seeds whose clocks drift there are, for each
 * node, a reader and a writer more that talk to this node alone, whoever leads: they go on at a leader that others have
 * left, and are the first at the next one. What these may see is left to linearizable.c, which judges all operations of
 * a run together.
 *
 * And an acknowledged write's revision is new, above every one seen before it began. For these histories that is strict
 * serializability, bar the order among overlapping reads of unknown writes.
 */
#include "tests/sim/cluster.h"
#include "tests/sim/linearizable.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAILBOX_MESSAGES = 1024, TIMEOUT_MS = 1500, PAUSE_US = 8000, LARGE_VALUE_BYTES = 4000, SMALL_VALUE_BYTES = 200 };

static void next_operation(struct sim_client *client);

static bool bit_at(const uint8_t *bits, uint64_t number) {
    return number < NUMBERS_MAX && (bits[number / 8] >> (number % 8) & 1) != 0;
}

static void set_bit(uint8_t *bits, uint64_t number) {
    if (number < NUMBERS_MAX) {
        bits[number / 8] |= (uint8_t)(1u << (number % 8));
    }
}

/* "number " at the front of a value. */
static uint64_t number_of(struct slice value) {
    char text[24] = {0};
    memcpy(text, value.data, value.len < sizeof text - 1 ? value.len : sizeof text - 1);
    return strtoull(text, NULL, 10);
}

static uint32_t key_of(struct slice key) {
    char text[16] = {0};
    uint32_t number = UINT32_MAX;
    memcpy(text, key.data, key.len < sizeof text - 1 ? key.len : sizeof text - 1);
    return sscanf(text, "key%" SCNu32, &number) == 1 ? number : UINT32_MAX;
}

static uint32_t key_count(const struct cluster *cluster) { return cluster->client_count * KEYS_PER_CLIENT; }

/* ---- What a read may show ---------------------------------------------------------------------------------------- */

/* The least number that explains that nothing is there; UINT64_MAX if none does. */
static uint64_t least_absence(const struct key_truth *truth, uint64_t floor) {
    if (floor == 0) {
        return 0;
    }
    for (uint64_t number = floor; number <= truth->begun; number++) {
        if (number >= NUMBERS_MAX || (bit_at(truth->deletes, number) && !bit_at(truth->failed, number))) {
            return number;
        }
    }
    return UINT64_MAX;
}

/* revision: of the state; 0 if not known. */
static void check_revision(struct cluster *cluster, const char *who, uint32_t key, uint64_t number, uint64_t revision) {
    const struct key_truth *truth = &cluster->keys[key];
    if (revision == 0 || number >= NUMBERS_MAX) {
        return;
    }
    if (truth->revisions[number] > revision) {
        cluster__fail(cluster,
                      "%s at revision %" PRIu64 " shows %" PRIu64 " for key %" PRIu32 ", written at revision %" PRIu64,
                      who, revision, number, key, truth->revisions[number]);
    }
    for (uint64_t later = number + 1; later <= truth->begun && later < NUMBERS_MAX; later++) {
        if (truth->revisions[later] != 0 && truth->revisions[later] <= revision) {
            cluster__fail(cluster,
                          "%s at revision %" PRIu64 " shows %" PRIu64 " for key %" PRIu32 ", but %" PRIu64
                          " was written at revision %" PRIu64,
                          who, revision, number, key, later, truth->revisions[later]);
        }
    }
}

/* Returns the number that was seen, or that explains the absence. */
static uint64_t check_shown(struct cluster *cluster, const char *who, uint32_t key, bool present, uint64_t number,
                            uint64_t floor, uint64_t revision) {
    const struct key_truth *truth = &cluster->keys[key];
    if (!present) {
        number = least_absence(truth, floor);
        if (number == UINT64_MAX) {
            cluster__fail(cluster,
                          "%s shows nothing for key %" PRIu32 ", but %" PRIu64
                          " was acknowledged or seen before, and no delete began since",
                          who, key, floor);
            return floor;
        }
    } else if (number < floor) {
        cluster__fail(cluster,
                      "%s shows %" PRIu64 " for key %" PRIu32 ", but %" PRIu64 " was acknowledged or seen before", who,
                      number, key, floor);
    } else if (number > truth->begun || bit_at(truth->deletes, number)) {
        cluster__fail(cluster, "%s shows %" PRIu64 " for key %" PRIu32 ", which was never put", who, number, key);
    } else if (bit_at(truth->failed, number)) {
        cluster__fail(cluster, "%s shows %" PRIu64 " for key %" PRIu32 ", whose put surely failed", who, number, key);
    } else {
        check_revision(cluster, who, key, number, revision);
    }
    return number;
}

static void saw(struct cluster *cluster, uint32_t key, uint64_t number) {
    struct key_truth *truth = &cluster->keys[key];
    truth->floor = number > truth->floor ? number : truth->floor;
}

/* ---- Ends of operations ------------------------------------------------------------------------------------------ */

static void check_order(struct sim_client *client, uint64_t revision, bool is_write) {
    struct cluster *cluster = client->cluster;
    if (revision < client->revision_floor || (is_write && revision == client->revision_floor)) {
        cluster__fail(cluster,
                      "a %s got revision %" PRIu64 ", but revision %" PRIu64
                      " had been acknowledged or seen before it began",
                      is_write ? "write" : "read", revision, client->revision_floor);
    }
    if (revision > cluster->revision_seen) {
        cluster->revision_seen = revision;
    }
}

/* One number of one key, written or not. */
static void end_number(struct cluster *cluster, uint32_t key, uint64_t number, const struct holdfast_result *result) {
    struct key_truth *truth = &cluster->keys[key];
    if (result->outcome == HOLDFAST_OK) {
        saw(cluster, key, number);
        if (number < NUMBERS_MAX) {
            truth->revisions[number] = result->revision;
        }
    } else if (result->outcome == HOLDFAST_FAILED) {
        set_bit(truth->failed, number);
    }
}

static void end_write(struct sim_client *client, const struct holdfast_result *result) {
    struct cluster *cluster = client->cluster;
    switch (result->outcome) {
    case HOLDFAST_OK:
        cluster->stats.puts_ok++;
        check_order(client, result->revision, true);
        break;
    case HOLDFAST_FAILED: cluster->stats.puts_failed++; break;
    case HOLDFAST_UNKNOWN: cluster->stats.puts_unknown++; break;
    }
    for (uint32_t i = 0; i < client->number_count; i++) {
        end_number(cluster, client->key + i, client->numbers[i], result);
    }
}

static void end_get(struct sim_client *client, const struct client_answer *answer) {
    struct cluster *cluster = client->cluster;
    bool present = answer->result.outcome == HOLDFAST_OK;
    if (!present && answer->result.code != HOLDFAST_CODE_NOT_FOUND) {
        return;
    }
    uint64_t number = present ? number_of(slice_of(answer->value.data, answer->value.len)) : 0;
    cluster->stats.reads++;
    if (!client->is_shared) {
        number = check_shown(cluster, "a read", client->key, present, number, client->floors[client->key],
                             answer->result.revision);
        saw(cluster, client->key, number);
    }
    if (present) {
        check_order(client, answer->result.revision, false);
    }
}

static void end_scan(struct sim_client *client, const struct client_answer *answer) {
    struct cluster *cluster = client->cluster;
    if (answer->result.outcome != HOLDFAST_OK) {
        return;
    }
    const struct holdfast_page *page = answer->page;
    uint32_t next = 0; /* keys below were seen to be there or not */
    cluster->stats.scans++;
    check_order(client, page->revision, false);
    for (size_t i = 0; i < page->pair_count; i++) {
        const struct holdfast_pair *pair = &page->pairs[i];
        uint32_t key = key_of(slice_of(pair->key, pair->key_len));
        if (key >= key_count(cluster) || key < next) {
            cluster__fail(cluster, "a scan shows a key that nobody put, or not in order");
            return;
        }
        for (; next < key; next++) {
            saw(cluster, next, check_shown(cluster, "a scan", next, false, 0, client->floors[next], page->revision));
        }
        uint64_t number = number_of(slice_of(pair->value, pair->value_len));
        saw(cluster, key, check_shown(cluster, "a scan", key, true, number, client->floors[key], page->revision));
        next = key + 1;
    }
    for (; !page->more && next < key_count(cluster); next++) {
        saw(cluster, next, check_shown(cluster, "a scan", next, false, 0, client->floors[next], page->revision));
    }
}

static void on_done(struct client_request *request, struct client_answer *answer) {
    struct sim_client *client = CONTAINER_OF(request, struct sim_client, request);
    struct cluster *cluster = client->cluster;
    client->busy = false;
    linearizable__end(client, answer);
    switch (request->operation) {
    case CLIENT_GET: end_get(client, answer); break;
    case CLIENT_SCAN: end_scan(client, answer); break;
    default: end_write(client, &answer->result); break;
    }
    uint64_t pause_us = random_below(&cluster->random, PAUSE_US);
    CHECK(env_timer_arm(&client->timer, env_now_us(cluster->client_loop) + pause_us) == STATUS_OK);
}

/* ---- Begins ------------------------------------------------------------------------------------------------------ */

static uint32_t own_key(struct sim_client *client, uint32_t i) { return client->number * KEYS_PER_CLIENT + i; }

static void give_number(struct sim_client *client, uint32_t key, bool is_delete) {
    struct key_truth *truth = &client->cluster->keys[key];
    uint64_t number = ++truth->begun;
    client->numbers[client->number_count++] = number;
    if (is_delete) {
        set_bit(truth->deletes, number);
    }
}

/* "number ...." of a random length. */
static size_t write_value(struct sim_client *client, uint8_t *out, size_t len_max, uint64_t number) {
    size_t len = 24 + random_below(&client->cluster->random, len_max);
    memset(out, '.', len);
    int used = snprintf((char *)out, len, "%" PRIu64 " ", number);
    out[used] = '.';
    return len;
}

static void fill_key(struct sim_client *client) {
    int len = snprintf((char *)client->key_bytes, sizeof client->key_bytes, "key%04" PRIu32, client->key);
    client->request.key = slice_of(client->key_bytes, (size_t)len);
}

/* All keys of this writer at once; puts and deletes. */
static void fill_batch(struct sim_client *client) {
    struct random *random = &client->cluster->random;
    uint8_t *at = client->value_bytes;
    client->key = own_key(client, 0);
    client->request.batch = (struct client_batch){.kinds = client->batch_kinds,
                                                  .key_lens = client->batch_key_lens,
                                                  .value_lens = client->batch_value_lens,
                                                  .count = KEYS_PER_CLIENT};
    for (uint32_t i = 0; i < KEYS_PER_CLIENT; i++) {
        bool is_delete = random_chance(random, 1, 6);
        give_number(client, own_key(client, i), is_delete);
        client->batch_kinds[i] = is_delete ? HOLDFAST_DELETE : HOLDFAST_PUT;
        client->batch_key_lens[i] =
            (uint32_t)snprintf((char *)at, sizeof client->key_bytes, "key%04" PRIu32, own_key(client, i));
        at += client->batch_key_lens[i];
        client->batch_value_lens[i] =
            is_delete ? 0 : (uint32_t)write_value(client, at, SMALL_VALUE_BYTES, client->numbers[i]);
        at += client->batch_value_lens[i];
    }
    client->request.value = slice_of(client->value_bytes, (size_t)(at - client->value_bytes));
}

/* Some keys of this writer that lie together; the last writer may leave the end open. */
static void fill_range(struct sim_client *client) {
    struct random *random = &client->cluster->random;
    uint32_t first = (uint32_t)random_below(random, KEYS_PER_CLIENT);
    uint32_t count = 1 + (uint32_t)random_below(random, KEYS_PER_CLIENT - first);
    client->key = own_key(client, first);
    for (uint32_t i = 0; i < count; i++) {
        give_number(client, client->key + i, true);
    }
    fill_key(client);
    if (client->key + count < key_count(client->cluster) || random_chance(random, 1, 2)) {
        int len = snprintf((char *)client->value_bytes, sizeof client->key_bytes, "key%04" PRIu32, client->key + count);
        client->request.upper = slice_of(client->value_bytes, (size_t)len);
    }
}

static void fill_write(struct sim_client *client) {
    struct random *random = &client->cluster->random;
    if (client->request.operation == CLIENT_BATCH) {
        fill_batch(client);
        return;
    }
    if (client->request.operation == CLIENT_DELETE_RANGE) {
        fill_range(client);
        return;
    }
    bool is_delete = client->request.operation == CLIENT_DELETE;
    client->key = own_key(client, (uint32_t)random_below(random, KEYS_PER_CLIENT));
    give_number(client, client->key, is_delete);
    fill_key(client);
    if (!is_delete) {
        uint32_t large = cluster_has_large_values(client->cluster) ? 9 : 1; /* of ten */
        size_t len_max = random_chance(random, large, 10) ? LARGE_VALUE_BYTES : SMALL_VALUE_BYTES;
        size_t len = write_value(client, client->value_bytes, len_max, client->numbers[0]);
        client->request.value = slice_of(client->value_bytes, len);
    }
}

/* A get, a put or a delete of a key that everybody writes. Its name sorts in front of all others: a range that is open
 * at its end does not reach it. A value is never put twice: who put it stands in front. */
static void fill_shared(struct sim_client *client) {
    struct random *random = &client->cluster->random;
    uint64_t draw = random_below(random, 10);
    bool is_read = client->is_pinned ? client->only_reads : draw < 4;
    client->is_shared = true;
    client_request_init(&client->request, is_read ? CLIENT_GET : draw < 9 ? CLIENT_PUT : CLIENT_DELETE, on_done);
    int len = snprintf((char *)client->key_bytes, sizeof client->key_bytes, "common%02" PRIu64,
                       random_below(random, SHARED_KEYS));
    client->request.key = slice_of(client->key_bytes, (size_t)len);
    if (client->request.operation == CLIENT_PUT) {
        len = snprintf((char *)client->value_bytes, sizeof client->value_bytes, "%" PRIu32 ".%" PRIu64 " shared",
                       client->number, ++client->serial);
        client->request.value = slice_of(client->value_bytes, (size_t)len);
    }
}

static enum client_operation draw_operation(struct random *random) {
    uint64_t draw = random_below(random, 100);
    return draw < 28   ? CLIENT_GET
           : draw < 34 ? CLIENT_SCAN
           : draw < 40 ? CLIENT_DELETE
           : draw < 43 ? CLIENT_DELETE_RANGE
           : draw < 50 ? CLIENT_BATCH
                       : CLIENT_PUT;
}

/* On keys that have one writer each. */
static void fill_own(struct sim_client *client) {
    struct cluster *cluster = client->cluster;
    switch (client->request.operation) {
    case CLIENT_GET:
        client->key = (uint32_t)random_below(&cluster->random, key_count(cluster));
        fill_key(client);
        break;
    case CLIENT_SCAN:
        client->request.key = slice_of("key", 3);
        client->request.upper = slice_of("kez", 3);
        break;
    default: fill_write(client); break;
    }
}

static void next_operation(struct sim_client *client) {
    struct cluster *cluster = client->cluster;
    if (!cluster->workload_on) {
        return;
    }
    client->number_count = 0;
    client->is_shared = false;
    client_request_init(&client->request, draw_operation(&cluster->random), on_done);
    client->revision_floor = cluster->revision_seen;
    for (uint32_t key = 0; key < key_count(cluster); key++) {
        client->floors[key] = cluster->keys[key].floor;
    }
    if (client->is_pinned || random_chance(&cluster->random, 1, 6)) {
        fill_shared(client);
    } else {
        fill_own(client);
    }
    linearizable__begin(client);
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
    for (uint32_t i = 0; i < workload__client_count(cluster); i++) {
        struct sim_client *client = &cluster->clients[i];
        options.pin = client->is_pinned ? (int32_t)((i - cluster->client_count) / 2) : -1;
        CHECK(client_core_new(env, cluster->client_loop, sim_transport(env), &options, &client->core) == STATUS_OK);
        env_timer_init(&client->timer, cluster->client_loop, on_timer);
        CHECK(env_timer_arm(&client->timer, env_now_us(cluster->client_loop) + i * 1000) == STATUS_OK);
    }
    env_loop_run(cluster->client_loop);
}

void workload__start(struct cluster *cluster) {
    cluster->workload_on = true;
    cluster->client_count = 2 + (uint32_t)random_below(&cluster->random, CLIENTS_MAX - 1);
    cluster->pinned_count = cluster_has_drift(cluster) ? 2 * cluster->replica_count : 0;
    CHECK(workload__client_count(cluster) <= CLIENTS_ALL_MAX);
    for (uint32_t i = 0; i < workload__client_count(cluster); i++) {
        cluster->clients[i].cluster = cluster;
        cluster->clients[i].number = i;
        cluster->clients[i].is_pinned = i >= cluster->client_count;
        cluster->clients[i].only_reads = (i - cluster->client_count) % 2 == 0;
    }
    struct sim_node_options options;
    sim_node_options_init(&options, "clients");
    options.main = clients_main;
    options.context = cluster;
    cluster->client_node = sim_node_new(cluster->sim, &options);
    sim_node_start(cluster->client_node);
}

bool workload__is_idle(const struct cluster *cluster) {
    for (uint32_t i = 0; i < workload__client_count(cluster); i++) {
        if (cluster->clients[i].busy) {
            return false;
        }
    }
    return true;
}

/* ---- The end ----------------------------------------------------------------------------------------------------- */

void workload__check_pair(struct cluster *cluster, const struct replica *replica, struct slice key, struct slice value,
                          uint64_t *seen_keys) {
    uint32_t number = key_of(key);
    if (slice_starts_with(key, slice_of_string("common"))) {
        return;
    }
    if (number >= key_count(cluster)) {
        cluster__fail(cluster, "%s holds a key that nobody put", replica->config.name);
        return;
    }
    *seen_keys |= (uint64_t)1 << number;
    (void)check_shown(cluster, replica->config.name, number, true, number_of(value), cluster->keys[number].floor,
                      UINT64_MAX);
}

void workload__check_missing(struct cluster *cluster, const struct replica *replica, uint64_t seen_keys) {
    for (uint32_t key = 0; key < key_count(cluster); key++) {
        if ((seen_keys >> key & 1) == 0) {
            (void)check_shown(cluster, replica->config.name, key, false, 0, cluster->keys[key].floor, UINT64_MAX);
        }
    }
}
