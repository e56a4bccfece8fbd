/*
 * The configuration file. What would break: a typo in a key that is silently ignored, a value that inih cut in two, a
 * cluster of which two members share an id or a certificate, a default that is not what the documentation says.
 */
#include "tests/unit/support/support.h"

#include "node/server/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define T1 "1111111111111111111111111111111111111111111111111111111111111111"
#define T2 "2222222222222222222222222222222222222222222222222222222222222222"
#define T3 "3333333333333333333333333333333333333333333333333333333333333333"

/* A sound file in pieces, so that a test can put something wrong between them. */
#define NODE     "[node]\nname = n1\ncluster = 00112233445566778899AAbbccddEeff\ndata = data\n"
#define TLS      "[tls]\nca = ca.crt\ncert = n1.crt\nkey = /keys/n1.key\n"
#define MEMBER_1 "[member n1]\nid = 1\npeer = 127.0.0.1:4501\nclient = 127.0.0.1:4401\nthumbprint = " T1 "\n"
#define MEMBER_2 "[member n2]\nid = 2\npeer = node-2.example:4502\nclient = [::1]:4402\nthumbprint = " T2 "\n"
#define IDENTITY "[identity ops]\nthumbprint = " T3 "\nrole = admin\n"
#define ALL      NODE TLS MEMBER_1 MEMBER_2 IDENTITY

struct fixture {
    struct test_alloc alloc;
    char *dir;
    struct config config;
    struct error error;
};

static int set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    test_alloc_init(&fixture->alloc);
    fixture->dir = test_dir_new();
    *state = fixture;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(atomic_load(&fixture->alloc.live_blocks), 0);
    test_dir_remove(fixture->dir);
    free(fixture);
    return 0;
}

static void put_file(struct fixture *fixture, const char *text, size_t len) {
    FILE *file = fopen(test_path(fixture->dir, "x.conf"), "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static enum status load(struct fixture *fixture, const char *text) {
    put_file(fixture, text, strlen(text));
    error_clear(&fixture->error);
    config_init(&fixture->config, &fixture->alloc.base);
    return config_load(&fixture->config, test_path(fixture->dir, "x.conf"), &fixture->error);
}

/* The text is refused at that line, with these words. */
static void assert_refused(struct fixture *fixture, const char *text, unsigned line, const char *words) {
    char place[32];
    enum status status = load(fixture, text);
    if (status == STATUS_OK || strstr(fixture->error.message, words) == NULL) {
        print_error("message: %s\nwanted: %s\n", status == STATUS_OK ? "(none)" : fixture->error.message, words);
    }
    assert_int_equal(status, STATUS_INVALID);
    assert_int_equal(fixture->error.code, STATUS_INVALID);
    assert_non_null(strstr(fixture->error.message, words));
    (void)snprintf(place, sizeof place, line == 0 ? "x.conf: " : "x.conf:%u: ", line);
    if (strstr(fixture->error.message, place) == NULL) {
        print_error("message: %s\nwanted: %s\n", fixture->error.message, place);
    }
    assert_non_null(strstr(fixture->error.message, place));
    assert_null(strchr(fixture->error.message, '\n'));
    config_deinit(&fixture->config);
}

static void test_config_sound_file_is_taken(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(load(fixture, ALL), STATUS_OK);
    const struct config *config = &fixture->config;
    assert_string_equal(config->name, "n1");
    assert_int_equal(config->id, 1);
    assert_int_equal(config->cluster_id[0], 0x00);
    assert_int_equal(config->cluster_id[10], 0xaa);
    assert_int_equal(config->cluster_id[14], 0xee);
    assert_int_equal(config->cluster_id[15], 0xff);
    assert_string_equal(config->data_dir, test_path(fixture->dir, "data"));
    assert_string_equal(config->ca_file, test_path(fixture->dir, "ca.crt"));
    assert_string_equal(config->key_file, "/keys/n1.key");
    assert_string_equal(config->client_listen, "127.0.0.1:4401");
    assert_string_equal(config->peer_listen, "127.0.0.1:4501");
    assert_int_equal(config->member_count, 2);
    assert_string_equal(config->members[1].name, "n2");
    assert_string_equal(config->members[1].client_address, "[::1]:4402");
    assert_int_equal(config->members[1].thumbprint[31], 0x22);
    assert_int_equal(config->identity_count, 1);
    assert_string_equal(config->identities[0].name, "ops");
    assert_int_equal(config->identities[0].role, CONFIG_ROLE_ADMIN);
    assert_ptr_equal(config_member_by_id(config, 2), &config->members[1]);
    assert_null(config_member_by_id(config, 3));
    config_deinit(&fixture->config);
}

static void test_config_absent_keys_have_documented_defaults(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(load(fixture, ALL), STATUS_OK);
    const struct config *config = &fixture->config;
    assert_true(config->io_threads_auto);
    assert_int_equal(config->io_threads, 0);
    assert_false(config->fault_injection);
    assert_true(config->use_ring);
    assert_string_equal(config->log_file, "");
    assert_int_equal(config->log_level, LOG_INFO);
    assert_int_equal(config->election_timeout_ms, 150);
    assert_int_equal(config->heartbeat_ms, 30);
    assert_true(config->snapshot_rate == 64 * MIB);
    assert_int_equal(config->stall_limit_ms, 350);
    assert_int_equal(config->segment_bytes, 72 * MIB);
    assert_int_equal(config->memtable_bytes, 64 * MIB);
    assert_int_equal(config->wal_cache_bytes, 32 * MIB);
    assert_int_equal(config->cache_bytes, 64 * MIB);
    assert_int_equal(config->open_files_max, 512);
    assert_int_equal(config->value_threshold_bytes, 32 * 1024);
    assert_int_equal(config->compaction_rate, 0);
    assert_int_equal(config->scrub_rate, MIB);
    assert_true(config->follower_log_bytes == 16384ull * MIB);
    assert_int_equal(config->history_revisions, 1000 * 1000);
    assert_true(config->change_files);
    assert_true(config->heal);
    assert_int_equal(config->restart_budget_s, 10);
    assert_int_equal(config->scan_digest_interval_s, 86400);
    assert_int_equal(config->scan_digest_rate, 32 * 1024 * 1024);
    assert_int_equal(config->client_connections_max, 4096);
    assert_int_equal(config->requests_per_connection_max, 1024);
    assert_int_equal(config->proposal_bytes_max, 64 * MIB);
    assert_int_equal(config->idle_timeout_ms, 600 * 1000);
    config_deinit(&fixture->config);
}

static void test_config_every_optional_key_is_read(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(load(fixture,
                          NODE "client_listen = 0.0.0.0:0\npeer_listen = 0.0.0.0:0\nio_threads = 3\n"
                               "fault_injection = on\nio_uring = off\n"
                               "[log]\nfile = log/x\nlevel = debug ; as it is\n"
                               "[raft]\nelection_timeout_ms = 1000\nheartbeat_ms = 333\nstall_limit_ms = 5000\n"
                               "scan_digest_interval = 7\n"
                               "snapshot_bytes_per_second = 5 MiB\n"
                               "[storage]\nsegment_bytes = 80MiB\nmemtable_bytes = 1048576\nwal_cache_bytes = 2 GiB\n"
                               "cache_bytes = 0\nopen_files_max = 16\nvalue_threshold = 64 KiB\n"
                               "follower_log_bytes = 5 GiB\n"
                               "compaction_bytes_per_second = 3 MiB\nscrub_bytes_per_second = 0\nhistory = 5\n"
                               "change_files = off\nrestart_budget = 77\nheal = off\n"
                               "scan_digest_bytes_per_second = 5 MiB\n"
                               "[limits]\nclient_connections_max = 7\nrequests_per_connection_max = 8\n"
                               "proposal_bytes_max = 33792 KiB\nidle_timeout_ms = 0\n" TLS MEMBER_1),
                     STATUS_OK);
    const struct config *config = &fixture->config;
    assert_string_equal(config->client_listen, "0.0.0.0:0");
    assert_false(config->io_threads_auto);
    assert_int_equal(config->io_threads, 3);
    assert_true(config->fault_injection);
    assert_false(config->use_ring);
    assert_string_equal(config->log_file, test_path(fixture->dir, "log/x"));
    assert_int_equal(config->log_level, LOG_DEBUG);
    assert_int_equal(config->election_timeout_ms, 1000);
    assert_int_equal(config->heartbeat_ms, 333);
    assert_true(config->snapshot_rate == 5 * MIB);
    assert_int_equal(config->stall_limit_ms, 5000);
    assert_int_equal(config->segment_bytes, 80 * MIB);
    assert_int_equal(config->memtable_bytes, 1 * MIB);
    assert_int_equal(config->wal_cache_bytes, 2048ull * MIB);
    assert_int_equal(config->cache_bytes, 0);
    assert_int_equal(config->open_files_max, 16);
    assert_int_equal(config->value_threshold_bytes, 64 * 1024);
    assert_int_equal(config->compaction_rate, 3 * MIB);
    assert_int_equal(config->scrub_rate, 0);
    assert_true(config->follower_log_bytes == 5120ull * MIB);
    assert_int_equal(config->history_revisions, 5);
    assert_false(config->change_files);
    assert_false(config->heal);
    assert_int_equal(config->restart_budget_s, 77);
    assert_int_equal(config->scan_digest_interval_s, 7);
    assert_int_equal(config->scan_digest_rate, 5 * 1024 * 1024);
    assert_int_equal(config->client_connections_max, 7);
    assert_int_equal(config->requests_per_connection_max, 8);
    assert_int_equal(config->proposal_bytes_max, 33 * MIB);
    assert_int_equal(config->idle_timeout_ms, 0);
    config_deinit(&fixture->config);
}

static void test_config_unknown_names_are_refused(void **state) {
    struct fixture *fixture = *state;
    assert_refused(fixture, NODE "frobnicate = 1\n" TLS MEMBER_1, 5, "unknown key frobnicate in section [node]");
    assert_refused(fixture, "[nodes]\n" ALL, 1, "unknown section [nodes]");
    assert_refused(fixture, "name = n1\n" ALL, 1, "before the first [section]");
    assert_refused(fixture, ALL "[member]\n", 22, "[member NAME]");
    assert_refused(fixture, ALL "[log x]\n", 22, "takes no name");
    assert_refused(fixture, ALL "[empty\n", 22, "not a section");
    assert_refused(fixture, ALL "[]\n", 22, "not a section");
    assert_refused(fixture, ALL "[log] junk\n", 22, "not a section");
    assert_refused(fixture, ALL "[identity a/b]\n", 22, "is not a name");
}

static void test_config_duplicates_are_refused(void **state) {
    struct fixture *fixture = *state;
    assert_refused(fixture, NODE "name = n1\n" TLS MEMBER_1, 5, "name is given twice, first in line 2");
    assert_refused(fixture, ALL TLS, 22, "section [tls] occurs twice");
    assert_refused(fixture, ALL MEMBER_1, 22, "section [member n1] occurs twice");
    assert_refused(fixture, ALL IDENTITY, 22, "section [identity ops] occurs twice");
}

/* What inih would split, join or cut. */
static void test_config_lines_that_inih_misreads_are_refused(void **state) {
    struct fixture *fixture = *state;
    char longest[512];
    assert_refused(fixture, NODE "  continued\n" TLS MEMBER_1, 5, "begins with a blank");
    assert_refused(fixture, NODE "\tio_threads = 1\n" TLS MEMBER_1, 5, "begins with a blank");
    assert_refused(fixture, NODE "io_threads 1\n" TLS MEMBER_1, 5, "expected `key = value`");
    assert_refused(fixture, NODE "io_threads: 1\n" TLS MEMBER_1, 5, "expected `key = value`");
    assert_refused(fixture, ALL "cut", 22, "expected `key = value`"); /* the file ends here */
    assert_refused(fixture, ALL "cut  ", 22, "expected `key = value`");
    assert_refused(fixture, NODE "io_threads = 1\rx\n" TLS MEMBER_1, 5, "control character");
    (void)snprintf(longest, sizeof longest, "%s# %0220d\n%s", NODE, 0, TLS MEMBER_1);
    assert_refused(fixture, longest, 5, "longer than");
    (void)snprintf(longest, sizeof longest, "%s[member %060d]\n", NODE, 0);
    assert_refused(fixture, longest, 5, "too long");
    put_file(fixture, NODE "io_threads = 1\0\n" TLS MEMBER_1, sizeof(NODE "io_threads = 1\0\n" TLS MEMBER_1) - 1);
    config_init(&fixture->config, &fixture->alloc.base);
    assert_int_equal(config_load(&fixture->config, test_path(fixture->dir, "x.conf"), &fixture->error), STATUS_INVALID);
    assert_non_null(strstr(fixture->error.message, "control character"));
    config_deinit(&fixture->config);
}

static void test_config_harmless_lines_are_taken(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(load(fixture, "\xef\xbb\xbf# comment\n\n   \n  ; indented comment\r\n" NODE "\r\n" TLS MEMBER_1
                                   "# no newline at the end"),
                     STATUS_OK);
    config_deinit(&fixture->config);
    /* The longest line that there may be: 197 characters. */
    char text[1024];
    (void)snprintf(text, sizeof text, "%s# %0195d\n%s", NODE, 0, TLS MEMBER_1);
    assert_int_equal(load(fixture, text), STATUS_OK);
    config_deinit(&fixture->config);
}

static void test_config_wrong_values_are_refused(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *section;
        const char *line;
        const char *words;
    } cases[] = {
        {"", "io_threads = many", "io_threads = many is neither auto nor a number from 0 to 64"},
        {"", "io_threads = 65", "neither auto nor a number"},
        {"", "fault_injection = yes", "neither on nor off"},
        {"", "client_listen = here", "is not an address"},
        {"", "client_listen = :4400", "is not an address"},
        {"", "client_listen = a b:1", "is not an address"},
        {"", "client_listen = ::1:4400", "is not an address"},
        {"", "client_listen = a:65536", "is not an address"},
        {"", "client_listen = a:-1", "is not an address"},
        {"", "client_listen = a:", "is not an address"},
        {"[log]\n", "level = loud", "not one of debug, info, warn, error"},
        {"[raft]\n", "heartbeat_ms = 0", "is not a number from 1 to"},
        {"[raft]\n", "heartbeat_ms = 18446744073709551617", "is not a number"},
        {"[raft]\n", "heartbeat_ms = 5x", "is not a number"},
        {"[raft]\n", "heartbeat_ms = -5", "is not a number"},
        {"[raft]\n", "heartbeat_ms =", "is not a number"},
        {"[storage]\n", "memtable_bytes = 1 TiB", "is not a size"},
        {"[storage]\n", "memtable_bytes = 18446744073709551615 KiB", "is not a size"},
        {"[storage]\n", "memtable_bytes = 1 KiB", "is not a size from 1024 KiB to 67108864 KiB"},
        {"[limits]\n", "proposal_bytes_max = 1 MiB", "is not a size"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[2048];
        (void)snprintf(text, sizeof text, "%s%s%s\n%s", NODE, cases[i].section, cases[i].line, TLS MEMBER_1);
        assert_refused(fixture, text, cases[i].section[0] == '\0' ? 5 : 6, cases[i].words);
    }
    assert_refused(fixture, "[node]\nname = n1\ncluster = 0011\n", 3, "is not 32 hex digits");
    assert_refused(fixture, "[node]\nname = n 1\n", 2, "is not a name");
    assert_refused(fixture, "[node]\ndata =\n", 2, "is empty");
    assert_refused(fixture, ALL "[identity x]\nrole = peer\n", 23, "not one of read, write, admin");
    assert_refused(fixture, ALL "[identity x]\nthumbprint = 12:34\n", 23, "is not 64 hex digits");
    assert_refused(fixture, ALL "[member x]\nid = 0\n", 23, "is not a number from 1 to 9223372036854775808");
    assert_refused(fixture, ALL "[member x]\npeer = 127.0.0.1:0\n", 23, "is not an address");
}

static void test_config_missing_parts_are_named(void **state) {
    struct fixture *fixture = *state;
    assert_refused(fixture, "", 0, "section [node] is missing");
    assert_refused(fixture, TLS MEMBER_1, 0, "section [node] is missing");
    assert_refused(fixture, NODE MEMBER_1, 0, "section [tls] is missing");
    assert_refused(fixture, NODE TLS, 0, "no [member NAME] section");
    assert_refused(fixture, "[node]\nname = n1\n" TLS, 1, "section [node] lacks the key cluster");
    assert_refused(fixture, NODE "[tls]\nca = x\ncert = y\n", 5, "section [tls] lacks the key key");
    assert_refused(fixture, ALL "[identity x]\nrole = read\n", 22, "lacks the key thumbprint");
}

static void test_config_contradictions_are_named(void **state) {
    struct fixture *fixture = *state;
    assert_refused(fixture, NODE TLS MEMBER_2, 2, "name = n1, but there is no section [member n1]");
    assert_refused(fixture, ALL "[member n3]\nid = 2\npeer = a:1\nclient = a:2\nthumbprint = " T3 "\n", 23,
                   "members n2 and n3 have the same id 2");
    assert_refused(fixture, ALL "[member n3]\nid = 3\npeer = 127.0.0.1:4501\nclient = a:2\nthumbprint = " T3 "\n", 24,
                   "members n1 and n3 have the same address 127.0.0.1:4501");
    assert_refused(fixture, ALL "[member n3]\nid = 3\npeer = 127.0.0.1:4401\nclient = a:2\nthumbprint = " T3 "\n", 24,
                   "members n1 and n3 have the same address 127.0.0.1:4401");
    assert_refused(fixture, ALL "[member n3]\nid = 3\npeer = a:2\nclient = a:2\nthumbprint = " T3 "\n", 25,
                   "member n3 has the same address for peers and clients");
    assert_refused(fixture, ALL "[identity two]\nrole = read\nthumbprint = " T3 "\n", 24,
                   "two has the same thumbprint as ops in line 20");
    assert_refused(fixture, ALL "[identity two]\nrole = read\nthumbprint = " T1 "\n", 24,
                   "two has the same thumbprint as n1 in line 13");
    assert_refused(fixture,
                   ALL "[identity two]\nrole = read\nthumbprint = "
                       "0000000000000000000000000000000000000000000000000000000000000000\n",
                   24, "all zeroes");
    assert_refused(fixture, NODE "[raft]\nheartbeat_ms = 51\n" TLS MEMBER_1, 6,
                   "election_timeout_ms = 150 is less than 3 times heartbeat_ms = 51");
    assert_refused(fixture, NODE "[raft]\nelection_timeout_ms = 89\n" TLS MEMBER_1, 6, "less than 3 times");
    assert_refused(fixture, NODE "[storage]\nsegment_bytes = 64 MiB\n" TLS MEMBER_1, 6, "four of the largest entries");
    assert_refused(fixture, NODE "[storage]\nsegment_bytes = 83886081\n" TLS MEMBER_1, 6, "multiple of 4096");
    assert_refused(fixture, NODE "peer_listen = a:1\nclient_listen = a:1\n" TLS MEMBER_1, 5, "are the same address");
}

static void test_config_too_many_members_or_identities_are_refused(void **state) {
    struct fixture *fixture = *state;
    char *text = calloc(1, 64 * 1024);
    size_t len = (size_t)sprintf(text, "%s", NODE TLS);
    for (int i = 1; i <= LIMIT_MEMBERS + 1; i++) {
        len += (size_t)sprintf(text + len, "[member n%d]\nid = %d\npeer = a:%d\nclient = b:%d\nthumbprint = %064d\n", i,
                               i, i, i, i);
    }
    assert_refused(fixture, text, 8 + 5 * LIMIT_MEMBERS + 1, "more than 9 members");
    len = (size_t)sprintf(text, "%s", NODE TLS MEMBER_1);
    for (int i = 1; i <= CONFIG_IDENTITIES_MAX + 1; i++) {
        len += (size_t)sprintf(text + len, "[identity i%d]\nrole = read\nthumbprint = %064d\n", i, i);
    }
    assert_refused(fixture, text, 13 + 3 * CONFIG_IDENTITIES_MAX + 1, "more than 256 identities");
    free(text);
}

static void test_config_file_that_is_not_there_is_named(void **state) {
    struct fixture *fixture = *state;
    config_init(&fixture->config, &fixture->alloc.base);
    enum status status = config_load(&fixture->config, test_path(fixture->dir, "none.conf"), &fixture->error);
    assert_int_equal(status, STATUS_NOT_FOUND);
    assert_non_null(strstr(fixture->error.message, "none.conf"));
    status = config_load(&fixture->config, fixture->dir, &fixture->error);
    assert_int_not_equal(status, STATUS_OK);
    config_deinit(&fixture->config);
}

static void test_config_each_failed_allocation_is_an_error(void **state) {
    struct fixture *fixture = *state;
    put_file(fixture, ALL, strlen(ALL));
    enum status status = STATUS_NO_MEMORY;
    uint64_t n = 0;
    while (status != STATUS_OK) {
        test_alloc_fail(&fixture->alloc, ++n, false);
        config_init(&fixture->config, &fixture->alloc.base);
        status = config_load(&fixture->config, test_path(fixture->dir, "x.conf"), &fixture->error);
        config_deinit(&fixture->config);
        assert_int_equal(atomic_load(&fixture->alloc.live_blocks), 0);
        assert_in_range(n, 1, 20);
    }
    assert_true(n > 3);
}

static void test_config_auto_threads_leave_two_processors_alone(void **state) {
    (void)state;
    assert_int_equal(config_auto_io_threads(1), 0);
    assert_int_equal(config_auto_io_threads(2), 0);
    assert_int_equal(config_auto_io_threads(3), 1);
    assert_int_equal(config_auto_io_threads(16), 8);
    assert_int_equal(config_auto_io_threads(1000), 64);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_config_sound_file_is_taken),
        TEST(test_config_absent_keys_have_documented_defaults),
        TEST(test_config_every_optional_key_is_read),
        TEST(test_config_unknown_names_are_refused),
        TEST(test_config_duplicates_are_refused),
        TEST(test_config_lines_that_inih_misreads_are_refused),
        TEST(test_config_harmless_lines_are_taken),
        TEST(test_config_wrong_values_are_refused),
        TEST(test_config_missing_parts_are_named),
        TEST(test_config_contradictions_are_named),
        TEST(test_config_too_many_members_or_identities_are_refused),
        TEST(test_config_file_that_is_not_there_is_named),
        TEST(test_config_each_failed_allocation_is_an_error),
        TEST(test_config_auto_threads_leave_two_processors_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
