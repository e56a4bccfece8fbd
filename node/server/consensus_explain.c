/*
 * What keeps each segment of the log: the log knows which segments hold records above the floor, this actor knows for
 * whom the floor is where it is (consensus_floor.c): the store, which has not flushed yet, and the members
 * that don't hold the records yet.
 *
 * A segment that was lent to the store as a value file is named as well: nothing holds it in the log for that, but its
 * bytes stay when the log lets go of it. Only this life's loans are known.
 *
 * A leader knows each member's index. A follower repeats the one number that the leader told it; who is behind it is
 * asked of the leader.
 */
#include "node/server/consensus_internal.h"

#include <stdio.h>

/* Fixed places in query->pins; members follow. */
enum pin {
    PIN_ACTIVE,
    PIN_NEWEST_DURABLE,
    PIN_NOT_FLUSHED,
    PIN_READER,
    PIN_ORDER,
    PIN_REBUILD, /* the store is filled again, and the log behind what it gets is needed */
    PIN_VALUES,  /* keeps the bytes, not the log's name for them */
    PIN_FLOOR,   /* nobody needs it any more; the floor moves at the next housekeeping */
    PIN_FIRST_MEMBER
};

static_assert(PIN_FIRST_MEMBER + LIMIT_MEMBERS <= CONSENSUS_LOG_PINS_MAX, "room for each member");
static_assert(CONSENSUS_LOG_PINS_MAX <= 32, "one bit each");

static struct consensus_log_pin *add_pin(struct consensus_log_query *query, uint64_t index) {
    struct consensus_log_pin *pin = &query->pins[query->pin_count++];
    *pin = (struct consensus_log_pin){.has_index = index != UINT64_MAX, .index = index == UINT64_MAX ? 0 : index};
    return pin;
}

static void add_named(struct consensus_log_query *query, enum pin place, const char *owner, uint64_t index) {
    CHECK(query->pin_count == (uint32_t)place);
    (void)snprintf(add_pin(query, index)->owner, sizeof query->pins[0].owner, "%s", owner);
}

/* What every member is known to hold, the leader as well as the others, is the hard pin; a leader's view of one member
 * may lag behind it after an election. */
static void add_members(const struct consensus *consensus, struct consensus_log_query *query) {
    const struct raft *raft = consensus->raft;
    uint64_t floor_index = raft_floor_index(raft);
    if (raft_role(raft) != RAFT_LEADER) {
        (void)snprintf(add_pin(query, floor_index)->owner, sizeof query->pins[0].owner,
                       floor_index > 0 ? "members, as a leader said" : "members: no leader has said yet");
        return;
    }
    const struct raft_config *membership = raft_membership(raft);
    for (uint32_t i = 0; i < membership->member_count; i++) {
        uint64_t id = membership->members[i].id;
        struct raft_peer_info info;
        if (id == consensus->options.config->id || raft_peer(raft, id, &info) != STATUS_OK) {
            continue;
        }
        uint64_t index = info.match_index > floor_index ? info.match_index : floor_index;
        bool has_snapshot = snapshots_pin_of(consensus->snapshots, id, &index);
        struct consensus_log_pin *pin = add_pin(query, index);
        (void)snprintf(pin->owner, sizeof pin->owner, "follower %s%s", member__name(consensus, id),
                       has_snapshot                         ? " (snapshot)"
                       : index + 1 < raft_first_index(raft) ? " (left behind)"
                                                            : "");
    }
}

static void fill_pins(const struct consensus *consensus, struct consensus_log_query *query) {
    query->pin_count = 0;
    add_named(query, PIN_ACTIVE, "active", wal_last_index(consensus->wal));
    add_named(query, PIN_NEWEST_DURABLE, "newest durable", wal_synced_index(consensus->wal));
    add_named(query, PIN_NOT_FLUSHED, "not flushed", storage_frontier(consensus->storage)->index);
    add_named(query, PIN_READER, "reader", UINT64_MAX);
    add_named(query, PIN_ORDER, "older segment", UINT64_MAX);
    add_named(query, PIN_REBUILD, "store to be filled again", rebuild__pin_index(consensus));
    add_named(query, PIN_VALUES, "store, as a value file", UINT64_MAX);
    add_named(query, PIN_FLOOR, "floor about to move", wal_floor_index(consensus->wal));
    add_members(consensus, query);
}

/* The bits of those that need records up to last_index of a segment above the floor. */
static uint32_t floor_owners(const struct consensus_log_query *query, uint64_t last_index) {
    uint32_t bits = query->pins[PIN_NOT_FLUSHED].index < last_index ? 1U << PIN_NOT_FLUSHED : 0;
    bool rebuilds = query->pins[PIN_REBUILD].has_index && query->pins[PIN_REBUILD].index < last_index;
    bits |= rebuilds ? 1U << PIN_REBUILD : 0;
    for (uint32_t i = PIN_FIRST_MEMBER; i < query->pin_count; i++) {
        bits |= query->pins[i].index < last_index ? 1U << i : 0;
    }
    return bits != 0 ? bits : 1U << PIN_FLOOR;
}

static uint32_t pins_of(const struct consensus_log_query *query, const struct wal_segment_info *info) {
    uint32_t bits = 0;
    bits |= (info->pins & WAL_PIN_ACTIVE) != 0 ? 1U << PIN_ACTIVE : 0;
    bits |= (info->pins & WAL_PIN_NEWEST_DURABLE) != 0 ? 1U << PIN_NEWEST_DURABLE : 0;
    bits |= (info->pins & WAL_PIN_READER) != 0 ? 1U << PIN_READER : 0;
    bits |= (info->pins & WAL_PIN_ORDER) != 0 ? 1U << PIN_ORDER : 0;
    bits |= info->is_lent ? 1U << PIN_VALUES : 0;
    bits |= (info->pins & WAL_PIN_FLOOR) != 0 ? floor_owners(query, info->last_index) : 0;
    return bits;
}

static void count_segment(void *context, const struct wal_segment_info *info) {
    struct consensus_log_query *query = context;
    query->segment_total++;
    query->file_bytes += info->file_bytes;
}

static void take_segment(void *context, const struct wal_segment_info *info) {
    struct consensus_log_query *query = context;
    uint32_t bits = pins_of(query, info);
    for (uint32_t i = 0; i < query->pin_count; i++) {
        struct consensus_log_pin *pin = &query->pins[i];
        if ((bits & 1U << i) != 0) {
            pin->segment_count++;
            pin->file_bytes += info->file_bytes;
            pin->age_us = info->age_us > pin->age_us ? info->age_us : pin->age_us;
        }
    }
    if (query->segment_count < query->segment_total && query->segment_count < CONSENSUS_LOG_SEGMENTS_MAX) {
        query->segments[query->segment_count++] = (struct consensus_log_segment){.info = *info, .pins = bits};
    }
}

static enum status explain(const struct consensus *consensus, struct consensus_log_query *query) {
    if (consensus->stopping) {
        return STATUS_UNAVAILABLE; /* the log may be closed */
    }
    wal_explain(consensus->wal, count_segment, query);
    uint64_t count =
        query->segment_total < CONSENSUS_LOG_SEGMENTS_MAX ? query->segment_total : CONSENSUS_LOG_SEGMENTS_MAX;
    query->segments = mem_alloc(consensus->options.env->alloc, (size_t)(count + 1) * sizeof *query->segments);
    if (query->segments == NULL) {
        return STATUS_NO_MEMORY;
    }
    query->first_index = wal_first_index(consensus->wal);
    query->last_index = wal_last_index(consensus->wal);
    query->floor_index = wal_floor_index(consensus->wal);
    fill_pins(consensus, query);
    wal_explain(consensus->wal, take_segment, query);
    return STATUS_OK;
}

static void run_done(struct env_message *message) {
    struct consensus_log_query *query = CONTAINER_OF(message, struct consensus_log_query, message);
    query->done(query);
}

static void run_query(struct env_message *message) {
    struct consensus_log_query *query = CONTAINER_OF(message, struct consensus_log_query, message);
    query->status = explain(query->consensus, query);
    query->message.run = run_done;
    env_post(query->loop, &query->message);
}

void consensus_explain_log(struct consensus *consensus, struct consensus_log_query *query) {
    query->consensus = consensus;
    query->segment_total = 0;
    query->file_bytes = 0;
    query->pin_count = 0;
    query->segment_count = 0;
    query->segments = NULL;
    query->message.run = run_query;
    env_post(consensus->options.loop, &query->message);
}
