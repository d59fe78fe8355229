"""Remembers from which files each compiled interface was made, for the compiles that import it.

Problem: Clang opens the sources of an imported module for the debug information of a unit, and no
list names them. An interface whose own imports changed since is taken without a word.

Rule: a compile that writes an interface leaves a record under its real path and its SHA-256: the
files that it was made from, with their digests. Among them are the interfaces that it imports, and
all that these were made from. A compile that may import it has all of them as inputs, by content.
Each must have the content that the record has.

GCC lists each interface that it opens, and opens no source of a module. So its record holds only
the interfaces that one imports.

The texts of a module are not searched for words that ask for a clock or a file: no macro of a
module acts in the units that import it. But its inline functions do, and an `.incbin` in one is
read for each object that emits it. So the record of an interface whose text names a file for
the assembler has no set of files, and refuses what imports it.

An interface may have the same bytes after an edit of its source, and again when the edit is undone.
So a record has the last few sets of files; one of them must be those that are there.

What must never happen: a unit that may import an interface without a record is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import starmap
from typing import Final

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.files import FileMemo, is_one_file
from hpcc.cache.base.uncacheable import UncacheableError, absolute, all_absolute
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.flag_inputs import digest_if_quiet
from hpcc.cache.key.interfaces import interfaces_of_map
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.results.results import Result
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
_MAX_SETS: Final = 8

_Files = tuple[tuple[bytes, bytes], ...]


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
            sets = () if digest is None else self._made_from(path, digest)
            found.update((name, None) for files in sets for name, _ in files)
        return tuple(found)

    def remember(self, prepared: Prepared, closure: Closure, side: Iterable[bytes]) -> None:
        """Record the interface that a compile wrote; `side` are its further outputs, in order."""
        files = closure.files
        # Clang spells relative names below $PWD, if that leads to the working directory.
        pwd = prepared.request.env.get(b"PWD", b"")
        if (
            pwd not in {b"", prepared.cwd}
            and pwd.startswith(b"/")
            and is_one_file(pwd, prepared.cwd)
        ):
            below = prepared.cwd.rstrip(b"/") + b"/"
            files += tuple(
                (pwd.rstrip(b"/") + b"/" + path.removeprefix(below), digest)
                for path, digest in files
                if path.startswith(below)
            )
        if prepared.declares:  # GCC looks at no source of a module
            files = tuple(file for file in files if file[0] in closure.interfaces)
        for path, data in interfaces_written(prepared, side):
            digest = hashlib.sha256(data).digest()
            sets = dict.fromkeys((files, *self._made_from(path, digest)))
            if closure.names_data:  # its functions may read files where they are emitted
                sets = {}
            self._store.put(_key(path, digest), _encode(tuple(sets)[:_MAX_SETS]))

    def has_record(self, prepared: Prepared, side: Iterable[bytes]) -> bool:
        """Tell whether a stored result may be put in place: an interface needs its record.

        The record then lives as long as the result.
        """
        written = interfaces_written(prepared, side)
        keys = (_key(path, hashlib.sha256(data).digest()) for path, data in written)
        return all(self._store.get(key) is not None for key in keys)

    def with_imports(
        self, closure: Closure, prepared: Prepared, started_ns: int, listed: Sequence[bytes]
    ) -> Closure:
        """Add the interfaces that a compile may import, and all that Clang's were made from.

        `listed` are those that GCC opened.

        Raises:
            UncacheableError: one has no record, or a file of its record changed or vanished.
        """
        names = (*imports(prepared), *listed)
        if not names:
            return closure
        files, behind = dict(closure.files), dict[bytes, bytes]()
        for path in names:
            behind |= self._add_import(files, path, started_ns)
        # Which of the files behind an interface are interfaces, too.
        more = (p for p, digest in behind.items() if self._store.has(_key(p, digest)))
        every = tuple(dict.fromkeys((*names, *more)))
        return replace(closure, files=tuple(files.items()), plain={}, part=None, interfaces=every)

    def _add_import(
        self, files: dict[bytes, bytes], path: bytes, started_ns: int
    ) -> dict[bytes, bytes]:
        """Add an interface to the files, and return those that it was made from, which it adds."""
        digest = self._digest(path, started_ns)
        if files.setdefault(path, digest) != digest:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
        sets = self._made_from(path, digest)
        if not sets:
            raise UncacheableError(UncacheableReason.MODULE_FILE, path)
        changed, now = b"", dict[bytes, bytes]()
        for made in sets:
            now = {name: files.get(name) or self._digest(name, started_ns) for name, _ in made}
            changed = next((name for name, its in made if now[name] != its), b"")
            if not changed:
                files |= now
                break
        if changed:
            raise UncacheableError(UncacheableReason.MODULE_STALE, changed)
        if len(files) > _MAX_FILES:
            raise UncacheableError(UncacheableReason.TOO_MANY_FILES)
        return now

    def _digest(self, path: bytes, started_ns: int) -> bytes:
        digest = digest_if_quiet(self._memo, path, started_ns)
        if digest is None:
            raise UncacheableError(UncacheableReason.MODULE_STALE, path)
        return digest

    def _made_from(self, path: bytes, digest: bytes) -> tuple[_Files, ...]:
        key = _key(path, digest)
        data = self._store.get(key)
        if data is None:
            return ()
        try:
            return _decode(data)
        except IntegrityError:
            self._store.remove(key)
            return ()


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


def interfaces_written(prepared: Prepared, side: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Return path and content of the interfaces that a compile wrote.

    `side` are its further outputs, in order.
    """
    names = prepared.invocation.values(INTERFACE_FLAG)
    paths = {absolute(prepared.cwd, name) for name in names}
    if prepared.declares:
        paths.add(prepared.side_paths[-1])
    pairs = zip(prepared.side_paths, side, strict=True) if paths else ()
    return [(path, data) for path, data in pairs if path in paths]


def _key(path: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(encode_fields([_FORMAT, os.path.realpath(path), digest])).digest()


def _encode(sets: Iterable[_Files]) -> bytes:
    fields = [_FORMAT]
    for files in sets:
        fields += (encode_fields([path for path, _ in files]), b"".join([d for _, d in files]))
    return encode_fields(fields)


def _decode(data: bytes) -> tuple[_Files, ...]:
    """Decode what `_encode` wrote.

    Raises:
        IntegrityError: the bytes are not a record of this version.
    """
    fields = decode_fields(data)
    if fields[:1] != [_FORMAT] or len(fields) % 2 == 0:
        raise IntegrityError("not a record of this version", reason="bad-record")
    return tuple(starmap(_files, zip(fields[1::2], fields[2::2], strict=True)))


def _files(paths: bytes, digests: bytes) -> _Files:
    names = decode_fields(paths)
    if len(digests) != _DIGEST_BYTES * len(names):
        raise IntegrityError("not a record of this version", reason="bad-record")
    starts = range(0, len(digests), _DIGEST_BYTES)
    pieces = (digests[start : start + _DIGEST_BYTES] for start in starts)
    return tuple(zip(names, pieces, strict=True))


def binary_outputs(prepared: Prepared, result: Result) -> list[tuple[bytes, bytes]]:
    """Return path and content of the outputs that other compiles read."""
    if prepared.invocation.language.is_header:
        return [(prepared.output or b"", result.object_data)]
    return interfaces_written(prepared, result.side)
