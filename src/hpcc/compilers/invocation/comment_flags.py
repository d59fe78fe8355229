"""Which command lines give the same object whatever the comments say.

This is an allow-list. tests/integration/grammar/test_comment_objects.py asks the compilers below
with pairs of files. A command line that is not on it uses the bytes of each file.

The caller must ensure: only results with exit status 0, whose messages quote the lines as they are;
no pragma that makes a compiler warn of comments, such as Clang's of documentation; the bytes of
data files (`#embed`, `.incbin`, profiles), of files that GCC may take for twins (`#pragma once`,
`#import`) and of `#pragma GCC dependency`; and `MAX_GCC_LOCATIONS` in the sum of a compile.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from hpcc.compilers.invocation.content import SWITCHES
from hpcc.compilers.invocation.invocation import Dialect, Invocation, Language
from hpcc.compilers.scan.comments import LexMode
from hpcc.compilers.spec.table import Effect, Flag

PROVED_GCC: Final = frozenset({12, 13, 14})
PROVED_CLANG: Final = frozenset({14, 17, 19, 22})

_C: Final = re.compile(
    rb"(?P<c90>c89|c90|iso9899:(?:1990|199409))"
    rb"|(?P<c23>(?:c|gnu)(?:2x|23))"
    rb"|(?:c|gnu)(?:9x|99|1x|11|17|18)|iso9899:(?:1999|199x|2011|2017|2018)"
    rb"|(?P<gnu90>gnu(?:89|90))"
)
_CXX: Final = re.compile(
    rb"(?:c|gnu)\+\+(?:(?P<before_11>98|03)|0x|11|(?P<separators>1y|14|1z|17|2a|20|2b|23|2c|26))"
)
_HARMLESS: Final = frozenset(
    {
        Effect.OUTPUT,
        Effect.LANGUAGE,
        Effect.INCLUDE_DIR,
        Effect.FORCED_INCLUDE,
        Effect.DEPENDENCY,
        Effect.COLOUR,
        Effect.LINK,
    }
)
_HARMLESS_FLAGS: Final = frozenset({"-c", "-D", "-U", "-std=", "--sysroot", "-isysroot"})
_CHECKS: Final = (
    rb"(?:address|undefined|leak|thread|alignment|bool|bounds|enum|float-cast-overflow"
    rb"|float-divide-by-zero|integer-divide-by-zero|nonnull-attribute|null|object-size"
    rb"|pointer-overflow|return|returns-nonnull-attribute|shift|signed-integer-overflow"
    rb"|unreachable|vla-bound|vptr|all)"
)
# A warning that reads comments or blanks is not on the list, nor is a group that contains one.
_COMMENT_WARNING: Final = (
    rb"(?:no-)?(?:error=)?(?:documentation|everything|trailing-whitespace|leading-whitespace"
    rb"|implicit-fallthrough=[01])"
)
_INVISIBLE: Final = re.compile(
    rb"-O[0123sgz]?|-Ofast|-g0"
    rb"|-W(?![alp],|" + _COMMENT_WARNING + rb")[A-Za-z0-9+=-]*|-w|-pedantic|-pedantic-errors"
    rb"|-Wp,-MM?D,[^,]+|-Wp,-[DU][A-Za-z_]\w*(?:=\w*)?|-Wa,--noexecstack"
    rb"|--std=[a-z0-9+:]+|--sysroot=.*|-ansi|-undef|-pipe|-pg|-pthread|-Qunused-arguments"
    rb"|-nostdinc|-nostdinc\+\+"
    rb"|-m(?:32|64|x32|arch=native)|-m(?:arch|cpu|tune|abi|fpu|float-abi|cmodel|fpmath)=[\w.+-]+"
    rb"|-m(?:no-)?(?:mmx|sse[1-4.a-c]*|ssse3|avx2?|avx512[a-z0-9]+|fma|f16c|bmi2?|popcnt|aes|pclmul"
    rb"|red-zone|80387|omit-leaf-frame-pointer|general-regs-only|shstk|fentry|record-mcount)"
    rb"|-malign-data=[a-z]+"
    rb"|-f(?:align-(?:functions|jumps|loops|labels)|strict-flex-arrays|message-length|max-errors"
    rb"|inline-limit|template-depth|constexpr-depth|template-backtrace-limit)=\d+"
    rb"|-f(?:visibility|cf-protection|trivial-auto-var-init|tls-model|excess-precision|fp-contract"
    rb"|patchable-function-entry|zero-call-used-regs|ira-region|ira-algorithm"
    rb"|reorder-blocks-algorithm|vect-cost-model|simd-cost-model)=[\w,-]+"
    rb"|-fcf-protection|-f(?:debug|file|macro)-prefix-map=.*"
    rb"|-f(?:no-)?sanitize(?:-recover|-trap)?=" + _CHECKS + rb"(?:," + _CHECKS + rb")*",
    re.DOTALL,
)
# Of the switches that a content key may hold these change how a text is read, or by what.
_READS: Final = re.compile(
    rb"-f(?:no-)?(?:dollars-in-identifiers|extended-identifiers|ms-extensions|operator-names"
    rb"|integrated-as)"
)
_SWITCH: Final = re.compile(rb"-f(?:no-)?(?:" + SWITCHES.encode() + rb")")
_GCC_DEBUG: Final = re.compile(
    rb"-g|-g(?:gdb)?[0-3]?|-gdwarf|-gdwarf-[2-5]|-gno-record-gcc-switches"
)
_MACRO_DEBUG: Final = frozenset({b"-g3", b"-ggdb3"})
# With DWARF 5 Clang writes an MD5 of each file's bytes into its line tables.
_CLANG_DEBUG: Final = re.compile(rb"-g[123]?|-gdwarf-4")


def comments_are_invisible(
    invocation: Invocation, *, is_clang: bool, major: int, has_hidden_flags: bool
) -> bool:
    """Return whether the object cannot depend on the text of comments.

    `has_hidden_flags`: the driver reads flags from a configuration file or a specs file.
    """
    mode = lex_mode(invocation, is_clang=is_clang, major=major, has_hidden_flags=has_hidden_flags)
    return mode is not None


def lex_mode(
    invocation: Invocation, *, is_clang: bool, major: int, has_hidden_flags: bool
) -> LexMode | None:
    """Return how `comment_free` must read the files of a compile; None if it may not be used."""
    if has_hidden_flags or invocation.dialect is not Dialect.GNU:
        return None
    if major not in (PROVED_CLANG if is_clang else PROVED_GCC):
        return None
    flags = invocation.flags
    if not all(_is_invisible(flag, is_clang=is_clang) for flag in flags):
        return None
    if is_clang and _has_hash(flags):
        return None
    mode = _mode(invocation)
    if mode is None:
        return None
    has_places = _has_places(flags)
    # Of the end of a file no object of C holds the place.
    keeps_end = has_places and invocation.language is not Language.C
    reads_fall_through = not is_clang and any(_reads_fall_through(flag) for flag in flags)
    return replace(
        mode,
        reads_fall_through=reads_fall_through,
        is_clang=is_clang,
        keeps_end=keeps_end,
        keeps_lines=has_places,
    )


def reading_mode(invocation: Invocation) -> LexMode | None:
    """Return where `comment_free` finds comments in the files of any compile; None if unknown."""
    mode = _mode(invocation) if invocation.dialect is Dialect.GNU else None
    return mode and replace(mode, keeps_end=False, reads_fall_through=False)


def shows_macros(invocation: Invocation) -> bool:
    """Return whether the debug information may hold macros and their values."""
    return any(flag.raw[0] in _MACRO_DEBUG for flag in invocation.flags)


def _is_invisible(flag: Flag, *, is_clang: bool) -> bool:
    if flag.spec.effect in _HARMLESS or flag.spec.spelling in _HARMLESS_FLAGS:
        return True
    if len(flag.raw) != 1:
        return False
    debug = _CLANG_DEBUG if is_clang else _GCC_DEBUG
    argument = flag.raw[0]
    if _SWITCH.fullmatch(argument):
        return _READS.fullmatch(argument) is None
    return _INVISIBLE.fullmatch(argument) is not None or debug.fullmatch(argument) is not None


def _reads_fall_through(flag: Flag) -> bool:
    """Return whether GCC may read comments for -Wimplicit-fallthrough because of a flag."""
    return any(b"extra" in a or b"fallthrough" in a or a == b"-W" for a in flag.raw)


def _has_hash(flags: tuple[Flag, ...]) -> bool:
    """Return whether Clang may write a hash of each file into its debug information."""
    debug = {f.raw[0] for f in flags if f.spec.spelling == "-g" and f.raw[0] != b"-g0"}
    return bool(debug) and b"-gdwarf-4" not in debug


def _has_places(flags: tuple[Flag, ...]) -> bool:
    """Return whether the object holds lines: debug information, or checks that name them."""
    debug = (f.raw[0] for f in flags if f.spec.spelling == "-g")
    return any(d != b"-g0" for d in debug) or any(b"sanitize" in f.raw[0] for f in flags)


def _mode(invocation: Invocation) -> LexMode | None:
    standards = [s for f in invocation.flags if (s := _standard(f)) is not None]
    standard = standards[-1] if standards else None
    is_c = invocation.language is Language.C
    if not is_c and invocation.language is not Language.CXX:
        return None
    is_compared = any(b"c90-c99-compat" in f.raw[0] for f in invocation.flags)
    if standard is None:  # since GCC 5 and Clang 14: C17 and at least C++14
        return LexMode(
            has_line_comments=True,
            has_digit_separators=not is_c,
            has_raw_strings=not is_c,
            shows_line_comments=is_compared,
        )
    if standard == b"ansi":
        standard = b"c90" if is_c else b"c++98"
    match = (_C if is_c else _CXX).fullmatch(standard)
    if match is None:
        return None
    found = match.groupdict()
    return LexMode(
        has_line_comments=not found.get("c90"),
        has_digit_separators=bool(found.get("c23") or found.get("separators")),
        has_raw_strings=not is_c and not found.get("before_11"),
        shows_line_comments=is_compared or bool(found.get("gnu90")),
    )


def _standard(flag: Flag) -> bytes | None:
    if flag.spec.spelling in {"-std=", "--std="}:
        return flag.value
    return b"ansi" if flag.spec.spelling == "-ansi" else None
