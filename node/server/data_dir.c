/* Lock and identity of a data directory. */
#include "node/server/data_dir.h"

#include "node/base/bytes.h"
#include "node/base/check.h"
#include "node/base/checksum.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    IDENTITY_MAGIC = 0x44494648,
    IDENTITY_VERSION = 1,
    IDENTITY_BYTES = 4 + 4 + CONFIG_CLUSTER_ID_BYTES + 8 + 8,
    IDENTITY_BYTES_MAX = 4096, /* of any version */
    PATH_BYTES = LIMIT_PATH_BYTES + 32
};

static void encode(const struct config *config, uint8_t out[IDENTITY_BYTES]) {
    put_u32(out, IDENTITY_MAGIC);
    put_u32(out + 4, IDENTITY_VERSION);
    memcpy(out + 8, config->cluster_id, CONFIG_CLUSTER_ID_BYTES);
    put_u64(out + 24, config->id);
    put_u64(out + 32, checksum64(out, 32, IDENTITY_MAGIC));
}

/* Nothing in it is believed, the version neither, unless the checksum holds. */
static enum status check(const struct config *config, const uint8_t *in, size_t len, const char *path,
                         struct error *err) {
    if (len < IDENTITY_BYTES || get_u32(in) != IDENTITY_MAGIC ||
        get_u64(in + len - 8) != checksum64(in, len - 8, IDENTITY_MAGIC)) {
        return error_set(err, STATUS_CORRUPT, "%s is damaged, or no identity file of Holdfast", path);
    }
    if (get_u32(in + 4) != IDENTITY_VERSION) {
        return error_set(err, STATUS_UNSUPPORTED, "%s has format version %" PRIu32 "; this version reads %d", path,
                         get_u32(in + 4), IDENTITY_VERSION);
    }
    if (len != IDENTITY_BYTES) {
        return error_set(err, STATUS_CORRUPT, "%s is damaged: it has %zu bytes instead of %d", path, len,
                         IDENTITY_BYTES);
    }
    if (memcmp(in + 8, config->cluster_id, CONFIG_CLUSTER_ID_BYTES) != 0) {
        return error_set(err, STATUS_INVALID,
                         "%s belongs to another cluster; point 'data' elsewhere or correct 'cluster'", path);
    }
    if (get_u64(in + 24) != config->id) {
        return error_set(err, STATUS_INVALID, "%s belongs to node %" PRIu64 ", and this is node %" PRIu64, path,
                         get_u64(in + 24), config->id);
    }
    return STATUS_OK;
}

static enum status write_identity(struct env *env, const struct config *config, const char *path, struct error *err) {
    char temporary[PATH_BYTES + 8];
    uint8_t bytes[IDENTITY_BYTES];
    struct env_file *file = NULL;
    (void)snprintf(temporary, sizeof temporary, "%s.tmp", path);
    encode(config, bytes);
    enum status status = env_open(env, temporary, ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_TRUNCATE, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = env_pwrite(file, bytes, sizeof bytes, 0, err);
    if (status == STATUS_OK) {
        status = env_sync(file, err);
    }
    env_close(file);
    if (status == STATUS_OK) {
        status = env_rename(env, temporary, path, err);
    }
    return status == STATUS_OK ? env_sync_dir(env, config->data_dir, err) : status;
}

struct parts {
    bool has_log;
    bool has_store;
};

static enum status look_at(void *context, const char *name) {
    struct parts *parts = context;
    parts->has_log = parts->has_log || strcmp(name, "wal") == 0;
    parts->has_store = parts->has_store || strcmp(name, "db") == 0;
    return STATUS_OK;
}

/* STATUS_OK: a new directory, durable from now on. STATUS_CORRUPT: one with a log isn't new, it lost its IDENTITY. */
static enum status check_new(struct env *env, const struct config *config, struct error *err) {
    struct parts parts = {.has_log = false};
    enum status status = env_list_dir(env, config->data_dir, look_at, &parts, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (parts.has_log) {
        return error_set(err, STATUS_CORRUPT, "it holds 'wal' but no IDENTITY");
    }
    if (parts.has_store) { /* nothing there says whose it is, or that it is a node's at all */
        return error_set(err, STATUS_INVALID, "it holds 'db' but neither IDENTITY nor 'wal': point 'data' elsewhere");
    }
    return env_sync_parent(env, config->data_dir, err); /* or a power loss takes all that is in it */
}

static enum status read_identity(struct env *env, const struct config *config, const char *path, struct error *err) {
    struct env_file *file = NULL;
    uint8_t bytes[IDENTITY_BYTES_MAX];
    size_t len = 0;
    enum status status = env_open(env, path, ENV_OPEN_READ, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = env_pread(file, bytes, sizeof bytes, 0, &len, err);
    env_close(file);
    return status == STATUS_OK ? check(config, bytes, len, path, err) : status;
}

static enum status open_identity(struct env *env, const struct config *config, struct data_dir *dir,
                                 struct error *err) {
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/IDENTITY", config->data_dir);
    enum status status = read_identity(env, config, path, err);
    if (status == STATUS_NOT_FOUND) {
        error_clear(err);
        status = check_new(env, config, err);
        if (status == STATUS_OK) {
            dir->created = true;
            return write_identity(env, config, path, err);
        }
    }
    if (status == STATUS_CORRUPT && config->heal) {
        dir->fault = *err;
        error_clear(err);
        return STATUS_OK;
    }
    return status;
}

enum status data_dir_open(struct env *env, const struct config *config, struct data_dir *ret_dir, struct error *err) {
    struct data_dir dir = {0};
    char path[PATH_BYTES];
    enum status status = env_mkdir(env, config->data_dir, err);
    if (status != STATUS_OK && status != STATUS_EXISTS) {
        error_prefix(err, "data directory");
        return status;
    }
    (void)snprintf(path, sizeof path, "%s/LOCK", config->data_dir);
    status = env_lock_file(env, path, &dir.lock, err);
    if (status == STATUS_BUSY) {
        return error_set(err, status, "data directory %s is in use by another process", config->data_dir);
    }
    if (status == STATUS_OK) {
        status = open_identity(env, config, &dir, err);
    }
    if (status != STATUS_OK) {
        env_close(dir.lock);
        error_prefix(err, "data directory %s", config->data_dir);
        return status;
    }
    *ret_dir = dir;
    return STATUS_OK;
}

enum status data_dir_renew(struct env *env, const struct config *config, const struct data_dir *dir,
                           struct error *err) {
    char path[PATH_BYTES];
    if (dir->fault.code == STATUS_OK) {
        return STATUS_OK;
    }
    (void)snprintf(path, sizeof path, "%s/IDENTITY", config->data_dir);
    return write_identity(env, config, path, err);
}

void data_dir_close(struct data_dir *dir) {
    env_close(dir->lock);
    dir->lock = NULL;
}
