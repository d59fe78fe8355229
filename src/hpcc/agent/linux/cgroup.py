"""One cgroup for each compile: its limits, and a kill that no process escapes.

Version 2 wherever possible; version 1 where a container's host still has its controllers there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final

# A killed tree with much memory takes a while to release it; under emulation that is minutes.
_REMOVE_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 0.01
# Where the agent and its parents move: a group with limited children may hold no process.
_AGENTS_OWN: Final = "agent"
_COMPILES: Final = "compiles"
_V1_CONTROLLERS: Final = ("memory", "pids")


def enable_controllers(root: str, memory_bytes: int) -> str:
    """Return the group below which compiles' groups are made. Call it once, at the agent's start.

    In version 2 all compiles together may use `memory_bytes`, so that the kernel kills a compile
    when memory runs out. Otherwise it would first drop the agent's own program pages, and an agent
    that reads each page again from its drive does not answer.

    Raises:
        OSError: the kernel lacks a controller.
    """
    if not _is_v2(root):
        return root
    _enable(root)
    compiles = f"{root}/{_COMPILES}"
    os.mkdir(compiles)
    _write(f"{compiles}/memory.max", str(memory_bytes))
    _enable(compiles)
    return compiles


def _enable(group: str) -> None:
    control = f"{group}/cgroup.subtree_control"
    try:
        _write(control, "+memory +pids")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # Only a machine's root group may keep processes; a container's root group may not.
        os.mkdir(f"{group}/{_AGENTS_OWN}")
        for pid in _pids(group):
            _write(f"{group}/{_AGENTS_OWN}/cgroup.procs", str(pid))
        _write(control, "+memory +pids")


def new_cgroup(root: str, name: str, *, memory_bytes: int, pids: int) -> Cgroup:
    """Make a leaf group below the one that `enable_controllers` returned.

    Start processes in it by `procs_paths`, then `remove` it.
    """
    kind = _CgroupV1 if os.path.isdir(f"{root}/{_V1_CONTROLLERS[0]}") else Cgroup
    return kind(root, name, memory_bytes=memory_bytes, pids=pids)


class Cgroup:
    """A leaf group of version 2. See `new_cgroup`."""

    def __init__(self, root: str, name: str, *, memory_bytes: int, pids: int) -> None:
        self._path = f"{root}/{name}"
        os.mkdir(self._path)
        _write(f"{self._path}/memory.max", str(memory_bytes))
        _write(f"{self._path}/pids.max", str(pids))
        # All processes or none: a compiler driver would report a killed cc1 as an ordinary failure.
        _write(f"{self._path}/memory.oom.group", "1")

    @property
    def directories(self) -> tuple[str, ...]:
        return (self._path,)

    @property
    def procs_paths(self) -> str:
        """The files to write a pid to, joined by ':', as `hpcc-init exec` takes them."""
        return ":".join(f"{d}/cgroup.procs" for d in self.directories)

    def kill(self) -> None:
        """Send SIGKILL to all processes in the group, including forks in progress."""
        with suppress(OSError):
            _write(f"{self._path}/cgroup.kill", "1")

    def was_out_of_memory(self) -> bool:
        return _count(f"{self._path}/memory.events", "oom_kill") > 0

    def is_empty(self) -> bool:
        """Return whether no process is left, and so no memory of one."""
        try:
            return _count(f"{self._path}/cgroup.events", "populated") == 0
        except FileNotFoundError:
            return True  # removed

    def remove_unused(self) -> None:
        """Remove the group, in which there never was a process.

        Raises:
            OSError: the kernel does not let it go.
        """
        for directory in self.directories:
            _remove(directory)

    async def remove(self) -> None:
        """Kill what is left and remove the group.

        Raises:
            OSError: it stayed busy, because a process would not die.
        """
        deadline = time.monotonic() + _REMOVE_SECONDS
        while True:
            self.kill()
            try:
                for directory in self.directories:
                    _remove(directory)
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
            else:
                return
            await asyncio.sleep(_PAUSE_SECONDS)


class Room:
    """Delays a compile while a killed one still holds its memory."""

    def __init__(self) -> None:
        self._dying: set[Cgroup] = set()

    async def wait(self) -> None:
        """Return when every group that left a `gives_back` block is empty."""
        while self._dying:
            self._dying = {group for group in self._dying if not group.is_empty()}
            if self._dying:
                await asyncio.sleep(_PAUSE_SECONDS)

    @asynccontextmanager
    async def gives_back(self, group: Cgroup) -> AsyncIterator[None]:
        """Kill the group's processes after the block; `wait` then waits for its memory."""
        try:
            yield
        finally:
            group.kill()
            self._dying.add(group)


class _CgroupV1(Cgroup):
    """The same for version 1, in two hierarchies."""

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
        """Send SIGKILL to all processes in the group.

        A fork in progress does not escape: PID 1 of the compile's namespace is among them, and the
        kernel ends the namespace with it.
        """
        with suppress(FileNotFoundError):  # removed
            for pid in _pids(self._pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def was_out_of_memory(self) -> bool:
        return _count(f"{self._memory}/memory.oom_control", "oom_kill") > 0

    def is_empty(self) -> bool:
        try:
            return not list(_pids(self._pids))
        except FileNotFoundError:
            return True


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
