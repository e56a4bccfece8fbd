/* How far an import is: a bar on a terminal, a line a second elsewhere. */
#ifndef HOLDFAST_CTL_PROGRESS_H
#define HOLDFAST_CTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct progress {
    FILE *out;
    bool is_terminal;
    uint64_t size_bytes; /* of the input; 0: not known */
    uint64_t started_us;
    uint64_t shown_us;
    uint64_t shown_count;
    bool drawn; /* a bar stands on the current line */
};

void progress_init(struct progress *progress, FILE *out, bool is_terminal, uint64_t size_bytes, uint64_t now_us);
/* Draws if it is time. count and bytes are acknowledged; input_bytes is how far the input was taken. */
void progress_show(struct progress *progress, uint64_t now_us, uint64_t count, uint64_t bytes, uint64_t input_bytes);
/* Clears the bar, so that other lines can be printed. */
void progress_clear(struct progress *progress);

#endif
