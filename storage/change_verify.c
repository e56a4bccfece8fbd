/*
 * Verifying a whole change file: header, footer, index, every block and change, properties, counts, the file's
 * checksum. Through the index each block is found by itself, so a finding doesn't end it; but then the file's checksum
 * and its counts can't be told and aren't.
 */
#include "node/base/check.h"
#include "storage/change_file.h"
#include "storage/sst_internal.h"

enum { PACE_BYTES = 1024 * 1024 };

struct change_verifier {
    struct sst *file;
    const struct sst_verify_options *options; /* may be NULL */
    struct sst_verify_report report;
    struct error *err;
    struct sst_footer footer;
    uint64_t unpaced_bytes;
    uint64_t checksum;
    bool complete; /* all was whole so far */
    bool has_last;
    uint64_t last_revision;
    uint32_t last_ordinal;
    struct sst_properties seen;
    struct buf raw;
    struct buf body;
    struct buf index;
    struct change_block reader;
};

static void finding(struct change_verifier *verifier, const char *what, uint64_t offset) {
    bool first = verifier->report.findings++ == 0;
    verifier->complete = false;
    if (first) {
        verifier->report.first_offset = offset;
    }
    (void)sst__damaged(verifier->file, STATUS_CORRUPT, what, offset, first ? verifier->err : NULL);
}

static enum status pace(struct change_verifier *verifier, uint64_t bytes) {
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

static enum status reserve(struct change_verifier *verifier, struct buf *buf, size_t len) {
    buf_clear(buf);
    return buf_reserve(buf, len) == STATUS_OK ? STATUS_OK : sst__no_memory(verifier->file, len, verifier->err);
}

/* The block with its body, plain, in verifier->body; its checksum is added to the file's. STATUS_CORRUPT: a finding. */
static enum status read_block(struct change_verifier *verifier, const struct sst_handle *handle,
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
    struct slice block = slice_of(verifier->raw.data, len);
    status = sst__read(file, verifier->raw.data, len, handle->offset, &err);
    if (status == STATUS_OK && sst_block_check(block, kind, file->meta.id, handle->offset, &stored) != STATUS_OK) {
        status = sst__read_again(file, verifier->raw.data, len, handle->offset, &err);
    }
    if (status != STATUS_OK && status != STATUS_CORRUPT) {
        return error_set(verifier->err, status, "%s", err.message);
    }
    bool whole =
        status == STATUS_OK && sst_block_check(block, kind, file->meta.id, handle->offset, &stored) == STATUS_OK;
    status = whole ? reserve(verifier, &verifier->body, stored.size) : STATUS_OK;
    if (status != STATUS_OK) {
        return status;
    }
    if (!whole || sst_block_unpack(file->context->env->alloc, &stored, verifier->body.data) != STATUS_OK) {
        finding(verifier, "the block", handle->offset);
        return STATUS_CORRUPT;
    }
    verifier->body.len = stored.size;
    *ret_checksum = stored.checksum;
    return STATUS_OK;
}

/* Header and footer. */
static enum status verify_ends(struct change_verifier *verifier, uint64_t *ret_footer_checksum) {
    struct sst *file = verifier->file;
    struct sst_handle index = change_file_meta(file).index;
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
    if (sst_header_decode(bytes, &header) != STATUS_OK || header.kind != SST_FILE_CHANGES ||
        header.id != file->meta.id || memcmp(header.cluster_id, file->context->cluster_id, SST_CLUSTER_ID_BYTES) != 0) {
        finding(verifier, "the header", 0);
    }
    verifier->checksum = sst_file_checksum_add(0, sst_header_checksum(bytes));
    status = sst__read(file, bytes, sizeof bytes, size_bytes - sizeof bytes, verifier->err);
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_footer_decode(bytes, file->meta.id, size_bytes, &verifier->footer) != STATUS_OK ||
        verifier->footer.top.offset != index.offset || verifier->footer.top.size != index.size ||
        verifier->footer.tombstones.size > 0) {
        finding(verifier, "the footer", size_bytes - sizeof bytes);
        return STATUS_CORRUPT;
    }
    *ret_footer_checksum = sst_footer_checksum(bytes);
    verifier->report.bytes += SST_HEADER_BYTES + SST_FOOTER_BYTES;
    return STATUS_OK;
}

/* True if this one may follow on all that was seen: no operation of an entry is missing. */
static bool follows(const struct change_verifier *verifier, const struct change *change) {
    const struct sst_meta *meta = &verifier->file->meta;
    if (change->revision < meta->revision_first || change->revision > meta->revision_last) {
        return false;
    }
    if (verifier->has_last && change->revision == verifier->last_revision) {
        return change->ordinal == verifier->last_ordinal + 1;
    }
    return change->ordinal == 0 && (!verifier->has_last || change->revision > verifier->last_revision);
}

static void count(struct change_verifier *verifier, const struct change *change) {
    struct sst_properties *seen = &verifier->seen;
    seen->entries += change->kind != BATCH_DELETE_RANGE;
    seen->deletes += change->kind == BATCH_DELETE;
    seen->tombstones += change->kind == BATCH_DELETE_RANGE;
    seen->key_bytes += change->key.len + change->end.len;
    verifier->report.entries++;
}

/* Behind a block that couldn't be read any place is as good. */
static void verify_changes(struct change_verifier *verifier, const struct change_index_entry *entry) {
    const struct change *change = &verifier->reader.change;
    enum status status = change_block_open(&verifier->reader, buf_slice(&verifier->body));
    if (status == STATUS_OK &&
        change_compare(change->revision, change->ordinal, entry->revision, entry->ordinal) != 0) {
        status = STATUS_CORRUPT;
    }
    while (status == STATUS_OK && (status = change_block_next(&verifier->reader)) == STATUS_OK) {
        if (verifier->complete && !follows(verifier, change)) {
            status = STATUS_CORRUPT;
            break;
        }
        count(verifier, change);
        verifier->has_last = true;
        verifier->last_revision = change->revision;
        verifier->last_ordinal = change->ordinal;
    }
    if (status != STATUS_NOT_FOUND) {
        finding(verifier, "the block", entry->handle.offset);
    }
}

static enum status verify_blocks(struct change_verifier *verifier) {
    struct slice index = buf_slice(&verifier->index);
    uint64_t end = verifier->footer.top.offset;
    uint64_t position = SST_HEADER_BYTES;
    size_t blocks = change_index_count(index);
    for (size_t at = 0; at < blocks; at++) {
        struct change_index_entry entry;
        uint64_t checksum = 0;
        if (change_index_decode(index, at, end, &entry) != STATUS_OK || entry.handle.offset != position) {
            finding(verifier, "the index", end);
            return STATUS_CORRUPT;
        }
        position += (uint64_t)entry.handle.size + SST_TRAILER_BYTES;
        enum status status = read_block(verifier, &entry.handle, SST_BLOCK_CHANGES, &checksum);
        if (status != STATUS_OK && status != STATUS_CORRUPT) {
            return status;
        }
        if (status == STATUS_OK) {
            verify_changes(verifier, &entry);
        }
        verifier->seen.data_blocks++;
        verifier->report.data_blocks++;
        verifier->checksum = sst_file_checksum_add(verifier->checksum, checksum);
    }
    if (position != end) {
        finding(verifier, "the index", end);
    }
    return STATUS_OK;
}

static bool counts_agree(const struct change_verifier *verifier, const struct sst_properties *properties) {
    const struct sst_properties *seen = &verifier->seen;
    const struct sst_meta *meta = &verifier->file->meta;
    return properties->entries == seen->entries && properties->deletes == seen->deletes &&
           properties->tombstones == seen->tombstones && properties->key_bytes == seen->key_bytes &&
           properties->data_blocks == seen->data_blocks && properties->revision_first == meta->revision_first &&
           properties->revision_last == meta->revision_last && verifier->last_revision == meta->revision_last &&
           meta->entries == verifier->report.entries;
}

static enum status verify_all(struct change_verifier *verifier) {
    struct sst_properties properties;
    uint64_t footer_checksum = 0;
    uint64_t index_checksum = 0;
    uint64_t properties_checksum = 0;
    enum status status = verify_ends(verifier, &footer_checksum);
    if (status == STATUS_OK) {
        status = read_block(verifier, &verifier->footer.top, SST_BLOCK_TOP, &index_checksum);
    }
    if (status != STATUS_OK) {
        return status;
    }
    struct buf index = verifier->body;
    verifier->body = verifier->index;
    verifier->index = index;
    status = verify_blocks(verifier);
    if (status == STATUS_OK) {
        status = read_block(verifier, &verifier->footer.properties, SST_BLOCK_PROPERTIES, &properties_checksum);
    }
    if (status != STATUS_OK) {
        return status;
    }
    verifier->checksum = sst_file_checksum_add(verifier->checksum, index_checksum);
    verifier->checksum = sst_file_checksum_add(verifier->checksum, properties_checksum);
    verifier->checksum = sst_file_checksum_add(verifier->checksum, footer_checksum);
    verifier->report.checksum = verifier->checksum;
    bool unknown = verifier->options != NULL && verifier->options->checksum_unknown;
    if (sst_properties_decode(buf_slice(&verifier->body), &properties) != STATUS_OK ||
        (verifier->complete && !counts_agree(verifier, &properties))) {
        finding(verifier, "a count in the properties: the block", verifier->footer.properties.offset);
    } else if (verifier->complete && !unknown && verifier->checksum != verifier->file->meta.checksum) {
        finding(verifier, "the checksum of the whole file (the manifest's is another): the file", 0);
    }
    return STATUS_OK;
}

enum status change_verify(struct sst *file, const struct sst_verify_options *options,
                          struct sst_verify_report *ret_report, struct error *err) {
    struct alloc *alloc = file->context->env->alloc;
    CHECK(file->is_changes);
    *ret_report = (struct sst_verify_report){.bytes = 0};
    struct change_verifier *verifier = mem_alloc_zero(alloc, sizeof *verifier);
    if (verifier == NULL) {
        return sst__no_memory(file, sizeof *verifier, err);
    }
    verifier->file = file;
    verifier->options = options;
    verifier->err = err;
    verifier->complete = true;
    buf_init(&verifier->raw, alloc, 0);
    buf_init(&verifier->body, alloc, 0);
    buf_init(&verifier->index, alloc, 0);
    enum status status = sst__pin(file, err);
    if (status == STATUS_OK) {
        status = verify_all(verifier);
        open_file_unpin(&file->file);
    }
    *ret_report = verifier->report;
    buf_deinit(&verifier->raw);
    buf_deinit(&verifier->body);
    buf_deinit(&verifier->index);
    mem_free(alloc, verifier);
    return status == STATUS_OK && ret_report->findings > 0 ? STATUS_CORRUPT : status;
}
