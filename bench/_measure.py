"""Measures what a piece of work costs: wall time, and the CPU of everything that worked for it.

The CPU time has two parts. One is the processes that were started (rusage counts all that were
waited for). The other is what the tool's server spent meanwhile: its threads, also those that have
ended, its living descendants, and the children it has waited for, so a server that runs the
compiler itself pays for it too. The kernel's resolution is a nanosecond for the threads and a tick
of 10 ms for the children. Work in kernel threads (writeback, a loop device) belongs to no process,
so no figure contains it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
# clock_getcpuclockid(3): the clock of a whole thread group, in scheduler time.
_PROCESS_CLOCK: Final = 2
# hpcc's daemon writes its counters and records every two seconds.
DEFERRED_SECONDS: Final = 2.5


class BenchError(Exception):
    """The bench cannot continue: a figure would be wrong, or a tool does not work."""


class SkipRow(Exception):  # noqa: N818 - not a fault: the reason goes into the report
    """A row cannot be measured on this machine; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one round. `cpu` includes `server`, which is the server's share."""

    wall: float
    cpu: float
    server: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu, self.server + other.server)

    def charged(self, seconds: float) -> Cost:
        """Return the cost with `seconds` more CPU of the server."""
        return Cost(self.wall, self.cpu + seconds, self.server + seconds)


def own_seconds(pid: int) -> float:
    """Return the CPU of one process so far, including ended threads; 0 without a process."""
    try:
        return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)
    except OSError:
        return 0.0


def tree_seconds(pid: int | None) -> float:
    """Return the CPU of a process, its living descendants, and the children each has waited for."""
    if pid is None:
        return 0.0
    stats = _stats()
    children: dict[int, list[int]] = {}
    for child, fields in stats.items():
        children.setdefault(int(fields[1]), []).append(child)
    total, todo = 0.0, [pid]
    while todo:
        current = todo.pop()
        todo.extend(children.get(current, []))
        if current in stats:
            waited_for = int(stats[current][13]) + int(stats[current][14])
            total += own_seconds(current) + waited_for / _TICKS_PER_SECOND
    return total


def _stats() -> dict[int, list[str]]:
    """Return the fields of /proc/PID/stat after the name, for every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
    return found


def children_seconds() -> float:
    """Return the CPU of all children that this process has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(work: Callable[[], None], server_seconds: Callable[[], float]) -> Cost:
    """Return the cost of `work`; `server_seconds` returns the CPU of the tool's server so far."""
    server_before, children_before = server_seconds(), children_seconds()
    started = time.perf_counter()
    work()
    wall = time.perf_counter() - started
    children = children_seconds() - children_before
    server = server_seconds() - server_before
    return Cost(wall, children + server, server)


class Served(Protocol):
    """What `Deferred` needs of a tool."""

    name: str

    def server_seconds(self) -> float:
        """Return the CPU of its server so far."""


class Deferred:
    """Charges the tools for the work that their servers do after their answers.

    A server may count, record or tidy a second later, while another tool is measured. So this class
    measures the server over the whole row, from before the first round until it had time to finish.
    CPU time that no round has counted is spread over the rounds. The servers must get no other
    requests in between.
    """

    def __init__(self, tools: Sequence[Served]) -> None:
        self._before = {tool.name: (tool, tool.server_seconds()) for tool in tools}

    def charge(self, costs: dict[str, list[Cost]]) -> None:
        """Add the server's uncounted share to each round."""
        settle(DEFERRED_SECONDS)
        for name, (tool, before) in self._before.items():
            rounds = costs[name]
            seen = sum(cost.server for cost in rounds)
            rest = max(0.0, tool.server_seconds() - before - seen) / len(rounds)
            costs[name] = [cost.charged(rest) for cost in rounds]


def run(argv: Sequence[str], env: Mapping[str, str], cwd: Path, *, seconds: float = 1800) -> str:
    """Run a command to its end; return its output.

    Raises:
        BenchError: the command failed.
    """
    try:
        done = subprocess.run(
            argv, env=dict(env), cwd=cwd, timeout=seconds, check=False,
            stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{argv[0]}: {error}") from error
    if done.returncode:
        tail = done.stderr.decode(errors="replace")[-2000:]
        raise BenchError(f"{' '.join(argv)[:300]} failed ({done.returncode}): {tail}")
    return done.stdout.decode(errors="replace")


def rotated[T](items: Sequence[T], by: int) -> list[T]:
    """Return the items rotated by `by`, so that no tool always runs after the same neighbour."""
    by %= len(items) or 1
    return [*items[by:], *items[:by]]


def settle(seconds: float = 3.0) -> None:
    """Wait until files are older than the window in which a cache cannot detect a change."""
    time.sleep(seconds)
