/*
 * The search. The contract, and why its cuts lose nothing, is in search.h.
 *
 * Two rings of nodes hold what isn't placed yet. That of the operations that must take effect has, in the order of
 * time, a node for the begin (its number is the item's) and one for the end (item_count + item); whatever begins before
 * the first end in it may come next. The other ring has the begins of those that may never happen. Placing takes an
 * item's nodes out, taking back puts them in again, newest first, so that their old neighbours are there.
 *
 *             +--> reads that fit are placed --> new state? --yes--> a choice is placed --+
 *             |                                     | no                 | none left      |
 *             |                                     v                    v                |
 *             |                              back to the last choice, which is taken back |
 *             +---------------------------------------------------------------------------+
 */
#include "tests/chaos/check/search.h"

#include "node/base/check.h"
#include "tests/chaos/check/model.h"
#include "tests/chaos/check/seen.h"

#include <stdlib.h>

enum { RINGS = 2, BYTES_PER_VALUE = 128 /* that a search makes, roughly */ };

struct frame {
    uint32_t item;
    bool is_forced; /* a read that fitted: no choice */
};

struct search {
    const struct search_problem *problem;
    const struct check_operation *operations;
    const struct check_part *parts;
    struct alloc *alloc;
    uint32_t item_count;
    uint32_t head;          /* of the ring of what must happen; head + 1: of what may */
    uint32_t *next;         /* by node */
    uint32_t *previous;     /* by node */
    uint32_t *rank;         /* by item: among those of its kind, by begin */
    uint32_t *begun_before; /* by item: how many that must happen begin before its end */
    uint8_t *is_read;       /* by item */
    uint64_t *required_bits;
    uint64_t *optional_bits;
    uint32_t optional_words;
    struct frame *frames;
    uint32_t frame_count;
    uint32_t *undo; /* of the frames that aren't forced, one behind the other */
    size_t undo_count;
    uint32_t *state;
    uint64_t *key; /* room for a state in the words of `seen` */
    struct seen seen;
    uint64_t steps;
    uint32_t values_max;
    uint32_t first_end; /* node, or head: everything that must happen is placed */
    bool is_stuck_noted;
    struct search_result result;
};

static const struct check_part *parts_of(const struct search *search, uint32_t item) {
    return &search->parts[search->operations[search->problem->items[item].operation].part];
}

static uint32_t part_count_of(const struct search *search, uint32_t item) {
    return search->operations[search->problem->items[item].operation].part_count;
}

static bool is_optional(const struct search *search, uint32_t item) {
    return search->problem->items[item].end == CHECK_NEVER;
}

/* ---- Building ---------------------------------------------------------------------------------------------------- */

struct event {
    uint32_t at;
    uint32_t node;
};

static int compare_events(const void *left, const void *right) {
    const struct event *a = left;
    const struct event *b = right;
    return a->at < b->at ? -1 : a->at > b->at;
}

static int compare_u64(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static void ring_append(struct search *search, uint32_t head, uint32_t node) {
    uint32_t last = search->previous[head];
    search->next[last] = node;
    search->previous[node] = last;
    search->next[node] = head;
    search->previous[head] = node;
}

static enum status allocate(struct search *search) {
    const struct search_problem *problem = search->problem;
    struct alloc *alloc = search->alloc;
    size_t count = problem->item_count;
    size_t nodes = 2 * count + RINGS;
    size_t words = count / 64 + 1;
    size_t undo = 1;
    for (uint32_t i = 0; i < problem->item_count; i++) {
        undo += part_count_of(search, i);
    }
    search->next = mem_alloc(alloc, nodes * sizeof *search->next);
    search->previous = mem_alloc(alloc, nodes * sizeof *search->previous);
    search->rank = mem_alloc_zero(alloc, (count + 1) * sizeof *search->rank);
    search->begun_before = mem_alloc_zero(alloc, (count + 1) * sizeof *search->begun_before);
    search->is_read = mem_alloc_zero(alloc, count + 1);
    search->required_bits = mem_alloc_zero(alloc, words * sizeof *search->required_bits);
    search->optional_bits = mem_alloc_zero(alloc, words * sizeof *search->optional_bits);
    search->frames = mem_alloc(alloc, (count + 1) * sizeof *search->frames);
    search->undo = mem_alloc(alloc, undo * sizeof *search->undo);
    search->state = mem_alloc_zero(alloc, ((size_t)problem->slot_count + 1) * sizeof *search->state);
    search->key = mem_alloc(alloc, (2 * words + problem->slot_count + 2) * sizeof *search->key);
    search->result.state = mem_alloc(alloc, ((size_t)problem->slot_count + 1) * sizeof *search->result.state);
    bool made = search->next != NULL && search->previous != NULL && search->rank != NULL &&
                search->begun_before != NULL && search->is_read != NULL && search->required_bits != NULL &&
                search->optional_bits != NULL && search->frames != NULL && search->undo != NULL &&
                search->state != NULL && search->key != NULL && search->result.state != NULL;
    return made ? STATUS_OK : STATUS_NO_MEMORY;
}

/* What anybody may see, sorted: slot and value of a get's result. A slot with something that looks at whatever is there
 * stands with CHECK_ANY. */
static enum status collect_seen(const struct search *search, uint64_t **ret_pairs, size_t *ret_count) {
    const struct search_problem *problem = search->problem;
    size_t count = 0;
    for (uint32_t i = 0; i < problem->item_count; i++) {
        count += part_count_of(search, i);
    }
    uint64_t *pairs = mem_alloc(search->alloc, (count + 1) * sizeof *pairs);
    if (pairs == NULL) {
        return STATUS_NO_MEMORY;
    }
    count = 0;
    for (uint32_t i = 0; i < problem->item_count; i++) {
        for (uint32_t at = 0; at < part_count_of(search, i); at++) {
            const struct check_part *part = &parts_of(search, i)[at];
            if (part->kind != CHECK_PUT) {
                uint32_t value = part->kind == CHECK_GET ? part->result : CHECK_ANY;
                if (part->kind != CHECK_GET || value != CHECK_ANY) {
                    pairs[count++] = (uint64_t)problem->slots[part->key] << 32 | value;
                }
            }
        }
    }
    qsort(pairs, count, sizeof *pairs, compare_u64);
    *ret_pairs = pairs;
    *ret_count = count;
    return STATUS_OK;
}

/* True if it may be left out: it only reads, or only writes what nobody saw. */
static bool is_pointless(const struct search *search, uint32_t item, const uint64_t *pairs, size_t pair_count) {
    const struct check_part *parts = parts_of(search, item);
    for (uint32_t i = 0; i < part_count_of(search, item); i++) {
        uint64_t slot = (uint64_t)search->problem->slots[parts[i].key] << 32;
        uint64_t exactly = slot | parts[i].value;
        uint64_t whatever = slot | CHECK_ANY;
        if (check_part_is_read(&parts[i])) {
            continue;
        }
        if (parts[i].kind != CHECK_PUT || bsearch(&exactly, pairs, pair_count, sizeof *pairs, compare_u64) != NULL ||
            bsearch(&whatever, pairs, pair_count, sizeof *pairs, compare_u64) != NULL) {
            return false;
        }
    }
    return true;
}

static enum status build_rings(struct search *search) {
    const struct search_problem *problem = search->problem;
    uint64_t *pairs = NULL;
    size_t pair_count = 0;
    uint32_t event_count = 0;
    uint32_t required = 0;
    uint32_t optional = 0;
    struct event *events = mem_alloc(search->alloc, (2 * (size_t)problem->item_count + 1) * sizeof *events);
    enum status status = events == NULL ? STATUS_NO_MEMORY : collect_seen(search, &pairs, &pair_count);
    if (status != STATUS_OK) {
        goto out;
    }
    for (uint32_t head = search->head; head < search->head + RINGS; head++) {
        search->next[head] = search->previous[head] = head;
    }
    for (uint32_t i = 0; i < problem->item_count; i++) {
        const struct search_item *item = &problem->items[i];
        CHECK(i == 0 || problem->items[i - 1].begin < item->begin);
        search->is_read[i] = 1;
        for (uint32_t at = 0; at < part_count_of(search, i); at++) {
            search->is_read[i] = search->is_read[i] != 0 && check_part_is_read(&parts_of(search, i)[at]);
        }
        if (!is_optional(search, i)) {
            CHECK(item->begin < item->end);
            events[event_count++] = (struct event){.at = item->begin, .node = i};
            events[event_count++] = (struct event){.at = item->end, .node = problem->item_count + i};
        } else if (!is_pointless(search, i, pairs, pair_count)) {
            search->rank[i] = optional++;
            ring_append(search, search->head + 1, i);
        }
    }
    qsort(events, event_count, sizeof *events, compare_events);
    for (uint32_t i = 0; i < event_count; i++) {
        uint32_t node = events[i].node;
        ring_append(search, search->head, node);
        if (node < problem->item_count) {
            search->rank[node] = required++;
        } else {
            search->begun_before[node - problem->item_count] = required;
        }
    }
    search->optional_words = (optional + 63) / 64;
out:
    mem_free(search->alloc, events);
    mem_free(search->alloc, pairs);
    return status;
}

/* ---- Placing and taking back ------------------------------------------------------------------------------------- */

static void unlink_node(struct search *search, uint32_t node) {
    search->next[search->previous[node]] = search->next[node];
    search->previous[search->next[node]] = search->previous[node];
}

static void relink_node(struct search *search, uint32_t node) {
    search->next[search->previous[node]] = node;
    search->previous[search->next[node]] = node;
}

/* Its effect is on the state already. */
static void place(struct search *search, uint32_t item, bool is_forced) {
    uint64_t *bits = is_optional(search, item) ? search->optional_bits : search->required_bits;
    CHECK(search->frame_count < search->item_count);
    bits[search->rank[item] / 64] |= (uint64_t)1 << search->rank[item] % 64;
    unlink_node(search, item);
    if (!is_optional(search, item)) {
        unlink_node(search, search->item_count + item);
    }
    search->frames[search->frame_count++] = (struct frame){.item = item, .is_forced = is_forced};
    search->undo_count += is_forced ? 0 : part_count_of(search, item);
}

static struct frame take_back(struct search *search) {
    struct frame frame = search->frames[--search->frame_count];
    uint64_t *bits = is_optional(search, frame.item) ? search->optional_bits : search->required_bits;
    bits[search->rank[frame.item] / 64] &= ~((uint64_t)1 << search->rank[frame.item] % 64);
    if (!is_optional(search, frame.item)) {
        relink_node(search, search->item_count + frame.item);
    }
    relink_node(search, frame.item);
    if (!frame.is_forced) {
        search->undo_count -= part_count_of(search, frame.item);
        model_undo(parts_of(search, frame.item), part_count_of(search, frame.item), search->problem->slots,
                   search->state, &search->undo[search->undo_count]);
    }
    return frame;
}

/* The item against the state; its effect stays. */
static enum status try_item(struct search *search, uint32_t item, enum model_effect *ret_effect) {
    search->steps++;
    return model_apply(search->problem->values, parts_of(search, item), part_count_of(search, item),
                       search->problem->slots, search->state, &search->undo[search->undo_count], ret_effect);
}

/* Sets first_end. */
static enum status place_reads(struct search *search) {
    uint32_t node = search->next[search->head];
    while (node < search->item_count) {
        enum model_effect effect = MODEL_NO;
        uint32_t before = search->previous[node];
        if (search->is_read[node] != 0) {
            enum status status = try_item(search, node, &effect);
            if (status != STATUS_OK) {
                return status;
            }
        }
        if (effect != MODEL_NO) {
            place(search, node, true);
            node = search->next[before];
        } else {
            node = search->next[node];
        }
    }
    search->first_end = node;
    return STATUS_OK;
}

/* ---- Choices ----------------------------------------------------------------------------------------------------- */

/* Would `other`, if it came next, see a difference made by the optional item, and not undo all of it? (If the answer is
 * no for all that may come next, the item may come later, or never.) */
static bool depends(const struct search *search, uint32_t other, uint32_t item) {
    const struct check_part *theirs = parts_of(search, other);
    const struct check_part *ours = parts_of(search, item);
    uint32_t covered = 0; /* parts of ours that are only written over */
    bool overlaps = false;
    for (uint32_t i = 0; i < part_count_of(search, item); i++) {
        bool is_covered = false;
        for (uint32_t at = 0; at < part_count_of(search, other); at++) {
            if (theirs[at].key != ours[i].key) {
                continue;
            }
            bool is_other_value =
                theirs[at].kind == CHECK_GET && ours[i].kind == CHECK_PUT && theirs[at].result != ours[i].value;
            if (theirs[at].kind != CHECK_PUT && !is_other_value) {
                return true;
            }
            overlaps = overlaps || theirs[at].kind == CHECK_PUT;
            is_covered = is_covered || theirs[at].kind == CHECK_PUT;
        }
        covered += is_covered;
    }
    return overlaps && covered < part_count_of(search, item);
}

static uint32_t first_end_at(const struct search *search) {
    CHECK(search->first_end >= search->item_count && search->first_end < search->head);
    return search->problem->items[search->first_end - search->item_count].end;
}

static bool is_useful(struct search *search, uint32_t item) {
    uint32_t end_at = first_end_at(search);
    search->steps++;
    for (uint32_t node = search->next[search->head]; node < search->item_count; node = search->next[node]) {
        if (depends(search, node, item)) {
            return true;
        }
    }
    for (uint32_t node = search->next[search->head + 1];
         node < search->item_count && search->problem->items[node].begin < end_at; node = search->next[node]) {
        if (node != item && depends(search, node, item)) {
            return true;
        }
    }
    return false;
}

/* Places the next choice: what must happen first, from `node` on, then what may. */
static enum status choose(struct search *search, bool among_optional, uint32_t node, bool *ret_placed) {
    uint32_t end_at = first_end_at(search);
    enum model_effect effect = MODEL_NO;
    enum status status = STATUS_OK;
    *ret_placed = false;
    for (; !among_optional && node < search->item_count; node = search->next[node]) {
        if (search->is_read[node] != 0) {
            continue; /* it didn't fit, or it would have been placed */
        }
        status = try_item(search, node, &effect);
        if (status != STATUS_OK || effect != MODEL_NO) {
            goto out;
        }
    }
    node = among_optional ? node : search->next[search->head + 1];
    for (; node < search->item_count && search->problem->items[node].begin < end_at; node = search->next[node]) {
        if (!is_useful(search, node)) {
            continue;
        }
        status = try_item(search, node, &effect);
        if (status != STATUS_OK || effect == MODEL_CHANGED) {
            goto out;
        }
    }
    return STATUS_OK;
out:
    if (status == STATUS_OK) {
        place(search, node, false);
        *ret_placed = true;
    }
    return status;
}

/* What is placed, and the state, as words: how many of those that must happen are placed from the front on, in whole
 * words; the words up to the last that can have a bit; the others' bits; the state. */
static bool is_new_state(struct search *search) {
    uint32_t first = search->rank[search->next[search->head]] / 64;
    uint32_t end = (search->begun_before[search->first_end - search->item_count] + 63) / 64;
    uint32_t count = 0;
    CHECK(search->next[search->head] < search->item_count && first < end);
    search->key[count++] = (uint64_t)first << 32 | (end - first);
    for (uint32_t i = first; i < end; i++) {
        search->key[count++] = search->required_bits[i];
    }
    for (uint32_t i = 0; i < search->optional_words; i++) {
        search->key[count++] = search->optional_bits[i];
    }
    for (uint32_t i = 0; i < search->problem->slot_count; i += 2) {
        uint32_t second = i + 1 < search->problem->slot_count ? search->state[i + 1] : 0;
        search->key[count++] = (uint64_t)search->state[i] << 32 | second;
    }
    return seen_add(&search->seen, search->key, count);
}

/* ---- The whole --------------------------------------------------------------------------------------------------- */

/* No order that begins like this goes on: what it looks like, if none went further. */
static void note_stuck(struct search *search) {
    struct search_result *result = &search->result;
    uint32_t at = first_end_at(search);
    if (search->is_stuck_noted &&
        (at < result->stuck_at || (at == result->stuck_at && search->frame_count <= result->placed_count))) {
        return;
    }
    search->is_stuck_noted = true;
    result->stuck_at = at;
    result->placed_count = search->frame_count;
    uint32_t shown = search->frame_count < SEARCH_SHOWN_MAX ? search->frame_count : SEARCH_SHOWN_MAX;
    for (uint32_t i = 0; i < shown; i++) {
        uint32_t item = search->frames[search->frame_count - shown + i].item;
        result->placed[i] = search->problem->items[item].operation;
    }
    result->placed_shown = shown;
    result->stuck_shown = 0;
    for (uint32_t node = search->next[search->head]; node < search->item_count; node = search->next[node]) {
        if (result->stuck_shown < SEARCH_SHOWN_MAX) {
            result->stuck[result->stuck_shown++] = search->problem->items[node].operation;
        }
    }
    memcpy(result->state, search->state, search->problem->slot_count * sizeof *search->state);
}

/* Behind a placed item. *ret_go_on: there is more to choose here; else it is all over, or this leads nowhere. */
static enum status arrive(struct search *search, bool *ret_go_on) {
    enum status status = place_reads(search);
    if (status != STATUS_OK) {
        return status;
    }
    if (search->first_end == search->head) {
        search->result.verdict = CHECK_LINEARIZABLE;
        *ret_go_on = false;
        return STATUS_OK;
    }
    *ret_go_on = is_new_state(search);
    return STATUS_OK;
}

/* Takes the last choice back. False: there was none. */
static bool back(struct search *search, struct frame *ret_frame) {
    while (search->frame_count > 0) {
        *ret_frame = take_back(search);
        if (!ret_frame->is_forced) {
            uint32_t node = search->next[search->head];
            while (node < search->item_count) {
                node = search->next[node];
            }
            search->first_end = node;
            return true;
        }
    }
    return false;
}

static bool is_spent(const struct search *search) {
    return search->steps > search->problem->steps_max || search->problem->values->count > search->values_max;
}

static enum status run(struct search *search) {
    bool go_on = true;
    bool among_optional = false;
    uint32_t from = 0;
    enum status status = arrive(search, &go_on);
    from = search->next[search->head];
    while (status == STATUS_OK && search->result.verdict != CHECK_LINEARIZABLE) {
        bool placed = false;
        if (is_spent(search)) {
            return STATUS_OK;
        }
        if (go_on) {
            status = choose(search, among_optional, from, &placed);
        }
        if (status == STATUS_OK && placed) {
            status = arrive(search, &go_on);
            among_optional = false;
            from = search->next[search->head];
            continue;
        }
        if (status == STATUS_OK && go_on) {
            note_stuck(search);
        }
        struct frame frame;
        if (status == STATUS_OK && !back(search, &frame)) {
            search->result.verdict = CHECK_VIOLATION;
            return STATUS_OK;
        }
        if (status == STATUS_OK) {
            go_on = true;
            among_optional = is_optional(search, frame.item);
            from = search->next[frame.item];
        }
    }
    return status;
}

enum status search_prune(const struct search_problem *problem, struct search_item *items, uint32_t *count) {
    const struct search search = {.problem = problem,
                                  .operations = problem->history->operations,
                                  .parts = problem->history->parts,
                                  .alloc = problem->history->alloc};
    uint64_t *pairs = NULL;
    size_t pair_count = 0;
    uint32_t kept = 0;
    CHECK(items == problem->items && *count == problem->item_count);
    enum status status = collect_seen(&search, &pairs, &pair_count);
    if (status != STATUS_OK) {
        return status;
    }
    for (uint32_t i = 0; i < *count; i++) {
        bool is_left_out = is_optional(&search, i) && is_pointless(&search, i, pairs, pair_count);
        if (!is_left_out) {
            items[kept++] = items[i]; /* those in front of i aren't looked at again */
        }
    }
    mem_free(search.alloc, pairs);
    *count = kept;
    return STATUS_OK;
}

enum status search_run(const struct search_problem *problem, struct search_result *ret) {
    struct search search = {.problem = problem,
                            .operations = problem->history->operations,
                            .parts = problem->history->parts,
                            .alloc = problem->history->alloc,
                            .item_count = problem->item_count,
                            .head = 2 * problem->item_count,
                            .result = {.verdict = CHECK_UNDECIDED}};
    uint64_t more_values = problem->memory_bytes_max / BYTES_PER_VALUE;
    uint64_t values_max = problem->values->count + more_values;
    search.values_max = values_max < VALUES_MAX ? (uint32_t)values_max : VALUES_MAX;
    seen_init(&search.seen, search.alloc, problem->memory_bytes_max);
    enum status status = allocate(&search);
    if (status == STATUS_OK) {
        status = build_rings(&search);
    }
    if (status == STATUS_OK) {
        status = run(&search);
    }
    if (status == STATUS_OK) {
        search.result.steps = search.steps;
        *ret = search.result;
    }
    if (status != STATUS_OK || search.result.verdict != CHECK_VIOLATION) {
        mem_free(search.alloc, search.result.state);
        if (status == STATUS_OK) {
            ret->state = NULL;
        }
    }
    seen_deinit(&search.seen);
    mem_free(search.alloc, search.next);
    mem_free(search.alloc, search.previous);
    mem_free(search.alloc, search.rank);
    mem_free(search.alloc, search.begun_before);
    mem_free(search.alloc, search.is_read);
    mem_free(search.alloc, search.required_bits);
    mem_free(search.alloc, search.optional_bits);
    mem_free(search.alloc, search.frames);
    mem_free(search.alloc, search.undo);
    mem_free(search.alloc, search.state);
    mem_free(search.alloc, search.key);
    return status;
}
