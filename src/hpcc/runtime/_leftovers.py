"""What a killed predecessor may have left: guests' directories and their VMMs."""

from __future__ import annotations

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
    """End the VMMs of dead owners, remove their directories, and return how many there were.

    VMMs die with their owner by themselves (PR_SET_PDEATHSIG); this is for a race or a kernel
    that did not deliver it.
    """
    count = 0
    for directory in sorted(parent.glob(_PREFIX + "*")):
        processes = _read(directory / _RECORD)
        if processes and _is_alive(*processes[0]):
            continue
        for pid, started in processes[1:]:
            if _is_alive(pid, started):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            remove_cgroup(Path((directory / _CGROUP).read_text()))
        shutil.rmtree(directory, ignore_errors=True)
        count += 1
    return count


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
    return started != 0 and start_time(pid) == started


def _read(path: Path) -> list[tuple[int, int]]:
    try:
        return [(int(pid), int(started)) for pid, started in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []
