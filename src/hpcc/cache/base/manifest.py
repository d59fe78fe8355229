"""The direct manifest: the states of the file system in which a stored result is the right one.

request key -> a few `InputSet`s -> result key. A set holds if every file has its digest, every
`present` name exists and is not a directory, every directory of `absences` still lacks the names
that the compiler would have found earlier, or at all, and files of one content are related as they
were (`cache.base.twins`).

A `Part` is common to the sets of many compiles. It is encoded and hashed once, and stored once in
each manifest that refers to it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.files import Listing, Signature, signature_of
from hpcc.cache.base.twins import Twins, decode_twins, encode_twins
from hpcc.core import IntegrityError

_FORMAT: Final = b"manifest-5"
# The parts are its second field. A manifest without parts has no such field.
_FORMAT_WITH_PARTS: Final = b"manifest-6"
# Editing a header back and forth adds sets; older ones are rarely needed.
MAX_SETS: Final = 8
_FEW_NAMES: Final = 8
_DIGEST_BYTES: Final = 32
# Of a body: paths, digests, present names, twins, sets of names; its absences follow.
_FIXED_FIELDS: Final = 5
_PAIR: Final = struct.Struct(">II")


class FileFacts(Protocol):
    """What a state of the file system is compared with: a `FileMemo`, or a view of one."""

    def digest(self, path: bytes) -> bytes | None:
        """Return the digest that stands for a file; None if it is missing or changing."""
        ...

    def listing(self, path: bytes) -> Listing | None:
        """Return the names in a directory; None if it is not one."""
        ...

    def is_quiet(self, signature: Signature, at_ns: int | None = None) -> bool:
        """See `FileMemo.is_quiet`."""
        ...

    def now_ns(self) -> int:
        """Return the wall time in nanoseconds since the epoch."""
        ...


class Absence:
    """Names that must not be in one existing directory.

    `signature` is the directory's stat from when the names were last found absent; None if that
    stat proves nothing (too fresh, or the set was read from disk). It is the only mutable field: a
    memo, assigned atomically.
    """

    __slots__ = ("directories", "directory", "files", "signature")

    def __init__(
        self, directory: bytes, files: frozenset[bytes], directories: frozenset[bytes]
    ) -> None:
        self.directory, self.files, self.directories = directory, files, directories
        self.signature: Signature | None = None

    def renamed(self, rename: Callable[[bytes], bytes]) -> Absence:
        """Return the same names in another directory."""
        return Absence(rename(self.directory), self.files, self.directories)

    def holds(self, memo: FileFacts) -> bool:
        """Tell whether the names are still absent; costs one stat if the directory is unchanged."""
        try:
            status = os.stat(self.directory)
        except OSError:
            return False
        signature = signature_of(status)
        if signature == self.signature:
            return True
        at_ns = memo.now_ns()
        if len(self.files) + len(self.directories) <= _FEW_NAMES:
            holds = not any(map(self._is_file, self.files)) and not any(
                map(self._is_directory, self.directories)
            )
        else:
            listing = memo.listing(self.directory)
            holds = (
                listing is not None
                and all(map(listing.is_directory, self.files & listing.names))
                and not any(map(listing.is_directory, self.directories & listing.names))
            )
        self.signature = signature if holds and memo.is_quiet(signature, at_ns) else None
        return holds

    def _is_file(self, name: bytes) -> bool:
        path = self.directory + b"/" + name
        return os.path.lexists(path) and not os.path.isdir(path)

    def _is_directory(self, name: bytes) -> bool:
        return os.path.isdir(self.directory + b"/" + name)


class Part(NamedTuple):
    """Files and absences that many compiles share, such as the headers of a project's units.

    `body` is the encoded part, `digest` the SHA-256 of `body`. Made by `make_part`.
    """

    files: tuple[tuple[bytes, bytes], ...]
    absences: tuple[Absence, ...]
    body: bytes
    digest: bytes


def make_part(files: tuple[tuple[bytes, bytes], ...], absences: tuple[Absence, ...]) -> Part:
    """Encode and hash files and absences that many sets will share."""
    absences = tuple(sorted(absences, key=lambda a: a.directory))
    body = _encode_body(files, (), absences)
    return Part(files, absences, body, hashlib.sha256(body).digest())


class InputSet(NamedTuple):
    """One state of the inputs, and the key of its result.

    `files` are pairs of absolute path and SHA-256 (32 bytes). `body` is the encoded state, or b""
    if it has to be encoded again. With a `part`, `body` omits it, `files` end with its files, and
    `absences` are those of the part.
    """

    files: tuple[tuple[bytes, bytes], ...]
    present: tuple[bytes, ...]
    absences: tuple[Absence, ...]
    result_key: bytes
    body: bytes = b""
    part: Part | None = None
    twins: tuple[Twins, ...] = ()

    def renamed(self, rename: Callable[[bytes], bytes]) -> InputSet:
        """Return the same state of other paths, without an encoded body or part."""
        return InputSet(
            files=tuple((rename(path), digest) for path, digest in self.files),
            present=tuple(map(rename, self.present)),
            absences=tuple(absence.renamed(rename) for absence in self.absences),
            result_key=self.result_key,
            twins=tuple(twins.renamed(rename) for twins in self.twins),
        )

    def holds(self, memo: FileFacts, first: dict[bytes, bytes | None] | None = None) -> bool:
        """Tell whether the file system is in this state now.

        `first` collects digests of sources during one look-up, so that each is hashed once.
        """
        digest, files = memo.digest, self.files
        if first is not None and files:
            path, expected = files[0]
            if path not in first:
                first[path] = digest(path)
            if first[path] != expected:
                return False
            files = files[1:]
        for path, expected in files:
            if digest(path) != expected:
                return False
        return (
            all(map(_is_there, self.present))
            and all(absence.holds(memo) for absence in self.absences)
            and all(twins.holds() for twins in self.twins)
        )


def _is_there(path: bytes) -> bool:
    """Answer like `__has_include`: a directory does not count as present."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def make_set(
    request_key: bytes,
    files: tuple[tuple[bytes, bytes], ...],
    present: tuple[bytes, ...],
    absences: tuple[Absence, ...],
    part: Part | None = None,
    twins: tuple[Twins, ...] = (),
) -> InputSet:
    """Build a set whose result key is the SHA-256 of the request key and the encoded inputs.

    With a `part`, `files` are only those beside the part, and `absences` must be empty.
    """
    if part is not None:
        assert not absences, "a part's absences are all"
        body = _encode_body(files, present, (), twins)
        key = hashlib.sha256(encode_fields([request_key, body, part.digest])).digest()
        return InputSet((*files, *part.files), present, part.absences, key, body, part, twins)
    absences = tuple(sorted(absences, key=lambda a: a.directory))
    body = _encode_body(files, present, absences, twins)
    key = hashlib.sha256(encode_fields([request_key, body])).digest()
    return InputSet(files, present, absences, key, body, None, twins)


def add_set(sets: tuple[InputSet, ...], new: InputSet) -> tuple[InputSet, ...]:
    """Return the sets with `new` first, without the oldest beyond `MAX_SETS`."""
    return (new, *(s for s in sets if s.result_key != new.result_key))[:MAX_SETS]


def encode_manifest(sets: tuple[InputSet, ...]) -> bytes:
    """Encode sets in their order; equal sets give equal bytes."""
    parts = {s.part.digest: s.part.body for s in sets if s.part is not None}
    numbers = {digest: bytes([number]) for number, digest in enumerate(parts)}
    encoded = [_encode_set(s, numbers) for s in sets]
    if not parts:
        return encode_fields([_FORMAT, *encoded])
    return encode_fields([_FORMAT_WITH_PARTS, encode_fields(parts.values()), *encoded])


def decode_manifest(data: bytes) -> tuple[InputSet, ...]:
    """Decode what `encode_manifest` wrote; at most `MAX_SETS` sets and parts.

    Raises:
        IntegrityError: the bytes are not a manifest of this version.
    """
    fields = decode_fields(data)
    parts: tuple[Part, ...] = ()
    if len(fields) > 1 and fields[0] == _FORMAT_WITH_PARTS:
        parts = tuple(map(_decode_part, decode_fields(fields.pop(1))))
    elif not fields or fields[0] != _FORMAT:
        raise IntegrityError("not a manifest of this version", reason="bad-record")
    if max(len(fields) - 1, len(parts)) > MAX_SETS:
        raise IntegrityError("not a manifest of this version", reason="bad-record")
    return tuple(_decode_set(field, parts) for field in fields[1:])


def _encode_set(inputs: InputSet, numbers: Mapping[bytes, bytes]) -> bytes:
    part = inputs.part
    if part is None:
        body = inputs.body or _encode_body(
            inputs.files, inputs.present, inputs.absences, inputs.twins
        )
        return encode_fields([inputs.result_key, body])
    own = inputs.files[: len(inputs.files) - len(part.files)]
    body = inputs.body or _encode_body(own, inputs.present, (), inputs.twins)
    return encode_fields([inputs.result_key, body, numbers[part.digest]])


def _decode_set(data: bytes, parts: tuple[Part, ...]) -> InputSet:
    fields = decode_fields(data)
    if len(fields) not in {2, 3} or len(fields[0]) != _DIGEST_BYTES:
        raise IntegrityError("not a set of inputs", reason="bad-record")
    result_key, body, *number = fields
    files, present, absences, twins = _decode_body(body)
    if not number:
        return InputSet(files, present, absences, result_key, twins=twins)
    if absences or len(number[0]) != 1 or number[0][0] >= len(parts):
        raise IntegrityError("not a set of inputs", reason="bad-record")
    part = parts[number[0][0]]
    return InputSet((*files, *part.files), present, part.absences, result_key, b"", part, twins)


def _decode_part(body: bytes) -> Part:
    files, present, absences, twins = _decode_body(body)
    if present or twins:
        raise IntegrityError("not a part of a set", reason="bad-record")
    return Part(files, absences, body, hashlib.sha256(body).digest())


def _decode_body(
    body: bytes,
) -> tuple[
    tuple[tuple[bytes, bytes], ...], tuple[bytes, ...], tuple[Absence, ...], tuple[Twins, ...]
]:
    """Decode what `_encode_body` wrote."""
    parts = decode_fields(body)
    if len(parts) < _FIXED_FIELDS:
        raise IntegrityError("not a set of inputs", reason="bad-record")
    paths, digests, present, twins, sets, *absences = parts
    names = decode_fields(paths)
    if len(digests) != _DIGEST_BYTES * len(names):
        raise IntegrityError("not a set of inputs", reason="bad-record")
    files = tuple(
        (name, digests[i * _DIGEST_BYTES : (i + 1) * _DIGEST_BYTES]) for i, name in enumerate(names)
    )
    known = _decode_sets(sets)
    found = tuple(_decode_absence(absence, known) for absence in absences)
    return files, tuple(decode_fields(present)), found, decode_twins(twins)


def _encode_body(
    files: tuple[tuple[bytes, bytes], ...],
    present: tuple[bytes, ...],
    absences: tuple[Absence, ...],
    twins: tuple[Twins, ...] = (),
) -> bytes:
    """Encode one state; equal states give equal bytes.

    Many directories lack the same names, or all but a few. So each set of names is stored once, as
    the difference to the largest set where that is shorter.
    """
    sets = dict.fromkeys([names for a in absences for names in (a.files, a.directories)])
    numbers = {names: number for number, names in enumerate(sets)}
    return encode_fields(
        [
            # Not joined by NUL: in a shared set the mark of a root contains one.
            encode_fields([path for path, _ in files]),
            b"".join([digest for _, digest in files]),
            encode_fields(present),
            encode_twins(twins),
            _encode_sets(tuple(sets)),
            *(_PAIR.pack(numbers[a.files], numbers[a.directories]) + a.directory for a in absences),
        ]
    )


class SortedNames:
    """Sorts sets of names; faster if the one before was nearly the same. Thread-safe."""

    def __init__(self) -> None:
        self._last: tuple[frozenset[bytes], list[bytes]] = frozenset(), []

    def of(self, names: frozenset[bytes]) -> list[bytes]:
        """Return the sorted names, which must not be changed."""
        last, order = self._last
        less, more = last - names, names - last
        if 4 * (len(less) + len(more)) > len(names):
            found = sorted(names)
        else:
            found = [name for name in order if name not in less] if less else order.copy()
            found += sorted(more)
            found.sort()  # two sorted runs are merged in one pass
        self._last = names, found
        return found


# The largest set of a unit's names is nearly that of the unit before.
_SORTED: Final = SortedNames()


# A result has the same names under its key and under its content key: the second finds them here.
@lru_cache(maxsize=16)
def _encode_sets(sets: tuple[frozenset[bytes], ...]) -> bytes:
    base = max(sets, key=len, default=frozenset[bytes]())
    encoded = [b"\0".join(_SORTED.of(base))]
    for names in sets:
        if 2 * len(names) <= len(base):  # the difference has at least as many names
            encoded.append(encode_fields([_join(names)]))
            continue
        less, more = base - names, names - base
        is_near = len(less) + len(more) < len(names)
        encoded.append(encode_fields([_join(less), _join(more)] if is_near else [_join(names)]))
    return encode_fields(encoded)


def _decode_sets(data: bytes) -> list[frozenset[bytes]]:
    first, *others = decode_fields(data) or [b""]
    base = frozenset(_split(first))
    found = []
    for other in others:
        match decode_fields(other):
            case [names]:
                found.append(frozenset(_split(names)))
            case [less, more]:
                found.append((base - frozenset(_split(less))) | frozenset(_split(more)))
            case _:
                raise IntegrityError("not a set of names", reason="bad-record")
    return found


def _decode_absence(data: bytes, sets: list[frozenset[bytes]]) -> Absence:
    if len(data) < _PAIR.size:
        raise IntegrityError("not an absence", reason="bad-record")
    files, directories = _PAIR.unpack_from(data)
    if max(files, directories) >= len(sets):
        raise IntegrityError("not an absence", reason="bad-record")
    return Absence(data[_PAIR.size :], sets[files], sets[directories])


def _join(names: Iterable[bytes]) -> bytes:
    """Join sorted names by NUL, which file names cannot contain."""
    return b"\0".join(sorted(names))


def _split(text: bytes) -> list[bytes]:
    return text.split(b"\0") if text else []
