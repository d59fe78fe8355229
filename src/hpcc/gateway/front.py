"""Serves one call: reserves memory, authenticates the caller, finds a worker, relays bytes."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from hpcc.core import CallerError, HpccError, ImageRef, NotFoundError, TenantId
from hpcc.gateway.config import GatewayConfig
from hpcc.gateway.limits import Budget, Calls, Hold
from hpcc.gateway.metrics import GatewayMetrics
from hpcc.gateway.refusals import RefusalLog
from hpcc.gateway.routes import Place, Routes
from hpcc.gateway.visitors import Visitor, Visitors
from hpcc.reapi.action import image_of_action
from hpcc.reapi.command import image_of_command
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.base.lobby import Lobby, LobbySize, Seat, address_of
from hpcc.rpc.relay.link import IMAGE_METADATA, RelayCall, RelayedError, RelayLink
from hpcc.rpc.relay.methods import MAX_RELAY_REQUEST_BYTES, Shape, Target, operation_name
from hpcc.rpc.relay.upstream import Upstream, is_lost

_log: Final = logging.getLogger(__name__)
_MAX_WAITING: Final = 4096
# A stranger's message may have 5 MiB, and come over a slow line.
_HURRIED_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Visit:
    """A call of an authenticated caller, with the memory reserved for it."""

    link: RelayLink
    visitor: Visitor
    target: Target
    hold: Hold


class GatewayFront:
    """Serves calls. It holds no credential: the caller's token names the caller and the tenant."""

    def __init__(
        self, config: GatewayConfig, visitors: Visitors, routes: Routes,
        refusals: RefusalLog, metrics: GatewayMetrics,
    ) -> None:  # fmt: skip
        self._config, self._visitors, self._routes = config, visitors, routes
        self._refusals, self._images, self._metrics = refusals, config.images(), metrics
        self._buffers = Budget(config.max_buffer_bytes, _MAX_WAITING)
        self._lobby = Lobby(_lobby_size(config))
        self._calls = Calls()
        metrics.read(
            # Other owners are all callers together (""), and principals (TENANT/NAME).
            running=lambda: self._calls.of(lambda owner: bool(owner) and "/" not in owner),
            strangers=lambda: self._lobby.calls,
            buffer=lambda: self._buffers.sizes,
            sessions=lambda: visitors.count,
        )

    @property
    def calls(self) -> int:
        """How many calls run now, of all callers."""
        return self._calls.count("")

    async def serve(self, link: RelayLink) -> None:
        """Serve one call to its end.

        Raises:
            HpccError: the call is refused or failed; refusals are logged.
        """
        call = link.call
        try:
            with self._calls.one("", self._config.max_calls):
                async with self._visit(link) as visit:
                    with self._metrics.relaying(visit.visitor.tenant.value):
                        await self._relay(visit)
        except HpccError as error:
            self._refusals.note(call.method.name, call.peer, error)
            raise

    @asynccontextmanager
    async def _visit(self, link: RelayLink) -> AsyncGenerator[_Visit]:
        """Read the first message into reserved memory, and authenticate its sender."""
        async with AsyncExitStack() as stack:
            visit = await self._of_known(link, stack)
            if visit is None:
                async with self._lobby.seat(address_of(link.call.peer)) as seat:
                    # Another call may have shown the token meanwhile: a build starts with many.
                    visit = await self._of_known(link, stack, seat)
                    visit = visit or await self._of_stranger(link, stack, seat)
            visit.hold.shrink(len(visit.target.request) + link.call.method.answer_bytes)
            yield visit

    async def _of_known(
        self, link: RelayLink, stack: AsyncExitStack, seat: Seat | None = None
    ) -> _Visit | None:
        tenant = self._visitors.tenant_or_none(link.call.credential)
        if tenant is None:
            return None
        if seat is not None:
            seat.arrived()
        most = MAX_RELAY_REQUEST_BYTES + link.call.method.answer_bytes
        hold = await stack.enter_async_context(
            self._buffers.hold(tenant, most, self._config.call_seconds)
        )
        target = await self._target(link)
        return _Visit(link, await self._admitted(link, target, stack), target, hold)

    async def _of_stranger(self, link: RelayLink, stack: AsyncExitStack, seat: Seat) -> _Visit:
        target = await self._target(link)
        seat.arrived()
        visitor = await self._admitted(link, target, stack)
        size = len(target.request) + link.call.method.answer_bytes
        hold = await stack.enter_async_context(
            self._buffers.hold(visitor.tenant.value, size, self._config.call_seconds)
        )
        return _Visit(link, visitor, target, hold)

    async def _target(self, link: RelayLink) -> Target:
        first = await link.read(self._config.first_message_seconds)
        if first is None:
            raise CallerError("a call without a message", reason="bad-reapi-message")
        return link.call.method.target(first)

    async def _admitted(self, link: RelayLink, target: Target, stack: AsyncExitStack) -> Visitor:
        visitor = await self._visitors.admit(link.call.credential, TenantId(target.instance))
        config = self._config
        tenant, name = visitor.tenant.value, visitor.name
        stack.enter_context(self._calls.one(tenant, config.max_calls_of_tenant))
        stack.enter_context(self._calls.one(f"{tenant}/{name}", config.max_calls_of_principal))
        return visitor

    async def _relay(self, visit: _Visit) -> None:
        """Relay a call; if the worker is lost before it answers, once more by another worker."""
        place = await self._place(visit)
        if not await self._is_relayed(visit, place):
            await self._is_relayed(visit, await self._routed(visit, place.image), is_last=True)

    async def _is_relayed(self, visit: _Visit, place: Place, *, is_last: bool = False) -> bool:
        """Relay a call to one worker; return False if another worker may still run it."""
        is_begun = False
        try:
            async with aclosing(self._answers(visit, place)) as answers:
                async for answer in answers:
                    is_begun = True
                    await visit.link.write(answer, self._config.piece_seconds)
        except RelayedError as error:
            if not is_lost(error):
                raise
            # In any case the caller's next call goes to another worker, if there is one.
            self._routes.lost(visit.visitor, place)
            self._metrics.workers_lost.add()
            _log.info("worker %s is lost: %s", place.route.worker_id, error)
            # The pieces of an upload that were read cannot be sent again.
            if is_last or is_begun or visit.link.call.method.shape is Shape.STREAM_IN:
                raise
            return False
        return True

    async def _answers(self, visit: _Visit, place: Place) -> AsyncGenerator[bytes]:
        call, target, config = visit.link.call, visit.target, self._config
        up = _upstream(call, place)
        path = call.method.path
        match call.method.shape:
            case Shape.UNARY:
                yield await up.unary(path, target.request, _seconds(call, config.call_seconds))
            case Shape.STREAM_IN:
                yield await up.write(
                    visit.link,
                    target.request,
                    seconds=_seconds(call, config.transfer_seconds),
                    piece_seconds=config.piece_seconds,
                )
            case Shape.STREAM_OUT:
                is_run = target.action is not None or bool(target.operation)
                limit = config.execute_seconds if is_run else config.transfer_seconds
                stream = up.stream(path, target.request, _seconds(call, limit))
                async with aclosing(stream) as messages:
                    async for message in messages:
                        if target.action is not None:
                            self._routes.note_operation(
                                visit.visitor, operation_name(message), place.image
                            )
                        yield message

    async def _place(self, visit: _Visit) -> Place:
        image = self._image(visit)
        place = await self._routed(visit, image)
        if visit.target.action is None:
            return place
        named = await self._named_image(visit, place)
        if named is None or named == place.image:
            return place
        return await self._routed(visit, named)

    async def _routed(self, visit: _Visit, image: ImageRef) -> Place:
        try:
            return await self._routes.place(visit.visitor, image)
        except UnauthenticatedError:
            # The scheduler restarted, or the session ended. The caller's token opens another; only
            # its calls carry it.
            self._visitors.forget(visit.visitor)
            visitor = await self._visitors.admit(visit.link.call.credential, visit.visitor.tenant)
            return await self._routes.place(visitor, image)

    def _image(self, visit: _Visit) -> ImageRef:
        """Return the image by which a call is routed before its action is known.

        Raises:
            CallerError: neither the call nor the configuration names an image.
            NotFoundError: the operation is unknown here.
        """
        visitor, call = visit.visitor, visit.link.call
        if visit.target.operation:
            image = self._routes.image_of_operation(visitor, visit.target.operation)
            if image is None:
                raise NotFoundError("no such operation: it ended, or began elsewhere")
            return image
        if call.image:
            return ImageRef.parse(call.image)
        image = self._routes.last_image(visitor) or self._images.get(visitor.tenant)
        if image is None:
            raise CallerError(
                f"which image? Send a `{IMAGE_METADATA}: repo@sha256:…` header with every call"
                f" (Bazel: --remote_header={IMAGE_METADATA}=repo@sha256:…)",
                reason="no-image-header",
            )
        return image

    async def _named_image(self, visit: _Visit, place: Place) -> ImageRef | None:
        """Return the image that an action names; None if it cannot be read here and now."""
        up, tenant = _upstream(visit.link.call, place), visit.visitor.tenant
        assert visit.target.action is not None
        try:
            action = await up.small_blob_or_none(tenant, visit.target.action)
            if action is None:
                return None
            image, command_digest = image_of_action(action)
            if image is not None:
                return image
            command = await up.small_blob_or_none(tenant, command_digest)
            return None if command is None else image_of_command(command)
        except RelayedError as error:
            if is_lost(error):
                return None  # the call itself fails in the same way, and goes to another worker
            raise
        except CallerError:
            return None  # the worker refuses the call with the same error, and records that


def _upstream(call: RelayCall, place: Place) -> Upstream:
    return Upstream(place.channel, place.route.token, call.tool, prove=place.prove)


def _seconds(call: RelayCall, limit: float) -> float:
    """Return the shorter of the limit and the client's own deadline, in seconds."""
    return limit if call.seconds_left is None else min(limit, max(call.seconds_left, 0.1))


def _lobby_size(config: GatewayConfig) -> LobbySize:
    most = config.max_calls_of_strangers
    seats = min(config.max_lobby_bytes // MAX_RELAY_REQUEST_BYTES, most)
    return LobbySize(
        seats=seats,
        waiting=most - seats,
        # The message, the scheduler's answer, and the wait for memory have their own limits.
        seconds=config.first_message_seconds + 2 * config.call_seconds,
        hurried_seconds=_HURRIED_SECONDS,
        patience_seconds=config.call_seconds,
    )
