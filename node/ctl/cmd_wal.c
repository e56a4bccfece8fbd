/* wal explain: what keeps each segment of each node's log. */
#include "node/ctl/ctl.h"
#include "node/ctl/table.h"

#include "node/base/check.h"

#include <inttypes.h>
#include <jansson.h>

struct answer {
    uint32_t endpoint;
    struct holdfast_log *log; /* NULL: no answer */
    struct holdfast_result result;
};

static json_t *text_json(const char *text) {
    json_t *string = json_string(text);
    return string != NULL ? string : json_string("?");
}

static const char *name_of(const struct ctl *ctl, const struct answer *answer) {
    return answer->log != NULL && answer->log->node_name[0] != '\0'
               ? answer->log->node_name
               : holdfast_endpoint_name(ctl->handle, answer->endpoint);
}

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

static json_t *pin_json(const struct holdfast_log_pin *pin) {
    return json_pack("{s:o, s:o, s:I, s:I, s:I}", "owner", text_json(pin->owner), "index",
                     pin->has_index ? json_integer((json_int_t)pin->index) : json_null(), "segments",
                     (json_int_t)pin->segments, "bytes", (json_int_t)pin->file_bytes, "age_ms",
                     (json_int_t)pin->age_ms);
}

static json_t *segment_json(const struct holdfast_log *log, const struct holdfast_log_segment *segment) {
    json_t *owners = json_array();
    for (uint32_t i = 0; i < log->pin_count; i++) {
        if ((segment->pins & 1U << i) != 0) {
            const struct holdfast_log_pin *pin = &log->pins[i];
            json_t *owner = json_pack("{s:o, s:o}", "owner", text_json(pin->owner), "index",
                                      pin->has_index ? json_integer((json_int_t)pin->index) : json_null());
            (void)json_array_append_new(owners, owner);
        }
    }
    return json_pack("{s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:b, s:o}", "number", (json_int_t)segment->number, "state",
                     text_json(segment->state), "bytes", (json_int_t)segment->file_bytes, "used_bytes",
                     (json_int_t)segment->used_bytes, "first", (json_int_t)segment->first, "last",
                     (json_int_t)segment->last, "age_ms", (json_int_t)segment->age_ms, "begun_earlier",
                     (int)segment->begun_earlier, "pins", owners);
}

static json_t *log_json(const struct ctl *ctl, const struct answer *answer) {
    const struct holdfast_log *log = answer->log;
    if (log == NULL) {
        return json_pack("{s:o, s:o}", "name", text_json(name_of(ctl, answer)), "problem",
                         text_json(answer->result.message));
    }
    json_t *pins = json_array();
    json_t *segments = json_array();
    for (uint32_t i = 0; i < log->pin_count; i++) {
        (void)json_array_append_new(pins, pin_json(&log->pins[i]));
    }
    for (size_t i = 0; i < log->segment_count; i++) {
        (void)json_array_append_new(segments, segment_json(log, &log->segments[i]));
    }
    return json_pack("{s:o, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "name", text_json(name_of(ctl, answer)),
                     "id", (json_int_t)log->node_id, "problem", "", "first", (json_int_t)log->first, "last",
                     (json_int_t)log->last, "floor", (json_int_t)log->floor, "segment_count",
                     (json_int_t)log->segment_total, "bytes", (json_int_t)log->file_bytes, "pins", pins, "segments",
                     segments);
}

static void print_json(struct ctl *ctl, const struct answer *answers, uint32_t count) {
    json_t *nodes = json_array();
    for (uint32_t i = 0; i < count; i++) {
        (void)json_array_append_new(nodes, log_json(ctl, &answers[i]));
    }
    json_t *root = json_pack("{s:o}", "nodes", nodes);
    (void)json_dumpf(root, ctl->io->out, JSON_COMPACT);
    (void)fputc('\n', ctl->io->out);
    json_decref(root);
}

/* ---- Text ----------------------------------------------------------------------------------------------------- */

/* "not flushed (120), follower n3 (97)" */
static void owners_text(const struct holdfast_log *log, const struct holdfast_log_segment *segment, char *out,
                        size_t size) {
    size_t len = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < log->pin_count; i++) {
        const struct holdfast_log_pin *pin = &log->pins[i];
        if ((segment->pins & 1U << i) == 0 || len >= size) {
            continue;
        }
        const char *comma = len > 0 ? ", " : "";
        int added = pin->has_index
                        ? snprintf(out + len, size - len, "%s%s (%" PRIu64 ")", comma, pin->owner, pin->index)
                        : snprintf(out + len, size - len, "%s%s", comma, pin->owner);
        len += added > 0 ? (size_t)added : 0;
    }
}

static void add_index(struct table *table, uint64_t index) {
    if (index > 0) {
        table_add(table, "%" PRIu64, index);
    } else {
        table_add(table, "-");
    }
}

static void add_age(struct table *table, const struct holdfast_log_segment *segment) {
    if (strcmp(segment->state, "prepared") == 0 || strcmp(segment->state, "spare") == 0 ||
        strcmp(segment->state, "faulty") == 0) {
        table_add(table, "-");
    } else {
        uint64_t tenths = segment->age_ms / 100;
        table_add(table, "%" PRIu64 ".%u s%s", tenths / 10, (unsigned)(tenths % 10), segment->begun_earlier ? "+" : "");
    }
}

static bool print_log(struct ctl *ctl, const struct answer *answer) {
    static const char *const HEADS[] = {"SEGMENT", "STATE", "BYTES", "USED", "FIRST", "LAST", "AGE", "KEPT FOR"};
    enum { COLUMNS = sizeof HEADS / sizeof HEADS[0], RIGHT = 0x7c };
    const struct holdfast_log *log = answer->log;
    struct table table;
    char owners[384];
    FILE *out = ctl->io->out;
    if (log == NULL) {
        (void)fprintf(out, "node %s: %s\n", name_of(ctl, answer), answer->result.message);
        return true;
    }
    (void)fprintf(out,
                  "node %s: entries %" PRIu64 " to %" PRIu64 ", floor %" PRIu64 ", %" PRIu64 " segments, %" PRIu64
                  " bytes\n",
                  name_of(ctl, answer), log->first, log->last, log->floor, log->segment_total, log->file_bytes);
    table_init(&table, ctl->alloc, COLUMNS, RIGHT);
    for (size_t i = 0; i < COLUMNS; i++) {
        table_add(&table, "%s", HEADS[i]);
    }
    for (size_t i = 0; i < log->segment_count; i++) {
        const struct holdfast_log_segment *segment = &log->segments[i];
        table_add(&table, "%016" PRIx64, segment->number);
        table_add(&table, "%s", segment->state);
        table_add(&table, "%" PRIu64, segment->file_bytes);
        table_add(&table, "%" PRIu64, segment->used_bytes);
        add_index(&table, segment->first);
        add_index(&table, segment->last);
        add_age(&table, segment);
        owners_text(log, segment, owners, sizeof owners);
        table_add(&table, "%s", owners);
    }
    bool done = table_print(&table, out);
    table_deinit(&table);
    if (log->segment_count < log->segment_total) {
        (void)fprintf(out, "and %" PRIu64 " more\n", log->segment_total - log->segment_count);
    }
    return done;
}

static bool print_text(struct ctl *ctl, const struct answer *answers, uint32_t count) {
    bool done = true;
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0) {
            (void)fputc('\n', ctl->io->out);
        }
        done = print_log(ctl, &answers[i]) && done;
    }
    return done;
}

/* ---- The command ---------------------------------------------------------------------------------------------- */

/* One after the other; returns how many are asked. */
static uint32_t ask(struct ctl *ctl, struct answer *answers) {
    uint32_t count = 0;
    const char *node = ctl->options.node;
    for (uint32_t i = 0; i < holdfast_endpoint_count(ctl->handle); i++) {
        if (node == NULL || strcmp(node, holdfast_endpoint_name(ctl->handle, i)) == 0 ||
            strcmp(node, holdfast_endpoint_address(ctl->handle, i)) == 0) {
            struct answer *answer = &answers[count++];
            answer->endpoint = i;
            (void)holdfast_explain_log(ctl->handle, i, 0, &answer->log, &answer->result);
        }
    }
    return count;
}

enum ctl_exit ctl_cmd_wal(struct ctl *ctl, int argc, char **argv) {
    CHECK(argc == 1);
    if (strcmp(argv[0], "explain") != 0) {
        return ctl_usage(ctl, "\"%s\" is nothing that can be done with the log", argv[0]);
    }
    enum ctl_exit code = ctl_connect(ctl);
    if (code != CTL_DONE) {
        return code;
    }
    struct answer *answers = mem_alloc_zero(ctl->alloc, holdfast_endpoint_count(ctl->handle) * sizeof *answers);
    if (answers == NULL) {
        return ctl_fail(ctl, CTL_FAILED, "out of memory");
    }
    uint32_t count = ask(ctl, answers);
    CHECK(count > 0);
    bool printed = true;
    if (ctl->options.json) {
        print_json(ctl, answers, count);
    } else {
        printed = print_text(ctl, answers, count);
    }
    ctl->data_on_out = true;
    code = printed ? ctl_finish_output(ctl) : ctl_fail(ctl, CTL_FAILED, "out of memory");
    const struct answer *missing = NULL;
    for (uint32_t i = 0; i < count; i++) {
        missing = missing == NULL && answers[i].log == NULL ? &answers[i] : missing;
    }
    if (code == CTL_DONE && missing != NULL) {
        code = ctl_fail_result(ctl, &missing->result);
    }
    for (uint32_t i = 0; i < count; i++) {
        holdfast_log_free(ctl->handle, answers[i].log);
    }
    mem_free(ctl->alloc, answers);
    return code;
}
