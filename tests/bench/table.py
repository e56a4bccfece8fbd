#!/usr/bin/env python3
"""Medians of the JSON lines of bench-cluster as a table, with the ratio to the peer."""
import collections
import json
import statistics
import sys

runs = collections.defaultdict(list)
for line in open(sys.argv[1]):
    run = json.loads(line)
    runs[(run["op"], run["clients"], run["conns"], run["who"])].append(run)


def median(key, name):
    return statistics.median(run.get(name, 0) for run in runs[key])


print(f"{'operation':<17} {'clients':>8} {'who':<9} {'ops/s':>9} {'p50 us':>8} {'p99 us':>8} {'srv us/op':>10} {'cli us/op':>10}"
      f" {'errors':>7}  ratio (ops, p99, server CPU)")
for op, clients, conns, who in sorted(runs, key=lambda k: (k[0] != "put", k[1], k[2], k[3] != "holdfast")):
    key = (op, clients, conns, who)
    row = f"{op:<17} {f'{clients}:{conns}':>8} {who:<9} {median(key, 'ops_s'):>9,.0f} {median(key, 'p50'):>8,.0f}" \
          f" {median(key, 'p99'):>8,.0f} {median(key, 'server_cpu_us_per_op'):>10.1f}" \
          f" {median(key, 'client_cpu_us_per_op'):>10.1f} {sum(r['errors'] for r in runs[key]):>7}"
    peer = (op, clients, conns, "etcd")
    if who == "holdfast" and peer in runs:
        row += f"  {median(key, 'ops_s') / median(peer, 'ops_s'):.1f} x, " \
               f"{median(peer, 'p99') / max(median(key, 'p99'), 1):.1f} x shorter, " \
               f"{median(peer, 'server_cpu_us_per_op') / max(median(key, 'server_cpu_us_per_op'), 0.01):.1f} x less"
    print(row)
