"""Reads the argv of a gcc or clang command with several sources.

The driver compiles the sources one after another, each as a command with only that source would:
GCC 12 to 14 and Clang 17 and 19 make equal objects, depfiles and messages
(`tests/integration/cache/test_several_sources.py` asks those that are installed). This module
refuses the forms for which that is false: a file that all sources write, or a language that changes
between two sources.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.invocation.several import MAX_SOURCES, SeveralSources
from hpcc.compilers.spec.table import Bypass, Effect, Flag, Operand
from hpcc.compilers.spec.values import wp_depfile


def read_several(arguments: Sequence[bytes]) -> SeveralSources | None:
    """Return where the sources are; None unless each may be compiled in its own command. Pure."""
    parts = GNU_FLAGS.parse(arguments)
    if isinstance(parts, Bypass):
        return None
    places: list[int] = []
    position = 0
    for part in parts:
        if isinstance(part, Operand):
            places.append(position)
            position += 1
            continue
        if _belongs_to_all(part) or (part.spec.effect is Effect.LANGUAGE and places):
            return None
        position += len(part.raw)
    is_whole = position == len(arguments)
    if not is_whole or not 1 < len(places) <= MAX_SOURCES:
        return None
    return SeveralSources(tuple(arguments), tuple(places))


def _belongs_to_all(flag: Flag) -> bool:
    """Return whether a flag names one file that the compiles of all sources write."""
    if flag.spec.effect in {Effect.OUTPUT, Effect.SIDE_OUTPUT} or flag.spec.spelling == "-MF":
        return True
    if flag.spec.spelling == "-Xpreprocessor":
        return flag.value.startswith(b"-M")
    return flag.spec.spelling == "-Wp," and wp_depfile(flag.value) is not None
