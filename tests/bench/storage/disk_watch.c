/* When the disk stood still. The contract is in disk_watch.h. */
#include "tests/bench/storage/disk_watch.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_US = 4 * 1000, STRETCH_US_MIN = 20 * 1000, STRETCHES_MAX = 4096 };

struct look {
    double us;
    uint64_t finished; /* reads, writes, discards and flushes */
    uint64_t in_flight;
};

static struct {
    int fd;
    pthread_t thread;
    atomic_bool stop;
    pthread_mutex_t mutex;
    struct {
        double from_us;
        double to_us;
    } stretches[STRETCHES_MAX]; /* under the mutex; the newest may still grow */
    unsigned count;
} watch = {.fd = -1, .mutex = PTHREAD_MUTEX_INITIALIZER};

static bool look_at(struct look *look) {
    char text[512];
    unsigned long long n[17] = {0};
    struct timespec time;
    ssize_t len = pread(watch.fd, text, sizeof text - 1, 0);
    clock_gettime(CLOCK_MONOTONIC, &time);
    if (len <= 0) {
        return false;
    }
    text[len] = '\0';
    if (sscanf(text, "%llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu", &n[0],
               &n[1], &n[2], &n[3], &n[4], &n[5], &n[6], &n[7], &n[8], &n[9], &n[10], &n[11], &n[12], &n[13], &n[14],
               &n[15], &n[16]) < 11) {
        return false;
    }
    *look = (struct look){.us = (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3,
                          .finished = n[0] + n[4] + n[11] + n[15],
                          .in_flight = n[8]};
    return true;
}

/* The newest stretch, or one more if it doesn't go on from there. */
static void note(double from_us, double to_us) {
    pthread_mutex_lock(&watch.mutex);
    if (watch.count > 0 && watch.stretches[watch.count - 1].to_us >= from_us) {
        watch.stretches[watch.count - 1].to_us = to_us;
    } else if (watch.count < STRETCHES_MAX) {
        watch.stretches[watch.count].from_us = from_us;
        watch.stretches[watch.count++].to_us = to_us;
    }
    pthread_mutex_unlock(&watch.mutex);
}

/* A stretch begins with a look that shows requests in flight, and ends with the last one that shows no more finished.
 * A look that comes much too late is a stretch, too: this thread hardly needs the processor, so nothing ran. */
static void *keep_looking(void *argument) {
    struct look begin;
    struct look look;
    (void)argument;
    if (!look_at(&begin)) {
        return NULL;
    }
    double last_us = begin.us;
    while (!atomic_load_explicit(&watch.stop, memory_order_relaxed)) {
        usleep(LOOK_US);
        if (!look_at(&look)) {
            return NULL;
        }
        if (look.us - last_us > LOOK_US + STRETCH_US_MIN) {
            note(last_us + LOOK_US, look.us);
        }
        last_us = look.us;
        if (look.finished != begin.finished || begin.in_flight == 0) {
            begin = look;
        } else if (look.us - begin.us >= STRETCH_US_MIN) {
            note(begin.us, look.us);
        }
    }
    return NULL;
}

bool disk_watch_start(const char *path) {
    struct stat info;
    char name[64];
    watch.count = 0;
    atomic_store(&watch.stop, false);
    if (stat(path, &info) != 0) {
        return false;
    }
    snprintf(name, sizeof name, "/sys/dev/block/%u:%u/stat", major(info.st_dev), minor(info.st_dev));
    watch.fd = open(name, O_RDONLY | O_CLOEXEC);
    if (watch.fd < 0) {
        return false;
    }
    if (pthread_create(&watch.thread, NULL, keep_looking, NULL) != 0) {
        close(watch.fd);
        watch.fd = -1;
    }
    return watch.fd >= 0;
}

void disk_watch_stop(void) {
    if (watch.fd >= 0) {
        atomic_store(&watch.stop, true);
        pthread_join(watch.thread, NULL);
        close(watch.fd);
        watch.fd = -1;
    }
}

double disk_watch_still_us(double from_us, double to_us) {
    double total = 0;
    pthread_mutex_lock(&watch.mutex);
    for (unsigned i = 0; i < watch.count; i++) {
        double from = watch.stretches[i].from_us > from_us ? watch.stretches[i].from_us : from_us;
        double to = watch.stretches[i].to_us < to_us ? watch.stretches[i].to_us : to_us;
        total += to > from ? to - from : 0;
    }
    pthread_mutex_unlock(&watch.mutex);
    return total;
}
