"""Budgets and counts of the gateway: one caller cannot use them up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from hpcc.config.service_file import parse_service_file
from hpcc.core import CallerError
from hpcc.gateway.config import GatewayConfig
from hpcc.gateway.limits import Budget, Calls
from hpcc.rpc.base.errors import BusyError


@asynccontextmanager
async def holding(budget: Budget, owner: str, size: int) -> AsyncGenerator[None]:
    async with budget.hold(owner, size, 60.0):
        yield


async def test_one_owner_has_half_at_most_and_holds_up_nobody() -> None:
    budget = Budget(100, max_waiting=10)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(holding(budget, "eve", 40))
        waiting = asyncio.Task(stack.enter_async_context(budget.hold("eve", 40, 60.0)))
        await asyncio.sleep(0)
        # She waits for her own share; he came later and has room.
        async with asyncio.timeout(5), holding(budget, "bob", 40):
            assert not waiting.done()
        waiting.cancel()


async def test_who_waits_gets_what_is_given_back() -> None:
    budget = Budget(100, max_waiting=10)
    async with asyncio.timeout(5):
        async with budget.hold("a", 50, 60.0) as first, budget.hold("b", 50, 60.0):
            waiting = asyncio.Task(holding(budget, "c", 30).__aenter__())
            await asyncio.sleep(0)
            assert not waiting.done()
            first.shrink(20)
            await waiting


async def test_a_wait_that_is_cancelled_takes_nothing_along() -> None:
    budget = Budget(100, max_waiting=10)
    async with budget.hold("a", 50, 60.0), budget.hold("b", 50, 60.0):
        tasks = [asyncio.Task(holding(budget, "c", 30).__aenter__()) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    # All of it is there again.
    async with asyncio.timeout(5), budget.hold("a", 50, 60.0), budget.hold("b", 50, 60.0):
        pass


async def test_a_turn_that_comes_with_the_cancel_is_passed_on() -> None:
    budget = Budget(100, max_waiting=10)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(holding(budget, "b", 50))
        async with budget.hold("a", 50, 60.0):
            task = asyncio.Task(holding(budget, "c", 50).__aenter__())
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(5), budget.hold("d", 50, 60.0):
            pass


async def test_too_many_or_too_long_waits_are_refused() -> None:
    budget = Budget(100, max_waiting=1)
    async with budget.hold("a", 50, 60.0):
        with pytest.raises(BusyError):
            async with budget.hold("a", 50, 0.01):
                pass
        task = asyncio.Task(holding(budget, "a", 50).__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            async with budget.hold("a", 50, 60.0):
                pass
        task.cancel()


def test_calls_are_counted_by_owner() -> None:
    calls = Calls()
    with (
        calls.one("eve", 1),
        calls.one("bob", 1),
        pytest.raises(BusyError),
        calls.one("eve", 1),
    ):
        pass
    with calls.one("eve", 1):
        pass


def test_a_refusal_names_the_file_and_the_key() -> None:
    raw = json.dumps(
        {
            "scheduler": "s:1", "scheduler_certificate_pem": "x", "certificate": "/c", "key": "/k",
            "default_images": ["acme=registry/gcc@sha256:…"],
        }
    ).encode()  # fmt: skip
    with pytest.raises(CallerError, match=r"^/etc/g\.json: default_images: 'acme=.*: not an image"):
        parse_service_file(raw, GatewayConfig, source="/etc/g.json")


@pytest.mark.parametrize(
    "fields",
    [
        {"default_images": ("acme",)},
        {"default_images": ("acme=gcc:latest",)},
        {"default_images": (f"acme=a@sha256:{'0' * 64}", f"acme=b@sha256:{'0' * 64}")},
        {"max_calls": 0},
        {"max_buffer_bytes": 1},
        {"call_seconds": 0.0},
    ],
)
def test_a_configuration_that_could_not_work_is_refused(
    tmp_path: object, fields: dict[str, object]
) -> None:
    values: dict[str, object] = {
        "scheduler": "s:1",
        "scheduler_certificate_pem": "x",
        "certificate": tmp_path,
        "key": tmp_path,
        **fields,
    }
    with pytest.raises(CallerError):
        GatewayConfig(**values)  # type: ignore[arg-type]  # built by name just above
