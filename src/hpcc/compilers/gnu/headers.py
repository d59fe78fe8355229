"""Removes GCC's `-H` lines from its messages, and outputs from a command line."""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.invocation.dependencies import Headers
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.precompiled import EMIT
from hpcc.compilers.spec.table import Effect, Operand

_HEADER_LINE: Final = re.compile(rb"\.+ (.+)")
_PCH_LINE: Final = re.compile(rb"[!x] .+")


def strip_headers(stderr: bytes) -> Headers:
    """Return the headers that GCC's `-H` listed, and stderr without `-H` lines.

    The list of missing include guards is removed too. The line above that list is translated, so
    it is recognised by the lines after it: names that `-H` has listed.
    """
    names: dict[bytes, None] = {}
    kept: list[bytes] = []
    has_pch = is_in_list = False
    for line in stderr.splitlines(keepends=True):
        bare = line.rstrip(b"\n")
        match = _HEADER_LINE.fullmatch(bare)
        if match is not None:
            names[match[1]] = None
        elif _PCH_LINE.fullmatch(bare):
            has_pch = True
        elif bare in names:
            if kept and not is_in_list:
                kept.pop()
            is_in_list = True
        else:
            kept.append(line)
            is_in_list = False
    return Headers(tuple(names), b"".join(kept), has_pch)


def without_outputs(invocation: Invocation) -> tuple[bytes, ...]:
    """Return the arguments for `-M`: without those that name outputs or concern depfiles."""
    kept: list[bytes] = []
    for part in invocation.parts:
        if isinstance(part, Operand):
            kept.append(part.name)
        elif part.spec.spelling == "-Xclang" and part.value == EMIT:
            continue
        elif part.spec.effect not in {
            Effect.MODE,
            Effect.OUTPUT,
            Effect.DEPENDENCY,
            Effect.SIDE_OUTPUT,
            Effect.SHOWN,
        } and not (
            invocation.deps_by_wp and part.spec.spelling == "-Wp," and b"-M" in part.value[:4]
        ):
            kept.extend(part.raw)
    return tuple(kept)
