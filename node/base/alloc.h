/*
 * Memory, from an allocator that is handed in: each node has its own, so that a simulated crash can drop all that a
 * node held, tests can fail the n-th allocation, and a process can say what it uses.
 *
 * Every function returns NULL when memory is out; the caller turns that into STATUS_NO_MEMORY.
 */
#ifndef HOLDFAST_BASE_ALLOC_H
#define HOLDFAST_BASE_ALLOC_H

#include <stddef.h>

enum { ALLOC_HUGE_BYTES = 2 * 1024 * 1024 };

struct alloc {
    /* ptr NULL: allocate. size 0: free, return NULL. Else: resize. `align` is a power of two; a block that was
     * allocated with align > 16 is never resized, only freed. */
    void *(*resize)(struct alloc *alloc, void *ptr, size_t size, size_t align);
};

/* malloc and friends. Immutable; for tools, the client library and tests. */
struct alloc *alloc_system(void);

void *mem_alloc(struct alloc *alloc, size_t size) __attribute__((malloc, alloc_size(2)));
void *mem_alloc_zero(struct alloc *alloc, size_t size) __attribute__((malloc, alloc_size(2)));
void *mem_alloc_aligned(struct alloc *alloc, size_t align, size_t size) __attribute__((malloc, alloc_size(3)));
/* For large blocks that are accessed at random: aligned to ALLOC_HUGE_BYTES, and alloc_system asks for huge pages. The
 * size should be a multiple of ALLOC_HUGE_BYTES. Freed as all others. */
void *mem_alloc_huge(struct alloc *alloc, size_t size) __attribute__((malloc, alloc_size(2)));
void *mem_resize(struct alloc *alloc, void *ptr, size_t size);
/* ptr may be NULL. */
void mem_free(struct alloc *alloc, void *ptr);

#endif
