"""Writes what compiles did into files by build; see the package for the rule.

One thread at a time uses a `Recorder`: the one that holds the lock of `hpcc.cache.results.records`.
Between two flushes it holds encoded rows only, and a frame's worth of them for each build.

A build's file is opened for each flush and not kept open: a build ends without a sign. A daemon
writes only to files that it made, so two daemons of one user never share one.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Final

from hpcc.cache.recorder.compiles import Compile, row_of
from hpcc.cache.recorder.link_record import LinkRecord, link_row_of
from hpcc.cache.recorder.part_bytes import HIT, MAX_FRAME_BYTES, MAX_HIT_US, encode_frame
from hpcc.cache.recorder.places import (
    Limits,
    find_parts,
    hash_of,
    new_name,
    superfluous,
)
from hpcc.core import CallerError
from hpcc.files import make_own_directory, open_file

_log: Final = logging.getLogger("hpcc.daemon.recorder")
# Builds under way. A further one, or one without a compile for so long, continues in another file.
_MAX_OPEN: Final = 16
_IDLE_SECONDS: Final = 300.0
# Of more new builds between two flushes the compiles are not recorded: only 64 are kept anyway.
_MAX_NEW: Final = 64
_MAX_UNITS: Final = 16_384
_APPENDING: Final = os.O_WRONLY | os.O_APPEND


class _Book:
    """One build under way: its present file, and what is not written yet."""

    __slots__ = (
        "build", "compiles", "hits", "links", "path", "pending", "size", "units", "units_text",
        "used_at",
    )  # fmt: skip

    def __init__(self, build: str) -> None:
        self.build = build
        self.path, self.size = "", 0
        # The number of each unit that the file has or gets with the next frame.
        self.units: dict[Hashable, int] = {}
        self.units_text: list[str] = []
        self.compiles: list[str] = []
        self.links: list[str] = []
        self.hits = bytearray()
        self.pending = 0
        self.used_at = 0.0


class Recorder:
    """Takes compiles and writes them at `flush`. A disk error is logged and costs the record."""

    def __init__(
        self, directory: str, now: Callable[[], float], limits: Limits | None = None
    ) -> None:
        self._directory, self._now, self._limits = directory, now, limits or Limits()
        self._books: dict[str, _Book] = {}
        self._new = 0
        self.dropped = 0

    def add(self, build: str, compile_: Compile) -> None:
        """Record one compile."""
        book = self._book(build)
        if book is None:
            return
        text = json.dumps(row_of(compile_), separators=(",", ":"))
        book.compiles.append(text)
        self._grow(book, len(text))

    def add_link(self, build: str, link: LinkRecord) -> None:
        """Record one link."""
        book = self._book(build)
        if book is None:
            return
        text = json.dumps(link_row_of(link), separators=(",", ":"))
        book.links.append(text)
        self._grow(book, len(text))

    def hit(self, build: str, unit: Hashable, began_us: int, took_us: int) -> bool:
        """Record a hit of a known unit; False if the unit has to be defined first."""
        book = self._books.get(build)
        number = None if book is None else book.units.get(unit)
        if book is None or number is None:
            return False
        book.hits += HIT.pack(number, began_us, took_us if took_us < MAX_HIT_US else MAX_HIT_US)
        self._grow(book, HIT.size)
        return True

    def define(self, build: str, unit: Hashable, compile_: Compile) -> bool:
        """Define a unit for the hits of a build; False if the build is not recorded."""
        book = self._book(build)
        if book is None:
            return False
        if len(book.units) >= _MAX_UNITS:
            self._write_out(book)
            _begin_anew(book)
        row = row_of(compile_._replace(began_us=0, took_us=0, phases=()))
        text = json.dumps(row, separators=(",", ":"))
        book.units[unit] = len(book.units)
        book.units_text.append(text)
        book.pending += len(text)  # written with its first hit, in the same file
        return True

    def flush(self) -> None:
        """Write what was recorded since the last call."""
        now = self._now()
        for book in self._books.values():
            book.used_at = now if book.pending else book.used_at
            self._write_out(book)
        youngest = sorted(self._books.values(), key=lambda book: book.used_at)[-_MAX_OPEN:]
        self._books = {b.build: b for b in youngest if now - b.used_at < _IDLE_SECONDS}
        self._new = 0
        if self.dropped:
            _log.warning("%d compiles of too many builds at once are not recorded", self.dropped)
            self.dropped = 0

    def _book(self, build: str) -> _Book | None:
        book = self._books.get(build)
        if book is not None:
            return book
        if self._new >= _MAX_NEW:
            self.dropped += 1
            return None
        self._new += 1
        book = self._books[build] = _Book(build)
        return book

    def _grow(self, book: _Book, size: int) -> None:
        book.pending += size
        if book.pending > MAX_FRAME_BYTES // 2:
            self._write_out(book)

    def _write_out(self, book: _Book) -> None:
        """Append what a build has pending; after an error the build continues in another file."""
        if not book.pending:
            return
        try:
            self._append(book)
        except (CallerError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            _log.warning("cannot record compiles of a build: %s", why)
            _begin_anew(book)
        book.units_text, book.compiles, book.hits, book.pending = [], [], bytearray(), 0
        book.links = []
        if book.size > self._limits.part_bytes:
            _begin_anew(book)

    def _append(self, book: _Book) -> None:
        rows = book.units_text, book.compiles, book.hits
        path = book.path
        if not path:
            make_own_directory(self._directory)
            self._make_room(book.build)
            path = os.path.join(
                self._directory, new_name(book.build, int(max(self._now(), 0) * 1000))
            )
            frame = encode_frame(*rows, book.build, book.links)
            fd = open_file(path, _APPENDING | os.O_CREAT | os.O_EXCL)
        else:
            frame = encode_frame(*rows, links=book.links)
            fd = open_file(path, _APPENDING)
        try:
            _write_all(fd, frame, book.size)
        except BaseException:
            if not book.path:
                with suppress(OSError):
                    os.unlink(path)
            raise
        finally:
            os.close(fd)
        book.path, book.size = path, book.size + len(frame)

    def _make_room(self, build: str) -> None:
        parts = find_parts(self._directory)
        for part in superfluous(parts, self._limits, newest=hash_of(build)):
            with suppress(OSError):
                os.unlink(os.path.join(self._directory, part.name))


def _begin_anew(book: _Book) -> None:
    """Continue in another file, where no unit has a number yet."""
    book.path, book.size = "", 0
    book.units = {}


def _write_all(fd: int, frame: bytes, size: int) -> None:
    """Append a frame; if not all of it can be written, remove what was.

    Raises:
        OSError: it was not written.
        CallerError: another process wrote to the file.
    """
    if os.fstat(fd).st_size != size:
        raise CallerError("another process wrote to the file", reason="foreign-write")
    written = 0
    try:
        written = os.write(fd, frame)
    finally:
        if written != len(frame):
            with suppress(OSError):
                os.ftruncate(fd, size)
    if written != len(frame):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
