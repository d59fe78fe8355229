"""What a guest may answer in one Exec. Every byte of it is hostile. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Literal

from hpcc._proto import agent_pb2 as pb
from hpcc.core import (
    Digest,
    ExecEvent,
    ExecRequest,
    IntegrityError,
    OutputEvent,
    ResultEvent,
    StdioEvent,
)
from hpcc.wire import CHUNK_BYTES, MAX_DETAIL_BYTES, NEED_PER_FRAME

PROTOCOL_VIOLATION: Final = "protocol-violation"
MAX_EXIT_CODE: Final = 255
MAX_SIGNAL: Final = 64
_SIGNAL_BASE: Final = 128
# A year: what a guest's clock may claim, and still be added up.
_MAX_SECONDS: Final = 366 * 86400.0
_REASONS: Final[Mapping[int, str]] = {
    pb.Result.REASON_ENDED: "",
    pb.Result.REASON_DEADLINE: "deadline",
    pb.Result.REASON_NO_SUCH_PROGRAM: "no-such-program",
    pb.Result.REASON_STDIO_LIMIT: "stdio-limit",
    pb.Result.REASON_OUTPUT_LIMIT: "output-limit",
    pb.Result.REASON_MEMORY: "memory",
    pb.Result.REASON_AGENT_ERROR: "agent-error",
}
_STREAMS: Final[Mapping[int, Literal["stdout", "stderr"]]] = {
    pb.Stdio.STREAM_STDOUT: "stdout",
    pb.Stdio.STREAM_STDERR: "stderr",
}


class Phase(Enum):
    """Where the answer is."""

    NEED = auto()
    RUN = auto()
    OUTPUT = auto()


class ReplyChecker:
    """Feed it every frame of one answer, then `end`. Raises IntegrityError for any breach."""

    def __init__(self, request: ExecRequest) -> None:
        self._request = request
        self._inputs = {f.digest.hash: f.digest for f in request.inputs}
        self._stdio_bytes = self._output_bytes = 0
        # Index into `outputs` of the file that is open or was last; and whether it is open.
        self._output, self._is_output_open, self._is_executable = -1, False, False
        self._may_have_outputs = False
        self.phase = Phase.NEED
        self.needed: list[Digest] = []
        self.detail = ""

    def feed(self, frame: pb.ServerFrame) -> ExecEvent | None:
        """Take one frame; a Need gives None, its blobs are added to `needed`."""
        match self.phase, frame.WhichOneof("frame"):
            case Phase.NEED, "need":
                self._need(frame.need)
                return None
            case Phase.RUN, "stdio":
                return self._stdio(frame.stdio)
            case Phase.RUN, "result":
                return self._result(frame.result)
            case Phase.OUTPUT, "output":
                return self._chunk(frame.output)
            case phase, kind:
                raise _breach(f"frame {kind!r} in phase {phase.name}")

    def end(self) -> None:
        """Check that the answer may end here."""
        if self.phase is not Phase.OUTPUT or self._is_output_open:
            raise _breach(f"the answer ended in phase {self.phase.name}")

    def _need(self, need: pb.Need) -> None:
        if len(need.digests) > NEED_PER_FRAME or (need.more and not need.digests):
            raise _breach("a Need of a wrong size")
        for raw in need.digests:
            # Popped, so that none is asked for twice.
            digest = self._inputs.pop(raw.hex(), None)
            if digest is None:
                raise _breach("a Need for a blob that is no input, or twice")
            self.needed.append(digest)
        if not need.more:
            self.phase = Phase.RUN

    def _stdio(self, stdio: pb.Stdio) -> StdioEvent:
        stream = _STREAMS.get(stdio.stream)
        self._stdio_bytes += len(stdio.data)
        if stream is None or not 0 < len(stdio.data) <= CHUNK_BYTES:
            raise _breach("Stdio of no stream or of a wrong size")
        if self._stdio_bytes > self._request.limits.stdio_bytes:
            raise _breach("more stdio than the limit")
        return StdioEvent(stream, stdio.data)

    def _result(self, result: pb.Result) -> ResultEvent:
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
        if result.exit_code > MAX_EXIT_CODE or result.signal > MAX_SIGNAL:
            raise _breach("a Result with an impossible status")
        if result.signal and result.exit_code != _SIGNAL_BASE + result.signal:
            raise _breach("a Result whose status and signal disagree")
        if reason and not result.exit_code:
            raise _breach("a Result that failed with status 0")
        self.phase = Phase.OUTPUT
        self.detail = result.detail
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

    def _chunk(self, chunk: pb.OutputChunk) -> OutputEvent:
        outputs = self._request.outputs
        self._output_bytes += len(chunk.data)
        if not self._may_have_outputs or len(chunk.data) > CHUNK_BYTES:
            raise _breach("an OutputChunk that is too large, or after a failed exec")
        if self._output_bytes > self._request.limits.output_bytes:
            raise _breach("more output than the limit")
        if self._is_output_open:
            if (
                chunk.path != outputs[self._output]
                or chunk.is_executable is not self._is_executable
            ):
                raise _breach("an OutputChunk of another file before the last one ended")
            if not chunk.data:
                raise _breach("an empty OutputChunk")
        else:
            self._open(chunk)
        self._is_output_open = not chunk.last
        return OutputEvent(outputs[self._output], chunk.data, chunk.is_executable, chunk.last)

    def _open(self, chunk: pb.OutputChunk) -> None:
        """Start the next file: a declared one, after the one before it."""
        try:
            self._output = self._request.outputs.index(chunk.path, self._output + 1)
        except ValueError:
            raise _breach("an OutputChunk of an undeclared path, or out of order") from None
        if not chunk.data and not chunk.last:
            raise _breach("an empty OutputChunk that is not the last")
        self._is_executable = chunk.is_executable


def _breach(what: str) -> IntegrityError:
    return IntegrityError(f"the guest broke the protocol: {what}", reason=PROTOCOL_VIOLATION)
