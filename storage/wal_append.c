/*
 * Records into forming groups, and the cut: an index at or below the last one voids the old suffix (DESIGN rules 8 and
 * 9).
 *
 * A record goes to the newest pending group as long as that stays within group_bytes_max, else it opens the next; a
 * record larger than that has a group of its own. Everything that can fail is done first: memory for the record, slots
 * for look-ups; only then is anything cut or written. So a failed append changes nothing.
 *
 * What a cut meets: pending records are forgotten as if never appended; sealed ones (in flight or on disk) stay where
 * they are and lose their say, and synced_index goes down. A group therefore never holds an index twice.
 */
#include "storage/wal_internal.h"

/* ---- Room ------------------------------------------------------------------------------------------------------- */

static struct wal__group *newest_pending(struct wal *wal) {
    return list_is_empty(&wal->pending) ? NULL : LIST_ENTRY(wal->pending.prev, struct wal__group, link);
}

/* Whether a group of so many bytes fits what is left here, or else the next prepared segment; takes it there. */
static bool take_room(const struct wal *wal, uint64_t len, uint64_t *room, const struct list **next_prepared) {
    uint64_t padded = wal__padded(len);
    if (padded > *room) {
        if (*next_prepared == &wal->prepared) {
            return false;
        }
        const struct wal__segment *segment = LIST_ENTRY(*next_prepared, struct wal__segment, link);
        *room = segment->bytes - WAL_FIRST_RECORDS_OFFSET - wal->reserve_bytes;
        *next_prepared = (*next_prepared)->next;
    }
    if (padded > *room) {
        return false;
    }
    *room -= padded;
    return true;
}

/* What waits and so many bytes more fit into what there is. */
static bool fits(struct wal *wal, uint64_t record_bytes) {
    uint64_t room = wal__room(wal, wal->active);
    const struct list *next_prepared = wal->prepared.next;
    const struct wal__group *newest = newest_pending(wal);
    bool joins = newest != NULL && newest->len + record_bytes <= wal->group_bytes_max;
    LIST_FOREACH (node, &wal->pending) {
        const struct wal__group *group = LIST_ENTRY(node, struct wal__group, link);
        uint64_t len = group->len + (group == newest && joins ? record_bytes : 0);
        if (!take_room(wal, len, &room, &next_prepared)) {
            return false;
        }
    }
    if (joins) {
        return true;
    }
    uint64_t groups = 1;
    if (record_bytes + WAL_GROUP_HEADER_BYTES > wal->group_bytes_max) {
        groups += 2 * (record_bytes / wal->group_bytes_max); /* two neighbours together exceed one group's size */
    }
    uint64_t len = record_bytes + groups * WAL_GROUP_HEADER_BYTES + (groups - 1) * WAL_BLOCK_BYTES;
    return take_room(wal, len, &room, &next_prepared);
}

enum status wal__check_space(struct wal *wal, uint64_t record_bytes) {
    /* At worst the group waits for the segment that is on its way. */
    if (!wal->prepare.failing || fits(wal, record_bytes)) {
        return STATUS_OK;
    }
    return wal->prepare.error.code == STATUS_NO_MEMORY ? STATUS_NO_MEMORY : STATUS_NO_SPACE;
}

static struct wal__group *find_spare(struct wal *wal, size_t len, uint32_t record_count) {
    LIST_FOREACH (node, &wal->spares) {
        struct wal__group *group = LIST_ENTRY(node, struct wal__group, link);
        if (group->buffer->capacity >= len && group->offset_capacity >= record_count) {
            return group;
        }
    }
    return NULL;
}

void wal__release_spares(struct wal *wal) {
    LIST_FOREACH (node, &wal->spares) {
        wal__group_release(&wal->pool, LIST_ENTRY(node, struct wal__group, link));
    }
}

static enum status add_spare(struct wal *wal, size_t len, uint32_t record_count) {
    struct wal__group *group = wal__group_take(&wal->pool, len, record_count);
    if (group == NULL) {
        return STATUS_NO_MEMORY;
    }
    list_push_back(&wal->spares, &group->link);
    return STATUS_OK;
}

static enum status grow(struct wal *wal, struct wal__group *group, size_t len, uint32_t record_count) {
    size_t before = group->buffer->capacity;
    enum status status = wal__group_grow(&wal->pool, group, len, record_count);
    wal__cache_grown(wal, before, group->buffer->capacity);
    return status;
}

static bool has_room(const struct wal__group *group, size_t record_bytes, uint32_t record_count) {
    return group->len + record_bytes <= group->buffer->capacity &&
           group->count + record_count <= group->offset_capacity;
}

static enum status reserve_slots(struct wal *wal, uint32_t groups) {
    enum status status = wal__cache_reserve(wal, groups);
    return status == STATUS_OK ? wal__index_reserve(&wal->index, wal->alloc, (size_t)wal->pending_count + groups)
                               : status;
}

/* Empty groups for records that may not fit the newest one. If they don't fit one group, nothing is known of their
 * sizes but the sum: one group that takes even a single record of all the bytes, and as many of usual size as can be
 * filled besides. */
static enum status reserve_groups(struct wal *wal, size_t record_bytes, uint32_t record_count) {
    size_t len = WAL_GROUP_HEADER_BYTES + record_bytes;
    uint32_t more = 0;
    if (len > wal->group_bytes_max) {
        more = 2 * (uint32_t)(record_bytes / wal->group_bytes_max);
        more = more < record_count - 1 ? more : record_count - 1;
    }
    enum status status = reserve_slots(wal, more + 1);
    if (status == STATUS_OK && more == 0 && find_spare(wal, len, record_count) != NULL) {
        return STATUS_OK;
    }
    wal__release_spares(wal); /* else reserving without appending would pile them up */
    for (uint32_t i = 0; status == STATUS_OK && i < more; i++) {
        status = add_spare(wal, wal->group_bytes_max, record_count);
    }
    return status == STATUS_OK ? add_spare(wal, len, record_count) : status;
}

enum status wal_reserve(struct wal *wal, size_t record_bytes, uint32_t record_count) {
    CHECK(wal->appending == NULL && record_count > 0);
    if (wal->failed) {
        return STATUS_FAILED;
    }
    enum status status = wal__check_space(wal, record_bytes);
    if (status != STATUS_OK) {
        return status;
    }
    struct wal__group *newest = newest_pending(wal);
    if (newest != NULL && newest->len + record_bytes <= wal->group_bytes_max) {
        status = reserve_slots(wal, 1);
        if (status == STATUS_OK && !has_room(newest, record_bytes, record_count)) {
            status = grow(wal, newest, newest->len + record_bytes, newest->count + record_count);
        }
        return status;
    }
    return reserve_groups(wal, record_bytes, record_count);
}

/* ---- Cutting ---------------------------------------------------------------------------------------------------- */

static void cut(struct wal *wal, uint64_t index) {
    CHECK(index > wal->commit_index);
    uint64_t previous_term = wal__cache_term(wal, index - 1);
    wal__cache_cut(wal, index);
    wal->last_index = index - 1;
    wal->last_term = previous_term;
    if (wal->sealed_index >= index) {
        wal->sealed_index = index - 1;
        wal->sealed_term = previous_term;
        wal__index_cut(&wal->index, index);
        wal__share_cut(wal, index);
        wal__reads_cut(wal, index);
    }
    if (wal->synced_index >= index) {
        wal->synced_index = index - 1;
    }
    if (wal->first_index > index) {
        wal->first_index = index;
    }
}

/* ---- Appending -------------------------------------------------------------------------------------------------- */

/* An empty group as the newest pending one. A spare of that size exists, or memory for one. */
static enum status open_group(struct wal *wal, size_t record_bytes) {
    size_t len = WAL_GROUP_HEADER_BYTES + record_bytes;
    bool lent = wal->pool.has_pieces && len <= wal->group_bytes_max;
    struct wal__group *group = lent ? wal__group_take_lent(&wal->pool) : find_spare(wal, len, 1);
    if (lent) {
        if (group == NULL) {
            return STATUS_BUSY;
        }
    } else if (group != NULL) {
        list_remove(&group->link);
    } else {
        size_t wanted = wal->group_bytes_hint > len ? wal->group_bytes_hint : len;
        group = wal__group_take(&wal->pool, wanted, 1);
        if (group == NULL) {
            return STATUS_NO_MEMORY;
        }
    }
    group->first_index = wal->last_index + 1;
    list_push_back(&wal->pending, &group->link);
    wal->pending_count++;
    wal__cache_push(wal, group);
    return STATUS_OK;
}

/* Cuts if it must and makes room for one record in the newest pending group. */
static enum status make_room(struct wal *wal, uint64_t index, uint64_t term, size_t record_bytes) {
    CHECK(wal->started && wal->appending == NULL);
    CHECK(index > 0 && index <= wal->last_index + 1);
    if (wal->failed || wal->closing) {
        return STATUS_FAILED;
    }
    if (record_bytes > (size_t)wal->options.entry_payload_bytes_max + WAL_RECORD_HEADER_BYTES) {
        return STATUS_TOO_LARGE;
    }
    enum status status = wal__check_space(wal, record_bytes);
    if (status == STATUS_OK) {
        status = reserve_slots(wal, 1);
    }
    bool cutting = index <= wal->last_index;
    if (status == STATUS_OK && cutting) {
        if (find_spare(wal, WAL_GROUP_HEADER_BYTES + record_bytes, 1) == NULL) {
            status = add_spare(wal, WAL_GROUP_HEADER_BYTES + record_bytes, 1);
        }
        if (status == STATUS_OK) {
            cut(wal, index);
        }
    }
    if (status != STATUS_OK) {
        return status;
    }
    CHECK(term >= wal->last_term);
    struct wal__group *newest = newest_pending(wal);
    if (newest != NULL && newest->len + record_bytes <= wal->group_bytes_max) {
        if (has_room(newest, record_bytes, 1) ||
            (!cutting && grow(wal, newest, newest->len + record_bytes, newest->count + 1) == STATUS_OK)) {
            return STATUS_OK;
        }
    }
    return open_group(wal, record_bytes);
}

/* The record stands behind the newest pending group's end. */
static void count_record(struct wal *wal, uint64_t index, uint64_t term, size_t record_bytes) {
    struct wal__group *group = newest_pending(wal);
    CHECK(group->first_index + group->count == index && has_room(group, record_bytes, 1));
    group->offsets[group->count] = (uint32_t)group->len;
    group->count++;
    group->live_count = group->count;
    group->large_bytes += wal__is_large(wal, record_bytes - WAL_RECORD_HEADER_BYTES) ? record_bytes : 0;
    group->len += record_bytes;
    wal->last_index = index;
    wal->last_term = term;
    wal__wake_writer(wal);
}

enum status wal_append_begin(struct wal *wal, uint64_t index, uint64_t term, uint8_t kind, size_t payload_len,
                             uint8_t **ret_payload) {
    CHECK(kind != 0);
    if (payload_len > LIMIT_ENTRY_PAYLOAD_BYTES) {
        return STATUS_TOO_LARGE;
    }
    size_t record_bytes = WAL_RECORD_HEADER_BYTES + payload_len;
    if (wal->options.mode == WAL_MODE_BLOCKING && !wal->prepare.failing && !fits(wal, record_bytes)) {
        wal->wants_segment = true;
        wal__prepare_more(wal);
        return wal->failed || wal->closing ? STATUS_FAILED : STATUS_BUSY;
    }
    enum status status = make_room(wal, index, term, record_bytes);
    if (status != STATUS_OK) {
        return status;
    }
    struct wal__group *group = newest_pending(wal);
    uint8_t *payload = group->buffer->data + group->len + WAL_RECORD_HEADER_BYTES;
    wal->appending = group;
    wal->append_record =
        (struct wal_record){.index = index, .term = term, .kind = kind, .payload = slice_of(payload, payload_len)};
    *ret_payload = payload;
    return STATUS_OK;
}

void wal_append_cancel(struct wal *wal) {
    struct wal__group *group = wal->appending;
    CHECK(group != NULL);
    wal->appending = NULL;
    if (group->count == 0) {
        wal__cache_drop_empty(wal, group);
        wal__group_release(&wal->pool, group);
    }
}

void wal_append_end(struct wal *wal) {
    struct wal__group *group = wal->appending;
    CHECK(group != NULL);
    const struct wal_record *record = &wal->append_record;
    wal->appending = NULL;
    wal_record_seal(group->buffer->data + group->len, record->kind, record->index, record->term, record->payload.len);
    count_record(wal, record->index, record->term, WAL_RECORD_HEADER_BYTES + record->payload.len);
}

enum status wal_append(struct wal *wal, const struct wal_record *record) {
    CHECK(record->bytes.len == WAL_RECORD_HEADER_BYTES + record->payload.len);
    enum status status = make_room(wal, record->index, record->term, record->bytes.len);
    if (status != STATUS_OK) {
        return status;
    }
    struct wal__group *group = newest_pending(wal);
    memcpy(group->buffer->data + group->len, record->bytes.data, record->bytes.len);
    count_record(wal, record->index, record->term, record->bytes.len);
    return STATUS_OK;
}

/* ---- What group headers carry ----------------------------------------------------------------------------------- */

void wal_set_state(struct wal *wal, uint64_t term, uint64_t vote) {
    CHECK(wal->appending == NULL && term >= wal->term);
    if (term == wal->term && vote == wal->vote) {
        return;
    }
    wal->term = term;
    wal->vote = vote;
    wal->state_dirty = true;
    wal__wake_writer(wal);
}

enum status wal_set_membership(struct wal *wal, struct slice membership) {
    CHECK(wal->appending == NULL);
    if (wal->failed) {
        return STATUS_FAILED;
    }
    if (membership.len > LIMIT_MEMBERSHIP_BYTES) {
        return STATUS_TOO_LARGE;
    }
    if (membership.len > 0) {
        memcpy(wal->membership, membership.data, membership.len);
    }
    wal->membership_len = (uint32_t)membership.len;
    return STATUS_OK;
}

void wal_set_commit(struct wal *wal, uint64_t commit_index) {
    CHECK(commit_index <= wal->last_index);
    if (commit_index > wal->commit_index) {
        wal->commit_index = commit_index;
    }
}

void wal_set_applied(struct wal *wal, uint64_t applied_index) {
    wal_set_commit(wal, applied_index); /* what is applied was committed */
    if (applied_index > wal->applied_index) {
        wal->applied_index = applied_index;
        wal__cache_trim(wal);
    }
}
