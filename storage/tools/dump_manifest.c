/* A manifest: the state that its edits add up to. Its own header says whose it is. */
#include "node/base/bytes.h"
#include "storage/manifest.h"
#include "storage/tools/dump.h"

#include <stdlib.h>
#include <string.h>

enum { NUMBER_AT = 16, CLUSTER_AT = 24, NODE_AT = 40, MANIFEST_BYTES_MAX = 1 << 30 };

static void put_state(const struct dump *dump, const struct manifest_state *state, const struct manifest_end *end,
                      uint64_t number, uint64_t size_bytes, const struct manifest_identity *identity) {
    const struct storage_frontier *frontier = &state->frontier;
    json_t *object = json_object();
    (void)json_object_set_new(object, "file", json_string(dump->path));
    (void)json_object_set_new(object, "number", dump_number(number));
    (void)json_object_set_new(object, "cluster", dump_hex(slice_of(identity->cluster_id, STORAGE_CLUSTER_ID_BYTES)));
    (void)json_object_set_new(object, "node", dump_number(identity->node_id));
    (void)json_object_set_new(object, "bytes", dump_number(size_bytes));
    (void)json_object_set_new(object, "valid_bytes", dump_number(end->size_bytes));
    (void)json_object_set_new(object, "edits", dump_number(end->sequence));
    (void)json_object_set_new(object, "last_edit_marked", json_boolean(end->marked));
    (void)json_object_set_new(object, "index", dump_number(frontier->index));
    (void)json_object_set_new(object, "term", dump_number(frontier->term));
    (void)json_object_set_new(object, "cluster_time_ms", dump_number(frontier->cluster_time_ms));
    (void)json_object_set_new(object, "frontier_horizon", dump_number(frontier->horizon));
    (void)json_object_set_new(object, "session_epoch", dump_number(frontier->session_epoch));
    (void)json_object_set_new(object, "feature_level", dump_number(frontier->feature_level));
    (void)json_object_set_new(object, "digest", dump_hex(slice_of(frontier->digest, STORAGE_DIGEST_BYTES)));
    (void)json_object_set_new(object, "membership_bytes", dump_number(frontier->membership_len));
    (void)json_object_set_new(object, "horizon", dump_number(state->horizon));
    (void)json_object_set_new(object, "next_file", dump_number(state->next_file));
    (void)json_object_set_new(object, "files", dump_number(state->file_count));
    (void)json_object_set_new(object, "value_files", dump_number(state->values_count));
    (void)json_object_set_new(object, "change_files", dump_number(state->changes_count));
    (void)json_object_set_new(object, "changes_after", dump_number(state->changes_after));
    dump_put(dump, object, false);
    for (size_t i = 0; dump->keys && i < state->file_count; i++) {
        const struct sst_meta *meta = &state->files[i].meta;
        json_t *one = json_object();
        (void)json_object_set_new(one, "level", dump_number(state->files[i].level));
        (void)json_object_set_new(one, "number", dump_number(meta->number));
        (void)json_object_set_new(one, "bytes", dump_number(meta->size_bytes));
        (void)json_object_set_new(one, "entries", dump_number(meta->entries));
        (void)json_object_set_new(one, "revision_first", dump_number(meta->revision_first));
        (void)json_object_set_new(one, "revision_last", dump_number(meta->revision_last));
        (void)json_object_set_new(one, "smallest", dump_bytes(meta->smallest));
        (void)json_object_set_new(one, "largest", dump_bytes(meta->largest));
        dump_put(dump, one, true);
    }
    for (size_t i = 0; dump->keys && i < state->values_count; i++) {
        const struct value_meta *meta = &state->values[i];
        json_t *one = json_object();
        (void)json_object_set_new(one, "value_file", dump_number(meta->number));
        (void)json_object_set_new(one, "log_segment", json_boolean(meta->is_log));
        (void)json_object_set_new(one, "bytes", dump_number(meta->size_bytes));
        (void)json_object_set_new(one, "values", dump_number(meta->values));
        (void)json_object_set_new(one, "stored_bytes", dump_number(meta->bytes));
        dump_put(dump, one, true);
    }
    for (size_t i = 0; dump->keys && i < state->changes_count; i++) {
        const struct change_meta *meta = &state->changes[i];
        json_t *one = json_object();
        (void)json_object_set_new(one, "change_file", dump_number(meta->number));
        (void)json_object_set_new(one, "bytes", dump_number(meta->size_bytes));
        (void)json_object_set_new(one, "changes", dump_number(meta->changes));
        (void)json_object_set_new(one, "revision_first", dump_number(meta->revision_first));
        (void)json_object_set_new(one, "revision_last", dump_number(meta->revision_last));
        dump_put(dump, one, true);
    }
}

enum status dump_manifest(const struct dump *dump, struct error *err) {
    struct manifest_identity identity;
    struct manifest_state state;
    struct manifest_end end;
    struct env_file *file = NULL;
    uint8_t *bytes = NULL;
    uint64_t size_bytes = 0;
    manifest_state_init(&state, dump->env->alloc);
    enum status status = env_open(dump->env, dump->path, ENV_OPEN_READ, &file, err);
    if (status == STATUS_OK) {
        status = env_size(file, &size_bytes, err);
    }
    if (status != STATUS_OK) {
        goto out;
    }
    if (size_bytes < MANIFEST_BLOCK_BYTES || size_bytes > MANIFEST_BYTES_MAX) {
        status = error_set(err, STATUS_CORRUPT, "%s: no manifest has %llu bytes", dump->path,
                           (unsigned long long)size_bytes);
        goto out;
    }
    bytes = malloc(size_bytes);
    status = bytes == NULL ? error_set(err, STATUS_NO_MEMORY, "no memory for %s", dump->path)
                           : dump_read(file, bytes, size_bytes, 0, err);
    if (status != STATUS_OK) {
        goto out;
    }
    uint64_t number = get_u64(bytes + NUMBER_AT);
    memcpy(identity.cluster_id, bytes + CLUSTER_AT, STORAGE_CLUSTER_ID_BYTES);
    identity.node_id = get_u64(bytes + NODE_AT);
    status = manifest_parse(slice_of(bytes, size_bytes), &identity, number, &state, &end, err);
    if (status == STATUS_OK) {
        put_state(dump, &state, &end, number, size_bytes, &identity);
    }
out:
    env_close(file);
    free(bytes);
    manifest_state_deinit(&state);
    return status;
}
