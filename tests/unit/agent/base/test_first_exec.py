"""The first Exec gives a guest its identity, before anything runs and at most once."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError

from hpcc._proto import agent_pb2 as pb
from hpcc.agent.base import service
from hpcc.agent.base.service import Agent
from hpcc.agent.linux import machine
from hpcc.agent.linux.machine import LinuxConfig, LinuxMachine

BIRTH = pb.Guest(guest_id="q-1", wall_time_ns=1_800_000_000 * 10**9, entropy=bytes(range(64)))


class Stopped(Exception):  # noqa: N818 - not an error: as far as the test goes
    """Raised when the agent requests the blobs."""


class Stream:
    """One Exec's frames; it ends when the agent answers."""

    def __init__(self, log: list[object], frame: pb.ClientFrame) -> None:
        self.log, self.frame = log, frame

    async def send_message(self, frame: pb.ServerFrame) -> None:
        self.log.append("need" if frame.HasField("need") else "other")
        raise Stopped


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the list of the agent's calls to its kernel, in order."""
    done: list[object] = []

    def settime(clock: int, nanoseconds: int) -> None:
        done.append(("clock", clock, nanoseconds))

    def ioctl(_: object, number: int, data: bytes = b"") -> None:
        done.append(("ioctl", number, data))

    async def receive(stream: Stream, _: int) -> pb.ClientFrame:
        return stream.frame

    monkeypatch.setattr(machine.time, "clock_settime_ns", settime)
    monkeypatch.setattr(machine.fcntl, "ioctl", ioctl)
    monkeypatch.setattr(service, "receive", receive)
    return done


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    config = LinuxConfig(
        directory=str(tmp_path / "agent"),
        blob_budget_bytes=1 << 20,
        max_memory_bytes=1 << 28,
        max_pids=100,
    )
    return Agent(LinuxMachine(config))


async def execute(agent: Agent, log: list[object], first_exec: pb.Guest | None) -> None:
    limits = pb.Limits(wall_seconds=1, memory_bytes=1 << 20, pids=1, output_bytes=1, stdio_bytes=1)
    header = pb.Header(exec_id="x", argv=["/x"], limits=limits, guest=first_exec)
    stream: Any = Stream(log, pb.ClientFrame(header=header))
    await agent.Exec(stream)


async def test_time_and_entropy_come_before_anything_runs(agent: Agent, log: list[object]) -> None:
    with pytest.raises(Stopped):
        await execute(agent, log, BIRTH)
    pool = struct.pack("ii", 512, 64) + BIRTH.entropy
    assert log == [
        ("clock", 0, BIRTH.wall_time_ns),  # CLOCK_REALTIME
        ("ioctl", 0x40085203, pool),  # RNDADDENTROPY, credited
        ("ioctl", 0x5207, b""),  # RNDRESEEDCRNG
        "need",
    ]


async def test_a_guest_is_nobody_without_its_birth_and_is_born_once(
    agent: Agent, log: list[object]
) -> None:
    with pytest.raises(GRPCError):
        await execute(agent, log, None)
    assert log == []
    with pytest.raises(Stopped):
        await execute(agent, log, BIRTH)
    with pytest.raises(GRPCError):
        await execute(agent, log, BIRTH)
    assert log.count("need") == 1
    with pytest.raises(Stopped):
        await execute(agent, log, None)
