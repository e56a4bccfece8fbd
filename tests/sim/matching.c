#include "tests/sim/matching.h"

#include "raft/raft_internal.h"
#include "tests/sim/cluster.h"

#include <inttypes.h>
#include <stdlib.h>

enum { FIRST_CAPACITY = 1024 };

struct matching__known {
    uint64_t term;
    uint64_t previous_term;
    uint64_t size_bytes;
    struct matching__known *next;
};

void matching_init(struct matching *matching) { *matching = (struct matching){.capacity = 0}; }

void matching_deinit(struct matching *matching) {
    for (uint64_t index = 0; index < matching->capacity; index++) {
        struct matching__known *known = matching->by_index[index];
        while (known != NULL) {
            struct matching__known *next = known->next;
            free(known);
            known = next;
        }
    }
    free(matching->by_index);
}

static void reserve(struct matching *matching, uint64_t index) {
    uint64_t capacity = matching->capacity == 0 ? FIRST_CAPACITY : matching->capacity;
    while (capacity <= index) {
        capacity *= 2;
    }
    if (capacity > matching->capacity) {
        matching->by_index = realloc(matching->by_index, capacity * sizeof *matching->by_index);
        CHECK(matching->by_index != NULL);
        memset(matching->by_index + matching->capacity, 0,
               (capacity - matching->capacity) * sizeof *matching->by_index);
        matching->capacity = capacity;
    }
}

bool matching_entry(struct matching *matching, uint64_t index, uint64_t term, uint64_t previous_term,
                    uint64_t size_bytes) {
    CHECK(index > 0 && term > 0);
    reserve(matching, index);
    struct matching__known *known = matching->by_index[index];
    while (known != NULL && known->term != term) {
        known = known->next;
    }
    if (known == NULL) {
        known = malloc(sizeof *known);
        CHECK(known != NULL);
        *known = (struct matching__known){.term = term,
                                          .previous_term = previous_term,
                                          .size_bytes = size_bytes,
                                          .next = matching->by_index[index]};
        matching->by_index[index] = known;
    } else if (known->previous_term == MATCHING_UNKNOWN) {
        known->previous_term = previous_term;
    }
    bool same_before = previous_term == MATCHING_UNKNOWN || known->previous_term == previous_term;
    return same_before && known->size_bytes == size_bytes;
}

bool matching_leader(struct matching_log *log, bool leads, uint64_t term, uint64_t first_appended,
                     uint64_t last_index) {
    bool led = leads && log->led_term == term;
    bool kept = !led || (first_appended == 0 ? last_index == log->last_index : first_appended == log->last_index + 1);
    log->led_term = leads ? term : 0;
    log->last_index = last_index;
    return kept;
}

/* ---- A step of a node ------------------------------------------------------------------------------------------- */

static void check_entries(struct replica *replica, const struct raft *raft, uint64_t first_index) {
    struct matching *matching = &replica->cluster->matching;
    for (uint64_t index = first_index; index <= raft_last_index(raft); index++) {
        uint64_t previous_term = raft_term_at(raft, index - 1);
        if (index > 1 && previous_term == 0) {
            previous_term = MATCHING_UNKNOWN;
        }
        uint64_t size_bytes = raft__log_bytes(&raft->log, index - 1, index);
        if (!matching_entry(matching, index, raft_term_at(raft, index), previous_term, size_bytes)) {
            cluster__fail(replica->cluster,
                          "%s has another entry %" PRIu64 " of term %" PRIu64
                          " than some log had, or another one before it",
                          replica->config.name, index, raft_term_at(raft, index));
        }
    }
}

void matching__stepped(struct replica *replica, const struct raft *raft, const struct raft_update *update) {
    bool has_begun = update == NULL;
    bool appends = !has_begun && update->append.source != RAFT_APPEND_NONE;
    uint64_t first_index = appends ? update->append.first_index : 0;
    bool leads = raft_role(raft) == RAFT_LEADER;
    if (has_begun) {
        replica->log = (struct matching_log){.led_term = 0};
    }
    if (!matching_leader(&replica->log, leads, raft_term(raft), first_index, raft_last_index(raft))) {
        cluster__fail(replica->cluster, "%s leads term %" PRIu64 ", and changed its log other than at its end",
                      replica->config.name, raft_term(raft));
    }
    if (has_begun || appends) {
        check_entries(replica, raft, has_begun ? raft_first_index(raft) : first_index);
    }
}
