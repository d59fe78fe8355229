"""Memory for blobs that are on their way in or out: bounded for all callers and for each tenant."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from hpcc.core import TenantId
from hpcc.rpc.base.errors import BusyError, DeadlineError

# Two of the largest blobs for one tenant, and as much again for others.
MAX_TENANT_BYTES: Final = 512 << 20
MAX_TOTAL_BYTES: Final = 1 << 30
# Whoever takes its bytes one by one gives their room back in the end.
HOLD_SECONDS: Final = 300.0
_RETRY_SECONDS: Final = 1.0


class BlobRoom:
    """Counts bytes of blobs in memory. Does no I/O and keeps none of them."""

    def __init__(self) -> None:
        self._held: Counter[TenantId] = Counter()
        self._total = 0

    @asynccontextmanager
    async def hold(self, tenant: TenantId, size_bytes: int) -> AsyncGenerator[None]:
        """Have room for so many bytes while the block runs.

        Raises:
            BusyError: there is none now.
            DeadlineError: the block did not end in time.
        """
        if (
            self._held[tenant] + size_bytes > MAX_TENANT_BYTES
            or self._total + size_bytes > MAX_TOTAL_BYTES
        ):
            raise BusyError(
                "too many blobs are under way",
                retry_after_seconds=_RETRY_SECONDS,
                reason="blobs-under-way",
            )
        self._held[tenant] += size_bytes
        self._total += size_bytes
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                yield
        except TimeoutError as error:
            raise DeadlineError("the transfer took too long") from error
        finally:
            self._total -= size_bytes
            self._held[tenant] -= size_bytes
            if not self._held[tenant]:
                del self._held[tenant]
