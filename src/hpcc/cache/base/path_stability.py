"""Checks that each path led to the same file during the whole compile.

A file's times prove that its content is old, but not that it was at this path: renaming a directory
or changing a link brings an old file to a new name. A directory's times prove which entries it
holds. If they are fresh (objects are written beside sources), the times of the entry itself count:
creating or renaming a link or a directory changes its ctime on Linux.

Names below /proc (and so /dev/fd, /dev/stdin) mean something else in every process. The daemon
cannot check them.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from hpcc.cache.base.uncacheable import UncacheableError, absolute, is_fresh
from hpcc.core.reasons.uncacheable import UncacheableReason

_MAX_LINKS: Final = 40  # the kernel's limit (ELOOP)
_NEVER_FRESH: Final = 1 << 62
_OF_A_PROCESS: Final = rb"/+(?:proc|dev/+(?:fd|stdin|stdout|stderr))(?:/|$)"
_IN_ARGUMENT: Final = re.compile(rb"(?:@|-[A-Za-z+-]*=?|[^/]*[=,])?" + _OF_A_PROCESS)
# Sandboxed builds map /proc/self/cwd and set PWD to it: compilers write it and never open it.
_ONLY_TEXT: Final = (
    b"-D",
    b"-U",
    b"-fdebug-prefix-map=",
    b"-ffile-prefix-map=",
    b"-fmacro-prefix-map=",
    b"-fcoverage-prefix-map=",
    b"-fprofile-prefix-map=",
    b"-fdebug-compilation-dir=",
)
_IN_LIST: Final = re.compile(rb"(?:^|:)" + _OF_A_PROCESS.replace(rb"(?:/|$)", rb"(?:[/:]|$)"))
Place = tuple[int, int]
"""Device and inode."""


def note_places(
    cwd: bytes, directories: Iterable[bytes], files: Iterable[bytes] = ()
) -> dict[bytes, Place]:
    """Return device and inode of directories and their parents, before a compile begins.

    The directories of `files` count, too: a linker may write there while this compiles.
    """
    found: dict[bytes, Place] = {}
    places = (os.path.dirname(absolute(cwd, file)) for file in files)
    for directory in (cwd, *directories, *places):
        path = absolute(cwd, directory)
        while path not in found:
            try:
                status = os.lstat(path or b"/")
            except OSError:
                pass
            else:
                found[path] = (status.st_dev, status.st_ino)
            if not path.strip(b"/"):
                break
            path = path.rpartition(b"/")[0]
    return found


def names_a_process(arguments: Iterable[bytes], env: Mapping[bytes, bytes]) -> bool:
    """Tell whether an argument or a list of directories names a path below /proc."""
    texts = tuple(arguments)
    # As one text first: most compiles name no such place.
    if not _may_be_of_a_process(b"\0".join((*texts, *env.values()))):
        return False
    return any(
        _may_be_of_a_process(text) and not text.startswith(_ONLY_TEXT) and _IN_ARGUMENT.match(text)
        for text in texts
    ) or any(
        _may_be_of_a_process(text) and name != b"PWD" and _IN_LIST.search(text)
        for name, text in env.items()
    )


def _may_be_of_a_process(text: bytes) -> bool:
    return b"/proc" in text or b"/dev/" in text


def leads_to_a_process(path: bytes) -> bool:
    """Tell whether an absolute path leads below /proc, directly or by links."""
    return _Walk({}, _NEVER_FRESH).follows_to_a_process(path)


def check_places(
    paths: Iterable[bytes],
    before: Mapping[bytes, Place],
    started_ns: int,
    *,
    plain: Mapping[bytes, int] = MappingProxyType({}),
    outputs: Iterable[bytes] = (),
) -> None:
    """Check the names of these absolute paths, and of all directories and links on the way.

    `plain` holds the devices of those that were seen as files, not links, after the compile ended.
    `outputs` must not lead below /proc; every other change to them is allowed.

    Raises:
        UncacheableError: one of them may have led elsewhere since the compile began.
    """
    walk = _Walk(before, started_ns)
    try:
        checked, processes = walk.checked, walk.processes
        for path in paths:
            device = plain.get(path)
            # Most paths are headers in a directory that another header has brought up.
            is_known = device is not None and path.rpartition(b"/")[0] in checked
            if not is_known or device == processes:
                walk.check(path)
    except OSError as error:
        raise UncacheableError(UncacheableReason.INPUT_VANISHED) from error
    if any(map(walk.follows_to_a_process, outputs)):
        raise UncacheableError(UncacheableReason.PROCESS_PATH)


class _Walk:
    def __init__(self, before: Mapping[bytes, Place], started_ns: int) -> None:
        self._before, self._started_ns = before, started_ns
        self.checked: set[bytes] = set()
        self._changed: dict[bytes, bool] = {}
        self.processes: int | None = None
        with contextlib.suppress(OSError):
            self.processes = os.lstat("/proc/self").st_dev

    def follows_to_a_process(self, path: bytes) -> bool:
        """Tell whether a path leads below /proc; paths checked earlier do not."""
        self._before, self._started_ns = {}, _NEVER_FRESH
        try:
            self.check(path)
        except UncacheableError as error:
            return error.reason == UncacheableReason.PROCESS_PATH
        except OSError:
            return False  # a dangling link or a missing file
        return False

    def check(self, path: bytes, links: int = 0) -> None:
        path = path.rstrip(b"/")
        if not path or path in self.checked:
            return
        self.checked.add(path)
        parent, _, name = path.rpartition(b"/")
        self.check(parent, links)
        if name == b"..":
            return  # its target changes only if the directory itself is moved
        status = os.lstat(path)
        if status.st_dev == self.processes:
            raise UncacheableError(UncacheableReason.PROCESS_PATH, path)
        if stat.S_ISLNK(status.st_mode):
            if links >= _MAX_LINKS:
                raise UncacheableError(UncacheableReason.INPUT_VANISHED, path)
            if is_fresh(status, self._started_ns) and self._has_changed(parent):
                raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
            self.check(absolute(parent or b"/", os.readlink(path)), links + 1)
        elif stat.S_ISDIR(status.st_mode):
            self._check_directory(path, parent, status)

    def _check_directory(self, path: bytes, parent: bytes, status: os.stat_result) -> None:
        place = (status.st_dev, status.st_ino)
        if self._before.get(path, place) != place:  # something was mounted there
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
        if not (is_fresh(status, self._started_ns) and self._has_changed(parent)):
            return
        # A new entry sets ctime and mtime to one moment; renaming the directory sets only ctime.
        is_filled = status.st_ctime_ns == status.st_mtime_ns
        known = self._before.get(path) or self._before.get(os.path.realpath(path))
        if not is_filled or known != place:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)

    def _has_changed(self, directory: bytes) -> bool:
        known = self._changed.get(directory)
        if known is None:
            known = is_fresh(os.stat(directory or b"/"), self._started_ns)
            self._changed[directory] = known
        return known
