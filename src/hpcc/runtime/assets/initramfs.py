"""The initramfs: a newc cpio archive with the static init and the modules in load order."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_DIRECTORY: Final = stat.S_IFDIR | 0o755
_PROGRAM: Final = stat.S_IFREG | 0o755
_ALIGN: Final = 4


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One file of the archive; `device` is (major, minor) of a device node."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def newc(entries: Iterable[ArchiveFile]) -> bytes:
    """Return a cpio archive in the "new ASCII" format (kernel: initramfs buffer format)."""
    out = bytearray()
    for inode, entry in enumerate([*entries, ArchiveFile("TRAILER!!!", 0)], 1):
        name = entry.name.encode() + b"\0"
        fields = [
            inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0,
        ]  # fmt: skip
        out += b"070701" + b"".join(b"%08x" % f for f in fields) + name
        out += b"\0" * (-len(out) % _ALIGN) + entry.data
        out += b"\0" * (-len(out) % _ALIGN)
    return bytes(out)


def build_initramfs(init: bytes, modules: Sequence[tuple[str, bytes]]) -> bytes:
    """Return an archive of init and the modules (name, content), which init loads in this order."""
    entries = [ArchiveFile(name, _DIRECTORY) for name in ("dev", "m", "ro", "rw", "new")]
    # Without this node init has no standard streams, and its errors would be lost.
    entries.append(ArchiveFile("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    entries.append(ArchiveFile("init", _PROGRAM, init))
    entries.extend(
        ArchiveFile(f"m/{number:02d}-{name}.ko", _PROGRAM, data)
        for number, (name, data) in enumerate(modules)
    )
    return newc(entries)
