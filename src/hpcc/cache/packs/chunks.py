"""Records of a pack, and the chunks that they are packed in.

Records are sorted by the compile, not by its source, so that a changed file keeps its place. The
end of a chunk depends on the record before it and on nothing else: of two packs with equal runs of
records, the chunks are equal from the first common end on. zstd is deterministic, and so are the
signatures of Ed25519, so equal records at two times are equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import zstandard

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.packs.index import MAX_CHUNK_BYTES, MAX_RATIO, Chunk, PackError, PackRow
from hpcc.cache.signed.entry import (
    MAX_OBJECT_BYTES,
    Content,
    EntryName,
    Judge,
    SignedRecord,
    check,
    decode_content,
    seal,
)
from hpcc.core import IntegrityError
from hpcc.core.reasons.remote_cache import RefusedEntry, RefusedPack
from hpcc.identity.cache_keys import CacheKey, SigningKey

# A record in a pack is not packed by itself: the lists of headers of a build's units are nearly
# equal, and zstd finds that only within one frame.
_FORM: Final = b"pack-entry-1"
# A changed record costs one chunk on the way. A request of a smaller one costs more than its bytes.
_USUAL_BYTES: Final = 512 << 10
# Lists of headers, the largest equal part of two records, are found within it.
_LEVEL: Final = 6
_WINDOW_LOG: Final = 22
_MAX_WINDOW_BYTES: Final = 8 << 20
_DRAW_BYTES: Final = 4


class PackRecord(NamedTuple):
    """A record that a pack gets. `row_name` is the digest of its entry's name.

    `read` returns its bytes, or None if they are gone; so a pack is never in memory as a whole.
    """

    row_name: bytes
    order: tuple[bytes, bytes]
    read: Callable[[], bytes | None]


def row_name(name: EntryName, namespace: str) -> bytes:
    """Return the name by which an index lists the record of a compile."""
    return bytes.fromhex(name.object_name(namespace).rpartition("/")[2])


def signed_record(name: EntryName, namespace: str, body: bytes, signing: SigningKey) -> bytes:
    """Return the record of one result for a pack; `body` is made by `Content.encode`."""
    return encode_fields(seal(name, namespace, body, signing, _FORM))


def open_record(
    data: bytes, name: EntryName, namespace: str, judge: Judge
) -> tuple[CacheKey, Content] | RefusedEntry:
    """Return who signed a record for exactly this compile, and its content; or why it is refused.

    The same checks as for an entry of the remote cache.
    """
    try:
        record = SignedRecord(*decode_fields(data))
    except (IntegrityError, TypeError):
        return RefusedEntry.MALFORMED
    key = check(record, name, namespace, judge, _FORM)
    if isinstance(key, RefusedEntry):
        return key
    try:
        return key, decode_content(record.packed, name)
    except (IntegrityError, ValueError):
        return RefusedEntry.MALFORMED


def pack_chunks(records: Iterable[PackRecord]) -> Iterator[tuple[Chunk, bytes]]:
    """Yield chunks with their packed bytes, for records in any order; the first of a name counts.

    A record that is gone or fits in no chunk is left out.
    """
    by_name: dict[bytes, PackRecord] = {}
    for record in records:
        by_name.setdefault(record.row_name, record)
    waiting: list[tuple[bytes, bytes]] = []
    size = 0
    for record in sorted(by_name.values(), key=lambda r: (r.order, r.row_name)):
        data = record.read()
        if data is None or len(data) > MAX_CHUNK_BYTES:
            continue
        if size + len(data) > MAX_CHUNK_BYTES:
            yield from _packed(waiting)
            waiting, size = [], 0
        waiting.append((record.row_name, data))
        size += len(data)
        if _ends_chunk(data):
            yield from _packed(waiting)
            waiting, size = [], 0
    yield from _packed(waiting)


def _ends_chunk(data: bytes) -> bool:
    """Tell whether a chunk ends after this record: by chance, in proportion to its size."""
    draw = int.from_bytes(hashlib.sha256(data).digest()[:_DRAW_BYTES])
    return draw * _USUAL_BYTES < len(data) << 8 * _DRAW_BYTES


def _packed(records: list[tuple[bytes, bytes]]) -> Iterator[tuple[Chunk, bytes]]:
    if not records:
        return
    raw = b"".join(data for _, data in records)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, window_log=_WINDOW_LOG, write_content_size=1
    )
    packed = zstandard.ZstdCompressor(compression_params=parameters).compress(raw)
    if len(packed) > MAX_OBJECT_BYTES or len(raw) > MAX_RATIO * len(packed):
        # One of them is an object of zeros, or too large. It is left out, and the others are not.
        half = len(records) // 2
        if half:
            yield from _packed(records[:half])
            yield from _packed(records[half:])
        return
    rows = tuple(PackRow(name, len(data)) for name, data in records)
    yield Chunk(hashlib.sha256(packed).digest(), len(packed), len(raw), rows), packed


def unpack_chunk(chunk: Chunk, packed: bytes) -> bytes:
    """Return the records of a chunk, whose bytes may be anybody's.

    Raises:
        PackError: they are not those that the index names.
    """
    if len(packed) != chunk.packed_bytes or hashlib.sha256(packed).digest() != chunk.digest:
        raise PackError(RefusedPack.CHUNK)
    try:
        if zstandard.get_frame_parameters(packed).content_size != chunk.raw_bytes:
            raise PackError(RefusedPack.SIZES)
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        # 0 would mean without a limit; no chunk is empty.
        return reader.decompress(packed, max_output_size=chunk.raw_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise PackError(RefusedPack.CHUNK) from error
