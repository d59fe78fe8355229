"""How a program ended, whatever the system: what the agent puts into a Result."""

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
    """An output file that exists, with the size that it had when nothing ran any more.

    `fd` is open, or -1: a directory, or a file that is opened when it is sent.
    """

    path: str
    fd: int
    size_bytes: int
    is_executable: bool


class OutputTreeError(Exception):
    """Something in an output directory that REAPI has no place for, or too much of it."""
