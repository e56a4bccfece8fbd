/* The system allocator behind the interface, and the small helpers over any allocator. */
#include "node/base/alloc.h"

#include "node/base/check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGN_NATURAL = 16 };

static void *system_resize(struct alloc *alloc, void *ptr, size_t size, size_t align) {
    (void)alloc;
    if (size == 0) {
        free(ptr);
        return NULL;
    }
    if (align > ALIGN_NATURAL) {
        CHECK(ptr == NULL);
        void *block = NULL;
        if (posix_memalign(&block, align, size) != 0) {
            return NULL;
        }
        if (align >= ALLOC_HUGE_BYTES) {
            (void)madvise(block, size, MADV_HUGEPAGE); /* without them it is only slower */
        }
        return block;
    }
    return realloc(ptr, size);
}

struct alloc *alloc_system(void) {
    static struct alloc system_alloc = {.resize = system_resize};
    return &system_alloc;
}

void *mem_alloc(struct alloc *alloc, size_t size) {
    CHECK(size > 0);
    return alloc->resize(alloc, NULL, size, ALIGN_NATURAL);
}

void *mem_alloc_zero(struct alloc *alloc, size_t size) {
    void *block = mem_alloc(alloc, size);
    if (block != NULL) {
        memset(block, 0, size);
    }
    return block;
}

void *mem_alloc_aligned(struct alloc *alloc, size_t align, size_t size) {
    CHECK(size > 0);
    CHECK(align >= ALIGN_NATURAL && (align & (align - 1)) == 0);
    return alloc->resize(alloc, NULL, size, align);
}

void *mem_alloc_huge(struct alloc *alloc, size_t size) { return mem_alloc_aligned(alloc, ALLOC_HUGE_BYTES, size); }

void *mem_resize(struct alloc *alloc, void *ptr, size_t size) {
    CHECK(size > 0);
    return alloc->resize(alloc, ptr, size, ALIGN_NATURAL);
}

void mem_free(struct alloc *alloc, void *ptr) {
    if (ptr != NULL) {
        (void)alloc->resize(alloc, ptr, 0, ALIGN_NATURAL);
    }
}
