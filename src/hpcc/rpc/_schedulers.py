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
from hpcc.rpc._channel import ClientTls, open_channel
from hpcc.rpc._errors import BusyError, DeadlineError, UnavailableError, error_of_call
from hpcc.rpc._method import bearer

CALL_SECONDS: Final = 10.0
# One that hangs is given up sooner where there are others.
_FAIL_OVER_SECONDS: Final = 3.0
# One that failed is asked last for so long, twice as long after each further failure.
_PAUSE_SECONDS: Final = 0.5
_MAX_PAUSE_SECONDS: Final = 15.0
MAX_SCHEDULERS: Final = 16
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
        order, error = self._order(), None
        for place, index in enumerate(order):
            is_last = place == len(order) - 1
            call = self._channels[index].unary_unary(
                f"/hpcc.v1.{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=response.FromString,
            )
            seconds = CALL_SECONDS if is_last else _FAIL_OVER_SECONDS
            try:
                answer = await call(request, metadata=bearer(credential), timeout=seconds)
            except grpc.aio.AioRpcError as failed:
                said = error_of_call(failed)
                if not _is_away(said):
                    self._answered(index)
                    raise said from failed
                self._failed(index)
                error = _better(error, said)
            else:
                self._answered(index)
                return answer
        assert error is not None
        raise error

    def failed(self, channel: grpc.aio.Channel) -> None:
        """Note that a stream from one of them broke."""
        self._failed(self._channels.index(channel))

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


def _is_away(error: HpccError) -> bool:
    """Whether another scheduler may do better."""
    return isinstance(error, InfrastructureError) and not isinstance(error, BusyError)


def _better(old: HpccError | None, new: HpccError) -> HpccError:
    """Prefer what a scheduler said to what a transport says of its absence."""
    silent = {UnavailableError.default_reason, DeadlineError.default_reason}
    return new if old is None or old.reason in silent else old


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

    `certificate_pem` may hold the certificates of several, all for `name`.

    Raises:
        CallerError: an address is malformed.
    """
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                open_channel(endpoint, certificate_pem=certificate_pem, name=name, client=client)
            )
            for endpoint in split_schedulers(endpoints)
        ]
        yield Schedulers(channels, clock)
