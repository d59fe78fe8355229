"""A build announces its compiles: guests start before they ask, within all limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.core import Blob, Isolation
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.tree import build_tree
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.scheduler.tenants.table import TenantPolicy, TenantQuotas
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.pool import GuestPool
from hpcc_testkit.farm.in_process import IMAGE, TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.farm.policies import PolicyAuthenticator
from hpcc_testkit.farm.several import build_on

pytestmark = pytest.mark.timeout(120)
FOUR = {"max_guests": 4, "vcpus": 1, "memory_mib": 1 << 20}
ABSENT = Blob.of(b"nobody has this").digest


@asynccontextmanager
async def saying(farm: FarmUnderTest, count: int) -> AsyncGenerator[ReapiClient]:
    """Yield a client that announces so many compiles with each call."""
    async with farm.client() as client:
        calls = client._calls
        calls.config = replace(calls.config, expected=lambda: count)
        yield client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - of other tasks, without an event
            await asyncio.sleep(0.02)


def made(script: str) -> list[Blob]:
    tree = build_tree([])
    spec = CommandSpec(
        argv=("sh", "-c", script), env=(("PATH", "/usr/bin:/bin"),), cwd="", outputs=("a.o",),
        image=IMAGE,
    )  # fmt: skip
    command = Blob.of(encode_command(spec))
    action = ActionSpec(command=command.digest, input_root=tree.root, image=IMAGE, salt=b"t")
    directories = [Blob.of(d) for d in tree.directories.values()]
    return [*directories, command, Blob.of(encode_action(action))]


async def run(client: ReapiClient, script: str) -> bytes:
    blobs = made(script)
    await client.upload(blobs)
    record, _ = await client.execute(blobs[-1].digest, ["a.o"])
    return record.inline["a.o"]


async def test_guests_start_while_a_builds_first_inputs_are_sent(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path, **FOUR) as farm, farm.serving(), saying(farm, 3) as client:
        await client.find_missing([ABSENT])
        await until(lambda: len(farm.runtime.running) == 3)
        assert await run(client, "echo x > a.o") == b"x\n"
        assert farm.runtime.booted == 3, "the compile took one of them"


@pytest.mark.parametrize(("said", "guests"), [(64, 4), (4096, 4), (10**9, 0), (0, 0)])
async def test_no_word_of_a_client_starts_more_than_the_limits_allow(
    tmp_path: Path, said: int, guests: int
) -> None:
    async with farm_under_test(tmp_path, **FOUR) as farm, farm.serving():
        async with saying(farm, said) as client:
            await client.find_missing([ABSENT])
            await client.find_missing([ABSENT])
        await until(lambda: len(farm.runtime.running) == guests)
        assert farm.runtime.booted == guests


async def test_a_tenants_quota_bounds_what_it_announces(tmp_path: Path) -> None:
    policy = TenantPolicy(
        tenant=TENANT, identity=None, images=(), minimum_isolation=Isolation.LOCAL_NONE,
        quotas=TenantQuotas(concurrent_execs=2),
    )  # fmt: skip
    authenticator = PolicyAuthenticator(policy)
    async with farm_under_test(tmp_path, authenticator=authenticator, **FOUR) as farm:
        async with farm.serving(), saying(farm, 64) as client:
            await client.find_missing([ABSENT])
            await until(lambda: len(farm.runtime.running) == 2)
        assert farm.runtime.booted == 2


async def test_a_look_at_the_cache_starts_nothing(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path, **FOUR) as farm, farm.serving():
        async with farm.client() as quiet:
            blobs = made("echo x > a.o")
            await quiet.upload(blobs)
            await quiet.execute(blobs[-1].digest, [])
        async with saying(farm, 4) as client:
            await client.cached_result(blobs[-1].digest, [])
            await client.execute(blobs[-1].digest, [])
        assert farm.runtime.booted == 1, "all of the second client were hits"


async def test_a_boot_ahead_that_fails_costs_no_compile(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path, **FOUR) as farm, farm.serving(), saying(farm, 4) as client:
        farm.runtime.faults.boot_error = "no VMM"
        await client.find_missing([ABSENT])
        await until(lambda: farm.runtime.failed_boots >= 1)
        farm.runtime.faults.boot_error = ""
        assert await run(client, "echo x > a.o") == b"x\n"


async def test_a_build_of_the_dispatcher_announces_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight compiles at once, four slots: the worker hears of them and starts four guests."""
    heard: list[int] = []
    expect = GuestPool.expect

    def listen(pool: GuestPool, domain: TrustDomain, count: int) -> None:
        heard.append(count)
        expect(pool, domain, count)

    monkeypatch.setattr(GuestPool, "expect", listen)
    units = range(16)
    async with farm_under_test(tmp_path, **FOUR) as farm, farm.serving(), build_on(farm) as build:
        await build.run(units, jobs=8, seconds=0.3)
        build.check(units)
        assert max(heard) == 4, "as many as the route grants"
        assert farm.runtime.booted == 4
