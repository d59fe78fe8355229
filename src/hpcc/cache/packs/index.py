"""The signed index of a pack: for which commit it is, its chunks, and the records in each.

Problem: who can write the bucket can write indexes. A reader must not spend memory, disk or
requests on one that no trusted key signed, and a holder of a key must not exhaust the reader.

Rule: the object holds a header, its signature and the packed index. The signature covers format,
namespace, role, key id, commit and the digest of the packed index. It is checked first; only then
zstd and the parser see the index. Then every number in it is compared with the limits, before a
chunk is asked for.

Example: a thief copies the pack of an old commit to the name of the newest one. The header names
the old commit, and the pack is refused with `other-commit`.

What must never happen: `open_index` returns an index whose sizes do not add up, or that exceeds a
limit. An index proves nothing about a record, which is checked at its use.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

import zstandard
from cryptography.exceptions import InvalidSignature

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.signed.entry import MAX_OBJECT_BYTES, Judge
from hpcc.core import IntegrityError
from hpcc.core.reasons.remote_cache import RefusedEntry, RefusedPack
from hpcc.identity.cache_keys import ROLE_ENTRIES, CacheKey, SigningKey

_DOMAIN: Final = b"hpcc remote cache pack\0"
_FORMAT: Final = b"pack-1"
_OBJECT: Final = b"hpcc-pack-1\n"
_HEADER_FIELDS: Final = 6
_PARTS: Final = 3
_CHUNK: Final = struct.Struct(">32sIII")
_ROW: Final = struct.Struct(">32sI")
COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
MAX_CHUNKS: Final = 16_384
MAX_ROWS: Final = 131_072
# The largest index of those numbers, which hardly packs: most of it are digests.
MAX_INDEX_BYTES: Final = MAX_CHUNKS * _CHUNK.size + MAX_ROWS * _ROW.size + 64
# The same with a header and what zstd adds.
MAX_INDEX_OBJECT_BYTES: Final = MAX_INDEX_BYTES + (64 << 10)
MAX_CHUNK_BYTES: Final = 32 << 20
# Objects and manifests of one compiler pack to a third or a tenth.
MAX_RATIO: Final = 200
_MAX_WINDOW_BYTES: Final = 8 << 20
_LEVEL: Final = 3


class PackRow(NamedTuple):
    """A record in a chunk: the digest of its entry's name (32 bytes) and its size in bytes."""

    name: bytes
    size: int


class Chunk(NamedTuple):
    """`digest` is of the packed bytes, which the place has under it. Sizes are in bytes."""

    digest: bytes
    packed_bytes: int
    raw_bytes: int
    rows: tuple[PackRow, ...]

    def object_name(self, namespace: str) -> str:
        name = self.digest.hex()
        return f"v1/{namespace}/chunks/{name[:2]}/{name}"


@dataclass(frozen=True, slots=True)
class PackIndex:
    """What `open_index` accepted. `commit` is in hexadecimal."""

    commit: str
    chunks: tuple[Chunk, ...]

    @property
    def raw_bytes(self) -> int:
        return sum(chunk.raw_bytes for chunk in self.chunks)

    @property
    def packed_bytes(self) -> int:
        return sum(chunk.packed_bytes for chunk in self.chunks)

    @property
    def entries(self) -> int:
        return sum(len(chunk.rows) for chunk in self.chunks)


class PackError(IntegrityError):
    """A pack was refused; `refusal` says why."""

    def __init__(self, refusal: RefusedPack, detail: str = "") -> None:
        super().__init__(f"a pack was refused: {refusal.text}{detail}", reason=str(refusal))
        self.refusal: Final = refusal


def index_name(namespace: str, commit: str) -> str:
    """Return the name of the object with a commit's index. It does not show the commit."""
    fields = [_FORMAT, namespace.encode(), commit.encode()]
    return f"v1/{namespace}/packs/{hashlib.sha256(encode_fields(fields)).hexdigest()}"


def sign_index(index: PackIndex, namespace: str, signing: SigningKey) -> bytes:
    """Return the object for an index; equal indexes give equal bytes."""
    chunks = b"".join(_CHUNK.pack(*chunk[:3], len(chunk.rows)) for chunk in index.chunks)
    rows = b"".join(_ROW.pack(*row) for chunk in index.chunks for row in chunk.rows)
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(encode_fields([chunks, rows]))
    header = _header(index.commit, namespace, signing.key, packed)
    signature = signing.private.sign(_DOMAIN + header)
    return _OBJECT + encode_fields([header, signature, packed])


def _header(commit: str, namespace: str, key: CacheKey, packed: bytes) -> bytes:
    who = [namespace.encode(), key.role.encode(), key.kid.encode()]
    return encode_fields([_FORMAT, *who, commit.encode(), hashlib.sha256(packed).digest()])


def open_index(
    data: bytes, commit: str, namespace: str, judge: Judge, max_raw_bytes: int
) -> tuple[CacheKey, PackIndex]:
    """Return who signed an object for exactly this commit, and the index in it.

    Raises:
        PackError: it does not count, is damaged, or exceeds a limit.
    """
    header, signature, packed = _split(data)
    fields = decode_fields(header)
    if len(fields) != _HEADER_FIELDS or fields[0] != _FORMAT:
        raise PackError(RefusedPack.MALFORMED)
    key = judge(fields[3].decode("ascii", "replace"))
    if isinstance(key, RefusedEntry):
        raise PackError(RefusedPack.KEY, f" ({key.text})")
    if key.role != ROLE_ENTRIES:
        raise PackError(RefusedPack.KEY, " (its role is another one)")
    try:
        key.public.verify(signature, _DOMAIN + header)
    except InvalidSignature as error:
        raise PackError(RefusedPack.SIGNATURE) from error
    # The rest is what a holder of the key wrote.
    if fields[1] != namespace.encode():
        raise PackError(RefusedPack.NAMESPACE)
    if fields[4] != commit.encode():
        raise PackError(RefusedPack.OTHER_COMMIT)
    if header != _header(commit, namespace, key, packed):
        raise PackError(RefusedPack.SIGNATURE)
    index = PackIndex(commit, parse_index(_unpack(packed)))
    if index.raw_bytes > max_raw_bytes:
        detail = f" ({index.raw_bytes >> 20} MiB of {max_raw_bytes >> 20}: raise max_size_bytes)"
        raise PackError(RefusedPack.TOO_LARGE, detail)
    return key, index


def stored_index(data: bytes) -> PackIndex:
    """Return the index of an object that `open_index` accepted before; checks no signature.

    Raises:
        PackError: it is not such an object.
    """
    header, _, packed = _split(data)
    fields = decode_fields(header)
    commit = fields[4].decode("ascii", "replace") if len(fields) == _HEADER_FIELDS else ""
    if not COMMIT.fullmatch(commit):
        raise PackError(RefusedPack.MALFORMED)
    return PackIndex(commit, parse_index(_unpack(packed)))


def _split(data: bytes) -> tuple[bytes, bytes, bytes]:
    if not data.startswith(_OBJECT) or len(data) > MAX_INDEX_OBJECT_BYTES:
        raise PackError(RefusedPack.MALFORMED)
    try:
        parts = decode_fields(data[len(_OBJECT) :])
        if len(parts) == _PARTS:
            decode_fields(parts[0])
            return parts[0], parts[1], parts[2]
    except IntegrityError as error:
        raise PackError(RefusedPack.MALFORMED) from error
    raise PackError(RefusedPack.MALFORMED)


def _unpack(packed: bytes) -> bytes:
    try:
        size = zstandard.get_frame_parameters(packed).content_size
        if size > MAX_INDEX_BYTES:  # an unknown size is the largest 64-bit number
            raise PackError(RefusedPack.TOO_LARGE, " (its index)")
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        return reader.decompress(packed, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise PackError(RefusedPack.MALFORMED) from error


def parse_index(data: bytes) -> tuple[Chunk, ...]:
    """Return the chunks of an unpacked index of at most `MAX_INDEX_BYTES`, within all limits.

    Raises:
        PackError: it is damaged, its sizes do not add up, or it exceeds a limit.
    """
    try:
        table, rest = decode_fields(data)
        chunks, rows = list(_CHUNK.iter_unpack(table)), list(_ROW.iter_unpack(rest))
    except (IntegrityError, ValueError, struct.error) as error:
        raise PackError(RefusedPack.MALFORMED) from error
    if len(chunks) > MAX_CHUNKS or len(rows) > MAX_ROWS:
        raise PackError(RefusedPack.TOO_LARGE, " (chunks or records)")
    found, at = [], 0
    for digest, packed_bytes, raw_bytes, count in chunks:
        own = tuple(PackRow(*row) for row in rows[at : at + count])
        at += count
        if packed_bytes > MAX_OBJECT_BYTES or raw_bytes > MAX_CHUNK_BYTES:
            raise PackError(RefusedPack.TOO_LARGE, " (a chunk)")
        if raw_bytes > MAX_RATIO * packed_bytes:
            raise PackError(RefusedPack.RATIO)
        is_whole = len(own) == count and sum(row.size for row in own) == raw_bytes
        # Of a chunk without bytes, zstd would take "at most 0 bytes" for "any number".
        if not is_whole or not raw_bytes or not packed_bytes:
            raise PackError(RefusedPack.SIZES)
        found.append(Chunk(digest, packed_bytes, raw_bytes, own))
    if at != len(rows) or len({chunk.digest for chunk in found}) != len(found):
        raise PackError(RefusedPack.SIZES)
    return tuple(found)
