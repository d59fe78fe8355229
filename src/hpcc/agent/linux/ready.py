"""Sandboxes that are made before there is a program for them.

The problem: namespaces, mounts and the cgroup of a compile take 3 ms in which nothing else can be
done. With cgroups of version 1 they take 20 ms: a process joins one only when all processors have
passed a quiet state.

The rule: when an exec has ended and its tree is removed, a sandbox is made for the next one, with
the same limits. Nothing runs in it but `hpcc-init`, which waits. It serves one exec. An exec that
has other limits, or that finds none waiting, gets a new one, which is made in the same way. A
guest's first exec leaves none, because a guest may be for one compile only.

Example: a compile with a larger memory limit ends the waiting sandbox and gets another.

What must never happen: two programs run in one sandbox; a program gets another exec's limits.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hpcc.agent.linux.cgroup import new_cgroup
from hpcc.agent.linux.networks import Networks
from hpcc.agent.linux.program import OutputPipe, Program

_FIRST_UID: Final = 10_000
# As many as a container's range of ids has room for; a guest that runs more starts again.
_UIDS: Final = 250_000


def uid_of(number: int) -> int:
    """Return the uid of a guest's sandbox, which no other one that may still exist has."""
    return _FIRST_UID + number % _UIDS


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPlaces:
    """The program that makes sandboxes, the group of their groups, the directory of all trees.

    `waits_for_tick`: changes in the directory have the time of a tick (`hpcc.agent.linux.ticks`).
    """

    helper: str
    cgroup_root: str
    directory: str
    waits_for_tick: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What is decided when a sandbox is made."""

    memory_bytes: int
    output_bytes: int
    pids: int


class ReadySandbox:
    """One sandbox: `start` at most one program in it, then `drop` it.

    `uid` is the program's outside of it.
    """

    def __init__(
        self, places: SandboxPlaces, limits: SandboxLimits, number: int, networks: Networks
    ) -> None:
        """Begin to make it; `number` is different for each of a guest.

        Raises:
            OSError: there is no room for it.
        """
        self.limits, self.uid = limits, uid_of(number)
        # A container may have an agent for each exec, and one that was killed leaves its group.
        name = f"x{os.getpid()}-{number}"
        self.cgroup = new_cgroup(
            places.cgroup_root, name, memory_bytes=limits.memory_bytes, pids=limits.pids
        )
        self._networks = networks
        self.stdout, self.stderr, self.report = OutputPipe(), OutputPipe(), OutputPipe()
        self._fds: list[int] = []
        try:
            self.helper = self._start_helper(places)
        except BaseException:
            self.close()
            self.cgroup.remove_unused()
            raise

    def _start_helper(self, places: SandboxPlaces) -> Program:
        self._network = self._own(self._networks.take())
        going, self._go = map(self._own, os.pipe2(os.O_CLOEXEC))
        self._job = self._own(os.memfd_create("job", os.MFD_CLOEXEC))
        outputs = (self.stdout, self.stderr, self.report)
        limits = self.limits
        helper = Program(
            (
                places.helper, "exec", self.cgroup.procs_paths, str(self.uid),
                str(limits.output_bytes), str(limits.pids), str(limits.memory_bytes),
                places.directory, str(int(places.waits_for_tick)),
            ),
            {},
            # In the order that the helper expects.
            [*(pipe.write_fd for pipe in outputs), self._network, going, self._job],
        )  # fmt: skip
        for pipe in outputs:
            pipe.close_write_end()
        return helper

    def _own(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def start(self, source: str, cwd: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Let it run a program on the tree `source`, a path below the directory of all trees.

        If it could not be made, it says so in its report.

        Raises:
            OSError: there is no room for the arguments.
        """
        texts = (
            source, cwd, str(len(argv)), *argv, *(f"{name}={value}" for name, value in env.items()),
        )  # fmt: skip
        left = memoryview(b"".join(os.fsencode(text) + b"\0" for text in texts))
        while left:
            left = left[os.write(self._job, left) :]
        with suppress(BrokenPipeError):
            os.write(self._go, b"g")

    def give_back_network(self) -> None:
        """Call it if the helper was seen to end by itself: then no process of it is left."""
        self._fds.remove(self._network)
        self._networks.give_back(self._network)

    async def drop(self) -> None:
        """End all that is left of it.

        Raises:
            OSError: its group stays, because a process would not die.
        """
        self.helper.kill()
        await self.helper.wait()
        self.close()
        await self.cgroup.remove()

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())
        for pipe in (self.stdout, self.stderr, self.report):
            pipe.close()


class Sandboxes:
    """The sandboxes of one agent. At most one of them waits for a program."""

    def __init__(self, places: SandboxPlaces, *, keeps_one: bool) -> None:
        self._places, self._keeps_one = places, keeps_one
        self._networks = Networks()
        self._waiting: ReadySandbox | None = None
        self._numbers = itertools.count()
        self._taken = 0

    async def take(self, limits: SandboxLimits) -> ReadySandbox:
        """Return a sandbox that no other exec has.

        Raises:
            OSError: there is no room for one, or one that is not needed cannot be removed.
        """
        self._taken += 1
        found, self._waiting = self._waiting, None
        if found is not None:
            if found.limits == limits and not found.helper.has_ended:
                return found
            await found.drop()
        return self._new(limits)

    def make_ready(self, limits: SandboxLimits) -> None:
        """Let one wait for the next exec, if that may come and is like the last one."""
        if self._keeps_one and self._waiting is None and self._taken > 1:
            with suppress(OSError):  # the next exec tries again, and says why
                self._waiting = self._new(limits)

    def _new(self, limits: SandboxLimits) -> ReadySandbox:
        return ReadySandbox(self._places, limits, next(self._numbers), self._networks)
