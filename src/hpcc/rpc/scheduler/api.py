"""The scheduler's API in words of ours, for both ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from hpcc.core import (
    ClientPolicy,
    GuestReuse,
    HostReport,
    ImageDigest,
    ImageRef,
    ImageToolchains,
    Isolation,
    TenantId,
)
from hpcc.ports import SignedHead


@dataclass(frozen=True, slots=True)
class SessionGrant:
    """What `Authenticate` answers. `expires_at` in seconds since the epoch.

    `image` says which compilers are in the image that the client named; None: nobody knows.
    """

    session: str
    expires_at: float
    policy: ClientPolicy = field(default_factory=ClientPolicy)
    image: ImageToolchains | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAsk:
    """What a daemon asks. `failed_generation` is 0 unless a route just failed it.

    `client_key` (Ed25519, 32 bytes) is what the route's token is bound to; empty for none.
    `preferred_worker` is where its blobs are already; "" for no wish.
    """

    tenant: TenantId
    image: ImageRef
    minimum_isolation: Isolation | None = None
    failed_generation: int = 0
    client_key: bytes = b""
    preferred_worker: str = ""
    # The worker that served the caller last: a hint, whoever it is of.
    last_worker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One worker, and the right to use it until `token_expires_at`.

    `isolation` is the worker's word for its guests; `principal`, `guest_reuse` and
    `minimum_isolation` are what its results are held against.
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


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A worker's generation is current, or it and all before it are dead."""

    worker_id: str
    generation: int
    is_dead: bool


# The first of a watch: from here on every death is told. It is of no worker.
WATCHING: Final = RouteChange("", 0, is_dead=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a worker says of itself.

    `result_key` (32 bytes) signs its results; `result_proof` shows that it holds it.
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
    # The life it is in, where it registered before; 0 for a new one.
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a worker is told. `token_keys` are (key id, 32 bytes Ed25519)."""

    token_keys: tuple[tuple[str, bytes], ...]
    generation: int
    lease_seconds: float
    scheduler_id: str
    audience: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A sign of life. The anchor is where the worker's audit chain ends; None: it has none."""

    worker_id: str
    generation: int
    running: int
    queued: int
    anchor: SignedHead | None = None


@dataclass(frozen=True, slots=True)
class BeatAnswer:
    """Keys as in `Admission`; `generation` is the current one.

    `lease_seconds` is what the heartbeat is good for; 0 for what was said before.
    """

    token_keys: tuple[tuple[str, bytes], ...]
    generation: int
    lease_seconds: float = 0.0


class SchedulerBackend(Protocol):
    """What a scheduler does. `credential` is the bearer as sent, unchecked."""

    async def authenticate(
        self,
        credential: str,
        tenant: TenantId,
        principal: str,
        client_version: str,
        host: HostReport | None = None,
    ) -> SessionGrant: ...
    def route(self, credential: str, ask: RouteAsk) -> Route: ...
    def watch(self, credential: str, tenant: TenantId) -> AsyncGenerator[RouteChange]: ...
    async def result_keys(
        self, credential: str, tenant: TenantId, key_ids: tuple[str, ...]
    ) -> Mapping[str, bytes]: ...
    async def admit(self, certificate: bytes, worker_id: str | None) -> str:
        """Return whose certificate (PEM) a caller showed; `worker_id` is whom it claims to be."""
        ...

    # What follows is for callers that were let in.
    async def register(self, registration: Registration) -> Admission: ...
    def heartbeat(self, beat: Beat) -> BeatAnswer: ...
    def parted(self, worker_id: str) -> None:
        """Take note that the stream of a worker's heartbeats has ended, in whatever way."""
        ...

    async def sandbox_lost(
        self, worker_id: str, generation: int, guest_id: str, reason: str
    ) -> int: ...
    async def deregister(self, worker_id: str) -> None: ...
    async def result_keys_for_worker(
        self, tenant: TenantId, key_ids: tuple[str, ...]
    ) -> Mapping[str, bytes]: ...
