/*
 * A segment of the log: its groups, one behind the other, as long as they are whole.
 *
 * Behind the last group there is nothing, or what another life of the file left; by itself a segment can't tell a torn
 * last group from a damaged one (recovery can, by the segment behind it), so a group with a good header and a bad body
 * is called damaged here.
 */
#include "storage/tools/dump.h"
#include "storage/wal_internal.h"

#include <inttypes.h>

static void put_group(const struct dump *dump, const struct wal__group_view *view, uint64_t offset) {
    const struct wal__group_header *header = &view->header;
    json_t *object = json_object();
    (void)json_object_set_new(object, "group", dump_number(header->sequence));
    (void)json_object_set_new(object, "offset", dump_number(offset));
    (void)json_object_set_new(object, "bytes", dump_number(header->total_bytes));
    (void)json_object_set_new(object, "records", dump_number(header->record_count));
    (void)json_object_set_new(object, "first_index", dump_number(header->first_index));
    (void)json_object_set_new(object, "synced_index", dump_number(header->synced_index));
    (void)json_object_set_new(object, "commit_index", dump_number(header->commit_index));
    (void)json_object_set_new(object, "term", dump_number(header->term));
    (void)json_object_set_new(object, "vote", dump_number(header->vote));
    (void)json_object_set_new(object, "mark", json_boolean((header->flags & WAL__GROUP_MARK) != 0));
    (void)json_object_set_new(object, "reset", json_boolean((header->flags & WAL__GROUP_RESET) != 0));
    (void)json_object_set_new(object, "carry", json_boolean((header->flags & WAL__GROUP_CARRY) != 0));
    (void)json_object_set_new(object, "heal", json_boolean((header->flags & WAL__GROUP_HEAL) != 0));
    if (view->heal_index > 0) { /* where the log once ended */
        (void)json_object_set_new(object, "heal_index", dump_number(view->heal_index));
        (void)json_object_set_new(object, "heal_term", dump_number(view->heal_term));
    }
    dump_put(dump, object, true);
}

static enum status put_records(const struct dump *dump, struct slice records, struct error *err) {
    enum status status = STATUS_OK;
    while (status == STATUS_OK && records.len > 0) {
        struct wal_record record;
        status = wal_record_decode(&records, &record, err);
        if (status == STATUS_OK) {
            json_t *object = json_object();
            (void)json_object_set_new(object, "record", dump_number(record.index));
            (void)json_object_set_new(object, "term", dump_number(record.term));
            (void)json_object_set_new(object, "kind", dump_number(record.kind));
            (void)json_object_set_new(object, "payload_bytes", dump_number(record.payload.len));
            dump_put(dump, object, true);
        }
    }
    return status;
}

static enum status put_groups(const struct dump *dump, struct wal__scanner *scanner, uint64_t generation,
                              uint64_t size_bytes, struct error *err) {
    uint64_t offset = WAL_SEGMENT_HEADER_BYTES;
    uint64_t groups = 0;
    uint64_t records = 0;
    enum status status = STATUS_OK;
    while (offset < size_bytes) {
        enum wal__verdict verdict;
        struct wal__group_view view;
        status = wal__scan_group(scanner, offset, generation, &verdict, &view, err);
        if (status != STATUS_OK || verdict == WAL__GROUP_BAD_HEADER) {
            break;
        }
        put_group(dump, &view, offset);
        if (verdict == WAL__GROUP_BAD_BODY) {
            status = error_set(err, STATUS_CORRUPT, "%s: the group at offset %llu is damaged or torn", dump->path,
                               (unsigned long long)offset);
            break;
        }
        groups++;
        records += view.header.record_count;
        status = dump->keys ? put_records(dump, view.records, err) : STATUS_OK;
        if (status != STATUS_OK) {
            break;
        }
        offset += wal__padded(view.header.total_bytes);
    }
    json_t *object = json_object();
    (void)json_object_set_new(object, "groups", dump_number(groups));
    (void)json_object_set_new(object, "records", dump_number(records));
    (void)json_object_set_new(object, "end_offset", dump_number(offset));
    dump_put(dump, object, false);
    return status;
}

enum status dump_wal(const struct dump *dump, struct error *err) {
    struct wal__segment segment = {.file = NULL};
    struct wal__segment_header header;
    char incarnation[17];
    struct wal__scanner scanner;
    struct slice block = SLICE_EMPTY;
    wal__scanner_init(&scanner, dump->env->alloc);
    enum status status = env_open(dump->env, dump->path, ENV_OPEN_READ, &segment.file, err);
    if (status == STATUS_OK) {
        status = env_size(segment.file, &segment.bytes, err);
    }
    if (status == STATUS_OK) {
        wal__scanner_set_file(&scanner, &segment, WAL_SCAN_BYTES);
        status = wal__scanner_view(&scanner, 0, WAL_SEGMENT_HEADER_BYTES, &block, err);
    }
    if (status != STATUS_OK) {
        goto out;
    }
    if (block.len != WAL_SEGMENT_HEADER_BYTES || wal__segment_header_decode(block.data, &header) != STATUS_OK) {
        status = error_set(err, STATUS_CORRUPT, "%s: no log segment, or its header is damaged", dump->path);
        goto out;
    }
    (void)snprintf(incarnation, sizeof incarnation, "%016" PRIx64, header.incarnation); /* as `member list` has it */
    json_t *object = json_object();
    (void)json_object_set_new(object, "file", json_string(dump->path));
    (void)json_object_set_new(object, "number", dump_number(header.number));
    (void)json_object_set_new(object, "cluster", dump_hex(slice_of(header.cluster_id, WAL_CLUSTER_ID_BYTES)));
    (void)json_object_set_new(object, "node", dump_number(header.node_id));
    (void)json_object_set_new(object, "generation", dump_number(header.generation));
    (void)json_object_set_new(object, "incarnation", json_string(incarnation));
    (void)json_object_set_new(object, "bytes", dump_number(segment.bytes));
    (void)json_object_set_new(object, "recycled", json_boolean(header.recycled));
    dump_put(dump, object, false);
    status = put_groups(dump, &scanner, header.generation, segment.bytes, err);
out:
    wal__scanner_deinit(&scanner);
    env_close(segment.file);
    return status;
}
