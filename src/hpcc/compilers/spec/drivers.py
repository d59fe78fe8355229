"""Compiler drivers by their names, and the environment that belongs to cl.

Reading a name loads no family: a program called gcc must not load the tables of cl.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_COMPILER_NAME: Final = re.compile(
    rb"(?:[A-Za-z0-9_.]+-)*(gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(?:-[0-9][0-9.]*)?"
)
_CL_NAME: Final = re.compile(
    rb"(?:.*[\\/])?(?:(clang-cl|icx-cl)(?:-[0-9][0-9.]*)?|(cl))(?:\.exe)?", re.IGNORECASE
)
TARGET: Final = re.compile(rb"^Target: (\S+)$", re.MULTILINE)
"""In what a driver answers to `-v`."""

CL_DRIVER_MODE: Final = b"--driver-mode=cl"
# cl and clang-cl add these to every command line, before and behind (cpp-docs, "CL environment
# variables").
CL_BEFORE: Final = b"CL"
CL_BEHIND: Final = b"_CL_"
# Search paths, and what Visual Studio's prompts say of the installation; they mean nothing to
# gcc and clang. Sources: cpp-docs; LLVM's MSVCPaths.cpp.
MSVC_ENV: Final = frozenset(
    {
        CL_BEFORE, CL_BEHIND, b"INCLUDE", b"EXTERNAL_INCLUDE", b"LIB", b"LIBPATH", b"VSLANG",
        b"VCToolsInstallDir", b"VCToolsVersion", b"VCINSTALLDIR", b"WindowsSdkDir",
        b"WindowsSDKVersion", b"UniversalCRTSdkDir", b"UCRTVersion",
    }
)  # fmt: skip
# Headers that gcc and clang search for in directories of the environment.
INCLUDE_ENV: Final = (
    b"CPATH",
    b"C_INCLUDE_PATH",
    b"CPLUS_INCLUDE_PATH",
    b"OBJC_INCLUDE_PATH",
    b"OBJCPLUS_INCLUDE_PATH",
)


@dataclass(frozen=True, slots=True)
class DriverAnswers:
    """What one driver answered, and how it was called.

    `about` is its `-v`, `searched` its `-print-search-dirs`; `library_path` is LIBRARY_PATH, b""
    where there is none. `compiler` is its path as spelled, `real` the same with links followed.
    """

    about: bytes
    searched: bytes
    library_path: bytes
    compiler: bytes
    real: bytes


def is_cxx_driver(program: bytes) -> bool | None:
    """Tell from a program's name whether it compiles `.c` as C++; None: not a known name."""
    match = _COMPILER_NAME.fullmatch(program.rpartition(b"/")[2])
    return None if match is None else match[1].endswith(b"++")


def is_clang_cl(program: bytes) -> bool | None:
    """Tell from a program's name whether it is clang's (or cl itself); None: neither."""
    match = _CL_NAME.fullmatch(program)
    return None if match is None else match[1] is not None


def follows_cl(compiler: bytes, arguments: tuple[bytes, ...]) -> bool:
    """Tell whether a command line is to be read as cl's."""
    return is_clang_cl(compiler) is not None or CL_DRIVER_MODE in arguments


def is_other_driver(compiler: bytes, real: bytes) -> bool:
    """Tell whether a name stands for C and the program behind it for C++, or the reverse.

    clang++ is a link to clang, which looks at the name it was called by; so clang is never another.
    """
    real_is_cxx = is_cxx_driver(real)
    if real_is_cxx is None or is_cxx_driver(compiler) is real_is_cxx:
        return False
    return not real.rpartition(b"/")[2].startswith(b"clang")


def without_cl_variables(env: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return an environment without the variables that cl adds to its arguments."""
    return {name: value for name, value in env.items() if name not in {CL_BEFORE, CL_BEHIND}}
