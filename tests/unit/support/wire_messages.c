/* See wire_messages.h. A message that is missing here is neither fuzzed nor bombed. */
#include "tests/unit/support/wire_messages.h"

const ProtobufCMessageDescriptor *const wire_messages[] = {
    &wire__greeting__descriptor,
    &wire__refusal__descriptor,
    &wire__pong__descriptor,
    &wire__error__descriptor,
    &wire__put_request__descriptor,
    &wire__delete_request__descriptor,
    &wire__batch_request__descriptor,
    &wire__write_reply__descriptor,
    &wire__get_request__descriptor,
    &wire__get_reply__descriptor,
    &wire__scan_request__descriptor,
    &wire__scan_reply__descriptor,
    &wire__status_request__descriptor,
    &wire__status_reply__descriptor,
    &wire__peer_hello__descriptor,
    &wire__raft_message__descriptor,
    &wire__explain_log_request__descriptor,
    &wire__explain_log_reply__descriptor,
    &wire__delete_range_request__descriptor,
    &wire__read_options__descriptor,
    &wire__member_status__descriptor,
    &wire__log_pin__descriptor,
    &wire__log_segment__descriptor,
    &wire__upkeep_request__descriptor,
    &wire__upkeep_reply__descriptor,
    &wire__member_change__descriptor,
    &wire__member_request__descriptor,
    &wire__member_reply__descriptor,
};
const unsigned wire_message_count = sizeof wire_messages / sizeof wire_messages[0];
