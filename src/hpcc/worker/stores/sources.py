"""Keeps the list of the files of each compile as long as the trail has its row.

Problem: a row has one digest for all inputs. Their contents are kept for some days, because they
are large. After that nobody could say which files a compile had.

Rule: the `Directory` messages of an input tree have the path, size and SHA-256 of each file. They
take some hundred bytes for each compile, because compiles share most of them. They are kept until
retention removed the last row that leads to them: after it removed rows, the trail is read, all
directories that a row leads to are marked, and the rest is removed.

Example: retention removes the rows of one year. A header directory that a row of today has as well
stays, with the place of each header.

What must never happen: a directory is removed that a row in the trail leads to. A trail that cannot
be read, or was changed, therefore removes nothing, and so does a directory of the last day: its row
may not be written yet.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.audit.base.segments import sealed_firsts
from hpcc.audit.base.trail import Retired, require_trail, walk
from hpcc.core import (
    EMPTY_DIGEST,
    Blob,
    CallerError,
    Digest,
    HpccError,
    InfrastructureError,
    InputPart,
    TenantId,
)
from hpcc.ports import BlobStore, Clock
from hpcc.reapi.limits import MAX_DIRECTORY_BYTES, ReapiError
from hpcc.reapi.tree import parse_directory
from hpcc.store.disk_blobs import blob_path
from hpcc.store.files import ASIDE_PREFIX, write_file
from hpcc.worker.stores.retained import (
    SOURCES_DIRECTORY,
    RetainedReader,
    cas_directory,
    sources_directory,
)

_log: Final = logging.getLogger(__name__)
# What a small file takes of most disks.
_BLOCK_BYTES: Final = 4096
# A directory's time is renewed after so long, and one that is younger than a day is never removed.
# A compile whose row is not written yet lies between the two.
_RENEW_SECONDS: Final = 6 * 3600.0
_YOUNG_SECONDS: Final = 24 * 3600.0
_MAX_REMEMBERED: Final = 200_000
# So often an error says that a tenant has no room.
_SAY_SECONDS: Final = 3600.0
# Up to this size a write costs less than a switch to another thread.
_INLINE_BYTES: Final = 64 << 10


class KeptSources:
    """Keeps the directories of input trees. One process at a time writes to a store."""

    def __init__(self, store: Path, trail: Path, *, max_bytes: int, clock: Clock) -> None:
        """Keep directories below `store`, up to so many bytes for each tenant."""
        self._store, self._trail = store, trail
        self._max_bytes, self._clock = max_bytes, clock
        # Taken by the loop for a few calls, and by a sweep for each file.
        self._lock = threading.Lock()
        self._sizes: dict[TenantId, int] = {}
        # When this process last found or wrote a directory.
        self._renewed: dict[tuple[TenantId, str], float] = {}
        self._full: dict[TenantId, float] = {}
        # What the trail began with at the last sweep.
        self._swept = 0

    async def keep(self, tenant: TenantId, source: BlobStore, parts: Iterable[InputPart]) -> None:
        """Keep the directories of an input tree.

        Raises:
            NotFoundError: `source` has lost one of them.
            InfrastructureError: one cannot be written, or (reason `sources-full`, once an hour)
                there is no room.
        """
        if tenant not in self._sizes:
            self._sizes.setdefault(tenant, await asyncio.to_thread(self._size_of, tenant))
        for digest in {part.directory for part in parts} - {EMPTY_DIGEST}:
            if self._holds(tenant, digest):
                continue
            if not self._has_room(tenant, digest):
                return
            if self._link(tenant, digest):
                continue
            blob = await source.get(digest)
            if digest.size_bytes > _INLINE_BYTES:
                await asyncio.to_thread(self._write, tenant, blob)
            else:
                self._write(tenant, blob)
                await asyncio.sleep(0)  # many small directories must not hold up the others

    def _link(self, tenant: TenantId, digest: Digest) -> bool:
        """Give the file of the tenant's CAS a second name; return whether that was possible.

        That costs a tenth of a new file. Its content is checked when somebody reads it.
        """
        path, now = self._path(tenant, digest.hash), self._clock.now()
        held = blob_path(cas_directory(self._store, tenant), digest.hash)
        with self._lock:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                os.link(held, path, follow_symlinks=False)
                os.utime(path, (now, now))
                if path.stat().st_size != digest.size_bytes:
                    path.unlink()
                    return False
            except OSError:
                return False
            self._sizes[tenant] += _taken(digest.size_bytes)
            self._note(tenant, digest)
            return True

    def _write(self, tenant: TenantId, blob: Blob) -> None:
        path, now = os.fspath(self._path(tenant, blob.digest.hash)), self._clock.now()
        with self._lock:
            if (tenant, blob.digest.hash) not in self._renewed:
                write_file(path, blob.data, sync=False)
                os.utime(path, (now, now))  # a sweep compares times of this clock
                self._sizes[tenant] += _taken(blob.digest.size_bytes)
            self._note(tenant, blob.digest)

    def _path(self, tenant: TenantId, name: str) -> Path:
        return blob_path(sources_directory(self._store, tenant), name)

    def _size_of(self, tenant: TenantId) -> int:
        size = 0
        for file in sources_directory(self._store, tenant).glob("??/*"):
            with suppress(OSError):
                size += _taken(file.stat().st_size)
        return size

    def _holds(self, tenant: TenantId, digest: Digest) -> bool:
        """Return whether a directory is kept; if it is, renew its time if that is due."""
        with self._lock:
            renewed = self._renewed.get((tenant, digest.hash))
            if renewed is not None and renewed > self._clock.monotonic() - _RENEW_SECONDS:
                return True
            path, now = self._path(tenant, digest.hash), self._clock.now()
            try:
                if path.stat().st_size != digest.size_bytes:
                    return False  # a power cut left it so
                os.utime(path, (now, now))
            except OSError:
                return False
            self._note(tenant, digest)
            return True

    def _note(self, tenant: TenantId, digest: Digest) -> None:
        if len(self._renewed) > _MAX_REMEMBERED:
            self._renewed.clear()
        self._renewed[tenant, digest.hash] = self._clock.monotonic()

    def _has_room(self, tenant: TenantId, digest: Digest) -> bool:
        """Return whether a directory fits.

        Raises:
            InfrastructureError: it does not, and that was not said in the last hour.
        """
        if self._sizes[tenant] + _taken(digest.size_bytes) <= self._max_bytes:
            return True
        now = self._clock.monotonic()
        if now - self._full.get(tenant, -_SAY_SECONDS) < _SAY_SECONDS:
            return False
        self._full[tenant] = now
        raise InfrastructureError(
            f"tenant {tenant} has no room for sources of compiles: raise audit_sources_bytes",
            reason="sources-full",
        )

    def sweep(self) -> int:
        """Remove what no row leads to any more, if retention removed rows; return how many.

        A failure is logged, and nothing is removed.
        """
        try:
            begin = _begin_of(self._trail)
            if begin == self._swept:
                return 0
            marked = self._marked()
        except (HpccError, OSError) as error:
            _log.warning("sources of old compiles stay: %s", error)
            return 0
        removed = sum(
            self._remove(tenant, file) for tenant, file in self._old(marked, self._clock.now())
        )
        self._swept = begin
        return removed

    def _marked(self) -> dict[str, set[bytes]]:
        """Return the hashes of all directories that rows lead to, by tenant.

        Raises:
            AuditDamagedError: the trail was changed.
        """
        require_trail(self._trail)
        marked: dict[str, set[bytes]] = {}
        for item in walk(self._trail):
            if isinstance(item, Retired) or item.record.kind != "row":
                continue
            body = item.record.body
            with suppress(CallerError, ValueError):
                tenant = TenantId(str(body.get("tenant")))
                root = Digest.parse(str(body.get("input_root_digest")))
                self._mark(tenant, root, marked.setdefault(tenant.value, set()))
        return marked

    def _mark(self, tenant: TenantId, root: Digest, marked: set[bytes]) -> None:
        reader, waiting = RetainedReader(self._store, tenant), [root]
        while waiting:
            digest = waiting.pop()
            key = bytes.fromhex(digest.hash)
            if key in marked or digest.size_bytes > MAX_DIRECTORY_BYTES:
                continue
            marked.add(key)
            blob = reader.get_or_none(digest)
            if blob is not None:
                with suppress(ReapiError):
                    waiting += (child for _, child in parse_directory(blob.data).directories)

    def _old(self, marked: dict[str, set[bytes]], now: float) -> Iterator[tuple[TenantId, Path]]:
        for directory in self._store.glob(f"*/{SOURCES_DIRECTORY}"):
            try:
                tenant = TenantId(directory.parent.name)
            except CallerError:
                continue
            known = marked.get(tenant.value, set())
            for file in directory.glob("??/*"):
                with suppress(OSError, ValueError):
                    is_old = file.stat().st_mtime < now - _YOUNG_SECONDS
                    is_aside = file.name.startswith(ASIDE_PREFIX)
                    if is_old and (is_aside or bytes.fromhex(file.name) not in known):
                        yield tenant, file

    def _remove(self, tenant: TenantId, file: Path) -> bool:
        with self._lock:
            if (tenant, file.name) in self._renewed:
                return False  # a compile has it, whatever the clock says
            try:
                size = file.stat().st_size
                file.unlink()
            except OSError:
                return False
            if tenant in self._sizes:
                self._sizes[tenant] -= _taken(size)
            return True


def _taken(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


def _begin_of(trail: Path) -> int:
    """Return the number of the first record that may be in the trail.

    Raises:
        OSError: the directory cannot be read.
    """
    firsts = sealed_firsts(trail) if trail.is_dir() else []
    if firsts:
        return firsts[0]
    # Without a sealed segment the open one begins after the last seal.
    return sum(1 for _ in trail.glob("sealed-*.seal"))
