"""The bytes of a record: canonical JSON, chained by hash. Specification: docs/spec/audit.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Final, get_origin, get_type_hints

from hpcc.core import IntegrityError
from hpcc.ports import AuditRow, SecurityEvent

FORMAT: Final = 1
GENESIS: Final = "0" * 64
# An argv of 2 MiB escapes to at most 12 MiB of JSON; a message to a scheduler may have 16 MiB.
MAX_RECORD_BYTES: Final = 15 << 20
_DOMAIN: Final = b"hpcc-audit-1\0"
_MAX_NUMBER: Final = 1 << 63
PAYLOAD_TYPE: Final = b"application/vnd.hpcc.audit-record+json"


def _types(kind: type) -> dict[str, type]:
    return {name: get_origin(hint) or hint for name, hint in get_type_hints(kind).items()}


def _needed(kind: type[AuditRow] | type[SecurityEvent]) -> frozenset[str]:
    """Return the fields without a default, which every record has."""
    return frozenset(
        f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING
    )


_ROW_TYPES: Final = _types(AuditRow)
_ROW_NEEDED: Final = _needed(AuditRow)
_EVENT_TYPES: Final = _types(SecurityEvent)
_EVENT_NEEDED: Final = _needed(SecurityEvent)
_NAMES: Final = {kind: tuple(f.name for f in fields(kind)) for kind in (AuditRow, SecurityEvent)}


class AuditDamagedError(IntegrityError):
    """The trail differs from what its writer wrote."""

    default_reason = "audit-damaged"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a chain: `kind` is "row" or "event", `hash` covers `data` (the JSON bytes).

    `previous` is the hash of the record before, or `GENESIS`. `signature` is the writer's, which
    the frame has beside the bytes; it is empty in a trail of an earlier version.
    """

    kind: str
    sequence: int
    previous: str
    worker: str
    body: Mapping[str, object]
    data: bytes
    hash: str
    signature: bytes = b""


def encode_record(
    content: AuditRow | SecurityEvent, *, sequence: int, previous: str, worker: str
) -> Record:
    """Build the next record of a chain."""
    kind = "row" if isinstance(content, AuditRow) else "event"
    # All values are plain, or tuples of texts: no deep copy is needed.
    body = {name: getattr(content, name) for name in _NAMES[type(content)]}
    envelope = {
        "body": body, "format": FORMAT, "kind": kind,
        "previous": previous, "sequence": sequence, "worker": worker,
    }  # fmt: skip
    data = canonical(envelope)
    return Record(kind, sequence, previous, worker, body, data, record_hash(data))


def signed_record(record: Record, signature: bytes) -> Record:
    """Return a record with its writer's signature."""
    return Record(
        record.kind, record.sequence, record.previous, record.worker, record.body, record.data,
        record.hash, signature,
    )  # fmt: skip


def canonical(value: object) -> bytes:
    """Return the canonical JSON of a value: sorted keys, no spaces, ASCII only.

    Raises:
        ValueError: the value contains a NaN or an infinity.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def record_hash(data: bytes) -> str:
    """Return the hash of a record's bytes in lower-case hex."""
    return hashlib.sha256(_DOMAIN + data).hexdigest()


def signed_message(data: bytes) -> bytes:
    """Return what is signed of a record: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE, len(data), data)


def decode_record(data: bytes, signature: bytes = b"") -> Record:
    """Parse a record and compute its hash. Neither the body's fields nor the signature are checked.

    Raises:
        AuditDamagedError: the bytes are not a record.
    """
    try:
        table = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AuditDamagedError("a record is not JSON") from error
    if (
        not isinstance(table, dict)
        or table.get("format") != FORMAT
        or table.get("kind") not in ("row", "event")  # no set: it may be a list
        or type(table.get("sequence")) is not int
        or table["sequence"] < 0
        or not isinstance(table.get("previous"), str)
        or not isinstance(table.get("worker"), str)
        or not isinstance(table.get("body"), dict)
    ):
        raise AuditDamagedError("a record has another form")
    return Record(
        table["kind"],
        table["sequence"],
        table["previous"],
        table["worker"],
        table["body"],
        data,
        record_hash(data),
        signature,
    )


def check_canonical(record: Record) -> None:
    """Check that a record's bytes are the canonical JSON of what was read from them.

    Raises:
        AuditDamagedError: they are not: two readers could then read them differently.
    """
    # Not decoded again: the JSON of 15 MiB of empty lists takes 300 MiB.
    envelope = {
        "body": record.body, "format": FORMAT, "kind": record.kind,
        "previous": record.previous, "sequence": record.sequence, "worker": record.worker,
    }  # fmt: skip
    try:
        is_canonical = canonical(envelope) == record.data
    except (ValueError, RecursionError):  # a NaN, which is not JSON
        is_canonical = False
    if not is_canonical:
        raise AuditDamagedError("a record is not in canonical form")


def foreign_record(data: bytes, *, worker: str, sequence: int, previous: str | None) -> Record:
    """Parse the next record of a chain that a peer sends.

    `previous` is the hash of the record before; None if it is not known here.

    Raises:
        AuditDamagedError: the record is of another worker, is not the next one, has other fields,
            or is not canonical (two readers could then read it differently).
    """
    if len(data) > MAX_RECORD_BYTES:
        raise AuditDamagedError("a record is too large")
    record = decode_record(data)
    check_canonical(record)
    if record.worker != worker:
        raise AuditDamagedError("a record is another worker's")
    if record.sequence != sequence or previous not in {None, record.previous}:
        raise AuditDamagedError(f"the chain is broken at record {sequence}")
    if record.kind == "row":
        row_of(record)
    else:
        event_of(record)
    return record


def row_of(record: Record) -> AuditRow:
    """Return a record's row.

    Raises:
        AuditDamagedError: fields are missing or of another type.
    """
    body = record.body
    if record.kind != "row" or not _ROW_NEEDED <= set(body) <= set(_ROW_TYPES):
        raise AuditDamagedError("a row has other fields")
    values = dict(body)
    for name in ("argv", "injected_flags"):
        values[name] = _texts(body[name])
    values["outputs"] = _pairs(body["outputs"])
    for name, value in values.items():
        kind = _ROW_TYPES[name]
        if type(value) is kind and kind in {str, tuple}:
            continue  # most fields; the tuples were made just above
        if not _is_of(value, kind):
            raise AuditDamagedError(f"field {name} of a row has another type")
    return AuditRow(**values)  # type: ignore[arg-type]  # names and types were checked above


def event_of(record: Record) -> SecurityEvent:
    """Return a record's security event.

    Raises:
        AuditDamagedError: fields are missing or of another type.
    """
    body = record.body
    if record.kind != "event" or not _EVENT_NEEDED <= set(body) <= set(_EVENT_TYPES):
        raise AuditDamagedError("an event has other fields")
    values = dict(body)
    values["fields"] = _pairs(body["fields"]) if "fields" in body else ()
    for name, kind in _EVENT_TYPES.items():
        if kind is not tuple and name in values and not _is_of(values[name], kind):
            raise AuditDamagedError(f"field {name} of an event has another type")
    return SecurityEvent(**values)  # type: ignore[arg-type]  # names and types were checked above


def _is_of(value: object, kind: type) -> bool:
    """Return whether a value has a type, and a size that databases and calendars can hold."""
    if type(value) is not kind:
        return False
    return not isinstance(value, int | float) or -_MAX_NUMBER <= value < _MAX_NUMBER


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise AuditDamagedError("a record has something else in place of a list of texts")
    return tuple(value)


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise AuditDamagedError("a record has something else in place of a list of pairs")
    pairs = []
    for item in value:
        texts = _texts(item)
        if len(texts) != 2:  # noqa: PLR2004 - a pair
            raise AuditDamagedError("a record has something else in place of a pair")
        pairs.append((texts[0], texts[1]))
    return tuple(pairs)
