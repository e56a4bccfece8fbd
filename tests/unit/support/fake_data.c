/* Writes and reads of a played cluster, and lies about them. See fake_server.h. */
#include "node/base/check.h"
#include "proto/client/holdfast.h"
#include "tests/unit/support/fake_internal.h"

#include <stdlib.h>

enum { PAGE_ENTRIES = 1000 };

static void apply_batch(struct fake_cluster *cluster, const struct connection_frame *frame, uint64_t revision) {
    const Wire__BatchRequest *batch = fake__unpack(cluster, &wire__batch_request__descriptor, frame->message);
    struct slice raw = frame->raw;
    CHECK(batch->n_kinds == batch->n_key_lens && batch->n_kinds == batch->n_value_lens && batch->n_kinds > 0);
    for (size_t i = 0; i < batch->n_kinds; i++) {
        CHECK((size_t)batch->key_lens[i] + batch->value_lens[i] <= raw.len);
        struct slice key = slice_of(raw.data, batch->key_lens[i]);
        struct slice value = slice_of(raw.data + key.len, batch->value_lens[i]);
        if (batch->kinds[i] == HOLDFAST_DELETE_RANGE) {
            fake__remove_range(cluster, key, value);
        } else {
            fake__store(cluster, key, batch->kinds[i] == HOLDFAST_PUT ? &value : NULL, revision);
        }
        raw = slice_of(raw.data + key.len + value.len, raw.len - key.len - value.len);
    }
    CHECK(raw.len == 0);
}

uint64_t fake__apply(struct fake_cluster *cluster, const struct connection_frame *frame) {
    uint64_t revision = atomic_fetch_add(&cluster->revision, 1) + 1;
    if (frame->type == FRAME_PUT) {
        const Wire__PutRequest *put = fake__unpack(cluster, &wire__put_request__descriptor, frame->message);
        fake__store(cluster, slice_of_binary(put->key), &frame->raw, revision);
    } else if (frame->type == FRAME_DELETE) {
        const Wire__DeleteRequest *request = fake__unpack(cluster, &wire__delete_request__descriptor, frame->message);
        fake__store(cluster, slice_of_binary(request->key), NULL, revision);
    } else if (frame->type == FRAME_DELETE_RANGE) {
        const Wire__DeleteRangeRequest *range =
            fake__unpack(cluster, &wire__delete_range_request__descriptor, frame->message);
        fake__remove_range(cluster, slice_of_binary(range->lower), slice_of_binary(range->upper));
    } else {
        apply_batch(cluster, frame, revision);
    }
    atomic_fetch_add(&cluster->applied, 1);
    return revision;
}

void fake__write(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    Wire__WriteReply reply = WIRE__WRITE_REPLY__INIT;
    reply.has_revision = 1;
    reply.revision = fake__apply(cluster, frame);
    fake__send(peer, FRAME_WRITE_REPLY, frame->request_id, &reply.base, NULL, 0);
}

void fake__get(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    const Wire__GetRequest *request = fake__unpack(cluster, &wire__get_request__descriptor, frame->message);
    const struct fake_entry *entry = fake_find(cluster, slice_of_binary(request->key));
    Wire__GetReply reply = WIRE__GET_REPLY__INIT;
    struct slice value = SLICE_EMPTY;
    reply.has_revision = reply.has_mod_revision = reply.has_found = 1;
    reply.revision = atomic_load(&cluster->revision);
    reply.found = entry != NULL;
    if (entry != NULL) {
        reply.mod_revision = entry->revision;
        value = slice_of(entry->value, entry->value_len);
    }
    fake__send(peer, FRAME_GET_REPLY, frame->request_id, &reply.base, &value, 1);
}

void fake__scan(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    const Wire__ScanRequest *request = fake__unpack(cluster, &wire__scan_request__descriptor, frame->message);
    uint32_t page = atomic_load(&cluster->page_limit);
    page = page == 0 ? PAGE_ENTRIES : page;
    uint32_t limit = request->limit != 0 && request->limit < page ? request->limit : page;
    struct slice upper = slice_of_binary(request->upper);
    uint32_t *lens = malloc(2 * (size_t)limit * sizeof *lens);
    uint64_t *revisions = malloc(limit * sizeof *revisions);
    struct buf raw;
    CHECK(lens != NULL && revisions != NULL);
    buf_init(&raw, alloc_system(), 0);
    Wire__ScanReply reply = WIRE__SCAN_REPLY__INIT;
    reply.has_revision = reply.has_more = reply.has_count = 1;
    reply.key_lens = lens;
    reply.value_lens = lens + limit;
    reply.mod_revisions = revisions;
    reply.revision = request->options->revision != 0 ? request->options->revision : atomic_load(&cluster->revision);
    for (size_t i = fake__lower_bound(cluster, slice_of_binary(request->lower)); i < cluster->entry_count; i++) {
        const struct fake_entry *entry = &cluster->entries[i];
        if (upper.len > 0 && slice_compare(slice_of(entry->key, entry->key_len), upper) >= 0) {
            break;
        }
        if (reply.count == limit) {
            reply.more = 1;
            break;
        }
        reply.count++;
        if (request->count_only) {
            continue;
        }
        lens[reply.n_key_lens++] = (uint32_t)entry->key_len;
        revisions[reply.n_mod_revisions++] = entry->revision;
        CHECK(buf_append(&raw, entry->key, entry->key_len) == STATUS_OK);
        if (!request->keys_only) {
            reply.value_lens[reply.n_value_lens++] = (uint32_t)entry->value_len;
            CHECK(buf_append(&raw, entry->value, entry->value_len) == STATUS_OK);
        }
    }
    struct slice bytes = buf_slice(&raw);
    fake__send(peer, FRAME_SCAN_REPLY, frame->request_id, &reply.base, &bytes, 1);
    buf_deinit(&raw);
    free(lens);
    free(revisions);
}

/* Two pairs, "a" "1" and "b" "2", with one thing wrong. Variant 7: nothing. */
void fake__lie(struct fake_peer *peer, const struct connection_frame *frame, uint32_t variant) {
    uint32_t key_lens[] = {1, 1};
    uint32_t value_lens[] = {1, 1};
    uint64_t revisions[] = {1, 1};
    struct slice raw = slice_of_string("a1b2");
    Wire__ScanReply reply = WIRE__SCAN_REPLY__INIT;
    reply.has_revision = reply.has_count = reply.has_more = 1;
    reply.revision = 1;
    reply.count = 2;
    reply.n_key_lens = reply.n_value_lens = reply.n_mod_revisions = 2;
    reply.key_lens = key_lens;
    reply.value_lens = value_lens;
    reply.mod_revisions = revisions;
    switch (variant) {
    case 0: value_lens[1] = UINT32_MAX; break;
    case 1: raw = slice_of_string("b1a2"); break;
    case 2: reply.n_value_lens = 1; break;
    case 3: raw = slice_of_string("a1b2c"); break;
    case 4: reply.count = 3; break;
    case 5: key_lens[0] = 0; break;
    case 6: reply.n_mod_revisions = 1; break;
    default: break;
    }
    fake__send(peer, FRAME_SCAN_REPLY, frame->request_id, &reply.base, &raw, 1);
}
