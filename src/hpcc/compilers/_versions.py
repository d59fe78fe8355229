"""What may be cached of a compiler whose family and version are known, or not known.

In the versions that the table describes, unknown members of the families -f, -g and -m are hashed
and passed on: the table was read against the whole list of their flags. In another version such a
flag might read or write a file, so only what never changed is taken.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers._invocation import Invocation
from hpcc.compilers._spec import CLANG_MAJORS, GCC_MAJORS, Bypass, Flag

_FAMILIES: Final = frozenset({"-f", "-g", "-m"})
# Each means the same in GCC 12 to 14 and Clang 14 to 22, and has for many versions before.
_STABLE_MEMBER: Final = re.compile(
    rb"-f(?:no-)?(?:PIC|pic|PIE|pie|plt|exceptions|rtti|common|builtin|strict-aliasing|wrapv|ident"
    rb"|omit-frame-pointer|function-sections|data-sections|visibility-inlines-hidden|fast-math"
    rb"|stack-protector(?:-strong|-all)?|stack-clash-protection|signed-char|unsigned-char"
    rb"|short-enums|math-errno|unroll-loops|inline|inline-functions|tree-vectorize|openmp"
    rb"|delete-null-pointer-checks|threadsafe-statics|unwind-tables|asynchronous-unwind-tables"
    rb"|merge-all-constants|trapping-math|signed-zeros|finite-math-only|associative-math"
    rb"|reciprocal-math|rounding-math|freestanding|gnu89-inline|zero-initialized-in-bss"
    rb"|semantic-interposition|ms-extensions|permissive|char8_t|cf-protection)"
    rb"|-fvisibility=(?:default|hidden|internal|protected)|-fcf-protection=[a-z]+"
    rb"|-f(?:debug|file|macro)-prefix-map=.*|-ftemplate-depth=\d+|-fconstexpr-depth=\d+"
    rb"|-ftabstop=\d+|-fmessage-length=\d+"
    rb"|-g|-g[0-3]|-ggdb[0-3]?|-gdwarf|-gdwarf-[2-5]"
    rb"|-m(?:arch|cpu|tune|abi|fpu|float-abi|cmodel|fpmath)=[\w.+-]+|-m(?:32|64)"
    rb"|-m(?:no-)?(?:sse[1-4.a-c]*|ssse3|avx2?|fma|bmi2?|popcnt|aes|red-zone|thumb)",
    re.DOTALL,
)


def check_versions(invocation: Invocation, *, is_clang: bool, major: int) -> Bypass | None:
    """Refuse flags that this compiler lacks, or that nobody knows the meaning of in it."""
    if major not in (CLANG_MAJORS if is_clang else GCC_MAJORS):
        is_known = all(map(_is_stable, invocation.flags))
        return None if is_known else Bypass("unproved-compiler")
    for flag in invocation.flags:
        if major not in (flag.spec.clang if is_clang else flag.spec.gcc):
            return Bypass(flag.spec.reason or "flag-of-another-compiler")
    return None


def _is_stable(flag: Flag) -> bool:
    if flag.spec.spelling in _FAMILIES:
        return _STABLE_MEMBER.fullmatch(flag.raw[0]) is not None
    return flag.spec.is_stable
