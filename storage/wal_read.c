/*
 * Reading records back while the log is written (for a follower that lags, or apply after a restart).
 *
 *   wal_read --(in memory)------------------------> ready ----------------> done   (shares the cached group's buffer)
 *            --(on disk)---> waiting --> fetching --> checked, compacted --> done   (a buffer of its own)
 *                               ^            |
 *                               +-- the log was cut meanwhile: look again
 *
 * A fetch reads a stretch of a segment from an index entry on, walks its groups, skips those below the wanted index,
 * checks what it takes (group, records, order) and moves the records together at the front of the same buffer. A group
 * that the stretch cuts off is read again from its start, with a buffer that holds it whole. At most WAL_READS_MAX
 * fetches run; more reads wait in order.
 */
#include "storage/wal_internal.h"

enum { FETCH_BYTES_MAX = 1024 * 1024 };

static void start_waiting(struct wal *wal);

/* ---- Answers ---------------------------------------------------------------------------------------------------- */

static void make_ready(struct wal *wal, struct wal_read *read) {
    list_push_back(&wal->reads_ready, &read->link);
    env_defer(wal->loop, ENV_STAGE_PROCESS, &wal->reads_task);
}

static void answer_ready(struct env_task *task) {
    struct wal *wal = CONTAINER_OF(task, struct wal, reads_task);
    struct list *node;
    while (!wal->closing && (node = list_pop_front(&wal->reads_ready)) != NULL) {
        struct wal_read *read = LIST_ENTRY(node, struct wal_read, link);
        read->done(read);
    }
}

static void fail(struct wal *wal, struct wal_read *read, enum status status) {
    read->status = status;
    if (read->error.code == STATUS_OK) {
        (void)error_set(&read->error, status, "log entry %llu can't be read: %s", (unsigned long long)read->first_index,
                        status_name(status));
    }
    make_ready(wal, read);
}

/* From memory: whole records of one group; the buffer stays while the read shows them. */
static bool answer_from_cache(struct wal *wal, struct wal_read *read) {
    uint32_t position;
    struct wal__group *group = wal__cache_find(wal, read->first_index, &position);
    if (group == NULL || !group->sealed) {
        return false;
    }
    struct slice part;
    size_t part_count;
    read->count = wal_cached(wal, read->first_index, read->count_max, read->bytes_max, &part, 1, &part_count);
    CHECK(read->count > 0 && part_count == 1);
    read->records = part;
    read->memory = group->buffer;
    group->buffer->references++;
    read->status = STATUS_OK;
    return true;
}

/* Records that no group is written for yet move when their group grows: copied. */
static bool answer_from_pending(struct wal *wal, struct wal_read *read) {
    struct slice part;
    size_t part_count;
    uint32_t count = wal_cached(wal, read->first_index, read->count_max, read->bytes_max, &part, 1, &part_count);
    if (count == 0) {
        return false;
    }
    struct wal__buffer *buffer = wal__buffer_take(&wal->pool, part.len);
    if (buffer == NULL) {
        fail(wal, read, STATUS_NO_MEMORY);
        return true;
    }
    memcpy(buffer->data, part.data, part.len);
    read->count = count;
    read->records = slice_of(buffer->data, part.len);
    read->memory = buffer;
    read->status = STATUS_OK;
    make_ready(wal, read);
    return true;
}

/* ---- Fetching --------------------------------------------------------------------------------------------------- */

static void free_fetch(struct wal__fetch *fetch) {
    struct wal *wal = fetch->wal;
    if (fetch->buffer != NULL) {
        wal__buffer_unref(&wal->pool, fetch->buffer);
        fetch->buffer = NULL;
    }
    if (fetch->segment != NULL) {
        CHECK(fetch->segment->readers > 0);
        fetch->segment->readers--;
        fetch->segment = NULL;
    }
    fetch->read = NULL;
    fetch->busy = false;
}

/* How far from an entry on groups follow each other without a cut between them. */
static void find_stretch(const struct wal *wal, size_t position, struct wal__fetch *fetch) {
    const struct wal__index *index = &wal->index;
    const struct wal__index_entry *entry = wal__index_at(index, position);
    fetch->segment = entry->segment;
    fetch->offset = entry->offset;
    fetch->end = entry->segment->written_end;
    fetch->limit_index = wal->synced_index;
    for (size_t i = position + 1; i < index->count; i++) {
        const struct wal__index_entry *next = wal__index_at(index, i);
        if (next->segment != entry->segment || next->after_cut) {
            fetch->limit_index =
                next->first_index - 1 < fetch->limit_index ? next->first_index - 1 : fetch->limit_index;
            break;
        }
        if (next->offset - entry->offset >= FETCH_BYTES_MAX) {
            break; /* more than one read takes */
        }
    }
}

/* Reads `len` bytes or to the end of the stretch at fetch->offset. False: no memory. */
static bool submit(struct wal__fetch *fetch, uint64_t len) {
    struct wal *wal = fetch->wal;
    CHECK(fetch->offset < fetch->end);
    uint64_t left = fetch->end - fetch->offset;
    size_t wanted = (size_t)(len < left ? len : left);
    if (fetch->buffer == NULL || fetch->buffer->capacity < wanted) {
        struct wal__buffer *buffer = wal__buffer_take(&wal->pool, wanted);
        if (buffer == NULL) {
            return false;
        }
        if (fetch->buffer != NULL) {
            wal__buffer_unref(&wal->pool, fetch->buffer);
        }
        fetch->buffer = buffer;
    }
    fetch->io.file = fetch->segment->file;
    fetch->io.data = fetch->buffer->data;
    fetch->io.len = wanted;
    fetch->io.offset = fetch->offset;
    env_io_submit(wal->loop, &fetch->io);
    return true;
}

static void start(struct wal__fetch *fetch, struct wal_read *read) {
    struct wal *wal = fetch->wal;
    CHECK(!fetch->busy);
    size_t position = wal__index_find(&wal->index, read->first_index);
    if (position == wal->index.count || read->first_index < wal->first_index || read->first_index > wal->synced_index) {
        fail(wal, read, STATUS_NOT_FOUND);
        return;
    }
    fetch->busy = true;
    fetch->read = read;
    fetch->stale = false;
    find_stretch(wal, position, fetch);
    fetch->segment->readers++;
    wal->stats.cache_misses++;
    uint64_t wanted = wal__padded((uint64_t)read->bytes_max < FETCH_BYTES_MAX ? read->bytes_max : FETCH_BYTES_MAX);
    wanted += WAL_INDEX_STRIDE + WAL_BLOCK_BYTES;
    if (!submit(fetch, wanted < FETCH_BYTES_MAX ? wanted : FETCH_BYTES_MAX)) {
        free_fetch(fetch);
        fail(wal, read, STATUS_NO_MEMORY);
    }
}

/* ---- Taking records out ----------------------------------------------------------------------------------------- */

/* What has been taken so far: at the front of the fetch's buffer. */
struct taken {
    uint32_t count;
    size_t len;
    bool full;
};

static void take_records(const struct wal__fetch *fetch, const struct wal__group_header *header, uint8_t *group,
                         struct taken *taken) {
    const struct wal_read *read = fetch->read;
    const uint8_t *at = group + WAL_GROUP_HEADER_BYTES + header->membership_bytes;
    for (uint32_t i = 0; i < header->record_count && !taken->full; i++) {
        struct wal_record record = wal__record_at(at);
        size_t len = record.bytes.len;
        at += len;
        if (record.index < read->first_index) {
            continue;
        }
        bool fits = taken->count == 0 || (taken->len + len <= read->bytes_max && taken->count < read->count_max);
        if (record.index > fetch->limit_index || !fits) {
            taken->full = true;
            break;
        }
        /* The front never catches up with the back: headers and skipped records leave a gap. */
        memmove(fetch->buffer->data + taken->len, record.bytes.data, len);
        taken->len += len;
        taken->count++;
    }
}

enum step {
    STEP_DONE,    /* taken holds the answer */
    STEP_READ_ON, /* nothing taken yet: read *ret_len bytes at *ret_offset */
    STEP_CORRUPT
};

/* Walks the groups of the buffer. */
static enum step take(const struct wal__fetch *fetch, size_t len, struct taken *taken, uint64_t *ret_offset,
                      uint64_t *ret_len) {
    uint64_t at = 0;
    while (!taken->full) {
        uint64_t offset = fetch->offset + at;
        bool at_end = offset >= fetch->end;
        uint64_t left = at < len ? len - at : 0;
        struct wal__group_header header;
        if (at_end || left < WAL_BLOCK_BYTES) {
            *ret_offset = offset;
            *ret_len = FETCH_BYTES_MAX;
            return taken->count > 0 ? STEP_DONE : at_end ? STEP_CORRUPT : STEP_READ_ON;
        }
        uint8_t *group = fetch->buffer->data + at;
        if (wal__group_header_decode(group, &header) != STATUS_OK || header.generation != fetch->segment->generation ||
            header.total_bytes > fetch->end - offset || header.first_index > fetch->read->first_index + taken->count) {
            return STEP_CORRUPT;
        }
        uint64_t padded = wal__padded(header.total_bytes);
        if (header.record_count > 0 && wal__group_last_index(&header) >= fetch->read->first_index) {
            if (header.total_bytes > left) {
                *ret_offset = offset;
                *ret_len = padded;
                return taken->count > 0 ? STEP_DONE : STEP_READ_ON;
            }
            if (wal__group_check_body(&header, group) != STATUS_OK) {
                return STEP_CORRUPT;
            }
            take_records(fetch, &header, group, taken);
        }
        at += padded;
    }
    return taken->count > 0 ? STEP_DONE : STEP_CORRUPT;
}

/* Ends the fetch with an answer. */
static void finish(struct wal__fetch *fetch, enum status status, const struct taken *taken) {
    struct wal *wal = fetch->wal;
    struct wal_read *read = fetch->read;
    uint64_t offset = fetch->offset;
    if (status == STATUS_OK) {
        read->status = STATUS_OK;
        read->count = taken->count;
        read->records = slice_of(fetch->buffer->data, taken->len);
        read->memory = fetch->buffer;
        fetch->buffer = NULL;
        make_ready(wal, read);
    } else {
        if (status == STATUS_CORRUPT) {
            (void)error_set(&read->error, status, "%s: damaged at or after %llu, entry %llu can't be read",
                            env_file_path(fetch->segment->file), (unsigned long long)offset,
                            (unsigned long long)read->first_index);
        }
        fail(wal, read, status);
    }
    free_fetch(fetch);
}

static void fetched(struct wal__fetch *fetch) {
    const struct env_io *io = &fetch->io;
    struct taken taken = {.count = 0};
    if (io->status != STATUS_OK) {
        fetch->read->error = io->error;
        finish(fetch, io->status, &taken);
        return;
    }
    uint64_t offset = 0;
    uint64_t len = 0;
    enum step step = take(fetch, io->done_len, &taken, &offset, &len);
    bool short_read = io->done_len < io->len; /* the file ends before what is known to be there */
    if (step == STEP_CORRUPT || (step == STEP_READ_ON && short_read)) {
        finish(fetch, STATUS_CORRUPT, &taken);
    } else if (step == STEP_DONE) {
        finish(fetch, STATUS_OK, &taken);
    } else {
        fetch->offset = offset;
        if (!submit(fetch, len)) {
            finish(fetch, STATUS_NO_MEMORY, &taken);
        }
    }
}

static void read_done(struct env_io *io) {
    struct wal__fetch *fetch = CONTAINER_OF(io, struct wal__fetch, io);
    struct wal *wal = fetch->wal;
    if (wal->closing) {
        free_fetch(fetch);
        wal__close_if_quiet(wal);
        return;
    }
    if (fetch->stale) {
        list_push_front(&wal->reads_waiting, &fetch->read->link);
        free_fetch(fetch);
    } else {
        fetched(fetch);
    }
    start_waiting(wal);
    wal__delete_more(wal); /* a segment may have waited for this read */
}

static void start_waiting(struct wal *wal) {
    for (size_t i = 0; i < WAL_READS_MAX && !list_is_empty(&wal->reads_waiting); i++) {
        if (!wal->fetches[i].busy) {
            struct wal_read *read = LIST_ENTRY(list_pop_front(&wal->reads_waiting), struct wal_read, link);
            if (answer_from_cache(wal, read)) {
                make_ready(wal, read);
            } else if (!answer_from_pending(wal, read)) {
                start(&wal->fetches[i], read);
            }
        }
    }
}

/* ---- The calls -------------------------------------------------------------------------------------------------- */

void wal_read(struct wal *wal, struct wal_read *read) {
    CHECK(wal->started && read->done != NULL && read->count_max > 0);
    CHECK(wal->appending == NULL);
    read->wal = wal;
    read->memory = NULL;
    read->count = 0;
    read->records = SLICE_EMPTY;
    error_clear(&read->error);
    list_init(&read->link);
    if (wal->failed || wal->closing) {
        fail(wal, read, STATUS_FAILED);
    } else if (read->first_index < wal->first_index || read->first_index > wal->last_index) {
        fail(wal, read, STATUS_NOT_FOUND);
    } else {
        list_push_back(&wal->reads_waiting, &read->link);
        start_waiting(wal);
    }
}

void wal_read_release(struct wal_read *read) {
    if (read->memory != NULL) {
        wal__buffer_unref(&read->wal->pool, read->memory);
        read->memory = NULL;
        read->records = SLICE_EMPTY;
    }
}

void wal__reads_cut(struct wal *wal, uint64_t index) {
    for (size_t i = 0; i < WAL_READS_MAX; i++) {
        struct wal__fetch *fetch = &wal->fetches[i];
        if (fetch->busy && fetch->limit_index >= index) {
            fetch->stale = true;
        }
    }
}

void wal__reads_abandon(struct wal *wal) {
    struct list *node;
    while ((node = list_pop_front(&wal->reads_ready)) != NULL) {
        wal_read_release(LIST_ENTRY(node, struct wal_read, link));
    }
    list_init(&wal->reads_waiting);
    env_task_cancel(&wal->reads_task);
}

void wal__reads_init(struct wal *wal) {
    list_init(&wal->reads_waiting);
    list_init(&wal->reads_ready);
    env_task_init(&wal->reads_task, answer_ready);
    for (size_t i = 0; i < WAL_READS_MAX; i++) {
        struct wal__fetch *fetch = &wal->fetches[i];
        fetch->wal = wal;
        fetch->io.kind = ENV_IO_READ;
        fetch->io.hook = FAULT_WAL_READ;
        fetch->io.done = read_done;
    }
}
