"""What is recorded of a Windows client's compile, for `hpcc explain`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.windows.sharing import SharedCompile
from hpcc.compilers.invocation.invocation import Invocation


class _Compiler(NamedTuple):
    digest: bytes


class _Checkout(NamedTuple):
    root: bytes
    spell: Callable[[bytes], bytes]


class _Shared(NamedTuple):
    checkout: _Checkout


@dataclass(frozen=True, slots=True)
class WindowsNote:
    """See `results.note.NotedCompile`."""

    request: CompileRequest
    invocation: Invocation
    identity: _Compiler
    key: bytes
    source: bytes
    output: bytes
    share: _Shared | None
    colour: tuple[bytes, ...] = ()


def noted(asked: SharedCompile) -> WindowsNote:
    """Return what a record tells of this compile.

    A result under another key than the note's has names with marks.
    """
    compiled, share = asked.compiled, asked.share
    shared = None
    if share is not None:
        shared = _Shared(_Checkout(str(share.root).encode(), share.spell))
    return WindowsNote(
        compiled.request,
        compiled.invocation,
        _Compiler(compiled.identity),
        asked.key,
        str(compiled.source).encode(),
        str(compiled.output).encode(),
        shared,
    )
