"""Finds what a run leaves on its host: processes, mounts, cgroups, sockets, files.

`ProcessTracker` records processes while its block runs. `traces_of` and `files_below` list the
rest afterwards.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_SAMPLE_SECONDS: Final = 0.05
_PARENT, _START = 1, 19  # fields 4 and 22 of /proc/PID/stat, counted from after the name
_CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Process:
    """A process; pid and start time together are unique."""

    pid: int
    started: int
    parent: int
    command: str

    @property
    def is_alive(self) -> bool:
        now = _process(self.pid)
        return now is not None and now.started == self.started


class ProcessTracker:
    """Records every descendant of this process while its block runs, also daemonized ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Process] = {}
        self._ours = {os.getpid()}
        self._before = {(p.pid, p.started) for p in _processes()}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tracker")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def alive(self, *words: str) -> list[Process]:
        """Return the live processes of this run whose command lines have all `words`."""
        self._look()
        with self._lock:
            known = list(self._known.values())
        return [p for p in known if all(w in p.command for w in words) and p.is_alive]

    def wait_gone(self, seconds: float) -> list[Process]:
        """Wait until all have ended; return those that are still alive after `seconds`."""
        deadline = time.monotonic() + seconds
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(_SAMPLE_SECONDS)
        return left

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        found = sorted(_processes(), key=lambda p: p.started)
        with self._lock:
            ours = self._ours | {p.pid for p in self._known.values() if p.is_alive}
            for process in found:
                if process.parent in ours and (process.pid, process.started) not in self._before:
                    ours.add(process.pid)
                    # Read again each time, because exec changes a process's command line.
                    self._known[process.pid, process.started] = process


def _processes() -> Iterable[Process]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := _process(int(entry))) is not None:
            yield process


def _process(pid: int) -> Process | None:
    """Return a process; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return None
    if fields[0] in {"Z", "X"}:
        return None
    return Process(pid, int(fields[_START]), int(fields[_PARENT]), command.decode(errors="replace"))


def traces_of(directory: Path, guests: Iterable[str]) -> list[str]:
    """Return mounts and sockets below a directory, and cgroups named after a guest."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    sockets = Path("/proc/net/unix").read_text().splitlines()
    names = set(guests)
    cgroups = [
        os.path.join(where, name)
        for where, children, _ in os.walk(_CGROUPS)
        for name in children
        if any(guest and guest in name for guest in names)
    ]
    return [line for line in mounts + sockets if str(directory) in line] + cgroups


def files_below(*directories: Path) -> list[str]:
    """Return all files in directories that should be empty."""
    return [str(p) for d in directories if d.exists() for p in sorted(d.rglob("*"))]
