/*
 * A table by itself: without the manifest its own header and properties say what it is. Only the checksum of the whole
 * file can't be compared then; --verify prints it.
 */
#include "storage/sst.h"
#include "storage/tools/dump_file.h"

enum { READAHEAD_BYTES = 1 << 20 };

static void put_summary(const struct dump *dump, const struct sst_meta *meta, const struct sst_properties *properties,
                        const uint8_t *cluster_id) {
    static const char *const compressions[COMPRESSION_COUNT] = {"none", "lz4", "zstd"};
    const char *compression =
        properties->compression < COMPRESSION_COUNT ? compressions[properties->compression] : "unknown";
    json_t *object = json_object();
    (void)json_object_set_new(object, "file", json_string(dump->path));
    (void)json_object_set_new(object, "id", dump_number(meta->id));
    (void)json_object_set_new(object, "cluster", dump_hex(slice_of(cluster_id, SST_CLUSTER_ID_BYTES)));
    (void)json_object_set_new(object, "bytes", dump_number(meta->size_bytes));
    (void)json_object_set_new(object, "entries", dump_number(meta->entries));
    (void)json_object_set_new(object, "deletes", dump_number(meta->deletes));
    (void)json_object_set_new(object, "range_deletes", dump_number(meta->tombstones));
    (void)json_object_set_new(object, "superseded", dump_number(meta->superseded));
    (void)json_object_set_new(object, "superseded_until", dump_number(meta->superseded_until));
    (void)json_object_set_new(object, "key_bytes", dump_number(meta->key_bytes));
    (void)json_object_set_new(object, "value_bytes", dump_number(meta->value_bytes));
    (void)json_object_set_new(object, "data_blocks", dump_number(properties->data_blocks));
    (void)json_object_set_new(object, "partitions", dump_number(properties->partitions));
    (void)json_object_set_new(object, "raw_bytes", dump_number(properties->raw_bytes));
    (void)json_object_set_new(object, "bloom_bits", dump_number(properties->bloom_bits));
    (void)json_object_set_new(object, "compression", json_string(compression));
    (void)json_object_set_new(object, "revision_first", dump_number(meta->revision_first));
    (void)json_object_set_new(object, "revision_last", dump_number(meta->revision_last));
    (void)json_object_set_new(object, "smallest", dump_bytes(meta->smallest));
    (void)json_object_set_new(object, "largest", dump_bytes(meta->largest));
    (void)json_object_set_new(object, "largest_excluded", json_boolean(meta->largest_excluded));
    dump_put(dump, object, false);
    for (size_t i = 0; i < meta->value_ref_count; i++) {
        json_t *ref = json_object();
        (void)json_object_set_new(ref, "refers_to", dump_number(meta->value_refs[i].file));
        (void)json_object_set_new(ref, "values", dump_number(meta->value_refs[i].values));
        (void)json_object_set_new(ref, "value_bytes", dump_number(meta->value_refs[i].bytes));
        dump_put(dump, ref, true);
    }
}

static const char *kind_name(enum batch_kind kind) {
    return kind == BATCH_DELETE ? "delete" : kind == BATCH_PUT_APART ? "put_apart" : "put";
}

static enum status put_range_deletes(const struct dump *dump, struct sst *sst, struct fetch *fetch, struct error *err) {
    const struct tombstones *set = NULL;
    enum status status = sst_tombstones(sst, fetch, &set, err);
    for (size_t i = 0; status == STATUS_OK && i < tombstones_count(set); i++) {
        struct tombstone_fragment fragment = tombstones_fragment(set, i);
        for (size_t m = 0; m < fragment.mark_count; m++) {
            json_t *object = json_object();
            (void)json_object_set_new(object, "kind", json_string("range_delete"));
            (void)json_object_set_new(object, "start", dump_bytes(fragment.start));
            (void)json_object_set_new(object, "end", dump_bytes(fragment.end));
            (void)json_object_set_new(object, "revision", dump_number(fragment.marks[m].revision));
            (void)json_object_set_new(object, "ordinal", dump_number(fragment.marks[m].ordinal));
            dump_put(dump, object, true);
        }
    }
    return status;
}

static enum status put_entries(const struct dump *dump, struct sst *sst, const struct sst_context *context,
                               struct error *err) {
    const struct fetch_options options = {.readahead_at_once = true, .readahead_bytes_max = READAHEAD_BYTES};
    struct fetch fetch;
    fetch_init(&fetch, context, &options);
    struct cursor *cursor = sst_cursor_new(dump->env->alloc, &fetch, &sst, 1);
    if (cursor == NULL) {
        fetch_deinit(&fetch);
        return error_set(err, STATUS_NO_MEMORY, "no memory for a cursor");
    }
    enum status status = put_range_deletes(dump, sst, &fetch, err);
    if (status == STATUS_OK) {
        status = cursor_first(cursor, err);
        for (; status == STATUS_OK; status = cursor_next(cursor, err)) {
            const struct entry *entry = &cursor->entry;
            json_t *object = json_object();
            (void)json_object_set_new(object, "kind", json_string(kind_name(entry->kind)));
            (void)json_object_set_new(object, "key", dump_bytes(entry->key.user));
            (void)json_object_set_new(object, "revision", dump_number(entry->key.revision));
            (void)json_object_set_new(object, "ordinal", dump_number(entry->key.ordinal));
            (void)json_object_set_new(object, "value_bytes", dump_number(entry->value.len));
            dump_put(dump, object, true);
        }
        status = status == STATUS_NOT_FOUND ? STATUS_OK : status;
    }
    cursor_free(cursor);
    fetch_deinit(&fetch);
    return status;
}

static enum status put_content(const struct dump_file *file, const struct sst_meta *meta, struct error *err) {
    const struct dump *dump = file->dump;
    struct sst_context context;
    struct sst *sst = NULL;
    enum status status = dump_context_open(file, &context, err);
    if (status == STATUS_OK) {
        status = sst_new(&context, meta, &sst);
        status = status == STATUS_OK ? sst_load(sst, err) : error_set(err, status, "no memory for a table");
    }
    if (status == STATUS_OK && dump->keys) {
        status = put_entries(dump, sst, &context, err);
    }
    if (status == STATUS_OK && dump->verify) {
        status = dump_file_verify(file, sst, "verified_entries", err);
    }
    sst_free(sst);
    dump_context_close(&context);
    return status;
}

enum status dump_sst(const struct dump *dump, struct error *err) {
    struct dump_file file;
    enum status status = dump_file_open(&file, dump, FILE_SST, "a table", ".sst", err);
    if (status == STATUS_OK && file.frame.header.kind != SST_FILE_TABLE) {
        status = error_set(err, STATUS_CORRUPT, "%s: no table", dump->path);
    }
    if (status == STATUS_OK) {
        struct sst_meta meta;
        sst_frame_meta(&file.frame, &meta);
        meta.number = file.number;
        put_summary(dump, &meta, &file.frame.properties, file.frame.header.cluster_id);
        status = put_content(&file, &meta, err);
    }
    dump_file_close(&file);
    return status;
}
