/* Which values are there, and where they go. The contract is in repair_values.h. */
#include "storage/repair_values.h"

#include "node/base/check.h"
#include "storage/file_names.h"
#include "storage/salvage.h"

struct repair_value_file {
    struct sst *file;
    bool is_sound;
    bool is_used; /* an entry of the outcome refers to it; only if it is sound */
};

static struct repair_value_file *files_of(const struct repair_values *values, size_t *ret_count) {
    *ret_count = values->files.len / sizeof(struct repair_value_file);
    return (struct repair_value_file *)(void *)values->files.data;
}

static struct repair_value_file *find(const struct repair_values *values, uint64_t id) {
    size_t count;
    struct repair_value_file *files = files_of(values, &count);
    for (size_t i = 0; i < count; i++) {
        if (files[i].file->meta.id == id) {
            return &files[i];
        }
    }
    return NULL;
}

static enum status no_memory(const struct repair_values *values, struct error *err) {
    return error_set(err, STATUS_NO_MEMORY, "%s: no memory for its value files", values->storage->dir);
}

/* ---- Life -------------------------------------------------------------------------------------------------------- */

void repair_values__init(struct repair_values *values, const struct storage_options *storage,
                         const struct sst_context *context, struct manifest_state *outcome, uint64_t *next_file) {
    static const struct fetch_options blocking = {.loop = NULL};
    *values = (struct repair_values){.storage = storage, .context = context, .outcome = outcome};
    values->next_file = next_file;
    fetch_init(&values->fetch, context, &blocking);
    buf_init(&values->files, storage->env->alloc, 0);
    buf_init(&values->strangers, storage->env->alloc, 0);
}

void repair_values__deinit(struct repair_values *values) {
    size_t count;
    value_builder_free(values->builder);
    sst_hold_release(&values->hold);
    fetch_deinit(&values->fetch);
    struct repair_value_file *files = files_of(values, &count);
    for (size_t i = 0; i < count; i++) {
        sst_free(files[i].file);
    }
    buf_deinit(&values->files);
    buf_deinit(&values->strangers);
}

/* ---- Old files --------------------------------------------------------------------------------------------------- */

static enum status add_file(struct repair_values *values, const struct value_meta *meta, bool is_sound) {
    struct repair_value_file added = {.is_sound = is_sound};
    enum status status = value_file_new(values->context, meta, &added.file);
    if (status == STATUS_OK && buf_append(&values->files, &added, sizeof added) != STATUS_OK) {
        sst_free(added.file);
        status = STATUS_NO_MEMORY;
    }
    return status;
}

static enum status verify(struct repair_values *values, const struct value_meta *meta,
                          const struct sst_verify_options *options, uint64_t *ret_checksum, struct error *err) {
    struct sst_verify_report report;
    struct sst *file;
    enum status status = value_file_new(values->context, meta, &file);
    if (status != STATUS_OK) {
        return no_memory(values, err);
    }
    status = sst_verify(file, options, &report, err);
    *ret_checksum = report.checksum;
    sst_free(file);
    return status;
}

enum status repair_values__take(struct repair_values *values, const struct value_meta *meta, bool *ret_sound,
                                struct error *err) {
    uint64_t checksum;
    enum status status = verify(values, meta, NULL, &checksum, err);
    if (status == STATUS_NO_MEMORY) {
        return status;
    }
    *ret_sound = status == STATUS_OK;
    return add_file(values, meta, *ret_sound) == STATUS_OK ? STATUS_OK : no_memory(values, err);
}

/* Segments of the log don't know the ids that manifests give them. */
static enum status take_stranger(struct repair_values *values, uint64_t number, struct error *err) {
    struct value_meta meta = {.is_log = true, .number = number};
    struct env_file *file;
    struct error ignored;
    char path[LIMIT_PATH_BYTES];
    file_path_values(path, values->storage->dir, number);
    enum status status = env_open(values->storage->env, path, ENV_OPEN_READ, &file, &ignored);
    if (status == STATUS_OK) {
        status = env_size(file, &meta.size_bytes, &ignored);
        env_close(file);
    }
    if (status == STATUS_OK) {
        status = buf_append(&values->strangers, &meta, sizeof meta);
    }
    return status == STATUS_NO_MEMORY ? no_memory(values, err) : STATUS_OK;
}

enum status repair_values__take_unnamed(struct repair_values *values, uint64_t number, bool *ret_sound,
                                        struct error *err) {
    static const struct sst_verify_options options = {.checksum_unknown = true};
    struct value_meta meta;
    bool is_whole;
    *ret_sound = false;
    enum status status = salvage_values(values->context, number, &meta, &is_whole, err);
    if (status != STATUS_OK) {
        return status == STATUS_NO_MEMORY ? status : take_stranger(values, number, err);
    }
    if (is_whole) {
        status = verify(values, &meta, &options, &meta.checksum, err);
        if (status == STATUS_NO_MEMORY) {
            return status;
        }
        *ret_sound = status == STATUS_OK;
    }
    if (find(values, meta.id) != NULL) {
        return STATUS_OK; /* the same file once more */
    }
    return add_file(values, &meta, *ret_sound) == STATUS_OK ? STATUS_OK : no_memory(values, err);
}

/* ---- New files --------------------------------------------------------------------------------------------------- */

static enum status begin(struct repair_values *values, struct error *err) {
    const struct storage_options *storage = values->storage;
    unsigned level = STORAGE_LEVELS - 1;
    char path[LIMIT_PATH_BYTES];
    uint64_t number = (*values->next_file)++;
    struct value_builder_options options = {.env = storage->env,
                                            .path = path,
                                            .number = number,
                                            .id = env_random(storage->env),
                                            .compression = storage->compression[level],
                                            .zstd_level = storage->zstd_level};
    memcpy(options.cluster_id, values->context->cluster_id, SST_CLUSTER_ID_BYTES);
    file_path_values(path, storage->dir, number);
    return value_builder_new(&options, &values->builder, err);
}

static enum status add_to_outcome(struct repair_values *values, const struct value_meta *meta) {
    struct buf edit;
    buf_init(&edit, values->storage->env->alloc, 0);
    enum status status = manifest_put_next_file(&edit, *values->next_file);
    if (status == STATUS_OK) {
        status = manifest_put_add_values(&edit, meta);
    }
    if (status == STATUS_OK) {
        status = manifest_state_apply(values->outcome, buf_slice(&edit));
    }
    buf_deinit(&edit);
    return status;
}

enum status repair_values__end(struct repair_values *values, struct error *err) {
    struct value_meta meta;
    if (values->builder == NULL) {
        return STATUS_OK;
    }
    enum status status = value_builder_finish(values->builder, &meta, err);
    if (status == STATUS_OK && add_to_outcome(values, &meta) != STATUS_OK) {
        char path[LIMIT_PATH_BYTES];
        struct error ignored;
        file_path_values(path, values->storage->dir, meta.number);
        (void)!env_unlink(values->storage->env, path, &ignored); /* then at the next opening */
        status = no_memory(values, err);
    }
    value_builder_free(values->builder);
    values->builder = NULL;
    return status;
}

static enum status write_anew(struct repair_values *values, struct entry *entry, struct slice value,
                              uint8_t place_bytes[VALUE_PLACE_BYTES], struct error *err) {
    const struct entry whole = {.key = entry->key, .value = value, .kind = BATCH_PUT};
    struct value_place place;
    enum status status = STATUS_OK;
    if (values->builder != NULL && (value_builder_size(values->builder) >= values->storage->value_file_bytes ||
                                    value_builder_values(values->builder) == VALUE_FILE_VALUES_MAX)) {
        status = repair_values__end(values, err);
    }
    if (status == STATUS_OK && values->builder == NULL) {
        status = begin(values, err);
    }
    if (status == STATUS_OK) {
        status = value_builder_add(values->builder, &whole, &place, err);
    }
    if (status == STATUS_OK) {
        value_place_encode(place_bytes, &place);
        entry->value = slice_of(place_bytes, VALUE_PLACE_BYTES);
    }
    return status;
}

/* A file of an unknown id: one of those that don't say what they are, if the version is found there. Whoever has a
 * record of this version at this place is it. STATUS_NOT_FOUND; STATUS_NO_MEMORY. */
static enum status find_stranger(struct repair_values *values, const struct value_place *place,
                                 const struct entry_key *key) {
    size_t count = values->strangers.len / sizeof(struct value_meta);
    struct value_meta *strangers = (struct value_meta *)(void *)values->strangers.data;
    for (size_t i = 0; i < count; i++) {
        struct sst *file;
        struct slice value;
        struct error ignored;
        strangers[i].id = place->file;
        if (value_file_new(values->context, &strangers[i], &file) != STATUS_OK) {
            return STATUS_NO_MEMORY;
        }
        enum status status = value_fetch(file, &values->fetch, place, key, &values->hold, &value, &ignored);
        sst_free(file);
        if (status == STATUS_OK) {
            status = add_file(values, &strangers[i], false);
            strangers[i] = strangers[count - 1];
            values->strangers.len -= sizeof(struct value_meta);
            return status;
        }
        if (status == STATUS_NO_MEMORY) {
            return status;
        }
    }
    return STATUS_NOT_FOUND;
}

enum status repair_values__move(struct repair_values *values, struct entry *entry, uint8_t place[VALUE_PLACE_BYTES],
                                uint64_t *ret_file, uint64_t *ret_offset, struct error *err) {
    struct value_place old;
    struct slice value;
    struct error why;
    CHECK(entry->kind == BATCH_PUT_APART);
    *ret_file = 0;
    *ret_offset = 0;
    if (value_place_decode(entry->value, &old) != STATUS_OK) {
        return STATUS_NOT_FOUND;
    }
    struct repair_value_file *from = find(values, old.file);
    enum status status = STATUS_OK;
    *ret_offset = old.handle.offset;
    if (from == NULL) {
        status = find_stranger(values, &old, &entry->key);
        from = find(values, old.file);
    }
    if (status == STATUS_NO_MEMORY) {
        return no_memory(values, err);
    }
    if (from == NULL) {
        return STATUS_NOT_FOUND;
    }
    *ret_file = from->file->meta.number;
    status = value_fetch(from->file, &values->fetch, &old, &entry->key, &values->hold, &value, &why);
    if (status == STATUS_NO_MEMORY) {
        return no_memory(values, err);
    }
    if (status != STATUS_OK) {
        return STATUS_NOT_FOUND;
    }
    if (!from->is_sound) {
        return write_anew(values, entry, value, place, err);
    }
    from->is_used = true;
    return STATUS_OK;
}

/* ---- In the end -------------------------------------------------------------------------------------------------- */

enum status repair_values__keep(struct repair_values *values) {
    size_t count;
    const struct repair_value_file *files = files_of(values, &count);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        if (files[i].is_used) {
            struct value_meta meta = value_file_meta(files[i].file);
            status = add_to_outcome(values, &meta);
        }
    }
    return status;
}

bool repair_values__stays(const struct repair_values *values, uint64_t number) {
    size_t count;
    const struct repair_value_file *files = files_of(values, &count);
    for (size_t i = 0; i < count; i++) {
        if (files[i].is_used && files[i].file->meta.number == number) {
            return true;
        }
    }
    return false;
}
