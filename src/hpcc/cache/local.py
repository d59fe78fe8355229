"""The local half of the cache: restore hits, let the launcher compile misses, store their results.

Problem: a stored object is the right answer only if the compiler would read the same bytes now.
The command line does not say which files the compiler reads; that is known after a first compile.

Rule: a lookup has two steps. `Prepared.key` covers all that is known before the compile (command
line, environment, compiler). It leads to a manifest: a few sets of input files with their digests,
and of names that must be absent. The first set that matches the file system now names the result.
A compile that takes part in cross-checkout sharing looks under its shared key first.

Example: `gcc -Iinc -Isub -c a.c` reads a.c and sub/b.h. The set holds the digests of both, and
"inc/b.h is absent". An edit of sub/b.h is a miss, and so is a new inc/b.h. Undoing the edit gives a
hit again.

Equal requests at the same time are deduplicated: one compiles, the others wait and look again.

What must never happen: a result is stored although an input or a directory on the way to one
changed while the compiler ran, or although it depends on something that no set holds. `finish`
therefore raises `UncacheableError` in every doubt, and the result is dropped. The object of the
compile is the user's in any case; `finish` never changes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from hpcc.cache.base.api import Done, Run, RunReport
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.outputs import read_output
from hpcc.cache.base.path_stability import check_places, note_places
from hpcc.cache.base.stamps import StampClock
from hpcc.cache.base.times import Phase, measured
from hpcc.cache.base.uncacheable import UncacheableError, absolute, all_absolute
from hpcc.cache.content.key import ContentKey
from hpcc.cache.inputs.closure import find_closure
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.embedded_files import embed_directories, listing_flag, watched_names
from hpcc.cache.inputs.named_directories import NamedDirectories
from hpcc.cache.inputs.own_text import own_closure
from hpcc.cache.inputs.twins import paths_passed, with_directories, with_places
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.key.share import Sharing
from hpcc.cache.results.config_files import watch_configs, with_unlisted
from hpcc.cache.results.contents import Contents
from hpcc.cache.results.files_read import files_read, read_depfile
from hpcc.cache.results.hits import Hits, PartHit
from hpcc.cache.results.inflight import Flight, Inflight
from hpcc.cache.results.interfaces import Interfaces
from hpcc.cache.results.pending import (
    Pending,
    check_known,
    check_product,
    checked_report,
    closure_request,
    culprit_of,
    is_tied,
    names_listed,
    read_side_outputs,
    record_end,
    signature_or_none,
    start_of,
)
from hpcc.cache.results.precompiled import PrecompiledHeaders, check_precompiled
from hpcc.cache.results.records import HIT, Records
from hpcc.cache.results.results import Found, Result, Results
from hpcc.cache.results.scratch import DiskSpace, ScratchPaths
from hpcc.cache.results.share_check import SourceCheck
from hpcc.cache.results.share_results import Located, Remote, SharedResults
from hpcc.cache.search_paths import SearchPaths
from hpcc.compilers.invocation.dependencies import Headers, Way
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.store.private import PrivateStore

# Longer than nearly every compile; a request that waited this long compiles, too.
DEDUP_SECONDS: Final = 300.0


class LocalCache:
    """Looks up, runs and stores compiles under the keys of the host's own compilers."""

    def __init__(
        self,
        results: Results,
        memo: FileMemo,
        search: SearchPaths,
        counters: Counters,
        records: Records,
        hits: Hits,
        sharing: Sharing,
        store: PrivateStore,
        *,
        run_directory: str,
        max_output_bytes: int,
        clock: StampClock,
        remote: Remote | None = None,
    ) -> None:
        self._results, self._memo, self._search = results, memo, search
        self._counters, self._records, self._hits = counters, records, hits
        sources = SourceCheck(memo)
        self._sharing, self._directories = sharing, NamedDirectories(memo)
        self._shared = SharedResults(results, memo, store, sources, remote)
        self._contents = Contents(store, results, memo, counters, sources)
        self._precompiled = PrecompiledHeaders(store, memo)
        self._interfaces = Interfaces(store, memo)
        self._max_output_bytes, self._clock = max_output_bytes, clock
        self._inflight = Inflight(wait_seconds=DEDUP_SECONDS)
        self._scratch = ScratchPaths(os.fsencode(os.path.join(run_directory, "deps")))

    def begin(self, prepared: Prepared, is_cancelled: Callable[[], bool]) -> Done | Run:
        """Return a stored answer, or how to run the compiler.

        Waits up to `DEDUP_SECONDS` while an equal request compiles. After a `Run` the caller owes
        one call of `finish` or `abandon`.
        """
        times = prepared.request.times
        while True:
            is_stored, done = self._look_up(prepared)
            if done is not None:
                return done
            if (flight := self._inflight.lead(prepared.key)) is not None:
                break
            self._counters.add("dedup.waited")
            with measured(times, Phase.WAIT):
                is_done = self._inflight.wait(prepared.key, is_cancelled)
            if not is_done:
                break
        try:
            with measured(times, Phase.LOOK_UP):
                content = self._content_key(prepared)
                waits = partial(self._inflight.waits, flight, is_cancelled, self._counters)
                # With a result that could not be put in place, only the compiler may write there.
                done, asked = (None, "") if is_stored else self._other_hit(prepared, content, waits)
            if done is not None:
                self._inflight.release(flight)
                return done
            self._counters.add("miss.local")
            return self._run(prepared, flight, content, asked)
        except BaseException:
            self._inflight.release(flight)
            raise

    def stored(self, prepared: Prepared) -> Done | None:
        """Put the stored result of an equal request in place; None if there is none to serve."""
        return self._look_up(prepared)[1]

    def _look_up(self, prepared: Prepared) -> tuple[bool, Done | None]:
        """Return whether there is a result, and the answer if it could be put in place."""
        with measured(prepared.request.times, Phase.LOOK_UP):
            found = self._found(prepared)
            return found is not None, None if found is None else self._put(prepared, *found)

    def find(self, prepared: Prepared) -> tuple[PartHit | None, str]:
        """Return a stored result for `put`, and what the remote cache had. Waits for nothing."""
        found, asked = self._found(prepared), ""
        if found is None:
            content = self._content_key(prepared)
            known = None if content is None else self._contents.find(prepared, content)
            if known is not None:
                return PartHit(prepared, known.found, known.key, is_by_content=True), ""
            found, asked = self._fetched(prepared)
        return (None if found is None else PartHit(prepared, *found)), asked

    def put(self, hit: PartHit) -> bool:
        """Put what `find` returned in place; False if only the compiler may write there."""
        done = self._put(hit.prepared, hit.found, hit.key)
        if done is not None and hit.is_by_content:
            self._counters.add("hit.content")
        return done is not None

    def beside(self, prepared: Prepared, asked: str, sources: int) -> Pending:
        """Return the state of a compile that one command runs with those of other sources.

        Its messages are not known apart. The caller owes one call of `finish` or `abandon`.
        """
        way = prepared.family.dependency_way(prepared.invocation, is_recorded=prepared.is_recorded)
        # The compiles of all sources would write to the same private file, and list together.
        way = Way.SECOND_RUN if way in {Way.PRIVATE_FILE, Way.HEADERS} else way
        self._counters.add("miss.local")
        pending = self._pending(prepared, way, None, self._content_key(prepared), asked)
        pending.sources = sources
        return pending

    def _found(self, prepared: Prepared) -> Located | None:
        return self._known(prepared, self._shared.find_either(prepared.share, prepared.key))

    def _known(self, prepared: Prepared, found: Located | None) -> Located | None:
        is_known = found is None or (
            self._precompiled.has_record(prepared, found[0].result.object_data)
            and self._interfaces.has_record(prepared, found[0].result.side)
        )
        return found if is_known else None

    def _fetched(self, prepared: Prepared) -> tuple[Located | None, str]:
        located, asked = self._shared.fetch(prepared.share, prepared.key, prepared.source)
        return self._known(prepared, located), asked

    def _other_hit(
        self, prepared: Prepared, content: ContentKey | None, waits: Callable[[bytes], bool]
    ) -> tuple[Done | None, str]:
        """Put another compile's equal result in place; also return what the remote cache had."""
        # In their order, so that no two requests wait for each other.
        waited = sum(map(waits, self._shared.comparisons(prepared.share)))
        if waited and (done := self._look_up(prepared)[1]) is not None:
            return done, ""
        if content is not None:
            known = self._contents.find(prepared, content)
            if known is None and waits(content.key):
                known = self._contents.find(prepared, content)
            done = None if known is None else self._put(prepared, known.found, known.key)
            if done is not None:
                self._counters.add("hit.content")
                return done, ""
        found, asked = self._fetched(prepared)
        return None if found is None else self._put(prepared, *found), asked

    def _content_key(self, prepared: Prepared) -> ContentKey | None:
        try:
            return self._contents.key(prepared, self._search.of(prepared))
        except UncacheableError:
            return None  # `finish` meets the same fault, and counts it

    def _put(self, prepared: Prepared, found: Found, key: bytes) -> Done | None:
        if not self._hits.put(prepared, found, key=key, outcome=HIT):
            self._counters.add(f"uncacheable.{UncacheableReason.OUTPUT_NOT_OURS}")
            return None
        return Done(0, found.result.stdout, found.result.stderr)

    def finish(self, pending: Pending, report: RunReport) -> bytes:
        """Store the result if that is safe; return the stderr that the user has not seen yet."""
        headers: Headers | None = None
        shown = b""
        pending.is_compiled = not (report.signal or report.exit_code)
        try:
            report, shown = checked_report(pending, report)
            if pending.way is Way.HEADERS:
                headers = pending.prepared.family.strip_headers(report.stderr)
                shown = headers.stderr
            outcome = self._store(pending, report, headers)
            record_end(self._records, pending, outcome, pending.missed)
        except UncacheableError as error:
            self._counters.add(f"uncacheable.{error.reason}")
            culprit = culprit_of(self._memo, pending, error)
            record_end(self._records, pending, "uncacheable", error.reason, culprit)
        finally:
            self.abandon(pending)
        return shown

    def abandon(self, pending: Pending) -> None:
        """Release the private files of a `Run` and wake its waiters; idempotent."""
        self._inflight.release(pending.flight)
        pending.stop_watching()
        for path in (pending.private_depfile, pending.listing):
            if path is not None:
                self._scratch.give_back(path, is_written=pending.is_compiled)

    def _run(
        self, prepared: Prepared, flight: Flight | None, content: ContentKey | None, asked: str
    ) -> Run:
        request, family, invocation = prepared.request, prepared.family, prepared.invocation
        way = family.dependency_way(invocation, is_recorded=prepared.is_recorded)
        room = self._scratch.room()
        if way is Way.PRIVATE_FILE and room is DiskSpace.NONE:
            way = Way.SECOND_RUN
        private = self._scratch.take() if way is Way.PRIVATE_FILE else None
        ours = (*prepared.injected, *prepared.colour)
        extra = (*ours, *family.dependency_flags(way, private or b""))
        listing = self._scratch.take()
        lists = () if room is DiskSpace.NONE else listing_flag(prepared, listing)
        argv = family.command(request.argv, request.compiler, invocation, extra, lists)
        if not lists:
            self._scratch.put_back(listing)
        pending = self._pending(prepared, way, flight, content, asked)
        pending.private_depfile, pending.room = private, room
        pending.listing = listing if lists else None
        is_tentative = bool(prepared.injected) or room is DiskSpace.LITTLE
        is_filtered = way is Way.HEADERS or room is DiskSpace.LITTLE
        return Run(argv, pending, filter_headers=is_filtered, is_tentative=is_tentative)

    def _pending(
        self,
        prepared: Prepared,
        way: Way,
        flight: Flight | None,
        content: ContentKey | None,
        asked: str,
    ) -> Pending:
        missed = self._shared.why_missed(prepared.share, prepared.key)
        if prepared.marker_status.reason:
            self._counters.add(f"private.{prepared.marker_status.reason}")
        directories = self._directories.before(prepared)
        expected = self._interfaces.expected(prepared)
        return Pending(
            prepared,
            way,
            start_of(prepared, directories, expected, self._shared, self._memo, self._clock),
            flight,
            self._contents.why_missed(prepared, content, missed),
            self._records.fallback(),
            tuple(map(signature_or_none, prepared.side_paths)),
            note_places(prepared.cwd, directories, (*prepared.named_files, *expected)),
            prepared.key,
            prepared.marker_status.reason,
            content,
            asked,
            watch=watch_configs(prepared, self._clock, directories),
            writer=self._hits.writer(prepared),
        )

    def _store(self, pending: Pending, report: RunReport, headers: Headers | None) -> str:
        share = pending.prepared.share
        # Of several sources in one command it is not known which failed.
        is_known = not report.exit_code or pending.sources == 1
        if share is not None and not report.signal and is_known:
            self._sharing.note(share, failed=report.exit_code != 0)
        if report.signal or report.exit_code:
            self._counters.add("miss.failed")
            return "miss.failed"
        if report.is_truncated:
            raise UncacheableError(UncacheableReason.LONG_DIAGNOSTICS)
        if pending.sources > 1 and (report.stdout or report.stderr):
            raise UncacheableError(UncacheableReason.MIXED_MESSAGES)
        stderr = report.stderr if headers is None else headers.stderr
        prepared = pending.prepared
        if report.stdout and stderr and not prepared.family.separates_streams(prepared.invocation):
            # A caller that sends both to one file needs their order, which is not recorded.
            raise UncacheableError(UncacheableReason.BOTH_STREAMS)
        depfile = read_depfile(prepared, started := pending.started)
        files = files_read(pending, depfile, headers, self._search.of, self._memo)
        pending.files = all_absolute(prepared.cwd, files)
        data: bytes | None = b""
        if prepared.output is not None:
            data = read_output(prepared.output, started_ns=started, limit=self._max_output_bytes)
        if data is None:
            raise UncacheableError(UncacheableReason.OUTPUT_UNREADABLE)
        prints_text = prepared.invocation.prints_text
        pending.messages = stderr if prints_text else report.stdout + stderr
        pending.has_clock = check_product(pending, report.stdout if prints_text else data)
        closure = with_places(self._closure(pending, files), data)
        check_precompiled(headers, closure)
        side = read_side_outputs(pending, self._max_output_bytes)
        result = Result(data, depfile, report.stdout, stderr, side)
        pending.size_bytes = result.size_bytes
        if not self._keep(pending, closure, result):
            raise UncacheableError(UncacheableReason.STORE)
        return "miss.local"

    def _keep(self, pending: Pending, closure: Closure, result: Result) -> bool:
        """Store a result for every checkout if nothing in it names this one, else only for it."""
        prepared = pending.prepared
        share = prepared.share
        stored: bytes | None = None
        if share is not None:
            stored, reason = self._shared.keep(prepared, share, closure, result)
            if not reason:
                pending.key = share.key
            else:
                pending.private = reason
                self._counters.add(f"private.{reason}")
        if pending.key == prepared.key:
            stored = self._results.keep(pending.key, closure, result)
        if stored is not None:
            self._precompiled.remember(prepared, closure, result.object_data)
            self._interfaces.remember(prepared, closure, result.side)
        content = pending.content
        if stored is not None and content is not None and not closure.precompiled:
            made, path = (closure, result, stored), self._search.of
            self._contents.keep(prepared, content, *made, path, is_private=is_tied(pending))
        return stored is not None

    def _closure(self, pending: Pending, files: tuple[bytes, ...]) -> Closure:
        prepared = pending.prepared
        watched = watched_names(prepared, self._search.config_names(prepared))
        if pending.way is Way.OWN_TEXT:
            given = partial(names_listed, self._memo, pending, ()) if pending.listing else None
            closure = own_closure(self._memo, prepared, watched, given, pending.started)
            return self._checked(pending, closure, ())
        homes = prepared.family.quoted_homes((prepared.invocation.source, *files))
        search = (*self._search.of(prepared), *embed_directories(prepared), *homes)
        made_from = self._precompiled.of_users(prepared)
        asked = closure_request(self._memo, pending, files, search, watched, made_from)
        return self._checked(pending, find_closure(self._memo, asked), search)

    def _checked(self, pending: Pending, closure: Closure, search: tuple[bytes, ...]) -> Closure:
        """Return a closure with the files of flags, once no way to any of its files changed."""
        prepared, started, memo = pending.prepared, pending.started, self._memo
        closure = with_directories(closure, (absolute(prepared.cwd, d) for d in search))
        closure = self._interfaces.with_imports(closure, prepared, started, pending.interfaces)
        paths = paths_passed(closure)
        self._directories.learn(prepared, paths)
        check_places(paths, pending.places, started, plain=closure.plain, outputs=prepared.outputs)
        closure = with_unlisted(closure, pending, search, memo)
        more = {*paths_passed(closure), *prepared.response_paths}.difference(paths)
        self._directories.learn(prepared, more)
        check_places(more, pending.places, started)
        check_known(pending, closure.files, memo)
        return closure
