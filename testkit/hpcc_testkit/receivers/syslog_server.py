"""A syslog server over TLS that takes nothing but RFC 5424 in the frames of RFC 5425."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from hpcc_testkit.services.server_certificate import ServerFiles

_MAX_LENGTH_DIGITS: Final = 5
# The grammar of https://www.rfc-editor.org/rfc/rfc5424#section-6, for one element of data.
_MESSAGE: Final = re.compile(
    r"<(?P<priority>0|[1-9][0-9]{0,2})>1 "
    r"(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{1,6}Z) "
    r"(?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) (?P<id>[!-~]{1,32}) "
    r"\[(?P<element>[!#-<>-\\^-~]{1,32})"
    r"(?P<parameters>(?: [^ =\]\"]{1,32}=\"(?:[^\"\\\]]|\\[\"\\\]])*\")*)\]"
    r" (?P<text>[ -~]*)",
    re.DOTALL,
)
_PARAMETER: Final = re.compile(r" ([!#-<>-\\^-~]{1,32})=\"((?:[^\"\\\]]|\\[\"\\\]])*)\"", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SyslogMessage:
    """A message that the grammar has."""

    priority: int
    at: float
    host: str
    app: str
    process: str
    message_id: str
    element: str
    parameters: tuple[tuple[str, str], ...]
    text: str

    @property
    def fields(self) -> dict[str, str]:
        """Return the parameters by name; no name is there twice."""
        found = dict(self.parameters)
        assert len(found) == len(self.parameters), self.parameters
        return found


def parse_message(raw: bytes) -> SyslogMessage:
    """Return a message; an `AssertionError` says that it is not one."""
    found = _MESSAGE.fullmatch(raw.decode())
    assert found is not None, raw
    assert int(found["priority"]) <= 191, raw
    pairs = _PARAMETER.findall(found["parameters"])
    assert "".join(f' {name}="{value}"' for name, value in pairs) == found["parameters"], raw
    return SyslogMessage(
        int(found["priority"]),
        datetime.fromisoformat(found["time"]).timestamp(),
        found["host"],
        found["app"],
        found["process"],
        found["id"],
        found["element"],
        tuple((name, re.sub(r"\\(.)", r"\1", value)) for name, value in pairs),
        found["text"],
    )


def split_frames(raw: bytes) -> list[bytes]:
    """Return the messages of whole frames; an `AssertionError` says that there is another byte."""
    messages = []
    while raw:
        length, space, rest = raw.partition(b" ")
        assert space, raw
        assert re.fullmatch(rb"[1-9][0-9]*", length), raw
        assert len(rest) >= int(length), raw
        messages.append(rest[: int(length)])
        raw = rest[int(length) :]
    return messages


@dataclass(slots=True)
class SyslogServer:
    """What arrived, and how many connections there were."""

    port: int = 0
    connections: int = 0
    messages: asyncio.Queue[SyslogMessage] = field(default_factory=asyncio.Queue)
    # Cleared: it reads nothing.
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    # How many messages a connection may bring until the server ends it; 0: any number.
    most: int = 0
    # What it says to each client, which no server does.
    greeting: bytes = b""
    faults: list[BaseException] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one connection."""
        self.connections += 1
        count = 0
        try:
            writer.write(self.greeting)
            await self.reads.wait()
            while not self.most or count < self.most:
                length = await reader.readuntil(b" ")
                assert len(length) <= _MAX_LENGTH_DIGITS + 1
                (message,) = split_frames(length + await reader.readexactly(int(length)))
                self.messages.put_nowait(parse_message(message))
                count += 1
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client is gone
        except BaseException as error:
            self.faults.append(error)
            raise
        finally:
            writer.transport.abort()


@asynccontextmanager
async def serve_syslog(
    files: ServerFiles, *, host: str = "127.0.0.1", port: int = 0, asks: bool = False
) -> AsyncGenerator[SyslogServer]:
    """Serve on loopback while the block runs; `asks`: clients must show a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    if asks:
        context.load_verify_locations(files.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    found = SyslogServer()
    found.reads.set()
    listener = socket.create_server((host, port))
    # Inherited by connections: a server that reads nothing is soon full.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server = await asyncio.start_server(found.serve, sock=listener, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        found.reads.set()
        server.close()
        assert found.faults == []
