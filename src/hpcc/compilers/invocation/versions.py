"""What may be cached of a compiler, by its family and version, if they are known.

In the versions that the table describes, unknown members of the families -f, -g and -m are hashed
and passed on, because the table was compared with the full list of their flags. In another version
such a flag might read or write a file, so only flags with a stable meaning are accepted.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.table import CLANG_MAJORS, GCC_MAJORS, Bypass, Flag
from hpcc.core.reasons.bypass import BypassReason

_FAMILIES: Final = frozenset({"-f", "-g", "-m"})
# Each means the same in GCC 12 to 14 and Clang 14 to 22, and did in many versions before.
_STABLE_MEMBER: Final = re.compile(
    rb"-f(?:no-)?(?:PIC|pic|PIE|pie|plt|exceptions|rtti|common|builtin(?:-\w+)?|strict-aliasing|wrapv"
    rb"|ident|omit-frame-pointer|optimize-sibling-calls|function-sections|data-sections|lto|jump-tables"
    rb"|visibility-inlines-hidden|stack-protector(?:-strong|-all)?|stack-clash-protection|stack-check"
    rb"|signed-char|unsigned-char|short-enums|short-wchar|math-errno|fast-math|unroll-loops|inline"
    rb"|inline-functions|tree-vectorize|tree-slp-vectorize|strict-overflow|openmp|fat-lto-objects"
    rb"|delete-null-pointer-checks|threadsafe-statics|unwind-tables|asynchronous-unwind-tables"
    rb"|merge-constants|merge-all-constants|trapping-math|signed-zeros|finite-math-only"
    rb"|associative-math|reciprocal-math|rounding-math|freestanding|gnu89-inline|conserve-stack"
    rb"|zero-initialized-in-bss|semantic-interposition|ms-extensions|permissive|char8_t|cf-protection"
    rb"|sized-deallocation|coroutines|concepts|diagnostics-show-option|keep-inline-functions"
    rb"|align-(?:functions|jumps|loops|labels)|allow-store-data-races)"
    rb"|-f(?:align-(?:functions|jumps|loops|labels)|min-function-alignment|strict-flex-arrays"
    rb"|tabstop|message-length|max-errors|template-depth|constexpr-depth|template-backtrace-limit)=\d+"
    rb"|-f(?:visibility|cf-protection|lto|trivial-auto-var-init|tls-model|excess-precision|fp-contract"
    rb"|patchable-function-entry|zero-call-used-regs)=[\w,-]+"
    rb"|-f(?:debug|file|macro)-prefix-map=.*"
    rb"|-g|-g[0-3]|-ggdb[0-3]?|-gdwarf|-gdwarf-[2-5]|-gno-record-gcc-switches"
    rb"|-m(?:arch|cpu|tune|abi|fpu|float-abi|cmodel|fpmath|tls-dialect|preferred-stack-boundary"
    rb"|indirect-branch|function-return|branch-protection|stack-protector-guard)=[\w.+-]+|-m(?:32|64)"
    rb"|-m(?:no-)?(?:mmx|3dnow|80387|fp-ret-in-387|sse[1-4.a-c]*|ssse3|avx2?|avx512[a-z0-9]+|fma|bmi2?"
    rb"|popcnt|aes|red-zone|thumb|omit-leaf-frame-pointer|skip-rax-setup|shstk|fentry|record-mcount"
    rb"|nop-mcount|general-regs-only|strict-align|outline-atomics|indirect-branch-register"
    rb"|indirect-branch-cs-prefix|direct-extern-access)",
    re.DOTALL,
)


def check_versions(invocation: Invocation, *, is_clang: bool, major: int) -> Bypass | None:
    """Return a bypass for flags that this compiler lacks, or whose meaning in it is not known."""
    if major not in (CLANG_MAJORS if is_clang else GCC_MAJORS):
        is_known = all(map(_is_stable, invocation.flags))
        return None if is_known else Bypass(BypassReason.UNPROVED_COMPILER)
    for flag in invocation.flags:
        if major not in (flag.spec.clang if is_clang else flag.spec.gcc):
            return Bypass(BypassReason(flag.spec.reason or BypassReason.FLAG_OF_ANOTHER_COMPILER))
    return None


def _is_stable(flag: Flag) -> bool:
    if flag.spec.spelling in _FAMILIES:
        return _STABLE_MEMBER.fullmatch(flag.raw[0]) is not None
    return flag.spec.is_stable
