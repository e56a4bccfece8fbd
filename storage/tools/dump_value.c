/*
 * A value file by itself: its header, its list of sizes and its blocks say all that it holds. What of it is still in
 * use only a manifest knows. The checksum of the whole file can't be compared; --verify prints it.
 */
#include "node/base/bytes.h"
#include "storage/file_names.h"
#include "storage/tools/dump.h"
#include "storage/value_file.h"

#include <stdlib.h>
#include <string.h>

enum { CACHE_BYTES = 1 << 20 };

struct value_dump {
    const struct dump *dump;
    struct env_file *file;
    struct sst_header header;
    struct sst_footer footer;
    struct sst_properties properties;
    struct value_meta meta;
    uint8_t *properties_body; /* what properties borrows */
    uint8_t *sizes;
    size_t count;
};

static enum status damaged(const struct value_dump *values, const char *what, uint64_t offset, struct error *err) {
    return error_set(err, STATUS_CORRUPT, "%s: %s at offset %llu is damaged", values->dump->path, what,
                     (unsigned long long)offset);
}

/* The plain body of a block, malloc's. */
static enum status read_block(const struct value_dump *values, const struct sst_handle *handle,
                              enum sst_block_kind kind, uint8_t **ret_body, size_t *ret_len, struct error *err) {
    size_t len = (size_t)handle->size + SST_TRAILER_BYTES;
    uint8_t *raw = malloc(len);
    uint8_t *body = NULL;
    struct sst_stored stored;
    enum status status = STATUS_NO_MEMORY;
    if (raw == NULL) {
        return error_set(err, status, "no memory for %zu bytes", len);
    }
    status = dump_read(values->file, raw, len, handle->offset, err);
    if (status == STATUS_OK &&
        sst_block_check(slice_of(raw, len), kind, values->header.id, handle->offset, &stored) != STATUS_OK) {
        status = damaged(values, "the block", handle->offset, err);
    }
    if (status == STATUS_OK) {
        body = malloc(stored.size);
        status = body != NULL ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for a block");
    }
    if (status == STATUS_OK && sst_block_unpack(values->dump->env->alloc, &stored, body) != STATUS_OK) {
        status = damaged(values, "the block", handle->offset, err);
    }
    free(raw);
    if (status != STATUS_OK) {
        free(body);
        return status;
    }
    *ret_body = body;
    *ret_len = stored.size;
    return STATUS_OK;
}

static enum status read_frame(struct value_dump *values, struct error *err) {
    uint8_t bytes[SST_FOOTER_BYTES];
    uint64_t size_bytes;
    size_t len;
    enum status status = env_size(values->file, &size_bytes, err);
    if (status == STATUS_OK) {
        status = dump_read(values->file, bytes, SST_HEADER_BYTES, 0, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_header_decode(bytes, &values->header) != STATUS_OK || values->header.kind != SST_FILE_VALUES ||
        size_bytes < SST_HEADER_BYTES + SST_FOOTER_BYTES) {
        return error_set(err, STATUS_CORRUPT,
                         "%s: no value file, or its header is damaged; the store also has segments of the log "
                         "under such names: see `holdfast-dump wal`",
                         values->dump->path);
    }
    uint64_t footer_at = size_bytes - SST_FOOTER_BYTES;
    status = dump_read(values->file, bytes, sizeof bytes, footer_at, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_footer_decode(bytes, values->header.id, size_bytes, &values->footer) != STATUS_OK ||
        values->footer.top.size == 0) {
        return damaged(values, "the footer", footer_at, err);
    }
    status = read_block(values, &values->footer.properties, SST_BLOCK_PROPERTIES, &values->properties_body, &len, err);
    if (status == STATUS_OK &&
        sst_properties_decode(slice_of(values->properties_body, len), &values->properties) != STATUS_OK) {
        status = damaged(values, "the properties", values->footer.properties.offset, err);
    }
    if (status == STATUS_OK) {
        status = read_block(values, &values->footer.top, SST_BLOCK_TOP, &values->sizes, &len, err);
    }
    if (status == STATUS_OK) {
        values->count = len / VALUE_SIZE_BYTES;
        values->meta = (struct value_meta){.number = values->meta.number,
                                           .id = values->header.id,
                                           .size_bytes = size_bytes,
                                           .values = values->count,
                                           .bytes = values->footer.top.offset - SST_HEADER_BYTES};
    }
    return status;
}

static void put_summary(const struct value_dump *values) {
    const struct sst_properties *properties = &values->properties;
    json_t *object = json_object();
    (void)json_object_set_new(object, "file", json_string(values->dump->path));
    (void)json_object_set_new(object, "id", dump_number(values->meta.id));
    (void)json_object_set_new(object, "cluster", dump_hex(slice_of(values->header.cluster_id, SST_CLUSTER_ID_BYTES)));
    (void)json_object_set_new(object, "bytes", dump_number(values->meta.size_bytes));
    (void)json_object_set_new(object, "values", dump_number(values->meta.values));
    (void)json_object_set_new(object, "key_bytes", dump_number(properties->key_bytes));
    (void)json_object_set_new(object, "value_bytes", dump_number(properties->value_bytes));
    (void)json_object_set_new(object, "stored_bytes", dump_number(values->meta.bytes));
    (void)json_object_set_new(object, "revision_first", dump_number(properties->revision_first));
    (void)json_object_set_new(object, "revision_last", dump_number(properties->revision_last));
    (void)json_object_set_new(object, "smallest", dump_bytes(properties->smallest));
    (void)json_object_set_new(object, "largest", dump_bytes(properties->largest));
    dump_put(values->dump, object, false);
}

static enum status put_values(const struct value_dump *values, struct error *err) {
    uint64_t position = SST_HEADER_BYTES;
    for (size_t i = 0; i < values->count; i++) {
        struct sst_handle handle = {.offset = position, .size = get_u32(values->sizes + i * VALUE_SIZE_BYTES)};
        struct value_block block;
        uint8_t *body = NULL;
        size_t len = 0;
        if (handle.size == 0 || handle.size > SST_BLOCK_BYTES_MAX) {
            return damaged(values, "the list of sizes", values->footer.top.offset, err);
        }
        enum status status = read_block(values, &handle, SST_BLOCK_VALUE, &body, &len, err);
        if (status == STATUS_OK && value_block_open(slice_of(body, len), &block) != STATUS_OK) {
            status = damaged(values, "the value", position, err);
        }
        if (status == STATUS_OK) {
            json_t *object = json_object();
            (void)json_object_set_new(object, "offset", dump_number(position));
            (void)json_object_set_new(object, "key", dump_bytes(block.key.user));
            (void)json_object_set_new(object, "revision", dump_number(block.key.revision));
            (void)json_object_set_new(object, "ordinal", dump_number(block.key.ordinal));
            (void)json_object_set_new(object, "value_bytes", dump_number(block.value.len));
            (void)json_object_set_new(object, "stored_bytes", dump_number(handle.size));
            dump_put(values->dump, object, true);
        }
        free(body);
        if (status != STATUS_OK) {
            return status;
        }
        position += (uint64_t)handle.size + SST_TRAILER_BYTES;
    }
    return STATUS_OK;
}

static enum status verify(const struct value_dump *values, const char *dir, struct error *err) {
    const struct sst_verify_options options = {.checksum_unknown = true};
    struct sst_context context = {.env = values->dump->env, .dir = dir};
    struct sst_verify_report report = {.bytes = 0};
    struct sst *file = NULL;
    char checksum[20];
    memcpy(context.cluster_id, values->header.cluster_id, SST_CLUSTER_ID_BYTES);
    enum status status = cache_new(context.env, CACHE_BYTES, &context.cache, err);
    if (status == STATUS_OK) {
        status = open_files_new(context.env, 1, &context.files, err);
    }
    if (status == STATUS_OK && value_file_new(&context, &values->meta, &file) != STATUS_OK) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for a value file");
    }
    if (status == STATUS_OK) {
        status = sst_verify(file, &options, &report, err);
        json_t *object = json_object();
        (void)snprintf(checksum, sizeof checksum, "%016llx", (unsigned long long)report.checksum);
        (void)json_object_set_new(object, "verified_bytes", dump_number(report.bytes));
        (void)json_object_set_new(object, "verified_values", dump_number(report.entries));
        (void)json_object_set_new(object, "findings", dump_number(report.findings));
        if (report.findings > 0) {
            (void)json_object_set_new(object, "first_offset", dump_number(report.first_offset));
        } else {
            (void)json_object_set_new(object, "checksum", json_string(checksum));
        }
        dump_put(values->dump, object, false);
    }
    sst_free(file);
    open_files_free(context.files);
    cache_free(context.cache);
    return status;
}

enum status dump_value(const struct dump *dump, struct error *err) {
    char dir[LIMIT_PATH_BYTES];
    struct value_dump values = {.dump = dump};
    const char *slash = strrchr(dump->path, '/');
    const char *name = slash != NULL ? slash + 1 : dump->path;
    int dir_len = slash == NULL ? 0 : (int)(slash - dump->path);
    if (file_name_parse(name, &values.meta.number) != FILE_VALUES) {
        return error_set(err, STATUS_INVALID, "%s: a value file's name is its number, 16 hexadecimal digits, and .val",
                         dump->path);
    }
    if (dir_len + FILE_NAME_BYTES_MAX + 2 > LIMIT_PATH_BYTES) {
        return error_set(err, STATUS_INVALID, "%s: the path is too long", dump->path);
    }
    (void)snprintf(dir, sizeof dir, "%.*s", dir_len, dump->path);
    if (dir_len == 0) {
        (void)snprintf(dir, sizeof dir, slash == NULL ? "." : "/");
    }
    enum status status = env_open(dump->env, dump->path, ENV_OPEN_READ, &values.file, err);
    if (status == STATUS_OK) {
        status = read_frame(&values, err);
    }
    if (status == STATUS_OK) {
        put_summary(&values);
    }
    if (status == STATUS_OK && dump->keys) {
        status = put_values(&values, err);
    }
    if (status == STATUS_OK && dump->verify) {
        status = verify(&values, dir, err);
    }
    env_close(values.file);
    free(values.properties_body);
    free(values.sizes);
    return status;
}
