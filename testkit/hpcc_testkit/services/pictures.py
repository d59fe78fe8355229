"""Pictures of farms that no scheduler made, for tests of what shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpcc.core import HpccError
from hpcc.routing.load import SAMPLE_SECONDS, Load, LoadSample
from hpcc.rpc.scheduler.farm_picture import FarmPicture, picture_of
from hpcc.rpc.scheduler.observe import FarmStatus, RouteCount, TenantStatus, WorkerStatus

ACME: Final = TenantStatus(
    tenant="acme", daemons=2, wanted=3, granted=1, principals=1,
    routes=(RouteCount("no-worker", 3), RouteCount("ok", 9)),
)  # fmt: skip


def worker(name: str, **changes: object) -> WorkerStatus:
    """Return a worker of four places, one of them busy."""
    values: dict[str, object] = {
        "worker_id": name, "endpoint": f"{name}:7445", "isolation": "qemu/kvm", "is_stale": False,
        "is_heard": True, "capacity": 4, "running": 1, "queued": 0, "images": 1,
        "lost_guests": 0.0, "lease_seconds": 9.0,
    }  # fmt: skip
    return WorkerStatus(**{**values, **changes})  # type: ignore[arg-type]  # built by name


def status(*workers: WorkerStatus, **changes: object) -> FarmStatus:
    """Return what a scheduler answers to an operator of the tenant `acme`."""
    values: dict[str, object] = {
        "scheduler_id": "s", "version": "1", "at": 1.0, "is_operator": True, "is_store_up": True,
        "live": len(workers), "stale": 0, "has_room": True, "workers": workers,
        "tenants": (ACME,),
    }  # fmt: skip
    return FarmStatus(**{**values, **changes})  # type: ignore[arg-type]  # built by name


def member(**changes: object) -> FarmStatus:
    """Return what a scheduler answers to a member of `acme` without that right."""
    return status(**{"live": 2, "is_operator": False, **changes})


def picture(*answers: FarmStatus | HpccError) -> FarmPicture:
    """Return the picture of answers, for the tenant `acme`."""
    addresses = [f"s{number}:7443" for number in range(len(answers))]
    return picture_of(addresses, answers, tenant="acme", at=5.0)


def hour(running: Sequence[int], *, capacity: int = 8, queued: int = 0) -> tuple[LoadSample, ...]:
    """Return samples of a farm of two workers, in which so many places are busy."""
    return tuple(
        LoadSample(
            1_800_000_000 + number * SAMPLE_SECONDS,
            Load(live=2, capacity=capacity, running=busy, queued=queued),
        )
        for number, busy in enumerate(running)
    )
