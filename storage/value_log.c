/*
 * Log segments as value files: the one place of the store that knows bytes of the log (FORMAT-wal.md).
 *
 * A large value is in the log already. Where most of a segment is large values, the manifest takes the segment's file
 * over under a name of its own (values_adopt.c), and entries refer to the records in it: the place's handle covers one
 * record, header included, as it covers a block and its trailer in other value files. So a large value is written once.
 *
 * A record is checked as the log checks it, and must be the entry's: its index is the revision, and the operation with
 * the entry's ordinal puts that key. Padding, headers, small records and superseded ones are garbage; they count as
 * such: the file's bytes are all it has.
 */
#include "node/base/check.h"
#include "storage/batch.h"
#include "storage/sst_internal.h"
#include "storage/value_file.h"
#include "storage/wal.h"

static_assert((int)WAL_RECORD_HEADER_BYTES > (int)SST_TRAILER_BYTES, "a handle is what is left without a trailer");
static_assert((int)SST_CLUSTER_ID_BYTES == (int)WAL_CLUSTER_ID_BYTES, "one id for both");
static_assert(WAL_RECORD_HEADER_BYTES + LIMIT_ENTRY_PAYLOAD_BYTES <= SST_BLOCK_BYTES_MAX, "every record can be read");

struct sst_handle value_log_handle(uint64_t offset, uint32_t record_bytes) {
    CHECK(record_bytes > SST_TRAILER_BYTES);
    return (struct sst_handle){.offset = offset, .size = record_bytes - SST_TRAILER_BYTES};
}

bool value_log_is_worth(size_t value_len, uint32_t record_bytes) {
    return value_len >= (record_bytes - WAL_RECORD_HEADER_BYTES) / 2;
}

enum status value_log_check(struct slice bytes) {
    struct wal_record record;
    enum status status = wal_record_decode(&bytes, &record, NULL);
    return status == STATUS_OK && bytes.len > 0 ? STATUS_CORRUPT : status;
}

enum status value_log_find(struct slice bytes, const struct entry_key *key, struct slice *ret_value) {
    struct wal_record record;
    struct batch_reader reader;
    struct batch_operation operation = {.kind = BATCH_DELETE};
    enum status status = wal_record_decode(&bytes, &record, NULL);
    if (status == STATUS_OK) {
        status = record.index == key->revision ? batch_open(record.payload, &reader) : STATUS_CORRUPT;
    }
    for (uint64_t ordinal = 0; ordinal <= key->ordinal && status == STATUS_OK; ordinal++) {
        status = batch_next(&reader, &operation);
    }
    if (status != STATUS_OK || operation.kind != BATCH_PUT || !slice_equal(operation.key, key->user)) {
        return STATUS_CORRUPT;
    }
    *ret_value = operation.value;
    return STATUS_OK;
}

static bool pace(void *context, uint64_t bytes) {
    const struct sst_verify_options *options = context;
    return options->pace(options->context, bytes);
}

enum status value_log_verify(struct sst *file, const struct sst_verify_options *options,
                             struct sst_verify_report *ret_report, struct error *err) {
    struct wal_check check = {.env = file->context->env,
                              .size_bytes = file->meta.size_bytes,
                              .checksum = file->meta.checksum};
    uint64_t records = 0;
    uint64_t offset = 0;
    CHECK(file->is_log);
    memcpy(check.cluster_id, file->context->cluster_id, WAL_CLUSTER_ID_BYTES);
    if (options != NULL && options->pace != NULL) {
        check.pace = pace;
        check.context = (void *)(uintptr_t)options; /* as it was handed in */
    }
    *ret_report = (struct sst_verify_report){.checksum = check.checksum};
    enum status status = sst__pin(file, err);
    if (status != STATUS_OK) {
        return status;
    }
    check.file = file->file.file;
    status = wal_check_segment(&check, &records, &offset, err);
    open_file_unpin(&file->file);
    ret_report->bytes = offset;
    ret_report->entries = records;
    if (status == STATUS_CORRUPT) {
        ret_report->findings = 1;
        ret_report->first_offset = offset;
        (void)sst__damaged(file, status, "the log group", offset, err);
    }
    return status;
}
