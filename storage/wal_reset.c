/*
 * The log goes on behind another entry: its store took in a content that ends there (DESIGN rule 16).
 *
 *   idle --wal_reset--> all records void in memory, the reset waits --(a segment is prepared)--> start group with the
 *   reset written --> durable: the old segments may go
 *
 * The store's switch is the commit point, and comes before: the next opening does the same by itself if it finds that
 * the log lacks what the store has (wal_recover.c), so a crash before the start group is durable changes nothing. No
 * record is written in between: it would follow one that isn't there. It joins a group behind the start group.
 *
 * The log may reach beyond that entry: with records of a leader that lost its office, which nobody committed.
 *
 * Reads under way look again, and find nothing.
 */
#include "storage/wal_internal.h"

void wal_reset(struct wal *wal, const struct wal_frontier *base) {
    CHECK(wal->started && list_is_empty(&wal->pending) && wal->appending == NULL);
    CHECK(!wal->writing || wal->writing_group == NULL); /* a mark, say */
    CHECK(base->term >= wal->last_term && base->term <= wal->term);
    if (wal->failed || wal->closing) {
        return; /* the next opening does it */
    }
    wal__reads_cut(wal, wal->first_index);
    while (wal->cache.count > 0) {
        wal__cache_pop(wal);
    }
    wal__index_cut(&wal->index, 0);
    wal->first_index = base->index + 1;
    wal->last_index = base->index;
    wal->last_term = base->term;
    wal->sealed_index = base->index;
    wal->sealed_term = base->term;
    wal->synced_index = base->index;
    wal->commit_index = base->index;
    wal->applied_index = base->index;
    wal->reset_due = true;
    wal__wake_writer(wal);
}
