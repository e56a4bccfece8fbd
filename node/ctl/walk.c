/* Pages of a range at one revision. See walk.h. */
#include "node/ctl/walk.h"

/* The first string behind all that begin with the prefix; none if it is all 0xff. */
static enum status end_of_prefix(struct buf *out, struct slice prefix) {
    enum status status = buf_reserve(out, prefix.len);
    if (status == STATUS_OK) {
        out->len = holdfast_prefix_range(prefix.data, prefix.len, out->data).upper_len;
    }
    return status;
}

enum status walk_init(struct walk *walk, struct ctl *ctl, const char *prefix, struct slice lower, struct slice upper) {
    *walk = (struct walk){.ctl = ctl, .read = ctl_read_options(ctl)};
    buf_init(&walk->lower, ctl->alloc, 0);
    buf_init(&walk->upper, ctl->alloc, 0);
    struct slice start = prefix != NULL ? slice_of_string(prefix) : lower;
    enum status status = buf_append(&walk->lower, start.data, start.len);
    if (status == STATUS_OK) {
        status = prefix != NULL ? end_of_prefix(&walk->upper, start) : buf_append(&walk->upper, upper.data, upper.len);
    }
    walk->scan.upper = walk->upper.data;
    walk->scan.upper_len = walk->upper.len;
    return status;
}

void walk_deinit(struct walk *walk) {
    holdfast_page_free(walk->ctl->handle, walk->page);
    buf_deinit(&walk->lower);
    buf_deinit(&walk->upper);
}

enum ctl_exit walk_next(struct walk *walk) {
    struct ctl *ctl = walk->ctl;
    struct holdfast_result result;
    if (walk->page != NULL) {
        if (!walk->page->more || walk->page->next_lower == NULL) {
            walk->at_end = true;
        } else {
            buf_clear(&walk->lower);
            if (buf_append(&walk->lower, walk->page->next_lower, walk->page->next_lower_len) != STATUS_OK) {
                return ctl_fail(ctl, CTL_FAILED, "out of memory");
            }
            walk->read.revision = walk->page->revision;
        }
        holdfast_page_free(ctl->handle, walk->page);
        walk->page = NULL;
    }
    if (walk->at_end) {
        return CTL_DONE;
    }
    walk->scan.lower = walk->lower.data;
    walk->scan.lower_len = walk->lower.len;
    if (holdfast_scan_page(ctl->handle, &walk->scan, &walk->read, &walk->page, &result) != HOLDFAST_OK) {
        return ctl_fail_result(ctl, &result);
    }
    return CTL_DONE;
}
