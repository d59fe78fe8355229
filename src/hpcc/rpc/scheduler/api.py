"""The scheduler's API as values and Protocols of hpcc, for both ends."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from hpcc.core import (
    PRIVATE_ONLY,
    ClientPolicy,
    GuestReuse,
    HostReport,
    ImageDigest,
    ImageRef,
    ImageToolchains,
    Isolation,
    SharingPolicy,
    TenantId,
)
from hpcc.ports import SignedHead, SignedTree, TreeMark

if TYPE_CHECKING:  # it imports this module
    from hpcc.rpc.scheduler.recent_events import SeenEvent

# The most routes of one answer, and the most warm workers that a request names.
MAX_ROUTES: Final = 32
MAX_WARM: Final = 64
# The most compiles at once that a worker takes, and the most that a build wants.
MAX_SLOTS: Final = 4096
# The most tenants and principals for which a worker asks at once.
MAX_ASKS: Final = 4096
# The longest time that a drain gives to what runs, and the texts of an order.
MAX_DRAIN_SECONDS: Final = 86_400.0
MAX_BY_CHARS: Final = 64
MAX_WHY_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class SessionGrant:
    """The answer to `Authenticate`. `expires_at` is in seconds since the epoch.

    `image` lists the compilers of the image that the client named; None if they are unknown.
    """

    session: str
    expires_at: float
    policy: ClientPolicy = field(default_factory=ClientPolicy)
    image: ImageToolchains | None = None
    # What the farm's schedulers show now or soon, in DER; empty says nothing.
    certificates: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAsk:
    """A route request. `failed_generation` names the generation whose route just failed, else 0.

    The route's token is bound to `client_key` (Ed25519, 32 bytes; empty for none).
    `preferred_worker` is the worker that already has the client's blobs; "" for no preference.
    """

    tenant: TenantId
    image: ImageRef
    minimum_isolation: Isolation | None = None
    failed_generation: int = 0
    client_key: bytes = b""
    preferred_worker: str = ""
    # The worker that served the caller last. It is only a hint and is not checked for ownership.
    last_worker: str = ""
    # How many compiles the caller could run at once; 0 asks for one route only.
    wanted: int = 0
    # The workers of the caller's present routes, the first first. A hint like `last_worker`.
    warm_workers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One worker, and the right to use it until `token_expires_at` (seconds since the epoch).

    `isolation` is what the worker reports about its guests. The client checks results against
    `principal`, `guest_reuse` and `minimum_isolation`.
    """

    endpoint: str
    worker_certificate: bytes
    token: str
    token_expires_at: float
    generation: int
    isolation: Isolation
    worker_id: str
    principal: str
    guest_reuse: GuestReuse
    minimum_isolation: Isolation
    # The caller's share of the worker, in compiles at once; 0 if unknown.
    slots: int = 0
    # Routes with equal text, which is not empty, lead to one action cache.
    store: str = ""
    # What the tenant accepts of colleagues' results.
    sharing: SharingPolicy = PRIVATE_ONLY
    # Whether the farm has other workers for the image.
    has_others: bool = False
    # Whether members may use results from build packs.
    packs: bool = False
    # Further routes in the order of their use; empty in those.
    more: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A worker's generation is current, or (`is_dead`) it and all earlier ones are dead."""

    worker_id: str
    generation: int
    is_dead: bool


# The most certificates of a farm's schedulers.
MAX_CERTIFICATES: Final = 32
# Sentinel sent when a watch starts. Deaths after this point are delivered. Carries no worker id.
WATCHING: Final = RouteChange("", 0, is_dead=False)
# Sent when the scheduler may have other routes for the caller. Carries no worker id.
ASK_AGAIN: Final = RouteChange("", 1, is_dead=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a worker reports about itself.

    `result_key` is the public key (32 bytes) of its signatures over results. `result_proof` shows
    that it has the private key.
    """

    worker_id: str
    endpoint: str
    certificate: bytes
    isolation: Isolation
    images: tuple[ImageDigest, ...]
    capacity: int
    result_key: bytes
    result_proof: bytes
    toolchains: tuple[ImageToolchains, ...] = ()
    # The worker's generation if it is already registered; 0 asks for a new one.
    generation: int = 0
    # Whether the worker knows the claim `share` of route tokens.
    knows_shares: bool = False
    # Whether it knows the claim `leased`, and leases places for such tenants.
    knows_leases: bool = False
    # Whether it knows the claim `sharing`.
    knows_sharing: bool = False
    # Whether it knows a budget for executions while it is idle.
    knows_verify: bool = False
    # Names the store behind its action cache, 64 hex digits; "" if it has only its disk.
    store: str = ""
    # Whether an earlier result key still signs.
    is_key_announced: bool = False
    # Whether it takes no compiles.
    is_draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The answer to a registration. `token_keys` are (key id, 32 bytes Ed25519)."""

    token_keys: tuple[tuple[str, bytes], ...]
    generation: int
    lease_seconds: float
    scheduler_id: str
    audience: str


class DrainState(enum.StrEnum):
    """Whether a worker takes compiles, and if not, whether something is left of earlier ones."""

    NONE = ""
    DRAINING = "draining"
    DRAINED = "drained"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainOrder:
    """An order to take no compiles. What runs may still take so many `seconds`.

    `by` names who gave it, and `reason` says why; both are for people and decide nothing.
    """

    seconds: float
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """What a worker says of its machine, for people: it decides nothing. What is unknown is 0.

    `load` is what runs or wants to run, for each processor. `store_bytes` and `store_limit_bytes`
    are of the tenants that it has served. `waits` compiles got a guest lately, and 95 of 100 of
    them waited for it no longer than `wait_p95_seconds`.
    """

    version: str = ""
    up_seconds: float = 0.0
    load: float = 0.0
    store_bytes: int = 0
    store_limit_bytes: int = 0
    wait_p95_seconds: float = 0.0
    waits: int = 0


NO_FACTS: Final = WorkerFacts()
"""Of a worker that does not say them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A heartbeat. `anchor` is the signed end of the worker's audit chain; None without a chain.

    `drain_seconds` is how long what runs may still take, while the worker drains.
    """

    worker_id: str
    generation: int
    running: int
    queued: int
    anchor: SignedHead | None = None
    drain: DrainState = DrainState.NONE
    drain_seconds: float = 0.0
    # The head of the tree over that chain; None of a worker that has none.
    tree: SignedTree | None = None
    facts: WorkerFacts = NO_FACTS
    # Of the worker's trail, what this stream has not carried yet.
    events: tuple[SeenEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class BeatAnswer:
    """The answer to a heartbeat. Keys as in `Admission`; `generation` is the current one.

    `lease_seconds` is how long the heartbeat counts; 0 keeps the earlier lease.
    `replace_result_key` is the id of a result key that the worker shall replace, or empty.
    """

    token_keys: tuple[tuple[str, bytes], ...]
    generation: int
    lease_seconds: float = 0.0
    replace_result_key: str = ""
    # As in `SessionGrant`.
    certificates: tuple[bytes, ...] = ()
    # None: the worker may take compiles.
    drain: DrainOrder | None = None
    # The head that the schedulers hold of the worker's tree.
    tree: TreeMark | None = None


@dataclass(frozen=True, slots=True)
class ShareAsk:
    """What a worker has for one principal. All numbers count compiles at once.

    `wanted` is the most that ran or waited lately. `held` is what may run by the last answer, or
    what still runs if that is more.
    """

    tenant: TenantId
    principal: str
    wanted: int
    held: int


@dataclass(frozen=True, slots=True)
class ShareGrants:
    """Places by tenant and principal; who is absent needs none.

    They count for `seconds` from the moment of the request. The worker asks again after
    `renew_seconds`.
    """

    places: Mapping[tuple[TenantId, str], int]
    seconds: float
    renew_seconds: float


class WorkerAdmission(Protocol):
    """Decides which certificates are those of workers."""

    async def admit(self, certificate: bytes, worker_id: str | None) -> str:
        """Return the worker id of a caller's certificate (PEM).

        `worker_id` is the id that the caller claims; None if the call names none.

        Raises:
            HpccError: the certificate is not accepted, or belongs to another worker.
        """
        ...


class SchedulerBackend(WorkerAdmission, Protocol):
    """The scheduler behind its services. `credential` is the bearer as sent, unchecked.

    Every method raises an `HpccError` with a reason where it refuses.
    """

    def judge(self, credential: str) -> None:
        """Check that a credential is a session of some tenant, before a message is read."""
        ...

    async def authenticate(
        self,
        credential: str,
        tenant: TenantId,
        principal: str,
        client_version: str,
        host: HostReport | None = None,
    ) -> SessionGrant:
        """Open a session for a principal of a tenant. `credential` is the client's token."""
        ...

    def route(self, credential: str, ask: RouteAsk) -> Route:
        """Choose a worker and sign a route token. `credential` is a session."""
        ...

    def watch(
        self, credential: str, tenant: TenantId, *, takes_several: bool = False
    ) -> AsyncGenerator[RouteChange]:
        """Yield `WATCHING`, then the changes of generations; `ASK_AGAIN` if `takes_several`."""
        ...

    async def result_keys(
        self, credential: str, tenant: TenantId, key_ids: tuple[str, ...]
    ) -> Mapping[str, bytes]:
        """Return the known keys by id (32 bytes each) that may sign results of the tenant."""
        ...

    # The methods below are called only after `admit`.
    async def register(self, registration: Registration) -> Admission:
        """Add a worker to the farm, or renew its registration."""
        ...

    def heartbeat(self, beat: Beat) -> BeatAnswer:
        """Extend a worker's lease and store its anchor."""
        ...

    def parted(self, worker_id: str) -> None:
        """Record that a worker's stream of heartbeats has ended, for any reason."""
        ...

    async def sandbox_lost(
        self, worker_id: str, generation: int, guest_id: str, reason: str
    ) -> int:
        """Record a dead guest; return the worker's generation after it."""
        ...

    async def deregister(self, worker_id: str) -> None:
        """Remove a worker from the farm."""
        ...

    async def lease_shares(self, worker_id: str, asks: Sequence[ShareAsk]) -> ShareGrants:
        """Divide the places of tenants whose limits count on the whole farm."""
        ...

    async def result_keys_for_worker(
        self, tenant: TenantId, key_ids: tuple[str, ...]
    ) -> Mapping[str, bytes]:
        """Return result keys as `result_keys` does, for a worker."""
        ...
