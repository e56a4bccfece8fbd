/*
 * One checksum for everything on disk: 64-bit XXH3 (xxHash, Yann Collet), seeded so that equal bytes in different
 * places of a format don't pass for each other.
 */
#ifndef HOLDFAST_BASE_CHECKSUM_H
#define HOLDFAST_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t checksum64(const void *data, size_t size_bytes, uint64_t seed);

#endif
