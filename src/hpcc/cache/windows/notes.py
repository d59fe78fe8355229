"""What is recorded of a Windows client's compile, for `hpcc explain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.windows.command import WindowsCompile
from hpcc.compilers.invocation.invocation import Invocation


class _Compiler(NamedTuple):
    digest: bytes


@dataclass(frozen=True, slots=True)
class WindowsNote:
    """See `results.note.NotedCompile`. Such results are not shared."""

    request: CompileRequest
    invocation: Invocation
    identity: _Compiler
    key: bytes
    source: bytes
    output: bytes
    colour: tuple[bytes, ...] = ()
    share: None = None


def noted(compiled: WindowsCompile) -> WindowsNote:
    """Return what a record tells of this compile."""
    return WindowsNote(
        compiled.request,
        compiled.invocation,
        _Compiler(compiled.identity),
        compiled.key,
        str(compiled.source).encode(),
        str(compiled.output).encode(),
    )
