"""What clients told this scheduler of their builds: in memory, bounded, and shared out fairly.

Problem: everybody with a session may report, and what is reported is a claim. The memory for it is
limited, and somebody who reports much must not push out what others reported.

Rule: a report counts for the person whose login brought it, and has at least the size of
`_LEAST_BYTES`, so that one budget in bytes also limits how many there are. A person has a limit. If
everything is full, the tenant that takes most loses a report: the oldest of its person who takes
most. Each loss is counted for its tenant.

Example: a job of acme's CI reports 10,000 builds with random names. It displaces its own builds
from 512 on. Those of ann of acme and of globex stay.

What must never happen: a report that is shown under another tenant or principal than its login
proved; a memory that grows with names; a person who takes another one's room in a tenant that
takes less.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hpcc.core import NotFoundError
from hpcc.core.build_summary import BuildSummary
from hpcc.core.memo import LruMemo
from hpcc.identity.session_token import SessionClaims
from hpcc.ports import Clock
from hpcc.rpc.base.errors import BusyError
from hpcc.rpc.scheduler.build_messages import encode_summary
from hpcc.rpc.scheduler.builds import (
    BUILDS_AT_ONCE,
    SOURCES_AT_ONCE,
    StoredBuild,
    StoredBuilds,
    StoredReports,
    build_id_of,
)
from hpcc.scheduler.base.build_limits import BuildLimits

_LEAST_BYTES: Final = 4 << 10
_SWEEP_SECONDS: Final = 60.0
# More people and tenants than report within a minute. A forgotten rate begins anew.
_MAX_RATES: Final = 4096


@dataclass(frozen=True, slots=True)
class _Report:
    """A report. `head` is the part that lists show, `encoded` the whole summary."""

    version: str
    at: float
    expires_at: float
    build_id: str
    head: bytes
    encoded: bytes

    @property
    def size_bytes(self) -> int:
        return max(len(self.encoded), _LEAST_BYTES)


@dataclass(slots=True)
class _Rate:
    allowance: float
    at: float


_Person = tuple[str, str]
_Key = tuple[str, str]


class BuildStore:
    """Keeps builds. One event loop uses it."""

    def __init__(
        self, clock: Clock, limits: BuildLimits | None = None, *, is_proved: bool = True
    ) -> None:
        """Keep nothing if the limits give no room (`builds_mib = 0`).

        `is_proved`: logins prove who somebody is.
        """
        self._clock, self._limits, self._is_proved = clock, limits or BuildLimits(), is_proved
        self._since = clock.now()
        # By person, the oldest report first; a report is named by its build and its source.
        self._people: dict[_Person, OrderedDict[_Key, _Report]] = {}
        self._person_bytes, self._tenant_bytes = Counter[_Person](), Counter[str]()
        self._total_bytes, self._swept_at = 0, float("-inf")
        self._displaced = Counter[str]()
        self._rates: LruMemo[tuple[str, ...], _Rate] = LruMemo(_MAX_RATES)

    @property
    def is_off(self) -> bool:
        """Whether nothing is kept here."""
        return self._limits.total_bytes < _LEAST_BYTES

    def check_rate(self, session: SessionClaims) -> None:
        """Count a report that somebody is about to make.

        Raises:
            NotFoundError: nothing is kept here.
            BusyError: the person or the tenant reports too often.
        """
        if self.is_off:
            raise NotFoundError("this farm keeps no builds", reason="builds-off")
        limits = self._limits
        rates = limits.person_per_second, limits.tenant_per_second
        self._check(session, "report", rates, "builds are reported too often")

    def check_look(self, session: SessionClaims) -> None:
        """Count a look at builds.

        Raises:
            BusyError: the person or the tenant looks too often.
        """
        limits = self._limits
        rates = limits.person_looks_per_second, limits.tenant_looks_per_second
        self._check(session, "look", rates, "builds are looked at too often")

    def _check(
        self, session: SessionClaims, what: str, rates: tuple[float, float], refusal: str
    ) -> None:
        # The person first: who is refused takes nothing of the tenant's rate.
        for key, per_second in (
            ((what, session.tenant, session.principal), rates[0]),
            ((what, session.tenant), rates[1]),
        ):
            if not self._is_allowed(key, per_second):
                raise BusyError(
                    refusal, retry_after_seconds=self._limits.burst_seconds, reason="build-rate"
                )

    def put(self, session: SessionClaims, summary: BuildSummary) -> None:
        """Keep a report, in the place of an earlier one of the same source; make room for it."""
        self._sweep()
        person, key = (session.tenant, session.principal), (summary.build, summary.source)
        now = self._clock.monotonic()
        report = _Report(
            session.client_version, self._clock.now(), now + self._limits.keep_seconds,
            build_id_of(*person, summary.build), encode_summary(summary.head()),
            encode_summary(summary),
        )  # fmt: skip
        self._drop(person, key)
        self._people.setdefault(person, OrderedDict())[key] = report
        self._count(person, report.size_bytes)
        while self._person_bytes[person] > self._limits.person_bytes:
            self._displace(person)
        while self._total_bytes > self._limits.total_bytes:
            tenant = max(self._tenant_bytes, key=self._tenant_bytes.__getitem__)
            people = (p for p in self._people if p[0] == tenant)
            self._displace(max(people, key=self._person_bytes.__getitem__))

    def heads(self, only: str | None) -> StoredBuilds:
        """Return the last reports of a tenant, or of all for None, without their details."""
        self._sweep()
        found = [
            (report, person)
            for person, reports in self._visible(only)
            for report in reports.values()
        ]
        found.sort(key=lambda pair: pair[0].at, reverse=True)
        displaced = self._displaced.total() if only is None else self._displaced[only]
        return StoredBuilds(
            builds=tuple(self._stored(r, p, r.head) for r, p in found[:BUILDS_AT_ONCE]),
            since=self._since,
            displaced=displaced,
            kept=len(found),
            keep_seconds=0 if self.is_off else self._limits.keep_seconds,
        )

    def reports(self, only: str | None, build_id: str) -> StoredReports:
        """Return the last reports of a build of a tenant, or of any for None, the last one first.

        Raises:
            NotFoundError: there is none. It is the same error if another tenant has it.
        """
        self._sweep()
        found = [
            (report, person)
            for person, reports in self._visible(only)
            for report in reports.values()
            if report.build_id == build_id
        ]
        if not found:
            raise NotFoundError("no build of this id is known here", reason="no-build")
        found.sort(key=lambda pair: pair[0].at, reverse=True)
        return StoredReports(
            reports=tuple(self._stored(r, p, r.encoded) for r, p in found[:SOURCES_AT_ONCE]),
            kept=len(found),
        )

    def kept(self) -> int:
        """Return how many reports there are."""
        return sum(map(len, self._people.values()))

    def displaced(self) -> dict[str, int]:
        """Return by tenant how many reports made room for others."""
        return dict(self._displaced)

    def _visible(self, only: str | None) -> Iterator[tuple[_Person, OrderedDict[_Key, _Report]]]:
        for person, reports in self._people.items():
            if only in {None, person[0]}:
                yield person, reports

    def _is_allowed(self, key: tuple[str, ...], per_second: float) -> bool:
        now, most = self._clock.monotonic(), per_second * self._limits.burst_seconds
        rate = self._rates.use(key)
        if rate is None:
            rate = self._rates[key] = _Rate(most, now)
        rate.allowance = min(rate.allowance + (now - rate.at) * per_second, most)
        rate.at = now
        if rate.allowance < 1:
            return False
        rate.allowance -= 1
        return True

    def _displace(self, person: _Person) -> None:
        self._drop(person, next(iter(self._people[person])))
        self._displaced[person[0]] += 1

    def _drop(self, person: _Person, key: _Key) -> None:
        reports = self._people.get(person)
        report = None if reports is None else reports.pop(key, None)
        if reports is None or report is None:
            return
        self._count(person, -report.size_bytes)
        if not reports:
            del self._people[person]

    def _count(self, person: _Person, size: int) -> None:
        self._total_bytes += size
        self._person_bytes[person] += size
        self._tenant_bytes[person[0]] += size
        # A name stays in the counts only as long as it has something there.
        if not self._person_bytes[person]:
            del self._person_bytes[person]
        if not self._tenant_bytes[person[0]]:
            del self._tenant_bytes[person[0]]

    def _sweep(self) -> None:
        """Drop what is too old."""
        now = self._clock.monotonic()
        if now - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = now
        for person, reports in list(self._people.items()):
            for key in [k for k, r in reports.items() if r.expires_at <= now]:
                self._drop(person, key)

    def _stored(self, report: _Report, person: _Person, encoded: bytes) -> StoredBuild:
        return StoredBuild(
            build_id=report.build_id, tenant=person[0], principal=person[1],
            client_version=report.version, reported_at=report.at, encoded=encoded,
            is_proved=self._is_proved,
        )  # fmt: skip
