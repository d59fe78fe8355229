"""Digests of project files without the text of comments that no compiler can see.

They stand for the files in a second kind of content entry, so that an edit of a comment in a widely
used header rebuilds nothing. `hpcc.compilers.scan.comments` says what such a comment is, and
`hpcc.compilers.invocation.comment_flags` which command lines cannot see it. Files outside of the
places (system headers) keep their plain digests: they rarely change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo, Listing, Signature
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.base.twins import are_files_related
from hpcc.cache.content.places import Places
from hpcc.cache.inputs.closure_types import Closure
from hpcc.compilers.scan.comments import MAX_GCC_LOCATIONS, LexMode, comment_free, gcc_locations
from hpcc.compilers.scan.scan import Hazard

# A file that is read as data, or whose time or text counts in another way.
_RAW: Final = (
    Hazard.ASSEMBLER_FILE
    | Hazard.OPAQUE_ASSEMBLY
    | Hazard.EMBED
    | Hazard.OPAQUE_EMBED
    | Hazard.FILE_TIME
    | Hazard.TIMESTAMP
    | Hazard.READ_ONCE
)
_GUARD: Final = re.compile(
    rb"^[ \t]*#[ \t]*pragma[ \t]+once\b|"
    rb"\A(?:\s|//[^\n]*\n|/\*[\s\S]*?\*/)*+#[ \t]*ifndef[ \t]+(\w+)\s+#[ \t]*define[ \t]+\1\b",
    re.MULTILINE,
)
_MOST_INCLUSIONS: Final = 64
_LOCATIONS: Final = b"locations"
_TAG: Final = b"comment-free-1"
_UNKNOWN: Final = b"raw"


class _Form(NamedTuple):
    digest: bytes
    locations: int


class CommentFree:
    """What `InputSet.holds` asks of a `FileMemo`, with these digests. For one look-up.

    `plain` collects the plain digest of each file that was asked for.
    """

    def __init__(self, memo: FileMemo, places: Places, mode: LexMode) -> None:
        self._memo, self._places, self._mode = memo, places, mode
        # The hash of a plain tuple is cheap, and it is needed for each file.
        self._question = (_TAG, *astuple(mode))
        self.plain: dict[bytes, bytes] = {}
        self.locations = 0

    def digest(self, path: bytes) -> bytes | None:
        """Return the digest of a file: without comments in one of the places, else the plain one.

        None if it is missing or changing.
        """
        plain = self._memo.digest(path)
        return None if plain is None else self.digest_of(path, plain)

    def digest_of(self, path: bytes, plain: bytes) -> bytes | None:
        """Return what `digest` does for a file whose plain digest is known, without a stat."""
        self.plain[path] = plain
        if self._places.mark(path) == path:
            self.locations += self._memo.derived(path, plain, _LOCATIONS, _locations) or 0
            return plain
        form = self._memo.derived(path, plain, self._question, self._form)
        if form is None:
            return None
        self.locations += form.locations
        return plain if form.digest == _UNKNOWN else form.digest

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

    def _form(self, data: bytes) -> _Form:
        text = comment_free(data, self._mode)
        locations = _locations(data)
        if text is None:
            return _Form(_UNKNOWN, locations)
        return _Form(hashlib.sha256(_TAG + text).digest(), locations)


def _locations(data: bytes) -> int:
    """Return an upper bound of the locations that GCC uses for all inclusions of a file.

    Nothing here counts the inclusions of a file without a guard, so it has a large share.
    """
    return gcc_locations(data) * (1 if _GUARD.search(data) else _MOST_INCLUSIONS)


def comment_free_files(
    memo: FileMemo, places: Places, mode: LexMode, closure: Closure
) -> tuple[tuple[bytes, bytes], ...] | None:
    """Return a closure's files with these digests; None if they may not stand for the files.

    Two files that differ only in comments could become twins with `#pragma once` by an edit, and a
    compiler then skips one of them.
    """
    if closure.hazards & _RAW or are_files_related(closure.twins):
        return None
    view = CommentFree(memo, places, mode)
    files: list[tuple[bytes, bytes]] = []
    for path, plain in closure.files:
        digest = view.digest_of(path, plain)
        if digest is None:
            return None
        files.append((path, digest))
    if view.locations > MAX_GCC_LOCATIONS:
        return None
    existing = ((path, view.digest(path) or b"") for path in closure.existing)
    if _may_become_twins(memo, (*files, *existing), view.plain):
        return None
    return tuple(files)


def _may_become_twins(
    memo: FileMemo, files: Iterable[tuple[bytes, bytes]], plain: Mapping[bytes, bytes]
) -> bool:
    first: dict[bytes, bytes] = {}
    for path, digest in files:
        other = first.setdefault(digest, path)
        if other == path:
            continue
        if any(memo.may_be_read_once(p, plain.get(p, b"")) is not False for p in (path, other)):
            return True
    return False
