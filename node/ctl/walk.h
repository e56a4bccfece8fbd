/* A walk over a range, page by page, at one revision: what scan and export share. */
#ifndef HOLDFAST_CTL_WALK_H
#define HOLDFAST_CTL_WALK_H

#include "node/ctl/ctl.h"

struct walk {
    struct ctl *ctl;
    struct buf lower;
    struct buf upper;
    struct holdfast_scan scan;
    struct holdfast_read_options read;
    struct holdfast_page *page; /* the current one, or NULL */
    bool at_end;
};

/* The range is the prefix (if not NULL), else [lower, upper). Borrows ctl, copies the rest. */
MUST_USE enum status walk_init(struct walk *walk, struct ctl *ctl, const char *prefix, struct slice lower,
                               struct slice upper);
void walk_deinit(struct walk *walk);
/* The next page in walk->page; at_end: there was none. The first page's revision is that of all. CTL_DONE, or the exit
 * code with the error said. */
enum ctl_exit walk_next(struct walk *walk);

#endif
