/*
 * Worker jobs of the log: the next segments are prepared ahead of need, old ones deleted, and at the end all files
 * closed. A loop never waits for any of it.
 *
 *   prepare   at most one at a time, until prepared_segments are ready. A failure is told once by prepare_state and
 *             tried again every second; the log goes on with what is prepared.
 *   delete    at most one at a time, oldest first (DESIGN rules 10 and 11). A segment goes when all it ever held is at
 * or below the floor, a later segment already holds a durable group (with term, vote and membership), and no read is on
 * it. close     the last job, when nothing else is under way.
 */
#include "storage/wal_internal.h"

/* ---- Preparing -------------------------------------------------------------------------------------------------- */

struct wal__segment *wal__segment_new(struct wal *wal) {
    struct wal__segment *segment = mem_alloc_zero(wal->alloc, sizeof *segment);
    if (segment != NULL) {
        list_init(&segment->link);
        segment->end = WAL_SEGMENT_HEADER_BYTES;
        segment->written_end = WAL_SEGMENT_HEADER_BYTES;
    }
    return segment;
}

struct wal__segment_header wal__next_segment(struct wal *wal, struct wal__segment *segment, uint64_t bytes) {
    segment->number = wal->next_number++;
    segment->generation = env_random(wal->env);
    segment->bytes = bytes;
    struct wal__segment_header header = {.node_id = wal->options.node_id,
                                         .number = segment->number,
                                         .generation = segment->generation,
                                         .bytes = bytes,
                                         .filled_bytes = bytes};
    memcpy(header.cluster_id, wal->options.cluster_id, WAL_CLUSTER_ID_BYTES);
    if (wal->options.mode == WAL_MODE_BLOCKING || wal->lends) {
        header.filled_bytes = WAL_FIRST_RECORDS_OFFSET;
        segment->filled_end = WAL_FIRST_RECORDS_OFFSET;
    }
    return header;
}

static void prepare_failed(struct wal *wal) {
    wal->prepare.failing = true;
    if (wal->closing || wal->failed) {
        return;
    }
    /* If the timer can't be armed, the next append that waits for space tries again. */
    (void)!env_timer_arm(&wal->prepare_timer, env_now_us(wal->loop) + WAL_PREPARE_RETRY_US);
    wal__tell(wal);
}

static void prepare_run(struct env_work *work) {
    struct wal__prepare_job *job = CONTAINER_OF(work, struct wal__prepare_job, work);
    job->status = wal__segment_create(job->wal->env, job->wal->dir, &job->header, &job->segment->file, &job->error);
}

static void prepare_done(struct env_work *work) {
    struct wal__prepare_job *job = CONTAINER_OF(work, struct wal__prepare_job, work);
    struct wal *wal = job->wal;
    struct wal__segment *segment = job->segment;
    job->busy = false;
    job->segment = NULL;
    if (job->status != STATUS_OK) {
        mem_free(wal->alloc, segment);
        prepare_failed(wal);
    } else {
        list_push_back(&wal->prepared, &segment->link);
        wal->prepared_count++;
        job->failing = false;
        wal__tell(wal);
        wal__prepare_more(wal);
        wal__wake_writer(wal);
        bool waits = wal->starved || wal->wants_segment || wal__turn_is_due(wal);
        if (wal->options.mode == WAL_MODE_BLOCKING && waits && !wal->closing && !wal->failed) {
            wal->starved = false;
            wal->wants_segment = false;
            wal->options.writable(wal->options.context);
        }
    }
    wal__close_if_quiet(wal);
}

/* Blocking mode: reserving space is quick, so it isn't held long before it is used. */
static bool is_early(const struct wal *wal) {
    return wal->options.mode == WAL_MODE_BLOCKING && !wal->starved && !wal->wants_segment && !wal->lends &&
           wal->active != NULL && wal->active->end < wal->active->bytes - wal->active->bytes / 4;
}

void wal__prepare_more(struct wal *wal) {
    struct wal__prepare_job *job = &wal->prepare;
    if (job->busy || wal->closing || wal->failed || wal->prepared_count >= wal->options.prepared_segments ||
        env_timer_is_armed(&wal->prepare_timer) || is_early(wal)) {
        return;
    }
    struct wal__segment *segment = wal__segment_new(wal);
    if (segment == NULL) {
        (void)error_set(&job->error, STATUS_NO_MEMORY, "no memory to prepare a log segment");
        prepare_failed(wal);
        return;
    }
    job->header = wal__next_segment(wal, segment, wal->options.segment_bytes);
    job->segment = segment;
    job->busy = true;
    env_work_submit(wal->env, ENV_WORK_SHORT, &job->work);
}

static void prepare_again(struct env_timer *timer) {
    wal__prepare_more(CONTAINER_OF(timer, struct wal, prepare_timer));
}

/* ---- Deleting --------------------------------------------------------------------------------------------------- */

/* What is reserved behind the end is of no use to the next life, which begins a segment of its own. */
static void give_back(const struct wal *wal, const struct wal__segment *segment) {
    struct error ignored;
    if (wal->options.mode == WAL_MODE_BLOCKING && !wal->failed && segment->end < segment->bytes) {
        (void)!env_truncate(segment->file, segment->end, &ignored);
    }
}

/* Stops at the first failure; what is left stays in the list, to be tried again. */
static void delete_run(struct env_work *work) {
    struct wal__delete_job *job = CONTAINER_OF(work, struct wal__delete_job, work);
    struct wal *wal = job->wal;
    struct error ignored;
    enum status status = STATUS_OK;
    bool removed = false;
    LIST_FOREACH (node, &job->segments) {
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        if (!job->close_all) {
            char path[LIMIT_PATH_BYTES];
            wal__segment_path(path, wal->dir, segment->number, "");
            status = env_unlink(wal->env, path, &ignored);
            if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
                break;
            }
            removed = true;
        }
        if (job->close_all && segment == wal->active) {
            give_back(wal, segment);
        }
        env_close(segment->file);
        segment->file = NULL;
    }
    if (removed) {
        (void)!env_sync_dir(wal->env, wal->dir,
                            &ignored); /* else they come back after a crash, and are deleted again */
    }
}

static void delete_done(struct env_work *work) {
    struct wal__delete_job *job = CONTAINER_OF(work, struct wal__delete_job, work);
    struct wal *wal = job->wal;
    job->busy = false;
    LIST_FOREACH (node, &job->segments) {
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        list_remove(node);
        if (segment->file != NULL) {
            list_push_back(&wal->doomed, node);
        } else {
            mem_free(wal->alloc, segment->large);
            mem_free(wal->alloc, segment);
            wal->stats.segments_deleted++;
        }
    }
    if (job->close_all) {
        void (*closed)(void *context) = wal->closed;
        void *context = wal->closed_context;
        wal__free(wal);
        closed(context);
        return;
    }
    wal__delete_more(wal);
    wal__close_if_quiet(wal);
}

void wal__delete_more(struct wal *wal) {
    struct wal__delete_job *job = &wal->delete_job;
    if (job->busy || wal->closing || wal->failed) {
        return;
    }
    struct list found;
    list_init(&found);
    LIST_FOREACH (node, &wal->segments) {
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        if (segment == wal->durable_segment || segment->readers > 0 || segment->max_index > wal->floor_index) {
            break;
        }
        CHECK(segment != wal->active);
        wal__index_drop_segment(&wal->index, segment);
        list_remove(node);
        list_push_back(&found, node);
    }
    if (list_is_empty(&found)) {
        return;
    }
    uint64_t first_index = wal->index.count > 0 ? wal__index_at(&wal->index, 0)->first_index : wal->sealed_index + 1;
    CHECK(first_index >= wal->first_index);
    wal->first_index = first_index;
    list_splice_back(&job->segments, &wal->doomed);
    list_splice_back(&job->segments, &found);
    job->busy = true;
    env_work_submit(wal->env, ENV_WORK_SHORT, &job->work);
}

void wal_set_floor(struct wal *wal, uint64_t flushed_index, uint64_t pin_index) {
    uint64_t floor_index = flushed_index < pin_index ? flushed_index : pin_index;
    CHECK(floor_index <= wal->commit_index);
    if (floor_index > wal->floor_index) {
        wal->floor_index = floor_index;
        wal__delete_more(wal);
    }
}

/* ---- Closing ---------------------------------------------------------------------------------------------------- */

bool wal__is_quiet(const struct wal *wal) {
    if (wal->writing || wal->prepare.busy || wal->delete_job.busy) {
        return false;
    }
    for (size_t i = 0; i < WAL_READS_MAX; i++) {
        if (wal->fetches[i].busy) {
            return false;
        }
    }
    return true;
}

void wal__close_if_quiet(struct wal *wal) {
    if (!wal->closing || !wal__is_quiet(wal)) {
        return;
    }
    struct wal__delete_job *job = &wal->delete_job;
    job->close_all = true;
    list_splice_back(&job->segments, &wal->doomed);
    list_splice_back(&job->segments, &wal->segments);
    list_splice_back(&job->segments, &wal->prepared);
    job->busy = true;
    env_work_submit(wal->env, ENV_WORK_SHORT, &job->work);
}

void wal__jobs_init(struct wal *wal) {
    wal->prepare.wal = wal;
    wal->prepare.work = (struct env_work){.run = prepare_run, .done = prepare_done, .loop = wal->loop};
    wal->delete_job.wal = wal;
    wal->delete_job.work = (struct env_work){.run = delete_run, .done = delete_done, .loop = wal->loop};
    list_init(&wal->delete_job.segments);
    env_timer_init(&wal->prepare_timer, wal->loop, prepare_again);
}
