"""The dispatcher's channels to workers that appear and disappear."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcc.config.farm import Farm
from hpcc.core import GuestReuse, Isolation
from hpcc.dispatch import calls
from hpcc.dispatch.channels import MAX_CHANNELS
from hpcc.dispatch.farm import FarmConnection
from hpcc.identity.keys import load_or_create_tls
from hpcc.ports import SystemClock
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.api import Route
from hpcc.rpc.scheduler.schedulers import Schedulers


def connected(directory: Path) -> tuple[FarmConnection, Route]:
    """Yield a connection to a farm whose scheduler is never called, and a route to its worker."""
    tls = load_or_create_tls(directory, "worker.hpcc.internal", clock=SystemClock())
    route = Route(
        endpoint="127.0.0.1:1",
        worker_certificate=tls.certificate_der,
        token="t",
        token_expires_at=0.0,
        generation=1,
        isolation=Isolation.LOCAL_NONE,
        worker_id="w1",
        principal="ann",
        guest_reuse=GuestReuse.PRINCIPAL,
        minimum_isolation=Isolation.LOCAL_NONE,
    )
    farm = Farm(
        scheduler="127.0.0.1:1",
        scheduler_certificate_pem=tls.certificate_pem.decode(),
        tenant="acme",
        principal="ann",
        secret="s" * 32,
        image="local/gcc@sha256:" + "ab" * 32,
        isolation="",
    )
    channel: Any = object()
    return FarmConnection(farm, Schedulers((channel,)), SystemClock(), "t"), route


async def test_a_daemon_that_lives_for_months_does_not_keep_a_channel_to_each_worker(
    tmp_path: Path,
) -> None:
    connection, route = connected(tmp_path)
    for port in range(2 * MAX_CHANNELS):
        worker = connection._channels.worker(replace(route, endpoint=f"127.0.0.1:{port + 1}"))
    assert len(connection._channels) == MAX_CHANNELS
    assert connection._channels.worker(worker.route).channel is worker.channel
    await connection.close()


async def test_only_a_worker_that_is_gone_ends_the_block_that_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit inside the block does not mean that the worker is gone."""

    async def dialed(*_: object) -> None:
        return

    monkeypatch.setattr(calls, "dial", dialed)
    connection, route = connected(tmp_path)
    monkeypatch.setattr(connection, "_start_watch", lambda _: None)
    worker = connection._channels.worker(route)
    with pytest.raises(TimeoutError):
        async with connection.reached(worker):
            raise TimeoutError

    async def use_until_it_is_gone() -> None:
        async with asyncio.timeout(20), connection.reached(worker):
            (scope,) = connection._calls._scopes
            scope.reschedule(asyncio.get_running_loop().time())
            await asyncio.Event().wait()

    with pytest.raises(UnavailableError) as caught:
        await use_until_it_is_gone()
    assert caught.value.reason == "worker-gone"
    async with connection.reached(worker):
        assert list(connection._calls._scopes.values()) == [worker]
    assert connection._calls._scopes == {}
    await connection.close()
