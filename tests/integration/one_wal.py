#!/usr/bin/env python3
"""Judges a trace of test_one_wal for one node: one_wal.py DIR NODE. The first line says what was counted, further lines what is wrong."""
import re
import sys

folder, node = sys.argv[1:]


def rows(name):
    with open(f"{folder}/{name}", encoding="utf-8") as lines:
        return [line.split() for line in lines]


def state(name):
    return next((int(groups), int(flushed)) for who, groups, flushed in rows(name) if who == node)


def paths(name):
    return {int(row[1]): row[2] if len(row) > 2 else "" for row in rows(name) if row[0] == node}


before, after = paths("files-before.txt"), paths("files-after.txt")
known = {**before, **after}
tasks = {task for task, who in rows("threads.txt") if who == node}
segments = {inode for inode, path in before.items() if re.fullmatch(r"data/wal/\d+\.log", path)}
fresh = {inode for inode, path in after.items() if inode not in before and path.startswith("data/wal/")}  # being prepared
(groups_before, flushed_before), (groups_after, flushed_after) = state("before.txt"), state("after.txt")
formed = groups_after - groups_before

RWF_DSYNC = 2
asked = writes = syncs = lines_logged = 0
wrong = []
with open(f"{folder}/trace.txt", encoding="utf-8", errors="replace") as trace:
    for line in trace:
        found = re.match(r".*-(\d+)\s+\[\d+\]\s+\S+\s+[\d.]+: (\w+)(?:: |\()(.*)", line)
        if not found:
            continue
        task, event, rest = found.groups()
        inode = re.search(r"\bino (0x[0-9a-f]+|\d+)", rest)
        inode = int(inode.group(1), 0) if inode else None
        what = f"{event} {known.get(inode, '')} {rest.strip()}"
        if event.startswith("io_uring_submit"):
            opcode = re.search(r"opcode (\w+)", rest).group(1)
            if task not in tasks:
                continue
            if opcode not in ("READ", "READV", "READ_FIXED", "NOP", "POLL_ADD", "ASYNC_CANCEL", "TIMEOUT"):
                wrong.append(what)  # WRITE, FSYNC, FALLOCATE, RENAMEAT and so on
        elif event == "iomap_dio_rw_begin":
            flags = re.search(r" flags (\S+)", rest).group(1).split("|")
            if inode not in known or not {"DSYNC", "WRITE"} & set(flags):
                continue  # a read, or a write by a system call without a flag, which is seen as such
            if inode in segments and "DSYNC" in flags and "DIRECT" in flags:
                writes += 1
            elif inode not in fresh:
                wrong.append(what)
        elif event == "sys_pwritev2" and task in tasks and int(re.search(r"\bflags: (\w+)", rest).group(1), 16) == RWF_DSYNC:
            asked += 1
        elif event == "ext4_sync_file_enter":
            if inode in segments:
                syncs += 1
            elif inode in known and inode not in fresh:
                wrong.append(what)
        elif event in ("ext4_da_write_begin", "ext4_write_begin"):
            if known.get(inode) == "log":
                lines_logged += 1
            elif inode in known and inode not in fresh:
                wrong.append(what)
        elif event.startswith("ext4_"):  # truncate, fallocate, unlink, a new inode
            parent = re.search(r"\b(?:dir|parent) (\d+)", rest)
            if (inode in known or (parent and int(parent.group(1)) in known)) and not fresh:
                wrong.append(what)
        elif task in tasks and not fresh:  # a system call that writes, syncs or renames
            wrong.append(what)

print(f"{node}: {formed} groups, {writes} log writes with DSYNC ({asked} calls of pwritev2), {syncs} syncs below them, "
      f"{lines_logged} lines of the server's log, {len(wrong)} other writes, syncs or changes of files")
if formed < 20:
    wrong.append(f"only {formed} groups were formed")
if flushed_before != flushed_after:
    wrong.append("there was a flush: this says nothing")
if not writes == asked == formed:
    wrong.append(f"{writes} log writes, {asked} calls of pwritev2 with RWF_DSYNC, {formed} groups")
# A device that can write through needs no sync below a write with DSYNC; else there is one each.
if syncs not in (0, formed):
    wrong.append(f"{syncs} syncs of the log for {formed} groups")
print("\n".join(wrong))
sys.exit(len(wrong) > 0)
