"""TLS for both ends: a server with a generated certificate, a client that trusts exactly one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import grpc

from hpcc.core import InfrastructureError
from hpcc.ports import SystemClock
from hpcc.rpc.base.connection_guard import ConnectionGuard
from hpcc.rpc.base.connection_limit import ConnectionLimit
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.base.header_flood import HeaderFlood

# A message carries inlined objects or a batch; 4 MiB of blobs and their digests fit easily.
MAX_MESSAGE_BYTES: Final = 16 << 20
# The most blob bytes in one batch call, as Capabilities announces it.
MAX_BATCH_BYTES: Final = 4 << 20
# The largest blob that a client may stream.
MAX_UPLOAD_BYTES: Final = 256 << 20
MAX_CONCURRENT_RPCS: Final = 1024

# A server of small messages: a login with its report of the host's compilers (64 KiB) fits.
MAX_SMALL_BYTES: Final = 68 << 10
SMALL_MESSAGES: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", MAX_SMALL_BYTES),
)

COMMON_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 << 10),
)

_BROKEN: Final = frozenset(
    {grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN}
)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """A server's key and certificate in PEM.

    With `client_roots_pem` only clients with a certificate that one of these roots signed can
    connect.
    """

    key_pem: bytes
    certificate_pem: bytes
    client_roots_pem: bytes = b""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """A client's key and certificate in PEM, for servers that ask for a certificate."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes


def open_channel(
    endpoint: str, *, certificate_pem: bytes, name: str, client: ClientTls | None = None
) -> grpc.aio.Channel:
    """Open a channel to a peer that must show `certificate_pem`, whose DNS name is `name`.

    System roots, proxies from the environment and other certificates are never used.
    """
    credentials = grpc.ssl_channel_credentials(
        root_certificates=certificate_pem,
        private_key=client.key_pem if client else None,
        certificate_chain=client.certificate_pem if client else None,
    )
    options = (
        *COMMON_OPTIONS,
        ("grpc.ssl_target_name_override", name),
        ("grpc.default_authority", name),
        # A proxy that is set for downloads must not see or redirect this connection.
        ("grpc.enable_http_proxy", 0),
        ("grpc.keepalive_time_ms", 20_000),
        # gRPC also sets TCP_USER_TIMEOUT to this: how long sent bytes may stay unacknowledged.
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    )
    return grpc.aio.secure_channel(endpoint, credentials, options=options)


async def dial(channel: grpc.aio.Channel, seconds: float) -> None:
    """Wait until a channel is connected.

    Raises:
        UnavailableError: the peer refused the connection, or did not answer for `seconds`.
    """
    state = channel.get_state(try_to_connect=True)
    try:
        async with asyncio.timeout(seconds):
            while state is not grpc.ChannelConnectivity.READY:
                if state in _BROKEN:
                    raise UnavailableError("no process accepts connections there", reason="dial")
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError as error:
        raise UnavailableError(f"no connection in {seconds:g} s", reason="dial") from error


class TlsFiles(Protocol):
    """A server's key and certificate in files that may be replaced while the server runs."""

    def changed_or_none(self) -> ServerTls | None:
        """Return the key and certificate if the files changed and are usable, else None.

        Called in a thread for each connection. It does not raise: an unusable pair is logged, and
        the server keeps the old one.
        """
        ...


async def start_server(
    handlers: Sequence[grpc.GenericRpcHandler],
    *,
    host: str,
    port: int,
    tls: ServerTls,
    files: TlsFiles | None = None,
    more_rpcs: int = 0,
    options: Sequence[tuple[str, int]] = (),
    connections_per_address: int = 0,
) -> tuple[grpc.aio.Server, int]:
    """Start serving; return the server and its port (the system chooses one if `port` is 0).

    `files` are checked at each new connection for a replacement of `tls`. `more_rpcs` is added to
    `MAX_CONCURRENT_RPCS`, for long calls. `options` are gRPC options that override the defaults.
    `connections_per_address` bounds the connections of one address, on Linux; 0 does not.

    Raises:
        InfrastructureError: the address cannot be bound.
    """
    chosen = {
        **dict(COMMON_OPTIONS),
        "grpc.so_reuseport": 0,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": 5_000,
        # What a call may send before its handler reads: 64 KiB, and not more on a fast connection.
        # A message that is read may come at once, whatever its size.
        "grpc.http2.bdp_probe": 0,
        # Calls that wait for this process. gRPC ends some of them at random when there are more,
        # honest ones too, so there is room for a burst of strangers' calls, which are refused.
        "grpc.server.max_pending_requests": 4 * MAX_CONCURRENT_RPCS,
        "grpc.server.max_pending_requests_hard_limit": 8 * MAX_CONCURRENT_RPCS,
        # For clients that connect and send nothing.
        "grpc.server_handshake_timeout_ms": 20_000,
        **dict(options),
    }
    most = MAX_CONCURRENT_RPCS + more_rpcs
    server = grpc.aio.server(options=tuple(chosen.items()), maximum_concurrent_rpcs=most)
    guards: list[ConnectionGuard] = []
    server.add_generic_rpc_handlers((HeaderFlood(guards), *handlers))
    credentials = _server_credentials(tls, files, guards)
    try:
        bound = server.add_secure_port(f"{host}:{port}", credentials)
    except RuntimeError as error:
        raise InfrastructureError(f"cannot listen on {host}:{port}", reason="listen") from error
    if not bound:
        raise InfrastructureError(f"cannot listen on {host}:{port}", reason="listen")
    if connections_per_address and sys.platform == "linux":
        guards.append(
            ConnectionGuard(bound, ConnectionLimit(connections_per_address), SystemClock())
        )
    await server.start()
    for guard in guards:
        guard.start()
    return server, bound


def _server_credentials(
    tls: ServerTls, files: TlsFiles | None, guards: Sequence[ConnectionGuard]
) -> grpc.ServerCredentials:
    """Return the credentials; for each new connection they ask `files` and tell `guards`."""
    roots, asks = tls.client_roots_pem or None, bool(tls.client_roots_pem)
    pair = (tls.key_pem, tls.certificate_pem)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        for guard in guards:
            guard.on_connection()
        new = files.changed_or_none() if files is not None else None
        if new is None:
            return None
        return grpc.ssl_server_certificate_configuration(
            [(new.key_pem, new.certificate_pem)], roots
        )

    first = grpc.ssl_server_certificate_configuration([pair], roots)
    return grpc.dynamic_ssl_server_credentials(
        first,
        changed,  # type: ignore[arg-type]  # gRPC documents None as "no change"
        require_client_authentication=asks,
    )
