"""A farm with several addresses: the first that answers is used, and a refusal is final."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hpcc.core import CallerError, Isolation
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import SystemClock
from hpcc.rpc.base.errors import UnauthenticatedError, UnavailableError
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.schedulers import Schedulers, open_schedulers, split_schedulers
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.serve import RunningScheduler, serve_scheduler
from hpcc_testkit.farm.in_process import TENANT

pytestmark = pytest.mark.timeout(120)
SECRET = "t" * 43


async def scheduler(stack: AsyncExitStack, directory: Path) -> RunningScheduler:
    config = SchedulerConfig(
        keys=directory / "keys", state=directory / "state",
        tenant=TENANT.value, tenant_secret=SECRET,
        minimum_isolation=Isolation.LOCAL_NONE.value,
    )  # fmt: skip
    return await stack.enter_async_context(serve_scheduler(config, SystemClock()))


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def login(schedulers: Schedulers, secret: str = SECRET) -> None:
    await SchedulerClient(schedulers).authenticate(
        secret=secret, tenant=TENANT, principal="ann", client_version="t"
    )


async def test_one_that_is_away_or_shows_another_certificate_is_passed_over(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        good = await scheduler(stack, tmp_path / "good")
        other = await scheduler(stack, tmp_path / "other")
        peer = PinnedPeer.from_pem(good.certificate_pem.encode())
        addresses = f"127.0.0.1:{closed_port()},127.0.0.1:{other.port},127.0.0.1:{good.port}"
        for _ in range(4):
            async with open_schedulers(
                addresses, certificate_pem=peer.certificate_pem, name=peer.name
            ) as schedulers:
                await login(schedulers)
                await login(schedulers)


async def test_a_refusal_is_the_answer_and_nobody_else_is_asked(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        one = await scheduler(stack, tmp_path / "one")
        other = await scheduler(stack, tmp_path / "other")
        peer = PinnedPeer.from_pem((one.certificate_pem + other.certificate_pem).encode())
        async with open_schedulers(
            f"127.0.0.1:{one.port},127.0.0.1:{other.port}",
            certificate_pem=peer.certificate_pem, name=peer.name,
        ) as schedulers:  # fmt: skip
            await login(schedulers)
            used = schedulers.channel
            with pytest.raises(UnauthenticatedError):
                await login(schedulers, "x" * 43)
            assert schedulers.channel is used


async def test_where_all_are_away_the_caller_hears_it_soon(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        one = await scheduler(stack, tmp_path)
        peer = PinnedPeer.from_pem(one.certificate_pem.encode())
    addresses = f"127.0.0.1:{closed_port()},127.0.0.1:{closed_port()}"
    async with (
        asyncio.timeout(60),
        open_schedulers(
            addresses, certificate_pem=peer.certificate_pem, name=peer.name
        ) as schedulers,
    ):
        with pytest.raises(UnavailableError):
            await login(schedulers)


@pytest.mark.parametrize(
    "text", ["", "host", "host:port", "a:1,", "a:1;b:2", ",".join(["a:1"] * 17)]
)
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CallerError) as refused:
        split_schedulers(text)
    assert refused.value.reason == "scheduler-address"


async def test_certificates_of_another_number_than_the_addresses_are_refused() -> None:
    pem = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
    for count in (0, 2):
        with pytest.raises(CallerError):
            async with open_schedulers("a:1,b:2,c:3", certificate_pem=pem * count, name="x"):
                raise AssertionError
