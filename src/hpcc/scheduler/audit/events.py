"""Records what a scheduler refuses as security events: who called, which call, and why."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message

from hpcc.audit.limiter import EventLimiter
from hpcc.core import CallerError, HpccError, IntegrityError, PolicyError, TenantId
from hpcc.rpc.base.method import Call

_WORKERS: Final = (
    "hpcc.v1.WorkerRegistryService",
    "hpcc.v1.WorkerEnrolmentService",
    "hpcc.v1.AuditService",
)
# Refusals of enrolment and of certificates use their reason as the event's name.
_NAMED: Final = frozenset(
    {
        "enrol-token-unknown", "enrol-token-expired", "enrol-token-replayed",
        "enrol-foreign-name", "enrol-name-taken", "foreign-worker", "worker-certificate-refused",
        "worker-certificate-expired", "worker-revoked",
    }
)  # fmt: skip


class RefusalEvents:
    """Called for every failed call; records those that a rule refused."""

    def __init__(self, events: EventLimiter) -> None:
        self._events = events

    async def __call__(self, call: Call, request: Message, error: HpccError) -> None:
        if not isinstance(error, PolicyError | IntegrityError):
            return  # malformed, absent or unavailable: the call broke no rule
        service, _, method = call.method.lstrip("/").partition("/")
        claimed = _tenant(getattr(request, "tenant", ""))
        reason = ("reason", error.reason)
        if service in _WORKERS:
            worker = ("worker", _label(getattr(request, "worker_id", "")))
            await self._worker(call, error, reason, worker)
        elif error.reason == "foreign-tenant":
            await self._record("foreign-tenant", "", call, reason, ("claimed", claimed))
        elif method == "Authenticate":
            await self._record("login-refused", "", call, reason, ("claimed", claimed))
        elif method == "Route" and error.reason != "session":
            # Ended sessions are normal for every daemon; with other reasons the session was valid.
            image = ("image", _label(getattr(request, "image", "")))
            await self._record("route-refused", claimed, call, reason, image)

    async def _worker(self, call: Call, error: HpccError, *fields: tuple[str, str]) -> None:
        if isinstance(error, IntegrityError):
            await self._record("audit-refused", "", call, *fields)
        elif error.reason in _NAMED:
            await self._record(error.reason, "", call, *fields)
        else:
            await self._record("worker-refused", "", call, *fields)

    async def _record(self, name: str, tenant: str, call: Call, *fields: tuple[str, str]) -> None:
        await self._events.event(name, tenant, *fields, peer=call.peer, request_id=call.request_id)


def _tenant(text: str) -> str:
    """Return a valid tenant name, else "": no other text of a caller is recorded."""
    try:
        return TenantId(text).value
    except CallerError:
        return ""


def _label(text: str) -> str:
    return "".join(c for c in text[:200] if c.isprintable())
