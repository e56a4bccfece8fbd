/* Inserting into the tree: the writer's part. What readers see of it at any moment is argued in memtable_internal.h. */
#include "node/base/check.h"
#include "storage/memtable_internal.h"

/* One branch on the way down to a leaf. */
struct step {
    struct memtable_branch *branch;
    unsigned rank;               /* of the child that was taken */
    struct memtable_range range; /* of the branch; see find_ranges */
};

struct path {
    struct step steps[TREE_HEIGHT_MAX + 1]; /* by height above the leaves, from 1 */
    unsigned height;
    struct memtable_leaf *leaf;
    struct memtable_range range; /* of the leaf; see find_ranges */
    unsigned rank;               /* where the record belongs in it */
};

/* A node was replaced by two. */
struct replacement {
    void *left;
    void *right;
    const struct memtable_record *separator; /* the first of the right one's range */
};

static uint64_t order_own(const _Atomic uint64_t *order) { return atomic_load_explicit(order, memory_order_relaxed); }

static void *child_own(const struct memtable_branch *branch, uint64_t order, unsigned rank) {
    return atomic_load_explicit(branch_child(branch, order, rank), memory_order_relaxed);
}

static uint32_t range_shared(const struct memtable_range *range) {
    if (range->low == NULL || range->high == NULL) {
        return 0;
    }
    struct slice low = record_key(range->low);
    struct slice high = record_key(range->high);
    uint32_t shared = 0;
    while (shared < low.len && shared < high.len && low.data[shared] == high.data[shared]) {
        shared++;
    }
    return shared;
}

/* ---- Making nodes ------------------------------------------------------------------------------------------------ */

/* A record, or a separator, and its window in the node that it comes from. */
struct item {
    const struct memtable_record *record;
    uint64_t window;
};

/* How many bytes a new node's windows leave out, when those of the node that it replaces left out `before`. A little
 * more isn't worth looking at every key again: windows that begin too early are right, too. */
static uint32_t choose_shared(const struct memtable_range *range, uint32_t before) {
    enum { WORTH_IT = 4 };
    uint32_t shared = range_shared(range);
    CHECK(shared >= before);
    return shared - before < WORTH_IT ? before : shared;
}

static uint64_t item_window(const struct item *item, uint32_t before, uint32_t shared) {
    return shared == before ? item->window : key_window(record_key(item->record), shared);
}

static struct memtable_leaf *make_leaf(struct memtable *memtable, const struct memtable_range *range, uint32_t before,
                                       const struct item *items, unsigned count) {
    struct memtable_leaf *leaf = heap_take(&memtable->nodes, sizeof *leaf);
    CHECK(leaf != NULL && count <= NODE_SLOTS);
    leaf->shared = choose_shared(range, before);
    for (unsigned i = 0; i < count; i++) {
        leaf->records[i] = items[i].record;
        leaf->windows[i] = item_window(&items[i], before, leaf->shared);
    }
    atomic_init(&leaf->order, order_identity(count));
    atomic_init(&leaf->next, NULL);
    atomic_init(&leaf->prev, NULL);
    return leaf;
}

/* One child more than separators. */
static struct memtable_branch *make_branch(struct memtable *memtable, const struct memtable_range *range,
                                           uint32_t before, const struct item *separators, void *const *children,
                                           unsigned count) {
    struct memtable_branch *branch = heap_take(&memtable->nodes, sizeof *branch);
    CHECK(branch != NULL && count <= NODE_SLOTS);
    branch->shared = choose_shared(range, before);
    atomic_init(&branch->first, children[0]);
    for (unsigned i = 0; i < count; i++) {
        branch->separators[i] = separators[i].record;
        branch->windows[i] = item_window(&separators[i], before, branch->shared);
        atomic_init(&branch->children[i], children[i + 1]);
    }
    atomic_init(&branch->order, order_identity(count));
    return branch;
}

bool memtable__tree_init(struct memtable *memtable) {
    if (!heap_reserve(&memtable->nodes, sizeof(struct memtable_leaf), sizeof(struct memtable_leaf))) {
        return false;
    }
    struct memtable_leaf *leaf = make_leaf(memtable, &(struct memtable_range){NULL, NULL}, 0, NULL, 0);
    atomic_init(&memtable->root, (uintptr_t)leaf);
    return true;
}

bool memtable__tree_reserve(struct memtable *memtable, uint32_t inserts) {
    if (inserts == 0) {
        return true;
    }
    /* The first insert may add a level; for the next one the tree must have grown eightfold. */
    uint64_t levels = root_height(atomic_load_explicit(&memtable->root, memory_order_relaxed)) + 2;
    levels += (uint64_t)(31 - __builtin_clz(inserts)) / 3;
    /* At worst an insert splits a leaf and a branch on each level above it. But not every time: a branch that comes
     * from a split takes eight splits below it before it splits again, except the full one that inserts at the very end
     * leave behind, for each fifteen splits below. So on each level there are at most as many splits as branches were
     * there, and 1/7 + 2/15 of those one level below. Over all levels that is less than: */
    uint64_t bound = 2 * memtable->branches + inserts / 2 + levels;
    uint64_t splits = inserts * levels;
    splits = splits < bound ? splits : bound;
    uint64_t bytes = 2 * (inserts * sizeof(struct memtable_leaf) + splits * sizeof(struct memtable_branch));
    return heap_reserve(&memtable->nodes, bytes, sizeof(struct memtable_branch));
}

/* ---- Finding the place ------------------------------------------------------------------------------------------- */

static void descend(const struct memtable *memtable, const struct entry_key *target, struct path *ret_path) {
    uintptr_t root = atomic_load_explicit(&memtable->root, memory_order_relaxed);
    void *node = root_node(root);
    ret_path->height = root_height(root);
    for (unsigned height = ret_path->height; height > 0; height--) {
        struct memtable_branch *branch = node;
        uint64_t order = order_own(&branch->order);
        uint64_t window = key_window(target->user, branch->shared);
        unsigned rank = node_rank(order, branch->windows, branch->separators, window, target, true);
        node = child_own(branch, order, rank);
        prefetch_lines(node, sizeof(struct memtable_leaf));
        ret_path->steps[height].branch = branch;
        ret_path->steps[height].rank = rank;
    }
    struct memtable_leaf *leaf = node;
    uint64_t window = key_window(target->user, leaf->shared);
    ret_path->leaf = leaf;
    ret_path->rank = node_rank(order_own(&leaf->order), leaf->windows, leaf->records, window, target, false);
}

/* Fills in the ranges of a path. Most inserts don't need them, and separators are far away. */
static void find_ranges(struct path *path) {
    struct memtable_range range = {NULL, NULL};
    for (unsigned height = path->height; height > 0; height--) {
        struct step *step = &path->steps[height];
        uint64_t order = order_own(&step->branch->order);
        step->range = range;
        if (step->rank > 0) {
            range.low = step->branch->separators[order_slot(order, step->rank - 1)];
        }
        if (step->rank < order_count(order)) {
            range.high = step->branch->separators[order_slot(order, step->rank)];
        }
    }
    path->range = range;
}

/* True if the target belongs right behind the last insert, into the same leaf, and that has room. */
static bool follows_hint(const struct memtable_hint *hint, const struct entry_key *target) {
    if (!hint->ascending) {
        return false;
    }
    const struct memtable_leaf *leaf = hint->leaf;
    uint64_t order = order_own(&leaf->order);
    if (order_count(order) == NODE_SLOTS) {
        return false;
    }
    struct entry_key last = record_entry_key(leaf->records[order_slot(order, hint->rank)]);
    const struct memtable_record *next =
        hint->rank + 1 < order_count(order) ? leaf->records[order_slot(order, hint->rank + 1)] : hint->high;
    if (entry_key_compare(target, &last) <= 0) {
        return false;
    }
    if (next == NULL) {
        return true;
    }
    struct entry_key bound = record_entry_key(next);
    return entry_key_compare(target, &bound) < 0;
}

/* ---- Changing nodes ---------------------------------------------------------------------------------------------- */

static void leaf_put(struct memtable_leaf *leaf, unsigned rank, const struct memtable_record *record) {
    uint64_t order = order_own(&leaf->order);
    unsigned slot = order_count(order);
    leaf->records[slot] = record;
    leaf->windows[slot] = key_window(record_key(record), leaf->shared);
    atomic_store_explicit(&leaf->order, order_insert(order, rank), memory_order_release);
}

/* Replaces a full leaf by two that also hold the record. What comes in ascending or descending order leaves full leaves
 * behind. */
static struct replacement split_leaf(struct memtable *memtable, const struct path *path,
                                     const struct memtable_record *record) {
    struct item items[NODE_SLOTS + 1];
    struct memtable_leaf *old = path->leaf;
    uint64_t order = order_own(&old->order);
    for (unsigned i = 0; i < NODE_SLOTS; i++) {
        unsigned slot = order_slot(order, i);
        items[i < path->rank ? i : i + 1] = (struct item){old->records[slot], old->windows[slot]};
    }
    items[path->rank] = (struct item){record, key_window(record_key(record), old->shared)};
    unsigned left_count = NODE_SLOTS / 2;
    struct memtable_hint *hint = &memtable->hint;
    bool ascending = hint->leaf == old && path->rank == NODE_SLOTS && hint->rank == NODE_SLOTS - 1;
    if (ascending) {
        left_count = NODE_SLOTS;
    } else if (hint->leaf == old && path->rank == 0 && hint->rank == 0) {
        left_count = 1;
    }
    struct memtable_range left_range = {path->range.low, items[left_count].record};
    struct memtable_range right_range = {items[left_count].record, path->range.high};
    struct memtable_leaf *left = make_leaf(memtable, &left_range, old->shared, items, left_count);
    struct memtable_leaf *right =
        make_leaf(memtable, &right_range, old->shared, &items[left_count], NODE_SLOTS + 1 - left_count);
    struct memtable_leaf *prev = atomic_load_explicit(&old->prev, memory_order_relaxed);
    struct memtable_leaf *next = atomic_load_explicit(&old->next, memory_order_relaxed);
    atomic_init(&left->prev, prev);
    atomic_init(&left->next, right);
    atomic_init(&right->prev, left);
    atomic_init(&right->next, next);
    if (next != NULL) {
        atomic_store_explicit(&next->prev, right, memory_order_release);
    }
    if (prev != NULL) {
        atomic_store_explicit(&prev->next, left, memory_order_release);
    }
    bool in_left = path->rank < left_count;
    *hint = (struct memtable_hint){.leaf = in_left ? left : right,
                                   .high = in_left ? left_range.high : right_range.high,
                                   .rank = in_left ? path->rank : path->rank - left_count,
                                   .ascending = ascending};
    return (struct replacement){left, right, items[left_count].record};
}

/* Replaces a full branch, one of whose children was replaced. */
static struct replacement split_branch(struct memtable *memtable, const struct step *step,
                                       const struct replacement *child) {
    struct item separators[NODE_SLOTS + 1];
    void *children[NODE_SLOTS + 2];
    const struct memtable_branch *old = step->branch;
    uint64_t order = order_own(&old->order);
    for (unsigned i = 0; i < NODE_SLOTS; i++) {
        unsigned slot = order_slot(order, i);
        separators[i < step->rank ? i : i + 1] = (struct item){old->separators[slot], old->windows[slot]};
    }
    for (unsigned i = 0; i <= NODE_SLOTS; i++) {
        children[i < step->rank ? i : i + 1] = child_own(old, order, i);
    }
    separators[step->rank] = (struct item){child->separator, key_window(record_key(child->separator), old->shared)};
    children[step->rank] = child->left;
    children[step->rank + 1] = child->right;
    bool at_the_end = step->rank == NODE_SLOTS && step->range.high == NULL;
    unsigned middle = at_the_end ? NODE_SLOTS : NODE_SLOTS / 2;
    struct memtable_range left_range = {step->range.low, separators[middle].record};
    struct memtable_range right_range = {separators[middle].record, step->range.high};
    memtable->branches++;
    return (struct replacement){
        .left = make_branch(memtable, &left_range, old->shared, separators, children, middle),
        .right = make_branch(memtable, &right_range, old->shared, &separators[middle + 1], &children[middle + 1],
                             NODE_SLOTS - middle),
        .separator = separators[middle].record,
    };
}

static void branch_put(const struct step *step, const struct replacement *child) {
    struct memtable_branch *branch = step->branch;
    uint64_t order = order_own(&branch->order);
    unsigned slot = order_count(order);
    branch->separators[slot] = child->separator;
    branch->windows[slot] = key_window(record_key(child->separator), branch->shared);
    atomic_store_explicit(&branch->children[slot], child->right, memory_order_relaxed);
    _Atomic(void *) *place = step->rank == 0 ? &branch->first : &branch->children[order_slot(order, step->rank - 1)];
    /* The separator first: who finds the left one in the old child's place can know it. */
    atomic_store_explicit(&branch->order, order_insert(order, step->rank), memory_order_release);
    atomic_store_explicit(place, child->left, memory_order_release);
}

/* Puts the two where the one was, upwards until a branch has room. */
static void replace(struct memtable *memtable, const struct path *path, struct replacement child) {
    for (unsigned height = 1; height <= path->height; height++) {
        const struct step *step = &path->steps[height];
        if (order_count(order_own(&step->branch->order)) < NODE_SLOTS) {
            branch_put(step, &child);
            return;
        }
        child = split_branch(memtable, step, &child);
    }
    CHECK(path->height < TREE_HEIGHT_MAX);
    void *children[] = {child.left, child.right};
    struct memtable_range all = {NULL, NULL};
    struct item separator = {child.separator, key_window(record_key(child.separator), 0)};
    struct memtable_branch *root = make_branch(memtable, &all, 0, &separator, children, 1);
    memtable->branches++;
    atomic_store_explicit(&memtable->root, (uintptr_t)root | (path->height + 1), memory_order_release);
}

void memtable__tree_insert(struct memtable *memtable, const struct memtable_record *record) {
    struct entry_key target = record_entry_key(record);
    struct memtable_hint *hint = &memtable->hint;
    if (follows_hint(hint, &target)) {
        hint->rank++;
        leaf_put(hint->leaf, hint->rank, record);
        return;
    }
    struct path path;
    descend(memtable, &target, &path);
    bool full = order_count(order_own(&path.leaf->order)) == NODE_SLOTS;
    bool ascending = hint->leaf == path.leaf && path.rank == hint->rank + 1;
    if (full || ascending) {
        find_ranges(&path);
    }
    if (full) {
        replace(memtable, &path, split_leaf(memtable, &path, record));
        return;
    }
    leaf_put(path.leaf, path.rank, record);
    *hint = (struct memtable_hint){.leaf = path.leaf, .rank = path.rank, .ascending = ascending};
    if (ascending) {
        hint->high = path.range.high;
    }
}
