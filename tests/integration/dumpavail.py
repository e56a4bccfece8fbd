#!/usr/bin/env python3
"""The Debian package index as JSON lines: key = package/version/architecture, value = the whole stanza, byte for byte.

    dumpavail.py DUMP INPUT EXPECTED

DUMP is what `apt-cache dumpavail` printed. INPUT gets the lines in the order of the index, EXPECTED what `holdfastctl export` must give:
sorted by the key's bytes, one line a key, the last one of equal keys.
"""
import base64
import json
import sys


def member(name, raw):
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {name + "_b64": base64.b64encode(raw).decode()}


def line(key, value):
    return json.dumps({**member("key", key), **member("value", value)}, ensure_ascii=False, separators=(",", ":")) + "\n"


def field(stanza, name):
    for row in stanza.split(b"\n"):
        if row.startswith(name + b": "):
            return row[len(name) + 2:]
    raise SystemExit(f"a stanza without {name.decode()}")


stanzas = [s for s in open(sys.argv[1], "rb").read().split(b"\n\n") if s]
pairs = []
for stanza in stanzas:
    pairs.append((b"/".join(field(stanza, n) for n in (b"Package", b"Version", b"Architecture")), stanza))
with open(sys.argv[2], "w", encoding="utf-8", newline="") as out:
    out.writelines(line(*pair) for pair in pairs)
with open(sys.argv[3], "w", encoding="utf-8", newline="") as out:
    out.writelines(line(*pair) for pair in sorted(dict(pairs).items()))
print(len(pairs), "stanzas,", len(dict(pairs)), "keys,", sum(len(v) for _, v in pairs), "bytes")
