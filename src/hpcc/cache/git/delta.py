"""Git's deltas: an object as copies from another one and inserted bytes (gitformat-pack). Pure."""

from __future__ import annotations

from typing import Final

from hpcc.cache.git.reading import GitError, TooLargeError

# A commit with a long message and signatures has a few kilobytes.
MAX_OBJECT_BYTES: Final = 1 << 20
_MAX_SHIFT: Final = 56
_COPY: Final = 0x80
_WHOLE_COPY: Final = 0x10000


def size_at(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, the lowest first, and where the next byte is.

    Raises:
        GitError: it does not end, or has over 63 bits.
    """
    value = shift = 0
    while True:
        if at >= len(data) or shift > _MAX_SHIFT:
            raise GitError("a size in a pack does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def apply_delta(base: bytes, delta: bytes, limit: int = MAX_OBJECT_BYTES) -> bytes:
    """Return the object that a delta makes of its base; at most `limit` bytes.

    Raises:
        TooLargeError: it makes more.
        GitError: it is damaged, or for another base.
    """
    base_size, at = size_at(delta, 0)
    size, at = size_at(delta, at)
    if size > limit:
        raise TooLargeError("a delta makes a too large object")
    if base_size != len(base):
        raise GitError("a delta is for another object")
    made = bytearray()
    while at < len(delta):
        code = delta[at]
        at += 1
        if code & _COPY:
            start, length, at = _copy(delta, code, at)
            part = base[start : start + length]
        else:
            length = code
            part = delta[at : at + length]
            at += length
        # Checked before each step, so that no more than `size` bytes are ever made.
        if not length or len(part) != length or len(made) + length > size:
            raise GitError("a delta is damaged")
        made += part
    if len(made) != size:
        raise GitError("a delta is damaged")
    return bytes(made)


def _copy(delta: bytes, code: int, at: int) -> tuple[int, int, int]:
    """Return start and length of a copy, whose bytes that are zero are left out."""
    values = [0] * 7
    for bit in range(7):
        if code & 1 << bit:
            if at >= len(delta):
                raise GitError("a delta is damaged")
            values[bit] = delta[at]
            at += 1
    start = int.from_bytes(values[:4], "little")
    return start, int.from_bytes(values[4:], "little") or _WHOLE_COPY, at
