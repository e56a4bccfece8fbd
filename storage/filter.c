/* Bloom filters in cache lines. */
#include "storage/filter.h"

#include "node/base/check.h"

uint32_t filter_probes(uint32_t bits_per_key) {
    CHECK(bits_per_key <= FILTER_BITS_PER_KEY_MAX);
    /* ln 2 bits for each would be best for a plain filter; here the keys aren't spread evenly over the lines, so a
     * little less is better. */
    uint32_t probes = bits_per_key * 6 / 10;
    return probes < 1 ? 1 : probes > FILTER_PROBES_MAX ? FILTER_PROBES_MAX : probes;
}

size_t filter_size(size_t count, uint32_t bits_per_key) {
    CHECK(bits_per_key <= FILTER_BITS_PER_KEY_MAX && count <= UINT32_MAX);
    const size_t line_bits = (size_t)FILTER_LINE_BYTES * 8;
    return (count * bits_per_key + line_bits - 1) / line_bits * FILTER_LINE_BYTES;
}

void filter_build(uint8_t *out, size_t size, const uint64_t *hashes, size_t count, uint32_t probes) {
    CHECK(size > 0 && size % FILTER_LINE_BYTES == 0 && size / FILTER_LINE_BYTES <= UINT32_MAX);
    uint32_t lines = (uint32_t)(size / FILTER_LINE_BYTES);
    memset(out, 0, size);
    for (size_t i = 0; i < count; i++) {
        uint8_t *line = out + (size_t)filter_line(hashes[i], lines) * FILTER_LINE_BYTES;
        uint32_t bits = filter_bits_begin(hashes[i]);
        for (uint32_t probe = 0; probe < probes; probe++, bits = filter_bits_next(bits)) {
            uint32_t bit = filter_bit(bits);
            line[bit / 8] |= (uint8_t)(1u << bit % 8);
        }
    }
}

bool filter_may_hold(struct slice filter, uint32_t probes, uint64_t hash) {
    uint32_t lines = (uint32_t)(filter.len / FILTER_LINE_BYTES);
    if (lines == 0) {
        return true;
    }
    const uint8_t *line = filter.data + (size_t)filter_line(hash, lines) * FILTER_LINE_BYTES;
    uint32_t bits = filter_bits_begin(hash);
    for (uint32_t probe = 0; probe < probes; probe++, bits = filter_bits_next(bits)) {
        uint32_t bit = filter_bit(bits);
        if ((line[bit / 8] >> bit % 8 & 1) == 0) {
            return false;
        }
    }
    return true;
}
