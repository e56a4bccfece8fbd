"""A plan of faults, and the nodes' settings, drawn from a seed: the same seed and length give the same plan, whatever happens while it is carried out.

A fault names its target by part (leader, follower, any, all); which node that is shows when its time has come. `may_end` says whether a
node with these hooks armed is allowed to end by itself: a failed log or manifest write must end it, a lost message must not.
"""
import random

# name, specification (drawn values in braces), may the node end by itself, weight. {n}: hits let through first, drawn from what a node
# sees of that hook in a second or two; {p}: probability; {d}: milliseconds; {s}: seed.
HOOKS = [
    ("log write fails", "wal.write=error(EIO),after={n},count=1", True, 3),
    ("log write cut short", "wal.write=short,after={n},count=1", True, 3),
    ("exit at a log write", "wal.write=exit(7),after={n}", True, 2),
    ("slow log", "wal.write=delay({d}),probability={p},seed={s}", False, 3),
    ("log write hangs", "wal.write=hang,after={n}", False, 2),
    ("no space for log segments", "wal.segment.prepare=error(ENOSPC)", True, 2),
    ("no space for log segments for a while", "wal.segment.prepare=error(ENOSPC),count=5", True, 2),
    ("slow log segments", "wal.segment.prepare=delay({d})", False, 1),
    ("log can't be read back", "wal.read=error(EIO),probability={p},seed={s}", True, 2),
    ("log is read back slowly", "wal.read=delay({d})", False, 1),
    ("tables can't be read", "sst.read=error(EIO),probability={small_p},seed={s}", True, 2),
    ("exit while preparing a segment", "wal.segment.prepare=exit(7),after=1", True, 1),
    ("no space for a flush", "flush.write=error(ENOSPC),probability=0.2,seed={s}", False, 2),
    ("no space at a flush's sync", "flush.sync=error(ENOSPC),probability=0.5,seed={s}", False, 2),
    ("flush fails to sync", "flush.sync=error(EIO),after={few},count=1", True, 2),
    ("exit in a flush", "flush.write=exit(7),after={n}", True, 2),
    ("exit before a flush's sync", "flush.sync=exit(7),after={few}", True, 2),
    ("manifest write fails", "manifest.write=error(EIO),after={few},count=1", True, 2),
    ("manifest sync fails", "manifest.sync=error(EIO),after={few},count=1", True, 2),
    ("exit at a manifest write", "manifest.write=exit(7),after={few}", True, 2),
    ("exit before the manifest's sync", "manifest.sync=exit(7),after={few}", True, 2),
    ("manifest switch fails", "manifest.rename=error(EIO),count=1", True, 1),
    ("exit at the manifest's switch", "manifest.rename=exit(7)", True, 1),
    ("apply is slow", "apply=delay({d}),probability={small_p},seed={s}", False, 2),
    ("apply fails", "apply=error(EIO),after={n}", True, 1),
    ("exit before an apply", "apply=exit(7),after={n}", True, 2),
    ("appends don't arrive", "raft.append.receive=error(EIO)", False, 2),
    ("appends don't leave", "raft.append.send=error(EIO)", False, 2),
    ("votes don't arrive", "raft.vote.receive=error(EIO)", False, 1),
    ("votes don't leave", "raft.vote.send=error(EIO)", False, 1),
    ("nothing arrives", "raft.append.receive=error(EIO);raft.vote.receive=error(EIO)", False, 2),
    ("nothing leaves", "raft.append.send=error(EIO);raft.vote.send=error(EIO)", False, 2),
    ("appends get lost", "raft.append.receive=error(EIO),probability={p},seed={s}", False, 2),
    ("late appends", "raft.append.receive=delay({d}),probability={p},seed={s}", False, 3),
    ("late appends and votes", "raft.append.send=delay({d}),probability={p},seed={s};raft.vote.send=delay({d}),seed={s}", False, 2),
]

KINDS = [("kill", 6), ("pause", 5), ("stop", 2), ("kill again and again", 2), ("hooks", 10)]
TARGETS = [("leader", 4), ("follower", 3), ("any", 2), ("all", 2)]


class Fault:
    def __init__(self, at, kind, target, seconds, text):
        self.at = at  # seconds from the start
        self.kind = kind
        self.target = target
        self.seconds = seconds  # until the node is well again, at the latest
        self.text = text
        self.delays = []  # of target all: one a node, so that they don't come back together
        self.specification = None
        self.may_end = False
        self.end_by_kill = True

    def __str__(self):
        return f"{self.at:7.2f} s  {self.text} of {self.target}, {self.seconds:.2f} s" + (
            f"  [{self.specification}]" if self.specification else "")


def choose(rand, table):
    """A row of a table whose last column is the weight."""
    return rand.choices(table, [row[-1] for row in table])[0]


def draw_hooks(rand, fault):
    name, form, fault.may_end, _ = choose(rand, HOOKS)
    fault.specification = form.format(
        n=rand.choice([0, 3, 20, 100, 400, 1000, 3000]), few=rand.choice([0, 1, 2, 4]), d=rand.choice([2, 10, 50, 200, 400]),
        p=rand.choice([0.02, 0.1, 0.3, 1.0]), small_p=rand.choice([0.001, 0.01, 0.05]), s=rand.randrange(1, 1000000))
    fault.text = "hooks: " + name
    fault.seconds = rand.uniform(1.5, 5)
    fault.end_by_kill = "hang" in form or rand.random() < 0.6


def draw_settings(seed):
    """What the configurations of all nodes say beyond the usual, by section: small memtables and caches, so that flushes, merges and reads from
    the log come often; threads for clients or none; io_uring or threads for files."""
    rand = random.Random(-1 - seed)
    return {"node": {"io_threads": rand.choice([0, 0, 1, 2]), "io_uring": rand.choice(["on", "on", "on", "off"])},
            "storage": {"memtable_bytes": "1 MiB", "wal_cache_bytes": "1 MiB"}}


def draw(seed, seconds, only=None):
    """The faults of a run, in order of time. The last ones have ended about when the run's seconds have. only: a word that the hooks' names
    or the kinds must contain."""
    rand = random.Random(seed)
    faults, at = [], 1.0
    while at < seconds - 3:
        kind = choose(rand, KINDS)[0]
        target = choose(rand, TARGETS)[0]
        fault = Fault(at, kind, target, 0, kind)
        if kind == "hooks":
            draw_hooks(rand, fault)
        elif kind == "pause":
            fault.seconds = rand.choice([rand.uniform(0.05, 0.3), rand.uniform(0.3, 3)])
        else:
            fault.seconds = rand.choice([0.05, rand.uniform(0.05, 0.5), rand.uniform(0.5, 3)])
        fault.delays = [rand.uniform(0.5, 1) for _ in range(9)]
        # Mostly one fault after the other; sometimes on top of each other; now and then a rest, in which all must work again.
        gap = rand.choice([rand.uniform(0.1, 0.6), fault.seconds + rand.uniform(0, 0.5), fault.seconds + rand.uniform(0.5, 2)])
        if only is None or only in fault.text or only in fault.kind:
            faults.append(fault)
            at += gap
    return faults
