/*
 * One record: the unit that consensus replicates, the same bytes on every node, on disk and on the wire.
 *
 *   0 payload length u32 | 4 kind u8 | 5 version u8 | 6 zero u16 | 8 index u64 | 16 term u64 | 24 checksum u64 | 32
 * payload
 *
 * The checksum is XXH3 of the payload, seeded with XXH3 of the 24 bytes before it: so it binds both without a copy.
 */
#include "node/base/checksum.h"
#include "storage/wal_internal.h"

enum { CHECKSUM_OFFSET = 24 };

static const uint64_t record_seed = 0x686f6c6466726563;

static uint64_t record_checksum(const uint8_t *record, size_t payload_len) {
    uint64_t seed = checksum64(record, CHECKSUM_OFFSET, record_seed);
    return checksum64(record + WAL_RECORD_HEADER_BYTES, payload_len, seed);
}

void wal_record_seal(uint8_t *out, uint8_t kind, uint64_t index, uint64_t term, size_t payload_len) {
    CHECK(kind != 0 && index != 0);
    CHECK(payload_len <= LIMIT_ENTRY_PAYLOAD_BYTES);
    put_u32(out, (uint32_t)payload_len);
    out[4] = kind;
    out[5] = WAL_RECORD_VERSION;
    put_u16(out + 6, 0);
    put_u64(out + 8, index);
    put_u64(out + 16, term);
    put_u64(out + CHECKSUM_OFFSET, record_checksum(out, payload_len));
}

struct wal_record wal__record_at(const uint8_t *bytes) {
    uint32_t payload_len = get_u32(bytes);
    return (struct wal_record){.index = get_u64(bytes + 8),
                               .term = get_u64(bytes + 16),
                               .kind = bytes[4],
                               .payload = slice_of(bytes + WAL_RECORD_HEADER_BYTES, payload_len),
                               .bytes = slice_of(bytes, WAL_RECORD_HEADER_BYTES + (size_t)payload_len)};
}

enum status wal_record_decode(struct slice *cursor, struct wal_record *ret_record, struct error *err) {
    if (cursor->len < WAL_RECORD_HEADER_BYTES) {
        return error_set(err, STATUS_CORRUPT, "log record cut short: %zu bytes left", cursor->len);
    }
    const uint8_t *at = cursor->data;
    uint32_t payload_len = get_u32(at);
    if (payload_len > LIMIT_ENTRY_PAYLOAD_BYTES || payload_len > cursor->len - WAL_RECORD_HEADER_BYTES) {
        return error_set(err, STATUS_CORRUPT, "log record claims a payload of %u bytes, %zu are there", payload_len,
                         cursor->len - WAL_RECORD_HEADER_BYTES);
    }
    if (get_u64(at + CHECKSUM_OFFSET) != record_checksum(at, payload_len)) {
        return error_set(err, STATUS_CORRUPT, "log record fails its checksum");
    }
    if (at[4] == 0 || at[5] != WAL_RECORD_VERSION || get_u16(at + 6) != 0 || get_u64(at + 8) == 0) {
        return error_set(err, STATUS_CORRUPT, "log record with kind %u, version %u and index %llu", at[4], at[5],
                         (unsigned long long)get_u64(at + 8));
    }
    *ret_record = wal__record_at(at);
    cursor_skip(cursor, ret_record->bytes.len);
    return STATUS_OK;
}
