/*
 * Choosing for space: what can go although no level is too large.
 *
 *   HISTORY     the horizon has passed what is superseded within the table: rewritten in place
 *   BOTTOM      deletes with nothing below them, all below the horizon: rewritten in place
 *   TOMBSTONES  deletes that the horizon has reached: a level down, towards what they delete
 *
 * Each makes progress, so none is chosen for ever: what is rewritten in place has nothing of the kind left, and what
 * moves down ends at the bottom.
 *
 * Moving deletes down costs a rewrite of all that they meet. That must be in proportion to what can be won: the space
 * of the versions that point deletes hide. Of range deletes that isn't known; they count as worth it if the cost is no
 * more than that of other compactions, or if nothing else is to be done.
 */
#include "storage/compaction_pick_internal.h"

enum { COST_MAX = 2 /* ... times what a compaction for size costs, per byte won */ };

static bool is_mostly_deletes(const struct compaction_pick *pick, const struct sst_meta *meta) {
    uint64_t deletes = meta->deletes + meta->tombstones; /* at most the sum of both, which fits (manifest_edit.c) */
    return compaction__is_share(deletes, meta->entries + meta->tombstones, pick->options->tombstone_percent);
}

static bool wants_down(const struct compaction_pick *pick, const struct sst_meta *meta) {
    return meta->revision_first <= pick->horizon && (meta->tombstones > 0 || is_mostly_deletes(pick, meta));
}

/* Bytes that point deletes hide below, if each hides one version of the usual size there. */
static uint64_t estimate_gain(const struct version *version, const struct compaction_choice *choice,
                              const struct sst_meta *meta, uint64_t below_bytes) {
    uint64_t entries = 1;
    for (size_t i = choice->first[1]; i < choice->first[1] + choice->count[1]; i++) {
        entries += version->tables[choice->output_level][i]->meta.entries;
    }
    return meta->deletes >= entries ? below_bytes : below_bytes / entries * meta->deletes;
}

static bool is_worth_it(const struct compaction_pick *pick, const struct compaction_choice *choice,
                        const struct sst_meta *meta) {
    uint64_t below_bytes =
        compaction__run_bytes(pick->version, choice->output_level, choice->first[1], choice->count[1]);
    uint64_t won = meta->size_bytes + estimate_gain(pick->version, choice, meta, below_bytes);
    bool is_idle = pick->under_way_count == 0;
    return below_bytes / COST_MAX / pick->options->level_ratio <= won || (meta->tombstones > 0 && is_idle);
}

static enum status pick_table(const struct compaction_pick *pick, unsigned level, size_t at, unsigned reserved,
                              struct compaction_plan *ret_plan) {
    const struct sst *sst = pick->version->tables[level][at];
    const struct sst_meta *meta = &sst->meta;
    struct compaction_choice choice;
    struct compaction_range range = {0};
    if (sst->compacting) {
        return STATUS_NOT_FOUND;
    }
    if (compaction__has_history(pick, meta, pick->options->history_percent)) {
        return compaction__plan_in_place(pick, COMPACTION_HISTORY, level, at, ret_plan);
    }
    bool down = wants_down(pick, meta);
    bool settled = compaction__has_settled_deletes(pick, meta);
    if (!down && !settled) {
        return STATUS_NOT_FOUND;
    }
    compaction__extend(&range, meta);
    if (compaction__is_bottom(pick->version, level, &range)) {
        return settled ? compaction__plan_in_place(pick, COMPACTION_BOTTOM, level, at, ret_plan) : STATUS_NOT_FOUND;
    }
    if (!down || level + 1 == reserved || !compaction__choose_table(pick, COMPACTION_TOMBSTONES, level, at, &choice) ||
        !is_worth_it(pick, &choice, meta)) {
        return STATUS_NOT_FOUND;
    }
    return compaction__make_plan(pick, &choice, NULL, ret_plan);
}

/* Level 0 isn't full, but some of it deletes much. Only when nothing else is to be done: full, it costs less. */
static enum status pick_level0(const struct compaction_pick *pick, unsigned base_level,
                               struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    bool wanted = false;
    for (size_t i = 0; i < version->counts[0] && pick->under_way_count == 0; i++) {
        const struct sst *sst = version->tables[0][i];
        wanted = wanted || (!sst->compacting && wants_down(pick, &sst->meta));
    }
    return wanted ? compaction__pick_level0(pick, COMPACTION_TOMBSTONES, base_level, ret_plan) : STATUS_NOT_FOUND;
}

enum status compaction__pick_for_space(const struct compaction_pick *pick, unsigned base_level, unsigned reserved,
                                       struct compaction_plan *ret_plan) {
    enum status status = pick_level0(pick, base_level, ret_plan);
    for (unsigned level = 1; level < MANIFEST_LEVELS && status == STATUS_NOT_FOUND; level++) {
        if (level == reserved) {
            continue;
        }
        for (size_t i = 0; i < pick->version->counts[level] && status == STATUS_NOT_FOUND; i++) {
            status = pick_table(pick, level, i, reserved, ret_plan);
        }
    }
    return status;
}
