"""Answers the calls of `ObserveService`: finds the session of each, and asks who may see what.

Tenant and principal come from the session, which a login has proved, and from nothing that a call
says. A member gets its tenant's builds, an operator all.
"""

from __future__ import annotations

from collections.abc import Callable

from hpcc.core import TenantId
from hpcc.core.build_summary import BuildSummary
from hpcc.identity.session_token import SessionClaims
from hpcc.routing.load import LoadSample
from hpcc.rpc.scheduler.builds import StoredBuilds, StoredReports
from hpcc.rpc.scheduler.observe import FarmStatus
from hpcc.rpc.scheduler.recent_events import SeenEvents
from hpcc.rpc.scheduler.worker_detail import WorkerDetail
from hpcc.scheduler.base.build_store import BuildStore
from hpcc.scheduler.base.metrics import SchedulerMetrics
from hpcc.scheduler.observe import Observer
from hpcc.scheduler.tenants.sessions import Sessions


class ObserveCalls:
    """`ObserveBackend`. Each call raises for a session that does not count, as `Sessions.find`."""

    def __init__(
        self, sessions: Sessions, observer: Observer, builds: BuildStore, metrics: SchedulerMetrics
    ) -> None:
        self._sessions, self._observer, self._builds = sessions, observer, builds
        self._metrics = metrics
        metrics.read_builds(kept=builds.kept, displaced=builds.displaced)

    def judge(self, credential: str) -> None:
        """Check that a credential is a session that counts."""
        self._sessions.check(credential)

    def status(self, credential: str, tenant: TenantId, after_worker: str) -> FarmStatus:
        """See `Observer.status`."""
        return self._observer.status(self._holder(credential, tenant), after_worker)

    def history(self, credential: str, tenant: TenantId) -> tuple[LoadSample, ...]:
        """See `Observer.history`."""
        return self._observer.history(self._holder(credential, tenant))

    def events(self, credential: str, tenant: TenantId) -> SeenEvents:
        """See `Observer.events`."""
        return self._observer.events(self._holder(credential, tenant))

    def worker(self, credential: str, tenant: TenantId, worker_id: str) -> WorkerDetail:
        """See `Observer.worker`."""
        return self._observer.worker(self._holder(credential, tenant), worker_id)

    def report_build(
        self, credential: str, tenant: TenantId, read: Callable[[], BuildSummary]
    ) -> None:
        """Keep what the session's holder tells of a build; see `BuildStore`."""
        session = self._holder(credential, tenant)
        with self._metrics.build_report(session.tenant):
            self._builds.check_rate(session)
            self._builds.put(session, read())

    def builds(self, credential: str, tenant: TenantId) -> StoredBuilds:
        """Return heads of the builds that the session's holder may see."""
        session = self._holder(credential, tenant)
        self._builds.check_look(session)
        return self._builds.heads(self._only(session))

    def build(self, credential: str, tenant: TenantId, build_id: str) -> StoredReports:
        """Return the last reports of one build that the session's holder may see."""
        session = self._holder(credential, tenant)
        self._builds.check_look(session)
        return self._builds.reports(self._only(session), build_id)

    def _holder(self, credential: str, tenant: TenantId) -> SessionClaims:
        return self._sessions.find(credential, tenant)[0]

    def _only(self, session: SessionClaims) -> str | None:
        """Return the tenant whose builds the holder may see; None for all."""
        is_operator = self._observer.is_operator(session.tenant, session.principal)
        return None if is_operator else session.tenant
