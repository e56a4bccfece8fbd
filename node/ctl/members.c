/* See members.h. The list: fetched, searched, shown. */
#include "node/ctl/members.h"
#include "node/ctl/table.h"

#include <inttypes.h>
#include <stdlib.h>

enum ctl_exit members_fetch(struct ctl *ctl, struct holdfast_members *ret_members) {
    struct holdfast_result result;
    const struct holdfast_read_options options = {.local = ctl->options.local || ctl->options.node != NULL};
    if (holdfast_list_members(ctl->handle, &options, ret_members, &result) != HOLDFAST_OK) {
        return ctl_fail_result(ctl, &result);
    }
    return CTL_DONE;
}

const struct holdfast_member *members_by_id(const struct holdfast_members *members, uint64_t id) {
    for (uint32_t i = 0; i < members->member_count; i++) {
        if (members->members[i].id == id) {
            return &members->members[i];
        }
    }
    return NULL;
}

enum ctl_exit members_find(struct ctl *ctl, const struct holdfast_members *members, const char *node,
                           const struct holdfast_member **ret_member) {
    const struct holdfast_member *found = NULL;
    for (uint32_t i = 0; i < members->member_count && found == NULL; i++) {
        found = strcmp(members->members[i].name, node) == 0 ? &members->members[i] : NULL;
    }
    size_t digits = strspn(node, "0123456789");
    if (found == NULL && digits > 0 && digits < 20 && node[digits] == '\0') {
        found = members_by_id(members, strtoull(node, NULL, 10));
    }
    if (found == NULL) {
        return ctl_fail(ctl, CTL_NOT_FOUND,
                        "no member has the name or id \"%s\": `holdfastctl member list` shows who there is", node);
    }
    *ret_member = found;
    return CTL_DONE;
}

uint64_t members_lag(const struct holdfast_members *members, const struct holdfast_member *member) {
    return members->commit > member->match ? members->commit - member->match : 0;
}

/* What a leader knows of its peers comes from it alone. */
static bool is_known(const struct holdfast_member *member) { return member->state[0] != '\0'; }

static bool is_leader(const struct holdfast_members *members, const struct holdfast_member *member) {
    return member->id == members->leader_id;
}

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

json_t *members_text_json(const char *text) {
    json_t *string = json_string(text);
    return string != NULL ? string : json_string("?");
}

static void thumbprint_text(const struct holdfast_member *member, char out[2 * HOLDFAST_THUMBPRINT_BYTES + 1]) {
    for (size_t i = 0; i < HOLDFAST_THUMBPRINT_BYTES; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", member->thumbprint[i]);
    }
}

static json_t *number_or_null(bool is_there, uint64_t number) {
    return is_there ? json_integer((json_int_t)number) : json_null();
}

static json_t *member_json(const struct holdfast_members *members, const struct holdfast_member *member) {
    char thumbprint[2 * HOLDFAST_THUMBPRINT_BYTES + 1];
    bool known = is_known(member);
    bool heard = known && member->heard_ms_ago != UINT64_MAX;
    char incarnation[17];
    (void)snprintf(incarnation, sizeof incarnation, "%016" PRIx64, member->incarnation);
    thumbprint_text(member, thumbprint);
    return json_pack("{s:I, s:o, s:o, s:b, s:b, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id",
                     (json_int_t)member->id, "name", members_text_json(member->name), "role",
                     members_text_json(member->role), "leader", (int)is_leader(members, member), "returns",
                     (int)member->returns, "priority", (int)member->priority, "peer_address",
                     members_text_json(member->peer_address), "client_address",
                     members_text_json(member->client_address), "thumbprint",
                     member->has_thumbprint ? json_string(thumbprint) : json_null(), "match",
                     number_or_null(known, member->match), "lag", number_or_null(known, members_lag(members, member)),
                     "state", known ? members_text_json(member->state) : json_null(), "incarnation",
                     member->incarnation != 0 ? json_string(incarnation) : json_null(), "heard_ms_ago",
                     number_or_null(heard, member->heard_ms_ago));
}

static void print_json(struct ctl *ctl, const struct holdfast_members *members) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < members->member_count; i++) {
        (void)json_array_append_new(list, member_json(members, &members->members[i]));
    }
    json_t *root =
        json_pack("{s:o, s:I, s:I, s:I, s:b, s:b, s:o, s:o}", "leader_id",
                  number_or_null(members->leader_id != 0, members->leader_id), "term", (json_int_t)members->term,
                  "commit", (json_int_t)members->commit, "index", (json_int_t)members->index, "committed",
                  (int)members->committed, "joint", (int)members->joint, "transfer_target",
                  number_or_null(members->transfer_target != 0, members->transfer_target), "members", list);
    (void)json_dumpf(root, ctl->io->out, JSON_COMPACT);
    (void)fputc('\n', ctl->io->out);
    json_decref(root);
}

/* ---- Text ----------------------------------------------------------------------------------------------------- */

static void add_heard(struct table *table, const struct holdfast_members *members,
                      const struct holdfast_member *member) {
    if (!is_known(member) || is_leader(members, member)) {
        table_add(table, "-");
    } else if (member->heard_ms_ago == UINT64_MAX) {
        table_add(table, "never");
    } else {
        table_add(table, "%" PRIu64 ".%03u s ago", member->heard_ms_ago / 1000,
                  (unsigned)(member->heard_ms_ago % 1000));
    }
}

static void add_member(struct table *table, const struct holdfast_members *members,
                       const struct holdfast_member *member) {
    table_add(table, "%s", member->name[0] != '\0' ? member->name : "-");
    table_add(table, "%" PRIu64, member->id);
    table_add(table, "%s%s%s", member->role, is_leader(members, member) ? ", leads" : "",
              member->returns ? ", returns" : "");
    table_add(table, "%u", (unsigned)member->priority);
    table_add(table, "%s", member->peer_address);
    table_add(table, "%s", member->client_address);
    if (is_known(member)) {
        table_add(table, "%" PRIu64, member->match);
        table_add(table, "%" PRIu64, members_lag(members, member));
        table_add(table, "%s", is_leader(members, member) ? "-" : member->state);
    } else {
        table_add(table, "-");
        table_add(table, "-");
        table_add(table, "-");
    }
    add_heard(table, members, member);
    if (member->incarnation != 0) {
        table_add(table, "%08" PRIx64, member->incarnation >> 32);
    } else {
        table_add(table, "-");
    }
}

static bool print_text(struct ctl *ctl, const struct holdfast_members *members) {
    static const char *const HEADS[] = {"NAME",  "ID",  "ROLE",  "PRIORITY", "PEERS", "CLIENTS",
                                        "MATCH", "LAG", "STATE", "HEARD",    "LOG"};
    enum { COLUMNS = sizeof HEADS / sizeof HEADS[0], RIGHT = 0xca };
    struct table table;
    (void)fprintf(ctl->io->out, "term %" PRIu64 ", membership of entry %" PRIu64 "%s%s%s\n", members->term,
                  members->index, members->committed ? "" : ", not committed yet",
                  members->joint ? ", a change is under way" : "",
                  members->transfer_target != 0 ? ", the lead is being handed over" : "");
    table_init(&table, ctl->alloc, COLUMNS, RIGHT);
    for (size_t i = 0; i < COLUMNS; i++) {
        table_add(&table, "%s", HEADS[i]);
    }
    for (uint32_t i = 0; i < members->member_count; i++) {
        add_member(&table, members, &members->members[i]);
    }
    bool done = table_print(&table, ctl->io->out);
    table_deinit(&table);
    return done;
}

bool members_print(struct ctl *ctl, const struct holdfast_members *members) {
    if (ctl->options.json) {
        print_json(ctl, members);
        return true;
    }
    return print_text(ctl, members);
}

/* ---- A new node's configuration ------------------------------------------------------------------------------- */

enum status members_append_config(const struct holdfast_members *members, struct buf *out) {
    enum status status = buf_append_format(out, "[raft]\njoin = on\n");
    for (uint32_t i = 0; i < members->member_count && status == STATUS_OK; i++) {
        const struct holdfast_member *member = &members->members[i];
        char thumbprint[2 * HOLDFAST_THUMBPRINT_BYTES + 1];
        thumbprint_text(member, thumbprint);
        status = buf_append_format(out, "\n[member %s]\nid = %" PRIu64 "\npeer = %s\nclient = %s\nthumbprint = %s\n",
                                   member->name, member->id, member->peer_address, member->client_address, thumbprint);
    }
    return status;
}
