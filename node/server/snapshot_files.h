/*
 * The files of snapshots: a checkpoint's as one sequence of bytes that is sent, and what is received of one.
 *
 *   DATA/snapshot-out-<peer>   a checkpoint that is being sent (storage_checkpoint made it; links, no space of its own)
 *   DATA/snapshot-in           what has arrived; storage_ingest takes it from there
 *
 * Neither outlives the process: the next start removes them. Everything here blocks: workers and start-up only.
 */
#ifndef HOLDFAST_SERVER_SNAPSHOT_FILES_H
#define HOLDFAST_SERVER_SNAPSHOT_FILES_H

#include "node/env/env.h"
#include "storage/file_names.h"

enum {
    SNAPSHOT_CHUNK_BYTES = 64 * KIB, /* are sent at once: the loop has other things to do */
    SNAPSHOT_BLOCK_CHUNKS = 4,       /* are read, and written, */
    SNAPSHOT_BLOCK_BYTES = SNAPSHOT_BLOCK_CHUNKS * SNAPSHOT_CHUNK_BYTES, /* as one */
    SNAPSHOT_FILES_MAX = 1024 * 1024
};

/* One file, by the name that its kind and number make. */
struct snapshot_file {
    enum file_kind kind; /* CURRENT, MANIFEST, SST, VALUES, CHANGES */
    uint64_t number;     /* 0 for CURRENT */
    uint64_t bytes;
    uint64_t begin; /* bytes of all files before it */
};

/* True for the kinds that a snapshot consists of. */
bool snapshot_file_kind_is_sent(uint32_t kind);
/* In DATA, without regard to what is there. Paths that don't fit are cut: their use fails. */
void snapshot_out_dir(char out[LIMIT_PATH_BYTES], const char *data_dir, uint64_t peer);
void snapshot_in_dir(char out[LIMIT_PATH_BYTES], const char *data_dir);

/* The files of a checkpoint, in an order of their own; the array is the caller's, to be freed with env->alloc.
 * STATUS_TOO_LARGE: more than SNAPSHOT_FILES_MAX. */
MUST_USE enum status snapshot_files_list(struct env *env, const char *dir, struct snapshot_file **ret_files,
                                         uint32_t *ret_count, struct error *err);
/* Exactly len bytes. STATUS_CORRUPT: the file is shorter. */
MUST_USE enum status snapshot_file_read(struct env *env, const char *dir, const struct snapshot_file *file,
                                        uint64_t offset, uint8_t *data, size_t len, struct error *err);
/* A piece; pieces of a file come in order. The disk begins with it at once, so that the sync of the file, or of the
 * log beside it, meets no large backlog. A file that is whole is durable on return. STATUS_EXISTS: it was there before
 * its first piece. */
MUST_USE enum status snapshot_file_write(struct env *env, const char *dir, const struct snapshot_file *file,
                                         uint64_t offset, const uint8_t *data, size_t len, struct error *err);
/* Makes it, and empties it of what is in there. */
MUST_USE enum status snapshot_dir_make(struct env *env, const char *dir, struct error *err);
/* All names in it, and its own, are durable on return. */
MUST_USE enum status snapshot_dir_sync(struct env *env, const char *dir, struct error *err);
/* The store in it, the directory, and what a checkpoint that was cut short left beside it. STATUS_OK if there is
 * nothing. */
MUST_USE enum status snapshot_dir_remove(struct env *env, const char *dir, struct error *err);
/* Whatever earlier lives left in the data directory. What can't be removed now is removed before its name is used
 * again, or at the next start. */
void snapshot_remove_leftovers(struct env *env, const char *data_dir);

#endif
