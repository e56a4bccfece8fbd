/*
 * Recovery, second part: what the log says, and what damage means (DESIGN rules 10, 12, 13).
 *
 *   find    which files make up the log (wal_find.c)
 *   read    each segment of the chain, group by group; each group must follow the one before it
 *   judge   damage at the end of the newest segment: a torn tail if no good header stands behind it, else corruption
 *   settle  the end is made durable and a new segment begins (wal_settle.c)
 *
 * A start reads what is kept of the log twice: here, and where the owner replays it (wal_replay). Which records are in
 * the log and which of them are committed is known only at its end, and in memory it may not fit.
 *
 * Corruption stops it after judging: no segment is changed, the log refuses to be written, and the caller is told
 * where. Unless he can fetch what is lost from elsewhere: then wal_heal.c goes on with what is good.
 */
#include "storage/wal_internal.h"

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

static bool follows(const struct wal__recovery *recovery, const struct wal__group_header *header, uint64_t offset) {
    bool first = (header->flags & WAL__GROUP_FIRST) != 0;
    if (first != (offset == WAL_SEGMENT_HEADER_BYTES)) {
        return false;
    }
    if (recovery->sequence == 0) {
        return first; /* the oldest that is left: nothing to compare with */
    }
    if (first ? header->sequence <= recovery->sequence : header->sequence != recovery->sequence + 1) {
        return false;
    }
    return header->previous_checksum == recovery->chain && header->term >= recovery->last_header.term &&
           header->first_index <= recovery->wal->last_index + 1;
}

void wal__saw(struct wal__recovery *recovery, const struct wal__group_header *header) {
    if (header->sequence > recovery->sequence_seen) {
        recovery->sequence_seen = header->sequence;
    }
}

static void count_start(struct wal__recovery *recovery, const struct wal__group_view *view) {
    struct wal *wal = recovery->wal;
    const struct wal__group_header *header = &view->header;
    if (view->membership.len > 0) {
        memcpy(wal->membership, view->membership.data, view->membership.len);
        wal->membership_len = (uint32_t)view->membership.len;
    }
    wal->heal_index = view->heal_index;
    wal->heal_term = view->heal_term;
    if (recovery->sequence == 0) {
        recovery->base_index = header->synced_index;
        recovery->base_term = header->synced_term;
        wal->first_index = header->synced_index + 1;
        wal->last_index = header->synced_index;
        wal->last_term = header->synced_term;
        if (header->synced_index == recovery->frontier->index) {
            recovery->frontier_term = header->synced_term;
        }
    }
}

static enum status count_records(struct wal__recovery *recovery, struct wal__segment *segment, uint64_t offset,
                                 const struct wal__group_view *view) {
    struct wal *wal = recovery->wal;
    const struct wal__group_header *header = &view->header;
    if (wal__index_reserve(&wal->index, wal->alloc, 1) != STATUS_OK) {
        return error_set(recovery->err, STATUS_NO_MEMORY, "no memory for the index of the log");
    }
    if (header->first_index <= wal->last_index) {
        wal__index_cut(&wal->index, header->first_index);
    }
    wal__index_add(&wal->index, header->first_index, segment, offset);
    uint64_t last_index = wal__group_last_index(header);
    uint64_t frontier_index = recovery->frontier->index;
    if (frontier_index >= header->first_index) {
        recovery->frontier_term = 0; /* cut off, unless this group has it */
    }
    const uint8_t *at = view->records.data;
    for (uint64_t index = header->first_index; index <= last_index; index++) {
        struct wal_record record = wal__record_at(at);
        at += record.bytes.len;
        wal->last_term = record.term;
        if (index == frontier_index) {
            recovery->frontier_term = record.term;
        }
    }
    wal->last_index = last_index;
    wal->first_index = header->first_index < wal->first_index ? header->first_index : wal->first_index;
    segment->max_index = last_index > segment->max_index ? last_index : segment->max_index;
    return STATUS_OK;
}

static void note_last(struct wal__recovery *recovery, const struct wal__found *found, uint64_t offset) {
    struct wal__last_group *last = &recovery->last_group;
    bool carried = (found->start.flags & WAL__GROUP_CARRY) != 0 && offset == WAL_FIRST_RECORDS_OFFSET;
    last->segment = found->segment;
    last->offset = offset;
    last->base_segment = carried ? found->start.previous_segment : found->segment->number;
    last->base_end = carried ? found->start.previous_end : offset;
    last->base_chain = carried ? found->start.previous_checksum : recovery->chain;
}

static enum status count_group(struct wal__recovery *recovery, const struct wal__found *found, uint64_t offset,
                               const struct wal__group_view *view) {
    const struct wal__group_header *header = &view->header;
    enum status status = STATUS_OK;
    if ((header->flags & WAL__GROUP_FIRST) != 0) {
        count_start(recovery, view);
    }
    if (header->record_count > 0) {
        note_last(recovery, found, offset);
        status = count_records(recovery, found->segment, offset, view);
    }
    wal__saw(recovery, header);
    recovery->sequence = header->sequence;
    recovery->chain = header->checksum;
    recovery->last_header = *header;
    if (header->commit_index > recovery->commit_index) {
        recovery->commit_index = header->commit_index;
    }
    return status;
}

/* ---- Judging damage --------------------------------------------------------------------------------------------- */

struct survey {
    uint64_t used_end; /* of the last block that isn't all zero; where the survey began if there is none */
    bool has_header;   /* a good header of this segment was seen, */
    bool has_carried;  /* or one of a group that was carried */
    struct wal__group_header newest;
    uint64_t last_index; /* highest that such a header names */
};

static bool is_zero(const uint8_t *bytes, size_t len) {
    return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* It was written together with the start group, so it proves nothing about that one. */
static bool is_carried(const struct wal__group_header *header, uint64_t offset) {
    return (header->flags & WAL__GROUP_CARRY) != 0 && offset == WAL_FIRST_RECORDS_OFFSET;
}

/* Looks at every block from `from` on for headers of this segment's groups. */
static enum status survey_segment(struct wal__recovery *recovery, const struct wal__segment *segment, uint64_t from,
                                  struct survey *survey) {
    *survey = (struct survey){.used_end = from};
    wal__scanner_set_file(&recovery->scanner, segment, WAL_SCAN_BYTES);
    for (uint64_t offset = from;; offset += WAL_BLOCK_BYTES) {
        struct slice block;
        enum status status = wal__scanner_view(&recovery->scanner, offset, WAL_BLOCK_BYTES, &block, recovery->err);
        if (status != STATUS_OK || block.len == 0) {
            return status;
        }
        if (is_zero(block.data, block.len)) {
            continue;
        }
        survey->used_end = offset + block.len;
        struct wal__group_header header;
        if (block.len < WAL_BLOCK_BYTES || wal__group_header_decode(block.data, &header) != STATUS_OK ||
            header.generation != segment->generation) {
            continue;
        }
        if (is_carried(&header, offset)) {
            survey->has_carried = true;
        } else {
            survey->has_header = true;
            if (header.sequence > survey->newest.sequence) {
                survey->newest = header;
            }
            uint64_t last_index = header.record_count > 0 ? wal__group_last_index(&header) : header.synced_index;
            survey->last_index = last_index > survey->last_index ? last_index : survey->last_index;
            wal__saw(recovery, &header);
        }
    }
}

/* Notes a fault and learns what stands behind it: the newest term and vote, and how far the log went. */
static enum status fault_at(struct wal__recovery *recovery, size_t position, uint64_t offset, const char *what) {
    struct wal_fault *fault = &recovery->out->fault;
    uint64_t last_index = recovery->wal->last_index;
    recovery->stopped = true;
    wal__fault(recovery, position, recovery->found[position].segment->number, offset, what);
    fault->first_index = fault->first_index == 0 ? last_index + 1 : fault->first_index;
    for (size_t i = position; i < recovery->found_count; i++) {
        struct survey survey;
        uint64_t from = i == position && offset > WAL_SEGMENT_HEADER_BYTES ? offset : WAL_SEGMENT_HEADER_BYTES;
        enum status status = survey_segment(recovery, recovery->found[i].segment, from, &survey);
        if (status != STATUS_OK) {
            return status;
        }
        if (survey.newest.sequence > recovery->last_header.sequence) {
            recovery->last_header = survey.newest;
        }
        last_index = survey.last_index > last_index ? survey.last_index : last_index;
    }
    fault->last_index = last_index >= fault->first_index ? last_index : 0;
    return STATUS_OK;
}

/* Reads one segment of the chain up to where it ends or is damaged. */
enum status wal__read_segment(struct wal__recovery *recovery, struct wal__found *found, enum wal__verdict *ret_verdict,
                              struct wal__group_view *ret_view) {
    struct wal__segment *segment = found->segment;
    uint64_t limit = found->end != 0 ? found->end : segment->bytes;
    wal__scanner_set_file(&recovery->scanner, segment, WAL_SCAN_BYTES);
    *ret_verdict = WAL__GROUP_BAD_HEADER;
    while (segment->end < limit) {
        enum status status = wal__scan_group(&recovery->scanner, segment->end, segment->generation, ret_verdict,
                                             ret_view, recovery->err);
        if (status == STATUS_OK && *ret_verdict == WAL__GROUP_GOOD) {
            if (!follows(recovery, &ret_view->header, segment->end)) {
                return STATUS_OK;
            }
            status = count_group(recovery, found, segment->end, ret_view);
            if (status != STATUS_OK) {
                return status;
            }
            segment->end += wal__padded(ret_view->header.total_bytes);
            segment->written_end = segment->end;
            continue;
        }
        return status;
    }
    *ret_verdict = WAL__GROUP_BAD_HEADER;
    return STATUS_OK;
}

/* The newest segment stops being good at its `end`: is that the end of the log, a torn group, or corruption? */
static enum status judge_newest(struct wal__recovery *recovery, enum wal__verdict verdict,
                                const struct wal__group_view *view) {
    const struct wal__segment *segment = recovery->found[recovery->newest].segment;
    if (verdict != WAL__GROUP_BAD_HEADER && !follows(recovery, &view->header, segment->end)) {
        return fault_at(recovery, recovery->newest, segment->end, "a group before this one is lost");
    }
    if (segment->end >= segment->bytes) {
        return STATUS_OK;
    }
    struct survey survey;
    enum status status = survey_segment(recovery, segment, segment->end + WAL_BLOCK_BYTES, &survey);
    if (status != STATUS_OK) {
        return status;
    }
    if (survey.has_header) {
        return fault_at(recovery, recovery->newest, segment->end, "a damaged group with good ones behind it");
    }
    if (segment->recycled) {
        /* What stands there may be of an earlier life. Only a header of this one says that a group was torn. */
        uint64_t left = segment->bytes - segment->end;
        uint64_t torn = verdict == WAL__GROUP_BAD_BODY ? wal__padded(view->header.total_bytes) : 0;
        recovery->out->torn_bytes = torn < left ? torn : left;
        return STATUS_OK;
    }
    struct slice block;
    status = wal__scanner_view(&recovery->scanner, segment->end, WAL_BLOCK_BYTES, &block, recovery->err);
    if (status != STATUS_OK) {
        return status;
    }
    if (!is_zero(block.data, block.len) || survey.used_end > segment->end + WAL_BLOCK_BYTES) {
        recovery->out->torn_bytes = survey.used_end - segment->end;
    }
    return STATUS_OK;
}

/* True if the start group was written behind this segment (NULL: behind none) as it is now. */
static bool names(const struct wal__group_header *start, const struct wal__found *previous) {
    if (previous == NULL) {
        return start->previous_segment == 0;
    }
    return start->previous_segment == previous->segment->number && start->previous_end == previous->segment->end &&
           start->previous_checksum == previous->chain;
}

/* True if it was written with the log's last group behind it. */
static bool names_base(const struct wal__group_header *start, const struct wal__recovery *recovery) {
    const struct wal__last_group *last = &recovery->last_group;
    return (start->flags & WAL__GROUP_CARRY) != 0 && last->segment != NULL &&
           start->previous_segment == last->base_segment && start->previous_end == last->base_end &&
           start->previous_checksum == last->base_chain;
}

/* A file behind the newest segment: prepared and unused, the torn start of a segment, or part of a log that is damaged.
 */
static enum status judge_unused(struct wal__recovery *recovery, size_t position) {
    const struct wal__found *found = &recovery->found[position];
    struct wal__segment *segment = found->segment;
    bool has_chain = recovery->newest < recovery->found_count;
    struct survey survey;
    enum status status = survey_segment(recovery, segment, WAL_FIRST_RECORDS_OFFSET, &survey);
    if (status != STATUS_OK) {
        return status;
    }
    bool used_behind = segment->recycled ? survey.has_carried : survey.used_end > WAL_FIRST_RECORDS_OFFSET;
    struct slice start;
    status = wal__scanner_view(&recovery->scanner, WAL_SEGMENT_HEADER_BYTES, WAL_BLOCK_BYTES, &start, recovery->err);
    if (status != STATUS_OK) {
        return status;
    }
    bool used_start = !is_zero(start.data, start.len);
    if (!found->header_good) {
        /* It was synced before the file got its name, so no crash damages it; but an empty file can be thrown away. */
        if (used_start || used_behind) {
            return fault_at(recovery, position, 0, "the segment's header is damaged");
        }
        return STATUS_OK;
    }
    if (survey.has_header) {
        return fault_at(recovery, position, WAL_SEGMENT_HEADER_BYTES, "a damaged group with good ones behind it");
    }
    if (found->start_verdict == WAL__GROUP_BAD_BODY) {
        /* A torn start group still says what came before it. */
        wal__saw(recovery, &found->start);
        if (!names(&found->start, has_chain ? &recovery->found[recovery->newest] : NULL) &&
            !names(&found->start, wal__last_with_records(recovery)) && !names_base(&found->start, recovery)) {
            return fault_at(recovery, position, WAL_SEGMENT_HEADER_BYTES, "groups before this segment are lost");
        }
    }
    if (used_start || used_behind) {
        recovery->out->torn_bytes +=
            segment->recycled ? WAL_START_GROUP_BYTES : survey.used_end - WAL_SEGMENT_HEADER_BYTES;
    } else if (segment->bytes == recovery->wal->options.segment_bytes) {
        segment->end = WAL_SEGMENT_HEADER_BYTES; /* as prepared: to be used */
        recovery->found[position].reusable = true;
    }
    return STATUS_OK;
}

enum status wal__read_log(struct wal__recovery *recovery) {
    enum wal__verdict verdict = WAL__GROUP_BAD_HEADER;
    struct wal__group_view view = {.bytes = NULL};
    bool has_chain = recovery->newest < recovery->found_count;
    for (size_t i = has_chain ? recovery->oldest : recovery->found_count; i <= recovery->newest && has_chain; i++) {
        struct wal__found *found = &recovery->found[i];
        if (!found->on_chain) {
            continue;
        }
        enum status status = wal__read_segment(recovery, found, &verdict, &view);
        found->chain = recovery->chain;
        if (status == STATUS_OK && found->end != 0 && found->segment->end != found->end) {
            return fault_at(recovery, i, found->segment->end, "a damaged group with good ones behind it");
        }
        if (status == STATUS_OK && i == recovery->newest) {
            status = judge_newest(recovery, verdict, &view);
        }
        if (status != STATUS_OK || recovery->stopped) {
            return status;
        }
    }
    for (size_t i = has_chain ? recovery->newest + 1 : 0; i < recovery->found_count; i++) {
        enum status status = judge_unused(recovery, i);
        if (status != STATUS_OK || recovery->stopped) {
            return status;
        }
    }
    if (!has_chain || recovery->out->fault.present) {
        return STATUS_OK;
    }
    if (recovery->wal->first_index > recovery->frontier->index + 1) {
        return fault_at(recovery, recovery->oldest, 0, "the log starts behind the manifest's last entry");
    }
    uint64_t term = recovery->last_header.term;
    term = recovery->wal->last_term > term ? recovery->wal->last_term : term;
    if (term < recovery->frontier->term) {
        /* Terms are synced here before the engine can hold an entry of theirs: the end of the log is gone, votes
         * included. */
        return fault_at(recovery, recovery->newest, recovery->found[recovery->newest].segment->end,
                        "the manifest knows a newer term");
    }
    return STATUS_OK;
}

/* ---- All of it -------------------------------------------------------------------------------------------------- */

bool wal__lacks_frontier(const struct wal__recovery *recovery) {
    const struct wal_frontier *frontier = recovery->frontier;
    if (recovery->wal->last_index < frontier->index || recovery->wal->first_index > frontier->index + 1) {
        return true;
    }
    return recovery->frontier_term != 0 && frontier->term != 0 && recovery->frontier_term != frontier->term;
}

/* What the log and the frontier together say. */
static void conclude(struct wal__recovery *recovery, bool reset) {
    struct wal *wal = recovery->wal;
    struct wal_recovered *out = recovery->out;
    const struct wal_frontier *frontier = recovery->frontier;
    if (reset) {
        wal->index.count = 0;
        wal->first_index = frontier->index + 1;
        wal->last_index = frontier->index;
        wal->last_term = frontier->term;
        recovery->commit_index = frontier->index;
    }
    bool is_shorter =
        wal->last_term < wal->heal_term || (wal->last_term == wal->heal_term && wal->last_index < wal->heal_index);
    wal->heal_index = is_shorter ? wal->heal_index : 0; /* all of it is synced before the new start group says so */
    wal->heal_term = is_shorter ? wal->heal_term : 0;
    wal->sealed_index = wal->last_index;
    wal->sealed_term = wal->last_term;
    wal->synced_index = wal->last_index;
    uint64_t commit_index = recovery->commit_index > frontier->index ? recovery->commit_index : frontier->index;
    wal->commit_index = commit_index < wal->last_index ? commit_index : wal->last_index;
    wal->applied_index = frontier->index < wal->commit_index ? frontier->index : wal->commit_index;
    wal->term = recovery->last_header.term;
    wal->vote = recovery->last_header.vote;
    wal->sequence = recovery->sequence_seen;
    wal->chain = recovery->chain;
    const struct slice *first = &wal->options.first_membership;
    if (wal->membership_len == 0 && first->len > 0) {
        memcpy(wal->membership, first->data, first->len);
        wal->membership_len = (uint32_t)first->len;
    }
    if (wal->membership_len > 0) {
        memcpy(wal->recovered_membership, wal->membership, wal->membership_len);
    }
    out->term = wal->term;
    out->vote = wal->vote;
    out->commit = wal->commit_index;
    out->first_index = wal->first_index;
    out->last_index = wal->last_index > frontier->index ? wal->last_index : frontier->index;
    uint64_t before = wal->first_index - 1;
    out->start_term = before == frontier->index        ? frontier->term
                      : before == recovery->base_index ? recovery->base_term
                                                       : 0;
    out->heal_index = wal->heal_index;
    out->heal_term = wal->heal_term;
    out->membership = slice_of(wal->recovered_membership, wal->membership_len);
    out->bytes_read = recovery->scanner.bytes_read;
}

static enum status recover(struct wal__recovery *recovery) {
    struct wal *wal = recovery->wal;
    struct wal_fault *fault = &recovery->out->fault;
    wal->first_index = 1;
    enum status status = wal__find_segments(recovery);
    if (status == STATUS_OK) {
        /* A new log; or no header of the old one is good, and it comes back as another. */
        wal->incarnation = wal->incarnation != 0 ? wal->incarnation : wal__draw_incarnation(wal->env);
        recovery->out->incarnation = wal->incarnation;
        status = wal__read_log(recovery);
    }
    if (status != STATUS_OK) {
        return status;
    }
    bool is_new = recovery->newest == recovery->found_count;
    if (is_new && !fault->present && (recovery->frontier->index > 0 || wal->options.must_exist)) {
        return error_set(recovery->err, STATUS_CORRUPT,
                         "%s holds no log although entries up to %llu were stored: term and vote are lost", wal->dir,
                         (unsigned long long)recovery->frontier->index);
    }
    bool is_usable = !fault->present;
    if (fault->present && wal->options.heals) {
        status = wal__heal(recovery);
        if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
            return status;
        }
        is_usable = status == STATUS_OK;
    }
    bool reset = is_usable && wal__lacks_frontier(recovery);
    conclude(recovery, reset);
    if (!is_usable) {
        fault->final = true;
        wal->failed = true;
        wal->told_failed = true; /* the caller is told by ret_recovered */
        (void)error_set(&wal->failure, STATUS_FAILED, "the log is damaged: %s", fault->where);
        wal__keep_files(recovery);
        return STATUS_OK;
    }
    status = wal__settle(recovery, reset);
    recovery->out->life = wal->sequence;
    return status;
}

enum status wal__recover(struct wal *wal, const struct wal_frontier *frontier, struct wal_recovered *out,
                         struct error *err) {
    struct wal__recovery recovery = {.wal = wal, .frontier = frontier, .out = out, .err = err};
    wal__scanner_init(&recovery.scanner, wal->alloc);
    enum status status = recover(&recovery);
    for (size_t i = 0; i < recovery.found_count; i++) {
        wal__free_found(wal, &recovery.found[i]);
    }
    mem_free(wal->alloc, recovery.found);
    wal__scanner_deinit(&recovery.scanner);
    return status;
}
