/*
 * Takes a whole table apart with nothing but the functions of sst_format and block: what the builder's tests check it
 * against. Every byte of the file must belong to exactly one part.
 */
#ifndef HOLDFAST_TESTS_TABLE_PARSE_H
#define HOLDFAST_TESTS_TABLE_PARSE_H

#include "storage/filter.h"
#include "storage/sst_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { PARSE_ENTRIES_MAX = 4000, PARSE_BODIES_MAX = 8000 };

/* Memory is malloc's, freed by parse_free. */
struct parsed_table {
    struct slice file;
    struct sst_header header;
    struct sst_footer footer;
    struct sst_properties properties;
    uint64_t checksum;
    struct entry *entries; /* of all data blocks */
    size_t entry_count;
    struct entry *tombstones; /* key: start and mark; value: end */
    size_t tombstone_count;
    struct slice top; /* body; len 0: none */
    uint64_t data_blocks;
    uint64_t partitions;
    uint64_t compressed_blocks;
    uint64_t raw_bytes;
    struct {
        struct sst_handle handle;
        enum sst_block_kind kind;
    } parts[PARSE_BODIES_MAX]; /* all blocks, as they stand in the file */
    size_t part_count;
    void *memory[PARSE_BODIES_MAX]; /* bodies and keys */
    size_t memory_count;
};

static inline uint8_t *parse_keep(struct parsed_table *table, size_t len) {
    assert_true(table->memory_count < PARSE_BODIES_MAX);
    uint8_t *data = malloc(len > 0 ? len : 1);
    assert_non_null(data);
    table->memory[table->memory_count++] = data;
    return data;
}

static inline void parse_free(struct parsed_table *table) {
    for (size_t i = 0; i < table->memory_count; i++) {
        free(table->memory[i]);
    }
    free(table->entries);
    free(table->tombstones);
    free(table);
}

/* The body of a block, unpacked into memory of exactly its size. */
static inline struct slice parse_body(struct parsed_table *table, const struct sst_handle *handle,
                                      enum sst_block_kind kind, struct sst_stored *ret_stored) {
    struct slice block = slice_of(table->file.data + handle->offset, (size_t)handle->size + SST_TRAILER_BYTES);
    assert_int_equal(sst_block_check(block, kind, table->header.id, handle->offset, ret_stored), STATUS_OK);
    uint8_t *body = parse_keep(table, ret_stored->size);
    assert_int_equal(sst_block_unpack(alloc_system(), ret_stored, body), STATUS_OK);
    return slice_of(body, ret_stored->size);
}

/* Takes the next block, which must begin at *at, into the file's checksum. */
static inline struct slice parse_block(struct parsed_table *table, const struct sst_handle *handle,
                                       enum sst_block_kind kind, uint64_t *at) {
    struct sst_stored stored;
    assert_int_equal(handle->offset, *at);
    struct slice body = parse_body(table, handle, kind, &stored);
    *at += handle->size + SST_TRAILER_BYTES;
    table->checksum = sst_file_checksum_add(table->checksum, stored.checksum);
    assert_true(table->part_count < PARSE_BODIES_MAX);
    table->parts[table->part_count].handle = *handle;
    table->parts[table->part_count++].kind = kind;
    table->compressed_blocks += stored.compression != COMPRESSION_NONE;
    return body;
}

static inline void parse_handle(const struct parsed_table *table, struct slice value, struct sst_handle *ret_handle) {
    assert_int_equal(sst_handle_decode(value, SST_HEADER_BYTES, table->file.len - SST_FOOTER_BYTES, ret_handle),
                     STATUS_OK);
}

/* Appends a copy of the entry; its value stays in the body. */
static inline void parse_take(struct parsed_table *table, struct entry **list, size_t *count,
                              const struct entry *entry) {
    if (*list == NULL) {
        *list = calloc(PARSE_ENTRIES_MAX, sizeof **list);
    }
    assert_true(*count < PARSE_ENTRIES_MAX);
    uint8_t *key = parse_keep(table, entry->key.user.len);
    memcpy(key, entry->key.user.data, entry->key.user.len);
    (*list)[*count] = *entry;
    (*list)[*count].key.user = slice_of(key, entry->key.user.len);
    (*count)++;
}

/* All entries of a partition; its separators part its blocks. */
static inline void parse_partition(struct parsed_table *table, const struct entry *top_entry, uint64_t *at) {
    struct block_cursor *index = (struct block_cursor *)(void *)parse_keep(table, sizeof *index);
    struct block_cursor *data = (struct block_cursor *)(void *)parse_keep(table, sizeof *data);
    struct sst_partition partition;
    struct sst_handle handle;
    struct sst_stored stored;
    parse_handle(table, top_entry->value, &handle);
    struct slice body = parse_body(table, &handle, SST_BLOCK_PARTITION, &stored);
    assert_int_equal(sst_partition_open(body, &partition), STATUS_OK);
    assert_int_equal(block_cursor_open(index, partition.index), STATUS_OK);
    enum status status = block_cursor_first(index);
    for (; status == STATUS_OK; status = block_cursor_next(index)) {
        struct sst_handle data_handle;
        parse_handle(table, index->entry.value, &data_handle);
        struct slice data_body = parse_block(table, &data_handle, SST_BLOCK_DATA, at);
        assert_int_equal(block_cursor_open(data, data_body), STATUS_OK);
        uint64_t count = 0;
        enum status walk = block_cursor_first(data);
        for (; walk == STATUS_OK; walk = block_cursor_next(data), count++) {
            const struct entry_key *key = &data->entry.key;
            assert_true(entry_key_compare(key, &index->entry.key) <= 0);
            assert_true(table->entry_count == 0 ||
                        entry_key_compare(&table->entries[table->entry_count - 1].key, key) < 0);
            assert_true(filter_may_hold(partition.filter, partition.probes, filter_hash(key->user)));
            parse_take(table, &table->entries, &table->entry_count, &data->entry);
        }
        assert_int_equal(walk, STATUS_NOT_FOUND);
        assert_int_equal(count, data->entry_count);
        table->data_blocks++;
        table->raw_bytes += data_body.len;
        assert_true(entry_key_compare(&index->entry.key, &top_entry->key) <= 0);
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    assert_int_equal(entry_key_compare(&index->entry.key, &top_entry->key), 0); /* the last one's */
    (void)parse_block(table, &handle, SST_BLOCK_PARTITION, at);
    table->partitions++;
}

static inline void parse_tombstones(struct parsed_table *table, uint64_t *at) {
    struct block_cursor *cursor = (struct block_cursor *)(void *)parse_keep(table, sizeof *cursor);
    struct slice body = parse_block(table, &table->footer.tombstones, SST_BLOCK_TOMBSTONES, at);
    assert_int_equal(block_cursor_open(cursor, body), STATUS_OK);
    enum status status = block_cursor_first(cursor);
    for (; status == STATUS_OK; status = block_cursor_next(cursor)) {
        parse_take(table, &table->tombstones, &table->tombstone_count, &cursor->entry);
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
}

/* file stays the caller's and must outlive the result. */
static inline struct parsed_table *parse_table(struct slice file) {
    struct parsed_table *table = calloc(1, sizeof *table);
    assert_non_null(table);
    table->file = file;
    assert_true(file.len > SST_HEADER_BYTES + SST_FOOTER_BYTES);
    const uint8_t *footer = file.data + file.len - SST_FOOTER_BYTES;
    assert_int_equal(sst_header_decode(file.data, &table->header), STATUS_OK);
    assert_int_equal(sst_footer_decode(footer, table->header.id, file.len, &table->footer), STATUS_OK);
    table->checksum = sst_file_checksum_add(0, sst_header_checksum(file.data));
    uint64_t at = SST_HEADER_BYTES;
    if (table->footer.top.size > 0) {
        struct block_cursor *top = (struct block_cursor *)(void *)parse_keep(table, sizeof *top);
        struct sst_stored stored;
        table->top = parse_body(table, &table->footer.top, SST_BLOCK_TOP, &stored);
        assert_int_equal(block_cursor_open(top, table->top), STATUS_OK);
        enum status status = block_cursor_first(top);
        for (; status == STATUS_OK; status = block_cursor_next(top)) {
            parse_partition(table, &top->entry, &at);
        }
        assert_int_equal(status, STATUS_NOT_FOUND);
    }
    if (table->footer.tombstones.size > 0) {
        parse_tombstones(table, &at);
    }
    if (table->footer.top.size > 0) {
        (void)parse_block(table, &table->footer.top, SST_BLOCK_TOP, &at);
    }
    struct slice properties = parse_block(table, &table->footer.properties, SST_BLOCK_PROPERTIES, &at);
    assert_int_equal(sst_properties_decode(properties, &table->properties), STATUS_OK);
    table->checksum = sst_file_checksum_add(table->checksum, sst_footer_checksum(footer));
    assert_int_equal(at, file.len - SST_FOOTER_BYTES);
    return table;
}

/* A lookup as a reader does it: top index, partition, filter, index, block. `use_filter` false: without asking it.
 * ret_entry's key is the caller's. */
static inline enum status parse_get(struct parsed_table *table, struct slice user, uint64_t revision, bool use_filter,
                                    struct entry *ret_entry) {
    static struct block_cursor cursor;
    struct entry_key target = entry_key_at(user, revision);
    struct sst_partition partition;
    struct sst_handle handle;
    struct sst_stored stored;
    size_t kept = table->memory_count;
    uint64_t hash = filter_hash(user);
    enum status status = table->top.len == 0 ? STATUS_NOT_FOUND : block_cursor_open(&cursor, table->top);
    if (status == STATUS_OK) {
        status = block_cursor_seek(&cursor, &target);
    }
    if (status == STATUS_OK) {
        parse_handle(table, cursor.entry.value, &handle);
        struct slice body = parse_body(table, &handle, SST_BLOCK_PARTITION, &stored);
        assert_int_equal(sst_partition_open(body, &partition), STATUS_OK);
        bool may_hold = filter_may_hold(partition.filter, partition.probes, hash);
        status = use_filter && !may_hold ? STATUS_NOT_FOUND : block_cursor_open(&cursor, partition.index);
    }
    if (status == STATUS_OK) {
        status = block_cursor_seek(&cursor, &target);
    }
    if (status == STATUS_OK) {
        parse_handle(table, cursor.entry.value, &handle);
        struct slice body = parse_body(table, &handle, SST_BLOCK_DATA, &stored);
        assert_int_equal(block_cursor_open(&cursor, body), STATUS_OK);
        status = block_cursor_find(&cursor, user, hash, revision);
    }
    if (status == STATUS_OK) {
        *ret_entry = cursor.entry;
        ret_entry->key.user = user;
        ret_entry->value = SLICE_EMPTY; /* its body goes */
    }
    while (table->memory_count > kept) {
        free(table->memory[--table->memory_count]);
    }
    return status;
}

#endif
