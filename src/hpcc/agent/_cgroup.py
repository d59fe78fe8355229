"""One cgroup for each compile: its limits, and the kill that nothing escapes.

Version 2 wherever it can be; version 1 where a container's host still has its controllers there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

_REMOVE_TRIES: Final = 200
_REMOVE_PAUSE_SECONDS: Final = 0.01
# Where the agent and what started it go: a group with limited children may hold no process.
_AGENTS_OWN: Final = "agent"
_V1_CONTROLLERS: Final = ("memory", "pids")


def enable_controllers(root: str) -> None:
    """Let children of the root group be limited; once, at the agent's start.

    Raises:
        OSError: the kernel lacks a controller.
    """
    if not _is_v2(root):
        return
    control = f"{root}/cgroup.subtree_control"
    try:
        _write(control, "+memory +pids")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # Only a machine's root group may keep processes; a container's may not.
        os.mkdir(f"{root}/{_AGENTS_OWN}")
        for pid in _pids(root):
            _write(f"{root}/{_AGENTS_OWN}/cgroup.procs", str(pid))
        _write(control, "+memory +pids")


def new_cgroup(root: str, name: str, *, memory_bytes: int, pids: int) -> Cgroup:
    """Make a leaf group; start processes in it by `procs_paths`, then `remove` it."""
    kind = Cgroup if _is_v2(root) else _CgroupV1
    return kind(root, name, memory_bytes=memory_bytes, pids=pids)


class Cgroup:
    """A leaf group of version 2. See `new_cgroup`."""

    def __init__(self, root: str, name: str, *, memory_bytes: int, pids: int) -> None:
        self._path = f"{root}/{name}"
        os.mkdir(self._path)
        _write(f"{self._path}/memory.max", str(memory_bytes))
        _write(f"{self._path}/pids.max", str(pids))
        # All or nothing: a compiler driver would report a killed cc1 as an ordinary failure.
        _write(f"{self._path}/memory.oom.group", "1")

    @property
    def directories(self) -> tuple[str, ...]:
        return (self._path,)

    @property
    def procs_paths(self) -> str:
        """The files to write a pid to, with ':' between, as `hpcc-init exec` takes them."""
        return ":".join(f"{d}/cgroup.procs" for d in self.directories)

    def kill(self) -> None:
        """SIGKILL for everything in it, forks in flight included."""
        with suppress(OSError):
            _write(f"{self._path}/cgroup.kill", "1")

    def was_out_of_memory(self) -> bool:
        return _count(f"{self._path}/memory.events", "oom_kill") > 0

    async def remove(self) -> None:
        """Kill what is left and remove the group.

        Raises:
            OSError: it stayed busy, that is, a process would not die.
        """
        for attempt in range(_REMOVE_TRIES):
            self.kill()
            try:
                for directory in self.directories:
                    _remove(directory)
            except OSError as error:
                if error.errno != errno.EBUSY or attempt == _REMOVE_TRIES - 1:
                    raise
            else:
                return
            await asyncio.sleep(_REMOVE_PAUSE_SECONDS)


class _CgroupV1(Cgroup):
    """The same of version 1, in two hierarchies."""

    def __init__(self, root: str, name: str, *, memory_bytes: int, pids: int) -> None:
        self._memory, self._pids = (f"{root}/{c}/{name}" for c in _V1_CONTROLLERS)
        for directory in self.directories:
            os.mkdir(directory)
        _write(f"{self._memory}/memory.limit_in_bytes", str(memory_bytes))
        with suppress(FileNotFoundError):  # absent where swap is not accounted
            _write(f"{self._memory}/memory.memsw.limit_in_bytes", str(memory_bytes))
        _write(f"{self._pids}/pids.max", str(pids))

    @property
    def directories(self) -> tuple[str, ...]:
        return (self._memory, self._pids)

    def kill(self) -> None:
        """SIGKILL for everything in it.

        A fork in flight does not escape: PID 1 of the compile's namespace is among them, and the
        kernel ends the namespace with it.
        """
        for pid in _pids(self._pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def was_out_of_memory(self) -> bool:
        return _count(f"{self._memory}/memory.oom_control", "oom_kill") > 0


def _is_v2(root: str) -> bool:
    return os.path.exists(f"{root}/cgroup.controllers")


def _remove(directory: str) -> None:
    with suppress(FileNotFoundError):
        os.rmdir(directory)


def _pids(directory: str) -> Iterable[int]:
    with open(f"{directory}/cgroup.procs") as file:
        return [int(line) for line in file]


def _count(path: str, name: str) -> int:
    with open(path) as file:
        counts = dict(line.split() for line in file)
    return int(counts.get(name, "0"))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
