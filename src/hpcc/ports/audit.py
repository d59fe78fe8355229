"""The audit trail from the worker's side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One remote compile or remote hit. Digests are `HASH/SIZE` or `sha256:…`; times are UTC.

    `row_id` is unique. `started_at` is seconds since the epoch. `cache_status` is "executed",
    "hit", "joined" for a result of another call's execution, "abandoned" for a compile that started
    in a guest and gave no result, "verify" for a result made again by an idle worker, "explain" for
    a question about a result, or "pack" for one that a client took from a build pack. `outputs` are
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
    # Absent in rows that were written by older versions.
    vmm_version: str = ""
    jailer_digest: str = ""
    snapshot_digest: str = ""
    kernel_command_line: str = ""
    vmm_jail: str = ""
    # "fresh" or "agreed(N)": why the result serves the whole tenant. Empty: its trust domain only.
    sharing: str = ""
    # How many arguments at the end of the command `argv` does not have, because they are too long.
    argv_omitted: int = 0
    # The foreign engine that gave the work, and its lease; empty for hpcc's own clients.
    engine: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEvent:
    """A refusal or an anomaly: a stable name, no secret and no source text in `fields`.

    `peer` is the caller's address. `request_id` names the call, and the caller got it with its
    error. Both are empty if there was no call.
    """

    name: str
    at: float
    tenant: str = ""
    fields: tuple[tuple[str, str], ...] = field(default=())
    # Absent in events that were written by older versions.
    peer: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """Where a chain ended at a time, signed by its writer: docs/spec/audit.md, Heads.

    The chain has `count` records up to `head`, the last one's hash in hex. `at` is seconds since
    the epoch. `key` and `signature` are Ed25519, 32 and 64 bytes, and not checked here.
    """

    worker: str
    count: int
    head: str
    at: float
    key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class TreeMark:
    """A size and the root of a tree over a trail, as a scheduler holds them."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTree:
    """A signed head of the tree over a worker's trail, and the proof that it contains `after`.

    `checkpoint` is a C2SP checkpoint: docs/spec/audit.md, Trees. `key` is the worker's (Ed25519).
    Nothing is checked here.
    """

    worker: str
    checkpoint: bytes
    key: bytes
    after: TreeMark | None = None
    proof: tuple[bytes, ...] = ()


class AuditLog(Protocol):
    """Append-only. A row is durable when `append` returns."""

    async def append(self, row: AuditRow) -> None:
        """Write the row durably. It may be grouped with others, but must be durable on return.

        Raises:
            InfrastructureError: it could not be made durable; the result must not be released.
        """
        ...

    async def event(self, event: SecurityEvent) -> None:
        """Record a security event. If the disk is full it is counted, and nothing is raised."""
        ...

    def require_room(self, tenant: str = "") -> None:
        """Check, before work of a tenant is accepted, that its row could be stored.

        Raises:
            InfrastructureError: reason `audit-full`: accept no work until there is room again.
                Reason `audit-share`: accept none of this tenant.
        """
        ...
