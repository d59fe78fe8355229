"""Removes trees that a hostile program has written."""

from __future__ import annotations

import itertools
import os
import secrets
from typing import Final

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(root: str, *, dir_fd: int | None = None) -> None:
    """Remove a directory with everything that a hostile program left below it.

    The tree may be deeper than a path can be long and than descriptors exist, so directories are
    moved up before they are emptied. `shutil.rmtree` holds one descriptor for each level.
    """
    prefix, count = secrets.token_hex(16), itertools.count()
    at = os.open(root, OPEN_DIRECTORY, dir_fd=dir_fd)
    try:
        while below := _clear(at):
            for name in below:
                fd = os.open(name, OPEN_DIRECTORY, dir_fd=at)
                try:
                    for deeper in _clear(fd):
                        new = f"{prefix}{next(count)}"
                        os.rename(deeper, new, src_dir_fd=fd, dst_dir_fd=at)
                finally:
                    os.close(fd)
                os.rmdir(name, dir_fd=at)
    finally:
        os.close(at)
    os.rmdir(root, dir_fd=dir_fd)


def _clear(directory_fd: int) -> list[str]:
    """Unlink all entries that are not directories; return the names of the directories."""
    with os.scandir(directory_fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory_fd)
    return [name for name, is_directory in found if is_directory]
