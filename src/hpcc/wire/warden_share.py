"""How a warden on Windows gets its guest's stream, before the frames of `warden`: two messages.

The warden sends its process id. The worker answers with the socket, shared with that process: the
result of WSADuplicateSocket, preceded by its length. No I/O.
"""

from __future__ import annotations

import struct
from typing import Final

from hpcc.core import IntegrityError

_PID: Final = struct.Struct("<I")
_LENGTH: Final = struct.Struct("<H")
WARDEN_PID_BYTES: Final = _PID.size
WARDEN_SHARE_HEAD_BYTES: Final = _LENGTH.size
# WSAPROTOCOL_INFOW has 628 bytes.
MAX_WARDEN_SHARE_BYTES: Final = 1024


def encode_warden_pid(pid: int) -> bytes:
    """Return a warden's first message."""
    return _PID.pack(pid)


def decode_warden_pid(data: bytes) -> int:
    """Return the process id in a warden's first message.

    Raises:
        IntegrityError: it is not a process id.
    """
    if len(data) != _PID.size or not any(data):
        raise IntegrityError("no process id of a warden", reason="warden-protocol")
    return int(_PID.unpack(data)[0])


def encode_warden_share(share: bytes) -> bytes:
    """Return the worker's answer.

    Raises:
        IntegrityError: it is too long.
    """
    if not 0 < len(share) <= MAX_WARDEN_SHARE_BYTES:
        raise IntegrityError(f"a socket's share of {len(share)} bytes", reason="warden-protocol")
    return _LENGTH.pack(len(share)) + share


def decode_warden_share_length(data: bytes) -> int:
    """Return the length of the rest of the worker's answer.

    Raises:
        IntegrityError: it is too long, or zero.
    """
    if len(data) != _LENGTH.size:
        raise IntegrityError("a socket's share that is cut off", reason="warden-protocol")
    length = int(_LENGTH.unpack(data)[0])
    if not 0 < length <= MAX_WARDEN_SHARE_BYTES:
        raise IntegrityError(f"a socket's share of {length} bytes", reason="warden-protocol")
    return length
