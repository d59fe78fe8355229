"""Remembers from which files each precompiled header was made, for the compiles that use it.

Problem: a unit that uses a precompiled header depends on texts that no compiler lists: a header in
it that is included again is skipped, and a macro in it may ask for a clock or for a file.

Rule: a compile that makes one leaves a record under the real path and the SHA-256 of what it wrote:
the files and their digests, the macros of its command line, and its *root*. A compile that finds it
counts these files as its own (`inputs.closure`). Users of one without a record are not kept.

The root is the one header that was precompiled: the source, or what `-include` names beside a
source without text, as CMake writes it. Preprocessors read it in place of the precompiled header.
So their output shows what the macros in it become, if a user names the same root. Else, and with
more than one root, it would lack texts, and there is no such record.

Where the preprocessor is asked about a user (a word like `__TIME__` in any of its texts), it must
read what the precompiled header holds. With another search path, another macro, or a header that
appeared since, it would take other branches and show no clock. So that user needs the flags of the
making, and the names that the making did not find must still be absent.

A stored precompiled header is put in place only with its record. If the record was evicted, the
compiler runs and leaves a new one: else no unit of that build directory would be kept.

What must never happen: a record that leaves out a text which acts in the users. So it is empty
where a file was read as data, or where the command line itself asks for a clock or a file.
Compilers take a precompiled header only with the macros of its making. The record has them, too,
and they count as macros of its users, so that this does not rest on the compiler. A unit with other
macros, as another target of CMake has them with REUSE_FROM, reads the headers and is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.files import FileMemo, is_one_file
from hpcc.cache.base.manifest import decode_manifest, encode_manifest, make_set
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.inputs.closure_types import Closure, MadeFrom, MadeOf
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.key.share import SEARCH_ENV
from hpcc.compilers.invocation.dependencies import Headers
from hpcc.compilers.invocation.invocation import Product
from hpcc.compilers.invocation.modules import MODULE_FLAGS
from hpcc.compilers.invocation.precompiled import GCH_SUFFIX, PCH_SUFFIX
from hpcc.compilers.scan.questions import NOTHING_ASKED
from hpcc.compilers.scan.scan import Hazard, scan_arguments
from hpcc.compilers.scan.text import without_comments
from hpcc.compilers.spec.table import Effect
from hpcc.core import IntegrityError
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.store.private import PrivateStore

_FORMAT: Final = b"precompiled-1"
# For one that its users must not use: nothing of it is known but that it was made through hpcc.
_EMPTY: Final = encode_fields([_FORMAT])
_DIGEST_BYTES: Final = 32
# What differs between a compile that makes one and those that use it. Headers that flags name are
# compared as roots.
_OTHER_EFFECTS: Final = frozenset(
    {
        Effect.MODE,
        Effect.LANGUAGE,
        Effect.OUTPUT,
        Effect.SIDE_OUTPUT,
        Effect.DEPENDENCY,
        Effect.COLOUR,
        Effect.FORCED_INCLUDE,
    }
)
# Their values may be relative names of directories.
_SEARCHED: Final = frozenset({Effect.SEARCH, Effect.TOOLS})
_OTHER_FLAGS: Final = MODULE_FLAGS | {
    *("-Xclang", "-fpch-instantiate-templates", "-fno-pch-instantiate-templates")
}


class _Record(NamedTuple):
    """What is known of one.

    `is_source`: its root is the source, not what a flag names. `flags` are `_flags_of_text`.
    `state` is a manifest with one set: names that were there, and names that were absent.
    """

    macros: tuple[bytes, ...]
    root: bytes
    is_source: bool
    flags: bytes
    files: tuple[tuple[bytes, bytes], ...]
    state: bytes


class PrecompiledHeaders:
    """The records of precompiled headers. Thread-safe; a fault of the disk is a missing record."""

    def __init__(self, store: PrivateStore, memo: FileMemo) -> None:
        self._store, self._memo = store, memo

    def remember(self, prepared: Prepared, closure: Closure, data: bytes) -> None:
        """Record what a compile wrote, if it made a precompiled header."""
        if prepared.invocation.language.is_header:
            record = self._record(prepared, closure)
            self._store.put(_key_of(prepared, data), _EMPTY if record is None else _encode(record))

    def has_record(self, prepared: Prepared, data: bytes) -> bool:
        """Tell whether a stored result may be put in place: a precompiled header needs its record.

        The record then lives as long as the result.
        """
        if not prepared.invocation.language.is_header:
            return True
        return self._store.get(_key_of(prepared, data)) is not None

    def of_users(self, prepared: Prepared) -> MadeFrom | None:
        """Return how a compile finds what a precompiled header was made of.

        None if it may use none.
        """
        invocation = prepared.invocation
        if invocation.language.is_header or invocation.product is not Product.OBJECT:
            return None
        knows = prepared.family.knows_precompiled(prepared.identity.major)
        return partial(self._made_from, prepared) if knows else None

    def _made_from(self, prepared: Prepared, path: bytes, digest: bytes) -> MadeOf | None:
        key = _key(path, digest)
        data = self._store.get(key)
        if data is None:
            return None
        try:
            found = _decode(data)
        except IntegrityError:
            self._store.remove(key)
            return None
        if found is None or not _reads_root(prepared, path, found):
            return None
        return MadeOf(found.files, found.macros, partial(self._is_reproduced, prepared, found))

    def _is_reproduced(self, prepared: Prepared, record: _Record) -> bool:
        """Tell whether the preprocessor reads now what was read when it was made.

        That its files have the same content was found out before.
        """
        if record.flags != _flags_of_text(prepared):
            return False
        try:
            states = decode_manifest(record.state)
        except IntegrityError:
            return False
        return bool(states) and all(state.holds(self._memo) for state in states)

    def _record(self, prepared: Prepared, closure: Closure) -> _Record | None:
        invocation = prepared.invocation
        given = scan_arguments(invocation.arguments, invocation.macros)
        if closure.data or given.hazards is not Hazard.NONE or given.asked != NOTHING_ASKED:
            return None
        root = self._root(prepared, dict(closure.files))
        if root is None:
            return None
        state = make_set(b"", (), closure.present, closure.absences, twins=closure.twins)
        flags, is_source = _flags_of_text(prepared), root == prepared.source
        words = (invocation.macros, root, is_source, flags)
        return _Record(*words, closure.files, encode_manifest((state,)))

    def _root(self, prepared: Prepared, files: Mapping[bytes, bytes]) -> bytes | None:
        invocation = prepared.invocation
        forced = (*invocation.forced_includes, *invocation.inner.includes)
        if not forced:
            return prepared.source
        source, digest = prepared.source, files.get(prepared.source)
        if len(forced) > 1 or digest is None or invocation.values("-imacros"):
            return None
        is_blank = self._memo.derived(source, digest, _is_blank.__name__, _is_blank)
        return absolute(prepared.cwd, forced[0]) if is_blank else None


def check_precompiled(headers: Headers | None, closure: Closure) -> None:
    """Check that a precompiled header that the compiler mentions is among the inputs.

    Raises:
        UncacheableError: it is not.
    """
    if headers is not None and headers.has_pch and not closure.precompiled:
        raise UncacheableError(UncacheableReason.PCH)


def _is_blank(text: bytes) -> bool:
    return not without_comments(text).strip()


def _flags_of_text(prepared: Prepared) -> bytes:
    """Return a digest of all that decides which text a preprocessor makes of a header."""
    cwd, words, names = prepared.cwd, list[bytes](), list[bytes]()
    for flag in prepared.invocation.flags:
        spelling, effect = flag.spec.spelling, flag.spec.effect
        if effect is Effect.INCLUDE_DIR:
            words += (spelling.encode(), absolute(cwd, flag.value))
        elif effect not in _OTHER_EFFECTS and spelling not in _OTHER_FLAGS:
            words += flag.raw
            names += (flag.value,) if effect in _SEARCHED else ()
    variables = [prepared.request.env.get(name, b"") for name in SEARCH_ENV]
    for variable in variables:
        names += variable.split(b":") if variable else ()
    # Targets of CMake are compiled in their own directories.
    is_here = any(name[:1] != b"/" for name in names)
    fields = [cwd if is_here else b"", encode_fields(words), *variables]
    return hashlib.sha256(encode_fields(fields)).digest()


def _reads_root(prepared: Prepared, path: bytes, record: _Record) -> bool:
    """Tell whether a preprocessor that leaves out this precompiled header reads its root."""
    invocation = prepared.invocation
    if path not in (absolute(prepared.cwd, name) for name in invocation.inner.used):
        return is_one_file(path.removesuffix(GCH_SUFFIX).removesuffix(PCH_SUFFIX), record.root)
    if record.is_source:
        # Clang's preprocessor includes the source that the precompiled header names, behind these.
        return not invocation.values("-imacros")
    first = invocation.inner.includes[:1]
    is_first = bool(first) and is_one_file(absolute(prepared.cwd, first[0]), record.root)
    return is_first and not invocation.forced_includes


def _key_of(prepared: Prepared, data: bytes) -> bytes:
    return _key(prepared.output or b"", hashlib.sha256(data).digest())


def _key(path: bytes, digest: bytes) -> bytes:
    # Users may spell it with `..`, or reach it through a link.
    return hashlib.sha256(encode_fields([_FORMAT, os.path.realpath(path), digest])).digest()


def _encode(record: _Record) -> bytes:
    paths = encode_fields([path for path, _ in record.files])
    digests = b"".join([digest for _, digest in record.files])
    root = (b"source", record.root) if record.is_source else (b"", record.root)
    macros = encode_fields(record.macros)
    return encode_fields([_FORMAT, macros, *root, record.flags, paths, digests, record.state])


def _decode(data: bytes) -> _Record | None:
    """Decode what `_encode` wrote; None for an empty record.

    Raises:
        IntegrityError: the bytes are not a record of this version.
    """
    if data == _EMPTY:
        return None
    fields = decode_fields(data)
    if len(fields) != 8 or fields[0] != _FORMAT:  # noqa: PLR2004 - as `_encode` writes them
        raise IntegrityError("not a record of this version", reason="bad-record")
    _, macros, kind, root, flags, paths, digests, state = fields
    names = decode_fields(paths)
    if len(digests) != _DIGEST_BYTES * len(names):
        raise IntegrityError("not a record of this version", reason="bad-record")
    starts = range(0, len(digests), _DIGEST_BYTES)
    pieces = [digests[start : start + _DIGEST_BYTES] for start in starts]
    files = tuple(zip(names, pieces, strict=True))
    return _Record(tuple(decode_fields(macros)), root, kind == b"source", flags, files, state)
