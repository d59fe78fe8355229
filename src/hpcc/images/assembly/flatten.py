"""Flattens OCI layers into one clean tar stream.

Each layer's blob is read twice. The first pass reads headers and builds the final tree, the second
streams the contents of the files that are in it. Nothing is extracted to disk. The entry limit
bounds memory; the byte budget bounds time and disk.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc.images.assembly.tree import Node, Tree
from hpcc.images.base.limits import FlattenLimits
from hpcc.images.base.tar import BLOCK_BYTES, MemberKind, TarReader
from hpcc.images.oci.blobfile import ByteBudget, LayerFile, open_layer

_TYPES: Final = {
    MemberKind.FILE: tarfile.REGTYPE,
    MemberKind.DIRECTORY: tarfile.DIRTYPE,
    MemberKind.SYMLINK: tarfile.SYMTYPE,
}


class Writable(Protocol):
    """The destination of the clean tar."""

    def write(self, data: bytes, /) -> object:
        """Write all bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenReport:
    """The counts of one run. `dropped` counts what was left out, by kind."""

    entries: int
    files: int
    directories: int
    symlinks: int
    hard_links: int
    dropped: tuple[tuple[str, int], ...]


def flatten(
    layers: Sequence[LayerFile],
    out: Writable,
    *,
    limits: FlattenLimits | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    measured: Callable[[int], None] = lambda _bytes: None,
) -> FlattenReport:
    """Write one tar with the final tree of `layers` (bottom first) to `out`.

    `progress` gets compressed bytes done and in total, over both passes. `measured` is called once
    before the first write, with an upper bound of the bytes to write; it may raise.

    Raises:
        IntegrityError: a layer is damaged, truncated or hostile; what was already written must
            not be used.
    """
    job = _Flattening(layers, out, limits or FlattenLimits(), progress)
    measured(job.read_trees())
    job.write_names()
    job.write_contents()
    return job.report()


class _Flattening:
    """One run: the tree, and the paths of each inode in it."""

    def __init__(
        self,
        layers: Sequence[LayerFile],
        out: Writable,
        limits: FlattenLimits,
        progress: Callable[[int, int], None],
    ) -> None:
        self._layers, self._out, self._limits = layers, out, limits
        self._progress = progress
        self._done_bytes = 0
        self._tree = Tree(limits)
        self._inodes: list[dict[int, int]] = []
        self._paths: dict[int, list[tuple[str, Node]]] = {}
        self._counts = dict.fromkeys(("files", "directories", "symlinks", "hard_links"), 0)

    def read_trees(self) -> int:
        """Build the tree; return the uncompressed bytes of all layers."""
        budget = ByteBudget(self._limits.stream_bytes)
        for layer in self._layers:
            with open_layer(layer, budget) as source:
                reader = TarReader(source, label=_label(layer))
                self._inodes.append(self._tree.apply(reader.members()))
            self._step(layer)
        self._tree.finish()
        return budget.spent_bytes

    def write_names(self) -> None:
        """Write directories and symlinks, and collect the paths of files."""
        for path, node in self._tree.walk():
            if node.kind is MemberKind.FILE:
                self._paths.setdefault(node.inode, []).append((path, node))
            else:
                self._header(path, node, _TYPES[node.kind], link=node.link)
                is_directory = node.kind is MemberKind.DIRECTORY
                self._counts["directories" if is_directory else "symlinks"] += 1

    def write_contents(self) -> None:
        """Write each file of the tree once, followed by its other names as hard links."""
        budget = ByteBudget(self._limits.stream_bytes)
        for layer, inodes in zip(self._layers, self._inodes, strict=True):
            with open_layer(layer, budget) as source:
                reader = TarReader(source, label=_label(layer))
                for position, member in enumerate(reader.members()):
                    names = self._paths.get(inodes.get(position, -1))
                    if names:
                        self._file(names, member.size_bytes, reader)
            self._step(layer)
        self._out.write(bytes(2 * BLOCK_BYTES))

    def report(self) -> FlattenReport:
        """Return the counts."""
        return FlattenReport(
            entries=self._tree.entry_count,
            dropped=tuple(sorted(self._tree.dropped.items())),
            **self._counts,
        )

    def _file(self, names: list[tuple[str, Node]], size: int, reader: TarReader) -> None:
        (first, node), *others = names
        self._header(first, node, tarfile.REGTYPE, size=size)
        for chunk in reader.content():
            self._out.write(chunk)
        self._out.write(bytes(-size % BLOCK_BYTES))
        self._counts["files"] += 1
        for path, other in others:
            self._header(path, other, tarfile.LNKTYPE, link=first)
            self._counts["hard_links"] += 1

    def _header(self, path: str, node: Node, kind: bytes, *, size: int = 0, link: str = "") -> None:
        info = tarfile.TarInfo(path)
        info.type, info.size, info.linkname = kind, size, link
        info.mode, info.uid, info.gid = node.mode, node.uid, node.gid
        # Times are dropped, so that equal trees give equal images. mkfs.erofs sets one time.
        info.mtime = 0
        self._out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _step(self, layer: LayerFile) -> None:
        self._done_bytes += layer.digest.size_bytes
        self._progress(self._done_bytes, 2 * sum(one.digest.size_bytes for one in self._layers))


def _label(layer: LayerFile) -> str:
    return f"layer sha256:{layer.digest.hash[:12]}"
