"""One farm, several schedulers: whichever answers is used, and left when it does not."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import grpc

from hpcc.core import CallerError, HpccError, InfrastructureError
from hpcc.ports import Clock, SystemClock
from hpcc.rpc.base.channel import ClientTls, open_channel
from hpcc.rpc.base.errors import BusyError, DeadlineError, UnavailableError, error_of_call
from hpcc.rpc.base.method import bearer

CALL_SECONDS: Final = 10.0
# One that hangs is given up sooner where there are others.
_FAIL_OVER_SECONDS: Final = 3.0
_PATIENT_SECONDS: Final = 1.5
# What a transport says of somebody's absence; a scheduler's own words are worth more.
_SILENT: Final = frozenset({UnavailableError.default_reason, DeadlineError.default_reason})
# One that failed is asked last for so long, twice as long after each further failure.
_PAUSE_SECONDS: Final = 0.5
_MAX_PAUSE_SECONDS: Final = 15.0
MAX_SCHEDULERS: Final = 16
_PEM_END: Final = b"-----END CERTIFICATE-----"
_ENDPOINT: Final = re.compile(r"[A-Za-z0-9.\[\]:_-]{1,255}:[0-9]{1,5}")


def split_schedulers(text: str) -> tuple[str, ...]:
    """Read `host:port[,host:port…]`.

    Raises:
        CallerError: it is none, or too long.
    """
    endpoints = tuple(part.strip() for part in text.split(","))
    if len(endpoints) > MAX_SCHEDULERS or not all(map(_ENDPOINT.fullmatch, endpoints)):
        raise CallerError(
            f"scheduler must be host:port, or at most {MAX_SCHEDULERS} of them with commas",
            reason="scheduler-address",
        )
    return endpoints


class Schedulers:
    """Channels to the schedulers of one farm, which belong to the caller."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], clock: Clock | None = None) -> None:
        self._channels, self._clock = tuple(channels), clock or SystemClock()
        # Where all start at the first one, the first one serves all.
        self._current = secrets.randbelow(len(self._channels))
        self._failures = [0] * len(self._channels)
        self._retry_at = [0.0] * len(self._channels)

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel of the one that answered last."""
        return self._channels[self._current]

    async def call(self, method: str, request: Any, response: Any, credential: str) -> Any:  # noqa: ANN401 - generated messages, named by each caller
        """Ask one scheduler after the other until one answers, a refusal included.

        Raises:
            HpccError: what the first one that said anything said.
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
        """Return whom to open a stream to, and how many seconds to wait for its first answer."""
        index, *others = self._order()
        return self._channels[index], _FAIL_OVER_SECONDS if others else CALL_SECONDS

    def answered(self, channel: grpc.aio.Channel) -> None:
        """Note that one of them said something on a stream."""
        self._answered(self._channels.index(channel))

    def failed(self, channel: grpc.aio.Channel) -> None:
        """Note that a stream from one of them broke."""
        self._failed(self._channels.index(channel))

    def _attempts(self) -> list[tuple[int, float, bool]]:
        """Return whom to ask, for how long, and whether to wait for a connection to be made.

        One that came back a moment ago is refused by gRPC itself until it has tried again: where
        all failed, each gets a little time for that.
        """
        *others, last = self._order()
        quick = [*((i, _FAIL_OVER_SECONDS, False) for i in others), (last, CALL_SECONDS, False)]
        return quick + [(i, _PATIENT_SECONDS, True) for i in (*others, last) if others]

    def _order(self) -> list[int]:
        """Return the current one, then the others; those that just failed last."""
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
    """Whether another scheduler may do better."""
    return isinstance(error, InfrastructureError) and not isinstance(error, BusyError)


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

    `certificate_pem` holds one certificate for all, or one for each address in the same order; not
    a bundle for each: TLS finds a root by its subject, which all of ours have in common.

    Raises:
        CallerError: an address is malformed, or the certificates are of another number.
    """
    addresses = split_schedulers(endpoints)
    pems = [end + _PEM_END for end in certificate_pem.split(_PEM_END)[:-1]]
    if len(pems) not in {1, len(addresses)}:
        raise CallerError(
            f"{len(addresses)} schedulers need one certificate, or one each in the same order",
            reason="scheduler-address",
        )
    pins = pems if len(pems) > 1 else pems * len(addresses)
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                open_channel(address, certificate_pem=pem.strip() + b"\n", name=name, client=client)
            )
            for address, pem in zip(addresses, pins, strict=True)
        ]
        yield Schedulers(channels, clock)
