"""The local cache of a Windows client: a compile of cl or clang-cl from a stored result, or run.

A hit reads every input, lists every directory in which a name must be absent (`state`), and runs no
program. It is kept for the launcher, which answers the same request by itself the next time
(`kept_hits`). A miss runs the user's command. If that has no `/showIncludes`, hpcc adds it and
shows the output without the list. Not yet run on Windows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from hpcc.cache.base.api import CompileRequest, Done, Exec, Finish, Run, RunReport
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.times import Phase, measured
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.recorder.compiles import ABANDONED
from hpcc.cache.remote.cl_host import ClHost
from hpcc.cache.replay.writing import Writing
from hpcc.cache.results.inflight import Flight, Inflight
from hpcc.cache.results.records import Records
from hpcc.cache.results.results import Found, Results
from hpcc.cache.windows.command import WindowsCompile, read_compile
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.farm_results import ImageResultStore
from hpcc.cache.windows.keeping import Began, ResultKeeper, WindowsPending, contents_of, step_ns
from hpcc.cache.windows.kept_hits import KeptHits, written_key
from hpcc.cache.windows.notes import noted
from hpcc.cache.windows.precompiled import PrecompiledRecords
from hpcc.cache.windows.programs import is_installed_in, state_of
from hpcc.cache.windows.several import SeveralRun, WindowsSeveral
from hpcc.cache.windows.sharing import SharedCompile, WindowsSharing
from hpcc.cache.windows.state import State
from hpcc.compilers.invocation.guest import NotPortableError
from hpcc.compilers.msvc.debug_information import with_embedded_debug_info
from hpcc.compilers.msvc.family import msvc_family
from hpcc.compilers.scan.windows_names import key_of, parent
from hpcc.compilers.spec.table import Bypass
from hpcc.config.settings import CacheSettings
from hpcc.core import CallerError, WindowsPath, windows_key
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.private import PrivateReason
from hpcc.core.reasons.uncacheable import UncacheableReason

_log: Final = logging.getLogger("hpcc.daemon.cl")
DEDUP_SECONDS: Final = 300.0
_SEVERAL: Final = Bypass(BypassReason.MULTIPLE_SOURCES)


class WindowsCache:
    """Looks up, runs and stores compiles of cl and clang-cl. Thread-safe."""

    def __init__(
        self,
        disk: CacheDisk,
        results: Results,
        counters: Counters,
        records: Records,
        sharing: WindowsSharing,
        precompiled: PrecompiledRecords,
        kept: KeptHits,
        settings: CacheSettings,
    ) -> None:
        self._embeds_debug_info = settings.embed_debug_info
        self._disk, self._results = disk, results
        self._host = ClHost(disk, partial(state_of, disk))
        self._counters, self._records, self._sharing = counters, records, sharing
        self.records: Final = records
        self._kept = kept
        self._several = WindowsSeveral(disk, sharing, self)
        self._inflight = Inflight(wait_seconds=DEDUP_SECONDS)
        self._writing = Writing(self._real)
        self._keeper = ResultKeeper(
            *(disk, self._host, results, precompiled, self._is_known), settings
        )
        self.image_results: Final = ImageResultStore(disk, self, self._keeper, counters, records)

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Exec | Run:
        """Answer one compile; see `CompileHandler.begin`. Never raises."""
        try:
            with measured(request.times, Phase.CLASSIFY):
                compiled = read_compile(self._disk, self._replaced(request))
            if compiled == _SEVERAL:
                answer = self._several.begin(self._replaced(request), is_cancelled)
                if answer is not None:
                    return answer
            if isinstance(compiled, Bypass):
                return self._bypass(request, compiled.reason)
            return self.begin_one(self._sharing.ask(self._disk, compiled), is_cancelled)
        except (NotPortableError, CallerError):  # it does not answer as cl does
            return self._bypass(request, BypassReason.UNKNOWN_COMPILER)
        except Exception:  # noqa: BLE001 - the front must get an answer: a fault in hpcc costs a local compile
            _log.exception("begin failed")
            return self._bypass(request, BypassReason.INTERNAL_ERROR)

    def _replaced(self, request: CompileRequest) -> CompileRequest:
        """Return a request with the user's setting for debug information of cl applied."""
        if not self._embeds_debug_info or msvc_family(request.compiler).has_local_cache:
            return request
        return request._replace(
            argv=(*request.argv[:1], *with_embedded_debug_info(request.argv[1:]))
        )

    def finish(self, run: Run, report: RunReport) -> Finish:
        """Store the result if that is safe; return the output that the user has not seen."""
        pending = run.token
        request = _parts(run)[0].compiled.request
        if (times := request.times) is not None:
            times.end(Phase.COMPILE)
            times.begin(Phase.STORE)
        if isinstance(pending, SeveralRun):
            return self._several.finish(pending, report)
        assert isinstance(pending, WindowsPending)
        compiled = pending.compiled
        names: tuple[str, ...] | None = ()
        rest = report.stdout
        if not compiled.reads_depfile:
            names, rest = self.names(request, report.stdout)
        shown = report.stdout if compiled.is_listed else rest
        self.settle(pending, report._replace(stdout=shown), names, None)
        return Finish(b"", b"") if compiled.is_listed else Finish(shown, report.stderr)

    def names(self, request: CompileRequest, stdout: bytes) -> tuple[tuple[str, ...] | None, bytes]:
        """See `several.OneSource`."""
        try:
            return self._host.notes(request, stdout)
        except NotPortableError:
            return None, stdout
        except Exception:  # noqa: BLE001 - the compile succeeded; only its result is not kept
            _log.exception("the compiler's list cannot be read")
            return None, stdout

    def settle(
        self,
        pending: WindowsPending,
        report: RunReport,
        names: tuple[str, ...] | None,
        reason: UncacheableReason | None,
    ) -> None:
        """See `several.OneSource`."""
        try:
            outcome = self._store(pending, report, names, reason)
            self._record(pending, outcome, pending.missed)
        except NotPortableError:
            self._refuse(pending, UncacheableReason.DEPENDENCIES_FAILED)
        except UncacheableError as error:
            self._refuse(pending, error.reason, error.path)
        except Exception:  # noqa: BLE001 - the compile succeeded; only its result is not kept
            _log.exception("finish failed")
            self._refuse(pending, UncacheableReason.INTERNAL_ERROR)
        finally:
            self.end(pending)

    def _refuse(self, pending: WindowsPending, reason: str, path: bytes = b"") -> None:
        self._counters.add(f"uncacheable.{reason}")
        self._record(pending, "uncacheable", reason, path.decode("utf-8", "replace"))

    def _record(
        self, pending: WindowsPending, outcome: str, reason: str, culprit: str = ""
    ) -> None:
        self._records.compiled(
            noted(pending.asked),
            outcome,
            key=pending.key,
            private=pending.private,
            started_ns=pending.started_ns,
            reason=reason,
            culprit=culprit,
            fallback=pending.fallback,
            sources=pending.sources,
        )

    def abandon(self, run: Run) -> None:
        """Forget a `Run` whose launcher vanished before it reported."""
        self._counters.add("miss.abandoned")
        for pending in _parts(run):
            self._records.ended(pending.compiled.request, ABANDONED)
            self.end(pending)

    def flush(self) -> None:
        """Write what is recorded of compiles, for a command that reads it."""
        self._is_known()
        self._records.flush()

    def end_kept_hits(self) -> None:
        """Let launchers answer no more hits by themselves. May be called again."""
        self._is_known()
        self._kept.close()

    def _is_known(self) -> bool:
        """Note what launchers wrote by themselves; return whether all of that is known."""
        return self._kept.take(self._writing)

    def _bypass(self, request: CompileRequest, reason: str) -> Exec:
        self._counters.add(f"bypass.{reason}")
        self._records.ended(request, "bypass", reason, self._records.fallback())
        return Exec(reason)

    def begin_one(
        self, asked: SharedCompile, is_cancelled: Callable[[], bool]
    ) -> Done | Run | Exec:
        """Answer a compile of one source."""
        compiled = asked.compiled
        while True:
            located = self.find(asked)
            if located is not None:
                done = self.put(asked, *located)
                if done is not None:
                    return done
            if (flight := self._inflight.lead(compiled.key)) is not None:
                break
            self._counters.add("dedup.waited")
            if not self._inflight.wait(compiled.key, is_cancelled):
                break
        try:
            if reason := self.why_not(compiled):
                self._inflight.release(flight)
                return self._bypass(compiled.request, reason)
            pending, injected = self.pending(asked, flight=flight)
        except BaseException:
            self._inflight.release(flight)
            raise
        argv = compiled.argv(injected)
        return Run(argv, pending, filter_headers=not compiled.is_listed)

    def why_not(self, compiled: WindowsCompile) -> str:
        """Return why the compiler is another than its name says; "" if it is not."""
        family, _ = self._host.version(compiled.request)
        if family is not compiled.family:
            return BypassReason.OTHER_COMPILER
        if family.has_local_cache and not self._is_where_it_says(compiled):
            return BypassReason.STARTER
        self._host.words(compiled.request)  # its list has words to be learned
        return ""

    def pending(
        self, asked: SharedCompile, *, flight: Flight | None = None, sources: int = 1
    ) -> tuple[WindowsPending, tuple[bytes, ...]]:
        """Count a miss; return the token of the compile that runs and the flags that hpcc adds."""
        compiled = asked.compiled
        injected = asked.injected if self._takes_maps(asked) else ()
        missed = self._why_missed(asked)
        began = self.began(compiled)
        self._is_known()  # what hits wrote before this compile does not count against it
        writer = self._writing.begin([written_key(str(path)) for path in compiled.outputs])
        self._counters.add("miss.local")
        private = asked.private
        if asked.share is not None and not injected:
            private = PrivateReason.MAPS_REFUSED
        fallback = self._records.fallback()
        pending = WindowsPending(
            asked, began, flight, missed, writer, asked.key, private, fallback, sources
        )
        return pending, injected

    def _takes_maps(self, asked: SharedCompile) -> bool:
        return asked.share is not None and self._host.takes(asked.compiled.request, asked.injected)

    def _why_missed(self, asked: SharedCompile) -> str:
        new = "new-command"
        reasons = map(self._results.why_missed, asked.keys)
        return next((reason for reason in reasons if reason != new), new)

    def _is_where_it_says(self, compiled: WindowsCompile) -> bool:
        """Tell whether the files in the key are those of the compiler that really runs."""
        request = compiled.request
        directory = self._host.search(request, compiled.invocation).installed_in
        return is_installed_in(self._disk, request.compiler.decode(), directory)

    def _real(self, path: bytes) -> bytes:
        return written_key(self._disk.real(path.decode()))

    def end(self, pending: WindowsPending) -> None:
        """Release what a run holds."""
        pending.writer.end()
        self._inflight.release(pending.flight)

    def began(self, compiled: WindowsCompile) -> Began:
        """Note the names, as wide keys, in the directories where builds write objects."""
        state, found = State(self._disk), dict[bytes, frozenset[bytes]]()
        for path in (compiled.cwd, parent(compiled.source), *map(parent, compiled.outputs)):
            names = state.names(str(path)) or {}
            found[str(path).encode()] = frozenset(name.encode() for name in names)
        return Began(found, time.time_ns(), step_ns())

    def find(self, asked: SharedCompile) -> tuple[Found, bytes, State] | None:
        """Return the result whose inputs are those of now, its key, and what was looked at."""
        with measured(asked.compiled.request.times, Phase.LOOK_UP):
            return self._find(asked)

    def _find(self, asked: SharedCompile) -> tuple[Found, bytes, State] | None:
        state = State(self._disk)
        for key in asked.keys:
            found = self.find_under(asked, key, state)
            if found is not None:
                return found, key, state
        return None

    def find_under(self, asked: SharedCompile, key: bytes, state: State) -> Found | None:
        """Return the result under one key whose inputs are those of now."""
        sets = self._results.sets(key)
        for index, stored in enumerate(sets):
            inputs = asked.spelled_set(key, stored)
            if not state.holds(inputs):
                continue
            stored_result = self._results.result(inputs.result_key)
            if stored_result is None:
                break
            result = asked.spelled(key, stored_result)
            if not self._keeper.may_be_put(asked.compiled, result):
                break
            if index:
                self._results.prefer(key, sets, stored)
            return Found(inputs, result)
        return None

    def write(self, path: str, data: bytes) -> None:
        """Write an output; running compiles of the same file learn of it. Raises OSError."""
        name = [written_key(path)]
        self._writing.disturb(name)
        self._disk.write(path, data)
        self._writing.disturb(name)  # a compile may have begun in between

    def place(self, compiled: WindowsCompile, found: Found) -> bool:
        """Put a result's outputs in place; False and counted if only the compiler may write."""
        try:
            is_put = all(self._is_ours(compiled, found, path) for path in compiled.outputs)
            # Users of a precompiled header wait for the object as well: it comes last.
            parts = zip(compiled.outputs, contents_of(found.result), strict=True)
            for output, data in reversed([*parts]) if is_put else ():
                self.write(str(output), data)
        except OSError:
            is_put = False
        if not is_put:
            self._counters.add(f"uncacheable.{UncacheableReason.OUTPUT_NOT_OURS}")
        return is_put

    def put(self, asked: SharedCompile, found: Found, key: bytes, state: State) -> Done | None:
        """Put a result in place; None if only the compiler may write there."""
        result = found.result
        if not self.place(asked.compiled, found):
            return None
        self._counters.add("hit.local")
        if asked.is_foreign(result.origin):
            self._counters.add("hit.shared")
        self._records.hit(noted(asked), key, size_bytes=result.size_bytes)
        self._counters.add("bytes.served", result.size_bytes)
        if self._kept.has_long_log():
            self._is_known()
        self._kept.keep(asked, found, state.sizes, key)
        return Done(0, result.stdout, result.stderr)

    def _is_ours(self, compiled: WindowsCompile, found: Found, output: WindowsPath) -> bool:
        """Tell whether a hit may write here: no link, nothing read-only, and none of the inputs."""
        times = self._disk.times(str(output), is_at_rest=False)
        source = self._disk.times(str(compiled.source), is_at_rest=False)
        key = key_of(output)
        if source is None or any(windows_key(p.decode()) == key for p, _ in found.inputs.files):
            return False
        is_plain = times is None or (times.is_plain and times.links == 1)
        return is_plain and (times is None or times.identity != source.identity)

    def _store(
        self,
        pending: WindowsPending,
        report: RunReport,
        names: tuple[str, ...] | None,
        reason: UncacheableReason | None,
    ) -> str:
        """Store the result; return how the compile ended."""
        if names is None:
            raise UncacheableError(UncacheableReason.DEPENDENCIES_FAILED)
        if report.signal or report.exit_code:
            self._counters.add("miss.failed")
            return "miss.failed"
        if reason:
            raise UncacheableError(reason)
        pending.key, pending.private = self._keeper.keep(pending, report, names)
        if pending.private:
            self._counters.add(f"private.{pending.private}")
        return "miss.local"


def _parts(run: Run) -> tuple[WindowsPending, ...]:
    """Return the compiles of a run."""
    token = run.token
    if isinstance(token, SeveralRun):
        return token.parts
    assert isinstance(token, WindowsPending)
    return (token,)
