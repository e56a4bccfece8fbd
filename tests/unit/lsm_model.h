/*
 * A small LSM in memory, driven by the real picker, filter, cut and versions: what simulations of compaction share.
 *
 * Tables hold real entries and range deletes, keys are numbers. Flushes put tables into level 0; compactions begin with
 * what the picker says, several at once, and end in any order. What each key should be is kept aside, so a table that
 * passes an older one, or a delete that goes too early, shows as a wrong answer.
 */
#ifndef HOLDFAST_TESTS_LSM_MODEL_H
#define HOLDFAST_TESTS_LSM_MODEL_H

#include "node/base/bytes.h"
#include "node/base/random.h"
#include "storage/compaction_filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LSM_JOBS_MAX = 4, LSM_KEY_BYTES = 4, LSM_PUT_BYTES = 100, LSM_DELETE_BYTES = 20, LSM_TOMBSTONE_BYTES = 30 };

struct lsm_entry {
    uint32_t key;
    bool is_delete;
    uint64_t revision;
};

struct lsm_table {
    struct sst sst; /* first */
    uint8_t keys[2][LSM_KEY_BYTES];
    struct lsm_entry *entries; /* in order */
    size_t count;
    struct tombstones *deletes; /* NULL: none */
};

struct lsm_job {
    bool busy;
    struct compaction_plan plan;
    struct version *base;
    struct sst **outputs;
    size_t output_count;
    uint64_t horizon;
};

struct lsm {
    struct storage_options options;
    struct version *version;
    struct random random;
    uint32_t key_count;
    uint64_t revision;
    uint64_t horizon;
    uint64_t next_number;
    uint64_t *revisions; /* of each key: of its newest version; 0: none */
    bool *is_live;
    struct lsm_entry *memory; /* being filled, unsorted */
    size_t memory_count;
    struct tombstone *ranges;
    uint8_t (*range_keys)[2][LSM_KEY_BYTES];
    size_t range_count;
    struct lsm_job jobs[LSM_JOBS_MAX];
    unsigned jobs_max;
    uint64_t flushed_bytes;
    uint64_t written_bytes; /* by compactions */
    uint64_t moves;
    uint64_t compactions[COMPACTION_REASON_COUNT];
};

enum { LSM_FLUSH_ENTRIES = 100, LSM_RANGES_MAX = 64 };

static inline struct slice lsm_key(uint32_t key, uint8_t out[LSM_KEY_BYTES]) {
    for (unsigned i = 0; i < LSM_KEY_BYTES; i++) {
        out[i] = (uint8_t)(key >> (24 - 8 * i));
    }
    return slice_of(out, LSM_KEY_BYTES);
}

static inline uint32_t lsm_below(struct lsm *lsm, uint32_t bound) {
    return (uint32_t)random_below(&lsm->random, bound);
}

static inline struct lsm_table *lsm_table_of(const struct sst *sst) { return (struct lsm_table *)(uintptr_t)sst; }

static inline void lsm_init(struct lsm *lsm, uint64_t seed, uint32_t key_count) {
    memset(lsm, 0, sizeof *lsm);
    random_seed(&lsm->random, seed);
    storage_options_init(&lsm->options);
    lsm->options.sst_bytes = LSM_FLUSH_ENTRIES * LSM_PUT_BYTES;
    lsm->options.level_base_bytes = 4 * lsm->options.sst_bytes;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        lsm->options.compression[level] = COMPRESSION_NONE;
    }
    struct version_change nothing = {.horizon = 0};
    lsm->version = version_new(alloc_system(), NULL, &nothing);
    lsm->key_count = key_count;
    lsm->next_number = 1;
    lsm->jobs_max = 3;
    lsm->revisions = calloc(key_count, sizeof *lsm->revisions);
    lsm->is_live = calloc(key_count, sizeof *lsm->is_live);
    lsm->memory = calloc(LSM_FLUSH_ENTRIES, sizeof *lsm->memory);
    lsm->ranges = calloc(LSM_RANGES_MAX, sizeof *lsm->ranges);
    lsm->range_keys = calloc(LSM_RANGES_MAX, sizeof *lsm->range_keys);
}

static inline void lsm_bury(struct sst *dead) {
    while (dead != NULL) {
        struct lsm_table *table = lsm_table_of(dead);
        dead = dead->next_dead;
        tombstones_free(table->deletes);
        free(table->entries);
        free(table);
    }
}

static inline void lsm_unref(struct version *version) {
    struct sst *dead = NULL;
    version_unref(version, &dead);
    lsm_bury(dead);
}

/* ---- Tables ---------------------------------------------------------------------------------------------------- */

static inline void lsm_widen(struct lsm_table *table, struct slice key, bool excluded) {
    struct sst_meta *meta = &table->sst.meta;
    if (meta->smallest.len == 0 || slice_compare(key, meta->smallest) < 0) {
        memcpy(table->keys[0], key.data, key.len);
        meta->smallest = slice_of(table->keys[0], LSM_KEY_BYTES);
    }
    int order = meta->largest.len == 0 ? 1 : slice_compare(key, meta->largest);
    if (order > 0 || (order == 0 && !excluded)) {
        memcpy(table->keys[1], key.data, key.len);
        meta->largest = slice_of(table->keys[1], LSM_KEY_BYTES);
        meta->largest_excluded = excluded;
    }
}

static inline void lsm_note_revision(struct sst_meta *meta, uint64_t revision) {
    meta->revision_first = revision < meta->revision_first ? revision : meta->revision_first;
    meta->revision_last = revision > meta->revision_last ? revision : meta->revision_last;
}

/* Takes both. The entries are sorted, or become so. */
static inline struct sst *lsm_table_new(struct lsm *lsm, struct lsm_entry *entries, size_t count,
                                        struct tombstones *deletes) {
    struct lsm_table *table = calloc(1, sizeof *table);
    struct sst_meta *meta = &table->sst.meta;
    meta->number = lsm->next_number++;
    meta->revision_first = UINT64_MAX;
    table->entries = entries;
    table->count = count;
    table->deletes = deletes;
    for (size_t i = 0; i < count; i++) {
        uint8_t key[LSM_KEY_BYTES];
        lsm_widen(table, lsm_key(entries[i].key, key), false);
        lsm_note_revision(meta, entries[i].revision);
        meta->deletes += entries[i].is_delete;
        meta->size_bytes += entries[i].is_delete ? LSM_DELETE_BYTES : LSM_PUT_BYTES;
        if (i > 0 && entries[i - 1].key == entries[i].key) {
            assert_true(entries[i - 1].revision > entries[i].revision);
            meta->superseded++;
            uint64_t newer = entries[i - 1].revision;
            meta->superseded_until = newer > meta->superseded_until ? newer : meta->superseded_until;
        }
    }
    meta->entries = count;
    for (size_t i = 0; i < tombstones_count(deletes); i++) {
        struct tombstone_fragment fragment = tombstones_fragment(deletes, i);
        lsm_widen(table, fragment.start, true); /* an excluded end never hides an entry at the same key */
        lsm_widen(table, fragment.end, true);
        meta->tombstones += fragment.mark_count;
        meta->size_bytes += fragment.mark_count * LSM_TOMBSTONE_BYTES;
        for (size_t at = 0; at < fragment.mark_count; at++) {
            lsm_note_revision(meta, fragment.marks[at].revision);
        }
    }
    assert_true(meta->entries + meta->tombstones > 0);
    assert_true(slice_compare(meta->smallest, meta->largest) < 0 || !meta->largest_excluded);
    return &table->sst;
}

/* ---- Writing --------------------------------------------------------------------------------------------------- */

static inline int lsm_compare_entries(const void *a, const void *b) {
    const struct lsm_entry *x = a;
    const struct lsm_entry *y = b;
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    return x->revision > y->revision ? -1 : x->revision < y->revision;
}

static inline void lsm_flush(struct lsm *lsm) {
    struct tombstones *deletes = NULL;
    if (lsm->memory_count + lsm->range_count == 0) {
        return;
    }
    if (lsm->range_count > 0) {
        assert_int_equal(tombstones_build(alloc_system(), lsm->ranges, lsm->range_count, &deletes), STATUS_OK);
    }
    struct lsm_entry *entries = calloc(lsm->memory_count + 1, sizeof *entries);
    memcpy(entries, lsm->memory, lsm->memory_count * sizeof *entries);
    qsort(entries, lsm->memory_count, sizeof *entries, lsm_compare_entries);
    struct sst *sst = lsm_table_new(lsm, entries, lsm->memory_count, deletes);
    struct version_change change = {.added = {&sst}, .added_count = {1}};
    struct version *next = version_new(alloc_system(), lsm->version, &change);
    lsm_unref(lsm->version);
    lsm->version = next;
    lsm->flushed_bytes += sst->meta.size_bytes;
    lsm->memory_count = 0;
    lsm->range_count = 0;
}

static inline bool lsm_is_full(const struct lsm *lsm) {
    return lsm->memory_count == LSM_FLUSH_ENTRIES || lsm->range_count == LSM_RANGES_MAX;
}

static inline void lsm_write(struct lsm *lsm, uint32_t key, bool is_delete) {
    assert_false(lsm_is_full(lsm));
    lsm->memory[lsm->memory_count++] = (struct lsm_entry){key, is_delete, ++lsm->revision};
    lsm->revisions[key] = lsm->revision;
    lsm->is_live[key] = !is_delete;
}

static inline void lsm_delete_range(struct lsm *lsm, uint32_t start, uint32_t end) {
    assert_false(lsm_is_full(lsm));
    uint8_t(*keys)[LSM_KEY_BYTES] = lsm->range_keys[lsm->range_count];
    lsm->ranges[lsm->range_count++] =
        (struct tombstone){lsm_key(start, keys[0]), lsm_key(end, keys[1]), ++lsm->revision, 0};
    for (uint32_t key = start; key < end; key++) {
        lsm->is_live[key] = false;
    }
}

/* ---- Reading --------------------------------------------------------------------------------------------------- */

/* What one table says; false: it goes on behind it. */
static inline bool lsm_look(const struct sst *sst, uint32_t key, uint64_t *age, uint64_t *ret_revision,
                            bool *ret_live) {
    const struct lsm_table *table = lsm_table_of(sst);
    uint8_t bytes[LSM_KEY_BYTES];
    struct tombstone_mark mark = tombstones_find(table->deletes, lsm_key(key, bytes), UINT64_MAX, NULL, NULL);
    struct lsm_entry want = {.key = key, .revision = UINT64_MAX};
    size_t low = 0;
    size_t high = table->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (lsm_compare_entries(&table->entries[middle], &want) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < table->count && table->entries[low].key == key;
    uint64_t revision = found ? table->entries[low].revision : 0;
    /* The order of sources: all here is older than all in front of it. */
    assert_true(revision < *age && mark.revision < *age);
    for (size_t i = low; i < table->count && table->entries[i].key == key; i++) {
        *age = table->entries[i].revision;
    }
    if (mark.revision > 0) {
        size_t at = tombstones_first_reaching(table->deletes, slice_of(bytes, LSM_KEY_BYTES));
        struct tombstone_fragment fragment = tombstones_fragment(table->deletes, at);
        uint64_t oldest = fragment.marks[fragment.mark_count - 1].revision;
        *age = oldest < *age ? oldest : *age;
    }
    if (revision == 0 && mark.revision == 0) {
        return false;
    }
    *ret_live = revision > mark.revision && !table->entries[low].is_delete;
    *ret_revision = revision;
    return true;
}

/* The newest version, walking all sources; checks that they are in order for this key. */
static inline void lsm_check_key(const struct lsm *lsm, uint32_t key) {
    const struct version *version = lsm->version;
    uint8_t bytes[LSM_KEY_BYTES];
    struct slice name = lsm_key(key, bytes);
    uint64_t age = UINT64_MAX;
    uint64_t revision = 0;
    bool is_live = false;
    bool found = false;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        const struct sst *deeper = level == 0 ? NULL : version_find(version, level, name);
        size_t count = level == 0 ? version->counts[0] : deeper != NULL;
        for (size_t i = 0; i < count; i++) {
            uint64_t this_revision = 0;
            bool this_live = false;
            const struct sst *sst = level == 0 ? version->tables[0][i] : deeper;
            if (lsm_look(sst, key, &age, &this_revision, &this_live) && !found) {
                found = true;
                revision = this_revision;
                is_live = this_live;
            }
        }
    }
    if (lsm->memory_count + lsm->range_count == 0) {
        assert_int_equal(is_live, lsm->is_live[key]);
        assert_true(!is_live || revision == lsm->revisions[key]);
    }
}

static inline uint64_t lsm_bytes(const struct lsm *lsm) {
    uint64_t bytes = 0;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        bytes += lsm->version->bytes[level];
    }
    return bytes;
}

static inline uint64_t lsm_live_bytes(const struct lsm *lsm) {
    uint64_t bytes = 0;
    for (uint32_t key = 0; key < lsm->key_count; key++) {
        bytes += lsm->is_live[key] ? LSM_PUT_BYTES : 0;
    }
    return bytes;
}

/* ---- Compacting ------------------------------------------------------------------------------------------------ */

struct lsm_run {
    struct lsm *lsm;
    struct lsm_job *job;
    struct tombstones *kept;
    struct lsm_entry *output; /* under way */
    size_t output_count;
    uint64_t output_bytes;
    size_t left;
    bool begun;
    uint8_t lower[LSM_KEY_BYTES];
    size_t lower_len;
};

/* The range deletes of an output: its share of the key space. */
static inline struct tombstones *lsm_clip(const struct tombstones *set, struct slice lower, struct slice upper) {
    struct tombstones *clipped = NULL;
    struct tombstone *list = calloc(tombstones_marks(set) + 1, sizeof *list);
    size_t count = 0;
    for (size_t i = 0; i < tombstones_count(set); i++) {
        struct tombstone_fragment fragment = tombstones_fragment(set, i);
        if (lower.len > 0 && slice_compare(fragment.start, lower) < 0) {
            fragment.start = lower;
        }
        if (upper.len > 0 && slice_compare(fragment.end, upper) > 0) {
            fragment.end = upper;
        }
        for (size_t at = 0; slice_compare(fragment.start, fragment.end) < 0 && at < fragment.mark_count; at++) {
            list[count++] = (struct tombstone){fragment.start, fragment.end, fragment.marks[at].revision,
                                               fragment.marks[at].ordinal};
        }
    }
    if (count > 0) {
        assert_int_equal(tombstones_build(alloc_system(), list, count, &clipped), STATUS_OK);
    }
    free(list);
    return clipped;
}

static inline void lsm_end_output(struct lsm_run *run, struct slice upper) {
    struct tombstones *deletes = lsm_clip(run->kept, slice_of(run->lower, run->lower_len), upper);
    if (run->output_count > 0 || deletes != NULL) {
        struct lsm_entry *entries = calloc(run->output_count + 1, sizeof *entries);
        memcpy(entries, run->output, run->output_count * sizeof *entries);
        struct sst *sst = lsm_table_new(run->lsm, entries, run->output_count, deletes);
        run->job->outputs[run->job->output_count++] = sst;
        run->lsm->written_bytes += sst->meta.size_bytes;
    }
    run->output_count = 0;
    run->output_bytes = 0;
    if (upper.len > 0) {
        memcpy(run->lower, upper.data, upper.len);
    }
    run->lower_len = upper.len;
}

/* All entries of the inputs, in order. */
static inline struct lsm_entry *lsm_gather(const struct compaction_plan *plan, const struct tombstones **sets,
                                           size_t *ret_set_count, size_t *ret_count) {
    size_t count = 0;
    size_t set_count = 0;
    for (unsigned side = 0; side < 2; side++) {
        for (size_t i = 0; i < plan->input_counts[side]; i++) {
            count += lsm_table_of(plan->inputs[side][i])->count;
        }
    }
    struct lsm_entry *all = calloc(count + 1, sizeof *all);
    count = 0;
    for (unsigned side = 0; side < 2; side++) {
        for (size_t i = 0; i < plan->input_counts[side]; i++) {
            const struct lsm_table *table = lsm_table_of(plan->inputs[side][i]);
            memcpy(all + count, table->entries, table->count * sizeof *all);
            count += table->count;
            if (table->deletes != NULL) {
                sets[set_count++] = table->deletes;
            }
        }
    }
    qsort(all, count, sizeof *all, lsm_compare_entries);
    *ret_set_count = set_count;
    *ret_count = count;
    return all;
}

/* The work; what it made isn't in any version yet. */
static inline void lsm_run_job(struct lsm *lsm, struct lsm_job *job) {
    const struct compaction_plan *plan = &job->plan;
    size_t inputs = plan->input_counts[0] + plan->input_counts[1];
    const struct tombstones **sets = calloc(inputs, sizeof *sets);
    struct lsm_run run = {.lsm = lsm, .job = job};
    struct tombstones *covering = NULL;
    size_t set_count;
    size_t count;
    struct lsm_entry *all = lsm_gather(plan, sets, &set_count, &count);
    assert_int_equal(tombstones_merge(alloc_system(), sets, set_count, job->horizon, false, &covering), STATUS_OK);
    assert_int_equal(tombstones_merge(alloc_system(), sets, set_count, job->horizon, plan->bottom, &run.kept),
                     STATUS_OK);
    struct compaction_filter *filter = malloc(sizeof *filter);
    struct compaction_cut cut;
    compaction_filter_init(filter, job->base, plan, job->horizon, covering);
    compaction_cut_init(&cut, job->base, plan, &lsm->options);
    run.output = calloc(count + 1, sizeof *run.output);
    job->outputs = calloc(count + 2, sizeof(struct sst *));
    for (size_t i = 0; i < count; i++) {
        uint8_t key[LSM_KEY_BYTES];
        bool new_key;
        struct entry entry = {.key = {.user = lsm_key(all[i].key, key), .revision = all[i].revision},
                              .kind = all[i].is_delete ? BATCH_DELETE : BATCH_PUT};
        bool keeps = compaction_filter_keeps(filter, &entry, &new_key);
        if (new_key && compaction_cut_before(&cut, entry.key.user, run.output_bytes)) {
            lsm_end_output(&run, entry.key.user);
        }
        if (keeps) {
            run.output[run.output_count++] = all[i];
            run.output_bytes += all[i].is_delete ? LSM_DELETE_BYTES : LSM_PUT_BYTES;
        }
    }
    lsm_end_output(&run, SLICE_EMPTY);
    free(filter);
    free(run.output);
    free(all);
    free(sets);
    tombstones_free(covering);
    tombstones_free(run.kept);
}

static inline void lsm_mark(const struct compaction_plan *plan, bool compacting) {
    for (unsigned side = 0; side < 2; side++) {
        for (size_t i = 0; i < plan->input_counts[side]; i++) {
            assert_true(plan->inputs[side][i]->compacting != compacting);
            plan->inputs[side][i]->compacting = compacting;
        }
    }
}

static inline size_t lsm_under_way(const struct lsm *lsm, const struct compaction_plan **plans) {
    size_t count = 0;
    for (unsigned i = 0; i < lsm->jobs_max; i++) {
        if (lsm->jobs[i].busy) {
            plans[count++] = &lsm->jobs[i].plan;
        }
    }
    return count;
}

/* Starts one compaction if the picker knows one. */
static inline bool lsm_start(struct lsm *lsm) {
    const struct compaction_plan *plans[LSM_JOBS_MAX];
    struct lsm_job *job = NULL;
    for (unsigned i = 0; i < lsm->jobs_max && job == NULL; i++) {
        job = lsm->jobs[i].busy ? NULL : &lsm->jobs[i];
    }
    if (job == NULL) {
        return false;
    }
    struct compaction_pick pick = {.alloc = alloc_system(),
                                   .version = lsm->version,
                                   .options = &lsm->options,
                                   .horizon = lsm->horizon,
                                   .under_way = plans,
                                   .under_way_count = lsm_under_way(lsm, plans)};
    enum status status = compaction_pick(&pick, &job->plan);
    if (status == STATUS_NOT_FOUND) {
        return false;
    }
    assert_int_equal(status, STATUS_OK);
    job->busy = true;
    job->base = lsm->version;
    job->base->refs++;
    job->outputs = NULL;
    job->output_count = 0;
    uint64_t newest = 0;
    for (unsigned side = 0; side < 2; side++) {
        for (size_t i = 0; i < job->plan.input_counts[side]; i++) {
            uint64_t last = job->plan.inputs[side][i]->meta.revision_last;
            newest = last > newest ? last : newest;
        }
    }
    job->horizon = lsm->horizon < newest ? lsm->horizon : newest;
    lsm_mark(&job->plan, true);
    lsm->compactions[job->plan.reason]++;
    lsm->moves += job->plan.trivial;
    if (!job->plan.trivial) {
        lsm_run_job(lsm, job);
    }
    return true;
}

/* The compaction's edit is durable. */
static inline void lsm_finish(struct lsm *lsm, struct lsm_job *job) {
    struct compaction_plan *plan = &job->plan;
    struct version_change change = {.horizon = job->horizon};
    unsigned to = plan->output_level;
    change.removed[plan->level] = plan->inputs[0];
    change.removed_count[plan->level] = plan->input_counts[0];
    if (to != plan->level) {
        change.removed[to] = plan->inputs[1];
        change.removed_count[to] = plan->input_counts[1];
    }
    change.added[to] = plan->trivial ? plan->moved : job->outputs;
    change.added_count[to] = plan->trivial ? plan->input_counts[0] : job->output_count;
    struct version *next = version_new(alloc_system(), lsm->version, &change);
    assert_true(version_is_sound(next));
    lsm_mark(plan, false);
    compaction_plan_deinit(alloc_system(), plan);
    lsm_unref(lsm->version);
    lsm_unref(job->base);
    free(job->outputs);
    lsm->version = next;
    job->busy = false;
}

/* Finishes one of those under way; false: there is none. */
static inline bool lsm_finish_any(struct lsm *lsm) {
    struct lsm_job *busy[LSM_JOBS_MAX];
    uint32_t count = 0;
    for (unsigned i = 0; i < lsm->jobs_max; i++) {
        if (lsm->jobs[i].busy) {
            busy[count++] = &lsm->jobs[i];
        }
    }
    if (count > 0) {
        lsm_finish(lsm, busy[lsm_below(lsm, count)]);
    }
    return count > 0;
}

/* Until nothing is left to do: that must come. */
static inline void lsm_settle(struct lsm *lsm) {
    unsigned steps = 0;
    do {
        while (lsm_start(lsm)) {
        }
        assert_true(++steps < 100 * 1000);
    } while (lsm_finish_any(lsm));
}

static inline void lsm_deinit(struct lsm *lsm) {
    while (lsm_finish_any(lsm)) {
    }
    lsm_unref(lsm->version);
    free(lsm->revisions);
    free(lsm->is_live);
    free(lsm->memory);
    free(lsm->ranges);
    free(lsm->range_keys);
}

#endif
