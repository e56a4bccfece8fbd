/* scan: keys and values of a range, as lines for people, as one JSON object, or only their number. */
#include "node/ctl/pairs.h"
#include "node/ctl/walk.h"

#include "node/base/limits.h"

enum { OUTPUT_STEP_BYTES = 64 * 1024 };

struct scan_output {
    struct ctl *ctl;
    struct buf bytes;
    uint64_t count;
    uint64_t revision;
};

static enum status append_pair_json(struct scan_output *output, const struct holdfast_pair *pair) {
    struct buf *out = &output->bytes;
    enum status status = buf_append(out, output->count > 0 ? ",{" : "{", output->count > 0 ? 2 : 1);
    if (status == STATUS_OK) {
        status = pair_append_field(out, "key", slice_of(pair->key, pair->key_len));
    }
    if (status == STATUS_OK && !output->ctl->options.keys_only) {
        status = buf_append(out, ",", 1);
        if (status == STATUS_OK) {
            status = pair_append_field(out, "value", slice_of(pair->value, pair->value_len));
        }
    }
    if (status == STATUS_OK) {
        status = buf_append_format(out, ",\"mod_revision\":%llu}", (unsigned long long)pair->mod_revision);
    }
    return status;
}

static enum status append_pair_text(struct scan_output *output, const struct holdfast_pair *pair) {
    struct buf *out = &output->bytes;
    enum status status = pair_append_visible(out, slice_of(pair->key, pair->key_len));
    if (status == STATUS_OK && !output->ctl->options.keys_only) {
        status = buf_append(out, "\t", 1);
        if (status == STATUS_OK) {
            status = pair_append_visible(out, slice_of(pair->value, pair->value_len));
        }
    }
    return status == STATUS_OK ? buf_append(out, "\n", 1) : status;
}

static enum ctl_exit print_page(struct scan_output *output, const struct holdfast_page *page) {
    struct ctl *ctl = output->ctl;
    enum status status = STATUS_OK;
    if (output->revision == 0 && ctl->options.json) {
        status =
            buf_append_format(&output->bytes, "{\"revision\":%llu,\"pairs\":[", (unsigned long long)page->revision);
    }
    output->revision = page->revision;
    ctl->data_on_out = true; /* from here on an error object would spoil what is there */
    for (size_t i = 0; i < page->pair_count && status == STATUS_OK; i++) {
        const struct holdfast_pair *pair = &page->pairs[i];
        status = ctl->options.json ? append_pair_json(output, pair) : append_pair_text(output, pair);
        output->count++;
        if (status == STATUS_OK && output->bytes.len >= OUTPUT_STEP_BYTES) {
            (void)fwrite(output->bytes.data, 1, output->bytes.len, ctl->io->out);
            buf_clear(&output->bytes);
        }
    }
    if (status != STATUS_OK) {
        return ctl_fail(ctl, CTL_FAILED, "out of memory");
    }
    (void)fwrite(output->bytes.data, 1, output->bytes.len, ctl->io->out);
    buf_clear(&output->bytes);
    return ferror(ctl->io->out) ? ctl_finish_output(ctl) : CTL_DONE;
}

static enum ctl_exit print_pairs(struct ctl *ctl, struct walk *walk) {
    struct scan_output output = {.ctl = ctl};
    enum ctl_exit code = CTL_DONE;
    uint64_t left = ctl->options.limit != 0 ? ctl->options.limit : UINT64_MAX;
    buf_init(&output.bytes, ctl->alloc, 0);
    while (left > 0) {
        walk->scan.limit = left < LIMIT_SCAN_ENTRIES ? (uint32_t)left : 0;
        code = walk_next(walk);
        if (code != CTL_DONE || walk->at_end) {
            break;
        }
        code = print_page(&output, walk->page);
        if (code != CTL_DONE) {
            break;
        }
        left -= walk->page->pair_count < left ? walk->page->pair_count : left;
    }
    if (code == CTL_DONE && ctl->options.json) {
        (void)fprintf(ctl->io->out, "],\"count\":%llu}\n", (unsigned long long)output.count);
    }
    buf_deinit(&output.bytes);
    return code == CTL_DONE ? ctl_finish_output(ctl) : code;
}

/* Counting on the nodes; a node that stops half-way without naming the last key is asked for the keys instead. */
static enum ctl_exit print_count(struct ctl *ctl, struct walk *walk) {
    uint64_t count = 0;
    uint64_t revision = 0;
    walk->scan.count_only = true;
    for (;;) {
        enum ctl_exit code = walk_next(walk);
        if (code != CTL_DONE) {
            return code;
        }
        if (walk->at_end) {
            break;
        }
        if (walk->scan.count_only && walk->page->more && walk->page->next_lower == NULL) {
            walk->scan.count_only = false;
            walk->scan.keys_only = true;
            walk->read.revision = walk->page->revision;
            holdfast_page_free(ctl->handle, walk->page);
            walk->page = NULL;
            continue;
        }
        count += walk->page->count;
        revision = walk->page->revision;
    }
    if (ctl->options.limit != 0 && count > ctl->options.limit) {
        count = ctl->options.limit;
    }
    if (ctl->options.json) {
        (void)fprintf(ctl->io->out, "{\"revision\":%llu,\"count\":%llu}\n", (unsigned long long)revision,
                      (unsigned long long)count);
    } else {
        (void)fprintf(ctl->io->out, "%llu\n", (unsigned long long)count);
    }
    return ctl_finish_output(ctl);
}

enum ctl_exit ctl_cmd_scan(struct ctl *ctl, int argc, char **argv) {
    struct walk walk;
    if (ctl->options.prefix != NULL && argc > 0) {
        return ctl_usage(ctl, "--prefix and LOWER exclude each other");
    }
    struct slice lower = argc > 0 ? slice_of_string(argv[0]) : SLICE_EMPTY;
    struct slice upper = argc > 1 ? slice_of_string(argv[1]) : SLICE_EMPTY;
    enum ctl_exit code = ctl_connect(ctl);
    if (code != CTL_DONE) {
        return code;
    }
    if (walk_init(&walk, ctl, ctl->options.prefix, lower, upper) != STATUS_OK) {
        code = ctl_fail(ctl, CTL_FAILED, "out of memory");
    } else {
        walk.scan.keys_only = ctl->options.keys_only;
        code = ctl->options.count ? print_count(ctl, &walk) : print_pairs(ctl, &walk);
    }
    walk_deinit(&walk);
    return code;
}
