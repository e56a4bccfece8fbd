/*
 * A change file by itself: its header, its index and its blocks say all that it holds. The checksum of the whole file
 * can't be compared, that is in the manifest; --verify prints it.
 */
#include "storage/change_file.h"
#include "storage/tools/dump_file.h"

struct change_dump {
    struct dump_file file;
    struct change_meta meta;
    struct buf index;
};

static enum status read_frame(struct change_dump *changes, const struct dump *dump, struct error *err) {
    const struct sst_frame *frame = &changes->file.frame;
    const struct sst_properties *properties = &frame->properties;
    enum status status = dump_file_open(&changes->file, dump, FILE_CHANGES, "a change file", ".chg", err);
    if (status == STATUS_OK && (frame->header.kind != SST_FILE_CHANGES || frame->footer.top.size == 0)) {
        status = error_set(err, STATUS_CORRUPT, "%s: no change file", dump->path);
    }
    if (status == STATUS_OK) {
        status = dump_file_block(&changes->file, &frame->footer.top, SST_BLOCK_TOP, &changes->index, err);
    }
    if (status == STATUS_OK) {
        changes->meta = (struct change_meta){.number = changes->file.number,
                                             .id = frame->header.id,
                                             .size_bytes = frame->size_bytes,
                                             .changes = properties->entries + properties->tombstones,
                                             .revision_first = properties->revision_first,
                                             .revision_last = properties->revision_last,
                                             .index = frame->footer.top};
    }
    return status;
}

static void put_summary(const struct change_dump *changes) {
    const struct dump *dump = changes->file.dump;
    const struct sst_properties *properties = &changes->file.frame.properties;
    json_t *object = json_object();
    (void)json_object_set_new(object, "file", json_string(dump->path));
    (void)json_object_set_new(object, "id", dump_number(changes->meta.id));
    (void)json_object_set_new(object, "cluster",
                              dump_hex(slice_of(changes->file.frame.header.cluster_id, SST_CLUSTER_ID_BYTES)));
    (void)json_object_set_new(object, "bytes", dump_number(changes->meta.size_bytes));
    (void)json_object_set_new(object, "changes", dump_number(changes->meta.changes));
    (void)json_object_set_new(object, "deletes", dump_number(properties->deletes));
    (void)json_object_set_new(object, "range_deletes", dump_number(properties->tombstones));
    (void)json_object_set_new(object, "blocks", dump_number(change_index_count(buf_slice(&changes->index))));
    (void)json_object_set_new(object, "key_bytes", dump_number(properties->key_bytes));
    (void)json_object_set_new(object, "block_bytes", dump_number(properties->raw_bytes));
    (void)json_object_set_new(object, "revision_first", dump_number(properties->revision_first));
    (void)json_object_set_new(object, "revision_last", dump_number(properties->revision_last));
    (void)json_object_set_new(object, "smallest", dump_bytes(properties->smallest));
    (void)json_object_set_new(object, "largest", dump_bytes(properties->largest));
    dump_put(dump, object, false);
}

static void put_change(const struct dump *dump, const struct change *change) {
    static const char *const kinds[] = {[BATCH_PUT] = "put", [BATCH_DELETE] = "delete", [BATCH_DELETE_RANGE] = "range"};
    json_t *object = json_object();
    (void)json_object_set_new(object, "revision", dump_number(change->revision));
    (void)json_object_set_new(object, "ordinal", dump_number(change->ordinal));
    (void)json_object_set_new(object, "change", json_string(kinds[change->kind]));
    (void)json_object_set_new(object, "key", dump_bytes(change->key));
    if (change->kind == BATCH_DELETE_RANGE) {
        (void)json_object_set_new(object, "end", dump_bytes(change->end));
    }
    dump_put(dump, object, true);
}

static enum status put_changes(const struct change_dump *changes, struct error *err) {
    const struct dump_file *file = &changes->file;
    struct slice index = buf_slice(&changes->index);
    uint64_t end = file->frame.footer.top.offset;
    enum status status = STATUS_OK;
    struct buf body;
    buf_init(&body, file->dump->env->alloc, 0);
    for (size_t i = 0; i < change_index_count(index) && status == STATUS_OK; i++) {
        struct change_index_entry entry;
        struct change_block block;
        if (change_index_decode(index, i, end, &entry) != STATUS_OK) {
            status = dump_file_damaged(file, "the index", end, err);
            break;
        }
        status = dump_file_block(file, &entry.handle, SST_BLOCK_CHANGES, &body, err);
        if (status != STATUS_OK) {
            break;
        }
        status = change_block_open(&block, buf_slice(&body));
        while (status == STATUS_OK && (status = change_block_next(&block)) == STATUS_OK) {
            put_change(file->dump, &block.change);
        }
        status =
            status == STATUS_NOT_FOUND ? STATUS_OK : dump_file_damaged(file, "the block", entry.handle.offset, err);
    }
    buf_deinit(&body);
    return status;
}

static enum status verify(const struct change_dump *changes, struct error *err) {
    struct sst_context context;
    struct sst *sst = NULL;
    enum status status = dump_context_open(&changes->file, &context, err);
    if (status == STATUS_OK && change_file_new(&context, &changes->meta, &sst) != STATUS_OK) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for a change file");
    }
    if (status == STATUS_OK) {
        status = dump_file_verify(&changes->file, sst, "verified_changes", err);
    }
    sst_free(sst);
    dump_context_close(&context);
    return status;
}

enum status dump_change(const struct dump *dump, struct error *err) {
    struct change_dump changes;
    buf_init(&changes.index, dump->env->alloc, 0);
    enum status status = read_frame(&changes, dump, err);
    if (status == STATUS_OK) {
        put_summary(&changes);
    }
    if (status == STATUS_OK && dump->keys) {
        status = put_changes(&changes, err);
    }
    if (status == STATUS_OK && dump->verify) {
        status = verify(&changes, err);
    }
    buf_deinit(&changes.index);
    dump_file_close(&changes.file);
    return status;
}
