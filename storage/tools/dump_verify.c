/* A whole store: every checksum and invariant of its files, findings first, then what was read. */
#include "storage/storage.h"
#include "storage/tools/dump.h"

static void on_found(void *context, const struct storage_verify_finding *finding) {
    const struct dump *dump = context;
    json_t *object = json_object();
    (void)json_object_set_new(object, "damaged", json_string(finding->file[0] != '\0' ? finding->file : "store"));
    (void)json_object_set_new(object, "places", dump_number(finding->count));
    (void)json_object_set_new(object, "offset", dump_number(finding->offset));
    (void)json_object_set_new(object, "message", dump_bytes(slice_of_string(finding->message)));
    dump_put(dump, object, true);
}

enum status dump_verify(const struct dump *dump, struct error *err) {
    struct dump copy = *dump;
    struct storage_verify_options options = {.context = &copy, .found = on_found};
    struct storage_verify_report report;
    enum status status = storage_verify_dir(dump->env, dump->path, &options, &report, err);
    if (status != STATUS_OK && status != STATUS_CORRUPT) {
        return status;
    }
    json_t *object = json_object();
    (void)json_object_set_new(object, "store", json_string(dump->path));
    (void)json_object_set_new(object, "findings", dump_number(report.findings));
    (void)json_object_set_new(object, "tables", dump_number(report.tables));
    (void)json_object_set_new(object, "bytes", dump_number(report.bytes));
    (void)json_object_set_new(object, "partitions", dump_number(report.partitions));
    (void)json_object_set_new(object, "data_blocks", dump_number(report.data_blocks));
    (void)json_object_set_new(object, "entries", dump_number(report.entries));
    (void)json_object_set_new(object, "range_deletes", dump_number(report.tombstones));
    (void)json_object_set_new(object, "changes", dump_number(report.changes));
    (void)json_object_set_new(object, "unnamed_files", dump_number(report.unnamed_files));
    (void)json_object_set_new(object, "other_files", dump_number(report.other_files));
    (void)json_object_set_new(object, "index", dump_number(report.frontier.index));
    (void)json_object_set_new(object, "term", dump_number(report.frontier.term));
    dump_put(dump, object, false);
    return status;
}
