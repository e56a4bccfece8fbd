/*
 * Bloom filters in cache lines: all bits of a key lie in one line of 64 bytes, so that a probe costs at most one miss.
 *
 * (Putze, Sanders, Singler: Cache-, hash- and space-efficient Bloom filters, 2007.) The line is chosen by the upper
 * half of the hash, the bits in it by the lower half, which is multiplied by an odd constant for each next probe. False
 * positives: 1 % at 10 bits a key; a key that was put in is always found.
 *
 * Pure functions over memory; any thread. A filter in memory should begin at a multiple of 64 bytes (else a probe may
 * touch two lines).
 */
#ifndef HOLDFAST_STORAGE_FILTER_H
#define HOLDFAST_STORAGE_FILTER_H

#include "node/base/checksum.h"
#include "node/base/slice.h"

enum { FILTER_LINE_BYTES = 64, FILTER_BITS_PER_KEY_MAX = 32, FILTER_PROBES_MAX = 16 };

/* The hash of a user key, for filters and for the buckets of blocks: computed once for each lookup. */
static inline uint64_t filter_hash(struct slice user) { return checksum64(user.data, user.len, 0); }

/* Which of `lines` lines. */
static inline uint32_t filter_line(uint64_t hash, uint32_t lines) { return (uint32_t)(((hash >> 32) * lines) >> 32); }

/* State of the sequence of bits in a line: start with filter_bits_begin, use filter_bit, go on with filter_bits_next.
 */
static inline uint32_t filter_bits_begin(uint64_t hash) { return (uint32_t)hash * 0x9e3779b9u; }
static inline uint32_t filter_bits_next(uint32_t bits) { return bits * 0x9e3779b9u; }
/* 0 to 511. */
static inline uint32_t filter_bit(uint32_t bits) { return bits >> 23; }

/* Bits to set for each key at so many bits of filter per key, 1 to FILTER_PROBES_MAX. */
uint32_t filter_probes(uint32_t bits_per_key);
/* Bytes of a filter for so many keys: a multiple of FILTER_LINE_BYTES; 0 if either is 0. */
size_t filter_size(size_t count, uint32_t bits_per_key);
/* Fills in filter_size bytes (> 0). */
void filter_build(uint8_t *out, size_t size, const uint64_t *hashes, size_t count, uint32_t probes);
/* False: the key was never put in. `filter` must have a multiple of FILTER_LINE_BYTES; an empty one may hold
 * anything. */
bool filter_may_hold(struct slice filter, uint32_t probes, uint64_t hash);

#endif
