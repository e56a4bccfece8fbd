/*
 * Bytes from disk: records, group headers, and whole logs that were damaged.
 *
 * Input: a byte that says what the rest is.
 *   0  records, one behind the other, as they come from a peer or a file
 *   1  a group
 *   2  steps that damage a small sound log (three segments), each an operation byte, a segment byte, a block byte and
 * what the operation needs; then the log is opened, replayed, written to and opened again
 *   3  the same, but the newest segment was made out of an old one: behind its groups stand groups of an earlier life
 *
 * Checksums would stop nearly every change at once, so there are operations that make them right again. Checked: no
 * crash, nothing leaks, allocations stay small, what is replayed is contiguous, a log without a fault goes on where it
 * ended, and one with a fault isn't changed.
 */
#include "node/base/checksum.h"
#include "tests/unit/wal_harness.h"

enum { SEGMENTS = 3, IMAGE_BYTES = 64 * 1024, STEPS_MAX = 32, ALLOCATION_MAX = 4 * 1024 * 1024 };

static uint8_t images[SEGMENTS][IMAGE_BYTES];
static uint64_t image_bytes[SEGMENTS];

static void *bounded_resize(struct alloc *alloc, void *ptr, size_t size, size_t align) {
    (void)alloc;
    CHECK(size <= ALLOCATION_MAX);
    return alloc_system()->resize(alloc_system(), ptr, size, align);
}

static struct alloc bounded = {.resize = bounded_resize};

static struct harness *small_harness(void) {
    struct harness *harness = harness_new(1);
    harness->options.segment_bytes = IMAGE_BYTES;
    harness->options.group_bytes_max = 8 * 1024;
    harness->options.entry_payload_bytes_max = 1000;
    return harness;
}

static void append(struct harness *harness, uint64_t first, uint64_t last, uint64_t term) {
    wal_set_state(harness->wal, term, 1);
    for (uint64_t index = first; index <= last; index++) {
        CHECK(harness_append_len(harness, index, term, index * 37 % 700) == STATUS_OK);
    }
}

/* Some groups, a cut, a restart, a few more; once. */
static void make_images(void) {
    struct harness *harness = small_harness();
    harness_up(harness);
    CHECK(wal_set_membership(harness->wal, slice_of_string("n1 n2 n3")) == STATUS_OK);
    append(harness, 1, 4, 2);
    fake_settle(harness->fake);
    wal_set_commit(harness->wal, 2);
    append(harness, 4, 9, 3);
    fake_settle(harness->fake);
    harness_close(harness);
    harness_up(harness);
    append(harness, 8, 12, 4);
    fake_settle(harness->fake);
    append(harness, 13, 15, 4);
    fake_settle(harness->fake);
    harness_close(harness);
    for (uint64_t i = 0; i < SEGMENTS; i++) {
        const struct fake_inode *inode = harness_inode(harness, i + 1);
        CHECK(inode->size <= IMAGE_BYTES);
        image_bytes[i] = inode->size;
        memcpy(images[i], inode->seen, inode->size);
    }
    harness_free(harness);
}

/* ---- Damage ----------------------------------------------------------------------------------------------------- */

enum operation { PATCH, COPY, ZERO, TRUNCATE, FIX_GROUP, FIX_SEGMENT, SWAP, REMOVE, FRONTIER, OPERATION_COUNT };

static void put_checksum(uint8_t *at, size_t covered, uint64_t seed) {
    put_u64(at + covered, checksum64(at, covered, seed));
}

/* One step; false: the input is used up. */
static bool damage(struct harness *harness, struct slice *input) {
    uint8_t operation;
    uint8_t number;
    uint8_t block;
    if (!cursor_u8(input, &operation) || !cursor_u8(input, &number) || !cursor_u8(input, &block)) {
        return false;
    }
    struct fake_inode *inode = fake_file_at(harness->fake, harness_segment(number % SEGMENTS + 1u));
    uint64_t offset = block * (uint64_t)WAL_BLOCK_BYTES;
    if (inode == NULL || offset + WAL_BLOCK_BYTES > inode->size) {
        return true;
    }
    uint8_t *at = inode->seen + offset;
    uint16_t where = 0;
    uint8_t len = 0;
    struct slice bytes = SLICE_EMPTY;
    switch (operation % OPERATION_COUNT) {
    case PATCH:
        if (cursor_u16(input, &where) && cursor_u8(input, &len) && cursor_bytes(input, len % 32, &bytes)) {
            where %= WAL_BLOCK_BYTES - 32;
            if (bytes.len > 0) {
                memcpy(at + where, bytes.data, bytes.len);
            }
        }
        break;
    case COPY:
    case SWAP:
        if (cursor_u8(input, &len) && (len + 1ull) * WAL_BLOCK_BYTES <= inode->size) {
            uint8_t saved[WAL_BLOCK_BYTES];
            memcpy(saved, at, sizeof saved);
            memmove(at, inode->seen + len * (uint64_t)WAL_BLOCK_BYTES, WAL_BLOCK_BYTES);
            if (operation % OPERATION_COUNT == SWAP) {
                memcpy(inode->seen + len * (uint64_t)WAL_BLOCK_BYTES, saved, sizeof saved);
            }
        }
        break;
    case ZERO: memset(at, 0, WAL_BLOCK_BYTES); break;
    case TRUNCATE:
        if (cursor_u16(input, &where)) {
            inode->size = offset + where % WAL_BLOCK_BYTES;
        }
        break;
    case FIX_GROUP: put_checksum(at, WAL_GROUP_HEADER_BYTES - 8, 0x686f6c6466677268); break;
    case FIX_SEGMENT: put_checksum(at, WAL_SEGMENT_HEADER_BYTES - 8, 0x686f6c6466736567); break;
    case REMOVE: fake_take(&harness->fake->seen, harness_segment(number % SEGMENTS + 1u)); break;
    case FRONTIER:
        if (cursor_u8(input, &len)) {
            harness->frontier = (struct wal_frontier){.index = len % 24, .term = len % 24 == 0 ? 0 : len / 24 % 6};
        }
        break;
    default: CHECK(false);
    }
    return true;
}

static uint64_t checksum_of_disk(struct harness *harness) {
    uint64_t checksum = 0;
    for (size_t i = 0; i < harness->fake->seen.count; i++) {
        const struct fake_inode *inode = harness->fake->seen.list[i].inode;
        checksum += checksum64(inode->seen, inode->size, strlen(harness->fake->seen.list[i].path));
    }
    return checksum;
}

/* ---- Opening it ------------------------------------------------------------------------------------------------- */

struct replayed {
    uint64_t next;
    uint64_t term;
};

static enum status check_record(void *context, const struct wal_record *record, struct error *err) {
    struct replayed *replayed = context;
    (void)err;
    CHECK(record->index == replayed->next && record->term >= replayed->term);
    replayed->next++;
    replayed->term = record->term;
    return STATUS_OK;
}

static void open_and_use(struct harness *harness) {
    uint64_t before = checksum_of_disk(harness);
    enum status status = harness_open(harness);
    if (status != STATUS_OK) {
        CHECK(status == STATUS_CORRUPT || status == STATUS_INVALID || status == STATUS_UNSUPPORTED);
        harness->wal = NULL;
        return;
    }
    struct replayed replayed = {.next = wal_first_index(harness->wal)};
    uint64_t last = wal_last_index(harness->wal);
    status = wal_replay(harness->wal, replayed.next, last, check_record, &replayed, &harness->error);
    CHECK(status == STATUS_OK && replayed.next == last + 1);
    if (harness->recovered.fault.present) {
        harness_close(harness);
        CHECK(checksum_of_disk(harness) == before);
        return;
    }
    CHECK(harness->recovered.last_index == last && harness->recovered.commit <= last);
    uint64_t term = replayed.term > harness->recovered.term ? replayed.term : harness->recovered.term;
    harness_start(harness);
    fake_settle(harness->fake);
    wal_set_state(harness->wal, term + 1, 2);
    CHECK(harness_append_len(harness, last + 1, term + 1, 100) == STATUS_OK);
    fake_settle(harness->fake);
    CHECK(wal_synced_index(harness->wal) == last + 1);
    harness_close(harness);
    CHECK(harness_open(harness) == STATUS_OK && !harness->recovered.fault.present);
    CHECK(harness->recovered.last_index == last + 1 && harness->recovered.term == term + 1);
    harness_close(harness);
}

/* The newest segment as if it had been recycled. */
static void recycle(struct harness *harness) {
    struct fake_inode *inode = fake_file_at(harness->fake, harness_segment(SEGMENTS));
    uint64_t end = inode->size;
    fake_grow(inode, IMAGE_BYTES);
    for (uint64_t at = end; at < IMAGE_BYTES; at += WAL_BLOCK_BYTES) {
        uint64_t from = at < image_bytes[0] ? at : WAL_SEGMENT_HEADER_BYTES;
        memcpy(inode->seen + at, images[0] + from, WAL_BLOCK_BYTES);
    }
    inode->seen[12] = 1; /* flags: recycled */
    put_checksum(inode->seen, WAL_SEGMENT_HEADER_BYTES - 8, 0x686f6c6466736567);
}

static void fuzz_log(struct slice input, bool recycled) {
    struct harness *harness = small_harness();
    for (uint64_t i = 0; i < SEGMENTS; i++) {
        struct fake_inode *inode = fake_inode_new(harness->fake);
        fake_grow(inode, image_bytes[i]);
        memcpy(inode->seen, images[i], image_bytes[i]);
        fake_put(&harness->fake->seen, harness_segment(i + 1), inode);
    }
    if (recycled) {
        recycle(harness);
    }
    for (int step = 0; step < STEPS_MAX && damage(harness, &input); step++) {
    }
    harness->fake->env.alloc = &bounded;
    open_and_use(harness);
    harness_free(harness);
}

/* ---- The simple ones -------------------------------------------------------------------------------------------- */

static void fuzz_records(struct slice input) {
    struct wal_record record;
    const uint8_t *end = input.data + input.len;
    while (wal_record_decode(&input, &record, NULL) == STATUS_OK) {
        CHECK(record.payload.data + record.payload.len == input.data && input.data + input.len == end);
    }
}

static void fuzz_group(struct slice input) {
    struct wal__group_header header;
    if (input.len >= WAL_GROUP_HEADER_BYTES && wal__group_header_decode(input.data, &header) == STATUS_OK &&
        header.total_bytes <= input.len) {
        (void)!wal__group_check_body(&header, input.data);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (image_bytes[0] == 0) {
        make_images();
    }
    struct slice input = slice_of(data, size);
    uint8_t what;
    if (!cursor_u8(&input, &what)) {
        return 0;
    }
    switch (what % 4) {
    case 0: fuzz_records(input); break;
    case 1: fuzz_group(input); break;
    case 2: fuzz_log(input, false); break;
    default: fuzz_log(input, true);
    }
    return 0;
}
