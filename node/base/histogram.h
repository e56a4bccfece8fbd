/*
 * Histograms of powers of two: bucket 0 counts zeroes, bucket i values from 2^(i-1) to below 2^i, the last one all
 * above. Plain arrays: whoever counts owns them, and they add up bucket by bucket.
 */
#ifndef HOLDFAST_BASE_HISTOGRAM_H
#define HOLDFAST_BASE_HISTOGRAM_H

#include "node/base/check.h"

#include <stddef.h>
#include <stdint.h>

static inline size_t histogram_bucket(uint64_t value, size_t bucket_count) {
    size_t bucket = value == 0 ? 0 : 64 - (size_t)__builtin_clzll(value);
    return bucket < bucket_count ? bucket : bucket_count - 1;
}

/* So many of a thousand values are at most so large, as far as buckets tell: the upper end of the bucket, or the
 * largest value if that is less. 0 if nothing was counted. */
static inline uint64_t histogram_quantile(const uint64_t *buckets, size_t bucket_count, uint64_t largest,
                                          uint32_t per_mille) {
    uint64_t total = 0;
    uint64_t seen = 0;
    CHECK(per_mille <= 1000 && bucket_count <= 64);
    for (size_t i = 0; i < bucket_count; i++) {
        total += buckets[i];
    }
    /* total * per_mille / 1000 rounded up, without overflow. */
    uint64_t wanted = total / 1000 * per_mille + (total % 1000 * per_mille + 999) / 1000;
    for (size_t i = 0; i + 1 < bucket_count; i++) {
        seen += buckets[i];
        uint64_t upper = ((uint64_t)1 << i) - 1;
        if (seen >= wanted && seen > 0) {
            return upper < largest ? upper : largest;
        }
    }
    return total > 0 ? largest : 0;
}

#endif
