"""The fault points of the private store, and a daemon that dies at one of them.

`FaultOps` stands between the store and the disk: it numbers every call and injects a fault at one.
`python -m hpcc_testkit.cache.store_faults AT FAULT` runs a daemon whose store uses it.
"""

from __future__ import annotations

import argparse
import enum
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

from hpcc.cache.base.api import RemoteClient
from hpcc.cache.cache import open_cache
from hpcc.cache.replay.handler import CacheHandler
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.daemon.main import run_daemon
from hpcc.store.file_ops import SystemFileOps

# Small, so that an entry takes several writes and a fault can come between them.
CHUNK_BYTES: Final = 40


class Fault(enum.Enum):
    """What happens at a point. `LOST_REPLY`: the call succeeds, but the caller gets an error."""

    FULL = "full"
    BROKEN = "broken"
    REFUSED = "refused"
    SHORT = "short"
    LOST_REPLY = "lost-reply"
    KILL_BEFORE = "kill-before"
    KILL_AFTER = "kill-after"


KILLS: Final = frozenset({Fault.KILL_BEFORE, Fault.KILL_AFTER})
_CODES: Final = {
    Fault.FULL: errno.ENOSPC,
    Fault.BROKEN: errno.EIO,
    Fault.REFUSED: errno.EACCES,
    Fault.LOST_REPLY: errno.EIO,
}


class FaultOps(SystemFileOps):
    """The real calls; call number `at` meets `fault`. `on_hit` is called just before."""

    def __init__(
        self,
        at: int = -1,
        fault: Fault = Fault.BROKEN,
        *,
        on_hit: Callable[[], None] = lambda: None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.calls: list[str] = []
        self._at, self._fault, self._on_hit = at, fault, on_hit
        self._chunk_bytes = chunk_bytes

    def mkdir(self, path: str) -> None:
        self._do("mkdir", lambda: super(FaultOps, self).mkdir(path))

    def open(self, path: str, flags: int) -> int:
        return self._do("open", lambda: super(FaultOps, self).open(path, flags))

    def read(self, fd: int, size: int) -> bytes:
        if self._is_short("read"):
            size = max(1, size // 2)
        return self._do("read", lambda: super(FaultOps, self).read(fd, size))

    def write(self, fd: int, data: bytes | memoryview) -> int:
        part = data[: self._chunk_bytes]
        if self._is_short("write"):
            part = part[: max(1, len(part) // 2)]
        return self._do("write", lambda: super(FaultOps, self).write(fd, part))

    def rename(self, source: str, target: str) -> None:
        self._do("rename", lambda: super(FaultOps, self).rename(source, target))

    def link(self, source: str, target: str) -> None:
        self._do("link", lambda: super(FaultOps, self).link(source, target))

    def unlink(self, path: str) -> None:
        self._do("unlink", lambda: super(FaultOps, self).unlink(path))

    def utime(self, path: str, at: float) -> None:
        self._do("utime", lambda: super(FaultOps, self).utime(path, at))

    def _is_short(self, name: str) -> bool:
        return len(self.calls) == self._at and self._fault is Fault.SHORT and name in SHORTENED

    def _do[T](self, name: str, call: Callable[[], T]) -> T:
        self.calls.append(name)
        if len(self.calls) - 1 != self._at:
            return call()
        self._on_hit()
        fault = self._fault
        if fault is Fault.KILL_BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault in _CODES and fault is not Fault.LOST_REPLY:
            raise OSError(_CODES[fault], os.strerror(_CODES[fault]))
        try:
            result = call()
        finally:
            if fault is Fault.KILL_AFTER:
                os.kill(os.getpid(), signal.SIGKILL)
        if fault is Fault.LOST_REPLY:
            raise OSError(_CODES[fault], os.strerror(_CODES[fault]))
        return result


SHORTENED: Final = frozenset({"read", "write"})


def faults_of(name: str) -> tuple[Fault, ...]:
    """Return the faults that are possible at a call of that name."""
    return tuple(f for f in Fault if f is not Fault.SHORT or name in SHORTENED)


def _main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("at", type=int)
    parser.add_argument("fault", type=Fault)
    parser.add_argument("--chunk-bytes", type=int, default=1 << 12)
    args = parser.parse_args(argv)
    ops = FaultOps(args.at, args.fault, chunk_bytes=args.chunk_bytes)

    def parts(paths: Paths, settings: Settings) -> tuple[CacheHandler, RemoteClient | None]:
        return open_cache(paths, settings, None, store_ops=ops), None

    return run_daemon([], parts=parts)


if __name__ == "__main__":
    sys.exit(_main())
