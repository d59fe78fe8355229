"""The private store's calls on Windows. Run under Wine, not yet on Windows."""

from __future__ import annotations

import os
from typing import Final

from hpcc.files import open_file

_NOT_SUPPORTED: Final = 50


class WindowsFileOps:
    """`file_ops.FileOps`: a file may be renamed and removed while another process reads it."""

    def mkdir(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def open(self, path: str, flags: int) -> int:
        return open_file(path, flags)

    def read(self, fd: int, size: int) -> bytes:
        return os.read(fd, size)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        """Refuse: a listing does not show which names are one file, whose bytes count once."""
        raise OSError(_NOT_SUPPORTED, f"no second names for {source}", target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def utime(self, path: str, at: float) -> None:
        os.utime(path, (at, at))
