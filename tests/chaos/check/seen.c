/* The states that a search has been in. The contract is in seen.h. */
#include "tests/chaos/check/seen.h"

#include "node/base/check.h"
#include "node/base/checksum.h"

#include <string.h>

enum { TABLE_FIRST = 1024, WORDS_FIRST = 4096 };

void seen_init(struct seen *seen, struct alloc *alloc, uint64_t bytes_max) {
    *seen = (struct seen){.alloc = alloc, .bytes_max = bytes_max};
}

void seen_deinit(struct seen *seen) {
    mem_free(seen->alloc, seen->words);
    mem_free(seen->alloc, seen->table);
    *seen = (struct seen){.alloc = seen->alloc, .bytes_max = seen->bytes_max};
}

/* At most half full, so that a look-up ends soon. */
static bool grow_table(struct seen *seen) {
    uint32_t size = seen->table_size == 0 ? TABLE_FIRST : seen->table_size * 2;
    if (size <= seen->table_size || (uint64_t)size * sizeof *seen->table > seen->bytes_max / 2) {
        return false;
    }
    uint32_t *table = mem_alloc_zero(seen->alloc, (size_t)size * sizeof *table);
    if (table == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < seen->table_size; i++) {
        if (seen->table[i] != 0) {
            uint32_t at = (uint32_t)seen->words[seen->table[i] - 1] & (size - 1);
            while (table[at] != 0) {
                at = (at + 1) & (size - 1);
            }
            table[at] = seen->table[i];
        }
    }
    mem_free(seen->alloc, seen->table);
    seen->table = table;
    seen->table_size = size;
    return true;
}

static bool grow_words(struct seen *seen, uint32_t more) {
    uint64_t capacity = seen->word_capacity == 0 ? WORDS_FIRST : seen->word_capacity;
    while (capacity < (uint64_t)seen->word_count + more) {
        capacity *= 2;
    }
    if (capacity > UINT32_MAX / 2 || capacity * sizeof *seen->words > seen->bytes_max / 2) {
        return false;
    }
    uint64_t *words = mem_resize(seen->alloc, seen->words, (size_t)capacity * sizeof *words);
    if (words == NULL) {
        return false;
    }
    seen->words = words;
    seen->word_capacity = (uint32_t)capacity;
    return true;
}

bool seen_add(struct seen *seen, const uint64_t *words, uint32_t count) {
    CHECK(count > 0);
    size_t bytes = count * sizeof *words;
    uint64_t hash = checksum64(words, bytes, 0);
    uint32_t at = 0;
    if (seen->table_size > 0) {
        for (at = (uint32_t)hash & (seen->table_size - 1); seen->table[at] != 0;
             at = (at + 1) & (seen->table_size - 1)) {
            const uint64_t *entry = &seen->words[seen->table[at] - 1];
            if (entry[0] == hash && count <= seen->word_count - seen->table[at] &&
                memcmp(entry + 1, words, bytes) == 0) {
                return false;
            }
        }
    }
    if ((2 * (uint64_t)seen->entry_count >= seen->table_size && !grow_table(seen)) ||
        (seen->word_capacity - seen->word_count < count + 1 && !grow_words(seen, count + 1))) {
        seen->is_full = true;
        return true;
    }
    at = (uint32_t)hash & (seen->table_size - 1);
    while (seen->table[at] != 0) {
        at = (at + 1) & (seen->table_size - 1);
    }
    seen->words[seen->word_count] = hash;
    memcpy(&seen->words[seen->word_count + 1], words, bytes);
    seen->table[at] = seen->word_count + 1;
    seen->word_count += count + 1;
    seen->entry_count++;
    return true;
}
