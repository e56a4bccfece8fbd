/* A manifest as bytes: header, records, CURRENT, and the judgement of what a crash left. */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "node/base/checksum.h"
#include "storage/manifest.h"

#include <inttypes.h>

static const char header_magic[8] = {'H', 'F', 'M', 'A', 'N', 'I', 'F', '\n'};
static const char current_magic[8] = {'H', 'F', 'C', 'U', 'R', 'R', 'N', '\n'};

enum { IDENTITY_BYTES = 64, RECORD_HEADER_BYTES = 32, RECORD_EDIT = 1, RECORD_MARK = 2 };

/* ---- Header and CURRENT -------------------------------------------------------------------------------------- */

/* magic 8, version u32, flags u32, manifest number u64, cluster id 16, node id u64, zero u64, checksum u64 */

static void encode_identity(uint8_t out[IDENTITY_BYTES], const char magic[8], const struct manifest_identity *identity,
                            uint64_t number) {
    memset(out, 0, IDENTITY_BYTES);
    memcpy(out, magic, 8);
    put_u32(out + 8, MANIFEST_VERSION);
    put_u64(out + 16, number);
    memcpy(out + 24, identity->cluster_id, STORAGE_CLUSTER_ID_BYTES);
    put_u64(out + 40, identity->node_id);
    put_u64(out + 56, checksum64(out, 56, 0));
}

static enum status read_identity(struct slice in, const char magic[8], struct manifest_identity *ret_identity,
                                 uint64_t *ret_number, struct error *err) {
    if (in.len < IDENTITY_BYTES || memcmp(in.data, magic, 8) != 0) {
        return error_set(err, STATUS_CORRUPT, "no valid header at offset 0");
    }
    /* Another version is believed only where the checksum holds: a flipped bit of it is damage like any other. */
    if (get_u64(in.data + 56) != checksum64(in.data, 56, 0)) {
        return error_set(err, STATUS_CORRUPT, "the header at offset 0 is damaged");
    }
    if (get_u32(in.data + 8) != MANIFEST_VERSION || get_u32(in.data + 12) != 0) {
        return error_set(err, STATUS_UNSUPPORTED, "format version %" PRIu32 ", flags %" PRIx32 "; this build knows %d",
                         get_u32(in.data + 8), get_u32(in.data + 12), MANIFEST_VERSION);
    }
    if (get_u64(in.data + 48) != 0) {
        return error_set(err, STATUS_CORRUPT, "the header at offset 0 has what no version writes");
    }
    memcpy(ret_identity->cluster_id, in.data + 24, STORAGE_CLUSTER_ID_BYTES);
    ret_identity->node_id = get_u64(in.data + 40);
    *ret_number = get_u64(in.data + 16);
    return STATUS_OK;
}

static enum status decode_identity(struct slice in, const char magic[8], const struct manifest_identity *identity,
                                   uint64_t *ret_number, struct error *err) {
    struct manifest_identity found = {.node_id = 0};
    uint64_t number = 0;
    enum status status = read_identity(in, magic, &found, &number, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (memcmp(found.cluster_id, identity->cluster_id, STORAGE_CLUSTER_ID_BYTES) != 0) {
        return error_set(err, STATUS_INVALID, "belongs to another cluster");
    }
    if (found.node_id != identity->node_id) {
        return error_set(err, STATUS_INVALID, "belongs to node %" PRIu64 ", this is node %" PRIu64, found.node_id,
                         identity->node_id);
    }
    *ret_number = number;
    return STATUS_OK;
}

void manifest_header_encode(uint8_t out[MANIFEST_BLOCK_BYTES], const struct manifest_identity *identity,
                            uint64_t number) {
    memset(out, 0, MANIFEST_BLOCK_BYTES);
    encode_identity(out, header_magic, identity, number);
}

void manifest_current_encode(uint8_t out[CURRENT_BYTES], const struct manifest_identity *identity, uint64_t number) {
    encode_identity(out, current_magic, identity, number);
}

enum status manifest_current_decode(struct slice file, const struct manifest_identity *identity, uint64_t *ret_number,
                                    struct error *err) {
    if (file.len != CURRENT_BYTES) {
        return error_set(err, STATUS_CORRUPT, "has %zu bytes instead of %d", file.len, CURRENT_BYTES);
    }
    return decode_identity(file, current_magic, identity, ret_number, err);
}

enum status manifest_current_identify(struct slice file, struct manifest_identity *ret_identity, uint64_t *ret_number,
                                      struct error *err) {
    if (file.len != CURRENT_BYTES) {
        return error_set(err, STATUS_CORRUPT, "has %zu bytes instead of %d", file.len, CURRENT_BYTES);
    }
    return read_identity(file, current_magic, ret_identity, ret_number, err);
}

/* ---- Records ------------------------------------------------------------------------------------------------- */

/* payload length u32, kind u8, zero 3, sequence u64, payload checksum u64, header checksum u64 */

struct record {
    uint8_t kind;
    uint64_t sequence;
    uint32_t payload_len;
    uint64_t payload_checksum;
};

static uint64_t record_seed(uint64_t number, uint64_t offset) { return (number * 0x9e3779b97f4a7c15u) ^ offset; }

static void seal_record(uint8_t *out, const struct record *record, uint64_t number, uint64_t offset) {
    put_u32(out, record->payload_len);
    put_u32(out + 4, record->kind);
    put_u64(out + 8, record->sequence);
    put_u64(out + 16, record->payload_checksum);
    put_u64(out + 24, checksum64(out, 24, record_seed(number, offset)));
}

size_t manifest_edit_bytes(size_t payload_len) {
    size_t len = RECORD_HEADER_BYTES + payload_len;
    return (len + MANIFEST_BLOCK_BYTES - 1) / MANIFEST_BLOCK_BYTES * MANIFEST_BLOCK_BYTES;
}

void manifest_edit_seal(uint8_t *out, struct slice payload, uint64_t number, uint64_t sequence, uint64_t offset) {
    CHECK(offset % MANIFEST_BLOCK_BYTES == 0 && payload.len <= UINT32_MAX);
    size_t total = manifest_edit_bytes(payload.len);
    struct record record = {.kind = RECORD_EDIT,
                            .sequence = sequence,
                            .payload_len = (uint32_t)payload.len,
                            .payload_checksum = checksum64(payload.data, payload.len, record_seed(number, offset))};
    seal_record(out, &record, number, offset);
    memcpy(out + RECORD_HEADER_BYTES, payload.data, payload.len);
    memset(out + RECORD_HEADER_BYTES + payload.len, 0, total - RECORD_HEADER_BYTES - payload.len);
}

void manifest_mark_seal(uint8_t out[MANIFEST_BLOCK_BYTES], uint64_t number, uint64_t sequence, uint64_t offset) {
    struct record record = {.kind = RECORD_MARK, .sequence = sequence};
    memset(out, 0, MANIFEST_BLOCK_BYTES);
    seal_record(out, &record, number, offset);
}

/* ---- Reading ------------------------------------------------------------------------------------------------- */

static bool read_record(struct slice file, uint64_t number, uint64_t offset, struct record *ret_record) {
    if (file.len < offset || file.len - offset < RECORD_HEADER_BYTES) {
        return false;
    }
    const uint8_t *in = file.data + offset;
    if (get_u64(in + 24) != checksum64(in, 24, record_seed(number, offset)) || get_u32(in + 4) > UINT8_MAX) {
        return false;
    }
    *ret_record = (struct record){.kind = in[4],
                                  .sequence = get_u64(in + 8),
                                  .payload_len = get_u32(in),
                                  .payload_checksum = get_u64(in + 16)};
    return true;
}

static bool read_edit(struct slice file, uint64_t number, uint64_t offset, uint64_t sequence,
                      struct slice *ret_payload) {
    struct record record;
    if (!read_record(file, number, offset, &record) || record.kind != RECORD_EDIT || record.sequence != sequence ||
        record.payload_len > file.len - offset - RECORD_HEADER_BYTES) {
        return false;
    }
    struct slice payload = slice_of(file.data + offset + RECORD_HEADER_BYTES, record.payload_len);
    if (record.payload_checksum != checksum64(payload.data, payload.len, record_seed(number, offset))) {
        return false;
    }
    *ret_payload = payload;
    return true;
}

static bool read_mark(struct slice file, uint64_t number, uint64_t offset, uint64_t sequence) {
    struct record record;
    return read_record(file, number, offset, &record) && record.kind == RECORD_MARK && record.sequence == sequence;
}

/* True if any record behind `offset` is valid and shows that the edit `sequence` was synced: its mark, or a later edit.
 */
static bool acknowledged_later(struct slice file, uint64_t number, uint64_t offset, uint64_t sequence) {
    struct record record;
    for (uint64_t at = offset + MANIFEST_BLOCK_BYTES; at < file.len; at += MANIFEST_BLOCK_BYTES) {
        if (read_record(file, number, at, &record) &&
            (record.sequence > sequence || (record.sequence == sequence && record.kind == RECORD_MARK))) {
            return true;
        }
    }
    return false;
}

enum status manifest_parse(struct slice file, const struct manifest_identity *identity, uint64_t number,
                           struct manifest_state *state, struct manifest_end *ret_end, struct error *err) {
    uint64_t named = 0;
    enum status status = decode_identity(file, header_magic, identity, &named, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (named != number) {
        return error_set(err, STATUS_CORRUPT, "the header at offset 0 is manifest %" PRIx64 "'s", named);
    }
    struct manifest_end end = {.size_bytes = MANIFEST_BLOCK_BYTES};
    struct slice payload;
    while (read_edit(file, number, end.size_bytes, end.sequence + 1, &payload)) {
        status = manifest_state_apply(state, payload);
        if (status != STATUS_OK) {
            return error_set(err, status, "the edit at offset %" PRIu64 " %s", end.size_bytes,
                             status == STATUS_UNSUPPORTED ? "has a field that this build doesn't know"
                             : status == STATUS_CORRUPT   ? "contradicts the ones before it"
                                                          : "doesn't fit into memory");
        }
        uint64_t mark_at = end.size_bytes + manifest_edit_bytes(payload.len);
        end.sequence++;
        end.marked = read_mark(file, number, mark_at, end.sequence);
        end.size_bytes = mark_at + MANIFEST_BLOCK_BYTES;
    }
    /* The first edit was complete before CURRENT named the file. */
    if (end.sequence == 0 || acknowledged_later(file, number, end.size_bytes, end.sequence + 1)) {
        return error_set(err, STATUS_CORRUPT, "the edit at offset %" PRIu64 " is damaged", end.size_bytes);
    }
    *ret_end = end;
    return STATUS_OK;
}
