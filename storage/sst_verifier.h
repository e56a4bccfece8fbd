/*
 * What verifying tables, value files and change files has in common: blocks read past the cache and checked, a pace,
 * findings, the checksum of the file.
 *
 *   sst__verifier_init -> sst__verify_* -> sst__verifier_deinit
 *
 * Blocks. The file must be pinned for everything that reads. Owner: the thread that verifies.
 */
#ifndef HOLDFAST_STORAGE_SST_VERIFIER_H
#define HOLDFAST_STORAGE_SST_VERIFIER_H

#include "node/base/buf.h"
#include "storage/sst_internal.h"

struct sst_verifier {
    struct sst *file;
    const struct sst_verify_options *options; /* may be NULL */
    struct sst_verify_report report;
    struct error *err;      /* of the first finding; may be NULL */
    uint64_t checksum;      /* of the file, as far as it was read */
    bool complete;          /* nothing was left out so far: counts and checksum can be told */
    uint64_t unpaced_bytes; /* read since pace was called */
    struct buf raw;         /* the block that was read last */
};

void sst__verifier_init(struct sst_verifier *verifier, struct sst *file, const struct sst_verify_options *options,
                        struct error *err);
void sst__verifier_deinit(struct sst_verifier *verifier);

/* Something is wrong there, but nothing is left out for it. */
void sst__verify_finding(struct sst_verifier *verifier, const char *what, uint64_t offset);
/* Something is wrong there, and what it says is left out. Returns STATUS_CORRUPT. */
enum status sst__verify_broken(struct sst_verifier *verifier, const char *what, uint64_t offset);
/* STATUS_NO_MEMORY. */
enum status sst__verify_no_memory(struct sst_verifier *verifier, size_t bytes);
static inline void sst__verify_add(struct sst_verifier *verifier, uint64_t checksum) {
    verifier->checksum = sst_file_checksum_add(verifier->checksum, checksum);
}

/* Reads a block into raw and checks it. STATUS_CORRUPT: broken, told already. */
MUST_USE enum status sst__verify_read(struct sst_verifier *verifier, const struct sst_handle *handle,
                                      enum sst_block_kind kind, struct sst_stored *ret_stored);
/* Its body, plain, into `body`. STATUS_CORRUPT: broken, told already. */
MUST_USE enum status sst__verify_unpack(struct sst_verifier *verifier, const struct sst_stored *stored, uint64_t offset,
                                        struct buf *body);
/* Both, and what the block adds to the file's checksum. */
MUST_USE enum status sst__verify_block(struct sst_verifier *verifier, const struct sst_handle *handle,
                                       enum sst_block_kind kind, struct buf *body, uint64_t *ret_checksum);
/* The length of the file, its header, which begins the checksum, and its footer, which ends it. STATUS_CORRUPT: without
 * them there is nothing to go by, told already. */
MUST_USE enum status sst__verify_ends(struct sst_verifier *verifier, enum sst_file_kind kind,
                                      struct sst_footer *ret_footer, uint64_t *ret_footer_checksum);
/* The whole file's, when all of it was added. */
void sst__verify_checksum(struct sst_verifier *verifier);

#endif
