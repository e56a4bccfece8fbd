/*
 * Between choosing and planning: what has been chosen so far, and whether anything under way stands against it.
 * Private to the picker (compaction_pick.c, compaction_plan.c, compaction_level0.c, compaction_space.c,
 * compaction_by_hand.c).
 *
 * A choice begins with tables of one level; compaction__add_output_level adds what they meet in the level that they go
 * to and says whether they may; compaction__make_plan makes it a plan. Nothing is marked as taken: the owner does that.
 */
#ifndef HOLDFAST_STORAGE_COMPACTION_PICK_INTERNAL_H
#define HOLDFAST_STORAGE_COMPACTION_PICK_INTERNAL_H

#include "storage/compaction_pick.h"

enum { COMPACTION_LAST_LEVEL = MANIFEST_LEVELS - 1 };

/* [smallest, largest], or [smallest, largest). Keys are borrowed from tables. */
struct compaction_range {
    struct slice smallest;
    struct slice largest;
    bool largest_excluded;
    bool is_set;
};

struct compaction_choice {
    enum compaction_reason reason;
    unsigned level;
    unsigned output_level;
    size_t first[2]; /* runs of tables: of level (deeper than 0 only), of output_level */
    size_t count[2]; /* level 0: as many are marked in the bitmap that goes along */
    struct compaction_range range;
};

/* Tables of level 0 that have less than this on average are merged, not moved one by one. */
static inline uint64_t compaction_small_bytes(const struct storage_options *options) { return options->sst_bytes / 16; }

void compaction__extend(struct compaction_range *range, const struct sst_meta *meta);
bool compaction__meets(const struct compaction_range *range, const struct sst *sst);
/* The tables of a level (not 0) that meet the range. */
void compaction__overlap(const struct version *version, unsigned level, const struct compaction_range *range,
                         size_t *ret_first, size_t *ret_count);
uint64_t compaction__run_bytes(const struct version *version, unsigned level, size_t first, size_t count);
bool compaction__any_taken(const struct version *version, unsigned level, size_t first, size_t count);
/* Nothing deeper than output_level overlaps the range; false for level 0. */
bool compaction__is_bottom(const struct version *version, unsigned output_level, const struct compaction_range *range);
/* part is at least so many percent of whole, and not 0. Any numbers. */
bool compaction__is_share(uint64_t part, uint64_t whole, uint32_t percent);
/* Deletes that are worth a rewrite where there is nothing deeper, as no read needs them any more. */
bool compaction__has_settled_deletes(const struct compaction_pick *pick, const struct sst_meta *meta);
/* All versions that are superseded within the table are below the horizon, and are so many percent of it. */
bool compaction__has_history(const struct compaction_pick *pick, const struct sst_meta *meta, uint32_t percent);

/* A plan under way will put tables into this range of the output level, or between the two levels: what comes from
 * `level` is newer and may not get below them. */
bool compaction__is_being_written(const struct compaction_pick *pick, unsigned level, unsigned output_level,
                                  const struct compaction_range *range);
/* Adds what overlaps of the output level. False if something there is taken or being written. */
bool compaction__add_output_level(const struct compaction_pick *pick, struct compaction_choice *choice);
/* A table of a deeper level, with all that it meets below. False: something of that is taken. */
bool compaction__choose_table(const struct compaction_pick *pick, enum compaction_reason reason, unsigned level,
                              size_t at, struct compaction_choice *ret_choice);
/* Takes in neighbours that meet nothing more below: they come for nothing. */
void compaction__expand(const struct compaction_pick *pick, struct compaction_choice *choice);

/* level0: the marked tables, for choices of level 0. STATUS_NO_MEMORY. */
MUST_USE enum status compaction__make_plan(const struct compaction_pick *pick, const struct compaction_choice *choice,
                                           const bool *level0, struct compaction_plan *ret_plan);
/* A table rewritten where it is. STATUS_NOT_FOUND: not now. */
MUST_USE enum status compaction__plan_in_place(const struct compaction_pick *pick, enum compaction_reason reason,
                                               unsigned level, size_t at, struct compaction_plan *ret_plan);

/* ---- compaction_level0.c: STATUS_NOT_FOUND: not now --------------------------------------------------------- */

/* Tables of level 0 into the base level. */
MUST_USE enum status compaction__pick_level0(const struct compaction_pick *pick, enum compaction_reason reason,
                                             unsigned base_level, struct compaction_plan *ret_plan);
/* The newest tables that aren't taken, merged into one: reads have fewer to look at, and level 0 its room. */
MUST_USE enum status compaction__pick_level0_only(const struct compaction_pick *pick, struct compaction_plan *ret_plan);

/* ---- compaction_space.c ------------------------------------------------------------------------------------- */

/* What no level's size asks for: deletes, and what the horizon has passed. `reserved`: a level whose tables are left
 * alone; 0: none. STATUS_NOT_FOUND: nothing to do now. */
MUST_USE enum status compaction__pick_for_space(const struct compaction_pick *pick, unsigned base_level,
                                                unsigned reserved, struct compaction_plan *ret_plan);

/* ---- compaction_values.c ------------------------------------------------------------------------------------ */

/* The table that refers to the emptiest value file, if that is to be emptied. As above. */
MUST_USE enum status compaction__pick_for_values(const struct compaction_pick *pick, unsigned reserved,
                                                 struct compaction_plan *ret_plan);

#endif
