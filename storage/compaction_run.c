/*
 * A compaction's work on its worker: the inputs are merged, what nobody can read any more is left out, and the rest
 * goes into new tables of the output level.
 *
 * Outputs are cut only between user keys, so the ranges of a level stay disjoint and all versions of a key are in one
 * table of it. Range deletes are clipped to their output's share of the key space: from the key at which the output
 * before it was cut (the first output: from the start) to the key at which it is cut itself (the last: to the end).
 *
 * Values that are stored apart stay where they are; only their places are copied. A compaction for VALUES moves those
 * of files that have little left.
 *
 * Nothing of it counts before the edit that names the outputs is durable. A compaction that meets a bad block, a full
 * disk or an error, or is told to stop, drops its outputs and leaves the store as it was. No output is touched again
 * after a failed write or sync: its file goes.
 */
#include "node/base/check.h"
#include "storage/compaction_filter.h"
#include "storage/storage_internal.h"

enum { READAHEAD_BYTES = 1024 * 1024, STOP_CHECK_ENTRIES = 256 };

/* All that lives as long as the run. */
struct compaction_run {
    struct compaction_job *job;
    struct alloc *alloc;
    struct fetch fetch;
    struct cursor *inputs;
    struct tombstones *covering; /* all range deletes of the inputs */
    struct tombstones *kept;     /* those that outputs get */
    size_t kept_at;              /* fragments before it are written */
    struct compaction_filter filter;
    struct compaction_cut cut;
    struct sst_builder *builder;    /* NULL: no output under way */
    size_t lower_len;               /* 0: from the start */
    uint8_t lower[LIMIT_KEY_BYTES]; /* where the output under way, or the next one, begins */
    unsigned since_check;
};

/* ---- Inputs -------------------------------------------------------------------------------------------------- */

static size_t source_count(const struct compaction_plan *plan) {
    size_t first = plan->level == 0 ? plan->input_counts[0] : plan->input_counts[0] > 0;
    return first + (plan->input_counts[1] > 0);
}

/* A cursor for each table of level 0, one for each run of a deeper level. */
static enum status open_cursors(struct compaction_run *run) {
    const struct compaction_plan *plan = &run->job->plan;
    size_t count = source_count(plan);
    struct cursor **sources = mem_alloc_zero(run->alloc, count * sizeof(struct cursor *));
    if (sources == NULL) {
        return STATUS_NO_MEMORY;
    }
    size_t made = 0;
    for (size_t i = 0; plan->level == 0 && i < plan->input_counts[0]; i++) {
        sources[made++] = sst_cursor_new(run->alloc, &run->fetch, &plan->inputs[0][i], 1);
    }
    if (plan->level > 0 && plan->input_counts[0] > 0) {
        sources[made++] = sst_cursor_new(run->alloc, &run->fetch, plan->inputs[0], plan->input_counts[0]);
    }
    if (plan->input_counts[1] > 0) {
        sources[made++] = sst_cursor_new(run->alloc, &run->fetch, plan->inputs[1], plan->input_counts[1]);
    }
    CHECK(made == count);
    bool complete = true;
    for (size_t i = 0; i < count; i++) {
        complete = complete && sources[i] != NULL;
    }
    if (complete) {
        run->inputs = merging_cursor_new(run->alloc, sources, count);
    } else {
        for (size_t i = 0; i < count; i++) {
            cursor_free(sources[i]);
        }
    }
    mem_free(run->alloc, sources);
    return run->inputs == NULL ? STATUS_NO_MEMORY : STATUS_OK;
}

static enum status collect_tombstones(struct compaction_run *run, const struct tombstones **sets, size_t *ret_count,
                                      struct error *err) {
    const struct compaction_plan *plan = &run->job->plan;
    enum status status = STATUS_OK;
    size_t count = 0;
    for (unsigned side = 0; side < 2; side++) {
        for (size_t i = 0; i < plan->input_counts[side] && status == STATUS_OK; i++) {
            status = sst_tombstones(plan->inputs[side][i], &run->fetch, &sets[count], err);
            count += status == STATUS_OK && sets[count] != NULL;
        }
    }
    *ret_count = count;
    return status;
}

static enum status merge_tombstones(struct compaction_run *run, struct error *err) {
    const struct compaction_job *job = run->job;
    size_t count = job->plan.input_counts[0] + job->plan.input_counts[1];
    const struct tombstones **sets = mem_alloc_zero(run->alloc, count * sizeof(const struct tombstones *));
    if (sets == NULL) {
        return STATUS_NO_MEMORY;
    }
    enum status status = collect_tombstones(run, sets, &count, err);
    if (status == STATUS_OK && count > 0) {
        status = tombstones_merge(run->alloc, sets, count, job->horizon, false, &run->covering);
    }
    if (status == STATUS_OK && count > 0) {
        status = tombstones_merge(run->alloc, sets, count, job->horizon, job->plan.bottom, &run->kept);
    }
    mem_free(run->alloc, sets);
    return status;
}

/* ---- Outputs ------------------------------------------------------------------------------------------------- */

static enum status begin_output(struct compaction_run *run, struct error *err) {
    struct compaction_job *job = run->job;
    struct storage *storage = job->storage;
    struct sst_builder_options options;
    char path[LIMIT_PATH_BYTES];
    uint64_t number = atomic_fetch_add_explicit(&storage->next_file, 1, memory_order_relaxed);
    file_path_sst(path, storage->dir, number);
    storage__builder_options(storage, job->plan.output_level, path, number, &options);
    options.pace = storage__pace_compaction;
    options.pace_context = storage;
    return sst_builder_new(&options, &run->builder, err);
}

/* The fragment's part in [lower, upper). An empty bound: none. */
static bool clip(struct tombstone_fragment *fragment, struct slice lower, struct slice upper) {
    if (lower.len > 0 && slice_compare(fragment->start, lower) < 0) {
        fragment->start = lower;
    }
    if (upper.len > 0 && slice_compare(fragment->end, upper) > 0) {
        fragment->end = upper;
    }
    return slice_compare(fragment->start, fragment->end) < 0;
}

/* The range deletes of the output under way, which ends in front of `upper`. */
static enum status add_tombstones(struct compaction_run *run, struct slice upper, struct error *err) {
    struct slice lower = slice_of(run->lower, run->lower_len);
    enum status status = STATUS_OK;
    for (; run->kept_at < tombstones_count(run->kept) && status == STATUS_OK; run->kept_at++) {
        struct tombstone_fragment fragment = tombstones_fragment(run->kept, run->kept_at);
        struct slice end = fragment.end;
        if (upper.len > 0 && slice_compare(fragment.start, upper) >= 0) {
            break;
        }
        bool part = clip(&fragment, lower, upper);
        for (size_t i = 0; part && i < fragment.mark_count && status == STATUS_OK; i++) {
            struct tombstone tombstone = {.start = fragment.start,
                                          .end = fragment.end,
                                          .revision = fragment.marks[i].revision,
                                          .ordinal = fragment.marks[i].ordinal};
            status = sst_builder_add_tombstone(run->builder, &tombstone, err);
        }
        if (upper.len > 0 && slice_compare(end, upper) > 0) {
            break; /* the rest of it is the next output's */
        }
    }
    return status;
}

static enum status add_output(struct compaction_job *job, struct sst *sst) {
    if (job->output_count == job->output_capacity) {
        size_t capacity = job->output_capacity == 0 ? 16 : 2 * job->output_capacity;
        struct sst **outputs = mem_resize(job->storage->env->alloc, job->outputs, capacity * sizeof(struct sst *));
        if (outputs == NULL) {
            return STATUS_NO_MEMORY;
        }
        job->outputs = outputs;
        job->output_capacity = capacity;
    }
    sst->refs = 1;
    job->outputs[job->output_count++] = sst;
    return STATUS_OK;
}

/* Finishes the table in front of `upper` (empty: the last one), opens it for reading and lists it. */
static enum status end_output(struct compaction_run *run, struct slice upper, struct error *err) {
    struct compaction_job *job = run->job;
    struct sst_meta meta;
    struct sst *sst;
    enum status status = add_tombstones(run, upper, err);
    if (status == STATUS_OK) {
        status = sst_builder_finish(run->builder, &meta, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = storage__open_written(job->storage, &meta, &sst, err);
    if (status == STATUS_OK) {
        status = add_output(job, sst);
        if (status != STATUS_OK) {
            sst_free(sst);
        }
    }
    job->written_bytes += meta.size_bytes;
    sst_builder_free(run->builder);
    run->builder = NULL;
    if (upper.len > 0) {
        memcpy(run->lower, upper.data, upper.len);
    }
    run->lower_len = upper.len;
    return status;
}

/* Range deletes that are left, and begin in front of `upper` (empty: anywhere). */
static bool has_tombstones_left(const struct compaction_run *run, struct slice upper) {
    return run->kept_at < tombstones_count(run->kept) &&
           (upper.len == 0 || slice_compare(tombstones_fragment(run->kept, run->kept_at).start, upper) < 0);
}

/* Cuts range deletes into pieces that overlap no more of the level below than other tables do, up to this key (empty:
 * to the end). */
static enum status cut_gap(struct compaction_run *run, struct slice key, struct error *err) {
    struct slice at;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && has_tombstones_left(run, SLICE_EMPTY) && compaction_cut_gap(&run->cut, key, &at)) {
        if (run->builder == NULL && !has_tombstones_left(run, at)) {
            continue;
        }
        if (run->builder == NULL) {
            status = begin_output(run, err);
        }
        if (status == STATUS_OK) {
            status = end_output(run, at, err);
        }
    }
    return status;
}

/* ---- The run ------------------------------------------------------------------------------------------------- */

static bool is_stopped(struct compaction_run *run) {
    if (++run->since_check < STOP_CHECK_ENTRIES) {
        return false;
    }
    run->since_check = 0;
    return atomic_load_explicit(&run->job->storage->stop, memory_order_relaxed);
}

/* What writing said: errors of writing are waited out, errors of reading are held against a table. */
static enum status wrote(struct compaction_run *run, enum status status) {
    run->job->output_failed = status != STATUS_OK && status != STATUS_CORRUPT;
    return status;
}

/* Adds the entry whose value is in a file that is being emptied, with its new place. A value that can't be read stays
 * where it is: only who asks for it is hurt. */
static enum status move_value(struct compaction_run *run, struct sst *file, const struct value_place *from,
                              const struct entry *entry, struct error *err) {
    struct entry moved = *entry;
    struct sst_hold hold = {0};
    uint8_t place[VALUE_PLACE_BYTES];
    struct error unread;
    enum status status = value_fetch(file, &run->fetch, from, &entry->key, &hold, &moved.value, &unread);
    if (status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED || status == STATUS_IO) {
        return sst_builder_add(run->builder, entry, err);
    }
    if (status != STATUS_OK) {
        return error_set(err, status, "%s", unread.message);
    }
    run->job->read_bytes += value_place_bytes(from);
    status = values_output__add(&run->job->values, &moved, place, err);
    sst_hold_release(&hold);
    moved.value = slice_of(place, sizeof place);
    return status == STATUS_OK ? sst_builder_add(run->builder, &moved, err) : status;
}

static enum status add_entry(struct compaction_run *run, const struct entry *entry, struct error *err) {
    const struct compaction_job *job = run->job;
    struct value_place place;
    struct value_use use;
    if (entry->kind != BATCH_PUT_APART || job->plan.reason != COMPACTION_VALUES ||
        value_place_decode(entry->value, &place) != STATUS_OK) {
        return sst_builder_add(run->builder, entry, err);
    }
    struct sst *file = version_value_file(job->base, place.file, &use);
    if (file == NULL || !compaction_moves_values(file, &use, &job->storage->options)) {
        return sst_builder_add(run->builder, entry, err);
    }
    return move_value(run, file, &place, entry, err);
}

/* Of the output under way; 0: there is none. One that refers to many value files counts as full. */
static uint64_t output_size(const struct compaction_run *run) {
    if (run->builder == NULL) {
        return 0;
    }
    bool refers_to_many = sst_builder_value_files(run->builder) >= VALUE_REFS_CUT;
    return refers_to_many ? UINT64_MAX : sst_builder_size(run->builder);
}

static enum status take_entry(struct compaction_run *run, const struct entry *entry, struct error *err) {
    bool new_key;
    enum status status = STATUS_OK;
    bool kept = compaction_filter_keeps(&run->filter, entry, &new_key);
    if (new_key) {
        status = cut_gap(run, entry->key.user, err);
    }
    if (status == STATUS_OK && new_key && compaction_cut_before(&run->cut, entry->key.user, output_size(run))) {
        status = end_output(run, entry->key.user, err);
    }
    if (status == STATUS_OK && kept && run->builder == NULL) {
        status = begin_output(run, err);
    }
    if (status == STATUS_OK && kept) {
        status = add_entry(run, entry, err);
    }
    return wrote(run, status);
}

static enum status end_last(struct compaction_run *run, struct error *err) {
    enum status status = cut_gap(run, SLICE_EMPTY, err);
    if (status == STATUS_OK && run->builder == NULL && has_tombstones_left(run, SLICE_EMPTY)) {
        status = begin_output(run, err);
    }
    if (status == STATUS_OK && run->builder != NULL) {
        status = end_output(run, SLICE_EMPTY, err);
    }
    if (status == STATUS_OK) {
        status = values_output__end(&run->job->values, err);
    }
    return wrote(run, status);
}

static enum status write_outputs(struct compaction_run *run, struct error *err) {
    enum status status = cursor_first(run->inputs, err);
    for (; status == STATUS_OK; status = cursor_next(run->inputs, err)) {
        if (is_stopped(run)) {
            return error_set(err, STATUS_CANCELLED, "the store is closing");
        }
        status = take_entry(run, &run->inputs->entry, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return status == STATUS_NOT_FOUND ? end_last(run, err) : status;
}

static void drop_outputs(struct compaction_job *job) {
    char path[LIMIT_PATH_BYTES];
    for (size_t i = 0; i < job->output_count; i++) {
        struct error ignored;
        file_path_sst(path, job->storage->dir, job->outputs[i]->meta.number);
        job->outputs[i]->refs = 0;
        sst_free(job->outputs[i]);
        enum status status = env_unlink(job->storage->env, path, &ignored);
        (void)status; /* then it goes at the next start */
    }
    job->output_count = 0;
}

static enum status prepare(struct compaction_run *run, struct error *err) {
    const struct compaction_job *job = run->job;
    struct storage *storage = job->storage;
    struct fetch_options options = {.readahead_at_once = true, .readahead_bytes_max = READAHEAD_BYTES};
    fetch_init(&run->fetch, &storage->sst_context, &options);
    enum status status = open_cursors(run);
    if (status == STATUS_OK) {
        status = merge_tombstones(run, err);
    }
    compaction_filter_init(&run->filter, job->base, &job->plan, job->horizon, run->covering);
    compaction_cut_init(&run->cut, job->base, &job->plan, &storage->options);
    return status;
}

void storage__compaction_run(struct env_work *work) {
    struct compaction_job *job = CONTAINER_OF(work, struct compaction_job, work);
    struct storage *storage = job->storage;
    struct alloc *alloc = storage->env->alloc;
    struct compaction_run *run = mem_alloc_zero(alloc, sizeof *run);
    enum status status = STATUS_NO_MEMORY;
    error_clear(&job->error);
    if (run != NULL) {
        run->job = job;
        run->alloc = alloc;
        values_output__init(&job->values, storage, job->plan.output_level, storage__pace_compaction);
        status = prepare(run, &job->error);
    }
    if (status == STATUS_OK) {
        status = write_outputs(run, &job->error);
    }
    if (status == STATUS_OK && job->output_count > 0) {
        status = wrote(run, env_sync_dir(storage->env, storage->dir, &job->error));
    }
    if (status == STATUS_NO_MEMORY && job->error.code == STATUS_OK) {
        (void)error_set(&job->error, status, "no memory for a compaction");
    }
    if (run != NULL) {
        sst_builder_free(run->builder);
        cursor_free(run->inputs);
        fetch_deinit(&run->fetch);
        tombstones_free(run->covering);
        tombstones_free(run->kept);
        mem_free(alloc, run);
    }
    if (status != STATUS_OK) {
        drop_outputs(job);
        values_output__drop(&job->values);
    }
    job->status = status;
}
