"""Finds and stores results shared between clones: stored with a mark in place of the root.

With a remote cache, results that other machines signed are among them, under separate keys.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple, Protocol

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import InputSet, make_set
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.respelling import are_real, has_system_text
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.key.share import Share
from hpcc.cache.results.results import Found, Result, Results
from hpcc.core.memo import LruMemo

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


class SharedResults:
    """Translates between stored `Results` and the paths of a clone. Thread-safe."""

    def __init__(self, results: Results, memo: FileMemo, remote: Remote | None = None) -> None:
        self._results, self._memo, self._remote = results, memo, remote
        self._lock = threading.Lock()
        # Stored sets, and the same sets with a clone's paths, by key and root.
        self._views: LruMemo[bytes, tuple[tuple[InputSet, ...], tuple[InputSet, ...]]] = LruMemo(
            MAX_VIEWS
        )

    def find(self, share: Share, key: bytes = b"") -> Found | None:
        """Return the result whose inputs match this clone's files now, with this clone's paths.

        `key` is another key than the shared one, with results of the same compile.
        """
        key = key or share.key
        stored = self._results.sets(key)
        for inputs, view in zip(stored, self._view(share, key, stored), strict=True):
            if not view.holds(self._memo) or not self._means_the_same(share, view):
                continue
            result = self._results.result(inputs.result_key)
            if result is None:
                return None
            if inputs is not stored[0]:
                self._results.prefer(key, stored, inputs)
            return _spelled(share, view, result)
        return None

    def _means_the_same(self, share: Share, view: InputSet) -> bool:
        """Tell whether equal files have no other meaning in this clone."""
        if share.has_other_names(path for path, _ in view.files):
            return False
        own = [f for f in view.files if f[0].startswith(share.checkout.root)]
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
            if self._means_the_same(share, view):
                return (_spelled(share, view, fetched.result), fetched.key), FETCHED
        return self.find_either(share, key), FETCHED

    def why_missed(self, share: Share | None, key: bytes) -> str:
        """Return why no result was found; see `Results.why_missed`."""
        new = "new-command"
        keys = [key] if share is None else [share.key, key]
        reasons = [reason for k in keys if (reason := self._results.why_missed(k)) != new]
        return reasons[0] if reasons else new

    def latest_files(self, share: Share | None, key: bytes) -> tuple[bytes, ...]:
        """Return the files of the newest hit or result by their paths here, () if not in memory.

        `key` is the key of the compile in this clone, for which there may be a private result.
        """
        inputs = None if share is None else self._results.latest(share.key)
        if share is not None and inputs is not None:
            return tuple(share.checkout.spell(path) for path, _ in inputs.files)
        inputs = self._results.latest(key)
        return () if inputs is None else tuple(path for path, _ in inputs.files)

    def keep(self, prepared: Prepared, closure: Closure, result: Result) -> bytes | None:
        """Store a result that `why_not_shared` accepted; return its key, None if that fails."""
        share = prepared.share
        if share is None:
            return None
        checkout = share.checkout
        texts = checkout.marked_texts(result.depfile, result.stderr)
        if texts is None:
            return None
        inputs = make_set(
            share.key,
            tuple((checkout.mark(path), digest) for path, digest in closure.files),
            tuple(map(checkout.mark, closure.present)),
            checkout.marked_absences(closure.absences),
            twins=tuple(twins.renamed(checkout.mark) for twins in closure.twins),
        )
        depfile, stderr = texts
        marked = result._replace(depfile=depfile, stderr=stderr, origin=checkout.origin)
        stored = self._results.keep_set(share.key, inputs, marked)
        if stored is not None and self._remote is not None:
            self._remote.offer(prepared, inputs, marked)
        return stored

    def _view(self, share: Share, key: bytes, stored: tuple[InputSet, ...]) -> tuple[InputSet, ...]:
        key += share.checkout.root
        with self._lock:
            known = self._views.get(key)
        if known is not None and known[0] is stored:
            return known[1]
        view = tuple(map(share.checkout.spelled_set, stored))
        with self._lock:
            self._views[key] = (stored, view)
        return view


def _spelled(share: Share, view: InputSet, result: Result) -> Found:
    """Return a result with the paths of a clone."""
    depfile, stderr = share.checkout.spelled_texts(result.depfile, result.stderr)
    return Found(view, result._replace(depfile=depfile, stderr=stderr))
