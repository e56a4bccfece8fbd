/* See directory.h. */
#include "node/server/directory.h"

#include "node/base/check.h"

#include <string.h>

enum { FIRST_WORD = offsetof(struct directory_entries, entries) / sizeof(uint64_t) };

static void from_file(const struct config_member *member, struct directory_entry *ret_entry) {
    *ret_entry = (struct directory_entry){.id = member->id};
    memcpy(ret_entry->thumbprint, member->thumbprint, sizeof ret_entry->thumbprint);
    memcpy(ret_entry->name, member->name, sizeof ret_entry->name);
    memcpy(ret_entry->peer_address, member->peer_address, sizeof ret_entry->peer_address);
    memcpy(ret_entry->client_address, member->client_address, sizeof ret_entry->client_address);
}

void directory_merge(const struct config *config, const struct raft_member *member, struct directory_entry *ret_entry) {
    const struct config_member *known = config_member_by_id(config, member->id);
    if (known != NULL) {
        from_file(known, ret_entry);
        return;
    }
    *ret_entry = (struct directory_entry){.id = member->id};
    memcpy(ret_entry->thumbprint, member->thumbprint, sizeof ret_entry->thumbprint);
    memcpy(ret_entry->name, member->name, sizeof ret_entry->name);
    memcpy(ret_entry->peer_address, member->address, sizeof ret_entry->peer_address);
    memcpy(ret_entry->client_address, member->client_address, sizeof ret_entry->client_address);
}

/* ---- Across threads ---------------------------------------------------------------------------------------------- */

/* Each word is released, so none is seen before the odd version; each is acquired by a reader, so that whoever saw a
 * new word also sees the version changed. */
void directory_set(struct directory *directory, const struct directory_entries *entries) {
    CHECK(entries->count <= DIRECTORY_ENTRIES_MAX);
    uint64_t words[DIRECTORY_WORDS];
    memcpy(words, entries, sizeof words);
    uint64_t version = atomic_load_explicit(&directory->version, memory_order_relaxed);
    CHECK(version % 2 == 0);
    atomic_store_explicit(&directory->version, version + 1, memory_order_relaxed);
    for (size_t i = 0; i < DIRECTORY_WORDS; i++) {
        atomic_store_explicit(&directory->words[i], words[i], memory_order_release);
    }
    atomic_store_explicit(&directory->version, version + 2, memory_order_release);
}

static void read_entry(const struct directory *directory, size_t position, struct directory_entry *ret_entry) {
    uint64_t words[DIRECTORY_WORDS_OF_ENTRY];
    for (size_t i = 0; i < DIRECTORY_WORDS_OF_ENTRY; i++) {
        size_t word = FIRST_WORD + position * DIRECTORY_WORDS_OF_ENTRY + i;
        words[i] = atomic_load_explicit(&directory->words[word], memory_order_acquire);
    }
    memcpy(ret_entry, words, sizeof *ret_entry);
}

/* The one that has this id, or if id is RAFT_NO_NODE this thumbprint. */
static bool find(const struct directory *directory, uint64_t id, const uint8_t *thumbprint,
                 struct directory_entry *ret_entry) {
    struct directory_entry entry = {.id = RAFT_NO_NODE};
    bool found;
    uint64_t version;
    do {
        do {
            version = atomic_load_explicit(&directory->version, memory_order_acquire);
        } while (version % 2 != 0);
        uint64_t count = atomic_load_explicit(&directory->words[0], memory_order_acquire);
        found = false;
        for (uint64_t i = 0; i < count && i < DIRECTORY_ENTRIES_MAX && !found; i++) {
            read_entry(directory, i, &entry);
            found = id != RAFT_NO_NODE ? entry.id == id
                                       : memcmp(entry.thumbprint, thumbprint, sizeof entry.thumbprint) == 0;
        }
    } while (atomic_load_explicit(&directory->version, memory_order_relaxed) != version);
    if (found) {
        *ret_entry = entry;
    }
    return found;
}

bool directory_find(const struct directory *directory, uint64_t id, struct directory_entry *ret_entry) {
    return id != RAFT_NO_NODE && find(directory, id, NULL, ret_entry);
}

bool directory_find_thumbprint(const struct directory *directory, const uint8_t thumbprint[ENV_THUMBPRINT_BYTES],
                               struct directory_entry *ret_entry) {
    static const uint8_t unknown[ENV_THUMBPRINT_BYTES];
    return memcmp(thumbprint, unknown, sizeof unknown) != 0 && find(directory, RAFT_NO_NODE, thumbprint, ret_entry);
}

bool directory_look_up(const struct directory *directory, const struct config *config, uint64_t id,
                       struct directory_entry *ret_entry) {
    if (directory_find(directory, id, ret_entry)) {
        return true;
    }
    const struct config_member *known = config_member_by_id(config, id);
    if (known != NULL) {
        from_file(known, ret_entry);
    }
    return known != NULL;
}
