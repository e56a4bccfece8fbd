/* Every message of the wire, for tests that go through all of them. */
#ifndef HOLDFAST_TESTS_WIRE_MESSAGES_H
#define HOLDFAST_TESTS_WIRE_MESSAGES_H

#include "proto/wire.pb-c.h"

extern const ProtobufCMessageDescriptor *const wire_messages[];
extern const unsigned wire_message_count;

#endif
