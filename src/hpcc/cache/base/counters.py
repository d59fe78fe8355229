"""The counts of `hpcc stats`, by stable names, kept over restarts of the daemon.

Names: `hit.local`, `hit.shared` (local hits that another checkout made), `hit.signed` (local hits
that another machine made and signed), `remote-cache.<what>`, `hit.content` (local hits that a
compile with another output or directory made), `hit.remote`, `hit.comments` (content
hits after an edit of comments, or of values of macros that no text reads), `hit.engine`,
`miss.local`, `miss.remote.executed`,
`miss.remote.cached`, `miss.remote.fresh`, `miss.remote.agreed` (colleagues' results),
`miss.remote.pack` (in a build pack),
`miss.failed`, `miss.engine.executed`, `miss.engine.cached`,
`missed.<reason>` (why, of each miss that ended well),
`bypass.<reason>`, `uncacheable.<reason>`, `private.<reason>` (stored only for this checkout),
`fallback.<reason>`, `dedup.waited`, `store.<what>`, `launcher.<reason>` (compiled without the
daemon),
`links.recorded`, `claims.recorded` (compiles here), `bytes.stored`, `bytes.served`; `since` is the
time at which counting began, in epoch seconds.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hpcc.files.whole import Sync, write_whole

COUNTERS_NAME: Final = "counters.json"
MAX_COUNTERS_BYTES: Final = 1 << 20
_MAX_NAMES: Final = 2000
FLUSH_SECONDS: Final = 2.0


def read_counters(path: str) -> dict[str, int]:
    """Return the counts on disk; empty if the file is missing or damaged."""
    try:
        with open(path, "rb") as file:
            table = json.loads(file.read(MAX_COUNTERS_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(table, dict):
        return {}
    items = list(table.items())[:_MAX_NAMES]
    return {k: v for k, v in items if isinstance(k, str) and type(v) is int and v >= 0}


class Counters:
    """Counts, and a thread that writes them back while they change. Thread-safe."""

    def __init__(self, path: str, *, now: Callable[[], float]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._counts = read_counters(path)
        self._counts.setdefault("since", int(now()))
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._is_over = False
        self._on_flush: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name="hpcc-counters", daemon=True)
        self._thread.start()

    def on_flush(self, callback: Callable[[], None]) -> None:
        """Also call `callback` whenever counts are written back, from the counters' thread."""
        self._on_flush.append(callback)

    def add(self, name: str, amount: int = 1) -> None:
        """Add to one count; beyond `_MAX_NAMES` new names are dropped.

        After `close` each count is written back at once: the last report of a build is one.
        """
        with self._lock:
            if name in self._counts or len(self._counts) < _MAX_NAMES:
                self._counts[name] = self._counts.get(name, 0) + amount
            is_over = self._is_over
        if is_over:
            write_counters(self._path, self.snapshot())
        elif not self._wake.is_set():
            self._wake.set()

    def snapshot(self) -> dict[str, int]:
        """Return a copy of all counts."""
        with self._lock:
            return dict(self._counts)

    def reset(self, since: int) -> None:
        """Drop all counts and start again at `since`, in epoch seconds."""
        with self._lock:
            self._counts = {"since": since}
        self._wake.set()

    def close(self) -> None:
        """Write back and stop; idempotent."""
        self._closed.set()
        self._wake.set()
        self._thread.join(FLUSH_SECONDS * 2)
        self._flush()
        with self._lock:
            self._is_over = True

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait()
            self._closed.wait(FLUSH_SECONDS)  # more counts come soon, and each write costs a file
            self._wake.clear()
            self._flush()

    def _flush(self) -> None:
        write_counters(self._path, self.snapshot())
        for callback in self._on_flush:
            callback()


def write_counters(path: str, counts: dict[str, int]) -> None:
    """Replace the file atomically; on a disk error the old one stays."""
    data = json.dumps(counts, sort_keys=True).encode()
    with contextlib.suppress(OSError):
        write_whole(Path(path), data, sync=Sync.NONE, mode=0o666, makes_parent=True)
