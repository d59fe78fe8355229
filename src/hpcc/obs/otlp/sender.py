"""One request to a collector: blocking, for a thread that nobody waits for.

A collector is not believed. It may answer slowly, without an end, with a redirect or with bytes
that do not make sense. A request ends after `TOTAL_SECONDS` in any case, at most
`_MAX_ANSWER_BYTES` of an answer are read, and no answer leads to another address. Proxies of the
environment are not used.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from hpcc.obs.faults import connection_fault
from hpcc.obs.otlp.messages import rejected_in
from hpcc.obs.otlp.target import OtlpTarget

TRACES: Final = "/v1/traces"
LOGS: Final = "/v1/logs"
TOTAL_SECONDS: Final = 20.0
# To connect to one address, and for each piece that arrives.
_STEP_SECONDS: Final = 10.0
_MAX_ANSWER_BYTES: Final = 64 << 10
_PROTOBUF: Final = "application/x-protobuf"
_SUCCESSES: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_DENIED: Final = frozenset({401, 403})
# https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
_LATER: Final = frozenset({429, 502, 503, 504})
_MAX_WAIT_DIGITS: Final = 4
_NO_ANSWER: Final = "no answer in time"


class PostEnding(Enum):
    """What became of a request."""

    TAKEN = "taken"
    # A later try may succeed.
    LATER = "later"
    # The same request would be refused again.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class CollectorAnswer:
    """How a request ended; `what` is for people, and has no word of the collector.

    `rejected` is how many of the records it did not take, `wait_seconds` what it asks to wait.
    """

    ending: PostEnding
    what: str = ""
    rejected: int = 0
    wait_seconds: float = 0.0


class OtlpSender:
    """Sends requests to one collector, one connection for each. Any thread may use it."""

    def __init__(
        self, target: OtlpTarget, context: ssl.SSLContext | None, headers: Mapping[str, str]
    ) -> None:
        assert (context is None) is target.address.is_plain
        self._target, self._context = target, context
        self._headers = {**headers, "Content-Type": _PROTOBUF, "Connection": "close"}
        self._headers.setdefault("User-Agent", "hpcc")

    @classmethod
    def of(cls, target: OtlpTarget) -> OtlpSender:
        """Return a sender. It reads the files.

        Raises:
            CallerError: a file cannot be used.
        """
        return cls(target, target.context_or_none(), target.headers())

    @property
    def place(self) -> str:
        """Return host and port, for messages."""
        return self._target.place

    def post(self, signal: str, body: bytes) -> CollectorAnswer:
        """Send a request to `TRACES` or `LOGS`. Never raises for what a network can do."""
        connection, is_late = self._connection(), threading.Event()
        limit = threading.Timer(TOTAL_SECONDS, _cut, (connection, is_late))
        limit.daemon = True
        try:
            limit.start()
            connection.connect()
            if is_late.is_set():  # nothing ends this connection any more
                return CollectorAnswer(PostEnding.LATER, _NO_ANSWER)
            connection.request("POST", self._target.address.path + signal, body, self._headers)
            response = connection.getresponse()
            raw = response.read(_MAX_ANSWER_BYTES + 1)
            if is_late.is_set():  # it may have been cut, and then lacks its end
                return CollectorAnswer(PostEnding.LATER, _NO_ANSWER)
            return _judged(response, raw)
        except (OSError, http.client.HTTPException, ValueError, RuntimeError) as error:
            # ValueError: no host can have this name. RuntimeError: no thread is left.
            why = _NO_ANSWER if is_late.is_set() else connection_fault(error)
            return CollectorAnswer(PostEnding.LATER, why or type(error).__name__)
        finally:
            limit.cancel()
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._target.address.host, self._target.address.port
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=_STEP_SECONDS)
        return http.client.HTTPSConnection(host, port, timeout=_STEP_SECONDS, context=self._context)


def _cut(connection: http.client.HTTPConnection, is_late: threading.Event) -> None:
    """End a connection that another thread waits for."""
    is_late.set()
    found = connection.sock
    if found is not None:
        with suppress(OSError):
            # Of the plain class: TLS must not be touched while the other thread reads.
            socket.socket.shutdown(found, socket.SHUT_RDWR)


def _judged(response: http.client.HTTPResponse, raw: bytes) -> CollectorAnswer:
    status = response.status
    if status in _SUCCESSES:
        if _kind_of(response) != _PROTOBUF:
            return CollectorAnswer(PostEnding.TAKEN)  # such as a proxy's "OK"
        if len(raw) > _MAX_ANSWER_BYTES:
            return CollectorAnswer(PostEnding.REFUSED, "its answer is too large")
        try:
            return CollectorAnswer(PostEnding.TAKEN, rejected=rejected_in(raw))
        except ValueError:
            return CollectorAnswer(PostEnding.REFUSED, "its answer cannot be read")
    if status in _LATER:
        return CollectorAnswer(
            PostEnding.LATER, f"it answers {status}", wait_seconds=_wait_of(response)
        )
    if status in _REDIRECTS:
        return CollectorAnswer(PostEnding.REFUSED, "it redirects, which is not followed")
    if status in _DENIED:
        return CollectorAnswer(
            PostEnding.REFUSED, f"it answers {status}: look at otlp_headers_file"
        )
    return CollectorAnswer(PostEnding.REFUSED, f"it answers {status}")


def _kind_of(response: http.client.HTTPResponse) -> str:
    return response.getheader("Content-Type", "").partition(";")[0].strip().lower()


def _wait_of(response: http.client.HTTPResponse) -> float:
    text = response.getheader("Retry-After", "")
    is_number = text.isascii() and text.isdecimal() and len(text) <= _MAX_WAIT_DIGITS
    return float(text) if is_number else 0.0
