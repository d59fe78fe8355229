"""Lets a macro that no file reads have another value in a header, and the object stays the same.

Problem: a header that a build generates holds the time, a version or the name of a commit, and each
source includes it. Its bytes are other ones after each `make clean`. Mostly one line of it differs,
and most sources do not read that macro.

Rule: two headers that differ only in values of plain definitions (`content.values`) give the same
object if no text of the compile reads these names (`content.macros` says what reading is).

What a value can reach besides: debug information about macros, and messages that name a macro or
its header. Results with these are refused. So are headers that equal another one, of which
`#pragma once` skips one, and two headers that define one name.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Final

from hpcc.cache.base.files import FileMemo, Listing, Signature
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.base.twins import related_files
from hpcc.cache.content.comments import CommentFree
from hpcc.cache.content.macros import MacroTexts, is_plain_name, said_by
from hpcc.cache.content.values import decode_values, record_key
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.comment_flags import shows_macros
from hpcc.compilers.invocation.content import ContentForm
from hpcc.core import IntegrityError
from hpcc.store.private import PrivateStore

_MAX_NAMES: Final = 16
_MAX_FILES: Final = 4


class Edits:
    """What `InputSet.holds` asks of `CommentFree`; for it, edited values count as unchanged.

    `stored` are the digests of an entry, by their paths here. `files` are the headers that differ,
    each with its macros that do, after `InputSet.holds`. For one look-up.
    """

    def __init__(
        self, facts: CommentFree, store: PrivateStore, stored: Mapping[bytes, bytes]
    ) -> None:
        self._facts, self._store, self._stored = facts, store, stored
        self.files: dict[bytes, frozenset[bytes]] = {}
        self._names: frozenset[bytes] = frozenset()

    def digest(self, path: bytes) -> bytes | None:
        """See `CommentFree.digest`; the stored digest if only values of macros differ."""
        digest, before = self._facts.digest(path), self._stored.get(path)
        if digest is None or before is None or digest == before:
            return digest
        names = self._changed(path, before) if len(self.files) < _MAX_FILES else None
        # Two definitions of one name are compared, also those in two headers.
        if names is None or names & self._names:
            return digest
        self._names |= names
        self.files[path] = names
        return before if len(self._names) <= _MAX_NAMES else digest

    def _changed(self, path: bytes, before: bytes) -> frozenset[bytes] | None:
        now = self._facts.values(path)
        key = record_key(before)
        data = None if now is None else self._store.get(key)
        if now is None or data is None:
            return None
        try:
            then = decode_values(data)
        except IntegrityError:
            self._store.remove(key)
            return None
        names = then.changed(decode_values(zlib.decompress(now)))
        if names is None:
            return None
        self._store.touch(key)
        return names if all(map(is_plain_name, names)) else None

    def listing(self, path: bytes) -> Listing | None:
        """See `FileMemo.listing`."""
        return self._facts.listing(path)

    def is_quiet(self, signature: Signature, at_ns: int | None = None) -> bool:
        """See `FileMemo.is_quiet`."""
        return self._facts.is_quiet(signature, at_ns)

    def now_ns(self) -> int:
        """See `FileMemo.now_ns`."""
        return self._facts.now_ns()

    def are_named(self, messages: bytes) -> bool:
        """Tell whether messages of the compiler may name one of the macros or of the headers."""
        words = (*self._names, *(path.rpartition(b"/")[2] for path in self.files))
        return any(word in messages for word in words)

    def are_invisible(
        self, memo: FileMemo, prepared: Prepared, form: ContentForm, view: InputSet
    ) -> bool:
        """Tell whether the object is the same with these values. `view` has the plain digests."""
        # The compiler skips a header that equals another one. Twins did so before.
        twins = related_files(view.twins)
        if shows_macros(prepared.invocation) or twins is None or not twins.isdisjoint(self.files):
            return False
        digests = Counter(digest for _, digest in view.files)
        if any(digests[digest] > 1 for path, digest in view.files if path in self.files):
            return False
        texts = MacroTexts(memo, view.files, said_by(form, form.macros), self.files)
        return not texts.are_read(prepared, self._names)
