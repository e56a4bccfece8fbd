#!/usr/bin/env python3
"""Sends one bad frame over good TLS, after the greeting, and judges the answer: garbage.py PORT CA CERTIFICATE-WITHOUT-SUFFIX KIND.

A frame that can't be framed costs the connection; one with bad contents costs a typed error at most, and what comes after it is served.
"""
import socket
import ssl
import sys

MAGIC, VERSION = b"HFR1", 1
GREETING, REFUSAL, ERROR, PING, PONG, PUT, HELLO, RAFT = 1, 2, 3, 4, 5, 16, 64, 65
port, ca, certificate, kind = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]


def header(magic=MAGIC, version=VERSION, type=PUT, flags=0, rid=1, message=0, raw=0):
    return magic + bytes([version, type]) + flags.to_bytes(2, "little") + rid.to_bytes(8, "little") + \
        message.to_bytes(4, "little") + raw.to_bytes(4, "little")


def receive(stream, count):
    got = b""
    while len(got) < count:
        more = stream.recv(count - len(got))
        if not more:
            break
        got += more
    return got


def frame(stream):
    """The type of the next whole frame, or None at the end."""
    head = receive(stream, 24)
    if not head:
        return None
    assert len(head) == 24 and head[:4] == MAGIC and head[4] == VERSION, head
    receive(stream, int.from_bytes(head[16:20], "little") + int.from_bytes(head[20:24], "little"))
    return head[5]


BAD = {
    "magic": header(magic=b"XXXX"),
    "version": header(version=9),
    "flags": header(flags=1),
    "long message": header(message=2**32 - 1),
    "long raw": header(raw=2**32 - 1),
    "malformed": header(message=8) + b"\xff" * 8,
    "malformed hello": header(type=HELLO, message=8) + b"\xff" * 8,
    "raft message before hello": header(type=RAFT, message=8) + b"\xff" * 8,
    "unknown type": header(type=200),
    "truncated": header(message=1000) + b"\x0a",
}
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.load_verify_locations(ca)
context.load_cert_chain(certificate + ".crt", certificate + ".key")
with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5)) as stream:
    stream.settimeout(5)
    assert frame(stream) == GREETING
    stream.sendall(BAD[kind])
    if kind == "truncated":
        sys.exit(0)
    first = frame(stream)
    print(f"{kind}: answered with a frame of type {first}")
    if first == ERROR and kind in ("malformed", "unknown type"):
        stream.sendall(header(type=PING, rid=7))
        assert frame(stream) == PONG
    else:
        assert first in (None, REFUSAL, ERROR), first
        if first is not None:
            assert frame(stream) is None
    if kind in ("malformed", "unknown type") and certificate.endswith("client"):
        assert first == ERROR, first
