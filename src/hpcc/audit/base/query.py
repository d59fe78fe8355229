"""The conditions of a query, and the decision whether a record meets them.

The decision is made on the record itself. An index may name more records than match, never fewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError, Record

MAX_TIME: Final = float(1 << 63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The conditions of a listing of at most `limit` records; empty texts and None set none.

    `since` (included) and `until` (excluded) are seconds since the epoch. `row_id`,
    `action_digest`, `image_digest`, `guest_id`, `peer` and `object_digest` (of any output)
    match by prefix, so that a part that a person copied is enough.
    """

    kind: str = "row"
    row_id: str = ""
    tenant: str = ""
    principal: str = ""
    build_id: str = ""
    action_digest: str = ""
    image_digest: str = ""
    guest_id: str = ""
    worker: str = ""
    isolation: str = ""
    reuse: str = ""
    cache_status: str = ""
    reason: str = ""
    name: str = ""
    peer: str = ""
    request_id: str = ""
    object_digest: str = ""
    exit_code: int | None = None
    since: float = 0.0
    until: float | None = None
    limit: int = 100


EQUAL: Final = (
    "tenant", "principal", "build_id", "isolation", "reuse", "cache_status", "reason", "name",
    "request_id",
)  # fmt: skip
STARTS: Final = ("row_id", "action_digest", "image_digest", "guest_id", "peer")


def matches(record: Record, query: Query) -> bool:
    """Return whether a record meets all conditions.

    Raises:
        AuditDamagedError: it is of the query's kind, and neither a row nor an event by its fields.
    """
    if record.kind != query.kind:
        return False
    at = _time(record)
    body = record.body
    return (
        at >= query.since
        and (query.until is None or at < query.until)
        and query.worker in {"", record.worker}
        and (query.exit_code is None or query.exit_code == body.get("exit_code"))
        and all(getattr(query, n) in {"", text_of(body.get(n, ""))} for n in EQUAL)
        and all(text_of(body.get(n, "")).startswith(getattr(query, n)) for n in STARTS)
        and (
            not query.object_digest
            or any(d.startswith(query.object_digest) for d in output_digests(record))
        )
    )


def _time(record: Record) -> float:
    body = record.body
    at = body.get("at")
    if record.kind == "row":
        at = body.get("started_at")
        if not isinstance(body.get("row_id"), str) or type(body.get("exit_code")) is not int:
            raise AuditDamagedError(f"record {record.sequence} is no row")
    if not isinstance(at, int | float) or not -MAX_TIME < at < MAX_TIME:
        raise AuditDamagedError(f"record {record.sequence} has no time")
    return at


def text_of(value: object) -> str:
    """Return a field's value as text, with a question mark for half of a surrogate pair.

    Only a forged record has another type there.
    """
    text = value if isinstance(value, str) else str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def output_digests(record: Record) -> Iterator[str]:
    """Yield the digests of a row's outputs; nothing of a record that has no such list."""
    outputs = record.body.get("outputs")
    for pair in outputs if isinstance(outputs, list | tuple) else ():
        if isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[1], str):  # noqa: PLR2004 - path and digest
            yield pair[1]
