/*
 * What `member` and `leader` share: the members of the cluster, fetched, found by name or id, and shown; and a change
 * of them carried out to its end.
 *
 * One thread. Functions that return an exit code have said what is wrong when it isn't CTL_DONE.
 */
#ifndef HOLDFAST_CTL_MEMBERS_H
#define HOLDFAST_CTL_MEMBERS_H

#include "node/ctl/ctl.h"

#include <jansson.h>

/* From the leader; with --node or --local as one node knows it. */
enum ctl_exit members_fetch(struct ctl *ctl, struct holdfast_members *ret_members);
/* NULL: there is none. */
const struct holdfast_member *members_by_id(const struct holdfast_members *members, uint64_t id);
/* By name, else by id. CTL_NOT_FOUND: there is none. */
enum ctl_exit members_find(struct ctl *ctl, const struct holdfast_members *members, const char *node,
                           const struct holdfast_member **ret_member);
/* Entries that are committed and that it doesn't hold, as the leader knows it. */
uint64_t members_lag(const struct holdfast_members *members, const struct holdfast_member *member);
/* How long an outcome that got lost is looked for: as long as --timeout says, where it is given. */
static inline uint64_t members_search_us(const struct ctl *ctl, uint64_t otherwise_us) {
    return ctl->options.timeout_ms > 0 ? UINT64_C(1000) * ctl->options.timeout_ms : otherwise_us;
}
/* As a table, with what stands above it, or as one JSON object. False: out of memory. */
bool members_print(struct ctl *ctl, const struct holdfast_members *members);
/* The part of a new node's configuration that names the cluster: `join = on`, and a section for each member. */
enum status members_append_config(const struct holdfast_members *members, struct buf *out);
/* Texts from outside may be any bytes: what isn't UTF-8 becomes "?". */
json_t *members_text_json(const char *text);

/* Until it is committed. An outcome that got lost is looked for in the list. *ret_index: the entry that completed it.
 */
enum ctl_exit members_change(struct ctl *ctl, const struct holdfast_member_change *changes, size_t count,
                             uint64_t *ret_index);
/* Waits until this learner keeps up, at most wait_s, and then carries out the changes, the first of which promotes it.
 * Says how far it is on err. wait_s 0: tries once. */
enum ctl_exit members_promote(struct ctl *ctl, const struct holdfast_member_change *changes, size_t count,
                              uint32_t wait_s, uint64_t *ret_index);
/* This member fills its store again; waits until it has, at most wait_s, and says how far it is on err. CTL_FAILED: it
 * couldn't; CTL_UNKNOWN: how it went can't be told. *ret_status: its last. */
enum ctl_exit members_rebuild(struct ctl *ctl, const struct holdfast_member *member, uint32_t wait_s,
                              struct holdfast_node_status *ret_status);

#endif
