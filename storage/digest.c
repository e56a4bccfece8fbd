/* The digest chain: bytes, and the chain of the newest entries. What it is made of is in digest.h. */
#include "storage/digest.h"

#include "node/base/bytes.h"

void digest_encode(const struct digest *digest, uint8_t ret_bytes[DIGEST_BYTES]) {
    put_u64(ret_bytes, digest->low);
    put_u64(ret_bytes + 8, digest->high);
}

struct digest digest_decode(const uint8_t bytes[DIGEST_BYTES]) {
    return (struct digest){.low = get_u64(bytes), .high = get_u64(bytes + 8)};
}

void digest_history_begin(struct digest_history *history, uint64_t index, const struct digest *digest) {
    history->begin = index;
    history->newest = index;
    history->at_newest = *digest;
    history->chain[index % DIGESTS_KEPT] = *digest;
}

bool digest_history_find(const struct digest_history *history, uint64_t index, struct digest *ret_digest) {
    if (index < history->begin || index > history->newest || history->newest - index >= DIGESTS_KEPT) {
        return false;
    }
    *ret_digest = history->chain[index % DIGESTS_KEPT];
    return true;
}
