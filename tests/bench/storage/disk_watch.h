/*
 * When the disk stood still: it was asked for something and finished nothing. The kernel's counters of the block device
 * behind a path are looked at every few milliseconds by a thread of its own.
 *
 * On a virtual machine the host may hold a disk for a while; no engine can do anything about that, so the longest write
 * is shown with that time and without.
 *
 *   disk_watch_start -> disk_watch_still_us, from any thread, for times that are over -> disk_watch_stop
 */
#ifndef HOLDFAST_BENCH_DISK_WATCH_H
#define HOLDFAST_BENCH_DISK_WATCH_H

#include <stdbool.h>

/* False: there is no such device (a file system in memory, say); then it never stands still. */
bool disk_watch_start(const char *path);
void disk_watch_stop(void);

/* How much of the time between the two (CLOCK_MONOTONIC, microseconds) the disk stood still, by stretches of at least
 * 20 ms. */
double disk_watch_still_us(double from_us, double to_us);

#endif
