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
- A directory that a compile left as it was stays for the next tree (`hpcc.agent.linux.kept`).

Example: a compile unlinks its header and writes another one in its place. The tree has the
compile's own file now. The blob has one link less and a new ctime, so the next compile that names
it makes the agent digest it again, which finds nothing.

What must never happen: a tree gets content that was not checked since the last change; two paths of
one tree are one file; a compile's change reaches another compile.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

from hpcc.agent.base.blobs import INPUT_TIME_NS, BlobCache
from hpcc.agent.linux.kept import Directory, KeptDirectories, state_of
from hpcc.agent.linux.linked_file import LinkedFile, one_link_less
from hpcc.agent.linux.removal import OPEN_DIRECTORY, remove_tree
from hpcc.core import Digest, InputFile

_REFUSED: Final = frozenset({errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP})
_PLAIN, _EXECUTABLE = 0o444, 0o555
# Beside the blobs, which have hashes as names.
_KEPT: Final = "kept"
# For fewer files it costs less to make the directory again.
_FEWEST_KEPT: Final = 3
# A removal has a descriptor for each level.
_DEEPEST: Final = 32


class LinkedBlobs:
    """Which blobs of the cache can be linked, and what each was when its content was right."""

    def __init__(self, blobs: BlobCache) -> None:
        self._blobs = blobs
        self._plain: dict[str, LinkedFile] = {}
        self._executable: dict[str, LinkedFile] = {}
        blobs.on_evicted = self._evicted
        self.kept = KeptDirectories(blobs.path(_KEPT))

    def file(self, digest: Digest, *, is_executable: bool) -> LinkedFile:
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
            file = files[digest.hash] = LinkedFile(path, digest, mode)
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
        plain, executable = self._plain.pop(name, None), self._executable.pop(name, None)
        if plain is not None:
            plain.is_evicted = True
        if executable is not None:
            executable.is_evicted = True
            os.unlink(executable.path)
        self.kept.evicted(name)


class TreeLinks:
    """The links of one tree, by directory."""

    def __init__(self, linked: LinkedBlobs) -> None:
        self._linked = linked
        self._files: set[LinkedFile] = set()
        self._of_directory: dict[str, list[LinkedFile]] = {}
        self._directories: dict[str, Directory | None] = {}

    def take(self, path: str, files: tuple[InputFile, ...], target: str, uid: int) -> bool:
        """Make a directory with all its files of one that an earlier tree had, if there is one.

        Raises:
            OSError: it cannot be moved.
        """
        kept = self._linked.kept
        found = kept.take(path, files, self._files)
        if found is None or not kept.put_into(found, target, uid):
            return False
        self._add(path, found.links, found)
        return True

    def made(self, path: str, files: tuple[InputFile, ...], links: list[LinkedFile]) -> None:
        """Note a directory that was made, with the links that were placed in it."""
        is_whole = path != "" and len(links) == len(files) >= _FEWEST_KEPT
        self._add(path, links, Directory(path, files, links) if is_whole else None)

    def _add(self, path: str, links: list[LinkedFile], directory: Directory | None) -> None:
        self._files.update(links)
        self._of_directory[path] = links
        self._directories[path] = directory

    def complete(self, root: str) -> None:
        """Note what the directories are before the compile begins."""
        for path, directory in self._directories.items():
            if directory is not None:
                status = os.stat(f"{root}/{path}", follow_symlinks=False)
                directory.state = state_of(status)

    def place(
        self, digest: Digest, path: str, *, is_executable: bool, uid: int
    ) -> LinkedFile | None:
        """Make a path of the tree that has a blob's content. Return the file if it is a link.

        Raises:
            IntegrityError: the blob is damaged.
            OSError: there is no room.
        """
        file = self._linked.file(digest, is_executable=is_executable)
        if file not in self._files and self._link(file, path):
            return file
        self.copy(digest, path, is_executable=is_executable, uid=uid)
        return None

    def copy(self, digest: Digest, path: str, *, is_executable: bool, uid: int) -> None:
        """Make a path of the tree that the compile owns and may write. Returns no link.

        Raises:
            IntegrityError: the blob is damaged.
            OSError: there is no room.
        """
        self._linked.copy(digest, path, 0o755 if is_executable else 0o644, uid)

    def _link(self, file: LinkedFile, path: str) -> bool:
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

    def remove(self, root: str, around: str) -> None:
        """Remove `around`, in which the tree is at `root`. No process of the compile lives.

        Raises:
            OSError: something cannot be removed.
        """
        if any(directory and directory.state for directory in self._directories.values()):
            top = _Node()
            for path, directory in self._directories.items():
                top.add(path, directory)
            with suppress(FileNotFoundError):
                fd = os.open(root, OPEN_DIRECTORY)
                try:
                    self._keep(top, "", fd)
                finally:
                    os.close(fd)
        self._remove("", around)

    def _keep(self, node: _Node, path: str, fd: int) -> None:
        """Take the unchanged directories below an open directory out of the tree."""
        for name, child in node.below.items():
            try:
                below = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
            except OSError:
                continue  # the compile removed it
            try:
                directory = child.directory
                is_kept = directory is not None and directory.may_stay(below)
                at = f"{path}{name}"
                self._keep(child, f"{at}/", below)
                if is_kept:
                    # Nothing changed in it, so these are all its directories.
                    for rest in child.below:
                        if f"{at}/{rest}" in self._directories:
                            self._remove(f"{at}/{rest}", rest, below)
            finally:
                os.close(below)
            if is_kept and directory is not None:
                self._forget(at)
                self._linked.kept.keep(directory, name, fd)

    def _remove(self, path: str, name: str, fd: int | None = None) -> None:
        """Remove a directory with the tree's directories in it, of which `path` is the first."""
        gone = [at for at in self._directories if not path or f"{at}/".startswith(f"{path}/")]
        files = [file for at in gone for file in self._of_directory[at]]
        with one_link_less(files):
            remove_tree(name, dir_fd=fd)
        for at in gone:
            self._forget(at)

    def _forget(self, path: str) -> None:
        del self._directories[path]
        self._files.difference_update(self._of_directory.pop(path))


class _Node:
    """A directory of a tree, with those below it. Too deep ones are left out."""

    __slots__ = ("below", "directory")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.directory: Directory | None = None

    def add(self, path: str, directory: Directory | None) -> None:
        names = path.split("/") if path else []
        at = self
        for name in names[:_DEEPEST]:
            at = at.below.setdefault(name, _Node())
        if len(names) < _DEEPEST:
            at.directory = directory
