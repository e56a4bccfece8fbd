/*
 * The scrub: reads all tables, value files and change files over and over, slowly, and checks every checksum, so that
 * rot is found while there is still somebody to heal it from.
 *
 *   file with the lowest number behind the last one's -> piece, piece, ... -> next file -> ... -> end of a pass
 *
 * A piece is one partition of a table with its data blocks, some values of a value file, some blocks of a change file,
 * or what a file ends with: about 128 KiB, or one value, read past the page cache, which would hide what the disk has.
 * (An adopted segment of the log is one piece, checked as the log checks it.) After each it pauses as long as its rate
 * says, holding no worker. Between pieces it holds one file, which it lets go of as soon as no version has it, and the
 * memory that its pieces are read into.
 *
 * What fails its check is read once more before it counts. The place is kept in memory only: after a restart it begins
 * anew.
 *
 * Owner, but for `run` and what it calls.
 */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "storage/change_file.h"
#include "storage/sst_internal.h"
#include "storage/storage_internal.h"

enum { WINDOW_BYTES = 256 * 1024, VALUES_PIECE_BYTES = 128 * 1024, EMPTY_PAUSE_US = 10 * 1000 * 1000 };

/* ---- Worker: reading past the cache ------------------------------------------------------------------------------ */

struct window {
    struct scrub_job *job;
    struct env_file *file;
    uint64_t end;   /* nothing from here on will be asked for: no reason to read it */
    uint64_t start; /* what it shows: [start, start + len) */
    size_t len;
};

static uint64_t round_up(uint64_t bytes) { return (bytes + ENV_BLOCK_BYTES - 1) / ENV_BLOCK_BYTES * ENV_BLOCK_BYTES; }

static enum status window_load(struct window *window, uint64_t offset, size_t len, struct error *err) {
    struct scrub_job *job = window->job;
    struct alloc *alloc = job->storage->env->alloc;
    uint64_t start = offset / ENV_BLOCK_BYTES * ENV_BLOCK_BYTES;
    uint64_t ahead = window->end > start ? window->end - start : 0;
    ahead = ahead < WINDOW_BYTES ? ahead : WINDOW_BYTES;
    size_t want = (size_t)round_up(offset + len - start > ahead ? offset + len - start : ahead);
    size_t got = 0;
    window->len = 0;
    if (want > job->window_capacity) {
        mem_free(alloc, job->window);
        job->window_capacity = 0;
        job->window = mem_alloc_aligned(alloc, ENV_BLOCK_BYTES, want);
        if (job->window == NULL) {
            return STATUS_NO_MEMORY;
        }
        job->window_capacity = want;
    }
    enum status status = env_pread(window->file, job->window, want, start, &got, err);
    if (status != STATUS_OK) {
        return status;
    }
    window->start = start;
    window->len = got;
    job->bytes += got;
    return STATUS_OK;
}

/* Borrowed until the next call. STATUS_CORRUPT: the file ends before. */
static enum status window_show(struct window *window, uint64_t offset, size_t len, struct slice *ret_bytes,
                               struct error *err) {
    if (offset < window->start || offset + len > window->start + window->len) {
        enum status status = window_load(window, offset, len, err);
        if (status != STATUS_OK) {
            return status;
        }
        if (offset + len > window->start + window->len) {
            return STATUS_CORRUPT;
        }
    }
    *ret_bytes = slice_of(window->job->window + (offset - window->start), len);
    return STATUS_OK;
}

/* ---- Worker: checking -------------------------------------------------------------------------------------------- */

static void keep_found(struct scrub_job *job, uint64_t offset) {
    if (job->found_count < SCRUB_FOUND_MAX) {
        job->found[job->found_count++] = offset;
    }
}

static void found(struct scrub_job *job, const char *what, uint64_t offset) {
    (void)sst__damaged(job->sst, STATUS_CORRUPT, what, offset, NULL);
    keep_found(job, offset);
}

/* What is right at this place, with a context for it. */
struct expectation {
    size_t len;
    const char *name;
    enum status (*check)(struct scrub_job *job, struct slice bytes, uint64_t offset, void *context);
    void *context;
};

/* STATUS_OK; STATUS_CORRUPT: found and noted; STATUS_NO_MEMORY. */
static enum status examine(struct window *window, uint64_t offset, const struct expectation *expectation) {
    struct scrub_job *job = window->job;
    enum status status = STATUS_CORRUPT;
    for (unsigned attempt = 0; attempt < 2 && status != STATUS_OK; attempt++) {
        struct slice bytes;
        struct error ignored;
        window->len = attempt == 0 ? window->len : 0;
        status = window_show(window, offset, expectation->len, &bytes, &ignored);
        if (status == STATUS_OK) {
            status = expectation->check(job, bytes, offset, expectation->context);
        }
        if (status == STATUS_NO_MEMORY) {
            return status;
        }
    }
    if (status != STATUS_OK) {
        found(job, expectation->name, offset);
        return STATUS_CORRUPT;
    }
    return STATUS_OK;
}

struct block_context {
    enum sst_block_kind kind;
    struct buf *body; /* gets the plain body; NULL: not needed */
};

static enum status check_block(struct scrub_job *job, struct slice bytes, uint64_t offset, void *context) {
    const struct block_context *block = context;
    struct sst_stored stored;
    enum status status = sst_block_check(bytes, block->kind, job->sst->meta.id, offset, &stored);
    if (status != STATUS_OK || block->body == NULL) {
        return status;
    }
    buf_clear(block->body);
    if (buf_reserve(block->body, stored.size) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    status = sst_block_unpack(job->storage->env->alloc, &stored, block->body->data);
    block->body->len = status == STATUS_OK ? stored.size : 0;
    return status;
}

static enum status examine_block(struct window *window, const struct sst_handle *handle, enum sst_block_kind kind,
                                 struct buf *body) {
    struct block_context context = {.kind = kind, .body = body};
    struct expectation expectation = {.len = (size_t)handle->size + SST_TRAILER_BYTES,
                                      .name = "the block",
                                      .check = check_block,
                                      .context = &context};
    return handle->size == 0 ? STATUS_OK : examine(window, handle->offset, &expectation);
}

static enum status check_header(struct scrub_job *job, struct slice bytes, uint64_t offset, void *context) {
    struct sst_header header;
    (void)offset;
    (void)context;
    enum status status = sst_header_decode(bytes.data, &header);
    return status == STATUS_OK && header.id != job->sst->meta.id ? STATUS_CORRUPT : status;
}

static enum status check_footer(struct scrub_job *job, struct slice bytes, uint64_t offset, void *context) {
    (void)offset;
    return sst_footer_decode(bytes.data, job->sst->meta.id, job->sst->meta.size_bytes, context);
}

/* ---- Worker: pieces ---------------------------------------------------------------------------------------------- */

static enum status scrub_partition(struct window *window, uint32_t part) {
    struct scrub_job *job = window->job;
    const struct sst_handle *here = &job->top->parts[part].handle;
    uint64_t start = sst__part_start(job->top, part);
    window->end = here->offset + here->size + SST_TRAILER_BYTES;
    struct sst_partition partition;
    struct block_cursor cursor;
    struct buf body;
    buf_init(&body, job->storage->env->alloc, 0);
    enum status status = examine_block(window, here, SST_BLOCK_PARTITION, &body);
    if (status == STATUS_OK) {
        status = sst_partition_open(buf_slice(&body), &partition);
        if (status == STATUS_OK) {
            status = block_cursor_open(&cursor, partition.index);
        }
        if (status == STATUS_OK) {
            status = block_cursor_first(&cursor);
        }
        for (; status == STATUS_OK; status = block_cursor_next(&cursor)) {
            struct sst_handle handle;
            status = sst_handle_decode(cursor.entry.value, start, here->offset, &handle);
            if (status == STATUS_OK) {
                status = examine_block(window, &handle, SST_BLOCK_DATA, NULL);
                status = status == STATUS_CORRUPT ? STATUS_OK : status; /* noted; on with the next */
            }
            if (status != STATUS_OK) {
                break;
            }
            start = handle.offset + handle.size + SST_TRAILER_BYTES;
        }
        if (status == STATUS_CORRUPT) {
            found(job, "the partition", here->offset);
        }
    }
    buf_deinit(&body);
    return status == STATUS_NO_MEMORY ? status : STATUS_OK;
}

/* Header, footer, and the blocks between which all others stand; of a value file or change file the list of them is
 * kept. */
static enum status scrub_ends(struct window *window) {
    struct scrub_job *job = window->job;
    struct sst_footer footer;
    struct expectation header = {.len = SST_HEADER_BYTES, .name = "the header", .check = check_header};
    struct expectation end = {.len = SST_FOOTER_BYTES, .name = "the footer", .check = check_footer, .context = &footer};
    enum status status = examine(window, 0, &header);
    if (status != STATUS_NO_MEMORY) {
        window->end = job->sst->meta.size_bytes;
        status = examine(window, job->sst->meta.size_bytes - SST_FOOTER_BYTES, &end);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = examine_block(window, &footer.tombstones, SST_BLOCK_TOMBSTONES, NULL);
    if (status != STATUS_NO_MEMORY) {
        bool is_list = job->sst->is_values || job->sst->is_changes;
        status = examine_block(window, &footer.top, SST_BLOCK_TOP, is_list ? &job->sizes : NULL);
        job->values_end = footer.top.offset;
    }
    enum status properties = STATUS_OK;
    if (status != STATUS_NO_MEMORY) {
        properties = examine_block(window, &footer.properties, SST_BLOCK_PROPERTIES, NULL);
    }
    return properties == STATUS_NO_MEMORY ? properties : status;
}

/* What leads to the rest of the table. */
static enum status load_top(struct scrub_job *job) {
    struct error err;
    enum status status = sst__pin(job->sst, &err);
    if (status == STATUS_OK) {
        status = sst__read_top(job->sst, &job->top, &err);
        open_file_unpin(&job->sst->file);
    }
    return status;
}

/* Goes on as long as the store does. */
static bool pace(void *context, uint64_t bytes) {
    struct scrub_job *job = context;
    (void)bytes;
    return !atomic_load_explicit(&job->storage->stop, memory_order_relaxed);
}

/* A segment of the log: its groups lead from one to the next, from its start on. */
static enum status scrub_segment(struct scrub_job *job, struct error *err) {
    const struct sst_verify_options options = {.pace = pace, .context = job};
    struct sst_verify_report report;
    enum status status = sst_verify(job->sst, &options, &report, err);
    job->bytes += report.bytes;
    job->is_done = true;
    if (report.findings > 0) {
        keep_found(job, report.first_offset); /* and the owner was told what it is */
    }
    return status == STATUS_CANCELLED ? STATUS_OK : status;
}

/* Some of a value file's values, from the next one on. */
static enum status scrub_values(struct window *window) {
    struct scrub_job *job = window->job;
    size_t count = job->sizes.len / VALUE_SIZE_BYTES;
    uint64_t from = job->value_at;
    enum status status = STATUS_OK;
    window->end = job->value_at + VALUES_PIECE_BYTES;
    while (job->part < count && job->value_at - from < VALUES_PIECE_BYTES && status != STATUS_NO_MEMORY) {
        struct sst_handle handle = {.offset = job->value_at,
                                    .size = get_u32(job->sizes.data + (size_t)job->part * VALUE_SIZE_BYTES)};
        if (handle.size == 0 || job->value_at + handle.size + SST_TRAILER_BYTES > job->values_end) {
            found(job, "the list of sizes", job->values_end);
            job->is_done = true;
            return STATUS_OK;
        }
        status = examine_block(window, &handle, SST_BLOCK_VALUE, NULL);
        if (status != STATUS_NO_MEMORY) { /* damage is noted: on with the next */
            job->value_at += (uint64_t)handle.size + SST_TRAILER_BYTES;
            job->part++;
        }
    }
    job->is_done = job->part == count;
    return status == STATUS_NO_MEMORY ? status : STATUS_OK;
}

/* Some of a change file's blocks, from the next one on. */
static enum status scrub_changes(struct window *window) {
    struct scrub_job *job = window->job;
    struct slice index = buf_slice(&job->sizes);
    size_t count = change_index_count(index);
    uint64_t bytes = 0;
    enum status status = STATUS_OK;
    while (job->part < count && bytes < VALUES_PIECE_BYTES && status != STATUS_NO_MEMORY) {
        struct change_index_entry entry;
        if (change_index_decode(index, job->part, job->values_end, &entry) != STATUS_OK) {
            found(job, "the index", job->values_end);
            job->is_done = true;
            return STATUS_OK;
        }
        window->end = entry.handle.offset + VALUES_PIECE_BYTES;
        status = examine_block(window, &entry.handle, SST_BLOCK_CHANGES, NULL);
        if (status != STATUS_NO_MEMORY) { /* damage is noted: on with the next */
            bytes += (uint64_t)entry.handle.size + SST_TRAILER_BYTES;
            job->part++;
        }
    }
    job->is_done = job->part == count;
    return status == STATUS_NO_MEMORY ? status : STATUS_OK;
}

/* The first piece of a file, then all others. */
static enum status scrub_first(struct window *window) {
    struct scrub_job *job = window->job;
    enum status status = scrub_ends(window);
    if (status == STATUS_NO_MEMORY) {
        return status;
    }
    if (job->sst->is_values) { /* without its sizes there is no way to the values */
        job->value_at = SST_HEADER_BYTES;
        job->has_ends = true;
        job->is_done = status != STATUS_OK || job->sizes.len < VALUE_SIZE_BYTES;
        return STATUS_OK;
    }
    if (job->sst->is_changes) {
        job->has_ends = true;
        job->is_done = status != STATUS_OK || change_index_count(buf_slice(&job->sizes)) == 0;
        return STATUS_OK;
    }
    status = load_top(job);
    job->has_ends = status == STATUS_OK;
    job->is_done = status == STATUS_OK && job->top->part_count == 0;
    return status;
}

static enum status scrub_rest(struct window *window) {
    struct scrub_job *job = window->job;
    if (job->sst->is_values) {
        return scrub_values(window);
    }
    if (job->sst->is_changes) {
        return scrub_changes(window);
    }
    enum status status = scrub_partition(window, job->part);
    job->part += status != STATUS_NO_MEMORY;
    job->is_done = job->part == job->top->part_count;
    return status;
}

static void free_window(struct scrub_job *job) {
    mem_free(job->storage->env->alloc, job->window);
    job->window = NULL;
    job->window_capacity = 0;
}

static enum status scrub_piece(struct scrub_job *job, struct error *err) {
    struct env *env = job->storage->env;
    struct window window = {.job = job};
    char path[LIMIT_PATH_BYTES];
    if (job->sst->is_log) {
        return scrub_segment(job, err);
    }
    sst_path(job->sst, path);
    enum status status = env_open(env, path, ENV_OPEN_READ | ENV_OPEN_DIRECT, &window.file, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = job->has_ends ? scrub_rest(&window) : scrub_first(&window);
    env_close(window.file);
    if (job->window_capacity > WINDOW_BYTES) {
        free_window(job); /* a large value's: too much to keep until the next piece */
    }
    return status;
}

static void run(struct env_work *work) {
    struct scrub_job *job = CONTAINER_OF(work, struct scrub_job, work);
    struct error err;
    job->bytes = 0;
    job->found_count = 0;
    enum status status = scrub_piece(job, &err);
    if (status != STATUS_OK && status != STATUS_NO_MEMORY && job->found_count == 0) {
        found(job, "the file", 0); /* it can't be opened, or what leads to its blocks is damaged */
    }
    job->status = status;
}

/* ---- Owner: what was found --------------------------------------------------------------------------------------- */

bool storage__is_live(const struct version *version, uint64_t number) {
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level]; i++) {
            if (version->tables[level][i]->meta.number == number) {
                return true;
            }
        }
    }
    for (size_t i = 0; i < version->value_file_count; i++) {
        if (version->value_files[i]->meta.number == number) {
            return true;
        }
    }
    for (size_t i = 0; i < version->change_file_count; i++) {
        if (version->change_files[i]->meta.number == number) {
            return true;
        }
    }
    return false;
}

static struct storage_damage *note(struct storage *storage, uint64_t file, uint64_t offset) {
    struct scrub_job *job = &storage->scrub;
    for (uint32_t i = 0; i < job->damage_count; i++) {
        struct storage_damage *damage = &job->damages[i];
        if (damage->file == file && damage->offset == offset) {
            damage->count++;
            return NULL;
        }
    }
    if (job->damage_count == STORAGE_DAMAGES_MAX) {
        job->damage_count--;
        memmove(job->damages, job->damages + 1, job->damage_count * sizeof job->damages[0]);
    }
    struct storage_damage *damage = &job->damages[job->damage_count++];
    *damage =
        (struct storage_damage){.file = file, .offset = offset, .count = 1, .since_us = env_clock_us(storage->env)};
    return damage;
}

static void report(struct storage *storage) {
    struct scrub_job *job = &storage->scrub;
    for (uint32_t i = 0; i < job->found_count; i++) {
        const struct storage_damage *damage = note(storage, job->sst->meta.number, job->found[i]);
        job->finding_total++;
        if (damage != NULL && !storage->closing && storage->options.damaged != NULL) {
            struct storage_damage copy = *damage;
            storage->options.damaged(storage->options.context, &copy);
        }
    }
}

void storage__fill_scrub_stats(struct storage *storage, struct storage_stats *stats) {
    struct scrub_job *job = &storage->scrub;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < job->damage_count; i++) {
        if (storage__is_live(storage->version, job->damages[i].file)) {
            job->damages[kept++] = job->damages[i];
        }
    }
    job->damage_count = kept;
    stats->scrub_passes = job->passes;
    stats->scrub_bytes = job->bytes_total;
    stats->scrub_findings = job->finding_total;
    stats->damage_count = kept;
    memcpy(stats->damages, job->damages, kept * sizeof job->damages[0]);
}

/* ---- Owner: going on --------------------------------------------------------------------------------------------- */

void storage__scrub_let_go(struct storage *storage) {
    struct scrub_job *job = &storage->scrub;
    CHECK(!job->running);
    sst__discard_top(storage->env->alloc, job->top);
    buf_deinit(&job->sizes);
    job->top = NULL;
    job->part = 0;
    job->has_ends = false;
    job->is_done = false;
    if (job->sst != NULL) {
        free_window(job);
        storage__unref_table(storage, job->sst);
        job->sst = NULL;
        storage__start_reaper(storage);
    }
}

/* Keeps the one with the lower number of those above `number`. */
static void choose(struct sst **next, struct sst *sst, uint64_t number) {
    if (sst->meta.number > number && (*next == NULL || sst->meta.number < (*next)->meta.number)) {
        *next = sst;
    }
}

/* The file with the lowest number above `number`. */
static struct sst *next_file(const struct version *version, uint64_t number) {
    struct sst *next = NULL;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level]; i++) {
            choose(&next, version->tables[level][i], number);
        }
    }
    for (size_t i = 0; i < version->value_file_count; i++) {
        choose(&next, version->value_files[i], number);
    }
    for (size_t i = 0; i < version->change_file_count; i++) {
        choose(&next, version->change_files[i], number);
    }
    return next;
}

static void done(struct env_work *work) {
    struct scrub_job *job = CONTAINER_OF(work, struct scrub_job, work);
    struct storage *storage = job->storage;
    uint64_t now_us = env_now_us(storage->loop);
    uint64_t from_us = job->next_us > now_us ? job->next_us : now_us;
    job->running = false;
    job->bytes_total += job->bytes;
    report(storage);
    if (job->status == STATUS_NO_MEMORY) {
        job->next_us = now_us + STORAGE_RETRY_US;
    } else {
        uint64_t rate = storage->options.scrub_bytes_per_second;
        job->next_us = from_us + (uint64_t)((double)job->bytes / (double)rate * 1e6);
        if (job->status != STATUS_OK || job->is_done) {
            storage__scrub_let_go(storage);
        }
    }
    storage__schedule(storage);
    storage__close_step(storage);
}

void storage__start_scrub(struct storage *storage) {
    struct scrub_job *job = &storage->scrub;
    uint64_t now_us = env_now_us(storage->loop);
    if (storage->options.scrub_bytes_per_second == 0 || job->running) {
        return;
    }
    if (job->sst != NULL && job->sst->obsolete) {
        storage__scrub_let_go(storage);
    }
    if (now_us < job->next_us) {
        storage__wake_at(storage, job->next_us);
        return;
    }
    if (job->sst == NULL) {
        struct sst *sst = next_file(storage->version, job->number);
        if (sst == NULL && job->number > 0) {
            job->passes++;
            job->number = 0;
            sst = next_file(storage->version, 0);
        }
        if (sst == NULL) {
            job->next_us = now_us + EMPTY_PAUSE_US;
            storage__wake_at(storage, job->next_us);
            return;
        }
        sst->refs++;
        job->sst = sst;
        buf_init(&job->sizes, storage->env->alloc, 0);
        job->number = sst->meta.number;
    }
    job->storage = storage;
    job->running = true;
    job->work = (struct env_work){.run = run, .done = done, .loop = storage->loop};
    env_work_submit(storage->env, ENV_WORK_LONG, &job->work);
}
