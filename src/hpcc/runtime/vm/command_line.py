"""The guest kernel's command line: what every VMM's has in common. No I/O.

The problem: a kernel without mitigations is faster, and a process in the guest can read the memory
of another one through side channels of the CPU. In a guest that serves one principal that other
process is the same principal's. In a guest of several principals it is a colleague's. So the line
follows from whom a guest can serve (`hpcc.core.GuestMitigations`), each audit row holds it, and the
key of a snapshot contains it.

The host is defended by its own kernel's mitigations, whatever a guest's kernel does.
"""

from __future__ import annotations

from typing import Final

from hpcc.wire.exec_frames import TOKEN_PARAMETER

# `auto` is written out, so that a row shows that they are on.
_ON: Final = ("mitigations=auto",)
_OFF: Final = ("mitigations=off", "nokaslr")


def mitigation_options(*, has_mitigations: bool) -> tuple[str, ...]:
    """Return the kernel's options for a guest with or without mitigations."""
    return _ON if has_mitigations else _OFF


def recorded_line(line: str) -> str:
    """Return a command line as audit rows hold it: without the token, which differs each time."""
    return " ".join(w for w in line.split() if not w.startswith(f"{TOKEN_PARAMETER}="))
