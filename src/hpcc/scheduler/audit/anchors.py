"""The ends of workers' audit chains on their way to the control store: checked and written seldom.

Each heartbeat brings one. The latest of each worker waits here; its signature is looked at when it
is written, and that is when the worker's last one is old, or when the worker leaves.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import Final

from hpcc.ports import Anchor, Clock, SignedHead

# What the store's word for a worker that is here may lag behind.
ANCHOR_SECONDS: Final = 10.0
# Signatures that are checked in one go: routes wait meanwhile.
_AT_ONCE: Final = 4
# And in one exchange, which is a second: in a farm of more than ten times as many, later.
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
        """`check` returns the anchor of a head that is signed by its key, None of another.

        `on_cut` is told of workers whose chain is shorter than it was, or changed at its end. Both
        are called in the context of the heartbeat, so that events name its caller.
        """
        self._clock, self._check, self.on_cut = clock, check, on_cut
        self._waiting: dict[str, tuple[SignedHead, Context]] = {}
        self._unwritten: dict[str, Anchor] = {}
        self._written_at: dict[str, float] = {}

    def note(self, head: SignedHead) -> None:
        """Keep what a worker says of its chain, unless that went back since it said so last."""
        waiting = self._waiting.get(head.worker)
        if waiting is not None and (
            head.count < waiting[0].count
            or (head.count == waiting[0].count and head.head != waiting[0].head)
        ):
            self.on_cut(head.worker)
            return
        self._waiting[head.worker] = head, copy_context()

    def hurry(self, worker_id: str) -> None:
        """Write a worker's last word with the next exchange: it has left."""
        self._written_at.pop(worker_id, None)

    async def take_due(self) -> list[Anchor]:
        """Return what is to be written now; what is not signed by its key is left out."""
        now = self._clock.monotonic()
        self._written_at = {
            w: at for w, at in self._written_at.items() if now - at < ANCHOR_SECONDS
        }
        # Those that wait longest are first.
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
        """Take back what could not be written: it comes again, or what is newer."""
        self._unwritten = {a.worker_id: a for a in anchors} | self._unwritten
