/* The one store behind a played cluster: sorted entries. See fake_server.h. */
#include "node/base/check.h"
#include "tests/unit/support/fake_internal.h"

#include <stdlib.h>
#include <string.h>

size_t fake__lower_bound(const struct fake_cluster *cluster, struct slice key) {
    size_t low = 0;
    size_t high = cluster->entry_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct fake_entry *entry = &cluster->entries[middle];
        if (slice_compare(slice_of(entry->key, entry->key_len), key) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const struct fake_entry *fake_find(const struct fake_cluster *cluster, struct slice key) {
    size_t at = fake__lower_bound(cluster, key);
    if (at == cluster->entry_count) {
        return NULL;
    }
    const struct fake_entry *entry = &cluster->entries[at];
    return slice_equal(slice_of(entry->key, entry->key_len), key) ? entry : NULL;
}

static uint8_t *copy_of(struct slice bytes) {
    uint8_t *copy = malloc(bytes.len + 1);
    CHECK(copy != NULL);
    if (bytes.len > 0) {
        memcpy(copy, bytes.data, bytes.len);
    }
    return copy;
}

void fake__remove_at(struct fake_cluster *cluster, size_t at) {
    free(cluster->entries[at].key);
    free(cluster->entries[at].value);
    memmove(&cluster->entries[at], &cluster->entries[at + 1],
            (cluster->entry_count - at - 1) * sizeof *cluster->entries);
    cluster->entry_count--;
}

void fake__store(struct fake_cluster *cluster, struct slice key, const struct slice *value, uint64_t revision) {
    size_t at = fake__lower_bound(cluster, key);
    if (fake_find(cluster, key) != NULL) {
        fake__remove_at(cluster, at);
    }
    if (value == NULL) {
        return;
    }
    if (cluster->entry_count == cluster->entry_capacity) {
        cluster->entry_capacity = cluster->entry_capacity * 2 + 64;
        cluster->entries = realloc(cluster->entries, cluster->entry_capacity * sizeof *cluster->entries);
        CHECK(cluster->entries != NULL);
    }
    memmove(&cluster->entries[at + 1], &cluster->entries[at], (cluster->entry_count - at) * sizeof *cluster->entries);
    cluster->entries[at] = (struct fake_entry){copy_of(key), key.len, copy_of(*value), value->len, revision};
    cluster->entry_count++;
}

/* upper empty: no end. */
void fake__remove_range(struct fake_cluster *cluster, struct slice lower, struct slice upper) {
    size_t at = fake__lower_bound(cluster, lower);
    while (at < cluster->entry_count &&
           (upper.len == 0 ||
            slice_compare(slice_of(cluster->entries[at].key, cluster->entries[at].key_len), upper) < 0)) {
        fake__remove_at(cluster, at);
    }
}

void fake_put(struct fake_cluster *cluster, struct slice key, struct slice value) {
    fake__store(cluster, key, &value, atomic_fetch_add(&cluster->revision, 1) + 1);
}
