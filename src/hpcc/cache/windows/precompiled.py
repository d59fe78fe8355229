"""What a precompiled header was made of, for the units of clang-cl that use it.

Problem: a unit with `/YuH` reads neither H nor what H includes, and its list of headers names none
of them. Yet macros in H act in the unit, its messages show lines of H, and with debug information
the compiler reads all these files again for their digests.

Rule, as `results.precompiled` elsewhere: the compile that makes one (`/YcH`) leaves a record under
the file's place and content: the flags, the files with their digests, and the names that were not
found. All these files count as read by each user, and must be as they were. A header without a
record is refused.

Doubts, such as a `__TIME__` in a macro, are settled by the preprocessor's output, and that reads H
and not the precompiled header. So user and maker must have the same flags, H must come before all
other text, and be the same file for both.

What must never happen: a unit is kept of whose precompiled header a text is unknown.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.manifest import InputSet, decode_manifest, encode_manifest, make_set
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.windows.command import WindowsCompile, key_environment
from hpcc.cache.windows.disk import MAX_INPUT_BYTES, CacheDisk
from hpcc.cache.windows.state import Inputs, State
from hpcc.compilers.scan.text import without_comments
from hpcc.compilers.scan.windows_names import UnclearNameError, candidate, key_of, parent
from hpcc.compilers.spec.table import Effect, Flag
from hpcc.core import IntegrityError, WindowsPath, parse_windows_path, windows_key
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.store.private import PrivateStore

_FORMAT: Final = b"windows-precompiled-1"
# They name outputs, or change messages only.
_OTHER_FLAGS: Final = frozenset({"c", "Fo", "o", "Fd", "showIncludes", "nologo", "TC", "TP"})
_WARNING: Final = re.compile(r"W[A-Za-z0-9+=-]*|w[deo1-4]?")
_FIRST: Final = re.compile(rb'(?:\xef\xbb\xbf)?\s*#[ \t]*include[ \t]*"([^"\r\n]+)"')


class UsedHeader(NamedTuple):
    """A precompiled header that a unit uses, and the texts that it was made of."""

    path: WindowsPath
    texts: tuple[WindowsPath, ...]


class PrecompiledRecords:
    """The records of precompiled headers. Thread-safe; a fault of the disk is a missing record."""

    def __init__(self, disk: CacheDisk, store: PrivateStore) -> None:
        self._disk, self._store = disk, store

    def remember(
        self, compiled: WindowsCompile, search: Iterable[WindowsPath], inputs: Inputs, data: bytes
    ) -> None:
        """Record what a compile read that made a precompiled header.

        Raises:
            UncacheableError: it is not certain what text is in it.
        """
        root = self._root(compiled, search)
        state = make_set(b"", inputs.files, inputs.present, inputs.absences)
        fields = [_FORMAT, key_of(root).encode(), _flags_of_text(compiled)]
        record = encode_fields([*fields, encode_manifest((state,))])
        self._store.put(self._key(compiled, hashlib.sha256(data).digest()), record)

    def has_record(self, compiled: WindowsCompile, data: bytes) -> bool:
        """Tell whether a stored precompiled header may be put in place: not without its record."""
        return self._store.get(self._key(compiled, hashlib.sha256(data).digest())) is not None

    def used(self, compiled: WindowsCompile, search: Iterable[WindowsPath]) -> UsedHeader | None:
        """Return the precompiled header that a compile uses; None if it uses none.

        Raises:
            UncacheableError: it has no record, or a header in it changed.
        """
        precompiled = compiled.precompiled
        if precompiled is None or precompiled.is_made:
            return None
        place = str(precompiled.path).encode()
        data = self._disk.read(str(precompiled.path), MAX_INPUT_BYTES)
        if data is None:
            raise UncacheableError(UncacheableReason.PCH, place)
        key = self._key(compiled, hashlib.sha256(data).digest())
        root, flags, made = self._read(key)
        if flags != _flags_of_text(compiled) or key_of(self._root(compiled, search)) != root:
            raise UncacheableError(UncacheableReason.PCH, place)
        state = State(self._disk)
        for path, digest in made.files:
            if state.digest(path) != digest:
                raise UncacheableError(UncacheableReason.PCH_STALE, path)
        if not state.holds(made):  # a header appeared that the compiler would have found first
            raise UncacheableError(UncacheableReason.PCH_STALE, place)
        texts = tuple(parse_windows_path(path.decode()) for path, _ in made.files)
        return UsedHeader(precompiled.path, texts)

    def _read(self, key: bytes) -> tuple[str, bytes, InputSet]:
        data = self._store.get(key)
        if data is None:
            raise UncacheableError(UncacheableReason.PCH)
        try:
            _, root, flags, manifest = decode_fields(data)  # the format is in the key, too
            (state,) = decode_manifest(manifest)
            return root.decode(), flags, state
        except (IntegrityError, ValueError) as error:
            self._store.remove(key)
            raise UncacheableError(UncacheableReason.PCH) from error

    def _root(self, compiled: WindowsCompile, search: Iterable[WindowsPath]) -> WindowsPath:
        """Return the header that is precompiled, if no text comes before it.

        Raises:
            UncacheableError: some does, or not exactly one file has the name.
        """
        precompiled = compiled.precompiled
        assert precompiled is not None
        first = self._first_name(compiled)
        places = {}
        for directory in (parent(compiled.source), compiled.cwd, *search):
            try:
                path = candidate(precompiled.header, directory)
            except UnclearNameError:
                path = None
            if path is not None and self._disk.is_directory(str(path)) is False:
                places[key_of(path)] = path
        if first != precompiled.header or len(places) != 1:
            raise UncacheableError(UncacheableReason.PCH, precompiled.header)
        return places.popitem()[1]

    def _first_name(self, compiled: WindowsCompile) -> bytes:
        forced = compiled.invocation.forced_includes
        if forced:
            return forced[0]
        text = self._disk.read(str(compiled.source), MAX_INPUT_BYTES) or b""
        found = _FIRST.match(without_comments(text))
        return found[1] if found else b""

    def _key(self, compiled: WindowsCompile, digest: bytes) -> bytes:
        assert compiled.precompiled is not None
        place = windows_key(self._disk.real(str(compiled.precompiled.path)))
        return hashlib.sha256(encode_fields([_FORMAT, place.encode(), digest])).digest()


def _flags_of_text(compiled: WindowsCompile) -> bytes:
    """Return a digest of all that decides what a compiler makes of a text, but the text."""
    invocation, request = compiled.invocation, compiled.request
    words = [w for flag in invocation.flags if _counts(flag) for w in flag.raw]
    fields = [
        *(request.compiler, request.cwd, compiled.identity),
        *(encode_fields(words), invocation.language.value),
        encode_fields(key_environment(request.env, compiled.family)),
    ]
    return hashlib.sha256(encode_fields(fields)).digest()


def _counts(flag: Flag) -> bool:
    spelling = flag.spec.spelling
    # `language` has what the sources' flags decide. A depfile is an output.
    is_other = spelling in {"Tc", "Tp"} or flag.spec.effect is Effect.DEPENDENCY
    return not is_other and spelling not in _OTHER_FLAGS and not _WARNING.fullmatch(spelling)
