"""Cleans up after workers that were killed: VMMs, cgroups, mounts, directories of guests."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_RECORD: Final = "processes.json"
_CGROUP: Final = "cgroup"
_CGROUP_TRIES: Final = 50
_CGROUP_PAUSE_SECONDS: Final = 0.02
_PREFIX: Final = "guest-"
_END_TRIES: Final = 250
_END_PAUSE_SECONDS: Final = 0.02
_MNT_DETACH: Final = 2  # umount2(2)
_UMOUNT_NOFOLLOW: Final = 8
_MOUNT_POINT: Final = 4  # field 5 of a line of /proc/PID/mountinfo
_STAT_START_TIME: Final = 19  # field 22 of /proc/PID/stat, counted from after the name


def start_time(pid: int) -> int:
    """Return when the process started, in clock ticks since boot; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[_STAT_START_TIME])


def owner_of(pid: int) -> str:
    """Return a name for a process that is unique until reboot: pid and start time."""
    return f"{pid}.{start_time(pid)}"


def is_owner_alive(owner: str) -> bool:
    """Return whether the process that `owner_of` named still runs; False for any other text."""
    pid, _, started = owner.partition(".")
    return pid.isdigit() and started.isdigit() and _is_alive(int(pid), int(started))


def new_directory(parent: Path) -> Path:
    """Create a guest's directory, mode 0700, with this process recorded as its owner."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
    record(directory, [os.getpid()])
    return directory


def record(directory: Path, pids: list[int], cgroups: Sequence[Path] = ()) -> None:
    """Record the processes and the cgroups of a guest's directory, for `sweep`.

    `pids` starts with the owner. All of it is left over once the owner is gone.
    """
    content = json.dumps([[pid, start_time(pid)] for pid in pids])
    (directory / _RECORD).write_text(content)
    if cgroups:
        (directory / _CGROUP).write_text("\n".join(map(str, cgroups)))


def sweep(parent: Path) -> int:
    """End the VMMs of dead owners, remove their files, and return the number of guests removed.

    VMMs normally die with their owner (PR_SET_PDEATHSIG). This is for VMMs that lost the signal or
    never had it. Besides the recorded processes, every process whose working directory or root is
    in a guest's directory counts as its VMM. Blocks for up to a few seconds.
    """
    count = 0
    for directory in sorted(parent.glob(_PREFIX + "*")):
        processes = _read(directory / _RECORD)
        if processes and _is_alive(*processes[0]):
            continue
        cgroups = _cgroups_of(directory)
        for cgroup in cgroups:
            with suppress(OSError):
                (cgroup / "cgroup.kill").write_text("1")
        _end([*processes[1:], *_living_in(directory)])
        for cgroup in cgroups:
            remove_cgroup(cgroup)
        _unmount(directory)
        shutil.rmtree(directory, ignore_errors=True)
        count += 1
    return count


def _end(processes: list[tuple[int, int]]) -> None:
    """Kill processes and wait until they are gone, so that their files are no longer in use."""
    alive = {(pid, started) for pid, started in processes if _is_alive(pid, started)}
    for pid, _ in alive:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    pause = threading.Event()
    for _ in range(_END_TRIES):
        if not any(_is_alive(*process) for process in alive):
            return
        pause.wait(_END_PAUSE_SECONDS)


def _living_in(directory: Path) -> list[tuple[int, int]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            places = [_link(entry / "cwd"), _link(entry / "root")]
            if any(p == directory or directory in p.parents for p in places):
                found.append((int(entry.name), start_time(int(entry.name))))
    return found


def _link(path: Path) -> Path:
    try:
        return path.readlink()
    except OSError:
        return Path()


def _unmount(directory: Path) -> None:
    """Unmount everything below a directory, deepest first, so that no mounted file is removed."""
    libc = ctypes.CDLL(None, use_errno=True)
    for point in reversed(mounts_below(directory)):
        libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW)


def mounts_below(directory: Path) -> list[Path]:
    """Return the mount points below a directory, in the order of mounting."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    # mountinfo writes blanks and other special characters in octal.
    points = [line.split()[_MOUNT_POINT].decode("unicode_escape") for line in lines]
    return [p for p in map(Path, points) if directory in p.parents]


def _cgroups_of(directory: Path) -> list[Path]:
    try:
        return [Path(line) for line in (directory / _CGROUP).read_text().splitlines()]
    except OSError:
        return []


def remove_cgroup(cgroup: Path) -> None:
    """Remove the cgroup of a dead VMM, and its parent if empty. May block for a second.

    The kernel may still count a process for a moment after its end was seen.
    """
    pause = threading.Event()
    for _ in range(_CGROUP_TRIES):
        try:
            cgroup.rmdir()
        except FileNotFoundError:
            break
        except OSError:
            pause.wait(_CGROUP_PAUSE_SECONDS)
        else:
            break
    with suppress(OSError):
        cgroup.parent.rmdir()


def _is_alive(pid: int, started: int) -> bool:
    return started != 0 and start_time(pid) == started and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


def _read(path: Path) -> list[tuple[int, int]]:
    try:
        return [(int(pid), int(started)) for pid, started in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return []
