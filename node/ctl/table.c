#include "node/ctl/table.h"

#include "node/base/check.h"

#include <stdarg.h>
#include <string.h>

enum { ARENA_CHUNK_BYTES = 16 * 1024, ARENA_BYTES_MAX = 64 * 1024 * 1024, CELL_BYTES_MAX = 512, COLUMNS_MAX = 32 };

void table_init(struct table *table, struct alloc *alloc, size_t column_count, uint32_t right_columns) {
    CHECK(column_count > 0 && column_count <= COLUMNS_MAX);
    *table = (struct table){.alloc = alloc, .column_count = column_count, .right_columns = right_columns};
    arena_init(&table->arena, alloc, ARENA_CHUNK_BYTES, ARENA_BYTES_MAX);
}

void table_deinit(struct table *table) {
    arena_deinit(&table->arena);
    mem_free(table->alloc, table->cells);
}

static bool make_room(struct table *table) {
    if (table->cell_count < table->capacity) {
        return true;
    }
    size_t capacity = table->capacity == 0 ? 64 : table->capacity * 2;
    const char **cells = mem_resize(table->alloc, table->cells, capacity * sizeof *cells);
    if (cells == NULL) {
        return false;
    }
    table->cells = cells;
    table->capacity = capacity;
    return true;
}

void table_add(struct table *table, const char *format, ...) {
    char text[CELL_BYTES_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t bytes = strlen(text) + 1;
    char *cell = make_room(table) ? arena_alloc(&table->arena, bytes) : NULL;
    if (cell == NULL) {
        table->failed = true;
        return;
    }
    memcpy(cell, text, bytes);
    table->cells[table->cell_count++] = cell;
}

bool table_print(const struct table *table, FILE *out) {
    size_t widths[COLUMNS_MAX] = {0};
    size_t columns = table->column_count;
    if (table->failed) {
        return false;
    }
    CHECK(table->cell_count % columns == 0);
    for (size_t i = 0; i < table->cell_count; i++) {
        size_t len = strlen(table->cells[i]);
        widths[i % columns] = len > widths[i % columns] ? len : widths[i % columns];
    }
    for (size_t i = 0; i < table->cell_count; i++) {
        size_t column = i % columns;
        bool is_last = column + 1 == columns;
        bool is_right = (table->right_columns & 1U << column) != 0;
        int width = (int)widths[column];
        /* Nothing but the text in the last column, or lines would end in blanks. */
        (void)fprintf(out, "%*s%s", is_right ? width : is_last ? 0 : -width, table->cells[i], is_last ? "\n" : "  ");
    }
    return true;
}
