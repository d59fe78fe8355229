"""Digests of project files without the text of comments that no compiler can see.

They stand for the files in a second kind of content entry, so that an edit of a comment in a widely
used header rebuilds nothing. `hpcc.compilers.scan.comments` says what such a comment is, and
`hpcc.compilers.invocation.comment_flags` which command lines cannot see it. Files outside of the
places (system headers) keep their plain digests: they rarely change.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import Final, NamedTuple, cast

from hpcc.cache.base.files import FileMemo, Listing, Signature
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.base.twins import related_files
from hpcc.cache.content.entries import Unsettled
from hpcc.cache.content.inclusions import most_inclusions
from hpcc.cache.content.places import Places
from hpcc.cache.content.values import encode_values, values_of
from hpcc.cache.inputs.closure_types import Closure
from hpcc.compilers.scan.comments import MAX_GCC_LOCATIONS, LexMode, comment_free, gcc_locations
from hpcc.compilers.scan.raised_warnings import (
    COMMENTS,
    DOCUMENTATION,
    raised_warnings,
)
from hpcc.compilers.scan.scan import Hazard

# The time or the text of a file counts in another way.
_RAW: Final = Hazard.FILE_TIME | Hazard.TIMESTAMP
_EMBEDS: Final = Hazard.EMBED | Hazard.OPAQUE_EMBED
_ASSEMBLY: Final = Hazard.ASSEMBLER_FILE | Hazard.OPAQUE_ASSEMBLY
_ONCE: Final = re.compile(rb"^[ \t]*#[ \t]*pragma[ \t]+once\b", re.MULTILINE)
# Boost has comments behind a lone `#` at first; glibc includes a header before the definition.
_GUARD: Final = re.compile(
    rb"(?:\s|//[^\n]*\n|/\*[\s\S]*?\*/|#[ \t]*+(?=[\n/]))*+#[ \t]*ifndef[ \t]+(\w+)\b"
)
_DEFINE: Final = re.compile(rb"#[ \t]*define[ \t]+(\w+)")
_MOST_INCLUSIONS: Final = 64
_FEW_INCLUSIONS: Final = 4
# A file whose bound of locations is larger is asked about.
_MANY_LOCATIONS: Final = MAX_GCC_LOCATIONS // 16
_SOURCES: Final = (b".cc", b".cpp", b".cxx")
_PART: Final = re.compile(
    rb"#[ \t]*error[ \t]+\"Never use <[^>\n]+> directly[^\n]*\n[ \t]*#[ \t]*endif[^\n]*\s+"
    rb"#[ \t]*ifndef[ \t]+(\w+)\s+#[ \t]*define[ \t]+\1\b"
)
_FACTS: Final = b"facts-for-comments"
_TAG: Final = b"comment-free-4"


Files = tuple[tuple[bytes, bytes], ...]
"""Pairs of a path and a digest."""


class _Facts(NamedTuple):
    """`locations`: of GCC, for one inclusion. `most`: how often the file may be included.

    `raised`: which warnings of comments the text may turn on (`compilers.scan.raised_warnings`).
    """

    locations: int
    most: int
    raised: int


class FreeFiles(NamedTuple):
    """A closure's files with these digests, what is left open, and definitions by digests.

    The definitions are packed records (`CommentFree.values`).
    """

    files: Files
    unsettled: Unsettled
    values: dict[bytes, bytes]


class CommentFree:
    """What `InputSet.holds` asks of a `FileMemo`, with these digests. For one look-up.

    `source` is the name of the compile's source. A file keeps its plain digest if it is the one in
    `stored`: such a file was compared by its bytes. `plain` collects the plain digest of each file
    that was asked for. `locations` are those of GCC for all files but repeated ones with a plain
    digest, which are in `repeated`: for each the locations of one inclusion.
    """

    def __init__(
        self,
        memo: FileMemo,
        places: Places,
        mode: LexMode,
        source: bytes,
        stored: Mapping[bytes, bytes],
    ) -> None:
        self._memo, self._mode, self._stored = memo, mode, stored
        self._known = memo.derived_known
        # A file of the source's base name may be the source by another name.
        self._source, self._base = source, source.rpartition(b"/")[2]
        self._header_mode = replace(mode, keeps_end=False)
        # The hash of a plain tuple is cheap, and it is needed for each file.
        self._question = (_TAG, *astuple(mode))
        self._header_question = (_TAG, *astuple(self._header_mode))
        self._inside = tuple(place + b"/" for place in places if place)
        self.plain: dict[bytes, bytes] = {}
        self._once = 0
        self._unguarded: dict[bytes, tuple[int, int]] = {}
        self.repeated: dict[bytes, int] = {}
        self._repetitions = 0
        self._raised = 0

    @property
    def may_warn(self) -> bool:
        """Tell whether a text may make the compiler warn of comments that have no form."""
        refused = COMMENTS | DOCUMENTATION if self._mode.is_clang else COMMENTS
        return bool(self._raised & refused)

    @property
    def locations(self) -> int:
        """Return an upper bound of GCC's locations for all files that are not in `repeated`."""
        total = self._once + sum(each * most for each, most in self._unguarded.values())
        if total <= MAX_GCC_LOCATIONS:
            return total
        for path, (each, most) in self._unguarded.items():
            if each * most > _MANY_LOCATIONS:
                times = most_inclusions(self._memo, path, self.plain, self._most, most)
                total -= each * (most - times)
        return total

    def large(self) -> dict[bytes, bytes]:
        """Return the plain digests of headers that may be included too often for GCC's columns."""
        sizes = self._unguarded.items()
        paths = (path for path, (each, most) in sizes if each * most > _MANY_LOCATIONS)
        return {path: self.plain[path] for path in paths if path != self._source}

    def _most(self, path: bytes, plain: bytes) -> int:
        if path == self._source:  # mostly no text names it
            return most_inclusions(self._memo, path, self.plain, self._guarded, _MOST_INCLUSIONS)
        return self._guarded(path, plain)

    def _guarded(self, _path: bytes, plain: bytes) -> int:
        facts = cast("_Facts | None", self._known((_FACTS, plain)))
        return _MOST_INCLUSIONS if facts is None else facts.most

    @property
    def has_all_columns(self) -> bool:
        """Tell whether GCC has columns for all lines, however often it includes the files."""
        return self.locations + self._repetitions <= MAX_GCC_LOCATIONS

    def digest(self, path: bytes) -> bytes | None:
        """Return the digest of a file: without comments in one of the places, else the plain one.

        None if it is missing or changing.
        """
        plain = self._memo.digest(path)
        return None if plain is None else self.digest_of(path, plain)

    def digest_of(self, path: bytes, plain: bytes) -> bytes | None:
        """Return what `digest` does for a file whose plain digest is known, without a stat."""
        # Called for each input of each compile that is stored; most are the system's headers.
        self.plain[path] = plain
        facts = self._known((_FACTS, plain))
        if facts is None:
            facts = self._memo.derived(path, plain, _FACTS, _facts)
            if facts is None:
                return None
        locations, most, raised = cast("_Facts", facts)
        # gtest-all.cc includes other sources, each once.
        is_source = most > _FEW_INCLUSIONS and path.endswith(_SOURCES)
        most = _FEW_INCLUSIONS if is_source else most
        self._raised |= raised
        digest = self._form(path, plain)
        if most > 1 and digest == plain:
            self.repeated[path] = locations
            self._repetitions += locations * most
        elif most > 1:
            self._unguarded[path] = (locations, most)
        else:
            self._once += locations
        return digest

    def _form(self, path: bytes, plain: bytes) -> bytes | None:
        if not path.startswith(self._inside) or self._stored.get(path) == plain:
            return plain
        if path.rpartition(b"/")[2] == self._base:
            form = self._memo.derived(path, plain, self._question, _Former(self._mode))
        else:
            form = cast("_Text | None", self._known((self._header_question, plain)))
            if form is None:
                former = _Former(self._header_mode)
                form = self._memo.derived(path, plain, self._header_question, former)
        if form is None:
            return None
        return form.digest or plain

    def values(self, path: bytes) -> bytes | None:
        """Return the definitions of a header that has a digest of this kind; None without any.

        It is their record, packed by zlib.
        """
        plain = self.plain.get(path)
        text = None if plain is None else self._known((self._header_question, plain))
        return None if text is None or path == self._source else cast("_Text", text).values

    def digests_of(self, files: Files) -> Files | None:
        """Return what `digest_of` does for paths with plain digests; None if one is unknown."""
        # Called for each compile that is stored; most files are the system's headers.
        known, inside = self._known, self._inside
        self.plain.update(files)
        found: list[tuple[bytes, bytes]] = []
        for file in files:
            path, plain = file
            facts = known((_FACTS, plain))
            if facts is None or path.startswith(inside) or path.endswith(_SOURCES):
                digest = self.digest_of(path, plain)
                if digest is None:
                    return None
                found.append((path, digest))
                continue
            locations, most, raised = cast("_Facts", facts)
            if most > 1:
                self.repeated[path] = locations
                self._repetitions += locations * most
            else:
                self._once += locations
            self._raised |= raised
            found.append(file)
        return tuple(found)

    def listing(self, path: bytes) -> Listing | None:
        """See `FileMemo.listing`."""
        return self._memo.listing(path)

    def is_quiet(self, signature: Signature, at_ns: int | None = None) -> bool:
        """See `FileMemo.is_quiet`."""
        return self._memo.is_quiet(signature, at_ns)

    def now_ns(self) -> int:
        """See `FileMemo.now_ns`."""
        return self._memo.now_ns()

    def with_plain_digests(self, inputs: InputSet) -> InputSet:
        """Return a set that holds, with the files' plain digests in place of these."""
        return inputs._replace(
            files=tuple((path, self.plain.get(path, digest)) for path, digest in inputs.files)
        )


class _Text(NamedTuple):
    """Of a text without comments: the digest, b"" if all bytes of the file count; definitions.

    The definitions are packed: thousands of texts are remembered, some with thousands of them.
    """

    digest: bytes
    values: bytes | None


class _Former:
    """Makes the digest of a text in one mode."""

    def __init__(self, mode: LexMode) -> None:
        self._mode = mode

    def __call__(self, data: bytes) -> _Text:
        form = comment_free(data, self._mode)
        if form is None:
            return _Text(b"", None)
        is_shown = form.has_line_comments and self._mode.shows_line_comments
        tag = _TAG + (b"//" if is_shown else b"  ")
        found = values_of(form.text)
        packed = None if found is None else zlib.compress(encode_values(found), 1)
        return _Text(hashlib.sha256(tag + form.text).digest(), packed)


def _facts(data: bytes) -> _Facts:
    return _Facts(gcc_locations(data), _most_inclusions(data), raised_warnings(data))


def _most_inclusions(data: bytes) -> int:
    """Return an upper bound of how often a file is included in one compile."""
    guard = _GUARD.match(data)
    # Not a pattern with the guard's name: each header would compile one.
    if guard is not None and any(m[1] == guard[1] for m in _DEFINE.finditer(data)):
        return 1
    if b"once" in data and b"pragma" in data and _ONCE.search(data):
        return 1
    if b"\0" in data:
        return 1  # the data of a locale, which a compiler with messages reads, and no header
    # Compilers' headers of intrinsics ask before their guard whether another one includes them.
    return _FEW_INCLUSIONS if _PART.search(data) else _MOST_INCLUSIONS


def comment_free_files(
    memo: FileMemo, places: Places, mode: LexMode, source: bytes, closure: Closure
) -> FreeFiles | None:
    """Return a closure's files with these digests; None if they may not stand for the files.

    Files of data keep their plain digests. GNU as lists files of the source's name for its `.file`,
    so these count as text, until an answer says that the assembler reads any data.

    Two files that differ only in comments could become twins with `#pragma once` by an edit, and a
    compiler then skips one of them. Files that are twins keep their plain digests.
    """
    has_embeds = bool(closure.data) and bool(closure.hazards & _EMBEDS)
    twins = related_files(closure.twins)
    if closure.hazards & _RAW or has_embeds or twins is None:
        return None
    base = source.rpartition(b"/")[2]
    is_named = all(path.rpartition(b"/")[2] == base for path in closure.data)
    data = frozenset[bytes]() if is_named else closure.data
    stored = {path: plain for path, plain in closure.files if path in data} if data else {}
    view = CommentFree(memo, places, mode, source, stored)
    files = view.digests_of(closure.files)
    if view.locations > MAX_GCC_LOCATIONS and (large := view.large()):
        # How often these are included is asked before a hit, which tells nothing of edited ones.
        stored = {**stored, **large}
        view = CommentFree(memo, places, mode, source, stored)
        files = view.digests_of(closure.files)
    if files is None or view.may_warn or view.locations > MAX_GCC_LOCATIONS:
        return None
    locations = 0 if view.has_all_columns else view.locations
    existing = ((path, view.digest(path) or b"") for path in closure.existing)
    every = Hazard.READ_ONCE in closure.hazards
    if _may_become_twins(memo, (*files, *existing), view.plain, twins, are_all_once=every):
        return None
    if twins:
        files = tuple((p, view.plain[p] if p in twins else digest) for p, digest in files)
    names_source = bool(closure.data) and is_named
    in_asm = names_source and bool(closure.hazards & _ASSEMBLY)
    values = {
        digest: found
        for path, digest in files
        if digest != view.plain[path] and (found := view.values(path)) is not None
    }
    return FreeFiles(files, Unsettled(in_asm, locations, strings=names_source), values)


def _may_become_twins(
    memo: FileMemo,
    files: Files,
    plain: Mapping[bytes, bytes],
    twins: frozenset[bytes],
    *,
    are_all_once: bool,
) -> bool:
    """Tell whether an edit of comments can make two files one; `twins` may not be edited.

    `are_all_once`: a file may be read once without a word of it in its own text.
    """
    if len({digest for _, digest in files}) == len(files):
        return False
    first: dict[bytes, bytes] = {}
    for path, digest in files:
        other = first.setdefault(digest, path)
        if other is path or (path in twins and other in twins):
            continue
        # With and without `..` it is one file: `Contents` refuses a `..` that leaves a link.
        if os.path.normpath(other) == os.path.normpath(path):
            continue
        if are_all_once:
            return True
        if any(memo.may_be_read_once(p, plain.get(p, b"")) is not False for p in (path, other)):
            return True
    return False
