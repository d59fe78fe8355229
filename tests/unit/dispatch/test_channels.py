"""The dispatcher's channels to workers that appear and disappear."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.dispatch import calls
from hpcc.dispatch.channels import MAX_CHANNELS
from hpcc.rpc.base.errors import UnavailableError
from hpcc_testkit.farm.connections import connected


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
