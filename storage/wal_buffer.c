/*
 * Memory of groups: aligned buffers in size classes and the structs around them, kept for reuse, so that a busy log
 * allocates nothing.
 *
 * A buffer is shared by the group that fills it and by reads that still show its records: whoever drops the last
 * reference gives it back. Buffers beyond the largest class hold one huge record and are freed after use.
 */
#include "storage/wal_internal.h"

enum {
    CLASS_BYTES_KEPT = 1024 * 1024, /* free memory kept per class, */
    CLASS_COUNT_KEPT = 2,           /* or so many buffers */
    GROUPS_KEPT = 256,
    OFFSETS_MIN = 32
};

void wal__pool_init(struct wal__pool *pool, struct alloc *alloc) {
    memset(pool, 0, sizeof *pool);
    pool->alloc = alloc;
    list_init(&pool->groups);
    for (uint32_t i = 0; i < WAL_BUFFER_CLASSES; i++) {
        list_init(&pool->free[i]);
    }
}

static void buffer_free(struct wal__pool *pool, struct wal__buffer *buffer) {
    mem_free(pool->alloc, buffer->data);
    mem_free(pool->alloc, buffer);
}

static void group_free(struct wal__pool *pool, struct wal__group *group) {
    mem_free(pool->alloc, group->offsets);
    mem_free(pool->alloc, group);
}

void wal__pool_deinit(struct wal__pool *pool) {
    CHECK(pool->lent == 0);
    for (uint32_t i = 0; i < WAL_BUFFER_CLASSES; i++) {
        LIST_FOREACH (node, &pool->free[i]) {
            list_remove(node);
            buffer_free(pool, LIST_ENTRY(node, struct wal__buffer, link));
        }
    }
    LIST_FOREACH (node, &pool->groups) {
        list_remove(node);
        group_free(pool, LIST_ENTRY(node, struct wal__group, link));
    }
}

/* ---- Buffers ---------------------------------------------------------------------------------------------------- */

static size_t class_bytes(uint32_t size_class) { return (size_t)WAL_BUFFER_BYTES_MIN << size_class; }

static uint32_t class_of(size_t capacity) {
    uint32_t size_class = 0;
    while (size_class < WAL_BUFFER_CLASSES && class_bytes(size_class) < capacity) {
        size_class++;
    }
    return size_class;
}

struct wal__buffer *wal__buffer_take(struct wal__pool *pool, size_t capacity) {
    uint32_t size_class = class_of(capacity);
    bool pooled = size_class < WAL_BUFFER_CLASSES;
    if (pooled && pool->free_count[size_class] > 0) {
        struct list *node = list_pop_front(&pool->free[size_class]);
        CHECK(node != NULL);
        pool->free_count[size_class]--;
        pool->lent++;
        struct wal__buffer *buffer = LIST_ENTRY(node, struct wal__buffer, link);
        buffer->references = 1;
        return buffer;
    }
    struct wal__buffer *buffer = mem_alloc(pool->alloc, sizeof *buffer);
    if (buffer == NULL) {
        return NULL;
    }
    size_t bytes = pooled ? class_bytes(size_class) : (size_t)wal__padded(capacity);
    uint8_t *data = mem_alloc_aligned(pool->alloc, WAL_BLOCK_BYTES, bytes);
    if (data == NULL) {
        mem_free(pool->alloc, buffer);
        return NULL;
    }
    *buffer = (struct wal__buffer){.data = data, .capacity = bytes, .references = 1, .size_class = size_class};
    list_init(&buffer->link);
    pool->lent++;
    return buffer;
}

void wal__buffer_unref(struct wal__pool *pool, struct wal__buffer *buffer) {
    CHECK(buffer->references > 0);
    if (--buffer->references > 0) {
        return;
    }
    CHECK(pool->lent > 0);
    pool->lent--;
    uint32_t size_class = buffer->size_class;
    if (size_class == WAL_BUFFER_LENT) {
        return; /* without references it is free */
    }
    if (size_class >= WAL_BUFFER_CLASSES) {
        buffer_free(pool, buffer);
        return;
    }
    uint32_t kept = CLASS_BYTES_KEPT / (uint32_t)class_bytes(size_class);
    if (pool->free_count[size_class] >= (kept > CLASS_COUNT_KEPT ? kept : CLASS_COUNT_KEPT)) {
        buffer_free(pool, buffer);
        return;
    }
    list_push_front(&pool->free[size_class], &buffer->link); /* the warm one first */
    pool->free_count[size_class]++;
}

/* ---- Groups ----------------------------------------------------------------------------------------------------- */

static enum status grow_offsets(struct wal__pool *pool, struct wal__group *group, uint32_t record_count) {
    if (record_count <= group->offset_capacity) {
        return STATUS_OK;
    }
    uint32_t capacity = group->offset_capacity < OFFSETS_MIN ? OFFSETS_MIN : group->offset_capacity;
    while (capacity < record_count) {
        CHECK(capacity <= UINT32_MAX / 2);
        capacity *= 2;
    }
    uint32_t *offsets = mem_resize(pool->alloc, group->offsets, (size_t)capacity * sizeof *offsets);
    if (offsets == NULL) {
        return STATUS_NO_MEMORY;
    }
    group->offsets = offsets;
    group->offset_capacity = capacity;
    return STATUS_OK;
}

static void keep_group(struct wal__pool *pool, struct wal__group *group) {
    if (pool->group_count >= GROUPS_KEPT) {
        group_free(pool, group);
        return;
    }
    list_push_front(&pool->groups, &group->link);
    pool->group_count++;
}

/* Without a buffer. */
static struct wal__group *take_struct(struct wal__pool *pool, uint32_t record_count) {
    struct wal__group *group = NULL;
    struct list *node = list_pop_front(&pool->groups);
    if (node != NULL) {
        pool->group_count--;
        group = LIST_ENTRY(node, struct wal__group, link);
    } else {
        group = mem_alloc_zero(pool->alloc, sizeof *group);
        if (group == NULL) {
            return NULL;
        }
    }
    list_init(&group->link);
    group->buffer = NULL;
    if (grow_offsets(pool, group, record_count) != STATUS_OK) {
        keep_group(pool, group);
        return NULL;
    }
    group->count = 0;
    group->large_bytes = 0;
    group->live_count = 0;
    group->len = WAL_GROUP_HEADER_BYTES;
    group->first_index = 0;
    group->sealed = false;
    group->cached = false;
    group->writing = false;
    return group;
}

struct wal__group *wal__group_take(struct wal__pool *pool, size_t len, uint32_t record_count) {
    CHECK(len >= WAL_GROUP_HEADER_BYTES && record_count > 0);
    struct wal__group *group = take_struct(pool, record_count);
    if (group != NULL && (group->buffer = wal__buffer_take(pool, len)) == NULL) {
        keep_group(pool, group);
        group = NULL;
    }
    return group;
}

struct wal__group *wal__group_take_lent(struct wal__pool *pool) {
    for (unsigned i = 0; i < WAL_LENT_COUNT; i++) {
        struct wal__buffer *piece = &pool->pieces[i];
        struct wal__group *group = piece->references == 0 ? take_struct(pool, OFFSETS_MIN) : NULL;
        if (group != NULL) {
            piece->references = 1;
            pool->lent++;
            group->buffer = piece;
            return group;
        }
    }
    return NULL;
}

enum status wal__group_grow(struct wal__pool *pool, struct wal__group *group, size_t len, uint32_t record_count) {
    CHECK(!group->sealed && group->buffer->references == 1);
    if (grow_offsets(pool, group, record_count) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    if (len > group->buffer->capacity) {
        struct wal__buffer *larger = wal__buffer_take(pool, len);
        if (larger == NULL) {
            return STATUS_NO_MEMORY;
        }
        memcpy(larger->data, group->buffer->data, group->len);
        wal__buffer_unref(pool, group->buffer);
        group->buffer = larger;
    }
    return STATUS_OK;
}

void wal__group_release(struct wal__pool *pool, struct wal__group *group) {
    CHECK(!group->cached && !group->writing);
    wal__buffer_unref(pool, group->buffer);
    group->buffer = NULL;
    list_remove(&group->link);
    keep_group(pool, group);
}
