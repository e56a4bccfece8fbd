/*
 * A run of a cluster as lines of JSON: every transition of every node's consensus, in causal order (one thread wrote
 * them, in the order in which they happened). TRACE.md describes each field; tests/sim/replay judges the lines without
 * knowing anything else.
 *
 *   trace_open -> trace_started, trace_stepped, trace_crashed ... -> trace_close
 *
 * What is written comes from raft's public interface: the event that a step was given, the update that it answered, and
 * the getters afterwards. Owner: one thread.
 */
#ifndef HOLDFAST_SIM_TRACE_H
#define HOLDFAST_SIM_TRACE_H

#include "raft/raft.h"

struct trace;

/* Creates or truncates the file and writes the first line. NULL: errno says why. */
struct trace *trace_open(const char *path, uint64_t seed, const char *commit);
/* A node's life begins: raft_start has run on what recovery found. */
void trace_started(struct trace *trace, uint64_t time_us, const struct raft *raft);
/* raft_step has run; the update isn't carried out yet. */
void trace_stepped(struct trace *trace, uint64_t time_us, const struct raft *raft, const struct raft_event *event,
                   enum status status, const struct raft_update *update);
/* A node's life ended; kind: "process", "power", "exit". Steps follow only after another start. */
void trace_crashed(struct trace *trace, uint64_t time_us, uint64_t node_id, const char *kind);
/* False: not everything could be written. NULL is accepted, and is true. */
bool trace_close(struct trace *trace);

#endif
