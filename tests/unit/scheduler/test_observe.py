"""Who sees what of a farm: a member its tenant, an operator everything, in bounded pages."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hpcc.core import (
    CallerError,
    ImageDigest,
    ImageToolchains,
    Isolation,
    NotFoundError,
    PolicyError,
    Toolchain,
)
from hpcc.identity.session_token import SessionClaims
from hpcc.ports import Clock, LeasedShare, SystemClock
from hpcc.routing.load import MAX_SAMPLES, SAMPLE_SECONDS, Load, LoadHistory
from hpcc.rpc.scheduler.api import Beat, DrainState, Registration, WorkerFacts
from hpcc.rpc.scheduler.observe import WORKERS_AT_ONCE
from hpcc.rpc.scheduler.recent_events import SeenEvent, SeenEvents
from hpcc.rpc.scheduler.worker_detail import MAX_IMAGES
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.drains import DrainMark
from hpcc.scheduler.observe import Observer, Sources
from hpcc.scheduler.registry import WorkerRegistry
from hpcc_testkit.services.idp_tokens import FixedClock

KEYS = {"keys": Path("/keys"), "state": Path("/state")}
TABLE = SchedulerConfig(**KEYS, tenants="/t.toml", operators=("acme/ops/ann", "globex/op"))  # type: ignore[arg-type]  # built by name
STATIC = SchedulerConfig(
    **KEYS, tenant="acme", tenant_secret="s" * 40, minimum_isolation="qemu/kvm"
)  # type: ignore[arg-type]  # built by name
SHARES = [
    LeasedShare(worker_id="w1", tenant="acme", principal="ann", wanted=4, granted=3, held=3),
    LeasedShare(worker_id="w2", tenant="acme", principal="ann", wanted=1, granted=1, held=1),
    LeasedShare(worker_id="w2", tenant="acme", principal="bob", wanted=2, granted=0, held=0),
    LeasedShare(worker_id="w2", tenant="globex", principal="zed", wanted=9, granted=9, held=9),
]
WATCHES = {"acme": 2, "globex": 7}
ROUTES = {"acme": {"ok": 40, "no-worker": 2}, "initrode": {"ok": 7, "image": 1}}
MARKS = {"w9": DrainMark(at=1.0, ends_at=2.0, by="olga", reason="kernel")}

SOURCES = Sources(
    watches=lambda: WATCHES,
    shares=lambda: SHARES,
    is_store_up=lambda: True,
    scheduler_id=lambda: "scheduler-1",
    drain_mark=MARKS.get,
    routes=lambda: ROUTES,
)


def session(tenant: str, principal: str) -> SessionClaims:
    return SessionClaims(
        tenant=tenant, principal=principal, client_version="t", identity="", expires_at=9e9, serial=1
    )  # fmt: skip


def farm(*workers: str, clock: Clock | None = None) -> WorkerRegistry:
    registry = WorkerRegistry(clock or SystemClock(), 10.0)
    for name in workers:
        registration = Registration(
            worker_id=name, endpoint=f"{name}.internal:7445", certificate=name.encode(),
            isolation=Isolation.QEMU_KVM, images=(ImageDigest("sha256:" + "ab" * 32),), capacity=4,
            result_key=b"", result_proof=b"",
        )  # fmt: skip
        worker, _ = registry.register(registration)
        registry.heartbeat(Beat(worker_id=name, generation=worker.generation, running=1, queued=2))
    return registry


def observer(config: SchedulerConfig, registry: WorkerRegistry) -> Observer:
    return Observer(config, registry, SOURCES, SystemClock())


@pytest.mark.parametrize("principal", ["ann", "ops", "ops/ann2", "", "op", "*"])
def test_a_member_sees_its_tenant_and_nothing_of_others(principal: str) -> None:
    status = observer(TABLE, farm("w1", "w2")).status(session("acme", principal), "")
    assert not status.is_operator
    assert (status.live, status.stale, status.has_room) == (2, 0, True)
    (own,) = status.tenants
    assert (own.tenant, own.daemons, own.wanted, own.granted, own.principals) == (
        "acme",
        2,
        7,
        4,
        2,
    )
    assert {r.result: r.count for r in own.routes} == ROUTES["acme"]
    said = json.dumps(asdict(status))
    for name in ("globex", "initrode", "image", "zed", "w1", "internal", "ann", "bob"):
        assert name not in said, name
    assert (status.capacity, status.running, status.queued, status.workers) == (0, 0, 0, ())


def test_a_member_of_a_tenant_with_nothing_to_show_sees_that() -> None:
    (own,) = observer(TABLE, farm()).status(session("initech", "ann"), "").tenants
    assert (own.tenant, own.daemons, own.wanted) == ("initech", 0, 0)


def test_an_operator_sees_everything() -> None:
    status = observer(TABLE, farm("w2", "w1")).status(session("acme", "ops/ann"), "")
    assert status.is_operator
    assert (status.capacity, status.running, status.queued) == (8, 2, 4)
    assert [w.worker_id for w in status.workers] == ["w1", "w2"]
    first = status.workers[0]
    assert (first.capacity, first.running, first.queued, first.images) == (4, 1, 2, 1)
    assert first.is_heard
    assert not first.is_stale
    assert {t.tenant: t.daemons for t in status.tenants} == {**WATCHES, "initrode": 0}
    assert {r.result: r.count for r in status.tenants[2].routes} == ROUTES["initrode"]


def test_security_events_are_for_operators() -> None:
    seen = SeenEvents(1.0, (SeenEvent(name="login-refused", at=2.0, peer="ipv4:10.0.0.7:1"),))
    sources = replace(SOURCES, events=lambda: seen)
    watched = Observer(TABLE, farm(), sources, SystemClock())
    assert watched.events(session("acme", "ops/ann")) == seen
    for who in (session("acme", "ann"), session("globex", "ops/ann")):
        with pytest.raises(PolicyError, match="only operators see security events"):
            watched.events(who)


def test_an_operator_of_one_tenant_is_nobody_in_another() -> None:
    assert not observer(TABLE, farm()).is_operator("globex", "ops/ann")
    assert not observer(TABLE, farm()).is_operator("acme", "op")
    assert observer(TABLE, farm()).is_operator("globex", "op")


def test_in_a_farm_with_one_secret_everybody_is_an_operator() -> None:
    assert observer(STATIC, farm("w1")).status(session("acme", "anybody"), "").workers


def test_large_farms_come_in_pages() -> None:
    names = [f"w{number:05}" for number in range(2 * WORKERS_AT_ONCE + 1)]
    watched, ann = observer(TABLE, farm(*names)), session("acme", "ops/ann")
    found, after, sizes = [], "", []
    while True:
        status = watched.status(ann, after)
        found += [w.worker_id for w in status.workers]
        sizes.append(len(status.workers))
        if not status.has_more:
            break
        after = found[-1]
    assert found == names
    assert sizes == [WORKERS_AT_ONCE, WORKERS_AT_ONCE, 1]
    with pytest.raises(PolicyError, match="only operators"):
        watched.status(session("acme", "ann"), "w00001")


def test_operators_who_look_in_one_second_get_one_page() -> None:
    """Ten open pages must not cost ten times the work, because routes wait for it."""
    made, clock = list[str](), FixedClock()

    def mark_or_none(worker_id: str) -> DrainMark | None:
        made.append(worker_id)
        return None

    names = [f"w{number:05}" for number in range(WORKERS_AT_ONCE + 3)]
    registry = farm(*names, clock=clock)
    watched = Observer(TABLE, registry, replace(SOURCES, drain_mark=mark_or_none), clock)
    ann, olga = session("acme", "ops/ann"), session("globex", "op")
    for _ in range(5):
        for operator in (ann, olga):
            assert len(watched.status(operator, "").workers) == WORKERS_AT_ONCE
            assert [w.worker_id for w in watched.status(operator, names[-4]).workers] == names[-3:]
    assert made == names
    clock.time += 1.0
    registry.remove(names[-1])
    after = watched.status(olga, names[-4])
    assert ([w.worker_id for w in after.workers], after.has_more) == (names[-3:-1], False)
    assert made == [*names, *names[-3:-1]]


def test_pages_that_an_operator_asks_for_take_bounded_memory() -> None:
    made, clock = list[str](), FixedClock()
    names = [f"w{number:03}" for number in range(100)]
    sources = replace(SOURCES, drain_mark=made.append)
    watched = Observer(TABLE, farm(*names, clock=clock), sources, clock)
    counts = []
    for _ in range(2):
        made.clear()
        for after in names:
            watched.status(session("globex", "op"), after)
        counts.append(len(made))
    assert 0 < counts[1] < counts[0], "some pages are kept, and not all"


def test_a_page_of_one_second_ago_has_no_lease_below_zero() -> None:
    clock = FixedClock()
    registry = farm("w1", clock=clock)
    watched, ann = Observer(TABLE, registry, SOURCES, clock), session("acme", "ops/ann")
    clock.time += 9.9
    watched.status(ann, "w1")  # lists the workers, and shows none
    clock.time += 0.5
    (shown,) = watched.status(ann, "").workers
    assert shown.lease_seconds == 0.0


@pytest.mark.parametrize(
    "operators",
    [("ann",), ("Acme/ann",), ("acme/",), ("acme/a\nb",), ("acme/" + "x" * 300,), ("/a",)],
)
def test_an_operator_that_nobody_can_be_is_refused(operators: tuple[str, ...]) -> None:
    with pytest.raises(CallerError):
        replace(TABLE, operators=operators)


def test_operators_are_for_farms_with_a_table() -> None:
    with pytest.raises(CallerError, match="needs 'tenants'"):
        replace(STATIC, operators=("acme/ann",))
    with pytest.raises(CallerError, match="at most 256"):
        replace(TABLE, operators=("acme/ann",) * 257)


def test_an_operator_sees_who_drains_a_worker_and_a_member_how_many_drain() -> None:
    registry = farm("w1", "w9")
    registry.drain(frozenset({"w9"}))
    beat = Beat(worker_id="w9", generation=0, running=3, queued=0, drain_seconds=412.0)
    registry.heartbeat(replace(beat, drain=DrainState.DRAINING))
    found = observer(STATIC, registry)
    status = found.status(session("acme", "olga"), "")
    assert (status.live, status.draining, status.capacity, status.running) == (1, 1, 4, 1)
    said = [(w.drain, w.drain_seconds, w.drain_by, w.drain_reason) for w in status.workers]
    assert said == [("", 0.0, "", ""), ("draining", 412.0, "olga", "kernel")]
    member = observer(TABLE, registry).status(session("acme", "ann"), "")
    assert (member.live, member.draining) == (1, 1)
    assert "olga" not in json.dumps(asdict(member))


def test_an_operator_sees_what_a_worker_says_of_its_machine_and_a_member_does_not() -> None:
    registry = farm("w1", "w9")
    facts = WorkerFacts(
        version="7.7.7",
        up_seconds=9.0,
        load=0.5,
        store_bytes=3,
        store_limit_bytes=4,
        wait_p95_seconds=1.5,
        waits=20,
    )
    registry.heartbeat(Beat(worker_id="w9", generation=0, running=0, queued=0, facts=facts))
    found = observer(TABLE, registry)
    first, last = found.status(session("acme", "ops/ann"), "").workers
    assert (first.version, first.store_bytes) == ("", 0)
    assert (last.version, last.up_seconds, last.load) == ("7.7.7", 9.0, 0.5)
    assert (last.wait_p95_seconds, last.waits) == (1.5, 20)
    assert (last.store_bytes, last.store_limit_bytes, last.heard_seconds >= 0) == (3, 4, True)
    assert "7.7.7" not in json.dumps(asdict(found.status(session("acme", "ann"), "")))


def test_the_load_of_the_last_hour_is_for_operators_and_bounded() -> None:
    watched = observer(TABLE, farm("w1", "w2"))
    with pytest.raises(PolicyError, match="only operators"):
        watched.history(session("acme", "ann"))
    assert watched.history(session("acme", "ops/ann")) == ()
    history = LoadHistory()
    for number in range(MAX_SAMPLES + 5):
        history.add(float(number), Load(running=number))
    assert [s.at for s in history.samples] == [float(n) for n in range(5, MAX_SAMPLES + 5)]


async def test_a_sample_is_taken_at_the_start_and_every_ten_seconds() -> None:
    slept = list[float]()

    class Clock(SystemClock):
        async def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                raise asyncio.CancelledError

    registry = farm("w1", "w2")
    watched = Observer(STATIC, registry, SOURCES, Clock())
    with pytest.raises(asyncio.CancelledError):
        await watched.run()
    assert slept == [SAMPLE_SECONDS] * 3
    samples = watched.history(session("acme", "anybody"))
    assert [(s.load.live, s.load.capacity, s.load.running, s.load.queued) for s in samples] == [
        (2, 8, 2, 4)
    ] * 3


def test_a_worker_has_bounded_images_and_places_by_tenant_for_operators_only() -> None:
    many = tuple(ImageDigest(f"sha256:{number:064x}") for number in range(MAX_IMAGES + 9))
    gcc = Toolchain(names=("gcc", "cc"), family="gcc", version="14.2.0", target="x86_64")
    registry = farm("w1")
    registration = Registration(
        worker_id="w2", endpoint="w2.internal:7445", certificate=b"w2",
        isolation=Isolation.QEMU_KVM, images=many, capacity=4, result_key=b"", result_proof=b"",
        toolchains=(ImageToolchains(many[0], (gcc,)),),
    )  # fmt: skip
    registry.register(registration)
    watched, olga = observer(TABLE, registry), session("acme", "ops/ann")
    detail = watched.worker(olga, "w2")
    assert [i.digest for i in detail.images] == [i.value for i in many[:MAX_IMAGES]]
    assert [i.compilers for i in detail.images[:2]] == [("gcc 14.2.0",), ()]
    assert [(p.tenant, p.wanted, p.granted, p.held, p.principals) for p in detail.places] == [
        ("acme", 3, 1, 1, 2), ("globex", 9, 9, 9, 1),
    ]  # fmt: skip
    said = json.dumps(asdict(detail))
    assert not [name for name in ("ann", "bob", "zed") if name in said], "no name of a person"
    with pytest.raises(PolicyError, match="only operators"):
        watched.worker(session("acme", "ann"), "w2")
    with pytest.raises(NotFoundError):
        watched.worker(olga, "w3")
