"""The daemon's memory of files: digests, scans and directory listings, each checked by stat.

A stat proves content only if the file was unchanged for a while before it was read: two writes
within one tick of the file system's clock leave the same times ("racily clean").
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Final, NamedTuple, cast

from hpcc.cache.base.writers import has_writer
from hpcc.compilers.scan.preambles import PreambleCache
from hpcc.compilers.scan.scan import Scan, may_be_read_once, scan_source
from hpcc.core.memo import BoundedMemo

# Two seconds is the coarsest time stamp of a common file system (FAT).
RACY_WINDOW_NS: Final = 2_000_000_000
MAX_SOURCE_BYTES: Final = 256 << 20
_MAX_REMEMBERED: Final = 200_000
_MAX_LISTING: Final = 200_000
_CHUNK: Final = 1 << 20
# Recently read texts: a source that was just written is looked up several times.
_MAX_TEXTS: Final = 64
MAX_TEXT_BYTES: Final = 64 << 10
# For one directory; each question holds several names.
_MAX_QUESTIONS: Final = 2_000
# A set of so few names is compared faster than it is found.
_FEW: Final = 16
_MAX_SETS: Final = 64
# Linux gives the null device these numbers everywhere. No other system is asked.
_NULL_DEVICE: Final = os.makedev(1, 3) if sys.platform == "linux" else -1

Signature = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in nanoseconds."""


def signature_of(status: os.stat_result) -> Signature:
    """Return the part of a stat that changes with a file's content or identity."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def has_content(status: os.stat_result) -> bool:
    """Tell whether a stat is that of a regular file, or of the null device, which is always empty.

    The device's numbers decide, because it can have any name.
    """
    return stat.S_ISREG(status.st_mode) or (
        stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE
    )


def is_one_file(path: bytes, other: bytes) -> bool:
    """Tell whether two names lead to one file that exists."""
    try:
        return bool(other) and os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


class Listing:
    """The names in a directory. `is_quiet`: the directory's stat proves that they are unchanged.

    Which of them are directories is looked up on demand: replacing an entry by one of another kind
    changes the directory's stat, and the stat never covers the target of a link.
    """

    __slots__ = (
        "_directories",
        "_lacking",
        "_listed",
        "_path",
        "_without",
        "is_quiet",
        "names",
        "signature",
    )

    def __init__(
        self, path: bytes, signature: Signature, names: frozenset[bytes], *, is_quiet: bool
    ) -> None:
        self._path, self.signature, self.names, self.is_quiet = path, signature, names, is_quiet
        self._directories: frozenset[bytes] | None = None
        self._lacking: BoundedMemo[bytes, bool] = BoundedMemo(_MAX_QUESTIONS)
        self._without: BoundedMemo[frozenset[bytes], frozenset[bytes]] = BoundedMemo(_MAX_QUESTIONS)
        self._listed: BoundedMemo[frozenset[bytes], frozenset[bytes]] = BoundedMemo(_MAX_SETS)

    def is_directory(self, name: bytes) -> bool:
        """Tell whether a name is a directory or a link to one."""
        return os.path.isdir(self._path + b"/" + name)

    @property
    def directories(self) -> frozenset[bytes]:
        """The names that are directories or links to one."""
        if self._directories is None:
            self._directories = frozenset(filter(self.is_directory, self.names))
        return self._directories

    def listed(self, names: frozenset[bytes]) -> frozenset[bytes]:
        """Return those of the names that the directory lists."""
        if len(names) < _FEW:
            return names & self.names
        known = self._listed.get(names)
        if known is None:
            known = self._listed[names] = names & self.names
        return known

    def without(self, names: frozenset[bytes]) -> frozenset[bytes]:
        """Return those of the names that do not exist in the directory."""
        known = self._without.get(names)
        if known is None:
            known = self._without[names] = frozenset(filter(self.lacks, names))
        return known

    def lacks(self, name: bytes) -> bool:
        """Tell whether a name does not exist in the directory.

        The listing is not enough: it omits `.` and `..`, and a case-insensitive directory finds
        a file under more names than it lists.
        """
        if name in self.names:
            return False
        known = self._lacking.get(name)
        if known is None:
            known = self._lacking[name] = not os.path.lexists(self._path + b"/" + name)
        return known


class Examined(NamedTuple):
    """A source file. `status` was taken after it was read, or is the remembered one.

    `is_plain`: the last component of its path is the file and not a symlink.
    """

    digest: bytes
    scan: Scan
    status: os.stat_result
    is_plain: bool


class FileMemo:
    """Digests by path and stat, scans by digest, listings by path and stat.

    Thread-safe because each step is one dict operation and a lost update only costs work.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns
        self._digests: BoundedMemo[bytes, tuple[Signature, bytes]] = BoundedMemo(_MAX_REMEMBERED)
        # A bound method of a builtin is called as fast as a plain dict's `get`.
        self.digest_known = self._digests.get
        self._scans: BoundedMemo[bytes, Scan] = BoundedMemo(_MAX_REMEMBERED)
        self.scan_known = self._scans.get
        self._read_once: BoundedMemo[bytes, bool] = BoundedMemo(_MAX_REMEMBERED)
        self._listings: BoundedMemo[bytes, Listing] = BoundedMemo(_MAX_REMEMBERED // 10)
        self._absent: BoundedMemo[tuple[bytes, ...], Signature] = BoundedMemo(_MAX_QUESTIONS)
        self._derived: BoundedMemo[tuple[Hashable, bytes], object] = BoundedMemo(_MAX_REMEMBERED)
        self.derived_known: Callable[[tuple[Hashable, bytes]], object | None] = self._derived.get
        """What `derived` returned for a question and a content; None if unknown."""
        self._texts: BoundedMemo[bytes, bytes] = BoundedMemo(_MAX_TEXTS)
        self.preambles = PreambleCache()

    def digest(self, path: bytes) -> bytes | None:
        """Return the SHA-256 of a file (32 bytes); None if it is missing, special or changing.

        A file that is open for writing counts as changing.
        """
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        known = self.digest_known(path)
        # Spelled out, not through `signature_of`: this line runs once per header of every hit.
        if known is not None and known[0] == (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        ):
            return known[1]
        return self._hash(path)

    def signature(self, path: bytes, digest: bytes) -> Signature | None:
        """Return the remembered stat that proves this content of a file; None if there is none.

        The file itself is not looked at.
        """
        known = self._digests.get(path)
        return known[0] if known is not None and known[1] == digest else None

    def scan(self, path: bytes) -> tuple[bytes, Scan] | None:
        """Return digest and scan of a source file, from the same bytes."""
        found = self.examine(path)
        return None if found is None else (found.digest, found.scan)

    def digest_at(self, path: bytes, status: os.stat_result) -> bytes | None:
        """Return what `digest` does, with a stat that the caller has just taken."""
        known = self._digests.get(path)
        if known is not None and known[0] == signature_of(status):
            return known[1]
        return self._hash(path)

    def examine(self, path: bytes) -> Examined | None:
        """Return digest and scan of a source file; None if it is missing, changing or too large."""
        try:
            status = os.lstat(path)
            known = self.digest_known(path)
            # Spelled out as in `digest`. The stat of a link is never that of its file.
            if known is not None and known[0] == (
                status.st_dev,
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            ):
                scan = self._scans.get(known[1])
                if scan is not None:
                    return Examined(known[1], scan, status, is_plain=True)
            status, is_plain = _look(path)
            if known is not None and known[0] == signature_of(status):
                scan = self._scans.get(known[1])
                if scan is not None:
                    return Examined(known[1], scan, status, is_plain)
            if status.st_size > MAX_SOURCE_BYTES:
                return None
            chunks: list[bytes] = []
            digest = self._hash(path, chunks)
            # Look again: a quiet file that is not a link after the read was so during the read.
            status, is_plain = _look(path)
        except (OSError, ValueError):
            return None
        if digest is None:
            return None
        scan = self._scans.get(digest)
        if scan is None:
            scan = scan_source(b"".join(chunks), self.preambles)
            self._scans[digest] = scan
        return Examined(digest, scan, status, is_plain)

    def may_be_read_once(self, path: bytes, digest: bytes) -> bool | None:
        """Tell whether a file with that content may ask to be read once; None if unreadable."""
        known = self._read_once.get(digest)
        if known is not None:
            return known
        chunks: list[bytes] = []
        if _is_too_large(path) or self._hash(path, chunks) != digest:
            return None
        found = self._read_once[digest] = may_be_read_once(b"".join(chunks))
        return found

    def derived[T](
        self, path: bytes, digest: bytes, question: Hashable, read: Callable[[bytes], T]
    ) -> T | None:
        """Return `read(content)` for a file; None if its content is another now, or is too large.

        `question` identifies what `read` does, so that `read` runs once for each content.
        """
        known = self._derived.get((question, digest))
        if known is not None:
            return cast("T", known)
        text = self._texts.get(digest)
        if text is None:
            chunks: list[bytes] = []
            if _is_too_large(path) or self._hash(path, chunks) != digest:
                return None
            text = b"".join(chunks)
        found = read(text)
        self._derived[question, digest] = found
        return found

    def text(self, digest: bytes) -> bytes | None:
        """Return the content with this digest if it is short and was read recently, else None."""
        return self._texts.get(digest)

    def listing(self, path: bytes) -> Listing | None:
        """Return the names in a directory; None if it is not one or is too large to watch."""
        try:
            signature = signature_of(os.stat(path))
        except (OSError, ValueError):
            return None
        known = self._listings.get(path)
        if known is not None and known.is_quiet and known.signature == signature:
            return known
        return self._list(path, signature)

    def quiet_signature(self, path: bytes) -> Signature | None:
        """Return the stat of a file or directory if it can prove its content later, else None."""
        try:
            signature = signature_of(os.stat(path))
        except (OSError, ValueError):
            return None
        return signature if self.is_quiet(signature) else None

    def lacks(self, directory: bytes, paths: Sequence[bytes]) -> Signature | None:
        """Return a stat of `directory` that proves that these paths in it are absent, else None."""
        signature = self.quiet_signature(directory)
        asked = (directory, *paths)
        if signature is None or self._absent.get(asked) == signature:
            return signature
        # Looked up after the stat: a name that appears later changes the stat.
        if any(map(os.path.lexists, paths)):
            return None
        self._absent[asked] = signature
        return signature

    def is_quiet(self, signature: Signature, at_ns: int | None = None) -> bool:
        """Tell whether a stat can prove later what was read under it.

        `at_ns` is `now_ns` from before the read, None for the present. With a time from after the
        read, a process that was stopped in between would believe a file that changed meanwhile.
        """
        at_ns = self.now_ns() if at_ns is None else at_ns
        return at_ns - max(signature[3], signature[4]) > RACY_WINDOW_NS

    def _hash(self, path: bytes, chunks: list[bytes] | None = None) -> bytes | None:
        """Read and hash a file; append the bytes to `chunks`. None if it changed meanwhile."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            # The time first, then the question: a writer that comes later leaves a young stamp.
            at_ns = self.now_ns()
            before = os.fstat(fd)
            if not has_content(before) or (before.st_size and has_writer(fd)):
                return None
            hasher = hashlib.sha256()
            # Use a buffer of the file's size: a larger one is mapped and unmapped for each read.
            while chunk := os.read(fd, min(before.st_size + 1, _CHUNK)):
                hasher.update(chunk)
                if chunks is not None:
                    chunks.append(chunk)
            signature = signature_of(before)
            if signature_of(os.fstat(fd)) != signature:
                return None
        except OSError:
            return None
        finally:
            os.close(fd)
        digest = hasher.digest()
        if chunks is not None and before.st_size <= MAX_TEXT_BYTES:
            self._keep_text(digest, b"".join(chunks))
        if self.is_quiet(signature, at_ns):
            self._digests[path] = (signature, digest)
        return digest

    def _keep_text(self, digest: bytes, text: bytes) -> None:
        self._texts[digest] = text

    def _list(self, path: bytes, signature: Signature) -> Listing | None:
        is_quiet = self.is_quiet(signature)
        try:
            names = os.listdir(path)
            if len(names) > _MAX_LISTING:
                return None
            if signature_of(os.stat(path)) != signature:
                is_quiet = False
        except OSError:
            return None
        listing = Listing(path, signature, frozenset(names), is_quiet=is_quiet)
        self._listings[path] = listing
        return listing


def _is_too_large(path: bytes) -> bool:
    """Tell whether a file is too large to be read as text, or is gone."""
    try:
        return os.stat(path).st_size > MAX_SOURCE_BYTES
    except (OSError, ValueError):
        return True


def _look(path: bytes) -> tuple[os.stat_result, bool]:
    """Return the stat of a file, and whether its path does not end in a symlink."""
    status = os.lstat(path)  # equals `stat` unless the path is a symlink
    is_plain = not stat.S_ISLNK(status.st_mode)
    return status if is_plain else os.stat(path), is_plain
