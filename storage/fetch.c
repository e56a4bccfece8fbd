/*
 * Fetching: wants, rounds, completions. fetch.h says what it promises.
 *
 *   want: WANTED --fetch_start--> UNDER_WAY --> READY (held until it is asked for no more) or FAILED (told once)
 *                                     \--fails, or its checks do--> a worker reads it once more --/
 *
 * A want whose file is open and whose bytes aren't many is an env_io READ with the file pinned; all others are a
 * worker's job that does the blocking thing. Completions run on the fetch's loop, so the list needs no lock.
 */
#include "storage/fetch.h"

#include "node/base/check.h"
#include "storage/sst_internal.h"

/* Blocks beyond that are read, checked and unpacked by a worker: they would hold up a loop. */
enum { LARGE_BYTES = 256 * 1024 };

enum want_kind { WANT_TOP, WANT_BLOCK, WANT_WINDOW };
enum want_state { WANTED, UNDER_WAY, READY, FAILED };

struct fetch_want {
    struct fetch_want *next;
    struct fetch *fetch;
    struct sst *sst;
    enum want_kind kind;
    enum want_state state;
    enum sst_block_kind block_kind;
    struct sst_handle handle;  /* WANT_WINDOW: size is its length */
    uint8_t *window;           /* where it goes; the cursor's */
    struct cache_block *raw;   /* where a block goes as it is read */
    struct cache_block *block; /* READY, held */
    uint64_t round;            /* in which it was last asked for */
    bool pinned;               /* the file, by this want: it can be read without opening */
    bool retry;                /* raw failed its checks, or wasn't read: a worker reads once more */
    enum status status;
    struct error error;
    struct env_io io;
    struct env_work work;
};

/* ---- The list ---------------------------------------------------------------------------------------------------- */

static void want_free(struct fetch_want *want) {
    struct cache *cache = want->sst->context->cache;
    CHECK(want->state != UNDER_WAY);
    cache_release(cache, want->raw);
    cache_release(cache, want->block);
    if (want->pinned) {
        open_file_unpin(&want->sst->file);
    }
    if (want->state == WANTED) {
        want->fetch->wanted--;
    }
    mem_free(want->fetch->context->env->alloc, want);
}

static void remove_want(struct fetch_want **link) {
    struct fetch_want *want = *link;
    *link = want->next;
    want_free(want);
}

void fetch__drop_all(struct fetch *fetch) {
    CHECK(!fetch_is_busy(fetch));
    while (fetch->wants != NULL) {
        remove_want(&fetch->wants);
    }
    CHECK(fetch->wanted == 0);
}

/* Lets go of what nobody asked for in two rounds. One wouldn't do: who finds his partition gone from a cache that keeps
 * nothing doesn't come to ask for his block in that round. */
static void drop_stale(struct fetch *fetch) {
    struct fetch_want **link = &fetch->wants;
    while (*link != NULL) {
        if ((*link)->state != WANTED && (*link)->round + 2 < fetch->round) {
            remove_want(link);
        } else {
            link = &(*link)->next;
        }
    }
}

static struct fetch_want **find_want(struct fetch *fetch, enum want_kind kind, const struct sst *sst, uint64_t offset) {
    struct fetch_want **link = &fetch->wants;
    while (*link != NULL && ((*link)->kind != kind || (*link)->sst != sst || (*link)->handle.offset != offset)) {
        link = &(*link)->next;
    }
    return link;
}

static struct fetch_want *want_new(struct fetch *fetch, enum want_kind kind, struct sst *sst,
                                   const struct sst_handle *handle, struct error *err) {
    struct fetch_want *want = mem_alloc(fetch->context->env->alloc, sizeof *want);
    if (want == NULL) {
        (void)sst__no_memory(sst, sizeof *want, err);
        return NULL;
    }
    *want = (struct fetch_want){.fetch = fetch, .sst = sst, .kind = kind, .state = WANTED, .handle = *handle};
    want->round = fetch->round;
    want->next = fetch->wants;
    fetch->wants = want;
    fetch->wanted++;
    return want;
}

/* What a want that was asked for again has to say. STATUS_OK: it is ready. Removes it if it failed. */
static enum status ask_again(struct fetch_want **link, struct error *err) {
    struct fetch_want *want = *link;
    want->round = want->fetch->round;
    if (want->state == WANTED || want->state == UNDER_WAY) {
        return STATUS_PENDING;
    }
    if (want->state == READY) {
        return STATUS_OK;
    }
    enum status status = want->status;
    if (err != NULL) {
        *err = want->error;
    }
    remove_want(link);
    return status;
}

/* ---- Rounds ------------------------------------------------------------------------------------------------------ */

static void settle(struct fetch_want *want, enum status status) {
    struct fetch *fetch = want->fetch;
    CHECK(want->state == UNDER_WAY && fetch->under_way > 0 && status != STATUS_PENDING);
    want->status = status;
    want->state = status == STATUS_OK ? READY : FAILED;
    if (want->pinned) {
        open_file_unpin(&want->sst->file);
        want->pinned = false;
    }
    if (--fetch->under_way == 0) {
        fetch->options.ready(fetch); /* may be the end of fetch and want */
    }
}

/* On a worker: all that blocks. */
static void work_run(struct env_work *work) {
    struct fetch_want *want = CONTAINER_OF(work, struct fetch_want, work);
    struct sst *sst = want->sst;
    struct error *err = &want->error;
    if (want->kind == WANT_TOP) {
        want->status = sst__load_top(sst, err);
        return;
    }
    enum status status = want->pinned ? STATUS_OK : sst__pin(sst, err);
    if (status != STATUS_OK) {
        want->status = status;
        return;
    }
    want->pinned = true;
    if (want->kind == WANT_WINDOW) {
        want->status =
            (want->retry ? sst__read_again : sst__read)(sst, want->window, want->handle.size, want->handle.offset, err);
    } else if (want->retry) {
        struct cache_block *raw = want->raw;
        want->raw = NULL;
        want->status = sst__retry_block(sst, &want->handle, want->block_kind, raw, &want->block, err);
    } else {
        want->status = sst__read_block(sst, &want->handle, want->block_kind, &want->block, err);
    }
}

static void keep_block(struct fetch_want *want) {
    CHECK(want->block != NULL);
    struct cache_key key = {.id = want->sst->meta.id, .offset = want->handle.offset};
    want->block = cache_insert(want->sst->context->cache, &key, sst__cache_kind(want->block_kind), want->block,
                               want->fetch->options.fill_cache && sst__is_retained(want->block_kind, want->block));
}

static void work_done(struct env_work *work) {
    struct fetch_want *want = CONTAINER_OF(work, struct fetch_want, work);
    if (want->status == STATUS_OK && want->kind == WANT_BLOCK) {
        keep_block(want);
    }
    settle(want, want->status);
}

static void submit_work(struct fetch_want *want) {
    want->work = (struct env_work){.run = work_run, .done = work_done, .loop = want->fetch->options.loop};
    env_work_submit(want->fetch->context->env, ENV_WORK_SHORT, &want->work);
}

static void io_done(struct env_io *io) {
    struct fetch_want *want = CONTAINER_OF(io, struct fetch_want, io);
    struct sst *sst = want->sst;
    enum status status = io->status;
    if (status == STATUS_IO) {
        want->retry = true;
        submit_work(want);
        return;
    }
    if (status != STATUS_OK) {
        want->error = io->error;
        error_prefix(&want->error, "%s: reading at offset %llu", env_file_path(io->file),
                     (unsigned long long)io->offset);
    } else if (io->done_len != io->len) {
        status = sst__damaged(sst, STATUS_CORRUPT, "the file ends early: what stands", io->offset, &want->error);
    } else if (want->kind == WANT_BLOCK) {
        status = sst__unpack(sst, &want->handle, want->block_kind, want->raw, &want->block, &want->error);
        if (status == STATUS_CORRUPT) {
            want->retry = true;
            submit_work(want);
            return;
        }
        if (status == STATUS_UNSUPPORTED) {
            (void)sst__damaged(sst, status, "the block", io->offset, &want->error);
        }
        if (status == STATUS_OK) {
            want->raw = NULL; /* taken */
            keep_block(want);
        }
    }
    settle(want, status);
}

static void submit_read(struct fetch_want *want) {
    bool is_window = want->kind == WANT_WINDOW;
    want->io = (struct env_io){.kind = ENV_IO_READ,
                               .file = want->sst->file.file,
                               .data = is_window ? want->window : want->raw->data,
                               .len = is_window ? want->handle.size : want->raw->len,
                               .offset = want->handle.offset,
                               .hook = FAULT_SST_READ,
                               .done = io_done};
    env_io_submit(want->fetch->options.loop, &want->io);
}

void fetch_start(struct fetch *fetch) {
    CHECK(fetch->options.loop != NULL && fetch->wanted > 0 && !fetch_is_busy(fetch));
    fetch->round++;
    drop_stale(fetch);
    for (struct fetch_want *want = fetch->wants; want != NULL; want = want->next) {
        if (want->state != WANTED) {
            continue;
        }
        want->state = UNDER_WAY;
        fetch->wanted--;
        fetch->under_way++;
        if (want->pinned && !want->retry && (want->kind == WANT_WINDOW || want->raw != NULL)) {
            submit_read(want);
        } else {
            submit_work(want);
        }
    }
    CHECK(fetch->wanted == 0 && fetch->under_way > 0);
}

/* ---- Asking ------------------------------------------------------------------------------------------------------ */

enum status fetch__top(struct fetch *fetch, struct sst *sst, const struct sst_top **ret_top, struct error *err) {
    enum status status = STATUS_OK;
    *ret_top = sst__top(sst);
    if (*ret_top != NULL) {
        return STATUS_OK;
    }
    if (fetch->options.loop == NULL) {
        status = sst__load_top(sst, err);
        *ret_top = sst__top(sst);
        return status;
    }
    struct fetch_want **link = find_want(fetch, WANT_TOP, sst, 0);
    if (*link != NULL) {
        status = ask_again(link, err);
        CHECK(status != STATUS_OK); /* ready: then it is where we looked first */
        return status;
    }
    struct sst_handle none = {.offset = 0};
    return want_new(fetch, WANT_TOP, sst, &none, err) == NULL ? STATUS_NO_MEMORY : STATUS_PENDING;
}

static enum status read_now(struct fetch *fetch, struct sst *sst, const struct sst_handle *handle,
                            enum sst_block_kind kind, struct cache_block **ret_block, struct error *err) {
    struct cache_key key = {.id = sst->meta.id, .offset = handle->offset};
    struct cache_block *block = NULL;
    enum status status = sst__pin(sst, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = sst__read_block(sst, handle, kind, &block, err);
    open_file_unpin(&sst->file);
    if (status == STATUS_OK) {
        CHECK(block != NULL);
        *ret_block = cache_insert(sst->context->cache, &key, sst__cache_kind(kind), block,
                                  fetch->options.fill_cache && sst__is_retained(kind, block));
    }
    return status;
}

/* What needs no waiting. STATUS_PENDING: the want says how it is to be read. An armed fault hook is env_io's to play,
 * so nothing passes it by this way. */
static enum status try_without_waiting(struct fetch_want *want, void *data, size_t len, struct error *err) {
    struct sst *sst = want->sst;
    struct env *env = want->fetch->context->env;
    want->pinned = open_file_pin(&sst->file) == STATUS_OK;
    if (!want->pinned || (env->faults != NULL && fault_is_armed(env->faults, FAULT_SST_READ))) {
        return STATUS_PENDING;
    }
    enum status status = env_pread_nowait(sst->file.file, data, len, want->handle.offset, err);
    if (status == STATUS_IO) {
        error_clear(err);
        want->retry = true;
        return STATUS_PENDING;
    }
    if (status != STATUS_OK && status != STATUS_PENDING) {
        error_prefix(err, "%s: reading at offset %llu", env_file_path(sst->file.file),
                     (unsigned long long)want->handle.offset);
    }
    return status;
}

static enum status want_block(struct fetch_want *want, struct cache_block **ret_block, struct error *err) {
    struct sst *sst = want->sst;
    size_t len = (size_t)want->handle.size + SST_TRAILER_BYTES;
    if (len > LARGE_BYTES) {
        return STATUS_PENDING;
    }
    want->raw = cache_block_new(sst->context->cache, len);
    if (want->raw == NULL) {
        return sst__no_memory(sst, len, err);
    }
    enum status status = try_without_waiting(want, want->raw->data, len, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = sst__unpack(sst, &want->handle, want->block_kind, want->raw, &want->block, err);
    if (status == STATUS_OK) {
        want->raw = NULL; /* taken */
        keep_block(want);
        *ret_block = want->block;
        want->block = NULL;
    } else if (status == STATUS_CORRUPT) {
        want->retry = true;
        status = STATUS_PENDING;
    } else if (status == STATUS_UNSUPPORTED) {
        (void)sst__damaged(sst, status, "the block", want->handle.offset, err);
    }
    return status;
}

enum status fetch__missing(struct fetch *fetch, struct sst *sst, const struct sst_handle *handle,
                           enum sst_block_kind kind, struct cache_block **ret_block, struct error *err) {
    enum status status;
    if (fetch->options.loop == NULL) {
        return read_now(fetch, sst, handle, kind, ret_block, err);
    }
    struct fetch_want **link = find_want(fetch, WANT_BLOCK, sst, handle->offset);
    if (*link != NULL) {
        status = ask_again(link, err);
        if (status == STATUS_OK) {
            cache_hold((*link)->block);
            *ret_block = (*link)->block;
        }
        return status;
    }
    struct fetch_want *want = want_new(fetch, WANT_BLOCK, sst, handle, err);
    if (want == NULL) {
        return STATUS_NO_MEMORY;
    }
    want->block_kind = kind;
    status = want_block(want, ret_block, err);
    if (status != STATUS_PENDING) {
        CHECK(fetch->wants == want);
        remove_want(&fetch->wants);
    }
    return status;
}

void fetch__forget_window(struct fetch *fetch, const uint8_t *data) {
    struct fetch_want **link = &fetch->wants;
    while (*link != NULL) {
        if ((*link)->kind == WANT_WINDOW && (*link)->window == data) {
            remove_want(link);
        } else {
            link = &(*link)->next;
        }
    }
}

enum status fetch__window(struct fetch *fetch, struct sst *sst, uint64_t offset, size_t len, uint8_t *data,
                          struct error *err) {
    enum status status;
    if (fetch->options.loop == NULL) {
        status = sst__pin(sst, err);
        if (status == STATUS_OK) {
            status = sst__read(sst, data, len, offset, err);
            open_file_unpin(&sst->file);
        }
        return status;
    }
    struct fetch_want **link = &fetch->wants;
    while (*link != NULL && ((*link)->kind != WANT_WINDOW || (*link)->window != data)) {
        link = &(*link)->next;
    }
    if (*link != NULL) {
        CHECK((*link)->sst == sst && (*link)->handle.offset == offset && (*link)->handle.size == len);
        status = ask_again(link, err);
        if (status == STATUS_OK) {
            remove_want(link);
        }
        return status;
    }
    struct sst_handle handle = {.offset = offset, .size = (uint32_t)len};
    struct fetch_want *want = want_new(fetch, WANT_WINDOW, sst, &handle, err);
    if (want == NULL) {
        return STATUS_NO_MEMORY;
    }
    want->window = data;
    status = try_without_waiting(want, data, len, err);
    if (status != STATUS_PENDING) {
        remove_want(&fetch->wants);
    }
    return status;
}
