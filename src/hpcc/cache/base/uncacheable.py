"""The error for a result that must not be stored, and the file checks that lead to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final

from hpcc.cache.base.stamps import CompileStart, is_in_window, settled_before
from hpcc.core.reasons.uncacheable import UncacheableReason

# A compile asks for about a hundred, each twice; the units of a project ask for the same.
_MAX_REMEMBERED: Final = 8_192


class UncacheableError(Exception):
    """The compile succeeded, but its result must not be stored; `reason` is counted.

    `path` is the absolute path that the reason is about, empty if unknown.
    """

    def __init__(self, reason: UncacheableReason, path: bytes = b"") -> None:
        super().__init__(reason)
        self.reason, self.path = reason, path


@lru_cache(maxsize=_MAX_REMEMBERED)
def absolute(cwd: bytes, path: bytes) -> bytes:
    """Join without resolving `..`, because that is wrong behind a symbolic link."""
    full = path if path.startswith(b"/") else cwd.rstrip(b"/") + b"/" + path
    while b"//" in full or b"/./" in full:
        full = full.replace(b"//", b"/").replace(b"/./", b"/")
    return full


def all_absolute(cwd: bytes, paths: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return what `absolute` returns for each path, without a call for most of them."""
    text = b"\0".join(paths)
    if b"//" in text or b"/./" in text:
        return tuple(absolute(cwd, path) for path in paths)
    return tuple([path if path[:1] == b"/" else absolute(cwd, path) for path in paths])


def is_fresh(status: os.stat_result, started_ns: int) -> bool:
    """Tell whether a file may have changed since a `CompileStart`, or that many epoch nanoseconds.

    For a number it is unknown which clock stamped the file, so a window before counts, too.
    """
    if isinstance(started_ns, CompileStart):
        return started_ns.may_have_changed(status)
    return is_in_window(status, started_ns)


def freshness(started_ns: int) -> Callable[[os.stat_result], bool]:
    """Return `is_fresh` for one compile, to be called for many files."""
    if isinstance(started_ns, CompileStart):
        return started_ns.may_have_changed
    return lambda status: is_in_window(status, started_ns)


def settled_ns(started_ns: int) -> int:
    """Return a time: with ctime and mtime before it, nothing is fresh for this compile."""
    if isinstance(started_ns, CompileStart):
        return started_ns.settled_ns
    return settled_before(started_ns)


def check_start(started_ns: int, files: Iterable[tuple[bytes, bytes]]) -> None:
    """Check what the stamps of files cannot show; call it after the last stat.

    `files` are the inputs with their present digests.

    Raises:
        UncacheableError: the clock was set during the compile, or a file had another content.
    """
    if not isinstance(started_ns, CompileStart):
        return
    if started_ns.clock_was_set():
        raise UncacheableError(UncacheableReason.CLOCK_SET)
    if not started_ns.agrees(files):
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
