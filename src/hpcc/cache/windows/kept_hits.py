"""Keeps hits as files, from which the launcher on Windows answers the same request by itself.

A hit that the daemon has answered is written to `hits` in the run directory, under a hash of its
request: the request, the checks and the result. The launcher makes every check again
(launcher/win_hit.h) and asks the daemon at any doubt. So a kept hit is used only if the daemon
would answer the same.

Two things tell the one of the other:

- `hits.lock` is open while the daemon lives and its hits count. Without it the launcher uses none.
  A daemon that starts removes what an older one left.
- `hits.log` gets a record of each hit before the object is put in place, and is open until it is
  there. The daemon takes the file while nobody has it open. So at that moment no hit is under way,
  and all that have written since the last time are in the file: a compile whose output one of them
  wrote is not stored, like one with another second writer (`Writing`).

Not yet run on Windows.
"""

from __future__ import annotations

import secrets
import struct
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from hpcc.cache.base.counters import Counters
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.replay.writing import Writing
from hpcc.cache.results.note import PlainNote
from hpcc.cache.results.records import Records
from hpcc.cache.results.results import Found
from hpcc.cache.windows.command import read_compile
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.hit_bytes import encode_hit, file_check, kind_check, lacks_check
from hpcc.cache.windows.notes import noted
from hpcc.cache.windows.noting_disk import NotingDisk, NotNotableError
from hpcc.cache.windows.sharing import SharedCompile, WindowsSharing
from hpcc.compilers.spec.table import Bypass
from hpcc.core import HpccError, windows_key
from hpcc.ports import Clock
from hpcc.wire.address import fnv1a

HITS_NAME: Final = "hits"
LOCK_NAME: Final = "hits.lock"
LOG_NAME: Final = "hits.log"
MAX_ONE_BYTES: Final = 64 << 20
MAX_BYTES: Final = 512 << 20
MAX_HITS: Final = 4096
# Numbers of hits that were replaced, which a launcher may still have read.
_MAX_NUMBERS: Final = 2 * MAX_HITS
_RECORD: Final = struct.Struct("<2Q")
# Half of what launchers write at most.
_LONG_LOG_BYTES: Final = 1 << 15
_WITHDRAWN: Final = 1 << 63
# A hit has the log open while it writes the object: milliseconds, and more for a large one.
_WAIT_SECONDS: Final = 0.5
_TRY_SECONDS: Final = 5.0
_TICKS_PER_SECOND: Final = 10_000_000
_UNTIL_1970_SECONDS: Final = 11_644_473_600


class HitFiles(Protocol):
    """Files that programs open at the same time; see `hpcc.windows.files`."""

    def make(self, directory: str) -> None:
        """Make a directory that nobody else may use, unless it exists.

        Raises:
            HpccError: it cannot be made.
        """
        ...

    def take(self, path: str, wait_seconds: float) -> bytes | None:
        """Read and remove a file while nobody has it open; b"" if it is missing, None if in use."""
        ...

    def lock(self, path: str) -> Callable[[], None]:
        """Open a file so that nobody else can; return what closes it.

        Raises:
            HpccError: another process has it.
        """
        ...


class _Kept(NamedTuple):
    """A hit under its number: what is counted and recorded when a launcher tells of it.

    `outputs` are the `written_key`s of what it writes. `is_foreign`: another checkout made it.
    """

    note: PlainNote
    key: bytes
    size_bytes: int
    outputs: Sequence[bytes]
    is_foreign: bool


class KeptHits:
    """The kept hits of a daemon. Thread-safe. Without `files` it keeps and counts nothing."""

    def __init__(
        self,
        disk: CacheDisk,
        files: HitFiles | None,
        run_directory: Path,
        counters: Counters,
        records: Records,
        sharing: WindowsSharing,
        clock: Clock,
    ) -> None:
        self._disk, self._files, self._sharing = disk, files, sharing
        self._counters, self._records = counters, records
        self._directory, self._clock = run_directory / HITS_NAME, clock
        self._lock_path, self._log_path = run_directory / LOCK_NAME, run_directory / LOG_NAME
        self._close: Callable[[], None] | None = None
        self._lock, self._taking = threading.Lock(), threading.Lock()
        self._stored: OrderedDict[str, tuple[int, bytes]] = OrderedDict()  # size and digest by name
        self._numbers: OrderedDict[int, _Kept] = OrderedDict()
        self._bytes, self._next = 0, secrets.randbits(48)
        self._is_ended, self._next_try = files is None, clock.monotonic()

    def open(self) -> None:
        """Remove what an older daemon left, and let launchers use what this one keeps.

        While an older daemon drains, it has the lock. Then this is tried again at later hits.
        """
        with self._lock:
            self._open()

    def _open(self) -> None:
        if self._is_ended or self._files is None or self._clock.monotonic() < self._next_try:
            return
        self._next_try = self._clock.monotonic() + _TRY_SECONDS
        with suppress(OSError, HpccError):
            self._directory.parent.mkdir(parents=True, exist_ok=True)
            self._files.make(str(self._directory))
            close = self._files.lock(str(self._lock_path))
            clear_hits(self._directory)
            self._files.take(str(self._log_path), 0.0)
            self._close = close

    def close(self) -> None:
        """End the use of the kept hits. May be called again."""
        with self._lock:
            close, self._close, self._is_ended = self._close, None, True
        if close is not None:
            close()
            clear_hits(self._directory)

    # ---- keeping ----

    def keep(self, asked: SharedCompile, found: Found, sizes: dict[bytes, int], key: bytes) -> None:
        """Keep a hit that was just answered, unless something in it cannot be checked so."""
        request = asked.compiled.request
        # The launcher cannot check the record of a precompiled header.
        if not request.frame or asked.compiled.made is not None:
            return
        if self._close is None:
            self.open()
        if self._close is None or found.result.size_bytes > MAX_ONE_BYTES:
            return
        try:
            checks = list(self._checks(asked, found.inputs, sizes))
            outputs = [str(path) for path in asked.compiled.outputs]
            named = outputs[0], "".join(outputs[1:])
            with self._lock:
                self._next += 1
                number = self._next
            data = encode_hit(
                number, self._disk.languages, request.frame, checks, *named, found.result
            )
            own = "\0".join(named).encode()
            same = sha256(b"".join((*checks, own, key, found.inputs.result_key)))
        except (NotNotableError, HpccError, OSError, ValueError, KeyError):
            return
        note = noted(asked)
        note = replace(note, request=request._replace(frame=b""))  # the longest part of it
        is_foreign = asked.is_foreign(found.result.origin)
        written = [written_key(path) for path in outputs]
        kept = _Kept(note, key, found.result.size_bytes, written, is_foreign)
        with self._lock, suppress(OSError):  # a launcher may be reading the old file
            self._write(f"{fnv1a(request.frame):016x}", data, same.digest(), number, kept)

    def _checks(
        self, asked: SharedCompile, inputs: InputSet, sizes: dict[bytes, int]
    ) -> Iterator[bytes]:
        """Return the checks, with that of the source first.

        Raises:
            NotNotableError, HpccError, OSError, ValueError, KeyError: something cannot be checked.
        """
        compiled = asked.compiled
        outputs = [str(path) for path in compiled.outputs]
        noting = NotingDisk(self._disk, outputs)
        if inputs.twins or any("~" in path for path in outputs):
            raise NotNotableError
        again = read_compile(noting, compiled.request)
        if isinstance(again, Bypass) or again.key != compiled.key:
            raise NotNotableError
        if self._sharing.ask(noting, again) != replace(asked, compiled=again):
            raise NotNotableError
        source = str(compiled.source).encode()
        first = [(path, digest) for path, digest in inputs.files if path == source]
        if not first:
            raise NotNotableError
        for path, digest in (*first, *(pair for pair in inputs.files if pair[0] != source)):
            yield file_check(path.decode(), sizes[path], digest)
        yield from noting.checks
        for path in inputs.present:
            yield kind_check(path.decode(), is_directory=False)
        for absence in inputs.absences:
            yield lacks_check(absence)

    def _write(self, name: str, data: bytes, same: bytes, number: int, kept: _Kept) -> None:
        path = self._directory / name
        size, old = self._stored.get(name, (0, b""))
        if old == same and path.exists():
            return
        aside = self._directory / "aside"
        aside.write_bytes(data)
        # Before the launcher can read it, its number is known.
        self._numbers[number] = kept
        aside.replace(path)
        self._bytes += len(data) - size
        self._stored[name] = len(data), same
        self._stored.move_to_end(name)
        while len(self._numbers) > _MAX_NUMBERS:
            self._numbers.popitem(last=False)
        while len(self._stored) > MAX_HITS or self._bytes > MAX_BYTES:
            oldest, (gone, _) = self._stored.popitem(last=False)
            self._bytes -= gone
            (self._directory / oldest).unlink()

    # ---- what launchers tell ----

    def has_long_log(self) -> bool:
        """Tell whether launchers will soon find no room in the log, and ask the daemon."""
        try:
            return self._log_path.stat().st_size > _LONG_LOG_BYTES
        except OSError:
            return False

    def take(self, writing: Writing) -> bool:
        """Count the hits of launchers, and note for running compiles what they wrote.

        Return False if it is not certain that all of them are known: a hit that is under way, or
        one that is not known any more.
        """
        if self._files is None:
            return True
        # Also without the lock: hits of an older daemon, which drains, write objects, too.
        with self._taking:
            data = self._files.take(str(self._log_path), _WAIT_SECONDS)
            if data is None:
                return False
            whole = len(data) - len(data) % _RECORD.size
            is_known = whole == len(data)
            records = list(_RECORD.iter_unpack(data[:whole]))
            withdrawn = Counter(n ^ _WITHDRAWN for n, _ in records if n & _WITHDRAWN)
            for number, ticks in records:
                if withdrawn[number]:
                    withdrawn[number] -= 1  # the object was not put in place
                    is_known = self._disturb_before(writing, number) and is_known
                elif not number & _WITHDRAWN:
                    is_known = self._count(writing, number, ticks) and is_known
            if not is_known:
                writing.disturb_all()
            return is_known

    def _disturb_before(self, writing: Writing, number: int) -> bool:
        """Note what a withdrawn hit may have written: all that comes before its object."""
        with self._lock:
            kept = self._numbers.get(number)
        if kept is None:
            return False
        writing.disturb(kept.outputs[1:])
        return True

    def _count(self, writing: Writing, number: int, ticks: int) -> bool:
        with self._lock:
            kept = self._numbers.get(number)
        if kept is None:
            return False
        writing.disturb(kept.outputs)
        self._counters.add("hit.local")
        if kept.is_foreign:
            self._counters.add("hit.shared")
        self._counters.add("bytes.served", kept.size_bytes)
        at = ticks / _TICKS_PER_SECOND - _UNTIL_1970_SECONDS
        self._records.hit(kept.note, kept.key, build="", size_bytes=kept.size_bytes, at=at)
        return True


def written_key(path: str) -> bytes:
    """Return the key of a path in the form that `Writing` takes apart."""
    return windows_key(path).replace("\\", "/").encode("utf-8", "surrogatepass")


def clear_hits(directory: Path) -> None:
    """Remove all kept hits; those that a launcher is reading stay."""
    with suppress(OSError):
        for path in list(directory.iterdir()):
            with suppress(OSError):
                path.unlink()
