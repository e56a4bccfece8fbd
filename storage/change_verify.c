/*
 * Verifying a whole change file: header, footer, index, every block and change, properties, counts, the file's
 * checksum. Through the index each block is found by itself, so a finding doesn't end it; but then the file's checksum
 * and its counts can't be told and aren't.
 */
#include "node/base/check.h"
#include "storage/change_file.h"
#include "storage/sst_verifier.h"

struct change_verifier {
    struct sst_verifier base;
    struct sst_footer footer;
    bool has_last;
    uint64_t last_revision;
    uint32_t last_ordinal;
    struct sst_properties seen;
    struct buf body;
    struct buf index;
    struct change_block reader;
};

/* True if this one may follow on all that was seen: no operation of an entry is missing. */
static bool follows(const struct change_verifier *verifier, const struct change *change) {
    const struct sst_meta *meta = &verifier->base.file->meta;
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
    verifier->base.report.entries++;
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
        if (verifier->base.complete && !follows(verifier, change)) {
            status = STATUS_CORRUPT;
            break;
        }
        count(verifier, change);
        verifier->has_last = true;
        verifier->last_revision = change->revision;
        verifier->last_ordinal = change->ordinal;
    }
    if (status != STATUS_NOT_FOUND) {
        (void)sst__verify_broken(&verifier->base, "the block", entry->handle.offset);
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
            return sst__verify_broken(&verifier->base, "the index", end);
        }
        position += (uint64_t)entry.handle.size + SST_TRAILER_BYTES;
        enum status status =
            sst__verify_block(&verifier->base, &entry.handle, SST_BLOCK_CHANGES, &verifier->body, &checksum);
        if (status != STATUS_OK && status != STATUS_CORRUPT) {
            return status;
        }
        if (status == STATUS_OK) {
            verify_changes(verifier, &entry);
        }
        verifier->seen.data_blocks++;
        verifier->base.report.data_blocks++;
        sst__verify_add(&verifier->base, checksum);
    }
    if (position != end) {
        (void)sst__verify_broken(&verifier->base, "the index", end);
    }
    return STATUS_OK;
}

static bool counts_agree(const struct change_verifier *verifier, const struct sst_properties *properties) {
    const struct sst_properties *seen = &verifier->seen;
    const struct sst_meta *meta = &verifier->base.file->meta;
    return properties->entries == seen->entries && properties->deletes == seen->deletes &&
           properties->tombstones == seen->tombstones && properties->key_bytes == seen->key_bytes &&
           properties->data_blocks == seen->data_blocks && properties->revision_first == meta->revision_first &&
           properties->revision_last == meta->revision_last && verifier->last_revision == meta->revision_last &&
           meta->entries == verifier->base.report.entries;
}

static enum status verify_all(struct change_verifier *verifier) {
    struct sst_verifier *base = &verifier->base;
    struct sst_handle wanted = change_file_meta(base->file).index;
    struct sst_footer *footer = &verifier->footer;
    struct sst_properties properties;
    uint64_t footer_checksum = 0;
    uint64_t index_checksum = 0;
    uint64_t properties_checksum = 0;
    enum status status = sst__verify_ends(base, SST_FILE_CHANGES, footer, &footer_checksum);
    if (status == STATUS_OK && (footer->top.offset != wanted.offset || footer->top.size != wanted.size)) {
        return sst__verify_broken(base, "the footer", base->file->meta.size_bytes - SST_FOOTER_BYTES);
    }
    if (status == STATUS_OK) {
        status = sst__verify_block(base, &footer->top, SST_BLOCK_TOP, &verifier->index, &index_checksum);
    }
    if (status == STATUS_OK) {
        status = verify_blocks(verifier);
    }
    if (status == STATUS_OK) {
        status =
            sst__verify_block(base, &footer->properties, SST_BLOCK_PROPERTIES, &verifier->body, &properties_checksum);
    }
    if (status != STATUS_OK) {
        return status;
    }
    sst__verify_add(base, index_checksum);
    sst__verify_add(base, properties_checksum);
    sst__verify_add(base, footer_checksum);
    if (sst_properties_decode(buf_slice(&verifier->body), &properties) != STATUS_OK ||
        (base->complete && !counts_agree(verifier, &properties))) {
        (void)sst__verify_broken(base, "a count in the properties: the block", footer->properties.offset);
    }
    sst__verify_checksum(base);
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
    sst__verifier_init(&verifier->base, file, options, err);
    buf_init(&verifier->body, alloc, 0);
    buf_init(&verifier->index, alloc, 0);
    enum status status = sst__pin(file, err);
    if (status == STATUS_OK) {
        status = verify_all(verifier);
        open_file_unpin(&file->file);
    }
    *ret_report = verifier->base.report;
    buf_deinit(&verifier->body);
    buf_deinit(&verifier->index);
    sst__verifier_deinit(&verifier->base);
    mem_free(alloc, verifier);
    return status == STATUS_OK && ret_report->findings > 0 ? STATUS_CORRUPT : status;
}
