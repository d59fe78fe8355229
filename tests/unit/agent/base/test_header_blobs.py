"""A blob in the header is not asked for, and its compile starts before the client's half-close."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError

from hpcc._proto import agent_pb2 as pb
from hpcc.agent.base import service
from hpcc.agent.base.blobs import BlobCache
from hpcc.agent.base.ending import Ending, OnStdio, Output
from hpcc.agent.base.service import Agent
from hpcc.core import ExecRequest

DATA, OTHER = b"int main;", b"int other;"


class Place:
    """A workplace that notes what is done in it."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    async def stage(self, blobs: BlobCache) -> None:
        self._log.append("stage")

    async def run(self, on_stdio: OnStdio) -> Ending:
        self._log.append("run")
        return Ending(status=0, reason="")

    def outputs(self) -> list[Output]:
        return []

    def open_listed(self, output: Output) -> int:
        raise AssertionError(output)


class Stream:
    """The host's end: gives these frames, then the half-close."""

    def __init__(self, log: list[str], *frames: pb.ClientFrame) -> None:
        self._log, self._frames = log, list(frames)

    def take(self) -> pb.ClientFrame | None:
        if self._frames:
            return self._frames.pop(0)
        self._log.append("end")
        return None

    async def send_message(self, frame: pb.ServerFrame) -> None:
        kind = str(frame.WhichOneof("frame"))
        self._log.append(f"need {len(frame.need.digests)}" if kind == "need" else kind)


class Machine:
    blob_budget_bytes = 1 << 20

    def __init__(self, directory: Path, log: list[str]) -> None:
        self.directory, self._log = str(directory), log

    def prepare(self) -> None:
        pass

    def take_first_exec(self, first_exec: object) -> None:
        pass

    @asynccontextmanager
    async def workplace(self, request: ExecRequest, number: int) -> AsyncIterator[Place]:
        yield Place(self._log)

    def say_memory(self, execs: int) -> None:
        pass


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    async def receive(stream: Stream, _: int) -> pb.ClientFrame | None:
        return stream.take()

    monkeypatch.setattr(service, "receive", receive)
    return []


def header(*blobs: bytes, size_bytes: int = len(DATA)) -> pb.ClientFrame:
    digest = hashlib.sha256(DATA).digest()
    return pb.ClientFrame(
        header=pb.Header(
            exec_id="x", argv=["/x"], blobs=blobs, outputs=["a.o"],
            inputs=[
                pb.Input(path="a.c", digest=digest, size_bytes=size_bytes),
                pb.Input(path="o.c", digest=hashlib.sha256(OTHER).digest(), size_bytes=len(OTHER)),
            ],
            limits=pb.Limits(
                wall_seconds=1, memory_bytes=1 << 20, pids=1, output_bytes=1, stdio_bytes=1
            ),
            guest=pb.Guest(guest_id="g", wall_time_ns=1, entropy=bytes(64)),
        )
    )  # fmt: skip


async def execute(tmp_path: Path, log: list[str], *frames: pb.ClientFrame) -> None:
    agent = Agent(Machine(tmp_path, log))
    stream: Any = Stream(log, *frames)
    await agent.Exec(stream)


async def test_nothing_is_asked_for_and_nothing_waited_for(tmp_path: Path, log: list[str]) -> None:
    await execute(tmp_path, log, header(DATA, OTHER))
    assert log == ["need 0", "stage", "run", "end", "result"]


async def test_what_the_header_lacks_is_asked_for(tmp_path: Path, log: list[str]) -> None:
    digest = hashlib.sha256(OTHER).digest()
    chunk = pb.ClientFrame(chunk=pb.InputChunk(digest=digest, data=OTHER, last=True))
    await execute(tmp_path, log, header(DATA), chunk)
    assert log == ["need 1", "end", "stage", "run", "result"]


async def test_a_blob_that_is_not_as_large_as_its_input_says_is_refused(
    tmp_path: Path, log: list[str]
) -> None:
    with pytest.raises(GRPCError, match="another size"):
        await execute(tmp_path, log, header(DATA, OTHER, size_bytes=len(DATA) + 1))
    assert log == []


async def test_a_frame_after_the_header_is_refused_after_all(
    tmp_path: Path, log: list[str]
) -> None:
    chunk = pb.ClientFrame(chunk=pb.InputChunk(data=b"more", last=True))
    with pytest.raises(GRPCError, match="after the last"):
        await execute(tmp_path, log, header(DATA, OTHER), chunk)
    assert "result" not in log
