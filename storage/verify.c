/*
 * Verifying stores.
 *
 *   CURRENT, manifest       read as at opening
 *   the directory           every table that the manifest names is there; what is there and isn't named is counted
 *   order of the tables     version_is_sound
 *   every table             sst_verify
 *   tables and frontier     no table has anything newer than the frontier (hazard 39); the horizon isn't, either
 *
 * Findings never end it. What it can't read, it can't vouch for: a read error is a finding, too.
 */
#include "storage/verify.h"

#include "storage/storage_internal.h"
#include "storage/store_files.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- Findings ------------------------------------------------------------------------------------------------ */

void verify__found(struct verify_run *run, const char *file, uint64_t count, uint64_t offset,
                   const struct error *found) {
    struct storage_verify_finding finding = {.file = file, .count = count, .offset = offset, .message = found->message};
    if (run->report->findings == 0 && run->err != NULL) {
        *run->err = *found;
        run->err->code = STATUS_CORRUPT;
    }
    run->report->findings += count;
    if (run->options.found != NULL) {
        run->options.found(run->options.context, &finding);
    }
}

enum status verify__result(const struct verify_run *run, enum status status) {
    return status == STATUS_OK && run->report->findings > 0 ? STATUS_CORRUPT : status;
}

/* ---- Tables -------------------------------------------------------------------------------------------------- */

static bool pace(void *context, uint64_t bytes) {
    struct verify_run *run = context;
    run->done_bytes += bytes;
    uint64_t done_bytes = run->done_bytes < run->total_bytes ? run->done_bytes : run->total_bytes;
    run->is_cancelled =
        run->is_cancelled ||
        (run->options.progress != NULL && !run->options.progress(run->options.context, done_bytes, run->total_bytes));
    return !run->is_cancelled;
}

static void add(struct storage_verify_report *report, const struct sst_verify_report *table) {
    report->tables++;
    report->bytes += table->bytes;
    report->partitions += table->partitions;
    report->data_blocks += table->data_blocks;
    report->entries += table->entries;
    report->tombstones += table->tombstones;
}

/* make_path: of a table or a value file. */
static enum status verify_file(struct verify_run *run, struct sst *sst,
                               void (*make_path)(char *out, const char *dir, uint64_t number)) {
    struct sst_verify_options options = {.pace = pace, .context = run};
    struct sst_verify_report report;
    struct error found;
    char path[LIMIT_PATH_BYTES];
    make_path(path, sst->context->dir, sst->meta.number);
    const char *name = strrchr(path, '/') + 1;
    uint64_t before_bytes = run->done_bytes;
    error_clear(&found);
    enum status status = sst_verify(sst, &options, &report, &found);
    if (status == STATUS_NO_MEMORY || status == STATUS_CANCELLED) {
        if (run->err != NULL && run->report->findings == 0) {
            *run->err = found;
        }
        return status;
    }
    if (sst->is_changes) {
        run->report->changes += report.entries;
        report.entries = 0;
    }
    add(run->report, &report);
    if (status != STATUS_OK) {
        verify__found(run, name, report.findings > 0 ? report.findings : 1, report.first_offset, &found);
    }
    if (sst->meta.revision_last > run->report->frontier.index) {
        (void)error_set(&found, STATUS_CORRUPT,
                        "%s: has revision %" PRIu64 ", but the manifest's frontier is only at %" PRIu64, path,
                        sst->meta.revision_last, run->report->frontier.index);
        verify__found(run, name, 1, 0, &found);
    }
    /* Whatever was passed over counts as done. */
    run->done_bytes = before_bytes;
    return pace(run, sst->meta.size_bytes)
               ? STATUS_OK
               : error_set(run->report->findings == 0 ? run->err : NULL, STATUS_CANCELLED, "verifying was stopped");
}

enum status verify__version(struct verify_run *run, const struct version *version) {
    struct error found;
    enum status status = STATUS_OK;
    run->done_bytes = 0;
    run->total_bytes = 0;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        run->total_bytes += version->bytes[level];
    }
    for (size_t i = 0; i < version->value_file_count; i++) {
        run->total_bytes += version->value_files[i]->meta.size_bytes;
    }
    run->total_bytes += version_change_bytes(version);
    if (!version_is_sound(version)) {
        (void)error_set(&found, STATUS_CORRUPT, "the manifest's tables overlap where they must not");
        verify__found(run, "", 1, 0, &found);
    }
    if (version->horizon > run->report->frontier.index) {
        (void)error_set(&found, STATUS_CORRUPT,
                        "the manifest's horizon is at %" PRIu64 ", its frontier only at %" PRIu64, version->horizon,
                        run->report->frontier.index);
        verify__found(run, "", 1, 0, &found);
    }
    if (version->changes_after > run->report->frontier.index) {
        (void)error_set(&found, STATUS_CORRUPT,
                        "the manifest has no changes up to %" PRIu64 ", but its frontier is only at %" PRIu64,
                        version->changes_after, run->report->frontier.index);
        verify__found(run, "", 1, 0, &found);
    }
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level] && status == STATUS_OK; i++) {
            status = verify_file(run, version->tables[level][i], file_path_sst);
        }
    }
    for (size_t i = 0; i < version->value_file_count && status == STATUS_OK; i++) {
        status = verify_file(run, version->value_files[i], file_path_values);
    }
    for (size_t i = 0; i < version->change_file_count && status == STATUS_OK; i++) {
        status = verify_file(run, version->change_files[i], file_path_changes);
    }
    return status;
}

/* ---- A store that is closed ---------------------------------------------------------------------------------- */

struct listing {
    const struct manifest_state *state;
    uint64_t manifest_number;
    struct storage_verify_report *report;
};

static enum status look_at(void *context, const char *name) {
    struct listing *listing = context;
    uint64_t number = 0;
    bool is_named = true;
    switch (file_name_parse(name, &number)) {
    case FILE_SST: is_named = manifest_state_find(listing->state, number) != NULL; break;
    case FILE_VALUES: is_named = manifest_state_find_values(listing->state, number) != NULL; break;
    case FILE_CHANGES: is_named = manifest_state_find_changes(listing->state, number) != NULL; break;
    case FILE_MANIFEST: is_named = number == listing->manifest_number; break;
    case FILE_CURRENT_NEW: is_named = false; break;
    case FILE_CURRENT: break;
    case FILE_OTHER: listing->report->other_files += strcmp(name, LOCK_NAME) != 0; break;
    }
    listing->report->unnamed_files += !is_named;
    return STATUS_OK;
}

/* A checkpoint that was never opened has no lock file, and nobody to be kept out. */
enum status verify__lock(struct env *env, const char *dir, struct env_file **ret_lock, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    struct env_file *file;
    file_path(path, dir, LOCK_NAME);
    enum status status = env_open(env, path, ENV_OPEN_READ, &file, err);
    if (status == STATUS_NOT_FOUND) {
        error_clear(err);
        *ret_lock = NULL;
        return STATUS_OK;
    }
    if (status != STATUS_OK) {
        return status;
    }
    env_close(file);
    return env_lock_file(env, path, ret_lock, err);
}

static enum status verify_state(struct env *env, const char *dir, const struct manifest *manifest,
                                const struct manifest_state *state, struct verify_run *run) {
    struct sst_context context = {.env = env, .dir = dir};
    struct version *version = NULL;
    struct sst *dead = NULL;
    memcpy(context.cluster_id, manifest->identity.cluster_id, sizeof context.cluster_id);
    enum status status = cache_new(env, 0, &context.cache, run->err);
    if (status == STATUS_OK) {
        status = open_files_new(env, 1, &context.files, run->err);
    }
    if (status == STATUS_OK) {
        status = storage__make_version(&context, state, &version, run->err);
    }
    if (status == STATUS_OK) {
        status = verify__version(run, version);
        version_unref(version, &dead);
    }
    while (dead != NULL) {
        struct sst *next = dead->next_dead;
        sst_free(dead);
        dead = next;
    }
    open_files_free(context.files);
    cache_free(context.cache);
    return status;
}

enum status verify__dir(struct verify_run *run, struct env *env, const char *dir) {
    struct manifest manifest = {.env = env, .dir = dir};
    struct manifest_state state;
    struct error found;
    manifest_state_init(&state, env->alloc);
    enum status status = manifest_inspect(&manifest, &state, &found);
    if (status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED || status == STATUS_INVALID || status == STATUS_IO) {
        /* Nothing is known of the tables, then. */
        verify__found(run, "", 1, 0, &found);
        status = STATUS_OK;
    } else if (status != STATUS_OK) {
        if (run->err != NULL) {
            *run->err = found;
        }
    } else {
        struct listing listing = {.state = &state, .manifest_number = manifest.number, .report = run->report};
        run->report->frontier = state.frontier;
        status = env_list_dir(env, dir, look_at, &listing, run->err);
        enum status agree = manifest_state_check_values(&state);
        if (status == STATUS_OK && agree == STATUS_CORRUPT) {
            (void)error_set(&found, agree, "%s: the manifest's tables don't agree with its value files", dir);
            verify__found(run, "", 1, 0, &found);
        } else if (status == STATUS_OK && agree != STATUS_OK) {
            status = error_set(run->err, agree, "%s: no memory to verify it", dir);
        } else if (status == STATUS_OK) {
            status = verify_state(env, dir, &manifest, &state, run);
        }
    }
    manifest_state_deinit(&state);
    return verify__result(run, status);
}

enum status storage_verify_dir(struct env *env, const char *dir, const struct storage_verify_options *options,
                               struct storage_verify_report *ret_report, struct error *err) {
    struct env_file *lock_file = NULL;
    struct verify_run run = {.report = ret_report, .err = err};
    memset(ret_report, 0, sizeof *ret_report);
    if (options != NULL) {
        run.options = *options;
    }
    if (!store_dir_fits(dir)) {
        return error_set(err, STATUS_INVALID, "the directory's name is too long");
    }
    enum status status = verify__lock(env, dir, &lock_file, err);
    if (status == STATUS_OK) {
        status = verify__dir(&run, env, dir);
    }
    env_close(lock_file);
    return status;
}
