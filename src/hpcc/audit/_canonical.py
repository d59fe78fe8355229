"""The bytes of a record: canonical JSON, chained by hash. Specification: docs/spec/audit.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Final, cast

from hpcc.core import IntegrityError
from hpcc.ports import AuditRow, SecurityEvent

FORMAT: Final = 1
GENESIS: Final = "0" * 64
# An argv of 2 MiB escapes to at most 12 MiB of JSON.
MAX_RECORD_BYTES: Final = 16 << 20
_DOMAIN: Final = b"hpcc-audit-1\0"


class AuditDamagedError(IntegrityError):
    """The trail is not what was written."""

    default_reason = "audit-damaged"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a chain: `kind` is "row" or "event", `hash` covers `data`."""

    kind: str
    sequence: int
    previous: str
    body: Mapping[str, object]
    data: bytes
    hash: str


def encode_record(
    content: AuditRow | SecurityEvent, *, sequence: int, previous: str, worker: str
) -> Record:
    """Build the next record of a chain."""
    kind = "row" if isinstance(content, AuditRow) else "event"
    body = asdict(content)
    envelope = {
        "body": body, "format": FORMAT, "kind": kind,
        "previous": previous, "sequence": sequence, "worker": worker,
    }  # fmt: skip
    data = json.dumps(
        envelope, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()
    return Record(kind, sequence, previous, body, data, record_hash(data))


def record_hash(data: bytes) -> str:
    return hashlib.sha256(_DOMAIN + data).hexdigest()


def decode_record(data: bytes) -> Record:
    """Read a record.

    Raises:
        AuditDamagedError: it is not one.
    """
    try:
        table = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AuditDamagedError("a record is not JSON") from error
    if (
        not isinstance(table, dict)
        or table.get("format") != FORMAT
        or table.get("kind") not in {"row", "event"}
        or not isinstance(table.get("sequence"), int)
        or not isinstance(table.get("previous"), str)
        or not isinstance(table.get("body"), dict)
    ):
        raise AuditDamagedError("a record has another form")
    return Record(
        table["kind"], table["sequence"], table["previous"], table["body"], data, record_hash(data)
    )


def row_of(record: Record) -> AuditRow:
    """Return a record's row.

    Raises:
        AuditDamagedError: fields are missing or of another type.
    """
    body = record.body
    names = {f.name for f in fields(AuditRow)}
    optional = {f.name for f in fields(AuditRow) if f.default is not MISSING}
    if record.kind != "row" or not names - optional <= set(body) <= names:
        raise AuditDamagedError("a row has other fields")
    values = dict(body)
    try:
        values["argv"] = tuple(cast("list[str]", body["argv"]))
        values["injected_flags"] = tuple(cast("list[str]", body["injected_flags"]))
        values["outputs"] = tuple((p, d) for p, d in cast("list[tuple[str, str]]", body["outputs"]))
        return AuditRow(**values)  # type: ignore[arg-type]  # names checked above, values written by us and hashed
    except (TypeError, ValueError) as error:
        raise AuditDamagedError("a row has other fields") from error
