"""Where the sources are in a command line of cl or clang-cl with several of them.

cpp-docs, "/c" and "Filename syntax": every name without an option is a source, and all options
apply to all of them. `/Fo` then names a directory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hpcc.compilers.invocation.several import MAX_SOURCES, SeveralSources
from hpcc.compilers.msvc.invocation import parse_arguments
from hpcc.compilers.spec.table import Bypass, Operand

# A source with its own language may be between others of another one.
_OF_ONE_SOURCE: Final = frozenset({"Tc", "Tp"})
_SEVERAL: Final = 2
# The compiler's last line: "Generating Code...", in the user's language. No message ends so.
_GENERATING: Final = re.compile(rb"(?!.*\b[CD][0-9]{4}\b)[^:()]+\.\.\.")


def sources_in(arguments: Sequence[bytes], *, is_clang: bool) -> SeveralSources | None:
    """Return arguments with the places of their sources; None if there are not several.

    The arguments must be all that the compiler gets, without `CL` and response files.
    """
    parts = parse_arguments(arguments, is_clang=is_clang)
    if isinstance(parts, Bypass):
        return None
    places: list[int] = []
    at, is_behind = 0, False
    for part in parts:
        if isinstance(part, Operand):
            if arguments[at] == b"--" and is_clang and not is_behind:
                at, is_behind = at + 1, True
            places.append(at)
            at += 1
        elif part.spec.spelling in _OF_ONE_SOURCE:
            return None
        else:
            at += len(part.raw)
    if not _SEVERAL <= len(places) <= MAX_SOURCES:
        return None
    return SeveralSources(tuple(arguments), tuple(places))


def split_names(text: bytes, sources: Sequence[bytes]) -> tuple[list[bytes], bytes] | None:
    """Return what cl printed for each source, its name, and the line behind all; not yet run.

    None if it printed anything else: nothing tells which source a message belongs to.
    """
    lines = text.splitlines(keepends=True)
    names = [re.split(rb"[\\/]", source)[-1] for source in sources]
    found, behind = lines[: len(names)], lines[len(names) :]
    if [line.rstrip(b"\r\n") for line in found] != names or len(behind) > 1:
        return None
    last = b"".join(behind)
    is_known = not last or _GENERATING.fullmatch(last.rstrip(b"\r\n")) is not None
    return (found, last) if is_known else None
