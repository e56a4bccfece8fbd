/*
 * A cap on open files. Each table and value file embeds a slot; its file is opened when it is first used, and closed
 * when more than the cap are open, nobody uses it, and it wasn't used since the clock's hand last passed it. The use
 * that opened it doesn't count: who comes once goes before who comes again.
 *
 *             open_file_open                       pins == 0 and not used lately: by whoever opens one too many
 *   CLOSED --------------------> OPEN, pins 0..n ------------------------------------------------> CLOSED
 *      \--(fails)--> CLOSED
 *
 * One word holds it all: pins in the low bits, OPEN, USED. A pin is one atomic add, whose result says whether the file
 * was open at that moment; if it wasn't, the add is taken back. The hand closes by a compare-and-swap from "OPEN, not
 * used, no pins" to 0: either a pin comes first and the swap fails, or the swap comes first and the pin sees CLOSED.
 * `file` is written before OPEN is set (release) and read after a pin saw it (acquire); the hand's swap (acquire) comes
 * behind the last unpin (release), so reads of the file end before it is closed.
 *
 * If all open files are pinned, the cap is exceeded until the next open. When the process is out of descriptors, files
 * that nobody uses are closed first, then the open is tried once more (hazard 57).
 *
 * Any thread; functions that block say so. A slot must stay where it is; its owner sees to it that nobody uses it any
 * more before open_file_deinit.
 */
#ifndef HOLDFAST_STORAGE_OPEN_FILES_H
#define HOLDFAST_STORAGE_OPEN_FILES_H

#include "node/env/env.h"

struct open_files;

enum { OPEN_FILE_OPEN = 1u << 30, OPEN_FILE_USED = 1u << 29, OPEN_FILE_PINS = OPEN_FILE_USED - 1 };

struct open_file {
    _Atomic uint32_t state;
    struct env_file *file; /* valid while pinned */
    struct open_files *files;
    struct list link;     /* of the open ones, in the hand's order */
    struct list openers;  /* who waits for the one that opens */
    bool is_being_opened; /* files' lock guards these three */
};

/* open_max > 0. STATUS_NO_MEMORY. */
MUST_USE enum status open_files_new(struct env *env, uint32_t open_max, struct open_files **ret_files,
                                    struct error *err);
/* All slots were deinitialised. NULL is accepted. */
void open_files_free(struct open_files *files);

void open_file_init(struct open_file *file, struct open_files *files);
/* Blocks: closes. No pins may be left. */
void open_file_deinit(struct open_file *file);

void open_file__set_used(struct open_file *file);

/* STATUS_OK: file->file is open until open_file_unpin. STATUS_PENDING: it isn't open; somebody who may block must call
 * open_file_open. */
MUST_USE static inline enum status open_file_pin(struct open_file *file) {
    uint32_t before = atomic_fetch_add_explicit(&file->state, 1, memory_order_acquire);
    if (__builtin_expect((before & (OPEN_FILE_OPEN | OPEN_FILE_USED)) == (OPEN_FILE_OPEN | OPEN_FILE_USED), 1)) {
        return STATUS_OK;
    }
    if ((before & OPEN_FILE_OPEN) == 0) {
        (void)atomic_fetch_sub_explicit(&file->state, 1, memory_order_relaxed);
        return STATUS_PENDING;
    }
    open_file__set_used(file);
    return STATUS_OK;
}

static inline void open_file_unpin(struct open_file *file) {
    uint32_t before = atomic_fetch_sub_explicit(&file->state, 1, memory_order_release);
    CHECK((before & OPEN_FILE_OPEN) != 0 && (before & OPEN_FILE_PINS) > 0);
}

/* Blocks. Opens the path for reading unless it is open, and pins. Of several threads one opens, the others wait for it.
 * Errors of env_open. */
MUST_USE enum status open_file_open(struct open_file *file, const char *path, struct error *err);

struct open_files_stats {
    uint64_t open_max;
    uint64_t open;
    uint64_t opened_total;
    uint64_t closed_total;
};

void open_files_get_stats(struct open_files *files, struct open_files_stats *ret_stats);

#endif
