"""The flag table of gcc, g++, clang and clang++.

Sources: the GCC 12 manual ("Invoking GCC") with gcc/common.opt and gcc/c-family/c.opt, and the
Clang command line reference with clang/include/clang/Driver/Options.td. Never another cache's
table.
"""

from __future__ import annotations

from typing import Final

from hpcc.compilers._spec import Arity, Effect, FlagSpec, FlagTable

_ALONE, _SEPARATE, _JOINED, _EITHER = Arity.ALONE, Arity.SEPARATE, Arity.JOINED, Arity.EITHER


def _rows(
    arity: Arity, effect: Effect, source: str, *spellings: str, reason: str = ""
) -> list[FlagSpec]:
    return [FlagSpec(s, arity, effect, source=source, reason=reason) for s in spellings]


def _refuse(arity: Arity, reason: str, source: str, *spellings: str) -> list[FlagSpec]:
    return _rows(arity, Effect.REFUSE, source, *spellings, reason=reason)


_MANUAL = "GCC manual, "
_CLANG = "Clang command line reference, "

_MODES: Final = [
    *_rows(_ALONE, Effect.MODE, _MANUAL + "Overall Options", "-c", "-S"),
    *_rows(_EITHER, Effect.OUTPUT, _MANUAL + "Overall Options; common.opt o: Joined", "-o"),
    *_rows(_EITHER, Effect.LANGUAGE, _MANUAL + "Overall Options; common.opt x: Joined", "-x"),
    *_refuse(_ALONE, "language", _CLANG + "ObjC", "-ObjC", "-ObjC++"),
    *_refuse(_SEPARATE, "several-architectures", "Apple's driver; " + _CLANG + "arch", "-arch"),
    *_refuse(_ALONE, "preprocess-only", _MANUAL + "Overall Options", "-E"),
    *_refuse(_ALONE, "syntax-only", _MANUAL + "Warning Options", "-fsyntax-only"),
    *_refuse(_ALONE, "dependencies-only", _MANUAL + "Preprocessor Options", "-M", "-MM", "-MG"),
    *_refuse(_ALONE, "other-output", _CLANG + "Actions", "-emit-llvm", "-emit-ast"),
    *_refuse(_ALONE, "information", _MANUAL + "Overall Options", "-v", "-###", "-Q", "--version"),
    *_refuse(_JOINED, "information", _MANUAL + "Developer Options", "-print-", "-dump", "--help"),
    *_refuse(_JOINED, "information", _MANUAL + "Developer Options", "--print-", "-ftime-"),
]

_SEARCH_PATH: Final = [
    *_rows(
        _EITHER,
        Effect.INCLUDE_DIR,
        "c.opt: Joined Separate; " + _MANUAL + "Directory Options",
        "-I",
        "-iquote",
        "-isystem",
        "-idirafter",
    ),
    *_rows(_EITHER, Effect.FORCED_INCLUDE, "c.opt: Joined Separate", "-include", "-imacros"),
    *_rows(_EITHER, Effect.SEARCH, "c.opt isysroot: Joined Separate", "-isysroot"),
    *_rows(_JOINED, Effect.SEARCH, _MANUAL + "Directory Options", "--sysroot="),
    *_rows(_SEPARATE, Effect.SEARCH, "common.opt -sysroot: Separate Alias", "--sysroot"),
    *_rows(_ALONE, Effect.SEARCH, _MANUAL + "Directory Options", "-nostdinc", "-nostdinc++"),
    *_rows(_JOINED, Effect.SEARCH, _CLANG + "Target-independent", "-stdlib=", "--target="),
    *_rows(_SEPARATE, Effect.SEARCH, _CLANG + "target: Separate", "-target"),
    *_rows(_JOINED, Effect.SEARCH, _CLANG + "gcc toolchain", "--gcc-toolchain="),
    *_refuse(_ALONE, "split-include", _MANUAL + "Directory Options, -I-", "-I-"),
    *_refuse(_EITHER, "include-prefix", "c.opt: Joined Separate", "-iprefix", "-iwithprefix"),
    *_refuse(_EITHER, "include-prefix", "c.opt: Joined Separate", "-iwithprefixbefore"),
    *_refuse(_EITHER, "include-prefix", "c.opt: Joined Separate", "-imultilib"),
    *_refuse(_EITHER, "program-prefix", _MANUAL + "Directory Options", "-B"),
    *_refuse(_JOINED, "specs", _MANUAL + "Overall Options", "-specs=", "--specs="),
    *_refuse(_SEPARATE, "specs", _MANUAL + "Overall Options", "-specs"),
    *_refuse(_SEPARATE, "config-file", _CLANG + "config", "--config"),
    *_refuse(_JOINED, "config-file", _CLANG + "config", "--config="),
    *_refuse(_SEPARATE, "wrapper", _MANUAL + "Overall Options", "-wrapper"),
    *_refuse(_EITHER, "pch", _CLANG + "include-pch", "-include-pch"),
]

_DEPENDENCIES: Final = [
    *_rows(_ALONE, Effect.DEPENDENCY, _MANUAL + "Preprocessor Options", "-MD", "-MMD", "-MP"),
    *_rows(_EITHER, Effect.DEPENDENCY, "c.opt: Joined Separate", "-MF", "-MT", "-MQ"),
    *_refuse(_EITHER, "compilation-database", _CLANG + "MJ: JoinedOrSeparate", "-MJ"),
    *_refuse(_ALONE, "dependency-format", _CLANG + "MV", "-MV"),
]

_PREPROCESS: Final = [
    *_rows(_EITHER, Effect.PREPROCESS, "c.opt: Joined Separate", "-D", "-U"),
    *_rows(_JOINED, Effect.PREPROCESS, _MANUAL + "C Dialect Options", "-std=", "--std="),
    *_rows(
        _ALONE,
        Effect.PREPROCESS,
        _MANUAL + "C Dialect and Preprocessor Options",
        "-ansi",
        "-undef",
        "-trigraphs",
        "-traditional-cpp",
        "-pthread",
        "-pthreads",
    ),
    *_rows(_JOINED, Effect.LIST, _MANUAL + "Preprocessor Options, -Wp,option", "-Wp,"),
    *_refuse(_SEPARATE, "pass-through", _MANUAL + "Preprocessor Options", "-Xpreprocessor"),
]

_CODEGEN: Final = [
    # The families: unknown members are hashed and passed on.
    *_rows(_JOINED, Effect.CODEGEN, _MANUAL + "Option Summary", "-f", "-W", "-O", "-g"),
    # -m decides multilib and target, and so the compiler's own search path.
    *_rows(_JOINED, Effect.SEARCH, _MANUAL + "Machine-Dependent Options", "-m"),
    *_rows(
        _ALONE,
        Effect.CODEGEN,
        _MANUAL + "Overall and Warning Options",
        "-w",
        "-pedantic",
        "-pedantic-errors",
        "-pipe",
        "-p",
        "-pg",
        "-Qunused-arguments",
        "-no-canonical-prefixes",
    ),
    *_rows(_SEPARATE, Effect.CODEGEN, _MANUAL + "Optimize Options", "--param"),
    *_rows(_JOINED, Effect.CODEGEN, _MANUAL + "Optimize Options", "--param="),
    *_rows(_JOINED, Effect.LIST, _MANUAL + "Assembler Options", "-Wa,"),
    *_rows(
        _JOINED,
        Effect.COLOUR,
        _MANUAL + "Diagnostic Message Formatting Options",
        "-fdiagnostics-color",
        "-fno-diagnostics-color",
        "-fcolor-diagnostics",
        "-fno-color-diagnostics",
        "-fdiagnostics-plain-output",
    ),
    *_refuse(_SEPARATE, "pass-through", _MANUAL + "Assembler Options", "-Xassembler"),
    *_refuse(_SEPARATE, "pass-through", _CLANG + "Xclang", "-Xclang", "-mllvm"),
    *_refuse(_JOINED, "pass-through", _CLANG + "mllvm=", "-mllvm="),
]

# Flags that write or read files which the depfile does not name.
_EXTRA_FILES: Final = [
    *_rows(
        _ALONE,
        Effect.SIDE_OUTPUT,
        _MANUAL + "Developer, Debugging and Instrumentation Options",
        "-save-temps",
        "-save-temps=obj",
        "-save-temps=cwd",
        "--save-temps",
        "--save-temps=obj",
        "--save-temps=cwd",
        "--coverage",
        "-coverage",
        "-ftest-coverage",
        "-gsplit-dwarf",
        "-gsplit-dwarf=split",
        "-fstack-usage",
    ),
    *_rows(_ALONE, Effect.CODEGEN, _CLANG + "gsplit-dwarf=", "-gsplit-dwarf=single"),
    # Instrumentation writes and reads nothing when it is compiled.
    *_rows(
        _ALONE,
        Effect.CODEGEN,
        _MANUAL + "Instrumentation Options",
        "-fprofile-arcs",
        "-fprofile-generate",
        "-fprofile-instr-generate",
        "-fprofile-abs-path",
        "-fprofile-update=single",
        "-fprofile-update=atomic",
        "-fprofile-update=prefer-atomic",
    ),
    *_refuse(_JOINED, "save-temps", _MANUAL + "Developer Options", "-save-temps", "--save-temps"),
    *_refuse(_JOINED, "coverage", _MANUAL + "Instrumentation Options", "-ftest-coverage"),
    *_refuse(_JOINED, "coverage", _CLANG + "coverage-*-file", "-coverage-"),
    *_refuse(
        _JOINED,
        "profile",
        _MANUAL + "Instrumentation and Optimize Options",
        "-fprofile-",
        "-fauto-profile",
        "-fbranch-probabilities",
        "-fcs-profile-",
        "-fmemory-profile",
    ),
    *_refuse(_JOINED, "split-dwarf", _MANUAL + "Debugging Options", "-gsplit-dwarf"),
    *_refuse(_JOINED, "plugin", _MANUAL + "Overall Options", "-fplugin", "-fpass-plugin"),
    *_refuse(_JOINED, "side-output", _MANUAL + "Developer Options", "-fstack-usage"),
    *_refuse(_JOINED, "side-output", _MANUAL + "Developer Options", "-fcallgraph-info"),
    *_refuse(_JOINED, "side-output", _MANUAL + "Developer Options", "-fsave-optimization-record"),
    *_refuse(_JOINED, "side-output", _MANUAL + "Developer Options", "-fopt-info"),
    *_refuse(_JOINED, "side-output", _CLANG + "foptimization-record-*", "-foptimization-record"),
    *_refuse(_JOINED, "side-output", _CLANG + "fcrash-diagnostics-dir", "-fcrash-diagnostics"),
    *_refuse(
        _JOINED,
        "side-output",
        _MANUAL + "Diagnostic Message Formatting Options",
        "-fdiagnostics-format=json-file",
        "-fdiagnostics-format=sarif",
        "-fdiagnostics-add-output",
        "-fdiagnostics-set-output",
    ),
    *_refuse(_JOINED, "side-output", _CLANG + "serialize-diagnostics", "--serialize-diagnostics"),
    *_refuse(_EITHER, "side-output", "c.opt aux-info: Separate, -aux-info=: Joined", "-aux-info"),
    *_refuse(_JOINED, "dump", _MANUAL + "Developer Options", "-fdump-", "-fada-spec", "-d"),
    *_refuse(_JOINED, "dump", _MANUAL + "Developer Options", "-fcompare-debug", "-gtoggle"),
    # The object then holds the command line, ours included.
    *_refuse(_JOINED, "record-switches", _MANUAL + "Code Gen Options", "-frecord-gcc-switches"),
    *_refuse(_JOINED, "record-switches", _CLANG, "-frecord-command-line"),
    *_refuse(_JOINED, "record-switches", _CLANG, "-grecord-command-line"),
    *_refuse(_JOINED, "modules", _MANUAL + "C++ Modules; " + _CLANG + "Modules", "-fmodule"),
    *_refuse(_JOINED, "modules", _CLANG + "Modules", "-fprebuilt-", "-fcxx-modules"),
    *_refuse(_JOINED, "modules", _CLANG + "Modules", "-fimplicit-module", "-fbuild-session"),
    *_refuse(_JOINED, "pch", _MANUAL + "Precompiled Headers; " + _CLANG, "-fpch", "-fno-pch"),
    *_refuse(_JOINED, "extra-input", _CLANG, "-fsanitize-blacklist", "-fsanitize-ignorelist"),
    *_refuse(_JOINED, "extra-input", _CLANG, "-fsanitize-coverage-allowlist"),
    *_refuse(_JOINED, "extra-input", _CLANG, "-fsanitize-coverage-ignorelist"),
    *_refuse(_JOINED, "extra-input", _CLANG, "-fsanitize-coverage-blacklist"),
    *_refuse(_JOINED, "extra-input", _CLANG, "-fsanitize-coverage-whitelist"),
    *_refuse(_JOINED, "extra-input", _CLANG + "XRay", "-fxray-always-", "-fxray-never-"),
    *_refuse(_JOINED, "extra-input", _CLANG + "XRay", "-fxray-attr-list"),
    *_refuse(_JOINED, "extra-input", _CLANG, "-ftrain-", "-fthinlto-index", "-fembed-"),
    *_refuse(_JOINED, "extra-input", _CLANG, "-fapinotes", "-foverride-record-layout"),
    *_refuse(_JOINED, "extra-input", _CLANG, "-frandomize-layout-seed-file"),
    *_refuse(_JOINED, "extra-input", _CLANG + "warning-suppression-mappings", "--warning-"),
    # Reads header.gcc in every directory of the search path (libcpp, files.cc).
    *_refuse(_ALONE, "extra-input", _MANUAL + "Preprocessor Options", "-remap"),
    *_refuse(_EITHER, "extra-input", _CLANG + "ivfsoverlay", "-ivfsoverlay"),
    *_refuse(_JOINED, "extra-input", _CLANG, "-fbasic-block-sections=list="),
    *_refuse(_JOINED, "extra-input", _CLANG, "-fexperimental-sanitize-metadata-ignorelist"),
    *_refuse(_JOINED, "side-output", _CLANG + "fproc-stat-report", "-fproc-stat-report"),
    *_refuse(_JOINED, "side-output", _MANUAL + "Program Instrumentation Options", "-fvtv-"),
    # The source's bytes are then not the characters that are looked for in it.
    *_refuse(_JOINED, "input-charset", _MANUAL + "Preprocessor Options", "-finput-charset"),
    *_refuse(_JOINED, "offload", _CLANG + "offloading", "-fopenmp-targets", "--offload"),
]

_LINK: Final = [
    *_rows(_EITHER, Effect.LINK, _MANUAL + "Link Options", "-l", "-L"),
    *_rows(_JOINED, Effect.LINK, _MANUAL + "Link Options", "-Wl,"),
    *_rows(_SEPARATE, Effect.LINK, _MANUAL + "Link Options", "-Xlinker", "-z"),
    *_rows(
        _ALONE,
        Effect.LINK,
        _MANUAL + "Link Options",
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
        "-nopie",
        "-static-pie",
    ),
]

GNU_FLAGS: Final = FlagTable(
    [
        *_MODES,
        *_SEARCH_PATH,
        *_DEPENDENCIES,
        *_PREPROCESS,
        *_CODEGEN,
        *_EXTRA_FILES,
        *_LINK,
    ]
)
