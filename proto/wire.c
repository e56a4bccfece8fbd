/*
 * Unpacking of protobuf messages inside a budget.
 *
 * protobuf-c allocates for every field, nested message and unknown field that the sender put in: a message of 1 MiB can
 * ask for 70 times as much. So all of it comes from the caller's arena, which says no beyond its budget; protobuf-c
 * then gives up and returns NULL. Nothing is freed one by one: the arena forgets everything at once.
 *
 * protobuf-c descends once per nested message. No schema of ours is recursive (a test walks all descriptors), so the
 * depth is that of the schema, whatever the bytes say.
 */
#include "proto/connection.h"

static void *arena_allocate(void *arena, size_t size) { return arena_alloc(arena, size); }

static void arena_forget_later(void *arena, void *block) {
    (void)arena;
    (void)block;
}

ProtobufCMessage *wire_unpack(struct arena *arena, const ProtobufCMessageDescriptor *descriptor, struct slice message) {
    ProtobufCAllocator allocator = {.alloc = arena_allocate, .free = arena_forget_later, .allocator_data = arena};
    /* An empty message has no address of its own, but protobuf-c does arithmetic on it. */
    const uint8_t *data = message.len > 0 ? message.data : (const uint8_t *)"";
    return protobuf_c_message_unpack(descriptor, &allocator, message.len, data);
}
