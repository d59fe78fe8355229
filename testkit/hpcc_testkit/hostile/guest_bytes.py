"""Complete byte streams of good and hostile guests: seeds for fuzzing a host's parsers.

`python -m hpcc_testkit.hostile.guest_bytes DIR` writes the seeds, each named after its outcome.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from hpcc._proto import agent_pb2 as pb
from hpcc.core import ExecLimits
from hpcc_testkit.guests.guest_contract import request
from hpcc_testkit.hostile import exec as replies
from hpcc_testkit.hostile import peer as raw

TOKEN: Final = b"t" * 32
NONCE: Final = b"n" * 16
STREAM: Final = 1
REQUEST: Final = request(
    "cc", inputs=[("a.c", b"1"), ("b.h", b"2")], outputs=("a.o", "d/b.o"),
    limits=ExecLimits(stdio_bytes=64, output_bytes=1 << 20),
)  # fmt: skip


def seeds() -> dict[str, bytes]:
    """Return inputs by name; the host accepts those named `good-…` and refuses the others."""
    welcome = b"<hpcc" + TOKEN + NONCE
    opening = welcome + raw.settings((4, 1 << 20)) + raw.headers(STREAM)
    digests = [bytes.fromhex(f.digest.hash) for f in REQUEST.inputs]
    need, result = replies.need(*digests), replies.result()
    good: list[pb.ServerFrame | bytes] = [
        need, replies.out(b"warning\n", pb.Stdio.STREAM_STDERR), result, replies.chunk("a.o"),
        replies.chunk("d/b.o", bytes(70_000), last=False), replies.chunk("d/b.o"),
    ]  # fmt: skip
    return {
        "good-answer": _said(opening, *good),
        "good-nothing-needed": _said(opening, replies.need(), result),
        "good-after-firmware": b"SeaBIOS\r\n" * 20 + _said(opening, *good),
        "no-handshake": b"boot message\n" * 40,
        "other-token": (b"<hpcc" + b"x" * 32 + NONCE) * 4,
        "other-nonce": (b"<hpcc" + TOKEN + bytes(16)) * 4,
        "http1": welcome + b"HTTP/1.1 200 OK\r\n\r\n",
        "frame-of-16-mib": opening + b"\xff\xff\xff\0\0\0\0\0\1",
        "push-promise": opening + raw.frame(raw.PUSH_PROMISE, 4, STREAM, b"\0\0\0\2"),
        "continuation": opening + raw.frame(raw.CONTINUATION, 4, STREAM),
        "priority": opening + raw.frame(raw.PRIORITY, 0, STREAM, bytes(5)),
        "padded": opening + raw.frame(raw.DATA, raw.PADDED, STREAM, b"\1x\0"),
        "many-settings": opening + raw.settings((4, 1)) * 50,
        "frames-of-16-mib-wanted": welcome + raw.settings((5, 1 << 24)),
        "pings": opening + raw.frame(raw.PING, 0, 0, bytes(8)) * 5000,
        "message-of-4-gib": opening + raw.data(STREAM, b"\0\xff\xff\xff\xff" + bytes(100)),
        "compressed": opening + raw.data(STREAM, b"\1\0\0\0\1x"),
        "half-a-message": opening + raw.data(STREAM, b"\0\0\0\0\x09half"),
        "no-result": _said(opening, replies.need()),
        "two-results": _said(opening, replies.need(), result, result),
        "need-twice": _said(opening, replies.need(*digests, *digests), result),
        "output-above": _said(opening, replies.need(), result, replies.chunk("../a.o")),
        "groups": _said(opening, b"\x2b" * 5000),
        "unknown-fields": _said(opening, b"\x78\x01" * 5000),
        "wrong-wire-type": _said(opening, b"\x0d\0\0\0\0"),
        "varint-of-11-bytes": _said(opening, b"\x08" + b"\xff" * 11),
        "path-no-utf8": _said(
            opening, replies.need(), result, b"\x22\x09\x0a\x03\xff\xfe\xfd\x12\0\x20\x01"
        ),
        "rss-of-16-eib": _said(
            opening, replies.need(), replies.result(max_rss_bytes=2**64 - 1)
        ),
        "empty": b"",
    }  # fmt: skip


def _said(opening: bytes, *bodies: pb.ServerFrame | bytes) -> bytes:
    return opening + b"".join(raw.message(STREAM, body) for body in bodies) + raw.trailers(STREAM)


if __name__ == "__main__":
    for name, content in seeds().items():
        Path(sys.argv[1], name).write_bytes(content)
