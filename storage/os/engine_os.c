/* The engine on an environment of its own: threads, io_uring, real files. Apart from the rest, because who brings his
 * own environment (the simulator) links none. */
#include "node/env/os/env_os.h"
#include "storage/engine_internal.h"

enum { WORKERS_SHORT = 4 };

enum status engine_open(const struct engine_options *options, struct engine **ret_engine, struct error *err) {
    if (options->env != NULL) {
        return engine__open(options, NULL, ret_engine, err);
    }
    if (options->workers == 0) {
        return error_set(err, STATUS_INVALID, "no workers: at least 1 is needed");
    }
    const struct env_os_options os = {.alloc = options->alloc,
                                      .use_ring = false,
                                      .workers_short = WORKERS_SHORT,
                                      .workers_long = options->workers + 1}; /* a flush never waits for a compaction */
    struct engine_options complete = *options;
    enum status status = env_os_new(&os, &complete.env, err);
    if (status == STATUS_OK) {
        status = engine__open(&complete, env_os_free, ret_engine, err);
    }
    if (status != STATUS_OK) {
        env_os_free(complete.env);
    }
    return status;
}
