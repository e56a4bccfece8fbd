/*
 * A table by itself: without the manifest its own header and properties say what it is. Only the checksum of the whole
 * file can't be compared then; --verify prints it.
 */
#include "storage/file_names.h"
#include "storage/sst.h"
#include "storage/sst_frame.h"
#include "storage/tools/dump.h"

#include <string.h>

enum { CACHE_BYTES = 1 << 20, READAHEAD_BYTES = 1 << 20 };

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

static enum status verify(const struct dump *dump, struct sst *sst, struct error *err) {
    const struct sst_verify_options options = {.checksum_unknown = true};
    struct sst_verify_report report;
    char checksum[20];
    enum status status = sst_verify(sst, &options, &report, err);
    json_t *object = json_object();
    (void)snprintf(checksum, sizeof checksum, "%016llx", (unsigned long long)report.checksum);
    (void)json_object_set_new(object, "verified_bytes", dump_number(report.bytes));
    (void)json_object_set_new(object, "verified_entries", dump_number(report.entries));
    (void)json_object_set_new(object, "findings", dump_number(report.findings));
    if (report.findings > 0) {
        (void)json_object_set_new(object, "first_offset", dump_number(report.first_offset));
    } else {
        (void)json_object_set_new(object, "checksum", json_string(checksum));
    }
    dump_put(dump, object, false);
    return status;
}

static enum status dump_open(const struct dump *dump, const char *dir, const struct sst_meta *meta,
                             const uint8_t *cluster_id, struct error *err) {
    struct sst_context context = {.env = dump->env, .dir = dir};
    struct sst *sst = NULL;
    memcpy(context.cluster_id, cluster_id, SST_CLUSTER_ID_BYTES);
    enum status status = cache_new(dump->env, CACHE_BYTES, &context.cache, err);
    if (status == STATUS_OK) {
        status = open_files_new(dump->env, 1, &context.files, err);
    }
    if (status == STATUS_OK) {
        status = sst_new(&context, meta, &sst);
        status = status == STATUS_OK ? sst_load(sst, err) : error_set(err, status, "no memory for a table");
    }
    if (status == STATUS_OK && dump->keys) {
        status = put_entries(dump, sst, &context, err);
    }
    if (status == STATUS_OK && dump->verify) {
        status = verify(dump, sst, err);
    }
    sst_free(sst);
    open_files_free(context.files);
    cache_free(context.cache);
    return status;
}

enum status dump_sst(const struct dump *dump, struct error *err) {
    char dir[LIMIT_PATH_BYTES];
    const char *slash = strrchr(dump->path, '/');
    const char *name = slash != NULL ? slash + 1 : dump->path;
    int dir_len = slash == NULL ? 0 : (int)(slash - dump->path);
    uint64_t number;
    struct sst_frame frame;
    struct env_file *file = NULL;
    if (file_name_parse(name, &number) != FILE_SST) {
        return error_set(err, STATUS_INVALID, "%s: a table's name is its number, 16 hexadecimal digits, and .sst",
                         dump->path);
    }
    if (dir_len + FILE_NAME_BYTES_MAX + 2 > LIMIT_PATH_BYTES) {
        return error_set(err, STATUS_INVALID, "%s: the path is too long", dump->path);
    }
    (void)snprintf(dir, sizeof dir, "%.*s", dir_len, dump->path);
    if (dir_len == 0) {
        (void)snprintf(dir, sizeof dir, slash == NULL ? "." : "/");
    }
    sst_frame_init(&frame, dump->env->alloc);
    enum status status = env_open(dump->env, dump->path, ENV_OPEN_READ, &file, err);
    if (status == STATUS_OK) {
        status = sst_frame_read(&frame, file, err);
    }
    if (status == STATUS_OK && frame.header.kind != SST_FILE_TABLE) {
        status = error_set(err, STATUS_CORRUPT, "%s: no table", dump->path);
    }
    if (status == STATUS_OK) {
        struct sst_meta meta;
        sst_frame_meta(&frame, &meta);
        meta.number = number;
        put_summary(dump, &meta, &frame.properties, frame.header.cluster_id);
        status = dump_open(dump, dir, &meta, frame.header.cluster_id, err);
    }
    env_close(file);
    sst_frame_deinit(&frame);
    return status;
}
