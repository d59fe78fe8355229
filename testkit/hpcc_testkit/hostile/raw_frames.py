"""Frames of a trail's segments, split without the product's reader."""

from __future__ import annotations

from dataclasses import dataclass

_SIGNED = 1 << 24


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame as bytes: the record's JSON and the signature, or nothing in place of it."""

    data: bytes
    signature: bytes

    def encoded(self) -> bytes:
        """Return the frame as it is in a segment."""
        body = self.data + self.signature
        return (len(body) | (_SIGNED if self.signature else 0)).to_bytes(4, "big") + body + b"\n"


def frames_of(data: bytes) -> list[RawFrame]:
    """Split a segment; written without the product's reader."""
    found, place = [], 0
    while place < len(data):
        signature_bytes = 64 if data[place] else 0
        size = int.from_bytes(data[place + 1 : place + 4], "big")
        body = data[place + 4 : place + 4 + size]
        found.append(RawFrame(body[: size - signature_bytes], body[size - signature_bytes :]))
        place += size + 5
    return found
