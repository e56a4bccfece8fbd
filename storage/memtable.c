/* The skip list and its memory. Invariants and the memory ordering are argued in memtable.h. */
#include "storage/memtable.h"

#include "node/base/check.h"

#include <endian.h>
#include <stdatomic.h>

enum {
    HEIGHT_MAX = 12,    /* 4^12 entries before searches lengthen */
    BRANCHING_BITS = 2, /* one node in four reaches the next level */
    NODE_ALIGN = 8,
    CHUNK_BYTES_MIN = 4096
};

/* The key stands behind the links. What a search costs is cache and page misses, one node per step: so nodes lie close
 * together with the values elsewhere, and a node's prefix and links are neighbours. */
struct memtable_node {
    uint64_t revision;
    const uint8_t *value;
    uint32_t ordinal;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t kind;
    uint8_t height;
    uint64_t
        prefix; /* first eight bytes of the key as a big-endian number, padded with zeros: decides most comparisons */
    _Atomic(struct memtable_node *) links[];
};

struct chunk {
    struct chunk *next; /* older */
    size_t size;
    size_t used;
    uint64_t data[];
};

/* Memory that is only ever given back as a whole, or down to a mark. */
struct heap {
    struct alloc *alloc;
    size_t chunk_bytes;
    size_t align;
    struct chunk *newest;
    struct chunk *filling; /* where small blocks go; large ones get a chunk of their own */
    size_t bytes;
};

struct heap_mark {
    struct chunk *newest;
    struct chunk *filling;
    size_t used;
    size_t bytes;
};

struct memtable {
    struct alloc *alloc;
    struct heap nodes;
    struct heap values;
    uint64_t entries;
    uint64_t random_state;
    uint64_t revision; /* of the last batch */
    _Atomic unsigned height;
    struct memtable_node *head;
};

/* ---- Heaps (writer) ------------------------------------------------------------------------------------------ */

static struct chunk *chunk_add(struct heap *heap, size_t size) {
    struct chunk *chunk = mem_alloc(heap->alloc, sizeof *chunk + size);
    if (chunk != NULL) {
        *chunk = (struct chunk){.next = heap->newest, .size = size};
        heap->newest = chunk;
    }
    return chunk;
}

static bool heap_init(struct heap *heap, struct alloc *alloc, size_t chunk_bytes, size_t align) {
    *heap = (struct heap){.alloc = alloc, .chunk_bytes = chunk_bytes, .align = align};
    heap->filling = chunk_add(heap, chunk_bytes);
    return heap->filling != NULL;
}

static void *heap_take(struct heap *heap, size_t size) {
    size = (size + heap->align - 1) / heap->align * heap->align;
    struct chunk *chunk = heap->filling;
    if (size > chunk->size - chunk->used) {
        bool alone = size > heap->chunk_bytes / 4;
        chunk = chunk_add(heap, alone ? size : heap->chunk_bytes);
        if (chunk == NULL) {
            return NULL;
        }
        if (!alone) {
            heap->filling = chunk;
        }
    }
    void *block = (uint8_t *)chunk->data + chunk->used;
    chunk->used += size;
    heap->bytes += size;
    return block;
}

static struct heap_mark heap_mark(const struct heap *heap) {
    return (struct heap_mark){heap->newest, heap->filling, heap->filling->used, heap->bytes};
}

static void free_chunks(struct heap *heap, struct chunk *keep) {
    while (heap->newest != keep) {
        struct chunk *chunk = heap->newest;
        heap->newest = chunk->next;
        mem_free(heap->alloc, chunk);
    }
}

/* Forgets what was taken since the mark. */
static void heap_rewind(struct heap *heap, const struct heap_mark *mark) {
    free_chunks(heap, mark->newest);
    heap->filling = mark->filling;
    heap->filling->used = mark->used;
    heap->bytes = mark->bytes;
}

/* ---- Nodes --------------------------------------------------------------------------------------------------- */

static const uint8_t *node_bytes(const struct memtable_node *node) {
    return (const uint8_t *)&node->links[node->height];
}

static struct slice node_key(const struct memtable_node *node) { return slice_of(node_bytes(node), node->key_len); }

static struct memtable_node *link_load(const struct memtable_node *node, unsigned level) {
    return atomic_load_explicit(&node->links[level], memory_order_acquire);
}

static uint64_t key_prefix(struct slice key) {
    uint64_t prefix = 0;
    if (key.len > 0) {
        memcpy(&prefix, key.data, key.len < sizeof prefix ? key.len : sizeof prefix);
    }
    return be64toh(prefix);
}

/* True if the node sorts before the target, whose key has this prefix. */
static inline bool node_before(const struct memtable_node *node, uint64_t prefix, const struct entry_key *target) {
    if (node->prefix != prefix) {
        return node->prefix < prefix;
    }
    int order = slice_compare(node_key(node), target->user);
    if (order != 0) {
        return order < 0;
    }
    return entry_compare_age(node->revision, node->ordinal, target->revision, target->ordinal) < 0;
}

/* The first node at or behind the target. Where ret_before isn't NULL it gets the last node in front of it on each
 * level. */
static struct memtable_node *find(const struct memtable *memtable, const struct entry_key *target,
                                  struct memtable_node **ret_before) {
    uint64_t prefix = key_prefix(target->user);
    unsigned level = atomic_load_explicit(&memtable->height, memory_order_relaxed);
    struct memtable_node *node = memtable->head;
    struct memtable_node *bound = NULL; /* known not to be before the target: seen one level up */
    struct memtable_node *next = NULL;
    while (level > 0) {
        level--;
        for (;;) {
            next = link_load(node, level);
            if (next == bound || next == NULL || !node_before(next, prefix, target)) {
                break;
            }
            node = next;
        }
        bound = next;
        if (ret_before != NULL) {
            ret_before[level] = node;
        }
    }
    return next;
}

static unsigned random_height(struct memtable *memtable) {
    /* xorshift64 (Marsaglia, 2003) */
    uint64_t state = memtable->random_state;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    memtable->random_state = state;
    unsigned height = 1;
    for (uint64_t bits = state >> 16; height < HEIGHT_MAX && (bits & ((1u << BRANCHING_BITS) - 1)) == 0;
         bits >>= BRANCHING_BITS) {
        height++;
    }
    return height;
}

static struct memtable_node *make_node(struct memtable *memtable, const struct batch_operation *operation,
                                       uint64_t revision, uint32_t ordinal) {
    unsigned height = random_height(memtable);
    size_t links_bytes = height * sizeof(_Atomic(struct memtable_node *));
    struct memtable_node *node =
        heap_take(&memtable->nodes, sizeof(struct memtable_node) + links_bytes + operation->key.len);
    uint8_t *value = operation->value.len == 0 ? NULL : heap_take(&memtable->values, operation->value.len);
    if (node == NULL || (value == NULL && operation->value.len > 0)) {
        return NULL;
    }
    node->prefix = key_prefix(operation->key);
    node->revision = revision;
    node->ordinal = ordinal;
    node->value = value;
    node->value_len = (uint32_t)operation->value.len;
    node->key_len = (uint16_t)operation->key.len;
    node->kind = (uint8_t)operation->kind;
    node->height = (uint8_t)height;
    memcpy(&node->links[height], operation->key.data, operation->key.len);
    if (value != NULL) {
        memcpy(value, operation->value.data, operation->value.len);
    }
    return node;
}

static void insert_node(struct memtable *memtable, struct memtable_node *node) {
    struct entry_key key = {.user = node_key(node), .revision = node->revision, .ordinal = node->ordinal};
    struct memtable_node *before[HEIGHT_MAX];
    unsigned height = atomic_load_explicit(&memtable->height, memory_order_relaxed);
    (void)find(memtable, &key, before);
    if (node->height > height) {
        for (unsigned level = height; level < node->height; level++) {
            before[level] = memtable->head;
        }
        atomic_store_explicit(&memtable->height, node->height, memory_order_relaxed);
    }
    for (unsigned level = 0; level < node->height; level++) {
        struct memtable_node *next = atomic_load_explicit(&before[level]->links[level], memory_order_relaxed);
        atomic_store_explicit(&node->links[level], next, memory_order_relaxed);
        atomic_store_explicit(&before[level]->links[level], node, memory_order_release);
    }
}

/* ---- Public -------------------------------------------------------------------------------------------------- */

struct memtable *memtable_new(struct alloc *alloc, size_t chunk_bytes) {
    struct memtable *memtable = mem_alloc_zero(alloc, sizeof *memtable);
    if (memtable == NULL) {
        return NULL;
    }
    memtable->alloc = alloc;
    memtable->random_state = 0x9e3779b97f4a7c15u;
    size_t bytes = chunk_bytes < CHUNK_BYTES_MIN ? CHUNK_BYTES_MIN : chunk_bytes;
    if (!heap_init(&memtable->nodes, alloc, bytes, NODE_ALIGN) || !heap_init(&memtable->values, alloc, bytes, 1)) {
        memtable_free(memtable);
        return NULL;
    }
    size_t head_bytes = sizeof(struct memtable_node) + HEIGHT_MAX * sizeof(_Atomic(struct memtable_node *));
    memtable->head = heap_take(&memtable->nodes, head_bytes);
    CHECK(memtable->head != NULL);
    memset((void *)memtable->head, 0, head_bytes);
    memtable->head->height = HEIGHT_MAX;
    atomic_init(&memtable->height, 1);
    return memtable;
}

void memtable_free(struct memtable *memtable) {
    if (memtable == NULL) {
        return;
    }
    free_chunks(&memtable->nodes, NULL);
    free_chunks(&memtable->values, NULL);
    mem_free(memtable->alloc, memtable);
}

enum status memtable_apply(struct memtable *memtable, uint64_t revision, struct slice batch) {
    CHECK(revision > memtable->revision && revision < ENTRY_REVISION_NONE);
    struct batch_reader reader;
    struct batch_operation operation;
    enum status status = batch_open(batch, &reader);
    if (status != STATUS_OK) {
        return status;
    }
    struct heap_mark nodes = heap_mark(&memtable->nodes);
    struct heap_mark values = heap_mark(&memtable->values);
    struct memtable_node *first = NULL;
    struct memtable_node *last = NULL;
    for (uint32_t ordinal = 0; (status = batch_next(&reader, &operation)) == STATUS_OK; ordinal++) {
        struct memtable_node *node = make_node(memtable, &operation, revision, ordinal);
        if (node == NULL) {
            status = STATUS_NO_MEMORY;
            break;
        }
        /* Until they are in the list the nodes hang together by their lowest link. */
        atomic_init(&node->links[0], NULL);
        if (last == NULL) {
            first = node;
        } else {
            atomic_store_explicit(&last->links[0], node, memory_order_relaxed);
        }
        last = node;
    }
    if (status != STATUS_NOT_FOUND) {
        heap_rewind(&memtable->nodes, &nodes);
        heap_rewind(&memtable->values, &values);
        return status;
    }
    while (first != NULL) {
        struct memtable_node *next = atomic_load_explicit(&first->links[0], memory_order_relaxed);
        insert_node(memtable, first);
        memtable->entries++;
        first = next;
    }
    memtable->revision = revision;
    return STATUS_OK;
}

size_t memtable_bytes(const struct memtable *memtable) { return memtable->nodes.bytes + memtable->values.bytes; }

uint64_t memtable_entries(const struct memtable *memtable) { return memtable->entries; }

bool memtable_get(const struct memtable *memtable, struct slice key, uint64_t revision, struct entry *ret_entry) {
    struct entry_key target = entry_key_at(key, revision);
    const struct memtable_node *node = find(memtable, &target, NULL);
    if (node == NULL || !slice_equal(node_key(node), key)) {
        return false;
    }
    CHECK(node->revision <= revision);
    *ret_entry = memtable_entry(node);
    return true;
}

const struct memtable_node *memtable_seek(const struct memtable *memtable, const struct entry_key *target) {
    return find(memtable, target, NULL);
}

const struct memtable_node *memtable_next(const struct memtable_node *node) { return link_load(node, 0); }

struct entry memtable_entry(const struct memtable_node *node) {
    return (struct entry){.key = {.user = node_key(node), .revision = node->revision, .ordinal = node->ordinal},
                          .value = slice_of(node->value, node->value_len),
                          .kind = (enum batch_kind)node->kind};
}
