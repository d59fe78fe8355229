"""The flags of clang-cl and cl about precompiled headers: `/Yc`, `/Yu` and `/Fp`.

Sources: cpp-docs, "/Yc", "/Yu" and "/Fp"; LLVM's Driver.cpp (`GetClPchPath`) and Clang.cpp. `/YcH`
writes the file that `/Fp` names, of all text of the source through its `#include "H"`, and then the
object. `/YuH` skips the source's text through that line and loads the file in its place. The
preprocessor (`/E`) ignores all three flags and reads the headers.

So these flags are taken out of a command, and what is left is read as any other. `/Fp` without the
other two does nothing; MSBuild always passes it.

What is known of cl is from the documents only: whether its file may be put back is not. So cl makes
each one itself. Not yet run with a real cl.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.msvc.invocation import invocation_of, parse_arguments
from hpcc.compilers.spec.table import Bypass, Flag, Operand
from hpcc.core.reasons.bypass import BypassReason

_MADE, _USED, _FILE = "Yc", "Yu", "Fp"
_TO_FRONT_END: Final = "Xclang"
# Without it a precompiled header holds the times of its headers, and is an error beside others.
_NO_TIMES: Final = b"-fno-pch-timestamp"
# A whole name with a suffix: clang-cl adds `.pch` to others, and cl looks into a directory.
_NAME: Final = re.compile(rb"(?!:)(?:.*[\\/])?[^\\/]+\.[^\\/.]+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PrecompiledFlags:
    """What a command tells of a precompiled header. `words` are all its flags about them.

    `header` is the name behind `/Yc` (`is_made`) or `/Yu`, and `path` the one behind `/Fp`; both
    are "" if neither flag is there. `has_times`: it gets the times of its headers, or may.
    """

    words: tuple[bytes, ...] = ()
    header: bytes = b""
    path: bytes = b""
    is_made: bool = False
    has_times: bool = True


def read_with_precompiled(
    arguments: Sequence[bytes], *, is_clang: bool
) -> tuple[Invocation, PrecompiledFlags] | Bypass:
    """Return what expanded arguments mean without flags about precompiled headers, and these."""
    parts = parse_arguments(arguments, is_clang=is_clang)
    if isinstance(parts, Bypass):
        return parts
    about = [p for p in parts if isinstance(p, Flag) and _is_about(p, is_clang=is_clang)]
    flags = _read(about)
    if isinstance(flags, Bypass):
        return flags
    rest = tuple(p for p in parts if isinstance(p, Operand) or p not in about)
    invocation = invocation_of(rest, is_clang=is_clang)
    return invocation if isinstance(invocation, Bypass) else (invocation, flags)


def _is_about(flag: Flag, *, is_clang: bool) -> bool:
    if flag.spec.spelling == _TO_FRONT_END:
        return is_clang and flag.value == _NO_TIMES
    return flag.spec.spelling in {_MADE, _USED, _FILE}


def _read(about: Sequence[Flag]) -> PrecompiledFlags | Bypass:
    words = tuple(word for flag in about for word in flag.raw)
    kinds = [flag for flag in about if flag.spec.spelling in {_MADE, _USED}]
    if not kinds:
        return PrecompiledFlags(words)
    paths = [flag.value for flag in about if flag.spec.spelling == _FILE]
    header, path = kinds[0].value, paths[-1] if paths else b""
    if len(kinds) > 1 or not header or not _NAME.fullmatch(path):
        return Bypass(BypassReason.PCH)
    has_times = all(flag.spec.spelling != _TO_FRONT_END for flag in about)
    return PrecompiledFlags(words, header, path, kinds[0].spec.spelling == _MADE, has_times)
