"""An OTLP collector on loopback. OpenTelemetry's own definitions parse each byte that arrives."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from hpcc_testkit.services.server_certificate import ServerFiles

_HANG_SECONDS: Final = 60.0
_MAX_BODY: Final = 20 << 20
PROTOBUF: Final = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class CollectorReply:
    """What the collector answers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": PROTOBUF})


@dataclass(frozen=True, slots=True)
class CollectorRequest:
    """What arrived: the path, the headers in lower case, the body."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def spans(self) -> dict[tuple[str, str], list[Span]]:
        """Return the spans by name and instance of their service."""
        message = parse(ExportTraceServiceRequest, self.body)
        found: dict[tuple[str, str], list[Span]] = {}
        for group in message.resource_spans:
            about = attributes(group.resource)
            key = str(about["service.name"]), str(about.get("service.instance.id", ""))
            for scope in group.scope_spans:
                found.setdefault(key, []).extend(scope.spans)
        return found

    def logs(self) -> tuple[dict[str, object], list[LogRecord]]:
        """Return the attributes of the resource, and the records."""
        (group,) = parse(ExportLogsServiceRequest, self.body).resource_logs
        (scope,) = group.scope_logs
        assert scope.scope.name == "hpcc"
        return attributes(group.resource), list(scope.log_records)


# Any: generated messages have no common type with fields.
def attributes(message: Any) -> dict[str, object]:  # noqa: ANN401 - see above
    """Return the attributes of a message by name; no name is there twice."""
    found = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in message.attributes}
    assert len(found) == len(message.attributes), message
    return found


def parse[M: Message](kind: type[M], body: bytes) -> M:
    """Return a message in which each field is known, and which no other bytes describe better."""
    message = kind.FromString(body)
    _check_known(message)
    assert message.SerializeToString(deterministic=True) == body
    return message


def _check_known(message: Message) -> None:
    assert len(UnknownFieldSet(message)) == 0, message
    for about, value in message.ListFields():
        if about.message_type is None:
            continue
        for inner in [value] if isinstance(value, Message) else value:
            _check_known(inner)


class Collector:
    """What arrived. `answer` decides on each request."""

    def __init__(self) -> None:
        self.port = 0
        self.answer: Callable[[CollectorRequest], CollectorReply] = lambda _: CollectorReply()
        self._arrived = threading.Condition()
        self._requests: list[CollectorRequest] = []

    def add(self, request: CollectorRequest) -> CollectorReply:
        """Keep a request and return the answer to it."""
        with self._arrived:
            self._requests.append(request)
            self._arrived.notify_all()
        return self.answer(request)

    def requests(self, count: int = 0) -> list[CollectorRequest]:
        """Return what arrived; wait until there are `count`."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self._requests) >= count, _HANG_SECONDS)
            return list(self._requests)


@contextmanager
def collector(files: ServerFiles | None = None, *, host: str = "127.0.0.1") -> Iterator[Collector]:
    """Serve on loopback while the block runs, with TLS if there are `files`."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            assert size <= _MAX_BODY
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = found.add(CollectorRequest(self.path, headers, self.rfile.read(size)))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Leave out clients that refuse the certificate or are gone."""
            del request, client_address

    with Server((host, 0), Handler) as server:
        if files is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(files.certificate, files.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join(_HANG_SECONDS)
