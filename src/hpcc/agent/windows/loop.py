"""An event loop for a machine without any network, loopback included.

asyncio's proactor wakes itself over a pair of sockets on 127.0.0.1, which a container without an
interface may lack. This loop posts to its completion port instead. IocpProactor ignores a
completion that it does not know (CPython 3.12 to 3.14, `windows_events.py`, `_poll`).
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

if sys.platform == "win32":
    import _overlapped

    # Not the address of an operation; zero would be taken for an error.
    _NOBODYS = 1

    class _NoSocket:
        """Replaces the end of the pair to which other threads and signals would write."""

        def fileno(self) -> int:
            return -1  # signal.set_wakeup_fd takes this as "none"

        def close(self) -> None:
            pass

    class SocketlessLoop(asyncio.ProactorEventLoop):
        """Wakes by posting a completion."""

        def _make_self_pipe(self) -> None:
            self._ssock = self._csock = _NoSocket()
            self._internal_fds += 1

        def _loop_self_reading(self, f: object = None) -> None:
            pass

        def _write_to_self(self) -> None:
            # Possibly from another thread, possibly after the loop was closed.
            proactor = self._proactor
            port = None if proactor is None else proactor._iocp  # noqa: SLF001 - no public way
            if port is not None:
                with suppress(OSError):
                    _overlapped.PostQueuedCompletionStatus(port, 0, 0, _NOBODYS)

    def new_loop() -> asyncio.AbstractEventLoop:
        """Return a loop that needs no socket."""
        return SocketlessLoop()

else:

    def new_loop() -> asyncio.AbstractEventLoop:
        """Return an ordinary loop: other systems make its socket pair without a network."""
        return asyncio.new_event_loop()
