"""Equal executions run once; every waiter gets the result, and other callers do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from hpcc.core import Digest, GuestReuse, HpccError, ImageDigest, Isolation, NotFoundError, TenantId
from hpcc.rpc.reapi.session import Running
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.rows import ExecutionResult
from hpcc.worker.execute.deduper import ExecutionDeduper, ExecutionKey, ExecutionOutcome

DOMAIN = TrustDomain.of(
    tenant=TenantId("acme"),
    image=ImageDigest("sha256:" + "ab" * 32),
    isolation=Isolation.QEMU_TCG,
    reuse=GuestReuse.TENANT,
    principal="ann",
)
KEY = ExecutionKey(DOMAIN, Digest.of(b"action"))
MADE = cast("ExecutionResult", object())


class Compile:
    """One execution that ends when the test ends it, and reacts slowly to a cancel."""

    def __init__(self) -> None:
        self.started = self.cancels = 0
        self.end, self.may_die = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> ExecutionResult:
        self.started += 1
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancels += 1
            try:
                await self.may_die.wait()  # such as the row of what was abandoned
            except asyncio.CancelledError:
                self.cancels += 1
            raise
        return MADE


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[ExecutionDeduper, Compile]]:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        compile_ = Compile()
        yield ExecutionDeduper(group), compile_
        compile_.end.set()
        compile_.may_die.set()


Wait = AsyncGenerator[Running | ExecutionOutcome]


async def started(wait: Wait) -> tuple[Wait, str]:
    news = await anext(wait)
    assert isinstance(news, Running)
    return wait, news.name


async def landed(wait: Wait) -> ExecutionOutcome:
    news = await anext(wait)
    assert isinstance(news, ExecutionOutcome)
    await wait.aclose()
    return news


def reason(landing: ExecutionOutcome) -> str:
    return cast("HpccError", landing.error).reason


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_all_but_who_started_it_are_known_to_have_joined() -> None:
    async with opened() as (deduper, compile_):
        first, name = await started(deduper.run(KEY, "ann", compile_))
        second, same = await started(deduper.run(KEY, "bob", compile_))
        third, _ = await started(deduper.wait(name, DOMAIN, "ann"))
        assert same == name
        compile_.end.set()
        ends = [await landed(w) for w in (first, second, third)]
        assert [(e.executed is MADE, e.is_joined) for e in ends] == [
            (True, False), (True, True), (True, True),
        ]  # fmt: skip
        assert compile_.started == 1


async def test_who_joins_one_whose_starter_left_is_known_to_have_joined() -> None:
    async with opened() as (deduper, compile_):
        first, _ = await started(deduper.run(KEY, "ann", compile_))
        second, _ = await started(deduper.run(KEY, "bob", compile_))
        await first.aclose()
        compile_.end.set()
        assert (await landed(second)).is_joined


async def test_a_cancel_reaches_the_callers_waits_only() -> None:
    async with opened() as (deduper, compile_):
        first, name = await started(deduper.run(KEY, "ann", compile_))
        also, _ = await started(deduper.wait(name, DOMAIN, "ann"))
        second, _ = await started(deduper.run(KEY, "bob", compile_))
        deduper.cancel(name, DOMAIN, "ann")
        assert [reason(await landed(w)) for w in (first, also)] == ["cancelled"] * 2
        with pytest.raises(NotFoundError):
            deduper.cancel(name, DOMAIN, "ann")  # waits no more
        await turns()
        assert compile_.cancels == 0
        compile_.end.set()
        assert (await landed(second)).executed is MADE


async def test_who_does_not_wait_can_cancel_nothing() -> None:
    async with opened() as (deduper, compile_):
        first, name = await started(deduper.run(KEY, "ann", compile_))
        with pytest.raises(NotFoundError):
            deduper.cancel(name, DOMAIN, "eve")
        compile_.end.set()
        assert (await landed(first)).executed is MADE


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": TenantId("globex")},
        {"principal": "eve"},
        {"isolation": Isolation.QEMU_KVM},
        {"image": ImageDigest("sha256:" + "cd" * 32)},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_an_execution_of_another_trust_domain_has_no_name(other: dict[str, Any]) -> None:
    domain = replace(DOMAIN, **other)
    async with opened() as (deduper, compile_):
        first, name = await started(deduper.run(KEY, "ann", compile_))
        with pytest.raises(NotFoundError):
            await anext(deduper.wait(name, domain, "ann"))
        with pytest.raises(NotFoundError):
            deduper.cancel(name, domain, "ann")
        compile_.end.set()
        assert (await landed(first)).executed is MADE


async def test_the_last_ones_cancel_ends_it_once_and_its_end_is_waited_for() -> None:
    async with opened() as (deduper, compile_):
        first, name = await started(deduper.run(KEY, "ann", compile_))
        second, _ = await started(deduper.run(KEY, "bob", compile_))
        await turns()
        deduper.cancel(name, DOMAIN, "bob")
        await second.aclose()
        deduper.cancel(name, DOMAIN, "ann")
        await turns()
        with pytest.raises(NotFoundError):
            deduper.cancel(name, DOMAIN, "ann")
        # Who comes now does not join what is being killed.
        anew, other = await started(deduper.run(KEY, "ann", compile_))
        assert other != name
        compile_.may_die.set()
        assert reason(await landed(first)) == "cancelled"
        assert compile_.cancels == 1
        compile_.end.set()
        assert (await landed(anew)).executed is MADE


async def test_one_who_leaves_after_a_cancel_cuts_its_end_not_short() -> None:
    async with opened() as (deduper, compile_):
        first, name = await started(deduper.run(KEY, "ann", compile_))
        await turns()
        deduper.cancel(name, DOMAIN, "ann")
        await turns()
        await first.aclose()
        await turns()
        assert compile_.cancels == 1
