"""The four ways in which a leader is lost, for test_failover and bench-failover: each is prepared, begun and ended; afterwards the cluster is whole."""
import signal
import time

import network
from cluster import Cluster, Failure

WHOLE_SECONDS = 30
HANG_AFTER = 1500  # log writes of a leader under load: a second or so


def make(folder, programs, port_base):
    kind = network.NetworkCluster if network.is_possible() else Cluster
    cluster = kind(folder, programs, 3, port_base)
    cluster.make({})
    cluster.await_whole(WHOLE_SECONDS, equal=False)
    return cluster


class Fault:
    """prepare, (the load begins) begin, (the load ends) end."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.node = None

    def prepare(self):
        pass

    def begin(self):
        self.node = self.cluster.leader()

    def end(self):
        self.cluster.await_whole(WHOLE_SECONDS, equal=False)

    def has_hit(self):
        """The leader lost the lead."""
        return self.cluster.leader() is not self.node


class Killed(Fault):
    def begin(self):
        super().begin()
        self.node.kill()

    def end(self):
        self.node.start()
        super().end()


class Stopped(Fault):
    def begin(self):
        super().begin()
        self.node.signal(signal.SIGSTOP)

    def end(self):
        self.node.signal(signal.SIGCONT)
        super().end()


class CutOff(Fault):
    def begin(self):
        super().begin()
        self.cluster.cut_off(self.node, True)

    def end(self):
        self.cluster.cut_off(self.node, False)
        super().end()


class Stalled(Fault):
    """The leader's disk: a log write that never ends. It comes by itself, so many writes after it was armed."""

    def prepare(self):
        node = self.cluster.leader()
        node.kill()
        node.start(f"wal.write=hang,after={HANG_AFTER}")
        self.cluster.await_whole(WHOLE_SECONDS, equal=False)
        self.cluster.make_lead(node)
        self.node = node

    def begin(self):
        pass

    def has_hit(self):
        return "event=raft.fenced role=leader" in self.node.log_since_start()

    def end(self):
        self.node.kill()
        self.node.start()
        super().end()


KINDS = {"kill": Killed, "stop": Stopped, "partition": CutOff, "stall": Stalled}


def why_not(name):
    """Why a kind can't be had here, or None."""
    return "needs root for network namespaces" if name == "partition" and not network.is_possible() else None


def run(cluster, name, load, seconds_before):
    """load() begins the load and returns what waits for its end. Returns what that returns."""
    fault = KINDS[name](cluster)
    fault.prepare()
    wait = load()
    time.sleep(seconds_before)
    fault.begin()
    said = wait()
    cluster.look()
    if not fault.has_hit():
        raise Failure(f"{name}: {fault.node.name} still leads: nothing was tested")
    fault.end()
    return said
