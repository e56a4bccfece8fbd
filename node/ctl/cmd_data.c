/* put, get, del: one key, or a range that goes. */
#include "node/ctl/ctl.h"
#include "node/ctl/pairs.h"

#include "node/base/limits.h"

#include <errno.h>
#include <unistd.h>

enum { INPUT_STEP_BYTES = 64 * 1024 };

/* An argument as bytes; with --base64 decoded into `decoded`. */
static enum ctl_exit take_bytes(struct ctl *ctl, const char *what, const char *text, struct buf *decoded,
                                struct slice *ret_bytes) {
    *ret_bytes = slice_of_string(text);
    if (!ctl->options.base64) {
        return CTL_DONE;
    }
    if (base64_decode(decoded, *ret_bytes) != STATUS_OK) {
        return ctl_usage(ctl, "%s is not base64", what);
    }
    *ret_bytes = buf_slice(decoded);
    return CTL_DONE;
}

/* All of standard input, at most a value's bytes. */
static enum ctl_exit read_input(struct ctl *ctl, struct buf *out) {
    for (;;) {
        if (buf_reserve(out, INPUT_STEP_BYTES) != STATUS_OK) {
            return ctl_fail(ctl, CTL_FAILED, "out of memory");
        }
        ssize_t got = read(ctl->io->in, out->data + out->len, out->capacity - out->len);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return ctl_fail(ctl, CTL_FAILED, "standard input can't be read: %s", strerror(errno));
        }
        if (got == 0) {
            return CTL_DONE;
        }
        out->len += (size_t)got;
        if (out->len > LIMIT_VALUE_BYTES) {
            return ctl_fail(ctl, CTL_FAILED, "the value has more than %u bytes: store it in parts",
                            (unsigned)LIMIT_VALUE_BYTES);
        }
    }
}

enum ctl_exit ctl_cmd_put(struct ctl *ctl, int argc, char **argv) {
    (void)argc;
    struct buf key_bytes, value_bytes;
    struct slice key, value;
    struct holdfast_result result;
    buf_init(&key_bytes, ctl->alloc, 0);
    buf_init(&value_bytes, ctl->alloc, 0);
    enum ctl_exit code = take_bytes(ctl, "KEY", argv[0], &key_bytes, &key);
    if (code == CTL_DONE && strcmp(argv[1], "-") == 0) {
        code = read_input(ctl, &value_bytes);
        value = buf_slice(&value_bytes);
    } else if (code == CTL_DONE) {
        code = take_bytes(ctl, "VALUE", argv[1], &value_bytes, &value);
    }
    if (code == CTL_DONE) {
        code = ctl_connect(ctl);
    }
    if (code == CTL_DONE) {
        if (holdfast_put(ctl->handle, key.data, key.len, value.data, value.len, NULL, &result) == HOLDFAST_OK) {
            code = ctl_print_revision(ctl, result.revision);
        } else {
            code = ctl_fail_result(ctl, &result);
        }
    }
    buf_deinit(&key_bytes);
    buf_deinit(&value_bytes);
    return code;
}

/* What --prefix or --range says. A bound that is "" is none. */
static enum ctl_exit take_range(struct ctl *ctl, char **argv, struct buf *first, struct buf *second,
                                struct holdfast_range *ret_range) {
    struct slice lower, upper;
    enum ctl_exit code;
    if (ctl->options.prefix != NULL) {
        code = take_bytes(ctl, "PREFIX", ctl->options.prefix, first, &lower);
        if (code == CTL_DONE && lower.len == 0) {
            return ctl_usage(ctl, "the prefix is empty; to delete every key, say --range \"\" \"\"");
        }
        if (code == CTL_DONE && buf_reserve(second, lower.len) != STATUS_OK) {
            return ctl_fail(ctl, CTL_FAILED, "out of memory");
        }
        if (code == CTL_DONE) {
            *ret_range = holdfast_prefix_range(lower.data, lower.len, second->data);
        }
        return code;
    }
    code = take_bytes(ctl, "FROM", argv[0], first, &lower);
    if (code == CTL_DONE) {
        code = take_bytes(ctl, "TO", argv[1], second, &upper);
    }
    if (code == CTL_DONE && upper.len > 0 && slice_compare(lower, upper) >= 0) {
        return ctl_usage(ctl, "the range is empty: TO must be above FROM (both are compared byte by byte)");
    }
    if (code == CTL_DONE) {
        *ret_range = (struct holdfast_range){lower.data, lower.len, upper.data, upper.len};
    }
    return code;
}

static enum ctl_exit delete_range(struct ctl *ctl, char **argv) {
    struct buf first, second;
    struct holdfast_range range;
    struct holdfast_result result;
    buf_init(&first, ctl->alloc, 0);
    buf_init(&second, ctl->alloc, 0);
    enum ctl_exit code = take_range(ctl, argv, &first, &second, &range);
    if (code == CTL_DONE) {
        code = ctl_connect(ctl);
    }
    if (code == CTL_DONE) {
        if (holdfast_delete_range(ctl->handle, &range, NULL, &result) == HOLDFAST_OK) {
            code = ctl_print_revision(ctl, result.revision);
        } else {
            code = ctl_fail_result(ctl, &result);
        }
    }
    buf_deinit(&first);
    buf_deinit(&second);
    return code;
}

enum ctl_exit ctl_cmd_del(struct ctl *ctl, int argc, char **argv) {
    bool has_prefix = ctl->options.prefix != NULL;
    int wanted = has_prefix ? 0 : ctl->options.range ? 2 : 1;
    if (has_prefix && ctl->options.range) {
        return ctl_usage(ctl, "--prefix and --range exclude each other");
    }
    if (argc != wanted) {
        return ctl_usage(ctl, has_prefix           ? "--prefix takes no KEY beside it"
                              : ctl->options.range ? "--range needs FROM and TO (\"\" for no bound)"
                                                   : "del needs one KEY, --prefix P, or --range FROM TO");
    }
    if (has_prefix || ctl->options.range) {
        return delete_range(ctl, argv);
    }
    struct buf key_bytes;
    struct slice key;
    struct holdfast_result result;
    buf_init(&key_bytes, ctl->alloc, 0);
    enum ctl_exit code = take_bytes(ctl, "KEY", argv[0], &key_bytes, &key);
    if (code == CTL_DONE) {
        code = ctl_connect(ctl);
    }
    if (code == CTL_DONE) {
        if (holdfast_delete(ctl->handle, key.data, key.len, NULL, &result) == HOLDFAST_OK) {
            code = ctl_print_revision(ctl, result.revision);
        } else {
            code = ctl_fail_result(ctl, &result);
        }
    }
    buf_deinit(&key_bytes);
    return code;
}

static enum status append_value_json(struct buf *out, struct slice key, const struct holdfast_value *value,
                                     uint64_t revision) {
    enum status status = buf_append(out, "{", 1);
    if (status == STATUS_OK) {
        status = pair_append_field(out, "key", key);
    }
    if (status == STATUS_OK) {
        status = buf_append(out, ",", 1);
    }
    if (status == STATUS_OK) {
        status = pair_append_field(out, "value", slice_of(value->data, value->len));
    }
    if (status == STATUS_OK) {
        status = buf_append_format(out, ",\"mod_revision\":%llu,\"revision\":%llu}\n",
                                   (unsigned long long)value->mod_revision, (unsigned long long)revision);
    }
    return status;
}

static enum ctl_exit print_value(struct ctl *ctl, struct slice key, const struct holdfast_value *value,
                                 uint64_t revision) {
    FILE *out = ctl->io->out;
    if (!ctl->options.json) {
        (void)fwrite(value->data, 1, value->len, out);
        if (isatty(fileno(out))) {
            (void)fputc('\n', out);
        }
        return ctl_finish_output(ctl);
    }
    struct buf line;
    buf_init(&line, ctl->alloc, 0);
    enum status status = append_value_json(&line, key, value, revision);
    if (status == STATUS_OK) {
        (void)fwrite(line.data, 1, line.len, out);
    }
    buf_deinit(&line);
    return status == STATUS_OK ? ctl_finish_output(ctl) : ctl_fail(ctl, CTL_FAILED, "out of memory");
}

enum ctl_exit ctl_cmd_get(struct ctl *ctl, int argc, char **argv) {
    (void)argc;
    struct buf key_bytes;
    struct slice key;
    struct holdfast_result result;
    struct holdfast_value value;
    buf_init(&key_bytes, ctl->alloc, 0);
    enum ctl_exit code = take_bytes(ctl, "KEY", argv[0], &key_bytes, &key);
    if (code == CTL_DONE) {
        code = ctl_connect(ctl);
    }
    if (code == CTL_DONE) {
        struct holdfast_read_options options = ctl_read_options(ctl);
        if (holdfast_get(ctl->handle, key.data, key.len, &options, &value, &result) == HOLDFAST_OK) {
            code = print_value(ctl, key, &value, result.revision);
            holdfast_value_free(ctl->handle, &value);
        } else {
            code = ctl_fail_result(ctl, &result);
        }
    }
    buf_deinit(&key_bytes);
    return code;
}
