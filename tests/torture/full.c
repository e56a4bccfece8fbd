/*
 * A disk that fills up and has room again, for real: `dir` lies on a small tmpfs.
 *
 *   writes -> a ballast file takes all the space -> writes until they are refused with STATUS_NO_SPACE -> reads and
 *   deletes go on -> closed, opened: all is there, reads and deletes go -> the ballast goes -> writes go again
 *
 * Would break this: a full disk that counts as a broken one, that loses what was acknowledged, or that keeps a store
 * from opening; deletes that need room which isn't there.
 */
#include "storage/engine.h"
#include "tests/torture/player.h"
#include "tests/torture/sweeps.h"

#include "node/base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KEYS = 4000, VALUE_BYTES = 1000, FIRST = 1500, DELETES = 100, RETRY_SECONDS_MAX = 10 };

struct filling {
    const char *dir;
    struct engine *engine;
    struct engine_options options;
    uint32_t values[KEYS]; /* which one each key has; 0: none */
    uint64_t checks;
};

static void make_pair(unsigned key, uint32_t version, char name[32], uint8_t value[VALUE_BYTES]) {
    (void)snprintf(name, 32, "key-%08u", key);
    memset(value, (int)(key % 251), VALUE_BYTES);
    memcpy(value, &version, sizeof version);
}

static enum status put(struct filling *filling, unsigned key, uint32_t version, struct error *err) {
    char name[32];
    uint8_t value[VALUE_BYTES];
    make_pair(key, version, name, value);
    enum status status = engine_put(filling->engine, NULL, slice_of_string(name), slice_of(value, sizeof value), err);
    if (status == STATUS_OK) {
        filling->values[key] = version;
    }
    return status;
}

static void check_all(struct filling *filling) {
    for (unsigned key = 0; key < KEYS; key++) {
        char name[32];
        uint8_t want[VALUE_BYTES];
        struct engine_value value;
        struct error err;
        memset(&value, 0, sizeof value);
        error_clear(&err);
        make_pair(key, filling->values[key], name, want);
        enum status status = engine_get(filling->engine, NULL, slice_of_string(name), &value, &err);
        bool right = filling->values[key] == 0
                         ? status == STATUS_NOT_FOUND
                         : status == STATUS_OK && slice_equal(value.bytes, slice_of(want, sizeof want));
        if (!right) {
            torture_fail(NULL, NULL, "key %u: %s, wanted version %u: %s", key, status_name(status),
                         filling->values[key], err.message);
        }
        if (status == STATUS_OK) {
            engine_value_release(&value);
        }
        filling->checks++;
    }
}

static void reopen(struct filling *filling) {
    struct error err;
    engine_close(filling->engine);
    enum status status = engine_open(&filling->options, &filling->engine, &err);
    if (status != STATUS_OK) {
        torture_fail(NULL, NULL, "opening: %s: %s", status_name(status), err.message);
    }
}

/* All the space that is left. */
static void fill_disk(const char *path) {
    static uint8_t bytes[64 * 1024];
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    ssize_t count;
    do {
        count = write(fd, bytes, sizeof bytes);
    } while (count > 0);
    CHECK(count < 0 && errno == ENOSPC);
    (void)close(fd);
}

static void delete_some(struct filling *filling, unsigned from, const char *when) {
    for (unsigned key = from; key < from + DELETES; key++) {
        char name[32];
        struct error err;
        (void)snprintf(name, sizeof name, "key-%08u", key);
        enum status status = engine_delete(filling->engine, NULL, slice_of_string(name), &err);
        if (status != STATUS_OK) {
            torture_fail(NULL, NULL, "a delete (%u) %s: %s: %s", key - from, when, status_name(status), err.message);
        }
        filling->values[key] = 0;
    }
}

/* Writes until there is no room; how many were taken. */
static unsigned write_until_full(struct filling *filling) {
    struct error err;
    for (unsigned i = 0;; i++) {
        enum status status = put(filling, (FIRST + i) % KEYS, 2 + i, &err);
        if (status == STATUS_NO_SPACE) {
            return i;
        }
        if (status != STATUS_OK) {
            torture_fail(NULL, NULL, "a write on a full disk: %s: %s", status_name(status), err.message);
        }
        if (i > 100 * 1000) {
            torture_fail(NULL, NULL, "the disk is full, and writes go on and on");
        }
    }
}

/* Space is back: writes go on, soon. */
static void write_again(struct filling *filling) {
    struct error err;
    enum status status = STATUS_NO_SPACE;
    for (unsigned i = 0; status == STATUS_NO_SPACE && i < RETRY_SECONDS_MAX * 10; i++) {
        status = put(filling, 0, 1000 * 1000, &err);
        if (status == STATUS_NO_SPACE) {
            (void)nanosleep(&(struct timespec){.tv_nsec = 100 * 1000 * 1000}, NULL);
        }
    }
    for (unsigned i = 0; status == STATUS_OK && i < FIRST; i++) {
        status = put(filling, i, 1000 * 1000 + i, &err);
    }
    if (status != STATUS_OK) {
        torture_fail(NULL, NULL, "there is room again, and a write says %s: %s", status_name(status), err.message);
    }
}

bool real_fill(const struct sweep_options *options) {
    static struct filling filling;
    char ballast[512];
    char store[512];
    struct error err;
    if (options->dir == NULL) {
        return false;
    }
    torture_say_how("holdfast-torture fill --dir (a small tmpfs)");
    (void)snprintf(ballast, sizeof ballast, "%s/ballast", options->dir);
    (void)snprintf(store, sizeof store, "%s/store", options->dir);
    engine_options_init(&filling.options);
    filling.options.dir = store;
    filling.options.memtable_bytes = 1024 * 1024;
    filling.options.sst_bytes = 256 * 1024;
    filling.options.write_bytes_max = 64 * 1024;
    filling.options.log_group_bytes = 64 * 1024;
    filling.options.log_segment_bytes = 8 * 1024 * 1024; /* more than is written while the next one is being made */
    enum status status = engine_open(&filling.options, &filling.engine, &err);
    for (unsigned key = 0; status == STATUS_OK && key < FIRST; key++) {
        status = put(&filling, key, 1, &err);
    }
    if (status != STATUS_OK) {
        torture_fail(NULL, NULL, "before the disk is full: %s: %s", status_name(status), err.message);
    }
    fill_disk(ballast);
    unsigned taken = write_until_full(&filling);
    check_all(&filling);
    delete_some(&filling, 100, "on a full disk");
    check_all(&filling);
    fill_disk(ballast);
    reopen(&filling);
    check_all(&filling);
    delete_some(&filling, 300, "on a full disk, after a restart");
    reopen(&filling);
    check_all(&filling);
    CHECK(unlink(ballast) == 0);
    write_again(&filling);
    check_all(&filling);
    reopen(&filling);
    check_all(&filling);
    engine_close(filling.engine);
    printf("full disk: %u writes taken before it was, %d deletes on it, opened twice on it, %llu checks\n", taken,
           2 * DELETES, (unsigned long long)filling.checks);
    return true;
}
