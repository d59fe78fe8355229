"""Builds the final tree of an image in memory from the members of its layers.

Rules: OCI image specification 1.1, "Image Layer Filesystem Changeset". Whiteouts of a layer act
only on the layers below it, at any place in the archive. So the whiteouts of a layer are applied
first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from hpcc.core import IntegrityError
from hpcc.images.base.limits import FlattenLimits
from hpcc.images.base.tar import ArchiveMember, MemberKind, shown

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
# AUFS bookkeeping of old Docker versions, which is not content.
_AUFS: Final = ".wh..wh."
# Without setuid and setgid: no process in a guest may gain rights from a file of the image.
_MODE_MASK: Final = 0o1777
_SETID: Final = 0o6000

# (path, mode) of the directories that the guest's init and agent mount over. They are created here,
# so that they exist and are directories in every image.
MOUNT_POINTS: Final = (
    ("dev", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("run", 0o755),
    ("src", 0o755),
    ("out", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    (".hpcc", 0o755),
)
# These are emptied. Other file systems are mounted over them, so their content has no use.
_EMPTIED: Final = ("dev", "proc", "sys", ".hpcc")


@dataclass(slots=True, kw_only=True)
class Node:
    """One name in the tree. Hard links to the same file share `inode`."""

    kind: MemberKind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    link: str = ""
    inode: int = -1
    children: dict[str, Self] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    member: ArchiveMember
    parts: tuple[str, ...]
    inode: int


def split_name(name: str, limits: FlattenLimits, *, what: str = "name") -> tuple[str, ...]:
    """Split a member's name into components.

    Raises:
        IntegrityError: the name is absolute, contains `..` or NUL, or is over a limit.
    """
    if name.startswith("/"):
        raise IntegrityError(
            f"absolute {what} {shown(name)} in a layer: names must be relative",
            reason="tar-absolute-name",
        )
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if ".." in parts:
        raise IntegrityError(
            f"'..' in the {what} {shown(name)} of a layer", reason="tar-parent-name"
        )
    if (
        "\0" in name
        or len(os.fsencode(name)) > limits.path_bytes
        or len(parts) > limits.depth
        or any(len(os.fsencode(part)) > limits.name_bytes for part in parts)
    ):
        raise IntegrityError(
            f"{what} {shown(name)} in a layer is longer or deeper than a file system holds",
            reason="tar-name-limit",
        )
    return parts


class Tree:
    """The tree of an image. Call `apply` for each layer, bottom first, and then `finish`."""

    def __init__(self, limits: FlattenLimits) -> None:
        self.root: Final = Node(kind=MemberKind.DIRECTORY)
        self.entry_count = 0
        self.dropped: Final[dict[str, int]] = {}
        self._limits = limits
        self._inode_count = 0

    def apply(self, members: Sequence[ArchiveMember] | Iterator[ArchiveMember]) -> dict[int, int]:
        """Add one layer. Return the inode of each file by its member's position in the archive.

        Raises:
            IntegrityError: an entry is refused; the text has its name.
        """
        whiteouts: list[tuple[str, ...]] = []
        entries: list[_Entry] = []
        inodes: dict[int, int] = {}
        for position, member in enumerate(members):
            self._count()
            parts = split_name(member.name, self._limits)
            if not parts:
                continue  # the root itself, whose owner and mode are fixed
            if parts[-1].startswith(_WHITEOUT):
                whiteouts.append(parts)
                continue
            inode = -1
            if member.kind is MemberKind.FILE:
                inode = inodes[position] = self._inode_count
                self._inode_count += 1
            entries.append(_Entry(member, parts, inode))
        for parts in whiteouts:
            self._whiteout(parts)
        for entry in entries:
            self._add(entry)
        return inodes

    def finish(self) -> None:
        """Turn the guest's mount points into directories, and empty some of them."""
        for path, mode in MOUNT_POINTS:
            node, children = self.root, self.root.children
            for part in path.split("/"):
                found = children.get(part)
                if found is None or found.kind is not MemberKind.DIRECTORY:
                    if found is not None:
                        self._drop("replaced mount point")
                    found = children[part] = Node(kind=MemberKind.DIRECTORY)
                node, children = found, found.children
            node.mode, node.uid, node.gid = mode, 0, 0
            if path in _EMPTIED and node.children:
                self._drop(f"content of /{path}")
                node.children.clear()

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Yield every path with its node: parents before children, sorted within a directory."""
        stack: list[tuple[str, Node]] = [("", self.root)]
        while stack:
            prefix, directory = stack.pop()
            for name, node in sorted(directory.children.items()):
                yield prefix + name, node
                if node.kind is MemberKind.DIRECTORY:
                    stack.append((f"{prefix}{name}/", node))

    def _count(self) -> None:
        self.entry_count += 1
        if self.entry_count > self._limits.entries:
            raise IntegrityError(
                f"the image has more than {self._limits.entries} entries: refused",
                reason="too-many-entries",
            )

    def _drop(self, what: str) -> None:
        self.dropped[what] = self.dropped.get(what, 0) + 1

    def _whiteout(self, parts: tuple[str, ...]) -> None:
        *up, base = parts
        directory = self._directory(up, make=False)
        if directory is None:
            return
        if base == _OPAQUE:
            directory.children.clear()
        elif not base.startswith(_AUFS):
            directory.children.pop(base.removeprefix(_WHITEOUT), None)

    def _add(self, entry: _Entry) -> None:
        member = entry.member
        if member.kind is MemberKind.DEVICE:
            self._drop("device or fifo")
            return
        *up, base = entry.parts
        directory = self._directory(up, make=True)
        assert directory is not None
        old = directory.children.get(base)
        if member.kind is MemberKind.HARD_LINK:
            directory.children[base] = self._hard_link(member)
            return
        if member.mode & _SETID:
            self._drop("setuid or setgid bit")
        node = Node(
            kind=member.kind,
            mode=member.mode & _MODE_MASK,
            uid=member.uid,
            gid=member.gid,
            inode=entry.inode,
        )
        if member.kind is MemberKind.SYMLINK:
            node.link = self._symlink_target(member)
        elif (
            member.kind is MemberKind.DIRECTORY
            and old is not None
            and old.kind is MemberKind.DIRECTORY
        ):
            node.children = old.children
        directory.children[base] = node

    def _symlink_target(self, member: ArchiveMember) -> str:
        size = len(os.fsencode(member.link))
        if not 0 < size <= self._limits.symlink_bytes or "\0" in member.link:
            raise IntegrityError(
                f"symbolic link {shown(member.name)} in a layer has an impossible target",
                reason="tar-symlink-target",
            )
        return member.link

    def _hard_link(self, member: ArchiveMember) -> Node:
        parts = split_name(member.link, self._limits, what="hard link target")
        directory = self._directory(parts[:-1], make=False) if parts else None
        target = directory.children.get(parts[-1]) if directory is not None else None
        if target is None or target.kind is MemberKind.DIRECTORY:
            raise IntegrityError(
                f"hard link {shown(member.name)} in a layer points to {shown(member.link)}, "
                "which is not a file of the image",
                reason="tar-hard-link",
            )
        return Node(
            kind=target.kind,
            mode=target.mode,
            uid=target.uid,
            gid=target.gid,
            link=target.link,
            inode=target.inode,
        )

    def _directory(self, parts: Sequence[str], *, make: bool) -> Node | None:
        """Return the directory at `parts`. Symlinks are followed, but never above the root.

        With `make`, a component that is absent or not a directory becomes an empty directory.
        """
        stack, todo, hops = [self.root], list(reversed(parts)), 0
        while todo:
            name = todo.pop()
            if name == "..":
                if len(stack) > 1:
                    stack.pop()
                continue
            node = stack[-1].children.get(name)
            if node is not None and node.kind is MemberKind.SYMLINK:
                hops += 1
                if hops > self._limits.symlink_hops:
                    raise IntegrityError(
                        f"a loop of symbolic links at {shown('/'.join(parts))} in a layer",
                        reason="tar-symlink-loop",
                    )
                if node.link.startswith("/"):
                    del stack[1:]
                todo.extend(p for p in reversed(node.link.split("/")) if p not in {"", "."})
                continue
            if node is None or node.kind is not MemberKind.DIRECTORY:
                if not make:
                    return None
                node = stack[-1].children[name] = self._implied()
            stack.append(node)
        return stack[-1]

    def _implied(self) -> Node:
        """Create a parent that no layer names. It counts as an entry, which bounds the nodes."""
        self._count()
        return Node(kind=MemberKind.DIRECTORY)
