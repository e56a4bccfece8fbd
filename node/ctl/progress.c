/* See progress.h. */
#include "node/ctl/progress.h"

enum { BAR_CELLS = 30, BAR_EVERY_US = 100 * 1000, LINE_EVERY_US = 1000 * 1000 };

void progress_init(struct progress *progress, FILE *out, bool is_terminal, uint64_t size_bytes, uint64_t now_us) {
    *progress = (struct progress){
        .out = out, .is_terminal = is_terminal, .size_bytes = size_bytes, .started_us = now_us, .shown_us = now_us};
}

static void print_numbers(struct progress *progress, uint64_t now_us, uint64_t count, uint64_t bytes) {
    double seconds = (double)(now_us - progress->shown_us) / 1e6;
    double rate = seconds > 0 ? (double)(count - progress->shown_count) / seconds : 0;
    (void)fprintf(progress->out, "%llu pairs, %.0f/s, %.1f MB", (unsigned long long)count, rate, (double)bytes / 1e6);
}

/* From the average so far. */
static void print_time_left(struct progress *progress, uint64_t now_us, uint64_t input_bytes) {
    if (input_bytes == 0 || input_bytes > progress->size_bytes) {
        return;
    }
    double elapsed = (double)(now_us - progress->started_us) / 1e6;
    double left = elapsed * (double)(progress->size_bytes - input_bytes) / (double)input_bytes;
    unsigned seconds = left < 359999 ? (unsigned)(left + 0.5) : 359999;
    (void)fprintf(progress->out, ", %u:%02u left", seconds / 60, seconds % 60);
}

static void draw_bar(struct progress *progress, uint64_t now_us, uint64_t count, uint64_t bytes, uint64_t input_bytes) {
    (void)fputc('\r', progress->out);
    if (progress->size_bytes > 0) {
        uint64_t done = input_bytes < progress->size_bytes ? input_bytes : progress->size_bytes;
        unsigned filled = (unsigned)(done * BAR_CELLS / progress->size_bytes);
        (void)fputc('[', progress->out);
        for (unsigned i = 0; i < BAR_CELLS; i++) {
            (void)fputc(i < filled ? '#' : '-', progress->out);
        }
        (void)fprintf(progress->out, "] %3u%% ", (unsigned)(done * 100 / progress->size_bytes));
    }
    print_numbers(progress, now_us, count, bytes);
    if (progress->size_bytes > 0) {
        print_time_left(progress, now_us, input_bytes);
    }
    (void)fputs("\033[K", progress->out);
    (void)fflush(progress->out);
    progress->drawn = true;
}

void progress_show(struct progress *progress, uint64_t now_us, uint64_t count, uint64_t bytes, uint64_t input_bytes) {
    uint64_t every_us = progress->is_terminal ? BAR_EVERY_US : LINE_EVERY_US;
    if (now_us - progress->shown_us < every_us) {
        return;
    }
    if (progress->is_terminal) {
        draw_bar(progress, now_us, count, bytes, input_bytes);
    } else {
        (void)fprintf(progress->out, "holdfastctl: import: ");
        print_numbers(progress, now_us, count, bytes);
        if (progress->size_bytes > 0) {
            print_time_left(progress, now_us, input_bytes);
        }
        (void)fputc('\n', progress->out);
        (void)fflush(progress->out);
    }
    progress->shown_us = now_us;
    progress->shown_count = count;
}

void progress_clear(struct progress *progress) {
    if (progress->drawn) {
        (void)fputs("\r\033[K", progress->out);
        (void)fflush(progress->out);
        progress->drawn = false;
    }
}
