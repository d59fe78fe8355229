"""Why a result was not stored after the compiler ran under hpcc: `uncacheable.REASON`."""

from __future__ import annotations

from typing import Final

from hpcc.core.reasons.reason import Reason

_AGAIN: Final = "Compile again: a second later it is cached."
_FIXED_NAME: Final = "Write the file's name literally."
_READS: Final = "Check that the compiler runs, and read `daemon.log`."
_CLOCK: Final = "Use GCC with `SOURCE_DATE_EPOCH`, which is cached, or remove the macro."


class UncacheableReason(Reason, prefix="uncacheable"):
    """What was found during the compile and forbids storing its result."""

    # fmt: off
    ANALYSER_CONFIG = (
        "analyser-config", "a `.clang-tidy` file that names more than checks",
        "Move `ExtraArgs` to the command line (`--extra-arg`), and files out of `CheckOptions`.",
        "`ExtraArgs`, `ExtraArgsBefore` and `RemovedArgs` change what is read, and some options of "
        "`clang-analyzer-…` name a file. Also an escape such as `\\x41`.")
    ANALYSER_FAILED = (
        "analyser-failed", "cppcheck gave up its check",
        "Give it more memory (`ulimit -v`), or report its `internalError`.",
        "The cause may be this machine, and no source shows that. Also a finding that shows the "
        "word.")
    ANALYSER_TEXT = (
        "analyser-text", "a text from which it is not certain what cppcheck reads",
        "Write names of headers literally, or leave the directory of that header out of `-I`.",
        "`#include` and `__has_include` of a macro, a comment inside such a line, `#line`, and "
        "UTF-16. Also a library (`--library`) that defines such a macro.")
    ANALYSER_USER = (
        "analyser-user", "a finding of clang-tidy shows the name of the user",
        "Name somebody in each `TODO`, or leave `google-readability-todo` out.",
        "The check proposes `TODO(NAME)` with `$USER`, which no key holds.")
    BOTH_STREAMS = (
        "both-streams", "messages on stdout and on stderr", "Fix what writes to stdout.",
        "Their order would be lost where both lead to one file. clang-cl's list of headers "
        "(`/showIncludes`) does not count.")
    CLOCK_SET = (
        "clock-set", "the machine's clock was set while the compiler ran", _AGAIN,
        "The times of files then do not tell which of them changed.")
    CONFIG_FILE = (
        "config-file", "a configuration or specs file that hpcc does not accept",
        "Put the flags on the command line.",
        "Clang reads a configuration file that does more than add flags, or one for another "
        "target, or GCC reads a specs file of a relative `LIBRARY_PATH`. Also a `cppcheck.cfg`, "
        "and `/files.txt`, from which cppcheck reads results.")
    DATE_TIME = (
        "date-time", "the source or the object holds the time of the compile", _CLOCK,
        "`__DATE__`, `__TIME__`.")
    DEPENDENCIES_FAILED = (
        "dependencies-failed", "the compiler did not list the files that it read", _READS)
    DEPFILE = "depfile", "the depfile cannot be parsed", _READS
    DEPFILE_UNREADABLE = "depfile-unreadable", "the depfile cannot be read", _READS
    DIRECTORY_LINK = (
        "directory-link", "a symbolic link where a header or list might appear",
        "Put a directory or a file in place of the link.")
    EMBED = (
        "embed", "a macro decides which file `#embed` reads or asks for", _FIXED_NAME,
        "Names are followed with Clang 19 to 22. With GCC, which has `#embed` since version 15, "
        "and with every other version a text that mentions it is refused: no such compiler was "
        "asked which embedded files it lists.")
    EXPANSION_FAILED = (
        "expansion-failed", "the preprocessor did not show the source's expansion", _READS)
    HAS_INCLUDE = (
        "has-include", "a macro with arguments decides which file `__has_include` asks for",
        _FIXED_NAME, "A macro that stands for the operator or for a whole name is followed.")
    HEADER_UNIT = (
        "header-unit", "a header of the unit may be replaced by a compiled header unit",
        "Remove the directory `,` or the file that `hpcc explain` names.",
        "With `-fmodules-ts` GCC imports a header unit in place of an `#include`. Also a map that "
        "names header units, or has lines of a form that CMake does not write.")
    INCBIN = (
        "incbin", "a macro decides which file the assembler reads", _FIXED_NAME,
        "GCC: `.incbin` and `.include` are followed however they are spelled. Clang: where the "
        "preprocessor's output holds them literally. LLVM bitcode: where no text in it could name "
        "one.")
    INPUT_VANISHED = "input-vanished", "a file vanished during the compile", _AGAIN
    INTERNAL_ERROR = (
        "internal-error", "a fault of hpcc", "Read `daemon.log`, and report what it says.")
    LONG_DIAGNOSTICS = (
        "long-diagnostics", "more messages than hpcc keeps, or more text from `-E`",
        "Fix or silence the warnings; use `-E -o FILE`.", "The limit is 1 MiB for each stream.")
    MIXED_MESSAGES = (
        "mixed-messages", "a command with several sources printed messages",
        "Fix what they are about, or compile each source in its own command.",
        "They do not tell which source they belong to.")
    MODIFIED_DURING_COMPILE = (
        "modified-during-compile",
        "a file changed, is open for writing or is younger than the compile", _AGAIN)
    MODULE_FILE = (
        "module-file", "a compiled interface that hpcc does not know",
        "Make it through hpcc, in the build directory that uses it.",
        "`hpcc explain` names it. What it was made from is an input of the units that import it.")
    MODULE_STALE = (
        "module-stale", "a source of a module changed since its interface was compiled, or is gone",
        "Compile the interface again.",
        "`hpcc explain` names the file. The compiler still takes the old interface.")
    MODULES = (
        "modules", "GCC 14: a header unit, or modules that no list tells",
        "Import named modules, with `-fdeps-format=p1689r5` as CMake passes it. Declare a module "
        "without macros.",
        "Macros of a header unit act in the unit. `hpcc explain` names the line.")
    NOT_PREPROCESSED = (
        "not-preprocessed", "a `.i` or `.ii` file with directives that a preprocessor replaces",
        "Name the file `.c` or `.cc`.",
        "`#include`, `#if` and the like, or a directive over several lines.")
    ODD_DIRECTORY = (
        "odd-directory", "a file on the search path, or a link where a name needs a directory",
        "Put a directory there, or remove it from the search path.")
    ODD_INPUT = (
        "odd-input", "a flag led to something that is not an ordinary file",
        "Name an ordinary file.", "A device or pipe was read.")
    OPENMP_TARGET = (
        "openmp-target", "the object names device and inode of a file that hpcc does not track",
        "Leave out the `#line` directive, or compile without `-fopenmp`.",
        "Clang makes names of OpenMP target regions of them. Those of an input are tracked.")
    OUTPUT_NOT_OURS = (
        "output-not-ours",
        "a hit could not be written: the output has a second link or another owner",
        "Remove the output file.")
    OUTPUT_UNREADABLE = (
        "output-unreadable", "the compiler did not write an object that can be read",
        "Check where the output goes, and its size.")
    PCH = (
        "pch", "a precompiled header that hpcc does not know lies beside a header",
        "Make it through hpcc with the flags of its users and of the header beside it, or remove "
        "the file.",
        "`hpcc explain` names it. hpcc knows those that were made through it at that place of one "
        "header, if no clock and no question of `__has_include` came from the command line. Where "
        "the preprocessor is asked about a unit (a word like `__TIME__` in a text), the unit needs "
        "the flags of the making, and no header that the making would find may be new.")
    PCH_INCLUDE = (
        "pch-include", "`#include` of a macro in a unit with a precompiled header",
        "Write the header's name literally, or compile this source without the precompiled header: "
        "`SKIP_PRECOMPILE_HEADERS` in CMake.",
        "GCC skips a header that is in the precompiled one, and lists it nowhere.")
    PCH_OF_CL = (
        "pch-of-cl", "a precompiled header of cl, which cl makes each time",
        "To try it: set `cache.restore_cl_pch` (Windows).",
        "Microsoft's documents do not say whether cl takes one that was put back. Sources that use "
        "it are cached, and compiled again whenever cl writes other bytes.")
    PCH_STALE = (
        "pch-stale", "a header changed since it was precompiled, or is gone",
        "Make the precompiled header again.",
        "`hpcc explain` names the header. The compiler still uses the old text.")
    PCH_TIMESTAMP = (
        "pch-timestamp", "a precompiled header of clang-cl with the times of its headers in it",
        "CMake: `add_compile_options(\"SHELL:-Xclang -fno-pch-timestamp\")` for clang-cl.",
        "Put back beside other headers, it would be an error for its users. They are cached.")
    PDB = (
        "pdb", "cl's `/Fd` names a program database that changed during the compile",
        "Give each target a separate directory for it, or leave `/Fd` out.",
        "Without `/Zi` cl writes none. hpcc looks after each compile, because no cl proved it.")
    PRAGMA_DEPENDENCY = (
        "pragma-dependency", "`#pragma GCC dependency` compares the times of files",
        "Remove the pragma.")
    PROCESS_PATH = "process-path", "a link leads below `/proc`", "Let the link lead elsewhere."
    PROGRAM_PREFIX = (
        "program-prefix", "a script or a wrapper below a `-B` directory, or as assembler",
        "Put the program itself there.")
    SEARCH_PATH = "search-path", "the compiler did not report where it looks for headers", _READS
    SIDE_OUTPUT_MISSING = (
        "side-output-missing", "the compiler did not write a file that its flags announce", _READS)
    SPECIAL_INPUT = "special-input", "a device or pipe was read", "Compile ordinary files."
    SPECS = (
        "specs", "a specs file that does more than add flags", "Use a simpler specs file.",
        "It includes others, asks the environment or replaces what GCC does.")
    STORE = (
        "store", "the result could not be written to the store",
        "Look for a full or broken disk; `daemon.log` has the error.")
    THINLTO_INDEX = (
        "thinlto-index", "an index of ThinLTO that hpcc cannot read",
        "Make it with the linker that belongs to this Clang.",
        "It names the modules of which parts are read.")
    THINLTO_MESSAGE = (
        "thinlto-message", "a back end of ThinLTO printed a message", "Mend what it is about.",
        "Clang ends with status 0 when a module is missing, and only says so.")
    TIMESTAMP = "timestamp", "the source holds `__TIMESTAMP__`", _CLOCK
    TOO_MANY_FILES = (
        "too-many-files", "more files were read than hpcc tracks",
        "Nothing to do: a limit of hpcc.")
    TOO_MANY_NAMES = (
        "too-many-names", "more names were looked for than hpcc tracks",
        "Shorten the search path: this is a limit of hpcc.")
    TOOLSET = "toolset", "GCC or Clang did not report where it finds its programs", _READS
    TWIN_HEADERS = (
        "twin-headers", "two headers of one content and `#pragma once`",
        "Use include guards, or remove one of the two.",
        "Only with cl, on Windows and on a farm. Which of them is read depends on their times.")
    UNCLEAR_NAME = (
        "unclear-name", "a name in an include line that may mean another file on Windows",
        "Write the name of the header as its file is named.",
        "8.3 names (`LONGNA~1.H`), devices, names with a dot or space at the end, servers, "
        "directories that are not there or distinguish capitals, `#pragma include_alias`, "
        "`#import`.")
    # fmt: on
