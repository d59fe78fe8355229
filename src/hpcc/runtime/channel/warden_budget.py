"""How much processor time a warden may use."""

from __future__ import annotations

from typing import Final

_CPU_START_SECONDS: Final = 20.0
_CPU_PER_SECOND: Final = 0.05
_CPU_PER_EXEC: Final = 2.0
_BYTES_PER_CPU_SECOND: Final = 2 << 20


class CpuBudget:
    """Processor seconds that a warden may have used for the work that it was given.

    The budget is ten times what is measured, so that a warden on an emulated machine stays below
    it. A warden that was taken over, or a guest that makes it work for nothing, exceeds it.
    """

    def __init__(self) -> None:
        self._earned = _CPU_START_SECONDS

    def earn(self, *, seconds: float = 0.0, execs: int = 0, size_bytes: int = 0) -> None:
        """Extend the budget for seconds passed, execs begun and bytes passed on."""
        self._earned += (
            seconds * _CPU_PER_SECOND + execs * _CPU_PER_EXEC + size_bytes / _BYTES_PER_CPU_SECOND
        )

    def is_used_up(self, used_seconds: float) -> bool:
        """Return whether `used_seconds` exceeds the budget."""
        return used_seconds > self._earned
