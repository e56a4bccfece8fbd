/*
 * Verifying a whole value file: header, footer, sizes, every value block, properties, counts, the file's checksum.
 * Through the sizes each block is found by itself, so a finding doesn't end it; but then the file's checksum can't be
 * told and isn't.
 */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "storage/sst_internal.h"
#include "storage/value_file.h"

enum { PACE_BYTES = 1024 * 1024 };

struct value_verifier {
    struct sst *file;
    const struct sst_verify_options *options; /* may be NULL */
    struct sst_verify_report report;
    struct error *err;
    struct sst_footer footer;
    uint64_t unpaced_bytes;
    uint64_t bytes; /* of value blocks with their trailers */
    uint64_t header_checksum;
    uint64_t checksum;
    bool complete; /* all blocks were whole so far */
    struct buf raw;
    struct buf body;
    struct buf sizes;
};

static void finding(struct value_verifier *verifier, const char *what, uint64_t offset) {
    bool first = verifier->report.findings++ == 0;
    if (first) {
        verifier->report.first_offset = offset;
    }
    (void)sst__damaged(verifier->file, STATUS_CORRUPT, what, offset, first ? verifier->err : NULL);
}

static enum status pace(struct value_verifier *verifier, uint64_t bytes) {
    const struct sst_verify_options *options = verifier->options;
    verifier->report.bytes += bytes;
    verifier->unpaced_bytes += bytes;
    if (options == NULL || options->pace == NULL || verifier->unpaced_bytes < PACE_BYTES) {
        return STATUS_OK;
    }
    bool go_on = options->pace(options->context, verifier->unpaced_bytes);
    verifier->unpaced_bytes = 0;
    return go_on ? STATUS_OK : error_set(verifier->err, STATUS_CANCELLED, "verifying was stopped");
}

static enum status reserve(struct value_verifier *verifier, struct buf *buf, size_t len) {
    buf_clear(buf);
    return buf_reserve(buf, len) == STATUS_OK ? STATUS_OK : sst__no_memory(verifier->file, len, verifier->err);
}

/* The block with its body, plain, in verifier->body. STATUS_CORRUPT: a finding. */
static enum status read_block(struct value_verifier *verifier, const struct sst_handle *handle,
                              enum sst_block_kind kind, uint64_t *ret_checksum) {
    struct sst *file = verifier->file;
    struct sst_stored stored;
    struct error err;
    size_t len = (size_t)handle->size + SST_TRAILER_BYTES;
    enum status status = pace(verifier, len);
    if (status == STATUS_OK) {
        status = reserve(verifier, &verifier->raw, len);
    }
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t *data = verifier->raw.data;
    status = sst__read(file, data, len, handle->offset, &err);
    if (status == STATUS_OK &&
        sst_block_check(slice_of(data, len), kind, file->meta.id, handle->offset, &stored) != STATUS_OK) {
        status = sst__read_again(file, data, len, handle->offset, &err);
    }
    if (status != STATUS_OK && status != STATUS_CORRUPT) {
        return error_set(verifier->err, status, "%s", err.message);
    }
    bool whole = status == STATUS_OK &&
                 sst_block_check(slice_of(data, len), kind, file->meta.id, handle->offset, &stored) == STATUS_OK;
    status = whole ? reserve(verifier, &verifier->body, stored.size) : STATUS_OK;
    if (status != STATUS_OK) {
        return status;
    }
    status = whole ? sst_block_unpack(file->context->env->alloc, &stored, verifier->body.data) : STATUS_CORRUPT;
    if (status == STATUS_NO_MEMORY) {
        return sst__no_memory(file, stored.size, verifier->err);
    }
    if (status != STATUS_OK) {
        finding(verifier, "the block", handle->offset);
        verifier->complete = false;
        return STATUS_CORRUPT;
    }
    verifier->body.len = stored.size;
    *ret_checksum = stored.checksum;
    return STATUS_OK;
}

static enum status verify_ends(struct value_verifier *verifier, uint64_t *ret_footer_checksum) {
    struct sst *file = verifier->file;
    uint8_t bytes[SST_FOOTER_BYTES];
    struct sst_header header;
    uint64_t size_bytes;
    enum status status = env_size(file->file.file, &size_bytes, verifier->err);
    if (status == STATUS_OK && (size_bytes != file->meta.size_bytes || size_bytes < SST_HEADER_BYTES + sizeof bytes)) {
        finding(verifier, "the size of the file: what ends", size_bytes);
        return STATUS_CORRUPT;
    }
    if (status == STATUS_OK) {
        status = sst__read(file, bytes, SST_HEADER_BYTES, 0, verifier->err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_header_decode(bytes, &header) != STATUS_OK || header.kind != SST_FILE_VALUES ||
        header.id != file->meta.id || memcmp(header.cluster_id, file->context->cluster_id, SST_CLUSTER_ID_BYTES) != 0) {
        finding(verifier, "the header", 0);
        verifier->complete = false;
    }
    verifier->header_checksum = sst_header_checksum(bytes);
    status = sst__read(file, bytes, sizeof bytes, size_bytes - sizeof bytes, verifier->err);
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_footer_decode(bytes, file->meta.id, size_bytes, &verifier->footer) != STATUS_OK ||
        verifier->footer.top.size == 0 || verifier->footer.tombstones.size > 0) {
        finding(verifier, "the footer", size_bytes - sizeof bytes);
        return STATUS_CORRUPT;
    }
    *ret_footer_checksum = sst_footer_checksum(bytes);
    verifier->report.bytes += SST_HEADER_BYTES + SST_FOOTER_BYTES;
    return STATUS_OK;
}

static enum status verify_values(struct value_verifier *verifier) {
    uint64_t end = verifier->footer.top.offset;
    uint64_t position = SST_HEADER_BYTES;
    for (size_t at = 0; at < verifier->sizes.len; at += VALUE_SIZE_BYTES) {
        struct sst_handle handle = {.offset = position, .size = get_u32(verifier->sizes.data + at)};
        struct value_block block;
        uint64_t checksum = 0;
        if (handle.size == 0 || handle.size > SST_BLOCK_BYTES_MAX ||
            (uint64_t)handle.size + SST_TRAILER_BYTES > end - position) {
            finding(verifier, "the list of sizes", end);
            return STATUS_CORRUPT;
        }
        position += (uint64_t)handle.size + SST_TRAILER_BYTES;
        enum status status = read_block(verifier, &handle, SST_BLOCK_VALUE, &checksum);
        if (status == STATUS_OK && value_block_open(buf_slice(&verifier->body), &block) != STATUS_OK) {
            finding(verifier, "the value", handle.offset);
        }
        if (status != STATUS_OK && status != STATUS_CORRUPT) {
            return status;
        }
        verifier->checksum = sst_file_checksum_add(verifier->checksum, checksum);
        verifier->report.entries++;
        verifier->report.data_blocks++;
    }
    verifier->bytes = position - SST_HEADER_BYTES;
    if (position != end) {
        finding(verifier, "what stands between two blocks", position);
    }
    return STATUS_OK;
}

static enum status verify_all(struct value_verifier *verifier) {
    const struct sst_meta *meta = &verifier->file->meta;
    struct sst_properties properties;
    uint64_t footer_checksum = 0;
    uint64_t sizes_checksum = 0;
    uint64_t properties_checksum = 0;
    enum status status = verify_ends(verifier, &footer_checksum);
    if (status == STATUS_OK) {
        status = read_block(verifier, &verifier->footer.top, SST_BLOCK_TOP, &sizes_checksum);
    }
    if (status != STATUS_OK) {
        return status;
    }
    struct buf sizes = verifier->body;
    verifier->body = verifier->sizes;
    verifier->sizes = sizes;
    verifier->checksum = sst_file_checksum_add(0, verifier->header_checksum);
    status = sizes.len % VALUE_SIZE_BYTES == 0 ? verify_values(verifier) : STATUS_CORRUPT;
    if (status == STATUS_OK) {
        status = read_block(verifier, &verifier->footer.properties, SST_BLOCK_PROPERTIES, &properties_checksum);
    }
    if (status != STATUS_OK) {
        return status;
    }
    verifier->checksum = sst_file_checksum_add(verifier->checksum, sizes_checksum);
    verifier->checksum = sst_file_checksum_add(verifier->checksum, properties_checksum);
    verifier->checksum = sst_file_checksum_add(verifier->checksum, footer_checksum);
    verifier->report.checksum = verifier->checksum;
    bool unknown = verifier->options != NULL && verifier->options->checksum_unknown;
    if (sst_properties_decode(buf_slice(&verifier->body), &properties) != STATUS_OK ||
        properties.entries != verifier->report.entries || meta->entries != verifier->report.entries ||
        meta->value_bytes != verifier->bytes) {
        finding(verifier, "a count in the properties: the block", verifier->footer.properties.offset);
    } else if (verifier->complete && !unknown && verifier->checksum != meta->checksum) {
        finding(verifier, "the checksum of the whole file (the manifest's is another): the file", 0);
    }
    return STATUS_OK;
}

enum status value_verify(struct sst *file, const struct sst_verify_options *options,
                         struct sst_verify_report *ret_report, struct error *err) {
    struct value_verifier verifier = {.file = file, .options = options, .err = err, .complete = true};
    struct alloc *alloc = file->context->env->alloc;
    CHECK(file->is_values);
    if (file->is_log) {
        return value_log_verify(file, options, ret_report, err);
    }
    buf_init(&verifier.raw, alloc, 0);
    buf_init(&verifier.body, alloc, 0);
    buf_init(&verifier.sizes, alloc, 0);
    enum status status = sst__pin(file, err);
    if (status == STATUS_OK) {
        status = verify_all(&verifier);
        open_file_unpin(&file->file);
    }
    if (status == STATUS_CORRUPT && verifier.report.findings == 0) {
        finding(&verifier, "the list of sizes", verifier.footer.top.offset);
    }
    *ret_report = verifier.report;
    buf_deinit(&verifier.raw);
    buf_deinit(&verifier.body);
    buf_deinit(&verifier.sizes);
    return status == STATUS_OK && verifier.report.findings > 0 ? STATUS_CORRUPT : status;
}
