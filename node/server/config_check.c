/*
 * What only the whole configuration can tell: that its parts belong together, and the values that follow from others.
 *
 * Each check is a function that finds one contradiction and names both sides of it.
 */
#include "node/server/config_internal.h"

#include "storage/value_file.h"
#include "storage/wal.h"

#include <inttypes.h>

enum { ELECTION_HEARTBEATS_MIN = 3 };

/* The log keeps four of the largest entries to a segment, each in a group of its own, behind the segment's header
 * block. */
#define GROUP_BYTES_MAX   (UINT64_C(2) * ENV_BLOCK_BYTES + WAL_RECORD_HEADER_BYTES + LIMIT_ENTRY_PAYLOAD_BYTES)
#define SEGMENT_BYTES_MIN (ENV_BLOCK_BYTES + 4 * (GROUP_BYTES_MAX - GROUP_BYTES_MAX % ENV_BLOCK_BYTES))

static enum status require_sections(const struct config *config, const struct config_places *places,
                                    struct error *err) {
    if (config->name[0] == '\0') {
        return config__error(places, 0, err, "section [node] is missing");
    }
    if (config->ca_file[0] == '\0') {
        return config__error(places, 0, err, "section [tls] is missing");
    }
    if (config->member_count == 0) {
        return config__error(places, 0, err, "there is no [member NAME] section: every node of the cluster needs one");
    }
    return STATUS_OK;
}

/* Which member this is, and where it listens unless the file says. */
static enum status find_self(struct config *config, const struct config_places *places, struct error *err) {
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct config_member *member = &config->members[i];
        if (strcmp(member->name, config->name) != 0) {
            continue;
        }
        config->id = member->id;
        if (config->client_listen[0] == '\0') {
            memcpy(config->client_listen, member->client_address, sizeof config->client_listen);
        }
        if (config->peer_listen[0] == '\0') {
            memcpy(config->peer_listen, member->peer_address, sizeof config->peer_listen);
        }
        return STATUS_OK;
    }
    return config__error(places, config__line_of(places, config, offsetof(struct config, name)), err,
                         "name = %s, but there is no section [member %s]", config->name, config->name);
}

static enum status check_member_pair(const struct config_member *first, const struct config_member *second,
                                     const struct config_places *places, struct error *err) {
    if (first->id == second->id) {
        return config__error(places, config__line_of(places, second, offsetof(struct config_member, id)), err,
                             "members %s and %s have the same id %" PRIu64, first->name, second->name, first->id);
    }
    const struct {
        const char *one;
        const char *other;
        size_t offset;
    } pairs[] = {
        {first->peer_address, second->peer_address, offsetof(struct config_member, peer_address)},
        {first->client_address, second->client_address, offsetof(struct config_member, client_address)},
        {first->client_address, second->peer_address, offsetof(struct config_member, peer_address)},
        {first->peer_address, second->client_address, offsetof(struct config_member, client_address)},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (strcmp(pairs[i].one, pairs[i].other) == 0) {
            return config__error(places, config__line_of(places, second, pairs[i].offset), err,
                                 "members %s and %s have the same address %s", first->name, second->name, pairs[i].one);
        }
    }
    return STATUS_OK;
}

static enum status check_members(const struct config *config, const struct config_places *places, struct error *err) {
    enum status status = STATUS_OK;
    for (uint32_t i = 0; i < config->member_count && status == STATUS_OK; i++) {
        const struct config_member *member = &config->members[i];
        if (strcmp(member->peer_address, member->client_address) == 0) {
            status =
                config__error(places, config__line_of(places, member, offsetof(struct config_member, client_address)),
                              err, "member %s has the same address for peers and clients", member->name);
        }
        for (uint32_t k = 0; k < i && status == STATUS_OK; k++) {
            status = check_member_pair(&config->members[k], member, places, err);
        }
    }
    return status;
}

/* The n-th of all certificates, members' first. */
static const uint8_t *thumbprint_at(const struct config *config, uint32_t at, const char **ret_name, uint32_t *ret_line,
                                    const struct config_places *places) {
    if (at < config->member_count) {
        const struct config_member *member = &config->members[at];
        *ret_name = member->name;
        *ret_line = config__line_of(places, member, offsetof(struct config_member, thumbprint));
        return member->thumbprint;
    }
    const struct config_identity *identity = &config->identities[at - config->member_count];
    *ret_name = identity->name;
    *ret_line = config__line_of(places, identity, offsetof(struct config_identity, thumbprint));
    return identity->thumbprint;
}

static enum status check_thumbprints(const struct config *config, const struct config_places *places,
                                     struct error *err) {
    static const uint8_t zero[ENV_THUMBPRINT_BYTES];
    uint32_t count = config->member_count + config->identity_count;
    for (uint32_t i = 0; i < count; i++) {
        const char *name;
        uint32_t line;
        const uint8_t *thumbprint = thumbprint_at(config, i, &name, &line, places);
        if (memcmp(thumbprint, zero, sizeof zero) == 0) {
            return config__error(places, line, err, "the thumbprint of %s is all zeroes: no certificate has that",
                                 name);
        }
        for (uint32_t k = 0; k < i; k++) {
            const char *other;
            uint32_t other_line;
            if (memcmp(thumbprint_at(config, k, &other, &other_line, places), thumbprint, ENV_THUMBPRINT_BYTES) == 0) {
                return config__error(places, line, err,
                                     "%s has the same thumbprint as %s in line %u: each needs its own certificate",
                                     name, other, other_line);
            }
        }
    }
    return STATUS_OK;
}

static enum status check_numbers(const struct config *config, const struct config_places *places, struct error *err) {
    if (config->heartbeat_ms * ELECTION_HEARTBEATS_MIN > config->election_timeout_ms) {
        uint32_t line = config__line_of(places, config, offsetof(struct config, heartbeat_ms));
        uint32_t other = config__line_of(places, config, offsetof(struct config, election_timeout_ms));
        return config__error(places, line > other ? line : other, err,
                             "election_timeout_ms = %u is less than %d times heartbeat_ms = %u",
                             config->election_timeout_ms, ELECTION_HEARTBEATS_MIN, config->heartbeat_ms);
    }
    if (config->segment_bytes < SEGMENT_BYTES_MIN || config->segment_bytes % ENV_BLOCK_BYTES != 0) {
        return config__error(places, config__line_of(places, config, offsetof(struct config, segment_bytes)), err,
                             "segment_bytes = %" PRIu64 " is not a multiple of %d of at least %" PRIu64
                             " (four of the largest entries)",
                             config->segment_bytes, ENV_BLOCK_BYTES, SEGMENT_BYTES_MIN);
    }
    if (config->value_threshold_bytes > 0 && config->value_threshold_bytes < VALUE_THRESHOLD_BYTES_MIN) {
        return config__error(places, config__line_of(places, config, offsetof(struct config, value_threshold_bytes)),
                             err, "value_threshold = %" PRIu64 " is neither 0 nor at least %d",
                             config->value_threshold_bytes, VALUE_THRESHOLD_BYTES_MIN);
    }
    return STATUS_OK;
}

static bool has_port_zero(const char *address) {
    size_t len = strlen(address);
    return len >= 2 && strcmp(address + len - 2, ":0") == 0;
}

static enum status check_listening(const struct config *config, const struct config_places *places, struct error *err) {
    if (strcmp(config->client_listen, config->peer_listen) == 0 && !has_port_zero(config->client_listen)) {
        return config__error(places, config__line_of(places, config, offsetof(struct config, peer_listen)), err,
                             "client_listen and peer_listen are the same address %s", config->peer_listen);
    }
    return STATUS_OK;
}

enum status config__check(struct config *config, const struct config_places *places, struct error *err) {
    enum status status = require_sections(config, places, err);
    if (status == STATUS_OK) {
        status = find_self(config, places, err);
    }
    static enum status (*const checks[])(const struct config *, const struct config_places *,
                                         struct error *) = {check_members, check_thumbprints, check_numbers,
                                                            check_listening};
    for (size_t i = 0; i < sizeof checks / sizeof checks[0] && status == STATUS_OK; i++) {
        status = checks[i](config, places, err);
    }
    return status;
}
