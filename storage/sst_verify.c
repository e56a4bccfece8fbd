/*
 * Verifying a whole table: everything that reads only believe.
 *
 *   header, footer, properties, top, range deletes   as at opening, read anew
 *   every partition, every data block                checksum, place behind the one before, order, separators, filter
 *   counts                                           against properties and meta
 *   the file's checksum                              made of all of these
 *
 * It reads from the file, past the block cache, block by block. A finding doesn't end it: what is behind a damaged
 * block is still looked at, but then counts and the file's checksum can't be told and aren't.
 */
#include "node/base/buf.h"
#include "node/base/check.h"
#include "storage/change_file.h"
#include "storage/sst_verifier.h"
#include "storage/value_file.h"

struct verifier {
    struct sst_verifier base;
    struct sst_top *top;
    struct buf data;   /* body of the data block, if it was compressed */
    struct buf index;  /* body of the partition */
    uint64_t position; /* where the next block must stand */
    struct sst_properties seen;
    struct value_refs value_refs; /* of the entries seen */
    bool refs_unknown;            /* there was no memory to count them */
    uint64_t uncounted;           /* places that are none, or too many */
    struct entry_key last;        /* the entry before; user.len 0: none. Its key in last_user */
    struct entry_key bound;       /* the separator before: entries are behind it; user.len 0: none */
    uint8_t last_user[LIMIT_KEY_BYTES];
    uint8_t bound_user[LIMIT_KEY_BYTES];
    struct block_cursor index_cursor;
    struct block_cursor data_cursor;
};

static void finding(struct verifier *verifier, const char *what, uint64_t offset) {
    sst__verify_finding(&verifier->base, what, offset);
}

static enum status broken(struct verifier *verifier, const char *what, uint64_t offset) {
    return sst__verify_broken(&verifier->base, what, offset);
}

/* Blocks stand one behind the other. */
static void pass(struct verifier *verifier, const struct sst_handle *handle) {
    if (handle->offset != verifier->position) {
        (void)broken(verifier, "what stands between two blocks", verifier->position);
    }
    verifier->position = handle->offset + handle->size + SST_TRAILER_BYTES;
}

/* ---- Data blocks ------------------------------------------------------------------------------------------------- */

static void copy_key(struct entry_key *to, uint8_t *user, const struct entry_key *from) {
    memcpy(user, from->user.data, from->user.len);
    *to = *from;
    to->user = slice_of(user, from->user.len);
}

/* What it takes of a value file; that the value is there is the value file's to say (value_verify). */
static void count_reference(struct verifier *verifier, const struct entry *entry) {
    struct value_place place;
    if (entry->kind != BATCH_PUT_APART) {
        return;
    }
    enum status status = value_place_decode(entry->value, &place);
    if (status == STATUS_OK) {
        status = value_refs_add(&verifier->value_refs, &place);
    }
    verifier->refs_unknown = verifier->refs_unknown || status == STATUS_NO_MEMORY;
    verifier->uncounted += status != STATUS_OK;
}

static void count_entry(struct verifier *verifier, const struct entry *entry, bool repeats) {
    struct sst_properties *seen = &verifier->seen;
    seen->entries++;
    seen->deletes += entry->kind == BATCH_DELETE;
    seen->key_bytes += entry->key.user.len;
    seen->value_bytes += entry->value.len;
    count_reference(verifier, entry);
    if (entry->key.revision < seen->revision_first) {
        seen->revision_first = entry->key.revision;
    }
    if (entry->key.revision > seen->revision_last) {
        seen->revision_last = entry->key.revision;
    }
    if (repeats) {
        seen->superseded++;
        if (verifier->last.revision > seen->superseded_until) {
            seen->superseded_until = verifier->last.revision;
        }
    }
}

static void check_entry(struct verifier *verifier, const struct entry *entry, const struct sst_partition *partition,
                        const struct entry_key *separator, uint64_t offset) {
    const struct sst_meta *meta = &verifier->base.file->meta;
    const struct entry_key *key = &entry->key;
    bool first = verifier->last.user.len == 0;
    bool repeats = !first && slice_equal(verifier->last.user, key->user);
    if (!first && entry_key_compare(&verifier->last, key) >= 0) {
        finding(verifier, "the order of the block", offset);
    }
    if ((verifier->bound.user.len > 0 && entry_key_compare(&verifier->bound, key) >= 0) ||
        entry_key_compare(key, separator) > 0) {
        finding(verifier, "an index entry of the block", offset);
    }
    if (slice_compare(key->user, meta->smallest) < 0 || slice_compare(key->user, meta->largest) > 0) {
        finding(verifier, "the table's key range: the block", offset);
    }
    if (!filter_may_hold(partition->filter, partition->probes, filter_hash(key->user))) {
        finding(verifier, "the filter for the block", offset);
    }
    count_entry(verifier, entry, repeats);
    copy_key(&verifier->last, verifier->last_user, key);
}

static enum status verify_data(struct verifier *verifier, const struct sst_handle *handle,
                               const struct sst_partition *partition, const struct entry_key *separator) {
    struct block_cursor *cursor = &verifier->data_cursor;
    struct sst_stored stored;
    struct slice body;
    uint32_t count = 0;
    enum status status = sst__verify_read(&verifier->base, handle, SST_BLOCK_DATA, &stored);
    if (status != STATUS_OK) {
        return status;
    }
    sst__verify_add(&verifier->base, stored.checksum);
    body = stored.body;
    if (stored.compression != COMPRESSION_NONE) {
        status = sst__verify_unpack(&verifier->base, &stored, handle->offset, &verifier->data);
        body = buf_slice(&verifier->data);
    }
    if (status != STATUS_OK) {
        return status;
    }
    verifier->base.report.data_blocks++;
    verifier->seen.raw_bytes += body.len;
    status = block_cursor_open(cursor, body);
    if (status == STATUS_OK) {
        status = block_cursor_first(cursor);
    }
    for (; status == STATUS_OK; status = block_cursor_next(cursor), count++) {
        const struct entry *entry = &cursor->entry;
        check_entry(verifier, entry, partition, separator, handle->offset);
    }
    if (status != STATUS_NOT_FOUND || count != cursor->entry_count) {
        return broken(verifier, "the block (its entries)", handle->offset);
    }
    /* The hash index must find what the walk found; its last key is as good as any. */
    struct entry_key last = verifier->last;
    status = block_cursor_find(cursor, last.user, filter_hash(last.user), last.revision);
    if (status != STATUS_OK || !slice_equal(cursor->entry.key.user, last.user)) {
        finding(verifier, "the hash index of the block", handle->offset);
    }
    return STATUS_OK;
}

/* ---- Partitions -------------------------------------------------------------------------------------------------- */

static enum status verify_part_data(struct verifier *verifier, uint32_t part, const struct sst_partition *partition) {
    struct block_cursor *index = &verifier->index_cursor;
    const struct sst_handle *here = &verifier->top->parts[part].handle;
    uint64_t start = sst__part_start(verifier->top, part);
    enum status status = block_cursor_open(index, partition->index);
    if (status == STATUS_OK) {
        status = block_cursor_first(index);
    }
    for (; status == STATUS_OK; status = block_cursor_next(index)) {
        struct sst_handle handle;
        if (sst_handle_decode(index->entry.value, start, here->offset, &handle) != STATUS_OK) {
            status = STATUS_CORRUPT;
            break;
        }
        pass(verifier, &handle);
        enum status data = verify_data(verifier, &handle, partition, &index->entry.key);
        if (data != STATUS_OK && data != STATUS_CORRUPT) {
            return data;
        }
        start = handle.offset + handle.size + SST_TRAILER_BYTES;
        copy_key(&verifier->bound, verifier->bound_user, &index->entry.key);
    }
    if (status != STATUS_NOT_FOUND) {
        (void)broken(verifier, "the partition", here->offset);
        return STATUS_OK;
    }
    struct entry_key separator = sst__part_key(verifier->top, part);
    if (entry_key_compare(&verifier->last, &separator) > 0) {
        finding(verifier, "the top index's entry for the partition", here->offset);
    }
    copy_key(&verifier->bound, verifier->bound_user, &separator);
    return STATUS_OK;
}

static enum status verify_part(struct verifier *verifier, uint32_t part) {
    const struct sst_handle *handle = &verifier->top->parts[part].handle;
    struct sst_partition partition = {.filter = SLICE_EMPTY};
    uint64_t checksum = 0;
    enum status status = sst__verify_block(&verifier->base, handle, SST_BLOCK_PARTITION, &verifier->index, &checksum);
    if (status == STATUS_OK && sst_partition_open(buf_slice(&verifier->index), &partition) != STATUS_OK) {
        status = broken(verifier, "the partition", handle->offset);
    }
    if (status == STATUS_OK) {
        status = verify_part_data(verifier, part, &partition);
        if (status == STATUS_OK && verifier->base.complete) {
            pass(verifier, handle);
        }
    }
    /* Without it there is no way to its data: on with the next. */
    verifier->position = handle->offset + handle->size + SST_TRAILER_BYTES;
    sst__verify_add(&verifier->base, checksum);
    verifier->base.report.partitions++;
    return status == STATUS_CORRUPT ? STATUS_OK : status;
}

/* ---- The whole --------------------------------------------------------------------------------------------------- */

static enum status verify_tail_block(struct verifier *verifier, const struct sst_handle *handle,
                                     enum sst_block_kind kind) {
    struct sst_stored stored = {.checksum = 0};
    if (handle->size == 0) {
        return STATUS_OK;
    }
    pass(verifier, handle);
    enum status status = sst__verify_read(&verifier->base, handle, kind, &stored);
    if (status == STATUS_OK) {
        sst__verify_add(&verifier->base, stored.checksum);
    }
    return status == STATUS_CORRUPT ? STATUS_OK : status;
}

static enum status verify_tail(struct verifier *verifier) {
    struct sst *sst = verifier->base.file;
    struct sst_footer footer;
    uint8_t bytes[SST_FOOTER_BYTES];
    uint64_t footer_at = sst->meta.size_bytes - SST_FOOTER_BYTES;
    enum status status = sst__read(sst, bytes, sizeof bytes, footer_at, verifier->base.err);
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_footer_decode(bytes, sst->meta.id, sst->meta.size_bytes, &footer) != STATUS_OK) {
        (void)broken(verifier, "the footer", footer_at);
        return STATUS_OK;
    }
    status = verify_tail_block(verifier, &footer.tombstones, SST_BLOCK_TOMBSTONES);
    if (status == STATUS_OK) {
        status = verify_tail_block(verifier, &footer.top, SST_BLOCK_TOP);
    }
    if (status == STATUS_OK) {
        status = verify_tail_block(verifier, &footer.properties, SST_BLOCK_PROPERTIES);
    }
    sst__verify_add(&verifier->base, sst_footer_checksum(bytes));
    return status;
}

static void count_tombstones(struct verifier *verifier) {
    struct sst_properties *seen = &verifier->seen;
    const struct tombstones *set = verifier->top->tombstones;
    for (size_t i = 0; i < tombstones_count(set); i++) {
        struct tombstone_fragment fragment = tombstones_fragment(set, i);
        for (size_t m = 0; m < fragment.mark_count; m++) {
            uint64_t revision = fragment.marks[m].revision;
            seen->revision_first = revision < seen->revision_first ? revision : seen->revision_first;
            seen->revision_last = revision > seen->revision_last ? revision : seen->revision_last;
        }
    }
}

static bool references_agree(const struct verifier *verifier) {
    const struct sst_meta *meta = &verifier->base.file->meta;
    size_t count;
    const struct value_ref *seen = value_refs_list(&verifier->value_refs, &count);
    return verifier->uncounted == 0 && count == meta->value_ref_count &&
           (count == 0 || memcmp(seen, meta->value_refs, count * sizeof *seen) == 0);
}

/* Properties were compared with meta when they were read. */
static void check_counts(struct verifier *verifier) {
    const struct sst_properties *seen = &verifier->seen;
    const struct sst_properties *said = &verifier->top->properties;
    if (seen->entries != said->entries || seen->deletes != said->deletes || seen->key_bytes != said->key_bytes ||
        seen->value_bytes != said->value_bytes || seen->raw_bytes != said->raw_bytes ||
        seen->superseded != said->superseded || seen->superseded_until != said->superseded_until ||
        !references_agree(verifier) || seen->revision_first != said->revision_first ||
        seen->revision_last != said->revision_last || verifier->base.report.data_blocks != said->data_blocks ||
        verifier->base.report.partitions != said->partitions) {
        finding(verifier, "a count in the properties: the end of the data", verifier->top->blocks_end);
    }
    sst__verify_checksum(&verifier->base);
}

static enum status verify_all(struct verifier *verifier) {
    struct sst *sst = verifier->base.file;
    uint8_t header[SST_HEADER_BYTES];
    enum status status = sst__read_top(sst, &verifier->top, verifier->base.err);
    if (status != STATUS_OK) {
        verifier->base.report.findings += status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED;
        return status;
    }
    status = sst__read(sst, header, sizeof header, 0, verifier->base.err);
    if (status != STATUS_OK) {
        return status;
    }
    verifier->base.report.bytes += SST_HEADER_BYTES + SST_FOOTER_BYTES;
    sst__verify_add(&verifier->base, sst_header_checksum(header));
    for (uint32_t part = 0; part < verifier->top->part_count && status == STATUS_OK; part++) {
        status = verify_part(verifier, part);
    }
    if (status == STATUS_OK) {
        status = verify_tail(verifier);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (verifier->refs_unknown) {
        return sst__verify_no_memory(&verifier->base, sizeof(struct value_ref));
    }
    count_tombstones(verifier);
    verifier->base.report.entries = verifier->seen.entries;
    verifier->base.report.tombstones = tombstones_marks(verifier->top->tombstones);
    if (verifier->base.complete) {
        check_counts(verifier);
    }
    return verifier->base.report.findings > 0 ? STATUS_CORRUPT : STATUS_OK;
}

enum status sst_verify(struct sst *sst, const struct sst_verify_options *options, struct sst_verify_report *ret_report,
                       struct error *err) {
    if (sst->is_values) {
        return value_verify(sst, options, ret_report, err);
    }
    if (sst->is_changes) {
        return change_verify(sst, options, ret_report, err);
    }
    struct alloc *alloc = sst->context->env->alloc;
    struct verifier *verifier = mem_alloc_zero(alloc, sizeof *verifier);
    *ret_report = (struct sst_verify_report){.bytes = 0};
    if (verifier == NULL) {
        return sst__no_memory(sst, sizeof *verifier, err);
    }
    sst__verifier_init(&verifier->base, sst, options, err);
    verifier->position = SST_HEADER_BYTES;
    verifier->seen.revision_first = UINT64_MAX;
    value_refs_init(&verifier->value_refs, alloc);
    buf_init(&verifier->data, alloc, 0);
    buf_init(&verifier->index, alloc, 0);
    enum status status = sst__pin(sst, err);
    if (status == STATUS_OK) {
        status = verify_all(verifier);
        open_file_unpin(&sst->file);
    }
    *ret_report = verifier->base.report;
    sst__discard_top(alloc, verifier->top);
    value_refs_deinit(&verifier->value_refs);
    sst__verifier_deinit(&verifier->base);
    buf_deinit(&verifier->data);
    buf_deinit(&verifier->index);
    mem_free(alloc, verifier);
    return status;
}
