/* The engine on an environment of its own: threads, io_uring, real files. Apart from the rest, because who brings his
 * own environment (the simulator) links none. */
#include "node/env/os/env_os.h"
#include "storage/engine_internal.h"

enum { WORKERS_SHORT = 4, WORKERS_MAX = 64 };

/* The environment that was given, or one of our own: *ret_own, to be freed. */
static enum status env_for(const struct engine_options *options, struct env **ret_env, struct env **ret_own,
                           struct error *err) {
    *ret_env = options->env;
    *ret_own = NULL;
    if (options->env != NULL) {
        return STATUS_OK;
    }
    if (options->workers == 0 || options->workers > WORKERS_MAX) {
        return error_set(err, STATUS_INVALID, "engine option workers is %u, not 1 to %d", options->workers,
                         WORKERS_MAX);
    }
    /* A flush never waits for a compaction, nor these for a checkpoint. */
    const struct env_os_options os = {.alloc = options->alloc,
                                      .use_ring = false,
                                      .workers_short = WORKERS_SHORT,
                                      .workers_long = options->workers + 2};
    enum status status = env_os_new(&os, ret_own, err);
    *ret_env = *ret_own;
    return status;
}

enum status engine_open(const struct engine_options *options, struct engine **ret_engine, struct error *err) {
    struct engine_options complete = *options;
    struct env *own;
    enum status status = env_for(options, &complete.env, &own, err);
    if (status == STATUS_OK) {
        status = engine__open(&complete, own != NULL ? env_os_free : NULL, ret_engine, err);
    }
    if (status != STATUS_OK) {
        env_os_free(own);
    }
    return status;
}

enum status engine_verify_closed(const struct engine_options *options,
                                 const struct engine_verify_options *verify_options,
                                 struct engine_verify_report *ret_report, struct error *err) {
    struct engine_options complete = *options;
    struct env *own;
    enum status status = env_for(options, &complete.env, &own, err);
    if (status == STATUS_OK) {
        status = engine__verify_closed(&complete, verify_options, ret_report, err);
    }
    env_os_free(own);
    return status;
}

enum status engine_repair(const struct engine_options *options,
                          void (*lost)(void *context, const struct engine_loss *loss), void *context,
                          struct engine_repair_report *ret_report, struct error *err) {
    struct engine_options complete = *options;
    struct env *own;
    enum status status = env_for(options, &complete.env, &own, err);
    if (status == STATUS_OK) {
        status = engine__repair(&complete, lost, context, ret_report, err);
    }
    env_os_free(own);
    return status;
}

enum status engine_destroy(const struct engine_options *options, struct error *err) {
    struct env *env;
    struct env *own;
    enum status status = env_for(options, &env, &own, err);
    if (status == STATUS_OK) {
        status = engine__destroy(env, options->dir, err);
    }
    env_os_free(own);
    return status;
}
