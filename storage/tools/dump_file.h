/*
 * What the dumps of tables, value files and change files share: all three have the frame of a table (sst_frame.h), a
 * number for a name, and sst_verify.
 */
#ifndef HOLDFAST_STORAGE_TOOLS_DUMP_FILE_H
#define HOLDFAST_STORAGE_TOOLS_DUMP_FILE_H

#include "storage/file_names.h"
#include "storage/sst_frame.h"
#include "storage/tools/dump.h"

struct dump_file {
    const struct dump *dump;
    char dir[LIMIT_PATH_BYTES];
    uint64_t number;
    struct env_file *file;
    struct sst_frame frame;
};

/* Opens the path, if its name is that of the kind (what: "a table"; suffix: ".sst"), and reads the frame.
 * dump_file_close is always called then. STATUS_INVALID: it is named otherwise; errors of sst_frame_read. */
MUST_USE enum status dump_file_open(struct dump_file *file, const struct dump *dump, enum file_kind kind,
                                    const char *what, const char *suffix, struct error *err);
void dump_file_close(struct dump_file *file);

/* The plain body of a block. */
MUST_USE enum status dump_file_block(const struct dump_file *file, const struct sst_handle *handle,
                                     enum sst_block_kind kind, struct buf *body, struct error *err);
/* STATUS_CORRUPT, with what is damaged and where. */
enum status dump_file_damaged(const struct dump_file *file, const char *what, uint64_t offset, struct error *err);

/* What a struct sst needs; closed when opening failed, too. */
MUST_USE enum status dump_context_open(const struct dump_file *file, struct sst_context *context, struct error *err);
void dump_context_close(struct sst_context *context);
/* Verifies all of it and prints what came of that; `counted` names the number of entries. The table stays the caller's.
 */
MUST_USE enum status dump_file_verify(const struct dump_file *file, struct sst *sst, const char *counted,
                                      struct error *err);

#endif
