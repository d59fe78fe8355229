"""Configurations that a worker refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.core import CallerError, ImageDigest
from hpcc.worker.base.config import WorkerConfig

IMAGE = "sha256:" + "ab" * 32
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


def sizes(mib: object, **changes: object) -> dict[str, object]:
    return {"image_digests": (IMAGE,), "guest_memory_by_image": {IMAGE: mib}, **changes}


def test_an_image_may_have_another_size_than_the_others() -> None:
    made = config(**sizes(mib=2048), memory_mib=4096)
    assert made.memory_of(ImageDigest(IMAGE)) == 2048
    assert made.memory_of(ImageDigest("sha256:" + "cd" * 32)) == made.guest_memory_mib


@pytest.mark.parametrize("reuse", ["exec", "principal", "tenant"])
def test_every_reuse_class_is_taken(reuse: str) -> None:
    assert config(guest_reuse=reuse).guest_reuse == reuse


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"guest_reuse": "everybody"}, "guest_reuse must be exec, principal or tenant"),
        ({"guest_bundle": "sha256:../x"}, "sha256"),
        ({"guest_mitigations": "maybe"}, "guest_mitigations must be auto, on or off"),
        ({"memory_mib": 1535}, "memory_mib (1535) is too little for one guest"),
        ({"idle_seconds": 0.0}, "must be positive"),
        ({"park_seconds": 0.0}, "must be positive"),
        ({"park_after_starts": -1.0}, "guests that stay"),
        ({"ahead_guests": -1}, "ahead_guests must be 0 to 1024"),
        ({"ahead_guests": 1025}, "ahead_guests must be 0 to 1024"),
        ({"guest_memory_by_image": {IMAGE: 512}}, "is not one of image_digests"),
        (sizes(mib=255), "256 MiB or more"),
        (sizes(mib=True), "256 MiB or more"),
        (sizes(mib="512"), "256 MiB or more"),
        (sizes(mib=4096, memory_mib=4000), "memory_mib (4000) is too little for one guest"),
        ({"drain_seconds": -1.0}, "must be positive"),
        ({"max_queue": 0}, "must be positive"),
        ({"vcpus": 0}, "must be positive"),
        ({"port": 65_536}, "port must be 0 to 65535"),
        ({"scheduler": "farm.example"}, "scheduler must be host:port"),
        ({"host": "0.0.0.0"}, "that clients reach"),
        ({"enrol_at": "s:1"}, "belong together"),
        ({"enrol_token_file": "/t"}, "belong together"),
        ({"enrol_pod_token_file": "/t"}, "belong together"),
        (
            {"enrol_at": "s:1", "enrol_token_file": "/t", "enrol_pod_token_file": "/p"},
            "belong together",
        ),
        ({"enrol_at": "s:1", "enrol_pod_token_file": "p"}, "must be an absolute path"),
    ],
)
def test_what_could_not_work_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(CallerError) as caught:
        config(**changes)
    assert said in str(caught.value)
