/*
 * holdfastd: the process around a node. It reads the configuration, makes the world (env, loop, log, TLS), runs the
 * node in it, and turns the end into an exit code.
 *
 *   0  stopped by SIGTERM or SIGINT
 *   1  failed: one line on stderr or in the log says why
 *   2  wrong usage
 *
 * SIGHUP opens the log file anew. A second SIGTERM or SIGINT ends the process at once.
 */
#include "node/base/check.h"
#include "node/env/os/env_os.h"
#include "node/server/identity.h"
#include "node/server/log_sink.h"
#include "node/server/node.h"
#include "node/server/notify.h"
#include "proto/tls/tls.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum {
    EXIT_USAGE = 2,
    CLIENT_CONTEXTS_MAX = 64,
    MAILBOX_MESSAGES = 64 * 1024,
    WORKERS_SHORT = 4,
    WORKERS_LONG = 4, /* two more than compactions at once, so that a flush finds one, and the scrub or other upkeep */
    HANDSHAKE_TIMEOUT_US = 5 * 1000 * 1000,
    HANDSHAKES_PER_TURN = 4,
    FAILED_EXIT_US = 5 * 1000 * 1000, /* a failed node that can't even close is left where it is */
    FILES_BESIDE_CONNECTIONS = 512
};

struct holdfastd {
    const char *config_path;
    struct config config;
    struct fault_set faults;
    struct env *env;
    struct env_loop *loop;
    struct log_sink *sink;
    struct logger *logger; /* NULL before the log is open */
    struct tls_context *peer_context;
    struct tls_context *client_contexts[CLIENT_CONTEXTS_MAX];
    uint32_t client_context_count;
    uint32_t client_contexts_used;
    struct node *node;
    struct notify notify;
    struct env_timer exit_timer;
    unsigned stop_signals;
    int exit_code;
};

static const char usage[] = "usage: holdfastd --config FILE [--check-config]\n"
                            "       holdfastd --version | --help\n";

static const char help[] =
    "A node of a Holdfast cluster.\n"
    "\n"
    "  -c, --config FILE   the node's configuration; holdfast.conf.example explains it\n"
    "      --check-config  check the configuration and the files it names, then exit\n"
    "      --version       print the version\n"
    "      --help          print this\n"
    "\n"
    "SIGTERM and SIGINT stop the node in order, a second one at once. SIGHUP opens the log file anew.\n";

/* ---- Callbacks of the node ------------------------------------------------------------------------------------- */

static void on_serving(void *context) {
    struct holdfastd *daemon = context;
    log_event(daemon->logger, LOG_INFO, "node.serving", "clients=%s peers=%s", node_client_address(daemon->node),
              daemon->config.peer_listen);
    if (notify_serving(&daemon->notify) != STATUS_OK) {
        log_event(daemon->logger, LOG_WARN, "notify.failed", "reason=\"out of memory\"");
    }
}

static void on_recovering(void *context, uint64_t done, uint64_t total, uint64_t left_us) {
    notify_recovering(&((struct holdfastd *)context)->notify, done, total, left_us);
}

static void on_exit_timer(struct env_timer *timer) {
    struct holdfastd *daemon = CONTAINER_OF(timer, struct holdfastd, exit_timer);
    (void)fprintf(stderr, "holdfastd: the node didn't stop in time; ended as it was\n");
    env_exit(daemon->env, EXIT_FAILURE);
}

static void on_failed(void *context, const struct error *err) {
    struct holdfastd *daemon = context;
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    daemon->exit_code = EXIT_FAILURE;
    log_event(daemon->logger, LOG_ERROR, "node.failed", "reason=%s", log_quote(quoted, sizeof quoted, err->message));
    if (daemon->config.log_file[0] != '\0') {
        (void)fprintf(stderr, "holdfastd: %s\n", err->message);
    }
    notify_stopping(&daemon->notify, err->message);
    if (env_timer_arm(&daemon->exit_timer, env_now_us(daemon->loop) + FAILED_EXIT_US) != STATUS_OK) {
        env_exit(daemon->env, EXIT_FAILURE);
    }
    node_stop(daemon->node);
}

static void on_log_flushed(void *context) { env_loop_stop(((struct holdfastd *)context)->loop); }

static void on_stopped(void *context) {
    struct holdfastd *daemon = context;
    log_event(daemon->logger, LOG_INFO, "process.stop", "code=%d", daemon->exit_code);
    log_sink_finish(daemon->sink, on_log_flushed, daemon);
}

static struct env_transport *take_client_transport(void *context, struct env_loop *loop, struct error *err) {
    struct holdfastd *daemon = context;
    (void)loop; /* which context serves which loop doesn't matter, as long as each has its own */
    if (daemon->client_contexts_used == daemon->client_context_count) {
        (void)error_set(err, STATUS_FAILED, "more client loops than were prepared");
        return NULL;
    }
    return tls_context_transport(daemon->client_contexts[daemon->client_contexts_used++]);
}

/* ---- Callbacks of the world ------------------------------------------------------------------------------------ */

static void on_tls_rejected(void *context, const char *address, const struct error *err) {
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    log_event(((struct holdfastd *)context)->logger, LOG_WARN, "tls.rejected", "addr=%s reason=%s", address,
              log_quote(quoted, sizeof quoted, err->message));
}

static void on_stop_signal(void *context, int signum) {
    struct holdfastd *daemon = context;
    if (daemon->stop_signals++ > 0) {
        (void)fprintf(stderr, "holdfastd: second signal: ended at once\n");
        env_exit(daemon->env, EXIT_FAILURE);
    }
    log_event(daemon->logger, LOG_INFO, "process.signal", "signal=%s action=stop", strsignal(signum));
    notify_stopping(&daemon->notify, "stopping");
    node_stop(daemon->node);
}

static void on_reopen_signal(void *context, int signum) {
    struct holdfastd *daemon = context;
    (void)signum;
    log_sink_reopen(daemon->sink);
    log_event(daemon->logger, LOG_INFO, "log.reopened", "file=%s",
              daemon->config.log_file[0] != '\0' ? daemon->config.log_file : "stderr");
}

static uint64_t progress_us(void *context) {
    struct consensus *consensus = node_consensus(((struct holdfastd *)context)->node);
    return consensus != NULL ? consensus_progress_us(consensus) : 0;
}

static void describe(void *context, char *ret_text, size_t size) {
    struct holdfastd *daemon = context;
    struct consensus *consensus = node_consensus(daemon->node);
    struct directory_entry leader;
    bool is_known = consensus != NULL && directory_look_up(consensus_directory(consensus), &daemon->config,
                                                           consensus_leader(consensus), &leader);
    (void)snprintf(ret_text, size, "%s on %s; leader: %s", node_state_name(daemon->node),
                   node_client_address(daemon->node), is_known ? leader.name : "none");
}

/* ---- Making the world ------------------------------------------------------------------------------------------ */

static enum status arm_faults(struct holdfastd *daemon, struct error *err) {
    const char *specification = getenv("HOLDFAST_FAULTS");
    fault_init(&daemon->faults);
    if (specification == NULL || specification[0] == '\0') {
        return STATUS_OK;
    }
    if (!daemon->config.fault_injection) {
        return error_set(err, STATUS_INVALID,
                         "HOLDFAST_FAULTS is set, but the configuration doesn't say fault_injection = on");
    }
    enum status status = fault_arm(&daemon->faults, specification, err);
    error_prefix(err, "HOLDFAST_FAULTS");
    return status;
}

/* The certificate that this node shows is the one that its peers expect. */
static enum status check_own_certificate(struct holdfastd *daemon, struct error *err) {
    const struct config *config = &daemon->config;
    const struct config_member *self = config_member_by_id(config, config->id);
    uint8_t thumbprint[ENV_THUMBPRINT_BYTES];
    enum status status = tls_thumbprint_of_file(daemon->env, config->cert_file, thumbprint, err);
    CHECK(self != NULL);
    if (status == STATUS_OK && memcmp(thumbprint, self->thumbprint, sizeof thumbprint) != 0) {
        char text[2 * ENV_THUMBPRINT_BYTES + 1];
        identity_thumbprint_text(thumbprint, text);
        status = error_set(err, STATUS_INVALID, "the thumbprint of %.100s is %s, but [member %s] names another one",
                           config->cert_file, text, self->name);
    }
    return status;
}

/* Whose certificate a peer shows is checked by its link (peer_out.c): members come and go. */
static enum status make_context(struct holdfastd *daemon, struct tls_context **ret_context, struct error *err) {
    const struct config *config = &daemon->config;
    struct tls_options options = {
        .ca_file = config->ca_file,
        .cert_file = config->cert_file,
        .key_file = config->key_file,
        .handshake_timeout_us = HANDSHAKE_TIMEOUT_US,
        .handshakes_per_turn = HANDSHAKES_PER_TURN,
        .context = daemon,
        .rejected = on_tls_rejected,
    };
    return tls_context_new(daemon->env, env_os_tcp(daemon->env), &options, ret_context, err);
}

static enum status make_contexts(struct holdfastd *daemon, struct error *err) {
    enum status status = make_context(daemon, &daemon->peer_context, err);
    uint32_t count = daemon->config.io_threads > 0 ? daemon->config.io_threads : 1;
    CHECK(count <= CLIENT_CONTEXTS_MAX);
    while (status == STATUS_OK && daemon->client_context_count < count) {
        status = make_context(daemon, &daemon->client_contexts[daemon->client_context_count], err);
        daemon->client_context_count += status == STATUS_OK;
    }
    return status;
}

/* Everything that the configuration names, short of opening the data directory and the ports. */
static enum status prepare(struct holdfastd *daemon, struct error *err) {
    struct env_os_options options = {
        .faults = &daemon->faults,
        .use_ring = daemon->config.use_ring,
        .workers_short = WORKERS_SHORT,
        .workers_long = WORKERS_LONG,
    };
    enum status status = arm_faults(daemon, err);
    if (status == STATUS_OK) {
        status = env_os_new(&options, &daemon->env, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (daemon->config.io_threads_auto) {
        daemon->config.io_threads = config_auto_io_threads(env_cpu_count(daemon->env));
    }
    status = check_own_certificate(daemon, err);
    return status == STATUS_OK ? make_contexts(daemon, err) : status;
}

static void raise_file_limit(struct holdfastd *daemon) {
    struct rlimit limit;
    uint64_t wanted = (uint64_t)daemon->config.client_connections_max + FILES_BESIDE_CONNECTIONS;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < wanted) {
        log_event(daemon->logger, LOG_WARN, "process.limits",
                  "open_files=%" PRIu64 " wanted=%" PRIu64
                  " hint=\"raise LimitNOFILE or lower client_connections_max\"",
                  (uint64_t)limit.rlim_max, wanted);
    }
}

static enum status watch_signals(struct holdfastd *daemon, struct error *err) {
    static const struct {
        int signum;
        void (*callback)(void *context, int signum);
    } signals[] = {{SIGTERM, on_stop_signal}, {SIGINT, on_stop_signal}, {SIGHUP, on_reopen_signal}};
    enum status status = STATUS_OK;
    for (size_t i = 0; i < sizeof signals / sizeof signals[0] && status == STATUS_OK; i++) {
        status = env_os_on_signal(daemon->loop, signals[i].signum, signals[i].callback, daemon, err);
    }
    return status;
}

static void log_start(struct holdfastd *daemon) {
    const struct config *config = &daemon->config;
    const char *reason = "";
    bool ring = env_os_has_ring(daemon->env, &reason);
    char quoted[ERROR_MESSAGE_BYTES_MAX];
    log_event(daemon->logger, LOG_INFO, "process.start",
              "version=%s config=%s node=%s id=%" PRIu64 " members=%u data=%s io_threads=%u files=%s%s%s",
              HOLDFAST_VERSION, daemon->config_path, config->name, config->id, config->member_count, config->data_dir,
              config->io_threads, ring ? "io_uring" : "threads",
              ring ? "" : " reason=", ring ? "" : log_quote(quoted, sizeof quoted, reason));
}

static enum status make_node(struct holdfastd *daemon, struct error *err) {
    enum status status = env_loop_new(daemon->env, "consensus", MAILBOX_MESSAGES, &daemon->loop, err);
    if (status != STATUS_OK) {
        return status;
    }
    env_timer_init(&daemon->exit_timer, daemon->loop, on_exit_timer);
    struct notify_options notify_options = {.loop = daemon->loop,
                                            .context = daemon,
                                            .progress_us = progress_us,
                                            .describe = describe};
    notify_init(&daemon->notify, &notify_options);
    struct node_options options = {
        .env = daemon->env,
        .loop = daemon->loop,
        .config = &daemon->config,
        .logger = daemon->logger,
        .peer_transport = tls_context_transport(daemon->peer_context),
        .client_transport = take_client_transport,
        .context = daemon,
        .serving = on_serving,
        .recovering = on_recovering,
        .failed = on_failed,
        .stopped = on_stopped,
    };
    status = watch_signals(daemon, err);
    return status == STATUS_OK ? node_new(&options, &daemon->node, err) : status;
}

static void dismantle(struct holdfastd *daemon) {
    if (daemon->loop != NULL) {
        env_timer_cancel(&daemon->exit_timer);
        notify_deinit(&daemon->notify);
    }
    node_free(daemon->node);
    for (uint32_t i = 0; i < daemon->client_context_count; i++) {
        tls_context_free(daemon->client_contexts[i]);
    }
    tls_context_free(daemon->peer_context);
    env_loop_free(daemon->loop);
    log_sink_close(daemon->sink);
    env_os_free(daemon->env);
    config_deinit(&daemon->config);
}

/* ---- Running --------------------------------------------------------------------------------------------------- */

static enum status run(struct holdfastd *daemon, struct error *err) {
    enum status status = prepare(daemon, err);
    if (status == STATUS_OK) {
        status = log_sink_open(daemon->env, daemon->config.log_file, daemon->config.log_level, &daemon->sink, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    daemon->logger = log_sink_logger(daemon->sink);
    raise_file_limit(daemon);
    status = make_node(daemon, err);
    if (status != STATUS_OK) {
        char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
        log_event(daemon->logger, LOG_ERROR, "process.failed", "reason=%s",
                  log_quote(quoted, sizeof quoted, err->message));
        return status;
    }
    log_start(daemon);
    log_sink_attach(daemon->sink, daemon->loop);
    node_start(daemon->node);
    env_loop_run(daemon->loop);
    return STATUS_OK;
}

static enum status check_config(struct holdfastd *daemon, struct error *err) {
    enum status status = prepare(daemon, err);
    if (status == STATUS_OK) {
        (void)printf("%s is fine: node %s, one of %u members, %u identities\n", daemon->config_path,
                     daemon->config.name, daemon->config.member_count, daemon->config.identity_count);
    }
    return status;
}

int main(int argc, char **argv) {
    enum { OPTION_CHECK = 256, OPTION_VERSION, OPTION_HELP };
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check-config", no_argument, NULL, OPTION_CHECK},
                                            {"version", no_argument, NULL, OPTION_VERSION},
                                            {"help", no_argument, NULL, OPTION_HELP},
                                            {NULL, 0, NULL, 0}};
    struct holdfastd daemon = {.exit_code = EXIT_SUCCESS};
    bool check_only = false;
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        switch (option) {
        case 'c': daemon.config_path = optarg; break;
        case OPTION_CHECK: check_only = true; break;
        case OPTION_VERSION: (void)printf("holdfastd %s\n", HOLDFAST_VERSION); return EXIT_SUCCESS;
        case OPTION_HELP: (void)printf("%s\n%s", usage, help); return EXIT_SUCCESS;
        default: (void)fputs(usage, stderr); return EXIT_USAGE;
        }
    }
    if (daemon.config_path == NULL || optind < argc) {
        (void)fputs(usage, stderr);
        return EXIT_USAGE;
    }
    struct error err = {0};
    config_init(&daemon.config, alloc_system());
    enum status status = config_load(&daemon.config, daemon.config_path, &err);
    if (status == STATUS_OK) {
        status = check_only ? check_config(&daemon, &err) : run(&daemon, &err);
    }
    if (status != STATUS_OK) {
        (void)fprintf(stderr, "holdfastd: %s\n", err.message);
        daemon.exit_code = EXIT_FAILURE;
    }
    dismantle(&daemon);
    return daemon.exit_code;
}
