"""What the operating system says about this process, under the names that Prometheus uses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc.obs.metrics.registry import Family, Kind

_PROC: Final = Path("/proc/self")
_STAT: Final = Path("/proc/stat")
# Fields of /proc/self/stat after the name: proc_pid_stat(5), fields 22 to 24.
_START, _VIRTUAL, _RESIDENT = 19, 20, 21


def _family(name: str, kind: Kind, text: str) -> Family:
    return Family(name=name, kind=kind, text=text, labels=(), most=1)


CPU: Final = _family(
    "process_cpu_seconds_total", Kind.COUNTER, "CPU that this process has used, user and system."
)
RESIDENT: Final = _family(
    "process_resident_memory_bytes", Kind.GAUGE, "Memory of this process that is in RAM."
)
VIRTUAL: Final = _family(
    "process_virtual_memory_bytes", Kind.GAUGE, "Address space of this process."
)
STARTED: Final = _family(
    "process_start_time_seconds", Kind.GAUGE, "When this process started, since the epoch."
)
OPEN_FILES: Final = _family("process_open_fds", Kind.GAUGE, "Open file descriptors.")
MOST_FILES: Final = _family(
    "process_max_fds", Kind.GAUGE, "The most file descriptors that may be open (LimitNOFILE)."
)
FAMILIES: Final = (CPU, RESIDENT, VIRTUAL, STARTED, OPEN_FILES, MOST_FILES)


def process_values() -> Iterator[tuple[Family, float]]:
    """Yield what this system tells; elsewhere than on Linux that is only the CPU."""
    times = os.times()
    yield CPU, times.user + times.system
    if sys.platform != "linux":
        return
    try:
        # The name of the program is in brackets and may hold anything.
        stat = (_PROC / "stat").read_bytes().rpartition(b")")[2].split()
        booted = next(
            int(line.split()[1])
            for line in _STAT.read_bytes().splitlines()
            if line.startswith(b"btime ")
        )
        files = len(os.listdir(_PROC / "fd"))  # noqa: PTH208 - counts a directory of the kernel
    except (OSError, StopIteration, IndexError, ValueError):
        return  # /proc is not mounted
    import resource

    yield RESIDENT, int(stat[_RESIDENT]) * resource.getpagesize()
    yield VIRTUAL, int(stat[_VIRTUAL])
    yield STARTED, booted + int(stat[_START]) / os.sysconf("SC_CLK_TCK")
    yield OPEN_FILES, files
    yield MOST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
