"""Reads a driver's answers: its files and directories, and whether it is a compiler itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from hpcc.compilers.spec.drivers import OTHER_CACHES, is_other_driver
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

_ELF: Final = b"\x7fELF"
_SPECS: Final = re.compile(rb"^(?:Reading specs from|Configuration file:) (/.*)$", re.MULTILINE)
_IGNORED: Final = re.compile(
    rb'^ignoring (?:nonexistent|duplicate) directory "(.*)"$', re.MULTILINE
)
# An argument that names no file by a relative path; an operand is an argument. `-specs=NAME` may.
_SAME_ANYWHERE: Final = re.compile(
    rb"(?:-B|-isysroot|-iprefix|-iwithprefix|-iwithprefixbefore|--sysroot=|--gcc-toolchain=)?/.*"
    rb"|-B|-isysroot|-iprefix|--sysroot"
    rb"|-(?:m(?!mcu=)|-?target=|stdlib=)[^/]*|-nostdinc(?:\+\+)?|-nostdlibinc|-nobuiltininc"
    rb"|-(?:no-)?canonical-prefixes",
    re.DOTALL,
)
_LIST: Final = re.compile(rb"[:;]")


def refusal_of_driver(compiler: bytes, real: bytes) -> Bypass | None:
    """Return why a program is not taken for a compiler, or None. `real` has links resolved."""
    names = {compiler.rpartition(b"/")[2], real.rpartition(b"/")[2]}
    if names & OTHER_CACHES:
        return Bypass(BypassReason.WRAPPER)
    try:
        with open(real, "rb") as file:
            if file.read(len(_ELF)) != _ELF:
                return Bypass(BypassReason.WRAPPER_SCRIPT)
    except OSError:
        return Bypass(BypassReason.COMPILER_UNREADABLE)
    # Bypass a name that means C with a driver for C++, and names like `cc-wrapper-1`.
    return Bypass(BypassReason.UNKNOWN_COMPILER) if is_other_driver(compiler, real) else None


def may_name_relative(arguments: Iterable[bytes], lists: Iterable[bytes | None]) -> bool:
    """Tell whether the search path of a driver may depend on its working directory.

    `arguments` choose the search path, and `lists` are variables with lists of directories. In
    doubt the answer is yes: it costs a start of the compiler for each working directory.
    """
    return not (
        all(map(_SAME_ANYWHERE.fullmatch, arguments))
        and all(
            part[:1] == b"/" for text in lists if text is not None for part in _LIST.split(text)
        )
    )


def specs_files(text: bytes) -> list[bytes]:
    """Return the specs and configuration files that the output of `-v` names."""
    return _SPECS.findall(text)


def search_lines(text: bytes) -> tuple[bytes, ...]:
    """Return the directories in the output of `-v`, in order; those it ignores come first."""
    found = [m[1] for m in _IGNORED.finditer(text)]
    is_inside = False
    for line in text.splitlines():
        if line.startswith(b"#include ") and line.endswith(b"search starts here:"):
            is_inside = True
        elif line.startswith(b"End of search list"):
            break
        elif is_inside and line.startswith(b" "):
            found.append(line[1:].removesuffix(b" (framework directory)"))
    return tuple(dict.fromkeys(d for d in found if d))
