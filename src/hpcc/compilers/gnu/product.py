"""Reads what a gcc or clang command makes, and refuses the forms that were not asked.

`-fsyntax-only` writes no output, with or without `-c` and `-o`; the compiler stops before it makes
code. So GCC runs no assembler, and what directives in `asm` name is not read. Tested with GCC 14
and Clang 19 (`tests/integration/cache/test_syntax_only.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpcc.compilers.invocation.invocation import Language, Product
from hpcc.compilers.invocation.modules import MODULE_FLAGS
from hpcc.compilers.spec.table import Effect, Flag, Operand
from hpcc.core.reasons.bypass import BypassReason

_CHECK: Final = "-fsyntax-only"
_NO_CHECK: Final = b"-fno-syntax-only"
_SOURCES: Final = frozenset({Language.C, Language.CXX, Language.OBJC, Language.OBJCXX})
# Which of these files a check reads or writes differs between compilers.
_FILES: Final = frozenset({Effect.SIDE_OUTPUT, Effect.INPUT})


def read_product(parts: Sequence[Flag | Operand]) -> Product | BypassReason:
    """Return what the flags ask for, or why it is not for the cache. Pure."""
    modes = {p.spec.spelling for p in parts if isinstance(p, Flag) and p.spec.effect is Effect.MODE}
    if _CHECK in modes:
        return Product.MESSAGES if modes <= {_CHECK, "-c"} else BypassReason.SYNTAX_ONLY
    if len(modes) == 1:
        return Product.OBJECT
    return BypassReason.SEVERAL_MODES if modes else BypassReason.LINK


def why_not_checked(parts: Sequence[Flag | Operand], language: Language) -> BypassReason | None:
    """Return why a check of one source in this language is not for the cache; None if it is."""
    flags = [part for part in parts if isinstance(part, Flag)]
    spellings = {flag.spec.spelling for flag in flags}
    is_plain = (
        language in _SOURCES
        and _FILES.isdisjoint(flag.spec.effect for flag in flags)
        and spellings.isdisjoint(MODULE_FLAGS)
        and not any(flag.raw[0] == _NO_CHECK for flag in flags)
        # GCC makes the depfile's name in another way where it would link.
        and ("-c" in spellings or "-MF" in spellings or spellings.isdisjoint({"-MD", "-MMD"}))
    )
    return None if is_plain else BypassReason.SYNTAX_ONLY
