"""Remembers hits by the exact bytes of their request, the facts about its build left out.

A replay holds a whole answer and everything it depended on, as names and stats: the compiler's
files and the names that could shadow them, the inputs, the directories and names that must stay
unchanged, the working directory, the store's epoch. Classification and key are functions of these
and of the request, so equal bytes and equal stats mean an equal answer. If anything differs, the
full lookup decides again (docs/adr/0008-replays.md).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Container, Iterable, Set
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo, Signature
from hpcc.cache.base.manifest import Absence, InputSet
from hpcc.cache.base.trees import look_at_tree
from hpcc.cache.base.twins import (
    Twins,
    existing_directories,
    links_of,
    missing_directories,
    odd_directories,
    trees_of,
)
from hpcc.cache.replay.engine import (
    MAX_ANSWER_BYTES,
    Check,
    CheckKind,
    Engine,
    Outcome,
    Plan,
    is_listed_name,
)
from hpcc.cache.replay.writing import Marks, Writing
from hpcc.core.memo import SizedMemo

MAX_REPLAYS: Final = 16_384
MAX_BYTES: Final = 128 << 20
MAX_ONE_BYTES: Final = 16 << 20
# In directories that keep changing: a plan stores them, and network mounts are asked for each.
MAX_ABSENT_NAMES: Final = 20_000
# Looking up this few names costs no more than opening and reading their directory.
_FEW_NAMES: Final = 8
# Longer than the window in which a stat cannot prove anything. Seldom, as a name check is cheap.
RENEW_SECONDS: Final = 30.0
RENEW_FACTOR: Final = 8.0
MAX_RENEW_SECONDS: Final = 3600.0
# Approximate memory per check.
_CHECK_BYTES: Final = 120
_NAME_BYTES: Final = 17  # two to four slots of its table, and a NUL
# Memory of the parsed request, as a multiple of its frame; measured.
_REQUEST_FACTOR: Final = 5


_BESIDE_OTHERS: Final = frozenset({CheckKind.PLACE, CheckKind.LACKS})


OnHit = Callable[[bytes, float, float], None]
"""Notes a replayed hit: the build facts of its request (`hpcc.wire.build_facts`), when it ended in
seconds since the epoch, and how many seconds it took."""


class NotPinnedError(Exception):
    """A stat cannot prove something that an answer depends on, now or at all."""


class Replay(NamedTuple):
    """One remembered hit. The front sends `answer` if it is too long for the plan.

    After `renew_at` (monotonic seconds) one request gets the full lookup, because it may find fewer
    checks; `patience_seconds` is the time until then.
    """

    prepared: object
    answer: bytes
    is_answered_apart: bool
    size_bytes: int
    on_hit: OnHit
    renew_at: float
    patience_seconds: float
    outputs: tuple[bytes, ...] = ()


class Replays:
    """Replays by request key, bounded in number and bytes. Thread-safe.

    `frame` is everywhere the part of a request's frame behind the build facts: `split_request`.
    """

    def __init__(
        self, engine: Engine, monotonic: Callable[[], float], marks: Marks | None = None
    ) -> None:
        """`marks` are given in a hit process, which compiles nothing."""
        self.engine, self._monotonic = engine, monotonic
        self._lock = threading.Lock()
        self.writing = Writing()
        # Called with what a hit writes, before and after.
        self.disturb = self.writing.disturb if marks is None else marks.disturb
        self._replays: SizedMemo[bytes, Replay] = SizedMemo(
            lambda replay: replay.size_bytes, max_bytes=MAX_BYTES, max_entries=MAX_REPLAYS
        )

    def find(self, frame: bytes) -> Replay | None:
        """Return the replay of a request frame; its checks are still to be run."""
        return self._replays.get(frame)

    def remember(
        self, frame: bytes, plan: Plan, on_hit: OnHit, *, is_provisional: bool = False
    ) -> bool:
        """Store a plan for the next request with these bytes; False if it is too large.

        `is_provisional`: a later lookup may need fewer checks, so it is renewed after a while.
        """
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
        # A directory that every build changes never becomes quiet: renew it less and less often.
        patience = RENEW_SECONDS
        if old is not None:
            patience = min(RENEW_FACTOR * old.patience_seconds, MAX_RENEW_SECONDS)
        renew_at = self._monotonic() + patience if is_provisional else math.inf
        outputs = tuple(output.path for output in plan.outputs)
        replay = Replay(prepared, answer, is_apart, size, on_hit, renew_at, patience, outputs)
        self._keep(frame, replay)
        return True

    def adopt(
        self,
        frame: bytes,
        prepared: bytes,
        outputs: tuple[bytes, ...],
        on_hit: OnHit,
        renew_at: float,
    ) -> None:
        """Store a replay that another process prepared."""
        size = len(frame) + len(prepared) + sum(map(len, outputs))
        replay = Replay(prepared, b"", False, size, on_hit, renew_at, RENEW_SECONDS, outputs)
        self._keep(frame, replay)

    def _keep(self, frame: bytes, replay: Replay) -> None:
        with self._lock:
            self._replays.put(frame, replay)

    def put(self, plan: Plan) -> bool:
        """Carry out a plan at once and send no answer; False if it could not be done."""
        try:
            # The caller sends the answer, which may be longer than a plan takes.
            prepared = self.engine.prepare(plan._replace(answer=b""))
        except ValueError:
            return False
        outputs = [output.path for output in plan.outputs]
        self.disturb(outputs)
        is_done = self.engine.replay(prepared, -1) == Outcome.DONE
        self.disturb(outputs)  # a compile may have begun in between
        return is_done


class Pins:
    """Collects the checks of one answer."""

    def __init__(self, memo: FileMemo) -> None:
        self._memo = memo
        self._checks: dict[tuple[CheckKind | None, bytes], Check] = {}
        # True if names are checked in a directory whose stat can replace these checks later.
        self.is_provisional = False

    def files(self, files: Iterable[tuple[bytes, bytes]]) -> None:
        """Pin contents: each file by the stat under which it had that digest.

        Raises:
            NotPinnedError: one was changed too recently for its stat to prove it.
        """
        for path, digest in files:
            signature = self._memo.signature(path, digest)
            if signature is None:
                raise NotPinnedError
            self._add(Check(CheckKind.STATE, path, signature))

    def absent(self, paths: Iterable[bytes]) -> None:
        """Pin absent names, by the stat of their directory if it proves them."""
        by_directory: dict[bytes, list[bytes]] = {}
        for path in paths:
            by_directory.setdefault(path.rpartition(b"/")[0] or b"/", []).append(path)
        for directory, names in by_directory.items():
            signature = self._memo.lacks(directory, names)
            if signature is None:
                self.absent_each(names)
            else:
                self._add(Check(CheckKind.STATE, directory, signature))

    def absent_each(self, paths: Iterable[bytes]) -> None:
        """Pin absent names one by one, because their directories change often."""
        for path in paths:
            self._add(Check(CheckKind.ABSENT, path))

    def listings(self, listings: Iterable[tuple[bytes, frozenset[bytes]]]) -> None:
        """Pin the names of the directories in each directory.

        Raises:
            NotPinnedError: the names differ now, or the directory was changed too recently.
        """
        for path, names in listings:
            listing = self._memo.listing(path)
            if listing is None or not listing.is_quiet or listing.directories != names:
                raise NotPinnedError
            self._add(Check(CheckKind.STATE, path, listing.signature))

    def inputs(self, inputs: InputSet, written: Container[bytes] = ()) -> None:
        """Pin one state of the inputs; `written` are the directories of the outputs.

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
                # The stat of a directory that outputs are written to never holds for long.
                self.is_provisional |= not is_written
        # Stricter than the manifest, which accepts a directory with a header's name.
        names = {
            directory: frozenset().union(*(a.files | a.directories for a in absences))
            for directory, absences in lacking.items()
        }
        if sum(map(len, names.values())) > MAX_ABSENT_NAMES:
            raise NotPinnedError
        self._search(inputs.twins)
        for directory, absences in lacking.items():
            signatures = {absence.signature for absence in absences}
            self._lacks(
                directory, names[directory], signatures.pop() if len(signatures) == 1 else None
            )

    def _search(self, twins: Iterable[Twins]) -> None:
        """Pin which search directories are one; that files are related follows from their stats.

        Raises:
            NotPinnedError: something else is in a directory's place.
        """
        if odd_directories(twins):
            raise NotPinnedError
        for directory in existing_directories(twins):
            if (None, directory) not in self._checks:  # else its stat is pinned
                self.place(_plain(directory))
        self.absent_each(missing_directories(twins))
        self.trees(trees_of(twins))
        for path in links_of(twins):  # the stat of its file is pinned
            self.place(path.rpartition(b"/")[0] or b"/")

    def trees(self, roots: Iterable[bytes]) -> None:
        """Pin what Clang finds below these directories.

        Raises:
            NotPinnedError: a directory was changed too recently for its stat to prove it.
        """
        for tree in map(look_at_tree, roots):
            for directory in tree.existing:
                signature = self._memo.quiet_signature(directory)
                if signature is None:
                    raise NotPinnedError
                self._add(Check(CheckKind.STATE, directory, signature))
            self.absent_each(tree.missing)

    def _lacks(self, directory: bytes, names: Set[bytes], signature: Signature | None) -> None:
        """Pin names that must be absent, and the identity of their directory."""
        self.place(directory)
        listed = tuple(sorted(filter(is_listed_name, names)))
        if signature is None and len(listed) <= _FEW_NAMES:
            listed = ()
        if listed:
            self._add(Check(CheckKind.LACKS, directory, signature or (), listed))
        prefix = directory.rstrip(b"/") + b"/"
        self.absent_each(prefix + name for name in sorted(names - {*listed}))

    def place(self, directory: bytes) -> None:
        """Pin the directory that a path leads to, with its mode and owner.

        Raises:
            NotPinnedError: `stat` fails.
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
            NotPinnedError: `stat` fails, or it is a file that was changed too recently.
        """
        digest = self._memo.digest(path)
        if digest is None:
            self.place(path)
        else:
            self.files([(path, digest)])

    def quiet(self, path: bytes) -> None:
        """Pin a file by its present stat.

        Raises:
            NotPinnedError: it was changed too recently, or does not exist.
        """
        signature = self._memo.quiet_signature(path)
        if signature is None:
            raise NotPinnedError
        self._add(Check(CheckKind.STATE, path, signature))

    def state(self, path: bytes, signature: tuple[int, ...] | None) -> None:
        """Pin a stat that the caller took; None for a name that was absent."""
        if signature is None:
            self._add(Check(CheckKind.ABSENT, path))
        else:
            self._add(Check(CheckKind.STATE, path, signature))

    def checks(self) -> tuple[Check, ...]:
        """Return the checks, in the order in which they were added."""
        return tuple(self._checks.values())

    def _add(self, check: Check) -> None:
        """Add a check; two checks of one name must be equal, except for PLACE and LACKS.

        Raises:
            NotPinnedError: they differ, so the file changed between two looks.
        """
        key = (check.kind if check.kind in _BESIDE_OTHERS else None, check.path)
        if self._checks.setdefault(key, check) != check:
            raise NotPinnedError


def _plain(directory: bytes) -> bytes:
    """Strip what flags such as `-I.` append to a directory: trailing `/` and `/.`."""
    while directory.endswith((b"/", b"/.")):
        directory = directory[:-1]
    return directory or b"/"
