/* "host:port" to socket addresses and back. */
#include "node/env/os/tcp_internal.h"

#include <stdio.h>
#include <string.h>

enum { PORT_MAX = 65535, PORT_DIGITS_MAX = 5 };

static bool parse_port(const char *text, bool port_zero) {
    unsigned long port = 0;
    size_t digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9' && digits < PORT_DIGITS_MAX; digits++) {
        port = port * 10 + (unsigned long)(text[digits] - '0');
    }
    return digits > 0 && text[digits] == '\0' && port <= PORT_MAX && (port > 0 || port_zero);
}

enum status tcp__parse(const char *address, bool port_zero, struct tcp_name *ret_name, struct error *err) {
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address) {
        return error_set(err, STATUS_INVALID, "address '%.200s' is not host:port", address);
    }
    const char *host = address;
    size_t host_len = (size_t)(colon - address);
    if (host[0] == '[' && host[host_len - 1] == ']' && host_len > 2) {
        host++;
        host_len -= 2;
    } else if (memchr(host, ':', host_len) != NULL) {
        return error_set(err, STATUS_INVALID, "address '%.200s': write an IPv6 host in brackets, [::1]:4401", address);
    } else if (strcspn(host, "[] ") < host_len) {
        return error_set(err, STATUS_INVALID, "address '%.200s': the host is not a name or an IP address", address);
    }
    struct tcp_name name = {.port = ""};
    if (host_len >= sizeof name.host) {
        return error_set(err, STATUS_INVALID, "address '%.60s...': the host is too long", address);
    }
    if (!parse_port(colon + 1, port_zero)) {
        return error_set(err, STATUS_INVALID, "address '%.200s': the port is not a number from %d to %d", address,
                         port_zero ? 0 : 1, PORT_MAX);
    }
    memcpy(name.host, host, host_len);
    (void)snprintf(name.port, sizeof name.port, "%s", colon + 1);
    *ret_name = name;
    return STATUS_OK;
}

bool tcp__numeric(const struct tcp_name *name, struct sockaddr_storage *ret_address) {
    const char *host = strcmp(name->host, "localhost") == 0 ? "127.0.0.1" : name->host;
    int port = 0;
    CHECK(sscanf(name->port, "%d", &port) == 1);
    struct sockaddr_storage address;
    memset(&address, 0, sizeof address);
    if (uv_ip4_addr(host, port, (struct sockaddr_in *)(void *)&address) != 0 &&
        uv_ip6_addr(host, port, (struct sockaddr_in6 *)(void *)&address) != 0) {
        return false;
    }
    *ret_address = address;
    return true;
}

void tcp__format(const struct sockaddr_storage *address, char out[LIMIT_ADDRESS_BYTES]) {
    char host[64] = "?";
    unsigned port;
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
        (void)uv_ip6_name(in6, host, sizeof host);
        port = ntohs(in6->sin6_port);
        (void)snprintf(out, LIMIT_ADDRESS_BYTES, "[%s]:%u", host, port);
    } else {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)address;
        (void)uv_ip4_name(in4, host, sizeof host);
        port = ntohs(in4->sin_port);
        (void)snprintf(out, LIMIT_ADDRESS_BYTES, "%s:%u", host, port);
    }
}
