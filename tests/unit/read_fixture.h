/*
 * A view made by hand over memtables, level 0 tables and levels of tables on a simulated disk, filled from one random
 * history of puts, deletes and range deletes; and a model that looks at all of the history.
 *
 * It needs neither a manifest nor an owner: reads can be tested by themselves.
 */
#ifndef HOLDFAST_TESTS_READ_FIXTURE_H
#define HOLDFAST_TESTS_READ_FIXTURE_H

#include "storage/storage_read_internal.h"
#include "tests/unit/sst_fixture.h"

enum { OPERATIONS_MAX = 1200, HISTORY_KEYS = 60, GENERATIONS_MAX = 2, LEVEL0_MAX = 2, REVISION_OPERATIONS = 3 };

struct operation {
    enum batch_kind kind;
    uint32_t key; /* number of a name */
    uint32_t end; /* range deletes */
    uint64_t revision;
    uint32_t ordinal;
    uint8_t value[40];
    uint32_t value_len;
};

struct reads {
    struct world *world;
    struct env_loop *loop;
    struct operation operations[OPERATIONS_MAX];
    size_t count;
    uint64_t revision; /* last */
    char names[HISTORY_KEYS + 1][16];
    struct storage storage;
    struct view_publisher publisher;
    struct storage_view view;
    struct version version;
    struct sst *tables[STORAGE_LEVELS][TABLES_MAX];
    struct generation generations[GENERATIONS_MAX];
    struct read_set *read_set;
    struct random random;
    /* Of the io: */
    struct storage_io io;
    bool ready;
    uint64_t rounds;
};

static inline struct slice reads_name(const struct reads *reads, uint32_t key) {
    return slice_of_string(reads->names[key]);
}

/* Names grow, with lengths of 2 to 9 and many in common. */
static inline void reads_make_history(struct reads *reads) {
    for (uint32_t i = 0; i <= HISTORY_KEYS; i++) {
        (void)snprintf(reads->names[i], sizeof reads->names[i], "k%02u%.*s", i, (int)random_below(&reads->random, 7),
                       "abcdefg");
    }
    uint64_t revision = 0;
    uint32_t ordinal = REVISION_OPERATIONS;
    reads->count = OPERATIONS_MAX;
    for (size_t i = 0; i < reads->count; i++) {
        if (ordinal == REVISION_OPERATIONS) {
            revision++;
            ordinal = 0;
        }
        struct operation *operation = &reads->operations[i];
        *operation = (struct operation){.kind = BATCH_PUT,
                                        .key = (uint32_t)random_below(&reads->random, HISTORY_KEYS),
                                        .revision = revision,
                                        .ordinal = ordinal++};
        uint64_t dice = random_below(&reads->random, 40);
        if (dice == 0) {
            operation->kind = BATCH_DELETE_RANGE;
            operation->end = operation->key + 1 + (uint32_t)random_below(&reads->random, HISTORY_KEYS / 4);
            operation->end = operation->end > HISTORY_KEYS ? HISTORY_KEYS : operation->end;
        } else if (dice < 8) {
            operation->kind = BATCH_DELETE;
        } else {
            operation->value_len = (uint32_t)random_below(&reads->random, sizeof operation->value + 1);
            memset(operation->value, (int)i, operation->value_len);
        }
    }
    reads->revision = revision;
}

/* What the source with revisions (after, until] has in [first, last) of the keys. */
struct reads_part {
    struct entry entries[OPERATIONS_MAX];
    size_t entry_count;
    struct tombstone ranges[OPERATIONS_MAX];
    size_t range_count;
};

static inline void reads_collect(const struct reads *reads, uint64_t after, uint64_t until, uint32_t first,
                                 uint32_t last, struct reads_part *part) {
    part->entry_count = part->range_count = 0;
    for (size_t i = 0; i < reads->count; i++) {
        const struct operation *operation = &reads->operations[i];
        if (operation->revision <= after || operation->revision > until) {
            continue;
        }
        if (operation->kind == BATCH_DELETE_RANGE) {
            uint32_t start = operation->key > first ? operation->key : first;
            uint32_t end = operation->end < last ? operation->end : last;
            if (start < end) {
                part->ranges[part->range_count++] = (struct tombstone){reads_name(reads, start), reads_name(reads, end),
                                                                       operation->revision, operation->ordinal};
            }
        } else if (operation->key >= first && operation->key < last) {
            part->entries[part->entry_count++] =
                (struct entry){.key = {reads_name(reads, operation->key), operation->revision, operation->ordinal},
                               .value = slice_of(operation->value, operation->value_len),
                               .kind = operation->kind};
        }
    }
    qsort(part->entries, part->entry_count, sizeof part->entries[0], compare_entries);
}

static inline void reads_add_table(struct reads *reads, unsigned level, uint64_t after, uint64_t until, uint32_t first,
                                   uint32_t last) {
    static struct reads_part part;
    static struct tombstone marks[OPERATIONS_MAX * 8];
    struct tombstones *set;
    size_t mark_count = 0;
    reads_collect(reads, after, until, first, last, &part);
    if (part.entry_count + part.range_count == 0) {
        return;
    }
    assert_int_equal(tombstones_build(alloc_system(), part.ranges, part.range_count, &set), STATUS_OK);
    for (size_t i = 0; i < tombstones_count(set); i++) {
        struct tombstone_fragment fragment = tombstones_fragment(set, i);
        for (size_t k = 0; k < fragment.mark_count; k++) {
            assert_true(mark_count < sizeof marks / sizeof marks[0]);
            marks[mark_count++] =
                (struct tombstone){fragment.start, fragment.end, fragment.marks[k].revision, fragment.marks[k].ordinal};
        }
    }
    struct sst *table = add_table(reads->world, part.entries, part.entry_count, marks, mark_count);
    tombstones_free(set);
    reads->tables[level][reads->version.counts[level]++] = table;
}

static inline void reads_add_memtable(struct reads *reads, uint64_t after, uint64_t until) {
    struct memtable *memtable = memtable_new(alloc_system(), 1 << 16);
    struct batch_builder builder;
    batch_builder_init(&builder, alloc_system());
    for (size_t i = 0; i < reads->count; i++) {
        const struct operation *operation = &reads->operations[i];
        if (operation->revision <= after || operation->revision > until) {
            continue;
        }
        struct slice key = reads_name(reads, operation->key);
        enum status status = operation->kind == BATCH_PUT
                                 ? batch_builder_put(&builder, key, slice_of(operation->value, operation->value_len))
                             : operation->kind == BATCH_DELETE
                                 ? batch_builder_delete(&builder, key)
                                 : batch_builder_delete_range(&builder, key, reads_name(reads, operation->end));
        assert_int_equal(status, STATUS_OK);
        if (i + 1 == reads->count || reads->operations[i + 1].revision != operation->revision) {
            assert_int_equal(memtable_apply(memtable, operation->revision, batch_builder_batch(&builder)), STATUS_OK);
            batch_builder_clear(&builder);
        }
    }
    batch_builder_deinit(&builder);
    struct read_set *read_set = reads->read_set;
    struct generation *generation = &reads->generations[read_set->generation_count];
    generation->memtable = memtable;
    read_set->generations[read_set->generation_count++] = generation;
}

/* Sources from the newest to the oldest, each with an equal share of the history. */
static inline void reads_make_sources(struct reads *reads) {
    enum { SHARES = GENERATIONS_MAX + LEVEL0_MAX + 2 };
    uint64_t until = reads->revision;
    for (unsigned i = 0; i < SHARES; i++) {
        uint64_t after = i + 1 == SHARES ? 0 : until - reads->revision / SHARES;
        if (i < GENERATIONS_MAX) {
            reads_add_memtable(reads, after, until);
        } else if (i < GENERATIONS_MAX + LEVEL0_MAX) {
            reads_add_table(reads, 0, after, until, 0, HISTORY_KEYS);
        } else {
            /* A level of three tables, and one where some keys belong to no table. */
            unsigned level = i == SHARES - 1 ? 4 : 2;
            uint32_t cut = 10 + (uint32_t)random_below(&reads->random, 20);
            reads_add_table(reads, level, after, until, 0, cut);
            reads_add_table(reads, level, after, until, cut, cut + 9);
            reads_add_table(reads, level, after, until, cut + 9, HISTORY_KEYS);
        }
        until = after;
    }
}

static inline void reads_on_ready(struct storage_io *io) {
    struct reads *reads = CONTAINER_OF(io, struct reads, io);
    reads->ready = true;
    reads->rounds++;
}

static inline struct reads *reads_open(uint64_t seed, uint64_t cache_bytes) {
    struct reads *reads = calloc(1, sizeof *reads);
    random_seed(&reads->random, seed);
    reads->world = world_new(seed, cache_bytes, 4);
    reads_make_history(reads);
    reads->read_set = calloc(1, sizeof *reads->read_set + GENERATIONS_MAX * sizeof reads->read_set->generations[0]);
    reads->read_set->version = &reads->version;
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        reads->version.tables[level] = reads->tables[level];
    }
    reads_make_sources(reads);
    reads->storage.sst_context = reads->world->context;
    reads->publisher = (struct view_publisher){.storage = &reads->storage, .alloc = alloc_system()};
    reads->view =
        (struct storage_view){.revision = reads->revision, .read_set = reads->read_set, .publisher = &reads->publisher};
    assert_int_equal(env_loop_new(reads->world->env, "reads", 1000, &reads->loop, NULL), STATUS_OK);
    env_loop_run(reads->loop);
    storage_io_init(&reads->io, &reads->storage, reads->loop, reads_on_ready);
    return reads;
}

static inline void reads_close(struct reads *reads) {
    storage_io_deinit(&reads->io);
    for (size_t i = 0; i < reads->read_set->generation_count; i++) {
        memtable_free(reads->generations[i].memtable);
    }
    world_free(reads->world);
    free(reads->read_set);
    free(reads);
}

/* Lets the world run until the io is ready. */
static inline void reads_wait(struct reads *reads) {
    reads->ready = false;
    storage_io_start(&reads->io);
    assert_true(storage_io_is_busy(&reads->io));
    for (unsigned i = 0; !reads->ready; i++) {
        assert_true(i < 100000 && sim_step(reads->world->sim));
    }
}

/* The operation that shows at this revision; NULL: the key is absent. */
static inline const struct operation *reads_model(const struct reads *reads, uint32_t key, uint64_t revision) {
    for (size_t i = reads->count; i-- > 0;) {
        const struct operation *operation = &reads->operations[i];
        if (operation->revision > revision) {
            continue;
        }
        if (operation->kind == BATCH_DELETE_RANGE ? operation->key <= key && key < operation->end
                                                  : operation->key == key) {
            return operation->kind == BATCH_PUT ? operation : NULL;
        }
    }
    return NULL;
}

#endif
