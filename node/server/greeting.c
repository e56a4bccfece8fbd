/* See greeting.h. */
#include "node/server/greeting.h"

#include "node/server/identity.h"
#include "proto/frame.h"

/* protobuf-c only reads what it packs. */
static char *borrow_text(const char *text) { return (char *)text; }

void greeting_fill(Wire__Greeting *greeting, const struct config *config, enum config_role role) {
    wire__greeting__init(greeting);
    greeting->has_protocol_min = 1;
    greeting->protocol_min = FRAME_VERSION;
    greeting->has_protocol_max = 1;
    greeting->protocol_max = FRAME_VERSION;
    greeting->has_cluster_id = 1;
    greeting->cluster_id.data = (uint8_t *)config->cluster_id;
    greeting->cluster_id.len = CONFIG_CLUSTER_ID_BYTES;
    greeting->has_node_id = 1;
    greeting->node_id = config->id;
    greeting->node_name = borrow_text(config->name);
    greeting->role = borrow_text(config_role_name(role));
}

enum status greeting_refuse(struct connection *connection, enum wire_code code, const char *message) {
    const struct env_peer *peer = connection_peer(connection);
    char thumbprint[2 * ENV_THUMBPRINT_BYTES + 1];
    identity_thumbprint_text(peer->thumbprint, thumbprint);
    Wire__Refusal refusal = WIRE__REFUSAL__INIT;
    refusal.has_code = 1;
    refusal.code = (uint32_t)code;
    refusal.message = borrow_text(message);
    refusal.thumbprint = peer->certificate == ENV_CERTIFICATE_NONE ? NULL : thumbprint;
    enum status status = connection_send(connection, FRAME_REFUSAL, 0, &refusal.base, NULL, 0);
    if (status == STATUS_OK) {
        connection_finish(connection);
    }
    return status;
}
