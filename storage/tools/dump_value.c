/*
 * A value file by itself: its header, its list of sizes and its blocks say all that it holds. What of it is still in
 * use only a manifest knows. The checksum of the whole file can't be compared; --verify prints it.
 */
#include "node/base/bytes.h"
#include "storage/tools/dump_file.h"

struct value_dump {
    struct dump_file file;
    struct value_meta meta;
    struct buf sizes;
};

static enum status read_frame(struct value_dump *values, const struct dump *dump, struct error *err) {
    const struct sst_frame *frame = &values->file.frame;
    enum status status = dump_file_open(&values->file, dump, FILE_VALUES, "a value file", ".val", err);
    bool is_other = status == STATUS_OK ? frame->header.kind != SST_FILE_VALUES || frame->footer.top.size == 0
                                        : status == STATUS_CORRUPT && !frame->has_header;
    if (is_other) {
        return error_set(err, STATUS_CORRUPT,
                         "%s: no value file, or its header is damaged; the store also has segments of the log "
                         "under such names: see `holdfast-dump wal`",
                         dump->path);
    }
    if (status == STATUS_OK) {
        status = dump_file_block(&values->file, &frame->footer.top, SST_BLOCK_TOP, &values->sizes, err);
    }
    if (status == STATUS_OK) {
        values->meta = (struct value_meta){.number = values->file.number,
                                           .id = frame->header.id,
                                           .size_bytes = frame->size_bytes,
                                           .values = values->sizes.len / VALUE_SIZE_BYTES,
                                           .bytes = frame->footer.top.offset - SST_HEADER_BYTES};
    }
    return status;
}

static void put_summary(const struct value_dump *values) {
    const struct dump *dump = values->file.dump;
    const struct sst_properties *properties = &values->file.frame.properties;
    json_t *object = json_object();
    (void)json_object_set_new(object, "file", json_string(dump->path));
    (void)json_object_set_new(object, "id", dump_number(values->meta.id));
    (void)json_object_set_new(object, "cluster",
                              dump_hex(slice_of(values->file.frame.header.cluster_id, SST_CLUSTER_ID_BYTES)));
    (void)json_object_set_new(object, "bytes", dump_number(values->meta.size_bytes));
    (void)json_object_set_new(object, "values", dump_number(values->meta.values));
    (void)json_object_set_new(object, "key_bytes", dump_number(properties->key_bytes));
    (void)json_object_set_new(object, "value_bytes", dump_number(properties->value_bytes));
    (void)json_object_set_new(object, "stored_bytes", dump_number(values->meta.bytes));
    (void)json_object_set_new(object, "revision_first", dump_number(properties->revision_first));
    (void)json_object_set_new(object, "revision_last", dump_number(properties->revision_last));
    (void)json_object_set_new(object, "smallest", dump_bytes(properties->smallest));
    (void)json_object_set_new(object, "largest", dump_bytes(properties->largest));
    dump_put(dump, object, false);
}

static enum status put_values(const struct value_dump *values, struct error *err) {
    const struct dump_file *file = &values->file;
    uint64_t position = SST_HEADER_BYTES;
    enum status status = STATUS_OK;
    struct buf body;
    buf_init(&body, file->dump->env->alloc, 0);
    for (size_t i = 0; i < values->meta.values && status == STATUS_OK; i++) {
        struct sst_handle handle = {.offset = position, .size = get_u32(values->sizes.data + i * VALUE_SIZE_BYTES)};
        struct value_block block;
        if (handle.size == 0 || handle.size > SST_BLOCK_BYTES_MAX) {
            status = dump_file_damaged(file, "the list of sizes", file->frame.footer.top.offset, err);
            break;
        }
        status = dump_file_block(file, &handle, SST_BLOCK_VALUE, &body, err);
        if (status == STATUS_OK && value_block_open(buf_slice(&body), &block) != STATUS_OK) {
            status = dump_file_damaged(file, "the value", position, err);
        }
        if (status == STATUS_OK) {
            json_t *object = json_object();
            (void)json_object_set_new(object, "offset", dump_number(position));
            (void)json_object_set_new(object, "key", dump_bytes(block.key.user));
            (void)json_object_set_new(object, "revision", dump_number(block.key.revision));
            (void)json_object_set_new(object, "ordinal", dump_number(block.key.ordinal));
            (void)json_object_set_new(object, "value_bytes", dump_number(block.value.len));
            (void)json_object_set_new(object, "stored_bytes", dump_number(handle.size));
            dump_put(file->dump, object, true);
        }
        position += (uint64_t)handle.size + SST_TRAILER_BYTES;
    }
    buf_deinit(&body);
    return status;
}

static enum status verify(const struct value_dump *values, struct error *err) {
    struct sst_context context;
    struct sst *sst = NULL;
    enum status status = dump_context_open(&values->file, &context, err);
    if (status == STATUS_OK && value_file_new(&context, &values->meta, &sst) != STATUS_OK) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for a value file");
    }
    if (status == STATUS_OK) {
        status = dump_file_verify(&values->file, sst, "verified_values", err);
    }
    sst_free(sst);
    dump_context_close(&context);
    return status;
}

enum status dump_value(const struct dump *dump, struct error *err) {
    struct value_dump values;
    buf_init(&values.sizes, dump->env->alloc, 0);
    enum status status = read_frame(&values, dump, err);
    if (status == STATUS_OK) {
        put_summary(&values);
    }
    if (status == STATUS_OK && dump->keys) {
        status = put_values(&values, err);
    }
    if (status == STATUS_OK && dump->verify) {
        status = verify(&values, err);
    }
    buf_deinit(&values.sizes);
    dump_file_close(&values.file);
    return status;
}
