/*
 * Choosing what to compact: the order of the reasons, and of the levels.
 *
 * Level 0 and the base level need each other's tables. Whichever is further beyond its bound goes first: would level 0
 * always win, the base level would grow, and with it the cost of every compaction out of level 0; would it always lose,
 * it would starve, as it needs most of the base level free at once. So while it waits for what is taken, no further
 * table of the base level is.
 */
#include "storage/compaction_pick_internal.h"

const char *compaction_reason_name(enum compaction_reason reason) {
    static const char *const names[COMPACTION_REASON_COUNT] = {
        [COMPACTION_L0] = "level0",     [COMPACTION_L0_ONLY] = "level0_only",
        [COMPACTION_SIZE] = "size",     [COMPACTION_TOMBSTONES] = "tombstones",
        [COMPACTION_BOTTOM] = "bottom", [COMPACTION_HISTORY] = "history",
        [COMPACTION_VALUES] = "values", [COMPACTION_QUIET] = "quiet",
        [COMPACTION_MANUAL] = "manual",
    };
    return names[reason];
}

/* ---- Scores: hundredths of what is allowed; what is being compacted doesn't count ---------------------------- */

static uint64_t score(const struct compaction_pick *pick, const struct compaction_targets *targets, unsigned level) {
    const struct version *version = pick->version;
    uint64_t bytes = 0;
    for (size_t i = 0; i < version->counts[level]; i++) {
        const struct sst *sst = version->tables[level][i];
        bytes += sst->compacting ? 0 : sst->meta.size_bytes;
    }
    if (bytes == 0 || targets->bytes[level] == UINT64_MAX) {
        return 0;
    }
    if (targets->bytes[level] > 0) {
        return bytes / (targets->bytes[level] / 100 + 1);
    }
    /* Left over from a larger store or other options: it must go, but isn't more urgent than its size is. */
    uint64_t left = bytes / (pick->options->level_base_bytes / 100 + 1);
    return left > 100 ? left : 101;
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
    uint64_t by_bytes = bytes / (pick->options->level_base_bytes / 100 + 1);
    return by_files > by_bytes ? by_files : by_bytes;
}

/* ---- By size ------------------------------------------------------------------------------------------------- */

/* The table of the level with the least to be rewritten below, per byte. Both levels are walked once. */
static enum status pick_table(const struct compaction_pick *pick, unsigned level, struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    struct sst *const *below = version->tables[level + 1];
    size_t below_count = version->counts[level + 1];
    struct compaction_choice best = {0};
    uint64_t best_ratio = UINT64_MAX;
    size_t first = 0;
    for (size_t i = 0; i < version->counts[level]; i++) {
        const struct sst *sst = version->tables[level][i];
        uint64_t bytes = 0;
        while (first < below_count && version_ends_before(below[first], sst->meta.smallest)) {
            first++;
        }
        for (size_t at = first; at < below_count && !version_ends_before(sst, below[at]->meta.smallest); at++) {
            bytes += below[at]->meta.size_bytes;
        }
        uint64_t ratio = bytes / (sst->meta.size_bytes / 1024 + 1);
        struct compaction_choice choice;
        if (ratio < best_ratio && compaction__choose_table(pick, COMPACTION_SIZE, level, i, &choice)) {
            best_ratio = ratio;
            best = choice;
        }
    }
    if (best_ratio == UINT64_MAX) {
        return STATUS_NOT_FOUND;
    }
    compaction__expand(pick, &best);
    return compaction__make_plan(pick, &best, NULL, ret_plan);
}

/* The levels that are too large, the worst first. */
static enum status pick_by_size(const struct compaction_pick *pick, const uint64_t *all_scores, unsigned reserved,
                                struct compaction_plan *ret_plan) {
    uint64_t scores[MANIFEST_LEVELS];
    memcpy(scores, all_scores, sizeof scores);
    scores[0] = 0;
    scores[reserved] = 0;
    for (;;) {
        unsigned worst = 0;
        for (unsigned level = 1; level < MANIFEST_LEVELS - 1; level++) {
            worst = scores[level] > scores[worst] ? level : worst;
        }
        if (scores[worst] <= 100) {
            return STATUS_NOT_FOUND;
        }
        scores[worst] = 0;
        enum status status = worst + 1 == reserved ? STATUS_NOT_FOUND : pick_table(pick, worst, ret_plan);
        if (status != STATUS_NOT_FOUND) {
            return status;
        }
    }
}

/* ---- All together -------------------------------------------------------------------------------------------- */

enum status compaction_pick(const struct compaction_pick *pick, struct compaction_plan *ret_plan) {
    struct compaction_targets targets;
    uint64_t scores[MANIFEST_LEVELS];
    compaction_get_targets(pick->version, pick->options, &targets);
    scores[0] = score_level0(pick);
    for (unsigned level = 1; level < MANIFEST_LEVELS; level++) {
        scores[level] = score(pick, &targets, level);
    }
    unsigned base_level = targets.base_level;
    bool wanted = scores[0] >= 100;
    bool first = wanted && scores[0] >= scores[base_level];
    enum status status = STATUS_NOT_FOUND;
    if (first) {
        status = compaction__pick_level0(pick, COMPACTION_L0, base_level, ret_plan);
    }
    /* What is under way may be what level 0 waits for. */
    unsigned reserved = first && pick->under_way_count > 0 ? base_level : 0;
    if (status == STATUS_NOT_FOUND) {
        status = pick_by_size(pick, scores, reserved, ret_plan);
    }
    if (status == STATUS_NOT_FOUND && wanted && !first) {
        status = compaction__pick_level0(pick, COMPACTION_L0, base_level, ret_plan);
    }
    if (status == STATUS_NOT_FOUND && scores[0] >= 200) {
        status = compaction__pick_level0_only(pick, ret_plan);
    }
    if (status == STATUS_NOT_FOUND) {
        status = compaction__pick_for_space(pick, base_level, reserved, ret_plan);
    }
    if (status == STATUS_NOT_FOUND) {
        status = compaction__pick_for_values(pick, reserved, ret_plan);
    }
    if (status == STATUS_NOT_FOUND && pick->is_quiet && pick->version->counts[0] >= pick->options->l0_files_quiet) {
        status = compaction__pick_level0(pick, COMPACTION_QUIET, base_level, ret_plan);
    }
    return status;
}
