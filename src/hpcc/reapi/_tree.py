"""Input trees: flat file lists in, Merkle `Directory` messages out, and back under bounds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import (
    MAX_INPUTS,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    Digest,
    InputFile,
    check_guest_path,
)
from hpcc.reapi._digests import digest_from_proto, digest_to_proto, parse_message
from hpcc.reapi._limits import (
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
    """A tree's root digest and every `Directory` message in it, by digest."""

    root: Digest
    directories: Mapping[Digest, bytes]


@dataclass(slots=True)
class _Node:
    files: dict[str, InputFile] = field(default_factory=dict)
    children: dict[str, _Node] = field(default_factory=dict)


def build_tree(files: Iterable[InputFile], empty_directories: Iterable[str] = ()) -> InputTree:
    """Build the canonical tree; equal sets of files give equal digests in any order.

    `empty_directories` must exist without a file in them (a working directory, say).

    Raises:
        CallerError: a path is not normal, occurs twice, or is file and directory at once.
    """
    root = _Node()
    for file in files:
        *parents, name = check_guest_path(file.path).split("/")
        node = _descend(root, parents, file.path)
        if name in node.files or name in node.children:
            raise ReapiError(f"two inputs at {file.path[:120]!r}", reason="duplicate-input")
        node.files[name] = file
    for path in empty_directories:
        if path:
            _descend(root, check_guest_path(path).split("/"), path)
    directories: dict[Digest, bytes] = {}
    return InputTree(_encode(root, directories, 0), directories)


def _descend(node: _Node, parents: Iterable[str], path: str) -> _Node:
    for part in parents:
        if part in node.files:
            raise ReapiError(f"{path[:120]!r} goes through a file", reason="duplicate-input")
        node = node.children.setdefault(part, _Node())
    return node


def _encode(node: _Node, directories: dict[Digest, bytes], depth: int) -> Digest:
    if depth > MAX_TREE_DEPTH:
        raise ReapiError(f"input tree is deeper than {MAX_TREE_DEPTH} levels")
    message = pb.Directory()
    for name in sorted(node.files, key=str.encode):
        file = node.files[name]
        entry = message.files.add(name=name, digest=digest_to_proto(file.digest))
        if file.is_executable:
            entry.is_executable = True
    for name in sorted(node.children, key=str.encode):
        child = _encode(node.children[name], directories, depth + 1)
        message.directories.add(name=name, digest=digest_to_proto(child))
    data = message.SerializeToString(deterministic=True)
    digest = Digest.of(data)
    directories[digest] = data
    return digest


@dataclass(frozen=True, slots=True)
class DirectoryListing:
    """One directory: its files, paths being plain names, and (name, digest) of its children."""

    files: tuple[InputFile, ...]
    directories: tuple[tuple[str, Digest], ...]


def parse_directory(data: bytes) -> DirectoryListing:
    """Read one `Directory` from a hostile peer.

    Raises:
        ReapiError: a name with `/`, `.` or `..`, unsorted or double names, symlinks,
            properties, or over a limit.
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
    return DirectoryListing(
        tuple(
            InputFile(f.name, digest_from_proto(f.digest), f.is_executable) for f in message.files
        ),
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
    """Turns a root digest into a flat file list, asking for one set of directories at a time.

    Sans-IO: while `wanted` is not empty, give each of those blobs to `feed`. Every bound is
    checked before more is asked for, so that a tree of shared subtrees cannot explode.
    """

    def __init__(self, root: Digest) -> None:
        """Start at a root.

        Raises:
            ReapiError: no directory is so large.
        """
        _check_directory(root)
        self._files: list[InputFile] = []
        self._waiting: dict[Digest, list[tuple[str, int]]] = {root: [("", 0)]}
        self._places = 1
        self._bytes = self._path_bytes = 0

    @property
    def wanted(self) -> tuple[Digest, ...]:
        return tuple(self._waiting)

    @property
    def files(self) -> tuple[InputFile, ...]:
        """Every file, with its path from the root; complete once nothing is wanted."""
        return tuple(self._files)

    def feed(self, digest: Digest, data: bytes) -> None:
        """Take the bytes of one wanted directory, already checked against its digest.

        Raises:
            ReapiError: they break a rule or the whole tree is over a limit.
        """
        places = self._waiting.pop(digest)
        self._bytes += len(data)
        if self._bytes > MAX_TREE_BYTES:
            raise ReapiError("input tree is too large", reason="tree-limit")
        listing = parse_directory(data)
        for prefix, depth in places:
            if depth > MAX_TREE_DEPTH:
                raise ReapiError("input tree is too deep", reason="tree-limit")
            if len(self._files) + len(listing.files) > MAX_INPUTS:
                raise ReapiError(f"more than {MAX_INPUTS} inputs", reason="tree-limit")
            for file in listing.files:
                path = _join(prefix, file.path)
                self._path_bytes += len(path)
                if self._path_bytes > MAX_TREE_PATH_BYTES:
                    raise ReapiError("paths of the input tree are too long", reason="tree-limit")
                self._files.append(InputFile(path, file.digest, file.is_executable))
            for name, child in listing.directories:
                _check_directory(child)
                self._places += 1
                if self._places > MAX_DIRECTORIES:
                    raise ReapiError("input tree is too large", reason="tree-limit")
                self._waiting.setdefault(child, []).append((_join(prefix, name), depth + 1))


def _check_directory(digest: Digest) -> None:
    # Before anybody reads it: a blob may have hundreds of megabytes.
    if digest.size_bytes > MAX_DIRECTORY_BYTES:
        raise ReapiError("a directory is too large", reason="tree-limit")


def _join(prefix: str, name: str) -> str:
    path = f"{prefix}/{name}" if prefix else name
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ReapiError("a path of the input tree is too long", reason="tree-limit")
    return path
