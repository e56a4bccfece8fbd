/* Options: defaults, ranges, and the list of endpoints as text ("n1=127.0.0.1:4401, 127.0.0.1:4402"). */
#include "proto/client/client_internal.h"

#include "node/base/check.h"

#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = 5000, IN_FLIGHT = 4096, SILENCE_MS = 1000, SILENCE_MS_MIN = 50, SILENCE_MS_MAX = 60000 };
enum { IN_FLIGHT_BYTES = 64 * MIB };

void holdfast_options_init(struct holdfast_options *options) {
    *options = (struct holdfast_options){
        .timeout_ms = TIMEOUT_MS,
        .connections = 1,
        .in_flight_max = IN_FLIGHT,
        .in_flight_bytes_max = IN_FLIGHT_BYTES,
        .silence_ms = SILENCE_MS,
    };
}

void client_options_init(struct client_options *options) {
    memset(options, 0, sizeof *options);
    options->pin = -1;
    options->timeout_ms = TIMEOUT_MS;
    options->connections = 1;
    options->in_flight_max = IN_FLIGHT;
    options->in_flight_bytes_max = IN_FLIGHT_BYTES;
    options->silence_ms = SILENCE_MS;
}

static struct slice trim(struct slice text) {
    while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.len--;
    }
    while (text.len > 0 && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t')) {
        text.len--;
    }
    return text;
}

/* "host:port", port 1 to 65535; "[::1]:4401" too. */
static bool is_address(struct slice text) {
    size_t colon = text.len;
    while (colon > 0 && text.data[colon - 1] != ':') {
        colon--;
    }
    if (colon < 2 || colon == text.len || text.len - colon > 5 || text.len >= LIMIT_ADDRESS_BYTES) {
        return false;
    }
    unsigned port = 0;
    for (size_t i = colon; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        port = port * 10 + (unsigned)(text.data[i] - '0');
    }
    return port >= 1 && port <= 65535 && memchr(text.data, '=', text.len) == NULL;
}

static enum status add_endpoint(struct client_options *options, struct slice part, struct error *err) {
    const uint8_t *equals = part.len > 0 ? memchr(part.data, '=', part.len) : NULL;
    struct slice name = part;
    struct slice address = part;
    if (equals != NULL) {
        name = trim(slice_of(part.data, (size_t)(equals - part.data)));
        address = trim(slice_of(equals + 1, part.len - (size_t)(equals - part.data) - 1));
    }
    if (!is_address(address)) {
        return error_set(err, STATUS_INVALID, "endpoint \"%.*s\" is not host:port",
                         (int)(part.len < 100 ? part.len : 100), (const char *)part.data);
    }
    if (equals != NULL && (name.len == 0 || name.len >= LIMIT_NAME_BYTES)) {
        return error_set(err, STATUS_INVALID, "an endpoint's name has 1 to %d bytes", LIMIT_NAME_BYTES - 1);
    }
    if (options->endpoint_count == CLIENT_ENDPOINTS_MAX) {
        return error_set(err, STATUS_INVALID, "more than %d endpoints", CLIENT_ENDPOINTS_MAX);
    }
    struct client_endpoint_config *config = &options->endpoints[options->endpoint_count];
    memset(config, 0, sizeof *config);
    memcpy(config->name, name.data, name.len < LIMIT_NAME_BYTES ? name.len : LIMIT_NAME_BYTES - 1);
    memcpy(config->address, address.data, address.len);
    for (uint32_t i = 0; i < options->endpoint_count; i++) {
        if (strcmp(options->endpoints[i].address, config->address) == 0 ||
            strcmp(options->endpoints[i].name, config->name) == 0) {
            return error_set(err, STATUS_INVALID, "endpoint \"%.100s\" is there twice", config->name);
        }
    }
    options->endpoint_count++;
    return STATUS_OK;
}

enum status client_options_add_endpoints(struct client_options *options, const char *list, struct error *err) {
    struct slice rest = slice_of_string(list);
    for (;;) {
        const uint8_t *comma = rest.len > 0 ? memchr(rest.data, ',', rest.len) : NULL;
        size_t len = comma != NULL ? (size_t)(comma - rest.data) : rest.len;
        enum status status = add_endpoint(options, trim(slice_of(rest.data, len)), err);
        if (status != STATUS_OK || comma == NULL) {
            return status;
        }
        rest = slice_of(comma + 1, rest.len - len - 1);
    }
}

enum status client_options_set_pin(struct client_options *options, const char *node, struct error *err) {
    for (uint32_t i = 0; i < options->endpoint_count; i++) {
        if (strcmp(options->endpoints[i].name, node) == 0 || strcmp(options->endpoints[i].address, node) == 0) {
            options->pin = (int32_t)i;
            return STATUS_OK;
        }
    }
    if (!is_address(slice_of_string(node))) {
        return error_set(err, STATUS_INVALID, "node \"%.100s\" is none of the endpoints, and not host:port", node);
    }
    enum status status = add_endpoint(options, slice_of_string(node), err);
    if (status == STATUS_OK) {
        options->pin = (int32_t)options->endpoint_count - 1;
    }
    return status;
}

static enum status check_range(const char *name, uint64_t value, uint64_t low, uint64_t high, struct error *err) {
    if (value >= low && value <= high) {
        return STATUS_OK;
    }
    return error_set(err, STATUS_INVALID, "%s is %llu; it must be %llu to %llu", name, (unsigned long long)value,
                     (unsigned long long)low, (unsigned long long)high);
}

enum status client_options_check(const struct client_options *options, struct error *err) {
    if (options->endpoint_count == 0) {
        return error_set(err, STATUS_INVALID, "no endpoints: name at least one node as host:port");
    }
    CHECK(options->pin < (int32_t)options->endpoint_count);
    const struct {
        const char *name;
        uint64_t value, low, high;
    } ranges[] = {
        {"timeout_ms", options->timeout_ms, 1, CLIENT_TIMEOUT_MS_MAX},
        {"connections", options->connections, 1, CLIENT_CONNECTIONS_MAX},
        {"in_flight_max", options->in_flight_max, 1, CLIENT_IN_FLIGHT_MAX},
        {"in_flight_bytes_max", options->in_flight_bytes_max, 1, UINT64_MAX},
        {"silence_ms", options->silence_ms, SILENCE_MS_MIN, SILENCE_MS_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        enum status status = check_range(ranges[i].name, ranges[i].value, ranges[i].low, ranges[i].high, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}
