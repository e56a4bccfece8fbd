/* Blocks of changes: revisions as steps, keys as what they don't share with the key in front. */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "storage/change.h"
#include "storage/entry.h"

enum {
    /* The control byte: kind in bits 0 and 1, step in 2 and 3, shared bytes of the key in 4 to 7. */
    STEP_SAME = 0,   /* the next operation of the same entry; of the first change of a block: where the block begins */
    STEP_NEXT = 1,   /* the first of the entry behind it */
    STEP_FAR = 2,    /* a varint follows: so many entries on, at least two */
    SHARED_FAR = 15, /* a varint follows: so many more */
    HEAD_BYTES_MAX = 2 * VARINT_BYTES_MAX,
    CHANGE_FIXED_BYTES_MAX = 1 + 5 * VARINT_BYTES_MAX
};

/* ---- Builder ------------------------------------------------------------------------------------------------- */

void change_block_builder_init(struct change_block_builder *builder, struct alloc *alloc) {
    buf_init(&builder->body, alloc, 0);
    builder->count = 0;
    builder->last_len = 0;
}

void change_block_builder_deinit(struct change_block_builder *builder) { buf_deinit(&builder->body); }

void change_block_builder_reset(struct change_block_builder *builder) {
    buf_clear(&builder->body);
    builder->count = 0;
    builder->last_len = 0;
}

static size_t shared_bytes(struct slice a, struct slice b) {
    size_t max = a.len < b.len ? a.len : b.len;
    size_t shared = 0;
    while (shared < max && a.data[shared] == b.data[shared]) {
        shared++;
    }
    return shared;
}

static uint8_t *put_rest(uint8_t *at, struct slice key, size_t shared) {
    at = put_varint(at, key.len - shared);
    memcpy(at, key.data + shared, key.len - shared);
    return at + (key.len - shared);
}

static unsigned step_of(const struct change_block_builder *builder, const struct change *change) {
    if (builder->count == 0) {
        return STEP_SAME;
    }
    if (change->revision == builder->revision) {
        CHECK(change->ordinal == builder->ordinal + 1);
        return STEP_SAME;
    }
    CHECK(change->revision > builder->revision && change->ordinal == 0);
    return change->revision == builder->revision + 1 ? STEP_NEXT : STEP_FAR;
}

enum status change_block_builder_add(struct change_block_builder *builder, const struct change *change) {
    struct buf *body = &builder->body;
    size_t room = HEAD_BYTES_MAX + CHANGE_FIXED_BYTES_MAX + change->key.len + change->end.len;
    CHECK(change->kind == BATCH_PUT || change->kind == BATCH_DELETE || change->kind == BATCH_DELETE_RANGE);
    CHECK(change->revision > 0 && change->key.len >= 1 && change->key.len <= LIMIT_KEY_BYTES);
    unsigned step = step_of(builder, change);
    if (buf_reserve(body, room) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    uint8_t *at = body->data + body->len;
    if (builder->count == 0) {
        at = put_varint(put_varint(at, change->revision), change->ordinal);
    }
    size_t shared = shared_bytes(slice_of(builder->last, builder->last_len), change->key);
    size_t shared_bits = shared < SHARED_FAR ? shared : SHARED_FAR;
    *at++ = (uint8_t)((unsigned)change->kind | step << 2 | shared_bits << 4);
    if (step == STEP_FAR) {
        at = put_varint(at, change->revision - builder->revision);
    }
    if (shared_bits == SHARED_FAR) {
        at = put_varint(at, shared - SHARED_FAR);
    }
    at = put_rest(at, change->key, shared);
    if (change->kind == BATCH_DELETE_RANGE) {
        CHECK(change->end.len <= LIMIT_KEY_BYTES && slice_compare(change->key, change->end) < 0);
        shared = shared_bytes(change->key, change->end);
        at = put_rest(put_varint(at, shared), change->end, shared);
    }
    body->len = (size_t)(at - body->data);
    builder->count++;
    builder->revision = change->revision;
    builder->ordinal = change->ordinal;
    builder->last_len = change->key.len;
    memcpy(builder->last, change->key.data, change->key.len);
    return STATUS_OK;
}

/* ---- Reader -------------------------------------------------------------------------------------------------- */

enum status change_block_open(struct change_block *block, struct slice body) {
    uint64_t revision;
    uint64_t ordinal;
    if (!cursor_varint(&body, &revision) || !cursor_varint(&body, &ordinal) || revision == 0 ||
        revision >= ENTRY_REVISION_NONE || ordinal >= LIMIT_BATCH_OPERATIONS || body.len == 0) {
        return STATUS_CORRUPT;
    }
    block->rest = body;
    block->is_first = true;
    block->change = (struct change){.revision = revision, .ordinal = (uint32_t)ordinal, .key = SLICE_EMPTY};
    return STATUS_OK;
}

/* Moves revision and ordinal on. False: impossible. */
static bool take_step(struct change_block *block, unsigned step) {
    struct change *change = &block->change;
    uint64_t far = 1;
    if (step == STEP_SAME) {
        change->ordinal += !block->is_first;
        return change->ordinal < LIMIT_BATCH_OPERATIONS;
    }
    if (block->is_first || step > STEP_FAR) {
        return false;
    }
    if (step == STEP_FAR && (!cursor_varint(&block->rest, &far) || far < 2)) {
        return false;
    }
    if (far >= ENTRY_REVISION_NONE - change->revision) {
        return false;
    }
    change->revision += far;
    change->ordinal = 0;
    return true;
}

/* The rest of a key of which `shared` bytes are in `key` already, out of `have`. 0: impossible. */
static size_t take_rest(struct change_block *block, uint8_t key[LIMIT_KEY_BYTES], uint64_t shared, size_t have) {
    struct slice rest;
    if (shared > have || !cursor_prefixed(&block->rest, &rest) || rest.len > LIMIT_KEY_BYTES - shared) {
        return 0;
    }
    if (rest.len > 0) {
        memcpy(key + shared, rest.data, rest.len);
    }
    return (size_t)shared + rest.len;
}

static bool take_end(struct change_block *block) {
    struct change *change = &block->change;
    uint64_t shared;
    if (!cursor_varint(&block->rest, &shared) || shared > change->key.len) {
        return false;
    }
    memcpy(block->end, block->key, (size_t)shared);
    size_t len = take_rest(block, block->end, shared, change->key.len);
    change->end = slice_of(block->end, len);
    return slice_compare(change->key, change->end) < 0;
}

enum status change_block_next(struct change_block *block) {
    struct change *change = &block->change;
    uint8_t control;
    uint64_t far;
    if (!cursor_u8(&block->rest, &control)) {
        return STATUS_NOT_FOUND;
    }
    uint64_t shared = control >> 4;
    change->kind = (enum batch_kind)(control & 3);
    change->end = SLICE_EMPTY;
    if ((control & 3) == 0 || !take_step(block, control >> 2 & 3)) {
        return STATUS_CORRUPT;
    }
    if (shared == SHARED_FAR) {
        if (!cursor_varint(&block->rest, &far) || far > LIMIT_KEY_BYTES) {
            return STATUS_CORRUPT;
        }
        shared += far;
    }
    size_t len = take_rest(block, block->key, shared, change->key.len);
    change->key = slice_of(block->key, len);
    block->is_first = false;
    if (len == 0 || (change->kind == BATCH_DELETE_RANGE && !take_end(block))) {
        return STATUS_CORRUPT;
    }
    return STATUS_OK;
}
