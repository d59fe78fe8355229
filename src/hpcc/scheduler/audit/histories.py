"""Holds the newest head of each worker's tree, and checks that each later one contains it.

Problem: an anchor says where a chain ended, not that a later one contains it. So a worker whose
trail was cut or changed can go on until it has more records than before, and only the anchors that
were stored meanwhile contradict it.

Rule: the control store holds one head of each worker. The answer to a heartbeat names it. The next
heartbeat brings a new head with a proof that it contains the named one (RFC 9162). If the proof is
good, the new head replaces the held one in one compare-and-set. If it is not, the worker is drained
until an operator has looked, and both heads are kept: both are signed by the worker.

Judged are only proofs that begin at the head in the store. So a heartbeat that is late, or that
another scheduler has overtaken, proves nothing. A worker that never answers with such a proof is
drained as well, after some heartbeats. So is one that registers again and again and sends no
heartbeat, and one whose head stays behind the anchors that it sent before. A worker of an earlier
version sends no head. The store has nothing of it then, and its anchors are checked as before.

Example: somebody cuts the last ten rows of a worker, and it writes twenty others. Its tree is
larger then. But no proof leads from the root that the store has to the new one.

What must never happen: a head replaces another without a proof, or a worker whose head was refused
gets work before an operator acknowledged it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from hpcc.audit.base.canonical import AuditDamagedError, canonical
from hpcc.audit.limiter import EventLimiter
from hpcc.audit.tree.head import read_tree_head, what_changed
from hpcc.control.mirror import Mirror
from hpcc.core import HpccError, NotFoundError
from hpcc.core.memo import BoundedMemo
from hpcc.ports import (
    Clock,
    ConflictError,
    ControlStore,
    ControlStoreError,
    Entry,
    SignedTree,
    TreeMark,
)
from hpcc.scheduler.audit.heads import ChangedHistory, HeldHead, table_or_empty

_log: Final = logging.getLogger(__name__)
HEAD_SPACE: Final = "audit-trees"
CHANGED_SPACE: Final = "audit-trees-changed"
# How far the store may lag behind a worker that is here.
HEAD_SECONDS: Final = 10.0
# Heads that are checked in a second; a farm of more than 640 workers is written later.
MOST: Final = 64
_PASS_SECONDS: Final = 1.0
# A worker has the held head after one answer. More cost an attacker nothing, and an honest worker
# may meet another scheduler on the way. As many times it may register without a heartbeat.
MOST_UNPROVED: Final = 8
_MAX_WORKERS: Final = 20_000


def fork_space(worker: str) -> str:
    """Return the space of what operators acknowledged of a worker."""
    return f"audit-forks/{worker}"


class HistoryDrains(Protocol):
    """The drains of workers whose history was changed."""

    def held(self) -> frozenset[str]:
        """Return the workers that are drained because of their history, as far as is known."""
        ...

    async def hold(self, worker_id: str, why: str) -> None:
        """Drain a worker, unless it is drained already."""
        ...

    async def release(self, worker_id: str) -> None:
        """End such a drain."""
        ...


@dataclass(slots=True)
class _Known:
    """What this scheduler last read of a worker's head, and the heartbeats that did not name it."""

    mark: TreeMark
    unproved: int = 0


@dataclass(frozen=True, slots=True)
class _Said:
    """What a heartbeat brought. Its head must be of `least` records: the anchor before had them.

    `is_silent`: there was no heartbeat, but registrations.
    """

    tree: SignedTree | None
    least: int = 0
    is_silent: bool = False


class Histories:
    """Checks the heads of the workers that speak to this scheduler."""

    def __init__(
        self, store: ControlStore, events: EventLimiter, clock: Clock, drains: HistoryDrains
    ) -> None:
        self._store, self._events, self._clock = store, events, clock
        self._drains = drains
        self._waiting: dict[str, _Said] = {}
        self._anchored: BoundedMemo[str, int] = BoundedMemo(_MAX_WORKERS)
        # How often workers have registered since their last heartbeat here.
        self._registered: BoundedMemo[str, int] = BoundedMemo(_MAX_WORKERS)
        self._written_at: dict[str, float] = {}
        self._known: BoundedMemo[str, _Known] = BoundedMemo(_MAX_WORKERS)
        self._changed = Mirror(store, CHANGED_SPACE, clock)

    def note(
        self, worker: str, tree: SignedTree | None, anchored: int | None = None
    ) -> TreeMark | None:
        """Keep what a heartbeat brought, to be checked soon; return the head to be named.

        `anchored` is the number of records of its anchor.
        """
        known = self._known.get(worker)
        if known is not None and (tree is None or tree.after != known.mark):
            known.unproved += 1
        self._registered.pop(worker, None)
        # Of the heartbeat before: the worker makes the anchor and the head of one after the other.
        least = self._anchored.get(worker, 0)
        if anchored is not None:
            self._anchored[worker] = anchored
        self._wait(worker, _Said(tree, least))
        return known.mark if known is not None else None

    def registered(self, worker: str, *, is_heard_elsewhere: bool) -> None:
        """Count a registration. A worker gets work by it, and must let its head be judged as well.

        One whose heartbeats reach another scheduler is judged there.
        """
        if is_heard_elsewhere:
            self._registered.pop(worker, None)
            return
        count = self._registered[worker] = self._registered.get(worker, 0) + 1
        if count > MOST_UNPROVED:
            self._wait(worker, _Said(None, is_silent=True))

    def _wait(self, worker: str, said: _Said) -> None:
        if len(self._waiting) < _MAX_WORKERS or worker in self._waiting:
            self._waiting[worker] = said

    def hurry(self, worker: str) -> None:
        """Check a worker's last head with the next pass, because the worker has left."""
        self._written_at.pop(worker, None)

    async def run(self) -> None:
        """Check heads until cancelled; after a failure they are checked again."""
        while True:
            try:
                await self.look()
            except ControlStoreError as error:
                _log.warning("heads of workers' trails wait: %s", error)
            await self._clock.sleep(_PASS_SECONDS)

    async def look(self) -> None:
        """Check what is due, and keep drained those whose history was changed.

        Raises:
            ControlStoreError: the store does not answer.
        """
        await self._keep_drained()
        now = self._clock.monotonic()
        recent = {w: at for w, at in self._written_at.items() if now - at < HEAD_SECONDS}
        self._written_at = recent
        due = list(islice((w for w in self._waiting if w not in recent), MOST))
        for worker in due:
            said = self._waiting.pop(worker)
            if worker in self._changed.entries:
                continue
            try:
                is_done = await self._judge(worker, said)
            except ControlStoreError:
                self._waiting.setdefault(worker, said)
                raise
            except HpccError as error:
                _log.error("the head of worker %s: %s", worker, error)
            else:
                if is_done:
                    self._written_at[worker] = now

    async def _keep_drained(self) -> None:
        # In this order: a history is noted as changed before its worker is drained.
        drained, before = self._drains.held(), self._changed.entries
        await self._changed.read()
        changed = self._changed.entries
        for worker in changed.keys() - drained:
            await self._drains.hold(worker, _why(changed[worker]))
        for worker in drained - changed.keys():
            await self._drains.release(worker)
        for worker in before.keys() - changed.keys():
            for memo in (self._known, self._anchored, self._registered):
                memo.pop(worker, None)
            _log.warning("the changed history of worker %s is acknowledged", worker)
            fields = await self._words(worker)
            await self._events.event("audit-history-acknowledged", "", *fields)

    async def _words(self, worker: str) -> list[tuple[str, str]]:
        forks = await self._store.entries(fork_space(worker))
        table = table_or_empty(forks[-1].value) if forks else {}
        said = [(n, str(table.get(n, ""))) for n in ("by", "reason")]
        return [("worker", worker), *said]

    async def _judge(self, worker: str, said: _Said) -> bool:
        """Check one worker's head; return whether it is the held one now.

        Raises:
            ControlStoreError: the store does not answer.
            AuditDamagedError: the store holds something else.
        """
        tree = said.tree
        entry = await self._store.entry_or_none(HEAD_SPACE, worker)
        if entry is None:
            self._known.pop(worker, None)
            return tree is not None and await self._first(worker, tree)
        held = HeldHead.of(worker, entry.value)
        known = self._known.get(worker)
        if known is None or known.mark != held.head.mark:
            known = self._known[worker] = _Known(held.head.mark)
        new = _new_or_none(worker, tree)
        if tree is None or new is None or tree.after != held.head.mark:
            if tree is not None and new is None and tree.after == held.head.mark:
                known.unproved += 1  # `note` does not see that the head is not signed
            if said.is_silent:
                await self._found(worker, "it registers, and sends no heartbeat", held, None, None)
            elif known.unproved >= MOST_UNPROVED:
                what = "no signed head of its tree any more" if new is None else "no proof"
                await self._found(worker, f"it sends {what}", held, new, tree)
            return False
        why = "another key signs it" if new.key != held.key else ""
        why = why or what_changed(held.head, new.head, tree)
        if why:
            await self._found(worker, why, held, new, tree)
            return False
        if new.head.count < said.least:
            return await self._behind(worker, known, held, new, said)
        if new.head.mark == held.head.mark:
            # Each start of a worker that writes nothing begins with a heartbeat without a proof.
            known.unproved = 0
            return True
        return await self._replace(worker, new, entry.version)

    async def _behind(
        self, worker: str, known: _Known, held: HeldHead, new: HeldHead, said: _Said
    ) -> bool:
        """Count a good head that lacks records which the worker has anchored before.

        A worker could send the held one without end, and go on with a trail that nobody compares.
        """
        known.unproved += 1
        if known.unproved < MOST_UNPROVED:
            return False
        why = f"its head stays at {new.head.count} records, and its anchors have {said.least}"
        await self._found(worker, why, held, new, said.tree)
        return False

    async def _first(self, worker: str, tree: SignedTree) -> bool:
        new = _new_or_none(worker, tree)
        return new is not None and await self._replace(worker, new, 0)

    async def _replace(self, worker: str, new: HeldHead, version: int) -> bool:
        try:
            await self._store.put(HEAD_SPACE, worker, canonical(new.table()), expect=version)
        except ConflictError:
            return False  # another scheduler was faster: the next proof begins at its head
        self._known[worker] = _Known(new.head.mark)
        return True

    async def _found(
        self, worker: str, why: str, held: HeldHead, new: HeldHead | None, tree: SignedTree | None
    ) -> None:
        proof = tuple(h.hex() for h in tree.proof) if tree is not None else ()
        changed = ChangedHistory(worker, self._clock.now(), why, held, new, proof)
        try:
            await self._store.put(CHANGED_SPACE, worker, canonical(changed.table()), expect=0)
        except ConflictError:
            return  # another scheduler found it
        await self._drains.hold(worker, why)
        _log.error("%s: worker %s: %s", "audit-history-changed", worker, why)
        fields = [("worker", worker), ("what", why), ("held", str(held.head.count))]
        if new is not None:
            fields.append(("new", str(new.head.count)))
        await self._events.event("audit-history-changed", "", *fields)


def _new_or_none(worker: str, tree: SignedTree | None) -> HeldHead | None:
    """Return the head of a heartbeat; None if its signature or form is wrong."""
    if tree is None:
        return None
    try:
        head = read_tree_head(worker, tree.checkpoint, tree.key)
    except AuditDamagedError:
        return None
    return HeldHead(head, tree.checkpoint, tree.key)


def _why(entry: Entry) -> str:
    return str(table_or_empty(entry.value).get("why", ""))


async def held_heads(store: ControlStore) -> list[HeldHead]:
    """Return the heads of all workers.

    Raises:
        AuditDamagedError: the store holds something else.
        ControlStoreError: the store does not answer.
    """
    return [HeldHead.of(e.key, e.value) for e in await store.entries(HEAD_SPACE)]


async def changed_histories(store: ControlStore) -> list[ChangedHistory]:
    """Return the histories that wait for an operator. Raises as `held_heads`."""
    return [ChangedHistory.of(e.key, e.value) for e in await store.entries(CHANGED_SPACE)]


async def forks_of(store: ControlStore, worker: str) -> Iterable[bytes]:
    """Return what operators acknowledged of a worker, as it was kept."""
    return [entry.value for entry in await store.entries(fork_space(worker))]


async def acknowledge(
    store: ControlStore, worker: str, *, by: str, reason: str, now: float
) -> ChangedHistory:
    """Keep both heads without limit, and hold the new one from now on.

    Raises:
        NotFoundError: the worker's history is not changed.
        AuditDamagedError: the store holds something else.
        ControlStoreError: the store does not answer.
    """
    entry = await store.entry_or_none(CHANGED_SPACE, worker)
    if entry is None:
        raise NotFoundError(f"the history of worker {worker} is not changed, or acknowledged")
    changed = ChangedHistory.of(worker, entry.value)
    table = {**changed.table(), "by": by, "reason": reason, "acknowledged_at": now}
    await store.put(fork_space(worker), f"{changed.at:020.6f}", canonical(table))
    if changed.new is not None:
        await store.put(HEAD_SPACE, worker, canonical(changed.new.table()))
    else:
        await store.delete(HEAD_SPACE, worker)
    await store.delete(CHANGED_SPACE, worker)
    return changed
