"""The local cache of a Windows client: a compile of cl or clang-cl from a stored result, or run.

A hit reads every input, lists every directory in which a name must be absent (`state`), and runs no
program. A miss runs the user's command. If that has no `/showIncludes`, hpcc adds it and shows the
output without the list. Not yet run on Windows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from hpcc.cache.base.api import CompileRequest, Done, Exec, Finish, Run, RunReport
from hpcc.cache.base.clock_text import mentions_clock
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.manifest import make_set
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.clocks import CLOCKS, refuse_clocks
from hpcc.cache.recorder.compiles import ABANDONED
from hpcc.cache.remote.cl_host import ClHost, search_directories
from hpcc.cache.results.inflight import Flight, Inflight
from hpcc.cache.results.records import Records
from hpcc.cache.results.results import Found, Result, Results
from hpcc.cache.windows.command import WindowsCompile, read_compile
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.inputs import CompileFiles, Texts, find_inputs
from hpcc.cache.windows.notes import noted
from hpcc.cache.windows.state import State
from hpcc.compilers.invocation.guest import NotPortableError
from hpcc.compilers.scan.assembler import read_statements
from hpcc.compilers.scan.scan import Hazard, scan_arguments
from hpcc.compilers.scan.windows_names import key_of, parent
from hpcc.compilers.spec.table import Bypass
from hpcc.core import CallerError, WindowsPath, WindowsPathError, parse_windows_path, windows_key
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.uncacheable import UncacheableReason

_log: Final = logging.getLogger("hpcc.daemon.cl")
DEDUP_SECONDS: Final = 300.0
# As `stamps.StampClock`: a wider step of the clock than the window of `is_in_window` allows.
_MAX_STEP_NS: Final = 25_000_000


@dataclass(slots=True, eq=False)
class WindowsPending:
    """The token of a `Run`.

    `names_before` are the names beside source and output, by directory; `started_ns` is from after
    that and before the answer. `step_ns` tells whether the clock was set. `is_alone`: no other
    compile wrote the same output meanwhile.
    """

    compiled: WindowsCompile
    started_ns: int
    step_ns: int
    names_before: Mapping[bytes, frozenset[bytes]]
    flight: Flight | None
    missed: str
    is_alone: bool = True


class WindowsCache:
    """Looks up, runs and stores compiles of cl and clang-cl. Thread-safe."""

    def __init__(
        self,
        disk: CacheDisk,
        results: Results,
        counters: Counters,
        records: Records,
        *,
        max_output_bytes: int,
    ) -> None:
        self._disk, self._host, self._results = disk, ClHost(disk), results
        self._counters, self._max_output_bytes = counters, max_output_bytes
        self._records = records
        self._inflight, self._texts = Inflight(wait_seconds=DEDUP_SECONDS), Texts()
        self._writing: dict[str, list[WindowsPending]] = {}
        self._lock = threading.Lock()

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Exec | Run:
        """Answer one compile; see `CompileHandler.begin`. Never raises."""
        try:
            compiled = read_compile(self._disk, request)
            if isinstance(compiled, Bypass):
                return self._bypass(request, compiled.reason)
            return self._begin(compiled, is_cancelled)
        except (NotPortableError, CallerError):  # it does not answer as cl does
            return self._bypass(request, BypassReason.UNKNOWN_COMPILER)
        except Exception:  # noqa: BLE001 - the front must get an answer: a fault in hpcc costs a local compile
            _log.exception("begin failed")
            return self._bypass(request, BypassReason.INTERNAL_ERROR)

    def finish(self, run: Run, report: RunReport) -> Finish:
        """Store the result if that is safe; return the output that the user has not seen."""
        pending = run.token
        assert isinstance(pending, WindowsPending)
        compiled, stdout = pending.compiled, report.stdout
        names: tuple[str, ...] | None = None
        try:
            names, rest = self._host.notes(compiled.request, report.stdout)
            stdout = report.stdout if compiled.lists else rest
            outcome = self._store(pending, report, names, stdout)
            self._counters.add(f"missed.{pending.missed}")
            self._record(pending, outcome, pending.missed)
        except NotPortableError:
            self._refuse(pending, UncacheableReason.DEPENDENCIES_FAILED)
        except UncacheableError as error:
            self._refuse(pending, error.reason, error.path)
        except Exception:  # noqa: BLE001 - the compile succeeded; only its result is not kept
            _log.exception("finish failed")
            self._refuse(pending, UncacheableReason.INTERNAL_ERROR)
        finally:
            self._end(pending)
        return Finish(b"", b"") if compiled.lists else Finish(stdout, report.stderr)

    def _refuse(self, pending: WindowsPending, reason: str, path: bytes = b"") -> None:
        self._counters.add(f"uncacheable.{reason}")
        self._record(pending, "uncacheable", reason, path.decode("utf-8", "replace"))

    def _record(
        self, pending: WindowsPending, outcome: str, reason: str, culprit: str = ""
    ) -> None:
        compiled = pending.compiled
        self._records.compiled(
            noted(compiled),
            outcome,
            key=compiled.key,
            started_ns=pending.started_ns,
            reason=reason,
            culprit=culprit,
        )

    def abandon(self, run: Run) -> None:
        """Forget a `Run` whose launcher vanished before it reported."""
        assert isinstance(run.token, WindowsPending)
        self._counters.add("miss.abandoned")
        self._records.ended(run.token.compiled.request, ABANDONED)
        self._end(run.token)

    def flush(self) -> None:
        """Write what is recorded of compiles, for a command that reads it."""
        self._records.flush()

    def _bypass(self, request: CompileRequest, reason: str) -> Exec:
        self._counters.add(f"bypass.{reason}")
        self._records.bypass(request, reason)
        return Exec(reason)

    def _begin(
        self, compiled: WindowsCompile, is_cancelled: Callable[[], bool]
    ) -> Done | Run | Exec:
        while True:
            found = self._find(compiled.key)
            if found is not None:
                done = self._put(compiled, found)
                if done is not None:
                    return done
            if (flight := self._inflight.lead(compiled.key)) is not None:
                break
            self._counters.add("dedup.waited")
            if not self._inflight.wait(compiled.key, is_cancelled):
                break
        try:
            # The compiler may be another than its name says, and its list has words to be learned.
            family, _ = self._host.version(compiled.request)
            if family is not compiled.family:
                self._inflight.release(flight)
                return self._bypass(compiled.request, BypassReason.OTHER_COMPILER)
            self._host.words(compiled.request)
            missed = self._results.why_missed(compiled.key)
        except BaseException:
            self._inflight.release(flight)
            raise
        self._counters.add("miss.local")
        before = self._names_before(compiled)
        pending = WindowsPending(compiled, time.time_ns(), _step_ns(), before, flight, missed)
        self._disturb(compiled, pending)
        return Run(compiled.argv, pending, filter_headers=not compiled.lists)

    def _disturb(self, compiled: WindowsCompile, pending: WindowsPending | None) -> None:
        """Note that an output is written now, by this compile or (None) by a hit."""
        with self._lock:
            others = self._writing.setdefault(key_of(compiled.output), [])
            for other in others:
                other.is_alone = False
            if pending is not None:
                pending.is_alone = not others
                others.append(pending)
            elif not others:
                del self._writing[key_of(compiled.output)]

    def _end(self, pending: WindowsPending) -> None:
        with self._lock:
            name = key_of(pending.compiled.output)
            self._writing[name].remove(pending)
            if not self._writing[name]:
                del self._writing[name]
        self._inflight.release(pending.flight)

    def _names_before(self, compiled: WindowsCompile) -> dict[bytes, frozenset[bytes]]:
        """Return the names, as wide keys, in the directories where builds write objects."""
        state, found = State(self._disk), dict[bytes, frozenset[bytes]]()
        for path in (compiled.cwd, parent(compiled.source), parent(compiled.output)):
            names = state.names(str(path)) or {}
            found[str(path).encode()] = frozenset(name.encode() for name in names)
        return found

    def _find(self, key: bytes) -> Found | None:
        state, sets = State(self._disk), self._results.sets(key)
        for index, inputs in enumerate(sets):
            if state.holds(inputs):
                result = self._results.result(inputs.result_key)
                if result is None:
                    return None
                if index:
                    self._results.prefer(key, sets, inputs)
                return Found(inputs, result)
        return None

    def _put(self, compiled: WindowsCompile, found: Found) -> Done | None:
        """Put a result in place; None if only the compiler may write there."""
        result = found.result
        try:
            is_put = self._is_ours(compiled, found)
            if is_put:
                self._disturb(compiled, None)
                self._disk.write(str(compiled.output), result.object_data)
        except OSError:
            is_put = False
        if not is_put:
            self._counters.add(f"uncacheable.{UncacheableReason.OUTPUT_NOT_OURS}")
            return None
        self._counters.add("hit.local")
        size = result.size_bytes
        self._records.hit(noted(compiled), compiled.key, size_bytes=size)
        self._counters.add("bytes.served", result.size_bytes)
        return Done(0, result.stdout, result.stderr)

    def _is_ours(self, compiled: WindowsCompile, found: Found) -> bool:
        """Tell whether a hit may write here: no link, nothing read-only, and none of the inputs."""
        times = self._disk.times(str(compiled.output), is_at_rest=False)
        source = self._disk.times(str(compiled.source), is_at_rest=False)
        key = key_of(compiled.output)
        if source is None or any(windows_key(p.decode()) == key for p, _ in found.inputs.files):
            return False
        is_plain = times is None or (times.is_plain and times.links == 1)
        return is_plain and (times is None or times.identity != source.identity)

    def _store(
        self, pending: WindowsPending, report: RunReport, names: tuple[str, ...], stdout: bytes
    ) -> str:
        """Store the result; return how the compile ended."""
        compiled = pending.compiled
        if report.signal or report.exit_code:
            self._counters.add("miss.failed")
            return "miss.failed"
        if report.is_truncated:
            raise UncacheableError(UncacheableReason.LONG_DIAGNOSTICS)
        if stdout and report.stderr and not compiled.lists:
            raise UncacheableError(UncacheableReason.BOTH_STREAMS)
        data = self._output(pending)
        paths = (compiled.source, *(_listed(name, compiled.cwd) for name in names))
        in_arguments = scan_arguments(
            compiled.family.text_arguments(compiled.invocation), compiled.invocation.macros
        )
        inputs = find_inputs(
            self._disk,
            self._texts,
            CompileFiles(
                cwd=compiled.cwd,
                files=paths,
                search=self._search(compiled),
                forced=compiled.invocation.forced_includes,
                in_arguments=in_arguments,
                started_ns=pending.started_ns,
                names_before=pending.names_before,
                settle=partial(self._settle, pending, paths),
            ),
        )
        if mentions_clock(data, pending.started_ns, time.time_ns()):
            self._settle(pending, paths, Hazard.PASTED_CLOCK)
        again = read_compile(self._disk, compiled.request)
        if isinstance(again, Bypass) or again.key != compiled.key:
            # A response file, or a part of the compiler.
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
        if abs(_step_ns() - pending.step_ns) > _MAX_STEP_NS:
            raise UncacheableError(UncacheableReason.CLOCK_SET)
        if not pending.is_alone:  # whose object it is, nobody knows
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
        result = Result(data, None, stdout, report.stderr)
        kept = make_set(compiled.key, inputs.files, inputs.present, inputs.absences)
        if self._results.keep_set(compiled.key, kept, result) is None:
            raise UncacheableError(UncacheableReason.STORE)
        return "miss.local"

    def _output(self, pending: WindowsPending) -> bytes:
        """Return the object, which this compile must have written."""
        path = str(pending.compiled.output)
        times = self._disk.times(path, is_at_rest=True)
        is_new = times is not None and times.may_have_changed_since(pending.started_ns)
        data = self._disk.read(path, self._max_output_bytes) if is_new else None
        if data is None:
            raise UncacheableError(UncacheableReason.OUTPUT_UNREADABLE)
        return data

    def _search(self, compiled: WindowsCompile) -> tuple[WindowsPath, ...]:
        own = self._host.search(compiled.request, compiled.invocation)
        listed = search_directories(compiled.request, compiled.invocation)
        try:
            return tuple(
                parse_windows_path(directory.decode(), cwd=compiled.cwd)
                for directory in (*listed, *own)
            )
        except (WindowsPathError, UnicodeDecodeError) as error:
            raise UncacheableError(UncacheableReason.SEARCH_PATH) from error

    def _settle(
        self,
        pending: WindowsPending,
        paths: tuple[WindowsPath, ...],
        doubts: Hazard,
    ) -> None:
        """Settle doubts by the preprocessor's output.

        Raises:
            UncacheableError: a clock or a file of the assembler is in it.
        """
        compiled, started_ns = pending.compiled, time.time_ns()
        try:
            text = self._host.expanded(compiled.request, compiled.invocation)
        except NotPortableError as error:
            raise UncacheableError(UncacheableReason.EXPANSION_FAILED) from error
        if doubts & CLOCKS:
            files = [str(path).encode() for path in paths]
            refuse_clocks(text, files, started_ns=started_ns, is_pinned=False)
        if doubts & ~CLOCKS and compiled.family.has_local_cache:
            found = read_statements(text)
            if found.is_opaque or found.names:
                raise UncacheableError(UncacheableReason.INCBIN)


def _listed(name: str, cwd: WindowsPath) -> WindowsPath:
    try:
        return parse_windows_path(name, cwd=cwd)
    except WindowsPathError as error:
        raise UncacheableError(UncacheableReason.UNCLEAR_NAME, name.encode()) from error


def _step_ns() -> int:
    return time.time_ns() - time.monotonic_ns()
