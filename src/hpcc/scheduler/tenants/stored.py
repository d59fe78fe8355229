"""The tenants table in the control store: one text, versions, and who applied it.

An operator's command replaces the whole table, and each scheduler takes it over with its next look.
The text is in parts, because a value of the store is smaller than a table may be. Parts are written
first, under a name that no other table has. Then one entry, the *head*, changes from the old table
to the new one. So a reader finds one table or the other, and of two commands one is refused.

The head is sealed with the farm's sealing key. A party that can only write to the database cannot
make a table, which would be a way into every build. It can put back an older head, so a scheduler
refuses one that is older than its own; and it can remove the head, which changes nothing either.

A table that a scheduler cannot read leaves the old one in force, and is shown by its health.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import secrets
from dataclasses import asdict, dataclass
from typing import Final

from hpcc.audit.limiter import EventLimiter
from hpcc.core import HpccError, IntegrityError
from hpcc.identity.key_ring import Sealer
from hpcc.ports import Clock, ConflictError, ControlStore, ControlStoreError, Entry
from hpcc.scheduler.tenants.changes import TableDifference, Tenants, difference
from hpcc.scheduler.tenants.table import MAX_TABLE_BYTES, parse_tenants

_log: Final = logging.getLogger(__name__)
SPACE: Final = "tenants"
KEY: Final = "table"
PART_SPACE: Final = "tenants-part"
PURPOSE: Final = b"tenants table"
LOOK_SECONDS: Final = 1.0
_PART_BYTES: Final = 128 << 10
_MAX_PARTS: Final = MAX_TABLE_BYTES // _PART_BYTES
_MAX_HEAD_BYTES: Final = 8 << 10
_MAX_BY_CHARS: Final = 64
_MAX_REASON_CHARS: Final = 200
_MAX_NAMES: Final = 16
# The reason of an error: the store answers, and a part of the table is not there.
NO_PART: Final = "tenants-part"
_PUT_BACK: Final = "an older one was put back into the control store: apply it again"
# Parts of a command that was killed before it changed the head.
_KEEP_SECONDS: Final = 86_400.0


class NoTableError(HpccError):
    """No table was applied yet."""

    default_reason = "tenants-none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHead:
    """What is known of a table besides its text. `at` is in seconds since the epoch.

    `by` and `reason` are for people, `parts` is the beginning of the names of the parts.
    """

    version: int
    sha256: str
    size: int
    parts: str
    at: float
    by: str = ""
    reason: str = ""

    @property
    def part_names(self) -> tuple[str, ...]:
        return tuple(f"{self.parts}.{n}" for n in range(-(-self.size // _PART_BYTES)))

    def is_older(self, other: TableHead) -> bool:
        """Return whether `other` was there later.

        By time, which `replace` makes grow: numbers begin again if the head was removed from the
        store, and then all heads of before have greater ones.
        """
        return self != other and self.at <= other.at


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTable:
    """A table of the store, and the version of the head's entry."""

    head: TableHead
    text: bytes
    entry_version: int

    @property
    def source(self) -> str:
        """What messages call it."""
        return f"table {self.head.version} of the control store"


class TableStore:
    """Reads and replaces the table, for schedulers and for an operator's command."""

    def __init__(self, store: ControlStore, sealer: Sealer, clock: Clock) -> None:
        self._store, self._sealer, self._clock = store, sealer, clock

    async def head_or_none(self) -> tuple[TableHead, int] | None:
        """Return the head with its entry's version; None if no table was applied.

        Raises:
            ControlStoreError: the store does not answer.
            IntegrityError: the head was sealed with another key, or is damaged.
        """
        entry = await self._store.entry_or_none(SPACE, KEY)
        return None if entry is None else (_opened(entry, self._sealer), entry.version)

    async def read(self) -> StoredTable:
        """Return the table.

        Raises:
            NoTableError: the store has no table yet.
            ControlStoreError: the store does not answer, or the table is being replaced.
            IntegrityError: it is damaged.
        """
        found = await self.head_or_none()
        if found is None:
            raise NoTableError("no tenants table was applied: `hpcc tenants apply FILE`")
        head, version = found
        text = bytearray()
        for name in head.part_names:
            part = await self._store.entry_or_none(PART_SPACE, name)
            if part is None:
                raise ControlStoreError(
                    f"a part of table {head.version} is not in the control store: it is being"
                    " replaced, or was removed by others: try again, or apply it again",
                    reason=NO_PART,
                )
            text += part.value
        if len(text) != head.size or hashlib.sha256(text).hexdigest() != head.sha256:
            raise IntegrityError(
                f"table {head.version} in the control store is damaged: apply it again",
                reason="tenants-damaged",
            )
        return StoredTable(head=head, text=bytes(text), entry_version=version)

    async def head_only(self) -> StoredTable | None:
        """Return the table without its text, to replace one that cannot be read.

        Raises:
            ControlStoreError, IntegrityError: as `head_or_none`.
        """
        found = await self.head_or_none()
        return (
            None if found is None else StoredTable(head=found[0], text=b"", entry_version=found[1])
        )

    async def replace(self, text: bytes, old: StoredTable | None, *, by: str, reason: str) -> int:
        """Put a table in the place of `old`, which the caller has read; return its version.

        Raises:
            CallerError: the table is invalid.
            ConflictError: `old` is not the table in the store any more.
            ControlStoreError: the store does not answer; the old table may stay.
        """
        parse_tenants(text, source="the table")
        now = self._clock.now()
        # Operators' clocks differ, and a table is never older than the one that it replaces.
        at = now if old is None else max(now, math.nextafter(old.head.at, math.inf))
        head = TableHead(
            version=old.head.version + 1 if old is not None else 1,
            sha256=hashlib.sha256(text).hexdigest(),
            size=len(text),
            parts=f"{now:.0f}-{secrets.token_hex(8)}",
            at=at,
            by=_label(by, _MAX_BY_CHARS),
            reason=_label(reason, _MAX_REASON_CHARS),
        )
        await self._sweep(now)
        for number, name in enumerate(head.part_names):
            part = text[number * _PART_BYTES : (number + 1) * _PART_BYTES]
            await self._store.put(PART_SPACE, name, part, expect=0)
        sealed = self._sealer.seal(PURPOSE, json.dumps(asdict(head), sort_keys=True).encode())
        try:
            await self._store.put(
                SPACE, KEY, sealed, expect=old.entry_version if old is not None else 0
            )
        except ConflictError as error:
            await self._remove(head)
            raise ConflictError(
                "another table was applied meanwhile: look at `hpcc tenants diff` again"
            ) from error
        if old is not None:
            await self._remove(old.head)
        return head.version

    async def _remove(self, head: TableHead) -> None:
        for name in head.part_names:
            await self._store.delete(PART_SPACE, name)

    async def _sweep(self, now: float) -> None:
        """Remove parts that a killed command left, if they are older than a day."""
        found = await self.head_or_none()
        used = found[0].part_names if found is not None else ()
        for entry in await self._store.entries(PART_SPACE):
            made, _, _ = entry.key.partition("-")
            is_old = not made.isdecimal() or float(made) < now - _KEEP_SECONDS
            if is_old and entry.key not in used:
                await self._store.delete(PART_SPACE, entry.key)


class StoredTenants:
    """The table in force at one scheduler. Before `load`, and before the first table, nobody is in.

    A table that is in force stays when the store is away, and when the next one cannot be used.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._table: TableStore | None = None
        self._events: EventLimiter | None = None
        self._head: TableHead | None = None
        # Read and parsed once, not at each look.
        self._refused: TableHead | None = None
        self.tenants: Tenants = {}
        # Why the table in the store is not the one in force; "" if it is.
        self.trouble = ""
        self._is_away = False

    async def load(self, table: TableStore, events: EventLimiter) -> None:
        """Read the table before the first login.

        Raises:
            HpccError: there is one, and it cannot be used: see `TableStore.read` and
                `parse_tenants`.
        """
        self._table, self._events = table, events
        try:
            await self._take(await table.read())
        except NoTableError as error:
            self.trouble = str(error)
            _log.warning("nobody can log in: %s", error)

    async def watch(self) -> None:
        """Look for another table until cancelled.

        By polling: a command beside an embedded store is another process, which tells nobody.
        """
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Take over another table, if there is one that can be used."""
        assert self._table is not None, "load comes first"
        try:
            found = await self._table.head_or_none()
            await self._follow(self._table, found[0] if found is not None else None)
        except ControlStoreError as error:
            if not self._is_away:
                _log.warning("the tenants table is not updated: %s", error)
            self._is_away = True
            return
        except HpccError as error:
            self._refuse(str(error), None)
        self._is_away = False

    async def _follow(self, table: TableStore, head: TableHead | None) -> None:
        if head is None:
            if self._head is not None:
                self._refuse("it is gone from the control store: apply it again", None)
        elif head == self._head:
            self.trouble, self._refused = "", None
        elif self._is_older(head):
            self._refuse(_PUT_BACK, None)
        elif head != self._refused:
            try:
                found = await table.read()
                # The head was read again, and the store may show another one.
                if self._is_older(found.head):
                    self._refuse(_PUT_BACK, None)
                else:
                    await self._take(found)
            except HpccError as error:
                if isinstance(error, ControlStoreError) and error.reason != NO_PART:
                    raise
                is_passing = error.reason == NO_PART
                self._refuse(str(error), None if is_passing else head)

    def _is_older(self, head: TableHead) -> bool:
        return self._head is not None and head.is_older(self._head)

    def _refuse(self, why: str, head: TableHead | None) -> None:
        self._refused = head
        trouble = f"the old table stays in force: {why}"
        if trouble != self.trouble:
            _log.error("tenants table not reloaded, the old one stays in force: %s", why)
        self.trouble = trouble

    async def _take(self, table: StoredTable) -> None:
        # A table of a thousand tenants takes longer than others may wait.
        tenants = await asyncio.to_thread(parse_tenants, table.text, source=table.source)
        differs = difference(self.tenants, tenants)
        self.tenants, self._head = tenants, table.head
        self.trouble, self._refused = "", None
        _log.warning("tenants table reloaded: %d tenants", len(tenants))
        await self._record(table.head, differs)

    async def _record(self, head: TableHead, differs: TableDifference) -> None:
        assert self._events is not None, "load comes first"
        try:
            await self._events.event(
                "tenants-in-force", "",
                ("version", str(head.version)), ("sha256", head.sha256),
                ("by", head.by), ("reason", head.reason),
                ("tenants", str(len(self.tenants))),
                ("added", _names(differs.added)), ("removed", _names(differs.removed)),
                ("changed", _names(differs.changed)),
            )  # fmt: skip
        except HpccError as error:
            _log.error("table %d of the tenants is not recorded: %s", head.version, error)


def _names(names: tuple[str, ...]) -> str:
    more = len(names) - _MAX_NAMES
    return " ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _label(text: str, most: int) -> str:
    return "".join(c for c in text[:most] if c.isprintable())


def _opened(entry: Entry, sealer: Sealer) -> TableHead:
    if len(entry.value) > _MAX_HEAD_BYTES:
        raise _damaged()
    # It was sealed by this farm, so another version of hpcc is the likeliest cause of a fault.
    try:
        table = json.loads(sealer.unseal(PURPOSE, entry.value))
        head = TableHead(**table)
        numbers = [table["version"], table["size"]]
        texts = [table["sha256"], table["parts"], head.by, head.reason]
        is_whole = (
            all(type(n) is int for n in numbers)
            and all(isinstance(t, str) for t in texts)
            and math.isfinite(table["at"])
            and table["version"] > 0
            and 0 < table["size"] <= _MAX_PARTS * _PART_BYTES
        )
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise _damaged() from error
    if not is_whole:
        raise _damaged()
    return head


def _damaged() -> IntegrityError:
    return IntegrityError(
        "the head of the tenants table in the control store is damaged, or a newer hpcc wrote it:"
        " upgrade this one",
        reason="tenants-damaged",
    )
