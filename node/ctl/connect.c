/* From profile and options to an open handle. */
#include "node/ctl/ctl.h"

#include "node/base/limits.h"

#include <stdlib.h>
#include <unistd.h>

static const char PROFILE_IN_REPOSITORY[] = "build/cluster/client.ini";

/* In the current directory or one above it. */
static bool find_profile(char *out, size_t size) {
    char folder[LIMIT_PATH_BYTES];
    if (getcwd(folder, sizeof folder) == NULL) {
        return false;
    }
    for (;;) {
        if ((size_t)snprintf(out, size, "%s/%s", folder, PROFILE_IN_REPOSITORY) < size && access(out, R_OK) == 0) {
            return true;
        }
        char *slash = strrchr(folder, '/');
        if (slash == NULL || folder[0] == '\0') {
            return false;
        }
        *slash = '\0';
    }
}

static enum ctl_exit load_profile(struct ctl *ctl) {
    char found[LIMIT_PATH_BYTES + sizeof PROFILE_IN_REPOSITORY + 1];
    struct holdfast_result result;
    const struct ctl_options *options = &ctl->options;
    const char *path = options->profile;
    if (path == NULL) {
        path = getenv("HOLDFAST_PROFILE");
    }
    if (path == NULL && find_profile(found, sizeof found)) {
        path = found;
    }
    if (path == NULL) {
        return CTL_DONE;
    }
    if (holdfast_profile_load(path, &ctl->profile, &result) != HOLDFAST_OK) {
        return ctl_fail(ctl, CTL_FAILED, "the profile can't be used: %s", result.message);
    }
    return CTL_DONE;
}

static void override(const char **option, const char *text) {
    if (text != NULL) {
        *option = text;
    }
}

enum ctl_exit ctl_connect(struct ctl *ctl) {
    struct holdfast_options options;
    struct holdfast_result result;
    enum ctl_exit code = load_profile(ctl);
    if (code != CTL_DONE) {
        return code;
    }
    holdfast_options_init(&options);
    if (ctl->profile != NULL) {
        holdfast_profile_options(ctl->profile, &options);
    }
    override(&options.endpoints, ctl->options.endpoints);
    override(&options.ca_file, ctl->options.ca);
    override(&options.cert_file, ctl->options.cert);
    override(&options.key_file, ctl->options.key);
    override(&options.node, ctl->options.node);
    if (ctl->options.timeout_ms != 0) {
        options.timeout_ms = ctl->options.timeout_ms;
    }
    if (options.endpoints == NULL && options.node == NULL) {
        return ctl_fail(
            ctl, CTL_FAILED,
            "no cluster is named: give --profile FILE, HOLDFAST_PROFILE or --endpoints H:P,... (`make cluster` starts "
            "one that is found from inside the repository)");
    }
    if (ctl->io->open(&options, &ctl->handle, &result) != HOLDFAST_OK) {
        return ctl_fail_result(ctl, &result);
    }
    return CTL_DONE;
}

void ctl_disconnect(struct ctl *ctl) {
    holdfast_close(ctl->handle);
    holdfast_profile_free(ctl->profile);
    ctl->handle = NULL;
    ctl->profile = NULL;
}

struct holdfast_read_options ctl_read_options(const struct ctl *ctl) {
    return (struct holdfast_read_options){.local = ctl->options.local, .revision = ctl->options.revision};
}
