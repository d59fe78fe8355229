"""Bounds the memory of outputs that guests send, in total and for each tenant, by back-pressure.

The problem: an exec may send 512 MiB, and a worker has dozens of places. Outputs stay in memory
until they are digested and stored.

The rule: an exec takes room for each piece before it reads the next one. Without room it waits. It
then returns no credit, so its warden stops, and after that its guest. Room comes back when outputs
are stored, or the exec has failed.

Example: 40 units of a tenant end at the same time, with objects of 20 MB. Twenty-five of them fill
the tenant's 512 MiB. The others wait with what they have, and go on one by one as objects are
stored.

What must never happen: two execs wait for each other. The exec of a tenant that has held room
longest never waits, so the sum stays below the limit and one exec of each tenant.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from hpcc.core import TenantId
from hpcc.rpc.base.blob_room import MAX_TENANT_BYTES, MAX_TOTAL_BYTES
from hpcc.rpc.base.errors import BusyError

# In all waits of one exec. It is less than what the runner gives a transfer, so that no guest is
# taken for a silent one because of others.
WAIT_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 2.0


class OutputRoom:
    """Counts the bytes of outputs in memory. It does no I/O and stores no output."""

    def __init__(
        self, *, tenant_bytes: int = MAX_TENANT_BYTES, total_bytes: int = MAX_TOTAL_BYTES
    ) -> None:
        self._tenant_bytes, self._total_bytes = tenant_bytes, total_bytes
        self._held: Counter[TenantId] = Counter()
        # Those that hold room, the eldest first.
        self._shares: dict[OutputShare, None] = {}
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def held_bytes(self) -> int:
        """Return the bytes in memory now."""
        return self._held.total()

    @contextmanager
    def share(self, tenant: TenantId) -> Generator[OutputShare]:
        """Yield one exec's share; at the end of the block its room comes back."""
        share = OutputShare(self, tenant)
        try:
            yield share
        finally:
            self._leave(share)

    async def take(self, share: OutputShare, size_bytes: int) -> None:
        """Reserve more for a share; see `OutputShare.take`."""
        if not self._fits(share, size_bytes):
            await self._wait(share, size_bytes)
        self._shares[share] = None
        share.size_bytes += size_bytes
        self._held[share.tenant] += size_bytes

    async def _wait(self, share: OutputShare, size_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(share.wait_seconds):
                while not self._fits(share, size_bytes):
                    change = loop.create_future()
                    self._waiting.append(change)
                    try:
                        await change
                    finally:
                        if change in self._waiting:
                            self._waiting.remove(change)
        except TimeoutError as error:
            raise BusyError(
                "the outputs of other compiles fill the memory for them",
                retry_after_seconds=_RETRY_SECONDS,
                reason="outputs-under-way",
            ) from error
        finally:
            share.wait_seconds = max(share.wait_seconds - (loop.time() - started), 0.0)

    def _fits(self, share: OutputShare, size_bytes: int) -> bool:
        tenant_bytes = self._held[share.tenant] + size_bytes
        if tenant_bytes <= self._tenant_bytes and self.held_bytes + size_bytes <= self._total_bytes:
            return True
        eldest = next((s for s in self._shares if s.tenant == share.tenant), share)
        return eldest is share

    def _leave(self, share: OutputShare) -> None:
        if share not in self._shares:
            return
        del self._shares[share]
        self._held[share.tenant] -= share.size_bytes
        if not self._held[share.tenant]:
            del self._held[share.tenant]
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)


class OutputShare:
    """The room of one exec's outputs."""

    def __init__(self, room: OutputRoom, tenant: TenantId) -> None:
        self._room, self.tenant = room, tenant
        self.size_bytes, self.wait_seconds = 0, WAIT_SECONDS

    async def take(self, size_bytes: int) -> None:
        """Reserve room for a piece of an output; waits while there is none.

        Raises:
            BusyError: there was none for `WAIT_SECONDS` in all.
        """
        await self._room.take(self, size_bytes)
