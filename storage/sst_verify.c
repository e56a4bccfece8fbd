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
#include "storage/sst_internal.h"
#include "storage/value_file.h"

enum { PACE_BYTES = 1024 * 1024 };

struct verifier {
    struct sst *sst;
    const struct sst_verify_options *options; /* may be NULL */
    struct sst_verify_report report;
    struct error *err;
    struct sst_top *top;
    struct buf raw;
    struct buf data;        /* body of the data block, if it was compressed */
    struct buf index;       /* body of the partition */
    uint64_t position;      /* where the next block must stand */
    uint64_t unpaced_bytes; /* read since pace was called */
    uint64_t checksum;      /* of the file up to position */
    bool complete;          /* nothing was left out so far */
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
    bool first = verifier->report.findings++ == 0;
    if (first) {
        verifier->report.first_offset = offset;
    }
    (void)sst__damaged(verifier->sst, STATUS_CORRUPT, what, offset, first ? verifier->err : NULL);
}

static enum status no_memory(struct verifier *verifier, size_t bytes) {
    return sst__no_memory(verifier->sst, bytes, verifier->err);
}

static enum status pace(struct verifier *verifier, uint64_t bytes) {
    const struct sst_verify_options *options = verifier->options;
    verifier->report.bytes += bytes;
    verifier->unpaced_bytes += bytes;
    if (options == NULL || options->pace == NULL || verifier->unpaced_bytes < PACE_BYTES) {
        return STATUS_OK;
    }
    uint64_t unpaced_bytes = verifier->unpaced_bytes;
    verifier->unpaced_bytes = 0;
    return options->pace(options->context, unpaced_bytes)
               ? STATUS_OK
               : error_set(verifier->err, STATUS_CANCELLED, "verifying was stopped");
}

/* Reads a block into raw and checks it. STATUS_CORRUPT: a finding (reported). */
static enum status read_block(struct verifier *verifier, const struct sst_handle *handle, enum sst_block_kind kind,
                              struct sst_stored *ret_stored) {
    struct sst *sst = verifier->sst;
    struct error err;
    size_t len = (size_t)handle->size + SST_TRAILER_BYTES;
    enum status status = pace(verifier, len);
    if (status != STATUS_OK) {
        return status;
    }
    buf_clear(&verifier->raw);
    if (buf_reserve(&verifier->raw, len) != STATUS_OK) {
        return no_memory(verifier, len);
    }
    struct slice block = slice_of(verifier->raw.data, len);
    status = sst__read(sst, verifier->raw.data, len, handle->offset, &err);
    if (status == STATUS_OK && sst_block_check(block, kind, sst->meta.id, handle->offset, ret_stored) != STATUS_OK) {
        status = sst__read_again(sst, verifier->raw.data, len, handle->offset, &err);
    }
    if (status != STATUS_OK && status != STATUS_CORRUPT) {
        if (verifier->err != NULL) {
            *verifier->err = err;
        }
        return status;
    }
    if (status == STATUS_OK) {
        status = sst_block_check(block, kind, sst->meta.id, handle->offset, ret_stored);
    }
    if (status != STATUS_OK) {
        finding(verifier, "the block", handle->offset);
        verifier->complete = false;
        return STATUS_CORRUPT;
    }
    return STATUS_OK;
}

/* The body, plain; in `buf`, or in raw if it was plain and may stay there. */
static enum status unpack(struct verifier *verifier, const struct sst_stored *stored, bool copy, uint64_t offset,
                          struct buf *buf, struct slice *ret_body) {
    if (stored->compression == COMPRESSION_NONE && !copy) {
        *ret_body = stored->body;
        return STATUS_OK;
    }
    buf_clear(buf);
    if (buf_reserve(buf, stored->size) != STATUS_OK) {
        return no_memory(verifier, stored->size);
    }
    enum status status = sst_block_unpack(verifier->sst->context->env->alloc, stored, buf->data);
    if (status == STATUS_NO_MEMORY) {
        return no_memory(verifier, stored->size);
    }
    if (status != STATUS_OK) {
        finding(verifier, "the block (its compressed bytes)", offset);
        verifier->complete = false;
        return STATUS_CORRUPT;
    }
    buf->len = stored->size;
    *ret_body = buf_slice(buf);
    return STATUS_OK;
}

static void add_checksum(struct verifier *verifier, uint64_t part) {
    verifier->checksum = sst_file_checksum_add(verifier->checksum, part);
}

/* Blocks stand one behind the other. */
static void pass(struct verifier *verifier, const struct sst_handle *handle) {
    if (handle->offset != verifier->position) {
        finding(verifier, "what stands between two blocks", verifier->position);
        verifier->complete = false;
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
    const struct sst_meta *meta = &verifier->sst->meta;
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
    enum status status = read_block(verifier, handle, SST_BLOCK_DATA, &stored);
    if (status == STATUS_OK) {
        add_checksum(verifier, stored.checksum);
        status = unpack(verifier, &stored, false, handle->offset, &verifier->data, &body);
    }
    if (status != STATUS_OK) {
        return status;
    }
    verifier->report.data_blocks++;
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
        finding(verifier, "the block (its entries)", handle->offset);
        verifier->complete = false;
        return STATUS_CORRUPT;
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
        finding(verifier, "the partition", here->offset);
        verifier->complete = false;
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
    struct sst_stored stored = {.body = SLICE_EMPTY};
    struct slice body = SLICE_EMPTY;
    enum status status = read_block(verifier, handle, SST_BLOCK_PARTITION, &stored);
    uint64_t checksum = status == STATUS_OK ? stored.checksum : 0;
    if (status == STATUS_OK) {
        status = unpack(verifier, &stored, true, handle->offset, &verifier->index, &body);
    }
    if (status == STATUS_OK && sst_partition_open(body, &partition) != STATUS_OK) {
        finding(verifier, "the partition", handle->offset);
        verifier->complete = false;
        status = STATUS_CORRUPT;
    }
    if (status == STATUS_OK) {
        status = verify_part_data(verifier, part, &partition);
        if (status == STATUS_OK && verifier->complete) {
            pass(verifier, handle);
        }
    }
    /* Without it there is no way to its data: on with the next. */
    verifier->position = handle->offset + handle->size + SST_TRAILER_BYTES;
    add_checksum(verifier, checksum);
    verifier->report.partitions++;
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
    enum status status = read_block(verifier, handle, kind, &stored);
    if (status == STATUS_OK) {
        add_checksum(verifier, stored.checksum);
    }
    return status == STATUS_CORRUPT ? STATUS_OK : status;
}

static enum status verify_tail(struct verifier *verifier) {
    struct sst *sst = verifier->sst;
    struct sst_footer footer;
    uint8_t bytes[SST_FOOTER_BYTES];
    uint64_t footer_at = sst->meta.size_bytes - SST_FOOTER_BYTES;
    enum status status = sst__read(sst, bytes, sizeof bytes, footer_at, verifier->err);
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_footer_decode(bytes, sst->meta.id, sst->meta.size_bytes, &footer) != STATUS_OK) {
        finding(verifier, "the footer", footer_at);
        verifier->complete = false;
        return STATUS_OK;
    }
    status = verify_tail_block(verifier, &footer.tombstones, SST_BLOCK_TOMBSTONES);
    if (status == STATUS_OK) {
        status = verify_tail_block(verifier, &footer.top, SST_BLOCK_TOP);
    }
    if (status == STATUS_OK) {
        status = verify_tail_block(verifier, &footer.properties, SST_BLOCK_PROPERTIES);
    }
    add_checksum(verifier, sst_footer_checksum(bytes));
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
    const struct sst_meta *meta = &verifier->sst->meta;
    size_t count;
    const struct value_ref *seen = value_refs_list(&verifier->value_refs, &count);
    return verifier->uncounted == 0 && count == meta->value_ref_count &&
           (count == 0 || memcmp(seen, meta->value_refs, count * sizeof *seen) == 0);
}

/* Properties were compared with meta when they were read. */
static void check_counts(struct verifier *verifier) {
    const struct sst_properties *seen = &verifier->seen;
    const struct sst_properties *said = &verifier->top->properties;
    const struct sst_meta *meta = &verifier->sst->meta;
    if (seen->entries != said->entries || seen->deletes != said->deletes || seen->key_bytes != said->key_bytes ||
        seen->value_bytes != said->value_bytes || seen->raw_bytes != said->raw_bytes ||
        seen->superseded != said->superseded || seen->superseded_until != said->superseded_until ||
        !references_agree(verifier) || seen->revision_first != said->revision_first ||
        seen->revision_last != said->revision_last || verifier->report.data_blocks != said->data_blocks ||
        verifier->report.partitions != said->partitions) {
        finding(verifier, "a count in the properties: the end of the data", verifier->top->blocks_end);
    }
    bool unknown = verifier->options != NULL && verifier->options->checksum_unknown;
    verifier->report.checksum = verifier->checksum;
    if (!unknown && verifier->checksum != meta->checksum) {
        finding(verifier, "the checksum of the whole file (the manifest's is another): the file", 0);
    }
}

static enum status verify_all(struct verifier *verifier) {
    struct sst *sst = verifier->sst;
    uint8_t header[SST_HEADER_BYTES];
    enum status status = sst__read_top(sst, &verifier->top, verifier->err);
    if (status != STATUS_OK) {
        verifier->report.findings += status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED;
        return status;
    }
    status = sst__read(sst, header, sizeof header, 0, verifier->err);
    if (status != STATUS_OK) {
        return status;
    }
    verifier->report.bytes += SST_HEADER_BYTES + SST_FOOTER_BYTES;
    add_checksum(verifier, sst_header_checksum(header));
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
        return no_memory(verifier, sizeof(struct value_ref));
    }
    count_tombstones(verifier);
    verifier->report.entries = verifier->seen.entries;
    verifier->report.tombstones = tombstones_marks(verifier->top->tombstones);
    if (verifier->complete) {
        check_counts(verifier);
    }
    return verifier->report.findings > 0 ? STATUS_CORRUPT : STATUS_OK;
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
    verifier->sst = sst;
    verifier->options = options;
    verifier->err = err;
    verifier->complete = true;
    verifier->position = SST_HEADER_BYTES;
    verifier->seen.revision_first = UINT64_MAX;
    value_refs_init(&verifier->value_refs, alloc);
    buf_init(&verifier->raw, alloc, 0);
    buf_init(&verifier->data, alloc, 0);
    buf_init(&verifier->index, alloc, 0);
    enum status status = sst__pin(sst, err);
    if (status == STATUS_OK) {
        status = verify_all(verifier);
        open_file_unpin(&sst->file);
    }
    *ret_report = verifier->report;
    sst__discard_top(alloc, verifier->top);
    value_refs_deinit(&verifier->value_refs);
    buf_deinit(&verifier->raw);
    buf_deinit(&verifier->data);
    buf_deinit(&verifier->index);
    mem_free(alloc, verifier);
    return status;
}
