/*
 * The configuration of a node: one INI file, read once at start. deploy/holdfast.conf.example explains every key.
 *
 * Unknown sections and keys, duplicate keys, and lines that inih would split are refused with file and line; so are
 * values that don't parse or are out of range, and files that contradict themselves (this node is no member, two
 * members with one id, ...).
 */
#ifndef HOLDFAST_SERVER_CONFIG_H
#define HOLDFAST_SERVER_CONFIG_H

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/base/status.h"
#include "node/env/env.h"

#define CONFIG_ID_MAX (UINT64_C(1) << 63) /* of a member */

enum { CONFIG_CLUSTER_ID_BYTES = 16, CONFIG_IDENTITIES_MAX = 256 };

enum config_role { CONFIG_ROLE_NONE, CONFIG_ROLE_READ, CONFIG_ROLE_WRITE, CONFIG_ROLE_ADMIN, CONFIG_ROLE_PEER };

/* [member NAME] */
struct config_member {
    char name[LIMIT_NAME_BYTES];
    uint64_t id;                              /* 1 to 2^63 */
    char peer_address[LIMIT_ADDRESS_BYTES];   /* where its peers reach it */
    char client_address[LIMIT_ADDRESS_BYTES]; /* where clients reach it */
    uint8_t thumbprint[ENV_THUMBPRINT_BYTES]; /* of its certificate */
};

/* [identity NAME] */
struct config_identity {
    char name[LIMIT_NAME_BYTES];
    uint8_t thumbprint[ENV_THUMBPRINT_BYTES];
    enum config_role role; /* READ, WRITE or ADMIN */
};

struct config {
    /* [node] */
    char name[LIMIT_NAME_BYTES];                 /* which member this is */
    uint64_t id;                                 /* from that member */
    uint8_t cluster_id[CONFIG_CLUSTER_ID_BYTES]; /* cluster = 32 hex digits */
    char data_dir[LIMIT_PATH_BYTES];             /* data = ... */
    char client_listen[LIMIT_ADDRESS_BYTES];
    char peer_listen[LIMIT_ADDRESS_BYTES];
    uint32_t io_threads;  /* io_threads = auto | 0..64 */
    bool io_threads_auto; /* then io_threads is 0 until main, who knows the CPUs, puts config_auto_io_threads there */
    bool fault_injection;
    bool use_ring; /* io_uring = on | off: for reads of files; syncs go by threads */
    /* [log] */
    char log_file[LIMIT_PATH_BYTES]; /* empty: stderr */
    enum log_level log_level;
    /* [tls] */
    char ca_file[LIMIT_PATH_BYTES];
    char cert_file[LIMIT_PATH_BYTES];
    char key_file[LIMIT_PATH_BYTES];
    /* [raft] */
    bool join; /* a new data directory waits for a leader to add this node; default off: the file's members found it */
    uint32_t election_timeout_ms;    /* default 150 */
    uint32_t heartbeat_ms;           /* default 30 */
    uint64_t snapshot_rate;          /* snapshot_bytes_per_second: default 64 MiB; 0: no limit */
    uint32_t stall_limit_ms;         /* of a leader's log write; default 350 */
    uint32_t scan_digest_interval_s; /* scan_digest_interval: default 86400; 0: only when asked for */
    bool rebuild_on_mismatch;        /* fill the store again when a leader finds that it differs from a majority's */
    /* [storage] */
    uint32_t
        entry_bytes_max; /* a log entry's payload: LIMIT_ENTRY_PAYLOAD_BYTES; not in the file, smaller in simulations */
    uint64_t segment_bytes;         /* default 72 MiB */
    uint64_t follower_log_bytes;    /* default 16 GiB */
    uint64_t memtable_bytes;        /* default 64 MiB */
    uint64_t wal_cache_bytes;       /* default 32 MiB */
    uint64_t cache_bytes;           /* blocks of tables; default 64 MiB */
    uint32_t open_files_max;        /* tables; default 512 */
    uint64_t value_threshold_bytes; /* value_threshold: default 32 KiB; 0: no value files */
    uint64_t compaction_rate;       /* compaction_bytes_per_second; default 0: no limit */
    uint64_t scrub_rate;            /* scrub_bytes_per_second; default 1 MiB; 0: no scrub */
    uint64_t scan_digest_rate;      /* scan_digest_bytes_per_second; default 32 MiB; 0: this node takes no part */
    uint64_t history_revisions;     /* history: default 1000000 */
    bool change_files;              /* default on */
    bool heal;                      /* a damaged store is filled again by the others; default on */
    uint32_t restart_budget_s;      /* restart_budget: default 10 */
    /* [limits] */
    uint32_t client_connections_max;      /* default 4096 */
    uint32_t requests_per_connection_max; /* in flight, default 1024 */
    uint64_t proposal_bytes_max;          /* waiting and uncommitted, default 64 MiB */
    uint32_t idle_timeout_ms;             /* client connections; default 600000; 0: never */

    uint32_t member_count;
    struct config_member members[LIMIT_MEMBERS];
    uint32_t identity_count;
    struct config_identity *identities; /* owned */
    struct alloc *alloc;
};

/* The defaults; no members. Borrows alloc. */
void config_init(struct config *config, struct alloc *alloc);
void config_deinit(struct config *config);
/* Reads and checks the file into a config that config_init made (blocks: start-up). Paths in it are relative to the
 * file's folder. On failure err has one line that names file, line and what is wrong, and config is good for
 * config_deinit only. */
MUST_USE enum status config_load(struct config *config, const char *path, struct error *err);
/* None up to two CPUs (clients share the consensus thread), else one for two CPUs. */
uint32_t config_auto_io_threads(unsigned cpu_count);
/* NULL if there is none. */
const struct config_member *config_member_by_id(const struct config *config, uint64_t id);
/* 1 to 63 letters, digits, '-', '_' or '.': what may name a node. */
bool config_is_name(const char *text);
/* "host:port" of fewer than LIMIT_ADDRESS_BYTES bytes, port 1 to 65535; an IPv6 address in brackets. */
bool config_is_address(const char *text);
const char *config_role_name(enum config_role role);

#endif
