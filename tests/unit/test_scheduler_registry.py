"""Who is routed where, and when a route dies."""

from __future__ import annotations

import pytest

from hpcc.core import ImageDigest, Isolation, NotFoundError
from hpcc.rpc import Beat, Registration
from hpcc.scheduler._registry import Registry

IMAGE = ImageDigest("sha256:" + "ab" * 32)
OTHER = ImageDigest("sha256:" + "cd" * 32)


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


def registration(name: str = "w1", isolation: Isolation = Isolation.QEMU_TCG) -> Registration:
    return Registration(
        worker_id=name,
        endpoint="127.0.0.1:1",
        certificate=name.encode(),
        isolation=isolation,
        images=(IMAGE,),
        capacity=2,
        result_key=b"k",
        result_proof=b"p",
    )


def beat(name: str, running: int = 0, queued: int = 0) -> Beat:
    return Beat(worker_id=name, generation=1, running=running, queued=queued)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> Registry:
    return Registry(clock, 10.0)


def choose(registry: Registry, **more: int) -> str:
    values = {"failed_generation": 0, **more}
    return registry.choose(IMAGE, Isolation.QEMU_TCG, **values).registration.worker_id


def test_a_worker_that_has_the_image_is_chosen(registry: Registry) -> None:
    registry.register(registration())
    assert choose(registry) == "w1"
    with pytest.raises(NotFoundError):
        registry.choose(OTHER, Isolation.QEMU_TCG, failed_generation=0)


def test_a_worker_that_isolates_less_is_never_chosen(registry: Registry) -> None:
    registry.register(registration(isolation=Isolation.PROCESS_RUNC))
    with pytest.raises(NotFoundError):
        choose(registry)


def test_the_least_loaded_is_chosen(registry: Registry) -> None:
    for name in ("w1", "w2"):
        registry.register(registration(name))
    registry.heartbeat(beat("w1", running=2, queued=3))
    assert choose(registry) == "w2"


def test_a_route_that_just_failed_is_chosen_last(registry: Registry) -> None:
    first = registry.register(registration("w1"))
    registry.register(registration("w2"))
    registry.heartbeat(beat("w2", running=2))
    assert choose(registry) == "w1"
    assert choose(registry, failed_generation=first.generation) == "w2"


def test_a_worker_that_misses_its_lease_is_gone(registry: Registry, clock: Clock) -> None:
    worker = registry.register(registration())
    clock.at += 9
    registry.heartbeat(beat("w1"))
    clock.at += 9
    assert choose(registry) == "w1"
    clock.at += 2
    with pytest.raises(NotFoundError):
        choose(registry)
    (change,) = registry.expire()
    assert (change.generation, change.is_dead) == (worker.generation, True)
    with pytest.raises(NotFoundError):
        registry.heartbeat(beat("w1"))


def test_a_lost_guest_ends_the_generation_and_not_the_worker(registry: Registry) -> None:
    worker = registry.register(registration())
    change, successor = registry.lost("w1")
    assert change.generation == worker.generation
    assert successor.generation > worker.generation
    assert choose(registry) == "w1"


def test_generations_grow_over_a_restart_of_the_scheduler(clock: Clock) -> None:
    before = Registry(clock, 10.0).register(registration()).generation
    clock.at += 1
    assert Registry(clock, 10.0).register(registration()).generation > before
