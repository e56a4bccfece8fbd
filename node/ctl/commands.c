/* The table of commands: what `help` prints, what arguments.c accepts, what runs. Sorted as `help` shows them. */
#include "node/ctl/ctl.h"

#include <jansson.h>
#include <stdlib.h>

enum {
    SCAN_OPTIONS = CTL_OPTION_PREFIX | CTL_OPTION_LIMIT | CTL_OPTION_REVISION | CTL_OPTION_KEYS_ONLY | CTL_OPTION_COUNT
};

const struct ctl_command CTL_COMMANDS[] = {
    {"put", "KEY VALUE|-", "Set a key",
     "The value is the argument, or with `-` all bytes of standard input. Prints the revision.\n", CTL_OPTION_BASE64, 2,
     2, ctl_cmd_put},
    {"get", "KEY", "Print a key's value",
     "Prints the bytes of the value and nothing else (a newline follows on a terminal). JSON gives key, value, "
     "mod_revision (the\n"
     "write that made it) and revision; what isn't valid UTF-8 comes as key_b64 and value_b64. No such key: exit code "
     "3.\n",
     CTL_OPTION_BASE64 | CTL_OPTION_REVISION, 1, 1, ctl_cmd_get},
    {"del", "KEY | --prefix P | --range FROM TO", "Delete a key, or all keys of a range",
     "Prints the revision. Deleting what isn't there is no error. --prefix and --range delete all keys that begin with "
     "P, "
     "or from\n"
     "FROM (inclusive) to TO (exclusive; \"\" is no bound), at once and in one revision, however many they are. How "
     "many "
     "went isn't\n"
     "counted; `scan --count --rev N` with the same range tells, N being the revision before the one printed.\n",
     CTL_OPTION_BASE64 | CTL_OPTION_PREFIX | CTL_OPTION_RANGE, 0, 2, ctl_cmd_del},
    {"scan", "[--prefix P | LOWER [UPPER]]", "List keys and values in order",
     "Keys from LOWER (inclusive) to UPPER (exclusive), all at one revision, one `key<TAB>value` per line; control "
     "bytes, the\n"
     "backslash and what isn't UTF-8 are shown as \\xnn. JSON is one object with revision, pairs and count.\n",
     SCAN_OPTIONS, 0, 2, ctl_cmd_scan},
    {"import", "[FILE|-]", "Write pairs from JSON lines",
     "Each line is {\"key\":\"...\",\"value\":\"...\"}; key_b64 and value_b64 hold base64 instead. Lines with the same "
     "key are\n"
     "applied in their order. A lost leader is waited for: requests are sent again until acknowledged. Don't write the "
     "same\n"
     "keys from elsewhere meanwhile.\n",
     CTL_OPTION_SKIP_BAD | CTL_OPTION_IN_FLIGHT | CTL_OPTION_GIVE_UP, 0, 1, ctl_cmd_import},
    {"export", "[FILE|-]", "Write all pairs as JSON lines",
     "One line per key in memcmp order, all at one revision, in one canonical form: "
     "{\"key\":\"...\",\"value\":\"...\"} without\n"
     "blanks; in strings \\\" \\\\ \\b \\f \\n \\r \\t are escaped so, other bytes below 0x20 as \\u00xx (small hex "
     "digits), all else is\n"
     "raw; what isn't valid UTF-8 is written as key_b64 or value_b64. Equal states give equal bytes. With --node and "
     "--local:\n"
     "what that node has applied. A file is complete or not there.\n",
     CTL_OPTION_PREFIX | CTL_OPTION_REVISION, 0, 1, ctl_cmd_export},
    {"status", "", "Show every node",
     "Asks each endpoint. JSON: "
     "{\"cluster\":id,\"nodes\":[{\"name\",\"id\",\"role\",\"term\",\"synced\",\"commit\",\"applied\",\"flushed\",...}]"
     "};\n"
     "nodes that don't answer have the role \"unreachable\" and say why in problem. Exit code 4 if no leader was "
     "seen.\n"
     "The second table is about the log since the node started: syncs (each one write), the records of one, how long a "
     "sync\n"
     "takes, the part of what is written that is padding, and what made it be written: records at once, those that "
     "gathered\n"
     "behind a sync, a full group, a new segment, term or vote, idle time.\n",
     0, 0, 0, ctl_cmd_status},
    {"wal", "explain", "Say what keeps each segment of the logs",
     "For each segment file: number, state (active, kept, prepared, spare: to be used again, doomed: being deleted,\n"
     "faulty: damaged, set aside until the node is whole), bytes, first and last entry, age, and who keeps it: not\n"
     "flushed (up to the index that tables hold), a follower that doesn't hold its entries yet, a reader, an older\n"
     "segment (the oldest goes first), a store that is to be filled again. Only a leader knows the followers one by\n"
     "one. \"store, as a value file\": the store took it over for its large values, and its bytes stay when the log\n"
     "lets go of it. With --node: of that node alone. An age with + counts from the node's start: the segment is\n"
     "older.\n",
     0, 1, 1, ctl_cmd_wal},
    {"member", "list | add NAME | replace OLD NEW | promote|demote|remove|rebuild NODE | priority NODE N",
     "Show and change who is in the cluster",
     "NODE is a name or an id.\n"
     "list      Who is a member, how far each is, when it was last heard. With --node: as that node knows it.\n"
     "add       A node of a new id comes in as a learner: it gets the log and has no vote. It must run (join = on) and "
     "be\n"
     "          reachable, unless --unreachable is said. Prints what its configuration needs. With --promote: waits "
     "until it\n"
     "          keeps up, then promotes it.\n"
     "replace   Adds NEW like that, waits, and lets it vote and OLD go in one change. If it is stopped, the same "
     "command\n"
     "          goes on.\n"
     "promote   A learner that keeps up gets a vote; with --wait: when it does.\n"
     "demote    A voter becomes a learner.\n"
     "remove    A node is no member any more; stop it then. A leader hands the lead over.\n"
     "priority  0 to 255: who leads by preference.\n"
     "rebuild   A node fills its store again from the leader, while it runs: one that applied other changes than the "
     "others,\n"
     "          say. Waits until it has (600 s, or --wait).\n"
     "A change that would leave no quorum of the nodes that are reachable, or makes no sense, is refused with the "
     "reason:\n"
     "exit code 3. For admins.\n",
     CTL_OPTION_NEW_MEMBER | CTL_OPTION_PROMOTE | CTL_OPTION_WAIT, 1, 3, ctl_cmd_member},
    {"leader", "show | transfer [NODE]", "Show the leader, or hand over the lead",
     "transfer  Waits until NODE (a name or an id), or the node that is fit best, leads, and says who does. Writes "
     "wait a\n"
     "          moment. Refused, exit code 3: NODE has no vote, isn't reachable, or leads already. For admins.\n",
     0, 1, 2, ctl_cmd_leader},
    {"compact", "[--prefix P | LOWER [UPPER]]", "Rewrite the tables of a range",
     "Gives back the space of what was deleted or overwritten and is older than the history kept. Of all nodes, one "
     "after "
     "the\n"
     "other, or of the one that --node names. Reads and writes go on. If this command is stopped, the node goes on "
     "with "
     "its\n"
     "compaction.\n",
     CTL_OPTION_PREFIX, 0, 2, ctl_cmd_compact},
    {"verify", "", "Read all tables and check them",
     "Every checksum and invariant, of all nodes, one after the other, or of the one that --node names. Reads and "
     "writes "
     "go on.\n"
     "Damage: exit code 1, with the first place. Stopping this command with Ctrl-C leaves the node at it.\n"
     "With --cluster instead: an entry of the log asks every member for a digest of all that it holds there, and the "
     "leader\n"
     "compares them, as it does by itself once a day (scan_digest_interval). If they differ, exit code 1, and who "
     "differs from\n"
     "the majority; 4 if a member didn't answer. Stopping this command with Ctrl-C stops nothing else.\n",
     CTL_OPTION_CLUSTER, 0, 0, ctl_cmd_verify},
    {"checkpoint", "DIR", "Make a copy of a node's store, by links",
     "DIR is an absolute path on the machine of the node that --node names (needed); its parent must be there and DIR "
     "not. "
     "All\n"
     "that the node had applied is in it. It costs no space until tables are replaced, if DIR is on the same file "
     "system. "
     "The\n"
     "copy can be checked with `holdfast-dump verify DIR`.\n",
     0, 1, 1, ctl_cmd_checkpoint},
    {"version", "", "Print the version", "", 0, 0, 0, ctl_cmd_version},
    {"help", "[COMMAND]", "Say how to use it", "", 0, 0, 1, ctl_cmd_help},
};

const size_t CTL_COMMAND_COUNT = sizeof CTL_COMMANDS / sizeof CTL_COMMANDS[0];

const struct ctl_command *ctl_find_command(const char *name) {
    for (size_t i = 0; i < CTL_COMMAND_COUNT; i++) {
        if (strcmp(CTL_COMMANDS[i].name, name) == 0) {
            return &CTL_COMMANDS[i];
        }
    }
    return NULL;
}

enum ctl_exit ctl_cmd_version(struct ctl *ctl, int argc, char **argv) {
    (void)argc, (void)argv;
    (void)fprintf(ctl->io->out, ctl->options.json ? "{\"version\":\"%s\"}\n" : "holdfastctl %s\n", holdfast_version());
    return ctl_finish_output(ctl);
}

/* In JSON the same text: {"help":"..."}. */
static enum ctl_exit give_help(struct ctl *ctl, const struct ctl_command *command) {
    if (!ctl->options.json) {
        ctl_print_help(ctl->io->out, command);
        return ctl_finish_output(ctl);
    }
    char *bytes = NULL;
    size_t len = 0;
    FILE *text = open_memstream(&bytes, &len);
    bool is_there = text != NULL;
    if (is_there) {
        ctl_print_help(text, command);
        is_there = fclose(text) == 0;
    }
    json_t *root = is_there ? json_pack("{s:s%}", "help", bytes, len) : NULL;
    free(bytes);
    if (root == NULL) {
        return ctl_fail(ctl, CTL_FAILED, "out of memory");
    }
    (void)json_dumpf(root, ctl->io->out, JSON_COMPACT);
    (void)fputc('\n', ctl->io->out);
    json_decref(root);
    return ctl_finish_output(ctl);
}

enum ctl_exit ctl_cmd_help(struct ctl *ctl, int argc, char **argv) {
    const struct ctl_command *command = argc > 0 ? ctl_find_command(argv[0]) : NULL;
    if (argc > 0 && command == NULL) {
        return ctl_usage(ctl, "unknown command \"%s\"", argv[0]);
    }
    return give_help(ctl, command);
}

enum ctl_exit ctl_run(int argc, char **argv, const struct ctl_io *io) {
    struct ctl ctl = {.io = io, .alloc = alloc_system(), .options = {.in_flight = 64, .give_up_s = 60}};
    int first = 0;
    enum ctl_exit code = CTL_USAGE;
    if (!ctl_parse_arguments(&ctl, argc, argv, &first)) {
        return code;
    }
    if (ctl.options.help) {
        return give_help(&ctl, ctl.command);
    }
    code = ctl.command->run(&ctl, argc - first, argv + first);
    ctl_disconnect(&ctl);
    return code;
}
