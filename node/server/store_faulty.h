/*
 * A store that can't be used any more: it is set aside, and an empty one takes its place, which the cluster fills again
 * (DESIGN rule 14). Term and vote stand in the log, so the node stays who it is.
 *
 *   DATA/db            the store
 *   DATA/db.faulty     one that was set aside; the newest, if there were several. Removed by the first start that finds
 *                      the node whole
 *   DATA/db.rebuild    empty: the next start sets the store aside
 *
 * Everything here blocks: workers and start-up only.
 */
#ifndef HOLDFAST_SERVER_STORE_FAULTY_H
#define HOLDFAST_SERVER_STORE_FAULTY_H

#include "node/env/env.h"

/* Asks the next start to set the store aside. Durable on return. */
MUST_USE enum status store_faulty_request(struct env *env, const char *data_dir, struct error *err);
/* Carries out such a request. STATUS_OK also if there is none. */
MUST_USE enum status store_faulty_carry_out(struct env *env, const char *data_dir, struct error *err);
/* The store, which nobody has open, becomes db.faulty, durably; an older one of that name is removed. */
MUST_USE enum status store_faulty_set_aside(struct env *env, const char *data_dir, struct error *err);
/* True if there is one, or if that can't be told. */
bool store_faulty_exists(struct env *env, const char *data_dir);
void store_faulty_remove(struct env *env, const char *data_dir);

#endif
