/*
 * One group: what one write carries. The header is this node's own; the records behind it are everybody's.
 *
 * Two checksums. The header's covers its own bytes, so that a header can be judged alone: that is how recovery finds
 * that something was written after a damaged stretch. The body's, inside the header, binds membership and record
 * headers; and each record's own binds its payload. The header's checksum is the next group's `previous checksum`: a
 * chain, in which no group can be missing, doubled or of another life.
 */
#include "node/base/checksum.h"
#include "storage/wal_internal.h"

enum {
    AT_VERSION = 8,
    AT_FLAGS = 10,
    AT_TOTAL = 12,
    AT_COUNT = 16,
    AT_MEMBERSHIP = 20,
    AT_GENERATION = 24,
    AT_SEQUENCE = 32,
    AT_SYNCED_INDEX = 40,
    AT_SYNCED_TERM = 48,
    AT_COMMIT = 56,
    AT_TERM = 64,
    AT_VOTE = 72,
    AT_FIRST_INDEX = 80,
    AT_PREVIOUS_CHECKSUM = 88,
    AT_PREVIOUS_SEGMENT = 96,
    AT_PREVIOUS_END = 104,
    AT_BODY_CHECKSUM = 112,
    AT_CHECKSUM = 120
};

static_assert(AT_CHECKSUM + 8 == WAL_GROUP_HEADER_BYTES, "the header ends with its checksum");

static const char group_magic[8] = "HFWALGRP";
static const uint64_t header_seed = 0x686f6c6466677268;
static const uint64_t body_seed = 0x686f6c6466677262;

static uint64_t body_checksum_of_record(uint64_t checksum, const uint8_t *record) {
    return checksum64(record, WAL_RECORD_HEADER_BYTES, checksum);
}

void wal__group_seal(uint8_t *group, struct wal__group_header *header, const uint32_t *offsets) {
    CHECK((header->record_count == 0) == (header->first_index == 0));
    CHECK(((header->flags & WAL__GROUP_MEMBERSHIP) != 0) == (header->membership_bytes > 0));
    size_t own_bytes = wal__heal_bytes(header) + header->membership_bytes;
    uint64_t body = checksum64(group + WAL_GROUP_HEADER_BYTES, own_bytes, body_seed);
    for (uint32_t i = 0; i < header->record_count; i++) {
        body = body_checksum_of_record(body, group + offsets[i]);
    }
    header->body_checksum = body;
    memcpy(group, group_magic, sizeof group_magic);
    put_u16(group + AT_VERSION, WAL_FORMAT_VERSION);
    put_u16(group + AT_FLAGS, header->flags);
    put_u32(group + AT_TOTAL, header->total_bytes);
    put_u32(group + AT_COUNT, header->record_count);
    put_u32(group + AT_MEMBERSHIP, header->membership_bytes);
    put_u64(group + AT_GENERATION, header->generation);
    put_u64(group + AT_SEQUENCE, header->sequence);
    put_u64(group + AT_SYNCED_INDEX, header->synced_index);
    put_u64(group + AT_SYNCED_TERM, header->synced_term);
    put_u64(group + AT_COMMIT, header->commit_index);
    put_u64(group + AT_TERM, header->term);
    put_u64(group + AT_VOTE, header->vote);
    put_u64(group + AT_FIRST_INDEX, header->first_index);
    put_u64(group + AT_PREVIOUS_CHECKSUM, header->previous_checksum);
    put_u64(group + AT_PREVIOUS_SEGMENT, header->previous_segment);
    put_u64(group + AT_PREVIOUS_END, header->previous_end);
    put_u64(group + AT_BODY_CHECKSUM, header->body_checksum);
    header->checksum = checksum64(group, AT_CHECKSUM, header_seed);
    put_u64(group + AT_CHECKSUM, header->checksum);
}

/* Numbers beyond this are never reached, and leave room to count on. */
static const uint64_t number_max = UINT64_MAX / 2;

/* False for what no writer of this version writes. */
static bool is_plausible(const struct wal__group_header *header) {
    if (header->sequence > number_max || header->synced_index > number_max || header->term > number_max) {
        return false;
    }
    if (header->previous_segment != 0 &&
        (header->previous_end < WAL_FIRST_RECORDS_OFFSET || header->previous_end % WAL_BLOCK_BYTES != 0)) {
        return false;
    }
    bool first = (header->flags & WAL__GROUP_FIRST) != 0;
    uint64_t least = WAL_GROUP_HEADER_BYTES + wal__heal_bytes(header) + (uint64_t)header->membership_bytes +
                     (uint64_t)header->record_count * WAL_RECORD_HEADER_BYTES;
    if ((header->flags & ~WAL__GROUP_FLAGS_KNOWN) != 0 || header->total_bytes < least || header->sequence == 0) {
        return false;
    }
    if (((header->flags & WAL__GROUP_MEMBERSHIP) != 0) != (header->membership_bytes > 0) ||
        header->membership_bytes > LIMIT_MEMBERSHIP_BYTES) {
        return false;
    }
    if (header->record_count == 0) {
        return header->first_index == 0 && header->total_bytes == least &&
               (first || (header->previous_segment == 0 && header->previous_end == 0 &&
                          (header->flags & (WAL__GROUP_RESET | WAL__GROUP_HEAL)) == 0));
    }
    return !first && (header->flags & (WAL__GROUP_MARK | WAL__GROUP_RESET | WAL__GROUP_HEAL)) == 0 &&
           header->previous_segment == 0 && header->previous_end == 0 && header->first_index > 0 &&
           header->synced_index == header->first_index - 1;
}

enum status wal__group_header_decode(const uint8_t *bytes, struct wal__group_header *ret_header) {
    uint64_t checksum = get_u64(bytes + AT_CHECKSUM);
    if (memcmp(bytes, group_magic, sizeof group_magic) != 0 ||
        checksum != checksum64(bytes, AT_CHECKSUM, header_seed)) {
        return STATUS_CORRUPT;
    }
    if (get_u16(bytes + AT_VERSION) != WAL_FORMAT_VERSION) {
        return STATUS_UNSUPPORTED;
    }
    struct wal__group_header header = {.flags = get_u16(bytes + AT_FLAGS),
                                       .total_bytes = get_u32(bytes + AT_TOTAL),
                                       .record_count = get_u32(bytes + AT_COUNT),
                                       .membership_bytes = get_u32(bytes + AT_MEMBERSHIP),
                                       .generation = get_u64(bytes + AT_GENERATION),
                                       .sequence = get_u64(bytes + AT_SEQUENCE),
                                       .synced_index = get_u64(bytes + AT_SYNCED_INDEX),
                                       .synced_term = get_u64(bytes + AT_SYNCED_TERM),
                                       .commit_index = get_u64(bytes + AT_COMMIT),
                                       .term = get_u64(bytes + AT_TERM),
                                       .vote = get_u64(bytes + AT_VOTE),
                                       .first_index = get_u64(bytes + AT_FIRST_INDEX),
                                       .previous_checksum = get_u64(bytes + AT_PREVIOUS_CHECKSUM),
                                       .previous_segment = get_u64(bytes + AT_PREVIOUS_SEGMENT),
                                       .previous_end = get_u64(bytes + AT_PREVIOUS_END),
                                       .body_checksum = get_u64(bytes + AT_BODY_CHECKSUM),
                                       .checksum = checksum};
    if (!is_plausible(&header)) {
        return STATUS_CORRUPT;
    }
    *ret_header = header;
    return STATUS_OK;
}

enum status wal__group_check_body(const struct wal__group_header *header, const uint8_t *group) {
    size_t own_bytes = wal__heal_bytes(header) + header->membership_bytes;
    uint64_t body = checksum64(group + WAL_GROUP_HEADER_BYTES, own_bytes, body_seed);
    size_t skipped = WAL_GROUP_HEADER_BYTES + own_bytes;
    struct slice cursor = slice_of(group + skipped, header->total_bytes - skipped);
    uint64_t term = header->synced_term;
    for (uint32_t i = 0; i < header->record_count; i++) {
        struct wal_record record;
        if (wal_record_decode(&cursor, &record, NULL) != STATUS_OK || record.index != header->first_index + i ||
            record.term < term) {
            return STATUS_CORRUPT;
        }
        term = record.term;
        body = body_checksum_of_record(body, record.bytes.data);
    }
    return cursor.len == 0 && body == header->body_checksum ? STATUS_OK : STATUS_CORRUPT;
}
