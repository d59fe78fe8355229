"""Retains the inputs of compiles for some days, so that `hpcc audit reproduce` can run them again.

Each tenant's retained inputs are in a separate directory beside its CAS, with a separate size
limit: however fast the cache turns over, it evicts nothing here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.core import EMPTY_DIGEST, Blob, Digest, InputPart, IntegrityError, NotFoundError, TenantId
from hpcc.ports import BlobStore, Clock
from hpcc.reapi.action import ActionSpec
from hpcc.store.disk_blobs import DiskBlobStore, DiskBlobStoreConfig, blob_path
from hpcc.worker.base.config import WorkerConfig

_DIRECTORY: Final = "retained"
SOURCES_DIRECTORY: Final = "sources"
_DAY_SECONDS: Final = 86_400.0
# A blob's time is renewed after this part of the time, not by each compile that reads it.
_RENEW_PART: Final = 16
_MAX_REMEMBERED: Final = 200_000


def cas_directory(store: Path, tenant: TenantId) -> Path:
    """Return the directory of a tenant's CAS."""
    return store / tenant.value / "cas"


def retained_directory(store: Path, tenant: TenantId) -> Path:
    """Return the directory of a tenant's retained inputs."""
    return store / tenant.value / _DIRECTORY


def sources_directory(store: Path, tenant: TenantId) -> Path:
    """Return the directory of the input trees that a tenant's rows lead to."""
    return store / tenant.value / SOURCES_DIRECTORY


class RetainedInputs:
    """Retains the Action, Command, directories and files of compiles."""

    def __init__(
        self, directory: Path, *, max_bytes: int, keep_seconds: float, clock: Clock
    ) -> None:
        self._directory, self._max_bytes = directory, max_bytes
        self._keep_seconds, self._clock = keep_seconds, clock
        self._stores: dict[TenantId, DiskBlobStore] = {}
        self._lock = asyncio.Lock()
        # When this process last renewed a blob's time.
        self._renewed: dict[tuple[TenantId, str], float] = {}
        # By directory: the earliest of these times of the directory and its files.
        self._complete: dict[tuple[TenantId, str], float] = {}

    async def keep(
        self,
        tenant: TenantId,
        source: BlobStore,
        digest: Digest,
        action: ActionSpec,
        inputs: Iterable[InputPart],
    ) -> None:
        """Retain all blobs of an action; their retention time starts now.

        `inputs` are the directories of its input tree, with their files.

        Raises:
            NotFoundError: `source` has lost one of them.
            InfrastructureError: a blob cannot be written.
        """
        store = await self._store(tenant)
        due = self._clock.monotonic() - self._keep_seconds / _RENEW_PART
        parts = [p for p in inputs if self._complete.get((tenant, p.directory.hash), due) <= due]
        wanted = {digest, action.command}.union(*(p.digests for p in parts)) - {EMPTY_DIGEST}
        stale = [d for d in wanted if self._renewed.get((tenant, d.hash), due) <= due]
        missing = await store.find_missing(stale)
        cas = cas_directory(self._directory, tenant)
        for blob in missing:
            # A second name for the file of the CAS: it stays when the CAS evicts its own name.
            if not await store.link(os.fspath(blob_path(cas, blob.hash)), blob):
                await store.put(await source.get(blob))
        old = [d for d in stale if d not in missing]
        if old:
            await asyncio.to_thread(self._renew, tenant, old)
        self._remember(tenant, stale, parts)

    async def _store(self, tenant: TenantId) -> DiskBlobStore:
        async with self._lock:
            store = self._stores.get(tenant)
            if store is None:
                config = DiskBlobStoreConfig(
                    directory=retained_directory(self._directory, tenant),
                    max_size_bytes=self._max_bytes,
                )
                store = self._stores[tenant] = await asyncio.to_thread(DiskBlobStore, config)
        return store

    def _renew(self, tenant: TenantId, digests: Iterable[Digest]) -> None:
        directory, now = retained_directory(self._directory, tenant), self._clock.now()
        for digest in digests:
            with suppress(OSError):
                os.utime(blob_path(directory, digest.hash), (now, now))

    def _remember(
        self, tenant: TenantId, digests: Iterable[Digest], parts: Iterable[InputPart]
    ) -> None:
        if len(self._renewed) > _MAX_REMEMBERED:
            self._renewed.clear()
            self._complete.clear()
        now = self._clock.monotonic()
        self._renewed.update({(tenant, d.hash): now for d in digests})
        for part in parts:
            times = (self._renewed.get((tenant, d.hash), now) for d in part.digests)
            self._complete[tenant, part.directory.hash] = min(times)

    def remove_expired(self) -> int:
        """Remove the expired blobs of all tenants; return how many."""
        old, removed = self._clock.now() - self._keep_seconds, 0
        for file in self._directory.glob(f"*/{_DIRECTORY}/??/*"):
            with suppress(OSError):
                if file.stat().st_mtime < old:
                    file.unlink()
                    removed += 1
        return removed


def retained_inputs_or_none(config: WorkerConfig, clock: Clock) -> RetainedInputs | None:
    """Return the store that a worker's configuration asks for; None if it retains nothing."""
    if not config.retain_days:
        return None
    return RetainedInputs(
        config.store,
        max_bytes=config.retain_bytes,
        keep_seconds=config.retain_days * _DAY_SECONDS,
        clock=clock,
    )


class RetainedReader:
    """Reads one tenant's retained inputs, input trees and CAS, while a worker may be running.

    It writes, renews and removes nothing. Blobs are checked against their digests.
    """

    def __init__(self, store: Path, tenant: TenantId) -> None:
        self._directories = tuple(
            place(store, tenant) for place in (retained_directory, sources_directory, cas_directory)
        )

    async def read(self, digest: Digest) -> bytes:
        return (await self.get(digest)).data

    async def get(self, digest: Digest) -> Blob:
        """Return a blob.

        Raises:
            NotFoundError: it is not retained, or is damaged.
        """
        blob = await asyncio.to_thread(self.get_or_none, digest)
        if blob is None:
            raise NotFoundError(f"blob {digest} is not kept any more", reason="expired")
        return blob

    def get_or_none(self, digest: Digest) -> Blob | None:
        """Return a blob, read in this thread; None if it is not retained, or is damaged."""
        if digest == EMPTY_DIGEST:
            return Blob.of(b"")
        for directory in self._directories:
            path = blob_path(directory, digest.hash)
            with suppress(OSError, IntegrityError), path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != digest.size_bytes:
                    continue  # a digest may claim any size, and a read would take the memory
                return Blob.checked(digest, file.read(digest.size_bytes + 1))
        return None
