/*
 * Worker jobs of the log: the next segments are prepared ahead of need, old ones deleted, and at the end all files
 * closed. A loop never waits for any of it.
 *
 *   prepare   at most one at a time, until prepared_segments are ready: out of a spare one if there is any, else a new
 *             file. A failure is told once by prepare_state and tried again every second; the log goes on with what is
 *             prepared.
 *   delete    at most one at a time, oldest first (DESIGN rules 10 and 11). A segment goes when all it ever held is at
 *             or below the floor, a later segment already holds a durable group (with term, vote and membership), and
 *             no read is on it. Up to spare_segments aren't removed but set aside, to be used again.
 *   close     the last job, when nothing else is under way.
 *
 * What is used again (hazard 37). Only segments that this life of the log made, or found prepared and empty, in full
 * size, and that aren't lent to the store: so nobody has their bytes under another name, whatever earlier lives did.
 * One is overwritten only after the sync of the directory that took it out of the log. A directory whose sync failed
 * may call durable what isn't, also in the next call, or in the other job's: after any such failure this life uses
 * nothing again. A prepare job is the only one that overwrites, and starts when the last one's failure is known.
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
    segment->own = true;
    struct wal__segment_header header = {.node_id = wal->options.node_id,
                                         .number = segment->number,
                                         .generation = segment->generation,
                                         .bytes = bytes,
                                         .filled_bytes = bytes};
    memcpy(header.cluster_id, wal->options.cluster_id, WAL_CLUSTER_ID_BYTES);
    if (wal->options.mode == WAL_MODE_BLOCKING || wal->lends) {
        header.filled_bytes = WAL_FIRST_RECORDS_OFFSET;
        if (segment->filled_end < WAL_FIRST_RECORDS_OFFSET) {
            segment->filled_end = WAL_FIRST_RECORDS_OFFSET;
        }
    }
    return header;
}

/* A spare one as an empty one, its old number in *ret_old_number; else a new one, and 0. NULL: no memory. */
static struct wal__segment *take_segment(struct wal *wal, uint64_t *ret_old_number) {
    struct list *node = list_pop_front(&wal->spare_segments);
    *ret_old_number = 0;
    if (node == NULL) {
        return wal__segment_new(wal);
    }
    CHECK(wal->spare_segment_count > 0);
    wal->spare_segment_count--;
    struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
    CHECK(segment->aside && segment->own && segment->lent == 0 && segment->readers == 0);
    *ret_old_number = segment->number;
    *segment =
        (struct wal__segment){.end = WAL_SEGMENT_HEADER_BYTES,
                              .written_end = WAL_SEGMENT_HEADER_BYTES,
                              .filled_end = segment->filled_end > segment->end ? segment->filled_end : segment->end,
                              .recycled = true};
    list_init(&segment->link);
    return segment;
}

void wal_give_space(struct wal *wal) {
    if (wal->spare_segment_count > 0) {
        wal->spare_segment_count = 0;
        wal->giving_space = true;
        list_splice_back(&wal->doomed, &wal->spare_segments);
        wal__delete_more(wal);
    }
}

/* Nothing is used again from now on; what is set aside goes. */
static void stop_recycling(struct wal *wal) {
    wal->never_recycle = true;
    wal_give_space(wal);
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
    struct env *env = job->wal->env;
    const char *dir = job->wal->dir;
    struct env_file **file = &job->segment->file;
    job->status = job->old_number != 0 ? wal__segment_reuse(env, dir, job->old_number, &job->header, file, &job->error)
                                       : wal__segment_create(env, dir, &job->header, file, &job->error);
    if (job->status == STATUS_OK) {
        wal__segment_open_cached(job->wal, job->segment);
    }
}

static void prepare_done(struct env_work *work) {
    struct wal__prepare_job *job = CONTAINER_OF(work, struct wal__prepare_job, work);
    struct wal *wal = job->wal;
    struct wal__segment *segment = job->segment;
    job->busy = false;
    job->segment = NULL;
    if (job->status != STATUS_OK) {
        mem_free(wal->alloc, segment);
        if (job->status != STATUS_NO_SPACE && job->status != STATUS_NO_MEMORY) {
            stop_recycling(wal);
        }
        prepare_failed(wal);
    } else {
        list_push_back(&wal->prepared, &segment->link);
        wal->prepared_count++;
        wal->stats.segments_recycled += segment->recycled;
        wal->stats.segments_filled += !segment->recycled;
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
    struct wal__segment *segment = take_segment(wal, &job->old_number);
    if (segment == NULL) {
        (void)error_set(&job->error, STATUS_NO_MEMORY, "no memory to prepare a log segment");
        prepare_failed(wal);
        return;
    }
    job->header = wal__next_segment(wal, segment, wal->options.segment_bytes);
    job->header.recycled = segment->recycled;
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

/* Takes its name away, or gives it one that is no segment's. */
static enum status remove_name(struct wal *wal, struct wal__segment *segment, struct error *err) {
    if (segment->keep && !segment->aside) {
        enum status status = wal__segment_set_aside(wal->env, wal->dir, segment->number, err);
        segment->aside = status == STATUS_OK;
        return status;
    }
    char path[LIMIT_PATH_BYTES];
    wal__segment_path(path, wal->dir, segment->number,
                      segment->aside    ? ".tmp"
                      : segment->faulty ? WAL_FAULTY_SUFFIX
                                        : "");
    enum status status = env_unlink(wal->env, path, err);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

/* The old names of what was set aside may come back: it is given up, its bytes as they are. If a name can't be removed
 * the next opening does it. */
static void give_up_aside(struct wal *wal, struct list *segments) {
    struct error ignored;
    LIST_FOREACH (node, segments) {
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        if (segment->gone && segment->keep) {
            segment->keep = false;
            (void)!remove_name(wal, segment, &ignored);
        }
    }
}

/* Stops at the first failure; what is left stays in the list, to be tried again. */
static void delete_run(struct env_work *work) {
    struct wal__delete_job *job = CONTAINER_OF(work, struct wal__delete_job, work);
    struct wal *wal = job->wal;
    struct error ignored;
    bool changed = false;
    job->status = STATUS_OK;
    LIST_FOREACH (node, &job->segments) {
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        job->status = remove_name(wal, segment, &ignored);
        if (job->status != STATUS_OK) {
            break;
        }
        changed = true;
        segment->gone = true;
        wal__segment_close(segment);
    }
    enum status status = changed ? env_sync_dir(wal->env, wal->dir, &ignored) : STATUS_OK;
    if (status != STATUS_OK) {
        /* What was removed may come back after a crash, and is removed again then. */
        job->status = status;
        give_up_aside(wal, &job->segments);
    }
}

/* All files; spare ones are of no use to the next life. */
static void close_run(struct env_work *work) {
    struct wal__delete_job *job = CONTAINER_OF(work, struct wal__delete_job, work);
    struct wal *wal = job->wal;
    struct error ignored;
    LIST_FOREACH (node, &job->segments) {
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        if (segment->aside && !wal->failed) {
            segment->keep = false;
            (void)!remove_name(wal, segment, &ignored);
        }
        if (segment == wal->active) {
            give_back(wal, segment);
        }
        wal__segment_close(segment);
    }
}

static void close_done(struct env_work *work) {
    struct wal__delete_job *job = CONTAINER_OF(work, struct wal__delete_job, work);
    struct wal *wal = job->wal;
    job->busy = false;
    LIST_FOREACH (node, &job->segments) {
        list_remove(node);
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        wal__share_forget(wal, segment);
        mem_free(wal->alloc, segment);
    }
    void (*closed)(void *context) = wal->closed;
    void *context = wal->closed_context;
    wal__free(wal);
    closed(context);
}

static void delete_done(struct env_work *work) {
    struct wal__delete_job *job = CONTAINER_OF(work, struct wal__delete_job, work);
    struct wal *wal = job->wal;
    job->busy = false;
    LIST_FOREACH (node, &job->segments) {
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        list_remove(node);
        if (!segment->gone) {
            list_push_back(&wal->doomed, node);
            continue;
        }
        wal->stats.segments_deleted += !segment->aside || segment->keep; /* a spare one was counted before */
        if (segment->keep) {
            segment->gone = false;
            list_push_back(&wal->spare_segments, node);
            wal->spare_segment_count++;
        } else {
            mem_free(wal->alloc, segment);
        }
    }
    if (job->status != STATUS_OK || wal->never_recycle) {
        stop_recycling(wal);
    }
    wal__delete_more(wal);
    wal__close_if_quiet(wal);
}

/* In blocking mode only small groups gain by space that was written before: no room is held for others. */
static bool is_worth_keeping(const struct wal *wal, const struct wal__segment *segment) {
    return wal->options.mode == WAL_MODE_LOOP || segment->small_bytes >= segment->bytes / 4;
}

static bool may_be_kept(const struct wal *wal, const struct wal__segment *segment) {
    return segment->own && segment->lent == 0 && !segment->aside && !wal->never_recycle &&
           segment->bytes == wal->options.segment_bytes && is_worth_keeping(wal, segment);
}

/* Of those that the job is to remove, as many as may be kept instead. */
static void choose_spares(struct wal *wal, struct list *segments) {
    uint32_t count = wal->spare_segment_count;
    LIST_FOREACH (node, segments) {
        struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        segment->keep = may_be_kept(wal, segment) && count < wal->options.spare_segments;
        count += segment->keep;
    }
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
        wal__share_forget(wal, segment);
        wal__index_drop_segment(&wal->index, segment);
        list_remove(node);
        list_push_back(&found, node);
    }
    if (list_is_empty(&found) && !wal->giving_space) {
        return;
    }
    wal->giving_space = false;
    uint64_t first_index = wal->index.count > 0 ? wal__index_at(&wal->index, 0)->first_index : wal->sealed_index + 1;
    CHECK(first_index >= wal->first_index);
    wal->first_index = first_index;
    list_splice_back(&job->segments, &wal->doomed);
    list_splice_back(&job->segments, &found);
    choose_spares(wal, &job->segments);
    job->busy = true;
    env_work_submit(wal->env, ENV_WORK_SHORT, &job->work);
}

void wal_set_floor(struct wal *wal, uint64_t flushed_index, uint64_t pin_index) {
    uint64_t floor_index = flushed_index < pin_index ? flushed_index : pin_index;
    CHECK(floor_index <= wal->commit_index);
    bool gives_more = floor_index > wal->floor_index;
    wal->floor_index = floor_index;
    if (gives_more) {
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
    job->work.run = close_run;
    job->work.done = close_done;
    list_splice_back(&job->segments, &wal->doomed);
    list_splice_back(&job->segments, &wal->segments);
    list_splice_back(&job->segments, &wal->prepared);
    list_splice_back(&job->segments, &wal->spare_segments);
    list_splice_back(&job->segments, &wal->faulty);
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
