"""Links in trees to the blobs of the cache, in place of copies.

The problem: a compile has hundreds of inputs, and nearly all of them were in the tree of the
compile before. To copy and digest each of them again costs more than the rest of the agent's work.
But a file that several compiles see is a way from one compile to the next.

The rule:

- A blob is root's, mode 0444 or 0555, and a compile is another uid. It can neither write nor chmod
  the file, nor set its time. Its tree's directories are its own, so it can remove the name.
- Each mode is a separate file, because a mode belongs to the file and not to the name.
- Inode, size and ctime are noted when the content is known to be right, and compared before each
  link. Only root can change a file without a new ctime. With any other ctime the content is
  digested again. A link and its removal set a new ctime, too, so it is noted again after each, if
  it was as noted before.
- A tree has one link to a file. A second name of the same content is a copy, because compilers
  compare inodes (`#pragma once` in Clang). GCC compares times, which are the same for all inputs.
- A path that the compile may write as its output is a copy that it owns.
- A copy is made where the file system refuses the link, for example because a file has too many.

Example: a compile unlinks its header and writes another one in its place. The tree has the
compile's own file now. The blob has one link less and a new ctime, so the next compile that names
it makes the agent digest it again, which finds nothing.

What must never happen: a tree gets content that was not checked since the last change; two paths of
one tree are one file; a compile's change reaches another compile.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from hpcc.agent.base.blobs import INPUT_TIME_NS, BlobCache
from hpcc.core import Digest, IntegrityError

_REFUSED: Final = frozenset({errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP})
_READ_BYTES: Final = 1 << 20
_PLAIN, _EXECUTABLE = 0o444, 0o555

type _Seen = tuple[int, int, int]


class _File:
    """One file that trees have links to. `seen` is None when its content must be checked."""

    __slots__ = ("digest", "mode", "path", "seen")

    def __init__(self, path: str, digest: Digest, mode: int) -> None:
        self.path, self.digest, self.mode = path, digest, mode
        self.seen: _Seen | None = None

    def now(self) -> _Seen:
        status = os.stat(self.path, follow_symlinks=False)
        return (status.st_ino, status.st_size, status.st_ctime_ns)

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
        self.seen = (status.st_ino, status.st_size, status.st_ctime_ns)


class LinkedBlobs:
    """Which blobs of the cache can be linked, and what each was when its content was right."""

    def __init__(self, blobs: BlobCache) -> None:
        self._blobs = blobs
        self._plain: dict[str, _File] = {}
        self._executable: dict[str, _File] = {}
        blobs.on_evicted = self._evicted

    def file(self, digest: Digest, *, is_executable: bool) -> _File:
        """Return the file of a blob that the cache has, in one of two modes.

        Raises:
            IntegrityError: the blob is damaged.
            OSError: there is no room for its executable form.
        """
        files = self._executable if is_executable else self._plain
        file = files.get(digest.hash)
        if file is None:
            path = self._blobs.path(digest.hash)
            if is_executable:
                path += ".x"
                self._make_executable(digest, path)
            mode = _EXECUTABLE if is_executable else _PLAIN
            file = files[digest.hash] = _File(path, digest, mode)
        return file

    def _make_executable(self, digest: Digest, path: str) -> None:
        try:
            self.copy(digest, path, 0o700)
            os.chmod(path, _EXECUTABLE)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(path)
            raise
        self._blobs.add_bytes(digest.hash, digest.size_bytes)

    def copy(self, digest: Digest, path: str, mode: int, uid: int = -1) -> None:
        """Write a blob to a new file, which gets the time of all inputs.

        Raises:
            IntegrityError: the blob is damaged.
            OSError: there is no room.
        """
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            self._blobs.copy(digest, fd)
            os.utime(fd, ns=(INPUT_TIME_NS, INPUT_TIME_NS))
            os.fchown(fd, uid, uid)
        finally:
            os.close(fd)

    def _evicted(self, name: str) -> None:
        self._plain.pop(name, None)
        if self._executable.pop(name, None) is not None:
            os.unlink(f"{self._blobs.path(name)}.x")


class TreeLinks:
    """The links of one tree."""

    def __init__(self, linked: LinkedBlobs) -> None:
        self._linked = linked
        self._files: set[_File] = set()

    def place(self, digest: Digest, path: str, *, is_executable: bool, uid: int) -> None:
        """Make a path of the tree that has a blob's content, as a link if possible.

        Raises:
            IntegrityError: the blob is damaged.
            OSError: there is no room.
        """
        file = self._linked.file(digest, is_executable=is_executable)
        if file in self._files or not self._link(file, path):
            self.copy(digest, path, is_executable=is_executable, uid=uid)

    def copy(self, digest: Digest, path: str, *, is_executable: bool, uid: int) -> None:
        """Make a path of the tree that the compile owns and may write.

        Raises:
            IntegrityError: the blob is damaged.
            OSError: there is no room.
        """
        self._linked.copy(digest, path, 0o755 if is_executable else 0o644, uid)

    def _link(self, file: _File, path: str) -> bool:
        if file.now() != file.seen:
            file.check()
        try:
            os.link(file.path, path)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            return False
        file.seen = file.now()
        self._files.add(file)
        return True

    def removed_by(self, remove: Callable[[], None]) -> None:
        """Call `remove`, which removes the whole tree, and note what that does to the files.

        What is not as noted before is digested before its next link.
        """
        before = [(file, self._status(file)) for file in self._files]
        remove()
        for file, (seen, links) in before:
            after, rest = self._status(file)
            is_known = seen is not None and seen == file.seen and rest == links - 1
            file.seen = after if is_known else None

    @staticmethod
    def _status(file: _File) -> tuple[_Seen | None, int]:
        try:
            status = os.stat(file.path, follow_symlinks=False)
        except FileNotFoundError:  # evicted
            return None, 0
        return (status.st_ino, status.st_size, status.st_ctime_ns), status.st_nlink
