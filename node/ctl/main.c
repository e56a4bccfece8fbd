/* holdfastctl's process: its files, its signals, and nothing else. */
#include "node/ctl/ctl.h"

#include <signal.h>
#include <unistd.h>

int main(int argc, char **argv) {
    const struct ctl_io io = {.in = STDIN_FILENO, .out = stdout, .err = stderr, .open = holdfast_open};
    (void)signal(SIGPIPE, SIG_IGN); /* a closed pipe is a write error, said and counted as one */
    return (int)ctl_run(argc, argv, &io);
}
