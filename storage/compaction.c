/*
 * Which compactions start, and what becomes of them. What to compact is decided in compaction_pick.h, the work is done
 * in compaction_run.c.
 *
 *   IDLE --picked--> RUNNING --written--> WRITTEN --edit durable--> IDLE
 *      \--picked, a move-------------------^           RUNNING --failed, told to stop--> IDLE
 *
 * A job pins a version, whose tables are its inputs, and marks them as taken until it is idle again. Flushes go on
 * meanwhile: what they add is newer and stays in level 0.
 *
 * A table that can't be read (hazard 50): whoever reads it reports the damage. When a compaction fails, the inputs
 * among those tables, or all of its inputs if none is, count as taken for a while, twice as long each time. So what
 * needs them waits, everything else goes on, and nothing is tried in a loop.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

#include <stdio.h>

/* ---- Tables that are left alone ------------------------------------------------------------------------------ */

static uint64_t backoff_us(unsigned failures) {
    uint64_t us = STORAGE_BACKOFF_MIN_US;
    for (unsigned i = 1; i < failures && us < STORAGE_BACKOFF_MAX_US; i++) {
        us *= 2;
    }
    return us < STORAGE_BACKOFF_MAX_US ? us : STORAGE_BACKOFF_MAX_US;
}

static struct blocked_table *find_blocked(struct storage *storage, const struct sst *sst) {
    for (uint32_t i = 0; i < storage->blocked_count; i++) {
        if (storage->blocked[i].sst == sst) {
            return &storage->blocked[i];
        }
    }
    return NULL;
}

static void forget_blocked(struct storage *storage, struct blocked_table *blocked) {
    struct sst *sst = blocked->sst;
    if (blocked->is_waiting) {
        sst->compacting = false;
    }
    *blocked = storage->blocked[--storage->blocked_count];
    storage__unref_table(storage, sst);
}

/* Beyond the list's room nothing is remembered: the table is tried again when its turn comes. */
static void block(struct storage *storage, struct sst *sst, enum status why) {
    struct blocked_table *blocked = find_blocked(storage, sst);
    if (blocked == NULL) {
        if (storage->blocked_count == STORAGE_BLOCKED_MAX) {
            return;
        }
        blocked = &storage->blocked[storage->blocked_count++];
        *blocked = (struct blocked_table){.sst = sst};
        sst->refs++;
    }
    CHECK(!blocked->is_waiting && !sst->compacting);
    blocked->failures++;
    blocked->why = why;
    blocked->is_waiting = true;
    sst->compacting = true;
    blocked->until_us = env_now_us(storage->loop) + backoff_us(blocked->failures);
    storage__wake_at(storage, blocked->until_us);
}

/* When the first of those that wait may be tried again; UINT64_MAX: none waits. */
static uint64_t next_unblocking(const struct storage *storage) {
    uint64_t earliest_us = UINT64_MAX;
    for (uint32_t i = 0; i < storage->blocked_count; i++) {
        const struct blocked_table *blocked = &storage->blocked[i];
        if (blocked->is_waiting && blocked->until_us < earliest_us) {
            earliest_us = blocked->until_us;
        }
    }
    return earliest_us;
}

void storage__unblock(struct storage *storage, bool all) {
    uint64_t now_us = env_now_us(storage->loop);
    for (uint32_t i = storage->blocked_count; i-- > 0;) {
        struct blocked_table *blocked = &storage->blocked[i];
        if (all || blocked->sst->obsolete) {
            forget_blocked(storage, blocked);
        } else if (blocked->is_waiting && blocked->until_us <= now_us) {
            blocked->is_waiting = false;
            blocked->sst->compacting = false;
            storage->pick_wanted = true;
        }
    }
    uint64_t next_us = next_unblocking(storage);
    if (next_us != UINT64_MAX) {
        storage__wake_at(storage, next_us); /* those whose time is later than that of what woke us */
    }
}

void storage__retry_blocked(struct storage *storage, struct slice lower, struct slice upper) {
    for (uint32_t i = 0; i < storage->blocked_count; i++) {
        if (sst_overlaps(storage->blocked[i].sst, lower, upper)) {
            storage->blocked[i].until_us = 0;
        }
    }
}

enum status storage__why_blocked(const struct storage *storage, struct slice lower, struct slice upper,
                                 uint64_t number_end) {
    for (uint32_t i = 0; i < storage->blocked_count; i++) {
        const struct blocked_table *blocked = &storage->blocked[i];
        if (blocked->is_waiting && blocked->sst->meta.number < number_end && sst_overlaps(blocked->sst, lower, upper)) {
            return blocked->why;
        }
    }
    return STATUS_OK;
}

/* ---- The end ------------------------------------------------------------------------------------------------- */

static void mark(const struct compaction_plan *plan, bool compacting) {
    for (unsigned side = 0; side < 2; side++) {
        for (size_t i = 0; i < plan->input_counts[side]; i++) {
            CHECK(plan->inputs[side][i]->compacting != compacting);
            plan->inputs[side][i]->compacting = compacting;
        }
    }
}

/* Lets go of all that it has; the marks are gone. */
static void release(struct storage *storage, struct compaction_job *job) {
    for (size_t i = 0; i < job->output_count; i++) {
        storage__unref_table(storage, job->outputs[i]);
    }
    mem_free(storage->env->alloc, job->outputs);
    values_output__release(&job->values);
    compaction_plan_deinit(storage->env->alloc, &job->plan);
    storage__unref_version(storage, job->base);
    *job = (struct compaction_job){.state = COMPACTION_IDLE};
    storage->pick_wanted = true;
}

void storage__compaction_end(struct storage *storage, struct compaction_job *job) {
    mark(&job->plan, false);
    release(storage, job);
    storage__unblock(storage, false);
}

/* Blocks the inputs that are known to be damaged; all, if none is. */
static void blame(struct storage *storage, const struct compaction_plan *plan, enum status why) {
    bool found = false;
    for (unsigned pass = 0; pass < 2 && !found; pass++) {
        for (unsigned side = 0; side < 2; side++) {
            for (size_t i = 0; i < plan->input_counts[side]; i++) {
                struct sst *sst = plan->inputs[side][i];
                if (pass == 1 || storage__take_damage(storage, sst->meta.number)) {
                    block(storage, sst, why);
                    found = true;
                }
            }
        }
    }
}

static void failed(struct storage *storage, struct compaction_job *job) {
    storage->compaction_failures++;
    (void)snprintf(storage->problem, sizeof storage->problem, "%s", job->error.message);
    bool wait = job->output_failed || job->status == STATUS_NO_SPACE || job->status == STATUS_NO_MEMORY;
    if (job->status == STATUS_NO_SPACE) {
        storage__set_space(storage, SPACE_COMPACTION, &job->error);
    }
    mark(&job->plan, false);
    if (wait) {
        storage->compact_retry_us = env_now_us(storage->loop) + STORAGE_RETRY_US;
        storage__wake_at(storage, storage->compact_retry_us);
        if (job->status == STATUS_IO && ++storage->unwritable_count >= STORAGE_UNWRITABLE_MAX) {
            storage__compact_range_unwritable(storage);
        }
    } else if (job->status != STATUS_CANCELLED) {
        blame(storage, &job->plan, job->status);
    }
    release(storage, job);
}

/* Value files that should have been emptied of what the inputs had there, but couldn't be: they aren't tried again. */
static void mark_stuck(struct storage *storage, const struct compaction_job *job) {
    for (size_t i = 0; i < job->output_count; i++) {
        const struct sst_meta *meta = &job->outputs[i]->meta;
        for (size_t r = 0; r < meta->value_ref_count; r++) {
            struct value_use use;
            struct sst *file = version_value_file(job->base, meta->value_refs[r].file, &use);
            if (file != NULL && compaction_moves_values(file, &use, &storage->options)) {
                file->is_stuck = true;
            }
        }
    }
}

static void written(struct storage *storage, struct compaction_job *job) {
    job->state = COMPACTION_WRITTEN;
    list_push_back(&storage->written, &job->link);
    storage->unwritable_count = 0;
    storage->compaction_read_bytes += job->plan.input_bytes + job->read_bytes;
    storage->compaction_written_bytes += job->written_bytes + job->values.bytes;
    storage->moved_value_bytes += job->values.bytes;
    if (job->plan.reason == COMPACTION_VALUES) {
        mark_stuck(storage, job);
    }
    if (job->plan.reason == COMPACTION_QUIET) {
        storage__note_quiet_merge(storage, job->written_bytes);
    }
    storage__set_space(storage, SPACE_COMPACTION, NULL);
    if (storage->blocked_count == 0) {
        storage->problem[0] = '\0';
    }
    if (job->plan.level == 0) {
        uint64_t level0_bytes = 0;
        for (size_t i = 0; i < job->plan.input_counts[0]; i++) {
            level0_bytes += job->plan.inputs[0][i]->meta.size_bytes;
        }
        storage__note_level0(storage, level0_bytes, env_clock_us(storage->env) - job->started_us);
    }
}

static void done(struct env_work *work) {
    struct compaction_job *job = CONTAINER_OF(work, struct compaction_job, work);
    struct storage *storage = job->storage;
    CHECK(job->state == COMPACTION_RUNNING && storage->jobs_running > 0);
    storage->jobs_running--;
    if (job->status == STATUS_OK) {
        written(storage, job);
    } else {
        failed(storage, job);
    }
    storage__schedule(storage);
    storage__close_step(storage);
}

/* ---- The start ----------------------------------------------------------------------------------------------- */

static uint64_t newest_input(const struct compaction_plan *plan) {
    uint64_t newest = 0;
    for (unsigned side = 0; side < 2; side++) {
        for (size_t i = 0; i < plan->input_counts[side]; i++) {
            uint64_t last = plan->inputs[side][i]->meta.revision_last;
            newest = last > newest ? last : newest;
        }
    }
    return newest;
}

/* Takes the plan. */
static void start(struct storage *storage, struct compaction_job *job, const struct compaction_plan *plan) {
    uint64_t newest = newest_input(plan);
    uint64_t horizon = storage_horizon(storage);
    CHECK(job->state == COMPACTION_IDLE);
    *job = (struct compaction_job){.storage = storage, .plan = *plan, .base = storage->version};
    storage->version->refs++;
    mark(&job->plan, true);
    job->started_us = env_clock_us(storage->env);
    if (plan->trivial) {
        job->state = COMPACTION_WRITTEN;
        list_push_back(&storage->written, &job->link);
        return;
    }
    /* Beyond the newest input the horizon drops nothing more; so a reader at any revision of the log's unflushed part
     * is safe. */
    job->horizon = horizon < newest ? horizon : newest;
    job->state = COMPACTION_RUNNING;
    storage->jobs_running++;
    job->work = (struct env_work){.run = storage__compaction_run, .done = done, .loop = storage->loop};
    env_work_submit(storage->env, ENV_WORK_LONG, &job->work);
}

static struct compaction_job *idle_job(struct storage *storage) {
    for (uint32_t i = 0; i < storage->options.compaction_workers; i++) {
        if (storage->jobs[i].state == COMPACTION_IDLE) {
            return &storage->jobs[i];
        }
    }
    return NULL;
}

void storage__pick_init(struct storage *storage, struct storage_pick *pick) {
    *pick = (struct storage_pick){.pick = {.alloc = storage->env->alloc,
                                           .version = storage->version,
                                           .options = &storage->options,
                                           .horizon = storage_horizon(storage),
                                           .under_way = pick->under_way}};
    for (uint32_t i = 0; i < storage->options.compaction_workers; i++) {
        if (storage->jobs[i].state != COMPACTION_IDLE) {
            pick->under_way[pick->pick.under_way_count++] = &storage->jobs[i].plan;
        }
    }
}

static enum status pick_next(struct storage *storage, bool is_quiet, struct compaction_plan *ret_plan) {
    struct storage_pick pick;
    storage__pick_init(storage, &pick);
    pick.pick.is_quiet = is_quiet;
    enum status status = compaction_pick(&pick.pick, ret_plan);
    return status == STATUS_NOT_FOUND ? storage__compact_range_pick(storage, &pick.pick, ret_plan) : status;
}

void storage__start_compactions(struct storage *storage) {
    uint64_t now_us = env_now_us(storage->loop);
    storage__unblock(storage, false);
    bool is_quiet = storage__is_quiet(storage);
    storage->pick_wanted = storage->pick_wanted || is_quiet;
    while (storage->pick_wanted && now_us >= storage->compact_retry_us) {
        struct compaction_job *job = idle_job(storage);
        struct compaction_plan plan;
        if (job == NULL) {
            break; /* moves that wait for their edit may be all of them */
        }
        storage->picked_us = now_us;
        enum status status = pick_next(storage, is_quiet, &plan);
        if (status == STATUS_OK) {
            start(storage, job, &plan);
            is_quiet = false;
        } else if (status == STATUS_NO_MEMORY) {
            storage->compact_retry_us = now_us + STORAGE_RETRY_US;
            storage__wake_at(storage, storage->compact_retry_us);
            break;
        } else {
            storage->pick_wanted = false;
        }
    }
    if (!list_is_empty(&storage->written)) {
        storage__start_edit(storage); /* a move needs no worker */
    }
}
