"""Which environment variables a key holds, which refuse a compile, and which need a closer look.

The launcher sends a list of names and prefixes (`ENV_NAMES` in `launcher/hpcc.c`). The names come
from the documentation of GCC and Clang, from the strings in drivers, `cc1`, `as`, `objcopy` and the
LLVM libraries, and from a record of every `getenv` call of GCC 12 to 14 and Clang 14, 17, 19, 22. A
variable that arrives here and that no set names is in the key with its value.

Names are compared whole. A prefix would refuse strangers: Linux' Kbuild exports `CC_FLAGS_FPU`,
which no compiler reads.

- Refused: variables that edit the command line, make the compiler write a file, or add places where
  it looks for files that nothing else here tracks.
- In the identity and in the key: variables that change which programs and files a driver finds,
  and which libraries the dynamic loader picks (`hpcc.cache.host.loader` refuses others of it, and
  those that make an allocator write).
- In the key: everything else, for example `COLLECT_AS_OPTIONS` (GCC writes it into LTO objects),
  `LLVM_OVERRIDE_PRODUCER` (bitcode holds it) and `RC_DEBUG_PREFIX_MAP` (Clang for Darwin).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.path_stability import names_a_process
from hpcc.cache.host.loader import refusal_of_loader
from hpcc.compilers.spec.drivers import is_refused_of_nvcc
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

# These variables affect the output only through something that is in the key: PATH and the search
# variables through the identity, TERM and NO_COLOR through the flags for a terminal. Only cppcheck
# reads CLICOLOR_FORCE, and its family refuses that. PWD is a separate field of the key. TMPDIR is
# only where compilers put temporary files.
NOT_IN_KEY: Final = frozenset(
    {
        b"PATH", b"PWD", b"TMPDIR", b"TERM", b"NO_COLOR", b"CLICOLOR_FORCE", b"COMPILER_PATH",
        b"LIBRARY_PATH",
    }
)  # fmt: skip
_DEPENDENCY_ENV: Final = frozenset({b"DEPENDENCIES_OUTPUT", b"SUNPRO_DEPENDENCIES"})
# A driver searches these for its programs, and a program that appears there would go unnoticed.
_SEARCHED_ENV: Final = frozenset({b"COMPILER_PATH", b"GCC_EXEC_PREFIX"})
_REFUSED_ENV: Final = frozenset(
    {
        # They edit the command line, or run the compiler twice (Driver.cpp, gcc.cc).
        b"CCC_OVERRIDE_OPTIONS", b"CCC_ADD_ARGS", b"GCC_COMPARE_DEBUG",
        # Clang's driver.cpp: each makes it write a file, or messages that are not captured.
        b"CC_PRINT_OPTIONS", b"CC_PRINT_OPTIONS_FILE", b"CC_PRINT_HEADERS",
        b"CC_PRINT_HEADERS_FILE", b"CC_PRINT_HEADERS_FORMAT", b"CC_PRINT_HEADERS_FILTERING",
        b"CC_LOG_DIAGNOSTICS", b"CC_LOG_DIAGNOSTICS_FILE", b"CC_PRINT_PROC_STAT",
        b"CC_PRINT_PROC_STAT_FILE", b"CC_PRINT_INTERNAL_STAT", b"CC_PRINT_INTERNAL_STAT_FILE",
        b"FORCE_CLANG_DIAGNOSTICS_CRASH",
        # Clang 22's file of flags for z/OS (loadZOSCustomizationFile).
        b"CLANG_CONFIG_PATH",
        # LLVM's MCContext: `.secure_log_unique` appends to this file.
        b"AS_SECURE_LOG_FILE",
        # GCC looks for specs there (gcc.cc, for "the CMU build program").
        b"LPATH",
        # Clang's header directories for XCore and VE, which the search path's memory leaves out.
        b"XCC_C_INCLUDE_PATH", b"XCC_CPLUS_INCLUDE_PATH",
        b"NCC_C_INCLUDE_PATH", b"NCC_CPLUS_INCLUDE_PATH",
    }
)  # fmt: skip

# GCC's module mapper where no flag names one. CMake always names one.
_MAPPER_ENV: Final = frozenset({b"CXX_MODULE_MAPPER"})

# They change an object or its messages, and no guest gets them.
MEANT_FOR_HERE: Final = frozenset(
    {
        b"COLLECT_AS_OPTIONS", b"OFFLOAD_TARGET_NAMES", b"OFFLOAD_TARGET_DEFAULT", b"GNUTARGET",
        b"GCC_ROOT", b"G++_ROOT", b"BINUTILS_ROOT", b"GCC_EXTRA_DIAGNOSTIC_OUTPUT",
        b"CLANG_NO_DEFAULT_CONFIG", b"LLVM_OVERRIDE_PRODUCER", b"RC_DEBUG_OPTIONS",
        b"RC_DEBUG_PREFIX_MAP", b"SDKROOT", b"MACOSX_DEPLOYMENT_TARGET",
        b"IPHONEOS_DEPLOYMENT_TARGET", b"TVOS_DEPLOYMENT_TARGET", b"WATCHOS_DEPLOYMENT_TARGET",
        b"DRIVERKIT_DEPLOYMENT_TARGET", b"XROS_DEPLOYMENT_TARGET",
        b"LD_PRELOAD", b"LD_DYNAMIC_WEAK", b"LD_LIBRARY_VERSION",
    }
)  # fmt: skip


def refusal_of(env: Mapping[bytes, bytes], arguments: tuple[bytes, ...]) -> Bypass | None:
    """Return why a compile with these variables is not for the cache; None if it is."""
    for name in env:
        if name in _DEPENDENCY_ENV:
            return Bypass(BypassReason.DEPENDENCIES_OUTPUT)
        if name in _MAPPER_ENV:
            return Bypass(BypassReason.MODULE_MAPPER)
        # Of a compile by GCC or Clang, its family leaves out what only nvcc reads.
        if name in _REFUSED_ENV or is_refused_of_nvcc(name):
            return Bypass(BypassReason.ENVIRONMENT)
        if name in _SEARCHED_ENV:
            return Bypass(BypassReason.COMPILER_PATH)
    # A relative part finds other programs in another directory, and new ones that appear there.
    if not all(part.startswith(b"/") for part in env.get(b"PATH", b"/").split(b":")):
        return Bypass(BypassReason.RELATIVE_PATH)
    refusal = refusal_of_loader(env)
    if refusal is not None:
        return refusal
    return Bypass(BypassReason.PROCESS_PATH) if names_a_process(arguments, env) else None


def environment_key(env: Mapping[bytes, bytes]) -> bytes:
    """Return the variables that belong in a key, as bytes."""
    return encode_fields(
        part
        for name, value in sorted(env.items())
        if name not in NOT_IN_KEY and not name.startswith(b"HPCC_")
        for part in (name, value)
    )
