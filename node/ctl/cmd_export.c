/*
 * export: all pairs at one revision as canonical JSON lines (pairs.h), to standard output or to a file that appears
 * complete or not at all: it is written beside its place, synced, then renamed.
 */
#include "node/ctl/pairs.h"
#include "node/ctl/walk.h"

#include "node/base/limits.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

struct export_target {
    FILE *out;
    const char *path;               /* NULL: standard output */
    char partial[LIMIT_PATH_BYTES]; /* empty: written in place */
};

/* A device or pipe is written in place; a file is replaced. */
static enum ctl_exit target_open(struct ctl *ctl, const char *path, struct export_target *target) {
    struct stat info;
    *target = (struct export_target){.out = ctl->io->out};
    if (path == NULL || strcmp(path, "-") == 0) {
        ctl->data_on_out = true;
        return CTL_DONE;
    }
    target->path = path;
    const char *name = path;
    if (stat(path, &info) != 0 || S_ISREG(info.st_mode)) {
        if ((size_t)snprintf(target->partial, sizeof target->partial, "%s.partial", path) >= sizeof target->partial) {
            return ctl_fail(ctl, CTL_FAILED, "the file's name is too long");
        }
        name = target->partial;
    }
    target->out = fopen(name, "w");
    if (target->out == NULL) {
        return ctl_fail(ctl, CTL_FAILED, "%s can't be written: %s", name, strerror(errno));
    }
    return CTL_DONE;
}

static enum ctl_exit target_close(struct ctl *ctl, struct export_target *target, enum ctl_exit code) {
    if (target->path == NULL) {
        return code == CTL_DONE ? ctl_finish_output(ctl) : code;
    }
    if (target->out == NULL) {
        return code;
    }
    bool is_file = target->partial[0] != '\0';
    bool failed = fflush(target->out) != 0 || ferror(target->out) || (is_file && fsync(fileno(target->out)) != 0);
    int sys = errno;
    failed = fclose(target->out) != 0 || failed;
    if (code == CTL_DONE && !failed && is_file && rename(target->partial, target->path) != 0) {
        sys = errno;
        failed = true;
    }
    if (is_file && (code != CTL_DONE || failed)) {
        (void)unlink(target->partial);
    }
    if (code == CTL_DONE && failed) {
        code = ctl_fail(ctl, CTL_FAILED, "%s can't be written: %s", target->path, strerror(sys));
    }
    return code;
}

static enum ctl_exit write_page(struct ctl *ctl, FILE *out, const struct holdfast_page *page, struct buf *line,
                                uint64_t *bytes) {
    for (size_t i = 0; i < page->pair_count; i++) {
        const struct holdfast_pair *pair = &page->pairs[i];
        buf_clear(line);
        if (pair_append_line(line, slice_of(pair->key, pair->key_len), slice_of(pair->value, pair->value_len)) !=
            STATUS_OK) {
            return ctl_fail(ctl, CTL_FAILED, "out of memory");
        }
        if (fwrite(line->data, 1, line->len, out) != line->len) {
            return ctl_fail(ctl, CTL_FAILED, "the output can't be written: %s", strerror(errno));
        }
        *bytes += pair->key_len + pair->value_len;
    }
    return CTL_DONE;
}

static enum ctl_exit write_all(struct ctl *ctl, struct walk *walk, FILE *out, uint64_t *ret_pairs, uint64_t *ret_bytes,
                               uint64_t *ret_revision) {
    struct buf line;
    enum ctl_exit code;
    buf_init(&line, ctl->alloc, 0);
    for (;;) {
        code = walk_next(walk);
        if (code != CTL_DONE || walk->at_end) {
            break;
        }
        *ret_pairs += walk->page->pair_count;
        *ret_revision = walk->page->revision;
        code = write_page(ctl, out, walk->page, &line, ret_bytes);
        if (code != CTL_DONE) {
            break;
        }
    }
    buf_deinit(&line);
    return code;
}

static enum ctl_exit summarise(struct ctl *ctl, const char *path, uint64_t pairs, uint64_t bytes, uint64_t revision) {
    if (ctl->options.json) {
        (void)fprintf(ctl->io->out, "{\"exported\":%llu,\"bytes\":%llu,\"revision\":%llu}\n", (unsigned long long)pairs,
                      (unsigned long long)bytes, (unsigned long long)revision);
    } else {
        (void)fprintf(ctl->io->out, "exported %llu pairs, %llu bytes, at revision %llu to %s\n",
                      (unsigned long long)pairs, (unsigned long long)bytes, (unsigned long long)revision, path);
    }
    return ctl_finish_output(ctl);
}

enum ctl_exit ctl_cmd_export(struct ctl *ctl, int argc, char **argv) {
    struct export_target target;
    struct walk walk;
    uint64_t pairs = 0, bytes = 0, revision = 0;
    enum ctl_exit code = ctl_connect(ctl);
    if (code == CTL_DONE) {
        code = target_open(ctl, argc > 0 ? argv[0] : NULL, &target);
    }
    if (code != CTL_DONE) {
        return code;
    }
    if (walk_init(&walk, ctl, ctl->options.prefix, SLICE_EMPTY, SLICE_EMPTY) != STATUS_OK) {
        code = ctl_fail(ctl, CTL_FAILED, "out of memory");
    } else {
        code = write_all(ctl, &walk, target.out, &pairs, &bytes, &revision);
    }
    walk_deinit(&walk);
    code = target_close(ctl, &target, code);
    if (code == CTL_DONE && target.path != NULL) {
        code = summarise(ctl, target.path, pairs, bytes, revision);
    }
    return code;
}
