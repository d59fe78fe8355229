"""Entries of a remote cache: signed and packed, or checked and unpacked.

Problem: a thief of the bucket's credential can write, move, replace or replay objects there. A
build must not get one byte from the thief.

Rule: an object holds a few records, the newest first. Each is signed on its own, by the holder of a
key that the reader has confirmed. The signature covers the format, the namespace, the key's role
and id, the shared key of the compile, the digest of its source, the compiler's identity, and the
digest of the packed content: inputs, all outputs, exit code and messages. So a record cannot be
moved to another compile, namespace, compiler or role.

Nothing unsigned is unpacked: the signature is checked first, then the digest of the packed bytes,
and only then zstd and the decoders see the content, with limits.

Example: a thief stores CI's record for a.c under the name of b.c. The signature is CI's, the shared
key in it is not that of b.c, and the compile misses with `refused.other-key`.

What must never happen: `open_object` returns a result that no trusted key signed for exactly this
compile. An old record that was signed for it may come back. It then has the inputs that it was made
from, and the look-up compares them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import zstandard
from cryptography.exceptions import InvalidSignature

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.manifest import InputSet, decode_manifest, encode_manifest
from hpcc.cache.results.results import Result, decode_result, encode_result
from hpcc.compilers.invocation.share import ROOT_MARK
from hpcc.core import IntegrityError
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import ROLE_ENTRIES, CacheKey, SigningKey

_DOMAIN: Final = b"hpcc remote cache entry\0"
_FORMAT: Final = b"entry-1"
_OBJECT: Final = b"hpcc-remote-cache-1\n"
# States of the headers of one source. Each costs every reader its bytes.
MAX_RECORDS: Final = 4
# An object file of 50 MB with debug information packs to less.
MAX_OBJECT_BYTES: Final = 16 << 20
# With a larger window a frame could take more memory than the content that it announces.
_MAX_WINDOW_BYTES: Final = 8 << 20
_LEVEL: Final = 3
_HEADER_FIELDS: Final = 8
_SIGNATURE_BYTES: Final = 64
_SUCCESS: Final = b"0"


class EntryName(NamedTuple):
    """What an entry is for: the shared key, the digest of the source, the compiler's identity."""

    share_key: bytes
    source: bytes
    compiler: bytes

    def object_name(self, namespace: str) -> str:
        """Return the name of the object, in which all people of a namespace look for it."""
        name = hashlib.sha256(encode_fields([_FORMAT, namespace.encode(), *self])).hexdigest()
        return f"v1/{namespace}/{name[:2]}/{name}"


class Content(NamedTuple):
    """One set of inputs and its result, with marks in place of a checkout's root."""

    inputs: InputSet
    result: Result

    def encode(self) -> bytes:
        """Return the bytes that are packed; equal contents give equal bytes."""
        return encode_fields(
            [_SUCCESS, encode_manifest((self.inputs,)), encode_result(self.result)]
        )


class SignedRecord(NamedTuple):
    """A record as it is in an object; nothing in it has been checked."""

    header: bytes
    signature: bytes
    packed: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """The records of an object that count, newest first, and why others do not."""

    contents: tuple[tuple[CacheKey, Content], ...] = ()
    refused: tuple[RefusedEntry, ...] = ()


Judge = Callable[[str], CacheKey | RefusedEntry]
"""Returns the trusted key of an id, or why it does not count."""


def sign(name: EntryName, namespace: str, content: Content, signing: SigningKey) -> SignedRecord:
    """Pack and sign one result."""
    return seal(name, namespace, pack(content.encode()), signing)


def pack(body: bytes) -> bytes:
    """Return the body as one zstd frame, which announces its size."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(body)


def seal(
    name: EntryName, namespace: str, data: bytes, signing: SigningKey, form: bytes = _FORMAT
) -> SignedRecord:
    """Sign bytes in the form that `form` names, whatever they are: readers check them."""
    header = _header(name, namespace, signing.key, data, form)
    return SignedRecord(header, signing.private.sign(_DOMAIN + header), data)


def _header(
    name: EntryName, namespace: str, key: CacheKey, packed: bytes, form: bytes = _FORMAT
) -> bytes:
    own = [form, namespace.encode(), key.role.encode(), key.kid.encode()]
    return encode_fields([*own, *name, hashlib.sha256(packed).digest()])


def decode_content(body: bytes, name: EntryName) -> Content:
    """Decode what `Content.encode` made for this compile.

    Raises:
        IntegrityError, ValueError: it is something else, or not of this source.
    """
    code, manifest, stored = decode_fields(body)
    (inputs,) = decode_manifest(manifest)
    result = decode_result(stored)
    # A set without the source would hold everywhere.
    is_of_source = bool(inputs.files) and inputs.files[0][1] == name.source
    if code != _SUCCESS or not is_of_source or not all(map(_is_name, _names(inputs))):
        raise IntegrityError("not the content of an entry", reason="bad-record")
    return Content(inputs, result)


def join_records(new: SignedRecord, older: tuple[SignedRecord, ...]) -> bytes:
    """Return an object: the new record, then older ones with other content while they fit."""
    kept, size = [new], len(_OBJECT) + _size(new)
    for record in older:
        if record.header == new.header or len(kept) >= MAX_RECORDS:
            continue
        if size + _size(record) <= MAX_OBJECT_BYTES:
            kept.append(record)
            size += _size(record)
    return _OBJECT + encode_fields(encode_fields(record) for record in kept)


def _size(record: SignedRecord) -> int:
    return sum(map(len, record)) + 4 * (len(record) + 1)


def split_records(data: bytes) -> tuple[SignedRecord, ...]:
    """Split an object, whose records may be anybody's.

    Raises:
        IntegrityError: it is not an object of this version.
    """
    if not data.startswith(_OBJECT) or len(data) > MAX_OBJECT_BYTES:
        raise IntegrityError("not an object of a remote cache", reason="bad-record")
    records = [decode_fields(field) for field in decode_fields(data[len(_OBJECT) :])]
    has_parts = all(len(record) == len(SignedRecord._fields) for record in records)
    if not has_parts or not 0 < len(records) <= MAX_RECORDS:
        raise IntegrityError("not an object of a remote cache", reason="bad-record")
    return tuple(SignedRecord(*record) for record in records)


def check(
    record: SignedRecord, name: EntryName, namespace: str, judge: Judge, form: bytes = _FORMAT
) -> CacheKey | RefusedEntry:
    """Return the key that signed this record for exactly this compile, or what is wrong."""
    try:
        fields = decode_fields(record.header)
    except IntegrityError:
        return RefusedEntry.MALFORMED
    is_odd = len(fields) != _HEADER_FIELDS or len(record.signature) != _SIGNATURE_BYTES
    if is_odd or fields[0] != form:
        return RefusedEntry.MALFORMED
    key = judge(fields[3].decode("ascii", "replace"))
    if isinstance(key, RefusedEntry):
        return key
    if key.role != ROLE_ENTRIES:
        return RefusedEntry.ROLE
    try:
        key.public.verify(record.signature, _DOMAIN + record.header)
    except InvalidSignature:
        return RefusedEntry.SIGNATURE
    if fields[1] != namespace.encode():
        return RefusedEntry.NAMESPACE
    # The rest is what a holder of the key wrote.
    if fields[4:7] != list(name):
        return RefusedEntry.OTHER_KEY
    expected = _header(name, namespace, key, record.packed, form)
    return key if expected == record.header else RefusedEntry.SIGNATURE


def unpack(record: SignedRecord, name: EntryName, limit: int) -> Content | RefusedEntry:
    """Return the content of a record that `check` accepted, of at most `limit` bytes."""
    try:
        size = zstandard.get_frame_parameters(record.packed).content_size
        if size > limit:  # an unknown size is the largest 64-bit number
            return RefusedEntry.TOO_LARGE
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        body = reader.decompress(record.packed, max_output_size=limit, allow_extra_data=False)
        return decode_content(body, name)
    except (zstandard.ZstdError, IntegrityError, ValueError):
        return RefusedEntry.MALFORMED


def _names(inputs: InputSet) -> Iterator[bytes]:
    yield from (path for path, _ in inputs.files)
    yield from inputs.present
    yield from (absence.directory for absence in inputs.absences)


def _is_name(path: bytes) -> bool:
    """Tell whether a path is absolute, or a mark with what is below the root."""
    return b"\0" not in path.removeprefix(ROOT_MARK) and path[:1] in {b"/", ROOT_MARK}


def open_object(data: bytes, name: EntryName, namespace: str, judge: Judge, limit: int) -> Opened:
    """Return what counts of an object; `limit` bounds the unpacked bytes of one record."""
    try:
        records = split_records(data)
    except IntegrityError:
        return Opened(refused=(RefusedEntry.MALFORMED,))
    found: list[tuple[CacheKey, Content]] = []
    refused: list[RefusedEntry] = []
    for record in records:
        key = check(record, name, namespace, judge)
        if isinstance(key, RefusedEntry):
            refused.append(key)
            continue
        content = unpack(record, name, limit)
        if isinstance(content, RefusedEntry):
            refused.append(content)
        else:
            found.append((key, content))
    return Opened(tuple(found), tuple(refused))
