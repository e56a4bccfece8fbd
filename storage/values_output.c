/* The value files that a flush or a compaction writes: begun when the first value comes, cut at their size. */
#include "node/base/check.h"
#include "storage/storage_internal.h"

void values_output__init(struct values_output *output, struct storage *storage, unsigned level,
                         void (*pace)(void *context, uint64_t bytes)) {
    *output = (struct values_output){.storage = storage, .level = level, .pace = pace};
}

static enum status begin(struct values_output *output, struct error *err) {
    struct storage *storage = output->storage;
    char path[LIMIT_PATH_BYTES];
    uint64_t number = atomic_fetch_add_explicit(&storage->next_file, 1, memory_order_relaxed);
    file_path_values(path, storage->dir, number);
    struct value_builder_options options = {.env = storage->env,
                                            .path = path,
                                            .number = number,
                                            .id = env_random(storage->env),
                                            .compression = storage->options.compression[output->level],
                                            .zstd_level = storage->options.zstd_level,
                                            .pace = output->pace,
                                            .pace_context = storage};
    memcpy(options.cluster_id, storage->options.cluster_id, SST_CLUSTER_ID_BYTES);
    return value_builder_new(&options, &output->builder, err);
}

/* Room for one more file, so that none is written that can't be listed. */
static enum status reserve(struct values_output *output) {
    if (output->count < output->capacity) {
        return STATUS_OK;
    }
    size_t capacity = output->capacity == 0 ? 4 : 2 * output->capacity;
    struct sst **files = mem_resize(output->storage->env->alloc, output->files, capacity * sizeof(struct sst *));
    if (files == NULL) {
        return STATUS_NO_MEMORY;
    }
    output->files = files;
    output->capacity = capacity;
    return STATUS_OK;
}

static void unlink_file(struct storage *storage, uint64_t number) {
    char path[LIMIT_PATH_BYTES];
    struct error ignored;
    file_path_values(path, storage->dir, number);
    enum status status = env_unlink(storage->env, path, &ignored);
    (void)status; /* then it goes at the next start */
}

enum status values_output__end(struct values_output *output, struct error *err) {
    struct storage *storage = output->storage;
    struct value_meta meta;
    if (output->builder == NULL) {
        return STATUS_OK;
    }
    enum status status = value_builder_finish(output->builder, &meta, err);
    if (status != STATUS_OK) {
        return status;
    }
    value_builder_free(output->builder);
    output->builder = NULL;
    output->bytes += meta.size_bytes;
    if (reserve(output) != STATUS_OK ||
        value_file_new(&storage->sst_context, &meta, &output->files[output->count]) != STATUS_OK) {
        unlink_file(storage, meta.number);
        return error_set(err, STATUS_NO_MEMORY, "no memory for a value file");
    }
    output->files[output->count++]->refs = 1;
    return STATUS_OK;
}

enum status values_output__take(struct values_output *output, struct sst *file) {
    enum status status = reserve(output);
    if (status == STATUS_OK) {
        output->files[output->count++] = file;
        output->adopted_bytes += file->meta.size_bytes;
    }
    return status;
}

enum status values_output__add(struct values_output *output, const struct entry *entry,
                               uint8_t ret_place[VALUE_PLACE_BYTES], struct error *err) {
    struct value_place place;
    enum status status = STATUS_OK;
    bool full =
        output->builder != NULL && (value_builder_size(output->builder) >= output->storage->options.value_file_bytes ||
                                    value_builder_values(output->builder) == VALUE_FILE_VALUES_MAX);
    if (full) {
        status = values_output__end(output, err);
    }
    if (status == STATUS_OK && output->builder == NULL) {
        status = begin(output, err);
    }
    if (status == STATUS_OK) {
        status = value_builder_add(output->builder, entry, &place, err);
    }
    if (status == STATUS_OK) {
        value_place_encode(ret_place, &place);
    }
    return status;
}

void values_output__drop(struct values_output *output) {
    if (output->storage == NULL) {
        return;
    }
    value_builder_free(output->builder);
    output->builder = NULL;
    for (size_t i = 0; i < output->count; i++) {
        uint64_t number = output->files[i]->meta.number;
        output->files[i]->refs = 0;
        sst_free(output->files[i]);
        unlink_file(output->storage, number);
    }
    mem_free(output->storage->env->alloc, output->files);
    *output = (struct values_output){0};
}

void values_output__release(struct values_output *output) {
    if (output->storage == NULL) {
        return;
    }
    CHECK(output->builder == NULL);
    for (size_t i = 0; i < output->count; i++) {
        storage__unref_table(output->storage, output->files[i]);
    }
    mem_free(output->storage->env->alloc, output->files);
    *output = (struct values_output){0};
}
