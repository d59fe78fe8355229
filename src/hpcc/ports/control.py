"""What the schedulers of a farm share. Contract: tests/contract/test_control_store.py.

One store holds all control state of a farm. Its values are small, and choosing a route reads none
of them. An embedded store serves one scheduler. A database serves several, which inform each other
by broadcasts. A broadcast may be lost with a connection, so a watcher gets `REREAD` after each
interruption and reads again what it needs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc.core import HpccError, InfrastructureError

# For an entry's value.
MAX_VALUE_BYTES: Final = 256 << 10
# For what a worker reports about itself: images and their compilers.
MAX_FACTS_BYTES: Final = 5 << 20
# For space, key, worker and topic names.
MAX_NAME_CHARS: Final = 200
# For a broadcast: PostgreSQL carries 8,000 bytes including the topic.
MAX_NEWS_CHARS: Final = 3000
# The topic whose text is the space in which an entry changed.
ENTRY_TOPIC: Final = "entry"


class ControlStoreError(InfrastructureError):
    """The store does not answer now; values in memory stay valid."""

    default_reason = "control-store"


class ConflictError(HpccError):
    """The entry changed since it was read: read it again and decide again."""

    default_reason = "conflict"


@dataclass(frozen=True, slots=True)
class Entry:
    """One named value; `version` grows by one with each change."""

    key: str
    value: bytes
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLease:
    """A worker that is alive for `seconds` more, unless its lease is renewed.

    `since` is the generation in which it registered. `facts` are what it reported then. They are
    read by `facts`, and written only if this is not None.
    """

    worker_id: str
    generation: int
    since: int
    running: int
    queued: int
    seconds: float
    facts: bytes | None = None


# Of a worker, a tenant and a principal of it.
type ShareKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedShare:
    """Places for compiles at once that a worker leases for one principal of a tenant.

    `wanted` is what it could use. `granted` is what the last answer said. `held` is what counts: a
    worker that was granted less holds what it had until it says that it holds less.
    """

    worker_id: str
    tenant: str
    principal: str
    wanted: int
    granted: int = 0
    held: int = 0

    @property
    def key(self) -> ShareKey:
        return self.worker_id, self.tenant, self.principal


# Gets all shares that have not ended, among them the ones asked for, and returns the places of
# the latter. One that it leaves out needs no lease.
type Divide = Callable[[Mapping[ShareKey, LeasedShare]], Mapping[ShareKey, int]]
# No share is leased for longer, whatever the clock of a database does.
MAX_SHARE_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The last known end of a worker's audit chain; key and signature are the worker's."""

    worker_id: str
    count: int
    head: str
    at: float
    key: bytes = b""
    signature: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAsk:
    """A login to count. Times are seconds since the epoch; `most` limits the tenant's sessions."""

    tenant: str
    principal: str
    now: float
    expires_at: float
    most: int


@dataclass(frozen=True, slots=True)
class SessionFloor:
    """A principal's sessions with a lower serial have ended; stored until `until`."""

    tenant: str
    principal: str
    serial: int
    until: float


@dataclass(frozen=True, slots=True)
class News:
    """A broadcast; `origin` is the store handle that sent it."""

    topic: str
    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class Reread:
    """Broadcasts may have been missed, so values that were read before may be old."""


REREAD: Final = Reread()


class ControlStore(Protocol):
    """Every method may raise `ControlStoreError` in bounded time, and recovers by itself."""

    @property
    def origin(self) -> str:
        """This handle's name in `News`."""
        ...

    async def entry_or_none(self, space: str, key: str) -> Entry | None: ...

    async def entries(self, space: str) -> tuple[Entry, ...]:
        """Return all entries of a space, ordered by key."""
        ...

    async def put(self, space: str, key: str, value: bytes, *, expect: int | None = None) -> Entry:
        """Store a value and broadcast the space on `ENTRY_TOPIC`, both or neither.

        With `expect`, only if that is the entry's current version; 0 means that it does not exist.

        Raises:
            ConflictError: the entry has another version.
            CallerError: a name or value exceeds the limits.
        """
        ...

    async def delete(self, space: str, key: str) -> bool:
        """Remove an entry and broadcast it; return whether it existed."""
        ...

    async def renew(self, leases: Sequence[WorkerLease]) -> frozenset[str]:
        """Store leases unless newer ones exist; return the workers that must send their facts.

        Newer means a higher generation, or the same one with a later end.
        """
        ...

    async def end_lease(self, worker_id: str, generation: int) -> None:
        """Remove a worker's lease of this generation or an earlier one."""
        ...

    async def leases(self, known: Sequence[tuple[str, int, int]] = ()) -> tuple[WorkerLease, ...]:
        """Return the leases that have not ended, without facts. Forget those that ended long ago.

        Leases whose worker, generation and `since` are in `known` are left out.
        """
        ...

    async def facts(self, worker_ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        """Return `since` and facts of the workers that have any."""
        ...

    async def note_anchors(self, anchors: Sequence[Anchor]) -> frozenset[str]:
        """Store anchors; return the workers whose chain became shorter or was rewritten.

        The stored anchor of such a worker stays unchanged.
        """
        ...

    async def anchor_or_none(self, worker_id: str) -> Anchor | None: ...

    async def anchors(self) -> tuple[Anchor, ...]:
        """Return the anchors of all workers, ordered by worker."""
        ...

    async def open_session(self, ask: SessionAsk) -> tuple[int, tuple[SessionFloor, ...]]:
        """Count a login; return its serial, and the sessions that ended to make room for it.

        Serials of a tenant only grow. In a full tenant the oldest session of a principal ends: one
        with at least two more than the newcomer, else the newcomer, else any of all.
        """
        ...

    async def session_floors(self, now: float) -> tuple[SessionFloor, ...]:
        """Return the floors that have not expired."""
        ...

    async def lease_shares(
        self, asks: Sequence[LeasedShare], seconds: float, divide: Divide
    ) -> Mapping[ShareKey, LeasedShare]:
        """Divide places anew for workers that ask; return all shares after that.

        No other handle divides at the same time. What is asked for ends after `seconds` (at most
        `MAX_SHARE_SECONDS`), unless it is asked for again. A share of nothing is forgotten.

        Raises:
            CallerError: a name exceeds the limits.
        """
        ...

    async def tell(self, topic: str, text: str) -> None:
        """Broadcast to every watcher of the store, including this handle's own.

        Raises:
            CallerError: the broadcast exceeds the limits.
        """
        ...

    def watch(self) -> AsyncGenerator[News | Reread]:
        """Yield `REREAD`, then news, and `REREAD` again whenever some may have been missed.

        Never ends by itself: without a connection it waits for a new one.
        """
        ...
