"""A cluster whose nodes live in network namespaces of their own, so that one can be cut off from all others and from its clients, silently.

    clients, this process: 10.77.0.254 on a bridge, in a namespace of this process's own
    node k:                10.77.0.k, behind a port of that bridge; cutting it off disables the port, as if its switch had failed

Nothing outside is touched, and nothing is left behind: a namespace ends with the last process in it. Needs root.
"""
import ctypes
import os
import re
import subprocess
import time

from cluster import Cluster, Failure, child

CLONE_NEWNET = 0x40000000
DISABLED, FORWARDING = "0", "3"


def is_possible():
    return os.geteuid() == 0


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")


class NetworkCluster(Cluster):
    """Make it before anything else that uses the network: this process moves into the new namespace."""

    def __init__(self, folder, programs, count, port_base):
        super().__init__(folder, programs, count, port_base)
        self.holders = {}  # by node's name: the process that keeps its namespace
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise Failure(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "address", "add", "10.77.0.254/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        for number, node in enumerate(self.nodes, 1):
            self.connect(number, node)

    def connect(self, number, node):
        holder = child(["unshare", "--net", "sleep", "infinity"])
        self.holders[node.name] = holder
        mine = os.readlink("/proc/self/ns/net")
        until = time.monotonic() + 10
        while os.readlink(f"/proc/{holder.pid}/ns/net") == mine:
            if time.monotonic() > until:
                raise Failure("a namespace doesn't come")
            time.sleep(0.01)
        run("ip", "link", "add", node.name, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        run("ip", "link", "set", node.name, "master", "br0", "up")
        for words in (["address", "add", f"10.77.0.{number}/24", "dev", "eth0"], ["link", "set", "eth0", "up"], ["link", "set", "lo", "up"]):
            run(*self.inside(node), "ip", *words)

    def inside(self, node):
        return ["nsenter", f"--net=/proc/{self.holders[node.name].pid}/ns/net", "--"]

    def made(self):
        """Ports name the node: BASE + k for clients, BASE + 5 + k for peers."""
        paths = [os.path.join(node.folder, "holdfast.conf") for node in self.nodes] + [self.profile]
        for path in paths:
            with open(path, encoding="utf-8") as file:
                text = file.read()
            text = re.sub(r"127\.0\.0\.1:(\d+)", lambda m: f"10.77.0.{(int(m[1]) - self.port_base - 1) % 5 + 1}:{m[1]}", text)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)

    def cut_off(self, node, is_cut):
        run("bridge", "link", "set", "dev", node.name, "state", DISABLED if is_cut else FORWARDING)

    def end(self):
        super().end()
        for holder in self.holders.values():
            holder.kill()
            holder.wait()
