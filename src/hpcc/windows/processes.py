"""A process that serves a pipe: waits for its end, or kills it when it hangs."""

from __future__ import annotations

from typing import Final

from hpcc.windows.library import Library, checked

# SYNCHRONIZE, PROCESS_TERMINATE
_RIGHTS: Final = 0x0010_0000 | 1
_WAIT_OBJECT: Final = 0
_KILLED: Final = 1


class ServerProcess:
    """One process. Its number is not reused while this is open."""

    def __init__(self, library: Library, number: int) -> None:
        """Open the process.

        Raises:
            WindowsError: there is no such process, or it may not be opened.
        """
        self._library = library
        self._handle = checked(library, "OpenProcess", _RIGHTS, 0, number)

    def is_over(self, wait_ms: int) -> bool:
        """Wait for its end; return whether it ended."""
        return (
            self._library.call("WaitForSingleObject", self._handle, wait_ms).value == _WAIT_OBJECT
        )

    def kill(self) -> None:
        """Terminate the process."""
        self._library.call("TerminateProcess", self._handle, _KILLED)

    def close(self) -> None:
        """Close the handle. May be called again."""
        handle, self._handle = self._handle, 0
        if handle:
            self._library.call("CloseHandle", handle)
