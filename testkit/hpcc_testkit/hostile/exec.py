"""Attacks in the answer to a compile.

Attacks in `EXEC` are the answer; attacks in `AFTER` start after a good answer. `HONEST` holds good
behaviour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import quote

from hpcc._proto import agent_pb2 as pb
from hpcc_testkit.hostile import peer as raw
from hpcc_testkit.hostile.attack import ESCAPE, LOST, SILENT, VIOLATION, Attack, within
from hpcc_testkit.hostile.peer import Peer

EXEC: Final[dict[str, Attack]] = {}
AFTER: Final[dict[str, Attack]] = {}
# Good behaviour, which a host without a check must serve too.
HONEST: Final[dict[str, Attack]] = {}
_HUGE: Final = 2**64 - 1
_CHUNK: Final = 256 << 10


def need(*digests: bytes, more: bool = False) -> pb.ServerFrame:
    """Return the frame that asks the host for blobs."""
    return pb.ServerFrame(need=pb.Need(digests=digests, more=more))


def out(piece: bytes = b"x", stream: int = pb.Stdio.STREAM_STDOUT) -> pb.ServerFrame:
    """Return a frame with a piece of standard output."""
    body = pb.Stdio(stream=stream, data=piece)  # type: ignore[arg-type]  # any number
    return pb.ServerFrame(stdio=body)


def result(**fields: object) -> pb.ServerFrame:
    """Return a result frame; the default is a program that ended."""
    values = {"reason": pb.Result.REASON_ENDED, **fields}
    return pb.ServerFrame(result=pb.Result(**values))  # type: ignore[arg-type]  # any number


def chunk(
    path: str, piece: bytes = b"o", *, last: bool = True, is_executable: bool = False
) -> pb.ServerFrame:
    """Return a frame with a piece of an output file."""
    return pb.ServerFrame(
        output=pb.OutputChunk(path=path, data=piece, last=last, is_executable=is_executable)
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """One exec that waits for its answer; the methods send parts of the answer."""

    peer: Peer
    stream: int
    header: pb.Header

    @property
    def inputs(self) -> list[bytes]:
        return [i.digest for i in self.header.inputs]

    @property
    def output(self) -> str:
        return self.header.outputs[0]

    def send(self, content: bytes) -> Asked:
        self.peer.send(content)
        return self

    def say(self, *bodies: pb.ServerFrame | bytes) -> Asked:
        return self.send(b"".join(raw.message(self.stream, body) for body in bodies))

    def data(self, content: bytes, size: int = raw.FRAME_BYTES) -> Asked:
        return self.send(raw.data(self.stream, content, size))

    def headers(self, payload: bytes, *, ends: bool = False) -> Asked:
        if ends:
            self.peer.wait_end(self.stream)
        return self.send(raw.headers(self.stream, payload, ends=ends))

    def end(self, *more: tuple[bytes, bytes], status: bytes = b"0") -> Asked:
        """Send trailers as soon as the host has ended its request."""
        self.peer.wait_end(self.stream)
        return self.send(raw.trailers(self.stream, *more, status=status))

    def flood(self, *bodies: pb.ServerFrame | bytes) -> NoReturn:
        """Send the bodies repeatedly in full frames, within the host's flow-control window."""
        one = b"".join(
            b"\0" + len(r).to_bytes(4, "big") + r
            for r in (b if isinstance(b, bytes) else b.SerializeToString() for b in bodies)
        )
        piece = one * max(raw.FRAME_BYTES // len(one), 1)
        while True:
            for at in range(0, len(piece), raw.FRAME_BYTES):
                self.peer.send_within(self.stream, piece[at : at + raw.FRAME_BYTES])


def asked(peer: Peer, *, opens: bool = True) -> Asked:
    """Wait for the next exec; send the answer's headers unless `opens` is false."""
    stream, request = peer.request()
    if opens:
        peer.send(raw.headers(stream))
    return Asked(peer, stream, request.header)


type _Answer = Callable[[Asked], object]


def _answers(name: str, answer: _Answer, reason: str = VIOLATION, *, opens: bool = True) -> None:
    def run(peer: Peer) -> None:
        peer.settle()
        answer(asked(peer, opens=opens))

    EXEC[name] = Attack(run, reason)


def _says(name: str, *bodies: pb.ServerFrame | bytes, reason: str = VIOLATION) -> None:
    """Add an attack that sends these frames and a good status."""

    def answer(to: Asked) -> None:
        to.say(*bodies)
        to.end()

    _answers(name, answer, reason)


_RESULT = result()
_LAST = need()
_MIB = 1 << 20

_says("stdio-before-need", out())
_says("result-before-need", _RESULT)
_says("output-before-result", _LAST, chunk("a.o"))
_says("two-last-needs", _LAST, _LAST)
_says("two-results", _LAST, _RESULT, _RESULT)
_says("stdio-after-result", _LAST, _RESULT, out())
_says("no-result", _LAST, out())
_answers("nothing-at-all", lambda to: to.send(raw.trailers(to.stream)))
_says("need-of-a-blob-that-is-no-input", need(bytes(32)))
_says("need-that-asks-nothing-and-promises-more", need(more=True))
_says("need-of-a-million", need(*[b""] * 300_000))
_says("stdio-of-no-stream", _LAST, out(stream=0), _RESULT)
_says("stdio-of-stream-2-to-the-31", _LAST, out(stream=2**31 - 1), _RESULT)
_says("empty-stdio", _LAST, out(b""), _RESULT)
_says("stdio-over-256-kib", _LAST, out(bytes(_CHUNK + 1)), _RESULT)
_says("exit-code-256", _LAST, result(exit_code=256))
_says("exit-code-2-to-the-32", _LAST, result(exit_code=2**32 - 1))
_says("signal-65", _LAST, result(signal=65, exit_code=193))
_says("signal-that-disagrees", _LAST, result(signal=9, exit_code=1))
_says("failure-with-status-0", _LAST, result(reason=pb.Result.REASON_MEMORY))
_says("reason-0", _LAST, result(reason=0))
_says("reason-99", _LAST, result(reason=99))
_says("rss-of-16-eib", _LAST, result(max_rss_bytes=_HUGE))
_says("time-of-no-number", _LAST, result(wall_seconds=math.nan))
_says("time-before-the-start", _LAST, result(user_seconds=-1.0))
_says("time-without-end", _LAST, result(stage_seconds=math.inf))
_says("time-of-a-million-years", _LAST, result(system_seconds=3e13))
_says("detail-of-a-mib", _LAST, result(detail="x" * (_MIB - 100)))
_says("output-not-asked-for", _LAST, _RESULT, chunk("other.o"))
_says("output-above", _LAST, _RESULT, chunk("../../etc/passwd"))
_says("output-absolute", _LAST, _RESULT, chunk("/etc/passwd"))
_says("output-with-a-nul", _LAST, _RESULT, chunk("a.o\0"))
_says("output-without-a-name", _LAST, _RESULT, chunk(""))
_says("output-with-a-name-of-a-mib", _LAST, _RESULT, chunk("a" * (_MIB - 100)))
_says("output-with-a-dot", _LAST, _RESULT, chunk("./a.o"))
_says("output-that-is-no-utf8", _LAST, _RESULT, b"\x22\x09\x0a\x03\xff\xfe\xfd\x12\x00\x20\x01")
_says(
    "output-after-a-failed-exec",
    _LAST,
    result(reason=pb.Result.REASON_MEMORY, exit_code=137, signal=9),
    chunk("a.o"),
)
_says("empty-frame", b"")
_says("frame-that-ends-early", b"\x09short")
_says("frame-of-a-wrong-wire-type", b"\x0d\x00\x00\x00\x00")
_says("frame-with-field-0", b"\x02\x00")
_says("frame-with-a-varint-of-11-bytes", b"\x08" + b"\xff" * 11)
_says("frame-of-nested-groups", b"\x2b" * 200_000)
_says("frame-of-nested-messages", b"".join(b"\x3a\xff\xff\x3f" for _ in range(200_000)))
_says("frame-of-unknown-fields", b"\x78\x01" * 500_000)
_says("frame-over-the-limit", _LAST, out(bytes(_MIB + 1)), _RESULT)


def _twice(to: Asked) -> None:
    to.say(need(*to.inputs, *to.inputs))
    to.peer.wait_end(to.stream)
    to.say(_RESULT).end()


def _twice_in_two(to: Asked) -> None:
    to.say(need(*to.inputs, more=True), need(*to.inputs))


def _mixed(to: Asked) -> None:
    first, second = to.header.outputs[:2]
    piece = bytes(_CHUNK)
    to.say(_LAST, _RESULT, chunk(first, piece, last=False), chunk(second, piece))


def _mode_changes(to: Asked) -> None:
    piece = bytes(_CHUNK)
    to.say(
        _LAST, _RESULT, chunk(to.output, piece, last=False), chunk(to.output, is_executable=True)
    )


def _out_of_order(to: Asked) -> None:
    first, second = to.header.outputs[:2]
    to.say(_LAST, _RESULT, chunk(second), chunk(first))


def _million(to: Asked) -> None:
    to.say(_LAST, _RESULT)
    to.flood(*(chunk(f"out-{i}.o") for i in range(500)))


def _compressed(to: Asked) -> None:
    """Send a good answer whose first message is marked as compressed."""
    body = _LAST.SerializeToString()
    to.data(b"\1" + len(body).to_bytes(4, "big") + body)
    to.say(_RESULT).end()


def _same_again(to: Asked) -> None:
    to.say(_LAST, _RESULT)
    to.flood(chunk(to.output))


def _crumbs(to: Asked) -> None:
    to.say(_LAST, _RESULT)
    to.flood(chunk(to.output, b"o", last=False))


_answers("need-twice", _twice)
_answers("need-twice-in-two-frames", _twice_in_two)
_answers("need-flood", lambda to: to.flood(need(*to.inputs, more=True)))
_answers("need-of-nothing-flood", lambda to: to.flood(need(more=True)))
_answers("stdio-flood", lambda to: (to.say(_LAST), to.flood(out(bytes(16_000)))))
_answers("stdio-flood-of-single-bytes", lambda to: (to.say(_LAST), to.flood(out())))
_answers(
    "output-flood",
    lambda to: (to.say(_LAST, _RESULT), to.flood(chunk(to.output, bytes(_CHUNK), last=False))),
)
_answers("output-flood-of-single-bytes", _crumbs)
_answers("million-outputs", _million)
_answers("same-output-for-ever", _same_again)
_answers("outputs-mixed", _mixed)
_answers("outputs-out-of-order", _out_of_order)
_answers("mode-that-changes", _mode_changes)
_answers(
    "output-that-never-ends",
    lambda to: (to.say(_LAST, _RESULT, chunk(to.output, bytes(_CHUNK), last=False)), to.end()),
)
_answers(
    "empty-chunk-that-is-not-the-last",
    lambda to: to.say(_LAST, _RESULT, chunk(to.output, b"", last=False)),
)
_answers("message-of-4-gib", lambda to: to.data(b"\0\xff\xff\xff\xff" + bytes(1000)))
_answers("compressed-message", _compressed)
_answers("half-a-message", lambda to: (to.say(_LAST), to.data(b"\0\0\0\0\x09half"), to.end()))
_answers("half-a-prefix", lambda to: (to.say(_LAST), to.data(b"\0\0"), to.end()))
_answers("reset", lambda to: to.send(raw.frame(raw.RST_STREAM, 0, to.stream, b"\0\0\0\x08")), LOST)
_answers(
    "ends-before-it-was-told-all",
    lambda to: (to.say(need(*to.inputs), _RESULT), to.send(raw.trailers(to.stream))),
)
_answers(
    "status-that-lies",
    lambda to: (to.say(_LAST, _RESULT, chunk(to.output)), to.end(status=b"13")),
    LOST,
)
_answers("status-99", lambda to: (to.say(_LAST, _RESULT), to.end(status=b"99")), LOST)
_answers("status-of-words", lambda to: (to.say(_LAST, _RESULT), to.end(status=b"words")), LOST)
_answers(
    "status-of-4000-digits", lambda to: (to.say(_LAST, _RESULT), to.end(status=b"9" * 4000)), LOST
)
_answers(
    "status-missing",
    lambda to: (to.say(_LAST, _RESULT), to.headers(raw.block((b"x", b"y")), ends=True)),
    LOST,
)
_answers(
    "status-message-of-escapes",
    lambda to: (to.say(_LAST), to.end((b"grpc-message", quote(ESCAPE * 20).encode()), status=b"3")),
    LOST,
)
_answers(
    "status-message-of-controls",
    lambda to: (to.say(_LAST), to.end((b"grpc-message", ESCAPE.encode()), status=b"3")),
)
_answers(
    "status-message-of-8000-bytes",
    lambda to: (to.say(_LAST), to.end((b"grpc-message", b"x" * 8000), status=b"3")),
)
_answers(
    "status-details-of-junk",
    lambda to: (to.say(_LAST), to.end((b"grpc-status-details-bin", b"!!!="), status=b"3")),
    LOST,
)
_answers(
    "metadata-that-is-no-base64",
    lambda to: to.headers(raw.OPENING + raw.block((b"x-bin", b"!!!="))),
    SILENT,
    opens=False,
)
_answers(
    "content-type-of-a-page",
    lambda to: (
        to.headers(raw.block((b":status", b"200"), (b"content-type", b"text/html"))),
        to.say(_LAST),
    ),
    LOST,
    opens=False,
)
_answers(
    "http-status-500", lambda to: to.headers(raw.block((b":status", b"500"))), LOST, opens=False
)
_answers(
    "http-status-of-words",
    lambda to: to.headers(raw.block((b":status", b"x" * 4000))),
    LOST,
    opens=False,
)
_answers(
    "no-http-status",
    lambda to: to.headers(raw.block((b"content-type", b"application/grpc"))),
    VIOLATION,
    opens=False,
)
_answers(
    "continue-flood",
    lambda to: to.peer.flood(raw.headers(to.stream, raw.block((b":status", b"100")))),
    VIOLATION,
    opens=False,
)
_answers("headers-again", lambda to: to.headers(raw.OPENING), VIOLATION)
_answers(
    "header-in-capitals",
    lambda to: to.headers(raw.OPENING + raw.block((b"X-Y", b"z"))),
    SILENT,
    opens=False,
)
_answers(
    "header-list-of-a-mib",
    lambda to: to.send(_long_block(to.stream, raw.block(*[(b"x" * 60, b"y" * 60)] * 8000))),
    opens=False,
)
_answers(
    "hpack-bomb",
    lambda to: to.headers(
        raw.OPENING + raw.literal(b"x", b"y" * 4000, kind=0x40) + b"\xbe" * 12_000
    ),
    opens=False,
)
_answers(
    "hpack-table-of-4-gib",
    lambda to: to.headers(b"\x3f\xe1\xff\xff\xff\x0f" + raw.OPENING),
    opens=False,
)
_answers("hpack-index-of-nothing", lambda to: to.headers(b"\xff\x80\x80\x80\x08"), opens=False)
_answers("hpack-number-without-end", lambda to: to.headers(b"\xff" + b"\xff" * 8000), opens=False)
_answers(
    "hpack-string-of-4-gib", lambda to: to.headers(b"\x00\x7f\xff\xff\xff\xff\x0f"), opens=False
)
_answers(
    "continuation-flood",
    lambda to: (
        to.send(raw.frame(raw.HEADERS, 0, to.stream, raw.OPENING)),
        to.peer.flood(raw.frame(raw.CONTINUATION, 0, to.stream, b"")),
    ),
    opens=False,
)
_answers(
    "continuation-of-another-stream",
    lambda to: to.send(
        raw.frame(raw.HEADERS, 0, to.stream, raw.OPENING)
        + raw.frame(raw.CONTINUATION, 4, to.stream + 2, b"")
    ),
    opens=False,
)
_answers("empty-data-flood", lambda to: to.peer.flood(raw.frame(raw.DATA, 0, to.stream)))
_answers("padded-data", lambda to: to.send(raw.frame(raw.DATA, raw.PADDED, to.stream, b"\x01x\0")))
_answers(
    "padding-longer-than-its-frame",
    lambda to: to.send(raw.frame(raw.DATA, raw.PADDED, to.stream, b"\xff")),
)
_answers(
    "data-in-single-bytes",
    lambda to: (to.say(_LAST, _RESULT), to.data(b"\0\0\x0f\0\0" + bytes(60_000), 1)),
)
_answers(
    "data-beyond-the-window",
    lambda to: to.peer.flood(
        raw.data(to.stream + 2, bytes(16_000)) + raw.data(to.stream, bytes(16_000))
    ),
)
_answers(
    "reset-and-data-for-ever",
    lambda to: (
        to.send(raw.frame(raw.RST_STREAM, 0, to.stream, bytes(4))),
        to.peer.flood(raw.data(to.stream, bytes(16_000))),
    ),
    LOST,
)
_answers("rapid-reset", lambda to: to.peer.flood(raw.frame(raw.RST_STREAM, 0, to.stream, bytes(4))))
_answers(
    "stream-window-overflow",
    lambda to: to.send(raw.frame(raw.WINDOW, 0, to.stream, (2**31 - 1).to_bytes(4, "big")) * 2),
    LOST,
)
_answers(
    "goaway-in-mid-exec",
    lambda to: (to.say(_LAST), to.send(raw.frame(raw.GOAWAY, 0, 0, bytes(8)))),
)
_answers(
    "data-frame-of-16-mib-announced",
    lambda to: to.send(b"\xff\xff\xff\0\0" + to.stream.to_bytes(4, "big")),
)


def _long_block(stream: int, payload: bytes) -> bytes:
    """Return one header block of any length, split over as many frames as needed."""
    pieces = [payload[i : i + raw.FRAME_BYTES] for i in range(0, len(payload), raw.FRAME_BYTES)]
    return raw.frame(raw.HEADERS, 0, stream, pieces[0]) + b"".join(
        raw.frame(raw.CONTINUATION, 4 if i == len(pieces) - 2 else 0, stream, piece)
        for i, piece in enumerate(pieces[1:])
    )


@within(EXEC, SILENT)
def _no_answer(peer: Peer) -> None:
    peer.settle()
    asked(peer, opens=False)
    peer.serve()


@within(EXEC, SILENT)
def _silence_after_need(peer: Peer) -> None:
    peer.settle()
    asked(peer).say(_LAST)
    peer.serve()


@within(EXEC, SILENT)
def _never_ends(peer: Peer) -> None:
    peer.settle()
    to = asked(peer)
    to.say(_LAST, _RESULT, chunk(to.output))
    peer.serve()


@within(EXEC, SILENT)
def _drips(peer: Peer) -> None:
    """Send a good message slowly, byte by byte."""
    peer.settle()
    to = asked(peer)
    to.say(_LAST)
    for byte in raw.data(to.stream, b"\0\0\0\xff\xff" + bytes(60_000)):
        peer.send(bytes([byte]))
        peer.pause(0.01)


@within(EXEC, SILENT)
def _no_window(peer: Peer) -> None:
    """Request the inputs with a window that is too small to send them."""
    peer.send(raw.settings((4, 0)) + raw.frame(raw.SETTINGS, raw.ACK, 0))
    peer.serve()


@within(EXEC, SILENT)
def _never_reads(peer: Peer) -> None:
    """Open wide windows and read nothing."""
    peer.settle()
    peer.hold()


@within(EXEC, SILENT)
def _asks_and_reads_nothing(peer: Peer) -> None:
    """Request the inputs with enough window, and read none of them."""
    peer.settle()
    to = asked(peer)
    to.say(need(*to.inputs))
    peer.hold()


@within(EXEC, SILENT)
def _no_streams(peer: Peer) -> None:
    """Allow zero concurrent streams."""
    peer.settle()
    peer.send(raw.settings((3, 0)))
    peer.serve()


def _after(name: str, more: Callable[[Asked], object], *bodies: pb.ServerFrame | bytes) -> None:
    def run(peer: Peer) -> None:
        peer.settle()
        to = asked(peer)
        to.say(_LAST, *(bodies or (_RESULT, chunk(to.output)))).end()
        more(to)

    AFTER[name] = Attack(run, VIOLATION)


def _later(to: Asked) -> None:
    to.peer.pause(0.3)
    to.send(b"\0" * 9)


_after(
    "detail-of-escapes",
    _later,
    result(reason=pb.Result.REASON_AGENT_ERROR, exit_code=125, detail=ESCAPE * 20),
)
_after("frames-after-the-end", lambda to: to.peer.flood(raw.data(to.stream, bytes(16_000))))
_after("trailers-after-the-end", lambda to: to.peer.flood(raw.trailers(to.stream)))
_after(
    "resets-after-the-end",
    lambda to: to.peer.flood(raw.frame(raw.RST_STREAM, 0, to.stream, bytes(4))),
)
_after(
    "windows-after-the-end",
    lambda to: to.peer.flood(raw.frame(raw.WINDOW, 0, to.stream, b"\0\0\0\1")),
)


@within(HONEST, "")
def _good_answer(peer: Peer) -> None:
    peer.settle()
    to = asked(peer)
    to.say(need(*to.inputs))
    peer.wait_end(to.stream)
    to.say(_RESULT, chunk(to.output)).end()
    peer.serve()
