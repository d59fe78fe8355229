"""How a program ended, on any system: the fields of a Result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

type Reason = Literal[
    "", "deadline", "no-such-program", "stdio-limit", "output-limit", "output-tree", "memory",
    "agent-error",
]  # fmt: skip
type StreamName = Literal["stdout", "stderr"]
type OnStdio = Callable[[StreamName, bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a program ended; `status` is an exit code, or minus a signal. Times in seconds."""

    status: int = 0
    reason: Reason = ""
    detail: str = ""
    wall_seconds: float = 0.0
    user_seconds: float = 0.0
    system_seconds: float = 0.0
    max_rss_bytes: int = 0
    started_at: float = 0.0


@dataclass(slots=True)
class Output:
    """An existing output, with its size after all processes of the exec ended.

    `fd` is open, or -1 for a directory and for a file that is opened when it is sent.
    """

    path: str
    fd: int
    size_bytes: int
    is_executable: bool


class OutputTreeError(Exception):
    """An output directory has an entry that REAPI cannot represent, or too many entries."""
