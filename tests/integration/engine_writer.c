/*
 * The writer and the judge of test_engine_kill, on the public header of the storage library.
 *
 *   holdfast-engine-writer write DIR STATE SEED    writes until it is killed
 *   holdfast-engine-writer check DIR STATE SEED    judges what is there: 0 right, 1 not; then the next life may begin
 *
 * Each thread numbers its operations 1, 2, 3, ... Which keys operation n of thread t touches, and how, follows from
 * (SEED, t, n). STATE, a mapped file, has for each thread the operation begun last and the one acknowledged last: it
 * survives the kill as the store must. So after a kill each thread's keys must be exactly as after operation `acked`,
 * or as after `begun` = acked + 1: a prefix of what the thread did, with all that was acknowledged, synced or not.
 *
 * A line of every life goes to stdout: operations, and how many of those in flight turned out to be there.
 */
#include "storage/engine.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS = 4, KEYS = 2000, VALUE_MAX = 3000, HUGE_BYTES = 2 * 1024 * 1024 };

struct progress {
    _Atomic uint64_t begun;
    _Atomic uint64_t acked;
    uint64_t padding[6];
};

enum action { ACTION_PUT, ACTION_DELETE, ACTION_PAIR };

struct operation {
    enum action action;
    bool sync;
    unsigned keys[2];
    size_t value_len;
};

struct writer {
    pthread_t thread;
    unsigned number;
};

static struct engine *engine;
static struct progress *progress;
static uint64_t seed;

static uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t z = a * 0x9e3779b97f4a7c15 + b;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static struct operation operation_of(unsigned thread, uint64_t number) {
    uint64_t bits = mix(mix(seed, thread + 1), number);
    struct operation operation = {.action = ACTION_PUT,
                                  .sync = bits % 16 == 0,
                                  .keys = {(unsigned)(bits >> 8) % KEYS, (unsigned)(bits >> 24) % KEYS},
                                  .value_len = (size_t)(bits >> 40) % (bits % 8 == 1 ? VALUE_MAX : 100) + 24};
    if (bits % 10 == 3) {
        operation.action = ACTION_DELETE;
    } else if (bits % 10 == 4) {
        operation.action = ACTION_PAIR;
    }
    if (bits % 3001 == 7) {
        operation.value_len = HUGE_BYTES; /* more than the log's memory holds */
    }
    return operation;
}

static struct slice key_of(char *memory, unsigned thread, unsigned key) {
    return slice_of(memory, (size_t)snprintf(memory, 32, "thread%u-%06u", thread, key));
}

/* Begins with the operation's number: that is what the judge reads. */
static struct slice value_of(uint8_t *memory, unsigned thread, uint64_t number, size_t len) {
    memset(memory, (int)('a' + number % 26), len);
    (void)snprintf((char *)memory, 24, "%u %llu", thread, (unsigned long long)number);
    return slice_of(memory, len);
}

static void must(enum status status, const struct error *err) {
    if (status != STATUS_OK) {
        fprintf(stderr, "%s: %s\n", status_name(status), err->message);
        exit(3);
    }
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static void perform(unsigned thread, uint64_t number, struct engine_batch *batch, uint8_t *memory) {
    const struct operation operation = operation_of(thread, number);
    const struct engine_write_options options = {.sync = operation.sync};
    struct error err;
    char keys[2][32];
    struct slice value = value_of(memory, thread, number, operation.value_len);
    struct slice key = key_of(keys[0], thread, operation.keys[0]);
    switch (operation.action) {
    case ACTION_PUT: must(engine_put(engine, &options, key, value, &err), &err); break;
    case ACTION_DELETE: must(engine_delete(engine, &options, key, &err), &err); break;
    case ACTION_PAIR:
        engine_batch_clear(batch);
        must(engine_batch_put(batch, key, value), &err);
        must(engine_batch_put(batch, key_of(keys[1], thread, operation.keys[1]), value), &err);
        must(engine_write(engine, &options, batch, &err), &err);
        break;
    }
}

static void *write_on(void *argument) {
    const struct writer *writer = argument;
    struct progress *mine = &progress[writer->number];
    struct engine_batch *batch = engine_batch_new(NULL);
    uint8_t *memory = malloc(HUGE_BYTES);
    for (uint64_t number = atomic_load(&mine->acked) + 1;; number++) {
        atomic_store(&mine->begun, number);
        perform(writer->number, number, batch, memory);
        atomic_store(&mine->acked, number);
    }
    return NULL;
}

static int write_until_killed(void) {
    struct writer writers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        writers[i].number = i;
        if (pthread_create(&writers[i].thread, NULL, write_on, &writers[i]) != 0) {
            return 3;
        }
    }
    printf("writing\n");
    fflush(stdout);
    (void)pthread_join(writers[0].thread, NULL); /* never */
    return 3;
}

/* ---- Judging ---------------------------------------------------------------------------------------------------- */

/* Per key the last operation that left a value there, after `last` operations. */
static void expected_after(unsigned thread, uint64_t last, uint64_t *holders) {
    memset(holders, 0, KEYS * sizeof *holders);
    for (uint64_t number = 1; number <= last; number++) {
        const struct operation operation = operation_of(thread, number);
        holders[operation.keys[0]] = operation.action == ACTION_DELETE ? 0 : number;
        if (operation.action == ACTION_PAIR) {
            holders[operation.keys[1]] = number;
        }
    }
}

/* The operation whose value stands there, 0 if none does, UINT64_MAX if it is nobody's. */
static uint64_t holder_of(unsigned thread, unsigned key) {
    static uint8_t memory[HUGE_BYTES];
    struct engine_value value;
    struct error err;
    char name[32];
    enum status status = engine_get(engine, NULL, key_of(name, thread, key), &value, &err);
    if (status == STATUS_NOT_FOUND) {
        return 0;
    }
    must(status, &err);
    uint64_t number = 0;
    if (value.bytes.len >= 24) {
        number = strtoull((const char *)value.bytes.data + 2, NULL, 10);
    }
    bool is_right = number > 0 && value.bytes.len == operation_of(thread, number).value_len &&
                    slice_equal(value.bytes, value_of(memory, thread, number, value.bytes.len));
    engine_value_release(&value);
    return is_right ? number : UINT64_MAX;
}

static bool is_as_after(unsigned thread, uint64_t last, const uint64_t *found, bool complain) {
    static uint64_t expected[KEYS];
    expected_after(thread, last, expected);
    for (unsigned key = 0; key < KEYS; key++) {
        if (found[key] != expected[key]) {
            if (complain) {
                fprintf(stderr, "thread %u, key %u: has operation %lld, expected %lld after %lld operations\n", thread,
                        key, (long long)found[key], (long long)expected[key], (long long)last);
            }
            return false;
        }
    }
    return true;
}

static int check(void) {
    static uint64_t found[KEYS];
    uint64_t total = 0;
    unsigned in_flight = 0;
    unsigned there = 0;
    for (unsigned thread = 0; thread < THREADS; thread++) {
        struct progress *mine = &progress[thread];
        uint64_t acked = atomic_load(&mine->acked);
        for (unsigned key = 0; key < KEYS; key++) {
            found[key] = holder_of(thread, key);
        }
        if (atomic_load(&mine->begun) > acked) {
            in_flight++;
            if (is_as_after(thread, acked + 1, found, false)) {
                there += !is_as_after(thread, acked, found, false);
                atomic_store(&mine->acked, ++acked);
                total += acked;
                continue;
            }
        }
        if (!is_as_after(thread, acked, found, true)) {
            return 1;
        }
        atomic_store(&mine->begun, acked);
        total += acked;
    }
    printf("%llu operations, %u in flight, %u of them are there\n", (unsigned long long)total, in_flight, there);
    return 0;
}

int main(int count, char **arguments) {
    struct engine_options options;
    struct error err;
    if (count != 5) {
        fprintf(stderr, "usage: %s write|check DIR STATE SEED\n", arguments[0]);
        return 2;
    }
    seed = strtoull(arguments[4], NULL, 10);
    int file = open(arguments[3], O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, THREADS * sizeof *progress) != 0) {
        return 3;
    }
    progress = mmap(NULL, THREADS * sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (progress == MAP_FAILED) {
        return 3;
    }
    engine_options_init(&options);
    options.dir = arguments[2];
    options.memtable_bytes = 4 << 20;
    must(engine_open(&options, &engine, &err), &err);
    if (strcmp(arguments[1], "write") == 0) {
        return write_until_killed();
    }
    int result = check();
    engine_close(engine);
    return result;
}
