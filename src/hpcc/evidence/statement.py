"""Statements of in-toto v1 with SLSA provenance v1, made of a row or of a link only.

A statement follows from its record byte for byte, so that a reader who has the record makes the
same bytes and compares. The types of builds are described in docs/spec/evidence.md.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError, Record, canonical, row_of
from hpcc.evidence.model import DIGEST, FilePart, Grade, Making, clean
from hpcc.ports import AuditRow

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PROVENANCE: Final = "https://slsa.dev/provenance/v1"
SITE: Final = "https://hpcc.example"
COMPILE: Final = f"{SITE}/compile/v1"
_MAKINGS: Final = {
    Grade.MEMBERS: f"{SITE}/archive/v1",
    Grade.WHOLE: f"{SITE}/object/v1",
    Grade.CLAIMED: f"{SITE}/link/v1",
}
_DIRECTORY: Final = "application/vnd.hpcc.reapi-directory"
_GUEST_PARTS: Final = (
    ("kernel", "kernel_digest"), ("agent", "agent_digest"), ("vmm", "vmm_digest"),
    ("jailer", "jailer_digest"), ("snapshot", "snapshot_digest"),
)  # fmt: skip
_MAX_YEARS: Final = 253_402_000_000.0


def row_statement(record: Record) -> bytes:
    """Return the statement of a row, as canonical JSON.

    Raises:
        AuditDamagedError: the record is not a row that released outputs.
    """
    row = row_of(record)
    subject = [named(path, digest) for path, digest in row.outputs if _hex(digest)]
    if not subject:
        raise AuditDamagedError(f"record {record.sequence} has no outputs with a digest")
    return text_of(_statement(subject, _compile(row, record)))


def making_statement(making: Making) -> bytes:
    """Return the statement of how a file was made of its parts, as canonical JSON."""
    facts = dict(making.facts or {})
    times = {key: facts.pop(key) for key in ("startedOn", "finishedOn") if key in facts}
    predicate = {
        "buildDefinition": {
            "buildType": _MAKINGS[making.grade],
            "externalParameters": {"argv": list(making.command)},
            "internalParameters": {
                **facts,
                "grade": making.grade.value,
                "leftOut": making.left_out,
            },
            "resolvedDependencies": [_part(part) for part in making.parts],
        },
        "runDetails": {"builder": {"id": f"{SITE}/client"}, "metadata": times},
    }
    subject: list[dict[str, object]] = [{"name": making.name, "digest": {"sha256": making.digest}}]
    return text_of(_statement(subject, predicate))


def _statement(subject: list[dict[str, object]], predicate: dict[str, object]) -> dict[str, object]:
    return {
        "_type": STATEMENT, "subject": subject, "predicateType": PROVENANCE,
        "predicate": predicate,
    }  # fmt: skip


def _compile(row: AuditRow, record: Record) -> dict[str, object]:
    return {
        "buildDefinition": {
            "buildType": COMPILE,
            "externalParameters": {
                "argv": list(row.argv), "argvDigest": row.argv_digest,
                "argvOmitted": row.argv_omitted, "build": row.build_id,
                "envDigest": row.env_digest, "injectedFlags": list(row.injected_flags),
                "workingDirectory": row.working_directory,
            },
            "internalParameters": {
                "action": row.action_digest, "client": row.client_version, "engine": row.engine,
                "lease": row.lease, "principal": row.principal, "scheduler": row.scheduler,
                "tenant": row.tenant,
            },
            "resolvedDependencies": [
                named("image", row.image_digest),
                {**named("inputs", row.input_root_digest), "mediaType": _DIRECTORY},
            ],
        },
        "runDetails": {
            "builder": {
                "id": f"{SITE}/worker/{_quoted(row.worker)}#{row.isolation}",
                "builderDependencies": [
                    named(name, getattr(row, field))
                    for name, field in _GUEST_PARTS
                    if getattr(row, field)
                ],
            },
            "metadata": {
                "invocationId": row.row_id, "startedOn": _at(row.started_at),
                "finishedOn": _at(row.started_at + row.duration_seconds),
            },
            "byproducts": [_byproduct(row, record)],
        },
    }  # fmt: skip


def _byproduct(row: AuditRow, record: Record) -> dict[str, object]:
    return {
        "name": "hpcc-row",
        # Of the record as it is in the segment, by the trail's rule.
        "digest": {"hpccAudit1": record.hash},
        "annotations": {
            "execsBefore": row.guest_execs_before, "exit": row.exit_code, "guest": row.guest_id,
            "isolation": row.isolation, "kernelCommandLine": row.kernel_command_line,
            "reason": row.reason, "reuse": row.reuse, "sequence": record.sequence,
            "sharing": row.sharing, "signature": base64.b64encode(record.signature).decode(),
            "status": row.cache_status, "vmmJail": row.vmm_jail, "vmmVersion": row.vmm_version,
            "warden": row.warden, "worker": record.worker,
        },
    }  # fmt: skip


def _part(part: FilePart) -> dict[str, object]:
    found: dict[str, object] = {"name": part.name}
    if part.digest:
        found["digest"] = {"sha256": part.digest}
    notes = {key: value for key, value in (("package", part.package), ("note", part.note)) if value}
    return found | ({"annotations": notes} if notes else {})


def named(name: str, digest: str) -> dict[str, object]:
    """Return the descriptor of a file; a digest of another form is an annotation."""
    found = _hex(digest)
    return {"name": name, "digest": {"sha256": found}} if found else {
        "name": name, "annotations": {"digest": digest}
    }  # fmt: skip


def _hex(digest: str) -> str:
    """Return the hex digits of `sha256:…` or `HASH/SIZE`; empty if it is neither."""
    text = digest.removeprefix("sha256:").partition("/")[0]
    return text if DIGEST.fullmatch(text) else ""


def _at(seconds: float) -> str:
    moment = datetime.fromtimestamp(min(max(seconds, 0.0), _MAX_YEARS), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time_text(seconds: float) -> str:
    """Return a time as statements have it, in whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="", errors="replace")


def text_of(statement: dict[str, object]) -> bytes:
    """Return canonical JSON without halves of surrogate pairs."""
    text = canonical(statement)
    # Whole pairs are cleaned as well, which changes nothing. A backslash in a text is two here.
    return canonical(_clean(statement)) if b"\\ud" in text else text


def _clean(value: object) -> object:
    """Return a value without halves of surrogate pairs, which other readers of JSON refuse."""
    match value:
        case str():
            return clean(value)
        case list():
            return [_clean(item) for item in value]
        case dict():
            return {key: _clean(item) for key, item in value.items()}
        case _:
            return value
