/*
 * When disk or machine stood still: the disk was asked for something and finished nothing, or a thread that only wanted
 * to sleep for a few milliseconds wasn't woken. The kernel's counters of the block device behind a path are looked at
 * every few milliseconds by that thread.
 *
 * A virtual machine is held by its host now and then, and so is its disk; no engine can do anything about that, so the
 * longest write is shown with that time and without.
 *
 *   disk_watch_start -> disk_watch_still_us, from any thread, for times that are over -> disk_watch_stop
 */
#ifndef HOLDFAST_BENCH_DISK_WATCH_H
#define HOLDFAST_BENCH_DISK_WATCH_H

#include <stdbool.h>

/* False: there is no such device (a file system in memory, say); then it never stands still. */
bool disk_watch_start(const char *path);
void disk_watch_stop(void);

/* How much of the time between the two (CLOCK_MONOTONIC, microseconds) they stood still, by stretches of at least
 * 20 ms. */
double disk_watch_still_us(double from_us, double to_us);

#endif
