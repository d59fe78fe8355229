"""The files of one commit, each proved by the commit's id: what git would call its blobs.

Problem: a build claims a commit, and an auditor wants to know which files it has. A repository is
hostile: git in it would run filters and hooks, follow its configuration, fetch from a network, and
replace objects by others.

Rule: only objects are read, from the id of the commit down. The hash of each object is compared
with the name under which the one above it names it. So where an object lies does not matter, and a
repository can only lack objects. Nothing of the configuration, the index, `.gitattributes`,
replacements or grafts is read, and no program is started.

Example: `src/a.h` of commit 1f0c… is the entry `a.h` of the tree that is the entry `src` of the
commit's tree. A link of the commit is followed within the commit, as a compiler followed it.

What must never happen: the content of another commit counts; or a path leads out of the commit. In
a repository with SHA-1 the first is as hard as a second preimage of SHA-1 for who gets the id from
elsewhere; who chose the id as well can make two contents of one name.
"""

from __future__ import annotations

import enum
import hashlib
import os
from collections import deque
from typing import Final, NamedTuple, Self

from hpcc.cache.git.objects import BLOB, COMMIT, TAG, TREE, GitObjects, ObjectLimits
from hpcc.cache.git.reading import OBJECT_ID, GitError, TooLargeError
from hpcc.cache.git.refs import Repository, find_repository, named_object

MAX_FILE_BYTES: Final = 64 << 20
_LIMITS: Final = ObjectLimits(
    # With a loose object's head, and more than the most: what is cut there is noticed.
    object_bytes=MAX_FILE_BYTES + 64,
    inflated_bytes=512 << 20,
    # Twice what `git gc --aggressive` ever made; each takes two calls of the interpreter's stack.
    depth=250,
)
_MAX_TREE_BYTES: Final = 8 << 20
# Of all trees that paths lead through. The kernel's have 5 MB.
_MAX_TREES_BYTES: Final = 64 << 20
# Of a commit with 100,000 files of 100 kB.
_MAX_WORK_BYTES: Final = 16 << 30
_MAX_LINK_BYTES: Final = 4096
_MAX_LINKS: Final = 40
_MAX_TAGS: Final = 5
_MAX_LEVELS: Final = 64
_MAX_MODE_CHARS: Final = 7
_KINDS: Final = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
# By mode, of which the last three digits are permissions.
_DIRECTORY, _FILE, _LINK, _SUBMODULE = 0o40, 0o100, 0o120, 0o160


class NoFile(enum.Enum):
    """Why there is no content of a path."""

    # The commit has no such file, or the path leads out of it.
    ABSENT = "absent"
    SUBMODULE = "submodule"
    # The commit has it, and this repository lacks the object; or it is over a limit.
    UNREADABLE = "unreadable"


class MissingObjectError(GitError):
    """The repository lacks an object: it is shallow or partial."""


class _Entry(NamedTuple):
    mode: int
    name: bytes


def repository_around(directory: str) -> tuple[Repository, bytes]:
    """Return the repository that a directory is in, and the directory's path in its commits.

    The directory may also be a repository without a working tree, or a `.git`.

    Raises:
        GitError: there is none, or it is of a form that is not read.
    """
    start = level = os.path.realpath(os.fsencode(directory))
    for _ in range(_MAX_LEVELS):
        found = find_repository(level)
        if found is None and level == start and _is_bare(level):
            found = Repository(level, level)
        if found is not None:
            return found, start[len(level) :].strip(b"/")
        if level == b"/":
            break
        level = os.path.dirname(level)
    raise GitError(f"{directory!r} is in no git repository")


def _is_bare(directory: bytes) -> bool:
    return all(os.path.exists(directory + name) for name in (b"/HEAD", b"/objects", b"/refs"))


class CommitFiles:
    """The files below a directory of a commit. Used as a context manager; reads files only."""

    def __init__(self, repository: Repository, revision: str, below: bytes = b"") -> None:
        """Find a commit by its id, a tag, a branch or HEAD.

        Raises:
            GitError: there is no such commit, or it is damaged.
        """
        self._objects = GitObjects(repository, _LIMITS)
        self._below = [part for part in below.split(b"/") if part]
        self._trees: dict[bytes, dict[bytes, _Entry]] = {}
        self._room, self._work = _MAX_TREES_BYTES, _MAX_WORK_BYTES
        try:
            self._commit, self._root = self._found(named_object(repository, os.fsencode(revision)))
        except BaseException:
            self._objects.__exit__()
            raise

    @property
    def commit(self) -> str:
        """Return the commit's id in hexadecimal."""
        return self._commit.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._objects.__exit__()

    def content(self, path: str) -> bytes | NoFile:
        """Return the content of a file of the commit.

        Raises:
            GitError: an object is damaged; or one on the way is missing, or over a limit.
        """
        found = self._entry(os.fsencode(path))
        if isinstance(found, NoFile):
            return found
        try:
            return self._object(found.name, BLOB)
        except (MissingObjectError, TooLargeError):
            return NoFile.UNREADABLE

    def _found(self, name: bytes) -> tuple[bytes, bytes]:
        """Return the commit that an object is or leads to, and its tree."""
        for _ in range(_MAX_TAGS):
            kind, data = self._read(name)
            if kind == COMMIT:
                return name, _named(data, b"tree ")
            if kind != TAG:
                break
            name = _named(data, b"object ")
        raise GitError(f"{name.decode()} is not a commit")

    def _entry(self, path: bytes) -> _Entry | NoFile:
        trees, links = [self._root], 0
        left = deque([*self._below, *path.split(b"/")])
        while left:
            part = left.popleft()
            if part in {b"", b"."}:
                continue
            if part == b"..":
                trees.pop()
                if not trees:
                    return NoFile.ABSENT
                continue
            entry = self._tree(trees[-1]).get(part)
            kind = entry.mode >> 9 if entry is not None else 0
            if entry is None or (kind == _FILE and left) or kind == _SUBMODULE:
                return NoFile.SUBMODULE if kind == _SUBMODULE else NoFile.ABSENT
            if kind == _FILE:
                return entry
            if kind == _DIRECTORY:
                trees.append(entry.name)
            else:
                links += 1
                text = self._object(entry.name, BLOB)
                if links > _MAX_LINKS or len(text) > _MAX_LINK_BYTES or text.startswith(b"/"):
                    return NoFile.ABSENT
                left.extendleft(reversed(text.split(b"/")))
        return NoFile.ABSENT

    def _tree(self, name: bytes) -> dict[bytes, _Entry]:
        found = self._trees.get(name)
        if found is None:
            data = self._object(name, TREE)
            self._room -= len(data)
            if len(data) > _MAX_TREE_BYTES or self._room < 0:
                raise GitError("the trees of the commit are too large")
            found = self._trees[name] = _entries(data, len(name) // 2)
        return found

    def _object(self, name: bytes, kind: int) -> bytes:
        found, data = self._read(name)
        if found != kind:
            raise GitError(f"the object {name.decode()} is of another kind than the commit says")
        return data

    def _read(self, name: bytes) -> tuple[int, bytes]:
        found = self._objects.read_or_none(name)
        if found is None:
            raise MissingObjectError(f"the object {name.decode()} is not in this repository")
        kind, data = found
        self._work -= self._objects.inflated_bytes + len(data)
        if self._work < 0:
            raise GitError("reading this commit inflates too much")
        if len(data) > MAX_FILE_BYTES:
            raise TooLargeError(f"the object {name.decode()} is too large")
        if kind not in _KINDS:
            raise GitError(f"the object {name.decode()} is of no known kind")
        is_long = len(name) == 2 * hashlib.sha256().digest_size
        hasher = hashlib.sha256() if is_long else hashlib.sha1(usedforsecurity=False)
        hasher.update(b"%b %d\0" % (_KINDS[kind], len(data)))
        hasher.update(data)
        if hasher.hexdigest() != name.decode():
            raise GitError(f"the object {name.decode()} has another content than its name says")
        return kind, data


def _named(data: bytes, word: bytes) -> bytes:
    """Return the object that the first line of a commit or tag names."""
    line = data[:128].partition(b"\n")[0]
    name = line.removeprefix(word)
    if name == line or not OBJECT_ID.fullmatch(name):
        raise GitError("a commit or tag has another form")
    return name


def _entries(data: bytes, id_bytes: int) -> dict[bytes, _Entry]:
    """Parse a tree.

    Raises:
        GitError: it has another form, or two entries of one name.
    """
    found: dict[bytes, _Entry] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + _MAX_MODE_CHARS)
        end = data.find(b"\0", space)
        mode, name = data[at:space], data[space + 1 : end]
        at = end + 1 + id_bytes
        if space < 0 or end < 0 or at > len(data) or mode.strip(b"01234567") or not mode:
            raise GitError("a tree has another form")
        if name in found:
            raise GitError("a tree has two entries of one name")
        value = int(mode, 8)
        if value >> 9 not in {_DIRECTORY, _FILE, _LINK, _SUBMODULE}:
            raise GitError("a tree has an entry of no known kind")
        found[name] = _Entry(value, data[at - id_bytes : at].hex().encode())
    return found
