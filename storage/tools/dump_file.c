/* Files with the frame of a table, as holdfast-dump reads them. The contract is in dump_file.h. */
#include "storage/tools/dump_file.h"

#include <string.h>

enum { CACHE_BYTES = 1 << 20 };

static enum status split(struct dump_file *file, enum file_kind kind, const char *what, const char *suffix,
                         struct error *err) {
    const char *path = file->dump->path;
    const char *slash = strrchr(path, '/');
    int dir_len = slash == NULL ? 0 : (int)(slash - path);
    if (file_name_parse(slash != NULL ? slash + 1 : path, &file->number) != kind) {
        return error_set(err, STATUS_INVALID, "%s: the name of %s is its number, 16 hexadecimal digits, and %s", path,
                         what, suffix);
    }
    if (dir_len + FILE_NAME_BYTES_MAX + 2 > LIMIT_PATH_BYTES) {
        return error_set(err, STATUS_INVALID, "%s: the path is too long", path);
    }
    (void)snprintf(file->dir, sizeof file->dir, "%.*s", dir_len, path);
    if (dir_len == 0) {
        (void)snprintf(file->dir, sizeof file->dir, slash == NULL ? "." : "/");
    }
    return STATUS_OK;
}

enum status dump_file_open(struct dump_file *file, const struct dump *dump, enum file_kind kind, const char *what,
                           const char *suffix, struct error *err) {
    *file = (struct dump_file){.dump = dump};
    sst_frame_init(&file->frame, dump->env->alloc);
    enum status status = split(file, kind, what, suffix, err);
    if (status == STATUS_OK) {
        status = env_open(dump->env, dump->path, ENV_OPEN_READ, &file->file, err);
    }
    return status == STATUS_OK ? sst_frame_read(&file->frame, file->file, err) : status;
}

void dump_file_close(struct dump_file *file) {
    env_close(file->file);
    sst_frame_deinit(&file->frame);
}

enum status dump_file_damaged(const struct dump_file *file, const char *what, uint64_t offset, struct error *err) {
    return error_set(err, STATUS_CORRUPT, "%s: %s at offset %llu is damaged", file->dump->path, what,
                     (unsigned long long)offset);
}

enum status dump_file_block(const struct dump_file *file, const struct sst_handle *handle, enum sst_block_kind kind,
                            struct buf *body, struct error *err) {
    size_t len = (size_t)handle->size + SST_TRAILER_BYTES;
    struct sst_stored stored;
    struct buf raw;
    buf_init(&raw, body->alloc, 0);
    buf_clear(body);
    enum status status = buf_reserve(&raw, len);
    if (status == STATUS_OK) {
        status = dump_read(file->file, raw.data, len, handle->offset, err);
        if (status != STATUS_OK) {
            goto out;
        }
        status = sst_block_check(slice_of(raw.data, len), kind, file->frame.header.id, handle->offset, &stored);
    }
    if (status == STATUS_OK) {
        status = buf_reserve(body, stored.size);
    }
    if (status == STATUS_OK) {
        status = sst_block_unpack(body->alloc, &stored, body->data);
    }
    if (status == STATUS_OK) {
        body->len = stored.size;
    } else if (status == STATUS_NO_MEMORY) {
        (void)error_set(err, status, "no memory for a block of %zu bytes", len);
    } else {
        status = dump_file_damaged(file, "the block", handle->offset, err);
    }
out:
    buf_deinit(&raw);
    return status;
}

enum status dump_context_open(const struct dump_file *file, struct sst_context *context, struct error *err) {
    struct env *env = file->dump->env;
    *context = (struct sst_context){.env = env, .dir = file->dir};
    memcpy(context->cluster_id, file->frame.header.cluster_id, SST_CLUSTER_ID_BYTES);
    enum status status = cache_new(env, CACHE_BYTES, &context->cache, err);
    return status == STATUS_OK ? open_files_new(env, 1, &context->files, err) : status;
}

void dump_context_close(struct sst_context *context) {
    open_files_free(context->files);
    cache_free(context->cache);
}

enum status dump_file_verify(const struct dump_file *file, struct sst *sst, const char *counted, struct error *err) {
    const struct sst_verify_options options = {.checksum_unknown = true};
    struct sst_verify_report report = {.bytes = 0};
    char checksum[20];
    enum status status = sst_verify(sst, &options, &report, err);
    json_t *object = json_object();
    (void)snprintf(checksum, sizeof checksum, "%016llx", (unsigned long long)report.checksum);
    (void)json_object_set_new(object, "verified_bytes", dump_number(report.bytes));
    (void)json_object_set_new(object, counted, dump_number(report.entries));
    (void)json_object_set_new(object, "findings", dump_number(report.findings));
    if (report.findings > 0) {
        (void)json_object_set_new(object, "first_offset", dump_number(report.first_offset));
    } else {
        (void)json_object_set_new(object, "checksum", json_string(checksum));
    }
    dump_put(file->dump, object, false);
    return status;
}
