"""Finds, places and keeps the results of a farm's image; `ClientResults` of a POSIX client."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Final

from hpcc.cache.analysers.report import check_report
from hpcc.cache.base.api import Done
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.inputs.twins import names_a_place
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.client import (
    BadResultError,
    FarmCompile,
    OutputNotOursError,
    add_phases,
)
from hpcc.cache.remote.depfiles import Depfiles
from hpcc.cache.remote.job import RemoteJob
from hpcc.cache.remote.plan import RemotePlan
from hpcc.cache.remote.side_outputs import client_side
from hpcc.cache.results.hits import Hits
from hpcc.cache.results.records import Records
from hpcc.cache.results.results import Result, Results, basis_origin, counts_under
from hpcc.compilers.invocation.guest import (
    BUILD_NAME,
    GUEST_ROOT,
    RELATIVE,
    GuestMap,
    NotPortableError,
    warns_of_missing_directories,
)
from hpcc.config.farm import Farm
from hpcc.core import CallerError, RemoteResult
from hpcc.core.basis import FarmTerms
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.uncacheable import UncacheableReason

_HIT: Final = "hit.remote"
_ENGINE_HIT: Final = "hit.engine"
# With the first component below the root. Not inside another path, such as /usr/src/.
_GUEST_NAME: Final = re.compile(
    rb"(?<![\w./+~-])" + re.escape(GUEST_ROOT) + rb"/([^/\0\n:\"]{1,255})"
)


class FarmResults:
    """Keeps an image's results in the private store, under keys that name the image."""

    def __init__(self, results: Results, hits: Hits, records: Records, counters: Counters) -> None:
        self._results, self._hits = results, hits
        self._records, self._counters = records, counters
        self._depfiles = Depfiles()

    def stored(self, job: RemoteJob, farm: Farm, terms: FarmTerms) -> Done | None:
        """See `client.ClientResults.stored`."""
        found = self._results.find(job.key)
        outcome = _ENGINE_HIT if farm.engine else _HIT
        if (
            found is None
            or not counts_under(found.result, terms)
            or not self._hits.put(
                _replayed(job.prepared), found, key=job.key, outcome=outcome, root=job.root.search
            )
        ):
            return None
        return Done(0, found.result.stdout, found.result.stderr)

    def take(
        self, job: RemoteJob, plan: RemotePlan, outcome: RemoteResult, compiled: FarmCompile
    ) -> Done:
        """See `client.ClientResults.take`."""
        if (times := job.prepared.request.times) is not None:
            add_phases(times, compiled.moments, outcome.ran)
        missed = self._results.why_missed(job.key)
        try:
            result = _client_result(job.prepared, plan, outcome, self._depfiles)
        except (KeyError, CallerError) as error:
            raise BadResultError from error
        if b"missing-include-dirs" in result.stderr and warns_of_missing_directories(
            job.prepared.invocation
        ):
            raise NotPortableError(FallbackReason.MISSING_INCLUDE_DIRS, "the image lacks one")
        is_whole = job.root.is_found or plan.guest.shown != RELATIVE
        may_name = is_whole or plan.guest.base != GUEST_ROOT or plan.guest.build
        if may_name and (name := _guest_name(result, plan)):
            raise NotPortableError(FallbackReason.NAMES_IN_OUTPUT, name)
        if names_a_place(result.object_data):
            raise NotPortableError(FallbackReason.OPENMP_TARGET)
        if job.prepared.family.analyser is not None:
            check_report(job.prepared, plan.guest, result.stdout + result.stderr)
        if not self._hits.put_new(job.prepared, result):
            raise OutputNotOursError("an output file is one hpcc does not replace")
        if plan.may_keep():
            self._results.keep(job.key, plan.closure, result)
        else:
            self._counters.add(f"uncacheable.{UncacheableReason.MODIFIED_DURING_COMPILE}")
        self._records.compiled(
            job.prepared,
            compiled.outcome,
            key=job.key,
            started_ns=compiled.started_ns,
            image=compiled.image,
            action=compiled.action,
            root=job.root.text,
            reason=missed,
            size_bytes=result.size_bytes,
            ran=outcome.ran,
        )
        return Done(0, result.stdout, result.stderr)

    def failed(self, job: RemoteJob, plan: RemotePlan, outcome: RemoteResult) -> Done:
        """See `client.ClientResults.failed`."""
        del job
        text = plan.guest.text
        return Done(outcome.exit_code, text(outcome.stdout), text(outcome.stderr))

    def fell_back(self, reason: str) -> None:
        """See `client.ClientResults.fell_back`."""
        self._records.fell_back(reason)


def _replayed(prepared: Prepared) -> Prepared:
    """Return what a replay is remembered for: no analyser, since no replay compares headers."""
    is_report = prepared.family.analyser is not None
    return replace(prepared, replay_ok=False) if is_report else prepared


def _client_result(
    prepared: Prepared, plan: RemotePlan, outcome: RemoteResult, depfiles: Depfiles
) -> Result:
    outputs = {o.path: o.data for o in outcome.outputs}
    names = plan.request.outputs
    depfile: bytes | None = None
    if prepared.invocation.depfile is not None:
        depfile = depfiles.of(outputs[names[1]], plan.guest)
    further = names[len(names) - len(prepared.written.side) :]
    return Result(
        b"" if prepared.output is None else plan.guest.output(outputs[names[0]]),
        depfile,
        _client_stdout(prepared, outcome.stdout, plan.guest),
        plan.guest.text(outcome.stderr),
        tuple(client_side(name, outputs[name], plan.guest) for name in further),
        basis_origin(outcome.basis) if outcome.basis else b"",
    )


def _guest_name(result: Result, plan: RemotePlan) -> str:
    """Return a path of the guest in an output that should have this machine's; "" without one."""
    tops = {item.path.partition("/")[0].encode() for item in plan.request.inputs}
    tops.add(plan.request.cwd.partition("/")[0].encode())
    for data in (result.object_data, *result.side):
        if plan.guest.build and BUILD_NAME in data:
            return BUILD_NAME.decode()
        for match in _GUEST_NAME.finditer(data):
            if match[1] in tops:
                return match[0].decode("utf-8", "replace")
    return ""


def _client_stdout(prepared: Prepared, text: bytes, guest: GuestMap) -> bytes:
    """Return a guest's stdout with the paths that a local compile would print."""
    own = guest.root.rstrip(b"/") + b"/"

    def is_here(name: bytes) -> bool:
        is_own = not name.startswith(b"/") or name.startswith(own)
        return is_own or os.path.exists(absolute(prepared.cwd, name))

    return prepared.family.client_stdout(prepared.invocation, guest.text(text), is_here)
