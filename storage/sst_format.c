/* Bytes of an SST's fixed parts. */
#include "storage/sst_format.h"

#include "node/base/bytes.h"
#include "node/base/check.h"
#include "node/base/checksum.h"

static const char header_magic[8] = {'H', 'F', 'S', 'S', 'T', 'A', 'B', '\n'};
static const char footer_magic[8] = {'H', 'F', 'S', 'S', 'T', 'E', 'N', 'D'};

/* ---- Header -------------------------------------------------------------------------------------------------- */

/* magic 8, version u32, flags u32, number u64, id u64, cluster id 16, zero 8, checksum u64 */

void sst_header_encode(uint8_t out[SST_HEADER_BYTES], const struct sst_header *header) {
    memset(out, 0, SST_HEADER_BYTES);
    memcpy(out, header_magic, sizeof header_magic);
    put_u32(out + 8, SST_VERSION);
    put_u64(out + 16, header->number);
    put_u64(out + 24, header->id);
    memcpy(out + 32, header->cluster_id, SST_CLUSTER_ID_BYTES);
    put_u64(out + 56, checksum64(out, 56, 0));
}

enum status sst_header_decode(const uint8_t in[SST_HEADER_BYTES], struct sst_header *ret_header) {
    if (memcmp(in, header_magic, sizeof header_magic) != 0) {
        return STATUS_CORRUPT;
    }
    if (get_u32(in + 8) != SST_VERSION || get_u32(in + 12) != 0) {
        return STATUS_UNSUPPORTED;
    }
    if (get_u64(in + 56) != checksum64(in, 56, 0) || get_u64(in + 48) != 0) {
        return STATUS_CORRUPT;
    }
    ret_header->number = get_u64(in + 16);
    ret_header->id = get_u64(in + 24);
    memcpy(ret_header->cluster_id, in + 32, SST_CLUSTER_ID_BYTES);
    return STATUS_OK;
}

/* ---- Handles ------------------------------------------------------------------------------------------------- */

/* offset u64, size u32, zero u32 */

void sst_handle_encode(uint8_t out[SST_HANDLE_BYTES], const struct sst_handle *handle) {
    put_u64(out, handle->offset);
    put_u32(out + 8, handle->size);
    put_u32(out + 12, 0);
}

enum status sst_handle_decode(struct slice in, uint64_t start, uint64_t end, struct sst_handle *ret_handle) {
    if (in.len != SST_HANDLE_BYTES || get_u32(in.data + 12) != 0) {
        return STATUS_CORRUPT;
    }
    struct sst_handle handle = {.offset = get_u64(in.data), .size = get_u32(in.data + 8)};
    if (handle.offset < start || handle.offset > end || handle.size == 0 ||
        end - handle.offset < (uint64_t)handle.size + SST_TRAILER_BYTES) {
        return STATUS_CORRUPT;
    }
    *ret_handle = handle;
    return STATUS_OK;
}

/* ---- Footer -------------------------------------------------------------------------------------------------- */

/* handles of index, properties, filter (zero), range deletes (zero); version u32, flags u32, zero u64, checksum u64,
 * magic 8 */

enum { FOOTER_VERSION_AT = 4 * SST_HANDLE_BYTES, FOOTER_CHECKSUM_AT = 80, FOOTER_MAGIC_AT = 88 };

void sst_footer_encode(uint8_t out[SST_FOOTER_BYTES], const struct sst_footer *footer, uint64_t id) {
    memset(out, 0, SST_FOOTER_BYTES);
    sst_handle_encode(out, &footer->index);
    sst_handle_encode(out + SST_HANDLE_BYTES, &footer->properties);
    put_u32(out + FOOTER_VERSION_AT, SST_VERSION);
    put_u64(out + FOOTER_CHECKSUM_AT, checksum64(out, FOOTER_CHECKSUM_AT, id));
    memcpy(out + FOOTER_MAGIC_AT, footer_magic, sizeof footer_magic);
}

static bool all_zero(const uint8_t *data, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (data[i] != 0) {
            return false;
        }
    }
    return true;
}

enum status sst_footer_decode(const uint8_t in[SST_FOOTER_BYTES], uint64_t id, uint64_t size_bytes,
                              struct sst_footer *ret_footer) {
    if (size_bytes < SST_HEADER_BYTES + SST_FOOTER_BYTES ||
        memcmp(in + FOOTER_MAGIC_AT, footer_magic, sizeof footer_magic) != 0 ||
        get_u64(in + FOOTER_CHECKSUM_AT) != checksum64(in, FOOTER_CHECKSUM_AT, id)) {
        return STATUS_CORRUPT;
    }
    /* The reserved handles belong to features of later versions. */
    const size_t reserved_at = 2 * (size_t)SST_HANDLE_BYTES;
    if (get_u32(in + FOOTER_VERSION_AT) != SST_VERSION || !all_zero(in + FOOTER_VERSION_AT + 4, 12) ||
        !all_zero(in + reserved_at, FOOTER_VERSION_AT - reserved_at)) {
        return STATUS_UNSUPPORTED;
    }
    uint64_t end = size_bytes - SST_FOOTER_BYTES;
    struct sst_footer footer;
    enum status status = sst_handle_decode(slice_of(in, SST_HANDLE_BYTES), SST_HEADER_BYTES, end, &footer.index);
    if (status == STATUS_OK) {
        status =
            sst_handle_decode(slice_of(in + SST_HANDLE_BYTES, SST_HANDLE_BYTES),
                              footer.index.offset + footer.index.size + SST_TRAILER_BYTES, end, &footer.properties);
    }
    if (status == STATUS_OK) {
        *ret_footer = footer;
    }
    return status;
}

/* ---- Trailer ------------------------------------------------------------------------------------------------- */

/* compression u8, kind u8, zero u16, uncompressed size u32, checksum u64 */

static uint64_t block_checksum(const void *data, size_t len, uint64_t id, uint64_t offset) {
    return checksum64(data, len, id ^ (offset * 0x9e3779b97f4a7c15u));
}

/* The checksum covers the body and the trailer in front of it, so those bytes must lie behind each other: the body's
 * digest is the seed of the trailer's. */
static uint64_t trailer_checksum(struct slice body, const uint8_t *trailer, uint64_t id, uint64_t offset) {
    return checksum64(trailer, 8, block_checksum(body.data, body.len, id, offset));
}

void sst_trailer_encode(uint8_t out[SST_TRAILER_BYTES], struct slice body, enum sst_block_kind kind, uint64_t id,
                        uint64_t offset) {
    out[0] = SST_COMPRESSION_NONE;
    out[1] = (uint8_t)kind;
    put_u16(out + 2, 0);
    put_u32(out + 4, (uint32_t)body.len);
    put_u64(out + 8, trailer_checksum(body, out, id, offset));
}

enum status sst_block_check(struct slice block, enum sst_block_kind kind, uint64_t id, uint64_t offset,
                            struct slice *ret_body) {
    if (block.len <= SST_TRAILER_BYTES) {
        return STATUS_CORRUPT;
    }
    struct slice body = slice_of(block.data, block.len - SST_TRAILER_BYTES);
    const uint8_t *trailer = block.data + body.len;
    if (get_u64(trailer + 8) != trailer_checksum(body, trailer, id, offset)) {
        return STATUS_CORRUPT;
    }
    if (trailer[0] != SST_COMPRESSION_NONE) {
        return STATUS_UNSUPPORTED;
    }
    if (trailer[1] != kind || get_u16(trailer + 2) != 0 || get_u32(trailer + 4) != body.len) {
        return STATUS_CORRUPT;
    }
    *ret_body = body;
    return STATUS_OK;
}

/* ---- Properties ---------------------------------------------------------------------------------------------- */

/* (tag varint, length varint, bytes)..., tags growing */

enum property_tag {
    PROPERTY_ENTRIES = 1,
    PROPERTY_DELETES,
    PROPERTY_KEY_BYTES,
    PROPERTY_VALUE_BYTES,
    PROPERTY_DATA_BLOCKS,
    PROPERTY_REVISION_FIRST,
    PROPERTY_REVISION_LAST,
    PROPERTY_SMALLEST,
    PROPERTY_LARGEST,
    PROPERTY_COUNT
};

static struct {
    enum property_tag tag;
    size_t offset;
} const number_properties[] = {
    {PROPERTY_ENTRIES, offsetof(struct sst_properties, entries)},
    {PROPERTY_DELETES, offsetof(struct sst_properties, deletes)},
    {PROPERTY_KEY_BYTES, offsetof(struct sst_properties, key_bytes)},
    {PROPERTY_VALUE_BYTES, offsetof(struct sst_properties, value_bytes)},
    {PROPERTY_DATA_BLOCKS, offsetof(struct sst_properties, data_blocks)},
    {PROPERTY_REVISION_FIRST, offsetof(struct sst_properties, revision_first)},
    {PROPERTY_REVISION_LAST, offsetof(struct sst_properties, revision_last)},
};

enum { NUMBER_PROPERTY_COUNT = sizeof number_properties / sizeof number_properties[0] };

static enum status append_property(struct buf *out, enum property_tag tag, struct slice bytes) {
    uint8_t head[2 * VARINT_BYTES_MAX];
    uint8_t *end = put_varint(put_varint(head, (uint64_t)tag), bytes.len);
    enum status status = buf_append(out, head, (size_t)(end - head));
    return status != STATUS_OK ? status : buf_append(out, bytes.data, bytes.len);
}

enum status sst_properties_encode(struct buf *out, const struct sst_properties *properties) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < NUMBER_PROPERTY_COUNT && status == STATUS_OK; i++) {
        uint64_t value;
        uint8_t bytes[8];
        memcpy(&value, (const uint8_t *)properties + number_properties[i].offset, sizeof value);
        put_u64(bytes, value);
        status = append_property(out, number_properties[i].tag, slice_of(bytes, sizeof bytes));
    }
    if (status == STATUS_OK) {
        status = append_property(out, PROPERTY_SMALLEST, properties->smallest);
    }
    if (status == STATUS_OK) {
        status = append_property(out, PROPERTY_LARGEST, properties->largest);
    }
    return status;
}

static bool take_property(struct sst_properties *properties, uint64_t tag, struct slice bytes) {
    for (size_t i = 0; i < NUMBER_PROPERTY_COUNT; i++) {
        if (number_properties[i].tag == tag) {
            if (bytes.len != 8) {
                return false;
            }
            uint64_t value = get_u64(bytes.data);
            memcpy((uint8_t *)properties + number_properties[i].offset, &value, sizeof value);
            return true;
        }
    }
    if (tag == PROPERTY_SMALLEST || tag == PROPERTY_LARGEST) {
        struct slice *key = tag == PROPERTY_SMALLEST ? &properties->smallest : &properties->largest;
        *key = bytes;
        return bytes.len >= 1 && bytes.len <= LIMIT_KEY_BYTES;
    }
    return true;
}

enum status sst_properties_decode(struct slice body, struct sst_properties *ret_properties) {
    struct sst_properties properties = {.smallest = SLICE_EMPTY};
    uint64_t last_tag = 0;
    uint64_t known = 0;
    while (body.len > 0) {
        uint64_t tag;
        struct slice bytes;
        if (!cursor_varint(&body, &tag) || tag <= last_tag || !cursor_prefixed(&body, &bytes) ||
            !take_property(&properties, tag, bytes)) {
            return STATUS_CORRUPT;
        }
        known += tag < PROPERTY_COUNT;
        last_tag = tag;
    }
    if (known != PROPERTY_COUNT - 1) {
        return STATUS_CORRUPT;
    }
    *ret_properties = properties;
    return STATUS_OK;
}
