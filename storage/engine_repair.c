/*
 * Repair of the whole store while nobody has it open.
 *
 *   tables (repair.h) -> open; damaged? -> a copy of the log to log.lost-N -> open with the log's good part (wal.h,
 *   heals); there is none? -> a new log where the tables end -> open -> remove what isn't part of the log any more
 *
 * A log that is damaged in the middle goes on with what stands before the damage, or, if the tables have all that is
 * damaged, with what is behind it. What stands behind a hole isn't used: the writes before it are missing, and a store
 * is a prefix of what was written.
 *
 * Tail files stay: of what is in them only records count that continue the log and are of its newest term. These are
 * the very ones that were written there, so they may even fill the log up again.
 *
 * It is a copy that is kept, not another name: the log cuts files of its own that it goes on with.
 *
 * The log remembers where it once ended until something is written in the new term. Nobody votes by it here.
 */
#include "storage/engine_internal.h"
#include "storage/repair.h"
#include "storage/store_files.h"

#include <inttypes.h>
#include <stdio.h>

enum { LOGS_LOST_MAX = 1000 };

static const char *const faulty_suffix = ".log.faulty"; /* FORMAT-wal.md */

/* ---- Losses ------------------------------------------------------------------------------------------------------ */

struct losses {
    void (*lost)(void *context, const struct engine_loss *loss);
    void *context;
};

static void on_lost(void *context, const struct storage_loss *loss) {
    const struct losses *losses = context;
    const struct engine_loss told = {.file = loss->file,
                                     .offset = loss->offset,
                                     .after = loss->after,
                                     .until = loss->until,
                                     .message = loss->message};
    losses->lost(losses->context, &told);
}

static void tell_log_lost(const struct losses *losses, const struct engine__salvage *salvage) {
    char message[ERROR_MESSAGE_BYTES_MAX];
    const struct engine_loss told = {.message = message};
    if (losses->lost == NULL || salvage->lost_first == 0) {
        return;
    }
    (void)snprintf(message, sizeof message, "writes %" PRIu64 " to %" PRIu64 " are lost: the log was damaged at %s",
                   salvage->lost_first, salvage->lost_last,
                   salvage->where[0] != '\0' ? salvage->where : "a place that an earlier attempt found");
    losses->lost(losses->context, &told);
}

/* ---- Tables ------------------------------------------------------------------------------------------------------ */

static enum status repair_tables(const struct engine_options *options, struct losses *losses,
                                 struct storage_repair_report *ret_report, struct error *err) {
    struct storage_options storage;
    char path[LIMIT_PATH_BYTES];
    engine__path_of(path, options->dir, "tables");
    storage_options_init(&storage);
    engine__fill_storage(&storage, options);
    storage.dir = path;
    const struct storage_repair_options repair = {.storage = &storage,
                                                  .context = losses,
                                                  .lost = losses->lost != NULL ? on_lost : NULL};
    return storage_repair(&repair, ret_report, err);
}

/* ---- What is kept of a damaged log ------------------------------------------------------------------------------ */

static enum status seen_enough(void *context, const char *name) {
    (void)context;
    (void)name;
    return STATUS_CANCELLED;
}

/* The first name log.lost-N that is free. */
static enum status free_name(const struct engine_options *options, char path[LIMIT_PATH_BYTES], struct error *err) {
    enum status status = STATUS_OK;
    for (unsigned i = 0; i < LOGS_LOST_MAX; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "log.lost-%u", i);
        engine__path_of(path, options->dir, name);
        status = env_list_dir(options->env, path, seen_enough, NULL, err);
        if (status != STATUS_OK && status != STATUS_CANCELLED) {
            break;
        }
    }
    if (status == STATUS_NOT_FOUND) {
        error_clear(err);
        return STATUS_OK;
    }
    return status == STATUS_OK || status == STATUS_CANCELLED
               ? error_set(err, STATUS_EXISTS, "%s: %d logs were kept already", options->dir, LOGS_LOST_MAX)
               : status;
}

struct copying {
    struct env *env;
    const char *from;
    const char *to;
    struct error *err;
};

/* Of a file that may be anybody's. */
static enum status path_of_found(char path[LIMIT_PATH_BYTES], const char *dir, const char *name, struct error *err) {
    int len = snprintf(path, LIMIT_PATH_BYTES, "%s/%s", dir, name);
    return len > 0 && len < LIMIT_PATH_BYTES
               ? STATUS_OK
               : error_set(err, STATUS_INVALID, "move %.40s... away: its path is too long, in %s", name, dir);
}

static enum status copy_one(void *context, const char *name) {
    const struct copying *copying = context;
    char from[LIMIT_PATH_BYTES];
    char to[LIMIT_PATH_BYTES];
    uint64_t copied_bytes;
    enum status status = path_of_found(from, copying->from, name, copying->err);
    if (status == STATUS_OK) {
        status = path_of_found(to, copying->to, name, copying->err);
    }
    return status == STATUS_OK ? store_copy(copying->env, from, to, NULL, &copied_bytes, copying->err) : status;
}

/* Fine if there is none. */
static enum status keep_log(const struct engine_options *options, struct error *err) {
    char from[LIMIT_PATH_BYTES];
    char to[LIMIT_PATH_BYTES];
    struct copying copying = {.env = options->env, .from = from, .to = to, .err = err};
    engine__path_of(from, options->dir, "log");
    enum status status = env_list_dir(options->env, from, seen_enough, NULL, err);
    if (status == STATUS_NOT_FOUND || status == STATUS_OK) {
        error_clear(err);
        return STATUS_OK;
    }
    if (status == STATUS_CANCELLED) {
        error_clear(err);
        status = free_name(options, to, err);
    }
    if (status == STATUS_OK) {
        status = env_mkdir(options->env, to, err);
    }
    if (status == STATUS_OK) {
        status = env_list_dir(options->env, from, copy_one, &copying, err);
    }
    if (status == STATUS_OK) {
        status = env_sync_dir(options->env, to, err);
    }
    return status == STATUS_OK ? env_sync_dir(options->env, options->dir, err) : status;
}

static enum status remove_faulty(void *context, const char *name) {
    const struct copying *copying = context;
    char path[LIMIT_PATH_BYTES];
    size_t len = strlen(name);
    size_t suffix = strlen(faulty_suffix);
    if (len <= suffix || strcmp(name + len - suffix, faulty_suffix) != 0) {
        return STATUS_OK;
    }
    enum status status = path_of_found(path, copying->from, name, copying->err);
    return status == STATUS_OK ? env_unlink(copying->env, path, copying->err) : status;
}

/* ---- The log ----------------------------------------------------------------------------------------------------- */

static enum status open_and_close(const struct engine_options *options, bool salvages,
                                  struct engine__salvage *ret_salvage, struct error *err) {
    struct engine *engine = NULL;
    *ret_salvage = (struct engine__salvage){.is_strict = !salvages};
    enum status status = engine__open_salvaging(options, ret_salvage, &engine, err);
    if (status == STATUS_OK) {
        engine_close(engine);
    }
    return status;
}

static enum status replace_log(const struct engine_options *options, const struct storage_frontier *frontier,
                               struct error *err) {
    char path[LIMIT_PATH_BYTES];
    engine__path_of(path, options->dir, "log");
    enum status status = wal_destroy(options->env, path, err);
    if (status == STATUS_NOT_FOUND) {
        error_clear(err);
        status = STATUS_OK;
    }
    return status == STATUS_OK ? engine__make_log(options->env, path, frontier, frontier->term + 1, err) : status;
}

static enum status salvage_log(const struct engine_options *options, const struct storage_frontier *frontier,
                               struct engine__salvage *ret_salvage, struct error *err) {
    enum status status = keep_log(options, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = open_and_close(options, true, ret_salvage, err);
    if (status == STATUS_CORRUPT) {
        error_clear(err);
        status = replace_log(options, frontier, err);
        if (status == STATUS_OK) {
            status = open_and_close(options, true, ret_salvage, err);
        }
        ret_salvage->was_replaced = true;
    }
    ret_salvage->was_damaged = true;
    return status;
}

static enum status repair_log(const struct engine_options *options, const struct storage_frontier *frontier,
                              struct engine__salvage *ret_salvage, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    struct copying copying = {.env = options->env, .from = path, .err = err};
    enum status status = open_and_close(options, false, ret_salvage, err);
    if (status == STATUS_CORRUPT) {
        error_clear(err);
        status = salvage_log(options, frontier, ret_salvage, err);
    }
    engine__path_of(path, options->dir, "log");
    return status == STATUS_OK ? env_list_dir(options->env, path, remove_faulty, &copying, err) : status;
}

/* ---- The whole --------------------------------------------------------------------------------------------------- */

enum status engine__repair(const struct engine_options *options,
                           void (*lost)(void *context, const struct engine_loss *loss), void *context,
                           struct engine_repair_report *ret_report, struct error *err) {
    struct losses losses = {.lost = lost, .context = context};
    struct storage_repair_report tables = {.was_sound = false};
    struct engine__salvage salvage = {.was_damaged = false};
    struct engine_options complete = *options;
    complete.create_if_missing = false;
    complete.error_if_exists = false;
    enum status status = engine__check_dir(options->dir, err);
    if (status == STATUS_OK) {
        status = repair_tables(&complete, &losses, &tables, err);
    }
    if (status == STATUS_OK) {
        status = repair_log(&complete, &tables.frontier, &salvage, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    tell_log_lost(&losses, &salvage);
    if (ret_report != NULL) {
        *ret_report = (struct engine_repair_report){.tables_were_sound = tables.was_sound,
                                                    .log_was_sound = !salvage.was_damaged,
                                                    .log_was_replaced = salvage.was_replaced,
                                                    .log_lost_first = salvage.lost_first,
                                                    .log_lost_last = salvage.lost_last,
                                                    .manifest_used = tables.manifest_used,
                                                    .revision = salvage.revision,
                                                    .entries = tables.entries,
                                                    .tables_written = tables.tables_written,
                                                    .tables_lost = tables.tables_lost,
                                                    .pieces_lost = tables.pieces_lost,
                                                    .values_lost = tables.values_lost,
                                                    .value_files_damaged = tables.value_files_damaged};
    }
    return status;
}
