/*
 * The frontier: what the manifest records with each flush, and with which the log goes on. Replay starts behind its
 * index; everything that isn't in tables is as it was after that entry. Also what store, manifest and versions of it
 * have to agree on.
 */
#ifndef HOLDFAST_STORAGE_FRONTIER_H
#define HOLDFAST_STORAGE_FRONTIER_H

#include "node/base/limits.h"
#include "storage/digest.h"

#include <stdint.h>

enum { STORAGE_LEVELS = 7 };
enum { STORAGE_CLUSTER_ID_BYTES = 16, STORAGE_DIGEST_BYTES = DIGEST_BYTES };

/* What the manifest records with each flush: the state that the SST files hold, all of it derived from the log. */
struct storage_frontier {
    uint64_t index;
    uint64_t term;
    uint64_t cluster_time_ms;
    uint64_t horizon; /* oldest revision that can still be read */
    uint32_t feature_level;
    uint64_t session_epoch; /* session table that goes with it */
    uint8_t digest[STORAGE_DIGEST_BYTES];
    uint8_t membership[LIMIT_MEMBERSHIP_BYTES]; /* opaque, as in the log */
    uint32_t membership_len;
};

#endif
