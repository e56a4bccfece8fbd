/*
 * The whole store while nobody has it open: verify, destroy. (Repair: engine_repair.c.)
 *
 * The lock file of the tables keeps others out; it is there in every store that was ever opened. The parts of the
 * directory are looked after by those who know them: tables by storage.h, the log by wal.h; tail files are only names
 * here.
 */
#include "storage/engine_internal.h"
#include "storage/store_files.h"
#include "storage/verify.h"

#include <errno.h>
#include <stdio.h>

/* ---- Verify ------------------------------------------------------------------------------------------------------ */

void engine__fill_report(struct engine_verify_report *report, const struct storage_verify_report *from) {
    *report = (struct engine_verify_report){.revision = from->frontier.index,
                                            .tables = from->tables,
                                            .bytes = from->bytes,
                                            .entries = from->entries,
                                            .range_deletes = from->tombstones,
                                            .findings = from->findings,
                                            .unnamed_files = from->unnamed_files,
                                            .other_files = from->other_files};
}

static void on_found(void *context, const struct storage_verify_finding *finding) {
    const struct engine_verify_options *options = context;
    const struct engine_finding told = {.file = finding->file,
                                        .count = finding->count,
                                        .offset = finding->offset,
                                        .message = finding->message};
    options->found(options->context, &told);
}

enum status engine__verify_closed(const struct engine_options *options,
                                  const struct engine_verify_options *verify_options,
                                  struct engine_verify_report *ret_report, struct error *err) {
    struct engine_verify_options ours = {.found = NULL};
    struct storage_verify_report report = {.tables = 0};
    char path[LIMIT_PATH_BYTES];
    enum status status = engine__check_dir(options->dir, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (verify_options != NULL) {
        ours = *verify_options;
    }
    const struct storage_verify_options theirs = {.context = &ours, .found = ours.found != NULL ? on_found : NULL};
    engine__path_of(path, options->dir, "tables");
    status = storage_verify_dir(options->env, path, &theirs, &report, err);
    if (ret_report != NULL && (status == STATUS_OK || status == STATUS_CORRUPT)) {
        engine__fill_report(ret_report, &report);
    }
    return status;
}

/* ---- Destroy ----------------------------------------------------------------------------------------------------- */

static enum status seen_enough(void *context, const char *name) {
    (void)context;
    (void)name;
    return STATUS_CANCELLED;
}

static enum status unless_missing(enum status status, struct error *err) {
    if (status != STATUS_NOT_FOUND) {
        return status;
    }
    error_clear(err);
    return STATUS_OK;
}

/* Under the lock of the tables, while there are any. The log goes at once, by its name: a part of its segments would be
 * taken for the whole. */
static enum status remove_log(struct env *env, const char *dir, struct error *err) {
    char tables[LIMIT_PATH_BYTES];
    char log[LIMIT_PATH_BYTES];
    char gone[LIMIT_PATH_BYTES];
    struct env_file *lock = NULL;
    engine__path_of(tables, dir, "tables");
    engine__path_of(log, dir, "log");
    engine__path_of(gone, dir, "log.gone");
    enum status status = unless_missing(store_check_ours(env, tables, err), err);
    if (status == STATUS_OK) {
        status = verify__lock(env, tables, &lock, err);
    }
    if (status == STATUS_OK) {
        status = unless_missing(wal_destroy(env, gone, err), err); /* of an earlier attempt */
    }
    if (status == STATUS_OK) {
        status = unless_missing(env_rename(env, log, gone, err), err);
    }
    if (status == STATUS_OK) {
        status = env_sync_dir(env, dir, err);
    }
    if (status == STATUS_OK) {
        status = unless_missing(wal_destroy(env, gone, err), err);
    }
    if (status == STATUS_OK) {
        status = unless_missing(env_rename(env, gone, log, err), err); /* there are others' files in it */
    }
    env_close(lock);
    return status;
}

/* An interrupted checkpoint has its tables at tables.tmp. */
static enum status remove_tables(struct env *env, const char *dir, struct error *err) {
    static const char *const names[] = {"tables", "tables.tmp"};
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < sizeof names / sizeof names[0]; i++) {
        char path[LIMIT_PATH_BYTES];
        engine__path_of(path, dir, names[i]);
        status = unless_missing(storage_destroy(env, path, err), err);
    }
    return status;
}

/* The first of them last: as long as it is there, nobody takes a directory without a log for a new store. */
static enum status remove_tails(struct env *env, const char *dir, struct error *err) {
    enum status status = STATUS_OK;
    for (unsigned i = WAL_LENT_COUNT; status == STATUS_OK && i-- > 0;) {
        char path[LIMIT_PATH_BYTES];
        char name[16];
        (void)snprintf(name, sizeof name, "tail-%u", i);
        engine__path_of(path, dir, name);
        status = unless_missing(env_unlink(env, path, err), err);
    }
    return status == STATUS_OK ? env_sync_dir(env, dir, err) : status;
}

/* Log, tables, tail files: without the log, but with the first tail file, nothing opens. */
enum status engine__destroy(struct env *env, const char *dir, struct error *err) {
    struct error kept;
    enum status status = engine__check_dir(dir, err);
    if (status == STATUS_OK) {
        status = env_list_dir(env, dir, seen_enough, NULL, err); /* is it there? */
    }
    if (status == STATUS_OK || status == STATUS_CANCELLED) {
        status = remove_log(env, dir, err);
    }
    if (status == STATUS_OK) {
        status = remove_tables(env, dir, err);
    }
    if (status == STATUS_OK) {
        status = remove_tails(env, dir, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = env_unlink(env, dir, &kept);
    if (status == STATUS_OK) {
        return env_sync_parent(env, dir, err);
    }
    if (kept.sys == ENOTEMPTY || kept.sys == EEXIST || kept.sys == EBUSY) {
        return STATUS_OK; /* something that isn't ours is in it */
    }
    if (err != NULL) {
        *err = kept;
    }
    return status;
}
