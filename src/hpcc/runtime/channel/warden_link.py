"""What a channel needs from its guest's warden, however the warden was started."""

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
        """Call `on_pid` with the warden's pid and later `on_end` with how it ended.

        Both run in the running loop. The text for `on_end` starts with a reason, such as
        `warden-died: `.
        """

    async def open(self, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return reader and writer of the connection to the warden. Call it once.

        `limit` is the number of bytes that may be read ahead.

        Raises:
            OSError: the warden is gone.
            EOFError: the warden is gone.
            IntegrityError: the peer is not a warden.
        """

    def cpu_seconds(self) -> float:
        """Return the warden's processor time in seconds; 0 if it is gone."""

    def close(self) -> None:
        """End the warden; idempotent."""


type Launch = Callable[[socket.socket], WardenLink]
