"""What the retention role keeps in a trail, and what it allows to be removed.

Problem: who operates a worker sets how long its trail is kept, and so can have an incident's rows
removed. The retention role is other people, with keys that the worker does not have.

Rule: each of their statements is a signed event of the chain before it has an effect, and only the
chain has it. So a restart reads them from the trail, and who changes the trail is found as with any
record. While a hold is in force, retention removes no segment that has a row of it, nor any that
ends behind the event of the hold, so that the event itself stays. Where the role has keys,
retention removes only what the role has allowed, whatever the configuration says. A permission
covers segments that end before its own event: nobody allows the removal of what is not there yet,
and a permission is never removed by itself. So the newest one is always in the trail.

Example: a hold of build ci/4711 is record 900. Its rows are 300 to 420. Retention removes what lies
before the segment of record 300, and nothing else until the hold is released.

What must never happen: a held row is removed because a statement could not be read. Whatever fails
here keeps everything. Nor does a clock that the operator sets back make a permission cover more.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import Record, event_of
from hpcc.audit.base.query import Query
from hpcc.audit.base.retention_statement import (
    SCOPES,
    RetentionAction,
    RetentionStatement,
    open_statement,
)
from hpcc.audit.base.segments import Seal
from hpcc.audit.base.spool_limits import RetentionRole
from hpcc.audit.lookup.reader import TrailReader
from hpcc.core import CallerError, PolicyError
from hpcc.ports import SecurityEvent

_HOLD: Final = "audit-hold"
_RELEASED: Final = "audit-hold-released"
_ALLOWED: Final = "audit-retirement-allowed"
EVENTS: Final = {
    RetentionAction.HOLD: _HOLD,
    RetentionAction.RELEASE: _RELEASED,
    RetentionAction.RETIRE: _ALLOWED,
}
_EVER: Final = -float(1 << 63)


@dataclass(frozen=True, slots=True)
class HeldRows:
    """A statement that is in force. Its event is record `sequence`, or a later one."""

    statement: RetentionStatement
    sequence: int


@dataclass(frozen=True, slots=True)
class AllowedRemoval:
    """A permission, given at a time by the clock of who signed it.

    What was sealed before `before` may be removed, of the records before number `until`.
    """

    before: float
    until: int
    at: float

    def covers(self, seal: Seal) -> bool:
        """Return whether a segment may be removed."""
        return seal.signed.at < self.before and seal.end <= self.until


class Retentions:
    """The statements in force over one trail. Its methods block: one thread at a time."""

    def __init__(self, directory: Path, worker: str, role: RetentionRole) -> None:
        self._directory, self._worker, self._role = directory, worker, role
        self._holds: dict[str, HeldRows] = {}
        self._known: set[str] = set()
        self._allowed: list[AllowedRemoval] = []
        self._is_loaded = False

    def load(self) -> None:
        """Read what is in force from the trail, unless that is done.

        Raises:
            AuditDamagedError: the trail was changed.
            CallerError: an event has no statement.
        """
        if self._is_loaded:
            return
        self._holds, self._known, self._allowed = in_force(self._directory)
        self._is_loaded = True

    @property
    def holds(self) -> list[HeldRows]:
        """Return the holds in force, oldest first."""
        return list(self._holds.values())

    def check(self, envelope: bytes) -> RetentionStatement:
        """Return a statement that the role signed for this trail, and that has an effect now.

        Raises:
            CallerError: it is malformed, of another worker, or has no effect.
            PolicyError: too few people of the role signed it.
            AuditDamagedError: the trail was changed.
        """
        self.load()
        found, signed_by = open_statement(envelope)
        if not self._role.keys:
            raise PolicyError(
                "this worker knows no retention role: set audit_retention_keys in its config file",
                reason="retention",
            )
        needed = 1 if found.action is RetentionAction.HOLD else self._role.quorum
        if len(signed_by & self._role.keys) < needed:
            raise PolicyError(
                f"the statement needs {needed} good signatures by audit_retention_keys, and has"
                f" {len(signed_by & self._role.keys)}",
                reason="retention",
            )
        if found.worker != self._worker:
            raise CallerError(f"the statement is for worker {found.worker}", reason="retention")
        if found.action is RetentionAction.RELEASE and found.id not in self._holds:
            raise CallerError(f"no hold {found.id} is in force", reason="retention")
        if found.action is not RetentionAction.RELEASE and found.id in self._known:
            raise CallerError(f"the statement {found.id} was given before", reason="retention")
        if found.action is RetentionAction.RETIRE:
            self._check_permission(found)
        return found

    def _check_permission(self, found: RetentionStatement) -> None:
        if found.before > found.at:
            raise CallerError(
                "a permission to remove covers what is sealed when it is given, and this one names"
                " a later time: give it again then",
                reason="retention",
            )
        # An older one may have left the trail, and its id with it.
        if self._allowed and found.at <= self._allowed[-1].at:
            raise CallerError(
                "a later permission to remove was given already: sign a new one, and compare the"
                " clock of this machine",
                reason="retention",
            )

    def enter(self, statement: RetentionStatement, sequence: int) -> None:
        """Let a statement count, whose event is durable as record `sequence` or a later one."""
        _enter(statement, sequence, self._holds, self._known, self._allowed)

    def removable(self, chosen: list[Seal]) -> list[Seal]:
        """Return the segments, of those that retention would remove, that nobody keeps.

        Raises:
            AuditDamagedError: the trail was changed: nothing may be removed.
            CallerError: an event has no statement: likewise.
        """
        if chosen:
            self.load()
        found: list[Seal] = []
        for seal in chosen:
            if self._role.keys and not any(allowed.covers(seal) for allowed in self._allowed):
                break
            if any(self._keeps(hold, seal) for hold in self.holds):
                break
            found.append(seal)
        return found

    def _keeps(self, hold: HeldRows, seal: Seal) -> bool:
        if seal.end > hold.sequence:
            return True
        return any(
            TrailReader(self._directory).has(seal, query) for query in queries_of(hold.statement)
        )


def queries_of(statement: RetentionStatement) -> list[Query]:
    """Return what finds the records of a hold."""
    field = SCOPES[statement.what]
    found = [Query(since=_EVER, limit=1, **{field: statement.value})]  # type: ignore[arg-type]  # a text of `Query`
    if statement.what == "tenant":
        found.append(Query(kind="event", since=_EVER, limit=1, tenant=statement.value))
    return found


def retention_event(statement: RetentionStatement, envelope: bytes, at: float) -> SecurityEvent:
    """Return the event that is written before a statement has an effect."""
    named = [("id", statement.id), ("by", statement.by), ("reason", statement.reason)]
    if statement.what:
        named += [("what", statement.what), ("value", statement.value)]
    if statement.before:
        named.append(("before", repr(statement.before)))
    fields = (*named, ("statement", base64.b64encode(envelope).decode()))
    if statement.action is RetentionAction.HOLD:
        return SecurityEvent(name=_HOLD, at=at, fields=fields)
    is_release = statement.action is RetentionAction.RELEASE
    return SecurityEvent(name=_RELEASED if is_release else _ALLOWED, at=at, fields=fields)


def statement_of(record: Record) -> RetentionStatement:
    """Return the statement that an event of the retention role has.

    Raises:
        CallerError: it has none, or nobody signed it.
    """
    text = dict(event_of(record).fields).get("statement", "")
    try:
        statement, signed_by = open_statement(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise CallerError(f"record {record.sequence} has no retention statement") from error
    if not signed_by or EVENTS[statement.action] != record.body.get("name"):
        raise CallerError(f"record {record.sequence} has no signed retention statement")
    return statement


def in_force(directory: Path) -> tuple[dict[str, HeldRows], set[str], list[AllowedRemoval]]:
    """Return the holds in force, the ids of all statements, and what may be removed.

    The newest permission is the last.

    Raises:
        AuditDamagedError: the trail was changed.
        CallerError: an event has no statement.
    """
    records: list[Record] = []
    for name in EVENTS.values():
        query = Query(kind="event", name=name, since=_EVER, limit=1 << 62)
        records += TrailReader(directory).find(query, oldest_first=True)
    holds: dict[str, HeldRows] = {}
    known: set[str] = set()
    allowed: list[AllowedRemoval] = []
    for record in sorted(records, key=lambda r: r.sequence):
        _enter(statement_of(record), record.sequence, holds, known, allowed)
    return holds, known, allowed


def _enter(
    statement: RetentionStatement,
    sequence: int,
    holds: dict[str, HeldRows],
    known: set[str],
    allowed: list[AllowedRemoval],
) -> None:
    if statement.action is RetentionAction.RELEASE:
        holds.pop(statement.id, None)
        return
    known.add(statement.id)
    if statement.action is RetentionAction.HOLD:
        holds[statement.id] = HeldRows(statement, sequence)
        return
    # Those that the new one covers count no more. So few are kept.
    allowed[:] = [one for one in allowed if one.before > statement.before]
    allowed.append(AllowedRemoval(statement.before, sequence, statement.at))
