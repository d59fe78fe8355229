"""Why the compiler ran as if hpcc were not there: `bypass.REASON`."""

from __future__ import annotations

from typing import Final

from hpcc.core.reasons.reason import Reason

_LEAVE_OUT: Final = "Leave the option out of builds that should be cached."
_NOT_NEEDED: Final = "Nothing to do: such a command makes no object that could be cached."
_SPLIT: Final = "Compile each source in a command with `-c` and `-o`."
_NAME_OUTPUT: Final = "Name a plain file with `-o`."
_UNSET: Final = "Unset the variable for the build."
_DEPENDENCIES: Final = "Use `-MD -MF FILE` or `-MMD -MF FILE`, once."


class BypassReason(Reason, prefix="bypass"):
    """The command line, the environment or the compiler is not for the cache."""

    # fmt: off
    ANALYSER = (
        "analyser", "clang-tidy or cppcheck with more than one source, or in a form that does more "
        "than report",
        "Give it one source, and fix or list in separate runs.",
        "Refused of clang-tidy are `--fix`, profiles, plug-ins (`--load`), `--vfsoverlay`, "
        "questions such as `--list-checks`, response files unless they are empty, headers without "
        "`-x`, `-Wp,-MD`, modules and precompiled headers, and `--config` with `ExtraArgs` or a "
        "file for the analyser. Refused of cppcheck is what writes files, starts programs or reads "
        "lists of sources (`--dump`, `--cppcheck-build-dir`, `--output-file`, `--addon`, "
        "`--clang`, `--project`, `--file-list`, `-j`), limits of time, `--includes-file`, "
        "`-i`, `-rp`, and a file for `--platform`.")
    ANALYSER_DATABASE = (
        "analyser-database", "no certain compile command for clang-tidy",
        "Name the database's directory with `-p` and the source as it is spelled there, or give "
        "the command behind `--`.",
        "`compile_commands.json` must have exactly one entry for the source. It names GCC or Clang "
        "by an absolute path or by its bare name. Beside it there must be no `compile_flags.txt`.")
    ANALYSIS = "analysis", "the result is more than an object: `/analyze` (cl)", _LEAVE_OUT
    ASSEMBLER_FLAG = (
        "assembler-flag", "an option behind `-Wa,` or `-Xassembler` that may name a file",
        _LEAVE_OUT, "`-Wa,-adhlns=FILE` writes a listing, which hpcc does not keep.")
    CANCELLED = (
        "cancelled", "the compile was interrupted", "Nothing to do: the next compile is cached.")
    COMPILATION_DATABASE = (
        "compilation-database", "a description of the command line is written, as by `-MJ`",
        "Let the build system write the compilation database.")
    COMPILER_PATH = (
        "compiler-path", "`COMPILER_PATH` or `GCC_EXEC_PREFIX` is set",
        "Use `-B`, which is cached.", "Another program may appear there.")
    COMPILER_UNREADABLE = (
        "compiler-unreadable", "the compiler, or a program that it runs, cannot be read",
        "Give yourself the right to read the compiler's programs.")
    CONFIG_FILE = (
        "config-file", "a configuration file of Clang that does more than add flags",
        "Put the flags on the command line.",
        "Either `--config` names the file, or Clang reads it without being asked. On Windows "
        "also one that adds flags.")
    COVERAGE = (
        "coverage", "coverage notes whose name does not come from the object's name",
        "Use `--coverage` with one source and `-o`.")
    DEPENDENCIES_ONLY = (
        "dependencies-only", "`-M`, `-MM` or `-MG`: no object is made",
        "Use `-MD` or `-MMD` in the compile, which are cached.")
    DEPENDENCIES_OUTPUT = (
        "dependencies-output", "a variable makes the compiler write another file",
        "Unset the variable and use `-MD -MF FILE`.",
        "The variable is `DEPENDENCIES_OUTPUT` or `SUNPRO_DEPENDENCIES`.")
    DEPENDENCY_FORMAT = (
        "dependency-format", "`-MV`: dependencies in NMake's form",
        "Leave `-MV` out, if the build can read make's form.")
    DUMP = (
        "dump", "the compiler dumps internal files", _LEAVE_OUT,
        "`-d…`, `-fdump-…`, `-fcompare-debug`: the names of the files change with each version.")
    ELEVATED_DAEMON = (
        "elevated-daemon", "the daemon was started by an elevated prompt",
        "`hpcc stop`, then compile from a plain prompt.",
        "Such a daemon starts no program and writes no file for other users' launchers.")
    ENVIRONMENT = (
        "environment", "a variable edits the compiler's command line or makes it write files",
        _UNSET,
        "`CCC_OVERRIDE_OPTIONS`, `CC_PRINT_…` and others.")
    EXTERNAL_ENV = (
        "external-env", "search paths from a variable that only cl reads: `/external:env:`",
        "Use `/external:I`.")
    EXTRA_INPUT = (
        "extra-input", "the flag reads a file that hpcc does not track", _LEAVE_OUT,
        "`-fapinotes…`, `-remap` and others.")
    FLAG_OF_ANOTHER_COMPILER = (
        "flag-of-another-compiler", "this compiler, or this version of it, does not have the flag",
        "Remove the flag for this compiler.")
    FRAMEWORK = "framework", "Apple's way to find headers: `-F`, `-iframework`", "Use `-I`."
    HEADER_UNIT = (
        "header-unit", "a C++20 header unit is made", "Include the header, or import a module.",
        "`-fmodule-header`, `-x c++-system-header`, `-x c++-user-header`: the source is found on "
        "the search path, and the output's name is made of the path that was found.")
    HOT_PATCH_FILE = (
        "hot-patch-file", "a flag whose use by the linker is not known to hpcc", _LEAVE_OUT,
        "`/functionpadmin` and `/dynamicdeopt` (cl).")
    INFORMATION = (
        "information", "a question to the compiler, no compile", _NOT_NEEDED,
        "`--version`, `-v`, `-###`, `-print-…`, `-dumpmachine`, `--help`.")
    INPUT_CHARSET = (
        "input-charset", "`-finput-charset`: hpcc cannot search the source's text",
        "Convert the source to UTF-8.",
        "The bytes of the source are then not the characters that hpcc looks for.")
    INTERNAL_ERROR = (
        "internal-error", "a fault of hpcc", "Read `daemon.log`, and report what it says.")
    LANGUAGE = (
        "language", "a language that hpcc does not cache", "Nothing to do.",
        "hpcc caches C, C++, Objective-C, Objective-C++ and assembler, preprocessed or not.")
    LINK = (
        "link", "no compile of one source to an object (-c)",
        "Compile with `-c`. Links are not cached.")
    LINKER_INPUT = "linker-input", "given objects or libraries", "Compile with `-c` and link later."
    LOADER = (
        "loader", "a variable of the dynamic loader or of an allocator runs foreign code, writes "
        "messages or files, or means a directory that cannot be named", _UNSET,
        "`LD_AUDIT`, `LD_DEBUG`, `LD_PROFILE`, `GCONV_PATH`, `HEAPPROFILE`, and `LD_PRELOAD` "
        "unless it names a library of the system that changes no output, such as fakeroot's. Also "
        "a relative or empty part of `LD_LIBRARY_PATH` in a working directory whose name holds "
        "`:`, `;` or `$`.")
    MANAGED_CODE = (
        "managed-code", "`/clr` or `/ZW` (cl): assemblies, not only objects", "Nothing to do.")
    MEASURES_TIME = (
        "measures-time", "the output is the time that the compile took", _LEAVE_OUT,
        "`-ftime-trace`, `-ftime-report`.")
    MISSING_VALUE = "missing-value", "the last flag has no value", "Complete the command line."
    MIXED_DEPENDENCIES = (
        "mixed-dependencies", "a mix of `-MD`, `-MF` and `-Wp,-MD`", _DEPENDENCIES,
        "Compilers differ in what they make of it.")
    MODULE_MAPPER = (
        "module-mapper", "a program, a socket or a variable tells GCC where modules are",
        "Name one file in `-fmodule-mapper=`, as CMake does, and unset `CXX_MODULE_MAPPER`.",
        "Their answers may change from one compile to the next.")
    MODULES = (
        "modules", "C++20 modules, users of header units, or Clang's modules", "Nothing to do.",
        "`-fmodules`, `-fmodule-map-file` and others: compilers find compiled interfaces by rules "
        "that hpcc does not know. Named modules of Clang 17, 19 and 22 are cached as CMake makes "
        "them: `-fmodule-output=FILE` and `-fmodule-file=NAME=FILE`, not `--precompile`. Without "
        "`-fmodule-output=` Clang 22 writes an interface beside the object all the same, and the "
        "command runs unchanged. Those of GCC 14 are cached with `-fmodules-ts`, a map file and "
        "`-fdeps-format=p1689r5`.")
    MULTIPLE_OUTPUTS = "multiple-outputs", "more than one output in a command", _SPLIT
    MULTIPLE_SOURCES = (
        "multiple-sources", "several sources in a command that is more than its sources", _SPLIT,
        "With `-c` or `-S` each source is cached separately. Refused are a flag for one file of "
        "all sources (`-o`, `-MF`), further outputs, profiles, sources of several languages, "
        "objects of one name, a source that is missing or reads another's object, an `@file`, and "
        "cl and clang-cl except on Windows, there with `/Z7`, with precompiled headers and with "
        "sources of which a marker excludes some, too. "
        "MSBuild gives them one source in a command with `UseMultiToolTask`.")
    NATIVE = (
        "native", "`-march=native`, and the compiler does not report what that means",
        "Name the processor in `-march=`.")
    NO_PREPROCESSING = (
        "no-preprocessing", "a preprocessed source with flags for the preprocessor",
        "Leave out `-include`, `-Wp,`, `-fpreprocessed` and `-fdirectives-only`.",
        "Sources are `.i`, `.ii`, `.s`; `.mi` and `.mii` are never cached.")
    NO_SOURCE = "no-source", "no source in the command", _NOT_NEEDED
    NVCC = (
        "nvcc", "an nvcc command that does not compile exactly one CUDA source",
        "Compile each `.cu` file with `-c`, `-dc`, `-ptx`, `-cubin` or `-fatbin`.",
        "Links, device links, `-E`, `-M`, `--run` and sources of other languages without `-x cu` "
        "are not cached.")
    NVCC_HOST = (
        "nvcc-host", "an nvcc, or a compiler inside of it, that is not known",
        "Use nvcc 13.0 as it is installed, and GCC 12 to 15 as its host compiler.",
        "`hpcc` compares the options of nvcc by version. The host compiler must be GCC, and the "
        "same one with the `PATH` that `nvcc.profile` makes. A profile that does more than name "
        "directories is not taken, nor a working directory whose name a shell would interpret.")
    NVCC_OPTION = (
        "nvcc-option", "an option of nvcc, or a value, that is not cached", _LEAVE_OUT,
        "Refused are options that keep files, run programs, measure time or name further files "
        "(`--keep`, `--run`, `--time`, `-objtemp`, `-MMD`, `-arch=native`), flags for the host "
        "compiler, ptxas or cudafe++ that are not in hpcc's table, and each word with a blank or "
        "a character that a shell interprets: nvcc does not quote its commands.")
    ODD_DEPENDENCIES = (
        "odd-dependencies", "`-MF` and its like in a form whose effect differs", _DEPENDENCIES,
        "Compilers differ in what they make of it.")
    ODD_INPUT = (
        "odd-input", "a file that a flag names is standard input, or has no name",
        "Name an ordinary file.")
    ODD_OUTPUT = (
        "odd-output", "the output is `-`, a directory, or another file of the compile",
        _NAME_OUTPUT)
    OFFLOAD = "offload", "code for several processors at once", "Nothing to do."
    OTHER_COMPILER = (
        "other-compiler", "a known program that is not GCC or Clang",
        "Nothing to do, or use GCC or Clang.",
        "icc, gfortran, rustc, nasm, other caches and others have command lines whose "
        "grammar hpcc does not know.")
    OTHER_GROUP = (
        "other-group", "the compile's files belong to another group than the daemon's",
        "`hpcc stop`; the next compile starts a daemon with its own group.",
        "After `newgrp`, under `sg`, or in a user namespace that gives the group another number.")
    OTHER_MOUNT_NAMESPACE = (
        "other-mount-namespace", "the compile sees other file systems than the daemon does",
        "Start the daemon inside the same container.")
    OTHER_OUTPUT = "other-output", "`-emit-ast`: the output is not an object", _NOT_NEEDED
    PASS_THROUGH = (
        "pass-through", "`-Xclang` or `-mllvm` with something that may not be harmless", _LEAVE_OUT,
        "Also `/clang:` (clang-cl) with a flag that names or writes a file. A depfile is cached if "
        "`/clang:-MD` or `-MMD` and one `/clang:-MFNAME` ask for it, as CMake does.")
    PCH = (
        "pch", "a precompiled header of another compiler or form", "Build without it.",
        "GCC 12 to 14 with an output `NAME.gch`, and Clang 17, 19 and 22 with `-o NAME.pch` and "
        "no times in it, are cached. All others are not: `-fpch-deps` and its like, the driver's "
        "`-include-pch`, further outputs such as `--coverage`. On Windows the `/Yc` and `/Yu` of "
        "clang-cl, and cl's `/Yu`, are cached, with a header and a file in them and in `/Fp`.")
    PCH_TIMESTAMP = (
        "pch-timestamp", "a precompiled header of Clang with the times of its headers in it",
        "CMake: `add_compile_options(\"SHELL:-Xclang -fno-pch-timestamp\")` for Clang; else give "
        "`-Xclang -fno-pch-timestamp` to the compile that makes it.",
        "Put back in a new build directory, it would be an error for its users: CMake has written "
        "its header again by then. Their compiles are counted as `pch`.")
    PDB = (
        "pdb", "a program database that compiles share",
        "Use `/Z7`, which is cached, or set `cache.embed_debug_info` (Windows).",
        "`/ZI`, and `/Zi` of cl; on a farm also its `/Fd`. What clang-cl takes instead is cached: "
        "`/Zi` and `/Fd`.")
    PLUGIN = (
        "plugin", "a plug-in, which may read any file or a clock", _LEAVE_OUT,
        "`-fplugin`, `-fpass-plugin`.")
    PREPROCESS_ONLY = (
        "preprocess-only", "only preprocessing (`-E`), in an unknown form",
        "Use `-E` with one source, and `-MF` for a depfile.",
        "Not kept are `-E` with `-c` or `-S`, `-MD` without `-MF`, modules, profiles, further "
        "outputs, `-fdirectives-only` and the like, headers, preprocessed sources, `-S` of "
        "assembler, and cl.")
    PREPROCESSOR_FLAG = (
        "preprocessor-flag", "an option behind `-Wp,` or `-Xpreprocessor` that hpcc does not know",
        "Give the option directly.", "Only macros and depfiles are accepted there.")
    PROCESS_PATH = (
        "process-path", "a name that is another file in every process",
        "Name an ordinary file.", "A name below `/proc` or `/dev/fd`, or one like `/dev/stdin`.")
    PROFILE = (
        "profile", "`-fprofile-note`, or a prefix that is cut from the names of profiles",
        _LEAVE_OUT)
    RECORD_SWITCHES = (
        "record-switches", "the object would hold the command line with the flags that hpcc adds",
        "Use GCC's `-frecord-gcc-switches`, which leaves those out and is cached.",
        "`-frecord-command-line`, `-fembed-bitcode` and others.")
    RELATIVE_PATH = (
        "relative-path", "`PATH` has a part that is not absolute",
        "Write only absolute directories in `PATH`.")
    RESPONSE_FILE = (
        "response-file", "an `@file` that is too long or nests too deep", "Shorten the file.")
    SANITIZER = (
        "sanitizer", "`/fsanitize` (cl, clang-cl)", _LEAVE_OUT,
        "hpcc does not track lists and libraries there.")
    SAVE_STATS = (
        "save-stats", "`-save-stats`: a further file whose name is not known for certain",
        _LEAVE_OUT)
    SAVE_TEMPS = (
        "save-temps", "`-save-temps`: further files whose names are not known for certain",
        _LEAVE_OUT)
    SEVERAL_ARCHITECTURES = (
        "several-architectures", "`-arch`", "Use `-m64`, `-march=` or `--target=`.")
    SEVERAL_MODES = "several-modes", "more than one of `-c`, `-S` and `-E`", _SPLIT
    SHOW_INCLUDES = (
        "show-includes", "cl's debug information, or its `/MP`, without `/showIncludes`",
        "Add `/showIncludes`, as CMake does for Ninja.",
        "hpcc would have to add it to know what the compile reads, and the object records the "
        "command line, and cl warns of `/MP` beside it. Also `/showIncludes:user`, which leaves "
        "headers out.")
    SIDE_OUTPUT = (
        "side-output", "further files under names that are not known for certain", _LEAVE_OUT)
    SPECIAL_OUTPUT = "special-output", "the output is a device or a pipe", _NAME_OUTPUT
    SPLIT_DWARF = (
        "split-dwarf", "`-gsplit-dwarf` with a name that is not known for certain",
        "Name the object with `-o`.")
    SPLIT_INCLUDE = "split-include", "`-I-`", "Use `-iquote`."
    STARTER = (
        "starter", "cl.exe or clang-cl.exe runs a compiler in another directory",
        "Put the compiler's own directory first in `PATH`, or name its path.",
        "A hit starts no program, so an upgrade of that compiler would stay unseen. Starters of "
        "scoop are cached, if their `.shim` file has only a path.")
    STDIN = (
        "stdin", "the source comes from standard input", "Compile a file.",
        "Mostly a probe of a configure script, such as `echo … | gcc -E -`.")
    SYNTAX_ONLY = (
        "syntax-only", "a check that is more than its messages, or by cl",
        "Use `-fsyntax-only` with one C or C++ source, and `-MF` for a depfile.",
        "`-fsyntax-only` is cached without `-S`, `-MD` without `-MF` and `-c`, modules, profiles, "
        "further outputs, assembler and preprocessed sources. `/Zs` never is.")
    SYSROOT_INCLUDE = (
        "sysroot-include", "a directory below the sysroot: `-I=dir`, `-iwithsysroot`",
        "Write the whole directory behind `-I`.")
    TERMINAL_WIDTH = (
        "terminal-width", "GCC on a terminal, and `COLUMNS` is exported",
        "Do not export `COLUMNS`.", "GCC cuts the source lines of its messages at that width.")
    THINLTO_BACKEND = (
        "thinlto-backend", "bitcode as a source, in a form that hpcc does not know",
        "Use `clang -x ir FILE -fthinlto-index=INDEX -c -o OBJECT` without flags for headers.",
        "With Clang 14, 17, 19 and 22 such a command is cached. Not kept are depfiles, profiles, "
        "further outputs, `-S`, `-emit-llvm`, `-I`, and flags that no build system gives it.")
    UNKNOWN_COMPILER = (
        "unknown-compiler", "a program that hpcc does not recognize as GCC or Clang",
        "Call GCC or Clang by its usual name.")
    UNKNOWN_FLAG = (
        "unknown-flag", "a flag hpcc does not know", "Report the flag, or leave it out.",
        "The flag is not in the table.")
    UNPROVED_COMPILER = (
        "unproved-compiler", "a flag that may mean something new in this version",
        "Use a version that is in the table.",
        "No compiler of this version was tested: [which are known](#which-compilers-are-known).")
    VERBOSE_ASM = (
        "verbose-asm", "`-S -fverbose-asm` writes the command line into the output", _LEAVE_OUT)
    VFS_OVERLAY = "vfs-overlay", "files that stand for other files: `-ivfsoverlay`", _LEAVE_OUT
    VISUAL_STUDIO = (
        "visual-studio", "clang-cl would search this machine for Visual Studio",
        "Compile in a developer's prompt, which sets `VCToolsInstallDir` and `INCLUDE`.",
        "What it finds in the registry decides which headers it reads and which version of cl it "
        "imitates. Also `/winsysroot`, `/vctoolsdir`, `/winsdkdir`, with which it lists "
        "directories, and another target than Microsoft's (`--target=`), for which it searches "
        "GCC.")
    WHOLE_PROGRAM = (
        "whole-program",
        "`/GL` (cl): the output is for one compiler build only, no object",
        _LEAVE_OUT)
    WINDOWS_HOST = (
        "windows-host", "the client is on Windows, and the compiler is neither cl nor clang-cl",
        "Use cl or clang-cl.",
        "Other compilers are not cached there: [docs/windows.md](windows.md).")
    WINDOWS_PATH = (
        "windows-path", "a path that may have a second meaning on Windows",
        "Name files on a drive, by their own names.",
        "Servers, devices, streams, names that end in a dot or a space, more than 259 characters.")
    WRAPPER = (
        "wrapper", "the compiler, or its assembler, is another cache or a wrapper",
        "Call the compiler itself.",
        "It executes programs that are not the compiler's own. hpcc does not know which variables "
        "and files it reads.")
    WRAPPER_SCRIPT = (
        "wrapper-script", "the compiler is a script that does more than execute a compiler",
        "Call the compiler itself.",
        "Scripts such as `c99-gcc` and `musl-gcc` are cached: "
        "one line `exec PROGRAM … \"$@\" …` with plain words.")
    # fmt: on
