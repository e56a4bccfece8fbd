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
    IDENTITY_BYTES = 4 + 4 + CONFIG_CLUSTER_ID_BYTES + 8 + 8 + 8,
    PATH_BYTES = LIMIT_PATH_BYTES + 32
};

static void encode(const struct config *config, uint64_t incarnation, uint8_t out[IDENTITY_BYTES]) {
    put_u32(out, IDENTITY_MAGIC);
    put_u32(out + 4, IDENTITY_VERSION);
    memcpy(out + 8, config->cluster_id, CONFIG_CLUSTER_ID_BYTES);
    put_u64(out + 24, config->id);
    put_u64(out + 32, incarnation);
    put_u64(out + 40, checksum64(out, 40, IDENTITY_MAGIC));
}

static enum status check(const struct config *config, const uint8_t *in, size_t len, const char *path,
                         uint64_t *ret_incarnation, struct error *err) {
    if (len < 8 || get_u32(in) != IDENTITY_MAGIC) {
        return error_set(err, STATUS_CORRUPT, "%s is not an identity file of Holdfast", path);
    }
    if (get_u32(in + 4) != IDENTITY_VERSION) {
        return error_set(err, STATUS_UNSUPPORTED, "%s has format version %" PRIu32 "; this version reads %d", path,
                         get_u32(in + 4), IDENTITY_VERSION);
    }
    if (len != IDENTITY_BYTES || get_u64(in + 40) != checksum64(in, 40, IDENTITY_MAGIC)) {
        return error_set(err, STATUS_CORRUPT, "%s is damaged", path);
    }
    if (memcmp(in + 8, config->cluster_id, CONFIG_CLUSTER_ID_BYTES) != 0) {
        return error_set(err, STATUS_INVALID,
                         "%s belongs to another cluster; point 'data' elsewhere or correct 'cluster'", path);
    }
    if (get_u64(in + 24) != config->id) {
        return error_set(err, STATUS_INVALID, "%s belongs to node %" PRIu64 ", and this is node %" PRIu64, path,
                         get_u64(in + 24), config->id);
    }
    *ret_incarnation = get_u64(in + 32);
    return STATUS_OK;
}

static enum status write_identity(struct env *env, const struct config *config, const char *path, struct error *err) {
    char temporary[PATH_BYTES + 8];
    uint8_t bytes[IDENTITY_BYTES];
    struct env_file *file = NULL;
    (void)snprintf(temporary, sizeof temporary, "%s.tmp", path);
    encode(config, 1, bytes);
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

/* A directory with a log but without IDENTITY isn't new: it lost something. */
static enum status refuse_name(void *context, const char *name) {
    struct error *err = context;
    if (strcmp(name, "wal") == 0 || strcmp(name, "db") == 0) {
        return error_set(err, STATUS_CORRUPT, "it holds '%s' but no IDENTITY", name);
    }
    return STATUS_OK;
}

static enum status open_identity(struct env *env, const struct config *config, struct data_dir *dir,
                                 struct error *err) {
    char path[PATH_BYTES];
    struct env_file *file = NULL;
    (void)snprintf(path, sizeof path, "%s/IDENTITY", config->data_dir);
    enum status status = env_open(env, path, ENV_OPEN_READ, &file, err);
    if (status == STATUS_NOT_FOUND) {
        dir->created = true;
        dir->incarnation = 1;
        status = env_list_dir(env, config->data_dir, refuse_name, err, err);
        if (status == STATUS_OK) {
            status = env_sync_parent(env, config->data_dir, err); /* or a power loss takes all that is in it */
        }
        return status == STATUS_OK ? write_identity(env, config, path, err) : status;
    }
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t bytes[IDENTITY_BYTES + 1];
    size_t len = 0;
    status = env_pread(file, bytes, sizeof bytes, 0, &len, err);
    env_close(file);
    return status == STATUS_OK ? check(config, bytes, len, path, &dir->incarnation, err) : status;
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

void data_dir_close(struct data_dir *dir) {
    env_close(dir->lock);
    dir->lock = NULL;
}
