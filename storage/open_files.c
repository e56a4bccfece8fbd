/* The cap on open files: see open_files.h for the states and why pins and the hand can't miss each other. */
#include "storage/open_files.h"

#include <errno.h>

enum {
    CLOSE_AT_ONCE = 16 /* files closed by one open at most: bounds its time, and takes the cap down in a few opens */
};

struct open_files {
    struct env *env;
    uint32_t open_max;
    struct env_mutex lock; /* guards the rest, and each slot's */
    struct list open;      /* open_file.link; the hand takes from the front */
    uint32_t open_count;   /* those that are being opened included */
    uint64_t opened_total;
    uint64_t closed_total;
};

/* One thread that waits for another one's open; on its stack. */
struct opener {
    struct env_waiter waiter;
    struct list link;
};

enum status open_files_new(struct env *env, uint32_t open_max, struct open_files **ret_files, struct error *err) {
    CHECK(open_max > 0);
    struct open_files *files = mem_alloc_zero(env->alloc, sizeof *files);
    if (files == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "open files: out of memory");
    }
    files->env = env;
    files->open_max = open_max;
    env_mutex_init(&files->lock, env);
    list_init(&files->open);
    *ret_files = files;
    return STATUS_OK;
}

void open_files_free(struct open_files *files) {
    if (files == NULL) {
        return;
    }
    CHECK(list_is_empty(&files->open) && files->open_count == 0);
    mem_free(files->env->alloc, files);
}

void open_file_init(struct open_file *file, struct open_files *files) {
    *file = (struct open_file){.files = files};
    atomic_init(&file->state, 0);
    list_init(&file->link);
    list_init(&file->openers);
}

void open_file__set_used(struct open_file *file) {
    (void)atomic_fetch_or_explicit(&file->state, OPEN_FILE_USED, memory_order_relaxed);
}

/* ---- Closing ----------------------------------------------------------------------------------------------------- */

/* The file at the hand: NULL if it was used or is pinned (it goes behind the others), else its handle, for the caller
 * to close. Under the lock. */
static struct env_file *step_hand(struct open_files *files) {
    struct open_file *file = LIST_ENTRY(list_pop_front(&files->open), struct open_file, link);
    uint32_t expected = OPEN_FILE_OPEN;
    if (!atomic_compare_exchange_strong_explicit(&file->state, &expected, 0, memory_order_acquire,
                                                 memory_order_relaxed)) {
        (void)atomic_fetch_and_explicit(&file->state, ~(uint32_t)OPEN_FILE_USED, memory_order_relaxed);
        list_push_back(&files->open, &file->link);
        return NULL;
    }
    struct env_file *handle = file->file;
    file->file = NULL;
    return handle;
}

/* Twice round: the first time takes the marks of use away. Under the lock. */
static struct env_file *find_idle(struct open_files *files, uint32_t *steps_left) {
    while (*steps_left > 0 && !list_is_empty(&files->open)) {
        (*steps_left)--;
        struct env_file *handle = step_hand(files);
        if (handle != NULL) {
            return handle;
        }
    }
    return NULL;
}

/* Closes files that nobody uses while more than open_max are open, CLOSE_AT_ONCE at most; returns how many. */
static uint32_t close_down_to(struct open_files *files, uint32_t open_max) {
    env_mutex_lock(&files->lock);
    uint32_t steps_left = 2 * files->open_count;
    env_mutex_unlock(&files->lock);
    uint32_t closed = 0;
    for (; closed < CLOSE_AT_ONCE; closed++) {
        env_mutex_lock(&files->lock);
        struct env_file *handle = files->open_count > open_max ? find_idle(files, &steps_left) : NULL;
        files->open_count -= handle != NULL;
        files->closed_total += handle != NULL;
        env_mutex_unlock(&files->lock);
        if (handle == NULL) {
            break;
        }
        env_close(handle);
    }
    return closed;
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

/* True: the caller opens it. False: another one did or tried to meanwhile; look again. */
static bool begin(struct open_files *files, struct open_file *file) {
    struct opener opener;
    env_waiter_init(&opener.waiter, files->env);
    env_mutex_lock(&files->lock);
    bool is_open = (atomic_load_explicit(&file->state, memory_order_relaxed) & OPEN_FILE_OPEN) != 0;
    bool waits = !is_open && file->is_being_opened;
    if (waits) {
        list_push_back(&file->openers, &opener.link);
    } else if (!is_open) {
        file->is_being_opened = true;
        files->open_count++;
    }
    env_mutex_unlock(&files->lock);
    if (waits) {
        env_waiter_wait(&opener.waiter);
    }
    return !waits && !is_open;
}

/* handle NULL: it failed. Else the file is open and pinned from here on. */
static void end(struct open_files *files, struct open_file *file, struct env_file *handle) {
    struct list waiting;
    list_init(&waiting);
    env_mutex_lock(&files->lock);
    if (handle != NULL) {
        file->file = handle;
        (void)atomic_fetch_add_explicit(&file->state, OPEN_FILE_OPEN + 1, memory_order_release);
        list_push_back(&files->open, &file->link);
        files->opened_total++;
    } else {
        files->open_count--;
    }
    file->is_being_opened = false;
    list_splice_back(&waiting, &file->openers);
    env_mutex_unlock(&files->lock);
    struct list *link;
    while ((link = list_pop_front(&waiting)) != NULL) {
        env_waiter_wake(&LIST_ENTRY(link, struct opener, link)->waiter); /* it is gone now */
    }
}

static bool is_out_of_descriptors(enum status status, const struct error *error) {
    return status != STATUS_OK && (error->sys == EMFILE || error->sys == ENFILE);
}

static enum status open_now(struct open_files *files, const char *path, struct env_file **ret_handle,
                            struct error *err) {
    (void)close_down_to(files, files->open_max);
    struct error error = {0};
    enum status status = env_open(files->env, path, ENV_OPEN_READ, ret_handle, &error);
    if (is_out_of_descriptors(status, &error) && close_down_to(files, 0) > 0) {
        status = env_open(files->env, path, ENV_OPEN_READ, ret_handle, &error);
    }
    if (status != STATUS_OK && err != NULL) {
        *err = error;
    }
    return status;
}

enum status open_file_open(struct open_file *file, const char *path, struct error *err) {
    struct open_files *files = file->files;
    while (open_file_pin(file) != STATUS_OK) {
        if (begin(files, file)) {
            struct env_file *handle = NULL;
            enum status status = open_now(files, path, &handle, err);
            end(files, file, handle);
            return status;
        }
    }
    return STATUS_OK;
}

/* ---- The end, statistics ------------------------------------------------------------------------------------------
 */

void open_file_deinit(struct open_file *file) {
    struct open_files *files = file->files;
    env_mutex_lock(&files->lock);
    CHECK(!file->is_being_opened && list_is_empty(&file->openers));
    uint32_t state = atomic_exchange_explicit(&file->state, 0, memory_order_acquire);
    CHECK((state & OPEN_FILE_PINS) == 0);
    struct env_file *handle = file->file;
    CHECK((handle != NULL) == ((state & OPEN_FILE_OPEN) != 0));
    file->file = NULL;
    list_remove(&file->link);
    files->open_count -= handle != NULL;
    files->closed_total += handle != NULL;
    env_mutex_unlock(&files->lock);
    env_close(handle);
}

void open_files_get_stats(struct open_files *files, struct open_files_stats *ret_stats) {
    env_mutex_lock(&files->lock);
    *ret_stats = (struct open_files_stats){.open_max = files->open_max,
                                           .open = files->open_count,
                                           .opened_total = files->opened_total,
                                           .closed_total = files->closed_total};
    env_mutex_unlock(&files->lock);
}
