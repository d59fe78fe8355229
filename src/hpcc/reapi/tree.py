"""Input trees: encodes flat file lists as Merkle `Directory` messages, and parses them bounded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import (
    MAX_INPUTS,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    Digest,
    InputFile,
    InputPart,
    check_guest_path,
)
from hpcc.reapi.digests import digest_from_proto, parse_message
from hpcc.reapi.limits import (
    MAX_DIRECTORIES,
    MAX_DIRECTORY_BYTES,
    MAX_TREE_BYTES,
    MAX_TREE_DEPTH,
    MAX_TREE_PATH_BYTES,
    ReapiError,
)

_FORBIDDEN_NAMES: Final = frozenset({"", ".", ".."})


@dataclass(frozen=True, slots=True)
class InputTree:
    """A tree's root digest and every `Directory` message in it, by digest.

    `changed` has the digests that the base tree lacks, with the path of one place of each.
    """

    root: Digest
    directories: Mapping[Digest, bytes]
    changed: Mapping[Digest, str]


@dataclass(slots=True)
class _Node:
    """A directory. `encoded` and `digest` are set once, when everything below is complete."""

    files: dict[str, bytes] = field(default_factory=dict)
    children: dict[str, _Node] = field(default_factory=dict)
    encoded: bytes = b""
    digest: Digest | None = None


def build_tree(files: Iterable[InputFile], empty_directories: Iterable[str] = ()) -> InputTree:
    """Build the canonical tree; equal sets of files give equal digests in any order.

    `empty_directories` are added even if no file is in them (a working directory, for example).

    Raises:
        CallerError: a path is not normal, occurs twice, or is both a file and a directory.
    """
    return TreeBase(()).with_files(files, empty_directories)


class TreeBase:
    """A base for several trees. Shared directories are encoded and hashed once."""

    def __init__(self, files: Iterable[InputFile], empty_directories: Iterable[str] = ()) -> None:
        self._root = _Node()
        _fill(self._root, files, empty_directories, None)
        _encode(self._root, {}, "", 0)

    def with_files(
        self, files: Iterable[InputFile], empty_directories: Iterable[str] = ()
    ) -> InputTree:
        """Return this tree with more files; the base stays unchanged.

        Raises:
            CallerError: as `build_tree`.
        """
        root = _copy(self._root)
        _fill(root, files, empty_directories, {id(root)})
        changed: dict[Digest, str] = {}
        digest = _encode(root, changed, "", 0)
        directories: dict[Digest, bytes] = {}
        _collect(root, directories)
        return InputTree(digest, directories, changed)


def _collect(node: _Node, directories: dict[Digest, bytes]) -> None:
    assert node.digest is not None
    directories[node.digest] = node.encoded
    for child in node.children.values():
        _collect(child, directories)


def _copy(node: _Node) -> _Node:
    return _Node(dict(node.files), dict(node.children))


def _fill(
    root: _Node,
    files: Iterable[InputFile],
    empty_directories: Iterable[str],
    own: set[int] | None,
) -> None:
    """Add files. With `own`, nodes whose id is not in it are shared, and are copied first."""
    for file in files:
        *parents, name = check_guest_path(file.path).split("/")
        node = _descend(root, parents, file.path, own)
        if name in node.files or name in node.children:
            raise ReapiError(f"two inputs at {file.path[:120]!r}", reason="duplicate-input")
        node.files[name] = _file_entry(name, file.digest, is_executable=file.is_executable)
    for path in empty_directories:
        if path:
            _descend(root, check_guest_path(path).split("/"), path, own)


def _descend(node: _Node, parents: Iterable[str], path: str, own: set[int] | None) -> _Node:
    for part in parents:
        if part in node.files:
            raise ReapiError(f"{path[:120]!r} goes through a file", reason="duplicate-input")
        child = node.children.get(part)
        if child is None or (own is not None and id(child) not in own):
            child = node.children[part] = _Node() if child is None else _copy(child)
            if own is not None:
                own.add(id(child))
        node = child
    return node


def _encode(node: _Node, places: dict[Digest, str], path: str, depth: int) -> Digest:
    if node.digest is not None:
        return node.digest
    if depth > MAX_TREE_DEPTH:
        raise ReapiError(f"input tree is deeper than {MAX_TREE_DEPTH} levels")
    # Order by code point, which equals the order of the UTF-8 bytes.
    parts = [entry for _, entry in sorted(node.files.items())]
    for name in sorted(node.children):
        child = _encode(node.children[name], places, f"{path}/{name}", depth + 1)
        parts.append(_field(_DIRECTORIES, _field(_NAME, name.encode()) + _digest_field(child)))
    node.encoded = b"".join(parts)
    node.digest = digest = Digest.of(node.encoded)
    places[digest] = path
    return digest


# Tags of length-delimited fields in remote_execution.proto: Directory.files = 1, .directories = 2;
# FileNode and DirectoryNode: name = 1, digest = 2; Digest.hash = 1. Then varints: Digest.size_bytes
# = 2, FileNode.is_executable = 4. This encodes by hand, because a message object per file costs
# more than the rest of building a compile's tree. tests/unit/reapi/test_core.py compares the bytes
# with protobuf's.
_FILES, _DIRECTORIES, _NAME, _DIGEST, _HASH = b"\x0a", b"\x12", b"\x0a", b"\x12", b"\x0a"
_SIZE, _IS_EXECUTABLE = b"\x10", b"\x20\x01"


def _file_entry(name: str, digest: Digest, *, is_executable: bool) -> bytes:
    body = _field(_NAME, name.encode()) + _digest_field(digest)
    return _field(_FILES, body + _IS_EXECUTABLE if is_executable else body)


def _digest_field(digest: Digest) -> bytes:
    body = _field(_HASH, digest.hash.encode())
    return _field(_DIGEST, body + _SIZE + _varint(digest.size_bytes) if digest.size_bytes else body)


def _field(tag: bytes, body: bytes) -> bytes:
    return tag + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits to a byte
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


@dataclass(frozen=True, slots=True)
class DirectoryListing:
    """One directory: its files, whose paths are plain names, and (name, digest) of its children."""

    files: tuple[InputFile, ...]
    directories: tuple[tuple[str, Digest], ...]

    def path_chars(self, prefix: str) -> int:
        """Return the characters of the files' paths if the directory is at `prefix`."""
        before = len(prefix) + 1 if prefix else 0
        return sum(len(f.path) for f in self.files) + before * len(self.files)


def place_directory(digest: Digest, listing: DirectoryListing, prefix: str) -> InputPart:
    """Return the files of a directory that is at `prefix` below the root.

    Raises:
        ReapiError: a path is too long.
    """
    files = (InputFile(_join(prefix, f.path), f.digest, f.is_executable) for f in listing.files)
    return InputPart(digest, tuple(files))


def parse_directory(data: bytes) -> DirectoryListing:
    """Parse one `Directory` from a hostile peer.

    Raises:
        ReapiError: a name contains `/` or NUL, or is empty, `.`, `..` or too long; names are
            unsorted or occur twice; there are symlinks or properties; one hash has two sizes; or a
            limit is exceeded.
    """
    message = parse_message(pb.Directory, data, MAX_DIRECTORY_BYTES)
    if message.symlinks:
        raise ReapiError("symlinks are not allowed in an input tree", reason="symlink-input")
    if message.HasField("node_properties") or any(
        f.HasField("node_properties") for f in message.files
    ):
        raise ReapiError("node properties are not supported", reason="node-properties")
    if len(message.files) + len(message.directories) > MAX_INPUTS:
        raise ReapiError(f"more than {MAX_INPUTS} entries in one directory")
    _check_names([f.name for f in message.files], [d.name for d in message.directories])
    files = tuple(
        InputFile(f.name, digest_from_proto(f.digest), f.is_executable) for f in message.files
    )
    # Blobs are asked for by hash: the right size would vouch for the wrong one, at which the agent
    # gives the exec up, and its host the guest.
    if len({f.digest.hash for f in files}) != len({f.digest for f in files}):
        raise ReapiError("a directory gives one hash two sizes", reason="bad-digest")
    return DirectoryListing(
        files,
        tuple((d.name, digest_from_proto(d.digest)) for d in message.directories),
    )


def _check_names(files: list[str], directories: list[str]) -> None:
    for names in (files, directories):
        encoded = [name.encode() for name in names]
        for name, raw in zip(names, encoded, strict=True):
            if name in _FORBIDDEN_NAMES or "/" in name or "\0" in name or len(raw) > MAX_NAME_BYTES:
                raise ReapiError("a directory holds a forbidden name", reason="bad-name")
        if any(a >= b for a, b in itertools.pairwise(encoded)):
            raise ReapiError("names of a directory are not sorted and unique", reason="bad-order")
    if set(files) & set(directories):
        raise ReapiError("a name is file and directory at once", reason="bad-order")


class TreeWalk:
    """Turns a root digest into a flat file list, one set of directories at a time.

    Sans-IO: while `wanted` is not empty, the caller passes each of those blobs to `feed`, or what
    `parse_directory` made of it to `add`. Every limit is checked before more directories are
    wanted, so that a small tree of shared subtrees cannot expand without limit.
    """

    def __init__(
        self,
        root: Digest,
        place: Callable[[Digest, DirectoryListing, str], InputPart] = place_directory,
    ) -> None:
        """Start at a root. `place` does what `place_directory` does, or remembers it.

        Raises:
            ReapiError: the digest's size is over the limit of a directory.
        """
        _check_directory(root)
        self._place_one = place
        self._parts: list[InputPart] = []
        self._count = 0
        self._directories: set[Digest] = set()
        self._empty: list[str] = []
        self._waiting: dict[Digest, list[tuple[str, int]]] = {root: [("", 0)]}
        self._places = 1
        self._bytes = self._path_bytes = 0

    @property
    def wanted(self) -> tuple[Digest, ...]:
        """Return the digests of the directories to pass to `feed` next."""
        return tuple(self._waiting)

    @property
    def files(self) -> tuple[InputFile, ...]:
        """Return the files so far, with paths from the root; complete when `wanted` is empty."""
        return tuple(itertools.chain.from_iterable(part.files for part in self._parts))

    @property
    def parts(self) -> tuple[InputPart, ...]:
        """Return the same files by directory and place."""
        return tuple(self._parts)

    @property
    def empty_directories(self) -> tuple[str, ...]:
        """Return the paths of the directories so far that hold nothing, without the root."""
        return tuple(self._empty)

    @property
    def directories(self) -> frozenset[Digest]:
        """Return the digests of the directories so far, each once."""
        return frozenset(self._directories)

    def feed(self, digest: Digest, data: bytes) -> None:
        """Add one wanted directory. The caller has checked `data` against `digest`.

        Raises:
            ReapiError: the directory breaks a rule, or the whole tree is over a limit.
        """
        self._count_bytes(digest)
        self._place(digest, parse_directory(data))

    def add(self, digest: Digest, listing: DirectoryListing) -> None:
        """Add one wanted directory that was parsed before.

        Raises:
            ReapiError: the whole tree is over a limit.
        """
        self._count_bytes(digest)
        self._place(digest, listing)

    def _count_bytes(self, digest: Digest) -> None:
        self._bytes += digest.size_bytes
        if self._bytes > MAX_TREE_BYTES:
            raise ReapiError("input tree is too large", reason="tree-limit")

    def _place(self, digest: Digest, listing: DirectoryListing) -> None:
        places = self._waiting.pop(digest)
        self._directories.add(digest)
        for prefix, depth in places:
            if depth > MAX_TREE_DEPTH:
                raise ReapiError("input tree is too deep", reason="tree-limit")
            self._count += len(listing.files)
            if self._count > MAX_INPUTS:
                raise ReapiError(f"more than {MAX_INPUTS} inputs", reason="tree-limit")
            is_empty = bool(prefix) and not listing.files and not listing.directories
            self._path_bytes += len(prefix) if is_empty else listing.path_chars(prefix)
            if self._path_bytes > MAX_TREE_PATH_BYTES:
                raise ReapiError("paths of the input tree are too long", reason="tree-limit")
            self._parts.append(self._place_one(digest, listing, prefix))
            if is_empty:
                self._empty.append(prefix)
            for name, child in listing.directories:
                _check_directory(child)
                self._places += 1
                if self._places > MAX_DIRECTORIES:
                    raise ReapiError("input tree is too large", reason="tree-limit")
                self._waiting.setdefault(child, []).append((_join(prefix, name), depth + 1))


def _check_directory(digest: Digest) -> None:
    # Checked before the blob is read, which may have hundreds of megabytes.
    if digest.size_bytes > MAX_DIRECTORY_BYTES:
        raise ReapiError("a directory is too large", reason="tree-limit")


def _join(prefix: str, name: str) -> str:
    path = f"{prefix}/{name}" if prefix else name
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ReapiError("a path of the input tree is too long", reason="tree-limit")
    return path
