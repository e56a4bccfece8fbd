/*
 * Ingest: a checkpoint's files become the content of a store that is open.
 *
 *   worker: the checkpoint is verified, no faster than the owner wants, its files linked under new numbers, the
 *           directory synced
 *   owner:  no job starts any more; those under way end, compactions give up
 *           and the owner of the log is asked, who may refuse
 *   worker: one switch of the manifest: the commit point
 *   owner:  the new version is published; memtables, tables, finished compactions of the old content go
 *
 * Before the switch a crash leaves the old store and links that no manifest names; the next opening removes them.
 * After it, the new store and the old tables, likewise. Nothing is applied from the asking to the end: what the log
 * has up to the checkpoint's frontier is in it.
 *
 * Change files come along: afterwards changes can be read as far back as they could be in the checkpoint.
 *
 * Going back. A store that is damaged takes in a checkpoint that is older than what it has applied. Then the switch
 * changes what the store consists of, but not what is shown: the published view holds the old content, files and
 * memtables, until the owner has applied the log behind the frontier again as far as is shown (inserted_index <
 * applied_index until then). The next view that is published shows the new content, at the revision that the old one
 * showed last, or a later one.
 *
 * A switch whose outcome is not known ends the store as any failed write of the manifest does; then no table of either
 * side is removed.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"
#include "storage/store_files.h"
#include "storage/verify.h"

#include <inttypes.h>

enum { NAP_US = 20 * 1000, PACED_US = 2 * 1000 /* less isn't slept for */ };

enum { STAGE_ASKED, STAGE_LINKED, STAGE_READY, STAGE_SWITCHED };

static struct storage_ingest *ingest_of(struct storage_upkeep *upkeep) {
    return CONTAINER_OF(upkeep, struct storage_ingest, upkeep);
}

/* ---- Worker: linking ------------------------------------------------------------------------------------------- */

/* The node has others to serve than this one. */
static void keep_pace(struct storage_ingest *ingest, uint64_t bytes) {
    struct env *env = ingest->upkeep.storage->env;
    if (ingest->bytes_per_second == 0) {
        return;
    }
    uint64_t now_us = env_clock_us(env);
    ingest->paced_us =
        (ingest->paced_us > now_us ? ingest->paced_us : now_us) + bytes * 1000 * 1000 / ingest->bytes_per_second;
    while (ingest->paced_us > now_us + PACED_US && !storage__upkeep_is_cancelled(&ingest->upkeep)) {
        uint64_t left_us = ingest->paced_us - now_us;
        env_sleep_us(env, left_us < NAP_US ? left_us : NAP_US);
        now_us = env_clock_us(env);
    }
}

static bool progress(void *context, uint64_t done_bytes, uint64_t total_bytes) {
    struct storage_ingest *ingest = context;
    uint64_t before_bytes = atomic_load_explicit(&ingest->upkeep.done_bytes, memory_order_relaxed);
    keep_pace(ingest, done_bytes > before_bytes ? done_bytes - before_bytes : 0);
    atomic_store_explicit(&ingest->upkeep.total_bytes, total_bytes, memory_order_relaxed);
    atomic_store_explicit(&ingest->upkeep.done_bytes, done_bytes, memory_order_relaxed);
    return !storage__upkeep_is_cancelled(&ingest->upkeep);
}

/* The files of a state, one after the other: tables, value files, change files. */
struct linking {
    uint64_t *number; /* in the state */
    void (*make_path)(char *out, const char *dir, uint64_t number);
};

static struct linking file_at(struct manifest_state *state, size_t at) {
    size_t values_end = state->file_count + state->values_count;
    if (at < state->file_count) {
        return (struct linking){&state->files[at].meta.number, file_path_sst};
    }
    return at < values_end ? (struct linking){&state->values[at - state->file_count].number, file_path_values}
                           : (struct linking){&state->changes[at - values_end].number, file_path_changes};
}

static void unlink_linked(struct storage *storage, struct manifest_state *state, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct linking linking = file_at(state, i);
        char path[LIMIT_PATH_BYTES];
        struct error ignored;
        linking.make_path(path, storage->dir, *linking.number);
        enum status status = env_unlink(storage->env, path, &ignored);
        (void)status; /* then at the next opening */
    }
}

/* One file under a new number, which becomes the state's. */
static enum status link_file(struct storage *storage, struct storage_ingest *ingest, const struct linking *linking,
                             struct error *err) {
    char from[LIMIT_PATH_BYTES];
    char to[LIMIT_PATH_BYTES];
    uint64_t copied_bytes;
    linking->make_path(from, ingest->dir, *linking->number);
    *linking->number = atomic_fetch_add_explicit(&storage->next_file, 1, memory_order_relaxed);
    linking->make_path(to, storage->dir, *linking->number);
    return storage__upkeep_is_cancelled(&ingest->upkeep)
               ? error_set(err, STATUS_CANCELLED, "%s: the ingest was cancelled", ingest->dir)
               : store_link(storage->env, from, to, &ingest->upkeep.is_cancelled, &copied_bytes, err);
}

/* The state's tables under new numbers, which grow as the old ones did, then its value files: entries name those by
 * their ids, which stay; then its change files. */
static enum status link_files(struct storage *storage, struct storage_ingest *ingest, struct manifest_state *state,
                              struct error *err) {
    enum status status = STATUS_OK;
    size_t total = state->file_count + state->values_count + state->changes_count;
    size_t linked = 0;
    for (; linked < total && status == STATUS_OK; linked++) {
        struct linking linking = file_at(state, linked);
        status = link_file(storage, ingest, &linking, err);
    }
    if (status == STATUS_OK) {
        status = env_sync_dir(storage->env, storage->dir, err);
    }
    if (status == STATUS_OK) {
        status = storage__make_version(&storage->sst_context, state, &ingest->version, err);
    }
    if (status != STATUS_OK) {
        unlink_linked(storage, state, linked);
    }
    return status;
}

/* The checkpoint is locked. */
static enum status verify_and_link(struct storage *storage, struct storage_ingest *ingest, struct error *err) {
    struct env *env = storage->env;
    struct manifest manifest = {.env = env, .dir = ingest->dir};
    struct storage_verify_report report = {.tables = 0};
    struct manifest_state state;
    struct verify_run run = {.options = {.context = ingest, .progress = progress}, .report = &report, .err = err};
    manifest_state_init(&state, env->alloc);
    enum status status = manifest_inspect(&manifest, &state, err);
    const struct manifest_identity *ours = &storage->manifest.identity;
    if (status == STATUS_OK && memcmp(manifest.identity.cluster_id, ours->cluster_id, sizeof ours->cluster_id) != 0) {
        status = error_set(err, STATUS_INVALID, "%s: belongs to another cluster", ingest->dir);
    }
    if (status == STATUS_OK) {
        status = verify__dir(&run, env, ingest->dir);
    }
    if (status == STATUS_OK) {
        ingest->frontier = state.frontier;
        status = link_files(storage, ingest, &state, err);
    }
    manifest_state_deinit(&state);
    return status;
}

static enum status take_in(struct storage *storage, struct storage_ingest *ingest, struct error *err) {
    struct env_file *lock = NULL;
    enum status status = verify__lock(storage->env, ingest->dir, &lock, err);
    if (status == STATUS_OK) {
        status = verify_and_link(storage, ingest, err);
    }
    env_close(lock);
    return status;
}

/* ---- Worker: the commit point ---------------------------------------------------------------------------------- */

static enum status switch_over(struct storage *storage, struct storage_ingest *ingest, struct error *err) {
    enum status status =
        manifest_switch(&storage->manifest, ingest->manifest_number, buf_slice(&ingest->snapshot), err);
    ingest->is_named = status != STATUS_NO_SPACE && status != STATUS_NO_MEMORY;
    return status;
}

static void run(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_ingest *ingest = ingest_of(upkeep);
    upkeep->status = upkeep->stage == STAGE_LINKED ? take_in(storage, ingest, &upkeep->error)
                                                   : switch_over(storage, ingest, &upkeep->error);
}

/* ---- Owner: before ----------------------------------------------------------------------------------------------- */

/* Refuses what would take the store back, or can't be any more. */
static enum status check(struct storage *storage, struct storage_ingest *ingest, struct error *err) {
    const struct storage_frontier *frontier = &ingest->frontier;
    if (storage__upkeep_is_cancelled(&ingest->upkeep)) {
        return error_set(err, STATUS_CANCELLED, "%s: the ingest was cancelled", ingest->dir);
    }
    if (storage->broken) {
        return error_set(err, STATUS_FAILED, "%s: the store has failed", storage->dir);
    }
    bool is_behind = frontier->index < storage->inserted_index || frontier->term < storage->inserted_term;
    if (is_behind && !ingest->may_go_back) {
        return error_set(err, STATUS_INVALID,
                         "%s: holds what was applied up to %" PRIu64 " of term %" PRIu64 ", the store is at %" PRIu64
                         " of term %" PRIu64 " already",
                         ingest->dir, frontier->index, frontier->term, storage->inserted_index, storage->inserted_term);
    }
    if (!list_is_empty(&storage->pins)) {
        const struct storage_pin *lowest = LIST_ENTRY(storage->pins.next, struct storage_pin, link);
        if (lowest->revision < ingest->version->horizon) {
            return error_set(err, STATUS_BUSY, "%s: its horizon is at %" PRIu64 ", but %s holds revision %" PRIu64,
                             ingest->dir, ingest->version->horizon, lowest->name, lowest->revision);
        }
    }
    return STATUS_OK;
}

/* Everything that publishing will need. */
static enum status prepare(struct storage *storage, struct storage_ingest *ingest, struct error *err) {
    ingest->generation = storage__generation_new(storage);
    ingest->read_set = storage__read_set_new(storage);
    ingest->view = view_reserve(&storage->views);
    ingest->manifest_number = atomic_fetch_add_explicit(&storage->next_file, 1, memory_order_relaxed);
    uint64_t next_file = atomic_load_explicit(&storage->next_file, memory_order_relaxed);
    enum status status = STATUS_NO_MEMORY;
    if (ingest->generation != NULL && ingest->read_set != NULL && ingest->view != NULL) {
        status = storage__encode_state(ingest->version, &ingest->frontier, next_file, &ingest->snapshot);
    }
    return status == STATUS_OK ? status : error_set(err, status, "%s: no memory for its list of tables", ingest->dir);
}

/* The one that is first, and no other. */
static void be_quiet(struct storage *storage, struct storage_ingest *ingest, bool quiet) {
    ingest->holds_jobs = quiet;
    storage->quiet = quiet;
    atomic_store_explicit(&storage->stop, quiet || storage->broken || storage->closing, memory_order_relaxed);
    storage->pick_wanted = storage->pick_wanted || !quiet;
}

static void hold_apply(struct storage *storage, struct storage_ingest *ingest) {
    storage->ingest_count += !ingest->holds_apply;
    ingest->holds_apply = true;
}

static bool is_still(const struct storage *storage) {
    return !storage->flush.running && !storage->edit.running && storage->jobs_running == 0;
}

/* ---- Owner: after ------------------------------------------------------------------------------------------------ */

/* Its file goes with its last holder. */
static void condemn(struct storage *storage, struct sst *sst) {
    if (!sst->obsolete) {
        sst->obsolete = true;
        storage->obsolete_bytes += sst->meta.size_bytes;
    }
}

static void condemn_values(struct storage *storage, const struct values_output *values) {
    for (size_t i = 0; i < values->count; i++) {
        condemn(storage, values->files[i]);
    }
}

static void condemn_version(struct storage *storage, const struct version *version) {
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level]; i++) {
            condemn(storage, version->tables[level][i]);
        }
    }
    for (size_t i = 0; i < version->value_file_count; i++) {
        condemn(storage, version->value_files[i]);
    }
    for (size_t i = 0; i < version->change_file_count; i++) {
        condemn(storage, version->change_files[i]);
    }
}

/* All that the old content's jobs and memtables have left. */
static void forget_old(struct storage *storage) {
    for (struct list *link; (link = list_pop_front(&storage->written)) != NULL;) {
        struct compaction_job *job = LIST_ENTRY(link, struct compaction_job, link);
        for (size_t i = 0; i < job->output_count; i++) {
            condemn(storage, job->outputs[i]);
        }
        condemn_values(storage, &job->values);
        storage__compaction_end(storage, job);
    }
    for (struct list *link; (link = list_pop_front(&storage->full)) != NULL;) {
        struct generation *generation = LIST_ENTRY(link, struct generation, link);
        if (generation->sst != NULL) {
            condemn(storage, generation->sst);
            storage__unref_table(storage, generation->sst);
        }
        if (generation->changes != NULL) {
            condemn(storage, generation->changes);
            storage__unref_table(storage, generation->changes);
        }
        condemn_values(storage, &generation->values);
        values_output__release(&generation->values);
        storage__unref_generation(storage, generation);
    }
    storage->full_count = 0;
    storage__unblock(storage, true);
    storage__unref_generation(storage, storage->active);
    condemn_version(storage, storage->version);
    storage->flush_wanted = false;
    storage->flush.retry_at_us = 0;
    storage->problem[0] = '\0';
}

static void take_frontier(struct storage *storage, const struct storage_ingest *ingest) {
    storage->frontier = ingest->frontier;
    if (storage->frontier.horizon < ingest->version->horizon) {
        storage->frontier.horizon = ingest->version->horizon;
    }
    bool goes_back = storage->frontier.index < storage_applied_index(storage);
    if (goes_back || storage->horizon_wanted < storage->frontier.horizon) {
        storage->horizon_wanted = storage->frontier.horizon;
    }
    if (storage->durable_index < storage->frontier.index) {
        storage->durable_index = storage->frontier.index;
    }
    if (goes_back) {
        storage->catch_up_index = storage_applied_index(storage);
    } else {
        storage->applied_term = storage->frontier.term;
    }
    storage->inserted_term = storage->frontier.term;
    storage->inserted_index = storage->frontier.index;
    storage->switched_index = storage->frontier.index;
    storage__begin_digests(storage);
}

static void publish(struct storage *storage, struct storage_ingest *ingest) {
    struct version *old = storage->version;
    forget_old(storage);
    take_frontier(storage, ingest);
    storage->active = ingest->generation;
    storage->active->first_index = storage->frontier.index + 1;
    storage->version = ingest->version;
    storage->debt_bytes = compaction_debt(storage->version, &storage->options);
    storage__set_current(storage, ingest->read_set, storage->version);
    if (storage->frontier.index >= storage_applied_index(storage)) {
        view_publish(&storage->views, ingest->view, storage->frontier.index, storage->read_set);
        atomic_store_explicit(&storage->applied_index, storage->frontier.index, memory_order_release);
        ingest->view = NULL;
    } /* else storage_apply does it, when it has come so far */
    ingest->generation = NULL;
    ingest->version = NULL;
    ingest->read_set = NULL;
    storage__unref_version(storage, old);
    storage->manifest_bytes_written = storage->manifest.written_bytes;
}

/* The store stands still. Is it still what the owner wants? */
static enum upkeep_next ask_owner(struct storage *storage, struct storage_ingest *ingest) {
    struct storage_upkeep *upkeep = &ingest->upkeep;
    if (ingest->ready != NULL && !ingest->was_asked) {
        ingest->was_asked = true;
        ingest->is_asking = true;
        ingest->is_in_ready = true;
        ingest->ready(upkeep);
        ingest->is_in_ready = false;
    }
    if (ingest->is_asking) {
        return UPKEEP_WAIT;
    }
    if (ingest->ready != NULL && !ingest->may_switch) {
        upkeep->status = error_set(&upkeep->error, STATUS_CANCELLED, "%s: it isn't wanted any more", ingest->dir);
        return UPKEEP_END;
    }
    upkeep->status = check(storage, ingest, &upkeep->error); /* time has passed */
    upkeep->stage = STAGE_SWITCHED;
    return upkeep->status == STATUS_OK ? UPKEEP_RUN : UPKEEP_END;
}

static enum upkeep_next step(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_ingest *ingest = ingest_of(upkeep);
    if (upkeep->status != STATUS_OK) {
        return UPKEEP_END;
    }
    switch (upkeep->stage) {
    case STAGE_ASKED:
        upkeep->stage = STAGE_LINKED;
        if (storage__upkeep_is_cancelled(upkeep)) {
            upkeep->status = error_set(&upkeep->error, STATUS_CANCELLED, "%s: the ingest was cancelled", ingest->dir);
            return UPKEEP_END;
        }
        return UPKEEP_RUN;
    case STAGE_LINKED:
        upkeep->status = check(storage, ingest, &upkeep->error);
        if (upkeep->status == STATUS_OK) {
            hold_apply(storage, ingest);
            be_quiet(storage, ingest, true);
            if (!is_still(storage)) {
                return UPKEEP_WAIT;
            }
            upkeep->status = prepare(storage, ingest, &upkeep->error);
        }
        if (upkeep->status != STATUS_OK) {
            return UPKEEP_END;
        }
        upkeep->stage = STAGE_READY;
        return ask_owner(storage, ingest);
    case STAGE_READY: return ask_owner(storage, ingest);
    default:
        if (ingest->switched != NULL) {
            ingest->switched(upkeep);
        }
        publish(storage, ingest);
        return UPKEEP_END;
    }
}

void storage_ingest_answer(struct storage_ingest *ingest, bool go) {
    CHECK(ingest->is_asking && ingest->upkeep.stage == STAGE_READY);
    ingest->is_asking = false;
    ingest->may_switch = go;
    if (!ingest->is_in_ready && !ingest->upkeep.storage->closing) {
        storage__schedule(ingest->upkeep.storage);
    }
}

/* Nothing more may be written, then. */
static bool is_outcome_unknown(struct storage_upkeep *upkeep) {
    return upkeep->status != STATUS_OK && ingest_of(upkeep)->is_named;
}

static void drop(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_ingest *ingest = ingest_of(upkeep);
    if (ingest->version != NULL) {
        if (!ingest->is_named) {
            condemn_version(storage, ingest->version);
        }
        storage__unref_version(storage, ingest->version);
    }
    storage__generation_free(storage, ingest->generation);
    mem_free(storage->env->alloc, ingest->read_set);
    view_unreserve(&storage->views, ingest->view);
    buf_deinit(&ingest->snapshot);
    ingest->version = NULL;
    ingest->generation = NULL;
    ingest->read_set = NULL;
    ingest->view = NULL;
    if (ingest->holds_jobs && !is_outcome_unknown(upkeep)) {
        be_quiet(storage, ingest, false);
    }
    storage__start_reaper(storage);
}

/* Entries may come again, or never. */
static bool release(struct storage *storage, struct storage_upkeep *upkeep) {
    if (ingest_of(upkeep)->holds_apply) {
        CHECK(storage->ingest_count > 0);
        storage->ingest_count--;
        ingest_of(upkeep)->holds_apply = false;
    }
    if (is_outcome_unknown(upkeep)) {
        storage__fail(storage, &upkeep->error);
        return false;
    }
    return storage_can_apply(storage);
}

void storage_ingest(struct storage *storage, struct storage_ingest *ingest) {
    static const struct upkeep_kind kind = {.step = step, .run = run, .drop = drop, .release = release};
    ingest->version = NULL;
    ingest->generation = NULL;
    ingest->read_set = NULL;
    ingest->view = NULL;
    ingest->is_named = false;
    ingest->paced_us = 0;
    ingest->was_asked = false;
    ingest->is_in_ready = false;
    ingest->is_asking = false;
    ingest->may_switch = false;
    buf_init(&ingest->snapshot, storage->env->alloc, 0);
    ingest->dir[sizeof ingest->dir - 1] = '\0';
    ingest->holds_apply = false;
    ingest->holds_jobs = false;
    if (!ingest->may_go_back) {
        hold_apply(storage, ingest);
    }
    storage__upkeep_ask(storage, &ingest->upkeep, &kind, ingest->dir);
}
