"""The bytes of a file of the private store: a record for each entry that was stored together.

A record is a header and the payload. The header holds the SHA-256 of key and payload, so a whole
record under another entry's name counts as damaged.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

_MAGIC: Final = b"hpcc-private-2\n\0"
_HEADER: Final = struct.Struct(f">{len(_MAGIC)}s32sQ")
HEADER_BYTES: Final = _HEADER.size
# A result with its manifest, and what the manifest dropped for it.
MAX_RECORDS: Final = 8


def record_of(key: bytes, payload: bytes) -> bytes:
    """Return the record of one entry."""
    return _HEADER.pack(_MAGIC, _digest_of(key, payload), len(payload)) + payload


def payload_in(key: bytes, data: bytes) -> bytes | None:
    """Return the payload with that key; None if there is none or the file is damaged."""
    found: bytes | None = None
    at = 0
    for _ in range(MAX_RECORDS):
        start = at + HEADER_BYTES
        if len(data) < start:
            return None
        magic, digest, size = _HEADER.unpack_from(data, at)
        at = start + size
        if magic != _MAGIC or len(data) < at:
            return None
        if found is None:
            payload = data[start:at]
            found = payload if _digest_of(key, payload) == digest else None
        if at == len(data):
            return found
    return None


def _digest_of(key: bytes, payload: bytes) -> bytes:
    hasher = hashlib.sha256(key)
    hasher.update(payload)
    return hasher.digest()
