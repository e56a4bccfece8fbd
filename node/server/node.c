/*
 * A node's life: recovery on a worker, the consensus actor, the front ends, and all of it backwards.
 *
 *   NEW -> RECOVERING -> STARTING -> SERVING -> STOPPING -> STOPPED
 *              |            |           |
 *              +------------+-----------+--> FAILED -(node_stop)-> STOPPING
 */
#include "node/server/node.h"

#include "node/base/check.h"
#include "node/server/clients.h"
#include "node/server/consensus_internal.h"
#include "node/server/recovery.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    FRONT_ENDS_MAX = 64,
    FRONT_END_MAILBOX = 16 * 1024,
    PROGRESS_INTERVAL_US = 500 * 1000,
    STOP_GRACE_US = 2 * 1000 * 1000
};

enum node_state { NODE_NEW, NODE_RECOVERING, NODE_STARTING, NODE_SERVING, NODE_STOPPING, NODE_STOPPED, NODE_FAILED };

static const char *const state_names[] = {
    [NODE_NEW] = "new",         [NODE_RECOVERING] = "recovering", [NODE_STARTING] = "starting",
    [NODE_SERVING] = "serving", [NODE_STOPPING] = "stopping",     [NODE_STOPPED] = "stopped",
    [NODE_FAILED] = "failed",
};

/* One client front end, on the consensus loop or on one of its own. The message carries orders to its loop and answers
 * back. */
struct front_end {
    struct node *node;
    struct env_loop *loop;
    struct env_transport *transport;
    struct clients *clients;
    struct env_message message;
    enum status status;
    struct error error;
};

struct node {
    struct node_options options;
    enum node_state state;
    struct consensus *consensus;
    bool consensus_running;
    struct recovery recovery;
    struct env_work recovery_work;
    enum status recovery_status;
    struct error error; /* why it failed */
    bool stop_requested;
    uint64_t started_us;
    struct front_end front_ends[FRONT_ENDS_MAX];
    uint32_t front_end_count;          /* made */
    uint32_t front_end_pending;        /* orders without an answer */
    _Atomic uint32_t connection_total; /* clients' connections, of all front ends */
    struct env_timer timer;            /* RECOVERING: progress; STOPPING: end of grace */
    struct env_work loops_work;
    struct env_work close_work;
    struct env_task end_task; /* runs stopped or failed from the loop */
};

static void stop_serving(struct node *node);

static void set_state(struct node *node, enum node_state state) {
    node->state = state;
    log_event(node->options.logger, LOG_INFO, "node.state", "state=%s", state_names[state]);
}

/* ---- The end ---------------------------------------------------------------------------------------------------- */

static void run_end(struct env_task *task) {
    struct node *node = CONTAINER_OF(task, struct node, end_task);
    if (node->error.code != STATUS_OK && !node->stop_requested) {
        node->options.failed(node->options.context, &node->error);
    } else {
        node->options.stopped(node->options.context);
    }
}

static void end(struct node *node) {
    set_state(node, node->error.code != STATUS_OK && !node->stop_requested ? NODE_FAILED : NODE_STOPPED);
    env_defer(node->options.loop, ENV_STAGE_PROCESS, &node->end_task);
}

static void close_dir(struct env_work *work) {
    struct node *node = CONTAINER_OF(work, struct node, close_work);
    data_dir_close(&node->recovery.dir);
}

static void on_dir_closed(struct env_work *work) { end(CONTAINER_OF(work, struct node, close_work)); }

static void close_data_dir(struct node *node) {
    node->close_work = (struct env_work){.run = close_dir, .done = on_dir_closed, .loop = node->options.loop};
    env_work_submit(node->options.env, ENV_WORK_SHORT, &node->close_work);
}

static void on_consensus_stopped(void *context) {
    struct node *node = context;
    node->consensus = NULL;
    node->consensus_running = false;
    close_data_dir(node);
}

static void on_abandoned(void *context) {
    struct node *node = context;
    consensus_free_unstarted(node->consensus);
    node->consensus = NULL;
    close_data_dir(node);
}

/* ---- Front ends ------------------------------------------------------------------------------------------------- */

/* Waiting for threads and freeing their loops blocks: a worker's job. */
static void free_loops(struct env_work *work) {
    struct node *node = CONTAINER_OF(work, struct node, loops_work);
    for (uint32_t i = 0; i < node->front_end_count; i++) {
        struct front_end *front_end = &node->front_ends[i];
        if (front_end->loop != node->options.loop) {
            env_loop_stop(front_end->loop);
            env_loop_join(front_end->loop);
            env_loop_free(front_end->loop);
        }
    }
}

static void on_loops_freed(struct env_work *work) {
    struct node *node = CONTAINER_OF(work, struct node, loops_work);
    node->front_end_count = 0;
    consensus_stop(node->consensus, on_consensus_stopped, node);
}

static void on_all_clients_stopped(struct node *node) {
    env_timer_cancel(&node->timer);
    node->loops_work = (struct env_work){.run = free_loops, .done = on_loops_freed, .loop = node->options.loop};
    env_work_submit(node->options.env, ENV_WORK_SHORT, &node->loops_work);
}

static void run_stopped_answer(struct env_message *message) {
    struct front_end *front_end = CONTAINER_OF(message, struct front_end, message);
    struct node *node = front_end->node;
    CHECK(node->front_end_pending > 0);
    if (--node->front_end_pending == 0) {
        on_all_clients_stopped(node);
    }
}

static void on_clients_stopped(void *context) {
    struct front_end *front_end = context;
    front_end->clients = NULL;
    front_end->message.run = run_stopped_answer;
    env_post(front_end->node->options.loop, &front_end->message);
}

static void run_stop_order(struct env_message *message) {
    struct front_end *front_end = CONTAINER_OF(message, struct front_end, message);
    if (front_end->clients == NULL) {
        on_clients_stopped(front_end);
    } else {
        clients_stop(front_end->clients, STOP_GRACE_US, on_clients_stopped, front_end);
    }
}

static void fail_start(struct node *node, const struct error *err) {
    if (node->error.code == STATUS_OK) {
        node->error = *err;
    }
    stop_serving(node);
}

static void run_started_answer(struct env_message *message) {
    struct front_end *front_end = CONTAINER_OF(message, struct front_end, message);
    struct node *node = front_end->node;
    CHECK(node->front_end_pending > 0);
    if (front_end->status != STATUS_OK && node->error.code == STATUS_OK) {
        node->error = front_end->error;
    }
    if (--node->front_end_pending > 0) {
        return;
    }
    if (node->error.code != STATUS_OK || node->stop_requested) {
        stop_serving(node);
        return;
    }
    set_state(node, NODE_SERVING);
    node->options.serving(node->options.context);
}

static void run_start_order(struct env_message *message) {
    struct front_end *front_end = CONTAINER_OF(message, struct front_end, message);
    struct node *node = front_end->node;
    struct clients_options options = {
        .env = node->options.env,
        .loop = front_end->loop,
        .transport = front_end->transport,
        .consensus = node->consensus,
        .config = node->options.config,
        .logger = node->options.logger,
        .listen_address = node->options.config->client_listen,
        .started_us = node->started_us,
        .connection_total = &node->connection_total,
    };
    front_end->status = clients_start(&options, &front_end->clients, &front_end->error);
    front_end->message.run = run_started_answer;
    env_post(node->options.loop, &front_end->message);
}

static enum status make_front_end(struct node *node, uint32_t number, bool own_thread, struct error *err) {
    struct front_end *front_end = &node->front_ends[number];
    *front_end = (struct front_end){.node = node, .loop = node->options.loop};
    if (own_thread) {
        char name[16];
        (void)snprintf(name, sizeof name, "io-%" PRIu32, number + 1);
        enum status status = env_loop_new(node->options.env, name, FRONT_END_MAILBOX, &front_end->loop, err);
        if (status != STATUS_OK) {
            return status;
        }
        status = env_loop_spawn(front_end->loop, err);
        if (status != STATUS_OK) {
            env_loop_free(front_end->loop);
            return status;
        }
    }
    node->front_end_count++;
    front_end->transport = node->options.client_transport(node->options.context, front_end->loop, err);
    return front_end->transport != NULL ? STATUS_OK : err->code;
}

static void start_front_ends(struct node *node) {
    uint32_t threads = node->options.config->io_threads;
    uint32_t count = threads == 0 ? 1 : threads < FRONT_ENDS_MAX ? threads : FRONT_ENDS_MAX;
    struct error error = {0};
    for (uint32_t i = 0; i < count; i++) {
        if (make_front_end(node, i, threads > 0, &error) != STATUS_OK) {
            fail_start(node, &error);
            return;
        }
    }
    node->front_end_pending = count;
    for (uint32_t i = 0; i < count; i++) {
        node->front_ends[i].message.run = run_start_order;
        env_post(node->front_ends[i].loop, &node->front_ends[i].message);
    }
}

/* ---- Recovery --------------------------------------------------------------------------------------------------- */

static void run_recovery(struct env_work *work) {
    struct node *node = CONTAINER_OF(work, struct node, recovery_work);
    node->recovery_status = recovery_run(&node->recovery, &node->error);
    if (node->recovery_status == STATUS_OK) {
        error_clear(&node->error); /* of what recovery expected and overcame */
    }
}

static void log_recovered(struct node *node) {
    const struct recovery *recovery = &node->recovery;
    uint64_t took_ms = (env_clock_us(node->options.env) - node->started_us) / 1000;
    log_event(node->options.logger, LOG_INFO, "node.recovered",
              "ms=%" PRIu64 " new=%s flushed=%" PRIu64 " applied=%" PRIu64 " last=%" PRIu64 " replayed=%" PRIu64
              " replayed_bytes=%" PRIu64 " replay_ms=%" PRIu64 " tail=%" PRIu64 " torn_bytes=%" PRIu64 " term=%" PRIu64,
              took_ms, recovery->dir.created ? "true" : "false", storage_frontier(recovery->storage)->index,
              storage_applied_index(recovery->storage), raft_last_index(recovery->raft), recovery->replayed,
              recovery->replayed_bytes, recovery->replay_us / 1000, recovery->tail, recovery->torn_bytes,
              raft_term(recovery->raft));
}

static void log_damage(struct node *node) {
    const struct error *store_fault = &node->recovery.store_fault;
    const struct error *identity_fault = &node->recovery.dir.fault;
    char reason[ERROR_MESSAGE_BYTES_MAX + 16];
    if (identity_fault->code != STATUS_OK) {
        log_event(node->options.logger, LOG_WARN, "identity.renewed", "reason=%s",
                  log_quote(reason, sizeof reason, identity_fault->message));
    }
    if (store_fault->code != STATUS_OK) {
        log_event(node->options.logger, LOG_WARN, "storage.set_aside", "to=db.faulty reason=%s",
                  log_quote(reason, sizeof reason, store_fault->message));
    }
    const struct wal_fault *fault = &node->recovery.fault;
    char quoted[sizeof fault->where + 16];
    if (fault->present) {
        log_event(node->options.logger, LOG_WARN, "log.damaged", "first=%" PRIu64 " last=%" PRIu64 " where=%s",
                  fault->first_index, fault->last_index, log_quote(quoted, sizeof quoted, fault->where));
    }
}

static void on_recovered(struct env_work *work) {
    struct node *node = CONTAINER_OF(work, struct node, recovery_work);
    struct recovery *recovery = &node->recovery;
    env_timer_cancel(&node->timer);
    if (node->recovery_status != STATUS_OK || node->stop_requested) {
        recovery_abandon(recovery, on_abandoned, node);
        return;
    }
    log_recovered(node);
    log_damage(node);
    consensus_note_replay(node->consensus, recovery->replayed, recovery->replayed_bytes, recovery->replay_us);
    set_state(node, NODE_STARTING);
    node->consensus_running = true;
    struct error error = {0};
    if (consensus_start(node->consensus, recovery->raft, recovery->wal, recovery->storage, &error) != STATUS_OK) {
        fail_start(node, &error);
        return;
    }
    start_front_ends(node);
}

static void on_timer(struct env_timer *timer) {
    struct node *node = CONTAINER_OF(timer, struct node, timer);
    if (node->state == NODE_STOPPING) {
        consensus_refuse_requests(node->consensus);
        return;
    }
    uint64_t done = atomic_load_explicit(&node->recovery.done, memory_order_relaxed);
    uint64_t total = atomic_load_explicit(&node->recovery.total, memory_order_relaxed);
    uint64_t left_us = recovery_left_us(&node->recovery);
    char left[32] = "unknown";
    if (left_us != UINT64_MAX) {
        (void)snprintf(left, sizeof left, "%" PRIu64, left_us / 1000);
    }
    log_event(node->options.logger, LOG_INFO, "node.recovering", "done=%" PRIu64 " total=%" PRIu64 " left_ms=%s", done,
              total, left);
    if (node->options.recovering != NULL) {
        node->options.recovering(node->options.context, done, total, left_us);
    }
    CHECK(env_timer_arm(timer, env_now_us(node->options.loop) + PROGRESS_INTERVAL_US) == STATUS_OK);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static void on_consensus_failed(void *context, const struct error *err) {
    struct node *node = context;
    if (node->error.code == STATUS_OK) {
        node->error = *err;
    }
    if (node->state == NODE_SERVING) {
        set_state(node, NODE_FAILED);
        node->options.failed(node->options.context, &node->error);
    }
}

enum status node_new(const struct node_options *options, struct node **ret_node, struct error *err) {
    struct node *node = mem_alloc_zero(options->env->alloc, sizeof *node);
    if (node == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "node: out of memory");
    }
    node->options = *options;
    env_timer_init(&node->timer, options->loop, on_timer);
    env_task_init(&node->end_task, run_end);
    struct consensus_options consensus_options = {
        .env = options->env,
        .loop = options->loop,
        .config = options->config,
        .logger = options->logger,
        .peer_transport = options->peer_transport,
        .context = node,
        .failed = on_consensus_failed,
        .observe = options->observe,
        .observe_context = options->context,
    };
    enum status status = consensus_new(&consensus_options, &node->consensus, err);
    if (status != STATUS_OK) {
        mem_free(options->env->alloc, node);
        return status;
    }
    *ret_node = node;
    return STATUS_OK;
}

void node_start(struct node *node) {
    CHECK(node->state == NODE_NEW);
    set_state(node, NODE_RECOVERING);
    node->started_us = env_clock_us(node->options.env);
    node->recovery.env = node->options.env;
    node->recovery.loop = node->options.loop;
    node->recovery.config = node->options.config;
    node->recovery.consensus = node->consensus;
    node->recovery_work = (struct env_work){.run = run_recovery, .done = on_recovered, .loop = node->options.loop};
    env_work_submit(node->options.env, ENV_WORK_LONG, &node->recovery_work);
    CHECK(env_timer_arm(&node->timer, env_now_us(node->options.loop) + PROGRESS_INTERVAL_US) == STATUS_OK);
}

static void stop_serving(struct node *node) {
    set_state(node, NODE_STOPPING);
    node->front_end_pending = node->front_end_count;
    if (node->front_end_count == 0) {
        consensus_stop(node->consensus, on_consensus_stopped, node);
        return;
    }
    /* Requests that the cluster can't answer in time are ended by the actor that holds them. */
    CHECK(env_timer_arm(&node->timer, env_now_us(node->options.loop) + STOP_GRACE_US) == STATUS_OK);
    for (uint32_t i = 0; i < node->front_end_count; i++) {
        node->front_ends[i].message.run = run_stop_order;
        env_post(node->front_ends[i].loop, &node->front_ends[i].message);
    }
}

void node_stop(struct node *node) {
    if (node->stop_requested) {
        return;
    }
    node->stop_requested = true;
    switch (node->state) {
    case NODE_NEW:
        consensus_free_unstarted(node->consensus);
        node->consensus = NULL;
        end(node);
        return;
    case NODE_SERVING: stop_serving(node); return;
    case NODE_FAILED:
        if (node->consensus_running) {
            stop_serving(node);
        } else {
            end(node);
        }
        return;
    case NODE_RECOVERING:
    case NODE_STARTING: /* noticed when the step under way ends */
    case NODE_STOPPING: /* `stopped` instead of `failed` */
    case NODE_STOPPED: return;
    }
}

void node_free(struct node *node) {
    if (node != NULL) {
        CHECK(node->consensus == NULL);
        mem_free(node->options.env->alloc, node);
    }
}

struct consensus *node_consensus(struct node *node) {
    return node->consensus_running ? node->consensus : NULL;
}

const char *node_client_address(const struct node *node) {
    return node->front_end_count > 0 && node->front_ends[0].clients != NULL
               ? clients_address(node->front_ends[0].clients)
               : node->options.config->client_listen;
}

const char *node_state_name(const struct node *node) { return state_names[node->state]; }
