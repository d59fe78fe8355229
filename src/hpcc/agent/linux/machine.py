"""The agent's machine on Linux: a directory, a cgroup and namespaces for each exec."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from hpcc.agent.base.blobs import BlobCache
from hpcc.agent.base.ending import Ending, OnStdio, Output
from hpcc.agent.base.intake import FirstExecHeader
from hpcc.agent.linux.cgroup import Room
from hpcc.agent.linux.links import LinkedBlobs, TreeLinks
from hpcc.agent.linux.ready import Sandboxes, SandboxLimits, SandboxPlaces
from hpcc.agent.linux.removal import remove_tree
from hpcc.agent.linux.sandbox import Sandbox
from hpcc.agent.linux.ticks import tells_changes_apart
from hpcc.agent.linux.tree import list_directories, open_listed, open_outputs, stage
from hpcc.core import ExecRequest

# linux/random.h
_RNDADDENTROPY: Final = 0x40085203
_RNDRESEEDCRNG: Final = 0x5207
# Turns of the loop after an exec, in which its stream ends.
_TURNS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxConfig:
    """The agent's directories and the limits of execs.

    `has_own_kernel`: clock and entropy are this guest's, not those of a container's host.
    `keeps_sandbox`: after an exec, a sandbox is made for the next one.
    """

    directory: str = "/run/hpcc"
    helper: str = "/.hpcc/bin/hpcc-init"
    cgroup_root: str = "/sys/fs/cgroup"
    blob_budget_bytes: int
    max_memory_bytes: int
    max_pids: int
    has_own_kernel: bool = True
    keeps_sandbox: bool = True


class LinuxMachine:
    """`Machine` on Linux (`hpcc.agent.base.machine`). Runs several execs at the same time."""

    def __init__(self, config: LinuxConfig) -> None:
        self._config = config
        self.directory = config.directory
        self.blob_budget_bytes = config.blob_budget_bytes
        self._room = Room()
        self._removals = _Removals()
        self._ways: _Ways
        self._linked: LinkedBlobs | None = None

    def prepare(self) -> None:
        os.mkdir(self.directory, 0o700)
        config = self._config
        places = SandboxPlaces(
            helper=config.helper,
            cgroup_root=config.cgroup_root,
            directory=config.directory,
            waits_for_tick=not tells_changes_apart(self.directory),
        )
        sandboxes = Sandboxes(places, keeps_one=config.keeps_sandbox)
        self._ways = _Ways(self._links, self._removals.later, sandboxes)

    def take_first_exec(self, first_exec: FirstExecHeader) -> None:
        if not self._config.has_own_kernel:
            return
        time.clock_settime_ns(time.CLOCK_REALTIME, first_exec.wall_time_ns)
        with open("/dev/random", "wb", buffering=0) as device:
            pool = (
                struct.pack("ii", 8 * len(first_exec.entropy), len(first_exec.entropy))
                + first_exec.entropy
            )
            fcntl.ioctl(device, _RNDADDENTROPY, pool)
            fcntl.ioctl(device, _RNDRESEEDCRNG)

    @asynccontextmanager
    async def workplace(self, request: ExecRequest, number: int) -> AsyncIterator[_Workplace]:
        await self._room.wait()
        await self._removals.wait()
        async with (
            _Workplace(self._config, self._limited(request), number, self._ways) as place,
            self._room.gives_back(place.cgroup),
        ):
            yield place

    def _links(self, blobs: BlobCache) -> TreeLinks:
        if self._linked is None:
            self._linked = LinkedBlobs(blobs)
        return TreeLinks(self._linked)

    def _limited(self, request: ExecRequest) -> ExecRequest:
        limits = request.limits
        return replace(
            request,
            limits=replace(
                limits,
                memory_bytes=min(limits.memory_bytes, self._config.max_memory_bytes),
                pids=min(limits.pids, self._config.max_pids),
            ),
        )

    def say_memory(self, execs: int) -> None:
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sys.stderr.write(f"hpcc-agent: peak memory {peak_kib} KiB, execs {execs}\n")


class _Removals:
    """Trees of ended execs, which are removed when their answers have been sent."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def later(self, remove: Callable[[], None]) -> None:
        """Call `remove` in a later turn of the loop."""
        self._tasks.add(asyncio.get_running_loop().create_task(self._remove(remove)))

    @staticmethod
    async def _remove(remove: Callable[[], None]) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        remove()

    async def wait(self) -> None:
        """Return when all trees are removed, so that the next exec has their room.

        Raises:
            OSError: one could not be removed.
        """
        while self._tasks:
            task = next(iter(self._tasks))
            await asyncio.wait([task])
            self._tasks.discard(task)
            task.result()


@dataclass(frozen=True, slots=True)
class _Ways:
    """What all workplaces share: links for a tree, what is done later, and sandboxes."""

    links: Callable[[BlobCache], TreeLinks]
    later: Callable[[Callable[[], None]], None]
    sandboxes: Sandboxes


class _Workplace:
    """The directory and the cgroup of one exec; both are removed after the block."""

    def __init__(self, config: LinuxConfig, request: ExecRequest, number: int, ways: _Ways) -> None:
        self._request, self._ways = request, ways
        self._links: TreeLinks | None = None
        limits = request.limits
        self._limits = SandboxLimits(
            memory_bytes=limits.memory_bytes, output_bytes=limits.output_bytes, pids=limits.pids
        )
        # Only root can enter: other execs cannot reach it, and this exec sees only what /src binds.
        self._name = f"x{number}"
        self._directory = f"{config.directory}/{self._name}"
        self._source = f"{self._directory}/src"

    async def __aenter__(self) -> _Workplace:
        os.mkdir(self._directory, 0o700)
        self._sandbox = await self._ways.sandboxes.take(self._limits)
        self.cgroup = self._sandbox.cgroup
        return self

    async def __aexit__(self, *_: object) -> None:
        # Until here a process may change the tree; the rest can wait.
        await self._sandbox.drop()
        self._ways.later(self._remove)
        self._ways.later(lambda: self._ways.sandboxes.make_ready(self._limits))

    def _remove(self) -> None:
        if self._links is None:
            remove_tree(self._directory)
        else:
            self._links.remove(self._source, self._directory)

    async def stage(self, blobs: BlobCache) -> None:
        self._links = self._ways.links(blobs)
        await stage(self._source, self._request, self._links, self._sandbox.uid)

    async def run(self, on_stdio: OnStdio) -> Ending:
        return await Sandbox(self._sandbox, self._request, f"{self._name}/src").run(on_stdio)

    def outputs(self) -> list[Output]:
        files = open_outputs(self._source, self._request.outputs)
        try:
            return [*files, *list_directories(self._source, self._request.output_directories)]
        except BaseException:
            for file in files:
                os.close(file.fd)
            raise

    def open_listed(self, output: Output) -> int:
        return open_listed(self._source, output)
