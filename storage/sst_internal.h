/* Between the parts of the SST reader: sst.c and sst_cursor.c. */
#ifndef HOLDFAST_STORAGE_SST_INTERNAL_H
#define HOLDFAST_STORAGE_SST_INTERNAL_H

#include "storage/block.h"
#include "storage/sst.h"

/* Reads and checks the data block that an index entry points to, and opens a cursor on it. The body lies in buf; the
 * entry's value must not. ret_offset: for messages. */
MUST_USE enum status sst__read_data(const struct sst *sst, const struct entry *index_entry, struct buf *buf,
                                    struct block_cursor *cursor, uint64_t *ret_offset, struct error *err);
/* STATUS_CORRUPT, with file and offset. */
enum status sst__damaged_block(const struct sst *sst, uint64_t offset, struct error *err);
enum status sst__damaged_index(const struct sst *sst, struct error *err);

#endif
