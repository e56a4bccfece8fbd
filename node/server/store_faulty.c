/* Setting a store aside, by another name. Without a store there is nothing to do: an earlier try came so far. */
#include "node/server/store_faulty.h"

#include "node/server/snapshot_files.h"

#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = LIMIT_PATH_BYTES + 16 };

static const char *const store_name = "db";
static const char *const faulty_name = "db.faulty";

static void make_path(char out[PATH_BYTES], const char *data_dir, const char *name) {
    (void)snprintf(out, PATH_BYTES, "%s/%s", data_dir, name);
}

struct search {
    const char *name;
    bool found;
};

static enum status compare(void *context, const char *name) {
    struct search *search = context;
    search->found = search->found || strcmp(name, search->name) == 0;
    return STATUS_OK;
}

static enum status find(struct env *env, const char *data_dir, const char *name, bool *ret_found, struct error *err) {
    struct search search = {.name = name};
    enum status status = env_list_dir(env, data_dir, compare, &search, err);
    *ret_found = search.found;
    return status;
}

enum status store_faulty_set_aside(struct env *env, const char *data_dir, struct error *err) {
    char store[PATH_BYTES];
    char faulty[PATH_BYTES];
    bool exists = false;
    make_path(store, data_dir, store_name);
    make_path(faulty, data_dir, faulty_name);
    enum status status = find(env, data_dir, store_name, &exists, err);
    if (status != STATUS_OK || !exists) {
        return status; /* an earlier try came so far */
    }
    status = snapshot_dir_remove(env, faulty, err);
    if (status == STATUS_OK) {
        status = env_rename(env, store, faulty, err);
    }
    return status == STATUS_OK ? env_sync_dir(env, data_dir, err) : status;
}

bool store_faulty_exists(struct env *env, const char *data_dir) {
    bool exists = true;
    struct error ignored;
    return find(env, data_dir, faulty_name, &exists, &ignored) != STATUS_OK || exists;
}

void store_faulty_remove(struct env *env, const char *data_dir) {
    char faulty[PATH_BYTES];
    struct error ignored;
    make_path(faulty, data_dir, faulty_name);
    (void)!snapshot_dir_remove(env, faulty, &ignored); /* then at the next start */
}
