"""One cgroup (v2) for each compile: its limits, and the kill that nothing escapes."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress
from typing import Final

_REMOVE_TRIES: Final = 200
_REMOVE_PAUSE_SECONDS: Final = 0.01


def enable_controllers(root: str) -> None:
    """Let children of the root group be limited; once, at the agent's start.

    Raises:
        OSError: the kernel lacks a controller.
    """
    _write(f"{root}/cgroup.subtree_control", "+memory +pids")


class Cgroup:
    """A leaf group. Make it, start processes in it by `procs_path`, then `remove`."""

    def __init__(self, root: str, name: str, *, memory_bytes: int, pids: int) -> None:
        self._path = f"{root}/{name}"
        os.mkdir(self._path)
        _write(f"{self._path}/memory.max", str(memory_bytes))
        _write(f"{self._path}/pids.max", str(pids))
        # All or nothing: a compiler driver would report a killed cc1 as an ordinary failure.
        _write(f"{self._path}/memory.oom.group", "1")

    @property
    def procs_path(self) -> str:
        return f"{self._path}/cgroup.procs"

    def kill(self) -> None:
        """SIGKILL for everything in it, forks in flight included."""
        with suppress(OSError):
            _write(f"{self._path}/cgroup.kill", "1")

    def was_out_of_memory(self) -> bool:
        with open(f"{self._path}/memory.events") as file:
            events = dict(line.split() for line in file)
        return int(events.get("oom_kill", "0")) > 0

    async def remove(self) -> None:
        """Kill what is left and remove the group.

        Raises:
            OSError: it stayed busy, that is, a process would not die.
        """
        self.kill()
        for attempt in range(_REMOVE_TRIES):
            try:
                os.rmdir(self._path)
            except OSError as error:
                if error.errno != errno.EBUSY or attempt == _REMOVE_TRIES - 1:
                    raise
            else:
                return
            await asyncio.sleep(_REMOVE_PAUSE_SECONDS)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
