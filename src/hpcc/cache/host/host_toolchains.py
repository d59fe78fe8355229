"""Describes this machine's compilers for the parity check: probed once, and again after changes.

Replays do not need it. It is used when a compile is looked up in a farm's results.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from hpcc.cache.base.tools import ask
from hpcc.compilers.probe import (
    MAX_ABOUT_BYTES,
    MAX_PREPROCESSED_BYTES,
    header_files,
    probe_command,
    probe_source,
    read_probe,
)
from hpcc.core import CallerError, Toolchain, encode_toolchains
from hpcc.core.memo import BoundedMemo

# Headers change with a system upgrade; a stat of some hundreds of them costs a millisecond.
RECHECK_SECONDS: Final = 600.0
_MAX_KNOWN: Final = 256
_OUTPUT: Final = "probe.i"
_ENV: Final = {b"LC_ALL": b"C"}


@dataclass(frozen=True, slots=True)
class HostToolchain:
    """A compiler of this machine; `toolchain` is None if unknown. `text` goes into requests."""

    name: str
    toolchain: Toolchain | None
    text: str


@dataclass(slots=True)
class _Known:
    found: HostToolchain
    # The state of every header that the probe read.
    state: tuple[tuple[str, tuple[int, ...]], ...]
    checked_at: float

    def is_young(self, now: float, recheck_seconds: float) -> bool:
        """Tell whether it counts without a look. Without files there is nothing to look at."""
        seconds = recheck_seconds if self.state else RECHECK_SECONDS
        return now - self.checked_at < seconds


class HostToolchains:
    """Remembers answers by identity and name. Thread-safe: one thread asks, the others wait."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: BoundedMemo[tuple[bytes, bytes, bytes], _Known] = BoundedMemo(_MAX_KNOWN)

    def of(
        self,
        compiler: bytes,
        called: bytes,
        identity: bytes,
        path: bytes,
        is_cancelled: Callable[[], bool] = lambda: False,
        *,
        recheck_seconds: float = RECHECK_SECONDS,
    ) -> HostToolchain:
        """Return the description of the compiler at the path `compiler`.

        `called` is its name on the command line, `identity` its digest, `path` the PATH where it
        finds its programs. `toolchain` is None for a compiler that does not answer. The files that
        the description stands for are looked at if that is `recheck_seconds` ago.
        """
        key = (identity, compiler, called)
        known = self._known.get(key)
        now = self._monotonic()
        if known is not None and known.is_young(now, recheck_seconds):
            return known.found
        with self._lock:
            known = self._known.get(key)
            if known is not None and known.is_young(now, recheck_seconds):
                return known.found
            if (
                known is not None
                and known.state
                and _state(n for n, _ in known.state) == known.state
            ):
                known.checked_at = now
                return known.found
            found, files = ask_compiler(compiler, called, path, is_cancelled)
            if not is_cancelled():
                self._known[key] = _Known(found, _state(sorted(files)), now)
            return found

    def compared(self, compiler: bytes, called: bytes, identity: bytes) -> frozenset[bytes]:
        """Return the headers that the description of a compiler stands for.

        It is empty if one of them has changed since, and for a compiler that was not asked.
        """
        known = self._known.get((identity, compiler, called))
        if known is None or _state(n for n, _ in known.state) != known.state:
            return frozenset()
        return frozenset(os.fsencode(os.path.normpath(name)) for name, _ in known.state)


def ask_compiler(
    compiler: bytes,
    called: bytes,
    path: bytes,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> tuple[HostToolchain, frozenset[str]]:
    """Run the probe; return the compiler's description and the headers that the probe read."""
    name = posixpath.basename(called).decode("utf-8", "replace")
    nothing = HostToolchain(name, None, "")
    source, content = probe_source(name)
    try:
        with tempfile.TemporaryDirectory(prefix="hpcc-probe-") as directory:
            with open(os.path.join(directory, source), "wb") as file:
                file.write(content)
            command = probe_command(name, os.fsdecode(compiler), source, _OUTPUT)
            answer = ask(
                list(map(os.fsencode, command)),
                env={**_ENV, b"PATH": path},
                cwd=os.fsencode(directory),
                is_cancelled=is_cancelled,
            )
            output = b""
            if answer.exit_code == 0 and os.path.exists(os.path.join(directory, _OUTPUT)):
                with open(os.path.join(directory, _OUTPUT), "rb") as file:
                    output = file.read(MAX_PREPROCESSED_BYTES + 1)
        toolchain = read_probe((name,), answer.stderr[:MAX_ABOUT_BYTES], output)
        files = header_files(name, output)
    except (OSError, CallerError):
        return nothing, frozenset()
    return HostToolchain(name, toolchain, encode_toolchains([toolchain])), files


def _state(names: Iterable[str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, _signature(name)) for name in names)


def _signature(name: str) -> tuple[int, ...]:
    try:
        status = os.stat(name)
    except (OSError, ValueError):
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
