"""Which worker each caller is routed to, and when a route ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcc.core import ImageDigest, Isolation, NotFoundError
from hpcc.ports import WorkerLease
from hpcc.routing.fleet import RouteRequest
from hpcc.rpc.scheduler.api import Beat, Registration
from hpcc.scheduler.registry import RETURN_SECONDS, WorkerRegistry
from hpcc.scheduler.registry_row import Worker

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


def beat(name: str, running: int = 0, queued: int = 0, generation: int = 1) -> Beat:
    return Beat(
        worker_id=name, generation=generation, running=running, queued=queued
    )  # fmt: skip


def take(registry: WorkerRegistry, registered: Registration) -> Worker:
    return registry.register(registered)[0]


def share(
    one: WorkerRegistry, other: WorkerRegistry, *, with_facts: bool = True
) -> list[tuple[int, bool]]:
    """Give `other` the entries that `one` would store; return the deaths that it found."""
    leases = one.outbox()
    one.shared(leases, frozenset(), done=True)
    facts = {x.worker_id: (x.since, x.facts) for x in leases if x.facts is not None}
    changes = other.absorb(leases, facts if with_facts else {})
    return [(c.generation, c.is_dead) for c in changes]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> WorkerRegistry:
    return WorkerRegistry(clock, 10.0)


def request(image: ImageDigest = IMAGE, failed_generation: int = 0) -> RouteRequest:
    return RouteRequest(
        image=image, rank=Isolation.QEMU_TCG.rank, home=0, failed_generation=failed_generation
    )


def choose(registry: WorkerRegistry, **more: int) -> str:
    return registry.choose(request(**more), lambda _: 0).registration.worker_id


def test_a_worker_that_has_the_image_is_chosen(registry: WorkerRegistry) -> None:
    registry.register(registration())
    assert choose(registry) == "w1"
    with pytest.raises(NotFoundError):
        registry.choose(request(OTHER), lambda _: 0)


def test_a_worker_that_isolates_less_is_never_chosen(registry: WorkerRegistry) -> None:
    registry.register(registration(isolation=Isolation.PROCESS_RUNC))
    with pytest.raises(NotFoundError):
        choose(registry)


def test_the_least_loaded_is_chosen(registry: WorkerRegistry) -> None:
    for name in ("w1", "w2"):
        registry.register(registration(name))
    registry.heartbeat(beat("w1", running=2, queued=3))
    assert choose(registry) == "w2"


def test_a_route_that_just_failed_is_chosen_last(registry: WorkerRegistry) -> None:
    first = take(registry, registration("w1"))
    registry.register(registration("w2"))
    registry.heartbeat(beat("w2", running=2, queued=3))
    assert choose(registry) == "w1"
    assert choose(registry, failed_generation=first.generation) == "w2"


def test_a_worker_that_misses_its_lease_is_gone(registry: WorkerRegistry, clock: Clock) -> None:
    worker = take(registry, registration())
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


def test_a_lost_guest_ends_the_generation_and_not_the_worker(registry: WorkerRegistry) -> None:
    worker = take(registry, registration())
    change, successor = registry.lost("w1", worker.generation)
    assert change.generation == worker.generation
    assert successor.generation > worker.generation
    assert choose(registry) == "w1"


def test_generations_grow_over_a_restart_of_the_scheduler(clock: Clock) -> None:
    before = take(WorkerRegistry(clock, 10.0), registration()).generation
    clock.at += 1
    assert take(WorkerRegistry(clock, 10.0), registration()).generation > before


def test_a_worker_of_another_scheduler_is_routed_to(registry: WorkerRegistry, clock: Clock) -> None:
    other = WorkerRegistry(clock, 10.0)
    worker = take(registry, registration())
    assert share(registry, other) == []
    assert other.choose(request(), lambda _: 0) == worker
    # Its lease is the other one's to renew, and ends like any.
    clock.at += 8
    registry.heartbeat(beat("w1"))
    share(registry, other)
    clock.at += 8
    assert choose(other) == "w1"
    clock.at += 3
    with pytest.raises(NotFoundError):
        choose(other)


def test_a_lease_whose_facts_did_not_come_is_no_worker_yet(
    registry: WorkerRegistry, clock: Clock
) -> None:
    other = WorkerRegistry(clock, 10.0)
    registry.register(registration())
    share(registry, other, with_facts=False)
    with pytest.raises(NotFoundError):
        choose(other)


@pytest.mark.parametrize("damage", [b"", b"junk", b"\x0a\x02w2"])
def test_facts_that_no_scheduler_wrote_are_no_worker(
    registry: WorkerRegistry, damage: bytes
) -> None:
    lease = WorkerLease(
        worker_id="w1", generation=5, since=5, running=0, queued=0, seconds=9.0
    )  # fmt: skip
    assert registry.absorb([lease], {"w1": (5, damage)}) == []
    with pytest.raises(NotFoundError):
        choose(registry)


def test_a_guest_lost_at_one_scheduler_ends_the_generation_at_the_other(
    registry: WorkerRegistry, clock: Clock
) -> None:
    other = WorkerRegistry(clock, 10.0)
    third = WorkerRegistry(clock, 10.0)
    worker = take(registry, registration())
    leases = registry.outbox()
    for reader in (other, third):
        reader.absorb(leases, {x.worker_id: (x.since, x.facts or b"") for x in leases})
    registry.shared(leases, frozenset(), done=True)
    change, successor = registry.lost("w1", worker.generation)
    # By broadcast, and by the next reading where that was lost.
    (heard,) = other.heard_end("w1", change.generation, successor.generation)
    assert heard == change
    assert other.choose(request(), lambda _: 0).generation == successor.generation
    assert share(registry, third) == [(worker.generation, True)]
    assert third.choose(request(), lambda _: 0).generation == successor.generation
    assert other.heard_end("w1", change.generation, successor.generation) == []


def test_a_loss_told_to_another_scheduler_than_heartbeats_is_shared_by_it(
    registry: WorkerRegistry, clock: Clock
) -> None:
    other = WorkerRegistry(clock, 10.0)
    worker = take(registry, registration())
    share(registry, other)
    _, successor = other.lost("w1", worker.generation)
    (lease,) = other.outbox()
    assert lease.generation == successor.generation
    assert [c.generation for c in registry.absorb([lease], {})] == [worker.generation]


def test_a_worker_that_changes_schedulers_keeps_its_generation(
    registry: WorkerRegistry, clock: Clock
) -> None:
    worker = take(registry, registration())
    other = WorkerRegistry(clock, 10.0)
    with pytest.raises(NotFoundError):
        other.heartbeat(beat("w1"))
    again, dead = other.register(replace(registration(), generation=worker.generation))
    assert (again.generation, dead) == (worker.generation, [])
    # The worker's next heartbeat tells the first replica of a guest that was lost at the other.
    _, successor = other.lost("w1", worker.generation)
    moved, (change,) = registry.heartbeat(beat("w1", generation=successor.generation))
    assert moved.generation == successor.generation
    assert (change.generation, change.is_dead) == (worker.generation, True)


def test_a_worker_that_starts_anew_has_another_generation(registry: WorkerRegistry) -> None:
    first = take(registry, registration())
    second, (dead,) = registry.register(registration())
    assert second.generation > first.generation
    assert (dead.generation, dead.is_dead) == (first.generation, True)


@pytest.mark.parametrize("generation", [1 << 61, (1 << 62) + 5])
def test_a_generation_that_no_clock_gave_is_not_believed(
    registry: WorkerRegistry, clock: Clock, generation: int
) -> None:
    worker = take(registry, registration())
    moved, dead = registry.heartbeat(beat("w1", generation=generation))
    assert (moved.generation, dead) == (worker.generation, [])
    assert registry.heard_end("w1", worker.generation, generation) == []
    change, successor = registry.lost("w1", generation)
    assert change.generation == worker.generation
    assert successor.generation < int(clock.now() + 60) << 16


def test_a_worker_that_left_is_not_taken_back_from_what_others_still_have(
    registry: WorkerRegistry, clock: Clock
) -> None:
    other = WorkerRegistry(clock, 10.0)
    take(registry, registration())
    share(registry, other)
    left = other.remove("w1")
    assert left is not None
    registry.heartbeat(beat("w1"))
    assert share(registry, other) == []
    with pytest.raises(NotFoundError):
        choose(other)
    assert other.ended() == [("w1", left.generation)]
    # One that starts again is welcome.
    other.register(registration())
    assert choose(other) == "w1"


def test_a_worker_that_left_elsewhere_is_gone_here(registry: WorkerRegistry, clock: Clock) -> None:
    other = WorkerRegistry(clock, 10.0)
    worker = take(registry, registration())
    share(registry, other)
    (change,) = other.heard_end("w1", worker.generation, 0)
    assert change.is_dead
    with pytest.raises(NotFoundError):
        choose(other)


def test_a_worker_that_nobody_lists_any_more_is_gone(
    registry: WorkerRegistry, clock: Clock
) -> None:
    other = WorkerRegistry(clock, 10.0)
    registry.register(registration())
    share(registry, other)
    (change,) = other.absorb([], {})
    assert change.is_dead
    # One that spoke here itself is not taken away by a store that has not heard of it.
    assert registry.absorb([], {}) == []
    assert choose(registry) == "w1"


def test_a_store_that_came_back_and_was_not_written_yet_takes_nobody_away(
    registry: WorkerRegistry, clock: Clock
) -> None:
    other = WorkerRegistry(clock, 10.0)
    registry.register(registration())
    share(registry, other)
    clock.at += 8
    other.hold()
    assert other.absorb([], {}, is_settled=False) == []
    assert choose(other) == "w1"
    clock.at += 10
    (change,) = other.expire()
    assert change.is_dead


def test_with_the_store_away_workers_of_other_schedulers_are_kept(
    registry: WorkerRegistry, clock: Clock
) -> None:
    other = WorkerRegistry(clock, 10.0)
    registry.register(registration())
    share(registry, other)
    for _ in range(10):
        clock.at += 8
        other.hold()
        assert other.expire() == []
    assert choose(other) == "w1"
    # One that is heard of is better, however busy.
    other.register(registration("w2"))
    other.heartbeat(beat("w2", running=2, queued=4))
    assert choose(other) == "w2"


def test_what_could_not_be_shared_is_shared_the_next_time(registry: WorkerRegistry) -> None:
    registry.register(registration())
    leases = registry.outbox()
    assert [x.facts is not None for x in leases] == [True]
    assert registry.outbox() == []
    registry.shared(leases, frozenset(), done=False)
    leases = registry.outbox()
    assert [x.facts is not None for x in leases] == [True]
    registry.shared(leases, frozenset(), done=True)
    assert registry.outbox() == []
    registry.heartbeat(beat("w1"))
    leases = registry.outbox()
    assert [x.facts for x in leases] == [None]
    # The store has forgotten it: the facts come again.
    registry.shared(leases, frozenset({"w1"}), done=True)
    assert [x.facts is not None for x in registry.outbox()] == [True]


def test_news_of_a_former_life_says_nothing_of_the_next(
    registry: WorkerRegistry, clock: Clock
) -> None:
    """A worker may restart or leave while a scheduler writes its news to the store."""
    registry.register(registration("w1"))
    registry.register(registration("w2"))
    former = registry.outbox()
    clock.at += 1.0
    registry.register(registration("w1"))
    registry.remove("w2")
    registry.shared(former, frozenset(), done=True)
    (lease,) = registry.outbox()
    # The store has the facts of the former life only.
    assert (lease.worker_id, lease.facts is not None) == ("w1", True)
    registry.shared(former, frozenset({"w1", "w2"}), done=False)
    assert registry.outbox() == []


def test_a_worker_whose_stream_broke_gets_no_route_where_another_can_have_it(
    registry: WorkerRegistry,
) -> None:
    for name in ("w1", "w2"):
        registry.register(registration(name))
    registry.heartbeat(beat("w2", running=2, queued=3))
    registry.parted("w1")
    assert choose(registry) == "w2"


def test_a_worker_whose_stream_broke_has_two_seconds_to_come_back(
    registry: WorkerRegistry, clock: Clock
) -> None:
    registry.register(registration())
    registry.parted("w1")
    clock.at += RETURN_SECONDS - 0.1
    assert registry.deserters() == []
    registry.heartbeat(beat("w1"))
    clock.at += RETURN_SECONDS
    assert registry.deserters() == []
    registry.parted("w1")
    clock.at += RETURN_SECONDS
    assert registry.deserters() == ["w1"]


def test_when_many_streams_break_at_once_leases_decide(
    registry: WorkerRegistry, clock: Clock
) -> None:
    names = [f"w{n}" for n in range(40)]
    for name in names:
        registry.register(registration(name))
    for name in names[:9]:
        registry.parted(name)
    clock.at += RETURN_SECONDS
    assert registry.deserters() == []
    for name in names[:3]:
        registry.heartbeat(beat(name))
    assert registry.deserters() == names[3:9]


def test_a_worker_that_moved_to_another_scheduler_is_no_deserter(
    registry: WorkerRegistry, clock: Clock
) -> None:
    other = WorkerRegistry(clock, 10.0)
    worker = take(registry, registration())
    share(registry, other)
    registry.parted("w1")
    assert not other.speaks_here("w1")
    other.heartbeat(beat("w1", generation=worker.generation))
    registry.moved("w1")
    share(other, registry)
    clock.at += RETURN_SECONDS
    assert registry.deserters() == []
    assert choose(registry) == "w1"
    # The connection that broke later was no longer in use.
    registry.parted("w1")
    clock.at += RETURN_SECONDS
    assert registry.deserters() == []


def test_a_life_that_was_told_dead_does_not_go_on(registry: WorkerRegistry) -> None:
    worker = take(registry, registration())
    assert registry.remove("w1") is not None
    again = take(registry, replace(registration(), generation=worker.generation))
    assert again.generation > worker.generation


def test_a_lease_grows_with_the_farm_and_never_shrinks() -> None:
    registry = WorkerRegistry(Clock(), 10.0)
    for number in range(2_000):
        take(registry, registration(f"w{number}"))
        assert 10.0 <= registry.lease_seconds <= 30.0
    assert registry.lease_seconds == 20.0
    for number in range(1_990):
        registry.remove(f"w{number}")
    # The workers got this lease, and their heartbeats keep its pace.
    assert registry.lease_seconds == 20.0


def test_an_outbox_is_emptied_in_parts() -> None:
    clock = Clock()
    registry = WorkerRegistry(clock, 10.0)
    for name in ("w1", "w2", "w3"):
        generation = take(registry, registration(name)).generation
        registry.heartbeat(beat(name, generation=generation))
    assert [x.worker_id for x in registry.outbox(2)] == ["w1", "w2"]
    assert registry.outbox_size == 1
    assert [x.worker_id for x in registry.outbox(2)] == ["w3"]
    assert registry.outbox(2) == []
    registry.heartbeat(beat("w1", generation=registry.register(registration("w1"))[0].generation))
    registry.remove("w1")
    # Of who left nothing is kept, also where nobody ever empties it.
    assert registry.outbox_size == 0


def test_own_workers_are_those_that_spoke_here_lately() -> None:
    clock = Clock()
    registry, other = WorkerRegistry(clock, 10.0), WorkerRegistry(clock, 10.0)
    worker = take(registry, registration())
    share(registry, other)
    assert [w for w, _, _ in registry.own()] == ["w1"]
    assert other.own() == []
    assert other.keep_only({"w1"}) == []
    (gone,) = other.keep_only(())
    assert gone.generation == worker.generation
    assert registry.keep_only(()) == []


def test_a_worker_that_drains_gets_no_route_and_its_routes_end(
    registry: WorkerRegistry, clock: Clock
) -> None:
    other = WorkerRegistry(clock, 10.0)
    first = take(registry, registration())
    share(registry, other)
    going = replace(registration(), generation=first.generation, is_draining=True)
    drained, dead = registry.register(going)
    assert [(c.generation, c.is_dead) for c in dead] == [(first.generation, True)]
    assert drained.generation > first.generation
    assert share(registry, other) == [(first.generation, True)], "other schedulers tell theirs"
    for known in (registry, other):
        for failed in (0, drained.generation):
            with pytest.raises(NotFoundError):
                choose(known, failed_generation=failed)
    again, dead = registry.register(replace(going, generation=drained.generation))
    assert (again.generation, dead) == (drained.generation, []), "as when a key is renewed"
    counts = registry.additions, other.additions
    back, dead = registry.register(replace(going, generation=again.generation, is_draining=False))
    assert (back.generation, dead) == (drained.generation, []), "its routes are good again"
    share(registry, other)
    for known, count in zip((registry, other), counts, strict=True):
        assert choose(known) == "w1"
        assert known.additions == count + 1, "daemons are told to ask again"


def test_capacities_are_those_of_now_and_a_copy_those_of_then(registry: WorkerRegistry) -> None:
    capacities = registry.capacities()
    assert (len(capacities), capacities.get("w1"), capacities.copy()) == (0, None, {})
    take(registry, registration("w1"))
    before = capacities.copy()
    assert len(capacities) == 1
    assert before == {"w1": capacities.get("w1")}
    registry.remove("w1")
    assert (len(capacities), capacities.get("w1")) == (0, None)
    assert before
