/*
 * Value files in a repair: sound ones stay where they are, under their numbers; of the others each value that can still
 * be read goes to a new file. For repair.c.
 *
 *   init -> take, take_unnamed (each old file) -> move (each entry) ... -> end -> keep -> deinit
 *
 * Every value that an entry refers to is read, whatever its file is like: only what can be read is referred to
 * afterwards. Blocks; the thread of the repair.
 */
#ifndef HOLDFAST_STORAGE_REPAIR_VALUES_H
#define HOLDFAST_STORAGE_REPAIR_VALUES_H

#include "storage/manifest_edit.h"

struct repair_values {
    const struct storage_options *storage;
    const struct sst_context *context;
    struct manifest_state *outcome;
    uint64_t *next_file;
    struct fetch fetch;
    struct sst_hold hold;          /* of the value that was read last */
    struct buf files;              /* struct repair_value_file each, in no order: what was taken */
    struct buf strangers;          /* struct value_meta each: files that don't say what they are, perhaps of the log */
    struct value_builder *builder; /* NULL: no new file under way */
};

/* Borrows all. */
void repair_values__init(struct repair_values *values, const struct storage_options *storage,
                         const struct sst_context *context, struct manifest_state *outcome, uint64_t *next_file);
/* Removes a file that wasn't ended. */
void repair_values__deinit(struct repair_values *values);

/* An old file that the manifest names. ret_sound: it has all that it should. Else what stands in it is read value by
 * value, and err says what is wrong. STATUS_NO_MEMORY is the only failure. */
MUST_USE enum status repair_values__take(struct repair_values *values, const struct value_meta *meta, bool *ret_sound,
                                         struct error *err);
/* One that no manifest names: it says itself what it is. */
MUST_USE enum status repair_values__take_unnamed(struct repair_values *values, uint64_t number, bool *ret_sound,
                                                 struct error *err);

/* Reads the value of an entry (BATCH_PUT_APART). STATUS_OK: it is there; the entry's place is as before, or another one
 * in `place`. STATUS_NOT_FOUND: it is lost: ret_file is the number of the file that should have it (0: not known) and
 * ret_offset where. STATUS_NO_MEMORY, STATUS_NO_SPACE, STATUS_IO: a new file can't be written. */
MUST_USE enum status repair_values__move(struct repair_values *values, struct entry *entry,
                                         uint8_t place[VALUE_PLACE_BYTES], uint64_t *ret_file, uint64_t *ret_offset,
                                         struct error *err);
/* Ends the new file under way. */
MUST_USE enum status repair_values__end(struct repair_values *values, struct error *err);
/* Adds the old files that are referred to from now on to the outcome. STATUS_NO_MEMORY. */
MUST_USE enum status repair_values__keep(struct repair_values *values);
/* True if the file of this number stays. Known after the last move. */
bool repair_values__stays(const struct repair_values *values, uint64_t number);

#endif
