"""A cluster of real processes for the chaos runner: its nodes are children of this process, so that each end is seen with its exit code, and
nothing is ever ended by name. deploy/local-cluster makes certificates and configuration.

Every child dies with this process, however it ends (setpriv --pdeathsig).
"""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SANITIZER_EXIT = 99


class Failure(Exception):
    """The cluster did what it must not do, or didn't do what it must."""


def child(command, **more):
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--"] + command, stdin=subprocess.DEVNULL, cwd="/", **more)


class Node:
    def __init__(self, cluster, name):
        self.cluster = cluster
        self.name = name
        self.folder = os.path.join(cluster.folder, name)
        self.process = None
        self.paused = False
        self.specification = None
        self.may_end = False  # by itself
        self.log_from = 0     # where this start's part of the log begins
        self.starts = 0
        self.ends = []        # exit codes of ends by itself

    def start(self, specification=None, may_end=False):
        assert self.process is None
        environment = dict(os.environ, ASAN_OPTIONS=f"exitcode={SANITIZER_EXIT}", UBSAN_OPTIONS=f"exitcode={SANITIZER_EXIT}")
        environment.pop("HOLDFAST_FAULTS", None)
        if specification:
            environment["HOLDFAST_FAULTS"] = specification
        self.log_from = self.log_bytes()
        self.specification, self.may_end, self.paused = specification, may_end, False
        with open(os.path.join(self.folder, "out"), "ab") as out:
            self.process = child(self.cluster.inside(self) + [os.path.join(self.cluster.programs, "holdfastd"), "--config",
                                                              os.path.join(self.folder, "holdfast.conf")],
                                 stdout=out, stderr=out, env=environment)
        self.starts += 1

    def signal(self, number):
        if self.process is not None:
            self.process.send_signal(number)
            self.paused = number == signal.SIGSTOP or (self.paused and number != signal.SIGCONT)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            code = self.process.wait()
            self.process = None
            if code != -signal.SIGKILL:
                self.ended(code)

    def stop(self, seconds):
        """In order: must end with 0 in time, also without a quorum. A process so young that it has no handler yet just ends."""
        if self.process is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{self.name} doesn't stop within {seconds} s of SIGTERM") from error
        self.process = None
        if code not in (0, -signal.SIGTERM):
            self.ended(code)

    def look(self):
        """Notes that the process has ended by itself. True if it had."""
        if self.process is None or self.process.poll() is None:
            return False
        code = self.process.returncode
        self.process = None
        self.ended(code)
        return True

    def ended(self, code):
        self.ends.append(code)
        if code < 0 or code == SANITIZER_EXIT:
            raise Failure(f"{self.name} crashed: " + (signal.Signals(-code).name if code < 0 else "sanitizer"))
        if not self.may_end:
            raise Failure(f"{self.name} ended by itself with exit code {code}" +
                          (f" under {self.specification}" if self.specification else ""))
        if code == 0:
            raise Failure(f"{self.name} ended by itself with exit code 0 under {self.specification}")

    def log_bytes(self):
        try:
            return os.path.getsize(os.path.join(self.folder, "log"))
        except OSError:
            return 0

    def log_since_start(self):
        try:
            with open(os.path.join(self.folder, "log"), "rb") as log:
                log.seek(self.log_from)
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def leads_in_term(self):
        """The term that it leads as far as its log says, else 0."""
        roles = re.findall(r"event=raft\.role .*?role=(\w+) term=(\d+)", self.log_since_start()) if self.process else []
        return int(roles[-1][1]) if roles and roles[-1][0] == "leader" else 0


class Cluster:
    def __init__(self, folder, programs, count, port_base):
        self.folder = folder
        self.programs = programs
        self.profile = os.path.join(folder, "client.ini")
        self.nodes = [Node(self, f"n{k}") for k in range(1, count + 1)]
        self.port_base = port_base

    def inside(self, node):
        """What runs a command where the node lives."""
        del node
        return []

    def local_cluster(self, *words):
        done = subprocess.run([os.path.join(ROOT, "deploy/local-cluster"), *words, "--dir", self.folder, "--port-base", str(self.port_base)],
                              env=dict(os.environ, HOLDFAST_BIN=self.programs), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"local-cluster {words[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def make(self, settings):
        self.local_cluster("make", "--nodes", str(len(self.nodes)))
        for node in self.nodes:
            path = os.path.join(node.folder, "holdfast.conf")
            with open(path, encoding="utf-8") as conf:
                text = conf.read()
            for section, keys in settings.items():
                lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
                head = f"[{section}]\n"
                text = text.replace(head, head + lines, 1) if head in text else f"{text}\n{head}{lines}"
            with open(path, "w", encoding="utf-8") as conf:
                conf.write(text)
        self.made()
        for node in self.nodes:
            node.start()

    def made(self):
        """Files are there, nothing runs yet."""

    def look(self):
        """The nodes that ended by themselves since the last look."""
        return [node for node in self.nodes if node.look()]

    def leader(self):
        leader = max(self.nodes, key=Node.leads_in_term)
        return leader if leader.leads_in_term() > 0 else None

    def make_lead(self, node):
        """Asks for it again, where it is refused: a node that lags doesn't get the lead."""
        for _ in range(50):
            if self.leader() is node:
                return
            self.ctl("leader", "transfer", node.name)
            time.sleep(0.1)
        raise Failure(f"{node.name} could not be made to lead")

    def end(self):
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
                node.process = None

    # ---- From outside ----------------------------------------------------------------------------------------------
    def ctl(self, *words, seconds=20, out=None):
        command = [os.path.join(self.programs, "holdfastctl"), "--profile", self.profile, *words]
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out or subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"holdfastctl {' '.join(words)} takes longer than {seconds} s") from error

    def status(self):
        try:
            return json.loads(self.ctl("status", "--output", "json").stdout)["nodes"]
        except (ValueError, KeyError):
            return []

    def is_whole(self, nodes):
        return sorted(node["role"] for node in nodes) == ["follower"] * (len(self.nodes) - 1) + ["leader"]

    def await_whole(self, seconds, equal):
        """Until one leads, all others follow and, if equal, all have applied the same."""
        until, nodes = time.monotonic() + seconds, []
        while time.monotonic() < until:
            self.look()
            nodes = self.status()
            if self.is_whole(nodes) and (not equal or len({n["applied"] for n in nodes} | {n["commit"] for n in nodes}) == 1):
                return
            time.sleep(0.1)
        raise Failure(f"the cluster isn't whole again within {seconds} s: " +
                      json.dumps([{k: n.get(k) for k in ("name", "role", "term", "last", "commit", "applied")} for n in nodes]))

    def export(self, node, path):
        with open(path, "wb") as out:
            done = self.ctl("--node", node.name, "--local", "export", "-", seconds=60, out=out)
        if done.returncode != 0:
            raise Failure(f"export of {node.name}: exit code {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}")

    def keep_logs(self, folder):
        for node in self.nodes:
            for name in ("log", "out", "holdfast.conf"):
                for path in glob.glob(os.path.join(node.folder, name)):
                    shutil.copy(path, os.path.join(folder, f"{node.name}-{name}"))
