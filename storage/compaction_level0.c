/*
 * Choosing from level 0, whose tables overlap and are ordered by age only.
 *
 * A table may leave level 0 only together with, or after, every older one that it overlaps: what passes an older table
 * would be hidden behind it. Newer ones may stay. They come along where they meet the same keys, as the level below is
 * rewritten anyway; where one of them is taken, it and all that is newer than it stay.
 *
 * What meets nothing of each other is left to separate plans, which may run at once. Otherwise two small tables at both
 * ends of the key space would cost the whole level between them.
 */
#include "storage/compaction_pick_internal.h"

#include "node/base/check.h"

#include <string.h>

enum {
    LEVEL0_ONLY_FILES_MIN = 4, /* fewer than that aren't worth it */
    SEEDS_MAX = 64             /* tables that are tried as the beginning of a plan: the oldest */
};

/* Marks all tables from place `first` on that must or should go along with those that are marked, until nothing more
 * is added; each round adds at least one. False if an older one is taken that must. */
static bool close_level0(const struct version *version, bool *marked, struct compaction_choice *choice) {
    size_t first = 0;
    bool more = true;
    while (more) {
        size_t newest = 0; /* marked */
        more = false;
        while (newest < version->counts[0] && !marked[newest]) {
            newest++;
        }
        for (size_t i = version->counts[0]; i-- > first;) {
            const struct sst *sst = version->tables[0][i];
            if (marked[i] || !compaction__meets(&choice->range, sst)) {
                continue;
            }
            if (sst->compacting && i > newest) {
                return false;
            }
            if (sst->compacting) {
                first = i + 1;
                break;
            }
            marked[i] = true;
            newest = i < newest ? i : newest;
            choice->count[0]++;
            compaction__extend(&choice->range, &sst->meta);
            more = true;
        }
    }
    return true;
}

/* More of level 0 that lies within what the plan rewrites below anyway. */
static void absorb(const struct compaction_pick *pick, bool *marked, bool *wider_marked,
                   struct compaction_choice *choice) {
    const struct version *version = pick->version;
    struct compaction_choice wider = *choice;
    size_t first = choice->first[1];
    size_t count = choice->count[1];
    memcpy(wider_marked, marked, version->counts[0] * sizeof marked[0]);
    if (count > 0 && close_level0(version, wider_marked, &wider) && wider.count[0] > choice->count[0] &&
        compaction__add_output_level(pick, &wider) && wider.first[1] == first && wider.count[1] == count) {
        memcpy(marked, wider_marked, version->counts[0] * sizeof marked[0]);
        *choice = wider;
    }
}

/* Small tables that meet nothing would pile up side by side: they are merged, with a small one in front of them, too.
 * True if it is so. */
static bool add_small_neighbour(const struct compaction_pick *pick, const bool *marked,
                                struct compaction_choice *choice) {
    const struct version *version = pick->version;
    uint64_t bytes = 0;
    for (size_t i = 0; i < version->counts[0]; i++) {
        bytes += marked[i] ? version->tables[0][i]->meta.size_bytes : 0;
    }
    if (choice->count[1] > 0 || bytes / choice->count[0] >= compaction_small_bytes(pick->options)) {
        return false;
    }
    if (choice->first[1] == 0) {
        return true;
    }
    struct compaction_choice wider = *choice;
    const struct sst *neighbour = version->tables[choice->output_level][choice->first[1] - 1];
    compaction__extend(&wider.range, &neighbour->meta);
    if (neighbour->meta.size_bytes < pick->options->sst_bytes / 2 && compaction__add_output_level(pick, &wider) &&
        wider.count[1] == 1) {
        *choice = wider;
    }
    return true;
}

/* All of level 0 at once, if it can simply move. */
static bool choose_all(const struct compaction_pick *pick, bool *marked, struct compaction_choice *choice) {
    const struct version *version = pick->version;
    for (size_t i = 0; i < version->counts[0]; i++) {
        if (version->tables[0][i]->compacting) {
            return false;
        }
        marked[i] = true;
        compaction__extend(&choice->range, &version->tables[0][i]->meta);
        choice->count[0]++;
    }
    return choice->count[0] > 0 && compaction__add_output_level(pick, choice) && choice->count[1] == 0;
}

/* The oldest table for which it works, with what must go along. */
static bool choose_some(const struct compaction_pick *pick, bool *marked, bool *spare,
                        struct compaction_choice *choice) {
    const struct version *version = pick->version;
    struct compaction_choice empty = *choice;
    size_t tries = 0;
    for (size_t seed = version->counts[0]; seed-- > 0 && tries < SEEDS_MAX;) {
        if (version->tables[0][seed]->compacting) {
            continue;
        }
        tries++;
        *choice = empty;
        memset(marked, 0, version->counts[0] * sizeof marked[0]);
        marked[seed] = true;
        choice->count[0] = 1;
        compaction__extend(&choice->range, &version->tables[0][seed]->meta);
        if (close_level0(version, marked, choice) && compaction__add_output_level(pick, choice)) {
            absorb(pick, marked, spare, choice);
            (void)add_small_neighbour(pick, marked, choice);
            return true;
        }
    }
    return false;
}

enum status compaction__pick_level0(const struct compaction_pick *pick, enum compaction_reason reason,
                                    unsigned base_level, struct compaction_plan *ret_plan) {
    struct compaction_choice empty = {.reason = reason, .level = 0, .output_level = base_level};
    struct compaction_choice choice = empty;
    size_t count = pick->version->counts[0];
    bool *marked = mem_alloc_zero(pick->alloc, 2 * count * sizeof marked[0] + 1);
    if (marked == NULL) {
        return STATUS_NO_MEMORY;
    }
    enum status status = STATUS_NOT_FOUND;
    if (choose_all(pick, marked, &choice)) {
        bool small = add_small_neighbour(pick, marked, &choice);
        status = compaction__make_plan(pick, &choice, marked, ret_plan);
        if (status == STATUS_OK && !ret_plan->trivial && !small) {
            compaction_plan_deinit(pick->alloc, ret_plan);
            status = STATUS_NOT_FOUND;
        }
    }
    if (status == STATUS_NOT_FOUND) {
        choice = empty;
        if (choose_some(pick, marked, marked + count, &choice)) {
            status = compaction__make_plan(pick, &choice, marked, ret_plan);
        }
    }
    mem_free(pick->alloc, marked);
    return status;
}

enum status compaction__pick_level0_only(const struct compaction_pick *pick, struct compaction_plan *ret_plan) {
    const struct version *version = pick->version;
    struct compaction_choice choice = {.reason = COMPACTION_L0_ONLY};
    bool *marked = mem_alloc_zero(pick->alloc, version->counts[0] * sizeof marked[0] + 1);
    if (marked == NULL) {
        return STATUS_NO_MEMORY;
    }
    uint64_t bytes = 0;
    for (size_t i = 0; i < version->counts[0] && !version->tables[0][i]->compacting; i++) {
        uint64_t size_bytes = version->tables[0][i]->meta.size_bytes;
        /* What was merged before is left alone until there is as much again. */
        if (choice.count[0] >= LEVEL0_ONLY_FILES_MIN && size_bytes > bytes) {
            break;
        }
        marked[i] = true;
        choice.count[0]++;
        bytes += size_bytes;
        compaction__extend(&choice.range, &version->tables[0][i]->meta);
    }
    enum status status = STATUS_NOT_FOUND;
    if (choice.count[0] >= LEVEL0_ONLY_FILES_MIN && !compaction__is_being_written(pick, 0, 0, &choice.range)) {
        status = compaction__make_plan(pick, &choice, marked, ret_plan);
    }
    mem_free(pick->alloc, marked);
    return status;
}
