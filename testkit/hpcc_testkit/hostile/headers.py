"""Sends HTTP/2 headers without end to one TLS server: frames that a client library does not make.

A header of the dynamic or static table is one byte, so a frame of 16 KiB names 16,000 of them.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hpcc_testkit.hostile.peer import END_HEADERS, FRAME_BYTES, HEADERS, block, frame, settings

# An address that is excluded gets no answer at all.
_SECONDS: Final = 5.0
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# HPACK's static table: `accept-charset` and `cookie`, both with an empty value.
_ONE_BYTE: Final = b"\x8f\xa0"


@contextmanager
def http2(port: int, source: str) -> Iterator[ssl.SSLSocket]:
    """Connect from a loopback address, finish TLS, and begin HTTP/2."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    raw = socket.create_connection(
        ("127.0.0.1", port), timeout=_SECONDS, source_address=(source, 0)
    )
    with context.wrap_socket(raw) as connection:
        connection.sendall(_PREFACE + settings())
        yield connection


def call_with(path: str, count: int, stream: int = 1) -> bytes:
    """Return a call whose HEADERS frame has `count` headers more than a call needs."""
    needed = block(
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", path.encode()),
        (b":authority", b"hostile"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    more = (_ONE_BYTE * count)[:count]
    assert len(needed) + len(more) <= FRAME_BYTES
    return frame(HEADERS, END_HEADERS, stream, needed + more)


def flood(port: int, source: str, path: str, size: int) -> int:
    """Send calls of 16,000 headers; return how many bytes went before the server ended it.

    `size` is how many are sent at most.
    """
    sent = 0
    try:
        with http2(port, source) as connection:
            for stream in range(1, 1 << 30, 2):
                call = call_with(path, 16_000, stream)
                connection.sendall(call)
                sent += len(call)
                if sent >= size:
                    break
    except OSError:
        pass
    return sent


def is_ended(connection: ssl.SSLSocket) -> bool:
    """Return whether the server ends the connection, which is otherwise idle, in ten seconds."""
    connection.settimeout(10)
    try:
        while connection.recv(1 << 16):
            continue
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
