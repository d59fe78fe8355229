"""The audit trail as the worker sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One remote compile or remote hit. Digests are `HASH/SIZE` or `sha256:…`; times UTC.

    `row_id` is unique; `started_at` is seconds since the epoch; `cache_status` is "executed",
    "hit", "joined" for a result that another call had under way, or "abandoned" for a compile
    that started in a guest and gave no result. `outputs` are
    (root-relative path, digest). Field meanings: docs/spec/audit.md.
    """

    row_id: str
    started_at: float
    duration_seconds: float
    tenant: str
    principal: str
    build_id: str
    action_digest: str
    image_digest: str
    input_root_digest: str
    argv: tuple[str, ...]
    argv_digest: str
    working_directory: str
    env_digest: str
    outputs: tuple[tuple[str, str], ...]
    exit_code: int
    cache_status: str
    worker: str
    guest_id: str
    guest_execs_before: int
    reuse: str
    isolation: str
    warden: str
    kernel_digest: str
    vmm_digest: str
    agent_digest: str
    injected_flags: tuple[str, ...]
    scheduler: str
    client_version: str
    reason: str = ""
    # Absent in rows that were written before they existed.
    vmm_version: str = ""
    jailer_digest: str = ""
    snapshot_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEvent:
    """A refusal or an anomaly: stable name, no secret and no source text in `fields`.

    `peer` is the address that called, `request_id` the name of the call that the caller was
    told with its error; empty where nobody called.
    """

    name: str
    at: float
    tenant: str = ""
    fields: tuple[tuple[str, str], ...] = field(default=())
    # Absent in events that were written before they existed.
    peer: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """Where a chain ended at a time, signed by its writer: docs/spec/audit.md, Heads.

    `count` records up to `head`, the last one's hash in hex; `at` seconds since the epoch;
    `key` and `signature` are Ed25519, 32 and 64 bytes. Nothing here says that it is good.
    """

    worker: str
    count: int
    head: str
    at: float
    key: bytes
    signature: bytes


class AuditLog(Protocol):
    """Append-only. A row is durable when `append` returns."""

    async def append(self, row: AuditRow) -> None:
        """Write the row durably (group commit is allowed, returning early is not).

        Raises:
            InfrastructureError: it could not be made durable; the result must not be released.
        """
        ...

    async def event(self, event: SecurityEvent) -> None:
        """Record a security event; never raises for a full disk, but counts it."""
        ...

    def require_room(self) -> None:
        """Ask before work is taken whether its row could be kept.

        Raises:
            InfrastructureError: reason `audit-full`: no new work until there is room again.
        """
        ...
