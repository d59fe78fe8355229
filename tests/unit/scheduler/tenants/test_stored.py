"""The tenants table in the control store: replaced as a whole, and read by every scheduler."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.audit.limiter import EventLimiter
from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import CallerError, HpccError, IntegrityError, TenantId
from hpcc.identity.key_ring import KeyRingError, Sealer
from hpcc.ports import ConflictError, ControlStoreError
from hpcc.scheduler.tenants.stored import (
    KEY,
    PART_SPACE,
    PURPOSE,
    SPACE,
    NoTableError,
    StoredTable,
    StoredTenants,
    TableStore,
)
from hpcc_testkit.farm.memory_audit import MemoryAuditLog
from hpcc_testkit.services.idp_tokens import FixedClock

SEALER = Sealer(b"s" * 32)


def text(*names: str, more: str = "") -> bytes:
    tables = [
        f"""
[tenants.{name}]
images = ["sha256:{"ab" * 32}"]
minimum_isolation = "qemu/tcg"
identity = {{issuer = "https://{name}.example", audience = "a", client_ids = ["{name}"]}}
"""
        for name in names
    ]
    return ("".join(tables) + more).encode()


class Scheduler:
    """What one scheduler has of the table."""

    def __init__(self, table: TableStore, clock: FixedClock) -> None:
        self.audit, self.table = MemoryAuditLog(), table
        self.tenants = StoredTenants(clock)
        self._events = EventLimiter(self.audit, clock)

    async def start(self) -> None:
        await self.tenants.load(self.table, self._events)

    @property
    def names(self) -> list[str]:
        return sorted(t.value for t in self.tenants.tenants)

    @property
    def recorded(self) -> list[dict[str, str]]:
        return [dict(e.fields) for e in self.audit.events if e.name == "tenants-in-force"]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def store(tmp_path: Path, clock: FixedClock) -> Iterator[EmbeddedControlStore]:
    with EmbeddedControlStore(tmp_path / "s.sqlite", clock) as store:
        yield store


@pytest.fixture
def table(store: EmbeddedControlStore, clock: FixedClock) -> TableStore:
    return TableStore(store, SEALER, clock)


async def put(table: TableStore, content: bytes, **said: str) -> int:
    try:
        old: StoredTable | None = await table.read()
    except NoTableError:
        old = None
    return await table.replace(content, old, by=said.get("by", ""), reason=said.get("reason", ""))


async def parts(store: EmbeddedControlStore) -> list[str]:
    return [entry.key for entry in await store.entries(PART_SPACE)]


async def test_a_table_is_taken_over_at_the_next_look_and_recorded(
    table: TableStore, clock: FixedClock
) -> None:
    scheduler = Scheduler(table, clock)
    await scheduler.start()
    assert scheduler.names == []
    assert "hpcc tenants apply" in scheduler.tenants.trouble
    assert await put(table, text("acme"), by="olga", reason="first") == 1
    await scheduler.tenants.look()
    assert (scheduler.names, scheduler.tenants.trouble) == (["acme"], "")
    assert await put(table, text("acme", "globex"), by="olga\x1b[2J") == 2
    for _ in range(3):
        await scheduler.tenants.look()
    assert scheduler.names == ["acme", "globex"]
    first, second = scheduler.recorded
    assert (first["version"], first["by"], first["reason"]) == ("1", "olga", "first")
    assert (second["version"], second["by"], second["tenants"]) == ("2", "olga[2J", "2")
    assert (first["added"], second["added"], second["removed"]) == ("acme", "globex", "")
    again = Scheduler(table, clock)
    await again.start()
    assert again.names == ["acme", "globex"]
    assert [said["version"] for said in again.recorded] == ["2"]


async def test_a_large_table_is_in_parts_and_the_old_ones_go(
    store: EmbeddedControlStore, table: TableStore
) -> None:
    large = text("acme", more="# " + "x" * 300_000 + "\n")
    await put(table, large)
    assert len(await parts(store)) == 3
    assert (await table.read()).text == large
    await put(table, text("acme"))
    assert len(await parts(store)) == 1


async def test_of_two_commands_one_is_refused_and_leaves_nothing(
    store: EmbeddedControlStore, table: TableStore
) -> None:
    await put(table, text("acme"))
    old = await table.read()
    await table.replace(text("acme", "globex"), old, by="", reason="")
    with pytest.raises(ConflictError, match="hpcc tenants diff"):
        await table.replace(text("initech"), old, by="", reason="")
    assert (await table.read()).text == text("acme", "globex")
    assert len(await parts(store)) == 1
    with pytest.raises(ConflictError):
        await table.replace(text("initech"), None, by="", reason="")


async def test_a_table_that_cannot_be_used_is_not_written(
    store: EmbeddedControlStore, table: TableStore
) -> None:
    with pytest.raises(CallerError, match="line 4"):
        await put(table, text("acme").replace(b"qemu/tcg", b"qemu"))
    assert await store.entries(SPACE) == ()
    assert await parts(store) == []


async def test_the_old_table_stays_where_the_new_one_cannot_be_used(
    store: EmbeddedControlStore, table: TableStore, clock: FixedClock
) -> None:
    """As where a newer hpcc applied it, or a part was changed in the database."""
    scheduler = Scheduler(table, clock)
    await put(table, text("acme"))
    await scheduler.start()
    await put(table, text("globex"))
    (name,) = await parts(store)
    await store.put(PART_SPACE, name, text("attack"))
    for _ in range(2):
        await scheduler.tenants.look()
    assert scheduler.names == ["acme"]
    assert "damaged" in scheduler.tenants.trouble
    with pytest.raises(IntegrityError):
        await Scheduler(table, clock).start()
    await store.delete(PART_SPACE, name)
    with pytest.raises(ControlStoreError, match="apply it again"):
        await table.read()
    bare = await table.head_only()
    assert bare is not None
    assert await table.replace(text("globex"), bare, by="", reason="") == 3
    await scheduler.tenants.look()
    assert (scheduler.names, scheduler.tenants.trouble) == (["globex"], "")


async def test_a_missing_part_is_looked_for_again(
    store: EmbeddedControlStore, table: TableStore, clock: FixedClock
) -> None:
    scheduler = Scheduler(table, clock)
    await put(table, text("acme"))
    await scheduler.start()
    await put(table, text("globex"))
    (entry,) = await store.entries(PART_SPACE)
    await store.delete(PART_SPACE, entry.key)
    await scheduler.tenants.look()
    assert "a part of table 2" in scheduler.tenants.trouble
    await store.put(PART_SPACE, entry.key, entry.value)
    await scheduler.tenants.look()
    assert (scheduler.names, scheduler.tenants.trouble) == (["globex"], "")


async def test_a_table_that_was_replaced_does_not_come_back(
    store: EmbeddedControlStore, table: TableStore, clock: FixedClock
) -> None:
    """The head is sealed, so a party with the database can only put back an old one, or none."""
    scheduler = Scheduler(table, clock)
    await put(table, text("acme", "globex"))
    old = await store.entry_or_none(SPACE, KEY)
    assert old is not None
    kept = await store.entries(PART_SPACE)
    await scheduler.start()
    clock.time += 10.0
    await put(table, text("acme"))
    await scheduler.tenants.look()
    for entry in kept:
        await store.put(PART_SPACE, entry.key, entry.value)
    await store.put(SPACE, KEY, old.value)
    await scheduler.tenants.look()
    assert scheduler.names == ["acme"]
    assert "older one was put back" in scheduler.tenants.trouble
    await store.delete(SPACE, KEY)
    await scheduler.tenants.look()
    assert scheduler.names == ["acme"]
    assert "gone from the control store" in scheduler.tenants.trouble
    clock.time += 10.0
    assert await put(table, text("initech")) == 1
    await scheduler.tenants.look()
    assert (scheduler.names, scheduler.tenants.trouble) == (["initech"], "")


async def test_numbers_that_began_again_let_no_old_table_in(
    store: EmbeddedControlStore, table: TableStore, clock: FixedClock
) -> None:
    """After the head was removed, each old head has a greater number than the new one."""
    scheduler = Scheduler(table, clock)
    await put(table, text("globex"))
    await put(table, text("acme", "globex"))
    old, kept = await store.entry_or_none(SPACE, KEY), await store.entries(PART_SPACE)
    assert old is not None
    await scheduler.start()
    await store.delete(SPACE, KEY)
    clock.time += 10.0
    assert await put(table, text("acme")) == 1
    await scheduler.tenants.look()
    assert scheduler.names == ["acme"]
    for entry in kept:
        await store.put(PART_SPACE, entry.key, entry.value)
    await store.put(SPACE, KEY, old.value)
    await scheduler.tenants.look()
    assert scheduler.names == ["acme"]
    assert "older one was put back" in scheduler.tenants.trouble


async def test_a_table_is_newer_than_the_one_before_whatever_the_clocks_say(
    table: TableStore, clock: FixedClock
) -> None:
    scheduler = Scheduler(table, clock)
    await put(table, text("acme"))
    await scheduler.start()
    clock.time -= 3600.0
    assert await put(table, text("globex")) == 2
    await scheduler.tenants.look()
    assert (scheduler.names, scheduler.tenants.trouble) == (["globex"], "")


class TwoFaced(TableStore):
    """Of a database that shows the new head first, and then an old one with its text."""

    shown: StoredTable

    async def read(self) -> StoredTable:
        return self.shown


async def test_a_head_that_changes_between_two_readings_is_judged_again(
    store: EmbeddedControlStore, table: TableStore, clock: FixedClock
) -> None:
    two = TwoFaced(store, SEALER, clock)
    await put(table, text("acme", "globex"))
    old = await table.read()
    clock.time += 10.0
    await put(table, text("acme"))
    scheduler = Scheduler(two, clock)
    two.shown = await table.read()
    await scheduler.start()
    clock.time += 10.0
    await put(table, text("acme", "initech"))
    two.shown = old
    await scheduler.tenants.look()
    assert scheduler.names == ["acme"]
    assert "older one was put back" in scheduler.tenants.trouble


@pytest.mark.parametrize(
    "head",
    [
        b"", b"x" * 9000, b"[]", b"{}", b"null", b"[" * 5000,
        b'{"version": 0, "sha256": "", "size": 1, "parts": "p", "at": 1.0}',
        b'{"version": 1, "sha256": "", "size": 0, "parts": "p", "at": 1.0}',
        b'{"version": 1, "sha256": "", "size": 99999999999, "parts": "p", "at": 1.0}',
        b'{"version": 1, "sha256": "", "size": 1, "parts": 7, "at": 1.0}',
        b'{"version": 1, "sha256": "", "size": 1, "parts": "p", "at": NaN}',
        b'{"version": true, "sha256": "", "size": 1, "parts": "p", "at": 1.0}',
    ],
)  # fmt: skip
async def test_a_malformed_head_is_refused(
    store: EmbeddedControlStore, table: TableStore, head: bytes
) -> None:
    await store.put(SPACE, KEY, SEALER.seal(PURPOSE, head))
    with pytest.raises(IntegrityError):
        await table.read()


async def test_who_can_only_write_to_the_database_makes_no_table(
    store: EmbeddedControlStore, table: TableStore, clock: FixedClock
) -> None:
    scheduler = Scheduler(table, clock)
    await put(table, text("acme"))
    await scheduler.start()
    forger = TableStore(store, Sealer(b"f" * 32), clock)
    for value in (
        Sealer(b"f" * 32).seal(PURPOSE, b"{}"),
        SEALER.seal(b"worker CA", json.dumps({"version": 9}).encode()),
        b"{}",
    ):
        await store.put(SPACE, KEY, value)
        await scheduler.tenants.look()
        assert scheduler.names == ["acme"]
        assert "sealed with another key" in scheduler.tenants.trouble
    with pytest.raises(KeyRingError):
        await table.read()
    with pytest.raises(HpccError):
        await put(forger, text("attack"))


async def test_a_store_that_is_away_changes_nothing_and_is_said_once(
    table: TableStore,
    clock: FixedClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler = Scheduler(table, clock)
    await put(table, text("acme"))
    await scheduler.start()

    async def away() -> None:
        raise ControlStoreError("no answer")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(table, "head_or_none", away)
        for _ in range(3):
            await scheduler.tenants.look()
    assert (scheduler.names, scheduler.tenants.trouble) == (["acme"], "")
    assert caplog.text.count("is not updated") == 1


async def test_what_a_killed_command_left_is_removed_after_a_day(
    store: EmbeddedControlStore, table: TableStore, clock: FixedClock
) -> None:
    await put(table, text("acme"))
    await store.put(PART_SPACE, f"{clock.now():.0f}-dead.0", b"left")
    await put(table, text("globex"))
    assert len(await parts(store)) == 2
    clock.time += 90_000.0
    await put(table, text("initech"))
    assert len(await parts(store)) == 1
    assert (await table.read()).text == text("initech")


async def test_it_polls(table: TableStore, clock: FixedClock) -> None:
    scheduler = Scheduler(table, clock)
    await scheduler.start()
    await put(table, text("acme"))
    watching = asyncio.ensure_future(scheduler.tenants.watch())
    while not scheduler.names:  # noqa: ASYNC110 - the clock is the test's
        await asyncio.sleep(0)
    watching.cancel()
    assert TenantId("acme") in scheduler.tenants.tenants
