#!/usr/bin/env python3
"""Judges a history of holdfast-history (see history.c), and optionally final states.

    check_history.py HISTORY [EXPORT ...]

Is each key a linearizable register? No number is put twice, so each read names the put that it saw, and the question has an exact
answer in n log n (Gibbons and Korach, "Testing shared memories", 1997). A number's cluster is its put and all reads that saw it.
Somewhere between the earliest end (first_end) and the latest begin (last_begin) in the cluster the register surely held the number, if
first_end < last_begin: the cluster is then *forward*, and its zone runs from first_end to last_begin. Else it is *backward*: all of it
overlaps, and one moment inside is enough. The register is linearizable exactly if
  - no read ended before the put that it saw began,
  - no two forward zones overlap (the register can't hold two numbers at once),
  - no backward zone lies inside a forward zone (there would be no moment for it).
A put that surely failed must not be seen. One of unknown outcome may happen at any later time, so it has no end of its own; if nobody saw
it, it says nothing. The key's absence is a put of 0 before everything.

Beyond each key: a put has one revision, the same in its own answer and in all reads; of two puts, on whatever keys, where one ended before
the other began, the later has the higher revision. And a batch is all or nothing: a key's twin is there exactly if the number is even.

A final state is a read of every key after everything; all final states must be equal. They are JSON lines of `holdfastctl export`; keys
that the history doesn't know are left alone. Exit code 0: good; 1: violations, printed; 2: bad input.
"""
import json
import sys

FOREVER = float("inf")
SHOWN_MAX = 20  # violations


class Bad(Exception):
    """The input isn't a history or an export."""


class Cluster:
    """A put, from begin to end in time, and all reads that saw it."""

    __slots__ = ("begin", "end", "outcome", "revision", "first_end", "last_begin", "seen")

    def __init__(self, begin):
        self.begin = begin
        self.end = FOREVER
        self.outcome = "info"
        self.revision = None
        self.first_end = FOREVER  # of put and reads
        self.last_begin = begin
        self.seen = 0


class Judge:
    def __init__(self):
        self.keys = {}  # name -> {number -> Cluster}
        self.violations = []
        self.counts = {"put ok": 0, "put fail": 0, "put info": 0, "read ok": 0, "read fail": 0}
        self.first = FOREVER
        self.last = 0

    def violation(self, text):
        self.violations.append(text)

    # ---- Taking events in ------------------------------------------------------------------------------------------
    def key(self, name):
        clusters = self.keys.get(name)
        if clusters is None:
            absent = Cluster(-1)
            absent.end = absent.first_end = 0
            absent.outcome = "ok"
            clusters = self.keys[name] = {0: absent}
        return clusters

    def begin_put(self, name, number, at):
        clusters = self.key(name)
        if number in clusters:
            raise Bad(f"{name}: number {number} is put twice")
        clusters[number] = Cluster(at)

    def end_put(self, name, number, at, outcome, revision):
        cluster = self.keys[name][number]
        cluster.outcome = outcome
        self.counts["put " + outcome] += 1
        if outcome == "ok":
            cluster.end = at
            cluster.first_end = min(cluster.first_end, at)
            self.note_revision(name, number, cluster, revision)

    def note_revision(self, name, number, cluster, revision):
        if revision is None:
            return
        if cluster.revision is None:
            cluster.revision = revision
        elif cluster.revision != revision:
            self.violation(f"{name}: {number} has the revisions {cluster.revision} and {revision}")

    def read(self, what, name, number, begin, end, revision):
        cluster = self.key(name).get(number)
        if cluster is None:
            return self.violation(f"{what} {name} saw {number}, which was never put")
        if cluster.begin > end:
            return self.violation(f"{what} {name} saw {number} at {end} us, before its put began at {cluster.begin} us")
        cluster.seen += 1
        cluster.first_end = min(cluster.first_end, end)
        cluster.last_begin = max(cluster.last_begin, begin)
        if number != 0:
            self.note_revision(name, number, cluster, revision)
        return None

    def twin(self, what, name, number, twin):
        wanted = number if number % 2 == 0 else 0
        if twin != wanted:
            self.violation(f"{what} {name} saw {number} and the twin {twin}, not {wanted}: a batch came in half")

    def load(self, path):
        """All puts first, as a read may end before the line of its put's end."""
        reads, pending = [], {}
        with open(path, encoding="utf-8") as lines:
            for at, line in enumerate(lines, 1):
                try:
                    self.event(json.loads(line), pending, reads)
                except (ValueError, KeyError, TypeError) as error:
                    raise Bad(f"{path}:{at}: {error!r}") from error
        for event, begin in reads:
            self.read(event["op"], event["key"], event["number"], begin, event["us"], event.get("revision"))
            if event["op"] == "scan":
                self.twin("scan", event["key"], event["number"], event["twin"])

    def event(self, event, pending, reads):
        client, kind, at = event["client"], event["event"], event["us"]
        if at < self.last:
            raise Bad("the clock goes backwards")
        self.first = min(self.first, at)
        self.last = at
        if kind == "invoke":
            if client in pending:
                raise Bad(f"client {client} began twice")
            pending[client] = (event["op"], event["key"], at)
            if event["op"] == "put":
                self.begin_put(event["key"], event["number"], at)
            return
        op, name, begin = pending.pop(client)
        if (op, name) != (event["op"], event["key"]) or kind not in ("ok", "fail", "info"):
            raise Bad(f"client {client} ends what it did not begin")
        if op == "put":
            self.end_put(name, event["number"], at, kind, event.get("revision"))
            return
        self.key(name)
        self.counts["read ok" if kind == "ok" else "read fail"] += 1
        if kind == "ok":
            reads.append((event, begin))

    def final(self, path):
        found = {}
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                try:
                    pair = json.loads(line)
                    if "key" in pair:
                        found[pair["key"]] = pair["value"]
                except (ValueError, KeyError) as error:
                    raise Bad(f"{path}: {error!r}") from error

        def number_at(name):
            head = found.get(name, "0 ").split(" ", 1)[0]
            return int(head) if head.isdigit() else -1

        for name in list(self.keys):
            number = number_at(name)
            self.read(path, name, number, self.last + 1, self.last + 2, None)
            self.twin(path, name, number, number_at(name + "~"))
        return found

    # ---- Judging ---------------------------------------------------------------------------------------------------
    def check_key(self, name, clusters):
        """One sweep over the zones in the order of their begins."""
        forward, backward = [], []
        for number, cluster in clusters.items():
            if cluster.outcome == "fail" and cluster.seen > 0:
                self.violation(f"{name}: {number} was seen, but its put surely failed")
            if cluster.outcome == "ok" or cluster.seen > 0:
                if cluster.first_end < cluster.last_begin:
                    forward.append((cluster.first_end, cluster.last_begin, number))
                else:
                    backward.append((cluster.last_begin, cluster.first_end, number))
        forward.sort()
        for (begin, end, number), (later_begin, later_end, later) in zip(forward, forward[1:]):
            if later_begin < end:
                self.violation(f"{name}: {number} surely was there from {begin} to {end} us, and {later} from {later_begin} to "
                               f"{later_end} us")
        backward.sort()
        at = 0
        for begin, end, number in backward:
            # Forward zones don't overlap, or there is a violation already: the one that may hold this is the last that began before.
            while at < len(forward) and forward[at][0] < begin:
                at += 1
            if at > 0 and end < forward[at - 1][1]:
                self.violation(f"{name}: {number} must have been there at a moment of {begin} to {end} us, but {forward[at - 1][2]} "
                               f"surely was from {forward[at - 1][0]} to {forward[at - 1][1]} us: a lost write or an old read")

    def check_revisions(self):
        """Of all puts whose revision is known, by time: whoever begins after another's end has a higher revision."""
        begins, ends = [], []
        for name, clusters in self.keys.items():
            for number, cluster in clusters.items():
                if cluster.revision is not None:
                    begins.append((cluster.begin, cluster.revision, name, number))
                    ends.append((cluster.end, cluster.revision, name, number))
        begins.sort()
        ends.sort()
        at, newest = 0, (0, 0, "", 0)
        for begin, revision, name, number in begins:
            while ends[at][0] < begin:
                newest = max(newest, ends[at], key=lambda put: put[1])
                at += 1
            if revision <= newest[1]:
                self.violation(f"{name}: {number} has revision {revision}, but {newest[2]}: {newest[3]}, put before, has {newest[1]}")

    def judge(self):
        for name, clusters in self.keys.items():
            self.check_key(name, clusters)
        self.check_revisions()
        if self.counts["put ok"] == 0 or self.counts["read ok"] == 0:
            self.violation("nothing was acknowledged or nothing was read")


def main(argv):
    if len(argv) < 2:
        print(__doc__)
        return 2
    judge = Judge()
    try:
        judge.load(argv[1])
        states = [(path, judge.final(path)) for path in argv[2:]]
    except (Bad, OSError) as error:
        print(f"bad input: {error}")
        return 2
    for path, found in states[1:]:
        if found != states[0][1]:
            names = sorted(set(found) | set(states[0][1]))
            judge.violation(f"{path} and {states[0][0]} differ, first at {next(n for n in names if found.get(n) != states[0][1].get(n))}")
    judge.judge()
    for text in judge.violations[:SHOWN_MAX]:
        print(f"violation: {text}")
    if len(judge.violations) > SHOWN_MAX:
        print(f"and {len(judge.violations) - SHOWN_MAX} more")
    counts = judge.counts
    print(f"{'bad' if judge.violations else 'good'}: {counts['put ok']} puts acknowledged, {counts['put fail']} failed, "
          f"{counts['put info']} unknown; {counts['read ok']} reads, {counts['read fail']} failed; {len(judge.keys)} keys, "
          f"{len(states)} final states")
    return 1 if judge.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
