/* What verifying tables, value files and change files has in common. The contract is in sst_verifier.h. */
#include "storage/sst_verifier.h"

enum { PACE_BYTES = 1024 * 1024 };

void sst__verifier_init(struct sst_verifier *verifier, struct sst *file, const struct sst_verify_options *options,
                        struct error *err) {
    *verifier = (struct sst_verifier){.file = file, .options = options, .err = err, .complete = true};
    buf_init(&verifier->raw, file->context->env->alloc, 0);
}

void sst__verifier_deinit(struct sst_verifier *verifier) { buf_deinit(&verifier->raw); }

void sst__verify_finding(struct sst_verifier *verifier, const char *what, uint64_t offset) {
    bool first = verifier->report.findings++ == 0;
    if (first) {
        verifier->report.first_offset = offset;
    }
    (void)sst__damaged(verifier->file, STATUS_CORRUPT, what, offset, first ? verifier->err : NULL);
}

enum status sst__verify_broken(struct sst_verifier *verifier, const char *what, uint64_t offset) {
    sst__verify_finding(verifier, what, offset);
    verifier->complete = false;
    return STATUS_CORRUPT;
}

enum status sst__verify_no_memory(struct sst_verifier *verifier, size_t bytes) {
    return sst__no_memory(verifier->file, bytes, verifier->err);
}

static enum status pace(struct sst_verifier *verifier, uint64_t bytes) {
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

enum status sst__verify_read(struct sst_verifier *verifier, const struct sst_handle *handle, enum sst_block_kind kind,
                             struct sst_stored *ret_stored) {
    struct sst *file = verifier->file;
    struct error err;
    size_t len = (size_t)handle->size + SST_TRAILER_BYTES;
    enum status status = pace(verifier, len);
    if (status != STATUS_OK) {
        return status;
    }
    buf_clear(&verifier->raw);
    if (buf_reserve(&verifier->raw, len) != STATUS_OK) {
        return sst__verify_no_memory(verifier, len);
    }
    struct slice block = slice_of(verifier->raw.data, len);
    status = sst__read(file, verifier->raw.data, len, handle->offset, &err);
    if (status == STATUS_OK && sst_block_check(block, kind, file->meta.id, handle->offset, ret_stored) != STATUS_OK) {
        status = sst__read_again(file, verifier->raw.data, len, handle->offset, &err);
    }
    if (status != STATUS_OK && status != STATUS_CORRUPT) {
        if (verifier->err != NULL) {
            *verifier->err = err;
        }
        return status;
    }
    if (status == STATUS_OK) {
        status = sst_block_check(block, kind, file->meta.id, handle->offset, ret_stored);
    }
    return status == STATUS_OK ? STATUS_OK : sst__verify_broken(verifier, "the block", handle->offset);
}

enum status sst__verify_unpack(struct sst_verifier *verifier, const struct sst_stored *stored, uint64_t offset,
                               struct buf *body) {
    buf_clear(body);
    if (buf_reserve(body, stored->size) != STATUS_OK) {
        return sst__verify_no_memory(verifier, stored->size);
    }
    enum status status = sst_block_unpack(verifier->file->context->env->alloc, stored, body->data);
    if (status == STATUS_NO_MEMORY) {
        return sst__verify_no_memory(verifier, stored->size);
    }
    if (status != STATUS_OK) {
        return sst__verify_broken(verifier, "the block (its compressed bytes)", offset);
    }
    body->len = stored->size;
    return STATUS_OK;
}

enum status sst__verify_block(struct sst_verifier *verifier, const struct sst_handle *handle, enum sst_block_kind kind,
                              struct buf *body, uint64_t *ret_checksum) {
    struct sst_stored stored;
    enum status status = sst__verify_read(verifier, handle, kind, &stored);
    if (status == STATUS_OK) {
        status = sst__verify_unpack(verifier, &stored, handle->offset, body);
    }
    if (status == STATUS_OK) {
        *ret_checksum = stored.checksum;
    }
    return status;
}

enum status sst__verify_ends(struct sst_verifier *verifier, enum sst_file_kind kind, struct sst_footer *ret_footer,
                             uint64_t *ret_footer_checksum) {
    struct sst *file = verifier->file;
    uint8_t bytes[SST_FOOTER_BYTES];
    struct sst_header header;
    uint64_t size_bytes;
    enum status status = env_size(file->file.file, &size_bytes, verifier->err);
    if (status == STATUS_OK && (size_bytes != file->meta.size_bytes || size_bytes < SST_HEADER_BYTES + sizeof bytes)) {
        return sst__verify_broken(verifier, "the size of the file: what ends", size_bytes);
    }
    if (status == STATUS_OK) {
        status = sst__read(file, bytes, SST_HEADER_BYTES, 0, verifier->err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_header_decode(bytes, &header) != STATUS_OK || header.kind != kind || header.id != file->meta.id ||
        memcmp(header.cluster_id, file->context->cluster_id, SST_CLUSTER_ID_BYTES) != 0) {
        (void)sst__verify_broken(verifier, "the header", 0);
    }
    sst__verify_add(verifier, sst_header_checksum(bytes));
    uint64_t footer_at = size_bytes - sizeof bytes;
    status = sst__read(file, bytes, sizeof bytes, footer_at, verifier->err);
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_footer_decode(bytes, file->meta.id, size_bytes, ret_footer) != STATUS_OK || ret_footer->top.size == 0 ||
        ret_footer->tombstones.size > 0) {
        return sst__verify_broken(verifier, "the footer", footer_at);
    }
    *ret_footer_checksum = sst_footer_checksum(bytes);
    verifier->report.bytes += SST_HEADER_BYTES + SST_FOOTER_BYTES;
    return STATUS_OK;
}

void sst__verify_checksum(struct sst_verifier *verifier) {
    bool unknown = verifier->options != NULL && verifier->options->checksum_unknown;
    verifier->report.checksum = verifier->checksum;
    if (verifier->complete && !unknown && verifier->checksum != verifier->file->meta.checksum) {
        sst__verify_finding(verifier, "the checksum of the whole file (the manifest's is another): the file", 0);
    }
}
