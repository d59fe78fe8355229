"""Bounds the memory of blobs in transfer, in or out, in total and for each tenant."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from hpcc.core import TenantId
from hpcc.rpc.base.errors import BusyError, DeadlineError

# Room for two of the largest blobs of one tenant, and the same again for the other tenants.
MAX_TENANT_BYTES: Final = 512 << 20
MAX_TOTAL_BYTES: Final = 1 << 30
# A client that reads one byte at a time must return its room at some point.
HOLD_SECONDS: Final = 300.0
_RETRY_SECONDS: Final = 1.0


class BlobRoom:
    """Counts the bytes of blobs in memory. It does no I/O and stores no blob."""

    def __init__(self) -> None:
        self._held: Counter[TenantId] = Counter()
        self._total = 0

    @asynccontextmanager
    async def hold(self, tenant: TenantId, size_bytes: int) -> AsyncGenerator[None]:
        """Reserve `size_bytes` for a tenant while the block runs.

        Raises:
            BusyError: the limit of the tenant or of all tenants is reached.
            DeadlineError: the block ran longer than `HOLD_SECONDS`.
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
