"""Remembers from which files each compiled interface was made, for the compiles that import it.

Problem: Clang opens the sources of an imported module for the debug information of a unit, and no
list names them. An interface whose own imports changed since is taken without a word.

Rule: a compile that writes an interface leaves a record under its real path and its SHA-256: the
files that it was made from, with their digests. Among them are the interfaces that it imports, and
all that these were made from. A compile that may import it has all of them as inputs, by content.
Each must have the content that the record has.

GCC lists each interface that it opens, and opens no source of a module. So its interfaces are
inputs by content, and a record only tells that one is not a header unit.

The texts of a module are not searched for words that ask for a clock or a file: no macro of a
module acts in the units that import it.

What must never happen: a unit that may import an interface without a record is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError, absolute, all_absolute
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.flag_inputs import digest_if_quiet
from hpcc.cache.key.interfaces import interfaces_of_map
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.interfaces import (
    IMPORT_FLAG,
    INTERFACE_FLAG,
    INTERFACE_SUFFIX,
    imported_file,
)
from hpcc.core import IntegrityError
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.store.private import PrivateStore

_FORMAT: Final = b"interface-1"
_DIGEST_BYTES: Final = 32
_MAX_FILES: Final = 100_000


class Interfaces:
    """The records of compiled interfaces. Thread-safe; a fault of the disk is a missing record."""

    def __init__(self, store: PrivateStore, memo: FileMemo) -> None:
        self._store, self._memo = store, memo

    def expected(self, prepared: Prepared) -> tuple[bytes, ...]:
        """Return the files that a compile may read because of its imports, before it starts.

        Others may write beside these files while it runs.
        """
        invocation = prepared.invocation
        mapped = interfaces_of_map(self._memo, prepared.cwd, invocation).values()
        paths = dict.fromkeys((*imports(prepared), *all_absolute(prepared.cwd, tuple(mapped))))
        found = dict(paths)
        for path in paths:
            digest = self._memo.digest(path)
            made = None if digest is None else self._made_from(path, digest)
            found.update((name, None) for name, _ in made or ())
        return tuple(found)

    def remember(self, prepared: Prepared, closure: Closure, side: Iterable[bytes]) -> None:
        """Record the interface that a compile wrote; `side` are its further outputs, in order."""
        files = closure.files
        if prepared.declares:  # GCC looks at no source of a module
            files = tuple(file for file in files if file[0] in closure.interfaces)
        for path, data in _written(prepared, side):
            self._store.put(_key(path, hashlib.sha256(data).digest()), _encode(files))

    def keep_alive(self, prepared: Prepared, side: Iterable[bytes]) -> None:
        """Let the record of an interface that a hit put in place live as long as that."""
        for path, data in _written(prepared, side):
            self._store.touch(_key(path, hashlib.sha256(data).digest()))

    def with_imports(
        self,
        closure: Closure,
        prepared: Prepared,
        started_ns: int,
        listed: Mapping[bytes, bool],
    ) -> Closure:
        """Add the interfaces that a compile may import, and all that Clang's were made from.

        `listed` are those that GCC opened, with True for those that its map names. It looks at none
        of their sources. Others may be header units, whose macros act in the unit, and need a
        record as well.

        Raises:
            UncacheableError: one has no record, or a file of its record changed or vanished.
        """
        names = imports(prepared)
        if not names and not listed:
            return closure
        files = dict(closure.files)
        files |= {path: self._digest(path, started_ns) for path in listed}
        for path, is_mapped in listed.items():
            if not is_mapped and self._made_from(path, files[path]) is None:
                raise UncacheableError(UncacheableReason.MODULE_FILE, path)
        for path in names:
            self._add_import(files, path, started_ns)
        every, interfaces = tuple(files.items()), (*names, *listed)
        return replace(closure, files=every, plain={}, part=None, interfaces=interfaces)

    def _add_import(self, files: dict[bytes, bytes], path: bytes, started_ns: int) -> None:
        digest = self._digest(path, started_ns)
        if files.setdefault(path, digest) != digest:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
        made = self._made_from(path, digest)
        if made is None:
            raise UncacheableError(UncacheableReason.MODULE_FILE, path)
        for name, its in made:
            if name not in files:
                files[name] = self._digest(name, started_ns)
            if files[name] != its:
                raise UncacheableError(UncacheableReason.MODULE_STALE, name)
        if len(files) > _MAX_FILES:
            raise UncacheableError(UncacheableReason.TOO_MANY_FILES)

    def _digest(self, path: bytes, started_ns: int) -> bytes:
        digest = digest_if_quiet(self._memo, path, started_ns)
        if digest is None:
            raise UncacheableError(UncacheableReason.MODULE_STALE, path)
        return digest

    def _made_from(self, path: bytes, digest: bytes) -> tuple[tuple[bytes, bytes], ...] | None:
        key = _key(path, digest)
        data = self._store.get(key)
        if data is None:
            return None
        try:
            return _decode(data)
        except IntegrityError:
            self._store.remove(key)
            return None


def imports(prepared: Prepared) -> tuple[bytes, ...]:
    """Return the absolute paths of the interfaces that flags name."""
    values = prepared.invocation.values(IMPORT_FLAG)
    files = (imported_file(value) or value for value in values)
    return tuple(dict.fromkeys(absolute(prepared.cwd, file) for file in files))


def without_imports(prepared: Prepared, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the files of a list without the interfaces that flags name, which are not text.

    Raises:
        UncacheableError: the compiler read another interface.
    """
    if not prepared.invocation.concerns_interfaces:
        return names
    named = frozenset(imports(prepared))
    rest = tuple(name for name in names if absolute(prepared.cwd, name) not in named)
    for name in rest:
        if name.endswith(INTERFACE_SUFFIX):
            raise UncacheableError(UncacheableReason.MODULE_FILE, absolute(prepared.cwd, name))
    return rest


def _written(prepared: Prepared, side: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    names = prepared.invocation.values(INTERFACE_FLAG)
    paths = {absolute(prepared.cwd, name) for name in names}
    if prepared.declares:
        paths.add(prepared.side_paths[-1])
    pairs = zip(prepared.side_paths, side, strict=True) if paths else ()
    return [(path, data) for path, data in pairs if path in paths]


def _key(path: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(encode_fields([_FORMAT, os.path.realpath(path), digest])).digest()


def _encode(files: Iterable[tuple[bytes, bytes]]) -> bytes:
    pairs = tuple(files)
    digests = b"".join([digest for _, digest in pairs])
    return encode_fields([_FORMAT, encode_fields([path for path, _ in pairs]), digests])


def _decode(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Decode what `_encode` wrote.

    Raises:
        IntegrityError: the bytes are not a record of this version.
    """
    fields = decode_fields(data)
    if len(fields) != 3 or fields[0] != _FORMAT:  # noqa: PLR2004 - as `_encode` writes them
        raise IntegrityError("not a record of this version", reason="bad-record")
    names, digests = decode_fields(fields[1]), fields[2]
    if len(digests) != _DIGEST_BYTES * len(names):
        raise IntegrityError("not a record of this version", reason="bad-record")
    starts = range(0, len(digests), _DIGEST_BYTES)
    pieces = (digests[start : start + _DIGEST_BYTES] for start in starts)
    return tuple(zip(names, pieces, strict=True))
