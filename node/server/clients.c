/*
 * The life of a front end: it listens, sweeps its connections for those that stall or idle, and ends when the last
 * connection and the last request are gone.
 *
 * Requests outlive connections, and the front end outlives both: a request that the consensus actor or a read of a
 * block holds comes back to it.
 */
#include "node/server/clients_internal.h"

static void on_sweep(struct env_timer *timer) {
    struct clients *clients = CONTAINER_OF(timer, struct clients, sweep_timer);
    uint64_t now_us = env_now_us(clients->options.loop);
    LIST_FOREACH (node, &clients->connections) {
        client_connection__sweep(LIST_ENTRY(node, struct client_connection, link), now_us);
    }
    CHECK(env_timer_arm(timer, now_us + CLIENTS_SWEEP_US) == STATUS_OK); /* it ran: its place is there */
}

/* ---- Start ----------------------------------------------------------------------------------------------------- */

static void run_stopped(struct env_task *task);
static void on_grace_over(struct env_timer *timer);

static void free_clients(struct clients *clients) {
    for (struct list *node; (node = list_pop_front(&clients->free_requests)) != NULL;) {
        mem_free(clients->alloc, LIST_ENTRY(node, struct request, link));
    }
    request_read__free_jobs(clients);
    env_timer_cancel(&clients->sweep_timer);
    env_timer_cancel(&clients->grace_timer);
    env_listener_close(clients->listener);
    arena_deinit(&clients->arena);
    mem_free(clients->alloc, clients);
}

enum status clients_start(const struct clients_options *options, struct clients **ret_clients, struct error *err) {
    struct alloc *alloc = options->env->alloc;
    struct clients *clients = mem_alloc_zero(alloc, sizeof *clients);
    if (clients == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "client front end: out of memory");
    }
    clients->options = *options;
    clients->alloc = alloc;
    clients->total = options->connection_total != NULL ? options->connection_total : &clients->count;
    list_init(&clients->connections);
    list_init(&clients->free_requests);
    for (unsigned i = 0; i < READ_CLASS_COUNT; i++) {
        list_init(&clients->reads[i].waiting);
    }
    list_init(&clients->free_jobs);
    arena_init(&clients->arena, alloc, CLIENTS_ARENA_CHUNK_BYTES, LIMIT_UNPACK_BUDGET_BYTES);
    env_timer_init(&clients->sweep_timer, options->loop, on_sweep);
    env_timer_init(&clients->grace_timer, options->loop, on_grace_over);
    env_task_init(&clients->stop_task, run_stopped);
    enum status status = env_timer_arm(&clients->sweep_timer, env_now_us(options->loop) + CLIENTS_SWEEP_US);
    if (status != STATUS_OK) {
        (void)error_set(err, status, "client front end: out of memory");
    } else {
        status = env_listen(options->transport, options->loop, options->listen_address, client_connection__accepted,
                            clients, &clients->listener, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "clients at %s", options->listen_address);
        free_clients(clients);
        return status;
    }
    *ret_clients = clients;
    return STATUS_OK;
}

const char *clients_address(const struct clients *clients) { return env_listener_address(clients->listener); }

uint32_t clients_connection_count(const struct clients *clients) {
    return atomic_load_explicit(&clients->count, memory_order_relaxed);
}

/* ---- Counts ---------------------------------------------------------------------------------------------------- */

void clients__connection_opened(struct client_connection *connection) {
    struct clients *clients = connection->clients;
    list_push_back(&clients->connections, &connection->link);
    clients->open_count++;
    atomic_fetch_add_explicit(&clients->count, 1, memory_order_relaxed);
    if (clients->total != &clients->count) {
        atomic_fetch_add_explicit(clients->total, 1, memory_order_relaxed);
    }
}

void clients__connection_gone(struct client_connection *connection) {
    struct clients *clients = connection->clients;
    list_remove(&connection->link);
    for (unsigned i = 0; i < READ_CLASS_COUNT; i++) {
        list_remove(&connection->reads[i].waiting_link);
    }
    CHECK(clients->open_count > 0);
    clients->open_count--;
    atomic_fetch_sub_explicit(&clients->count, 1, memory_order_relaxed);
    if (clients->total != &clients->count) {
        atomic_fetch_sub_explicit(clients->total, 1, memory_order_relaxed);
    }
    clients__check_stopped(clients);
}

void clients__read_ended(struct clients *clients, enum read_class read_class) {
    struct list *node = list_pop_front(&clients->reads[read_class].waiting);
    if (node != NULL) {
        client_connection__update(LIST_ENTRY(node, struct client_connection, reads[read_class].waiting_link));
    }
}

/* ---- Stop ------------------------------------------------------------------------------------------------------ */

static void run_stopped(struct env_task *task) {
    struct clients *clients = CONTAINER_OF(task, struct clients, stop_task);
    CHECK(clients->open_count == 0 && clients->request_count == 0 &&
          clients->reads[READ_GET].count + clients->reads[READ_SCAN].count == 0);
    void (*stopped)(void *context) = clients->stopped;
    void *context = clients->stopped_context;
    free_clients(clients);
    stopped(context);
}

void clients__check_stopped(struct clients *clients) {
    if (clients->stopping && clients->open_count == 0 && clients->request_count == 0) {
        env_defer(clients->options.loop, ENV_STAGE_PROCESS, &clients->stop_task);
    }
}

static void on_grace_over(struct env_timer *timer) {
    struct clients *clients = CONTAINER_OF(timer, struct clients, grace_timer);
    LIST_FOREACH (node, &clients->connections) {
        connection_close(LIST_ENTRY(node, struct client_connection, link)->connection);
    }
}

void clients_stop(struct clients *clients, uint64_t grace_us, void (*stopped)(void *context), void *context) {
    CHECK(!clients->stopping);
    clients->stopping = true;
    clients->stopped = stopped;
    clients->stopped_context = context;
    env_listener_close(clients->listener);
    clients->listener = NULL;
    env_timer_cancel(&clients->sweep_timer);
    LIST_FOREACH (node, &clients->connections) {
        client_connection__update(LIST_ENTRY(node, struct client_connection, link));
    }
    if (env_timer_arm(&clients->grace_timer, env_now_us(clients->options.loop) + grace_us) != STATUS_OK) {
        on_grace_over(&clients->grace_timer);
    }
    clients__check_stopped(clients);
}
