/*
 * Change files in a repair: which of them stay.
 *
 * A change names a key; its value is asked of the tables, at its revision. So they stay only where tables and values
 * lost nothing, else a change could be shown with a value of another entry: after a loss changes can be read from the
 * next entry on. And only the newest ones that are whole, one behind the other: what they hold has no gaps.
 *
 * The rest goes to lost/, as everything else that isn't the store's any more.
 */
#include "storage/repair_internal.h"

static enum status is_whole(struct repair *repair, const struct change_meta *meta, bool *ret_whole, struct error *err) {
    struct sst_verify_report report;
    struct sst *file = NULL;
    struct error found;
    enum status status = change_file_new(&repair->context, meta, &file);
    if (status == STATUS_OK) {
        status = change_verify(file, NULL, &report, &found);
        sst_free(file);
    }
    *ret_whole = status == STATUS_OK;
    return status == STATUS_NO_MEMORY ? repair__no_memory(repair, err) : STATUS_OK;
}

static enum status keep(struct repair *repair, size_t first, struct error *err) {
    struct manifest_state *outcome = &repair->outcome;
    const struct manifest_state *found = &repair->found;
    struct buf edit;
    buf_init(&edit, repair->alloc, 0);
    outcome->changes_after = first > 0 ? found->changes[first - 1].revision_last : found->changes_after;
    enum status status = manifest_put_next_file(&edit, repair->next_file);
    for (size_t i = first; i < found->changes_count && status == STATUS_OK; i++) {
        status = manifest_put_add_changes(&edit, &found->changes[i]);
    }
    if (status == STATUS_OK) {
        status = manifest_state_apply(outcome, buf_slice(&edit));
    }
    buf_deinit(&edit);
    return status == STATUS_OK ? status : repair__no_memory(repair, err);
}

enum status repair__keep_changes(struct repair *repair, struct error *err) {
    const struct storage_repair_report *report = repair->report;
    const struct manifest_state *found = &repair->found;
    bool lost_something = report->tables_lost + report->pieces_lost + report->values_lost > 0;
    size_t first = found->changes_count;
    if (!report->manifest_used || lost_something || repair->outcome.frontier.index != found->frontier.index) {
        return STATUS_OK;
    }
    for (bool whole = true; first > 0; first--) {
        enum status status = is_whole(repair, &found->changes[first - 1], &whole, err);
        if (status != STATUS_OK) {
            return status;
        }
        if (!whole) {
            break;
        }
    }
    /* With none of them left: those that were lost reached as far as the newest did. */
    return keep(repair, first, err);
}
