"""When a compile began, on the clock that the kernel stamps files with.

Problem: a result may be stored only if no input changed after the compiler started. A file's ctime
tells that, but it comes from another clock than `time.time_ns()`: file systems stamp with the time
of the last tick, 1 to 10 ms ago. So a header that was written just before the compile and one that
was written just after it started look the same, and a window of 50 ms has to refuse both.

Rule: read the stamp clock itself. `KernelClock.stamp_ns` changes a file that lives in memory and
returns the ctime which the kernel gave it. Each later change on a local file system gets an equal
or later ctime, so `ctime >= stamp` is the whole test. Since Linux 6.13 the stamp is exact: a file
that changed before has an earlier ctime, also in the same tick. Older kernels return the time of
the tick; if an input was stamped in it, `take_start` waits for the next.

This holds only on file systems that this kernel stamps, with fine stamps, and while nobody sets the
clock. Everything else is judged by the old window:

| file system | judged by |
| --- | --- |
| ext4, xfs, btrfs, tmpfs | the stamp clock |
| overlayfs whose upper directory is in reach and on one of these | the stamp clock |
| others: NFS, FUSE, 9p, virtiofs, unknown ones | the window |
| a stamp in whole seconds, on any of them | the window, two seconds long |

A stamp precedes its bytes: the kernel sets ctime, then copies what `write` got. A writer can be
stopped in between. So the digests of young inputs that are known before the compile are taken then,
and compared afterwards.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

# File systems stamp with a clock that lags by up to a tick (10 ms at HZ=100).
_WINDOW_NS: Final = 50_000_000
_SECOND_NS: Final = 1_000_000_000
# A file that changed so recently may still be in the hands of its writer.
_YOUNG_NS: Final = 2 * _SECOND_NS
# The longest tick of a common kernel is 10 ms; a stamp further ahead is from another clock.
_MAX_AHEAD_NS: Final = 20_000_000
# The clocks of emulated kernels drift apart while nobody sets them. A smaller difference does not
# count, and the start is taken that much too early.
_SLACK_NS: Final = 100_000
_WAIT_SECONDS: Final = 0.001
_MAX_WAITS: Final = 25
MAX_KNOWN: Final = 4_096
# `time` has names for these only on some systems.
_REALTIME_COARSE: Final = 5
_BOOTTIME: Final = 7
# A reading of two clocks that took longer was interrupted, and is tried again.
_SHARP_NS: Final = 2_000
_READINGS: Final = 8
_MAX_MOUNTINFO_BYTES: Final = 4 << 20
# statfs(2): f_type comes first in the structure, which is below 256 bytes on every system.
LOCAL_KINDS: Final = frozenset({0xEF53, 0x58465342, 0x9123683E, 0x01021994})
OVERLAY_KIND: Final = 0x794C7630
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
Distance = tuple[int, int]
"""Bounds of the distance between CLOCK_REALTIME and CLOCK_BOOTTIME, in nanoseconds."""
_Stat = tuple[int, int, int, int, int]


class StampClock(Protocol):
    """The clocks of a machine, and whether they stamp the files below a directory."""

    def wall_ns(self) -> int:
        """Return the time of day in nanoseconds since the epoch."""
        ...

    def stamp_ns(self) -> int:
        """Return a time that is at most the ctime of every later change on a local file system."""
        ...

    def distance(self) -> Distance:
        """Return how far the time of day is from the time since boot. It changes if it is set."""
        ...

    def device(self, directory: bytes) -> int | None:
        """Return a directory's device if `stamp_ns` holds on its file system, else None."""
        ...

    def stat(self, path: bytes) -> os.stat_result:
        """Return what `os.stat` does."""
        ...

    def wait(self) -> None:
        """Wait a part of a tick."""
        ...


class _Known(NamedTuple):
    """What was seen of the inputs that are known before a compile."""

    stats: Mapping[tuple[int, int], _Stat]
    digests: Mapping[bytes, bytes | None]


_NOTHING: Final = _Known(MappingProxyType({}), MappingProxyType({}))


class CompileStart(int):
    """The wall time at which a compile begins, with what the stamps of files are compared to.

    A plain integer in its place means the old window for every file.
    """

    _clock: StampClock
    _stamp_ns: int
    _distance: Distance
    _devices: frozenset[int]
    _known: _Known
    settled_ns: int
    """What was stamped only before this had not changed since, on every file system."""

    @classmethod
    def make(
        cls,
        clock: StampClock,
        stamp_ns: int,
        distance: Distance,
        devices: frozenset[int],
        known: _Known,
    ) -> CompileStart:
        """Return a start at the present wall time."""
        self = cls(clock.wall_ns())
        self._clock, self._stamp_ns, self._distance = clock, stamp_ns, distance
        self._devices, self._known = devices, known
        self.settled_ns = min(settled_before(self), stamp_ns) if devices else settled_before(self)
        return self

    def may_have_changed(self, status: os.stat_result) -> bool:
        """Tell whether a file or directory may have changed since this moment."""
        changed_ns = status.st_ctime_ns
        if status.st_dev not in self._devices or changed_ns % _SECOND_NS == 0:
            return is_in_window(status, self)
        if changed_ns < self._stamp_ns:
            return False
        # A stamp in the future, because the clock was set back before the compile: every
        # change since has an earlier one, so an equal stat means an equal file.
        known = self._known.stats.get((status.st_dev, status.st_ino))
        return known != _stat(status) or changed_ns <= self._clock.stamp_ns()

    def clock_was_set(self) -> bool:
        """Tell whether the time of day was set since, so that stamps cannot be compared."""
        low, high = self._distance
        low_now, high_now = self._clock.distance()
        # The window is wide enough for a small step.
        slack = _SLACK_NS if self._devices else _WINDOW_NS // 2
        return high_now < low - slack or high + slack < low_now

    def agrees(self, files: Iterable[tuple[bytes, bytes]]) -> bool:
        """Tell whether the young files known before the compile had these digests then."""
        digests = self._known.digests
        return not digests or all(digests.get(path, digest) == digest for path, digest in files)


def is_in_window(status: os.stat_result, started_ns: int) -> bool:
    """Tell whether a file may have changed since `started_ns`, on a clock that may lag."""
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    # Both stamps in whole seconds: the file system stores no finer ones.
    is_coarse = status.st_mtime_ns % _SECOND_NS == 0 and status.st_ctime_ns % _SECOND_NS == 0
    return newest >= started_ns - (2 * _SECOND_NS if is_coarse else _WINDOW_NS)


def settled_before(started_ns: int) -> int:
    """Return the time before which no stamp is in the window of `is_in_window`."""
    return started_ns - 2 * _SECOND_NS


def take_start(
    clock: StampClock,
    directories: Iterable[bytes],
    files: Iterable[bytes] = (),
    digest: Callable[[bytes], bytes | None] | None = None,
) -> CompileStart:
    """Return the present moment; the compiler must start after this call.

    Stamps are compared on the file systems of these directories. `files` are inputs that are known
    already, by absolute path; `digest` returns the SHA-256 of one.
    """
    distance = clock.distance()
    devices: set[int] = set()
    stamps: list[int] = []
    asked: set[int] = set()
    for directory in dict.fromkeys(directories):
        try:
            status = clock.stat(directory)
        except (OSError, ValueError):
            continue
        stamps.append(status.st_ctime_ns)
        if status.st_dev not in asked:
            asked.add(status.st_dev)
            device = clock.device(directory)
            if device is not None:
                devices.add(device)
    if not devices:
        return CompileStart.make(clock, 0, distance, frozenset(), _NOTHING)
    stats: dict[bytes, os.stat_result] = {}
    for path in dict.fromkeys(files):
        if len(stats) >= MAX_KNOWN:
            break
        try:
            status = clock.stat(path)
        except (OSError, ValueError):
            continue
        if status.st_dev in devices:
            stats[path] = status
            stamps.append(status.st_ctime_ns)
    stamp_ns = _stamp_after(clock, stamps)
    young_ns = stamp_ns - _YOUNG_NS
    young = [path for path, status in stats.items() if status.st_ctime_ns > young_ns]
    known = _Known(
        {(s.st_dev, s.st_ino): _stat(s) for s in stats.values() if s.st_ctime_ns >= stamp_ns},
        # After the stamp, so that a change from here on is later than it.
        {path: digest(path) for path in young} if digest is not None else {},
    )
    return CompileStart.make(clock, stamp_ns, distance, frozenset(devices), known)


def _stamp_after(clock: StampClock, stamps: Iterable[int]) -> int:
    """Return a stamp that is later than these, if it takes at most a tick to get one."""
    now = clock.stamp_ns() - _SLACK_NS
    newest = max((s for s in stamps if s - now <= _MAX_AHEAD_NS), default=0)
    for _ in range(_MAX_WAITS):
        if now > newest:
            break
        clock.wait()
        now = clock.stamp_ns() - _SLACK_NS
    return now


def _stat(status: os.stat_result) -> _Stat:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


class KernelClock:
    """The clocks of the running kernel. Thread-safe. No file system counts except on Linux."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = -1
        self._libc: ctypes.CDLL | None = None
        if sys.platform != "linux":
            return
        try:
            self._file = os.memfd_create("hpcc-stamp")
            self._libc = _libc()
        except (OSError, AttributeError):
            self._libc = None  # no clock, or no way to ask for a file system

    def wall_ns(self) -> int:
        """Return the time of day in nanoseconds since the epoch."""
        return time.time_ns()

    def stamp_ns(self) -> int:
        """Return a time that is at most the ctime of every later change on a local file system.

        Two rounds: if the first gave the last fine stamp of another file, the second gives a later
        one, because the first was looked at.
        """
        with self._lock:
            os.utime(self._file)
            os.fstat(self._file)
            os.utime(self._file)
            return os.fstat(self._file).st_ctime_ns

    def distance(self) -> Distance:
        """Return bounds of CLOCK_REALTIME minus CLOCK_BOOTTIME: the sharpest of a few readings.

        Slewing and suspending change both clocks alike; only setting the time changes this.
        """
        if self._libc is None:
            return (0, 0)
        best = (-sys.maxsize, sys.maxsize)
        for _ in range(_READINGS):
            before = time.clock_gettime_ns(_BOOTTIME)
            now = time.time_ns()
            after = time.clock_gettime_ns(_BOOTTIME)
            if after - before < best[1] - best[0]:
                best = (now - after, now - before)
            if after - before < _SHARP_NS:
                break
        return best

    def device(self, directory: bytes) -> int | None:
        """Return a directory's device if `stamp_ns` holds on its file system, else None."""
        if self._libc is None:
            return None
        try:
            fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        try:
            device, kind = os.fstat(fd).st_dev, file_system_kind(fd)
        except OSError:
            return None
        finally:
            os.close(fd)
        is_local = kind in LOCAL_KINDS or (kind == OVERLAY_KIND and self._is_local_overlay(device))
        return device if is_local else None

    def stat(self, path: bytes) -> os.stat_result:
        """Return what `os.stat` does."""
        return os.stat(path)

    def wait(self) -> None:
        """Wait a part of a tick."""
        threading.Event().wait(_WAIT_SECONDS)

    def _is_local_overlay(self, device: int) -> bool:
        """Tell whether an overlay's upper directory is in reach, and on a local file system.

        An overlay shows the ctime of the upper file, which may be on a remote file system.
        """
        try:
            with open("/proc/self/mountinfo", "rb") as file:
                text = file.read(_MAX_MOUNTINFO_BYTES)
            path = upper_directory(text, device)
            if path is None:
                return False
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)
        except (OSError, ValueError):
            return False
        try:
            return file_system_kind(fd) in LOCAL_KINDS
        finally:
            os.close(fd)


def file_system_kind(fd: int) -> int:
    """Return `f_type` of statfs(2) for an open file, 0 if unknown."""
    try:
        libc = _libc()
    except (OSError, AttributeError):
        return 0
    found = ctypes.create_string_buffer(256)
    if libc.fstatfs(fd, found):
        return 0
    return ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF


def upper_directory(mountinfo: bytes, device: int) -> bytes | None:
    """Return the absolute upper directory of the overlay with this device, None if unknown."""
    number = b"%d:%d" % (os.major(device), os.minor(device))
    for line in mountinfo.split(b"\n"):
        mount, _, system = line.partition(b" - ")
        if mount.split(b" ")[2:3] != [number] or not system.startswith(b"overlay "):
            continue
        for option in system.rpartition(b" ")[2].split(b","):
            if option.startswith(b"upperdir=/"):
                path = option.partition(b"=")[2]
                return _OCTAL.sub(lambda m: bytes([int(m[1], 8) & 0xFF]), path)
    return None


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@cache
def kernel_clock() -> KernelClock:
    """Return the clock of this process, with its one file in memory."""
    return KernelClock()
