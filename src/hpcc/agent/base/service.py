"""AgentService: runs one compile for each Exec call. The only method that a guest serves.

The problem: a compile needs thousands of input files, and only some are new to this guest; its
outputs may be large; and the program that runs may be hostile to the agent and to other execs.

The rule, one Exec:

1. The header names argv, environment, limits and all inputs by digest. The first header after a
   boot also carries the guest's identity, and no later one may.
2. The agent asks for the blobs that neither its cache nor the header has, in one order, and accepts
   only these, in this order. Each blob is checked against its digest before it is used. If it asks
   for none, it does not wait for the client's half-close before it goes on, but before its Result.
3. The machine's workplace stages the tree and runs the program under its limits.
4. After all processes of the exec ended, the outputs are listed. Result is sent, then the outputs.
5. The workplace is removed, however the exec ended, and at the latest before the next one starts.

A violation of agent.proto by the host is a gRPC error. A failure of the compile itself (deadline,
limits, no such program, unusable outputs, no room for the inputs) is a Result with a reason, and
the guest can be used again.

Example: the input cache has no room. The remaining blobs are still received and discarded, so that
the stream stays in step; then a Result with "agent-error" follows.

What must never happen: an output is read while a process of its exec runs; a link in an output path
is followed; a frame is allocated before its length was checked. The worker trusts none of this: it
checks each frame again (docs/security.md).
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from grpclib import GRPCError, Status

from hpcc._proto import agent_pb2 as pb
from hpcc._proto.agent_grpc import AgentServiceBase
from hpcc.agent.base.blobs import BlobCache
from hpcc.agent.base.ending import Ending, Output, OutputTreeError, StreamName
from hpcc.agent.base.frames import need, receive
from hpcc.agent.base.intake import FirstExecHeader, Intake
from hpcc.agent.base.machine import Machine, Workplace
from hpcc.core import CallerError, Digest, ExecRequest, IntegrityError
from hpcc.wire.exec_frames import (
    CHUNK_BYTES,
    MAX_DETAIL_BYTES,
    MAX_FRAME_BYTES,
    MAX_HEADER_FRAME_BYTES,
    NEED_PER_FRAME,
)

if TYPE_CHECKING:
    from grpclib.server import Stream

    type ExecStream = Stream[pb.ClientFrame, pb.ServerFrame]

_REASONS: Final = {
    "": pb.Result.REASON_ENDED,
    "deadline": pb.Result.REASON_DEADLINE,
    "no-such-program": pb.Result.REASON_NO_SUCH_PROGRAM,
    "stdio-limit": pb.Result.REASON_STDIO_LIMIT,
    "output-limit": pb.Result.REASON_OUTPUT_LIMIT,
    "memory": pb.Result.REASON_MEMORY,
    "agent-error": pb.Result.REASON_AGENT_ERROR,
    "output-tree": pb.Result.REASON_OUTPUT_TREE,
}
_STREAMS: Final = {"stdout": pb.Stdio.STREAM_STDOUT, "stderr": pb.Stdio.STREAM_STDERR}


class Agent(AgentServiceBase):
    """Serves Exec on any machine. Makes `machine.directory`, which must not exist."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        machine.prepare()
        self._blobs = BlobCache(os.path.join(machine.directory, "blobs"), machine.blob_budget_bytes)
        self._is_born = False
        self._count = 0

    async def Exec(self, stream: ExecStream) -> None:  # noqa: N802 - the contract's name
        """Run one compile; see agent.proto."""
        try:
            await self._exec(stream)
        except CallerError as error:
            status = (
                Status.RESOURCE_EXHAUSTED
                if error.reason == "frame-too-large"
                else Status.INVALID_ARGUMENT
            )
            raise GRPCError(status, str(error)) from error
        except IntegrityError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error

    async def _exec(self, stream: ExecStream) -> None:
        intake = Intake()
        request, first_exec = intake.header(await receive(stream, MAX_HEADER_FRAME_BYTES))
        self._take_first_exec(first_exec)
        number, self._count = self._count, self._count + 1
        digests = [f.digest for f in request.inputs]
        missing = self._blobs.pin(digests)
        try:
            missing = self._keep_header_blobs(intake, missing)
            full = await self._receive_blobs(stream, intake, missing)
            arrived_at = time.monotonic()
            if full:
                await _send_result(stream, full, 0.0)
                return
            async with self._machine.workplace(request, number) as place:
                await self._run(stream, intake, request, place, arrived_at)
        finally:
            self._blobs.unpin(digests)
            if str(self._count).strip("0") == "1":
                # After 1, 10, 100, … compiles.
                self._machine.say_memory(self._count)

    def _take_first_exec(self, first_exec: FirstExecHeader | None) -> None:
        if (first_exec is None) is not self._is_born:
            raise GRPCError(Status.FAILED_PRECONDITION, "Header.guest: once, in the first Exec")
        if first_exec is not None:
            self._is_born = True
            self._machine.take_first_exec(first_exec)

    def _keep_header_blobs(self, intake: Intake, missing: list[Digest]) -> list[Digest]:
        """Keep what came in the header; return what must still be fetched."""
        left = []
        for digest in missing:
            data = intake.blobs.get(digest.hash)
            if data is None or not self._keep(digest, data):
                left.append(digest)
        intake.blobs.clear()
        return left

    def _keep(self, digest: Digest, data: bytes) -> bool:
        if len(data) != digest.size_bytes:
            raise CallerError("a blob of another size than its Input says")
        writer = self._blobs.receive(digest)
        try:
            writer.write(data)
            writer.finish()
        except OSError:
            return False  # no room: receiving it says so
        finally:
            writer.close()
        return True

    async def _receive_blobs(
        self, stream: ExecStream, intake: Intake, missing: list[Digest]
    ) -> Ending | None:
        """Request and receive the missing blobs; return an Ending if the guest has no room."""
        intake.want(missing)
        raw = [bytes.fromhex(d.hash) for d in missing]
        for at in range(0, max(len(raw), 1), NEED_PER_FRAME):
            more = at + NEED_PER_FRAME < len(raw)
            await stream.send_message(need(raw[at : at + NEED_PER_FRAME], more=more))
        full: Ending | None = None
        for digest in missing:
            writer = self._blobs.receive(digest)
            try:
                while True:
                    piece = intake.chunk(await receive(stream, MAX_FRAME_BYTES))
                    try:
                        if full is None:
                            writer.write(piece.data)
                    except OSError as error:
                        full = Ending(status=125, reason="agent-error", detail=f"inputs: {error}")
                    if piece.ends:
                        break
                if full is None:
                    writer.finish()
            finally:
                writer.close()
        if missing:
            intake.end(await receive(stream, MAX_FRAME_BYTES))
        return full

    async def _run(
        self,
        stream: ExecStream,
        intake: Intake,
        request: ExecRequest,
        place: Workplace,
        arrived_at: float,
    ) -> None:
        async def on_stdio(name: StreamName, data: bytes) -> None:
            stdio = pb.Stdio(stream=_STREAMS[name], data=data)
            await stream.send_message(pb.ServerFrame(stdio=stdio))

        try:
            await place.stage(self._blobs)
        except OSError as error:
            ending = Ending(status=125, reason="agent-error", detail=f"stage: {error}")
            await _await_end(stream, intake)
            await _send_result(stream, ending, time.monotonic() - arrived_at)
            return
        ending, outputs = _outputs(place, await place.run(on_stdio))
        try:
            await _await_end(stream, intake)
            if sum(o.size_bytes for o in outputs) > request.limits.output_bytes:
                ending = replace(ending, status=ending.status or 1, reason="output-limit")
            await _send_result(stream, ending, max(ending.started_at - arrived_at, 0.0))
            if not ending.reason:
                for output in outputs:
                    await _send_output(stream, output, place)
        finally:
            for output in outputs:
                if output.fd >= 0:
                    os.close(output.fd)


async def _await_end(stream: ExecStream, intake: Intake) -> None:
    if not intake.is_ended:
        intake.end(await receive(stream, MAX_FRAME_BYTES))


async def _send_result(stream: ExecStream, ending: Ending, stage_seconds: float) -> None:
    signal_number = max(-ending.status, 0)
    result = pb.Result(
        exit_code=128 + signal_number if signal_number else ending.status,
        signal=signal_number,
        reason=_REASONS[ending.reason],
        wall_seconds=ending.wall_seconds,
        user_seconds=ending.user_seconds,
        system_seconds=ending.system_seconds,
        max_rss_bytes=ending.max_rss_bytes,
        stage_seconds=stage_seconds,
        detail=ending.detail.encode()[:MAX_DETAIL_BYTES].decode("utf-8", "ignore"),
    )
    await stream.send_message(pb.ServerFrame(result=result))


def _outputs(place: Workplace, ending: Ending) -> tuple[Ending, list[Output]]:
    """List the outputs; return an Ending with "output-tree" if they cannot be sent."""
    if ending.reason:
        return ending, []
    try:
        return ending, place.outputs()
    except (OSError, OutputTreeError) as error:
        status = ending.status or 1
        return replace(ending, status=status, reason="output-tree", detail=str(error)), []


async def _send_output(stream: ExecStream, output: Output, place: Workplace) -> None:
    if output.fd >= 0:
        await _send_open(stream, output)
    elif output.path.endswith("/"):
        chunk = pb.OutputChunk(path=output.path, last=True)
        await stream.send_message(pb.ServerFrame(output=chunk))
    else:
        fd = place.open_listed(output)
        try:
            await _send_open(stream, replace(output, fd=fd))
        finally:
            os.close(fd)


async def _send_open(stream: ExecStream, output: Output) -> None:
    left = output.size_bytes
    while True:
        data = os.read(output.fd, min(CHUNK_BYTES, left))
        left -= len(data)
        # No process is left that could shorten it; this only guards the loop.
        last = not left or not data
        chunk = pb.OutputChunk(
            path=output.path, data=data, is_executable=output.is_executable, last=last
        )
        await stream.send_message(pb.ServerFrame(output=chunk))
        if last:
            return
