"""Compiler drivers by name, and the environment variables that belong to cl.

Checking a name loads no family: a program called gcc must not load the tables of cl.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# Debian's MinGW has a driver for each model of threads: x86_64-w64-mingw32-g++-posix.
_COMPILER_NAME: Final = re.compile(
    rb"(?:[A-Za-z0-9_.]+-)*(gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(?:-[0-9][0-9.]*)?(?:-posix|-win32)?"
)
_CL_NAME: Final = re.compile(
    rb"(?:.*[\\/])?(?:(clang-cl|icx-cl)(?:-[0-9][0-9.]*)?|(cl))(?:\.exe)?", re.IGNORECASE
)
TARGET: Final = re.compile(rb"^Target: (\S+)$", re.MULTILINE)
"""In what a driver answers to `-v`."""

CL_DRIVER_MODE: Final = b"--driver-mode=cl"
# cl and clang-cl add these before and after every command line (cpp-docs, "CL environment
# variables").
CL_BEFORE: Final = b"CL"
CL_BEHIND: Final = b"_CL_"
# Search paths, and what Visual Studio's prompts set about the installation; they mean nothing to
# gcc and clang. Sources: cpp-docs; LLVM's MSVCPaths.cpp.
MSVC_ENV: Final = frozenset(
    {
        CL_BEFORE, CL_BEHIND, b"INCLUDE", b"EXTERNAL_INCLUDE", b"LIB", b"LIBPATH", b"VSLANG",
        b"VCToolsInstallDir", b"VCToolsVersion", b"VCINSTALLDIR", b"WindowsSdkDir",
        b"WindowsSDKVersion", b"UniversalCRTSdkDir", b"UCRTVersion",
    }
)  # fmt: skip
# Variables with directories that gcc and clang search for headers.
INCLUDE_ENV: Final = (
    b"CPATH",
    b"C_INCLUDE_PATH",
    b"CPLUS_INCLUDE_PATH",
    b"OBJC_INCLUDE_PATH",
    b"OBJCPLUS_INCLUDE_PATH",
)
# Programs that run a compiler for their own purposes.
OTHER_CACHES: Final = frozenset(
    {b"ccache", b"sccache", b"distcc", b"icecc", b"buildcache", b"fastbuild", b"hpcc", b"recc"}
)
DRIVER_MARKS: Final = (b"GCC_EXEC_PREFIX", b"CCC_OVERRIDE_OPTIONS")
"""Variables that only the driver of GCC, and that of Clang, read. Their files hold the names."""
# GCC puts these in place of its installation's prefix, in search paths of programs and headers
# (libiberty's prefix.c, `get_key_value`). Environment modules set GCC_ROOT.
ROOT_ENV: Final = (b"GCC_ROOT", b"G++_ROOT", b"BINUTILS_ROOT")


_WINDOWS: Final = re.compile(rb"windows|win32|msvc|uefi", re.IGNORECASE)
# nvcc and the programs of its toolkit (a record of each `getenv` of 13.0; strings in the programs).
_NVCC_PREFIXES: Final = (b"NVCC_", b"NVVM", b"EDG_")
_NVCC_ENV: Final = frozenset(
    {
        b"INCLUDES", b"SYSTEM_INCLUDES", b"CICC_PATH", b"CUDAFE_FLAGS", b"PTXAS_FLAGS",
        b"OCG_FLAGS", b"LLVMC_FLAGS", b"LLVMDIS_FLAGS", b"NVASM_FLAGS", b"NVDISASM_FLAGS",
        b"NVLINK_FLAGS", b"_HERE_", b"_THERE_", b"_SPACE_", b"_TARGET_DIR_", b"_TARGET_SIZE_",
        b"_CUDART_", b"_NVVM_BRANCH_", b"compiler-bindir", b"NOCOLOR", b"USR_INCLUDE",
        b"NV_NVVM_VERSION", b"LIBNVVM_DISABLE_CONCURRENT_API", b"CAN_FINALIZE_DEBUG",
        b"DUMP_KNOBS_TO_FILE", b"BASH_FUNC_gcc%%", b"BASH_FUNC_g++%%", b"BASH_FUNC_cudafe++%%",
        b"BASH_FUNC_ptxas%%", b"BASH_FUNC_fatbinary%%",
    }
)  # fmt: skip
# Their words are read as arguments (`nvcc.invocation`). NVCC_CCBIN chooses the host compiler.
_NVCC_TAKEN: Final = frozenset(
    {b"NVCC_PREPEND_FLAGS", b"NVCC_APPEND_FLAGS", b"NVCC_CCBIN", b"NOCOLOR"}
)


def is_of_nvcc(name: bytes) -> bool:
    """Return whether only nvcc and its programs read this variable."""
    return name in _NVCC_ENV or name.startswith(_NVCC_PREFIXES)


def is_refused_of_nvcc(name: bytes) -> bool:
    """Return whether it may change the commands or the programs of nvcc in an unknown way."""
    return is_of_nvcc(name) and name not in _NVCC_TAKEN


@dataclass(frozen=True, slots=True)
class DriverAnswers:
    """One driver's answers, and how it was called.

    `about` is the output of `-v`, `searched` that of `-print-search-dirs`. `library_path` is
    LIBRARY_PATH, None if unset. `compiler` is its path as spelled; `real` has links resolved.
    """

    about: bytes
    searched: bytes
    library_path: bytes | None
    compiler: bytes
    real: bytes


def is_cxx_driver(program: bytes) -> bool | None:
    """Return whether a program of this name compiles `.c` as C++; None: not a known name."""
    match = _COMPILER_NAME.fullmatch(program.rpartition(b"/")[2])
    return None if match is None else match[1].endswith(b"++")


def is_clang_cl(program: bytes) -> bool | None:
    """Return True for clang-cl's names, False for cl's; None for neither."""
    match = _CL_NAME.fullmatch(program)
    return None if match is None else match[1] is not None


def follows_cl(compiler: bytes, arguments: tuple[bytes, ...]) -> bool:
    """Return whether a command line follows cl's grammar."""
    return is_clang_cl(compiler) is not None or CL_DRIVER_MODE in arguments


def is_other_driver(compiler: bytes, real: bytes) -> bool:
    """Return whether a name stands for C and the program behind it for C++, or the reverse.

    clang++ is a link to clang, which checks the name it was called by, so this is False for clang.
    """
    real_is_cxx = is_cxx_driver(real)
    if real_is_cxx is None or is_cxx_driver(compiler) is real_is_cxx:
        return False
    return not real.rpartition(b"/")[2].startswith(b"clang")


def without_msvc_variables(env: dict[bytes, bytes], words: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the variables without those that mean something for a target of Windows only."""
    # Clang looks for headers of Windows in INCLUDE and the like (MSVC.cpp), on Linux too.
    if MSVC_ENV.isdisjoint(env) or any(map(_WINDOWS.search, words)):
        return env
    return {name: value for name, value in env.items() if name not in MSVC_ENV}


def without_cl_variables(env: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return an environment without the variables that cl adds to its arguments."""
    return {name: value for name, value in env.items() if name not in {CL_BEFORE, CL_BEHIND}}
