/* Sets of tables: making new ones from old, and finding the tables of a range. */
#include "storage/version.h"

#include "node/base/check.h"

/* ---- Making -------------------------------------------------------------------------------------------------- */

static void push(struct version *version, unsigned level, struct sst *sst) {
    version->tables[level][version->counts[level]++] = sst;
    version->bytes[level] += sst->meta.size_bytes;
    sst->refs++;
}

/* True if the added table stands in front of the one that is there. */
static bool goes_before(unsigned level, const struct sst *added, const struct sst *old) {
    return level == 0 ? added->meta.revision_last > old->meta.revision_last
                      : slice_compare(added->meta.smallest, old->meta.smallest) < 0;
}

/* Two sorted runs become one, without what is removed, which is in the same order. */
static void fill(struct version *version, unsigned level, const struct version *base,
                 const struct version_change *change) {
    size_t old_count = base == NULL ? 0 : base->counts[level];
    size_t added = 0;
    size_t removed = 0;
    for (size_t i = 0; i < old_count; i++) {
        struct sst *old = base->tables[level][i];
        if (removed < change->removed_count[level] && change->removed[level][removed] == old) {
            removed++;
            continue;
        }
        while (added < change->added_count[level] && goes_before(level, change->added[level][added], old)) {
            push(version, level, change->added[level][added++]);
        }
        push(version, level, old);
    }
    CHECK(removed == change->removed_count[level]);
    while (added < change->added_count[level]) {
        push(version, level, change->added[level][added++]);
    }
}

/* ---- Value files --------------------------------------------------------------------------------------------- */

/* Where the id is, or would go. */
static size_t find_values(const struct version *version, uint64_t id) {
    size_t low = 0;
    size_t high = version->value_file_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (version->value_files[middle]->meta.id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct sst *version_value_file(const struct version *version, uint64_t id, struct value_use *ret_use) {
    size_t at = find_values(version, id);
    if (at == version->value_file_count || version->value_files[at]->meta.id != id) {
        return NULL;
    }
    if (ret_use != NULL) {
        *ret_use = version->value_uses[at];
    }
    return version->value_files[at];
}

static void list_values(struct version *version, const struct version *base, const struct version_change *change) {
    if (base != NULL && base->value_file_count > 0) {
        memcpy(version->value_files, base->value_files, base->value_file_count * sizeof(struct sst *));
        memcpy(version->value_uses, base->value_uses, base->value_file_count * sizeof(struct value_use));
        version->value_file_count = base->value_file_count;
    }
    for (size_t i = 0; i < change->values_added_count; i++) {
        size_t at = find_values(version, change->values_added[i]->meta.id);
        size_t behind = version->value_file_count++ - at;
        memmove(&version->value_files[at + 1], &version->value_files[at], behind * sizeof(struct sst *));
        memmove(&version->value_uses[at + 1], &version->value_uses[at], behind * sizeof(struct value_use));
        version->value_files[at] = change->values_added[i];
        version->value_uses[at] = (struct value_use){0};
    }
}

static void count_refs(struct version *version, struct sst *const *tables, size_t count, bool added) {
    for (size_t i = 0; i < count; i++) {
        const struct sst_meta *meta = &tables[i]->meta;
        for (size_t r = 0; r < meta->value_ref_count; r++) {
            const struct value_ref *ref = &meta->value_refs[r];
            size_t at = find_values(version, ref->file);
            CHECK(at < version->value_file_count && version->value_files[at]->meta.id == ref->file);
            struct value_use *use = &version->value_uses[at];
            CHECK(added || (use->values >= ref->values && use->bytes >= ref->bytes));
            use->values = added ? use->values + ref->values : use->values - ref->values;
            use->bytes = added ? use->bytes + ref->bytes : use->bytes - ref->bytes;
        }
    }
}

/* What is used of each, from what was and what changed; what isn't used goes. */
static void fill_values(struct version *version, const struct version *base, const struct version_change *change) {
    list_values(version, base, change);
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        count_refs(version, change->added[level], change->added_count[level], true);
    }
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        count_refs(version, change->removed[level], change->removed_count[level], false);
    }
    size_t kept = 0;
    for (size_t i = 0; i < version->value_file_count; i++) {
        if (version->value_uses[i].values > 0) {
            version->value_files[i]->refs++;
            version->value_files[kept] = version->value_files[i];
            version->value_uses[kept++] = version->value_uses[i];
        }
    }
    version->value_file_count = kept;
    for (size_t i = 0; i < change->values_added_count; i++) {
        CHECK(version_value_file(version, change->values_added[i]->meta.id, NULL) != NULL);
    }
}

/* ---- All of it ----------------------------------------------------------------------------------------------- */

struct version *version_new(struct alloc *alloc, const struct version *base, const struct version_change *change) {
    size_t counts[MANIFEST_LEVELS];
    size_t total = 0;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        counts[level] = change->added_count[level] + (base == NULL ? 0 : base->counts[level]);
        total += counts[level];
    }
    size_t values_max = change->values_added_count + (base == NULL ? 0 : base->value_file_count);
    size_t changes_max = change->changes_added_count + (base == NULL ? 0 : base->change_file_count);
    struct version *version = mem_alloc_zero(alloc, sizeof *version + values_max * sizeof(struct value_use) +
                                                        (total + values_max + changes_max) * sizeof(struct sst *));
    if (version == NULL) {
        return NULL;
    }
    version->alloc = alloc;
    version->refs = 1;
    version->horizon = base == NULL ? 0 : base->horizon;
    version->horizon = change->horizon > version->horizon ? change->horizon : version->horizon;
    version->value_uses = (struct value_use *)(version + 1);
    struct sst **place = (struct sst **)(void *)(version->value_uses + values_max);
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        version->tables[level] = place;
        place += counts[level];
        fill(version, level, base, change);
    }
    version->value_files = place;
    fill_values(version, base, change);
    version->change_files = place + values_max;
    version__fill_changes(version, base, change);
    return version;
}

static void drop(struct sst *sst, struct sst **dead) {
    CHECK(sst->refs > 0);
    if (--sst->refs == 0) {
        sst->next_dead = *dead;
        *dead = sst;
    }
}

void version_unref(struct version *version, struct sst **dead) {
    if (version == NULL) {
        return;
    }
    CHECK(version->refs > 0);
    if (--version->refs > 0) {
        return;
    }
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level]; i++) {
            drop(version->tables[level][i], dead);
        }
    }
    for (size_t i = 0; i < version->value_file_count; i++) {
        drop(version->value_files[i], dead);
    }
    for (size_t i = 0; i < version->change_file_count; i++) {
        drop(version->change_files[i], dead);
    }
    mem_free(version->alloc, version);
}

bool version_is_sound(const struct version *version) {
    for (size_t i = 1; i < version->counts[0]; i++) {
        if (version->tables[0][i]->meta.revision_last >= version->tables[0][i - 1]->meta.revision_first) {
            return false;
        }
    }
    for (unsigned level = 1; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 1; i < version->counts[level]; i++) {
            if (!version_ends_before(version->tables[level][i - 1], version->tables[level][i]->meta.smallest)) {
                return false;
            }
        }
    }
    return version__changes_are_sound(version);
}

/* ---- Finding ------------------------------------------------------------------------------------------------- */

size_t version_first_reaching(const struct version *version, unsigned level, struct slice key) {
    size_t low = 0;
    size_t high = version->counts[level];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (version_ends_before(version->tables[level][middle], key)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct sst *version_find(const struct version *version, unsigned level, struct slice key) {
    size_t at = version_first_reaching(version, level, key);
    if (at == version->counts[level] || slice_compare(version->tables[level][at]->meta.smallest, key) > 0) {
        return NULL;
    }
    return version->tables[level][at];
}

/* Place of the first table from `low` on that begins behind `upper`, or at it, if that is excluded. */
static size_t first_behind(const struct version *version, unsigned level, size_t low, struct slice upper,
                           bool upper_excluded) {
    size_t high = version->counts[level];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = slice_compare(version->tables[level][middle]->meta.smallest, upper);
        if (order < 0 || (order == 0 && !upper_excluded)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void version_overlap(const struct version *version, unsigned level, struct slice lower, struct slice upper,
                     bool upper_excluded, size_t *ret_first, size_t *ret_count) {
    size_t first = version_first_reaching(version, level, lower);
    *ret_first = first;
    *ret_count = first_behind(version, level, first, upper, upper_excluded) - first;
}

void version_range(const struct version *version, unsigned level, struct slice lower, struct slice upper,
                   size_t *ret_first, size_t *ret_count) {
    size_t first = version_first_reaching(version, level, lower);
    size_t end = upper.len == 0 ? version->counts[level] : first_behind(version, level, first, upper, true);
    *ret_first = first;
    *ret_count = end - first;
}
