/*
 * What the log says of itself: statistics of its writes, and for each segment file why it is there (DESIGN rule 11).
 *
 * Deleting asks the same questions in the same order (wal__delete_more); here they are answered one by one, so that
 * nothing that keeps a segment stays hidden behind something else.
 *
 * Owner: the loop. Nothing here changes the log but the counters.
 */
#include "node/base/histogram.h"
#include "storage/wal_internal.h"

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

void wal__count_write(struct wal *wal) {
    const struct wal__group_header *header = &wal->writing_header;
    struct wal_stats *stats = &wal->stats;
    uint64_t padded = wal__padded(header->total_bytes);
    uint64_t now_us = env_clock_us(wal->env);
    uint64_t took_us = now_us - wal->writing_since_us;
    stats->groups++;
    stats->triggers[wal->writing_trigger]++;
    stats->records += header->record_count;
    if (header->record_count > stats->group_records_max) {
        stats->group_records_max = header->record_count;
    }
    stats->record_bytes += header->record_count > 0 ? header->total_bytes - WAL_GROUP_HEADER_BYTES : 0;
    stats->padding_bytes += padded - header->total_bytes;
    stats->written_bytes += padded;
    stats->sync_us_total += took_us;
    stats->sync_us_max = took_us > stats->sync_us_max ? took_us : stats->sync_us_max;
    stats->sync_us_buckets[histogram_bucket(took_us, WAL_SYNC_BUCKETS)]++;
    stats->last_progress_us = now_us;
}

static uint64_t list_length(const struct list *head) {
    uint64_t length = 0;
    LIST_FOREACH (node, head) {
        length++;
    }
    return length;
}

void wal_get_stats(const struct wal *wal, struct wal_stats *ret_stats) {
    *ret_stats = wal->stats;
    ret_stats->inflight_since_us = wal->writing ? wal->writing_since_us : 0;
    ret_stats->segments = list_length(&wal->segments) + wal->prepared_count + wal->spare_segment_count;
    ret_stats->segments_spare = wal->spare_segment_count;
    ret_stats->segments_faulty = list_length(&wal->faulty);
    ret_stats->cache_bytes = wal->cache.bytes;
}

/* ---- Segments --------------------------------------------------------------------------------------------------- */

uint64_t wal_floor_index(const struct wal *wal) { return wal->floor_index; }

static uint32_t pins_of(const struct wal *wal, const struct wal__segment *segment, bool older_kept) {
    uint32_t pins = older_kept ? WAL_PIN_ORDER : 0;
    pins |= segment == wal->active ? WAL_PIN_ACTIVE : 0;
    pins |= segment == wal->durable_segment ? WAL_PIN_NEWEST_DURABLE : 0;
    pins |= segment->max_index > wal->floor_index ? WAL_PIN_FLOOR : 0;
    pins |= segment->readers > 0 ? WAL_PIN_READER : 0;
    return pins;
}

static struct wal_segment_info info_of(const struct wal *wal, const struct wal__segment *segment, uint64_t now_us) {
    uint64_t since_us = segment->begun_us > 0 ? segment->begun_us : wal->opened_us;
    return (struct wal_segment_info){.number = segment->number,
                                     .file_bytes = segment->bytes,
                                     .used_bytes = segment->end,
                                     .last_index = segment->max_index,
                                     .age_us = now_us > since_us ? now_us - since_us : 0,
                                     .begun_before_opened = segment->begun_us == 0,
                                     .readers = segment->readers,
                                     .is_lent = segment->lent > 0};
}

static void explain_list(const struct list *segments, const struct wal *wal, enum wal_segment_state state,
                         void (*each)(void *context, const struct wal_segment_info *info), void *context) {
    uint64_t now_us = env_clock_us(wal->env);
    LIST_FOREACH (node, segments) {
        struct wal_segment_info info = info_of(wal, LIST_ENTRY(node, struct wal__segment, link), now_us);
        info.state = state;
        if (state == WAL_SEGMENT_PREPARED || state == WAL_SEGMENT_SPARE) {
            info.age_us = 0;
            info.begun_before_opened = false;
        }
        each(context, &info);
    }
}

/* Oldest first, as the index is: one pass over both. */
static void explain_begun(const struct wal *wal, void (*each)(void *context, const struct wal_segment_info *info),
                          void *context) {
    uint64_t now_us = env_clock_us(wal->env);
    size_t position = 0;
    bool older_kept = false;
    LIST_FOREACH (node, &wal->segments) {
        const struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        struct wal_segment_info info = info_of(wal, segment, now_us);
        info.state = segment == wal->active ? WAL_SEGMENT_ACTIVE : WAL_SEGMENT_KEPT;
        info.pins = pins_of(wal, segment, older_kept);
        older_kept = true;
        while (position < wal->index.count && wal__index_at(&wal->index, position)->segment == segment) {
            uint64_t first_index = wal__index_at(&wal->index, position)->first_index;
            info.first_index = info.first_index == 0 ? first_index : info.first_index;
            position++;
        }
        each(context, &info);
    }
}

void wal_explain(const struct wal *wal, void (*each)(void *context, const struct wal_segment_info *info),
                 void *context) {
    explain_list(&wal->doomed, wal, WAL_SEGMENT_DOOMED, each, context);
    /* While the worker has them, it changes their `file` only. */
    explain_list(&wal->delete_job.segments, wal, WAL_SEGMENT_DOOMED, each, context);
    explain_begun(wal, each, context);
    explain_list(&wal->prepared, wal, WAL_SEGMENT_PREPARED, each, context);
    explain_list(&wal->spare_segments, wal, WAL_SEGMENT_SPARE, each, context);
    explain_list(&wal->faulty, wal, WAL_SEGMENT_FAULTY, each, context);
}
