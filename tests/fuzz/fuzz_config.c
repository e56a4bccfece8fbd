/*
 * A configuration file of any bytes. Checked: no crash, nothing leaks; what is refused says where in one line of text;
 * what is taken keeps the promises that the rest of the server builds on.
 */
#include "node/base/check.h"
#include "node/server/config.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static void check_taken(const struct config *config) {
    const struct config_member *self = config_member_by_id(config, config->id);
    CHECK(self != NULL && strcmp(self->name, config->name) == 0);
    CHECK(config->member_count >= 1 && config->member_count <= LIMIT_MEMBERS);
    CHECK(config->identity_count <= CONFIG_IDENTITIES_MAX);
    CHECK(config->heartbeat_ms * 3 <= config->election_timeout_ms);
    CHECK(config->segment_bytes % ENV_BLOCK_BYTES == 0 && config->segment_bytes > 4ull * LIMIT_ENTRY_PAYLOAD_BYTES);
    CHECK(config->client_connections_max > 0 && config->requests_per_connection_max > 0);
    CHECK(config->proposal_bytes_max > LIMIT_ENTRY_PAYLOAD_BYTES);
    CHECK(config->data_dir[0] != '\0' && config->client_listen[0] != '\0' && config->peer_listen[0] != '\0');
    for (uint32_t i = 0; i < config->member_count; i++) {
        CHECK(config_member_by_id(config, config->members[i].id) == &config->members[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    int fd = memfd_create("config", 0);
    CHECK(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct config config;
    struct error error = {0};
    config_init(&config, alloc_system());
    if (config_load(&config, path, &error) == STATUS_OK) {
        check_taken(&config);
    } else {
        CHECK(error.message[0] != '\0' && strstr(error.message, "/proc/self/fd/") != NULL);
        CHECK(strpbrk(error.message, "\r\n") == NULL);
    }
    config_deinit(&config);
    (void)close(fd);
    return 0;
}
