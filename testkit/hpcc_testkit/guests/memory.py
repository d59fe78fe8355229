"""What a VMM keeps in memory, as the kernel counts it: its own pages, and its share of the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# An address range, its rights, offset, device and inode, and the name behind them.
_MAPPING: Final = re.compile(r"^[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ \d+ *(.*)$")


@dataclass(frozen=True, slots=True)
class Memory:
    """Sizes in MiB. `proportional`: each page divided by the number of processes that map it.

    `own`: pages that no other process maps, so that one guest more takes as much. `translated`: the
    part of both that an emulator's translated code takes; 0 under KVM.
    """

    proportional: float
    own: float
    translated: float


def memory_of(pid: int) -> Memory:
    """Return the memory of a process."""
    return parse_smaps(Path(f"/proc/{pid}/smaps").read_text())


def parse_smaps(text: str) -> Memory:
    """Return the sums of the text of a `/proc/PID/smaps`."""
    proportional = own = translated = 0.0
    is_code = False
    for line in text.splitlines():
        if (mapping := _MAPPING.match(line)) is not None:
            # No program has memory without a file that it writes and runs, but an emulator.
            is_code = "wx" in mapping[1] and not mapping[2]
            continue
        name, _, value = line.partition(":")
        if name in {"Pss", "Private_Dirty", "Private_Clean"}:
            size = int(value.split()[0]) / 1024
            proportional += size if name == "Pss" else 0.0
            own += 0.0 if name == "Pss" else size
            translated += size if is_code and name == "Pss" else 0.0
    return Memory(proportional=proportional, own=own, translated=translated)
