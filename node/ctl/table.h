/* A table of text: cells are added one by one, row by row, the heads first; columns get as wide as they must. */
#ifndef HOLDFAST_CTL_TABLE_H
#define HOLDFAST_CTL_TABLE_H

#include "node/base/arena.h"
#include "node/base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct table {
    struct alloc *alloc;
    struct arena arena;
    size_t column_count;
    uint32_t right_columns; /* bit i: column i stands to the right, as numbers do */
    const char **cells;
    size_t cell_count;
    size_t capacity;
    bool failed; /* out of memory */
};

void table_init(struct table *table, struct alloc *alloc, size_t column_count, uint32_t right_columns);
void table_deinit(struct table *table);
void table_add(struct table *table, const char *format, ...) PRINTF_LIKE(2, 3);
/* False: memory ran out while cells were added; nothing is printed. The rows are complete. */
MUST_USE bool table_print(const struct table *table, FILE *out);

#endif
