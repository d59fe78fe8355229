"""Channels to workers, and the proofs that go with their tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc

from hpcc.core import TenantId
from hpcc.core.memo import BoundedMemo, LruMemo
from hpcc.dispatch.routes import Lane
from hpcc.identity.proof import ProofKey
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import Clock
from hpcc.rpc.base.channel import open_channel as open_pinned
from hpcc.rpc.scheduler.api import Route

# A proof is valid for one method for a minute. Signing costs as much as the rest of a call.
_PROOF_SECONDS: Final = 10.0
# A few methods for each of the workers in use.
_MAX_PROOFS: Final = 512
# Workers come and go, each with its own address and certificate.
MAX_CHANNELS: Final = 64


@dataclass(frozen=True, slots=True)
class RoutedWorker:
    """A worker to call: its channel, the route that allows it, and the proof for each call.

    `lane` is the place of the caller's compile there; None for calls that need no place.
    """

    channel: grpc.aio.Channel
    route: Route
    tenant: TenantId
    prove: Callable[[str], str]
    lane: Lane | None = None


class WorkerChannels:
    """One channel for each worker. Only this process has the key of the proofs."""

    def __init__(self, tenant: TenantId, clock: Clock) -> None:
        self._tenant, self._clock = tenant, clock
        # A token that was copied from here does not work elsewhere.
        self._key = ProofKey()
        self._proofs: BoundedMemo[tuple[str, str], tuple[str, float]] = BoundedMemo(_MAX_PROOFS)
        self._channels: LruMemo[tuple[str, bytes], grpc.aio.Channel] = LruMemo(MAX_CHANNELS)

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def public_key(self) -> bytes:
        """The public part of the key that tokens are bound to."""
        return self._key.public

    def worker(self, route: Route, lane: Lane | None = None) -> RoutedWorker:
        """Return the worker of a route, ready to be called."""

        def prove(method: str) -> str:
            now = self._clock.now()
            proof, made_at = self._proofs.get((route.token, method), ("", 0.0))
            if not 0 <= now - made_at < _PROOF_SECONDS:
                proof = self._key.sign(route.token, method, now)
                self._proofs[route.token, method] = proof, now
            return proof

        return RoutedWorker(self._channel(route), route, self._tenant, prove, lane)

    async def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            await channel.close(0)

    def _channel(self, route: Route) -> grpc.aio.Channel:
        key = (route.endpoint, route.worker_certificate)
        channel = self._channels.use(key)
        if channel is None:
            peer = PinnedPeer.from_der(route.worker_certificate)
            channel = open_pinned(
                route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
            )
            self._channels[key] = channel  # an evicted channel closes with its last reference
        return channel
