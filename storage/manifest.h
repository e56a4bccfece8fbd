/*
 * The manifest: which tables make up the store, and the frontier that they hold. An append-only file of edits; CURRENT
 * names the one that counts.
 *
 *   file   = header block | edit | mark | edit | mark | ...     each padded to 4 KiB: a synced block is never written
 * again edit   = header 32, fields (manifest_edit.h)                 n-th edit of the file mark   = header 32 "edit n
 * was synced"
 *
 * An edit is acknowledged only when its mark is synced too. So what a power loss tore is told from what rotted: a
 * damaged edit at the end of the file with nothing valid behind it was never acknowledged and is cut; any valid record
 * behind a damaged edit, its mark included, makes it corruption. A mark proves something only while its edit is
 * damaged, so damage to the mark alone is harmless; damage to both, at the very end, is the one case that can't be
 * told. A whole edit without a mark was complete but perhaps not synced when the process ended: it counts, as all that
 * it names was synced before it.
 *
 * Opening goes on with a new manifest that holds one snapshot edit: what is in an old one may be in the page cache
 * only. When the file outgrows its bound, the same is done. The switch: write and sync the new file, sync the
 * directory, write and sync CURRENT.tmp, rename it to CURRENT, sync the directory.
 *
 * Space. Edits go only into blocks that were filled with zeroes and synced before they were needed, so a full disk
 * can't fail an append; zeroes behind the last record are its end. Where no more can be prepared the edit waits,
 * nothing having been written that counts. A part of what is prepared is kept for edits that give space back: they are
 * what a full disk waits for.
 *
 * Failure. A failed write or sync is final for the caller: what is on disk is not known any more. Only STATUS_NO_SPACE
 * of manifest_prepare, and STATUS_NO_SPACE and STATUS_NO_MEMORY of manifest_switch are harmless: the old manifest stays
 * in force.
 *
 * All of it blocks: workers, one at a time.
 */
#ifndef HOLDFAST_STORAGE_MANIFEST_H
#define HOLDFAST_STORAGE_MANIFEST_H

#include "storage/manifest_edit.h"

enum {
    MANIFEST_BLOCK_BYTES = 4096,
    MANIFEST_VERSION = 1,
    CURRENT_BYTES = 64,
    MANIFEST_PREPARED_BYTES = 128 * 1024, /* at once */
    MANIFEST_RESERVE_BYTES = 64 * 1024    /* of it for edits that give space back */
};

struct manifest_identity {
    uint8_t cluster_id[STORAGE_CLUSTER_ID_BYTES];
    uint64_t node_id;
};

/* ---- Bytes (pure) -------------------------------------------------------------------------------------------- */

void manifest_header_encode(uint8_t out[MANIFEST_BLOCK_BYTES], const struct manifest_identity *identity,
                            uint64_t number);
/* Bytes on disk of an edit with this payload, without its mark. */
size_t manifest_edit_bytes(size_t payload_len);
/* Writes manifest_edit_bytes at out. offset: where it will stand. */
void manifest_edit_seal(uint8_t *out, struct slice payload, uint64_t number, uint64_t sequence, uint64_t offset);
void manifest_mark_seal(uint8_t out[MANIFEST_BLOCK_BYTES], uint64_t number, uint64_t sequence, uint64_t offset);

struct manifest_end {
    uint64_t size_bytes; /* of what counts; the next edit goes here */
    uint64_t sequence;   /* of the last edit */
    bool marked;         /* the last edit has its mark; room for it is within size_bytes anyway */
};

/* Reads a whole manifest in memory into an initialised state. STATUS_CORRUPT, STATUS_UNSUPPORTED, STATUS_INVALID
 * (another cluster's or node's): err names the offset. */
MUST_USE enum status manifest_parse(struct slice file, const struct manifest_identity *identity, uint64_t number,
                                    struct manifest_state *state, struct manifest_end *ret_end, struct error *err);

void manifest_current_encode(uint8_t out[CURRENT_BYTES], const struct manifest_identity *identity, uint64_t number);
MUST_USE enum status manifest_current_decode(struct slice file, const struct manifest_identity *identity,
                                             uint64_t *ret_number, struct error *err);
/* The same for a reader who doesn't know whose it is. */
MUST_USE enum status manifest_current_identify(struct slice file, struct manifest_identity *ret_identity,
                                               uint64_t *ret_number, struct error *err);

/* ---- Files --------------------------------------------------------------------------------------------------- */

struct manifest {
    struct env *env;
    const char *dir; /* borrowed */
    struct manifest_identity identity;
    uint64_t number; /* 0: none yet */
    struct env_file *file;
    uint64_t size_bytes;     /* of what counts */
    uint64_t prepared_bytes; /* the file's, as far as it is known to have its blocks: whole ones, zero behind size_bytes
                              */
    uint64_t sequence;
    bool marked;             /* the last edit is */
    uint64_t snapshot_bytes; /* size right after the switch to it */
    uint64_t written_bytes;  /* by this struct, in all */
    uint8_t *reserved;       /* for the next append */
    size_t reserved_len;
};

/* Finds CURRENT, reads what it names, wipes what was torn. STATUS_NOT_FOUND: there is no CURRENT. */
MUST_USE enum status manifest_load(struct manifest *manifest, struct manifest_state *state, struct error *err);
/* The same of a store that somebody else keeps, whoever's it is: the identity is filled in from CURRENT, nothing is
 * changed, no file stays open. */
MUST_USE enum status manifest_inspect(struct manifest *manifest, struct manifest_state *state, struct error *err);
/* Begins manifest `number` with a snapshot edit and makes it the current one; the old file is removed. */
MUST_USE enum status manifest_switch(struct manifest *manifest, uint64_t number, struct slice snapshot,
                                     struct error *err);
/* Makes a manifest that was loaded durable as it is: where there is no room for a new one. */
MUST_USE enum status manifest_keep(struct manifest *manifest, struct error *err);
/* Memory for an append of this payload, so that a lack of it can't fail a write: STATUS_NO_MEMORY. */
MUST_USE enum status manifest_reserve(struct manifest *manifest, size_t payload_len);
/* Room in the file for an append of this payload; gives_space: it may use the reserve. STATUS_NO_SPACE: not now, the
 * manifest is as it was. Any other failure is final. */
MUST_USE enum status manifest_prepare(struct manifest *manifest, size_t payload_len, bool gives_space,
                                      struct error *err);
/* Durable when it returns. A manifest_reserve and a manifest_prepare of the same length went before. Any failure is
 * final. */
MUST_USE enum status manifest_append(struct manifest *manifest, struct slice edit, struct error *err);
/* Closes the file, frees memory. */
void manifest_close(struct manifest *manifest);

#endif
