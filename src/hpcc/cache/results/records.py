"""Records what happened to each compile, for `hpcc explain`. Cheap to note, written in batches.

On the hit path a note is one append to a bounded deque. The counters' thread turns the notes into
JSON lines in one private file. A full file is renamed and a new one is started, so that two files
form a ring. A line is a list whose first item is its kind:

`["f", SCOPE, N, PATH, DIGEST]`: state of a file, named SCOPE and N (a scope has one writer);
`["c", ID, AT, RECORD]`: one compile, `RECORD` as `_record_table` makes it;
`["h", ID, AT]`: the compile ID again, this time as a hit;
`["h", ID, AT, BUILD]`: the same in another build than the compile's.

A hit with unchanged request and inputs needs only such a short line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from hpcc.cache.base.api import CompileRequest, TakesBuilds
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.recorder.compiles import ABANDONED, FAILED, MISSED, REFUSED, kind_of
from hpcc.cache.recorder.places import DIRECTORY_NAME
from hpcc.cache.recorder.recorder import Recorder
from hpcc.cache.results.build_notes import BuildNotes
from hpcc.cache.results.note import Claims, Note, NotedCompile, output_of, sources_of
from hpcc.cache.results.results import Results
from hpcc.cache.root.build_identity import Builds
from hpcc.config.settings import TraceSettings
from hpcc.core import FarmRun
from hpcc.files import open_file

if TYPE_CHECKING:  # see `_outline`
    from hpcc.cache.key.command_outline import CommandOutline

_log: Final = logging.getLogger("hpcc.daemon.records")
RECORDS_NAME: Final = "explain"
FILE_NAME: Final = "records.jsonl"
OLD_NAME: Final = "records-old.jsonl"
# Half of the ring: about ten thousand different compiles.
MAX_FILE_BYTES: Final = 8 << 20
# More than a machine compiles between two flushes; beyond it the oldest notes are lost.
_MAX_PENDING: Final = 8192
_MAX_ARGV_BYTES: Final = 64 << 10
_MAX_FILES: Final = 5000
# These variables are not in a key: see `hpcc.cache.key.prepare`.
_LEFT_OUT: Final = frozenset({b"PATH", b"PWD", b"TMPDIR", b"TERM", b"NO_COLOR", b"CLICOLOR_FORCE"})
HIT: Final = "hit.local"
# `hpcc explain` shows the compile before instead.
_NOT_EXPLAINED: Final = frozenset({ABANDONED, FAILED, REFUSED})


class Records:
    """Takes notes from any thread; `flush` writes them. A disk error is logged, not raised."""

    def __init__(
        self,
        directory: str,
        results: Results,
        counters: Counters,
        builds: Builds,
        recorder: Recorder,
    ) -> None:
        # Names the build of a compile, for all who record one.
        self.builds: Final = builds
        # What signs records of compiles that ended here; None: nothing does.
        self.claims: Claims | None = None
        self._recorded = BuildNotes(recorder)
        self._directory, self._results, self._counters = directory, results, counters
        self._pending: deque[Note] = deque(maxlen=_MAX_PENDING)
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._written = _Written("")
        self._inode = -1
        self._cost_ms: dict[str, int] | None = None

    def hit(
        self,
        prepared: NotedCompile,
        key: bytes,
        outcome: str = HIT,
        build: str | None = None,
        signer: str = "",
        size_bytes: int = 0,
        at: float | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Note a hit. This is all that the hit path pays for records.

        `build` is the build of a replayed hit, whose request was an older one; it ended at `at`
        and took `seconds`. `signer` is the id of the key that signed a result of a remote cache.
        """
        request = prepared.request
        if build is None and request.times is not None:
            seconds = request.times.elapsed_ns() / 1e9
        self._pending.append(
            Note(
                time.time() if at is None else at, outcome, request, prepared, "", key, "", 0,
                self.fallback(), "", "", "", build, signer, "", "", seconds, size_bytes,
            )
        )  # fmt: skip

    def bypass(self, request: CompileRequest, reason: str) -> None:
        """Note a bypass with its reason."""
        self.ended(request, "bypass", reason)

    def ended(
        self, request: CompileRequest, outcome: str, reason: str = "", fallback: str = ""
    ) -> None:
        """Note the end of a compile of which nothing else is recorded."""
        seconds = _elapsed(request)
        self._pending.append(
            Note(time.time(), outcome, request, None, reason, fallback=fallback, seconds=seconds)
        )

    def compiled(  # noqa: PLR0913 - each one is a field of the record
        self,
        prepared: NotedCompile,
        outcome: str,
        *,
        key: bytes,
        started_ns: int,
        reason: str = "",
        image: str = "",
        fallback: str = "",
        private: str = "",
        root: str = "",
        culprit: str = "",
        remote_cache: str = "",
        action: str = "",
        size_bytes: int = 0,
        sources: int = 1,
        ran: FarmRun | None = None,
    ) -> None:
        """Note a compile that ran, here or on a farm.

        `private` says why no other checkout gets its result, `started_ns` when it began, `root`
        which root a farm's compile had, `culprit` which file and line the reason is about,
        `remote_cache` what the remote cache had for it, `action` the farm's name of it. Its command
        compiled `sources` sources, and `ran` is what a farm says of it.

        A miss is counted by its `reason`, as a build's report counts it: not a compile that failed,
        whose result was not kept, or that the farm had.
        """
        if kind_of(outcome) in MISSED:
            self._counters.add(f"missed.{reason}")
        duration_ms = max(0, time.time_ns() - started_ns) // 1_000_000
        self._pending.append(
            Note(
                time.time(), outcome, prepared.request, prepared, reason, key, image, duration_ms,
                fallback, private, root, culprit, remote_cache=remote_cache, action=action,
                seconds=_elapsed(prepared.request) / sources, size_bytes=size_bytes,
                sources=sources, ran=ran,
            )
        )  # fmt: skip

    def fell_back(self, reason: str) -> None:
        """Remember why the farm did not do the compile that this thread handles now."""
        self._thread.reason = reason

    def fallback(self) -> str:
        """Return and clear the reason that `fell_back` stored for this thread, or ""."""
        reason: str = getattr(self._thread, "reason", "")
        if reason:
            self._thread.reason = ""
        return reason

    def flush(self) -> None:
        """Write the notes since the last call, with one write."""
        if self.claims is not None:
            self.claims.flush()
        with self._lock:
            notes = self._drain()
            if not notes:
                return
            try:
                self._write(notes)
            except OSError as error:
                _log.warning("cannot write records of compiles: %s", error.strerror)
            self._recorded.flush()

    def _drain(self) -> list[Note]:
        notes = []
        with contextlib.suppress(IndexError):
            while True:
                notes.append(self._pending.popleft())
        return notes

    def _write(self, notes: list[Note]) -> None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        path = os.path.join(self._directory, FILE_NAME)
        if self._cost_ms is None:
            self._cost_ms = _known_costs(self._directory)
        fd = _open(path)
        try:
            status = os.fstat(fd)
            if status.st_size > MAX_FILE_BYTES:
                os.replace(path, os.path.join(self._directory, OLD_NAME))
                os.close(fd)
                fd = _open(path)
                status = os.fstat(fd)
            if status.st_ino != self._inode or not status.st_size:
                # Numbers and ids refer to lines of the same file, so a new file starts with none.
                self._written = _Written(f"{os.getpid():x}.{status.st_size:x}")
                self._inode = status.st_ino
            text = "".join(line + "\n" for note in notes for line in self._lines(note))
            os.write(fd, text.encode("ascii"))
        except BaseException:
            self._inode = -1
            raise
        finally:
            os.close(fd)

    def _lines(self, note: Note) -> Iterable[str]:
        assert self._cost_ms is not None  # `_write` has read them
        inputs = self._inputs(note)
        result = inputs.result_key.hex() if inputs is not None else ""
        is_hit = note.outcome.startswith("hit.")
        saved_ms = self._cost_ms.get(result, 0) if is_hit else 0
        self._recorded.take(note, saved_ms)
        if note.outcome in _NOT_EXPLAINED:
            return
        if saved_ms:
            self._counters.add("saved.milliseconds", saved_ms)
        elif result and note.duration_ms:
            self._cost_ms[result] = note.duration_ms
        place = output_of(note.request, note.prepared)
        identity = hashlib.sha256(f"{place}\0{result}\0".encode("utf-8", "surrogateescape"))
        identity.update(note.key)
        name = identity.hexdigest()[:16]
        build = note.request.build if note.build is None else note.build
        written = self._written.builds.get(name)
        if is_hit and not note.fallback and written is not None:
            other = [] if written == build else [build]
            yield _json(["h", name, round(note.at, 3), *other])
            return
        numbers: list[int] = []
        known = self._written.files
        for file in inputs.files[:_MAX_FILES] if inputs is not None else ():
            number = known.get(file)
            if number is None:
                number = known[file] = len(known)
                path, digest = file
                yield _json(["f", self._written.scope, number, os.fsdecode(path), digest.hex()])
            numbers.append(number)
        if result:
            self._written.builds[name] = build
        table = {**_record_table(note), "output": place, "result": result}
        if build:
            table["build"] = build
        if numbers:
            table |= {"scope": self._written.scope, "files": numbers}
        yield _json(["c", name, round(note.at, 3), table])

    def _inputs(self, note: Note) -> InputSet | None:
        inputs = self._results.latest(note.key) if note.key and not _is_unkept(note) else None
        share = None if note.prepared is None else note.prepared.share
        if inputs is None or share is None or note.key == note.prepared.key:  # type: ignore[union-attr]  # with a share
            return inputs
        return inputs.renamed(share.checkout.spell)


class _Written:
    """File states and ids that this process has written to the current file."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        # The build of each compile that a line names.
        self.builds: dict[str, str] = {}
        self.files: dict[tuple[bytes, bytes], int] = {}


def _is_unkept(note: Note) -> bool:
    return note.outcome in {"miss.failed", "uncacheable"}


def _open(path: str) -> int:
    return open_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _record_table(note: Note) -> dict[str, object]:
    request, prepared = note.request, note.prepared
    argv, size = [], 0
    for argument in request.argv if prepared is None else (
        request.argv[0], *prepared.invocation.arguments, *prepared.colour
    ):  # fmt: skip
        size += len(argument)
        if size > _MAX_ARGV_BYTES:
            break
        argv.append(os.fsdecode(argument))
    table: dict[str, object] = {
        "outcome": note.outcome,
        "argv": argv,
        "cwd": os.fsdecode(request.cwd),
        "compiler": os.fsdecode(request.compiler),
        "env": environment_of(request.env),
        "sources": sources_of(request, prepared),
    }
    if prepared is not None:
        table |= {"key": note.key.hex(), "identity": prepared.identity.digest.hex()}
        if note.remote_cache and prepared.share is not None:
            command = _outline(prepared)
            if command is not None:
                checkout = os.fsdecode(prepared.share.checkout.root)
                table |= {"command": command.table(), "checkout": checkout}
    for name, value in (
        ("reason", note.reason),
        ("image", note.image),
        ("fallback", note.fallback),
        ("private", note.private),
        ("root", note.root),
        ("culprit", note.culprit),
        ("signer", note.signer),
        ("remote_cache", note.remote_cache),
        ("action", note.action),
        ("ms", note.duration_ms),
    ):
        if value:
            table[name] = value
    return table


def _outline(prepared: NotedCompile) -> CommandOutline | None:
    # Late: a client of Windows shares nothing, and loads nothing of how a POSIX one makes keys.
    from hpcc.cache.key.command_outline import outline_command
    from hpcc.cache.key.prepare import Prepared

    return outline_command(prepared) if isinstance(prepared, Prepared) else None


def environment_of(env: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the variables that may affect the output."""
    return {
        os.fsdecode(name): os.fsdecode(value)
        for name, value in sorted(env.items())
        if name not in _LEFT_OUT and not name.startswith(b"HPCC_")
    }


def _known_costs(directory: str) -> dict[str, int]:
    """Return compile times in milliseconds by result, from which hits compute what they saved."""
    from hpcc.cache.results.records_read import read_lines  # late: only at the first write

    costs: dict[str, int] = {}
    for line in read_lines(directory):
        if line[0] == "c" and isinstance(line[3], dict):
            result, cost = line[3].get("result"), line[3].get("ms")
            if isinstance(result, str) and result and type(cost) is int:
                costs[result] = cost
    return costs


def _elapsed(request: CompileRequest) -> float:
    return 0.0 if request.times is None else request.times.elapsed_ns() / 1e9


def make_records(
    directory: str,
    results: Results,
    counters: Counters,
    builds: Builds,
    trace: TraceSettings | None = None,
    farm: object = None,
) -> Records:
    """Build `Records` that are flushed together with the counters; `trace` says who gets them.

    `farm` gets reports of builds if it takes them.
    """
    recorder = Recorder(os.path.join(directory, DIRECTORY_NAME), time.time)
    records = Records(os.path.join(directory, RECORDS_NAME), results, counters, builds, recorder)
    counters.on_flush(records.flush)
    if trace is not None and trace.otlp:
        from hpcc.cache.recorder.export import start_trace_export  # late: few people pay for it

        start_trace_export(directory, trace, counters.add)
    if isinstance(farm, TakesBuilds):
        from hpcc.cache.recorder.reporting import start_build_reports  # late, as above

        start_build_reports(directory, farm, counters.add)
    return records
