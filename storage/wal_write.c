/*
 * Sealing and the one write in flight (DESIGN rules 3, 7, 8, 13).
 *
 *   idle --(records or state: FLUSH task)--> writing --(done)--> idle, `synced`; again if something waits
 *                                                    \-(error)-> failed, for good: `failed` once
 *
 * The FLUSH task runs after everything else of the turn, so all that the turn appended joins one group. What is
 * written, in this order of choice: the oldest pending group if the active segment has room; the start group of the
 * next prepared segment if it hasn't, or if the log was reset; a group without records when only term and vote changed,
 * or as a mark. A segment's last reserve_bytes are kept for groups without records, so that term and vote can be saved
 * although the disk is full.
 *
 * A mark follows when nothing was written for mark_delay_us and the last group was one that somebody relies on; a mark
 * itself is relied on by nobody, so no mark follows a mark. The start group that recovery wrote is relied on if a term
 * is known: it may be the only place where term and vote stand now.
 */
#include "storage/wal_internal.h"

uint64_t wal__room(const struct wal *wal, const struct wal__segment *segment) {
    uint64_t used = segment->end + wal->reserve_bytes;
    return used < segment->bytes ? segment->bytes - used : 0;
}

void wal__wake_writer(struct wal *wal) {
    if (wal->options.mode == WAL_MODE_BLOCKING) {
        return; /* the owner writes when he wants to; what he can't know comes by `writable` */
    }
    if (!wal->writing && !wal->failed && !wal->closing && wal->started) {
        env_defer(wal->loop, ENV_STAGE_FLUSH, &wal->flush_task);
    }
}

/* ---- Sealing ---------------------------------------------------------------------------------------------------- */

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* What every header says, as of now. */
static struct wal__group_header next_header(const struct wal *wal, const struct wal__segment *segment) {
    return (struct wal__group_header){.total_bytes = WAL_GROUP_HEADER_BYTES,
                                      .generation = segment->generation,
                                      .sequence = wal->sequence + 1,
                                      .synced_index = wal->sealed_index,
                                      .synced_term = wal->sealed_term,
                                      .commit_index = min_u64(wal->commit_index, wal->sealed_index),
                                      .term = wal->term,
                                      .vote = wal->vote,
                                      .previous_checksum = wal->chain};
}

static void seal_block(struct wal *wal, struct wal__group_header *header) {
    size_t used = header->total_bytes;
    wal__group_seal(wal->block, header, NULL);
    memset(wal->block + used, 0, WAL_BLOCK_BYTES - used);
}

void wal__seal_start(struct wal *wal, struct wal__segment *segment, const struct wal__segment *previous, uint16_t flags,
                     struct wal__group_header *header) {
    *header = next_header(wal, segment);
    header->flags = flags | WAL__GROUP_FIRST;
    if (wal->heal_index > 0) {
        header->flags |= WAL__GROUP_HEAL;
        put_u64(wal->block + header->total_bytes, wal->heal_index);
        put_u64(wal->block + header->total_bytes + 8, wal->heal_term);
        header->total_bytes += WAL_HEAL_BYTES;
    }
    if (wal->membership_len > 0) {
        header->flags |= WAL__GROUP_MEMBERSHIP;
        header->membership_bytes = wal->membership_len;
        memcpy(wal->block + header->total_bytes, wal->membership, wal->membership_len);
        header->total_bytes += wal->membership_len;
    }
    if (previous != NULL) {
        header->previous_segment = previous->number;
        header->previous_end = previous->end;
    }
    seal_block(wal, header);
}

/* Nobody appends to the group any more: this needs no lock in blocking mode. */
void wal__finish_seal(struct wal *wal) {
    struct wal__group *group = wal->writing_group;
    if (group != NULL) {
        uint8_t *data = group->buffer->data;
        wal__group_seal(data, &wal->writing_header, group->offsets);
        memset(data + group->len, 0, wal__padded(group->len) - group->len);
    }
}

static void seal_records(struct wal *wal, struct wal__group *group, struct wal__group_header *header) {
    struct wal__segment *segment = wal->active;
    CHECK(group->count > 0 && group->live_count == group->count);
    CHECK(group->first_index == wal->sealed_index + 1);
    const struct wal_record last = wal__record_at(group->buffer->data + group->offsets[group->count - 1]);
    *header = next_header(wal, segment);
    header->total_bytes = (uint32_t)group->len;
    header->record_count = group->count;
    header->first_index = group->first_index;
    header->commit_index = min_u64(wal->commit_index, last.index);

    wal__index_add(&wal->index, group->first_index, segment, segment->end);
    wal__share_note(wal, segment, group, segment->end);
    segment->max_index = last.index > segment->max_index ? last.index : segment->max_index;
    wal->sealed_index = last.index;
    wal->sealed_term = last.term;
    list_remove(&group->link);
    wal->pending_count--;
    group->sealed = true;
    group->writing = true;
    size_t decayed = wal->group_bytes_hint - wal->group_bytes_hint / 8;
    wal->group_bytes_hint = group->len > decayed ? min_u64(group->len, wal->group_bytes_max) : decayed;
}

/* Large records are values to come: who reads them finds them in the page cache then. Everything else is read by nobody
 * as a rule and goes past it. Groups are whole blocks and one is durable before the next is written, so that no block
 * is dirty in the page cache while the disk is written past it. */
static struct env_file *way_of(const struct wal__segment *segment, const struct wal__group *group) {
    bool is_large = group != NULL && group->large_bytes >= group->len / 2;
    return is_large && segment->cached != NULL ? segment->cached : segment->file;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static void submit(struct wal *wal, enum wal_trigger trigger, uint8_t *data, const struct wal__group_header *header,
                   struct wal__group *group) {
    CHECK(!wal->writing);
    struct wal__segment *segment = wal->active;
    uint64_t len = wal__padded(header->total_bytes);
    CHECK(segment->end % WAL_BLOCK_BYTES == 0 && segment->end + len <= segment->bytes);
    wal->needs_mark = header->record_count > 0 || wal->state_dirty;
    wal->state_dirty = false;
    wal->mark_due = false;
    wal->sequence = header->sequence;
    wal->writing = true;
    wal->writing_group = group;
    wal->writing_header = *header;
    wal->writing_trigger = trigger;
    wal->writing_since_us = env_clock_us(wal->env);
    wal->write_io.file = way_of(segment, group);
    wal->write_io.data = data;
    wal->write_io.len = (size_t)len;
    wal->write_io.offset = segment->end;
    segment->end += len;
    segment->small_bytes += len <= WAL_SMALL_GROUP_BYTES ? len : 0;
    if (wal->options.mode == WAL_MODE_LOOP) {
        wal__finish_seal(wal);
        env_io_submit(wal->loop, &wal->write_io);
    }
}

static bool has_more(const struct wal *wal) {
    return !list_is_empty(&wal->pending) && LIST_ENTRY(wal->pending.next, struct wal__group, link)->count > 0;
}

static void write_records(struct wal *wal, struct wal__group *group) {
    struct wal__group_header header;
    seal_records(wal, group, &header);
    enum wal_trigger trigger = wal->gathered ? WAL_TRIGGER_BEHIND : WAL_TRIGGER_IDLE;
    submit(wal, has_more(wal) ? WAL_TRIGGER_FULL : trigger, group->buffer->data, &header, group);
}

static void write_state(struct wal *wal, uint16_t flags) {
    struct wal__group_header header = next_header(wal, wal->active);
    header.flags = flags;
    seal_block(wal, &header);
    submit(wal, (flags & WAL__GROUP_MARK) != 0 ? WAL_TRIGGER_MARK : WAL_TRIGGER_STATE, wal->block, &header, NULL);
}

/* Goes to the next prepared segment; its start group carries term and vote as any other does. */
static void write_start(struct wal *wal, uint16_t flags) {
    struct list *node = list_pop_front(&wal->prepared);
    CHECK(node != NULL && wal->prepared_count > 0);
    wal->prepared_count--;
    struct wal__segment *previous = wal->active;
    struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
    list_push_back(&wal->segments, &segment->link);
    wal->active = segment;
    struct wal__group_header header;
    wal__seal_start(wal, segment, previous, flags, &header);
    wal__turned(wal, previous);
    submit(wal, WAL_TRIGGER_START, wal->block, &header, NULL);
    segment->begun_us = wal->writing_since_us;
    wal__prepare_more(wal);
}

/* Room in the active segment for a group without records. While no segment can be prepared, marks leave half of the
 * reserve to term and vote. */
static bool has_state_room(const struct wal *wal, bool mark) {
    uint64_t left = wal->active->bytes - wal->active->end;
    uint64_t kept = mark && wal->prepare.failing ? wal->reserve_bytes / 2 : 0;
    return left >= kept + WAL_BLOCK_BYTES;
}

void wal__write_next(struct wal *wal) {
    struct wal__group *group = NULL;
    if (!list_is_empty(&wal->pending)) {
        group = LIST_ENTRY(wal->pending.next, struct wal__group, link);
    }
    bool can_switch = wal->prepared_count > 0;
    if (wal->reset_due) {
        if (can_switch) {
            wal->reset_due = false;
            write_start(wal, WAL__GROUP_RESET);
        }
    } else if (wal__turn_is_due(wal)) {
        write_start(wal, 0);
    } else if (group != NULL && wal__padded(group->len) <= wal__room(wal, wal->active)) {
        write_records(wal, group);
    } else if (can_switch && (group != NULL || (wal->state_dirty && !has_state_room(wal, false)))) {
        write_start(wal, 0);
    } else if (wal->state_dirty && has_state_room(wal, false)) {
        write_state(wal, 0);
    } else if (wal->mark_due && group == NULL) {
        wal->mark_due = false;
        if (has_state_room(wal, true)) {
            write_state(wal, WAL__GROUP_MARK);
        }
    }
    if (!wal->writing && (group != NULL || wal->state_dirty || wal->reset_due)) {
        wal->starved = wal->options.mode == WAL_MODE_BLOCKING;
        wal__prepare_more(wal); /* it waits for a segment */
    }
}

static void flush(struct env_task *task) {
    struct wal *wal = CONTAINER_OF(task, struct wal, flush_task);
    CHECK(wal->appending == NULL);
    if (wal->writing || wal->failed || wal->closing) {
        return;
    }
    wal__write_next(wal);
    LIST_FOREACH (node, &wal->spares) {
        wal__group_release(&wal->pool, LIST_ENTRY(node, struct wal__group, link));
    }
}

/* ---- Completion ------------------------------------------------------------------------------------------------- */

static void arm_mark(struct wal *wal) {
    if (wal->needs_mark && wal->options.mark_delay_us > 0 && !env_timer_is_armed(&wal->mark_timer)) {
        /* Without memory for a timer the next group's end tries again. */
        (void)!env_timer_arm(&wal->mark_timer, wal->stats.last_progress_us + wal->options.mark_delay_us);
    }
}

/* One timer serves a busy time: it looks again when the last group is old enough. */
static void mark_timer_ran(struct env_timer *timer) {
    struct wal *wal = CONTAINER_OF(timer, struct wal, mark_timer);
    if (wal->failed || wal->closing || !wal->needs_mark || !wal_is_idle(wal)) {
        return; /* the end of what is under way arms it again */
    }
    if (env_now_us(wal->loop) < wal->stats.last_progress_us + wal->options.mark_delay_us) {
        arm_mark(wal);
        return;
    }
    wal->mark_due = true;
    wal__wake_writer(wal);
    if (wal->options.mode == WAL_MODE_BLOCKING) {
        wal->options.writable(wal->options.context);
    }
}

static void release_written(struct wal *wal, struct wal__group *group) {
    group->writing = false;
    if (!group->cached) {
        wal__group_release(&wal->pool, group); /* cut off whole while it was in flight */
    }
}

static void written(struct wal *wal) {
    struct wal__group *group = wal->writing_group;
    wal->active->written_end = wal->active->end;
    wal->durable_segment = wal->active;
    if (group != NULL) {
        if (group->live_count > 0) {
            wal->synced_index = group->first_index + group->live_count - 1;
        }
        release_written(wal, group);
        wal__cache_trim(wal);
    }
    CHECK(wal->synced_index == wal->sealed_index);
}

void wal__write_ended(struct wal *wal) {
    const struct env_io *io = &wal->write_io;
    CHECK(wal->writing);
    wal->writing = false;
    wal->chain = wal->writing_header.checksum;
    const struct wal__group_header header = wal->writing_header;
    struct wal_synced synced = {.group_sequence = header.sequence, .term = header.term, .vote = header.vote};
    if (io->status != STATUS_OK) {
        if (wal->writing_group != NULL) {
            release_written(wal, wal->writing_group);
        }
        wal__fail(wal, &io->error);
        wal__close_if_quiet(wal);
        return;
    }
    if (header.record_count > 0) {
        const struct wal__group *group = wal->writing_group;
        synced.last_index = wal__group_last_index(&header);
        synced.last_term = wal__record_at(group->buffer->data + group->offsets[header.record_count - 1]).term;
    }
    wal__count_write(wal);
    wal->gathered = !list_is_empty(&wal->pending);
    written(wal);
    if (wal->closing) {
        wal__close_if_quiet(wal);
        return;
    }
    wal__delete_more(wal);
    wal__prepare_more(wal);
    if (wal->options.mode == WAL_MODE_LOOP) {
        wal->options.synced(wal->options.context, &synced);
    }
    if (!list_is_empty(&wal->pending) || wal->state_dirty || wal__turn_is_due(wal)) {
        wal__wake_writer(wal);
    } else if (!wal->closing) {
        arm_mark(wal);
    }
}

static void write_done(struct env_io *io) { wal__write_ended(CONTAINER_OF(io, struct wal, write_io)); }

/* ---- Failure ---------------------------------------------------------------------------------------------------- */

void wal__fail(struct wal *wal, const struct error *err) {
    if (wal->failed) {
        return;
    }
    wal->failed = true;
    wal->failure = *err;
    env_task_cancel(&wal->flush_task);
    env_timer_cancel(&wal->mark_timer);
    env_timer_cancel(&wal->prepare_timer);
    wal__tell(wal);
}

void wal__write_started(struct wal *wal) {
    wal->needs_mark = wal->term > 0;
    if (wal->needs_mark && wal->options.mark_delay_us > 0) {
        (void)!env_timer_arm(&wal->mark_timer, env_now_us(wal->loop) + wal->options.mark_delay_us);
    }
}

void wal__write_init(struct wal *wal) {
    wal->write_io.kind = ENV_IO_WRITE_DSYNC;
    wal->write_io.hook = FAULT_WAL_WRITE;
    wal->write_io.done = write_done;
    env_task_init(&wal->flush_task, flush);
    env_timer_init(&wal->mark_timer, wal->loop, mark_timer_ran);
}

bool wal_is_idle(const struct wal *wal) {
    return !wal->writing && list_is_empty(&wal->pending) && !wal->state_dirty && !wal->reset_due &&
           wal->appending == NULL;
}
