/*
 * Fixed-width little-endian integers and varints, written to memory and read back from a cursor.
 *
 * A cursor is a slice that a decoder eats from the front. Every cursor_* function checks `len <= left` and advances
 * only on success: on false nothing was consumed and the output is untouched. Varints are LEB128, at most 10 bytes;
 * an encoding longer than needed is refused, so equal values have equal bytes.
 */
#ifndef HOLDFAST_BASE_BYTES_H
#define HOLDFAST_BASE_BYTES_H

#include "node/base/slice.h"

#include <endian.h>

enum { VARINT_BYTES_MAX = 10 };

static inline void put_u16(uint8_t *out, uint16_t value) {
    value = htole16(value);
    memcpy(out, &value, sizeof value);
}

static inline void put_u32(uint8_t *out, uint32_t value) {
    value = htole32(value);
    memcpy(out, &value, sizeof value);
}

static inline void put_u64(uint8_t *out, uint64_t value) {
    value = htole64(value);
    memcpy(out, &value, sizeof value);
}

static inline uint16_t get_u16(const uint8_t *in) {
    uint16_t value;
    memcpy(&value, in, sizeof value);
    return le16toh(value);
}

static inline uint32_t get_u32(const uint8_t *in) {
    uint32_t value;
    memcpy(&value, in, sizeof value);
    return le32toh(value);
}

static inline uint64_t get_u64(const uint8_t *in) {
    uint64_t value;
    memcpy(&value, in, sizeof value);
    return le64toh(value);
}

/* Bytes that put_varint will write, 1 to 10. */
static inline size_t varint_size(uint64_t value) {
    size_t size = 1;
    while (value >= 0x80) {
        value >>= 7;
        size++;
    }
    return size;
}

/* Writes the varint at out (room for VARINT_BYTES_MAX), returns the first byte behind it. */
static inline uint8_t *put_varint(uint8_t *out, uint64_t value) {
    while (value >= 0x80) {
        *out++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *out++ = (uint8_t)value;
    return out;
}

static inline void cursor_skip(struct slice *cursor, size_t len) {
    cursor->data += len;
    cursor->len -= len;
}

static inline bool cursor_u8(struct slice *cursor, uint8_t *ret) {
    if (cursor->len < 1) {
        return false;
    }
    *ret = cursor->data[0];
    cursor_skip(cursor, 1);
    return true;
}

static inline bool cursor_u16(struct slice *cursor, uint16_t *ret) {
    if (cursor->len < 2) {
        return false;
    }
    *ret = get_u16(cursor->data);
    cursor_skip(cursor, 2);
    return true;
}

static inline bool cursor_u32(struct slice *cursor, uint32_t *ret) {
    if (cursor->len < 4) {
        return false;
    }
    *ret = get_u32(cursor->data);
    cursor_skip(cursor, 4);
    return true;
}

static inline bool cursor_u64(struct slice *cursor, uint64_t *ret) {
    if (cursor->len < 8) {
        return false;
    }
    *ret = get_u64(cursor->data);
    cursor_skip(cursor, 8);
    return true;
}

/* Takes len bytes off the front as a borrowed slice. */
static inline bool cursor_bytes(struct slice *cursor, uint64_t len, struct slice *ret) {
    if (len > cursor->len) {
        return false;
    }
    *ret = slice_of(cursor->data, (size_t)len);
    cursor_skip(cursor, (size_t)len);
    return true;
}

static inline bool cursor_varint(struct slice *cursor, uint64_t *ret) {
    uint64_t value = 0;
    for (size_t i = 0; i < VARINT_BYTES_MAX && i < cursor->len; i++) {
        uint8_t byte = cursor->data[i];
        if (i == VARINT_BYTES_MAX - 1 && byte > 1) {
            return false;
        }
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if ((byte & 0x80) == 0) {
            if (byte == 0 && i > 0) {
                return false;
            }
            *ret = value;
            cursor_skip(cursor, i + 1);
            return true;
        }
    }
    return false;
}

/* A varint length, then that many bytes. */
static inline bool cursor_prefixed(struct slice *cursor, struct slice *ret) {
    struct slice at = *cursor;
    uint64_t len;
    if (!cursor_varint(&at, &len) || !cursor_bytes(&at, len, ret)) {
        return false;
    }
    *cursor = at;
    return true;
}

#endif
