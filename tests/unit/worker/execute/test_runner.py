"""What a runner records about a compile that ran and gave no result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcc.core import (
    Blob,
    Digest,
    ExecEvent,
    GuestReuse,
    HpccError,
    ImageDigest,
    InfrastructureError,
    Isolation,
    TenantId,
)
from hpcc.ports import AuditRow, GuestIdentity, GuestLostError, SecurityEvent
from hpcc.reapi.action import ActionSpec
from hpcc.reapi.command import CommandSpec
from hpcc.reapi.tree import build_tree
from hpcc.rpc.reapi.session import Client
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.execute import runner
from hpcc.worker.execute.runner import Runner, RunnerConfig
from hpcc.worker.execute.work import Work
from hpcc_testkit.services.idp_tokens import FixedClock

EMPTY = build_tree([])
IDENTITY = GuestIdentity(
    guest_id="g1", isolation=Isolation.QEMU_TCG, kernel_digest="k", vmm_digest="v", agent_digest="a"
)
WORK = Work(
    digest=Digest.of(b"action"),
    action=ActionSpec(command=Digest.of(b"c"), input_root=EMPTY.root, image=None, salt=b""),
    command=CommandSpec(argv=("cc",), env=(), cwd="", outputs=("a.o",), image=None),
    domain=TrustDomain.of(
        tenant=TenantId("acme"),
        image=ImageDigest("sha256:" + "ab" * 32),
        isolation=Isolation.QEMU_TCG,
        reuse=GuestReuse.TENANT,
        principal="ann",
    ),
    principal="ann",
    client=Client(credential="", instance=""),
    client_version="1",
    queued_at=0.0,
)


class Trail:
    """An audit log that accepts rows, refuses them, or hangs."""

    def __init__(self, how: str) -> None:
        self._how = how
        self.rows: list[AuditRow] = []
        self.events: list[SecurityEvent] = []

    async def append(self, row: AuditRow) -> None:
        if self._how == "refuses":
            raise InfrastructureError("no space", reason="audit-unavailable")
        if self._how == "hangs":
            await asyncio.Event().wait()
        self.rows.append(row)

    async def event(self, event: SecurityEvent) -> None:
        self.events.append(event)


class Machine:
    """Storage with an empty tree, and a pool whose one guest is lost in each compile."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.is_lost = self.is_recalled = True
        self.identity = IDENTITY

    async def blobs(self, tenant: TenantId) -> Machine:
        return self

    async def get(self, digest: Digest) -> Blob:
        return Blob.checked(digest, EMPTY.directories[digest])

    async def find_missing(self, digests: set[Digest]) -> frozenset[Digest]:
        return frozenset()

    @asynccontextmanager
    async def lease(self, domain: TrustDomain, *, is_patient: bool) -> AsyncIterator[Any]:
        yield SimpleNamespace(
            guest=SimpleNamespace(identity=self.identity, exec=self._exec),
            execs_before=3,
            is_recalled=self.is_recalled,
            is_anothers_fault=False,
            condemn=self._condemn,
        )

    async def _condemn(self, reason: str, *, is_culprit: bool) -> None:
        del reason, is_culprit

    async def _exec(self, *_: object) -> AsyncGenerator[ExecEvent]:
        self.started.set()
        if self.is_lost:
            raise GuestLostError("it ended")
        await asyncio.Event().wait()
        yield cast("ExecEvent", None)


def runner_of(machine: Machine, trail: Trail) -> Runner:
    config = RunnerConfig(worker="w1", memory_mib=512, max_wall_seconds=60.0, audit_argv=False)
    parts = cast("Any", machine)
    return Runner(config, parts, parts, cast("Any", trail), FixedClock(), cast("Any", None))


async def test_a_compile_without_a_result_leaves_a_row() -> None:
    trail = Trail("takes")
    with pytest.raises(InfrastructureError):
        await runner_of(Machine(), trail).run(WORK)
    assert [(r.cache_status, r.reason, r.exit_code) for r in trail.rows] == [
        ("abandoned", "draining", runner.NO_EXIT_CODE)
    ]
    assert trail.events == []


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_a_row_that_cannot_be_written_is_an_event_with_the_compiles_reason(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(runner, "_ABANDONED_ROW_SECONDS", 0.01)
    trail = Trail(how)
    async with asyncio.timeout(20):
        with pytest.raises(InfrastructureError) as caught:
            await runner_of(Machine(), trail).run(WORK)
    # The compile's own error, not the trail's.
    assert caught.value.reason == "draining"
    (event,) = trail.events
    assert (event.name, event.tenant) == ("audit-row-lost", "acme")
    assert event.fields == (("action", str(WORK.digest)), ("reason", "draining"))


async def test_the_row_of_a_cancelled_compile_that_is_lost_is_an_event_too() -> None:
    trail, machine = Trail("refuses"), Machine()
    machine.is_lost = False
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(runner_of(machine, trail).run(WORK))
        await machine.started.wait()
        task.cancel()
    assert [(e.name, dict(e.fields)["reason"]) for e in trail.events] == [
        ("audit-row-lost", "cancelled")
    ]


async def test_a_row_says_how_the_guests_kernel_was_started_and_what_held_its_vmm() -> None:
    trail, machine = Trail("takes"), Machine()
    line = "quiet mitigations=auto"
    machine.identity = replace(IDENTITY, kernel_command_line=line, vmm_jail="hpcc")
    with pytest.raises(InfrastructureError):
        await runner_of(machine, trail).run(WORK)
    assert [(r.kernel_command_line, r.vmm_jail) for r in trail.rows] == [(line, "hpcc")]


async def test_nothing_runs_in_a_guest_with_another_isolation_than_was_promised() -> None:
    trail, machine = Trail("takes"), Machine()
    machine.identity = replace(IDENTITY, isolation=Isolation.LOCAL_NONE)
    with pytest.raises(InfrastructureError) as caught:
        await runner_of(machine, trail).run(WORK)
    assert caught.value.reason == "isolation"
    assert not machine.started.is_set()
    assert (trail.rows, trail.events) == ([], [])


async def test_an_action_that_ended_two_guests_is_quarantined_in_its_own_trust_domain() -> None:
    trail, machine = Trail("takes"), Machine()
    machine.is_recalled = False
    one = runner_of(machine, trail)
    other = replace(WORK, domain=replace(WORK.domain, tenant=TenantId("other")))
    reasons = []
    for work in (WORK, WORK, WORK, other):
        with pytest.raises(HpccError) as caught:
            await one.run(work)
        reasons.append(caught.value.reason)
    assert reasons == ["guest-lost", "guest-lost", "quarantined", "guest-lost"]
    assert [e.name for e in trail.events].count("action-quarantined") == 1
