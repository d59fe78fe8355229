"""Keeps where workers' audit chains ended: the newest anchor of each, older ones as checkpoints.

`Sharing` writes the newest anchors with the leases. This module keeps the keys that signed, and the
checkpoints, which are only ever added: one a day or per 65,536 records, and one after each start.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.heads import check_head, head_of_text, head_text
from hpcc.audit.limiter import EventLimiter
from hpcc.core import HpccError
from hpcc.ports import Anchor, Clock, ConflictError, ControlStore, ControlStoreError, SignedHead
from hpcc.rpc.base.method import current_caller

_log: Final = logging.getLogger(__name__)
KEYS_SPACE: Final = "audit-keys"
CHECKPOINT_SECONDS: Final = 86_400.0
CHECKPOINT_RECORDS: Final = 65_536
# Per worker: a worker that changes its key with each heartbeat must not fill the database.
MAX_KEYS: Final = 16
_KEY_BYTES: Final = 32
# Unwritten items: one per worker, and more events than that are an attack.
_MAX_WAITING: Final = 20_000
_WRITE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Mark:
    count: int
    at: float


def checkpoint_space(worker: str) -> str:
    """Return the control store's space of a worker's checkpoints."""
    return f"audit-anchors/{worker}"


class AuditBook:
    """Checks the signed heads of heartbeats and records what is wrong as security events."""

    def __init__(self, store: ControlStore, events: EventLimiter, clock: Clock) -> None:
        self._store, self._events, self._clock = store, events, clock
        self._waiting: OrderedDict[str, SignedHead] = OrderedDict()
        self._news: list[tuple[str, str, str, str, str]] = []
        self._marks: dict[str, _Mark] = {}
        self._keys: dict[str, frozenset[bytes]] = {}

    def check(self, head: SignedHead) -> Anchor | None:
        """Return the anchor of a head for the store; None if its signature is invalid."""
        try:
            check_head(head)
        except AuditDamagedError as error:
            self._found("audit-anchor-refused", head.worker, str(error))
            return None
        if self._is_due(head) and len(self._waiting) < _MAX_WAITING:
            self._waiting[head.worker] = head
        return Anchor(
            worker_id=head.worker,
            count=head.count,
            head=head.head,
            at=head.at,
            key=head.key,
            signature=head.signature,
        )

    def cut(self, worker: str) -> None:
        """Record that a worker's chain is shorter than it was, or has another end."""
        self._found("audit-chain-cut", worker, "shorter than it was, or changed at its end")

    def _is_due(self, head: SignedHead) -> bool:
        mark = self._marks.get(head.worker)
        return (
            mark is None
            or head.key not in self._keys.get(head.worker, frozenset())
            or head.count - mark.count >= CHECKPOINT_RECORDS
            or self._clock.monotonic() - mark.at >= CHECKPOINT_SECONDS
        )

    def _found(self, name: str, worker: str, what: str) -> None:
        _log.error("%s: worker %s: %s", name, worker, what)
        if len(self._news) < _MAX_WAITING:
            self._news.append((name, worker, what, *current_caller()))

    async def run(self) -> None:
        """Write pending items until cancelled; after a failure they are tried again."""
        while True:
            await self.write()
            await self._clock.sleep(_WRITE_SECONDS)

    async def write(self) -> None:
        """Write pending events and checkpoints."""
        news, self._news = self._news, []
        for name, worker, what, peer, request_id in news:
            await self._event(name, ("worker", worker), ("what", what), peer=peer, call=request_id)
        for worker in list(self._waiting):
            head = self._waiting.pop(worker)
            try:
                await self._keep(head)
            except ControlStoreError as error:
                self._waiting.setdefault(worker, head)
                _log.warning("audit checkpoints wait: %s", error)
                return
            except HpccError as error:
                _log.error("audit checkpoint of worker %s: %s", worker, error)

    async def _event(
        self, name: str, *fields: tuple[str, str], peer: str = "", call: str = ""
    ) -> None:
        await self._events.event(name, "", *fields, peer=peer, request_id=call)

    async def _keep(self, head: SignedHead) -> None:
        await self._keep_key(head)
        name = f"{hashlib.sha256(head.key).hexdigest()[:32]} {head.count:020d}"
        space = checkpoint_space(head.worker)
        try:
            # Never replaced: an anchor stays once it is written.
            await self._store.put(space, name, head_text(head), expect=0)
        except ConflictError:
            kept = await self._store.entry_or_none(space, name)
            if kept is not None and head_of_text(kept.value).head != head.head:
                self.cut(head.worker)
        self._marks[head.worker] = _Mark(head.count, self._clock.monotonic())

    async def _keep_key(self, head: SignedHead) -> None:
        entry = await self._store.entry_or_none(KEYS_SPACE, head.worker)
        known = _split(entry.value) if entry is not None else ()
        if head.key not in known:
            if known:
                fields = (("worker", head.worker), ("key", head.key.hex()))
                await self._event("audit-key-changed", *fields)
            if len(known) < MAX_KEYS:
                known = (*known, head.key)
                version = entry.version if entry is not None else 0
                await self._store.put(KEYS_SPACE, head.worker, b"".join(known), expect=version)
        # A key beyond the limit is kept only here: recorded once, not at each heartbeat.
        self._keys[head.worker] = frozenset({*known, head.key})


def _split(value: bytes) -> tuple[bytes, ...]:
    return tuple(value[i : i + _KEY_BYTES] for i in range(0, len(value), _KEY_BYTES))


async def kept_anchors(store: ControlStore, worker: str) -> list[bytes]:
    """Return one worker's anchors as encoded heads, unchecked, the newest last.

    Raises:
        ControlStoreError: the store does not answer.
    """
    lines = [entry.value for entry in await store.entries(checkpoint_space(worker))]
    anchor = await store.anchor_or_none(worker)
    if anchor is not None and anchor.signature:
        lines.append(head_text(_signed(anchor)))
    return lines


async def export_anchors(store: ControlStore, worker: str = "") -> list[SignedHead]:
    """Return the anchors of one worker or of all: checkpoints, then the newest. Checked.

    Raises:
        AuditDamagedError: the store holds something else.
        ControlStoreError: the store does not answer.
    """
    workers = [worker] if worker else [e.key for e in await store.entries(KEYS_SPACE)]
    found: list[SignedHead] = []
    for name in workers:
        heads = [head_of_text(e.value) for e in await store.entries(checkpoint_space(name))]
        anchor = await store.anchor_or_none(name)
        if anchor is not None and anchor.signature:
            heads.append(_signed(anchor))
        for head in heads:
            check_head(head)
        found += sorted(dict.fromkeys(heads), key=lambda h: (h.count, h.at))
    return found


def _signed(anchor: Anchor) -> SignedHead:
    return SignedHead(
        worker=anchor.worker_id, count=anchor.count, head=anchor.head, at=anchor.at,
        key=anchor.key, signature=anchor.signature,
    )  # fmt: skip
