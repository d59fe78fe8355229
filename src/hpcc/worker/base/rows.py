"""Builds the audit rows of executions, hits and joins; only this module sets their fields.

A tenant chooses command and names of outputs, and each hit repeats them. So both are limited: the
row of a longer command has its first arguments, the number of the others and the digest of all.
The whole command is in the store, named by the action, and is retained with the inputs. Names of
outputs cannot be left out, because a row is compared by them: a command with longer ones is refused
before it runs.
"""

from __future__ import annotations

import json
import posixpath
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Final

from hpcc.core import Digest, InfrastructureError, TenantId
from hpcc.ports import AuditRow
from hpcc.reapi.result import ResultRecord
from hpcc.rpc.reapi.session import Client

# Of a row, as JSON, in which a control character takes six bytes. A build's longest commands have
# some 20 KiB, and few have more than one output.
MAX_ARGV_JSON_BYTES: Final = 64 << 10
MAX_NAMES_JSON_BYTES: Final = 64 << 10
# An entry may be older than these fields.
_NEWER: Final = frozenset({"snapshot_digest", "kernel_command_line", "vmm_jail"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a hit's row repeats from the execution that made the result.

    `argv_omitted` is how many arguments at its end `argv` does not have.
    """

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
    argv_omitted: int = 0

    @classmethod
    def of(cls, table: Mapping[str, object]) -> Lineage:
        """Read the JSON form of `asdict`.

        Raises:
            ValueError: fields are missing or have another type.
        """
        if set(table) | _NEWER | {"argv_omitted"} != {f.name for f in fields(cls)}:
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
            argv_omitted=_count(table.get("argv_omitted", 0)),
            **{name: _text(table.get(name, "")) for name in _NEWER},
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004 - one error type for every malformed entry
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a count")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("not a list")  # noqa: TRY004 - as above
    return tuple(_text(v) for v in value)


def argv_of_a_row(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments, from the first on, that a row has room for."""
    room = MAX_ARGV_JSON_BYTES
    for number, argument in enumerate(argv):
        # An argument may have megabytes: its JSON is not made to learn that it is too long.
        room -= _json_bytes(argument) if len(argument) <= room else len(argument)
        if room < 0:
            return argv[:number]
    return argv


def has_room_for_names(paths: Iterable[str]) -> bool:
    """Return whether a row has room for outputs of these root-relative paths."""
    return sum(map(_json_bytes, paths)) <= MAX_NAMES_JSON_BYTES


def _json_bytes(text: str) -> int:
    return len(json.dumps(text)) + 1  # with a comma


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

    Raises:
        InfrastructureError: the result was made before names of outputs were limited.
    """
    argv = argv_of_a_row(lineage.argv)
    outputs = tuple(
        (posixpath.normpath(posixpath.join(lineage.working_directory, o.path)), str(o.digest))
        for o in record.outputs
    )
    if not has_room_for_names(path for path, _ in outputs):
        raise InfrastructureError(
            f"the names of this result's outputs exceed {MAX_NAMES_JSON_BYTES} bytes of an audit"
            " row: compile it again with shorter ones",
            reason="output-names",
        )
    return AuditRow(
        row_id=uuid.uuid4().hex,
        # Microseconds. A clock's further digits mean nothing, and no method packs them.
        started_at=round(started_at, 6),
        duration_seconds=round(max(ended_at - started_at, 0.0), 6),
        tenant=who.tenant.value,
        principal=who.principal,
        build_id=who.build_id,
        action_digest=str(action),
        image_digest=record.image,
        input_root_digest=lineage.input_root_digest,
        argv=argv,
        argv_omitted=lineage.argv_omitted + len(lineage.argv) - len(argv),
        argv_digest=lineage.argv_digest,
        env_digest=lineage.env_digest,
        outputs=outputs,
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
