"""Compressed objects. The first byte names the form, so that writers may use different ones."""

from __future__ import annotations

import asyncio
from typing import Final

import zstandard

from hpcc.core import IntegrityError
from hpcc.store.objects import Objects, too_large

_RAW: Final = b"\0"
_ZSTD: Final = b"\1"
# For smaller objects the frame header outweighs the saving.
_MIN_BYTES: Final = 256
# With a larger window a hostile frame could take more memory than the object that it announces.
_MAX_WINDOW_BYTES: Final = 8 << 20
# Larger objects take too long for the event loop and are unpacked in a thread.
_INLINE_BYTES: Final = 64 << 10


class ZstdObjects:
    """Stores objects compressed if that makes them smaller; with `level` 0 it only reads them."""

    def __init__(self, inner: Objects, *, level: int = 3) -> None:
        self._inner, self._level = inner, level

    async def get(self, key: str, limit: int) -> bytes:
        # Objects that do not shrink are stored raw, so a valid one has at most one byte more.
        packed = await self._inner.get(key, limit + 1)
        if packed[:1] != _ZSTD or len(packed) <= _INLINE_BYTES:
            return _unpack(packed, limit)
        return await asyncio.to_thread(_unpack, packed, limit)

    async def put(self, key: str, data: bytes) -> None:
        await self._inner.put(key, await asyncio.to_thread(self._pack, data))

    async def has(self, key: str) -> bool:
        return await self._inner.has(key)

    def _pack(self, data: bytes) -> bytes:
        if self._level and len(data) >= _MIN_BYTES:
            packed = zstandard.ZstdCompressor(level=self._level).compress(data)
            if len(packed) < len(data):
                return _ZSTD + packed
        return _RAW + data


def _unpack(packed: bytes, limit: int) -> bytes:
    kind, body = packed[:1], packed[1:]
    if kind == _RAW:
        return body
    if kind != _ZSTD:
        raise IntegrityError("the object is malformed", reason="object-form")
    try:
        parameters = zstandard.get_frame_parameters(body)
        if parameters.content_size > limit:  # an unknown size is the largest 64-bit number
            raise too_large(limit)
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        data = reader.decompress(body, max_output_size=limit, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise IntegrityError("the object is incomplete", reason="object-form") from error
    if len(data) > limit:
        raise too_large(limit)
    return data
