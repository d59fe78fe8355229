"""The flag table of cl, clang-cl, `clang --driver-mode=cl` and icx-cl.

Sources: Microsoft's cpp-docs ("Compiler options listed by category", one page for each option) and
Clang's user manual, "clang-cl", with clang/include/clang/Driver/Options.td (CLOption). Rows of
clang-cl were tested with the real program. Rows only for cl are from the documents and not yet run
on Windows. No row is from another cache's table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hpcc.compilers.spec.table import Arity, Effect, FlagSpec
from hpcc.core.reasons.bypass import BypassReason

_ALONE, _JOINED, _EITHER = Arity.ALONE, Arity.JOINED, Arity.EITHER
_SEPARATE: Final = Arity.SEPARATE
_DOCS: Final = "cpp-docs, "
_CLANG: Final = "clang-cl, "
TO_CLANG: Final = "clang:"
DATABASE: Final = "Fd"
DEPFILE: Final = "clang:-MF"
TARGETS: Final = ("clang:-MT", "clang:-MQ")
"""They name a target of a depfile; without them it is named after the object."""
ALL_FILES: Final = ("clang:-MD", "clang:-MMD")
"""With the first one a depfile lists every file, with the other one no system headers."""

FULL_PATHS: Final = "FC"
"""Visual Studio always passes it. In a guest the paths would be the guest's."""


@dataclass(frozen=True, slots=True)
class MsvcSpec(FlagSpec):
    """A row of the table. `spelling` omits the `/` or `-`.

    `is_cl` and `is_clang_cl`: which accepts it. `takes_colon`: a ':' may precede the value.
    """

    is_cl: bool = field(default=True, kw_only=True)
    is_clang_cl: bool = field(default=True, kw_only=True)
    takes_colon: bool = field(default=False, kw_only=True)


def _rows(
    arity: Arity,
    effect: Effect,
    source: str,
    *spellings: str,
    reason: str = "",
    is_cl: bool = True,
    is_clang_cl: bool = True,
    takes_colon: bool = False,
) -> list[MsvcSpec]:
    return [
        MsvcSpec(
            s, arity, effect, source=source, reason=reason,
            is_cl=is_cl, is_clang_cl=is_clang_cl, takes_colon=takes_colon,
        )
        for s in spellings
    ]  # fmt: skip


def _both(arity: Arity, effect: Effect, page: str, *spellings: str) -> list[MsvcSpec]:
    return _rows(arity, effect, _DOCS + page, *spellings)


def _cl(arity: Arity, effect: Effect, page: str, *spellings: str) -> list[MsvcSpec]:
    return _rows(arity, effect, _DOCS + page, *spellings, is_clang_cl=False)


def _clang(arity: Arity, effect: Effect, page: str, *spellings: str) -> list[MsvcSpec]:
    return _rows(arity, effect, _CLANG + page, *spellings, is_cl=False)


def _refuse(arity: Arity, reason: str, page: str, *spellings: str) -> list[MsvcSpec]:
    return _rows(arity, Effect.REFUSE, _DOCS + page, *spellings, reason=reason)


_FILES: Final = [
    *_both(_ALONE, Effect.MODE, "/c", "c"),
    *_rows(_JOINED, Effect.OUTPUT, _DOCS + "/Fo", "Fo", takes_colon=True),
    *_clang(_EITHER, Effect.OUTPUT, "/o", "o"),
    *_both(_ALONE, Effect.LANGUAGE, "/TC", "TC", "TP"),
    *_both(_EITHER, Effect.LANGUAGE, "/Tc", "Tc", "Tp"),
    # CMake and MSBuild always pass it. clang-cl ignores it (Options.td, CLIgnoredJoined), and cl
    # writes such a file only with /Zi or /ZI: see `database_of`.
    *_rows(_JOINED, Effect.CODEGEN, _DOCS + "/Fd", DATABASE, takes_colon=True),
    *_refuse(_JOINED, BypassReason.PCH, "/Fp; /Yc; /Yu", "Fp", "Yc", "Yu", "Yd", "Yl", "Y-", "YX"),
    *_refuse(_JOINED, BypassReason.SIDE_OUTPUT, "/FA", "FA", "Fa", "Fi", "Fm", "FR", "Fr", "Fx"),
    *_refuse(_JOINED, BypassReason.LINK, "/Fe", "Fe"),
    *_refuse(_JOINED, BypassReason.LINK, "/link", "link", "LN"),
    *_refuse(_ALONE, BypassReason.LINK, "/LD", "LD", "LDd"),
    *_refuse(_JOINED, BypassReason.SIDE_OUTPUT, "/doc", "doc"),
    *_refuse(_ALONE, BypassReason.PREPROCESS_ONLY, "/E", "E", "EP", "P", "C", "PD"),
    *_refuse(_ALONE, BypassReason.SYNTAX_ONLY, "/Zs", "Zs"),
    *_refuse(_ALONE, BypassReason.INFORMATION, "/HELP", "?", "help", "HELP", "Bv", "Bt", "Bt+"),
    *_refuse(_JOINED, BypassReason.MEASURES_TIME, "/d1reportTime", "d1reportTime", "d2cgsummary"),
]

_SEARCH: Final = [
    *_both(_EITHER, Effect.INCLUDE_DIR, "/I", "I"),
    *_both(_EITHER, Effect.INCLUDE_DIR, "/external", "external:I"),
    *_refuse(_JOINED, BypassReason.EXTERNAL_ENV, "/external", "external:env:"),
    *_both(_ALONE, Effect.CODEGEN, "/external", "external:anglebrackets", "external:templates-"),
    *_both(_JOINED, Effect.CODEGEN, "/external", "external:W"),
    *_cl(_ALONE, Effect.CODEGEN, "/experimental:external", "experimental:external"),
    *_clang(_EITHER, Effect.INCLUDE_DIR, "/imsvc", "imsvc"),
    *_both(_ALONE, Effect.SEARCH, "/X", "X"),
    *_clang(_EITHER, Effect.SEARCH, "/winsysroot", "winsysroot", "vctoolsdir", "winsdkdir"),
    *_clang(_EITHER, Effect.SEARCH, "/vctoolsversion", "vctoolsversion", "winsdkversion"),
    *_clang(_EITHER, Effect.SEARCH, "/diasdkdir", "diasdkdir"),
    *_clang(_JOINED, Effect.SEARCH, "--target", "-target="),
    *_clang(_ALONE, Effect.SEARCH, "--driver-mode", "-driver-mode=cl"),
    *_both(_EITHER, Effect.FORCED_INCLUDE, "/FI", "FI"),
    *_refuse(_EITHER, BypassReason.SIDE_OUTPUT, "/FU", "FU", "AI"),
    # Whole paths in messages, of cl also in __FILE__: the working directory is in each key.
    *_both(_ALONE, Effect.CODEGEN, "/FC", FULL_PATHS),
]

_LANGUAGE: Final = [
    *_both(_EITHER, Effect.PREPROCESS, "/D", "D", "U"),
    *_both(_ALONE, Effect.PREPROCESS, "/u", "u"),
    *_both(_JOINED, Effect.PREPROCESS, "/std", "std:"),
    *_both(_JOINED, Effect.CODEGEN, "/Zc", "Zc:"),
    *_both(_ALONE, Effect.CODEGEN, "/Za", "Za", "Ze", "Zg", "Zl", "permissive", "permissive-"),
    *_both(_JOINED, Effect.CODEGEN, "/Zp", "Zp"),
    *_both(_JOINED, Effect.CODEGEN, "/Zm", "Zm"),
    *_both(_ALONE, Effect.CODEGEN, "/J", "J", "utf-8", "validate-charset", "validate-charset-"),
    *_both(_JOINED, Effect.CODEGEN, "/source-charset", "source-charset:", "execution-charset:"),
    *_both(_JOINED, Effect.CODEGEN, "/vd", "vd", "vm"),
    *_both(_JOINED, Effect.CODEGEN, "/EH", "EH"),
    *_both(_JOINED, Effect.CODEGEN, "/GR", "GR", "Gw", "Gy", "GS", "Gs", "Gm-", "GF", "GX"),
    *_both(_JOINED, Effect.CODEGEN, "/constexpr", "constexpr:"),
    *_both(_ALONE, Effect.CODEGEN, "/await", "await", "await:strict", "Zo", "Zo-", "bigobj"),
    *_both(_ALONE, Effect.CODEGEN, "/H", "homeparams", "volatile:iso", "volatile:ms"),
    *_both(_ALONE, Effect.CODEGEN, "/openmp", "openmp", "openmp-", "openmp:experimental"),
    *_cl(_ALONE, Effect.CODEGEN, "/openmp", "openmp:llvm"),
    *_refuse(
        _JOINED,
        BypassReason.MODULES,
        "/interface",
        "interface",
        "internalPartition",
        "exportHeader",
    ),
    *_refuse(
        _JOINED, BypassReason.MODULES, "/reference", "reference", "headerUnit", "headerName", "ifc"
    ),
    *_refuse(
        _JOINED, BypassReason.MODULES, "/scanDependencies", "scanDependencies", "translateInclude"
    ),
    *_refuse(_ALONE, BypassReason.MODULES, "/experimental:module", "experimental:module"),
    *_refuse(_JOINED, BypassReason.MANAGED_CODE, "/clr", "clr"),
    *_refuse(_JOINED, BypassReason.MANAGED_CODE, "/ZW", "ZW", "winmd"),
]

_CODE: Final = [
    *_both(_JOINED, Effect.CODEGEN, "/O", "O"),
    *_both(_JOINED, Effect.CODEGEN, "/arch", "arch:", "favor:", "fp:"),
    *_both(_ALONE, Effect.CODEGEN, "/Gd", "Gd", "Gr", "Gv", "Gz", "Gregcall", "Ge", "Gh", "GH"),
    *_both(_ALONE, Effect.CODEGEN, "/GA", "GA", "GT", "QIfist", "QIntel-jcc-erratum"),
    *_both(_JOINED, Effect.CODEGEN, "/guard", "guard:", "Qspectre", "Qpar", "Qvec", "Qfast"),
    *_both(_ALONE, Effect.CODEGEN, "/MD", "MD", "MDd", "MT", "MTd"),
    *_both(_ALONE, Effect.CODEGEN, "/Z7", "Z7"),
    *_both(_ALONE, Effect.CODEGEN, "/JMC", "JMC", "JMC-"),
    *_both(_ALONE, Effect.CODEGEN, "/RTC", "RTC1", "RTCc", "RTCs", "RTCu", "RTCsu"),
    *_cl(_ALONE, Effect.CODEGEN, "/jumptablerdata", "jumptablerdata"),
    # cl shares a program database between compiles. clang-cl puts it into the object, like /Z7.
    *_rows(_ALONE, Effect.CODEGEN, _DOCS + "/Zi", "Zi"),
    *_refuse(_ALONE, BypassReason.PDB, "/ZI", "ZI"),
    *_refuse(_JOINED, BypassReason.WHOLE_PROGRAM, "/GL", "GL"),
    *_refuse(_JOINED, BypassReason.SANITIZER, "/fsanitize", "fsanitize", "fno-sanitize"),
    *_refuse(_JOINED, BypassReason.ANALYSIS, "/analyze", "analyze"),
    *_refuse(_JOINED, BypassReason.PROFILE, "/Yprofile", "Qprof"),
    *_refuse(
        _JOINED, BypassReason.HOT_PATCH_FILE, "/functionlist", "dynamicdeopt", "functionpadmin"
    ),
    *_cl(_ALONE, Effect.CODEGEN, "/hotpatch", "hotpatch"),
]

_MESSAGES: Final = [
    *_both(_ALONE, Effect.CODEGEN, "/nologo", "nologo", "w", "sdl", "sdl-"),
    *_cl(_ALONE, Effect.CODEGEN, "/nologo", "nologo-"),
    *_both(_ALONE, Effect.CODEGEN, "/W", "W0", "W1", "W2", "W3", "W4", "Wall", "WX", "WX-"),
    *_both(_ALONE, Effect.CODEGEN, "/WL", "WL", "Wp64"),
    *_cl(_JOINED, Effect.CODEGEN, "/Wv", "Wv:"),
    *_both(_JOINED, Effect.CODEGEN, "/w", "wd", "we", "wo", "w1", "w2", "w3", "w4"),
    *_both(_JOINED, Effect.CODEGEN, "/diagnostics", "diagnostics:", "errorReport:"),
    *_both(_ALONE, Effect.CODEGEN, "/showIncludes", "showIncludes"),
    *_clang(_ALONE, Effect.CODEGEN, "/showIncludes:user", "showIncludes:user"),
    *_both(_ALONE, Effect.CODEGEN, "/FS", "FS", "Brepro", "Brepro-"),
    *_both(_JOINED, Effect.CODEGEN, "/MP", "MP"),
    *_both(_JOINED, Effect.CODEGEN, "/cgthreads", "cgthreads"),
    # clang-cl warns about it and does not write the file.
    *_both(_EITHER, Effect.SIDE_OUTPUT, "/sourceDependencies", "sourceDependencies"),
    *_refuse(_JOINED, BypassReason.SIDE_OUTPUT, "/experimental:log", "experimental:log"),
    *_cl(_ALONE, Effect.CODEGEN, "/options:strict", "options:strict", "presetPadding"),
    *_cl(_ALONE, Effect.CODEGEN, "ADR 26", "experimental:deterministic", "d1nodatetime"),
    *_cl(_JOINED, Effect.CODEGEN, "ADR 26", "pathmap:", "d1trimfile:"),
    *_refuse(_SEPARATE, BypassReason.PASS_THROUGH, "-Xclang", "Xclang", "mllvm"),
    *_clang(_JOINED, Effect.LIST, "/clang:", TO_CLANG),
    # clang's own flags for a depfile, which CMake passes in place of /showIncludes since 4.
    *_clang(_ALONE, Effect.DEPENDENCY, "/clang:", *ALL_FILES, "clang:-MP"),
    *_clang(_JOINED, Effect.DEPENDENCY, "/clang:", DEPFILE, *TARGETS),
]


class MsvcTable:
    """Rows by spelling: an exact match first, then the longest prefix."""

    def __init__(self, rows: list[MsvcSpec]) -> None:
        self.rows: Final = tuple(rows)
        self._exact: dict[bytes, MsvcSpec] = {}
        self._prefixes: dict[bytes, MsvcSpec] = {}
        for row in rows:
            name = row.spelling.encode()
            known = self._prefixes if row.arity is Arity.JOINED else self._exact
            assert name not in known, f"two rows for {row.spelling}"
            known[name] = row
            if row.arity is Arity.EITHER:
                self._prefixes[name] = row
        self._lengths = tuple(sorted({len(p) for p in self._prefixes}, reverse=True))

    def find(self, name: bytes, *, is_clang: bool) -> MsvcSpec | None:
        """Return the row for an argument without its first character."""
        for row in self._candidates(name):
            if row.is_clang_cl if is_clang else row.is_cl:
                return row
        return None

    def _candidates(self, name: bytes) -> list[MsvcSpec]:
        exact = self._exact.get(name)
        longest = (self._prefixes.get(name[:n]) for n in self._lengths if n <= len(name))
        found = [exact, *longest]
        return [row for row in found if row is not None]


MSVC_FLAGS: Final = MsvcTable([*_FILES, *_SEARCH, *_LANGUAGE, *_CODE, *_MESSAGES])
