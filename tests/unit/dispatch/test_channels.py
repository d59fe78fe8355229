"""The dispatcher's channels to workers that come and go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hpcc.config.farm import Farm
from hpcc.core import GuestReuse, Isolation
from hpcc.dispatch.farm import _MAX_CHANNELS, FarmConnection
from hpcc.identity.keys import load_or_create_tls
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.api import Route
from hpcc.rpc.scheduler.schedulers import Schedulers


async def test_a_daemon_that_lives_for_months_does_not_keep_a_channel_to_each_worker(
    tmp_path: Path,
) -> None:
    tls = load_or_create_tls(tmp_path, "worker.hpcc.internal", clock=SystemClock())
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
    connection = FarmConnection(farm, Schedulers((channel,)), SystemClock(), "t")
    for port in range(2 * _MAX_CHANNELS):
        worker = connection._routed(replace(route, endpoint=f"127.0.0.1:{port + 1}"))
    assert len(connection._channels) == _MAX_CHANNELS
    assert connection._routed(worker.route).channel is worker.channel
    await connection.close()
