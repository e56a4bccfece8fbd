/* Gathering what a compaction must take along, and what stands against it. */
#include "storage/compaction_pick_internal.h"

#include "node/base/check.h"

enum {
    SETTLED_DELETES_PERCENT = 10, /* of a table's entries */
    MOVED_HISTORY_PERCENT = 10,   /* of a table's entries: from here on it is rewritten rather than moved */
    SMALL_SHARE = 4,              /* of the target size: a table that has less is small */
    EXPANDED_TABLES_MAX = 25      /* target sizes that inputs may grow to, taking in what costs nothing below */
};

void compaction_plan_deinit(struct alloc *alloc, struct compaction_plan *plan) {
    mem_free(alloc, plan->inputs[0]);
    plan->inputs[0] = NULL;
    plan->inputs[1] = NULL;
    plan->moved = NULL;
}

/* ---- Ranges -------------------------------------------------------------------------------------------------- */

void compaction__extend(struct compaction_range *range, const struct sst_meta *meta) {
    if (!range->is_set) {
        *range = (struct compaction_range){meta->smallest, meta->largest, meta->largest_excluded, true};
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

static bool meets(const struct compaction_range *range, struct slice smallest, struct slice largest,
                  bool largest_excluded) {
    return !lies_before(range->largest, range->largest_excluded, smallest) &&
           !lies_before(largest, largest_excluded, range->smallest);
}

bool compaction__meets(const struct compaction_range *range, const struct sst *sst) {
    return meets(range, sst->meta.smallest, sst->meta.largest, sst->meta.largest_excluded);
}

void compaction__overlap(const struct version *version, unsigned level, const struct compaction_range *range,
                         size_t *ret_first, size_t *ret_count) {
    version_overlap(version, level, range->smallest, range->largest, range->largest_excluded, ret_first, ret_count);
}

static void extend_by_run(struct compaction_range *range, const struct version *version, unsigned level, size_t first,
                          size_t count) {
    if (count > 0) {
        compaction__extend(range, &version->tables[level][first]->meta);
        compaction__extend(range, &version->tables[level][first + count - 1]->meta);
    }
}

uint64_t compaction__run_bytes(const struct version *version, unsigned level, size_t first, size_t count) {
    uint64_t bytes = 0;
    for (size_t i = first; i < first + count; i++) {
        bytes += version->tables[level][i]->meta.size_bytes;
    }
    return bytes;
}

bool compaction__is_bottom(const struct version *version, unsigned output_level, const struct compaction_range *range) {
    for (unsigned level = output_level + 1; level < MANIFEST_LEVELS && output_level > 0; level++) {
        size_t first;
        size_t count;
        compaction__overlap(version, level, range, &first, &count);
        if (count > 0) {
            return false;
        }
    }
    return output_level > 0;
}

/* ---- What tables hold ---------------------------------------------------------------------------------------- */

bool compaction__is_share(uint64_t part, uint64_t whole, uint32_t percent) {
    return part > 0 && part >= whole / 100 * percent + whole % 100 * percent / 100;
}

bool compaction__has_settled_deletes(const struct compaction_pick *pick, const struct sst_meta *meta) {
    return meta->revision_last <= pick->horizon &&
           (meta->tombstones > 0 || compaction__is_share(meta->deletes, meta->entries, SETTLED_DELETES_PERCENT));
}

bool compaction__has_history(const struct compaction_pick *pick, const struct sst_meta *meta, uint32_t percent) {
    return meta->superseded_until <= pick->horizon && compaction__is_share(meta->superseded, meta->entries, percent);
}

/* ---- Conflicts ----------------------------------------------------------------------------------------------- */

bool compaction__any_taken(const struct version *version, unsigned level, size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
        if (version->tables[level][i]->compacting) {
            return true;
        }
    }
    return false;
}

bool compaction__is_being_written(const struct compaction_pick *pick, unsigned level, unsigned output_level,
                                  const struct compaction_range *range) {
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

bool compaction__add_output_level(const struct compaction_pick *pick, struct compaction_choice *choice) {
    const struct version *version = pick->version;
    unsigned output_level = choice->output_level;
    compaction__overlap(version, output_level, &choice->range, &choice->first[1], &choice->count[1]);
    if (compaction__any_taken(version, output_level, choice->first[1], choice->count[1])) {
        return false;
    }
    extend_by_run(&choice->range, version, output_level, choice->first[1], choice->count[1]);
    return !compaction__is_being_written(pick, choice->level, output_level, &choice->range);
}

bool compaction__choose_table(const struct compaction_pick *pick, enum compaction_reason reason, unsigned level,
                              size_t at, struct compaction_choice *ret_choice) {
    struct sst *sst = pick->version->tables[level][at];
    if (sst->compacting) {
        return false;
    }
    *ret_choice = (struct compaction_choice){
        .reason = reason, .level = level, .output_level = level + 1, .first = {at, 0}, .count = {1, 0}};
    compaction__extend(&ret_choice->range, &sst->meta);
    return compaction__add_output_level(pick, ret_choice);
}

/* A small table that meets nothing below would be small there, too: small ones beside it come along, and are merged. */
static void gather_small(const struct compaction_pick *pick, struct compaction_choice *choice) {
    const struct version *version = pick->version;
    struct sst *const *tables = version->tables[choice->level];
    struct compaction_choice wider = *choice;
    uint64_t bytes = tables[choice->first[0]]->meta.size_bytes;
    bool more = bytes < pick->options->sst_bytes / SMALL_SHARE;
    while (more) {
        size_t end = wider.first[0] + wider.count[0];
        more = false;
        for (unsigned side = 0; side < 2 && !more; side++) {
            size_t at = side == 0 ? end : wider.first[0] - 1;
            if (at >= version->counts[choice->level] || tables[at]->compacting ||
                tables[at]->meta.size_bytes >= pick->options->sst_bytes / SMALL_SHARE ||
                bytes + tables[at]->meta.size_bytes > pick->options->sst_bytes) {
                continue;
            }
            struct compaction_choice tried = wider;
            tried.first[0] -= side;
            tried.count[0]++;
            compaction__extend(&tried.range, &tables[at]->meta);
            if (compaction__add_output_level(pick, &tried) && tried.count[1] == 0) {
                bytes += tables[at]->meta.size_bytes;
                wider = tried;
                more = true;
            }
        }
    }
    *choice = wider;
}

void compaction__expand(const struct compaction_pick *pick, struct compaction_choice *choice) {
    const struct version *version = pick->version;
    if (choice->count[1] == 0) {
        gather_small(pick, choice);
        return;
    }
    struct compaction_choice wider = *choice;
    compaction__overlap(version, choice->level, &choice->range, &wider.first[0], &wider.count[0]);
    if (wider.count[0] <= choice->count[0] ||
        compaction__any_taken(version, wider.level, wider.first[0], wider.count[0])) {
        return;
    }
    extend_by_run(&wider.range, version, wider.level, wider.first[0], wider.count[0]);
    uint64_t bytes = compaction__run_bytes(version, wider.level, wider.first[0], wider.count[0]) +
                     compaction__run_bytes(version, wider.output_level, wider.first[1], wider.count[1]);
    size_t first;
    size_t count;
    compaction__overlap(version, wider.output_level, &wider.range, &first, &count);
    if (first == wider.first[1] && count == wider.count[1] && bytes <= EXPANDED_TABLES_MAX * pick->options->sst_bytes &&
        !compaction__is_being_written(pick, wider.level, wider.output_level, &wider.range)) {
        *choice = wider;
    }
}

/* ---- Making a plan ------------------------------------------------------------------------------------------- */

/* The table may change its level as it is: a rewrite would leave out nothing that is worth it, and it doesn't come to
 * lie over too much. */
static bool may_move_table(const struct compaction_pick *pick, const struct compaction_plan *plan,
                           const struct sst_meta *meta) {
    unsigned to = plan->output_level;
    struct compaction_range range = {0};
    size_t first;
    size_t count;
    if (compaction__has_history(pick, meta, MOVED_HISTORY_PERCENT) ||
        (plan->bottom && compaction__has_settled_deletes(pick, meta))) {
        return false;
    }
    if (to == COMPACTION_LAST_LEVEL) {
        return true;
    }
    compaction__extend(&range, meta);
    compaction__overlap(pick->version, to + 1, &range, &first, &count);
    return compaction__run_bytes(pick->version, to + 1, first, count) <= compaction_overlap_max(pick->options);
}

static bool may_move(const struct compaction_pick *pick, const struct compaction_plan *plan) {
    const struct storage_options *options = pick->options;
    unsigned to = plan->output_level;
    if (plan->level == to || plan->input_counts[1] > 0 || plan->reason == COMPACTION_MANUAL ||
        options->compression[plan->level] != options->compression[to] ||
        options->bloom_bits[plan->level] != options->bloom_bits[to] ||
        (plan->input_counts[0] > 1 &&
         (plan->level > 0 || plan->input_bytes / plan->input_counts[0] < compaction_small_bytes(options)))) {
        return false;
    }
    for (size_t i = 0; i < plan->input_counts[0]; i++) {
        if (!may_move_table(pick, plan, &plan->inputs[0][i]->meta)) {
            return false;
        }
    }
    return true;
}

/* The inputs in the order of keys, at plan->moved. False if they overlap: then they can't move together. */
static bool sort_moved(struct compaction_plan *plan) {
    size_t count = plan->input_counts[0];
    struct sst **moved = plan->moved;
    for (size_t i = 0; i < count; i++) {
        moved[i] = plan->inputs[0][plan->level == 0 ? count - 1 - i : i]; /* what was written in order is in order */
    }
    for (size_t gap = count / 2; gap > 0; gap /= 2) {
        for (size_t i = gap; i < count; i++) {
            struct sst *sst = moved[i];
            size_t at = i;
            while (at >= gap && slice_compare(moved[at - gap]->meta.smallest, sst->meta.smallest) > 0) {
                moved[at] = moved[at - gap];
                at -= gap;
            }
            moved[at] = sst;
        }
    }
    for (size_t i = 1; i < count; i++) {
        if (!version_ends_before(moved[i - 1], moved[i]->meta.smallest)) {
            return false;
        }
    }
    return true;
}

/* All inputs in a row; returns their number. */
static size_t list_inputs(const struct version *version, const struct compaction_choice *choice, const bool *level0,
                          struct sst **tables) {
    size_t count = 0;
    CHECK(choice->level > 0 || level0 != NULL);
    for (size_t i = 0; choice->level == 0 && i < version->counts[0]; i++) {
        if (level0[i]) {
            tables[count++] = version->tables[0][i];
        }
    }
    for (size_t i = 0; choice->level > 0 && i < choice->count[0]; i++) {
        tables[count++] = version->tables[choice->level][choice->first[0] + i];
    }
    CHECK(count == choice->count[0]);
    for (size_t i = 0; i < choice->count[1]; i++) {
        tables[count++] = version->tables[choice->output_level][choice->first[1] + i];
    }
    return count;
}

enum status compaction__make_plan(const struct compaction_pick *pick, const struct compaction_choice *choice,
                                  const bool *level0, struct compaction_plan *ret_plan) {
    size_t first_count = choice->count[0];
    size_t total = first_count + choice->count[1];
    CHECK(first_count > 0);
    struct sst **tables = mem_alloc(pick->alloc, (total + first_count) * sizeof(struct sst *));
    if (tables == NULL) {
        return STATUS_NO_MEMORY;
    }
    size_t count = list_inputs(pick->version, choice, level0, tables);
    struct compaction_plan plan = {.reason = choice->reason,
                                   .level = choice->level,
                                   .output_level = choice->output_level,
                                   .inputs = {tables, tables + first_count},
                                   .input_counts = {first_count, choice->count[1]},
                                   .moved = tables + total,
                                   .smallest = choice->range.smallest,
                                   .largest = choice->range.largest,
                                   .largest_excluded = choice->range.largest_excluded,
                                   .bottom =
                                       compaction__is_bottom(pick->version, choice->output_level, &choice->range)};
    for (size_t i = 0; i < count; i++) {
        CHECK(!tables[i]->compacting && !tables[i]->obsolete);
        plan.input_bytes += tables[i]->meta.size_bytes;
    }
    plan.trivial = may_move(pick, &plan) && sort_moved(&plan);
    *ret_plan = plan;
    return STATUS_OK;
}

enum status compaction__plan_in_place(const struct compaction_pick *pick, enum compaction_reason reason, unsigned level,
                                      size_t at, struct compaction_plan *ret_plan) {
    struct compaction_choice choice = {
        .reason = reason, .level = level, .output_level = level, .first = {at, 0}, .count = {1, 0}};
    const struct sst *sst = pick->version->tables[level][at];
    compaction__extend(&choice.range, &sst->meta);
    if (sst->compacting || compaction__is_being_written(pick, level, level, &choice.range)) {
        return STATUS_NOT_FOUND;
    }
    return compaction__make_plan(pick, &choice, NULL, ret_plan);
}
