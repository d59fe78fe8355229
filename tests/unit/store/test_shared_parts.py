"""Breaker, patience, write-behind and publisher while a shared store has faults."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from hpcc.core import (
    EMPTY_DIGEST,
    Blob,
    CallerError,
    Digest,
    InfrastructureError,
    IntegrityError,
    NotFoundError,
)
from hpcc.store.breaker import Breaker, BreakerConfig, GuardedObjects
from hpcc.store.bucket.object_blobs import ObjectActionCache, ObjectBlobsConfig, ObjectBlobStore
from hpcc.store.degrading import DegradingActionCache, DegradingBlobStore
from hpcc.store.held import Held, HeldObjects
from hpcc.store.known import KnownBlobStore
from hpcc.store.memory import MemoryActionCache, MemoryBlobStore
from hpcc.store.objects import MemoryObjects, Objects, PrefixObjects
from hpcc.store.tiered import ReadCachingBlobStore
from hpcc.store.write_behind import (
    Publisher,
    PublishingActionCache,
    WriteBehindBlobStore,
    WriteBehindConfig,
)
from hpcc.store.zstd import ZstdObjects

ACTION = Digest.of(b"action")
BLOBS = [Blob.of(b"blob %d" % i) for i in range(6)]


class FakeClock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


class Faulty(MemoryObjects):
    """Objects with a fault that a test sets, and a log of the requests."""

    def __init__(self) -> None:
        super().__init__()
        self.fault = ""
        self.asked: list[str] = []
        self.hold: asyncio.Event | None = None

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.hold:
            await self.hold.wait()
        if self.fault:
            raise InfrastructureError("injected", reason=self.fault)

    async def get(self, key: str, limit: int) -> bytes:
        await self._ask(f"get {key}")
        return await super().get(key, limit)

    async def put(self, key: str, data: bytes) -> None:
        await self._ask(f"put {key}")
        await super().put(key, data)

    async def has(self, key: str) -> bool:
        await self._ask(f"has {key}")
        return await super().has(key)


class Events(list[tuple[str, dict[str, str]]]):
    async def __call__(self, name: str, *fields: tuple[str, str]) -> None:
        self.append((name, dict(fields)))


@asynccontextmanager
async def running(*works: Any) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(w) for w in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def breaker_of(events: Events, clock: FakeClock) -> Breaker:
    return Breaker(BreakerConfig(failures=3, open_seconds=10), clock, events)


async def failing(objects: GuardedObjects) -> str:
    with pytest.raises(InfrastructureError) as caught:
        await objects.has("cas/x")
    return caught.value.reason


async def test_after_three_failures_nobody_asks_and_one_event_tells() -> None:
    events, clock, faulty = Events(), FakeClock(), Faulty()
    objects = GuardedObjects(faulty, breaker_of(events, clock))
    faulty.fault = "store-s3"
    assert [await failing(objects) for _ in range(5)] == ["store-s3"] * 3 + ["store-away"] * 2
    assert len(faulty.asked) == 3
    assert events == [("store-degraded", {"reason": "store-s3"})]


@pytest.mark.parametrize("reason", ["store-timeout", "store-denied", "store-config"])
async def test_a_timeout_or_a_refusal_is_enough(reason: str) -> None:
    events, clock, faulty = Events(), FakeClock(), Faulty()
    objects = GuardedObjects(faulty, breaker_of(events, clock))
    faulty.fault = reason
    assert [await failing(objects) for _ in range(2)] == [reason, "store-away"]
    assert events == [("store-degraded", {"reason": reason})]


async def test_one_caller_tries_again_and_the_others_go_by_its_word() -> None:
    events, clock, faulty = Events(), FakeClock(), Faulty()
    objects = GuardedObjects(faulty, breaker_of(events, clock))
    faulty.fault = "store-timeout"
    await failing(objects)
    clock.at += 10
    faulty.hold = asyncio.Event()
    trial = asyncio.ensure_future(objects.has("cas/x"))
    await asyncio.sleep(0)
    assert await failing(objects) == "store-away"
    faulty.fault = ""
    faulty.hold.set()
    assert not await trial
    assert not await objects.has("cas/x")
    assert [name for name, _ in events] == ["store-degraded", "store-recovered"]


async def test_a_trial_that_is_cancelled_leaves_a_later_one() -> None:
    events, clock, faulty = Events(), FakeClock(), Faulty()
    objects = GuardedObjects(faulty, breaker_of(events, clock))
    faulty.fault = "store-timeout"
    await failing(objects)
    clock.at += 10
    faulty.hold, faulty.fault = asyncio.Event(), ""
    trial = asyncio.ensure_future(objects.has("cas/x"))
    await asyncio.sleep(0)
    trial.cancel()
    with suppress(asyncio.CancelledError):
        await trial
    faulty.hold = None
    clock.at += 10
    assert not await objects.has("cas/x")


async def test_a_trial_that_its_neighbours_refusals_cancel_is_followed_at_once() -> None:
    events, clock, faulty = Events(), FakeClock(), Faulty()
    objects = GuardedObjects(faulty, breaker_of(events, clock))
    faulty.fault = "store-timeout"
    await failing(objects)
    clock.at += 10
    faulty.hold, faulty.fault = asyncio.Event(), ""

    async def ask_three() -> None:
        async with asyncio.TaskGroup() as group:
            for name in ("a", "b", "c"):
                group.create_task(objects.has(f"cas/{name}"))

    with pytest.raises(ExceptionGroup):
        await ask_three()
    faulty.hold = None
    assert not await objects.has("cas/x")
    assert [name for name, _ in events] == ["store-degraded", "store-recovered"]


async def test_an_object_that_is_too_large_says_nothing_of_the_store() -> None:
    events = Events()
    objects = GuardedObjects(MemoryObjects(limit_bytes=1), breaker_of(events, FakeClock()))
    for _ in range(5):
        with pytest.raises(InfrastructureError):
            await objects.put("cas/x", b"too large")
    assert not events


async def test_a_store_in_trouble_is_a_miss_and_puts_are_counted() -> None:
    faulty, counters = Faulty(), Counter[str]()
    faulty.fault = "store-s3"
    blobs = DegradingBlobStore(ObjectBlobStore(faulty), counters)
    wanted = [b.digest for b in BLOBS]
    assert await blobs.find_missing([*wanted, EMPTY_DIGEST]) == frozenset(wanted)
    with pytest.raises(NotFoundError):
        await blobs.get(BLOBS[0].digest)
    await blobs.put(BLOBS[0])
    results = DegradingActionCache(ObjectActionCache(faulty, "ac"), counters)
    with pytest.raises(NotFoundError):
        await results.get(ACTION)
    await results.put(ACTION, b"record")
    assert counters == {
        "degraded.find": 1,
        "degraded.get": 1,
        "degraded.result": 1,
        "lost-blob.store-s3": 1,
        "lost-result.store-s3": 1,
    }


async def test_a_store_that_never_answers_costs_the_patience_and_no_more() -> None:
    faulty = Faulty()
    faulty.hold = asyncio.Event()
    blobs = DegradingBlobStore(ObjectBlobStore(faulty), Counter(), patience_seconds=0.01)
    wanted = frozenset(b.digest for b in BLOBS)
    assert await blobs.find_missing(wanted) == wanted


async def test_a_local_disk_in_trouble_is_not_hidden() -> None:
    class Full(MemoryBlobStore):
        async def put(self, blob: Blob) -> None:
            raise InfrastructureError("full", reason="disk-full")

    store = ReadCachingBlobStore(Full(), MemoryBlobStore())
    with pytest.raises(InfrastructureError):
        await store.put(BLOBS[0])


async def test_a_full_disk_does_not_withhold_what_the_shared_store_has() -> None:
    class Full(MemoryBlobStore):
        async def put(self, blob: Blob) -> None:
            raise InfrastructureError("full", reason="disk-full")

    shared = MemoryBlobStore()
    await shared.put(BLOBS[0])
    assert await ReadCachingBlobStore(Full(), shared).get(BLOBS[0].digest) == BLOBS[0]


def publishing(objects: Faulty, local: MemoryBlobStore) -> tuple[Any, Any, Any, Counter[str]]:
    counters = Counter[str]()
    writer = WriteBehindBlobStore(ObjectBlobStore(objects), counters)

    def refers_to(record: bytes) -> Iterable[Digest]:
        if record == b"nonsense":
            raise CallerError("not a record")
        return [b.digest for b in BLOBS]

    publisher = Publisher(writer, local, counters, refers_to)
    cache = PublishingActionCache(ObjectActionCache(objects, "ac"), publisher)
    return writer, publisher, cache, counters


async def test_a_result_is_published_after_every_blob_it_refers_to() -> None:
    objects, local = Faulty(), MemoryBlobStore()
    writer, publisher, cache, counters = publishing(objects, local)
    for blob in BLOBS:
        await local.put(blob)
        if blob is not BLOBS[-1]:  # one was never queued: the result still waits for it
            await writer.put(blob)
    await cache.put(ACTION, b"record")
    async with running(writer.run(), publisher.run()):
        await publisher.wait_idle()
    puts = [key for key in objects.asked if key.startswith("put ")]
    assert len(puts) == len(BLOBS) + 1
    assert puts[-1].startswith("put ac/")
    assert counters["published"] == 1


async def test_a_result_whose_blobs_the_store_does_not_take_is_never_published() -> None:
    objects, local = Faulty(), MemoryBlobStore()
    writer, publisher, cache, counters = publishing(objects, local)
    for blob in BLOBS:
        await local.put(blob)
        await writer.put(blob)
    objects.fault = "store-s3"
    await cache.put(ACTION, b"record")
    async with running(writer.run(), publisher.run()):
        await publisher.wait_idle()
    assert not objects.content
    assert counters["lost-blob.store-s3"] == len(BLOBS)
    assert counters["lost-result.store-s3"] == 1


async def test_a_result_that_refers_to_a_blob_that_is_nowhere_is_never_published() -> None:
    objects = Faulty()
    writer, publisher, cache, counters = publishing(objects, MemoryBlobStore())
    await cache.put(ACTION, b"record")
    await cache.put(ACTION, b"nonsense")
    async with running(writer.run(), publisher.run()):
        await publisher.wait_idle()
    assert not objects.content
    assert counters["lost-result.not-found"] == 1
    assert counters["lost-result.bad-request"] == 1


async def test_what_waits_is_bounded_and_what_is_dropped_is_counted() -> None:
    counters = Counter[str]()
    limits = WriteBehindConfig(max_pending_bytes=10, max_pending_results=1)
    writer = WriteBehindBlobStore(MemoryBlobStore(), counters, limits)
    for blob in BLOBS:
        await writer.put(blob)
    assert counters["lost-blob.queue-full"] == len(BLOBS) - 1
    publisher = Publisher(writer, MemoryBlobStore(), counters, lambda _: (), limits)
    cache = PublishingActionCache(MemoryActionCache(), publisher)
    await cache.put(ACTION, b"one")
    await cache.put(ACTION, b"two")
    assert counters["lost-result.queue-full"] == 1


async def test_a_cancelled_writer_leaves_nothing_counted_as_pending() -> None:
    objects = Faulty()
    objects.hold = asyncio.Event()
    limits = WriteBehindConfig(max_pending_bytes=10)
    writer = WriteBehindBlobStore(ObjectBlobStore(objects), Counter(), limits)
    async with running(writer.run()):
        await writer.put(BLOBS[0])
        while not objects.asked:  # noqa: ASYNC110 - a list that another task fills
            await asyncio.sleep(0)
    objects.hold = None
    async with running(writer.run()):
        await writer.put(BLOBS[1])  # there is room for it
        await writer.settle([BLOBS[1].digest], MemoryBlobStore())
    assert len(objects.content) == 1


async def test_what_was_seen_is_not_asked_for_again_until_it_is_old_or_damaged() -> None:
    objects, clock = Faulty(), FakeClock()
    store = KnownBlobStore(ObjectBlobStore(objects), clock, seconds=300, max_entries=3)
    blob = BLOBS[0]
    await store.put(blob)
    assert not await store.find_missing([blob.digest])
    assert [a for a in objects.asked if a.startswith("has")] == []
    clock.at += 301
    assert not await store.find_missing([blob.digest])
    assert len([a for a in objects.asked if a.startswith("has")]) == 1
    for key in objects.content:
        objects.content[key] = b"damage."
    with pytest.raises(NotFoundError):
        await store.get(blob.digest)
    await store.find_missing([blob.digest])
    assert len([a for a in objects.asked if a.startswith("has")]) == 2
    for other in BLOBS:
        await store.put(other)
    await store.find_missing([BLOBS[1].digest])  # pushed out by the bound: asked again
    assert len([a for a in objects.asked if a.startswith("has")]) == 3


async def test_a_question_about_too_many_blobs_asks_for_some_and_calls_the_rest_missing() -> None:
    objects = Faulty()
    store = ObjectBlobStore(objects, ObjectBlobsConfig(max_probes=2))
    for blob in BLOBS:
        await store.put(blob)
    objects.asked.clear()
    missing = await store.find_missing([b.digest for b in BLOBS])
    assert len(objects.asked) == 2
    assert len(missing) == len(BLOBS) - 2


async def test_damage_is_told_and_absent_until_it_is_put_again() -> None:
    told: list[tuple[str, str]] = []

    async def on_damage(what: str, reason: str) -> None:
        told.append((what, reason))

    objects = MemoryObjects()
    store = ObjectBlobStore(objects, on_damage=on_damage)
    cache = ObjectActionCache(objects, "ac", on_damage=on_damage)
    await store.put(BLOBS[0])
    await cache.put(ACTION, b"record")
    for key in objects.content:
        objects.content[key] += b"more"
    for attempt in (store.get(BLOBS[0].digest), cache.get(ACTION)):
        with pytest.raises(NotFoundError):
            await attempt
    assert told == [("blob", "object-size"), ("result", "digest-mismatch")]
    await store.put(BLOBS[0])
    assert await store.get(BLOBS[0].digest) == BLOBS[0]


async def test_a_result_moved_to_another_action_or_trust_domain_is_a_miss() -> None:
    objects = MemoryObjects()
    await ObjectActionCache(objects, "ac/process_runc/tenant").put(ACTION, b"record")
    ((key, data),) = objects.content.items()
    objects.content[key.replace("process_runc", "qemu_kvm")] = data
    with pytest.raises(NotFoundError):
        await ObjectActionCache(objects, "ac/qemu_kvm/tenant").get(ACTION)
    other = Digest.of(b"other")
    objects.content[f"ac/process_runc/tenant/{other.hash[:2]}/{other}".replace("/6", "-6")] = data
    with pytest.raises(NotFoundError):
        await ObjectActionCache(objects, "ac/process_runc/tenant").get(other)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\2what is this",
        b"\1not a frame",
        b"\1\x28\xb5\x2f\xfd",
        # A frame that announces 1 GiB, one that announces nothing, and one with bytes behind it.
        b"\1\x28\xb5\x2f\xfd\xa0\x00\x00\x00\x40\x01\x00\x00",
        b"\1\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00",
        b"\1\x28\xb5\x2f\xfd\x20\x01\x09\x00\x00x" + b"tail",
    ],
)
async def test_a_compressed_object_that_lies_is_refused(packed: bytes) -> None:
    objects = MemoryObjects()
    objects.content["cas/x"] = packed
    with pytest.raises(IntegrityError):
        await ZstdObjects(objects).get("cas/x", 100)


async def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    objects = MemoryObjects()
    store = ZstdObjects(objects)
    await store.put("cas/x", b"\0" * (64 << 20))
    assert len(objects.content["cas/x"]) < 10_000
    with pytest.raises(IntegrityError) as caught:
        await store.get("cas/x", 20_000)
    assert caught.value.reason == "object-size"


async def test_writers_with_other_levels_read_each_other() -> None:
    objects = MemoryObjects()
    for level, key in ((0, "raw"), (3, "three"), (19, "most")):
        await ZstdObjects(objects, level=level).put(key, b"text " * 1000)
    for key in ("raw", "three", "most"):
        assert await ZstdObjects(objects, level=1).get(key, 5000) == b"text " * 1000


async def test_a_credential_is_forgotten_when_it_has_not_been_used() -> None:
    opened = 0

    async def open_objects() -> Objects:
        nonlocal opened
        opened += 1
        return MemoryObjects()

    held = Held(open_objects, idle_seconds=0.001)
    objects = HeldObjects(held)
    assert not held.is_held
    await objects.has("cas/x")
    while held.is_held:  # noqa: ASYNC110 - a timer of the loop ends it
        await asyncio.sleep(0.001)
    await objects.has("cas/x")
    assert opened == 2
    held.let_go()


@pytest.mark.parametrize(
    "key", ["", "/x", "x/", "../x", "a/../b", "a//b", "A", "a b", "a%2fb", "é"]
)
async def test_a_key_that_a_service_could_read_as_another_is_refused(key: str) -> None:
    objects = PrefixObjects(MemoryObjects(), "acme")
    with pytest.raises(CallerError):
        await objects.get(key, 1)
    with pytest.raises(CallerError):
        await objects.put(key, b"")
