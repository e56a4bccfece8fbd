/* The server's first word on both of its ports: a greeting, or one refusal that says what is wrong (DESIGN, section 6).
 */
#ifndef HOLDFAST_SERVER_GREETING_H
#define HOLDFAST_SERVER_GREETING_H

#include "node/server/config.h"
#include "proto/connection.h"
#include "proto/wire.pb-c.h"

/* Who this node is, and what it takes the other side for. Borrows config. The leader is left to the caller. */
void greeting_fill(Wire__Greeting *greeting, const struct config *config, enum config_role role);
/* Sends the refusal, then finishes the connection. STATUS_OK, or why it couldn't be sent: then the connection is the
 * caller's to close. */
MUST_USE enum status greeting_refuse(struct connection *connection, enum wire_code code, const char *message);

#endif
