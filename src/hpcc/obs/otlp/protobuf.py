"""The wire format of protobuf, as far as OTLP needs it: fields out, and a short answer in.

Source: https://protobuf.dev/programming-guides/encoding/. As in proto3, a field with its default
value is left out, except inside a `oneof`, where the caller asks for it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}
_MASK64: Final = (1 << 64) - 1
_MAX_VARINT_BYTES: Final = 10
_MORE: Final = 0x80


def varint(value: int) -> bytes:
    """Return a number from 0 to 2**64 - 1 in groups of seven bits."""
    found = bytearray()
    while value >= _MORE:
        found.append(value & (_MORE - 1) | _MORE)
        value >>= 7
    found.append(value)
    return bytes(found)


def number(field: int, value: int, *, always: bool = False) -> bytes:
    """Return a field of type `int64`, `uint32` or an enum."""
    if not value and not always:
        return b""
    return varint(field << 3 | _VARINT) + varint(value & _MASK64)


def fixed64(field: int, value: int) -> bytes:
    """Return a field of type `fixed64`."""
    return varint(field << 3 | _FIXED64) + struct.pack("<Q", value) if value else b""


def data(field: int, value: bytes, *, always: bool = False) -> bytes:
    """Return a field of type `bytes`."""
    return message(field, value) if value or always else b""


def text(field: int, value: str, *, always: bool = False) -> bytes:
    """Return a field of type `string`. Halves of surrogate pairs, which UTF-8 lacks, become `?`."""
    return data(field, value.encode("utf-8", "replace"), always=always)


def message(field: int, content: bytes) -> bytes:
    """Return a field that holds a message, also an empty one."""
    return varint(field << 3 | _BYTES) + varint(len(content)) + content


def read_fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field: an integer, or the bytes of any other type.

    Raises:
        ValueError: the bytes are not a message.
    """
    at = 0
    while at < len(raw):
        tag, at = _read_varint(raw, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(raw, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(raw, at)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ValueError("a type that no message has")
        if size > len(raw) - at:
            raise ValueError("a field longer than its message")
        yield tag >> 3, raw[at : at + size]
        at += size


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where it ends."""
    value = 0
    for place, byte in enumerate(raw[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & (_MORE - 1)) << 7 * place
        if byte < _MORE:
            return value & _MASK64, at + place + 1
    raise ValueError("a number without an end")
