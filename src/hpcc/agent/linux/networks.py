"""Network namespaces for compiles, each of one compile at a time.

The problem: to make one costs a compile half a millisecond, and the kernel a few more to remove it.

The rule: a namespace has no device but a loopback device that is down. It belongs to the agent, so
no compile can configure it. What a compile can leave in it ends with its processes: sockets and
their abstract names. Only one whose compile was seen to end is used again. Two compiles at the same
time never have the same one, because an abstract name would join them. Counters in /proc/net stay:
a compile can see that earlier ones of the same guest failed to connect.
"""

from __future__ import annotations

import os
import threading


class Networks:
    """The namespaces of one agent that no compile uses."""

    def __init__(self) -> None:
        self._free: list[int] = []

    def take(self) -> int:
        """Return the descriptor of a namespace; give it back, or close it.

        Raises:
            OSError: the kernel makes none.
        """
        return self._free.pop() if self._free else _new()

    def give_back(self, fd: int) -> None:
        """Take a namespace in which no process is left."""
        self._free.append(fd)


def _new() -> int:
    made: list[int] = []
    failed: list[OSError] = []

    def make() -> None:
        # Only this thread moves to the new namespace, and ends in it.
        try:
            os.unshare(os.CLONE_NEWNET)
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
