"""What a channel asks of its guest's warden, however that was started."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol

WARDEN_DIED: Final = "warden-died"
WARDEN_SECCOMP: Final = "warden-seccomp"
WARDEN_CPU: Final = "warden-cpu"

type OnPid = Callable[[int], None]
type OnEnd = Callable[[str], None]


class WardenLink(Protocol):
    """The worker's end of one warden; `close` ends the warden."""

    def watch(self, on_pid: OnPid, on_end: OnEnd) -> None:
        """Tell the running loop the warden's pid, and later how it ended: a reason, then words."""

    async def open(self, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the way to the warden, once; `limit` is how much is read ahead.

        Raises:
            OSError, EOFError: it is gone.
            IntegrityError: it is no warden.
        """

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used; 0 for one that is gone."""

    def close(self) -> None:
        """End it; idempotent."""


type Launch = Callable[[socket.socket], WardenLink]
