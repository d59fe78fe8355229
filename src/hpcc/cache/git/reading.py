"""Bounded reads of the files of a repository, and the one error of its parsers."""

from __future__ import annotations

import os
import re
import stat
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# SHA-1 and SHA-256 repositories.
OBJECT_ID: Final = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class GitError(Exception):
    """A repository is damaged, hostile or of a form that is not read; the text says which."""


class TooLargeError(GitError):
    """Something is over a limit."""


def open_file(path: bytes) -> int:
    """Open an ordinary file of this user or of root; links are refused. The caller closes it.

    Raises:
        FileNotFoundError: it does not exist.
        GitError: it is something else, or cannot be read.
    """
    try:
        fd = os.open(path, _FLAGS)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(path) from error
    except (OSError, ValueError) as error:
        raise GitError(f"cannot read {os.fsdecode(path)!r}") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in {0, os.geteuid()}:
        os.close(fd)
        raise GitError(
            f"{os.fsdecode(path)!r} is not an ordinary file of this user: clone as this user"
        )
    return fd


def read_file(path: bytes, limit: int) -> bytes:
    """Return a whole file of at most `limit` bytes.

    Raises:
        FileNotFoundError: it does not exist.
        TooLargeError: it is larger.
        GitError: see `open_file`.
    """
    fd = open_file(path)
    try:
        if os.fstat(fd).st_size > limit:
            raise TooLargeError(f"{os.fsdecode(path)!r} is larger than {limit} bytes")
        return read_at(fd, limit, 0)
    finally:
        os.close(fd)


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Return at most `size` bytes from an offset; fewer at the end of the file.

    Raises:
        GitError: the file cannot be read.
    """
    try:
        return os.pread(fd, size, offset)
    except (OSError, OverflowError) as error:
        raise GitError("a file of the repository cannot be read") from error
