"""The only place that chooses a compile's family.

The command line selects the grammar: cl's, or the one that gcc and clang share. The driver's answer
to `-v` then selects gcc or clang. clang-tidy, cppcheck and nvcc are known by their names. A hit of
gcc or clang loads no module of their packages, nor of `hpcc.compilers.msvc`.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.clang.family import CLANG
from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.spec.drivers import follows_cl

_CLANG: Final = re.compile(rb"^(?:.* )?clang version (\d{1,4})", re.MULTILINE)
_TIDY: Final = re.compile(rb"clang-tidy(?:-[0-9][0-9.]*)?")
_CPPCHECK: Final = re.compile(rb"cppcheck(?:-[0-9][0-9.]*)?")
_GCC: Final = re.compile(rb"^gcc version (\d{1,4})", re.MULTILINE)


def family_of(compiler: bytes, arguments: tuple[bytes, ...]) -> CompilerFamily:
    """Return the family that reads this command line; see `CompilerFamily.settled`."""
    if follows_cl(compiler, arguments):
        # Imported here so that a gcc or clang hit does not load it; see the module docstring.
        from hpcc.compilers.msvc.family import msvc_family

        return msvc_family(compiler)
    if _TIDY.fullmatch(compiler.rpartition(b"/")[2]):
        from hpcc.compilers.tidy.family import TIDY  # likewise

        return TIDY
    if _CPPCHECK.fullmatch(compiler.rpartition(b"/")[2]):
        from hpcc.compilers.cppcheck.family import CPPCHECK  # likewise

        return CPPCHECK
    if compiler.rpartition(b"/")[2] == b"nvcc":
        from hpcc.compilers.nvcc.family import NVCC  # likewise

        return NVCC
    return GNU


def family_that_answers(about: bytes) -> tuple[CompilerFamily, int] | None:
    """Return family and major version from a driver's `-v`; None for any other program."""
    clang = _CLANG.search(about)
    if clang is not None:
        return CLANG, int(clang[1])
    gcc = _GCC.search(about)
    return None if gcc is None else (GNU, int(gcc[1]))


def tool_that_answers(about: bytes) -> tuple[CompilerFamily, int] | None:
    """Return what a tool's answer to `probe_question` shows: cppcheck, or the compiler in it."""
    if b"<cppcheck version=" not in about:
        return family_that_answers(about)
    from hpcc.compilers.cppcheck.family import CPPCHECK  # likewise

    version = CPPCHECK.tool_version(about)
    return None if version is None else (CPPCHECK, version)
