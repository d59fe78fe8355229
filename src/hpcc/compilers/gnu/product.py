"""Reads what a gcc or clang command makes, and refuses the forms that were not asked.

`-fsyntax-only` writes no output, with or without `-c` and `-o`; the compiler stops before it makes
code. So GCC runs no assembler, and what directives in `asm` name is not read.

`-E -o FILE` writes preprocessed text. It is the same with the flags that hpcc adds to learn what
was read. Without `-o` the text goes to standard output, where the launcher puts it: it fails as a
compiler does if not all of it could be written.

Tested with GCC 14 and Clang 19 (`tests/integration/cache/test_syntax_only.py`,
`test_preprocessed_text.py` and `test_printed_text.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hpcc.compilers.invocation.invocation import Language, Product
from hpcc.compilers.invocation.modules import MODULE_FLAGS
from hpcc.compilers.spec.table import Bypass, Effect, Flag, Operand
from hpcc.core.reasons.bypass import BypassReason

_CHECK: Final = "-fsyntax-only"
_CHECKED: Final = frozenset({Language.C, Language.CXX, Language.OBJC, Language.OBJCXX})
_EXPANDED: Final = _CHECKED | {Language.ASSEMBLER}
# Which of these files such a command reads or writes differs between compilers.
_FILES: Final = frozenset({Effect.SIDE_OUTPUT, Effect.INPUT})
_NO_CHECK: Final = re.compile(rb"-fno-syntax-only")
# With these the text is more than the source with its macros expanded, or less.
_OTHER_TEXT: Final = re.compile(
    rb"-f(?:no-)?(?:pch|rewrite|debug-cpp|preprocessed|directives-only|keep-system|search-include"
    rb"|syntax-only).*",
    re.DOTALL,
)


def read_product(parts: Sequence[Flag | Operand]) -> Product | BypassReason:
    """Return what the flags ask for, or why it is not for the cache. Pure."""
    modes = {p.spec.spelling for p in parts if isinstance(p, Flag) and p.spec.effect is Effect.MODE}
    shown = (p for p in parts if isinstance(p, Flag) and p.spec.effect is Effect.SHOWN)
    if "-E" in modes:
        return Product.TEXT if modes == {"-E"} else BypassReason.PREPROCESS_ONLY
    for flag in shown:
        return BypassReason(flag.spec.reason)
    if _CHECK in modes:
        return Product.MESSAGES if modes <= {_CHECK, "-c"} else BypassReason.SYNTAX_ONLY
    if len(modes) == 1:
        return Product.OBJECT
    return BypassReason.SEVERAL_MODES if modes else BypassReason.LINK


def why_not_asked(
    parts: Sequence[Flag | Operand], product: Product, language: Language | Bypass
) -> BypassReason | None:
    """Return why a command that makes no object is not for the cache; None if it may be."""
    if product is Product.OBJECT:
        return None
    flags = [part for part in parts if isinstance(part, Flag)]
    spellings = {flag.spec.spelling for flag in flags}
    is_check = product is Product.MESSAGES
    other = _NO_CHECK if is_check else _OTHER_TEXT
    is_asked = (
        language in (_CHECKED if is_check else _EXPANDED)
        and _FILES.isdisjoint(flag.spec.effect for flag in flags)
        and spellings.isdisjoint(MODULE_FLAGS)
        and not any(other.fullmatch(flag.raw[0]) for flag in flags)
        # The depfile gets its name in another way than that of a compile.
        and ("-MF" in spellings or "-c" in spellings or spellings.isdisjoint({"-MD", "-MMD"}))
    )
    return None if is_asked else _REASONS[product]


_REASONS: Final = {
    Product.MESSAGES: BypassReason.SYNTAX_ONLY,
    Product.TEXT: BypassReason.PREPROCESS_ONLY,
}
