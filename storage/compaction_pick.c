/* Choosing what to compact. The order of the reasons is in compaction_pick.h. */
#include "storage/compaction_pick.h"

#include "node/base/check.h"

#include <string.h>

enum {
    LAST_LEVEL = MANIFEST_LEVELS - 1,
    BOTTOM_DELETES_PERCENT = 10, /* of a table's entries: worth a rewrite when nothing is left for them to hide */
    L0_ONLY_FILES_MIN = 4,       /* fewer than that aren't worth it */
    RANGE_TABLES_MAX = 16,       /* that one step of a compaction by hand takes from a level */
    EXPANDED_TABLES_MAX = 25     /* target sizes that inputs may grow to, taking in what costs nothing below */
};

const char *compaction_reason_name(enum compaction_reason reason) {
    static const char *const names[COMPACTION_REASON_COUNT] = {
        [COMPACTION_L0] = "level0",     [COMPACTION_L0_ONLY] = "level0_only",
        [COMPACTION_SIZE] = "size",     [COMPACTION_TOMBSTONES] = "tombstones",
        [COMPACTION_BOTTOM] = "bottom", [COMPACTION_HISTORY] = "history",
        [COMPACTION_VALUES] = "values", [COMPACTION_MANUAL] = "manual",
    };
    return names[reason];
}

void compaction_plan_deinit(struct alloc *alloc, struct compaction_plan *plan) {
    mem_free(alloc, plan->inputs[0]);
    plan->inputs[0] = NULL;
    plan->inputs[1] = NULL;
}

/* ---- Ranges -------------------------------------------------------------------------------------------------- */

struct range {
    struct slice smallest;
    struct slice largest;
    bool largest_excluded;
    bool is_set;
};

static void extend(struct range *range, const struct sst_meta *meta) {
    if (!range->is_set) {
        *range = (struct range){meta->smallest, meta->largest, meta->largest_excluded, true};
        return;
    }
    if (slice_compare(meta->smallest, range->smallest) < 0) {
        range->smallest = meta->smallest;
    }
    int order = slice_compare(meta->largest, range->largest);
    if (order > 0 || (order == 0 && !meta->largest_excluded)) {
        range->largest = meta->largest;
        range->largest_excluded = meta->largest_excluded;
    }
}

/* True if everything in a lies in front of everything in b. */
static bool lies_before(struct slice a_largest, bool a_excluded, struct slice b_smallest) {
    int order = slice_compare(a_largest, b_smallest);
    return order < 0 || (order == 0 && a_excluded);
}

static bool meets(const struct range *range, struct slice smallest, struct slice largest, bool largest_excluded) {
    return !lies_before(range->largest, range->largest_excluded, smallest) &&
           !lies_before(largest, largest_excluded, range->smallest);
}

static bool meets_table(const struct range *range, const struct sst *sst) {
    return meets(range, sst->meta.smallest, sst->meta.largest, sst->meta.largest_excluded);
}

/* ---- Making a plan ------------------------------------------------------------------------------------------- */

/* What a plan will be: the tables from `level` are marked in a bitmap of places (level 0) or are a run. */
struct choice {
    enum compaction_reason reason;
    unsigned level;
    unsigned output_level;
    size_t first[2]; /* runs; [0] for levels 1 and deeper only */
    size_t count[2];
    struct range range;
};

static bool any_taken(const struct version *version, unsigned level, size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
        if (version->tables[level][i]->compacting) {
            return true;
        }
    }
    return false;
}

static void extend_by_run(struct range *range, const struct version *version, unsigned level, size_t first,
                          size_t count) {
    if (count > 0) {
        extend(range, &version->tables[level][first]->meta);
        extend(range, &version->tables[level][first + count - 1]->meta);
    }
}

static void overlap(const struct version *version, unsigned level, const struct range *range, size_t *ret_first,
                    size_t *ret_count) {
    version_overlap(version, level, range->smallest, range->largest, range->largest_excluded, ret_first, ret_count);
}

/* A plan under way will put tables there, or between the two levels: what comes from `level` is newer, and may not get
 * below them. */
static bool is_being_written(const struct compaction_pick *pick, unsigned level, unsigned output_level,
                             const struct range *range) {
    for (size_t i = 0; i < pick->under_way_count; i++) {
        const struct compaction_plan *plan = pick->under_way[i];
        bool between = plan->output_level > level && plan->output_level <= output_level;
        if ((between || plan->output_level == output_level) &&
            meets(range, plan->smallest, plan->largest, plan->largest_excluded)) {
            return true;
        }
    }
    return false;
}

static bool is_bottom(const struct version *version, unsigned output_level, const struct range *range) {
    for (unsigned level = output_level + 1; level < MANIFEST_LEVELS && output_level > 0; level++) {
        size_t first;
        size_t count;
        overlap(version, level, range, &first, &count);
        if (count > 0) {
            return false;
        }
    }
    return output_level > 0;
}

static uint64_t run_bytes(const struct version *version, unsigned level, size_t first, size_t count) {
    uint64_t bytes = 0;
    for (size_t i = first; i < first + count; i++) {
        bytes += version->tables[level][i]->meta.size_bytes;
    }
    return bytes;
}

/* Tables may change their level as they are. */
static bool may_move(const struct compaction_pick *pick, const struct compaction_plan *plan) {
    const struct storage_options *options = pick->options;
    unsigned to = plan->output_level;
    if (plan->level == to || plan->input_counts[1] > 0 || plan->reason == COMPACTION_MANUAL ||
        options->compression[plan->level] != options->compression[to] ||
        options->bloom_bits[plan->level] != options->bloom_bits[to]) {
        return false;
    }
    for (size_t i = 0; i < plan->input_counts[0]; i++) {
        const struct sst_meta *meta = &plan->inputs[0][i]->meta;
        struct range range = {0};
        size_t first;
        size_t count = 0;
        extend(&range, meta);
        if (to < LAST_LEVEL) {
            overlap(pick->version, to + 1, &range, &first, &count);
        }
        bool useless = meta->superseded > 0 && meta->superseded_until <= pick->horizon;
        if (useless ||
            (count > 0 && run_bytes(pick->version, to + 1, first, count) > compaction_overlap_max(options))) {
            return false;
        }
    }
    return true;
}

/* The inputs in the order of keys, at plan->moved. False if they overlap: then they can't move together. */
static bool sort_moved(struct compaction_plan *plan) {
    for (size_t i = 0; i < plan->input_counts[0]; i++) {
        struct sst *sst = plan->inputs[0][i];
        size_t at = i;
        while (at > 0 && slice_compare(plan->moved[at - 1]->meta.smallest, sst->meta.smallest) > 0) {
            plan->moved[at] = plan->moved[at - 1];
            at--;
        }
        plan->moved[at] = sst;
    }
    for (size_t i = 1; i < plan->input_counts[0]; i++) {
        if (!version_ends_before(plan->moved[i - 1], plan->moved[i]->meta.smallest)) {
            return false;
        }
    }
    return true;
}

static enum status make_plan(const struct compaction_pick *pick, const struct choice *choice, const bool *level0,
                             struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    size_t first_count = choice->count[0];
    size_t total = first_count + choice->count[1];
    struct sst **tables = mem_alloc(pick->alloc, (total + first_count) * sizeof(struct sst *));
    if (tables == NULL) {
        return STATUS_NO_MEMORY;
    }
    size_t count = 0;
    for (size_t i = 0; choice->level == 0 && i < version->counts[0]; i++) {
        if (level0[i]) {
            tables[count++] = version->tables[0][i];
        }
    }
    for (size_t i = 0; choice->level > 0 && i < first_count; i++) {
        tables[count++] = version->tables[choice->level][choice->first[0] + i];
    }
    CHECK(count == first_count);
    for (size_t i = 0; i < choice->count[1]; i++) {
        tables[count++] = version->tables[choice->output_level][choice->first[1] + i];
    }
    struct compaction_plan plan = {.reason = choice->reason,
                                   .level = choice->level,
                                   .output_level = choice->output_level,
                                   .inputs = {tables, tables + first_count},
                                   .input_counts = {first_count, choice->count[1]},
                                   .moved = tables + total,
                                   .smallest = choice->range.smallest,
                                   .largest = choice->range.largest,
                                   .largest_excluded = choice->range.largest_excluded,
                                   .bottom = is_bottom(version, choice->output_level, &choice->range)};
    for (size_t i = 0; i < count; i++) {
        CHECK(!tables[i]->compacting && !tables[i]->obsolete);
        plan.input_bytes += tables[i]->meta.size_bytes;
    }
    plan.trivial = may_move(pick, &plan) && sort_moved(&plan);
    *ret_plan = plan;
    return STATUS_OK;
}

/* Adds what overlaps of the output level. False if something there is taken. */
static bool add_output_level(const struct compaction_pick *pick, struct choice *choice) {
    const struct version *version = pick->version;
    overlap(version, choice->output_level, &choice->range, &choice->first[1], &choice->count[1]);
    if (any_taken(version, choice->output_level, choice->first[1], choice->count[1])) {
        return false;
    }
    extend_by_run(&choice->range, version, choice->output_level, choice->first[1], choice->count[1]);
    return !is_being_written(pick, choice->level, choice->output_level, &choice->range);
}

/* ---- Level 0 ------------------------------------------------------------------------------------------------- */

/* All tables that must go along with what is marked: older ones that overlap, and newer ones that would take just as
 * much of the base level. Until nothing more is added; each round adds at least one table. */
static bool close_level0(const struct version *version, bool *marked, struct choice *choice) {
    bool more = true;
    while (more) {
        more = false;
        for (size_t i = 0; i < version->counts[0]; i++) {
            struct sst *sst = version->tables[0][i];
            if (marked[i] || !meets_table(&choice->range, sst)) {
                continue;
            }
            if (sst->compacting) {
                return false;
            }
            marked[i] = true;
            choice->count[0]++;
            extend(&choice->range, &sst->meta);
            more = true;
        }
    }
    return true;
}

/* All of level 0 that isn't taken. False if some of it overlaps what is. */
static bool mark_all(const struct version *version, bool *marked, struct choice *choice) {
    for (size_t i = 0; i < version->counts[0]; i++) {
        struct sst *sst = version->tables[0][i];
        marked[i] = !sst->compacting;
        if (marked[i]) {
            extend(&choice->range, &sst->meta);
            choice->count[0]++;
        }
    }
    return choice->count[0] > 0 && close_level0(version, marked, choice);
}

/* The oldest table for which it works, with what must go along. */
static bool mark_some(const struct compaction_pick *pick, bool *marked, struct choice *choice) {
    const struct version *version = pick->version;
    struct choice empty = *choice;
    for (size_t seed = version->counts[0]; seed-- > 0;) {
        if (version->tables[0][seed]->compacting) {
            continue;
        }
        *choice = empty;
        memset(marked, 0, version->counts[0] * sizeof marked[0]);
        marked[seed] = true;
        choice->count[0] = 1;
        extend(&choice->range, &version->tables[0][seed]->meta);
        if (close_level0(version, marked, choice) && add_output_level(pick, choice)) {
            return true;
        }
    }
    return false;
}

static enum status pick_level0(const struct compaction_pick *pick, enum compaction_reason reason, unsigned base_level,
                               struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    struct choice choice = {.reason = reason, .level = 0, .output_level = base_level};
    bool *marked = mem_alloc_zero(pick->alloc, version->counts[0] * sizeof marked[0] + 1);
    if (marked == NULL) {
        return STATUS_NO_MEMORY;
    }
    struct choice empty = choice;
    bool found = mark_all(version, marked, &choice) && add_output_level(pick, &choice);
    if (!found) {
        choice = empty;
        found = mark_some(pick, marked, &choice);
    }
    enum status status = found ? make_plan(pick, &choice, marked, ret_plan) : STATUS_NOT_FOUND;
    mem_free(pick->alloc, marked);
    return status;
}

/* The newest tables that aren't taken, merged into one: reads have fewer to look at, and level 0 its room. */
static enum status pick_level0_only(const struct compaction_pick *pick, struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    struct choice choice = {.reason = COMPACTION_L0_ONLY};
    bool *marked = mem_alloc_zero(pick->alloc, version->counts[0] * sizeof marked[0] + 1);
    if (marked == NULL) {
        return STATUS_NO_MEMORY;
    }
    uint64_t bytes = 0;
    for (size_t i = 0; i < version->counts[0] && !version->tables[0][i]->compacting; i++) {
        uint64_t size_bytes = version->tables[0][i]->meta.size_bytes;
        /* What was merged before is left alone until there is as much again. */
        if (choice.count[0] >= L0_ONLY_FILES_MIN && size_bytes > bytes) {
            break;
        }
        marked[i] = true;
        choice.count[0]++;
        bytes += size_bytes;
        extend(&choice.range, &version->tables[0][i]->meta);
    }
    enum status status = STATUS_NOT_FOUND;
    if (choice.count[0] >= L0_ONLY_FILES_MIN && !is_being_written(pick, 0, 0, &choice.range)) {
        status = make_plan(pick, &choice, marked, ret_plan);
    }
    mem_free(pick->alloc, marked);
    return status;
}

/* ---- Deeper levels ------------------------------------------------------------------------------------------- */

/* The table with all that it meets below. False: something of that is taken. */
static bool choose_table(const struct compaction_pick *pick, unsigned level, size_t at, struct choice *choice) {
    const struct version *version = pick->version;
    struct sst *sst = version->tables[level][at];
    if (sst->compacting) {
        return false;
    }
    choice->level = level;
    choice->output_level = level + 1;
    choice->first[0] = at;
    choice->count[0] = 1;
    choice->range = (struct range){0};
    extend(&choice->range, &sst->meta);
    return add_output_level(pick, choice);
}

/* Neighbours that meet nothing more below come for nothing. */
static void expand(const struct compaction_pick *pick, struct choice *choice) {
    const struct version *version = pick->version;
    if (choice->count[1] == 0) {
        return;
    }
    struct choice wider = *choice;
    overlap(version, choice->level, &choice->range, &wider.first[0], &wider.count[0]);
    if (wider.count[0] <= choice->count[0] || any_taken(version, wider.level, wider.first[0], wider.count[0])) {
        return;
    }
    extend_by_run(&wider.range, version, wider.level, wider.first[0], wider.count[0]);
    uint64_t bytes = run_bytes(version, wider.level, wider.first[0], wider.count[0]) +
                     run_bytes(version, wider.output_level, wider.first[1], wider.count[1]);
    size_t first;
    size_t count;
    overlap(version, wider.output_level, &wider.range, &first, &count);
    if (first == wider.first[1] && count == wider.count[1] && bytes <= EXPANDED_TABLES_MAX * pick->options->sst_bytes &&
        !is_being_written(pick, wider.level, wider.output_level, &wider.range)) {
        *choice = wider;
    }
}

/* The table of the level with the least to be rewritten below, per byte. */
static enum status pick_for_size(const struct compaction_pick *pick, unsigned level, struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    struct choice best = {.reason = COMPACTION_SIZE};
    uint64_t best_ratio = UINT64_MAX;
    for (size_t i = 0; i < version->counts[level]; i++) {
        struct choice choice = {.reason = COMPACTION_SIZE};
        if (!choose_table(pick, level, i, &choice)) {
            continue;
        }
        uint64_t below = run_bytes(version, level + 1, choice.first[1], choice.count[1]);
        uint64_t ratio = below / (version->tables[level][i]->meta.size_bytes / 1024 + 1);
        if (ratio < best_ratio) {
            best_ratio = ratio;
            best = choice;
        }
    }
    if (best_ratio == UINT64_MAX) {
        return STATUS_NOT_FOUND;
    }
    expand(pick, &best);
    return make_plan(pick, &best, NULL, ret_plan);
}

static enum status pick_in_place(const struct compaction_pick *pick, enum compaction_reason reason, unsigned level,
                                 size_t at, struct compaction_plan *ret_plan) {
    struct choice choice = {.reason = reason, .level = level, .output_level = level, .first = {at, 0}, .count = {1, 0}};
    extend(&choice.range, &pick->version->tables[level][at]->meta);
    if (is_being_written(pick, level, level, &choice.range)) {
        return STATUS_NOT_FOUND;
    }
    return make_plan(pick, &choice, NULL, ret_plan);
}

/* The same for a table of level 0. */
static enum status pick_in_level0(const struct compaction_pick *pick, enum compaction_reason reason, size_t at,
                                  struct compaction_plan *ret_plan) {
    struct choice choice = {.reason = reason, .count = {1, 0}};
    extend(&choice.range, &pick->version->tables[0][at]->meta);
    if (is_being_written(pick, 0, 0, &choice.range)) {
        return STATUS_NOT_FOUND;
    }
    bool *marked = mem_alloc_zero(pick->alloc, pick->version->counts[0] * sizeof marked[0]);
    if (marked == NULL) {
        return STATUS_NO_MEMORY;
    }
    marked[at] = true;
    enum status status = make_plan(pick, &choice, marked, ret_plan);
    mem_free(pick->alloc, marked);
    return status;
}

/* Deletes are on their way to what they delete. */
static bool is_mostly_deletes(const struct compaction_pick *pick, const struct sst_meta *meta) {
    uint64_t deletes = meta->deletes + meta->tombstones;
    uint64_t all = meta->entries + meta->tombstones;
    return deletes > 0 && deletes / pick->options->tombstone_percent >= all / 100 &&
           deletes * 100 >= all * pick->options->tombstone_percent;
}

/* Why a table that isn't taken should be rewritten where it is; COMPACTION_REASON_COUNT: no reason. */
static enum compaction_reason in_place_reason(const struct compaction_pick *pick, const struct range *range,
                                              unsigned level, const struct sst_meta *meta) {
    bool history = meta->superseded > 0 && meta->superseded_until <= pick->horizon &&
                   meta->superseded * 100 >= meta->entries * pick->options->history_percent;
    if (history) {
        return COMPACTION_HISTORY;
    }
    bool deletes =
        meta->tombstones > 0 || (meta->deletes > 0 && meta->deletes * 100 >= meta->entries * BOTTOM_DELETES_PERCENT);
    if (deletes && meta->revision_last <= pick->horizon && is_bottom(pick->version, level, range)) {
        return COMPACTION_BOTTOM;
    }
    return COMPACTION_REASON_COUNT;
}

/* What no level's size asks for: deletes, and what the horizon has passed. */
static enum status pick_for_space(const struct compaction_pick *pick, struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    for (unsigned level = 1; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level]; i++) {
            const struct sst_meta *meta = &version->tables[level][i]->meta;
            struct choice choice = {.reason = COMPACTION_TOMBSTONES};
            struct range range = {0};
            enum status status = STATUS_NOT_FOUND;
            if (version->tables[level][i]->compacting) {
                continue;
            }
            extend(&range, meta);
            enum compaction_reason reason = in_place_reason(pick, &range, level, meta);
            if (reason != COMPACTION_REASON_COUNT) {
                status = pick_in_place(pick, reason, level, i, ret_plan);
            } else if ((meta->tombstones > 0 || is_mostly_deletes(pick, meta)) && level < LAST_LEVEL &&
                       !is_bottom(version, level, &range) && choose_table(pick, level, i, &choice)) {
                status = make_plan(pick, &choice, NULL, ret_plan);
            }
            if (status != STATUS_NOT_FOUND) {
                return status;
            }
        }
    }
    return STATUS_NOT_FOUND;
}

/* ---- Value files --------------------------------------------------------------------------------------------- */

/* The least that is left of any value file that the table refers to and that is to be emptied; 100: there is none. */
static unsigned least_live_percent(const struct compaction_pick *pick, const struct sst_meta *meta) {
    unsigned least = 100;
    for (size_t i = 0; i < meta->value_ref_count; i++) {
        struct value_use use;
        const struct sst *file = version_value_file(pick->version, meta->value_refs[i].file, &use);
        CHECK(file != NULL);
        if (compaction_moves_values(file, &use, pick->options) && version_live_percent(file, &use) < least) {
            least = version_live_percent(file, &use);
        }
    }
    return least;
}

/* The table that refers to the emptiest file. What it has in other files that are to be emptied moves with it. */
static enum status pick_for_values(const struct compaction_pick *pick, struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    bool any = false;
    for (size_t i = 0; i < version->value_file_count && !any; i++) {
        any = compaction_moves_values(version->value_files[i], &version->value_uses[i], pick->options);
    }
    unsigned least = 100;
    unsigned least_level = 0;
    size_t least_at = 0;
    for (unsigned level = 0; any && level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level]; i++) {
            const struct sst *sst = version->tables[level][i];
            unsigned percent = sst->compacting ? 100 : least_live_percent(pick, &sst->meta);
            if (percent < least) {
                least = percent;
                least_level = level;
                least_at = i;
            }
        }
    }
    if (least == 100) {
        return STATUS_NOT_FOUND;
    }
    return least_level == 0 ? pick_in_level0(pick, COMPACTION_VALUES, least_at, ret_plan)
                            : pick_in_place(pick, COMPACTION_VALUES, least_level, least_at, ret_plan);
}

/* ---- All together -------------------------------------------------------------------------------------------- */

/* Hundredths of the target; what is being compacted doesn't count. */
static uint64_t score(const struct version *version, const struct compaction_targets *targets, unsigned level) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < version->counts[level]; i++) {
        const struct sst *sst = version->tables[level][i];
        bytes += sst->compacting ? 0 : sst->meta.size_bytes;
    }
    if (bytes == 0 || targets->bytes[level] == UINT64_MAX) {
        return 0;
    }
    return bytes / (targets->bytes[level] / 100 + 1);
}

static uint64_t score_level0(const struct compaction_pick *pick) {
    const struct version *version = pick->version;
    uint64_t files = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < version->counts[0]; i++) {
        const struct sst *sst = version->tables[0][i];
        files += !sst->compacting;
        bytes += sst->compacting ? 0 : sst->meta.size_bytes;
    }
    uint64_t by_files = files * 100 / pick->options->l0_files_compact;
    uint64_t by_bytes = files < 2 ? 0 : bytes / (pick->options->level_base_bytes / 100 + 1);
    return by_files > by_bytes ? by_files : by_bytes;
}

static enum status pick_by_size(const struct compaction_pick *pick, const struct compaction_targets *targets,
                                struct compaction_plan *ret_plan) {
    uint64_t scores[MANIFEST_LEVELS] = {0};
    for (unsigned level = 1; level < LAST_LEVEL; level++) {
        scores[level] = score(pick->version, targets, level);
    }
    for (unsigned round = 1; round < LAST_LEVEL; round++) {
        unsigned best = 1;
        for (unsigned level = 2; level < LAST_LEVEL; level++) {
            best = scores[level] > scores[best] ? level : best;
        }
        if (scores[best] <= 100) {
            break;
        }
        scores[best] = 0;
        enum status status = pick_for_size(pick, best, ret_plan);
        if (status != STATUS_NOT_FOUND) {
            return status;
        }
    }
    return STATUS_NOT_FOUND;
}

/* Some table of level 0 is mostly deletes. */
static bool level0_is_mostly_deletes(const struct compaction_pick *pick) {
    for (size_t i = 0; i < pick->version->counts[0]; i++) {
        const struct sst *sst = pick->version->tables[0][i];
        if (!sst->compacting && is_mostly_deletes(pick, &sst->meta)) {
            return true;
        }
    }
    return false;
}

enum status compaction_pick(const struct compaction_pick *pick, struct compaction_plan *ret_plan) {
    struct compaction_targets targets;
    compaction_get_targets(pick->version, pick->options, &targets);
    enum status status = STATUS_NOT_FOUND;
    uint64_t level0 = score_level0(pick);
    if (level0 >= 100) {
        status = pick_level0(pick, COMPACTION_L0, targets.base_level, ret_plan);
    }
    if (status == STATUS_NOT_FOUND && level0 >= 200) {
        status = pick_level0_only(pick, ret_plan);
    }
    if (status == STATUS_NOT_FOUND) {
        status = pick_by_size(pick, &targets, ret_plan);
    }
    if (status == STATUS_NOT_FOUND && level0_is_mostly_deletes(pick)) {
        status = pick_level0(pick, COMPACTION_TOMBSTONES, targets.base_level, ret_plan);
    }
    if (status == STATUS_NOT_FOUND) {
        status = pick_for_space(pick, ret_plan);
    }
    return status == STATUS_NOT_FOUND ? pick_for_values(pick, ret_plan) : status;
}

/* ---- By hand ------------------------------------------------------------------------------------------------- */

static enum status pick_range_level0(const struct compaction_pick *pick, struct slice lower, struct slice upper,
                                     struct compaction_plan *ret_plan) {
    struct compaction_targets targets;
    bool any = false;
    for (size_t i = 0; i < pick->version->counts[0]; i++) {
        any = any || sst_overlaps(pick->version->tables[0][i], lower, upper);
    }
    if (!any) {
        return STATUS_NOT_FOUND;
    }
    compaction_get_targets(pick->version, pick->options, &targets);
    enum status status = pick_level0(pick, COMPACTION_MANUAL, targets.base_level, ret_plan);
    return status == STATUS_NOT_FOUND ? STATUS_BUSY : status;
}

/* True if deeper levels have anything of the range. */
static bool is_deepest(const struct version *version, unsigned level, struct slice lower, struct slice upper) {
    for (unsigned deeper = level + 1; deeper < MANIFEST_LEVELS; deeper++) {
        size_t first;
        size_t count;
        version_range(version, deeper, lower, upper, &first, &count);
        if (count > 0) {
            return false;
        }
    }
    return true;
}

enum status compaction_pick_range(const struct compaction_pick *pick, unsigned level, struct slice lower,
                                  struct slice upper, uint64_t number_end, struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    if (level == 0) {
        return pick_range_level0(pick, lower, upper, ret_plan);
    }
    size_t first;
    size_t count;
    bool busy = false;
    bool in_place = is_deepest(version, level, lower, upper);
    version_range(version, level, lower, upper, &first, &count);
    for (size_t i = first; i < first + count; i++) {
        struct choice choice = {.reason = COMPACTION_MANUAL};
        enum status status = STATUS_NOT_FOUND;
        if (in_place && version->tables[level][i]->meta.number >= number_end) {
            continue;
        }
        busy = true;
        if (in_place && !version->tables[level][i]->compacting) {
            status = pick_in_place(pick, COMPACTION_MANUAL, level, i, ret_plan);
        } else if (!in_place && choose_table(pick, level, i, &choice)) {
            expand(pick, &choice);
            status = make_plan(pick, &choice, NULL, ret_plan);
        }
        if (status != STATUS_NOT_FOUND) {
            return status;
        }
    }
    return busy ? STATUS_BUSY : STATUS_NOT_FOUND;
}
