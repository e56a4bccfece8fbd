/*
 * Reading what can still be read of a damaged table: for repair. All of it blocks.
 */
#ifndef HOLDFAST_STORAGE_SALVAGE_H
#define HOLDFAST_STORAGE_SALVAGE_H

#include "storage/cursor.h"
#include "storage/sst.h"
#include "storage/value_file.h"

/* Makes a table of the file alone, where there is no manifest to say what it is: from its header, footer and
 * properties. STATUS_CORRUPT, STATUS_UNSUPPORTED, STATUS_INVALID (another cluster's), STATUS_IO, STATUS_NO_MEMORY. */
MUST_USE enum status salvage_table(const struct sst_context *context, uint64_t number, struct sst **ret_sst,
                                   struct error *err);

/* What a value file says of itself. STATUS_OK: it is one of this cluster, and its id is known; ret_whole: what is
 * counted in it, too (but for its checksum), if it says the truth. Else as salvage_table. */
MUST_USE enum status salvage_values(const struct sst_context *context, uint64_t number, struct value_meta *ret_meta,
                                    bool *ret_whole, struct error *err);

/* Told of each piece that is skipped. Keys are borrowed. */
struct salvage_listener {
    void *context;
    void (*lost)(void *context, const struct sst *sst, uint64_t offset, struct slice after, struct slice until);
};

/* Goes forward only (first, next), over every entry that is in order and in a sound block; what isn't is skipped and
 * told. The table is loaded. STATUS_NO_MEMORY is the only error. Borrows table and listener. NULL: out of memory. */
struct cursor *salvage_cursor_new(struct alloc *alloc, struct sst *sst, const struct salvage_listener *listener);

#endif
