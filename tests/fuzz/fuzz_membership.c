/*
 * Configurations from the log, the manifest and segment headers. What is accepted has exactly one form: encoded again
 * it has the same bytes; what is refused leaves the output alone.
 */
#include "node/base/check.h"
#include "raft/raft.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct raft_config config = {.member_count = UINT32_MAX};
    struct error err;
    uint8_t bytes[RAFT_CONFIG_BYTES_MAX];
    enum status status = raft_config_decode(slice_of(data, size), &config, &err);
    if (status != STATUS_OK) {
        CHECK(status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED);
        CHECK(config.member_count == UINT32_MAX && err.message[0] != '\0');
        return 0;
    }
    CHECK(size <= RAFT_CONFIG_BYTES_MAX && raft_config_encoded_size(&config) == size);
    CHECK(raft_config_encode(&config, bytes) == size && memcmp(bytes, data, size) == 0);
    return 0;
}
