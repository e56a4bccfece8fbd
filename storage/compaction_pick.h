/*
 * What to compact next. Pure: from a version, the plans under way and the horizon to a plan.
 *
 * Levels have dynamic sizes (S. Dong et al., "Optimizing Space Amplification in RocksDB", CIDR 2017): the largest level
 * is the measure, each level above it may have a ratio-th of the one below. The base level is where that comes to
 * level_base_bytes or less; level 0 is compacted into it, levels between are empty.
 *
 *   reason      what                                                                          looked for
 *   L0          level 0 has too many tables, or bytes                                          by score
 *   SIZE        a level is larger than its target: the table with the least overlap below      by score
 *   L0_ONLY     level 0 is crowded, but what it must be merged with is taken: its newest tables among themselves
 *   TOMBSTONES  a table is mostly deletes, or has range deletes: they move towards their victims
 *   BOTTOM      deletes with nothing below them that no read can need any more: rewritten in place
 *   HISTORY     versions that the horizon has passed: rewritten in place
 *   VALUES      a value file with little left in it: a table that refers to it is rewritten in place, and the values
 *               move
 *   QUIET       level 0 has a few tables and hardly anything is written (quiet.c): into the base level
 *   MANUAL      compact_range.c asked
 *
 * A plan takes all that overlaps in its two levels, and is not made if any of that is taken (sst.compacting), or if a
 * plan under way writes into the same part of the output level. So any two plans under way touch different tables, no
 * key's versions pass each other, and the order of sources (version.h) holds after any of them, in any order.
 */
#ifndef HOLDFAST_STORAGE_COMPACTION_PICK_H
#define HOLDFAST_STORAGE_COMPACTION_PICK_H

#include "storage/version.h"

enum compaction_reason {
    COMPACTION_L0,
    COMPACTION_L0_ONLY,
    COMPACTION_SIZE,
    COMPACTION_TOMBSTONES,
    COMPACTION_BOTTOM,
    COMPACTION_HISTORY,
    COMPACTION_VALUES,
    COMPACTION_QUIET,
    COMPACTION_MANUAL,
    COMPACTION_REASON_COUNT
};

/* For statistics: one word. */
const char *compaction_reason_name(enum compaction_reason reason);

struct compaction_plan {
    enum compaction_reason reason;
    unsigned level;
    unsigned output_level; /* level + 1 or deeper; or `level`: in place */
    struct sst *
        *inputs[2]; /* of level (0: newest first) and of output_level, in the order of keys; one block of memory */
    size_t input_counts[2];
    struct sst **moved; /* inputs[0] in the order of keys, if trivial */
    uint64_t input_bytes;
    struct slice smallest; /* range of all inputs, borrowed from them */
    struct slice largest;
    bool largest_excluded;
    bool trivial; /* the inputs, of `level` only, may move as they are */
    bool bottom;  /* nothing deeper than output_level overlaps the range: what is settled here can go */
};

void compaction_plan_deinit(struct alloc *alloc, struct compaction_plan *plan);

/* True if a compaction for VALUES moves what is left in this value file: little, and it can be read. */
static inline bool compaction_moves_values(const struct sst *file, const struct value_use *use,
                                           const struct storage_options *options) {
    return !file->is_stuck && version_live_percent(file, use) < options->value_live_percent_min;
}

/* What bounds a table's overlap with the level below its own. */
static inline uint64_t compaction_overlap_max(const struct storage_options *options) { return 10 * options->sst_bytes; }

struct compaction_pick {
    struct alloc *alloc;
    const struct version *version;
    const struct storage_options *options;
    uint64_t horizon;
    const struct compaction_plan *const *under_way;
    size_t under_way_count;
    bool is_quiet;           /* hardly anything is written */
    uint64_t asked_revision; /* for compaction_pick_range: what is newer doesn't count */
};

/* STATUS_NOT_FOUND: nothing to do now. STATUS_NO_MEMORY. */
MUST_USE enum status compaction_pick(const struct compaction_pick *pick, struct compaction_plan *ret_plan);
/* Tables of this level that meet [lower, upper) (upper.len 0: no end) and have anything at or below asked_revision, as
 * many as one compaction should take, into the level below; the deepest that has any of the range in place, but only
 * tables with numbers below number_end. STATUS_NOT_FOUND: nothing of it is left in the level; STATUS_BUSY: what is left
 * is taken. STATUS_NO_MEMORY. */
MUST_USE enum status compaction_pick_range(const struct compaction_pick *pick, unsigned level, struct slice lower,
                                           struct slice upper, uint64_t number_end, struct compaction_plan *ret_plan);

/* How large each level may be: UINT64_MAX for the deepest, 0 for those that should be empty. */
struct compaction_targets {
    unsigned base_level; /* into which level 0 goes */
    uint64_t bytes[MANIFEST_LEVELS];
};

void compaction_get_targets(const struct version *version, const struct storage_options *options,
                            struct compaction_targets *ret_targets);
/* About the bytes that compactions must write until every level is within its target. */
uint64_t compaction_debt(const struct version *version, const struct storage_options *options);

#endif
