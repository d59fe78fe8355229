"""Builds the audit rows of executions, hits and joins; only this module sets their fields."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from hpcc.core import Digest, TenantId
from hpcc.ports import AuditRow
from hpcc.reapi.result import ResultRecord
from hpcc.rpc.reapi.session import Client

# An entry may be older than these fields.
_NEWER: Final = frozenset({"snapshot_digest", "kernel_command_line", "vmm_jail"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a hit's row repeats from the execution that made the result."""

    input_root_digest: str
    argv: tuple[str, ...]
    argv_digest: str
    env_digest: str
    kernel_digest: str
    vmm_digest: str
    vmm_version: str
    jailer_digest: str
    agent_digest: str
    warden: str
    injected_flags: tuple[str, ...]
    working_directory: str
    snapshot_digest: str = ""
    kernel_command_line: str = ""
    vmm_jail: str = ""

    @classmethod
    def of(cls, table: Mapping[str, object]) -> Lineage:
        """Read the JSON form of `asdict`.

        Raises:
            ValueError: fields are missing or have another type.
        """
        if set(table) | _NEWER != {f.name for f in fields(cls)}:
            raise ValueError("other fields")
        return cls(
            input_root_digest=_text(table["input_root_digest"]),
            argv=_texts(table["argv"]),
            argv_digest=_text(table["argv_digest"]),
            env_digest=_text(table["env_digest"]),
            kernel_digest=_text(table["kernel_digest"]),
            vmm_digest=_text(table["vmm_digest"]),
            vmm_version=_text(table["vmm_version"]),
            jailer_digest=_text(table["jailer_digest"]),
            agent_digest=_text(table["agent_digest"]),
            warden=_text(table["warden"]),
            injected_flags=_texts(table["injected_flags"]),
            working_directory=_text(table["working_directory"]),
            **{name: _text(table.get(name, "")) for name in _NEWER},
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004 - one error type for every malformed entry
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("not a list")  # noqa: TRY004 - as above
    return tuple(_text(v) for v in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """The result of an execution, with everything that its audit rows need."""

    action: Digest
    result: bytes
    record: ResultRecord
    lineage: Lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller, from token and request metadata."""

    tenant: TenantId
    principal: str
    build_id: str
    client_version: str

    @classmethod
    def of(cls, client: Client, tenant: TenantId, principal: str, version: str) -> Caller:
        return cls(
            tenant=tenant,
            principal=principal,
            build_id=client.build_id,
            client_version=client.tool or version,
        )


def audit_row(
    record: ResultRecord,
    lineage: Lineage,
    *,
    action: Digest,
    who: Caller,
    status: str,
    scheduler: str,
    started_at: float,
    ended_at: float,
) -> AuditRow:
    """Build a row. `status` is as in `AuditRow`; hits and joins repeat the execution's guest.

    `started_at` and `ended_at` are seconds since the epoch.
    """
    return AuditRow(
        row_id=uuid.uuid4().hex,
        started_at=started_at,
        duration_seconds=max(ended_at - started_at, 0.0),
        tenant=who.tenant.value,
        principal=who.principal,
        build_id=who.build_id,
        action_digest=str(action),
        image_digest=record.image,
        input_root_digest=lineage.input_root_digest,
        argv=lineage.argv,
        argv_digest=lineage.argv_digest,
        env_digest=lineage.env_digest,
        outputs=tuple(
            (posixpath.normpath(posixpath.join(lineage.working_directory, o.path)), str(o.digest))
            for o in record.outputs
        ),
        exit_code=record.exit_code,
        cache_status=status,
        worker=record.worker,
        guest_id=record.guest_id,
        guest_execs_before=record.guest_execs_before,
        reuse=record.reuse.value,
        isolation=record.isolation.value,
        warden=lineage.warden,
        kernel_digest=lineage.kernel_digest,
        vmm_digest=lineage.vmm_digest,
        vmm_version=lineage.vmm_version,
        jailer_digest=lineage.jailer_digest,
        snapshot_digest=lineage.snapshot_digest,
        kernel_command_line=lineage.kernel_command_line,
        vmm_jail=lineage.vmm_jail,
        agent_digest=lineage.agent_digest,
        injected_flags=lineage.injected_flags,
        scheduler=scheduler,
        client_version=who.client_version,
        reason=record.reason,
        working_directory=lineage.working_directory,
        sharing=record.evidence.text if record.evidence else "",
    )
