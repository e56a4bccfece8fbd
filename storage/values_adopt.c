/*
 * Adoption: a flush takes over segments of the log as value files, so that large values are written once.
 *
 *   owner   the memtable is switched, mostly large values in it: the log is asked for another segment (turn)
 *           ... until what the memtable holds is durable and in segments that nothing is written to any more, or
 *           ADOPT_WAIT_US have passed; then the flush starts, with what the log lends (take)
 *   worker  a segment that is mostly values of this memtable gets a name of ours: hard link, then cut behind its
 * groups; entries refer to records in it. All others are copied to value files as ever. The directory is synced with
 *           the table's name.
 *   owner   manifest edit: segment and table are part of the store; the log deletes its own name when it may. What
 *           wasn't linked is given back.
 *
 * A crash in between leaves a name that no manifest has, which goes when the store opens. A segment that can't be
 * linked is nothing to fail for: its values are copied.
 *
 * Values of one segment go to one memtable's table, or two: that of a group across the place of the turn. Each flush
 * asks for a share that two can't both have, so no segment is adopted twice.
 */
#include "node/base/check.h"
#include "storage/compaction_filter.h"
#include "storage/storage_internal.h"

enum {
    ADOPT_WAIT_US = 1000 * 1000, /* a full disk may keep the log from turning */
    ADOPT_POLL_US = 5 * 1000
};

struct adopted {
    uint64_t live_values; /* of the memtable's */
    uint64_t live_bytes;
    uint64_t used_values; /* entries that refer to it */
    struct sst *file;     /* NULL: not adopted */
    bool is_linked;       /* it has, or had, a name of ours */
};

/* ---- Owner ------------------------------------------------------------------------------------------------------ */

void storage_set_log(struct storage *storage, const struct log_share *share) {
    CHECK(!storage->closing);
    storage->log = share != NULL ? *share : (struct log_share){.log = NULL};
}

void storage__adopt_note(const struct storage *storage, struct generation *generation, struct slice batch) {
    uint64_t threshold = storage->options.value_threshold_bytes;
    struct batch_reader reader;
    generation->batch_bytes += batch.len;
    if (value_is_apart(threshold, batch.len) && batch_open(batch, &reader) == STATUS_OK && reader.count > 0 &&
        batch.len / reader.count >= threshold) {
        generation->large_bytes += batch.len;
    }
}

void storage__adopt_turn(struct storage *storage, struct generation *generation) {
    uint64_t least = storage->options.value_adopt_bytes;
    /* What was applied once before may have been adopted then. */
    bool is_again = storage->catch_up_index > 0 && generation->first_index <= storage->catch_up_index;
    if (is_again || storage->log.log == NULL || least == 0 || generation->large_bytes < least ||
        generation->large_bytes < generation->batch_bytes / 4 * 3) {
        return;
    }
    generation->adopts = true;
    generation->adopt_until_us = env_now_us(storage->loop) + ADOPT_WAIT_US;
    storage->log.turn(storage->log.log);
}

bool storage__adopt_is_ready(struct storage *storage, const struct generation *generation, uint64_t *ret_again_us) {
    uint64_t now_us = env_now_us(storage->loop);
    if (!generation->adopts || storage->log.log == NULL || now_us >= generation->adopt_until_us ||
        storage->log.is_turned(storage->log.log, generation->frontier.index)) {
        return true;
    }
    *ret_again_us = now_us + ADOPT_POLL_US;
    return false;
}

void storage__adopt_take(struct storage *storage, const struct generation *generation,
                         struct values_adoption *adoption) {
    *adoption = (struct values_adoption){.adopted = NULL};
    if (!generation->adopts || storage->log.log == NULL) {
        return;
    }
    enum status status =
        storage->log.take(storage->log.log, generation->first_index, generation->frontier.index, &adoption->segments);
    if (status != STATUS_OK || adoption->segments.count == 0) {
        return; /* then all is copied */
    }
    adoption->adopted = mem_alloc_zero(storage->env->alloc, adoption->segments.count * sizeof *adoption->adopted);
}

void storage__adopt_end(struct storage *storage, struct values_adoption *adoption) {
    for (size_t i = 0; i < adoption->segments.count && storage->log.log != NULL; i++) {
        if (adoption->adopted == NULL || !adoption->adopted[i].is_linked) {
            storage->log.give_back(storage->log.log, adoption->segments.list[i].number);
        }
    }
    mem_free(storage->env->alloc, adoption->adopted);
    log_segments_free(&adoption->segments);
    adoption->adopted = NULL;
}

/* ---- Worker: where a value is ----------------------------------------------------------------------------------- */

static const struct log_record *find_record(const struct log_segment *segment, uint64_t index) {
    size_t low = 0;
    size_t high = segment->record_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (segment->records[middle].index < index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < segment->record_count && segment->records[low].index == index ? &segment->records[low] : NULL;
}

/* The record that holds the entry's value and little else; NULL: none of them does. */
static const struct log_record *find(const struct values_adoption *adoption, const struct entry *entry,
                                     size_t *ret_segment) {
    for (size_t i = 0; i < adoption->segments.count; i++) {
        const struct log_record *record = find_record(&adoption->segments.list[i], entry->key.revision);
        if (record != NULL) {
            *ret_segment = i;
            return value_log_is_worth(entry->value.len, record->bytes) ? record : NULL;
        }
    }
    return NULL;
}

/* ---- Worker: taking over ---------------------------------------------------------------------------------------- */

/* What the flush will keep, and no more. */
static void count_live(const struct flush_job *job, const struct tombstones *covering,
                       struct values_adoption *adoption) {
    const struct compaction_plan to_level0 = {.output_level = 0};
    uint64_t threshold = job->storage->options.value_threshold_bytes;
    struct compaction_filter filter;
    struct memtable_place at;
    bool new_key;
    compaction_filter_init(&filter, NULL, &to_level0, job->generation->horizon, covering);
    for (bool more = memtable_first(job->generation->memtable, &at); more; more = memtable_next(&at)) {
        const struct entry entry = memtable_entry(&at);
        size_t i;
        const struct log_record *record = NULL;
        bool kept = compaction_filter_keeps(&filter, &entry, &new_key);
        if (kept && entry.kind == BATCH_PUT && value_is_apart(threshold, entry.value.len)) {
            record = find(adoption, &entry, &i);
        }
        if (record != NULL) {
            adoption->adopted[i].live_values++;
            adoption->adopted[i].live_bytes += record->bytes;
        }
    }
}

/* So much that it needn't be emptied soon, and that no other flush can say the same of it. */
static bool is_worth_it(const struct storage *storage, const struct log_segment *segment,
                        const struct adopted *adopted) {
    uint64_t percent = (100 + (uint64_t)storage->options.value_live_percent_min) / 2 + 1;
    return adopted->live_bytes * 100 >= segment->size_bytes * percent;
}

static void unlink_file(struct storage *storage, uint64_t number) {
    char path[LIMIT_PATH_BYTES];
    struct error ignored;
    file_path_values(path, storage->dir, number);
    (void)!env_unlink(storage->env, path, &ignored); /* else it goes at the next start */
}

/* What was prepared behind its groups is of no use: if it can't be given back now, it is with the file. */
static void cut_file(struct storage *storage, const char *path, uint64_t size_bytes) {
    struct env_file *file = NULL;
    struct error ignored;
    if (env_open(storage->env, path, ENV_OPEN_WRITE, &file, &ignored) == STATUS_OK) {
        (void)!env_truncate(file, size_bytes, &ignored);
    }
    env_close(file);
}

static void adopt(struct storage *storage, const struct log_segment *segment, struct adopted *adopted) {
    char path[LIMIT_PATH_BYTES];
    struct error ignored;
    const struct value_meta meta = {.is_log = true,
                                    .number = atomic_fetch_add_explicit(&storage->next_file, 1, memory_order_relaxed),
                                    .id = env_random(storage->env),
                                    .size_bytes = segment->size_bytes,
                                    .checksum = segment->checksum,
                                    .values = adopted->live_values,
                                    .bytes = segment->size_bytes};
    struct sst *file = NULL;
    file_path_values(path, storage->dir, meta.number);
    adopted->is_linked = true;
    if (env_link(storage->env, segment->path, path, &ignored) != STATUS_OK) {
        adopted->is_linked = false;
        return;
    }
    cut_file(storage, path, segment->size_bytes);
    if (value_file_new(&storage->sst_context, &meta, &file) != STATUS_OK) {
        unlink_file(storage, meta.number);
        return;
    }
    file->refs = 1;
    adopted->file = file;
}

void storage__adopt_begin(struct flush_job *job, const struct tombstones *covering) {
    struct values_adoption *adoption = &job->adoption;
    if (adoption->adopted == NULL) {
        return;
    }
    count_live(job, covering, adoption);
    for (size_t i = 0; i < adoption->segments.count; i++) {
        if (is_worth_it(job->storage, &adoption->segments.list[i], &adoption->adopted[i])) {
            adopt(job->storage, &adoption->segments.list[i], &adoption->adopted[i]);
        }
    }
}

bool storage__adopt_place(struct values_adoption *adoption, const struct entry *entry,
                          uint8_t ret_place[VALUE_PLACE_BYTES]) {
    size_t i;
    const struct log_record *record = adoption->adopted != NULL ? find(adoption, entry, &i) : NULL;
    if (record == NULL || adoption->adopted[i].file == NULL) {
        return false;
    }
    const struct value_place place = {.file = adoption->adopted[i].file->meta.id,
                                      .handle = value_log_handle(record->offset, record->bytes),
                                      .value_len = (uint32_t)entry->value.len};
    adoption->adopted[i].used_values++;
    value_place_encode(ret_place, &place);
    return true;
}

static void drop(struct storage *storage, struct adopted *adopted) {
    uint64_t number = adopted->file->meta.number;
    adopted->file->refs = 0;
    sst_free(adopted->file);
    adopted->file = NULL;
    unlink_file(storage, number);
}

enum status storage__adopt_finish(struct flush_job *job, enum status status, struct error *err) {
    struct values_adoption *adoption = &job->adoption;
    for (size_t i = 0; i < adoption->segments.count && adoption->adopted != NULL; i++) {
        struct adopted *adopted = &adoption->adopted[i];
        if (adopted->file != NULL && status == STATUS_OK && adopted->used_values > 0) {
            status = values_output__take(&job->values, adopted->file);
            if (status == STATUS_OK) {
                adopted->file = NULL;
            } else {
                (void)error_set(err, status, "no memory for a value file");
            }
        }
        if (adopted->file != NULL) {
            drop(job->storage, adopted);
        }
    }
    return status;
}
