"""How many rounds, compiles and projects a run has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from _tools import BARE, FRESH, HPCC, OURS


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`compiles` make a round of a hit row; `tools` are the installed tools, bare first."""

    tools: tuple[str, ...]
    launcher: Path = HPCC
    rounds: int = 9
    cold_rounds: int = 5
    compiles: int = 100
    headers: tuple[int, ...] = (10, 300, 1000)
    dirs_headers: tuple[int, ...] = (10, 300, 1000)
    projects: tuple[str, ...] = ("Lua", "Redis", "nlohmann-json", "fmt", "SQLite")

    @property
    def caches(self) -> tuple[str, ...]:
        return tuple(name for name in self.tools if name != BARE)


# Enough to show that everything works; the figures are noise.
QUICK: Final = {
    "rounds": 1, "cold_rounds": 1, "compiles": 20,
    "headers": (10, 300), "dirs_headers": (10,), "projects": ("Lua",),
}  # fmt: skip
ALL_TOOLS: Final = (BARE, OURS, "ccache", "sccache")

__all__ = ["ALL_TOOLS", "BARE", "FRESH", "OURS", "QUICK", "Settings"]
