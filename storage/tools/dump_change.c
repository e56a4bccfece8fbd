/*
 * A change file by itself: its header, its index and its blocks say all that it holds. The checksum of the whole file
 * can't be compared, that is in the manifest; --verify prints it.
 */
#include "storage/change_file.h"
#include "storage/file_names.h"
#include "storage/tools/dump.h"

#include <stdlib.h>
#include <string.h>

enum { CACHE_BYTES = 1 << 20 };

struct change_dump {
    const struct dump *dump;
    struct env_file *file;
    struct sst_header header;
    struct sst_footer footer;
    struct sst_properties properties;
    struct change_meta meta;
    uint8_t *properties_body; /* what properties borrows */
    uint8_t *index;
    size_t index_len;
    size_t blocks;
};

static enum status damaged(const struct change_dump *changes, const char *what, uint64_t offset, struct error *err) {
    return error_set(err, STATUS_CORRUPT, "%s: %s at offset %llu is damaged", changes->dump->path, what,
                     (unsigned long long)offset);
}

/* The plain body of a block, malloc's. */
static enum status read_block(const struct change_dump *changes, const struct sst_handle *handle,
                              enum sst_block_kind kind, uint8_t **ret_body, size_t *ret_len, struct error *err) {
    size_t len = (size_t)handle->size + SST_TRAILER_BYTES;
    struct sst_stored stored;
    uint8_t *body = NULL;
    uint8_t *raw = malloc(len);
    if (raw == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for %zu bytes", len);
    }
    enum status status = dump_read(changes->file, raw, len, handle->offset, err);
    if (status == STATUS_OK) {
        status = sst_block_check(slice_of(raw, len), kind, changes->header.id, handle->offset, &stored);
        body = status == STATUS_OK ? malloc(stored.size) : NULL;
        if (body != NULL) {
            status = sst_block_unpack(changes->dump->env->alloc, &stored, body);
        }
        if (status != STATUS_OK) {
            status = damaged(changes, "the block", handle->offset, err);
        } else if (body == NULL) {
            status = error_set(err, STATUS_NO_MEMORY, "no memory for a block");
        }
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

static enum status read_frame(struct change_dump *changes, struct error *err) {
    uint8_t bytes[SST_FOOTER_BYTES];
    uint64_t size_bytes;
    size_t len = 0;
    enum status status = env_size(changes->file, &size_bytes, err);
    if (status == STATUS_OK) {
        status = dump_read(changes->file, bytes, SST_HEADER_BYTES, 0, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_header_decode(bytes, &changes->header) != STATUS_OK || changes->header.kind != SST_FILE_CHANGES ||
        size_bytes < SST_HEADER_BYTES + SST_FOOTER_BYTES) {
        return error_set(err, STATUS_CORRUPT, "%s: no change file, or its header is damaged", changes->dump->path);
    }
    uint64_t footer_at = size_bytes - SST_FOOTER_BYTES;
    status = dump_read(changes->file, bytes, sizeof bytes, footer_at, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (sst_footer_decode(bytes, changes->header.id, size_bytes, &changes->footer) != STATUS_OK ||
        changes->footer.top.size == 0) {
        return damaged(changes, "the footer", footer_at, err);
    }
    const struct sst_handle *properties = &changes->footer.properties;
    status = read_block(changes, properties, SST_BLOCK_PROPERTIES, &changes->properties_body, &len, err);
    if (status == STATUS_OK &&
        sst_properties_decode(slice_of(changes->properties_body, len), &changes->properties) != STATUS_OK) {
        status = damaged(changes, "the properties", properties->offset, err);
    }
    if (status == STATUS_OK) {
        status = read_block(changes, &changes->footer.top, SST_BLOCK_TOP, &changes->index, &len, err);
    }
    if (status == STATUS_OK) {
        changes->index_len = len;
        changes->blocks = change_index_count(slice_of(changes->index, len));
        changes->meta = (struct change_meta){.number = changes->meta.number,
                                             .id = changes->header.id,
                                             .size_bytes = size_bytes,
                                             .changes = changes->properties.entries + changes->properties.tombstones,
                                             .revision_first = changes->properties.revision_first,
                                             .revision_last = changes->properties.revision_last,
                                             .index = changes->footer.top};
    }
    return status;
}

static void put_summary(const struct change_dump *changes) {
    const struct sst_properties *properties = &changes->properties;
    json_t *object = json_object();
    (void)json_object_set_new(object, "file", json_string(changes->dump->path));
    (void)json_object_set_new(object, "id", dump_number(changes->meta.id));
    (void)json_object_set_new(object, "cluster", dump_hex(slice_of(changes->header.cluster_id, SST_CLUSTER_ID_BYTES)));
    (void)json_object_set_new(object, "bytes", dump_number(changes->meta.size_bytes));
    (void)json_object_set_new(object, "changes", dump_number(changes->meta.changes));
    (void)json_object_set_new(object, "deletes", dump_number(properties->deletes));
    (void)json_object_set_new(object, "range_deletes", dump_number(properties->tombstones));
    (void)json_object_set_new(object, "blocks", dump_number(changes->blocks));
    (void)json_object_set_new(object, "key_bytes", dump_number(properties->key_bytes));
    (void)json_object_set_new(object, "block_bytes", dump_number(properties->raw_bytes));
    (void)json_object_set_new(object, "revision_first", dump_number(properties->revision_first));
    (void)json_object_set_new(object, "revision_last", dump_number(properties->revision_last));
    (void)json_object_set_new(object, "smallest", dump_bytes(properties->smallest));
    (void)json_object_set_new(object, "largest", dump_bytes(properties->largest));
    dump_put(changes->dump, object, false);
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
    struct slice index = slice_of(changes->index, changes->index_len);
    struct change_block block;
    for (size_t i = 0; i < changes->blocks; i++) {
        struct change_index_entry entry;
        uint8_t *body = NULL;
        size_t len = 0;
        if (change_index_decode(index, i, changes->footer.top.offset, &entry) != STATUS_OK) {
            return damaged(changes, "the index", changes->footer.top.offset, err);
        }
        enum status status = read_block(changes, &entry.handle, SST_BLOCK_CHANGES, &body, &len, err);
        if (status != STATUS_OK) {
            return status;
        }
        status = change_block_open(&block, slice_of(body, len));
        while (status == STATUS_OK && (status = change_block_next(&block)) == STATUS_OK) {
            put_change(changes->dump, &block.change);
        }
        free(body);
        if (status != STATUS_NOT_FOUND) {
            return damaged(changes, "the block", entry.handle.offset, err);
        }
    }
    return STATUS_OK;
}

static enum status verify(const struct change_dump *changes, const char *dir, struct error *err) {
    const struct sst_verify_options options = {.checksum_unknown = true};
    struct sst_context context = {.env = changes->dump->env, .dir = dir};
    struct sst_verify_report report = {.bytes = 0};
    struct sst *file = NULL;
    char checksum[20];
    memcpy(context.cluster_id, changes->header.cluster_id, SST_CLUSTER_ID_BYTES);
    enum status status = cache_new(context.env, CACHE_BYTES, &context.cache, err);
    if (status == STATUS_OK) {
        status = open_files_new(context.env, 1, &context.files, err);
    }
    if (status == STATUS_OK && change_file_new(&context, &changes->meta, &file) != STATUS_OK) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory for a change file");
    }
    if (status == STATUS_OK) {
        status = sst_verify(file, &options, &report, err);
        json_t *object = json_object();
        (void)snprintf(checksum, sizeof checksum, "%016llx", (unsigned long long)report.checksum);
        (void)json_object_set_new(object, "verified_bytes", dump_number(report.bytes));
        (void)json_object_set_new(object, "verified_changes", dump_number(report.entries));
        (void)json_object_set_new(object, "findings", dump_number(report.findings));
        if (report.findings > 0) {
            (void)json_object_set_new(object, "first_offset", dump_number(report.first_offset));
        } else {
            (void)json_object_set_new(object, "checksum", json_string(checksum));
        }
        dump_put(changes->dump, object, false);
    }
    sst_free(file);
    open_files_free(context.files);
    cache_free(context.cache);
    return status;
}

enum status dump_change(const struct dump *dump, struct error *err) {
    char dir[LIMIT_PATH_BYTES];
    struct change_dump changes = {.dump = dump};
    const char *slash = strrchr(dump->path, '/');
    const char *name = slash != NULL ? slash + 1 : dump->path;
    int dir_len = slash == NULL ? 0 : (int)(slash - dump->path);
    if (file_name_parse(name, &changes.meta.number) != FILE_CHANGES) {
        return error_set(err, STATUS_INVALID, "%s: a change file's name is its number, 16 hexadecimal digits, and .chg",
                         dump->path);
    }
    if (dir_len + FILE_NAME_BYTES_MAX + 2 > LIMIT_PATH_BYTES) {
        return error_set(err, STATUS_INVALID, "%s: the path is too long", dump->path);
    }
    (void)snprintf(dir, sizeof dir, "%.*s", dir_len, dump->path);
    if (dir_len == 0) {
        (void)snprintf(dir, sizeof dir, slash == NULL ? "." : "/");
    }
    enum status status = env_open(dump->env, dump->path, ENV_OPEN_READ, &changes.file, err);
    if (status == STATUS_OK) {
        status = read_frame(&changes, err);
    }
    if (status == STATUS_OK) {
        put_summary(&changes);
    }
    if (status == STATUS_OK && dump->keys) {
        status = put_changes(&changes, err);
    }
    if (status == STATUS_OK && dump->verify) {
        status = verify(&changes, dir, err);
    }
    env_close(changes.file);
    free(changes.properties_body);
    free(changes.index);
    return status;
}
