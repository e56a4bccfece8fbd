/*
 * The handle: production env, TLS, one loop thread and the session core, made and taken apart in order.
 *
 * open: env -> loop -> TLS files -> core -> thread.   close: core closes on the thread -> thread ends -> the same in
 * reverse.
 */
#include "proto/client/handle_internal.h"

#include "node/base/check.h"
#include "node/env/os/env_os.h"
#include "proto/tls/tls.h"

enum {
    HANDSHAKE_TIMEOUT_US = 5 * 1000 * 1000,
    HANDSHAKES_PER_TURN = 4,
    THUMBPRINT_DIGITS = 2 * ENV_THUMBPRINT_BYTES,
    MAILBOX_COUNT_MAX = 2 * CLIENT_IN_FLIGHT_MAX
};

/* ---- Options -------------------------------------------------------------------------------------------------- */

static enum status translate(const struct holdfast_options *from, struct client_options *out, struct error *err) {
    client_options_init(out);
    out->timeout_ms = from->timeout_ms;
    out->connections = from->connections;
    out->in_flight_max = from->in_flight_max;
    out->in_flight_bytes_max = from->in_flight_bytes_max;
    out->silence_ms = from->silence_ms;
    enum status status = STATUS_OK;
    if (from->endpoints != NULL) {
        status = client_options_add_endpoints(out, from->endpoints, err);
    }
    if (status == STATUS_OK && from->node != NULL) {
        status = client_options_set_pin(out, from->node, err);
    }
    return status == STATUS_OK ? client_options_check(out, err) : status;
}

static int hex_value(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    if (digit >= 'a' && digit <= 'f') {
        return digit - 'a' + 10;
    }
    return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

/* "hex,hex": 64 digits each; colons between bytes, as openssl prints them, are passed over. */
static enum status parse_thumbprints(const char *text, uint8_t (*out)[ENV_THUMBPRINT_BYTES], uint32_t *ret_count,
                                     struct error *err) {
    uint32_t count = 0;
    size_t digits = 0;
    for (const char *at = text;; at++) {
        if (*at == ' ' || *at == ':') {
            continue;
        }
        if (*at == ',' || *at == '\0') {
            if (digits != THUMBPRINT_DIGITS) {
                break;
            }
            count++;
            digits = 0;
            if (*at == '\0') {
                *ret_count = count;
                return STATUS_OK;
            }
            continue;
        }
        int value = hex_value(*at);
        if (value < 0 || count == TLS_EXPECTED_THUMBPRINTS_MAX || digits == THUMBPRINT_DIGITS) {
            break;
        }
        uint8_t *byte = &out[count][digits / 2];
        *byte = (uint8_t)(digits % 2 == 0 ? value << 4 : *byte | value);
        digits++;
    }
    return error_set(err, STATUS_INVALID,
                     "server thumbprints must be 1 to %d SHA-256 sums of 64 hex digits, with commas",
                     TLS_EXPECTED_THUMBPRINTS_MAX);
}

/* ---- Opening -------------------------------------------------------------------------------------------------- */

static void handle_free(struct holdfast *handle) {
    client_core_free(handle->core);
    tls_context_free(handle->tls);
    env_loop_free(handle->loop);
    for (size_t i = 0; i < HANDLE_SPARE_EVENTS; i++) {
        env_event_free(atomic_load(&handle->spare_events[i]));
    }
    struct env *env = handle->env;
    mem_free(env->alloc, handle);
    env_os_free(env);
}

static enum status open_tls(struct holdfast *handle, const struct holdfast_options *options,
                            struct env_transport **ret_transport, struct error *err) {
    uint8_t expected[TLS_EXPECTED_THUMBPRINTS_MAX][ENV_THUMBPRINT_BYTES];
    struct tls_options tls = {
        .ca_file = options->ca_file,
        .cert_file = options->cert_file,
        .key_file = options->key_file,
        .handshake_timeout_us = HANDSHAKE_TIMEOUT_US,
        .handshakes_per_turn = HANDSHAKES_PER_TURN,
        .expected = (const uint8_t(*)[ENV_THUMBPRINT_BYTES])expected,
    };
    if (options->ca_file == NULL) {
        return error_set(err, STATUS_INVALID, "no CA file: name the PEM file of who signs the nodes' certificates");
    }
    if ((options->cert_file == NULL) != (options->key_file == NULL)) {
        return error_set(err, STATUS_INVALID, "a certificate needs its key, and a key its certificate");
    }
    enum status status = STATUS_OK;
    if (options->server_thumbprints != NULL) {
        status = parse_thumbprints(options->server_thumbprints, expected, &tls.expected_count, err);
    }
    if (status == STATUS_OK) {
        status = tls_context_new(handle->env, env_os_tcp(handle->env), &tls, &handle->tls, err);
    }
    if (status == STATUS_OK) {
        *ret_transport = tls_context_transport(handle->tls);
    }
    return status;
}

static enum holdfast_outcome open_handle(const struct holdfast_options *options, bool plain,
                                         struct holdfast **ret_handle, struct holdfast_result *result) {
    struct error err;
    struct env *env = NULL;
    const struct env_os_options os = {.use_ring = false, .workers_short = 1, .workers_long = 1};
    error_clear(&err);
    enum status status = env_os_new(&os, &env, &err);
    if (status != STATUS_OK) {
        return client_result_error(result, &err);
    }
    struct holdfast *handle = mem_alloc_zero(env->alloc, sizeof *handle);
    if (handle == NULL) {
        env_os_free(env);
        (void)error_set(&err, STATUS_NO_MEMORY, "out of memory");
        return client_result_error(result, &err);
    }
    handle->env = env;
    struct env_transport *transport = env_os_tcp(env);
    status = translate(options, &handle->options, &err);
    if (status == STATUS_OK) {
        status = env_loop_new(env, "holdfast", MAILBOX_COUNT_MAX, &handle->loop, &err);
    }
    if (status == STATUS_OK && !plain) {
        status = open_tls(handle, options, &transport, &err);
    }
    if (status == STATUS_OK) {
        status = client_core_new(env, handle->loop, transport, &handle->options, &handle->core);
        if (status != STATUS_OK) {
            (void)error_set(&err, status, "out of memory");
        }
    }
    if (status == STATUS_OK) {
        status = env_loop_spawn(handle->loop, &err);
    }
    if (status != STATUS_OK) {
        handle_free(handle);
        return client_result_error(result, &err);
    }
    *ret_handle = handle;
    if (result != NULL) {
        memset(result, 0, sizeof *result);
    }
    return HOLDFAST_OK;
}

enum holdfast_outcome holdfast_open(const struct holdfast_options *options, struct holdfast **ret_handle,
                                    struct holdfast_result *result) {
    return open_handle(options, false, ret_handle, result);
}

enum holdfast_outcome client_open_plain(const struct holdfast_options *options, struct holdfast **ret_handle,
                                        struct holdfast_result *result) {
    return open_handle(options, true, ret_handle, result);
}

/* ---- Certificates ----------------------------------------------------------------------------------------------- */

enum holdfast_outcome holdfast_certificate_thumbprint(const char *path,
                                                      uint8_t ret_thumbprint[HOLDFAST_THUMBPRINT_BYTES],
                                                      struct holdfast_result *result) {
    struct error err;
    struct env *env = NULL;
    const struct env_os_options os = {.use_ring = false, .workers_short = 1, .workers_long = 1};
    error_clear(&err);
    enum status status = env_os_new(&os, &env, &err);
    if (status == STATUS_OK) {
        status = tls_thumbprint_of_file(env, path, ret_thumbprint, &err);
        env_os_free(env);
    }
    if (status != STATUS_OK) {
        return client_result_error(result, &err);
    }
    if (result != NULL) {
        memset(result, 0, sizeof *result);
    }
    return HOLDFAST_OK;
}

/* ---- Closing -------------------------------------------------------------------------------------------------- */

static void core_closed(void *context) {
    struct holdfast *handle = context;
    env_loop_stop(handle->loop);
}

static void close_run(struct env_message *message) {
    struct holdfast *handle = CONTAINER_OF(message, struct holdfast, close_message);
    client_core_close(handle->core, core_closed, handle);
}

void holdfast_close(struct holdfast *handle) {
    if (handle == NULL) {
        return;
    }
    CHECK(!env_on_loop(handle->loop));
    handle->close_message.run = close_run;
    env_post(handle->loop, &handle->close_message);
    env_loop_join(handle->loop);
    handle_free(handle);
}

/* ---- Endpoints ------------------------------------------------------------------------------------------------ */

uint32_t holdfast_endpoint_count(const struct holdfast *handle) { return handle->options.endpoint_count; }

const char *holdfast_endpoint_name(const struct holdfast *handle, uint32_t endpoint) {
    return endpoint < handle->options.endpoint_count ? handle->options.endpoints[endpoint].name : "";
}

const char *holdfast_endpoint_address(const struct holdfast *handle, uint32_t endpoint) {
    return endpoint < handle->options.endpoint_count ? handle->options.endpoints[endpoint].address : "";
}
