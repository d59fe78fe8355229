"""One picture of a farm from what each of its schedulers answered. Pure.

Each scheduler knows all workers, those that speak to it best, and only its own daemons.
So workers are taken from the scheduler that hears them, and daemons are added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from hpcc.core import HpccError
from hpcc.rpc.scheduler.observe import FarmStatus, RouteCount, TenantStatus, WorkerStatus

# The number of the JSON document. A reader refuses others.
FORMAT: Final = 1
Health = Literal["healthy", "degraded", "down"]
EXIT_CODES: Final[Mapping[Health, int]] = {"healthy": 0, "degraded": 1, "down": 2}


@dataclass(frozen=True, slots=True)
class FarmWarning:
    """What is wrong: a stable word, a sentence, what mends it, and the worker that it is about."""

    code: str
    text: str
    remedy: str
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmPicture:
    """The merged answers, and the document that is made of them."""

    tenant: str
    at: float
    # By address: an answer, or why there is none.
    answers: tuple[tuple[str, FarmStatus | HpccError], ...]

    @property
    def statuses(self) -> list[FarmStatus]:
        """The answers of the schedulers that gave one."""
        return [said for _, said in self.answers if isinstance(said, FarmStatus)]

    @property
    def farm_at(self) -> float:
        """The moment of the answers by the schedulers' clocks, the latest; without one by ours.

        Reports of builds have times of these clocks. This machine's may be hours behind or ahead.
        """
        return max((s.at for s in self.statuses if s.at > 0), default=self.at)

    @property
    def is_operator(self) -> bool:
        """Whether the whole farm is shown."""
        return any(status.is_operator for status in self.statuses)

    @property
    def workers(self) -> list[WorkerStatus]:
        """All workers by id, each as the scheduler that hears it shows it."""
        found: dict[str, WorkerStatus] = {}
        for status in self.statuses:
            for worker in status.workers:
                known = found.get(worker.worker_id)
                if known is None or (worker.is_heard and not known.is_heard):
                    found[worker.worker_id] = worker
        return [found[worker_id] for worker_id in sorted(found)]

    @property
    def serving(self) -> list[WorkerStatus]:
        """The workers that take compiles; empty for a member."""
        return [w for w in self.workers if not w.is_stale and not w.drain]

    @property
    def tenants(self) -> list[TenantStatus]:
        """All tenants that may be shown. Every scheduler knows all leased places."""
        found: dict[str, TenantStatus] = {}
        for status in self.statuses:
            for tenant in status.tenants:
                known = found.get(tenant.tenant, TenantStatus(tenant=tenant.tenant))
                found[tenant.tenant] = TenantStatus(
                    tenant=tenant.tenant,
                    daemons=known.daemons + tenant.daemons,
                    wanted=max(known.wanted, tenant.wanted),
                    granted=max(known.granted, tenant.granted),
                    principals=max(known.principals, tenant.principals),
                    routes=_added(known.routes, tenant.routes),
                )
        return [found[name] for name in sorted(found)]

    @property
    def live(self) -> int:
        """How many workers take work."""
        if self.is_operator:
            return len(self.serving)
        return max((s.live for s in self.statuses), default=0)

    @property
    def stale(self) -> int:
        """How many workers may be gone."""
        if self.is_operator:
            return sum(w.is_stale and not w.drain for w in self.workers)
        return min((s.stale for s in self.statuses), default=0)

    @property
    def draining(self) -> int:
        """How many workers take no compiles, because they are drained or end."""
        if self.is_operator:
            return sum(bool(w.drain) for w in self.workers)
        return max((s.draining for s in self.statuses), default=0)

    @property
    def has_room(self) -> bool:
        """Whether a scheduler knows a free place."""
        return any(s.has_room for s in self.statuses)

    @property
    def health(self) -> Health:
        """Whether all is well, something failed, or nobody serves."""
        if not self.statuses or not self.live:
            return "down"
        is_whole = len(self.statuses) == len(self.answers) and not self.stale
        is_whole = is_whole and len({s.scheduler_id for s in self.statuses}) == 1
        is_whole = is_whole and not any(_has_changed(w) for w in self.workers)
        return "healthy" if is_whole and all(s.is_store_up for s in self.statuses) else "degraded"

    @property
    def warnings(self) -> list[FarmWarning]:
        """What is wrong, with the command that mends it."""
        return [*self._scheduler_warnings(), *self._worker_warnings()]

    def _scheduler_warnings(self) -> list[FarmWarning]:
        found = [
            FarmWarning(
                "scheduler-silent",
                f"scheduler {address} gives no answer: {said}",
                "on its machine: systemctl status hpcc-scheduler",
            )
            for address, said in self.answers
            if isinstance(said, HpccError)
        ]
        found += [
            FarmWarning(
                "control-store",
                f"scheduler {address} cannot reach the control store; it routes from memory",
                "on its machine: journalctl -u hpcc-scheduler, and see to the database",
            )
            for address, said in self.answers
            if isinstance(said, FarmStatus) and not said.is_store_up
        ]
        if len({s.scheduler_id for s in self.statuses}) > 1:
            found.append(
                FarmWarning(
                    "several-farms",
                    "the schedulers are not of one farm",
                    "give all of them the same database",
                )
            )
        if len({s.version for s in self.statuses}) > 1:
            found.append(
                FarmWarning(
                    "several-versions",
                    "the schedulers run different versions",
                    "finish the upgrade (docs/operate.md#upgrades)",
                )
            )
        return found

    def _worker_warnings(self) -> list[FarmWarning]:
        found = []
        if self.statuses and not self.live:
            found.append(
                FarmWarning(
                    "no-worker",
                    "no worker takes work; compiles run on people's machines",
                    "on a worker: systemctl status hpcc-worker",
                )
            )
        elif self.statuses and not self.has_room:
            found.append(
                FarmWarning(
                    "no-room",
                    "every place is busy; further compiles wait or run on people's machines",
                    "add workers, or raise max_guests where memory allows",
                )
            )
        found += [
            FarmWarning(
                "worker-stale",
                f"worker {w.worker_id} ({w.endpoint}) has not reported for too long",
                "on its machine: systemctl status hpcc-worker",
                w.worker_id,
            )
            for w in self.workers
            if w.is_stale and not w.drain
        ]
        found += [
            FarmWarning(
                "worker-drained",
                f"worker {w.worker_id} takes no compiles: {_order(w)}",
                f"when its machine is ready again: hpcc scheduler drain-worker {w.worker_id}"
                " --undo",
                w.worker_id,
            )
            for w in self.workers
            if w.drain_by and not _has_changed(w)
        ]
        found += [
            FarmWarning(
                "audit-history-changed",
                f"the audit trail of worker {w.worker_id} is not the one that it was, so it gets no"
                f" work: {w.drain_reason}",
                "docs/runbook.md, hpccsecurityevent, has the steps; both heads: hpcc scheduler"
                f" audit-history {w.worker_id}",
                w.worker_id,
            )
            for w in self.workers
            if _has_changed(w)
        ]
        return found

    def document(self) -> dict[str, Any]:
        """Return what `hpcc farm status --json` prints; docs/spec/farm-status.md describes it."""
        workers: dict[str, Any] = {
            "live": self.live,
            "stale": self.stale,
            "draining": self.draining,
            "has_room": self.has_room,
        }
        if self.is_operator:
            live = self.serving
            workers["capacity"] = sum(w.capacity for w in live)
            workers["running"] = sum(min(w.running, w.capacity) for w in live)
            workers["queued"] = sum(w.queued for w in live)
            workers["list"] = [asdict(w) for w in self.workers]
        return {
            "format": FORMAT,
            "at": self.at,
            "health": self.health,
            "view": "operator" if self.is_operator else "tenant",
            "tenant": self.tenant,
            "schedulers": [_scheduler(address, said) for address, said in self.answers],
            "workers": workers,
            "tenants": [asdict(t) for t in self.tenants],
            "warnings": [asdict(w) for w in self.warnings],
        }


def picture_of(
    addresses: Sequence[str], answers: Sequence[FarmStatus | HpccError], *, tenant: str, at: float
) -> FarmPicture:
    """Return the picture of answers in the order of the addresses."""
    return FarmPicture(tenant=tenant, at=at, answers=tuple(zip(addresses, answers, strict=True)))


def _added(*parts: tuple[RouteCount, ...]) -> tuple[RouteCount, ...]:
    """Return counts by result, added up over schedulers: each counts what it was asked."""
    found = Counter[str]()
    for counts in parts:
        for one in counts:
            found[one.result] += one.count
    return tuple(RouteCount(*counted) for counted in sorted(found.items()))


def _has_changed(worker: WorkerStatus) -> bool:
    return worker.drain_reason.startswith("audit-history-changed: ")


def _order(worker: WorkerStatus) -> str:
    said = f" ({worker.drain_reason})" if worker.drain_reason else ""
    return f"{worker.drain_by} drains it{said}"


def _scheduler(address: str, said: FarmStatus | HpccError) -> dict[str, Any]:
    if isinstance(said, HpccError):
        return {"address": address, "answers": False, "error": str(said), "reason": said.reason}
    return {
        "address": address,
        "answers": True,
        "id": said.scheduler_id,
        "version": said.version,
        "is_store_up": said.is_store_up,
    }
