/*
 * Emptying value files: which table is rewritten so that what it has in a file with little left moves elsewhere.
 *
 * A table that was rewritten refers to new files, all of which is used; so each such compaction brings a file nearer to
 * its end, and none is done twice. Files with values that can't be read stay (sst.is_stuck).
 */
#include "node/base/check.h"
#include "storage/compaction_pick_internal.h"

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

static bool any_to_empty(const struct compaction_pick *pick) {
    const struct version *version = pick->version;
    for (size_t i = 0; i < version->value_file_count; i++) {
        if (compaction_moves_values(version->value_files[i], &version->value_uses[i], pick->options)) {
            return true;
        }
    }
    return false;
}

/* A table of level 0, by itself, in place. */
static enum status plan_in_level0(const struct compaction_pick *pick, size_t at, struct compaction_plan *ret_plan) {
    struct compaction_choice choice = {.reason = COMPACTION_VALUES, .count = {1, 0}};
    compaction__extend(&choice.range, &pick->version->tables[0][at]->meta);
    if (compaction__is_being_written(pick, 0, 0, &choice.range)) {
        return STATUS_NOT_FOUND;
    }
    bool *marked = mem_alloc_zero(pick->alloc, pick->version->counts[0] * sizeof marked[0]);
    if (marked == NULL) {
        return STATUS_NO_MEMORY;
    }
    marked[at] = true;
    enum status status = compaction__make_plan(pick, &choice, marked, ret_plan);
    mem_free(pick->alloc, marked);
    return status;
}

/* What the table has in other files that are to be emptied moves with it. */
enum status compaction__pick_for_values(const struct compaction_pick *pick, unsigned reserved,
                                        struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    unsigned least = 100;
    unsigned least_level = 0;
    size_t least_at = 0;
    if (!any_to_empty(pick)) {
        return STATUS_NOT_FOUND;
    }
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        bool is_reserved = level > 0 && level == reserved;
        for (size_t i = 0; i < version->counts[level] && !is_reserved; i++) {
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
    return least_level == 0 ? plan_in_level0(pick, least_at, ret_plan)
                            : compaction__plan_in_place(pick, COMPACTION_VALUES, least_level, least_at, ret_plan);
}
