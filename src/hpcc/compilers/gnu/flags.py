"""The flag table of gcc, g++, clang and clang++.

Sources: the GCC 12 to 15 manuals ("Invoking GCC") with gcc/common.opt and gcc/c-family/c.opt, and
the Clang 14 to 22 command line references with clang/include/clang/Driver/Options.td. No row is
from another cache's table. `table.ASKED_GCC` and `table.ASKED_CLANG` list the compilers that were
asked, too.
"""

from __future__ import annotations

from typing import Final

from hpcc.compilers.gnu.file_flags import FILES
from hpcc.compilers.spec.rows import (
    ALONE,
    CLANG,
    EITHER,
    JOINED,
    MANUAL,
    SEPARATE,
    clang_rows,
    gcc_rows,
    refuse,
    rows,
)
from hpcc.compilers.spec.table import NO_MAJORS, Effect, FlagTable
from hpcc.core.reasons.bypass import BypassReason

_OVERALL: Final = MANUAL + "Overall Options"
_CPP: Final = MANUAL + "Preprocessor Options"
_DEVELOPER: Final = MANUAL + "Developer Options"
_DIRECTORY: Final = MANUAL + "Directory Options"
_BOTH_FORMS: Final = "c.opt: Joined Separate"

_MODES: Final = [
    *rows(ALONE, Effect.MODE, _OVERALL, "-c", is_stable=True),
    *rows(ALONE, Effect.MODE, _OVERALL, "-S"),
    *rows(EITHER, Effect.OUTPUT, _OVERALL + "; common.opt o: Joined", "-o", is_stable=True),
    *rows(EITHER, Effect.LANGUAGE, _OVERALL + "; common.opt x: Joined", "-x", is_stable=True),
    *refuse(ALONE, BypassReason.LANGUAGE, CLANG + "ObjC", "-ObjC", "-ObjC++"),
    *refuse(
        SEPARATE, BypassReason.SEVERAL_ARCHITECTURES, "Apple's driver; " + CLANG + "arch", "-arch"
    ),
    *rows(ALONE, Effect.MODE, _OVERALL, "-E"),
    *rows(ALONE, Effect.MODE, MANUAL + "Warning Options", "-fsyntax-only"),
    *refuse(ALONE, BypassReason.DEPENDENCIES_ONLY, _CPP, "-M", "-MM", "-MG"),
    *clang_rows(ALONE, Effect.CODEGEN, "Actions", "-emit-llvm"),
    *refuse(ALONE, BypassReason.OTHER_OUTPUT, CLANG + "Actions", "-emit-ast"),
    *refuse(
        ALONE, BypassReason.INFORMATION, _OVERALL, "-v", "-###", "-Q", "--version", "--verbose"
    ),
    *refuse(
        ALONE,
        BypassReason.INFORMATION,
        _OVERALL,
        "-time",
        "-fhelp",
        "-ftarget-help",
        "--target-help",
    ),
    # Every configure script asks these; GCC and Clang fail.
    *refuse(
        ALONE, BypassReason.INFORMATION, "Autoconf's AC_PROG_CC", "-V", "-version", "-qversion"
    ),
    *refuse(
        JOINED, BypassReason.INFORMATION, _DEVELOPER, "-print-", "--print-", "--help", "-fhelp="
    ),
    *refuse(JOINED, BypassReason.INFORMATION, _DEVELOPER, "-dumpversion", "-dumpfullversion"),
    *refuse(JOINED, BypassReason.INFORMATION, _DEVELOPER, "-dumpmachine", "-dumpspecs"),
    # Their output contains the time that the compile took.
    *refuse(
        JOINED, BypassReason.MEASURES_TIME, _DEVELOPER + "; " + CLANG, "-ftime-", "-fsarif-time-"
    ),
]

_SEARCH_PATH: Final = [
    *rows(
        EITHER,
        Effect.INCLUDE_DIR,
        _BOTH_FORMS + "; " + _DIRECTORY,
        "-I",
        "-iquote",
        "-isystem",
        "-idirafter",
        is_stable=True,
    ),
    *clang_rows(EITHER, Effect.INCLUDE_DIR, "cxx-isystem", "-cxx-isystem", "-stdlib++-isystem"),
    *rows(EITHER, Effect.FORCED_INCLUDE, _BOTH_FORMS, "-include", "-imacros", is_stable=True),
    *rows(EITHER, Effect.SEARCH, "c.opt isysroot: Joined Separate", "-isysroot"),
    *rows(EITHER, Effect.SEARCH, _BOTH_FORMS, "-iprefix", "-iwithprefix", "-iwithprefixbefore"),
    *gcc_rows(EITHER, Effect.SEARCH, "Directory Options", "-imultilib"),
    *rows(JOINED, Effect.SEARCH, _DIRECTORY, "--sysroot="),
    *rows(SEPARATE, Effect.SEARCH, "common.opt -sysroot: Separate Alias", "--sysroot"),
    *rows(ALONE, Effect.SEARCH, _DIRECTORY, "-nostdinc", "-nostdinc++", is_stable=True),
    *rows(ALONE, Effect.SEARCH, _OVERALL, "-no-canonical-prefixes"),
    *clang_rows(ALONE, Effect.SEARCH, "Target-independent", "-canonical-prefixes"),
    *clang_rows(ALONE, Effect.SEARCH, "Target-independent", "-nostdlibinc", "-nobuiltininc"),
    *clang_rows(JOINED, Effect.SEARCH, "Target-independent", "-stdlib="),
    *clang_rows(JOINED, Effect.SEARCH, "target", "--target="),
    *clang_rows(SEPARATE, Effect.SEARCH, "target: Separate", "-target"),
    *clang_rows(JOINED, Effect.SEARCH, "gcc toolchain", "--gcc-toolchain="),
    *rows(EITHER, Effect.TOOLS, _DIRECTORY, "-B"),
    # Reads device-specs/specs-NAME (gcc/config/avr, driver-avr.cc).
    *rows(JOINED, Effect.TOOLS, MANUAL + "AVR Options", "-mmcu="),
    *gcc_rows(JOINED, Effect.TOOLS, "Overall Options", "-specs=", "--specs="),
    *gcc_rows(SEPARATE, Effect.TOOLS, "common.opt specs: Separate Alias", "-specs", "--specs"),
    *refuse(ALONE, BypassReason.SPLIT_INCLUDE, _DIRECTORY + ", -I-", "-I-"),
    *refuse(
        EITHER, BypassReason.FRAMEWORK, MANUAL + "Darwin Options; " + CLANG, "-F", "-iframework"
    ),
    *refuse(EITHER, BypassReason.FRAMEWORK, CLANG, "-iframeworkwithsysroot"),
    *refuse(EITHER, BypassReason.SYSROOT_INCLUDE, CLANG, "-iwithsysroot"),
    *refuse(SEPARATE, BypassReason.CONFIG_FILE, CLANG + "config", "--config"),
    *refuse(JOINED, BypassReason.CONFIG_FILE, CLANG + "config", "--config=", "--config-"),
    *refuse(SEPARATE, BypassReason.WRAPPER, _OVERALL, "-wrapper"),
    *refuse(EITHER, BypassReason.PCH, CLANG + "include-pch", "-include-pch"),
]

_DEPENDENCIES: Final = [
    *rows(ALONE, Effect.DEPENDENCY, _CPP, "-MD", "-MMD", "-MP", is_stable=True),
    *rows(EITHER, Effect.DEPENDENCY, _BOTH_FORMS, "-MF", "-MT", "-MQ", is_stable=True),
    *refuse(EITHER, BypassReason.COMPILATION_DATABASE, CLANG + "MJ: JoinedOrSeparate", "-MJ"),
    *refuse(EITHER, BypassReason.COMPILATION_DATABASE, CLANG, "-gen-cdb-fragment-path"),
    *refuse(ALONE, BypassReason.DEPENDENCY_FORMAT, CLANG + "MV", "-MV"),
    *refuse(JOINED, BypassReason.MODULES, MANUAL + "C++ Modules", "-fdeps-"),
]

_PREPROCESS: Final = [
    *rows(EITHER, Effect.PREPROCESS, _BOTH_FORMS, "-D", "-U", is_stable=True),
    *rows(JOINED, Effect.PREPROCESS, MANUAL + "C Dialect Options", "-std=", is_stable=True),
    *rows(JOINED, Effect.PREPROCESS, MANUAL + "C Dialect Options", "--std="),
    *rows(
        ALONE,
        Effect.PREPROCESS,
        MANUAL + "C Dialect and Preprocessor Options",
        "-ansi",
        "-undef",
        "-trigraphs",
        "-P",
        "-pthread",
        is_stable=True,
    ),
    # Arguments of macros replace words in strings there, and a comment joins the words beside it:
    # no scan of a text holds.
    *rows(
        ALONE,
        Effect.REFUSE,
        _CPP,
        "-traditional-cpp",
        reason=BypassReason.UNKNOWN_FLAG,
        clang=NO_MAJORS,
    ),
    *rows(ALONE, Effect.SHOWN, _CPP, "-C", "-CC", reason=BypassReason.UNKNOWN_FLAG),
    *rows(ALONE, Effect.SHOWN, _CPP, "-dM", "-dD", "-dI", reason=BypassReason.DUMP),
    *rows(ALONE, Effect.SHOWN, _CPP, "-dN", "-dU", reason=BypassReason.DUMP, clang=NO_MAJORS),
    *clang_rows(JOINED, Effect.PREPROCESS, "embed-dir=", "--embed-dir=", since=19),
    *rows(JOINED, Effect.LIST, _CPP + ", -Wp,option", "-Wp,", is_stable=True),
    *rows(SEPARATE, Effect.LIST, _CPP, "-Xpreprocessor"),
]

_CODEGEN: Final = [
    # The families: unknown members are hashed and passed on.
    *rows(JOINED, Effect.CODEGEN, MANUAL + "Option Summary", "-f", "-g"),
    *rows(JOINED, Effect.CODEGEN, MANUAL + "Option Summary", "-W", "-O", is_stable=True),
    # -m selects multilib and target, and with them the compiler's own search path.
    *rows(JOINED, Effect.SEARCH, MANUAL + "Machine-Dependent Options", "-m"),
    *rows(
        ALONE,
        Effect.CODEGEN,
        MANUAL + "Overall and Warning Options",
        "-w",
        "-pedantic",
        "-pedantic-errors",
        "-pipe",
        "-pg",
        is_stable=True,
    ),
    *gcc_rows(ALONE, Effect.CODEGEN, "Instrumentation and Overall", "-p", "-pass-exit-codes"),
    *clang_rows(ALONE, Effect.CODEGEN, "Diagnostic flags", "-Qunused-arguments", "-Qn", "-Qy"),
    *rows(SEPARATE, Effect.CODEGEN, MANUAL + "Optimize Options", "--param"),
    *rows(JOINED, Effect.CODEGEN, MANUAL + "Optimize Options", "--param="),
    *rows(JOINED, Effect.LIST, MANUAL + "Assembler Options", "-Wa,", is_stable=True),
    *rows(SEPARATE, Effect.LIST, MANUAL + "Assembler Options", "-Xassembler"),
    *rows(
        JOINED,
        Effect.COLOUR,
        MANUAL + "Diagnostic Message Formatting Options",
        "-fdiagnostics-color",
        "-fno-diagnostics-color",
        is_stable=True,
    ),
    *clang_rows(
        JOINED, Effect.COLOUR, "Diagnostic flags", "-fcolor-diagnostics", "-fno-color-diagnostics"
    ),
    *gcc_rows(
        ALONE,
        Effect.COLOUR,
        "Diagnostic Message Formatting Options",
        "-fdiagnostics-plain-output",
    ),
    # Without "=" these take the next argument.
    *clang_rows(SEPARATE, Effect.CODEGEN, "Debug information", "-fdebug-compilation-dir"),
    *clang_rows(SEPARATE, Effect.CODEGEN, "Target-independent", "-fnew-alignment"),
    *clang_rows(SEPARATE, Effect.SEARCH, "Target-dependent", "-mthread-model"),
    *clang_rows(SEPARATE, Effect.LIST, "Xclang", "-Xclang", "-mllvm"),
    *clang_rows(JOINED, Effect.LIST, "mllvm=", "-mllvm=", since=17),
    *refuse(
        SEPARATE, BypassReason.PASS_THROUGH, CLANG, "-Xcuda-ptxas", "-Xcuda-fatbinary", "-mmlir"
    ),
    *refuse(
        SEPARATE,
        BypassReason.PASS_THROUGH,
        CLANG,
        "-fexperimental-openacc-macro-override",
        "-meabi",
    ),
    *refuse(SEPARATE, BypassReason.MODULES, CLANG, "-module-dependency-dir"),
    *refuse(
        JOINED, BypassReason.PASS_THROUGH, CLANG, "-Xarch_", "-Xopenmp-target", "-Xoffload-linker"
    ),
]

_LINK: Final = [
    *rows(EITHER, Effect.LINK, MANUAL + "Link Options", "-l", "-L", is_stable=True),
    *rows(JOINED, Effect.LINK, MANUAL + "Link Options", "-Wl,", is_stable=True),
    *rows(SEPARATE, Effect.LINK, MANUAL + "Link Options", "-Xlinker", "-z"),
    *rows(
        ALONE,
        Effect.LINK,
        MANUAL + "Link Options",
        "-s",
        "-static",
        "-shared",
        "-rdynamic",
        "-nostdlib",
        "-nodefaultlibs",
        "-nostartfiles",
        "-static-libgcc",
        "-static-libstdc++",
        "-shared-libgcc",
        "-pie",
        "-no-pie",
        "-static-pie",
        "-r",
    ),
    *rows(EITHER, Effect.LINK, MANUAL + "Link Options", "-T", "-u"),
    *rows(SEPARATE, Effect.LINK, MANUAL + "Link Options", "-e"),
    *gcc_rows(
        ALONE,
        Effect.LINK,
        "Link Options",
        "-static-libasan",
        "-static-libtsan",
        "-static-liblsan",
        "-static-libubsan",
    ),
    *clang_rows(ALONE, Effect.LINK, "Link flags", "-static-libsan", "-shared-libsan"),
    *rows(ALONE, Effect.LINK, MANUAL + "Link Options", "-nolibc"),
    *clang_rows(JOINED, Effect.LINK, "Link flags", "-rtlib=", "--rtlib=", "-unwindlib="),
    *clang_rows(JOINED, Effect.LINK, "Link flags", "--unwindlib=", "--ld-path="),
]

GNU_FLAGS: Final = FlagTable(
    [
        *_MODES,
        *_SEARCH_PATH,
        *_DEPENDENCIES,
        *_PREPROCESS,
        *_CODEGEN,
        *FILES,
        *_LINK,
    ]
)
