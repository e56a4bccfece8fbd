/*
 * Choosing for a compaction asked for by hand: level by level, what is as old as the request goes down; where it has
 * arrived, tables are rewritten in place, each once.
 *
 * Writes go on meanwhile. So that it ends, tables that hold only what came later don't count: nothing older ever comes
 * back to a level that is done with.
 */
#include "storage/compaction_pick_internal.h"

static bool counts_at_level0(const struct compaction_pick *pick, const struct sst *sst, struct slice lower,
                             struct slice upper) {
    return sst->meta.revision_first <= pick->asked_revision && sst_overlaps(sst, lower, upper);
}

static enum status pick_level0(const struct compaction_pick *pick, struct slice lower, struct slice upper,
                               struct compaction_plan *ret_plan) {
    struct compaction_targets targets;
    bool any = false;
    for (size_t i = 0; i < pick->version->counts[0]; i++) {
        any = any || counts_at_level0(pick, pick->version->tables[0][i], lower, upper);
    }
    if (!any) {
        return STATUS_NOT_FOUND;
    }
    compaction_get_targets(pick->version, pick->options, &targets);
    enum status status = compaction__pick_level0(pick, COMPACTION_MANUAL, targets.base_level, ret_plan);
    return status == STATUS_NOT_FOUND ? STATUS_BUSY : status;
}

/* True if deeper levels have nothing of the range. */
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
        return pick_level0(pick, lower, upper, ret_plan);
    }
    size_t first;
    size_t count;
    bool busy = false;
    bool in_place = is_deepest(version, level, lower, upper);
    version_range(version, level, lower, upper, &first, &count);
    for (size_t i = first; i < first + count; i++) {
        const struct sst_meta *meta = &version->tables[level][i]->meta;
        struct compaction_choice choice;
        enum status status = STATUS_NOT_FOUND;
        if (in_place ? meta->number >= number_end : meta->revision_first > pick->asked_revision) {
            continue;
        }
        busy = true;
        if (in_place) {
            status = compaction__plan_in_place(pick, COMPACTION_MANUAL, level, i, ret_plan);
        } else if (compaction__choose_table(pick, COMPACTION_MANUAL, level, i, &choice)) {
            compaction__expand(pick, &choice);
            status = compaction__make_plan(pick, &choice, NULL, ret_plan);
        }
        if (status != STATUS_NOT_FOUND) {
            return status;
        }
    }
    return busy ? STATUS_BUSY : STATUS_NOT_FOUND;
}
