/*
 * What all clients did in a run, judged as a whole by the linearizability checker of tests/chaos/check.
 *
 *   linearizable__new -> linearizable__begin / linearizable__end of every operation -> linearizable__final_pair
 *                     -> linearizable__judge -> linearizable__free
 *
 * Nothing of what workload.c knows is used here: keys and values are the bytes that clients sent and got. So it also
 * judges shared keys, which several clients write and of which workload.c can't say what a read may show.
 */
#ifndef HOLDFAST_SIM_LINEARIZABLE_H
#define HOLDFAST_SIM_LINEARIZABLE_H

#include "tests/sim/cluster.h"

struct linearizable *linearizable__new(void);
void linearizable__free(struct linearizable *judge);

/* The client's request is filled in, and about to be submitted. */
void linearizable__begin(struct sim_client *client);
/* Its answer is there. */
void linearizable__end(struct sim_client *client, const struct client_answer *answer);
/* After everything: a replica holds this; keys that weren't named aren't there. */
void linearizable__final_pair(struct cluster *cluster, struct slice key, struct slice value);
/* The run fails if no order explains all that clients saw; what remains of it goes to judge's report. */
void linearizable__judge(struct cluster *cluster);
/* Lines for a failure's report, or "". */
const char *linearizable__report(const struct linearizable *judge);

#endif
