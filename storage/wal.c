/*
 * The log as an object: opening, starting, closing, news for the owner, getters. What happens in between is in the
 * other wal_*.c files; wal_internal.h lists them.
 */
#include "storage/wal_internal.h"

enum {
    RESERVE_BYTES_MIN = 8 * WAL_BLOCK_BYTES,
    RESERVE_BYTES_MAX = 64 * WAL_BLOCK_BYTES,
    RESERVE_PART = 64 /* of a segment */
};

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

static uint64_t reserve_bytes(uint64_t segment_bytes) {
    uint64_t part = segment_bytes / RESERVE_PART / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES;
    if (part < RESERVE_BYTES_MIN) {
        return RESERVE_BYTES_MIN;
    }
    return part > RESERVE_BYTES_MAX ? RESERVE_BYTES_MAX : part;
}

static enum status check_options(const struct wal_options *options, struct error *err) {
    CHECK(options->env != NULL && options->loop != NULL && options->dir != NULL);
    CHECK(options->failed != NULL && options->first_membership.len <= LIMIT_MEMBERSHIP_BYTES);
    CHECK(options->mode == WAL_MODE_BLOCKING ? options->writable != NULL : options->synced != NULL);
    if (strlen(options->dir) + WAL_NAME_BYTES >= LIMIT_PATH_BYTES) {
        return error_set(err, STATUS_INVALID, "the log's path is longer than %d bytes",
                         LIMIT_PATH_BYTES - WAL_NAME_BYTES);
    }
    if (options->entry_payload_bytes_max == 0 || options->entry_payload_bytes_max > LIMIT_ENTRY_PAYLOAD_BYTES) {
        return error_set(err, STATUS_INVALID, "an entry of at most %u bytes: 1 to %u are possible",
                         options->entry_payload_bytes_max, LIMIT_ENTRY_PAYLOAD_BYTES);
    }
    if (options->prepared_segments == 0) {
        return error_set(err, STATUS_INVALID, "at least one log segment must be kept prepared");
    }
    uint64_t entry =
        wal__padded(WAL_GROUP_HEADER_BYTES + WAL_RECORD_HEADER_BYTES + (uint64_t)options->entry_payload_bytes_max);
    uint64_t entries = options->mode == WAL_MODE_BLOCKING ? 1 : 4;
    uint64_t least = WAL_FIRST_RECORDS_OFFSET + reserve_bytes(options->segment_bytes) + entries * entry;
    if (options->segment_bytes % WAL_BLOCK_BYTES != 0 || options->segment_bytes < least) {
        return error_set(err, STATUS_INVALID,
                         "a log segment of %llu bytes: it must be a multiple of %d, and hold %llu of the largest "
                         "entries, so at least "
                         "%llu",
                         (unsigned long long)options->segment_bytes, WAL_BLOCK_BYTES, (unsigned long long)entries,
                         (unsigned long long)least);
    }
    uint64_t room = options->segment_bytes - WAL_FIRST_RECORDS_OFFSET - reserve_bytes(options->segment_bytes);
    if (options->group_bytes_max < WAL_BLOCK_BYTES || options->group_bytes_max > room) {
        return error_set(err, STATUS_INVALID, "log groups of at most %u bytes: %d to %llu are possible",
                         options->group_bytes_max, WAL_BLOCK_BYTES, (unsigned long long)room);
    }
    return STATUS_OK;
}

static void tell(struct env_task *task);

static struct wal *wal_new(const struct wal_options *options) {
    struct wal *wal = mem_alloc_zero(options->env->alloc, sizeof *wal);
    if (wal == NULL) {
        return NULL;
    }
    wal->env = options->env;
    wal->alloc = options->env->alloc;
    wal->loop = options->loop;
    wal->opened_us = env_clock_us(wal->env);
    wal->options = *options;
    strcpy(wal->dir, options->dir); /* its length was checked */
    wal->options.dir = wal->dir;
    wal->group_bytes_max = options->group_bytes_max / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES;
    wal->reserve_bytes = reserve_bytes(options->segment_bytes);
    list_init(&wal->pending);
    list_init(&wal->spares);
    list_init(&wal->segments);
    list_init(&wal->prepared);
    list_init(&wal->spare_segments);
    list_init(&wal->doomed);
    list_init(&wal->faulty);
    wal__pool_init(&wal->pool, wal->alloc);
    wal__write_init(wal);
    wal__jobs_init(wal);
    wal__reads_init(wal);
    env_task_init(&wal->tell_task, tell);
    wal->block = mem_alloc_aligned(wal->alloc, WAL_BLOCK_BYTES, WAL_BLOCK_BYTES);
    if (wal->block == NULL) {
        mem_free(wal->alloc, wal);
        return NULL;
    }
    return wal;
}

static void free_groups(struct wal *wal, struct list *groups) {
    LIST_FOREACH (node, groups) {
        list_remove(node);
        struct wal__group *group = LIST_ENTRY(node, struct wal__group, link);
        if (!group->cached) { /* else it goes with the cache */
            wal__group_release(&wal->pool, group);
        }
    }
}

/* Files are closed already, nothing is under way. */
void wal__free(struct wal *wal) {
    CHECK(list_is_empty(&wal->segments) && list_is_empty(&wal->prepared) && list_is_empty(&wal->doomed));
    CHECK(list_is_empty(&wal->spare_segments) && list_is_empty(&wal->faulty) && !wal->writing && !wal->prepare.busy);
    free_groups(wal, &wal->pending);
    free_groups(wal, &wal->spares);
    wal__cache_deinit(wal);
    wal__pool_deinit(&wal->pool);
    mem_free(wal->alloc, wal->index.entries);
    mem_free(wal->alloc, wal->block);
    mem_free(wal->alloc, wal);
}

static void close_files(struct wal *wal, struct list *segments) {
    LIST_FOREACH (node, segments) {
        list_remove(node);
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        wal__segment_close(segment);
        mem_free(wal->alloc, segment);
    }
}

/* The directory itself must survive a crash, whoever made it. */
enum status wal__make_dir(struct env *env, const char *dir, struct error *err) {
    enum status status = env_mkdir(env, dir, err);
    if (status != STATUS_OK && status != STATUS_EXISTS) {
        return status;
    }
    return env_sync_parent(env, dir, err);
}

enum status wal_open(const struct wal_options *options, const struct wal_frontier *frontier, struct wal **ret_wal,
                     struct wal_recovered *ret_recovered, struct error *err) {
    enum status status = check_options(options, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct wal *wal = wal_new(options);
    if (wal == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to open the log");
    }
    struct wal_recovered recovered = {.term = 0};
    status = wal__make_dir(wal->env, wal->dir, err);
    if (status == STATUS_OK) {
        status = wal__recover(wal, frontier, &recovered, err);
    }
    if (status != STATUS_OK) {
        close_files(wal, &wal->segments);
        close_files(wal, &wal->prepared);
        close_files(wal, &wal->faulty);
        wal__free(wal);
        return status;
    }
    error_clear(err); /* of what was tried and overcome */
    *ret_wal = wal;
    *ret_recovered = recovered;
    return STATUS_OK;
}

enum status wal_start(struct wal *wal, struct error *err) {
    CHECK(!wal->started && !wal->closing);
    CHECK(wal->options.mode == WAL_MODE_BLOCKING || env_on_loop(wal->loop));
    if (wal->failed) {
        return error_set(err, STATUS_FAILED, "%s", wal->failure.message);
    }
    wal->started = true;
    wal__write_started(wal);
    wal__prepare_more(wal);
    return STATUS_OK;
}

void wal_close(struct wal *wal, void (*closed)(void *context), void *context) {
    CHECK(!wal->closing && wal->appending == NULL && closed != NULL);
    wal->closing = true;
    wal->closed = closed;
    wal->closed_context = context;
    env_task_cancel(&wal->flush_task);
    env_task_cancel(&wal->tell_task);
    env_timer_cancel(&wal->mark_timer);
    env_timer_cancel(&wal->prepare_timer);
    wal__reads_abandon(wal);
    wal__close_if_quiet(wal);
}

/* ---- News ------------------------------------------------------------------------------------------------------- */

static void tell(struct env_task *task) {
    struct wal *wal = CONTAINER_OF(task, struct wal, tell_task);
    struct wal__prepare_job *prepare = &wal->prepare;
    if (wal->failed && !wal->told_failed) {
        wal->told_failed = true;
        wal->options.failed(wal->options.context, &wal->failure);
    }
    if (!wal->closing && prepare->failing != prepare->told_failing) {
        prepare->told_failing = prepare->failing;
        if (wal->options.prepare_state != NULL) {
            wal->options.prepare_state(wal->options.context, prepare->failing ? &prepare->error : NULL);
        }
    }
}

void wal__tell(struct wal *wal) {
    bool news = (wal->failed && !wal->told_failed) || wal->prepare.failing != wal->prepare.told_failing;
    if (news && !wal->closing) {
        env_defer(wal->loop, ENV_STAGE_PROCESS, &wal->tell_task);
    }
}

/* ---- Getters ---------------------------------------------------------------------------------------------------- */

uint64_t wal_first_index(const struct wal *wal) { return wal->first_index; }
uint64_t wal_last_index(const struct wal *wal) { return wal->last_index; }
uint64_t wal_synced_index(const struct wal *wal) { return wal->synced_index; }
uint64_t wal_written_bytes(const struct wal *wal) { return wal->stats.written_bytes; }
