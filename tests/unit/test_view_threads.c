/*
 * Views taken and released on many threads while the owner publishes new ones, for ThreadSanitizer and for the eye.
 *
 * A read set here is a number of entries that its views may show: the owner publishes revisions and now and then
 * another read set, as an engine does when it switches memtables. A taker must never get a view whose read set doesn't
 * cover its revision, one that was recycled under it, or one older than what it knew to be published; every read set
 * must die exactly once, and only then.
 *
 * Would break these: a take that isn't counted before the view can be recycled, a count that is lost when the word is
 * exchanged, a plain store where a release is needed.
 */
#include "storage/view.h"

#include "node/base/check.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { REVISIONS = 60000, SWITCH_EVERY = 37, READERS = 3, HELD = 5 };

/* Stands for memtables and version: covers revisions up to `last`, readable while alive. */
struct cover {
    uint64_t first;
    uint64_t last;  /* plain: written before it is published; grows only by way of a new cover */
    uint64_t alive; /* plain: the owner clears it when the read set is dead */
};

struct world {
    struct view_publisher publisher;
    _Atomic uint64_t published;
    _Atomic unsigned mistakes;
    _Atomic unsigned dead_calls;
    _Atomic bool finished;
};

static void count_dead(struct view_publisher *publisher) {
    CONTAINER_OF(publisher, struct world, publisher)->dead_calls++;
}

static struct cover *cover_of(const struct read_set *read_set) { return (struct cover *)(void *)read_set->version; }

static struct read_set *new_set(uint64_t first) {
    struct read_set *read_set = calloc(1, sizeof *read_set);
    struct cover *cover = calloc(1, sizeof *cover);
    CHECK(read_set != NULL && cover != NULL);
    *cover = (struct cover){.first = first, .last = first + SWITCH_EVERY - 1, .alive = 1};
    read_set->version = (struct version *)(void *)cover;
    atomic_init(&read_set->refs, 1);
    return read_set;
}

static unsigned bury(struct world *world) {
    unsigned count = 0;
    struct read_set *read_set = view_collect_dead(&world->publisher);
    while (read_set != NULL) {
        struct read_set *next = read_set->next_dead;
        cover_of(read_set)->alive = 0;
        free(cover_of(read_set));
        free(read_set);
        read_set = next;
        count++;
    }
    return count;
}

static void look(struct world *world, const struct storage_view *view, uint64_t at_least) {
    const struct cover *cover = cover_of(view->read_set);
    bool right = view->revision >= at_least && cover->alive == 1 && view->revision >= cover->first &&
                 view->revision <= cover->last;
    world->mistakes += !right;
}

static void *take_and_release(void *context) {
    struct world *world = context;
    struct storage_view *held[HELD] = {NULL};
    unsigned turn = 0;
    while (!atomic_load_explicit(&world->finished, memory_order_relaxed)) {
        uint64_t at_least = atomic_load_explicit(&world->published, memory_order_acquire);
        struct storage_view *view = view_take(&world->publisher);
        look(world, view, at_least);
        if (turn++ % 3 == 0) { /* keep it for a while */
            struct storage_view **slot = &held[turn / 3 % HELD];
            if (*slot != NULL) {
                look(world, *slot, 0);
                view_release(*slot);
            }
            *slot = view;
        } else {
            view_release(view);
        }
    }
    for (int i = 0; i < HELD; i++) {
        if (held[i] != NULL) {
            look(world, held[i], 0);
            view_release(held[i]);
        }
    }
    return NULL;
}

static void test_view_taken_anywhere_is_whole_and_newest(void **state) {
    (void)state;
    static struct world world;
    pthread_t readers[READERS];
    view_publisher_init(&world.publisher, alloc_system(), NULL, count_dead);
    struct read_set *current = new_set(0);
    unsigned made = 1;
    unsigned buried = 0;
    view_publish(&world.publisher, view_reserve(&world.publisher), 0, current);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, take_and_release, &world), 0);
    }
    for (uint64_t revision = 1; revision <= REVISIONS; revision++) {
        struct storage_view *view = view_reserve(&world.publisher);
        assert_non_null(view);
        if (revision % SWITCH_EVERY == 0) {
            struct read_set *old = current;
            current = new_set(revision);
            made++;
            read_set_unref(&world.publisher, old);
        }
        view_publish(&world.publisher, view, revision, current);
        atomic_store_explicit(&world.published, revision, memory_order_release);
        if (revision % 1000 == 0) {
            buried += bury(&world);
        }
    }
    atomic_store(&world.finished, true);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(readers[i], NULL), 0);
    }
    assert_int_equal(world.mistakes, 0);
    assert_int_equal(view_count_held(&world.publisher), 0);
    view_retract(&world.publisher);
    read_set_unref(&world.publisher, current);
    buried += bury(&world);
    assert_int_equal(buried, made);
    assert_int_equal(world.dead_calls, made);
    view_publisher_deinit(&world.publisher);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_view_taken_anywhere_is_whole_and_newest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
