"""Runs the contract of `ControlStore` on both implementations and the one that measures."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hpcc.control.database import read_database_config
from hpcc.control.embedded import EmbeddedControlStore
from hpcc.control.metered import MeteredControlStore
from hpcc.control.mirror import Mirror
from hpcc.control.postgres import open_postgres
from hpcc.control.schema import migrate
from hpcc.core import CallerError
from hpcc.ports import (
    MAX_FACTS_BYTES,
    MAX_NEWS_CHARS,
    MAX_VALUE_BYTES,
    REREAD,
    Anchor,
    ConflictError,
    ControlStore,
    Divide,
    LeasedShare,
    News,
    Reread,
    SessionAsk,
    ShareKey,
    SystemClock,
    WorkerLease,
)
from hpcc_testkit.services.postgres import PrivatePostgres

pytestmark = pytest.mark.timeout(120)
WAIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def database(postgres: PrivatePostgres) -> str:
    return postgres.make_database("contract")


@pytest.fixture(params=["embedded", "metered", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ControlStore]:
    if request.param != "postgres":
        with EmbeddedControlStore(tmp_path / "control.sqlite", SystemClock()) as embedded:
            metered = MeteredControlStore(embedded, SystemClock(), lambda *_: None)
            yield metered if request.param == "metered" else embedded
        return
    config = read_database_config(request.getfixturevalue("database"))
    await migrate(config)
    connection = await asyncpg.connect(request.getfixturevalue("database"))
    await connection.execute(
        "TRUNCATE hpcc.entry, hpcc.lease, hpcc.anchor, hpcc.session, hpcc.session_floor, hpcc.share"
    )
    await connection.close()
    async with open_postgres(config, SystemClock()) as replica:
        await replica.check()
        yield replica


def lease(worker: str = "w1", **changes: Any) -> WorkerLease:
    values: dict[str, Any] = {
        "worker_id": worker, "generation": 7, "since": 7, "running": 0, "queued": 0,
        "seconds": 60.0, "facts": b"facts",
    }  # fmt: skip
    return WorkerLease(**{**values, **changes})


def ask(principal: str, tenant: str = "acme", most: int = 3, **changes: float) -> SessionAsk:
    values = {"now": 100.0, "expires_at": 200.0, **changes}
    return SessionAsk(tenant=tenant, principal=principal, most=most, **values)


async def until(watch: AsyncGenerator[News | Reread], wanted: News | Reread) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        async for item in watch:
            if item == wanted:
                return


async def test_an_entry_is_kept_counted_and_removed(store: ControlStore) -> None:
    assert await store.entry_or_none("keys", "a") is None
    for version, value in enumerate((b"one", b"", b"\x00\xff"), start=1):
        entry = await store.put("keys", "a", value)
        assert (entry.key, entry.value, entry.version) == ("a", value, version)
        assert await store.entry_or_none("keys", "a") == entry
    await store.put("keys", "B", b"b")
    await store.put("other", "c", b"c")
    assert [e.key for e in await store.entries("keys")] == ["B", "a"]
    assert await store.delete("keys", "a")
    assert not await store.delete("keys", "a")
    assert [e.key for e in await store.entries("keys")] == ["B"]


async def test_of_two_who_read_the_same_version_one_writes(store: ControlStore) -> None:
    first = await store.put("keys", "a", b"1", expect=0)
    with pytest.raises(ConflictError):
        await store.put("keys", "a", b"2", expect=0)
    second = await store.put("keys", "a", b"2", expect=first.version)
    with pytest.raises(ConflictError):
        await store.put("keys", "a", b"3", expect=first.version)
    with pytest.raises(ConflictError):
        await store.put("keys", "absent", b"3", expect=1)
    assert await store.entry_or_none("keys", "a") == second


async def test_of_many_at_once_exactly_one_writes(store: ControlStore) -> None:
    won: list[int] = []

    async def write(number: int) -> None:
        try:
            await store.put("ring", "current", bytes([number]), expect=0)
        except ConflictError:
            return
        won.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(write(number))
    (winner,) = won
    entry = await store.entry_or_none("ring", "current")
    assert entry is not None
    assert entry.value == bytes([winner])


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\x00b", "\ud800"])
async def test_a_name_that_no_store_could_keep_is_refused(store: ControlStore, name: str) -> None:
    for call in (
        store.put(name, "a", b""),
        store.put("a", name, b""),
        store.renew([lease(name)]),
        store.open_session(ask(name)),
        store.tell(name, ""),
    ):
        with pytest.raises(CallerError):
            await call


async def test_values_and_news_are_bounded(store: ControlStore) -> None:
    assert await store.put("keys", "a", bytes(MAX_VALUE_BYTES))
    for call in (
        store.put("keys", "a", bytes(MAX_VALUE_BYTES + 1)),
        store.renew([lease(facts=bytes(MAX_FACTS_BYTES + 1))]),
        store.tell("topic", "x" * (MAX_NEWS_CHARS + 1)),
        store.tell("topic", "\x00"),
        store.tell("topic", "ü"),
    ):
        with pytest.raises(CallerError):
            await call
    await store.tell("topic", '"' * MAX_NEWS_CHARS)


async def test_a_lease_lives_until_its_end_and_its_facts_are_kept(store: ControlStore) -> None:
    assert await store.renew([lease(), lease("w2", seconds=-1.0)]) == frozenset()
    (found,) = await store.leases()
    assert (found.worker_id, found.generation, found.since) == ("w1", 7, 7)
    assert 50 < found.seconds <= 60
    assert found.facts is None
    assert await store.facts(["w1", "w9"]) == {"w1": (7, b"facts")}
    later = lease(running=3, queued=1, seconds=70.0, facts=None)
    assert await store.renew([later]) == frozenset()
    (found,) = await store.leases()
    assert (found.running, found.queued) == (3, 1)
    assert found.seconds > 60
    assert await store.facts(["w1"]) == {"w1": (7, b"facts")}


async def test_leases_that_are_known_are_left_out(store: ControlStore) -> None:
    await store.renew([lease(), lease("w2")])
    known = [("w1", 7, 7), ("w2", 6, 7), ("w3", 1, 1)]
    # Of w2 there is a later life than is known.
    assert [x.worker_id for x in await store.leases(known)] == ["w2"]
    assert len(await store.leases()) == 2


async def test_entries_are_those_of_now(store: ControlStore) -> None:
    await store.put("keys", "a", b"1")
    assert [e.value for e in await store.entries("keys")] == [b"1"]
    await store.put("keys", "a", b"2")
    assert [e.value for e in await store.entries("keys")] == [b"2"]
    await store.delete("keys", "a")
    assert await store.entries("keys") == ()


async def test_a_lease_without_known_facts_asks_for_them(store: ControlStore) -> None:
    assert await store.renew([lease(facts=None)]) == {"w1"}
    assert await store.leases() == ()
    await store.renew([lease()])
    # Registered anew elsewhere, which the one who renews has not heard.
    await store.renew([lease(generation=9, since=9, facts=b"new")])
    assert await store.renew([lease(generation=8, facts=None)]) == frozenset()
    assert await store.facts(["w1"]) == {"w1": (9, b"new")}
    assert await store.renew([lease(generation=10, since=10, facts=None)]) == {"w1"}


async def test_an_older_generation_or_an_earlier_end_never_replaces_a_lease(
    store: ControlStore,
) -> None:
    await store.renew([lease(generation=9)])
    for older in (lease(generation=8, seconds=90.0), lease(generation=9, seconds=30.0)):
        await store.renew([older])
    (found,) = await store.leases()
    assert found.generation == 9
    assert 50 < found.seconds <= 60
    await store.end_lease("w1", 8)
    assert len(await store.leases()) == 1
    await store.end_lease("w1", 9)
    assert await store.leases() == ()


async def test_an_anchor_never_goes_back_and_a_cut_chain_is_named(store: ControlStore) -> None:
    def anchor(count: int, head: str, worker: str = "w1", signature: bytes = b"") -> Anchor:
        return Anchor(worker_id=worker, count=count, head=head, at=1.0, signature=signature)

    assert await store.anchor_or_none("w1") is None
    assert await store.note_anchors([anchor(5, "aa"), anchor(1, "zz", "w2")]) == frozenset()
    assert await store.note_anchors([anchor(5, "aa", signature=b"s")]) == frozenset()
    # The signature of the same end stays, where a later anchor has none.
    assert await store.note_anchors([anchor(5, "aa")]) == frozenset()
    assert await store.anchor_or_none("w1") == anchor(5, "aa", signature=b"s")
    for bad in (anchor(4, "bb"), anchor(5, "bb"), anchor(0, "")):
        assert await store.note_anchors([bad, anchor(2, "yy", "w2")]) == {"w1"}
    assert await store.anchor_or_none("w1") == anchor(5, "aa", signature=b"s")
    assert await store.note_anchors([anchor(6, "cc")]) == frozenset()
    assert await store.anchor_or_none("w1") == anchor(6, "cc")
    assert await store.anchor_or_none("w2") == anchor(2, "yy", "w2")
    signed = Anchor(worker_id="w1", count=7, head="dd", at=2.0, key=b"k", signature=b"s")
    await store.note_anchors([signed])
    assert await store.anchors() == (signed, anchor(2, "yy", "w2"))


async def test_a_full_tenant_ends_the_oldest_of_whoever_has_most(store: ControlStore) -> None:
    first, none = await store.open_session(ask("ann"))
    assert none == ()
    second, _ = await store.open_session(ask("ann"))
    third, _ = await store.open_session(ask("ann"))
    assert first < second < third
    _, (floor,) = await store.open_session(ask("bob"))
    assert (floor.tenant, floor.principal, floor.serial) == ("acme", "ann", first + 1)
    # Nobody has much more than ann now: her flood ends her own.
    for ended in (second, third):
        _, (floor,) = await store.open_session(ask("ann"))
        assert (floor.principal, floor.serial) == ("ann", ended + 1)
    (kept,) = await store.session_floors(100.0)
    assert (kept.serial, kept.until) == (third + 1, 200.0)
    assert await store.session_floors(200.0) == ()


async def test_a_flood_in_one_tenant_ends_no_session_of_another(store: ControlStore) -> None:
    await store.open_session(ask("ann", tenant="globex"))
    for _ in range(5):
        await store.open_session(ask("ann"))
    assert {f.tenant for f in await store.session_floors(0.0)} == {"acme"}


async def test_sessions_that_ended_by_themselves_make_room(store: ControlStore) -> None:
    for _ in range(3):
        await store.open_session(ask("ann"))
    _, floors = await store.open_session(ask("bob", now=200.0, expires_at=300.0))
    assert floors == ()


async def test_a_smaller_quota_ends_as_many_as_are_too_many(store: ControlStore) -> None:
    for _ in range(3):
        await store.open_session(ask("ann"))
    serial, (floor,) = await store.open_session(ask("ann", most=1))
    assert floor.serial <= serial
    _, (floor,) = await store.open_session(ask("bob", most=1))
    assert (floor.principal, floor.serial) == ("ann", serial + 1)


async def test_logins_at_once_never_exceed_the_quota(store: ControlStore) -> None:
    opened: list[int] = []

    async def login(number: int) -> None:
        opened.append((await store.open_session(ask(f"p{number % 3}", most=4)))[0])

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(login(number))
    floors = {f.principal: f.serial for f in await store.session_floors(0.0)}
    assert len(set(opened)) == 12
    assert sum(f > 0 for f in floors.values()) > 0
    # One more by a newcomer ends exactly one of the four that are left.
    _, ended = await store.open_session(ask("newcomer", most=4))
    assert len(ended) == 1


async def test_a_watcher_hears_what_is_told_after_it_was_told_to_read(store: ControlStore) -> None:
    async with aclosing(store.watch()) as watch:
        async with asyncio.timeout(WAIT_SECONDS):
            assert await anext(watch) == REREAD
        # A database may connect only after the watch started; then the watch gets REREAD again.
        await store.put("warm-up", "a", b"")
        news = News("dead", "w1 7", store.origin)

        async def tell() -> None:
            while True:
                await store.tell("dead", "w1 7")
                await asyncio.sleep(0.2)

        teller = asyncio.Task(tell())
        await until(watch, news)
        teller.cancel()


async def test_a_changed_entry_reaches_a_mirror(store: ControlStore) -> None:
    clock, changed = SystemClock(), asyncio.Event()
    mirror = Mirror(store, "keys", clock, changed.set)
    task = asyncio.Task(mirror.run())
    try:
        for change in (store.put("keys", "a", b"1"), store.put("keys", "b", b"2")):
            changed.clear()
            await change
            async with asyncio.timeout(WAIT_SECONDS):
                await changed.wait()
        changed.clear()
        await store.delete("keys", "a")
        async with asyncio.timeout(WAIT_SECONDS):
            await changed.wait()
        assert list(mirror.entries) == ["b"]
    finally:
        task.cancel()


async def test_a_put_that_conflicts_tells_nobody(store: ControlStore) -> None:
    await store.put("keys", "a", b"1")
    async with aclosing(store.watch()) as watch:
        # News of the first put arrives before the news of this put.
        await heard_until(store, watch, "marker")
        with pytest.raises(ConflictError):
            await store.put("keys", "a", b"2", expect=9)
        assert await heard_until(store, watch, "last") <= {"last", "marker"}


async def heard_until(
    store: ControlStore, watch: AsyncGenerator[News | Reread], space: str
) -> set[str]:
    """Put an entry, and again after each reread, until a reader hears of it.

    Returns the spaces of all news that arrived.
    """
    heard: set[str] = set()
    async with asyncio.timeout(WAIT_SECONDS):
        await store.put(space, "a", b"0")
        async for item in watch:
            if isinstance(item, Reread):
                await store.put(space, "a", b"1")
                continue
            heard.add(item.text)
            if item.text == space:
                break
    return heard


async def test_what_is_kept_survives_a_restart(tmp_path: Path) -> None:
    path, clock = tmp_path / "control.sqlite", SystemClock()
    with EmbeddedControlStore(path, clock) as before:
        await before.put("keys", "a", b"1")
        await before.note_anchors([Anchor(worker_id="w", count=3, head="aa", at=1.0)])
        serial, _ = await before.open_session(ask("ann"))
    with EmbeddedControlStore(path, clock) as after:
        assert [e.value for e in await after.entries("keys")] == [b"1"]
        cut = Anchor(worker_id="w", count=2, head="bb", at=2.0)
        assert await after.note_anchors([cut]) == {"w"}
        assert (await after.open_session(ask("ann")))[0] > serial


async def test_anchors_of_an_older_version_are_still_held(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.sqlite"
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE anchor (worker TEXT PRIMARY KEY, count INTEGER"
            " NOT NULL, head TEXT NOT NULL, at REAL NOT NULL) STRICT"
        )
        db.execute("INSERT INTO anchor VALUES ('w', 9, 'aa', 1.0)")
    db.close()
    with EmbeddedControlStore(path, SystemClock()) as store:
        cut = Anchor(worker_id="w", count=8, head="aa", at=2.0)
        assert await store.note_anchors([cut]) == {"w"}


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CallerError):
        EmbeddedControlStore(path, SystemClock())


def places(worker: str, wanted: int, held: int = 0, principal: str = "ann") -> LeasedShare:
    return LeasedShare(
        worker_id=worker, tenant="acme", principal=principal, wanted=wanted, held=held
    )


def up_to(limit: int) -> Divide:
    """Give the first ones what they want, as long as there is some that nobody holds."""

    def divide(shares: Mapping[ShareKey, LeasedShare]) -> Mapping[ShareKey, int]:
        left, found = limit - sum(s.held for s in shares.values()), dict[ShareKey, int]()
        for key, share in shares.items():
            found[key] = min(share.wanted, share.held + max(left, 0))
            left -= max(found[key] - share.held, 0)
        return found

    return divide


async def held(store: ControlStore) -> dict[str, int]:
    """Return what each worker holds, from an ask of another one that wants nothing."""
    shares = await store.lease_shares([places("nobody", 0)], 60.0, up_to(0))
    return {share.worker_id: share.held for share in shares.values()}


async def test_places_that_many_ask_for_at_once_are_granted_once(store: ControlStore) -> None:
    asks = [places(f"w{n}", 3) for n in range(8)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.lease_shares([a], 60.0, up_to(7))) for a in asks]
    assert sum((await held(store)).values()) == 7
    told = [task.result()[ask.key].granted for task, ask in zip(tasks, asks, strict=True)
            if ask.key in task.result()]  # fmt: skip
    assert sorted(told) == [0, 0, 0, 0, 0, 1, 3, 3]


async def test_a_worker_holds_what_it_was_granted_until_it_gives_it_back(
    store: ControlStore,
) -> None:
    await store.lease_shares([places("w1", 5)], 60.0, up_to(5))
    less = lambda shares: dict.fromkeys(shares, 2)  # noqa: E731 - one line of the test
    shares = await store.lease_shares([places("w1", 5, held=5)], 60.0, less)
    (share,) = shares.values()
    assert (share.granted, share.held) == (2, 5)
    shares = await store.lease_shares([places("w1", 5, held=3)], 60.0, less)
    assert next(iter(shares.values())).held == 3
    assert await held(store) == {"w1": 3}
    await store.lease_shares([places("w1", 0, held=0)], 60.0, up_to(5))
    assert await held(store) == {}


async def test_a_share_that_needs_no_lease_is_forgotten(store: ControlStore) -> None:
    await store.lease_shares([places("w1", 5), places("w2", 5)], 60.0, up_to(10))
    shares = await store.lease_shares([places("w1", 5, held=5)], 60.0, lambda _: {})
    assert {s.worker_id for s in shares.values()} == {"w2"}
    assert await held(store) == {"w2": 5}


async def test_a_share_ends_with_its_time(store: ControlStore) -> None:
    await store.lease_shares([places("w1", 5)], 0.3, up_to(5))
    await store.lease_shares([places("w2", 5)], 60.0, up_to(5))
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            if "w1" not in await held(store):
                break
            await asyncio.sleep(0.05)
    # What runs in spite of that counts as soon as the worker says so.
    await store.lease_shares([places("w1", 5, held=4)], 60.0, up_to(5))
    assert (await held(store))["w1"] == 4


async def test_a_database_whose_clock_went_back_keeps_no_share_for_longer(
    postgres: PrivatePostgres,
) -> None:
    url = postgres.make_database("clock_of_shares")
    config = read_database_config(url)
    await migrate(config)
    async with open_postgres(config, SystemClock()) as store:
        await store.lease_shares([places("w1", 5)], 60.0, up_to(5))
        postgres.sql("clock_of_shares", "UPDATE hpcc.share SET expires_at = now() + '1 day'")
        await store.lease_shares([places("w2", 5)], 60.0, up_to(5))
        left = "SELECT max(expires_at) < now() + '91 s' FROM hpcc.share"
        assert postgres.sql("clock_of_shares", left).strip() == "t"


async def test_shares_outlive_the_process_of_an_embedded_store(tmp_path: Path) -> None:
    clock = SystemClock()
    with EmbeddedControlStore(tmp_path / "control.sqlite", clock) as before:
        await before.lease_shares([places("w1", 5)], 60.0, up_to(5))
    with EmbeddedControlStore(tmp_path / "control.sqlite", clock) as after:
        assert await held(after) == {"w1": 5}
