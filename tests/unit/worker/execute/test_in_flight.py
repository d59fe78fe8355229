"""Who waits for colleagues that make the same, and for how long."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from hpcc.core import Digest, GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.execute.in_flight import TenantExecutions

ACTION, OTHER = Digest.of(b"a"), Digest.of(b"b")


def domain(who: str, tenant: str = "acme") -> TrustDomain:
    return TrustDomain.of(
        tenant=TenantId(tenant), image=ImageDigest("sha256:" + "ab" * 32),
        isolation=Isolation.QEMU_KVM, reuse=GuestReuse.PRINCIPAL, principal=who,
    )  # fmt: skip


def making(executions: TenantExecutions, *names: str) -> list[ExitStack]:
    stacks = []
    for name in names:
        stack = ExitStack()
        stack.enter_context(executions.making(domain(name), ACTION))
        stacks.append(stack)
    return stacks


async def test_whoever_comes_while_enough_make_it_waits_for_all_of_them() -> None:
    executions = TenantExecutions()
    ann, bob = making(executions, "ann", "bob")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        carol = group.create_task(executions.wait(domain("carol"), ACTION, most=2, seconds=60.0))
        await asyncio.sleep(0)
        publishing = making(executions, "ann")[0]
        ann.close()
        bob.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not carol.done()
        publishing.close()
        assert await carol


async def test_nobody_waits_for_who_began_later_nor_longer_than_told() -> None:
    executions = TenantExecutions()
    ann, bob = making(executions, "ann", "bob")
    assert await executions.wait(domain("carol"), ACTION, most=2, seconds=0.01)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        carol = group.create_task(executions.wait(domain("carol"), ACTION, most=2, seconds=60.0))
        await asyncio.sleep(0)
        making(executions, "dave")
        ann.close()
        bob.close()
        assert await carol


async def test_who_could_join_or_is_needed_or_asks_for_another_action_does_not_wait() -> None:
    executions = TenantExecutions()
    making(executions, "ann", "ann", "bob")
    for who, action, most in (
        (domain("ann"), ACTION, 1),
        (domain("carol"), ACTION, 3),
        (domain("carol"), OTHER, 1),
        (domain("carol", "globex"), ACTION, 1),
    ):
        assert not await executions.wait(who, action, most=most, seconds=60.0)


async def test_nothing_is_kept_of_what_has_ended() -> None:
    executions = TenantExecutions()
    for stack in making(executions, "ann", "bob"):
        stack.close()
    assert executions._actions == {}
