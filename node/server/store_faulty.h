/*
 * A store that can't be opened: it is set aside, and an empty one takes its place, which the cluster fills again
 * (DESIGN rule 13). Term and vote stand in the log, so the node stays who it is. One that is damaged while it is open
 * is another matter (rebuild.h).
 *
 *   DATA/db            the store
 *   DATA/db.faulty     one that was set aside; the newest, if there were several. Removed when the node has been whole
 * for a while
 *
 * Everything here blocks: workers and start-up only.
 */
#ifndef HOLDFAST_SERVER_STORE_FAULTY_H
#define HOLDFAST_SERVER_STORE_FAULTY_H

#include "node/env/env.h"

/* The store, which nobody has open, becomes db.faulty, durably; an older one of that name is removed. */
MUST_USE enum status store_faulty_set_aside(struct env *env, const char *data_dir, struct error *err);
/* True if there is one, or if that can't be told. */
bool store_faulty_exists(struct env *env, const char *data_dir);
void store_faulty_remove(struct env *env, const char *data_dir);

#endif
