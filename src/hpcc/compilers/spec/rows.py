"""Shorthands to write the tables of flags."""

from __future__ import annotations

from typing import Final

from hpcc.compilers.spec.table import CLANG_MAJORS, GCC_MAJORS, NO_MAJORS, Arity, Effect, FlagSpec

ALONE, SEPARATE, JOINED, EITHER = Arity.ALONE, Arity.SEPARATE, Arity.JOINED, Arity.EITHER

MANUAL: Final = "GCC manual, "
CLANG: Final = "Clang command line reference, "


def rows(
    arity: Arity,
    effect: Effect,
    source: str,
    *spellings: str,
    reason: str = "",
    gcc: range = GCC_MAJORS,
    clang: range = CLANG_MAJORS,
    is_stable: bool = False,
) -> list[FlagSpec]:
    """Return one row per spelling."""
    return [
        FlagSpec(
            s,
            arity,
            effect,
            source=source,
            reason=reason,
            gcc=gcc,
            clang=clang,
            is_stable=is_stable,
        )
        for s in spellings
    ]


def gcc_rows(
    arity: Arity, effect: Effect, source: str, *spellings: str, since: int = GCC_MAJORS.start
) -> list[FlagSpec]:
    """Return rows of flags that Clang does not have."""
    return rows(
        arity,
        effect,
        MANUAL + source,
        *spellings,
        gcc=range(since, GCC_MAJORS.stop),
        clang=NO_MAJORS,
    )


def clang_rows(
    arity: Arity, effect: Effect, source: str, *spellings: str, since: int = CLANG_MAJORS.start
) -> list[FlagSpec]:
    """Return rows of flags that GCC does not have."""
    return rows(
        arity,
        effect,
        CLANG + source,
        *spellings,
        gcc=NO_MAJORS,
        clang=range(since, CLANG_MAJORS.stop),
    )


def refuse(arity: Arity, reason: str, source: str, *spellings: str) -> list[FlagSpec]:
    """Return rows of flags that prevent caching with every compiler."""
    return rows(arity, Effect.REFUSE, source, *spellings, reason=reason)
