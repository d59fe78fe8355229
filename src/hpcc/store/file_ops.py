"""The file system calls of the private store: a port, and the system's own."""

from __future__ import annotations

import os
import sys
from typing import Protocol


class FileOps(Protocol):
    """The calls that may fail on a disk; they raise `OSError` as in `os`. Tests inject faults."""

    def mkdir(self, path: str) -> None: ...
    def open(self, path: str, flags: int) -> int: ...
    def read(self, fd: int, size: int) -> bytes: ...
    def write(self, fd: int, data: bytes | memoryview) -> int: ...
    def rename(self, source: str, target: str) -> None: ...
    def link(self, source: str, target: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def utime(self, path: str, at: float) -> None: ...


class SystemFileOps:
    """`FileOps` of the operating system. Files are opened close-on-exec, without symlinks."""

    def mkdir(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)  # noqa: PTH103 - the hit path works on plain strings

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def read(self, fd: int, size: int) -> bytes:
        return os.read(fd, size)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)  # noqa: PTH104 - as above

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)  # noqa: PTH108 - as above

    def utime(self, path: str, at: float) -> None:
        os.utime(path, (at, at))


def system_file_ops() -> FileOps:
    """Return the calls of this system."""
    if sys.platform == "win32":
        from hpcc.store.windows_ops import WindowsFileOps

        return WindowsFileOps()
    return SystemFileOps()
