"""Several schedulers of one farm: uses the one that answers, and another when it fails."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hpcc.core import CallerError, HpccError, InfrastructureError
from hpcc.ports import Clock, SystemClock
from hpcc.rpc.base.channel import ClientTls, open_channel
from hpcc.rpc.base.errors import BusyError, DeadlineError, UnavailableError, error_of_call
from hpcc.rpc.base.method import bearer

CALL_SECONDS: Final = 10.0
# With other schedulers to try, the wait for one that hangs is shorter.
_FAIL_OVER_SECONDS: Final = 3.0
_PATIENT_SECONDS: Final = 1.5
# The transport's reasons for no answer. A reason that a scheduler sent is more useful.
_SILENT: Final = frozenset({UnavailableError.default_reason, DeadlineError.default_reason})
# A scheduler that failed is tried last for this long. Each further failure doubles the time.
_PAUSE_SECONDS: Final = 0.5
_MAX_PAUSE_SECONDS: Final = 15.0
MAX_SCHEDULERS: Final = 16
_ENDPOINT: Final = re.compile(r"[A-Za-z0-9.\[\]:_-]{1,255}:[0-9]{1,5}")


def split_schedulers(text: str) -> tuple[str, ...]:
    """Parse `host:port[,host:port…]`; the order is kept.

    Raises:
        CallerError: an address is malformed, or there are more than `MAX_SCHEDULERS`.
    """
    endpoints = tuple(part.strip() for part in text.split(","))
    if len(endpoints) > MAX_SCHEDULERS or not all(map(_ENDPOINT.fullmatch, endpoints)):
        raise CallerError(
            f"scheduler must be host:port, or at most {MAX_SCHEDULERS} of them with commas",
            reason="scheduler-address",
        )
    return endpoints


class Schedulers:
    """Channels to the schedulers of one farm. The caller owns the channels."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], clock: Clock | None = None) -> None:
        self._channels, self._clock = tuple(channels), clock or SystemClock()
        # If every client started at the first scheduler, that one would serve all of them.
        self._current = secrets.randbelow(len(self._channels))
        self._failures = [0] * len(self._channels)
        self._retry_at = [0.0] * len(self._channels)

    def each(self) -> tuple[Schedulers, ...]:
        """Return one for each scheduler, for a question that all of them shall answer."""
        return tuple(Schedulers((channel,), self._clock) for channel in self._channels)

    @property
    def channel(self) -> grpc.aio.Channel:
        """Return the channel of the scheduler that answered last."""
        return self._channels[self._current]

    async def call(self, method: str, request: Any, response: Any, credential: str) -> Any:  # noqa: ANN401 - generated messages, named by each caller
        """Call the schedulers in turn until one answers. A refusal is an answer.

        Raises:
            HpccError: the refusal; or, if all failed, the first error that a scheduler sent
                itself, else the first error of the transport.
        """
        error: HpccError | None = None
        for index, seconds, is_patient in self._attempts():
            if is_patient and error is not None and error.reason not in _SILENT:
                break
            call = self._channels[index].unary_unary(
                f"/hpcc.v1.{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=response.FromString,
            )
            try:
                answer = await call(
                    request,
                    metadata=bearer(credential),
                    timeout=seconds,
                    wait_for_ready=is_patient,
                )
            except grpc.aio.AioRpcError as failed:
                said = error_of_call(failed)
                if not is_away(said):
                    self._answered(index)
                    raise said from failed
                self._failed(index)
                if error is None or (error.reason in _SILENT and said.reason not in _SILENT):
                    error = said
            else:
                self._answered(index)
                return answer
        assert error is not None
        raise error

    def best(self) -> tuple[grpc.aio.Channel, float]:
        """Return the channel for a new stream, and how many seconds to wait for its answer."""
        index, *others = self._order()
        return self._channels[index], _FAIL_OVER_SECONDS if others else CALL_SECONDS

    def answered(self, channel: grpc.aio.Channel) -> None:
        """Record that a scheduler answered on a stream."""
        self._answered(self._channels.index(channel))

    def failed(self, channel: grpc.aio.Channel) -> None:
        """Record that a stream to a scheduler broke."""
        self._failed(self._channels.index(channel))

    def _attempts(self) -> list[tuple[int, float, bool]]:
        """Return index, seconds, and whether to wait for a connection, in the order to try.

        gRPC itself fails calls to a scheduler that came back a moment ago, until it has tried to
        reconnect. If all schedulers failed, each gets a short time for that.
        """
        *others, last = self._order()
        quick = [*((i, _FAIL_OVER_SECONDS, False) for i in others), (last, CALL_SECONDS, False)]
        return quick + [(i, _PATIENT_SECONDS, True) for i in (*others, last) if others]

    def _order(self) -> list[int]:
        """Return the indexes: the current one, then the others; those in their pause last."""
        now, count = self._clock.monotonic(), len(self._channels)
        turns = [(self._current + step) % count for step in range(count)]
        return sorted(turns, key=lambda i: self._retry_at[i] if self._retry_at[i] > now else 0.0)

    def _answered(self, index: int) -> None:
        self._current, self._failures[index], self._retry_at[index] = index, 0, 0.0

    def _failed(self, index: int) -> None:
        pause = min(_PAUSE_SECONDS * 2.0 ** min(self._failures[index], 10), _MAX_PAUSE_SECONDS)
        self._failures[index] += 1
        self._retry_at[index] = self._clock.monotonic() + pause


def is_away(error: HpccError) -> bool:
    """Return whether another scheduler may succeed after this error."""
    return isinstance(error, InfrastructureError) and not isinstance(error, BusyError)


def pins_of(certificates_pem: bytes, addresses: int) -> list[bytes]:
    """Return which certificates, in PEM, each of several schedulers may show.

    TLS finds a root by its subject. A certificate whose subject is its own may be shown by each
    scheduler. Of those that share a subject, as all have that older versions made, there is one for
    all schedulers, or one for each in their order.

    Raises:
        CallerError: the number of certificates does not match.
    """
    by_subject: dict[bytes, list[bytes]] = {}
    try:
        for found in x509.load_pem_x509_certificates(certificates_pem):
            pem = found.public_bytes(serialization.Encoding.PEM)
            by_subject.setdefault(found.subject.public_bytes(), []).append(pem)
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise CallerError("not an X.509 certificate", reason="certificate") from error
    pins = [b""] * addresses
    for pems in by_subject.values():
        if len(pems) not in {1, addresses}:
            raise CallerError(
                f"{addresses} schedulers need one certificate, or one each in the same order",
                reason="scheduler-address",
            )
        pins = [pin + pem for pin, pem in zip(pins, pems * (addresses // len(pems)), strict=True)]
    return pins


@asynccontextmanager
async def open_schedulers(
    endpoints: str,
    *,
    certificate_pem: bytes,
    name: str,
    clock: Clock | None = None,
    client: ClientTls | None = None,
) -> AsyncGenerator[Schedulers]:
    """Open channels to `host:port[,host:port…]`; nothing is sent before the first call.

    `certificate_pem` holds the certificates; see `pins_of`.

    Raises:
        CallerError: an address is malformed, or the number of certificates does not match.
    """
    addresses = split_schedulers(endpoints)
    pins = pins_of(certificate_pem, len(addresses))
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                open_channel(address, certificate_pem=pem, name=name, client=client)
            )
            for address, pem in zip(addresses, pins, strict=True)
        ]
        yield Schedulers(channels, clock)
