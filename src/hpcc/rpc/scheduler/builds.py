"""Builds that clients told the farm of: the values, the handlers, the calls.

A client reports to one scheduler, which keeps the report in its memory. So who looks asks all of
them and merges: reports of one source by their age, sources of one build by adding up.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc._proto import builds_pb2 as pb
from hpcc.core import CallerError, HpccError, NotFoundError, TenantId
from hpcc.core.build_merge import merged
from hpcc.core.build_summary import BuildSummary
from hpcc.obs.text import one_line
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.base.method import Call, Method
from hpcc.rpc.scheduler.build_messages import decode_summary, summary_message, summary_of
from hpcc.rpc.scheduler.schedulers import Schedulers

BUILDS_AT_ONCE: Final = 500
SOURCES_AT_ONCE: Final = 64
BUILD_ID: Final = re.compile(r"[0-9a-f]{32}")
_MAX_PRINCIPAL_CHARS: Final = 128
_MAX_AT: Final = float(1 << 33)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBuild:
    """A report as a scheduler has it: tenant and principal are proved, the summary is a claim.

    `reported_at` is the scheduler's time, in seconds since the epoch. In a farm with one static
    secret `is_proved` is false, and the principal is a claim, too.
    """

    tenant: str
    principal: str
    client_version: str
    reported_at: float
    summary: BuildSummary
    is_proved: bool = True

    @property
    def build_id(self) -> str:
        """Return by what an address names the build: 32 hex digits."""
        return build_id_of(self.tenant, self.principal, self.summary.build)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBuild:
    """The same at the scheduler, where the summary stays encoded: to show it costs no check."""

    build_id: str
    tenant: str
    principal: str
    client_version: str
    reported_at: float
    encoded: bytes
    is_proved: bool = True

    @property
    def summary(self) -> BuildSummary:
        """Return the decoded summary."""
        return decode_summary(self.encoded)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBuilds:
    """What a scheduler answers for a list; the fields are those of `KeptBuilds`."""

    builds: tuple[StoredBuild, ...]
    since: float
    displaced: int
    kept: int
    keep_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReports:
    """What a scheduler answers for one build: its last reports, of `kept`."""

    reports: tuple[StoredBuild, ...]
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBuilds:
    """The last reports that somebody may see, the newest first; `kept` is how many there are.

    Nothing is known from before `since`. `displaced` reports made room for newer ones. With 0
    `keep_seconds` the farm keeps none. `silent` schedulers showed nothing: their builds lack.
    """

    builds: tuple[KeptBuild, ...] = ()
    since: float = 0.0
    displaced: int = 0
    kept: int = 0
    keep_seconds: int = 0
    silent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmBuild:
    """One build of one principal, put together from the reports of its sources.

    `left_out` older reports are kept and not here, `silent` schedulers showed nothing: the sums
    lack what these have.
    """

    build_id: str
    reports: tuple[KeptBuild, ...]
    left_out: int = 0
    silent: int = 0

    @property
    def last(self) -> KeptBuild:
        """Return the last report."""
        return self.reports[0]

    @property
    def summary(self) -> BuildSummary:
        """Return what all sources together counted."""
        return merged([report.summary for report in self.reports])


class BuildBackend(Protocol):
    """Keeps builds. `credential` is the bearer as sent."""

    def report_build(
        self, credential: str, tenant: TenantId, read: Callable[[], BuildSummary]
    ) -> None:
        """Keep what a client tells of its build; `read` returns it, or raises CallerError.

        Raises:
            BusyError: the principal reports too often.
            NotFoundError: no builds are kept here (reason `builds-off`).
            HpccError: the session does not count, or the summary is outside its bounds.
        """
        ...

    def builds(self, credential: str, tenant: TenantId) -> StoredBuilds:
        """Return heads of the builds that the session's holder may see.

        Raises:
            BusyError: the principal asks too often.
            HpccError: the session does not count.
        """
        ...

    def build(self, credential: str, tenant: TenantId, build_id: str) -> StoredReports:
        """Return the last reports of one build.

        Raises:
            NotFoundError: there is none that the session's holder may see.
            BusyError: the principal asks too often.
            HpccError: the session does not count.
        """
        ...


def build_id_of(tenant: str, principal: str, build: str) -> str:
    """Return the id of a principal's build."""
    text = f"{tenant}\0{principal}\0{build}".encode("utf-8", "replace")
    return hashlib.sha256(text).hexdigest()[:32]


def build_methods(backend: BuildBackend) -> tuple[Method, ...]:
    """Return the methods about builds, which are served as a part of ObserveService."""

    async def report(request: pb.ReportBuildRequest, call: Call) -> pb.ReportBuildResponse:
        tenant = TenantId(request.tenant)
        backend.report_build(call.credential, tenant, lambda: summary_of(request.summary))
        return pb.ReportBuildResponse()

    async def builds(request: pb.BuildsRequest, call: Call) -> pb.BuildsResponse:
        found = backend.builds(call.credential, TenantId(request.tenant))
        return pb.BuildsResponse(
            builds=map(_stored_message, found.builds[:BUILDS_AT_ONCE]), since=found.since,
            displaced=found.displaced, kept=found.kept, keep_seconds=found.keep_seconds,
        )  # fmt: skip

    async def build(request: pb.BuildRequest, call: Call) -> pb.BuildResponse:
        if not BUILD_ID.fullmatch(request.build_id):
            raise CallerError("a build's id is 32 hex digits", reason="build-id")
        found = backend.build(call.credential, TenantId(request.tenant), request.build_id)
        return pb.BuildResponse(
            reports=map(_stored_message, found.reports[:SOURCES_AT_ONCE]), kept=found.kept
        )

    return (
        Method("ReportBuild", pb.ReportBuildRequest, pb.ReportBuildResponse, unary=report),
        Method("Builds", pb.BuildsRequest, pb.BuildsResponse, unary=builds),
        Method("Build", pb.BuildRequest, pb.BuildResponse, unary=build),
    )


async def send_build(
    schedulers: Schedulers, session: str, tenant: TenantId, summary: BuildSummary
) -> None:
    """Tell a scheduler of a build.

    Raises:
        HpccError: no scheduler took it.
    """
    request = pb.ReportBuildRequest(tenant=tenant.value, summary=summary_message(summary))
    await schedulers.call("ObserveService/ReportBuild", request, pb.ReportBuildResponse, session)


async def ask_builds(schedulers: Schedulers, session: str, tenant: TenantId) -> KeptBuilds:
    """Ask every scheduler for builds, and return one list: a head for each source of a build.

    Raises:
        HpccError: no scheduler shows any; the first one's error.
    """

    async def ask(scheduler: Schedulers) -> KeptBuilds | HpccError:
        try:
            answer = await scheduler.call(
                "ObserveService/Builds",
                pb.BuildsRequest(tenant=tenant.value),
                pb.BuildsResponse,
                session,
            )
            return _kept_builds(answer)
        except HpccError as error:
            return error

    answers = await _each(schedulers, ask)
    found = _answered(answers)
    keeping = [one for one in found if one.keep_seconds] or found
    builds = newest(build for one in found for build in one.builds)
    return KeptBuilds(
        builds=builds,
        # What one scheduler knows from then on, another may not.
        since=max(one.since for one in keeping),
        displaced=sum(one.displaced for one in found),
        kept=len(builds) + sum(max(one.kept - len(one.builds), 0) for one in found),
        keep_seconds=min(one.keep_seconds for one in keeping),
        silent=len(answers) - len(found),
    )


async def ask_build(
    schedulers: Schedulers, session: str, tenant: TenantId, build_id: str
) -> FarmBuild:
    """Ask every scheduler for one build.

    Raises:
        NotFoundError: none of them shows it to the caller.
        HpccError: none of them answers.
    """

    async def ask(scheduler: Schedulers) -> tuple[tuple[KeptBuild, ...], int] | HpccError:
        try:
            answer = await scheduler.call(
                "ObserveService/Build",
                pb.BuildRequest(tenant=tenant.value, build_id=build_id),
                pb.BuildResponse,
                session,
            )
            if len(answer.reports) > SOURCES_AT_ONCE:
                raise UnavailableError("a scheduler shows too much at once", reason="bad-status")
            left_out = max(answer.kept - len(answer.reports), 0)
            return tuple(map(_kept, answer.reports)), left_out
        except NotFoundError:
            return (), 0
        except HpccError as error:
            return error

    answers = await _each(schedulers, ask)
    found = _answered(answers)
    silent = len(answers) - len(found)
    # An answer to another question is dropped.
    reports = newest(r for one, _ in found for r in one if r.build_id == build_id)
    if not reports:
        knowing = f"the farm; {silent} schedulers showed nothing" if silent else "the farm"
        raise NotFoundError(f"no build of this id is known to {knowing}", reason="no-build")
    left_out = sum(more for _, more in found)
    return FarmBuild(build_id=build_id, reports=reports, left_out=left_out, silent=silent)


def by_build(reports: Iterable[KeptBuild]) -> tuple[FarmBuild, ...]:
    """Put the reports of each build together, in the order of their last ones."""
    found: dict[str, list[KeptBuild]] = {}
    for report in reports:
        found.setdefault(report.build_id, []).append(report)
    return tuple(FarmBuild(build_id=i, reports=tuple(each)) for i, each in found.items())


def newest(reports: Iterable[KeptBuild]) -> tuple[KeptBuild, ...]:
    """Return the last report of each source of each build, the last one first.

    A client that lost its scheduler has told another one more of the same build. A recorder only
    adds, so the report with more compiles is the later one, whatever clocks say.
    """
    found: dict[tuple[str, str], KeptBuild] = {}
    for report in reports:
        key = report.build_id, report.summary.source
        known = found.get(key)
        if known is None or _age(report) > _age(known):
            found[key] = report
    return tuple(sorted(found.values(), key=lambda r: r.reported_at, reverse=True))


def _age(report: KeptBuild) -> tuple[int, int, float]:
    summary = report.summary
    return summary.compiles + summary.left_out, summary.ended_ms, report.reported_at


async def _each[T](
    schedulers: Schedulers, ask: Callable[[Schedulers], Coroutine[None, None, T | HpccError]]
) -> list[T | HpccError]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(one)) for one in schedulers.each()]
    return [task.result() for task in tasks]


def _answered[T](answers: Sequence[T | HpccError]) -> list[T]:
    """Return the answers; raise the first error if there is none, a refusal before a silence."""
    found = [answer for answer in answers if not isinstance(answer, HpccError)]
    if not found:
        errors = [answer for answer in answers if isinstance(answer, HpccError)]
        raise next((e for e in errors if not isinstance(e, UnavailableError)), errors[0])
    return found


def _kept_builds(answer: pb.BuildsResponse) -> KeptBuilds:
    if len(answer.builds) > BUILDS_AT_ONCE:
        raise UnavailableError("a scheduler shows too much at once", reason="bad-status")
    return KeptBuilds(
        builds=tuple(map(_kept, answer.builds)),
        since=_time(answer.since),
        displaced=answer.displaced,
        kept=answer.kept,
        keep_seconds=answer.keep_seconds,
    )


def _kept(said: pb.KeptBuild) -> KeptBuild:
    try:
        summary, tenant = summary_of(said.summary), TenantId(said.tenant).value
    except CallerError as error:
        raise UnavailableError(f"a scheduler's build: {error}", reason="bad-status") from error
    return KeptBuild(
        tenant=tenant,
        # As it is: it is a part of the id. What shows it escapes it.
        principal=said.principal[:_MAX_PRINCIPAL_CHARS],
        client_version=one_line(said.client_version[:64]),
        reported_at=_time(said.reported_at),
        summary=summary,
        is_proved=said.is_proved,
    )


def _stored_message(stored: StoredBuild) -> pb.KeptBuild:
    return pb.KeptBuild(
        build_id=stored.build_id,
        tenant=stored.tenant,
        principal=stored.principal,
        client_version=stored.client_version,
        reported_at=stored.reported_at,
        summary=pb.BuildSummary.FromString(stored.encoded),
        is_proved=stored.is_proved,
    )


def _time(seconds: float) -> float:
    return min(max(seconds, 0.0), _MAX_AT) if math.isfinite(seconds) else 0.0
