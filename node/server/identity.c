/*
 * From a certificate to a role, or to one sentence that says what is wrong with it and what to do.
 */
#include "node/server/identity.h"

#include "node/base/check.h"

#include <stdio.h>

void identity_thumbprint_text(const uint8_t thumbprint[ENV_THUMBPRINT_BYTES],
                              char ret_text[2 * ENV_THUMBPRINT_BYTES + 1]) {
    static const char digits[] = "0123456789abcdef";
    char *at = ret_text;
    for (size_t i = 0; i < ENV_THUMBPRINT_BYTES; i++) {
        *at++ = digits[thumbprint[i] >> 4];
        *at++ = digits[thumbprint[i] & 15];
    }
    *at = '\0';
}

static void become(enum config_role role, uint64_t node_id, const char name[LIMIT_NAME_BYTES],
                   struct identity *ret_identity) {
    *ret_identity = (struct identity){.role = role, .node_id = node_id};
    memcpy(ret_identity->name, name, sizeof ret_identity->name);
}

static bool find(const struct config *config, const struct directory *directory,
                 const uint8_t thumbprint[ENV_THUMBPRINT_BYTES], struct identity *ret_identity) {
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct config_member *member = &config->members[i];
        if (memcmp(member->thumbprint, thumbprint, ENV_THUMBPRINT_BYTES) == 0) {
            become(CONFIG_ROLE_PEER, member->id, member->name, ret_identity);
            return true;
        }
    }
    for (uint32_t i = 0; i < config->identity_count; i++) {
        const struct config_identity *identity = &config->identities[i];
        if (memcmp(identity->thumbprint, thumbprint, ENV_THUMBPRINT_BYTES) == 0) {
            become(identity->role, 0, identity->name, ret_identity);
            return true;
        }
    }
    struct directory_entry entry;
    if (directory_find_thumbprint(directory, thumbprint, &entry)) {
        become(CONFIG_ROLE_PEER, entry.id, entry.name, ret_identity);
        return true;
    }
    return false;
}

enum wire_code identity_check(const struct config *config, const struct directory *directory,
                              const struct env_peer *peer, struct identity *ret_identity, char *message,
                              size_t message_size) {
    /* What to say of a certificate that isn't valid; %s is its thumbprint. */
    static const struct {
        enum wire_code code;
        const char *format;
    } verdicts[] = {
        [ENV_CERTIFICATE_NONE] = {WIRE_NO_CERTIFICATE,
                                  "no client certificate was shown; start the client with --cert and --key"},
        [ENV_CERTIFICATE_VALID] = {WIRE_OK, ""},
        [ENV_CERTIFICATE_UNTRUSTED] = {WIRE_CERTIFICATE_UNTRUSTED,
                                       "certificate %s was not signed by this cluster's CA; have one made by that CA"},
        [ENV_CERTIFICATE_EXPIRED] =
            {WIRE_CERTIFICATE_EXPIRED,
             "certificate %s has expired; make a new one and add its thumbprint to the configuration"},
        [ENV_CERTIFICATE_NOT_YET_VALID] =
            {WIRE_CERTIFICATE_NOT_YET_VALID,
             "certificate %s is not yet valid; compare the clocks of both machines with its first date"},
    };
    CHECK((unsigned)peer->certificate < sizeof verdicts / sizeof verdicts[0]);
    char thumbprint[2 * ENV_THUMBPRINT_BYTES + 1];
    identity_thumbprint_text(peer->thumbprint, thumbprint);
    enum wire_code code = verdicts[peer->certificate].code;
    if (code == WIRE_OK) {
        if (find(config, directory, peer->thumbprint, ret_identity)) {
            return WIRE_OK;
        }
        (void)snprintf(message, message_size,
                       "certificate %s is not on the list; add an [identity] section with this thumbprint to the "
                       "configuration of every node and restart it",
                       thumbprint);
        return WIRE_CERTIFICATE_UNKNOWN;
    }
    /* The formats above are literals with at most one %s. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(message, message_size, verdicts[peer->certificate].format, thumbprint);
#pragma GCC diagnostic pop
    return code;
}

bool identity_may_read(const struct identity *identity) {
    return identity->role == CONFIG_ROLE_READ || identity_may_write(identity);
}

bool identity_may_write(const struct identity *identity) {
    return identity->role == CONFIG_ROLE_WRITE || identity->role == CONFIG_ROLE_ADMIN;
}

bool identity_is_admin(const struct identity *identity) { return identity->role == CONFIG_ROLE_ADMIN; }

bool identity_is_peer(const struct identity *identity) { return identity->role == CONFIG_ROLE_PEER; }
