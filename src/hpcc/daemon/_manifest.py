"""The direct manifest: under which state of the file system a stored result is the right one.

request key -> a few `InputSet`s -> result key. A set holds when every file has its digest, every
`present` name is there and no directory, and every directory of `absences` still lacks the names
that would have been found earlier, or at all.
"""

from __future__ import annotations

import hashlib
import os
import stat
from functools import lru_cache
from typing import Final, NamedTuple

from hpcc.core import IntegrityError
from hpcc.daemon._fields import decode_fields, encode_fields
from hpcc.daemon._files import FileMemo, Signature, signature_of

_FORMAT: Final = b"manifest-1"
# A header edited back and forth gives new sets; older ones are hardly ever asked for.
MAX_SETS: Final = 8
_FEW_NAMES: Final = 8
_DIGEST_BYTES: Final = 32


class Absence:
    """Names that must not be in one existing directory.

    `signature` is the directory's stat when the names were last looked up and found absent; None
    when that stat cannot answer (too fresh, or read from disk). The one mutable thing here: it
    is a memo, and assigning it is atomic.
    """

    __slots__ = ("directories", "directory", "files", "signature")

    def __init__(
        self, directory: bytes, files: frozenset[bytes], directories: frozenset[bytes]
    ) -> None:
        self.directory, self.files, self.directories = directory, files, directories
        self.signature: Signature | None = None

    def holds(self, memo: FileMemo) -> bool:
        """Check the directory; one stat when it did not change."""
        try:
            status = os.stat(self.directory)
        except OSError:
            return False
        signature = signature_of(status)
        if signature == self.signature:
            return True
        if len(self.files) + len(self.directories) <= _FEW_NAMES:
            holds = not any(map(self._is_file, self.files)) and not any(
                map(self._is_directory, self.directories)
            )
        else:
            listing = memo.listing(self.directory)
            holds = (
                listing is not None
                and self.files.isdisjoint(listing.files)
                and self.directories.isdisjoint(listing.directories)
            )
        self.signature = signature if holds and memo.is_quiet(signature) else None
        return holds

    def _is_file(self, name: bytes) -> bool:
        path = self.directory + b"/" + name
        return os.path.lexists(path) and not os.path.isdir(path)

    def _is_directory(self, name: bytes) -> bool:
        return os.path.isdir(self.directory + b"/" + name)


class InputSet(NamedTuple):
    """One state of the inputs and the result it leads to."""

    files: tuple[tuple[bytes, bytes], ...]
    present: tuple[bytes, ...]
    absences: tuple[Absence, ...]
    result_key: bytes

    def holds(self, memo: FileMemo) -> bool:
        """Tell whether the file system is in this state now."""
        digest = memo.digest
        for path, expected in self.files:
            if digest(path) != expected:
                return False
        return all(map(_is_there, self.present)) and all(
            absence.holds(memo) for absence in self.absences
        )


def _is_there(path: bytes) -> bool:
    """Answer as `__has_include` does, for which a directory is not there."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def make_set(
    request_key: bytes,
    files: tuple[tuple[bytes, bytes], ...],
    present: tuple[bytes, ...],
    absences: tuple[Absence, ...],
) -> InputSet:
    """Name the result by everything that led to it."""
    names = [part for file in files for part in file]
    for absence in sorted(absences, key=lambda a: a.directory):
        names += (
            absence.directory,
            _join(absence.files),
            _join(absence.directories),
        )
    key = hashlib.sha256(encode_fields([request_key, *names, b"/", *present])).digest()
    return InputSet(files, present, absences, key)


def add_set(sets: tuple[InputSet, ...], new: InputSet) -> tuple[InputSet, ...]:
    """Put the newest first and drop the oldest beyond `MAX_SETS`."""
    return (new, *(s for s in sets if s.result_key != new.result_key))[:MAX_SETS]


def encode_manifest(sets: tuple[InputSet, ...]) -> bytes:
    return encode_fields([_FORMAT, *map(_encode_set, sets)])


def decode_manifest(data: bytes) -> tuple[InputSet, ...]:
    """Read `encode_manifest`'s bytes.

    Raises:
        IntegrityError: they are not that.
    """
    fields = decode_fields(data)
    if not fields or fields[0] != _FORMAT or len(fields) > MAX_SETS + 1:
        raise IntegrityError("not a manifest of this version", reason="bad-record")
    return tuple(map(_decode_set, fields[1:]))


def _encode_set(inputs: InputSet) -> bytes:
    absences = [
        encode_fields([a.directory, _join(a.files), _join(a.directories)]) for a in inputs.absences
    ]
    return encode_fields(
        [
            inputs.result_key,
            encode_fields(path for path, _ in inputs.files),
            b"".join(digest for _, digest in inputs.files),
            encode_fields(inputs.present),
            *absences,
        ]
    )


def _decode_set(data: bytes) -> InputSet:
    fields = decode_fields(data)
    if len(fields) < 4 or len(fields[0]) != _DIGEST_BYTES:
        raise IntegrityError("not a set of inputs", reason="bad-record")
    result_key, paths, digests, present, *absences = fields
    names = decode_fields(paths)
    if len(digests) != _DIGEST_BYTES * len(names):
        raise IntegrityError("not a set of inputs", reason="bad-record")
    files = tuple(
        (name, digests[i * _DIGEST_BYTES : (i + 1) * _DIGEST_BYTES]) for i, name in enumerate(names)
    )
    return InputSet(
        files, tuple(decode_fields(present)), tuple(map(_decode_absence, absences)), result_key
    )


def _decode_absence(data: bytes) -> Absence:
    fields = decode_fields(data)
    if len(fields) != 3:
        raise IntegrityError("not an absence", reason="bad-record")
    return Absence(fields[0], _split(fields[1]), _split(fields[2]))


@lru_cache(maxsize=256)  # many directories lack the same names, and so they do in the next set
def _join(names: frozenset[bytes]) -> bytes:
    """File names hold no NUL, so it can stand between them."""
    return b"\0".join(sorted(names))


def _split(text: bytes) -> frozenset[bytes]:
    return frozenset(text.split(b"\0")) if text else frozenset()
