/*
 * member: who is in the cluster, and changes of that. A node comes in as a learner, gets the log, and votes only when
 * it keeps up. It has to run before it is added, unless the operator says otherwise (--unreachable).
 */
#include "node/ctl/members.h"

#include "node/base/check.h"

#include <inttypes.h>

enum { WAIT_S = 600 }; /* for a learner to catch up, unless --wait says otherwise */

struct member_command {
    const char *name;
    int arguments; /* behind the name */
    const char *usage;
    uint32_t options; /* bits of arguments.c */
    /* add: the change that brings the new member in; NULL for commands that take none of its options. */
    enum ctl_exit (*run)(struct ctl *ctl, char **argv, const struct holdfast_member_change *add);
};

/* ---- Results ---------------------------------------------------------------------------------------------------- */

/* {"index":N,"id":N,"name":"..."} and what is in `more`, which is taken; or the text. */
static enum ctl_exit print_done(struct ctl *ctl, uint64_t index, uint64_t id, const char *name, const char *text,
                                const char *next, json_t *more) {
    if (ctl->options.json) {
        json_t *root = json_pack("{s:I, s:I, s:o}", "index", (json_int_t)index, "id", (json_int_t)id, "name",
                                 members_text_json(name));
        (void)json_object_update(root, more);
        (void)json_dumpf(root, ctl->io->out, JSON_COMPACT);
        (void)fputc('\n', ctl->io->out);
        json_decref(root);
    } else {
        (void)fprintf(ctl->io->out, "%s (id %" PRIu64 ") %s as of entry %" PRIu64 ".%s%s\n", name, id, text, index,
                      next[0] != '\0' ? " " : "", next);
    }
    json_decref(more);
    ctl->data_on_out = true;
    return ctl_finish_output(ctl);
}

static enum ctl_exit run_list(struct ctl *ctl, char **argv, const struct holdfast_member_change *add) {
    struct holdfast_members members;
    (void)argv, (void)add;
    enum ctl_exit code = members_fetch(ctl, &members);
    if (code != CTL_DONE) {
        return code;
    }
    return members_print(ctl, &members) ? ctl_finish_output(ctl) : ctl_fail(ctl, CTL_FAILED, "out of memory");
}

/* ---- New members ------------------------------------------------------------------------------------------------ */

/* A hex digit's value, or -1. */
static int digit_value(char digit) {
    const char *digits = "0123456789abcdef";
    const char lower = (char)(digit >= 'A' && digit <= 'F' ? digit - 'A' + 'a' : digit);
    const char *at = lower != '\0' ? strchr(digits, lower) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* 64 hex digits, in any case, with or without colons between bytes. */
static bool parse_thumbprint(const char *text, uint8_t *out) {
    size_t digits = 0;
    for (; *text != '\0'; text++) {
        int value = digit_value(*text);
        if (*text == ':' && digits % 2 == 0 && digits > 0) {
            continue;
        }
        if (value < 0 || digits == (size_t)2 * HOLDFAST_THUMBPRINT_BYTES) {
            return false;
        }
        out[digits / 2] = (uint8_t)(digits % 2 == 0 ? value << 4 : out[digits / 2] | value);
        digits++;
    }
    return digits == (size_t)2 * HOLDFAST_THUMBPRINT_BYTES;
}

static enum ctl_exit take_thumbprint(struct ctl *ctl, uint8_t *out) {
    const struct ctl_options *options = &ctl->options;
    struct holdfast_result result;
    if ((options->thumbprint != NULL) == (options->member_cert != NULL)) {
        return ctl_usage(ctl, "by which certificate is it known? Say --thumbprint HEX or --member-cert FILE");
    }
    if (options->thumbprint != NULL) {
        return parse_thumbprint(options->thumbprint, out)
                   ? CTL_DONE
                   : ctl_usage(ctl, "--thumbprint is \"%s\"; it must be the 64 hex digits of a SHA-256 sum",
                               options->thumbprint);
    }
    return holdfast_certificate_thumbprint(options->member_cert, out, &result) == HOLDFAST_OK
               ? CTL_DONE
               : ctl_fail_result(ctl, &result);
}

/* The change that adds this node; its thumbprint is written to memory that it borrows. */
static enum ctl_exit take_new_member(struct ctl *ctl, const char *name, uint8_t *thumbprint,
                                     struct holdfast_member_change *ret_change) {
    const struct ctl_options *options = &ctl->options;
    if (options->id == 0 || options->peer == NULL || options->client == NULL) {
        return ctl_usage(ctl, "a new member needs --id, --peer and --client");
    }
    enum ctl_exit code = take_thumbprint(ctl, thumbprint);
    *ret_change = (struct holdfast_member_change){.action = HOLDFAST_MEMBER_ADD,
                                                  .id = options->id,
                                                  .priority = (uint8_t)options->priority,
                                                  .name = name,
                                                  .peer_address = options->peer,
                                                  .client_address = options->client,
                                                  .thumbprint = thumbprint,
                                                  .unreachable = options->unreachable};
    return code;
}

/* What the configuration of a node that was added needs: the members as they are listed now. */
static enum ctl_exit make_config(struct ctl *ctl, const char *name, struct buf *out) {
    struct holdfast_members members;
    struct holdfast_result result;
    if (holdfast_list_members(ctl->handle, NULL, &members, &result) != HOLDFAST_OK) {
        return ctl_fail(ctl, ctl_exit_of(&result),
                        "%s is a learner, but what its configuration needs can't be told: %s: `holdfastctl member list "
                        "--output json` has the members",
                        name, result.message);
    }
    if (members_append_config(&members, out) != STATUS_OK || buf_append(out, "", 1) != STATUS_OK) {
        return ctl_fail(ctl, CTL_FAILED, "out of memory");
    }
    return CTL_DONE;
}

/* In JSON everything comes with the last step. */
static void print_config(struct ctl *ctl, const char *name, const char *config) {
    if (!ctl->options.json) {
        (void)fprintf(
            ctl->io->out,
            "Its configuration needs this, beside [tls] and a [node] section with name = %s and the cluster's id "
            "(`holdfastctl status`):\n\n%s\n",
            name, config);
        (void)fflush(ctl->io->out);
    }
}

static enum ctl_exit run_add(struct ctl *ctl, char **argv, const struct holdfast_member_change *add) {
    const struct ctl_options *options = &ctl->options;
    const struct holdfast_member_change promote = {.action = HOLDFAST_MEMBER_PROMOTE, .id = add->id};
    uint64_t index = 0;
    struct buf config;
    (void)argv;
    buf_init(&config, ctl->alloc, 0);
    enum ctl_exit code = members_change(ctl, add, 1, &index);
    if (code == CTL_DONE) {
        code = make_config(ctl, add->name, &config);
    }
    if (code != CTL_DONE) {
        goto out;
    }
    const char *text = (const char *)config.data;
    if (!options->promote) {
        code = print_done(ctl, index, add->id, add->name, "is a learner", "",
                          json_pack("{s:s, s:s}", "role", "learner", "config", text));
        print_config(ctl, add->name, text);
        if (!ctl->options.json) {
            (void)fprintf(ctl->io->out, "When it runs: `holdfastctl member promote %s --wait %d`.\n", add->name,
                          WAIT_S);
            code = ctl_finish_output(ctl);
        }
        goto out;
    }
    print_config(ctl, add->name, text);
    code = members_promote(ctl, &promote, 1, options->wait_s > 0 ? options->wait_s : WAIT_S, &index);
    if (code == CTL_DONE) {
        code = print_done(ctl, index, add->id, add->name, "is a voter", "",
                          json_pack("{s:s, s:s}", "role", "voter", "config", text));
    }
out:
    buf_deinit(&config);
    return code;
}

/* A learner of that id is there already: an earlier `replace` was stopped while it waited. */
static bool is_under_way(const struct holdfast_members *members, const struct holdfast_member_change *add) {
    const struct holdfast_member *member = members_by_id(members, add->id);
    return member != NULL && strcmp(member->name, add->name) == 0 && strcmp(member->role, "learner") == 0 &&
           strcmp(member->peer_address, add->peer_address) == 0 &&
           memcmp(member->thumbprint, add->thumbprint, sizeof member->thumbprint) == 0;
}

/* The new one comes in and the old one goes with one change of the voters: never more of them than before, and never
 * less. */
static enum ctl_exit run_replace(struct ctl *ctl, char **argv, const struct holdfast_member_change *add) {
    struct holdfast_members members;
    const struct holdfast_member *old = NULL;
    uint64_t index = 0;
    struct buf config;
    buf_init(&config, ctl->alloc, 0);
    enum ctl_exit code = members_fetch(ctl, &members);
    if (code == CTL_DONE) {
        code = members_find(ctl, &members, argv[0], &old);
    }
    if (code == CTL_DONE && !is_under_way(&members, add)) {
        code = members_change(ctl, add, 1, &index);
    }
    if (code == CTL_DONE) {
        code = make_config(ctl, add->name, &config);
    }
    if (code == CTL_DONE) {
        const struct holdfast_member_change changes[] = {{.action = HOLDFAST_MEMBER_PROMOTE, .id = add->id},
                                                         {.action = HOLDFAST_MEMBER_REMOVE, .id = old->id}};
        uint32_t wait_s = ctl->options.wait_s > 0 ? ctl->options.wait_s : WAIT_S;
        print_config(ctl, add->name, (const char *)config.data);
        code = members_promote(ctl, changes, sizeof changes / sizeof changes[0], wait_s, &index);
    }
    if (code == CTL_DONE) {
        char next[192];
        (void)snprintf(next, sizeof next,
                       "%s is no member any more: stop it, and never start a node with its data again.", old->name);
        code = print_done(ctl, index, add->id, add->name, "is a voter", next,
                          json_pack("{s:s, s:o, s:s}", "role", "voter", "removed", members_text_json(old->name),
                                    "config", (const char *)config.data));
    }
    buf_deinit(&config);
    return code;
}

/* ---- Members that are there ------------------------------------------------------------------------------------- */

/* Of one member, named by name or id. */
static enum ctl_exit change_one(struct ctl *ctl, const char *node, struct holdfast_member_change change,
                                const char *text, const char *next, json_t *more) {
    struct holdfast_members members;
    const struct holdfast_member *member = NULL;
    uint64_t index = 0;
    enum ctl_exit code = members_fetch(ctl, &members);
    if (code == CTL_DONE) {
        code = members_find(ctl, &members, node, &member);
    }
    if (code == CTL_DONE) {
        change.id = member->id;
        code = change.action == HOLDFAST_MEMBER_PROMOTE ? members_promote(ctl, &change, 1, ctl->options.wait_s, &index)
                                                        : members_change(ctl, &change, 1, &index);
    }
    if (code != CTL_DONE) {
        json_decref(more);
        return code;
    }
    return print_done(ctl, index, member->id, member->name, text, next, more);
}

static enum ctl_exit run_promote(struct ctl *ctl, char **argv, const struct holdfast_member_change *add) {
    (void)add;
    const struct holdfast_member_change change = {.action = HOLDFAST_MEMBER_PROMOTE};
    return change_one(ctl, argv[0], change, "is a voter", "", json_pack("{s:s}", "role", "voter"));
}

static enum ctl_exit run_demote(struct ctl *ctl, char **argv, const struct holdfast_member_change *add) {
    (void)add;
    const struct holdfast_member_change change = {.action = HOLDFAST_MEMBER_DEMOTE};
    return change_one(ctl, argv[0], change, "is a learner", "", json_pack("{s:s}", "role", "learner"));
}

static enum ctl_exit run_remove(struct ctl *ctl, char **argv, const struct holdfast_member_change *add) {
    (void)add;
    const struct holdfast_member_change change = {.action = HOLDFAST_MEMBER_REMOVE};
    return change_one(ctl, argv[0], change, "is no member any more",
                      "Stop it; to bring its machine back, delete its data and add it under a new id.",
                      json_pack("{s:n}", "role"));
}

static enum ctl_exit run_priority(struct ctl *ctl, char **argv, const struct holdfast_member_change *add) {
    (void)add;
    struct holdfast_member_change change = {.action = HOLDFAST_MEMBER_PRIORITY};
    size_t digits = strspn(argv[1], "0123456789");
    unsigned priority = digits > 0 && digits <= 3 && argv[1][digits] == '\0' ? (unsigned)atoi(argv[1]) : UINT8_MAX + 1;
    char text[32];
    if (priority > UINT8_MAX) {
        return ctl_usage(ctl, "the priority is \"%s\"; it must be a number from 0 to 255", argv[1]);
    }
    change.priority = (uint8_t)priority;
    (void)snprintf(text, sizeof text, "has the priority %u", priority);
    return change_one(ctl, argv[0], change, text, "", json_pack("{s:i}", "priority", (int)priority));
}

static enum ctl_exit run_rebuild(struct ctl *ctl, char **argv, const struct holdfast_member_change *add) {
    struct holdfast_members members;
    struct holdfast_node_status status;
    const struct holdfast_member *member = NULL;
    (void)add;
    enum ctl_exit code = members_fetch(ctl, &members);
    if (code == CTL_DONE) {
        code = members_find(ctl, &members, argv[0], &member);
    }
    if (code == CTL_DONE) {
        code = members_rebuild(ctl, member, ctl->options.wait_s > 0 ? ctl->options.wait_s : WAIT_S, &status);
    }
    return code == CTL_DONE ? print_done(ctl, status.applied, member->id, member->name, "has filled its store again",
                                         "", json_pack("{s:I}", "rebuilds", (json_int_t)status.rebuilds))
                            : code;
}

/* ---- The command ------------------------------------------------------------------------------------------------ */

static const struct member_command COMMANDS[] = {
    {"list", 0, "member list", 0, run_list},
    {"add", 1, "member add NAME --id N --peer H:P --client H:P --thumbprint HEX|--member-cert FILE [--unreachable]",
     CTL_OPTION_NEW_MEMBER | CTL_OPTION_PROMOTE | CTL_OPTION_WAIT, run_add},
    {"replace", 2,
     "member replace OLD NEW --id N --peer H:P --client H:P --thumbprint HEX|--member-cert FILE [--unreachable]",
     CTL_OPTION_NEW_MEMBER | CTL_OPTION_WAIT, run_replace},
    {"promote", 1, "member promote NODE [--wait SECONDS]", CTL_OPTION_WAIT, run_promote},
    {"demote", 1, "member demote NODE", 0, run_demote},
    {"remove", 1, "member remove NODE", 0, run_remove},
    {"priority", 2, "member priority NODE 0..255", 0, run_priority},
    {"rebuild", 1, "member rebuild NODE [--wait SECONDS]", CTL_OPTION_WAIT, run_rebuild},
};

enum ctl_exit ctl_cmd_member(struct ctl *ctl, int argc, char **argv) {
    const struct member_command *command = NULL;
    for (size_t i = 0; i < sizeof COMMANDS / sizeof COMMANDS[0] && command == NULL; i++) {
        command = strcmp(COMMANDS[i].name, argv[0]) == 0 ? &COMMANDS[i] : NULL;
    }
    if (command == NULL) {
        return ctl_usage(ctl, "\"%s\" is nothing that can be done with members", argv[0]);
    }
    if (argc - 1 != command->arguments) {
        return ctl_usage(ctl, "it is `%s`", command->usage);
    }
    if ((ctl->given & ctl->command->options & ~command->options) != 0) {
        return ctl_usage(ctl, "an option that doesn't belong to `%s`", command->usage);
    }
    uint8_t thumbprint[HOLDFAST_THUMBPRINT_BYTES];
    struct holdfast_member_change add;
    bool is_new = (command->options & CTL_OPTION_NEW_MEMBER) != 0;
    enum ctl_exit code = is_new ? take_new_member(ctl, argv[argc - 1], thumbprint, &add) : CTL_DONE;
    if (code == CTL_DONE) {
        code = ctl_connect(ctl);
    }
    return code == CTL_DONE ? command->run(ctl, argv + 1, is_new ? &add : NULL) : code;
}
