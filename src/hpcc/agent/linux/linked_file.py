"""One file that trees have links to, and what is known about its content.

See `hpcc.agent.linux.links` for the rule.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from hpcc.core import Digest, IntegrityError

_READ_BYTES: Final = 1 << 20

# Inode, size and ctime.
type Seen = tuple[int, int, int]


def seen_of(status: os.stat_result) -> Seen:
    """Return what a change of content changes, too."""
    return (status.st_ino, status.st_size, status.st_ctime_ns)


class LinkedFile:
    """One file that trees have links to. `seen` is None when its content must be checked.

    `is_evicted`: the cache has it no more, but trees may still have links to it.
    """

    __slots__ = ("digest", "is_evicted", "mode", "path", "seen")

    def __init__(self, path: str, digest: Digest, mode: int) -> None:
        self.path, self.digest, self.mode = path, digest, mode
        self.seen: Seen | None = None
        self.is_evicted = False

    def now(self) -> Seen:
        return seen_of(os.stat(self.path, follow_symlinks=False))

    def status(self) -> tuple[Seen | None, int]:
        """Return what it is and how many links it has; (None, 0) after its blob was evicted."""
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return None, 0
        return seen_of(status), status.st_nlink

    def check(self) -> None:
        """Note what the file is now, after reading all of it.

        Raises:
            IntegrityError: it is not the blob any more, or others may write it.
        """
        check, wanted = hashlib.sha256(), (stat.S_IFREG | self.mode, os.geteuid())
        fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            while data := os.read(fd, _READ_BYTES):
                check.update(data)
        finally:
            os.close(fd)
        is_right = check.hexdigest() == self.digest.hash
        if not is_right or (status.st_mode, status.st_uid) != wanted:
            raise IntegrityError(f"blob {self.digest} changed in the guest's cache")
        self.seen = seen_of(status)


@contextmanager
def one_link_less(files: Iterable[LinkedFile]) -> Iterator[None]:
    """Note what the block does to files, which removes one link to each.

    What is not as noted before is digested before its next link.
    """
    before = [(file, file.status()) for file in files]
    yield
    for file, (seen, links) in before:
        after, rest = file.status()
        is_known = seen is not None and seen == file.seen and rest == links - 1
        file.seen = after if is_known else None
