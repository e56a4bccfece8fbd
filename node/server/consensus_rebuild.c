/* A damaged or differing store is filled again: one node's own. See rebuild.h. */
#include "node/server/consensus_internal.h"
#include "node/server/store_faulty.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    REBUILD_AGAIN_US = 60 * 1000 * 1000,     /* not before, after one that ended */
    REBUILD_LEADERLESS_US = 2 * 1000 * 1000, /* nobody leads for so long: this node may be the one to do it */
    REBUILD_HAND_OVER_US = 2 * 1000 * 1000,  /* between two attempts */
    REBUILD_WHOLE_US = 10 * 1000 * 1000      /* then what was set aside is of no use any more */
};

static void describe(const struct consensus *consensus, char *out, size_t size) {
    const struct consensus_rebuild *rebuild = &consensus->rebuild;
    switch (rebuild->reason) {
    case REBUILD_DAMAGE:
        (void)snprintf(out, size, "file %" PRIu64 " is damaged at %" PRIu64, rebuild->damage.file,
                       rebuild->damage.offset);
        return;
    case REBUILD_MISMATCH: (void)snprintf(out, size, "it differs from the majority"); return;
    case REBUILD_OPERATOR: (void)snprintf(out, size, "an operator asked for it"); return;
    }
}

static void set_state(struct consensus *consensus, enum rebuild_state state) {
    struct consensus_rebuild *rebuild = &consensus->rebuild;
    char why[ERROR_MESSAGE_BYTES_MAX];
    describe(consensus, why, sizeof why);
    rebuild->state = state;
    rebuild->whole_us = 0;
    log_event(consensus->options.logger, LOG_INFO, "store.rebuild",
              "state=\"%s\" applied=%" PRIu64 " flushed=%" PRIu64 " reason=\"%s\"",
              state == REBUILD_NONE ? "none" : rebuild_state_name(state), storage_applied_index(consensus->storage),
              storage_frontier(consensus->storage)->index, why);
}

/* ---- Why it is wanted ------------------------------------------------------------------------------------------- */

void rebuild__damaged(struct consensus *consensus, const struct storage_damage *damage) {
    struct consensus_rebuild *rebuild = &consensus->rebuild;
    if (!consensus->options.config->heal || rebuild->state != REBUILD_NONE) {
        return; /* one snapshot heals all that is damaged */
    }
    rebuild->damage = *damage;
    rebuild->reason = REBUILD_DAMAGE;
    set_state(consensus, REBUILD_WANTED);
}

void rebuild__want(struct consensus *consensus, enum rebuild_reason reason) {
    CHECK(reason == REBUILD_MISMATCH || reason == REBUILD_OPERATOR);
    struct consensus_rebuild *rebuild = &consensus->rebuild;
    if (rebuild->state == REBUILD_NONE) {
        rebuild->reason = reason;
        set_state(consensus, REBUILD_WANTED);
    }
    if (reason == REBUILD_OPERATOR) {
        rebuild->not_before_us = 0; /* who asks knows why */
    }
}

static bool is_over_by_itself(const struct consensus *consensus) {
    const struct consensus_rebuild *rebuild = &consensus->rebuild;
    switch (rebuild->reason) {
    case REBUILD_DAMAGE: return !storage_has_file(consensus->storage, rebuild->damage.file);
    case REBUILD_MISMATCH:
    case REBUILD_OPERATOR: return false;
    }
    return false;
}

/* ---- Asking ----------------------------------------------------------------------------------------------------- */

/* The last entry that a snapshot must have at least, for what follows it to be in the log. */
static uint64_t least_index(const struct consensus *consensus) {
    uint64_t first_index = wal_first_index(consensus->wal);
    return first_index > 1 ? first_index - 1 : 1;
}

static bool tell_raft(struct consensus *consensus, uint64_t index) {
    struct raft_event event = {.type = RAFT_EVENT_NEEDS_SNAPSHOT, .u.needs_snapshot = index};
    bool done = consensus__step(consensus, &event) == STATUS_OK;
    consensus->rebuild.asked_index = done ? index : consensus->rebuild.asked_index;
    return done;
}

/* Who doesn't campaign goes on taking for the leader whom it heard last. */
static bool is_led(struct consensus *consensus) {
    struct raft_info info;
    raft_get_info(consensus->raft, &info);
    uint64_t silent_us = consensus__raft_now_us(consensus) - info.leader_heard_us;
    uint64_t leader = raft_leader(consensus->raft);
    return leader == consensus->options.config->id ||
           (leader != RAFT_NO_NODE && silent_us < 2000ull * consensus->options.config->election_timeout_ms);
}

static void begin(struct consensus *consensus) {
    struct consensus_rebuild *rebuild = &consensus->rebuild;
    uint64_t leader = raft_leader(consensus->raft);
    if (is_over_by_itself(consensus)) {
        set_state(consensus, REBUILD_NONE);
        return;
    }
    if (consensus__now_us(consensus) < rebuild->not_before_us || !is_led(consensus)) {
        return;
    }
    if (leader == consensus->options.config->id) {
        uint64_t now_us = consensus__now_us(consensus);
        if (rebuild->handed_us != 0 && now_us - rebuild->handed_us < REBUILD_HAND_OVER_US) {
            return; /* writes wait for each attempt */
        }
        rebuild->handed_us = now_us;
        struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .u.target = RAFT_NO_NODE};
        (void)consensus__step(consensus, &event); /* refused: nobody can take over now; asked again */
        return;
    }
    if (tell_raft(consensus, least_index(consensus))) {
        rebuild->begun_us = consensus__now_us(consensus);
        rebuild->leader_us = rebuild->begun_us;
        set_state(consensus, REBUILD_ASKING);
    }
}

static void go_on_asking(struct consensus *consensus) {
    struct consensus_rebuild *rebuild = &consensus->rebuild;
    uint64_t now_us = consensus__now_us(consensus);
    if (is_led(consensus)) {
        rebuild->leader_us = now_us;
    }
    if (now_us - rebuild->leader_us >= REBUILD_LEADERLESS_US && !snapshots_hold_log(consensus->snapshots)) {
        if (tell_raft(consensus, 0)) {
            set_state(consensus, REBUILD_WANTED);
        }
        return;
    }
    uint64_t index = least_index(consensus);
    if (index > rebuild->asked_index) { /* the log's budget was over */
        (void)tell_raft(consensus, index);
    }
}

bool rebuild__wants(const struct consensus *consensus, uint64_t index, uint64_t term) {
    const struct raft *raft = consensus->raft;
    bool is_asking = consensus->rebuild.state == REBUILD_ASKING && raft_role(raft) != RAFT_LEADER;
    bool has_the_rest = index + 1 >= wal_first_index(consensus->wal) && index + 1 >= raft_first_index(raft);
    bool is_ours = raft_term_at(raft, index) == term;
    return is_asking && index > 0 && has_the_rest && (is_ours || raft_wants_snapshot(raft, index, term));
}

uint64_t rebuild__pin_index(const struct consensus *consensus) {
    return consensus->rebuild.state == REBUILD_ASKING ? consensus->rebuild.asked_index : UINT64_MAX;
}

/* ---- The end ---------------------------------------------------------------------------------------------------- */

void rebuild__installed(struct consensus *consensus) {
    struct consensus_rebuild *rebuild = &consensus->rebuild;
    if (rebuild->state == REBUILD_NONE) {
        return; /* raft wanted that one */
    }
    if (rebuild->state == REBUILD_ASKING && !tell_raft(consensus, 0)) {
        return; /* the node has failed */
    }
    rebuild->catch_up_index = storage_applied_index(consensus->storage);
    set_state(consensus, REBUILD_CATCHING_UP);
}

static void catch_up(struct consensus *consensus) {
    struct consensus_rebuild *rebuild = &consensus->rebuild;
    if (snapshots_hold_log(consensus->snapshots) ||
        storage_inserted_index(consensus->storage) < rebuild->catch_up_index) {
        return;
    }
    uint64_t now_us = consensus__now_us(consensus);
    rebuild->completed++;
    rebuild->failure[0] = '\0';
    rebuild->not_before_us = now_us + REBUILD_AGAIN_US;
    log_event(consensus->options.logger, LOG_INFO, "store.rebuilt", "index=%" PRIu64 " ms=%" PRIu64,
              storage_applied_index(consensus->storage), (now_us - rebuild->begun_us) / 1000);
    set_state(consensus, REBUILD_NONE);
}

void rebuild__failed(struct consensus *consensus, const char *message) {
    struct consensus_rebuild *rebuild = &consensus->rebuild;
    if (rebuild->state != REBUILD_ASKING || !tell_raft(consensus, 0)) {
        return;
    }
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    rebuild->failed++;
    rebuild->not_before_us = consensus__now_us(consensus) + REBUILD_AGAIN_US;
    (void)snprintf(rebuild->failure, sizeof rebuild->failure, "%s", message);
    log_event(consensus->options.logger, LOG_WARN, "store.not_rebuilt", "again_s=%d reason=%s",
              REBUILD_AGAIN_US / 1000000, log_quote(quoted, sizeof quoted, message));
    set_state(consensus, REBUILD_WANTED);
}

/* ---- What an earlier start set aside ---------------------------------------------------------------------------- */

static void run_tidy(struct env_work *work) {
    struct consensus *consensus = CONTAINER_OF(work, struct consensus, rebuild.work);
    const char *data_dir = consensus->options.config->data_dir;
    if (store_faulty_exists(consensus->options.env, data_dir)) {
        store_faulty_remove(consensus->options.env, data_dir);
    }
}

static void on_tidy(struct env_work *work) {
    struct consensus *consensus = CONTAINER_OF(work, struct consensus, rebuild.work);
    consensus->rebuild.is_tidying = false;
    if (consensus->stopping) {
        consensus__part_stopped(consensus);
    }
}

/* Once in a life, when this node has had all that the leader has for a while. */
static void tidy(struct consensus *consensus) {
    struct consensus_rebuild *rebuild = &consensus->rebuild;
    struct raft_info info;
    raft_get_info(consensus->raft, &info);
    uint64_t now_us = consensus__now_us(consensus);
    bool is_whole = info.heal_index == 0 && raft_leader(consensus->raft) != RAFT_NO_NODE &&
                    storage_applied_index(consensus->storage) > 0 && consensus->commit_index > 0 &&
                    storage_applied_index(consensus->storage) + CONSENSUS_APPLY_MAX >= consensus->commit_index;
    if (!is_whole) {
        rebuild->whole_us = 0;
    } else if (rebuild->whole_us == 0) {
        rebuild->whole_us = now_us;
    } else if (now_us - rebuild->whole_us >= REBUILD_WHOLE_US) {
        rebuild->is_tidy = true;
        rebuild->is_tidying = true;
        rebuild->work = (struct env_work){.run = run_tidy, .done = on_tidy, .loop = consensus->options.loop};
        env_work_submit(consensus->options.env, ENV_WORK_LONG, &rebuild->work);
    }
}

/* ---- For the others --------------------------------------------------------------------------------------------- */

uint32_t rebuild__stop(struct consensus *consensus) { return consensus->rebuild.is_tidying ? 1 : 0; }

void rebuild__update(struct consensus *consensus) {
    struct storage_damage damage;
    while (storage_next_damage(consensus->storage, &damage)) {
        consensus__damaged(consensus, &damage);
    }
    switch (consensus->rebuild.state) {
    case REBUILD_NONE:
        if (!consensus->rebuild.is_tidy) {
            tidy(consensus);
        }
        return;
    case REBUILD_WANTED: begin(consensus); return;
    case REBUILD_ASKING: go_on_asking(consensus); return;
    case REBUILD_CATCHING_UP: catch_up(consensus); return;
    }
}

static void say_problem(const struct consensus *consensus, char *out, size_t size) {
    const struct consensus_rebuild *rebuild = &consensus->rebuild;
    uint64_t now_us = env_now_us(consensus->options.loop);
    char why[ERROR_MESSAGE_BYTES_MAX];
    describe(consensus, why, sizeof why);
    if (rebuild->state == REBUILD_CATCHING_UP) {
        (void)snprintf(out, size, "the store was filled again (%.80s) and catches up with the log", why);
    } else if (rebuild->state == REBUILD_ASKING) {
        (void)snprintf(out, size, "the store is being filled again by the leader: %.120s", why);
    } else if (now_us < rebuild->not_before_us) {
        (void)snprintf(out, size, "the store is to be filled again in %" PRIu64 " s (%.80s); the last time: %.100s",
                       (rebuild->not_before_us - now_us) / 1000000 + 1, why,
                       rebuild->failure[0] != '\0' ? rebuild->failure : "it didn't help");
    } else if (raft_leader(consensus->raft) == RAFT_NO_NODE) {
        (void)snprintf(out, size, "the store is to be filled again (%.120s), but nobody leads", why);
    } else {
        (void)snprintf(out, size, "the store is to be filled again (%.120s), once another node has taken the lead",
                       why);
    }
}

void rebuild__fill_status(struct consensus *consensus, struct consensus_status *status) {
    const struct consensus_rebuild *rebuild = &consensus->rebuild;
    status->rebuild_state = rebuild->state;
    status->rebuilds = rebuild->completed;
    status->rebuilds_failed = rebuild->failed;
    status->rebuild_reason[0] = '\0';
    if (rebuild->state == REBUILD_NONE) {
        return;
    }
    describe(consensus, status->rebuild_reason, sizeof status->rebuild_reason);
    say_problem(consensus, status->problem, sizeof status->problem);
}
