"""Blobs of one tenant on disk; the least recently used are evicted first."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import EMPTY_DIGEST, Blob, Digest, IntegrityError, NotFoundError
from hpcc.files.whole import FaultPoint, no_fault
from hpcc.store.files import ASIDE_PREFIX, read_file_or_none, write_file

# An eviction shrinks the store to this share of the limit, so that not every put evicts.
_EVICT_TO: Final = 0.9
# Up to this size a read, or a write that is not synced, costs less than a switch to another thread.
_INLINE_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskBlobStoreConfig:
    """Directory and limit. One process at a time owns a directory.

    `sync` is off by default. A blob's digest is checked on every read, so a write that a power cut
    lost is found and the client uploads it again. Syncing every header would cost more than the
    compile.
    """

    directory: Path
    max_size_bytes: int = 10 << 30
    sync: bool = False


def blob_path(directory: Path, name: str) -> Path:
    """Return the path of the blob with the hash `name` in a store's `directory`."""
    return directory / name[:2] / name


class DiskBlobStore:
    """`BlobStore` in a directory, sharded by the first byte of the hash."""

    def __init__(self, config: DiskBlobStoreConfig, *, fault: FaultPoint = no_fault) -> None:
        self._config, self._fault = config, fault
        self._lock = threading.Lock()
        self._index: OrderedDict[str, int] = OrderedDict()
        self._size_bytes = 0
        self._max_size_bytes = config.max_size_bytes
        # Since the store was opened.
        self.evicted_bytes = 0
        self._root = os.fspath(config.directory)
        self._scan()

    @property
    def size_bytes(self) -> int:
        """Return the bytes of all stored blobs."""
        return self._size_bytes

    @property
    def limit_bytes(self) -> int:
        """Return the size limit in bytes."""
        return self._max_size_bytes

    def bound(self, max_size_bytes: int) -> None:
        """Set the size limit in bytes. A lower limit evicts on the next `put`."""
        self._max_size_bytes = max_size_bytes

    async def get(self, digest: Digest) -> Blob:
        if digest == EMPTY_DIGEST:
            return Blob.of(b"")
        if digest.size_bytes <= _INLINE_BYTES:
            return self._get(digest)
        return await asyncio.to_thread(self._get, digest)

    async def put(self, blob: Blob) -> None:
        if blob.digest == EMPTY_DIGEST or self._touch(blob.digest):
            return
        if self._config.sync or blob.digest.size_bytes > _INLINE_BYTES:
            await asyncio.to_thread(self._put, blob)
        else:
            await self._written(blob.digest, is_over=self._write(blob))

    async def link(self, path: str, digest: Digest) -> bool:
        """Take a blob's file from another store on this file system, in place of a copy.

        Returns whether that was possible. The content is not read: `get` checks it, as always. The
        file counts as used now.
        """
        own = self._path(digest.hash)
        try:
            _link(path, own)
            os.utime(own)
            if os.stat(own).st_size != digest.size_bytes:
                os.unlink(own)
                return False
        except OSError:
            return False
        await self._written(digest, is_over=self._note(digest))
        return True

    async def _written(self, digest: Digest, *, is_over: bool) -> None:
        if is_over:
            await asyncio.to_thread(self._evict, keep=digest.hash)
        else:
            await asyncio.sleep(0)  # an upload of many small blobs must not hold up the others

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        return frozenset(d for d in digests if d != EMPTY_DIGEST and not self._touch(d))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name[:2]}/{name}"

    def _touch(self, digest: Digest) -> bool:
        """Return whether the blob's file exists: a user may empty the cache at any time."""
        with self._lock:
            if self._index.get(digest.hash) != digest.size_bytes:
                return False
            self._index.move_to_end(digest.hash)
        try:
            # A compile asks for every header, and a Path costs three times the call.
            is_here = os.stat(self._path(digest.hash)).st_size == digest.size_bytes
        except OSError:
            is_here = False
        if not is_here:
            self._forget(digest.hash)
        return is_here

    def _get(self, digest: Digest) -> Blob:
        path = self._path(digest.hash)
        data = read_file_or_none(path, digest.size_bytes, fault=self._fault)
        if data is None:
            self._forget(digest.hash)
            raise NotFoundError(f"no blob {digest}")
        try:
            blob = Blob.checked(digest, data)
        except IntegrityError as error:
            # A wrong size in the caller's digest must not delete an intact file.
            if len(data) <= digest.size_bytes and Digest.of(data).hash != digest.hash:
                self._remove(digest.hash)
            raise NotFoundError(f"blob {digest} was damaged", reason="damaged") from error
        # The order of use must survive a restart. It is stored only as mtimes.
        with suppress(OSError):
            os.utime(path)
        with self._lock:
            if digest.hash in self._index:
                self._index.move_to_end(digest.hash)
        return blob

    def _put(self, blob: Blob) -> None:
        if self._write(blob):
            self._evict(keep=blob.digest.hash)

    def _write(self, blob: Blob) -> bool:
        """Write a blob; return whether the store is over its limit now."""
        path = self._path(blob.digest.hash)
        write_file(path, blob.data, sync=self._config.sync, fault=self._fault)
        return self._note(blob.digest)

    def _note(self, digest: Digest) -> bool:
        """Add a blob to the index; return whether the store is over its limit now."""
        name, size = digest.hash, digest.size_bytes
        with self._lock:
            self._size_bytes += size - self._index.pop(name, 0)
            self._index[name] = size
            return self._size_bytes > self._max_size_bytes

    def _evict(self, *, keep: str) -> None:
        target = int(self._max_size_bytes * _EVICT_TO)
        while True:
            with self._lock:
                oldest = next((n for n in self._index if n != keep), None)
                if oldest is None or self._size_bytes <= target:
                    return
                self.evicted_bytes += self._index[oldest]
            self._remove(oldest)

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(self._path(name))
        self._forget(name)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._size_bytes -= self._index.pop(name, 0)

    def _scan(self) -> None:
        found: list[tuple[float, str, int]] = []
        self._config.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in self._config.directory.glob("??/*"):
            if file.name.startswith(ASIDE_PREFIX):
                with suppress(OSError):
                    file.unlink()  # left by a killed process
                continue
            with suppress(OSError):
                status = file.stat()
                found.append((status.st_mtime, file.name, status.st_size))
        for _, name, size in sorted(found):
            self._index[name] = size
            self._size_bytes += size


def _link(path: str, own: str) -> None:
    try:
        os.link(path, own, follow_symlinks=False)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(own), mode=0o700, exist_ok=True)
        os.link(path, own, follow_symlinks=False)
