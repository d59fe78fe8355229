"""Finds and stores results shared between clones: stored with a mark in place of the root.

Each clone has other bytes in its precompiled headers and compiled interfaces. So a stored set names
their origins, and the result tells with which contents it was made (`results.origins`).

With a remote cache, results that other machines signed are among them, under separate keys. They
have no binary inputs.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple, Protocol

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import InputSet, make_set
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.respelling import are_real, has_system_text
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.key.relocate import BY_ORIGIN, BY_TEXT, ORIGIN_BYTES
from hpcc.cache.key.share import Share
from hpcc.cache.results.interfaces import binary_outputs
from hpcc.cache.results.origins import Origins, contents_of
from hpcc.cache.results.results import Found, Result, Results, basis_text, signer_of
from hpcc.cache.results.share_check import SourceCheck, marked_sources, why_not_shared
from hpcc.core.memo import LruMemo
from hpcc.core.reasons.private import PrivateReason
from hpcc.store.private import PrivateStore

MAX_VIEWS: Final = 4096
# The word of `Remote.fetch` after which a look-up finds a result.
FETCHED: Final = "found"
Located = tuple[Found, bytes]
"""A result, and the key under which it was found."""


class Fetched(NamedTuple):
    """What the remote cache had: a word for the record of the compile, and a result.

    `inputs` are those under which `result` was stored, with marks. They matched the checkout when
    it was stored. None if another request stored it, or nothing was stored.
    """

    word: str
    key: bytes = b""
    inputs: InputSet | None = None
    result: Result | None = None


class Remote(Protocol):
    """A team's remote cache: `hpcc.cache.signed.remote`."""

    def keys(self, share: Share) -> tuple[bytes, ...]:
        """Return the local keys under which fetched results of this compile are stored."""
        ...

    def fetch(self, share: Share, source: bytes | None) -> Fetched:
        """Store what the remote cache has for this compile, and return it."""
        ...

    def offer(self, prepared: Prepared, inputs: InputSet, result: Result) -> None:
        """Give away a result that was compiled just now."""
        ...


# What each clone makes for itself, and what then has an origin.
_MADE_HERE: Final = frozenset({PrivateReason.PCH, PrivateReason.MODULES})

_Files = tuple[tuple[bytes, bytes], ...]


class _View(NamedTuple):
    """A stored set with this clone's paths, and the files in it that have other names.

    `by_origin` are binary inputs with their origins. `by_text` are sources that include headers by
    absolute names, with the SHA-256 of their text with marks.
    """

    inputs: InputSet
    by_origin: _Files
    by_text: _Files


class _Match(NamedTuple):
    """A set that holds here. `made` is None if its result was never compared with these files.

    `unproved` then names the contents whose origins a comparison would prove.
    """

    stored: InputSet
    view: InputSet
    made: Result | None
    unproved: tuple[bytes, ...] = ()


class SharedResults:
    """Translates between stored `Results` and the paths of a clone. Thread-safe."""

    def __init__(
        self,
        results: Results,
        memo: FileMemo,
        store: PrivateStore,
        sources: SourceCheck,
        remote: Remote | None = None,
    ) -> None:
        self._results, self._memo, self._remote = results, memo, remote
        self._origins, self._sources = Origins(store), sources
        self._lock = threading.Lock()
        # Stored sets, and the same sets with a clone's paths, by key and root.
        self._views: LruMemo[bytes, tuple[tuple[InputSet, ...], tuple[_View, ...]]] = LruMemo(
            MAX_VIEWS
        )

    def find(self, share: Share, key: bytes = b"") -> Found | None:
        """Return the result whose inputs match this clone's files now, with this clone's paths.

        `key` is another key than the shared one, with results of the same compile.
        """
        key = key or share.key
        stored = self._results.sets(key)
        match = self._match(share, key, stored)
        if match is None or match.made is None:
            return None
        if match.stored is not stored[0]:
            self._results.prefer(key, stored, match.stored)
        return _spelled(share, match.view, match.made)

    def _match(self, share: Share, key: bytes, stored: tuple[InputSet, ...]) -> _Match | None:
        unproved: _Match | None = None
        for inputs, view in zip(stored, self._view(share, key, stored), strict=True):
            if not view.inputs.holds(self._memo):
                continue
            texts = self._texts_here(view.by_text, share.checkout.root)
            files = self._files_here(view.by_origin, share.checkout.root)
            if texts is None or files is None:
                continue
            texts = (*view.inputs.files, *texts)
            if not self._means_the_same(share, texts):
                continue
            result = self._results.result(inputs.result_key)
            if result is None:
                return None
            state = view.inputs._replace(files=(*texts, *files))
            if self._is_proved(view.by_origin, files, _made_with(result)):
                return _Match(inputs, state, result)
            pairs = zip(view.by_origin, files, strict=True)
            names = sorted(origin + here for (_, origin), (_, here) in pairs)
            unproved = _Match(inputs, state, None, tuple(names))
        return unproved

    def _files_here(self, by_origin: _Files, root: bytes) -> _Files | None:
        """Return these files with their SHA-256; None unless each has its origin."""
        found: list[tuple[bytes, bytes]] = []
        for path, origin in by_origin:
            digest = self._memo.digest(path)
            if digest is None or origin not in self._origins.of(path, digest, root):
                return None
            found.append((path, digest))
        return tuple(found)

    def _texts_here(self, by_text: _Files, root: bytes) -> _Files | None:
        """Return these sources with their SHA-256; None unless each has its text."""
        found: list[tuple[bytes, bytes]] = []
        for path, text in by_text:
            digest = self._memo.digest(path)
            source = None if digest is None else self._sources.marked(path, digest, root)
            if digest is None or source is None or source.digest != text:
                return None
            found.append((path, digest))
        return tuple(found)

    def _is_proved(
        self,
        by_origin: _Files,
        files: _Files,
        made_with: tuple[bytes, ...],
    ) -> bool:
        """Tell whether a result that was made with other contents counts for these files."""
        return len(made_with) == len(files) and all(
            self._origins.are_equal(origin, before, here)
            for (_, origin), (_, here), before in zip(by_origin, files, made_with, strict=True)
        )

    def _means_the_same(self, share: Share, files: _Files) -> bool:
        """Tell whether equal files have no other meaning in this clone."""
        if share.has_other_names(path for path, _ in files):
            return False
        own = [f for f in files if f[0].startswith(share.checkout.root)]
        return not has_system_text(self._memo, own) or are_real(path for path, _ in own)

    def find_either(self, share: Share | None, key: bytes) -> Located | None:
        """Return the result of an equal request, and the key under which it was found.

        `key` is the key of the compile in this clone.
        """
        found = None if share is None else self.find(share)
        if share is not None and found is not None:
            return found, share.key
        found = self._results.find(key)
        if found is not None:
            return found, key
        return None if share is None or self._remote is None else self._find_fetched(share)

    def _find_fetched(self, share: Share) -> Located | None:
        """Return a result that another machine made and signed, and the key it is under."""
        for key in self._remote.keys(share) if self._remote is not None else ():
            found = self.find(share, key)
            if found is not None:
                return found, key
        return None

    def fetch(self, share: Share | None, key: bytes, source: bytes) -> tuple[Located | None, str]:
        """Ask the remote cache after a miss; `key` is that of the compile in this clone.

        `source` is the path of the source. Returns what `find_either` would find now, and a word
        for the record, which is "" without a remote cache.
        """
        if share is None or self._remote is None:
            return None, ""
        fetched = self._remote.fetch(share, self._memo.digest(source))
        if fetched.word != FETCHED:
            return None, fetched.word
        if fetched.inputs is not None and fetched.result is not None:
            # Its inputs matched a moment ago. To compare them again would be most of the cost.
            view = share.checkout.spelled_set(fetched.inputs)
            is_whole = len(view.files) == len(fetched.inputs.files)
            if is_whole and self._means_the_same(share, view.files):
                return (_spelled(share, view, fetched.result), fetched.key), FETCHED
        return self.find_either(share, key), FETCHED

    def why_missed(self, share: Share | None, key: bytes) -> str:
        """Return why no result was found: "unproved", or what `Results.why_missed` returns."""
        if self.comparisons(share):
            return "unproved"
        new = "new-command"
        keys = [key] if share is None else [share.key, key]
        reasons = [reason for k in keys if (reason := self._results.why_missed(k)) != new]
        return reasons[0] if reasons else new

    def comparisons(self, share: Share | None) -> tuple[bytes, ...]:
        """Return names, longer than keys, of what a compile would prove for others, sorted."""
        if share is None:
            return ()
        stored = self._results.sets(share.key)
        is_possible = any(view.by_origin for view in self._view(share, share.key, stored))
        match = self._match(share, share.key, stored) if is_possible else None
        return () if match is None else match.unproved

    def latest_files(self, share: Share | None, key: bytes) -> tuple[bytes, ...]:
        """Return the files of the newest hit or result by their paths here, () if not in memory.

        `key` is the key of the compile in this clone, for which there may be a private result.
        """
        inputs = None if share is None else self._results.latest(share.key)
        if share is not None and inputs is not None:
            return tuple(share.checkout.spell(path) for path, _ in inputs.files)
        inputs = self._results.latest(key)
        return () if inputs is None else tuple(path for path, _ in inputs.files)

    def keep(
        self, prepared: Prepared, share: Share, closure: Closure, result: Result
    ) -> tuple[bytes | None, str]:
        """Store a result for all clones; return its key, or the `PrivateReason` not to.

        The key is None if that fails. What a private result wrote gets its origin here.
        """
        reason = why_not_shared(prepared, share, closure, result, self._sources)
        if reason and reason not in _MADE_HERE:
            return None, reason
        named = self._named(prepared, share, closure)
        if named is None:
            return None, PrivateReason.MODULES if closure.interfaces else PrivateReason.PCH
        inputs, made_with = named
        if reason:
            for path, data in binary_outputs(prepared, result):
                self._origins.remember(path, data, inputs.result_key, share.checkout.root)
            return None, reason
        checkout = share.checkout
        texts = checkout.marked_texts(result.depfile, result.stderr)
        assert texts is not None  # `why_not_shared` checked it
        depfile, stderr = texts
        origin = checkout.origin + b"".join(made_with)
        marked = result._replace(depfile=depfile, stderr=stderr, origin=origin)
        known = self._results.result(inputs.result_key) if made_with else None
        before = () if known is None else _made_with(known)
        if known is not None and before != made_with and len(before) == len(made_with):
            return self._compare(
                checkout.files_by(BY_ORIGIN, inputs), inputs.result_key, known, marked
            )
        stored = self._results.keep_set(share.key, inputs, marked)
        if stored is not None and self._remote is not None and not made_with:
            self._remote.offer(prepared, inputs, marked)
        return stored, ""

    def _named(
        self, prepared: Prepared, share: Share, closure: Closure
    ) -> tuple[InputSet, tuple[bytes, ...]] | None:
        """Return the inputs as they are stored, and the contents of those named by their origins.

        None if one of these has no origin, or if the unit read it as data (`.incbin`), too.
        """
        checkout, binary = share.checkout, frozenset(closure.binary)
        if not closure.data.isdisjoint(binary):
            return None
        marked = marked_sources(prepared, share, closure, self._sources)
        files, made_with = list[tuple[bytes, bytes]](), list[bytes]()
        for path, digest in closure.files:
            mark = checkout.mark(path)
            if path in marked:
                files.append((BY_TEXT + mark, marked[path].digest))
            elif path not in binary:
                files.append((mark, digest))
            elif origins := self._origins.of(path, digest, checkout.root):
                files.append((BY_ORIGIN + mark, origins[0]))
                made_with.append(digest)
            else:
                return None
        inputs = make_set(
            share.key,
            tuple(files),
            tuple(map(checkout.mark, closure.present)),
            checkout.marked_absences(closure.absences),
            twins=tuple(twins.renamed(checkout.mark) for twins in closure.twins),
        )
        return inputs, tuple(made_with)

    def _compare(
        self,
        by_origin: _Files,
        result_key: bytes,
        known: Result,
        made: Result,
    ) -> tuple[bytes | None, str]:
        """Compare a result with the stored one of other contents of the same origins; see `keep`.

        Without a difference the stored one stays.
        """
        before, here = _made_with(known), _made_with(made)
        is_equal = known._replace(origin=b"") == made._replace(origin=b"")
        counts = is_equal
        for (_, origin), one, other in zip(by_origin, before, here, strict=True):
            if one != other and is_equal:
                self._origins.note_equal(origin, one, other)
            elif one != other:
                self._origins.note_different(origin)
            # One of its other users may have been different.
            counts = counts and self._origins.are_equal(origin, one, other)
        return (result_key, "") if counts else (None, PrivateReason.ORIGIN)

    def _view(self, share: Share, key: bytes, stored: tuple[InputSet, ...]) -> tuple[_View, ...]:
        key += share.checkout.root
        with self._lock:
            known = self._views.get(key)
        if known is not None and known[0] is stored:
            return known[1]
        checkout = share.checkout
        view = tuple(
            _View(
                checkout.spelled_set(its),
                checkout.files_by(BY_ORIGIN, its),
                checkout.files_by(BY_TEXT, its),
            )
            for its in stored
        )
        with self._lock:
            self._views[key] = (stored, view)
        return view


def _spelled(share: Share, view: InputSet, result: Result) -> Found:
    """Return a result with the paths of a clone."""
    depfile, stderr = share.checkout.spelled_texts(result.depfile, result.stderr)
    return Found(view, result._replace(depfile=depfile, stderr=stderr))


def _made_with(result: Result) -> tuple[bytes, ...]:
    """Return the SHA-256 of the binary inputs of a result that was made here."""
    is_foreign = signer_of(result.origin) or basis_text(result.origin)
    return () if is_foreign else contents_of(result.origin[ORIGIN_BYTES:])
