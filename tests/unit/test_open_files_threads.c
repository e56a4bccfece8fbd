/*
 * Many threads on more files than may be open: pins, opens, the hand that closes. For ThreadSanitizer and for the eye:
 * what is pinned is open and is the right file.
 *
 * Would break these: a handle that is closed while pinned; two threads that open one slot; a pin that sees OPEN before
 * the handle is there; an opener that is never woken.
 */
#include "node/env/os/env_os.h"
#include "storage/open_files.h"
#include "tests/unit/support/support.h"

#include <pthread.h>
#include <stdio.h>

enum { THREADS = 4, SLOTS = 12, CAP = 3, ROUNDS = 4000, PATH_BYTES = 256 };

static struct env *env;
static struct open_files *files;
static struct open_file slots[SLOTS];
static char paths[SLOTS][PATH_BYTES];
static _Atomic unsigned inside[SLOTS]; /* threads that hold a pin */
static struct error err;

static void use(unsigned slot, bool must_be_open) {
    enum status status = open_file_pin(&slots[slot]);
    if (status == STATUS_PENDING) {
        CHECK(!must_be_open);
        status = open_file_open(&slots[slot], paths[slot], NULL);
    }
    CHECK(status == STATUS_OK);
    (void)atomic_fetch_add(&inside[slot], 1);
    unsigned content = 0;
    size_t len = 0;
    status = env_pread(slots[slot].file, &content, sizeof content, 0, &len, NULL);
    CHECK(status == STATUS_OK && len == sizeof content && content == slot);
    CHECK(atomic_fetch_sub(&inside[slot], 1) > 0);
    open_file_unpin(&slots[slot]);
}

static void *use_always(void *context) {
    uint64_t random = *(uint64_t *)context;
    for (unsigned i = 0; i < ROUNDS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        use((unsigned)((random >> 33) % SLOTS), false);
    }
    return NULL;
}

static void test_pinned_files_stay_open_beside_the_hand(void **state) {
    (void)state;
    char *dir = test_dir_new();
    const struct env_os_options options = {.workers_short = 1, .workers_long = 1};
    assert_int_equal(env_os_new(&options, &env, &err), STATUS_OK);
    assert_int_equal(open_files_new(env, CAP, &files, &err), STATUS_OK);
    for (unsigned i = 0; i < SLOTS; i++) {
        (void)snprintf(paths[i], sizeof paths[i], "%s/%u", dir, i);
        struct env_file *file = NULL;
        assert_int_equal(env_open(env, paths[i], ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, &err), STATUS_OK);
        assert_int_equal(env_pwrite(file, &i, sizeof i, 0, &err), STATUS_OK);
        env_close(file);
        open_file_init(&slots[i], files);
    }
    assert_int_equal(open_file_open(&slots[0], paths[0], &err), STATUS_OK); /* pinned throughout */
    pthread_t threads[THREADS];
    uint64_t seeds[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        seeds[i] = i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, use_always, &seeds[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    use(0, true);
    open_file_unpin(&slots[0]);
    struct open_files_stats stats;
    open_files_get_stats(files, &stats);
    assert_int_equal(stats.opened_total - stats.closed_total, stats.open);
    assert_true(stats.open <= THREADS + CAP);
    assert_true(stats.closed_total > 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        open_file_deinit(&slots[i]);
    }
    open_files_free(files);
    env_os_free(env);
    test_dir_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pinned_files_stay_open_beside_the_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
