"""What a guest may answer in one exec. Every byte of it is hostile. No I/O.

The replies come through a warden, which parsed them and may have been taken over. So this module
checks everything again, including what the warden should have checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Literal

from hpcc.core import (
    Digest,
    ExecEvent,
    ExecRequest,
    IntegrityError,
    OutputEvent,
    ResultEvent,
    StdioEvent,
)
from hpcc.runtime.channel.output_order import OutputOrder
from hpcc.wire import warden as wire
from hpcc.wire.exec_frames import (
    CHUNK_BYTES,
    MAX_DETAIL_BYTES,
    MAX_STDIO_PIECES,
    MIN_CHUNK_BYTES,
    NEED_PER_FRAME,
)
from hpcc.wire.frame_gate import PROTOCOL_VIOLATION

MAX_EXIT_CODE: Final = 255
MAX_SIGNAL: Final = 64
_SIGNAL_BASE: Final = 128
# A year. A guest's clock may claim this much, and sums stay finite.
_MAX_SECONDS: Final = 366 * 86400.0
# Fits an SQLite integer with room to spare; no machine has this much.
_MAX_RSS_BYTES: Final = 1 << 50
_MAX_TEXT_CHARS: Final = 200
# agent.proto, Result.Reason and Stdio.Stream.
_REASONS: Final[Mapping[int, str]] = {
    1: "",
    2: "deadline",
    3: "no-such-program",
    4: "stdio-limit",
    5: "output-limit",
    6: "memory",
    7: "agent-error",
    8: "output-tree",
}
_STREAMS: Final[Mapping[int, Literal["stdout", "stderr"]]] = {1: "stdout", 2: "stderr"}


class ReplyPhase(Enum):
    """How far the answer has come."""

    NEED = auto()
    RUN = auto()
    OUTPUT = auto()


class ReplyChecker:
    """Checks one answer: `feed` it every reply in order, then call `end`.

    Every breach raises `IntegrityError` with the reason `protocol-violation`.
    """

    def __init__(self, request: ExecRequest) -> None:
        self._request = request
        self._inputs: dict[str, Digest] = {}
        for part in request.parts:
            self._inputs.update(part.by_hash)
        if not request.parts:
            self._inputs.update({f.digest.hash: f.digest for f in request.inputs})
        self._stdio_bytes = self._stdio_pieces = self._output_bytes = 0
        # Path of the current or last file, whether more of it must follow, and its mode.
        self._path, self._is_output_open, self._is_executable = "", False, False
        self._outputs = OutputOrder(request)
        self._may_have_outputs = False
        self.phase = ReplyPhase.NEED
        self.needed: list[Digest] = []
        self.detail = ""

    def feed(self, reply: wire.Reply) -> ExecEvent | None:
        """Check one reply and return its event; None for a Need.

        The blobs of a Need are added to `needed`, in the order in which they must be sent.

        Raises:
            IntegrityError: the reply breaks the protocol or a limit.
        """
        match self.phase, reply:
            case ReplyPhase.NEED, wire.NeedReply():
                self._need(reply)
                return None
            case ReplyPhase.RUN, wire.StdioReply():
                return self._stdio(reply)
            case ReplyPhase.RUN, wire.ResultReply():
                return self._result(reply)
            case ReplyPhase.OUTPUT, wire.OutputReply():
                return self._chunk(reply)
            case phase, _:
                raise _breach(f"{type(reply).__name__} in phase {phase.name}")

    def end(self) -> None:
        """Check that the answer may end here.

        Raises:
            IntegrityError: a result or the rest of an output is missing.
        """
        if self.phase is not ReplyPhase.OUTPUT or self._is_output_open:
            raise _breach(f"the answer ended in phase {self.phase.name}")

    def _need(self, need: wire.NeedReply) -> None:
        if len(need.digests) > NEED_PER_FRAME or (
            need.more and len(need.digests) != NEED_PER_FRAME
        ):
            raise _breach("a Need of a wrong size")
        for raw in need.digests:
            # Popped, so that a blob is requested at most once.
            digest = self._inputs.pop(raw.hex(), None)
            if digest is None:
                raise _breach("a Need for a blob that is not an input, or a second one")
            self.needed.append(digest)
        if not need.more:
            self.phase = ReplyPhase.RUN

    def _stdio(self, stdio: wire.StdioReply) -> StdioEvent:
        stream = _STREAMS.get(stdio.stream)
        self._stdio_bytes += len(stdio.data)
        self._stdio_pieces += 1
        if stream is None or not 0 < len(stdio.data) <= CHUNK_BYTES:
            raise _breach("Stdio of an unknown stream or of a wrong size")
        if (
            self._stdio_bytes > self._request.limits.stdio_bytes
            or self._stdio_pieces > MAX_STDIO_PIECES
        ):
            raise _breach("more stdio than the limit")
        return StdioEvent(stream, stdio.data)

    def _result(self, result: wire.ResultReply) -> ResultEvent:
        reason = _REASONS.get(result.reason)
        times = (
            result.wall_seconds,
            result.user_seconds,
            result.system_seconds,
            result.stage_seconds,
        )
        if reason is None or len(result.detail.encode()) > MAX_DETAIL_BYTES:
            raise _breach("a Result without a known reason")
        if not all(math.isfinite(t) and 0 <= t <= _MAX_SECONDS for t in times):
            raise _breach("a Result with an impossible time")
        if result.max_rss_bytes > _MAX_RSS_BYTES:
            raise _breach("a Result with impossible memory")
        if result.exit_code > MAX_EXIT_CODE or result.signal > MAX_SIGNAL:
            raise _breach("a Result with an impossible status")
        if result.signal and result.exit_code != _SIGNAL_BASE + result.signal:
            raise _breach("a Result whose status and signal disagree")
        if reason and not result.exit_code:
            raise _breach("a Result that failed with status 0")
        self.phase = ReplyPhase.OUTPUT
        self.detail = printable(result.detail)
        self._may_have_outputs = not reason
        return ResultEvent(
            exit_code=result.exit_code,
            signal=result.signal,
            reason=reason,
            wall_seconds=result.wall_seconds,
            user_seconds=result.user_seconds,
            system_seconds=result.system_seconds,
            max_rss_bytes=result.max_rss_bytes,
            stage_seconds=result.stage_seconds,
        )

    def _chunk(self, chunk: wire.OutputReply) -> OutputEvent:
        self._output_bytes += len(chunk.data)
        if not self._may_have_outputs or len(chunk.data) > CHUNK_BYTES:
            raise _breach("an OutputChunk that is too large, or after a failed exec")
        if self._output_bytes > self._request.limits.output_bytes:
            raise _breach("more output than the limit")
        if self._is_output_open:
            if chunk.path != self._path or chunk.is_executable is not self._is_executable:
                raise _breach("an OutputChunk of another file before the last one ended")
        else:
            self._open(chunk)
        if not chunk.last and len(chunk.data) < MIN_CHUNK_BYTES:
            raise _breach("a small OutputChunk that is not the last")
        self._is_output_open = not chunk.last
        return OutputEvent(chunk.path, chunk.data, chunk.is_executable, chunk.last)

    def _open(self, chunk: wire.OutputReply) -> None:
        """Start the next file or directory, which must be one that may come now."""
        if chunk.path.endswith("/") and (chunk.data or chunk.is_executable or not chunk.last):
            raise _breach("an OutputChunk of a directory with content")
        if not self._outputs.take(chunk.path):
            raise _breach("an OutputChunk of an undeclared path, or out of order")
        self._path, self._is_executable = chunk.path, chunk.is_executable


def printable(text: str) -> str:
    """Return the first 200 characters of a guest's text, safe for a log and a terminal."""
    start = text[:_MAX_TEXT_CHARS]
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in start)


def _breach(what: str) -> IntegrityError:
    return IntegrityError(f"the guest broke the protocol: {what}", reason=PROTOCOL_VIOLATION)
