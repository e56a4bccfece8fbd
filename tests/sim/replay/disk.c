/*
 * The log in memory, the log on disk, and the way between.
 *
 * What a node appends goes to its disk in order, in groups; so at any moment the disk holds what a prefix of its
 * writes makes of the log. A `synced` line names a group by its newest record and by the term and vote in its header:
 * all that was written up to that record is durable. What comes after may be there too, or not: a restart must find
 * what some prefix makes that is not shorter.
 *
 *     disk (durable for sure) + writes[0], writes[1], ... = log
 *
 * Which record a group ends with. One index may be written with term A, then B, then A again, when leaders change; a
 * group that ends with A was sealed before B came, if it was the first A, and then with a term older than that in which
 * the second A came. So it is the newest write of that record made in a term not above the group's.
 */
#include "tests/sim/replay/replay.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

uint64_t log_term(const struct log *log, uint64_t index) {
    return index <= log->last && index < log->capacity ? log->entries[index].term : 0;
}

void log_put(struct log *log, uint64_t index, struct entry entry) {
    size_t capacity = log->capacity;
    log->entries = grown(log->entries, index, &capacity, sizeof *log->entries);
    memset(log->entries + log->capacity, 0, (capacity - log->capacity) * sizeof *log->entries);
    log->capacity = capacity;
    log->entries[index] = entry;
    log->last = index;
}

void log_copy(struct log *to, const struct log *from) {
    free(to->entries);
    *to = *from;
    to->entries = NULL;
    if (from->capacity > 0) {
        to->entries = malloc(from->capacity * sizeof *to->entries);
        if (to->entries == NULL) {
            abort();
        }
        memcpy(to->entries, from->entries, from->capacity * sizeof *to->entries);
    }
}

void disk_append(struct node *node, uint64_t index, struct entry entry) {
    node->writes = grown(node->writes, node->write_count, &node->write_capacity, sizeof *node->writes);
    node->writes[node->write_count++] = (struct write){.index = index, .entry = entry, .in_term = node->term};
}

void disk_vote(struct node *node, uint64_t term, uint64_t vote) {
    node->votes = grown(node->votes, node->vote_count, &node->vote_capacity, sizeof *node->votes);
    node->votes[node->vote_count++] = (struct vote){.term = term, .vote = vote};
}

void disk_synced(struct node *node, const struct line *line) {
    for (size_t i = node->vote_count; i > 0; i--) {
        if (node->votes[i - 1].term == line->group.term && node->votes[i - 1].vote == line->group.vote) {
            node->vote_count = shed(node->votes, node->vote_count, i - 1, sizeof *node->votes);
            break;
        }
    }
    size_t count = line->group.last == 0 ? 0 : node->write_count;
    while (count > 0) {
        const struct write *write = &node->writes[count - 1];
        if (write->index == line->group.last && write->entry.term == line->group.last_term &&
            write->in_term <= line->group.term) {
            break;
        }
        count--;
    }
    for (size_t i = 0; i < count; i++) {
        log_put(&node->disk, node->writes[i].index, node->writes[i].entry);
    }
    node->write_count = shed(node->writes, node->write_count, count, sizeof *node->writes);
}

void disk_installed(struct node *node, uint64_t index, uint64_t term) {
    node->disk_floor = index > node->disk_floor ? index : node->disk_floor;
    if (log_term(&node->log, index) == term) {
        return;
    }
    node->write_count = 0;
    struct log *logs[] = {&node->log, &node->disk};
    for (size_t i = 0; i < sizeof logs / sizeof logs[0]; i++) {
        log_put(logs[i], index, (struct entry){.term = term});
        logs[i]->start = index;
    }
}

uint64_t disk_match(const struct node *node) {
    uint64_t match = node->disk.last;
    for (size_t i = 0; i < node->write_count; i++) {
        match = node->writes[i].index <= match ? node->writes[i].index - 1 : match;
    }
    return match > node->disk_floor ? match : node->disk_floor;
}

bool disk_has_vote(const struct node *node) {
    return node->vote_count > 0 && node->votes[0].term == node->term && node->votes[0].vote == node->vote;
}

/* ---- Restart ---------------------------------------------------------------------------------------------------- */

static uint64_t found_last(const struct line *line) { return line->start_index + line->log.count; }

/* What was found is what this log is, from where it starts on; or, if damage was found, how it begins. */
static bool is_found(const struct line *line, const struct log *log) {
    bool whole = line->heal_index == 0;
    if ((whole ? log->last != found_last(line) : log->last < found_last(line)) ||
        (line->start_index > 0 && line->start_term != 0 && log_term(log, line->start_index) != line->start_term &&
         log_term(log, line->start_index) != 0)) {
        return false;
    }
    for (size_t i = 0; i < line->log.count; i++) {
        if (log_term(log, line->start_index + 1 + i) != line->log.list[i].term) {
            return false;
        }
    }
    return true;
}

/* What was acknowledged may have been all that was durable: the end that is kept must not be before that. */
static bool check_loss(struct step *step) {
    const struct line *line = step->line;
    const struct log *disk = &step->node->disk;
    uint64_t term = log_term(disk, disk->last);
    bool low = line->heal_term < term || (line->heal_term == term && line->heal_index < disk->last);
    return line->heal_index == 0 || !low ||
           broken(step, "restart-loss",
                  "the log is damaged and once ended at %" PRIu64 " of term %" PRIu64 ", but %" PRIu64
                  " of term %" PRIu64 " was durable",
                  line->heal_index, line->heal_term, disk->last, term);
}

/* Damage may have taken what superseded older entries: then those are found again, from some point on. They were never
 * committed; that judge.c asks. */
static bool find_superseded(struct step *step) {
    const struct line *line = step->line;
    struct log *disk = &step->node->disk;
    uint64_t last_term = log_term(disk, disk->last);
    bool is_older = false;
    for (size_t i = 0; i < line->log.count && line->heal_index > 0; i++) {
        uint64_t index = line->start_index + 1 + i;
        uint64_t term = line->log.list[i].term;
        uint64_t there = index <= disk->last ? log_term(disk, index) : last_term;
        is_older = is_older || term != there || index > disk->last;
        if (is_older && term >= there) {
            return false;
        }
    }
    for (size_t i = 0; i < line->log.count && is_older; i++) {
        uint64_t index = line->start_index + 1 + i;
        struct entry entry = line->log.list[i];
        if (entry.term != log_term(disk, index)) {
            entry.kind = membership_made(step->judge, index, entry.term) != NULL ? KIND_CONFIG : entry.kind;
            log_put(disk, index, entry);
        }
    }
    return is_older;
}

/* Applies writes one by one until the disk is what was found. */
static bool find_prefix(struct node *node, const struct line *line) {
    if (is_found(line, &node->disk)) {
        return true;
    }
    for (size_t i = 0; i < node->write_count; i++) {
        log_put(&node->disk, node->writes[i].index, node->writes[i].entry);
        if (is_found(line, &node->disk)) {
            return true;
        }
    }
    /* The log is behind the snapshot that was installed, and was dropped. */
    if (line->log.count == 0 && line->start_index == node->disk_floor && node->disk_floor > 0) {
        log_put(&node->disk, node->disk_floor, (struct entry){.term = line->start_term});
        return true;
    }
    return false;
}

static bool check_vote(struct step *step) {
    struct node *node = step->node;
    const struct line *line = step->line;
    for (size_t i = 0; i < node->vote_count; i++) {
        if (node->votes[i].term == line->term && node->votes[i].vote == line->vote) {
            return true;
        }
    }
    if (line->term == line->start_term && line->vote == 0 && line->start_index == node->disk_floor &&
        line->term > node->votes[node->vote_count - 1].term) {
        return true; /* a crash right after a snapshot of a later term was installed */
    }
    return broken(step, "restart-state",
                  "term %" PRIu64 " with a vote for %" PRIu64 " was found, but at least term %" PRIu64
                  " with a vote for %" PRIu64 " was durable",
                  line->term, line->vote, node->votes[0].term, node->votes[0].vote);
}

/* The engine was switched to a snapshot, and the crash came before raft heard of it. */
static void find_install(struct step *step) {
    const struct judge *judge = step->judge;
    const struct line *line = step->line;
    uint64_t index = line->start_index;
    if (line->log.count == 0 && index > step->node->disk_floor && index <= judge->commit &&
        judge->committed[index].term == line->start_term && log_term(&step->node->log, index) != line->start_term) {
        disk_installed(step->node, index, line->start_term);
        step->found_install = true;
    }
}

bool disk_check_start(struct step *step) {
    struct node *node = step->node;
    const struct line *line = step->line;
    if (!node->known) {
        if (line->log.count > 0 || line->term != 0 || line->vote != 0 || line->commit != 0 || line->start_index != 0) {
            return broken(step, "restart-state", "a node that never ran has a term, a vote or a log");
        }
    } else {
        find_install(step);
        if (!check_vote(step)) {
            return false;
        }
        if (!check_loss(step)) {
            return false;
        }
        if (!find_prefix(node, line) && !find_superseded(step)) {
            return broken(step, "restart-log",
                          "the log that was found, up to %" PRIu64 ", is no prefix of what was written that is durable",
                          found_last(line));
        }
        if (line->commit > node->commit_max && line->commit > node->disk_floor) {
            return broken(step, "restart-commit", "commit %" PRIu64 " was found, but only %" PRIu64 " was known before",
                          line->commit, node->commit_max);
        }
        if (line->start_index > node->commit_max && line->start_index > node->disk_floor) {
            return broken(step, "restart-log", "the log starts behind %" PRIu64 ", which wasn't committed here",
                          line->start_index);
        }
    }
    if (line->last != found_last(line) || line->synced != line->last) {
        return broken(step, "restart-log", "the state's end of the log isn't that of what was found");
    }
    node->disk.start = line->start_index;
    node->disk.last = line->last;
    log_copy(&node->log, &node->disk);
    node->write_count = 0;
    node->vote_count = 0;
    disk_vote(node, line->term, line->vote);
    return true;
}
