"""Why a compile was made here instead of on the farm: `fallback.REASON`."""

from __future__ import annotations

from typing import Final

from hpcc.core.reasons.reason import Reason

_LOCAL: Final = "Nothing to do: such compiles run here."
_RETRY: Final = "Nothing to do: the next compile tries the farm again."
_LOG: Final = "Read `daemon.log`."
_INSIDE: Final = "Move the files into the project."
_LITERAL: Final = "Write the file's name literally."
_CLOCK: Final = "Remove the macro."
_SYSROOT: Final = "Put the sysroot into the image."
LOCAL_SLOT: Final = "local-slot"
"""Counts and records compiles that ran here while the farm was full. They are not fallbacks."""


class FallbackReason(Reason, prefix="fallback"):
    """What the client itself detects, and what it can explain of a farm's failures.

    The set is open: a farm's own refusals are counted under the `reason` of their error.
    """

    # fmt: off
    ANALYSER = (
        "analyser",
        "a run of clang-tidy or cppcheck whose report could be another one in a guest",
        "See [what travels](cookbook.md#analysers-on-a-farm).",
        "Filters and suppressions compare names of files, and a guest has the project below "
        "`/src`. Links, `$PWD` and `--export-fixes` stay here, too. "
        "`hpcc explain` names the cause.")
    ABSOLUTE_INCLUDE = (
        "absolute-include", "a source asks for a header by its whole path",
        "Use a relative name.", "The path is another one in a guest.")
    BAD_RESULT = "bad-result", "the farm's answer lacks an output", _LOG
    BREAKER = (
        "breaker", "the farm failed repeatedly",
        "Wait: hpcc tries again soon. `daemon.log` has the cause.")
    CANCELLED = "cancelled", "the compile was interrupted", _RETRY
    DATE_TIME = "date-time", "the source holds the time of the compile", _CLOCK
    DEADLINE = "deadline", "the farm took too long", "Ask the farm's operator if it happens often."
    DEPENDENCIES_FAILED = (
        "dependencies-failed", "the compiler did not list the files that it reads", _LOG)
    DIRECTORY_SPELLING = (
        "directory-spelling", "the shell spells the directory through a link, the build does not",
        "`cd` to the directory's real name, or put a `.hpcc` at the project's root.",
        "Compilers write `$PWD` down.")
    DISPATCHER_CLOSED = "dispatcher-closed", "the daemon is closing", _RETRY
    DISPATCHER_ERROR = "dispatcher-error", "the dispatcher process failed", _LOG
    DISPATCHER_LOST = "dispatcher-lost", "the dispatcher process ended", _LOG
    DISPATCHER_START = "dispatcher-start", "the dispatcher process could not be started", _LOG
    DISPATCHER_TIMEOUT = "dispatcher-timeout", "the dispatcher did not answer in time", _LOG
    EMBED = "embed", "a source embeds a file that the farm would not have", _LITERAL
    ENVIRONMENT = (
        "environment", "a variable holds a search path that the image does not have",
        "Unset the variable, or use flags.")
    EXIT_CODE = (
        "exit-code", "the compile failed in the guest", "Nothing to do: the compiler here decides.",
        "The image or a flag that hpcc adds may be the cause.")
    EXTRA_INPUT = "extra-input", "a flag reads a file that hpcc does not send", _LOCAL
    FARM_DOWN = "farm-down", "the farm does not answer", "Wait, or ask the farm's operator."
    GUEST_LOST = "guest-lost", "its guest died, and no other guest ran the compile", _RETRY
    FULL_PATHS = (
        "full-paths", "whole paths in messages and in `__FILE__`: `/FC` (cl, clang-cl)",
        "Leave the option out of builds for a farm (`UseFullPaths` in MSBuild).",
        "They would be those of the guest.")
    HAS_INCLUDE = (
        "has-include", "a macro with arguments decides which file `__has_include` asks for",
        _LITERAL)
    HIDDEN_INPUT = (
        "hidden-input", "a hidden file of a project without a marker is read",
        "Rename the file, or put a `.hpcc` at the project's root.",
        "`hpcc explain` names the file.")
    IGNORED_INPUT = (
        "ignored-input", "a file that git ignores outside the build directory is read",
        "Put a `.hpcc` at the project's root, or move the file into the build directory.",
        "`hpcc explain` names the file. Such files may hold secrets, so only a marker sends them.")
    INCBIN = "incbin", "the assembler reads a file that hpcc does not send", _LITERAL
    INPUT = "input", "an input cannot be read", "Give yourself the right to read it."
    INPUT_CHANGED = "input-changed", "an input changed before it was sent", _RETRY
    INPUT_KIND = "input-kind", "an input is not an ordinary file", "Use ordinary files."
    INPUT_VANISHED = "input-vanished", "an input is gone", _RETRY
    INTERNAL_ERROR = (
        "internal-error", "a fault of hpcc", "Read `daemon.log`, and report what it says.")
    MISSING_INCLUDE_DIRS = (
        "missing-include-dirs",
        "`-Wmissing-include-dirs` and a search directory that is missing, or is not the project's",
        "Make the directory, or leave it or the warning out.",
        "`hpcc explain` names the directory. A guest would warn of it, or not, as its image is.")
    MODULES = (
        "modules", "C++ modules: an interface is made, GCC's modules are used, or what is imported "
        "was made from other headers than the image has",
        "Nothing to do: the compile runs here, and is cached here.",
        "Units that import named modules of Clang 17 or 19 travel if the image has the same Clang "
        "and the same headers. `hpcc explain` names the cause. Set `CMAKE_CXX_SCAN_FOR_MODULES` to "
        "`OFF` where no source uses modules: such compiles travel.")
    MULTIPLE_SOURCES = (
        "multiple-sources", "several sources in one command of cl or clang-cl (Windows)",
        "Give each source a command: `UseMultiToolTask` in MSBuild; Ninja does.")
    NAMES_IN_OUTPUT = (
        "names-in-output", "the output would hold a path of the guest, and no flag changes that",
        "Put a `.hpcc` at the project's root: paths in the output are then relative.",
        "`hpcc explain` names the flag. With installed files outside the project a `.hpcc` does "
        "not change that.")
    NATIVE = (
        "native", "the flags mean this machine's processor",
        "Use an image with this machine's compiler, or name the processor in `-march=`.",
        "If both versions are equal, the flags are spelled out and the compile travels. With "
        "`-flto` and `-g`, and with Clang and a flag such as `-mno-avx2` beside it, it stays here.")
    NO_CLIENT = (
        "no-client", "what a farm's client needs is not installed here",
        "Install the extra `hpcc[client]`: `hpcc doctor` names the command.",
        "The local cache works without it. The next compile notices the new packages.")
    NO_FARM = "no-farm", "there is no farm any more", "`hpcc status` shows the farm."
    NO_PREPROCESSING = (
        "no-preprocessing", "a source that is preprocessed already, or plain assembler with debug "
        "information or for Clang", _LOCAL,
        "Messages show lines of files that only this machine has. Other plain assembler travels.")
    NOT_IN_IMAGE = (
        "not-in-image", "the farm's image has no compiler or analyser of this name",
        "Use an image that has it, or call one that the image has.",
        "This is asked for clang-cl. clang-tidy and cppcheck must also be of the same build, with "
        "the same headers of C and C++ and the same tables.")
    NOT_UTF_8 = "not-utf-8", "an argument or a name is not UTF-8", "Rename the file."
    ODD_OUTPUT = (
        "odd-output", "an output of cl or clang-cl is also an input, or no file (Windows)",
        "Name another file.")
    OPENMP_TARGET = (
        "openmp-target", "the object names device and inode of its source", _LOCAL,
        "Clang makes names of OpenMP target regions of them. Those of a guest may occur twice.")
    OUTPUT_NOT_OURS = (
        "output-not-ours", "an output file is one that hpcc does not replace", "Remove the file.")
    OUTSIDE_ROOT = (
        "outside-root", "a file outside the project is named or read",
        "Move the files into the project, or install them for everybody below `/usr/src` or "
        "`/opt`.",
        "`hpcc explain` names the file or directory. Installed files are sent: those that root "
        "owns, everybody may read and only root may write. Name them without links.")
    PARITY = (
        "parity", "the compiler here is not the image's",
        "Install the image's compiler here, or set `parity = \"warn\"` if the farm permits it.",
        "`refuse` is in force. `hpcc explain` names both compilers. "
        "See [levels and remedies](operate.md#host-and-image-compilers).")
    PASS_THROUGH = "pass-through", "what `/clang:` passes on may hold any path", _LOCAL
    PATH = "path", "a name that a guest cannot have", "Rename the file."
    PATH_IN_FLAG = (
        "path-in-flag", "a flag that is not a path holds the project's path",
        "Use a relative path.")
    PCH = (
        "pch", "a precompiled header is made, or one is used that a guest would not take",
        "Nothing to do: the compile runs here, and is cached here.",
        "Units with one of GCC 12 to 14, which `-include` names by an absolute path as CMake does, "
        "travel if the image has the same GCC and the same headers. `hpcc explain` tells why not.")
    PDB = (
        "pdb", "cl may write a program database that compiles share (`/Zi`, `/Fd`; Windows)",
        "Use `/Z7`, which goes to the farm.")
    PRAGMA_DEPENDENCY = (
        "pragma-dependency", "`#pragma GCC dependency` compares the times of files",
        "Remove the pragma.")
    QUARANTINED = (
        "quarantined", "the compile ended two guests, so it runs here for half an hour",
        "Ask the farm's operator: the event `action-quarantined` names the compile.")
    RECORD_SWITCHES = (
        "record-switches", "the object would hold the flags that hpcc adds for a guest",
        "Leave `-frecord-gcc-switches` out.")
    RESPELLED_HEADER = (
        "respelled-header",
        "GCC calls headers of `-isystem`, or with `#pragma GCC system_header`, by their real names "
        "where these are shorter, and a guest has other lengths or no links",
        "Name such headers by absolute names, or without `..`, `./` and links.",
        "A root of 9 to 254 characters gets a guest's directory of the same length, and needs none "
        "of this without links.")
    SIDE_OUTPUT = (
        "side-output", "the compile writes a file that would name the guest",
        "Name sources, outputs and search directories relatively. Other such compiles run here.",
        "Coverage and profiles: GCC hashes absolute names for the counters. Clang's "
        "`-save-temps`: the bitcode holds them. `hpcc explain` names the flag or file.")
    SYMLINK_AND_DOTS = "symlink-and-dots", "a link before a `..`", "Name the file without `..`."
    SYMLINK_OUTSIDE_ROOT = "symlink-outside-root", "a link leads out of the project", _INSIDE
    SYSROOT = "sysroot", "a flag names a sysroot or a compiler's directory", _SYSROOT
    SYSTEM_ROOT = (
        "system-root", "the project is a directory of the system", "Build in another directory.")
    TIMESTAMP = "timestamp", "the source holds `__TIMESTAMP__`", _CLOCK
    TOO_MANY_FILES = "too-many-files", "more files than a request holds", _LOCAL
    WINDOWS_PATH = (
        "windows-path", "a path that hpcc cannot use on a farm", "Use a plain path on a drive.")
    WORKER_GONE = "worker-gone", "its worker died, and no other worker ran the compile", _RETRY
    # fmt: on
