/*
 * A table by itself: without the manifest its own header and properties say what it is. Only the checksum of the whole
 * file can't be compared then; --verify prints it.
 */
#include "storage/file_names.h"
#include "storage/sst.h"
#include "storage/sst_format.h"
#include "storage/tools/dump.h"
#include "storage/value_file.h"

#include <stdlib.h>
#include <string.h>

enum { CACHE_BYTES = 1 << 20, READAHEAD_BYTES = 1 << 20 };

/* The references, in memory that the caller frees. */
static enum status take_refs(struct sst_meta *meta, const struct sst_properties *properties, struct error *err) {
    size_t count = properties->value_ref_count;
    struct value_ref *refs = malloc(count * sizeof *refs + 1);
    if (refs == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu references", count);
    }
    for (size_t i = 0; i < count; i++) {
        refs[i] = value_ref_decode(properties->value_ref_bytes.data + i * VALUE_REF_BYTES);
    }
    meta->value_refs = refs;
    meta->value_ref_count = count;
    return STATUS_OK;
}

/* Fills in meta and the cluster id; meta's keys are borrowed from *ret_body, which the caller frees, as it does
 * meta->value_refs. */
static enum status read_meta(struct env_file *file, struct sst_meta *meta, uint8_t *cluster_id,
                             struct sst_properties *properties, uint8_t **ret_body, struct error *err) {
    uint8_t bytes[SST_FOOTER_BYTES];
    struct sst_header header;
    struct sst_footer footer;
    struct sst_stored stored;
    enum status status = env_size(file, &meta->size_bytes, err);
    if (status == STATUS_OK) {
        status = dump_read(file, bytes, SST_HEADER_BYTES, 0, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = sst_header_decode(bytes, &header);
    if (status != STATUS_OK || meta->size_bytes < SST_HEADER_BYTES + SST_FOOTER_BYTES) {
        return error_set(err, STATUS_CORRUPT, "%s: no table, or its header is damaged", env_file_path(file));
    }
    uint64_t footer_at = meta->size_bytes - SST_FOOTER_BYTES;
    status = dump_read(file, bytes, sizeof bytes, footer_at, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_footer_decode(bytes, header.id, meta->size_bytes, &footer) != STATUS_OK) {
        return error_set(err, STATUS_CORRUPT, "%s: the footer at offset %llu is damaged", env_file_path(file),
                         (unsigned long long)footer_at);
    }
    size_t len = (size_t)footer.properties.size + SST_TRAILER_BYTES;
    uint8_t *body = malloc(len);
    if (body == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu bytes", len);
    }
    *ret_body = body;
    status = dump_read(file, body, len, footer.properties.offset, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_block_check(slice_of(body, len), SST_BLOCK_PROPERTIES, header.id, footer.properties.offset, &stored) !=
            STATUS_OK ||
        stored.compression != COMPRESSION_NONE || sst_properties_decode(stored.body, properties) != STATUS_OK) {
        return error_set(err, STATUS_CORRUPT, "%s: the properties at offset %llu are damaged", env_file_path(file),
                         (unsigned long long)footer.properties.offset);
    }
    memcpy(cluster_id, header.cluster_id, SST_CLUSTER_ID_BYTES);
    meta->id = header.id;
    meta->entries = properties->entries;
    meta->deletes = properties->deletes;
    meta->tombstones = properties->tombstones;
    meta->superseded = properties->superseded;
    meta->superseded_until = properties->superseded_until;
    meta->key_bytes = properties->key_bytes;
    meta->value_bytes = properties->value_bytes;
    meta->revision_first = properties->revision_first;
    meta->revision_last = properties->revision_last;
    meta->smallest = properties->smallest;
    meta->largest = properties->largest;
    meta->largest_excluded = properties->largest_excluded != 0;
    return take_refs(meta, properties, err);
}

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
    enum status status = put_range_deletes(dump, sst, &fetch, err);
    struct cursor *cursor = sst_cursor_new(dump->env->alloc, &fetch, &sst, 1);
    if (cursor == NULL) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for a cursor");
    }
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
    struct sst_meta meta = {.number = 0};
    struct sst_properties properties;
    uint8_t cluster_id[SST_CLUSTER_ID_BYTES];
    uint8_t *body = NULL;
    struct env_file *file = NULL;
    if (file_name_parse(name, &meta.number) != FILE_SST) {
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
    enum status status = env_open(dump->env, dump->path, ENV_OPEN_READ, &file, err);
    if (status == STATUS_OK) {
        status = read_meta(file, &meta, cluster_id, &properties, &body, err);
    }
    if (status == STATUS_OK) {
        put_summary(dump, &meta, &properties, cluster_id);
        status = dump_open(dump, dir, &meta, cluster_id, err);
    }
    env_close(file);
    free((void *)(uintptr_t)meta.value_refs);
    free(body);
    return status;
}
