/* Between the files of a played cluster (fake_server.h): fake_server.c has connections and faults, fake_store.c what is
 * stored, fake_data.c and fake_admin.c answer requests. Owner: the cluster's loop. */
#ifndef HOLDFAST_TESTS_FAKE_INTERNAL_H
#define HOLDFAST_TESTS_FAKE_INTERNAL_H

#include "tests/unit/support/fake_server.h"

/* A client's connection to a node. */
struct fake_peer {
    struct connection_handler handler;
    struct connection *connection;
    struct fake_node *node;
    struct list link;
};

/* ---- fake_server.c ---------------------------------------------------------------------------------------------- */

/* peer NULL: nobody waits for it. */
void fake__send(struct fake_peer *peer, uint8_t type, uint64_t id, const ProtobufCMessage *message,
                const struct slice *raw, size_t raw_count);
/* In the cluster's arena, which is reset when the request is done. */
void *fake__unpack(struct fake_cluster *cluster, const ProtobufCMessageDescriptor *descriptor, struct slice message);

static inline struct slice slice_of_binary(ProtobufCBinaryData bytes) { return slice_of(bytes.data, bytes.len); }

/* ---- fake_store.c ----------------------------------------------------------------------------------------------- */

/* The position of the first entry that isn't below the key. */
size_t fake__lower_bound(const struct fake_cluster *cluster, struct slice key);
void fake__remove_at(struct fake_cluster *cluster, size_t at);
/* value NULL: it is deleted. */
void fake__store(struct fake_cluster *cluster, struct slice key, const struct slice *value, uint64_t revision);
/* upper empty: no end. */
void fake__remove_range(struct fake_cluster *cluster, struct slice lower, struct slice upper);

/* ---- fake_data.c ------------------------------------------------------------------------------------------------ */

/* Does a write and returns its revision; answers nobody. */
uint64_t fake__apply(struct fake_cluster *cluster, const struct connection_frame *frame);
/* In the next three: peer NULL: done, but not answered. */
void fake__write(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame);
void fake__get(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame);
void fake__scan(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame);
/* A scan's answer: two pairs, "a" "1" and "b" "2", with one thing wrong. Variant 7: nothing. */
void fake__lie(struct fake_peer *peer, const struct connection_frame *frame, uint32_t variant);

/* ---- fake_admin.c ----------------------------------------------------------------------------------------------- */

void fake__status(struct fake_peer *peer, const struct connection_frame *frame);
/* A job ends with the third look, a verification with damage where the node is n3. */
void fake__upkeep(struct fake_peer *peer, const struct connection_frame *frame);
void fake__explain_log(struct fake_peer *peer, const struct connection_frame *frame);
/* peer NULL: done, but not answered. */
void fake__member(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame);

#endif
