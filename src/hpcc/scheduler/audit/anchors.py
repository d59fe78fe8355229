"""Holds the latest audit anchor of each worker until it is checked and written.

Each heartbeat brings one. The signature is checked only when the anchor is written: when the last
written one of this worker is old, or when the worker leaves.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import Final

from hpcc.ports import Anchor, Clock, SignedHead

# How far the store may lag behind a worker that is here.
ANCHOR_SECONDS: Final = 10.0
# Signatures checked without a pause; routes wait meanwhile.
_AT_ONCE: Final = 4
# Signatures per exchange (one second); a farm of more than 640 workers is written later.
MOST: Final = 64


class Anchors:
    """The latest anchor of each worker that is not written yet."""

    def __init__(
        self,
        clock: Clock,
        *,
        check: Callable[[SignedHead], Anchor | None],
        on_cut: Callable[[str], None],
    ) -> None:
        """`check` returns the anchor of a validly signed head, else None.

        `on_cut` receives workers whose chain became shorter or changed at its end. Both are called
        in the context of the heartbeat, so that events name its caller.
        """
        self._clock, self._check, self.on_cut = clock, check, on_cut
        self._waiting: dict[str, tuple[SignedHead, Context]] = {}
        self._unwritten: dict[str, Anchor] = {}
        self._written_at: dict[str, float] = {}

    def note(self, head: SignedHead) -> None:
        """Keep a worker's head, unless its chain went back since the one before."""
        waiting = self._waiting.get(head.worker)
        if waiting is not None and (
            head.count < waiting[0].count
            or (head.count == waiting[0].count and head.head != waiting[0].head)
        ):
            self.on_cut(head.worker)
            return
        self._waiting[head.worker] = head, copy_context()

    def hurry(self, worker_id: str) -> None:
        """Write a worker's last anchor with the next exchange, because the worker has left."""
        self._written_at.pop(worker_id, None)

    async def take_due(self) -> list[Anchor]:
        """Return the anchors to write now, without those whose signature is invalid."""
        now = self._clock.monotonic()
        self._written_at = {
            w: at for w, at in self._written_at.items() if now - at < ANCHOR_SECONDS
        }
        # In the order of arrival: those that wait longest come first.
        due = itertools.islice((w for w in self._waiting if w not in self._written_at), MOST)
        found, self._unwritten = self._unwritten, {}
        for number, worker_id in enumerate(list(due)):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            head, context = self._waiting.pop(worker_id)
            self._written_at[worker_id] = now
            anchor = context.run(self._check, head)
            if anchor is not None:
                found[worker_id] = anchor
        return list(found.values())

    def give_back(self, anchors: Iterable[Anchor]) -> None:
        """Take back anchors that could not be written; a newer one replaces them."""
        self._unwritten = {a.worker_id: a for a in anchors} | self._unwritten
