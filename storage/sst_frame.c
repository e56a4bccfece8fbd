/* Header, footer and properties of a file by itself. The contract is in sst_frame.h. */
#include "storage/sst_frame.h"

#include <inttypes.h>
#include <string.h>

void sst_frame_init(struct sst_frame *frame, struct alloc *alloc) {
    *frame = (struct sst_frame){.has_header = false};
    buf_init(&frame->body, alloc, 0);
    buf_init(&frame->refs, alloc, 0);
}

void sst_frame_deinit(struct sst_frame *frame) {
    buf_deinit(&frame->body);
    buf_deinit(&frame->refs);
}

static enum status damaged(struct env_file *file, enum status status, const char *what, uint64_t offset,
                           struct error *err) {
    return error_set(err, status, "%s: %s at offset %" PRIu64 " %s", env_file_path(file), what, offset,
                     status == STATUS_UNSUPPORTED ? "is of an unknown version" : "is damaged");
}

static enum status read_exactly(struct env_file *file, void *data, size_t len, uint64_t offset, struct error *err) {
    size_t got = 0;
    enum status status = env_pread(file, data, len, offset, &got, err);
    if (status == STATUS_OK && got != len) {
        return error_set(err, STATUS_CORRUPT, "%s: ends at offset %" PRIu64 ", inside what starts at %" PRIu64,
                         env_file_path(file), offset + got, offset);
    }
    return status;
}

/* The plain body of the properties block. */
static enum status read_body(struct sst_frame *frame, struct env_file *file, struct error *err) {
    const struct sst_handle *handle = &frame->footer.properties;
    size_t len = (size_t)handle->size + SST_TRAILER_BYTES;
    struct sst_stored stored;
    struct buf raw;
    buf_init(&raw, frame->body.alloc, 0);
    enum status status = buf_reserve(&raw, len);
    if (status != STATUS_OK) {
        (void)error_set(err, status, "%s: no memory for %zu bytes of it", env_file_path(file), len);
        goto out;
    }
    status = read_exactly(file, raw.data, len, handle->offset, err);
    if (status != STATUS_OK) {
        goto out;
    }
    status = sst_block_check(slice_of(raw.data, len), SST_BLOCK_PROPERTIES, frame->header.id, handle->offset, &stored);
    if (status == STATUS_OK) {
        status = buf_reserve(&frame->body, stored.size);
    }
    if (status == STATUS_OK) {
        status = sst_block_unpack(raw.alloc, &stored, frame->body.data);
    }
    if (status == STATUS_OK) {
        frame->body.len = stored.size;
    } else if (status == STATUS_NO_MEMORY) {
        (void)error_set(err, status, "%s: no memory for its properties", env_file_path(file));
    } else {
        (void)damaged(file, status, "the properties block", handle->offset, err);
    }
out:
    buf_deinit(&raw);
    return status;
}

static enum status read_properties(struct sst_frame *frame, struct env_file *file, struct error *err) {
    struct sst_properties *properties = &frame->properties;
    enum status status = read_body(frame, file, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_properties_decode(buf_slice(&frame->body), properties) != STATUS_OK) {
        return damaged(file, STATUS_CORRUPT, "the properties block", frame->footer.properties.offset, err);
    }
    for (size_t i = 0; i < properties->value_ref_count && status == STATUS_OK; i++) {
        struct value_ref ref = value_ref_decode(properties->value_ref_bytes.data + i * VALUE_REF_BYTES);
        status = buf_append(&frame->refs, &ref, sizeof ref);
    }
    properties->value_refs = (const struct value_ref *)(const void *)frame->refs.data;
    return status == STATUS_OK ? status
                               : error_set(err, status, "%s: no memory for its references", env_file_path(file));
}

enum status sst_frame_read(struct sst_frame *frame, struct env_file *file, struct error *err) {
    uint8_t bytes[SST_FOOTER_BYTES];
    static_assert((int)SST_HEADER_BYTES <= (int)SST_FOOTER_BYTES, "one array for both");
    enum status status = env_size(file, &frame->size_bytes, err);
    if (status == STATUS_OK && frame->size_bytes < SST_HEADER_BYTES + SST_FOOTER_BYTES) {
        return error_set(err, STATUS_CORRUPT, "%s: has only %" PRIu64 " bytes", env_file_path(file), frame->size_bytes);
    }
    if (status == STATUS_OK) {
        status = read_exactly(file, bytes, SST_HEADER_BYTES, 0, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = sst_header_decode(bytes, &frame->header);
    if (status != STATUS_OK) {
        return damaged(file, status, "the header", 0, err);
    }
    frame->has_header = true;
    uint64_t footer_at = frame->size_bytes - SST_FOOTER_BYTES;
    status = read_exactly(file, bytes, SST_FOOTER_BYTES, footer_at, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = sst_footer_decode(bytes, frame->header.id, frame->size_bytes, &frame->footer);
    return status == STATUS_OK ? read_properties(frame, file, err)
                               : damaged(file, status, "the footer", footer_at, err);
}

void sst_frame_meta(const struct sst_frame *frame, struct sst_meta *ret_meta) {
    const struct sst_properties *properties = &frame->properties;
    *ret_meta = (struct sst_meta){.id = frame->header.id,
                                  .size_bytes = frame->size_bytes,
                                  .entries = properties->entries,
                                  .deletes = properties->deletes,
                                  .tombstones = properties->tombstones,
                                  .superseded = properties->superseded,
                                  .superseded_until = properties->superseded_until,
                                  .key_bytes = properties->key_bytes,
                                  .value_bytes = properties->value_bytes,
                                  .revision_first = properties->revision_first,
                                  .revision_last = properties->revision_last,
                                  .smallest = properties->smallest,
                                  .largest = properties->largest,
                                  .largest_excluded = properties->largest_excluded != 0,
                                  .value_refs = properties->value_refs,
                                  .value_ref_count = properties->value_ref_count};
}
