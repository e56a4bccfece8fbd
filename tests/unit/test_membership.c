/*
 * What a node keeps of its membership, and who is who by it. Breaks when: bytes of a membership lose its index or an
 * address; what is cut or damaged is taken; a node that was told to join votes for itself; the membership is believed
 * against the configuration file, or not at all; a certificate of zeroes is somebody.
 */
#include "tests/unit/support/support.h"

#include "node/server/identity.h"
#include "node/server/membership.h"
#include "node/server/raft_wire.h"

#include <stdio.h>
#include <string.h>

static void fill_file(struct config *config, uint32_t member_count) {
    config_init(config, alloc_system());
    for (uint32_t i = 0; i < member_count; i++) {
        struct config_member *member = &config->members[config->member_count++];
        member->id = i + 1;
        (void)snprintf(member->name, sizeof member->name, "n%u", i + 1);
        (void)snprintf(member->peer_address, sizeof member->peer_address, "host%u:4500", i + 1);
        (void)snprintf(member->client_address, sizeof member->client_address, "host%u:4400", i + 1);
        memset(member->thumbprint, (int)i + 1, sizeof member->thumbprint);
    }
    config->id = 1;
}

static void test_membership_bootstrap_is_complete_and_its_bytes_come_back(void **state) {
    (void)state;
    struct config config;
    struct membership membership;
    struct membership back;
    uint8_t bytes[MEMBERSHIP_BYTES_MAX];
    fill_file(&config, LIMIT_MEMBERS);
    membership_bootstrap(&config, &membership);
    assert_int_equal(membership.index, 0);
    assert_int_equal(membership.config.member_count, LIMIT_MEMBERS);
    membership.index = 77;
    size_t len = membership_encode(&membership, bytes);
    assert_int_equal(membership_decode(slice_of(bytes, len), &back, NULL), STATUS_OK);
    assert_int_equal(back.index, 77);
    const struct raft_member *member = &back.config.members[LIMIT_MEMBERS - 1];
    assert_int_equal(member->id, LIMIT_MEMBERS);
    assert_int_equal(member->role, RAFT_VOTER);
    assert_string_equal(member->name, "n9");
    assert_string_equal(member->address, "host9:4500");
    assert_string_equal(member->client_address, "host9:4400");
    assert_memory_equal(member->thumbprint, config.members[LIMIT_MEMBERS - 1].thumbprint, ENV_THUMBPRINT_BYTES);
}

static void test_membership_of_a_joining_node_is_empty_and_stays_so(void **state) {
    (void)state;
    struct config config;
    struct membership membership;
    struct membership back = {.index = 5};
    uint8_t bytes[MEMBERSHIP_BYTES_MAX];
    fill_file(&config, 3);
    config.join = true;
    membership_bootstrap(&config, &membership);
    size_t len = membership_encode(&membership, bytes);
    assert_true(len > 0); /* that it has none is remembered */
    assert_int_equal(membership_decode(slice_of(bytes, len), &back, NULL), STATUS_OK);
    assert_int_equal(back.index, 0);
    assert_int_equal(back.config.member_count, 0);
}

static void test_h35_membership_cut_is_refused(void **state) {
    (void)state;
    struct config config;
    struct membership membership;
    struct membership back = {.index = 5};
    uint8_t bytes[MEMBERSHIP_BYTES_MAX];
    struct error err;
    fill_file(&config, 3);
    membership_bootstrap(&config, &membership);
    membership.index = 3;
    size_t len = membership_encode(&membership, bytes);
    for (size_t cut = 0; cut < len; cut++) {
        assert_int_equal(membership_decode(slice_of(bytes, cut), &back, &err), STATUS_CORRUPT);
    }
    assert_int_equal(back.index, 5);
}

/* ---- The directory ------------------------------------------------------------------------------------------------
 */

static struct raft_member stranger(uint64_t id) {
    struct raft_member member = {.id = id, .name = "late", .address = "late:4500", .client_address = "late:4400"};
    memset(member.thumbprint, 0x99, sizeof member.thumbprint);
    return member;
}

static void test_directory_file_goes_before_membership(void **state) {
    (void)state;
    struct config config;
    struct directory_entry entry;
    fill_file(&config, 2);
    struct raft_member member = stranger(2);
    directory_merge(&config, &member, &entry);
    assert_string_equal(entry.name, "n2");
    assert_string_equal(entry.peer_address, "host2:4500");
    assert_int_equal(entry.thumbprint[0], 2);
    member.id = 7;
    directory_merge(&config, &member, &entry);
    assert_int_equal(entry.id, 7);
    assert_string_equal(entry.name, "late");
    assert_string_equal(entry.peer_address, "late:4500");
    assert_string_equal(entry.client_address, "late:4400");
    assert_int_equal(entry.thumbprint[31], 0x99);
}

static void test_directory_finds_by_id_and_by_certificate(void **state) {
    (void)state;
    static struct directory directory;
    struct config config;
    struct directory_entries entries = {.count = 0};
    struct directory_entry entry;
    const uint8_t zero[ENV_THUMBPRINT_BYTES] = {0};
    fill_file(&config, 2);
    assert_false(directory_find(&directory, 7, &entry));
    const struct raft_member member = stranger(7);
    directory_merge(&config, &member, &entries.entries[entries.count++]);
    entries.entries[entries.count++] = (struct directory_entry){.id = 8}; /* its certificate isn't known */
    directory_set(&directory, &entries);
    assert_true(directory_find(&directory, 7, &entry));
    assert_string_equal(entry.client_address, "late:4400");
    assert_true(directory_find_thumbprint(&directory, member.thumbprint, &entry));
    assert_int_equal(entry.id, 7);
    assert_false(directory_find_thumbprint(&directory, zero, &entry));
    assert_false(directory_find(&directory, RAFT_NO_NODE, &entry));
    assert_true(directory_look_up(&directory, &config, 7, &entry)); /* no file names it */
    assert_string_equal(entry.name, "late");
    assert_true(directory_look_up(&directory, &config, 2, &entry)); /* by the file alone */
    assert_string_equal(entry.name, "n2");
    assert_false(directory_look_up(&directory, &config, 3, &entry));
    assert_string_equal(entry.name, "n2"); /* who isn't found changes nothing */
    entries.count = 0;
    directory_set(&directory, &entries);
    assert_false(directory_find(&directory, 7, &entry));
}

static void test_identity_member_by_membership_is_a_peer_until_it_is_gone(void **state) {
    (void)state;
    static struct directory directory;
    struct config config;
    struct directory_entries entries = {.count = 0};
    struct identity identity;
    char message[ERROR_MESSAGE_BYTES_MAX];
    fill_file(&config, 2);
    const struct raft_member member = stranger(7);
    struct env_peer peer = {.certificate = ENV_CERTIFICATE_VALID};
    memcpy(peer.thumbprint, member.thumbprint, sizeof peer.thumbprint);
    assert_int_equal(identity_check(&config, &directory, &peer, &identity, message, sizeof message),
                     WIRE_CERTIFICATE_UNKNOWN);
    directory_merge(&config, &member, &entries.entries[entries.count++]);
    directory_set(&directory, &entries);
    assert_int_equal(identity_check(&config, &directory, &peer, &identity, message, sizeof message), WIRE_OK);
    assert_true(identity_is_peer(&identity));
    assert_int_equal(identity.node_id, 7);
    assert_string_equal(identity.name, "late");
    peer.certificate = ENV_CERTIFICATE_EXPIRED;
    assert_int_equal(identity_check(&config, &directory, &peer, &identity, message, sizeof message),
                     WIRE_CERTIFICATE_EXPIRED);
    peer.certificate = ENV_CERTIFICATE_VALID;
    entries.count = 0;
    directory_set(&directory, &entries);
    assert_int_equal(identity_check(&config, &directory, &peer, &identity, message, sizeof message),
                     WIRE_CERTIFICATE_UNKNOWN);
}

/* ---- The wire -----------------------------------------------------------------------------------------------------
 */

static void test_raft_wire_reads_and_transfers_keep_every_field(void **state) {
    (void)state;
    const struct raft_message messages[] = {
        {.type = RAFT_TIMEOUT_NOW, .from = 1, .to = 2, .term = 9},
        {.type = RAFT_READ_INDEX, .from = 2, .to = 1, .term = 9, .round = 4, .hint_index = UINT64_MAX / 3},
        {.type = RAFT_READ_INDEX_REPLY, .from = 1, .to = 2, .term = 9, .index = 8, .round = 4, .hint_index = 5},
    };
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        Wire__RaftMessage wire;
        struct raft_message back;
        raft_wire_encode(&messages[i], &wire);
        assert_int_equal(raft_wire_decode(&wire, &back, NULL), STATUS_OK);
        assert_int_equal(back.type, messages[i].type);
        assert_int_equal(back.from, messages[i].from);
        assert_int_equal(back.to, messages[i].to);
        assert_int_equal(back.term, messages[i].term);
        assert_int_equal(back.index, messages[i].index);
        assert_int_equal(back.round, messages[i].round);
        assert_int_equal(back.hint_index, messages[i].hint_index);
        wire.has_entry_count = 1;
        wire.entry_count = 1;
        assert_int_equal(raft_wire_decode(&wire, &back, NULL), STATUS_CORRUPT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_membership_bootstrap_is_complete_and_its_bytes_come_back),
        cmocka_unit_test(test_membership_of_a_joining_node_is_empty_and_stays_so),
        cmocka_unit_test(test_h35_membership_cut_is_refused),
        cmocka_unit_test(test_directory_file_goes_before_membership),
        cmocka_unit_test(test_directory_finds_by_id_and_by_certificate),
        cmocka_unit_test(test_identity_member_by_membership_is_a_peer_until_it_is_gone),
        cmocka_unit_test(test_raft_wire_reads_and_transfers_keep_every_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
