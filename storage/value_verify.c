/*
 * Verifying a whole value file: header, footer, sizes, every value block, properties, counts, the file's checksum.
 * Through the sizes each block is found by itself, so a finding doesn't end it; but then the file's checksum can't be
 * told and isn't.
 */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "storage/sst_verifier.h"
#include "storage/value_file.h"

struct value_verifier {
    struct sst_verifier base;
    struct sst_footer footer;
    uint64_t bytes; /* of value blocks with their trailers */
    struct buf body;
    struct buf sizes;
};

static enum status verify_values(struct value_verifier *verifier) {
    struct sst_verifier *base = &verifier->base;
    uint64_t end = verifier->footer.top.offset;
    uint64_t position = SST_HEADER_BYTES;
    if (verifier->sizes.len % VALUE_SIZE_BYTES != 0) {
        return sst__verify_broken(base, "the list of sizes", end);
    }
    for (size_t at = 0; at < verifier->sizes.len; at += VALUE_SIZE_BYTES) {
        struct sst_handle handle = {.offset = position, .size = get_u32(verifier->sizes.data + at)};
        struct value_block block;
        uint64_t checksum = 0;
        if (handle.size == 0 || handle.size > SST_BLOCK_BYTES_MAX ||
            (uint64_t)handle.size + SST_TRAILER_BYTES > end - position) {
            return sst__verify_broken(base, "the list of sizes", end);
        }
        position += (uint64_t)handle.size + SST_TRAILER_BYTES;
        enum status status = sst__verify_block(base, &handle, SST_BLOCK_VALUE, &verifier->body, &checksum);
        if (status == STATUS_OK && value_block_open(buf_slice(&verifier->body), &block) != STATUS_OK) {
            sst__verify_finding(base, "the value", handle.offset);
        }
        if (status != STATUS_OK && status != STATUS_CORRUPT) {
            return status;
        }
        sst__verify_add(base, checksum);
        base->report.entries++;
        base->report.data_blocks++;
    }
    verifier->bytes = position - SST_HEADER_BYTES;
    if (position != end) {
        sst__verify_finding(base, "what stands between two blocks", position);
    }
    return STATUS_OK;
}

static enum status verify_all(struct value_verifier *verifier) {
    struct sst_verifier *base = &verifier->base;
    const struct sst_meta *meta = &base->file->meta;
    const struct sst_footer *footer = &verifier->footer;
    struct sst_properties properties;
    uint64_t footer_checksum = 0;
    uint64_t sizes_checksum = 0;
    uint64_t properties_checksum = 0;
    enum status status = sst__verify_ends(base, SST_FILE_VALUES, &verifier->footer, &footer_checksum);
    if (status == STATUS_OK) {
        status = sst__verify_block(base, &footer->top, SST_BLOCK_TOP, &verifier->sizes, &sizes_checksum);
    }
    if (status == STATUS_OK) {
        status = verify_values(verifier);
    }
    if (status == STATUS_OK) {
        status =
            sst__verify_block(base, &footer->properties, SST_BLOCK_PROPERTIES, &verifier->body, &properties_checksum);
    }
    if (status != STATUS_OK) {
        return status;
    }
    sst__verify_add(base, sizes_checksum);
    sst__verify_add(base, properties_checksum);
    sst__verify_add(base, footer_checksum);
    if (sst_properties_decode(buf_slice(&verifier->body), &properties) != STATUS_OK ||
        properties.entries != base->report.entries || meta->entries != base->report.entries ||
        meta->value_bytes != verifier->bytes) {
        (void)sst__verify_broken(base, "a count in the properties: the block", footer->properties.offset);
    }
    sst__verify_checksum(base);
    return STATUS_OK;
}

enum status value_verify(struct sst *file, const struct sst_verify_options *options,
                         struct sst_verify_report *ret_report, struct error *err) {
    struct value_verifier verifier;
    struct alloc *alloc = file->context->env->alloc;
    CHECK(file->is_values);
    if (file->is_log) {
        return value_log_verify(file, options, ret_report, err);
    }
    sst__verifier_init(&verifier.base, file, options, err);
    buf_init(&verifier.body, alloc, 0);
    buf_init(&verifier.sizes, alloc, 0);
    enum status status = sst__pin(file, err);
    if (status == STATUS_OK) {
        status = verify_all(&verifier);
        open_file_unpin(&file->file);
    }
    *ret_report = verifier.base.report;
    buf_deinit(&verifier.body);
    buf_deinit(&verifier.sizes);
    sst__verifier_deinit(&verifier.base);
    return status == STATUS_OK && ret_report->findings > 0 ? STATUS_CORRUPT : status;
}
