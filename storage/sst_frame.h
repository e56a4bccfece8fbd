/*
 * What a table, a value file or a change file says of itself: header, footer, properties. For who has no manifest:
 * repair and holdfast-dump. Blocks.
 *
 *   sst_frame_init -> sst_frame_read -> sst_frame_deinit
 */
#ifndef HOLDFAST_STORAGE_SST_FRAME_H
#define HOLDFAST_STORAGE_SST_FRAME_H

#include "storage/sst_format.h"
#include "storage/value_file.h"

struct sst_frame {
    uint64_t size_bytes;
    bool has_header; /* header is sound: it says whose the file is, whatever the rest is like */
    struct sst_header header;
    struct sst_footer footer;
    struct sst_properties properties; /* value_refs, too; all borrowed from the two below */
    struct buf body;
    struct buf refs; /* struct value_ref each */
};

/* Allocates nothing. */
void sst_frame_init(struct sst_frame *frame, struct alloc *alloc);
void sst_frame_deinit(struct sst_frame *frame);
/* Once. STATUS_CORRUPT and STATUS_UNSUPPORTED (err names what and where), STATUS_IO, STATUS_NO_MEMORY: only size_bytes
 * and the header mean anything then, if has_header. */
MUST_USE enum status sst_frame_read(struct sst_frame *frame, struct env_file *file, struct error *err);
/* A table's meta, but for its number and the checksum of the whole file; borrows from the frame. */
void sst_frame_meta(const struct sst_frame *frame, struct sst_meta *ret_meta);

#endif
