"""Routes callers to workers. A caller keeps its worker while that lives: its blobs are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import grpc

from hpcc.core import ImageRef, TenantId
from hpcc.core.memo import LruMemo
from hpcc.gateway.visitors import Visitor
from hpcc.identity.proof import ProofKey
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import Clock
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.scheduler.api import Route, RouteAsk
from hpcc.rpc.scheduler.client import SchedulerClient

MAX_ROUTES: Final = 16_384
MAX_CHANNELS: Final = 1024
MAX_OPERATIONS: Final = 65_536
_RENEW_BEFORE_SECONDS: Final = 60.0

type _Who = tuple[TenantId, str]


@dataclass(frozen=True, slots=True)
class Place:
    """An image on a worker, and the right of one caller to use it."""

    image: ImageRef
    route: Route
    channel: grpc.aio.Channel
    prove: Callable[[str], str]


class Routes:
    """Routes by caller and image. A caller's last worker is the preferred one of its next route."""

    def __init__(self, client: SchedulerClient, clock: Clock) -> None:
        self._client, self._clock = client, clock
        # Only this process has it, so a route token that leaks from here is useless elsewhere.
        self._key = ProofKey()
        self._routes: LruMemo[tuple[_Who, ImageRef], Route] = LruMemo(MAX_ROUTES)
        self._failed: LruMemo[tuple[_Who, ImageRef], int] = LruMemo(MAX_ROUTES)
        self._worker_of: LruMemo[_Who, str] = LruMemo(MAX_ROUTES)
        self._image_of: LruMemo[_Who, ImageRef] = LruMemo(MAX_ROUTES)
        self._operations: LruMemo[tuple[_Who, str], ImageRef] = LruMemo(MAX_OPERATIONS)
        self._channels: LruMemo[tuple[str, bytes], grpc.aio.Channel] = LruMemo(MAX_CHANNELS)
        self._locks: WeakValueDictionary[tuple[_Who, ImageRef], asyncio.Lock] = (
            WeakValueDictionary()
        )

    def last_image(self, visitor: Visitor) -> ImageRef | None:
        return self._image_of.use(_who(visitor))

    def note_operation(self, visitor: Visitor, name: str, image: ImageRef) -> None:
        """Remember where an execution runs, for a caller that reconnects to wait for it."""
        self._operations[_who(visitor), name] = image

    def image_of_operation(self, visitor: Visitor, name: str) -> ImageRef | None:
        return self._operations.use((_who(visitor), name))

    async def place(self, visitor: Visitor, image: ImageRef) -> Place:
        """Return a worker for this caller and image.

        Raises:
            UnauthenticatedError: the session is over.
            HpccError: the scheduler is unreachable, refuses, or knows no worker.
        """
        who = _who(visitor)
        key = (who, image)
        # One request to the scheduler for all calls of a build.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            route = self._routes.use(key)
            if route is None or self._is_due(route):
                route = await self._ask(visitor, image)
                self._routes[key] = route
                self._failed.pop(key, None)
        # Only now, so that a refused image never counts as the last one of the caller.
        self._worker_of[who] = route.worker_id
        self._image_of[who] = image
        return self._placed(image, route)

    def lost(self, visitor: Visitor, place: Place) -> None:
        """Drop a route that failed, so that the next request asks for another."""
        key = (_who(visitor), place.image)
        if self._routes.use(key) is place.route:
            del self._routes[key]
            self._failed[key] = place.route.generation

    async def close(self) -> None:
        for channel in tuple(self._channels.values()):
            await channel.close(0)

    async def _ask(self, visitor: Visitor, image: ImageRef) -> Route:
        who = _who(visitor)
        ask = RouteAsk(
            tenant=visitor.tenant,
            image=image,
            failed_generation=self._failed.use((who, image)) or 0,
            client_key=self._key.public,
            preferred_worker=self._worker_of.use(who) or "",
        )
        return await self._client.route(visitor.grant.session, ask)

    def _is_due(self, route: Route) -> bool:
        return route.token_expires_at - _RENEW_BEFORE_SECONDS < self._clock.now()

    def _placed(self, image: ImageRef, route: Route) -> Place:
        def prove(method: str) -> str:
            return self._key.sign(route.token, method, self._clock.now())

        return Place(image, route, self._channel(route), prove)

    def _channel(self, route: Route) -> grpc.aio.Channel:
        key = (route.endpoint, route.worker_certificate)
        channel = self._channels.use(key)
        if channel is None:
            peer = PinnedPeer.from_der(route.worker_certificate)
            channel = open_channel(
                route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
            )
            # One that goes is closed when its last call has ended and nobody holds it.
            self._channels[key] = channel
        return channel


def _who(visitor: Visitor) -> _Who:
    return (visitor.tenant, visitor.name)
