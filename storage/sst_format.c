/* Bytes of an SST's fixed parts. */
#include "storage/sst_format.h"

#include "node/base/bytes.h"
#include "node/base/check.h"
#include "node/base/checksum.h"
#include "storage/filter.h"
#include "storage/value_file.h"

static const char header_magic[8] = {'H', 'F', 'S', 'S', 'T', 'A', 'B', '\n'};
static const char footer_magic[8] = {'H', 'F', 'S', 'S', 'T', 'E', 'N', 'D'};

/* ---- Header -------------------------------------------------------------------------------------------------- */

/* magic 8, version u32, kind u32, number u64, id u64, cluster id 16, zero 8, checksum u64 */

void sst_header_encode(uint8_t out[SST_HEADER_BYTES], const struct sst_header *header) {
    memset(out, 0, SST_HEADER_BYTES);
    memcpy(out, header_magic, sizeof header_magic);
    put_u32(out + 8, SST_VERSION);
    put_u32(out + 12, header->kind);
    put_u64(out + 16, header->number);
    put_u64(out + 24, header->id);
    memcpy(out + 32, header->cluster_id, SST_CLUSTER_ID_BYTES);
    put_u64(out + 56, checksum64(out, 56, 0));
}

enum status sst_header_decode(const uint8_t in[SST_HEADER_BYTES], struct sst_header *ret_header) {
    /* Another version is believed only where the checksum holds: a flipped bit of it is damage like any other. */
    if (memcmp(in, header_magic, sizeof header_magic) != 0 || get_u64(in + 56) != checksum64(in, 56, 0)) {
        return STATUS_CORRUPT;
    }
    if (get_u32(in + 8) != SST_VERSION || get_u32(in + 12) > SST_FILE_CHANGES) {
        return STATUS_UNSUPPORTED;
    }
    if (get_u64(in + 48) != 0) {
        return STATUS_CORRUPT;
    }
    ret_header->kind = (enum sst_file_kind)get_u32(in + 12);
    ret_header->number = get_u64(in + 16);
    ret_header->id = get_u64(in + 24);
    memcpy(ret_header->cluster_id, in + 32, SST_CLUSTER_ID_BYTES);
    return STATUS_OK;
}

/* ---- Handles ------------------------------------------------------------------------------------------------- */

/* offset u64, size u32 */

void sst_handle_encode(uint8_t out[SST_HANDLE_BYTES], const struct sst_handle *handle) {
    put_u64(out, handle->offset);
    put_u32(out + 8, handle->size);
}

enum status sst_handle_decode(struct slice in, uint64_t start, uint64_t end, struct sst_handle *ret_handle) {
    if (in.len != SST_HANDLE_BYTES) {
        return STATUS_CORRUPT;
    }
    struct sst_handle handle = {.offset = get_u64(in.data), .size = get_u32(in.data + 8)};
    if (handle.offset < start || handle.offset > end || handle.size == 0 || handle.size > SST_BLOCK_BYTES_MAX ||
        end - handle.offset < (uint64_t)handle.size + SST_TRAILER_BYTES) {
        return STATUS_CORRUPT;
    }
    *ret_handle = handle;
    return STATUS_OK;
}

/* ---- Footer -------------------------------------------------------------------------------------------------- */

/* handles of range deletes, top index, properties and one reserved; version u32, zero 12, checksum u64, magic 8 */

enum {
    FOOTER_RESERVED_AT = 3 * SST_HANDLE_BYTES,
    FOOTER_VERSION_AT = 4 * SST_HANDLE_BYTES,
    FOOTER_CHECKSUM_AT = 64,
    FOOTER_MAGIC_AT = 72
};

void sst_footer_encode(uint8_t out[SST_FOOTER_BYTES], const struct sst_footer *footer, uint64_t id) {
    memset(out, 0, SST_FOOTER_BYTES);
    sst_handle_encode(out, &footer->tombstones);
    sst_handle_encode(out + SST_HANDLE_BYTES, &footer->top);
    sst_handle_encode(out + 2 * (size_t)SST_HANDLE_BYTES, &footer->properties);
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

/* The handle at number `at`, whose block follows on what ends at *start; moves that on. A handle of zeroes says that
 * there is no such block. */
static enum status take_handle(const uint8_t *in, size_t at, uint64_t *start, uint64_t end, bool optional,
                               struct sst_handle *ret_handle) {
    struct slice bytes = slice_of(in + at * SST_HANDLE_BYTES, SST_HANDLE_BYTES);
    if (optional && all_zero(bytes.data, bytes.len)) {
        *ret_handle = (struct sst_handle){0};
        return STATUS_OK;
    }
    enum status status = sst_handle_decode(bytes, *start, end, ret_handle);
    if (status == STATUS_OK) {
        *start = ret_handle->offset + ret_handle->size + SST_TRAILER_BYTES;
    }
    return status;
}

enum status sst_footer_decode(const uint8_t in[SST_FOOTER_BYTES], uint64_t id, uint64_t size_bytes,
                              struct sst_footer *ret_footer) {
    if (size_bytes < SST_HEADER_BYTES + SST_FOOTER_BYTES ||
        memcmp(in + FOOTER_MAGIC_AT, footer_magic, sizeof footer_magic) != 0 ||
        get_u64(in + FOOTER_CHECKSUM_AT) != checksum64(in, FOOTER_CHECKSUM_AT, id)) {
        return STATUS_CORRUPT;
    }
    /* The reserved bytes belong to features of later versions. */
    if (get_u32(in + FOOTER_VERSION_AT) != SST_VERSION ||
        !all_zero(in + FOOTER_VERSION_AT + 4, FOOTER_CHECKSUM_AT - FOOTER_VERSION_AT - 4) ||
        !all_zero(in + FOOTER_RESERVED_AT, SST_HANDLE_BYTES)) {
        return STATUS_UNSUPPORTED;
    }
    uint64_t start = SST_HEADER_BYTES;
    uint64_t end = size_bytes - SST_FOOTER_BYTES;
    struct sst_footer footer;
    enum status status = take_handle(in, 0, &start, end, true, &footer.tombstones);
    if (status == STATUS_OK) {
        status = take_handle(in, 1, &start, end, true, &footer.top);
    }
    if (status == STATUS_OK) {
        status = take_handle(in, 2, &start, end, false, &footer.properties);
    }
    if (status == STATUS_OK && start != end) {
        status = STATUS_CORRUPT;
    }
    if (status == STATUS_OK) {
        *ret_footer = footer;
    }
    return status;
}

/* ---- Blocks -------------------------------------------------------------------------------------------------- */

/* compression u8, kind u8, zero u16, uncompressed size u32, checksum u64 */

/* The checksum covers the body and the trailer in front of it: the body's digest is the seed of the trailer's. */
static uint64_t trailer_checksum(struct slice body, const uint8_t *trailer, uint64_t id, uint64_t offset) {
    return checksum64(trailer, 8, checksum64(body.data, body.len, id ^ (offset * 0x9e3779b97f4a7c15u)));
}

uint64_t sst_trailer_encode(uint8_t out[SST_TRAILER_BYTES], struct slice body, enum compression compression,
                            uint32_t size, enum sst_block_kind kind, uint64_t id, uint64_t offset) {
    CHECK(size > 0 && size <= SST_BLOCK_BYTES_MAX && (compression != COMPRESSION_NONE || size == body.len));
    out[0] = (uint8_t)compression;
    out[1] = (uint8_t)kind;
    put_u16(out + 2, 0);
    put_u32(out + 4, size);
    uint64_t checksum = trailer_checksum(body, out, id, offset);
    put_u64(out + 8, checksum);
    return checksum;
}

enum status sst_block_check(struct slice block, enum sst_block_kind kind, uint64_t id, uint64_t offset,
                            struct sst_stored *ret_stored) {
    if (block.len <= SST_TRAILER_BYTES) {
        return STATUS_CORRUPT;
    }
    struct slice body = slice_of(block.data, block.len - SST_TRAILER_BYTES);
    const uint8_t *trailer = block.data + body.len;
    uint64_t checksum = get_u64(trailer + 8);
    uint32_t size = get_u32(trailer + 4);
    if (checksum != trailer_checksum(body, trailer, id, offset)) {
        return STATUS_CORRUPT;
    }
    if (trailer[0] >= COMPRESSION_COUNT) {
        return STATUS_UNSUPPORTED;
    }
    /* A compressed block is smaller than what it holds, and that is bounded before anybody allocates it. */
    bool plain = trailer[0] == COMPRESSION_NONE;
    if (trailer[1] != kind || get_u16(trailer + 2) != 0 || size > SST_BLOCK_BYTES_MAX ||
        (plain ? size != body.len : size <= body.len)) {
        return STATUS_CORRUPT;
    }
    *ret_stored = (struct sst_stored){.body = body,
                                      .compression = (enum compression)trailer[0],
                                      .size = size,
                                      .checksum = checksum};
    return STATUS_OK;
}

enum status sst_block_unpack(struct alloc *alloc, const struct sst_stored *stored, uint8_t *out) {
    return compression_undo(alloc, stored->compression, stored->body, out, stored->size);
}

/* ---- The whole file ------------------------------------------------------------------------------------------ */

uint64_t sst_file_checksum_add(uint64_t checksum, uint64_t part) {
    uint8_t bytes[8];
    put_u64(bytes, part);
    return checksum64(bytes, sizeof bytes, checksum);
}

uint64_t sst_header_checksum(const uint8_t in[SST_HEADER_BYTES]) { return checksum64(in, SST_HEADER_BYTES, 0); }

uint64_t sst_footer_checksum(const uint8_t in[SST_FOOTER_BYTES]) { return checksum64(in, SST_FOOTER_BYTES, 0); }

/* ---- Partitions ---------------------------------------------------------------------------------------------- */

/* filter, index, length of the filter u32, probes u8, zero 3 */

void sst_partition_tail_encode(uint8_t out[SST_PARTITION_TAIL_BYTES], uint32_t filter_len, uint32_t probes) {
    CHECK(filter_len % FILTER_LINE_BYTES == 0 && probes <= FILTER_PROBES_MAX);
    put_u32(out, filter_len);
    put_u32(out + 4, probes);
}

enum status sst_partition_open(struct slice body, struct sst_partition *ret_partition) {
    if (body.len < SST_PARTITION_TAIL_BYTES) {
        return STATUS_CORRUPT;
    }
    size_t left = body.len - SST_PARTITION_TAIL_BYTES;
    uint32_t filter_len = get_u32(body.data + left);
    uint32_t probes = get_u32(body.data + left + 4);
    if (filter_len > left || filter_len % FILTER_LINE_BYTES != 0 || probes > FILTER_PROBES_MAX ||
        (filter_len == 0) != (probes == 0)) {
        return STATUS_CORRUPT;
    }
    *ret_partition = (struct sst_partition){.filter = slice_of(body.data, filter_len),
                                            .probes = probes,
                                            .index = slice_of(body.data + filter_len, left - filter_len)};
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
    PROPERTY_TOMBSTONES,
    PROPERTY_SUPERSEDED,
    PROPERTY_SUPERSEDED_UNTIL,
    PROPERTY_LARGEST_EXCLUDED,
    PROPERTY_PARTITIONS,
    PROPERTY_RAW_BYTES,
    PROPERTY_BLOOM_BITS,
    PROPERTY_COMPRESSION,
    PROPERTY_COUNT,
    PROPERTY_VALUE_REFS = PROPERTY_COUNT /* a list; only in tables that have one */
};

/* By tag. */
static const struct property {
    enum property_tag tag;
    bool is_key;
    size_t offset;
} properties_table[] = {
#define PROPERTY(tag, member, is_key)                                                                                  \
    { tag, is_key, offsetof(struct sst_properties, member) }
    PROPERTY(PROPERTY_ENTRIES, entries, false),
    PROPERTY(PROPERTY_DELETES, deletes, false),
    PROPERTY(PROPERTY_KEY_BYTES, key_bytes, false),
    PROPERTY(PROPERTY_VALUE_BYTES, value_bytes, false),
    PROPERTY(PROPERTY_DATA_BLOCKS, data_blocks, false),
    PROPERTY(PROPERTY_REVISION_FIRST, revision_first, false),
    PROPERTY(PROPERTY_REVISION_LAST, revision_last, false),
    PROPERTY(PROPERTY_SMALLEST, smallest, true),
    PROPERTY(PROPERTY_LARGEST, largest, true),
    PROPERTY(PROPERTY_TOMBSTONES, tombstones, false),
    PROPERTY(PROPERTY_SUPERSEDED, superseded, false),
    PROPERTY(PROPERTY_SUPERSEDED_UNTIL, superseded_until, false),
    PROPERTY(PROPERTY_LARGEST_EXCLUDED, largest_excluded, false),
    PROPERTY(PROPERTY_PARTITIONS, partitions, false),
    PROPERTY(PROPERTY_RAW_BYTES, raw_bytes, false),
    PROPERTY(PROPERTY_BLOOM_BITS, bloom_bits, false),
    PROPERTY(PROPERTY_COMPRESSION, compression, false),
#undef PROPERTY
};

static_assert(sizeof properties_table / sizeof properties_table[0] == PROPERTY_COUNT - 1, "one for each tag");

static enum status append_property(struct buf *out, enum property_tag tag, struct slice bytes) {
    uint8_t head[2 * VARINT_BYTES_MAX];
    uint8_t *end = put_varint(put_varint(head, (uint64_t)tag), bytes.len);
    enum status status = buf_append(out, head, (size_t)(end - head));
    return status != STATUS_OK ? status : buf_append(out, bytes.data, bytes.len);
}

static enum status append_value_refs(struct buf *out, const struct sst_properties *properties) {
    uint8_t head[2 * VARINT_BYTES_MAX];
    uint8_t *end =
        put_varint(put_varint(head, PROPERTY_VALUE_REFS), properties->value_ref_count * (uint64_t)VALUE_REF_BYTES);
    enum status status = buf_append(out, head, (size_t)(end - head));
    return status != STATUS_OK ? status : value_refs_encode(out, properties->value_refs, properties->value_ref_count);
}

enum status sst_properties_encode(struct buf *out, const struct sst_properties *properties) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < PROPERTY_COUNT - 1 && status == STATUS_OK; i++) {
        const struct property *property = &properties_table[i];
        const uint8_t *member = (const uint8_t *)properties + property->offset;
        struct slice bytes;
        uint8_t number[8];
        if (property->is_key) {
            memcpy(&bytes, member, sizeof bytes);
        } else {
            uint64_t value;
            memcpy(&value, member, sizeof value);
            put_u64(number, value);
            bytes = slice_of(number, sizeof number);
        }
        status = append_property(out, property->tag, bytes);
    }
    if (status == STATUS_OK && properties->value_ref_count > 0) {
        status = append_value_refs(out, properties);
    }
    return status;
}

/* Tags that we don't know are passed over. */
static bool take_property(struct sst_properties *properties, uint64_t tag, struct slice bytes) {
    if (tag == PROPERTY_VALUE_REFS) {
        properties->value_ref_bytes = bytes;
        properties->value_ref_count = bytes.len / VALUE_REF_BYTES;
        return value_refs_check(bytes);
    }
    if (tag < 1 || tag >= PROPERTY_COUNT) {
        return tag != 0;
    }
    const struct property *property = &properties_table[tag - 1];
    uint8_t *member = (uint8_t *)properties + property->offset;
    if (property->is_key) {
        memcpy(member, &bytes, sizeof bytes);
        return bytes.len >= 1 && bytes.len <= LIMIT_KEY_BYTES;
    }
    if (bytes.len != 8) {
        return false;
    }
    uint64_t value = get_u64(bytes.data);
    memcpy(member, &value, sizeof value);
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
