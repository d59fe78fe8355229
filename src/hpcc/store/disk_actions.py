"""Action results on disk: one directory per tenant, isolation class and trust domain."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import Digest, GuestReuse, InfrastructureError, Isolation, NotFoundError, TenantId
from hpcc.files.whole import FaultPoint, no_fault
from hpcc.store.files import ASIDE_PREFIX, read_file_or_none, write_file

MAX_RECORD_BYTES: Final = 16 << 20
_MAGIC: Final = b"hpcc-ac1"
_HEADER_BYTES: Final = len(_MAGIC) + 32
# Up to this size a write that is not synced costs less than a switch to another thread.
_INLINE_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskActionCacheConfig:
    """Directory and limits. Most entries have a few KiB; each includes the compile's messages."""

    directory: Path
    max_entries: int = 200_000
    max_size_bytes: int = 1 << 30


def action_cache_directory(
    root: Path, tenant: TenantId, isolation: Isolation, reuse: GuestReuse, principal: str
) -> Path:
    """Return the directory for results of this class; no two classes share one.

    With reuse "principal" each principal has a separate directory. Guests of a principal may have
    run that principal's code, so their results must never reach another principal.
    """
    base = root / tenant.value / "ac" / isolation.value.replace("/", "_") / reuse.value
    if reuse is not GuestReuse.PRINCIPAL:
        return base
    return base / hashlib.sha256(principal.encode()).hexdigest()[:32]


def sharing_directory(root: Path, tenant: TenantId, isolation: Isolation, kind: str) -> Path:
    """Return the directory for what serves a whole tenant: "shared" results, "claims", "near".

    No reuse class has such a name, so a private result can never take a shared one's place.
    """
    assert kind not in set(GuestReuse)
    return root / tenant.value / "ac" / isolation.value.replace("/", "_") / kind


class DiskActionCache:
    """`ActionCache` in a directory. Each file: magic, SHA-256 of action and record, record."""

    def __init__(self, config: DiskActionCacheConfig, *, fault: FaultPoint = no_fault) -> None:
        self._config, self._fault = config, fault
        self._root = os.fspath(config.directory)
        config.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in config.directory.glob(f"??/{ASIDE_PREFIX}*"):
            with suppress(OSError):
                file.unlink()
        sizes = [size for _, size, _ in self._files()]
        self._count, self._size_bytes = len(sizes), sum(sizes)

    async def get(self, action: Digest) -> bytes:
        path = self._path(action)
        limit = MAX_RECORD_BYTES + _HEADER_BYTES
        data = read_file_or_none(path, limit, fault=self._fault)
        if data is None:
            raise NotFoundError(f"no result for {action}")
        record = data[_HEADER_BYTES:]
        if len(data) > limit or data[:_HEADER_BYTES] != _header(action, record):
            with suppress(OSError):
                os.unlink(path)
            raise NotFoundError(f"result for {action} was damaged", reason="damaged")
        return record

    async def put(self, action: Digest, record: bytes) -> None:
        if len(record) > MAX_RECORD_BYTES:
            raise InfrastructureError("result record is too large to keep", reason="record-size")
        data = _header(action, record) + record
        path = self._path(action)
        # Not synced: a power cut may leave an empty or torn file, which `get` finds to be damaged.
        # The compile runs once more then, as it does for a blob that the same power cut lost.
        if len(data) <= _INLINE_BYTES:
            write_file(path, data, sync=False, fault=self._fault)
        else:
            await asyncio.to_thread(write_file, path, data, sync=False, fault=self._fault)
        self._count += 1
        self._size_bytes += len(data)
        config = self._config
        if self._count > config.max_entries or self._size_bytes > config.max_size_bytes:
            await asyncio.to_thread(self._evict)

    def _evict(self) -> None:
        """Remove the oldest entries until a tenth of both limits is free; recount the rest."""
        files = sorted(self._files(), key=lambda found: found[0])
        count, size_bytes = len(files), sum(size for _, size, _ in files)
        most = self._config.max_entries * 9 // 10
        most_bytes = self._config.max_size_bytes * 9 // 10
        for _, size, file in files:
            if count <= most and size_bytes <= most_bytes:
                break
            with suppress(OSError):
                file.unlink(missing_ok=True)
            count, size_bytes = count - 1, size_bytes - size
        self._count, self._size_bytes = count, size_bytes

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return mtime, size in bytes and path of each entry, unordered."""
        found: list[tuple[float, int, Path]] = []
        for file in self._config.directory.glob("??/*"):
            with suppress(OSError):
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
        return found

    def _path(self, action: Digest) -> str:
        name = f"{action.hash}-{action.size_bytes}"
        return f"{self._root}/{name[:2]}/{name}"


def _header(action: Digest, record: bytes) -> bytes:
    # The hash covers the action, so that a file under another action's name counts as damaged.
    return _MAGIC + hashlib.sha256(str(action).encode() + b"\0" + record).digest()
