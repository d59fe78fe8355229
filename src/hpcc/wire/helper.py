"""The protocol between a worker and its helper: one packet asks, one byte answers.

The helper maps user ids into a user namespace that the calling process has just made; see ADR 69.
It runs as root, so this module imports nothing but the standard library.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

# The ids that guests of workers use: VMMs, then wardens; those of containers follow
# (`hpcc.runtime.runc.spec`). Nothing documented gives out ids between SSSD's default for domains
# (up to 2,000,200,000) and what systemd calls foreign ids (from 2,147,352,576 on); see ADR 58.
FIRST_ID: Final = 0x7740_0000
IDS: Final = 1 << 23
# Of one request: a worker's wardens share a namespace.
MAX_COUNT: Final = 128

MAPPED: Final = b"\0"
MALFORMED: Final = b"\1"
# Not the worker's process, or not in a new user namespace.
REFUSED: Final = b"\2"
ANSWER_BYTES: Final = 1

_MAGIC: Final = b"hpccmap1"
_REQUEST: Final = struct.Struct(f"<{len(_MAGIC)}sII")
# A longer packet is cut to one byte more than a request, and so is none.
READ_BYTES: Final = _REQUEST.size + 1


class MapRequest(NamedTuple):
    """`size` ids from `first` on, which are to be the same in the namespace and outside."""

    first: int
    size: int


def encode_request(request: MapRequest) -> bytes:
    """Return the packet."""
    return _REQUEST.pack(_MAGIC, request.first - FIRST_ID, request.size)


def decode_request(packet: bytes) -> MapRequest:
    """Return the request in a packet from any process of the worker.

    Raises:
        ValueError: the packet has any other form, or names other ids than those of guests.
    """
    if len(packet) != _REQUEST.size:
        raise ValueError("a request of a wrong length")
    magic, offset, count = _REQUEST.unpack(packet)
    if magic != _MAGIC:
        raise ValueError("a request of another protocol")
    if not 1 <= count <= MAX_COUNT or offset + count > IDS:
        raise ValueError("ids that are not those of guests")
    return MapRequest(FIRST_ID + offset, count)
