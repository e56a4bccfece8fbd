/* Sparse bytes in chunks: holes cost nothing and read as zero, and zeroes written into a hole leave it a hole. */
#include "tests/sim/disk_internal.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 16 * 1024 };

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

static bool all_zero(const uint8_t *data, size_t len) {
    return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

void sim__blob_read(const struct blob *blob, void *data, size_t len, uint64_t offset) {
    uint8_t *out = data;
    while (len > 0) {
        size_t chunk = (size_t)(offset / CHUNK_BYTES);
        size_t from = (size_t)(offset % CHUNK_BYTES);
        size_t part = min_size(len, CHUNK_BYTES - from);
        if (chunk < blob->chunk_count && blob->chunks[chunk] != NULL) {
            memcpy(out, blob->chunks[chunk] + from, part);
        } else {
            memset(out, 0, part);
        }
        out += part;
        len -= part;
        offset += part;
    }
}

static void grow(struct blob *blob, size_t chunk_count) {
    if (chunk_count > blob->chunk_count) {
        blob->chunks = realloc(blob->chunks, chunk_count * sizeof(uint8_t *));
        CHECK(blob->chunks != NULL);
        memset(blob->chunks + blob->chunk_count, 0, (chunk_count - blob->chunk_count) * sizeof(uint8_t *));
        blob->chunk_count = chunk_count;
    }
}

void sim__blob_write(struct blob *blob, const void *data, size_t len, uint64_t offset) {
    const uint8_t *in = data;
    while (len > 0) {
        size_t chunk = (size_t)(offset / CHUNK_BYTES);
        size_t from = (size_t)(offset % CHUNK_BYTES);
        size_t part = min_size(len, CHUNK_BYTES - from);
        bool hole = chunk >= blob->chunk_count || blob->chunks[chunk] == NULL;
        if (!hole || !all_zero(in, part)) {
            grow(blob, chunk + 1);
            if (hole) {
                blob->chunks[chunk] = sim__alloc(CHUNK_BYTES);
            }
            memcpy(blob->chunks[chunk] + from, in, part);
        }
        in += part;
        len -= part;
        offset += part;
    }
}

void sim__blob_cut(struct blob *blob, uint64_t offset) {
    size_t from = (size_t)(offset % CHUNK_BYTES);
    for (size_t chunk = (size_t)(offset / CHUNK_BYTES); chunk < blob->chunk_count; chunk++, from = 0) {
        if (blob->chunks[chunk] == NULL) {
            continue;
        }
        if (from > 0) {
            memset(blob->chunks[chunk] + from, 0, CHUNK_BYTES - from);
        } else {
            sim__free(blob->chunks[chunk]);
            blob->chunks[chunk] = NULL;
        }
    }
}

void sim__blob_copy(struct blob *to, const struct blob *from) {
    sim__blob_free(to);
    grow(to, from->chunk_count);
    for (size_t chunk = 0; chunk < from->chunk_count; chunk++) {
        if (from->chunks[chunk] != NULL) {
            to->chunks[chunk] = sim__alloc(CHUNK_BYTES);
            memcpy(to->chunks[chunk], from->chunks[chunk], CHUNK_BYTES);
        }
    }
}

void sim__blob_free(struct blob *blob) {
    for (size_t chunk = 0; chunk < blob->chunk_count; chunk++) {
        sim__free(blob->chunks[chunk]);
    }
    free(blob->chunks);
    *blob = (struct blob){0};
}
