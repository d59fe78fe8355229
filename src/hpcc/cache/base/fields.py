"""The encoding of records on disk and in keys: byte strings, each preceded by its length."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from hpcc.core import IntegrityError

_LENGTH: Final = struct.Struct(">I")
MAX_FIELDS: Final = 500_000


def encode_fields(fields: Iterable[bytes]) -> bytes:
    """Join byte strings, each after its length in 4 bytes; different lists give different bytes."""
    pack = _LENGTH.pack
    return b"".join([part for field in fields for part in (pack(len(field)), field)])


def decode_fields(data: bytes) -> list[bytes]:
    """Split what `encode_fields` joined; at most `MAX_FIELDS` fields.

    Raises:
        IntegrityError: the bytes are not such a list.
    """
    fields: list[bytes] = []
    offset, end = 0, len(data)
    unpack = _LENGTH.unpack_from
    while offset < end:
        if end - offset < _LENGTH.size or len(fields) >= MAX_FIELDS:
            raise IntegrityError("record is torn or too long", reason="bad-record")
        (size,) = unpack(data, offset)
        offset += _LENGTH.size
        if size > end - offset:
            raise IntegrityError("record is torn", reason="bad-record")
        fields.append(data[offset : offset + size])
        offset += size
    return fields
