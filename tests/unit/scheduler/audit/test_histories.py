"""A head replaces another only with a proof; late, foreign and missing heads differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.heads import HeadSigner
from hpcc.audit.tree.head import start_leaf
from hpcc.audit.tree.history import HistoryTree
from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import CallerError, NotFoundError
from hpcc.ports import ControlStoreError, SignedTree, TreeMark
from hpcc.scheduler.audit.heads import ChangedHistory, HeldHead
from hpcc.scheduler.audit.histories import (
    CHANGED_SPACE,
    HEAD_SPACE,
    MOST_UNPROVED,
    Histories,
    acknowledge,
    fork_space,
)
from hpcc.scheduler.base.enrolled import WORKER_SPACE
from hpcc.scheduler.drains import MARK_SPACE, SCHEDULERS, Drains, DrainTable, release
from hpcc_testkit.services.idp_tokens import FixedClock

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
GENESIS = "0" * 64


@dataclass
class Events:
    """Collects events in place of a trail."""

    found: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def event(self, name: str, _tenant: str, *fields: tuple[str, str], **_: str) -> None:
        self.found.append((name, dict(fields)))


class Worker:
    """A worker's tree in memory, and what the last answer named."""

    def __init__(self, directory: Path, key: Ed25519PrivateKey = KEY, first: int = 0) -> None:
        self.tree = HistoryTree(directory, HeadSigner("w1", key))
        self.tree.begin(first, GENESIS)
        self.held: TreeMark | None = None
        self._next = 0

    def write(self, count: int = 1, what: int = 0) -> Worker:
        leaves = [start_leaf(self._next + n + what, GENESIS) for n in range(count)]
        self._next += count
        self.tree.append(leaves, GENESIS)
        return self

    def beat(self) -> SignedTree:
        return self.tree.prove(self.held, 1.5)


class Farm:
    """One scheduler's histories over a store, and workers' heartbeats to them."""

    def __init__(self, store: EmbeddedControlStore, clock: FixedClock) -> None:
        self.store, self.clock, self.events = store, clock, Events()
        self.drains = Drains(store, self.events, clock)  # type: ignore[arg-type]  # events are collected
        self.histories = Histories(store, self.events, clock, self.drains)  # type: ignore[arg-type]  # likewise

    async def beat(self, worker: Worker) -> None:
        worker.held = self.histories.note("w1", worker.beat()) or worker.held
        await self.passed()

    async def passed(self) -> None:
        self.clock.time += 11
        await self.histories.look()
        await self.drains.look()

    async def beats(self, worker: Worker, count: int = 2) -> None:
        for _ in range(count):
            await self.beat(worker)

    async def held(self) -> HeldHead:
        entry = await self.store.entry_or_none(HEAD_SPACE, "w1")
        assert entry is not None
        return HeldHead.of("w1", entry.value)

    async def changed(self) -> ChangedHistory | None:
        entry = await self.store.entry_or_none(CHANGED_SPACE, "w1")
        return ChangedHistory.of("w1", entry.value) if entry is not None else None


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def farm(tmp_path: Path, clock: FixedClock) -> Iterator[Farm]:
    with EmbeddedControlStore(tmp_path / "store", clock) as store:
        yield Farm(store, clock)


def worker(tmp_path: Path, name: str, **fields: object) -> Worker:
    (tmp_path / name).mkdir()
    return Worker(tmp_path / name, **fields)  # type: ignore[arg-type]  # as named there


async def test_each_head_replaces_the_one_before(farm: Farm, tmp_path: Path) -> None:
    one = worker(tmp_path, "one")
    for count in range(1, 6):
        await farm.beats(one.write(3))
        assert (await farm.held()).head.count == 3 * count
    assert await farm.changed() is None
    assert farm.events.found == []


async def test_a_shorter_history_drains_the_worker_and_keeps_both_heads(
    farm: Farm, tmp_path: Path
) -> None:
    await farm.beats(worker(tmp_path, "one").write(9))
    await farm.beats(worker(tmp_path, "two").write(4))
    changed = await farm.changed()
    assert changed is not None
    assert changed.new is not None
    assert (changed.held.head.count, changed.new.head.count) == (9, 4)
    assert farm.drains.order_or_none("w1") is not None
    assert farm.drains.held() == {"w1"}
    # A later head does not replace the held one.
    await farm.beats(worker(tmp_path, "three").write(30), 3)
    assert (await farm.held()).head.count == 9
    assert (await farm.changed()) == changed
    found = [e for e in farm.events.found if e[0] == "audit-history-changed"]
    assert [f["what"] for _, f in found] == ["it has 4 records, and had 9"]


@pytest.mark.parametrize("count", [9, 10, 40])
async def test_another_history_of_any_length_is_refused(
    farm: Farm, tmp_path: Path, count: int
) -> None:
    await farm.beats(worker(tmp_path, "one").write(9))
    await farm.beats(worker(tmp_path, "two").write(count, what=1000))
    changed = await farm.changed()
    assert changed is not None
    assert "are not those that it had" in changed.why


async def test_another_key_or_beginning_is_refused(farm: Farm, tmp_path: Path) -> None:
    one = worker(tmp_path, "one").write(9)
    await farm.beats(one)
    await farm.beats(worker(tmp_path, "two", key=OTHER).write(9))
    changed = await farm.changed()
    assert changed is not None
    assert changed.why == "another key signs it"


async def test_a_tree_that_begins_elsewhere_is_refused(farm: Farm, tmp_path: Path) -> None:
    await farm.beats(worker(tmp_path, "one").write(9))
    await farm.beats(worker(tmp_path, "two", first=3).write(20))
    changed = await farm.changed()
    assert changed is not None
    assert changed.why == "its tree begins at record 3, and began at 0"


async def test_a_head_that_is_late_is_no_evidence(farm: Farm, tmp_path: Path) -> None:
    """It names an earlier head, as one does that another scheduler has overtaken."""
    one = worker(tmp_path, "one").write(3)
    await farm.beats(one)
    late = one.beat()
    await farm.beats(one.write(5))
    for _ in range(MOST_UNPROVED - 2):
        farm.histories.note("w1", late)
        await farm.passed()
    assert await farm.changed() is None
    await farm.beats(one.write())
    assert (await farm.held()).head.count == 9


@pytest.mark.parametrize("what", ["late", "none", "unsigned"])
async def test_a_worker_that_sends_no_proof_is_drained(
    farm: Farm, tmp_path: Path, what: str
) -> None:
    one = worker(tmp_path, "one").write(3)
    await farm.beats(one)
    late = one.beat()
    await farm.beats(one.write(5))
    unsigned = SignedTree(worker="w1", checkpoint=late.checkpoint, key=bytes(32))
    said = {"late": late, "none": None, "unsigned": unsigned}[what]
    for _ in range(MOST_UNPROVED + 1):
        farm.histories.note("w1", said)
        await farm.passed()
    changed = await farm.changed()
    assert changed is not None
    assert (changed.new is None) == (what != "late")
    assert changed.why.startswith("it sends no")


async def test_a_head_that_is_not_signed_counts_as_none_also_if_it_names_the_held_one(
    farm: Farm, tmp_path: Path
) -> None:
    """Else a worker whose trail was changed says what keeps it in work."""
    one = worker(tmp_path, "one").write(3)
    await farm.beats(one)
    await farm.beats(one.write(5))
    for _ in range(MOST_UNPROVED + 1):
        mark = (await farm.held()).head.mark
        spoiled = replace(one.beat(), after=mark, checkpoint=b"no checkpoint\n")
        assert farm.histories.note("w1", spoiled) == mark
        await farm.passed()
    changed = await farm.changed()
    assert changed is not None
    assert changed.why == "it sends no signed head of its tree any more"
    assert farm.drains.held() == {"w1"}


async def test_a_worker_that_only_registers_is_drained(farm: Farm, tmp_path: Path) -> None:
    """Each registration is a lease. Without a heartbeat nobody sees its head."""
    await farm.beats(worker(tmp_path, "one").write(3))
    for _ in range(MOST_UNPROVED):
        farm.histories.registered("w1", is_heard_elsewhere=False)
        await farm.passed()
    assert await farm.changed() is None
    farm.histories.registered("w1", is_heard_elsewhere=False)
    await farm.passed()
    changed = await farm.changed()
    assert changed is not None
    assert (changed.why, changed.new) == ("it registers, and sends no heartbeat", None)
    assert farm.drains.held() == {"w1"}


@pytest.mark.parametrize("what", ["beats", "elsewhere", "earlier version"])
async def test_registrations_of_a_worker_that_is_heard_do_not_add_up(
    farm: Farm, tmp_path: Path, what: str
) -> None:
    one = worker(tmp_path, "one").write(3)
    if what != "earlier version":
        await farm.beats(one)
    for number in range(4 * MOST_UNPROVED):
        is_elsewhere = what == "elsewhere" and number % MOST_UNPROVED == 0
        farm.histories.registered("w1", is_heard_elsewhere=is_elsewhere)
        await (farm.beats(one) if what == "beats" else farm.passed())
    assert await farm.changed() is None
    assert farm.drains.held() == frozenset()


async def test_a_head_that_stays_while_anchors_grow_drains_the_worker(
    farm: Farm, tmp_path: Path
) -> None:
    one = worker(tmp_path, "one").write(3)
    await farm.beats(one)
    for number in range(MOST_UNPROVED + 1):
        # A good proof from the held head to itself.
        one.held = farm.histories.note("w1", one.beat(), 10 + number) or one.held
        await farm.passed()
    changed = await farm.changed()
    assert changed is not None
    assert changed.new is not None
    assert (changed.new.head.count, farm.drains.held()) == (3, {"w1"})
    assert changed.why.startswith("its head stays at 3 records, and its anchors have 1")


async def test_a_head_that_is_made_before_its_anchor_is_no_fault(
    farm: Farm, tmp_path: Path
) -> None:
    """Rows are written between the two. The next head has them."""
    one = worker(tmp_path, "one").write(3)
    await farm.beats(one)
    for _ in range(3 * MOST_UNPROVED):
        head = one.beat()
        one.write(2)
        farm.histories.note("w1", head, (await farm.held()).head.count + 2)
        await farm.passed()
        one.held = (await farm.held()).head.mark
    assert await farm.changed() is None


async def test_starts_of_a_worker_that_writes_nothing_do_not_add_up(
    farm: Farm, tmp_path: Path
) -> None:
    one = worker(tmp_path, "one").write(3)
    await farm.beats(one)
    for _ in range(3 * MOST_UNPROVED):
        one.held = None
        farm.histories.hurry("w1")
        await farm.beats(one)
    assert await farm.changed() is None


async def test_an_entry_of_another_form_ends_no_scheduler(farm: Farm) -> None:
    await farm.store.put(CHANGED_SPACE, "w1", b"not JSON")
    await farm.store.put(fork_space("w1"), "1", b"not JSON")
    await farm.passed()
    await farm.passed()
    assert farm.drains.held() == {"w1"}
    await farm.store.delete(CHANGED_SPACE, "w1")
    await farm.passed()
    await farm.passed()
    assert farm.drains.held() == frozenset()


async def test_a_worker_of_an_earlier_version_is_left_alone(farm: Farm) -> None:
    for _ in range(3 * MOST_UNPROVED):
        assert farm.histories.note("w1", None) is None
        await farm.passed()
    assert await farm.changed() is None
    assert farm.drains.held() == frozenset()


async def test_two_schedulers_extend_one_head(
    farm: Farm, tmp_path: Path, clock: FixedClock
) -> None:
    other, one = Farm(farm.store, clock), worker(tmp_path, "one").write(2)
    for number in range(6):
        await (farm, other)[number % 2].beats(one.write(), 3)
        assert (await farm.held()).head.count == number + 3
    assert await farm.changed() is None
    # The other one obeys what this one found.
    await farm.beats(worker(tmp_path, "two").write(1), 3)
    await other.passed()
    assert other.drains.held() == {"w1"}
    assert other.histories.note("w1", one.beat()) is not None


async def test_an_operator_acknowledges_and_both_heads_stay(farm: Farm, tmp_path: Path) -> None:
    await farm.store.put(WORKER_SPACE, "w1", b"{}")
    await farm.beats(worker(tmp_path, "one").write(9))
    two = worker(tmp_path, "two").write(4)
    await farm.beats(two)
    with pytest.raises(CallerError, match="hpcc scheduler audit-history w1"):
        await DrainTable(farm.store, farm.clock).withdraw("w1")
    # A mark that is removed comes back.
    await farm.store.delete(MARK_SPACE, "w1")
    await farm.passed()
    await farm.passed()
    assert farm.drains.held() == {"w1"}
    await acknowledge(farm.store, "w1", by="ops", reason="new disk", now=5.0)
    await release(farm.store, "w1")
    await farm.passed()
    assert farm.drains.order_or_none("w1") is None
    (fork,) = await farm.store.entries(fork_space("w1"))
    table = json.loads(fork.value)
    assert (table["by"], table["reason"]) == ("ops", "new disk")
    assert ChangedHistory.of("w1", fork.value).held.head.count == 9
    await farm.beats(two.write(3), 3)
    assert (await farm.held()).head.count == 7
    assert await farm.changed() is None
    assert farm.events.found[-1][0] != "audit-history-changed"
    assert ("audit-history-acknowledged", {"worker": "w1", "by": "ops", "reason": "new disk"}) in (
        farm.events.found
    )
    with pytest.raises(NotFoundError):
        await acknowledge(farm.store, "w1", by="ops", reason="again", now=6.0)


async def test_the_drain_of_an_operator_is_not_ended_by_it(farm: Farm, tmp_path: Path) -> None:
    await farm.store.put(WORKER_SPACE, "w1", b"{}")
    await DrainTable(farm.store, farm.clock).order("w1", 600, by="ops", reason="kernel")
    await farm.drains.look()
    await farm.beats(worker(tmp_path, "one").write(9))
    await farm.beats(worker(tmp_path, "two").write(4))
    mark = farm.drains.mark_or_none("w1")
    assert mark is not None
    assert mark.by == "ops" != SCHEDULERS
    await acknowledge(farm.store, "w1", by="ops", reason="x", now=5.0)
    await release(farm.store, "w1")
    await farm.passed()
    assert farm.drains.mark_or_none("w1") is not None


async def test_a_store_that_fails_loses_no_verdict(
    farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await farm.beats(worker(tmp_path, "one").write(9))
    two = worker(tmp_path, "two").write(4)
    await farm.beat(two)
    put = farm.store.put

    async def fails(*_: object, **__: object) -> None:
        raise ControlStoreError("away")

    with monkeypatch.context() as patch:
        patch.setattr(farm.store, "put", fails)
        with pytest.raises(ControlStoreError):
            await farm.beat(two)
    assert farm.store.put == put
    await farm.passed()
    assert await farm.changed() is not None
