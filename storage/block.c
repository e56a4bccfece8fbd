/*
 * The cursor over a block's body.
 *
 * Three ways to get at an entry. Forward: its key is made from the one in front, in the cursor's memory, unless it
 * stands in the body in full. Search: keys aren't made at all. While entries are in front of the target, it is enough
 * to know how many bytes the current one has in common with the target: the next one's `shared` (always the most that
 * the two have in common, except at restarts) says if it stands on the same side, or which of its bytes decide.
 * Backward: the heads of an interval are decoded once; then each step back takes the bytes that the key in front
 * doesn't share from the suffixes before it.
 */
#include "node/base/check.h"
#include "storage/block_internal.h"

enum { ITEM_NONE = -1 };

struct head {
    uint64_t revision;
    uint32_t ordinal;
    uint32_t shared;
    uint32_t suffix_len;
    uint32_t value_len;
    uint32_t suffix_at; /* offset in the body */
    uint32_t next;      /* offset behind the entry */
    unsigned kind;
};

/* ---- Entries ------------------------------------------------------------------------------------------------- */

static inline bool is_entry(unsigned kind, uint32_t value_len) {
    return kind == BATCH_PUT || (kind == BATCH_DELETE && value_len == 0) ||
           (kind == BATCH_PUT_APART && value_len == ENTRY_PLACE_BYTES);
}

/* 1 to 8 bytes. Reads 8: of the slack, if need be. */
static inline uint64_t get_revision(const uint8_t *in, unsigned len) {
    return get_u64(in) & (UINT64_MAX >> (64 - 8 * len));
}

static __attribute__((noinline)) bool decode_long(const struct block_cursor *cursor, uint32_t offset,
                                                  struct head *head) {
    *head = (struct head){0};
    uint8_t control = cursor->body[offset];
    unsigned revision_len = control & BLOCK_REVISION_LEN_MASK;
    bool has_ordinal = (control & BLOCK_HAS_ORDINAL) != 0;
    struct slice at = slice_of(cursor->body + offset + 1, cursor->entries_len - offset - 1);
    uint64_t shared;
    uint64_t suffix_len;
    uint64_t value_len;
    uint64_t ordinal = 0;
    if (!cursor_varint(&at, &shared) || !cursor_varint(&at, &suffix_len) || !cursor_varint(&at, &value_len) ||
        (has_ordinal && !cursor_varint(&at, &ordinal)) || revision_len > 8 || at.len < revision_len) {
        return false;
    }
    head->revision = revision_len == 0 ? ENTRY_REVISION_NONE : get_revision(at.data, revision_len);
    cursor_skip(&at, revision_len);
    if (shared > LIMIT_KEY_BYTES || suffix_len > LIMIT_KEY_BYTES || shared + suffix_len < 1 ||
        shared + suffix_len > LIMIT_KEY_BYTES || value_len > LIMIT_VALUE_BYTES || suffix_len + value_len > at.len ||
        ordinal > ENTRY_ORDINAL_MAX || (has_ordinal && revision_len == 0)) {
        return false;
    }
    head->ordinal = revision_len == 0 ? ENTRY_ORDINAL_MAX : (uint32_t)ordinal;
    head->shared = (uint32_t)shared;
    head->suffix_len = (uint32_t)suffix_len;
    head->value_len = (uint32_t)value_len;
    head->suffix_at = (uint32_t)(at.data - cursor->body);
    head->next = head->suffix_at + head->suffix_len + head->value_len;
    head->kind = control >> BLOCK_KIND_SHIFT;
    return is_entry(head->kind, head->value_len);
}

/* The entry at offset < entries_len. False: it is not one. */
static inline bool decode(const struct block_cursor *cursor, uint32_t offset, struct head *head) {
    const uint8_t *in = cursor->body + offset;
    uint32_t start = get_u32(in); /* control and, nearly always, the three lengths */
    unsigned revision_len = start & BLOCK_REVISION_LEN_MASK;
    if ((start & (0x80808000u | BLOCK_HAS_ORDINAL)) != 0 || revision_len - 1 > 7) {
        struct head decoded; /* the caller's stays in registers */
        bool good = decode_long(cursor, offset, &decoded);
        *head = decoded;
        return good;
    }
    head->shared = start >> 8 & 0x7f;
    head->suffix_len = start >> 16 & 0x7f;
    head->value_len = start >> 24;
    head->kind = (start & 0xff) >> BLOCK_KIND_SHIFT;
    head->revision = get_revision(in + 4, revision_len);
    head->ordinal = 0;
    head->suffix_at = offset + 4 + revision_len;
    head->next = head->suffix_at + head->suffix_len + head->value_len;
    return head->next <= cursor->entries_len && head->shared + head->suffix_len >= 1 &&
           is_entry(head->kind, head->value_len);
}

/* Copies len bytes from the body or the cursor's key; up to 16 in one go, with what follows them. */
static inline void copy_key(uint8_t *to, const uint8_t *from, size_t len) {
    if (len <= BLOCK_SLACK_BYTES) {
        memcpy(to, from, BLOCK_SLACK_BYTES);
    } else {
        memcpy(to, from, len);
    }
}

/* Copies len bytes of a target's key, which nothing may follow and which may be the cursor's own. */
static inline void copy_target(uint8_t *to, const uint8_t *from, size_t len) {
    if (len >= sizeof(uint64_t) && len <= 2 * sizeof(uint64_t)) {
        uint64_t begin = get_u64(from);
        uint64_t end = get_u64(from + len - sizeof end);
        put_u64(to, begin);
        put_u64(to + len - sizeof end, end);
    } else if (len > 0) {
        memmove(to, from, len);
    }
}

/* Makes it current; its key as given. */
static inline void set_current(struct block_cursor *cursor, uint32_t offset, const struct head *head,
                               const uint8_t *key) {
    cursor->entry =
        (struct entry){.key = {slice_of(key, (size_t)head->shared + head->suffix_len), head->revision, head->ordinal},
                       .value = slice_of(cursor->body + head->suffix_at + head->suffix_len, head->value_len),
                       .kind = (enum batch_kind)head->kind};
    cursor->at = offset;
    cursor->next = head->next;
}

/* Goes to the entry at offset. The current key supplies the bytes that it shares; no current key: an empty one. */
static inline enum status step(struct block_cursor *cursor, uint32_t offset) {
    struct head head;
    struct slice last = cursor->entry.key.user;
    if (!decode(cursor, offset, &head) || head.shared > last.len) {
        return STATUS_CORRUPT;
    }
    const uint8_t *key = cursor->body + head.suffix_at;
    if (head.shared > 0) {
        if (last.data != cursor->key) {
            copy_key(cursor->key, last.data, head.shared);
        }
        copy_key(cursor->key + head.shared, key, head.suffix_len);
        key = cursor->key;
    }
    cursor->item = ITEM_NONE;
    set_current(cursor, offset, &head, key);
    return STATUS_OK;
}

/* ---- Forward ------------------------------------------------------------------------------------------------- */

static inline const uint8_t *restarts(const struct block_cursor *cursor) { return cursor->body + cursor->entries_len; }

/* As it stands there: to be checked. */
static inline uint32_t restart_offset(const struct block_cursor *cursor, uint32_t restart) {
    return get_u32(restarts(cursor) + sizeof(uint32_t) * (size_t)restart);
}

enum status block_cursor_open(struct block_cursor *cursor, struct slice body) {
    if (body.len <= BLOCK_SLACK_BYTES || body.len > BLOCK_BODY_BYTES_MAX) {
        return STATUS_CORRUPT;
    }
    const uint8_t *tail = body.data + body.len - BLOCK_TAIL_BYTES;
    size_t left = body.len - BLOCK_TAIL_BYTES;
    uint32_t entry_count = get_u32(tail);
    uint32_t restart_count = get_u32(tail + 4);
    uint32_t bucket_count = get_u16(tail + 8);
    if (get_u16(tail + 10) != 0 || restart_count == 0 || restart_count > entry_count || bucket_count > left ||
        restart_count > (left - bucket_count) / sizeof(uint32_t)) {
        return STATUS_CORRUPT;
    }
    size_t entries_len = left - bucket_count - sizeof(uint32_t) * restart_count;
    if (entries_len < restart_count || get_u32(body.data + entries_len) != 0) {
        return STATUS_CORRUPT;
    }
    cursor->body = body.data;
    cursor->entries_len = (uint32_t)entries_len;
    cursor->restart_count = restart_count;
    cursor->entry_count = entry_count;
    cursor->bucket_count = bucket_count;
    cursor->at = 0;
    cursor->next = 0;
    cursor->item = ITEM_NONE;
    cursor->entry.key.user = SLICE_EMPTY;
    return STATUS_OK;
}

enum status block_cursor_first(struct block_cursor *cursor) {
    cursor->entry.key.user = SLICE_EMPTY;
    return step(cursor, 0);
}

enum status block_cursor_next(struct block_cursor *cursor) {
    return cursor->next >= cursor->entries_len ? STATUS_NOT_FOUND : step(cursor, cursor->next);
}

/* ---- Searching ----------------------------------------------------------------------------------------------- */

/* What a search came upon. */
struct sighting {
    struct head head;
    uint32_t offset;
    bool same_user; /* its user key is the target's; without a find: that of the last entry in front */
};

/* Bytes that both begin with; 8 more can be read behind each. */
static inline size_t shared_of_padded(struct slice a, struct slice b) {
    size_t limit = a.len < b.len ? a.len : b.len;
    for (size_t at = 0; at < limit; at += sizeof(uint64_t)) {
        uint64_t differing = get_u64(a.data + at) ^ get_u64(b.data + at);
        if (differing != 0) {
            at += (size_t)__builtin_ctzll(differing) / 8;
            return at < limit ? at : limit;
        }
    }
    return limit;
}

/* Order of an entry and the target, whose first head->shared bytes the entry has. ret_match: how many in all. */
static inline int sight(const struct block_cursor *cursor, const struct entry_key *target, const struct head *head,
                        size_t *ret_match, bool *ret_same_user) {
    struct slice suffix = slice_of(cursor->body + head->suffix_at, head->suffix_len);
    struct slice rest = slice_of(target->user.data + head->shared, target->user.len - head->shared);
    size_t more = shared_of_padded(suffix, rest);
    int order = block__order(suffix, rest, more);
    *ret_match = head->shared + more;
    *ret_same_user = order == 0;
    return order != 0 ? order : entry_compare_age(head->revision, head->ordinal, target->revision, target->ordinal);
}

/* Looks for the first entry at or behind the target in one interval. STATUS_NOT_FOUND: all of it is in front. */
static enum status search_interval(const struct block_cursor *cursor, uint32_t restart, const struct entry_key *target,
                                   struct sighting *seen) {
    bool is_last = restart + 1 == cursor->restart_count;
    uint32_t end = is_last ? cursor->entries_len : restart_offset(cursor, restart + 1);
    uint32_t offset = restart_offset(cursor, restart);
    struct head head;
    size_t match;
    bool same_user;
    if (offset >= end || end > cursor->entries_len || !decode(cursor, offset, &head) || head.shared != 0) {
        return STATUS_CORRUPT;
    }
    int order = sight(cursor, target, &head, &match, &same_user);
    while (order < 0) {
        uint32_t len = head.shared + head.suffix_len;
        offset = head.next;
        if (offset >= end) {
            seen->same_user = same_user;
            return offset == end ? STATUS_NOT_FOUND : STATUS_CORRUPT;
        }
        if (!decode(cursor, offset, &head) || head.shared > len) {
            return STATUS_CORRUPT;
        }
        if (head.shared == match) {
            order = sight(cursor, target, &head, &match, &same_user);
        } else if (head.shared < match) {
            /* Greater than the one before it in a byte that that one has from the target. */
            order = 1;
            same_user = false;
        } /* Else it has the byte that put the one before it in front of the target. */
    }
    *seen = (struct sighting){.head = head, .offset = offset, .same_user = same_user};
    return STATUS_OK;
}

/* The target of a search in the cursor's own memory: with room to read behind it, and where what it has in common with
 * the entry that is found will be needed. */
static struct entry_key hold_target(struct block_cursor *cursor, const struct entry_key *target) {
    struct entry_key held = *target;
    CHECK(target->user.len <= BLOCK_TARGET_BYTES_MAX);
    copy_target(cursor->key, target->user.data, target->user.len);
    put_u64(cursor->key + target->user.len, 0);
    held.user.data = cursor->key;
    return held;
}

/* Makes current what search_interval found, after hold_target: what its key shares it shares with the target, too. */
static void settle(struct block_cursor *cursor, const struct sighting *seen) {
    const struct head *head = &seen->head;
    const uint8_t *key = cursor->body + head->suffix_at;
    if (head->shared > 0) {
        copy_key(cursor->key + head->shared, key, head->suffix_len);
        key = cursor->key;
    }
    cursor->item = ITEM_NONE;
    set_current(cursor, seen->offset, head, key);
}

/* The last restart in front of the target; the first if there is none. */
static enum status find_restart(const struct block_cursor *cursor, const struct entry_key *target,
                                uint32_t *ret_restart) {
    uint32_t low = 0;
    uint32_t high = cursor->restart_count - 1;
    struct head head;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        uint32_t offset = restart_offset(cursor, middle);
        if (offset >= cursor->entries_len || !decode(cursor, offset, &head) || head.shared != 0) {
            return STATUS_CORRUPT;
        }
        struct slice key = slice_of(cursor->body + head.suffix_at, head.suffix_len);
        if (entry_key_compare(&(struct entry_key){key, head.revision, head.ordinal}, target) < 0) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    *ret_restart = low;
    return STATUS_OK;
}

enum status block_cursor_seek(struct block_cursor *cursor, const struct entry_key *target) {
    struct entry_key held = hold_target(cursor, target);
    struct sighting seen;
    uint32_t restart;
    enum status status = find_restart(cursor, &held, &restart);
    if (status != STATUS_OK) {
        return status;
    }
    do {
        status = search_interval(cursor, restart, &held, &seen);
    } while (status == STATUS_NOT_FOUND && ++restart < cursor->restart_count);
    if (status == STATUS_OK) {
        settle(cursor, &seen);
    }
    return status;
}

enum status block_cursor_seek_before(struct block_cursor *cursor, const struct entry_key *target) {
    enum status status = block_cursor_seek(cursor, target);
    if (status == STATUS_NOT_FOUND) {
        return block_cursor_last(cursor);
    }
    return status == STATUS_OK ? block_cursor_prev(cursor) : status;
}

enum status block_cursor_find(struct block_cursor *cursor, struct slice user, uint64_t user_hash, uint64_t revision) {
    struct entry_key target = entry_key_at(user, revision);
    struct sighting seen;
    uint32_t restart = BLOCK_BUCKET_COLLISION;
    enum status status = STATUS_OK;
    if (cursor->bucket_count > 0) {
        const uint8_t *buckets = restarts(cursor) + sizeof(uint32_t) * (size_t)cursor->restart_count;
        restart = buckets[block__bucket(user_hash, cursor->bucket_count)];
        if (restart == BLOCK_BUCKET_EMPTY) {
            return STATUS_NOT_FOUND;
        }
    }
    struct entry_key held = hold_target(cursor, &target);
    bool by_bucket = restart != BLOCK_BUCKET_COLLISION;
    if (!by_bucket) {
        status = find_restart(cursor, &held, &restart);
    } else if (restart >= cursor->restart_count) {
        status = STATUS_CORRUPT;
    }
    if (status != STATUS_OK) {
        return status;
    }
    /* A bucket names the interval where the key begins: there is more of it in the next one only if this one ends with
     * versions that are too new. */
    do {
        status = search_interval(cursor, restart, &held, &seen);
    } while (status == STATUS_NOT_FOUND && ++restart < cursor->restart_count && (seen.same_user || !by_bucket));
    if (status == STATUS_OK && !seen.same_user) {
        return STATUS_NOT_FOUND;
    }
    if (status == STATUS_OK) {
        settle(cursor, &seen);
    }
    return status;
}

/* ---- Backward ------------------------------------------------------------------------------------------------ */

/* The heads from the restart in front of `end`, which is where an entry begins or all of them end, up to there. */
static enum status load_items(struct block_cursor *cursor, uint32_t end, int32_t *ret_count) {
    uint32_t low = 0;
    uint32_t high = cursor->restart_count - 1;
    while (low < high) { /* the last restart in front of it; number 0 has the offset 0 */
        uint32_t middle = low + (high - low + 1) / 2;
        if (restart_offset(cursor, middle) < end) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    uint32_t offset = restart_offset(cursor, low);
    uint32_t len = 0;
    int32_t count = 0;
    struct head head;
    while (offset < end && count < BLOCK_INTERVAL) {
        if (!decode(cursor, offset, &head) || head.shared > len) {
            return STATUS_CORRUPT;
        }
        cursor->items[count++] = (struct block_item){.revision = head.revision,
                                                     .ordinal = head.ordinal,
                                                     .offset = offset,
                                                     .suffix_at = head.suffix_at,
                                                     .value_len = head.value_len,
                                                     .shared = (uint16_t)head.shared,
                                                     .suffix_len = (uint16_t)head.suffix_len,
                                                     .kind = (uint8_t)head.kind};
        len = head.shared + head.suffix_len;
        offset = head.next;
    }
    if (offset != end || count == 0) {
        return STATUS_CORRUPT;
    }
    *ret_count = count;
    return STATUS_OK;
}

/* Makes an item current. The cursor's memory has the first `have` bytes of its key already. */
static void set_item(struct block_cursor *cursor, int32_t at, uint32_t have) {
    const struct block_item *item = &cursor->items[at];
    struct head head = {.revision = item->revision,
                        .ordinal = item->ordinal,
                        .shared = item->shared,
                        .suffix_len = item->suffix_len,
                        .value_len = item->value_len,
                        .suffix_at = item->suffix_at,
                        .next = item->suffix_at + item->suffix_len + item->value_len,
                        .kind = item->kind};
    const uint8_t *key = cursor->body + item->suffix_at;
    if (item->shared > 0) {
        copy_key(cursor->key + item->shared, key, item->suffix_len);
        /* What is missing in front: from the nearest item before that has it in its suffix. The first shares nothing,
         * so this ends there at the latest. */
        uint32_t missing_end = item->shared;
        for (const struct block_item *from = item - 1; missing_end > have; from--) {
            if (from->shared < missing_end) {
                memcpy(cursor->key + from->shared, cursor->body + from->suffix_at, missing_end - from->shared);
                missing_end = from->shared;
            }
        }
        key = cursor->key;
    }
    cursor->item = at;
    set_current(cursor, item->offset, &head, key);
}

enum status block_cursor_prev(struct block_cursor *cursor) {
    if (cursor->item > 0) {
        /* The current key was made in the cursor's memory if it shares anything with this one. */
        set_item(cursor, cursor->item - 1, cursor->items[cursor->item].shared);
        return STATUS_OK;
    }
    if (cursor->at == 0) {
        return STATUS_NOT_FOUND;
    }
    int32_t count;
    enum status status = load_items(cursor, cursor->at, &count);
    if (status == STATUS_OK) {
        set_item(cursor, count - 1, 0);
    }
    return status;
}

enum status block_cursor_last(struct block_cursor *cursor) {
    int32_t count;
    enum status status = load_items(cursor, cursor->entries_len, &count);
    if (status == STATUS_OK) {
        set_item(cursor, count - 1, 0);
    }
    return status;
}
