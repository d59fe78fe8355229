"""What the schedulers of a farm know together. Contract: tests/contract/test_control_store.py.

One store is the whole memory of a farm's control: small things, none of them on the path of a
route. An embedded one serves one scheduler; a database serves several, and then broadcasts are how
one tells the others. A broadcast may be lost with a connection: whoever watches is told
`REREAD` after each interruption and reads again what it cares for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc.core import HpccError, InfrastructureError

# Of an entry's value.
MAX_VALUE_BYTES: Final = 256 << 10
# Of what a worker says of itself: images and their compilers.
MAX_FACTS_BYTES: Final = 5 << 20
# Of space, key, worker and topic names.
MAX_NAME_CHARS: Final = 200
# Of a broadcast: PostgreSQL carries 8,000 bytes, topic and all.
MAX_NEWS_CHARS: Final = 3000
# The topic that tells which space an entry changed in.
ENTRY_TOPIC: Final = "entry"


class ControlStoreError(InfrastructureError):
    """The store does not answer now; what is in memory stays good."""

    default_reason = "control-store"


class ConflictError(HpccError):
    """The entry changed since it was read: read it again and decide anew."""

    default_reason = "conflict"


@dataclass(frozen=True, slots=True)
class Entry:
    """One named value; `version` grows by one with each change of it."""

    key: str
    value: bytes
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLease:
    """A worker that lives for `seconds` more, unless it is renewed.

    `since` is the generation it registered with; `facts`, what it said of itself then, are read by
    `facts` and written only where this is not None.
    """

    worker_id: str
    generation: int
    since: int
    running: int
    queued: int
    seconds: float
    facts: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Where a worker's audit chain ended when last heard of; key and signature are its own."""

    worker_id: str
    count: int
    head: str
    at: float
    key: bytes = b""
    signature: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAsk:
    """A login to be counted. Times are seconds since the epoch; `most` bounds the tenant's."""

    tenant: str
    principal: str
    now: float
    expires_at: float
    most: int


@dataclass(frozen=True, slots=True)
class SessionFloor:
    """Sessions of a principal with a serial below this one are over; kept until `until`."""

    tenant: str
    principal: str
    serial: int
    until: float


@dataclass(frozen=True, slots=True)
class News:
    """A broadcast; `origin` is the store handle it was told through."""

    topic: str
    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class Reread:
    """Broadcasts may have been missed: what was read before may be old."""


REREAD: Final = Reread()


class ControlStore(Protocol):
    """Every method may raise `ControlStoreError`, in bounded time, and works again by itself."""

    @property
    def origin(self) -> str:
        """This handle's own name in `News`."""
        ...

    async def entry_or_none(self, space: str, key: str) -> Entry | None: ...

    async def entries(self, space: str) -> tuple[Entry, ...]:
        """Return all entries of a space, ordered by key."""
        ...

    async def put(self, space: str, key: str, value: bytes, *, expect: int | None = None) -> Entry:
        """Keep a value and tell `ENTRY_TOPIC` the space, both or neither.

        With `expect` only if that is the entry's version now; 0 is for one that does not exist.

        Raises:
            ConflictError: another version is there.
            CallerError: a name or value beyond the limits.
        """
        ...

    async def delete(self, space: str, key: str) -> bool:
        """Remove an entry and tell; say whether it was there."""
        ...

    async def renew(self, leases: Sequence[WorkerLease]) -> frozenset[str]:
        """Keep these leases where none newer is; return workers that must come with their facts.

        Newer is a higher generation, or the same with a later end.
        """
        ...

    async def end_lease(self, worker_id: str, generation: int) -> None:
        """Remove a worker's lease of this generation or an earlier one."""
        ...

    async def leases(self, known: Sequence[tuple[str, int, int]] = ()) -> tuple[WorkerLease, ...]:
        """Return the leases that have not ended, without facts; forget what ended long ago.

        Those whose worker, generation and `since` are among the `known` are left out.
        """
        ...

    async def facts(self, worker_ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        """Return `since` and facts of those that are there."""
        ...

    async def note_anchors(self, anchors: Sequence[Anchor]) -> frozenset[str]:
        """Keep anchors; return the workers whose chain is shorter than it was, or changed there.

        The anchor of such a worker stays what it was.
        """
        ...

    async def anchor_or_none(self, worker_id: str) -> Anchor | None: ...

    async def anchors(self) -> tuple[Anchor, ...]:
        """Return the anchors of all workers, ordered by worker."""
        ...

    async def open_session(self, ask: SessionAsk) -> tuple[int, tuple[SessionFloor, ...]]:
        """Count a login; return its serial, and what ended to make room for it.

        Serials of a tenant only grow. In a full tenant the oldest session ends of whoever has two
        or more than the newcomer, else of the newcomer, else of all.
        """
        ...

    async def session_floors(self, now: float) -> tuple[SessionFloor, ...]:
        """Return the floors that are still of use."""
        ...

    async def tell(self, topic: str, text: str) -> None:
        """Broadcast to every watcher of the store, this handle's own included.

        Raises:
            CallerError: beyond the limits.
        """
        ...

    def watch(self) -> AsyncGenerator[News | Reread]:
        """Yield `REREAD`, then news; `REREAD` again whenever some may have been missed.

        Never ends by itself: without a connection it waits for one.
        """
        ...
