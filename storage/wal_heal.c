/*
 * Recovery of a log that is damaged in the middle (DESIGN rule 13), for an owner who can fetch entries from his peers.
 *
 *   survey   every good header, wherever it stands: the newest term and vote, and how far the log went
 *   begin    is the damage, and all before it, at or below the engine's frontier? Then the log begins behind it, and
 *            nothing is lost
 *   cut      else what stands before the first hole is the log from now on; if that lacks the frontier, or there is a
 *            gap below it, nothing: it starts behind the frontier
 *   settle   as ever (wal_settle.c), but the new start group says where the log once ended, and what is behind the hole
 *            is set aside instead of being removed (wal_faulty.c)
 *
 * What is cut off was acknowledged, maybe. So whoever uses the log must not vote for one that is shorter than this one
 * was (raft/heal.c); the end that is remembered is in each start group until the owner says that the log is whole again
 * (wal_healed), so a crash at any point forgets nothing: before the new start group is durable nothing has changed, and
 * behind it the log is sound.
 *
 * The newest good header says where the log ended: maybe too high (of damaged records only an upper bound of the term
 * is known), never too low, except for what no good header knows: the log's very last group, if that is damaged, too.
 * That is the residual of rule 13.
 *
 * A commit index is believed only if it stands before the hole: one behind it may speak of entries that replaced some
 * before it.
 *
 * Entries good behind a hole aren't used: they are fetched again, which is one way for all cases.
 */
#include "storage/wal_internal.h"

/* ---- Survey ----------------------------------------------------------------------------------------------------- */

/* Where a log ends: later is in a later term or, in the same, behind. */
struct log_end {
    uint64_t term;
    uint64_t index;
};

static bool is_before(struct log_end a, struct log_end b) {
    return a.term < b.term || (a.term == b.term && a.index < b.index);
}

struct survey {
    struct wal__group_header newest;
    struct log_end end; /* where the log ended with that one */
    /* The end that is remembered from an earlier loss, if the newest start group says that there is one. */
    uint64_t start_sequence;
    bool remembers;
    struct log_end remembered;
    uint64_t membership_sequence; /* of the newest that was good */
    uint32_t membership_len;
    uint8_t membership[LIMIT_MEMBERSHIP_BYTES];
};

static uint64_t last_record_term(const struct wal__group_view *view) {
    uint64_t term = 0;
    const uint8_t *at = view->records.data;
    for (uint32_t i = 0; i < view->header.record_count; i++) {
        struct wal_record record = wal__record_at(at);
        at += record.bytes.len;
        term = record.term;
    }
    return term;
}

/* Of damaged records, or where the header doesn't know it, the term is at most the header's. */
static struct log_end end_of(const struct wal__group_view *view, bool good) {
    const struct wal__group_header *header = &view->header;
    if (header->record_count > 0) {
        return (struct log_end){.term = good ? last_record_term(view) : header->term,
                                .index = wal__group_last_index(header)};
    }
    bool is_unknown = header->synced_term == 0 && header->synced_index > 0;
    return (struct log_end){.term = is_unknown ? header->term : header->synced_term, .index = header->synced_index};
}

static void note(struct wal__recovery *recovery, struct survey *survey, const struct wal__group_view *view, bool good) {
    const struct wal__group_header *header = &view->header;
    wal__saw(recovery, header);
    if (header->sequence > survey->newest.sequence) {
        survey->newest = *header;
        survey->end = end_of(view, good);
    }
    if ((header->flags & WAL__GROUP_FIRST) != 0 && header->sequence > survey->start_sequence) {
        survey->start_sequence = header->sequence;
        survey->remembers = (header->flags & WAL__GROUP_HEAL) != 0;
    }
    if (good && view->membership.len > 0 && header->sequence > survey->membership_sequence) {
        survey->membership_sequence = header->sequence;
        survey->membership_len = (uint32_t)view->membership.len;
        memcpy(survey->membership, view->membership.data, view->membership.len);
    }
    struct log_end remembered = {.term = view->heal_term, .index = view->heal_index};
    if (good && is_before(survey->remembered, remembered)) {
        survey->remembered = remembered;
    }
}

static bool is_zero(struct slice bytes) {
    return bytes.len == 0 || (bytes.data[0] == 0 && memcmp(bytes.data, bytes.data + 1, bytes.len - 1) == 0);
}

/* A segment whose header is damaged doesn't say its generation: then any passes. What an earlier life left has a lower
 * sequence than what followed it. */
static enum status survey_segment(struct wal__recovery *recovery, struct wal__found *found, struct survey *survey) {
    uint64_t offset = WAL_SEGMENT_HEADER_BYTES;
    wal__scanner_set_file(&recovery->scanner, found->segment, WAL_SCAN_BYTES);
    found->empty = found->header_good;
    for (;;) {
        struct slice block;
        struct wal__group_view view = {.bytes = NULL};
        enum wal__verdict verdict = WAL__GROUP_BAD_HEADER;
        enum status status = wal__scanner_view(&recovery->scanner, offset, WAL_BLOCK_BYTES, &block, recovery->err);
        if (status != STATUS_OK || block.len == 0) {
            return status;
        }
        found->empty = found->empty && is_zero(block);
        if (block.len == WAL_BLOCK_BYTES && wal__group_header_decode(block.data, &view.header) == STATUS_OK &&
            (!found->header_good || view.header.generation == found->segment->generation)) {
            status =
                wal__scan_group(&recovery->scanner, offset, view.header.generation, &verdict, &view, recovery->err);
            if (status != STATUS_OK) {
                return status;
            }
            note(recovery, survey, &view, verdict == WAL__GROUP_GOOD);
        }
        offset += verdict == WAL__GROUP_GOOD ? wal__padded(view.header.total_bytes) : WAL_BLOCK_BYTES;
    }
}

static enum status survey_all(struct wal__recovery *recovery, struct survey *survey) {
    for (size_t i = 0; i < recovery->found_count; i++) {
        enum status status = survey_segment(recovery, &recovery->found[i], survey);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

/* ---- Reading once more ------------------------------------------------------------------------------------------ */

/* As before the log was read. */
static void start_over(struct wal__recovery *recovery) {
    struct wal *wal = recovery->wal;
    wal->index.start = 0;
    wal->index.count = 0;
    wal->index.was_cut = false;
    wal->first_index = 1;
    wal->last_index = 0;
    wal->last_term = 0;
    wal->membership_len = 0;
    wal->heal_index = 0;
    wal->heal_term = 0;
    for (size_t i = 0; i < recovery->found_count; i++) {
        struct wal__segment *segment = recovery->found[i].segment;
        segment->end = WAL_SEGMENT_HEADER_BYTES;
        segment->written_end = WAL_SEGMENT_HEADER_BYTES;
        segment->max_index = 0;
        recovery->found[i].reusable = false;
    }
    recovery->chain = 0;
    recovery->sequence = 0;
    recovery->last_header = (struct wal__group_header){.flags = 0};
    recovery->commit_index = 0;
    recovery->base_index = 0;
    recovery->base_term = 0;
    recovery->frontier_term = 0;
    recovery->stopped = false;
    recovery->last_group = (struct wal__last_group){.segment = NULL};
    recovery->out->torn_bytes = 0;
    recovery->out->fault.present = false;
    recovery->out->fault.first_index = 0;
    recovery->out->fault.last_index = 0;
}

static void unmark(struct wal__recovery *recovery, size_t first, size_t end) {
    for (size_t i = first; i < end; i++) {
        recovery->found[i].on_chain = false;
        recovery->found[i].end = 0;
    }
}

/* The oldest segment of the chain behind the hole before which all is at or below the frontier. */
static size_t find_begin(const struct wal__recovery *recovery) {
    for (size_t i = recovery->hole + 1; i < recovery->found_count; i++) {
        const struct wal__found *found = &recovery->found[i];
        if (found->on_chain && found->start.synced_index <= recovery->frontier->index) {
            return i;
        }
    }
    return recovery->found_count;
}

/* Goes on behind holes that don't matter. STATUS_OK: the log is whole, unless out->fault says that it isn't. */
static enum status skip_old_holes(struct wal__recovery *recovery) {
    enum status status = STATUS_OK;
    while (status == STATUS_OK && recovery->out->fault.present) {
        size_t begin = find_begin(recovery);
        if (begin == recovery->found_count) {
            return STATUS_OK;
        }
        start_over(recovery);
        unmark(recovery, 0, begin);
        recovery->oldest = begin;
        status = wal__read_log(recovery);
    }
    return status;
}

/* ---- The part before the hole ----------------------------------------------------------------------------------- */

/* The newest chain without a gap that ends before the hole. */
static void find_prefix(struct wal__recovery *recovery) {
    const struct wal__found *found = recovery->found;
    size_t limit = recovery->hole + (found[recovery->hole].start_verdict == WAL__GROUP_GOOD);
    for (;;) {
        start_over(recovery);
        unmark(recovery, 0, recovery->found_count);
        wal__find_chain(recovery, limit);
        if (!recovery->out->fault.present) {
            return;
        }
        size_t hole = recovery->hole;
        CHECK(hole < limit);
        limit = found[hole].start_verdict == WAL__GROUP_GOOD && hole + 1 < limit ? hole + 1 : hole;
    }
}

static enum status read_prefix(struct wal__recovery *recovery) {
    if (recovery->newest == recovery->found_count) {
        return STATUS_OK;
    }
    for (size_t i = recovery->oldest; i <= recovery->newest; i++) {
        struct wal__found *found = &recovery->found[i];
        enum wal__verdict verdict;
        struct wal__group_view view;
        if (!found->on_chain) {
            continue;
        }
        enum status status = wal__read_segment(recovery, found, &verdict, &view);
        found->chain = recovery->chain;
        if (status != STATUS_OK) {
            return status;
        }
        if (found->end == 0 || found->segment->end != found->end) {
            recovery->newest = i;
            unmark(recovery, i + 1, recovery->found_count);
        }
    }
    return STATUS_OK;
}

static enum status keep_prefix(struct wal__recovery *recovery) {
    char where[sizeof recovery->out->fault.where];
    memcpy(where, recovery->out->fault.where, sizeof where);
    find_prefix(recovery);
    memcpy(recovery->out->fault.where, where, sizeof where);
    recovery->heals = true;
    return read_prefix(recovery);
}

/* ---- All of it -------------------------------------------------------------------------------------------------- */

enum status wal__heal(struct wal__recovery *recovery) {
    struct wal *wal = recovery->wal;
    const struct wal_frontier *frontier = recovery->frontier;
    struct wal_fault *fault = &recovery->out->fault;
    struct survey survey = {.start_sequence = 0};
    enum status status = survey_all(recovery, &survey);
    if (status != STATUS_OK) {
        return status;
    }
    if (survey.newest.sequence == 0 || survey.newest.term < frontier->term) {
        return STATUS_NOT_FOUND;
    }
    status = skip_old_holes(recovery);
    bool is_whole = !fault->present;
    if (status == STATUS_OK && !is_whole) {
        status = keep_prefix(recovery);
    }
    if (status != STATUS_OK) {
        return status;
    }
    fault->present = true; /* it was there, and the owner is told */
    if (is_whole) {
        return STATUS_OK;
    }
    recovery->last_header = survey.newest;
    if (wal->membership_len == 0 && survey.membership_len > 0) { /* nothing before the hole says it */
        memcpy(wal->membership, survey.membership, survey.membership_len);
        wal->membership_len = survey.membership_len;
    }
    bool lacks_frontier = wal__lacks_frontier(recovery);
    struct log_end end = {.term = lacks_frontier ? frontier->term : wal->last_term,
                          .index = lacks_frontier ? frontier->index : wal->last_index};
    struct log_end once = survey.end;
    if (survey.remembers && is_before(once, survey.remembered)) {
        once = survey.remembered;
    }
    bool is_shorter = is_before(end, once);
    wal->heal_index = is_shorter ? once.index : 0;
    wal->heal_term = is_shorter ? once.term : 0;
    fault->first_index = is_shorter ? end.index + 1 : 0;
    fault->last_index = is_shorter && once.index > end.index ? once.index : 0;
    return STATUS_OK;
}
