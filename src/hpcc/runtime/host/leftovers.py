"""What a killed predecessor may have left: VMMs, cgroups, mounts, directories of guests."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import tempfile
import threading
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
    """Return when the process started, in ticks since boot; with the pid it is unique. 0: gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[_STAT_START_TIME])


def owner_of(pid: int) -> str:
    """Name a process by more than its number, for `is_owner_alive`."""
    return f"{pid}.{start_time(pid)}"


def is_owner_alive(owner: str) -> bool:
    """Say whether the process that `owner_of` named is still there; a name that is none is not."""
    pid, _, started = owner.partition(".")
    return pid.isdigit() and started.isdigit() and _is_alive(int(pid), int(started))


def new_directory(parent: Path) -> Path:
    """Make a guest's directory, recorded as this process's."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
    record(directory, [os.getpid()])
    return directory


def record(directory: Path, pids: list[int], cgroup: Path | None = None) -> None:
    """Remember owner, VMM and cgroup: they are leftovers when the first process is gone."""
    content = json.dumps([[pid, start_time(pid)] for pid in pids])
    (directory / _RECORD).write_text(content)
    if cgroup is not None:
        (directory / _CGROUP).write_text(str(cgroup))


def sweep(parent: Path) -> int:
    """End the VMMs of dead owners, remove what they had, and return how many guests there were.

    VMMs die with their owner by themselves (PR_SET_PDEATHSIG); this is for those that lost the
    signal or never had it. Besides the recorded ones, every process that lives in a guest's
    directory (working directory or root) is its VMM. Blocks for seconds at most.
    """
    count = 0
    for directory in sorted(parent.glob(_PREFIX + "*")):
        processes = _read(directory / _RECORD)
        if processes and _is_alive(*processes[0]):
            continue
        cgroup = _cgroup_of(directory)
        if cgroup is not None:
            with suppress(OSError):
                (cgroup / "cgroup.kill").write_text("1")
        _end([*processes[1:], *_living_in(directory)])
        if cgroup is not None:
            remove_cgroup(cgroup)
        _unmount(directory)
        shutil.rmtree(directory, ignore_errors=True)
        count += 1
    return count


def _end(processes: list[tuple[int, int]]) -> None:
    """Kill processes and wait until they are gone, so that nothing of theirs is in use."""
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
    """Take away mounts below a directory, the deepest first: nothing behind one is removed."""
    libc = ctypes.CDLL(None, use_errno=True)
    for point in reversed(mounts_below(directory)):
        libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW)


def mounts_below(directory: Path) -> list[Path]:
    """Return the mount points in a directory, in the order they were made."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    # Blanks and the like are spelled in octal there.
    points = [line.split()[_MOUNT_POINT].decode("unicode_escape") for line in lines]
    return [p for p in map(Path, points) if directory in p.parents]


def _cgroup_of(directory: Path) -> Path | None:
    try:
        return Path((directory / _CGROUP).read_text())
    except OSError:
        return None


def remove_cgroup(cgroup: Path) -> None:
    """Remove the cgroup of a dead VMM, and its parent when that is empty; may block for a second.

    The kernel may count a process in for a moment after its end was seen.
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
    except (OSError, ValueError, TypeError):
        return []
