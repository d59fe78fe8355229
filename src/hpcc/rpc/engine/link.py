"""The channels of a bot to the servers of one engine, and to those of its CAS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import grpc
from buildgrid.common.protos.google.devtools.remoteworkers.v1test2 import bots_pb2 as bots

from hpcc.rpc.base.channel import ClientTls
from hpcc.rpc.base.method import bearer, check_token
from hpcc.rpc.engine.messages import Bot, EngineSession, parse_session, session_message
from hpcc.rpc.reapi.client import ReapiClient
from hpcc.rpc.reapi.foreign_service import ServiceConfig, open_service_channel, service_client
from hpcc.rpc.reapi.service_calls import call_errors

_BOTS: Final = "/google.devtools.remoteworkers.v1test2.Bots"
# BuildGrid sends some 300 bytes of metadata for each lease with the end of a call.
_METADATA_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAddress:
    """Where an engine is, and how a bot proves who it is. Files are read by the caller."""

    endpoints: tuple[str, ...]
    cas_endpoints: tuple[str, ...]
    instance: str
    token: str = field(default="", repr=False)
    ca_pem: bytes = b""
    client: ClientTls | None = None
    call_seconds: float = 10.0
    transfer_seconds: float = 300.0


class EngineLink:
    """Calls one of the engine's servers; `turn` uses the next one."""

    def __init__(
        self,
        address: EngineAddress,
        bots_channels: tuple[grpc.aio.Channel, ...],
        cas: tuple[ReapiClient, ...],
    ) -> None:
        self._address, self._channels, self._cas = address, bots_channels, cas
        self._turns, self._cas_turns, self._token = 0, 0, address.token

    @property
    def cas(self) -> ReapiClient:
        """The client of the engine's CAS."""
        return self._cas[(self._turns + self._cas_turns) % len(self._cas)]

    def lost(self, cas: ReapiClient) -> None:
        """Use the next server of the CAS, unless another one than `cas` is used already.

        Several transfers fail at a time with one server, and only the first turns.
        """
        if cas is self.cas:
            self._cas_turns += 1

    @property
    def endpoint(self) -> str:
        """The server that is called now."""
        return self._address.endpoints[self._turns % len(self._channels)]

    def turn(self) -> None:
        """Call the next server from now on."""
        self._turns += 1

    def use_token(self, token: str) -> bool:
        """Send a token from the next call on; return whether it is another one.

        Raises:
            CallerError: it is not one word.
        """
        check_token(token)
        if token == self._token:
            return False
        self._token = token
        for client in self._cas:
            client.use_token(token)
        return True

    async def create(self, bot: Bot, seconds: float) -> EngineSession:
        """Begin a session. The engine gives the leases of an earlier one of this bot to others.

        Raises:
            IntegrityError: the answer breaks a rule.
            HpccError: the engine refused, failed or did not answer in time.
        """
        request = bots.CreateBotSessionRequest(
            parent=self._address.instance, bot_session=session_message(bot, None)
        )
        return await self._call("CreateBotSession", request.SerializeToString(), seconds)

    async def update(self, bot: Bot, session: EngineSession, seconds: float) -> EngineSession:
        """Report to the engine and return what it wants now; raises as `create`."""
        request = bots.UpdateBotSessionRequest(
            name=session.name, bot_session=session_message(bot, session)
        )
        return await self._call("UpdateBotSession", request.SerializeToString(), seconds)

    async def _call(self, method: str, request: bytes, seconds: float) -> EngineSession:
        channel = self._channels[self._turns % len(self._channels)]
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            f"{_BOTS}/{method}"
        )
        metadata = bearer(self._token) if self._token else ()
        with call_errors(seconds):
            answer = await call(request, metadata=metadata, timeout=seconds)
        return await asyncio.to_thread(parse_session, answer)


@asynccontextmanager
async def open_link(address: EngineAddress) -> AsyncGenerator[EngineLink]:
    """Open the channels. Nothing is sent before the first call.

    Raises:
        CallerError: an endpoint, the instance or the token has another form.
    """
    options = (("grpc.max_metadata_size", _METADATA_BYTES),)
    async with AsyncExitStack() as stack:

        async def opened(config: ServiceConfig, *more: tuple[str, int]) -> grpc.aio.Channel:
            return await stack.enter_async_context(open_service_channel(config, more))

        channels = [await opened(service_of(address, e), *options) for e in address.endpoints]
        services = [service_of(address, e) for e in address.cas_endpoints]
        clients = [service_client(await opened(service), service) for service in services]
        yield EngineLink(address, tuple(channels), tuple(clients))


def service_of(address: EngineAddress, endpoint: str) -> ServiceConfig:
    """Return how one of the engine's servers is called.

    Raises:
        CallerError: the endpoint, the instance or the token has another form.
    """
    return ServiceConfig(
        endpoint=endpoint,
        instance=address.instance,
        token=address.token,
        ca_pem=address.ca_pem,
        client=address.client,
        call_seconds=address.call_seconds,
        transfer_seconds=address.transfer_seconds,
    )
