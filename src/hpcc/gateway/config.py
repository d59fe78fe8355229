"""The configuration file of a gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.audit.observed_config import ObservedConfig
from hpcc.core import (
    CallerError,
    ImageRef,
    TenantId,
    check_port,
)
from hpcc.rpc.base.connection_limit import CONNECTIONS_PER_ADDRESS, check_connections
from hpcc.rpc.relay.methods import MAX_RELAY_REQUEST_BYTES
from hpcc.rpc.scheduler.schedulers import split_schedulers

# So that one tenant, which may use half of it, can have a few large messages in transit.
_MIN_BUFFER_BYTES: Final = 8 * MAX_RELAY_REQUEST_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig(ObservedConfig):
    """Content of the config file of `python -m hpcc.gateway`. It holds no secret of the farm.

    `certificate` and `key` are PEM files: the chain, signed by a CA that the clients trust, and its
    private key. `default_images` are `TENANT=repo@sha256:…`, for clients that name no image before
    their first action.
    """

    scheduler: str
    scheduler_certificate_pem: str
    certificate: Path
    key: Path
    host: str = "127.0.0.1"
    port: int = 0
    # Connections of one address: see `CONNECTIONS_PER_ADDRESS`.
    connections_per_address: int = CONNECTIONS_PER_ADDRESS
    default_images: tuple[str, ...] = ()
    # Concurrent calls. Bazel has up to --jobs of them, mostly executions that wait. Callers that
    # are not authenticated yet may use half of them; their addresses take turns.
    max_calls: int = 2048
    max_calls_of_tenant: int = 1024
    max_calls_of_principal: int = 512
    # Messages in memory at the same time; one tenant may use half.
    max_buffer_bytes: int = 512 << 20
    # The same for callers whose token was not accepted yet: one message each.
    max_lobby_bytes: int = 64 << 20
    first_message_seconds: float = 20.0
    # The limit for a piece of an upload to arrive, or for an answer to be read.
    piece_seconds: float = 60.0
    call_seconds: float = 60.0
    transfer_seconds: float = 900.0
    execute_seconds: float = 7200.0

    def __post_init__(self) -> None:
        """Refuse numbers and images that cannot work."""
        check_port("port", self.port)
        check_connections(self.connections_per_address)
        split_schedulers(self.scheduler)
        self.check_observed()
        for name in ("max_calls", "max_calls_of_tenant", "max_calls_of_principal"):
            if getattr(self, name) < 1:
                raise CallerError(f"{name} must be at least 1", reason="config")
        for name in ("max_buffer_bytes", "max_lobby_bytes"):
            if getattr(self, name) < _MIN_BUFFER_BYTES:
                raise CallerError(f"{name} must be at least {_MIN_BUFFER_BYTES}", reason="config")
        for name in ("first_message", "piece", "call", "transfer", "execute"):
            if getattr(self, f"{name}_seconds") <= 0:
                raise CallerError(f"{name}_seconds must be more than 0", reason="config")
        self.images()

    @property
    def max_calls_of_strangers(self) -> int:
        """Concurrent calls of callers whose token was not accepted yet."""
        return max(self.max_calls // 2, 1)

    def images(self) -> Mapping[TenantId, ImageRef]:
        """Return the default images by tenant.

        Raises:
            CallerError: one is not `TENANT=repo@sha256:…`, or a tenant has two.
        """
        found: dict[TenantId, ImageRef] = {}
        for text in self.default_images:
            tenant, _, image = text.partition("=")
            try:
                key, ref = TenantId(tenant), ImageRef.parse(image)
            except CallerError as error:
                raise CallerError(
                    f"default_images: {text[:120]!r} is not TENANT=repo@sha256:…: {error}",
                    reason="config",
                ) from error
            if key in found:
                raise CallerError(
                    f"default_images: {text[:120]!r} is another image of its tenant",
                    reason="config",
                )
            found[key] = ref
        return found
