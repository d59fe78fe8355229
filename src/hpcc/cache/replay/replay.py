"""Hits remembered by the very bytes of their request.

A replay holds a whole answer and everything it rested on, as names and stats: the compiler's files
and the names that could shadow them, the inputs, the directories and names that must stay as they
are, the working directory, the store's epoch. Classification and key are functions of these and of
the request, so equal bytes and equal stats mean an equal answer. Whatever differs, the long way
decides again (docs/adr/0008-replays.md).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Container, Iterable, Set
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo, Signature
from hpcc.cache.base.manifest import Absence, InputSet
from hpcc.cache.replay.engine import (
    MAX_ANSWER_BYTES,
    Check,
    CheckKind,
    Engine,
    Outcome,
    Plan,
    is_listed_name,
)
from hpcc.core.memo import SizedMemo

MAX_REPLAYS: Final = 16_384
MAX_BYTES: Final = 128 << 20
MAX_ONE_BYTES: Final = 16 << 20
# In directories that keep changing: a plan holds them, and a network is asked for each.
MAX_ABSENT_NAMES: Final = 20_000
# To ask for so few costs no more than to open their directory and read it.
_FEW_NAMES: Final = 8
# Past the window in which a stat cannot tell a change, and seldom: names are looked for fast.
RENEW_SECONDS: Final = 30.0
RENEW_FACTOR: Final = 8.0
MAX_RENEW_SECONDS: Final = 3600.0
# What a check costs in memory, roughly.
_CHECK_BYTES: Final = 120
_NAME_BYTES: Final = 17  # two to four slots of its table, and a NUL
# The request is held taken apart, too: so many times its frame, measured.
_REQUEST_FACTOR: Final = 5


_BESIDE_OTHERS: Final = frozenset({CheckKind.PLACE, CheckKind.LACKS})


class NotPinnedError(Exception):
    """Something an answer rests on cannot be told by a stat, now or at all."""


class Replay(NamedTuple):
    """One remembered hit. `answer` is sent by the front when it is too long for the plan.

    After `renew_at` (monotonic seconds) the long way is taken once, because it may find fewer
    checks; `patience_seconds` is how long that was put off.
    """

    prepared: object
    answer: bytes
    is_answered_apart: bool
    size_bytes: int
    on_hit: Callable[[], None]
    renew_at: float
    patience_seconds: float


class Replays:
    """Replays by request frame, bounded in number and bytes. Thread-safe."""

    def __init__(self, engine: Engine, monotonic: Callable[[], float]) -> None:
        self.engine, self._monotonic = engine, monotonic
        self._lock = threading.Lock()
        self._replays: SizedMemo[bytes, Replay] = SizedMemo(
            lambda replay: replay.size_bytes, max_bytes=MAX_BYTES, max_entries=MAX_REPLAYS
        )

    def find(self, frame: bytes) -> Replay | None:
        return self._replays.get(frame)

    def remember(
        self, frame: bytes, plan: Plan, on_hit: Callable[[], None], *, is_provisional: bool = False
    ) -> bool:
        """Keep a plan for the next time these bytes come; False if it is too large."""
        is_apart = len(plan.answer) > MAX_ANSWER_BYTES
        answer = plan.answer if is_apart else b""
        size = _REQUEST_FACTOR * len(frame) + len(plan.answer)
        size += sum(len(o.data) for o in plan.outputs)
        size += sum(len(c.path) + _CHECK_BYTES for c in plan.checks)
        size += sum(len(name) + _NAME_BYTES for c in plan.checks for name in c.names)
        if size > MAX_ONE_BYTES:
            return False
        try:
            prepared = self.engine.prepare(plan._replace(answer=b"") if is_apart else plan)
        except ValueError:
            return False
        old = self._replays.get(frame)
        # A directory that every build changes never gets quiet: asked less and less often.
        patience = RENEW_SECONDS
        if old is not None:
            patience = min(RENEW_FACTOR * old.patience_seconds, MAX_RENEW_SECONDS)
        renew_at = self._monotonic() + patience if is_provisional else math.inf
        self._keep(frame, Replay(prepared, answer, is_apart, size, on_hit, renew_at, patience))
        return True

    def adopt(
        self, frame: bytes, prepared: bytes, on_hit: Callable[[], None], renew_at: float
    ) -> None:
        """Keep what another process prepared."""
        size = len(frame) + len(prepared)
        self._keep(frame, Replay(prepared, b"", False, size, on_hit, renew_at, RENEW_SECONDS))

    def _keep(self, frame: bytes, replay: Replay) -> None:
        with self._lock:
            self._replays.put(frame, replay)

    def put(self, plan: Plan) -> bool:
        """Carry out a plan at once, with nobody to answer."""
        try:
            # The caller sends the answer, which may be longer than a plan takes.
            prepared = self.engine.prepare(plan._replace(answer=b""))
        except ValueError:
            return False
        return self.engine.replay(prepared, -1) == Outcome.DONE


class Pins:
    """Collects the checks of one answer."""

    def __init__(self, memo: FileMemo) -> None:
        self._memo = memo
        self._checks: dict[tuple[CheckKind | None, bytes], Check] = {}
        # Names are looked for in a directory whose stat may answer for them in a while.
        self.is_provisional = False

    def files(self, files: Iterable[tuple[bytes, bytes]]) -> None:
        """Pin contents: each file by the stat under which it had that digest.

        Raises:
            NotPinnedError: one was changed too lately for its stat to tell.
        """
        for path, digest in files:
            signature = self._memo.signature(path, digest)
            if signature is None:
                raise NotPinnedError
            self._add(Check(CheckKind.STATE, path, signature))

    def absent(self, paths: Iterable[bytes]) -> None:
        """Pin names that must not be there, by the stat of their directory where it can tell."""
        by_directory: dict[bytes, list[bytes]] = {}
        for path in paths:
            by_directory.setdefault(path.rpartition(b"/")[0] or b"/", []).append(path)
        for directory, names in by_directory.items():
            signature = self._memo.quiet_signature(directory)
            # Looked up after the stat: a name that appears later changes it.
            if signature is not None and not any(map(os.path.lexists, names)):
                self._add(Check(CheckKind.STATE, directory, signature))
            else:
                self.absent_each(names)

    def absent_each(self, paths: Iterable[bytes]) -> None:
        """Pin names that must not be there, each by itself: their directories change often."""
        for path in paths:
            self._add(Check(CheckKind.ABSENT, path))

    def listings(self, listings: Iterable[tuple[bytes, frozenset[bytes]]]) -> None:
        """Pin the names of the directories in each directory.

        Raises:
            NotPinnedError: they are other ones now, or the directory was changed too lately.
        """
        for path, names in listings:
            listing = self._memo.listing(path)
            if listing is None or not listing.is_quiet or listing.directories != names:
                raise NotPinnedError
            self._add(Check(CheckKind.STATE, path, listing.signature))

    def inputs(self, inputs: InputSet, written: Container[bytes] = ()) -> None:
        """Pin one state of the inputs; `written` are directories that outputs are made in.

        Raises:
            NotPinnedError: see `files`; or too many names in directories that keep changing.
        """
        self.files(inputs.files)
        for path in inputs.present:
            self._add(Check(CheckKind.PRESENT, path))
        lacking: dict[bytes, list[Absence]] = {}
        for absence in inputs.absences:
            directory = _plain(absence.directory)
            is_written = directory in written
            if absence.signature is not None and not is_written:
                self._add(Check(CheckKind.STATE, absence.directory, absence.signature))
            else:
                lacking.setdefault(directory, []).append(absence)
                # Of a directory that is written to, no stat will hold for long.
                self.is_provisional |= not is_written
        # Stricter than the manifest, where a directory may have a header's name.
        names = {
            directory: frozenset().union(*(a.files | a.directories for a in absences))
            for directory, absences in lacking.items()
        }
        if sum(map(len, names.values())) > MAX_ABSENT_NAMES:
            raise NotPinnedError
        for directory, absences in lacking.items():
            signatures = {absence.signature for absence in absences}
            self._lacks(
                directory, names[directory], signatures.pop() if len(signatures) == 1 else None
            )

    def _lacks(self, directory: bytes, names: Set[bytes], signature: Signature | None) -> None:
        """Pin names that must be absent, and which directory that is."""
        self.place(directory)
        listed = tuple(sorted(filter(is_listed_name, names)))
        if signature is None and len(listed) <= _FEW_NAMES:
            listed = ()
        if listed:
            self._add(Check(CheckKind.LACKS, directory, signature or (), listed))
        prefix = directory.rstrip(b"/") + b"/"
        self.absent_each(prefix + name for name in sorted(names - {*listed}))

    def place(self, directory: bytes) -> None:
        """Pin which directory a path leads to, and who may write there.

        Raises:
            NotPinnedError: it cannot be seen.
        """
        try:
            status = os.stat(directory)
        except OSError as error:
            raise NotPinnedError from error
        values = (status.st_dev, status.st_ino, status.st_mode, status.st_uid)
        self._add(Check(CheckKind.PLACE, directory + b"/.", values))

    def thing(self, path: bytes) -> None:
        """Pin a file by content, or a directory as a place.

        Raises:
            NotPinnedError: it cannot be seen, or is a file that was changed too lately.
        """
        digest = self._memo.digest(path)
        if digest is None:
            self.place(path)
        else:
            self.files([(path, digest)])

    def quiet(self, path: bytes) -> None:
        """Pin a file as it has been for a while.

        Raises:
            NotPinnedError: it was changed too lately, or is not there.
        """
        signature = self._memo.quiet_signature(path)
        if signature is None:
            raise NotPinnedError
        self._add(Check(CheckKind.STATE, path, signature))

    def state(self, path: bytes, signature: tuple[int, ...] | None) -> None:
        """Pin a stat as it was seen; None for a name that was absent."""
        if signature is None:
            self._add(Check(CheckKind.ABSENT, path))
        else:
            self._add(Check(CheckKind.STATE, path, signature))

    def checks(self) -> tuple[Check, ...]:
        return tuple(self._checks.values())

    def _add(self, check: Check) -> None:
        """Add a check; two of one name must be the same, but for a place and what it lacks.

        Raises:
            NotPinnedError: they are not, so something changed between the two looks.
        """
        key = (check.kind if check.kind in _BESIDE_OTHERS else None, check.path)
        if self._checks.setdefault(key, check) != check:
            raise NotPinnedError


def _plain(directory: bytes) -> bytes:
    """Spell a directory as the parent of its names: `-I.` adds a `/.` to it."""
    while directory.endswith((b"/", b"/.")):
        directory = directory[:-1]
    return directory or b"/"
