"""The cache handler behind the front: classify, look up, run, store.

Every failure inside hpcc becomes an ordinary local compile; no exception reaches the front.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hpcc.cache.analysers.opening import open_planner
from hpcc.cache.base.api import (
    CompileRequest,
    Done,
    Exec,
    Finish,
    RemoteClient,
    Run,
    RunReport,
)
from hpcc.cache.base.counters import COUNTERS_NAME, Counters
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.stamps import StampClock, kernel_clock
from hpcc.cache.base.times import CompileTimes, Phase, measured
from hpcc.cache.claims.claims import open_claims
from hpcc.cache.fallbacks import take_fallbacks
from hpcc.cache.farm import FarmCache
from hpcc.cache.farm_results import FarmResults
from hpcc.cache.host.identity import Compilers
from hpcc.cache.inputs.system_names import SystemNames
from hpcc.cache.key.prepare import Classifier, Prepared
from hpcc.cache.key.share import Sharing
from hpcc.cache.links.links import LinkPending, Links, open_links
from hpcc.cache.local import LocalCache
from hpcc.cache.recorder.compiles import ABANDONED, FAILED, REFUSED
from hpcc.cache.remote.client import FarmClient
from hpcc.cache.remote.host_parity import HostParity
from hpcc.cache.remote.job import RemoteJob
from hpcc.cache.remote.local_slots import SlotRule
from hpcc.cache.remote.plan import RemotePlan
from hpcc.cache.remote.remote_closure import RemoteClosures
from hpcc.cache.replay.engine import open_engine
from hpcc.cache.replay.replay import Replays
from hpcc.cache.results.hits import Hits
from hpcc.cache.results.pending import Pending
from hpcc.cache.results.records import Records, make_records
from hpcc.cache.results.results import Results
from hpcc.cache.root.build_identity import Builds
from hpcc.cache.root.build_root import build_root
from hpcc.cache.root.ignored import Outgoing
from hpcc.cache.search_paths import SearchPaths
from hpcc.cache.several import SeveralCache, SeveralPending
from hpcc.compilers.invocation.invocation import Product
from hpcc.compilers.spec.table import Bypass
from hpcc.config.extras import WhyNoClient, why_missing
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import CallerError, RunHere
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.fallback import LOCAL_SLOT, FallbackReason
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.store.file_ops import FileOps
from hpcc.store.private import STORE_NAME, PrivateStore

if TYPE_CHECKING:
    from hpcc.cache.packs.farm import FarmPacks
    from hpcc.cache.packs.packs import Packs
    from hpcc.cache.signed.remote import RemoteCache

_log: Final = logging.getLogger("hpcc.daemon.cache")
_NO_REMOTE_CACHE: Final = f"remote-cache.failed.{FallbackReason.NO_CLIENT}"
_Farm = FarmCache[Prepared, RemoteJob, RemotePlan]


class Cache:
    """Implements `CacheHandler`: bypass, local hit and miss, remote hit and compile."""

    def __init__(  # noqa: PLR0913 - the parts of a daemon's cache, which `open_cache` builds
        self,
        *,
        classifier: Classifier,
        local: LocalCache,
        several: SeveralCache,
        farm: _Farm | None,
        counters: Counters,
        records: Records,
        store: PrivateStore,
        replays: Replays,
        run_directory: str,
        remote_cache: RemoteCache | None = None,
        packs: Packs | None = None,
        links: Links | None = None,
    ) -> None:
        self._classifier, self._local, self._farm = classifier, local, farm
        self._several, self._links = several, links
        self._remote_cache, self._packs = remote_cache, packs
        self._counters, self._records, self._store = counters, records, store
        self._replays, self._run_directory = replays, run_directory
        self._builds = records.builds
        self._epoch = store.epoch()

    @property
    def replays(self) -> Replays:
        """See `CacheHandler.replays`."""
        return self._replays

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Exec | Run:
        """See `CacheHandler.begin`."""
        answer: Done | Exec | Run | None = None
        build, times = self._builds.begin(request.facts, request.cwd), CompileTimes()
        request = request._replace(build=build, times=times)
        try:
            answer = self._begin(request, is_cancelled)
        except Exception:  # noqa: BLE001 - the front must get an answer: a fault in hpcc costs a local compile
            _log.exception("begin failed")
            answer = self._bypass(request, BypassReason.INTERNAL_ERROR)
        finally:
            if isinstance(answer, Run):
                times.begin(Phase.COMPILE)
            else:
                self._builds.end(request.facts, request.cwd)
        return answer

    def finish(self, request: CompileRequest, run: Run, report: RunReport) -> Finish:
        """See `CacheHandler.finish`."""
        self._builds.end(request.facts, request.cwd)
        pending = run.token
        if self._links is not None and isinstance(pending, LinkPending):
            self._links.ended(pending, report)
            return Finish(b"", b"")
        for began in _requests_of(run)[:1]:  # those of several sources share their times
            if began.times is not None:
                began.times.end(Phase.COMPILE)
                began.times.begin(Phase.STORE)
        try:
            if isinstance(pending, SeveralPending):
                self._several.finish(pending, report)
                return Finish(b"", b"")
            assert isinstance(pending, Pending)
            return Finish(b"", self._local.finish(pending, report))
        except Exception:  # noqa: BLE001 - the compile succeeded; only its result is not kept
            _log.exception("finish failed")
            self._counters.add(f"uncacheable.{UncacheableReason.INTERNAL_ERROR}")
            for began in _requests_of(run):
                self._records.ended(began, "uncacheable", UncacheableReason.INTERNAL_ERROR)
            return Finish(b"", report.stderr if run.filter_headers else b"")
        finally:
            if isinstance(pending, Pending) and pending.here is not None:
                pending.here.ran()

    def abandon(self, request: CompileRequest, run: Run) -> None:
        """See `CacheHandler.abandon`."""
        self._builds.end(request.facts, request.cwd)
        if self._links is not None and isinstance(run.token, LinkPending):
            self._links.ended(run.token, None)
            return
        self._counters.add("miss.abandoned")
        for began in _requests_of(run):
            self._records.ended(began, ABANDONED)
        if isinstance(run.token, SeveralPending):
            self._several.abandon(run.token)
        elif isinstance(run.token, Pending):
            try:
                self._local.abandon(run.token)
            finally:
                if run.token.here is not None:
                    run.token.here.give_back()

    def counters(self) -> dict[str, int]:
        """See `CacheHandler.counters`."""
        self._records.flush()  # a caller that reads the counts may read the records next
        if self._links is not None:
            self._links.flush()
        self._count_fallbacks()
        epoch = self._store.epoch()
        if epoch != self._epoch:  # `hpcc clean` ran, and no compile came since
            self._epoch = epoch
            self._store.rescan()
        waiting = {} if self._remote_cache is None else self._remote_cache.gauges()
        return {
            **self._counters.snapshot(),
            **waiting,
            "store.size_bytes": self._store.size_bytes,
            "store.entries": self._store.entries,
        }

    def command(self, words: list[str]) -> dict[str, object]:
        """See `CacheHandler.command`."""
        if self._packs is None:
            raise CallerError("the daemon has no remote cache", reason="no-remote-cache")
        return self._packs.command(words)

    def close(self) -> None:
        """See `CacheHandler.close`."""
        self._count_fallbacks()
        if self._remote_cache is not None:
            self._remote_cache.close()
        self._counters.close()

    def _count_fallbacks(self) -> None:
        for name, count in take_fallbacks(self._run_directory).items():
            self._counters.add(name, count)

    def _begin(
        self, request: CompileRequest, is_cancelled: Callable[[], bool]
    ) -> Done | Exec | Run:
        with measured(request.times, Phase.CLASSIFY):
            prepared = self._classifier.prepare(request, is_cancelled)
        if isinstance(prepared, Bypass):
            answer: Done | Run | None = None
            if prepared.reason is BypassReason.MULTIPLE_SOURCES:
                answer = self._several.begin(request, is_cancelled)
            elif prepared.reason is BypassReason.LINK and self._links is not None:
                answer = self._links.begin(request, is_cancelled)
                if answer is not None:  # it runs as after a bypass, and counts as one
                    self._bypass(request, prepared.reason)
            return answer or self._bypass(request, prepared.reason)
        if is_cancelled():
            return self._bypass(request, BypassReason.CANCELLED)
        # What makes no object takes less time than its way to a farm, but for analysers.
        is_long = prepared.invocation.product is Product.OBJECT or prepared.family.analyser
        if self._farm is not None and is_long:
            with measured(request.times, Phase.FARM, drops_empty=True):
                done = self._try_farm(self._farm, prepared, is_cancelled)
            if isinstance(done, Done):
                if done.exit_code:
                    self._ended_there(prepared)
                return done
            if isinstance(done, RunHere):
                return self._in_slot(prepared, done, is_cancelled)
        return self._local.begin(prepared, is_cancelled)

    def _ended_there(self, prepared: Prepared) -> None:
        """Record a compile that failed on the farm, or that it did not do, and that ends so."""
        reason = self._records.fallback()
        self._records.ended(prepared.request, REFUSED if reason else FAILED, reason)

    def _in_slot(
        self, prepared: Prepared, here: RunHere, is_cancelled: Callable[[], bool]
    ) -> Done | Run:
        """Compile here because the farm is full; the slot is given back at the end."""
        is_kept = False
        try:
            answer = self._local.begin(prepared, is_cancelled)
            if isinstance(answer, Run):
                assert isinstance(answer.token, Pending)
                answer.token.here, is_kept = here, True
                self._counters.add(LOCAL_SLOT)
        finally:
            if not is_kept:
                here.give_back()
        return answer

    def _try_farm(
        self, farm: _Farm, prepared: Prepared, is_cancelled: Callable[[], bool]
    ) -> Done | Exec | RunHere | None:
        try:
            return farm.begin(prepared, is_cancelled)
        except Exception:  # noqa: BLE001 - a fault in hpcc on the way to the farm: the local half still works
            _log.exception("the remote half failed")
            return farm.fall_back(
                FallbackReason.INTERNAL_ERROR, "hpcc failed: see the daemon's log"
            )

    def _bypass(self, request: CompileRequest, reason: str) -> Exec:
        self._counters.add(f"bypass.{reason}")
        self._records.bypass(request, reason)
        return Exec(reason)


def _requests_of(run: Run) -> list[CompileRequest]:
    """Return the request of each source of a run, with build and times."""
    tokens = run.token.parts if isinstance(run.token, SeveralPending) else (run.token,)
    return [token.prepared.request for token in tokens if isinstance(token, Pending)]


def _has_client(counters: Counters) -> bool:
    """Report whether a remote cache can work here; if not, log and count it."""
    trouble = why_missing("client", "the remote cache")
    if trouble:
        counters.add(_NO_REMOTE_CACHE)
        _log.warning("the remote cache is off: %s", trouble)
    return not trouble


def open_cache(
    paths: Paths,
    settings: Settings,
    remote: RemoteClient | None,
    *,
    store_ops: FileOps | None = None,
    clock: StampClock | None = None,
) -> Cache:
    """Build the handler with its store, memory and counters.

    Tests inject faults by `store_ops`, and file systems and times by `clock`.

    Raises:
        OSError: the run directory cannot be created.
    """
    counters = Counters(os.path.join(paths.cache, COUNTERS_NAME), now=time.time)
    memo, clock = FileMemo(time.time_ns), clock or kernel_clock()
    store = PrivateStore(
        os.path.join(paths.cache, STORE_NAME),
        max_size_bytes=settings.cache.max_size_bytes,
        max_entry_bytes=settings.cache.max_entry_bytes,
        now=time.time,
        count=counters.add,
        ops=store_ops,
    )
    counters.on_flush(store.flush)
    engine = open_engine()
    compilers = Compilers(memo, engine)
    results = Results(store, memo, counters)
    home = os.fsencode(os.path.realpath(os.path.expanduser("~")))
    builds = Builds(counters.add, time.monotonic, lambda cwd: build_root(cwd, home))
    is_remote = remote is not None and settings.remote.is_enabled
    told = remote if is_remote and settings.remote.report_builds else None
    records = make_records(os.fspath(paths.cache), results, counters, builds, settings.trace, told)
    replays = Replays(engine, time.monotonic)
    remote_cache: RemoteCache | None = None
    if settings.cache.remote.url and _has_client(counters):
        from hpcc.cache.signed.opening import open_remote_cache  # late: few people pay for it

        remote_cache = open_remote_cache(paths, settings, results, memo, counters)
    packs: Packs | None = None
    farm_packs: FarmPacks | None = None
    if remote_cache is not None:
        from hpcc.cache.packs.farm import FarmPacks
        from hpcc.cache.packs.opening import open_packs  # late, as above

        packs = open_packs(paths, settings, remote_cache, results, store, counters, home)
        farm_packs = FarmPacks(packs, counters)
    hits = Hits(
        replays,
        results,
        memo,
        compilers,
        counters,
        records,
        farm_file=os.fsencode(paths.farm_file) if is_remote else None,
        session_file=os.fsencode(paths.farm_session_file),
        trust_file=os.fsencode(paths.cache_trust_file),
    )
    sharing = Sharing(memo, home=home)
    search = SearchPaths(compilers)
    local = LocalCache(
        results,
        memo,
        search,
        counters,
        records,
        hits,
        sharing,
        store,
        run_directory=os.fspath(paths.run),
        max_output_bytes=settings.cache.max_entry_bytes,
        clock=clock,
        remote=remote_cache,
    )
    farm = None
    if remote is not None and settings.remote.is_enabled:
        closures = RemoteClosures(memo, engine, SystemNames(memo, time.monotonic), search.of)
        host = HostParity(time.time, time.monotonic)
        outgoing = Outgoing(home)
        client = FarmClient(
            host,
            open_planner(paths.cache, memo, store, host, closures, search.of, outgoing, clock),
            FarmResults(results, hits, records, counters),
            SlotRule(store, host, local.stored, memo.scan_known),
            farm_packs,
        )
        farm = FarmCache(
            remote, client, counters, settings.remote, time.monotonic, WhyNoClient("a farm")
        )
    classifier = Classifier(memo, compilers, sharing)
    links: Links | None = None
    if settings.cache.links:
        links = open_links(paths, memo, compilers, counters, clock, time.time)
        records.claims = open_claims(paths, memo, counters, time.time)
    return Cache(
        classifier=classifier,
        local=local,
        several=SeveralCache(classifier, local, hits),
        farm=farm,
        counters=counters,
        records=records,
        store=store,
        replays=replays,
        run_directory=os.fspath(paths.run),
        remote_cache=remote_cache,
        packs=packs,
        links=links,
    )
