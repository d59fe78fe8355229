"""An HTTP server for objects that obeys WebDAV, or misbehaves as a test says.

`ObjectServer` keeps objects in memory and makes no collections by itself, as Apache's mod_dav and
wsgidav. A test sets `trouble` to one of the names in `TROUBLES`.
"""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from hpcc_testkit.services.server_certificate import ServerFiles

TROUBLES: Final = (
    "endless",  # a body without an end
    "lying-length",  # announces more than it sends
    "short",  # announces the right length and closes in the middle
    "half",  # answers half of the object as if it were whole
    "encoded",  # claims that the body is gzip
    "silent",  # takes the request and never answers
    "drip",  # a byte at a time, without an end
    "header-drip",  # header lines without an end
    "redirect",  # to `redirect_to`
    "error",  # 500
    "denied",  # 403
    "full",  # 507 for each PUT
    "garbage",  # no HTTP
)
_PIECE: Final = b"\0" * 65_536
_DRIP_SECONDS: Final = 0.05
_HELD_SECONDS: Final = 0.01


@dataclass(slots=True)
class ObjectServer:
    """A server on loopback. `requests` are method and path of each one, in order."""

    url: str
    objects: dict[str, bytes] = field(default_factory=dict)
    collections: set[str] = field(default_factory=lambda: {"/"})
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    trouble: str = ""
    # How long each answer waits: a round trip of a service that is far away.
    latency_seconds: float = 0.0
    redirect_to: str = ""
    # Of "user:password"; "" lets everybody in.
    login: str = ""
    # Header lines that each PUT must have.
    required: dict[str, str] = field(default_factory=dict)
    sent_bytes: int = 0
    connections: int = 0
    ended: threading.Event = field(default_factory=threading.Event, repr=False)
    # While it is clear, requests wait.
    gate: threading.Event = field(default_factory=threading.Event, repr=False)
    # A request with such a method and path waits. If its client goes away, it is dropped.
    holds: Callable[[str, str], bool] = field(default=lambda _method, _path: False, repr=False)

    def count(self, method: str) -> int:
        return sum(1 for used, _ in self.requests if used == method)


@contextmanager
def object_server(tls: ServerFiles | None = None) -> Iterator[ObjectServer]:
    """Run a server until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        # The handshake is left to the thread of the connection.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    scheme = "http" if tls is None else "https"
    state = ObjectServer(f"{scheme}://127.0.0.1:{server.server_address[1]}/cache")
    state.collections.add("/cache/")
    state.gate.set()
    server.state = state  # type: ignore[attr-defined]  # the handler's, which gets only the server
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.ended.set()
        state.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: the second one must not wait for the first one's ACK.
    disable_nagle_algorithm = True

    @property
    def state(self) -> ObjectServer:
        found = self.server.state  # type: ignore[attr-defined]  # set above
        assert isinstance(found, ObjectServer)
        return found

    def setup(self) -> None:
        super().setup()
        self.state.connections += 1

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def do_GET(self) -> None:
        self._serve(b"")

    def do_HEAD(self) -> None:
        self._serve(b"")

    def do_PUT(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"] or 0)))

    def do_MKCOL(self) -> None:
        self._serve(b"")

    def _serve(self, body: bytes) -> None:
        state, path = self.state, self.path
        state.requests.append((self.command, path))
        state.headers.append({k.lower(): v for k, v in self.headers.items()})
        state.gate.wait(60)
        if not self._is_awaited():
            self.close_connection = True
            return
        if state.latency_seconds:
            state.ended.wait(state.latency_seconds)
        login = "Basic " + base64.b64encode(state.login.encode()).decode()
        if state.login and self.headers.get("Authorization") != login:
            self._answer(401)
        elif state.trouble:
            with suppress(OSError):
                self._misbehave(state.objects.get(path, b""))
        elif self.command == "PUT":
            self._put(path, body)
        elif self.command == "MKCOL":
            self._make_collection(path)
        else:
            data = state.objects.get(path)
            self._answer(404 if data is None else 200, data or b"")

    def _is_awaited(self) -> bool:
        """Wait while the test holds this request; return whether its client is still there."""
        state, was_held = self.state, False
        while state.holds(self.command, self.path) and not state.ended.wait(_HELD_SECONDS):
            was_held = True
        if not was_held:
            return True
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _put(self, path: str, body: bytes) -> None:
        state = self.state
        wrong = [k for k, v in state.required.items() if self.headers.get(k) != v]
        if wrong:
            self._answer(400)
        elif path.partition("?")[0].rpartition("/")[0] + "/" not in state.collections:
            self._answer(409)
        else:
            state.objects[path] = body
            self._answer(201)

    def _make_collection(self, path: str) -> None:
        collections = self.state.collections
        parent = path.rstrip("/").rpartition("/")[0] + "/"
        status = 405 if path in collections else 201 if parent in collections else 409
        if status == 201:
            collections.add(path)
        self._answer(status)

    def _answer(self, status: int, data: bytes = b"") -> None:
        data = data or (b"" if status < 300 else b"<Error/>")
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self._send(data)

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.state.sent_bytes += len(data)

    def _misbehave(self, data: bytes) -> None:
        trouble = self.state.trouble
        if trouble in {"error", "denied", "full"}:
            is_read = self.command != "PUT" and trouble == "full"
            self._answer(404 if is_read else {"error": 500, "denied": 403, "full": 507}[trouble])
            return
        self.close_connection = True
        if trouble == "redirect":
            self.send_response(302)
            self.send_header("Location", self.state.redirect_to)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif trouble == "garbage":
            self._send(b"\x16\x03\x01" + bytes(1000))
        elif trouble == "silent":
            self.state.ended.wait(60)
        elif trouble == "header-drip":
            self._send(b"HTTP/1.1 200 OK\r\n")
            self._drip(b"X-A: b\r\n")
        else:
            self._bad_body(trouble, data)
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _bad_body(self, trouble: str, data: bytes) -> None:
        length = {"lying-length": len(data) + 10, "short": len(data), "half": len(data) // 2}
        self.send_response(200)
        if trouble in length:
            self.send_header("Content-Length", str(length[trouble]))
        if trouble == "encoded":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if trouble == "endless":
            while not self.state.ended.is_set():
                self._send(_PIECE)
        elif trouble == "drip":
            self._drip(b"\0")
        else:
            self._send(data if trouble in {"lying-length", "encoded"} else data[: len(data) // 2])

    def _drip(self, piece: bytes) -> None:
        while not self.state.ended.wait(_DRIP_SECONDS):
            self._send(piece)
