"""A dispatcher's connection to a farm of which nothing runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcc.config.farm import Farm
from hpcc.core import GuestReuse, Isolation
from hpcc.dispatch.farm import FarmConnection
from hpcc.identity.keys import load_or_create_tls
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.api import Route
from hpcc.rpc.scheduler.schedulers import Schedulers


def connected(directory: Path) -> tuple[FarmConnection, Route]:
    """Return a connection to a farm whose scheduler is never called, and a route to its worker."""
    tls = load_or_create_tls(directory, "worker.hpcc.internal", clock=SystemClock())
    route = Route(
        endpoint="127.0.0.1:1",
        worker_certificate=tls.certificate_der,
        token="t",  # noqa: S106 - no secret
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
