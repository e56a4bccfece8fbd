/*
 * One line of a trace, checked: types, ranges, known words. A field that is absent is 0, false or empty, but the node,
 * the event, and the state after a step must be there. Fields that aren't known are passed over.
 */
#include "tests/sim/replay/replay.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const event_names[EVENT_COUNT] = {"trace",         "start",     "crash",  "tick",
                                                     "receive",       "propose",   "synced", "read",
                                                     "unreachable",   "trimmed",   "change", "transfer",
                                                     "snapshot_sent", "installed", "fence",  "gone",
                                                     "store_damaged"};

const char *const type_names[TYPE_COUNT] = {"prevote",    "prevote_reply",   "vote",
                                            "vote_reply", "append",          "append_reply",
                                            "heartbeat",  "heartbeat_reply", "timeout_now",
                                            "read_index", "read_index_reply"};

static const char *const role_names[ROLE_COUNT] = {"follower", "precandidate", "candidate", "leader"};

void *grown(void *list, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity) {
        return list;
    }
    *capacity = *capacity == 0 ? 16 : *capacity;
    while (*capacity <= count) {
        *capacity *= 2;
    }
    void *more = realloc(list, *capacity * size);
    if (more == NULL) {
        abort();
    }
    return more;
}

size_t shed(void *list, size_t count, size_t gone, size_t size) {
    if (gone > 0 && gone < count) {
        memmove(list, (const char *)list + gone * size, (count - gone) * size);
    }
    return count - gone;
}

void entries_add(struct entries *entries, uint64_t index, struct entry entry) {
    if (entries->count == 0) {
        entries->first_index = index;
    }
    entries->list = grown(entries->list, entries->count, &entries->capacity, sizeof *entries->list);
    entries->list[entries->count++] = entry;
}

/* The first thing that is wrong stays; what is read afterwards is 0. */
struct reading {
    const char *complaint;
};

static uint64_t complain(struct reading *reading, const char *what) {
    if (reading->complaint == NULL) {
        reading->complaint = what;
    }
    return 0;
}

static uint64_t number_of(struct reading *reading, const json_t *value) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return complain(reading, "a number is wanted that isn't negative");
    }
    return (uint64_t)json_integer_value(value);
}

static uint64_t get_number(struct reading *reading, const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return value == NULL ? 0 : number_of(reading, value);
}

static uint64_t get_index(struct reading *reading, const json_t *object, const char *name) {
    uint64_t index = get_number(reading, object, name);
    return index <= INDEX_MAX ? index : complain(reading, "an index or a term beyond what the model keeps");
}

static uint64_t get_wanted(struct reading *reading, const json_t *object, const char *name) {
    if (json_object_get(object, name) == NULL) {
        return complain(reading, "a field of the state is missing");
    }
    return get_index(reading, object, name);
}

static uint64_t get_id(struct reading *reading, const json_t *object, const char *name) {
    uint64_t id = get_number(reading, object, name);
    return id < NODES_MAX ? id : complain(reading, "a node id beyond what the model keeps");
}

static bool get_bool(struct reading *reading, const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (value != NULL && !json_is_boolean(value)) {
        (void)complain(reading, "true or false is wanted");
    }
    return json_is_true(value);
}

static size_t get_word(struct reading *reading, const json_t *object, const char *name, const char *const *words,
                       size_t count) {
    const char *text = json_string_value(json_object_get(object, name));
    for (size_t i = 0; text != NULL && i < count; i++) {
        if (strcmp(text, words[i]) == 0) {
            return i;
        }
    }
    return complain(reading, "a word that isn't known, or is missing: event, role or type");
}

/* [[first, count, term, kind], ...], contiguous. */
static void get_entries(struct reading *reading, const json_t *object, const char *name, struct entries *ret_entries) {
    ret_entries->count = 0;
    const json_t *runs = json_object_get(object, name);
    size_t position;
    const json_t *run;
    json_array_foreach(runs, position, run) {
        if (json_array_size(run) != 4) {
            (void)complain(reading, "a run of entries has four numbers");
            return;
        }
        uint64_t first = number_of(reading, json_array_get(run, 0));
        uint64_t count = number_of(reading, json_array_get(run, 1));
        struct entry entry = {.term = number_of(reading, json_array_get(run, 2)),
                              .kind = (uint8_t)(number_of(reading, json_array_get(run, 3)) & 0xff)};
        uint64_t expected = ret_entries->count == 0 ? first : ret_entries->first_index + ret_entries->count;
        bool sane = first > 0 && first <= INDEX_MAX && first == expected && count > 0 &&
                    count <= ENTRIES_MAX - ret_entries->count && entry.term > 0 && entry.term <= INDEX_MAX;
        if (!sane) {
            (void)complain(reading, "runs of entries that make no sense");
            return;
        }
        for (uint64_t i = 0; i < count; i++) {
            entries_add(ret_entries, first + i, entry);
        }
    }
}

static void get_set(struct reading *reading, const json_t *object, const char *name, struct set *ret_set) {
    const json_t *ids = json_object_get(object, name);
    ret_set->count = 0;
    if (json_array_size(ids) > MEMBERS_MAX) {
        (void)complain(reading, "too many members");
        return;
    }
    size_t position;
    const json_t *id;
    json_array_foreach(ids, position, id) {
        uint64_t number = number_of(reading, id);
        if (number == 0 || number >= NODES_MAX) {
            (void)complain(reading, "a member's id beyond what the model keeps");
            return;
        }
        ret_set->ids[ret_set->count++] = number;
    }
}

static void get_config(struct reading *reading, const json_t *object, struct config *ret_config) {
    if (!json_is_object(object)) {
        (void)complain(reading, "a configuration is an object");
        return;
    }
    ret_config->index = get_index(reading, object, "index");
    get_set(reading, object, "voters", &ret_config->voters);
    get_set(reading, object, "outgoing", &ret_config->outgoing);
    get_set(reading, object, "learners", &ret_config->learners);
}

static void get_message(struct reading *reading, const json_t *object, struct message *ret_message) {
    if (!json_is_object(object)) {
        (void)complain(reading, "a message is an object");
        return;
    }
    *ret_message = (struct message){
        .type = (enum type)get_word(reading, object, "type", type_names, TYPE_COUNT),
        .reject = get_bool(reading, object, "reject"),
        .lost_log = get_bool(reading, object, "lost_log"),
        .life = get_number(reading, object, "life"),
        .from = get_id(reading, object, "from"),
        .to = get_id(reading, object, "to"),
        .term = get_index(reading, object, "term"),
        .index = get_index(reading, object, "index"),
        .log_term = get_index(reading, object, "log_term"),
        .count = get_index(reading, object, "count"),
        .commit = get_index(reading, object, "commit"),
        .hint = get_number(reading, object, "hint"),
        .hint_term = get_number(reading, object, "hint_term"),
        .round = get_number(reading, object, "round"),
        .floor = get_index(reading, object, "floor"),
    };
    if (ret_message->from == 0 || ret_message->to == 0) {
        (void)complain(reading, "a message from or to nobody");
    }
}

static void get_received(struct reading *reading, const json_t *object, struct line *line) {
    get_message(reading, object, &line->message);
    get_entries(reading, object, "entries", &line->message_entries);
    if (line->message_entries.count != line->message.count) {
        (void)complain(reading, "a received message with another number of entries than it says");
    }
    if (line->message.count > 0 && line->message_entries.first_index != line->message.index + 1) {
        (void)complain(reading, "entries that don't follow the previous index");
    }
    size_t position;
    const json_t *config;
    json_array_foreach(json_object_get(object, "configurations"), position, config) {
        struct configs *configs = &line->message_configs;
        configs->list = grown(configs->list, configs->count, &configs->capacity, sizeof *configs->list);
        get_config(reading, config, &configs->list[configs->count++]);
    }
}

static void get_event(struct reading *reading, const json_t *object, struct line *line) {
    const json_t *group = json_object_get(object, "group");
    switch (line->event) {
    case EVENT_RECEIVE: get_received(reading, json_object_get(object, "message"), line); return;
    case EVENT_SYNCED:
        line->group.term = get_index(reading, group, "term");
        line->group.vote = get_id(reading, group, "vote");
        line->group.last = get_index(reading, group, "last");
        line->group.last_term = get_index(reading, group, "last_term");
        return;
    case EVENT_START:
        line->start_index = get_index(reading, object, "start_index");
        line->start_term = get_index(reading, object, "start_term");
        line->heal_index = get_index(reading, object, "heal_index");
        line->heal_term = get_index(reading, object, "heal_term");
        get_entries(reading, object, "log", &line->log);
        if (line->log.count > 0 && line->log.first_index != line->start_index + 1) {
            (void)complain(reading, "a log that doesn't follow its start");
        }
        return;
    case EVENT_INSTALLED: get_config(reading, json_object_get(object, "installed"), &line->installed); return;
    default: return;
    }
}

static void get_effect(struct reading *reading, const json_t *object, struct line *line) {
    line->has_cut = json_object_get(object, "cut") != NULL;
    line->cut = get_index(reading, object, "cut");
    get_entries(reading, object, "append", &line->append);
    line->asked = get_number(reading, object, "asked");
    const json_t *ready = json_object_get(object, "ready");
    line->has_ready = ready != NULL;
    if (line->has_ready) {
        line->ready_round = number_of(reading, json_array_get(ready, 0));
        line->ready_index = number_of(reading, json_array_get(ready, 1));
    }
    line->reads_failed = get_bool(reading, object, "reads_failed");
    const json_t *sends = json_object_get(object, "send");
    if (json_array_size(sends) > MESSAGES_MAX) {
        (void)complain(reading, "too many messages in one step");
        return;
    }
    size_t position;
    const json_t *message;
    json_array_foreach(sends, position, message) { get_message(reading, message, &line->sends[line->send_count++]); }
}

static void get_state(struct reading *reading, const json_t *object, struct line *line) {
    line->role = (enum role)get_word(reading, object, "role", role_names, ROLE_COUNT);
    line->term = get_wanted(reading, object, "term");
    line->vote = get_wanted(reading, object, "vote");
    line->leader = get_wanted(reading, object, "leader");
    line->commit = get_wanted(reading, object, "commit");
    line->last = get_wanted(reading, object, "last");
    line->last_term = get_wanted(reading, object, "last_term");
    line->synced = get_wanted(reading, object, "synced");
    line->config_index = get_wanted(reading, object, "config");
    if (line->vote >= NODES_MAX || line->leader >= NODES_MAX) {
        (void)complain(reading, "a vote or leader beyond what the model keeps");
    }
    const json_t *configuration = json_object_get(object, "configuration");
    line->has_configuration = configuration != NULL;
    if (configuration != NULL) {
        get_config(reading, configuration, &line->configuration);
    }
}

static void get_line(struct reading *reading, const json_t *object, struct line *line) {
    line->event = (enum event)get_word(reading, object, "event", event_names, EVENT_COUNT);
    if (reading->complaint != NULL) {
        return;
    }
    if (line->event == EVENT_TRACE) {
        if (get_number(reading, object, "version") != 1) {
            (void)complain(reading, "a trace of another version");
        }
        return;
    }
    line->time_us = get_number(reading, object, "t");
    line->node = get_id(reading, object, "node");
    if (line->node == 0) {
        (void)complain(reading, "no node");
    }
    if (line->event == EVENT_CRASH) {
        return;
    }
    const char *status = json_string_value(json_object_get(object, "status"));
    line->ok = status == NULL;
    line->malformed = status != NULL && strcmp(status, "invalid") == 0;
    line->index = get_index(reading, object, "index");
    line->index_term = get_index(reading, object, "index_term");
    get_event(reading, object, line);
    get_effect(reading, object, line);
    get_state(reading, object, line);
}

bool line_read(const char *text, size_t len, struct line *line, const char **ret_complaint) {
    struct line old = *line;
    /* All but the messages, of which only the first send_count are looked at. */
    memset(line, 0, offsetof(struct line, sends));
    memset(&line->send_count, 0, sizeof *line - offsetof(struct line, send_count));
    line->message_entries =
        (struct entries){.list = old.message_entries.list, .capacity = old.message_entries.capacity};
    line->message_configs =
        (struct configs){.list = old.message_configs.list, .capacity = old.message_configs.capacity};
    line->log = (struct entries){.list = old.log.list, .capacity = old.log.capacity};
    line->append = (struct entries){.list = old.append.list, .capacity = old.append.capacity};
    struct reading reading = {0};
    json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(object)) {
        (void)complain(&reading, "not an object of JSON");
    } else {
        get_line(&reading, object, line);
    }
    json_decref(object);
    *ret_complaint = reading.complaint;
    return reading.complaint == NULL;
}

void line_deinit(struct line *line) {
    free(line->message_entries.list);
    free(line->message_configs.list);
    free(line->log.list);
    free(line->append.list);
}
