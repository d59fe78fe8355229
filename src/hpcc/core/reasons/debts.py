"""What each refusal costs, how it is settled and what remains: the last columns of the page.

A refusal is a debt. `cost` is the share of compile commands of `make bench-corpus` and of real
projects that were measured before; "none seen" means that no measured project has it. `settled` is
what hpcc does about it today. `remains` is what a later version can still settle, or why nothing
can. A reason without a row has the row of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.closure import ClosureReason
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.private import PrivateReason
from hpcc.core.reasons.reason import Reason
from hpcc.core.reasons.remote_cache import RefusedEntry, RefusedPack
from hpcc.core.reasons.uncacheable import UncacheableReason


@dataclass(frozen=True, slots=True)
class Debt:
    """One reason's cost, what is done about it, and what is left to do."""

    cost: str
    settled: str
    remains: str


_NO_OBJECT: Final = Debt(
    "no hit is lost: no object is made", "the command runs unchanged", "nothing"
)
_FOREIGN: Final = Debt(
    "all compiles of such programs", "the program runs unchanged", "a table of its flags"
)
_FLAG: Final = Debt(
    "none seen", "the flag is refused by name", "prove what it reads and writes, then cache it"
)
_CL: Final = Debt("only builds with cl", "refused by name", "a proof with the real cl")
_FAULT: Final = Debt(
    "none while all works", "counted, and written to `daemon.log`", "mend the fault that it names"
)
_LIMIT: Final = Debt(
    "none seen", "a limit of memory and time", "nothing: every bound ends somewhere"
)
_CHANGE: Final = Debt(
    "one compile, once", "the next compile is cached", "nothing: the inputs were not settled"
)
_PROVED: Final = Debt(
    "few commands",
    "refused where it takes effect",
    "nothing: the output depends on more than inputs",
)
_PLACE: Final = Debt(
    "the compiles in that place", "refused, with the remedy", "nothing: the place decides"
)
_DOUBT: Final = Debt(
    "few commands",
    "the text is read, then the compiler is asked",
    "spellings that only macros make",
)
_FARM: Final = Debt("no hit is lost: compiled here", "the compile runs here", "send it")
_FARM_FAULT: Final = Debt(
    "no hit is lost: compiled here", "the compile runs here", "mend the farm that failed"
)
_PRIVATE: Final = Debt(
    "only hits between checkouts",
    "the result is kept for its checkout",
    "prove that no path is in it",
)
_MARKER: Final = Debt(
    "only hits between checkouts", "the marker does not count", "nothing: mend the marker"
)
_ASKED: Final = Debt(
    "one run of the preprocessor", "the compiler lists its inputs", "find them in the text"
)
_ENTRY: Final = Debt(
    "one compile, as without a remote cache",
    "a miss and a line in `daemon.log`",
    "nothing: such bytes are not believed",
)

_PACK: Final = Debt(
    "one request for each entry, as without packs",
    "nothing of it is used, and a line in `daemon.log`",
    "nothing: such bytes are not believed",
)

_KINDS: Final[Mapping[type[Reason], Debt]] = {
    BypassReason: _FLAG,
    UncacheableReason: _DOUBT,
    FallbackReason: _FARM,
    PrivateReason: _PRIVATE,
    ClosureReason: _ASKED,
    RefusedEntry: _ENTRY,
    RefusedPack: _PACK,
}
_SHARED: Final[Mapping[type[Reason], Mapping[str, Debt]]] = {
    BypassReason: {
        "dependencies-only information link linker-input multiple-outputs no-source other-output"
        " several-modes missing-value": _NO_OBJECT,
        "other-compiler unknown-compiler wrapper wrapper-script language offload": _FOREIGN,
        "analysis elevated-daemon external-env hot-patch-file managed-code pdb sanitizer"
        " show-includes visual-studio whole-program windows-host windows-path no-farm": _CL,
        "internal-error compiler-unreadable": _FAULT,
        "response-file": _LIMIT,
        "cancelled": _CHANGE,
        "measures-time process-path odd-output special-output odd-input plugin": _PROVED,
        "relative-path other-mount-namespace other-group terminal-width compiler-path environment"
        " dependencies-output": _PLACE,
    },
    UncacheableReason: {
        "dependencies-failed depfile depfile-unreadable expansion-failed internal-error store"
        " output-unreadable search-path side-output-missing toolset": _FAULT,
        "long-diagnostics too-many-files too-many-names": _LIMIT,
        "input-vanished modified-during-compile": _CHANGE,
        "analyser-failed analyser-user date-time timestamp openmp-target pragma-dependency"
        " process-path special-input both-streams": _PROVED,
        "output-not-ours odd-directory odd-input directory-link program-prefix": _PLACE,
    },
    FallbackReason: {
        "bad-result breaker deadline dispatcher-closed dispatcher-error dispatcher-lost"
        " dispatcher-start dispatcher-timeout farm-down guest-lost worker-gone internal-error"
        " quarantined dependencies-failed exit-code": _FARM_FAULT,
        "cancelled input-changed input-vanished": _CHANGE,
    },
    PrivateReason: {
        "marker-key marker-kind marker-owner marker-size marker-syntax marker-unreadable"
        " marker-value marker-version marker-writable": _MARKER,
    },
    ClosureReason: {},
    RefusedEntry: {},
    RefusedPack: {},
}
_OWN: Final[tuple[tuple[Reason, Debt], ...]] = (
    (BypassReason.MODULES, Debt(
        "4 of 593 commands", "named modules of Clang and GCC 14 as CMake makes them",
        "interfaces in two steps; ask GCC 15",
    )),
    (BypassReason.HEADER_UNIT, Debt(
        "none seen: CMake makes none", "refused, and counted apart from modules",
        "look for the source as compilers do; keep the macros that it exports",
    )),
    (BypassReason.MULTIPLE_SOURCES, Debt(
        "none seen: build tools name one source", "each source of a plain command is cached",
        "ask all flags for further outputs; several languages, for which drivers warn otherwise",
    )),
    (BypassReason.PREPROCESS_ONLY, Debt(
        "not counted", "`-E` of one source is cached, to a file or to standard output",
        "ask GCC and Clang about the forms that are refused",
    )),
    (BypassReason.STDIN, Debt(
        "2 of 131 commands of two configure scripts, 7 ms each",
        "nothing reads the source before the compiler does",
        "the launcher reads and sends it, once the daemon asks for it",
    )),
    (BypassReason.NVCC, Debt(
        "no hit is lost: such commands link or print", "the program runs unchanged",
        "sources of C and C++ that nvcc only passes on",
    )),
    (BypassReason.NVCC_HOST, Debt(
        "not counted", "nvcc 13.0 with GCC is cached", "other versions of nvcc; Clang inside of it",
    )),
    (BypassReason.NVCC_OPTION, Debt(
        "not counted", "what CMake writes is in the table",
        "prove what an option reads and writes, then cache it; names with blanks",
    )),
    (BypassReason.THINLTO_BACKEND, Debt(
        "none seen", "the index names the modules that are read",
        "profiles and `.dwo` files; a distributor for DTLTO",
    )),
    (UncacheableReason.THINLTO_INDEX, Debt(
        "none seen", "the index is read as LLVM writes it", "ask other versions of LLVM",
    )),
    (UncacheableReason.THINLTO_MESSAGE, Debt(
        "none seen", "a message refuses the result", "nothing: a message may mean a lost module",
    )),
    (BypassReason.SYNTAX_ONLY, Debt(
        "none seen", "a check of one C or C++ source is cached",
        "ask GCC and Clang about further outputs, profiles and modules in a check",
    )),
    (BypassReason.ANALYSER, Debt(
        "not counted", "findings of one source are cached",
        "modules, precompiled headers and response files as inputs; each of several sources",
    )),
    (BypassReason.ANALYSER_DATABASE, Debt(
        "not counted", "an entry with the source's name is part of the key",
        "other wrappers in front of the compiler than ccache and distcc",
    )),
    (UncacheableReason.ANALYSER_CONFIG, Debt(
        "not counted", "each `.clang-tidy` above a file that was read is an input",
        "add `ExtraArgs` to the flags that are read",
    )),
    (UncacheableReason.ANALYSER_TEXT, Debt(
        "not counted", "literal names are looked up in each directory",
        "follow macros in include lines, and the places of `#line`",
    )),
    (UncacheableReason.MIXED_MESSAGES, Debt(
        "none seen", "sources that hit in commands of one source hit here, too",
        "run the sources one after another, so that each message has its source",
    )),
    (UncacheableReason.MODULE_FILE, Debt(
        "none seen: CMake makes them in the build directory", "refused: its sources are unknown",
        "ask Clang for them (`-module-file-info`)",
    )),
    (UncacheableReason.MODULE_STALE, Debt(
        "none: build systems make it again", "every file that it was made from is compared",
        "nothing",
    )),
    (PrivateReason.MODULES, Debt(
        "one compile for each interface in each clone",
        "what imports it names it by what it was made from",
        "compare GCC's without the section that holds directory and time, and share them",
    )),
    (UncacheableReason.MODULES, Debt(
        "header units, which CMake has not", "what GCC wrote tells what a unit uses",
        "key the header units",
    )),
    (UncacheableReason.HEADER_UNIT, Debt(
        "none seen", "the place of each header unit is watched, so that it stays empty",
        "key the header units",
    )),
    (BypassReason.PCH, Debt(
        "18 of 593 commands at the first count", "those of GCC and Clang are inputs",
        "cl; further forms of the command",
    )),
    (BypassReason.PCH_TIMESTAMP, Debt(
        "every Clang project with precompiled headers that does not give the flag",
        "refused: put back, it would be an error", "set the times of the headers",
    )),
    (BypassReason.ENVIRONMENT, Debt(
        "none seen: Kbuild's variables are not refused",
        "refused by exact name", "nothing: such a variable edits the command line",
    )),
    (BypassReason.LOADER, Debt(
        "none seen", "refused by exact name; libraries that change no output are cached",
        "nothing: the library is any code; further harmless ones by name",
    )),
    (BypassReason.WRAPPER_SCRIPT, Debt(
        "none seen: `c99-gcc` and `musl-gcc` are cached",
        "a plain `exec` is replaced by its command", "further forms of scripts",
    )),
    (BypassReason.NO_PREPROCESSING, Debt(
        "none seen: `.i`, `.ii` and `.s` are cached",
        "only flags for the preprocessor are refused", "ask what each compiler does with them",
    )),
    (BypassReason.VERBOSE_ASM, Debt(
        "3 of 500 commands of a Linux kernel", "refused by flag",
        "nothing: GCC names heuristics that depend on the memory limit",
    )),
    (UncacheableReason.TWIN_HEADERS, Debt(
        "54 of 593 commands at the first count, 10 of them real twins",
        "both files and their relation are inputs", "cl; GCC on a farm, whose times are others",
    )),
    (UncacheableReason.HAS_INCLUDE, Debt(
        "24 of 593 commands at the first count: GoogleTest, Boost, xxhash",
        "names behind macros are followed", "names that macros with arguments make",
    )),
    (UncacheableReason.DATE_TIME, Debt(
        "15 of 593 commands at the first count", "the text is read, then the compiler is asked",
        "nothing where the clock is read",
    )),
    (UncacheableReason.PCH, Debt(
        "none seen", "one that was made through hpcc is an input",
        "read what another one was made of",
    )),
    (UncacheableReason.PCH_INCLUDE, Debt(
        "none seen", "refused", "resolve the macro",
    )),
    (UncacheableReason.PCH_OF_CL, Debt(
        "one compile for each precompiled header, each time", "its users are cached",
        "a proof with the real cl",
    )),
    (UncacheableReason.PCH_STALE, Debt(
        "none: build systems make it again", "every file that it was made from is compared",
        "nothing",
    )),
    (UncacheableReason.PCH_TIMESTAMP, Debt(
        "one compile for each precompiled header, each time", "its users are cached",
        "set the times of the headers",
    )),
    (PrivateReason.PCH, Debt(
        "one compile for each precompiled header in each clone",
        "users name it by what it was made from", "share one that holds no path",
    )),
    (PrivateReason.ORIGIN, Debt(
        "none seen", "one user in each clone is compiled and compared",
        "find what differs",
    )),
    (FallbackReason.NATIVE, Debt(
        "no hit is lost: compiled here", "spelled out if the image has this compiler",
        "link-time optimization with debug information",
    )),
    (FallbackReason.SIDE_OUTPUT, Debt(
        "12 of 167 commands on the farm before most of these files came back",
        "compiled here", "GCC's hashes of absolute names, which CMake's builds have",
    )),
    (FallbackReason.MODULES, Debt(
        "the interfaces of a project; with GCC all of its units",
        "units that import interfaces of Clang's are sent with the sources in them",
        "make interfaces where the project has the path of this machine; `import std`; GCC",
    )),
    (FallbackReason.PCH, Debt(
        "precompiled headers; with Clang all units of the target",
        "units with one of GCC's get it in place of its header",
        "units with one of Clang's: the objects are equal, the list of headers is not",
    )),
    (FallbackReason.ANALYSER, Debt(
        "not counted; filters with `src/`", "run and cached here",
        "compare filters with the names of files; `--export-fixes`",
    )),
    (FallbackReason.OUTSIDE_ROOT, Debt(
        "4 of 167 commands on the farm before installed files were sent", "compiled here",
        "send files of the user's other directories",
    )),
)  # fmt: skip


def debt_of(reason: Reason) -> Debt:
    """Return the reason's own row, its group's, or that of its kind."""
    # Kinds share words, and equal words are equal keys: compare the members themselves.
    for owner, debt in _OWN:
        if owner is reason:
            return debt
    for words, debt in _SHARED[type(reason)].items():
        if reason in words.split():
            return debt
    return _KINDS[type(reason)]
