"""Child processes of the farm simulator: exchange JSON lines, end in any case, report memory.

And what else ran on the core that one of them has.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from _measure import BenchError


@dataclass(frozen=True, slots=True)
class CoreUse:
    """Seconds that programs had of a core since the start, and that a hypervisor took from it.

    The kernel's interrupts are in neither: those of the loopback device belong to the load.
    """

    programs: float
    stolen: float

    @classmethod
    def of(cls, core: str, stat: str) -> Self:
        """Read the line of a core in the text of `/proc/stat`.

        Raises:
            BenchError: there is no such core.
        """
        for line in stat.splitlines():
            name, *ticks = line.split()
            if name == f"cpu{core}":
                user, nice, system, _, _, _, _, stolen = map(int, ticks[:8])
                second = os.sysconf("SC_CLK_TCK")
                return cls((user + nice + system) / second, stolen / second)
        raise BenchError(f"no core {core}")

    @classmethod
    def now(cls, core: str) -> Self:
        return cls.of(core, Path("/proc/stat").read_text())


class Process:
    """A child process that reads and writes JSON lines."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child, self.pid = child, child.pid

    def tell(self, line: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def hear(self) -> Mapping[str, Any]:
        """Return the child's next line that is not a progress line.

        Raises:
            BenchError: the child ended.
        """
        assert self.child.stdout is not None
        while line := self.child.stdout.readline():
            said: dict[str, Any] = json.loads(line)
            if "progress" not in said:
                return said
        raise BenchError(f"{self.child.args!r} ended with status {self.child.wait()}")

    @property
    def waited_seconds(self) -> float:
        """Return the sum of the times that its threads were ready to run and had no core."""
        found = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(OSError):  # it has ended
                found += int((task / "schedstat").read_text().split()[1])
        return found / 1e9

    @property
    def rss_bytes(self) -> int:
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def started(argv: Sequence[str], seconds: float, log: Path) -> Iterator[Process]:
    """Run a child while the block runs, at most `seconds`; `log` gets its stderr."""
    with log.open("ab") as errors:
        child = subprocess.Popen(
            argv,
            env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    alarm = threading.Timer(seconds, child.kill)
    alarm.start()
    try:
        yield Process(child)
    finally:
        alarm.cancel()
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()
