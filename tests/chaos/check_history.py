#!/usr/bin/env python3
"""Judges a history of holdfast-history (see history.c), and optionally the final state.

    check_history.py HISTORY [EXPORT ...]

Each key has one writer that puts 1, 2, 3, ... one at a time. So, for a read of a key that began at a and ended at b:
  - it may not be older than the newest number acknowledged before a, nor than one that a read which ended before a saw;
  - it must have been begun before b;
  - it may not be a number that surely failed.
The same holds for the final state (a read after everything). This is linearizability for these histories, bar the order of overlapping
reads with unknown writes. Numbers whose outcome is unknown may show up at any later time, or never; a later number hides them.
Exports are JSON lines of `holdfastctl export`. Exit code 0: good, 1: a violation (printed), 2: bad input.
"""
import json
import sys


def fail(text):
    print(f"violation: {text}")
    sys.exit(1)


class Key:
    def __init__(self):
        self.begun = {}         # number -> when
        self.surely_failed = set()
        self.acknowledged = []  # (when, number), in order of time
        self.seen = []          # (end of read, number)

    def floor(self, when):
        """The newest number that a read beginning at `when` must at least see."""
        least = 0
        for end, number in self.acknowledged:
            if end < when:
                least = max(least, number)
        for end, number in self.seen:
            if end < when:
                least = max(least, number)
        return least

    def check(self, name, begin, end, number):
        if number in self.surely_failed:
            fail(f"{name}: {number} is there, but its put surely failed")
        if number and number not in self.begun:
            fail(f"{name}: {number} was never put")
        if number and self.begun[number] > end:
            fail(f"{name}: {number} was read before it was put")
        least = self.floor(begin)
        if number < least:
            fail(f"{name}: read {number} at {begin}..{end} us, but {least} was acknowledged or read before")


def main():
    if len(sys.argv) < 2:
        print(__doc__)
        sys.exit(2)
    keys = {}
    reads = []
    pending = {}
    counts = {"ok": 0, "fail": 0, "info": 0}
    last = 0
    for line in open(sys.argv[1]):
        event = json.loads(line)
        last = event["us"]
        key = keys.setdefault(event["key"], Key())
        client, kind = event["client"], event["event"]
        if kind == "invoke":
            if client in pending:
                print(f"bad history: client {client} began twice")
                sys.exit(2)
            pending[client] = event
            if event["op"] == "put":
                key.begun[event["number"]] = event["us"]
            continue
        begin = pending.pop(client)
        counts[kind] += 1
        if event["op"] == "put":
            if kind == "ok":
                key.acknowledged.append((event["us"], event["number"]))
            elif kind == "fail":
                key.surely_failed.add(event["number"])
        elif kind == "ok":
            reads.append((event["key"], begin["us"], event["us"], event["number"]))
    for name, begin, end, number in sorted(reads, key=lambda r: r[2]):
        keys[name].check(name, begin, end, number)
        keys[name].seen.append((end, number))
        # Only the newest of what was seen matters, and it only grows.
        if len(keys[name].seen) > 64:
            keys[name].seen = sorted(keys[name].seen, key=lambda s: s[1])[-32:] + keys[name].seen[-16:]
    for path in sys.argv[2:]:
        found = {}
        for line in open(path):
            pair = json.loads(line)
            if "key" in pair:
                found[pair["key"]] = int(pair["value"].split()[0]) if pair["value"][:1].isdigit() else 0
        for name, key in keys.items():
            key.check(f"{path}: {name}", last + 1, last + 2, found.get(name, 0))
    acknowledged = sum(len(k.acknowledged) for k in keys.values())
    if acknowledged == 0 or not reads:
        print("violation: nothing was acknowledged or nothing was read")
        sys.exit(1)
    print(f"good: {acknowledged} puts acknowledged, {len(reads)} reads checked, "
          f"{counts['fail']} failed, {counts['info']} unknown, {len(keys)} keys, {len(sys.argv) - 2} final states")


main()
