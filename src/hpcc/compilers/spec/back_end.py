"""Reads the command of a back end of ThinLTO: `clang -x ir A.o -fthinlto-index=FILE -c -o B.o`.

Such a command makes an object from bitcode. It reads the index and parts of the modules that the
index names (`hpcc.compilers.scan.bitcode`). Without an index it compiles the one module.

The flags are those that build systems give a back end; Clang 14, 17, 19 and 22 take each of them
without a message. Flags of which Clang says that they are unused are left out: a message may mean
that a module was missing, so no result with one is kept. With `-fno-integrated-as` another
assembler would read the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hpcc.compilers.spec.table import Effect, Flag, Operand

INDEX_FLAG: Final = "-fthinlto-index="
BACK_ENDS_OF_CLANG: Final = (14, 17, 19, 22)

_PLAIN: Final = frozenset(
    {
        Effect.OUTPUT,
        Effect.LANGUAGE,
        Effect.PREPROCESS,
        Effect.SEARCH,
        Effect.COLOUR,
    }
)
_LISTS: Final = frozenset({"-Wa,", "-Xclang", "-mllvm", "-mllvm="})
_CODEGEN: Final = re.compile(
    rb"-[OW].*|-w|-pipe|-Q(?:unused-arguments|n|y)|-g(?:[0-3]|dwarf(?:-[2-5])?|line-tables-only|mlt)?"
    rb"|-f(?:no-)?(?:"
    rb"PIC|pic|PIE|pie|plt|function-sections|data-sections|unique-section-names|omit-frame-pointer"
    rb"|stack-protector(?:-strong|-all)?|stack-clash-protection|exceptions"
    rb"|unwind-tables|asynchronous-unwind-tables|semantic-interposition|strict-aliasing|common"
    rb"|rtti|threadsafe-statics|delete-null-pointer-checks|wrapv|trapping-math|math-errno"
    rb"|fast-math|associative-math|reciprocal-math|signed-zeros|finite-math-only|unroll-loops"
    rb"|vectorize|slp-vectorize|tree-vectorize|inline-functions|lto|split-lto-unit"
    rb"|whole-program-vtables|virtual-function-elimination|emulated-tls|zero-initialized-in-bss"
    rb"|jump-tables|merge-all-constants|addrsig|ident|split-machine-functions"
    rb"|diagnostics-show-option|caret-diagnostics)"
    rb"|-f(?:lto=(?:thin|full)|visibility=[a-z]+|cf-protection(?:=[a-z]+)?|fp-contract=[a-z-]+"
    rb"|debug-prefix-map=.*|file-prefix-map=.*)",
    re.DOTALL,
)


def knows_back_end(parts: Sequence[Flag | Operand]) -> bool:
    """Return whether all flags of a compile of bitcode are known here."""
    flags = [part for part in parts if isinstance(part, Flag)]
    indexes = [flag for flag in flags if flag.spec.spelling == INDEX_FLAG]
    modes = {flag.spec.spelling for flag in flags if flag.spec.effect is Effect.MODE}
    return modes == {"-c"} and len(indexes) <= 1 and all(map(_is_known, flags))


def _is_known(flag: Flag) -> bool:
    spec = flag.spec
    match spec.effect:
        case Effect.MODE:
            return True
        case Effect.CODEGEN:
            return len(flag.raw) == 1 and _CODEGEN.fullmatch(flag.raw[0]) is not None
        case Effect.LIST:
            return spec.spelling in _LISTS
        case Effect.INPUT:
            return spec.spelling == INDEX_FLAG
        case effect:
            return effect in _PLAIN
