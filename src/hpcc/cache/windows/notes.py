"""What is recorded of a Windows client's compile, for `hpcc explain` and `hpcc report`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hpcc.cache.results.note import PlainNote
from hpcc.cache.windows.sharing import SharedCompile


class _Checkout(NamedTuple):
    root: bytes
    spell: Callable[[bytes], bytes]


class _Shared(NamedTuple):
    checkout: _Checkout


def noted(asked: SharedCompile) -> PlainNote:
    """Return what a record tells of this compile.

    A result under another key than the note's has names with marks.
    """
    compiled, share = asked.compiled, asked.share
    shared = None
    if share is not None:
        shared = _Shared(_Checkout(str(share.root).encode(), share.spell))
    return PlainNote(
        compiled.request,
        compiled.invocation,
        compiled.identity,
        asked.key,
        str(compiled.source).encode(),
        str(compiled.output).encode(),
        shared,
    )
