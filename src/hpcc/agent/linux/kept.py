"""Directories of links that a compile left as they were, for the next tree with the same ones.

The problem: nearly all inputs of a compile are headers, in directories that no compile writes to.
To link each of them again and to remove each link afterwards is most of the work on a tree.

The rule:

- A directory is kept if all its files are links to blobs, and if nothing about it changed since its
  tree was complete: inode, mode, owner, size, number of links, mtime and ctime. Any name that comes
  or goes sets ctime, and so do a change of mode, owner, times or attributes, and a move. Only the
  kernel sets ctime. `hpcc-init` starts a program after the clock's next tick, so that no change of
  a program can have the ctime of the agent's last change.
- Its directories are taken out or removed first, so that only its files stay.
- It is taken for the same path with exactly the same files in the same order, never for others.
- Before that each name in it is compared with what is known about its blob, as before a link.
- It waits where only root can enter. It gets new times and the next compile's owner.
- What waits is bounded. A blob that is evicted takes its directories along.

Example: a compile adds `extra.h` beside its headers and removes it again. The directory has another
ctime, so it is removed with the tree, and the next compile gets a new one.

What must never happen: a tree shows a name, a mark or an order of names that a compile made; a
waiting directory keeps the room of a blob that was evicted.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Set as AbstractSet
from typing import Final

from hpcc.agent.linux.linked_file import LinkedFile, one_link_less, seen_of
from hpcc.agent.linux.removal import OPEN_DIRECTORY, remove_tree
from hpcc.core import InputFile

_MOST_NAMES: Final = 8192
_MOST_OF_ONE_PATH: Final = 4
# Attributes that only the system sets.
_SYSTEMS_OWN: Final = "security."

type _State = tuple[int, ...]


class Directory:
    """A directory whose files are links, one for each of `files` in their order.

    `state` is what it was when its tree was complete.
    """

    __slots__ = ("files", "hashes", "links", "path", "place", "state")

    def __init__(self, path: str, files: tuple[InputFile, ...], links: list[LinkedFile]) -> None:
        self.path, self.files, self.links = path, files, links
        self.hashes = frozenset(link.digest.hash for link in links)
        self.state: _State | None = None
        self.place = ""

    def may_stay(self, fd: int) -> bool:
        """Return whether the open directory is this one, as it was when its tree was complete.

        It may not stay with a link to an evicted blob, whose room it would keep.
        """
        return (
            self.state is not None
            and self.state == state_of(os.fstat(fd))
            and all(name.startswith(_SYSTEMS_OWN) for name in _attributes(fd))
            and not any(link.is_evicted for link in self.links)
        )

    def has_right_files(self, fd: int) -> bool:
        """Return whether each name in the open directory is a blob about which all is known."""
        start = len(self.path) + 1
        for file, link in zip(self.files, self.links, strict=True):
            status = os.stat(file.path[start:], dir_fd=fd, follow_symlinks=False)
            if seen_of(status) != link.seen:
                return False
        return True


def _attributes(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []


def state_of(status: os.stat_result) -> _State:
    """Return what changes with a directory's names, owner, mode, times or attributes."""
    return (
        status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_mode, status.st_uid,
        status.st_gid, status.st_size, status.st_nlink,
    )  # fmt: skip


class KeptDirectories:
    """The directories of one guest that wait for their next tree, in a directory of root's."""

    def __init__(self, directory: str) -> None:
        self._directory, self._count, self._names = directory, 0, 0
        os.mkdir(directory, 0o700)
        # The one that waits longest is the first, of all and of each path.
        self._waiting: OrderedDict[str, Directory] = OrderedDict()
        self._of_path: dict[str, list[Directory]] = {}

    def take(
        self, path: str, files: tuple[InputFile, ...], taken: AbstractSet[LinkedFile]
    ) -> Directory | None:
        """Return a directory with these files, which `put_into` then moves; None if none waits.

        `taken` has the files to which its tree has links already.
        """
        for found in self._of_path.get(path, ()):
            if found.files == files and taken.isdisjoint(found.links):
                self._forget(found)
                return found
        return None

    def put_into(self, found: Directory, target: str, uid: int) -> bool:
        """Move a directory to a tree and give it to `uid`. If its files are not right, remove it.

        Raises:
            OSError: it cannot be moved.
        """
        fd = os.open(found.place, OPEN_DIRECTORY)
        try:
            is_right = found.has_right_files(fd)
            if is_right:
                os.chown(fd, uid, uid)
                os.utime(fd)
        finally:
            os.close(fd)
        if is_right:
            os.rename(found.place, target)
        else:
            self._remove(found)
        return is_right

    def keep(self, directory: Directory, name: str, parent_fd: int) -> None:
        """Move a directory that has only its files out of a tree.

        Raises:
            OSError: it cannot be moved.
        """
        self._count += 1
        directory.place, directory.state = f"{self._directory}/{self._count}", None
        os.rename(name, directory.place, src_dir_fd=parent_fd)
        self._waiting[directory.place] = directory
        of_path = self._of_path.setdefault(directory.path, [])
        of_path.append(directory)
        self._names += len(directory.files)
        if len(of_path) > _MOST_OF_ONE_PATH:
            self._drop(of_path[0])
        while self._names > _MOST_NAMES:
            self._drop(next(iter(self._waiting.values())))

    def evicted(self, name: str) -> None:
        """Remove the directories that have a blob with this hash."""
        for directory in list(self._waiting.values()):
            if name in directory.hashes:
                self._drop(directory)

    def _drop(self, directory: Directory) -> None:
        self._forget(directory)
        self._remove(directory)

    def _forget(self, directory: Directory) -> None:
        del self._waiting[directory.place]
        of_path = self._of_path[directory.path]
        of_path.remove(directory)
        if not of_path:
            del self._of_path[directory.path]
        self._names -= len(directory.files)

    @staticmethod
    def _remove(directory: Directory) -> None:
        with one_link_less(directory.links):
            remove_tree(directory.place)
