"""One exec on its way through a warden: what is sent, what may come back, and its deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc._proto import agent_pb2 as pb
from hpcc.core import (
    CallerError,
    Digest,
    ExecEvent,
    ExecRequest,
    InputFile,
    IntegrityError,
    ResultEvent,
)
from hpcc.ports import BlobSource
from hpcc.runtime.channel.replies import ReplyChecker, ReplyPhase
from hpcc.wire import warden as wire
from hpcc.wire.exec_frames import CHUNK_BYTES, MAX_HEADER_FRAME_BYTES
from hpcc.wire.frame_gate import PROTOCOL_VIOLATION

# Each frame wakes the warden. Most compiles end with fewer replies than it may send without credit;
# it still has some of that when these come.
_CREDITS_TOGETHER: Final = wire.REPLIES_AHEAD // 2
_HEADER_TAG: Final = bytes([pb.ClientFrame.HEADER_FIELD_NUMBER << 3 | 2])
_VARINT_BITS: Final = 0x7F
_VARINT_MORE: Final = 0x80


class WardenConnection(Protocol):
    """How a call sends frames to the warden."""

    def say(self, frame: bytes) -> None:
        """Send a small frame without waiting."""

    async def send(self, *pieces: bytes | memoryview) -> None:
        """Send a frame and wait while the warden is slow.

        Raises:
            OSError: the warden is gone.
        """


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many seconds a guest may take beyond the compile itself."""

    # From the request to the last input, and from the result to the last output.
    stage_seconds: float
    # Added to the compile's own time limit.
    grace_seconds: float


class PendingExec:
    """One exec under way: `run` in its own task, `next_event` for the consumer."""

    def __init__(
        self,
        connection: WardenConnection,
        number: int,
        request: ExecRequest,
        header: bytes,
        blobs: BlobSource,
        limits: CallLimits,
    ) -> None:
        self._connection, self.number, self._limits = connection, number, limits
        self._request, self._header, self._blobs = request, header, blobs
        # Bounded by the warden's credit. None: no more replies will come.
        self._replies: asyncio.Queue[wire.Reply | None] = asyncio.Queue()
        self._events: asyncio.Queue[ExecEvent | None] = asyncio.Queue()
        self._ahead = self._credits_due = 0
        self._chunks = asyncio.Semaphore(wire.CHUNKS_AHEAD)
        self._chunks_sent = 0
        self._is_abandoned = False
        # An error of the host's own store. It is not the guest's fault.
        self.source_error: Exception | None = None
        self.detail = ""

    # Called by the channel.

    def take(self, reply: wire.Reply) -> None:
        """Accept a reply from the warden.

        Raises:
            IntegrityError: the warden had no credit for it.
        """
        self._ahead += 1
        if self._ahead > wire.REPLIES_AHEAD:
            raise IntegrityError("a reply without credit", reason=wire.WARDEN_PROTOCOL)
        if not self._is_abandoned:
            self._replies.put_nowait(reply)

    def chunk_taken(self) -> None:
        """Note that the warden has taken a chunk, so that the next one can be sent.

        Raises:
            IntegrityError: the warden confirmed a chunk that was not under way.
        """
        self._chunks_sent -= 1
        if self._chunks_sent < 0:
            raise IntegrityError("a chunk that was never sent", reason=wire.WARDEN_PROTOCOL)
        self._chunks.release()

    def ended(self) -> None:
        """Note that the warden has ended the exec: no more replies will come."""
        self._replies.put_nowait(None)

    def abandon(self) -> None:
        """Discard queued replies and all later ones."""
        self._is_abandoned = True
        while not self._replies.empty():
            self._replies.get_nowait()

    # Called by the consumer.

    async def next_event(self) -> ExecEvent | None:
        """Return the next event; None once `run` has ended, with or without an error."""
        return await self._events.get()

    def give_credit(self) -> None:
        """Allow the warden to send one more reply, at the latest with the next few."""
        self._credits_due += 1
        if self._credits_due == _CREDITS_TOGETHER:
            self._credits_due = 0
            self._ahead -= _CREDITS_TOGETHER
            self._connection.say(wire.frame(wire.CREDIT, self.number) * _CREDITS_TOGETHER)

    async def run(self) -> None:
        """Run the exec to its end: send header and inputs, then check and queue the replies.

        Raises:
            IntegrityError: the guest or the warden broke the protocol.
            TimeoutError: the guest did not finish within its limits.
            OSError: the warden is gone.
            NotFoundError: an input is missing in the host's store; other errors of the store pass,
                too.
        """
        try:
            async with asyncio.timeout(self._limits.stage_seconds) as deadline:
                await self._talk(deadline)
        finally:
            self._events.put_nowait(None)

    async def _talk(self, deadline: asyncio.Timeout) -> None:
        checker = ReplyChecker(self._request)
        length = len(self._header)
        await self._connection.send(wire.head(wire.EXEC, self.number, length), self._header)
        while checker.phase is ReplyPhase.NEED:
            checker.feed(_present(await self._replies.get()))
            self.give_credit()
        for digest in checker.needed:
            await self._send_blob(digest)
        await self._connection.send(wire.frame(wire.FINISH, self.number))
        loop = asyncio.get_running_loop()
        wall_seconds = self._request.limits.wall_seconds
        deadline.reschedule(loop.time() + wall_seconds + self._limits.grace_seconds)
        while (reply := await self._replies.get()) is not None:
            event = checker.feed(reply)
            assert event is not None
            if isinstance(event, ResultEvent):
                self.detail = checker.detail
                deadline.reschedule(loop.time() + self._limits.stage_seconds)
            self._events.put_nowait(event)
        checker.end()

    async def _send_blob(self, digest: Digest) -> None:
        try:
            data = await self._blobs.read(digest)
        except Exception as error:
            self.source_error = error
            raise
        raw = bytes.fromhex(digest.hash)
        view = memoryview(data)
        for at in range(0, max(len(data), 1), CHUNK_BYTES):
            await self._chunks.acquire()
            self._chunks_sent += 1
            piece = view[at : at + CHUNK_BYTES]
            prefix = wire.chunk_prefix(raw, last=at + CHUNK_BYTES >= len(data))
            length = len(prefix) + len(piece)
            await self._connection.send(wire.head(wire.CHUNK, self.number, length), prefix, piece)


def _present(reply: wire.Reply | None) -> wire.Reply:
    if reply is None:
        raise IntegrityError("the answer ended before its first Need", reason=PROTOCOL_VIOLATION)
    return reply


def encode_header(
    request: ExecRequest, first_exec: pb.Guest | None, blobs: Sequence[bytes] = ()
) -> bytes:
    """Encode the first ClientFrame of an exec.

    `first_exec` is what a guest learns in its first exec (name, time, entropy), else None. `blobs`
    are inputs that the guest need not ask for; they are left out if the frame would be too large.

    Raises:
        CallerError: the frame is larger than `MAX_HEADER_FRAME_BYTES`.
    """
    limits = request.limits
    header = pb.Header(
        exec_id=request.exec_id,
        argv=request.argv,
        env=[pb.Variable(name=n, value=v) for n, v in request.env],
        cwd=request.cwd,
        outputs=request.outputs,
        output_directories=request.output_directories,
        input_directories=request.input_directories,
        limits=pb.Limits(
            wall_seconds=limits.wall_seconds,
            memory_bytes=limits.memory_bytes,
            pids=limits.pids,
            output_bytes=limits.output_bytes,
            stdio_bytes=limits.stdio_bytes,
        ),
        guest=first_exec,
        blobs=blobs,
    )
    # A message's fields may come in any order, so those that earlier requests had are appended as
    # they were encoded then. A ClientFrame is the tag of its only field, a length, and the header.
    parts = [part.encoded(_encode_inputs) for part in request.parts]
    pieces = [header.SerializeToString(), *(parts or [_encode_inputs(request.inputs)])]
    frame = b"".join((_HEADER_TAG, _varint(sum(map(len, pieces))), *pieces))
    if len(frame) > MAX_HEADER_FRAME_BYTES and blobs:
        return encode_header(request, first_exec)
    if len(frame) > MAX_HEADER_FRAME_BYTES:
        raise CallerError(f"the request is larger than {MAX_HEADER_FRAME_BYTES} bytes")
    return frame


def _encode_inputs(files: tuple[InputFile, ...]) -> bytes:
    """Encode a Header that has only these inputs."""
    header = pb.Header()
    for file in files:
        header.inputs.add(
            path=file.path,
            digest=bytes.fromhex(file.digest.hash),
            size_bytes=file.digest.size_bytes,
            is_executable=file.is_executable,
        )
    return header.SerializeToString()


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > _VARINT_BITS:
        encoded.append(number & _VARINT_BITS | _VARINT_MORE)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
