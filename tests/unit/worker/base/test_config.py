"""Configurations that a worker refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.worker.base.config import WorkerConfig

PATHS = ("keys", "store", "audit", "images", "guest_assets", "state")


def config(**changes: object) -> WorkerConfig:
    values: dict[str, object] = {
        **{name: Path("/nowhere") for name in PATHS},
        "worker_id": "w1",
        "scheduler": "127.0.0.1:1",
        "scheduler_certificate_pem": "",
        "image_digests": (),
        **changes,
    }
    return WorkerConfig(**values)


@pytest.mark.parametrize("reuse", ["exec", "principal", "tenant"])
def test_every_reuse_class_is_taken(reuse: str) -> None:
    assert config(guest_reuse=reuse).guest_reuse == reuse


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"guest_reuse": "everybody"}, "guest_reuse must be exec, principal or tenant"),
        ({"memory_mib": 1535}, "memory_mib (1535) is too little for one guest"),
        ({"idle_seconds": 0.0}, "must be positive"),
        ({"drain_seconds": -1.0}, "must be positive"),
        ({"max_queue": 0}, "must be positive"),
        ({"vcpus": 0}, "must be positive"),
        ({"port": 65_536}, "port must be 0 to 65535"),
        ({"scheduler": "farm.example"}, "scheduler must be host:port"),
        ({"host": "0.0.0.0"}, "that clients reach"),
    ],
)
def test_what_could_not_work_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(CallerError) as caught:
        config(**changes)
    assert said in str(caught.value)
