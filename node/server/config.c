/*
 * The configuration's defaults, its look-ups, and the table of the keys that there are.
 *
 * A new key is a field in config.h, a row here, a default in config_init, and a paragraph in
 * deploy/holdfast.conf.example.
 */
#include "node/server/config_internal.h"

#include "node/base/check.h"

#include <stddef.h>

#define FIELD(name)            offsetof(struct config, name), .max = sizeof(((struct config *)0)->name)
#define MEMBER_FIELD(name)     offsetof(struct config_member, name), .max = sizeof(((struct config_member *)0)->name)
#define IDENTITY_FIELD(name)   offsetof(struct config_identity, name), .max = sizeof(((struct config_identity *)0)->name)
#define RANGE(name, low, high) offsetof(struct config, name), .min = (low), .max = (high)

enum {
    DEFAULT_ELECTION_TIMEOUT_MS = 150,
    DEFAULT_HEARTBEAT_MS = 30,
    DEFAULT_STALL_LIMIT_MS = 350,
    DEFAULT_SCAN_DIGEST_INTERVAL_S = 86400,
    DEFAULT_CONNECTIONS = 4096,
    DEFAULT_REQUESTS = 1024,
    DEFAULT_IDLE_TIMEOUT_MS = 600000,
    DEFAULT_OPEN_FILES = 512,
    DEFAULT_HISTORY = 1000000,
    DEFAULT_RESTART_BUDGET_S = 10,
    IO_THREADS_MAX = 64
};

#define MIB_BYTES(count) (UINT64_C(1048576) * (count))

#define SIZE_MAX_BYTES MIB_BYTES(65536)

static const struct config_key node_keys[] = {
    {"name", config__parse_name, FIELD(name), .required = true},
    {"cluster", config__parse_hex, FIELD(cluster_id), .required = true},
    {"data", config__parse_path, FIELD(data_dir), .required = true},
    {"client_listen", config__parse_address, FIELD(client_listen)},
    {"peer_listen", config__parse_address, FIELD(peer_listen)},
    {"io_threads", config__parse_threads, .max = IO_THREADS_MAX},
    {"fault_injection", config__parse_switch, FIELD(fault_injection)},
    {"io_uring", config__parse_switch, FIELD(use_ring)},
};

static const struct config_key log_keys[] = {
    {"file", config__parse_path_or_none, FIELD(log_file)},
    {"level", config__parse_level, FIELD(log_level)},
};

static const struct config_key tls_keys[] = {
    {"ca", config__parse_path, FIELD(ca_file), .required = true},
    {"cert", config__parse_path, FIELD(cert_file), .required = true},
    {"key", config__parse_path, FIELD(key_file), .required = true},
};

static const struct config_key raft_keys[] = {
    {"join", config__parse_switch, FIELD(join)},
    {"election_timeout_ms", config__parse_u32, RANGE(election_timeout_ms, 10, 60000)},
    {"heartbeat_ms", config__parse_u32, RANGE(heartbeat_ms, 1, 20000)},
    {"snapshot_bytes_per_second", config__parse_bytes_size, RANGE(snapshot_rate, 0, SIZE_MAX_BYTES)},
    {"stall_limit_ms", config__parse_u32, RANGE(stall_limit_ms, 40, 600000)},
    {"scan_digest_interval", config__parse_u32, RANGE(scan_digest_interval_s, 0, 31536000)},
    {"rebuild_on_mismatch", config__parse_switch, FIELD(rebuild_on_mismatch)},
};

static const struct config_key storage_keys[] = {
    {"segment_bytes", config__parse_bytes_size, RANGE(segment_bytes, ENV_BLOCK_BYTES, SIZE_MAX_BYTES)},
    {"follower_log_bytes", config__parse_bytes_size, RANGE(follower_log_bytes, MIB_BYTES(1), SIZE_MAX_BYTES)},
    {"memtable_bytes", config__parse_bytes_size, RANGE(memtable_bytes, MIB_BYTES(1), SIZE_MAX_BYTES)},
    {"wal_cache_bytes", config__parse_bytes_size, RANGE(wal_cache_bytes, MIB_BYTES(1), SIZE_MAX_BYTES)},
    {"cache_bytes", config__parse_bytes_size, RANGE(cache_bytes, 0, SIZE_MAX_BYTES)},
    {"open_files_max", config__parse_u32, RANGE(open_files_max, 16, 1000000)},
    {"value_threshold", config__parse_bytes_size, RANGE(value_threshold_bytes, 0, LIMIT_VALUE_BYTES)},
    {"compaction_bytes_per_second", config__parse_bytes_size, RANGE(compaction_rate, 0, SIZE_MAX_BYTES)},
    {"scrub_bytes_per_second", config__parse_bytes_size, RANGE(scrub_rate, 0, MIB_BYTES(1024))},
    {"scan_digest_bytes_per_second", config__parse_bytes_size, RANGE(scan_digest_rate, 0, SIZE_MAX_BYTES)},
    {"history", config__parse_u64, RANGE(history_revisions, 1, UINT64_MAX)},
    {"change_files", config__parse_switch, FIELD(change_files)},
    {"heal", config__parse_switch, FIELD(heal)},
    {"restart_budget", config__parse_u32, RANGE(restart_budget_s, 1, 86400)},
};

static const struct config_key limits_keys[] = {
    {"client_connections_max", config__parse_u32, RANGE(client_connections_max, 1, 1000000)},
    {"requests_per_connection_max", config__parse_u32, RANGE(requests_per_connection_max, 1, 65536)},
    {"proposal_bytes_max", config__parse_bytes_size, RANGE(proposal_bytes_max, MIB_BYTES(33), SIZE_MAX_BYTES)},
    {"idle_timeout_ms", config__parse_u32, RANGE(idle_timeout_ms, 0, 604800000)},
};

static const struct config_key member_keys[] = {
    {"id", config__parse_u64, offsetof(struct config_member, id), .min = 1, .max = CONFIG_ID_MAX, .required = true},
    {"peer", config__parse_address, MEMBER_FIELD(peer_address), .min = 1, .required = true},
    {"client", config__parse_address, MEMBER_FIELD(client_address), .min = 1, .required = true},
    {"thumbprint", config__parse_hex, MEMBER_FIELD(thumbprint), .required = true},
};

static const struct config_key identity_keys[] = {
    {"thumbprint", config__parse_hex, IDENTITY_FIELD(thumbprint), .required = true},
    {"role", config__parse_role, IDENTITY_FIELD(role), .required = true},
};

#define KEYS(keys) (keys), sizeof(keys) / sizeof(keys)[0]

static const struct config_section sections[] = {
    {"node", false, KEYS(node_keys)},    {"log", false, KEYS(log_keys)},          {"tls", false, KEYS(tls_keys)},
    {"raft", false, KEYS(raft_keys)},    {"storage", false, KEYS(storage_keys)},  {"limits", false, KEYS(limits_keys)},
    {"member", true, KEYS(member_keys)}, {"identity", true, KEYS(identity_keys)},
};

static_assert(2 * LIMIT_ENTRY_PAYLOAD_BYTES <= 33 * MIB, "proposal_bytes_max lets two of the largest entries wait");
static_assert(sizeof node_keys / sizeof node_keys[0] <= CONFIG_SECTION_KEYS_MAX, "the largest section fits");
static_assert(sizeof sections / sizeof sections[0] + LIMIT_MEMBERS + CONFIG_IDENTITIES_MAX - 2 <= CONFIG_SECTIONS_MAX,
              "every section that may occur has a place");

const struct config_section *config__sections(uint32_t *ret_count) {
    *ret_count = sizeof sections / sizeof sections[0];
    return sections;
}

void config_init(struct config *config, struct alloc *alloc) {
    *config = (struct config){
        .use_ring = true,
        .log_level = LOG_INFO,
        .election_timeout_ms = DEFAULT_ELECTION_TIMEOUT_MS,
        .heartbeat_ms = DEFAULT_HEARTBEAT_MS,
        .snapshot_rate = MIB_BYTES(64),
        .stall_limit_ms = DEFAULT_STALL_LIMIT_MS,
        .scan_digest_interval_s = DEFAULT_SCAN_DIGEST_INTERVAL_S,
        .entry_bytes_max = LIMIT_ENTRY_PAYLOAD_BYTES,
        .segment_bytes = MIB_BYTES(72),
        .memtable_bytes = MIB_BYTES(64),
        .wal_cache_bytes = MIB_BYTES(32),
        .cache_bytes = MIB_BYTES(64),
        .open_files_max = DEFAULT_OPEN_FILES,
        .value_threshold_bytes = (uint64_t)32 * 1024,
        .follower_log_bytes = MIB_BYTES(16384),
        .scrub_rate = MIB_BYTES(1),
        .scan_digest_rate = MIB_BYTES(32),
        .history_revisions = DEFAULT_HISTORY,
        .change_files = true,
        .heal = true,
        .restart_budget_s = DEFAULT_RESTART_BUDGET_S,
        .client_connections_max = DEFAULT_CONNECTIONS,
        .requests_per_connection_max = DEFAULT_REQUESTS,
        .proposal_bytes_max = MIB_BYTES(64),
        .idle_timeout_ms = DEFAULT_IDLE_TIMEOUT_MS,
        .alloc = alloc,
    };
}

void config_deinit(struct config *config) {
    mem_free(config->alloc, config->identities);
    config->identities = NULL;
    config->identity_count = 0;
}

const struct config_member *config_member_by_id(const struct config *config, uint64_t id) {
    for (uint32_t i = 0; i < config->member_count; i++) {
        if (config->members[i].id == id) {
            return &config->members[i];
        }
    }
    return NULL;
}

const char *config_role_name(enum config_role role) {
    static const char *const names[] = {
        [CONFIG_ROLE_NONE] = "none",   [CONFIG_ROLE_READ] = "read", [CONFIG_ROLE_WRITE] = "write",
        [CONFIG_ROLE_ADMIN] = "admin", [CONFIG_ROLE_PEER] = "peer",
    };
    CHECK((unsigned)role < sizeof names / sizeof names[0]);
    return names[role];
}

uint32_t config_auto_io_threads(unsigned cpu_count) {
    unsigned threads = cpu_count <= 2 ? 0 : cpu_count / 2;
    return threads < IO_THREADS_MAX ? threads : IO_THREADS_MAX;
}
