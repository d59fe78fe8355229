"""The guest's blob cache: an input file is sent to a guest only once."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from hpcc.core import Digest, IntegrityError

_COPY_BYTES: Final = 1 << 20
_IS_POSIX: Final = os.name == "posix"
# Every input has this time, 2000-01-01: when a blob came shows nothing about earlier execs, and a
# link looks like a copy.
INPUT_TIME_NS: Final = 946_684_800 * 10**9
_MODE: Final = 0o444


class BlobCache:
    """Files named by digest in a directory that only root can enter.

    Keeps at most `budget_bytes` of blobs that no running exec uses, and evicts the least recently
    used first. Nobody may write the files, root included, so that a tree may have links to them
    (`hpcc.agent.linux.links`).
    """

    def __init__(self, directory: str, budget_bytes: int) -> None:
        self._directory, self._budget_bytes = directory, budget_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._pins: dict[str, int] = {}
        self._total_bytes = 0
        # Called with the hash of each blob that is evicted.
        self.on_evicted: Callable[[str], None] = lambda _: None
        os.makedirs(directory, mode=0o700)

    def pin(self, digests: Iterable[Digest]) -> list[Digest]:
        """Keep these for one exec; return those that must still be fetched, each once."""
        missing: dict[str, Digest] = {}
        for digest in digests:
            self._pins[digest.hash] = self._pins.get(digest.hash, 0) + 1
            if digest.hash in self._sizes:
                self._sizes.move_to_end(digest.hash)
            else:
                missing[digest.hash] = digest
        return list(missing.values())

    def unpin(self, digests: Iterable[Digest]) -> None:
        """Release what `pin` kept, and evict what exceeds the budget."""
        for digest in digests:
            left = self._pins[digest.hash] - 1
            if left:
                self._pins[digest.hash] = left
            else:
                del self._pins[digest.hash]
        if self._total_bytes <= self._budget_bytes:
            return
        for name in [n for n in self._sizes if n not in self._pins]:
            if self._total_bytes <= self._budget_bytes:
                break
            self._total_bytes -= self._sizes.pop(name)
            os.unlink(self.path(name))
            self.on_evicted(name)

    def receive(self, digest: Digest) -> BlobWriter:
        """Start to write a blob."""
        return BlobWriter(self, digest)

    def copy(self, digest: Digest, target_fd: int) -> None:
        """Write the blob to an open file, and check it again.

        Raises:
            IntegrityError: the cached file has changed.
        """
        check, size = hashlib.sha256(), 0
        with open(self.path(digest.hash), "rb", buffering=0) as source:
            while data := source.read(_COPY_BYTES):
                check.update(data)
                size += len(data)
                _write_all(target_fd, data)
        if check.hexdigest() != digest.hash or size != digest.size_bytes:
            raise IntegrityError(f"blob {digest} changed in the guest's cache")

    def path(self, name: str) -> str:
        """Return the path of the blob with this hash."""
        return f"{self._directory}/{name}"

    def add_bytes(self, name: str, size_bytes: int) -> None:
        """Count what is kept besides a blob for as long as the blob is."""
        self._sizes[name] += size_bytes
        self._total_bytes += size_bytes

    def keep(self, digest: Digest, temporary: str) -> None:
        """Adopt a file whose digest was checked. Only BlobWriter calls it."""
        if digest.hash in self._sizes:  # another exec received it, and may be reading it
            os.unlink(temporary)
            return
        os.rename(temporary, self.path(digest.hash))
        self._sizes[digest.hash] = digest.size_bytes
        self._total_bytes += digest.size_bytes


class BlobWriter:
    """One blob that is being received; `close` without `finish` removes it."""

    _count = 0

    def __init__(self, cache: BlobCache, digest: Digest) -> None:
        BlobWriter._count += 1
        self._cache, self._digest = cache, digest
        self._name = f"{cache._directory}/.in-{BlobWriter._count}"  # noqa: SLF001 - one unit of two classes
        self._file = open(self._name, "xb", buffering=0, opener=_open_unwritable)  # noqa: SIM115 - closed by close()
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        _write_all(self._file.fileno(), data)

    def finish(self) -> None:
        """Check the digest and add the blob to the cache.

        Raises:
            IntegrityError: the bytes do not have the announced digest.
        """
        if self._hash.hexdigest() != self._digest.hash:
            raise IntegrityError(f"received bytes are not blob {self._digest}")
        self._file.close()
        os.utime(self._name, ns=(INPUT_TIME_NS, INPUT_TIME_NS))
        self._cache.keep(self._digest, self._name)

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
            os.unlink(self._name)


def _open_unwritable(path: str, flags: int) -> int:
    fd = os.open(path, flags, 0o666)
    if _IS_POSIX:  # Windows refuses to delete such a file, and there are no links to blobs
        os.fchmod(fd, _MODE)
    return fd


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
