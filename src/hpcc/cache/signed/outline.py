"""Outlines of entries: what `hpcc explain` compares a miss with, without names, values or digests.

Problem: a developer's compile misses, and CI has built the same file an hour ago. An entry's name
is a hash of the whole command, so nobody finds the entry of an almost equal command. A list that
says what CI built would tell every reader of the bucket which values (`-DTOKEN=…`) it used.

Rule: beside each entry the writer stores its outline under a name that only the source's path and
the compiler's name determine. It holds the time, names of flags, and truncated hashes: 2 bytes of
each flag with its value, 8 of each input's path, 4 of each input's digest. A reader can recognise
what the reader has, and nothing else. Two bytes are too few to try values against.

Example: CI compiled src/a.c with -O2, Ann with -O3 and another config.h. The two hashes of `-O` and
those of one content differ. `explain` prints `-O` and the path of Ann's config.h.

What must never happen: an outline serves a result, or counts without the signature of a key that
counts for entries. Its signature has another domain than an entry's.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.key.command_outline import (
    FLAG_NAME,
    MAX_FLAGS,
    CommandOutline,
    short_hash,
)
from hpcc.cache.signed.entry import Judge, SignedRecord
from hpcc.core import IntegrityError
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import ROLE_ENTRIES, CacheKey, SigningKey

_DOMAIN: Final = b"hpcc remote cache outline\0"
_FORMAT: Final = b"outline-1"
_OBJECT: Final = b"hpcc-remote-cache-outlines-1\n"
MAX_OUTLINES: Final = 4
MAX_OUTLINES_BYTES: Final = 256 << 10
_MAX_INPUTS: Final = 4096
_PATH_BYTES, _CONTENT_BYTES, _COMPILER_BYTES = 8, 4, 8
_INPUT_BYTES: Final = _PATH_BYTES + _CONTENT_BYTES
_AT: Final = struct.Struct(">Q")
_MAX_AT: Final = 253_402_000_000  # the year 9999
_SIGNATURE_BYTES: Final = 64
_HEADER_FIELDS: Final = 6


class Outline(NamedTuple):
    """An entry: when it was made (seconds), the command, the compiler, and its inputs.

    `inputs` maps truncated hashes of paths to truncated digests.
    """

    at: int
    command: CommandOutline
    compiler: bytes
    inputs: Mapping[bytes, bytes]


class OutlineDifference(NamedTuple):
    """How an outline differs from a compile here.

    `paths` are inputs of the compile here with another content there. `flags` are spellings.
    `only_here` and `only_there` count inputs of one side.
    """

    at: int
    kid: str
    is_other_compiler: bool
    is_other_directory: bool
    is_other_environment: bool
    flags: tuple[str, ...]
    is_reordered: bool
    paths: tuple[str, ...]
    equal: int
    only_here: int
    only_there: int

    @property
    def size(self) -> int:
        """How far the two are apart."""
        others = self.is_other_compiler + self.is_other_directory + self.is_other_environment
        return (
            100 * others + 10 * len(self.flags) + len(self.paths) + self.only_here + self.only_there
        )


def outline(
    command: CommandOutline, compiler: bytes, inputs: InputSet, at: float
) -> Outline | None:
    """Outline an entry; None if it has too many inputs. The paths have marks for the root."""
    if len(inputs.files) > _MAX_INPUTS:
        return None
    found = input_outlines(inputs.files)
    return Outline(int(at), command, short_hash(b"compiler", compiler, _COMPILER_BYTES), found)


def input_outlines(files: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return truncated digests by truncated hashes of paths."""
    return {_path(path): digest[:_CONTENT_BYTES] for path, digest in files}


def _path(marked: bytes) -> bytes:
    return short_hash(b"path", marked, _PATH_BYTES)


def sign_outline(made: Outline, namespace: str, signing: SigningKey) -> SignedRecord:
    """Sign an outline."""
    command = made.command
    body = encode_fields(
        [
            _AT.pack(made.at),
            made.compiler,
            command.directory,
            command.environment,
            encode_fields(part for flag in command.flags for part in flag),
            b"".join(path + content for path, content in sorted(made.inputs.items())),
        ]
    )
    header = _header(command.name, namespace, signing.key, body)
    return SignedRecord(header, signing.private.sign(_DOMAIN + header), body)


def _header(name: bytes, namespace: str, key: CacheKey, body: bytes) -> bytes:
    own = [_FORMAT, namespace.encode(), key.role.encode(), key.kid.encode()]
    return encode_fields([*own, name, hashlib.sha256(body).digest()])


def join_outlines(records: Iterable[SignedRecord]) -> bytes:
    """Return an object of the first records that fit."""
    data = _OBJECT
    for record in [*records][:MAX_OUTLINES]:
        more = encode_fields([encode_fields(record)])
        if len(data) + len(more) <= MAX_OUTLINES_BYTES:
            data += more
    return data


def open_outlines(
    data: bytes, name: bytes, namespace: str, judge: Judge
) -> list[tuple[CacheKey, Outline]]:
    """Return the outlines of an object that count. The object may be anybody's."""
    if not data.startswith(_OBJECT) or len(data) > MAX_OUTLINES_BYTES:
        return []
    try:
        fields = decode_fields(data[len(_OBJECT) :])
        if len(fields) > MAX_OUTLINES:
            return []
        records = [decode_fields(field) for field in fields]
    except IntegrityError:
        return []
    found = []
    for record in records:
        if len(record) == len(SignedRecord._fields):
            key = _check(SignedRecord(*record), name, namespace, judge)
            made = None if key is None else _parse(record[2], name)
            if key is not None and made is not None:
                found.append((key, made))
    return found


def _check(record: SignedRecord, name: bytes, namespace: str, judge: Judge) -> CacheKey | None:
    """Return the key that signed this record for exactly this name."""
    try:
        fields = decode_fields(record.header)
    except IntegrityError:
        return None
    if len(fields) != _HEADER_FIELDS or len(record.signature) != _SIGNATURE_BYTES:
        return None
    key = judge(fields[3].decode("ascii", "replace"))
    if isinstance(key, RefusedEntry) or key.role != ROLE_ENTRIES:
        return None
    try:
        key.public.verify(record.signature, _DOMAIN + record.header)
    except InvalidSignature:
        return None
    return key if record.header == _header(name, namespace, key, record.packed) else None


def _parse(body: bytes, name: bytes) -> Outline | None:
    try:
        at, compiler, directory, environment, flags, inputs = decode_fields(body)
        parts = decode_fields(flags)
        (made_at,) = _AT.unpack(at)
    except (IntegrityError, ValueError, struct.error):
        return None
    pairs = tuple(zip(parts[::2], parts[1::2], strict=False))
    is_odd = len(parts) % 2 or len(pairs) > MAX_FLAGS or made_at > _MAX_AT
    is_odd = is_odd or len(inputs) % _INPUT_BYTES or len(inputs) > _MAX_INPUTS * _INPUT_BYTES
    if is_odd or not all(FLAG_NAME.fullmatch(flag) for flag, _ in pairs):
        return None
    pieces = (inputs[at : at + _INPUT_BYTES] for at in range(0, len(inputs), _INPUT_BYTES))
    found = {piece[:_PATH_BYTES]: piece[_PATH_BYTES:] for piece in pieces}
    return Outline(made_at, CommandOutline(name, pairs, directory, environment), compiler, found)


class Here(NamedTuple):
    """A compile of this machine: its command, the compiler's identity, and its inputs.

    `files` maps marked paths to digests.
    """

    command: CommandOutline
    compiler: bytes
    files: Mapping[bytes, bytes]


def nearest(here: Here, found: Iterable[tuple[CacheKey, Outline]]) -> OutlineDifference | None:
    """Compare with the nearest outline; of equally near ones with the newest."""
    return nearer(compare(here, key.kid, made) for key, made in found)


def nearer(differences: Iterable[OutlineDifference]) -> OutlineDifference | None:
    """Return the smallest difference; of equally small ones the newest."""
    return min(differences, key=lambda d: (d.size, -d.at), default=None)


def compare(here: Here, kid: str, there: Outline) -> OutlineDifference:
    """Tell how an outline, which the key `kid` signed, differs from a compile here."""
    own = {_path(path): path for path in here.files}
    both = own.keys() & there.inputs.keys()
    changed = [h for h in both if here.files[own[h]][:_CONTENT_BYTES] != there.inputs[h]]
    mine, theirs = Counter(here.command.flags), Counter(there.command.flags)
    names = {name.decode("ascii") for name, _ in (mine - theirs) + (theirs - mine)}
    command = here.command
    return OutlineDifference(
        at=there.at,
        kid=kid,
        is_other_compiler=short_hash(b"compiler", here.compiler, _COMPILER_BYTES) != there.compiler,
        is_other_directory=command.directory != there.command.directory,
        is_other_environment=command.environment != there.command.environment,
        flags=tuple(sorted(names)),
        is_reordered=not names and command.flags != there.command.flags,
        paths=tuple(sorted(os.fsdecode(own[h]) for h in changed)),
        equal=len(both) - len(changed),
        only_here=len(own) - len(both),
        only_there=len(there.inputs) - len(both),
    )
