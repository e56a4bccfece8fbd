/*
 * Recovery, last part: what was read is made durable, and a new segment begins (DESIGN rules 7, 10, 12).
 *
 *   sync the newest segment -> remove files that don't count -> cut what is prepared and unused -> make the next
 * segment
 *   -> write and sync its start group (term, vote, membership, where the old one ends) with the last group behind it
 *   (wal_carry.c) -> remove segments that held nothing else -> load the tail into memory
 *
 * A crash anywhere in between leaves the same log: the new segment counts only when its start group is whole.
 *
 * Restarts don't fill the disk: unused space is cut off first, and the new segment is written behind the last one that
 * holds records, so that those of earlier restarts can go. Where no whole segment fits any more, a small one is made,
 * as large as there is room, that takes term and vote but no records: a node with a full disk comes up, votes, and lets
 * its log be trimmed.
 */
#include "storage/wal_internal.h"

/* ---- Files ------------------------------------------------------------------------------------------------------ */

void wal__free_found(struct wal *wal, struct wal__found *found) {
    if (found->segment != NULL) {
        wal__segment_close(found->segment);
        mem_free(wal->alloc, found->segment);
        found->segment = NULL;
    }
}

static void hand_over(struct wal__found *found, struct list *to) {
    list_push_back(to, &found->segment->link);
    found->segment = NULL;
}

void wal__keep_files(struct wal__recovery *recovery) {
    for (size_t i = 0; i < recovery->found_count; i++) {
        if (recovery->found[i].on_chain) {
            hand_over(&recovery->found[i], &recovery->wal->segments);
        }
    }
}

static enum status remove_file(struct wal__recovery *recovery, struct wal__found *found) {
    struct wal *wal = recovery->wal;
    char path[LIMIT_PATH_BYTES];
    wal__segment_path(path, wal->dir, found->segment->number, "");
    enum status status = env_unlink(wal->env, path, recovery->err);
    if (status == STATUS_OK) {
        wal__free_found(wal, found);
    }
    return status;
}

const struct wal__found *wal__last_with_records(const struct wal__recovery *recovery) {
    for (size_t i = recovery->found_count; i-- > 0;) {
        const struct wal__found *found = &recovery->found[i];
        if (found->on_chain && found->segment != NULL && found->segment->max_index > 0) {
            return found;
        }
    }
    return NULL;
}

/* Prepared segments become the wal's; what neither is prepared nor on the chain goes. */
static enum status sort_files(struct wal__recovery *recovery) {
    struct wal *wal = recovery->wal;
    bool removed = false;
    for (size_t i = 0; i < recovery->found_count; i++) {
        struct wal__found *found = &recovery->found[i];
        if (found->reusable) {
            found->segment->own = true; /* nobody had a reason to share it: it is empty */
            hand_over(found, &wal->prepared);
            wal->prepared_count++;
        } else if (!found->on_chain) {
            /* Of a log that isn't healed yet: a crash came before they were set aside. */
            bool is_needed = wal->heal_index > 0 && found->header_good;
            enum status status = is_needed ? wal__set_faulty(recovery, found) : remove_file(recovery, found);
            if (status != STATUS_OK) {
                return status;
            }
            removed = true;
        }
    }
    /* Also for the names of prepared segments that a crash of the process left unsynced. */
    return removed || wal->prepared_count > 0 ? env_sync_dir(wal->env, wal->dir, recovery->err) : STATUS_OK;
}

/* The chain up to the last segment with records becomes the wal's. */
static void keep_records(struct wal__recovery *recovery) {
    const struct wal__found *last = wal__last_with_records(recovery);
    recovery->wal->chain = last != NULL ? last->chain : 0;
    for (size_t i = 0; last != NULL && i <= (size_t)(last - recovery->found); i++) {
        if (recovery->found[i].on_chain) {
            hand_over(&recovery->found[i], &recovery->wal->segments);
        }
    }
}

/* What is left of the chain said nothing that the new start group doesn't say. If it can't be removed now, the next
 * opening does it. */
static void remove_rest(struct wal__recovery *recovery) {
    struct error error;
    bool removed = false;
    for (size_t i = 0; i < recovery->found_count; i++) {
        struct wal__found *found = &recovery->found[i];
        removed = (found->segment != NULL && remove_file(recovery, found) == STATUS_OK) || removed;
    }
    if (removed) {
        (void)!env_sync_dir(recovery->wal->env, recovery->wal->dir, &error);
    }
}

/* Segments that held nothing but earlier copies of the group that was carried now. A file that can't be removed goes
 * at the next opening. */
static void remove_copies(struct wal__recovery *recovery, const struct wal__segment *carried_to) {
    struct wal *wal = recovery->wal;
    struct list *link = wal->segments.next;
    while (link != &wal->segments) {
        struct wal__segment *segment = LIST_ENTRY(link, struct wal__segment, link);
        link = link->next;
        if (segment != carried_to && segment->number > recovery->last_group.base_segment) {
            char path[LIMIT_PATH_BYTES];
            struct error ignored;
            wal__segment_path(path, wal->dir, segment->number, "");
            (void)!env_unlink(wal->env, path, &ignored);
            list_remove(&segment->link);
            wal__segment_close(segment);
            mem_free(wal->alloc, segment);
        }
    }
}

/* The new segment is durable: what it goes on without is set aside, now that a crash forgets nothing of it. */
static enum status set_rest_aside(struct wal__recovery *recovery) {
    struct wal *wal = recovery->wal;
    bool changed = false;
    for (size_t i = 0; i < recovery->found_count; i++) {
        struct wal__found *found = &recovery->found[i];
        if (found->segment == NULL) {
            continue;
        }
        enum status status = found->empty ? remove_file(recovery, found) : wal__set_faulty(recovery, found);
        if (status != STATUS_OK) {
            return status;
        }
        changed = true;
    }
    return changed ? env_sync_dir(wal->env, wal->dir, recovery->err) : STATUS_OK;
}

/* Gives back what was prepared behind the end, and what a torn group left there. If it fails, it stays. */
static void cut_file(struct wal__segment *segment) {
    struct error ignored;
    if (segment != NULL && segment->bytes > segment->end &&
        env_truncate(segment->file, segment->end, &ignored) == STATUS_OK) {
        segment->bytes = segment->end;
    }
}

/* ---- The new segment -------------------------------------------------------------------------------------------- */

static enum status make_segment(struct wal__recovery *recovery, uint64_t bytes) {
    struct wal *wal = recovery->wal;
    struct wal__segment *segment = wal__segment_new(wal);
    if (segment == NULL) {
        return error_set(recovery->err, STATUS_NO_MEMORY, "no memory to start a log segment");
    }
    struct wal__segment_header header = wal__next_segment(wal, segment, bytes);
    enum status status = wal__segment_create(wal->env, wal->dir, &header, &segment->file, recovery->err);
    if (status != STATUS_OK) {
        mem_free(wal->alloc, segment);
        return status;
    }
    wal__segment_open_cached(wal, segment);
    list_push_back(&wal->segments, &segment->link);
    return STATUS_OK;
}

/* The newest of wal->segments is a new one then: one that was prepared before, or made now. */
static enum status add_segment(struct wal__recovery *recovery) {
    struct wal *wal = recovery->wal;
    struct list *node = list_pop_front(&wal->prepared);
    if (node != NULL) {
        wal->prepared_count--;
        list_push_back(&wal->segments, node);
        return STATUS_OK;
    }
    enum status status = make_segment(recovery, wal->options.segment_bytes);
    uint64_t state_bytes = wal->reserve_bytes;
    /* On a full disk what the previous one gave back: for deletes. */
    for (uint64_t part = 2; status == STATUS_NO_SPACE && wal->options.segment_bytes / part > 2 * state_bytes;
         part *= 2) {
        status = make_segment(recovery, wal->options.segment_bytes / part / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES);
    }
    while (status == STATUS_NO_SPACE && state_bytes >= WAL_BLOCK_BYTES) {
        status = make_segment(recovery, WAL_FIRST_RECORDS_OFFSET + state_bytes);
        state_bytes = state_bytes / 2 / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES;
    }
    return status;
}

static struct wal__segment *newest_segment(struct wal *wal) {
    return list_is_empty(&wal->segments) ? NULL : LIST_ENTRY(wal->segments.prev, struct wal__segment, link);
}

static enum status start_segment(struct wal__recovery *recovery, bool reset) {
    struct wal *wal = recovery->wal;
    struct wal__segment *previous = newest_segment(wal);
    if (!recovery->heals) {
        cut_file(previous);
    }
    enum status status = add_segment(recovery);
    if (status != STATUS_OK) {
        return status;
    }
    struct wal__segment *segment = newest_segment(wal);
    status = reset || recovery->heals ? STATUS_NOT_FOUND : wal__carry(recovery, segment);
    if (status != STATUS_NOT_FOUND) {
        if (status == STATUS_OK) {
            remove_copies(recovery, segment);
        }
        return status;
    }
    struct wal__group_header header;
    wal__seal_start(wal, segment, previous, reset ? WAL__GROUP_RESET : 0, &header);
    status = env_pwrite(segment->file, wal->block, WAL_BLOCK_BYTES, segment->end, recovery->err);
    if (status == STATUS_OK) {
        status = env_sync(segment->file, recovery->err);
    }
    if (status != STATUS_OK) {
        /* The next opening leaves a segment without records out, whatever the page cache says of it (hazard 27). */
        return status;
    }
    segment->end += WAL_START_GROUP_BYTES;
    segment->written_end = segment->end;
    wal->sequence = header.sequence;
    wal->chain = header.checksum;
    wal->active = segment;
    wal->durable_segment = segment;
    return STATUS_OK;
}

/* ---- The tail --------------------------------------------------------------------------------------------------- */

static enum status load_group(void *context, const struct wal__group_view *view, uint64_t live_first,
                              uint64_t live_last, struct error *err) {
    struct wal *wal = context;
    const struct wal__group_header *header = &view->header;
    CHECK(live_first >= header->first_index);
    if (wal__cache_reserve(wal, 1) != STATUS_OK) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for the tail of the log");
    }
    struct wal__group *group = wal__group_take(&wal->pool, header->total_bytes, header->record_count);
    if (group == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for the tail of the log");
    }
    memcpy(group->buffer->data, view->bytes, header->total_bytes);
    group->len = header->total_bytes;
    group->first_index = header->first_index;
    group->sealed = true;
    size_t offset = header->total_bytes - view->records.len;
    for (uint32_t i = 0; i < header->record_count; i++) {
        group->offsets[i] = (uint32_t)offset;
        offset += wal__record_at(view->bytes + offset).bytes.len;
    }
    group->count = header->record_count;
    group->live_count = (uint32_t)(live_last - header->first_index + 1);
    wal__cache_push(wal, group);
    while (wal->cache.bytes > wal->options.cache_bytes_max + LIMIT_UNCOMMITTED_BYTES) {
        wal__cache_pop(wal);
    }
    return STATUS_OK;
}

enum status wal__settle(struct wal__recovery *recovery, bool reset) {
    struct wal *wal = recovery->wal;
    enum status status = STATUS_OK;
    if (recovery->newest < recovery->found_count) {
        /* After a mere crash of the process it may be in the page cache only. */
        struct wal__segment *newest = recovery->found[recovery->newest].segment;
        status = env_sync(newest->file, recovery->err);
        if (status == STATUS_OK && !recovery->heals) {
            cut_file(newest);
        }
    }
    if (status == STATUS_OK && !recovery->heals) {
        status = sort_files(recovery);
    }
    if (status == STATUS_OK) {
        keep_records(recovery);
        status = start_segment(recovery, reset);
    }
    if (status == STATUS_OK) {
        wal->active->begun_us = wal->opened_us;
        if (recovery->heals) {
            status = set_rest_aside(recovery);
        } else {
            remove_rest(recovery);
        }
    }
    if (status == STATUS_OK && wal->last_index > wal->commit_index) {
        status =
            wal__walk(wal, &recovery->scanner, wal->commit_index + 1, wal->last_index, load_group, wal, recovery->err);
    }
    return status;
}
