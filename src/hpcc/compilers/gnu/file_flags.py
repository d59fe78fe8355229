"""Rows of the flags that write or read files which are not in the depfile."""

from __future__ import annotations

from typing import Final

from hpcc.compilers.invocation.interfaces import IMPORT_FLAG, INTERFACE_FLAG, PROVED_CLANG
from hpcc.compilers.invocation.modules import LISTING_FLAG, MAPPER_FLAG, MODULES_FLAG, WITH_MODULES
from hpcc.compilers.spec.back_end import INDEX_FLAG
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
from hpcc.compilers.spec.table import NO_MAJORS, Effect
from hpcc.core.reasons.bypass import BypassReason

_DEVELOPER: Final = MANUAL + "Developer Options"
_INSTRUMENT: Final = MANUAL + "Instrumentation Options"
_DIAGNOSTICS: Final = MANUAL + "Diagnostic Message Formatting Options"

# `hpcc.compilers.invocation.side` decides which files these write.
_WRITTEN: Final = [
    *rows(
        ALONE,
        Effect.SIDE_OUTPUT,
        _DEVELOPER + " and Debugging Options",
        "-save-temps",
        "-save-temps=obj",
        "-save-temps=cwd",
        "--save-temps",
        "-gsplit-dwarf",
        "-fstack-usage",
    ),
    *clang_rows(
        ALONE,
        Effect.SIDE_OUTPUT,
        "save-temps=, gsplit-dwarf=",
        "--save-temps=obj",
        "--save-temps=cwd",
        "-gsplit-dwarf=split",
    ),
    *rows(ALONE, Effect.SIDE_OUTPUT, _INSTRUMENT, "--coverage", "-coverage", "-ftest-coverage"),
    *gcc_rows(JOINED, Effect.SIDE_OUTPUT, "Developer Options", "-fcallgraph-info"),
    *clang_rows(
        ALONE,
        Effect.SIDE_OUTPUT,
        "fsave-optimization-record",
        "-fsave-optimization-record=yaml",
    ),
    *clang_rows(SEPARATE, Effect.SIDE_OUTPUT, "serialize-diagnostics", "--serialize-diagnostics"),
    *clang_rows(ALONE, Effect.CODEGEN, "gsplit-dwarf=", "-gsplit-dwarf=single"),
    *rows(ALONE, Effect.SIDE_OUTPUT, _DEVELOPER, "-fsave-optimization-record"),
    # These write to stderr. With a file name they are refused where the value is read.
    *gcc_rows(JOINED, Effect.LIST, "Developer Options", "-fopt-info"),
    # Written when the compiler crashes, and then no result is kept.
    *clang_rows(JOINED, Effect.CODEGEN, "fcrash-diagnostics-dir", "-fcrash-diagnostics"),
    *refuse(JOINED, BypassReason.SAVE_TEMPS, _DEVELOPER, "-save-temps", "--save-temps"),
    *refuse(JOINED, BypassReason.SAVE_STATS, CLANG, "-save-stats", "--save-stats"),
    *refuse(JOINED, BypassReason.COVERAGE, _INSTRUMENT, "-ftest-coverage"),
    *refuse(JOINED, BypassReason.COVERAGE, CLANG + "coverage-*-file", "-coverage-"),
    *refuse(JOINED, BypassReason.SPLIT_DWARF, MANUAL + "Debugging Options", "-gsplit-dwarf"),
    *refuse(JOINED, BypassReason.SIDE_OUTPUT, _DEVELOPER, "-fstack-usage"),
    *refuse(JOINED, BypassReason.SIDE_OUTPUT, _DEVELOPER, "-fsave-optimization-record"),
    *refuse(
        JOINED, BypassReason.SIDE_OUTPUT, CLANG + "foptimization-record-*", "-foptimization-record"
    ),
    *refuse(JOINED, BypassReason.SIDE_OUTPUT, CLANG, "-gen-reproducer", "-fproc-stat-report"),
    *refuse(JOINED, BypassReason.SIDE_OUTPUT, CLANG + "ThinLTO", "-fthin-link-bitcode"),
    *refuse(
        JOINED,
        BypassReason.SIDE_OUTPUT,
        _DIAGNOSTICS,
        "-fdiagnostics-format=json-file",
        "-fdiagnostics-format=sarif",
        "-fdiagnostics-add-output",
        "-fdiagnostics-set-output",
    ),
    *refuse(
        EITHER,
        BypassReason.SIDE_OUTPUT,
        "c.opt aux-info: Separate, -aux-info=: Joined",
        "-aux-info",
    ),
    *refuse(JOINED, BypassReason.SIDE_OUTPUT, _INSTRUMENT, "-fvtv-"),
    *refuse(JOINED, BypassReason.DUMP, _DEVELOPER, "-fdump-", "-fada-spec", "-d", "-fself-test"),
    *refuse(JOINED, BypassReason.DUMP, _DEVELOPER, "-fcompare-debug", "-gtoggle"),
]

_PROFILE: Final = [
    # Instrumentation reads and writes no files at compile time.
    *rows(
        ALONE,
        Effect.CODEGEN,
        _INSTRUMENT,
        "-fprofile-arcs",
        "-fprofile-generate",
        "-fprofile-update=single",
        "-fprofile-update=atomic",
        "-fprofile-update=prefer-atomic",
    ),
    *rows(
        JOINED,
        Effect.CODEGEN,
        _INSTRUMENT,
        "-fprofile-generate=",
        "-fprofile-filter-files=",
        "-fprofile-exclude-files=",
    ),
    *gcc_rows(
        ALONE,
        Effect.CODEGEN,
        "Instrumentation and Optimize Options",
        "-fprofile-abs-path",
        "-fprofile-values",
        "-fprofile-reorder-functions",
        "-fprofile-partial-training",
        "-fprofile-correction",
        "-fprofile-info-section",
    ),
    *gcc_rows(
        JOINED,
        Effect.CODEGEN,
        "Instrumentation Options",
        "-fprofile-dir=",
        "-fprofile-prefix-path=",
        "-fprofile-reproducible=",
        "-fprofile-info-section=",
    ),
    *gcc_rows(JOINED, Effect.CODEGEN, "Instrumentation Options", "-fprofile-prefix-map=", since=14),
    *clang_rows(
        ALONE, Effect.CODEGEN, "Profile", "-fprofile-instr-generate", "-fcs-profile-generate"
    ),
    *clang_rows(
        JOINED, Effect.CODEGEN, "Profile", "-fprofile-instr-generate=", "-fcs-profile-generate="
    ),
    *clang_rows(ALONE, Effect.CODEGEN, "Profile", "-fprofile-sample-accurate"),
    *clang_rows(
        JOINED,
        Effect.CODEGEN,
        "Profile",
        "-fprofile-function-groups=",
        "-fprofile-selected-function-group=",
        since=17,
    ),
    # Data of an earlier run: `hpcc.compilers.invocation.inputs` decides which files.
    *rows(ALONE, Effect.INPUT, MANUAL + "Optimize Options; " + CLANG, "-fprofile-use"),
    *rows(JOINED, Effect.INPUT, MANUAL + "Optimize Options; " + CLANG, "-fprofile-use="),
    *rows(JOINED, Effect.INPUT, MANUAL + "Optimize Options; " + CLANG, "-fauto-profile="),
    *gcc_rows(ALONE, Effect.INPUT, "Optimize Options", "-fauto-profile"),
    *gcc_rows(ALONE, Effect.INPUT, "Optimize Options", "-fbranch-probabilities"),
    *clang_rows(ALONE, Effect.INPUT, "fprofile-instr-use", "-fprofile-instr-use"),
    *clang_rows(
        JOINED,
        Effect.INPUT,
        "Profile",
        "-fprofile-instr-use=",
        "-fprofile-sample-use=",
        "-fprofile-remapping-file=",
        "-fprofile-list=",
    ),
    *clang_rows(JOINED, Effect.INPUT, "Profile", "-fmemory-profile-use=", since=17),
    # -fprofile-note names the notes file; other flags with this prefix are not known.
    *refuse(
        JOINED, BypassReason.PROFILE, _INSTRUMENT, "-fprofile-", "-fauto-profile", "-fcs-profile-"
    ),
    *refuse(JOINED, BypassReason.PROFILE, CLANG, "-fmemory-profile-"),
]

# A missing file is an error, so there is no default to look for.
_LISTS: Final = [
    *clang_rows(
        JOINED,
        Effect.INPUT,
        "Sanitizer special case lists",
        "-fsanitize-ignorelist=",
        "-fsanitize-blacklist=",
        "-fsanitize-coverage-allowlist=",
        "-fsanitize-coverage-ignorelist=",
    ),
    *clang_rows(
        JOINED,
        Effect.INPUT,
        "XRay",
        "-fxray-always-instrument=",
        "-fxray-never-instrument=",
        "-fxray-attr-list=",
    ),
    *clang_rows(JOINED, Effect.INPUT, "basic-block-sections", "-fbasic-block-sections=list="),
    *clang_rows(
        JOINED,
        Effect.INPUT,
        "frandomize-layout-seed-file",
        "-frandomize-layout-seed-file=",
        since=15,
    ),
    *clang_rows(
        JOINED,
        Effect.INPUT,
        "warning-suppression-mappings",
        "--warning-suppression-mappings=",
        since=20,
    ),
    *refuse(JOINED, BypassReason.EXTRA_INPUT, CLANG, "-fsanitize-coverage-blacklist"),
    *refuse(JOINED, BypassReason.EXTRA_INPUT, CLANG, "-fsanitize-coverage-whitelist"),
    *refuse(
        JOINED, BypassReason.EXTRA_INPUT, CLANG, "-fsanitize-ignorelist", "-fsanitize-blacklist"
    ),
    *refuse(JOINED, BypassReason.EXTRA_INPUT, CLANG, "-fsanitize-system-"),
    *refuse(JOINED, BypassReason.EXTRA_INPUT, CLANG, "-fexperimental-sanitize-metadata-ignorelist"),
    *refuse(JOINED, BypassReason.EXTRA_INPUT, CLANG, "-ftrain-", "-fembed-offload", "-fapinotes"),
    # Clang 22: `-fcodegen-data-use` alone reads `default.cgdata`.
    *refuse(JOINED, BypassReason.EXTRA_INPUT, CLANG, "-fcodegen-data-", "-multi-lib-config"),
    # The names of functions, in a file that no list of headers shows.
    *refuse(JOINED, BypassReason.EXTRA_INPUT, CLANG, "-fms-secure-hotpatch-functions-file"),
    # The compiler then looks for the source itself on the search path.
    *refuse(JOINED, BypassReason.EXTRA_INPUT, MANUAL + "Overall Options", "-fsearch-include-path"),
    *refuse(
        JOINED,
        BypassReason.EXTRA_INPUT,
        CLANG,
        "-foverride-record-layout",
        "--warning-suppression-",
    ),
    *refuse(JOINED, BypassReason.EXTRA_INPUT, "common.opt: Undocumented", "-fpre-include"),
    # The compiler then reads header.gcc in every directory of the search path (libcpp, files.cc).
    *refuse(ALONE, BypassReason.EXTRA_INPUT, MANUAL + "Preprocessor Options", "-remap"),
    *refuse(EITHER, BypassReason.VFS_OVERLAY, CLANG + "ivfsoverlay", "-ivfsoverlay", "-vfsoverlay"),
    # Only with bitcode as the source (`hpcc.compilers.spec.back_end`).
    *clang_rows(JOINED, Effect.INPUT, "ThinLTO", INDEX_FLAG),
    *refuse(JOINED, BypassReason.THINLTO_BACKEND, CLANG + "ThinLTO", "-fthinlto-index"),
]

# What CMake sends for every C++20 source: a unit that uses no module is cached
# (`hpcc.compilers.invocation.modules`). Asked of GCC 14 only.
_MODULES: Final = [
    row
    for arity, effect, source, spelling in (
        (ALONE, Effect.PREPROCESS, "C++ Modules", MODULES_FLAG),
        (JOINED, Effect.INPUT, "C++ Module Mapper", MAPPER_FLAG),
        # Without -fdeps-file, it writes a `.ddi` file by the output's name.
        (ALONE, Effect.SIDE_OUTPUT, "Preprocessor Options", LISTING_FLAG),
    )
    for row in rows(
        arity,
        effect,
        MANUAL + source,
        spelling,
        reason=BypassReason.MODULES,
        gcc=WITH_MODULES,
        clang=NO_MAJORS,
    )
]

# What CMake gives Clang for the units that use modules (`hpcc.compilers.invocation.interfaces`).
_INTERFACES = [
    row
    for effect, spelling in ((Effect.SIDE_OUTPUT, INTERFACE_FLAG), (Effect.INPUT, IMPORT_FLAG))
    for row in rows(
        JOINED,
        effect,
        CLANG + "Standard C++ Modules",
        spelling,
        reason=BypassReason.MODULES,
        gcc=NO_MAJORS,
        clang=range(min(PROVED_CLANG), max(PROVED_CLANG) + 1),
    )
]
# What an interface holds; its sources are inputs in either case. Clang 22 reduces by itself.
_INTERFACES += rows(
    ALONE,
    Effect.CODEGEN,
    CLANG + "Standard C++ Modules",
    "-fmodules-reduced-bmi",
    "-fno-modules-reduced-bmi",
    reason=BypassReason.MODULES,
    gcc=NO_MAJORS,
    clang=range(22, 23),
)

_CODE: Final = [
    # A third party's program runs in the compiler and may read anything, also a clock.
    *refuse(JOINED, BypassReason.PLUGIN, MANUAL + "Overall Options", "-fplugin", "-fpass-plugin"),
    # GCC omits flags that only concern depfiles and colours.
    *rows(
        ALONE,
        Effect.CODEGEN,
        MANUAL + "Code Gen Options",
        "-frecord-gcc-switches",
        "-grecord-gcc-switches",
        reason=BypassReason.RECORD_SWITCHES,
        clang=NO_MAJORS,
    ),
    # The object then holds the command line, including flags that hpcc adds.
    *refuse(
        JOINED,
        BypassReason.RECORD_SWITCHES,
        CLANG,
        "-frecord-command-line",
        "-grecord-command-line",
    ),
    *refuse(
        JOINED, BypassReason.RECORD_SWITCHES, CLANG, "-gcodeview-command-line", "-fembed-bitcode"
    ),
    *_MODULES,
    *_INTERFACES,
    *refuse(JOINED, BypassReason.HEADER_UNIT, MANUAL + "C++ Modules", "-fmodule-header"),
    *refuse(ALONE, BypassReason.MODULES, CLANG + "Standard C++ Modules", "--precompile"),
    *refuse(JOINED, BypassReason.MODULES, MANUAL + "C++ Modules; " + CLANG + "Modules", "-fmodule"),
    *refuse(JOINED, BypassReason.MODULES, CLANG + "Modules", "-fprebuilt-", "-fcxx-modules"),
    *refuse(
        JOINED, BypassReason.MODULES, CLANG + "Modules", "-fimplicit-module", "-fbuild-session"
    ),
    *refuse(JOINED, BypassReason.MODULES, CLANG + "Modules", "-fbuiltin-module-map"),
    *clang_rows(
        ALONE,
        Effect.CODEGEN,
        "fpch-instantiate-templates",
        "-fpch-instantiate-templates",
        "-fno-pch-instantiate-templates",
    ),
    *refuse(
        JOINED, BypassReason.PCH, MANUAL + "Precompiled Headers; " + CLANG, "-fpch", "-fno-pch"
    ),
    # The scanner looks for ASCII text, and these change what the source's bytes mean.
    *refuse(JOINED, BypassReason.INPUT_CHARSET, MANUAL + "Preprocessor Options", "-finput-charset"),
    *refuse(
        JOINED,
        BypassReason.OFFLOAD,
        CLANG + "offloading",
        "-fopenmp-targets",
        "-foffload-via-llvm",
        "--offload",
        "-fsycl",
    ),
]

FILES: Final = [*_WRITTEN, *_PROFILE, *_LISTS, *_CODE]
