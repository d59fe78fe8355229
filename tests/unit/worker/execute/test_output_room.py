"""Outputs in memory stay below a limit, whatever many guests send; a wait has an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.core import (
    Blob,
    Digest,
    ExecEvent,
    GuestReuse,
    ImageDigest,
    Isolation,
    OutputEvent,
    ResultEvent,
    TenantId,
)
from hpcc.identity.results import ResultSigner
from hpcc.ports import GuestIdentity
from hpcc.reapi.action import ActionSpec
from hpcc.reapi.command import CommandSpec
from hpcc.reapi.tree import build_tree
from hpcc.rpc.base.errors import BusyError
from hpcc.rpc.reapi.session import Client
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.execute import output_room
from hpcc.worker.execute.output_room import OutputRoom
from hpcc.worker.execute.runner import Runner, RunnerConfig
from hpcc.worker.execute.work import Work
from hpcc_testkit.services.idp_tokens import FixedClock

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
EMPTY = build_tree([])
IDENTITY = GuestIdentity(
    guest_id="g1", isolation=Isolation.QEMU_TCG, kernel_digest="k", vmm_digest="v", agent_digest="a"
)
DOMAIN = TrustDomain.of(
    tenant=ACME,
    image=ImageDigest("sha256:" + "ab" * 32),
    isolation=Isolation.QEMU_TCG,
    reuse=GuestReuse.TENANT,
    principal="ann",
)
WORK = Work(
    digest=Digest.of(b"action"),
    action=ActionSpec(command=Digest.of(b"c"), input_root=EMPTY.root, image=None, salt=b""),
    command=CommandSpec(argv=("cc",), env=(), cwd="", outputs=("a.o",), image=None),
    domain=DOMAIN,
    principal="ann",
    client=Client(credential="", instance=""),
    client_version="1",
    queued_at=0.0,
)
MIB = 1 << 20
PIECE = bytes(256 << 10)
OBJECT_BYTES = 20 * MIB
LIMIT = 48 * MIB


@dataclass
class Machine:
    """A store and guests. Each guest sends an object of 20 MB, as fast as it is taken."""

    room: OutputRoom
    execs: int = 0
    most_bytes: int = 0
    # How many objects a slow store has and has not written yet.
    stored: list[Digest] = field(default_factory=list)
    rows: list[object] = field(default_factory=list)

    async def blobs(self, tenant: TenantId) -> Machine:
        return self

    async def actions(self, domain: object) -> Machine:
        return self

    async def get(self, digest: Digest) -> Blob:
        return Blob.checked(digest, EMPTY.directories[digest])

    async def find_missing(self, digests: set[Digest]) -> frozenset[Digest]:
        return frozenset()

    async def put(self, key: Blob | Digest, record: bytes = b"") -> None:
        if isinstance(key, Blob):
            for _ in range(5):  # others send meanwhile
                await asyncio.sleep(0)
            self.stored.append(key.digest)

    async def append(self, row: object) -> None:
        self.rows.append(row)

    async def event(self, event: object) -> None:
        raise AssertionError(event)

    @asynccontextmanager
    async def lease(self, domain: object, *, is_patient: bool) -> AsyncIterator[Any]:
        guest = SimpleNamespace(identity=IDENTITY, exec=self._exec)
        yield SimpleNamespace(guest=guest, execs_before=0, is_recalled=False, is_overlapped=False)

    async def _exec(self, *_: object) -> AsyncGenerator[ExecEvent]:
        self.execs += 1
        head = self.execs.to_bytes(4, "big")
        yield ResultEvent(exit_code=0)
        for start in range(0, OBJECT_BYTES, len(PIECE)):
            data = head + PIECE[4:]
            is_last = start + len(PIECE) == OBJECT_BYTES
            yield OutputEvent("a.o", data, is_executable=False, last=is_last)
            # The worker has taken it, and asks for the next one.
            self.most_bytes = max(self.most_bytes, self.room.held_bytes)
            await asyncio.sleep(0)


def runner_of(machine: Machine) -> Runner:
    config = RunnerConfig(worker="w1", memory_mib=512, max_wall_seconds=60.0, audit_argv=False)
    parts, clock = cast("Any", machine), FixedClock()
    signer = ResultSigner(Ed25519PrivateKey.generate(), clock)
    return Runner(config, parts, parts, parts, clock, signer, room=machine.room)


async def test_many_large_objects_at_once_are_all_stored_within_the_limit() -> None:
    room = OutputRoom(tenant_bytes=LIMIT, total_bytes=10 * LIMIT)
    machine = Machine(room)
    runner = runner_of(machine)
    works = [replace(WORK, digest=Digest.of(bytes([n]))) for n in range(8)]
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        runs = [group.create_task(runner.run(work)) for work in works]
    assert len({r.result().record.outputs[0].digest for r in runs}) == len(works)
    assert len(set(machine.stored)) == len(machine.rows) == len(works)
    # The eldest may exceed the limit by the rest of its object, and nobody else.
    assert OBJECT_BYTES < machine.most_bytes <= LIMIT + OBJECT_BYTES
    assert room.held_bytes == 0


async def test_another_tenant_goes_on_while_one_has_filled_its_room() -> None:
    room = OutputRoom(tenant_bytes=10, total_bytes=100)
    with room.share(ACME) as eldest, room.share(ACME) as second, room.share(GLOBEX) as other:
        await eldest.take(8)
        waits = asyncio.ensure_future(second.take(8))
        await asyncio.sleep(0)
        assert not waits.done()
        await other.take(8)
        await eldest.take(8)
        assert room.held_bytes == 24
        waits.cancel()


async def test_each_tenants_eldest_goes_on_when_all_room_is_taken() -> None:
    room = OutputRoom(tenant_bytes=10, total_bytes=10)
    with room.share(ACME) as one, room.share(GLOBEX) as other, room.share(GLOBEX) as waiter:
        await one.take(10)
        await other.take(10)
        waits = asyncio.ensure_future(waiter.take(1))
        await asyncio.sleep(0)
        assert not waits.done()
        waits.cancel()


async def test_who_waits_goes_on_when_room_comes_back_and_becomes_the_eldest() -> None:
    room = OutputRoom(tenant_bytes=10, total_bytes=10)
    async with asyncio.timeout(20):
        with room.share(ACME) as second:
            with room.share(ACME) as eldest:
                await eldest.take(10)
                waits = asyncio.ensure_future(second.take(5))
                await asyncio.sleep(0)
            await waits
            await second.take(50)
            assert room.held_bytes == 55
    assert room.held_bytes == 0


async def test_who_waits_too_long_is_refused_and_may_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output_room, "WAIT_SECONDS", 0.01)
    room = OutputRoom(tenant_bytes=10, total_bytes=10)
    with room.share(ACME) as eldest:
        await eldest.take(10)
        with room.share(ACME) as second:
            with pytest.raises(BusyError) as busy:
                await second.take(1)
            assert busy.value.reason == "outputs-under-way"
            # All its waits together have the limit.
            with pytest.raises(BusyError):
                await second.take(1)
        assert room.held_bytes == 10


@pytest.mark.parametrize("how", [ValueError, asyncio.CancelledError])
async def test_room_comes_back_however_an_exec_ends(how: type[BaseException]) -> None:
    room = OutputRoom()

    async def ends() -> None:
        with room.share(ACME) as share:
            await share.take(MIB)
            raise how

    with pytest.raises(how):
        await ends()
    assert room.held_bytes == 0
