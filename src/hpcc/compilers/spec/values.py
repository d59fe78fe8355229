"""Flags whose value decides caching: those passed on to other tools, and those that name files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hpcc.compilers.spec.table import Effect, Flag, Operand
from hpcc.core.reasons.bypass import BypassReason

# Options of the assembler that read and write no files. All others may name a file (as(1), -a=file,
# -I).
_HARMLESS_ASSEMBLER: Final = re.compile(
    rb"--(?:no)?execstack|--fatal-warnings|--no-warn|--warn|-W|--compress-debug-sections(?:=\w+)?"
    rb"|--?gdwarf-[2-5]|--gdwarf|--g(?:en-)?debug|-g|-mrelax-relocations=\w+|--generate-missing-build-notes=\w+"
    rb"|-m(?:arch|cpu|tune|fpu)=[\w+.-]+|--(?:32|64|x32)|--no(?:warn|pad-sections)"
    rb"|--elf-stt-common=\w+|-mbranches-within-32B-boundaries|--divide"
)
_MACRO_PIECE: Final = re.compile(rb"-[DU][A-Za-z_].*", re.DOTALL)
# Flags of Clang's -cc1 without a separate argument. -fno-pch-timestamp only matters to .pch.
_HARMLESS_CC1: Final = re.compile(
    rb"-disable-(?:O0-optnone|llvm-passes|llvm-verifier|lifetime-markers)|-fno-pch-timestamp|-emit-pch"
    rb"|-fopenmp|-W[a-z][\w=+-]*|-fdebug-compilation-dir=.*|-f(?:no-)?experimental-new-constant-interpreter",
    re.DOTALL,
)
# Flags that take the next -Xclang as their argument.
_HARMLESS_CC1_PAIRS: Final = frozenset(
    {
        *(b"-target-feature", b"-target-cpu", b"-target-abi", b"-fdebug-compilation-dir"),
        *(b"-include", b"-include-pch"),  # see `hpcc.compilers.invocation.precompiled`
    }
)
# LLVM's own switches. A number or a truth value cannot name a file. Switches that print statistics,
# draw graphs or read clocks have other prefixes.
_HARMLESS_LLVM: Final = re.compile(
    rb"-(?:enable|disable|inline|unroll|vectorize|slp|x86|arm|aarch64|instcombine|align|force-vector"
    rb"|prefer|allow|max|polly-vectorizer)-?[a-z0-9-]*(?:=(?:true|false|\d{1,9}))?|-polly"
)
_NOT_LLVM: Final = re.compile(
    rb"-(?:print|dump|times?|stats?|debug|file|filename|view|dot|trace|path|dir|record)(?![a-z])"
)


def bad_value(flag: Flag) -> str:
    """Return why a flag with this value is not for the cache; "" when it is."""
    match flag.spec.effect:
        case Effect.INCLUDE_DIR if flag.value.startswith((b"=", b"$SYSROOT")) or not flag.value:
            # GCC manual, Directory Options: "=" and "$SYSROOT" stand for the sysroot prefix.
            return BypassReason.SYSROOT_INCLUDE
        case Effect.LIST if flag.spec.spelling in _LISTS:
            return _LISTS[flag.spec.spelling](flag.value)
        case _:
            return ""


def bad_sequence(parts: Sequence[Flag | Operand]) -> str:
    """Return why the sequence that `-Xclang` passes on is not for the cache; "" when it is."""
    flags = (p for p in parts if isinstance(p, Flag))
    values = iter([f.value for f in flags if f.spec.spelling == "-Xclang"])
    for value in values:
        if value in _HARMLESS_CC1_PAIRS:
            if next(values, None) is None:
                return BypassReason.PASS_THROUGH
        elif value == b"-mllvm":
            if _llvm(next(values, b"")):
                return BypassReason.PASS_THROUGH
        elif not _HARMLESS_CC1.fullmatch(value):
            return BypassReason.PASS_THROUGH
    return ""


def wp_depfile(value: bytes) -> tuple[bytes, bytes] | None:
    """Return the flag and the file of `-Wp,-MD,file` and `-Wp,-MMD,file`."""
    pieces = value.split(b",")
    if len(pieces) == 2 and pieces[0] in {b"-MD", b"-MMD"} and pieces[1]:  # noqa: PLR2004 - flag and file
        return pieces[0], pieces[1]
    return None


def _all_match(pattern: re.Pattern[bytes], pieces: Iterable[bytes]) -> bool:
    return all(map(pattern.fullmatch, pieces))


def _wp(value: bytes) -> str:
    is_known = wp_depfile(value) is not None or _all_match(_MACRO_PIECE, value.split(b","))
    return "" if is_known else BypassReason.PREPROCESSOR_FLAG


def _xpreprocessor(value: bytes) -> str:
    is_known = value == b"-fopenmp" or _MACRO_PIECE.fullmatch(value)
    return "" if is_known else BypassReason.PREPROCESSOR_FLAG


def _wa(value: bytes) -> str:
    return "" if _all_match(_HARMLESS_ASSEMBLER, value.split(b",")) else BypassReason.ASSEMBLER_FLAG


def _xassembler(value: bytes) -> str:
    return "" if _HARMLESS_ASSEMBLER.fullmatch(value) else BypassReason.ASSEMBLER_FLAG


def _llvm(value: bytes) -> str:
    is_harmless = _HARMLESS_LLVM.fullmatch(value) and not _NOT_LLVM.search(value)
    return "" if is_harmless else BypassReason.PASS_THROUGH


def _opt_info(value: bytes) -> str:
    return BypassReason.SIDE_OUTPUT if b"=" in value else ""


_LISTS: Final[dict[str, Callable[[bytes], str]]] = {
    "-Wp,": _wp,
    "-Xpreprocessor": _xpreprocessor,
    "-Wa,": _wa,
    "-Xassembler": _xassembler,
    "-mllvm": _llvm,
    "-mllvm=": _llvm,
    "-fopt-info": _opt_info,
}
