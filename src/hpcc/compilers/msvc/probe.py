"""Identifies a cl or clang-cl by its preprocessor: banners are translated, macros are not.

Headers are not read for it. Microsoft's are in directories that are named after their version, and
which of them a compile reads depends on the user's INCLUDE.

Sources: cpp-docs, "Predefined macros" (`_MSC_FULL_VER`: four digits, then the build; `_MSC_BUILD`;
`_M_X64` and the like: `_M_ARM64EC` comes with `_M_X64`) and "/sourceDependencies" (since Visual
Studio 2019 16.7, which is 19.27). Clang's manual, "Builtin Macros" (`__clang_version__`).
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.core import CallerError, Toolchain

VERSION_SOURCE: Final = b"""#ifdef __clang__
HPCC_PROBE clang __clang_major__ __clang_minor__ __clang_patchlevel__
HPCC_BUILD __clang_version__
#else
HPCC_PROBE cl _MSC_FULL_VER
HPCC_BUILD _MSC_BUILD
#endif
#if defined(_M_ARM64EC)
HPCC_TARGET arm64ec
#elif defined(_M_ARM64)
HPCC_TARGET arm64
#elif defined(_M_X64)
HPCC_TARGET x64
#elif defined(_M_IX86)
HPCC_TARGET x86
#elif defined(_M_ARM)
HPCC_TARGET arm
#endif
"""
"""Preprocessed with `-EP`, it answers in lines for `read_cl_version` and `read_cl`."""

SOURCE_DEPENDENCIES_SINCE: Final = (19, 27)
_ANSWER: Final = re.compile(
    rb"^HPCC_PROBE (?:clang ([0-9]{1,4}) ([0-9]{1,4}) ([0-9]{1,6})"
    rb"|cl ([0-9]{2})([0-9]{2})([0-9]{1,6}))\s*$",
    re.MULTILINE,
)
_BUILD: Final = re.compile(rb'^HPCC_BUILD "?([^"\r\n]{0,256})"?\s*$', re.MULTILINE)
_TARGET: Final = re.compile(rb"^HPCC_TARGET ([a-z0-9]{3,8})\s*$", re.MULTILINE)
_CROSS: Final = re.compile(r"(.*\\bin\\Host(x64|x86|arm64)\\)(x64|x86|arm64|arm)", re.IGNORECASE)
_EXE: Final = re.compile(rb"\.exe\Z", re.IGNORECASE)
_MAX_BUILD_CHARS: Final = 128


def program_name(program: bytes) -> str:
    """Return the name of a program of Windows: without directory and `.exe`, in lower case."""
    base = re.split(rb"[\\/]", program)[-1]
    return _EXE.sub(b"", base).decode("utf-8", "replace").lower()


def program_directories(home: str) -> tuple[str, ...]:
    r"""Return the directories that a compiler in `home` needs on PATH.

    A cross compiler of Microsoft's, as in `bin\Hostx64\x86`, has some of its libraries in the
    directory of its host's own compiler, and vcvars names both.
    """
    cross = _CROSS.fullmatch(home)
    if cross is None or cross[2].lower() == cross[3].lower():
        return (home,)
    return home, cross[1] + cross[2]


def read_cl(names: tuple[str, ...], output: bytes) -> Toolchain:
    """Return the compiler that the output describes, without headers.

    Raises:
        CallerError: no such answer is in the output, or it is not complete.
    """
    is_clang, version = read_cl_version(output)
    target, build = _TARGET.search(output), _BUILD.search(output)
    if target is None or build is None:
        raise CallerError("the compiler does not say for what it compiles", reason="toolchain")
    dotted = ".".join(map(str, version))
    text = build[1].decode("latin-1").strip().removeprefix(dotted).strip()
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return Toolchain(
        names=names,
        family="clang-cl" if is_clang else "msvc",
        version=dotted,
        build=plain[:_MAX_BUILD_CHARS],
        target=target[1].decode(),
    )


def read_cl_version(output: bytes) -> tuple[bool, tuple[int, ...]]:
    """Return whether it is clang, and its version: 19.38.33130 for cl, 19.1.7 for clang-cl.

    Raises:
        CallerError: no such answer is in the output.
    """
    match = _ANSWER.search(output)
    if match is None:
        raise CallerError("the compiler does not say what it is", reason="unknown-compiler")
    numbers = tuple(int(part) for part in match.groups() if part is not None)
    return match[1] is not None, numbers
