"""The answer to a launcher of another build: which build the daemon has, and whether it stops."""

from __future__ import annotations

import struct
from typing import Final

from hpcc.core import CallerError
from hpcc.wire.launcher import MAX_REASON_BYTES, VERSION, frame

_FLAGS: Final = struct.Struct("<I")
_IS_DRAINING: Final = 1


def encode_version(build_id: str, *, is_draining: bool) -> bytes:
    """Return the frame; `is_draining`: this daemon is stopping."""
    name = build_id.encode("utf-8", "replace")[:MAX_REASON_BYTES]
    return frame(VERSION, _FLAGS.pack(_IS_DRAINING if is_draining else 0) + name)


def decode_version(body: bytes) -> tuple[str, bool]:
    """Return build id and `is_draining`.

    Raises:
        CallerError: the body has any other form.
    """
    if len(body) < _FLAGS.size:
        raise CallerError("version is cut off", reason="malformed-frame")
    (flags,) = _FLAGS.unpack_from(body)
    return body[_FLAGS.size :].decode("utf-8", "replace"), bool(flags & _IS_DRAINING)
